//! A chunk of a map, as a record of the compacted topic [`TOPIC`] at the target.
//!
//! Key: that of the partition's progress, and the chunk's number after another `/`. A null value forgets the chunk.
//!
//! Value: version 1 byte (1), readable from 1 byte (1), flags 1 byte (bit 0: the map is complete), ids of source and target topic
//! 16 bytes each, then unsigned LEB128 numbers: number of the map's first chunk, `since`, `next` less `since`, `target` plus one,
//! count of segments, and for each segment its distance from the end of the one before at the source, the same at the target, and its
//! length. A later version may append fields and keep "readable from"; a reader takes what it knows and ignores the rest.

use super::{MOST_SEGMENTS, Way};
use crate::replicator::decide::{TopicId, progress};

/// The topic at the target.
pub const TOPIC: &str = "__linkspan-offsets";
/// What is written, and the newest that is understood.
const VERSION: u8 = 1;
/// The least bytes of a segment.
const LEAST: usize = 3;

/// So many records that lie in the target as they do in the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment {
    /// Offset of the first at the source.
    pub source: i64,
    /// Offset of the first at the target.
    pub target: i64,
    /// How many, at least one.
    pub length: i64,
}

/// Segments of some stretch of the source, by rising offsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// It knows the source from here on.
    pub since: i64,
    /// It knows the source up to here, this offset not included.
    pub next: i64,
    /// Offset after the last record at the target that was copied before; -1 where none was.
    pub target: i64,
    /// At most [`MOST_SEGMENTS`].
    pub segments: Vec<Segment>,
}

/// Of which map a chunk is, as that map was when the chunk was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct About {
    /// Id of the source topic.
    pub source_id: TopicId,
    /// Id of the target topic.
    pub target_id: TopicId,
    /// Number of its first chunk.
    pub first: u32,
    /// Whether the target has nothing that lies before that one.
    pub complete: bool,
}

/// Which chunk of which partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Flow, source cluster, source topic and partition.
    pub of: progress::Key,
    /// Number of the chunk.
    pub number: u32,
}

/// A record of the map's topic that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChunkError {
    /// The key has another form.
    #[error("`{0}` is not the key of an offset map")]
    Key(String),
    /// It ends too early, or a number is none.
    #[error("offset map record of {length} bytes: {what}")]
    Malformed {
        /// Bytes that are there.
        length: usize,
        /// What is wrong.
        what: &'static str,
    },
    /// Written by a newer linkspan that changed the format.
    #[error(
        "offset map record of version {version} can be read from version {readable_from} on, this linkspan has {VERSION}"
    )]
    TooNew {
        /// Its version.
        version: u8,
        /// The least version that understands it.
        readable_from: u8,
    },
}

impl Key {
    /// As the record's key.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = self.of.encode();
        out.extend_from_slice(format!("/{}", self.number).as_bytes());
        out
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`ChunkError::Key`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ChunkError> {
        let bad = || ChunkError::Key(String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned());
        let slash = bytes.iter().rposition(|&byte| byte == b'/').ok_or_else(bad)?;
        let of = progress::Key::decode(&bytes[..slash]).map_err(|_| bad())?;
        let number = std::str::from_utf8(&bytes[slash + 1..]).ok().and_then(|text| text.parse().ok());
        Ok(Self { of, number: number.ok_or_else(bad)? })
    }
}

impl Chunk {
    /// The offset after its last record at the target; -1 where nothing was copied up to here.
    #[must_use]
    pub fn target_end(&self) -> i64 {
        self.segments.last().map_or(self.target, Segment::target_end)
    }

    /// What an offset is on the other side; `None` after the last segment.
    pub(super) fn look(&self, way: Way, offset: i64) -> Option<i64> {
        let after = self.segments.partition_point(|segment| segment.sides(way).1 <= offset);
        let (start, _, other) = self.segments.get(after)?.sides(way);
        Some(other + (offset - start).max(0))
    }

    /// As the record's value.
    #[must_use]
    pub fn encode(&self, about: &About) -> Vec<u8> {
        let mut out = Vec::with_capacity(48 + self.segments.len() * 4);
        out.extend_from_slice(&[VERSION, 1, u8::from(about.complete)]);
        out.extend_from_slice(&about.source_id);
        out.extend_from_slice(&about.target_id);
        put(&mut out, i64::from(about.first));
        put(&mut out, self.since);
        put(&mut out, self.next - self.since);
        put(&mut out, self.target + 1);
        put(&mut out, self.segments.len() as i64);
        let (mut source, mut target) = (self.since, self.target.max(0));
        for segment in &self.segments {
            put(&mut out, segment.source - source);
            put(&mut out, segment.target - target);
            put(&mut out, segment.length);
            (source, target) = (segment.source_end(), segment.target_end());
        }
        out
    }

    /// Reads it back; bytes after what this version knows are ignored.
    ///
    /// # Errors
    /// [`ChunkError`].
    pub fn decode(bytes: &[u8]) -> Result<(Self, About), ChunkError> {
        let fail = |what| ChunkError::Malformed { length: bytes.len(), what };
        let &[version, readable_from, flags, ref rest @ ..] = bytes else { return Err(fail("it has no version")) };
        if readable_from > VERSION || version == 0 || readable_from == 0 {
            return Err(ChunkError::TooNew { version, readable_from });
        }
        let Some((ids, rest)) = rest.split_at_checked(32) else { return Err(fail("it has no topic ids")) };
        let (mut source_id, mut target_id) = (TopicId::default(), TopicId::default());
        source_id.copy_from_slice(&ids[..16]);
        target_id.copy_from_slice(&ids[16..]);
        let mut rest = rest;
        let mut number = || take(&mut rest).ok_or_else(|| fail("a number is too long or does not end"));
        let too_far = || fail("an offset is beyond 2^63");
        let first = u32::try_from(number()?).map_err(|_| fail("the number of its first chunk is beyond 2^32"))?;
        let since = number()?;
        let next = since.checked_add(number()?).ok_or_else(too_far)?;
        let target = number()? - 1;
        let count = number()?;
        let count = usize::try_from(count).ok().filter(|&count| count <= MOST_SEGMENTS);
        let count = count.ok_or_else(|| fail("it has more segments than a chunk may have"))?;
        if rest.len() / LEAST < count {
            return Err(fail("it ends before its segments do"));
        }
        let mut segments = Vec::with_capacity(count);
        let (mut source_end, mut target_end) = (since, target.max(0));
        let mut number = || take(&mut rest).ok_or_else(|| fail("a number is too long or does not end"));
        for _ in 0..count {
            let source = source_end.checked_add(number()?).ok_or_else(too_far)?;
            let target = target_end.checked_add(number()?).ok_or_else(too_far)?;
            let length = number()?;
            if length == 0 {
                return Err(fail("a segment has no record"));
            }
            source_end = source.checked_add(length).ok_or_else(too_far)?;
            target_end = target.checked_add(length).ok_or_else(too_far)?;
            segments.push(Segment { source, target, length });
        }
        if next < source_end {
            return Err(fail("its last segment lies beyond its end"));
        }
        let about = About { source_id, target_id, first, complete: flags & 1 != 0 };
        Ok((Self { since, next, target, segments }, about))
    }
}

/// Writes a number that is not negative.
fn put(out: &mut Vec<u8>, value: i64) {
    let mut value = value.unsigned_abs();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads a number below 2^63.
fn take(rest: &mut &[u8]) -> Option<i64> {
    let mut value = 0_u64;
    for shift in (0..63).step_by(7) {
        let (&byte, left) = rest.split_first()?;
        *rest = left;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return i64::try_from(value).ok();
        }
    }
    None
}
