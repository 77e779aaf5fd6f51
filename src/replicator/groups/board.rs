//! What is shown of groups.

use std::collections::{BTreeMap, VecDeque};

use serde::Serialize;
use tokio::time::Instant;

use crate::client::{ClientError, KafkaError};
use crate::replicator::decide::groups::{Hold, Moved};
use crate::replicator::groups::named;
use crate::replicator::lane::Lane;
use crate::replicator::shared::{Shared, now_ms};
use crate::replicator::status::MOST_EVENTS;

/// One group of a flow.
#[derive(Debug, Clone, Serialize)]
pub struct GroupStatus {
    /// Its id.
    pub group: String,
    /// How it is: the worst of its partitions.
    pub state: GroupState,
    /// Why it is not in step.
    pub reason: Option<String>,
    /// Partitions that it has committed and that are copied.
    pub partitions: usize,
    /// Of them, those that stand at the target exactly where they do at the source.
    pub exact: usize,
    /// Seconds since it last stood at the target where it stood at the source; `None` where it never did in this run.
    pub age_seconds: Option<f64>,
}

/// How a group is; a later one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum GroupState {
    /// It stands at the target where it stands at the source.
    Synced,
    /// The copy is not as far as the group, or a transaction that commits it is open.
    Waiting,
    /// It was used at the target and is further there.
    Ahead,
    /// It has members at the target: brokers take commits from them alone.
    Active,
    /// It does not follow: its offset is not known, or it went back and may not follow.
    Held,
    /// A cluster refuses, or cannot be used.
    Failed,
}

/// Something that happened to a group's commit at the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GroupEvent {
    /// When, in ms since 1970.
    pub at_ms: i64,
    /// Which group.
    pub group: String,
    /// Topic, by its name at the target.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// What, in words with both offsets.
    pub text: String,
}

/// What is kept for status.
#[derive(Debug, Default)]
pub(in crate::replicator) struct GroupBoard {
    pub(in crate::replicator) groups: Vec<GroupEntry>,
    pub(in crate::replicator) failures: BTreeMap<&'static str, u64>,
    pub(in crate::replicator) events: VecDeque<GroupEvent>,
}

/// One group, before its age is told.
#[derive(Debug, Clone)]
pub(in crate::replicator) struct GroupEntry {
    pub(in crate::replicator) group: String,
    pub(in crate::replicator) state: GroupState,
    pub(in crate::replicator) reason: Option<String>,
    pub(in crate::replicator) partitions: usize,
    pub(in crate::replicator) exact: usize,
    pub(in crate::replicator) synced: Option<Instant>,
}

impl GroupEntry {
    pub(in crate::replicator) fn status(&self, now: Instant) -> GroupStatus {
        GroupStatus {
            group: self.group.clone(),
            state: self.state,
            reason: self.reason.clone(),
            partitions: self.partitions,
            exact: self.exact,
            age_seconds: self.synced.map(|synced| now.duration_since(synced).as_secs_f64()),
        }
    }
}

/// Why a group cannot follow now.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    /// Its name among metrics.
    reason: &'static str,
    pub(super) text: String,
}

const ACTIVE: &str = "active";
const SOURCE: &str = "source";
const TARGET: &str = "target";
const AUTHORIZATION: &str = "authorization";
const METADATA: &str = "metadata";
const REFUSED: &str = "refused";

impl Trouble {
    pub(super) fn of_source(error: &ClientError) -> Self {
        let reason = if is_authorization(error.kafka()) { AUTHORIZATION } else { SOURCE };
        Self { reason, text: format!("source: {error}") }
    }

    pub(super) const fn source(text: String) -> Self {
        Self { reason: SOURCE, text }
    }

    pub(super) fn of_target(error: &ClientError) -> Self {
        let reason = if is_authorization(error.kafka()) { AUTHORIZATION } else { TARGET };
        Self { reason, text: format!("target: {error}") }
    }

    pub(super) fn of_commit(topic: &str, partition: i32, error: KafkaError) -> Self {
        let reason = match error {
            UNKNOWN_MEMBER_ID | ILLEGAL_GENERATION | REBALANCE_IN_PROGRESS | STALE_MEMBER_EPOCH => {
                let text = "it has members at the target, whose brokers take commits from them alone".to_owned();
                return Self { reason: ACTIVE, text };
            }
            OFFSET_METADATA_TOO_LARGE => METADATA,
            error if is_authorization(Some(error)) => AUTHORIZATION,
            error if error.is_retriable() => TARGET,
            _ => REFUSED,
        };
        Self { reason, text: format!("{topic}-{partition}: the target answered {error}") }
    }

    pub(super) fn is_at_source(&self) -> bool {
        self.reason == SOURCE || self.text.starts_with("source: ")
    }

    pub(super) fn state(&self) -> GroupState {
        if self.reason == ACTIVE { GroupState::Active } else { GroupState::Failed }
    }
}

fn is_authorization(error: Option<KafkaError>) -> bool {
    matches!(
        error,
        Some(KafkaError::TOPIC_AUTHORIZATION_FAILED | GROUP_AUTHORIZATION_FAILED | CLUSTER_AUTHORIZATION_FAILED)
    )
}

/// Counts a failure, and logs it unless it is but a group in use.
pub(super) fn failed(shared: &Shared, group: &str, trouble: &Trouble) {
    *shared.group_board().failures.entry(trouble.reason).or_default() += 1;
    if trouble.reason != ACTIVE {
        shared.complain(&format!("group {group}"), &trouble.text);
    }
}

/// A commit went back at the target.
pub(super) fn moved(shared: &Shared, group: &str, lane: &Lane, moved: Moved, to: i64, at: Option<i64>) {
    let from = at.unwrap_or(-1);
    let text = match moved {
        Moved::Rewound { .. } => format!("set back from {from} to {to}, as the source's group was"),
        Moved::PastEnd { .. } => format!("set back from {from}, which was past the end, to {to}"),
        Moved::Corrected { .. } => {
            format!("set back from {from} to {to}: the target lost records and has others there now")
        }
    };
    happened(shared, group, lane, text);
}

/// A commit is left as it is.
pub(super) fn held(shared: &Shared, group: &str, lane: &Lane, hold: Hold) {
    match hold {
        Hold::Refused { .. } => happened(shared, group, lane, hold.to_string()),
        Hold::Ahead { .. } => {
            tracing::info!(flow = %shared.name, group, topic = %lane.target, partition = lane.partition, "{hold}");
        }
        Hold::Unmapped(_) | Hold::Unread => {
            *shared.group_board().failures.entry("unmapped").or_default() += 1;
            shared.complain(&format!("group {group}"), &format!("{}-{}: {hold}", lane.source, lane.partition));
        }
    }
}

fn happened(shared: &Shared, group: &str, lane: &Lane, text: String) {
    tracing::warn!(flow = %shared.name, group, topic = %lane.target, partition = lane.partition, "{text}");
    let (group, topic, partition) = (group.to_owned(), lane.target.to_string(), lane.partition);
    let event = GroupEvent { at_ms: now_ms(), group, topic, partition, text };
    let events = &mut shared.group_board().events;
    if events.len() >= MOST_EVENTS {
        events.pop_front();
    }
    events.push_back(event);
}

/// 12: what stands beside the offset is longer than the target takes.
const OFFSET_METADATA_TOO_LARGE: KafkaError = named(12);
/// 22: the group has members.
const ILLEGAL_GENERATION: KafkaError = named(22);
/// 25: the group has members.
const UNKNOWN_MEMBER_ID: KafkaError = named(25);
/// 27: the group has members, and they are sharing out partitions.
const REBALANCE_IN_PROGRESS: KafkaError = named(27);
/// 30: no permission on the group.
const GROUP_AUTHORIZATION_FAILED: KafkaError = named(30);
/// 31: no permission on the cluster.
const CLUSTER_AUTHORIZATION_FAILED: KafkaError = named(31);
/// 113: the group has members of the new protocol.
const STALE_MEMBER_EPOCH: KafkaError = named(113);
