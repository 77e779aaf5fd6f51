//! The set of carriers: born, attached, suspect, lost.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::error::{CarrierEnd, SessionEnd, Violation};
use super::frame::{Frame, Goaway, Hello, Side, VersionRange};
use super::liveness::{Due, Liveness};
use super::schedule::LOOK_AFTER;
use super::streams::Phase;
use super::{CarrierId, CarrierInfo, Event, Session};

/// Time from connected to attached, at most.
const ATTACH_WITHIN: Duration = Duration::from_secs(10);
/// Most frames that wait in a carrier's own queue; only a flood of pings could make more.
const MAX_OUTBOX: usize = 64;
/// A round trip is asked for after so many frames that only it confirms.
const CONFIRM_EVERY: usize = 4096;
/// Most of them that are remembered.
const MAX_TOLD: usize = 65_536;

/// One carrier.
///
/// ```text
///   dialler:  greeting --HELLO--> waiting --(session is there, or is begun here)--> attaching --ATTACH_OK--> attached
///   listener: greeting --HELLO--> waiting --ATTACH--------------------------------------------------------> attached
///   attached --all RESUME of the peer--> carries data
///   any --error, silence, fence--> closing --(shell)--> lost
/// ```
pub(super) struct Carrier {
    pub(super) slot: u8,
    pub(super) binding: [u8; 32],
    pub(super) state: State,
    pub(super) hello: Option<Hello>,
    /// Frames of the carrier itself, ahead of everything.
    pub(super) outbox: VecDeque<Frame>,
    /// Next stream to report; `None` when all reports are made.
    pub(super) report_from: Option<u64>,
    /// Whether the peer made all its reports.
    pub(super) reported: bool,
    pub(super) live: Liveness,
    /// GONE went this way and may be lost with the carrier; oldest first.
    pub(super) told_gone: VecDeque<u64>,
    /// The PING last sent, and how many of `told_gone` went before it.
    confirming: (u64, usize),
    /// Streams with data whose home this is.
    pub(super) small: VecDeque<u64>,
    pub(super) bulk: VecDeque<u64>,
    /// The last pull was empty: needs [`Event::Wake`].
    pub(super) idle: bool,
    /// It was woken and has not pulled yet.
    pub(super) woken: bool,
    pub(super) last_pull: Instant,
    /// The last pull gave as much as it may.
    pub(super) filled: bool,
    /// Bytes of streams that were given to it.
    pub(super) given: u64,
    /// There is more for it: when to see why its socket takes nothing.
    pub(super) look_at: Option<Instant>,
    /// Its TCP sends nothing for a while: see [`Session::rest`].
    pub(super) resting: bool,
    opened_at: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Greeting,
    Waiting,
    /// ATTACH was sent, for a new session or the one that was present then.
    Attaching {
        epoch: u64,
        session: Option<[u8; 16]>,
    },
    Attached,
    Closing,
}

impl State {
    const fn name(self) -> &'static str {
        match self {
            Self::Greeting => "greeting",
            Self::Waiting => "waiting",
            Self::Attaching { .. } => "attaching",
            Self::Attached => "attached",
            Self::Closing => "closing",
        }
    }
}

impl Carrier {
    /// Whether data and streams' control frames may go this way.
    pub(super) fn carries(&self) -> bool {
        self.state == State::Attached && self.reported
    }

    /// Whether new data should go this way.
    pub(super) fn is_healthy(&self) -> bool {
        self.carries() && !self.live.is_suspect()
    }

    /// Whether it is any better than others.
    pub(super) fn takes(&self) -> bool {
        self.is_healthy() && !self.resting
    }

    pub(super) fn timeout(&self) -> Option<(Instant, &'static str)> {
        match self.state {
            State::Closing => None,
            State::Attached if self.reported => {
                let live = self.live.next();
                Some(self.look_at.map_or(live, |at| live.min((at, "look"))))
            }
            State::Attached => Some(self.live.next().min((self.opened_at + ATTACH_WITHIN, "attach"))),
            State::Greeting | State::Waiting | State::Attaching { .. } => {
                Some((self.opened_at + ATTACH_WITHIN, "attach"))
            }
        }
    }

    /// Remembers a GONE until the peer is known to have it. Nothing acknowledges it, but carriers keep the order: the answer
    /// to a later PING does. True when that PING is due now.
    pub(super) fn on_told_gone(&mut self, sid: u64) -> bool {
        self.told_gone.push_back(sid);
        let confirm = self.told_gone.len().is_multiple_of(CONFIRM_EVERY);
        if confirm {
            self.live.hurry();
        }
        if self.told_gone.len() > MAX_TOLD {
            // A peer that does not answer pings; it will be dead before long.
            self.told_gone.pop_front();
            self.confirming.1 = self.confirming.1.saturating_sub(1);
        }
        confirm
    }

    fn confirm(&mut self, seq: u64) {
        if self.confirming.0 == seq {
            let confirmed = std::mem::take(&mut self.confirming.1).min(self.told_gone.len());
            self.told_gone.drain(..confirmed);
        }
    }

    pub(super) fn info(&self, id: CarrierId) -> CarrierInfo {
        CarrierInfo {
            id,
            slot: self.slot,
            attached: self.carries(),
            suspect: self.live.is_suspect(),
            rtt: self.live.rtt(),
        }
    }
}

impl Session {
    /// A carrier was connected and proved; `slot` counts on the dialling side only. HELLO can be pulled at once.
    pub fn carrier_opened(&mut self, now: Instant, slot: u8, binding: [u8; 32]) -> CarrierId {
        let id = CarrierId(self.next_carrier);
        self.next_carrier += 1;
        let hello = Hello {
            versions: VersionRange::OURS,
            capabilities: 0,
            boot: self.config.boot,
            side: self.config.side,
            early: u32::try_from(self.budget.floor()).unwrap_or(u32::MAX),
            session: self.present_session().unwrap_or([0; 16]),
            link: self.config.link.clone(),
        };
        let carrier = Carrier {
            slot,
            binding,
            state: State::Greeting,
            hello: None,
            outbox: VecDeque::from([Frame::Hello(hello)]),
            report_from: None,
            reported: false,
            live: Liveness::new(now),
            told_gone: VecDeque::new(),
            confirming: (0, 0),
            small: VecDeque::new(),
            bulk: VecDeque::new(),
            idle: false,
            woken: true,
            last_pull: now,
            filled: false,
            given: 0,
            look_at: None,
            resting: false,
            opened_at: now,
        };
        self.carriers.insert(id, carrier);
        self.nearer = true;
        id
    }

    /// Takes a frame that arrived on `id`. Whatever is wrong with it is told by events.
    pub fn handle_frame(&mut self, now: Instant, id: CarrierId, frame: Frame) {
        let Some(carrier) = self.carriers.get_mut(&id) else {
            return;
        };
        if carrier.state == State::Closing {
            return;
        }
        // Beginnings come with deadlines of their own.
        self.nearer |= !carrier.carries();
        if carrier.live.on_heard(now) {
            self.on_recovered(id);
        }
        if let Err(violation) = self.dispatch(now, id, frame) {
            self.on_violation(now, id, violation);
        }
    }

    /// What arrived on `id` is no frame.
    pub fn handle_malformed(&mut self, now: Instant, id: CarrierId, violation: Violation) {
        self.on_violation(now, id, violation);
    }

    fn on_violation(&mut self, now: Instant, id: CarrierId, violation: Violation) {
        if self.carriers.get(&id).is_some_and(|carrier| carrier.state == State::Attached) {
            self.end_session(now, SessionEnd::Violation(violation));
        } else {
            self.close_carrier(id, CarrierEnd::Violation(violation));
        }
    }

    fn dispatch(&mut self, now: Instant, id: CarrierId, frame: Frame) -> Result<(), Violation> {
        let Some(carrier) = self.carriers.get_mut(&id) else {
            return Ok(());
        };
        match (frame, carrier.state) {
            (Frame::Hello(hello), State::Greeting) => self.on_hello(now, id, hello),
            (Frame::Attach(attach), State::Waiting) if self.config.side == Side::Listener => {
                self.on_attach(now, id, &attach);
            }
            (Frame::AttachOk { session, epoch }, State::Attaching { .. }) => self.on_attach_ok(now, id, session, epoch),
            (Frame::AttachRefused { reason, detail }, State::Attaching { .. } | State::Greeting | State::Waiting) => {
                self.on_attach_refused(now, id, reason, detail);
            }
            (Frame::Goaway { code: Goaway::Ended, detail }, State::Attached) => {
                self.end_session(now, SessionEnd::ByPeer(detail));
            }
            (Frame::Goaway { code: Goaway::Ended, .. }, _) => self.close_carrier(id, CarrierEnd::Closed),
            (Frame::Goaway { code: Goaway::Draining, .. }, State::Attached) => {
                if let Some(incarnation) = &mut self.incarnation
                    && !std::mem::replace(&mut incarnation.peer_draining, true)
                {
                    self.events.push_back(Event::PeerDraining);
                }
            }
            (Frame::Ping { seq, ts }, State::Attached) => {
                self.bear(now, "pings")?;
                let carrier = self.carriers.get_mut(&id).expect("looked up above");
                if carrier.outbox.len() >= MAX_OUTBOX {
                    return Err(Violation::Flood { what: "pings", count: carrier.outbox.len(), limit: MAX_OUTBOX });
                }
                carrier.outbox.push_back(Frame::Pong { seq, ts });
                self.wake(id);
            }
            (Frame::Pong { seq, .. }, State::Attached) => {
                let took = carrier.live.on_pong(now, seq);
                carrier.confirm(seq);
                self.measure_way();
                if let Some(took) = took.filter(|_| self.express() == Some(id)) {
                    self.judge_queue(now, took);
                }
            }
            (Frame::Return { sid, max_off }, State::Attached) => {
                self.bear(now, "credit given back")?;
                self.on_return(sid, max_off)?;
            }
            (Frame::Want { carriers }, State::Attached) => {
                self.bear(now, "asking for carriers")?;
                self.on_wanted(carriers);
            }
            (Frame::Resume { last, reports }, State::Attached) if !carrier.reported => {
                self.on_resume(now, id, last, &reports)?;
            }
            (frame, State::Attached) => self.on_stream_frame(now, id, frame)?,
            (frame, state) => return Err(Violation::Unexpected { frame: frame.name(), state: state.name() }),
        }
        Ok(())
    }

    /// A side has use for so many carriers; the one that dials may act on it.
    pub(super) fn on_wanted(&mut self, carriers: u8) {
        if self.config.side == Side::Dialler && carriers > self.wanted {
            self.wanted = carriers.min(super::SLOTS);
            self.events.push_back(Event::Carriers(self.wanted));
        }
    }

    /// The shell closed the carrier, or lost it.
    pub fn carrier_lost(&mut self, now: Instant, id: CarrierId) {
        self.retire_carrier(now, id);
        self.carriers.remove(&id);
        self.measure_way();
        self.attach_waiting(now);
    }

    /// Has the shell close the carrier; it serves no more.
    pub(super) fn close_carrier(&mut self, id: CarrierId, why: CarrierEnd) {
        if let Some(carrier) = self.carriers.get_mut(&id)
            && carrier.state != State::Closing
        {
            carrier.state = State::Closing;
            carrier.idle = false;
            self.measure_way();
            self.events.push_back(Event::Close(id, why));
        }
    }

    /// As [`Self::close_carrier`], for one that was attached: what it carried goes elsewhere.
    pub(super) fn drop_carrier(&mut self, now: Instant, id: CarrierId, why: CarrierEnd) {
        self.retire_carrier(now, id);
        self.events.push_back(Event::Close(id, why));
    }

    /// Takes a carrier out of service; the last one parks the session.
    fn retire_carrier(&mut self, now: Instant, id: CarrierId) {
        let Some(carrier) = self.carriers.get_mut(&id) else {
            return;
        };
        let was = std::mem::replace(&mut carrier.state, State::Closing);
        if was != State::Attached {
            return;
        }
        self.measure_way();
        self.unload(id);
        if self.incarnation.is_some() && self.parked_since.is_none() && !self.any_attached() {
            self.parked_since = Some(now);
            self.due_at(now + self.config.park);
            if self.incarnation.as_ref().is_some_and(|incarnation| incarnation.established) {
                self.events.push_back(Event::Parked);
            }
        }
    }

    pub(super) fn any_attached(&self) -> bool {
        self.carriers.values().any(|carrier| carrier.state == State::Attached)
    }

    /// What went by `id` and is unacknowledged goes again by others: data that flew there, and every control frame that
    /// might have.
    pub(super) fn unload(&mut self, id: CarrierId) {
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.small.clear();
            carrier.bulk.clear();
            carrier.confirming.1 = 0;
            self.gone.extend(std::mem::take(&mut carrier.told_gone));
        }
        let sids: Vec<_> = self.streams.keys().copied().collect();
        for sid in sids {
            let Some(stream) = self.streams.get_mut(&sid) else {
                continue;
            };
            stream.send.on_carrier_lost(id);
            let went_here = stream.home == Some(id);
            if went_here {
                stream.home = None;
                stream.queued = false;
            }
            match stream.phase {
                Phase::Opening { .. } if went_here => self.flag(sid, |ctl| &mut ctl.open),
                Phase::Opening { .. } => {}
                Phase::Open => {
                    if !stream.mine {
                        self.flag(sid, |ctl| &mut ctl.answer);
                    }
                    self.flag(sid, |ctl| &mut ctl.credit);
                }
                // What came before the answer was acknowledged too.
                Phase::Offered => self.flag(sid, |ctl| &mut ctl.credit),
                Phase::Refused(_) => self.flag(sid, |ctl| &mut ctl.answer),
                Phase::Resetting(_) => self.flag(sid, |ctl| &mut ctl.reset),
                Phase::Failed(_) | Phase::Retired | Phase::Cut(_) => {}
            }
            self.schedule(sid);
        }
    }

    fn on_recovered(&mut self, id: CarrierId) {
        if self.carriers.get(&id).is_some_and(Carrier::carries) {
            self.schedule_all();
        }
    }

    pub(super) fn handle_carrier_timeouts(&mut self, now: Instant) {
        let ids: Vec<_> = self.carriers.keys().copied().collect();
        for id in ids {
            let Some(carrier) = self.carriers.get_mut(&id) else {
                continue;
            };
            if carrier.state == State::Closing {
                continue;
            }
            if carrier.state != State::Attached {
                if carrier.opened_at + ATTACH_WITHIN <= now {
                    self.close_carrier(id, CarrierEnd::Slow(ATTACH_WITHIN));
                }
                continue;
            }
            if !carrier.reported && carrier.opened_at + ATTACH_WITHIN <= now {
                self.drop_carrier(now, id, CarrierEnd::Slow(ATTACH_WITHIN));
                continue;
            }
            if let Some(carrier) =
                self.carriers.get_mut(&id).filter(|carrier| carrier.look_at.is_some_and(|at| at <= now))
            {
                // As long again as it has taken nothing: a way that is slow by itself is not asked for ever.
                carrier.look_at = Some(now + now.saturating_duration_since(carrier.last_pull).max(LOOK_AFTER));
                self.events.push_back(Event::Look(id));
            }
            while let Some(due) = self.carriers.get_mut(&id).and_then(|carrier| carrier.live.poll(now)) {
                match due {
                    Due::Ping(seq) => {
                        if let Some(carrier) = self.carriers.get_mut(&id) {
                            let ts = u64::try_from(now.saturating_duration_since(carrier.opened_at).as_micros());
                            carrier.confirming = (seq, carrier.told_gone.len());
                            carrier.outbox.push_back(Frame::Ping { seq, ts: ts.unwrap_or(u64::MAX) });
                        }
                        self.wake(id);
                    }
                    Due::Suspect => {
                        self.events.push_back(Event::Suspect(id));
                        if self.carriers.values().any(Carrier::is_healthy) {
                            self.unload(id);
                        }
                    }
                    Due::Dead(silent) => {
                        self.drop_carrier(now, id, CarrierEnd::Silent(silent));
                        break;
                    }
                }
            }
        }
    }

    /// Tells the peer on every attached carrier.
    pub(super) fn announce(&mut self, code: Goaway, detail: &str) {
        let ids: Vec<_> = self.carriers.keys().copied().collect();
        for id in ids {
            if let Some(carrier) = self.carriers.get_mut(&id)
                && carrier.state == State::Attached
            {
                carrier.outbox.push_back(Frame::Goaway { code, detail: detail.to_owned() });
                self.wake(id);
            }
        }
    }
}
