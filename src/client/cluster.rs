//! One cluster: bootstrap, brokers, and a pool of connections.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::ApiKey;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::connection::Stats;
use super::handshake::Login;
use super::{ClientError, ClusterView, Connection};
use crate::config::Security;
use crate::lifecycle::Backoff;
use crate::net::tls::TlsConnector;
use crate::net::{HostPort, SharedDial};
use crate::sasl::Authenticator;

/// How to reach one cluster.
#[derive(Debug, Clone)]
pub struct ClientSettings {
    /// The operator's name of the cluster, for errors and logs.
    pub cluster: String,
    /// Bootstrap servers, at least one.
    pub bootstrap: Vec<HostPort>,
    /// TLS and SASL.
    pub security: Security,
    /// What brokers log and account quotas by.
    pub client_id: String,
    /// Deadline of a request, on top of the time that the request itself lets the broker wait. At least 1 s.
    pub request_timeout: Duration,
    /// Deadline of TLS, versions and authentication together, after the dial.
    pub handshake_timeout: Duration,
}

impl ClientSettings {
    /// Settings with defaults: 30 s a request, 15 s a handshake, client id `linkspan`.
    #[must_use]
    pub fn new(cluster: String, bootstrap: Vec<HostPort>, security: Security) -> Self {
        Self {
            cluster,
            bootstrap,
            security,
            client_id: "linkspan".to_owned(),
            request_timeout: Duration::from_secs(30),
            handshake_timeout: Duration::from_secs(15),
        }
    }
}

/// A handle to one cluster; clones share connections and what is known of the cluster.
///
/// Must be used within a tokio runtime: each connection is driven by a task, which ends with its last [`Connection`].
#[derive(Clone)]
pub struct ClusterClient {
    inner: Arc<Inner>,
}

struct Inner {
    settings: ClientSettings,
    dial: SharedDial,
    tls: Option<TlsConnector>,
    sasl: Option<Arc<Authenticator>>,
    stats: Arc<Stats>,
    view: Mutex<Option<Arc<ClusterView>>>,
    last_error: Mutex<Option<String>>,
    /// The connection to whichever broker answered first: metadata and whatever any broker can say.
    any: Slot,
    slots: Mutex<HashMap<(i32, u16), Slot>>,
}

/// The place of one connection. Who opens it holds the lock; others wait for the outcome.
type Slot = Arc<tokio::sync::Mutex<Place>>;

struct Place {
    connection: Option<(Connection, Instant)>,
    backoff: Backoff,
    not_before: Option<Instant>,
}

/// What a client did so far, for status and metrics.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ClientSnapshot {
    /// The operator's name of the cluster.
    pub cluster: String,
    /// Kafka's cluster id, once known.
    pub cluster_id: Option<String>,
    /// Brokers of the newest view.
    pub brokers: usize,
    /// Connections open now.
    pub connections: usize,
    /// Connections opened so far.
    pub opened: u64,
    /// Requests answered.
    pub requests: u64,
    /// Bytes sent, frames included.
    pub bytes_sent: u64,
    /// Bytes received, frames included.
    pub bytes_received: u64,
    /// Milliseconds that brokers asked us to wait (quotas).
    pub throttled_ms: u64,
    /// The newest failure to open a connection; `None` once one was opened after it.
    pub last_error: Option<String>,
}

impl ClusterClient {
    /// A client that has dialled nothing yet. Reads the TLS files.
    ///
    /// # Errors
    /// [`ClientError::Tls`] for a file, [`ClientError::Invalid`] without bootstrap servers.
    pub fn new(settings: ClientSettings, dial: SharedDial) -> Result<Self, ClientError> {
        if settings.bootstrap.is_empty() {
            return Err(ClientError::Invalid {
                detail: format!("cluster {} has no bootstrap server", settings.cluster),
            });
        }
        let tls = settings.security.tls.as_ref().map(TlsConnector::new).transpose()?;
        let sasl = settings.security.sasl.as_ref().map(|sasl| Arc::new(Authenticator::new(sasl)));
        Ok(Self {
            inner: Arc::new(Inner {
                settings,
                dial,
                tls,
                sasl,
                stats: Arc::default(),
                view: Mutex::default(),
                last_error: Mutex::default(),
                any: Place::empty(),
                slots: Mutex::default(),
            }),
        })
    }

    /// The operator's name of the cluster.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.settings.cluster
    }

    /// A connection to a broker. Each (node, slot) has one connection, opened when first asked for and again after it broke, with
    /// growing pauses after failures. Users that must not wait for each other take different slots; [`ADMIN_SLOT`] is the client's own.
    ///
    /// # Errors
    /// [`ClientError::NoBroker`], and whatever dialling, TLS and authentication fail with.
    pub async fn connection(&self, node_id: i32, slot: u16) -> Result<Connection, ClientError> {
        let slot = Arc::clone(lock(&self.inner.slots).entry((node_id, slot)).or_insert_with(Place::empty));
        let mut place = slot.lock().await;
        if let Some(connection) = place.ready().await {
            return Ok(connection);
        }
        // After a failure the broker may have moved.
        let address = self.address(node_id, place.not_before.is_some()).await?;
        let opened = self.open(node_id, &address).await;
        place.settle(opened)
    }

    /// A connection to whichever broker can be reached: bootstrap servers first, then brokers known from before.
    ///
    /// # Errors
    /// [`ClientError::Bootstrap`] with what each of them failed with, or that failure itself where there is only one to ask.
    pub async fn any_connection(&self) -> Result<Connection, ClientError> {
        let mut place = self.inner.any.lock().await;
        if let Some(connection) = place.ready().await {
            return Ok(connection);
        }
        let mut candidates = shuffled(self.inner.settings.bootstrap.clone());
        let known = self.view().map(|view| view.brokers.iter().map(|broker| broker.address.clone()).collect());
        for address in shuffled(known.unwrap_or_default()).into_iter().take(MOST_KNOWN) {
            if !candidates.contains(&address) {
                candidates.push(address);
            }
        }
        let opened = self.open_first(candidates).await;
        place.settle(opened)
    }

    /// The newest view of the cluster, without asking.
    /// Kafka's own identifier of the cluster, as a broker told it last.
    #[must_use]
    pub fn cluster_id(&self) -> Option<String> {
        self.view()?.cluster_id.clone()
    }

    pub(super) fn view(&self) -> Option<Arc<ClusterView>> {
        lock(&self.inner.view).clone()
    }

    /// Takes a new view, and lets go of connections to brokers that are gone from it.
    pub(super) fn learn(&self, view: &ClusterView) {
        *lock(&self.inner.view) = Some(Arc::new(view.clone()));
        lock(&self.inner.slots).retain(|(node_id, _), _| view.broker(*node_id).is_some());
    }

    async fn address(&self, node_id: i32, refresh: bool) -> Result<HostPort, ClientError> {
        let of = |view: &ClusterView| view.broker(node_id).map(|broker| broker.address.clone());
        let known = self.view().as_deref().and_then(of);
        if let (Some(address), false) = (&known, refresh) {
            return Ok(address.clone());
        }
        match self.cluster().await {
            Ok(view) => {
                of(&view).ok_or_else(|| ClientError::NoBroker { cluster: self.inner.settings.cluster.clone(), node_id })
            }
            Err(error) => known.ok_or(error),
        }
    }

    async fn open(&self, node_id: i32, address: &HostPort) -> Result<Connection, ClientError> {
        let opened = self.try_open(node_id, address).await;
        *lock(&self.inner.last_error) = opened.as_ref().err().map(ToString::to_string);
        match &opened {
            Ok(_) => tracing::debug!(cluster = %self.name(), broker = %address, node_id, "connected"),
            Err(error) => tracing::debug!(cluster = %self.name(), broker = %address, node_id, %error, "not connected"),
        }
        opened
    }

    async fn try_open(&self, node_id: i32, address: &HostPort) -> Result<Connection, ClientError> {
        let Inner { settings, dial, tls, sasl, stats, .. } = &*self.inner;
        let login = Login {
            cluster: settings.cluster.clone(),
            broker: address.clone(),
            client_id: settings.client_id.clone(),
            sasl: sasl.clone(),
        };
        let stream = dial.dial(address).await?;
        let shaken = timeout(settings.handshake_timeout, async {
            let stream = match tls {
                Some(tls) => tls.connect(address, stream).await?,
                None => stream,
            };
            Connection::open(stream, node_id, login, settings.request_timeout, Arc::clone(stats)).await
        });
        shaken.await.unwrap_or_else(|_| {
            Err(ClientError::Timeout {
                broker: address.clone(),
                api: ApiKey::ApiVersions,
                after_ms: u64::try_from(settings.handshake_timeout.as_millis()).unwrap_or(u64::MAX),
            })
        })
    }

    /// The first of some addresses to be usable. The next is tried when one fails, or does not answer for a while.
    async fn open_first(&self, candidates: Vec<HostPort>) -> Result<Connection, ClientError> {
        let mut left = candidates.into_iter();
        let mut running = FuturesUnordered::new();
        let mut tried = Vec::new();
        loop {
            if let Some(address) = left.next() {
                running.push(async move { self.open(BOOTSTRAP_NODE, &address).await });
            }
            tokio::select! {
                biased;
                Some(opened) = running.next() => match opened {
                    Ok(connection) => return Ok(connection),
                    Err(error) => tried.push(error),
                },
                () = sleep(STAGGER), if left.len() > 0 => {}
                else => {}
            }
            if running.is_empty() && left.len() == 0 {
                return Err(match tried.pop() {
                    Some(only) if tried.is_empty() => only,
                    last => {
                        tried.extend(last);
                        ClientError::Bootstrap { cluster: self.inner.settings.cluster.clone(), tried }
                    }
                });
            }
        }
    }

    /// What this client did so far.
    #[must_use]
    pub fn snapshot(&self) -> ClientSnapshot {
        let Inner { settings, stats, .. } = &*self.inner;
        let view = self.view();
        ClientSnapshot {
            cluster: settings.cluster.clone(),
            cluster_id: view.as_ref().and_then(|view| view.cluster_id.clone()),
            brokers: view.as_ref().map_or(0, |view| view.brokers.len()),
            connections: stats.open.load(Ordering::Relaxed),
            opened: stats.opened.load(Ordering::Relaxed),
            requests: stats.requests.load(Ordering::Relaxed),
            bytes_sent: stats.traffic.sent.load(Ordering::Relaxed),
            bytes_received: stats.traffic.received.load(Ordering::Relaxed),
            throttled_ms: stats.throttled_ms.load(Ordering::Relaxed),
            last_error: lock(&self.inner.last_error).clone(),
        }
    }
}

impl Place {
    fn empty() -> Slot {
        let backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
        Arc::new(tokio::sync::Mutex::new(Self { connection: None, backoff, not_before: None }))
    }

    /// The connection, if it works; else waits until a new one may be tried.
    async fn ready(&mut self) -> Option<Connection> {
        if let Some((connection, opened)) = &self.connection {
            if connection.failure().is_none() {
                return Some(connection.clone());
            }
            // One that broke as soon as it was open is a failure to open, or two peers would spin.
            if opened.elapsed() < SETTLED {
                self.pause();
            } else {
                self.backoff.reset();
            }
            self.connection = None;
        }
        if let Some(at) = self.not_before {
            sleep_until(at).await;
        }
        None
    }

    fn settle(&mut self, opened: Result<Connection, ClientError>) -> Result<Connection, ClientError> {
        match &opened {
            Ok(connection) => {
                self.connection = Some((connection.clone(), Instant::now()));
                self.not_before = None;
            }
            Err(_) => self.pause(),
        }
        opened
    }

    fn pause(&mut self) {
        self.not_before = Some(Instant::now() + self.backoff.next(random()));
    }
}

/// The slot for metadata and admin calls, apart from those that carry records.
pub const ADMIN_SLOT: u16 = u16::MAX;
/// The node id of a connection to a bootstrap server, whose own id is not known.
const BOOTSTRAP_NODE: i32 = -1;
/// Most brokers tried beside the bootstrap servers.
const MOST_KNOWN: usize = 16;
/// After so long without an outcome the next address is tried beside the first.
const STAGGER: Duration = Duration::from_secs(1);
/// Pauses between attempts to open one connection.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that lived so long was a good one.
const SETTLED: Duration = Duration::from_secs(1);

pub(super) fn random() -> u32 {
    let mut bytes = [0; 4];
    // Only used to spread load: without randomness nothing is spread.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    u32::from_ne_bytes(bytes)
}

fn shuffled(mut list: Vec<HostPort>) -> Vec<HostPort> {
    for at in (1..list.len()).rev() {
        list.swap(at, random() as usize % (at + 1));
    }
    list
}

/// Nothing that holds these locks can panic half-way through a change.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for ClusterClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterClient").field("cluster", &self.inner.settings.cluster).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::{ListGroupsRequest, ListGroupsResponse};
    use tokio::net::TcpListener;

    use super::*;
    use crate::client::fake_broker::{FakeBroker, client};
    use crate::net::tcp::TcpDial;

    /// An address where nobody listens.
    async fn nobody() -> HostPort {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        listener.local_addr().expect("bound").into()
    }

    #[tokio::test]
    async fn one_bootstrap_server_in_reach_is_enough() {
        let broker = FakeBroker::bind().await;
        let client = client(vec![nobody().await, broker.address.clone(), nobody().await]);
        let serve = async {
            let mut guest = broker.welcome().await;
            guest.tell_brokers(&[(2, &broker.address)]).await;
            guest
        };
        let (view, _guest) = tokio::join!(client.cluster(), serve);
        let view = view.expect("a view");
        assert_eq!((view.cluster_id.as_deref(), view.controller), (Some("id"), Some(2)));
        assert_eq!(view.broker(2).map(|one| &one.address), Some(&broker.address));
        let snapshot = client.snapshot();
        assert_eq!((snapshot.brokers, snapshot.connections, snapshot.last_error), (1, 1, None));
    }

    #[tokio::test]
    async fn with_no_bootstrap_server_in_reach_each_is_named() {
        let (first, second) = (nobody().await, nobody().await);
        let error = client(vec![first.clone(), second.clone()]).cluster().await.expect_err("an error");
        let text = error.to_string();
        assert!(text.starts_with("cluster orange: no bootstrap server could be used: "), "{text}");
        for one in [first.clone(), second] {
            assert!(text.contains(&format!("{one} refused the connection")), "{text}");
        }
        let error = client(vec![first]).cluster().await.expect_err("an error");
        assert!(matches!(error, ClientError::Dial(_)), "{error}");
        let settings = ClientSettings::new("orange".into(), vec![], Security::default());
        assert!(ClusterClient::new(settings, Arc::new(TcpDial::new(Duration::from_secs(1)))).is_err());
    }

    #[tokio::test]
    async fn brokers_are_dialled_where_they_say_once_a_slot_and_again_when_broken() {
        let (bootstrap, broker) = (FakeBroker::bind().await, FakeBroker::bind().await);
        let client = client(vec![bootstrap.address.clone()]);
        let serve_bootstrap = async {
            let mut guest = bootstrap.welcome().await;
            for _ in 0..2 {
                guest.tell_brokers(&[(7, &broker.address)]).await;
            }
            guest
        };
        let caller = async {
            let (first, second) = tokio::join!(client.connection(7, 0), client.connection(7, 0));
            let (first, second) = (first.expect("a connection"), second.expect("a connection"));
            assert!(Arc::ptr_eq(&first.shared, &second.shared));
            assert_eq!((first.node_id(), first.broker()), (7, &broker.address));
            assert!(first.ask(ListGroupsRequest::default()).await.is_err());
            let third = client.connection(7, 0).await.expect("a new connection");
            assert!(!Arc::ptr_eq(&first.shared, &third.shared));
            assert_eq!(third.ask(ListGroupsRequest::default()).await.expect("an answer").error_code, 0);
        };
        let serve = async {
            let mut guest = broker.welcome().await;
            guest.expect(ApiKey::ListGroups).await;
            drop(guest);
            let mut guest = broker.welcome().await;
            let asked = guest.expect(ApiKey::ListGroups).await;
            guest.answer(&asked, &ListGroupsResponse::default()).await;
        };
        tokio::join!(caller, serve_bootstrap, serve);
        assert_eq!(client.snapshot().opened, 3);
    }

    #[tokio::test]
    async fn a_broker_that_the_cluster_does_not_have_is_named() {
        let broker = FakeBroker::bind().await;
        let client = client(vec![broker.address.clone()]);
        let serve = async {
            let mut guest = broker.welcome().await;
            guest.tell_brokers(&[(2, &broker.address)]).await;
            guest
        };
        let (missing, _guest) = tokio::join!(client.connection(9, 0), serve);
        assert_eq!(missing.expect_err("an error").to_string(), "cluster orange has no broker 9");
    }
}
