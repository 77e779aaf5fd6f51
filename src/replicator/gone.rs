//! Copies whose source topics were deleted: kept, or deleted after a grace, as the flow's `deletes` says.
//!
//! A copy is deleted only where the source itself says, asked for that name, that it has no such topic (a topic that its ACLs hide is
//! not listed either), where the source is the cluster that it was when the topic was seen missing, and where the copy is the one
//! that this flow made.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decide::plan::{self, Rules};
use super::decide::position;
use super::ledger::Gone;
use super::shared::{Shared, now_ms};
use super::status::Change;
use super::topics::{Copied, Seen};
use crate::client::KafkaError;
use crate::config::Deletes;

/// Copies that are to be deleted, by source topic: when, in ms since 1970.
pub(super) type Dying = BTreeMap<String, i64>;

/// Looks after copies whose source topics are gone. Gives those that wait for their deletion; true when something was deleted.
pub(super) async fn bury(shared: &Shared, rules: &Rules, copied: &Copied, seen: &Seen) -> (Dying, bool) {
    let mut dying = Dying::new();
    let mut deleted = false;
    let names = copied.keys().filter(|name| !seen.source.contains_key(*name)).map(|name| (name.as_str(), false));
    let missing: Vec<_> =
        plan::targets(rules, names).into_iter().filter_map(|(name, to)| Some((name, to.ok()?))).collect();
    let still = |name: &String| missing.iter().any(|(missing, _)| missing == name);
    for name in shared.ledger.gone().into_keys().filter(|name| !still(name)).collect::<Vec<_>>() {
        note(shared, &name, None).await;
    }
    for (name, target) in missing {
        if shared.is_paused(&name) {
            continue;
        }
        let ours = copied.get(&name).map_or([0; 16], |(_, target_id)| *target_id);
        let Some(copy) = seen.target.get(&target).filter(|copy| copy.error.is_none()) else {
            if shared.ledger.gone().contains_key(&name) && !seen.target.contains_key(&target) {
                note(shared, &name, None).await;
            }
            continue;
        };
        if position::is_recreated(ours, copy.topic_id.0) || !is_gone(shared, &name).await {
            continue;
        }
        let cluster = shared.source.cluster_id();
        let gone = match shared.ledger.gone().remove(&name) {
            Some(gone) => gone,
            None => {
                let gone = Gone { since_ms: now_ms(), cluster: cluster.clone() };
                let grace = i64::try_from(shared.policies.delete_after.as_millis()).unwrap_or(i64::MAX);
                let delete_at_ms =
                    (shared.policies.deletes == Deletes::Delete).then(|| gone.since_ms.saturating_add(grace));
                shared.changed(Some(&name), Change::SourceGone { target: target.clone(), delete_at_ms });
                note(shared, &name, Some(gone.clone())).await;
                gone
            }
        };
        if shared.policies.deletes == Deletes::Keep {
            continue;
        }
        if gone.cluster != cluster {
            let (was, now) = (gone.cluster.unwrap_or_default(), cluster.unwrap_or_default());
            let text = format!("topic {name} went missing in source cluster {was}, this is {now}: its copy is kept");
            shared.complain(&format!("deletion of {target}"), &text);
            continue;
        }
        let grace = i64::try_from(shared.policies.delete_after.as_millis()).unwrap_or(i64::MAX);
        let at = gone.since_ms.saturating_add(grace);
        if now_ms() < at {
            dying.insert(name, at);
            continue;
        }
        match shared.target.delete_topic(target.clone()).await {
            Err(error) if error.kafka() != Some(KafkaError::UNKNOWN_TOPIC_OR_PARTITION) => {
                shared.complain(&format!("deletion of {target}"), &error.to_string());
                dying.insert(name, at);
            }
            _ => {
                deleted = true;
                shared.changed(Some(&name), Change::CopyDeleted { target: target.clone() });
                note(shared, &name, None).await;
                forget_configs(shared, &target).await;
            }
        }
    }
    (dying, deleted)
}

/// Whether the source says, of this name alone, that it has no such topic.
async fn is_gone(shared: &Shared, name: &str) -> bool {
    match shared.source.topics(Some(vec![name.to_owned()])).await {
        Ok(found) => found.first().is_some_and(|one| one.error == Some(KafkaError::UNKNOWN_TOPIC_OR_PARTITION)),
        Err(_) => false,
    }
}

async fn note(shared: &Shared, name: &str, gone: Option<Gone>) {
    if let Err(error) = shared.ledger.set_gone(name, gone).await {
        shared.complain("state", &error.to_string());
    }
}

async fn forget_configs(shared: &Shared, target: &str) {
    if let Err(error) = shared.ledger.set_configs(target, BTreeMap::new()).await {
        shared.complain("state", &error.to_string());
    }
}

/// Why a topic that is not copied any more stands where it does.
pub(super) fn words(shared: &Arc<Shared>, dying: &Dying, name: &str) -> String {
    match dying.get(name) {
        Some(at) => {
            let left = at.saturating_sub(now_ms()).max(0) / 1_000;
            format!("the source topic is gone; its copy is deleted in {left} s")
        }
        None if shared.ledger.gone().contains_key(name) => "the source topic is gone; its copy stays".to_owned(),
        None => "the source topic is gone, or not selected any more; its copy stays".to_owned(),
    }
}
