//! The 61 bytes that make a fetched batch one that Produce takes.

use super::header::{CRC_FROM, HEADER_LEN};
use super::{Header, RawBatch, crc};

/// What the new header says about its producer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patch {
    /// Producer id, -1 for none.
    pub producer_id: i64,
    /// Its epoch, -1 for none.
    pub epoch: i16,
    /// Sequence of the first record, -1 for none.
    pub base_sequence: i32,
}

impl Patch {
    /// No producer: the broker checks no sequence.
    pub const NO_PRODUCER: Self = Self { producer_id: -1, epoch: -1, base_sequence: -1 };
}

/// The header to produce a version 2 batch under; its payload follows as it is. `None` for old formats.
///
/// Base offset 0 and leader epoch -1 (both outside the checksum); the producer's fields; of the attributes only the codec stays:
/// * transactional goes, because Produce without a transactional id refuses it;
/// * the delete horizon goes, because the target would purge tombstones early (record times stay right: they are base plus delta);
/// * log-append-time goes: a log-append topic refuses it, a create-time topic ignores it;
/// * bits 7 to 15 have no meaning yet.
///
/// The checksum is corrected from the header's difference; the payload is never read.
#[must_use]
pub fn patch(batch: &RawBatch, patch: &Patch) -> Option<[u8; HEADER_LEN]> {
    let old = batch.header()?;
    let mut header = Header {
        base_offset: 0,
        partition_leader_epoch: -1,
        attributes: old.attributes & KEPT,
        producer_id: patch.producer_id,
        producer_epoch: patch.epoch,
        base_sequence: patch.base_sequence,
        ..old
    };
    let new = header.to_bytes();
    let mut difference = [0; HEADER_LEN - CRC_FROM];
    for (slot, (old, new)) in difference.iter_mut().zip(batch.bytes()[CRC_FROM..].iter().zip(&new[CRC_FROM..])) {
        *slot = old ^ new;
    }
    header.crc = crc::patched(old.crc, &difference, batch.bytes().len() - HEADER_LEN);
    Some(header.to_bytes())
}

/// The codec's bits.
const KEPT: i16 = 0x07;
