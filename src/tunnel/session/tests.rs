//! Two sessions joined by hand: what each rule promises, frame by frame.

mod limits;
mod reading;
mod rest;

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::frame::{Attach, Frame, Goaway, Hello, Report, VersionRange};
use super::*;

/// Some moment to count from.
#[allow(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]
pub(super) fn start() -> Instant {
    Instant::now()
}

/// Digests that are none, but equal and different where real ones are.
pub(super) struct Toy;

fn mix(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = 0xcbf2_9ce4_8422_2325_u64;
    let mut out = [0; 32];
    for (index, byte) in parts.concat().iter().chain(&[0; 32]).enumerate() {
        state = (state ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        out[index % 32] ^= (state >> 32) as u8;
    }
    out
}

impl Keyring for Toy {
    fn derive(&self, binding: &[u8; 32], dialler_boot: &[u8; 16], listener_boot: &[u8; 16]) -> ([u8; 16], [u8; 32]) {
        let id = mix(&[b"id", binding, dialler_boot, listener_boot]);
        (*id.first_chunk().unwrap(), mix(&[b"key", binding, dialler_boot, listener_boot]))
    }

    fn proof(&self, key: &[u8; 32], binding: &[u8; 32], epoch: u64, slot: u8) -> [u8; 32] {
        mix(&[key, binding, &epoch.to_le_bytes(), &[slot]])
    }

    fn same(&self, a: &[u8; 32], b: &[u8; 32]) -> bool {
        a == b
    }
}

pub(super) fn config(side: Side) -> SessionConfig {
    SessionConfig {
        side,
        link: "orange-grape".to_owned(),
        boot: [if side == Side::Dialler { 0xd1 } else { 0x11 }; 16],
        streams: 100,
        opens_per_second: 1000,
        buffered_bytes: 64 << 20,
        pieces: PIECES,
        park: Duration::from_secs(60),
    }
}

/// Two sessions; frames go by hand.
struct Pair {
    now: Instant,
    dialler: Session,
    listener: Session,
}

/// A carrier's id at both ends.
type Ids = (CarrierId, CarrierId);

impl Pair {
    fn new() -> Self {
        Self::with(config(Side::Dialler), config(Side::Listener))
    }

    fn with(dialler: SessionConfig, listener: SessionConfig) -> Self {
        Self {
            now: start(),
            dialler: Session::new(dialler, Box::new(Toy)),
            listener: Session::new(listener, Box::new(Toy)),
        }
    }

    fn connect(&mut self, slot: u8, binding: u8) -> Ids {
        let near = self.dialler.carrier_opened(self.now, slot, [binding; 32]);
        (near, self.listener.carrier_opened(self.now, 0, [binding; 32]))
    }

    /// Connected and exchanged until quiet.
    fn attached(&mut self, slot: u8, binding: u8) -> Ids {
        let ids = self.connect(slot, binding);
        self.exchange(ids);
        ids
    }

    fn exchange(&mut self, (near, far): Ids) {
        loop {
            let forth = pull(&mut self.dialler, self.now, near);
            let back = pull(&mut self.listener, self.now, far);
            if forth.is_empty() && back.is_empty() {
                return;
            }
            forth.into_iter().for_each(|frame| self.listener.handle_frame(self.now, far, frame));
            back.into_iter().for_each(|frame| self.dialler.handle_frame(self.now, near, frame));
        }
    }

    /// A stream opened by the dialler and accepted.
    fn stream(&mut self, ids: Ids) -> StreamId {
        let id = self.dialler.open("host", 9092).unwrap();
        self.exchange(ids);
        assert!(self.listener.accept(id));
        self.exchange(ids);
        id
    }
}

/// All frames due on a carrier.
fn pull(session: &mut Session, now: Instant, id: CarrierId) -> Vec<Frame> {
    let mut batch = Batch::new(65_519);
    let mut frames = Vec::new();
    loop {
        batch.clear();
        session.pull(now, id, 256 * 1024, &mut batch);
        if batch.is_empty() {
            return frames;
        }
        let mut out = Vec::new();
        batch
            .for_each_record(|parts| {
                parts.iter().for_each(|part| out.extend_from_slice(part));
                Ok::<_, ()>(())
            })
            .unwrap();
        let mut input = Bytes::from(out);
        while let frame::Decoded::Frame(frame) = frame::decode(&mut input).unwrap() {
            frames.push(frame);
        }
    }
}

fn events(session: &mut Session) -> Vec<Event> {
    std::iter::from_fn(|| session.poll_event()).filter(|event| !matches!(event, Event::Wake(_))).collect()
}

/// Why the session closed its carrier.
fn closed(session: &mut Session) -> Option<CarrierEnd> {
    events(session).into_iter().find_map(|event| match event {
        Event::Close(_, why) => Some(why),
        _ => None,
    })
}

fn data(sid: u64, offset: u64, bytes: &'static [u8]) -> Frame {
    Frame::Data { sid, offset, fin: false, data: Bytes::from_static(bytes) }
}

#[test]
fn a_session_begins_with_its_first_carrier_and_others_join_it() {
    let mut pair = Pair::new();
    let first = pair.connect(0, 1);
    let second = pair.connect(1, 2);
    // The second knows the peer first, and still the first one to say HELLO begins.
    pair.exchange(first);
    pair.exchange(second);
    for session in [&mut pair.dialler, &mut pair.listener] {
        assert!(session.is_up() && session.carriers().all(|carrier| carrier.attached));
        assert_eq!(session.counters().sessions, 1);
        let ups = events(session).into_iter().filter(|event| *event == Event::Up { resumed: false }).count();
        assert_eq!(ups, 1);
    }
    assert_eq!(pair.listener.carriers().map(|carrier| carrier.slot).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn peers_that_cannot_work_together_say_why() {
    let hello = |change: fn(&mut Hello)| {
        let mut pair = Pair::new();
        let (near, far) = pair.connect(0, 1);
        let mut frames = pull(&mut pair.dialler, pair.now, near);
        let Frame::Hello(hello) = &mut frames[0] else { panic!() };
        change(hello);
        pair.listener.handle_frame(pair.now, far, frames.remove(0));
        let told = pull(&mut pair.listener, pair.now, far).into_iter().find_map(|frame| match frame {
            Frame::AttachRefused { reason, .. } => Some(reason),
            _ => None,
        });
        (closed(&mut pair.listener).unwrap().to_string(), told)
    };
    assert_eq!(
        hello(|hello| hello.versions = VersionRange { min: 2, max: 5 }),
        (
            "no common protocol version: this side speaks 1, the peer speaks 2 to 5; update the older side".to_owned(),
            None
        )
    );
    assert_eq!(
        hello(|hello| hello.link = "orange-plum".to_owned()),
        ("refused: link names differ: this side is `orange-grape`, the peer `orange-plum`".to_owned(), Some(5))
    );
    assert_eq!(
        hello(|hello| hello.side = Side::Listener),
        ("refused: both sides have the same role: both listen; one side must do the other".to_owned(), Some(6))
    );
}

#[test]
fn stolen_replayed_and_stale_attaches_change_nothing() {
    let mut pair = Pair::new();
    let ids = pair.attached(0, 1);
    let id = pair.stream(ids);
    // A second carrier; its ATTACH is taken away.
    let (near, far) = pair.connect(1, 2);
    let hello = pull(&mut pair.dialler, pair.now, near);
    hello.into_iter().for_each(|frame| pair.listener.handle_frame(pair.now, far, frame));
    let hello = pull(&mut pair.listener, pair.now, far);
    hello.into_iter().for_each(|frame| pair.dialler.handle_frame(pair.now, near, frame));
    let frames = pull(&mut pair.dialler, pair.now, near);
    let [Frame::Attach(attach)] = &frames[..] else { panic!("{frames:?}") };
    let mut attempt = |binding: u8, attach: Attach| {
        let far = pair.listener.carrier_opened(pair.now, 0, [binding; 32]);
        let mut boot = [0; 16];
        boot.copy_from_slice(&[0xd1; 16]);
        let hello = Hello {
            versions: VersionRange::OURS,
            capabilities: 0,
            boot,
            side: Side::Dialler,
            early: 1,
            session: [0; 16],
            link: "orange-grape".to_owned(),
        };
        pair.listener.handle_frame(pair.now, far, Frame::Hello(hello));
        pair.listener.handle_frame(pair.now, far, Frame::Attach(attach));
        let refused = pull(&mut pair.listener, pair.now, far).into_iter().find_map(|frame| match frame {
            Frame::AttachRefused { reason, .. } => Some(Refusal::from_code(reason)),
            _ => None,
        });
        pair.listener.carrier_lost(pair.now, far);
        refused
    };
    // On another channel, for another slot, with another epoch: the proof fits none of them.
    assert_eq!(attempt(9, attach.clone()), Some(Refusal::BadProof));
    assert_eq!(attempt(2, Attach { slot: 2, ..attach.clone() }), Some(Refusal::BadProof));
    assert_eq!(attempt(2, Attach { epoch: 99, ..attach.clone() }), Some(Refusal::BadProof));
    assert_eq!(attempt(2, Attach { slot: 16, ..attach.clone() }), Some(Refusal::BadSlot));
    assert_eq!(attempt(2, Attach { session: [7; 16], ..attach.clone() }), Some(Refusal::UnknownSession));
    // The real one, once; then again.
    assert_eq!(attempt(2, attach.clone()), None);
    assert_eq!(attempt(2, attach.clone()), Some(Refusal::StaleEpoch));
    assert!(pair.listener.is_up());
    pair.dialler.write_copy(pair.now, id, b"still here").unwrap();
    pair.exchange(ids);
    assert_eq!(pair.listener.read(pair.now, id), Ok(Read::Data(Bytes::from_static(b"still here"))));
}

#[test]
fn a_new_carrier_fences_the_old_one_of_its_slot_before_it_reports() {
    let mut pair = Pair::new();
    let old = pair.attached(0, 1);
    let id = pair.stream(old);
    pair.dialler.write_copy(pair.now, id, b"lost on the way").unwrap();
    let flying = pull(&mut pair.dialler, pair.now, old.0);
    pair.dialler.carrier_lost(pair.now, old.0);
    // The listener does not know yet.
    let new = pair.attached(0, 2);
    let fenced = events(&mut pair.listener).into_iter().any(|e| e == Event::Close(old.1, CarrierEnd::Fenced));
    assert!(fenced);
    // What the old carrier delivers late does not count.
    flying.into_iter().for_each(|frame| pair.listener.handle_frame(pair.now, old.1, frame));
    pair.exchange(new);
    assert_eq!(pair.listener.read(pair.now, id), Ok(Read::Data(Bytes::from_static(b"lost on the way"))));
    assert_eq!(pair.listener.counters().duplicate_bytes, 0);
    assert_eq!((pair.dialler.counters().replayed_bytes, pair.dialler.counters().resumes), (15, 1));
}

#[test]
fn only_what_the_peer_lacks_is_sent_again() {
    let mut pair = Pair::new();
    let old = pair.attached(0, 1);
    let id = pair.stream(old);
    pair.dialler.write_copy(pair.now, id, b"arrived").unwrap();
    let frames = pull(&mut pair.dialler, pair.now, old.0);
    frames.into_iter().for_each(|frame| pair.listener.handle_frame(pair.now, old.1, frame));
    pair.dialler.write_copy(pair.now, id, b", lost").unwrap();
    pull(&mut pair.dialler, pair.now, old.0);
    pair.dialler.carrier_lost(pair.now, old.0);
    pair.listener.carrier_lost(pair.now, old.1);
    pair.attached(0, 2);
    assert_eq!(pair.dialler.counters().replayed_bytes, 6);
    assert_eq!(pair.listener.read(pair.now, id), Ok(Read::Data(Bytes::from_static(b"arrived, lost"))));
}

#[test]
fn a_peer_that_breaks_a_rule_loses_the_session_by_name() {
    let report = |sid, recv_off| Frame::Credit(Report { sid, recv_off, max_off: 1 << 20 });
    let open = |sid| Frame::Open { sid, max_off: 1, port: 1, host: "h".to_owned() };
    for (frame, text) in [
        (
            Frame::Data { sid: 1, offset: 262_140, fin: false, data: Bytes::from_static(&[0; 9]) },
            "stream 1: data up to offset 262149 with credit up to 262144",
        ),
        (report(1, 5), "stream 1: acknowledged up to 5, sent up to 0"),
        (open(2), "OPEN frame for stream 2, which the peer may not use so"),
        (open(0), "OPEN frame for stream 0, which the peer may not use so"),
        (data(3, 0, b"x"), "DATA frame for stream 3, which the peer may not use so"),
        (Frame::OpenOk { sid: 1, max_off: 0 }, "OPEN_OK frame for stream 1, which the peer may not use so"),
        (Frame::AttachOk { session: [0; 16], epoch: 1 }, "ATTACH_OK frame while the carrier was attached"),
    ] {
        let mut pair = Pair::new();
        let ids = pair.attached(0, 1);
        let id = pair.stream(ids);
        events(&mut pair.listener);
        pair.listener.handle_frame(pair.now, ids.1, frame);
        let ended = events(&mut pair.listener).into_iter().find_map(|event| match event {
            Event::Ended(why) => Some(why.to_string()),
            _ => None,
        });
        assert_eq!(ended, Some(format!("peer misbehaved: {text}")));
        assert!(pair.listener.read(pair.now, id).is_err() && pair.listener.streams() == 0);
        // The peer is told, and its streams do not wait.
        let told = pull(&mut pair.listener, pair.now, ids.1);
        assert!(matches!(&told[..], [Frame::Goaway { code: Goaway::Ended, .. }]), "{told:?}");
        told.into_iter().for_each(|frame| pair.dialler.handle_frame(pair.now, ids.0, frame));
        assert!(pair.dialler.read(pair.now, id).is_err());
    }
}

#[test]
fn data_behind_the_end_is_named() {
    let mut pair = Pair::new();
    let ids = pair.attached(0, 1);
    pair.stream(ids);
    events(&mut pair.listener);
    let end = Frame::Data { sid: 1, offset: 0, fin: true, data: Bytes::from_static(b"ab") };
    pair.listener.handle_frame(pair.now, ids.1, end);
    pair.listener.handle_frame(pair.now, ids.1, data(1, 2, b"c"));
    let violation = Violation::AfterEnd { sid: 1, end: 3, final_off: 2 };
    assert!(events(&mut pair.listener).contains(&Event::Ended(SessionEnd::Violation(violation))));
}

#[test]
fn limits_of_streams_and_opens_refuse_the_stream_and_spare_the_session() {
    let mut listener = config(Side::Listener);
    listener.streams = 2;
    let mut pair = Pair::with(config(Side::Dialler), listener);
    let ids = pair.attached(0, 1);
    let opened: Vec<_> = (0..3).map(|_| pair.dialler.open("host", 1).unwrap()).collect();
    pair.exchange(ids);
    assert_eq!(pair.dialler.opened(opened[1]), None);
    let failure = OpenFailure { code: OpenFailure::LIMIT, value: 0, detail: "2 streams are open, limit 2".to_owned() };
    assert_eq!(pair.dialler.opened(opened[2]), Some(Err(OpenRefused::Failed(failure))));

    let mut listener = config(Side::Listener);
    listener.opens_per_second = 2;
    let mut pair = Pair::with(config(Side::Dialler), listener);
    let ids = pair.attached(0, 1);
    let mut refused = 0;
    for _ in 0..3 {
        let id = pair.dialler.open("host", 1).unwrap();
        pair.exchange(ids);
        refused += usize::from(pair.dialler.opened(id).is_some());
    }
    pair.now += Duration::from_secs(1);
    let id = pair.dialler.open("host", 1).unwrap();
    pair.exchange(ids);
    assert_eq!((refused, pair.dialler.opened(id)), (1, None));
}

#[test]
fn control_overtakes_small_streams_and_these_overtake_bulk() {
    let mut pair = Pair::new();
    let ids = pair.attached(0, 1);
    let (bulk, other, small) = (pair.stream(ids), pair.stream(ids), pair.stream(ids));
    let block = Bytes::from(vec![0; 250_000]);
    for id in [bulk, other] {
        pair.dialler.write(pair.now, id, block.clone()).unwrap();
    }
    // Both are bulk after their first turns.
    let mut batch = Batch::new(65_519);
    pair.dialler.pull(pair.now, ids.0, 200_000, &mut batch);
    pair.dialler.write_copy(pair.now, small, b"urgent").unwrap();
    let opened = pair.dialler.open("host", 1).unwrap();
    let frames = pull(&mut pair.dialler, pair.now, ids.0);
    assert!(matches!(&frames[0], Frame::Open { sid, .. } if *sid == opened.sid));
    assert!(matches!(&frames[1], Frame::Data { sid, .. } if *sid == small.sid));
    // Bulk shares by bytes: at no point is one ahead of the other by more than a turn.
    let mut sent = [0_i64; 2];
    for frame in &frames[2..] {
        let Frame::Data { sid, data, .. } = frame else { panic!("{frame:?}") };
        sent[usize::from(*sid == other.sid)] += i64::try_from(data.len()).unwrap();
        assert!((sent[0] - sent[1]).abs() <= 2 * 65_536, "{sent:?}");
    }
}

#[test]
fn a_busy_carrier_gets_help_and_a_lone_one_keeps_its_stream() {
    let mut pair = Pair::new();
    let first = pair.attached(0, 1);
    let second = pair.attached(1, 2);
    let id = pair.dialler.open("host", 1).unwrap();
    for ids in [first, second] {
        pair.exchange(ids);
    }
    assert!(pair.listener.accept(id));
    for ids in [first, second, first, second] {
        pair.exchange(ids);
    }
    pair.dialler.write(pair.now, id, Bytes::from(vec![0; 250_000])).unwrap();
    let mut batch = Batch::new(65_519);
    let mut take = |pair: &mut Pair, carrier| {
        batch.clear();
        pair.dialler.pull(pair.now, carrier, 60_000, &mut batch);
        batch.len()
    };
    let (home, away) = if take(&mut pair, first.0) > 0 { (first.0, second.0) } else { (second.0, first.0) };
    take(&mut pair, home);
    assert_eq!(take(&mut pair, away), 0);
    // The home is stuck in its socket.
    pair.now += Duration::from_millis(5);
    assert!(take(&mut pair, away) >= 60_000);
}

#[test]
fn a_silent_carrier_is_left_for_a_healthy_one_in_a_second_and_dead_in_five() {
    let mut pair = Pair::new();
    let mute = pair.attached(0, 1);
    let id = pair.stream(mute);
    let good = pair.attached(1, 2);
    let start = pair.now;
    events(&mut pair.dialler);
    pair.dialler.write_copy(pair.now, id, b"swallowed").unwrap();
    assert_eq!(pull(&mut pair.dialler, pair.now, mute.0).len(), 1);
    let mut dead = None;
    let mut received = None;
    while dead.is_none() {
        pair.now += Duration::from_millis(50);
        pair.dialler.handle_timeout(pair.now);
        pull(&mut pair.dialler, pair.now, mute.0);
        pair.exchange(good);
        if let Ok(Read::Data(data)) = pair.listener.read(pair.now, id) {
            received = Some((pair.now - start, data));
        }
        dead = events(&mut pair.dialler).into_iter().find_map(|event| match event {
            Event::Close(_, CarrierEnd::Silent(_)) => Some(pair.now - start),
            _ => None,
        });
    }
    assert_eq!(received, Some((Duration::from_millis(1000), Bytes::from_static(b"swallowed"))));
    assert_eq!(dead, Some(Duration::from_secs(5)));
}

#[test]
fn a_process_that_was_stopped_does_not_blame_its_peer() {
    let mut pair = Pair::new();
    let ids = pair.attached(0, 1);
    pair.dialler.poll_timeout();
    pair.now += Duration::from_secs(30);
    pair.dialler.handle_timeout(pair.now);
    assert_eq!(closed(&mut pair.dialler), None);
    pair.exchange(ids);
    assert!(pair.dialler.is_up());
}

#[test]
fn parked_streams_are_reset_when_their_time_is_over() {
    let mut pair = Pair::new();
    let ids = pair.attached(0, 1);
    let id = pair.stream(ids);
    events(&mut pair.dialler);
    pair.dialler.carrier_lost(pair.now, ids.0);
    assert_eq!(events(&mut pair.dialler), [Event::Parked]);
    assert_eq!(pair.dialler.poll_timeout(), Some((pair.now + Duration::from_secs(60), "park expired")));
    assert_eq!(pair.dialler.read(pair.now, id), Ok(Read::Blocked));
    pair.now += Duration::from_secs(60);
    pair.dialler.handle_timeout(pair.now);
    let why = SessionEnd::ParkExpired(Duration::from_secs(60));
    assert_eq!(events(&mut pair.dialler), [Event::Readable(id), Event::Answered(id), Event::Ended(why.clone())]);
    assert_eq!(pair.dialler.read(pair.now, id), Err(StreamEnd::SessionLost(why)));
    // The listener still holds the session; the dialler asks for a new one on the same carrier.
    pair.attached(0, 2);
    assert!(pair.dialler.is_up() && pair.listener.is_up());
    assert!(events(&mut pair.listener).contains(&Event::Ended(SessionEnd::Replaced)));
}

#[test]
fn a_finished_stream_leaves_nothing_behind() {
    let mut pair = Pair::new();
    let ids = pair.attached(0, 1);
    let id = pair.stream(ids);
    for session in [&mut pair.dialler, &mut pair.listener] {
        session.write_copy(pair.now, id, b"x").unwrap();
        session.finish(id).unwrap();
    }
    pair.exchange(ids);
    for session in [&mut pair.dialler, &mut pair.listener] {
        // Over for the protocol; the application may still read.
        assert_eq!(session.read(pair.now, id), Ok(Read::Data(Bytes::from_static(b"x"))));
        assert_eq!(session.read(pair.now, id), Ok(Read::End));
        session.release(pair.now, id);
        assert_eq!((session.streams(), session.buffered()), (0, (0, 0)));
    }
    pair.exchange(ids);
}

#[test]
fn an_open_for_draining_endpoints_is_refused_on_both_sides() {
    let mut pair = Pair::new();
    let ids = pair.attached(0, 1);
    let crossing = pair.dialler.open("host", 1).unwrap();
    pair.listener.drain();
    pair.exchange(ids);
    assert!(matches!(pair.dialler.opened(crossing), Some(Err(OpenRefused::Failed(_)))));
    assert_eq!(pair.dialler.open("host", 1), Err(OpenError::Draining("the peer")));
    assert_eq!(pair.listener.open("host", 1), Err(OpenError::Draining("this side")));
}

/// The listener gave the session up, two carriers ask for it, and the second one's refusal comes when the next session stands.
#[test]
fn a_late_refusal_of_a_session_that_is_over_leaves_the_next_one_alone() {
    let listener = SessionConfig { park: Duration::from_secs(1), ..config(Side::Listener) };
    let mut pair = Pair::with(SessionConfig { park: Duration::from_secs(60), ..config(Side::Dialler) }, listener);
    let (near, far) = pair.attached(0, 1);
    pair.dialler.carrier_lost(pair.now, near);
    pair.listener.carrier_lost(pair.now, far);
    pair.now += Duration::from_secs(2);
    pair.listener.handle_timeout(pair.now);
    assert!(pair.dialler.has_session() && !pair.listener.has_session());

    let (first, second) = (pair.connect(0, 2), pair.connect(1, 3));
    let mut refusals = Vec::new();
    for (near, far) in [second, first] {
        for frame in pull(&mut pair.listener, pair.now, far) {
            pair.dialler.handle_frame(pair.now, near, frame);
        }
        for frame in pull(&mut pair.dialler, pair.now, near) {
            pair.listener.handle_frame(pair.now, far, frame);
        }
        refusals.push(pull(&mut pair.listener, pair.now, far));
    }
    assert!(matches!(refusals[..], [ref late, _] if matches!(late[..], [Frame::AttachRefused { .. }])));
    let (early, late) = (refusals.pop().unwrap(), refusals.pop().unwrap());
    early.into_iter().for_each(|frame| pair.dialler.handle_frame(pair.now, first.0, frame));
    pair.exchange(first);
    let id = pair.stream(first);

    late.into_iter().for_each(|frame| pair.dialler.handle_frame(pair.now, second.0, frame));
    pair.exchange(second);
    assert_eq!(pair.dialler.opened(id), Some(Ok(())));
    assert_eq!(pair.dialler.carriers().filter(|carrier| carrier.attached).count(), 2);
}

/// What the dialler answers when its session ended while ATTACH_OK was on its way: no proof was wrong.
#[test]
fn an_attach_that_comes_too_late_is_closed_for_the_session_that_ended() {
    let dialler = SessionConfig { park: Duration::from_secs(1), ..config(Side::Dialler) };
    let mut pair = Pair::with(dialler, config(Side::Listener));
    let (near, far) = pair.attached(0, 1);
    pair.dialler.carrier_lost(pair.now, near);
    pair.listener.carrier_lost(pair.now, far);
    let (near, far) = pair.connect(0, 2);
    let hello = pull(&mut pair.listener, pair.now, far);
    hello.into_iter().for_each(|frame| pair.dialler.handle_frame(pair.now, near, frame));
    let attach = pull(&mut pair.dialler, pair.now, near);
    attach.into_iter().for_each(|frame| pair.listener.handle_frame(pair.now, far, frame));
    let attached = pull(&mut pair.listener, pair.now, far);
    pair.now += Duration::from_secs(2);
    pair.dialler.handle_timeout(pair.now);
    events(&mut pair.dialler);
    attached.into_iter().for_each(|frame| pair.dialler.handle_frame(pair.now, near, frame));
    let ended = CarrierEnd::SessionEnded(SessionEnd::ParkExpired(Duration::from_secs(1)));
    assert_eq!(events(&mut pair.dialler), [Event::Close(near, ended)]);
}

/// The acknowledgement of early data went by a carrier that broke before the stream was accepted.
#[test]
fn an_acknowledgement_lost_before_the_answer_is_given_again() {
    let mut pair = Pair::new();
    let (near, far) = pair.attached(0, 1);
    let id = pair.dialler.open("host", 9092).unwrap();
    pair.dialler.write_copy(pair.now, id, b"early").unwrap();
    for frame in pull(&mut pair.dialler, pair.now, near) {
        pair.listener.handle_frame(pair.now, far, frame);
    }
    pair.now += ACK_DELAY;
    pair.listener.handle_timeout(pair.now);
    assert!(pull(&mut pair.listener, pair.now, far).iter().any(|frame| matches!(frame, Frame::Credit(_))));
    pair.dialler.carrier_lost(pair.now, near);
    pair.listener.carrier_lost(pair.now, far);
    let ids = pair.attached(0, 2);
    assert!(pair.listener.accept(id));
    pair.exchange(ids);
    assert_eq!(pair.dialler.buffered(), (0, 0));
}

/// HELLO of a listener that is gone comes late, by an old carrier, while the session with its successor is parked.
#[test]
fn the_late_word_of_a_process_that_is_gone_ends_nothing() {
    let mut pair = Pair::new();
    let (old, theirs) = pair.connect(0, 1);
    let late = pull(&mut pair.listener, pair.now, theirs);
    pair.listener = Session::new(SessionConfig { boot: [0x12; 16], ..config(Side::Listener) }, Box::new(Toy));
    let (near, far) = pair.attached(0, 2);
    let id = pair.stream((near, far));
    pair.dialler.carrier_lost(pair.now, near);
    late.into_iter().for_each(|frame| pair.dialler.handle_frame(pair.now, old, frame));
    assert!(pair.dialler.has_session());
    assert_eq!(pair.dialler.opened(id), Some(Ok(())));
    // A successor in truth is reached by a younger carrier.
    pair.listener = Session::new(SessionConfig { boot: [0x13; 16], ..config(Side::Listener) }, Box::new(Toy));
    pair.attached(0, 3);
    assert!(matches!(pair.dialler.opened(id), Some(Err(OpenRefused::Cut(StreamEnd::SessionLost(_))))));
}

#[test]
fn each_stream_tells_what_it_waits_for() {
    let mut pair = Pair::new();
    let ids = pair.attached(0, 1);
    let id = pair.stream(ids);
    let waits = |session: &Session| session.busiest(8)[0].waits_for;
    assert_eq!(waits(&pair.dialler), WaitsFor::Nothing);
    // Nobody at the listener reads: its application is waited for there, its credit here.
    let mut written = 0;
    loop {
        let room = pair.dialler.room(id).unwrap();
        if room == 0 {
            break;
        }
        pair.dialler.write(pair.now, id, Bytes::from(vec![7; room])).unwrap();
        written += room as u64;
        assert_eq!(waits(&pair.dialler), WaitsFor::Carrier);
        pair.exchange(ids);
    }
    assert_eq!((waits(&pair.dialler), waits(&pair.listener)), (WaitsFor::Credit, WaitsFor::Application));
    let (near, far) = (pair.dialler.busiest(8)[0], pair.listener.busiest(8)[0]);
    assert_eq!((near.ours, near.bytes_out, near.window_out), (true, written, 0));
    assert_eq!((far.ours, far.bytes_in, far.window_in), (false, 0, written));
    // Of many, those that moved most.
    let small: Vec<_> = (0..9).map(|_| pair.stream(ids)).collect();
    let shown: Vec<_> = pair.dialler.busiest(3).into_iter().map(|stream| stream.id).collect();
    assert_eq!(shown, [id.sid, small[0].sid, small[1].sid]);
}
