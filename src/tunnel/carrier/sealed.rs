//! Sealed bytes on their way to a socket, in memory that is cleared once and used again and again.

/// What was sealed and is not sent yet. A record is sealed straight into [`Self::room`]: a `Vec` would clear that first.
#[derive(Clone, Default)]
pub struct Sealed {
    /// Behind `filled` lies what was there before.
    memory: Vec<u8>,
    filled: usize,
}

impl Sealed {
    /// Exactly `len` bytes to write to; their content means nothing. [`Self::advance`] makes them part of what is sent.
    pub fn room(&mut self, len: usize) -> &mut [u8] {
        let end = self.filled + len;
        if self.memory.len() < end {
            self.memory.resize(end, 0);
        }
        &mut self.memory[self.filled..end]
    }

    /// The first `len` bytes of the last [`Self::room`] are to be sent.
    pub fn advance(&mut self, len: usize) {
        self.filled = (self.filled + len).min(self.memory.len());
    }

    /// Appends a copy.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.room(bytes.len()).copy_from_slice(bytes);
        self.advance(bytes.len());
    }

    /// Empties it; the memory stays.
    pub const fn clear(&mut self) {
        self.filled = 0;
    }
}

impl std::ops::Deref for Sealed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.memory[..self.filled]
    }
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sealed({} bytes)", self.filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_was_advanced_over_and_nothing_of_before() {
        let mut sealed = Sealed::default();
        sealed.extend_from_slice(b"before");
        sealed.clear();
        assert!(sealed.is_empty());
        sealed.room(4).copy_from_slice(b"okay");
        sealed.advance(2);
        sealed.extend_from_slice(b"!");
        assert_eq!((&sealed[..], sealed.len()), (&b"ok!"[..], 3));
    }
}
