//! The session: many streams over several carriers, each of which may die at any time. Pure: it is given frames, commands and
//! the time, and gives frames and events.
//!
//! # How to drive it
//! * Network in: [`Session::carrier_opened`], [`Session::handle_frame`], [`Session::carrier_lost`].
//! * Network out: [`Session::pull`], called by a carrier's writer when its socket can take more, so that what is urgent
//!   overtakes until the last moment. After one that left nothing the carrier sleeps until [`Event::Wake`].
//! * Time: [`Session::poll_timeout`], [`Session::handle_timeout`]; [`Session::poll_nearer`] tells cheaply, after any other call,
//!   whether the timeout has to be looked at again. Times given must not go backwards.
//! * Applications: [`Session::open`], [`Session::accept`], [`Session::write`], [`Session::read`] and their like.
//! * Afterwards, always: [`Session::poll_event`] until `None`.
//!
//! # Rules kept here
//! * Offsets are absolute, so acknowledgement, credit, replay after a loss, striping over carriers and removal of duplicates
//!   are one mechanism: [`frame::Frame::Data`] and [`frame::Frame::Credit`].
//! * What is kept for replay is bounded by the window; there is no second limit that could deadlock with it.
//! * A stream ends by FIN only where the application finished it; everything else is a reset.
//! * An old carrier is fenced before offsets are reported, or bytes would arrive twice.
//! * Nothing the peer sends grows anything without a bound; a peer that breaks a rule loses the session, by name.
//!
//! # States of the session
//! ```text
//!            first carrier attached            last carrier lost
//!   none --------------------------------> up -----------------> parked
//!    ^                                      ^  carrier attached    |  |
//!    |                                      `----------------------'  |
//!    `---- peer restarted, forgot, misbehaved, or `park` expired -----'   all streams reset
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod batch;
mod breadth;
mod bucket;
mod carriers;
mod chunks;
mod demand;
mod error;
pub mod frame;
mod liveness;
mod ranges;
mod receive;
mod recv;
mod resume;
mod schedule;
mod send;
mod shown;
mod streams;
mod window;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

pub use batch::Batch;
pub use error::{CarrierEnd, OpenError, OpenFailure, Refusal, SessionEnd, StreamEnd, Violation};
pub use frame::Side;
pub use shown::{StreamInfo, WaitsFor};
pub use streams::{OpenRefused, Read};

use breadth::Breadth;
use bucket::{Bucket, Patience};
use carriers::Carrier;
use demand::Demand;
use resume::Incarnation;
use streams::Stream;
use window::Budget;

/// Number of carrier slots.
pub const SLOTS: u8 = 16;
/// Carriers to begin with where their number follows the need.
pub const FIRST_CARRIERS: u8 = 2;
/// Pieces of one stream in flight that are told apart: 64 MiB in records of TLS.
pub const PIECES: usize = 4096;
/// Delay of an acknowledgement that is not due by amount. It mostly goes with the answer before that; a shorter delay would have
/// every hundredth round trip of a quick exchange wait for a timer that finds nothing to do.
const ACK_DELAY: Duration = Duration::from_millis(100);
/// How long a stream that nobody reads any more may stay half-open.
const LINGER: Duration = Duration::from_secs(60);
/// How long credit may be of no use before it is given back.
const UNUSED: Duration = Duration::from_secs(10);
/// A timer that comes later than this tells that the process was stopped.
const STOPPED: Duration = Duration::from_secs(1);

/// One carrier, for as long as the process runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CarrierId(pub u64);

/// One stream of this process, never used again: a session that ended leaves no stream behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Number of the session, counted here.
    pub session: u32,
    /// The stream's id on the wire.
    pub sid: u64,
}

/// What the core cannot do itself: keyed digests.
pub trait Keyring: Send + 'static {
    /// Id and resume key of the session that begins on the carrier with `binding`; equal on both sides.
    fn derive(&self, binding: &[u8; 32], dialler_boot: &[u8; 16], listener_boot: &[u8; 16]) -> ([u8; 16], [u8; 32]);
    /// Proof that the holder of `key` attaches the carrier with `binding`.
    fn proof(&self, key: &[u8; 32], binding: &[u8; 32], epoch: u64, slot: u8) -> [u8; 32];
    /// Compares in constant time.
    fn same(&self, a: &[u8; 32], b: &[u8; 32]) -> bool;
}

/// Settings of a session.
#[derive(Debug, Clone)]
pub struct SessionConfig {
    /// Which side this is.
    pub side: Side,
    /// Name of the link, at most 63 bytes.
    pub link: String,
    /// Random number of this process.
    pub boot: [u8; 16],
    /// Streams open at once, both directions together.
    pub streams: usize,
    /// New streams a second that the peer may open here.
    pub opens_per_second: u32,
    /// Bytes of all streams held in memory.
    pub buffered_bytes: u64,
    /// Most pieces of one stream in flight that are told apart, [`PIECES`]; beyond it neighbours are taken for one, which at worst
    /// repeats bytes.
    pub pieces: usize,
    /// How long streams live without any carrier.
    pub park: Duration,
}

/// What the shell has to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// The carrier has something to pull.
    Wake(CarrierId),
    /// Pull what is left, then close the carrier and call [`Session::carrier_lost`].
    Close(CarrierId, CarrierEnd),
    /// The carrier belongs to the session and carries data.
    Attached(CarrierId),
    /// Dialling side: sending, here or at the peer, has use for so many carriers.
    Carriers(u8),
    /// The carrier is silent while something is outstanding; a fresh dial may be quicker.
    Suspect(CarrierId),
    /// The carrier's socket takes nothing for a while: where its TCP has all but ceased to send, call [`Session::rest`].
    Look(CarrierId),
    /// A carrier is attached where none was.
    Up {
        /// Whether streams of before live on.
        resumed: bool,
    },
    /// The last carrier was lost; streams wait.
    Parked,
    /// The session ended and its streams were reset.
    Ended(SessionEnd),
    /// The peer takes no new streams.
    PeerDraining,
    /// The peer asks for a stream; answer by [`Session::accept`] or [`Session::refuse`].
    Offered {
        /// The stream.
        id: StreamId,
        /// Host to dial.
        host: String,
        /// Port to dial.
        port: u16,
    },
    /// The peer answered [`Session::open`]; see [`Session::opened`].
    Answered(StreamId),
    /// A read that gave [`Read::Blocked`] has something now, or the stream was cut.
    Readable(StreamId),
    /// A write that had no room has some now, or the stream was cut.
    Writable(StreamId),
    /// A stream that [`Session::watch_cut`] was asked about was cut.
    Cut(StreamId),
}

/// Sums since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Payload received, duplicates left out.
    pub bytes_in: u64,
    /// Payload sent, repetitions left out.
    pub bytes_out: u64,
    /// Payload sent again: after a loss, or because the carrier that has it does not go on.
    pub replayed_bytes: u64,
    /// Payload received that was held already.
    pub duplicate_bytes: u64,
    /// Sessions taken up again after all carriers were lost.
    pub resumes: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Streams opened by this side.
    pub opened: u64,
    /// Streams opened by the peer.
    pub accepted: u64,
    /// Streams cut by the loss of a session.
    pub lost_streams: u64,
    /// Streams cut because their peer used credit that it had given back, and more was held than the budget allows.
    pub overdrawn: u64,
}

/// State of one carrier, for status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CarrierInfo {
    /// The carrier.
    pub id: CarrierId,
    /// Its slot.
    pub slot: u8,
    /// Whether it carries data.
    pub attached: bool,
    /// Whether it is silent.
    pub suspect: bool,
    /// Smoothed round trip.
    pub rtt: Option<Duration>,
}

/// The pure core of one endpoint; see the [module](self).
pub struct Session {
    config: SessionConfig,
    keyring: Box<dyn Keyring>,
    carriers: BTreeMap<CarrierId, Carrier>,
    next_carrier: u64,
    incarnation: Option<Incarnation>,
    /// Dialler: the epoch used last, over all sessions.
    epoch: u64,
    /// Listener: who began the last session, with which epoch.
    begun: Option<([u8; 16], u64)>,
    parked_since: Option<Instant>,
    draining: bool,
    /// Sessions that ended; the present one's number.
    ended: u32,
    /// Why the last of them ended.
    last_end: Option<SessionEnd>,
    streams: BTreeMap<u64, Box<Stream>>,
    budget: Budget,
    /// Runs out of order, of all streams.
    runs: usize,
    /// Streams with control frames due.
    ctl: VecDeque<u64>,
    /// Streams that the peer must be told are gone.
    gone: BTreeSet<u64>,
    /// Streams whose acknowledgement is delayed, until then.
    acks: BTreeSet<u64>,
    ack_at: Option<Instant>,
    /// Streams that wait for room in the budget.
    starved: VecDeque<u64>,
    /// When credit that was of no use is given back next.
    unused_at: Option<Instant>,
    /// Released streams that wait for the peer's end.
    lingering: VecDeque<(Instant, u64)>,
    opens: Bucket,
    patience: Patience,
    events: VecDeque<Event>,
    demand: Demand,
    breadth: Breadth,
    /// Carriers asked for by either side, at most so far.
    wanted: u8,
    counters: Counters,
    /// The timeout announced last.
    armed: Option<Instant>,
    /// Something is due before that.
    nearer: bool,
    /// Shortest round trip of the attached carriers.
    way: Duration,
}

impl Session {
    /// A session that no carrier has reached yet.
    #[must_use]
    pub fn new(config: SessionConfig, keyring: Box<dyn Keyring>) -> Self {
        let opens = Bucket::new(config.opens_per_second, config.opens_per_second);
        let patience = Patience::new(config.streams, config.opens_per_second);
        Self {
            budget: Budget::new(config.buffered_bytes, config.streams),
            runs: 0,
            config,
            keyring,
            carriers: BTreeMap::new(),
            next_carrier: 1,
            incarnation: None,
            epoch: 0,
            begun: None,
            parked_since: None,
            draining: false,
            ended: 0,
            last_end: None,
            streams: BTreeMap::new(),
            ctl: VecDeque::new(),
            gone: BTreeSet::new(),
            acks: BTreeSet::new(),
            ack_at: None,
            starved: VecDeque::new(),
            unused_at: None,
            lingering: VecDeque::new(),
            opens,
            patience,
            events: VecDeque::new(),
            demand: Demand::new(),
            breadth: Breadth::new(),
            wanted: FIRST_CARRIERS,
            counters: Counters::default(),
            armed: None,
            nearer: false,
            way: Duration::ZERO,
        }
    }

    /// What happened; call until `None` after every other call.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Whether a carrier is attached, so that streams can be opened.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.carriers.values().any(Carrier::carries)
    }

    /// Since when the session has no carrier; `None` while it is up and where there is none.
    #[must_use]
    pub const fn parked_since(&self) -> Option<Instant> {
        self.parked_since
    }

    /// Whether there is a session, up or parked.
    #[must_use]
    pub const fn has_session(&self) -> bool {
        self.incarnation.is_some()
    }

    /// Streams that are open or being opened, ended ones that their application still holds included.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }

    /// Sums for status.
    #[must_use]
    pub const fn counters(&self) -> Counters {
        self.counters
    }

    /// Bytes held for applications and for replay: received and not read, written and not acknowledged.
    #[must_use]
    pub const fn buffered(&self) -> (u64, u64) {
        (self.budget.received, self.budget.sent)
    }

    /// The carriers, for status.
    pub fn carriers(&self) -> impl Iterator<Item = CarrierInfo> + '_ {
        self.carriers.iter().map(|(&id, carrier)| carrier.info(id))
    }

    /// Smoothed round trip of one carrier; `None` until it was measured.
    #[must_use]
    pub fn carrier_rtt(&self, id: CarrierId) -> Option<Duration> {
        self.carriers.get(&id)?.live.rtt()
    }

    /// The public name of a stream of the present session.
    const fn name(&self, sid: u64) -> StreamId {
        StreamId { session: self.ended, sid }
    }

    /// The wire's id of a stream, if its session is the present one.
    fn present(&self, id: StreamId) -> Result<u64, StreamEnd> {
        if id.session == self.ended {
            return Ok(id.sid);
        }
        Err(StreamEnd::SessionLost(self.last_end.clone().unwrap_or(SessionEnd::ByUs)))
    }

    /// Shortest round trip of the attached carriers: how long the way is, whatever waits on it now.
    fn way(&self) -> Duration {
        debug_assert_eq!(self.way, self.shortest());
        self.way
    }

    /// What [`Self::way`] is, after a carrier came, went or was measured.
    fn measure_way(&mut self) {
        self.way = self.shortest();
    }

    fn shortest(&self) -> Duration {
        self.carriers.values().filter(|c| c.carries()).filter_map(|c| c.live.shortest()).min().unwrap_or_default()
    }

    /// Takes no new streams from now on and tells the peer.
    pub fn drain(&mut self) {
        if !std::mem::replace(&mut self.draining, true) {
            self.announce(frame::Goaway::Draining, "shutting down");
        }
    }

    /// Ends the session: streams are reset, carriers closed after what tells the peer.
    pub fn end(&mut self, now: Instant) {
        self.draining = true;
        self.end_session(now, SessionEnd::ByUs);
        let left: Vec<_> = self.carriers.keys().copied().collect();
        for id in left {
            self.close_carrier(id, CarrierEnd::SessionEnded(SessionEnd::ByUs));
        }
    }

    /// Closes a carrier whose peer is no longer trusted; what it carried goes over the others.
    pub fn distrust(&mut self, now: Instant, id: CarrierId) {
        match self.carriers.get(&id).map(|carrier| carrier.state) {
            Some(carriers::State::Attached) => self.drop_carrier(now, id, CarrierEnd::Distrusted),
            Some(_) => self.close_carrier(id, CarrierEnd::Distrusted),
            None => {}
        }
    }

    /// Ends the session of a peer that is no longer trusted, and tells it so: its streams are reset, and nobody can take the
    /// session up again. A new one may begin.
    pub fn disown(&mut self, now: Instant) {
        self.end_session(now, SessionEnd::Distrusted);
    }

    /// The next moment at which [`Session::handle_timeout`] has something to do, and what.
    pub fn poll_timeout(&mut self) -> Option<(Instant, &'static str)> {
        let carriers = self.carriers.values().filter_map(Carrier::timeout);
        let next = carriers
            .chain(self.ack_at.map(|at| (at, "acknowledge")))
            .chain(self.parked_since.map(|at| (at + self.config.park, "park expired")))
            .chain(self.unused_at.map(|at| (at, "give credit back")))
            .chain(self.lingering.front().map(|&(at, _)| (at, "linger")))
            .min_by_key(|&(at, _)| at);
        debug_assert!(
            self.nearer || next.is_none_or(|(at, _)| self.armed.is_some_and(|armed| armed <= at)),
            "due before {:?} and nobody was told: {next:?}",
            self.armed
        );
        self.armed = next.map(|(at, _)| at);
        self.nearer = false;
        next
    }

    /// Whether the timeout is nearer than the one told last, by this or by [`Self::poll_timeout`].
    pub fn poll_nearer(&mut self) -> bool {
        let told = self.armed;
        self.nearer && self.poll_timeout().is_some_and(|(at, _)| told.is_none_or(|told| at < told))
    }

    /// Something is due at `at`.
    fn due_at(&mut self, at: Instant) {
        self.nearer |= self.armed.is_none_or(|armed| at < armed);
    }

    /// Credit is given back after a while without use.
    fn expect_unused(&mut self, now: Instant) {
        if self.unused_at.is_none() {
            self.unused_at = Some(now + UNUSED);
            self.due_at(now + UNUSED);
        }
    }

    /// Gives back what streams' peers permit and streams had no use for. Others can use it: the peer's budget is shared.
    fn give_credit_back(&mut self, now: Instant) {
        self.unused_at = None;
        let Some(floor) = self.incarnation.as_ref().map(|incarnation| u64::from(incarnation.peer_early)) else {
            return;
        };
        let mut given = Vec::new();
        for (&sid, stream) in &mut self.streams {
            if matches!(stream.phase, streams::Phase::Open) && stream.send.give_back(floor).is_some() {
                given.push(sid);
            }
        }
        for sid in given {
            self.flag(sid, |ctl| &mut ctl.give_back);
        }
        if !self.streams.is_empty() {
            self.unused_at = Some(now + UNUSED);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.nearer = true;
        if self.armed.is_some_and(|at| now.saturating_duration_since(at) > STOPPED) {
            self.carriers.values_mut().for_each(|carrier| carrier.live.forgive(now));
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack_at = None;
            for sid in std::mem::take(&mut self.acks) {
                self.flag(sid, |ctl| &mut ctl.credit);
            }
        }
        if self.unused_at.is_some_and(|at| at <= now) {
            self.give_credit_back(now);
        }
        if self.parked_since.is_some_and(|at| at + self.config.park <= now) {
            self.end_session(now, SessionEnd::ParkExpired(self.config.park));
        }
        while let Some(&(at, sid)) = self.lingering.front()
            && at <= now
        {
            self.lingering.pop_front();
            if self.streams.get(&sid).is_some_and(|stream| stream.released) {
                self.cut(sid, 0);
            }
        }
        self.handle_carrier_timeouts(now);
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("link", &self.config.link)
            .field("side", &self.config.side)
            .field("carriers", &self.carriers.len())
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}
