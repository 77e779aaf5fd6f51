//! The table of APIs: which versions are spoken, and what their answers look like.
//!
//! Ranges overlap with those of Kafka 2.8 to 4.4. Taken from Kafka's message definitions; the tests hold each shape and version against
//! the kafka-protocol crate.

use kafka_protocol::messages::ApiKey;

use super::shape::{Field, Shape, blob, fixed, list, many, text, texts};

/// Produce: decoded by hand. 2.8 has up to v9 (the first flexible one); v13 names topics by id.
pub(super) const PRODUCE: (i16, i16) = (9, 13);
/// Fetch: decoded by hand. 2.8 has up to v12 (the first flexible one); v13 names topics by id; later ones bring a consumer nothing.
pub(super) const FETCH: (i16, i16) = (12, 17);

/// Lowest and highest version spoken of an API.
pub(super) fn versions(api: ApiKey) -> Option<(i16, i16)> {
    match api {
        ApiKey::Produce => Some(PRODUCE),
        ApiKey::Fetch => Some(FETCH),
        other => shape(other).map(|shape| shape.versions),
    }
}

/// The shape of an API's answer.
pub(super) fn shape(api: ApiKey) -> Option<&'static Shape> {
    SHAPES.iter().find(|shape| shape.api == api)
}

/// `throttle_time_ms`, error codes, counts, ids.
const I8: Field = fixed(1);
const I16: Field = fixed(2);
const I32: Field = fixed(4);
const I64: Field = fixed(8);
const UUID: Field = fixed(16);

pub(super) static SHAPES: &[Shape] = &[
    Shape {
        api: ApiKey::Metadata,
        versions: (9, 13),
        flexible: 9,
        throttle: Some(3),
        fields: &[
            I32,
            list(&[I32, text(), I32, text()]),
            text(),
            I32,
            list(&[I16, text(), UUID.since(10), I8, list(&[I16, I32, I32, I32, many(4), many(4), many(4)]), I32]),
            I32.until(10),
            I16.since(13),
        ],
    },
    Shape {
        api: ApiKey::ListOffsets,
        versions: (4, 10),
        flexible: 6,
        throttle: Some(2),
        fields: &[I32, list(&[text(), list(&[I32, I16, I64, I64, I32])])],
    },
    Shape {
        api: ApiKey::OffsetCommit,
        versions: (7, 9),
        flexible: 8,
        throttle: Some(3),
        fields: &[I32, list(&[text(), list(&[I32, I16])])],
    },
    Shape {
        api: ApiKey::OffsetFetch,
        versions: (6, 9),
        flexible: 6,
        throttle: Some(3),
        fields: &[
            I32,
            list(&[text(), list(&[I32, I64, I32, text(), I16])]).until(7),
            I16.until(7),
            list(&[text(), list(&[text(), list(&[I32, I64, I32, text(), I16])]), I16]).since(8),
        ],
    },
    Shape {
        api: ApiKey::FindCoordinator,
        versions: (3, 6),
        flexible: 3,
        throttle: Some(1),
        fields: &[
            I32,
            I16.until(3),
            text().until(3),
            I32.until(3),
            text().until(3),
            I32.until(3),
            list(&[text(), I32, text(), I32, I16, text()]).since(4),
        ],
    },
    Shape {
        api: ApiKey::ListGroups,
        versions: (3, 5),
        flexible: 3,
        throttle: Some(1),
        fields: &[I32, I16, list(&[text(), text(), text().since(4), text().since(5)])],
    },
    Shape { api: ApiKey::SaslHandshake, versions: (1, 1), flexible: i16::MAX, throttle: None, fields: &[I16, texts()] },
    Shape {
        api: ApiKey::CreateTopics,
        versions: (4, 7),
        flexible: 5,
        throttle: Some(2),
        fields: &[
            I32,
            list(&[
                text(),
                UUID.since(7),
                I16,
                text(),
                I32.since(5),
                I16.since(5),
                list(&[text(), text(), I8, I8, I8]).since(5),
                I16.since(5).tagged(0),
            ]),
        ],
    },
    Shape {
        api: ApiKey::DeleteTopics,
        versions: (4, 6),
        flexible: 4,
        throttle: Some(1),
        fields: &[I32, list(&[text(), UUID.since(6), I16, text().since(5)])],
    },
    Shape {
        api: ApiKey::InitProducerId,
        versions: (2, 5),
        flexible: 2,
        throttle: Some(0),
        fields: &[I32, I16, I64, I16],
    },
    Shape {
        api: ApiKey::DescribeConfigs,
        versions: (1, 4),
        flexible: 4,
        throttle: Some(0),
        fields: &[
            I32,
            list(&[
                I16,
                text(),
                I8,
                text(),
                list(&[text(), text(), I8, I8, I8, list(&[text(), text(), I8]), I8.since(3), text().since(3)]),
            ]),
        ],
    },
    Shape {
        api: ApiKey::SaslAuthenticate,
        versions: (0, 2),
        flexible: 2,
        throttle: None,
        fields: &[I16, text(), blob(), I64.since(1)],
    },
    Shape {
        api: ApiKey::CreatePartitions,
        versions: (0, 3),
        flexible: 2,
        throttle: Some(0),
        fields: &[I32, list(&[text(), I16, text()])],
    },
    Shape {
        api: ApiKey::IncrementalAlterConfigs,
        versions: (0, 1),
        flexible: 1,
        throttle: Some(0),
        fields: &[I32, list(&[I16, text(), I8, text()])],
    },
    Shape {
        api: ApiKey::DescribeProducers,
        versions: (0, 0),
        flexible: 0,
        throttle: Some(0),
        fields: &[I32, list(&[text(), list(&[I32, I16, text(), list(&[I64, I32, I32, I64, I32, I64])])])],
    },
    Shape {
        api: ApiKey::DescribeAcls,
        versions: (1, 3),
        flexible: 2,
        throttle: Some(0),
        fields: &[I32, I16, text(), list(&[I8, text(), I8, list(&[text(), text(), I8, I8])])],
    },
    Shape {
        api: ApiKey::CreateAcls,
        versions: (1, 3),
        flexible: 2,
        throttle: Some(0),
        fields: &[I32, list(&[I16, text()])],
    },
    Shape {
        api: ApiKey::DeleteAcls,
        versions: (1, 3),
        flexible: 2,
        throttle: Some(0),
        fields: &[I32, list(&[I16, text(), list(&[I16, text(), I8, text(), I8, text(), text(), I8, I8])])],
    },
];

#[cfg(test)]
mod tests {
    use bytes::{Bytes, BytesMut};
    use kafka_protocol::messages::create_topics_response::{CreatableTopicConfigs, CreatableTopicResult};
    use kafka_protocol::messages::describe_configs_response::{
        DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
    };
    use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
    use kafka_protocol::messages::metadata_response::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };
    use kafka_protocol::messages::*;
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
    use proptest::prelude::*;

    use super::*;

    fn encoded<M: Encodable>(version: i16, message: &M) -> Bytes {
        let mut out = BytesMut::new();
        message.encode(&mut out, version).expect("an answer of its version");
        out.freeze()
    }

    /// Whether a body passes its shape; if so the crate is let loose on it, which ends the process if the shape let a bomb through.
    fn passes<M: Decodable>(api: ApiKey, version: i16, body: &[u8]) -> bool {
        let passes = shape(api).expect("in the table").check(version, body).is_ok();
        if passes {
            let _ = M::decode(&mut Bytes::copy_from_slice(body), version);
        }
        passes
    }

    /// An answer in each version: passes whole, and neither cut nor with a byte more; with any byte changed it is refused or harmless.
    fn holds<M: Encodable + Decodable>(api: ApiKey, answer: impl Fn(i16) -> M) {
        let (low, high) = versions(api).expect("in the table");
        for version in low..=high {
            let body = encoded(version, &answer(version));
            let checked = shape(api).expect("in the table").check(version, &body);
            assert_eq!(checked, Ok(()), "{api:?} v{version}");
            for end in 0..body.len() {
                assert!(!passes::<M>(api, version, &body[..end]), "{api:?} v{version} cut at {end}");
            }
            assert!(!passes::<M>(api, version, &[&body[..], &[0]].concat()), "{api:?} v{version} with a byte more");
            for at in 0..body.len() {
                for value in [0x00, 0x7f, 0x80, 0xff] {
                    let mut changed = body.to_vec();
                    changed[at] = value;
                    passes::<M>(api, version, &changed);
                }
            }
        }
    }

    fn some() -> StrBytes {
        StrBytes::from_static_str("some")
    }

    #[test]
    fn metadata_in_all_versions() {
        let partition = MetadataResponsePartition::default().with_replica_nodes(vec![BrokerId(1), BrokerId(2)]);
        let topic =
            MetadataResponseTopic::default().with_name(Some(TopicName(some()))).with_partitions(vec![partition; 2]);
        let answer = MetadataResponse::default()
            .with_brokers(vec![MetadataResponseBroker::default().with_host(some()); 2])
            .with_cluster_id(Some(some()))
            .with_topics(vec![topic; 2]);
        holds(ApiKey::Metadata, |_| answer.clone());
    }

    #[test]
    fn topics_and_configs_in_all_versions() {
        let config = CreatableTopicConfigs::default().with_name(some());
        holds(ApiKey::CreateTopics, |version| {
            let topic = CreatableTopicResult::default().with_name(TopicName(some())).with_error_message(Some(some()));
            let topic = if version < 5 {
                topic
            } else {
                topic.with_configs(Some(vec![config.clone(); 2])).with_topic_config_error_code(29)
            };
            CreateTopicsResponse::default().with_topics(vec![topic; 2])
        });
        let synonym = DescribeConfigsSynonym::default().with_name(some()).with_value(None);
        let entry = DescribeConfigsResourceResult::default().with_name(some()).with_synonyms(vec![synonym; 2]);
        let topic = DescribeConfigsResult::default().with_resource_name(some()).with_configs(vec![entry; 2]);
        holds(ApiKey::DescribeConfigs, |_| DescribeConfigsResponse::default().with_results(vec![topic.clone(); 2]));
        let one = create_partitions_response::CreatePartitionsTopicResult::default().with_name(TopicName(some()));
        holds(ApiKey::CreatePartitions, |_| CreatePartitionsResponse::default().with_results(vec![one.clone(); 2]));
        let one =
            incremental_alter_configs_response::AlterConfigsResourceResponse::default().with_resource_name(some());
        holds(ApiKey::IncrementalAlterConfigs, |_| {
            IncrementalAlterConfigsResponse::default().with_responses(vec![one.clone(); 2])
        });
        let one = delete_topics_response::DeletableTopicResult::default().with_name(Some(TopicName(some())));
        holds(ApiKey::DeleteTopics, |_| DeleteTopicsResponse::default().with_responses(vec![one.clone(); 2]));
    }

    #[test]
    fn offsets_and_groups_in_all_versions() {
        let topic = ListOffsetsTopicResponse::default()
            .with_name(TopicName(some()))
            .with_partitions(vec![ListOffsetsPartitionResponse::default(); 2]);
        holds(ApiKey::ListOffsets, |_| ListOffsetsResponse::default().with_topics(vec![topic.clone(); 2]));
        let topic = offset_commit_response::OffsetCommitResponseTopic::default()
            .with_name(TopicName(some()))
            .with_partitions(vec![Default::default(); 2]);
        holds(ApiKey::OffsetCommit, |_| OffsetCommitResponse::default().with_topics(vec![topic.clone(); 2]));
        holds(ApiKey::OffsetFetch, |version| {
            let old = offset_fetch_response::OffsetFetchResponseTopic::default()
                .with_name(TopicName(some()))
                .with_partitions(vec![Default::default(); 2]);
            let new = offset_fetch_response::OffsetFetchResponseTopics::default()
                .with_name(TopicName(some()))
                .with_partitions(vec![Default::default(); 2]);
            let group = offset_fetch_response::OffsetFetchResponseGroup::default().with_topics(vec![new; 2]);
            if version < 8 {
                OffsetFetchResponse::default().with_topics(vec![old; 2])
            } else {
                OffsetFetchResponse::default().with_groups(vec![group; 2])
            }
        });
        holds(ApiKey::FindCoordinator, |version| {
            let one = find_coordinator_response::Coordinator::default().with_key(some()).with_host(some());
            let answer = FindCoordinatorResponse::default();
            if version < 4 { answer.with_host(some()) } else { answer.with_coordinators(vec![one; 2]) }
        });
        let group = list_groups_response::ListedGroup::default().with_group_id(GroupId(some()));
        holds(ApiKey::ListGroups, |_| ListGroupsResponse::default().with_groups(vec![group.clone(); 2]));
    }

    #[test]
    fn sasl_and_producers_in_all_versions() {
        holds(ApiKey::SaslHandshake, |_| SaslHandshakeResponse::default().with_mechanisms(vec![some(); 2]));
        holds(ApiKey::SaslAuthenticate, |_| {
            SaslAuthenticateResponse::default().with_auth_bytes(Bytes::from_static(b"token"))
        });
        holds(ApiKey::InitProducerId, |_| InitProducerIdResponse::default());
        let partition = describe_producers_response::PartitionResponse::default()
            .with_active_producers(vec![Default::default(); 2]);
        let topic = describe_producers_response::TopicResponse::default()
            .with_name(TopicName(some()))
            .with_partitions(vec![partition; 2]);
        holds(ApiKey::DescribeProducers, |_| DescribeProducersResponse::default().with_topics(vec![topic.clone(); 2]));
    }

    #[test]
    fn acls_in_all_versions() {
        let acl = describe_acls_response::AclDescription::default().with_principal(some()).with_host(some());
        let resource = describe_acls_response::DescribeAclsResource::default()
            .with_resource_name(some())
            .with_pattern_type(4)
            .with_acls(vec![acl; 2]);
        holds(ApiKey::DescribeAcls, |_| {
            DescribeAclsResponse::default().with_error_message(Some(some())).with_resources(vec![resource.clone(); 2])
        });
        let one = create_acls_response::AclCreationResult::default().with_error_message(Some(some()));
        holds(ApiKey::CreateAcls, |_| CreateAclsResponse::default().with_results(vec![one.clone(); 2]));
        let acl = delete_acls_response::DeleteAclsMatchingAcl::default()
            .with_resource_name(some())
            .with_principal(some())
            .with_host(some());
        let one = delete_acls_response::DeleteAclsFilterResult::default().with_matching_acls(vec![acl; 2]);
        holds(ApiKey::DeleteAcls, |_| DeleteAclsResponse::default().with_filter_results(vec![one.clone(); 2]));
    }

    #[test]
    fn the_nine_bytes_that_end_a_process_are_refused() {
        // Throttle time, then a count of brokers of 2^32 - 2: the crate would ask for 412316860224 bytes.
        let metadata = [0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(shape(ApiKey::Metadata).expect("in the table").check(9, &metadata).is_err());
        let list_offsets = [0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff];
        assert!(shape(ApiKey::ListOffsets).expect("in the table").check(5, &list_offsets).is_err());
    }

    /// What a count may make the crate allocate, over what the counted items take on the wire at least.
    #[test]
    fn decoded_answers_are_a_small_multiple_of_their_bytes() {
        for (decoded, wire) in [
            (size_of::<MetadataResponseBroker>(), 11),
            (size_of::<MetadataResponseTopic>(), 10),
            (size_of::<MetadataResponsePartition>(), 18),
            (size_of::<ListOffsetsPartitionResponse>(), 26),
            (size_of::<DescribeConfigsResourceResult>(), 9),
            (size_of::<DescribeConfigsSynonym>(), 4),
        ] {
            assert!(decoded <= 32 * wire, "{decoded} for {wire}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_pass_a_bomb(body in prop::collection::vec(any::<u8>(), 0..200)) {
            for version in 9..=13 {
                passes::<MetadataResponse>(ApiKey::Metadata, version, &body);
            }
            for version in 1..=4 {
                passes::<DescribeConfigsResponse>(ApiKey::DescribeConfigs, version, &body);
            }
            for version in 4..=7 {
                passes::<CreateTopicsResponse>(ApiKey::CreateTopics, version, &body);
            }
            passes::<DescribeProducersResponse>(ApiKey::DescribeProducers, 0, &body);
        }

        #[test]
        fn small_bytes_never_pass_a_bomb(body in prop::collection::vec(0u8..4, 0..120)) {
            for version in 9..=13 {
                passes::<MetadataResponse>(ApiKey::Metadata, version, &body);
            }
            passes::<CreateTopicsResponse>(ApiKey::CreateTopics, 7, &body);
        }
    }
}
