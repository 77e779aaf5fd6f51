//! What a flow has copied of a partition, as a record of the compacted topic [`TOPIC`] at the target.
//!
//! Key: `flow/source cluster/source topic/partition`, UTF-8; none of the four has a `/`. A null value forgets it.
//!
//! Value, big endian: version 1 byte (1), readable from 1 byte (1), then the fields of [`Progress`] in their order. A later version
//! may append fields and keep "readable from"; a reader takes what it knows and ignores the rest. One that changes fields raises
//! "readable from", and an older reader refuses by name instead of reading nonsense.

use bytes::{Buf as _, BufMut as _};

use super::TopicId;

/// The topic at the target.
pub const TOPIC: &str = "__linkspan-progress";
/// What is written, and the newest that is understood.
const VERSION: u8 = 1;
/// Bytes of version 1.
const LEN: usize = 2 + 16 + 16 + 8 + 4 + 8 + 8 + 2 + 4 + 8;

/// Of which partition.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Name of the flow.
    pub flow: String,
    /// Name of the source cluster.
    pub cluster: String,
    /// Source topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
}

/// What was copied: everything before `next_offset` is acknowledged by the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Id of the source topic that the offsets are of; zeros where unknown.
    pub source_topic_id: TopicId,
    /// Id of the target topic that was written to; zeros where unknown.
    pub target_topic_id: TopicId,
    /// Next offset to read at the source.
    pub next_offset: i64,
    /// Leader epoch of the batch before it, -1 where unknown.
    pub leader_epoch: i32,
    /// Offset after the last copied record at the target, -1 where none was copied.
    pub target_offset: i64,
    /// Producer id that wrote, -1 for none.
    pub producer_id: i64,
    /// Its epoch.
    pub producer_epoch: i16,
    /// Sequence of the record that comes next: its ordinal among those that this producer id wrote to the partition, mod 2^31.
    pub next_sequence: i32,
    /// When this was written, in ms since 1970.
    pub written_at: i64,
}

impl Default for Progress {
    /// Nothing copied, nothing known.
    fn default() -> Self {
        Self {
            source_topic_id: TopicId::default(),
            target_topic_id: TopicId::default(),
            next_offset: 0,
            leader_epoch: -1,
            target_offset: -1,
            producer_id: -1,
            producer_epoch: -1,
            next_sequence: 0,
            written_at: 0,
        }
    }
}

/// A record of the progress topic that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProgressError {
    /// The key has another form.
    #[error("`{0}` is not the key of a progress record")]
    Key(String),
    /// Shorter than its version.
    #[error("progress record of {length} bytes, version {VERSION} has {LEN}")]
    Length {
        /// Bytes that are there.
        length: usize,
    },
    /// Written by a newer linkspan that changed the format.
    #[error(
        "progress record of version {version} can be read from version {readable_from} on, this linkspan has {VERSION}"
    )]
    TooNew {
        /// Its version.
        version: u8,
        /// The least version that understands it.
        readable_from: u8,
    },
    /// An offset, sequence or partition is negative.
    #[error("progress record with {field} {value}")]
    Negative {
        /// Which field.
        field: &'static str,
        /// What was seen.
        value: i64,
    },
}

impl Key {
    /// As the record's key.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        format!("{}/{}/{}/{}", self.flow, self.cluster, self.topic, self.partition).into_bytes()
    }

    /// Reads it back.
    ///
    /// # Errors
    /// [`ProgressError::Key`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ProgressError> {
        let bad = || ProgressError::Key(String::from_utf8_lossy(&bytes[..bytes.len().min(300)]).into_owned());
        let text = std::str::from_utf8(bytes).map_err(|_| bad())?;
        let mut parts = text.split('/');
        let (Some(flow), Some(cluster), Some(topic), Some(partition), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(bad());
        };
        let partition = partition.parse().ok().filter(|&partition: &i32| partition >= 0).ok_or_else(bad)?;
        Ok(Self { flow: flow.to_owned(), cluster: cluster.to_owned(), topic: topic.to_owned(), partition })
    }
}

impl Progress {
    /// As the record's value.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(LEN);
        out.put_u8(VERSION);
        out.put_u8(1);
        out.put_slice(&self.source_topic_id);
        out.put_slice(&self.target_topic_id);
        out.put_i64(self.next_offset);
        out.put_i32(self.leader_epoch);
        out.put_i64(self.target_offset);
        out.put_i64(self.producer_id);
        out.put_i16(self.producer_epoch);
        out.put_i32(self.next_sequence);
        out.put_i64(self.written_at);
        out
    }

    /// Reads it back; bytes after what this version knows are ignored.
    ///
    /// # Errors
    /// [`ProgressError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, ProgressError> {
        let length = bytes.len();
        let &[version, readable_from, ..] = bytes else { return Err(ProgressError::Length { length }) };
        if readable_from > VERSION || version == 0 || readable_from == 0 {
            return Err(ProgressError::TooNew { version, readable_from });
        }
        let Some(mut rest) = bytes.get(2..LEN) else { return Err(ProgressError::Length { length }) };
        let mut progress = Self::default();
        rest.copy_to_slice(&mut progress.source_topic_id);
        rest.copy_to_slice(&mut progress.target_topic_id);
        progress.next_offset = rest.get_i64();
        progress.leader_epoch = rest.get_i32();
        progress.target_offset = rest.get_i64();
        progress.producer_id = rest.get_i64();
        progress.producer_epoch = rest.get_i16();
        progress.next_sequence = rest.get_i32();
        progress.written_at = rest.get_i64();
        for (field, value) in
            [("next offset", progress.next_offset), ("next sequence", i64::from(progress.next_sequence))]
        {
            if value < 0 {
                return Err(ProgressError::Negative { field, value });
            }
        }
        Ok(progress)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const GOLDEN: &str = "01 01 \
        000102030405060708090a0b0c0d0e0f \
        101112131415161718191a1b1c1d1e1f \
        00000000000f4240 00000007 00000000000f4241 0000000000000fa0 0003 0000002a 0000018bcfe56800";

    fn golden() -> (Vec<u8>, Progress) {
        let digits: Vec<u8> = GOLDEN.bytes().filter(u8::is_ascii_hexdigit).collect();
        let bytes = digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex"));
        let progress = Progress {
            source_topic_id: std::array::from_fn(|n| n as u8),
            target_topic_id: std::array::from_fn(|n| n as u8 + 16),
            next_offset: 1_000_000,
            leader_epoch: 7,
            target_offset: 1_000_001,
            producer_id: 4_000,
            producer_epoch: 3,
            next_sequence: 42,
            written_at: 1_700_000_000_000,
        };
        (bytes.collect(), progress)
    }

    #[test]
    fn version_1_has_these_bytes_for_ever() {
        let (bytes, progress) = golden();
        assert_eq!(progress.encode(), bytes);
        assert_eq!(Progress::decode(&bytes), Ok(progress));
        let key = Key { flow: "f".into(), cluster: "orange".into(), topic: "eu.x".into(), partition: 11 };
        assert_eq!(key.encode(), b"f/orange/eu.x/11");
        assert_eq!(Key::decode(b"f/orange/eu.x/11"), Ok(key));
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known_or_refused_by_name() {
        let (mut bytes, progress) = golden();
        bytes.extend_from_slice(b"fields of version 2");
        bytes[0] = 2;
        assert_eq!(Progress::decode(&bytes), Ok(progress));
        bytes[1] = 2;
        assert_eq!(Progress::decode(&bytes), Err(ProgressError::TooNew { version: 2, readable_from: 2 }));
    }

    #[test]
    fn what_is_no_progress_is_refused() {
        let (bytes, progress) = golden();
        for length in 0..bytes.len() {
            assert_eq!(Progress::decode(&bytes[..length]), Err(ProgressError::Length { length }));
        }
        let negative = Progress { next_offset: -1, ..progress };
        assert!(matches!(Progress::decode(&negative.encode()), Err(ProgressError::Negative { .. })));
        for key in [&b""[..], b"a/b/c", b"a/b/c/d", b"a/b/c/-1", b"a/b/c/1/2", b"a/b/\xff/1"] {
            assert!(matches!(Key::decode(key), Err(ProgressError::Key(_))), "{key:?}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = (Progress::decode(&bytes), Key::decode(&bytes));
        }
    }
}
