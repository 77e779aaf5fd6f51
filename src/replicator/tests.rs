//! What a flow promises, between two clusters in memory, in virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::decide::offset_map::{self, Found, Loader, OffsetMap, Way};
use super::decide::position::Event;
use super::decide::progress::TOPIC;
use super::fake::Fake;
use super::*;
use crate::client::{AbortedTransaction, Acl, AclOperation, AclPattern, KafkaError};
use crate::config::{Deletes, Delivery, FlowConfig, GroupRewinds, OnGap, OnRecreate, Policies};
use crate::kafka::batch::{Codec, HEADER_LEN, Limits, Record, decode};
use crate::lifecycle::Drain;

mod both;
mod once;
mod operate;

pub(super) fn config() -> FlowConfig {
    FlowConfig {
        name: "f".to_owned(),
        topics: vec!["t.*".to_owned()],
        exclude: vec![],
        rename: "${topic}.copy".to_owned(),
        groups: vec![],
        groups_exclude: vec![],
        group_rewinds: GroupRewinds::Follow,
        mm2_topics: false,
        replication_factor: None,
        read_committed: true,
        delivery: Delivery::ExactlyOnce,
        sync_configs: true,
        exclude_configs: vec![],
        pin_configs: vec![],
        sync_acls: false,
        principals: BTreeMap::new(),
        policies: Policies::default(),
        refresh: Duration::from_secs(5),
    }
}

pub(super) fn clusters() -> (Arc<Fake>, Arc<Fake>) {
    (Fake::new("orange", 1), Fake::new("grape", 2))
}

fn flow(source: &Arc<Fake>, target: &Arc<Fake>) -> Flow {
    flow_within(source, target, MEMORY)
}

fn flow_within(source: &Arc<Fake>, target: &Arc<Fake>, memory: usize) -> Flow {
    let (source, target) = (Arc::clone(source), Arc::clone(target));
    Flow::between(&config(), source, target, memory).expect("a flow")
}

fn numbers(range: std::ops::Range<i64>) -> Vec<String> {
    range.map(|n| n.to_string()).collect()
}

/// Waits until something is so. After five minutes of virtual time it fails with what is `seen` then.
async fn until<T: std::fmt::Debug>(mut so: impl FnMut() -> bool, seen: impl Fn() -> T) {
    let mut ticks = 0;
    while !so() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        ticks += 1;
        assert!(ticks < 15_000, "not within five minutes: {:#?}", seen());
    }
}

/// Runs a flow until its status is as wanted, then drains it.
pub(super) async fn run_until(flow: Flow, mut done: impl FnMut(&FlowStatus) -> bool) -> FlowStatus {
    let (handle, drain) = (flow.handle(), Drain::new());
    drain.spawn(flow.run(drain.clone()));
    until(|| done(&handle.status()), || handle.status()).await;
    assert!(drain.drain(Duration::from_secs(60)).await, "stopped in time");
    handle.status()
}

fn caught_up(records: u64) -> impl Fn(&FlowStatus) -> bool {
    move |status| {
        let active = |topic: &TopicStatus| topic.state == TopicState::Active && topic.partitions > 0;
        status.records >= records && status.lag_records == 0 && status.topics.iter().all(active)
    }
}

#[tokio::test(start_paused = true)]
async fn records_arrive_as_they_are_in_order_and_under_the_same_offsets() {
    let (source, target) = clusters();
    source.create("t1", 3);
    source.create("other", 1);
    for (partition, codec) in [Codec::Gzip, Codec::Lz4, Codec::Zstd].into_iter().enumerate() {
        source.fill("t1", partition, 0..1_000, 200, codec);
    }
    let status = run_until(flow(&source, &target), caught_up(3_000)).await;
    for partition in 0..3 {
        assert_eq!(target.values("t1.copy", partition), numbers(0..1_000));
        let (mut source, mut target) = (source.state(), target.state());
        let sent = source.log("t1", partition).batches.iter();
        for (sent, got) in sent.zip(&target.log("t1.copy", partition).batches) {
            assert_eq!(sent.payload(), got.payload());
            assert_eq!(sent.offset(), got.offset());
        }
    }
    assert_eq!((status.records, status.lag_records, status.rewritten_batches), (3_000, 0, 0));
    assert_eq!(status.state, FlowState::Stopped);
    let topics: Vec<_> = status.topics.iter().map(|topic| (&*topic.source, &*topic.target, topic.state)).collect();
    assert_eq!(topics, [("t1", "t1.copy", TopicState::Active)]);
    assert!(!target.state().topics.contains_key("other.copy"));
    assert_eq!(target.state().topics[TOPIC].configs["cleanup.policy"], "compact");
    serde_json::to_string(&status).expect("a status is JSON");
}

#[tokio::test(start_paused = true)]
async fn a_second_run_goes_on_where_the_first_ended() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    run_until(flow(&source, &target), caught_up(100)).await;
    let requests = target.state().produce_requests;
    source.fill("t1", 0, 100..110, 10, Codec::None);
    let status = run_until(flow(&source, &target), caught_up(10)).await;
    assert_eq!(target.values("t1.copy", 0), numbers(0..110));
    assert_eq!(status.records, 10);
    assert!(target.state().produce_requests - requests < 10);
}

/// Kills the flow again and again while requests fail on both sides and leaders move; then lets it finish.
async fn torture(seed: u64, tells_producers: bool) -> (Arc<Fake>, Arc<Fake>) {
    let (source, target) = (Fake::new("orange", seed * 77 + 1), Fake::new("grape", seed * 131 + 5));
    source.create("t1", 2);
    source.create("t2", 1);
    // Every other seed with batches that pass, the others with tiny ones that are merged.
    let large = seed.is_multiple_of(2);
    source.state().key_bytes = if large { 1_500 } else { 0 };
    for (topic, partition) in [("t1", 0), ("t1", 1), ("t2", 0)] {
        source.fill(topic, partition, 0..200, 7 + seed as i64 * 11 % 90, Codec::None);
    }
    target.state().tells_producers = tells_producers;
    (source.state().faults, target.state().faults) = (30, 100);
    let mut midway = 0;
    for kill in 0..12_u64 {
        let new = 200 + kill as i64 * 150;
        for (topic, partition) in [("t1", 0), ("t1", 1), ("t2", 0)] {
            source.fill(topic, partition, new..new + 150, 3 + seed as i64 * 11 % 90, Codec::None);
        }
        // A marker: from here on source and target differ by one more.
        source.append("t1", 0, &[Record::new(0, 0, None, Some(b""), &[])], |bytes| bytes[22] |= 0x20);
        let run = tokio::spawn(flow(&source, &target).run(Drain::new()));
        // Killed after some records of this round, whatever phase that is.
        let end = |fake: &Fake| fake.state().topics.get("t1.copy").map_or(0, |topic| topic.partitions[0].end);
        let enough = end(&target) + ((seed * 37 + kill * 53) % 140) as i64;
        for _ in 0..2_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if end(&target) > enough {
                break;
            }
        }
        run.abort();
        assert!(run.await.is_err_and(|error| error.is_cancelled()));
        if target.state().topics.contains_key("t1.copy") {
            midway += u32::from(end(&target) < source.state().log("t1", 0).end);
            target.lead("t1.copy", kill as usize % 2, 1 + kill as i32 % 3);
        }
        source.lead("t1", kill as usize % 2, 1 + (kill as i32 + 1) % 3);
    }
    assert!(!large || midway >= 3, "{midway} kills were in the middle of a copy");
    (source.state().faults, target.state().faults) = (0, 0);
    let mut settled = 0;
    run_until(flow(&source, &target), |status| {
        // Records of an earlier run are placed within a second.
        settled += u32::from(status.topics.len() == 2 && caught_up(0)(status));
        settled > 60
    })
    .await;
    (source, target)
}

/// Offsets and values of the records of a partition, markers left out.
pub(super) fn placed(fake: &Fake, topic: &str, partition: usize) -> Vec<(i64, Vec<u8>)> {
    let mut state = fake.state();
    let batches = state.log(topic, partition).batches.iter();
    let data = batches.filter(|batch| !batch.header().is_some_and(|header| header.is_control()));
    let records = data.flat_map(|batch| decode(batch, Limits::default()).expect("stored batches are whole"));
    records.map(|record| (record.offset, record.value().unwrap_or_default().to_vec())).collect()
}

/// The offset map of a partition as it stands in its topic.
fn stored_map(target: &Fake, topic: &str, partition: i32) -> OffsetMap {
    let mut loader = Loader::default();
    for batch in &target.state().log(offset_map::TOPIC, 0).batches {
        for record in decode(batch, Limits::default()).expect("stored batches are whole") {
            let key = offset_map::Key::decode(&record.key().expect("a key")).expect("a key of a map");
            if (&*key.of.topic, key.of.partition) == (topic, partition) {
                loader.take(key.number, record.offset, record.value().as_deref()).expect("a chunk");
            }
        }
    }
    loader.finish().expect("a map")
}

/// What a chunk says that only the topic has, where the map names one.
fn read_back(target: &Fake, map: &OffsetMap, way: Way, offset: i64, found: Found) -> Found {
    let Found::Stored(at) = found else { return found };
    let mut state = target.state();
    let batches = state.log(offset_map::TOPIC, 0).batches.iter();
    let mut records = batches.flat_map(|batch| decode(batch, Limits::default()).expect("stored batches are whole"));
    let value = records.find(|record| record.offset == at).and_then(|record| record.value()).expect("a chunk");
    map.look_in(&offset_map::Chunk::decode(&value).expect("a chunk").0, way, offset)
}

/// The stored map leads from each record of the source to its first copy, and back.
fn assert_mapped(source: &Fake, target: &Fake, topic: &str, partition: i32) {
    let map = stored_map(target, topic, partition);
    let copies = placed(target, &format!("{topic}.copy"), partition as usize);
    for (offset, value) in placed(source, topic, partition as usize) {
        let copy = copies.iter().find(|copy| copy.1 == value).expect("it was copied").0;
        let found = read_back(target, &map, Way::ToTarget, offset, map.target_of(offset));
        assert_eq!(found, Found::At(copy), "{topic}-{partition}, offset {offset}");
        let found = read_back(target, &map, Way::ToSource, copy, map.source_of(copy));
        assert_eq!(found, Found::At(offset), "{topic}-{partition}, copy {copy}");
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_repeated_or_reordered_by_kills_faults_and_leader_moves() {
    for seed in 0..4 {
        let (source, target) = torture(seed, true).await;
        for (topic, partition) in [("t1", 0), ("t1", 1), ("t2", 0)] {
            let copy = format!("{topic}.copy");
            assert_eq!(target.values(&copy, partition), numbers(0..2_000), "{topic} {partition}, seed {seed}");
            assert_mapped(&source, &target, topic, partition as i32);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn where_brokers_do_not_tell_of_producers_the_log_does() {
    for seed in 0..2 {
        let (_, target) = torture(seed, false).await;
        for (topic, partition) in [("t1.copy", 0), ("t1.copy", 1), ("t2.copy", 0)] {
            assert_eq!(target.values(topic, partition), numbers(0..2_000), "{topic} {partition}, seed {seed}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_append_whose_answer_was_lost_is_stored_once() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..5_000, 5, Codec::None);
    target.state().faults = 400;
    run_until(flow(&source, &target), caught_up(5_000)).await;
    assert_eq!(target.values("t1.copy", 0), numbers(0..5_000));
}

#[tokio::test(start_paused = true)]
async fn leaders_that_move_are_followed() {
    let (source, target) = clusters();
    source.create("t1", 2);
    source.fill("t1", 0, 0..500, 5, Codec::None);
    source.fill("t1", 1, 0..500, 5, Codec::None);
    let mut moves = 0;
    run_until(flow(&source, &target), |status| {
        if status.records > 0 && moves < 20 {
            moves += 1;
            source.lead("t1", 0, moves % 3 + 1);
            target.lead("t1.copy", 1, moves % 3 + 1);
        }
        moves == 20 && caught_up(1_000)(status)
    })
    .await;
    for partition in 0..2 {
        assert_eq!(target.values("t1.copy", partition), numbers(0..500));
    }
}

#[tokio::test(start_paused = true)]
async fn what_retention_took_is_told_and_the_rest_is_copied() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    run_until(flow(&source, &target), caught_up(100)).await;
    source.fill("t1", 0, 100..200, 10, Codec::None);
    source.state().log("t1", 0).delete_before(150);
    let status = run_until(flow(&source, &target), caught_up(50)).await;
    let events: Vec<_> = status.events.iter().map(|event| (&*event.topic, event.partition, event.what)).collect();
    assert_eq!(events, [("t1", 0, Happened::Source(Event::Gap { from: 100, to: 150 }))]);
    let expected: Vec<_> = numbers(0..100).into_iter().chain(numbers(150..200)).collect();
    assert_eq!(target.values("t1.copy", 0), expected);
    let json = serde_json::to_value(&status.events[0]).expect("JSON");
    assert_eq!((&json["event"], &json["from"], &json["to"]), (&"gap".into(), &100.into(), &150.into()));
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_opens_while_copying_is_told_too() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    target.state().down = true;
    let mut opened = false;
    let status = run_until(flow(&source, &target), |status| {
        target.state().down = false;
        if status.records == 100 && !opened {
            opened = true;
            source.fill("t1", 0, 100..200, 10, Codec::None);
            source.state().log("t1", 0).delete_before(160);
        }
        opened && caught_up(140)(status)
    })
    .await;
    assert_eq!(status.events.len(), 1, "{:?}", status.events);
    assert_eq!(status.events[0].what, Happened::Source(Event::Gap { from: 100, to: 160 }));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_lost_records_is_told() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    run_until(flow(&source, &target), caught_up(100)).await;
    source.state().log("t1", 0).batches.truncate(8);
    source.state().log("t1", 0).end = 80;
    let status = run_until(flow(&source, &target), |status| !status.events.is_empty()).await;
    assert_eq!(status.events[0].what, Happened::Source(Event::Truncated { expected: 100, end: 80 }));
}

#[tokio::test(start_paused = true)]
async fn a_topic_created_again_stops_until_its_copy_is_deleted() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    run_until(flow(&source, &target), caught_up(100)).await;
    source.create("t1", 1);
    source.fill("t1", 0, 500..550, 10, Codec::None);
    let status = run_until(flow(&source, &target), |status| {
        status.topics.first().is_some_and(|topic| topic.state == TopicState::Failed)
    })
    .await;
    let reason = status.topics[0].reason.as_ref().expect("a reason");
    assert_eq!(reason.code, TroubleCode::SourceRecreated);
    assert_eq!(target.values("t1.copy", 0), numbers(0..100));
    target.state().topics.remove("t1.copy");
    run_until(flow(&source, &target), caught_up(50)).await;
    assert_eq!(target.values("t1.copy", 0), numbers(500..550));
}

#[tokio::test(start_paused = true)]
async fn a_copy_created_again_is_filled_from_the_beginning() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    run_until(flow(&source, &target), caught_up(100)).await;
    target.create("t1.copy", 1);
    let status = run_until(flow(&source, &target), caught_up(100)).await;
    assert_eq!(status.events[0].what, Happened::Target(TargetEvent::TargetRecreated));
    assert_eq!(target.values("t1.copy", 0), numbers(0..100));
}

#[tokio::test(start_paused = true)]
async fn new_topics_partitions_and_configs_follow() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..10, 10, Codec::None);
    let mut step = 0;
    run_until(flow(&source, &target), |status| {
        if step == 0 && status.records == 10 {
            step = 1;
            source.create("t2", 2);
            source.fill("t2", 1, 0..20, 10, Codec::None);
            let mut state = source.state();
            let topic = state.topics.get_mut("t1").expect("t1");
            topic.configs.insert("retention.ms".to_owned(), "7".to_owned());
            topic.partitions.push(fake::Log { leader: 2, ..Default::default() });
            drop(state);
            source.fill("t1", 1, 0..30, 10, Codec::None);
        }
        let followed = target.state().topics.get("t1.copy").is_some_and(|t| t.configs.contains_key("retention.ms"));
        followed && caught_up(60)(status)
    })
    .await;
    assert_eq!(target.values("t2.copy", 1), numbers(0..20));
    assert_eq!(target.values("t1.copy", 1), numbers(0..30));
}

#[tokio::test(start_paused = true)]
async fn aborted_data_and_markers_stay_behind() {
    let (source, target) = clusters();
    source.create("t1", 1);
    let record = |value: &str| [Record::new(0, 5, None, Some(value.as_bytes()), &[])];
    let transactional = |flags: u8| {
        move |bytes: &mut Vec<u8>| {
            bytes[22] |= flags;
            bytes[43..51].copy_from_slice(&9_i64.to_be_bytes());
        }
    };
    source.append("t1", 0, &record("committed"), transactional(0x10));
    source.append("t1", 0, &record("marker"), transactional(0x30));
    source.append("t1", 0, &record("aborted"), transactional(0x10));
    source.append("t1", 0, &record("plain"), |_| {});
    source.append("t1", 0, &record("marker"), transactional(0x30));
    source.append("t1", 0, &record("after"), transactional(0x10));
    source.append("t1", 0, &record("marker"), transactional(0x30));
    source.state().log("t1", 0).aborted.push(AbortedTransaction { producer_id: 9, first_offset: 2 });
    let status = run_until(flow(&source, &target), caught_up(3)).await;
    assert_eq!(target.values("t1.copy", 0), ["committed", "plain", "after"]);
    assert_eq!((status.records, status.lag_records), (3, 0));
}

#[tokio::test(start_paused = true)]
async fn holes_and_sizes_are_written_anew() {
    let (source, target) = clusters();
    source.create("t1", 1);
    let records: Vec<_> = (0..300).map(|n| Record::new(n, 5, None, Some(n.to_string().as_bytes()), &[])).collect();
    // A header that promises ten offsets more than there are records, as after compaction.
    source.append("t1", 0, &records, |bytes| bytes[23..27].copy_from_slice(&309_i32.to_be_bytes()));
    source.state().topics.get_mut("t1").expect("t1").configs.insert("max.message.bytes".into(), "1000".into());
    let status = run_until(flow(&source, &target), caught_up(300)).await;
    assert_eq!(target.values("t1.copy", 0), numbers(0..300));
    assert_eq!(target.state().log("t1.copy", 0).end, 300);
    assert!(status.rewritten_batches >= 3, "{}", status.rewritten_batches);
}

#[tokio::test(start_paused = true)]
async fn a_limit_that_configs_did_not_tell_is_learned_from_the_refusal() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..400, 100, Codec::None);
    target.state().next_errors = vec![KafkaError::MESSAGE_TOO_LARGE; 2];
    run_until(flow(&source, &target), caught_up(400)).await;
    assert_eq!(target.values("t1.copy", 0), numbers(0..400));
}

#[tokio::test(start_paused = true)]
async fn a_refused_batch_names_its_reason_and_passes_once_it_may() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..10, 10, Codec::None);
    target.state().next_errors = vec![KafkaError::TOPIC_AUTHORIZATION_FAILED];
    let mut seen = None;
    run_until(flow(&source, &target), |status| {
        let failed = status.topics.first().filter(|topic| topic.state == TopicState::Failed);
        seen = seen.take().or_else(|| failed.and_then(|topic| topic.reason.clone()));
        caught_up(10)(status)
    })
    .await;
    let seen = seen.expect("it failed");
    assert_eq!(seen.code, TroubleCode::TargetAuthorization);
    assert_eq!(seen.text, "partition 0: the target answered TOPIC_AUTHORIZATION_FAILED (29)");
    assert_eq!(target.values("t1.copy", 0), numbers(0..10));
}

#[tokio::test(start_paused = true)]
async fn a_record_that_the_target_refuses_is_named_with_its_offset() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..30, 10, Codec::None);
    target.state().next_errors = vec![KafkaError::from_code(32).expect("INVALID_TIMESTAMP")];
    let mut seen = None;
    run_until(flow(&source, &target), |status| {
        let failed = status.topics.first().filter(|topic| topic.state == TopicState::Failed);
        seen = seen.take().or_else(|| failed.and_then(|topic| topic.reason.clone()));
        caught_up(30)(status)
    })
    .await;
    let seen = seen.expect("it failed");
    assert_eq!(seen.code, TroubleCode::Refused);
    assert!(
        seen.text.starts_with("partition 0, source offset 0 or next to it: the target answered INVALID_TIMESTAMP"),
        "{}",
        seen.text
    );
}

#[tokio::test(start_paused = true)]
async fn clusters_that_cannot_be_used_are_named_and_tried_for_ever() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..10, 10, Codec::None);
    source.state().locked = true;
    let (mut ticks, mut error) = (0, None);
    run_until(flow(&source, &target), |status| {
        ticks += 1;
        if ticks == 10_000 {
            assert_eq!(status.state, FlowState::Paused);
            error = status.last_error.clone();
            source.state().locked = false;
        }
        caught_up(10)(status)
    })
    .await;
    let error = error.expect("an error").text;
    assert!(error.starts_with("authentication: cluster orange: b1:9092 did not accept"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn tiny_batches_are_merged() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..3_000, 1, Codec::Lz4);
    run_until(flow(&source, &target), caught_up(3_000)).await;
    assert_eq!(target.values("t1.copy", 0), numbers(0..3_000));
    let batches = target.state().log("t1.copy", 0).batches.len();
    assert!(batches < 100, "{batches} batches");
}

#[tokio::test(start_paused = true)]
async fn memory_is_bounded() {
    let (source, target) = clusters();
    source.create("t1", 1);
    let value = vec![7; 300_000];
    for n in 0..100 {
        source.append("t1", 0, &[Record::new(n, 5, None, Some(&value), &[])], |_| {});
    }
    run_until(flow_within(&source, &target, 4 << 20), caught_up(100)).await;
    assert_eq!(target.state().log("t1.copy", 0).end, 100);
    let largest = source.state().largest_answer;
    assert!(largest <= (2 << 20) + 300_000 + HEADER_LEN, "{largest}");
}
