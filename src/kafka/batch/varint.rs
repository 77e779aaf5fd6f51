//! Zigzag varints, and a cursor that stays within its bytes.

use std::ops::Range;

/// A byte string ends beyond the bytes, or a number is longer than its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Reads forward over borrowed bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `n` bytes.
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let range = self.range(n)?;
        Ok(&self.bytes[range])
    }

    /// Where the next `n` bytes are.
    pub(super) fn range(&mut self, n: usize) -> Result<Range<usize>, Malformed> {
        if n > self.left() {
            return Err(Malformed("it ends beyond the bytes that are there"));
        }
        let start = self.at;
        self.at += n;
        Ok(start..self.at)
    }

    /// A zigzag varint of up to 64 bits.
    pub(super) fn int(&mut self) -> Result<i64, Malformed> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let Some(&byte) = self.bytes.get(self.at) else { return Err(Malformed("a varint does not end")) };
            self.at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
            }
        }
        Err(Malformed("a varint is longer than 64 bits"))
    }

    /// A byte string with its length before it; `None` for null (any negative length but only -1 is written by anybody).
    pub(super) fn bytes(&mut self) -> Result<Option<Range<usize>>, Malformed> {
        let length = self.int()?;
        if length < 0 {
            return Ok(None);
        }
        let length = usize::try_from(length).map_err(|_| Malformed("a length is beyond memory"))?;
        self.range(length).map(Some)
    }
}

/// Appends a zigzag varint.
pub(super) fn put(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Number of bytes that [`put`] appends.
pub(super) const fn size(value: i64) -> usize {
    let rest = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (rest | 1).leading_zeros() as usize).div_ceil(7)
}

/// Appends a byte string with its length before it, -1 for null.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => put(out, -1),
        Some(bytes) => {
            put(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_number_comes_back_in_as_many_bytes_as_told(value: i64) {
            let mut out = Vec::new();
            put(&mut out, value);
            prop_assert_eq!(out.len(), size(value));
            prop_assert_eq!(Cursor::new(&out).int(), Ok(value));
        }
    }

    #[test]
    fn bytes_are_those_of_kafka() {
        for (value, bytes) in [(0, &[0][..]), (-1, &[1]), (1, &[2]), (63, &[0x7e]), (64, &[0x80, 1]), (-65, &[0x81, 1])]
        {
            let mut out = Vec::new();
            put(&mut out, value);
            assert_eq!(out, bytes);
        }
        assert_eq!(Cursor::new(&[0xff; 11]).int(), Err(Malformed("a varint is longer than 64 bits")));
        assert_eq!(Cursor::new(&[0xff; 3]).int(), Err(Malformed("a varint does not end")));
        assert_eq!(Cursor::new(&[0x06, 1, 2]).bytes(), Err(Malformed("it ends beyond the bytes that are there")));
    }
}
