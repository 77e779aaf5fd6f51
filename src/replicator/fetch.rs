//! One connection's worth of fetching from one source broker.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use tokio::sync::Notify;

use super::budget::{Budget, Hold};
use super::decide::position::{self, SourceLog};
use super::lane::{Asked, Lane, Taken, Want};
use super::shared::Shared;
use super::status::{Happened, TroubleCode};
use crate::client::{ClientError, FetchPartition, FetchRequest, FetchedPartition, Isolation, Position};
use crate::kafka::batch::split;

/// The lanes that one fetcher looks after: those whose source leader is its broker and whose slot is its.
#[derive(Debug)]
pub(super) struct FetchDesk {
    pub(super) node: i32,
    pub(super) slot: u16,
    lanes: Mutex<Vec<Arc<Lane>>>,
    wake: Notify,
    budget: Arc<Budget>,
}

/// A lane and what to fetch for it.
type Wanted = (Arc<Lane>, Asked, FetchPartition);

/// How long a broker may wait for records, in ms: the Java consumer's default.
const LONG_POLL_MS: i32 = 500;
/// The same while a lane waits for room: it must not stand behind quiet ones.
const SHORT_POLL_MS: i32 = 10;
/// Bytes of one answer at most.
const MOST_ANSWER: usize = 16 << 20;
/// Less than this is not worth a request: a full batch of Kafka's default size should fit.
const LEAST_ANSWER: usize = 1 << 20;
/// Partitions of one request at most; the others follow in the next.
const MOST_PARTITIONS: usize = 1_000;

impl FetchDesk {
    pub(super) fn new(node: i32, slot: u16) -> Self {
        let (lanes, wake) = (Mutex::default(), Notify::new());
        Self { node, slot, lanes, wake, budget: Arc::default() }
    }

    /// Looks after this lane from now on, until its leader moves.
    pub(super) fn assign(&self, lane: Arc<Lane>) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if !lanes.iter().any(|one| Arc::ptr_eq(one, &lane)) {
            lanes.push(lane);
        }
        drop(lanes);
        self.wake();
    }

    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// What to fetch now; when to look again; whether a lane waits for room.
    fn collect(&self, shared: &Shared, now: Instant) -> (Vec<Wanted>, Option<Instant>, bool) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        lanes.retain(|lane| lane.leaders().0 == Some(self.node) && !shared.stop.is_cancelled());
        let mut wanted = Vec::new();
        let mut later: Option<Instant> = None;
        let mut starved = false;
        for lane in lanes.iter() {
            if wanted.len() >= MOST_PARTITIONS {
                break;
            }
            match lane.want(self.node, now) {
                Want::Fetch(partition, asked) => wanted.push((Arc::clone(lane), asked, partition)),
                Want::Later(at) => later = Some(later.map_or(at, |other| other.min(at))),
                Want::Full => starved = true,
                Want::Nothing => {}
            }
        }
        // Who came last comes first next time, so that one answer's bound is fair over all.
        let all = lanes.len();
        lanes.rotate_left(if wanted.len() == all { usize::from(all > 1) } else { wanted.len() });
        (wanted, later, starved)
    }

    /// Fetches until the flow stops.
    pub(super) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        while !shared.stop.is_cancelled() {
            let room = (shared.share() / 2).min(MOST_ANSWER);
            if self.budget.held() > shared.share().saturating_sub(room) {
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    () = self.budget.freed() => {}
                }
                continue;
            }
            let (wanted, later, starved) = self.collect(&shared, Instant::now());
            if wanted.is_empty() {
                let pause = later.map_or(Duration::from_secs(1), |at| at.saturating_duration_since(Instant::now()));
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
                continue;
            }
            // A lane whose pause ends soon must not wait out a long poll either.
            let until = later.map_or(i32::MAX, |at| {
                i32::try_from(at.saturating_duration_since(Instant::now()).as_millis()).unwrap_or(i32::MAX)
            });
            let poll = if starved { SHORT_POLL_MS } else { until.clamp(SHORT_POLL_MS, LONG_POLL_MS) };
            self.fetch(&shared, wanted, poll, room.max(LEAST_ANSWER)).await;
        }
    }

    async fn fetch(&self, shared: &Arc<Shared>, wanted: Vec<Wanted>, max_wait_ms: i32, max_bytes: usize) {
        let isolation = if shared.read_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
        let mut asked = Vec::with_capacity(wanted.len());
        let mut partitions = Vec::with_capacity(wanted.len());
        for (lane, one, partition) in wanted {
            asked.push((lane, one));
            partitions.push(partition);
        }
        let max_bytes = i32::try_from(max_bytes).unwrap_or(i32::MAX);
        let request = FetchRequest { max_wait_ms, min_bytes: 1, max_bytes, isolation, partitions };
        // Not cut short by a stop: a lane whose fetch was dropped would wait for it for ever, and the poll is short.
        let answers = shared.source.fetch(self.node, self.slot, request).await;
        let now = Instant::now();
        match answers {
            Ok(answers) if answers.len() == asked.len() => self.take(shared, asked, answers, now).await,
            // The client promises an answer for each.
            answers => {
                let missing = || ClientError::Invalid { detail: "an answer is missing".to_owned() };
                let error = answers.err().unwrap_or_else(missing);
                shared.complain(&format!("source broker {}", self.node), &error.to_string());
                for (lane, _) in asked {
                    lane.fetch_failed(&error, now);
                }
                shared.refresh.notify_one();
            }
        }
    }

    async fn take(
        &self,
        shared: &Arc<Shared>,
        asked: Vec<(Arc<Lane>, Asked)>,
        answers: Vec<FetchedPartition>,
        now: Instant,
    ) {
        let batches = answers.iter().filter(|answer| answer.error.is_none());
        let batches = batches.flat_map(|answer| split(answer.records.clone())).filter_map(Result::ok);
        let met = shared.registry.unknown(batches);
        if !met.is_empty()
            && let Err(error) = shared.registry.refresh(&met).await
        {
            let code = if error.is_lost() { TroubleCode::Registry } else { TroubleCode::SourceUnavailable };
            let text = format!("whose records these are cannot be told: {error}");
            shared.complain("producers", &text);
            let now = Instant::now();
            asked.iter().for_each(|(lane, _)| lane.leave(code, text.clone(), now));
            return shared.refresh.notify_one();
        }
        let bytes = answers.iter().map(|answer| answer.records.len()).sum();
        let hold = self.budget.hold(bytes);
        let outside = give(shared, asked, answers, &hold, now);
        drop(hold);
        for (lane, offset) in outside {
            jump(shared, &lane, offset).await;
        }
    }
}

/// Gives each lane its answer; those whose offset is outside the source's log are left over.
fn give(
    shared: &Arc<Shared>,
    asked: Vec<(Arc<Lane>, Asked)>,
    answers: Vec<FetchedPartition>,
    hold: &Arc<Hold>,
    now: Instant,
) -> Vec<(Arc<Lane>, i64)> {
    let mut outside = Vec::new();
    let known = shared.registry.known();
    for ((lane, one), answer) in asked.into_iter().zip(answers) {
        let failed = answer.error;
        match lane.take(one, answer, (shared.read_committed, &known), hold, now) {
            Taken::Queued => shared.list(&lane),
            Taken::Nothing => {}
            Taken::OutOfRange(offset) => outside.push((Arc::clone(&lane), offset)),
            Taken::Moved => shared.refresh.notify_one(),
        }
        if let (Some(_), Some(reason)) = (failed, lane.reason()) {
            shared.complain(&format!("topic {}", lane.source), &reason.text);
        }
    }
    outside
}

/// Asks where the source's log begins and ends, and goes on from there. What was lost is told.
async fn jump(shared: &Arc<Shared>, lane: &Arc<Lane>, offset: i64) {
    let at = vec![(lane.source.to_string(), lane.partition)];
    let end = if shared.read_committed { Position::ReadCommittedEnd } else { Position::Latest };
    let bounds = async {
        let start = shared.source.list_offsets(at.clone(), Position::Earliest).await.ok()?.pop()?.offset.ok()?;
        let end = shared.source.list_offsets(at.clone(), end).await.ok()?.pop()?.offset.ok()?;
        Some(SourceLog { topic_id: lane.ids().0, start, end: end.max(start) })
    };
    // Where the bounds cannot be had the next fetch fails the same way, and asks again.
    let Some(log) = bounds.await else { return shared.refresh.notify_one() };
    let to = position::resume(offset, &log);
    if to.event.is_some() && shared.stops_at_gaps(&lane.source) {
        // It is told where to begin, and why it may not, with the next look.
        lane.stop();
        return shared.refresh.notify_one();
    }
    if let (true, Some(event)) = (lane.jump(offset, to, log.end, Instant::now()), to.event) {
        shared.happened(lane, Happened::Source(event));
    }
    if lane.needs_adoption() {
        shared.refresh.notify_one();
    }
    shared.wake(lane);
}
