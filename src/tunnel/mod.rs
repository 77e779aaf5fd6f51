//! Streams over a session over carriers, and what the peer may dial here.

pub mod carrier;
pub mod certs;
pub mod endpoint;
pub mod entry;
pub mod exit;
pub mod policy;
pub mod secret;
pub mod session;
pub mod stream;

use crate::net::{BoxStream, DialError, HostPort};

/// A stream that the peer opened and that waits for our answer. Dropping it refuses it.
///
/// Implemented by the endpoint; the exit sees nothing else of the session.
pub trait Offer: Send + 'static {
    /// What the peer wants dialled.
    fn target(&self) -> &HostPort;
    /// Takes the stream: what the peer sent early is read first.
    fn accept(self: Box<Self>) -> BoxStream;
    /// Refuses it; the entry's dial fails with the same error.
    fn refuse(self: Box<Self>, why: &DialError);
}
