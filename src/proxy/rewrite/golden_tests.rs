//! Responses built by an independent codec, rewritten, and read by it again: addresses differ and nothing else does.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiVersionsResponse, BrokerId, DescribeClusterResponse, FetchResponse, FindCoordinatorResponse, MetadataResponse,
    ProduceRequest, ProduceResponse, RequestHeader, ResponseHeader, ShareAcknowledgeResponse, ShareFetchResponse,
    TopicName, api_versions_response as av, describe_cluster_response as dc, fetch_response as fe,
    find_coordinator_response as fc, metadata_response as md, produce_response as pr, share_acknowledge_response as sa,
    share_fetch_response as sf,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

use super::test_support::{Local, awaiting, frame, leaks, real_host, receive, rewrite, send};
use super::{Mapping, RewriteError, Session};
use crate::kafka::api;

fn text(text: impl Into<String>) -> StrBytes {
    StrBytes::from_string(text.into())
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

fn response<M: Encodable + HeaderVersion>(message: &M, version: i16) -> Vec<u8> {
    let mut body = BytesMut::new();
    let mut header = ResponseHeader::default().with_correlation_id(7);
    if M::header_version(version) >= 1 {
        header.unknown_tagged_fields.insert(3, Bytes::from_static(b"header tag"));
    }
    header.encode(&mut body, M::header_version(version)).expect("header");
    message.encode(&mut body, version).expect("message");
    frame(&body)
}

fn read<M: Decodable + HeaderVersion>(bytes: &[u8], version: i16) -> M {
    let mut bytes = Bytes::copy_from_slice(bytes);
    let length = u32::from_be_bytes(bytes.split_to(4)[..].try_into().expect("four"));
    assert_eq!(length as usize, bytes.len(), "the frame's length");
    let header = ResponseHeader::decode(&mut bytes, M::header_version(version)).expect("header");
    assert_eq!(
        (header.correlation_id, header.unknown_tagged_fields.len()),
        (7, usize::from(M::header_version(version) >= 1))
    );
    let message = M::decode(&mut bytes, version).expect("message");
    assert!(bytes.is_empty(), "nothing behind the message");
    message
}

/// Gives addresses, and takes none of them for its own: whatever is rewritten is about to leak.
struct Forgetful<'a>(&'a mut Local);

impl Mapping for Forgetful<'_> {
    fn local(&mut self, node_id: i32, host: &str, port: i32) -> Option<(String, u16)> {
        self.0.local(node_id, host, port)
    }

    fn is_local(&mut self, _: &[u8], _: i32) -> bool {
        false
    }
}

/// Rewrites `message` with short and with long local hosts and compares with what `expect` makes of it.
fn check<M>(key: i16, version: i16, message: &M, strip: impl Fn(&mut M), expect: impl Fn(&mut M, &Local))
where
    M: Encodable + Decodable + HeaderVersion + Clone + PartialEq + std::fmt::Debug,
{
    for mut local in [Local::short(), Local::long()] {
        let before = response(message, version);
        let after = rewrite(key, version, &before, &mut local).expect("rewritten");
        let mut expected = message.clone();
        expect(&mut expected, &local);
        let mut actual = read::<M>(&after, version);
        strip(&mut actual);
        assert_eq!(actual, expected, "{} {version}", api::name(key));
        assert!(!leaks(&after), "{} {version} leaks", api::name(key));
        // Were none of these addresses ours, each would be counted, and the response would not leave.
        let host = local.host.clone();
        let addresses = after.windows(host.len()).filter(|window| *window == host.as_bytes()).count() as u64;
        let mut session = awaiting(key, version);
        let told = receive(&mut session, &mut Forgetful(&mut local), &[&before]);
        match addresses {
            0 => assert_eq!(told, Ok(after)),
            _ => assert_eq!(told, Err(RewriteError::Leak { key, version, addresses })),
        }
        assert_eq!(session.take_tally().leaks, addresses, "{} {version}", api::name(key));
    }
}

macro_rules! endpoints {
    ($kind:path) => {
        [1, 2, i32::MAX]
            .map(|id| {
                <$kind>::default()
                    .with_node_id(BrokerId(id))
                    .with_host(text(real_host(id)))
                    .with_port(9092)
                    .with_rack((id != 2).then(|| text("rack-a")))
            })
            .to_vec()
    };
}

/// The endpoints as they must be, checked against those there are: rewritten where they fit, none where not.
macro_rules! expect_endpoints {
    ($message:expr, $local:expr) => {{
        let fits = $local.host.len() < 20;
        $message.node_endpoints.retain(|_| fits);
        for node in &mut $message.node_endpoints {
            node.host = text($local.host.clone());
            node.port = Local::port(node.node_id.0);
        }
    }};
}

/// Takes the filling off, which stands for nothing; whatever else is unknown must be there still.
macro_rules! strip {
    () => {
        |message| {
            let filling = message.unknown_tagged_fields.remove(&127).expect("a filling");
            assert!(filling.iter().all(|byte| *byte == 0), "of zeros");
        }
    };
}

#[test]
fn metadata_in_every_version() {
    for version in 0..=13 {
        let mut message = MetadataResponse::default()
            .with_brokers(
                [0, 1, 2_147_483_000, i32::MAX]
                    .map(|id| {
                        let mut broker = md::MetadataResponseBroker::default()
                            .with_node_id(BrokerId(id))
                            .with_host(text(real_host(id)))
                            .with_port(9092 + id % 3);
                        if version >= 1 {
                            broker.rack = (id != 1).then(|| text("rack"));
                        }
                        broker
                    })
                    .to_vec(),
            )
            .with_topics(vec![
                md::MetadataResponseTopic::default().with_name(Some(topic("eu.xaz.orders"))).with_partitions(vec![
                    md::MetadataResponsePartition::default()
                        .with_leader_id(BrokerId(1))
                        .with_replica_nodes(vec![BrokerId(1), BrokerId(i32::MAX)]),
                ]),
            ]);
        if version >= 1 {
            message.controller_id = BrokerId(1);
        }
        if version >= 2 {
            message.cluster_id = Some(text("cluster"));
        }
        if version >= 3 {
            message.throttle_time_ms = 11;
        }
        if version >= 9 {
            message.unknown_tagged_fields.insert(9, Bytes::from_static(b"kept"));
            message.brokers[1].unknown_tagged_fields.insert(4, Bytes::from_static(b"kept too"));
        }
        check(
            api::METADATA,
            version,
            &message,
            |_| (),
            |message, local| {
                for broker in &mut message.brokers {
                    (broker.host, broker.port) = (text(local.host.clone()), Local::port(broker.node_id.0));
                }
            },
        );
        let mut local = Local { hidden: vec![1], ..Local::short() };
        let after = rewrite(api::METADATA, version, &response(&message, version), &mut local).expect("rewritten");
        let ids: Vec<_> =
            read::<MetadataResponse>(&after, version).brokers.iter().map(|broker| broker.node_id.0).collect();
        assert_eq!(ids, [0, 2_147_483_000, i32::MAX], "a hidden broker is left out");
        assert_eq!(local.asked[1], (1, real_host(1), 9093), "asked with the real address");
        assert!(!leaks(&after));
    }
}

#[test]
fn find_coordinator_in_every_version() {
    for version in 0..=3 {
        let mut message =
            FindCoordinatorResponse::default().with_node_id(BrokerId(2)).with_host(text(real_host(2))).with_port(9092);
        if version >= 1 {
            message = message.with_throttle_time_ms(5).with_error_message(Some(text("NONE")));
        }
        check(
            api::FIND_COORDINATOR,
            version,
            &message,
            |_| (),
            |message, local| {
                (message.host, message.port) = (text(local.host.clone()), Local::port(2));
            },
        );
        let mut hidden = Local { hidden: vec![2], ..Local::short() };
        let after =
            rewrite(api::FIND_COORDINATOR, version, &response(&message, version), &mut hidden).expect("rewritten");
        let after = read::<FindCoordinatorResponse>(&after, version);
        assert_eq!((after.error_code, after.node_id.0, &*after.host, after.port), (15, -1, "", -1));

        let none = FindCoordinatorResponse::default().with_error_code(15).with_node_id(BrokerId(-1)).with_port(-1);
        let before = response(&none, version);
        let mut local = Local::short();
        assert_eq!(rewrite(api::FIND_COORDINATOR, version, &before, &mut local), Ok(before), "an error stays as it is");
        assert!(local.asked.is_empty());
    }
    for version in 4..=6 {
        let coordinator = |key: &str, id: i32| {
            fc::Coordinator::default()
                .with_key(text(key))
                .with_node_id(BrokerId(id))
                .with_host(text(real_host(id)))
                .with_port(9092)
        };
        let error = fc::Coordinator::default()
            .with_key(text("group-b"))
            .with_node_id(BrokerId(-1))
            .with_port(-1)
            .with_error_code(15)
            .with_error_message(Some(text("not yet")));
        let message = FindCoordinatorResponse::default()
            .with_coordinators(vec![coordinator("group-a", 1), error, coordinator("group-c", 2)])
            .with_throttle_time_ms(3);
        check(
            api::FIND_COORDINATOR,
            version,
            &message,
            |_| (),
            |message, local| {
                for coordinator in message.coordinators.iter_mut().filter(|coordinator| coordinator.node_id.0 >= 0) {
                    (coordinator.host, coordinator.port) =
                        (text(local.host.clone()), Local::port(coordinator.node_id.0));
                }
            },
        );
        let mut hidden = Local { hidden: vec![1], ..Local::short() };
        let after =
            rewrite(api::FIND_COORDINATOR, version, &response(&message, version), &mut hidden).expect("rewritten");
        let after = read::<FindCoordinatorResponse>(&after, version).coordinators;
        assert_eq!((after[0].error_code, after[0].node_id.0, after[0].port, &*after[0].key), (15, -1, -1, "group-a"));
        assert_eq!((after[1].error_code, after[2].port), (15, Local::port(2)));
    }
}

#[test]
fn describe_cluster_in_every_version() {
    for version in 0..=2 {
        let mut message = DescribeClusterResponse::default()
            .with_cluster_id(text("cluster"))
            .with_controller_id(BrokerId(1))
            .with_cluster_authorized_operations(77)
            .with_brokers(
                [1, 2]
                    .map(|id| {
                        dc::DescribeClusterBroker::default()
                            .with_broker_id(BrokerId(id))
                            .with_host(text(real_host(id)))
                            .with_port(9092)
                            .with_rack((id == 2).then(|| text("r")))
                            .with_is_fenced(version >= 2 && id == 2)
                    })
                    .to_vec(),
            );
        check(
            api::DESCRIBE_CLUSTER,
            version,
            &message,
            |_| (),
            |message, local| {
                for broker in &mut message.brokers {
                    (broker.host, broker.port) = (text(local.host.clone()), Local::port(broker.broker_id.0));
                }
            },
        );
        if version >= 1 {
            message.endpoint_type = 2;
            let before = response(&message, version);
            let mut local = Local::short();
            assert_eq!(rewrite(api::DESCRIBE_CLUSTER, version, &before, &mut local), Ok(before), "controllers pass");
            assert!(local.asked.is_empty());
        }
    }
}

#[test]
fn produce_in_every_version() {
    for version in 3..=13 {
        let mut partition =
            pr::PartitionProduceResponse::default().with_index(3).with_error_code(6).with_base_offset(-1);
        let mut name = topic("eu.xaz.orders");
        if version >= 5 {
            partition.log_start_offset = 9;
        }
        if version >= 8 {
            partition.error_message = Some(text("moved"));
            partition.record_errors =
                vec![pr::BatchIndexAndErrorMessage::default().with_batch_index_error_message(Some(text("bad")))];
        }
        if version >= 10 {
            partition.current_leader = pr::LeaderIdAndEpoch::default().with_leader_id(BrokerId(2)).with_leader_epoch(8);
        }
        if version >= 13 {
            name = TopicName::default();
        }
        let mut message = ProduceResponse::default().with_throttle_time_ms(4).with_responses(vec![
            pr::TopicProduceResponse::default()
                .with_name(name)
                .with_partition_responses(vec![partition.clone(), partition]),
        ]);
        if version >= 9 {
            message.unknown_tagged_fields.insert(5, Bytes::from_static(b"kept"));
        }
        let plain = response(&message, version);
        assert_eq!(rewrite(api::PRODUCE, version, &plain, &mut Local::short()), Ok(plain), "no endpoints, no change");
        if version >= 10 {
            message.node_endpoints = endpoints!(pr::NodeEndpoint);
            check(api::PRODUCE, version, &message, strip!(), |message, local| expect_endpoints!(message, local));
        }
    }
}

#[test]
fn produce_before_version_3() {
    // One topic `t`, one partition: index, error, offset, from 2 a time; from 1 a throttle time behind all.
    for (version, middle, end) in
        [(0, &b""[..], &b""[..]), (1, b"", b"\0\0\0\x01"), (2, b"\xff\xff\xff\xff\xff\xff\xff\xff", b"\0\0\0\x01")]
    {
        let body = [b"\0\0\0\x07\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0\0\0\x05", middle, end].concat();
        let before = frame(&body);
        assert_eq!(rewrite(api::PRODUCE, version, &before, &mut Local::short()), Ok(before));
        let mut walker = crate::kafka::walk::to_tail(api::PRODUCE, version, body.len() as u64 - 4).expect("walkable");
        assert!(!walker.feed(&body[4..body.len() - 1]).expect("so far").done);
        assert!(walker.feed(&body[body.len() - 1..]).expect("to the end").done);
    }
}

#[test]
fn fetch_in_every_version() {
    for version in 4..=18 {
        let mut partition = fe::PartitionData::default()
            .with_partition_index(1)
            .with_high_watermark(10)
            .with_last_stable_offset(9)
            .with_aborted_transactions(Some(vec![fe::AbortedTransaction::default().with_first_offset(5)]))
            .with_records(Some(Bytes::from(vec![0xaa; 300])));
        if version >= 12 {
            partition.current_leader = fe::LeaderIdAndEpoch::default().with_leader_id(BrokerId(2)).with_leader_epoch(1);
            partition.diverging_epoch = fe::EpochEndOffset::default().with_epoch(4).with_end_offset(4);
            partition.snapshot_id = fe::SnapshotId::default().with_end_offset(4).with_epoch(4);
        }
        let moved = fe::PartitionData::default().with_error_code(6).with_aborted_transactions(None).with_records(None);
        let name = if version >= 13 { TopicName::default() } else { topic("eu.xaz.orders") };
        let mut message = FetchResponse::default().with_throttle_time_ms(2).with_responses(vec![
            fe::FetchableTopicResponse::default().with_topic(name.clone()).with_partitions(vec![partition, moved]),
            fe::FetchableTopicResponse::default().with_topic(name),
        ]);
        if version >= 7 {
            message.session_id = 99;
        }
        let plain = response(&message, version);
        assert_eq!(rewrite(api::FETCH, version, &plain, &mut Local::short()), Ok(plain), "no endpoints, no change");
        if version >= 16 {
            message.node_endpoints = endpoints!(fe::NodeEndpoint);
            message.unknown_tagged_fields.insert(6, Bytes::from_static(b"kept"));
            check(api::FETCH, version, &message, strip!(), |message, local| expect_endpoints!(message, local));
            let before = response(&message, version);
            let mut local = Local { hidden: vec![1, i32::MAX], ..Local::short() };
            let after = rewrite(api::FETCH, version, &before, &mut local).expect("rewritten");
            assert_eq!(after.len(), before.len(), "the frame keeps its length");
            let after = read::<FetchResponse>(&after, version);
            assert_eq!(after.node_endpoints.iter().map(|node| node.node_id.0).collect::<Vec<_>>(), [2]);
        }
    }
}

#[test]
fn every_layout_of_fetch_and_produce_is_walked_to_its_end_section() {
    for version in 4..=18 {
        let name = if version >= 13 { TopicName::default() } else { topic("t") };
        let message = FetchResponse::default().with_responses(vec![
            fe::FetchableTopicResponse::default().with_topic(name).with_partitions(vec![
                fe::PartitionData::default()
                    .with_aborted_transactions(Some(Vec::new()))
                    .with_records(Some(Bytes::from_static(b"records"))),
            ]),
        ]);
        let body = &response(&message, version)[8..];
        let mut walker = crate::kafka::walk::to_tail(api::FETCH, version, body.len() as u64).expect("walkable");
        let fed = walker.feed(body).expect("walked");
        assert_eq!((fed.done, body.len() - fed.taken), (true, usize::from(version >= 12)), "version {version}");
    }
}

#[test]
fn share_fetch_and_acknowledge() {
    let message = ShareFetchResponse::default().with_acquisition_lock_timeout_ms(30_000).with_responses(vec![
        sf::ShareFetchableTopicResponse::default().with_partitions(vec![
            sf::PartitionData::default()
                .with_error_message(Some(text("moved")))
                .with_current_leader(sf::LeaderIdAndEpoch::default().with_leader_id(2))
                .with_records(Some(Bytes::from_static(b"records")))
                .with_acquired_records(vec![sf::AcquiredRecords::default().with_delivery_count(1)]),
        ]),
    ]);
    let plain = response(&message, 1);
    assert_eq!(rewrite(api::SHARE_FETCH, 1, &plain, &mut Local::short()), Ok(plain), "no endpoints, no change");
    let mut message = message.with_node_endpoints(endpoints!(sf::NodeEndpoint));
    message.unknown_tagged_fields.insert(2, Bytes::from_static(b"kept"));
    check(api::SHARE_FETCH, 1, &message, strip!(), |message, local| expect_endpoints!(message, local));
    // 2 has the layout of 1; 0 lacks the four bytes of the lock timeout behind throttle, error and message.
    let v1 = response(&message, 1);
    let rewritten = rewrite(api::SHARE_FETCH, 1, &v1, &mut Local::short()).expect("rewritten");
    assert_eq!(rewrite(api::SHARE_FETCH, 2, &v1, &mut Local::short()), Ok(rewritten.clone()));
    let without_timeout = |frame: &[u8]| {
        let at = frame.windows(4).position(|window| window == 30_000_i32.to_be_bytes()).expect("the timeout");
        super::test_support::frame(&[&frame[4..at], &frame[at + 4..]].concat())
    };
    let v0 = rewrite(api::SHARE_FETCH, 0, &without_timeout(&v1), &mut Local::short());
    assert_eq!(v0, Ok(without_timeout(&rewritten)));

    let message = ShareAcknowledgeResponse::default()
        .with_error_code(0x1234)
        .with_responses(vec![
            sa::ShareAcknowledgeTopicResponse::default()
                .with_partitions(vec![sa::PartitionData::default().with_error_code(6)]),
        ])
        .with_node_endpoints(endpoints!(sa::NodeEndpoint));
    check(api::SHARE_ACKNOWLEDGE, 1, &message, strip!(), |message, local| expect_endpoints!(message, local));
    let v1 = response(&message, 1);
    let rewritten = rewrite(api::SHARE_ACKNOWLEDGE, 1, &v1, &mut Local::short()).expect("rewritten");
    assert_eq!(rewrite(api::SHARE_ACKNOWLEDGE, 0, &v1, &mut Local::short()), Ok(rewritten.clone()));
    // 2 has a lock timeout behind error code and message (null here).
    let with_timeout = |frame: &[u8]| {
        let at = frame.windows(2).position(|window| window == 0x1234_i16.to_be_bytes()).expect("the error code") + 3;
        super::test_support::frame(&[&frame[4..at], &[0, 0, 0x75, 0x30], &frame[at..]].concat())
    };
    assert_eq!(
        rewrite(api::SHARE_ACKNOWLEDGE, 2, &with_timeout(&v1), &mut Local::short()),
        Ok(with_timeout(&rewritten))
    );
}

#[test]
fn api_versions_in_every_version() {
    for version in 0..=4 {
        let entry =
            |key, min, max| av::ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max);
        let mut message = ApiVersionsResponse::default().with_api_keys(vec![
            entry(0, 0, 99),
            entry(1, 4, 18),
            entry(2, 1, 99),
            entry(3, 0, 99),
            entry(10, 0, 7),
            entry(18, 0, 6),
            entry(60, 0, 3),
            entry(78, 1, 2),
            entry(79, 1, 3),
            entry(30_000, 0, 9),
            entry(93, 0, 0),
        ]);
        if version >= 3 {
            message = message.with_finalized_features_epoch(44);
            message.api_keys[9].unknown_tagged_fields.insert(1, Bytes::from_static(b"kept"));
        }
        check(
            api::API_VERSIONS,
            version,
            &message,
            |_| (),
            |message, _| {
                for entry in &mut message.api_keys {
                    entry.max_version = match entry.api_key {
                        0 => 13,
                        3 => 13,
                        10 => 6,
                        18 => 5,
                        60 | 79 => 2,
                        _ => entry.max_version,
                    };
                }
            },
        );
        if version >= 3 {
            // 5 has the layout of 3 and 4; error 35 has that of 0 whatever was asked.
            let four = rewrite(api::API_VERSIONS, version, &response(&message, version), &mut Local::short());
            assert_eq!(rewrite(api::API_VERSIONS, 5, &response(&message, version), &mut Local::short()), four);
            let unsupported = ApiVersionsResponse::default().with_error_code(35).with_api_keys(vec![entry(18, 0, 9)]);
            let after =
                rewrite(api::API_VERSIONS, 99, &response(&unsupported, 0), &mut Local::short()).expect("rewritten");
            let after = read::<ApiVersionsResponse>(&after, 0);
            assert_eq!((after.error_code, after.api_keys[0].max_version), (35, 5));
        }
    }
}

#[test]
fn reads_acks_in_every_version_of_produce() {
    for version in 3..=13 {
        for (acks, answered) in [(0, false), (1, true), (-1, true)] {
            let mut header = RequestHeader::default()
                .with_request_api_key(0)
                .with_request_api_version(version)
                .with_correlation_id(7)
                .with_client_id(Some(text("rdkafka")));
            if version >= 9 {
                header.unknown_tagged_fields.insert(1, Bytes::from_static(b"tag"));
            }
            let mut body = BytesMut::new();
            header.encode(&mut body, ProduceRequest::header_version(version)).expect("header");
            let id = kafka_protocol::messages::TransactionalId(text("transaction"));
            ProduceRequest::default()
                .with_transactional_id(Some(id))
                .with_acks(acks)
                .encode(&mut body, version)
                .expect("request");
            let request = frame(&body);
            for cut in 1..request.len() {
                let mut session = Session::new();
                let (a, b) = request.split_at(cut);
                assert_eq!(send(&mut session, &[a, b]), Ok(request.clone()));
                assert_eq!(session.is_answered(), !answered, "version {version} acks {acks}");
                assert!(session.is_between_requests());
            }
        }
    }
    for version in 0..=2 {
        let request = |acks: i16| {
            frame(&[&[0, 0, 0, version, 0, 0, 0, 7, 0xff, 0xff][..], &acks.to_be_bytes(), b"...."].concat())
        };
        let mut session = Session::new();
        send(&mut session, &[&request(0)]).expect("sent");
        assert!(session.is_answered());
        send(&mut session, &[&request(-1)]).expect("sent");
        assert!(!session.is_answered());
    }
}

#[test]
fn large_records_pass_without_being_held() {
    let partition = fe::PartitionData::default()
        .with_records(Some(Bytes::from(vec![0xaa; 3 << 20])))
        .with_aborted_transactions(None);
    let message = FetchResponse::default()
        .with_responses(vec![fe::FetchableTopicResponse::default().with_partitions(vec![partition])])
        .with_node_endpoints(endpoints!(fe::NodeEndpoint));
    let before = response(&message, 17);
    let mut session = awaiting(api::FETCH, 17);
    let mut written = 0;
    for chunk in before.chunks(64 << 10) {
        let mut pieces = super::Pieces::new();
        session.handle_response(chunk, &mut Local::short(), &mut pieces).expect("a chunk");
        written += pieces
            .iter()
            .map(|piece| if let super::Piece::New(bytes) = piece { bytes.len() } else { 0 })
            .sum::<usize>();
    }
    assert!(written < 300, "{written} bytes of 3 MiB were not passed as they came");
    let after =
        receive(&mut awaiting(api::FETCH, 17), &mut Local::short(), &before.chunks(64 << 10).collect::<Vec<_>>());
    assert_eq!(read::<FetchResponse>(&after.expect("rewritten"), 17).node_endpoints.len(), 3);
}
