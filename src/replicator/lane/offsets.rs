//! Where a lane's records lie at the target, for those who ask.

use super::Lane;
use crate::replicator::decide::offset_map::{Change, OffsetMap, Unplaced, Written};

impl Lane {
    /// Takes what was stored of its map; for a lane that was not adopted yet.
    pub(in crate::replicator) fn remember(&self, map: OffsetMap) {
        let mut state = self.lock();
        if !state.begun {
            state.offsets.remember(map);
        }
    }

    /// The map as it is, to go on with it when the lane comes back.
    pub(in crate::replicator) fn offset_map(&self) -> Option<OffsetMap> {
        let state = self.lock();
        state.begun.then(|| state.offsets.map().clone())
    }

    /// What its map has to be written. To be asked after the progress that is written with it, so that it is not older.
    pub(in crate::replicator) fn offset_changes(&self) -> Vec<Change> {
        let mut state = self.lock();
        if !state.begun {
            return Vec::new();
        }
        let next = state.acked.next_offset;
        state.offsets.know(next);
        state.offsets.map().changes()
    }

    /// A change was written at this offset.
    pub(in crate::replicator) fn offsets_stored(&self, change: &Change, offset: i64) {
        self.lock().offsets.map_mut().stored(change, offset);
    }

    /// Records that the target has somewhere.
    pub(in crate::replicator) fn unplaced(&self) -> Option<Unplaced> {
        self.lock().offsets.unplaced()
    }

    /// They were looked for, and these batches found; `None` where nobody can tell.
    pub(in crate::replicator) fn place(&self, written: Option<&[Written]>) {
        let mut state = self.lock();
        match written {
            Some(written) => state.offsets.place(written),
            None => state.offsets.give_up(),
        }
    }

    /// Chunks of its map beside the newest.
    pub(in crate::replicator) fn sealed_chunks(&self) -> usize {
        self.lock().offsets.map().sealed_chunks()
    }

    /// The target's log begins here.
    pub(in crate::replicator) fn prune_offsets(&self, target_log_start: i64) {
        self.lock().offsets.map_mut().prune(target_log_start);
    }
}
