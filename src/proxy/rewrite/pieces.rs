//! What becomes of input bytes, in order: an instruction list for whoever holds the input.

use std::collections::VecDeque;

use bytes::{Buf as _, Bytes};

/// One instruction over the input that was fed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes of the input go on unchanged.
    Pass(usize),
    /// The next bytes of the input go nowhere (they are held, or replaced).
    Skip(usize),
    /// These bytes are sent; they stand for none of the input.
    New(Bytes),
}

/// Instructions in order; neighbours of one kind are one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pieces {
    queue: VecDeque<Piece>,
}

impl Pieces {
    /// No instruction.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether all is done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether anything is to be sent.
    #[must_use]
    pub fn sends(&self) -> bool {
        self.queue.iter().any(|piece| !matches!(piece, Piece::Skip(_)))
    }

    /// Bytes of the input that the instructions stand for.
    #[must_use]
    pub fn covers(&self) -> usize {
        self.queue
            .iter()
            .map(|piece| if let Piece::Pass(bytes) | Piece::Skip(bytes) = piece { *bytes } else { 0 })
            .sum()
    }

    /// The instructions in order.
    pub fn iter(&self) -> impl Iterator<Item = &Piece> {
        self.queue.iter()
    }

    /// Takes leading [`Piece::Skip`] off: bytes of the input to forget.
    pub fn take_skips(&mut self) -> usize {
        let mut skipped = 0;
        while let Some(Piece::Skip(bytes)) = self.queue.front() {
            skipped += bytes;
            self.queue.pop_front();
        }
        skipped
    }

    /// Notes that `sent` bytes went out, in order; returns how many bytes of the input are done with, skipped ones included.
    /// `sent` is at most what is there to send.
    pub fn advance(&mut self, mut sent: usize) -> usize {
        let mut consumed = self.take_skips();
        while sent > 0 {
            match self.queue.front_mut() {
                Some(Piece::Pass(bytes)) => {
                    let done = sent.min(*bytes);
                    consumed += done;
                    sent -= done;
                    *bytes -= done;
                    if *bytes == 0 {
                        self.queue.pop_front();
                    }
                }
                Some(Piece::New(bytes)) => {
                    let done = sent.min(bytes.len());
                    sent -= done;
                    bytes.advance(done);
                    if bytes.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Some(Piece::Skip(_)) | None => break,
            }
            consumed += self.take_skips();
        }
        consumed
    }

    pub(super) fn pass(&mut self, bytes: usize) {
        match self.queue.back_mut() {
            _ if bytes == 0 => {}
            Some(Piece::Pass(before)) => *before += bytes,
            _ => self.queue.push_back(Piece::Pass(bytes)),
        }
    }

    pub(super) fn skip(&mut self, bytes: usize) {
        match self.queue.back_mut() {
            _ if bytes == 0 => {}
            Some(Piece::Skip(before)) => *before += bytes,
            _ => self.queue.push_back(Piece::Skip(bytes)),
        }
    }

    pub(super) fn send(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.queue.push_back(Piece::New(bytes.into()));
        }
    }
}

/// Bytes of one frame that are held back until it is known what becomes of them.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// How many of them are of the present input and not in the pieces yet.
    fresh: usize,
}

impl Held {
    /// Holds the next bytes of the input.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
        self.fresh += bytes.len();
    }

    /// Takes bytes of the input up to `target` held; how many were taken.
    pub(super) fn fill(&mut self, input: &[u8], target: usize) -> usize {
        let taken = input.len().min(target.saturating_sub(self.bytes.len()));
        self.hold(&input[..taken]);
        taken
    }

    /// What is held.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Lets what is held go on unchanged: without a copy where all of it is in the present input.
    pub(super) fn release(&mut self, out: &mut Pieces) {
        if self.fresh == self.bytes.len() {
            out.pass(self.fresh);
            self.bytes.clear();
        } else {
            out.skip(self.fresh);
            out.send(std::mem::take(&mut self.bytes));
        }
        self.fresh = 0;
        self.shrink();
    }

    /// Sends `instead` for what is held; `None` lets it go on unchanged.
    pub(super) fn replace(&mut self, instead: Option<Vec<u8>>, out: &mut Pieces) {
        let Some(instead) = instead else { return self.release(out) };
        out.skip(self.fresh);
        out.send(instead);
        self.bytes.clear();
        self.fresh = 0;
        self.shrink();
    }

    /// At the input's end: what is held of it is out of it from now on.
    pub(super) fn end_of_input(&mut self, out: &mut Pieces) {
        out.skip(self.fresh);
        self.fresh = 0;
    }

    /// Gives a large buffer back, so that an idle connection holds next to nothing.
    fn shrink(&mut self) {
        if self.bytes.capacity() > 4096 {
            self.bytes = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advances_over_every_kind_by_the_byte() {
        let mut pieces = Pieces::new();
        pieces.skip(2);
        pieces.pass(3);
        pieces.pass(1);
        pieces.send(b"new".to_vec());
        pieces.skip(5);
        pieces.pass(2);
        assert_eq!(pieces.iter().count(), 5, "neighbours are joined");
        let consumed: Vec<_> = (0..9).map(|_| pieces.advance(1)).collect();
        assert_eq!(consumed, [3, 1, 1, 1, 0, 0, 5, 1, 1]);
        assert!(pieces.is_empty());
    }

    #[test]
    fn passes_what_was_held_without_a_copy_where_it_can() {
        let (mut held, mut out) = (Held::default(), Pieces::new());
        assert_eq!(held.fill(b"abcdef", 4), 4);
        held.release(&mut out);
        assert_eq!(out.iter().collect::<Vec<_>>(), [&Piece::Pass(4)]);

        let mut out = Pieces::new();
        held.hold(b"ab");
        held.end_of_input(&mut out);
        assert_eq!(held.fill(b"cdef", 4), 2);
        held.release(&mut out);
        assert_eq!(out.iter().collect::<Vec<_>>(), [&Piece::Skip(4), &Piece::New(Bytes::from_static(b"abcd"))]);
    }
}
