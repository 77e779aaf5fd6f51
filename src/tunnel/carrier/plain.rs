//! Opened plaintext, in the pool's buffers: payloads stay where they were opened until their stream lets go of them.

use bytes::Bytes;

use crate::net::pool::{Buffer, SIZE};

/// Plaintext in the order it was opened. A record lies in one piece where `Plain::room` made room for it.
#[derive(Debug, Default)]
pub struct Plain {
    done: Vec<Bytes>,
    open: Option<Buffer>,
}

impl Plain {
    /// Exactly `len` bytes, at most [`SIZE`], to write to; their content means nothing. [`Self::advance`] makes them plaintext.
    pub(super) fn room(&mut self, len: usize) -> &mut [u8] {
        if self.open.as_ref().is_some_and(|buffer| SIZE - buffer.filled() < len) {
            self.seal();
        }
        &mut self.open.get_or_insert_with(Buffer::take).spare()[..len]
    }

    /// The first `len` bytes of the last [`Self::room`] are plaintext.
    pub(super) fn advance(&mut self, len: usize) {
        if let Some(buffer) = &mut self.open {
            buffer.advance(len);
        }
    }

    /// Appends a copy.
    pub fn extend_from_slice(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let len = bytes.len().min(SIZE);
            let (now, later) = bytes.split_at(len);
            self.room(len).copy_from_slice(now);
            self.advance(len);
            bytes = later;
        }
    }

    /// Takes all of it.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.seal();
        std::mem::take(&mut self.done)
    }

    /// A copy of all of it, for what is short.
    pub(super) fn concat(&self) -> Vec<u8> {
        let mut all = self.done.concat();
        all.extend_from_slice(self.open.as_ref().map_or(&[], Buffer::as_slice));
        all
    }

    fn seal(&mut self) {
        if let Some(buffer) = self.open.take()
            && buffer.filled() > 0
        {
            self.done.push(freeze(buffer));
        }
    }
}

/// Little in much memory is copied: streams count the bytes they hold, not the memory behind them.
fn freeze(buffer: Buffer) -> Bytes {
    if buffer.filled() < SIZE / 2 { Bytes::copy_from_slice(buffer.as_slice()) } else { buffer.freeze() }
}
