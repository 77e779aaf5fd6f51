//! Carriers whose TCP has all but ceased to send.

use super::*;

const FORTH: Duration = Duration::from_millis(50);

/// A pair whose frames take 50 ms, with so many carriers.
fn far(carriers: u8) -> (Pair, Vec<Ids>) {
    let mut pair = Pair::new();
    let mut all = Vec::new();
    for slot in 0..carriers {
        let ids = pair.connect(slot, slot + 1);
        for _ in 0..5 {
            let forth = pull(&mut pair.dialler, pair.now, ids.0);
            let back = pull(&mut pair.listener, pair.now, ids.1);
            pair.now += FORTH;
            forth.into_iter().for_each(|frame| pair.listener.handle_frame(pair.now, ids.1, frame));
            back.into_iter().for_each(|frame| pair.dialler.handle_frame(pair.now, ids.0, frame));
        }
        all.push(ids);
    }
    // A question for the way, and its answer.
    while pair.dialler.way() < FORTH {
        pair.now = pair.dialler.poll_timeout().expect("a ping is due").0.max(pair.now);
        pair.dialler.handle_timeout(pair.now);
        for &ids in &all {
            let forth = pull(&mut pair.dialler, pair.now, ids.0);
            forth.into_iter().for_each(|frame| pair.listener.handle_frame(pair.now + FORTH, ids.1, frame));
        }
        pair.now += FORTH;
        for &ids in &all {
            let back = pull(&mut pair.listener, pair.now, ids.1);
            back.into_iter().for_each(|frame| pair.dialler.handle_frame(pair.now + FORTH, ids.0, frame));
        }
        pair.now += FORTH;
    }
    events(&mut pair.dialler);
    (pair, all)
}

/// Offset and length of the data among frames.
fn pieces(frames: &[Frame]) -> Vec<(u64, usize)> {
    let piece = |frame: &Frame| match frame {
        Frame::Data { offset, data, .. } => Some((*offset, data.len())),
        _ => None,
    };
    frames.iter().filter_map(piece).collect()
}

/// One pull of at most `most` bytes.
fn some(session: &mut Session, now: Instant, id: CarrierId, most: usize) -> Vec<Frame> {
    let mut batch = Batch::new(65_519);
    session.pull(now, id, most, &mut batch);
    let mut out = Vec::new();
    let each = |parts: &[&[u8]]| {
        parts.iter().for_each(|part| out.extend_from_slice(part));
        Ok::<_, ()>(())
    };
    batch.for_each_record(each).unwrap();
    let mut input = Bytes::from(out);
    let next = || match frame::decode(&mut input).unwrap() {
        frame::Decoded::Frame(frame) => Some(frame),
        _ => None,
    };
    std::iter::from_fn(next).collect()
}

#[test]
fn what_waits_before_a_resting_carrier_goes_over_another_first() {
    let mut pair = Pair::new();
    let (one, other) = (pair.attached(0, 1), pair.attached(1, 2));
    let id = pair.stream(one);
    pair.dialler.write_copy(pair.now, id, &[7; 60_000]).unwrap();
    let (by, to) = if pieces(&some(&mut pair.dialler, pair.now, one.0, 30_000)).is_empty() {
        some(&mut pair.dialler, pair.now, other.0, 30_000);
        (other, one)
    } else {
        (one, other)
    };
    let sent = pair.dialler.streams[&id.sid].send.sent();
    assert!((29_000..31_000).contains(&sent), "{sent}");

    pair.dialler.rest(by.0, 5_000);
    let pieces = pieces(&pull(&mut pair.dialler, pair.now, to.0));
    assert_eq!(pieces[0], (sent - 5_000, 5_000));
    assert_eq!(pieces[1].0, sent);
    assert_eq!(pieces.iter().map(|piece| piece.1 as u64).sum::<u64>(), 60_000 - sent + 5_000);
    assert_eq!(pair.dialler.counters().replayed_bytes, 5_000);

    // One that says so of itself again, or is alone, changes nothing.
    pair.dialler.rest(by.0, 5_000);
    pair.dialler.rest(to.0, 5_000);
    assert!(pull(&mut pair.dialler, pair.now, to.0).is_empty());
    assert_eq!(pair.dialler.counters().replayed_bytes, 5_000);
}

#[test]
fn a_socket_that_takes_nothing_for_a_while_on_a_long_way_is_looked_at_and_one_that_does_is_not() {
    let (mut pair, ids) = far(2);
    let id = pair.dialler.open("host", 9092).unwrap();
    for ids in &ids {
        pair.exchange(*ids);
    }
    assert!(pair.listener.accept(id));
    for ids in &ids {
        pair.exchange(*ids);
    }
    events(&mut pair.dialler);
    pair.dialler.write_copy(pair.now, id, &[7; 200_000]).unwrap();
    let carrier =
        ids.iter().map(|ids| ids.0).find(|carrier| !some(&mut pair.dialler, pair.now, *carrier, 30_000).is_empty());
    let carrier = carrier.expect("a home of the stream");
    let after = Duration::from_millis(20);
    pair.dialler.handle_timeout(pair.now + after - Duration::from_micros(1));
    assert_eq!(events(&mut pair.dialler), []);
    assert_eq!(pair.dialler.poll_timeout(), Some((pair.now + after, "look")));
    pair.dialler.handle_timeout(pair.now + after);
    assert_eq!(events(&mut pair.dialler), [Event::Look(carrier)]);
    pair.dialler.handle_timeout(pair.now + after * 2);
    assert_eq!(events(&mut pair.dialler), [Event::Look(carrier)]);
    // Each time as long again as it has lasted.
    pair.dialler.handle_timeout(pair.now + after * 3);
    assert_eq!(events(&mut pair.dialler), []);
    pair.dialler.handle_timeout(pair.now + after * 4);
    assert_eq!(events(&mut pair.dialler), [Event::Look(carrier)]);

    // It takes again, all of it: there is nothing to look at.
    pull(&mut pair.dialler, pair.now + after * 4, carrier);
    pair.dialler.handle_timeout(pair.now + after * 8);
    assert_eq!(events(&mut pair.dialler), []);
}
