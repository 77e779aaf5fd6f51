//! The progress topic at the target: made, read at the start, written as copying goes on.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};

use tokio::sync::Mutex;

use super::compacted::{CompactedTopic, TopicError};
use super::decide::TopicId;
use super::decide::progress::{Key, Progress, TOPIC};
use super::decide::provenance;
use super::lane::Lane;
use super::offsets::Offsets;
use super::shared::{Shared, now_ms};
use crate::kafka::batch::{Codec, Record};

/// Progress by source topic and partition.
pub(super) type Known = HashMap<(String, i32), Progress>;

/// The progress topic, as one flow uses it.
pub(super) struct Store {
    flow: String,
    source: String,
    topic: CompactedTopic,
    /// Id of the source's registry of producers that was read, zeros for none.
    registry: std::sync::Mutex<TopicId>,
    /// Held while progress is read from lanes and written, so that a later record never tells of an earlier state.
    writing: Mutex<()>,
}

/// The slot of its own connection.
const SLOT: u16 = 90;

impl Store {
    pub(super) fn new(shared: &Shared, replication_factor: Option<i16>) -> Self {
        Self {
            flow: shared.name.clone(),
            source: shared.source.name().to_owned(),
            topic: CompactedTopic::new(TOPIC, &shared.target, replication_factor, SLOT),
            registry: std::sync::Mutex::default(),
            writing: Mutex::default(),
        }
    }

    /// Reads what this flow has copied; makes the topic where it is missing.
    pub(super) async fn read(&self) -> Result<Known, TopicError> {
        let mut known = Known::new();
        self.topic.read(|record| self.learn(&mut known, record)).await?;
        Ok(known)
    }

    /// Takes in a record, if it is of this flow; the last of a key counts.
    fn learn(&self, known: &mut Known, record: &Record) -> Result<(), String> {
        let Some(Ok(key)) = record.key().map(|key| Key::decode(&key)) else { return Ok(()) };
        if key.flow != self.flow || key.cluster != self.source {
            return Ok(());
        }
        if key.topic == provenance::TOPIC {
            let seen = record.value().map(|value| Progress::decode(&value)).transpose();
            let seen = seen.map_err(|error| error.to_string())?.map(|seen| seen.source_topic_id);
            *self.registry.lock().unwrap_or_else(PoisonError::into_inner) = seen.unwrap_or_default();
            return Ok(());
        }
        let at = (key.topic, key.partition);
        match record.value() {
            None => drop(known.remove(&at)),
            // Unreadable taken for unknown would mean to copy all of it again.
            Some(value) => drop(known.insert(at, Progress::decode(&value).map_err(|error| error.to_string())?)),
        }
        Ok(())
    }

    /// The source's registry of producers that this flow has read, as far as is known; zeros for none.
    pub(super) fn registry(&self) -> TopicId {
        *self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps which registry was read, so that another one of the same name is found out. A null value under the same key forgets it.
    pub(super) async fn remember_registry(&self, id: TopicId) -> Result<(), TopicError> {
        let (flow, cluster, topic) = (self.flow.clone(), self.source.clone(), provenance::TOPIC.to_owned());
        let key = Key { flow, cluster, topic, partition: 0 };
        let now = now_ms();
        let value = Progress { source_topic_id: id, written_at: now, ..Progress::default() };
        let record = Record::new(0, now, Some(&key.encode()), Some(&value.encode()), &[]);
        self.topic.append(&[record], Codec::None).await?;
        *self.registry.lock().unwrap_or_else(PoisonError::into_inner) = id;
        Ok(())
    }

    /// Writes first progress of lanes that are about to begin, before anything is appended for them.
    pub(super) async fn begin(&self, first: &[(Arc<Lane>, Progress)]) -> Result<(), TopicError> {
        let _writing = self.writing.lock().await;
        self.write(first).await
    }

    /// Writes what lanes have had acknowledged since the last call. Returns how many had something new.
    ///
    /// Where records lie is written before that they were copied: what begins at this progress finds all that lies before it.
    pub(super) async fn save(&self, shared: &Shared, offsets: &Offsets) -> Result<usize, TopicError> {
        let _writing = self.writing.lock().await;
        let lanes = shared.lanes().into_values();
        let new: Vec<_> = lanes.filter_map(|lane| lane.unstored().map(|progress| (lane, progress))).collect();
        match offsets.save(shared).await {
            Ok(_) => {}
            // Progress without the map of its records would leave a hole in it for whoever begins there.
            Err(error) if error.is_retriable() => return Err(error),
            Err(error) => shared.complain("offset map", &error.to_string()),
        }
        self.write(&new).await?;
        Ok(new.len())
    }

    async fn write(&self, progress: &[(Arc<Lane>, Progress)]) -> Result<(), TopicError> {
        let now = now_ms();
        let records: Vec<_> = progress
            .iter()
            .enumerate()
            .map(|(n, (lane, progress))| {
                let value = Progress { written_at: now, ..*progress }.encode();
                Record::new(n as i64, now, Some(&self.key(lane).encode()), Some(&value), &[])
            })
            .collect();
        self.topic.append(&records, Codec::Lz4).await?;
        for (lane, progress) in progress {
            lane.stored(progress);
        }
        Ok(())
    }

    fn key(&self, lane: &Lane) -> Key {
        Key {
            flow: self.flow.clone(),
            cluster: self.source.clone(),
            topic: lane.source.to_string(),
            partition: lane.partition,
        }
    }
}
