//! Records out of a batch, whatever its format.

use bytes::Bytes;

use super::header::{Codec, TimestampType};
use super::varint::{Cursor, Malformed};
use super::{BatchError, Limits, RawBatch, Record, compress, legacy};

/// All records of a batch, in order, after its checksum was verified. Empty for one that compaction has emptied.
///
/// Where the batch has append times, they are the records' times.
///
/// # Errors
/// [`BatchError`] where the batch is damaged, malformed, or opens to more than the limits allow.
pub fn decode(batch: &RawBatch, limits: Limits) -> Result<Vec<Record>, BatchError> {
    batch.verify()?;
    let Some(header) = batch.header() else { return legacy::decode(batch, limits) };
    let payload = open(batch, limits)?;
    let appended = (header.timestamp_type() == TimestampType::LogAppend).then_some(header.max_timestamp);
    let mut records = Vec::new();
    walk(batch, &payload, |delta, time, body| {
        records.push(Record {
            offset: header.base_offset.saturating_add(delta),
            timestamp: appended.unwrap_or_else(|| header.base_timestamp.saturating_add(time)),
            body: payload.slice(body),
        });
        Ok(())
    })?;
    Ok(records)
}

/// Whether the records of a version 2 batch have offset deltas 0, 1, … up to the last: only then may it pass as it is.
///
/// Brokers do not look at the deltas of uncompressed batches, so a lie would be stored and read. Opens the payload, also a
/// compressed one; old formats are never dense.
///
/// # Errors
/// As [`decode`], but the checksum is left to the target's broker.
pub fn is_dense(batch: &RawBatch, limits: Limits) -> Result<bool, BatchError> {
    let Some(header) = batch.header() else { return Ok(false) };
    if !header.is_without_holes() {
        return Ok(false);
    }
    let payload = open(batch, limits)?;
    let mut expected = 0;
    let mut dense = true;
    walk(batch, &payload, |delta, _, _| {
        dense &= delta == expected;
        expected += 1;
        Ok(())
    })?;
    Ok(dense)
}

fn open(batch: &RawBatch, limits: Limits) -> Result<Bytes, BatchError> {
    let base_offset = batch.offset();
    let payload = batch.payload();
    match batch.codec() {
        Ok(Codec::None) => Ok(payload),
        Ok(codec) => compress::open(codec, &payload, limits)
            .map(Bytes::from)
            .map_err(|source| BatchError::Codec { base_offset, source }),
        Err(number) => Err(BatchError::Codec { base_offset, source: super::CodecError::Unknown(number) }),
    }
}

/// Least bytes of a record: length, attributes, two deltas, two lengths, header count.
const LEAST_RECORD: usize = 7;

/// Gives offset delta, time delta and the place of the body of each record; verifies that the payload is exactly the records.
fn walk(
    batch: &RawBatch,
    payload: &[u8],
    mut each: impl FnMut(i64, i64, std::ops::Range<usize>) -> Result<(), Malformed>,
) -> Result<(), BatchError> {
    let base_offset = batch.offset();
    let count = batch.header().map_or(0, |header| header.count);
    let claimed = usize::try_from(count).ok().filter(|&count| count <= payload.len() / LEAST_RECORD);
    let Some(claimed) = claimed else {
        return Err(BatchError::Count { base_offset, count, payload: payload.len() });
    };
    let mut at = Cursor::new(payload);
    for index in 0..claimed {
        let one = record(&mut at, payload).and_then(|(delta, time, body)| each(delta, time, body));
        one.map_err(|Malformed(what)| BatchError::Record { base_offset, index, what })?;
    }
    if at.left() == 0 {
        return Ok(());
    }
    Err(BatchError::Record { base_offset, index: claimed, what: "bytes follow the last record" })
}

fn record(at: &mut Cursor<'_>, payload: &[u8]) -> Result<(i64, i64, std::ops::Range<usize>), Malformed> {
    let Some(place) = at.bytes()? else { return Err(Malformed("its length is negative")) };
    let bytes = &payload[place.clone()];
    let mut inner = Cursor::new(bytes);
    inner.take(1)?;
    let time = inner.int()?;
    let delta = inner.int()?;
    if !(0..=i64::from(i32::MAX)).contains(&delta) {
        return Err(Malformed("its offset delta is not one"));
    }
    let body = inner.at();
    inner.bytes()?;
    inner.bytes()?;
    let headers = inner.int()?;
    if headers < 0 || headers as u64 > inner.left() as u64 {
        return Err(Malformed("it has a number of headers that its bytes cannot hold"));
    }
    for _ in 0..headers {
        if inner.bytes()?.is_none() {
            return Err(Malformed("a header has no name"));
        }
        inner.bytes()?;
    }
    if inner.left() != 0 {
        return Err(Malformed("bytes follow its last header"));
    }
    Ok((delta, time, place.start + body..place.end))
}
