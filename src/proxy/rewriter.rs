//! Mode `rewrite`: local clients reach the peer's brokers under local addresses, which stand in every response that carries one.
//!
//! One bootstrap listener, and one listener a broker, opened when the broker is first seen and before its address is given
//! away. Rules kept here: the bootstrap listener stays open whatever happens to brokers or tunnel; a port once given to a node is
//! on the disk before a client knows it and never given to another node; a node that moves keeps its port; a broker
//! without a port is hidden, never shown under its real address; no failure floods the log.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::clients::{Clients, Limits};
use super::denials::Denials;
use super::login::{Login, LoginError};
use super::nodes::{Door, Nodes, To, Traffic, listen};
use super::ports::PortTable;
use super::refusals::Refusals;
use super::rewrite::{Policy, Rules};
use super::serve::accept;
use super::status::{ListenerStatus, ProxyStatus};
use super::upstream::{self, UpstreamError};
use crate::config::{ClientsConfig, RewriteConfig};
use crate::kafka::api;
use crate::lifecycle::Drain;
use crate::net::tls::{TlsConnector, TlsError};
use crate::net::tls_server::TlsAcceptor;
use crate::net::{BoxStream, HostPort, SharedDial};
use crate::sasl::Authenticator;
use crate::sasl::users::Users;

/// Connections at once over all listeners: above what a large site's clients open, below a usual limit on open files.
pub const MAX_CONNECTIONS: u64 = 16_384;

/// Listeners that wait to be taken over; more nodes than this at once are shown at the client's next look.
const MOST_NEW_DOORS: usize = 4_096;

/// Why mode `rewrite` cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RewriterError {
    /// The bootstrap listener cannot be opened.
    #[error("cannot listen for clients on {address}: {error}; is it an address of this host, and free?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: io::Error,
    },
    /// The state directory or the file in it cannot be used.
    #[error("{}: {error}", path.display())]
    State {
        /// Directory or file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// There is no bootstrap server of the peer.
    #[error("no bootstrap server of {0} is set")]
    NoBootstrap(String),
    /// Clients cannot be told where to connect.
    #[error("clients cannot be told to connect to `{0}`; set proxy.advertise to a name or address of this host")]
    BadAdvertise(String),
    /// The file of users cannot be used.
    #[error("{}: {why}", path.display())]
    Users {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// TLS towards the brokers or towards clients cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Mode `rewrite`, with its bootstrap listener and those of known brokers open, and nothing running yet.
#[derive(Debug)]
pub struct Rewriter {
    shared: Arc<Shared>,
    doors: Vec<Door>,
    new_doors: mpsc::Receiver<Door>,
}

/// A cheap handle to what runs.
#[derive(Debug, Clone)]
pub struct RewriterHandle {
    shared: Arc<Shared>,
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) cluster: String,
    pub(super) advertise: String,
    pub(super) listen: SocketAddr,
    pub(super) bootstrap: Vec<HostPort>,
    pub(super) turn: AtomicU64,
    pub(super) dial: SharedDial,
    pub(super) tls: Option<TlsConnector>,
    pub(super) authenticator: Option<Arc<Authenticator>>,
    pub(super) client_tls: Option<TlsAcceptor>,
    pub(super) proxy_protocol: bool,
    pub(super) rules: Rules,
    /// Why a broker refused us last, until one does not.
    pub(super) not_authenticated: Mutex<Option<String>>,
    pub(super) renewals: AtomicU64,
    pub(super) nodes: Nodes,
    pub(super) refusals: Arc<Refusals>,
    pub(super) denials: Denials,
    /// Where anything of a client is bounded.
    pub(super) clients: Option<Arc<Clients>>,
    pub(super) anyone: Traffic,
    pub(super) open: AtomicU64,
    pub(super) responses: [AtomicU64; api::WALKABLE.len()],
    pub(super) nodes_rewritten: AtomicU64,
    pub(super) nodes_hidden: AtomicU64,
    pub(super) frames_hidden: AtomicU64,
    pub(super) leaks: AtomicU64,
}

impl Rewriter {
    /// Opens the bootstrap listener and those of brokers known from earlier runs, at their last targets. Spawns nothing; must be
    /// called within a tokio runtime with its I/O driver.
    ///
    /// `cluster` is the peer's name, under which ports are kept in `state_dir`. Port 0 in `config.listen` takes any. A known broker whose port
    /// is in use now gets another when it is seen next.
    ///
    /// # Errors
    /// [`RewriterError`], each as described there.
    pub fn bind(
        config: &RewriteConfig,
        cluster: &str,
        bootstrap: Vec<HostPort>,
        dial: SharedDial,
        state_dir: &Path,
    ) -> Result<Self, RewriterError> {
        if bootstrap.is_empty() {
            return Err(RewriterError::NoBootstrap(cluster.to_owned()));
        }
        let advertise = HostPort::new(&config.advertise, 1)
            .ok()
            .filter(|advertise| advertise.ip().is_none_or(|ip| !ip.is_unspecified()))
            .ok_or_else(|| RewriterError::BadAdvertise(config.advertise.clone()))?;
        let tls = config.upstream_tls.as_ref().map(TlsConnector::new).transpose()?;
        let client_tls = config.clients.tls.as_ref().map(TlsAcceptor::new).transpose()?;
        let users = config.clients.users_file.as_deref().map(read_users).transpose()?;
        let failed = |error| RewriterError::Listen { address: config.listen, error };
        let socket = listen(config.listen).map_err(failed)?;
        let listen = socket.local_addr().map_err(failed)?;
        let (table, damaged) = PortTable::open(state_dir, cluster, config.ports.clone(), listen.port())
            .map_err(|(path, error)| RewriterError::State { path, error })?;
        if let Some(aside) = damaged {
            tracing::warn!(cluster, aside = %aside.display(), "the file of ports was damaged and is set aside; brokers get new ports");
        }
        let (new_door, new_doors) = mpsc::channel(MOST_NEW_DOORS);
        let refusals = Arc::new(Refusals::default());
        let nodes = Nodes::new(cluster, advertise.host(), listen, table, Arc::clone(&refusals), new_door);
        let shared = Arc::new(Shared {
            cluster: cluster.to_owned(),
            advertise: advertise.host().to_owned(),
            listen,
            bootstrap,
            turn: AtomicU64::new(0),
            dial,
            tls,
            authenticator: config.auth.as_ref().map(|auth| Arc::new(Authenticator::new(auth))),
            client_tls,
            proxy_protocol: config.clients.proxy_protocol,
            rules: Rules { offload: config.auth.is_some(), users, policy: policy(&config.clients) },
            not_authenticated: Mutex::default(),
            renewals: AtomicU64::new(0),
            nodes,
            refusals,
            denials: Denials::default(),
            clients: Some(limits(&config.clients)).filter(Limits::is_set).map(Clients::new),
            anyone: Traffic::default(),
            open: AtomicU64::new(0),
            responses: Default::default(),
            nodes_rewritten: AtomicU64::new(0),
            nodes_hidden: AtomicU64::new(0),
            frames_hidden: AtomicU64::new(0),
            leaks: AtomicU64::new(0),
        });
        let mut doors = vec![Door { socket, to: To::Anyone }];
        doors.extend(shared.nodes.reopen());
        tracing::info!(cluster, %listen, brokers = doors.len() - 1, "proxy rewrites addresses");
        Ok(Self { shared, doors, new_doors })
    }

    /// Where the bootstrap listener is.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.shared.listen
    }

    /// A handle for status that outlives [`Rewriter::run`].
    #[must_use]
    pub fn handle(&self) -> RewriterHandle {
        RewriterHandle { shared: Arc::clone(&self.shared) }
    }

    /// Serves until `drain` begins: then nothing new is taken, and each connection ends when its requests are answered. Connections
    /// are tasks of `drain`, which waits for them.
    pub async fn run(mut self, drain: Drain) {
        for door in self.doors {
            drain.spawn(accept(Arc::clone(&self.shared), door, drain.clone()));
        }
        loop {
            tokio::select! {
                () = drain.draining() => return,
                door = self.new_doors.recv() => {
                    // The sender is in `shared`, which lives as long as this.
                    let Some(door) = door else { return };
                    drain.spawn(accept(Arc::clone(&self.shared), door, drain.clone()));
                }
            }
        }
    }
}

impl RewriterHandle {
    /// What is going on, now.
    #[must_use]
    pub fn status(&self) -> ProxyStatus {
        let shared = &self.shared;
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let first = shared.bootstrap[0].clone();
        let mut listeners = vec![ListenerStatus::of(None, shared.listen, first, &shared.anyone)];
        listeners.extend(shared.nodes.all().iter().map(|node| {
            let listen = SocketAddr::new(shared.listen.ip(), node.port);
            ListenerStatus::of(Some(node.node_id), listen, node.target(), &node.traffic)
        }));
        let sum = |of: fn(&ListenerStatus) -> u64| listeners.iter().map(of).sum();
        let (connections_total, connections_ended) =
            (sum(|one| one.connections_total), sum(|one| one.connections_ended));
        let (bytes_to_brokers, bytes_to_clients) = (sum(|one| one.bytes_to_broker), sum(|one| one.bytes_to_client));
        let rewritten = api::WALKABLE.iter().zip(&shared.responses);
        let (clients_open, paused) = shared.clients.as_ref().map(|clients| clients.totals()).unwrap_or_default();
        let [paused_in_ms, paused_out_ms] = paused.map(|paused| u64::try_from(paused.as_millis()).unwrap_or(u64::MAX));
        ProxyStatus {
            mode: "rewrite",
            cluster: shared.cluster.clone(),
            advertise: shared.advertise.clone(),
            connections_open: count(&shared.open),
            connections_total,
            connections_ended,
            listeners,
            bytes_to_brokers,
            bytes_to_clients,
            refused: shared.refusals.counts(),
            clients_open,
            clients: shared.clients.as_ref().map(|clients| clients.busiest()).unwrap_or_default(),
            paused_in_ms,
            paused_out_ms,
            denied: shared.denials.by_api(),
            denials: shared.denials.told(),
            rewritten: rewritten.map(|((key, _), responses)| (api::name(*key), count(responses))).collect(),
            nodes_rewritten: count(&shared.nodes_rewritten),
            nodes_hidden: count(&shared.nodes_hidden),
            frames_hidden: count(&shared.frames_hidden),
            leaks: count(&shared.leaks),
            reauthentications: count(&shared.renewals),
            not_authenticated: shared.not_authenticated.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}

impl Shared {
    /// Everyone who may answer a bootstrap client, in turn.
    fn candidates(&self) -> Vec<HostPort> {
        let mut candidates = self.bootstrap.clone();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % candidates.len() as u64;
        candidates.rotate_left(usize::try_from(turn).unwrap_or(0));
        for broker in self.nodes.all().iter().map(|door| door.target()) {
            if !candidates.contains(&broker) {
                candidates.push(broker);
            }
        }
        candidates
    }

    pub(super) async fn dial(&self, to: &To) -> Result<(BoxStream, HostPort), UpstreamError> {
        match to {
            To::Anyone => upstream::connect_any(&self.dial, self.tls.as_ref(), &self.candidates()).await,
            To::Node(door) => {
                let target = door.target();
                upstream::connect(&self.dial, self.tls.as_ref(), &target).await.map(|stream| (stream, target))
            }
        }
    }

    /// Counts requests that the policy denied; tells it once for each client and API.
    pub(super) fn note_denied(&self, user: Option<&str>, address: Option<SocketAddr>, key: i16, count: u64) {
        let by_address = || address.map(|address| address.ip().to_string());
        let client = user.map(str::to_owned).or_else(by_address).unwrap_or_default();
        if self.denials.note(&client, key, count, SystemTime::now()) {
            let (cluster, api) = (&self.cluster, api::name(key));
            tracing::warn!(code = "LS504", %cluster, client, api, key, "a client asked for what proxy.clients does not allow; it was refused, and the brokers were not asked");
        }
    }

    /// Authenticates with a broker that was just reached, where that is the proxy's business.
    pub(super) async fn log_in(
        &self,
        upstream: &mut BoxStream,
        target: &HostPort,
    ) -> Result<Option<(Login, Option<Duration>)>, LoginError> {
        let Some(authenticator) = &self.authenticator else { return Ok(None) };
        let mut login = Login::new(Arc::clone(authenticator), target.clone());
        let done = login.run(upstream).await;
        *self.not_authenticated.lock().unwrap_or_else(PoisonError::into_inner) =
            done.as_ref().err().map(ToString::to_string);
        done.map(|lifetime| Some((login, lifetime)))
    }
}

/// Reads the file of users.
fn read_users(path: &Path) -> Result<Arc<Users>, RewriterError> {
    let failed = |why: String| RewriterError::Users { path: path.to_owned(), why };
    let text = std::fs::read_to_string(path).map_err(|error| failed(error.to_string()))?;
    let users = Users::parse(&text).map_err(|error| failed(error.to_string()))?;
    if users.is_empty() {
        return Err(failed("no user stands in it; linkspan users add NAME --file FILE".to_owned()));
    }
    Ok(Arc::new(users))
}

/// What each client may use.
const fn limits(config: &ClientsConfig) -> Limits {
    let rates = [config.bytes_in_per_second, config.bytes_out_per_second];
    Limits { connections: config.connections, rates }
}

/// What clients may not ask of the brokers.
fn policy(config: &ClientsConfig) -> Policy {
    let begun = if config.read_only { Policy::read_only() } else { Policy::open() };
    config.deny.iter().fold(begun, |policy, key| policy.and(*key))
}
