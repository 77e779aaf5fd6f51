//! Which chunks of a map are to be written, and the map read back from what was.

use std::collections::BTreeMap;

use super::{About, Chunk, ChunkError, OffsetMap, Place, Sealed, Segment};

/// A chunk to be written: its number, and its value or `None` where it is to be forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub number: u32,
    /// Its value.
    pub value: Option<Vec<u8>>,
    /// Hands it back to [`OffsetMap::stored`].
    mark: Mark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Forgotten,
    Sealed { next: i64 },
    Tail { revision: u64 },
}

/// What is stored and what is not.
impl OffsetMap {
    /// Chunks that are to be written, in their order, the newest last.
    #[must_use]
    pub fn changes(&self) -> Vec<Change> {
        let mut out = Vec::new();
        if self.revision == self.stored_revision {
            return out;
        }
        // A number that is in use again is not forgotten.
        let used = self.first..=self.tail_number();
        let forgotten = self.forgotten.iter().filter(|number| !used.contains(number));
        out.extend(forgotten.map(|&number| Change { number, value: None, mark: Mark::Forgotten }));
        for (number, one) in (self.first..).zip(&self.sealed) {
            if let Place::Memory(chunk) = &one.place {
                let value = Some(chunk.encode(&self.about()));
                out.push(Change { number, value, mark: Mark::Sealed { next: one.next } });
            }
        }
        let number = self.tail_number();
        let value = Some(self.tail.encode(&self.about()));
        out.push(Change { number, value, mark: Mark::Tail { revision: self.revision } });
        out
    }

    const fn about(&self) -> About {
        About { source_id: self.source_id, target_id: self.target_id, first: self.first, complete: self.complete }
    }

    /// A change was written, at this offset of the map's topic.
    pub fn stored(&mut self, change: &Change, offset: i64) {
        match change.mark {
            Mark::Forgotten => self.forgotten.retain(|&number| number != change.number),
            Mark::Tail { revision } => self.stored_revision = revision,
            Mark::Sealed { next } => {
                let index = change.number.checked_sub(self.first).and_then(|index| usize::try_from(index).ok());
                if let Some(one) = index.and_then(|index| self.sealed.get_mut(index))
                    && one.next == next
                {
                    one.place = Place::Stored(offset);
                }
            }
        }
    }

    /// Stands in place of another whose chunks may be stored: those that this one does not write over are forgotten.
    pub(super) fn replace(&mut self, old: &Self) {
        self.forgotten = (old.first..=old.tail_number()).chain(old.forgotten.iter().copied()).collect();
        self.revision = self.revision.max(old.revision) + 1;
        self.stored_revision = 0;
    }
}

/// Reads a map back, record by record.
#[derive(Debug, Default)]
pub struct Loader {
    chunks: BTreeMap<u32, Loaded>,
}

#[derive(Debug)]
struct Loaded {
    about: About,
    since: i64,
    next: i64,
    target_end: i64,
    first: Option<Segment>,
    /// Where it is stored.
    offset: i64,
    /// Of the newest alone.
    chunk: Option<Chunk>,
}

impl Loader {
    /// Takes one record of the map's topic: a chunk's value, or `None` where it is forgotten.
    ///
    /// # Errors
    /// [`ChunkError`].
    pub fn take(&mut self, number: u32, offset: i64, value: Option<&[u8]>) -> Result<(), ChunkError> {
        let Some(value) = value else {
            self.chunks.remove(&number);
            return Ok(());
        };
        let (chunk, about) = Chunk::decode(value)?;
        for (_, older) in self.chunks.range_mut(..number) {
            older.chunk = None;
        }
        let newest = self.chunks.range(number.saturating_add(1)..).next().is_none();
        let loaded = Loaded {
            about,
            since: chunk.since,
            next: chunk.next,
            target_end: chunk.target_end(),
            first: chunk.segments.first().copied(),
            offset,
            chunk: newest.then_some(chunk),
        };
        self.chunks.insert(number, loaded);
        Ok(())
    }

    /// The map: from the newest chunk back to where chunks do not fit together any more; `None` where nothing was stored.
    #[must_use]
    pub fn finish(mut self) -> Option<OffsetMap> {
        let (number, mut newest) = self.chunks.pop_last()?;
        let about = newest.about;
        let mut map = OffsetMap::new(about.source_id, about.target_id, newest.next, newest.target_end);
        map.first = number;
        let (mut since, mut target) = (newest.since, newest.first.map_or(newest.target_end, |first| first.target));
        match (newest.chunk.take(), newest.first) {
            (Some(chunk), _) => map.tail = chunk,
            // A newer one was read before it and forgotten since: what is in the topic alone stays there.
            (None, Some(first)) => map.sealed.push_front(newest.sealed(first)),
            (None, None) => {}
        }
        while let Some((number, one)) = self.chunks.pop_last() {
            let ids = (one.about.source_id, one.about.target_id);
            let fits = ids == map.ids() && number + 1 == map.first && one.next <= since && one.target_end <= target;
            let Some(first) = one.first.filter(|_| fits) else {
                map.forgotten.push(number);
                map.forgotten.extend(std::mem::take(&mut self.chunks).into_keys());
                break;
            };
            (since, target, map.first) = (one.since, first.target, number);
            map.sealed.push_front(one.sealed(first));
        }
        map.complete = about.complete && about.first == map.first;
        map.revision = 1;
        map.stored_revision = u64::from(map.forgotten.is_empty());
        Some(map)
    }
}

impl Loaded {
    const fn sealed(&self, first: Segment) -> Sealed {
        let Self { since, next, target_end, offset, .. } = *self;
        Sealed { since, next, first, target_end, place: Place::Stored(offset) }
    }
}
