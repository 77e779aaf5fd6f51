//! Names the protocol that strayed onto the tunnel port, from its first bytes.

use std::fmt;

/// What the first bytes on the tunnel port look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Seen {
    /// A request of HTTP/1, or the preface of HTTP/2.
    Http,
    /// An answer of HTTP/1: we dialled a web server.
    HttpAnswer,
    /// A TLS record outside our preamble.
    Tls,
    /// An SSH banner.
    Ssh,
    /// A Kafka request frame.
    Kafka,
    /// A PROXY protocol header (v1 or v2).
    Proxy,
    /// The connection was closed before it said anything: a port scan or a health check.
    Nothing,
    /// Anything else.
    Unknown,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http => "an HTTP request arrived",
            Self::HttpAnswer => "an HTTP answer arrived",
            Self::Tls => "a plain TLS handshake arrived",
            Self::Ssh => "an SSH banner arrived",
            Self::Kafka => "a Kafka request arrived",
            Self::Proxy => "a PROXY protocol header arrived",
            Self::Nothing => "a connection without a byte arrived",
            Self::Unknown => "bytes of an unknown protocol arrived",
        })
    }
}

/// Bytes that are enough to tell.
pub(super) const ENOUGH: usize = 16;

/// Names what `bytes` are the beginning of, given that they are no preamble of ours.
pub(super) fn sniff(bytes: &[u8]) -> Seen {
    const HTTP: [&[u8]; 10] = [
        b"GET ",
        b"POST ",
        b"PUT ",
        b"HEAD ",
        b"DELETE ",
        b"OPTIONS ",
        b"PATCH ",
        b"CONNECT ",
        b"TRACE ",
        b"PRI * HTTP",
    ];
    if bytes.is_empty() {
        return Seen::Nothing;
    }
    if bytes.len() >= 4 && HTTP.iter().any(|word| bytes.starts_with(word) || word.starts_with(bytes)) {
        return Seen::Http;
    }
    if bytes.starts_with(b"HTTP/") {
        return Seen::HttpAnswer;
    }
    if bytes.starts_with(b"SSH-") {
        return Seen::Ssh;
    }
    if bytes.starts_with(b"PROXY ") || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") {
        return Seen::Proxy;
    }
    match bytes {
        // A handshake or an alert record, of SSL 3.0 to TLS 1.3.
        [0x15 | 0x16, 0x03, 0x00..=0x04, ..] => Seen::Tls,
        // i32 size, i16 api_key, i16 api_version.
        [0, size, _, _, 0, key, 0, version, ..] if *size <= 0x10 && *key <= 100 && *version <= 20 => Seen::Kafka,
        _ => Seen::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_strays_onto_the_port() {
        for (bytes, seen) in [
            (&b""[..], Seen::Nothing),
            (b"GET / HTTP/1.1\r\n", Seen::Http),
            (b"POST", Seen::Http),
            (b"HTTP/1.1 400 Bad", Seen::HttpAnswer),
            (b"PRI * HTTP/2.0\r\n", Seen::Http),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", Seen::Tls),
            (b"SSH-2.0-OpenSSH_9", Seen::Ssh),
            (b"PROXY TCP4 192.0.2.1", Seen::Proxy),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Seen::Proxy),
            (b"\x00\x00\x00\x23\x00\x12\x00\x04\x00\x00\x00\x00", Seen::Kafka),
            (b"\x8f\xe2\x01\x77\x0a\x99", Seen::Unknown),
            (b"LSPX", Seen::Unknown),
            (b"\x00", Seen::Unknown),
        ] {
            assert_eq!(sniff(bytes), seen, "{bytes:?}");
        }
    }
}
