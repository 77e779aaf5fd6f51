//! What streams and peers may cost: budgets, credit that goes back, floods, and attempts to join a session that is not theirs.

use super::*;

/// Both sides with `bytes` for `streams`.
fn tight(bytes: u64, streams: usize) -> Pair {
    let with = |side| SessionConfig { streams, buffered_bytes: bytes, opens_per_second: 100_000, ..config(side) };
    Pair::with(with(Side::Dialler), with(Side::Listener))
}

/// Writes to `id` whatever there is room for.
fn fill(session: &mut Session, now: Instant, id: StreamId) -> usize {
    let mut written = 0;
    loop {
        let room = session.room(id).unwrap().min(32 * 1024);
        if room == 0 {
            return written;
        }
        session.write(now, id, Bytes::from(vec![7; room])).unwrap();
        written += room;
    }
}

#[test]
fn a_thousand_slow_readers_stay_inside_the_budget_and_leave_room_for_one_more() {
    const HALF: u64 = 4 << 20;
    let mut pair = tight(2 * HALF, 1024);
    let ids = pair.attached(0, 1);
    let streams: Vec<_> = (0..1000).map(|_| pair.stream(ids)).collect();
    for _ in 0..5 {
        for &id in &streams {
            fill(&mut pair.dialler, pair.now, id);
        }
        pair.exchange(ids);
        pair.now += ACK_DELAY;
        pair.listener.handle_timeout(pair.now);
        pair.exchange(ids);
        let (received, _) = pair.listener.buffered();
        let (_, sent) = pair.dialler.buffered();
        assert!(received <= HALF && sent <= HALF, "{received} received, {sent} sent");
    }
    // Everybody got at least its floor, and a late one is as good as the others.
    assert!(pair.listener.buffered().0 >= 1000 * 2048);
    let late = pair.stream(ids);
    assert!(fill(&mut pair.dialler, pair.now, late) >= 2048);
    pair.exchange(ids);
    assert!(matches!(pair.listener.read(pair.now, late), Ok(Read::Data(data)) if data.len() >= 2048));
    // All of it arrives once they read.
    let mut read = 0;
    for &id in &streams {
        while let Read::Data(data) = pair.listener.read(pair.now, id).unwrap() {
            read += data.len();
        }
    }
    assert!(read >= 1000 * 2048);
    // What the late one holds is the application's until it asks for more.
    assert!(pair.listener.buffered().0 > 0);
    assert_eq!(pair.listener.read(pair.now, late), Ok(Read::Blocked));
    assert_eq!(pair.listener.buffered().0, 0);
}

#[test]
fn what_the_application_holds_counts_until_it_asks_for_more() {
    let mut pair = tight(64 << 20, 100);
    let ids = pair.attached(0, 1);
    let id = pair.stream(ids);
    let window = fill(&mut pair.dialler, pair.now, id);
    pair.exchange(ids);
    let mut taken = Vec::new();
    while let Read::Data(data) = pair.listener.read(pair.now, id).unwrap() {
        taken.push(data.len());
    }
    assert_eq!(taken.iter().sum::<usize>(), window);
    pair.exchange(ids);
    let window = fill(&mut pair.dialler, pair.now, id);
    pair.exchange(ids);
    let Read::Data(first) = pair.listener.read(pair.now, id).unwrap() else { panic!() };
    let held = pair.listener.buffered().0;
    assert_eq!(held, window as u64);
    pair.listener.read(pair.now, id).unwrap();
    assert_eq!(pair.listener.buffered().0, held - first.len() as u64);
}

#[test]
fn credit_that_is_of_no_use_goes_back_and_comes_again_with_the_need() {
    let mut pair = tight(64 << 20, 100);
    let ids = pair.attached(0, 1);
    let id = pair.stream(ids);
    pair.dialler.write_copy(pair.now, id, b"a few bytes").unwrap();
    pair.exchange(ids);
    assert!(matches!(pair.listener.read(pair.now, id), Ok(Read::Data(_))));
    assert_eq!(pair.listener.read(pair.now, id), Ok(Read::Blocked));
    pair.now += ACK_DELAY;
    pair.listener.handle_timeout(pair.now);
    pair.exchange(ids);
    assert_eq!(pair.dialler.room(id), Ok(256 * 1024 - 11));
    let promised = pair.listener.budget.most(0);
    pair.now += UNUSED;
    pair.dialler.handle_timeout(pair.now);
    let sent = pull(&mut pair.dialler, pair.now, ids.0);
    // What it wrote was less than the floor of a stream, which it keeps.
    assert!(sent.contains(&Frame::Return { sid: id.sid, max_off: 11 + 64 * 1024 }), "{sent:?}");
    sent.into_iter().for_each(|frame| pair.listener.handle_frame(pair.now, ids.1, frame));
    pair.exchange(ids);
    // Three quarters of what came back, as for any stream.
    assert_eq!(pair.listener.budget.most(0) - promised, (256 - 64) * 1024 / 4 * 3);
    // Once is enough.
    pair.now += UNUSED;
    pair.dialler.handle_timeout(pair.now);
    let sent = pull(&mut pair.dialler, pair.now, ids.0);
    assert!(!sent.iter().any(|frame| matches!(frame, Frame::Return { .. })), "{sent:?}");
    sent.into_iter().for_each(|frame| pair.listener.handle_frame(pair.now, ids.1, frame));
    pair.exchange(ids);
    // With use it grows again.
    let mut rooms = Vec::new();
    for _ in 0..12 {
        rooms.push(fill(&mut pair.dialler, pair.now, id));
        pair.exchange(ids);
        while let Read::Data(_) = pair.listener.read(pair.now, id).unwrap() {}
        pair.exchange(ids);
    }
    assert_eq!(rooms[0], 64 * 1024);
    assert!(rooms[11] >= 1024 * 1024, "{rooms:?}");
}

#[test]
fn credit_that_went_back_and_is_used_all_the_same_ends_at_the_budget() {
    const HALF: u64 = 1 << 20;
    let mut pair = tight(2 * HALF, 64);
    let ids = pair.attached(0, 1);
    let streams: Vec<_> = (0..64).map(|_| pair.stream(ids)).collect();
    for &id in &streams {
        // The peer says that it has no use for its credit, has others given theirs, and then uses all.
        pair.listener.streams.get_mut(&id.sid).unwrap().recv.permit(256 * 1024);
        pair.listener.handle_frame(pair.now, ids.1, Frame::Return { sid: id.sid, max_off: 0 });
    }
    let mut cut = 0;
    for &id in &streams {
        for offset in (0..256 * 1024).step_by(16 * 1024) {
            let data = Bytes::from(vec![0; 16 * 1024]);
            pair.listener.handle_frame(pair.now, ids.1, Frame::Data { sid: id.sid, offset, fin: false, data });
        }
        cut += usize::from(pair.listener.read(pair.now, id).is_err());
    }
    assert!(pair.listener.is_up() && cut > 0);
    assert_eq!(pair.listener.counters().overdrawn, cut as u64);
    assert!(pair.listener.buffered().0 <= HALF + HALF / 16 + 16 * 1024, "{:?}", pair.listener.buffered());
}

/// How the listener ends the session after these frames.
fn after(pair: &mut Pair, ids: Ids, frames: impl IntoIterator<Item = Frame>) -> Option<String> {
    frames.into_iter().for_each(|frame| pair.listener.handle_frame(pair.now, ids.1, frame));
    events(&mut pair.listener).into_iter().find_map(|event| match event {
        Event::Ended(why) => Some(why.to_string()),
        _ => None,
    })
}

#[test]
fn floods_of_control_frames_end_at_their_limits() {
    let mut pair = Pair::new();
    let ids = pair.attached(0, 1);
    let ping = |seq| Frame::Ping { seq, ts: 0 };
    assert_eq!(after(&mut pair, ids, (0..64).map(ping)), None);
    assert_eq!(pull(&mut pair.listener, pair.now, ids.1).len(), 64);
    let ended = after(&mut pair, ids, (0..65).map(ping));
    assert_eq!(ended.as_deref(), Some("peer misbehaved: flood of pings: 64, limit 64"));

    let open = |sid| Frame::Open { sid, max_off: 0, port: 1, host: "h".to_owned() };
    let reset = |sid| Frame::Reset { sid, code: 1, final_off: 0 };
    // Opened and reset at once, again and again: nothing stays, whatever is answered.
    let mut pair = tight(1 << 20, 4);
    let ids = pair.attached(0, 1);
    for round in 0..100 {
        let sids = (0..100).map(|at| 2 * (round * 100 + at) + 1);
        let frames = sids.flat_map(|sid| [open(sid), reset(sid)]);
        frames.for_each(|frame| pair.listener.handle_frame(pair.now, ids.1, frame));
        for event in events(&mut pair.listener) {
            assert!(!matches!(event, Event::Ended(_)), "{event:?}");
            if let Event::Offered { id, .. } = event {
                // As the exit does with what it cannot dial any more.
                pair.listener.release(pair.now, id);
            }
        }
        pull(&mut pair.listener, pair.now, ids.1);
    }
    assert_eq!((pair.listener.streams(), pair.listener.gone.len(), pair.listener.ctl.len()), (0, 0, 0));

    // A peer that reads no answers is cut off.
    let ended = after(&mut pair, ids, (0..65_537).map(|at| reset(2 * at + 1)));
    assert_eq!(ended.as_deref(), Some("peer misbehaved: flood of frames of ended streams: 65537, limit 65536"));
}

#[test]
fn refused_streams_that_are_never_let_go_of_are_bounded() {
    let mut pair = tight(1 << 20, 10);
    let ids = pair.attached(0, 1);
    let opens = (0..2000).map(|at| Frame::Open { sid: 2 * at + 1, max_off: 0, port: 1, host: "h".to_owned() });
    let ended = after(&mut pair, ids, opens);
    assert_eq!(ended.as_deref(), Some("peer misbehaved: flood of streams: 1044, limit 1044"));
    assert_eq!(pair.listener.streams(), 0);
}

#[test]
fn runs_out_of_order_are_bounded_over_all_streams() {
    let mut pair = tight(64 << 20, 100);
    let ids = pair.attached(0, 1);
    let streams: Vec<_> = (0..32).map(|_| pair.stream(ids)).collect();
    events(&mut pair.listener);
    let frames = streams.iter().flat_map(|id| (0..4000).map(move |at| data(id.sid, 1 + 2 * at, b"x")));
    let ended = after(&mut pair, ids, frames);
    assert_eq!(ended.as_deref(), Some("peer misbehaved: flood of runs out of order: 65537, limit 65536"));
    assert_eq!((pair.listener.runs, pair.listener.buffered()), (0, (0, 0)));
}

#[test]
fn an_attach_of_another_session_is_refused_and_the_present_one_lives() {
    let mut pair = Pair::new();
    let old = pair.attached(0, 1);
    pair.stream(old);
    // A carrier of the first session asks to join, and is slow.
    let slow = pair.connect(1, 2);
    let hello = pull(&mut pair.dialler, pair.now, slow.0);
    hello.into_iter().for_each(|frame| pair.listener.handle_frame(pair.now, slow.1, frame));
    let hello = pull(&mut pair.listener, pair.now, slow.1);
    hello.into_iter().for_each(|frame| pair.dialler.handle_frame(pair.now, slow.0, frame));
    let attach = pull(&mut pair.dialler, pair.now, slow.0);
    assert!(matches!(&attach[..], [Frame::Attach(_)]));
    // Meanwhile that session ends at both sides, and another one begins.
    pair.listener.handle_malformed(pair.now, old.1, Violation::BadStreamId { frame: "DATA", sid: 0 });
    for (session, id) in [(&mut pair.dialler, old.0), (&mut pair.listener, old.1)] {
        session.carrier_lost(pair.now, id);
    }
    pair.dialler.carrier_lost(pair.now, slow.0);
    let ids = pair.attached(0, 3);
    pair.dialler.end_session(pair.now, SessionEnd::ByUs);
    pair.dialler.carrier_lost(pair.now, ids.0);
    pair.listener.carrier_lost(pair.now, ids.1);
    let ids = pair.attached(0, 4);
    let stream = pair.stream(ids);
    let sessions = pair.listener.counters().sessions;
    events(&mut pair.listener);
    attach.into_iter().for_each(|frame| pair.listener.handle_frame(pair.now, slow.1, frame));
    let told = pull(&mut pair.listener, pair.now, slow.1);
    let unknown = Refusal::UnknownSession.code();
    assert!(matches!(&told[..], [Frame::AttachRefused { reason, .. }] if *reason == unknown), "{told:?}");
    pair.dialler.write_copy(pair.now, stream, b"untouched").unwrap();
    pair.exchange(ids);
    assert_eq!(pair.listener.read(pair.now, stream), Ok(Read::Data(Bytes::from_static(b"untouched"))));
    assert_eq!(pair.listener.counters().sessions, sessions);
}

#[test]
fn frames_that_change_nothing_are_borne_after_losses_and_end_the_session_as_a_flood() {
    type Idle = fn(&Pair, StreamId) -> Frame;
    let idle: [(Idle, &str); 5] = [
        (
            |pair, id| {
                let send = &pair.dialler.streams[&id.sid].send;
                Frame::Credit(Report { sid: id.sid, recv_off: send.acked(), max_off: send.max_off() })
            },
            "CREDIT",
        ),
        (|_, id| Frame::Data { sid: id.sid, offset: 0, fin: false, data: Bytes::new() }, "DATA"),
        (|_, _| Frame::Want { carriers: 1 }, "carriers"),
        (|_, id| Frame::Return { sid: id.sid, max_off: u64::MAX }, "given back"),
        (|_, _| Frame::Gone { sid: 2 }, "GONE"),
    ];
    for (make, what) in idle {
        let mut pair = Pair::new();
        let ids = pair.attached(0, 1);
        let id = pair.stream(ids);
        // The peer once opened and ended a stream, so that its id is known.
        let theirs = pair.listener.open("host", 1).unwrap();
        assert_eq!(theirs.sid, 2);
        pair.exchange(ids);
        assert!(pair.dialler.accept(theirs));
        events(&mut pair.dialler);
        // What a second of losses makes of every stream is far below the bound.
        let frame = make(&pair, id);
        let sent = |pair: &mut Pair, count: usize| {
            for _ in 0..count {
                pair.dialler.handle_frame(pair.now, ids.0, frame.clone());
            }
        };
        for _ in 0..20 {
            sent(&mut pair, 16 * 100);
            pair.now += Duration::from_secs(1);
        }
        assert!(pair.dialler.has_session(), "{what}");
        sent(&mut pair, 1_000_000);
        let ended = events(&mut pair.dialler).into_iter().find_map(|event| match event {
            Event::Ended(SessionEnd::Violation(Violation::TooMany { what, limit })) => Some((what, limit)),
            _ => None,
        });
        let (named, limit) = ended.unwrap_or_else(|| panic!("a flood of {what} ends the session"));
        assert!(named.contains(what) && limit == 65_536 + 16 * 100 + 4 * 1000, "{named} {limit}");
    }
}
