//! Finds out from the target's log what progress and the leader's memory do not tell.

use std::sync::Arc;

use super::decide::batches::{self, Choice, Rules};
use super::decide::position::{SourceLog, Start};
use super::decide::progress::Progress;
use super::decide::provenance::Origin;
use super::decide::tail::{Survivors, Tail, next_offset};
use super::lane::Lane;
use super::log::{At, LogError};
use super::shared::Shared;
use crate::client::{Isolation, Position, TopicId};

/// What was found at the end of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Recovered {
    /// Records that the target has beyond progress.
    pub(super) ahead: u64,
    /// First source offset that it does not have; `None` where counting `ahead` records of the source is enough.
    pub(super) next_offset: Option<i64>,
    /// Offset after the last of them at the target, -1 where there is none.
    pub(super) target_end: i64,
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) prior: &'a Progress,
    /// Records beyond progress where the leader told; `None` where it has forgotten.
    pub(super) ahead: Option<u64>,
    pub(super) start: Start,
    pub(super) log: SourceLog,
    /// Whether counting is not enough.
    pub(super) match_contents: bool,
}

/// Why it was not found out this time.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecoverError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("partition has no leader")]
    NoLeader,
    #[error("the target's log shows {seen} of {expected} records yet")]
    Behind { seen: u64, expected: u64 },
}

/// The slot of its own connections, at both clusters.
const SLOT: u16 = 91;

/// Reads the copy's end, and the source where that is needed.
pub(super) async fn recover(
    shared: &Shared,
    lane: &Arc<Lane>,
    question: Question<'_>,
) -> Result<Recovered, RecoverError> {
    let (source, target) = lane.leaders();
    let (source_id, target_id) = lane.ids();
    let rules = lane.rules();
    let prior = question.prior;
    let copy = At {
        node: target.ok_or(RecoverError::NoLeader)?,
        topic: Arc::clone(&lane.target),
        topic_id: TopicId(target_id),
        partition: lane.partition,
    };
    let marks = question.match_contents.then_some(!rules.target_stamps);
    let mut tail = Tail::new(prior.producer_id, prior.producer_epoch, prior.next_sequence, marks);
    let begin = copy.bound(&*shared.target, Position::Earliest).await?.max(prior.target_offset);
    let end = copy.bound(&*shared.target, Position::Latest).await?;
    let take = |batch: &_, _: &mut _| tail.take(batch).map(|()| true);
    copy.read(&*shared.target, SLOT, Isolation::ReadUncommitted, (begin, end), take).await?;
    if let Some(expected) = question.ahead
        && tail.records() < expected
    {
        // The newest are not known to all replicas yet, so nobody is given them.
        return Err(RecoverError::Behind { seen: tail.records(), expected });
    }
    let (ahead, target_end) = (tail.records(), tail.end());
    if ahead == 0 || !question.match_contents {
        return Ok(Recovered { ahead, next_offset: None, target_end });
    }
    let origin = At {
        node: source.ok_or(RecoverError::NoLeader)?,
        topic: Arc::clone(&lane.source),
        topic_id: TopicId(source_id),
        partition: lane.partition,
    };
    let mut survivors = Survivors::new(prior.next_offset, ahead);
    let isolation = if shared.read_committed { Isolation::ReadCommitted } else { Isolation::ReadUncommitted };
    let begin = question.start.offset;
    let take = |batch: &_, aborted: &mut _| {
        let choice = batches::choose(batch, begin, false, &Rules::default(), aborted)?;
        let producer_id = batch.header().map_or(-1, |header| header.producer_id);
        let looped = shared.registry.known().origin(producer_id) == Origin::Target;
        survivors.take(batch, !looped && !matches!(choice, Choice::Drop(_)), !rules.target_stamps)
    };
    origin.read(&*shared.source, SLOT, isolation, (begin, question.log.end), take).await?;
    let next = next_offset(&tail, &survivors, rules.compacted).max(begin);
    Ok(Recovered { ahead, next_offset: Some(next), target_end })
}
