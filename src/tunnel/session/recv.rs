//! The receiving half of a stream: bytes by offset, whatever order they come in.

use std::collections::BTreeMap;

use bytes::{Buf as _, Bytes};

use super::chunks::Chunks;
use super::error::Violation;

/// Most separate runs out of order.
const MAX_PIECES: usize = 4096;

/// Bytes of one direction on their way in.
///
/// ```text
///   read_off      recv_off                    max_off
///     |-- ready -----|   |- ahead -|  |-- ahead --|
/// ```
#[derive(Debug)]
pub(super) struct RecvHalf {
    /// Bytes `read_off..recv_off` without the end.
    ready: Chunks,
    /// Runs behind a gap, disjoint and not adjacent, by first offset.
    ahead: BTreeMap<u64, Chunks>,
    ahead_bytes: u64,
    /// Highest offset seen.
    highest: u64,
    final_off: Option<u64>,
    max_off: u64,
    /// The most that was ever permitted: credit that was given back may have been used on the way.
    limit: u64,
    /// Given to the application, which has not asked for more since: it may still hold them.
    lent: u64,
}

/// What came of data that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Received {
    /// Something can be read that could not before.
    pub(super) readable: bool,
    /// Bytes newly held.
    pub(super) gained: u64,
    /// All of it was held already: the peer has not heard so.
    pub(super) duplicate: bool,
}

impl RecvHalf {
    /// Nothing received, `max_off` bytes permitted.
    pub(super) fn new(max_off: u64) -> Self {
        Self {
            ready: Chunks::default(),
            ahead: BTreeMap::new(),
            ahead_bytes: 0,
            highest: 0,
            final_off: None,
            max_off,
            limit: max_off,
            lent: 0,
        }
    }

    /// What the peer may send up to.
    pub(super) const fn max_off(&self) -> u64 {
        self.max_off
    }

    /// Permits more.
    pub(super) fn permit(&mut self, max_off: u64) {
        self.max_off = self.max_off.max(max_off);
        self.limit = self.limit.max(max_off);
    }

    /// The peer will not send beyond `max_off` until it is permitted more.
    pub(super) fn on_return(&mut self, max_off: u64) {
        self.max_off = self.max_off.min(max_off.max(self.highest));
    }

    /// Bytes that are held, or may still come.
    pub(super) const fn outstanding(&self) -> u64 {
        self.max_off.saturating_sub(self.read_off())
    }

    /// Everything below is held; the end counts as one.
    pub(super) fn recv_off(&self) -> u64 {
        self.ready.end() + u64::from(self.is_complete())
    }

    /// Offset behind the last byte that the application is done with.
    pub(super) const fn read_off(&self) -> u64 {
        self.ready.start() - self.lent
    }

    /// Bytes held and not read.
    pub(super) const fn buffered(&self) -> u64 {
        self.ready.len() + self.ahead_bytes
    }

    /// Bytes that the application has and may not be done with.
    pub(super) const fn lent(&self) -> u64 {
        self.lent
    }

    /// The application is done with what it was given: how much that was.
    pub(super) const fn settle(&mut self) -> u64 {
        std::mem::replace(&mut self.lent, 0)
    }

    /// Runs that arrived before what is in front of them.
    pub(super) fn runs(&self) -> usize {
        self.ahead.len()
    }

    /// Whether all up to the end is held.
    pub(super) fn is_complete(&self) -> bool {
        self.final_off == Some(self.ready.end())
    }

    /// Whether all up to the end was read.
    #[cfg(test)]
    pub(super) fn is_read(&self) -> bool {
        self.final_off == Some(self.ready.start())
    }

    /// Whether something can be read: bytes or the end.
    pub(super) fn is_readable(&self) -> bool {
        self.ready.len() > 0 || self.is_complete()
    }

    /// Takes in data.
    pub(super) fn on_data(&mut self, sid: u64, offset: u64, mut data: Bytes, fin: bool) -> Result<Received, Violation> {
        let end = offset.saturating_add(data.len() as u64);
        if end > self.limit {
            return Err(Violation::CreditExceeded { sid, end, max_off: self.limit });
        }
        self.max_off = self.max_off.max(end);
        if let Some(final_off) = self.final_off
            && (end > final_off || (fin && end != final_off))
        {
            return Err(Violation::AfterEnd { sid, end, final_off });
        }
        if fin && self.highest > end {
            return Err(Violation::AfterEnd { sid, end: self.highest, final_off: end });
        }
        let new_end = fin && self.final_off.is_none();
        if fin {
            self.final_off = Some(end);
        }
        self.highest = self.highest.max(end);
        let was_readable = self.is_readable() && !new_end;
        let before = self.buffered();
        let held = self.ready.end();
        if end > held {
            if offset < held {
                data.advance(usize::try_from(held - offset).expect("less than the data"));
            }
            self.place(sid, offset.max(held), data)?;
        }
        let gained = self.buffered() - before;
        Ok(Received { readable: !was_readable && self.is_readable(), gained, duplicate: gained == 0 && !new_end })
    }

    /// Puts bytes at or behind `ready.end()`.
    fn place(&mut self, sid: u64, offset: u64, data: Bytes) -> Result<(), Violation> {
        if offset == self.ready.end() && self.ahead.is_empty() {
            self.ready.push(data);
            return Ok(());
        }
        self.place_ahead(offset, data);
        if self.ahead.len() > MAX_PIECES {
            return Err(Violation::Fragmented { sid, pieces: self.ahead.len(), limit: MAX_PIECES });
        }
        while let Some(entry) = self.ahead.first_entry() {
            if *entry.key() > self.ready.end() {
                break;
            }
            let run = entry.remove();
            self.ahead_bytes -= run.len();
            self.ready.append(run);
        }
        Ok(())
    }

    /// Fills what is missing of `offset..` among the runs, joining runs that touch.
    fn place_ahead(&mut self, mut offset: u64, mut data: Bytes) {
        while !data.is_empty() {
            if let Some((_, run)) = self.ahead.range(..=offset).next_back()
                && run.end() > offset
            {
                let known = usize::try_from(run.end() - offset).unwrap_or(usize::MAX).min(data.len());
                data.advance(known);
                offset += known as u64;
                continue;
            }
            let until_next = self.ahead.range(offset..).next().map_or(u64::MAX, |(&next, _)| next - offset);
            let fits = usize::try_from(until_next).unwrap_or(usize::MAX).min(data.len());
            let piece = data.split_to(fits);
            self.ahead_bytes += fits as u64;
            let end = offset + fits as u64;
            let next_run = self.ahead.remove(&end);
            let run = match self.ahead.range_mut(..=offset).next_back() {
                Some((_, run)) if run.end() == offset => run,
                _ => self.ahead.entry(offset).or_insert_with(|| Chunks::at(offset)),
            };
            run.push(piece);
            if let Some(next_run) = next_run {
                run.append(next_run);
            }
            offset = end;
        }
    }

    /// Takes the next bytes, when what was taken before is settled.
    pub(super) fn read(&mut self) -> Option<Bytes> {
        let data = self.ready.pop_front()?;
        self.lent += data.len() as u64;
        Some(data)
    }

    /// Drops everything; the stream was cut.
    pub(super) fn clear(&mut self) {
        self.ready = Chunks::at(self.ready.end());
        self.ahead.clear();
        self.ahead_bytes = 0;
        self.lent = 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_end_counts_as_one_offset() {
        let mut half = RecvHalf::new(10);
        let got = half.on_data(1, 0, Bytes::from_static(b"ab"), true).unwrap();
        assert_eq!(got, Received { readable: true, gained: 2, duplicate: false });
        assert_eq!((half.recv_off(), half.is_complete(), half.is_read()), (3, true, false));
        assert_eq!(half.read().unwrap(), "ab");
        assert!(half.is_read());
        let again = half.on_data(1, 1, Bytes::from_static(b"b"), true).unwrap();
        assert!(again.duplicate);
    }

    #[test]
    fn breaking_the_rules_is_named() {
        let data = |n: usize| Bytes::from(vec![0; n]);
        let mut half = RecvHalf::new(10);
        assert_eq!(half.on_data(3, 5, data(6), false), Err(Violation::CreditExceeded { sid: 3, end: 11, max_off: 10 }));
        assert!(matches!(half.on_data(3, u64::MAX, data(1), false), Err(Violation::CreditExceeded { .. })));
        half.on_data(3, 4, data(2), false).unwrap();
        assert_eq!(half.on_data(3, 0, data(5), true), Err(Violation::AfterEnd { sid: 3, end: 6, final_off: 5 }));
        half.on_data(3, 6, data(1), true).unwrap();
        assert_eq!(half.on_data(3, 7, data(1), false), Err(Violation::AfterEnd { sid: 3, end: 8, final_off: 7 }));
        assert_eq!(half.on_data(3, 4, data(1), true), Err(Violation::AfterEnd { sid: 3, end: 5, final_off: 7 }));
    }

    #[test]
    fn pieces_out_of_order_are_bounded() {
        let mut half = RecvHalf::new(1 << 20);
        let last = (0..).map(|i| half.on_data(1, 1 + 2 * i, Bytes::from_static(b"x"), false)).find_map(Result::err);
        assert_eq!(last, Some(Violation::Fragmented { sid: 1, pieces: 4097, limit: 4096 }));
    }

    proptest! {
        #[test]
        fn any_order_and_overlap_gives_the_bytes_once(len in 1usize..300, cuts in prop::collection::vec((any::<prop::sample::Index>(), 1usize..80), 0..60)) {
            let all: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let all = Bytes::from(all);
            let mut half = RecvHalf::new(len as u64);
            let mut out = Vec::new();
            let mut gained = 0;
            let pieces = cuts.iter().map(|(at, size)| { let at = at.index(len); (at, (at + size).min(len)) });
            for (start, end) in pieces.chain([(0, len)]) {
                gained += half.on_data(1, start as u64, all.slice(start..end), end == len).unwrap().gained;
                if start % 3 == 0 {
                    while let Some(bytes) = half.read() { out.extend_from_slice(&bytes); }
                }
            }
            while let Some(bytes) = half.read() { out.extend_from_slice(&bytes); }
            prop_assert_eq!(&out[..], &all[..]);
            prop_assert_eq!(gained, len as u64);
            prop_assert!(half.is_read() && half.buffered() == 0);
        }
    }
}
