//! What a flow must not forget beside its progress: what is paused, which configs and ACLs at the target are its own, and since when
//! a source topic is gone. Kept in the compacted topic [`TOPIC`] at the target, so that it outlives the process and its host.
//!
//! Key: `flow/source cluster/kind/name`, where a name may have any character. Value: JSON, `{"v":1,"data":…}`; null forgets it.
//! The ownership of an ACL or a config is written before it is made and forgotten after it is removed, so that a crash leaves none
//! behind that nobody owns.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::cluster::Cluster;
use super::compacted::{CompactedTopic, TopicError};
use super::decide::configs::Values;
use super::shared::now_ms;
use crate::client::{Acl, KafkaError};
use crate::kafka::batch::{Codec, Record};

/// The topic at the target.
pub(super) const TOPIC: &str = "__linkspan-state";
/// What is written, and the newest that is understood.
const VERSION: u64 = 1;
/// The slot of its own connection.
const SLOT: u16 = 92;
/// The name under which a whole flow is paused; no topic has it.
const ALL: &str = "*";

/// What a flow remembers.
pub(super) struct Ledger {
    prefix: String,
    topic: CompactedTopic,
    /// By kind and name; `None` until it was read.
    entries: Mutex<Option<BTreeMap<(String, String), Value>>>,
    /// Held while something is written, so that what is read back is what was written last.
    writing: tokio::sync::Mutex<()>,
}

/// Why the ledger cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum LedgerError {
    #[error(transparent)]
    Topic(#[from] TopicError),
    #[error("topic {TOPIC}: `{name}` cannot be written: {detail}")]
    Value { name: String, detail: String },
    #[error("the flow has not read its state yet")]
    NotRead,
}

impl LedgerError {
    /// Whether the same may succeed later without anybody changing a setting.
    pub(super) fn is_retriable(&self) -> bool {
        match self {
            Self::Topic(error) => error.is_retriable(),
            Self::Value { .. } => false,
            Self::NotRead => true,
        }
    }

    /// Kafka's error, where it is one.
    pub(super) fn kafka(&self) -> Option<KafkaError> {
        match self {
            Self::Topic(error) => error.kafka(),
            Self::Value { .. } | Self::NotRead => None,
        }
    }
}

/// Since when a source topic is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, serde::Deserialize)]
pub(super) struct Gone {
    /// When it was seen missing first, in ms since 1970.
    pub(super) since_ms: i64,
}

/// What is paused.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Pauses {
    /// The whole flow.
    pub(super) all: bool,
    /// These source topics.
    pub(super) topics: BTreeSet<String>,
}

impl Pauses {
    pub(super) fn holds(&self, topic: &str) -> bool {
        self.all || self.topics.contains(topic)
    }
}

impl Ledger {
    pub(super) fn new(flow: &str, source: &str, target: Arc<dyn Cluster>, replication_factor: Option<i16>) -> Self {
        Self {
            prefix: format!("{flow}/{source}/"),
            topic: CompactedTopic::new(TOPIC, &target, replication_factor, SLOT),
            entries: Mutex::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }

    /// Reads what an earlier run, or another process, remembered; a topic that is not there is not made.
    pub(super) async fn read(&self) -> Result<(), LedgerError> {
        let _writing = self.writing.lock().await;
        let mut entries = BTreeMap::new();
        if self.topic.exists().await? {
            self.topic.read(|record| self.learn(&mut entries, record)).await?;
        }
        *self.lock() = Some(entries);
        Ok(())
    }

    fn learn(&self, entries: &mut BTreeMap<(String, String), Value>, record: &Record) -> Result<(), String> {
        let Some(key) = record.key().and_then(|key| String::from_utf8(key.to_vec()).ok()) else { return Ok(()) };
        let Some((kind, name)) = key.strip_prefix(&self.prefix).and_then(|rest| rest.split_once('/')) else {
            return Ok(());
        };
        let at = (kind.to_owned(), name.to_owned());
        let Some(value) = record.value() else {
            entries.remove(&at);
            return Ok(());
        };
        let mut value: Value =
            serde_json::from_slice(&value).map_err(|error| format!("the record `{key}` cannot be read: {error}"))?;
        let version = value["v"].as_u64().unwrap_or(0);
        if version != VERSION {
            return Err(format!("the record `{key}` is of version {version}, this linkspan understands {VERSION}"));
        }
        entries.insert(at, value["data"].take());
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<(String, String), Value>>> {
        // Whole between any two statements.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get<T: DeserializeOwned>(&self, kind: &str, name: &str) -> Option<T> {
        let value = self.lock().as_ref()?.get(&(kind.to_owned(), name.to_owned()))?.clone();
        serde_json::from_value(value).ok()
    }

    /// Names of one kind.
    fn names(&self, kind: &str) -> BTreeSet<String> {
        let entries = self.lock();
        let names = entries.iter().flatten().filter(|((of, _), _)| of == kind).map(|((_, name), _)| name.clone());
        names.collect()
    }

    /// Writes entries of one kind, `None` to forget; nothing is written where all of it is known already.
    async fn put<T: Serialize>(&self, kind: &str, changes: Vec<(String, Option<T>)>) -> Result<(), LedgerError> {
        let _writing = self.writing.lock().await;
        let mut new = Vec::new();
        for (name, value) in changes {
            let value = value.map(|value| serde_json::to_value(value)).transpose();
            let value = value.map_err(|error| LedgerError::Value { name: name.clone(), detail: error.to_string() })?;
            let at = (kind.to_owned(), name);
            let entries = self.lock();
            if entries.as_ref().ok_or(LedgerError::NotRead)?.get(&at) != value.as_ref() {
                new.push((at, value));
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        let record = |(n, ((kind, name), value)): (usize, &((String, String), Option<Value>))| {
            let value = value.as_ref().map(|data| serde_json::json!({ "v": VERSION, "data": data }).to_string());
            let key = format!("{}{kind}/{name}", self.prefix);
            Record::new(n as i64, now_ms(), Some(key.as_bytes()), value.as_ref().map(String::as_bytes), &[])
        };
        let records: Vec<_> = new.iter().enumerate().map(record).collect();
        self.topic.append(&records, Codec::Lz4).await?;
        if let Some(entries) = self.lock().as_mut() {
            for (at, value) in new {
                match value {
                    Some(value) => drop(entries.insert(at, value)),
                    None => drop(entries.remove(&at)),
                }
            }
        }
        Ok(())
    }

    /// What is paused.
    pub(super) fn pauses(&self) -> Pauses {
        let mut topics = self.names("pause");
        Pauses { all: topics.remove(ALL), topics }
    }

    /// Pauses or resumes one topic, or all.
    pub(super) async fn pause(&self, topic: Option<&str>, paused: bool) -> Result<(), LedgerError> {
        let mut changes = vec![(topic.unwrap_or(ALL).to_owned(), paused.then_some(true))];
        if topic.is_none() && !paused {
            let others = self.names("pause").into_iter().filter(|name| name != ALL);
            changes.extend(others.map(|name| (name, None)));
        }
        self.put("pause", changes).await
    }

    /// The configs of a target topic that this flow has set.
    pub(super) fn configs(&self, target: &str) -> Values {
        self.get("configs", target).unwrap_or_default()
    }

    /// ACLs at the target that are the flow's own.
    pub(super) fn acls(&self) -> BTreeSet<Acl> {
        self.names("acl").into_iter().filter_map(|name| self.get("acl", &name)).collect()
    }

    /// Remembers that ACLs are the flow's own, or forgets them.
    pub(super) async fn own_acls(&self, acls: &[Acl], own: bool) -> Result<(), LedgerError> {
        self.put("acl", acls.iter().map(|acl| (acl.to_string(), own.then(|| acl.clone()))).collect()).await
    }

    /// Kafka's own id of the cluster that is copied from.
    pub(super) fn source(&self) -> Option<String> {
        self.get("source", "id")
    }

    /// Remembers it.
    pub(super) async fn set_source(&self, id: String) -> Result<(), LedgerError> {
        self.put("source", vec![("id".to_owned(), Some(id))]).await
    }

    /// Source topics that are gone.
    pub(super) fn gone(&self) -> BTreeMap<String, Gone> {
        self.names("gone").into_iter().filter_map(|name| Some((name.clone(), self.get("gone", &name)?))).collect()
    }

    /// Remembers, or forgets, that a source topic is gone.
    pub(super) async fn set_gone(&self, topic: &str, gone: Option<Gone>) -> Result<(), LedgerError> {
        self.put("gone", vec![(topic.to_owned(), gone)]).await
    }

    /// Remembers them.
    pub(super) async fn set_configs(&self, target: &str, values: Values) -> Result<(), LedgerError> {
        let value = (!values.is_empty()).then_some(values);
        self.put("configs", vec![(target.to_owned(), value)]).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicator::fake::Fake;

    fn ledger(target: &Arc<Fake>, flow: &str) -> Ledger {
        Ledger::new(flow, "orange", Arc::clone(target) as Arc<dyn Cluster>, None)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_written_is_there_after_a_restart_and_for_this_flow_alone() {
        let target = Fake::new("grape", 3);
        let one = ledger(&target, "f");
        assert!(matches!(one.pause(Some("t"), true).await, Err(LedgerError::NotRead)));
        one.read().await.expect("a missing topic is an empty one");
        one.pause(Some("t"), true).await.expect("written");
        one.pause(Some("u"), true).await.expect("written");
        one.pause(Some("u"), false).await.expect("written");
        let values: Values = [("retention.ms".to_owned(), "5".to_owned())].into();
        one.set_configs("t.copy", values.clone()).await.expect("written");

        let again = ledger(&target, "f");
        again.read().await.expect("read");
        assert_eq!(again.pauses(), Pauses { all: false, topics: ["t".to_owned()].into() });
        assert_eq!(again.configs("t.copy"), values);
        let other = ledger(&target, "other");
        other.read().await.expect("read");
        assert_eq!((other.pauses(), other.configs("t.copy")), (Pauses::default(), Values::new()));

        again.pause(None, true).await.expect("written");
        assert!(again.pauses().holds("x"));
        again.pause(None, false).await.expect("written");
        assert_eq!(again.pauses(), Pauses::default());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_of_a_newer_version_is_refused_by_name() {
        let target = Fake::new("grape", 3);
        let one = ledger(&target, "f");
        one.read().await.expect("read");
        let record = Record::new(0, 0, Some(b"f/orange/pause/t"), Some(br#"{"v":2,"data":true}"#), &[]);
        one.topic.append(&[record], Codec::None).await.expect("written");
        let error = one.read().await.expect_err("newer").to_string();
        assert_eq!(
            error,
            "topic __linkspan-state: the record `f/orange/pause/t` is of version 2, this linkspan understands 1"
        );
    }
}
