//! From lanes and the board to what is shown.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::decide::guard::Guard;
use super::lane::{Counts, LaneStatus};
use super::shared::{Shared, now_ms};
use super::status::{
    FlowState, FlowStatus, Looped, MOST_STANDING, PartitionCounts, PartitionState, PartitionStatus, Reason, TopicState,
    TopicStatus, TroubleCode,
};

/// Rates are over this time.
const WINDOW: Duration = Duration::from_secs(10);

/// The flow as it is now. Costs a lock and a copy of a few numbers for each partition.
pub(super) fn status(shared: &Shared) -> FlowStatus {
    let (memory, at, now) = (shared.producer_memory_ms.load(Ordering::Relaxed), Instant::now(), now_ms());
    let lanes: Vec<_> = shared.lanes().into_iter().map(|(key, lane)| (key, lane.status(memory, at, now))).collect();
    let stalls = shared.stalls();
    let pauses = shared.pauses();
    let (groups, group_failures, group_events) = {
        let (board, now) = (shared.group_board(), Instant::now());
        let groups = board.groups.iter().map(|entry| entry.status(now)).collect();
        (groups, board.failures.clone(), board.events.iter().cloned().collect())
    };
    let board = shared.board();
    let mut topics: BTreeMap<String, TopicStatus> = BTreeMap::new();
    for (name, entry) in &board.topics {
        let state = entry.reason.as_ref().map_or(TopicState::Active, |reason| reason.code.state());
        let topic = TopicStatus {
            source: name.clone(),
            target: entry.target.clone(),
            state,
            reason: entry.reason.clone(),
            partitions: 0,
            lag_records: 0,
            records: 0,
            bytes: 0,
            behind_seconds: 0.0,
            states: PartitionCounts::default(),
            standing: Vec::new(),
        };
        topics.insert(name.clone(), topic);
    }
    let mut total = board.past;
    let (mut lag, mut behind) = (0, 0.0_f64);
    for (key, lane) in &lanes {
        add(&mut total, &lane.counts);
        lag += lane.lag;
        let late = if lane.lag > 0 && lane.acked_time >= 0 { (now - lane.acked_time).max(0) } else { 0 };
        let late = late as f64 / 1_000.0;
        behind = behind.max(late);
        if let Some(topic) = topics.get_mut(&*key.0) {
            merge(topic, lane);
            let stalled = stalls.get(key).copied().filter(|_| lane.lag > 0);
            place(topic, partition(key.1, lane, late, pauses.holds(&key.0), stalled));
        }
    }
    for (name, topic) in &mut topics {
        // What else is wrong with it is told first.
        if pauses.holds(name) && topic.state != TopicState::Failed {
            topic.state = TopicState::Paused;
            topic.reason = Some(Reason { code: TroubleCode::Paused, text: "paused by the operator".to_owned() });
        }
    }
    let (records_per_second, bytes_per_second) = rates(&board.samples);
    // What the clusters are does not matter once the flow was told to stop.
    let state = board.state;
    let moving = state == FlowState::Active;
    FlowStatus {
        flow: shared.name.clone(),
        source: shared.source.name().to_owned(),
        target: shared.target.name().to_owned(),
        state,
        topics: topics.into_values().collect(),
        records: total.records,
        bytes: total.bytes,
        records_per_second: if moving { records_per_second } else { 0.0 },
        bytes_per_second: if moving { bytes_per_second } else { 0.0 },
        lag_records: lag,
        behind_seconds: behind.max(0.0),
        rewritten_batches: total.rewritten,
        looped: Looped { batches: total.looped, records: total.looped_records, bytes: total.looped_bytes },
        exactly_once: shared.exactly_once,
        guarantee: board.guarantee,
        halted: board.halted.clone(),
        last_error: board.last_error.clone(),
        last_progress_ms: board.last_progress_ms,
        events: board.events.iter().cloned().collect(),
        changes: board.changes.iter().cloned().collect(),
        paused: pauses.all,
        acls: board.acls.clone(),
        groups,
        group_failures,
        group_events,
    }
}

/// One partition as it is.
fn partition(
    number: i32,
    lane: &LaneStatus,
    behind_seconds: f64,
    paused: bool,
    stalled: Option<Duration>,
) -> PartitionStatus {
    let told = |code, text: String| Some(Reason { code, text });
    let (state, reason) = match &lane.reason {
        Some(reason) if reason.code.state() == TopicState::Failed => (PartitionState::Failed, Some(reason.clone())),
        _ if paused => (PartitionState::Paused, told(TroubleCode::Paused, "paused by the operator".to_owned())),
        Some(reason) if reason.code.state() == TopicState::Paused => (PartitionState::Paused, Some(reason.clone())),
        _ => match stalled {
            Some(since) => {
                let text =
                    format!("partition {number}: nothing moved for {} s, {} offsets wait", since.as_secs(), lane.lag);
                (PartitionState::CatchingUp, told(TroubleCode::Stalled, text))
            }
            None if behind_seconds > BEHIND => (PartitionState::CatchingUp, None),
            None => (PartitionState::Running, None),
        },
    };
    PartitionStatus {
        partition: number,
        state,
        reason,
        lag_records: lane.lag,
        behind_seconds,
        looped_records: lane.counts.looped_records,
        guard: lane.guard,
    }
}

/// Takes a partition into its topic.
fn place(topic: &mut TopicStatus, one: PartitionStatus) {
    topic.behind_seconds = topic.behind_seconds.max(one.behind_seconds);
    topic.states.guarded_by_log += u32::from(one.guard == Guard::Log);
    *match one.state {
        PartitionState::Running => &mut topic.states.running,
        PartitionState::CatchingUp => &mut topic.states.catching_up,
        PartitionState::Paused => &mut topic.states.paused,
        PartitionState::Failed => &mut topic.states.failed,
    } += 1;
    if one.state == PartitionState::CatchingUp && topic.reason.is_none() && one.reason.is_some() {
        topic.state = topic.state.max(TopicState::Paused);
        topic.reason.clone_from(&one.reason);
    }
    if one.state != PartitionState::Running && topic.standing.len() < MOST_STANDING {
        topic.standing.push(one);
    }
}

/// A partition that is further behind is catching up, in seconds.
const BEHIND: f64 = 10.0;

fn merge(topic: &mut TopicStatus, lane: &LaneStatus) {
    topic.partitions += 1;
    topic.lag_records += lane.lag;
    topic.records += lane.counts.records;
    topic.bytes += lane.counts.bytes;
    if let Some(reason) = &lane.reason {
        let state = reason.code.state();
        if state > topic.state || topic.reason.is_none() {
            topic.state = topic.state.max(state);
            topic.reason = Some(reason.clone());
        }
    }
}

fn add(total: &mut Counts, counts: &Counts) {
    total.records += counts.records;
    total.bytes += counts.bytes;
    total.rewritten += counts.rewritten;
    total.looped += counts.looped;
    total.looped_records += counts.looped_records;
    total.looped_bytes += counts.looped_bytes;
}

/// Notes the totals of now.
pub(super) fn sample(shared: &Shared) {
    let mut total = Counts::default();
    let (memory, now, time) = (shared.producer_memory_ms.load(Ordering::Relaxed), Instant::now(), now_ms());
    for (key, lane) in shared.lanes() {
        let status = lane.status(memory, now, time);
        add(&mut total, &status.counts);
        shared.saw(key, status.lag, lane.acked().next_offset, now);
    }
    let mut board = shared.board();
    add(&mut total, &board.past);
    board.samples.push_back((now, total.records, total.bytes));
    while board.samples.front().is_some_and(|(at, _, _)| now.duration_since(*at) > WINDOW) {
        board.samples.pop_front();
    }
}

fn rates(samples: &std::collections::VecDeque<(Instant, u64, u64)>) -> (f64, f64) {
    let (Some(first), Some(last)) = (samples.front(), samples.back()) else { return (0.0, 0.0) };
    let seconds = last.0.duration_since(first.0).as_secs_f64();
    if seconds <= 0.0 {
        return (0.0, 0.0);
    }
    (last.1.saturating_sub(first.1) as f64 / seconds, last.2.saturating_sub(first.2) as f64 / seconds)
}
