//! Which of the source's records stand at the end of a copy, told by the copy itself.
//!
//! Counting is enough where a second reading of the source counts as the first did. It does not where compaction or retention took
//! records in between: there the records at the copy's end are matched with those that the source still has, by content.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use crate::kafka::batch::{BatchError, Limits, RawBatch, Record, decode};

/// A record's content: key, value, headers and, where both sides keep it, its time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark(u64, u64);

impl Mark {
    /// The mark of a record; `times` is false where the copy has other times than the source.
    #[must_use]
    pub fn new(record: &Record, times: bool) -> Self {
        let half = |seed: u8| {
            let mut hasher = DefaultHasher::new();
            seed.hash(&mut hasher);
            if times {
                record.timestamp.hash(&mut hasher);
            }
            record.body.hash(&mut hasher);
            hasher.finish()
        };
        Self(half(0), half(1))
    }
}

/// What one producer wrote to the end of a copy, from a known sequence on.
#[derive(Debug)]
pub struct Tail {
    producer_id: i64,
    epoch: i16,
    /// The sequence that comes first.
    first: i32,
    /// Whether contents are marked, and whether with times.
    marks: Option<bool>,
    records: u64,
    end: i64,
    found: Vec<(u64, Mark)>,
}

/// Sequences that are further on than this are behind: they wrap at 2^31.
const HALF: u32 = 1 << 30;

impl Tail {
    /// Of this producer, from this sequence on. `marks` says whether contents are wanted, and whether times belong to them.
    #[must_use]
    pub const fn new(producer_id: i64, epoch: i16, first: i32, marks: Option<bool>) -> Self {
        Self { producer_id, epoch, first, marks, records: 0, end: -1, found: Vec::new() }
    }

    /// Takes the next batch of the copy, whoever wrote it.
    ///
    /// # Errors
    /// [`BatchError`] where contents are wanted and it cannot be opened.
    pub fn take(&mut self, batch: &RawBatch) -> Result<(), BatchError> {
        let Some(header) = batch.header() else { return Ok(()) };
        if header.producer_id != self.producer_id || header.producer_epoch != self.epoch || header.is_control() {
            return Ok(());
        }
        let at = header.base_sequence.wrapping_sub(self.first).cast_unsigned() & 0x7fff_ffff;
        let after = u64::from(at) + u64::from(header.last_offset_delta.unsigned_abs()) + 1;
        if header.base_sequence < 0 || at >= HALF {
            return Ok(());
        }
        self.records = self.records.max(after);
        self.end = self.end.max(batch.next_offset());
        let Some(times) = self.marks else { return Ok(()) };
        for record in decode(batch, Limits::default())? {
            let index = u64::from(at) + record.offset.wrapping_sub(header.base_offset).cast_unsigned();
            self.found.push((index, Mark::new(&record, times)));
        }
        Ok(())
    }

    /// Records that were written, those among them that the copy lost since by compaction.
    #[must_use]
    pub const fn records(&self) -> u64 {
        self.records
    }

    /// The offset after the last of them, -1 where there is none.
    #[must_use]
    pub const fn end(&self) -> i64 {
        self.end
    }
}

/// The source's records from the progress on, as far as the copy may have them.
#[derive(Debug)]
pub struct Survivors {
    /// Where reading was to go on.
    from: i64,
    /// First offset that is not looked at yet.
    next: i64,
    /// Whether no offset is missing so far.
    dense: bool,
    most: u64,
    records: Vec<(i64, Mark)>,
}

impl Survivors {
    /// Those from offset `from` on; `most` are enough.
    #[must_use]
    pub const fn new(from: i64, most: u64) -> Self {
        Self { from, next: from, dense: true, most, records: Vec::new() }
    }

    /// Takes the next batch. `copied` is false where it is of those that are never copied. True while more are wanted.
    ///
    /// # Errors
    /// [`BatchError`] where it cannot be opened.
    pub fn take(&mut self, batch: &RawBatch, copied: bool, times: bool) -> Result<bool, BatchError> {
        if copied {
            for record in decode(batch, Limits::default())? {
                if record.offset < self.next {
                    continue;
                }
                self.dense &= record.offset == self.next;
                self.next = record.offset + 1;
                self.records.push((record.offset, Mark::new(&record, times)));
                if self.records.len() as u64 >= self.most {
                    return Ok(false);
                }
            }
        } else {
            self.dense &= batch.offset() <= self.next;
        }
        self.dense &= batch.next_offset() <= self.next || !copied;
        self.next = self.next.max(batch.next_offset());
        Ok(true)
    }
}

/// The first source offset that the copy does not have.
///
/// `compacted` says whether source or copy may have lost records in their midst; else only the source's oldest are gone.
#[must_use]
pub fn next_offset(tail: &Tail, survivors: &Survivors, compacted: bool) -> i64 {
    let (found, records) = (&tail.found, &survivors.records);
    let after = |count: u64| match usize::try_from(count).ok().and_then(|count| count.checked_sub(1)) {
        None => Some(survivors.from),
        Some(last) => records.get(last).map(|(offset, _)| offset + 1),
    };
    if survivors.dense
        && records.len() as u64 >= tail.records
        && let Some(offset) = after(tail.records)
    {
        return offset;
    }
    if !compacted && found.len() as u64 == tail.records {
        // The source's oldest are gone, some of them copied: what is left of the copied is the end of the tail. The first record that
        // is there follows as many offsets that are not, of which each was a record at most.
        let missing = records.first().map_or(i64::MAX, |(offset, _)| offset.saturating_sub(survivors.from));
        let most = usize::try_from(missing).unwrap_or(usize::MAX).min(found.len());
        for gone in (0..=most).rev() {
            let left = &found[gone..];
            if left.len() <= records.len() && left.iter().zip(records).all(|(tail, record)| tail.1 == record.1) {
                let first = records.first().map_or(survivors.next, |(offset, _)| *offset);
                return left.len().checked_sub(1).map_or(first, |last| records[last].0 + 1);
            }
        }
    }
    last_match(survivors.from, found, records)
}

/// The offset after the last record that both have, matched in order.
fn last_match(from: i64, found: &[(u64, Mark)], records: &[(i64, Mark)]) -> i64 {
    let mut places: HashMap<Mark, Vec<u64>> = HashMap::new();
    for (index, mark) in found {
        places.entry(*mark).or_default().push(*index);
    }
    let (mut at, mut next) = (0, from);
    for (offset, mark) in records {
        let Some(places) = places.get(mark) else { continue };
        let place = places.get(places.partition_point(|&place| place < at)).copied();
        // As many records stand before it as there are offsets before it, at most.
        let most = offset.saturating_sub(from).cast_unsigned();
        if let Some(place) = place.filter(|&place| place <= most) {
            at = place + 1;
            next = offset + 1;
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::batch::{Codec, Patch, encode_one, split};
    use proptest::prelude::*;

    fn record(offset: i64, content: u8) -> Record {
        Record::new(offset, 5, Some(&[content]), Some(&[content]), &[])
    }

    /// One batch with what is left of `records`, at a copy's offset or a source's.
    fn batch(base: i64, records: &[Record], patch: Patch) -> RawBatch {
        let mut bytes = encode_one(records, Codec::None, patch).to_bytes();
        bytes[..8].copy_from_slice(&base.to_be_bytes());
        split(bytes.into()).next().expect("a batch").expect("well formed")
    }

    fn tail(records: &[u8]) -> Tail {
        let stamp = |n: usize| Patch { producer_id: 7, epoch: 0, base_sequence: 100 + n as i32 };
        let mut tail = Tail::new(7, 0, 100, Some(true));
        for (n, content) in records.iter().enumerate() {
            let one = batch(n as i64, &[record(0, *content)], stamp(n));
            tail.take(&one).expect("well formed");
        }
        tail
    }

    fn survivors(from: i64, most: u64, records: &[(i64, u8)]) -> Survivors {
        let mut survivors = Survivors::new(from, most);
        for (offset, content) in records {
            let more = survivors.take(&batch(*offset, &[record(*offset, *content)], Patch::NO_PRODUCER), true, true);
            if more == Ok(false) {
                break;
            }
        }
        survivors
    }

    #[test]
    fn what_others_wrote_and_what_was_before_is_not_counted() {
        let mut tail = Tail::new(7, 0, 100, None);
        for (producer_id, epoch, base_sequence) in [(8, 0, 100), (7, 1, 100), (7, 0, 90), (-1, -1, -1)] {
            let other = batch(0, &[record(0, 1)], Patch { producer_id, epoch, base_sequence });
            tail.take(&other).expect("well formed");
        }
        assert_eq!(tail.records(), 0);
        let ours = Patch { producer_id: 7, epoch: 0, base_sequence: 104 };
        tail.take(&batch(0, &[record(0, 1), record(1, 2)], ours)).expect("well formed");
        assert_eq!(tail.records(), 6);
    }

    #[test]
    fn an_untouched_source_is_counted_whatever_its_contents() {
        let same = survivors(10, 3, &[(10, 1), (11, 1), (12, 1), (13, 1)]);
        assert_eq!(next_offset(&tail(&[1, 1, 1]), &same, true), 13);
    }

    #[test]
    fn deleted_records_leave_the_end_of_the_copied_ones_also_where_contents_are_alike() {
        let source = survivors(10, 4, &[(12, 1), (13, 1), (14, 1), (15, 1)]);
        assert_eq!(next_offset(&tail(&[1, 1, 1, 1]), &source, false), 14);
        // All copied ones are gone.
        let source = survivors(10, 2, &[(40, 1), (41, 1)]);
        assert_eq!(next_offset(&tail(&[1, 1]), &source, false), 40);
        // Markers took offsets: contents tell that fewer records are gone than offsets.
        let source = survivors(10, 4, &[(13, 3), (14, 4), (15, 5)]);
        assert_eq!(next_offset(&tail(&[1, 2, 3, 4]), &source, false), 15);
    }

    proptest! {
        /// A source of distinct records, some copied, then source and copy compacted by any choice: found is always the offset after
        /// the last copied record that is left, or one before which nothing but records that are gone stands.
        #[test]
        fn compaction_on_both_sides_is_seen_through(
            copied in 1_usize..30, fresh in 0_usize..10, gone in any::<u64>(), lost in any::<u64>(),
        ) {
            let all: Vec<(i64, u8)> = (0..copied + fresh).map(|n| (n as i64, n as u8)).collect();
            let left: Vec<_> = all.iter().copied().filter(|(n, _)| gone >> n & 1 == 0).collect();
            let mut tail = tail(&(0..copied as u8).collect::<Vec<_>>());
            // The copy lost only what the source lost too, or what a later record of it replaced; never the newest.
            tail.found.retain(|(n, _)| *n + 1 == copied as u64 || gone >> n & 1 == 0 || lost >> n & 1 == 0);
            let next = next_offset(&tail, &survivors(0, copied as u64, &left), true);
            let copied = copied as i64;
            prop_assert!(left.iter().all(|(n, _)| (*n >= next) == (*n >= copied)), "{next} of {copied}: {left:?}");
        }
    }
}
