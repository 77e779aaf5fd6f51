//! MirrorMaker 2's topics at the target: checkpoints of groups, offset syncs of partitions, and beats.
//!
//! For MirrorMaker's own clients alone; nothing here is read by linkspan. All four topics lie at the target, because that is the one
//! cluster a flow writes to. A failure is told and the next round tells everything that is newer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::compacted::{CompactedTopic, TopicError};
use super::decide::mm2::{
    Checkpoint, HEARTBEATS, checkpoints_topic, heartbeat, offset_sync, offset_syncs_topic, remote_heartbeats_topic,
};
use super::shared::{LaneKey, Shared, now_ms};
use crate::kafka::batch::{Codec, Record};

/// The topics of one flow.
pub(super) struct Mm2 {
    checkpoints: CompactedTopic,
    offset_syncs: CompactedTopic,
    heartbeats: CompactedTopic,
    remote_heartbeats: CompactedTopic,
    /// What was written of each partition last: an offset of its source.
    synced: Mutex<HashMap<LaneKey, i64>>,
}

/// The slot of their connection.
const SLOT: u16 = 92;
/// MirrorMaker's `emit.heartbeats.interval.seconds`.
const BEAT_EVERY: Duration = Duration::from_secs(1);

impl Mm2 {
    pub(super) fn new(shared: &Shared, replication_factor: Option<i16>) -> Self {
        let topic = |name: String| CompactedTopic::new(name, &shared.target, replication_factor, SLOT);
        let source = shared.source.name();
        Self {
            checkpoints: topic(checkpoints_topic(source)),
            offset_syncs: topic(offset_syncs_topic(source)),
            heartbeats: topic(HEARTBEATS.to_owned()),
            remote_heartbeats: topic(remote_heartbeats_topic(source)),
            synced: Mutex::default(),
        }
    }

    /// Beats, and tells where partitions are, until the flow stops.
    pub(super) async fn run(self: Arc<Self>, shared: Arc<Shared>) {
        let mut tick = tokio::time::interval(BEAT_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shared.stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            for told in [self.beat(&shared).await, self.write_offset_syncs(&shared).await] {
                if let Err(error) = told {
                    shared.complain("mm2_topics", &error.to_string());
                }
            }
        }
    }

    async fn beat(&self, shared: &Shared) -> Result<(), TopicError> {
        let now = now_ms();
        let (key, value) = heartbeat(shared.source.name(), shared.target.name(), now);
        let beat = [Record::new(0, now, Some(&key), Some(&value), &[])];
        self.heartbeats.append(&beat, Codec::None).await?;
        self.remote_heartbeats.append(&beat, Codec::None).await?;
        Ok(())
    }

    /// Tells of the newest record of each partition that had one since the last time.
    async fn write_offset_syncs(&self, shared: &Shared) -> Result<(), TopicError> {
        let (now, mut records, mut told) = (now_ms(), Vec::new(), Vec::new());
        for (key, lane) in shared.lanes() {
            let Some((upstream, downstream)) = lane.newest_copied() else { continue };
            if self.synced.lock().unwrap_or_else(PoisonError::into_inner).get(&key) == Some(&upstream) {
                continue;
            }
            let (name, value) = offset_sync(&key.0, key.1, upstream, downstream);
            records.push(Record::new(records.len() as i64, now, Some(&name), Some(&value), &[]));
            told.push((key, upstream));
        }
        if !records.is_empty() {
            self.offset_syncs.append(&records, Codec::None).await?;
            self.synced.lock().unwrap_or_else(PoisonError::into_inner).extend(told);
        }
        Ok(())
    }

    /// Tells where groups are.
    pub(super) async fn write_checkpoints(
        &self,
        shared: &Shared,
        checkpoints: &[Checkpoint],
    ) -> Result<(), TopicError> {
        if checkpoints.is_empty() {
            return Ok(());
        }
        let now = now_ms();
        let records = checkpoints.iter().enumerate().map(|(n, checkpoint)| {
            let (key, value) = checkpoint.encode();
            Record::new(n as i64, now, Some(&key), Some(&value), &[])
        });
        let records: Vec<_> = records.collect();
        let written = self.checkpoints.append(&records, Codec::None).await;
        written.map(drop).inspect_err(|error| shared.complain("mm2_topics", &error.to_string()))
    }
}
