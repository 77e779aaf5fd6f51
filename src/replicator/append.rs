//! One connection's worth of appending to one target broker.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use tokio::sync::Notify;

use super::lane::{After, Lane};
use super::shared::Shared;
use crate::client::{ClientError, PartitionBatch, ProduceOutcome};

/// Lanes with something to append to one broker over one connection.
#[derive(Debug)]
pub(super) struct AppendDesk {
    pub(super) node: i32,
    pub(super) slot: u16,
    /// A lane may stand here twice: who has nothing to send is passed over.
    ready: Mutex<VecDeque<Arc<Lane>>>,
    wake: Notify,
}

/// Bytes of one request: enough that its cost is spread, little enough that acks come soon.
const MOST_BYTES: usize = 4 << 20;
/// Partitions of one request.
const MOST_PARTITIONS: usize = 500;

impl AppendDesk {
    pub(super) fn new(node: i32, slot: u16) -> Self {
        Self { node, slot, ready: Mutex::default(), wake: Notify::new() }
    }

    /// Something waits in this lane.
    pub(super) fn list(&self, lane: Arc<Lane>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(lane);
        self.wake.notify_one();
    }

    fn next(&self) -> Option<Arc<Lane>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Appends until the flow stops; what is under way then is still settled.
    pub(super) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        // Lanes that wait out a pause; as many at most as there are lanes.
        let mut paused: Vec<(Instant, Arc<Lane>)> = Vec::new();
        while !shared.stop.is_cancelled() {
            let now = Instant::now();
            paused.retain(|(at, lane)| {
                if *at > now {
                    return true;
                }
                // The leader may have moved: then it is another desk's.
                shared.list(lane);
                false
            });
            let (lanes, batches) = self.collect(now);
            if batches.is_empty() {
                let soonest = paused.iter().map(|(at, _)| *at).min();
                let pause = soonest.map_or(Duration::from_secs(1), |at| at.saturating_duration_since(now));
                tokio::select! {
                    () = shared.stop.cancelled() => return,
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(pause) => {}
                }
                continue;
            }
            let outcomes = shared.target.produce(self.node, self.slot, batches).await;
            self.settle(&shared, lanes, outcomes, &mut paused);
        }
    }

    /// One batch each of the lanes that are ready, within the bounds of a request.
    fn collect(&self, now: Instant) -> (Vec<Arc<Lane>>, Vec<PartitionBatch>) {
        let (mut lanes, mut batches, mut bytes) = (Vec::new(), Vec::new(), 0);
        while bytes < MOST_BYTES && batches.len() < MOST_PARTITIONS {
            let Some(lane) = self.next() else { break };
            // A lane that stands here twice has its batch under way the second time.
            if let Some(batch) = lane.prepare(self.node, now) {
                bytes += batch.header.len() + batch.payload.len();
                batches.push(batch);
                lanes.push(lane);
            }
        }
        (lanes, batches)
    }

    fn settle(
        &self,
        shared: &Arc<Shared>,
        lanes: Vec<Arc<Lane>>,
        outcomes: Result<Vec<ProduceOutcome>, ClientError>,
        paused: &mut Vec<(Instant, Arc<Lane>)>,
    ) {
        let now = Instant::now();
        let failure = outcomes.as_ref().err();
        if let Some(error) = failure {
            shared.complain(&format!("target broker {}", self.node), &error.to_string());
        }
        for (index, lane) in lanes.into_iter().enumerate() {
            let settled = match &outcomes {
                Err(error) => lane.append_failed(error, shared.exactly_once, now),
                // The client promises an outcome for each batch, in their order.
                Ok(outcomes) => match outcomes.get(index) {
                    None => {
                        let detail = "an outcome is missing".to_owned();
                        lane.append_failed(&ClientError::Invalid { detail }, shared.exactly_once, now)
                    }
                    Some(outcome) => {
                        let settled = lane.settle(outcome, shared.exactly_once, now);
                        if outcome.error.is_some()
                            && let Some(reason) = lane.reason()
                        {
                            shared.complain(&format!("topic {}", lane.source), &reason.text);
                        }
                        settled
                    }
                },
            };
            if settled.room {
                shared.wake(&lane);
            }
            match settled.after {
                After::Again => self.list(lane),
                After::Idle => shared.wake(&lane),
                After::Adopt => shared.refresh.notify_one(),
                After::Later { at, refresh } => {
                    if refresh {
                        shared.refresh.notify_one();
                    }
                    shared.wake(&lane);
                    paused.push((at, lane));
                }
            }
        }
    }
}
