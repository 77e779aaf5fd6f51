//! The PROXY protocol, versions 1 and 2: who the client is, as a load balancer in front says it. Pure.
//!
//! Source: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. A header is taken only where the operator expects one, and
//! then there must be one: whoever may reach the port may say what he likes in it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What begins version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What begins version 1.
const WORD: &[u8; 6] = b"PROXY ";
/// Bytes of the shortest version 1, `PROXY UNKNOWN\r\n`, and of the longest.
const SHORTEST: usize = 15;
const LONGEST: usize = 107;
/// Bytes of version 2 before its addresses.
const FIXED: usize = 16;
/// Most bytes of addresses and additions; 216 are those of the largest address, and additions are short.
const MOST: usize = 2_048;

/// What the bytes so far mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// At least so many more bytes belong to the header.
    Need(usize),
    /// The header ends with these bytes; `None` where it names no client (a health check, an unknown family).
    Done(Option<SocketAddr>),
    /// It is no header.
    Bad(&'static str),
}

/// Reads a header off the bytes of a connection; never asks for a byte behind it.
#[must_use]
pub fn read(bytes: &[u8]) -> Step {
    let begins = |with: &[u8]| bytes.iter().zip(with).all(|(a, b)| a == b);
    if bytes.is_empty() {
        // One byte tells the versions apart, and another protocol may have sent no more than a few.
        Step::Need(1)
    } else if begins(SIGNATURE) {
        if bytes.len() < FIXED { Step::Need(FIXED - bytes.len()) } else { version_2(bytes) }
    } else if begins(WORD) {
        if bytes.len() < SHORTEST { Step::Need(SHORTEST - bytes.len()) } else { version_1(bytes) }
    } else {
        Step::Bad("the connection does not begin with a PROXY header")
    }
}

fn version_2(bytes: &[u8]) -> Step {
    let (command, family) = (bytes[12], bytes[13]);
    if command >> 4 != 2 {
        return Step::Bad("a PROXY header of a version other than 1 and 2");
    }
    let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if length > MOST {
        return Step::Bad("a PROXY header of over 2 KiB");
    }
    if bytes.len() < FIXED + length {
        return Step::Need(FIXED + length - bytes.len());
    }
    let addresses = &bytes[FIXED..FIXED + length];
    match (command & 0x0f, family) {
        (0, _) => Step::Done(None),
        (1, 0x11) => match addresses {
            [a, b, c, d, _, _, _, _, high, low, ..] => {
                let port = u16::from_be_bytes([*high, *low]);
                Step::Done(Some(SocketAddr::new(Ipv4Addr::new(*a, *b, *c, *d).into(), port)))
            }
            _ => Step::Bad("a PROXY header that ends within its addresses"),
        },
        (1, 0x21) => match (addresses.first_chunk::<16>(), addresses.get(32..34), addresses.len() >= 36) {
            (Some(ip), Some([high, low]), true) => {
                Step::Done(Some(SocketAddr::new(Ipv6Addr::from(*ip).into(), u16::from_be_bytes([*high, *low]))))
            }
            _ => Step::Bad("a PROXY header that ends within its addresses"),
        },
        // Families without a port, and those to come: the connection is good, its client unknown.
        (1, _) => Step::Done(None),
        _ => Step::Bad("a PROXY header with an unknown command"),
    }
}

fn version_1(bytes: &[u8]) -> Step {
    let Some(end) = bytes.iter().position(|b| *b == b'\n') else {
        return if bytes.len() < LONGEST { Step::Need(1) } else { Step::Bad("a PROXY line of over 107 bytes") };
    };
    if end + 1 != bytes.len() {
        return Step::Bad("bytes behind the PROXY line were taken with it");
    }
    let line = bytes[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let Some(line) = line else { return Step::Bad("a PROXY line that does not end as one") };
    let mut words = line.split(' ');
    let (_, family) = (words.next(), words.next().unwrap_or_default());
    if family == "UNKNOWN" {
        return Step::Done(None);
    }
    let mut next = || words.next().unwrap_or_default();
    let (source, destination, from, to) = (next(), next(), next(), next());
    let fits = |ip: &IpAddr| matches!((family, ip), ("TCP4", IpAddr::V4(_)) | ("TCP6", IpAddr::V6(_)));
    let address = |text: &str| text.parse::<IpAddr>().ok().filter(fits);
    match (address(source), address(destination), from.parse::<u16>(), to.parse::<u16>(), words.next()) {
        (Some(ip), Some(_), Ok(port), Ok(_), None) => Step::Done(Some(SocketAddr::new(ip, port))),
        _ => Step::Bad("a PROXY line whose addresses are none"),
    }
}

/// Reads arbitrary bytes as they would come; for fuzzing. Panics never, and asks for no more than a header may have.
pub fn fuzz_proxy_header(data: &[u8]) {
    let mut have = 1;
    while have <= data.len() {
        match read(&data[..have]) {
            Step::Need(more) => {
                assert!(more > 0 && have + more <= FIXED + MOST);
                have += more;
            }
            Step::Done(_) | Step::Bad(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds as much as is asked for, and says how much that was.
    fn all(bytes: &[u8]) -> (Step, usize) {
        let mut have = 0;
        loop {
            match read(&bytes[..have]) {
                Step::Need(more) if have + more <= bytes.len() => have += more,
                step => return (step, have),
            }
        }
    }

    fn v2(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let mut out = SIGNATURE.to_vec();
        out.extend([command, family]);
        out.extend((addresses.len() as u16).to_be_bytes());
        out.extend(addresses);
        out
    }

    #[test]
    fn names_the_client_and_leaves_what_follows() {
        let v4 = [203, 0, 113, 5, 10, 0, 0, 1, 0x9c, 0x40, 0x23, 0x84];
        let mut v6 = [0; 36];
        v6[..16].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().expect("an address").octets());
        v6[32..34].copy_from_slice(&40_000_u16.to_be_bytes());
        let with_additions = [&v4[..], &[0x04, 0, 3, 1, 2, 3]].concat();
        for (header, client) in [
            (b"PROXY TCP4 203.0.113.5 10.0.0.1 40000 9092\r\n".to_vec(), Some("203.0.113.5:40000")),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 40000 9092\r\n".to_vec(), Some("[2001:db8::1]:40000")),
            (b"PROXY UNKNOWN\r\n".to_vec(), None),
            (b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n".to_vec(), None),
            (v2(0x21, 0x11, &v4), Some("203.0.113.5:40000")),
            (v2(0x21, 0x11, &with_additions), Some("203.0.113.5:40000")),
            (v2(0x21, 0x21, &v6), Some("[2001:db8::1]:40000")),
            (v2(0x20, 0x00, b""), None),
            (v2(0x21, 0x31, &[0; 216]), None),
        ] {
            let client = client.map(|client| client.parse().expect("an address"));
            let stream = [&header[..], b"\0\0\0\x10 a request"].concat();
            assert_eq!(all(&stream), (Step::Done(client), header.len()), "{header:?}");
            for cut in 0..header.len() {
                assert!(matches!(all(&header[..cut]).0, Step::Need(_)), "{header:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_named() {
        for (bytes, why) in [
            (&b"\0\0\0\x2a\0\x12"[..], "the connection does not begin with a PROXY header"),
            (b"GET / HTTP/1.1\r\n", "the connection does not begin with a PROXY header"),
            (b"\x16\x03\x01", "the connection does not begin with a PROXY header"),
            (b"PROXY TCP4 203.0.113.5 10.0.0.1 40000\r\n", "a PROXY line whose addresses are none"),
            (b"PROXY TCP4 203.0.113.5 10.0.0.1 40000 99999\r\n", "a PROXY line whose addresses are none"),
            (b"PROXY TCP6 203.0.113.5 10.0.0.1 40000 9092\r\n", "a PROXY line whose addresses are none"),
            (b"PROXY TCP4 a b c d e\r\n", "a PROXY line whose addresses are none"),
            (b"PROXY TCP4 203.0.113.5\n", "a PROXY line that does not end as one"),
            (&[b"PROXY ".as_slice(), &[b'x'; 200]].concat(), "a PROXY line of over 107 bytes"),
            (&v2(0x31, 0x11, &[0; 12]), "a PROXY header of a version other than 1 and 2"),
            (&v2(0x2f, 0x11, &[0; 12]), "a PROXY header with an unknown command"),
            (&v2(0x21, 0x11, &[0; 9]), "a PROXY header that ends within its addresses"),
            (&v2(0x21, 0x21, &[0; 35]), "a PROXY header that ends within its addresses"),
            (&v2(0x21, 0x21, &[0; 2049]), "a PROXY header of over 2 KiB"),
        ] {
            assert_eq!(all(bytes).0, Step::Bad(why), "{bytes:?}");
        }
    }
}
