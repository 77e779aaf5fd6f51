//! One task per carrier: pulls, seals and writes; reads, opens and hands in. It alone owns the socket.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;
use tracing::debug;

use super::handle::CarrierHandle;
use super::shared::Shared;
use crate::tunnel::carrier::{Established, Opened, Plain, Protect, Sealed};
use crate::tunnel::session::frame::{self, Decoded, Frame};
use crate::tunnel::session::{Batch, CarrierEnd, CarrierId, SessionEnd, Violation};

/// Most plaintext of one pull, in bytes: what is urgent waits for at most so much.
pub(super) const PULL: usize = 256 * 1024;
/// Size of a read, in bytes.
const READ: usize = 128 * 1024;
/// A record that is no whole yet may make the input longer than one read.
const MAX_INPUT: usize = READ + 128 * 1024;
/// How long the last words to the peer may take.
const FAREWELL: Duration = Duration::from_millis(500);
/// Busy rounds without giving others a turn.
const ROUNDS: usize = 16;

/// One carrier at work.
pub(super) struct CarrierTask {
    shared: Arc<Shared>,
    handle: Arc<CarrierHandle>,
    id: CarrierId,
    io: CarrierIo,
    /// Plaintext of one pull: whole records.
    most: usize,
    /// The last pull left something, or the session said that there is something.
    due: bool,
    /// Whether the socket has the congestion control of its way.
    steered: bool,
    ended: bool,
}

/// What follows some rounds.
enum Next {
    /// A turn for others, then more.
    Others,
    /// The session wants it closed.
    Close(CarrierEnd),
}

/// What a round did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Busy {
    Read,
    Wrote,
    No,
}

/// Its socket and buffers.
struct CarrierIo {
    socket: TcpStream,
    protect: Box<dyn Protect>,
    batch: Batch,
    /// Sealed, and how much of it is written.
    out: Sealed,
    written: usize,
    /// Sealed by the peer, not opened.
    input: BytesMut,
    /// Opened, not decoded.
    plain: Plain,
    /// The beginning of a frame whose end is in records to come.
    begun: BytesMut,
    frames: Vec<Frame>,
}

impl CarrierTask {
    /// Joins an established carrier to the session; nothing is sent before [`Self::run`].
    pub(super) fn new(shared: &Arc<Shared>, handle: &Arc<CarrierHandle>, slot: u8, established: Established) -> Self {
        let Established { socket, protect, received, binding, .. } = established;
        let id = shared.register(slot, binding, handle);
        let record = protect.max_plaintext();
        let batch = Batch::new(record);
        let io = CarrierIo {
            socket,
            protect,
            batch,
            out: Sealed::default(),
            written: 0,
            input: received,
            plain: Plain::default(),
            begun: BytesMut::new(),
            frames: Vec::new(),
        };
        Self {
            shared: Arc::clone(shared),
            handle: Arc::clone(handle),
            id,
            io,
            most: (PULL / record).max(1) * record,
            due: true,
            steered: false,
            ended: false,
        }
    }

    /// Works until the carrier ends, and tells the session why it did.
    pub(super) async fn run(mut self) {
        let end = self.work().await;
        debug!(link = self.shared.names.link, address = self.handle.address, %end, "carrier ended");
        self.ended = true;
        self.shared.unregister(self.id, end);
    }

    async fn work(&mut self) -> CarrierEnd {
        // What came with the handshake's last bytes.
        if let Err(end) = self.take_in() {
            return end;
        }
        loop {
            match poll_fn(|cx| self.poll_rounds(cx)).await {
                // Whom the bytes are for has its turn before there is a look for more, and what it answers goes with the next write.
                Ok(Next::Others) => turn_of_others().await,
                Ok(Next::Close(why)) => {
                    self.say_farewell().await;
                    return why;
                }
                // Words that arrived before the end may tell more than the end.
                Err(end) => return self.handle.closing().unwrap_or(end),
            }
        }
    }

    /// Works until others are to have a turn; pending while the socket gives and takes nothing, and the session has nothing.
    fn poll_rounds(&mut self, cx: &mut Context<'_>) -> Poll<Result<Next, CarrierEnd>> {
        for _ in 0..ROUNDS {
            if self.handle.wake.take() {
                self.due = true;
                if let Some(why) = self.handle.closing() {
                    return Poll::Ready(Ok(Next::Close(why)));
                }
            }
            match self.round(cx)? {
                Busy::Wrote => {}
                Busy::Read => return Poll::Ready(Ok(Next::Others)),
                Busy::No => {
                    self.handle.wake.register(cx.waker());
                    if self.handle.wake.is_set() {
                        continue;
                    }
                    if self.io.out.is_empty() {
                        return Poll::Pending;
                    }
                    ready!(self.io.socket.poll_write_ready(cx)).map_err(|error| lost(&error))?;
                }
            }
        }
        Poll::Ready(Ok(Next::Others))
    }

    /// Writes and reads what can be without waiting. After [`Busy::No`] the socket wakes the task when it has something to read.
    fn round(&mut self, cx: &mut Context<'_>) -> Result<Busy, CarrierEnd> {
        if self.due && self.io.out.is_empty() {
            self.pull()?;
        }
        let wrote = self.io.write().map_err(|error| lost(&error))?;
        if !self.due && !self.io.out.is_empty() {
            self.due = true;
            self.shared.with(|state, now| state.session.stalled(now, self.id));
        }
        let read = match self.io.read(cx) {
            Ok(Some(0)) => return Err(lost(&io::Error::new(io::ErrorKind::UnexpectedEof, "cut by the peer"))),
            Ok(Some(n)) => n,
            Ok(None) => 0,
            Err(error) => return Err(lost(&error)),
        };
        self.handle.sent.fetch_add(wrote as u64, Ordering::Relaxed);
        self.handle.received.fetch_add(read as u64, Ordering::Relaxed);
        if read > 0 {
            self.take_in()?;
        }
        Ok(if read > 0 {
            Busy::Read
        } else if wrote > 0 {
            Busy::Wrote
        } else {
            Busy::No
        })
    }

    /// Fills `out` with what is most urgent.
    fn pull(&mut self) -> Result<(), CarrierEnd> {
        let io = &mut self.io;
        io.batch.clear();
        let steered = self.steered;
        let (due, rtt) = self.shared.with(|state, now| {
            let more = state.session.pull(now, self.id, self.most, &mut io.batch);
            (more, if steered { None } else { state.session.carrier_rtt(self.id) })
        });
        self.due = due;
        if let Some(rtt) = rtt {
            self.steered = true;
            self.shared.steer(&io.socket, rtt);
        }
        io.seal()
    }

    /// Opens and hands in what was read.
    fn take_in(&mut self) -> Result<(), CarrierEnd> {
        let opened = self.io.protect.open(&mut self.io.input, &mut self.io.plain);
        self.io.protect.pending(&mut self.io.out);
        let decoded = self.io.decode();
        if !self.io.frames.is_empty() || decoded.is_err() {
            let (id, frames) = (self.id, &mut self.io.frames);
            self.shared.with(|state, now| {
                for frame in frames.drain(..) {
                    state.session.handle_frame(now, id, frame);
                }
                if let Err(violation) = decoded {
                    state.session.handle_malformed(now, id, violation);
                }
            });
        }
        match opened {
            Ok(Opened::More) if self.io.input.len() > MAX_INPUT => {
                Err(CarrierEnd::Lost(format!("{} bytes without a whole record", self.io.input.len())))
            }
            Ok(Opened::More) => Ok(()),
            Ok(Opened::Closed) => Err(CarrierEnd::Closed),
            Err(error) => Err(CarrierEnd::Lost(error.to_string())),
        }
    }

    /// Sends the last frames and the close record, for a short time.
    async fn say_farewell(&mut self) {
        let farewell = async {
            self.io.drain().await?;
            if self.pull().is_ok() {
                self.io.protect.close(&mut self.io.out);
                self.io.drain().await?;
            }
            tokio::io::AsyncWriteExt::shutdown(&mut self.io.socket).await
        };
        // The peer may be gone: then there is nobody to tell.
        let _ = tokio::time::timeout(FAREWELL, farewell).await;
    }
}

impl Drop for CarrierTask {
    /// Ended by force: the session is over, and what the socket takes at once tells the peer so.
    fn drop(&mut self) {
        if !self.ended {
            self.shared.with(|state, now| state.session.end(now));
            if self.io.write().is_ok() && self.io.out.is_empty() && self.pull().is_ok() {
                self.io.protect.close(&mut self.io.out);
                let _ = self.io.write();
            }
            self.shared.unregister(self.id, CarrierEnd::SessionEnded(SessionEnd::ByUs));
        }
    }
}

impl CarrierIo {
    fn seal(&mut self) -> Result<(), CarrierEnd> {
        let (protect, out) = (&mut self.protect, &mut self.out);
        self.batch
            .for_each_record(|parts| protect.seal(parts, out))
            .map_err(|error| CarrierEnd::Lost(error.to_string()))?;
        // Payloads are given back to their streams' budgets only when they are let go here too.
        self.batch.clear();
        Ok(())
    }

    /// Writes what the socket takes; how many bytes that were.
    fn write(&mut self) -> io::Result<usize> {
        let mut taken = 0;
        while self.written < self.out.len() {
            match self.socket.try_write(&self.out[self.written..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    self.written += n;
                    taken += n;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(taken),
                Err(error) => return Err(error),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(taken)
    }

    async fn drain(&mut self) -> io::Result<()> {
        loop {
            self.write()?;
            if self.out.is_empty() {
                return Ok(());
            }
            self.socket.writable().await?;
        }
    }

    /// Reads once. `None` when there is nothing, zero at the end.
    fn read(&mut self, cx: &mut Context<'_>) -> io::Result<Option<usize>> {
        self.input.reserve(READ);
        match poll_read_buf(Pin::new(&mut self.socket), cx, &mut self.input) {
            Poll::Ready(read) => read.map(Some),
            Poll::Pending => Ok(None),
        }
    }

    /// Cuts `plain` into frames; payloads are slices of it.
    fn decode(&mut self) -> Result<(), Violation> {
        for mut rest in self.plain.take() {
            // Our peers put whole frames into records; anything else costs a copy and works.
            if !self.begun.is_empty() {
                self.begun.extend_from_slice(&rest);
                rest = self.begun.split().freeze();
            }
            loop {
                match frame::decode(&mut rest) {
                    Ok(Decoded::Frame(frame)) => self.frames.push(frame),
                    Ok(Decoded::Skipped) => {}
                    Ok(Decoded::Incomplete) => break,
                    Err(violation) => return Err(violation),
                }
            }
            self.begun.extend_from_slice(&rest);
        }
        Ok(())
    }
}

/// Has all tasks run that are ready, and goes on. `yield_now` would have the runtime ask the kernel for news as well, which costs more
/// than what a small message takes otherwise; that is done often enough in any case.
async fn turn_of_others() {
    let mut had = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut had, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

fn lost(error: &io::Error) -> CarrierEnd {
    CarrierEnd::Lost(error.to_string())
}
