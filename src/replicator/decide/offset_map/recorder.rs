//! What a lane tells its map, and what waits until its place at the target is known.

use std::collections::VecDeque;

use super::OffsetMap;
use crate::replicator::decide::TopicId;
use crate::replicator::decide::progress::Progress;

/// So many records that follow each other without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Offset of the first.
    pub start: i64,
    /// How many, at least one.
    pub length: i64,
}

/// Offsets of the records of a batch, in their order: most have one run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    first: Option<Run>,
    more: Vec<Run>,
}

impl Runs {
    /// Records without a gap between them.
    #[must_use]
    pub fn dense(start: i64, count: i32) -> Self {
        let length = i64::from(count);
        Self { first: (length > 0).then_some(Run { start, length }), more: Vec::new() }
    }

    /// Records at these offsets, which rise.
    #[must_use]
    pub fn of(offsets: impl IntoIterator<Item = i64>) -> Self {
        let mut runs = Self::default();
        for start in offsets {
            runs.push(Run { start, length: 1 });
        }
        runs
    }

    /// Records that follow.
    pub fn push(&mut self, run: Run) {
        match self.more.last_mut().or(self.first.as_mut()) {
            None => self.first = Some(run),
            Some(last) if last.start + last.length == run.start => last.length += run.length,
            Some(_) => self.more.push(run),
        }
    }

    /// All runs of records that follow.
    pub fn append(&mut self, other: &Self) {
        other.iter().for_each(|run| self.push(run));
    }

    /// The runs.
    pub fn iter(&self) -> impl Iterator<Item = Run> {
        self.first.iter().chain(&self.more).copied()
    }

    /// Records in all.
    #[must_use]
    pub fn count(&self) -> i64 {
        self.iter().map(|run| run.length).sum()
    }
}

/// A map, and what is known to be in the target without knowing where.
///
/// What a run of the program had acknowledged after its last progress is skipped by the next, which knows how many records there are
/// and which, and not where. Their place is found by their sequences ([`Recorder::place`]); until then the map ends before them.
#[derive(Debug, Clone)]
pub struct Recorder {
    map: OffsetMap,
    /// The map is of some topic.
    begun: bool,
    waiting: VecDeque<Waiting>,
    producer_id: i64,
    /// Sequence of the next record.
    sequence: i32,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Waiting {
    runs: Runs,
    sequence: i32,
    target: Option<i64>,
}

/// Records whose place is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unplaced {
    /// Who wrote them.
    pub producer_id: i64,
    /// The first of them.
    pub sequence: i32,
    /// How many there are.
    pub count: i64,
    /// They lie at or after this target offset.
    pub from: i64,
}

impl Unplaced {
    /// Whether a batch of the producer has any of them.
    #[must_use]
    pub const fn is_in(&self, batch: &Written) -> bool {
        distance(self.sequence, batch.sequence) < self.count || distance(batch.sequence, self.sequence) < batch.count
    }
}

/// A batch that lies in the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// Its base sequence.
    pub sequence: i32,
    /// Its base offset.
    pub offset: i64,
    /// Its records.
    pub count: i64,
}

/// Batches that wait for a place at once; beyond it the map has a hole.
const MOST_WAITING: usize = 10_000;

impl Default for Recorder {
    fn default() -> Self {
        Self::new()
    }
}

impl Recorder {
    /// A recorder of a partition that was not adopted yet.
    #[must_use]
    pub fn new() -> Self {
        let map = OffsetMap::new(TopicId::default(), TopicId::default(), 0, -1);
        Self { map, begun: false, waiting: VecDeque::new(), producer_id: -1, sequence: 0 }
    }

    /// Takes what was stored of its map.
    pub fn remember(&mut self, map: OffsetMap) {
        (self.map, self.begun) = (map, true);
    }

    /// The map, as far as it is known.
    #[must_use]
    pub const fn map(&self) -> &OffsetMap {
        &self.map
    }

    /// The map, to store it and to forget what is gone. What it says of offsets is the recorder's alone to change.
    pub const fn map_mut(&mut self) -> &mut OffsetMap {
        &mut self.map
    }

    /// Copying goes on from here.
    pub fn begin(&mut self, at: &Progress) {
        // The same place in the same sequence: no record went over since the last call.
        let same = self.producer_id >= 0 && (self.producer_id, self.sequence) == (at.producer_id, at.next_sequence);
        (self.producer_id, self.sequence) = (at.producer_id, at.next_sequence);
        if !self.begun || self.map.ids() != (at.source_topic_id, at.target_topic_id) {
            self.waiting.clear();
            let new = OffsetMap::new(at.source_topic_id, at.target_topic_id, at.next_offset, at.target_offset);
            let old = std::mem::replace(&mut self.map, new);
            if std::mem::replace(&mut self.begun, true) {
                self.map.replace(&old);
            }
        } else if same {
            self.know(at.next_offset);
        } else {
            self.waiting.clear();
            self.map.go_on_at(at.next_offset, at.target_offset);
        }
    }

    /// Everything before this source offset was looked at.
    pub fn know(&mut self, next: i64) {
        if self.waiting.is_empty() {
            self.map.know(next);
        }
    }

    /// The target has acknowledged records: where the first of them lies (-1 where it did not say), and their first sequence.
    pub fn acknowledged(&mut self, runs: Runs, target: i64, sequence: i32) {
        self.note(Waiting { runs, sequence, target: Some(target).filter(|&target| target >= 0) });
    }

    /// Records that the target has from before.
    pub fn skipped(&mut self, runs: Runs, sequence: i32) {
        self.note(Waiting { runs, sequence, target: None });
    }

    fn note(&mut self, new: Waiting) {
        let Some(first) = new.runs.iter().next() else { return };
        if (self.producer_id >= 0 && new.sequence != self.sequence) || self.waiting.len() >= MOST_WAITING {
            // Records went over that nobody told of.
            self.waiting.clear();
            self.map.go_on_at(first.start, new.target.unwrap_or_else(|| self.map.target_end().unwrap_or(-1)));
        }
        self.sequence = later(new.sequence, new.runs.count());
        let known = new.runs.iter().last().is_some_and(|last| last.start + last.length <= self.map.next());
        match new.target {
            Some(target) if self.waiting.is_empty() => self.add(&new.runs, target),
            None if known => {}
            _ => self.waiting.push_back(new),
        }
    }

    fn add(&mut self, runs: &Runs, mut target: i64) {
        for run in runs.iter() {
            self.map.add(run.start, target, run.length);
            target += run.length;
        }
    }

    /// What is to be looked for in the target, if anything is.
    #[must_use]
    pub fn unplaced(&self) -> Option<Unplaced> {
        let first = self.waiting.iter().find(|one| one.target.is_none())?;
        let missing = self.waiting.iter().filter(|one| one.target.is_none());
        let count = missing.map(|one| one.runs.count()).sum();
        let from = self.map.target_end().unwrap_or(0);
        Some(Unplaced { producer_id: self.producer_id, sequence: first.sequence, count, from })
    }

    /// Tells of all batches of the producer that lie in the target from [`Unplaced::from`] on. Records that are in none of them are
    /// not in the target any more.
    pub fn place(&mut self, written: &[Written]) {
        while let Some(one) = self.waiting.pop_front() {
            if let Some(target) = one.target {
                self.add(&one.runs, target);
                continue;
            }
            let mut sequence = one.sequence;
            for run in one.runs.iter() {
                self.place_run(run, sequence, written);
                sequence = later(sequence, run.length);
            }
        }
    }

    fn place_run(&mut self, run: Run, sequence: i32, written: &[Written]) {
        let mut done = 0;
        while done < run.length {
            let at = later(sequence, done);
            let inside = |batch: &Written| distance(batch.sequence, at);
            if let Some(batch) = written.iter().find(|batch| inside(batch) < batch.count) {
                let length = (batch.count - inside(batch)).min(run.length - done);
                self.map.add(run.start + done, batch.offset + inside(batch), length);
                done += length;
            } else {
                let next = written.iter().map(|batch| distance(at, batch.sequence)).min();
                done += next.unwrap_or(run.length).max(1);
            }
        }
    }

    /// Nobody can tell where they lie: the map has a hole there, and goes on behind it.
    pub fn give_up(&mut self) {
        let waiting = std::mem::take(&mut self.waiting);
        for one in waiting {
            let Some(target) = one.target else { continue };
            if let Some(first) = one.runs.iter().next() {
                self.map.go_on_at(first.start, target);
            }
            self.add(&one.runs, target);
        }
    }
}

/// The sequence `count` records later.
const fn later(sequence: i32, count: i64) -> i32 {
    ((sequence as i64).wrapping_add(count) & i32::MAX as i64) as i32
}

/// How many records `to` comes after `from`.
const fn distance(from: i32, to: i32) -> i64 {
    (to.wrapping_sub(from) & i32::MAX) as i64
}
