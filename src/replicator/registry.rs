//! The registry of producer ids at both clusters of a flow: written at the target before an id is used, read at the source before a
//! batch of an id that was not met yet is copied.
//!
//! It fails closed. A registry that was there and is not, is another one, or cannot be read stops what depends on it; nothing is
//! copied on a guess.

use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Mutex;

use super::cluster::Cluster;
use super::compacted::{CompactedTopic, TopicError};
use super::decide::batches::Aborted;
use super::decide::provenance::{Entry, EntryError, Origin, Provenance, TOPIC};
use super::log::{At, LogError};
use crate::client::{ClientError, Isolation, KafkaError, Position, TopicId, TopicView};
use crate::kafka::batch::{Codec, Limits, RawBatch, Record, decode};

/// Why the registry cannot be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum RegistryError {
    #[error("{TOPIC}: {0}")]
    Client(#[from] ClientError),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("{TOPIC}: {0}")]
    Kafka(KafkaError),
    #[error("{TOPIC} has no leader")]
    NoLeader,
    #[error("{TOPIC}: {0}")]
    Entry(#[from] EntryError),
    #[error("{TOPIC} was deleted at cluster {cluster}: which records came from here cannot be told any more")]
    Deleted { cluster: String },
    #[error(
        "{TOPIC} was deleted and created again at cluster {cluster}: which records came from here cannot be told any more"
    )]
    Recreated { cluster: String },
}

impl RegistryError {
    /// Whether it stays until somebody does something.
    pub(super) const fn is_lost(&self) -> bool {
        matches!(self, Self::Deleted { .. } | Self::Recreated { .. } | Self::Entry(_))
    }
}

/// The slot of its own connections, at both clusters.
const SLOT: u16 = 92;

/// The source's registry, as far as it was read.
pub(super) struct Registry {
    source: Arc<dyn Cluster>,
    known: RwLock<Provenance>,
    reading: Mutex<Reading>,
}

#[derive(Default)]
struct Reading {
    /// Id of the topic that was read; `None` where there was none.
    id: Option<TopicId>,
    at: Option<At>,
    /// Offset that is read next.
    next: i64,
}

impl Registry {
    /// Nothing is known before [`Registry::begin`].
    pub(super) fn new(source: Arc<dyn Cluster>) -> Self {
        Self { source, known: RwLock::default(), reading: Mutex::default() }
    }

    /// Of a flow to the cluster with Kafka's id `target`; `seen` is the registry that an earlier run has read.
    pub(super) async fn begin(&self, target: String, seen: Option<TopicId>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Provenance::new(target);
        *self.reading.lock().await = Reading { id: seen, ..Reading::default() };
    }

    /// What is known. Held for one answer's batches at most.
    pub(super) fn known(&self) -> RwLockReadGuard<'_, Provenance> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Id of the topic, once one was seen.
    pub(super) async fn id(&self) -> Option<TopicId> {
        self.reading.lock().await.id
    }

    /// Producer ids of these batches that are not known yet.
    pub(super) fn unknown(&self, batches: impl Iterator<Item = RawBatch>) -> BTreeSet<i64> {
        let known = self.known();
        let mut last = -1;
        let mut unknown = BTreeSet::new();
        for batch in batches {
            let producer_id = batch.header().map_or(-1, |header| header.producer_id);
            // Neighbours mostly have the same one.
            if producer_id != last && known.origin(producer_id) == Origin::Unknown {
                unknown.insert(producer_id);
            }
            last = producer_id;
        }
        unknown
    }

    /// Reads what was added; then all `met` producer ids are known.
    pub(super) async fn refresh(&self, met: &BTreeSet<i64>) -> Result<(), RegistryError> {
        let mut reading = self.reading.lock().await;
        let result = self.read(&mut reading).await;
        if result.is_err() {
            // The leader may have moved.
            reading.at = None;
        }
        result?;
        drop(reading);
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        met.iter().for_each(|&producer_id| known.is_ordinary(producer_id));
        Ok(())
    }

    async fn read(&self, reading: &mut Reading) -> Result<(), RegistryError> {
        if reading.at.is_none() {
            let topics = self.source.topics(Some(vec![TOPIC.to_owned()])).await?;
            let view = topics.into_iter().find(|topic| topic.name == TOPIC).ok_or(RegistryError::NoLeader)?;
            match self.check(reading.id, Some(&view))? {
                None => return Ok(()),
                Some(at) => reading.at = Some(at),
            }
        }
        let Some(at) = reading.at.clone() else { return Ok(()) };
        let begin = if reading.next == 0 { at.bound(&*self.source, Position::Earliest).await? } else { reading.next };
        let end = at.bound(&*self.source, Position::Latest).await?;
        let mut found = Vec::new();
        let mut wrong = None;
        let take = |batch: &RawBatch, _: &mut Aborted| {
            for record in decode(batch, Limits::default())? {
                let (key, value) = (record.key().unwrap_or_default(), record.value());
                // An id that was taken out on purpose stays what it was: forgetting it would send its records back.
                match value.map(|value| Entry::decode(&key, &value)) {
                    None => {}
                    Some(Ok(entry)) => found.push(entry),
                    Some(Err(error)) => wrong = Some(error),
                }
            }
            Ok(wrong.is_none())
        };
        let next = at.read(&*self.source, SLOT, Isolation::ReadUncommitted, (begin, end), take).await?;
        if let Some(wrong) = wrong {
            return Err(wrong.into());
        }
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        for (producer_id, entry) in found {
            known.learn(producer_id, &entry);
        }
        drop(known);
        reading.id = Some(at.topic_id);
        reading.next = next.max(begin);
        Ok(())
    }

    /// Whether the registry that was seen is still the one that stands there; where it is, if it is there.
    fn check(&self, seen: Option<TopicId>, view: Option<&TopicView>) -> Result<Option<At>, RegistryError> {
        let cluster = || self.source.name().to_owned();
        let view = view.filter(|view| view.error != Some(KafkaError::UNKNOWN_TOPIC_OR_PARTITION));
        let Some(view) = view else {
            return if seen.is_some() { Err(RegistryError::Deleted { cluster: cluster() }) } else { Ok(None) };
        };
        if let Some(error) = view.error {
            return Err(RegistryError::Kafka(error));
        }
        if seen.is_some_and(|seen| seen.is_some() && view.topic_id.is_some() && seen != view.topic_id) {
            return Err(RegistryError::Recreated { cluster: cluster() });
        }
        let node = view.partitions.first().and_then(|one| one.leader).ok_or(RegistryError::NoLeader)?;
        Ok(Some(At { node, topic: TOPIC.into(), topic_id: view.topic_id, partition: 0 }))
    }

    /// Holds what a look at all of the source's topics showed against what was read before. True where there is one that was not
    /// there before.
    pub(super) async fn look(&self, view: Option<&TopicView>) -> Result<bool, RegistryError> {
        let mut reading = self.reading.lock().await;
        let found = self.check(reading.id, view)?;
        if reading.at.as_ref().map(|at| at.node) != found.as_ref().map(|at| at.node) {
            reading.at.clone_from(&found);
        }
        Ok(found.is_some() && reading.id.is_none())
    }
}

/// The target's registry: what this flow has written there.
pub(super) struct Register {
    topic: CompactedTopic,
    entry: Entry,
    done: Mutex<HashSet<i64>>,
}

impl Register {
    pub(super) fn new(target: &Arc<dyn Cluster>, entry: Entry, replication_factor: Option<i16>) -> Self {
        Self { topic: CompactedTopic::new(TOPIC, target, replication_factor, SLOT), entry, done: Mutex::default() }
    }

    /// Writes a producer id down, unless this run has; when this returns, all in-sync replicas have it.
    pub(super) async fn write(&self, producer_id: i64) -> Result<(), TopicError> {
        let mut done = self.done.lock().await;
        if !done.contains(&producer_id) {
            let (key, value) = (producer_id.to_string(), self.entry.encode());
            let record = Record::new(0, super::shared::now_ms(), Some(key.as_bytes()), Some(&value), &[]);
            self.topic.append(&[record], Codec::None).await?;
            done.insert(producer_id);
        }
        Ok(())
    }
}
