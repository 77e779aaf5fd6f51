//! Messages of magic 0 and 1: what brokers wrote before 0.11 and may still keep.
//!
//! A compressed wrapper holds messages. Magic 0 gives them absolute offsets; magic 1 offsets relative to the first, and the
//! wrapper's own offset is that of the last (KIP-31). Since compaction may remove inner messages, the base is the wrapper's offset
//! less the last inner one.

use bytes::Bytes;

use super::header::{Codec, OVERHEAD, i32_at, i64_at};
use super::{BatchError, CodecError, Limits, RawBatch, Record, compress, split};

/// Records of one old message, or of the messages in a compressed one. The checksum was verified.
pub(super) fn decode(batch: &RawBatch, limits: Limits) -> Result<Vec<Record>, BatchError> {
    let outer = message(batch)?;
    let base_offset = batch.offset();
    let codec = match outer.codec {
        Ok(Codec::None) => return Ok(vec![outer.record(batch.offset(), outer.timestamp)]),
        Ok(codec) => codec,
        Err(number) => return Err(BatchError::Codec { base_offset, source: CodecError::Unknown(number) }),
    };
    let wrapped = outer.value.as_deref().unwrap_or_default();
    let opened = if codec == Codec::Lz4 && batch.magic() == 0 {
        compress::open(codec, &with_right_lz4_checksum(wrapped), limits)
    } else {
        compress::open(codec, wrapped, limits)
    };
    let opened = opened.map_err(|source| BatchError::Codec { base_offset, source })?;
    let mut inner = split(Bytes::from(opened));
    let mut messages = Vec::new();
    for one in &mut inner {
        let one = one?;
        if one.magic() != batch.magic() {
            return Err(malformed(batch, messages.len(), "a wrapper holds a message of another format"));
        }
        let parsed = message(&one)?;
        if parsed.codec != Ok(Codec::None) {
            return Err(malformed(batch, messages.len(), "a wrapper holds a wrapper"));
        }
        messages.push((one.offset(), parsed));
    }
    if inner.left() != 0 {
        return Err(malformed(batch, messages.len(), "a wrapped message is cut short"));
    }
    let relative = batch.magic() == 1;
    let last = messages.last().map_or(0, |&(offset, _)| offset);
    let appended = (relative && outer.log_append).then_some(outer.timestamp);
    let records = messages.into_iter().map(|(offset, message)| {
        let offset = if relative { batch.offset().saturating_sub(last).saturating_add(offset) } else { offset };
        message.record(offset, appended.unwrap_or(message.timestamp))
    });
    Ok(records.collect())
}

struct Message {
    codec: Result<Codec, u8>,
    log_append: bool,
    timestamp: i64,
    key: Option<Bytes>,
    value: Option<Bytes>,
}

impl Message {
    fn record(&self, offset: i64, timestamp: i64) -> Record {
        Record::new(offset, timestamp, self.key.as_deref(), self.value.as_deref(), &[])
    }
}

fn malformed(batch: &RawBatch, index: usize, what: &'static str) -> BatchError {
    BatchError::Record { base_offset: batch.offset(), index, what }
}

/// crc 4, magic 1, attributes 1, from magic 1 on a timestamp 8, key and value with 4 bytes of length each.
fn message(batch: &RawBatch) -> Result<Message, BatchError> {
    let bytes = batch.bytes();
    let attributes = bytes[OVERHEAD + 5];
    let mut at = OVERHEAD + 6;
    let mut timestamp = -1;
    if batch.magic() == 1 {
        if bytes.len() < at + 16 {
            return Err(malformed(batch, 0, "it is shorter than its format"));
        }
        timestamp = i64_at(bytes, at);
        at += 8;
    }
    let mut field = || {
        if bytes.len() < at + 4 {
            return Err(malformed(batch, 0, "it ends before a length"));
        }
        let length = i32_at(bytes, at);
        at += 4;
        let Ok(length) = usize::try_from(length) else { return Ok(None) };
        if length > bytes.len() - at {
            return Err(malformed(batch, 0, "it ends beyond the bytes that are there"));
        }
        at += length;
        Ok(Some(bytes.slice(at - length..at)))
    };
    let (key, value) = (field()?, field()?);
    Ok(Message { codec: batch.codec(), log_append: attributes & 0x08 != 0, timestamp, key, value })
}

/// Clients before 0.10 wrote LZ4 frames of magic 0 with a wrong header checksum (KIP-57): taken over the magic number too.
fn with_right_lz4_checksum(frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    let Some(&flags) = frame.get(4) else { return frame };
    // Flags and block descriptor, and 8 bytes of content size where a flag says so.
    let end = if flags & 0x08 == 0 { 6 } else { 14 };
    if frame.len() > end {
        frame[end] = (xxh32_short(&frame[4..end]) >> 8) as u8;
    }
    frame
}

/// xxHash32 with seed 0 of fewer than 16 bytes.
fn xxh32_short(bytes: &[u8]) -> u32 {
    const PRIMES: [u32; 5] = [0x9e37_79b1, 0x85eb_ca77, 0xc2b2_ae3d, 0x27d4_eb2f, 0x1656_67b1];
    let mut hash = PRIMES[4].wrapping_add(bytes.len() as u32);
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let word = u32::from_le_bytes([word[0], word[1], word[2], word[3]]);
        hash = hash.wrapping_add(word.wrapping_mul(PRIMES[2])).rotate_left(17).wrapping_mul(PRIMES[3]);
    }
    for &byte in words.remainder() {
        hash = hash.wrapping_add(u32::from(byte).wrapping_mul(PRIMES[4])).rotate_left(11).wrapping_mul(PRIMES[0]);
    }
    hash = (hash ^ hash >> 15).wrapping_mul(PRIMES[1]);
    hash = (hash ^ hash >> 13).wrapping_mul(PRIMES[2]);
    hash ^ hash >> 16
}
