//! Where a lane's records lie at the target, for those who ask.

use super::Lane;
use crate::replicator::decide::offset_map::{Change, Chunk, Found, OffsetMap, Unplaced, Way, Written};

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

    /// What an offset is on the other side; `None` before the lane was told where it begins: then it knows nothing of its past.
    pub(in crate::replicator) fn look(&self, way: Way, offset: i64) -> Option<Found> {
        let mut state = self.lock();
        if !state.begun {
            return None;
        }
        let next = state.acked.next_offset;
        state.offsets.know(next);
        Some(match way {
            Way::ToTarget => state.offsets.map().target_of(offset),
            Way::ToSource => state.offsets.map().source_of(offset),
        })
    }

    /// The same in a chunk that was read back.
    pub(in crate::replicator) fn look_in(&self, chunk: &Chunk, way: Way, offset: i64) -> Found {
        self.lock().offsets.map().look_in(chunk, way, offset)
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

    /// Offsets of the newest record that was copied, at the source and at the target.
    pub(in crate::replicator) fn newest_copied(&self) -> Option<(i64, i64)> {
        self.lock().offsets.map().newest()
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
