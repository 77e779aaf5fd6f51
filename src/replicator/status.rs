//! What a flow shows of itself, and why a topic stands still.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::decide::configs::ConfigChange;
use super::decide::guard::Guard;
use super::decide::position::Event;
use super::groups::board::{GroupEvent, GroupStatus};

/// A flow at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct FlowStatus {
    /// Name of the flow.
    pub flow: String,
    /// Name of the source cluster.
    pub source: String,
    /// Name of the target cluster.
    pub target: String,
    /// How it is.
    pub state: FlowState,
    /// Topics that are, or are to be, copied, by name.
    pub topics: Vec<TopicStatus>,
    /// Records copied since the start of the process.
    pub records: u64,
    /// Bytes of batches copied since the start of the process, as they are on the wire.
    pub bytes: u64,
    /// Records a second, over the last ten seconds.
    pub records_per_second: f64,
    /// Bytes a second, over the last ten seconds.
    pub bytes_per_second: f64,
    /// Offsets at the source that are not copied yet, over all partitions.
    pub lag_records: u64,
    /// Age of the newest copied record where records wait, of the worst partition; 0 where nothing waits.
    pub behind_seconds: f64,
    /// Batches that were written anew, since the start of the process.
    pub rewritten_batches: u64,
    /// What came from the target and so was not sent back, since the start of the process.
    pub looped: Looped,
    /// Whether each record is to arrive once.
    pub exactly_once: bool,
    /// How the target tells what it has; `None` until it was asked.
    pub guarantee: Option<Guarantee>,
    /// Why nothing at all is copied, where somebody must do something about it.
    pub halted: Option<Reason>,
    /// The newest failure, and when, in ms since 1970.
    pub last_error: Option<LastError>,
    /// When progress was last written at the target, in ms since 1970.
    pub last_progress_ms: Option<i64>,
    /// The newest events that an operator must know of, the oldest first; at most [`MOST_EVENTS`].
    pub events: Vec<PartitionEvent>,
    /// What was changed at the target, the oldest first; at most [`MOST_EVENTS`].
    pub changes: Vec<TopicChange>,
    /// Whether the operator has paused the whole flow.
    pub paused: bool,
    /// How ACLs follow.
    pub acls: AclsStatus,
    /// Groups that follow, by name.
    pub groups: Vec<GroupStatus>,
    /// Failures to have a group follow, by reason, since the start of the process.
    pub group_failures: BTreeMap<&'static str, u64>,
    /// The newest commits that went back, or were to, the oldest first; at most [`MOST_EVENTS`].
    pub group_events: Vec<GroupEvent>,
}

/// How the ACLs of a flow's copies follow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct AclsStatus {
    /// ACLs at the target that are the flow's own.
    pub owned: u64,
    /// Why they do not follow; none where they do, or are not to.
    pub reason: Option<Reason>,
}

/// Events kept for [`FlowStatus::events`], and as many for [`FlowStatus::changes`].
pub const MOST_EVENTS: usize = 100;

/// How a flow is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FlowState {
    /// Reads its progress and looks at both clusters for the first time.
    Starting,
    /// Copies, or waits for records.
    Active,
    /// A cluster cannot be used; tried again for ever.
    Paused,
    /// Told to stop.
    Stopped,
}

/// A failure with its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LastError {
    /// When, in ms since 1970.
    pub at_ms: i64,
    /// What.
    pub text: String,
}

/// One topic of a flow.
#[derive(Debug, Clone, Serialize)]
pub struct TopicStatus {
    /// Name at the source.
    pub source: String,
    /// Name at the target.
    pub target: String,
    /// How it is: the worst of its partitions.
    pub state: TopicState,
    /// Why it is not as it should be; also what does not stop it.
    pub reason: Option<Reason>,
    /// Partitions that are copied.
    pub partitions: usize,
    /// Offsets that are not copied yet.
    pub lag_records: u64,
    /// Records copied since the start of the process.
    pub records: u64,
    /// Bytes copied since the start of the process.
    pub bytes: u64,
    /// Age of the newest copied record where records wait, of the worst partition; 0 where nothing waits.
    pub behind_seconds: f64,
    /// How many partitions are in each state.
    pub states: PartitionCounts,
    /// Partitions that are not running, by number; at most [`MOST_STANDING`].
    pub standing: Vec<PartitionStatus>,
}

/// Partitions of one topic that [`TopicStatus::standing`] names.
pub const MOST_STANDING: usize = 50;

/// Partitions of one topic by their state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct PartitionCounts {
    /// Copied as records come.
    pub running: u32,
    /// Copied, and behind.
    pub catching_up: u32,
    /// Waiting for the operator, or for something that passes by itself.
    pub paused: u32,
    /// Somebody must do something.
    pub failed: u32,
    /// Whatever their state: those whose place is found by reading the target's log.
    pub guarded_by_log: u32,
}

/// One partition that is not running.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartitionStatus {
    /// Which one.
    pub partition: i32,
    /// How it is.
    pub state: PartitionState,
    /// Why.
    pub reason: Option<Reason>,
    /// Offsets that are not copied yet.
    pub lag_records: u64,
    /// Age of the newest copied record where records wait.
    pub behind_seconds: f64,
    /// Records that came from the target and so were not sent back.
    pub looped_records: u64,
    /// What keeps it exactly once after a failure.
    pub guard: Guard,
}

/// How a partition is; a later one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PartitionState {
    /// Copied as records come.
    Running,
    /// Copied, and more than ten seconds behind; or standing still for five without a reason that is known.
    CatchingUp,
    /// Waiting for the operator, or for something that passes by itself.
    Paused,
    /// Somebody must do something.
    Failed,
}

impl PartitionState {
    /// The state in words, as in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::CatchingUp => "catching_up",
            Self::Paused => "paused",
            Self::Failed => "failed",
        }
    }
}

/// What was not sent back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Looped {
    /// Batches.
    pub batches: u64,
    /// Their records.
    pub records: u64,
    /// Their bytes, as they are on the wire.
    pub bytes: u64,
}

/// How the target tells what it has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guarantee {
    /// Its leaders tell what they remember of a producer.
    Asked,
    /// Its brokers have no such question (before 2.8): the copies' own ends are read.
    Read,
    /// Its leaders do not tell us.
    Refused,
}

impl Guarantee {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Read => "read",
            Self::Refused => "refused",
        }
    }
}

/// How a topic is; a later one is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum TopicState {
    /// Copied.
    Active,
    /// Waits for something that passes by itself; tried again with growing pauses.
    Paused,
    /// Somebody must do something; tried again twice a minute.
    Failed,
}

/// Why a topic stands still, or what is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Reason {
    /// What kind of trouble.
    pub code: TroubleCode,
    /// The trouble in words, with partition and numbers.
    pub text: String,
}

/// Kinds of trouble; each gets a page in the documentation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[non_exhaustive]
pub enum TroubleCode {
    /// Not told yet where to begin.
    Beginning,
    /// The source cannot be reached, or answers with errors that pass.
    SourceUnavailable,
    /// The target cannot be reached, or answers with errors that pass.
    TargetUnavailable,
    /// A cluster refused the credentials.
    Authentication,
    /// The source does not let us read.
    SourceAuthorization,
    /// The target does not let us write, create or alter.
    TargetAuthorization,
    /// The source topic is not there any more.
    SourceGone,
    /// The source topic was deleted and created again.
    SourceRecreated,
    /// The target's name is not one, or is taken.
    TargetName,
    /// The target could not be created or altered.
    TargetChange,
    /// The target has more partitions than the source.
    TargetPartitions,
    /// Kafka's metrics mix the target up with another topic.
    MetricCollision,
    /// A batch is damaged: its checksum or form is wrong.
    Damaged,
    /// A record is larger than the target takes.
    TooLarge,
    /// The target refuses a batch for what is in it (null key on a compacted topic, timestamp out of range).
    Refused,
    /// The target's memory of what we wrote does not fit; being looked at again.
    Sequence,
    /// The operator has paused it.
    Paused,
    /// The source lost records before they were copied, and the flow is to stop then.
    SourceGap,
    /// ACLs cannot follow.
    Acls,
    /// Whose records the source holds cannot be told: its registry of producers is gone or unreadable.
    Registry,
    /// The target cannot give what `delivery` demands.
    Delivery,
    /// Records wait, nothing is in the way, and nothing moves.
    Stalled,
}

impl TroubleCode {
    /// Whether it passes by itself.
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(
            self,
            Self::Beginning
                | Self::SourceUnavailable
                | Self::TargetUnavailable
                | Self::Sequence
                | Self::SourceGone
                | Self::Paused
                | Self::Stalled
        )
    }

    /// The state of a topic that has this trouble.
    #[must_use]
    pub const fn state(self) -> TopicState {
        match self {
            Self::TargetPartitions | Self::MetricCollision => TopicState::Active,
            _ if self.passes() => TopicState::Paused,
            _ => TopicState::Failed,
        }
    }
}

/// Something that happened to a partition and that no copying can undo.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartitionEvent {
    /// When it was seen, in ms since 1970.
    pub at_ms: i64,
    /// Name at the source.
    pub topic: String,
    /// Which partition.
    pub partition: i32,
    /// What happened.
    #[serde(flatten)]
    pub what: Happened,
}

/// What happened to a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Happened {
    /// To the source.
    Source(Event),
    /// To the target.
    Target(TargetEvent),
}

/// What happened to a target partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum TargetEvent {
    /// The target topic was deleted and created again; it is copied from the source's earliest record.
    TargetRecreated,
    /// The target lost records that it had acknowledged: it remembers fewer than were written.
    TargetLost {
        /// Records that are missing.
        records: u64,
    },
}

/// Something that a flow did at the target, or was told to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TopicChange {
    /// When, in ms since 1970.
    pub at_ms: i64,
    /// Name at the source; none where it is about the whole flow.
    pub topic: Option<String>,
    /// What was done.
    #[serde(flatten)]
    pub what: Change,
}

/// What a flow did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Change {
    /// A copy was created.
    TopicCreated {
        /// Its name.
        target: String,
        /// Its partitions.
        partitions: i32,
    },
    /// A copy was given more partitions.
    PartitionsAdded {
        /// Its name.
        target: String,
        /// How many it has now.
        count: i32,
    },
    /// One config of a copy was changed.
    ConfigChanged {
        /// Its name.
        target: String,
        /// Which config, from what and to what.
        #[serde(flatten)]
        change: ConfigChange,
    },
    /// The source topic is gone.
    SourceGone {
        /// Name of its copy.
        target: String,
        /// When the copy is deleted, in ms since 1970; none where it is kept.
        delete_at_ms: Option<i64>,
    },
    /// The copy of a topic that is gone was deleted.
    CopyDeleted {
        /// Its name.
        target: String,
    },
    /// The copy of a topic that was deleted and created again was deleted, to be made anew.
    CopyReplaced {
        /// Its name.
        target: String,
    },
    /// An ACL was created.
    AclAdded {
        /// The ACL in words.
        acl: String,
    },
    /// An ACL that was the flow's own was removed.
    AclRemoved {
        /// The ACL in words.
        acl: String,
    },
    /// The operator paused it.
    Paused,
    /// The operator resumed it.
    Resumed,
}

impl Change {
    /// The event's name in JSON.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::TopicCreated { .. } => "topic_created",
            Self::PartitionsAdded { .. } => "partitions_added",
            Self::ConfigChanged { .. } => "config_changed",
            Self::SourceGone { .. } => "source_gone",
            Self::CopyDeleted { .. } => "copy_deleted",
            Self::CopyReplaced { .. } => "copy_replaced",
            Self::AclAdded { .. } => "acl_added",
            Self::AclRemoved { .. } => "acl_removed",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TopicCreated { target, partitions } => write!(f, "created {target} with {partitions} partitions"),
            Self::PartitionsAdded { target, count } => write!(f, "{target} has {count} partitions now"),
            Self::ConfigChanged { target, change } => write!(f, "changed {target}: {change}"),
            Self::SourceGone { target, delete_at_ms: None } => write!(f, "the source topic is gone; {target} is kept"),
            Self::SourceGone { target, delete_at_ms: Some(_) } => {
                write!(f, "the source topic is gone; {target} is deleted after the grace")
            }
            Self::CopyDeleted { target } => write!(f, "deleted {target}, whose source topic is gone"),
            Self::CopyReplaced { target } => write!(f, "deleted {target}, to be made anew of the new source topic"),
            Self::AclAdded { acl } => write!(f, "created ACL: {acl}"),
            Self::AclRemoved { acl } => write!(f, "removed ACL: {acl}"),
            Self::Paused => write!(f, "paused by the operator"),
            Self::Resumed => write!(f, "resumed by the operator"),
        }
    }
}

impl Happened {
    /// The event's name in JSON.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Source(Event::Gap { .. }) => "gap",
            Self::Source(Event::Truncated { .. }) => "truncated",
            Self::Source(Event::Recreated { .. }) => "recreated",
            Self::Target(TargetEvent::TargetRecreated) => "target_recreated",
            Self::Target(TargetEvent::TargetLost { .. }) => "target_lost",
        }
    }
}

impl fmt::Display for Happened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Source(event) => event.fmt(f),
            Self::Target(TargetEvent::TargetRecreated) => {
                f.write_str("the copy was deleted and created again; it is filled from the source's earliest record")
            }
            Self::Target(TargetEvent::TargetLost { records }) => {
                write!(f, "the target lost {records} records that it had acknowledged")
            }
        }
    }
}
