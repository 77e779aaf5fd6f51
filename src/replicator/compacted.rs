//! A compacted topic of one partition at the target, in which a flow keeps what it must know again: made, read at the start, written
//! as things change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use bytes::Bytes;

use super::cluster::Cluster;
use crate::client::{
    ClientError, FetchPartition, FetchRequest, Isolation, KafkaError, NewTopic, PartitionBatch, Position, TopicId,
};
use crate::kafka::batch::{BatchError, Codec, Limits, Patch, Record, decode, encode, split};

/// One compacted topic.
pub(super) struct CompactedTopic {
    name: String,
    target: Arc<dyn Cluster>,
    replication_factor: Option<i16>,
    /// The slot of its own connection.
    slot: u16,
    leader: AtomicI32,
}

/// Why a compacted topic cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum TopicError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("topic {topic}: {error}")]
    Kafka { topic: String, error: KafkaError },
    #[error("topic {topic}: {error}")]
    Batch { topic: String, error: BatchError },
    #[error("topic {topic}: {detail}")]
    Record { topic: String, detail: String },
    #[error("topic {topic} gives nothing at offset {offset}, which is before its end")]
    Stuck { topic: String, offset: i64 },
    #[error("topic {topic} has no leader")]
    NoLeader { topic: String },
    #[error("topic {topic} has more than {MOST_READ} bytes; is it compacted?")]
    TooLong { topic: String },
}

impl TopicError {
    /// Whether the same may succeed later without anybody changing a setting.
    pub(super) fn is_retriable(&self) -> bool {
        match self {
            Self::Client(error) => error.is_retriable(),
            Self::Kafka { error, .. } => error.is_retriable(),
            Self::NoLeader { .. } | Self::Stuck { .. } => true,
            Self::Batch { .. } | Self::Record { .. } | Self::TooLong { .. } => false,
        }
    }

    /// Kafka's error, where it is one.
    pub(super) fn kafka(&self) -> Option<KafkaError> {
        match self {
            Self::Client(error) => error.kafka(),
            Self::Kafka { error, .. } => Some(*error),
            _ => None,
        }
    }
}

/// Bytes read at the start at most: ten million records of progress, before compaction.
const MOST_READ: usize = 1 << 30;
/// Empty answers in a row before reading is given up.
const MOST_TRIES: u32 = 10;
/// Bytes of one fetch.
const ANSWER: i32 = 8 << 20;
/// Bytes of one batch: below the default of `max.message.bytes`.
const MOST_BATCH: usize = 900_000;

impl CompactedTopic {
    pub(super) fn new(
        name: impl Into<String>,
        target: &Arc<dyn Cluster>,
        replication_factor: Option<i16>,
        slot: u16,
    ) -> Self {
        let (name, target) = (name.into(), Arc::clone(target));
        Self { name, target, replication_factor, slot, leader: AtomicI32::new(-1) }
    }

    /// Reads all of it, oldest first; makes the topic where it is missing. A record that `take` refuses ends reading with its words.
    pub(super) async fn read(
        &self,
        mut take: impl FnMut(&Record) -> Result<(), String> + Send,
    ) -> Result<(), TopicError> {
        if !self.locate().await? {
            self.create().await?;
            if !self.locate().await? {
                return Err(self.no_leader());
            }
        }
        let mut offset = self.bound(Position::Earliest).await?;
        let end = self.bound(Position::Latest).await?;
        let (mut bytes, mut tries) = (0, 0);
        while offset < end {
            let before = offset;
            let records = self.fetch(offset, ANSWER).await?;
            bytes += records.len();
            if bytes > MOST_READ {
                return Err(TopicError::TooLong { topic: self.name.clone() });
            }
            for batch in split(records) {
                let batch = batch.map_err(|error| self.damaged(error))?;
                if !batch.header().is_some_and(|header| header.is_control()) {
                    for record in decode(&batch, Limits::default()).map_err(|error| self.damaged(error))? {
                        take(&record).map_err(|detail| TopicError::Record { topic: self.name.clone(), detail })?;
                    }
                }
                offset = offset.max(batch.next_offset());
            }
            // Below the high watermark there is always something, unless the log changes while it is read.
            tries = if offset == before { tries + 1 } else { 0 };
            if tries > MOST_TRIES {
                return Err(TopicError::Stuck { topic: self.name.clone(), offset });
            }
        }
        Ok(())
    }

    /// Whether it is there.
    pub(super) async fn exists(&self) -> Result<bool, TopicError> {
        self.locate().await
    }

    /// The record at this offset; `None` where compaction has taken it out.
    pub(super) async fn at(&self, offset: i64) -> Result<Option<Record>, TopicError> {
        if self.leader.load(Ordering::Relaxed) < 0 && !self.locate().await? {
            return Ok(None);
        }
        let records = match self.fetch(offset, MOST_BATCH as i32).await {
            Err(error) if error.kafka() == Some(KafkaError::OFFSET_OUT_OF_RANGE) => return Ok(None),
            Err(error) => {
                self.leader.store(-1, Ordering::Relaxed);
                return Err(error);
            }
            Ok(records) => records,
        };
        let Some(batch) = split(records).next() else { return Ok(None) };
        let batch = batch.map_err(|error| self.damaged(error))?;
        let records = decode(&batch, Limits::default()).map_err(|error| self.damaged(error))?;
        Ok(records.into_iter().find(|record| record.offset == offset))
    }

    async fn fetch(&self, offset: i64, max_bytes: i32) -> Result<Bytes, TopicError> {
        let partition = FetchPartition {
            topic: self.name.as_str().into(),
            topic_id: TopicId::NONE,
            partition: 0,
            offset,
            leader_epoch: -1,
            max_bytes,
        };
        let (isolation, partitions) = (Isolation::ReadUncommitted, vec![partition]);
        let request = FetchRequest { max_wait_ms: 500, min_bytes: 1, max_bytes, isolation, partitions };
        let answers = self.target.fetch(self.leader.load(Ordering::Relaxed), self.slot, request).await?;
        let answer = answers.into_iter().next().ok_or_else(|| self.no_leader())?;
        match answer.error {
            Some(error) => Err(TopicError::Kafka { topic: self.name.clone(), error }),
            None => Ok(answer.records),
        }
    }

    async fn bound(&self, position: Position) -> Result<i64, TopicError> {
        let at = vec![(self.name.clone(), 0)];
        let found = self.target.list_offsets(at, position).await?.pop().ok_or_else(|| self.no_leader())?;
        Ok(found.offset?)
    }

    /// Finds the leader; false where there is no such topic.
    async fn locate(&self) -> Result<bool, TopicError> {
        let topics = self.target.topics(Some(vec![self.name.clone()])).await?;
        let topic = topics.first().ok_or_else(|| self.no_leader())?;
        match topic.error {
            Some(KafkaError::UNKNOWN_TOPIC_OR_PARTITION) => return Ok(false),
            Some(error) => return Err(TopicError::Kafka { topic: self.name.clone(), error }),
            None => {}
        }
        let leader = topic.partitions.first().and_then(|one| one.leader).ok_or_else(|| self.no_leader())?;
        self.leader.store(leader, Ordering::Relaxed);
        Ok(true)
    }

    async fn create(&self) -> Result<(), TopicError> {
        let configs = [("cleanup.policy", "compact"), ("segment.bytes", "16777216"), ("compression.type", "producer")];
        let configs = configs.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let topic = NewTopic {
            name: self.name.clone(),
            partitions: 1,
            replication_factor: self.replication_factor.unwrap_or(-1),
            configs: BTreeMap::from(configs),
        };
        match self.target.create_topic(topic).await {
            Err(error) if error.kafka() == Some(KafkaError::TOPIC_ALREADY_EXISTS) => Ok(()),
            other => Ok(other?),
        }
    }

    /// Appends records; the offset of each, -1 where the broker did not say. The topic is made where it is missing.
    pub(super) async fn append(&self, records: &[Record], codec: Codec) -> Result<Vec<i64>, TopicError> {
        let mut offsets = Vec::with_capacity(records.len());
        for batch in encode(records, codec, MOST_BATCH, Patch::NO_PRODUCER).map_err(|error| self.damaged(error))? {
            let count = i64::from(batch.count);
            let batch = PartitionBatch {
                topic: self.name.as_str().into(),
                topic_id: TopicId::NONE,
                partition: 0,
                header: batch.header,
                payload: batch.payload,
            };
            let mut result = self.append_batch(batch.clone()).await;
            if result.as_ref().is_err_and(|error| error.kafka() == Some(KafkaError::NOT_LEADER_OR_FOLLOWER)) {
                // Nothing was written, and who leads now can be asked.
                self.leader.store(-1, Ordering::Relaxed);
                result = self.append_batch(batch).await;
            }
            if result.is_err() {
                // The leader may have moved; the next try begins with asking.
                self.leader.store(-1, Ordering::Relaxed);
            }
            let base = result?;
            offsets.extend((0..count).map(|n| if base < 0 { -1 } else { base + n }));
        }
        Ok(offsets)
    }

    async fn append_batch(&self, batch: PartitionBatch) -> Result<i64, TopicError> {
        if self.leader.load(Ordering::Relaxed) < 0 && !self.locate().await? {
            // Deleted under our feet: made anew, and everything is told again as it moves on.
            self.create().await?;
            self.locate().await?;
        }
        let leader = self.leader.load(Ordering::Relaxed);
        let outcomes = self.target.produce(leader, self.slot, vec![batch]).await?;
        let outcome = outcomes.first().ok_or_else(|| self.no_leader())?;
        match outcome.error {
            Some(error) => Err(TopicError::Kafka { topic: self.name.clone(), error }),
            None => Ok(outcome.base_offset),
        }
    }

    fn no_leader(&self) -> TopicError {
        TopicError::NoLeader { topic: self.name.clone() }
    }

    fn damaged(&self, error: BatchError) -> TopicError {
        TopicError::Batch { topic: self.name.clone(), error }
    }
}
