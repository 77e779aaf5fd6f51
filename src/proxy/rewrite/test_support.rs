//! What the tests of this room share: a session fed as a connection would, in any cut, and a mapping with two faces.

use super::{Mapping, Piece, Pieces, RewriteError, Session};

/// What real hosts contain and no rewritten frame may.
pub(in crate::proxy) const REAL: &str = "orange.example";

/// A real host name, as long as brokers' names are.
pub(in crate::proxy) fn real_host(node_id: i32) -> String {
    format!("b{node_id}.kafka.{REAL}.internal")
}

/// Local addresses with a short or a long host; nodes in `hidden` have none. Keeps what it was asked.
pub(in crate::proxy) struct Local {
    pub(in crate::proxy) host: String,
    pub(in crate::proxy) hidden: Vec<i32>,
    pub(in crate::proxy) asked: Vec<(i32, String, i32)>,
}

impl Local {
    pub(in crate::proxy) fn short() -> Self {
        Self { host: "127.0.0.1".to_owned(), hidden: Vec::new(), asked: Vec::new() }
    }

    pub(in crate::proxy) fn long() -> Self {
        Self { host: format!("{}.test", "long".repeat(60)), ..Self::short() }
    }

    pub(in crate::proxy) fn port(node_id: i32) -> i32 {
        20_000 + node_id % 1_000
    }
}

impl Mapping for Local {
    fn local(&mut self, node_id: i32, host: &str, port: i32) -> Option<(String, u16)> {
        self.asked.push((node_id, host.to_owned(), port));
        (!self.hidden.contains(&node_id)).then(|| (self.host.clone(), Self::port(node_id) as u16))
    }

    fn is_local(&mut self, host: &[u8], port: i32) -> bool {
        host == self.host.as_bytes() && (20_000 - 999..21_000).contains(&port)
    }
}

/// Applies pieces to the input they were made for.
pub(in crate::proxy) fn apply(input: &[u8], pieces: &Pieces, out: &mut Vec<u8>) {
    let mut at = 0;
    for piece in pieces.iter() {
        match piece {
            Piece::Pass(bytes) => {
                out.extend_from_slice(&input[at..at + bytes]);
                at += bytes;
            }
            Piece::Skip(bytes) => at += bytes,
            Piece::New(bytes) => out.extend_from_slice(bytes),
        }
    }
    assert_eq!(at, input.len(), "every byte of the input has its piece");
}

/// What the broker gets of these chunks.
pub(in crate::proxy) fn send(session: &mut Session, chunks: &[&[u8]]) -> Result<Vec<u8>, RewriteError> {
    let mut out = Vec::new();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        let mut pieces = Pieces::new();
        let taken = session.handle_request(chunk, &mut pieces)?;
        assert_eq!(taken, chunk.len());
        apply(chunk, &pieces, &mut out);
    }
    Ok(out)
}

/// What the client gets of these chunks.
pub(in crate::proxy) fn receive(
    session: &mut Session,
    mapping: &mut dyn Mapping,
    chunks: &[&[u8]],
) -> Result<Vec<u8>, RewriteError> {
    let mut out = Vec::new();
    for chunk in chunks.iter().filter(|chunk| !chunk.is_empty()) {
        let mut pieces = Pieces::new();
        session.handle_response(chunk, mapping, &mut pieces)?;
        apply(chunk, &pieces, &mut out);
    }
    Ok(out)
}

/// A frame around a body.
pub(in crate::proxy) fn frame(body: &[u8]) -> Vec<u8> {
    let mut out = (body.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(body);
    out
}

/// A request of any API but Produce, by its head alone: the rest is not read.
pub(in crate::proxy) fn request(key: i16, version: i16, correlation_id: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend(key.to_be_bytes());
    body.extend(version.to_be_bytes());
    body.extend(correlation_id.to_be_bytes());
    if key == crate::kafka::api::PRODUCE {
        body.extend(b"\0\x02me");
        match version {
            0..=2 => {}
            3..=8 => body.extend(b"\xff\xff"),
            _ => body.extend(b"\0\0"),
        }
        body.extend(1_i16.to_be_bytes());
    }
    body.extend(b"whatever follows");
    frame(&body)
}

/// An EndTxn of version 0, whose refusal reads no more than this.
pub(in crate::proxy) fn end_txn(correlation_id: i32) -> Vec<u8> {
    frame(&[&b"\0\x1a\0\0"[..], &correlation_id.to_be_bytes(), b"\0\x02mewhatever follows"].concat())
}

/// A session that awaits one response of `key` in `version` with the correlation id 7.
pub(in crate::proxy) fn awaiting(key: i16, version: i16) -> Session {
    let mut session = Session::new();
    let request = request(key, version, 7);
    assert_eq!(send(&mut session, &[&request]).expect("a request"), request);
    session
}

/// What becomes of a response, checked to be the same whole, dribbled and cut at every byte.
pub(in crate::proxy) fn rewrite(
    key: i16,
    version: i16,
    response: &[u8],
    mapping: &mut dyn Mapping,
) -> Result<Vec<u8>, RewriteError> {
    let whole = receive(&mut awaiting(key, version), mapping, &[response])?;
    let dribbled: Vec<&[u8]> = response.chunks(1).collect();
    assert_eq!(receive(&mut awaiting(key, version), mapping, &dribbled)?, whole, "dribbled");
    for cut in 1..response.len().min(4_000) {
        let mut session = awaiting(key, version);
        let (a, b) = response.split_at(cut);
        assert_eq!(receive(&mut session, mapping, &[a, b])?, whole, "cut at {cut}");
        assert!(session.is_answered() && session.handle_broker_end().is_ok());
    }
    Ok(whole)
}

/// Whether a real host is to be read anywhere in it.
pub(in crate::proxy) fn leaks(bytes: &[u8]) -> bool {
    bytes.windows(REAL.len()).any(|window| window == REAL.as_bytes())
}
