//! Reads a stretch of one partition's log, batch by batch, outside the copying itself: progress, producers, ends of copies.

use std::sync::Arc;

use super::cluster::Cluster;
use super::decide::batches::Aborted;
use crate::client::{
    ClientError, FetchPartition, FetchRequest, Isolation, KafkaError, PartitionOffset, Position, TopicId,
};
use crate::kafka::batch::{BatchError, RawBatch, split};

/// A partition and who leads it.
#[derive(Debug, Clone)]
pub(super) struct At {
    pub(super) node: i32,
    pub(super) topic: Arc<str>,
    pub(super) topic_id: TopicId,
    pub(super) partition: i32,
}

/// Why a stretch of a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum LogError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("{topic}-{partition}: {error}")]
    Kafka { topic: Arc<str>, partition: i32, error: KafkaError },
    #[error("{topic}-{partition}: {error}")]
    Batch { topic: Arc<str>, partition: i32, error: BatchError },
    #[error("{topic}-{partition} gives nothing at offset {offset}, which is before its end {end}")]
    Stuck { topic: Arc<str>, partition: i32, offset: i64, end: i64 },
}

/// Empty answers in a row before reading is given up.
const MOST_TRIES: u32 = 10;
/// Bytes of one fetch.
const ANSWER: i32 = 8 << 20;

impl At {
    /// Where its log begins, or ends for readers of uncommitted records.
    pub(super) async fn bound(&self, cluster: &dyn Cluster, position: Position) -> Result<i64, LogError> {
        let at = vec![(self.topic.to_string(), self.partition)];
        let found: Option<PartitionOffset> = cluster.list_offsets(at, position).await?.pop();
        match found {
            Some(found) => Ok(found.offset?),
            None => Err(self.kafka(KafkaError::UNKNOWN_SERVER_ERROR)),
        }
    }

    /// Batches from `from` to before `to`, in order, until `each` answers false. Returns the offset after the last one that was
    /// seen. The first batch may begin before `from`.
    pub(super) async fn read(
        &self,
        cluster: &dyn Cluster,
        slot: u16,
        isolation: Isolation,
        (from, to): (i64, i64),
        mut each: impl FnMut(&RawBatch, &mut Aborted) -> Result<bool, BatchError> + Send,
    ) -> Result<i64, LogError> {
        let (mut offset, mut tries) = (from, 0);
        while offset < to {
            let before = offset;
            let partition = FetchPartition {
                topic: Arc::clone(&self.topic),
                topic_id: self.topic_id,
                partition: self.partition,
                offset,
                leader_epoch: -1,
                max_bytes: ANSWER,
            };
            let partitions = vec![partition];
            let request = FetchRequest { max_wait_ms: 500, min_bytes: 1, max_bytes: ANSWER, isolation, partitions };
            for answer in cluster.fetch(self.node, slot, request).await? {
                if let Some(error) = answer.error {
                    return Err(self.kafka(error));
                }
                let aborted = answer.aborted_transactions.iter().map(|one| (one.producer_id, one.first_offset));
                let mut aborted = Aborted::new(aborted);
                for batch in split(answer.records) {
                    let batch = batch.map_err(|error| self.batch(error))?;
                    if !each(&batch, &mut aborted).map_err(|error| self.batch(error))? {
                        return Ok(batch.next_offset());
                    }
                    offset = offset.max(batch.next_offset());
                }
            }
            // Below the high watermark there is always something, unless the log changes while it is read.
            tries = if offset == before { tries + 1 } else { 0 };
            if tries > MOST_TRIES {
                return Err(LogError::Stuck {
                    topic: Arc::clone(&self.topic),
                    partition: self.partition,
                    offset,
                    end: to,
                });
            }
        }
        Ok(offset)
    }

    fn kafka(&self, error: KafkaError) -> LogError {
        LogError::Kafka { topic: Arc::clone(&self.topic), partition: self.partition, error }
    }

    fn batch(&self, error: BatchError) -> LogError {
        LogError::Batch { topic: Arc::clone(&self.topic), partition: self.partition, error }
    }
}
