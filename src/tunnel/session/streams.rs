//! One stream, and what its application may do with it.

use std::time::Instant;

use bytes::Bytes;

use super::error::{OpenError, OpenFailure, StreamEnd};
use super::recv::RecvHalf;
use super::send::SendHalf;
use super::window::Window;
use super::{CarrierId, Event, LINGER, Session, StreamId};

/// An application may have this part of a stream's window in its hands before it says that it is done with any of it.
const LENT_SHARE: u64 = 4;

/// One stream at one side.
///
/// ```text
///   ours:    opening --OPEN_OK--> open        opening --OPEN_ERR--> failed
///   theirs:  offered --accept--> open         offered --refuse--> refused --GONE--> (forgotten)
///   both:    open --both ends sent, received and acknowledged--> retired (GONE told)
///            any --we reset--> resetting --GONE--> (forgotten)
///            any --RESET, session lost--> cut
/// ```
/// In `failed`, `retired` and `cut` the protocol knows the stream no more; it stays until the application releases it.
pub(super) struct Stream {
    pub(super) mine: bool,
    pub(super) phase: Phase,
    pub(super) send: SendHalf,
    pub(super) recv: RecvHalf,
    pub(super) window: Window,
    /// `recv_off` as the peer was told last.
    pub(super) told: u64,
    /// The carrier whose queue it stands in, or stood in last.
    pub(super) home: Option<CarrierId>,
    pub(super) queued: bool,
    /// Bytes left of its turn among bulk streams; what a turn exceeds counts against the next.
    pub(super) turn: i64,
    pub(super) ctl: Ctl,
    pub(super) ctl_queued: bool,
    /// The application dropped its handle.
    pub(super) released: bool,
    pub(super) read_blocked: bool,
    pub(super) write_blocked: bool,
    cut_watched: bool,
    /// It waits for room in the budget.
    pub(super) starved: bool,
}

#[derive(Debug)]
pub(super) enum Phase {
    Opening { host: String, port: u16 },
    Offered,
    Open,
    Failed(OpenFailure),
    Refused(OpenFailure),
    Resetting(u8),
    Retired,
    Cut(StreamEnd),
}

/// Control frames that are due.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Ctl {
    pub(super) open: bool,
    pub(super) answer: bool,
    pub(super) credit: bool,
    pub(super) reset: bool,
    /// Credit is given back.
    pub(super) give_back: bool,
}

/// What a read gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Read {
    /// The next bytes, not empty.
    Data(Bytes),
    /// The far application finished its direction.
    End,
    /// Nothing yet; [`Event::Readable`] follows.
    Blocked,
}

impl Stream {
    /// A stream whose peer may send `window` and permits `peer_permits`; `pieces` in flight are told apart.
    pub(super) fn new(mine: bool, phase: Phase, (peer_permits, pieces): (u64, usize), window: u64) -> Self {
        Self {
            mine,
            phase,
            send: SendHalf::new(peer_permits, pieces),
            recv: RecvHalf::new(window),
            window: Window::new(window),
            told: 0,
            home: None,
            queued: false,
            turn: 0,
            ctl: Ctl::default(),
            ctl_queued: false,
            released: false,
            read_blocked: false,
            write_blocked: false,
            cut_watched: false,
            starved: false,
        }
    }

    /// Whether the protocol still knows it.
    pub(super) const fn is_live(&self) -> bool {
        !matches!(self.phase, Phase::Failed(_) | Phase::Retired | Phase::Cut(_))
    }

    /// Whether it has data that may be sent now.
    pub(super) fn is_sendable(&self) -> bool {
        match self.phase {
            // Data must not arrive before OPEN, which goes by the carrier that took it.
            Phase::Opening { .. } => !self.ctl.open && self.send.is_sendable(),
            Phase::Open => self.send.is_sendable(),
            _ => false,
        }
    }

    const fn cut(&self) -> Option<&StreamEnd> {
        match &self.phase {
            Phase::Cut(end) => Some(end),
            Phase::Resetting(_) | Phase::Refused(_) | Phase::Failed(_) => Some(&StreamEnd::ResetByUs),
            _ => None,
        }
    }
}

impl Session {
    /// Opens a stream to `host:port` at the peer. Up to 64 KiB may be written at once, before [`Event::Answered`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(&mut self, host: &str, port: u16) -> Result<StreamId, OpenError> {
        if self.draining {
            return Err(OpenError::Draining("this side"));
        }
        if host.len() > usize::from(u8::MAX) {
            return Err(OpenError::HostTooLong(host.len()));
        }
        if !self.is_up() {
            return Err(OpenError::NotConnected);
        }
        let open = self.streams.len();
        let limit = self.config.streams;
        let first = self.budget.first(self.way());
        let Some(incarnation) = &mut self.incarnation else {
            return Err(OpenError::NotConnected);
        };
        if incarnation.peer_draining {
            return Err(OpenError::Draining("the peer"));
        }
        if open >= limit {
            return Err(OpenError::TooMany { open, limit });
        }
        let sid = incarnation.next_id;
        incarnation.next_id += 2;
        let early = u64::from(incarnation.peer_early);
        let stream =
            Stream::new(true, Phase::Opening { host: host.to_owned(), port }, (early, self.config.pieces), first);
        self.budget.promise(0, first);
        self.streams.insert(sid, Box::new(stream));
        self.counters.opened += 1;
        self.flag(sid, |ctl| &mut ctl.open);
        Ok(self.name(sid))
    }

    /// The answer to [`Session::open`]: `None` while there is none.
    ///
    /// # Errors
    /// The peer's failure, or that the stream was cut meanwhile.
    pub fn opened(&self, id: StreamId) -> Option<Result<(), OpenRefused>> {
        let sid = match self.present(id) {
            Ok(sid) => sid,
            Err(end) => return Some(Err(OpenRefused::Cut(end))),
        };
        match &self.streams.get(&sid)?.phase {
            Phase::Opening { .. } | Phase::Offered => None,
            Phase::Failed(failure) => Some(Err(OpenRefused::Failed(failure.clone()))),
            Phase::Cut(end) => Some(Err(OpenRefused::Cut(end.clone()))),
            Phase::Open | Phase::Retired => Some(Ok(())),
            Phase::Refused(_) | Phase::Resetting(_) => Some(Err(OpenRefused::Cut(StreamEnd::ResetByUs))),
        }
    }

    /// Takes an offered stream. False when it was cut meanwhile; it must be released all the same.
    pub fn accept(&mut self, id: StreamId) -> bool {
        let Ok(sid) = self.present(id) else {
            return false;
        };
        let first = self.budget.first(self.way());
        let Some(stream) = self.streams.get_mut(&sid) else {
            return false;
        };
        if !matches!(stream.phase, Phase::Offered) {
            return false;
        }
        stream.phase = Phase::Open;
        let before = stream.window.target();
        stream.window.raise(first);
        self.budget.promise(before, stream.window.target());
        stream.recv.permit(stream.recv.read_off() + stream.window.target());
        self.counters.accepted += 1;
        self.flag(sid, |ctl| &mut ctl.answer);
        true
    }

    /// Refuses an offered stream and releases it.
    pub fn refuse(&mut self, now: Instant, id: StreamId, failure: OpenFailure) {
        let Ok(sid) = self.present(id) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&sid) else {
            return;
        };
        if matches!(stream.phase, Phase::Offered) {
            stream.phase = Phase::Refused(failure);
            self.drop_bytes(sid);
            self.flag(sid, |ctl| &mut ctl.answer);
        }
        self.release(now, id);
    }

    /// Bytes that may be written now; after zero, [`Event::Writable`] follows.
    ///
    /// # Errors
    /// Why the stream was cut.
    pub fn room(&mut self, id: StreamId) -> Result<usize, StreamEnd> {
        let sid = self.present(id)?;
        let Some(stream) = self.streams.get_mut(&sid) else {
            return Err(StreamEnd::ResetByUs);
        };
        if let Some(end) = stream.cut() {
            return Err(end.clone());
        }
        let room = stream.send.room();
        let budget = self.budget.send_room(stream.send.buffered());
        if room > 0 && budget == 0 && !std::mem::replace(&mut stream.starved, true) {
            self.starved.push_back(sid);
        }
        let room = room.min(budget);
        stream.write_blocked = room == 0;
        Ok(usize::try_from(room).unwrap_or(usize::MAX))
    }

    /// Writes bytes of at most [`Session::room`], which only this stream's writer lessens.
    ///
    /// # Errors
    /// Why the stream was cut.
    pub fn write(&mut self, now: Instant, id: StreamId, data: Bytes) -> Result<(), StreamEnd> {
        self.write_with(now, id, data.len(), |send| send.write(data))
    }

    /// As [`Session::write`], copying: for a few bytes.
    ///
    /// # Errors
    /// Why the stream was cut.
    pub fn write_copy(&mut self, now: Instant, id: StreamId, data: &[u8]) -> Result<(), StreamEnd> {
        self.write_with(now, id, data.len(), |send| send.write_copy(data))
    }

    fn write_with(
        &mut self,
        now: Instant,
        id: StreamId,
        len: usize,
        write: impl FnOnce(&mut SendHalf),
    ) -> Result<(), StreamEnd> {
        let sid = self.present(id)?;
        self.expect_unused(now);
        let Some(stream) = self.streams.get_mut(&sid) else {
            return Err(StreamEnd::ResetByUs);
        };
        if let Some(end) = stream.cut() {
            return Err(end.clone());
        }
        let before = stream.send.buffered();
        write(&mut stream.send);
        debug_assert_eq!(stream.send.buffered(), before + len as u64);
        self.budget.keep(before, stream.send.buffered());
        self.schedule(sid);
        self.share_backlog(now, sid);
        Ok(())
    }

    /// Finishes the sending direction: the far application sees the end after everything written. Idempotent.
    ///
    /// # Errors
    /// Why the stream was cut.
    pub fn finish(&mut self, id: StreamId) -> Result<(), StreamEnd> {
        let sid = self.present(id)?;
        let Some(stream) = self.streams.get_mut(&sid) else {
            return Err(StreamEnd::ResetByUs);
        };
        if let Some(end) = stream.cut() {
            return Err(end.clone());
        }
        stream.send.finish();
        self.schedule(sid);
        Ok(())
    }

    /// Reads the next bytes, and tells that the application is done with those read before, which permits the peer to send more.
    ///
    /// # Errors
    /// Why the stream was cut; never confused with its end.
    pub fn read(&mut self, now: Instant, id: StreamId) -> Result<Read, StreamEnd> {
        let sid = self.present(id)?;
        self.expect_unused(now);
        let way = self.way();
        let Some(stream) = self.streams.get_mut(&sid) else {
            return Err(StreamEnd::ResetByUs);
        };
        if let Some(end) = stream.cut() {
            return Err(end.clone());
        }
        let settled = stream.recv.settle();
        self.budget.received -= settled;
        if settled > 0 && stream.is_live() {
            let before = stream.window.target();
            let most = self.budget.most(before);
            let (read_off, outstanding) = (stream.recv.read_off(), stream.recv.outstanding());
            stream.window.on_read(now, read_off, way, most, outstanding);
            self.budget.promise(before, stream.window.target());
            if let Some(permit) = stream.window.update(read_off, stream.recv.max_off())
                && !stream.recv.is_complete()
            {
                stream.recv.permit(permit);
                self.flag(sid, |ctl| &mut ctl.credit);
            }
        }
        let Some(stream) = self.streams.get_mut(&sid) else {
            return Err(StreamEnd::ResetByUs);
        };
        let Some(data) = stream.recv.read() else {
            if stream.recv.is_complete() {
                return Ok(Read::End);
            }
            stream.read_blocked = true;
            return Ok(Read::Blocked);
        };
        Ok(Read::Data(data))
    }

    /// The piece behind what [`Self::read`] gave, for an application that is done with several at once. `None` when there is none
    /// yet, and when the application has so much of the window already that the peer could wait for it: then `read` is next.
    pub fn read_more(&mut self, id: StreamId) -> Option<Bytes> {
        let sid = self.present(id).ok()?;
        let stream = self.streams.get_mut(&sid).filter(|stream| stream.cut().is_none())?;
        if stream.recv.lent() >= stream.window.target() / LENT_SHARE {
            return None;
        }
        stream.recv.read()
    }

    /// Why the stream was cut, for an application that neither reads nor writes now; after `None`, [`Event::Cut`] follows when
    /// it is.
    pub fn watch_cut(&mut self, id: StreamId) -> Option<StreamEnd> {
        let sid = match self.present(id) {
            Ok(sid) => sid,
            Err(end) => return Some(end),
        };
        let Some(stream) = self.streams.get_mut(&sid) else {
            return Some(StreamEnd::ResetByUs);
        };
        stream.cut_watched = stream.cut().is_none();
        stream.cut().cloned()
    }

    /// Cuts the stream in both directions; the far application sees a reset. Idempotent.
    pub fn reset(&mut self, id: StreamId) {
        if let Ok(sid) = self.present(id) {
            self.cut(sid, 1);
        }
    }

    /// The application drops its handle. A stream whose sending direction is not finished is reset; so is one that has
    /// bytes which nobody will read.
    pub fn release(&mut self, now: Instant, id: StreamId) {
        let Ok(sid) = self.present(id) else {
            return;
        };
        let Some(stream) = self.streams.get_mut(&sid) else {
            return;
        };
        stream.released = true;
        match stream.phase {
            Phase::Failed(_) | Phase::Retired | Phase::Cut(_) => self.forget(sid),
            Phase::Refused(_) | Phase::Resetting(_) => {}
            Phase::Opening { .. } | Phase::Offered => self.cut(sid, 1),
            Phase::Open => {
                if !stream.send.is_finished() || stream.recv.buffered() > 0 {
                    self.cut(sid, 1);
                } else if !stream.recv.is_complete() {
                    self.lingering.push_back((now + LINGER, sid));
                    self.due_at(now + LINGER);
                }
            }
        }
    }

    /// What is left, for a failed test.
    #[cfg(test)]
    pub(super) fn phases(&self) -> Vec<String> {
        self.streams
            .iter()
            .map(|(sid, s)| {
                format!(
                    "{sid} {:?} released {} queued {} {:?} {:?} {:?}",
                    s.phase, s.released, s.queued, s.home, s.send, s.recv
                )
            })
            .collect()
    }

    /// Begins a reset of our own.
    pub(super) fn cut(&mut self, sid: u64, code: u8) {
        let Some(stream) = self.streams.get_mut(&sid) else {
            return;
        };
        if matches!(stream.phase, Phase::Opening { .. } | Phase::Offered | Phase::Open) {
            stream.phase = Phase::Resetting(code);
            stream.ctl = Ctl::default();
            self.drop_bytes(sid);
            self.flag(sid, |ctl| &mut ctl.reset);
            self.rouse(sid);
        }
    }

    /// Gives the stream's buffers back to the budget.
    pub(super) fn drop_bytes(&mut self, sid: u64) {
        if let Some(stream) = self.streams.get_mut(&sid) {
            self.budget.received -= stream.recv.buffered() + stream.recv.lent();
            self.budget.keep(stream.send.buffered(), 0);
            self.budget.promise(stream.window.target(), 0);
            self.runs -= stream.recv.runs();
            stream.window = Window::new(0);
            stream.recv.clear();
            stream.send.clear();
            self.acks.remove(&sid);
            self.feed_starved();
        }
    }

    /// The protocol is done with the stream: kept only while the application holds it.
    pub(super) fn conclude(&mut self, sid: u64, phase: Phase) {
        let Some(stream) = self.streams.get_mut(&sid) else {
            return;
        };
        let keeps_bytes = matches!(phase, Phase::Retired);
        stream.phase = phase;
        if keeps_bytes {
            self.budget.promise(stream.window.target(), 0);
            stream.window = Window::new(0);
            self.acks.remove(&sid);
        } else {
            self.drop_bytes(sid);
        }
        self.rouse(sid);
        if self.streams.get(&sid).is_some_and(|stream| stream.released) {
            self.forget(sid);
        }
    }

    /// Removes a stream that nobody holds.
    pub(super) fn forget(&mut self, sid: u64) {
        self.drop_bytes(sid);
        self.streams.remove(&sid);
    }

    /// Wakes whoever waits on the stream.
    pub(super) fn rouse(&mut self, sid: u64) {
        let id = self.name(sid);
        if let Some(stream) = self.streams.get_mut(&sid)
            && !stream.released
        {
            if std::mem::take(&mut stream.read_blocked) {
                self.events.push_back(Event::Readable(id));
            }
            if std::mem::take(&mut stream.write_blocked) {
                self.events.push_back(Event::Writable(id));
            }
            if std::mem::take(&mut stream.cut_watched) {
                self.events.push_back(Event::Cut(id));
            }
            if stream.mine {
                self.events.push_back(Event::Answered(id));
            }
        }
    }

    /// Lets a few of the streams that waited for room in the budget try again.
    pub(super) fn feed_starved(&mut self) {
        for _ in 0..8 {
            if !self.budget.has_send_room() {
                return;
            }
            let Some(sid) = self.starved.pop_front() else { return };
            if let Some(stream) = self.streams.get_mut(&sid)
                && std::mem::take(&mut stream.starved)
                && std::mem::take(&mut stream.write_blocked)
            {
                let id = self.name(sid);
                self.events.push_back(Event::Writable(id));
            }
        }
    }
}

/// Why a stream asked for by [`Session::open`] is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenRefused {
    /// The peer could not open it.
    Failed(OpenFailure),
    /// It was cut before an answer came.
    Cut(StreamEnd),
}
