//! The map against a list of every record, over random histories.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::replicator::decide::progress::{self, Progress};

const SOURCE: TopicId = [1; 16];
const TARGET: TopicId = [2; 16];

/// What happens to a partition.
#[derive(Debug, Clone)]
enum Step {
    /// So many records are copied.
    Copy(i64),
    /// So many offsets hold nothing that is copied: markers, aborted data, compaction, loops.
    SourceGap(i64),
    /// Somebody else writes so many records, or markers.
    TargetGap(i64),
    /// Transactions of so many records, each with a marker after it.
    Transactions(i64, i64),
    /// The map is written and, perhaps, read back by another process.
    Store { restart: bool },
    /// The target's log begins so far behind its end.
    Prune(i64),
    /// The target loses its last offsets.
    Lose(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (1..200_i64).prop_map(Step::Copy),
        3 => (1..20_i64).prop_map(Step::SourceGap),
        2 => (1..20_i64).prop_map(Step::TargetGap),
        2 => ((1..300_i64), (1..4_i64)).prop_map(|(count, size)| Step::Transactions(count, size)),
        3 => any::<bool>().prop_map(|restart| Step::Store { restart }),
        1 => (0..600_i64).prop_map(Step::Prune),
    ];
    prop::collection::vec(step, 1..40)
}

fn steps_with_losses() -> impl Strategy<Value = Vec<Step>> {
    (steps(), prop::collection::vec((0..40_usize, 1..400_i64), 0..3)).prop_map(|(mut steps, losses)| {
        for (at, lost) in losses {
            let at = at.min(steps.len());
            // What is lost is followed by something, as in life: the map learns of it by the next answer.
            steps.splice(at..at, [Step::Lose(lost), Step::Copy(1)]);
        }
        steps
    })
}

/// Every record that lies in the target, and the topic that the map is stored in.
struct World {
    map: OffsetMap,
    records: Vec<(i64, i64)>,
    source: i64,
    target: i64,
    log_start: i64,
    topic: HashMap<u32, (i64, Vec<u8>)>,
    written: i64,
    lost_stored: bool,
}

impl World {
    fn new(since: i64) -> Self {
        Self {
            map: OffsetMap::new(SOURCE, TARGET, since, -1),
            records: Vec::new(),
            source: since,
            target: 0,
            log_start: 0,
            topic: HashMap::new(),
            written: 0,
            lost_stored: false,
        }
    }

    fn copy(&mut self, count: i64) {
        self.map.add(self.source, self.target, count);
        self.records.extend((0..count).map(|n| (self.source + n, self.target + n)));
        self.source += count;
        self.target += count;
    }

    fn store(&mut self) {
        for change in self.map.changes() {
            match &change.value {
                Some(value) => drop(self.topic.insert(change.number, (self.written, value.clone()))),
                None => drop(self.topic.remove(&change.number)),
            }
            self.map.stored(&change, self.written);
            self.written += 1;
        }
        assert_eq!(self.map.changes(), []);
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Copy(count) => self.copy(count),
            Step::SourceGap(gap) => self.source += gap,
            Step::TargetGap(gap) => self.target += gap,
            Step::Transactions(count, size) => {
                for _ in 0..count {
                    self.copy(size);
                    self.source += 1;
                }
            }
            Step::Store { restart } => {
                self.map.know(self.source);
                self.store();
                if restart {
                    let mut loader = Loader::default();
                    let mut records: Vec<_> = self.topic.iter().collect();
                    records.sort_by_key(|(_, (offset, _))| *offset);
                    for (number, (offset, value)) in records {
                        loader.take(*number, *offset, Some(value)).expect("what was written can be read");
                    }
                    let read = loader.finish().expect("something was stored");
                    assert_eq!((read.next(), read.target_end()), (self.map.next(), self.map.target_end()));
                    self.map = read;
                }
            }
            Step::Prune(kept) => {
                self.log_start = self.log_start.max(self.target - kept).min(self.target);
                self.map.prune(self.log_start);
            }
            Step::Lose(lost) => {
                let end = (self.target - lost).max(self.log_start);
                self.lost_stored |= self.map.sealed.iter().any(|one| one.target_end > end);
                self.records.retain(|(_, target)| *target < end);
                self.target = end;
            }
        }
    }

    /// Asks as the shell does: a stored chunk is read from the topic.
    fn ask(&self, way: Way, offset: i64) -> Found {
        let found = if way == Way::ToTarget { self.map.target_of(offset) } else { self.map.source_of(offset) };
        let Found::Stored(at) = found else { return found };
        let (_, value) = self.topic.values().find(|(offset, _)| *offset == at).expect("the chunk is stored");
        let (chunk, _) = Chunk::decode(value).expect("what was written can be read");
        self.map.look_in(&chunk, way, offset)
    }

    /// Who goes on where the map says reads the records that lie at or after the offset, none before and none left out.
    fn check(&self) {
        let live: Vec<_> = self.records.iter().copied().filter(|(_, target)| *target >= self.log_start).collect();
        let first = live.first().map_or(0, |(source, _)| *source);
        for source in (first - 30).max(0)..self.source + 3 {
            let wanted = live.iter().find(|record| record.0 >= source);
            match self.ask(Way::ToTarget, source) {
                Found::At(target) => {
                    let start = target.max(self.log_start);
                    assert_eq!(live.iter().find(|record| record.1 >= start), wanted, "source {source} at {target}");
                    if wanted.is_some_and(|wanted| wanted.0 == source) {
                        assert_eq!(Some(target), wanted.map(|wanted| wanted.1));
                    }
                }
                Found::Beyond(target) => {
                    assert!(source > self.map.next() && wanted.is_none(), "{source} is not beyond");
                    assert_eq!(Some(target), self.map.target_end());
                }
                Found::Empty { .. } => assert!(self.records.is_empty()),
                Found::Unknown(unknown) => assert!(self.lost_stored, "{unknown}"),
                Found::Stored(_) => unreachable!("it was read"),
            }
        }
        let first = live.first().map_or(0, |(_, target)| *target);
        for target in first.saturating_sub(30).max(0)..self.target + 3 {
            let wanted = live.iter().find(|record| record.1 >= target);
            match self.ask(Way::ToSource, target) {
                Found::At(source) => {
                    let found = live.iter().find(|record| record.0 >= source);
                    // Before the target's log a source offset that is older still reads the same.
                    assert_eq!(found, wanted, "target {target} at {source}");
                }
                Found::Beyond(source) => assert!(wanted.is_none() && source == self.map.next()),
                Found::Empty { .. } => assert!(self.records.is_empty()),
                Found::Unknown(unknown) => assert!(self.lost_stored, "{unknown}"),
                Found::Stored(_) => unreachable!("it was read"),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn every_offset_translates_to_the_record_that_a_list_of_all_records_has(since in 0..1_000_i64, steps in steps()) {
        let mut world = World::new(since);
        for step in &steps {
            world.step(step);
        }
        world.map.know(world.source);
        world.check();
    }

    #[test]
    fn what_the_target_lost_is_forgotten(steps in steps_with_losses()) {
        let mut world = World::new(0);
        for step in &steps {
            world.step(step);
        }
        world.map.know(world.source);
        world.check();
    }

    #[test]
    fn a_chunk_is_read_as_it_was_written(since in 0..1_i64 << 40, target in -1..1_i64 << 40,
        gaps in prop::collection::vec((0..1_i64 << 30, 0..1_i64 << 30, 1..1_i64 << 30), 0..MOST_SEGMENTS), more in 0..100_i64) {
        let mut chunk = Chunk { since, next: since, target, segments: Vec::new() };
        let mut at = target.max(0);
        for (source_gap, target_gap, length) in gaps {
            let segment = Segment { source: chunk.next + source_gap, target: at + target_gap, length };
            chunk.next = segment.source_end();
            at = segment.target_end();
            chunk.segments.push(segment);
        }
        chunk.next += more;
        let about = About { source_id: SOURCE, target_id: TARGET, first: 7, complete: more % 2 == 0 };
        let bytes = chunk.encode(&about);
        prop_assert_eq!(Chunk::decode(&bytes), Ok((chunk.clone(), about)));
        let longer = [&bytes[..], b"later"].concat();
        prop_assert_eq!(Chunk::decode(&longer), Ok((chunk, about)));
        for end in 0..bytes.len() {
            prop_assert!(Chunk::decode(&bytes[..end]).is_err());
        }
    }

    /// Runs end anywhere, also between an append and its progress; the next one skips what the target has.
    #[test]
    fn what_a_run_left_unsaid_is_placed_by_its_sequence(
        batches in prop::collection::vec((1..50_i32, 0..4_i64, 0..3_i64, 0..8_u8), 1..60), first_sequence in 0..i32::MAX)
    {
        let mut at = Progress { source_topic_id: SOURCE, target_topic_id: TARGET, producer_id: 9, next_sequence: first_sequence, ..Progress::default() };
        let mut recorder = Recorder::new();
        recorder.begin(&at);
        let (mut source, mut target, mut sequence) = (0_i64, 0_i64, first_sequence);
        let (mut records, mut stored, mut log) = (Vec::new(), None, Vec::new());
        // Since the last progress: what the next run will skip.
        let mut unsaid: Vec<(Runs, i32)> = Vec::new();
        for (count, source_gap, target_gap, what) in batches {
            source += source_gap;
            target += target_gap;
            let half = count / 2;
            let mut runs = Runs::dense(source, half);
            // A record is missing in the middle of it: a hole that compaction left.
            runs.append(&Runs::dense(source + i64::from(half) + 1, count - half));
            let mut place = target;
            for run in runs.iter() {
                records.extend((0..run.length).map(|n| (run.start + n, place + n)));
                place += run.length;
            }
            // The answer of one is that it was a duplicate, without its offset.
            recorder.acknowledged(runs.clone(), if what == 7 { -1 } else { target }, sequence);
            log.push(Written { sequence, offset: target, count: i64::from(count) });
            unsaid.push((runs, sequence));
            source += i64::from(count) + 1;
            target += i64::from(count);
            sequence = sequence.wrapping_add(count) & i32::MAX;
            if let Some(unplaced) = recorder.unplaced() {
                let found: Vec<_> = log.iter().copied().filter(|batch| batch.offset + batch.count > unplaced.from).collect();
                recorder.place(&found);
            }
            match what {
                0..=2 => {
                    recorder.know(source);
                    at = Progress { next_offset: source, next_sequence: sequence, target_offset: target, ..at };
                    stored = Some(recorder.map().clone());
                    unsaid.clear();
                }
                // Another process, with what was stored.
                3 => {
                    recorder = Recorder::new();
                    if let Some(map) = stored.clone() {
                        recorder.remember(map);
                    }
                    recorder.begin(&at);
                    for (runs, sequence) in &unsaid {
                        recorder.skipped(runs.clone(), *sequence);
                    }
                }
                // The same process, after an append whose outcome it never learned.
                4 => {
                    let acked = Progress { next_offset: source, next_sequence: sequence, target_offset: target, ..at };
                    recorder.begin(&acked);
                }
                _ => {}
            }
        }
        if let Some(unplaced) = recorder.unplaced() {
            let found: Vec<_> = log.iter().copied().filter(|batch| batch.offset + batch.count > unplaced.from).collect();
            recorder.place(&found);
        }
        let map = recorder.map();
        for (source, target) in &records {
            prop_assert_eq!(map.target_of(*source), Found::At(*target));
            prop_assert_eq!(map.source_of(*target), Found::At(*source));
        }
    }
}

#[test]
fn a_gap_leads_to_the_next_record_and_the_end_is_never_passed() {
    let mut map = OffsetMap::new(SOURCE, TARGET, 100, -1);
    let empty = |beyond| Found::Empty { beyond };
    assert_eq!([5, 100, 101].map(|source| map.target_of(source)), [empty(false), empty(false), empty(true)]);
    assert_eq!(map.target_end(), None);
    map.add(110, 0, 10);
    // 120 is a marker.
    map.add(121, 10, 5);
    map.know(130);
    for (source, found) in [
        (5, Found::At(0)),
        (110, Found::At(0)),
        (119, Found::At(9)),
        (120, Found::At(10)),
        (121, Found::At(10)),
        (125, Found::At(14)),
        (126, Found::At(15)),
        (130, Found::At(15)),
        (131, Found::Beyond(15)),
    ] {
        assert_eq!(map.target_of(source), found, "{source}");
    }
    for (target, found) in
        [(0, Found::At(110)), (9, Found::At(119)), (10, Found::At(121)), (15, Found::At(130)), (16, Found::Beyond(130))]
    {
        assert_eq!(map.source_of(target), found, "{target}");
    }
    assert_eq!((map.newest(), map.next()), (Some((125, 14)), 130));
}

#[test]
fn a_map_that_began_late_says_so() {
    let mut map = OffsetMap::new(SOURCE, TARGET, 100, 40);
    map.add(100, 40, 5);
    assert_eq!(map.target_of(99), Found::Unknown(Unknown::BeforeMap { asked: 99, since: 100 }));
    assert_eq!((map.target_of(100), map.source_of(39)), (Found::At(40), unknown_before(39)));
    let Found::Unknown(unknown) = map.target_of(7) else { panic!("it is not known") };
    assert_eq!(unknown.to_string(), "offset 7 is older than the offset map, which begins at 100");
}

fn unknown_before(asked: i64) -> Found {
    Found::Unknown(Unknown::BeforeMap { asked, since: 100 })
}

#[test]
fn a_hole_is_guessed_only_where_nothing_can_be_in_it() {
    let mut map = OffsetMap::new(SOURCE, TARGET, 0, -1);
    map.add(0, 0, 10);
    // The source lost what lay between; the target goes on without a gap, so nothing of it was copied.
    map.go_on_at(50, 10);
    map.add(50, 10, 10);
    assert_eq!((map.target_of(9), map.target_of(10), map.target_of(30)), (Found::At(9), Found::At(10), Found::At(10)));
    // Four records of the next one went over, nobody knows which.
    map.go_on_at(100, 20);
    map.add(100, 24, 10);
    let hole = Unknown::Hole { asked: 70, from: 60, to: 100 };
    assert_eq!(
        (map.target_of(59), map.target_of(70), map.target_of(100)),
        (Found::At(19), Found::Unknown(hole), Found::At(24))
    );
    assert_eq!(map.source_of(22), Found::Unknown(Unknown::Hole { asked: 22, from: 60, to: 100 }));
    assert_eq!(
        hole.to_string(),
        "offset 70 lies between 60 and 100, where records went over that the offset map does not know"
    );
}

#[test]
fn another_topic_of_the_same_name_begins_a_new_map_and_forgets_the_old_chunks() {
    let at = Progress { source_topic_id: SOURCE, target_topic_id: TARGET, producer_id: 1, ..Progress::default() };
    let mut recorder = Recorder::new();
    recorder.begin(&at);
    for n in 0..600 {
        recorder.acknowledged(Runs::dense(i64::from(n) * 2, 1), i64::from(n), n);
    }
    let changes = recorder.map().changes();
    assert_eq!(changes.iter().map(|one| one.number).collect::<Vec<_>>(), [0, 1, 2]);
    for (offset, change) in changes.iter().enumerate() {
        recorder.map_mut().stored(change, offset as i64);
    }
    recorder.begin(&Progress { target_topic_id: [3; 16], ..at });
    let changes: Vec<_> = recorder.map().changes().iter().map(|one| (one.number, one.value.is_some())).collect();
    assert_eq!(changes, [(1, false), (2, false), (0, true)]);
    assert_eq!(recorder.map().target_of(0), Found::Empty { beyond: false });
}

#[test]
fn a_batch_that_nobody_told_of_leaves_a_hole_and_no_wrong_answer() {
    let at = Progress { source_topic_id: SOURCE, target_topic_id: TARGET, producer_id: 1, ..Progress::default() };
    let mut recorder = Recorder::new();
    recorder.begin(&at);
    recorder.acknowledged(Runs::dense(0, 10), 0, 0);
    recorder.acknowledged(Runs::dense(20, 10), 20, 20);
    let map = recorder.map();
    assert_eq!(map.target_of(12), Found::Unknown(Unknown::Hole { asked: 12, from: 10, to: 20 }));
    assert_eq!((map.target_of(9), map.target_of(20)), (Found::At(9), Found::At(20)));
}

const GOLDEN: &str = "01 01 01 01010101010101010101010101010101 02020202020202020202020202020202 \
    03 64 1e 00 02 0a 00 0a 01 00 05";

fn golden() -> Vec<u8> {
    let digits: Vec<u8> = GOLDEN.bytes().filter(u8::is_ascii_hexdigit).collect();
    let digit = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).expect("ascii"), 16).expect("hex");
    digits.chunks(2).map(digit).collect()
}

#[test]
fn the_format_is_what_it_was() {
    let segments = vec![Segment { source: 110, target: 0, length: 10 }, Segment { source: 121, target: 10, length: 5 }];
    let chunk = Chunk { since: 100, next: 130, target: -1, segments };
    let about = About { source_id: SOURCE, target_id: TARGET, first: 3, complete: true };
    assert_eq!(chunk.encode(&about), golden());
    assert_eq!(Chunk::decode(&golden()), Ok((chunk, about)));
    let of = progress::Key { flow: "f".into(), cluster: "orange".into(), topic: "t.1".into(), partition: 4 };
    let key = Key { of, number: 17 };
    assert_eq!(key.encode(), b"f/orange/t.1/4/17");
    assert_eq!(Key::decode(b"f/orange/t.1/4/17"), Ok(key));
}

#[test]
fn hostile_bytes_are_refused_by_name() {
    let mut newer = golden();
    (newer[0], newer[1]) = (9, 9);
    assert_eq!(
        Chunk::decode(&newer).expect_err("newer").to_string(),
        "offset map record of version 9 can be read from version 9 on, this linkspan has 1"
    );
    let head = golden()[..35].to_vec();
    let with = |rest: &[u8]| Chunk::decode(&[&head[..], rest].concat()).map(|_| ()).expect_err("refused").to_string();
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f];
    assert_eq!(
        with(&[0, 0, 0, 0, 0x81, 2]),
        "offset map record of 41 bytes: it has more segments than a chunk may have"
    );
    assert_eq!(with(&[0, 0, 0, 0, 0x80, 2]), "offset map record of 41 bytes: it ends before its segments do");
    assert_eq!(with(&[&[0][..], &huge, &[1]].concat()), "offset map record of 46 bytes: an offset is beyond 2^63");
    assert_eq!(with(&[0, 0, 9, 0, 1, 0, 0, 0]), "offset map record of 43 bytes: a segment has no record");
    assert_eq!(with(&[0, 0, 1, 0, 1, 0, 0, 2]), "offset map record of 43 bytes: its last segment lies beyond its end");
    assert_eq!(with(&[0x80; 9]), "offset map record of 44 bytes: a number is too long or does not end");
    for key in [&b"f/orange/t/0"[..], b"f/orange/t/0/x", b"f/orange/t/-1/0", b"", b"/", &[0xff, b'/', b'1']] {
        assert!(Key::decode(key).is_err(), "{key:?}");
    }
}

/// Found by the property above: the chunks before a hole that a loss had made were pruned, and what the hole might hold was then
/// taken for nothing.
#[test]
fn a_hole_outlives_the_chunks_before_it() {
    let mut world = World::new(0);
    let steps = [
        Step::Copy(1),
        Step::Store { restart: false },
        Step::Copy(3),
        Step::Transactions(222, 1),
        Step::Transactions(134, 2),
        Step::Transactions(157, 1),
        Step::Store { restart: false },
        Step::Copy(116),
        Step::Lose(118),
        Step::Copy(1),
        Step::Prune(2),
    ];
    for step in &steps {
        world.step(step);
    }
    world.map.know(world.source);
    world.check();
}
