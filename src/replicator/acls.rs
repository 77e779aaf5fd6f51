//! Keeps the ACLs of copies in step with those of their source topics, where the flow is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::decide::acls::{self, AclPlan, AclRules, View};
use super::decide::plan::{self, Rules};
use super::shared::Shared;
use super::status::{AclsStatus, Change, Reason, TroubleCode};
use super::topics::Seen;
use crate::client::{Acl, ClientError, KafkaError};

/// How often ACLs are looked at: they change seldom.
const EVERY: Duration = Duration::from_secs(30);
/// ACLs that a flow keeps at most; more than a cluster can use.
const MOST: usize = 50_000;

/// The ACLs of a flow's copies.
#[derive(Default)]
pub(super) struct Acls {
    looked: Option<Instant>,
    /// Copies at the last look: new ones get their ACLs at once.
    copies: BTreeMap<String, String>,
}

impl Acls {
    /// Looks and acts where it is time, or copies have come or gone. Failures are noted, and disturb nothing else.
    pub(super) async fn refresh(&mut self, shared: &Shared, rules: &Rules, seen: &Seen, now: Instant) {
        let Some(acl_rules) = &shared.acls else { return };
        if shared.pauses().all {
            return;
        }
        let copies = copies(shared, rules, seen);
        let due = self.looked.is_none_or(|looked| now.duration_since(looked) >= EVERY);
        if !due && copies == self.copies {
            return;
        }
        self.looked = Some(now);
        self.copies = copies;
        let reason = match self.follow(shared, rules, acl_rules, seen).await {
            Ok(()) => None,
            Err(reason) => {
                shared.complain("ACLs", &reason.text);
                Some(reason)
            }
        };
        shared.board().acls = AclsStatus { owned: shared.ledger.acls().len() as u64, reason };
    }

    async fn follow(&self, shared: &Shared, rules: &Rules, acl_rules: &AclRules, seen: &Seen) -> Result<(), Reason> {
        let plan = self.plan(shared, rules, acl_rules, seen).await?;
        let state = |error: super::ledger::LedgerError| Reason { code: TroubleCode::Acls, text: error.to_string() };
        shared.ledger.own_acls(&plan.create, true).await.map_err(state)?;
        let created = shared.target.create_acls(plan.create.clone()).await;
        let refused = self.settle(shared, plan.create, created, true);
        let deleted = shared.target.delete_acls(plan.delete.clone()).await;
        let removed: Vec<_> = match &deleted {
            Ok(outcomes) => {
                let done = plan.delete.iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok());
                done.map(|(acl, _)| acl.clone()).chain(plan.forget).collect()
            }
            Err(_) => plan.forget,
        };
        let kept = self.settle(shared, plan.delete, deleted, false);
        shared.ledger.own_acls(&removed, false).await.map_err(state)?;
        refused.and(kept)
    }

    /// What is to be done at the target; changes nothing.
    pub(super) async fn plan(
        &self,
        shared: &Shared,
        rules: &Rules,
        acl_rules: &AclRules,
        seen: &Seen,
    ) -> Result<AclPlan, Reason> {
        let at_source = |error: ClientError| reason("source", shared.source.name(), &error);
        let at_target = |error: ClientError| reason("target", shared.target.name(), &error);
        let source = shared.source.topic_acls().await.map_err(at_source)?;
        let target: BTreeSet<_> = shared.target.topic_acls().await.map_err(at_target)?.into_iter().collect();
        let topics = shared.target.topics(None).await.map_err(at_target)?;
        let target_topics = topics.into_iter().map(|topic| topic.name).collect();
        let source_topics = seen.source.keys().cloned().collect();
        let copies = copies(shared, rules, seen);
        let (naming, copies) = (&rules.naming, &copies);
        let view = View { copies, source_topics: &source_topics, target_topics: &target_topics, naming };
        let wanted = acls::wanted(acl_rules, &view, &source);
        if wanted.len() > MOST {
            let text = format!("{} ACLs are wanted at the target, at most {MOST} are kept", wanted.len());
            return Err(Reason { code: TroubleCode::Acls, text });
        }
        Ok(acls::plan(&wanted, &target, &shared.ledger.acls()))
    }

    /// Notes what was done, and gives the first refusal.
    fn settle(
        &self,
        shared: &Shared,
        acls: Vec<Acl>,
        outcomes: Result<Vec<Result<(), ClientError>>, ClientError>,
        added: bool,
    ) -> Result<(), Reason> {
        let outcomes = outcomes.map_err(|error| reason("target", shared.target.name(), &error))?;
        let mut first = Ok(());
        for (acl, outcome) in acls.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) if added => shared.changed(None, Change::AclAdded { acl: acl.to_string() }),
                Ok(()) => shared.changed(None, Change::AclRemoved { acl: acl.to_string() }),
                Err(error) if first.is_ok() => {
                    let what = reason("target", shared.target.name(), &error);
                    first = Err(Reason { text: format!("{acl}: {}", what.text), ..what });
                }
                Err(_) => {}
            }
        }
        first
    }
}

/// Copies that are there, by source topic; also those whose source topics are gone, for they still have their readers.
fn copies(shared: &Shared, rules: &Rules, seen: &Seen) -> BTreeMap<String, String> {
    let planned = seen.plan.topics.iter().filter(|(_, planned)| planned.is_copied());
    let planned = planned.map(|(name, planned)| (name.clone(), planned.target.clone()));
    let gone: Vec<_> = shared.copied().into_keys().filter(|name| !seen.source.contains_key(name)).collect();
    let gone = plan::targets(rules, gone.iter().map(|name| (name.as_str(), false)));
    let gone = gone.into_iter().filter_map(|(name, target)| Some((name, target.ok()?)));
    planned.chain(gone).filter(|(_, target)| seen.target.contains_key(target)).collect()
}

fn reason(side: &str, cluster: &str, error: &ClientError) -> Reason {
    let text = match error.kafka() {
        Some(KafkaError::SECURITY_DISABLED) => {
            format!("{side} cluster {cluster} has no authorizer, so that there are no ACLs: set sync_acls = false")
        }
        Some(CLUSTER_AUTHORIZATION_FAILED) => format!(
            "{side} cluster {cluster} does not let this link's user {} ACLs: {error}",
            if side == "source" { "describe" } else { "describe or alter" }
        ),
        _ => format!("{side} cluster {cluster}: {error}"),
    };
    Reason { code: TroubleCode::Acls, text }
}

/// 31.
const CLUSTER_AUTHORIZATION_FAILED: KafkaError = match KafkaError::from_code(31) {
    Some(error) => error,
    None => panic!("31 is an error"),
};
