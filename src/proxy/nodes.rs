//! The peer's brokers and the local listeners that stand for them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::latency::Latencies;
use super::ports::PortTable;
use super::refusals::Refusals;
use crate::net::HostPort;

/// Connections that wait in the kernel for one listener.
const BACKLOG: i32 = 1_024;

/// How long no port is searched after all were taken: a search tries each.
const EXHAUSTED_REST: Duration = Duration::from_secs(10);

/// A listener and where its connections go.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) socket: TcpListener,
    pub(super) to: To,
}

/// Where connections go.
#[derive(Debug, Clone)]
pub(super) enum To {
    /// Any bootstrap server or known broker that answers.
    Anyone,
    /// This node.
    Node(Arc<NodeDoor>),
}

/// A node with a listener.
#[derive(Debug)]
pub(super) struct NodeDoor {
    pub(super) node_id: i32,
    pub(super) port: u16,
    target: Mutex<HostPort>,
    pub(super) traffic: Traffic,
}

impl NodeDoor {
    /// Where the node was last seen.
    pub(super) fn target(&self) -> HostPort {
        self.target.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What goes through one listener.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// Connections begun, and ended.
    pub(super) total: AtomicU64,
    pub(super) ended: AtomicU64,
    /// Bytes.
    pub(super) to_broker: AtomicU64,
    pub(super) to_client: AtomicU64,
    pub(super) latencies: Latencies,
}

/// All nodes known, shared by all connections.
#[derive(Debug)]
pub(super) struct Nodes {
    cluster: String,
    advertise: String,
    listen: SocketAddr,
    refusals: Arc<Refusals>,
    new_doors: mpsc::Sender<Door>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    table: PortTable,
    open: BTreeMap<i32, Arc<NodeDoor>>,
    /// No port was free then.
    exhausted: Option<Instant>,
}

impl Nodes {
    /// Brokers of `cluster` get listeners beside `listen`, clients are told `advertise`, and new listeners go to `new_doors`.
    pub(super) fn new(
        cluster: &str,
        advertise: &str,
        listen: SocketAddr,
        table: PortTable,
        refusals: Arc<Refusals>,
        new_doors: mpsc::Sender<Door>,
    ) -> Self {
        let state = Mutex::new(State { table, open: BTreeMap::new(), exhausted: None });
        let (cluster, advertise) = (cluster.to_owned(), advertise.to_owned());
        Self { cluster, advertise, listen, refusals, new_doors, state }
    }

    /// All nodes with a listener, by their ids.
    pub(super) fn all(&self) -> Vec<Arc<NodeDoor>> {
        self.lock().open.values().cloned().collect()
    }

    /// Opens the listeners of brokers known from earlier runs.
    pub(super) fn reopen(&self) -> Vec<Door> {
        let mut state = self.lock();
        let mut doors = Vec::new();
        let known: Vec<_> =
            state.table.usable().map(|(node_id, place)| (node_id, place.port, place.target.clone())).collect();
        for (node_id, port, target) in known {
            match listen(SocketAddr::new(self.listen.ip(), port)) {
                Ok(socket) => doors.push(state.open(node_id, port, target, socket)),
                Err(error) => {
                    let cluster = &self.cluster;
                    tracing::warn!(cluster, node_id, port, %error, "a broker's port cannot be opened again; it gets another");
                }
            }
        }
        doors
    }

    /// The local address of a node; opens its listener when there is none. `None` hides it.
    pub(super) fn local(&self, node_id: i32, host: &str, port: i32) -> Option<(String, u16)> {
        let target = u16::try_from(port).ok().and_then(|port| HostPort::new(host, port).ok());
        let Some(target) = target else {
            if let Some(held) = self.refusals.note("hidden: no possible address", Instant::now()) {
                let cluster = &self.cluster;
                tracing::warn!(
                    cluster,
                    node_id,
                    ?host,
                    port,
                    held,
                    "a broker's address cannot be dialled; it is hidden"
                );
            }
            return None;
        };
        let mut state = self.lock();
        if self.is_ours(&state, &target) {
            if let Some(held) = self.refusals.note("hidden: loop", Instant::now()) {
                let cluster = &self.cluster;
                tracing::warn!(cluster, node_id, %target, held, "a broker advertises an address of this proxy; it is hidden");
            }
            return None;
        }
        let port = match state.open.get(&node_id).cloned() {
            Some(door) => {
                self.retarget(&mut state, &door, target);
                door.port
            }
            None => self.open_new(&mut state, node_id, target)?,
        };
        Some((self.advertise.clone(), port))
    }

    /// Whether an address is one that clients are told: ours, at a port where we listen.
    pub(super) fn is_local(&self, host: &[u8], port: i32) -> bool {
        host == self.advertise.as_bytes() && self.lock().open.values().any(|door| i32::from(door.port) == port)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a target is one of our own listeners, so that a connection to it would come back for ever.
    fn is_ours(&self, state: &State, target: &HostPort) -> bool {
        (target.host() == self.advertise || target.ip() == Some(self.listen.ip()))
            && (target.port() == self.listen.port() || state.open.values().any(|door| door.port == target.port()))
    }

    /// A known node may have moved.
    fn retarget(&self, state: &mut State, door: &NodeDoor, target: HostPort) {
        let mut present = door.target.lock().unwrap_or_else(PoisonError::into_inner);
        if *present == target {
            return;
        }
        let (cluster, node_id, port) = (&self.cluster, door.node_id, door.port);
        tracing::info!(cluster, node_id, from = %present, to = %target, port, "a broker moved");
        state.table.assign(node_id, port, &target);
        *present = target;
        drop(present);
        self.save(state);
    }

    /// Opens a listener on the first port that is to be had.
    fn open_new(&self, state: &mut State, node_id: i32, target: HostPort) -> Option<u16> {
        let (cluster, now) = (&self.cluster, Instant::now());
        if state.exhausted.is_some_and(|since| now.saturating_duration_since(since) < EXHAUSTED_REST) {
            self.refusals.note("hidden: no port left", now);
            return None;
        }
        let place = self.new_doors.try_reserve().ok()?;
        for port in state.table.candidates(node_id) {
            match listen(SocketAddr::new(self.listen.ip(), port)) {
                Ok(socket) => {
                    state.table.assign(node_id, port, &target);
                    self.save(state);
                    tracing::info!(cluster, node_id, %target, port, "a broker is reached here");
                    place.send(state.open(node_id, port, target, socket));
                    return Some(port);
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied) => {
                    tracing::debug!(cluster, node_id, port, %error, "port not to be had");
                }
                // Too many open files, an address that is gone: the next port fares no better.
                Err(error) => {
                    if let Some(held) = self.refusals.note("hidden: cannot listen", now) {
                        tracing::warn!(cluster, node_id, %target, port, held, %error, "cannot listen for a broker; it is hidden");
                    }
                    return None;
                }
            }
        }
        state.exhausted = Some(now);
        if let Some(held) = self.refusals.note("hidden: no port left", now) {
            tracing::warn!(cluster, node_id, %target, held, "no port is left for a broker; it is hidden: widen proxy.ports");
        }
        None
    }

    /// Puts the ports on the disk. Serving goes on without; the next start may then give other ports.
    fn save(&self, state: &State) {
        if let Err(error) = state.table.save()
            && let Some(held) = self.refusals.note("ports not saved", Instant::now())
        {
            let (cluster, path) = (&self.cluster, state.table.path().display());
            tracing::warn!(cluster, %path, %error, held, "ports of brokers cannot be saved; they may change at the next start");
        }
    }
}

impl State {
    /// Notes an open listener.
    fn open(&mut self, node_id: i32, port: u16, target: HostPort, socket: TcpListener) -> Door {
        let door = Arc::new(NodeDoor { node_id, port, target: Mutex::new(target), traffic: Traffic::default() });
        self.open.insert(node_id, Arc::clone(&door));
        Door { socket, to: To::Node(door) }
    }
}

/// Opens a listener; must be called within a tokio runtime.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    // A restart must get its ports back at once, whatever is in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}
