//! Consumer groups of the source, followed at the target.
//!
//! A cycle asks the source what groups have committed, translates what changed, asks the target where the same groups stand there, and
//! commits. Brokers take commits from outside for groups without members alone, so a group that is used at the target is left to its
//! members and tried again. What goes backwards is an event.

pub(super) mod board;
mod group;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

use self::board::{GroupState, Trouble};
use self::group::{Group, Planned};
use super::decide::groups::{Applied, GroupSelection, Hold, Rewinds, Seen, Step, step};
use super::decide::mm2::Checkpoint;
use super::decide::offset_map::{Found, Way};
use super::lane::Lane;
use super::mm2::Mm2;
use super::offsets::Offsets;
use super::shared::Shared;
use crate::client::{ClientError, Committed, KafkaError, Position};
use crate::net::BoxFuture;

/// Follows the groups of one flow.
pub(super) struct Groups {
    shared: Arc<Shared>,
    offsets: Arc<Offsets>,
    selection: GroupSelection,
    rewinds: Rewinds,
    mm2: Option<Arc<Mm2>>,
    groups: BTreeMap<String, Group>,
    /// Node ids of coordinators at the target.
    coordinators: HashMap<String, i32>,
}

/// A partition whose commit is to be looked at.
struct Work {
    group: String,
    lane: Arc<Lane>,
    source: i64,
    metadata: String,
    found: Found,
}

/// The least pause between two cycles: with the cycle itself, a commit follows within a second.
const PAUSE: Duration = Duration::from_millis(400);
/// How long a partition is left that cannot follow now.
const AGAIN: Duration = Duration::from_secs(2);
/// Coordinators asked at once, and groups committed for at once.
const AT_ONCE: usize = 16;
/// Groups that are followed. More than a cluster has; it bounds what a hostile broker can make us keep.
const MOST_GROUPS: usize = 50_000;

impl Groups {
    pub(super) fn new(
        shared: &Arc<Shared>,
        offsets: &Arc<Offsets>,
        (selection, rewinds): (GroupSelection, Rewinds),
        mm2: Option<Arc<Mm2>>,
    ) -> Self {
        let (shared, offsets) = (Arc::clone(shared), Arc::clone(offsets));
        let (groups, coordinators) = (BTreeMap::new(), HashMap::new());
        Self { shared, offsets, selection, rewinds, mm2, groups, coordinators }
    }

    /// Follows until the flow stops.
    pub(super) async fn run(mut self) {
        let stop = self.shared.stop.clone();
        loop {
            let began = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.cycle(began) => {}
            }
            self.show();
            tokio::select! {
                () = stop.cancelled() => return,
                // A cluster that is slow to answer is not asked more than half of the time.
                () = tokio::time::sleep(PAUSE.max(began.elapsed())) => {}
            }
        }
    }

    async fn cycle(&mut self, now: Instant) {
        let Some(asked) = self.selected().await else { return };
        let mut commits = Vec::new();
        {
            let source = &self.shared.source;
            let questions = asked.into_iter().map(|(node, groups)| -> BoxFuture<'_, _> {
                Box::pin(async move {
                    let answer = source.group_offsets(node, groups.clone()).await;
                    (groups, answer)
                })
            });
            let mut answers = stream::iter(questions.collect::<Vec<_>>()).buffer_unordered(AT_ONCE);
            while let Some((groups, answer)) = answers.next().await {
                match answer {
                    Ok(answer) => commits.extend(answer.into_iter().map(|one| (one.group, one.offsets))),
                    Err(error) => commits.extend(groups.into_iter().map(|group| (group, Err(error.clone())))),
                }
            }
        }
        let (work, told) = self.changed(commits, now).await;
        self.apply(work, now).await;
        for name in told {
            if let Some(group) = self.groups.get_mut(&name)
                && group.state() == GroupState::Synced
            {
                group.synced = Some(now);
            }
        }
    }

    /// Groups that follow, by their coordinators; none where the source does not tell.
    async fn selected(&mut self) -> Option<BTreeMap<i32, Vec<String>>> {
        let listed = match self.shared.source.groups().await {
            Ok(listed) => listed,
            Err(error) => {
                self.fail_all(&Trouble::of_source(&error));
                return None;
            }
        };
        for (node, error) in &listed.failures {
            self.shared.complain("groups", &format!("source broker {node}: {error}"));
        }
        let whole = listed.failures.is_empty();
        let mut names = BTreeSet::new();
        let mut asked: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for group in listed.groups {
            // Share groups have no offsets of this kind.
            if group.kind.eq_ignore_ascii_case("share") || !self.selection.has(&group.group) {
                continue;
            }
            if names.len() >= MOST_GROUPS {
                self.shared
                    .complain("groups", &format!("more than {MOST_GROUPS} groups match; the rest is not followed"));
                break;
            }
            if names.insert(group.group.clone()) {
                asked.entry(group.coordinator).or_default().push(group.group);
            }
        }
        if whole {
            // What a group was at the target stays there when the source forgets it.
            self.groups.retain(|name, _| names.contains(name));
            self.coordinators.retain(|name, _| names.contains(name));
        }
        Some(asked)
    }

    /// Takes what groups have committed; partitions that are to be looked at, and the groups that were told of.
    async fn changed(
        &mut self,
        commits: Vec<(String, Result<Vec<Committed>, ClientError>)>,
        now: Instant,
    ) -> (Vec<Work>, Vec<String>) {
        let lanes = self.shared.lanes();
        let mut by_topic: HashMap<&str, HashMap<i32, &Arc<Lane>>> = HashMap::new();
        for ((topic, partition), lane) in &lanes {
            by_topic.entry(topic).or_default().insert(*partition, lane);
        }
        let (mut work, mut told) = (Vec::new(), Vec::new());
        for (name, commits) in commits {
            let commits = match commits {
                Ok(commits) => commits,
                Err(error) => {
                    if let Some(group) = self.groups.get_mut(&name) {
                        group.fail(&self.shared, &name, Trouble::of_source(&error));
                    }
                    continue;
                }
            };
            let copied = commits.into_iter().filter_map(|one| {
                let lane = by_topic.get(one.topic.as_str())?.get(&one.partition)?;
                Some((one, Arc::clone(lane)))
            });
            let copied: Vec<_> = copied.collect();
            if copied.is_empty() {
                self.groups.remove(&name);
                continue;
            }
            let group = self.groups.entry(name.clone()).or_default();
            let keys: BTreeSet<_> =
                copied.iter().map(|(one, lane)| (Arc::clone(&lane.source), one.partition)).collect();
            group.parts.retain(|key, _| keys.contains(key));
            group.trouble = group.trouble.take().filter(|trouble| !trouble.is_at_source());
            for (one, lane) in copied {
                let part = group.parts.entry((Arc::clone(&lane.source), one.partition)).or_default();
                part.unstable = one.offset.is_err();
                let source = match one.offset {
                    Ok(source) => source,
                    // It is told once the transaction has ended.
                    Err(UNSTABLE_OFFSET_COMMIT) => continue,
                    Err(error) => {
                        let text = format!("{}-{}: the source answered {error}", one.topic, one.partition);
                        group.fail(&self.shared, &name, Trouble::source(text));
                        continue;
                    }
                };
                let Some(found) = lane.look(Way::ToTarget, source) else { continue };
                let found = match found {
                    // What is stored does not change.
                    Found::Stored(_) if part.source == source && part.found.is_some() => {
                        part.found.unwrap_or(Found::Stored(0))
                    }
                    Found::Stored(at) => match self.offsets.look(&lane, Way::ToTarget, source, at).await {
                        Ok(found) => found,
                        Err(error) => {
                            self.shared.complain("offset map", &error.to_string());
                            Found::Stored(0)
                        }
                    },
                    found => found,
                };
                let due = part.again.is_some_and(|again| again <= now);
                if part.source != source || part.found != Some(found) || due {
                    work.push(Work { group: name.clone(), lane, source, metadata: one.metadata, found });
                }
            }
            told.push(name);
        }
        (work, told)
    }

    /// Looks where groups stand at the target, and commits what is to be committed.
    async fn apply(&mut self, work: Vec<Work>, now: Instant) {
        if work.is_empty() {
            return;
        }
        let logs = match self.logs(&work).await {
            Ok(logs) => logs,
            Err(error) => return self.fail_these(&work, &Trouble::of_target(&error), now),
        };
        let names: BTreeSet<&String> = work.iter().map(|one| &one.group).collect();
        let names: Vec<String> = names.into_iter().cloned().collect();
        if let Err(error) = self.find_coordinators(&names).await {
            return self.fail_these(&work, &Trouble::of_target(&error), now);
        }
        let currents = self.currents(&names).await;
        let (mut planned, mut checkpoints): (BTreeMap<String, Vec<Planned>>, _) = (BTreeMap::new(), Vec::new());
        for one in work {
            let Some(group) = self.groups.get_mut(&one.group) else { continue };
            let key = (Arc::clone(&one.lane.source), one.lane.partition);
            let Some(part) = group.parts.get_mut(&key) else { continue };
            let log = logs.get(&(one.lane.target.to_string(), one.lane.partition)).copied().flatten();
            let (Some(log), Some(Ok(current))) = (log, currents.get(&one.group)) else {
                // The target does not say now: the same again in the next cycle.
                part.again = Some(now);
                if let Some(Err(error)) = currents.get(&one.group) {
                    group.fail(&self.shared, &one.group, Trouble::of_target(error));
                }
                continue;
            };
            let current = current.get(&(one.lane.target.to_string(), one.lane.partition)).copied();
            let seen = Seen { source: one.source, found: one.found, log, current, applied: part.applied };
            let decided = step(&seen, self.rewinds);
            (part.source, part.found, part.again) = (one.source, Some(one.found), None);
            let was_held = part.hold.take();
            part.back = None;
            if let Some(place) = checkpointed(&seen)
                && part.checkpoint != Some((one.source, place))
            {
                part.checkpoint = Some((one.source, place));
                checkpoints.push(checkpoint(&one, place));
            }
            match decided {
                Step::Settled(place) => {
                    part.place = Some(place);
                    part.applied = Some(Applied { source: one.source, target: place.offset });
                }
                Step::Commit(place, moved) => {
                    let Work { lane, source, metadata, .. } = one;
                    let from = current;
                    planned.entry(one.group).or_default().push(Planned { lane, source, place, moved, from, metadata });
                }
                Step::Wait => part.place = None,
                Step::Hold(hold) => {
                    (part.hold, part.place, part.again) = (Some(hold), None, Some(now + AGAIN));
                    if let Hold::Ahead { current, .. } = hold {
                        part.back = at_source(&self.offsets, &one.lane, current).await;
                    }
                    if was_held != Some(hold) {
                        board::held(&self.shared, &one.group, &one.lane, hold);
                    }
                }
            }
        }
        for (name, _) in currents.iter().filter(|(name, current)| current.is_ok() && !planned.contains_key(*name)) {
            if let Some(group) = self.groups.get_mut(name) {
                // Both clusters answered, and nothing is to be done.
                group.trouble = None;
            }
        }
        if let Some(mm2) = &self.mm2 {
            // What was not written is told again with the next commit.
            let _ = mm2.write_checkpoints(&self.shared, &checkpoints).await;
        }
        self.commit(planned, now).await;
    }

    async fn commit(&mut self, planned: BTreeMap<String, Vec<Planned>>, now: Instant) {
        let target = &self.shared.target;
        let requests = planned.into_iter().filter_map(|(name, planned)| -> Option<BoxFuture<'_, _>> {
            let node = self.coordinators.get(&name).copied()?;
            let commits: Vec<_> = planned.iter().map(Planned::commit).collect();
            Some(Box::pin(async move {
                let outcome = target.commit_group(node, name.clone(), commits).await;
                (name, planned, outcome)
            }))
        });
        let outcomes: Vec<_> = stream::iter(requests.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect().await;
        for (name, planned, outcome) in outcomes {
            let Some(group) = self.groups.get_mut(&name) else { continue };
            match outcome {
                Ok(outcome) => {
                    let stale = group.settle(&self.shared, &name, planned, &outcome, now);
                    if stale {
                        self.coordinators.remove(&name);
                    }
                }
                Err(error) => {
                    self.coordinators.remove(&name);
                    group.fail(&self.shared, &name, Trouble::of_target(&error));
                    planned.iter().for_each(|one| group.later(&one.lane, now));
                }
            }
        }
    }

    /// Where the target's logs begin and end; `None` for a partition that is not there.
    async fn logs(&self, work: &[Work]) -> Result<HashMap<(String, i32), Option<(i64, i64)>>, ClientError> {
        let at: BTreeSet<_> = work.iter().map(|one| (one.lane.target.to_string(), one.lane.partition)).collect();
        let at: Vec<_> = at.into_iter().collect();
        let target = &self.shared.target;
        let (starts, ends) = tokio::join!(
            target.list_offsets(at.clone(), Position::Earliest),
            target.list_offsets(at.clone(), Position::Latest)
        );
        let bounds = starts?.into_iter().zip(ends?).map(|(start, end)| start.offset.ok().zip(end.offset.ok()));
        Ok(at.into_iter().zip(bounds).collect())
    }

    /// Finds the coordinators of groups that have none yet.
    async fn find_coordinators(&mut self, names: &[String]) -> Result<(), ClientError> {
        let missing: Vec<_> = names.iter().filter(|name| !self.coordinators.contains_key(*name)).cloned().collect();
        if missing.is_empty() {
            return Ok(());
        }
        let found = self.shared.target.group_coordinators(missing.clone()).await?;
        for (name, found) in missing.into_iter().zip(found) {
            match found {
                Ok(node) => drop(self.coordinators.insert(name, node)),
                Err(error) => {
                    if let Some(group) = self.groups.get_mut(&name) {
                        group.fail(&self.shared, &name, Trouble::of_target(&error));
                    }
                }
            }
        }
        Ok(())
    }

    /// What groups have committed at the target. A group whose coordinator is not known now is left out.
    async fn currents(
        &mut self,
        names: &[String],
    ) -> HashMap<String, Result<HashMap<(String, i32), i64>, ClientError>> {
        let mut asked: BTreeMap<i32, Vec<String>> = BTreeMap::new();
        for name in names {
            if let Some(&node) = self.coordinators.get(name) {
                asked.entry(node).or_default().push(name.clone());
            }
        }
        let target = &self.shared.target;
        let questions = asked.into_iter().map(|(node, names)| -> BoxFuture<'_, _> {
            Box::pin(async move {
                let answer = target.group_offsets(node, names.clone()).await;
                (names, answer)
            })
        });
        let answers: Vec<_> = stream::iter(questions.collect::<Vec<_>>()).buffer_unordered(AT_ONCE).collect().await;
        let mut out = HashMap::new();
        for (names, answer) in answers {
            match answer {
                Ok(answer) => {
                    for one in answer {
                        let offsets = match one.offsets {
                            Err(error) if error.kafka() == Some(GROUP_ID_NOT_FOUND) => Ok(HashMap::new()),
                            Err(error) => Err(error),
                            Ok(list) => Ok(list
                                .into_iter()
                                .filter_map(|one| Some(((one.topic, one.partition), one.offset.ok()?)))
                                .collect()),
                        };
                        out.insert(one.group, offsets);
                    }
                }
                Err(error) => out.extend(names.into_iter().map(|name| (name, Err(error.clone())))),
            }
        }
        // Whoever failed may have another coordinator by now.
        self.coordinators.retain(|name, _| !matches!(out.get(name), Some(Err(_))));
        out
    }

    fn fail_all(&mut self, trouble: &Trouble) {
        self.shared.complain("groups", &trouble.text);
        for (name, group) in &mut self.groups {
            group.fail(&self.shared, name, trouble.clone());
        }
    }

    fn fail_these(&mut self, work: &[Work], trouble: &Trouble, now: Instant) {
        for one in work {
            if let Some(group) = self.groups.get_mut(&one.group) {
                group.fail(&self.shared, &one.group, trouble.clone());
                group.later(&one.lane, now);
            }
        }
    }

    /// Tells the flow's status.
    fn show(&self) {
        let entries = self.groups.iter().map(|(name, group)| group.entry(name)).collect();
        self.shared.group_board().groups = entries;
    }
}

/// Where a target offset is at the source, where that is known.
async fn at_source(offsets: &Offsets, lane: &Lane, target: i64) -> Option<i64> {
    let found = match lane.look(Way::ToSource, target)? {
        Found::Stored(at) => offsets.look(lane, Way::ToSource, target, at).await.ok()?,
        found => found,
    };
    match found {
        Found::At(offset) | Found::Beyond(offset) => Some(offset),
        Found::Empty { .. } | Found::Unknown(_) | Found::Stored(_) => None,
    }
}

/// What MirrorMaker would say of a commit: where the group is, whatever the target's group does.
fn checkpointed(seen: &Seen) -> Option<i64> {
    let offset = match seen.found {
        Found::At(offset) | Found::Beyond(offset) => offset,
        Found::Empty { beyond: false } => seen.log.1,
        Found::Empty { .. } | Found::Unknown(_) | Found::Stored(_) => return None,
    };
    Some(offset.min(seen.log.1).max(seen.log.0))
}

fn checkpoint(work: &Work, place: i64) -> Checkpoint {
    Checkpoint {
        group: work.group.clone(),
        topic: work.lane.target.to_string(),
        partition: work.lane.partition,
        upstream: work.source,
        downstream: place,
        metadata: work.metadata.clone(),
    }
}

/// 69: no such group.
const GROUP_ID_NOT_FOUND: KafkaError = named(69);
/// 88: a transaction that commits the partition is open.
const UNSTABLE_OFFSET_COMMIT: KafkaError = named(88);

/// Kafka's errors that the client has no name for.
pub(super) const fn named(code: i16) -> KafkaError {
    match KafkaError::from_code(code) {
        Some(error) => error,
        None => panic!("0 is no error"),
    }
}
