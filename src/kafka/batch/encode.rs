//! Records into dense version 2 batches, each within the size that the target takes.

use bytes::Bytes;

use super::header::{CRC_FROM, Codec, HEADER_LEN, Header, OVERHEAD};
use super::{BatchError, Patch, Record, compress, crc32c_of_parts, varint};

/// What the new batches say about their producer; sequences go on from batch to batch and wrap at 2^31.
pub type Stamp = Patch;

/// A batch that was written anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// Its header.
    pub header: [u8; HEADER_LEN],
    /// Its records, compressed.
    pub payload: Bytes,
    /// Number of records.
    pub count: i32,
    /// Offset of the last record at the source.
    pub last_offset: i64,
}

impl Encoded {
    /// Bytes of header and payload.
    #[must_use]
    pub fn len(&self) -> usize {
        HEADER_LEN + self.payload.len()
    }

    /// Never: a batch has at least one record.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Header and payload in one piece.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.header[..], &self.payload].concat()
    }
}

/// Writes the records as few batches of at most `limit` bytes, halving where one is too large. Times are create times.
///
/// # Errors
/// [`BatchError::RecordTooLarge`] names the first record that fits in no batch.
pub fn encode(records: &[Record], codec: Codec, limit: usize, stamp: Stamp) -> Result<Vec<Encoded>, BatchError> {
    let mut out = Vec::new();
    let mut stamp = stamp;
    // A stack of pieces, the first on top: halving needs no more than log2(records) places.
    let mut pieces = vec![records];
    while let Some(piece) = pieces.pop() {
        let Some((last, _)) = piece.split_last() else { continue };
        let batch = encode_one(piece, codec, stamp);
        if batch.len() <= limit {
            stamp.base_sequence = following(stamp.base_sequence, batch.count);
            out.push(batch);
        } else if piece.len() == 1 {
            return Err(BatchError::RecordTooLarge { offset: last.offset, size: batch.len(), limit });
        } else {
            let (first, second) = piece.split_at(piece.len() / 2);
            pieces.push(second);
            pieces.push(first);
        }
    }
    Ok(out)
}

/// Writes the records as one batch, whatever its size.
#[must_use]
pub fn encode_one(records: &[Record], codec: Codec, stamp: Stamp) -> Encoded {
    let base_timestamp = records.first().map_or(-1, |record| record.timestamp);
    let max_timestamp = records.iter().map(|record| record.timestamp).max().unwrap_or(-1);
    let mut payload = Vec::with_capacity(records.iter().map(|record| record.body.len() + 16).sum());
    for (index, record) in records.iter().enumerate() {
        let time = record.timestamp.wrapping_sub(base_timestamp);
        let delta = index as i64;
        let length = 1 + varint::size(time) + varint::size(delta) + record.body.len();
        varint::put(&mut payload, length as i64);
        payload.push(0);
        varint::put(&mut payload, time);
        varint::put(&mut payload, delta);
        payload.extend_from_slice(&record.body);
    }
    let payload = compress::close(codec, payload);
    let count = records.len() as i32;
    let mut header = Header {
        base_offset: 0,
        length: (HEADER_LEN - OVERHEAD + payload.len()) as i32,
        partition_leader_epoch: -1,
        crc: 0,
        attributes: codec.number(),
        last_offset_delta: count - 1,
        base_timestamp,
        max_timestamp,
        producer_id: stamp.producer_id,
        producer_epoch: stamp.epoch,
        base_sequence: stamp.base_sequence,
        count,
    };
    header.crc = crc32c_of_parts(&[&header.to_bytes()[CRC_FROM..], &payload]);
    let last_offset = records.last().map_or(-1, |record| record.offset);
    Encoded { header: header.to_bytes(), payload: payload.into(), count, last_offset }
}

/// The sequence after `count` records; -1 stays -1.
pub(super) const fn following(sequence: i32, count: i32) -> i32 {
    if sequence < 0 { sequence } else { sequence.wrapping_add(count) & i32::MAX }
}
