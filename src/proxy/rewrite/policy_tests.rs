//! What clients may not ask never reaches the broker, whatever the cut, and is answered in its turn.

use kafka_protocol::messages::{CreateTopicsRequest, MetadataRequest, ProduceRequest, RequestHeader};
use kafka_protocol::protocol::{Encodable, HeaderVersion, StrBytes};

use super::test_support::{Local, apply, frame, receive, request, send};
use super::{Pieces, Policy, RewriteError, Rules, Session};
use crate::kafka::api;

const CREATE_TOPICS: i16 = 19;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn encode<M: Encodable + HeaderVersion>(key: i16, version: i16, id: i32, message: &M) -> Vec<u8> {
    let mut out = bytes::BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(key)
        .with_request_api_version(version)
        .with_correlation_id(id)
        .with_client_id(Some(text("me")));
    header.encode(&mut out, M::header_version(version)).expect("a header");
    message.encode(&mut out, version).expect("a body");
    frame(&out)
}

fn produce(version: i16, id: i32, acks: i16, records: usize) -> Vec<u8> {
    use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
    let partition = PartitionProduceData::default().with_index(3).with_records(Some(vec![b'r'; records].into()));
    let topic = TopicProduceData::default().with_partition_data(vec![partition]);
    let topic = if version < 13 { topic.with_name(text("pay").into()) } else { topic };
    encode(0, version, id, &ProduceRequest::default().with_acks(acks).with_topic_data(vec![topic]))
}

fn create_topics(id: i32) -> Vec<u8> {
    use kafka_protocol::messages::create_topics_request::CreatableTopic;
    let topic = CreatableTopic::default().with_name(text("new").into());
    encode(CREATE_TOPICS, 7, id, &CreateTopicsRequest::default().with_topics(vec![topic]))
}

fn metadata(version: i16, id: i32, make: bool) -> Vec<u8> {
    use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
    let topic = MetadataRequestTopic::default().with_name(Some(text("maybe").into()));
    let request = MetadataRequest::default().with_topics(Some(vec![topic])).with_allow_auto_topic_creation(make);
    encode(api::METADATA, version, id, &request)
}

fn session(policy: Policy) -> Session {
    Session::with_rules(&Rules { policy, ..Rules::default() }, [0; 18])
}

fn echo(id: i32) -> Vec<u8> {
    frame(&[&id.to_be_bytes()[..], b"echo"].concat())
}

/// The correlation ids of frames.
fn ids(mut frames: &[u8]) -> Vec<i32> {
    let mut ids = Vec::new();
    while let Some((length, rest)) = frames.split_first_chunk::<4>() {
        let (frame, rest) = rest.split_at(u32::from_be_bytes(*length) as usize);
        ids.push(i32::from_be_bytes(frame[..4].try_into().expect("four")));
        frames = rest;
    }
    ids
}

/// What the client gets, with and without anything of the broker.
fn spoken(session: &mut Session) -> Vec<u8> {
    let (mut pieces, mut out) = (Pieces::new(), Vec::new());
    session.speak(&mut pieces);
    apply(&[], &pieces, &mut out);
    out
}

#[test]
fn denied_requests_among_others_are_answered_in_their_turn_whatever_the_cut() {
    for version in [3, 9, 13] {
        let denied = [produce(version, 2, -1, 300), create_topics(4)];
        let sent = [&request(2, 1, 1)[..], &denied[0], &request(1, 4, 3), &denied[1], &request(2, 1, 5)].concat();
        let allowed = [request(2, 1, 1), request(1, 4, 3), request(2, 1, 5)].concat();
        let answers = [echo(1), echo(3), echo(5)].concat();
        let mut expected = None;
        let cuts = (1..sent.len()).map(|cut| vec![&sent[..cut], &sent[cut..]]);
        for chunks in cuts.chain([vec![&sent[..]], sent.chunks(1).collect(), sent.chunks(7).collect()]) {
            let mut session = session(Policy::read_only());
            assert_eq!(send(&mut session, &chunks).expect("requests"), allowed, "nothing else goes to the broker");
            assert_eq!(spoken(&mut session), b"", "the first is the broker's to answer");
            let got = receive(&mut session, &mut Local::short(), &[&answers[..]]).expect("answers");
            assert_eq!(ids(&got), [1, 2, 3, 4, 5]);
            assert!(session.is_answered() && session.is_between_requests());
            assert_eq!(session.take_denied(), [(0, 1), (CREATE_TOPICS, 1)]);
            assert_eq!(&got, expected.get_or_insert_with(|| got.clone()));
        }
        let got = expected.expect("one");
        let has = |what: &[u8]| got.windows(what.len()).any(|window| window == what);
        assert!(has(&29_i16.to_be_bytes()) && has(b"CreateTopics is not allowed to clients of this proxy"));
        assert!(!has(b"rrr"));
    }
}

#[test]
fn one_denied_api_leaves_the_others() {
    let mut session = session(Policy::open().and(CREATE_TOPICS));
    let write = produce(9, 1, -1, 10);
    assert_eq!(
        send(&mut session, &[&write, &create_topics(2), &request(30_000, 1, 3)]).expect("requests"),
        [write.clone(), request(30_000, 1, 3)].concat()
    );
    assert_eq!(session.take_denied(), [(CREATE_TOPICS, 1)]);
    let make = metadata(12, 4, true);
    assert_eq!(send(&mut session, &[&make]).expect("a request"), make, "topics may be made by asking");
}

#[test]
fn a_producer_without_acknowledgements_is_closed_on_after_what_it_asked_before() {
    for version in 3..=13 {
        let sent = [request(2, 1, 1), produce(version, 2, 0, 100), request(2, 1, 3)].concat();
        for step in [1, 5, sent.len()] {
            let mut session = session(Policy::read_only());
            let (mut out, mut taken) = (Vec::new(), 0);
            for chunk in sent.chunks(step) {
                let mut pieces = Pieces::new();
                let took = session.handle_request(chunk, &mut pieces).expect("requests");
                apply(&chunk[..took], &pieces, &mut out);
                taken += took;
                if took < chunk.len() {
                    break;
                }
            }
            assert_eq!((out, taken), (request(2, 1, 1), sent.len() - request(2, 1, 3).len()));
            assert!(session.is_closing() && session.is_between_requests() && !session.is_answered());
            assert_eq!(session.take_denied(), [(0, 1)]);
            receive(&mut session, &mut Local::short(), &[&echo(1)]).expect("an answer");
            assert!(session.is_answered() && session.handle_client_end().is_ok());
        }
    }
}

#[test]
fn asking_for_a_topic_does_not_make_it() {
    for version in 4..=13 {
        for make in [true, false] {
            let (asked, expected) = (metadata(version, 1, make), metadata(version, 1, false));
            for step in 1..=asked.len() {
                let mut session = session(Policy::read_only());
                let chunks: Vec<&[u8]> = asked.chunks(step).collect();
                assert_eq!(send(&mut session, &chunks).expect("a request"), expected, "version {version}");
                assert!(session.is_between_requests() && !session.is_answered());
            }
        }
    }
    // Before there was a flag brokers made topics for whoever asked; behind the known versions it may be anywhere.
    for version in [0, 3, 14, -1] {
        let refused = send(&mut session(Policy::read_only()), &[&request(api::METADATA, version, 1)]);
        assert_eq!(refused, Err(RewriteError::Denied { key: api::METADATA, version }));
    }
}

#[test]
fn what_has_no_refusal_ends_the_connection() {
    // Envelope, which carries another request; a Produce of the future; an API of the future.
    for (key, version) in [(58, 0), (0, 14), (30_000, 0), (-1, 0)] {
        let refused = send(&mut session(Policy::read_only()), &[&request(key, version, 1)]);
        assert_eq!(refused, Err(RewriteError::Denied { key, version }));
        assert_eq!(refused.expect_err("denied").reason(), "API not allowed");
    }
}

#[test]
fn raw_tokens_hide_no_request() {
    // A broker without SASL answers the handshake with an error and then takes what follows for a request.
    let handshake = frame(b"\0\x11\0\0\0\0\0\x01\0\x02me\0\x05PLAIN");
    let write = produce(9, 2, -1, 10);
    let mut open = session(Policy::open());
    assert_eq!(send(&mut open, &[&handshake, &write]).expect("a token"), [&handshake[..], &write].concat());
    let mut closed = session(Policy::read_only());
    assert_eq!(send(&mut closed, &[&handshake, &write]).expect("requests"), b"");
    let got = spoken(&mut closed);
    assert_eq!(ids(&got), [1, 2]);
    assert_eq!(got[..14], *b"\0\0\0\x0a\0\0\0\x01\0\x23\0\0\0\0", "UNSUPPORTED_VERSION");
}

#[test]
fn a_denied_request_holds_little_and_no_more() {
    // Records of nearly a hundred megabytes pass by; names of more than a mebibyte do not.
    let write = produce(9, 1, -1, 99 << 20);
    let mut closed = session(Policy::read_only());
    for chunk in write.chunks(1 << 20) {
        let mut pieces = Pieces::new();
        assert_eq!(closed.handle_request(chunk, &mut pieces), Ok(chunk.len()));
        assert!(!pieces.sends());
    }
    assert_eq!(ids(&spoken(&mut closed)), [1]);
    let mut long = create_topics(1);
    long.extend(vec![0; 2 << 20]);
    let length = (long.len() - 4) as u32;
    long[..4].copy_from_slice(&length.to_be_bytes());
    assert!(matches!(
        send(&mut session(Policy::read_only()), &[&long]),
        Err(RewriteError::TooLarge { key: CREATE_TOPICS, version: 7, most: 1_048_576, .. })
    ));
}

#[test]
fn answers_that_wait_stop_the_client() {
    let mut waiting = session(Policy::read_only());
    send(&mut waiting, &[&request(2, 1, 0)]).expect("a request");
    let one = create_topics(1);
    let mut taken = 0;
    for _ in 0..100_000 {
        let mut pieces = Pieces::new();
        match waiting.handle_request(&one, &mut pieces).expect("a request") {
            0 => break,
            took => taken += took / one.len(),
        }
    }
    // A thousand in all may be unanswered.
    assert_eq!(taken, super::MOST_IN_FLIGHT - 1);
}
