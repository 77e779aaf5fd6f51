//! The operator's hand on a flow: pause, resume, and what it would do.

use tokio::time::Instant;

use super::acls::Acls;
use super::decide::acls::AclPlan;
use super::decide::plan::Plan;
use super::flow::{Flow, FlowHandle};
use super::shared::Shared;
use super::status::{Change, Reason};
use super::topics::{Copied, Topics};
use crate::client::ClientError;

/// Why the operator's word was not followed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum OperateError {
    /// The flow does not copy a topic of this name.
    #[error("flow {flow} copies no topic `{topic}`")]
    UnknownTopic {
        /// Name of the flow.
        flow: String,
        /// What was named.
        topic: String,
    },
    /// A topic cannot be resumed while the whole flow is paused.
    #[error("the whole flow {flow} is paused: resume it, and pause the topics that shall stand still by name")]
    AllPaused {
        /// Name of the flow.
        flow: String,
    },
    /// What is to be remembered could not be written at the target; nothing was changed.
    #[error("flow {flow}: {detail}")]
    State {
        /// Name of the flow.
        flow: String,
        /// Why.
        detail: String,
    },
    /// A cluster could not be asked.
    #[error("flow {flow}: {source}")]
    Cluster {
        /// Name of the flow.
        flow: String,
        /// Why.
        source: ClientError,
    },
}

/// What a flow would do.
#[derive(Debug, Clone)]
pub struct Preview {
    /// Name of the flow.
    pub flow: String,
    /// Name of the source cluster.
    pub source: String,
    /// Name of the target cluster.
    pub target: String,
    /// The plan.
    pub plan: Plan,
    /// By source topic: its problems with their codes, in the plan's order.
    pub reasons: std::collections::BTreeMap<String, Vec<Reason>>,
    /// What is to be done about ACLs, or why that cannot be known; none where they are not to follow.
    pub acls: Option<Result<AclPlan, Reason>>,
    /// Topics that are paused.
    pub paused: std::collections::BTreeSet<String>,
}

impl FlowHandle {
    /// Name of the flow.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// What is paused: whether the whole flow is, and topics that are by name.
    #[must_use]
    pub fn paused(&self) -> (bool, Vec<String>) {
        let pauses = self.shared.pauses();
        (pauses.all, pauses.topics.into_iter().collect())
    }

    /// Pauses or resumes one topic, or the whole flow. When it returns, it is remembered at the target; what was fetched before is
    /// still appended. To resume also lets a topic go on that stopped at a gap.
    ///
    /// # Errors
    /// [`OperateError`]; nothing was changed then.
    pub async fn pause(&self, topic: Option<&str>, paused: bool) -> Result<(), OperateError> {
        let shared = &self.shared;
        let flow = || shared.name.clone();
        let pauses = shared.pauses();
        if let Some(topic) = topic {
            if !pauses.topics.contains(topic) && !shared.board().topics.contains_key(topic) {
                return Err(OperateError::UnknownTopic { flow: flow(), topic: topic.to_owned() });
            }
            if pauses.all && !paused {
                return Err(OperateError::AllPaused { flow: flow() });
            }
        }
        let written = shared.ledger.pause(topic, paused).await;
        written.map_err(|error| OperateError::State { flow: flow(), detail: error.to_string() })?;
        if !paused {
            shared.accept_gaps(topic);
        }
        shared.apply_pauses();
        if pauses != shared.pauses() {
            shared.changed(topic, if paused { Change::Paused } else { Change::Resumed });
        }
        shared.refresh.notify_one();
        Ok(())
    }

    /// Whether a topic is paused, in any way.
    #[must_use]
    pub fn is_paused(&self, topic: &str) -> bool {
        self.shared.is_paused(topic)
    }

    pub(super) fn copied(&self) -> Copied {
        self.shared.copied()
    }
}

impl Flow {
    /// What this flow would do if it ran now. `running` is the flow of the same name that runs, which knows what was copied.
    /// Changes nothing.
    ///
    /// # Errors
    /// [`OperateError::State`] or [`OperateError::Cluster`].
    pub async fn preview(&self, running: Option<&FlowHandle>) -> Result<Preview, OperateError> {
        let shared: &Shared = &self.shared;
        let flow = || shared.name.clone();
        let read = shared.ledger.read().await;
        read.map_err(|error| OperateError::State { flow: flow(), detail: error.to_string() })?;
        shared.apply_pauses();
        let copied = running.map(FlowHandle::copied).unwrap_or_default();
        let mut topics = Topics::default();
        let seen = topics.look(shared, &self.rules, &copied, Instant::now()).await;
        let seen = seen.map_err(|(_, source)| OperateError::Cluster { flow: flow(), source })?;
        let reasons = seen.plan.topics.iter();
        let reasons = reasons.map(|(name, planned)| (name.clone(), Topics::reasons(planned).collect()));
        let acls = match &shared.acls {
            Some(acl_rules) => Some(Acls::default().plan(shared, &self.rules, acl_rules, &seen).await),
            None => None,
        };
        Ok(Preview {
            acls,
            flow: flow(),
            source: shared.source.name().to_owned(),
            target: shared.target.name().to_owned(),
            reasons: reasons.collect(),
            paused: seen.plan.topics.keys().filter(|name| shared.is_paused(name)).cloned().collect(),
            plan: seen.plan,
        })
    }
}
