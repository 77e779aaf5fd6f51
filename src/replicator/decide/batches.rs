//! What becomes of each fetched batch: it passes as it is, is written anew, or stays behind.
//!
//! A model of the broker's `LogValidator` seen from outside: what Produce would refuse or, worse, silently change is written anew.

use std::collections::BTreeSet;

use crate::kafka::batch::{BatchError, Codec, Limits, RawBatch, TimestampType, is_dense};

/// What is known of one partition and its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether the source topic is or was compacted: then deltas are verified before an uncompressed batch passes.
    pub compacted: bool,
    /// `max.message.bytes` of the target topic.
    pub target_max_bytes: usize,
    /// `compression.type` of the target topic; `None` for `producer`.
    pub target_codec: Option<Codec>,
    /// Whether the target topic stamps at append, so that times of the source's appends cannot be kept.
    pub target_stamps: bool,
}

impl Default for Rules {
    /// Kafka's defaults: not compacted, 1,048,588 bytes, the producer's codec and times.
    fn default() -> Self {
        Self { compacted: false, target_max_bytes: 1_048_588, target_codec: None, target_stamps: false }
    }
}

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Its header is patched, its payload passes unread.
    Pass,
    /// Its records, from the position on, are written anew.
    ReEncode(Reason),
    /// Nothing of it is written.
    Drop(Left),
}

/// Why a batch is written anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// Magic 0 or 1: Produce takes 2 alone.
    OldFormat,
    /// It begins before the position.
    Tail,
    /// Compaction took records out: Produce refuses the hole.
    Holes,
    /// Inner offset deltas are not those that the header promises; the broker would store the lie.
    Deltas,
    /// Its append times would be lost.
    AppendTime,
    /// Larger than the target takes.
    Size,
    /// Tiny, and others like it wait behind it.
    Tiny,
}

/// Why a batch stays behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Left {
    /// A transaction marker.
    Control,
    /// Data of an aborted transaction.
    Aborted,
    /// It ends before the position.
    Before,
    /// It came from the target.
    Looped,
    /// Compaction has emptied it.
    Empty,
}

/// Chooses for the next batch of a partition.
///
/// `position` is the first offset wanted; `suspect` is true for the first batch after a jump, whose deltas are then verified too.
///
/// # Errors
/// [`BatchError`] where deltas had to be verified and the payload is malformed.
pub fn choose(
    batch: &RawBatch,
    position: i64,
    suspect: bool,
    rules: &Rules,
    aborted: &mut Aborted,
) -> Result<Choice, BatchError> {
    let Some(header) = batch.header() else {
        // The offset of an old wrapper is that of its last message, so records before the position are sorted out when it is opened.
        let ended = batch.next_offset() <= position;
        return Ok(if ended { Choice::Drop(Left::Before) } else { Choice::ReEncode(Reason::OldFormat) });
    };
    // The filter must see each batch, also those that stay behind for another reason.
    let is_aborted = aborted.sees(batch);
    if batch.next_offset() <= position {
        return Ok(Choice::Drop(Left::Before));
    }
    if header.is_control() {
        return Ok(Choice::Drop(Left::Control));
    }
    if is_aborted {
        return Ok(Choice::Drop(Left::Aborted));
    }
    if header.count == 0 {
        return Ok(Choice::Drop(Left::Empty));
    }
    if batch.offset() < position {
        return Ok(Choice::ReEncode(Reason::Tail));
    }
    if !header.is_without_holes() {
        return Ok(Choice::ReEncode(Reason::Holes));
    }
    if header.timestamp_type() == TimestampType::LogAppend && !rules.target_stamps {
        return Ok(Choice::ReEncode(Reason::AppendTime));
    }
    if batch.bytes().len() > rules.target_max_bytes {
        return Ok(Choice::ReEncode(Reason::Size));
    }
    // The broker opens compressed batches itself and refuses a lie, unless it compresses them anew.
    let unseen = header.codec() == Ok(Codec::None) || rules.target_codec.is_some();
    if (rules.compacted || suspect) && unseen && !is_dense(batch, Limits::default())? {
        return Ok(Choice::ReEncode(Reason::Deltas));
    }
    Ok(Choice::Pass)
}

/// The codec to write records anew with: the target's where it insists, else the source's, else none (a number that is no codec is
/// found when the batch is opened).
#[must_use]
pub fn codec(batch: &RawBatch, rules: &Rules) -> Codec {
    rules.target_codec.unwrap_or_else(|| batch.codec().unwrap_or(Codec::None))
}

/// Aborted transactions in one fetch answer, followed batch by batch as the Java consumer does.
///
/// Empty for read_uncommitted: then nothing counts as aborted.
#[derive(Debug, Clone, Default)]
pub struct Aborted {
    /// First offset and producer id, the last first.
    waiting: Vec<(i64, i64)>,
    /// Producer ids whose aborted transaction has begun and not ended.
    open: BTreeSet<i64>,
}

impl Aborted {
    /// Takes the broker's list of (producer id, first offset).
    #[must_use]
    pub fn new(list: impl IntoIterator<Item = (i64, i64)>) -> Self {
        let mut waiting: Vec<_> = list.into_iter().map(|(producer_id, first)| (first, producer_id)).collect();
        waiting.sort_unstable_by(|a, b| b.cmp(a));
        Self { waiting, open: BTreeSet::new() }
    }

    /// Whether this batch, the next of the answer, is data of an aborted transaction.
    fn sees(&mut self, batch: &RawBatch) -> bool {
        let Some(header) = batch.header() else { return false };
        while self.waiting.last().is_some_and(|&(first, _)| first <= header.last_offset()) {
            self.open.extend(self.waiting.pop().map(|(_, producer_id)| producer_id));
        }
        if header.is_control() {
            // A marker ends its producer's transaction. That it aborts need not be read: a transaction that is open here was aborted,
            // and the marker of an earlier, committed one stands before its first offset.
            self.open.remove(&header.producer_id);
            return false;
        }
        header.is_transactional() && self.open.contains(&header.producer_id)
    }
}

/// Batches below this are tiny.
const TINY: usize = 4 << 10;
/// Tiny batches that must wait, so that merging them pays for opening them.
const CROWD: usize = 8;
/// Bytes that a merged batch is made of at most, before compression makes it smaller or larger.
const MERGED: usize = 128 << 10;

/// A batch that waits to be produced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waiting {
    /// Its bytes.
    pub bytes: usize,
    /// Its codec.
    pub codec: Codec,
}

/// How many of the waiting batches, from the first on, are to be merged into one; 0 for none.
#[must_use]
pub fn merge(waiting: impl Iterator<Item = Waiting>, rules: &Rules) -> usize {
    let most = MERGED.min(rules.target_max_bytes / 2);
    let mut bytes = 0;
    let mut first = None;
    let mut count = 0;
    for batch in waiting {
        bytes += batch.bytes;
        if batch.bytes >= TINY || bytes > most || *first.get_or_insert(batch.codec) != batch.codec {
            break;
        }
        count += 1;
    }
    if count < CROWD { 0 } else { count }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::batch::{HEADER_LEN, Patch, Record, encode_one, split};
    use bytes::Bytes;

    const ZIPPED: Codec = Codec::Lz4;

    /// A batch of three records at `base`, its header changed as told.
    fn batch(base: i64, codec: Codec, change: impl FnOnce(&mut Vec<u8>)) -> RawBatch {
        let records: Vec<_> = (0..3).map(|n| Record::new(n, n, None, Some(b"value"), &[])).collect();
        let mut bytes = encode_one(&records, codec, Patch::NO_PRODUCER).to_bytes();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        change(&mut bytes);
        split(Bytes::from(bytes)).next().expect("a batch").expect("well formed")
    }

    fn choice(batch: &RawBatch, position: i64, rules: &Rules) -> Choice {
        choose(batch, position, false, rules, &mut Aborted::default()).expect("well formed")
    }

    const PLAIN: Rules = Rules { compacted: false, target_max_bytes: 1_000, target_codec: None, target_stamps: false };

    #[test]
    fn an_ordinary_batch_passes_whatever_its_codec_and_flags_that_the_patch_clears() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            assert_eq!(choice(&batch(10, codec, |_| {}), 10, &PLAIN), Choice::Pass);
            assert_eq!(choice(&batch(10, codec, |_| {}), 3, &PLAIN), Choice::Pass);
            assert_eq!(choice(&batch(10, codec, |bytes| bytes[22] |= 0x50), 10, &PLAIN), Choice::Pass);
        }
    }

    #[test]
    fn the_position_cuts() {
        let batch = batch(10, ZIPPED, |_| {});
        assert_eq!(choice(&batch, 11, &PLAIN), Choice::ReEncode(Reason::Tail));
        assert_eq!(choice(&batch, 12, &PLAIN), Choice::ReEncode(Reason::Tail));
        assert_eq!(choice(&batch, 13, &PLAIN), Choice::Drop(Left::Before));
    }

    #[test]
    fn what_produce_refuses_is_written_anew_or_left() {
        let hole = batch(0, ZIPPED, |bytes| bytes[26] = 7);
        assert_eq!(choice(&hole, 0, &PLAIN), Choice::ReEncode(Reason::Holes));
        let stamped = batch(0, ZIPPED, |bytes| bytes[22] |= 8);
        assert_eq!(choice(&stamped, 0, &PLAIN), Choice::ReEncode(Reason::AppendTime));
        assert_eq!(choice(&stamped, 0, &Rules { target_stamps: true, ..PLAIN }), Choice::Pass);
        let ordinary = batch(0, ZIPPED, |_| {});
        let size = ordinary.bytes().len();
        assert_eq!(choice(&ordinary, 0, &Rules { target_max_bytes: size, ..PLAIN }), Choice::Pass);
        let small = Rules { target_max_bytes: size - 1, ..PLAIN };
        assert_eq!(choice(&ordinary, 0, &small), Choice::ReEncode(Reason::Size));
        let empty = batch(0, ZIPPED, |bytes| bytes[60] = 0);
        assert_eq!(choice(&empty, 0, &PLAIN), Choice::Drop(Left::Empty));
        let control = batch(0, Codec::None, |bytes| bytes[22] |= 0x30);
        assert_eq!(choice(&control, 0, &PLAIN), Choice::Drop(Left::Control));
        let mut old = vec![0; 8];
        old.extend_from_slice(&[0, 0, 0, 14, 0, 0, 0, 0, 1]);
        old.extend_from_slice(&[0; 9]);
        let old = split(old.into()).next().expect("a message").expect("well formed");
        assert_eq!(choice(&old, 0, &PLAIN), Choice::ReEncode(Reason::OldFormat));
        assert_eq!(choice(&old, 1, &PLAIN), Choice::Drop(Left::Before));
    }

    #[test]
    fn lying_deltas_are_found_where_the_broker_would_not_look() {
        // The second record's delta, 1, becomes 2.
        let lie = |bytes: &mut Vec<u8>| {
            let second = HEADER_LEN + 1 + usize::from(bytes[HEADER_LEN]) / 2;
            assert_eq!(bytes[second + 3], 2);
            bytes[second + 3] = 4;
        };
        let lying = batch(0, Codec::None, lie);
        assert_eq!(choice(&lying, 0, &PLAIN), Choice::Pass);
        assert_eq!(choice(&lying, 0, &Rules { compacted: true, ..PLAIN }), Choice::ReEncode(Reason::Deltas));
        let suspect = choose(&lying, 0, true, &PLAIN, &mut Aborted::default());
        assert_eq!(suspect, Ok(Choice::ReEncode(Reason::Deltas)));
        assert_eq!(choice(&batch(0, Codec::None, |_| {}), 0, &Rules { compacted: true, ..PLAIN }), Choice::Pass);
    }

    #[test]
    fn aborted_transactions_stay_behind_as_the_java_consumer_leaves_them() {
        let data = |base, producer: u8| {
            batch(base, ZIPPED, |bytes| {
                bytes[22] |= 0x10;
                bytes[43..51].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, producer]);
            })
        };
        let marker = |base, producer: u8| {
            batch(base, Codec::None, |bytes| {
                bytes[22] |= 0x30;
                bytes[43..51].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, producer]);
            })
        };
        // Producer 7: committed, then aborted, then committed. Producer 8: aborted twice. Not in a transaction: producer 7 at the end.
        let plain = batch(60, ZIPPED, |bytes| bytes[50] = 7);
        let answer = [
            (data(0, 7), Choice::Pass),
            (marker(3, 7), Choice::Drop(Left::Control)),
            (data(10, 7), Choice::Drop(Left::Aborted)),
            (data(20, 8), Choice::Drop(Left::Aborted)),
            (data(25, 7), Choice::Drop(Left::Aborted)),
            (marker(30, 7), Choice::Drop(Left::Control)),
            (data(33, 7), Choice::Pass),
            (marker(36, 8), Choice::Drop(Left::Control)),
            (marker(40, 7), Choice::Drop(Left::Control)),
            (data(50, 8), Choice::Drop(Left::Aborted)),
            (plain, Choice::Pass),
        ];
        let mut aborted = Aborted::new([(8, 50), (7, 10), (8, 20)]);
        for (batch, expected) in answer {
            let chosen = choose(&batch, 0, false, &PLAIN, &mut aborted).expect("well formed");
            assert_eq!(chosen, expected, "{}", batch.offset());
        }
    }

    #[test]
    fn tiny_batches_are_merged_when_enough_of_them_wait() {
        let of = |sizes: &[(usize, Codec)], rules: &Rules| {
            merge(sizes.iter().map(|&(bytes, codec)| Waiting { bytes, codec }), rules)
        };
        let rules = Rules::default();
        assert_eq!(of(&[(100, ZIPPED); 7], &rules), 0);
        assert_eq!(of(&[(100, ZIPPED); 8], &rules), 8);
        assert_eq!(of(&[(4_096, ZIPPED); 80], &rules), 0);
        assert_eq!(of(&[(4_095, ZIPPED); 80], &rules), 32);
        assert_eq!(of(&[(4_095, ZIPPED); 80], &Rules { target_max_bytes: 80_000, ..rules }), 9);
        let mut mixed = vec![(100, ZIPPED); 9];
        mixed.push((100, Codec::None));
        mixed.extend([(100, ZIPPED); 9]);
        assert_eq!(of(&mixed, &rules), 9);
        mixed[3].0 = 5_000;
        assert_eq!(of(&mixed, &rules), 0);
    }

    #[test]
    fn records_written_anew_keep_their_codec_unless_the_target_insists() {
        let batch = batch(0, Codec::Gzip, |_| {});
        assert_eq!(codec(&batch, &PLAIN), Codec::Gzip);
        assert_eq!(codec(&batch, &Rules { target_codec: Some(Codec::Zstd), ..PLAIN }), Codec::Zstd);
    }
}
