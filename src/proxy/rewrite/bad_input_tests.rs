//! What brokers and clients should never send, and what becomes of it: an error or an untouched pass, never a panic, never a leak.

use proptest::prelude::*;

use super::test_support::{Local, apply, awaiting, frame, leaks, real_host, receive, request, rewrite, send};
use super::{MOST_IN_FLIGHT, Pieces, RewriteError, Session, fuzz_session};
use crate::kafka::api;
use crate::kafka::frame::{FrameError, fuzz_splitter};
use crate::kafka::header::fuzz_request_header;
use crate::kafka::primitives::{Malformed, fuzz_primitives, put_text, put_uvarint};
use crate::kafka::walk::{fuzz_readers, fuzz_walkers};

fn answer(correlation_id: i32, body: &[u8]) -> Vec<u8> {
    frame(&[&correlation_id.to_be_bytes(), body].concat())
}

/// One endpoint as Produce, Fetch and Share write it.
fn endpoint(node_id: i32, host: &[u8], port: i32) -> Vec<u8> {
    let mut out = node_id.to_be_bytes().to_vec();
    put_text(&mut out, true, host);
    out.extend(port.to_be_bytes());
    out.extend(b"\0\0");
    out
}

/// A Produce v10 response without topics and with these tagged fields at its end.
fn produce_with(fields: &[(u32, &[u8])], behind: &[u8]) -> Vec<u8> {
    let mut body = b"\0\x01\0\0\0\0".to_vec();
    put_uvarint(&mut body, fields.len() as u32);
    for (tag, payload) in fields {
        put_uvarint(&mut body, *tag);
        put_uvarint(&mut body, payload.len() as u32);
        body.extend_from_slice(payload);
    }
    body.extend_from_slice(behind);
    answer(7, &body)
}

fn endpoints(nodes: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    put_uvarint(&mut out, nodes.len() as u32 + 1);
    nodes.iter().for_each(|node| out.extend(node));
    out
}

#[test]
fn frames_of_impossible_lengths_and_foreign_protocols() {
    for prefix in [[0xff; 4], [0; 4], [0, 0, 0, 7], [0x16, 3, 1, 0], *b"GET ", *b"SSH-", *b"PROX", [6, 0x40, 0, 1]] {
        for step in 1..=4 {
            let chunks: Vec<&[u8]> = prefix.chunks(step).collect();
            assert!(matches!(send(&mut Session::new(), &chunks), Err(RewriteError::Frame(_))), "{prefix:x?}");
        }
    }
    for prefix in [[0xff; 4], [0, 0, 0, 3]] {
        assert!(matches!(receive(&mut Session::new(), &mut Local::short(), &[&prefix]), Err(RewriteError::Frame(_))));
    }
    let alert = receive(&mut awaiting(api::API_VERSIONS, 3), &mut Local::short(), &[&[0x15, 3, 3, 0, 2, 2, 40]]);
    assert_eq!(alert, Err(RewriteError::Frame(FrameError::BrokerSpeaksTls)));
    assert_eq!(alert.expect_err("an alert").to_string(), "the broker speaks TLS; set [proxy] upstream tls");
}

#[test]
fn streams_that_end_inside_a_frame() {
    for (key, version) in [(api::METADATA, 9), (2, 1), (api::PRODUCE, 9), (api::SASL_HANDSHAKE, 0)] {
        let request = request(key, version, 1);
        for cut in 1..request.len() {
            let mut session = Session::new();
            assert_eq!(send(&mut session, &[&request[..cut]]).map(|_| ()), Ok(()));
            assert_eq!(session.handle_client_end(), Err(RewriteError::CutFrame("client")), "{key} at {cut}");
        }
    }
    let response = answer(7, b"\0\0\0\0\0\0\x01....");
    for cut in 1..response.len() {
        let mut session = awaiting(2, 1);
        receive(&mut session, &mut Local::short(), &[&response[..cut]]).expect("a part");
        assert_eq!(session.handle_broker_end(), Err(RewriteError::CutFrame("broker")));
    }
}

#[test]
fn headers_of_unknown_apis_and_versions_pass() {
    for (key, version) in [(-1, 0), (20_001, 3), (i16::MIN, i16::MIN), (93, 0), (2, -1), (2, i16::MAX)] {
        let response = answer(7, &[b"\0 anything, with ", real_host(1).as_bytes()].concat());
        assert_eq!(rewrite(key, version, &response, &mut Local::short()), Ok(response));
    }
}

#[test]
fn versions_beyond_what_can_be_walked_are_refused() {
    for (key, most) in api::WALKABLE.into_iter().filter(|(key, _)| *key != api::API_VERSIONS) {
        for version in [most + 1, 99, -1] {
            let response = answer(7, real_host(1).as_bytes());
            let error = RewriteError::Unwalkable { key, version, most };
            assert_eq!(rewrite(key, version, &response, &mut Local::short()), Err(error), "{}", api::name(key));
        }
    }
    let error = RewriteError::Unwalkable { key: 3, version: 14, most: 13 };
    assert_eq!(error.to_string(), "response Metadata version 14 may carry broker addresses, known up to version 13");
}

#[test]
fn produce_requests_with_impossible_headers() {
    for (version, rest) in [
        (8, &b"\xff\xfe\xff\xff\0\x01"[..]),      // client id of length -2
        (8, b"\x7f\xffab"),                       // client id beyond the frame
        (9, b"\0\0\x05\0\0"),                     // five tagged fields in two bytes
        (9, b"\0\0\x01\x01\xff\xff\xff\xff\x0f"), // a tagged field of 2^32-1 bytes
        (9, b"\0\0\xff\xff\xff\xff\xff\x01\0\0"), // a varint of six bytes
        (9, b"\0\0\0\x7fab"),                     // transactional id beyond the frame
        (8, b"\0\0\xff\xff\0"),                   // half of acks
        (8, b"\0\0"),                             // nothing behind the client id
        (3, b""),
    ] {
        let request = frame(&[&[0, 0, 0, version, 0, 0, 0, 1][..], rest].concat());
        let chunks: Vec<&[u8]> = request.chunks(1).collect();
        for chunks in [&[&request[..]][..], &chunks] {
            let refused = send(&mut Session::new(), chunks);
            assert!(matches!(refused, Err(RewriteError::Request { key: 0, .. })), "{version} {rest:x?}: {refused:?}");
        }
    }
    // Tags twice and out of order are passed; the id need not be UTF-8.
    let request = frame(b"\0\0\0\x09\0\0\0\x01\0\x01\xff\x03\x05\0\x05\0\x01\0\0\0\0whatever");
    let mut session = Session::new();
    assert_eq!(send(&mut session, &[&request]), Ok(request));
    assert!(session.is_answered(), "acks of 0");
}

#[test]
fn responses_that_nobody_asked_for_or_in_another_order() {
    let mut session = Session::new();
    for id in [1, 2, 3] {
        send(&mut session, &[&request(2, 1, id)]).expect("sent");
    }
    let (one, two, nine) = (answer(1, b"one"), answer(2, b"two"), answer(9, b"nine"));
    let all = [&nine[..], &two, &one, &one].concat();
    assert_eq!(receive(&mut session, &mut Local::short(), &[&all]), Ok([two, one].concat()));
    let tally = session.take_tally();
    assert_eq!((tally.out_of_order, tally.unknown), (1, 2));
    assert!(!session.is_answered(), "3 is still awaited");

    // An answer to acks=0 (a broker's mistake) goes nowhere, and the next answer finds its request.
    let mut session = Session::new();
    let silent = frame(b"\0\0\0\x08\0\0\0\x01\0\0\xff\xff\0\0....");
    send(&mut session, &[&silent, &request(api::METADATA, 0, 2)]).expect("sent");
    let metadata = answer(2, b"\0\0\0\0\0\0\0\0");
    let both = [&answer(1, b"surprise")[..], &metadata].concat();
    let bytes: Vec<&[u8]> = both.chunks(1).collect();
    assert_eq!(receive(&mut session, &mut Local::short(), &bytes), Ok(metadata));
    assert!(session.is_answered());

    // A request taken for a token by its client's haste: its answer is not let through unread.
    let mut session = Session::new();
    let handshake = frame(b"\0\x11\0\0\0\0\0\x01\xff\xff\0\x05PLAIN");
    send(&mut session, &[&handshake, &request(api::METADATA, 0, 2)]).expect("sent");
    let refused = answer(1, b"\0\x22\0\0\0\0");
    let leak = answer(2, &[b"\0\0\0\x01\0\0\0\x01\0\x0e", &b"orange.example"[..], b"\0\0\x23\x84\0\0\0\0"].concat());
    assert_eq!(receive(&mut session, &mut Local::short(), &[&refused, &leak]), Ok(refused));
}

#[test]
fn more_requests_than_may_be_unanswered_wait() {
    let mut session = Session::new();
    let all: Vec<u8> = (0..MOST_IN_FLIGHT as i32 + 2).flat_map(|id| request(2, 1, id)).collect();
    let one = request(2, 1, 0).len();
    let mut pieces = Pieces::new();
    let taken = session.handle_request(&all, &mut pieces).expect("sent");
    assert_eq!((taken, pieces.covers()), (MOST_IN_FLIGHT * one, MOST_IN_FLIGHT * one));
    assert_eq!(session.handle_request(&all[taken..], &mut Pieces::new()), Ok(0), "full");
    receive(&mut session, &mut Local::short(), &[&answer(0, b"")]).expect("answered");
    assert_eq!(session.handle_request(&all[taken..], &mut Pieces::new()), Ok(one), "room for one");
}

#[test]
fn broker_lists_with_impossible_counts() {
    for count in [i32::MIN, -2, 2, i32::MAX] {
        let response = answer(7, &[&count.to_be_bytes()[..], &[0; 8]].concat());
        assert!(
            matches!(rewrite(api::METADATA, 0, &response, &mut Local::short()), Err(RewriteError::Response { .. })),
            "{count}"
        );
    }
    let null = answer(7, &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
    assert_eq!(rewrite(api::METADATA, 0, &null, &mut Local::short()), Ok(null), "null is no broker");
    for body in [&b"\0\0\0\0\0\xff\xff\xff\xff\x0f...."[..], b"\0\0\0\0\0\xff\xff\xff\xff\xff\x01...", b""] {
        assert!(rewrite(api::METADATA, 12, &answer(7, body), &mut Local::short()).is_err(), "{body:x?}");
        assert!(rewrite(api::DESCRIBE_CLUSTER, 1, &answer(7, body), &mut Local::short()).is_err(), "{body:x?}");
        assert!(rewrite(api::FIND_COORDINATOR, 4, &answer(7, body), &mut Local::short()).is_err(), "{body:x?}");
        for (key, version) in [(api::PRODUCE, 10), (api::FETCH, 17), (api::SHARE_FETCH, 1), (api::SHARE_ACKNOWLEDGE, 1)]
        {
            assert!(rewrite(key, version, &answer(7, body), &mut Local::short()).is_err(), "{key} {body:x?}");
        }
    }
}

/// A Metadata v0 response with these brokers.
fn metadata(brokers: &[(i32, &[u8], i32)]) -> Vec<u8> {
    let mut body = (brokers.len() as u32).to_be_bytes().to_vec();
    for (node_id, host, port) in brokers {
        body.extend(node_id.to_be_bytes());
        put_text(&mut body, false, host);
        body.extend(port.to_be_bytes());
    }
    body.extend([0; 4]);
    answer(7, &body)
}

#[test]
fn nodes_with_impossible_ids_ports_and_hosts() {
    let real = real_host(1);
    let real = real.as_bytes();
    let long = [b'h'; 300];
    let cases: &[(i32, &[u8], i32)] = &[
        (-1, real, 9092),
        (-2, real, 9092),
        (1, real, 0),
        (1, real, -1),
        (1, real, 65_536),
        (1, b"\xff\xfe.orange.example", 9092),
    ];
    let mut local = Local::short();
    let after = rewrite(api::METADATA, 0, &metadata(cases), &mut local).expect("rewritten");
    assert_eq!(after, metadata(&[]), "each is hidden");
    assert!(local.asked.is_empty(), "and nobody asked");

    // What has no host stays as it is; odd hosts are for the mapping to judge; the same id twice is asked twice.
    let cases: &[(i32, &[u8], i32)] =
        &[(-1, b"", -1), (4, b"", 9092), (5, b"2001:db8::7", 1), (5, &long, 65_535), (6, b"a\0 b", 9)];
    let mut local = Local { hidden: vec![6], ..Local::short() };
    let after = rewrite(api::METADATA, 0, &metadata(cases), &mut local).expect("rewritten");
    let five = Local::port(5);
    assert_eq!(after, metadata(&[(-1, b"", -1), (4, b"", 9092), (5, b"127.0.0.1", five), (5, b"127.0.0.1", five)]));
    assert!(local.asked.contains(&(6, "a\0 b".to_owned(), 9)));
}

#[test]
fn a_mapping_that_answers_nonsense_hides() {
    for host in [String::new(), "x".repeat(256)] {
        let mut local = Local { host, ..Local::short() };
        let after = rewrite(api::METADATA, 0, &metadata(&[(1, real_host(1).as_bytes(), 9092)]), &mut local);
        assert_eq!(after, Ok(metadata(&[])));
    }
}

#[test]
fn more_brokers_than_may_be_held_back() {
    let brokers = vec![(1, &[b'h'; 60][..], 9092); 100_000];
    let response = metadata(&brokers);
    let chunks: Vec<&[u8]> = response.chunks(64 << 10).collect();
    let refused = receive(&mut awaiting(api::METADATA, 0), &mut Local::short(), &chunks);
    assert!(matches!(refused, Err(RewriteError::TooLarge { key: 3, most: super::HELD_LIMIT, .. })), "{refused:?}");
    let brokers = vec![(1, &[b'h'; 20][..], 9092); 100_000];
    let response = metadata(&brokers);
    let chunks: Vec<&[u8]> = response.chunks(64 << 10).collect();
    assert!(
        receive(&mut awaiting(api::METADATA, 0), &mut Local::short(), &chunks).is_ok(),
        "100,000 brokers within the limit"
    );
    let huge = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 7];
    for (key, version) in [(api::FIND_COORDINATOR, 4), (api::DESCRIBE_CLUSTER, 0), (api::API_VERSIONS, 3)] {
        let refused = receive(&mut awaiting(key, version), &mut Local::short(), &[&huge]);
        assert!(
            matches!(refused, Err(RewriteError::TooLarge { length: 0x7fff_fffb, .. })),
            "{key}: refused before a byte is held"
        );
    }
}

#[test]
fn endpoint_tags_that_lie() {
    let real = endpoints(&[endpoint(1, real_host(1).as_bytes(), 9092)]);
    let longer = [&real[..], b"!"].concat();
    for (fields, behind, kept) in [
        (&[(0_u32, &real[..]), (0, &real[..])][..], &b""[..], false), // twice
        (&[(0, &longer)], b"", false),                                // a size beyond the list
        (&[(0, &real[..real.len() - 1])], b"", false),                // a size short of the list
        (&[(0, b"\xff\xff\xff\xff\x0f")], b"", false),                // 2^32-1 endpoints
        (&[(0, &real), (200, b"late")], b"", true),                   // a tag above 127
        (&[(9, b"early"), (0, &real)], b"", true),                    // out of order
        (&[(0, &real)], b"behind", true),                             // bytes behind the tags
    ] {
        let before = produce_with(fields, behind);
        let after = rewrite(api::PRODUCE, 10, &before, &mut Local::short()).expect("edited");
        assert_eq!(after.len(), before.len());
        assert!(!leaks(&after));
        assert!(after.ends_with(behind));
        assert_eq!(after.windows(9).any(|window| window == b"127.0.0.1"), kept, "{fields:x?}");
    }
    let empty = produce_with(&[(0, &endpoints(&[]))], b"");
    assert_eq!(rewrite(api::PRODUCE, 10, &empty, &mut Local::short()), Ok(empty), "an empty list stays");
    for section in [&b"\x01\0\x7f"[..], b"\x05\0\0", b"\xff\xff\xff\xff\xff\x01", b"\x01"] {
        let response = answer(7, &[&b"\0\x01\0\0\0\0"[..], section].concat());
        let refused = rewrite(api::PRODUCE, 10, &response, &mut Local::short());
        assert!(matches!(refused, Err(RewriteError::Response { key: 0, .. })), "{section:x?}");
    }
    let cut = answer(7, b"\0\x01\0\0\0\0");
    let refused = rewrite(api::PRODUCE, 10, &cut, &mut Local::short());
    assert!(matches!(refused, Err(RewriteError::Response { source: Malformed::Short { .. }, .. })), "no end section");
}

#[test]
fn endpoints_fit_whatever_the_difference() {
    for others in [0, 126, 127, 128] {
        for host_len in 1..=300 {
            let real = endpoints(&[endpoint(1, &vec![b'o'; host_len], 9092), endpoint(2, b"", -1)]);
            let mut fields = vec![(0, &real[..])];
            fields.extend((0..others).map(|tag| (200 + tag, &b"x"[..])));
            let before = produce_with(&fields, b"");
            for local_len in [1, 9, 10, 130] {
                let mut local = Local { host: "l".repeat(local_len), ..Local::short() };
                let mut pieces = Pieces::new();
                let mut session = awaiting(api::PRODUCE, 10);
                session.handle_response(&before, &mut local, &mut pieces).expect("edited");
                let mut after = Vec::new();
                apply(&before, &pieces, &mut after);
                assert_eq!(after.len(), before.len());
                let shown = after.windows(local_len).any(|window| window == local.host.as_bytes());
                let fits = local_len <= host_len;
                // Where a longer count of fields leaves no room for the filling, hiding is right as well.
                assert!(
                    shown == fits || (others >= 125 && !shown),
                    "host {host_len} local {local_len} others {others}"
                );
                assert!(!after.windows(2).any(|window| window == b"oo"), "no byte of the real name stays");
            }
        }
    }
}

#[test]
fn listed_endpoints_fit_whatever_the_difference() {
    for host_len in 1..=300 {
        let list = endpoints(&[endpoint(1, &vec![b'o'; host_len], 9092)]);
        let before = answer(7, &[b"\0\0\0\0\0\0\0\0\0\0\0\0\x01", &list[..], b"\0"].concat());
        for local_len in [1, 9, 10, 130] {
            let mut local = Local { host: "l".repeat(local_len), ..Local::short() };
            let after = receive(&mut awaiting(api::SHARE_FETCH, 1), &mut local, &[&before]).expect("edited");
            assert_eq!(after.len(), before.len());
            assert_eq!(after.windows(local_len).any(|window| window == local.host.as_bytes()), local_len <= host_len);
            assert!(!after.windows(2).any(|window| window == b"oo"));
        }
    }
}

/// A pause takes effect between two requests, wherever the input is cut.
#[test]
fn a_pause_begins_no_request_and_finishes_one() {
    let both = [request(2, 1, 1), request(2, 1, 2)].concat();
    let middle = both.len() / 2;
    for cut in 1..middle {
        let mut session = Session::new();
        let mut out = Pieces::new();
        assert_eq!(session.handle_request(&both[..cut], &mut out), Ok(cut));
        session.pause(true);
        assert_eq!(session.handle_request(&both[cut..], &mut Pieces::new()), Ok(middle - cut), "cut at {cut}");
        assert!(session.is_between_requests() && !session.is_answered());
        assert_eq!(session.handle_request(&both[middle..], &mut Pieces::new()), Ok(0));
        session.pause(false);
        assert_eq!(session.handle_request(&both[middle..], &mut Pieces::new()), Ok(middle));
    }
}

#[test]
fn raw_sasl_tokens_go_one_for_one() {
    let handshake = |mechanism: &[u8]| {
        let mut body = b"\0\x11\0\0\0\0\0\x01\xff\xff".to_vec();
        put_text(&mut body, false, mechanism);
        frame(&body)
    };
    let accepted = answer(1, b"\0\0\0\0\0\x01\0\x05PLAIN");
    // A token that looks like a Metadata response to the next request, with a request pipelined behind it.
    let mut session = Session::new();
    let sent = [&handshake(b"PLAIN")[..], &frame(b"\0user\0secret"), &request(api::METADATA, 0, 2)].concat();
    let bytes: Vec<&[u8]> = sent.chunks(1).collect();
    assert_eq!(send(&mut session, &bytes), Ok(sent));
    let metadata_2 = {
        let mut metadata = metadata(&[(1, real_host(1).as_bytes(), 9092)]);
        metadata[4..8].copy_from_slice(&2_i32.to_be_bytes());
        metadata
    };
    let received = [&accepted[..], &frame(b""), &metadata_2].concat();
    let bytes: Vec<&[u8]> = received.chunks(1).collect();
    let after = receive(&mut session, &mut Local::short(), &bytes).expect("received");
    assert!(after.starts_with(&[&accepted[..], &frame(b"")].concat()) && !leaks(&after));
    assert!(session.is_answered());

    // SCRAM has two rounds; then requests again.
    let mut session = Session::new();
    let sent = [&handshake(b"SCRAM-SHA-256")[..], &frame(b"n,,n=u,r=1"), &frame(b"c=biws,r=12,p=x"), &request(2, 1, 5)]
        .concat();
    assert_eq!(send(&mut session, &[&sent]), Ok(sent));
    let received = [&accepted[..], &frame(b"r=12,s=a,i=4096"), &frame(b"v=x"), &answer(5, b"offsets")].concat();
    assert_eq!(receive(&mut session, &mut Local::short(), &[&received]), Ok(received));
    assert!(session.is_answered());

    // A refused mechanism: no token follows, another handshake does.
    let mut session = Session::new();
    send(&mut session, &[&handshake(b"NOPE")]).expect("sent");
    receive(&mut session, &mut Local::short(), &[&answer(1, b"\0\x21\0\0\0\0")]).expect("received");
    send(&mut session, &[&request(api::METADATA, 0, 2)]).expect("sent");
    let after = receive(&mut session, &mut Local::short(), &[&metadata_2]).expect("received");
    assert!(!leaks(&after) && session.is_answered());

    // GSSAPI: the last token has no answer; the next response is read nevertheless.
    let mut session = Session::new();
    send(
        &mut session,
        &[&handshake(b"GSSAPI"), &frame(&[0x60; 40]), &frame(b""), &frame(&[5, 4, 4, 0xff, 0, 0, 0, 0, 9])],
    )
    .expect("sent");
    receive(&mut session, &mut Local::short(), &[&accepted, &frame(&[0x60; 30]), &frame(&[5; 32])]).expect("received");
    send(&mut session, &[&request(api::METADATA, 0, 2)]).expect("sent");
    let after = receive(&mut session, &mut Local::short(), &[&metadata_2]).expect("received");
    assert!(!leaks(&after) && session.is_answered());

    // A handshake of version 1 is followed by requests, in whatever order a client sends them.
    let mut session = Session::new();
    let sent = [request(36, 2, 1), request(api::SASL_HANDSHAKE, 1, 2), request(36, 2, 3), request(api::METADATA, 0, 4)]
        .concat();
    assert_eq!(send(&mut session, &[&sent]), Ok(sent));
    let mut metadata_4 = metadata_2.clone();
    metadata_4[4..8].copy_from_slice(&4_i32.to_be_bytes());
    let received = [answer(1, b"\0\x22"), answer(2, b"\0\0"), answer(3, b"\0\0"), metadata_4].concat();
    let after = receive(&mut session, &mut Local::short(), &[&received]).expect("received");
    assert!(!leaks(&after) && session.is_answered());

    // Lengths no token has.
    for prefix in [[0, 0x10, 0, 1], [0xff; 4]] {
        let mut session = Session::new();
        assert!(matches!(send(&mut session, &[&handshake(b"PLAIN"), &prefix]), Err(RewriteError::Frame(_))));
        let mut session = Session::new();
        send(&mut session, &[&handshake(b"PLAIN"), &frame(b"token")]).expect("sent");
        let refused = receive(&mut session, &mut Local::short(), &[&accepted, &prefix]);
        assert!(matches!(refused, Err(RewriteError::Frame(_))));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn random_bytes_never_panic(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_splitter(&data);
        fuzz_primitives(&data);
        fuzz_request_header(&data);
        fuzz_walkers(&data);
        fuzz_readers(&data);
        fuzz_session(&data);
    }

    #[test]
    fn random_bodies_never_panic_and_cuts_are_no_matter(
        body in proptest::collection::vec(prop_oneof![Just(0_u8), Just(1), Just(2), Just(3), any::<u8>()], 1..120),
        api in 0..api::WALKABLE.len(),
        version in 0..20_i16,
        cut in 1..120_usize,
    ) {
        let (key, most) = api::WALKABLE[api];
        let version = version.min(most);
        let response = answer(7, &body);
        let whole = receive(&mut awaiting(key, version), &mut Local::short(), &[&response]);
        let cut = cut.min(response.len());
        let parts = receive(&mut awaiting(key, version), &mut Local::short(), &[&response[..cut], &response[cut..]]);
        match (whole, parts) {
            (Ok(whole), Ok(parts)) => prop_assert_eq!(whole, parts),
            (whole, parts) => prop_assert_eq!(whole.is_err(), parts.is_err()),
        }
    }
}
