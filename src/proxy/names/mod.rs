//! Mode `names`: clients here reach the peer's brokers under the brokers' own names.
//!
//! An embedded DNS server answers names of the peer's zones with addresses of this host; whoever connects there is spliced to that name
//! through a [`SharedDial`]. Host names stay what they are, so TLS with its host name checks, mutual TLS, GSSAPI and request signing
//! work as they do beside the brokers, in every present and future version of Kafka: nothing of Kafka is read here.
//!
//! Two ways to tell brokers apart ([`crate::config::AddressPlan`]): each name has an address of its own, for clients on this host; or all
//! names share one address and the SNI of the ClientHello says which is meant, for clients on other hosts.
//!
//! Rules kept here:
//! * An address once given to a name is its own for ever, and on the disk before it is answered.
//! * A name of the zones is never denied while an address is left, and is answered whether or not the tunnel is up.
//! * A name is answered only while all its ports are open here.
//! * Names that the cluster beside this process uses are never in the zones ([`Zones::assert_apart`]).
//!
//! # Why the DNS sockets are our own
//! hickory's decoder and encoder do the work on messages. Its server (0.26.3) is not used: it reserves room for as many questions as a
//! header claims (12 bytes of a datagram cost 11 MiB), has no bound on questions under way, and spins on a failed accept.

pub mod allocate;
mod directory;
pub mod dns;
mod forward;
mod listener;
pub mod print;
mod quiet;
mod server;
pub mod sni;
mod status;
mod store;
mod tally;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_shared;
mod zones;

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::{TcpListener, UdpSocket};

use self::directory::Directory;
use self::forward::Upstreams;
use self::listener::Gate;
pub use self::listener::MAX_CONNECTIONS;
use self::server::Service;
pub use self::status::{NameStatus, NamesHandle, NamesStatus};
pub use self::zones::Zones;
use crate::config::NamesConfig;
use crate::lifecycle::Drain;
use crate::net::{HostPort, SharedDial};

/// Why mode `names` cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamesError {
    /// No zone is set, and the bootstrap servers have none.
    #[error("no zone to answer; set proxy.zones to the domains of the peer's brokers")]
    NoZone,
    /// A zone is no domain name.
    #[error("zone `{0}` is not a domain name")]
    BadZone(String),
    /// A name of the local cluster would be answered as one of the peer's.
    #[error("{name} of the local cluster is in the peer's zone {zone}; narrow proxy.zones to the peer's names")]
    OwnName {
        /// The local name.
        name: String,
        /// The zone of the peer.
        zone: String,
    },
    /// No port to listen on.
    #[error("no port to listen on; set proxy.ports to the ports of the peer's brokers")]
    NoPort,
    /// The shared address is 0.0.0.0 or ::, which no client can connect to.
    #[error("clients cannot be told to connect to {0}; set proxy.addresses to an address of this host that they reach")]
    BadShared(IpAddr),
    /// The network for addresses cannot be used.
    #[error(transparent)]
    Network(#[from] allocate::AllocateError),
    /// The state directory or the file in it cannot be used.
    #[error("{}: {error}", path.display())]
    State {
        /// Directory or file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The DNS server cannot listen. Port 53 needs the right to open low ports (CAP_NET_BIND_SERVICE).
    #[error("cannot listen for DNS on {address}: {error}")]
    Dns {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
    /// A listener that nothing works without cannot be opened.
    #[error("cannot listen for clients on {address}: {error}; is it an address of this host, and free?")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// What the system said.
        error: std::io::Error,
    },
}

/// Mode `names`, with all its sockets open and nothing running yet.
#[derive(Debug)]
pub struct Names {
    dns: Vec<(UdpSocket, TcpListener)>,
    handle: NamesHandle,
}

impl Names {
    /// Opens the DNS sockets and the listeners of all names known: those of earlier runs and of `bootstrap`. Spawns nothing; must be called
    /// within a tokio runtime with its I/O driver.
    ///
    /// `cluster` is the peer's name in logs and status. A bootstrap server outside the zones, or given as an address, cannot be served by
    /// name: it is named in a warning and left out. Where `config` has no ports, those of `bootstrap` are taken. Port 0 takes any
    /// free port, and connections to it are dialled at that number.
    ///
    /// # Errors
    /// See [`NamesError`]. A port in use at the address of one name is none: that name is not answered until the port is free, and status
    /// says so.
    pub fn bind(
        config: &NamesConfig,
        cluster: &str,
        bootstrap: &[HostPort],
        dial: SharedDial,
        state_dir: &Path,
    ) -> Result<Self, NamesError> {
        let zones = Zones::new(&config.zones)?;
        let mut ports = config.ports.clone();
        if ports.is_empty() {
            ports.extend(bootstrap.iter().map(HostPort::port));
        }
        ports.sort_unstable();
        ports.dedup();
        if ports.is_empty() {
            return Err(NamesError::NoPort);
        }
        let (inside, outside): (Vec<_>, Vec<_>) =
            bootstrap.iter().partition(|server| server.ip().is_none() && zones.of(server.host()).is_some());
        for server in outside {
            tracing::warn!(cluster, %server, "bootstrap server is an address or in no zone, so clients cannot reach it by name; see proxy.zones");
        }
        let mut first: Vec<_> = inside.into_iter().map(HostPort::host).collect();
        let mut seen = std::collections::HashSet::new();
        first.retain(|name| seen.insert(*name));

        let dns = config.dns_listen.iter().map(|&address| server::bind(address)).collect::<Result<Vec<_>, _>>()?;
        let addresses: Vec<_> = dns.iter().filter_map(|(udp, _)| udp.local_addr().ok()).collect();
        let gate = Arc::new(Gate::new(dial, MAX_CONNECTIONS));
        let directory =
            Arc::new(Directory::open(&config.addresses, zones, ports, &first, state_dir, Arc::clone(&gate))?);
        let upstreams = Upstreams::new(&config.forward, &addresses);
        let service = Arc::new(Service::new(Arc::clone(&directory), upstreams));
        let handle = NamesHandle { cluster: cluster.into(), dns: addresses.into(), directory, gate, service };
        Ok(Self { dns, handle })
    }

    /// Where DNS is answered, UDP and TCP alike.
    #[must_use]
    pub fn dns_addrs(&self) -> &[SocketAddr] {
        &self.handle.dns
    }

    /// Where clients are accepted: each with the name it leads to, or none where the SNI decides.
    #[must_use]
    pub fn listeners(&self) -> Vec<(Option<String>, SocketAddr)> {
        self.handle.listeners()
    }

    /// What is going on, now.
    #[must_use]
    pub fn status(&self) -> NamesStatus {
        self.handle.status()
    }

    /// A handle that outlives [`Names::run`].
    #[must_use]
    pub fn handle(&self) -> NamesHandle {
        self.handle.clone()
    }

    /// Answers and accepts until `drain` begins to drain; connections then run to their ends, or to the force of `drain`.
    pub async fn run(self, drain: Drain) {
        let NamesHandle { directory, gate, service, .. } = self.handle;
        gate.start(&directory, &drain);
        for (udp, tcp) in self.dns {
            drain.spawn(Arc::clone(&service).serve_udp(udp, drain.clone()));
            drain.spawn(Arc::clone(&service).serve_tcp(tcp, drain.clone()));
        }
        // Connections look the directory up through a weak reference: it has to live as long as they do.
        let held = Arc::clone(&directory);
        drain.draining().await;
        drop(held);
    }
}
