//! Frames on a stream: chunks out, whole frames in, nothing else.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWrite as _, AsyncWriteExt as _};

use crate::net::BoxStream;

/// Most bytes of an answer other than Fetch's. Metadata of 200,000 partitions is some 10 MiB.
pub(super) const FRAME_CAP: usize = 32 << 20;
/// Most bytes of a Fetch answer: [`super::MAX_FETCH_BYTES`] and one batch of the largest usual size beyond it.
pub(super) const FETCH_FRAME_CAP: usize = 128 << 20;
/// What is allocated for a frame on its word alone. Beyond it the buffer at most doubles what has come.
const TRUSTED: usize = 1 << 20;
/// Below this many bytes a copy costs less than a buffer of its own in each layer below.
const SMALL: usize = 2048;
/// Chunks given to one vectored write; Linux takes up to 1024, and a batch of Produce is two.
const WRITE_CHUNKS: usize = 64;

/// Why a stream gives no more frames.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum WireError {
    #[error("closed by the broker")]
    Closed,
    #[error("closed by the broker in the middle of an answer, after {have} of {want} bytes")]
    CutAnswer { have: usize, want: usize },
    #[error("{0}")]
    Io(String),
    #[error("the broker speaks TLS on this port; use SSL or SASL_SSL")]
    Tls,
    #[error("this is an HTTP port, not a Kafka broker")]
    Http,
    #[error("an answer of {len} bytes, outside the limits of 4 to {cap}")]
    TooLarge { len: i64, cap: usize },
    #[error("an answer to nothing: correlation id {got}, expected {expected}")]
    Correlation { got: i32, expected: i32 },
    #[error("an answer although nothing was asked")]
    Unasked,
}

impl WireError {
    /// Whether the broker (not the network) is to blame.
    pub(super) const fn is_misbehaviour(&self) -> bool {
        matches!(self, Self::TooLarge { .. } | Self::Correlation { .. } | Self::Unasked | Self::Http | Self::Tls)
    }
}

impl From<io::Error> for WireError {
    fn from(error: io::Error) -> Self {
        Self::Io(error.to_string())
    }
}

/// Bytes in both directions, shared by all connections of a client.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// A stream with what is to be sent and what has come of the next frame.
pub(super) struct Wire {
    stream: BoxStream,
    out: VecDeque<Bytes>,
    unflushed: bool,
    head: BytesMut,
    frame: Option<(BytesMut, usize)>,
    traffic: Arc<Traffic>,
}

impl Wire {
    pub(super) fn new(stream: BoxStream, traffic: Arc<Traffic>) -> Self {
        Self { stream, out: VecDeque::new(), unflushed: false, head: BytesMut::with_capacity(4), frame: None, traffic }
    }

    /// Puts the chunks of one frame behind what waits to be sent. Small neighbours are joined, large ones kept as they are.
    pub(super) fn queue(&mut self, chunks: impl IntoIterator<Item = Bytes>) {
        let mut joined = BytesMut::new();
        for chunk in chunks {
            if chunk.len() < SMALL {
                joined.extend_from_slice(&chunk);
                continue;
            }
            if !joined.is_empty() {
                self.out.push_back(joined.split().freeze());
            }
            self.out.push_back(chunk);
        }
        if !joined.is_empty() {
            self.out.push_back(joined.freeze());
        }
    }

    /// Whether everything queued has left.
    pub(super) fn is_sent(&self) -> bool {
        self.out.is_empty() && !self.unflushed
    }

    /// Sends what is queued; ready when all of it has left.
    pub(super) fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), WireError>> {
        while !self.out.is_empty() {
            let mut stream = Pin::new(&mut *self.stream);
            let written = if stream.is_write_vectored() {
                let mut slices = [io::IoSlice::new(&[]); WRITE_CHUNKS];
                let count = self.out.len().min(WRITE_CHUNKS);
                for (slice, chunk) in slices.iter_mut().zip(&self.out) {
                    *slice = io::IoSlice::new(chunk);
                }
                let written = ready!(stream.poll_write_vectored(cx, &slices[..count]))?;
                self.advance(written);
                written
            } else {
                let chunk = self.out.front_mut().expect("the queue is not empty");
                let written = ready!(stream.as_mut().poll_write_owned(cx, chunk))?;
                if chunk.is_empty() {
                    self.out.pop_front();
                }
                written
            };
            if written == 0 {
                return Poll::Ready(Err(WireError::Io("the stream takes no more bytes".to_owned())));
            }
            self.traffic.sent.fetch_add(written as u64, Ordering::Relaxed);
            self.unflushed = true;
        }
        if self.unflushed {
            ready!(Pin::new(&mut *self.stream).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, mut written: usize) {
        while written > 0 {
            let chunk = self.out.front_mut().expect("no more is written than was given");
            let step = written.min(chunk.len());
            chunk.advance(step);
            written -= step;
            if chunk.is_empty() {
                self.out.pop_front();
            }
        }
    }

    /// The next frame, without its length. Keeps what has come when it is dropped.
    pub(super) fn poll_frame(&mut self, cx: &mut Context<'_>, cap: usize) -> Poll<Result<Bytes, WireError>> {
        loop {
            let Some((body, want)) = &mut self.frame else {
                let missing = 4 - self.head.len();
                if missing == 0 {
                    let want = frame_length(self.head.as_ref(), cap)?;
                    self.head.clear();
                    self.frame = Some((BytesMut::with_capacity(want.min(TRUSTED)), want));
                    continue;
                }
                let got = ready!(pin!(self.stream.read_buf(&mut (&mut self.head).limit(missing))).poll(cx))?;
                if got == 0 {
                    return Poll::Ready(Err(match self.head.len() {
                        0 => WireError::Closed,
                        have => WireError::CutAnswer { have, want: 4 },
                    }));
                }
                self.traffic.received.fetch_add(got as u64, Ordering::Relaxed);
                continue;
            };
            let missing = *want - body.len();
            if missing == 0 {
                let (body, _) = self.frame.take().expect("a frame is under way");
                return Poll::Ready(Ok(body.freeze()));
            }
            if body.len() == body.capacity() {
                body.reserve(missing.min(body.len()));
            }
            let room = missing.min(body.capacity() - body.len());
            let got = ready!(pin!(self.stream.read_buf(&mut body.limit(room))).poll(cx))?;
            if got == 0 {
                return Poll::Ready(Err(WireError::CutAnswer { have: body.len(), want: *want }));
            }
            self.traffic.received.fetch_add(got as u64, Ordering::Relaxed);
        }
    }

    /// Sends one request and waits for its answer (from its correlation id on); for the time when the wire has one user.
    pub(super) async fn exchange(&mut self, correlation: i32, request: Bytes) -> Result<Bytes, WireError> {
        self.queue([request]);
        let mut frame = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_send(cx) {
                // What the broker said before it closed tells more than the broken pipe.
                return self.poll_frame(cx, FRAME_CAP).map_err(|_| error);
            }
            self.poll_frame(cx, FRAME_CAP)
        })
        .await?;
        if frame.len() < 4 {
            return Err(WireError::CutAnswer { have: frame.len(), want: 4 });
        }
        let got = frame.get_i32();
        if got == correlation { Ok(frame) } else { Err(WireError::Correlation { got, expected: correlation }) }
    }

    /// FIN after everything sent.
    pub(super) async fn shutdown(&mut self) -> io::Result<()> {
        self.stream.shutdown().await
    }
}

/// The length of a frame; names other protocols by their first bytes.
fn frame_length(head: &[u8], cap: usize) -> Result<usize, WireError> {
    let head: [u8; 4] = head.try_into().expect("four bytes were read");
    // TLS records: alert (0x15) or handshake (0x16), major version 3.
    if matches!(head, [0x15 | 0x16, 3, ..]) {
        return Err(WireError::Tls);
    }
    if &head == b"HTTP" {
        return Err(WireError::Http);
    }
    let len = i32::from_be_bytes(head);
    match usize::try_from(len) {
        Ok(len) if (4..=cap).contains(&len) => Ok(len),
        _ => Err(WireError::TooLarge { len: i64::from(len), cap }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_protocols_and_lengths_beyond_the_cap_are_named() {
        assert_eq!(frame_length(&[0, 0, 0, 4], 100), Ok(4));
        assert_eq!(frame_length(&[0, 0, 0, 100], 100), Ok(100));
        assert_eq!(frame_length(&[0, 0, 0, 101], 100), Err(WireError::TooLarge { len: 101, cap: 100 }));
        assert_eq!(frame_length(&[0xff, 0xff, 0xff, 0xff], 100), Err(WireError::TooLarge { len: -1, cap: 100 }));
        assert_eq!(frame_length(&[0, 0, 0, 3], 100), Err(WireError::TooLarge { len: 3, cap: 100 }));
        assert_eq!(frame_length(&[0x15, 3, 3, 0], 1 << 30), Err(WireError::Tls));
        assert_eq!(frame_length(b"HTTP", usize::MAX), Err(WireError::Http));
    }

    #[tokio::test]
    async fn small_chunks_are_joined_and_large_ones_kept() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        let (ours, theirs) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let stream = crate::net::tcp::TcpConn::new(ours.expect("connected"));
        let mut wire = Wire::new(Box::new(stream), Arc::default());
        let large = Bytes::from(vec![7; SMALL]);
        let small = |text: &'static str| Bytes::from_static(text.as_bytes());
        wire.queue([small("a"), small(""), small("b"), large.clone(), large.clone(), small("c")]);
        let lengths: Vec<_> = wire.out.iter().map(Bytes::len).collect();
        assert_eq!(lengths, [2, SMALL, SMALL, 1]);
        assert_eq!(wire.out[1].as_ptr(), large.as_ptr());
        poll_fn(|cx| wire.poll_send(cx)).await.expect("sent");
        let mut got = vec![0; 2 * SMALL + 3];
        theirs.expect("accepted").0.read_exact(&mut got).await.expect("all of it");
        assert_eq!(got, [b"ab", &large[..], &large[..], b"c"].concat());
        assert_eq!(wire.traffic.sent.load(Ordering::Relaxed), got.len() as u64);
    }

    /// A frame that dribbles in, and a buffer that follows what came and not what was claimed.
    #[tokio::test]
    async fn a_frames_buffer_grows_with_what_has_come() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        let (ours, theirs) = tokio::join!(tokio::net::TcpStream::connect(address), listener.accept());
        let mut theirs = theirs.expect("accepted").0;
        let mut wire = Wire::new(Box::new(crate::net::tcp::TcpConn::new(ours.expect("connected"))), Arc::default());
        let claimed = 100 << 20;
        let head = i32::try_from(claimed).expect("below 2 GiB").to_be_bytes();
        for byte in head {
            theirs.write_all(&[byte]).await.expect("written");
        }
        theirs.write_all(&[1; 5000]).await.expect("written");
        theirs.shutdown().await.expect("FIN");
        let cut = poll_fn(|cx| wire.poll_frame(cx, FETCH_FRAME_CAP)).await;
        assert_eq!(cut, Err(WireError::CutAnswer { have: 5000, want: claimed }));
        let (buffer, _) = wire.frame.as_ref().expect("a frame under way");
        assert!(buffer.capacity() <= TRUSTED, "{}", buffer.capacity());
    }
}
