//! An independent codec writes the requests and reads the answers, in every version that it has.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Message, StrBytes, VersionRange};

use super::{MOST_ANSWER, Refusal, RefusalError, refuse, to_end_of_produce, versions};
use crate::kafka::api;

const MESSAGE: &str = "not here";

/// A request's frame without its length.
fn frame<M: Encodable + HeaderVersion>(key: i16, version: i16, message: &M) -> Vec<u8> {
    let mut out = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(77)
        .with_client_id(Some(text("me")));
    header.encode(&mut out, M::header_version(version)).expect("a header");
    message.encode(&mut out, version).expect("a body");
    out.to_vec()
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Reads an answer to its last byte.
fn read<M: Decodable + HeaderVersion>(answer: Refusal, version: i16) -> M {
    let Refusal::Answer(answer) = answer else { panic!("no answer") };
    let mut bytes = Bytes::from(answer);
    let length = bytes.get_i32();
    assert_eq!(usize::try_from(length).expect("positive"), bytes.len());
    let header = ResponseHeader::decode(&mut bytes, M::header_version(version)).expect("a header");
    assert_eq!(header.correlation_id, 77);
    let message = M::decode(&mut bytes, version).expect("a body");
    assert!(bytes.is_empty(), "version {version}: {bytes:?} left");
    message
}

/// Refuses `request` in every version of `key` that the codec has and hands the answers to `check`.
fn each<Q, A>(key: ApiKey, request: impl Fn(i16) -> Q, check: impl Fn(i16, A))
where
    Q: Encodable + HeaderVersion + Message,
    A: Decodable + HeaderVersion + Message,
{
    let theirs = VersionRange { min: Q::VERSIONS.min.max(A::VERSIONS.min), max: Q::VERSIONS.max.min(A::VERSIONS.max) };
    let ours = versions(key as i16).expect("a recipe");
    assert!(*ours.end() >= theirs.max, "{key:?}: known up to {}, the codec up to {}", ours.end(), theirs.max);
    assert!(*ours.start() <= theirs.min, "{key:?}");
    for version in theirs.min..=theirs.max {
        let frame = frame(key as i16, version, &request(version));
        check(version, read(refuse(&frame, MESSAGE).expect("a refusal"), version));
        for cut in 0..frame.len() {
            match refuse(&frame[..cut], MESSAGE) {
                Ok(_) | Err(RefusalError::Malformed(_)) => {}
                other => panic!("{key:?} {version} cut at {cut}: {other:?}"),
            }
        }
    }
}

const ONE: &str = "00000000-0000-0000-0000-000000000001";
const TWO: &str = "00000000-0000-0000-0000-000000000002";

fn produce(version: i16, acks: i16, records: usize) -> ProduceRequest {
    use produce_request::{PartitionProduceData, TopicProduceData};
    let partition =
        |index| PartitionProduceData::default().with_index(index).with_records(Some(Bytes::from(vec![b'r'; records])));
    let topic = |name: &str, id: &str| {
        let topic = TopicProduceData::default().with_partition_data(vec![partition(0), partition(7)]);
        if version >= 13 {
            topic.with_topic_id(id.parse().expect("a UUID"))
        } else {
            topic.with_name(text(name).into())
        }
    };
    let request = ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000);
    request.with_topic_data(vec![topic("eu.orders", ONE), topic("eu.pay", TWO)])
}

#[test]
fn produce_names_each_partition() {
    each(
        ApiKey::Produce,
        |version| produce(version, -1, 40),
        |version, answer: ProduceResponse| {
            assert_eq!(answer.responses.len(), 2);
            let second = &answer.responses[1];
            if version >= 13 {
                assert_eq!(second.topic_id.as_u128(), 2);
            } else {
                assert_eq!(second.name.as_str(), "eu.pay");
            }
            let seen: Vec<_> = second
                .partition_responses
                .iter()
                .map(|one| (one.index, one.error_code, one.base_offset, one.log_append_time_ms))
                .collect();
            assert_eq!(seen, [(0, 29, -1, -1), (7, 29, -1, -1)], "version {version}");
        },
    );
}

#[test]
fn a_producer_without_acknowledgements_has_no_answer() {
    for version in 3..=13 {
        assert_eq!(refuse(&frame(0, version, &produce(version, 0, 40)), MESSAGE), Ok(Refusal::Close));
    }
    // Versions before 3 have no transactional id: client id, acks, timeout, one topic with one partition of three bytes.
    for (version, tail) in [(0, 8), (1, 12), (2, 20)] {
        let mut old =
            b"\0\0\0\0\0\0\0\x4d\0\x02me\0\x01\0\0\x75\x30\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x05\0\0\0\x03rrr".to_vec();
        old[3] = version;
        let Ok(Refusal::Answer(answer)) = refuse(&old, MESSAGE) else { panic!("no answer") };
        let head = b"\0\0\0\x4d\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\x05\0\x1d";
        assert_eq!(&answer[4..4 + head.len()], head, "version {version}");
        assert_eq!(answer.len() - 4 - head.len(), tail, "version {version}");
        old[12..14].copy_from_slice(&[0, 0]);
        assert_eq!(refuse(&old, MESSAGE), Ok(Refusal::Close));
    }
}

#[test]
fn records_need_not_be_there() {
    for version in 3..=13 {
        let whole = frame(0, version, &produce(version, 1, 5_000));
        let body = &whole[8..];
        for step in [1, 7, 4_096, usize::MAX] {
            let mut walker = to_end_of_produce(version, body.len() as u64);
            let mut kept = whole[..8].to_vec();
            let mut done = false;
            for chunk in body.chunks(step.min(body.len())) {
                done = walker.feed_without_blobs(chunk, &mut kept).expect("well-formed").done;
            }
            assert!(done && kept.len() < 150, "version {version}: {} bytes kept", kept.len());
            assert_eq!(refuse(&kept, MESSAGE), refuse(&whole, MESSAGE), "version {version}");
        }
    }
}

#[test]
fn topics_are_named_where_they_are_made_and_deleted() {
    each(
        ApiKey::CreateTopics,
        |_| {
            use create_topics_request::{CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig};
            let config = CreatableTopicConfig::default().with_name(text("retention.ms")).with_value(Some(text("1")));
            let assignment = CreatableReplicaAssignment::default().with_broker_ids(vec![1.into(), 2.into()]);
            let topic = CreatableTopic::default().with_configs(vec![config]).with_assignments(vec![assignment]);
            let named = |name: &str| topic.clone().with_name(text(name).into()).with_replication_factor(2);
            CreateTopicsRequest::default().with_topics(vec![named("a"), named("b")])
        },
        |version, answer: CreateTopicsResponse| {
            let seen: Vec<_> = answer.topics.iter().map(|topic| (topic.name.as_str(), topic.error_code)).collect();
            assert_eq!(seen, [("a", 29), ("b", 29)], "version {version}");
            assert_eq!(answer.topics[0].error_message.as_deref(), Some(MESSAGE));
        },
    );
    each(
        ApiKey::DeleteTopics,
        |version| {
            use delete_topics_request::DeleteTopicState;
            if version >= 6 {
                let state = |name| DeleteTopicState::default().with_name(Some(text(name).into()));
                DeleteTopicsRequest::default().with_topics(vec![state("a"), state("b")])
            } else {
                DeleteTopicsRequest::default().with_topic_names(vec![text("a").into(), text("b").into()])
            }
        },
        |version, answer: DeleteTopicsResponse| {
            let seen: Vec<_> =
                answer.responses.iter().map(|t| (t.name.as_deref().map(|n| n.as_str()), t.error_code)).collect();
            assert_eq!(seen, [(Some("a"), 29), (Some("b"), 29)], "version {version}");
        },
    );
    each(
        ApiKey::CreatePartitions,
        |_| {
            use create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
            let assignment = CreatePartitionsAssignment::default().with_broker_ids(vec![1.into(), 2.into()]);
            let topic = CreatePartitionsTopic::default().with_name(text("a").into()).with_count(9);
            let second = topic.clone().with_assignments(Some(vec![assignment])).with_name(text("b").into());
            CreatePartitionsRequest::default().with_topics(vec![topic.with_assignments(None), second])
        },
        |_, answer: CreatePartitionsResponse| {
            let seen: Vec<_> = answer.results.iter().map(|topic| (topic.name.as_str(), topic.error_code)).collect();
            assert_eq!(seen, [("a", 29), ("b", 29)]);
        },
    );
    each(
        ApiKey::DeleteRecords,
        |_| {
            use delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
            let partition = DeleteRecordsPartition::default().with_partition_index(4).with_offset(9);
            let topic = DeleteRecordsTopic::default().with_name(text("a").into()).with_partitions(vec![partition]);
            DeleteRecordsRequest::default().with_topics(vec![topic])
        },
        |_, answer: DeleteRecordsResponse| {
            let partition = &answer.topics[0].partitions[0];
            assert_eq!((partition.partition_index, partition.low_watermark, partition.error_code), (4, -1, 29));
        },
    );
}

#[test]
fn transactions_are_refused_by_their_id() {
    for (id, code) in [(None, 31), (Some("tx"), 53), (Some(""), 53)] {
        each(
            ApiKey::InitProducerId,
            |_| InitProducerIdRequest::default().with_transactional_id(id.map(|id| text(id).into())),
            |_, answer: InitProducerIdResponse| {
                assert_eq!((answer.error_code, answer.producer_id.0, answer.producer_epoch), (code, -1, -1));
            },
        );
    }
    each(
        ApiKey::AddPartitionsToTxn,
        |version| {
            use add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
            let topic = AddPartitionsToTxnTopic::default().with_name(text("a").into()).with_partitions(vec![1, 3]);
            if version >= 4 {
                let transaction = AddPartitionsToTxnTransaction::default().with_topics(vec![topic]);
                AddPartitionsToTxnRequest::default().with_transactions(vec![transaction])
            } else {
                AddPartitionsToTxnRequest::default().with_v3_and_below_topics(vec![topic])
            }
        },
        |version, answer: AddPartitionsToTxnResponse| {
            if version >= 4 {
                assert_eq!(answer.error_code, 31);
            } else {
                let topic = &answer.results_by_topic_v3_and_below[0];
                let seen: Vec<_> = topic
                    .results_by_partition
                    .iter()
                    .map(|one| (one.partition_index, one.partition_error_code))
                    .collect();
                assert_eq!((topic.name.as_str(), &seen[..]), ("a", &[(1, 53), (3, 53)][..]));
            }
        },
    );
    each(
        ApiKey::AddOffsetsToTxn,
        |_| AddOffsetsToTxnRequest::default(),
        |_, answer: AddOffsetsToTxnResponse| {
            assert_eq!(answer.error_code, 53);
        },
    );
    each(ApiKey::EndTxn, |_| EndTxnRequest::default(), |_, answer: EndTxnResponse| assert_eq!(answer.error_code, 53));
    each(
        ApiKey::TxnOffsetCommit,
        |_| {
            use txn_offset_commit_request::{TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic};
            let partition = TxnOffsetCommitRequestPartition::default().with_partition_index(5);
            let topic = TxnOffsetCommitRequestTopic::default().with_name(text("a").into());
            TxnOffsetCommitRequest::default().with_topics(vec![topic.with_partitions(vec![partition])])
        },
        |_, answer: TxnOffsetCommitResponse| {
            let partition = &answer.topics[0].partitions[0];
            assert_eq!((partition.partition_index, partition.error_code), (5, 53));
        },
    );
    each(
        ApiKey::WriteTxnMarkers,
        |_| {
            use write_txn_markers_request::{WritableTxnMarker, WritableTxnMarkerTopic};
            let topic = WritableTxnMarkerTopic::default().with_name(text("a").into()).with_partition_indexes(vec![2]);
            let marker = WritableTxnMarker::default().with_producer_id(8.into()).with_topics(vec![topic]);
            WriteTxnMarkersRequest::default().with_markers(vec![marker])
        },
        |_, answer: WriteTxnMarkersResponse| {
            let partition = &answer.markers[0].topics[0].partitions[0];
            assert_eq!((answer.markers[0].producer_id.0, partition.partition_index, partition.error_code), (8, 2, 31));
        },
    );
}

#[test]
fn each_acl_has_its_answer() {
    each(
        ApiKey::CreateAcls,
        |_| {
            let creation = create_acls_request::AclCreation::default().with_resource_name(text("topic"));
            CreateAclsRequest::default().with_creations(vec![creation.clone(), creation])
        },
        |_, answer: CreateAclsResponse| {
            let codes: Vec<_> = answer.results.iter().map(|one| one.error_code).collect();
            assert_eq!(codes, [31, 31]);
        },
    );
    each(
        ApiKey::DeleteAcls,
        |_| {
            let filter = delete_acls_request::DeleteAclsFilter::default();
            DeleteAclsRequest::default().with_filters(vec![filter.clone(), filter])
        },
        |_, answer: DeleteAclsResponse| {
            let codes: Vec<_> =
                answer.filter_results.iter().map(|one| (one.error_code, one.matching_acls.len())).collect();
            assert_eq!(codes, [(31, 0), (31, 0)]);
        },
    );
}

/// Topic, broker, group.
const RESOURCES: [(i8, &str, i16); 3] = [(2, "a", 29), (4, "1", 31), (32, "g", 30)];

#[test]
fn configs_are_refused_by_the_kind_of_resource() {
    each(
        ApiKey::IncrementalAlterConfigs,
        |_| {
            use incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default().with_name(text("retention.ms")).with_value(Some(text("1")));
            let resource = |(kind, name, _): (i8, &str, i16)| {
                AlterConfigsResource::default()
                    .with_resource_type(kind)
                    .with_resource_name(text(name))
                    .with_configs(vec![config.clone(), config.clone()])
            };
            IncrementalAlterConfigsRequest::default().with_resources(RESOURCES.map(resource).to_vec())
        },
        |_, answer: IncrementalAlterConfigsResponse| {
            let seen: Vec<_> = answer
                .responses
                .iter()
                .map(|one| (one.resource_type, one.resource_name.as_str(), one.error_code))
                .collect();
            assert_eq!(seen, RESOURCES);
        },
    );
    each(
        ApiKey::AlterConfigs,
        |_| {
            use alter_configs_request::{AlterConfigsResource, AlterableConfig};
            let config = AlterableConfig::default().with_name(text("retention.ms"));
            let resource = |(kind, name, _): (i8, &str, i16)| {
                let resource = AlterConfigsResource::default().with_resource_type(kind).with_resource_name(text(name));
                resource.with_configs(vec![config.clone()])
            };
            AlterConfigsRequest::default().with_resources(RESOURCES.map(resource).to_vec())
        },
        |_, answer: AlterConfigsResponse| {
            let seen: Vec<_> = answer
                .responses
                .iter()
                .map(|one| (one.resource_type, one.resource_name.as_str(), one.error_code))
                .collect();
            assert_eq!(seen, RESOURCES);
        },
    );
    each(
        ApiKey::DescribeConfigs,
        |_| {
            use describe_configs_request::DescribeConfigsResource;
            let resource = |(kind, name, _): (i8, &str, i16)| {
                let resource =
                    DescribeConfigsResource::default().with_resource_type(kind).with_resource_name(text(name));
                resource.with_configuration_keys((kind == 2).then(|| vec![text("x")]))
            };
            DescribeConfigsRequest::default().with_resources(RESOURCES.map(resource).to_vec())
        },
        |_, answer: DescribeConfigsResponse| {
            let seen: Vec<_> = answer
                .results
                .iter()
                .map(|one| (one.resource_type, one.resource_name.as_str(), one.error_code))
                .collect();
            assert_eq!(seen, RESOURCES);
        },
    );
}

#[test]
fn partitions_stay_with_their_topics() {
    each(
        ApiKey::ElectLeaders,
        |_| {
            let topic = elect_leaders_request::TopicPartitions::default();
            let topic = topic.with_topic(text("a").into()).with_partitions(vec![1, 2]);
            ElectLeadersRequest::default().with_topic_partitions(Some(vec![topic]))
        },
        |_, answer: ElectLeadersResponse| {
            let result = &answer.replica_election_results[0];
            let seen: Vec<_> = result.partition_result.iter().map(|one| (one.partition_id, one.error_code)).collect();
            assert_eq!((result.topic.as_str(), &seen[..]), ("a", &[(1, 31), (2, 31)][..]));
        },
    );
    each(
        ApiKey::ElectLeaders,
        |_| ElectLeadersRequest::default().with_topic_partitions(None),
        |_, answer: ElectLeadersResponse| {
            assert!(answer.replica_election_results.is_empty());
        },
    );
    each(
        ApiKey::AlterPartitionReassignments,
        |_| {
            use alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
            let partition = ReassignablePartition::default().with_partition_index(3);
            let partitions =
                vec![partition.clone().with_replicas(Some(vec![1.into(), 2.into()])), partition.with_replicas(None)];
            let topic = ReassignableTopic::default().with_name(text("a").into()).with_partitions(partitions);
            AlterPartitionReassignmentsRequest::default().with_topics(vec![topic])
        },
        |_, answer: AlterPartitionReassignmentsResponse| {
            let seen: Vec<_> =
                answer.responses[0].partitions.iter().map(|one| (one.partition_index, one.error_code)).collect();
            assert_eq!((answer.error_code, &seen[..]), (31, &[(3, 31), (3, 31)][..]));
        },
    );
    each(
        ApiKey::AlterReplicaLogDirs,
        |_| {
            use alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
            let topic =
                |name| AlterReplicaLogDirTopic::default().with_name(text(name).into()).with_partitions(vec![0, 1]);
            let dir = |path, topics| AlterReplicaLogDir::default().with_path(text(path)).with_topics(topics);
            let dirs =
                vec![dir("/a", vec![topic("a"), topic("b")]), dir("/b", Vec::new()), dir("/c", vec![topic("c")])];
            AlterReplicaLogDirsRequest::default().with_dirs(dirs)
        },
        |_, answer: AlterReplicaLogDirsResponse| {
            let seen: Vec<_> =
                answer.results.iter().map(|one| (one.topic_name.as_str(), one.partitions.len())).collect();
            assert_eq!(seen, [("a", 2), ("b", 2), ("c", 2)]);
            assert!(answer.results.iter().flat_map(|one| &one.partitions).all(|one| one.error_code == 31));
        },
    );
    each(
        ApiKey::OffsetCommit,
        |version| {
            use offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
            let partition = OffsetCommitRequestPartition::default().with_partition_index(6);
            let topic = OffsetCommitRequestTopic::default().with_partitions(vec![partition]);
            let topic = if version >= 10 {
                topic.with_topic_id(TWO.parse().expect("a UUID"))
            } else {
                topic.with_name(text("a").into())
            };
            OffsetCommitRequest::default().with_topics(vec![topic])
        },
        |_, answer: OffsetCommitResponse| {
            let partition = &answer.topics[0].partitions[0];
            assert_eq!((partition.partition_index, partition.error_code), (6, 30));
        },
    );
}

#[test]
fn users_groups_and_quotas_are_named() {
    each(
        ApiKey::AlterUserScramCredentials,
        |_| {
            use alter_user_scram_credentials_request::{ScramCredentialDeletion, ScramCredentialUpsertion};
            let deletion = ScramCredentialDeletion::default().with_name(text("old"));
            let upsertion =
                ScramCredentialUpsertion::default().with_name(text("new")).with_salt(Bytes::from_static(b"salt"));
            AlterUserScramCredentialsRequest::default().with_deletions(vec![deletion]).with_upsertions(vec![upsertion])
        },
        |_, answer: AlterUserScramCredentialsResponse| {
            let seen: Vec<_> = answer.results.iter().map(|one| (one.user.as_str(), one.error_code)).collect();
            assert_eq!(seen, [("old", 31), ("new", 31)]);
        },
    );
    each(
        ApiKey::AlterClientQuotas,
        |_| {
            use alter_client_quotas_request::{EntityData, EntryData, OpData};
            let entity = EntityData::default().with_entity_type(text("user")).with_entity_name(Some(text("me")));
            let entry = EntryData::default().with_entity(vec![entity]).with_ops(vec![OpData::default()]);
            AlterClientQuotasRequest::default().with_entries(vec![entry])
        },
        |_, answer: AlterClientQuotasResponse| {
            let entry = &answer.entries[0];
            assert_eq!((entry.error_code, entry.entity[0].entity_name.as_deref()), (31, Some("me")));
        },
    );
    each(
        ApiKey::DeleteGroups,
        |_| DeleteGroupsRequest::default().with_groups_names(vec![text("g").into(), text("h").into()]),
        |_, answer: DeleteGroupsResponse| {
            let seen: Vec<_> = answer.results.iter().map(|one| (one.group_id.as_str(), one.error_code)).collect();
            assert_eq!(seen, [("g", 30), ("h", 30)]);
        },
    );
    each(
        ApiKey::DescribeGroups,
        |_| DescribeGroupsRequest::default().with_groups(vec![text("g").into()]),
        |_, answer: DescribeGroupsResponse| {
            assert_eq!((answer.groups[0].group_id.as_str(), answer.groups[0].error_code), ("g", 30));
        },
    );
    each(
        ApiKey::ConsumerGroupDescribe,
        |_| ConsumerGroupDescribeRequest::default().with_group_ids(vec![text("g").into()]),
        |_, answer: ConsumerGroupDescribeResponse| {
            assert_eq!((answer.groups[0].group_id.as_str(), answer.groups[0].error_code), ("g", 30));
        },
    );
}

#[test]
fn one_error_is_enough_for_the_rest() {
    macro_rules! whole {
        ($($key:ident $request:ident $answer:ident $code:literal;)*) => {$(
            each(ApiKey::$key, |_| $request::default(), |version, answer: $answer| {
                assert_eq!(answer.error_code, $code, concat!(stringify!($key), " {}"), version);
            });
        )*};
    }
    whole! {
        JoinGroup JoinGroupRequest JoinGroupResponse 30;
        Heartbeat HeartbeatRequest HeartbeatResponse 30;
        LeaveGroup LeaveGroupRequest LeaveGroupResponse 30;
        SyncGroup SyncGroupRequest SyncGroupResponse 30;
        ListGroups ListGroupsRequest ListGroupsResponse 31;
        DescribeAcls DescribeAclsRequest DescribeAclsResponse 31;
        CreateDelegationToken CreateDelegationTokenRequest CreateDelegationTokenResponse 65;
        RenewDelegationToken RenewDelegationTokenRequest RenewDelegationTokenResponse 65;
        ExpireDelegationToken ExpireDelegationTokenRequest ExpireDelegationTokenResponse 65;
        DescribeDelegationToken DescribeDelegationTokenRequest DescribeDelegationTokenResponse 65;
        ListPartitionReassignments ListPartitionReassignmentsRequest ListPartitionReassignmentsResponse 31;
        OffsetDelete OffsetDeleteRequest OffsetDeleteResponse 30;
        DescribeClientQuotas DescribeClientQuotasRequest DescribeClientQuotasResponse 31;
        DescribeUserScramCredentials DescribeUserScramCredentialsRequest DescribeUserScramCredentialsResponse 31;
        UpdateFeatures UpdateFeaturesRequest UpdateFeaturesResponse 31;
        UnregisterBroker UnregisterBrokerRequest UnregisterBrokerResponse 31;
        ListTransactions ListTransactionsRequest ListTransactionsResponse 53;
        ConsumerGroupHeartbeat ConsumerGroupHeartbeatRequest ConsumerGroupHeartbeatResponse 30;
        AddRaftVoter AddRaftVoterRequest AddRaftVoterResponse 31;
        RemoveRaftVoter RemoveRaftVoterRequest RemoveRaftVoterResponse 31;
        AlterShareGroupOffsets AlterShareGroupOffsetsRequest AlterShareGroupOffsetsResponse 30;
        DeleteShareGroupOffsets DeleteShareGroupOffsetsRequest DeleteShareGroupOffsetsResponse 30;
    }
    each(
        ApiKey::DescribeLogDirs,
        |_| DescribeLogDirsRequest::default(),
        |version, answer: DescribeLogDirsResponse| {
            assert_eq!((answer.error_code, answer.results.len()), (if version >= 3 { 31 } else { 0 }, 0));
        },
    );
}

#[test]
fn the_newest_versions_which_the_codec_lacks() {
    let refused = |request: &[u8]| match refuse(request, MESSAGE) {
        Ok(Refusal::Answer(answer)) => answer[4..].to_vec(),
        other => panic!("{other:?}"),
    };
    // InitProducerId version 6 without a transactional id: throttle time, error, no producer, no ongoing one.
    let init = b"\0\x16\0\x06\0\0\0\x4d\0\x02me\0\0\0\0\x75\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0";
    let answer = [&b"\0\0\0\x4d\0\0\0\0\0\0\x1f"[..], &[0xff; 20], &[0]].concat();
    assert_eq!(refused(init), answer);
    // OffsetCommit version 10, whose topics are ids: group, generation, member, instance; one topic, partition 6 at 9.
    let topic = [7; 16];
    let partition = b"\0\0\0\x06\0\0\0\0\0\0\0\x09\xff\xff\xff\xff\0\0";
    let head = b"\0\x08\0\x0a\0\0\0\x4d\0\x02me\0\x02g\0\0\0\x01\x01\0\x02";
    let commit = [&head[..], &topic, b"\x02", partition, b"\0\0"].concat();
    let answer = [&b"\0\0\0\x4d\0\0\0\0\0\x02"[..], &topic, b"\x02\0\0\0\x06\0\x1e\0\0\0"].concat();
    assert_eq!(refused(&commit), answer);
}

#[test]
fn what_is_not_known_has_no_refusal() {
    let request =
        |key: i16, version: i16| [&key.to_be_bytes()[..], &version.to_be_bytes(), b"\0\0\0\x4d\xff\xff\0\0"].concat();
    for (key, version) in [(0, 14), (0, -1), (19, 8), (api::METADATA, 12), (30_000, 0), (-1, 0), (8, 1)] {
        assert_eq!(refuse(&request(key, version), MESSAGE), Err(RefusalError::Unknown), "{key} {version}");
    }
    assert_eq!((versions(api::FETCH), versions(api::PRODUCE)), (None, Some(0..=13)));
}

#[test]
fn an_answer_stays_within_its_bound() {
    // A million partitions of one topic to be elected: each takes four bytes there and would take nine in the answer.
    let mut bytes = BytesMut::new();
    bytes.put_slice(b"\0\x2b\0\x01\0\0\0\x4d\xff\xff\0\0\0\0\x01\0\x01a");
    bytes.put_i32(1_000_000);
    bytes.put_bytes(0, 4_000_000 + 4);
    assert_eq!(refuse(&bytes, MESSAGE), Err(RefusalError::TooLarge));
    const { assert!(1_000_000 * 9 > MOST_ANSWER) };
}
