//! Two sessions, the carriers between them, and the applications at both ends, in virtual time.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::flow::{End, Flow, Habit};
use super::random::Random;
use super::shape::Shape;
use crate::tunnel::session::frame::{self, Decoded, Frame};
use crate::tunnel::session::tests::{Toy, start};
use crate::tunnel::session::{
    Batch, CarrierEnd, CarrierId, Counters, Event, OpenFailure, OpenRefused, Refusal, SLOTS, Session, SessionEnd,
    StreamId,
};

/// What a socket takes before it is full, in bytes.
const SOCKET: usize = 40_000;
/// Pause between dials while nothing is lost any more.
const REDIAL: Duration = Duration::from_millis(200);

mod judge;
mod network;

use judge::sum;

/// A carrier between the two; pairs are by side, of what arrives there.
struct Wire {
    ids: [CarrierId; 2],
    slot: u8,
    delay: Duration,
    /// Encoded batches by arrival.
    flying: [VecDeque<(Instant, Bytes)>; 2],
    /// Bytes in `flying`.
    load: [usize; 2],
    /// Whether each end still has it.
    open: [bool; 2],
    /// The session wants it closed; what it has to say last may still go.
    closing: [bool; 2],
    /// What is sent there goes nowhere, and nobody is told.
    hole: [bool; 2],
    /// The last pull left nothing: it is not pulled before the session wakes it.
    asleep: [bool; 2],
}

impl Wire {
    fn is_good(&self) -> bool {
        self.open == [true; 2] && self.hole == [false; 2] && self.closing == [false; 2]
    }
}

/// One process: its session, and what was seen of it.
struct Process {
    session: Session,
    boot: u8,
    serials: HashMap<StreamId, usize>,
    /// Offers that wait for an answer.
    offers: Vec<(StreamId, usize)>,
    /// Its peer restarted or gave the session up, so that the session may end.
    disturbed: bool,
    /// It ended the session itself.
    ending: bool,
    ended: bool,
    /// Sessions of it that ended, as seen last.
    seen_ended: u32,
    parked_at: Option<Instant>,
    frozen_until: Option<Instant>,
    opened: u64,
    accepted: u64,
    /// Sums of the processes before it.
    before: Counters,
}

impl Process {
    fn new(shape: &Shape, side: usize, boot: u8) -> Self {
        Self {
            session: Session::new(shape.config(side, boot), Box::new(Toy)),
            boot,
            serials: HashMap::new(),
            offers: Vec::new(),
            disturbed: false,
            ending: false,
            ended: false,
            seen_ended: 0,
            parked_at: None,
            frozen_until: None,
            opened: 0,
            accepted: 0,
            before: Counters::default(),
        }
    }
}

/// What a schedule came to.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Tally {
    pub(super) streams: u64,
    /// Streams of which every byte arrived in both directions.
    pub(super) whole: u64,
    pub(super) bytes: u64,
    pub(super) replayed: u64,
    pub(super) kills: u64,
    pub(super) resumes: u64,
    pub(super) restarts: u64,
    pub(super) expired: u64,
}

pub(super) struct World {
    random: Random,
    shape: Shape,
    now: Instant,
    sides: [Process; 2],
    wires: Vec<Wire>,
    flows: Vec<Flow>,
    /// Those of which an end is not released.
    live: Vec<usize>,
    /// Frames that arrive a second time: where, in which session, what.
    echoes: Vec<(usize, u32, u8, Frame)>,
    echoed: u64,
    wanted: u8,
    no_dial_until: Option<Instant>,
    redial_at: Instant,
    calm: bool,
    progress: bool,
    tally: Tally,
    /// Says what happens.
    told: bool,
    begun: Instant,
}

impl World {
    pub(super) fn new(seed: u64, told: bool) -> Self {
        let mut random = Random::new(seed);
        let shape = Shape::new(&mut random);
        let sides = [0, 1].map(|side| Process::new(&shape, side, 0));
        let now = start();
        Self {
            random,
            shape,
            now,
            sides,
            wires: Vec::new(),
            flows: Vec::new(),
            live: Vec::new(),
            echoes: Vec::new(),
            echoed: 0,
            wanted: 2,
            no_dial_until: None,
            redial_at: now,
            calm: false,
            progress: false,
            tally: Tally::default(),
            told,
            begun: now,
        }
    }

    fn tell(&self, what: impl FnOnce() -> String) {
        if self.told {
            println!("{:10.6} {}", (self.now - self.begun).as_secs_f64(), what());
        }
    }

    /// Runs the schedule to its end and judges it.
    pub(super) fn run(mut self) -> Tally {
        for _ in 0..self.shape.steps {
            self.happen();
            self.events();
            self.now += Duration::from_micros(self.random.below(self.shape.tempo));
            self.step();
        }
        self.settle();
        self.judge();
        self.tally
    }

    fn strikes(&mut self, one_in: Option<u64>) -> bool {
        one_in.is_some_and(|one_in| self.random.chance(one_in))
    }

    /// What happens to the two between steps.
    fn happen(&mut self) {
        if self.random.chance(self.shape.connects) && self.no_dial_until.is_none_or(|until| until <= self.now) {
            self.connect();
        }
        if self.random.chance(self.shape.opens) {
            self.open();
        }
        if self.random.chance(self.shape.kills) && !self.wires.is_empty() {
            let at = self.random.index(self.wires.len());
            self.hurt(at);
        }
        if self.strikes(self.shape.outages) {
            for at in 0..self.wires.len() {
                self.hurt(at);
            }
            let lasts = Duration::from_millis(self.random.below(9000));
            self.no_dial_until = Some(self.now + lasts);
            if self.random.chance(2) {
                self.pass(lasts);
            }
        }
        if self.strikes(self.shape.freezes) {
            let side = self.random.index(2);
            self.sides[side].frozen_until = Some(self.now + Duration::from_millis(self.random.below(8000)));
        }
        if self.strikes(self.shape.drains) {
            let side = self.random.index(2);
            self.sides[side].session.drain();
        }
        if self.strikes(self.shape.restarts) {
            let side = self.random.index(2);
            self.restart(side);
        }
        if self.strikes(self.shape.echoes) {
            self.echo();
        }
    }

    /// The process of a side is replaced: at once, or after it said goodbye.
    fn restart(&mut self, side: usize) {
        self.tally.restarts += 1;
        self.tell(|| format!("{side}: restarts"));
        self.events();
        if self.random.chance(2) {
            self.sides[side].ending = true;
            self.sides[side].session.end(self.now);
            for at in 0..self.wires.len() {
                self.pull(at, side);
            }
        }
        let mute = self.random.chance(3);
        for wire in &mut self.wires {
            wire.open[side] = false;
            wire.flying[side].clear();
            wire.load[side] = 0;
            // A host that died sends nothing more, not even an end.
            wire.hole[1 - side] |= mute;
        }
        let old = &self.sides[side];
        let boot = old.boot + 1;
        let before = sum(old.before, old.session.counters());
        let (opened, accepted) = (old.opened, old.accepted);
        self.sides[side] = Process { opened, accepted, before, ..Process::new(&self.shape, side, boot) };
        self.sides[1 - side].disturbed = true;
        for flow in &mut self.flows {
            if let Some(end) = &mut flow.ends[side]
                && !end.released
            {
                end.released = true;
                flow.cut = true;
            }
        }
        self.echoes.clear();
        self.events();
    }

    fn open(&mut self) {
        let side = self.random.index(2);
        if self.is_frozen(side) {
            return;
        }
        let serial = self.flows.len();
        // The name tells the other end which stream it is.
        if let Ok(id) = self.sides[side].session.open(&format!("s{serial}"), 9092) {
            let end = self.end(id, false);
            let mut ends = [None, None];
            ends[side] = Some(end);
            self.flows.push(Flow { ends, cut: false });
            self.live.push(serial);
            self.sides[side].opened += 1;
            self.sides[side].serials.insert(id, serial);
            self.tally.streams += 1;
        }
    }

    fn end(&mut self, id: StreamId, opened: bool) -> End {
        let plan = if self.random.chance(3) { self.random.below(self.shape.plan) } else { self.random.below(3000) };
        let habit = if self.strikes(self.shape.never) {
            Habit::Never
        } else if self.strikes(self.shape.slow) {
            Habit::Slow(2 + self.random.below(20))
        } else {
            Habit::Quick
        };
        End::new(id, plan, habit, opened)
    }

    fn is_frozen(&self, side: usize) -> bool {
        self.sides[side].frozen_until.is_some_and(|until| self.now < until)
    }

    /// What arrived arrives again by another way; and somebody wants more carriers.
    fn echo(&mut self) {
        let side = self.random.index(2);
        let session = &self.sides[side].session;
        let attached: Vec<_> =
            session.carriers().filter(|carrier| carrier.attached).map(|carrier| carrier.id).collect();
        if attached.is_empty() || self.is_frozen(side) {
            return;
        }
        let id = self.random.one_of(&attached);
        if self.random.chance(4) {
            let carriers = self.random.below(256) as u8;
            self.sides[side].session.handle_frame(self.now, id, Frame::Want { carriers });
        } else if !self.echoes.is_empty() {
            let at = self.random.index(self.echoes.len());
            let (to, number, boot, frame) = &self.echoes[at];
            let process = &mut self.sides[*to];
            if *to == side && *number == process.session.ended && *boot == process.boot {
                if let Frame::Data { data, .. } = frame {
                    self.echoed += data.len() as u64;
                }
                let frame = frame.clone();
                process.session.handle_frame(self.now, id, frame);
            }
            self.echoes.swap_remove(at);
        }
        self.events();
    }

    /// Everybody acts once.
    fn step(&mut self) {
        self.applications();
        self.network();
        self.timers();
        self.events();
        for process in &self.sides {
            let (received, sent) = process.session.buffered();
            let half = self.shape.buffered / 2;
            let streams = process.session.streams() as u64;
            assert!(
                sent <= half + streams * process.session.budget.floor(),
                "{sent} bytes kept for replay by {streams} streams, limit {half}"
            );
            let most = 2 * half + (streams + 1) * process.session.budget.floor();
            assert!(received <= most, "{received} bytes received by {streams} streams, limit {half}");
        }
    }

    fn timers(&mut self) {
        for side in 0..2 {
            if !self.is_frozen(side) && self.sides[side].session.poll_timeout().is_some_and(|(at, _)| at <= self.now) {
                self.sides[side].session.handle_timeout(self.now);
                self.progress = true;
            }
        }
    }

    /// When anything is due by itself.
    fn next_event(&mut self) -> Option<Instant> {
        let frozen = self.sides.each_ref().map(|process| process.frozen_until);
        let awake = |at: Instant, side: usize| frozen[side].map_or(at, |until| at.max(until));
        let flying = self.wires.iter().flat_map(|wire| {
            [0, 1].map(|side| wire.flying[side].front().map(|&(at, _)| awake(at, side))).into_iter().flatten()
        });
        let flying = flying.min();
        let mut next = flying;
        for side in 0..2 {
            if let Some((at, _)) = self.sides[side].session.poll_timeout() {
                let at = awake(at, side);
                next = Some(next.map_or(at, |next| next.min(at)));
            }
        }
        next
    }

    /// Time passes while nobody writes or reads.
    fn pass(&mut self, lasts: Duration) {
        self.events();
        let until = self.now + lasts;
        while self.now < until {
            let next = self.next_event().map_or(until, |at| at.min(until));
            self.now = next.max(self.now + Duration::from_micros(50));
            self.network();
            self.timers();
            self.events();
        }
    }

    fn events(&mut self) {
        for side in 0..2 {
            // One that carried nothing yet ends without a word.
            let ended = self.sides[side].session.ended;
            if std::mem::replace(&mut self.sides[side].seen_ended, ended) != ended {
                self.sides[1 - side].disturbed = true;
            }
            while let Some(event) = self.sides[side].session.poll_event() {
                self.on_event(side, event);
            }
        }
    }

    fn on_event(&mut self, side: usize, event: Event) {
        self.tell(|| format!("{side}: {event:?}"));
        match event {
            Event::Wake(id) => {
                if let Some(wire) = self.wires.iter_mut().find(|wire| wire.ids[side] == id && wire.open[side]) {
                    wire.asleep[side] = false;
                    self.progress = true;
                }
            }
            Event::Look(id) => {
                if self.random.below(2) == 0 {
                    self.sides[side].session.rest(id, self.random.below(100_000));
                }
            }
            Event::Close(id, why) => {
                if let CarrierEnd::RefusedByUs { reason, .. } | CarrierEnd::RefusedByPeer { reason, .. } = &why {
                    let expected =
                        [Refusal::OtherPeer, Refusal::StaleEpoch, Refusal::UnknownSession, Refusal::Draining];
                    assert!(expected.contains(reason), "side {side}: {why}");
                }
                assert!(!matches!(why, CarrierEnd::Violation(_) | CarrierEnd::Version { .. }), "side {side}: {why}");
                if let Some(wire) = self.wires.iter_mut().find(|wire| wire.ids[side] == id && wire.open[side]) {
                    wire.closing[side] = true;
                    wire.asleep[side] = false;
                    self.progress = true;
                }
            }
            Event::Offered { id, host, port } => {
                assert_eq!(port, 9092);
                let serial = host.strip_prefix('s').and_then(|serial| serial.parse().ok()).expect("a serial");
                self.sides[side].offers.push((id, serial));
            }
            Event::Up { resumed } => {
                self.sides[side].parked_at = None;
                if !resumed {
                    // What the other side had been is over already where it has another session, or none.
                    let [one, two] = self.sides.each_ref().map(|process| process.session.present_session());
                    self.sides[side].disturbed = one.is_none() || one != two;
                }
                self.tally.resumes += u64::from(resumed);
            }
            Event::Parked => self.sides[side].parked_at = Some(self.now),
            Event::Ended(why) => self.on_ended(side, &why),
            // Nobody watches: each end here reads or writes until it is cut.
            Event::Cut(id) => unreachable!("{id:?} is not watched"),
            Event::Carriers(wanted) => {
                assert!(side == 0 && (1..=SLOTS).contains(&wanted));
                self.wanted = wanted;
            }
            Event::Answered(id) => self.wake(side, id, |end| end.waits.answer = false),
            Event::Readable(id) => self.wake(side, id, |end| end.waits.read = false),
            Event::Writable(id) => self.wake(side, id, |end| end.waits.write = false),
            Event::Attached(_) | Event::Suspect(_) | Event::PeerDraining => {}
        }
    }

    fn wake(&mut self, side: usize, id: StreamId, wake: impl FnOnce(&mut End)) {
        let serial = self.sides[side].serials.get(&id);
        if let Some(end) = serial.and_then(|&serial| self.flows[serial].ends[side].as_mut()) {
            wake(end);
            self.progress = true;
        }
    }

    /// A session ends for a reason only, and everything on it is cut.
    fn on_ended(&mut self, side: usize, why: &SessionEnd) {
        let process = &mut self.sides[side];
        process.ended = true;
        match why {
            SessionEnd::ParkExpired(after) => {
                let parked = process.parked_at.expect("a session expires where it is parked");
                assert!(parked + *after <= self.now, "side {side}: expired after {:?}", self.now - parked);
                self.tally.expired += 1;
            }
            SessionEnd::ByUs => assert!(process.ending, "side {side}: {why}"),
            _ => assert!(process.disturbed, "side {side}: {why}"),
        }
        // A second one may have ended meanwhile that carried nothing yet.
        let now = process.session.ended;
        for flow in &mut self.flows {
            if flow.ends[side].as_ref().is_some_and(|end| !end.released && end.id.session < now) {
                flow.cut = true;
            }
        }
        // Offers that nobody answered yet are streams of the session too.
        for (id, serial) in &self.sides[side].offers {
            if id.session < now {
                self.flows[*serial].cut = true;
            }
        }
    }

    /// What applications do.
    fn applications(&mut self) {
        for side in 0..2 {
            if !self.is_frozen(side) {
                self.answer(side);
            }
        }
        for at in 0..self.live.len() {
            let serial = self.live[at];
            for side in 0..2 {
                if !self.is_frozen(side) {
                    self.turn(serial, side);
                }
            }
        }
        let flows = &self.flows;
        self.live.retain(|&serial| flows[serial].ends.iter().flatten().any(|end| !end.released));
        self.events();
    }

    fn answer(&mut self, side: usize) {
        let mut at = 0;
        while at < self.sides[side].offers.len() {
            if !self.calm && self.random.chance(2) {
                at += 1;
                continue;
            }
            self.progress = true;
            let (id, serial) = self.sides[side].offers.swap_remove(at);
            let end = self.end(id, true);
            let refuse = self.random.chance(20);
            let process = &mut self.sides[side];
            let flow = &mut self.flows[serial];
            assert!(flow.ends[side].is_none(), "stream {serial} offered twice");
            if refuse {
                flow.cut = true;
                let failure = OpenFailure { code: 3, value: 0, detail: "no".to_owned() };
                process.session.refuse(self.now, id, failure);
            } else if process.session.accept(id) {
                process.accepted += 1;
                process.serials.insert(id, serial);
                flow.ends[side] = Some(end);
                self.live.push(serial);
            } else {
                assert!(flow.cut, "stream {serial} is gone");
                process.session.release(self.now, id);
            }
        }
    }

    /// One end's turn. Whatever cuts it must have been caused.
    fn turn(&mut self, serial: usize, side: usize) {
        let Flow { ends, cut } = &mut self.flows[serial];
        let (first, second) = ends.split_at_mut(1);
        let (end, other) = if side == 0 { (&mut first[0], &second[0]) } else { (&mut second[0], &first[0]) };
        let Some(end) = end else { return };
        if end.released {
            return;
        }
        let session = &mut self.sides[side].session;
        if !end.opened && !end.waits.answer {
            match session.opened(end.id) {
                None => end.waits.answer = true,
                Some(Ok(())) => end.opened = true,
                Some(Err(why)) => {
                    let limited = matches!(&why, OpenRefused::Failed(why) if why.code == OpenFailure::LIMIT);
                    assert!(*cut || limited, "stream {serial} at {side}: {why:?}");
                    *cut = true;
                    end.released = true;
                    session.release(self.now, end.id);
                    self.progress = true;
                    return;
                }
            }
        }
        let leaves = !self.calm && self.random.chance(300);
        if leaves {
            *cut = true;
            if self.random.chance(2) {
                session.reset(end.id);
            } else if self.random.chance(2) {
                end.finished |= session.finish(end.id).is_ok();
            }
        } else {
            let turn = (&mut self.random, self.now, self.calm);
            match end.turn(turn, session, (serial, side), other.as_ref()) {
                Ok(progress) => self.progress |= progress,
                Err(why) => {
                    assert!(*cut, "stream {serial} at {side}: {why}");
                    end.released = true;
                }
            }
        }
        if leaves || end.released || end.is_done() {
            end.released = true;
            self.progress = true;
            session.release(self.now, end.id);
        }
    }
}
