//! Responses that no broker was asked for.

use crate::kafka::api;
use crate::kafka::header::RequestHead;
use crate::kafka::primitives::{put_count, put_text, put_uvarint};

/// ILLEGAL_SASL_STATE: this port takes no SASL. Fatal to a client, and named as such by it.
const ILLEGAL_SASL_STATE: i16 = 34;

/// SASL_AUTHENTICATION_FAILED.
pub(in crate::proxy) const SASL_AUTHENTICATION_FAILED: i16 = 58;

/// The answer to a SaslHandshake or SaslAuthenticate on a port that takes no SASL.
pub(super) fn no_sasl(head: RequestHead) -> Vec<u8> {
    if head.api_key == api::SASL_HANDSHAKE {
        handshaken(head, ILLEGAL_SASL_STATE, &[])
    } else {
        authenticated(head, ILLEGAL_SASL_STATE, "this port takes no SASL: use PLAINTEXT or SSL", &[])
    }
}

/// The answer to a SaslHandshake.
pub(super) fn handshaken(head: RequestHead, error_code: i16, mechanisms: &[&str]) -> Vec<u8> {
    let mut out = begun(head.correlation_id, head.api_key, head.api_version);
    out.extend_from_slice(&error_code.to_be_bytes());
    put_count(&mut out, false, Some(mechanisms.len()));
    for mechanism in mechanisms {
        put_text(&mut out, false, mechanism.as_bytes());
    }
    framed(out)
}

/// The answer to a SaslAuthenticate; an empty text is none.
pub(super) fn authenticated(head: RequestHead, error_code: i16, text: &str, message: &[u8]) -> Vec<u8> {
    let flexible = api::is_flexible(head.api_key, head.api_version);
    let mut out = begun(head.correlation_id, head.api_key, head.api_version);
    out.extend_from_slice(&error_code.to_be_bytes());
    if text.is_empty() {
        if flexible { put_uvarint(&mut out, 0) } else { out.extend_from_slice(&(-1_i16).to_be_bytes()) }
    } else {
        put_text(&mut out, flexible, text.as_bytes());
    }
    put_count(&mut out, flexible, Some(message.len())); // Bytes have the form of an array of bytes.
    out.extend_from_slice(message);
    if head.api_version >= 1 {
        out.extend_from_slice(&0_i64.to_be_bytes());
    }
    if flexible {
        put_uvarint(&mut out, 0);
    }
    framed(out)
}

/// The answer that refuses a request without a look at its body; `None` where its API has no form for that.
pub(super) fn refusal(correlation_id: i32, key: i16, version: i16, error_code: i16) -> Option<Vec<u8>> {
    if key != api::API_VERSIONS || !(0..=5).contains(&version) {
        return None;
    }
    let flexible = api::is_flexible(key, version);
    let mut out = begun(correlation_id, key, version);
    out.extend_from_slice(&error_code.to_be_bytes());
    put_count(&mut out, flexible, Some(0));
    if version >= 1 {
        out.extend_from_slice(&0_i32.to_be_bytes());
    }
    if flexible {
        put_uvarint(&mut out, 0);
    }
    Some(framed(out))
}

/// A response up to its body, with room for its length.
fn begun(correlation_id: i32, key: i16, version: i16) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend_from_slice(&correlation_id.to_be_bytes());
    if api::response_header_version(key, version) >= 1 {
        put_uvarint(&mut out, 0);
    }
    out
}

fn framed(mut out: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use bytes::Buf as _;
    use kafka_protocol::messages::{
        ApiVersionsResponse, ResponseHeader, SaslAuthenticateResponse, SaslHandshakeResponse,
    };
    use kafka_protocol::protocol::{Decodable, HeaderVersion};

    use super::*;

    fn decode<M: Decodable + HeaderVersion>(frame: &[u8], version: i16) -> M {
        let mut bytes = bytes::Bytes::copy_from_slice(frame);
        assert_eq!(bytes.get_i32() as usize, frame.len() - 4);
        let header = ResponseHeader::decode(&mut bytes, M::header_version(version)).expect("a header");
        assert_eq!(header.correlation_id, 9);
        let message = M::decode(&mut bytes, version).expect("a body");
        assert!(bytes.is_empty(), "version {version}: {bytes:?}");
        message
    }

    #[test]
    fn an_independent_codec_reads_them_in_every_version() {
        let head = |api_key, api_version| RequestHead { api_key, api_version, correlation_id: 9 };
        for version in 0..=1 {
            let answer: SaslHandshakeResponse = decode(&no_sasl(head(api::SASL_HANDSHAKE, version)), version);
            assert_eq!((answer.error_code, answer.mechanisms.len()), (34, 0));
        }
        for version in 0..=2 {
            let answer: SaslAuthenticateResponse = decode(&no_sasl(head(api::SASL_AUTHENTICATE, version)), version);
            assert_eq!((answer.error_code, answer.auth_bytes.len(), answer.session_lifetime_ms), (34, 0, 0));
        }
        for version in 0..=2 {
            let frame = authenticated(head(api::SASL_AUTHENTICATE, version), 0, "", b"next");
            let answer: SaslAuthenticateResponse = decode(&frame, version);
            assert_eq!((answer.error_code, answer.error_message, &answer.auth_bytes[..]), (0, None, &b"next"[..]));
        }
        let answer: SaslHandshakeResponse = decode(&handshaken(head(api::SASL_HANDSHAKE, 1), 33, &["PLAIN", "X"]), 1);
        assert_eq!((answer.error_code, answer.mechanisms[1].as_str()), (33, "X"));
        for version in 0..=4 {
            let frame = refusal(9, api::API_VERSIONS, version, 58).expect("a form");
            let answer: ApiVersionsResponse = decode(&frame, version);
            assert_eq!((answer.error_code, answer.api_keys.len()), (58, 0));
        }
        assert_eq!(refusal(9, api::METADATA, 12, 58), None);
    }
}
