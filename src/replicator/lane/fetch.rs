//! The source's side of a lane.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::time::Instant;

use super::{Hold, Item, Lane, State};
use crate::client::{ClientError, FetchPartition, FetchedPartition, KafkaError, TopicId};
use crate::kafka::batch::{BatchError, Limits, Patch, RawBatch, decode, encode, split};
use crate::replicator::decide::batches::{self, Aborted, Choice, Left};
use crate::replicator::decide::offset_map::Runs;
use crate::replicator::decide::position::Start;
use crate::replicator::decide::provenance::{Origin, Provenance};
use crate::replicator::status::TroubleCode;

/// Bytes asked of a partition at once: a megabyte is a full batch of Kafka's default size, and many producers' batches.
pub(super) const FIRST_BYTES: i32 = 1 << 20;
/// Bytes asked of a partition that has given full answers.
const LARGE_BYTES: i32 = 4 << 20;
/// A larger batch than this is not copied (Kafka's own bound for a request is 100 MiB).
const MOST_BYTES: i32 = 64 << 20;
/// Bytes that wait in a lane before no more is fetched for it.
const ROOM: usize = 4 << 20;

/// What a lane wants of a fetcher.
#[derive(Debug)]
pub(in crate::replicator) enum Want {
    /// This.
    Fetch(FetchPartition, Asked),
    /// Nothing before something was appended.
    Full,
    /// Nothing before this moment.
    Later(Instant),
    /// Nothing: paused, not adopted, under way elsewhere, led by another broker, or stuck at the target.
    Nothing,
}

/// What a fetch was for.
#[derive(Debug, Clone, Copy)]
pub(in crate::replicator) struct Asked {
    generation: u64,
}

/// What came of a fetch.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::replicator) enum Taken {
    /// Batches wait.
    Queued,
    /// Nothing new.
    Nothing,
    /// The offset is outside the source's log: ask for its bounds, then [`Lane::jump`].
    OutOfRange(i64),
    /// The leader is another one.
    Moved,
}

impl Lane {
    /// What to fetch from this broker now. Where it says [`Want::Fetch`], [`Lane::take`] or [`Lane::fetch_failed`] must follow.
    pub(in crate::replicator) fn want(&self, node: i32, now: Instant) -> Want {
        let mut state = self.lock();
        let paused = self.paused.load(Ordering::Relaxed);
        if paused || !state.adopted || state.fetching || state.source_leader != Some(node) {
            return Want::Nothing;
        }
        if let Some(after) = state.fetch_trouble.after.filter(|&after| after > now) {
            return Want::Later(after);
        }
        let stuck = state.append_trouble.times >= super::GIVE_BACK && state.pending.is_some();
        if stuck || state.queued_bytes >= ROOM {
            state.starved = true;
            // What is stuck is not worth hurrying back for.
            return if stuck { Want::Nothing } else { Want::Full };
        }
        state.fetching = true;
        let partition = FetchPartition {
            topic: Arc::clone(&self.source),
            topic_id: TopicId(state.source_id),
            partition: self.partition,
            offset: state.position,
            leader_epoch: state.source_epoch,
            max_bytes: state.fetch_bytes,
        };
        Want::Fetch(partition, Asked { generation: state.generation })
    }

    /// The whole request failed.
    pub(in crate::replicator) fn fetch_failed(&self, error: &ClientError, now: Instant) -> Instant {
        let mut state = self.lock();
        state.fetching = false;
        state.fetch_trouble.note(code_of(error), format!("source: {error}"), now)
    }

    /// What was fetched cannot be taken, because it cannot be told whose it is.
    pub(in crate::replicator) fn leave(&self, code: TroubleCode, text: String, now: Instant) {
        let mut state = self.lock();
        state.fetching = false;
        let _ = state.fetch_trouble.note(code, text, now);
    }

    /// Takes what was fetched.
    pub(in crate::replicator) fn take(
        &self,
        asked: Asked,
        answer: FetchedPartition,
        (read_committed, known): (bool, &Provenance),
        hold: &Arc<Hold>,
        now: Instant,
    ) -> Taken {
        let mut state = self.lock();
        state.fetching = false;
        if asked.generation != state.generation || !state.adopted {
            return Taken::Nothing;
        }
        if let Some(error) = answer.error {
            return self.refused(&mut state, error, now);
        }
        let end = if read_committed && answer.last_stable_offset >= 0 {
            answer.last_stable_offset
        } else {
            answer.high_watermark
        };
        state.source_end = end.max(state.position);
        let waiting = state.queue.len();
        let aborted = answer.aborted_transactions.iter().map(|one| (one.producer_id, one.first_offset));
        let mut aborted = Aborted::new(aborted);
        let bytes = answer.records.len();
        let mut batches = split(answer.records);
        let mut found = false;
        let mut whose = (-1, Origin::Here);
        for batch in &mut batches {
            found = true;
            let producer_id = batch.as_ref().ok().and_then(RawBatch::header).map_or(-1, |header| header.producer_id);
            if producer_id != whose.0 {
                whose = (producer_id, known.origin(producer_id));
            }
            if whose.1 == Origin::Unknown {
                // Forgotten since it was asked for: once more, from here on.
                break;
            }
            let looped = whose.1 == Origin::Target;
            if let Err(error) = batch.and_then(|batch| state.take(batch, looped, &mut aborted, hold)) {
                let code = match error {
                    BatchError::RecordTooLarge { .. } => TroubleCode::TooLarge,
                    _ => TroubleCode::Damaged,
                };
                state.fetch_trouble.note(code, format!("partition {}: {error}", self.partition), now);
                return if state.queue.len() > waiting { Taken::Queued } else { Taken::Nothing };
            }
        }
        if !found && bytes > 0 {
            // Brokers before 3 MiB-and-more batches were common cut the first batch short: ask for more of it.
            if state.fetch_bytes >= MOST_BYTES {
                let text = format!("partition {}: a batch is larger than {MOST_BYTES} bytes", self.partition);
                state.fetch_trouble.note(TroubleCode::TooLarge, text, now);
                return Taken::Nothing;
            }
            state.fetch_bytes = state.fetch_bytes.saturating_mul(2).min(MOST_BYTES);
        } else if found {
            // A full answer means that more waits: larger ones cost fewer round trips, which matters over a long way.
            let full = bytes >= usize::try_from(state.fetch_bytes).unwrap_or(0) / 4 * 3;
            let next = if full { state.fetch_bytes.saturating_mul(2) } else { FIRST_BYTES };
            state.fetch_bytes = next.min(LARGE_BYTES);
        }
        state.fetch_trouble.clear();
        if state.queue.len() > waiting { Taken::Queued } else { Taken::Nothing }
    }

    fn refused(&self, state: &mut State, error: KafkaError, now: Instant) -> Taken {
        if error == KafkaError::OFFSET_OUT_OF_RANGE {
            return Taken::OutOfRange(state.position);
        }
        let code = if error == KafkaError::TOPIC_AUTHORIZATION_FAILED {
            TroubleCode::SourceAuthorization
        } else {
            TroubleCode::SourceUnavailable
        };
        let text = format!("partition {}: the source answered {error}", self.partition);
        state.fetch_trouble.note(code, text, now);
        if error.is_stale_leader() { Taken::Moved } else { Taken::Nothing }
    }

    /// Goes on where the source's log allows it, after [`Taken::OutOfRange`]. What waits is appended first.
    pub(in crate::replicator) fn jump(&self, from: i64, to: Start, end: i64, now: Instant) -> bool {
        let mut state = self.lock();
        if state.position != from {
            return false;
        }
        state.source_end = end;
        if to.event.is_none() {
            // The bounds hold the offset after all: a follower or a stale leader answered.
            let text = format!("partition {}: the source disagrees with itself about offset {from}", self.partition);
            state.fetch_trouble.note(TroubleCode::SourceUnavailable, text, now);
            return false;
        }
        if state.skip > 0 {
            // Some of the records that the target has are among those that are gone: adoption finds out which.
            state.adopted = false;
            if !state.in_flight {
                state.rewind();
            }
            return false;
        }
        state.position = to.offset;
        state.generation += 1;
        state.suspect = true;
        state.advance(to.offset);
        true
    }
}

impl State {
    /// Takes the next batch: queues it, opens it, or leaves it behind.
    fn take(
        &mut self,
        batch: RawBatch,
        looped: bool,
        aborted: &mut Aborted,
        hold: &Arc<Hold>,
    ) -> Result<(), BatchError> {
        let rules = self.rules;
        let choice = batches::choose(&batch, self.position, self.suspect, &rules, aborted)?;
        let choice = if looped && choice != Choice::Drop(Left::Before) { Choice::Drop(Left::Looped) } else { choice };
        let next = batch.next_offset();
        let count = batch.header().map_or(0, |header| header.count).unsigned_abs();
        match choice {
            Choice::Drop(Left::Before) => return Ok(()),
            Choice::Drop(Left::Looped) => {
                self.counts.looped += 1;
                self.counts.looped_records += u64::from(count);
                self.counts.looped_bytes += batch.bytes().len() as u64;
                self.advance(next);
            }
            Choice::Drop(_) => self.advance(next),
            Choice::Pass if !self.open_next && self.skip == 0 => {
                let epoch = epoch_of(&batch);
                let runs = dense(&batch);
                self.push(batch, runs, next, epoch, false, Arc::clone(hold));
            }
            Choice::Pass if !self.open_next && self.skip >= u64::from(count) => {
                self.skip -= u64::from(count);
                self.offsets.skipped(dense(&batch), self.acked.next_sequence);
                self.acked.next_sequence = super::later(self.acked.next_sequence, u64::from(count));
                self.advance(next);
            }
            Choice::Pass | Choice::ReEncode(_) => self.open(&batch, next, hold)?,
        }
        self.position = next;
        self.suspect = false;
        Ok(())
    }

    /// Writes the records of a batch anew, from the position on and without those that the target has.
    fn open(&mut self, batch: &RawBatch, next: i64, hold: &Arc<Hold>) -> Result<(), BatchError> {
        let mut records = decode(batch, Limits::default())?;
        records.retain(|record| record.offset >= self.position);
        let known = usize::try_from(self.skip).unwrap_or(usize::MAX).min(records.len());
        let fresh = records.split_off(known);
        let codec = batches::codec(batch, &self.rules);
        let encoded = encode(&fresh, codec, self.rules.target_max_bytes, Patch::NO_PRODUCER)?;
        self.skip -= known as u64;
        self.offsets.skipped(Runs::of(records.iter().map(|record| record.offset)), self.acked.next_sequence);
        self.acked.next_sequence = super::later(self.acked.next_sequence, known as u64);
        let Some(first) = fresh.first() else {
            self.advance(next);
            return Ok(());
        };
        if known > 0 {
            // What the target has of this batch is done, so that the sequence above belongs to this offset.
            self.advance(first.offset);
        }
        let last = encoded.len().saturating_sub(1);
        let mut offsets = fresh.iter().map(|record| record.offset);
        for (index, encoded) in encoded.into_iter().enumerate() {
            let next = if index == last { next } else { encoded.last_offset + 1 };
            let runs = Runs::of(offsets.by_ref().take(usize::try_from(encoded.count).unwrap_or(0)));
            let bytes = encoded.to_bytes();
            let copy = hold.another(bytes.len());
            let written = split(bytes.into()).next().and_then(Result::ok).expect("what was just written is a batch");
            self.push(written, runs, next, epoch_of(batch), true, copy);
        }
        Ok(())
    }

    fn push(
        &mut self,
        batch: RawBatch,
        runs: Runs,
        next_offset: i64,
        leader_epoch: i32,
        rewritten: bool,
        hold: Arc<Hold>,
    ) {
        self.queued_bytes += batch.bytes().len();
        self.queue.push_back(Item { batch, runs, next_offset, leader_epoch, rewritten, hold });
    }
}

/// Offsets of a batch that passes as it is.
fn dense(batch: &RawBatch) -> Runs {
    Runs::dense(batch.offset(), batch.header().map_or(0, |header| header.count))
}

fn epoch_of(batch: &RawBatch) -> i32 {
    batch.header().map_or(-1, |header| header.partition_leader_epoch)
}

fn code_of(error: &ClientError) -> TroubleCode {
    if error.is_authentication() { TroubleCode::Authentication } else { TroubleCode::SourceUnavailable }
}
