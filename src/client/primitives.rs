//! Kafka's primitive types, read with every length checked against what is there, and written.

use bytes::{BufMut as _, BytesMut};

/// Why bytes are no answer: where, and what was wrong there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at} of {of}")]
pub(super) struct Malformed {
    /// What was wrong.
    pub(super) what: &'static str,
    /// Offset in the body.
    pub(super) at: usize,
    /// Length of the body.
    pub(super) of: usize,
}

/// Most tagged fields in one structure. Kafka has at most three anywhere.
const MAX_TAGS: u32 = 16;

/// Reads a body from its start; never beyond its end, never more than is there.
#[derive(Debug, Clone)]
pub(super) struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) const fn new(body: &'a [u8]) -> Self {
        Self { body, at: 0 }
    }

    pub(super) const fn at(&self) -> usize {
        self.at
    }

    pub(super) const fn remaining(&self) -> usize {
        self.body.len() - self.at
    }

    pub(super) const fn malformed(&self, what: &'static str) -> Malformed {
        Malformed { what, at: self.at, of: self.body.len() }
    }

    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(n).filter(|&end| end <= self.body.len());
        let end = end.ok_or_else(|| self.malformed("a field longer than the frame"))?;
        let taken = &self.body[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        Ok(self.take(N)?.try_into().expect("N bytes were taken"))
    }

    pub(super) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    pub(super) fn uuid(&mut self) -> Result<[u8; 16], Malformed> {
        self.array()
    }

    /// An unsigned varint of at most 32 bits in at most five bytes.
    pub(super) fn uvarint(&mut self) -> Result<u32, Malformed> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            let bits = u32::from(byte & 0x7f);
            if shift == 28 && bits > 0x0f {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.malformed("a varint over 32 bits"))
    }

    /// The length of a string (`None` for null), in its flexible or its old form.
    fn text_len(&mut self, flexible: bool) -> Result<Option<usize>, Malformed> {
        if flexible {
            return Ok(self.uvarint()?.checked_sub(1).map(|n| n as usize));
        }
        match self.i16()? {
            -1 => Ok(None),
            n => usize::try_from(n).map(Some).map_err(|_| self.malformed("a negative string length")),
        }
    }

    pub(super) fn skip_text(&mut self, flexible: bool) -> Result<(), Malformed> {
        if let Some(n) = self.text_len(flexible)? {
            self.take(n)?;
        }
        Ok(())
    }

    /// A nullable string. Bytes that are no UTF-8 are replaced: it is only shown or compared.
    pub(super) fn text(&mut self, flexible: bool) -> Result<Option<String>, Malformed> {
        match self.text_len(flexible)? {
            None => Ok(None),
            Some(n) => Ok(Some(String::from_utf8_lossy(self.take(n)?).into_owned())),
        }
    }

    /// The length of a byte string or of an array (`None` for null), as claimed.
    fn long_len(&mut self, flexible: bool) -> Result<Option<usize>, Malformed> {
        if flexible {
            return Ok(self.uvarint()?.checked_sub(1).map(|n| n as usize));
        }
        match self.i32()? {
            -1 => Ok(None),
            n => usize::try_from(n).map(Some).map_err(|_| self.malformed("a negative length")),
        }
    }

    /// A nullable byte string.
    pub(super) fn blob(&mut self, flexible: bool) -> Result<Option<&'a [u8]>, Malformed> {
        match self.long_len(flexible)? {
            None => Ok(None),
            Some(n) => self.take(n).map(Some),
        }
    }

    /// An array's count (zero for null), refused unless `least` bytes for each item are there.
    pub(super) fn count(&mut self, flexible: bool, least: usize) -> Result<usize, Malformed> {
        let count = self.long_len(flexible)?.unwrap_or(0);
        if count.checked_mul(least.max(1)).is_none_or(|bytes| bytes > self.remaining()) {
            return Err(self.malformed("an array with more items than the frame can hold"));
        }
        Ok(count)
    }

    /// Tagged fields: `known` is shown each with its bytes, and says whether it knows the tag; those bytes must be used up then.
    pub(super) fn tags(
        &mut self,
        mut known: impl FnMut(u32, &mut Self) -> Result<bool, Malformed>,
    ) -> Result<(), Malformed> {
        let count = self.uvarint()?;
        if count > MAX_TAGS {
            return Err(self.malformed("over 16 tagged fields"));
        }
        for _ in 0..count {
            let tag = self.uvarint()?;
            let size = self.uvarint()? as usize;
            let start = self.at;
            self.take(size)?;
            let mut inside = Self { body: &self.body[..self.at], at: start };
            if known(tag, &mut inside)? && inside.remaining() > 0 {
                return Err(inside.malformed("a tagged field longer than its content"));
            }
        }
        Ok(())
    }

    pub(super) fn skip_tags(&mut self) -> Result<(), Malformed> {
        self.tags(|_, _| Ok(false))
    }

    /// Nothing may be left.
    pub(super) fn end(&self) -> Result<(), Malformed> {
        if self.remaining() == 0 { Ok(()) } else { Err(self.malformed("bytes after the end of the answer")) }
    }
}

pub(super) fn put_uvarint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8(value as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// A compact length or count.
pub(super) fn put_compact_len(out: &mut BytesMut, n: usize) {
    put_uvarint(out, u32::try_from(n + 1).expect("what is sent is bounded far below 4 GiB"));
}

pub(super) fn put_compact_text(out: &mut BytesMut, text: &str) {
    put_compact_len(out, text.len());
    out.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_end_at_32_bits() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX] {
            let mut out = BytesMut::new();
            put_uvarint(&mut out, value);
            assert_eq!(Reader::new(&out).uvarint(), Ok(value));
        }
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x1f]).uvarint().is_err());
        assert!(Reader::new(&[0x80, 0x80, 0x80, 0x80, 0x80, 0x00]).uvarint().is_err());
        assert!(Reader::new(&[0x80]).uvarint().is_err());
    }

    #[test]
    fn counts_are_refused_beyond_what_is_there() {
        assert_eq!(Reader::new(&[0, 0, 0, 2, 9, 9]).count(false, 1), Ok(2));
        assert!(Reader::new(&[0, 0, 0, 2, 9, 9]).count(false, 2).is_err());
        assert!(Reader::new(&[0x7f, 0xff, 0xff, 0xff, 9]).count(false, 1).is_err());
        assert!(Reader::new(&[0x80, 0, 0, 0]).count(false, 1).is_err());
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff]).count(false, 8), Ok(0));
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).count(true, 1).is_err());
    }

    #[test]
    fn tagged_fields_end_where_they_say() {
        // One tag 0 of two bytes: used up, used too little, not known.
        let body = [1, 0, 2, 7, 7];
        let mut reader = Reader::new(&body);
        assert_eq!(reader.tags(|_, inside| inside.i16().map(|_| true)), Ok(()));
        assert_eq!(reader.end(), Ok(()));
        assert!(Reader::new(&body).tags(|_, inside| inside.take(1).map(|_| true)).is_err());
        assert!(Reader::new(&body).tags(|_, inside| inside.i32().map(|_| true)).is_err());
        assert_eq!(Reader::new(&body).skip_tags(), Ok(()));
        assert!(Reader::new(&[17]).skip_tags().is_err());
    }
}
