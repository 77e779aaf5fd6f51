//! Where batches begin and end in a record set, and what their 61 bytes say.

use bytes::Bytes;

use super::BatchError;

/// Bytes of a version 2 header; the records follow.
pub const HEADER_LEN: usize = 61;
/// Base offset and length field: in front of what the length counts, in every format.
pub(super) const OVERHEAD: usize = 12;
/// Where the magic stands, in every format.
const MAGIC_AT: usize = 16;
/// The checksum of version 2 covers what stands from here.
pub(super) const CRC_FROM: usize = 21;
/// Least length field of a magic 0 message: crc 4, magic 1, attributes 1, key length 4, value length 4.
const LEAST_OLD: usize = 14;
/// Least length field of a version 2 batch.
const LEAST_NEW: usize = HEADER_LEN - OVERHEAD;

/// Cuts a record set into batches.
///
/// A batch that the broker cut short ends it silently, as Fetch documents; what is malformed is given once as an error.
#[must_use]
pub fn split(set: Bytes) -> Batches {
    Batches { set, at: 0, failed: false }
}

/// The batches of a record set, in order.
#[derive(Debug, Clone)]
pub struct Batches {
    set: Bytes,
    at: usize,
    failed: bool,
}

impl Batches {
    /// Bytes not given as batches: those of a partial one, once the iterator has ended.
    #[must_use]
    pub const fn left(&self) -> usize {
        self.set.len() - self.at
    }
}

impl Iterator for Batches {
    type Item = Result<RawBatch, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.set[self.at..];
        if self.failed || rest.len() <= MAGIC_AT {
            return None;
        }
        let length = i32_at(rest, 8);
        let magic = rest[MAGIC_AT] as i8;
        let at = self.at;
        let least = match magic {
            0 | 1 => LEAST_OLD,
            2 => LEAST_NEW,
            _ => {
                self.failed = true;
                return Some(Err(BatchError::Magic { at, magic }));
            }
        };
        let Some(counted) = usize::try_from(length).ok().filter(|&counted| counted >= least) else {
            self.failed = true;
            return Some(Err(BatchError::Length { at, length, least }));
        };
        if counted > rest.len() - OVERHEAD {
            return None;
        }
        let bytes = self.set.slice(self.at..self.at + OVERHEAD + counted);
        self.at += bytes.len();
        Some(Ok(RawBatch { bytes }))
    }
}

/// One batch (or one message of magic 0 or 1) as it was read: at least as long as its format's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawBatch {
    bytes: Bytes,
}

impl RawBatch {
    /// 2 for batches; 0 or 1 for messages of old formats.
    #[must_use]
    pub fn magic(&self) -> i8 {
        self.bytes[MAGIC_AT] as i8
    }

    /// The whole of it.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The header of a version 2 batch; `None` for old formats.
    #[must_use]
    pub fn header(&self) -> Option<Header> {
        (self.magic() == 2).then(|| Header::parse(&self.bytes)).flatten()
    }

    /// The codec of any format, or the number that is none.
    ///
    /// # Errors
    /// The unknown number, 5 to 7.
    pub fn codec(&self) -> Result<Codec, u8> {
        let attributes = if self.magic() == 2 { self.bytes[22] } else { self.bytes[17] };
        Codec::from_attributes(i16::from(attributes))
    }

    /// The records of a version 2 batch as they stand, compressed or not; empty for old formats.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        if self.magic() == 2 { self.bytes.slice(HEADER_LEN..) } else { Bytes::new() }
    }

    /// The offset field: that of the first record, except in a compressed wrapper of an old format, where it is the last's.
    #[must_use]
    pub fn offset(&self) -> i64 {
        i64_at(&self.bytes, 0)
    }

    /// The offset after the last one that this batch stands for. Saturates where the header is nonsense.
    #[must_use]
    pub fn next_offset(&self) -> i64 {
        let delta = self.header().map_or(0, |header| i64::from(header.last_offset_delta));
        self.offset().saturating_add(delta).saturating_add(1)
    }

    /// The same bytes under the checksum that is theirs; for fuzzing.
    pub(super) fn with_right_checksum(&self) -> Self {
        let mut bytes = self.bytes.to_vec();
        if let Err(BatchError::Checksum { computed, .. }) = self.verify() {
            let at = if self.magic() == 2 { 17 } else { 12 };
            bytes[at..at + 4].copy_from_slice(&computed.to_be_bytes());
        }
        Self { bytes: bytes.into() }
    }

    /// Whether the stored checksum is that of the bytes. Reads the payload.
    ///
    /// # Errors
    /// [`BatchError::Checksum`] where it is not.
    pub fn verify(&self) -> Result<(), BatchError> {
        let (stored, computed) = if self.magic() == 2 {
            (u32_at(&self.bytes, 17), super::crc32c(&self.bytes[CRC_FROM..]))
        } else {
            let mut crc = flate2::Crc::new();
            crc.update(&self.bytes[MAGIC_AT..]);
            (u32_at(&self.bytes, 12), crc.sum())
        };
        if stored == computed {
            return Ok(());
        }
        Err(BatchError::Checksum { base_offset: self.offset(), stored, computed })
    }
}

/// The header of a version 2 batch, field by field under Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Offset of the first record, also where that was compacted away.
    pub base_offset: i64,
    /// Bytes after the length field.
    pub length: i32,
    /// Epoch of the leader that appended it; not under the checksum.
    pub partition_leader_epoch: i32,
    /// CRC-32C of all that follows it.
    pub crc: u32,
    /// Codec, timestamp type and flags; see the accessors.
    pub attributes: i16,
    /// Offset of the last record less the base offset; stays when records are compacted away.
    pub last_offset_delta: i32,
    /// Time of the first record, or the delete horizon.
    pub base_timestamp: i64,
    /// Newest time, or the time of the append.
    pub max_timestamp: i64,
    /// -1 for none.
    pub producer_id: i64,
    /// -1 for none.
    pub producer_epoch: i16,
    /// Sequence of the first record, -1 for none.
    pub base_sequence: i32,
    /// Number of records that are there.
    pub count: i32,
}

impl Header {
    /// Reads the first 61 bytes; `None` where there are fewer.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        Some(Self {
            base_offset: i64_at(bytes, 0),
            length: i32_at(bytes, 8),
            partition_leader_epoch: i32_at(bytes, 12),
            crc: u32_at(bytes, 17),
            attributes: i16_at(bytes, 21),
            last_offset_delta: i32_at(bytes, 23),
            base_timestamp: i64_at(bytes, 27),
            max_timestamp: i64_at(bytes, 35),
            producer_id: i64_at(bytes, 43),
            producer_epoch: i16_at(bytes, 51),
            base_sequence: i32_at(bytes, 53),
            count: i32_at(bytes, 57),
        })
    }

    /// The bytes that [`Header::parse`] reads back.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; HEADER_LEN] {
        let mut out = [0; HEADER_LEN];
        out[0..8].copy_from_slice(&self.base_offset.to_be_bytes());
        out[8..12].copy_from_slice(&self.length.to_be_bytes());
        out[12..16].copy_from_slice(&self.partition_leader_epoch.to_be_bytes());
        out[MAGIC_AT] = 2;
        out[17..21].copy_from_slice(&self.crc.to_be_bytes());
        out[21..23].copy_from_slice(&self.attributes.to_be_bytes());
        out[23..27].copy_from_slice(&self.last_offset_delta.to_be_bytes());
        out[27..35].copy_from_slice(&self.base_timestamp.to_be_bytes());
        out[35..43].copy_from_slice(&self.max_timestamp.to_be_bytes());
        out[43..51].copy_from_slice(&self.producer_id.to_be_bytes());
        out[51..53].copy_from_slice(&self.producer_epoch.to_be_bytes());
        out[53..57].copy_from_slice(&self.base_sequence.to_be_bytes());
        out[57..61].copy_from_slice(&self.count.to_be_bytes());
        out
    }

    /// The codec, or the number that is none.
    ///
    /// # Errors
    /// The unknown number, 5 to 7.
    pub const fn codec(&self) -> Result<Codec, u8> {
        Codec::from_attributes(self.attributes)
    }

    /// Whose clock the times are of.
    #[must_use]
    pub const fn timestamp_type(&self) -> TimestampType {
        if self.attributes & 0x08 == 0 { TimestampType::Create } else { TimestampType::LogAppend }
    }

    /// Whether it belongs to a transaction.
    #[must_use]
    pub const fn is_transactional(&self) -> bool {
        self.attributes & 0x10 != 0
    }

    /// Whether it is a marker and no data.
    #[must_use]
    pub const fn is_control(&self) -> bool {
        self.attributes & 0x20 != 0
    }

    /// Whether `base_timestamp` is the time from which tombstones may go.
    #[must_use]
    pub const fn has_delete_horizon(&self) -> bool {
        self.attributes & 0x40 != 0
    }

    /// Offset of the last record. Saturates where the header is nonsense.
    #[must_use]
    pub const fn last_offset(&self) -> i64 {
        self.base_offset.saturating_add(self.last_offset_delta as i64)
    }

    /// Whether count and last offset delta leave no hole, as Produce demands.
    #[must_use]
    pub const fn is_without_holes(&self) -> bool {
        self.count > 0 && self.last_offset_delta as i64 + 1 == self.count as i64
    }
}

/// Compression codecs, by their numbers on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// 0
    None,
    /// 1
    Gzip,
    /// 2
    Snappy,
    /// 3
    Lz4,
    /// 4
    Zstd,
}

impl Codec {
    /// From the low three bits of attributes of any format.
    pub(super) const fn from_attributes(attributes: i16) -> Result<Self, u8> {
        match attributes & 0x07 {
            0 => Ok(Self::None),
            1 => Ok(Self::Gzip),
            2 => Ok(Self::Snappy),
            3 => Ok(Self::Lz4),
            4 => Ok(Self::Zstd),
            other => Err(other as u8),
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i16 {
        self as i16
    }
}

/// Whose clock record times are of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    Create,
    /// The broker's, at the append: the header's `max_timestamp` stands for every record.
    LogAppend,
}

pub(super) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    let mut field = [0; 8];
    field.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(field)
}

pub(super) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    let mut field = [0; 4];
    field.copy_from_slice(&bytes[at..at + 4]);
    i32::from_be_bytes(field)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    i32_at(bytes, at) as u32
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}
