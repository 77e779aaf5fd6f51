//! Where lanes begin: kept progress, what the source still has, and what the target's leaders remember of our writes.
//!
//! The sequence of a record is its ordinal among those that the flow's producer id put into the partition. So what the leader
//! remembers, less what progress says, is the number of records that were written after the progress was: they are skipped.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

use futures_util::StreamExt as _;

use super::cluster::ProducerState;
use super::compacted::TopicError;
use super::decide::guard::{self, Guard};
use super::decide::position::{self, SourceLog};
use super::decide::progress::Progress;
use super::lane::{Adopted, Doubt, Lane, later};
use super::recover::{self, Question};
use super::registry::Register;
use super::shared::{LaneKey, Shared, now_ms};
use super::status::{Happened, TargetEvent, TroubleCode};
use super::store::{Known, Store};
use crate::client::{ClientError, KafkaError, Position};
use crate::config::OnRecreate;
use crate::net::BoxFuture;

/// Adopts lanes.
#[derive(Default)]
pub(super) struct Adoption {
    /// Where producer ids are written down before they are used; `None` before both clusters said who they are.
    register: Option<Register>,
    /// The producer id for partitions that have none, of this run.
    writer: Option<(i64, i16)>,
}

/// A partition, and the producers that its leader remembers.
type Memory = (LaneKey, Option<Vec<ProducerState>>);

/// Questions to target leaders at once.
const QUESTIONS: usize = 32;
/// Partitions asked for their bounds at once.
const AT_ONCE: usize = 1_000;

impl Adoption {
    /// Both clusters have said who they are.
    pub(super) fn register(&mut self, register: Register) {
        self.register = Some(register);
    }

    /// Whether they have.
    pub(super) const fn is_ready(&self) -> bool {
        self.register.is_some()
    }

    /// Tells each lane that needs it where to begin; those that cannot be told now are left for the next call.
    ///
    /// `known` is what was read at the start; it is kept up to date here.
    pub(super) async fn adopt(
        &mut self,
        shared: &Shared,
        store: &Store,
        known: &mut Known,
        lanes: Vec<Arc<Lane>>,
    ) -> Result<(), ClientError> {
        for lanes in lanes.chunks(AT_ONCE) {
            self.adopt_some(shared, store, known, lanes).await?;
        }
        Ok(())
    }

    async fn adopt_some(
        &mut self,
        shared: &Shared,
        store: &Store,
        known: &mut Known,
        lanes: &[Arc<Lane>],
    ) -> Result<(), ClientError> {
        let logs = bounds(shared, lanes).await?;
        // Whoever wrote what is before these ends is known from here on.
        if let Err(error) = shared.registry.refresh(&BTreeSet::new()).await {
            shared.complain("producers", &error.to_string());
            shared.refresh.notify_one();
            return Ok(());
        }
        // Progress of a writer that goes on is written with the map of its records, later.
        let (mut begun, mut first) = (Vec::new(), Vec::new());
        let asked = lanes.iter().zip(logs).filter_map(|(lane, log)| Some((Arc::clone(lane), log?)));
        let priors: Vec<_> = asked.map(|(lane, log)| (prior(shared, known, &lane), lane, log)).collect();
        let remembered = remembered(shared, &priors).await;
        let looks: Vec<_> = priors
            .iter()
            .map(|(prior, lane, log)| look_back(shared, &remembered, prior.as_ref(), lane, *log))
            .collect();
        let mut looks = futures_util::stream::iter(looks).buffered(QUESTIONS);
        while let Some(begin) = looks.next().await {
            let Some(mut begin) = begin else { continue };
            match begin.writer {
                Writer::Same => {}
                Writer::OfRun => self.fresh(shared, &mut begin.progress, false).await?,
                Writer::New => self.fresh(shared, &mut begin.progress, true).await?,
            }
            if let Err(error) = self.written_down(begin.progress.producer_id).await {
                // Unregistered records would be taken for this cluster's own, and sent back.
                shared.complain("producers", &error.to_string());
                shared.refresh.notify_one();
                continue;
            }
            if shared.exactly_once && begin.progress.producer_id < 0 {
                begin.lane.note(TroubleCode::Delivery, NO_PRODUCER.to_owned(), Instant::now());
                continue;
            }
            for event in begin.events {
                shared.happened(&begin.lane, event);
            }
            (begin.progress.source_topic_id, begin.progress.target_topic_id) = begin.lane.ids();
            let (progress, skip, source_end) = (begin.progress, begin.skip, begin.source_end);
            if begin.writer != Writer::Same {
                first.push((Arc::clone(&begin.lane), progress));
            }
            begun.push((begin.lane, Adopted { progress, skip, source_end }));
        }
        drop(looks);
        if let Err(error) = store.begin(&first).await {
            shared.complain("progress", &error.to_string());
            shared.refresh.notify_one();
            return Ok(());
        }
        if !begun.is_empty() {
            shared.board().last_progress_ms = Some(now_ms());
        }
        for (lane, adopted) in begun {
            known.insert((lane.source.to_string(), lane.partition), adopted.progress);
            lane.adopt(adopted);
            shared.wake(&lane);
        }
        Ok(())
    }

    /// Registers a producer id, which then may be used.
    async fn written_down(&self, producer_id: i64) -> Result<(), TopicError> {
        match &self.register {
            Some(register) if producer_id >= 0 => register.write(producer_id).await,
            _ => Ok(()),
        }
    }

    /// Gives a lane a producer id that has written nothing there: that of this run, or a new one.
    async fn fresh(&mut self, shared: &Shared, progress: &mut Progress, new: bool) -> Result<(), ClientError> {
        if new || self.writer.is_none() {
            self.writer = match shared.target.producer_id().await {
                Ok(writer) => Some(writer),
                Err(error) if error.is_retriable() => return Err(error),
                Err(error) => {
                    // Copied without a producer id: a retry may then store a batch twice, and nothing else is lost.
                    shared.complain("producer id", &error.to_string());
                    Some((-1, -1))
                }
            };
        }
        (progress.producer_id, progress.producer_epoch) = self.writer.unwrap_or((-1, -1));
        progress.next_sequence = 0;
        Ok(())
    }
}

/// How long an append may be on its way after its connection is gone, where the leader would not know it again.
pub(super) const SETTLE: Duration = Duration::from_secs(10);
/// Why a copy cannot be exactly once without a producer id.
const NO_PRODUCER: &str = "the target gives no producer id, without which no append is made at its place alone; set \
                           delivery = \"at_least_once\", or allow IdempotentWrite";

/// Where a lane is to begin.
struct Begin {
    lane: Arc<Lane>,
    progress: Progress,
    skip: u64,
    source_end: i64,
    writer: Writer,
    events: Vec<Happened>,
}

/// Whose name a lane goes on under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Writer {
    /// The producer id of its progress.
    Same,
    /// That of this run.
    OfRun,
    /// One that nobody has used yet.
    New,
}

/// Where a lane goes on, from what is kept, remembered and, where these are not enough, stands in the target's log. `None` where that
/// cannot be told now.
async fn look_back(
    shared: &Shared,
    remembered: &HashMap<LaneKey, Option<Vec<ProducerState>>>,
    prior: Option<&Progress>,
    lane: &Arc<Lane>,
    log: SourceLog,
) -> Option<Begin> {
    let start = match position::start(prior, &log) {
        Ok(start) => start,
        Err(recreated) if shared.policies.on_recreate == OnRecreate::Append => recreated.append(&log),
        Err(recreated) => {
            lane.note(TroubleCode::SourceRecreated, recreated.to_string(), Instant::now());
            return None;
        }
    };
    let mut progress = prior.copied().unwrap_or_default();
    let mut events = Vec::new();
    // Whether the leader would take an append of the run before for a new one, if not now then soon.
    let mut forgetful = false;
    let (mut ahead, writer) = match prior {
        None => (Some(0), Writer::OfRun),
        Some(prior) if prior.producer_id < 0 => (Some(0), Writer::New),
        Some(prior) => {
            // Not to be asked now: guessing would copy records twice.
            let memory = remembered.get(&key(lane))?;
            forgetful = forgets(shared, prior, memory.as_deref());
            match resume(prior, memory.as_deref(), lane.is_distrusted()) {
                Resumed::Same { ahead } => (Some(ahead), Writer::Same),
                Resumed::Forgotten => (None, Writer::Same),
                Resumed::Another => (None, Writer::New),
                Resumed::Lost { records } => {
                    events.push(Happened::Target(TargetEvent::TargetLost { records }));
                    (Some(0), Writer::New)
                }
            }
        }
    };
    let gap = matches!(start.event, Some(position::Event::Gap { .. }));
    // What was copied of a topic that is gone, or of an end that is, is not looked for in what is there.
    let matches = gap || start.event.is_none();
    let inexact = matches && (lane.rules().compacted || gap || writer == Writer::New);
    if forgetful && shared.exactly_once && shared.since.elapsed() < SETTLE {
        let text = format!("partition {}: appends of the run before are given time to land", lane.partition);
        lane.note(TroubleCode::Beginning, text, Instant::now());
        shared.refresh.notify_one();
        return None;
    }
    let mut next_offset = None;
    if shared.exactly_once && (ahead.is_none() || (ahead > Some(0) && inexact)) {
        let before = progress;
        let question = Question { prior: &before, ahead, start, log, match_contents: inexact };
        match recover::recover(shared, lane, question).await {
            Ok(found) => {
                (ahead, next_offset) = (Some(found.ahead), found.next_offset);
                if next_offset.is_some() {
                    progress.target_offset = progress.target_offset.max(found.target_end);
                }
            }
            Err(error) => {
                let text = format!("partition {}: looking for its copy's end: {error}", lane.partition);
                shared.complain(&format!("topic {}", lane.source), &text);
                lane.note(TroubleCode::TargetUnavailable, text, Instant::now());
                shared.refresh.notify_one();
                return None;
            }
        }
    }
    let ahead = ahead.unwrap_or(0);
    let mut skip = ahead;
    if let Some(event) = start.event {
        // What the target has beyond progress may be all that is gone.
        let lost = (start.offset - progress.next_offset).unsigned_abs() > ahead;
        if lost || !gap {
            if shared.stops_at_gaps(&lane.source) {
                lane.note(TroubleCode::SourceGap, gap_words(lane, event), Instant::now());
                return None;
            }
            events.push(Happened::Source(event));
        }
    }
    if next_offset.is_some() || start.event.is_some() {
        progress.next_sequence = later(progress.next_sequence, skip);
        skip = 0;
    }
    progress.next_offset = next_offset.unwrap_or(start.offset);
    Some(Begin { lane: Arc::clone(lane), progress, skip, source_end: log.end, writer, events })
}

/// What a lane's producer is to the target.
#[derive(Debug, PartialEq, Eq)]
enum Resumed {
    /// Remembered, with this many records that progress does not know of.
    Same {
        /// Records.
        ahead: u64,
    },
    /// Not remembered (expired, or nothing was written): any sequence is accepted, so the old one goes on.
    Forgotten,
    /// Remembered with fewer records than were acknowledged.
    Lost {
        /// Records that are missing.
        records: u64,
    },
    /// It cannot go on; another producer id must.
    Another,
}

/// Whether the leader has forgotten a producer, or may before an append that is on its way has landed: by the time that it counts by.
fn forgets(shared: &Shared, prior: &Progress, memory: Option<&[ProducerState]>) -> bool {
    let state = memory.and_then(|memory| memory.iter().find(|state| state.producer_id == prior.producer_id));
    let memory_ms = shared.producer_memory_ms.load(Ordering::Relaxed);
    let landed = now_ms() + SETTLE.as_millis() as i64;
    state.is_none_or(|state| guard::needed(state.last_timestamp, landed, memory_ms) == Guard::Log)
}

/// Compares progress with what the leader remembers; `None` where it never can be asked.
fn resume(prior: &Progress, memory: Option<&[ProducerState]>, distrusted: bool) -> Resumed {
    let Some(memory) = memory else { return if distrusted { Resumed::Another } else { Resumed::Forgotten } };
    let Some(state) = memory.iter().find(|state| state.producer_id == prior.producer_id) else {
        return if distrusted { Resumed::Another } else { Resumed::Forgotten };
    };
    if state.epoch != prior.producer_epoch || state.last_sequence < 0 {
        return Resumed::Another;
    }
    let next = later(state.last_sequence, 1);
    let ahead = u64::from((next.wrapping_sub(prior.next_sequence) & i32::MAX).unsigned_abs());
    if ahead >= 1 << 30 {
        return Resumed::Lost { records: (1 << 31) - ahead };
    }
    // Refused though it fits: this pid will not get further here.
    if distrusted && ahead == 0 { Resumed::Another } else { Resumed::Same { ahead } }
}

fn gap_words(lane: &Lane, event: position::Event) -> String {
    format!("partition {}: {event}; `linkspan resume --topic {}` goes on without them", lane.partition, lane.source)
}

fn key(lane: &Lane) -> LaneKey {
    (Arc::clone(&lane.source), lane.partition)
}

/// What was copied of a lane's partition, if its copy is still there.
fn prior(shared: &Shared, known: &Known, lane: &Arc<Lane>) -> Option<Progress> {
    let kept = known.get(&(lane.source.to_string(), lane.partition)).copied()?;
    let prior = if lane.was_adopted() { lane.acked() } else { kept };
    if position::is_recreated(prior.target_topic_id, lane.ids().1) {
        shared.happened(lane, Happened::Target(TargetEvent::TargetRecreated));
        return None;
    }
    Some(prior)
}

/// Where the source's partitions begin and end; `None` for those that cannot say now.
async fn bounds(shared: &Shared, lanes: &[Arc<Lane>]) -> Result<Vec<Option<SourceLog>>, ClientError> {
    let at: Vec<_> = lanes.iter().map(|lane| (lane.source.to_string(), lane.partition)).collect();
    let end = if shared.read_committed { Position::ReadCommittedEnd } else { Position::Latest };
    let starts = shared.source.list_offsets(at.clone(), Position::Earliest).await?;
    let ends = shared.source.list_offsets(at, end).await?;
    let mut out = Vec::with_capacity(lanes.len());
    for ((lane, start), end) in lanes.iter().zip(starts).zip(ends) {
        out.push(match (start.offset, end.offset) {
            (Ok(start), Ok(end)) => Some(SourceLog { topic_id: lane.ids().0, start, end: end.max(start) }),
            (Err(error), _) | (_, Err(error)) => {
                let code = if error.kafka() == Some(KafkaError::TOPIC_AUTHORIZATION_FAILED) {
                    TroubleCode::SourceAuthorization
                } else {
                    TroubleCode::SourceUnavailable
                };
                let text = format!("partition {}: the source: {error}", lane.partition);
                shared.complain(&format!("topic {}", lane.source), &text);
                lane.note(code, text, Instant::now());
                None
            }
        });
    }
    out.resize_with(lanes.len(), || None);
    Ok(out)
}

/// What target leaders remember of the producers of partitions that were copied before; `None` where brokers have no such question,
/// no entry where the answer may come later.
async fn remembered(
    shared: &Shared,
    priors: &[(Option<Progress>, Arc<Lane>, SourceLog)],
) -> HashMap<LaneKey, Option<Vec<ProducerState>>> {
    let asked = priors.iter().filter(|(prior, _, _)| prior.is_some_and(|prior| prior.producer_id >= 0));
    let questions: Vec<_> = asked.map(|(_, lane, _)| ask(shared, lane)).collect();
    futures_util::stream::iter(questions).buffer_unordered(QUESTIONS).filter_map(std::future::ready).collect().await
}

/// One entry of [`remembered`].
fn ask<'a>(shared: &'a Shared, lane: &'a Arc<Lane>) -> BoxFuture<'a, Option<Memory>> {
    Box::pin(async move {
        let node = lane.leaders().1?;
        match shared.target.producers(node, lane.target.to_string(), lane.partition).await {
            Ok(producers) => Some((key(lane), Some(producers))),
            Err(ClientError::Unsupported { .. }) => Some((key(lane), None)),
            Err(error) => {
                shared.complain("describing producers", &error.to_string());
                if error.is_retriable() {
                    shared.refresh.notify_one();
                    return None;
                }
                if shared.exactly_once {
                    let text = format!(
                        "partition {}: what the target has of it cannot be asked, so a record could be repeated: {error}; \
                         allow Read on the target topic, or set delivery = \"at_least_once\"",
                        lane.partition
                    );
                    lane.note(TroubleCode::Delivery, text, Instant::now());
                    return None;
                }
                Some((key(lane), None))
            }
        }
    })
}

/// Asks the leaders of lanes with a batch whose outcome is unknown, so that nothing is sent again that may be written.
///
/// A leader that remembers our producer tells written and unwritten batches apart itself when they come again; a lane whose leader
/// does not is adopted again, which reads the log.
pub(super) async fn settle_doubts(shared: &Shared) -> bool {
    let (memory, now, now_ms) = (shared.producer_memory_ms.load(Ordering::Relaxed), Instant::now(), now_ms());
    let mut waits = false;
    let lanes = shared.lanes().into_values().filter(|lane| {
        let doubt = lane.is_in_doubt(lane.guard(memory, now, now_ms), SETTLE, now);
        waits |= doubt == Doubt::Wait;
        doubt == Doubt::Ask
    });
    let lanes: Vec<_> = lanes.collect();
    let questions: Vec<_> = lanes.iter().map(|lane| async move { (lane, ask(shared, lane).await) }).collect();
    let mut answers = futures_util::stream::iter(questions).buffer_unordered(QUESTIONS);
    let mut all = !waits;
    while let Some((lane, answer)) = answers.next().await {
        let Some((_, memory)) = answer else {
            all = false;
            continue;
        };
        let acked = lane.acked();
        let states = memory.unwrap_or_default();
        let state = states.iter().find(|state| state.producer_id == acked.producer_id);
        lane.answer(state.filter(|state| state.epoch == acked.producer_epoch).map(|state| state.last_sequence), now);
        shared.list(lane);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_target_has_beyond_progress_is_known_exactly() {
        let prior = Progress { producer_id: 7, producer_epoch: 0, next_sequence: 100, ..Progress::default() };
        let state = |last_sequence| ProducerState { producer_id: 7, epoch: 0, last_sequence, last_timestamp: -1 };
        for (last, distrusted, expected) in [
            (99, false, Resumed::Same { ahead: 0 }),
            (99, true, Resumed::Another),
            (149, false, Resumed::Same { ahead: 50 }),
            (149, true, Resumed::Same { ahead: 50 }),
            (89, false, Resumed::Lost { records: 10 }),
            (-1, false, Resumed::Another),
        ] {
            assert_eq!(resume(&prior, Some(&[state(last)]), distrusted), expected, "{last}");
        }
        assert_eq!(resume(&prior, Some(&[]), false), Resumed::Forgotten);
        assert_eq!(resume(&prior, Some(&[]), true), Resumed::Another);
        assert_eq!(resume(&prior, None, false), Resumed::Forgotten);
        let wrapped = Progress { next_sequence: i32::MAX - 1, ..prior };
        assert_eq!(resume(&wrapped, Some(&[state(3)]), false), Resumed::Same { ahead: 6 });
        let other_epoch = ProducerState { epoch: 1, ..state(99) };
        assert_eq!(resume(&prior, Some(&[other_epoch]), false), Resumed::Another);
    }
}
