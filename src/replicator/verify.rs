//! Compares a copy with its source, record by record, without stopping anything.
//!
//! One call compares a part of one partition within a time, and gives a cursor to go on with, so that nothing runs here for which
//! nobody waits. The end is where the copy was when it began: what is copied meanwhile is not looked at.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::cluster::Cluster;
use super::decide::batches::{self, Aborted, Choice};
use super::decide::compare::{self, Difference};
use super::decide::offset_map::Found;
use super::flow::FlowHandle;
use super::lane::Lane;
use super::operate::OperateError;
use super::shared::Shared;
use crate::client::{ClientError, FetchPartition, FetchRequest, Isolation, Position, TopicId};
use crate::kafka::batch::{BatchError, Limits, Record, decode, split};

/// Where a comparison goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Next source offset to compare.
    pub source: i64,
    /// Next target offset to compare.
    pub target: i64,
    /// The comparison ends before this source offset.
    pub source_end: i64,
    /// And before this target offset.
    pub target_end: i64,
}

/// What was compared of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compared {
    /// Name of the copy.
    pub target: String,
    /// Records that are the same, in this call.
    pub records: u64,
    /// Where to go on; `None` at the end.
    pub cursor: Option<Cursor>,
    /// The first difference; then there is no cursor.
    pub difference: Option<Difference>,
    /// Why nothing, or not all, is compared.
    pub note: Option<String>,
}

/// Bytes of one fetch, and of one side in memory: a batch may be larger, and is then held alone.
const ANSWER: i32 = 4 << 20;
/// A larger batch than this is not opened.
const MOST_BATCH: i32 = 64 << 20;
/// Records of one side that wait for the other at most, before it is read on.
const WAITING: usize = 200_000;
/// Empty answers in a row before a side is said to hold nothing more.
const MOST_TRIES: u32 = 5;
/// The slot of its own connections.
const SLOT: u16 = 93;

/// Why a side cannot be read.
#[derive(Debug, thiserror::Error)]
enum SideError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{0}")]
    Kafka(crate::client::KafkaError),
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("nothing at offset {0}, which is before the end")]
    Stuck(i64),
}

/// One side's records, in order.
struct Side<'a> {
    cluster: &'a dyn Cluster,
    topic: Arc<str>,
    topic_id: TopicId,
    partition: i32,
    leader: i32,
    read_committed: bool,
    next: i64,
    end: i64,
    waiting: VecDeque<Record>,
    max_bytes: i32,
}

impl<'a> Side<'a> {
    fn new(
        cluster: &'a dyn Cluster,
        topic: &Arc<str>,
        (topic_id, partition): (super::decide::TopicId, i32),
        leader: i32,
        (next, end): (i64, i64),
    ) -> Self {
        let (topic, topic_id, waiting) = (Arc::clone(topic), TopicId(topic_id), VecDeque::new());
        let (read_committed, max_bytes) = (false, ANSWER);
        Self { cluster, topic, topic_id, partition, leader, read_committed, next, end, waiting, max_bytes }
    }

    /// Reads once, if it has room and there is more.
    async fn fill(&mut self) -> Result<(), SideError> {
        let mut tries = 0;
        while self.waiting.is_empty() && self.next < self.end {
            let before = self.next;
            self.fetch().await?;
            tries = if self.next == before { tries + 1 } else { 0 };
            if tries > MOST_TRIES {
                return Err(SideError::Stuck(self.next));
            }
        }
        Ok(())
    }

    async fn fetch(&mut self) -> Result<(), SideError> {
        let partition = FetchPartition {
            topic: Arc::clone(&self.topic),
            topic_id: self.topic_id,
            partition: self.partition,
            offset: self.next,
            leader_epoch: -1,
            max_bytes: self.max_bytes,
        };
        let isolation = if self.read_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
        let (max_bytes, partitions) = (self.max_bytes, vec![partition]);
        let request = FetchRequest { max_wait_ms: 500, min_bytes: 1, max_bytes, isolation, partitions };
        let Some(answer) = self.cluster.fetch(self.leader, SLOT, request).await?.pop() else { return Ok(()) };
        if let Some(error) = answer.error {
            return Err(SideError::Kafka(error));
        }
        let aborted = answer.aborted_transactions.iter().map(|one| (one.producer_id, one.first_offset));
        let mut aborted = Aborted::new(aborted);
        let (mut found, bytes) = (false, answer.records.len());
        let rules = batches::Rules { target_max_bytes: usize::MAX, ..batches::Rules::default() };
        for batch in split(answer.records) {
            let batch = batch?;
            found = true;
            let choice = batches::choose(&batch, self.next, false, &rules, &mut aborted)?;
            if !matches!(choice, Choice::Drop(_)) {
                let records = decode(&batch, Limits::default())?;
                let within = |record: &Record| record.offset >= self.next && record.offset < self.end;
                self.waiting.extend(records.into_iter().filter(within));
            }
            self.next = self.next.max(batch.next_offset());
            if self.waiting.len() >= WAITING {
                break;
            }
        }
        if found {
            self.max_bytes = ANSWER;
        } else if bytes > 0 {
            self.max_bytes = self.max_bytes.saturating_mul(2).min(MOST_BATCH);
        }
        Ok(())
    }
}

impl FlowHandle {
    /// Partitions of the topics that are copied, or of one of them.
    ///
    /// # Errors
    /// [`OperateError::UnknownTopic`].
    pub fn partitions(&self, topic: Option<&str>) -> Result<Vec<(String, i32)>, OperateError> {
        let lanes = self.shared.lanes().into_keys();
        let all: Vec<_> = lanes.filter(|(name, _)| topic.is_none_or(|topic| topic == &**name)).collect();
        match topic {
            Some(topic) if all.is_empty() => {
                Err(OperateError::UnknownTopic { flow: self.shared.name.clone(), topic: topic.to_owned() })
            }
            _ => Ok(all.into_iter().map(|(name, partition)| (name.to_string(), partition)).collect()),
        }
    }

    /// Compares a part of one partition, for `budget` at most: from the cursor on, or the newest `sample` source offsets, or all.
    ///
    /// # Errors
    /// [`OperateError::UnknownTopic`], and [`OperateError::State`] where a side cannot be read.
    pub async fn verify(
        &self,
        topic: &str,
        partition: i32,
        sample: Option<u64>,
        cursor: Option<Cursor>,
        budget: Duration,
    ) -> Result<Compared, OperateError> {
        let shared = &self.shared;
        let flow = || shared.name.clone();
        let lane = shared.lanes().get(&(topic.into(), partition)).cloned();
        let lane = lane.ok_or_else(|| OperateError::UnknownTopic { flow: flow(), topic: topic.to_owned() })?;
        let failed = |detail: String| OperateError::State {
            flow: flow(),
            detail: format!("{topic}, partition {partition}: {detail}"),
        };
        let nothing = |note: String| Compared {
            target: lane.target.to_string(),
            records: 0,
            cursor: None,
            difference: None,
            note: Some(note),
        };
        let begin = match cursor {
            Some(cursor) => Ok(cursor),
            None => begin(shared, &lane, sample).await.map_err(|error| failed(error.to_string()))?,
        };
        let cursor = match begin {
            Ok(cursor) => cursor,
            Err(note) => return Ok(nothing(note)),
        };
        let (Some(source_leader), Some(target_leader)) = lane.leaders() else {
            return Err(failed("a leader is missing".to_owned()));
        };
        let (source_id, target_id) = lane.ids();
        let (from, to) = ((cursor.source, cursor.source_end), (cursor.target, cursor.target_end));
        let mut source = Side::new(&*shared.source, &lane.source, (source_id, partition), source_leader, from);
        source.read_committed = shared.read_committed;
        let mut target = Side::new(&*shared.target, &lane.target, (target_id, partition), target_leader, to);
        let timestamps = !lane.target_stamps();
        let (records, difference, done) = walk(&mut source, &mut target, timestamps, Instant::now() + budget)
            .await
            .map_err(|e| failed(e.to_string()))?;
        let rest = Cursor {
            source: source.waiting.front().map_or(source.next, |record| record.offset),
            target: target.waiting.front().map_or(target.next, |record| record.offset),
            ..cursor
        };
        let go_on = (!done && difference.is_none()).then_some(rest);
        Ok(Compared { target: lane.target.to_string(), records, cursor: go_on, difference, note: None })
    }
}

/// Compares until both sides end, they differ, or it is time to stop.
async fn walk(
    source: &mut Side<'_>,
    target: &mut Side<'_>,
    timestamps: bool,
    until: Instant,
) -> Result<(u64, Option<Difference>, bool), SideError> {
    let mut same = 0;
    loop {
        source.fill().await?;
        target.fill().await?;
        match (source.waiting.front(), target.waiting.front()) {
            (None, None) => return Ok((same, None, true)),
            (Some(record), None) => return Ok((same, Some(compare::missing(record)), true)),
            (None, Some(record)) => return Ok((same, Some(compare::extra(record)), true)),
            (Some(_), Some(_)) => {}
        }
        let (from, to) = (source.waiting.make_contiguous(), target.waiting.make_contiguous());
        let (count, difference) = compare::compare(from, to, timestamps);
        same += count as u64;
        source.waiting.drain(..count);
        target.waiting.drain(..count);
        if difference.is_some() {
            return Ok((same, difference, true));
        }
        if Instant::now() >= until {
            return Ok((same, None, false));
        }
    }
}

/// Where to begin and end, or why there is nothing to compare.
async fn begin(shared: &Shared, lane: &Lane, sample: Option<u64>) -> Result<Result<Cursor, String>, ClientError> {
    for (cluster, topic) in [(&shared.source, &lane.source), (&shared.target, &lane.target)] {
        let found = cluster.describe_configs(vec![topic.to_string()]).await?.pop();
        let configs = found.and_then(|found| found.configs.ok()).unwrap_or_default();
        let policy = configs.into_iter().find(|one| one.name == "cleanup.policy").and_then(|one| one.value);
        if policy.is_some_and(|policy| policy.contains("compact")) {
            return Ok(Err(format!("not compared: {topic} is compacted, and each side compacts in its own time")));
        }
    }
    // The map is the newer of the two, so that it knows the end.
    let source_end = lane.acked().next_offset;
    let Some(map) = lane.offset_map() else { return Ok(Err("nothing was copied yet".to_owned())) };
    let Found::At(target_end) = map.target_of(source_end) else {
        return Ok(Err("nothing was copied yet".to_owned()));
    };
    let source_start = bound(&*shared.source, &lane.source, lane.partition).await?;
    let target_start = bound(&*shared.target, &lane.target, lane.partition).await?;
    let wanted = sample.map_or(0, |sample| source_end.saturating_sub(i64::try_from(sample).unwrap_or(i64::MAX)));
    let wanted = wanted.max(source_start);
    let both = match map.target_of(wanted) {
        Found::At(target) if target >= target_start => Some((wanted, target)),
        Found::At(_) => match map.source_of(target_start) {
            Found::At(source) => Some((source, target_start)),
            _ => None,
        },
        _ => None,
    };
    let later = || map.starts().find(|&(source, target)| source >= wanted && target >= target_start);
    Ok(match both.or_else(later) {
        Some((source, target)) => Ok(Cursor { source, target, source_end, target_end }),
        None => Err(format!("not compared: it is not known where source offset {wanted} lies in the copy")),
    })
}

async fn bound(cluster: &dyn Cluster, topic: &str, partition: i32) -> Result<i64, ClientError> {
    let found = cluster.list_offsets(vec![(topic.to_owned(), partition)], Position::Earliest).await?.pop();
    let missing = || ClientError::Invalid { detail: "no offset was answered".to_owned() };
    found.ok_or_else(missing)?.offset
}
