//! `[[replicate]]`: what is copied from the peer's cluster into the local one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::super::error::ErrorCode;
use super::super::raw::{Node, Reader, Section};
use super::super::{ClusterConfig, Deletes, Delivery, FlowConfig, GroupRewinds, OnGap, OnRecreate, Policies, value};

pub(super) const FLOW: &[&str] = &[
    "name",
    "topics",
    "exclude",
    "rename",
    "prefix",
    "suffix",
    "groups",
    "groups_exclude",
    "group_rewinds",
    "mm2_topics",
    "replication_factor",
    "isolation",
    "delivery",
    "sync_configs",
    "exclude_configs",
    "pin_configs",
    "sync_acls",
    "principals",
    "deletes",
    "delete_after",
    "on_recreate",
    "on_gap",
    "refresh",
];

/// Kafka's own topics and those of Kafka Connect and MirrorMaker.
const EXCLUDE: &[&str] = &["__.*", ".*[-.]internal", "(.*[.])?heartbeats"];
/// Groups that nobody goes on with elsewhere: as MirrorMaker's `groups.exclude`.
const GROUPS_EXCLUDE: &[&str] = &["console-consumer-.*", "connect-.*", "__.*"];

pub(super) fn read(
    reader: &mut Reader<'_>,
    root: &Section<'_>,
    local: Option<&ClusterConfig>,
    peer: Option<&ClusterConfig>,
) -> Option<Vec<FlowConfig>> {
    let Some(node) = root.get("replicate") else {
        return Some(Vec::new());
    };
    let default_name = local.zip(peer).map(|(local, peer)| default_name(&peer.cluster, &local.cluster));
    let mut flows = Vec::new();
    let mut names = BTreeSet::new();
    let mut whole = true;
    for element in node.array(reader, "a list of flows, each begun by [[replicate]]")? {
        let Some(section) = element.table(reader, FLOW) else {
            whole = false;
            continue;
        };
        match flow(reader, &section, default_name.as_deref()) {
            Some(flow) => {
                if !names.insert(flow.name.clone()) {
                    let at = section.get("name").map_or_else(|| section.at.clone(), |node| node.at);
                    let problem = format!("two flows are named `{}`", flow.name);
                    reader.report(ErrorCode::Duplicate, &at, problem, "give each flow a `name` of its own");
                }
                flows.push(flow);
            }
            None => whole = false,
        }
    }
    whole.then_some(flows)
}

/// `<peer>-<local>` in the letters that names of flows have.
pub(in super::super) fn default_name(peer: &str, local: &str) -> String {
    let fold = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    format!("{peer}-{local}").chars().map(fold).take(63).collect()
}

fn flow(reader: &mut Reader<'_>, section: &Section<'_>, default_name: Option<&str>) -> Option<FlowConfig> {
    let name = match section.get("name") {
        Some(node) => node.parse(reader, value::SLUG, value::slug),
        None => default_name.map(|name| {
            reader.default(section.key_path("name"), format!("{name:?}"));
            name.to_owned()
        }),
    };
    let topics_node = section.required(reader, "topics", "['orders[.].*']");
    let topics = topics_node.and_then(|node| node.full_list(reader, value::REGEX, value::regex));
    let exclude = match section.get("exclude") {
        Some(node) => node.list(reader, value::REGEX, value::regex),
        None => {
            reader.default(section.key_path("exclude"), format!("{EXCLUDE:?}"));
            Some(EXCLUDE.iter().map(|&text| text.to_owned()).collect())
        }
    };
    let rename = rename(reader, section, topics.as_deref());
    let groups = match section.get("groups") {
        Some(node) => node.list(reader, value::REGEX, value::regex),
        None => {
            reader.default(section.key_path("groups"), "[]");
            Some(Vec::new())
        }
    };
    let (groups_exclude, group_rewinds) = group_rules(reader, section, groups.as_deref());
    let mm2_topics = flag(reader, section, "mm2_topics", false);
    let replication_factor = match section.get("replication_factor") {
        None => {
            reader.default(section.key_path("replication_factor"), "the target cluster's default");
            Some(None)
        }
        Some(node) => node.int(reader, 1..=32_767).and_then(|n| i16::try_from(n).ok()).map(Some),
    };
    let read_committed = match section.get("isolation") {
        None => {
            reader.default(section.key_path("isolation"), "\"read_committed\"");
            Some(true)
        }
        Some(node) => node.word(reader, &["read_committed", "read_uncommitted"]).map(|index| index == 0),
    };
    let delivery = match section.get("delivery") {
        None => {
            reader.default(section.key_path("delivery"), "\"exactly_once\"");
            Some(Delivery::ExactlyOnce)
        }
        Some(node) => node
            .word(reader, &["exactly_once", "at_least_once"])
            .map(|index| if index == 0 { Delivery::ExactlyOnce } else { Delivery::AtLeastOnce }),
    };
    let sync_configs = flag(reader, section, "sync_configs", true);
    let exclude_configs = names(reader, section, "exclude_configs");
    let pin_configs = names(reader, section, "pin_configs");
    if sync_configs == Some(false) {
        section.unused(
            reader,
            &["pin_configs"],
            "sync_configs is false, so that no config of an existing topic changes",
        );
    }
    let sync_acls = match section.get("sync_acls") {
        None => {
            reader.default(section.key_path("sync_acls"), "false");
            Some(false)
        }
        Some(node) => node.bool(reader),
    };
    let principals = principals(reader, section, sync_acls == Some(true));
    let policies = policies(reader, section);
    let refresh = match section.get("refresh") {
        None => {
            reader.default(section.key_path("refresh"), "\"5s\"");
            Some(Duration::from_secs(5))
        }
        Some(node) => {
            let allowed = "a duration from \"100ms\" to \"1h\"";
            node.parse(reader, allowed, |text| {
                value::duration(text, &(Duration::from_millis(100)..=Duration::from_secs(3600)))
            })
        }
    };
    Some(FlowConfig {
        name: name?,
        topics: topics?,
        exclude: exclude?,
        rename: rename?,
        groups: groups?,
        groups_exclude: groups_exclude?,
        group_rewinds: group_rewinds?,
        mm2_topics: mm2_topics?,
        replication_factor: replication_factor?,
        read_committed: read_committed?,
        delivery: delivery?,
        sync_configs: sync_configs?,
        exclude_configs: exclude_configs?,
        pin_configs: pin_configs?,
        sync_acls: sync_acls?,
        principals: principals?,
        policies: policies?,
        refresh: refresh?,
    })
}

fn flag(reader: &mut Reader<'_>, section: &Section<'_>, key: &str, default: bool) -> Option<bool> {
    match section.get(key) {
        None => {
            reader.default(section.key_path(key), default.to_string());
            Some(default)
        }
        Some(node) => node.bool(reader),
    }
}

/// Regular expressions of configs' names.
fn names(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<Vec<String>> {
    match section.get(key) {
        Some(node) => node.list(reader, value::REGEX, value::regex),
        None => {
            reader.default(section.key_path(key), "[]");
            Some(Vec::new())
        }
    }
}

/// Who is who at the target.
fn principals(reader: &mut Reader<'_>, section: &Section<'_>, has_effect: bool) -> Option<BTreeMap<String, String>> {
    if !has_effect {
        section.unused(reader, &["principals"], "no ACLs follow unless sync_acls is true");
    }
    let mut out = BTreeMap::new();
    let Some(node) = section.get("principals") else {
        reader.default(section.key_path("principals"), "{}");
        return Some(out);
    };
    let wanted = "a table such as { \"User:orders\" = \"User:orders-dr\" }";
    let allowed = "a kind and a name, such as \"User:orders\"";
    for (from, to) in node.entries(reader, wanted)? {
        if value::principal(from).is_err() {
            reader.report(ErrorCode::Invalid, &to.key_place(), format!("`{from}` is no principal"), allowed);
        }
        let to = to.parse(reader, allowed, value::principal)?;
        out.insert(from.to_owned(), to);
    }
    Some(out)
}

/// What becomes of deleted and recreated topics, and of gaps.
fn policies(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Policies> {
    let default = Policies::default();
    let mut word = |key: &str, words: &[&'static str]| match section.get(key) {
        Some(node) => node.word(reader, words),
        None => {
            reader.default(section.key_path(key), format!("{:?}", words[0]));
            Some(0)
        }
    };
    let deletes = word("deletes", &["keep", "delete"]).map(|at| [Deletes::Keep, Deletes::Delete][at]);
    let on_recreate = word("on_recreate", &["stop", "append", "replace"])
        .map(|at| [OnRecreate::Stop, OnRecreate::Append, OnRecreate::Replace][at]);
    let on_gap = word("on_gap", &["continue", "stop"]).map(|at| [OnGap::Continue, OnGap::Stop][at]);
    if deletes == Some(Deletes::Keep) {
        section.unused(reader, &["delete_after"], "copies are kept unless deletes is \"delete\"");
    }
    let delete_after = match section.get("delete_after") {
        None => {
            reader.default(section.key_path("delete_after"), "\"24h\"");
            Some(default.delete_after)
        }
        Some(node) => {
            let allowed = "a duration from \"0s\" to \"8760h\"";
            let most = Duration::from_secs(8760 * 3600);
            node.parse(reader, allowed, |text| value::duration(text, &(Duration::ZERO..=most)))
        }
    };
    Some(Policies { deletes: deletes?, delete_after: delete_after?, on_recreate: on_recreate?, on_gap: on_gap? })
}

/// How groups follow that do.
fn group_rules(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    groups: Option<&[String]>,
) -> (Option<Vec<String>>, Option<GroupRewinds>) {
    if groups.is_some_and(<[String]>::is_empty) {
        section.unused(reader, &["groups_exclude", "group_rewinds"], "no group follows: `groups` is empty");
    }
    let exclude = match section.get("groups_exclude") {
        Some(node) => node.list(reader, value::REGEX, value::regex),
        None => {
            reader.default(section.key_path("groups_exclude"), format!("{GROUPS_EXCLUDE:?}"));
            Some(GROUPS_EXCLUDE.iter().map(|&text| text.to_owned()).collect())
        }
    };
    let rewinds = match section.get("group_rewinds") {
        Some(node) => node
            .word(reader, &["follow", "refuse"])
            .map(|at| if at == 0 { GroupRewinds::Follow } else { GroupRewinds::Refuse }),
        None => {
            reader.default(section.key_path("group_rewinds"), "\"follow\"");
            Some(GroupRewinds::Follow)
        }
    };
    (exclude, rewinds)
}

/// The template of target names, from whichever of the three keys is there.
fn rename(reader: &mut Reader<'_>, section: &Section<'_>, topics: Option<&[String]>) -> Option<String> {
    match section.one_of(reader, &["rename", "prefix", "suffix"], true) {
        None => {
            reader.default(section.key_path("rename"), "\"${topic}\"");
            Some("${topic}".to_owned())
        }
        Some(("rename", node)) => {
            let template = node.parse(reader, value::RENAME, value::rename)?;
            one_target_a_topic(reader, &node, &template, topics)?;
            Some(template)
        }
        Some((key, node)) => {
            let part = node.parse(reader, "letters, digits, `.`, `_` and `-`", value::topic_part)?;
            Some(if key == "prefix" { format!("{part}${{topic}}") } else { format!("${{topic}}{part}") })
        }
    }
}

/// A template without `${topic}` is for one topic alone.
fn one_target_a_topic(
    reader: &mut Reader<'_>,
    node: &Node<'_>,
    template: &str,
    topics: Option<&[String]>,
) -> Option<()> {
    let one = topics.is_none_or(|topics| topics.len() == 1 && value::literal(&topics[0]).is_some());
    if template.contains("${topic}") || one {
        return Some(());
    }
    let problem = format!("`{template}` would be the name of every topic that matches");
    reader.report(
        ErrorCode::Invalid,
        &node.at,
        problem,
        "`${topic}` must stand in it where more than one topic can match",
    );
    None
}
