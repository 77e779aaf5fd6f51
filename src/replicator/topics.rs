//! Looks at both clusters, plans, and does at the target what the plan says.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::decide::plan::{self, Action, Plan, Planned, Problem, Rules, SourceTopic, TargetTopic};
use super::decide::{TopicId, batches, position};
use super::shared::Shared;
use super::status::{Reason, TopicState, TroubleCode};
use super::store::Known;
use crate::client::{AlterConfig, ClientError, ConfigEntry, ConfigSource, KafkaError, NewTopic, TopicView};
use crate::kafka::batch::Codec;

/// Both clusters' topics and configs, as far as a flow is concerned.
#[derive(Default)]
pub(super) struct Topics {
    source_configs: Configs,
    target_configs: Configs,
    /// By source topic: what could not be done at the target when it was last tried.
    failed: HashMap<String, Reason>,
}

/// What is to be copied now.
pub(super) struct Seen {
    pub(super) plan: Plan,
    pub(super) source: BTreeMap<String, TopicView>,
    pub(super) target: BTreeMap<String, TopicView>,
    /// Something was changed at the target: look again at once.
    pub(super) changed: bool,
}

#[derive(Default)]
struct Configs {
    topics: HashMap<String, Vec<ConfigEntry>>,
    read: Option<Instant>,
}

/// How old configs may be: they change seldom and cost the broker more than metadata.
const CONFIGS_EVERY: Duration = Duration::from_secs(30);
/// Topics asked for their configs at once.
const CONFIGS_AT_ONCE: usize = 200;

impl Configs {
    /// Reads configs of the named topics, of all of them when they are old, else of new ones. What cannot be read is left out.
    async fn read(&mut self, cluster: &dyn Cluster, names: &[String], now: Instant) -> Result<(), ClientError> {
        if self.read.is_none_or(|read| now.duration_since(read) > CONFIGS_EVERY) {
            self.topics.clear();
            self.read = Some(now);
        }
        let new: Vec<_> = names.iter().filter(|name| !self.topics.contains_key(*name)).cloned().collect();
        for some in new.chunks(CONFIGS_AT_ONCE) {
            for one in cluster.describe_configs(some.to_vec()).await? {
                if let Ok(configs) = one.configs {
                    self.topics.insert(one.topic, configs);
                }
            }
        }
        Ok(())
    }

    fn value(&self, topic: &str, name: &str) -> Option<&str> {
        self.topics.get(topic)?.iter().find(|config| config.name == name)?.value.as_deref()
    }
}

impl Topics {
    /// Looks, plans and acts once.
    pub(super) async fn refresh(
        &mut self,
        shared: &Shared,
        rules: &Rules,
        known: &Known,
        now: Instant,
    ) -> Result<Seen, (TroubleCode, ClientError)> {
        let at_source = |error| (TroubleCode::SourceUnavailable, error);
        let at_target = |error| (TroubleCode::TargetUnavailable, error);
        let source = shared.source.topics(None).await.map_err(at_source)?;
        let source: BTreeMap<_, _> = source.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        let named = plan::targets(rules, source.values().map(|topic| (topic.name.as_str(), topic.internal)));
        let wanted: Vec<_> = named.values().filter_map(|target| target.clone().ok()).collect();
        let mut target = BTreeMap::new();
        if !wanted.is_empty() {
            let topics = shared.target.topics(Some(wanted)).await.map_err(at_target)?;
            target = topics.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        }
        target.retain(|_, topic: &mut TopicView| topic.error != Some(KafkaError::UNKNOWN_TOPIC_OR_PARTITION));
        let names: Vec<_> = named.keys().cloned().collect();
        self.source_configs.read(&*shared.source, &names, now).await.map_err(at_source)?;
        let names: Vec<_> = target.keys().cloned().collect();
        self.target_configs.read(&*shared.target, &names, now).await.map_err(at_target)?;

        let ids = known_ids(known, &named, &target);
        let plan = plan::plan(rules, &self.source_view(&source), &self.target_view(&target), &ids);
        let mut changed = false;
        for (name, planned) in &plan.topics {
            match self.act(&*shared.target, name, planned).await {
                Ok(acted) => {
                    changed |= acted;
                    self.failed.remove(name);
                }
                Err(error) => {
                    let reason = reason_of_change(&planned.target, &error);
                    shared.complain(&format!("topic {name}"), &reason.text);
                    self.failed.insert(name.clone(), reason);
                }
            }
        }
        self.failed.retain(|name, _| plan.topics.contains_key(name));
        Ok(Seen { plan, source, target, changed })
    }

    fn source_view(&self, source: &BTreeMap<String, TopicView>) -> BTreeMap<String, SourceTopic> {
        let view = source.values().filter(|topic| topic.error.is_none()).map(|topic| {
            let configs = self.source_configs.topics.get(&topic.name).map(|configs| {
                let own = configs.iter().filter(|one| one.source == ConfigSource::Topic && !one.read_only);
                own.filter(|one| !one.sensitive)
                    .filter_map(|one| Some((one.name.clone(), one.value.clone()?)))
                    .collect()
            });
            let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            let view = SourceTopic { topic_id: topic.topic_id.0, internal: topic.internal, partitions, configs };
            (topic.name.clone(), view)
        });
        view.collect()
    }

    fn target_view(&self, target: &BTreeMap<String, TopicView>) -> BTreeMap<String, TargetTopic> {
        let view = target.values().map(|topic| {
            let configs =
                self.target_configs.topics.get(&topic.name).map(|configs| {
                    configs.iter().filter_map(|one| Some((one.name.clone(), one.value.clone()?))).collect()
                });
            let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            (topic.name.clone(), TargetTopic { partitions, configs })
        });
        view.collect()
    }

    /// What a lane of this topic must know of configs.
    pub(super) fn rules(&self, source: &str, target: &str) -> batches::Rules {
        let default = batches::Rules::default();
        let target = |name| self.target_configs.value(target, name);
        batches::Rules {
            compacted: self
                .source_configs
                .value(source, "cleanup.policy")
                .is_some_and(|policy| policy.split(',').any(|one| one.trim() == "compact")),
            target_max_bytes: target("max.message.bytes")
                .and_then(|bytes| bytes.parse().ok())
                .unwrap_or(default.target_max_bytes),
            target_codec: match target("compression.type") {
                Some("uncompressed") => Some(Codec::None),
                Some("gzip") => Some(Codec::Gzip),
                Some("snappy") => Some(Codec::Snappy),
                Some("lz4") => Some(Codec::Lz4),
                Some("zstd") => Some(Codec::Zstd),
                _ => None,
            },
            target_stamps: target("message.timestamp.type") == Some("LogAppendTime"),
        }
    }

    /// Why a planned topic is not as it should be, the worst first.
    pub(super) fn reason(&self, name: &str, planned: &Planned) -> Option<Reason> {
        let told = planned.problems.iter().map(|problem| {
            let code = match problem {
                Problem::Name(_) | Problem::Conflict { .. } => TroubleCode::TargetName,
                Problem::Recreated => TroubleCode::SourceRecreated,
                Problem::MorePartitions { .. } => TroubleCode::TargetPartitions,
                Problem::MetricCollision(_) => TroubleCode::MetricCollision,
            };
            Reason { code, text: problem.to_string() }
        });
        let all = told.chain(self.failed.get(name).cloned());
        all.max_by_key(|reason: &Reason| (reason.code.state(), reason.code.state() == TopicState::Active))
    }

    /// Does what is planned for one topic. True when something was changed.
    async fn act(&mut self, cluster: &dyn Cluster, name: &str, planned: &Planned) -> Result<bool, ClientError> {
        let target = &planned.target;
        for action in &planned.actions {
            match action {
                Action::Create { partitions, replication_factor, configs } => {
                    let topic = NewTopic {
                        name: target.clone(),
                        partitions: *partitions,
                        replication_factor: *replication_factor,
                        configs: configs.clone(),
                    };
                    create(cluster, topic).await?;
                    tracing::info!(topic = name, %target, partitions, "created");
                }
                Action::AddPartitions { count } => {
                    match cluster.create_partitions(target.clone(), *count).await {
                        Err(error) if error.kafka() == Some(KafkaError::INVALID_PARTITIONS) => {}
                        other => other?,
                    }
                    tracing::info!(topic = name, %target, count, "partitions added");
                }
                Action::AlterConfigs { set } => {
                    self.target_configs.topics.remove(target);
                    alter(cluster, target, set).await?;
                    tracing::info!(topic = name, %target, ?set, "configs altered");
                }
            }
        }
        if !planned.actions.is_empty() {
            self.target_configs.topics.remove(target);
        }
        Ok(!planned.actions.is_empty())
    }
}

/// Creates the topic; where the target does not know one of the configs or forbids it, without them, and then sets those it takes.
async fn create(cluster: &dyn Cluster, topic: NewTopic) -> Result<(), ClientError> {
    let (name, configs) = (topic.name.clone(), topic.configs.clone());
    let bare = NewTopic { configs: BTreeMap::new(), ..topic.clone() };
    match cluster.create_topic(topic).await {
        Err(error) if error.kafka() == Some(KafkaError::TOPIC_ALREADY_EXISTS) => Ok(()),
        Err(error) if matches!(error.kafka(), Some(INVALID_CONFIG | POLICY_VIOLATION)) && !configs.is_empty() => {
            cluster.create_topic(bare).await?;
            alter(cluster, &name, &configs).await
        }
        other => other,
    }
}

/// Sets configs; one by one where the target refuses them together, so that one that it does not know stops no other.
async fn alter(cluster: &dyn Cluster, topic: &str, set: &BTreeMap<String, String>) -> Result<(), ClientError> {
    let change = |(name, value): (&String, &String)| (name.clone(), AlterConfig::Set(value.clone()));
    match cluster.alter_configs(topic.to_owned(), set.iter().map(change).collect()).await {
        Err(error) if error.kafka().is_some() && set.len() > 1 => {
            let mut refused = Ok(());
            for one in set {
                if let Err(error) = cluster.alter_configs(topic.to_owned(), vec![change(one)]).await {
                    refused = Err(error);
                }
            }
            refused
        }
        other => other,
    }
}

/// Ids of source topics whose copies still stand: a copy that was deleted may be made again of whatever the source is now.
fn known_ids(
    known: &Known,
    named: &BTreeMap<String, Result<String, super::decide::naming::NameError>>,
    target: &BTreeMap<String, TopicView>,
) -> BTreeMap<String, TopicId> {
    let mut out = BTreeMap::new();
    for ((topic, _), progress) in known {
        let copy = named.get(topic).and_then(|name| target.get(name.as_ref().ok()?));
        if copy.is_some_and(|copy| !position::is_recreated(progress.target_topic_id, copy.topic_id.0)) {
            out.insert(topic.clone(), progress.source_topic_id);
        }
    }
    out
}

fn reason_of_change(target: &str, error: &ClientError) -> Reason {
    let code = match error.kafka() {
        Some(KafkaError::TOPIC_AUTHORIZATION_FAILED | CLUSTER_AUTHORIZATION_FAILED) => TroubleCode::TargetAuthorization,
        _ if error.is_retriable() => TroubleCode::TargetUnavailable,
        _ => TroubleCode::TargetChange,
    };
    Reason { code, text: format!("target topic `{target}`: {error}") }
}

/// Kafka's errors that the client has no name for.
const fn named(code: i16) -> KafkaError {
    match KafkaError::from_code(code) {
        Some(error) => error,
        None => panic!("0 is no error"),
    }
}
/// 31.
const CLUSTER_AUTHORIZATION_FAILED: KafkaError = named(31);
/// 40: a config is unknown or its value is not one.
const INVALID_CONFIG: KafkaError = named(40);
/// 44: the operator's policy does not allow it.
const POLICY_VIOLATION: KafkaError = named(44);
