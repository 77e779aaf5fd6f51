//! The heads of requests and responses: what a frame is, in its first bytes.

use super::api;
use super::primitives::{Cursor, Malformed};

/// The eight bytes that begin every request, whatever its header's version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHead {
    /// Which API.
    pub api_key: i16,
    /// Which version of it.
    pub api_version: i16,
    /// What the response will begin with.
    pub correlation_id: i32,
}

impl RequestHead {
    /// Reads the first eight bytes of a request.
    #[must_use]
    pub const fn read(bytes: [u8; 8]) -> Self {
        let [k0, k1, v0, v1, c0, c1, c2, c3] = bytes;
        Self {
            api_key: i16::from_be_bytes([k0, k1]),
            api_version: i16::from_be_bytes([v0, v1]),
            correlation_id: i32::from_be_bytes([c0, c1, c2, c3]),
        }
    }
}

/// A whole request header: versions 0 to 2, where version 0 has no client id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// Its first eight bytes.
    pub head: RequestHead,
    /// The client id as bytes; `None` for null.
    pub client_id: Option<&'a [u8]>,
}

/// Reads a request's header off its frame, tagged fields included. The client id has an INT16 length even in version 2.
///
/// # Errors
/// [`Malformed`], each kind.
pub fn read_request_header<'a>(cursor: &mut Cursor<'a>) -> Result<RequestHeader<'a>, Malformed> {
    let head = RequestHead {
        api_key: cursor.i16("API key")?,
        api_version: cursor.i16("API version")?,
        correlation_id: cursor.i32("correlation id")?,
    };
    let version = api::request_header_version(head.api_key, head.api_version);
    let client_id = if version >= 1 { cursor.text(false, "client id")? } else { None };
    cursor.skip_tags(version >= 2)?;
    Ok(RequestHeader { head, client_id })
}

/// Reads request headers off arbitrary bytes; for fuzzing. Panics never.
pub fn fuzz_request_header(data: &[u8]) {
    let _ = read_request_header(&mut Cursor::new(data));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_all_three_versions() {
        let v0 = b"\0\x07\0\0\0\0\0\x09rest";
        let v1 = b"\0\x03\0\x08\0\0\0\x09\0\x02rdrest";
        let v2 = b"\0\x03\0\x09\0\0\0\x09\xff\xff\x01\x05\x02xxrest";
        for (bytes, client_id) in [(&v0[..], None), (&v1[..], Some(&b"rd"[..])), (&v2[..], None)] {
            let mut cursor = Cursor::new(bytes);
            let header = read_request_header(&mut cursor).expect("header");
            assert_eq!((header.head.correlation_id, header.client_id), (9, client_id));
            assert_eq!(cursor.rest(), b"rest");
            assert_eq!(RequestHead::read(bytes[..8].try_into().expect("eight")), header.head);
        }
    }

    #[test]
    fn refuses_bad_client_ids_and_tags() {
        for bytes in [
            &b"\0\x03\0\x08\0\0\0\x09\xff\xfe"[..],
            b"\0\x03\0\x08\0\0\0\x09\x7f\xff..",
            b"\0\x03\0\x09\0\0\0\x09\0\0\xff\xff\xff\xff\x0f",
            b"\0\x03\0\x09\0\0\0\x09\0\0\x01\x05\x7f.",
            b"\0\x03\0\x09\0\0",
        ] {
            assert!(read_request_header(&mut Cursor::new(bytes)).is_err(), "{bytes:x?}");
        }
        let not_utf8 = b"\0\x03\0\x08\0\0\0\x09\0\x01\xff";
        assert_eq!(read_request_header(&mut Cursor::new(not_utf8)).expect("bytes").client_id, Some(&b"\xff"[..]));
    }
}
