//! The sending half of a stream: what was written, sent, lost on the way, and acknowledged.

use std::collections::VecDeque;

use bytes::Bytes;

use super::CarrierId;
use super::chunks::Chunks;
use super::error::Violation;
use super::ranges::RangeSet;

/// Bytes of one direction on their way out.
///
/// ```text
///   acked          next            written   max_off
///     |--- in flight ---|--- unsent ---|         |
///     `------ kept for replay ---------'         `- what the peer permits
/// ```
/// `acked <= next <= end`, `written <= max_off`; the end (FIN) is one more offset behind `written`, needs no credit, and is
/// acknowledged like a byte. Ranges of `lost` and `flights` lie in `acked..next`.
#[derive(Debug)]
pub(super) struct SendHalf {
    /// Bytes `acked..written`.
    kept: Chunks,
    acked: u64,
    next: u64,
    max_off: u64,
    finished: bool,
    /// `written` when it was last looked whether the credit is of use.
    written_before: u64,
    /// Sent, but on a carrier that is no more: to be sent again first.
    lost: RangeSet,
    /// What was sent where, unacknowledged.
    flights: VecDeque<Flight>,
    /// Most of them.
    pieces: usize,
    /// Bytes sent since nothing was left to send: tells small streams from bulk.
    pub(super) burst: u64,
}

#[derive(Debug, Clone, Copy)]
struct Flight {
    start: u64,
    end: u64,
    /// `None` for several: the loss of any of them is the loss of all of it.
    carrier: Option<CarrierId>,
    /// Bytes of all streams that the carrier had been given with its last one.
    given: u64,
}

/// A piece to send: `len` bytes at `offset`, then the end if `fin`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) fin: bool,
    /// Whether it was sent before.
    pub(super) again: bool,
}

impl SendHalf {
    /// Nothing written, `max_off` bytes permitted; `pieces` in flight are told apart.
    pub(super) fn new(max_off: u64, pieces: usize) -> Self {
        Self {
            kept: Chunks::default(),
            acked: 0,
            next: 0,
            max_off,
            finished: false,
            written_before: 0,
            lost: RangeSet::default(),
            flights: VecDeque::new(),
            pieces,
            burst: 0,
        }
    }

    /// Bytes that may be written now.
    pub(super) const fn room(&self) -> u64 {
        if self.finished { 0 } else { self.max_off.saturating_sub(self.kept.end()) }
    }

    /// Bytes kept: unsent and unacknowledged.
    pub(super) const fn buffered(&self) -> u64 {
        self.kept.len()
    }

    /// Gives credit back that was of no use since this was called last: at most four times what was written then, and `floor`
    /// at least, are kept. Returns the offset up to which it will send.
    pub(super) fn give_back(&mut self, floor: u64) -> Option<u64> {
        let written = self.kept.end();
        let used = written - std::mem::replace(&mut self.written_before, written);
        let keep = used.saturating_mul(4).max(floor);
        if self.finished || self.buffered() > 0 || self.room() < keep.saturating_mul(2) {
            return None;
        }
        self.max_off = written + keep;
        Some(self.max_off)
    }

    /// Bytes written.
    pub(super) const fn written(&self) -> u64 {
        self.kept.end()
    }

    /// Bytes that the peer holds.
    pub(super) const fn acked(&self) -> u64 {
        self.acked
    }

    /// What the peer permits, or less where some was given back.
    pub(super) const fn max_off(&self) -> u64 {
        self.max_off
    }

    /// Appends; the caller keeps to [`Self::room`].
    pub(super) fn write(&mut self, data: Bytes) {
        debug_assert!(data.len() as u64 <= self.room());
        self.kept.push(data);
    }

    /// Appends a copy.
    pub(super) fn write_copy(&mut self, data: &[u8]) {
        debug_assert!(data.len() as u64 <= self.room());
        self.kept.push_copy(data);
    }

    /// No byte will follow.
    pub(super) const fn finish(&mut self) {
        self.finished = true;
    }

    pub(super) const fn is_finished(&self) -> bool {
        self.finished
    }

    /// Offset behind the last byte and, once finished, the end.
    const fn end(&self) -> u64 {
        self.kept.end() + self.finished as u64
    }

    /// Whether there is something to send. What was written was permitted when it was.
    pub(super) fn is_sendable(&self) -> bool {
        self.next < self.end() || !self.lost.is_empty()
    }

    /// Whether everything up to the end was sent at least once.
    pub(super) const fn all_sent(&self) -> bool {
        self.finished && self.next == self.end()
    }

    /// Whether everything, the end included, is held by the peer.
    pub(super) const fn all_acked(&self) -> bool {
        self.finished && self.acked == self.end()
    }

    /// Offset up to which bytes were sent.
    pub(super) const fn sent(&self) -> u64 {
        self.next
    }

    /// Takes the next piece of at most `most` bytes for `carrier`, which was given `given` bytes before; lost pieces come first.
    pub(super) fn take(&mut self, carrier: CarrierId, given: u64, most: usize) -> Option<Piece> {
        let most = most.max(1) as u64;
        let (start, mut end, again) = match self.lost.take_front(most) {
            Some((start, end)) => (start, end, true),
            None if self.next < self.end() => (self.next, self.end().min(self.next.saturating_add(most)), false),
            None => return None,
        };
        // The end rides on the last bytes rather than in a frame of its own.
        if !again && self.finished && end == self.kept.end() {
            end += 1;
        }
        if !again {
            self.next = end;
            self.burst += end - start;
        }
        self.fly(Flight { start, end, carrier: Some(carrier), given: given + (end - start) });
        let bytes_end = end.min(self.kept.end());
        Some(Piece {
            offset: start,
            len: usize::try_from(bytes_end - start).expect("at most `most`"),
            fin: end > self.kept.end(),
            again,
        })
    }

    /// The bytes of a piece just taken.
    pub(super) fn slices(&mut self, piece: Piece, each: impl FnMut(Bytes)) {
        self.kept.slices(piece.offset, piece.offset + piece.len as u64, each);
    }

    fn fly(&mut self, flight: Flight) {
        let many = self.flights.len() >= self.pieces;
        match self.flights.back_mut() {
            Some(last) if last.carrier == flight.carrier && last.end == flight.start => {
                (last.end, last.given) = (flight.end, flight.given);
            }
            Some(last) if many => {
                // Too many pieces to tell apart: this one goes with its neighbour, the loss of either repeats both.
                last.start = last.start.min(flight.start);
                last.end = last.end.max(flight.end);
                last.carrier = last.carrier.filter(|_| last.carrier == flight.carrier);
                last.given = flight.given;
            }
            _ => self.flights.push_back(flight),
        }
    }

    /// The peer holds everything below `recv_off` and permits `max_off`. Returns the bytes freed.
    pub(super) fn on_credit(&mut self, sid: u64, recv_off: u64, max_off: u64) -> Result<u64, Violation> {
        if recv_off > self.next {
            return Err(Violation::AckedUnsent { sid, acked: recv_off, sent: self.next });
        }
        self.max_off = self.max_off.max(max_off);
        if recv_off <= self.acked {
            return Ok(0);
        }
        let before = self.kept.len();
        self.acked = recv_off;
        self.kept.trim_below(recv_off.min(self.kept.end()));
        self.lost.trim_below(recv_off);
        self.flights.retain_mut(|flight| {
            flight.start = flight.start.max(recv_off);
            flight.start < flight.end
        });
        Ok(before - self.kept.len())
    }

    /// What was sent on `carrier` and is not acknowledged must be sent again. True when there is any.
    pub(super) fn on_carrier_lost(&mut self, carrier: CarrierId) -> bool {
        let mut any = false;
        let lost = &mut self.lost;
        self.flights.retain(|flight| {
            let hit = flight.carrier.is_none_or(|one| one == carrier);
            if hit {
                lost.insert(flight.start, flight.end);
                any = true;
            }
            !hit
        });
        any
    }

    /// What `carrier` was given after its first `after` bytes, and is not acknowledged, is to be sent again, though it may arrive. True
    /// when there is any.
    pub(super) fn repeat(&mut self, carrier: CarrierId, after: u64) -> bool {
        let mut any = false;
        let lost = &mut self.lost;
        self.flights.retain_mut(|flight| {
            if flight.carrier == Some(carrier) && flight.given > after {
                let from = flight.start.max(flight.end.saturating_sub(flight.given - after));
                lost.insert(from, flight.end);
                flight.end = from;
                any = true;
            }
            flight.start < flight.end
        });
        any
    }

    /// Whether something unacknowledged went to `carrier`.
    #[cfg(test)]
    pub(super) fn flies_on(&self, carrier: CarrierId) -> bool {
        self.flights.iter().any(|flight| flight.carrier.is_none_or(|one| one == carrier))
    }

    /// Drops everything; the stream was cut.
    pub(super) fn clear(&mut self) {
        let end = self.kept.end();
        self.kept = Chunks::at(end);
        self.acked = self.next;
        self.lost.clear();
        self.flights.clear();
        self.finished = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::session::PIECES;

    const A: CarrierId = CarrierId(1);
    const B: CarrierId = CarrierId(2);

    fn bytes(half: &mut SendHalf, piece: Piece) -> Vec<u8> {
        let mut out = Vec::new();
        half.slices(piece, |slice| out.extend_from_slice(&slice));
        out
    }

    #[test]
    fn sends_in_order_with_the_end_on_the_last_bytes() {
        let mut half = SendHalf::new(10, PIECES);
        assert_eq!(half.room(), 10);
        half.write(Bytes::from_static(b"abcdef"));
        half.finish();
        assert_eq!(half.take(A, 0, 4), Some(Piece { offset: 0, len: 4, fin: false, again: false }));
        assert_eq!(half.take(A, 0, 4), Some(Piece { offset: 4, len: 2, fin: true, again: false }));
        assert_eq!(half.take(A, 0, 4), None);
        assert!(half.all_sent() && !half.all_acked());
        assert_eq!(half.on_credit(1, 6, 10), Ok(6));
        assert!(!half.all_acked());
        assert_eq!(half.on_credit(1, 7, 10), Ok(0));
        assert!(half.all_acked());
    }

    #[test]
    fn sends_again_what_a_lost_carrier_had_and_nothing_else() {
        let mut half = SendHalf::new(100, PIECES);
        half.write(Bytes::from_static(b"0123456789"));
        half.take(A, 0, 3);
        half.take(B, 0, 3);
        half.take(A, 0, 2);
        half.on_credit(1, 1, 100).unwrap();
        assert!(half.on_carrier_lost(A) && !half.flies_on(A) && half.flies_on(B));
        let piece = half.take(B, 0, 10).unwrap();
        assert_eq!(
            (piece, bytes(&mut half, piece)),
            (Piece { offset: 1, len: 2, fin: false, again: true }, b"12".to_vec())
        );
        let piece = half.take(B, 0, 10).unwrap();
        assert_eq!(bytes(&mut half, piece), b"67");
        let piece = half.take(B, 0, 10).unwrap();
        assert_eq!((bytes(&mut half, piece), piece.again), (b"89".to_vec(), false));
        assert!(!half.is_sendable());
    }

    #[test]
    fn a_lost_end_is_sent_again() {
        let mut half = SendHalf::new(100, PIECES);
        half.write(Bytes::from_static(b"ab"));
        half.finish();
        half.take(A, 0, 10);
        half.on_credit(1, 2, 100).unwrap();
        half.on_carrier_lost(A);
        assert_eq!(half.take(B, 0, 10), Some(Piece { offset: 2, len: 0, fin: true, again: true }));
    }

    #[test]
    fn loses_nothing_of_more_pieces_than_are_told_apart() {
        let pieces = PIECES as u64 * 2;
        for lost in [A, B] {
            let mut half = SendHalf::new(pieces, PIECES);
            half.write(vec![7; PIECES * 2].into());
            for at in 0..pieces {
                half.take(if at % 2 == 0 { A } else { B }, 0, 1);
            }
            assert!(half.on_carrier_lost(lost) && !half.flies_on(lost) && half.flights.len() <= PIECES);
            let mut again = std::collections::BTreeSet::new();
            while let Some(piece) = half.take(CarrierId(3), 0, 1000) {
                again.extend(piece.offset..piece.offset + piece.len as u64);
            }
            let had = (0..pieces).filter(|at| (at % 2 == 0) == (lost == A));
            assert!(had.clone().all(|at| again.contains(&at)), "{} of {pieces} again", again.len());
        }
    }

    #[test]
    fn repeats_what_a_carrier_was_given_last() {
        let mut half = SendHalf::new(100, PIECES);
        half.write(Bytes::from_static(b"0123456789"));
        half.take(A, 70, 3);
        half.take(B, 0, 2);
        half.take(A, 73, 4);
        // A has got 77 bytes, of which the last five wait: one of the first three, and the four.
        assert!(half.repeat(A, 72) && !half.repeat(A, 77));
        let piece = half.take(B, 2, 10).unwrap();
        assert_eq!((bytes(&mut half, piece), piece.again), (b"2".to_vec(), true));
        let piece = half.take(B, 3, 10).unwrap();
        assert_eq!((bytes(&mut half, piece), piece.again), (b"5678".to_vec(), true));
        // The loss of A repeats only what it alone has.
        assert!(half.on_carrier_lost(A));
        let piece = half.take(B, 7, 10).unwrap();
        assert_eq!(bytes(&mut half, piece), b"01");
        let piece = half.take(B, 9, 10).unwrap();
        assert_eq!((bytes(&mut half, piece), piece.again), (b"9".to_vec(), false));
    }

    #[test]
    fn an_acknowledgement_of_the_unsent_is_a_violation() {
        let mut half = SendHalf::new(100, PIECES);
        half.write(Bytes::from_static(b"ab"));
        assert_eq!(half.on_credit(7, 1, 100), Err(Violation::AckedUnsent { sid: 7, acked: 1, sent: 0 }));
    }
}
