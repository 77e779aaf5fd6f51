//! The composition root: bind everything, spawn, report, drain.
//!
//! Rules kept here: every port is opened before anything runs, so that a start that cannot work fails at once and by name; the
//! domains meet only through `net::Dial`; one status is made of what each domain says of itself.

mod clusters;
mod operate;
pub mod probe;
mod reload;
mod report;
mod verdict;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::mpsc;

use self::clusters::{Advertised, Watched};
pub use self::reload::{Applied, Reloader};
use self::report::Source;
use crate::client::{ClientError, ClusterView};
use crate::config::{Config, Loaded, ProxyConfig};
use crate::control::{AdminError, AdminServer, Code};
use crate::lifecycle::Drain;
use crate::net::SharedDial;
use crate::net::tcp::TcpDial;
use crate::proxy::names::{Names, NamesError, NamesHandle, Zones};
use crate::proxy::rewriter::{Rewriter, RewriterError, RewriterHandle};
use crate::replicator::{Flow, FlowError};
use crate::tunnel::endpoint::TunnelError;
use crate::tunnel::endpoint::{Driver, Endpoint};
use crate::tunnel::exit::{Exit, ExitError};

/// Offers of the peer that wait for the exit at once; more are refused.
const OFFERS: usize = 1024;
/// Longest dial within the local network, names included.
const LOCAL_DIAL: Duration = Duration::from_secs(10);

/// Why an endpoint could not start or go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The admin port could not be opened.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The tunnel's settings are of no use.
    #[error(transparent)]
    Tunnel(#[from] TunnelError),
    /// The tunnel's port could not be opened.
    #[error(transparent)]
    TunnelPort(TunnelError),
    /// The rules of the exit are none.
    #[error(transparent)]
    Exit(#[from] ExitError),
    /// Mode `names` cannot start.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// Mode `rewrite` cannot start.
    #[error(transparent)]
    Rewrite(#[from] RewriterError),
    /// A cluster's TLS files are of no use.
    #[error("cluster {cluster}: {error}")]
    Cluster {
        /// Which cluster.
        cluster: String,
        /// What is wrong.
        error: ClientError,
    },
    /// A flow cannot be built.
    #[error(transparent)]
    Flow(#[from] FlowError),
    /// A flow has no credentials for one of its clusters.
    #[error("[[replicate]] {flow} copies from {peer} into {local}, but [{side}] has no security; add it")]
    NoCredentials {
        /// Name of the flow.
        flow: String,
        /// The peer's cluster.
        peer: String,
        /// The local cluster.
        local: String,
        /// The table that lacks it.
        side: &'static str,
    },
    /// The state directory cannot be made.
    #[error("state_dir {}: {error}", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
}

impl LinkError {
    /// The code under which it is known to the operator.
    #[must_use]
    pub const fn code(&self) -> Code {
        match self {
            Self::Admin(_) => Code::ADMIN_PORT,
            Self::Tunnel(_) | Self::Exit(_) | Self::Flow(_) => Code::CONFIG_VALUE,
            Self::TunnelPort(_) => Code::TUNNEL_PORT,
            Self::Names(NamesError::Dns { .. }) => Code::DNS_PORT,
            Self::Rewrite(RewriterError::Tls(_) | RewriterError::Users { .. }) => Code::CONFIG_SECRET,
            Self::Names(NamesError::Listen { .. }) | Self::Rewrite(_) => Code::PROXY_PORT,
            Self::Names(_) | Self::State { .. } => Code::CONFIG_VALUE,
            Self::Cluster { .. } => Code::CONFIG_SECRET,
            Self::NoCredentials { .. } => Code::CONFIG_MISSING,
        }
    }
}

/// The bound proxy.
enum Proxy {
    Off,
    Names(Names),
    Rewrite(Rewriter),
}

/// What is asked about the running proxy.
enum ProxyHandle {
    Off,
    Names(NamesHandle),
    Rewrite(RewriterHandle),
}

/// A bound endpoint: every port is open, nothing runs yet.
pub struct Link {
    addresses: Vec<(&'static str, SocketAddr)>,
    driver: Driver,
    exit: Exit,
    offers: mpsc::Receiver<Box<dyn crate::tunnel::Offer>>,
    proxy: Proxy,
    flows: Vec<Flow>,
    admin: Option<AdminServer>,
    source: Arc<Source>,
}

impl Link {
    /// Opens every port that `loaded` names.
    ///
    /// # Errors
    /// [`LinkError`], naming the port or the setting.
    pub async fn bind(loaded: &Loaded) -> Result<Self, LinkError> {
        let config = &loaded.config;
        std::fs::create_dir_all(&config.state_dir)
            .map_err(|error| LinkError::State { path: config.state_dir.clone(), error })?;
        let mut addresses = Vec::new();

        let (offers_in, offers) = mpsc::channel(OFFERS);
        let (endpoint, mut driver) = Endpoint::new(config.link.clone(), &config.tunnel, offers_in)?;
        let bound = driver.bind().await.map_err(LinkError::TunnelPort)?;
        addresses.extend(bound.map(|address| ("tunnel", address)));
        let exit = Exit::new(&config.expose, &config.local.bootstrap, &config.tunnel.limits)?;

        let through: SharedDial = Arc::new(endpoint.dialer());
        let here = probe::with_addresses(Arc::new(TcpDial::new(LOCAL_DIAL)), config.expose.resolve.clone());
        let cluster = |error, cluster: &str| LinkError::Cluster { cluster: cluster.to_owned(), error };
        let local = Watched::new(&config.local, Arc::clone(&here)).map_err(|e| cluster(e, &config.local.cluster))?;
        let peer = Watched::new(&config.peer, Arc::clone(&through)).map_err(|e| cluster(e, &config.peer.cluster))?;

        let (proxy, proxy_handle) = bind_proxy(config, &through, &mut addresses)?;
        let mut flows = Vec::new();
        for flow in &config.replicate {
            let missing = |side| LinkError::NoCredentials {
                flow: flow.name.clone(),
                peer: config.peer.cluster.clone(),
                local: config.local.cluster.clone(),
                side,
            };
            let source = peer.client().ok_or_else(|| missing("peer"))?.clone();
            let target = local.client().ok_or_else(|| missing("local"))?.clone();
            flows.push(Flow::new(flow, source, target)?);
        }
        let admin = match config.admin.listen {
            Some(listen) => Some(AdminServer::bind(listen, config.admin.token.clone()).await?),
            None => None,
        };
        addresses.extend(admin.as_ref().map(|admin| ("admin", admin.local_addr())));

        let source = Arc::new(Source {
            config: config.clone(),
            reloader: Reloader::new(loaded, endpoint.clone(), exit.rules()),
            since: SystemTime::now(),
            endpoint,
            tunnel_address: bound,
            exit: exit.status(),
            local: Arc::new(local),
            peer: Arc::new(peer),
            proxy: proxy_handle,
            flows: flows.iter().map(Flow::handle).collect(),
            local_dial: here,
            through,
        });
        Ok(Self { addresses, driver, exit, offers, proxy, flows, admin, source })
    }

    /// A handle for changing the configuration while the link runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.source.reloader.clone()
    }

    /// What is open, by what it is for.
    #[must_use]
    pub fn addresses(&self) -> &[(&'static str, SocketAddr)] {
        &self.addresses
    }

    /// Runs until `drain` begins, and ends when the tunnel has said goodbye; other tasks are waited for by the owner of `drain`.
    pub async fn run(self, drain: Drain) {
        let Self { driver, exit, offers, proxy, flows, admin, source, .. } = self;
        let policy = exit.policy();
        drain.spawn(exit.run(offers, drain.clone()));
        let mut advertised = Advertised::default();
        let learned = move |view: &ClusterView| policy.set_advertised(advertised.learn(view, Instant::now()));
        drain.spawn(Arc::clone(&source.local).watch(drain.clone(), learned));
        drain.spawn(Arc::clone(&source.peer).watch(drain.clone(), |_| {}));
        match proxy {
            Proxy::Off => {}
            Proxy::Names(names) => drain.spawn(names.run(drain.clone())),
            Proxy::Rewrite(rewriter) => drain.spawn(rewriter.run(drain.clone())),
        }
        // Flows end first, while the tunnel still carries their last answers.
        let copying = Drain::new();
        for flow in flows {
            copying.spawn(flow.run(copying.clone()));
        }
        if let Some(admin) = admin {
            drain.spawn(admin.run(drain.clone(), source));
        }
        let tunnel = Drain::new();
        let driving = driver.run(tunnel.clone());
        let stopping = async {
            drain.draining().await;
            copying.drain(FLOW_GRACE).await;
            tunnel.begin();
        };
        tokio::join!(driving, stopping);
    }
}

/// How long flows may take for the batches under way when told to stop.
const FLOW_GRACE: Duration = Duration::from_secs(4);

fn bind_proxy(
    config: &Config,
    through: &SharedDial,
    addresses: &mut Vec<(&'static str, SocketAddr)>,
) -> Result<(Proxy, ProxyHandle), LinkError> {
    let (cluster, bootstrap) = (&config.peer.cluster, &config.peer.bootstrap);
    Ok(match &config.proxy {
        ProxyConfig::Off => (Proxy::Off, ProxyHandle::Off),
        ProxyConfig::Names(names) => {
            Zones::new(&names.zones)?.assert_apart(&config.local.bootstrap)?;
            let names = Names::bind(names, cluster, bootstrap, Arc::clone(through), &config.state_dir)?;
            addresses.extend(names.dns_addrs().iter().map(|address| ("dns", *address)));
            addresses.extend(names.listeners().iter().map(|(_, address)| ("proxy", *address)));
            let handle = names.handle();
            (Proxy::Names(names), ProxyHandle::Names(handle))
        }
        ProxyConfig::Rewrite(rewrite) => {
            let rewriter = Rewriter::bind(rewrite, cluster, bootstrap.clone(), Arc::clone(through), &config.state_dir)?;
            addresses.push(("proxy", rewriter.local_addr()));
            let handle = rewriter.handle();
            (Proxy::Rewrite(rewriter), ProxyHandle::Rewrite(handle))
        }
    })
}

/// A random number for backoff: the standard library's keyed hasher, fresh each time.
fn random() -> u32 {
    use std::hash::{BuildHasher as _, Hasher as _};
    let bits = std::collections::hash_map::RandomState::new().build_hasher().finish();
    u32::try_from(bits >> 32).unwrap_or(u32::MAX)
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
