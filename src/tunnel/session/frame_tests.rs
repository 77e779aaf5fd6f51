use proptest::prelude::*;

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

#[test]
fn every_frame_has_exactly_these_bytes() {
    let report = Report { sid: 5, recv_off: 0x1_0000, max_off: 0x5_0000 };
    for (frame, bytes) in [
        (
            Frame::Hello(Hello {
                versions: VersionRange { min: 1, max: 2 },
                capabilities: 3,
                boot: [0xb0; 16],
                side: Side::Listener,
                early: 65_536,
                session: [0x5e; 16],
                link: "orange-grape".to_owned(),
            }),
            "01 3e0000 0100 0200 0300000000000000 b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0 01 00000100
             5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e 0c 6f72616e67652d6772617065",
        ),
        (
            Frame::Attach(Attach { session: [0x5e; 16], epoch: 9, slot: 1, proof: [0xaa; 32] }),
            "02 390000 5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e 0900000000000000 01
             aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        (
            Frame::AttachOk { session: [0x5e; 16], epoch: 9 },
            "03 180000 5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e5e 0900000000000000",
        ),
        (Frame::AttachRefused { reason: 2, detail: "no".to_owned() }, "04 050000 02 0200 6e6f"),
        (
            Frame::Resume { last: true, reports: vec![report] },
            "05 1b0000 01 0100 0500000000000000 0000010000000000 0000050000000000",
        ),
        (
            Frame::Open { sid: 5, max_off: 65_536, port: 9092, host: "b0".to_owned() },
            "10 150000 0500000000000000 0000010000000000 8423 02 6230",
        ),
        (Frame::OpenOk { sid: 5, max_off: 65_536 }, "11 100000 0500000000000000 0000010000000000"),
        (
            Frame::OpenErr { sid: 5, code: 5, value: 10_000, detail: "x".to_owned() },
            "12 140000 0500000000000000 05 1027000000000000 0100 78",
        ),
        (
            Frame::Data { sid: 5, offset: 0x1_0203, fin: true, data: Bytes::from_static(b"abc") },
            "13 140000 0500000000000000 0302010000000000 01 616263",
        ),
        (Frame::Credit(report), "14 180000 0500000000000000 0000010000000000 0000050000000000"),
        (Frame::Reset { sid: 5, code: 1, final_off: 7 }, "15 110000 0500000000000000 01 0700000000000000"),
        (Frame::Gone { sid: 5 }, "16 080000 0500000000000000"),
        (Frame::Ping { seq: 1, ts: 2 }, "20 100000 0100000000000000 0200000000000000"),
        (Frame::Pong { seq: 1, ts: 2 }, "21 100000 0100000000000000 0200000000000000"),
        (Frame::Goaway { code: Goaway::Ended, detail: "bye".to_owned() }, "22 060000 01 0300 627965"),
        (Frame::Want { carriers: 8 }, "a3 010000 08"),
        (Frame::Return { sid: 5, max_off: 0x1_0000 }, "a4 100000 0500000000000000 0000010000000000"),
    ] {
        let mut out = Vec::new();
        frame.encode(&mut out);
        assert_eq!(out, hex(bytes), "{}", frame.name());
        let mut input = Bytes::from(out);
        assert_eq!(decode(&mut input), Ok(Decoded::Frame(frame)));
        assert!(input.is_empty());
    }
}

#[test]
fn a_data_head_is_the_front_of_a_data_frame() {
    let mut head = Vec::new();
    encode_data_head(7, 8, true, 3, &mut head);
    head.extend_from_slice(b"xyz");
    let mut whole = Vec::new();
    Frame::Data { sid: 7, offset: 8, fin: true, data: Bytes::from_static(b"xyz") }.encode(&mut whole);
    assert_eq!(head, whole);
    assert_eq!(whole.len(), DATA_OVERHEAD + 3);
}

#[test]
fn unknown_frames_are_skipped_only_where_they_say_so() {
    let mut input = Bytes::from(hex("ff 020000 0102 16 080000 0500000000000000"));
    assert_eq!(decode(&mut input), Ok(Decoded::Skipped));
    assert_eq!(decode(&mut input), Ok(Decoded::Frame(Frame::Gone { sid: 5 })));
    let mut input = Bytes::from(hex("7f 000000"));
    assert_eq!(decode(&mut input), Err(Violation::Malformed { frame: "unknown", what: "unknown type" }));
}

#[test]
fn a_later_hello_may_be_longer() {
    let hello = Frame::Hello(Hello {
        versions: VersionRange::OURS,
        capabilities: 0,
        boot: [1; 16],
        side: Side::Dialler,
        early: 1,
        session: [0; 16],
        link: "l".to_owned(),
    });
    let mut out = Vec::new();
    hello.encode(&mut out);
    out.extend_from_slice(b"later");
    out[1] += 5;
    assert_eq!(decode(&mut Bytes::from(out)), Ok(Decoded::Frame(hello)));
}

#[test]
fn what_is_no_frame_is_told_from_what_is_not_whole() {
    let what = |bytes: &str| match decode(&mut Bytes::from(hex(bytes))) {
        Err(Violation::Malformed { what, .. }) => what,
        other => panic!("{other:?}"),
    };
    for whole in ["", "16", "16 080000 05000000000000", "13 ffff00 00"] {
        assert_eq!(decode(&mut Bytes::from(hex(whole))), Ok(Decoded::Incomplete), "{whole}");
    }
    assert_eq!(what("13 ffffff"), "body longer than any frame's");
    assert_eq!(what("16 070000 05000000000000"), "body too short");
    assert_eq!(what("16 090000 0500000000000000 00"), "bytes left over");
    assert_eq!(what("05 030000 01 0100"), "reports do not fill the body");
    assert_eq!(what("05 030000 01 ffff"), "more reports than allowed");
    assert_eq!(what("22 030000 02 0000"), "flag neither 0 nor 1");
    assert_eq!(what("22 040000 00 0100 ff"), "text is not UTF-8");
    assert_eq!(what("22 030000 00 0101"), "text longer than 256 bytes");
}

#[test]
fn texts_are_cut_at_a_character() {
    let mut out = Vec::new();
    Frame::Goaway { code: Goaway::Draining, detail: "é".repeat(200) }.encode(&mut out);
    let Ok(Decoded::Frame(Frame::Goaway { detail, .. })) = decode(&mut Bytes::from(out)) else { panic!() };
    assert_eq!(detail, "é".repeat(128));
}

#[test]
fn versions_meet_in_the_newest_common_one() {
    let range = |min, max| VersionRange { min, max };
    assert_eq!(range(1, 3).common(range(2, 5)), Some(3));
    assert_eq!(range(1, 1).common(range(2, 5)), None);
    assert_eq!(range(2, 5).to_string(), "2 to 5");
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let detail = "[a-zé]{0,120}";
    prop_oneof![
        (any::<u64>(), any::<u64>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..2000))
            .prop_map(|(sid, offset, fin, data)| Frame::Data { sid, offset, fin, data: Bytes::from(data) }),
        (any::<u64>(), any::<u64>(), any::<u64>()).prop_map(|(sid, recv_off, max_off)| Frame::Credit(Report {
            sid,
            recv_off,
            max_off
        })),
        (any::<u64>(), any::<u64>(), any::<u16>(), "[a-z.]{0,253}")
            .prop_map(|(sid, max_off, port, host)| Frame::Open { sid, max_off, port, host }),
        (any::<u64>(), any::<u8>(), any::<u64>(), detail).prop_map(|(sid, code, value, detail)| Frame::OpenErr {
            sid,
            code,
            value,
            detail
        }),
        (any::<bool>(), prop::collection::vec(any::<(u64, u64, u64)>(), 0..600)).prop_map(|(last, list)| {
            let reports = list.into_iter().map(|(sid, recv_off, max_off)| Report { sid, recv_off, max_off });
            Frame::Resume { last, reports: reports.take(MAX_REPORTS).collect() }
        }),
        (any::<u8>(), detail).prop_map(|(reason, detail)| Frame::AttachRefused { reason, detail }),
        (any::<[u8; 16]>(), any::<u64>(), any::<u8>(), any::<[u8; 32]>())
            .prop_map(|(session, epoch, slot, proof)| Frame::Attach(Attach { session, epoch, slot, proof })),
    ]
}

proptest! {
    #[test]
    fn frames_come_back_as_they_were_sent(frames in prop::collection::vec(any_frame(), 0..8), cut in any::<prop::sample::Index>()) {
        let mut out = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut out));
        let whole = Bytes::from(out);
        let mut input = whole.clone();
        for frame in &frames {
            prop_assert_eq!(decode(&mut input), Ok(Decoded::Frame(frame.clone())));
        }
        prop_assert!(input.is_empty());
        // Any prefix is incomplete somewhere, never malformed.
        let mut prefix = whole.slice(..cut.index(whole.len() + 1));
        while let Decoded::Frame(_) = decode(&mut prefix).unwrap() {}
    }

    #[test]
    fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz_decode(&data);
    }

    #[test]
    fn any_body_of_a_known_type_is_survived(kind in 0u8..0x24, body in prop::collection::vec(any::<u8>(), 0..100)) {
        let mut data = head(kind, u32::try_from(body.len()).unwrap()).to_vec();
        data.extend_from_slice(&body);
        fuzz_decode(&data);
    }
}
