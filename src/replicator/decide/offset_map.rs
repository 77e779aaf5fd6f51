//! Where the records of a source partition lie in the target's.
//!
//! A record keeps its distance to its neighbours as long as neither side has a gap, so a run of records is one [`Segment`]: source
//! start, target start, length. Markers, aborted data, compaction and loops are gaps at the source; other writers make gaps at the
//! target. A new segment begins at a gap on either side and nowhere else.
//!
//! Segments stand in chunks of at most [`MOST_SEGMENTS`]. Chunks tile the source's offsets: each knows all of `since..next`. Only the
//! newest chunk is in memory; of the others their bounds, and where they are stored. Where nothing is known between two chunks (the
//! source lost records, or the map could not be written for a while) nothing is guessed.
//!
//! Offsets of both sides rise together: a partition keeps its order. A target that answers with an offset it gave before has lost
//! what it had there, and the map forgets it too.

mod chunk;
mod recorder;
mod stored;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;

pub use chunk::{About, Chunk, ChunkError, Key, Segment, TOPIC};
pub use recorder::{Recorder, Run, Runs, Unplaced, Written};
pub use stored::{Change, Loader};

use super::TopicId;

/// Segments of one chunk: some 1 KiB stored where each transaction is ten records long.
pub const MOST_SEGMENTS: usize = 256;

/// The map of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetMap {
    source_id: TopicId,
    target_id: TopicId,
    /// Nothing that lies before the first chunk is in the target.
    complete: bool,
    /// Number of the first chunk.
    first: u32,
    sealed: VecDeque<Sealed>,
    tail: Chunk,
    /// Rises with each change of the tail.
    revision: u64,
    stored_revision: u64,
    /// Stored chunks that count no more.
    forgotten: Vec<u32>,
}

/// A chunk that is full.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sealed {
    since: i64,
    next: i64,
    first: Segment,
    target_end: i64,
    place: Place,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// Not stored yet.
    Memory(Chunk),
    /// Stored at this offset of the map's topic.
    Stored(i64),
}

/// What an offset of one side is on the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// This: who goes on there reads exactly the records that lie at or after the offset asked for.
    At(i64),
    /// Further than was copied; this is as far as was.
    Beyond(i64),
    /// Nothing was copied yet; `beyond` where the source was not looked at as far as this.
    Empty {
        /// Whether records before this offset may still come.
        beyond: bool,
    },
    /// Not known.
    Unknown(Unknown),
    /// The stored chunk at this offset of the map's topic must be read; ask it with [`OffsetMap::look_in`].
    Stored(i64),
}

/// Why an offset is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The map began later.
    #[error("offset {asked} is older than the offset map, which begins at {since}")]
    BeforeMap {
        /// What was asked for.
        asked: i64,
        /// Where the map begins.
        since: i64,
    },
    /// It lies where the map has a hole.
    #[error("offset {asked} lies between {from} and {to}, where records went over that the offset map does not know")]
    Hole {
        /// What was asked for.
        asked: i64,
        /// Where the hole begins.
        from: i64,
        /// Where it ends.
        to: i64,
    },
}

/// Which way a chunk is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// A source offset is given, a target offset wanted.
    ToTarget,
    /// The other way.
    ToSource,
}

impl Segment {
    const fn source_end(&self) -> i64 {
        self.source + self.length
    }

    const fn target_end(&self) -> i64 {
        self.target + self.length
    }

    /// Start, end and the other side's start, seen from the side that is asked.
    const fn sides(&self, way: Way) -> (i64, i64, i64) {
        match way {
            Way::ToTarget => (self.source, self.source_end(), self.target),
            Way::ToSource => (self.target, self.target_end(), self.source),
        }
    }
}

impl OffsetMap {
    /// A map that knows nothing before `since`. `target` is the offset after the last record that was copied before, -1 where none
    /// was; then the map is complete.
    #[must_use]
    pub fn new(source_id: TopicId, target_id: TopicId, since: i64, target: i64) -> Self {
        Self {
            source_id,
            target_id,
            complete: target < 0,
            first: 0,
            sealed: VecDeque::new(),
            tail: Chunk { since, next: since, target, segments: Vec::new() },
            revision: 1,
            stored_revision: 0,
            forgotten: Vec::new(),
        }
    }

    /// Ids of the topics that it is about, the source's first.
    #[must_use]
    pub const fn ids(&self) -> (TopicId, TopicId) {
        (self.source_id, self.target_id)
    }

    /// Everything before this source offset is known, down to where the map begins.
    #[must_use]
    pub const fn next(&self) -> i64 {
        self.tail.next
    }

    /// The offset after the last copied record at the target; `None` where nothing was copied.
    #[must_use]
    pub fn target_end(&self) -> Option<i64> {
        Some(self.tail.target_end()).filter(|&end| end >= 0)
    }

    /// The newest record that was copied, where the newest chunk has it: its source and target offsets.
    #[must_use]
    pub fn newest(&self) -> Option<(i64, i64)> {
        let last = self.tail.segments.last()?;
        Some((last.source_end() - 1, last.target_end() - 1))
    }

    /// Notes records that were copied. What is known already is not noted again.
    pub fn add(&mut self, mut source: i64, mut target: i64, mut length: i64) {
        if target < self.tail.target_end() {
            self.forget_from(target);
        }
        let known = (self.tail.next - source).clamp(0, length);
        (source, target, length) = (source + known, target + known, length - known);
        if length == 0 {
            return;
        }
        self.revision += 1;
        if let Some(last) = self.tail.segments.last_mut()
            && last.source_end() == source
            && last.target_end() == target
        {
            last.length += length;
        } else {
            if self.tail.segments.len() >= MOST_SEGMENTS {
                self.seal(self.tail.next, self.tail.target_end());
            }
            self.tail.segments.push(Segment { source, target, length });
        }
        self.tail.next = source + length;
    }

    /// Everything before this source offset was looked at: what is not noted is not in the target.
    pub fn know(&mut self, next: i64) {
        if next > self.tail.next {
            self.tail.next = next;
            self.revision += 1;
        }
    }

    /// Goes on at a later source offset without knowing what lies between. `target` is as in [`OffsetMap::new`].
    pub fn go_on_at(&mut self, since: i64, target: i64) {
        if since <= self.tail.next {
            return;
        }
        self.revision += 1;
        if self.tail.segments.is_empty() {
            // What the tail knew is that nothing came; with the hole before it, that tells nobody anything.
            self.complete &= target < 0 && self.sealed.is_empty();
            (self.tail.since, self.tail.next, self.tail.target) = (since, since, target);
        } else {
            self.seal(since, target);
        }
    }

    /// Begins a new tail; the old one must not be empty.
    fn seal(&mut self, since: i64, target: i64) {
        let new = Chunk { since, next: since, target, segments: Vec::new() };
        let chunk = std::mem::replace(&mut self.tail, new);
        let Some(&first) = chunk.segments.first() else { return };
        let (since, next, target_end) = (chunk.since, chunk.next, chunk.target_end());
        self.sealed.push_back(Sealed { since, next, first, target_end, place: Place::Memory(chunk) });
    }

    /// The target has lost everything from this offset on.
    fn forget_from(&mut self, target: i64) {
        self.revision += 1;
        loop {
            while let Some(last) = self.tail.segments.last_mut() {
                if last.target < target {
                    last.length = last.length.min(target - last.target);
                    self.tail.next = last.source_end();
                    return;
                }
                self.tail.next = last.source;
                self.tail.segments.pop();
            }
            let number = self.tail_number();
            if self.sealed.back().is_none_or(|last| last.target_end <= target) {
                break;
            }
            let Some(last) = self.sealed.pop_back() else { break };
            self.forgotten.push(number);
            match last.place {
                Place::Memory(chunk) => self.tail = chunk,
                Place::Stored(_) => {
                    // Which part of it is left stands in the topic alone: it is not known any more.
                    self.complete &= !self.sealed.is_empty();
                    let end = self.sealed.back().map_or(last.first.target, |before| before.target_end);
                    self.tail = Chunk { since: last.next, next: last.next, target: end, segments: Vec::new() };
                }
            }
        }
        self.tail.target = self.tail.target.min(target);
    }

    /// Forgets chunks of which the target has no record any more, now that its log begins here.
    pub fn prune(&mut self, target_log_start: i64) {
        while self.sealed.front().is_some_and(|front| front.target_end <= target_log_start) {
            let Some(gone) = self.sealed.pop_front() else { break };
            self.forgotten.push(self.first);
            self.first += 1;
            // What was before is not in the target, but of a hole behind it some may be.
            let (since, start) = self.begins();
            self.complete = since == gone.next || start == gone.target_end;
            self.revision += 1;
        }
        if !self.complete && (0..=target_log_start).contains(&self.begins().1) {
            self.complete = true;
            self.revision += 1;
        }
    }

    /// The source offset that the oldest chunk begins at, and the target offset of its first record; without one the end of what is
    /// known of the target, -1 where nothing was copied.
    fn begins(&self) -> (i64, i64) {
        let oldest = self.sealed.front().map(|one| (one.since, one.first.target));
        let tail = || self.tail.segments.first().map_or(self.tail.target, |first| first.target);
        oldest.unwrap_or_else(|| (self.tail.since, tail()))
    }

    /// Chunks beside the newest.
    #[must_use]
    pub fn sealed_chunks(&self) -> usize {
        self.sealed.len()
    }

    fn tail_number(&self) -> u32 {
        self.first + u32::try_from(self.sealed.len()).unwrap_or(u32::MAX)
    }

    /// Source and target offset of the first record of each chunk, the oldest first.
    pub fn starts(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        let sealed = self.sealed.iter().map(|one| one.first);
        sealed.chain(self.tail.segments.first().copied()).map(|first| (first.source, first.target))
    }

    /// The target offset from which the records at or after this source offset are read.
    #[must_use]
    pub fn target_of(&self, source: i64) -> Found {
        self.look(Way::ToTarget, source)
    }

    /// The source offset from which the records at or after this target offset are read.
    #[must_use]
    pub fn source_of(&self, target: i64) -> Found {
        self.look(Way::ToSource, target)
    }

    fn look(&self, way: Way, offset: i64) -> Found {
        let starts = |since: i64, first: Option<&Segment>| match way {
            Way::ToTarget => Some(since),
            Way::ToSource => first.map(|first| first.target),
        };
        if starts(self.tail.since, self.tail.segments.first()).is_some_and(|start| start <= offset) {
            return self.look_in_tail(way, offset);
        }
        let after =
            self.sealed.partition_point(|one| starts(one.since, Some(&one.first)).is_some_and(|start| start <= offset));
        let Some(index) = after.checked_sub(1) else { return self.before(way, offset) };
        let one = &self.sealed[index];
        let end = if way == Way::ToTarget { one.next } else { one.target_end };
        if offset >= end {
            return self.between(way, offset, index);
        }
        match &one.place {
            Place::Stored(at) => Found::Stored(*at),
            Place::Memory(chunk) => self.look_in(chunk, way, offset),
        }
    }

    /// Looks in a chunk of this map that was read back.
    #[must_use]
    pub fn look_in(&self, chunk: &Chunk, way: Way, offset: i64) -> Found {
        if let Some(found) = chunk.look(way, offset) {
            return Found::At(found);
        }
        // After its last segment: the next chunk tells.
        match self.sealed.iter().position(|one| one.since == chunk.since) {
            Some(index) => self.between(way, offset, index),
            None => self.look_in_tail(way, offset),
        }
    }

    fn look_in_tail(&self, way: Way, offset: i64) -> Found {
        if let Some(found) = self.tail.look(way, offset) {
            return Found::At(found);
        }
        let (source_end, target_end) = (self.tail.next, self.tail.target_end());
        match way {
            Way::ToTarget if target_end < 0 => Found::Empty { beyond: offset > source_end },
            Way::ToTarget if offset > source_end => Found::Beyond(target_end),
            Way::ToTarget => Found::At(target_end),
            Way::ToSource if offset > target_end => Found::Beyond(source_end),
            Way::ToSource => Found::At(source_end),
        }
    }

    /// An offset after the last segment of a sealed chunk, and before the first of the next one.
    fn between(&self, way: Way, offset: i64, index: usize) -> Found {
        let one = &self.sealed[index];
        let following = self.sealed.get(index + 1);
        let since = following.map_or(self.tail.since, |next| next.since);
        let first = following.map(|next| next.first).or_else(|| self.tail.segments.first().copied());
        let Some(first) = first else {
            // Nothing came after the chunk.
            let whole = since == one.next || self.tail.target == one.target_end;
            return if whole { self.look_in_tail(way, offset) } else { hole(offset, one.next, since) };
        };
        // Nothing lies between them at the target: then nothing was copied of what lies between them at the source.
        if since == one.next || first.target == one.target_end {
            let (_, _, other) = first.sides(way);
            return Found::At(other);
        }
        hole(offset, one.next, since)
    }

    fn before(&self, way: Way, offset: i64) -> Found {
        let first = self.sealed.front().map(|one| one.first).or_else(|| self.tail.segments.first().copied());
        if !self.complete {
            let since = self.sealed.front().map_or(self.tail.since, |one| one.since);
            return Found::Unknown(Unknown::BeforeMap { asked: offset, since });
        }
        match first {
            Some(first) => Found::At(first.sides(way).2),
            None => self.look_in_tail(way, offset),
        }
    }
}

const fn hole(asked: i64, from: i64, to: i64) -> Found {
    Found::Unknown(Unknown::Hole { asked, from, to })
}
