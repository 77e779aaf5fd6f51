//! What the domains meet in: names of targets, byte streams with honest ends, and dialling.
//!
//! Rules kept here: a stream's end is never guessed. A clean end (FIN) is seen only where the far application made one; all
//! else is a reset, and dropping a stream whose sending side was not finished resets it.

pub mod copy;
pub mod files;
mod host_port;
pub mod http;
pub mod pool;
pub mod tcp;
pub mod tcp_info;
pub mod tls;
pub mod tls_server;

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncBufRead, AsyncWrite};

pub use host_port::{HostPort, HostPortError};

/// A boxed future, as the object-safe traits here return it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A stream behind a pointer: what [`Dial`] gives.
pub type BoxStream = Box<dyn Stream>;

/// A two-way byte stream that tells a clean end from a cut.
///
/// * Reading: an empty fill is the far side's FIN; a cut is an error of kind [`io::ErrorKind::ConnectionReset`].
/// * Writing: `poll_shutdown` sends FIN after everything written, and leaves reading open.
/// * Dropping before `poll_shutdown` is done, or calling [`Stream::reset`], resets the stream: the far side sees a cut, never a FIN.
///
/// Reading goes through [`AsyncBufRead`], so that a relay can write the very buffer that was received.
pub trait Stream: AsyncBufRead + AsyncWrite + Send + Unpin + 'static {
    /// Ends both directions at once, as RST would. Idempotent.
    fn reset(&mut self);

    /// Resolves when the stream is cut, for a user whose reading has come to its clean end and who has nothing to write: neither
    /// would show it. The default never resolves.
    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let _ = cx;
        Poll::Pending
    }

    /// Bytes that a write would take now, waiting until there are any: a relay reads no more than that, so that nothing waits
    /// outside the writer's own bounds. The default knows of none. A cut is left to the write to tell.
    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        let _ = cx;
        Poll::Ready(usize::MAX)
    }

    /// The next `poll_fill_buf` that has to read should read at most `most` bytes; a hint.
    fn read_at_most(&mut self, most: usize) {
        let _ = most;
    }

    /// What `poll_fill_buf` gave last, as the buffer itself, for [`Stream::poll_write_owned`] of another stream: what is taken
    /// off its front is consumed. `None` where the stream has no such buffer; the default.
    ///
    /// The memory behind it is at most twice what is in it.
    fn filled(&mut self) -> Option<&mut Bytes> {
        None
    }

    /// Puts what was received and is not consumed into `slices`, piece by piece and at most `most` bytes, for a writer that takes
    /// several pieces in one call: what the last `poll_fill_buf` gave, and what lies behind it. Returns how many slices that are;
    /// the default none, for a stream whose bytes lie in one piece.
    fn gather<'a>(&'a self, most: usize, slices: &mut [io::IoSlice<'a>]) -> usize {
        let _ = (most, slices);
        0
    }

    /// Takes a prefix of `data` without copying where the stream can keep the buffer itself.
    ///
    /// Returns the number of bytes taken, advancing `data` by it; zero only when `data` is empty.
    ///
    /// # Errors
    /// As `poll_write`.
    fn poll_write_owned(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(self.as_mut().poll_write(cx, data))?;
        data.advance(written);
        Poll::Ready(Ok(written))
    }
}

/// Puts the first `most` bytes of `pieces` into `slices`, piece by piece, and returns how many are filled: what [`Stream::gather`]
/// does where received bytes lie in several pieces, none of which is empty.
pub fn gather<'a>(pieces: impl IntoIterator<Item = &'a Bytes>, most: usize, slices: &mut [io::IoSlice<'a>]) -> usize {
    let (mut left, mut count) = (most, 0);
    for (piece, slice) in pieces.into_iter().zip(slices) {
        let taken = piece.len().min(left);
        if taken == 0 {
            break;
        }
        *slice = io::IoSlice::new(&piece[..taken]);
        left -= taken;
        count += 1;
    }
    count
}

impl Stream for BoxStream {
    fn reset(&mut self) {
        (**self).reset();
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        (**self).poll_cut(cx)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        (**self).poll_room(cx)
    }

    fn read_at_most(&mut self, most: usize) {
        (**self).read_at_most(most);
    }

    fn filled(&mut self) -> Option<&mut Bytes> {
        (**self).filled()
    }

    fn gather<'a>(&'a self, most: usize, slices: &mut [io::IoSlice<'a>]) -> usize {
        (**self).gather(most, slices)
    }

    fn poll_write_owned(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self.get_mut()).poll_write_owned(cx, data)
    }
}

/// Opens streams to targets: the place where tunnel, proxy, client and replicator meet.
///
/// `tunnel::entry` dials through the tunnel, [`tcp::TcpDial`] from this host.
pub trait Dial: Send + Sync + 'static {
    /// Opens a stream to `target`. Implementations set a deadline of their own.
    fn dial<'a>(&'a self, target: &'a HostPort) -> BoxFuture<'a, Result<BoxStream, DialError>>;
}

/// A dialler shared by many users.
pub type SharedDial = Arc<dyn Dial>;

/// Why a stream could not be opened; the same set on both sides of a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DialError {
    /// The exit's operator does not allow this target. Remedy: `[expose] allow` at the side of the target.
    #[error("{target} is not allowed by the exit; allow it in [expose] on the side of that cluster")]
    NotAllowed {
        /// What was asked for.
        target: HostPort,
    },
    /// The name has no address where it was resolved.
    #[error("{target} has no address: {detail}")]
    NoSuchName {
        /// What was asked for.
        target: HostPort,
        /// What the resolver said.
        detail: String,
    },
    /// The target answered with RST to SYN.
    #[error("{target} refused the connection")]
    Refused {
        /// What was asked for.
        target: HostPort,
    },
    /// No route, or the network said no.
    #[error("{target} is unreachable: {detail}")]
    Unreachable {
        /// What was asked for.
        target: HostPort,
        /// What the system said.
        detail: String,
    },
    /// No answer within the dialler's deadline.
    #[error("{target} did not answer within {after_ms} ms")]
    TimedOut {
        /// What was asked for.
        target: HostPort,
        /// The deadline, in milliseconds.
        after_ms: u64,
    },
    /// No session with the peer, for longer than the dialler waits.
    #[error("the tunnel is down: {detail}")]
    TunnelDown {
        /// Since when, or why.
        detail: String,
    },
    /// A limit of streams or opens was met.
    #[error("{target} was not dialled: {detail}")]
    Limit {
        /// What was asked for.
        target: HostPort,
        /// Which limit, with both numbers.
        detail: String,
    },
}

impl From<DialError> for io::Error {
    fn from(error: DialError) -> Self {
        let kind = match error {
            DialError::NotAllowed { .. } => io::ErrorKind::PermissionDenied,
            DialError::NoSuchName { .. } => io::ErrorKind::NotFound,
            DialError::Refused { .. } => io::ErrorKind::ConnectionRefused,
            DialError::Unreachable { .. } => io::ErrorKind::HostUnreachable,
            DialError::TimedOut { .. } => io::ErrorKind::TimedOut,
            DialError::TunnelDown { .. } => io::ErrorKind::NotConnected,
            DialError::Limit { .. } => io::ErrorKind::QuotaExceeded,
        };
        Self::new(kind, error)
    }
}

impl fmt::Debug for dyn Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Dial")
    }
}
