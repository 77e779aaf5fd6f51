//! The offset maps of a flow: kept in a compacted topic at the target, and asked.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::compacted::{CompactedTopic, TopicError};
use super::decide::offset_map::{Chunk, Found, Key, Loader, OffsetMap, TOPIC, Unplaced, Way, Written};
use super::decide::progress;
use super::lane::Lane;
use super::shared::{LaneKey, Shared, now_ms};
use crate::client::{ClientError, FetchPartition, FetchRequest, Isolation, Position, TopicId};
use crate::kafka::batch::{Codec, Record, split};

/// The maps of one flow, and the topic that they are kept in.
pub(super) struct Offsets {
    flow: String,
    source: String,
    topic: CompactedTopic,
    cache: Mutex<Cache>,
}

/// Chunks that were read back, the oldest first.
#[derive(Default)]
struct Cache {
    chunks: HashMap<i64, Arc<Chunk>>,
    order: VecDeque<i64>,
}

/// The slot of its own connection.
const SLOT: u16 = 91;
/// Chunks read back that are kept: some 6 KiB each.
const MOST_CACHED: usize = 1_000;
/// How often is looked for records whose place is not known.
const PLACE_EVERY: Duration = Duration::from_millis(250);
/// How often the target's logs are asked where they begin.
const PRUNE_EVERY: Duration = Duration::from_secs(60);
/// Failures in a row to read the target before the map has a hole instead.
const MOST_FAILURES: u32 = 40;
/// Bytes of the target read for one partition before the same: the records of some seconds, and what others wrote meanwhile.
const MOST_SEARCHED: usize = 1 << 30;
/// Bytes of one fetch.
const ANSWER: i32 = 4 << 20;

impl Offsets {
    pub(super) fn new(shared: &Shared, replication_factor: Option<i16>) -> Self {
        Self {
            flow: shared.name.clone(),
            source: shared.source.name().to_owned(),
            topic: CompactedTopic::new(TOPIC, &shared.target, replication_factor, SLOT),
            cache: Mutex::default(),
        }
    }

    /// Reads the maps of this flow; makes the topic where it is missing.
    pub(super) async fn read(&self, shared: &Shared) -> Result<HashMap<LaneKey, OffsetMap>, TopicError> {
        let mut loaders: HashMap<LaneKey, Option<Loader>> = HashMap::new();
        let take = |record: &Record| {
            let Some(Ok(key)) = record.key().map(|key| Key::decode(&key)) else { return Ok(()) };
            if key.of.flow != self.flow || key.of.cluster != self.source {
                return Ok(());
            }
            let at: LaneKey = (key.of.topic.as_str().into(), key.of.partition);
            let loader = loaders.entry(at).or_insert_with(|| Some(Loader::default()));
            if let Some(known) = loader
                && let Err(error) = known.take(key.number, record.offset, record.value().as_deref())
            {
                // Without a map groups wait; copying need not.
                shared.complain("offset map", &format!("topic {}: {error}", key.of.topic));
                *loader = None;
            }
            Ok(())
        };
        self.topic.read(take).await?;
        Ok(loaders.into_iter().filter_map(|(key, loader)| Some((key, loader?.finish()?))).collect())
    }

    /// Writes what changed in the maps of all lanes.
    pub(super) async fn save(&self, shared: &Shared) -> Result<(), TopicError> {
        let (now, mut records, mut changes) = (now_ms(), Vec::new(), Vec::new());
        for lane in shared.lanes().into_values() {
            for change in lane.offset_changes() {
                let key = Key { of: self.key(&lane), number: change.number }.encode();
                records.push(Record::new(records.len() as i64, now, Some(&key), change.value.as_deref(), &[]));
                changes.push((Arc::clone(&lane), change));
            }
        }
        if records.is_empty() {
            return Ok(());
        }
        let offsets = self.topic.append(&records, Codec::Lz4).await?;
        for ((lane, change), offset) in changes.iter().zip(offsets) {
            // A chunk that nobody knows the place of stays in memory.
            if offset >= 0 {
                lane.offsets_stored(change, offset);
            }
        }
        Ok(())
    }

    fn key(&self, lane: &Lane) -> progress::Key {
        progress::Key {
            flow: self.flow.clone(),
            cluster: self.source.clone(),
            topic: lane.source.to_string(),
            partition: lane.partition,
        }
    }

    /// What an offset of a lane's partition is on the other side, where [`Lane::look`] found a stored chunk.
    pub(super) async fn look(&self, lane: &Lane, way: Way, offset: i64, stored: i64) -> Result<Found, TopicError> {
        let mut found = Found::Stored(stored);
        while let Found::Stored(at) = found {
            let chunk = self.chunk(lane, at).await?;
            found = lane.look_in(&chunk, way, offset);
        }
        Ok(found)
    }

    /// A chunk that was stored at this offset.
    async fn chunk(&self, lane: &Lane, at: i64) -> Result<Arc<Chunk>, TopicError> {
        if let Some(chunk) = self.cache.lock().unwrap_or_else(PoisonError::into_inner).chunks.get(&at) {
            return Ok(Arc::clone(chunk));
        }
        let fail = |detail: String| TopicError::Record { topic: TOPIC.to_owned(), detail };
        let gone = || fail(format!("the record at offset {at} is no chunk of {}-{}", lane.source, lane.partition));
        let record = self.topic.at(at).await?.ok_or_else(gone)?;
        let key = record.key().and_then(|key| Key::decode(&key).ok()).ok_or_else(gone)?;
        let value = record.value().filter(|_| key.of == self.key(lane)).ok_or_else(gone)?;
        let chunk = Arc::new(Chunk::decode(&value).map_err(|error| fail(error.to_string()))?.0);
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.chunks.insert(at, Arc::clone(&chunk)).is_none() {
            cache.order.push_back(at);
        }
        while cache.order.len() > MOST_CACHED {
            if let Some(oldest) = cache.order.pop_front() {
                cache.chunks.remove(&oldest);
            }
        }
        Ok(chunk)
    }

    /// Finds the place of records that an earlier run left in the target, and forgets what the target has forgotten.
    pub(super) async fn keep(self: Arc<Self>, shared: Arc<Shared>) {
        let mut tick = tokio::time::interval(PLACE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failures: HashMap<LaneKey, u32> = HashMap::new();
        let mut pruned = Instant::now();
        loop {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            for (key, lane) in shared.lanes() {
                let Some(unplaced) = lane.unplaced() else { continue };
                match search(&shared, &lane, unplaced).await {
                    Ok(found) => {
                        if found.is_none() {
                            let text =
                                format!("{}-{}: not found within {MOST_SEARCHED} bytes", lane.source, lane.partition);
                            shared.complain("offset map", &text);
                        }
                        failures.remove(&key);
                        lane.place(found.as_deref());
                    }
                    Err(error) => {
                        shared.complain("offset map", &format!("{}-{}: {error}", lane.source, lane.partition));
                        let failures = failures.entry(key).or_default();
                        *failures += 1;
                        if *failures >= MOST_FAILURES {
                            *failures = 0;
                            lane.place(None);
                        }
                    }
                }
            }
            if pruned.elapsed() >= PRUNE_EVERY {
                pruned = Instant::now();
                prune(&shared).await;
            }
        }
    }
}

/// Looks through the target for batches of a producer; `None` where that would be too much to read.
async fn search(shared: &Shared, lane: &Lane, wanted: Unplaced) -> Result<Option<Vec<Written>>, ClientError> {
    let detail = || format!("{}-{} has no leader at the target", lane.target, lane.partition);
    let leader = lane.leaders().1.ok_or_else(|| ClientError::Invalid { detail: detail() })?;
    let at = || vec![(lane.target.to_string(), lane.partition)];
    let one = |found: Vec<crate::client::PartitionOffset>| {
        found.into_iter().next().ok_or_else(|| ClientError::Invalid { detail: detail() })?.offset
    };
    let start = one(shared.target.list_offsets(at(), Position::Earliest).await?)?;
    let end = one(shared.target.list_offsets(at(), Position::Latest).await?)?;
    let (mut offset, mut bytes, mut found, mut count) = (wanted.from.max(start), 0, Vec::new(), 0);
    while offset < end && count < wanted.count {
        if bytes > MOST_SEARCHED {
            return Ok(None);
        }
        let partition = FetchPartition {
            topic: Arc::clone(&lane.target),
            topic_id: TopicId(lane.ids().1),
            partition: lane.partition,
            offset,
            leader_epoch: -1,
            max_bytes: ANSWER,
        };
        let (isolation, partitions) = (Isolation::ReadUncommitted, vec![partition]);
        let request = FetchRequest { max_wait_ms: 500, min_bytes: 1, max_bytes: ANSWER, isolation, partitions };
        let answer = shared.target.fetch(leader, SLOT, request).await?;
        let Some(answer) = answer.into_iter().next() else { break };
        if let Some(error) = answer.error {
            return Err(ClientError::Kafka { api: crate::client::ApiKey::Fetch, error, message: None });
        }
        bytes += answer.records.len().max(1 << 10);
        for batch in split(answer.records) {
            let Ok(batch) = batch else { break };
            offset = offset.max(batch.next_offset());
            let Some(header) = batch.header().filter(|header| header.producer_id == wanted.producer_id) else {
                continue;
            };
            let written = Written {
                sequence: header.base_sequence,
                offset: header.base_offset,
                count: i64::from(header.last_offset_delta) + 1,
            };
            if !header.is_control() && wanted.is_in(&written) {
                count += written.count;
                found.push(written);
            }
        }
    }
    Ok(Some(found))
}

/// Forgets chunks of records that the target has deleted.
async fn prune(shared: &Shared) {
    let lanes: Vec<_> = shared.lanes().into_values().filter(|lane| lane.sealed_chunks() > 0).collect();
    let at: Vec<_> = lanes.iter().map(|lane| (lane.target.to_string(), lane.partition)).collect();
    if at.is_empty() {
        return;
    }
    match shared.target.list_offsets(at, Position::Earliest).await {
        Ok(starts) => {
            for (lane, start) in lanes.iter().zip(starts) {
                if let Ok(start) = start.offset {
                    lane.prune_offsets(start);
                }
            }
        }
        Err(error) => shared.complain("offset map", &error.to_string()),
    }
}
