//! Looking: each part bounded in time, parts side by side, so that the whole takes as long as the slowest.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::Category;
use crate::cli::admin::Admin;
use crate::cli::exit::Failure;
use crate::cli::source::Found;
use crate::config::{AddressPlan, Config, ProxyConfig, TunnelAuth, TunnelRole};
use crate::control::facts::{
    Answer, CertificateFact, ClusterFact, ClusterProbe as _, ConfigFact, Fact, NameFact, NameOf, PortFact, PortOf,
    PortState, ProcessFact, Side, TunnelFact,
};
use crate::control::{Status, TunnelState};
use crate::link::probe::{ClusterVisit, handshake};
use crate::net::HostPort;
use crate::net::tcp::TcpDial;
use crate::tunnel::secret;

/// How long the running endpoint may take to say what it is.
const ADMIN_DEADLINE: Duration = Duration::from_secs(2);
/// How long it may take to examine the peer's cluster; its own bound is 12 s.
const PEER_DEADLINE: Duration = Duration::from_secs(13);
/// How long one name may take.
const NAME_DEADLINE: Duration = Duration::from_secs(3);
/// How long one connection to a broker may take.
const DIAL_DEADLINE: Duration = Duration::from_secs(3);
/// Listeners of the proxy that are tried; their addresses are alike.
const MAX_PORTS: usize = 16;

/// Everything that can be found out about `found`, in the categories that are wanted.
///
/// # Errors
/// Only for an `admin` that is no address.
pub(super) async fn gather(
    found: &Found,
    admin: Option<&str>,
    wanted: &(dyn Fn(Category) -> bool + Sync),
) -> Result<Vec<Fact>, Failure> {
    let Some(config) = &found.config else {
        return Ok(vec![Fact::Config(config_fact(found, None))]);
    };
    let mut facts = Vec::new();
    match &config.tunnel.auth {
        TunnelAuth::Noise { secret } => {
            let judged = secret::check_strength(secret).map_err(|weak| weak.to_string());
            facts.push(Fact::Config(config_fact(found, Some(judged))));
        }
        TunnelAuth::Tls { cert, .. } => {
            facts.push(Fact::Config(config_fact(found, None)));
            let days_left = days_left(cert, SystemTime::now());
            facts.push(Fact::Certificate(CertificateFact { path: cert.display().to_string(), days_left }));
        }
    }
    let admin = match admin {
        Some(text) => Some(Admin::parse(text)?),
        None => config.admin.listen.map(Admin::of),
    };
    let (process, status) = process(config, admin.as_ref()).await;
    let (names, tunnel, local, peer) = tokio::join!(
        async { if wanted(Category::Names) { names(config).await } else { Vec::new() } },
        async { if wanted(Category::Tunnel) { Some(tunnel(config, status.as_ref()).await) } else { None } },
        async { if wanted(Category::Local) { Some(local(config).await) } else { None } },
        async {
            if wanted(Category::Peer) { peer(config, admin.as_ref(), status.is_some()).await } else { Vec::new() }
        },
    );
    facts.push(Fact::Process(process));
    facts.extend(names);
    if wanted(Category::Ports) {
        facts.extend(ports(config, status.is_some()));
    }
    facts.extend(tunnel.map(Fact::Tunnel));
    facts.extend(local.map(Fact::Cluster));
    facts.extend(peer);
    facts.extend(status.map(|status| Fact::Problems(status.reasons)));
    Ok(facts)
}

fn config_fact(found: &Found, secret: Option<Result<(), String>>) -> ConfigFact {
    ConfigFact { path: found.path.clone(), errors: found.errors.clone(), warnings: found.warnings.clone(), secret }
}

/// Whole days until the first certificate of a PEM file ends.
fn days_left(path: &std::path::Path, now: SystemTime) -> Result<i64, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    let (_, pem) =
        x509_parser::pem::parse_x509_pem(&pem).map_err(|_| "there is no PEM certificate in it".to_owned())?;
    let certificate = pem.parse_x509().map_err(|_| "the certificate cannot be read".to_owned())?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let left = certificate.validity().not_after.timestamp() - i64::try_from(now).unwrap_or(i64::MAX);
    Ok(left.div_euclid(86_400))
}

async fn process(config: &Config, admin: Option<&Admin>) -> (ProcessFact, Option<Status>) {
    let Some(admin) = admin else {
        return (ProcessFact { address: None, answer: Answer::Silent("it cannot be asked".to_owned()) }, None);
    };
    let fact = |answer| ProcessFact { address: Some(admin.address()), answer };
    match admin.status(ADMIN_DEADLINE).await {
        Ok(status) if status.link == config.link => {
            (fact(Answer::Ours { version: status.version.clone() }), Some(status))
        }
        Ok(status) => (fact(Answer::Other(format!("an endpoint of link {} answers", status.link))), None),
        Err(failure) if failure.exit == crate::cli::exit::Exit::Unreachable => {
            (fact(Answer::Silent("nothing answers there".to_owned())), None)
        }
        Err(failure) => (fact(Answer::Other(failure.what)), None),
    }
}

async fn names(config: &Config) -> Vec<Fact> {
    let mut wanted: Vec<(NameOf, &HostPort)> =
        config.local.bootstrap.iter().map(|target| (NameOf::LocalBootstrap, target)).collect();
    if let TunnelRole::Dial(peer) = &config.tunnel.role {
        wanted.push((NameOf::Peer, peer));
    }
    let looked = wanted.into_iter().filter(|(_, target)| target.ip().is_none()).map(|(of, target)| async move {
        let fixed = config.expose.resolve.get(target.host()).filter(|_| of == NameOf::LocalBootstrap);
        let found = match fixed {
            Some(addresses) => Ok(addresses.iter().map(|address| format!("{address} (by [expose] resolve)")).collect()),
            None => resolve(target).await,
        };
        Fact::Name(NameFact { of, name: target.host().to_owned(), found })
    });
    futures_util::future::join_all(looked).await
}

async fn resolve(target: &HostPort) -> Result<Vec<String>, String> {
    let asked = tokio::net::lookup_host((target.host(), target.port()));
    match tokio::time::timeout(NAME_DEADLINE, asked).await {
        Ok(Ok(addresses)) => {
            let mut found: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
            found.dedup();
            if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("the resolver did not answer within {} s", NAME_DEADLINE.as_secs())),
    }
}

fn ports(config: &Config, running: bool) -> Vec<Fact> {
    let mut wanted: Vec<(PortOf, SocketAddr, bool)> = Vec::new();
    if let TunnelRole::Listen(address) = &config.tunnel.role {
        wanted.push((PortOf::Tunnel, *address, false));
    }
    match &config.proxy {
        ProxyConfig::Off => {}
        ProxyConfig::Names(names) => {
            for address in &names.dns_listen {
                wanted.extend([(PortOf::Dns, *address, true), (PortOf::Dns, *address, false)]);
            }
            let address = match names.addresses {
                // The first address after that of the network itself; the others differ in nothing but their number.
                AddressPlan::PerName(network, _) => {
                    IpAddr::from(std::net::Ipv4Addr::from(u32::from(network).saturating_add(1)))
                }
                AddressPlan::Shared(address) => address,
            };
            let ports = names.ports.iter().take(MAX_PORTS);
            wanted.extend(ports.map(|port| (PortOf::Proxy, SocketAddr::new(address, *port), false)));
        }
        ProxyConfig::Rewrite(rewrite) => {
            wanted.push((PortOf::Proxy, rewrite.listen, false));
            let ports = rewrite.ports.clone().filter(|port| *port != rewrite.listen.port()).take(MAX_PORTS);
            wanted.extend(ports.map(|port| (PortOf::Proxy, SocketAddr::new(rewrite.listen.ip(), port), false)));
        }
    }
    wanted.extend(config.admin.listen.map(|address| (PortOf::Admin, address, false)));
    wanted
        .into_iter()
        .map(|(of, address, udp)| {
            let state = if running { PortState::Held } else { try_port(address, udp) };
            let address = if udp { format!("{address}/udp") } else { address.to_string() };
            Fact::Port(PortFact { of, address, state })
        })
        .collect()
}

fn try_port(address: SocketAddr, udp: bool) -> PortState {
    let opened = if udp { UdpSocket::bind(address).map(drop) } else { TcpListener::bind(address).map(drop) };
    match opened {
        Ok(()) => PortState::Free,
        Err(error) => PortState::Failed(match error.kind() {
            io::ErrorKind::AddrInUse => "another program holds it".to_owned(),
            io::ErrorKind::PermissionDenied => "this user may not open it".to_owned(),
            io::ErrorKind::AddrNotAvailable => "it is not an address of this host".to_owned(),
            _ => error.to_string(),
        }),
    }
}

async fn tunnel(config: &Config, running: Option<&Status>) -> TunnelFact {
    if let Some(status) = running {
        let tunnel = &status.tunnel;
        return TunnelFact::Running {
            state: tunnel.state,
            address: tunnel
                .peer
                .clone()
                .filter(|_| tunnel.state == TunnelState::Up)
                .unwrap_or_else(|| tunnel.address.clone()),
            rtt_us: tunnel.rtt_ms.map(|ms| (ms * 1000.0).max(0.0) as u64),
            last_error: tunnel.last_error.clone(),
            dials: tunnel.role == crate::control::TunnelRole::Dial,
        };
    }
    match &config.tunnel.role {
        TunnelRole::Dial(peer) => {
            let address = peer.to_string();
            let result = Box::pin(handshake(&config.tunnel, &config.link, &address)).await;
            TunnelFact::Tried { address, result }
        }
        TunnelRole::Listen(_) => {
            TunnelFact::Skipped("this side listens; the peer can be seen once `linkspan run` runs".to_owned())
        }
    }
}

async fn local(config: &Config) -> ClusterFact {
    let dial = crate::link::probe::with_addresses(Arc::new(TcpDial::new(DIAL_DEADLINE)), config.expose.resolve.clone());
    let found = ClusterVisit::new(config.local.clone(), dial).probe().await;
    ClusterFact { side: Side::Local, cluster: config.local.cluster.clone(), found: Ok(found) }
}

/// Only the running endpoint has the tunnel.
async fn peer(config: &Config, admin: Option<&Admin>, running: bool) -> Vec<Fact> {
    let skipped = |why: String| {
        vec![Fact::Cluster(ClusterFact { side: Side::Peer, cluster: config.peer.cluster.clone(), found: Err(why) })]
    };
    let (Some(admin), true) = (admin, running) else {
        return skipped("linkspan is not running here, and only it has the tunnel".to_owned());
    };
    let page = match admin.get("/api/v1/check", PEER_DEADLINE).await {
        Ok(page) => page,
        Err(error) => return skipped(format!("the running endpoint did not say: {error}")),
    };
    if page.status != 200 {
        return skipped(format!("the running endpoint did not say: {}", page.body.trim()));
    }
    match serde_json::from_str::<Vec<Fact>>(&page.body) {
        Ok(facts) => {
            let found: Vec<Fact> = facts
                .into_iter()
                .filter(|fact| matches!(fact, Fact::Cluster(cluster) if cluster.side == Side::Peer))
                .collect();
            if found.is_empty() { skipped("the running endpoint does not examine it".to_owned()) } else { found }
        }
        Err(error) => skipped(format!("the running endpoint is of another version: {error}")),
    }
}
