//! What single texts of a configuration mean: names, durations, sizes, networks, patterns. Pure; each says what it saw.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::time::Duration;

use super::AddressPlan;
use crate::net::HostPort;

/// `[a-z0-9-]{1,63}`: names of links and flows.
pub(super) const SLUG: &str = "1 to 63 of a-z, 0-9 and -";

pub(super) fn slug(text: &str) -> Result<String, String> {
    if is_slug(text) { Ok(text.to_owned()) } else { Err(format!("`{text}` is no such name")) }
}

pub(super) fn is_slug(text: &str) -> bool {
    (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

pub(super) const CLUSTER: &str = "1 to 63 of letters, digits, `.`, `_` and `-`";

pub(super) fn cluster(text: &str) -> Result<String, String> {
    let ok = (1..=63).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if ok { Ok(text.to_owned()) } else { Err(format!("`{text}` is no name of a cluster")) }
}

pub(super) const HOST_PORT: &str = "host:port, for example \"b0.orange.example:9092\"";

pub(super) fn host_port(text: &str) -> Result<HostPort, String> {
    let target: HostPort = text.trim().parse().map_err(|e: crate::net::HostPortError| e.to_string())?;
    if target.ip().is_some_and(|ip| ip.is_unspecified()) {
        return Err(format!("`{text}` is no address that can be reached"));
    }
    Ok(target)
}

/// A host name or an address, without a port.
pub(super) fn host(text: &str) -> Result<String, String> {
    HostPort::new(text, 1).map(|target| target.host().to_owned()).map_err(|e| e.to_string())
}

pub(super) const SOCKET: &str = "address:port, for example \"127.0.0.1:9464\"; the port is 1 to 65535";

pub(super) fn socket(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => Err("port 0 is no fixed port".to_owned()),
        Ok(address) => Ok(address),
        Err(_) => match text.rsplit_once(':') {
            Some((_, port)) if port.parse::<u16>().is_err() => {
                Err(format!("port `{port}` is not a number from 1 to 65535"))
            }
            Some((host, _)) => Err(format!("`{host}` is no address of this host")),
            None => Err(format!("`{text}` has no port")),
        },
    }
}

/// A DNS server: as [`socket`], port 53 unless written.
pub(super) fn dns_server(text: &str) -> Result<SocketAddr, String> {
    text.parse::<IpAddr>().map_or_else(|_| socket(text), |ip| Ok(SocketAddr::new(ip, 53)))
}

/// An address, a network, or a name: whom a firewall rule is about.
pub(super) fn place_in_network(text: &str) -> Result<String, String> {
    if let Some((address, prefix)) = text.split_once('/') {
        let ip: IpAddr = address.parse().map_err(|_| format!("`{address}` is no address"))?;
        let top = if ip.is_ipv4() { 32 } else { 128 };
        return match prefix.parse::<u8>() {
            Ok(bits) if bits <= top => Ok(format!("{ip}/{bits}")),
            _ => Err(format!("prefix length `{prefix}` is not 0 to {top}")),
        };
    }
    if text.contains(':') && text.parse::<IpAddr>().is_err() {
        return Err(format!("`{text}` has a port; this is an address alone"));
    }
    host(text)
}

/// A duration: a number and `ms`, `s`, `m` or `h`.
pub(super) fn duration(text: &str, bounds: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no duration"))?;
    let millis = match unit.trim_start() {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" | "min" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        "" => return Err(format!("`{text}` has no unit")),
        unit => return Err(format!("`{unit}` is no unit of time")),
    };
    let value = Duration::from_millis(millis.unwrap_or(u64::MAX));
    if bounds.contains(&value) { Ok(value) } else { Err(format!("`{text}` is out of range")) }
}

/// A Kafka principal: a kind, a colon, and a name.
pub(super) fn principal(text: &str) -> Result<String, String> {
    match text.split_once(':') {
        Some((kind, name)) if !kind.is_empty() && !name.is_empty() && !text.contains(char::is_control) => {
            Ok(text.to_owned())
        }
        _ => Err(format!("`{text}` is no principal")),
    }
}

/// A size in bytes: a number and `KiB`, `MiB` or `GiB`.
pub(super) fn size(text: &str, bounds: &RangeInclusive<u64>) -> Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is no size"))?;
    let shift = match unit.trim_start() {
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "" => return Err(format!("`{text}` has no unit")),
        unit => return Err(format!("`{unit}` is no unit of size")),
    };
    let value = number.saturating_mul(1 << shift);
    if bounds.contains(&value) { Ok(value) } else { Err(format!("`{text}` is out of range")) }
}

pub(super) const PATTERN: &str =
    "host:port; the host may begin with `*.`, the port may be `*`: \"*.orange.example:9092\"";

/// A pattern of the exit policy, in lower case.
pub(super) fn pattern(text: &str) -> Result<String, String> {
    let (name, port) = text.rsplit_once(':').ok_or_else(|| format!("`{text}` has no port"))?;
    if port != "*" && !port.parse::<u16>().is_ok_and(|port| port > 0) {
        return Err(format!("port `{port}` is not `*` and not a number from 1 to 65535"));
    }
    if name == "*" {
        return Err(format!("`{text}` would allow every host"));
    }
    if name.contains(':') && !name.starts_with('[') {
        return Err(format!("`{name}` needs brackets: [{name}]:{port}"));
    }
    let (star, rest) = name.strip_prefix("*.").map_or(("", name), |rest| ("*.", rest));
    if rest.contains('*') {
        return Err(format!("`*` in `{name}` stands elsewhere than as the whole first label"));
    }
    let target = HostPort::new(rest, 1).map_err(|e| e.to_string())?;
    // `*.0.0.1` would be the end of an address.
    if !star.is_empty() && (target.ip().is_some() || rest.bytes().all(|b| b.is_ascii_digit() || b == b'.')) {
        return Err(format!("`{name}` is no name"));
    }
    let host = if target.host().contains(':') { format!("[{}]", target.host()) } else { target.host().to_owned() };
    Ok(format!("{star}{host}:{port}"))
}

/// A zone of the embedded DNS server.
pub(super) fn zone(text: &str) -> Result<String, String> {
    let name = text.trim_matches('.');
    if name.parse::<IpAddr>().is_ok() {
        return Err(format!("`{text}` is an address"));
    }
    host(name)
}

pub(super) const ADDRESSES: &str =
    "a loopback network such as \"127.77.0.0/16\" (prefix 8 to 30), or \"shared:\" and one address of this host";

/// What names of the peer's zones are answered with.
pub(super) fn addresses(text: &str) -> Result<AddressPlan, String> {
    if let Some(address) = text.strip_prefix("shared:") {
        let ip: IpAddr = address.trim().parse().map_err(|_| format!("`{address}` is no address"))?;
        if ip.is_unspecified() || ip.is_multicast() {
            return Err(format!("clients cannot connect to {ip}"));
        }
        return Ok(AddressPlan::Shared(ip));
    }
    let (address, prefix) = text.split_once('/').ok_or_else(|| format!("`{text}` is no network"))?;
    let address: Ipv4Addr = address.parse().map_err(|_| format!("`{address}` is no IPv4 address"))?;
    let prefix = prefix
        .parse::<u8>()
        .ok()
        .filter(|bits| *bits <= 32)
        .ok_or_else(|| format!("`/{prefix}` is no prefix length"))?;
    if !address.is_loopback() || prefix < 8 {
        return Err(format!("{text} is not within 127.0.0.0/8"));
    }
    if prefix > 30 {
        return Err(format!("/{prefix} has no room for names"));
    }
    let host_bits = u32::MAX >> prefix;
    let network = u32::from(address) & !host_bits;
    if network != u32::from(address) {
        return Err(format!("{text} has host bits set; the network is {}/{prefix}", Ipv4Addr::from(network)));
    }
    Ok(AddressPlan::PerName(address, prefix))
}

pub(super) const PORTS: &str = "two ports, for example \"19093-19999\"";

pub(super) fn ports(text: &str) -> Result<RangeInclusive<u16>, String> {
    let (first, last) = text.split_once('-').ok_or_else(|| format!("`{text}` is no range"))?;
    let port = |text: &str| {
        text.trim()
            .parse::<u16>()
            .ok()
            .filter(|p| *p > 0)
            .ok_or_else(|| format!("port `{text}` is not a number from 1 to 65535"))
    };
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err(format!("{first} is after {last}")) } else { Ok(first..=last) }
}

pub(super) const REGEX: &str = "a regular expression that must match a whole name, for example 'eu[.].*'";

/// A regular expression of topics or groups, checked by the engine that will run it, within the bounds it will have.
pub(super) fn regex(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("an empty expression matches no name".to_owned());
    }
    if text == "*" {
        return Err("`*` repeats nothing; all names are `.*`".to_owned());
    }
    match regex::RegexBuilder::new(&format!("^(?:{text})$")).size_limit(1 << 20).build() {
        // Parentheses that close the group around it would make another expression of it.
        Ok(_) => match regex::Regex::new(text) {
            Ok(_) => Ok(text.to_owned()),
            Err(error) => Err(regex_problem(text, &error)),
        },
        Err(error) => Err(regex_problem(text, &error)),
    }
}

/// The last line of the engine's message says what; its drawing would repeat ours.
fn regex_problem(text: &str, error: &regex::Error) -> String {
    let message = error.to_string();
    let last = message.lines().last().unwrap_or_default().trim();
    format!("`{text}` is no regular expression: {}", last.strip_prefix("error: ").unwrap_or(last))
}

/// The one name that an expression can match, if it is plain text.
pub(super) fn literal(pattern: &str) -> Option<String> {
    let mut name = String::new();
    let mut rest = pattern;
    while let Some(c) = rest.chars().next() {
        let (taken, length) = if rest.starts_with("[.]") || rest.starts_with("\\.") {
            ('.', if c == '[' { 3 } else { 2 })
        } else if c.is_ascii_alphanumeric() || c == '_' || c == '-' {
            (c, 1)
        } else {
            return None;
        };
        name.push(taken);
        rest = &rest[length..];
    }
    Some(name)
}

pub(super) const RENAME: &str = "`${topic}` for the source's name, and letters, digits, `.`, `_`, `-`";

/// A template of target names; at least what surrounds `${topic}` is legal in a topic's name.
pub(super) fn rename(text: &str) -> Result<String, String> {
    let around = text.replace("${topic}", "");
    if around.contains("${") {
        return Err(format!("`{text}` has a variable other than ${{topic}}"));
    }
    topic_part(&around)?;
    if text.is_empty() || text == "." || text == ".." {
        return Err(format!("`{text}` is no name of a topic"));
    }
    Ok(text.to_owned())
}

/// A part of a topic's name, as Kafka allows it: at most 249 of `[a-zA-Z0-9._-]`.
pub(super) fn topic_part(text: &str) -> Result<String, String> {
    if let Some(bad) = text.chars().find(|c| !c.is_ascii_alphanumeric() && !"._-".contains(*c)) {
        return Err(format!("`{bad}` cannot stand in a topic's name"));
    }
    if text.len() > 248 {
        return Err(format!("{} characters leave no room for a topic's name of at most 249", text.len()));
    }
    Ok(text.to_owned())
}

/// A SHA-256 in hexadecimal, with or without colons and `sha256:`.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], String> {
    let digits: Vec<u8> = text.strip_prefix("sha256:").unwrap_or(text).bytes().filter(|b| *b != b':').collect();
    let mut hash = [0; 32];
    if digits.len() != 64 {
        return Err(format!("{} digits instead of 64", digits.len()));
    }
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| "not hexadecimal".to_owned())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| format!("`{pair}` is not hexadecimal"))?;
    }
    Ok(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_the_exit_policy() {
        for (text, kept) in [
            ("*.Orange.Example:9092", "*.orange.example:9092"),
            ("b0.orange.example.:*", "b0.orange.example:*"),
            ("10.0.0.1:9092", "10.0.0.1:9092"),
            ("[2001:DB8::7]:9092", "[2001:db8::7]:9092"),
        ] {
            assert_eq!(pattern(text).as_deref(), Ok(kept), "{text}");
        }
        for text in [
            "*:9092",
            "*:*",
            "*",
            "*.*.x:1",
            "a*.x:1",
            "*.0.0.1:1",
            "*.7:1",
            "x:0",
            "x:65536",
            "::1:1",
            "",
            ":1",
            "*.:1",
        ] {
            assert!(pattern(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_pattern_is_one_topic_only_where_it_is_plain() {
        for (text, name) in [
            ("orders", Some("orders")),
            (r"eu[.]a\.b-c_1", Some("eu.a.b-c_1")),
            ("eu.a", None),
            ("a|b", None),
            ("a+", None),
        ] {
            assert_eq!(literal(text).as_deref(), name, "{text}");
        }
    }

    #[test]
    fn durations_sizes_ports_and_pins_keep_their_bounds() {
        let within = Duration::from_secs(1)..=Duration::from_secs(3600);
        for (text, millis) in [("1s", 1_000), ("1500ms", 1_500), ("2m", 120_000), ("1h", 3_600_000), ("5 s", 5_000)] {
            assert_eq!(duration(text, &within), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "1", "999ms", "2h", "1d", "-1s", "1.5s", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(duration(text, &within).is_err(), "{text}");
        }
        assert_eq!(size("256MiB", &(1 << 20..=1 << 40)), Ok(256 << 20));
        for text in ["", "256", "256MB", "1023KiB", "18446744073709551615GiB"] {
            assert!(size(text, &(1 << 20..=1 << 40)).is_err(), "{text}");
        }
        assert_eq!(ports("19093-19999"), Ok(19_093..=19_999));
        assert!(ports("0-1").is_err() && ports("1").is_err() && ports("2-1").is_err() && ports("1-65536").is_err());
        let colons = format!("sha256:{}", ["0f"; 32].join(":"));
        assert_eq!(sha256(&colons), Ok([0x0f; 32]));
        assert!(sha256(&"0g".repeat(32)).is_err() && sha256("é").is_err());
    }
}
