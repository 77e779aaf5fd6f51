use super::*;

fn pair(after: RekeyAfter) -> (Noise, Noise) {
    let (one, two) = ([1; 32], [2; 32]);
    (Noise::new(&one, &two, after), Noise::new(&two, &one, after))
}

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

#[test]
fn ten_thousand_records_of_all_sizes_arrive_across_many_keys() {
    let (mut from, mut to) = pair(RekeyAfter { records: 1_000, bytes: 20_000_000 });
    let sample: Vec<u8> = (0..MAX_PLAINTEXT).map(|i| u8::try_from(i % 253).expect("fits")).collect();
    let (mut wire, mut input, mut plain) = (Sealed::default(), BytesMut::new(), Plain::default());
    for i in 0..10_000_usize {
        let len = 1 + (i * i * 31) % if i % 100 == 0 { MAX_PLAINTEXT } else { 2_000 };
        let (head, tail) = sample[..len].split_at(len / 3);
        from.seal(&[head, tail], &mut wire).expect("fits");
        // Torn at any place.
        let cut = wire.len() / 2;
        input.extend_from_slice(&wire[..cut]);
        assert_eq!(to.open(&mut input, &mut plain).expect("opens"), Opened::More);
        input.extend_from_slice(&wire[cut..]);
        assert_eq!(to.open(&mut input, &mut plain).expect("opens"), Opened::More);
        assert!(input.is_empty() && plain.concat()[..] == sample[..len], "{i}");
        plain.take();
        wire.clear();
    }
    assert_eq!(from.send.nonce, 10_000);
    assert!(from.send.records < 1_000);
}

#[test]
fn a_key_is_replaced_after_so_many_bytes_too() {
    let (mut from, mut to) = pair(RekeyAfter { records: u64::MAX, bytes: 100 });
    let mut wire = Sealed::default();
    for _ in 0..3 {
        from.seal(&[&[0; 50]], &mut wire).expect("fits");
    }
    assert_eq!((from.send.records, from.send.bytes), (1, 50));
    let mut plain = Plain::default();
    to.open(&mut BytesMut::from(&wire[..]), &mut plain).expect("opens");
    assert_eq!(plain.concat().len(), 150);
}

#[test]
fn records_are_the_transport_messages_of_the_noise_specification() {
    let psk = Psk::derive(&secret("s"), "a");
    let mut initiator = builder(&psk, b"p").expect("builds").build_initiator().expect("builds");
    let mut responder = builder(&psk, b"p").expect("builds").build_responder().expect("builds");
    let (mut first, mut second) = (Vec::new(), Vec::new());
    write(&mut initiator, &mut first).expect("writes");
    responder.read_message(&first[LENGTH..], &mut [0; MESSAGE]).expect("reads");
    write(&mut responder, &mut second).expect("writes");
    initiator.read_message(&second[LENGTH..], &mut [0; MESSAGE]).expect("reads");
    let (mut ours, binding) = Noise::split(&mut initiator, true);
    assert_eq!(binding, responder.get_handshake_hash());
    ours.send.after.records = 2;
    let mut theirs = responder.into_transport_mode().expect("finished");
    let mut wire = Sealed::default();
    for text in [&b"one"[..], b"two", b"three"] {
        ours.seal(&[text], &mut wire).expect("fits");
    }
    let mut rest = &wire[..];
    for (i, text) in [&b"one"[..], b"two", b"three"].into_iter().enumerate() {
        if i == 2 {
            theirs.rekey_incoming();
        }
        let len = usize::from(u16::from_be_bytes([rest[0], rest[1]]));
        let mut out = [0; 64];
        let read = theirs.read_message(&rest[LENGTH..LENGTH + len], &mut out).expect("snow opens it");
        assert_eq!(&out[..read], text);
        rest = &rest[LENGTH + len..];
    }
}

#[test]
fn a_changed_bit_anywhere_is_found_and_what_came_before_stays() {
    let (mut from, _) = pair(RekeyAfter::default());
    let mut wire = Sealed::default();
    from.seal(&[b"good"], &mut wire).expect("fits");
    let good = wire.len();
    from.seal(&[b"record"], &mut wire).expect("fits");
    for at in good..wire.len() {
        let (_, mut to) = pair(RekeyAfter::default());
        let mut bad = wire.to_vec();
        bad[at] ^= 0x10;
        // A longer length only waits for more; give it that.
        bad.resize(bad.len() + 70_000, 0);
        let mut plain = Plain::default();
        let error = to.open(&mut BytesMut::from(&bad[..]), &mut plain).expect_err("it is changed");
        assert!(matches!(error, CarrierError::Corrupt { record: 1, .. }), "{at}: {error}");
        assert_eq!(plain.concat(), b"good"[..]);
    }
}

#[test]
fn replayed_dropped_and_reordered_records_do_not_open() {
    let (mut from, _) = pair(RekeyAfter::default());
    let records: Vec<_> = (0..3_u8)
        .map(|i| {
            let mut wire = Sealed::default();
            from.seal(&[&[i; 10]], &mut wire).expect("fits");
            wire
        })
        .collect();
    for order in [&[0, 0][..], &[1], &[0, 2], &[1, 0]] {
        let (_, mut to) = pair(RekeyAfter::default());
        let wire: Vec<u8> = order.iter().flat_map(|i| records[*i].to_vec()).collect();
        assert!(to.open(&mut BytesMut::from(&wire[..]), &mut Plain::default()).is_err(), "{order:?}");
    }
}

#[test]
fn lengths_below_a_tag_are_refused_and_partial_records_wait() {
    for len in 0..16_u16 {
        let (_, mut to) = pair(RekeyAfter::default());
        let mut input = BytesMut::from(&len.to_be_bytes()[..]);
        assert!(to.open(&mut input, &mut Plain::default()).is_err(), "{len}");
    }
    let (mut from, mut to) = pair(RekeyAfter::default());
    let mut wire = Sealed::default();
    from.seal(&[b"text"], &mut wire).expect("fits");
    for cut in 0..wire.len() {
        let (mut input, mut plain) = (BytesMut::from(&wire[..cut]), Plain::default());
        assert_eq!(to.open(&mut input, &mut plain).expect("waits"), Opened::More);
        assert_eq!((input.len(), plain.concat().len()), (cut, 0));
    }
}

#[test]
fn a_close_is_authenticated_and_last() {
    let (mut from, mut to) = pair(RekeyAfter::default());
    let mut wire = Sealed::default();
    from.seal(&[b"last"], &mut wire).expect("fits");
    from.close(&mut wire);
    from.close(&mut wire);
    assert_eq!(wire.len(), (2 + 4 + 16) + (2 + 16));
    assert!(matches!(from.seal(&[b"more"], &mut wire), Err(CarrierError::Closed)));
    let mut plain = Plain::default();
    assert_eq!(to.open(&mut BytesMut::from(&wire[..]), &mut plain).expect("opens"), Opened::Closed);
    assert_eq!(plain.concat(), b"last"[..]);
    // A forged one is no close.
    let (_, mut to) = pair(RekeyAfter::default());
    let mut forged = BytesMut::from(&[0, 16][..]);
    forged.extend_from_slice(&[0; 16]);
    assert!(to.open(&mut forged, &mut plain).is_err());
}

#[test]
fn records_are_bounded_and_empty_ones_are_never_sent() {
    let (mut from, _) = pair(RekeyAfter::default());
    let mut wire = Sealed::default();
    let big = vec![0; MAX_PLAINTEXT];
    from.seal(&[&big], &mut wire).expect("fits");
    assert_eq!(wire.len(), 2 + 65_535);
    wire.clear();
    let error = from.seal(&[&big, b"x"], &mut wire).expect_err("too large");
    assert!(matches!(error, CarrierError::RecordTooLarge { actual: 65_520, limit: 65_519 }));
    from.seal(&[&[], &[]], &mut wire).expect("nothing to do");
    assert!(wire.is_empty());
}

#[test]
fn the_key_depends_on_secret_and_link() {
    let key = |s: &str, link: &str| *Psk::derive(&secret(s), link).0;
    assert_eq!(key("s", "a"), key("s", "a"));
    assert_ne!(key("s", "a"), key("s", "b"));
    assert_ne!(key("s", "a"), key("t", "a"));
}

/// Runs a dialler and a listener against each other without a socket.
fn meet(dialler: (&Psk, &[u8]), listener: (&Psk, &[u8])) -> Result<([u8; 32], [u8; 32]), CarrierError> {
    let (mut forth, mut back) = (Vec::new(), Vec::new());
    let mut d = NoiseHandshake::dial(dialler.0, dialler.1, &mut forth)?;
    let mut l = NoiseHandshake::accept(listener.0, listener.1)?;
    let mut to_listener = BytesMut::from(&forth[..]);
    assert!(matches!(l.step(&mut to_listener, &mut back)?, Step::More));
    forth.clear();
    let Step::Done(one) = d.step(&mut BytesMut::from(&back[..]), &mut forth)? else { panic!("not done") };
    let Step::Done(two) = l.step(&mut BytesMut::from(&forth[..]), &mut back)? else { panic!("not done") };
    Ok((one.binding, two.binding))
}

#[test]
fn both_sides_agree_only_with_one_secret_and_one_preamble() {
    let (psk, other) = (Psk::derive(&secret("s"), "a"), Psk::derive(&secret("t"), "a"));
    let (one, two) = meet((&psk, b"p"), (&psk, b"p")).expect("agree");
    assert_eq!(one, two);
    assert_ne!(meet((&psk, b"p"), (&psk, b"p")).expect("agree").0, one);
    assert!(matches!(meet((&psk, b"p"), (&other, b"p")), Err(CarrierError::WrongSecret)));
    assert!(matches!(meet((&psk, b"p"), (&psk, b"q")), Err(CarrierError::WrongSecret)));
}

#[test]
fn a_replayed_first_message_proves_nothing() {
    let psk = Psk::derive(&secret("s"), "a");
    let mut recorded = Vec::new();
    NoiseHandshake::dial(&psk, b"p", &mut recorded).expect("dials");
    let mut listener = NoiseHandshake::accept(&psk, b"p").expect("accepts");
    let mut answer = Vec::new();
    assert!(matches!(listener.step(&mut BytesMut::from(&recorded[..]), &mut answer), Ok(Step::More)));
    // Whoever only recorded it has no key for the record that must follow.
    let mut guess = BytesMut::from(&[0, 48][..]);
    guess.extend_from_slice(&[7; 48]);
    assert!(matches!(listener.step(&mut guess, &mut answer), Err(CarrierError::WrongSecret)));
}
