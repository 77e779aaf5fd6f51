//! Large buffers that go round: memory that bulk data passed through is kept for the bulk data that follows.
//!
//! Given back to the allocator, buffers of this size are mostly given back to the kernel too, and each new one then costs a
//! page fault and a cleared page for every 4 KiB: more than the copying of the data. The last one given back is the next one
//! taken, for it may still lie in the processor's cache.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;

/// Size of each, in bytes.
pub const SIZE: usize = 64 * 1024;
/// Most buffers kept while nobody uses them: 8 MiB in the whole process.
const KEPT: usize = 128;

static IDLE: Mutex<Vec<Box<[u8]>>> = Mutex::new(Vec::new());

/// One buffer of [`SIZE`] bytes, whose content is whatever was there before. It goes back when dropped.
pub struct Buffer {
    /// Empty only while being dropped.
    memory: Box<[u8]>,
    filled: usize,
}

impl Buffer {
    /// An idle buffer, or a new one.
    #[must_use]
    pub fn take() -> Self {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self { memory: idle.unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()), filled: 0 }
    }

    /// Number of bytes filled.
    #[must_use]
    pub const fn filled(&self) -> usize {
        self.filled
    }

    /// What is filled.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.memory[..self.filled]
    }

    /// What is not filled; its content means nothing.
    pub fn spare(&mut self) -> &mut [u8] {
        &mut self.memory[self.filled..]
    }

    /// The first `len` bytes of [`Self::spare`] were written.
    pub fn advance(&mut self, len: usize) {
        self.filled = (self.filled + len).min(SIZE);
    }

    /// What is filled, shared; the buffer goes back when the last share of it is dropped.
    #[must_use]
    pub fn freeze(self) -> Bytes {
        if self.filled == 0 { Bytes::new() } else { Bytes::from_owner(self) }
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < KEPT {
            idle.push(memory);
        } else {
            // Freed without the lock.
            drop(idle);
        }
    }
}

impl std::fmt::Debug for Buffer {
    /// Never the bytes: they are the applications'.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} of {SIZE} bytes)", self.filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_give_exactly_what_was_filled_and_the_pool_is_bounded() {
        let mut buffer = Buffer::take();
        assert_eq!((buffer.filled(), buffer.spare().len()), (0, SIZE));
        buffer.spare()[..5].copy_from_slice(b"hello");
        buffer.advance(2);
        buffer.advance(3);
        assert_eq!(buffer.spare().len(), SIZE - 5);
        let bytes = buffer.freeze();
        assert_eq!((&bytes[..], &bytes.slice(1..3)[..]), (&b"hello"[..], &b"el"[..]));
        drop((0..3 * KEPT).map(|_| Buffer::take()).collect::<Vec<_>>());
        assert!(IDLE.lock().unwrap_or_else(PoisonError::into_inner).len() <= KEPT);
        assert!(Buffer::take().freeze().is_empty());
    }
}
