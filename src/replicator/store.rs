//! The progress topic at the target: made, read at the start, written as copying goes on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use tokio::sync::Mutex;

use super::cluster::Cluster;
use super::decide::progress::{Key, Progress, ProgressError, TOPIC};
use super::lane::Lane;
use super::shared::{Shared, now_ms};
use crate::client::{
    ClientError, FetchPartition, FetchRequest, Isolation, KafkaError, NewTopic, PartitionBatch, Position, TopicId,
};
use crate::kafka::batch::{BatchError, Codec, Limits, Patch, Record, decode, encode, split};

/// Progress by source topic and partition.
pub(super) type Known = HashMap<(String, i32), Progress>;

/// The progress topic, as one flow uses it.
pub(super) struct Store {
    flow: String,
    source: String,
    target: Arc<dyn Cluster>,
    replication_factor: Option<i16>,
    leader: AtomicI32,
    /// Held while progress is read from lanes and written, so that a later record never tells of an earlier state.
    writing: Mutex<()>,
}

/// Why progress cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("progress topic {TOPIC}: {0}")]
    Kafka(KafkaError),
    #[error("progress topic {TOPIC}: {0}")]
    Batch(#[from] BatchError),
    #[error("progress topic {TOPIC}: {0}")]
    Progress(#[from] ProgressError),
    #[error("progress topic {TOPIC} gives nothing at offset {0}, which is before its end")]
    Stuck(i64),
    #[error("progress topic {TOPIC} has no leader")]
    NoLeader,
    #[error("progress topic {TOPIC} has more than {MOST_READ} bytes; is it compacted?")]
    TooLong,
}

/// Bytes read at the start at most: ten million records, before compaction.
const MOST_READ: usize = 1 << 30;
/// Empty answers in a row before reading is given up.
const MOST_TRIES: u32 = 10;
/// Bytes of one fetch.
const ANSWER: i32 = 8 << 20;
/// Bytes of one batch: below the default of `max.message.bytes`.
const MOST_BATCH: usize = 900_000;
/// The slot of its own connection.
const SLOT: u16 = 90;

impl Store {
    pub(super) fn new(shared: &Shared, replication_factor: Option<i16>) -> Self {
        Self {
            flow: shared.name.clone(),
            source: shared.source.name().to_owned(),
            target: Arc::clone(&shared.target),
            replication_factor,
            leader: AtomicI32::new(-1),
            writing: Mutex::default(),
        }
    }

    /// Reads what this flow has copied; makes the topic where it is missing.
    pub(super) async fn read(&self) -> Result<Known, StoreError> {
        if !self.locate().await? {
            self.create().await?;
            if !self.locate().await? {
                return Err(StoreError::NoLeader);
            }
        }
        let at = vec![(TOPIC.to_owned(), 0)];
        let mut offset = self.bound(at.clone(), Position::Earliest).await?;
        let end = self.bound(at, Position::Latest).await?;
        let (mut known, mut bytes, mut tries) = (Known::new(), 0, 0);
        while offset < end {
            let before = offset;
            let partition = FetchPartition {
                topic: TOPIC.into(),
                topic_id: TopicId::NONE,
                partition: 0,
                offset,
                leader_epoch: -1,
                max_bytes: ANSWER,
            };
            let isolation = Isolation::ReadUncommitted;
            let partitions = vec![partition];
            let request = FetchRequest { max_wait_ms: 500, min_bytes: 1, max_bytes: ANSWER, isolation, partitions };
            let answers = self.target.fetch(self.leader.load(Ordering::Relaxed), SLOT, request).await?;
            for answer in answers {
                if let Some(error) = answer.error {
                    return Err(StoreError::Kafka(error));
                }
                bytes += answer.records.len();
                if bytes > MOST_READ {
                    return Err(StoreError::TooLong);
                }
                for batch in split(answer.records) {
                    let batch = batch?;
                    if !batch.header().is_some_and(|header| header.is_control()) {
                        self.learn(&mut known, &decode(&batch, Limits::default())?)?;
                    }
                    offset = offset.max(batch.next_offset());
                }
            }
            // Below the high watermark there is always something, unless the log changes while it is read.
            tries = if offset == before { tries + 1 } else { 0 };
            if tries > MOST_TRIES {
                return Err(StoreError::Stuck(offset));
            }
        }
        Ok(known)
    }

    /// Takes in records of this flow; the last of a key counts.
    fn learn(&self, known: &mut Known, records: &[Record]) -> Result<(), StoreError> {
        for record in records {
            let Some(Ok(key)) = record.key().map(|key| Key::decode(&key)) else { continue };
            if key.flow != self.flow || key.cluster != self.source {
                continue;
            }
            let at = (key.topic, key.partition);
            match record.value() {
                None => drop(known.remove(&at)),
                // Unreadable taken for unknown would mean to copy all of it again.
                Some(value) => drop(known.insert(at, Progress::decode(&value)?)),
            }
        }
        Ok(())
    }

    async fn bound(&self, at: Vec<(String, i32)>, position: Position) -> Result<i64, StoreError> {
        let found = self.target.list_offsets(at, position).await?.pop().ok_or(StoreError::NoLeader)?;
        Ok(found.offset?)
    }

    /// Finds the leader; false where there is no such topic.
    async fn locate(&self) -> Result<bool, StoreError> {
        let topics = self.target.topics(Some(vec![TOPIC.to_owned()])).await?;
        let topic = topics.first().ok_or(StoreError::NoLeader)?;
        match topic.error {
            Some(KafkaError::UNKNOWN_TOPIC_OR_PARTITION) => return Ok(false),
            Some(error) => return Err(StoreError::Kafka(error)),
            None => {}
        }
        let leader = topic.partitions.first().and_then(|one| one.leader).ok_or(StoreError::NoLeader)?;
        self.leader.store(leader, Ordering::Relaxed);
        Ok(true)
    }

    async fn create(&self) -> Result<(), StoreError> {
        let configs = [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("compression.type", "producer")];
        let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let topic = NewTopic {
            name: TOPIC.to_owned(),
            partitions: 1,
            replication_factor: self.replication_factor.unwrap_or(-1),
            configs: BTreeMap::from(configs),
        };
        match self.target.create_topic(topic).await {
            Err(error) if error.kafka() == Some(KafkaError::TOPIC_ALREADY_EXISTS) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Writes first progress of lanes that are about to begin, before anything is appended for them.
    pub(super) async fn begin(&self, first: &[(Arc<Lane>, Progress)]) -> Result<(), StoreError> {
        let _writing = self.writing.lock().await;
        self.write(first).await
    }

    /// Writes what lanes have had acknowledged since the last call. Returns how many had something new.
    pub(super) async fn save(&self, shared: &Shared) -> Result<usize, StoreError> {
        let _writing = self.writing.lock().await;
        let lanes = shared.lanes().into_values();
        let new: Vec<_> = lanes.filter_map(|lane| lane.unstored().map(|progress| (lane, progress))).collect();
        self.write(&new).await?;
        Ok(new.len())
    }

    async fn write(&self, progress: &[(Arc<Lane>, Progress)]) -> Result<(), StoreError> {
        let now = now_ms();
        let records: Vec<_> = progress
            .iter()
            .enumerate()
            .map(|(n, (lane, progress))| {
                let key = Key {
                    flow: self.flow.clone(),
                    cluster: self.source.clone(),
                    topic: lane.source.to_string(),
                    partition: lane.partition,
                };
                let value = Progress { written_at: now, ..*progress }.encode();
                Record::new(n as i64, now, Some(&key.encode()), Some(&value), &[])
            })
            .collect();
        for batch in encode(&records, Codec::Lz4, MOST_BATCH, Patch::NO_PRODUCER)? {
            let batch = PartitionBatch {
                topic: TOPIC.into(),
                topic_id: TopicId::NONE,
                partition: 0,
                header: batch.header,
                payload: batch.payload,
            };
            let result = self.append(batch).await;
            if result.is_err() {
                // The leader may have moved; the next try begins with asking.
                self.leader.store(-1, Ordering::Relaxed);
            }
            result?;
        }
        for (lane, progress) in progress {
            lane.stored(progress);
        }
        Ok(())
    }

    async fn append(&self, batch: PartitionBatch) -> Result<(), StoreError> {
        if self.leader.load(Ordering::Relaxed) < 0 && !self.locate().await? {
            // Deleted under our feet: made anew, and everything is told again as it moves on.
            self.create().await?;
            self.locate().await?;
        }
        let leader = self.leader.load(Ordering::Relaxed);
        let outcomes = self.target.produce(leader, SLOT, vec![batch]).await?;
        match outcomes.first().ok_or(StoreError::NoLeader)?.error {
            Some(error) => Err(StoreError::Kafka(error)),
            None => Ok(()),
        }
    }
}
