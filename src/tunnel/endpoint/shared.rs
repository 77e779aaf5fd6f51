//! One session behind a lock, and who waits for it.
//!
//! The lock is never held across a system call or an await. Whoever changed the session drains its events under the same lock
//! and acts on them after releasing it, so that nobody is woken into a lock that is held.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, info, warn};

use super::carrier_task::PULL;
use super::failure;
use super::handle::{CarrierHandle, Phase};
use super::offer::Offered;
use super::status::{CarrierStatus, MOST_SHOWN, Record, TunnelState, TunnelStatus};
use crate::config::Congestion;
use crate::net::{DialError, HostPort, tcp_info};
use crate::tunnel::Offer;
use crate::tunnel::carrier::{AcceptKeys, AcceptStatusReader, Trust};
use crate::tunnel::session::{CarrierEnd, CarrierId, Event, OpenFailure, Session, StreamId};

/// From this round trip on a lost packet costs a loss-based congestion control more than BBR's pacing costs the processor.
const LONG_WAY: Duration = Duration::from_millis(10);

/// Segments of a congestion window with which TCP sends next to nothing: BBR's while it measures the way, and those after a timeout.
const RESTING: u64 = 4;

/// How much wider the window of another carrier must be then.
const WIDER: u64 = 8;

/// The time as the session is told it; follows tokio's clock, so that tests can pause it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// One session and everybody around it.
pub(crate) struct Shared {
    state: Mutex<State>,
    /// The next deadline came nearer.
    pub(super) timer: Notify,
    /// The last stream is gone.
    finished: Notify,
    changed: watch::Sender<TunnelState>,
    /// Dialling side: carriers that sending has use for.
    pub(super) wanted: watch::Sender<u8>,
    offers: mpsc::Sender<Box<dyn Offer>>,
    pub(super) names: Names,
    pub(super) congestion: Congestion,
    /// It was said that the kernel lacks it: once is enough, carriers come and go.
    without_congestion: AtomicBool,
    /// Listening side, once bound.
    pub(super) accept: OnceLock<(AcceptStatusReader, AcceptKeys)>,
}

/// What does not change.
#[derive(Debug, Clone)]
pub(super) struct Names {
    pub(super) link: String,
    pub(super) role: &'static str,
    pub(super) transport: &'static str,
}

/// What the lock guards.
pub(crate) struct State {
    pub(crate) session: Session,
    waiting: HashMap<StreamId, Waiting>,
    carriers: HashMap<CarrierId, Arc<CarrierHandle>>,
    pub(super) record: Record,
    /// What peers must have proved; none while it is what they were let in by.
    trust: Option<Trust>,
}

/// Who waits on one stream.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    pub(crate) read: Option<Reader>,
    pub(crate) write: Option<Waker>,
    pub(crate) answer: Option<Waker>,
    pub(crate) cut: Option<Waker>,
}

/// What is done after the lock is released.
#[derive(Default)]
struct Afterwards {
    wakers: Vec<Waker>,
    carriers: Vec<Arc<CarrierHandle>>,
    look: Vec<(CarrierId, (SocketAddr, SocketAddr))>,
    offers: Vec<(StreamId, String, u16)>,
    timer: bool,
    finished: bool,
    state: Option<TunnelState>,
    wanted: Option<u8>,
}

/// A task that waits for something to read.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) waker: Waker,
    /// Set before it is woken: a task that was woken for something else sees by it that there is still nothing.
    pub(crate) readable: Arc<AtomicBool>,
}

impl Reader {
    fn woken(self) -> Waker {
        self.readable.store(true, Ordering::Release);
        self.waker
    }
}

impl Shared {
    pub(super) fn new(
        session: Session,
        offers: mpsc::Sender<Box<dyn Offer>>,
        names: Names,
        congestion: Congestion,
    ) -> Arc<Self> {
        let state = State {
            session,
            waiting: HashMap::new(),
            carriers: HashMap::new(),
            record: Record::new(now()),
            trust: None,
        };
        Arc::new(Self {
            state: Mutex::new(state),
            timer: Notify::new(),
            finished: Notify::new(),
            changed: watch::Sender::new(TunnelState::Never),
            wanted: watch::Sender::new(0),
            offers,
            names,
            congestion,
            without_congestion: AtomicBool::new(false),
            accept: OnceLock::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The session is consistent between its calls; a panic elsewhere does not end every stream of the process.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works on the session, then does what follows from it.
    pub(crate) fn with<R>(self: &Arc<Self>, work: impl FnOnce(&mut State, Instant) -> R) -> R {
        let mut after = Afterwards::default();
        let result = {
            let mut guard = self.lock();
            let state = &mut *guard;
            let now = now();
            let result = work(state, now);
            state.drain_events(now, &mut after, &self.names);
            after.finished = state.session.streams() == 0;
            after.timer = state.session.poll_nearer();
            result
        };
        self.follow(after);
        result
    }

    fn follow(self: &Arc<Self>, after: Afterwards) {
        if let Some(state) = after.state {
            self.changed.send_replace(state);
        }
        if let Some(wanted) = after.wanted {
            self.wanted.send_replace(wanted);
        }
        for waker in after.wakers {
            waker.wake();
        }
        for carrier in after.carriers {
            carrier.wake.set();
        }
        if after.finished {
            self.finished.notify_waiters();
        }
        if after.timer {
            self.timer.notify_one();
        }
        if !after.look.is_empty() {
            self.look(&after.look);
        }
        for (id, host, port) in after.offers {
            self.offer(id, &host, port);
        }
    }

    /// Asks the kernel why sockets take nothing. Where all carriers have small windows it is the way, and not one of them.
    fn look(self: &Arc<Self>, carriers: &[(CarrierId, (SocketAddr, SocketAddr))]) {
        let ends: Vec<_> = carriers.iter().map(|(_, ends)| *ends).collect();
        let mut widest = None;
        for ((id, _), path) in carriers.iter().zip(tcp_info::ask(&ends)) {
            let Some(path) = path.filter(|path| path.unsent > 0 && path.congestion_window <= RESTING * path.segment)
            else {
                continue;
            };
            let widest = *widest.get_or_insert_with(|| {
                let paths = self.paths().into_values().flatten();
                paths.map(|path| path.congestion_window).max().unwrap_or(0)
            });
            if widest >= WIDER * path.congestion_window {
                self.with(|state, _| state.session.rest(*id, path.unsent + PULL as u64));
            }
        }
    }

    fn offer(self: &Arc<Self>, id: StreamId, host: &str, port: u16) {
        let refuse = |failure: OpenFailure| self.with(|state, now| state.session.refuse(now, id, failure));
        let target = match HostPort::new(host, port) {
            Ok(target) => target,
            Err(error) => return refuse(OpenFailure { code: 2, value: 0, detail: error.to_string() }),
        };
        if let Err(error) = self.offers.try_send(Box::new(Offered::new(Arc::clone(self), id, target))) {
            let (mpsc::error::TrySendError::Full(offer) | mpsc::error::TrySendError::Closed(offer)) = error;
            let detail = format!("the exit is busy: {} streams wait to be dialled", self.offers.max_capacity());
            let why = DialError::Limit { target: offer.target().clone(), detail };
            offer.refuse(&why);
        }
    }

    /// Sleeps until the session's next deadline, or until that came nearer; then has the session act.
    pub(super) async fn run_timer(self: &Arc<Self>) {
        loop {
            let deadline = self.lock().session.poll_timeout().map(|(at, _)| at);
            match deadline {
                None => self.timer.notified().await,
                Some(at) => {
                    tokio::select! {
                        () = self.timer.notified() => continue,
                        () = tokio::time::sleep_until(at.into()) => {}
                    }
                }
            }
            self.with(|state, now| state.session.handle_timeout(now));
        }
    }

    /// Announces a new carrier to the session.
    pub(super) fn register(self: &Arc<Self>, slot: u8, binding: [u8; 32], handle: &Arc<CarrierHandle>) -> CarrierId {
        self.with(|state, now| {
            let id = state.session.carrier_opened(now, slot, binding);
            state.carriers.insert(id, Arc::clone(handle));
            // Its handshake may have begun before the credentials were changed.
            if state.trust.as_ref().is_some_and(|trust| trust.accepts(&handle.proof).is_err()) {
                state.session.distrust(now, id);
            }
            id
        })
    }

    /// From now on peers must have proved what `trust` asks for: carriers of others are closed, and the session of one that has no
    /// carrier left ends. Gives how many carriers that were.
    pub(super) fn set_trust(self: &Arc<Self>, trust: Trust) -> usize {
        if let Some((_, keys)) = self.accept.get() {
            keys.replace(&self.names.link, trust.clone());
        }
        self.with(|state, now| {
            let mut gone = Vec::new();
            for (id, handle) in &state.carriers {
                if let Err(error) = trust.accepts(&handle.proof) {
                    warn!(link = self.names.link, address = handle.address, %error, "carrier of a peer that is no longer trusted");
                    gone.push(*id);
                }
            }
            let stays = state.session.carriers().any(|carrier| carrier.attached && !gone.contains(&carrier.id));
            if !stays && state.record.proof.as_ref().is_some_and(|proof| trust.accepts(proof).is_err()) {
                state.session.disown(now);
            }
            gone.iter().for_each(|id| state.session.distrust(now, *id));
            let closed = gone.len();
            state.trust = Some(trust);
            closed
        })
    }

    /// The carrier's task ends.
    pub(super) fn unregister(self: &Arc<Self>, id: CarrierId, end: CarrierEnd) {
        self.with(|state, now| {
            *state.record.reconnects.entry(end.label()).or_insert(0) += 1;
            if !matches!(end, CarrierEnd::Fenced | CarrierEnd::SessionEnded(_)) {
                state.record.last_error = Some(end.to_string());
            }
            state.session.carrier_lost(now, id);
            if let Some(handle) = state.carriers.remove(&id) {
                handle.phase.send_replace(Phase::Ended(end));
            }
        });
    }

    /// Gives a carrier's socket the congestion control that its way asks for.
    pub(super) fn steer(&self, socket: &TcpStream, rtt: Duration) {
        let name = match &self.congestion {
            Congestion::Auto if rtt >= LONG_WAY => "bbr",
            Congestion::Auto | Congestion::System => return,
            Congestion::Named(name) => name.as_str(),
        };
        match socket2::SockRef::from(socket).set_tcp_congestion(name.as_bytes()) {
            Ok(()) => debug!(link = self.names.link, name, ?rtt, "congestion control chosen"),
            Err(error)
                if matches!(self.congestion, Congestion::Named(_))
                    && !self.without_congestion.swap(true, Ordering::Relaxed) =>
            {
                warn!(link = self.names.link, name, %error, "[tunnel] congestion is not to be had here: `sysctl net.ipv4.tcp_available_congestion_control` lists what is");
            }
            // Many kernels have it as a module that only root loads: the system's own is not wrong.
            Err(error) => debug!(link = self.names.link, name, %error, "congestion control stays the system's"),
        }
    }

    /// Number of carriers, those that are not attached yet or no more included.
    pub(super) fn carriers(&self) -> usize {
        self.lock().carriers.len()
    }

    /// Whether some carrier is attached and answers.
    pub(super) fn has_healthy(&self) -> bool {
        self.lock().session.carriers().any(|carrier| carrier.attached && !carrier.suspect)
    }

    /// Resolves when no stream is left.
    pub(super) async fn finished(&self) {
        loop {
            let finished = self.finished.notified();
            if self.lock().session.streams() == 0 {
                return;
            }
            finished.await;
        }
    }

    /// Notes what went wrong outside the session.
    pub(super) fn note_error(&self, error: String) {
        self.lock().record.last_error = Some(error);
    }

    pub(crate) fn dial_error(&self, target: &HostPort, failure: OpenFailure) -> DialError {
        failure::from_wire(target, failure)
    }

    pub(crate) fn is_up(&self) -> bool {
        self.lock().session.is_up()
    }

    pub(crate) fn last_error(&self) -> Option<String> {
        self.lock().record.last_error.clone()
    }

    pub(crate) fn changed(&self) -> watch::Receiver<TunnelState> {
        self.changed.subscribe()
    }

    /// What the kernel tells of the carriers' ways. It is asked without the lock.
    fn paths(&self) -> HashMap<CarrierId, Option<tcp_info::TcpInfo>> {
        let carriers: Vec<_> =
            self.lock().carriers.iter().filter_map(|(id, handle)| Some((*id, handle.ends?))).collect();
        let ends: Vec<_> = carriers.iter().map(|(_, ends)| *ends).collect();
        carriers.into_iter().map(|(id, _)| id).zip(tcp_info::ask(&ends)).collect()
    }

    pub(super) fn status(&self) -> TunnelStatus {
        let accept = self.accept.get().map(|(status, _)| status.snapshot());
        // Who could not prove itself never reached the session, and tells more than that nobody did.
        let handshake = accept.as_ref().and_then(|accept| accept.last_error.as_ref());
        let handshake = handshake.map(|failure| format!("handshake with {} failed: {}", failure.from, failure.error));
        let paths = self.paths();
        let state = self.lock();
        let now = now();
        let counters = state.session.counters();
        let (buffered_in, buffered_out) = state.session.buffered();
        let carriers = state.session.carriers().filter_map(|info| {
            let handle = state.carriers.get(&info.id)?;
            Some(CarrierStatus {
                age_seconds: now.saturating_duration_since(handle.since).as_secs_f64(),
                path: paths.get(&info.id).copied().flatten(),
                slot: info.slot,
                address: handle.address.clone(),
                attached: info.attached,
                suspect: info.suspect,
                rtt_ms: info.rtt.map(|rtt| rtt.as_secs_f64() * 1e3),
                bytes_in: handle.received.load(Ordering::Relaxed),
                bytes_out: handle.sent.load(Ordering::Relaxed),
            })
        });
        TunnelStatus {
            link: self.names.link.clone(),
            role: self.names.role,
            transport: self.names.transport,
            state: state.record.state,
            state_seconds: now.saturating_duration_since(state.record.since).as_secs_f64(),
            peer: state.record.peer.clone(),
            carriers: carriers.collect(),
            streams: state.session.streams(),
            busiest: state.session.busiest(MOST_SHOWN),
            streams_opened: counters.opened,
            streams_accepted: counters.accepted,
            streams_lost: counters.lost_streams,
            streams_overdrawn: counters.overdrawn,
            bytes_in: counters.bytes_in,
            bytes_out: counters.bytes_out,
            buffered_in,
            buffered_out,
            replayed_bytes: counters.replayed_bytes,
            sessions: counters.sessions,
            resumes: counters.resumes,
            reconnects: state.record.reconnects.clone(),
            last_error: handshake.or_else(|| state.record.last_error.clone()),
            accept,
        }
    }
}

impl State {
    /// Who waits on the stream.
    pub(crate) fn waiting(&mut self, id: StreamId) -> &mut Waiting {
        self.waiting.entry(id).or_default()
    }

    /// Nobody waits on the stream any more.
    pub(crate) fn forget_waiting(&mut self, id: StreamId) {
        self.waiting.remove(&id);
    }

    fn drain_events(&mut self, now: Instant, after: &mut Afterwards, names: &Names) {
        let link = names.link.as_str();
        while let Some(event) = self.session.poll_event() {
            match event {
                Event::Wake(id) => after.carriers.extend(self.carriers.get(&id).cloned()),
                Event::Close(id, why) => {
                    if let Some(handle) = self.carriers.get(&id) {
                        handle.phase.send_replace(Phase::Closing(why));
                        after.carriers.push(Arc::clone(handle));
                    }
                }
                Event::Attached(id) => {
                    if let Some(handle) = self.carriers.get(&id) {
                        self.record.peer = Some(handle.identity.clone());
                        self.record.proof = Some(handle.proof.clone());
                        handle.phase.send_replace(Phase::Attached);
                        debug!(link, peer = handle.identity, "carrier attached");
                    }
                }
                Event::Carriers(count) => {
                    debug!(link, count, "more carriers would help");
                    after.wanted = Some(count);
                }
                Event::Look(id) => {
                    let ends = self.carriers.get(&id).and_then(|handle| handle.ends);
                    after.look.extend(ends.map(|ends| (id, ends)));
                }
                Event::Suspect(id) => {
                    if let Some(handle) = self.carriers.get(&id) {
                        handle.phase.send_replace(Phase::Suspect);
                        debug!(link, address = handle.address, "carrier silent");
                    }
                }
                Event::Up { resumed } => {
                    self.record.change(now, TunnelState::Up);
                    after.state = Some(TunnelState::Up);
                    info!(link, resumed, peer = self.record.peer, "tunnel up");
                }
                Event::Parked => {
                    self.record.change(now, TunnelState::Parked);
                    after.state = Some(TunnelState::Parked);
                    info!(link, streams = self.session.streams(), "tunnel lost its last carrier, streams wait");
                }
                Event::Ended(why) => {
                    self.record.change(now, TunnelState::Down);
                    self.record.last_error = Some(why.to_string());
                    after.state = Some(TunnelState::Down);
                    warn!(link, %why, "tunnel session ended, its streams were reset");
                }
                Event::PeerDraining => info!(link, "the peer is shutting down and takes no new streams"),
                Event::Offered { id, host, port } => after.offers.push((id, host, port)),
                Event::Answered(id) => after.wakers.extend(self.waiting.get_mut(&id).and_then(|w| w.answer.take())),
                Event::Readable(id) => {
                    let reader = self.waiting.get_mut(&id).and_then(|w| w.read.take());
                    after.wakers.extend(reader.map(Reader::woken));
                }
                Event::Writable(id) => after.wakers.extend(self.waiting.get_mut(&id).and_then(|w| w.write.take())),
                Event::Cut(id) => after.wakers.extend(self.waiting.get_mut(&id).and_then(|w| w.cut.take())),
            }
        }
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("names", &self.names).finish_non_exhaustive()
    }
}
