//! Looks at both clusters, plans, and does at the target what the plan says.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use super::decide::configs::{ConfigChange, TargetConfigs, Values};
use super::decide::plan::{self, Action, Plan, Planned, Problem, Rules, SourceTopic, TargetTopic};
use super::decide::{TopicId, batches, position};
use super::ledger::LedgerError;
use super::shared::Shared;
use super::status::{Change, Reason, TopicState, TroubleCode};
use crate::client::{AlterConfig, ClientError, ConfigEntry, ConfigSource, KafkaError, NewTopic, TopicView};
use crate::config::OnRecreate;
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

/// Of each source topic that was copied: its id, and that of its copy.
pub(super) type Copied = BTreeMap<String, (TopicId, TopicId)>;

/// Which cluster could not be used, and why.
pub(super) type Unusable = (TroubleCode, ClientError);

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

    /// Configs that can be read and written, and are set on the topic itself.
    fn own(&self, topic: &str) -> Option<Values> {
        let own = self.topics.get(topic)?.iter().filter(|one| one.source == ConfigSource::Topic && !one.read_only);
        Some(own.filter(|one| !one.sensitive).filter_map(|one| Some((one.name.clone(), one.value.clone()?))).collect())
    }

    fn of_target(&self, topic: &str) -> Option<TargetConfigs> {
        let all = self.topics.get(topic)?.iter();
        let values = all.filter_map(|one| Some((one.name.clone(), one.value.clone()?))).collect();
        Some(TargetConfigs { values, own: self.own(topic)?.into_keys().collect() })
    }
}

impl Topics {
    /// Looks, plans and acts once.
    pub(super) async fn refresh(
        &mut self,
        shared: &Shared,
        rules: &Rules,
        copied: &Copied,
        now: Instant,
    ) -> Result<Seen, Unusable> {
        let mut seen = self.look(shared, rules, copied, now).await?;
        for (name, planned) in &seen.plan.topics {
            if shared.is_paused(name) {
                continue;
            }
            match self.act(shared, name, planned).await {
                Ok(acted) => {
                    seen.changed |= acted;
                    self.failed.remove(name);
                }
                Err(error) => {
                    let reason = reason_of_change(&planned.target, &error);
                    shared.complain(&format!("topic {name}"), &reason.text);
                    self.failed.insert(name.clone(), reason);
                }
            }
        }
        self.failed.retain(|name, _| seen.plan.topics.contains_key(name));
        Ok(seen)
    }

    /// Looks at both clusters and plans; nothing is changed anywhere.
    pub(super) async fn look(
        &mut self,
        shared: &Shared,
        rules: &Rules,
        copied: &Copied,
        now: Instant,
    ) -> Result<Seen, Unusable> {
        let at_source = |error| (TroubleCode::SourceUnavailable, error);
        let at_target = |error| (TroubleCode::TargetUnavailable, error);
        let source = shared.source.topics(None).await.map_err(at_source)?;
        let source: BTreeMap<_, _> = source.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        let named = plan::targets(rules, source.values().map(|topic| (topic.name.as_str(), topic.internal)));
        let gone = copied.keys().filter(|name| !source.contains_key(*name)).map(|name| (name.as_str(), false));
        let gone = plan::targets(rules, gone);
        let wanted: Vec<_> = named.values().chain(gone.values()).filter_map(|target| target.clone().ok()).collect();
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

        let ids = known_ids(copied, &named, &target);
        let mut rules = std::borrow::Cow::Borrowed(rules);
        if rules.on_recreate != OnRecreate::Stop && super::gone::other_source(shared).is_some() {
            // All topics of another cluster look as if they were created again.
            rules.to_mut().on_recreate = OnRecreate::Stop;
        }
        let plan = plan::plan(&rules, &self.source_view(&source), &self.target_view(shared, &target), &ids);
        Ok(Seen { plan, source, target, changed: false })
    }

    fn source_view(&self, source: &BTreeMap<String, TopicView>) -> BTreeMap<String, SourceTopic> {
        let view = source.values().filter(|topic| topic.error.is_none()).map(|topic| {
            let configs = self.source_configs.own(&topic.name);
            let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            let view = SourceTopic { topic_id: topic.topic_id.0, internal: topic.internal, partitions, configs };
            (topic.name.clone(), view)
        });
        view.collect()
    }

    fn target_view(&self, shared: &Shared, target: &BTreeMap<String, TopicView>) -> BTreeMap<String, TargetTopic> {
        let view = target.values().map(|topic| {
            let configs = self.target_configs.of_target(&topic.name);
            let partitions = i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX);
            let ours = shared.ledger.configs(&topic.name);
            (topic.name.clone(), TargetTopic { partitions, configs, ours })
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

    /// Why a planned topic is not as it should be: the worst.
    pub(super) fn reason(&self, name: &str, planned: &Planned) -> Option<Reason> {
        let all = Self::reasons(planned).chain(self.failed.get(name).cloned());
        all.max_by_key(|reason: &Reason| (reason.code.state(), reason.code.state() == TopicState::Active))
    }

    /// The problems of a plan with their codes, in their order.
    pub(super) fn reasons(planned: &Planned) -> impl Iterator<Item = Reason> + '_ {
        planned.problems.iter().map(|problem| {
            let code = match problem {
                Problem::Name(_) | Problem::Conflict { .. } => TroubleCode::TargetName,
                Problem::Recreated => TroubleCode::SourceRecreated,
                Problem::MorePartitions { .. } => TroubleCode::TargetPartitions,
                Problem::MetricCollision(_) => TroubleCode::MetricCollision,
            };
            Reason { code, text: problem.to_string() }
        })
    }

    /// Does what is planned for one topic. True when something was changed.
    async fn act(&mut self, shared: &Shared, name: &str, planned: &Planned) -> Result<bool, ChangeError> {
        let (cluster, target) = (&*shared.target, &planned.target);
        for action in &planned.actions {
            self.target_configs.topics.remove(target);
            match action {
                Action::Create { partitions, replication_factor, configs } => {
                    let topic = NewTopic {
                        name: target.clone(),
                        partitions: *partitions,
                        replication_factor: *replication_factor,
                        configs: configs.clone(),
                    };
                    let before = own_before(shared, target, &as_changes(configs)).await?;
                    let created = create(cluster, topic).await;
                    let set = created.as_ref().ok().and_then(Option::as_ref);
                    own_after(shared, target, before, set.map_or(&[], Vec::as_slice)).await;
                    if created?.is_some() {
                        let (target, partitions) = (target.clone(), *partitions);
                        shared.changed(Some(name), Change::TopicCreated { target, partitions });
                    }
                }
                Action::Replace => {
                    cluster.delete_topic(target.clone()).await?;
                    shared.changed(Some(name), Change::CopyReplaced { target: target.clone() });
                }
                Action::AddPartitions { count } => {
                    match cluster.create_partitions(target.clone(), *count).await {
                        Err(error) if error.kafka() == Some(KafkaError::INVALID_PARTITIONS) => {}
                        other => other?,
                    }
                    shared.changed(Some(name), Change::PartitionsAdded { target: target.clone(), count: *count });
                }
                Action::AlterConfigs { changes } => {
                    let before = own_before(shared, target, changes).await?;
                    let (done, refused) = alter(cluster, target, changes).await;
                    own_after(shared, target, before, &done).await;
                    for change in done {
                        shared.changed(Some(name), Change::ConfigChanged { target: target.clone(), change });
                    }
                    refused?;
                }
            }
        }
        Ok(!planned.actions.is_empty())
    }
}

/// Notes that configs about to be set at the target are the flow's own: a crash, or a leader that moves, between the two must not
/// leave one behind that never goes back. A value that did not come about after all owns nothing. Gives what was owned before.
async fn own_before(shared: &Shared, target: &str, changes: &[ConfigChange]) -> Result<Values, LedgerError> {
    let before = shared.ledger.configs(target);
    let set = changes.iter().filter(|change| change.to.is_some());
    shared.ledger.set_configs(target, owned(before.clone(), set)).await?;
    Ok(before)
}

/// Notes what came of it. Where that fails it is known from the values at the target.
async fn own_after(shared: &Shared, target: &str, before: Values, done: &[ConfigChange]) {
    if let Err(error) = shared.ledger.set_configs(target, owned(before, done)).await {
        shared.complain("state", &error.to_string());
    }
}

fn owned<'a>(mut ours: Values, changes: impl IntoIterator<Item = &'a ConfigChange>) -> Values {
    for change in changes {
        match &change.to {
            Some(value) => drop(ours.insert(change.name.clone(), value.clone())),
            None => drop(ours.remove(&change.name)),
        }
    }
    ours
}

fn as_changes(configs: &Values) -> Vec<ConfigChange> {
    let set = configs.iter();
    set.map(|(name, to)| ConfigChange { name: name.clone(), from: None, to: Some(to.clone()) }).collect()
}

/// Creates the topic; where the target does not know one of the configs or forbids it, without them, and then sets those it takes.
/// Gives the configs that were set, and nothing where the topic was there already.
async fn create(cluster: &dyn Cluster, topic: NewTopic) -> Result<Option<Vec<ConfigChange>>, ClientError> {
    let name = topic.name.clone();
    let set = as_changes(&topic.configs);
    let bare = NewTopic { configs: BTreeMap::new(), ..topic.clone() };
    match cluster.create_topic(topic).await {
        Ok(()) => Ok(Some(set)),
        Err(error) if error.kafka() == Some(KafkaError::TOPIC_ALREADY_EXISTS) => Ok(None),
        Err(error) if matches!(error.kafka(), Some(INVALID_CONFIG | POLICY_VIOLATION)) && !set.is_empty() => {
            cluster.create_topic(bare).await?;
            // What the target refuses is told when the configs are compared the next time.
            Ok(Some(alter(cluster, &name, &set).await.0))
        }
        Err(error) => Err(error),
    }
}

/// Changes configs; one by one where the target refuses them together, so that one that it does not know stops no other. Gives what
/// was changed, and the last refusal.
async fn alter(
    cluster: &dyn Cluster,
    topic: &str,
    changes: &[ConfigChange],
) -> (Vec<ConfigChange>, Result<(), ClientError>) {
    let one =
        |change: &ConfigChange| (change.name.clone(), change.to.clone().map_or(AlterConfig::Delete, AlterConfig::Set));
    match cluster.alter_configs(topic.to_owned(), changes.iter().map(one).collect()).await {
        Ok(()) => (changes.to_vec(), Ok(())),
        Err(error) if error.kafka().is_some() && changes.len() > 1 => {
            let (mut done, mut refused) = (Vec::new(), Ok(()));
            for change in changes {
                match cluster.alter_configs(topic.to_owned(), vec![one(change)]).await {
                    Ok(()) => done.push(change.clone()),
                    Err(error) => refused = Err(error),
                }
            }
            (done, refused)
        }
        Err(error) => (Vec::new(), Err(error)),
    }
}

/// Ids of source topics whose copies still stand: a copy that was deleted may be made again of whatever the source is now.
fn known_ids(
    copied: &Copied,
    named: &BTreeMap<String, Result<String, super::decide::naming::NameError>>,
    target: &BTreeMap<String, TopicView>,
) -> BTreeMap<String, TopicId> {
    let mut out = BTreeMap::new();
    for (topic, (source_id, target_id)) in copied {
        let copy = named.get(topic).and_then(|name| target.get(name.as_ref().ok()?));
        if copy.is_some_and(|copy| !position::is_recreated(*target_id, copy.topic_id.0)) {
            out.insert(topic.clone(), *source_id);
        }
    }
    out
}

fn reason_of_change(target: &str, error: &ChangeError) -> Reason {
    let code = match error.kafka() {
        Some(KafkaError::TOPIC_AUTHORIZATION_FAILED | CLUSTER_AUTHORIZATION_FAILED) => TroubleCode::TargetAuthorization,
        _ if error.is_retriable() => TroubleCode::TargetUnavailable,
        _ => TroubleCode::TargetChange,
    };
    Reason { code, text: format!("target topic `{target}`: {error}") }
}

/// Why a change at the target did not come about.
#[derive(Debug, thiserror::Error)]
enum ChangeError {
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("that its configs are the flow's own cannot be written down: {0}")]
    Ledger(#[from] LedgerError),
}

impl ChangeError {
    fn kafka(&self) -> Option<KafkaError> {
        match self {
            Self::Client(error) => error.kafka(),
            Self::Ledger(error) => error.kafka(),
        }
    }

    fn is_retriable(&self) -> bool {
        match self {
            Self::Client(error) => error.is_retriable(),
            Self::Ledger(error) => error.is_retriable(),
        }
    }
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
