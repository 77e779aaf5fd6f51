//! What an operator writes elsewhere so that clients ask here: plain texts, made from what is really bound.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};

/// Lines for `/etc/hosts` between two markers, sorted by name, so that a later block can take its place. Hosts files know no
/// wildcards: a broker that is added later needs a new block.
#[must_use]
pub fn hosts_block(names: &[(&str, IpAddr)]) -> String {
    let mut sorted = names.to_vec();
    sorted.sort_unstable();
    let mut text = String::from("# linkspan begin\n");
    for (name, address) in sorted {
        let _ = writeln!(text, "{address}\t{name}");
    }
    text.push_str("# linkspan end\n");
    text
}

/// A drop-in for systemd-resolved (`/etc/systemd/resolved.conf.d/linkspan.conf`): only names of the zones are asked here. Ports
/// other than 53 need systemd 246. The zones are not signed here: a host with `DNSSEC=yes` needs a negative trust anchor for each.
#[must_use]
pub fn systemd_resolved(dns: SocketAddr, zones: &[String]) -> String {
    let mut text = String::from("[Resolve]\nDNS=");
    let _ = match dns.port() {
        53 => write!(text, "{}", dns.ip()),
        _ => write!(text, "{dns}"),
    };
    text.push_str("\nDomains=");
    for (at, zone) in zones.iter().enumerate() {
        let _ = write!(text, "{}~{zone}", if at == 0 { "" } else { " " });
    }
    text.push('\n');
    text
}

/// The option for `docker run`; `None` where the port is not 53, the only one Docker asks, or the address is a loopback one,
/// which is the container's own inside it.
#[must_use]
pub fn docker(dns: SocketAddr) -> Option<String> {
    (dns.port() == 53 && !dns.ip().is_loopback() && !dns.ip().is_unspecified()).then(|| format!("--dns={}", dns.ip()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_exactly_these() {
        let (one, two) = ("127.77.0.1".parse().unwrap(), "127.77.0.2".parse().unwrap());
        assert_eq!(
            hosts_block(&[("b1.grape.test", two), ("b0.grape.test", one)]),
            "# linkspan begin\n127.77.0.1\tb0.grape.test\n127.77.0.2\tb1.grape.test\n# linkspan end\n"
        );
        let zones = ["grape.test".to_owned(), "kafka".to_owned()];
        assert_eq!(
            systemd_resolved("127.0.0.1:5353".parse().unwrap(), &zones),
            "[Resolve]\nDNS=127.0.0.1:5353\nDomains=~grape.test ~kafka\n"
        );
        assert_eq!(
            systemd_resolved("[::1]:53".parse().unwrap(), &zones[..1]),
            "[Resolve]\nDNS=::1\nDomains=~grape.test\n"
        );
        assert_eq!(docker("172.17.0.1:53".parse().unwrap()).as_deref(), Some("--dns=172.17.0.1"));
        assert_eq!(docker("172.17.0.1:5353".parse().unwrap()), None);
        assert_eq!(docker("127.0.0.1:53".parse().unwrap()), None);
    }
}
