//! `host:port`, parsed once and never wrong afterwards.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A target: a DNS name (lower case, no trailing dot) or an IP address, and a port of 1 to 65535.
///
/// Text form: `name:9092`, `192.0.2.7:9092`, `[2001:db8::7]:9092`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Why a text or a pair is no [`HostPort`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostPortError {
    /// No `:port` at the end.
    #[error("`{0}` has no port; write it as host:port, for example `{0}:9092`")]
    NoPort(String),
    /// The port is not a number of 1 to 65535.
    #[error("port `{0}` is not a number from 1 to 65535")]
    BadPort(String),
    /// The host is empty, too long (over 253 bytes), or has a character that no host name has.
    #[error("`{0}` is not a host name or an IP address")]
    BadHost(String),
}

impl HostPort {
    /// Joins a host and a port.
    ///
    /// # Errors
    /// [`HostPortError::BadHost`] and [`HostPortError::BadPort`] as described there.
    pub fn new(host: &str, port: u16) -> Result<Self, HostPortError> {
        if port == 0 {
            return Err(HostPortError::BadPort("0".to_owned()));
        }
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Ok(Self { host: ip.to_string(), port });
        }
        let name = host.strip_suffix('.').unwrap_or(host);
        if !is_host_name(name) {
            return Err(HostPortError::BadHost(host.to_owned()));
        }
        Ok(Self { host: name.to_ascii_lowercase(), port })
    }

    /// The name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port, 1 to 65535.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The address, where the host is one.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

/// Labels of 1 to 63 of letters, digits, `-` and `_` (which Docker and Kubernetes names have), 253 bytes in all.
fn is_host_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 253
        && name.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
                && !label.starts_with('-')
                && !label.ends_with('-')
        })
}

impl FromStr for HostPort {
    type Err = HostPortError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| HostPortError::NoPort(text.to_owned()))?;
        if host.contains(':') && !host.starts_with('[') {
            return Err(HostPortError::NoPort(format!("[{text}]")));
        }
        let port = port.parse::<u16>().map_err(|_| HostPortError::BadPort(port.to_owned()))?;
        Self::new(host, port)
    }
}

impl From<SocketAddr> for HostPort {
    /// Port 0 never stands in an address that was connected or bound.
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl serde::Serialize for HostPort {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_names_and_addresses_and_writes_them_back() {
        for (text, host, port, back) in [
            ("b0.orange.test:9092", "b0.orange.test", 9092, "b0.orange.test:9092"),
            ("B0.Orange.Test.:1", "b0.orange.test", 1, "b0.orange.test:1"),
            ("192.0.2.7:65535", "192.0.2.7", 65535, "192.0.2.7:65535"),
            ("[2001:db8::7]:9092", "2001:db8::7", 9092, "[2001:db8::7]:9092"),
            ("kafka_1:9092", "kafka_1", 9092, "kafka_1:9092"),
        ] {
            let parsed: HostPort = text.parse().expect(text);
            assert_eq!((parsed.host(), parsed.port()), (host, port));
            assert_eq!(parsed.to_string(), back);
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            "b0",
            "b0:",
            "b0:0",
            "b0:65536",
            "b0:-1",
            ":9092",
            "a b:9092",
            "a..b:1",
            "-a:1",
            "2001:db8::7:9092",
            "a\0:1",
        ] {
            assert!(text.parse::<HostPort>().is_err(), "{text:?}");
        }
        assert!(HostPort::new(&"a".repeat(254), 1).is_err());
    }
}
