//! Kafka's primitive types over a byte slice: a cursor that checks every bound, and the few encoders that rewriting needs.

/// Why bytes could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Malformed {
    /// A field needs more bytes than there are.
    #[error("{what} needs {need} bytes at byte {at}, {left} left")]
    Short {
        /// The field.
        what: &'static str,
        /// Where it begins, from the start of what is read.
        at: usize,
        /// Bytes it needs.
        need: u64,
        /// Bytes there are.
        left: u64,
    },
    /// A variable-length number longer than five (ten) bytes or beyond its type.
    #[error("{what} at byte {at} is a variable-length number beyond its type")]
    Varint {
        /// The field.
        what: &'static str,
        /// Where it ends.
        at: usize,
    },
    /// A length below -1, or -1 where null is not possible.
    #[error("{what} at byte {at} has the length {length}")]
    Length {
        /// The field.
        what: &'static str,
        /// Where it begins.
        at: usize,
        /// The length read.
        length: i64,
    },
}

/// Reads primitives off a slice, front to back. A failed read leaves the position undefined.
#[derive(Debug, Clone)]
pub struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    /// At the first byte of `bytes`.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Bytes read so far.
    #[must_use]
    pub const fn position(&self) -> usize {
        self.at
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The bytes from `start` to the position.
    #[must_use]
    pub fn since(&self, start: usize) -> &'a [u8] {
        &self.bytes[start.min(self.at)..self.at]
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], Malformed> {
        let left = self.bytes.len() - self.at;
        if count > left {
            return Err(Malformed::Short { what, at: self.at, need: count as u64, left: left as u64 });
        }
        let taken = &self.bytes[self.at..self.at + count];
        self.at += count;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Malformed> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }

    /// INT8.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn i8(&mut self, what: &'static str) -> Result<i8, Malformed> {
        self.array(what).map(i8::from_be_bytes)
    }

    /// INT16, big-endian.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn i16(&mut self, what: &'static str) -> Result<i16, Malformed> {
        self.array(what).map(i16::from_be_bytes)
    }

    /// INT32, big-endian.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn i32(&mut self, what: &'static str) -> Result<i32, Malformed> {
        self.array(what).map(i32::from_be_bytes)
    }

    /// INT64, big-endian.
    ///
    /// # Errors
    /// [`Malformed::Short`].
    pub fn i64(&mut self, what: &'static str) -> Result<i64, Malformed> {
        self.array(what).map(i64::from_be_bytes)
    }

    /// UNSIGNED_VARINT of at most five bytes; padding with zero groups is read as Kafka's own readers do.
    ///
    /// # Errors
    /// [`Malformed::Short`], [`Malformed::Varint`].
    pub fn uvarint(&mut self, what: &'static str) -> Result<u32, Malformed> {
        let mut number = Uvarint::new();
        loop {
            let [byte] = self.array(what)?;
            if let Some(value) = number.push(byte).map_err(|()| Malformed::Varint { what, at: self.at })? {
                return Ok(value);
            }
        }
    }

    /// VARINT: zig-zag over [`Cursor::uvarint`].
    ///
    /// # Errors
    /// As [`Cursor::uvarint`].
    pub fn varint(&mut self, what: &'static str) -> Result<i32, Malformed> {
        let raw = self.uvarint(what)?;
        Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()))
    }

    /// VARLONG: zig-zag over at most ten bytes.
    ///
    /// # Errors
    /// [`Malformed::Short`], [`Malformed::Varint`].
    pub fn varlong(&mut self, what: &'static str) -> Result<i64, Malformed> {
        let mut raw = 0_u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array(what)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 {
                break;
            }
            raw |= bits << shift;
            if byte < 0x80 {
                return Ok((raw >> 1).cast_signed() ^ -((raw & 1).cast_signed()));
            }
        }
        Err(Malformed::Varint { what, at: self.at })
    }

    /// A length, as `flexible` tells: UNSIGNED_VARINT less one, or INT32 (INT16 where `short`). `None` is null.
    fn length(&mut self, flexible: bool, short: bool, what: &'static str) -> Result<Option<usize>, Malformed> {
        let at = self.at;
        let length = if flexible {
            i64::from(self.uvarint(what)?) - 1
        } else if short {
            i64::from(self.i16(what)?)
        } else {
            i64::from(self.i32(what)?)
        };
        match length {
            -1 => Ok(None),
            _ => usize::try_from(length).map(Some).map_err(|_| Malformed::Length { what, at, length }),
        }
    }

    /// NULLABLE_STRING or COMPACT_NULLABLE_STRING, as bytes: brokers are not trusted to send UTF-8.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn text(&mut self, flexible: bool, what: &'static str) -> Result<Option<&'a [u8]>, Malformed> {
        match self.length(flexible, true, what)? {
            None => Ok(None),
            Some(length) => self.take(length, what).map(Some),
        }
    }

    /// STRING or COMPACT_STRING; null is an error.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn some_text(&mut self, flexible: bool, what: &'static str) -> Result<&'a [u8], Malformed> {
        let at = self.at;
        self.text(flexible, what)?.ok_or(Malformed::Length { what, at, length: -1 })
    }

    /// NULLABLE_BYTES or COMPACT_NULLABLE_BYTES (records too).
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn blob(&mut self, flexible: bool, what: &'static str) -> Result<Option<&'a [u8]>, Malformed> {
        match self.length(flexible, false, what)? {
            None => Ok(None),
            Some(length) => self.take(length, what).map(Some),
        }
    }

    /// The count of an ARRAY or COMPACT_ARRAY, never more than the bytes left since each element has one at least; `None` is null.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn count(&mut self, flexible: bool, what: &'static str) -> Result<Option<usize>, Malformed> {
        let at = self.at;
        let count = self.length(flexible, false, what)?;
        let left = self.bytes.len() - self.at;
        match count {
            Some(count) if count > left => Err(Malformed::Short { what, at, need: count as u64, left: left as u64 }),
            _ => Ok(count),
        }
    }

    /// One tagged field: its tag and its bytes.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn tagged(&mut self) -> Result<(u32, &'a [u8]), Malformed> {
        let tag = self.uvarint("tag")?;
        let size = self.uvarint("size of a tagged field")?;
        let payload = self.take(usize::try_from(size).unwrap_or(usize::MAX), "tagged field")?;
        Ok((tag, payload))
    }

    /// The number of tagged fields that follow; each has two bytes at least.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn tag_count(&mut self) -> Result<u32, Malformed> {
        let at = self.at;
        let count = self.uvarint("count of tagged fields")?;
        let left = (self.bytes.len() - self.at) as u64;
        if u64::from(count) * 2 > left {
            return Err(Malformed::Short { what: "tagged fields", at, need: u64::from(count) * 2, left });
        }
        Ok(count)
    }

    /// Passes a section of tagged fields where `flexible`; reads nothing otherwise.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn skip_tags(&mut self, flexible: bool) -> Result<(), Malformed> {
        if flexible {
            for _ in 0..self.tag_count()? {
                self.tagged()?;
            }
        }
        Ok(())
    }
}

/// An UNSIGNED_VARINT read byte by byte, for readers whose input is cut anywhere.
#[derive(Debug, Clone, Copy)]
pub struct Uvarint {
    value: u32,
    bytes: u32,
}

impl Uvarint {
    /// Before the first byte.
    pub(crate) const fn new() -> Self {
        Self { value: 0, bytes: 0 }
    }

    /// Takes the next byte; the value once it is whole. An error past five bytes or 32 bits.
    pub(crate) fn push(&mut self, byte: u8) -> Result<Option<u32>, ()> {
        if self.bytes == 4 && byte > 0x0f {
            return Err(());
        }
        self.value |= u32::from(byte & 0x7f) << (7 * self.bytes);
        self.bytes += 1;
        Ok((byte < 0x80).then_some(self.value))
    }
}

/// Bytes that [`put_uvarint`] writes for `value`: 1 to 5.
#[must_use]
pub const fn uvarint_len(value: u32) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        0x20_0000..=0xfff_ffff => 4,
        _ => 5,
    }
}

/// Appends an UNSIGNED_VARINT.
pub fn put_uvarint(out: &mut Vec<u8>, value: u32) {
    put_padded_uvarint(out, value, uvarint_len(value));
}

/// Appends an UNSIGNED_VARINT of exactly `width` bytes, padded with zero groups; `width` is at least [`uvarint_len`] and at most 5.
pub fn put_padded_uvarint(out: &mut Vec<u8>, mut value: u32, width: usize) {
    for _ in 1..width {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Appends a STRING (INT16 length) or COMPACT_STRING. `text` is at most 32767 bytes: host names are 255.
pub fn put_text(out: &mut Vec<u8>, flexible: bool, text: &[u8]) {
    let text = &text[..text.len().min(i16::MAX as usize)];
    if flexible {
        put_uvarint(out, text.len() as u32 + 1);
    } else {
        out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    }
    out.extend_from_slice(text);
}

/// Appends the count of an ARRAY or COMPACT_ARRAY of at most `i32::MAX` elements; `None` is null.
pub fn put_count(out: &mut Vec<u8>, flexible: bool, count: Option<usize>) {
    let count = count.map(|count| u32::try_from(count).unwrap_or(u32::MAX).min(i32::MAX as u32));
    if flexible {
        put_uvarint(out, count.map_or(0, |count| count + 1));
    } else {
        out.extend_from_slice(&count.map_or(-1, u32::cast_signed).to_be_bytes());
    }
}

/// Reads arbitrary bytes as each primitive; for fuzzing. Panics never.
pub fn fuzz_primitives(data: &[u8]) {
    for flexible in [false, true] {
        let mut cursor = Cursor::new(data);
        while cursor.i8("a").is_ok()
            && cursor.uvarint("b").is_ok()
            && cursor.varlong("c").is_ok()
            && cursor.text(flexible, "d").is_ok()
            && cursor.count(flexible, "e").is_ok()
            && cursor.blob(flexible, "f").is_ok()
            && cursor.skip_tags(flexible).is_ok()
        {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_of_variable_length() {
        for (bytes, value) in [
            (&[0][..], 0),
            (&[0x7f], 127),
            (&[0x80, 1], 128),
            (&[0xff, 0xff, 0xff, 0xff, 0x0f], u32::MAX),
            (&[0x81, 0x80, 0x80, 0x80, 0x00], 1),
            (&[0x80, 0x00], 0),
        ] {
            let mut cursor = Cursor::new(bytes);
            assert_eq!(cursor.uvarint("n"), Ok(value));
            assert!(cursor.rest().is_empty());
        }
        for bytes in [&[0xff, 0xff, 0xff, 0xff, 0x10][..], &[0x80, 0x80, 0x80, 0x80, 0x80, 0x00], &[0x80; 5]] {
            assert!(matches!(Cursor::new(bytes).uvarint("n"), Err(Malformed::Varint { .. })), "{bytes:x?}");
        }
        assert!(matches!(Cursor::new(&[0x80]).uvarint("n"), Err(Malformed::Short { .. })));
        assert_eq!(Cursor::new(&[3]).varint("n"), Ok(-2));
        assert_eq!(Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint("n"), Ok(i32::MIN));
        let least = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
        assert_eq!(Cursor::new(&least).varlong("n"), Ok(i64::MIN));
        assert!(Cursor::new(&[0xff; 11]).varlong("n").is_err());
    }

    #[test]
    fn writes_what_it_reads() {
        for value in [0, 1, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152, 268_435_455, 268_435_456, u32::MAX] {
            let mut out = Vec::new();
            put_uvarint(&mut out, value);
            assert_eq!(out.len(), uvarint_len(value));
            assert_eq!(Cursor::new(&out).uvarint("n"), Ok(value));
            for width in uvarint_len(value)..=5 {
                let mut out = Vec::new();
                put_padded_uvarint(&mut out, value, width);
                assert_eq!((out.len(), Cursor::new(&out).uvarint("n")), (width, Ok(value)));
            }
        }
        for flexible in [false, true] {
            let mut out = Vec::new();
            put_text(&mut out, flexible, b"b0.orange.test");
            put_count(&mut out, flexible, Some(0));
            put_count(&mut out, flexible, None);
            let mut cursor = Cursor::new(&out);
            assert_eq!(cursor.some_text(flexible, "t"), Ok(&b"b0.orange.test"[..]));
            assert_eq!(cursor.count(flexible, "c"), Ok(Some(0)));
            assert_eq!(cursor.count(flexible, "c"), Ok(None));
        }
    }

    #[test]
    fn refuses_lengths_that_cannot_be() {
        for count in [i32::MIN, -2, 3, i32::MAX] {
            let mut bytes = count.to_be_bytes().to_vec();
            bytes.extend([0; 2]);
            assert!(Cursor::new(&bytes).count(false, "n").is_err(), "{count}");
        }
        assert_eq!(Cursor::new(&(-1_i32).to_be_bytes()).count(false, "n"), Ok(None));
        assert!(Cursor::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0]).count(true, "n").is_err(), "2^32-1");
        assert_eq!(
            Cursor::new(&[0xff, 0xfe]).text(false, "client id"),
            Err(Malformed::Length { what: "client id", at: 0, length: -2 })
        );
        assert!(Cursor::new(&[0, 5, 1]).text(false, "t").is_err());
        assert!(Cursor::new(&[0]).some_text(true, "t").is_err(), "compact length 0 is null");
        assert!(Cursor::new(&[9, 0, 0]).skip_tags(true).is_err(), "more tags than bytes");
        assert!(Cursor::new(&[1, 0, 9]).skip_tags(true).is_err(), "a tag beyond the end");
        assert!(Cursor::new(&[2, 0, 0, 0, 0]).skip_tags(true).is_ok(), "tags twice are passed");
    }
}
