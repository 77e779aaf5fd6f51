//! Consumer groups in the status document.

use serde::{Deserialize, Serialize};

/// One consumer group that follows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupSection {
    /// Its id.
    pub group: String,
    /// What becomes of it.
    pub state: GroupState,
    /// Why it is not in step.
    pub reason: Option<String>,
    /// Partitions that it has committed and that are copied.
    pub partitions: u64,
    /// Of them, those where it stands at the target exactly where it does at the source.
    pub partitions_exact: u64,
    /// Seconds since all of them did; `None` while they never did.
    pub sync_age_seconds: Option<f64>,
}

/// What becomes of a consumer group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum GroupState {
    /// It stands at the target where it stands at the source.
    Synced,
    /// The copy is not as far as the group.
    Waiting,
    /// It was used at the target and is further there.
    Ahead,
    /// It has members at the target, and is theirs.
    Active,
    /// It does not follow.
    Held,
    /// A cluster refuses, or cannot be used.
    Failed,
}

/// A commit of a group that went back at the target, or was not let.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupEventSection {
    /// When, RFC 3339.
    pub at: String,
    /// Which group.
    pub group: String,
    /// Topic, by its name at the target.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// What, with both offsets.
    pub text: String,
}

impl GroupState {
    /// Every state, for metrics.
    pub const ALL: [Self; 6] = [Self::Synced, Self::Waiting, Self::Ahead, Self::Active, Self::Held, Self::Failed];

    /// The word in JSON and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Waiting => "waiting",
            Self::Ahead => "ahead",
            Self::Active => "active",
            Self::Held => "held",
            Self::Failed => "failed",
        }
    }
}
