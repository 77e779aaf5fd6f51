//! What the peer's frames do to streams.

use std::time::Instant;

use bytes::Bytes;

use super::error::{OpenFailure, StreamEnd, Violation};
use super::frame::{Frame, Report, Side};
use super::streams::{Phase, Stream};
use super::{ACK_DELAY, CarrierId, Event, Session};

/// Most separate ranges of the peer's stream ids: it uses them in order, and a few overtake each other between carriers.
const MAX_ID_RANGES: usize = 65_536;
/// Most runs of bytes that arrived before what is in front of them, of all streams together: each costs memory beside its bytes.
const MAX_RUNS: usize = 65_536;
/// Most streams that wait to be told gone.
const MAX_GONE: usize = 65_536;

/// Bytes whose acknowledgement does not wait, however large the window: the sender keeps them until then, and what it lets go
/// of in small amounts it can use again at once.
const ACK_BYTES: u64 = 512 * 1024;

/// Pieces shorter than this are copied out of the buffer that they came in, once a [`CROWDED`]th of the budget is used.
const COPIED: usize = 32 * 1024;
const CROWDED: u64 = 16;

/// What an id stands for here.
enum Known {
    Live,
    /// Was there, is over.
    Over,
    /// The peer's, not opened yet.
    Unseen,
}

impl Session {
    pub(super) fn on_stream_frame(&mut self, now: Instant, id: CarrierId, frame: Frame) -> Result<(), Violation> {
        match frame {
            Frame::Data { sid, offset, fin, data } => self.on_data(now, id, sid, offset, data, fin),
            Frame::Credit(report) => {
                let permitted =
                    |session: &Self| session.streams.get(&report.sid).map(|s| (s.send.acked(), s.send.max_off()));
                let before = permitted(self);
                self.on_credit(report)?;
                if permitted(self) == before { self.bear(now, "CREDIT that tells nothing new") } else { Ok(()) }
            }
            Frame::Open { sid, max_off, port, host } => self.on_open(now, sid, max_off, port, host),
            Frame::OpenOk { sid, max_off } => self.on_open_ok(sid, max_off),
            Frame::OpenErr { sid, code, value, detail } => self.on_open_err(sid, OpenFailure { code, value, detail }),
            Frame::Reset { sid, .. } => self.on_reset(sid),
            Frame::Gone { sid } => {
                self.bear(now, "GONE")?;
                self.on_gone(sid)
            }
            other => Err(Violation::Unexpected { frame: other.name(), state: "attached" }),
        }
    }

    /// A frame that changes nothing, or little.
    pub(super) fn bear(&mut self, now: Instant, what: &'static str) -> Result<(), Violation> {
        let flood = |limit: u32| Violation::TooMany { what, limit };
        self.patience.spend(now).map_err(flood)
    }

    fn known(&self, sid: u64, frame: &'static str) -> Result<Known, Violation> {
        if self.streams.get(&sid).is_some_and(|stream| stream.is_live()) {
            return Ok(Known::Live);
        }
        let Some(incarnation) = &self.incarnation else {
            return Ok(Known::Over);
        };
        let ours = (sid % 2 == 1) == (self.config.side == Side::Dialler);
        if sid == 0 || (ours && sid >= incarnation.next_id) {
            return Err(Violation::BadStreamId { frame, sid });
        }
        Ok(if ours || incarnation.seen.contains(sid / 2) { Known::Over } else { Known::Unseen })
    }

    fn mark_seen(&mut self, sid: u64) -> Result<(), Violation> {
        if let Some(incarnation) = &mut self.incarnation {
            incarnation.seen.insert(sid / 2, sid / 2 + 1);
            let count = incarnation.seen.pieces();
            if count > MAX_ID_RANGES {
                return Err(Violation::Flood { what: "scattered stream ids", count, limit: MAX_ID_RANGES });
            }
        }
        Ok(())
    }

    /// Tells the peer that nothing of the stream is held here.
    pub(super) fn tell_gone(&mut self, sid: u64) -> Result<(), Violation> {
        self.gone.insert(sid);
        if self.gone.len() > MAX_GONE {
            return Err(Violation::Flood { what: "frames of ended streams", count: self.gone.len(), limit: MAX_GONE });
        }
        self.wake_any();
        Ok(())
    }

    fn on_data(
        &mut self,
        now: Instant,
        id: CarrierId,
        sid: u64,
        offset: u64,
        data: Bytes,
        fin: bool,
    ) -> Result<(), Violation> {
        match self.known(sid, "DATA")? {
            Known::Live => {}
            Known::Over => {
                self.bear(now, "DATA of ended streams")?;
                return self.tell_gone(sid);
            }
            Known::Unseen => return Err(Violation::BadStreamId { frame: "DATA", sid }),
        }
        if let Some(carrier) = self.carriers.get_mut(&id)
            && let Some(at) = carrier.live.on_data(now, false)
        {
            self.due_at(at);
        }
        let id = self.name(sid);
        let Some(stream) = self.streams.get_mut(&sid) else {
            return Ok(());
        };
        if !matches!(stream.phase, Phase::Opening { .. } | Phase::Offered | Phase::Open) {
            return Ok(());
        }
        if matches!(stream.phase, Phase::Opening { .. }) {
            // OPEN_OK is late on another carrier; data says as much.
            stream.phase = Phase::Open;
            self.events.push_back(Event::Answered(id));
        }
        let len = data.len() as u64;
        // A few bytes of a large buffer that will lie here for a while: the budget counts bytes, not buffers.
        let data = if data.len() < COPIED && self.budget.received > self.budget.limit() / CROWDED {
            Bytes::copy_from_slice(&data)
        } else {
            data
        };
        let (runs, held) = (stream.recv.runs(), stream.recv.buffered());
        let got = stream.recv.on_data(sid, offset, data, fin);
        // Counted whatever came of it: what is held is given back when the stream goes.
        self.runs = self.runs + stream.recv.runs() - runs;
        self.budget.received += stream.recv.buffered() - held;
        let got = got?;
        if self.runs > MAX_RUNS {
            return Err(Violation::Flood { what: "runs out of order", count: self.runs, limit: MAX_RUNS });
        }
        let outstanding = stream.recv.outstanding();
        if outstanding > stream.window.target() {
            // Credit that was given back is used all the same. That may be, for both frames were on their way.
            self.budget.promise(stream.window.target(), outstanding);
            stream.window.set(outstanding);
            if self.budget.is_overdrawn() {
                self.counters.overdrawn += 1;
                self.cut(sid, 1);
                return Ok(());
            }
        }
        self.counters.bytes_in += got.gained;
        self.counters.duplicate_bytes += len - got.gained;
        if stream.released && got.gained > 0 {
            // Nobody will read it.
            self.cut(sid, 1);
            return Ok(());
        }
        let complete = stream.recv.is_complete();
        let enough = (stream.window.target() / 4).min(ACK_BYTES);
        let duplicate = got.duplicate;
        let due = complete || duplicate || stream.recv.recv_off() - stream.told >= enough;
        if got.readable && std::mem::take(&mut stream.read_blocked) {
            self.events.push_back(Event::Readable(id));
        }
        if due {
            self.flag(sid, |ctl| &mut ctl.credit);
        } else {
            self.acks.insert(sid);
            if self.ack_at.is_none() {
                self.ack_at = Some(now + ACK_DELAY);
                self.due_at(now + ACK_DELAY);
            }
        }
        if duplicate {
            self.bear(now, "DATA without new bytes")?;
        }
        if complete {
            self.retire_if_done(sid)?;
        }
        Ok(())
    }

    pub(super) fn on_credit(&mut self, report: Report) -> Result<(), Violation> {
        let Report { sid, recv_off, max_off } = report;
        match self.known(sid, "CREDIT")? {
            Known::Live => {}
            Known::Over => return self.tell_gone(sid),
            Known::Unseen => return Ok(()),
        }
        let id = self.name(sid);
        let Some(stream) = self.streams.get_mut(&sid) else {
            return Ok(());
        };
        if !matches!(stream.phase, Phase::Opening { .. } | Phase::Open) {
            return Ok(());
        }
        let before = stream.send.buffered();
        let freed = stream.send.on_credit(sid, recv_off, max_off)?;
        self.budget.keep(before, stream.send.buffered());
        if stream.write_blocked
            && stream.send.room() > 0
            && self.budget.send_room(stream.send.buffered()) > 0
            && !stream.released
        {
            stream.write_blocked = false;
            self.events.push_back(Event::Writable(id));
        }
        if freed > 0 {
            self.feed_starved();
        }
        self.retire_if_done(sid)
    }

    /// The peer has no use for credit above `max_off`.
    pub(super) fn on_return(&mut self, sid: u64, max_off: u64) -> Result<(), Violation> {
        match self.known(sid, "RETURN")? {
            Known::Live => {}
            Known::Over => return self.tell_gone(sid),
            Known::Unseen => return Ok(()),
        }
        if let Some(stream) = self.streams.get_mut(&sid)
            && matches!(stream.phase, Phase::Open)
        {
            stream.recv.on_return(max_off);
            let (before, floor) = (stream.window.target(), self.budget.floor());
            stream.window.set(stream.recv.outstanding().max(floor).min(before));
            self.budget.promise(before, stream.window.target());
        }
        Ok(())
    }

    /// A stream is over when both directions are finished, received and acknowledged; the peer is told so.
    pub(super) fn retire_if_done(&mut self, sid: u64) -> Result<(), Violation> {
        let done = self
            .streams
            .get(&sid)
            .is_some_and(|s| matches!(s.phase, Phase::Open) && s.send.all_acked() && s.recv.is_complete());
        if done {
            self.conclude(sid, Phase::Retired);
            self.tell_gone(sid)?;
        }
        Ok(())
    }

    fn on_open(&mut self, now: Instant, sid: u64, max_off: u64, port: u16, host: String) -> Result<(), Violation> {
        match self.known(sid, "OPEN")? {
            Known::Live => {
                let stream = self.streams.get(&sid).expect("known to be live");
                if stream.mine {
                    return Err(Violation::BadStreamId { frame: "OPEN", sid });
                }
                // Sent again after a loss: so is the answer.
                if matches!(stream.phase, Phase::Open | Phase::Refused(_)) {
                    self.flag(sid, |ctl| &mut ctl.answer);
                }
                return Ok(());
            }
            Known::Over if (sid % 2 == 1) == (self.config.side == Side::Dialler) => {
                return Err(Violation::BadStreamId { frame: "OPEN", sid });
            }
            Known::Over => return self.tell_gone(sid),
            Known::Unseen => {}
        }
        self.mark_seen(sid)?;
        // Refused streams stay until the peer lets go of them; a peer that never does must not fill the memory.
        let hard = self.config.streams.saturating_mul(2).saturating_add(1024);
        if self.streams.len() >= hard {
            return Err(Violation::Flood { what: "streams", count: self.streams.len(), limit: hard });
        }
        let open = self.streams.len();
        let refusal = if self.draining {
            Some("the endpoint is shutting down".to_owned())
        } else if open >= self.config.streams {
            Some(format!("{open} streams are open, limit {}", self.config.streams))
        } else if !self.opens.take(now) {
            Some(format!("more than {} new streams a second", self.config.opens_per_second))
        } else if self.budget.is_full() {
            Some(format!("{} bytes wait to be read, limit {}", self.budget.received, self.budget.limit()))
        } else {
            None
        };
        let phase = refusal.map_or(Phase::Offered, |detail| Phase::Refused(OpenFailure::limit(detail)));
        let refused = matches!(phase, Phase::Refused(_));
        self.expect_unused(now);
        let floor = self.budget.floor();
        let mut stream = Stream::new(false, phase, (max_off, self.config.pieces), floor);
        stream.released = refused;
        self.budget.promise(0, floor);
        self.streams.insert(sid, Box::new(stream));
        if refused {
            self.flag(sid, |ctl| &mut ctl.answer);
        } else {
            self.events.push_back(Event::Offered { id: self.name(sid), host, port });
        }
        Ok(())
    }

    fn on_open_ok(&mut self, sid: u64, max_off: u64) -> Result<(), Violation> {
        match self.known(sid, "OPEN_OK")? {
            Known::Live => {}
            Known::Over => return self.tell_gone(sid),
            Known::Unseen => return Err(Violation::BadStreamId { frame: "OPEN_OK", sid }),
        }
        let id = self.name(sid);
        let Some(stream) = self.streams.get_mut(&sid) else {
            return Ok(());
        };
        if !stream.mine {
            return Err(Violation::BadStreamId { frame: "OPEN_OK", sid });
        }
        if matches!(stream.phase, Phase::Opening { .. }) {
            stream.phase = Phase::Open;
            stream.ctl.open = false;
            self.events.push_back(Event::Answered(id));
        }
        self.schedule(sid);
        self.on_credit(Report { sid, recv_off: 0, max_off })
    }

    fn on_open_err(&mut self, sid: u64, failure: OpenFailure) -> Result<(), Violation> {
        match self.known(sid, "OPEN_ERR")? {
            Known::Live => {}
            Known::Over => return self.tell_gone(sid),
            Known::Unseen => return Err(Violation::BadStreamId { frame: "OPEN_ERR", sid }),
        }
        match self.streams.get(&sid).map(|stream| (&stream.phase, stream.mine)) {
            Some((Phase::Opening { .. }, _)) => self.conclude(sid, Phase::Failed(failure)),
            // Our RESET crossed it; both sides let go.
            Some((Phase::Resetting(_), true)) => self.conclude(sid, Phase::Cut(StreamEnd::ResetByUs)),
            _ => return Err(Violation::BadStreamId { frame: "OPEN_ERR", sid }),
        }
        self.tell_gone(sid)
    }

    fn on_reset(&mut self, sid: u64) -> Result<(), Violation> {
        match self.known(sid, "RESET")? {
            Known::Live => self.conclude(sid, Phase::Cut(StreamEnd::ResetByPeer)),
            Known::Over => {}
            // RESET overtook OPEN on another carrier: the id is used, OPEN will find it over.
            Known::Unseen => self.mark_seen(sid)?,
        }
        self.tell_gone(sid)
    }

    fn on_gone(&mut self, sid: u64) -> Result<(), Violation> {
        let Known::Live = self.known(sid, "GONE")? else {
            return Ok(());
        };
        let Some(stream) = self.streams.get(&sid) else {
            return Ok(());
        };
        let end = match stream.phase {
            // The last acknowledgement was lost on the way, the stream was complete.
            Phase::Open if stream.send.all_sent() && stream.recv.is_complete() => Phase::Retired,
            Phase::Refused(_) | Phase::Resetting(_) => Phase::Cut(StreamEnd::ResetByUs),
            _ => Phase::Cut(StreamEnd::ResetByPeer),
        };
        if matches!(end, Phase::Retired) {
            if let Some(stream) = self.streams.get_mut(&sid) {
                self.budget.keep(stream.send.buffered(), 0);
                stream.send.clear();
            }
            self.feed_starved();
        }
        self.conclude(sid, end);
        Ok(())
    }
}
