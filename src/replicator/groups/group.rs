//! One group: where it stands, and why not where it should.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::time::Instant;

use super::board::{self, GroupState, Trouble};
use super::{AGAIN, named};
use crate::client::{Commit, CommitOutcome, KafkaError};
use crate::replicator::decide::groups::{Applied, Hold, Moved, Place};
use crate::replicator::decide::offset_map::Found;
use crate::replicator::lane::Lane;
use crate::replicator::shared::Shared;

/// What is known of one group.
#[derive(Default)]
pub(super) struct Group {
    pub(super) parts: BTreeMap<(Arc<str>, i32), Part>,
    /// When it last stood at the target where it stood at the source.
    pub(super) synced: Option<Instant>,
    pub(super) trouble: Option<Trouble>,
}

/// One partition of a group.
#[derive(Default)]
pub(super) struct Part {
    pub(super) source: i64,
    pub(super) found: Option<Found>,
    pub(super) applied: Option<Applied>,
    pub(super) place: Option<Place>,
    pub(super) hold: Option<Hold>,
    /// Where the target's group would be at the source, when it is further.
    pub(super) back: Option<i64>,
    /// It is looked at again at this moment, also where nothing changes.
    pub(super) again: Option<Instant>,
    /// A transaction that commits it is open.
    pub(super) unstable: bool,
    pub(super) checkpoint: Option<(i64, i64)>,
}

/// A commit that is to be made.
pub(super) struct Planned {
    pub(super) lane: Arc<Lane>,
    pub(super) source: i64,
    pub(super) place: Place,
    pub(super) moved: Option<Moved>,
    pub(super) from: Option<i64>,
    pub(super) metadata: String,
}

impl Group {
    /// Takes the target's word on commits. True where its coordinator is another.
    pub(super) fn settle(
        &mut self,
        shared: &Shared,
        name: &str,
        planned: Vec<Planned>,
        outcomes: &[CommitOutcome],
        now: Instant,
    ) -> bool {
        let mut stale = false;
        let mut trouble = None;
        for one in planned {
            let answer = outcomes.iter().find(|answer| *answer.0 == *one.lane.target && answer.1 == one.lane.partition);
            let outcome = answer.map_or(Err(KafkaError::UNKNOWN_SERVER_ERROR), |answer| answer.2);
            let Some(part) = self.parts.get_mut(&(Arc::clone(&one.lane.source), one.lane.partition)) else { continue };
            match outcome {
                Ok(()) => {
                    part.place = Some(one.place);
                    part.applied = Some(Applied { source: one.source, target: one.place.offset });
                    if let Some(moved) = one.moved {
                        board::moved(shared, name, &one.lane, moved, one.place.offset, one.from);
                    }
                }
                Err(error) => {
                    stale |= matches!(error, NOT_COORDINATOR | COORDINATOR_NOT_AVAILABLE);
                    (part.place, part.again) = (None, Some(now + AGAIN));
                    trouble = Some(Trouble::of_commit(&one.lane.target, one.lane.partition, error));
                }
            }
        }
        match trouble {
            Some(trouble) => self.fail(shared, name, trouble),
            None => self.trouble = None,
        }
        stale
    }

    pub(super) fn fail(&mut self, shared: &Shared, name: &str, trouble: Trouble) {
        board::failed(shared, name, &trouble);
        self.trouble = Some(trouble);
    }

    /// The partition is looked at again in the next cycle.
    pub(super) fn later(&mut self, lane: &Lane, now: Instant) {
        if let Some(part) = self.parts.get_mut(&(Arc::clone(&lane.source), lane.partition)) {
            part.again = Some(now);
        }
    }

    pub(super) fn state(&self) -> GroupState {
        if let Some(trouble) = &self.trouble {
            return trouble.state();
        }
        let of = |part: &Part| match (part.hold, part.place) {
            (Some(Hold::Ahead { .. }), _) => GroupState::Ahead,
            (Some(_), _) => GroupState::Held,
            (None, Some(place)) if place.exact && !part.unstable => GroupState::Synced,
            _ => GroupState::Waiting,
        };
        self.parts.values().map(of).max().unwrap_or(GroupState::Waiting)
    }

    pub(super) fn entry(&self, name: &str) -> board::GroupEntry {
        let state = self.state();
        let held = self.parts.iter().find_map(|((topic, partition), part)| {
            let back = part.back.map_or_else(String::new, |back| format!("; that is {back} at the source"));
            Some(format!("{topic}-{partition}: {}{back}", part.hold?))
        });
        let waiting = || {
            let is_waiting = |part: &&Part| part.unstable || !part.place.is_some_and(|place| place.exact);
            let ((topic, partition), part) = self.parts.iter().find(|(_, part)| is_waiting(part))?;
            let why = match part.place {
                _ if part.unstable => "a transaction that commits it is open".to_owned(),
                Some(_) => format!("the group is at {}, the copy is not as far", part.source),
                None => "the copy has not begun".to_owned(),
            };
            Some(format!("{topic}-{partition}: {why}"))
        };
        let reason = match state {
            GroupState::Synced => None,
            GroupState::Active | GroupState::Failed => self.trouble.as_ref().map(|trouble| trouble.text.clone()),
            GroupState::Held | GroupState::Ahead => held,
            GroupState::Waiting => waiting(),
        };
        let exact = self.parts.values().filter(|part| part.place.is_some_and(|place| place.exact)).count();
        let (partitions, synced) = (self.parts.len(), self.synced);
        board::GroupEntry { group: name.to_owned(), state, reason, partitions, exact, synced }
    }
}

impl Planned {
    pub(super) fn commit(&self) -> Commit {
        Commit {
            topic: self.lane.target.to_string(),
            partition: self.lane.partition,
            offset: self.place.offset,
            metadata: self.metadata.clone(),
        }
    }
}

/// 15: the group's coordinator is not there yet.
const COORDINATOR_NOT_AVAILABLE: KafkaError = named(15);
/// 16: another broker is the group's coordinator.
const NOT_COORDINATOR: KafkaError = named(16);
