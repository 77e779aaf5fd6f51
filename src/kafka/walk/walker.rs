//! The resumable walker: a layout, a short stack, and a number that may be half read.

use super::super::primitives::{Malformed, Uvarint};

/// Nested arrays at most: topics, partitions, and one below.
const DEPTH: usize = 4;

/// One step of a layout.
#[derive(Debug, Clone, Copy)]
pub enum Op {
    /// This many bytes.
    Fixed(u16),
    /// A string, null or not, in the form of the version.
    Text,
    /// A string with an INT16 length in every version (a request's client id).
    ShortText,
    /// Bytes or records, null or not, in the form of the version.
    Blob,
    /// An array of such elements, null or not, in the form of the version. Elements have one byte at least.
    List(&'static [Field]),
    /// Tagged fields; nothing in versions that are not flexible.
    Tags,
    /// The place of interest.
    Stop,
}

/// A step, and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    op: Op,
    from: i16,
    to: i16,
}

impl Field {
    /// In every version.
    #[must_use]
    pub const fn all(op: Op) -> Self {
        Self { op, from: 0, to: i16::MAX }
    }

    /// From this version on.
    #[must_use]
    pub const fn since(from: i16, op: Op) -> Self {
        Self { op, from, to: i16::MAX }
    }

    /// Up to and with this version.
    #[must_use]
    pub const fn until(to: i16, op: Op) -> Self {
        Self { op, from: 0, to }
    }
}

/// What a walker did with its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed {
    /// Bytes of the input that lie before the place of interest.
    pub taken: usize,
    /// Whether the place of interest is reached; all of the input is taken otherwise.
    pub done: bool,
}

/// A number whose bytes are being read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Number {
    TextLength,
    ShortTextLength,
    BlobLength,
    Count,
    TagCount,
    Tag,
    TagSize,
}

/// One level of nesting.
#[derive(Debug, Clone, Copy)]
struct Level {
    fields: &'static [Field],
    next: usize,
    /// Elements still to walk, the present one included.
    elements: u64,
}

/// Walks a body that arrives cut anywhere, up to its layout's [`Op::Stop`], in constant memory.
///
/// ```text
/// Step ──needs a number──▶ Number ──a length──▶ Skip ──▶ Step        Stop, or the layout's end ──▶ done
/// ```
#[derive(Debug, Clone)]
pub struct Walker {
    version: i16,
    flexible: bool,
    levels: [Level; DEPTH],
    depth: usize,
    number: Option<Number>,
    varint: Uvarint,
    fixed: u32,
    fixed_bytes: u32,
    tags: u32,
    skip: u64,
    /// What is skipped is a blob.
    blob: bool,
    position: u64,
    total: u64,
    done: bool,
}

/// What becomes of the bytes that are walked over.
trait Keep {
    fn keep(&mut self, bytes: &[u8]);
}

/// Nothing.
struct Forget;

impl Keep for Forget {
    fn keep(&mut self, _: &[u8]) {}
}

impl Keep for Vec<u8> {
    fn keep(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Walker {
    /// Before the first byte of a body of `total` bytes.
    #[must_use]
    pub const fn new(layout: &'static [Field], version: i16, flexible: bool, total: u64) -> Self {
        Self {
            version,
            flexible,
            levels: [Level { fields: layout, next: 0, elements: 1 }; DEPTH],
            depth: 0,
            number: None,
            varint: Uvarint::new(),
            fixed: 0,
            fixed_bytes: 0,
            tags: 0,
            skip: 0,
            blob: false,
            position: 0,
            total,
            done: false,
        }
    }

    /// Walks on through `input`.
    ///
    /// # Errors
    /// [`Malformed`]: a length beyond the body, a number beyond its type, or a body that ends before the place of interest.
    pub fn feed(&mut self, input: &[u8]) -> Result<Fed, Malformed> {
        self.walk(input, &mut Forget)
    }

    /// As [`Walker::feed`], and appends to `kept` what is walked over, each blob as the null one.
    ///
    /// # Errors
    /// As [`Walker::feed`].
    pub fn feed_without_blobs(&mut self, input: &[u8], kept: &mut Vec<u8>) -> Result<Fed, Malformed> {
        self.walk(input, kept)
    }

    fn walk<K: Keep>(&mut self, input: &[u8], kept: &mut K) -> Result<Fed, Malformed> {
        let left = usize::try_from(self.total - self.position).unwrap_or(usize::MAX);
        let input = &input[..input.len().min(left)];
        let mut at = 0;
        while !self.done {
            if self.skip > 0 {
                let passed = self.skip.min((input.len() - at) as u64);
                self.skip -= passed;
                self.position += passed;
                let from = at;
                at += usize::try_from(passed).unwrap_or(0);
                if !self.blob {
                    kept.keep(&input[from..at]);
                }
                if self.skip > 0 {
                    break;
                }
            }
            let Some(number) = self.number else {
                self.step()?;
                continue;
            };
            let Some(&byte) = input.get(at) else { break };
            at += 1;
            self.position += 1;
            if number != Number::BlobLength {
                kept.keep(&[byte]);
            }
            if let Some(value) = self.push(number, byte)? {
                if number == Number::BlobLength {
                    kept.keep(if self.flexible { &[0] } else { &[0xff; 4] });
                }
                self.number = None;
                self.take(number, value)?;
            }
        }
        if !self.done && self.position == self.total {
            return Err(Malformed::Short { what: "body", at: self.place(), need: self.skip.max(1), left: 0 });
        }
        Ok(Fed { taken: at, done: self.done })
    }

    /// Bytes of the body behind the walker.
    #[must_use]
    pub const fn position(&self) -> u64 {
        self.position
    }

    fn place(&self) -> usize {
        usize::try_from(self.position).unwrap_or(usize::MAX)
    }

    /// Performs the next step of the layout, or leaves a finished level.
    fn step(&mut self) -> Result<(), Malformed> {
        let level = &mut self.levels[self.depth];
        let Some(field) = level.fields.get(level.next) else {
            level.elements -= 1;
            level.next = 0;
            if level.elements == 0 {
                match self.depth.checked_sub(1) {
                    Some(depth) => self.depth = depth,
                    None => self.done = true,
                }
            }
            return Ok(());
        };
        level.next += 1;
        if self.version < field.from || self.version > field.to {
            return Ok(());
        }
        match field.op {
            Op::Fixed(bytes) => self.pass(u64::from(bytes), "field")?,
            Op::Text => self.want(Number::TextLength),
            Op::ShortText => self.want(Number::ShortTextLength),
            Op::Blob => self.want(Number::BlobLength),
            Op::List(_) => self.want(Number::Count),
            Op::Tags if self.flexible => self.want(Number::TagCount),
            Op::Tags => {}
            Op::Stop => self.done = true,
        }
        Ok(())
    }

    fn want(&mut self, number: Number) {
        self.number = Some(number);
        self.varint = Uvarint::new();
        self.fixed = 0;
        self.fixed_bytes = 0;
    }

    /// Passes `bytes` bytes, which the body must have.
    fn pass(&mut self, bytes: u64, what: &'static str) -> Result<(), Malformed> {
        let left = self.total - self.position;
        if bytes > left {
            return Err(Malformed::Short { what, at: self.place(), need: bytes, left });
        }
        self.skip = bytes;
        self.blob = false;
        Ok(())
    }

    /// Takes one byte of a number; its value once whole, lengths with -1 for null.
    fn push(&mut self, number: Number, byte: u8) -> Result<Option<i64>, Malformed> {
        let (width, less) = match number {
            Number::TextLength if !self.flexible => (2, 0),
            Number::ShortTextLength => (2, 0),
            Number::BlobLength | Number::Count if !self.flexible => (4, 0),
            Number::TextLength | Number::BlobLength | Number::Count => (0, 1),
            Number::TagCount | Number::Tag | Number::TagSize => (0, 0),
        };
        if width == 0 {
            let value =
                self.varint.push(byte).map_err(|()| Malformed::Varint { what: number.what(), at: self.place() })?;
            return Ok(value.map(|value| i64::from(value) - less));
        }
        self.fixed = self.fixed << 8 | u32::from(byte);
        self.fixed_bytes += 1;
        Ok((self.fixed_bytes == width).then(|| match width {
            2 => i64::from((self.fixed as u16).cast_signed()),
            _ => i64::from(self.fixed.cast_signed()),
        }))
    }

    /// Acts on a whole number.
    fn take(&mut self, number: Number, value: i64) -> Result<(), Malformed> {
        let what = number.what();
        if value == -1 {
            return Ok(());
        }
        let value = u64::try_from(value).map_err(|_| Malformed::Length { what, at: self.place(), length: value })?;
        match number {
            Number::TextLength | Number::ShortTextLength => self.pass(value, what)?,
            Number::BlobLength => {
                self.pass(value, what)?;
                self.blob = true;
            }
            Number::Count => self.enter(value)?,
            Number::TagCount => {
                self.bounded(value.saturating_mul(2), what)?;
                self.tags = u32::try_from(value).unwrap_or(u32::MAX);
                if self.tags > 0 {
                    self.want(Number::Tag);
                }
            }
            Number::Tag => self.want(Number::TagSize),
            Number::TagSize => {
                self.pass(value, what)?;
                self.tags -= 1;
                if self.tags > 0 {
                    self.want(Number::Tag);
                }
            }
        }
        Ok(())
    }

    /// Goes into an array of `count` elements.
    fn enter(&mut self, count: u64) -> Result<(), Malformed> {
        self.bounded(count, "array")?;
        let level = &self.levels[self.depth];
        // The step that asked for this count was the one before `next`.
        if let (Some(Field { op: Op::List(fields), .. }), 1..) = (level.fields.get(level.next - 1), count) {
            self.depth += 1;
            self.levels[self.depth] = Level { fields, next: 0, elements: count };
        }
        Ok(())
    }

    fn bounded(&self, need: u64, what: &'static str) -> Result<(), Malformed> {
        let left = self.total - self.position;
        if need > left {
            return Err(Malformed::Short { what, at: self.place(), need, left });
        }
        Ok(())
    }
}

impl Number {
    const fn what(self) -> &'static str {
        match self {
            Self::TextLength | Self::ShortTextLength => "string",
            Self::BlobLength => "records",
            Self::Count => "array",
            Self::TagCount => "tagged fields",
            Self::Tag => "tag",
            Self::TagSize => "tagged field",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: &[Field] = &[
        Field::all(Op::Tags),
        Field::since(1, Op::Fixed(4)),
        Field::all(Op::List(&[
            Field::all(Op::Text),
            Field::all(Op::List(&[Field::all(Op::Blob)])),
            Field::all(Op::Tags),
        ])),
        Field::all(Op::Stop),
    ];

    /// Two elements, nested arrays, nulls, tagged fields, then two bytes behind the place of interest.
    const FLEXIBLE: &[u8] = b"\x01\x07\x02ab....\x03\x03ab\x03\x00\x04xyz\x00\x00\x00\x02\x01\x01!\x03\x00!!";
    const PLAIN: &[u8] = b"....\0\0\0\x02\0\x02ab\0\0\0\x02\xff\xff\xff\xff\0\0\0\x03xyz\xff\xff\xff\xff\xff\xff!!";

    fn walk(body: &[u8], flexible: bool, step: usize) -> Result<u64, Malformed> {
        let mut walker = Walker::new(LAYOUT, 1, flexible, body.len() as u64);
        for chunk in body.chunks(step) {
            if walker.feed(chunk)?.done {
                break;
            }
        }
        Ok(walker.position())
    }

    #[test]
    fn finds_the_place_whatever_the_cut() {
        for (body, flexible, behind) in [(FLEXIBLE, true, 2), (PLAIN, false, 2)] {
            for step in 1..=body.len() {
                assert_eq!(walk(body, flexible, step), Ok((body.len() - behind) as u64), "step {step}");
            }
        }
    }

    #[test]
    fn keeps_all_but_blobs_whatever_the_cut() {
        let flexible = b"\x01\x07\x02ab....\x03\x03ab\x03\x00\x00\x00\x00\x00\x02\x01\x01!\x03\x00";
        let plain = b"....\0\0\0\x02\0\x02ab\0\0\0\x02\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff";
        for (body, is_flexible, expected) in [(FLEXIBLE, true, &flexible[..]), (PLAIN, false, plain)] {
            for step in 1..=body.len() {
                let mut walker = Walker::new(LAYOUT, 1, is_flexible, body.len() as u64);
                let mut kept = Vec::new();
                for chunk in body.chunks(step) {
                    if walker.feed_without_blobs(chunk, &mut kept).expect("well-formed").done {
                        break;
                    }
                }
                assert_eq!(kept, expected, "step {step}");
            }
        }
    }

    #[test]
    fn refuses_a_body_cut_short_at_every_byte() {
        for (body, flexible) in [(FLEXIBLE, true), (PLAIN, false)] {
            for length in 1..body.len() - 2 {
                assert!(walk(&body[..length], flexible, 3).is_err(), "{length}");
            }
        }
    }

    #[test]
    fn refuses_counts_and_lengths_beyond_the_body() {
        for count in [i32::MIN, -2, 100, i32::MAX] {
            let mut body = b"....".to_vec();
            body.extend(count.to_be_bytes());
            body.extend([0; 8]);
            assert!(walk(&body, false, 64).is_err(), "{count}");
        }
        assert!(walk(b"\0....\xff\xff\xff\xff\x0f...", true, 64).is_err(), "2^32-1 elements");
        assert!(walk(b"\0....\xff\xff\xff\xff\xff\x01...", true, 64).is_err(), "a varint of six bytes");
        assert!(walk(b"\xff\xff\xff\xff\x0f....", true, 64).is_err(), "2^32-1 tagged fields");
        assert!(walk(b"\x01\0\x7f....", true, 64).is_err(), "a tagged field beyond the end");
    }
}
