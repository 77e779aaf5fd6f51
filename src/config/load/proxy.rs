//! `[proxy]`: how local clients reach the peer's brokers.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use super::super::error::{ErrorCode, nearest};
use super::super::raw::{Node, Reader, Section};
use super::super::{
    AddressPlan, ClientsConfig, ClusterConfig, Forward, NamesConfig, ProxyConfig, RewriteConfig, Sasl, TlsClient,
    TlsServer, value,
};
use super::cluster::{SASL_KEYS, sasl, tls_client};
use super::file;
use crate::kafka::api;
use crate::net::HostPort;

pub(super) const PROXY: &[&str] = &[
    "mode",
    "dns_listen",
    "zones",
    "addresses",
    "ports",
    "forward",
    "listen",
    "advertise",
    "upstream_tls",
    "auth",
    "clients",
];
pub(super) const UPSTREAM_TLS: &[&str] = &["ca_file", "cert_file", "key_file", "verify_hostname"];
const MODES: &[&str] = &["names", "rewrite", "off"];
const NAMES_KEYS: &[&str] = &["dns_listen", "zones", "addresses", "forward"];
const REWRITE_KEYS: &[&str] = &["listen", "advertise", "upstream_tls", "auth"];
/// Why nothing can be asked of clients whose bytes are not read.
const CLIENTS_UNREAD: &str = "in mode \"names\" the bytes of clients pass unread, within their own TLS, so that nothing can be \
     asked of them or denied to them; mode \"rewrite\" can";
pub(super) const CLIENTS: &[&str] = &[
    "tls",
    "users_file",
    "proxy_protocol",
    "read_only",
    "deny",
    "connections",
    "bytes_in_per_second",
    "bytes_out_per_second",
];
/// Rates of a client: below the least, one buffer of a connection would hold it up for seconds.
const RATES: RangeInclusive<u64> = 64 << 10..=64 << 30;
/// What no client can do without.
const UNDENIABLE: &[i16] = &[api::API_VERSIONS, api::SASL_HANDSHAKE, api::SASL_AUTHENTICATE, api::METADATA];
pub(super) const CLIENTS_TLS: &[&str] = &["cert_file", "key_file", "client_ca_file"];
/// The variable that wins over the password file of `proxy.auth`.
const PASSWORD_OVERRIDE: &str = "LINKSPAN_PROXY_PASSWORD";

/// Port 5300: no privilege is needed for it, and it is not 5353, which mDNS responders hold on many hosts.
const DNS_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5300);
const REWRITE_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 19_092);

pub(super) fn read(
    reader: &mut Reader<'_>,
    root: &Section<'_>,
    local: Option<&ClusterConfig>,
    peer: Option<&ClusterConfig>,
) -> Option<ProxyConfig> {
    // A file without the section opens no ports; one with it wants names, unless it says otherwise.
    if !root.has("proxy") {
        reader.default("proxy.mode", "\"off\"");
        return Some(ProxyConfig::Off);
    }
    let section = root.table(reader, "proxy", PROXY)?;
    let mode = match section.get("mode") {
        None => {
            reader.default("proxy.mode", "\"names\"");
            "names"
        }
        Some(node) => MODES[node.word(reader, MODES)?],
    };
    match mode {
        "names" => {
            section.unused(reader, REWRITE_KEYS, "it belongs to mode \"rewrite\", and the mode is \"names\"");
            section.unused(reader, &["clients"], CLIENTS_UNREAD);
            names(reader, &section, local, peer).map(ProxyConfig::Names)
        }
        "rewrite" => {
            section.unused(reader, NAMES_KEYS, "it belongs to mode \"names\", and the mode is \"rewrite\"");
            rewrite(reader, &section, peer).map(Box::new).map(ProxyConfig::Rewrite)
        }
        _ => {
            for keys in [NAMES_KEYS, REWRITE_KEYS, &["ports", "clients"]] {
                section.unused(reader, keys, "the mode is \"off\"");
            }
            Some(ProxyConfig::Off)
        }
    }
}

fn names(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    local: Option<&ClusterConfig>,
    peer: Option<&ClusterConfig>,
) -> Option<NamesConfig> {
    let dns_listen = match section.get("dns_listen") {
        None => {
            reader.default("proxy.dns_listen", format!("[\"{DNS_LISTEN}\"]"));
            Some(vec![DNS_LISTEN])
        }
        Some(node) if node.is_array() => node.full_list(reader, value::SOCKET, value::socket),
        Some(node) => node.parse(reader, value::SOCKET, value::socket).map(|address| vec![address]),
    };
    let zones = zones(reader, section, local, peer);
    let addresses = match section.get("addresses") {
        None => {
            reader.default("proxy.addresses", "\"127.77.0.0/16\"");
            Some(AddressPlan::PerName(Ipv4Addr::new(127, 77, 0, 0), 16))
        }
        Some(node) => node.parse(reader, value::ADDRESSES, value::addresses),
    };
    let ports = match section.get("ports") {
        None => {
            let ports: BTreeSet<u16> = peer.iter().flat_map(|p| &p.bootstrap).map(HostPort::port).collect();
            reader.default("proxy.ports", format!("{ports:?}").replace(['{', '}'], "").trim());
            Some(ports.into_iter().collect())
        }
        Some(node) => port_list(reader, &node),
    };
    let forward = match section.get("forward") {
        None => {
            reader.default("proxy.forward", "\"refuse\"");
            Some(Forward::Refuse)
        }
        Some(node) if node.is_array() => {
            let allowed = "a DNS server's address, for example \"1.1.1.1:53\"";
            node.full_list(reader, allowed, value::dns_server).map(Forward::Servers)
        }
        Some(node) if node.is_str() => node
            .word(reader, &["refuse", "system"])
            .map(|index| if index == 0 { Forward::Refuse } else { Forward::System }),
        Some(node) => {
            node.wrong_type(reader, "\"refuse\", \"system\", or a list of servers such as [\"1.1.1.1:53\"]");
            None
        }
    };
    Some(NamesConfig {
        dns_listen: dns_listen?,
        zones: zones?,
        addresses: addresses?,
        ports: ports?,
        forward: forward?,
    })
}

fn zones(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    local: Option<&ClusterConfig>,
    peer: Option<&ClusterConfig>,
) -> Option<Vec<String>> {
    let written = section.get("zones");
    let (zones, at) = match &written {
        Some(node) => {
            let zones = node.full_list(reader, "a domain, for example \"orange.example\"", value::zone)?;
            (zones, node.at.clone())
        }
        None => {
            // Without a peer there was a mistake already.
            let zones = zones_of_hosts(&peer?.bootstrap);
            if zones.is_empty() {
                let hint = "set mode = \"rewrite\" or \"off\", or bootstrap servers by name";
                let at = section.at.clone();
                reader.report(
                    ErrorCode::Conflict,
                    &at,
                    "mode \"names\" needs names, and the peer's bootstrap servers are addresses",
                    hint,
                );
                return None;
            }
            reader.default("proxy.zones", format!("{zones:?}"));
            (zones, section.at.clone())
        }
    };
    // A local broker whose name is answered with an address of the tunnel could not be reached any more.
    let covered = |host: &str| zones.iter().find(|zone| in_zone(host, zone));
    let clash = local.into_iter().flat_map(|l| &l.bootstrap).find_map(|server| Some((server, covered(server.host())?)));
    if let Some((server, zone)) = clash {
        let problem = format!("the zone `{zone}` covers the local cluster's own broker {}", server.host());
        let hint = "set `zones` to names that only the peer has, or mode = \"rewrite\" or \"off\"";
        reader.report(ErrorCode::Conflict, &at, problem, hint);
        return None;
    }
    Some(zones)
}

/// Zones for the names of bootstrap servers: the domain around each, or the name itself where the domain would be a
/// top-level one.
pub(in super::super) fn zones_of_hosts(servers: &[HostPort]) -> Vec<String> {
    let mut zones = BTreeSet::new();
    for server in servers.iter().filter(|server| server.ip().is_none()) {
        let name = server.host();
        let domain = name.split_once('.').map(|(_, domain)| domain).filter(|domain| domain.contains('.'));
        zones.insert(domain.unwrap_or(name).to_owned());
    }
    zones.into_iter().collect()
}

/// Whether a name is the zone or below it.
pub(in super::super) fn in_zone(name: &str, zone: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn port_list(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<Vec<u16>> {
    let elements = node.array(reader, "a list of ports, for example [9092, 9093]")?;
    if elements.is_empty() {
        reader.report(ErrorCode::Invalid, &node.at, "this list is empty", "at least one port");
        return None;
    }
    let mut ports = BTreeSet::new();
    for element in &elements {
        let port = element.int(reader, 1..=65_535).and_then(|port| u16::try_from(port).ok());
        if let Some(port) = port
            && !ports.insert(port)
        {
            reader.report(ErrorCode::Duplicate, &element.at, format!("port {port} stands here twice"), "keep one");
        }
    }
    Some(ports.into_iter().collect())
}

fn rewrite(reader: &mut Reader<'_>, section: &Section<'_>, peer: Option<&ClusterConfig>) -> Option<RewriteConfig> {
    let listen = match section.get("listen") {
        None => {
            reader.default("proxy.listen", format!("\"{REWRITE_LISTEN}\""));
            Some(REWRITE_LISTEN)
        }
        Some(node) => node.parse(reader, value::SOCKET, value::socket),
    };
    let advertise = match (section.get("advertise"), listen) {
        (Some(node), _) => node.parse(reader, "a host name or an address that clients can reach; no port", value::host),
        (None, Some(address)) if address.ip().is_unspecified() => {
            let problem = format!("clients cannot be told {}", address.ip());
            let hint = "set `advertise` to a name or an address of this host that clients can reach";
            let at = section.get("listen").map_or_else(|| section.at.clone(), |node| node.at);
            reader.report(ErrorCode::Missing, &at, problem, hint);
            None
        }
        (None, listen) => listen.map(|address| {
            reader.default("proxy.advertise", format!("\"{}\"", address.ip()));
            address.ip().to_string()
        }),
    };
    let ports = match section.get("ports") {
        None => {
            reader.default("proxy.ports", "\"19093-19999\"");
            Some(19_093..=19_999)
        }
        Some(node) => node.parse(reader, value::PORTS, value::ports).inspect(|ports| {
            if let Some(listen) = listen
                && ports.contains(&listen.port())
            {
                let problem = format!("port {} is that of `listen`", listen.port());
                reader.report(ErrorCode::Conflict, &node.at, problem, "ports that nothing else uses");
            }
        }),
    };
    let upstream_tls = upstream_tls(reader, section, peer);
    let auth = auth(reader, section, peer);
    let clients = clients(reader, section);
    Some(RewriteConfig {
        listen: listen?,
        advertise: advertise?,
        ports: ports?,
        upstream_tls: upstream_tls?,
        auth: auth?,
        clients: clients?,
    })
}

/// What is asked of clients.
fn clients(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<ClientsConfig> {
    let table = section.table(reader, "clients", CLIENTS)?;
    let tls = match table.get("tls") {
        None => {
            reader.default(table.key_path("tls"), "false");
            Some(None)
        }
        Some(node) => node.table(reader, CLIENTS_TLS).and_then(|tls| {
            let pem = |reader: &mut Reader<'_>, key| {
                tls.required(reader, key, "\"/etc/linkspan/proxy.pem\"").and_then(|node| file(reader, &node))
            };
            let (cert, key) = (pem(reader, "cert_file"), pem(reader, "key_file"));
            let client_ca = match tls.get("client_ca_file") {
                None => Some(None),
                Some(node) => file(reader, &node).map(Some),
            };
            Some(Some(TlsServer { cert: cert?, key: key?, client_ca: client_ca? }))
        }),
    };
    let users_file = match table.get("users_file") {
        None => {
            reader.default(table.key_path("users_file"), "none: clients do not authenticate at the proxy");
            Some(None)
        }
        Some(node) => file(reader, &node).map(Some),
    };
    let proxy_protocol = match table.get("proxy_protocol") {
        None => {
            reader.default(table.key_path("proxy_protocol"), "false");
            Some(false)
        }
        Some(node) => node.bool(reader),
    };
    let read_only = match table.get("read_only") {
        None => {
            reader.default(table.key_path("read_only"), "false");
            Some(false)
        }
        Some(node) => node.bool(reader),
    };
    let deny = match table.get("deny") {
        None => {
            reader.default(table.key_path("deny"), "[]");
            Some(Vec::new())
        }
        Some(node) => denied(reader, &node, read_only == Some(true)),
    };
    let connections = match table.get("connections") {
        None => {
            reader.default(table.key_path("connections"), "none");
            Some(None)
        }
        Some(node) => node.int(reader, 1..=16_384).map(Some),
    };
    let bytes_in = rate(reader, &table, "bytes_in_per_second");
    let bytes_out = rate(reader, &table, "bytes_out_per_second");
    Some(ClientsConfig {
        tls: tls?,
        users_file: users_file?,
        proxy_protocol: proxy_protocol?,
        read_only: read_only?,
        deny: deny?,
        connections: connections?,
        bytes_in_per_second: bytes_in?,
        bytes_out_per_second: bytes_out?,
    })
}

/// A rate of bytes; none unless set.
fn rate(reader: &mut Reader<'_>, table: &Section<'_>, key: &str) -> Option<Option<NonZeroU64>> {
    match table.get(key) {
        None => {
            reader.default(table.key_path(key), "none");
            Some(None)
        }
        Some(node) => {
            let allowed = "bytes a second from \"64KiB\" to \"64GiB\"";
            node.parse(reader, allowed, |text| value::size(text, &RATES)).map(NonZeroU64::new)
        }
    }
}

/// APIs by Kafka's names for them, none of which `read_only` denies already.
fn denied(reader: &mut Reader<'_>, node: &Node<'_>, read_only: bool) -> Option<Vec<i16>> {
    let allowed = "Kafka's names of APIs, for example [\"CreateTopics\", \"DeleteTopics\"]";
    let elements = node.array(reader, allowed)?;
    if elements.is_empty() {
        reader.report(ErrorCode::Invalid, &node.at, "this list is empty", allowed);
        return None;
    }
    let mut keys = Vec::new();
    for element in &elements {
        let Some(name) = element.text(reader, allowed) else { continue };
        match api::by_name(name) {
            None => {
                let problem = format!("`{name}` is no API of Kafka");
                reader.report_near(ErrorCode::Invalid, &element.at, problem, allowed, nearest(name, api::names()));
            }
            Some(key) if UNDENIABLE.contains(&key) => {
                let problem = format!("no client works without {name}");
                reader.report(ErrorCode::Invalid, &element.at, problem, "remove it");
            }
            Some(key) if read_only && !api::only_reads(key) => {
                let problem = format!("this has no effect: `read_only` denies {name} already");
                reader.report(ErrorCode::Unused, &element.at, problem, "remove it");
            }
            Some(key) if keys.contains(&key) => {
                reader.report(ErrorCode::Duplicate, &element.at, format!("`{name}` stands here twice"), "keep one");
            }
            Some(key) => keys.push(key),
        }
    }
    Some(keys)
}

/// Who the proxy is towards the brokers: nobody, whom the peer's `security` names, or what stands here.
fn auth(reader: &mut Reader<'_>, section: &Section<'_>, peer: Option<&ClusterConfig>) -> Option<Option<Sasl>> {
    match section.get("auth") {
        None => {
            reader.default("proxy.auth", "false");
            Some(None)
        }
        Some(node) if node.is_bool() => {
            if !node.bool(reader)? {
                return Some(None);
            }
            let inherited = peer.and_then(|p| p.security.as_ref()).and_then(|s| s.sasl.clone());
            if inherited.is_none() {
                let hint = "set peer.security with SASL, or write the credentials here: auth = { mechanism = …, … }";
                reader.report(ErrorCode::Conflict, &node.at, "peer.security has no SASL credentials", hint);
            }
            inherited.map(Some)
        }
        Some(node) => {
            let table = node.table(reader, SASL_KEYS)?;
            sasl(reader, &table, PASSWORD_OVERRIDE).map(Some)
        }
    }
}

/// TLS towards the brokers: as the peer's `security` says, unless the operator wrote otherwise.
fn upstream_tls(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    peer: Option<&ClusterConfig>,
) -> Option<Option<TlsClient>> {
    let inherited = peer.and_then(|p| p.security.as_ref()).and_then(|s| s.tls.clone());
    let system = || TlsClient { ca_file: None, identity: None, verify_hostname: true };
    match section.get("upstream_tls") {
        None => {
            let shown = if inherited.is_some() { "as peer.security says" } else { "false" };
            reader.default("proxy.upstream_tls", shown);
            Some(inherited)
        }
        Some(node) if node.is_bool() => node.bool(reader).map(|on| on.then(|| inherited.unwrap_or_else(system))),
        Some(node) => {
            let table = node.table(reader, UPSTREAM_TLS)?;
            tls_client(reader, &table).map(Some)
        }
    }
}
