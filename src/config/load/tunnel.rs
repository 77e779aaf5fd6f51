//! `[tunnel]`.

use std::time::Duration;

use super::super::error::ErrorCode;
use super::super::raw::{Node, Reader, Section};
use super::super::{Carriers, Congestion, TlsPeer, TunnelAuth, TunnelConfig, TunnelLimits, TunnelRole, value};
use super::cluster::secret;
use super::file;

pub(super) const TUNNEL: &[&str] = &[
    "listen",
    "dial",
    "secret_file",
    "secret_env",
    "tls",
    "carriers",
    "congestion",
    "public_address",
    "peer_address",
    "streams",
    "opens_per_second",
    "handshakes",
    "buffered",
    "park",
];
pub(super) const TLS: &[&str] = &["cert", "key", "ca", "peer", "pin"];

const SECRET_OVERRIDE: &str = "LINKSPAN_TUNNEL_SECRET";

pub(super) fn read(reader: &mut Reader<'_>, root: &Section<'_>) -> Option<TunnelConfig> {
    let example = "{ listen = \"0.0.0.0:7443\", secret_file = \"secrets/tunnel\" }, written as a section";
    let section = root.required(reader, "tunnel", example)?.table(reader, TUNNEL)?;
    let role = match section.one_of(reader, &["listen", "dial"], false) {
        Some(("listen", node)) => {
            let allowed = "address:port, for example \"0.0.0.0:7443\"; the port is 1 to 65535";
            node.parse(reader, allowed, value::socket).map(TunnelRole::Listen)
        }
        Some((_, node)) => {
            let allowed = "host:port of the peer, for example \"203.0.113.7:7443\"";
            node.parse(reader, allowed, value::host_port).map(TunnelRole::Dial)
        }
        None => None,
    };
    let auth = auth(reader, &section);
    let carriers = match section.get("carriers") {
        None => {
            reader.default("tunnel.carriers", "\"auto\"");
            Some(Carriers::Auto)
        }
        Some(node) if node.is_str() => node.parse(reader, "\"auto\", or a number from 1 to 16", |text| match text {
            "auto" => Ok(Carriers::Auto),
            _ => Err(format!("`{text}` is not known")),
        }),
        Some(node) => {
            let count = node.int(reader, 1..=16).and_then(|n| u8::try_from(n).ok());
            if matches!(role, Some(TunnelRole::Listen(_))) {
                let hint = "the dialling side decides how many carriers there are";
                reader.report(ErrorCode::NoEffect, &node.key_place(), "this has no effect at the listening side", hint);
            }
            count.map(Carriers::Fixed)
        }
    };
    let congestion = match section.get("congestion") {
        None => {
            reader.default("tunnel.congestion", "\"auto\"");
            Some(Congestion::Auto)
        }
        Some(node) => {
            let allowed = "\"auto\", \"system\", or the kernel's name of one, for example \"bbr\"";
            node.parse(reader, allowed, congestion)
        }
    };
    let place = "an address, a network such as \"198.51.100.0/24\", or a host name; no port";
    let public_address =
        optional(reader, &section, "public_address", |node, r| node.parse(r, place, value::place_in_network));
    let peer_address =
        optional(reader, &section, "peer_address", |node, r| node.parse(r, place, value::place_in_network));
    let limits = limits(reader, &section);
    Some(TunnelConfig {
        role: role?,
        auth: auth?,
        carriers: carriers?,
        congestion: congestion?,
        public_address: public_address?,
        peer_address: peer_address?,
        limits: limits?,
    })
}

/// The kernel's names have at most 15 bytes (TCP_CA_NAME_MAX, the end included).
fn congestion(text: &str) -> Result<Congestion, String> {
    match text {
        "auto" => Ok(Congestion::Auto),
        "system" => Ok(Congestion::System),
        name if (1..=15).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_')) =>
        {
            Ok(Congestion::Named(name.to_owned()))
        }
        _ => Err(format!("`{text}` is no name of a congestion control")),
    }
}

/// `Some(None)` where the key is absent, `None` where it is wrong.
fn optional<'t, T>(
    reader: &mut Reader<'_>,
    section: &Section<'t>,
    key: &str,
    read: impl FnOnce(&Node<'t>, &mut Reader<'_>) -> Option<T>,
) -> Option<Option<T>> {
    section.get(key).map_or(Some(None), |node| read(&node, reader).map(Some))
}

fn auth(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<TunnelAuth> {
    let overridden = reader.env.var(SECRET_OVERRIDE).is_some_and(|value| !value.is_empty());
    match section.one_of(reader, &["tls", "secret_file", "secret_env"], overridden) {
        Some(("tls", node)) => {
            if overridden {
                let problem = format!("{SECRET_OVERRIDE} is set and has no effect beside `tls`");
                reader.report(ErrorCode::NoEffect, &node.key_place(), problem, "unset it, or remove `tls`");
            }
            tls(reader, &node)
        }
        Some(_) => {
            let both = section.has("secret_file") && section.has("secret_env");
            if both {
                return None;
            }
            secret(reader, section, "secret_file", "secret_env", SECRET_OVERRIDE)
                .map(|secret| TunnelAuth::Noise { secret })
        }
        None if overridden => secret(reader, section, "secret_file", "secret_env", SECRET_OVERRIDE)
            .map(|secret| TunnelAuth::Noise { secret }),
        None => None,
    }
}

fn tls(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<TunnelAuth> {
    let section = node.table(reader, TLS)?;
    let cert = section.required(reader, "cert", "\"certs/source.crt\"").and_then(|node| file(reader, &node));
    let key = section.required(reader, "key", "\"certs/source.key\"").and_then(|node| file(reader, &node));
    let peer = match section.one_of(reader, &["ca", "pin"], false) {
        Some(("ca", node)) => {
            let ca = file(reader, &node);
            let name = section.required(reader, "peer", "\"destination.linkspan\"");
            let name = name.and_then(|node| node.parse(reader, "a DNS name of the peer's certificate", value::host));
            ca.zip(name).map(|(ca, name)| TlsPeer::Ca { ca, name })
        }
        Some((_, node)) => {
            section.unused(reader, &["peer"], "a pinned certificate is recognised by itself");
            let allowed = "SHA-256 of the peer's certificate: 64 hexadecimal digits";
            node.parse(reader, allowed, value::sha256).map(TlsPeer::Pin)
        }
        None => None,
    };
    Some(TunnelAuth::Tls { cert: cert?, key: key?, peer: peer? })
}

fn limits(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<TunnelLimits> {
    let default = TunnelLimits::default();
    let mut number = |key: &str, top: u32, default: u32| match section.get(key) {
        Some(node) => node.int(reader, 1..=top),
        None => {
            reader.default(section.key_path(key), default);
            Some(default)
        }
    };
    let streams = number("streams", 1_000_000, default.streams);
    let opens_per_second = number("opens_per_second", 1_000_000, default.opens_per_second);
    let handshakes = number("handshakes", 4_096, default.handshakes);
    let buffered_bytes = match section.get("buffered") {
        Some(node) => {
            let allowed = "a size from \"1MiB\" to \"64GiB\"";
            node.parse(reader, allowed, |text| value::size(text, &(1 << 20..=64 << 30)))
        }
        None => {
            reader.default("tunnel.buffered", "\"256MiB\"");
            Some(default.buffered_bytes)
        }
    };
    let park = match section.get("park") {
        Some(node) => {
            let allowed = "a duration from \"1s\" to \"1h\"";
            node.parse(reader, allowed, |text| {
                value::duration(text, &(Duration::from_secs(1)..=Duration::from_secs(3600)))
            })
        }
        None => {
            reader.default("tunnel.park", "\"60s\"");
            Some(default.park)
        }
    };
    Some(TunnelLimits {
        streams: streams?,
        opens_per_second: opens_per_second?,
        handshakes: handshakes?,
        buffered_bytes: buffered_bytes?,
        park: park?,
    })
}
