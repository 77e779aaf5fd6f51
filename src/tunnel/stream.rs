//! One stream of the tunnel as a [`Stream`]: reads give the received buffers, writes are taken by the buffer.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};
use std::{io, iter};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};

use super::endpoint::{Reader, Shared};
use super::session::{OpenRefused, Read, StreamEnd, StreamId};
use crate::net::copy::{PIECES, TURN};
use crate::net::{self, Stream};

/// Shorter writes are joined by the session.
const SMALL: usize = 4096;
/// Longest piece copied at once.
const PIECE: usize = 64 * 1024;

/// A stream through the tunnel. It lives as long as the session, whatever becomes of carriers.
///
/// A lost session reads and writes as [`io::ErrorKind::ConnectionReset`]; the end of the far application as an empty fill.
pub struct TunnelStream {
    shared: Arc<Shared>,
    id: StreamId,
    /// Received, not consumed.
    front: Bytes,
    /// Received behind it; empty when `front` is.
    behind: VecDeque<Bytes>,
    /// Who waits for more, and whether there is any.
    reader: Option<Waker>,
    readable: Arc<AtomicBool>,
    /// The far application's end was read.
    ended: bool,
    /// Bytes that there was room for when it was last looked; only this stream's writer lessens them.
    room: usize,
    /// Our end was sent.
    finished: bool,
    /// We reset it.
    reset: bool,
}

impl TunnelStream {
    pub(super) fn new(shared: Arc<Shared>, id: StreamId) -> Self {
        Self {
            shared,
            id,
            front: Bytes::new(),
            behind: VecDeque::new(),
            reader: None,
            readable: Arc::default(),
            ended: false,
            room: 0,
            finished: false,
            reset: false,
        }
    }

    /// Waits for the peer's answer to OPEN.
    pub(super) fn poll_opened(&self, cx: &Context<'_>) -> Poll<Result<(), OpenRefused>> {
        self.shared.with(|state, _| match state.session.opened(self.id) {
            Some(answer) => Poll::Ready(answer),
            None => {
                state.waiting(self.id).answer = Some(cx.waker().clone());
                Poll::Pending
            }
        })
    }

    /// Writes without waiting what there is room for; the rest stays in `data`.
    pub(super) fn write_now(&self, data: &mut Bytes) {
        self.shared.with(|state, now| {
            let room = state.session.room(self.id).unwrap_or(0).min(data.len());
            if room > 0 {
                // A stream that was cut says so at the next use.
                let _ = state.session.write(now, self.id, data.split_to(room));
            }
        });
    }

    /// Bytes that may be written, waiting until there are any.
    fn poll_session_room(&self, cx: &Context<'_>) -> Poll<io::Result<usize>> {
        if self.finished || self.reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        self.shared.with(|state, _| match state.session.room(self.id) {
            Ok(0) => {
                state.waiting(self.id).write = Some(cx.waker().clone());
                Poll::Pending
            }
            Ok(room) => Poll::Ready(Ok(room)),
            Err(end) => Poll::Ready(Err(cut(&end))),
        })
    }
}

/// An error of a stream that was cut, whichever way.
fn cut(end: &StreamEnd) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, end.clone())
}

impl AsyncBufRead for TunnelStream {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.front.is_empty() && !this.ended {
            let waits = this.reader.as_ref().is_some_and(|reader| reader.will_wake(cx.waker()));
            if waits && !this.readable.load(Ordering::Acquire) {
                return Poll::Pending;
            }
            let (id, reader, readable, behind) = (this.id, &mut this.reader, &this.readable, &mut this.behind);
            let read = this.shared.with(|state, now| match state.session.read(now, id) {
                Ok(Read::Blocked) => {
                    let waker = reader.insert(cx.waker().clone()).clone();
                    readable.store(false, Ordering::Relaxed);
                    state.waiting(id).read = Some(Reader { waker, readable: Arc::clone(readable) });
                    // A stream that waits holds no memory for what it had.
                    *behind = VecDeque::new();
                    Poll::Pending
                }
                Ok(read) => {
                    *reader = None;
                    if let Read::Data(first) = &read {
                        let mut taken = first.len();
                        while taken < TURN
                            && behind.len() + 1 < PIECES
                            && let Some(piece) = state.session.read_more(id)
                        {
                            taken += piece.len();
                            behind.push_back(piece);
                        }
                    }
                    Poll::Ready(Ok(read))
                }
                Err(end) => {
                    *reader = None;
                    Poll::Ready(Err(cut(&end)))
                }
            });
            match ready!(read)? {
                Read::Data(data) => this.front = data,
                Read::End | Read::Blocked => this.ended = true,
            }
        }
        Poll::Ready(Ok(&this.front))
    }

    fn consume(mut self: Pin<&mut Self>, mut amt: usize) {
        while amt >= self.front.len() && !self.front.is_empty() {
            amt -= self.front.len();
            self.front = self.behind.pop_front().unwrap_or_default();
        }
        self.front.advance(amt);
    }
}

impl AsyncRead for TunnelStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let front = ready!(self.as_mut().poll_fill_buf(cx))?;
        let taken = front.len().min(buf.remaining());
        buf.put_slice(&front[..taken]);
        self.consume(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TunnelStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = ready!(self.poll_session_room(cx))?;
        let taken = room.min(buf.len()).min(PIECE);
        // Only this stream's writer lessens its room, so what was found is still there.
        if taken < SMALL {
            self.shared.with(|state, now| state.session.write_copy(now, self.id, &buf[..taken]))
        } else {
            let mut piece = BytesMut::with_capacity(taken);
            piece.extend_from_slice(&buf[..taken]);
            self.shared.with(|state, now| state.session.write(now, self.id, piece.freeze()))
        }
        .map_err(|end| cut(&end))?;
        self.room = 0;
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // What was written is scheduled already.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            self.shared.with(|state, _| state.session.finish(self.id)).map_err(|end| cut(&end))?;
            self.finished = true;
        }
        Poll::Ready(Ok(()))
    }
}

impl Stream for TunnelStream {
    fn reset(&mut self) {
        self.reset = true;
        self.front = Bytes::new();
        self.behind = VecDeque::new();
        self.shared.with(|state, _| state.session.reset(self.id));
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let id = self.id;
        self.shared.with(|state, _| {
            if state.session.watch_cut(id).is_some() {
                return Poll::Ready(());
            }
            state.waiting(id).cut = Some(cx.waker().clone());
            Poll::Pending
        })
    }

    fn gather<'a>(&'a self, most: usize, slices: &mut [io::IoSlice<'a>]) -> usize {
        net::gather(iter::once(&self.front).chain(&self.behind), most, slices)
    }

    fn poll_room(&mut self, cx: &mut Context<'_>) -> Poll<usize> {
        if self.room == 0 {
            self.room = match self.poll_session_room(cx) {
                Poll::Ready(room) => room.unwrap_or(usize::MAX),
                Poll::Pending => return Poll::Pending,
            };
        }
        Poll::Ready(self.room)
    }

    fn poll_write_owned(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>> {
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.finished || self.reset {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let id = self.id;
        let written = self.shared.with(|state, now| {
            let room = state.session.room(id).map_err(|end| cut(&end))?;
            if room == 0 {
                state.waiting(id).write = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let piece = data.split_to(room.min(data.len()));
            let taken = piece.len();
            state.session.write(now, id, piece).map_err(|end| cut(&end))?;
            Poll::Ready(Ok((taken, room - taken)))
        });
        self.room = match &written {
            Poll::Ready(Ok((_, left))) => *left,
            _ => 0,
        };
        written.map_ok(|(taken, _)| taken)
    }
}

impl Drop for TunnelStream {
    fn drop(&mut self) {
        self.shared.with(|state, now| {
            if !self.front.is_empty() {
                // Bytes that nobody read: as a socket closed too early, this cuts.
                state.session.reset(self.id);
            }
            state.session.release(now, self.id);
            state.forget_waiting(self.id);
        });
    }
}

impl std::fmt::Debug for TunnelStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TunnelStream").field("id", &self.id).finish_non_exhaustive()
    }
}
