//! The first bytes of a carrier, in clear: who speaks which version and transport, for which link.
//!
//! ```text
//! dialler:  'L' 'S' 'P' 'N'  version u8  transport u8  length u8  link (1 to 63 bytes)   then the first handshake message
//! listener: 'L' 'S' 'P' 'N'  version u8  transport u8  verdict u8                        then, on "go on", its first message
//! ```
//! Nothing here is believed: the handshake proves the dialler's bytes (noise: prologue; tls: context of the exporter), and a
//! forged verdict ends only the carrier that it was forged into.

use super::error::{CarrierError, Transport};
use super::sniff::{Seen, sniff};

/// Version of the tunnel: preamble, handshake, records and frames together.
pub const VERSION: u8 = 1;

const MAGIC: &[u8; 4] = b"LSPN";
/// Longest name of a link, in bytes.
const MOST_LINK: usize = 63;
/// Magic, version, transport, length.
const FIXED: usize = 7;
/// Length of the listener's answer, in bytes.
const ANSWER: usize = 7;

const GO_ON: u8 = 0;
const OTHER_VERSION: u8 = 1;
const OTHER_TRANSPORT: u8 = 2;
const UNKNOWN_LINK: u8 = 3;

/// What a dialler says first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Preamble {
    pub(super) version: u8,
    /// The transport's number; unknown ones are a mismatch, not a mistake.
    pub(super) transport: u8,
    pub(super) link: Vec<u8>,
}

impl Preamble {
    pub(super) fn new(transport: Transport, link: &str) -> Result<Self, CarrierError> {
        if link.is_empty() || link.len() > MOST_LINK {
            return Err(CarrierError::LinkName { len: link.len() });
        }
        Ok(Self { version: VERSION, transport: transport as u8, link: link.as_bytes().to_vec() })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED + self.link.len());
        out.extend_from_slice(MAGIC);
        let len = u8::try_from(self.link.len()).expect("a link's name has at most 63 bytes");
        out.extend_from_slice(&[self.version, self.transport, len]);
        out.extend_from_slice(&self.link);
        out
    }

    /// Reads a preamble at the front of `bytes`: it and its length, or `None` while more must come.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, CarrierError> {
        expect_magic(bytes)?;
        let &[_, _, _, _, version, transport, len, ..] = bytes else { return Ok(None) };
        // Another version may have another form behind its number.
        if version != VERSION {
            return Ok(Some((Self { version, transport, link: Vec::new() }, FIXED)));
        }
        let len = usize::from(len);
        if len == 0 || len > MOST_LINK {
            return Err(CarrierError::LinkName { len });
        }
        let Some(link) = bytes.get(FIXED..FIXED + len) else { return Ok(None) };
        Ok(Some((Self { version, transport, link: link.to_vec() }, FIXED + len)))
    }
}

/// What the listener answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    Version,
    Transport,
    Link,
}

impl Verdict {
    /// `transport` is the one this listener uses.
    pub(super) fn encode(self, transport: Transport) -> [u8; ANSWER] {
        let code = match self {
            Self::GoOn => GO_ON,
            Self::Version => OTHER_VERSION,
            Self::Transport => OTHER_TRANSPORT,
            Self::Link => UNKNOWN_LINK,
        };
        let [a, b, c, d] = *MAGIC;
        [a, b, c, d, VERSION, transport as u8, code]
    }

    /// Reads the answer to `asked` at the front of `bytes`: its length when the listener goes on, `None` while more must come.
    pub(super) fn decode(bytes: &[u8], asked: Transport, link: &str) -> Result<Option<usize>, CarrierError> {
        expect_magic(bytes)?;
        let &[_, _, _, _, version, transport, code, ..] = bytes else { return Ok(None) };
        match (version, code) {
            (VERSION, GO_ON) => Ok(Some(ANSWER)),
            (VERSION, UNKNOWN_LINK) => Err(CarrierError::UnknownLink { link: link.to_owned() }),
            (VERSION, OTHER_TRANSPORT) => Err(CarrierError::TransportMismatch {
                ours: asked,
                theirs: if transport == Transport::Noise as u8 { Transport::Noise } else { Transport::Tls },
            }),
            (VERSION, _) => {
                Err(CarrierError::Handshake { detail: format!("the listener answered with verdict {code}") })
            }
            (theirs, _) => Err(CarrierError::Version { ours: VERSION, theirs }),
        }
    }
}

/// Whether `bytes` begin, as far as they go, like ours.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    bytes.iter().zip(MAGIC).all(|(a, b)| a == b)
}

fn expect_magic(bytes: &[u8]) -> Result<(), CarrierError> {
    if is_ours(bytes) {
        return Ok(());
    }
    let seen = sniff(bytes);
    Err(CarrierError::NotLinkspan { seen: if seen == Seen::Nothing { Seen::Unknown } else { seen } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_these_bytes_and_reads_back_at_each_cut() {
        let preamble = Preamble::new(Transport::Noise, "orange-grape").expect("fits");
        let bytes = preamble.encode();
        assert_eq!(bytes, b"LSPN\x01\x01\x0corange-grape");
        for cut in 0..bytes.len() {
            assert!(matches!(Preamble::decode(&bytes[..cut]), Ok(None)), "{cut}");
        }
        let mut longer = bytes.clone();
        longer.extend_from_slice(b"more");
        let (back, used) = Preamble::decode(&longer).expect("ours").expect("whole");
        assert_eq!((back, used), (preamble, bytes.len()));
    }

    #[test]
    fn refuses_names_that_do_not_fit_and_reads_other_versions_no_further() {
        assert!(Preamble::new(Transport::Tls, "").is_err());
        assert!(Preamble::new(Transport::Tls, &"a".repeat(64)).is_err());
        assert!(matches!(Preamble::decode(b"LSPN\x01\x01\x00"), Err(CarrierError::LinkName { len: 0 })));
        assert!(matches!(Preamble::decode(b"LSPN\x01\x01\x40"), Err(CarrierError::LinkName { len: 64 })));
        let (other, used) = Preamble::decode(b"LSPN\x09\x01\xff").expect("ours").expect("whole");
        assert_eq!((other.version, used), (9, 7));
    }

    #[test]
    fn verdicts_read_back_as_what_they_mean() {
        let read = |v: Verdict| Verdict::decode(&v.encode(Transport::Tls), Transport::Noise, "a");
        assert!(matches!(read(Verdict::GoOn), Ok(Some(7))));
        assert!(matches!(read(Verdict::Link), Err(CarrierError::UnknownLink { link }) if link == "a"));
        assert!(matches!(
            read(Verdict::Transport),
            Err(CarrierError::TransportMismatch { ours: Transport::Noise, theirs: Transport::Tls })
        ));
        assert!(matches!(
            Verdict::decode(b"LSPN\x02\x01\x01", Transport::Noise, "a"),
            Err(CarrierError::Version { ours: 1, theirs: 2 })
        ));
        assert!(matches!(
            Verdict::decode(b"HTTP/1.1 400", Transport::Noise, "a"),
            Err(CarrierError::NotLinkspan { seen: Seen::HttpAnswer })
        ));
    }
}
