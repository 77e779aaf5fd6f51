//! What a schedule draws from: its own numbers, and the bytes that its streams carry.

use std::sync::LazyLock;

use bytes::Bytes;

/// xorshift64*: the same numbers everywhere, for ever.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    pub(super) fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    pub(super) fn chance(&mut self, one_in: u64) -> bool {
        self.below(one_in) == 0
    }

    pub(super) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    /// An index below `len`, which is not zero.
    pub(super) fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }
}

/// Length of the pattern, a prime: bytes moved by any window or record size would not fit.
const PERIOD: usize = 65_521;

/// What stream number `serial` carries from side `from` at `start..start + len`: a pattern that begins elsewhere in each.
pub(super) fn bytes(serial: usize, from: usize, start: u64, len: usize) -> Bytes {
    static PATTERN: LazyLock<Bytes> = LazyLock::new(|| {
        let mut random = Random::new(7);
        let once: Vec<u8> = (0..PERIOD).map(|_| random.next() as u8).collect();
        once.repeat(8).into()
    });
    let begin = (serial as u64 * 7919 + from as u64 * 104_729 + start) % PERIOD as u64;
    PATTERN.slice(begin as usize..begin as usize + len)
}
