//! What the operator asks for, done by the flows, told in the words of the control room.

use std::time::Duration;

use super::report::Source;
use super::verdict;
use crate::client::Acl;
use crate::config::FlowConfig;
use crate::control::Code;
use crate::control::operate::{
    FlowPlan, LeftOut, Operator, Outcome, PauseDocument, PausedFlow, PlanDocument, PlannedAction, PlannedProblem,
    Refusal, RefusalKind, Selector, TopicPlan, VerifyCompared, VerifyDifference, VerifyPart, VerifyRequest,
    VerifyTarget,
};
use crate::replicator::decide::plan::{Action, Planned};
use crate::replicator::decide::select::Why;
use crate::replicator::{Compared, Flow, FlowHandle, OperateError, Preview};

impl Operator for Source {
    fn pause(&self, what: Selector, paused: bool) -> Outcome<'_, PauseDocument> {
        Box::pin(async move {
            let flows = self.chosen(&what)?;
            for flow in &flows {
                flow.pause(what.topic.as_deref(), paused).await.map_err(refusal)?;
            }
            let flows = flows.into_iter().map(|flow| {
                let (paused, topics) = flow.paused();
                PausedFlow { flow: flow.name().to_owned(), paused, topics }
            });
            Ok(PauseDocument { schema: "linkspan/v1/Pause".to_owned(), flows: flows.collect() })
        })
    }

    fn verify(&self, ask: VerifyRequest) -> Outcome<'_, VerifyPart> {
        Box::pin(async move {
            let selector = Selector { flow: ask.flow.clone(), topic: ask.topic.clone() };
            let flows = self.chosen(&selector)?;
            let Some(partition) = ask.partition else {
                let mut all = Vec::new();
                for flow in flows {
                    let partitions = flow.partitions(ask.topic.as_deref()).map_err(refusal)?;
                    all.extend(partitions.into_iter().map(|(topic, partition)| VerifyTarget {
                        flow: flow.name().to_owned(),
                        topic,
                        partition,
                    }));
                }
                return Ok(VerifyPart::Partitions(all));
            };
            let (Some(flow), Some(topic)) = (flows.first(), &ask.topic) else {
                return Err(Refusal::new(RefusalKind::Invalid, "a partition needs its topic"));
            };
            let cursor = ask.cursor.map(serde_json::from_value).transpose();
            let cursor = cursor.map_err(|error| Refusal::new(RefusalKind::Invalid, format!("cursor: {error}")))?;
            let compared = flow.verify(topic, partition, ask.sample, cursor, VERIFY_BUDGET).await.map_err(refusal)?;
            Ok(VerifyPart::Compared(told(compared)?))
        })
    }

    fn plan(&self, flows: Option<Vec<FlowConfig>>) -> Outcome<'_, PlanDocument> {
        Box::pin(async move {
            let flows = flows.unwrap_or_else(|| self.config.replicate.clone());
            let mut plans = Vec::new();
            for config in &flows {
                let flow = self.flow(config)?;
                let running = self.flows.iter().find(|running| running.name() == config.name);
                plans.push(plan(flow.preview(running).await.map_err(refusal)?));
            }
            let acls: u64 = plans.iter().map(|plan| plan.acls.len() as u64).sum();
            let topics = || plans.iter().flat_map(|plan| &plan.topics);
            Ok(PlanDocument {
                schema: "linkspan/v1/Plan".to_owned(),
                link: self.config.link.clone(),
                changes: acls
                    + topics().filter(|topic| !topic.paused).map(|topic| topic.actions.len() as u64).sum::<u64>(),
                problems: topics().flat_map(|topic| &topic.problems).filter(|problem| problem.stops).count() as u64,
                flows: plans,
            })
        })
    }
}

impl Source {
    /// The flows that a selector means; all of them that copy the topic, where it names one and no flow.
    fn chosen(&self, what: &Selector) -> Result<Vec<&FlowHandle>, Refusal> {
        let known = || self.flows.iter().map(FlowHandle::name).collect::<Vec<_>>().join(", ");
        let named = |flow: &&FlowHandle| what.flow.as_ref().is_none_or(|name| name == flow.name());
        let flows: Vec<_> = self.flows.iter().filter(named).collect();
        if flows.is_empty() {
            let what = match &what.flow {
                Some(name) => format!("there is no flow `{name}` here; there are: {}", known()),
                None => "there is no flow here: [[replicate]] stands in the file of the other side".to_owned(),
            };
            return Err(Refusal::new(RefusalKind::Unknown, what));
        }
        let (None, Some(topic)) = (&what.flow, &what.topic) else { return Ok(flows) };
        let copies =
            |flow: &&FlowHandle| flow.is_paused(topic) || flow.status().topics.iter().any(|one| one.source == *topic);
        let flows: Vec<_> = flows.into_iter().filter(copies).collect();
        if flows.is_empty() {
            return Err(Refusal::new(
                RefusalKind::Unknown,
                format!("no flow copies a topic `{topic}`; flows: {}", known()),
            ));
        }
        Ok(flows)
    }

    /// A flow as this configuration would make it, which does not run.
    fn flow(&self, config: &FlowConfig) -> Result<Flow, Refusal> {
        let lacks = |side: &str| {
            let what = format!("[{side}] of the running endpoint has no security, so that its cluster cannot be asked");
            Refusal::coded(RefusalKind::Conflict, Code::CONFIG_MISSING, what)
        };
        let source = self.peer.client().ok_or_else(|| lacks("peer"))?.clone();
        let target = self.local.client().ok_or_else(|| lacks("local"))?.clone();
        let invalid = |error: crate::replicator::FlowError| {
            Refusal::coded(RefusalKind::Invalid, Code::CONFIG_VALUE, error.to_string())
        };
        Flow::new(config, source, target).map_err(invalid)
    }
}

/// How long one part of a comparison takes at most, beside the fetch that is under way.
const VERIFY_BUDGET: Duration = Duration::from_secs(5);

fn told(compared: Compared) -> Result<VerifyCompared, Refusal> {
    let offset = |offset: i64| Some(offset).filter(|&offset| offset >= 0);
    let cursor = compared.cursor.map(serde_json::to_value).transpose();
    let difference = compared.difference.map(|one| VerifyDifference {
        source_offset: offset(one.source_offset),
        target_offset: offset(one.target_offset),
        what: one.what,
    });
    Ok(VerifyCompared {
        target: compared.target,
        records: compared.records,
        cursor: cursor.map_err(|error| Refusal::new(RefusalKind::Invalid, error.to_string()))?,
        difference,
        note: compared.note,
    })
}

fn refusal(error: OperateError) -> Refusal {
    let what = error.to_string();
    match error {
        OperateError::UnknownTopic { .. } => Refusal::new(RefusalKind::Unknown, what),
        OperateError::AllPaused { .. } => Refusal::coded(RefusalKind::Conflict, Code::OPERATOR_PAUSED, what),
        OperateError::State { .. } => Refusal::coded(RefusalKind::Unavailable, Code::FLOW_TARGET, what),
        _ => Refusal::new(RefusalKind::Unavailable, what),
    }
}

fn plan(seen: Preview) -> FlowPlan {
    let why = |name: &str| seen.plan.why.get(name).map_or_else(String::new, why);
    let topic = |(name, planned): (&String, &Planned)| {
        let problems = planned.problems.iter().zip(seen.reasons.get(name).into_iter().flatten());
        let problems = problems.map(|(problem, reason)| PlannedProblem {
            code: verdict::code(reason.code),
            stops: problem.stops(),
            text: reason.text.clone(),
        });
        TopicPlan {
            source: name.clone(),
            target: planned.target.clone(),
            partitions: planned.partitions,
            why: why(name),
            paused: seen.paused.contains(name),
            actions: planned.actions.iter().flat_map(|action| actions(&planned.target, action)).collect(),
            problems: problems.collect(),
        }
    };
    let left_out = seen.plan.why.iter().filter(|(_, why)| !why.is_included());
    let (acls, acls_problem) = match seen.acls {
        None => (Vec::new(), None),
        Some(Ok(plan)) => {
            let one = |action: &str, acl: &Acl| PlannedAction { action: action.to_owned(), text: acl.to_string() };
            let created = plan.create.iter().map(|acl| one("create_acl", acl));
            (created.chain(plan.delete.iter().map(|acl| one("delete_acl", acl))).collect(), None)
        }
        Some(Err(reason)) => {
            (Vec::new(), Some(PlannedProblem { code: verdict::code(reason.code), stops: false, text: reason.text }))
        }
    };
    FlowPlan {
        acls,
        acls_problem,
        topics: seen.plan.topics.iter().map(topic).collect(),
        left_out: left_out.map(|(name, _)| LeftOut { source: name.clone(), why: why(name) }).collect(),
        flow: seen.flow,
        source: seen.source,
        target: seen.target,
    }
}

fn why(why: &Why) -> String {
    match why {
        Why::Included { by, .. } => format!("topics '{by}'"),
        Why::Excluded { by } => format!("exclude '{by}'"),
        Why::NotIncluded => "no expression of topics matches".to_owned(),
        Why::Internal => "internal to Kafka".to_owned(),
        Why::Own => "linkspan's own".to_owned(),
    }
}

fn actions(target: &str, action: &Action) -> Vec<PlannedAction> {
    let one = |action: &str, text| PlannedAction { action: action.to_owned(), text };
    match action {
        Action::Create { partitions, replication_factor, configs } => {
            let mut text = format!("create {target}: {partitions} partitions");
            if *replication_factor >= 0 {
                text.push_str(&format!(", {replication_factor} replicas"));
            }
            for (name, value) in configs {
                text.push_str(&format!(", {name}={value}"));
            }
            vec![one("create", text)]
        }
        Action::Replace => vec![one("replace", format!("delete {target} and make it anew: its source was recreated"))],
        Action::AddPartitions { count } => {
            vec![one("add_partitions", format!("raise {target} to {count} partitions"))]
        }
        Action::AlterConfigs { changes } => {
            changes.iter().map(|change| one("alter_config", format!("{target}: {change}"))).collect()
        }
    }
}
