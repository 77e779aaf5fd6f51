//! Which broker a TLS client means: the server name of a ClientHello, read from whatever bytes are there so far.
//!
//! Pure: bytes in, a verdict out. Records are put together again across record and segment borders; nothing is taken on
//! trust: each length is compared with what is there, and the whole hello with [`HELLO_MAX`]. With Encrypted ClientHello the
//! name read is that of the outer hello, which is the one a network may route by.

use std::fmt;

use crate::net::HostPort;

/// Most bytes of a hello that are looked at, record headers included. A post-quantum hello has about 1,800 bytes; two key
/// shares and a session ticket stay below 8 KiB.
pub const HELLO_MAX: usize = 16 * 1024;

/// What the first bytes of a connection say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hello {
    /// So far a ClientHello, but not all of it.
    NeedMore,
    /// A ClientHello for this name: lower case, no trailing dot, a host name.
    Sni(String),
    /// A ClientHello without a server name, or with an address instead of one.
    NoSni,
    /// Something else than TLS.
    NotTls(Protocol),
    /// TLS that breaks its own rules, or a hello that does not fit in [`HELLO_MAX`]; says which.
    Malformed(&'static str),
}

/// What a connection that is not TLS seems to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Protocol {
    /// Kafka without TLS.
    PlainKafka,
    /// HTTP.
    Http,
    /// SSH.
    Ssh,
    /// A PROXY protocol header, version 1 or 2.
    ProxyHeader,
    /// SSL 2, which no Kafka client of this century offers.
    Ssl2,
    /// A TLS alert in place of a hello.
    TlsAlert,
    /// None of these.
    Unknown,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PlainKafka => "Kafka without TLS",
            Self::Http => "HTTP",
            Self::Ssh => "SSH",
            Self::ProxyHeader => "a PROXY protocol header",
            Self::Ssl2 => "SSL 2",
            Self::TlsAlert => "a TLS alert",
            Self::Unknown => "an unknown protocol",
        })
    }
}

/// Reads the first bytes of a connection; call it again with more after [`Hello::NeedMore`].
///
/// Work is linear in `bytes` only once, when the hello is whole; until then it is linear in the number of records.
#[must_use]
pub fn read(bytes: &[u8]) -> Hello {
    if bytes.len() < RECORD_HEADER {
        // A first byte that no record of a handshake has is enough only together with what follows it.
        return Hello::NeedMore;
    }
    if bytes[0] != HANDSHAKE || bytes[1] != 3 {
        return Hello::NotTls(guess(bytes));
    }
    match handshake(bytes) {
        Ok(None) if bytes.len() >= HELLO_MAX => Hello::Malformed("its ClientHello is longer than 16384 bytes"),
        Ok(None) => Hello::NeedMore,
        Ok(Some(hello)) => match server_name(&hello) {
            Ok(Some(name)) => Hello::Sni(name),
            Ok(None) => Hello::NoSni,
            Err(Broken(why)) => Hello::Malformed(why),
        },
        Err(Broken(why)) => Hello::Malformed(why),
    }
}

/// What broke a rule.
struct Broken(&'static str);

/// The first handshake message without its header, once all of it is there. What follows it is not looked at: a verdict stays
/// the same however much of that has come.
fn handshake(bytes: &[u8]) -> Result<Option<Vec<u8>>, Broken> {
    let (mut there, mut whole) = (0, HANDSHAKE_HEADER);
    let mut header = [0; HANDSHAKE_HEADER];
    for fragment in Fragments(bytes) {
        let fragment = fragment?;
        if there < HANDSHAKE_HEADER {
            let taken = fragment.len().min(HANDSHAKE_HEADER - there);
            header[there..there + taken].copy_from_slice(&fragment[..taken]);
        }
        there += fragment.len();
        if there > 0 && header[0] != CLIENT_HELLO {
            return Err(Broken("its first handshake message is no ClientHello"));
        }
        if there >= HANDSHAKE_HEADER {
            let [_, high, middle, low] = header.map(usize::from);
            whole = HANDSHAKE_HEADER + high * 0x1_0000 + middle * 0x100 + low;
        }
        if whole > HELLO_MAX {
            return Err(Broken("its ClientHello is longer than 16384 bytes"));
        }
        if there >= whole {
            break;
        }
    }
    if there < whole {
        return Ok(None);
    }
    let mut hello = Vec::with_capacity(there);
    for fragment in Fragments(bytes) {
        hello.extend_from_slice(fragment?);
        if hello.len() >= whole {
            break;
        }
    }
    hello.truncate(whole);
    hello.drain(..HANDSHAKE_HEADER);
    Ok(Some(hello))
}

/// The payloads of handshake records, the last one as far as it is there.
struct Fragments<'a>(&'a [u8]);

impl<'a> Iterator for Fragments<'a> {
    type Item = Result<&'a [u8], Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = self.0.split_at_checked(RECORD_HEADER)?;
        if header[0] != HANDSHAKE || header[1] != 3 {
            // What follows a whole hello is the caller's not to read; inside one it is an error, seen as "not whole".
            self.0 = &[];
            return None;
        }
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        if length == 0 || length > RECORD_MAX {
            self.0 = &[];
            return Some(Err(Broken("a record of its handshake is empty or longer than 16384 bytes")));
        }
        let (fragment, rest) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        self.0 = rest;
        Some(Ok(fragment))
    }
}

/// The server name of a ClientHello's body.
fn server_name(hello: &[u8]) -> Result<Option<String>, Broken> {
    let mut rest = Reader(hello);
    rest.take(2 + 32)?;
    let session = usize::from(rest.byte()?);
    if session > 32 {
        return Err(Broken("the session id of its ClientHello is longer than 32 bytes"));
    }
    rest.take(session)?;
    rest.block()?;
    let compressions = usize::from(rest.byte()?);
    rest.take(compressions)?;
    if rest.0.is_empty() {
        return Ok(None);
    }
    let mut extensions = Reader(rest.block()?);
    let mut found = None;
    while !extensions.0.is_empty() {
        let kind = extensions.short()?;
        let body = extensions.block()?;
        if kind == SERVER_NAME && found.replace(body).is_some() {
            return Err(Broken("its ClientHello has two server names"));
        }
    }
    let Some(body) = found else { return Ok(None) };
    let mut names = Reader(Reader(body).block()?);
    while !names.0.is_empty() {
        let kind = names.byte()?;
        let name = names.block()?;
        if kind != HOST_NAME {
            continue;
        }
        let target = std::str::from_utf8(name).ok().and_then(|name| HostPort::new(name, 1).ok());
        let Some(target) = target else { return Err(Broken("its server name is not a host name")) };
        return Ok(target.ip().is_none().then(|| target.host().to_owned()));
    }
    Ok(None)
}

/// A slice that is taken from the left; too short a slice is a broken hello.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) =
            self.0.split_at_checked(count).ok_or(Broken("a length in its ClientHello passes its end"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Broken> {
        Ok(self.take(1)?[0])
    }

    fn short(&mut self) -> Result<u16, Broken> {
        let pair = self.take(2)?;
        Ok(u16::from_be_bytes([pair[0], pair[1]]))
    }

    /// A block behind its two-byte length.
    fn block(&mut self) -> Result<&'a [u8], Broken> {
        let length = usize::from(self.short()?);
        self.take(length)
    }
}

/// Names what is not TLS, from at least [`RECORD_HEADER`] bytes.
fn guess(bytes: &[u8]) -> Protocol {
    const HTTP: [&[u8]; 9] = [b"GET ", b"POST ", b"PUT ", b"HEAD ", b"DELET", b"OPTIO", b"CONNE", b"PATCH", b"PRI *"];
    if bytes[0] == ALERT && bytes[1] == 3 {
        Protocol::TlsAlert
    } else if bytes.starts_with(b"SSH-") {
        Protocol::Ssh
    } else if bytes.starts_with(b"PROXY") || bytes.starts_with(b"\r\n\r\n\0") {
        Protocol::ProxyHeader
    } else if HTTP.iter().any(|method| bytes.starts_with(method)) {
        Protocol::Http
    } else if bytes[0] & 0x80 != 0 && bytes[2] == CLIENT_HELLO && bytes[3] <= 3 {
        Protocol::Ssl2
    } else if bytes[0] == 0 && bytes[4] == 0 {
        // A request below 16 MiB, then the high byte of its API key.
        Protocol::PlainKafka
    } else {
        Protocol::Unknown
    }
}

/// Type, version, length.
const RECORD_HEADER: usize = 5;
/// Largest payload of a plaintext record, RFC 8446 section 5.1.
const RECORD_MAX: usize = 16_384;
/// Type and 24-bit length.
const HANDSHAKE_HEADER: usize = 4;
/// Record type of alerts.
const ALERT: u8 = 0x15;
/// Record type of handshakes.
const HANDSHAKE: u8 = 0x16;
/// Handshake type.
const CLIENT_HELLO: u8 = 1;
/// Extension type, RFC 6066 section 3.
const SERVER_NAME: u16 = 0;
/// Name type, RFC 6066 section 3.
const HOST_NAME: u8 = 0;

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::pki_types::ServerName;

    use super::*;

    /// The first flight of a real rustls client, post-quantum key share first unless `classic`.
    pub(in crate::proxy::names) fn hello(name: &str, classic: bool) -> Vec<u8> {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if classic {
            provider.kx_groups = vec![rustls::crypto::aws_lc_rs::kx_group::X25519];
        } else {
            assert_eq!(provider.kx_groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
        }
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(provider))
            .with_safe_default_protocol_versions()
            .expect("versions of the provider")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let name = ServerName::try_from(name.to_owned()).expect("a server name");
        let mut client = rustls::ClientConnection::new(Arc::new(config), name).expect("a client");
        let mut flight = Vec::new();
        client.write_tls(&mut flight).expect("a vector takes all");
        flight
    }

    /// A hello by hand: `extensions` are written as they are; `None` leaves the block out.
    fn by_hand(extensions: Option<&[u8]>) -> Vec<u8> {
        let mut body = vec![3, 3];
        body.extend([7; 32]);
        body.extend([0, 0, 2, 0x13, 0x01, 1, 0]);
        if let Some(extensions) = extensions {
            body.extend(u16::try_from(extensions.len()).unwrap().to_be_bytes());
            body.extend(extensions);
        }
        let mut message = vec![1, 0];
        message.extend(u16::try_from(body.len()).unwrap().to_be_bytes());
        message.extend(body);
        records(&message, RECORD_MAX)
    }

    /// Wraps a handshake message in records of at most `size` bytes.
    fn records(message: &[u8], size: usize) -> Vec<u8> {
        message
            .chunks(size)
            .flat_map(|part| {
                let mut record = vec![0x16, 3, 1];
                record.extend(u16::try_from(part.len()).unwrap().to_be_bytes());
                record.extend(part);
                record
            })
            .collect()
    }

    fn sni_extension(name: &[u8]) -> Vec<u8> {
        let length = u16::try_from(name.len()).unwrap();
        let mut extension = vec![0, 0];
        extension.extend((length + 5).to_be_bytes());
        extension.extend((length + 3).to_be_bytes());
        extension.push(0);
        extension.extend(length.to_be_bytes());
        extension.extend(name);
        extension
    }

    #[test]
    fn real_hellos_split_at_every_byte_give_their_name_exactly_when_whole() {
        for classic in [true, false] {
            let flight = hello("b-1.grape.example.com", classic);
            assert_eq!(flight.len() > 1200, !classic, "a post-quantum share is 1216 bytes");
            for end in 0..flight.len() {
                assert_eq!(read(&flight[..end]), Hello::NeedMore, "after {end} bytes");
            }
            assert_eq!(read(&flight), Hello::Sni("b-1.grape.example.com".to_owned()));
            let mut more = flight.clone();
            more.extend_from_slice(&[0x14, 3, 3, 0, 1, 1, 0x17, 3, 3]);
            assert_eq!(read(&more), Hello::Sni("b-1.grape.example.com".to_owned()), "early data may follow");
        }
    }

    #[test]
    fn records_of_any_size_are_put_together() {
        let flight = hello("b0.grape.test", false);
        for size in [1, 2, 3, 4, 5, 100, 255, 256, 1000] {
            let cut = records(&flight[5..], size);
            assert_eq!(read(&cut), Hello::Sni("b0.grape.test".to_owned()), "records of {size}");
            assert_eq!(read(&cut[..cut.len() - 1]), Hello::NeedMore);
        }
    }

    #[test]
    fn names_are_lower_case_without_a_dot_and_never_addresses() {
        assert_eq!(read(&by_hand(Some(&sni_extension(b"B0.Grape.TEST.")))), Hello::Sni("b0.grape.test".to_owned()));
        assert_eq!(read(&by_hand(Some(&sni_extension(b"192.0.2.7")))), Hello::NoSni);
        assert_eq!(read(&by_hand(Some(&sni_extension(b"2001:db8::1")))), Hello::NoSni);
        assert_eq!(read(&hello("192.0.2.7", true)), Hello::NoSni, "rustls sends none for an address");
        assert_eq!(read(&by_hand(Some(&[]))), Hello::NoSni);
        assert_eq!(read(&by_hand(None)), Hello::NoSni);
        // GREASE extensions around it, an encrypted inner hello behind it: the outer name counts.
        let mut extensions = vec![0x1a, 0x1a, 0, 0];
        extensions.extend(sni_extension(b"outer.test"));
        extensions.extend([0xfe, 0x0d, 0, 4, 0, 0, 1, 0, 0xfa, 0xfa, 0, 1, 0]);
        assert_eq!(read(&by_hand(Some(&extensions))), Hello::Sni("outer.test".to_owned()));
    }

    #[test]
    fn broken_hellos_are_named() {
        let twice = [sni_extension(b"a.test"), sni_extension(b"b.test")].concat();
        for extensions in [
            twice,
            sni_extension(b""),
            sni_extension(b"a b"),
            sni_extension(b"\xff\xfe"),
            vec![0],
            vec![0, 0, 0, 9, 0],
            vec![0, 0, 0, 4, 0, 9, 0, 0],
        ] {
            let verdict = read(&by_hand(Some(&extensions)));
            assert!(matches!(verdict, Hello::Malformed(_)), "{extensions:?}: {verdict:?}");
        }
        let too_long = records(&[1, 1, 0, 0, 3, 3], RECORD_MAX);
        assert_eq!(read(&too_long), Hello::Malformed("its ClientHello is longer than 16384 bytes"));
        assert!(matches!(read(&records(&[2, 0, 0, 4, 0, 0, 0, 0], 100)), Hello::Malformed(_)), "a ServerHello");
        assert!(matches!(read(&[0x16, 3, 1, 0, 0]), Hello::Malformed(_)), "an empty record");
        assert!(matches!(read(&[0x16, 3, 1, 0x40, 1]), Hello::Malformed(_)), "a record of 16385 bytes");
        // One byte a record: the limit on what is looked at comes before the end of the hello.
        let message = [vec![1, 0, 0x20, 0], vec![0; 0x2000]].concat();
        assert!(matches!(read(&records(&message, 1)[..HELLO_MAX]), Hello::Malformed(_)));
    }

    #[test]
    fn other_protocols_are_named() {
        for (bytes, protocol) in [
            (&b"GET / HTTP/1.1\r\n"[..], Protocol::Http),
            (b"POST /x", Protocol::Http),
            (b"SSH-2.0-OpenSSH_9.7\r\n", Protocol::Ssh),
            (b"PROXY TCP4 1", Protocol::ProxyHeader),
            (b"\r\n\r\n\0\r\nQUIT\n", Protocol::ProxyHeader),
            (b"\x15\x03\x03\x00\x02\x02\x28", Protocol::TlsAlert),
            (b"\x80\x2e\x01\x03\x01\x00\x15", Protocol::Ssl2),
            (b"\0\0\0\x1d\0\x12\0\x03\0\0\0\0", Protocol::PlainKafka),
            (b"\xff\xff\xff\xff\xff", Protocol::Unknown),
        ] {
            assert_eq!(read(bytes), Hello::NotTls(protocol), "{bytes:?}");
        }
        assert_eq!(read(b"GET"), Hello::NeedMore);
        assert_eq!(read(b""), Hello::NeedMore);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600), tls in any::<bool>()) {
            let mut bytes = bytes;
            if tls && bytes.len() >= 6 {
                bytes[..3].copy_from_slice(&[0x16, 3, 1]);
                bytes[3] = 0;
                bytes[5] = 1;
            }
            let _ = read(&bytes);
        }

        #[test]
        fn no_edit_of_a_real_hello_panics(at in 0usize..230, to in any::<u8>()) {
            let mut bytes = hello("b0.grape.test", true);
            let at = at % bytes.len();
            bytes[at] = to;
            let _ = read(&bytes);
        }
    }

    #[test]
    fn what_follows_a_hello_changes_no_verdict() {
        let mut bytes = hello("b0.orange.example", true);
        let verdict = read(&bytes);
        assert_eq!(verdict, Hello::Sni("b0.orange.example".to_owned()));
        // A handshake record of no length: broken, and not the hello's.
        bytes.extend([HANDSHAKE, 3, 1, 0, 0]);
        assert_eq!(read(&bytes), verdict);
    }
}
