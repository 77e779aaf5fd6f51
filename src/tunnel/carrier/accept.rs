//! The listening side of carriers: accepting never waits, each handshake is a task of its own and within bounds.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use super::certificates::Credentials;
use super::error::{CarrierError, Transport};
use super::handshake::{DEADLINE, Proved, Reading};
use super::places::Places;
use super::preamble::{Preamble, VERSION, Verdict, is_ours};
use super::sniff::{ENOUGH, Seen, sniff};
use super::{Established, PeerIdentity, Proof, Trust};
use crate::config::{Congestion, TunnelAuth, TunnelConfig, TunnelRole};
use crate::lifecycle::{Backoff, Drain};

/// How long a stray client's first bytes are gathered, for a better name of what it speaks.
const SNIFF: Duration = Duration::from_millis(200);
/// Least time between two log lines of the same kind.
const QUIET: Duration = Duration::from_secs(60);

/// The tunnel port: bound, and not yet running.
pub struct Acceptor {
    listener: TcpListener,
    address: SocketAddr,
    shared: Arc<Shared>,
    handshakes: usize,
}

/// What the tasks of one acceptor share.
struct Shared {
    links: RwLock<HashMap<String, Credentials>>,
    state: Mutex<State>,
}

/// Counters of an acceptor since its start.
#[derive(Debug, Clone, Default, serde::Serialize)]
pub struct AcceptStatus {
    /// Where it listens.
    pub listen: String,
    /// Handshakes that succeeded.
    pub established: u64,
    /// Handshakes of linkspan peers that failed.
    pub failed: u64,
    /// Connections that were no linkspan's: other protocols, port scans, silence.
    pub strangers: u64,
    /// Handshakes ended for a newcomer, because `limits.handshakes` were in progress.
    pub dropped: u64,
    /// The last failed handshake of a linkspan peer; none since the last success.
    pub last_error: Option<HandshakeFailure>,
}

/// A failed handshake.
#[derive(Debug, Clone, serde::Serialize)]
pub struct HandshakeFailure {
    /// From where.
    pub from: String,
    /// Why.
    pub error: String,
    /// How long ago, in seconds.
    pub seconds_ago: u64,
}

/// Gives snapshots while the acceptor runs.
#[derive(Clone)]
pub struct AcceptStatusReader(Arc<Shared>);

impl AcceptStatusReader {
    /// The present counters.
    #[must_use]
    pub fn snapshot(&self) -> AcceptStatus {
        let state = self.0.state();
        let mut status = state.status.clone();
        if let (Some(failure), Some(at)) = (&mut status.last_error, state.failed_at) {
            failure.seconds_ago = at.elapsed().as_secs();
        }
        status
    }
}

impl std::fmt::Debug for AcceptStatusReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.snapshot().fmt(f)
    }
}

/// Changes what peers must prove while the acceptor runs.
#[derive(Clone)]
pub struct AcceptKeys(Arc<Shared>);

impl AcceptKeys {
    /// Handshakes of `link` that begin from now on need `trust`.
    pub fn replace(&self, link: &str, trust: Trust) {
        self.0.links.write().unwrap_or_else(PoisonError::into_inner).insert(link.to_owned(), trust.0);
    }
}

impl std::fmt::Debug for AcceptKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("AcceptKeys").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct State {
    status: AcceptStatus,
    failed_at: Option<Instant>,
    quiet: HashMap<Kind, Quiet>,
}

/// What is logged as one; the number of kinds is the bound of the map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Stranger(Seen),
    Failed(std::mem::Discriminant<CarrierError>),
    Dropped,
    Accept,
}

struct Quiet {
    since: Instant,
    held_back: u64,
}

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Counters stay true whatever happened to another task.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether a line of this kind is to be written now, and how many were held back before it.
    fn may_log(&mut self, kind: Kind, now: Instant) -> Option<u64> {
        match self.quiet.get_mut(&kind) {
            Some(quiet) if now.duration_since(quiet.since) < QUIET => {
                quiet.held_back += 1;
                None
            }
            Some(quiet) => {
                quiet.since = now;
                Some(std::mem::take(&mut quiet.held_back))
            }
            None => {
                self.quiet.insert(kind, Quiet { since: now, held_back: 0 });
                Some(0)
            }
        }
    }
}

impl Acceptor {
    /// Binds the port of `config` and reads what `link` needs.
    ///
    /// # Errors
    /// [`CarrierError::Bind`], [`CarrierError::File`], [`CarrierError::LinkName`], [`CarrierError::Role`].
    pub async fn bind(config: &TunnelConfig, link: &str) -> Result<Self, CarrierError> {
        let TunnelRole::Listen(listen) = config.role else {
            return Err(CarrierError::Role { role: "dial" });
        };
        let bind = |e: std::io::Error| CarrierError::Bind { address: listen.to_string(), detail: e.to_string() };
        let (auth, name) = (config.auth.clone(), link.to_owned());
        let loaded = tokio::task::spawn_blocking(move || load(&name, &auth))
            .await
            .map_err(|error| CarrierError::Handshake { detail: error.to_string() })??;
        let links = RwLock::new(HashMap::from([loaded]));
        let listener = listen_at(listen, &config.congestion).map_err(bind)?;
        let address = listener.local_addr().map_err(bind)?;
        let state = State {
            status: AcceptStatus { listen: address.to_string(), ..AcceptStatus::default() },
            ..State::default()
        };
        let shared = Arc::new(Shared { links, state: Mutex::new(state) });
        Ok(Self { listener, address, shared, handshakes: config.limits.handshakes as usize })
    }

    /// A handle for changing what peers must prove.
    #[must_use]
    pub fn keys(&self) -> AcceptKeys {
        AcceptKeys(Arc::clone(&self.shared))
    }

    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A reader of its counters, for the status.
    #[must_use]
    pub fn status(&self) -> AcceptStatusReader {
        AcceptStatusReader(Arc::clone(&self.shared))
    }

    /// Accepts until `drain` begins or nobody takes carriers any more; each proved carrier goes into `established`.
    pub async fn run(self, established: mpsc::Sender<Established>, drain: Drain) {
        let places = Places::new(self.handshakes);
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.draining() => return,
                () = established.closed() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (socket, address) = match accepted {
                Ok(accepted) => {
                    backoff.reset();
                    accepted
                }
                Err(error) => {
                    // Of the peer (it is gone already), or EMFILE and the like, which need a moment to pass.
                    let wait = backoff.next(u32::MAX);
                    let held_back = self.shared.state().may_log(Kind::Accept, Instant::now());
                    if let Some(more) = held_back {
                        warn!(%error, more, "the tunnel port cannot accept");
                    }
                    tokio::select! {
                        () = drain.draining() => return,
                        () = tokio::time::sleep(wait) => continue,
                    }
                }
            };
            let (place, displaced) = places.take(address.ip());
            if displaced {
                self.shared.dropped(address, self.handshakes);
            }
            let (shared, established, draining) = (Arc::clone(&self.shared), established.clone(), drain.clone());
            drain.spawn(async move {
                let proved = tokio::select! {
                    () = draining.draining() => None,
                    () = place.displaced() => None,
                    proved = shared.handshake(socket, address) => proved,
                };
                if let Some(carrier) = proved {
                    place.proved();
                    tokio::select! {
                        () = draining.draining() => {}
                        // A closed channel is an endpoint that ended.
                        _ = established.send(carrier) => {}
                    }
                }
            });
        }
    }
}

/// Connections that may wait to be accepted: a flood of them is to reach [`Places`] rather than to push others out here. The
/// kernel's own bound (net.core.somaxconn) may be lower.
const BACKLOG: u32 = 4096;

fn listen_at(address: SocketAddr, congestion: &Congestion) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // What is accepted inherits it.
    super::dial::begin(&socket, congestion);
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn load(link: &str, auth: &TunnelAuth) -> Result<(String, Credentials), CarrierError> {
    let credentials = Credentials::load(auth, link)?;
    Preamble::new(credentials.transport(), link)?;
    Ok((link.to_owned(), credentials))
}

impl Shared {
    async fn handshake(&self, mut socket: TcpStream, address: SocketAddr) -> Option<Established> {
        super::dial::tune(&socket);
        let mut reading = Reading::new(&mut socket);
        let proved = match timeout_at(reading.deadline, self.prove(&mut reading)).await {
            Ok(proved) => proved,
            Err(_) if reading.taken() == 0 => Err(CarrierError::NotLinkspan { seen: Seen::Nothing }),
            Err(_) => Err(CarrierError::HandshakeTimeout { after: DEADLINE }),
        };
        match proved {
            Ok((link, credentials, Proved { protect, binding, name, chain })) => {
                let received = std::mem::take(&mut reading.input);
                let peer = PeerIdentity { name, address };
                debug!(%link, %peer, "carrier accepted");
                let mut state = self.state();
                state.status.established += 1;
                state.status.last_error = None;
                drop(state);
                let proof = Proof { by: credentials, chain, dialler: false };
                Some(Established { socket, protect, received, binding, peer, proof, link, dialler: false })
            }
            Err(error) => {
                // A stranger and a wrong secret are told nothing; the others read why they are refused.
                if !matches!(error, CarrierError::NotLinkspan { .. } | CarrierError::WrongSecret) {
                    reading.linger().await;
                }
                self.failed(address, &error);
                None
            }
        }
    }

    async fn prove(&self, reading: &mut Reading<'_>) -> Result<(String, Credentials, Proved), CarrierError> {
        let (preamble, taken) = loop {
            if !is_ours(&reading.input) {
                return Err(CarrierError::NotLinkspan { seen: identify(reading).await });
            }
            if let Some(decoded) = Preamble::decode(&reading.input)? {
                break decoded;
            }
            if !reading.more().await? {
                let seen = sniff(&reading.input);
                return Err(CarrierError::NotLinkspan { seen });
            }
        };
        let _ = reading.input.split_to(taken);
        let link = std::str::from_utf8(&preamble.link).unwrap_or_default();
        // A listener has one transport unless its links differ; what it says then is true of any.
        let (any, known) = {
            let links = self.links.read().unwrap_or_else(PoisonError::into_inner);
            (links.values().next().map_or(Transport::Noise, Credentials::transport), links.get(link).cloned())
        };
        let (verdict, error) = match known {
            _ if preamble.version != VERSION => {
                (Verdict::Version.encode(any), CarrierError::Version { ours: VERSION, theirs: preamble.version })
            }
            None => (Verdict::Link.encode(any), CarrierError::UnknownLink { link: link.escape_default().to_string() }),
            Some(credentials) if preamble.transport != credentials.transport() as u8 => {
                let ours = credentials.transport();
                let theirs =
                    if preamble.transport == Transport::Noise as u8 { Transport::Noise } else { Transport::Tls };
                (Verdict::Transport.encode(ours), CarrierError::TransportMismatch { ours, theirs })
            }
            Some(credentials) => {
                let mut handshake = credentials.accept(&preamble.encode())?;
                let go_on = Verdict::GoOn.encode(credentials.transport()).to_vec();
                let proved = reading.run(handshake.as_mut(), go_on).await?;
                return Ok((link.to_owned(), credentials, proved));
            }
        };
        reading.send(&verdict).await?;
        Err(error)
    }

    fn failed(&self, address: SocketAddr, error: &CarrierError) {
        let now = Instant::now();
        let mut state = self.state();
        let kind = match error {
            CarrierError::NotLinkspan { seen } => {
                state.status.strangers += 1;
                Kind::Stranger(*seen)
            }
            other => {
                state.status.failed += 1;
                state.failed_at = Some(now);
                state.status.last_error =
                    Some(HandshakeFailure { from: address.to_string(), error: other.to_string(), seconds_ago: 0 });
                Kind::Failed(std::mem::discriminant(other))
            }
        };
        let held_back = state.may_log(kind, now);
        drop(state);
        match (held_back, kind) {
            (None, _) => debug!(from = %address, %error, "carrier refused"),
            // Port scans and health checks are everyday.
            (Some(more), Kind::Stranger(Seen::Nothing)) => info!(from = %address, more, "{error}"),
            (Some(more), Kind::Stranger(_)) => warn!(from = %address, more, "{error}"),
            (Some(more), _) => warn!(from = %address, more, %error, "carrier refused"),
        }
    }

    fn dropped(&self, address: SocketAddr, limit: usize) {
        let mut state = self.state();
        state.status.dropped += 1;
        let held_back = state.may_log(Kind::Dropped, Instant::now());
        drop(state);
        if let Some(more) = held_back {
            warn!(from = %address, more, limit, "as many handshakes are in progress as are allowed: the oldest of the largest crowd ends for a newcomer");
        }
    }
}

/// Waits a moment for enough bytes to name what is no linkspan.
async fn identify(reading: &mut Reading<'_>) -> Seen {
    let gather = async { while reading.input.len() < ENOUGH && matches!(reading.more().await, Ok(true)) {} };
    let _ = timeout(SNIFF, gather).await;
    sniff(&reading.input)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_logged_at_once_and_then_once_a_minute_with_its_count() {
        let (mut state, start) = (State::default(), Instant::now());
        let http = Kind::Stranger(Seen::Http);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(state.may_log(http, at(0)), Some(0));
        assert_eq!(state.may_log(Kind::Stranger(Seen::Ssh), at(0)), Some(0));
        for second in 1..60 {
            assert_eq!(state.may_log(http, at(second)), None);
        }
        assert_eq!(state.may_log(http, at(60)), Some(59));
        assert_eq!(state.may_log(http, at(61)), None);
        assert_eq!(state.may_log(http, at(200)), Some(1));
    }
}
