//! Copies whose source topics were deleted: kept, or deleted after a grace, as the flow's `deletes` says.
//!
//! A copy is deleted only where the source itself says, asked for that name, that it has no such topic (a topic that its ACLs hide is
//! not listed either), where the source is the cluster that was copied from before, and where the copy is the one that this flow
//! made.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::decide::TopicId;
use super::decide::plan::{self, Rules};
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
        // An id that is not known is no proof that the copy is the flow's own.
        if ours == TopicId::default() || ours != copy.topic_id.0 || !is_gone(shared, &name).await {
            continue;
        }
        let gone = match shared.ledger.gone().remove(&name) {
            Some(gone) => gone,
            None => {
                let gone = Gone { since_ms: now_ms() };
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
        if let Some(other) = other_source(shared) {
            shared.complain(&format!("deletion of {target}"), &format!("{other}: the copy is kept"));
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

/// Says so where the source is another cluster than the one that was copied from before, under the same name. Then topics are
/// missing, or have other ids, for another reason than that somebody deleted them.
pub(super) fn other_source(shared: &Shared) -> Option<String> {
    let (was, now) = (shared.ledger.source()?, shared.source.cluster_id().unwrap_or_default());
    let name = shared.source.name();
    (was != now).then(|| format!("source cluster {name} had Kafka's id {was} and has {now} now"))
}

/// Remembers which cluster is copied from, once.
pub(super) async fn note_source(shared: &Shared) {
    let Some(id) = shared.source.cluster_id().filter(|_| shared.ledger.source().is_none()) else { return };
    if let Err(error) = shared.ledger.set_source(id).await {
        shared.complain("state", &error.to_string());
    }
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
