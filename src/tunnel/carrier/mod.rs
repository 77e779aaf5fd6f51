//! Carriers: the TCP connections under a session, each proved by a handshake and sealed record by record.
//!
//! Rules kept here: nothing of a peer is parsed before it has proved itself but the handshake; a peer that has not costs at most
//! 32 KiB and 5 s and never delays the next; a wrong secret is answered with silence; no carrier is ever in plaintext.
//!
//! Both transports begin with the same preamble in clear (`preamble.rs`), which names the version, the transport and the link, so
//! that a mismatch is told at once; the proof that follows covers it.

mod accept;
mod certificates;
mod dial;
mod error;
mod fuzz;
mod handshake;
mod noise;
mod places;
mod plain;
mod preamble;
mod proof;
mod sealed;
mod sniff;
mod tls;
mod tls_records;

use std::fmt;
use std::net::SocketAddr;

use bytes::BytesMut;
use tokio::net::TcpStream;

pub use accept::{AcceptKeys, AcceptStatus, AcceptStatusReader, Acceptor, HandshakeFailure};
pub use dial::dial;
pub use error::{CarrierError, Transport, Whose};
#[doc(hidden)]
pub use fuzz::{fuzz_handshake, fuzz_records};
pub use plain::Plain;
pub use preamble::VERSION;
pub use proof::{Proof, Trust};
pub use sealed::Sealed;
pub use sniff::Seen;

/// Record protection of one established, authenticated carrier; sans-IO. One owner; no locks.
pub trait Protect: Send + 'static {
    /// Largest plaintext that one record carries, in bytes (noise 65,519; tls 16,384).
    fn max_plaintext(&self) -> usize;

    /// Appends to `out` one record holding the concatenation of `parts`: at least one byte and at most
    /// [`Protect::max_plaintext`] in all.
    ///
    /// # Errors
    /// [`CarrierError::RecordTooLarge`] when the parts are too much (nothing is appended), [`CarrierError::Closed`] after
    /// [`Protect::close`].
    fn seal(&mut self, parts: &[&[u8]], out: &mut Sealed) -> Result<(), CarrierError>;

    /// Opens every whole record at the front of `input` (consuming it) and appends the plaintext to `plain`. Partial records
    /// stay in `input`. [`Opened::More`] normally; [`Opened::Closed`] after the peer's authenticated close.
    ///
    /// # Errors
    /// [`CarrierError::Corrupt`] when a record does not open; the carrier is of no further use then. What was opened before
    /// stays in `plain`.
    fn open(&mut self, input: &mut BytesMut, plain: &mut Plain) -> Result<Opened, CarrierError>;

    /// Appends the authenticated close record to `out`. Idempotent.
    fn close(&mut self, out: &mut Sealed);

    /// TLS may owe bytes of its own (key updates, alerts); they are appended here, after `open`, even a failed one.
    fn pending(&mut self, out: &mut Sealed);
}

/// What [`Protect::open`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opened {
    /// The peer may send more.
    More,
    /// The peer closed this carrier, authenticated: nothing was cut off.
    Closed,
}

/// A carrier whose peer proved itself and may be spoken to.
pub struct Established {
    /// The connection below.
    pub socket: TcpStream,
    /// Its record protection.
    pub protect: Box<dyn Protect>,
    /// Bytes read past the handshake: the beginning of the first records.
    pub received: BytesMut,
    /// Channel binding: noise handshake hash or TLS exporter, equal on both sides, unique per carrier.
    pub binding: [u8; 32],
    /// Who the peer proved to be.
    pub peer: PeerIdentity,
    /// What it proved that by.
    pub proof: Proof,
    /// The link that both sides named.
    pub link: String,
    /// Whether this side dialled.
    pub dialler: bool,
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Established")
            .field("link", &self.link)
            .field("peer", &self.peer)
            .field("dialler", &self.dialler)
            .finish_non_exhaustive()
    }
}

/// Who a peer proved to be. The name is the same for each carrier of one peer; the address is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// `secret` (noise), `dns:<name>` (tls with a CA) or `sha256:<hex>` (tls with a pin).
    pub name: String,
    /// Where it spoke from.
    pub address: SocketAddr,
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.name, self.address)
    }
}

#[cfg(test)]
mod tests;
