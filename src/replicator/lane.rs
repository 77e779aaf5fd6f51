//! One partition on its way from source to target: what is fetched, what waits, what is acknowledged.
//!
//! A lane never waits and holds no socket: fetchers and appenders ask it what to do next and tell it what came of it. Order is kept
//! because one batch at most is under way; a batch whose outcome is unknown is sent again, byte for byte under the same sequence, only
//! after the leader said that it remembers the producer and so will tell whether it has the batch.

mod append;
mod fetch;
mod offsets;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use bytes::Bytes;

use super::budget::Hold;
use super::decide::guard::{self, Guard};
use super::decide::offset_map::{Recorder, Runs};
use super::decide::progress::Progress;
use super::decide::{TopicId, batches};
use super::status::{Reason, TroubleCode};
use crate::kafka::batch::{HEADER_LEN, Patch, RawBatch};
use crate::lifecycle::Backoff;

pub(super) use append::After;
pub(super) use fetch::{Asked, Taken, Want};

/// One partition. Shared by its fetcher, its appender and the supervisor.
#[derive(Debug)]
pub(super) struct Lane {
    /// Name at the source.
    pub(super) source: Arc<str>,
    /// Name at the target.
    pub(super) target: Arc<str>,
    /// Partition, the same on both sides.
    pub(super) partition: i32,
    /// The operator paused it: nothing is fetched; what was fetched is still appended.
    paused: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Not adopted (again) yet, or stopped: nothing is fetched or appended.
    adopted: bool,
    /// Was adopted once.
    begun: bool,
    source_id: TopicId,
    target_id: TopicId,
    source_leader: Option<i32>,
    source_epoch: i32,
    target_leader: Option<i32>,
    rules: batches::Rules,
    /// Next offset to fetch.
    position: i64,
    /// Rises at each rewind, so that answers to older questions are not taken.
    generation: u64,
    /// Records, from the position on, that the target has already.
    skip: u64,
    /// Whether the next batch comes after a jump.
    suspect: bool,
    /// Whether the next batch must be opened, because the target did not take it as it was.
    open_next: bool,
    fetching: bool,
    fetch_bytes: i32,
    /// What may be read at the source ends here.
    source_end: i64,
    queue: VecDeque<Item>,
    queued_bytes: usize,
    /// A fetcher passed by for lack of room.
    starved: bool,
    pending: Option<Prepared>,
    in_flight: bool,
    /// What became of `pending` is not known: it stays here until the leader was asked.
    doubt: bool,
    acked: Progress,
    /// Where the records of what was acknowledged lie.
    offsets: Recorder,
    /// What the progress topic says, to see whether it is to be written.
    stored: Option<(i64, i64, i32)>,
    /// Newest time in the last acknowledged batch.
    acked_time: i64,
    /// When it was acknowledged.
    acked_at: Option<Instant>,
    /// Since when the outcome of `pending` is not known.
    doubted: Option<Instant>,
    fetch_trouble: Trouble,
    append_trouble: Trouble,
    counts: Counts,
}

/// Whether an outcome is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doubt {
    /// None is.
    None,
    /// It may still change by itself.
    Wait,
    /// The leader is to be asked.
    Ask,
}

/// What a lane did since the start of the process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) records: u64,
    pub(super) bytes: u64,
    pub(super) rewritten: u64,
    /// Batches, their records and bytes, that came from the target and so stay here.
    pub(super) looped: u64,
    pub(super) looped_records: u64,
    pub(super) looped_bytes: u64,
}

/// A batch that waits: of magic 2, dense, within the target's size.
#[derive(Debug)]
struct Item {
    batch: RawBatch,
    /// Offsets of its records at the source.
    runs: Runs,
    next_offset: i64,
    leader_epoch: i32,
    rewritten: bool,
    hold: Arc<Hold>,
}

/// A batch under way, or to be sent again.
#[derive(Debug)]
struct Prepared {
    header: [u8; HEADER_LEN],
    payload: Bytes,
    /// Offsets of its records at the source.
    runs: Runs,
    count: i32,
    next_offset: i64,
    leader_epoch: i32,
    max_timestamp: i64,
    rewritten: bool,
    /// Counts the payload against the fetcher's budget for as long as it lives.
    _hold: Arc<Hold>,
}

/// What stands in a lane's way on one side.
#[derive(Debug)]
struct Trouble {
    reason: Option<Reason>,
    times: u32,
    /// When to try again.
    after: Option<Instant>,
    backoff: Backoff,
}

/// First and longest pause after failures that pass by themselves.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// Pause after failures that somebody must do something about.
const LONG_PAUSE: Duration = Duration::from_secs(30);
/// Failures in a row after which a lane gives back what it holds, so that lanes that can move are not starved by it.
const GIVE_BACK: u32 = 3;

impl Trouble {
    fn new() -> Self {
        Self { reason: None, times: 0, after: None, backoff: Backoff::new(PAUSE.0, PAUSE.1) }
    }

    fn clear(&mut self) {
        if self.times > 0 {
            *self = Self::new();
        }
    }

    /// Notes a failure and returns when to try again.
    fn note(&mut self, code: TroubleCode, text: String, now: Instant) -> Instant {
        self.times += 1;
        // No randomness is needed: lanes of one broker come back together in one request anyway.
        let pause = if code.passes() { self.backoff.next(u32::MAX / 2) } else { LONG_PAUSE };
        let after = now + pause;
        self.reason = Some(Reason { code, text });
        self.after = Some(after);
        after
    }
}

/// Where a lane begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Adopted {
    /// Acknowledged so far; its `next_offset` is where reading begins.
    pub(super) progress: Progress,
    /// Records from there on that the target has already.
    pub(super) skip: u64,
    /// Where the source ends now.
    pub(super) source_end: i64,
}

/// What a lane shows.
#[derive(Debug, Clone)]
pub(super) struct LaneStatus {
    pub(super) counts: Counts,
    pub(super) lag: u64,
    pub(super) acked_time: i64,
    pub(super) guard: Guard,
    pub(super) reason: Option<Reason>,
}

impl Lane {
    pub(super) fn new(source: Arc<str>, target: Arc<str>, partition: i32) -> Self {
        let state = State {
            adopted: false,
            begun: false,
            source_id: TopicId::default(),
            target_id: TopicId::default(),
            source_leader: None,
            source_epoch: -1,
            target_leader: None,
            rules: batches::Rules::default(),
            position: 0,
            generation: 0,
            skip: 0,
            suspect: true,
            open_next: false,
            fetching: false,
            fetch_bytes: fetch::FIRST_BYTES,
            source_end: 0,
            queue: VecDeque::new(),
            queued_bytes: 0,
            starved: false,
            pending: None,
            in_flight: false,
            doubt: false,
            acked: Progress::default(),
            offsets: Recorder::new(),
            stored: None,
            acked_time: -1,
            acked_at: None,
            doubted: None,
            fetch_trouble: Trouble::new(),
            append_trouble: Trouble::new(),
            counts: Counts::default(),
        };
        Self { source, target, partition, paused: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Stops or starts fetching, by the operator's word.
    pub(super) fn set_paused(&self, paused: bool) {
        self.paused.store(paused, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock leaves it half done, so a panic elsewhere is no reason to stop this lane.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Spreads lanes over connections: the same lane always has the same.
    pub(super) fn slot(&self, slots: u16) -> u16 {
        let hash = self
            .source
            .bytes()
            .fold(self.partition as u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        // Neighbouring partitions on neighbouring connections.
        ((hash >> 16).wrapping_add(self.partition as u32) % u32::from(slots)) as u16
    }

    /// Sets what both clusters say of the partition. True when a leader moved.
    pub(super) fn locate(
        &self,
        source: (TopicId, Option<i32>, i32),
        target: (TopicId, Option<i32>),
        rules: batches::Rules,
    ) -> bool {
        let mut state = self.lock();
        let moved = (state.source_leader, state.target_leader) != (source.1, target.1);
        (state.source_id, state.source_leader, state.source_epoch) = source;
        (state.target_id, state.target_leader) = target;
        let max = state.rules.target_max_bytes;
        state.rules = rules;
        if state.open_next {
            // The target told us a smaller size than its configs do; believe it until that batch is through.
            state.rules.target_max_bytes = max.min(rules.target_max_bytes);
        }
        moved
    }

    /// Leaders of source and target.
    pub(super) fn leaders(&self) -> (Option<i32>, Option<i32>) {
        let state = self.lock();
        (state.source_leader, state.target_leader)
    }

    /// Ids of source and target topic.
    pub(super) fn ids(&self) -> (TopicId, TopicId) {
        let state = self.lock();
        (state.source_id, state.target_id)
    }

    /// Whether it must be told where to begin.
    pub(super) fn needs_adoption(&self) -> bool {
        let state = self.lock();
        !state.adopted && !state.in_flight
    }

    /// Whether the leader must be asked what became of the batch that was under way. Where it may have forgotten the producer, an append
    /// that is still on its way is given `settle` to land.
    pub(super) fn is_in_doubt(&self, guard: Guard, settle: Duration, now: Instant) -> Doubt {
        let state = self.lock();
        if !state.adopted || !state.doubt || state.in_flight {
            return Doubt::None;
        }
        let landed = state.doubted.is_none_or(|since| now.duration_since(since) >= settle);
        if guard == Guard::Sequence || landed { Doubt::Ask } else { Doubt::Wait }
    }

    /// What keeps it exactly once after a failure.
    pub(super) fn guard(&self, memory_ms: i64, now: Instant, now_ms: i64) -> Guard {
        self.lock().guard(memory_ms, now, now_ms)
    }

    /// What it must know of configs.
    pub(super) fn rules(&self) -> batches::Rules {
        self.lock().rules
    }

    /// Whether it was adopted before, so that it knows more than was kept.
    pub(super) fn was_adopted(&self) -> bool {
        self.lock().begun
    }

    /// Whether the target stamps records at append, so that their times are not the source's.
    pub(super) fn target_stamps(&self) -> bool {
        self.lock().rules.target_stamps
    }

    /// Whether the target refused its sequence since it was adopted.
    pub(super) fn is_distrusted(&self) -> bool {
        self.lock().append_trouble.reason.as_ref().is_some_and(|reason| reason.code == TroubleCode::Sequence)
    }

    /// What was acknowledged.
    pub(super) fn acked(&self) -> Progress {
        self.lock().acked
    }

    /// Begins, or begins again.
    pub(super) fn adopt(&self, adopted: Adopted) {
        let mut state = self.lock();
        if state.begun {
            let next = state.acked.next_offset;
            state.offsets.know(next);
        }
        state.acked = adopted.progress;
        state.offsets.begin(&adopted.progress);
        state.skip = adopted.skip;
        state.source_end = adopted.source_end;
        state.rewind();
        state.adopted = true;
        state.begun = true;
        state.fetch_trouble.clear();
        state.append_trouble.clear();
    }

    /// Stops fetching and appending until adopted again; what is under way is still settled.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.adopted = false;
        if !state.in_flight {
            state.rewind();
        }
    }

    /// Notes a failure that did not come from a fetch or an append.
    pub(super) fn note(&self, code: TroubleCode, text: String, now: Instant) {
        let _ = self.lock().append_trouble.note(code, text, now);
    }

    /// Progress that the progress topic does not have yet. None while the place of records is looked for: what stands in the topic
    /// then still leads to them.
    pub(super) fn unstored(&self) -> Option<Progress> {
        let state = self.lock();
        let known = state.offsets.unplaced().is_none();
        (state.adopted && known && state.stored != Some(mark(&state.acked))).then_some(state.acked)
    }

    /// The progress topic has this.
    pub(super) fn stored(&self, progress: &Progress) {
        self.lock().stored = Some(mark(progress));
    }

    /// What it did.
    pub(super) fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// What stands in its way, if anything does.
    pub(super) fn reason(&self) -> Option<Reason> {
        self.lock().reason()
    }

    /// What it shows.
    pub(super) fn status(&self, memory_ms: i64, now: Instant, now_ms: i64) -> LaneStatus {
        let state = self.lock();
        let lag = if state.adopted { state.source_end.saturating_sub(state.acked.next_offset) } else { 0 };
        LaneStatus {
            counts: state.counts,
            lag: u64::try_from(lag).unwrap_or(0),
            acked_time: state.acked_time,
            guard: state.guard(memory_ms, now, now_ms),
            reason: state.reason(),
        }
    }
}

/// What makes one progress differ from another.
const fn mark(progress: &Progress) -> (i64, i64, i32) {
    (progress.next_offset, progress.producer_id, progress.next_sequence)
}

impl State {
    fn guard(&self, memory_ms: i64, now: Instant, now_ms: i64) -> Guard {
        // Before this run's first append: nothing was written, or it was before progress was last written.
        let before = if self.acked.next_sequence == 0 { now_ms } else { self.acked.written_at };
        let Some(at) = self.acked_at else { return guard::needed(before, now_ms, memory_ms) };
        let appended = now_ms - i64::try_from(now.duration_since(at).as_millis()).unwrap_or(i64::MAX);
        guard::needed(guard::counted_from(self.acked_time, appended, self.rules.target_stamps), now_ms, memory_ms)
    }

    /// What stands in its way, if anything does.
    fn reason(&self) -> Option<Reason> {
        let told = self.append_trouble.reason.clone().or_else(|| self.fetch_trouble.reason.clone());
        let beginning = || Reason { code: TroubleCode::Beginning, text: "not begun yet".to_owned() };
        told.or_else(|| (!self.adopted).then(beginning))
    }

    /// Back to what was acknowledged: all that waits is fetched again.
    fn rewind(&mut self) {
        self.queue.clear();
        self.queued_bytes = 0;
        self.pending = None;
        self.doubt = false;
        self.doubted = None;
        self.position = self.acked.next_offset;
        self.generation += 1;
        self.suspect = true;
    }

    /// Everything before this offset is done as far as the queue's end is.
    fn advance(&mut self, next_offset: i64) {
        if let Some(item) = self.queue.back_mut() {
            item.next_offset = next_offset;
        } else if let Some(pending) = &mut self.pending {
            pending.next_offset = next_offset;
        } else {
            self.acked.next_offset = next_offset;
        }
    }

    const fn stamp(&self) -> Patch {
        if self.acked.producer_id < 0 {
            return Patch::NO_PRODUCER;
        }
        Patch {
            producer_id: self.acked.producer_id,
            epoch: self.acked.producer_epoch,
            base_sequence: self.acked.next_sequence,
        }
    }
}

/// The sequence `count` records later.
pub(super) const fn later(sequence: i32, count: u64) -> i32 {
    ((sequence as u64).wrapping_add(count) & i32::MAX as u64) as i32
}
