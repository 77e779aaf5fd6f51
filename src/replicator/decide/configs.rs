//! Which configs of a source topic its copy has, and what is to be changed when they differ.
//!
//! A config that only the target has is never touched. One that was set here and that the source has dropped goes back to the
//! target's default, unless somebody has changed it at the target meanwhile; for that the flow remembers what it set.

use std::collections::{BTreeMap, BTreeSet};

use super::select::Patterns;

/// Configs by name.
pub type Values = BTreeMap<String, String>;

/// Which configs are copied. Expressions match a config's name as a whole.
#[derive(Debug, Clone, Default)]
pub struct ConfigRules {
    /// Whether configs of topics that exist follow the source.
    pub sync: bool,
    /// Never copied, beside [`EXCLUDED`].
    pub exclude: Patterns,
    /// Copied when the topic is created, and the target's own from then on.
    pub pin: Patterns,
}

/// Never copied. They speak of the source's brokers and replicas, or would make the copy unwritable or its times other ones.
/// MirrorMaker's `DefaultConfigPropertyFilter` has the same six.
pub const EXCLUDED: [&str; 6] = [
    "follower.replication.throttled.replicas",
    "leader.replication.throttled.replicas",
    "message.timestamp.difference.max.ms",
    "message.timestamp.type",
    "min.insync.replicas",
    "unclean.leader.election.enable",
];

/// Configs of a topic at the target.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TargetConfigs {
    /// All of them, defaults included.
    pub values: Values,
    /// Names of those that are set on the topic itself.
    pub own: BTreeSet<String>,
}

/// One config that is to be changed at the target.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ConfigChange {
    /// Its name.
    pub name: String,
    /// What it is at the target; `None` where the target has no such config.
    pub from: Option<String>,
    /// What it is to be; `None` for the target's default.
    pub to: Option<String>,
}

impl std::fmt::Display for ConfigChange {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let from = self.from.as_deref().unwrap_or("nothing");
        let to = self.to.as_deref().unwrap_or("the target's default");
        write!(f, "{} from {from} to {to}", self.name)
    }
}

impl ConfigRules {
    fn is_copied(&self, name: &str) -> bool {
        !EXCLUDED.contains(&name) && self.exclude.find(name).is_none()
    }

    fn follows(&self, name: &str) -> bool {
        self.is_copied(name) && self.pin.find(name).is_none()
    }

    /// What a new copy is created with.
    #[must_use]
    pub fn at_creation(&self, source: &Values) -> Values {
        let copied = source.iter().filter(|(name, _)| self.is_copied(name));
        copied.map(|(name, value)| (name.clone(), value.clone())).collect()
    }

    /// What is to be changed of a copy that exists. `source` are the configs set on the source topic itself, `ours` those that this
    /// flow has set on the copy.
    #[must_use]
    pub fn changes(&self, source: &Values, target: &TargetConfigs, ours: &Values) -> Vec<ConfigChange> {
        if !self.sync {
            return Vec::new();
        }
        let mut out = Vec::new();
        for (name, value) in source.iter().filter(|(name, _)| self.follows(name)) {
            let has = target.values.get(name);
            if has != Some(value) {
                out.push(ConfigChange { name: name.clone(), from: has.cloned(), to: Some(value.clone()) });
            }
        }
        for (name, value) in ours.iter().filter(|(name, _)| self.follows(name) && !source.contains_key(*name)) {
            if target.own.contains(name) && target.values.get(name) == Some(value) {
                out.push(ConfigChange { name: name.clone(), from: Some(value.clone()), to: None });
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(pairs: &[(&str, &str)]) -> Values {
        pairs.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn rules(exclude: &[&str], pin: &[&str]) -> ConfigRules {
        let read = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|&text| text.to_owned()).collect();
            Patterns::new(&texts).expect("expressions")
        };
        ConfigRules { sync: true, exclude: read(exclude), pin: read(pin) }
    }

    fn change(name: &str, from: Option<&str>, to: Option<&str>) -> ConfigChange {
        ConfigChange { name: name.to_owned(), from: from.map(str::to_owned), to: to.map(str::to_owned) }
    }

    fn target(own: &[(&str, &str)], defaults: &[(&str, &str)]) -> TargetConfigs {
        let mut all = values(defaults);
        all.extend(values(own));
        TargetConfigs { values: all, own: own.iter().map(|(name, _)| (*name).to_owned()).collect() }
    }

    #[test]
    fn the_targets_own_configs_are_never_touched() {
        let has = target(&[("retention.ms", "9"), ("segment.bytes", "5")], &[("cleanup.policy", "delete")]);
        let changes = rules(&[], &[]).changes(&values(&[("cleanup.policy", "compact")]), &has, &Values::new());
        assert_eq!(changes, [change("cleanup.policy", Some("delete"), Some("compact"))]);
    }

    #[test]
    fn what_was_set_here_goes_back_when_the_source_drops_it_and_nobody_changed_it() {
        let ours = values(&[("retention.ms", "9"), ("segment.bytes", "5"), ("flush.ms", "3")]);
        // retention.ms as it was set, segment.bytes changed by somebody, flush.ms reset by somebody.
        let has = target(&[("retention.ms", "9"), ("segment.bytes", "6")], &[("flush.ms", "3")]);
        let changes = rules(&[], &[]).changes(&Values::new(), &has, &ours);
        assert_eq!(changes, [change("retention.ms", Some("9"), None)]);
        assert_eq!(changes[0].to_string(), "retention.ms from 9 to the target's default");
    }

    #[test]
    fn excluded_ones_never_come_and_pinned_ones_only_at_creation() {
        let source = values(&[
            ("retention.ms", "1"),
            ("segment.ms", "2"),
            ("cleanup.policy", "compact"),
            ("min.insync.replicas", "2"),
            ("message.timestamp.type", "LogAppendTime"),
        ]);
        let rules = rules(&["segment[.].*"], &["retention.ms"]);
        assert_eq!(rules.at_creation(&source), values(&[("retention.ms", "1"), ("cleanup.policy", "compact")]));
        let has = target(&[], &[("retention.ms", "7"), ("segment.ms", "7"), ("cleanup.policy", "delete")]);
        let ours = values(&[("retention.ms", "7"), ("segment.ms", "7")]);
        assert_eq!(rules.changes(&source, &has, &ours), [change("cleanup.policy", Some("delete"), Some("compact"))]);
        assert_eq!(rules.changes(&Values::new(), &has, &ours), []);
    }

    #[test]
    fn without_sync_nothing_changes() {
        let rules = ConfigRules { sync: false, ..rules(&[], &[]) };
        let source = values(&[("cleanup.policy", "compact")]);
        assert_eq!(rules.changes(&source, &target(&[], &[]), &source), []);
        assert_eq!(rules.at_creation(&source), source);
    }
}
