//! What authenticates a connection (KIP-43, KIP-152, KIP-368): ApiVersions, SaslHandshake and SaslAuthenticate, in bytes.
//!
//! Requests are whole frames, length included; answers are read from behind their correlation id.

use super::primitives::{Cursor, Malformed, put_text, put_uvarint};
use super::{api, header};

/// SaslHandshake that is followed by SaslAuthenticate and not by raw tokens (Kafka 1.0).
pub const HANDSHAKE_VERSION: i16 = 1;
/// Highest SaslAuthenticate spoken: the first with compact types; all since 1 carry the session's lifetime.
pub const AUTHENTICATE_VERSION: i16 = 2;
/// Most names of mechanisms that are kept of an answer; Kafka has seven.
pub const MOST_MECHANISMS: usize = 32;

/// What a broker offers of the two APIs, lowest and highest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Offered {
    /// SaslHandshake.
    pub handshake: Option<(i16, i16)>,
    /// SaslAuthenticate.
    pub authenticate: Option<(i16, i16)>,
}

impl Offered {
    /// The version of SaslAuthenticate to speak; `None` where the broker is too old for it.
    #[must_use]
    pub fn authenticate_version(&self) -> Option<i16> {
        self.handshake.filter(|(min, max)| (*min..=*max).contains(&HANDSHAKE_VERSION))?;
        let (min, max) = self.authenticate?;
        (min..=max.min(AUTHENTICATE_VERSION)).last()
    }
}

/// An ApiVersions request of version 0, which every broker answers.
#[must_use]
pub fn versions_request(correlation_id: i32, client_id: &str) -> Vec<u8> {
    framed(request_head(api::API_VERSIONS, 0, correlation_id, client_id))
}

/// The answer to [`versions_request`]. Inner error: the broker's error code.
///
/// # Errors
/// [`Malformed`], each kind.
pub fn read_versions(body: &[u8]) -> Result<Result<Offered, i16>, Malformed> {
    let mut cursor = Cursor::new(body);
    let error_code = cursor.i16("error code")?;
    if error_code != 0 {
        return Ok(Err(error_code));
    }
    let mut offered = Offered::default();
    for _ in 0..cursor.count(false, "APIs")?.unwrap_or(0) {
        let (key, min, max) = (cursor.i16("API key")?, cursor.i16("lowest version")?, cursor.i16("highest version")?);
        match key {
            api::SASL_HANDSHAKE => offered.handshake = Some((min, max)),
            api::SASL_AUTHENTICATE => offered.authenticate = Some((min, max)),
            _ => {}
        }
    }
    Ok(Ok(offered))
}

/// A SaslHandshake request.
#[must_use]
pub fn handshake_request(correlation_id: i32, client_id: &str, mechanism: &str) -> Vec<u8> {
    let mut out = request_head(api::SASL_HANDSHAKE, HANDSHAKE_VERSION, correlation_id, client_id);
    put_text(&mut out, false, mechanism.as_bytes());
    framed(out)
}

/// The answer to a SaslHandshake request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handshake<'a> {
    /// Zero, or why the mechanism is not taken.
    pub error_code: i16,
    /// Mechanisms that the broker takes, [`MOST_MECHANISMS`] at most.
    pub mechanisms: Vec<&'a [u8]>,
}

/// Reads the answer to a SaslHandshake request.
///
/// # Errors
/// [`Malformed`], each kind.
pub fn read_handshake(body: &[u8]) -> Result<Handshake<'_>, Malformed> {
    let mut cursor = Cursor::new(body);
    let error_code = cursor.i16("error code")?;
    let count = cursor.count(false, "mechanisms")?.unwrap_or(0);
    let mut mechanisms = Vec::new();
    for _ in 0..count {
        let mechanism = cursor.some_text(false, "mechanism")?;
        if mechanisms.len() < MOST_MECHANISMS {
            mechanisms.push(mechanism);
        }
    }
    Ok(Handshake { error_code, mechanisms })
}

/// A SaslAuthenticate request with one message of the conversation. Holds a secret: the caller wipes it.
#[must_use]
pub fn authenticate_request(version: i16, correlation_id: i32, client_id: &str, message: &[u8]) -> Vec<u8> {
    let mut out = request_head(api::SASL_AUTHENTICATE, version, correlation_id, client_id);
    let flexible = api::is_flexible(api::SASL_AUTHENTICATE, version);
    // Room for all of it at once: growing would leave copies behind.
    out.reserve(message.len() + 16);
    put_blob(&mut out, flexible, message);
    if flexible {
        put_uvarint(&mut out, 0);
    }
    framed(out)
}

/// The answer to a SaslAuthenticate request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticate<'a> {
    /// Zero, or why not.
    pub error_code: i16,
    /// The broker's words for the error.
    pub error_message: Option<&'a [u8]>,
    /// The next message of the conversation.
    pub message: &'a [u8],
    /// How long the session lasts, in milliseconds; zero for ever.
    pub session_lifetime_ms: i64,
}

/// Reads the answer to a SaslAuthenticate request of `version`, header tags included.
///
/// # Errors
/// [`Malformed`], each kind.
pub fn read_authenticate(body: &[u8], version: i16) -> Result<Authenticate<'_>, Malformed> {
    let flexible = api::is_flexible(api::SASL_AUTHENTICATE, version);
    let mut cursor = Cursor::new(body);
    cursor.skip_tags(flexible)?;
    let error_code = cursor.i16("error code")?;
    let error_message = cursor.text(flexible, "error message")?;
    let message = cursor.blob(flexible, "SASL message")?.unwrap_or_default();
    let session_lifetime_ms = if version >= 1 { cursor.i64("session lifetime")? } else { 0 };
    Ok(Authenticate { error_code, error_message, message, session_lifetime_ms })
}

/// The mechanism that a SaslHandshake request names; `frame` is the request without its length.
///
/// # Errors
/// [`Malformed`], each kind.
pub fn read_handshake_request(frame: &[u8]) -> Result<&[u8], Malformed> {
    let mut cursor = Cursor::new(frame);
    header::read_request_header(&mut cursor)?;
    cursor.some_text(false, "mechanism")
}

/// The message in a SaslAuthenticate request; `frame` is the request without its length.
///
/// # Errors
/// [`Malformed`], each kind.
pub fn read_authenticate_request(frame: &[u8]) -> Result<&[u8], Malformed> {
    let mut cursor = Cursor::new(frame);
    let head = header::read_request_header(&mut cursor)?.head;
    let flexible = api::is_flexible(head.api_key, head.api_version);
    Ok(cursor.blob(flexible, "SASL message")?.unwrap_or_default())
}

/// Reads all requests and answers off arbitrary bytes; for fuzzing. Panics never.
pub fn fuzz_sasl(data: &[u8]) {
    let _ = read_versions(data);
    let _ = read_handshake(data);
    let _ = (read_handshake_request(data), read_authenticate_request(data));
    for version in 0..=AUTHENTICATE_VERSION {
        let _ = read_authenticate(data, version);
    }
}

/// A request up to its body, with room for the length at its beginning.
fn request_head(key: i16, version: i16, correlation_id: i32, client_id: &str) -> Vec<u8> {
    let mut out = vec![0; 4];
    out.extend_from_slice(&key.to_be_bytes());
    out.extend_from_slice(&version.to_be_bytes());
    out.extend_from_slice(&correlation_id.to_be_bytes());
    put_text(&mut out, false, client_id.as_bytes());
    if api::request_header_version(key, version) >= 2 {
        put_uvarint(&mut out, 0);
    }
    out
}

/// Writes the length at the beginning.
fn framed(mut out: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(out.len() - 4).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_be_bytes());
    out
}

fn put_blob(out: &mut Vec<u8>, flexible: bool, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX - 1);
    if flexible {
        put_uvarint(out, length + 1);
    } else {
        out.extend_from_slice(&length.to_be_bytes());
    }
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use bytes::{Buf as _, BytesMut};
    use kafka_protocol::messages::api_versions_response::ApiVersion;
    use kafka_protocol::messages::{
        ApiVersionsResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse,
        SaslHandshakeRequest, SaslHandshakeResponse,
    };
    use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};

    use super::*;

    /// The body of a frame, decoded by an independent codec; header checked.
    fn decode<M: Decodable + HeaderVersion>(frame: &[u8], version: i16) -> M {
        let mut bytes = bytes::Bytes::copy_from_slice(frame);
        assert_eq!(bytes.get_i32() as usize, frame.len() - 4);
        let header = RequestHeader::decode(&mut bytes, M::header_version(version)).expect("a header");
        assert_eq!((header.correlation_id, header.client_id.as_deref()), (i32::MIN, Some("me")));
        let message = M::decode(&mut bytes, version).expect("a body");
        assert!(bytes.is_empty());
        message
    }

    fn encode<M: Encodable + HeaderVersion>(message: &M, version: i16) -> Vec<u8> {
        let mut out = BytesMut::new();
        ResponseHeader::default()
            .with_correlation_id(7)
            .encode(&mut out, M::header_version(version))
            .expect("a header");
        message.encode(&mut out, version).expect("a body");
        out[4..].to_vec()
    }

    #[test]
    fn requests_are_what_an_independent_codec_reads() {
        assert_eq!(versions_request(1, "x").len(), 4 + 8 + 2 + 1);
        let handshake: SaslHandshakeRequest = decode(&handshake_request(i32::MIN, "me", "PLAIN"), 1);
        assert_eq!(handshake.mechanism.as_str(), "PLAIN");
        for version in 0..=2 {
            let message: SaslAuthenticateRequest =
                decode(&authenticate_request(version, i32::MIN, "me", b"\0u\0p"), version);
            assert_eq!(&message.auth_bytes[..], b"\0u\0p");
        }
    }

    #[test]
    fn answers_are_read_in_every_version() {
        let api = |key, min, max| ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max);
        let answer =
            ApiVersionsResponse::default().with_api_keys(vec![api(17, 0, 1), api(36, 0, 2), api(30_000, 0, 9)]);
        let offered = read_versions(&encode(&answer, 0)).expect("whole").expect("no error");
        assert_eq!(offered.authenticate_version(), Some(2));
        assert_eq!(Offered { authenticate: Some((0, 1)), ..offered }.authenticate_version(), Some(1));
        assert_eq!(Offered { handshake: Some((0, 0)), ..offered }.authenticate_version(), None);
        assert_eq!(Offered { authenticate: Some((3, 9)), ..offered }.authenticate_version(), None);

        let answer = SaslHandshakeResponse::default()
            .with_error_code(33)
            .with_mechanisms(["PLAIN", "GSSAPI"].map(StrBytes::from_static_str).to_vec());
        let read = encode(&answer, 1);
        assert_eq!(read_handshake(&read), Ok(Handshake { error_code: 33, mechanisms: vec![b"PLAIN", b"GSSAPI"] }));
        for version in 0..=2 {
            let answer = SaslAuthenticateResponse::default()
                .with_error_code(58)
                .with_error_message(Some(StrBytes::from_static_str("no")))
                .with_auth_bytes(b"next"[..].into())
                .with_session_lifetime_ms(if version == 0 { 0 } else { 5_000 });
            let bytes = encode(&answer, version);
            let read = read_authenticate(&bytes, version).expect("whole");
            assert_eq!((read.error_code, read.error_message, read.message), (58, Some(&b"no"[..]), &b"next"[..]));
            assert_eq!(read.session_lifetime_ms, answer.session_lifetime_ms);
            // The tagged fields at the end of version 2 are nobody's need.
            for cut in 0..bytes.len() - usize::from(version == 2) {
                assert!(read_authenticate(&bytes[..cut], version).is_err(), "version {version} cut at {cut}");
            }
        }
    }

    #[test]
    fn hostile_counts_are_errors() {
        assert!(read_versions(b"\0\0\x7f\xff\xff\xff").is_err());
        assert!(read_handshake(b"\0\0\x7f\xff\xff\xff").is_err());
        // Two bytes each on the wire, sixteen in memory: more than any broker has are read and not kept.
        let many = [&b"\0\0\0\0\x10\0"[..], &[0; 2 * 0x1000]].concat();
        let kept = read_handshake(&many).map(|read| (read.mechanisms.len(), read.mechanisms.capacity()));
        assert_eq!(kept, Ok((MOST_MECHANISMS, MOST_MECHANISMS)));
        assert!(read_handshake(&many[..many.len() - 1]).is_err());
        assert!(read_authenticate(b"\0\0\0\0\0\xff\xff\xff\xff\x0f", 2).is_err());
    }
}
