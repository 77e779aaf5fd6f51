//! What each API's refusal looks like: fields of the request in their order, and what the answer has between and behind them.

use super::recipe::{
    CLUSTER, Code, DELEGATION_TOKEN, Field, GROUP, Kind, Op, Recipe, TOPIC, TRANSACTIONAL_ID, all, since, until,
};

const fn copy(kind: Kind) -> Field {
    all(Op::Copy(kind))
}

const fn skip(kind: Kind) -> Field {
    all(Op::Skip(kind))
}

const TEXT: Kind = Kind::Text;
const BLOB: Kind = Kind::Blob;
/// INT8 or BOOLEAN, INT16, INT32, INT64, UUID.
const BYTE: Kind = Kind::Fixed(1);
const SHORT: Kind = Kind::Fixed(2);
const INT: Kind = Kind::Fixed(4);
const LONG: Kind = Kind::Fixed(8);
const UUID: Kind = Kind::Fixed(16);
/// A producer's id and epoch.
const PRODUCER: Kind = Kind::Fixed(10);

/// A throttle time of nothing.
const THROTTLE: Op = Op::Put(&[0; 4]);
/// An offset, time or id that is not known, and a producer's id and epoch.
const MINUS_ONE: Op = Op::Put(&[0xff; 8]);
const NO_PRODUCER: Op = Op::Put(&[0xff; 10]);
/// Authorized operations that were not asked for.
const NO_OPERATIONS: Op = Op::Put(&i32::MIN.to_be_bytes());

/// `[name, [partition]]` to `[name, [partition, error]]`.
const TOPICS_OF_PARTITIONS: &[Field] =
    &[copy(TEXT), all(Op::Each(&[copy(INT), all(Op::Error), all(Op::NoTags)])), all(Op::Tags)];

/// An error of the whole answer, why, and an empty list.
const NOTHING_LISTED: &[Field] = &[all(THROTTLE), all(Op::Error), all(Op::Message), all(Op::Empty), all(Op::NoTags)];

/// An error of the whole answer, and why.
const ERROR_ALONE: &[Field] = &[all(THROTTLE), all(Op::Error), all(Op::Message), all(Op::NoTags)];

const fn always(key: i16, versions: (i16, i16), code: i16, fields: &'static [Field]) -> Recipe {
    Recipe { key, from: versions.0, to: versions.1, code: Code::Always(code), fields }
}

pub(super) fn recipe(key: i16) -> Option<&'static Recipe> {
    TABLE.binary_search_by_key(&key, |recipe| recipe.key).ok().map(|at| &TABLE[at])
}

pub(super) fn all_recipes() -> impl Iterator<Item = &'static Recipe> {
    TABLE.iter()
}

/// By key, ascending.
static TABLE: &[Recipe] = &[
    // Produce.
    always(
        0,
        (0, 13),
        TOPIC,
        &[
            since(3, Op::Skip(TEXT)),
            all(Op::Keep(0, SHORT)),
            skip(INT),
            all(Op::Each(&[
                until(12, Op::Copy(TEXT)),
                since(13, Op::Copy(UUID)),
                all(Op::Each(&[
                    copy(INT),
                    skip(BLOB),
                    all(Op::Error),
                    // Base offset, log append time, log start offset.
                    all(MINUS_ONE),
                    since(2, MINUS_ONE),
                    since(5, MINUS_ONE),
                    // Records in error.
                    since(8, Op::Empty),
                    since(8, Op::NoText),
                    all(Op::Tags),
                ])),
                all(Op::Tags),
            ])),
            since(1, THROTTLE),
            all(Op::Tags),
        ],
    ),
    // OffsetCommit.
    always(
        8,
        (2, 10),
        GROUP,
        &[
            // Group, generation, member, instance, retention.
            skip(TEXT),
            skip(INT),
            skip(TEXT),
            since(7, Op::Skip(TEXT)),
            until(4, Op::Skip(LONG)),
            since(3, THROTTLE),
            all(Op::Each(&[
                until(9, Op::Copy(TEXT)),
                since(10, Op::Copy(UUID)),
                all(Op::Each(&[
                    copy(INT),
                    skip(LONG),
                    since(6, Op::Skip(INT)),
                    skip(TEXT),
                    all(Op::Error),
                    all(Op::Tags),
                ])),
                all(Op::Tags),
            ])),
            all(Op::Tags),
        ],
    ),
    // JoinGroup.
    always(
        11,
        (0, 9),
        GROUP,
        &[
            since(2, THROTTLE),
            all(Op::Error),
            all(Op::Put(&[0xff; 4])),
            // Protocol's type and name, leader, assignment skipped, member.
            since(7, Op::NoText),
            until(6, Op::EmptyText),
            since(7, Op::NoText),
            all(Op::EmptyText),
            since(9, Op::Put(&[0])),
            all(Op::EmptyText),
            all(Op::Empty),
            all(Op::NoTags),
        ],
    ),
    // Heartbeat.
    always(12, (0, 4), GROUP, &[since(1, THROTTLE), all(Op::Error), all(Op::NoTags)]),
    // LeaveGroup.
    always(13, (0, 5), GROUP, &[since(1, THROTTLE), all(Op::Error), since(3, Op::Empty), all(Op::NoTags)]),
    // SyncGroup.
    always(
        14,
        (0, 5),
        GROUP,
        &[
            since(1, THROTTLE),
            all(Op::Error),
            since(5, Op::NoText),
            since(5, Op::NoText),
            all(Op::Empty),
            all(Op::NoTags),
        ],
    ),
    // DescribeGroups.
    always(
        15,
        (0, 6),
        GROUP,
        &[
            since(1, THROTTLE),
            all(Op::Each(&[
                all(Op::Keep(1, TEXT)),
                all(Op::Error),
                since(6, Op::Message),
                all(Op::Kept(1)),
                // State, protocol's type, protocol, members.
                all(Op::EmptyText),
                all(Op::EmptyText),
                all(Op::EmptyText),
                all(Op::Empty),
                since(3, NO_OPERATIONS),
                all(Op::NoTags),
            ])),
            since(3, Op::Skip(BYTE)),
            all(Op::Tags),
        ],
    ),
    // ListGroups.
    always(16, (0, 5), CLUSTER, &[since(1, THROTTLE), all(Op::Error), all(Op::Empty), all(Op::NoTags)]),
    // CreateTopics.
    always(
        19,
        (0, 7),
        TOPIC,
        &[
            since(2, THROTTLE),
            all(Op::Each(&[
                copy(TEXT),
                // Partitions and replicas, assignments, configs.
                skip(Kind::Fixed(6)),
                all(Op::Through(&[skip(INT), all(Op::Through(&[skip(INT)])), all(Op::SkipTags)])),
                all(Op::Through(&[skip(TEXT), skip(TEXT), all(Op::SkipTags)])),
                since(7, Op::Put(&[0; 16])),
                all(Op::Error),
                since(1, Op::Message),
                since(5, Op::Put(&[0xff; 6])),
                since(5, Op::Empty),
                all(Op::Tags),
            ])),
            skip(INT),
            since(1, Op::Skip(BYTE)),
            all(Op::Tags),
        ],
    ),
    // DeleteTopics.
    always(
        20,
        (0, 6),
        TOPIC,
        &[
            since(1, THROTTLE),
            until(5, Op::Each(&[copy(TEXT), all(Op::Error), since(5, Op::Message), all(Op::NoTags)])),
            since(6, Op::Each(&[copy(TEXT), copy(UUID), all(Op::Error), all(Op::Message), all(Op::Tags)])),
            skip(INT),
            all(Op::Tags),
        ],
    ),
    // DeleteRecords.
    always(
        21,
        (0, 2),
        TOPIC,
        &[
            all(THROTTLE),
            all(Op::Each(&[
                copy(TEXT),
                // Low watermark.
                all(Op::Each(&[copy(INT), skip(LONG), all(MINUS_ONE), all(Op::Error), all(Op::Tags)])),
                all(Op::Tags),
            ])),
            skip(INT),
            all(Op::Tags),
        ],
    ),
    // InitProducerId.
    Recipe {
        key: 22,
        from: 0,
        to: 6,
        code: Code::OfProducer,
        fields: &[
            all(Op::Keep(0, TEXT)),
            all(THROTTLE),
            all(Op::Error),
            all(NO_PRODUCER),
            since(6, NO_PRODUCER),
            all(Op::NoTags),
        ],
    },
    // AddPartitionsToTxn; brokers alone send it from version 4 on.
    always(
        24,
        (0, 5),
        TRANSACTIONAL_ID,
        &[
            until(3, Op::Skip(TEXT)),
            until(3, Op::Skip(PRODUCER)),
            all(THROTTLE),
            until(3, Op::Each(TOPICS_OF_PARTITIONS)),
            since(4, Op::Code(CLUSTER)),
            since(4, Op::Empty),
            all(Op::NoTags),
        ],
    ),
    // AddOffsetsToTxn.
    always(25, (0, 4), TRANSACTIONAL_ID, &[all(THROTTLE), all(Op::Error), all(Op::NoTags)]),
    // EndTxn.
    always(26, (0, 5), TRANSACTIONAL_ID, &[all(THROTTLE), all(Op::Error), since(5, NO_PRODUCER), all(Op::NoTags)]),
    // WriteTxnMarkers.
    always(
        27,
        (0, 1),
        CLUSTER,
        &[
            all(Op::Each(&[
                copy(LONG),
                // Epoch, result.
                skip(Kind::Fixed(3)),
                all(Op::Each(TOPICS_OF_PARTITIONS)),
                skip(INT),
                all(Op::Tags),
            ])),
            all(Op::Tags),
        ],
    ),
    // TxnOffsetCommit.
    always(
        28,
        (0, 5),
        TRANSACTIONAL_ID,
        &[
            // Transactional id, group, producer; generation, member, instance.
            skip(TEXT),
            skip(TEXT),
            skip(PRODUCER),
            since(3, Op::Skip(INT)),
            since(3, Op::Skip(TEXT)),
            since(3, Op::Skip(TEXT)),
            all(THROTTLE),
            all(Op::Each(&[
                copy(TEXT),
                all(Op::Each(&[
                    copy(INT),
                    skip(LONG),
                    since(2, Op::Skip(INT)),
                    skip(TEXT),
                    all(Op::Error),
                    all(Op::Tags),
                ])),
                all(Op::Tags),
            ])),
            all(Op::Tags),
        ],
    ),
    // DescribeAcls.
    always(29, (0, 3), CLUSTER, NOTHING_LISTED),
    // CreateAcls.
    always(
        30,
        (0, 3),
        CLUSTER,
        &[
            all(THROTTLE),
            all(Op::Each(&[
                // Resource's type, name and pattern; principal, host; operation and permission.
                skip(BYTE),
                skip(TEXT),
                since(1, Op::Skip(BYTE)),
                skip(TEXT),
                skip(TEXT),
                skip(SHORT),
                all(Op::Error),
                all(Op::Message),
                all(Op::Tags),
            ])),
            all(Op::Tags),
        ],
    ),
    // DeleteAcls.
    always(
        31,
        (0, 3),
        CLUSTER,
        &[
            all(THROTTLE),
            all(Op::Each(&[
                skip(BYTE),
                skip(TEXT),
                since(1, Op::Skip(BYTE)),
                skip(TEXT),
                skip(TEXT),
                skip(SHORT),
                all(Op::Error),
                all(Op::Message),
                all(Op::Empty),
                all(Op::Tags),
            ])),
            all(Op::Tags),
        ],
    ),
    // DescribeConfigs.
    Recipe {
        key: 32,
        from: 0,
        to: 4,
        code: Code::OfResource,
        fields: &[
            all(THROTTLE),
            all(Op::Each(&[
                all(Op::Keep(0, BYTE)),
                all(Op::Keep(1, TEXT)),
                all(Op::Through(&[skip(TEXT)])),
                all(Op::Error),
                all(Op::Message),
                all(Op::Kept(0)),
                all(Op::Kept(1)),
                all(Op::Empty),
                all(Op::Tags),
            ])),
            since(1, Op::Skip(BYTE)),
            since(3, Op::Skip(BYTE)),
            all(Op::Tags),
        ],
    },
    // AlterConfigs.
    Recipe {
        key: 33,
        from: 0,
        to: 2,
        code: Code::OfResource,
        fields: &[
            all(THROTTLE),
            all(Op::Each(&[
                all(Op::Keep(0, BYTE)),
                all(Op::Keep(1, TEXT)),
                all(Op::Through(&[skip(TEXT), skip(TEXT), all(Op::SkipTags)])),
                all(Op::Error),
                all(Op::Message),
                all(Op::Kept(0)),
                all(Op::Kept(1)),
                all(Op::Tags),
            ])),
            skip(BYTE),
            all(Op::Tags),
        ],
    },
    // AlterReplicaLogDirs.
    always(
        34,
        (0, 2),
        CLUSTER,
        &[
            all(THROTTLE),
            all(Op::Joined(&[all(Op::Through(&[
                skip(TEXT),
                all(Op::Through(&[all(Op::One(TOPICS_OF_PARTITIONS))])),
                all(Op::SkipTags),
            ]))])),
            all(Op::Tags),
        ],
    ),
    // DescribeLogDirs.
    always(35, (0, 4), CLUSTER, &[all(THROTTLE), since(3, Op::Error), all(Op::Empty), all(Op::NoTags)]),
    // CreatePartitions.
    always(
        37,
        (0, 3),
        TOPIC,
        &[
            all(THROTTLE),
            all(Op::Each(&[
                copy(TEXT),
                skip(INT),
                all(Op::Through(&[all(Op::Through(&[skip(INT)])), all(Op::SkipTags)])),
                all(Op::Error),
                all(Op::Message),
                all(Op::Tags),
            ])),
            skip(Kind::Fixed(5)),
            all(Op::Tags),
        ],
    ),
    // CreateDelegationToken.
    always(
        38,
        (0, 3),
        DELEGATION_TOKEN,
        &[
            all(Op::Error),
            all(Op::EmptyText),
            all(Op::EmptyText),
            since(3, Op::EmptyText),
            since(3, Op::EmptyText),
            // Issued, expires, at most until; token's id, HMAC.
            all(Op::Put(&[0; 24])),
            all(Op::EmptyText),
            all(Op::Empty),
            all(THROTTLE),
            all(Op::NoTags),
        ],
    ),
    // RenewDelegationToken.
    always(39, (0, 2), DELEGATION_TOKEN, &[all(Op::Error), all(Op::Put(&[0; 8])), all(THROTTLE), all(Op::NoTags)]),
    // ExpireDelegationToken.
    always(40, (0, 2), DELEGATION_TOKEN, &[all(Op::Error), all(Op::Put(&[0; 8])), all(THROTTLE), all(Op::NoTags)]),
    // DescribeDelegationToken.
    always(41, (0, 3), DELEGATION_TOKEN, &[all(Op::Error), all(Op::Empty), all(THROTTLE), all(Op::NoTags)]),
    // DeleteGroups.
    always(
        42,
        (0, 2),
        GROUP,
        &[all(THROTTLE), all(Op::Each(&[copy(TEXT), all(Op::Error), all(Op::NoTags)])), all(Op::Tags)],
    ),
    // ElectLeaders.
    always(
        43,
        (0, 2),
        CLUSTER,
        &[
            since(1, Op::Skip(BYTE)),
            all(THROTTLE),
            since(1, Op::Error),
            all(Op::Each(&[
                copy(TEXT),
                all(Op::Each(&[copy(INT), all(Op::Error), all(Op::NoText), all(Op::NoTags)])),
                all(Op::Tags),
            ])),
            skip(INT),
            all(Op::Tags),
        ],
    ),
    // IncrementalAlterConfigs.
    Recipe {
        key: 44,
        from: 0,
        to: 1,
        code: Code::OfResource,
        fields: &[
            all(THROTTLE),
            all(Op::Each(&[
                all(Op::Keep(0, BYTE)),
                all(Op::Keep(1, TEXT)),
                all(Op::Through(&[skip(TEXT), skip(BYTE), skip(TEXT), all(Op::SkipTags)])),
                all(Op::Error),
                all(Op::Message),
                all(Op::Kept(0)),
                all(Op::Kept(1)),
                all(Op::Tags),
            ])),
            skip(BYTE),
            all(Op::Tags),
        ],
    },
    // AlterPartitionReassignments.
    always(
        45,
        (0, 1),
        CLUSTER,
        &[
            skip(INT),
            since(1, Op::Keep(1, BYTE)),
            all(THROTTLE),
            since(1, Op::Kept(1)),
            all(Op::Error),
            all(Op::Message),
            all(Op::Each(&[
                copy(TEXT),
                all(Op::Each(&[
                    copy(INT),
                    all(Op::Through(&[skip(INT)])),
                    all(Op::Error),
                    all(Op::NoText),
                    all(Op::Tags),
                ])),
                all(Op::Tags),
            ])),
            all(Op::Tags),
        ],
    ),
    // ListPartitionReassignments.
    always(46, (0, 0), CLUSTER, NOTHING_LISTED),
    // OffsetDelete.
    always(47, (0, 0), GROUP, &[all(Op::Error), all(THROTTLE), all(Op::Empty)]),
    // DescribeClientQuotas.
    always(48, (0, 1), CLUSTER, NOTHING_LISTED),
    // AlterClientQuotas.
    always(
        49,
        (0, 1),
        CLUSTER,
        &[
            all(THROTTLE),
            all(Op::Each(&[
                all(Op::Error),
                all(Op::Message),
                all(Op::Each(&[copy(TEXT), copy(TEXT), all(Op::Tags)])),
                all(Op::Through(&[skip(TEXT), skip(Kind::Fixed(9)), all(Op::SkipTags)])),
                all(Op::Tags),
            ])),
            skip(BYTE),
            all(Op::Tags),
        ],
    ),
    // DescribeUserScramCredentials.
    always(50, (0, 0), CLUSTER, NOTHING_LISTED),
    // AlterUserScramCredentials.
    always(
        51,
        (0, 0),
        CLUSTER,
        &[
            all(THROTTLE),
            all(Op::Joined(&[
                all(Op::Through(&[all(Op::One(&[
                    copy(TEXT),
                    skip(BYTE),
                    all(Op::Error),
                    all(Op::Message),
                    all(Op::Tags),
                ]))])),
                all(Op::Through(&[all(Op::One(&[
                    copy(TEXT),
                    // Mechanism and iterations, salt, salted password.
                    skip(Kind::Fixed(5)),
                    skip(BLOB),
                    skip(BLOB),
                    all(Op::Error),
                    all(Op::Message),
                    all(Op::Tags),
                ]))])),
            ])),
            all(Op::Tags),
        ],
    ),
    // UpdateFeatures.
    always(
        57,
        (0, 2),
        CLUSTER,
        &[all(THROTTLE), all(Op::Error), all(Op::Message), until(1, Op::Empty), all(Op::NoTags)],
    ),
    // UnregisterBroker.
    always(64, (0, 0), CLUSTER, ERROR_ALONE),
    // ListTransactions.
    always(
        66,
        (0, 2),
        TRANSACTIONAL_ID,
        &[all(THROTTLE), all(Op::Error), all(Op::Empty), all(Op::Empty), all(Op::NoTags)],
    ),
    // ConsumerGroupHeartbeat.
    always(
        68,
        (0, 1),
        GROUP,
        &[
            all(THROTTLE),
            all(Op::Error),
            all(Op::Message),
            // Member; epoch and interval; no assignment.
            all(Op::NoText),
            all(Op::Put(&[0; 8])),
            all(Op::Put(&[0xff])),
            all(Op::NoTags),
        ],
    ),
    // ConsumerGroupDescribe.
    always(
        69,
        (0, 1),
        GROUP,
        &[
            all(THROTTLE),
            all(Op::Each(&[
                all(Op::Keep(1, TEXT)),
                all(Op::Error),
                all(Op::Message),
                all(Op::Kept(1)),
                // State, both epochs, assignor, members.
                all(Op::EmptyText),
                all(Op::Put(&[0; 8])),
                all(Op::EmptyText),
                all(Op::Empty),
                all(NO_OPERATIONS),
                all(Op::NoTags),
            ])),
            skip(BYTE),
            all(Op::Tags),
        ],
    ),
    // AddRaftVoter.
    always(80, (0, 0), CLUSTER, ERROR_ALONE),
    // RemoveRaftVoter.
    always(81, (0, 0), CLUSTER, ERROR_ALONE),
    // AlterShareGroupOffsets.
    always(91, (0, 0), GROUP, NOTHING_LISTED),
    // DeleteShareGroupOffsets.
    always(92, (0, 0), GROUP, NOTHING_LISTED),
];
