//! Relays two streams into each other, end for end: FIN as FIN, a cut as a cut, half-open as long as either side is.

use std::future::poll_fn;
use std::io::IoSlice;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf as _;

use super::Stream;

/// Most bytes of one direction in one turn, and so of what a stream has ready for it; then other tasks have theirs. With eight turns
/// between reading and sealing, or between opening and writing, the bytes are still in the processor's cache.
pub(crate) const TURN: usize = 128 * 1024;
/// Most pieces that are written in one call: a turn in records of 16 KiB, and as many short ones between them.
pub(crate) const PIECES: usize = 24;

/// What a relay carried, and how it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes from the first stream to the second.
    pub a_to_b: u64,
    /// Bytes from the second stream to the first.
    pub b_to_a: u64,
    /// How it ended.
    pub end: End,
}

/// How a relay ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum End {
    /// Both directions were finished by their applications.
    Clean,
    /// The first stream was cut; the second was reset.
    CutByA,
    /// The second stream was cut; the first was reset.
    CutByB,
}

/// Relays until both directions are finished or one stream is cut; a cut resets the other stream at once.
///
/// Holds no bytes of its own: what one stream received is written from its own buffer. A cut overtakes what waits for a writer,
/// as RST overtakes what was not sent yet: an application that does not read learns of it all the same.
pub async fn relay<A: Stream + ?Sized, B: Stream + ?Sized>(a: &mut A, b: &mut B) -> Relayed {
    let (mut forth, mut back) = (Direction::new(), Direction::new());
    let end = poll_fn(|cx| {
        let there = match forth.poll(cx, a, b) {
            Poll::Ready(Err(Cut::Reader)) => return Poll::Ready(End::CutByA),
            Poll::Ready(Err(Cut::Writer)) => return Poll::Ready(End::CutByB),
            Poll::Ready(Ok(())) => true,
            Poll::Pending => false,
        };
        match back.poll(cx, b, a) {
            Poll::Ready(Err(Cut::Reader)) => return Poll::Ready(End::CutByB),
            Poll::Ready(Err(Cut::Writer)) => return Poll::Ready(End::CutByA),
            Poll::Ready(Ok(())) if there => return Poll::Ready(End::Clean),
            Poll::Ready(Ok(())) | Poll::Pending => {}
        }
        // Who is not being read, for its FIN came or its bytes have nowhere to go, may be cut all the same.
        if !forth.reads && a.poll_cut(cx).is_ready() {
            return Poll::Ready(End::CutByA);
        }
        if !back.reads && b.poll_cut(cx).is_ready() {
            return Poll::Ready(End::CutByB);
        }
        Poll::Pending
    })
    .await;
    if end != End::Clean {
        a.reset();
        b.reset();
    }
    Relayed { a_to_b: forth.bytes, b_to_a: back.bytes, end }
}

/// One direction: `Copying → Finishing → Finished`, or cut.
struct Direction {
    state: State,
    bytes: u64,
    /// The reader will say when it has more, or was cut; else nobody asks it now.
    reads: bool,
    /// Something was written since the last flush.
    dirty: bool,
}

enum State {
    /// The reader may have more.
    Copying,
    /// The reader's FIN was seen; ours is on its way.
    Finishing,
    Finished,
}

/// Which of the two streams failed.
enum Cut {
    Reader,
    Writer,
}

impl Direction {
    const fn new() -> Self {
        Self { state: State::Copying, bytes: 0, reads: false, dirty: false }
    }

    fn poll<R: Stream + ?Sized, W: Stream + ?Sized>(
        &mut self,
        cx: &mut Context<'_>,
        reader: &mut R,
        writer: &mut W,
    ) -> Poll<Result<(), Cut>> {
        let (mut reader, mut writer) = (Pin::new(reader), Pin::new(writer));
        let mut left = TURN;
        self.reads = false;
        loop {
            match self.state {
                State::Finished => return Poll::Ready(Ok(())),
                State::Finishing => {
                    if writer.as_mut().poll_shutdown(cx).map_err(|_| Cut::Writer)?.is_pending() {
                        return Poll::Pending;
                    }
                    self.state = State::Finished;
                }
                State::Copying => {
                    let Poll::Ready(room) = writer.poll_room(cx) else {
                        return Poll::Pending;
                    };
                    reader.read_at_most(room);
                    let Poll::Ready(data) = reader.as_mut().poll_fill_buf(cx).map_err(|_| Cut::Reader)? else {
                        if self.dirty && writer.poll_flush(cx).map_err(|_| Cut::Writer)?.is_ready() {
                            self.dirty = false;
                        }
                        self.reads = true;
                        return Poll::Pending;
                    };
                    if data.is_empty() {
                        self.state = State::Finishing;
                        continue;
                    }
                    if left == 0 {
                        self.reads = true;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let turn = data.len().min(left);
                    let written = match reader.filled() {
                        // A writer that keeps what it is given can keep the very buffer.
                        Some(filled) => {
                            let written = writer.as_mut().poll_write_owned(cx, &mut filled.slice(..turn));
                            written.map_ok(|written| {
                                filled.advance(written);
                                written
                            })
                        }
                        None => {
                            let mut slices = [IoSlice::new(&[]); PIECES];
                            let pieces = if writer.is_write_vectored() { reader.gather(left, &mut slices) } else { 0 };
                            let written = if pieces > 1 {
                                writer.as_mut().poll_write_vectored(cx, &slices[..pieces])
                            } else {
                                // What it gave a moment ago, once more.
                                let data = ready!(reader.as_mut().poll_fill_buf(cx).map_err(|_| Cut::Reader)?);
                                writer.as_mut().poll_write(cx, &data[..turn])
                            };
                            written.map_ok(|written| {
                                reader.as_mut().consume(written);
                                written
                            })
                        }
                    };
                    match written.map_err(|_| Cut::Writer)? {
                        // A writer that takes nothing never will.
                        Poll::Ready(0) => return Poll::Ready(Err(Cut::Writer)),
                        Poll::Ready(written) => {
                            self.bytes += written as u64;
                            self.dirty = true;
                            left -= written;
                        }
                        Poll::Pending => return Poll::Pending,
                    }
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
