//! A run of bytes at absolute offsets, kept as the buffers it came in.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Pieces shorter than this are copied together: a buffer is not held for a few bytes of it, and many small pieces cost no more
/// memory than their bytes.
const SMALL: usize = 4096;
/// Size at which copied pieces become one.
const TAIL: usize = 16 * 1024;

/// Contiguous bytes `start..end`: large pieces as they came, small ones joined.
#[derive(Default)]
pub(super) struct Chunks {
    start: u64,
    end: u64,
    /// Each with the offset of its first byte.
    pieces: VecDeque<(u64, Bytes)>,
    /// The last bytes, still growing.
    tail: BytesMut,
}

impl Chunks {
    pub(super) fn at(offset: u64) -> Self {
        Self { start: offset, end: offset, ..Self::default() }
    }

    /// Offset of the first byte.
    pub(super) const fn start(&self) -> u64 {
        self.start
    }

    /// Offset behind the last byte.
    pub(super) const fn end(&self) -> u64 {
        self.end
    }

    pub(super) const fn len(&self) -> u64 {
        self.end - self.start
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() < SMALL {
            self.push_copy(&data);
        } else {
            self.seal_tail();
            let at = self.end;
            self.end += data.len() as u64;
            self.pieces.push_back((at, data));
        }
    }

    pub(super) fn push_copy(&mut self, data: &[u8]) {
        self.tail.extend_from_slice(data);
        self.end += data.len() as u64;
        if self.tail.len() >= TAIL {
            self.seal_tail();
        }
    }

    /// Appends a run that begins where this one ends.
    pub(super) fn append(&mut self, mut run: Self) {
        debug_assert_eq!(run.start, self.end);
        while let Some(piece) = run.pop_front() {
            self.push(piece);
        }
    }

    /// Takes the first piece.
    pub(super) fn pop_front(&mut self) -> Option<Bytes> {
        if self.pieces.is_empty() {
            self.seal_tail();
        }
        let (_, piece) = self.pieces.pop_front()?;
        self.start += piece.len() as u64;
        Some(piece)
    }

    /// Forgets all bytes below `offset`, which lies in the run.
    pub(super) fn trim_below(&mut self, offset: u64) {
        debug_assert!(offset <= self.end);
        while let Some((at, piece)) = self.pieces.front_mut() {
            let end = *at + piece.len() as u64;
            if end <= offset {
                self.pieces.pop_front();
                continue;
            }
            if *at < offset {
                let cut = usize::try_from(offset - *at).expect("inside one piece");
                *piece = piece.slice(cut..);
                *at = offset;
            }
            break;
        }
        let tail_start = self.end - self.tail.len() as u64;
        if self.pieces.is_empty() && offset > tail_start {
            let cut = usize::try_from(offset - tail_start).expect("inside the tail");
            let _ = self.tail.split_to(cut);
            if self.tail.is_empty() {
                self.tail = BytesMut::new();
            }
        }
        self.start = self.start.max(offset);
    }

    /// Gives the pieces of `from..to`, which lies in the run, to `each`.
    pub(super) fn slices(&mut self, from: u64, to: u64, mut each: impl FnMut(Bytes)) {
        debug_assert!(self.start <= from && from <= to && to <= self.end);
        if to > self.end - self.tail.len() as u64 {
            self.seal_tail();
        }
        let mut index = self.pieces.partition_point(|(at, piece)| at + piece.len() as u64 <= from);
        let mut at = from;
        while at < to {
            let (start, piece) = &self.pieces[index];
            let begin = usize::try_from(at - start).expect("inside one piece");
            let end = usize::try_from((to - start).min(piece.len() as u64)).expect("inside one piece");
            each(piece.slice(begin..end));
            at = start + end as u64;
            index += 1;
        }
    }

    fn seal_tail(&mut self) {
        if !self.tail.is_empty() {
            let at = self.end - self.tail.len() as u64;
            self.pieces.push_back((at, std::mem::take(&mut self.tail).freeze()));
        }
    }
}

impl std::fmt::Debug for Chunks {
    /// Never the bytes: they are the applications'.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}..{} in {} pieces", self.start, self.end, self.pieces.len() + usize::from(!self.tail.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn holds_what_was_pushed(sizes in prop::collection::vec(0usize..9000, 1..20), cuts in prop::collection::vec(any::<prop::sample::Index>(), 3)) {
            let all: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|i| (i % 251) as u8).collect();
            let mut chunks = Chunks::at(100);
            let mut at = 0;
            for size in sizes {
                chunks.push(Bytes::copy_from_slice(&all[at..at + size]));
                at += size;
            }
            prop_assert_eq!((chunks.start(), chunks.end()), (100, 100 + at as u64));
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.index(at + 1)).collect();
            cuts.sort_unstable();
            let mut out = Vec::new();
            chunks.slices(100 + cuts[1] as u64, 100 + cuts[2] as u64, |piece| out.extend_from_slice(&piece));
            prop_assert_eq!(&out[..], &all[cuts[1]..cuts[2]]);
            chunks.trim_below(100 + cuts[0] as u64);
            let mut rest = Vec::new();
            while let Some(piece) = chunks.pop_front() {
                rest.extend_from_slice(&piece);
            }
            prop_assert_eq!(&rest[..], &all[cuts[0]..]);
            prop_assert_eq!(chunks.len(), 0);
        }
    }

    #[test]
    fn a_thousand_single_bytes_are_one_piece() {
        let mut chunks = Chunks::default();
        (0..1000).for_each(|_| chunks.push(Bytes::from_static(b"x")));
        assert_eq!(chunks.pop_front().unwrap().len(), 1000);
    }
}
