//! Record batches as they stand in Fetch and Produce: the 61-byte header, its checksum, and, where they must be opened, the records.
//!
//! A replicated batch normally passes as it is: [`split`] finds it, [`patch()`] writes a new header and corrects the checksum from
//! the header's difference alone. The payload is not even read, so the checksum that the source's broker stored still guards it
//! when the target's broker verifies it. Everything else (holes, old formats, sizes) is opened by [`decode()`] and written anew by
//! [`encode()`]; opening verifies the checksum first, so that a flipped bit is never laundered.
//!
//! Rules kept here: bytes from the network never panic and never choose the size of an allocation; what is decompressed is bounded
//! by [`Limits`].
//!
//! Sources: Kafka's `DefaultRecordBatch`, `LegacyRecord`, `MemoryRecords`; KIP-98 (version 2), KIP-32 (timestamps), KIP-534 (delete
//! horizon), KIP-31 (relative offsets in old wrappers); RFC 3720 for CRC-32C.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod compress;
mod crc;
mod decode;
mod encode;
mod header;
mod legacy;
mod patch;
mod varint;

use bytes::Bytes;

pub use compress::{CodecError, Limits};
pub use crc::{crc32c, crc32c_of_parts};
pub use decode::{decode, is_dense};
pub use encode::{Encoded, Stamp, encode, encode_one};
pub use header::{Batches, Codec, HEADER_LEN, Header, RawBatch, TimestampType, split};
pub use patch::{Patch, patch};

/// One record, its offset and time absolute, the rest as it stands on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Offset in the partition it was read from.
    pub offset: i64,
    /// Milliseconds since 1970, or -1 for none.
    pub timestamp: i64,
    /// Key, value and headers in the form of version 2: lengths as zigzag varints. Known to be well formed.
    pub(crate) body: Bytes,
}

/// Key and value of a header.
pub type RecordHeader = (Bytes, Option<Bytes>);

impl Record {
    /// Makes a record from its parts.
    #[must_use]
    pub fn new(
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) -> Self {
        let mut body = Vec::with_capacity(key.map_or(0, <[u8]>::len) + value.map_or(0, <[u8]>::len) + 16);
        varint::put_bytes(&mut body, key);
        varint::put_bytes(&mut body, value);
        varint::put(&mut body, headers.len() as i64);
        for (name, content) in headers {
            varint::put_bytes(&mut body, Some(name));
            varint::put_bytes(&mut body, *content);
        }
        Self { offset, timestamp, body: body.into() }
    }

    /// The key; `None` for null.
    #[must_use]
    pub fn key(&self) -> Option<Bytes> {
        self.parts().0
    }

    /// The value; `None` for null, a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<Bytes> {
        self.parts().1
    }

    /// The headers, in order.
    #[must_use]
    pub fn headers(&self) -> Vec<RecordHeader> {
        self.parts().2
    }

    fn parts(&self) -> (Option<Bytes>, Option<Bytes>, Vec<RecordHeader>) {
        let mut at = varint::Cursor::new(&self.body);
        let read = |at: &mut varint::Cursor<'_>| at.bytes().map(|range| range.map(|range| self.body.slice(range)));
        let (Ok(key), Ok(value), Ok(count)) = (read(&mut at), read(&mut at), at.int()) else {
            return (None, None, Vec::new());
        };
        let mut headers = Vec::new();
        for _ in 0..count {
            let (Ok(Some(name)), Ok(content)) = (read(&mut at), read(&mut at)) else { break };
            headers.push((name, content));
        }
        (key, value, headers)
    }
}

/// Why bytes are no batch, or a batch cannot be opened or written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BatchError {
    /// The length field is below what the format needs, or negative.
    #[error("batch at byte {at} claims a length of {length}, at least {least} is needed")]
    Length {
        /// Byte of the record set where the batch begins.
        at: usize,
        /// The length field.
        length: i32,
        /// The least length of that format.
        least: usize,
    },
    /// A format newer than 2 or negative.
    #[error("batch at byte {at} has magic {magic}, known are 0 to 2")]
    Magic {
        /// Byte of the record set where the batch begins.
        at: usize,
        /// What was seen.
        magic: i8,
    },
    /// The stored checksum is not that of the bytes: damage at the source or on the way.
    #[error("checksum of the batch at offset {base_offset} is {computed:#010x}, stored is {stored:#010x}")]
    Checksum {
        /// First offset.
        base_offset: i64,
        /// What the header says.
        stored: u32,
        /// What the bytes give.
        computed: u32,
    },
    /// Record count or last offset delta is negative, or more records are claimed than bytes could hold.
    #[error("batch at offset {base_offset} claims {count} records in {payload} bytes")]
    Count {
        /// First offset.
        base_offset: i64,
        /// Claimed count.
        count: i32,
        /// Bytes of payload, decompressed.
        payload: usize,
    },
    /// A record runs over its own or its batch's end, or a varint does not end.
    #[error("record {index} of the batch at offset {base_offset} is malformed: {what}")]
    Record {
        /// First offset.
        base_offset: i64,
        /// Number of the record within the batch.
        index: usize,
        /// Which rule is broken.
        what: &'static str,
    },
    /// The payload cannot be decompressed within the limits.
    #[error("payload of the batch at offset {base_offset} cannot be opened: {source}")]
    Codec {
        /// First offset.
        base_offset: i64,
        /// Why.
        source: CodecError,
    },
    /// One record alone makes a batch larger than the target takes.
    #[error("record at offset {offset} makes a batch of {size} bytes, the target takes {limit}")]
    RecordTooLarge {
        /// Offset of the record at the source.
        offset: i64,
        /// Size of the batch with only this record.
        size: usize,
        /// What the target takes.
        limit: usize,
    },
}

/// Arbitrary bytes as a record set; for fuzzing. The first byte may have checksums corrected, so that what lies behind them is
/// reached. Panics never, and not where records that were read do not read back as they were written, in the codec that the first
/// byte names.
#[doc(hidden)]
pub fn fuzz_batches(data: &[u8]) {
    let Some((&choice, set)) = data.split_first() else { return };
    let limits = Limits { bytes: 1 << 20, ratio: 1_100 };
    let codec = Codec::from_attributes(i16::from(choice % 5)).unwrap_or(Codec::None);
    for batch in split(Bytes::copy_from_slice(set)) {
        let Ok(batch) = batch else { break };
        let batch = if choice & 0x80 == 0 { batch.with_right_checksum() } else { batch };
        let _ = (is_dense(&batch, limits), batch.next_offset(), batch.codec());
        if let Some(header) = batch.header() {
            assert_eq!(header.to_bytes()[..], batch.bytes()[..HEADER_LEN], "a header has one form");
        }
        let Ok(records) = decode(&batch, limits) else { continue };
        records.iter().for_each(|record| drop((record.key(), record.value(), record.headers())));
        let ascends = records.windows(2).all(|pair| pair[0].offset < pair[1].offset);
        if records.is_empty() || !ascends || records.iter().any(|record| record.offset < 0 || record.timestamp < -1) {
            continue;
        }
        let again = encode_one(&records, codec, Stamp::NO_PRODUCER).to_bytes();
        let again = split(again.into()).next().and_then(Result::ok).expect("what was written is a batch");
        assert_eq!(again.verify(), Ok(()));
        let back = decode(&again, Limits::default()).expect("what was written is read");
        assert!(back.iter().map(|r| (r.timestamp, &r.body)).eq(records.iter().map(|r| (r.timestamp, &r.body))));
    }
}

#[cfg(test)]
mod tests;
