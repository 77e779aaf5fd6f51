//! The operator's hand on a running endpoint: what can be asked of it and what can be changed, over the admin port.

use serde::{Deserialize, Serialize};

use super::Code;
use crate::config::FlowConfig;
use crate::net::BoxFuture;

/// An outcome of the operator's word.
pub type Outcome<'a, T> = BoxFuture<'a, Result<T, Refusal>>;

/// Does what the operator says. Implemented by the composition root.
pub trait Operator: Send + Sync + 'static {
    /// Pauses or resumes flows, or topics of them; what is paused stays so over a restart.
    fn pause(&self, what: Selector, paused: bool) -> Outcome<'_, PauseDocument>;

    /// Compares copies with their sources: a part of one partition, or says which partitions there are.
    fn verify(&self, ask: VerifyRequest) -> Outcome<'_, VerifyPart>;

    /// What these flows, those that run where none are given, would create or change. Changes nothing.
    fn plan(&self, flows: Option<Vec<FlowConfig>>) -> Outcome<'_, PlanDocument>;
}

/// Which flows, and which of their topics.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selector {
    /// Name of the flow; all flows where there is none.
    #[serde(default)]
    pub flow: Option<String>,
    /// Name of the topic at the source; the whole flow where there is none.
    #[serde(default)]
    pub topic: Option<String>,
}

/// What to compare. Without a partition, the partitions of what is selected are listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifyRequest {
    /// Name of the flow; all flows where there is none.
    #[serde(default)]
    pub flow: Option<String>,
    /// Name of the topic at the source; all topics where there is none.
    #[serde(default)]
    pub topic: Option<String>,
    /// The partition to compare.
    #[serde(default)]
    pub partition: Option<i32>,
    /// Compare the newest so many source offsets alone.
    #[serde(default)]
    pub sample: Option<u64>,
    /// Where the part before ended; what it means is the endpoint's.
    #[serde(default)]
    pub cursor: Option<serde_json::Value>,
}

/// A part of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VerifyPart {
    /// The partitions to compare.
    Partitions(Vec<VerifyTarget>),
    /// What was compared of one.
    Compared(VerifyCompared),
}

/// A partition that can be compared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyTarget {
    /// Name of the flow.
    pub flow: String,
    /// Name of the topic at the source.
    pub topic: String,
    /// The partition.
    pub partition: i32,
}

/// What was compared of a partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyCompared {
    /// Name of the copy.
    pub target: String,
    /// Records that are the same, in this part.
    pub records: u64,
    /// To be given with the next request; `None` at the end.
    pub cursor: Option<serde_json::Value>,
    /// The first difference.
    pub difference: Option<VerifyDifference>,
    /// Why nothing is compared.
    pub note: Option<String>,
}

/// Where source and copy part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyDifference {
    /// Offset at the source; `None` where the copy has a record too many.
    pub source_offset: Option<i64>,
    /// Offset at the target; `None` where a record is missing in the copy.
    pub target_offset: Option<i64>,
    /// `timestamp`, `key`, `value`, `headers`, `missing`, `extra`.
    pub what: String,
}

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What kind of refusal.
    pub kind: RefusalKind,
    /// The code under which it stands in docs/errors.md, where it has one.
    pub code: Option<Code>,
    /// What was seen, and what to do.
    pub what: String,
}

/// Kinds of refusal; each is one HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// The request makes no sense: 400.
    Invalid,
    /// Not allowed from there, or without the token: 403.
    Forbidden,
    /// There is no such flow or topic: 404.
    Unknown,
    /// It cannot be done in the state that things are in: 409.
    Conflict,
    /// A cluster that is needed does not answer: 503.
    Unavailable,
}

impl Refusal {
    /// A refusal without a code.
    #[must_use]
    pub fn new(kind: RefusalKind, what: impl Into<String>) -> Self {
        Self { kind, code: None, what: what.into() }
    }

    /// A refusal with one.
    #[must_use]
    pub fn coded(kind: RefusalKind, code: Code, what: impl Into<String>) -> Self {
        Self { kind, code: Some(code), what: what.into() }
    }
}

/// What is paused after [`Operator::pause`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PauseDocument {
    /// `linkspan/v1/Pause`.
    pub schema: String,
    /// Of each flow that was named.
    pub flows: Vec<PausedFlow>,
}

/// What is paused of one flow.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PausedFlow {
    /// Name of the flow.
    pub flow: String,
    /// Whether all of it is paused.
    pub paused: bool,
    /// Topics that are paused by name.
    pub topics: Vec<String>,
}

/// What flows would create or change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanDocument {
    /// `linkspan/v1/Plan`.
    pub schema: String,
    /// Name of the link.
    pub link: String,
    /// Changes at the target, over all flows.
    pub changes: u64,
    /// Things that stop a topic, over all flows.
    pub problems: u64,
    /// The flows.
    pub flows: Vec<FlowPlan>,
}

/// What one flow would create or change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowPlan {
    /// Its name.
    pub flow: String,
    /// The source cluster.
    pub source: String,
    /// The target cluster.
    pub target: String,
    /// Topics that are copied, by name.
    pub topics: Vec<TopicPlan>,
    /// ACLs that would be created or removed at the target.
    pub acls: Vec<PlannedAction>,
    /// Why the ACLs cannot follow.
    pub acls_problem: Option<PlannedProblem>,
    /// Topics of the source that are not, by name.
    pub left_out: Vec<LeftOut>,
}

/// What is planned for one topic that is copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicPlan {
    /// Its name at the source.
    pub source: String,
    /// Its name at the target.
    pub target: String,
    /// Partitions of the source.
    pub partitions: i32,
    /// Why it is copied: the expression that matches.
    pub why: String,
    /// Whether the operator has paused it, so that nothing is done now.
    pub paused: bool,
    /// What would be done at the target, in this order.
    pub actions: Vec<PlannedAction>,
    /// What is wrong with it.
    pub problems: Vec<PlannedProblem>,
}

/// One thing that would be done at the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedAction {
    /// `create`, `add_partitions`, `alter_config`, `replace`, `delete`.
    pub action: String,
    /// What exactly, in words.
    pub text: String,
}

/// One thing that is wrong with a topic.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedProblem {
    /// Its code.
    pub code: Code,
    /// Whether the topic is not copied because of it.
    pub stops: bool,
    /// What exactly.
    pub text: String,
}

/// A topic of the source that is not copied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its name.
    pub source: String,
    /// Why.
    pub why: String,
}
