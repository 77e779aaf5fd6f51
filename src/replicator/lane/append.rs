//! The target's side of a lane.

use std::sync::Arc;
use tokio::time::Instant;

use bytes::Bytes;

use super::{Lane, Prepared, State};
use crate::client::{ClientError, KafkaError, PartitionBatch, ProduceOutcome, TopicId};
use crate::kafka::batch::{Codec, Header, Limits, decode, encode_one, patch};
use crate::replicator::decide::batches::{self, Waiting};
use crate::replicator::decide::offset_map::Runs;
use crate::replicator::status::TroubleCode;

/// What an appender does next with a lane.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::replicator) enum After {
    /// More waits: list it again.
    Again,
    /// Nothing waits.
    Idle,
    /// Try again at this moment; the leader may be another one.
    Later {
        /// When.
        at: Instant,
        /// Whether metadata must be read first.
        refresh: bool,
    },
    /// It must be adopted again.
    Adopt,
}

/// What came of one append.
#[derive(Debug)]
pub(in crate::replicator) struct Settled {
    pub(in crate::replicator) after: After,
    /// The lane's fetcher passed by for lack of room, and now there is some.
    pub(in crate::replicator) room: bool,
}

impl Lane {
    /// The next batch for this broker, if there is one to send now. [`Lane::settle`] or [`Lane::append_failed`] must follow.
    pub(in crate::replicator) fn prepare(&self, node: i32, now: Instant) -> Option<PartitionBatch> {
        let mut state = self.lock();
        if !state.adopted || state.in_flight || state.doubt || state.target_leader != Some(node) {
            return None;
        }
        if state.append_trouble.after.is_some_and(|after| after > now) {
            return None;
        }
        if state.pending.is_none() {
            state.pending = state.next();
        }
        let pending = state.pending.as_ref()?;
        let batch = PartitionBatch {
            topic: Arc::clone(&self.target),
            topic_id: TopicId(state.target_id),
            partition: self.partition,
            header: pending.header,
            payload: pending.payload.clone(),
        };
        state.in_flight = true;
        Some(batch)
    }

    /// The whole request failed; what became of the batch is not known. With `ask` nothing is sent before the leader was asked.
    pub(in crate::replicator) fn append_failed(&self, error: &ClientError, ask: bool, now: Instant) -> Settled {
        let mut state = self.lock();
        state.in_flight = false;
        state.doubt(ask, now);
        let code = if error.is_authentication() { TroubleCode::Authentication } else { TroubleCode::TargetUnavailable };
        let at = state.append_trouble.note(code, format!("target: {error}"), now);
        state.give_back();
        state.settled(After::Later { at, refresh: true })
    }

    /// Takes the broker's word on the batch. With `ask` nothing is sent after a word that leaves it open before the leader was asked.
    pub(in crate::replicator) fn settle(&self, outcome: &ProduceOutcome, ask: bool, now: Instant) -> Settled {
        let mut state = self.lock();
        state.in_flight = false;
        let error = outcome.error.filter(|&error| error != KafkaError::DUPLICATE_SEQUENCE_NUMBER);
        let Some(error) = error else {
            state.acknowledge(outcome.base_offset);
            state.acked_at = Some(now);
            let more = state.pending.is_some() || !state.queue.is_empty();
            return state.settled(if more { After::Again } else { After::Idle });
        };
        let said = outcome.record_errors.first().and_then(|one| one.message.as_deref()).or(outcome.message.as_deref());
        let said = said.map_or_else(String::new, |said| format!(": {said}"));
        let at = match error {
            KafkaError::INVALID_RECORD | KafkaError::MESSAGE_TOO_LARGE | INVALID_TIMESTAMP | RECORD_LIST_TOO_LARGE => {
                // Exact where the batch has no holes.
                let index = outcome.record_errors.first().map_or(0, |one| i64::from(one.index.max(0)));
                format!(", source offset {} or next to it", state.acked.next_offset.saturating_add(index))
            }
            _ => String::new(),
        };
        let text = format!("partition {}{at}: the target answered {error}{said}", self.partition);
        let after = state.refused(error, text, now);
        // What passes by itself may have been written all the same: too few replicas in time, a leader that moved.
        let ask = ask && state.adopted;
        state.doubt(ask, now);
        state.settled(after)
    }

    /// Takes the leader's answer: the sequence of the last record that it remembers of this lane's producer, if any.
    ///
    /// A batch that it has is not sent again, for it may forget that it has it at any moment; one that it has not is.
    pub(in crate::replicator) fn answer(&self, last_sequence: Option<i32>, now: Instant) {
        let mut state = self.lock();
        if !state.doubt || state.in_flight {
            return;
        }
        let first = state.acked.next_sequence;
        let count = state.pending.as_ref().map_or(0, |pending| u64::from(pending.count.unsigned_abs()));
        match last_sequence.map(|last| super::later(last, 1)) {
            Some(next) if next == first => {}
            Some(next) if next == super::later(first, count) => {
                // Where it lies is looked for.
                state.acknowledge(-1);
                state.acked_at = Some(now);
            }
            _ => {
                state.adopted = false;
                state.rewind();
            }
        }
        state.doubt = false;
        state.doubted = None;
    }
}

impl State {
    /// Notes whether the leader must be asked before anything is sent again.
    fn doubt(&mut self, ask: bool, now: Instant) {
        self.doubt = ask && self.acked.producer_id >= 0 && self.pending.is_some();
        self.doubted = self.doubt.then_some(now);
    }

    /// Takes the next batch from the queue, tiny ones merged, and stamps it.
    fn next(&mut self) -> Option<Prepared> {
        let waiting = self
            .queue
            .iter()
            .map(|item| Waiting { bytes: item.batch.bytes().len(), codec: item.batch.codec().unwrap_or(Codec::None) });
        let crowd = batches::merge(waiting, &self.rules);
        if let Some(merged) = self.merged(crowd) {
            return Some(merged);
        }
        let item = self.queue.pop_front()?;
        self.queued_bytes -= item.batch.bytes().len();
        let header = patch(&item.batch, &self.stamp())?;
        let parsed = Header::parse(&header)?;
        self.counts.rewritten += u64::from(item.rewritten);
        Some(Prepared {
            header,
            payload: item.batch.payload(),
            runs: item.runs,
            count: parsed.count,
            next_offset: item.next_offset,
            leader_epoch: item.leader_epoch,
            max_timestamp: parsed.max_timestamp,
            rewritten: item.rewritten,
            _hold: item.hold,
        })
    }

    /// One batch of the first `crowd` in the queue; `None` where they cannot be merged after all.
    fn merged(&mut self, crowd: usize) -> Option<Prepared> {
        if crowd == 0 {
            return None;
        }
        let mut records = Vec::new();
        for item in self.queue.iter().take(crowd) {
            // Damage is found when the batch is sent by itself: the target's broker names it.
            records.extend(decode(&item.batch, Limits::default()).ok()?);
        }
        let codec = self.queue.front()?.batch.codec().ok()?;
        let encoded = encode_one(&records, codec, self.stamp());
        if encoded.len() > self.rules.target_max_bytes {
            return None;
        }
        let (mut last, mut runs) = (None, Runs::default());
        for item in self.queue.drain(..crowd) {
            self.queued_bytes -= item.batch.bytes().len();
            runs.append(&item.runs);
            last = Some(item);
        }
        let last = last?;
        self.counts.rewritten += 1;
        Some(Prepared {
            header: encoded.header,
            payload: encoded.payload,
            runs,
            count: encoded.count,
            next_offset: last.next_offset,
            leader_epoch: last.leader_epoch,
            max_timestamp: records.iter().map(|record| record.timestamp).max().unwrap_or(-1),
            rewritten: true,
            _hold: last.hold,
        })
    }

    fn acknowledge(&mut self, base_offset: i64) {
        let Some(done) = self.pending.take() else { return };
        let count = done.count.unsigned_abs();
        self.offsets.acknowledged(done.runs, base_offset, self.acked.next_sequence);
        self.acked.next_offset = done.next_offset;
        self.acked.leader_epoch = done.leader_epoch;
        self.acked.next_sequence = super::later(self.acked.next_sequence, u64::from(count));
        if base_offset >= 0 {
            self.acked.target_offset = base_offset + i64::from(count);
        }
        self.acked_time = done.max_timestamp;
        self.counts.records += u64::from(count);
        self.counts.bytes += (done.header.len() + done.payload.len()) as u64;
        self.append_trouble.clear();
        self.open_next = false;
    }

    /// What to do about an error for this partition.
    fn refused(&mut self, error: KafkaError, text: String, now: Instant) -> After {
        let rewritten = self.pending.as_ref().is_some_and(|pending| pending.rewritten);
        let single = self.pending.as_ref().is_some_and(|pending| pending.count == 1);
        let code = match error {
            KafkaError::OUT_OF_ORDER_SEQUENCE_NUMBER | KafkaError::INVALID_PRODUCER_EPOCH | UNKNOWN_PRODUCER_ID => {
                self.append_trouble.note(TroubleCode::Sequence, text, now);
                self.adopted = false;
                self.rewind();
                return After::Adopt;
            }
            KafkaError::MESSAGE_TOO_LARGE | RECORD_LIST_TOO_LARGE if !single => {
                // The topic's limit is lower than its configs said, or was when they were read: cut smaller.
                let size = self.pending.as_ref().map_or(0, |pending| pending.header.len() + pending.payload.len());
                self.rules.target_max_bytes = (size / 2).max(1);
                self.open_next = true;
                self.rewind();
                return After::Idle;
            }
            KafkaError::MESSAGE_TOO_LARGE | RECORD_LIST_TOO_LARGE => TroubleCode::TooLarge,
            KafkaError::INVALID_RECORD | KafkaError::UNKNOWN_SERVER_ERROR if !rewritten => {
                // Perhaps inner deltas that only a broker sees: once more, written anew.
                self.open_next = true;
                self.rewind();
                return After::Idle;
            }
            // The bytes may have been damaged between the source's disk and here; after that the source itself has them so.
            KafkaError::CORRUPT_MESSAGE if self.append_trouble.times < super::GIVE_BACK => {
                let at = self.append_trouble.note(TroubleCode::TargetUnavailable, text, now);
                self.rewind();
                return After::Later { at, refresh: false };
            }
            KafkaError::CORRUPT_MESSAGE => TroubleCode::Damaged,
            KafkaError::TOPIC_AUTHORIZATION_FAILED | CLUSTER_AUTHORIZATION_FAILED => TroubleCode::TargetAuthorization,
            _ if error.is_retriable() => TroubleCode::TargetUnavailable,
            _ => TroubleCode::Refused,
        };
        let at = self.append_trouble.note(code, text, now);
        if !code.passes() {
            // A refusal is an outcome: nothing was written, so all of it may be fetched again.
            self.rewind();
        }
        self.give_back();
        After::Later { at, refresh: error.is_stale_leader() }
    }

    /// After failures in a row, lets go of what others could use the memory for. The batch under way stays: it may be written already.
    fn give_back(&mut self) {
        if self.append_trouble.times != super::GIVE_BACK {
            return;
        }
        self.queue.clear();
        self.queued_bytes = 0;
        self.generation += 1;
        self.suspect = true;
        self.position = self.pending.as_ref().map_or(self.acked.next_offset, |pending| pending.next_offset);
        if let Some(pending) = &mut self.pending {
            // A copy of its own, so that it does not keep the whole answer that it came in.
            pending.payload = Bytes::copy_from_slice(&pending.payload);
            pending._hold = pending._hold.another(pending.payload.len());
        }
    }

    fn settled(&mut self, after: After) -> Settled {
        Settled { after, room: std::mem::take(&mut self.starved) }
    }
}

/// 18: the batch is larger than a segment.
const RECORD_LIST_TOO_LARGE: KafkaError = known(18);
/// 32: outside `message.timestamp.before.max.ms` or `after.max.ms`.
const INVALID_TIMESTAMP: KafkaError = known(32);
/// 31: no permission on the cluster (idempotent writes before 3.0).
const CLUSTER_AUTHORIZATION_FAILED: KafkaError = known(31);
/// 59: the broker has forgotten the producer.
const UNKNOWN_PRODUCER_ID: KafkaError = known(59);

const fn known(code: i16) -> KafkaError {
    match KafkaError::from_code(code) {
        Some(error) => error,
        None => panic!("0 is no error"),
    }
}
