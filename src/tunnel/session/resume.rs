//! How a carrier joins a session: HELLO, ATTACH, reports.
//!
//! ```text
//!   dialler                                   listener
//!      |-- HELLO ------------------------------->|    both at once
//!      |<------------------------------ HELLO ---|
//!      |-- ATTACH {session, epoch, slot, proof} ->|   checks; fences the old carrier of the slot
//!      |<--------------- ATTACH_OK, RESUME... ---|
//!      |-- RESUME... --------------------------->|    data flows each way behind the last RESUME
//! ```
//! The proof is keyed by the session and made over the new channel's binding, so that it cannot be carried elsewhere, and over
//! an epoch that must rise, so that it cannot come again. A new session's id and key are derived from its first carrier's
//! binding and both boot ids; it is asked for by an ATTACH without an id.

use std::collections::BTreeMap;
use std::time::Instant;

use super::carriers::{Carrier, State};
use super::error::{CarrierEnd, Refusal, SessionEnd, Violation};
use super::frame::{Attach, Frame, Goaway, Hello, Report, Side, VersionRange};
use super::ranges::RangeSet;
use super::streams::Phase;
use super::{CarrierId, Event, SLOTS, Session};

/// No session.
const NONE: [u8; 16] = [0; 16];

/// One session of two processes.
pub(super) struct Incarnation {
    pub(super) id: [u8; 16],
    key: [u8; 32],
    pub(super) peer_boot: [u8; 16],
    pub(super) peer_early: u32,
    pub(super) peer_draining: bool,
    /// Whether it has ever carried data; before that, both sides may still begin another.
    pub(super) established: bool,
    /// The youngest carrier that was attached. Whoever speaks on an older one of another process, or of another session, is of
    /// the past: its words are late, for the present peer was reached after it.
    newest: CarrierId,
    /// Listener: the epoch seen last, by slot.
    slot_epochs: BTreeMap<u8, u64>,
    /// The id of the next stream we open.
    pub(super) next_id: u64,
    /// Ids that the peer has used, halved.
    pub(super) seen: RangeSet,
}

impl Incarnation {
    fn new(side: Side, id: [u8; 16], key: [u8; 32], hello: &Hello) -> Self {
        Self {
            id,
            key,
            peer_boot: hello.boot,
            peer_early: hello.early,
            peer_draining: false,
            established: false,
            newest: CarrierId(0),
            slot_epochs: BTreeMap::new(),
            next_id: match side {
                Side::Dialler => 1,
                Side::Listener => 2,
            },
            seen: RangeSet::default(),
        }
    }
}

impl Session {
    pub(super) fn on_hello(&mut self, now: Instant, id: CarrierId, hello: Hello) {
        if VersionRange::OURS.common(hello.versions).is_none() {
            let why = CarrierEnd::Version { ours: VersionRange::OURS, theirs: hello.versions };
            return self.close_carrier(id, why);
        }
        if hello.link != self.config.link {
            let detail = format!("this side is `{}`, the peer `{}`", self.config.link, hello.link);
            return self.refuse_carrier(id, Refusal::WrongLink, detail);
        }
        if hello.side == self.config.side {
            let word = if hello.side == Side::Dialler { "dial" } else { "listen" };
            return self.refuse_carrier(id, Refusal::SameRole, format!("both {word}; one side must do the other"));
        }
        let peer_boot = hello.boot;
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.hello = Some(hello);
            carrier.state = State::Waiting;
        }
        if self.config.side == Side::Dialler {
            if self.incarnation.as_ref().is_some_and(|incarnation| incarnation.peer_boot != peer_boot) {
                if self.any_attached() || self.is_past(id) {
                    let detail = "the dialled address leads to another process than the session's".to_owned();
                    return self.refuse_carrier(id, Refusal::OtherPeer, detail);
                }
                self.end_session(now, SessionEnd::PeerRestarted);
            }
            self.attach_waiting(now);
        }
    }

    /// Dialler: attaches the carriers that wait, now that they can be.
    pub(super) fn attach_waiting(&mut self, _now: Instant) {
        if self.config.side != Side::Dialler {
            return;
        }
        let waiting: Vec<_> =
            self.carriers.iter().filter(|(_, carrier)| carrier.state == State::Waiting).map(|(&id, _)| id).collect();
        for id in waiting {
            // A session is begun on one carrier; the others join it.
            let beginning = self.carriers.values().any(|c| matches!(c.state, State::Attaching { session: None, .. }));
            if self.incarnation.is_none() && beginning {
                return;
            }
            self.attach(id);
        }
    }

    fn attach(&mut self, id: CarrierId) {
        let Some(carrier) = self.carriers.get_mut(&id) else {
            return;
        };
        let Some(hello) = &carrier.hello else {
            return;
        };
        self.epoch += 1;
        let epoch = self.epoch;
        let (session, key) = match &self.incarnation {
            Some(incarnation) => (Some(incarnation.id), incarnation.key),
            None => (None, self.keyring.derive(&carrier.binding, &self.config.boot, &hello.boot).1),
        };
        let proof = self.keyring.proof(&key, &carrier.binding, epoch, carrier.slot);
        carrier.state = State::Attaching { epoch, session };
        let session = session.unwrap_or(NONE);
        carrier.outbox.push_back(Frame::Attach(Attach { session, epoch, slot: carrier.slot, proof }));
        self.wake(id);
    }

    /// Listener: a carrier wants to join.
    pub(super) fn on_attach(&mut self, now: Instant, id: CarrierId, attach: &Attach) {
        let Some(carrier) = self.carriers.get_mut(&id) else {
            return;
        };
        let Some(hello) = carrier.hello.clone() else {
            return;
        };
        let binding = carrier.binding;
        if attach.slot >= SLOTS {
            let detail = format!("slot {}, limit {}", attach.slot, SLOTS - 1);
            return self.refuse_carrier(id, Refusal::BadSlot, detail);
        }
        if self.draining {
            return self.refuse_carrier(id, Refusal::Draining, String::new());
        }
        let other_peer = self.incarnation.as_ref().is_some_and(|incarnation| incarnation.peer_boot != hello.boot);
        if other_peer && (self.any_attached() || self.is_past(id)) {
            let detail = "a second process uses this link's name; each link has one endpoint a side".to_owned();
            return self.refuse_carrier(id, Refusal::OtherPeer, detail);
        }
        let fresh = attach.session == NONE;
        let (session, key) = match &self.incarnation {
            _ if fresh => self.keyring.derive(&binding, &hello.boot, &self.config.boot),
            Some(incarnation) if incarnation.id == attach.session && !other_peer => (incarnation.id, incarnation.key),
            _ => {
                if let Some(carrier) = self.carriers.get_mut(&id) {
                    // The peer resets its streams and asks for a new session on this very carrier.
                    let reason = Refusal::UnknownSession.code();
                    carrier.outbox.push_back(Frame::AttachRefused { reason, detail: String::new() });
                }
                self.wake(id);
                if !self.any_attached() && !self.is_past(id) {
                    self.end_session(now, SessionEnd::Replaced);
                }
                return;
            }
        };
        let proof = self.keyring.proof(&key, &binding, attach.epoch, attach.slot);
        if !self.keyring.same(&proof, &attach.proof) {
            return self.refuse_carrier(id, Refusal::BadProof, String::new());
        }
        if fresh {
            if let Some((boot, last)) = self.begun
                && boot == hello.boot
                && attach.epoch <= last
            {
                // Overtaken on its way by the one that the peer sent after it had given this one up.
                let detail = format!("epoch {}, last {last}", attach.epoch);
                return self.refuse_carrier(id, Refusal::StaleEpoch, detail);
            }
            self.begun = Some((hello.boot, attach.epoch));
            let why = if other_peer { SessionEnd::PeerRestarted } else { SessionEnd::Replaced };
            self.end_session(now, why);
            self.incarnation = Some(Incarnation::new(self.config.side, session, key, &hello));
        }
        let Some(incarnation) = &mut self.incarnation else {
            return;
        };
        let last = incarnation.slot_epochs.get(&attach.slot).copied().unwrap_or(0);
        if attach.epoch <= last {
            let detail = format!("epoch {}, last {last}", attach.epoch);
            return self.refuse_carrier(id, Refusal::StaleEpoch, detail);
        }
        incarnation.slot_epochs.insert(attach.slot, attach.epoch);
        self.fence(now, id, attach.slot);
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.slot = attach.slot;
            carrier.outbox.push_back(Frame::AttachOk { session, epoch: attach.epoch });
        }
        self.on_attached(id);
    }

    /// Dialler: the carrier belongs to the session.
    pub(super) fn on_attach_ok(&mut self, now: Instant, id: CarrierId, session: [u8; 16], epoch: u64) {
        let Some(carrier) = self.carriers.get(&id) else {
            return;
        };
        let (State::Attaching { epoch: asked, session: joined }, Some(hello)) = (carrier.state, carrier.hello.clone())
        else {
            return;
        };
        let slot = carrier.slot;
        let (begun, key) = self.keyring.derive(&carrier.binding, &self.config.boot, &hello.boot);
        if joined.unwrap_or(begun) != session || epoch != asked {
            return self.refuse_carrier(id, Refusal::BadProof, "ATTACH_OK names another session".to_owned());
        }
        if joined.is_none() && self.incarnation.is_none() {
            self.incarnation = Some(Incarnation::new(self.config.side, session, key, &hello));
        }
        if self.present_session() != Some(session) {
            // It ended here while the answer was on its way.
            let why = self.last_end.clone().unwrap_or(SessionEnd::ByUs);
            return self.close_carrier(id, CarrierEnd::SessionEnded(why));
        }
        self.fence(now, id, slot);
        self.on_attached(id);
        self.attach_waiting(now);
    }

    pub(super) fn on_attach_refused(&mut self, now: Instant, id: CarrierId, reason: u8, detail: String) {
        let reason = Refusal::from_code(reason);
        let state = self.carriers.get(&id).map(|carrier| carrier.state);
        if reason == Refusal::UnknownSession
            && let Some(State::Attaching { session: Some(forgotten), .. }) = state
        {
            if let Some(carrier) = self.carriers.get_mut(&id) {
                carrier.state = State::Waiting;
            }
            // Another carrier may have heard it first, and have begun the next session, which is not meant.
            if self.present_session() == Some(forgotten) {
                self.end_session(now, SessionEnd::Forgotten);
            }
            self.attach_waiting(now);
        } else {
            self.close_carrier(id, CarrierEnd::RefusedByPeer { reason, detail });
            self.attach_waiting(now);
        }
    }

    pub(super) fn present_session(&self) -> Option<[u8; 16]> {
        self.incarnation.as_ref().map(|incarnation| incarnation.id)
    }

    fn refuse_carrier(&mut self, id: CarrierId, reason: Refusal, detail: String) {
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.outbox.push_back(Frame::AttachRefused { reason: reason.code(), detail: detail.clone() });
        }
        self.wake(id);
        self.close_carrier(id, CarrierEnd::RefusedByUs { reason, detail });
    }

    /// Stops the old carrier of the slot before anything is reported: what it still delivers does not count.
    fn fence(&mut self, now: Instant, id: CarrierId, slot: u8) {
        let old = self
            .carriers
            .iter()
            .find(|(other, carrier)| **other != id && carrier.slot == slot && carrier.state == State::Attached);
        if let Some((&old, _)) = old {
            self.drop_carrier(now, old, CarrierEnd::Fenced);
        }
    }

    /// Whether a younger carrier than `id` belongs to the session.
    fn is_past(&self, id: CarrierId) -> bool {
        self.incarnation.as_ref().is_some_and(|incarnation| id < incarnation.newest)
    }

    fn on_attached(&mut self, id: CarrierId) {
        if let Some(incarnation) = &mut self.incarnation {
            incarnation.newest = incarnation.newest.max(id);
        }
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.state = State::Attached;
            carrier.report_from = Some(0);
            carrier.reported = false;
            if self.draining {
                let detail = "shutting down".to_owned();
                carrier.outbox.push_back(Frame::Goaway { code: Goaway::Draining, detail });
            }
        }
        self.wake(id);
    }

    /// The next reports for a carrier just attached; the shell's pull asks until all are made.
    pub(super) fn next_reports(&self, from: u64, most: usize) -> (Vec<Report>, Option<u64>) {
        let mut reports = Vec::new();
        for (&sid, stream) in self.streams.range(from..) {
            if reports.len() == most {
                return (reports, Some(sid));
            }
            if matches!(stream.phase, Phase::Open) {
                reports.push(Report { sid, recv_off: stream.recv.recv_off(), max_off: stream.recv.max_off() });
            }
        }
        (reports, None)
    }

    pub(super) fn on_resume(
        &mut self,
        now: Instant,
        id: CarrierId,
        last: bool,
        reports: &[Report],
    ) -> Result<(), Violation> {
        for &report in reports {
            self.on_credit(report)?;
        }
        if !last {
            return Ok(());
        }
        let was_up = self.is_up();
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.reported = true;
            carrier.last_pull = now;
        }
        self.measure_way();
        let mut resumed = self.parked_since.take().is_some();
        if let Some(incarnation) = &mut self.incarnation
            && !std::mem::replace(&mut incarnation.established, true)
        {
            resumed = false;
            self.counters.sessions += 1;
        }
        self.events.push_back(Event::Attached(id));
        if !was_up {
            self.counters.resumes += u64::from(resumed);
            self.events.push_back(Event::Up { resumed });
        }
        // What waits on silent carriers need not wait any longer.
        let suspects: Vec<_> =
            self.carriers.iter().filter(|(_, c)| Carrier::carries(c) && !c.is_healthy()).map(|(&id, _)| id).collect();
        suspects.into_iter().for_each(|id| self.unload(id));
        self.schedule_all();
        self.wake(id);
        Ok(())
    }

    /// Resets all streams and forgets the session; carriers that were in it are closed.
    pub(super) fn end_session(&mut self, _now: Instant, why: SessionEnd) {
        let Some(incarnation) = self.incarnation.take() else {
            return;
        };
        self.parked_since = None;
        if matches!(why, SessionEnd::ByUs | SessionEnd::Violation(_) | SessionEnd::Distrusted) {
            self.announce(Goaway::Ended, &why.to_string());
        }
        let attached: Vec<_> =
            self.carriers.iter().filter(|(_, c)| c.state == State::Attached).map(|(&id, _)| id).collect();
        for id in attached {
            if let Some(carrier) = self.carriers.get_mut(&id) {
                carrier.small.clear();
                carrier.bulk.clear();
            }
            self.close_carrier(id, CarrierEnd::SessionEnded(why.clone()));
        }
        let sids: Vec<_> = self.streams.keys().copied().collect();
        for sid in sids {
            if self.streams.get(&sid).is_some_and(|stream| stream.is_live() && !stream.released) {
                self.counters.lost_streams += 1;
            }
            self.rouse(sid);
            self.forget(sid);
        }
        self.ended += 1;
        self.last_end = Some(why.clone());
        self.ctl.clear();
        self.gone.clear();
        self.acks.clear();
        self.ack_at = None;
        self.unused_at = None;
        self.starved.clear();
        self.lingering.clear();
        if incarnation.established {
            self.events.push_back(Event::Ended(why));
        }
    }
}
