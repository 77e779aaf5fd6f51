//! Drives a handshake over a socket, within its bounds of time and bytes.

use std::fmt;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::Protect;
use super::error::CarrierError;

/// Most bytes that a peer may send before it has proved itself. A TLS handshake with a chain of certificates takes about 5 KiB.
pub(super) const MOST_BYTES: usize = 32 * 1024;
/// Longest time from the first byte of a connection to its proof.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);
/// How long a refused peer is read on, so that closing does not cut off what was said to it.
const LINGER: Duration = Duration::from_secs(1);

/// One side of a transport's handshake; sans-IO.
pub(super) trait Handshake: Send {
    /// Takes what arrived (a prefix of `input`) and appends what is to be sent to `out`, which must be sent even when it fails.
    fn step(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Step, CarrierError>;

    /// What it means that the peer closed the connection now; `None` where it means nothing but that.
    fn cut(&self) -> Option<CarrierError>;
}

/// What a step came to.
pub(super) enum Step {
    /// More bytes must come.
    More,
    /// The peer proved itself; bytes left in the input are records.
    Done(Proved),
}

/// The fruit of a handshake.
pub(super) struct Proved {
    pub(super) protect: Box<dyn Protect>,
    pub(super) binding: [u8; 32],
    pub(super) name: String,
    /// The peer's certificates, its own first; none for noise.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Proved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proved").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A socket and what it has read; counts what a peer sends before it is trusted.
pub(super) struct Reading<'a> {
    pub(super) socket: &'a mut TcpStream,
    pub(super) input: BytesMut,
    taken: usize,
    /// When the peer must be proved, or gone.
    pub(super) deadline: Instant,
}

impl<'a> Reading<'a> {
    pub(super) fn new(socket: &'a mut TcpStream) -> Self {
        Self { socket, input: BytesMut::new(), taken: 0, deadline: Instant::now() + DEADLINE }
    }

    /// Bytes that came in all.
    pub(super) const fn taken(&self) -> usize {
        self.taken
    }

    /// Reads once; false at the end of the connection.
    pub(super) async fn more(&mut self) -> Result<bool, CarrierError> {
        let left = MOST_BYTES - self.taken;
        if left == 0 {
            return Err(CarrierError::HandshakeTooLarge { limit: MOST_BYTES });
        }
        // Memory only for who speaks.
        let _ = self.socket.readable().await;
        self.input.reserve(left.min(4096));
        let read = (&mut *self.socket).take(left as u64).read_buf(&mut self.input).await;
        match read {
            Ok(0) => Ok(false),
            Ok(n) => {
                self.taken += n;
                Ok(true)
            }
            Err(error) if is_cut(&error) => Ok(false),
            Err(error) => Err(CarrierError::HandshakeCut { detail: error.to_string() }),
        }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> Result<(), CarrierError> {
        match self.socket.write_all(bytes).await {
            Ok(()) => Ok(()),
            // The reason, if the peer gave one, is still to be read.
            Err(error) if is_cut(&error) => Ok(()),
            Err(error) => Err(CarrierError::HandshakeCut { detail: error.to_string() }),
        }
    }

    /// Runs `handshake` to its end, beginning with what was read before. `out` is sent first.
    pub(super) async fn run(
        &mut self,
        handshake: &mut dyn Handshake,
        mut out: Vec<u8>,
    ) -> Result<Proved, CarrierError> {
        loop {
            let step = handshake.step(&mut self.input, &mut out);
            if !out.is_empty() {
                self.send(&out).await?;
                out.clear();
            }
            match step? {
                Step::Done(proved) => return Ok(proved),
                Step::More => {}
            }
            if !self.more().await? {
                return Err(handshake
                    .cut()
                    .unwrap_or_else(|| CarrierError::HandshakeCut { detail: "the peer closed it".to_owned() }));
            }
        }
    }

    /// Ends our direction and reads on for a moment: closing with unread bytes would be a reset, and take back what was sent.
    pub(super) async fn linger(&mut self) {
        let _ = self.socket.shutdown().await;
        let until = self.deadline.min(Instant::now() + LINGER);
        let drained = async {
            while let Ok(true) = self.more().await {
                self.input.clear();
            }
        };
        let _ = timeout_at(until, drained).await;
    }
}

fn is_cut(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe
    )
}
