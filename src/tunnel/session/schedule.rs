//! Who may send next. Control overtakes small streams, small streams overtake bulk, bulk streams share by bytes.
//!
//! A stream with data stands in the queue of one carrier, its home, so that its bytes mostly arrive in order. A carrier that
//! has nothing left helps one that is stuck in its socket: that stripes a stream which one carrier cannot carry. On a long way
//! no carrier waits for that: whoever can write takes of the bulk, for there the carriers together are the window. One of them
//! is kept free of bulk then, so that what is small never waits in a socket, and so that its round trip is the way's own.

use std::time::{Duration, Instant};

use super::batch::Batch;
use super::carriers::{Carrier, State};
use super::demand::LONG_WAY;
use super::frame::{Frame, MAX_REPORTS, Report};
use super::streams::{Ctl, Phase};
use super::{CarrierId, Session};

/// Bytes that a stream may send in one go and still count as small.
const SMALL_BURST: u64 = 64 * 1024;
/// Bytes of a bulk stream's turn.
const TURN: i64 = 64 * 1024;
/// What is left of a turn below this is kept for the next one.
const CRUMB: i64 = 1024;
/// A batch may exceed its size by this, rather than end with a crumb.
const MIN_PIECE: usize = 1024;
/// Carriers from which on one of them is kept free of bulk on a long way.
const EXPRESS_OF: usize = 3;
/// Pause between questions for the length of the way's queue, at least.
const PROBE: Duration = Duration::from_millis(200);
/// How long a socket may take nothing before it is asked why.
pub(super) const LOOK_AFTER: Duration = Duration::from_millis(20);
/// A carrier is stuck when it has not pulled for so long although it has data.
const STUCK_AFTER: Duration = Duration::from_millis(2);

impl Session {
    /// Marks a control frame of a stream as due; several of a kind are one.
    pub(super) fn flag(&mut self, sid: u64, which: impl FnOnce(&mut Ctl) -> &mut bool) {
        if let Some(stream) = self.streams.get_mut(&sid) {
            *which(&mut stream.ctl) = true;
            if !std::mem::replace(&mut stream.ctl_queued, true) {
                self.ctl.push_back(sid);
            }
            self.wake_any();
        }
    }

    /// Has the carrier pulled if it sleeps.
    pub(super) fn wake(&mut self, id: CarrierId) {
        if let Some(carrier) = self.carriers.get_mut(&id)
            && std::mem::take(&mut carrier.idle)
        {
            carrier.woken = true;
            self.events.push_back(super::Event::Wake(id));
        }
    }

    /// On a long way, the carrier that takes no bulk: the healthy one of the lowest slot, where there are enough.
    pub(super) fn express(&self) -> Option<CarrierId> {
        if self.carriers.len() < EXPRESS_OF || !self.stripes() {
            return None;
        }
        let healthy = || self.carriers.iter().filter(|(_, carrier)| carrier.is_healthy());
        let first = healthy().min_by_key(|(_, carrier)| carrier.slot).map(|(&id, _)| id);
        first.filter(|_| healthy().count() >= EXPRESS_OF)
    }

    /// Carriers that take bulk now: on a long way the healthy ones of the lowest slots but the one kept free, as many as fill it.
    /// `None` for all of them.
    fn chosen(&self, express: Option<CarrierId>) -> Option<Vec<CarrierId>> {
        let most = self.breadth.most();
        let express = express.filter(|_| most < usize::from(super::SLOTS))?;
        let mut healthy: Vec<_> =
            self.carriers.iter().filter(|(id, c)| c.takes() && **id != express).map(|(&id, c)| (c.slot, id)).collect();
        healthy.sort_unstable_by_key(|&(slot, id)| (slot, id.0));
        Some(healthy.into_iter().take(most).map(|(_, id)| id).collect())
    }

    /// The carrier without bulk was asked how long the way takes now.
    pub(super) fn judge_queue(&mut self, now: Instant, took: Duration) {
        let there = self.carriers.values().filter(|carrier| carrier.is_healthy()).count().saturating_sub(1);
        let used = there.min(self.breadth.most());
        if self.breadth.on_rtt(now, took, self.way(), used, there) {
            self.schedule_all();
        }
    }

    /// Has some healthy carrier pull, unless one is about to anyway.
    pub(super) fn wake_any(&mut self) {
        if let Some(express) = self.express() {
            return self.wake(express);
        }
        let healthy_exists = self.carriers.values().any(Carrier::is_healthy);
        let mut sleeper = None;
        for (&id, carrier) in &self.carriers {
            if if healthy_exists { carrier.is_healthy() } else { carrier.carries() } {
                if carrier.woken {
                    return;
                }
                if carrier.idle {
                    sleeper = sleeper.or(Some(id));
                }
            }
        }
        if let Some(id) = sleeper {
            self.wake(id);
        }
    }

    /// Puts a stream that has data into a carrier's queue.
    pub(super) fn schedule(&mut self, sid: u64) {
        let express = self.express();
        let chosen = self.chosen(express);
        let Some(stream) = self.streams.get_mut(&sid) else {
            return;
        };
        if stream.queued || !stream.is_sendable() {
            return;
        }
        let takes_bulk = |id: CarrierId| chosen.as_ref().is_none_or(|chosen| chosen.contains(&id));
        let opening = matches!(stream.phase, Phase::Opening { .. });
        let small = stream.send.burst < SMALL_BURST;
        let usable = |id: &CarrierId| {
            self.carriers.get(id).is_some_and(|c| c.takes() || (opening && c.carries()))
                && (opening || express.is_none_or(|express| small == (express == *id)))
                && (opening || small || takes_bulk(*id))
        };
        let home = stream.home.filter(usable).or_else(|| {
            if opening {
                return None;
            }
            if small && express.is_some() {
                return express;
            }
            let bulk = |id: CarrierId| Some(id) != express && (small || takes_bulk(id));
            let healthy = self.carriers.iter().filter(|(id, carrier)| carrier.takes() && bulk(**id));
            let any = || self.carriers.iter().filter(|(_, carrier)| carrier.carries());
            let least =
                |(_, carrier): &(&CarrierId, &Carrier)| (carrier.small.len() + carrier.bulk.len(), !carrier.idle);
            healthy.min_by_key(least).or_else(|| any().min_by_key(least)).map(|(&id, _)| id)
        });
        let Some(home) = home else {
            return;
        };
        stream.home = Some(home);
        stream.queued = true;
        if let Some(carrier) = self.carriers.get_mut(&home) {
            if small { carrier.small.push_back(sid) } else { carrier.bulk.push_back(sid) }
        }
        self.wake(home);
    }

    /// After a carrier became able to carry.
    pub(super) fn schedule_all(&mut self) {
        let sids: Vec<_> = self.streams.keys().copied().collect();
        for sid in sids {
            self.schedule(sid);
        }
        self.wake_any();
    }

    /// Whether bulk goes over all carriers alike.
    fn stripes(&self) -> bool {
        self.way() >= LONG_WAY
    }

    /// Wakes a helper when a stream's home is stuck, or has enough to do.
    pub(super) fn share_backlog(&mut self, now: Instant, sid: u64) {
        let home = self.streams.get(&sid).filter(|stream| stream.queued).and_then(|stream| stream.home);
        let (stripes, express) = (self.stripes(), self.express());
        let needed =
            |carrier: &Carrier| is_stuck(carrier, now) || (stripes && !carrier.idle && !carrier.bulk.is_empty());
        if home.and_then(|home| self.carriers.get(&home)).is_some_and(needed) {
            let chosen = self.chosen(express);
            let takes_bulk = |id: &CarrierId| chosen.as_ref().is_none_or(|chosen| chosen.contains(id));
            let free =
                |(id, c): &(&CarrierId, &Carrier)| c.idle && c.takes() && Some(**id) != express && takes_bulk(id);
            let helper = self.carriers.iter().find(free).map(|(&id, _)| id);
            if let Some(helper) = helper {
                self.wake(helper);
            }
        }
    }

    /// Fills `batch` with up to about `most` bytes for the carrier, most urgent first. False when there is no more: then the carrier
    /// pulls again after [`super::Event::Wake`]; one whose socket does not take the batch at once says so by [`Self::stalled`], and
    /// pulls after it did.
    pub fn pull(&mut self, now: Instant, id: CarrierId, most: usize, batch: &mut Batch) -> bool {
        let Some(carrier) = self.carriers.get_mut(&id) else {
            return false;
        };
        let waited = carrier.filled && now.saturating_duration_since(carrier.last_pull) >= STUCK_AFTER;
        carrier.filled = false;
        carrier.last_pull = now;
        carrier.woken = false;
        carrier.resting = false;
        carrier.look_at = None;
        while let Some(frame) = carrier.outbox.pop_front() {
            batch.push(&frame);
        }
        if carrier.state == State::Attached {
            self.pull_reports(id, most, batch);
        }
        let helpful = self.carriers.values().any(Carrier::is_healthy);
        let allowed =
            self.carriers.get(&id).is_some_and(|carrier| carrier.is_healthy() || (carrier.carries() && !helpful));
        if allowed {
            self.pull_control(id, most, batch);
            let before = batch.len();
            self.pull_data(now, id, most, batch);
            if batch.len() > before
                && let Some(carrier) = self.carriers.get_mut(&id)
                && let Some(at) = carrier.live.on_data(now, true)
            {
                self.due_at(at);
            }
            if batch.len() > before {
                self.weigh(now, id, batch.len() >= most, waited);
                self.probe_queue(now);
            }
        }
        let stripes = self.stripes();
        let left = !self.ctl.is_empty() || !self.gone.is_empty();
        if let Some(carrier) = self.carriers.get_mut(&id) {
            let left = left || !carrier.outbox.is_empty() || !carrier.small.is_empty() || !carrier.bulk.is_empty();
            carrier.idle = batch.is_empty() || (batch.len() < most && !left);
            carrier.filled = batch.len() >= most;
            let more = !carrier.idle;
            if more && stripes {
                carrier.look_at = Some(now + LOOK_AFTER);
                self.due_at(now + LOOK_AFTER);
            }
            return more;
        }
        false
    }

    /// The carrier's socket did not take what was pulled: it is of no use to others until it pulls again. On a long way the shell is
    /// asked by [`super::Event::Look`] to see why, when that lasts.
    pub fn stalled(&mut self, now: Instant, id: CarrierId) {
        let stripes = self.stripes();
        if let Some(carrier) = self.carriers.get_mut(&id) {
            carrier.idle = false;
            if stripes && carrier.look_at.is_none() {
                carrier.look_at = Some(now + LOOK_AFTER);
                self.due_at(now + LOOK_AFTER);
            }
        }
    }

    /// The carrier's TCP has all but ceased to send, and its last `stuck` bytes wait before it: BBR does so every ten seconds to
    /// measure the way, any TCP does after a loss that nothing answered. What is stuck goes over others too, so that nothing
    /// waits for it at the peer, and the carrier gets no more before its socket takes some.
    pub fn rest(&mut self, id: CarrierId, stuck: u64) {
        let other = |(other, carrier): (&CarrierId, &Carrier)| *other != id && carrier.takes();
        if !self.carriers.iter().any(other) {
            return;
        }
        let Some(carrier) = self.carriers.get_mut(&id).filter(|carrier| carrier.takes()) else {
            return;
        };
        carrier.resting = true;
        let after = carrier.given.saturating_sub(stuck);
        let waiting: Vec<_> = carrier.small.drain(..).chain(carrier.bulk.drain(..)).collect();
        for sid in waiting {
            if let Some(stream) = self.streams.get_mut(&sid) {
                stream.queued = false;
                if matches!(stream.phase, Phase::Open) {
                    stream.home = None;
                }
                // What is not answered stays behind its OPEN.
                self.schedule(sid);
            }
        }
        let sids: Vec<_> =
            self.streams.iter().filter(|(_, one)| matches!(one.phase, Phase::Open)).map(|(&sid, _)| sid).collect();
        for sid in sids {
            if self.streams.get_mut(&sid).is_some_and(|stream| stream.send.repeat(id, after)) {
                self.schedule(sid);
            }
        }
    }

    /// Whether the carriers are what limits, and how many more to ask for.
    fn weigh(&mut self, now: Instant, id: CarrierId, filled: bool, waited: bool) {
        let healthy = self.carriers.values().filter(|carrier| carrier.is_healthy()).count();
        let express = self.express().and_then(|id| self.carrier_rtt(id));
        if !self.demand.on_pull(now, (filled, waited), self.way(), express, healthy) {
            return;
        }
        let carriers = self.demand.want();
        if usize::from(carriers) > healthy && healthy.saturating_sub(1) <= self.breadth.most() {
            match self.config.side {
                super::Side::Dialler => self.on_wanted(carriers),
                super::Side::Listener => {
                    if let Some(carrier) = self.carriers.get_mut(&id) {
                        carrier.outbox.push_back(Frame::Want { carriers });
                    }
                }
            }
        }
    }

    /// While bulk flows on a long way: how long is the queue?
    fn probe_queue(&mut self, now: Instant) {
        let pause = self.way().max(PROBE);
        if let Some(express) = self.express()
            && let Some(carrier) = self.carriers.get_mut(&express)
        {
            self.nearer |= carrier.live.probe(now, pause);
        }
    }

    fn pull_reports(&mut self, id: CarrierId, most: usize, batch: &mut Batch) {
        while batch.len() < most
            && let Some(from) = self.carriers.get(&id).and_then(|carrier| carrier.report_from)
        {
            let (reports, next) = self.next_reports(from, MAX_REPORTS);
            batch.push(&Frame::Resume { last: next.is_none(), reports });
            if let Some(carrier) = self.carriers.get_mut(&id) {
                carrier.report_from = next;
            }
        }
    }

    fn pull_control(&mut self, id: CarrierId, most: usize, batch: &mut Batch) {
        while batch.len() < most
            && let Some(sid) = self.gone.pop_first()
        {
            batch.push(&Frame::Gone { sid });
            if let Some(carrier) = self.carriers.get_mut(&id)
                && carrier.on_told_gone(sid)
            {
                self.nearer = true;
            }
        }
        while batch.len() < most
            && let Some(sid) = self.ctl.pop_front()
        {
            self.push_control(id, sid, batch);
        }
    }

    fn push_control(&mut self, id: CarrierId, sid: u64, batch: &mut Batch) {
        let Some(stream) = self.streams.get_mut(&sid) else {
            return;
        };
        stream.ctl_queued = false;
        let ctl = std::mem::take(&mut stream.ctl);
        let max_off = stream.recv.max_off();
        match &stream.phase {
            Phase::Opening { host, port } => {
                if ctl.open {
                    batch.push(&Frame::Open { sid, max_off, port: *port, host: host.clone() });
                    stream.home = Some(id);
                    self.schedule(sid);
                } else if ctl.credit {
                    self.push_credit(sid, batch);
                }
            }
            Phase::Open => {
                if ctl.answer && !stream.mine {
                    batch.push(&Frame::OpenOk { sid, max_off });
                }
                if ctl.give_back {
                    batch.push(&Frame::Return { sid, max_off: stream.send.max_off() });
                }
                if ctl.credit {
                    self.push_credit(sid, batch);
                }
            }
            Phase::Offered if ctl.credit => self.push_credit(sid, batch),
            Phase::Refused(failure) if ctl.answer => {
                let (code, value, detail) = (failure.code, failure.value, failure.detail.clone());
                batch.push(&Frame::OpenErr { sid, code, value, detail });
            }
            Phase::Resetting(code) if ctl.reset => {
                batch.push(&Frame::Reset { sid, code: *code, final_off: stream.send.sent() });
            }
            _ => {}
        }
    }

    fn push_credit(&mut self, sid: u64, batch: &mut Batch) {
        if let Some(stream) = self.streams.get_mut(&sid) {
            stream.told = stream.recv.recv_off();
            batch.push(&Frame::Credit(Report { sid, recv_off: stream.told, max_off: stream.recv.max_off() }));
            self.acks.remove(&sid);
        }
    }

    fn pull_data(&mut self, now: Instant, id: CarrierId, most: usize, batch: &mut Batch) {
        let express = self.express();
        let bulk = express != Some(id) && self.chosen(express).is_none_or(|chosen| chosen.contains(&id));
        // Small streams may take three quarters of what is left while bulk waits: bulk never starves.
        let small_until = batch.len() + most.saturating_sub(batch.len()) / 4 * 3;
        while batch.len() < most {
            let Some(carrier) = self.carriers.get_mut(&id) else {
                return;
            };
            if carrier.small.is_empty() && !bulk && express != Some(id) {
                // What waits here is others' work now.
                for sid in std::mem::take(&mut carrier.bulk) {
                    if let Some(stream) = self.streams.get_mut(&sid) {
                        stream.queued = false;
                    }
                    self.schedule(sid);
                }
                break;
            }
            let small = !carrier.small.is_empty() && (batch.len() < small_until || carrier.bulk.is_empty() || !bulk);
            let Some(&sid) = (if small { &carrier.small } else { &carrier.bulk }).front() else {
                break;
            };
            let more = self.push_piece(id, sid, most, batch);
            let Some(carrier) = self.carriers.get_mut(&id) else {
                return;
            };
            let queue = if small { &mut carrier.small } else { &mut carrier.bulk };
            match more {
                More::SameTurn => {}
                More::NextTurn if express == Some(id) => {
                    // It has become bulk, which is others' work.
                    queue.pop_front();
                    if let Some(stream) = self.streams.get_mut(&sid) {
                        stream.queued = false;
                    }
                    self.schedule(sid);
                }
                More::NextTurn => {
                    queue.pop_front();
                    carrier.bulk.push_back(sid);
                }
                More::No => {
                    queue.pop_front();
                    if let Some(stream) = self.streams.get_mut(&sid) {
                        stream.queued = false;
                    }
                }
            }
        }
        let stripes = self.stripes();
        if bulk && (batch.is_empty() || (stripes && batch.len() < most)) {
            self.help(now, id, most, stripes, batch);
        }
    }

    /// One piece of the stream's turn into the batch.
    fn push_piece(&mut self, id: CarrierId, sid: u64, most: usize, batch: &mut Batch) -> More {
        let Some(stream) = self.streams.get(&sid) else {
            return More::No;
        };
        if !stream.is_sendable() {
            return More::No;
        }
        if stream.send.burst < SMALL_BURST && self.acks.contains(&sid) {
            // An answer carries the acknowledgement of what it answers, which else wakes both ends once more.
            self.push_credit(sid, batch);
        }
        let (Some(stream), Some(carrier)) = (self.streams.get_mut(&sid), self.carriers.get_mut(&id)) else {
            return More::No;
        };
        if stream.turn < CRUMB {
            stream.turn += TURN;
        }
        let room = batch.data_room().min(most.saturating_sub(batch.len()).max(MIN_PIECE));
        let Some(piece) = stream.send.take(id, carrier.given, room) else {
            return More::No;
        };
        carrier.given += piece.len as u64;
        stream.turn -= i64::try_from(piece.len).unwrap_or(TURN);
        if piece.again {
            self.counters.replayed_bytes += piece.len as u64;
        } else {
            self.counters.bytes_out += piece.len as u64;
        }
        batch.push_data(sid, piece.offset, piece.fin, piece.len);
        stream.send.slices(piece, |bytes| batch.payload(bytes));
        if !stream.is_sendable() {
            stream.send.burst = 0;
            stream.turn = 0;
            More::No
        } else if stream.turn < CRUMB {
            More::NextTurn
        } else {
            More::SameTurn
        }
    }

    /// Takes from the fullest carrier that is stuck; with `stripes`, of any other's bulk.
    fn help(&mut self, now: Instant, id: CarrierId, most: usize, stripes: bool, batch: &mut Batch) {
        let helped = self
            .carriers
            .iter()
            .filter(|(other, carrier)| {
                **other != id && (is_stuck(carrier, now) || (stripes && carrier.carries() && !carrier.bulk.is_empty()))
            })
            .max_by_key(|(_, carrier)| carrier.small.len() + carrier.bulk.len());
        let Some((&other, carrier)) = helped else {
            return;
        };
        let small = if is_stuck(carrier, now) { carrier.small.len() } else { 0 };
        let sids: Vec<_> = carrier.small.iter().take(small).chain(&carrier.bulk).copied().take(16).collect();
        for sid in sids {
            // Data of a stream that is not answered stays behind its OPEN.
            let movable = self.streams.get(&sid).is_some_and(|stream| matches!(stream.phase, Phase::Open));
            while movable && batch.len() < most {
                if let More::No = self.push_piece(id, sid, most, batch) {
                    if let Some(carrier) = self.carriers.get_mut(&other) {
                        carrier.small.retain(|&queued| queued != sid);
                        carrier.bulk.retain(|&queued| queued != sid);
                    }
                    if let Some(stream) = self.streams.get_mut(&sid) {
                        stream.queued = false;
                    }
                    break;
                }
            }
        }
    }
}

/// Whether a stream has more to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    No,
    /// Its turn goes on.
    SameTurn,
    /// Behind the others.
    NextTurn,
}

fn is_stuck(carrier: &Carrier, now: Instant) -> bool {
    let has_data = !carrier.small.is_empty() || !carrier.bulk.is_empty();
    has_data && !carrier.idle && now.saturating_duration_since(carrier.last_pull) >= STUCK_AFTER
}
