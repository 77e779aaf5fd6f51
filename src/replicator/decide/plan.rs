//! What is to be done at the target so that topics can be copied: one pure function from two views to a list of actions.

use std::collections::{BTreeMap, BTreeSet};

use super::configs::{ConfigChange, ConfigRules, TargetConfigs, Values};
use super::naming::{self, NameError, Naming};
use super::select::{Selection, Why};
use super::{TopicId, position};
use crate::config::OnRecreate;

/// A topic of the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceTopic {
    /// Its id, zeros where unknown.
    pub topic_id: TopicId,
    /// Whether the broker calls it one of its own.
    pub internal: bool,
    /// Number of partitions.
    pub partitions: i32,
    /// Configs set on the topic itself that can be read and written; `None` where they were not asked for or could not be read.
    pub configs: Option<Values>,
}

/// A topic of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetTopic {
    /// Number of partitions.
    pub partitions: i32,
    /// Its configs; `None` where they were not asked for or could not be read.
    pub configs: Option<TargetConfigs>,
    /// Configs of it that this flow has set.
    pub ours: Values,
}

/// What the flow was told.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Which topics.
    pub selection: Selection,
    /// Under which names.
    pub naming: Naming,
    /// Replication factor of created topics; `None` for the target's default.
    pub replication_factor: Option<i16>,
    /// Which configs are copied.
    pub configs: ConfigRules,
    /// What becomes of a copy whose source topic was deleted and created again.
    pub on_recreate: OnRecreate,
}

/// What is to be done at the target.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Action {
    /// Create the topic.
    Create {
        /// As many as the source has.
        partitions: i32,
        /// -1 for the target's default.
        replication_factor: i16,
        /// What the source has set on the topic itself.
        configs: Values,
    },
    /// Delete the copy of a topic that was deleted and created again, so that it is made anew.
    Replace,
    /// Raise the number of partitions.
    AddPartitions {
        /// To this many in all.
        count: i32,
    },
    /// Change these configs and leave all others: what the operator set at the target alone is never wiped.
    AlterConfigs {
        /// Each config that differs.
        changes: Vec<ConfigChange>,
    },
}

/// What is wrong with a topic. Those that stop it say so.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// The template gives a name that the target does not take. Stops the topic.
    #[error("target name: {0}")]
    Name(#[from] NameError),
    /// Several source topics have one target name. Stops all of them.
    #[error("target `{target}` would also be written from {}", .others.join(", "))]
    Conflict {
        /// The target's name.
        target: String,
        /// The other source topics.
        others: Vec<String>,
    },
    /// The source's topic was deleted and created again while it was copied. Stops the topic.
    #[error(
        "the source topic was deleted and created again; its copy holds the old one's records: delete the copy, or set on_recreate"
    )]
    Recreated,
    /// The target has more partitions than the source; partitions are copied one to one, but consumers that look for a key by its
    /// partition look in the wrong one.
    #[error("the target has {target} partitions, the source {source_count}")]
    MorePartitions {
        /// Partitions of the source.
        source_count: i32,
        /// Partitions of the target.
        target: i32,
    },
    /// Kafka's metrics cannot tell the target from these topics, because it writes `.` as `_` there.
    #[error("metrics of the target cannot be told from those of {}", .0.join(", "))]
    MetricCollision(Vec<String>),
}

impl Problem {
    /// Whether the topic is not copied because of it.
    #[must_use]
    pub const fn stops(&self) -> bool {
        matches!(self, Self::Name(_) | Self::Conflict { .. } | Self::Recreated)
    }
}

/// One topic that is to be copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// The target's name; the source's where the template gives none.
    pub target: String,
    /// What is to be done, in this order.
    pub actions: Vec<Action>,
    /// What is wrong.
    pub problems: Vec<Problem>,
    /// Number of partitions to copy.
    pub partitions: i32,
}

impl Planned {
    /// Whether it is copied in spite of its problems, and its copy is not about to be made anew.
    #[must_use]
    pub fn is_copied(&self) -> bool {
        !self.problems.iter().any(Problem::stops) && !self.actions.contains(&Action::Replace)
    }
}

/// What is to be done, and why each topic is copied or not.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// By source topic: those that are to be copied.
    pub topics: BTreeMap<String, Planned>,
    /// By source topic: all, with the reason.
    pub why: BTreeMap<String, Why>,
}

/// Names alone: which topics would be copied to which target. The first step of [`plan`], for asking only about those.
#[must_use]
pub fn targets<'a>(
    rules: &Rules,
    topics: impl Iterator<Item = (&'a str, bool)>,
) -> BTreeMap<String, Result<String, NameError>> {
    let mut out = BTreeMap::new();
    for (topic, internal) in topics {
        if let Why::Included { captures, .. } = rules.selection.why(topic, internal) {
            out.insert(topic.to_owned(), rules.naming.target(topic, &captures));
        }
    }
    out
}

/// What is to be done at the target.
///
/// `known` are the ids of source topics that copies were made of.
#[must_use]
pub fn plan(
    rules: &Rules,
    source: &BTreeMap<String, SourceTopic>,
    target: &BTreeMap<String, TargetTopic>,
    known: &BTreeMap<String, TopicId>,
) -> Plan {
    let named = targets(rules, source.iter().map(|(name, topic)| (name.as_str(), topic.internal)));
    let legal: BTreeMap<_, _> =
        named.iter().filter_map(|(source, target)| Some((source.clone(), target.as_ref().ok()?.clone()))).collect();
    let conflicts = naming::conflicts(&legal);
    let all: BTreeSet<&str> = target.keys().chain(legal.values()).map(String::as_str).collect();
    let mut out = Plan::default();
    for (name, topic) in source {
        out.why.insert(name.clone(), rules.selection.why(name, topic.internal));
        let Some(named) = named.get(name) else { continue };
        let mut planned =
            Planned { target: name.clone(), actions: Vec::new(), problems: Vec::new(), partitions: topic.partitions };
        match named {
            Err(error) => planned.problems.push(error.clone().into()),
            Ok(named) => {
                planned.target.clone_from(named);
                let others = naming::metric_collisions(named, all.iter().copied());
                if !others.is_empty() {
                    planned.problems.push(Problem::MetricCollision(others.into_iter().collect()));
                }
            }
        }
        if let Some(others) = conflicts.get(name) {
            planned.problems.push(Problem::Conflict { target: planned.target.clone(), others: others.clone() });
        }
        let recreated = known.get(name).is_some_and(|&was| position::is_recreated(was, topic.topic_id));
        if recreated && rules.on_recreate == OnRecreate::Stop {
            planned.problems.push(Problem::Recreated);
        }
        if recreated && rules.on_recreate == OnRecreate::Replace && planned.is_copied() {
            planned.actions.push(Action::Replace);
        } else if planned.is_copied() {
            act(rules, topic, target.get(&planned.target), &mut planned);
        }
        out.topics.insert(name.clone(), planned);
    }
    out
}

fn act(rules: &Rules, source: &SourceTopic, target: Option<&TargetTopic>, planned: &mut Planned) {
    let Some(target) = target else {
        planned.actions.push(Action::Create {
            partitions: source.partitions,
            replication_factor: rules.replication_factor.unwrap_or(-1),
            configs: source.configs.as_ref().map(|configs| rules.configs.at_creation(configs)).unwrap_or_default(),
        });
        return;
    };
    if target.partitions < source.partitions {
        planned.actions.push(Action::AddPartitions { count: source.partitions });
    }
    if target.partitions > source.partitions {
        let (source_count, target) = (source.partitions, target.partitions);
        planned.problems.push(Problem::MorePartitions { source_count, target });
    }
    if let (Some(wanted), Some(has)) = (&source.configs, &target.configs) {
        let changes = rules.configs.changes(wanted, has, &target.ours);
        if !changes.is_empty() {
            planned.actions.push(Action::AlterConfigs { changes });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(rename: &str, sync_configs: bool) -> Rules {
        Rules {
            selection: Selection::new(&["[a-z._]+".to_owned()], &["x.*".to_owned()]).expect("expressions"),
            naming: Naming::new(rename).expect("a template"),
            replication_factor: None,
            configs: ConfigRules { sync: sync_configs, ..ConfigRules::default() },
            on_recreate: OnRecreate::Stop,
        }
    }

    fn configs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn source(partitions: i32, pairs: &[(&str, &str)]) -> SourceTopic {
        SourceTopic { topic_id: [1; 16], internal: false, partitions, configs: Some(configs(pairs)) }
    }

    fn target(partitions: i32, pairs: &[(&str, &str)]) -> TargetTopic {
        let configs = TargetConfigs { values: configs(pairs), own: BTreeSet::new() };
        TargetTopic { partitions, configs: Some(configs), ours: Values::new() }
    }

    fn one(rules: &Rules, source: SourceTopic, target: Option<TargetTopic>) -> Planned {
        let target = target.map(|target| ("t.copy".to_owned(), target)).into_iter().collect();
        let mut plan = plan(rules, &[("t".to_owned(), source)].into(), &target, &BTreeMap::new());
        plan.topics.remove("t").expect("selected")
    }

    #[test]
    fn a_new_topic_gets_the_sources_partitions_and_own_configs() {
        let throttle = ("leader.replication.throttled.replicas", "0:1");
        let own = [("retention.ms", "5"), throttle, ("min.insync.replicas", "2")];
        let planned = one(&rules("${topic}.copy", false), source(12, &own), None);
        let configs = configs(&[("retention.ms", "5")]);
        assert_eq!(planned.actions, [Action::Create { partitions: 12, replication_factor: -1, configs }]);
        assert_eq!((planned.target.as_str(), planned.partitions), ("t.copy", 12));
        let three = Rules { replication_factor: Some(3), ..rules("${topic}.copy", false) };
        let planned = one(&three, source(1, &[]), None);
        assert!(matches!(planned.actions[0], Action::Create { replication_factor: 3, .. }));
    }

    #[test]
    fn an_existing_topic_follows_by_difference_alone() {
        let here = source(4, &[("retention.ms", "5"), ("cleanup.policy", "compact")]);
        let there = target(2, &[("retention.ms", "5"), ("cleanup.policy", "delete"), ("segment.bytes", "9")]);
        let planned = one(&rules("${topic}.copy", true), here.clone(), Some(there.clone()));
        let (name, from, to) = ("cleanup.policy".to_owned(), Some("delete".to_owned()), Some("compact".to_owned()));
        let changes = vec![ConfigChange { name, from, to }];
        assert_eq!(planned.actions, [Action::AddPartitions { count: 4 }, Action::AlterConfigs { changes }]);
        let planned = one(&rules("${topic}.copy", false), here.clone(), Some(there));
        assert_eq!(planned.actions, [Action::AddPartitions { count: 4 }]);
        let same = target(4, &[("retention.ms", "5"), ("cleanup.policy", "compact")]);
        assert_eq!(one(&rules("${topic}.copy", true), here, Some(same)).actions, []);
    }

    #[test]
    fn more_partitions_at_the_target_are_told_and_copied_to() {
        let planned = one(&rules("${topic}.copy", true), source(2, &[]), Some(target(3, &[])));
        assert_eq!(planned.problems, [Problem::MorePartitions { source_count: 2, target: 3 }]);
        assert!(planned.is_copied());
        assert_eq!((planned.actions, planned.partitions), (vec![], 2));
    }

    #[test]
    fn a_topic_that_was_created_again_stops() {
        let topics = [("t".to_owned(), source(1, &[]))].into();
        let known = [("t".to_owned(), [9; 16])].into();
        let plan = plan(&rules("${topic}", true), &topics, &BTreeMap::new(), &known);
        assert_eq!(plan.topics["t"].problems, [Problem::Recreated]);
        assert_eq!(plan.topics["t"].actions, []);

        let there = || [("t".to_owned(), target(1, &[]))].into();
        let replace = Rules { on_recreate: OnRecreate::Replace, ..rules("${topic}", true) };
        let replaced = super::plan(&replace, &topics, &there(), &known);
        assert_eq!(
            (&*replaced.topics["t"].problems, &*replaced.topics["t"].actions),
            (&[][..], &[Action::Replace][..])
        );
        let append = Rules { on_recreate: OnRecreate::Append, ..rules("${topic}", true) };
        let appended = super::plan(&append, &topics, &there(), &known);
        assert_eq!((&*appended.topics["t"].problems, &*appended.topics["t"].actions), (&[][..], &[][..]));
    }

    #[test]
    fn conflicts_illegal_names_and_collisions_are_told() {
        let rules = Rules {
            selection: Selection::new(&["(.).*".to_owned()], &[]).expect("expressions"),
            ..rules("${1}_x", false)
        };
        let topics = ["aa", "ab", "c"].map(|name| (name.to_owned(), source(1, &[]))).into();
        let plan = plan(&rules, &topics, &[("c.x".to_owned(), target(1, &[]))].into(), &BTreeMap::new());
        let conflict = |other: &str| Problem::Conflict { target: "a_x".to_owned(), others: vec![other.to_owned()] };
        assert_eq!(plan.topics["aa"].problems, [conflict("ab")]);
        assert_eq!(plan.topics["ab"].problems, [conflict("aa")]);
        assert_eq!(plan.topics["c"].problems, [Problem::MetricCollision(vec!["c.x".to_owned()])]);
        assert!(plan.topics["c"].is_copied() && !plan.topics["aa"].is_copied());
        assert_eq!(conflict("ab").to_string(), "target `a_x` would also be written from ab");

        let long = "a".repeat(249);
        let topics = [(long.clone(), source(1, &[]))].into();
        let plan = super::plan(
            &Rules { naming: Naming::new("${topic}.copy").expect("a template"), ..rules },
            &topics,
            &BTreeMap::new(),
            &BTreeMap::new(),
        );
        assert_eq!(plan.topics[&long].problems, [Problem::Name(NameError::TooLong { length: 254 })]);
    }

    #[test]
    fn every_topic_has_its_why() {
        let topics = ["t", "x", "B", "__consumer_offsets"].map(|name| (name.to_owned(), source(1, &[]))).into();
        let plan = plan(&rules("${topic}", true), &topics, &BTreeMap::new(), &BTreeMap::new());
        assert_eq!(plan.topics.keys().collect::<Vec<_>>(), ["t"]);
        let words: Vec<_> = plan.why.iter().map(|(name, why)| (name.as_str(), why.is_included())).collect();
        assert_eq!(words, [("B", false), ("__consumer_offsets", false), ("t", true), ("x", false)]);
        assert_eq!(plan.why["x"], Why::Excluded { by: "x.*".to_owned() });
    }
}
