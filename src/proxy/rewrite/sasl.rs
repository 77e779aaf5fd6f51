//! The raw SASL exchange after a handshake of version 0: tokens without any Kafka header, one for one.
//!
//! Nothing in the bytes says where the exchange ends, so it is counted by mechanism: PLAIN and OAUTHBEARER send one token, SCRAM
//! two. GSSAPI and unknown mechanisms go on until a frame looks like a request: their tokens (ASN.1 `60`, wrap tokens `05 04`)
//! never do.

use crate::kafka::header::{self, RequestHead};
use crate::kafka::primitives::Cursor;

/// Highest API key and version that end an exchange of unknown length; real ones are far below, tokens far above.
const PLAUSIBLE_KEY: i16 = 1_000;
const PLAUSIBLE_VERSION: i16 = 50;

/// Tokens still to come from the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tokens {
    /// This many, at least one.
    Left(u8),
    /// Until a frame looks like a request.
    UntilRequest,
}

impl Tokens {
    /// What follows a handshake request of version 0, which is the whole frame without its length.
    pub(super) fn after_handshake(frame: &[u8]) -> Self {
        let mut cursor = Cursor::new(frame);
        let mechanism = header::read_request_header(&mut cursor)
            .and_then(|_| cursor.text(false, "mechanism"))
            .ok()
            .flatten()
            .unwrap_or_default();
        match mechanism {
            b"PLAIN" | b"OAUTHBEARER" => Self::Left(1),
            [b'S', b'C', b'R', b'A', b'M', b'-', ..] => Self::Left(2),
            _ => Self::UntilRequest,
        }
    }

    /// Whether a frame of `length` bytes that begins with `head` (as much of it as there is) is a token.
    pub(super) fn is_token(self, length: u32, head: &[u8]) -> bool {
        match (self, <[u8; 8]>::try_from(head)) {
            (Self::Left(_), _) | (_, Err(_)) => true,
            (Self::UntilRequest, Ok(head)) => {
                let head = RequestHead::read(head);
                length < 8
                    || !(0..PLAUSIBLE_KEY).contains(&head.api_key)
                    || !(0..PLAUSIBLE_VERSION).contains(&head.api_version)
            }
        }
    }

    /// After one more token; `None` when it was the last.
    pub(super) fn after_token(self) -> Option<Self> {
        match self {
            Self::Left(0 | 1) => None,
            Self::Left(left) => Some(Self::Left(left - 1)),
            Self::UntilRequest => Some(Self::UntilRequest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handshake(mechanism: &str) -> Tokens {
        let mut frame = b"\0\x11\0\0\0\0\0\x01\0\x02me\0".to_vec();
        frame.push(mechanism.len() as u8);
        frame.extend(mechanism.as_bytes());
        Tokens::after_handshake(&frame)
    }

    #[test]
    fn counts_tokens_by_mechanism() {
        assert_eq!(handshake("PLAIN"), Tokens::Left(1));
        assert_eq!(handshake("OAUTHBEARER"), Tokens::Left(1));
        assert_eq!(handshake("SCRAM-SHA-512").after_token(), Some(Tokens::Left(1)));
        assert_eq!(Tokens::Left(1).after_token(), None);
        assert_eq!(handshake("GSSAPI"), Tokens::UntilRequest);
        assert_eq!(Tokens::after_handshake(b"\0"), Tokens::UntilRequest);
    }

    #[test]
    fn tells_gssapi_tokens_from_requests() {
        let gssapi = Tokens::UntilRequest;
        assert!(gssapi.is_token(700, &[0x60, 0x82, 2, 0x70, 6, 9, 0x2a, 0x86]));
        assert!(gssapi.is_token(32, &[5, 4, 4, 0xff, 0, 0xc, 0, 0]));
        assert!(gssapi.is_token(0, &[]));
        assert!(!gssapi.is_token(40, &[0, 3, 0, 9, 0, 0, 0, 1]));
        assert!(Tokens::Left(1).is_token(40, &[0, 3, 0, 9, 0, 0, 0, 1]));
    }
}
