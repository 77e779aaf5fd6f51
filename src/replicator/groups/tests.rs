//! Groups follow exactly: between two clusters in memory, in virtual time.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::board::GroupState;
use crate::client::KafkaError;
use crate::config::{FlowConfig, GroupRewinds};
use crate::kafka::batch::{Codec, Limits, Record, decode};
use crate::lifecycle::Drain;
use crate::replicator::fake::Fake;
use crate::replicator::tests::{clusters, config, placed, run_until};
use crate::replicator::{Flow, FlowHandle, FlowStatus, GroupStatus};
use std::sync::Arc;

fn following() -> FlowConfig {
    FlowConfig { groups: vec![".*".to_owned()], groups_exclude: vec!["left.*".to_owned()], ..config() }
}

fn flow(config: &FlowConfig, source: &Arc<Fake>, target: &Arc<Fake>) -> Flow {
    let (source, target) = (Arc::clone(source), Arc::clone(target));
    Flow::between(config, source, target, 4 << 20).expect("a flow")
}

fn group<'s>(status: &'s FlowStatus, name: &str) -> Option<&'s GroupStatus> {
    status.groups.iter().find(|group| group.group == name)
}

fn is(status: &FlowStatus, name: &str, state: GroupState) -> bool {
    group(status, name).is_some_and(|group| group.state == state)
}

/// A partition with a marker behind each few records, and with batches that compaction left holes in.
fn fill_with_gaps(source: &Fake, records: i64) {
    for n in (0..records).step_by(5) {
        source.fill("t1", 0, n..n + 5, 5, Codec::None);
        let batch: Vec<_> =
            [0, 3].map(|delta| Record::new(delta, 0, None, Some(format!("hole {n} {delta}").as_bytes()), &[])).into();
        if n % 3 == 0 {
            source.append("t1", 0, &batch, |_| {});
        }
        source.append("t1", 0, &[Record::new(0, 0, None, Some(b""), &[])], |bytes| bytes[22] |= 0x20);
    }
}

/// Who goes on at the target reads what it would have read at the source, from the first record to the last.
fn assert_goes_on(source: &Fake, target: &Fake, name: &str) {
    let at = source.committed(name, "t1", 0).expect("it committed at the source");
    let copy = target.committed(name, "t1.copy", 0).expect("it was followed");
    let left = |fake: &Fake, topic: &str, from: i64| {
        let records = placed(fake, topic, 0).into_iter().filter(move |(offset, _)| *offset >= from);
        records.map(|(_, value)| value).collect::<Vec<_>>()
    };
    assert!(left(source, "t1", at) == left(target, "t1.copy", copy), "{name} at {at} is not {copy}");
}

/// Runs a flow beside a test.
async fn beside<T>(flow: Flow, test: impl AsyncFnOnce(&FlowHandle) -> T) -> T {
    let (handle, drain) = (flow.handle(), Drain::new());
    drain.spawn(flow.run(drain.clone()));
    let out = test(&handle).await;
    assert!(drain.drain(Duration::from_secs(60)).await, "stopped in time");
    out
}

/// Waits in virtual time; how long that took.
async fn until(handle: &FlowHandle, mut done: impl FnMut(&FlowStatus) -> bool) -> Duration {
    let began = Instant::now();
    while !done(&handle.status()) {
        assert!(began.elapsed() < Duration::from_secs(120), "not in time: {:#?}", handle.status());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    began.elapsed()
}

#[tokio::test(start_paused = true)]
async fn whoever_goes_on_at_the_target_reads_exactly_what_was_not_read() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.create("other", 1);
    // Enough for some stored chunks.
    fill_with_gaps(&source, 4_000);
    let end = source.state().log("t1", 0).end;
    for (n, at) in (0..=end).step_by(97).chain([1, 5, 6, end - 1, end]).enumerate() {
        source.commit(&format!("g{n}"), "t1", 0, at);
        source.commit(&format!("g{n}"), "other", 0, 3);
    }
    source.commit("left-out", "t1", 0, 7);
    source.state().groups.get_mut("left-out").expect("it is there").kind = "classic";
    source.commit("shared", "t1", 0, 7);
    source.state().groups.get_mut("shared").expect("it is there").kind = "share";
    let groups = source.state().groups.len() - 2;
    let synced = |status: &FlowStatus| status.groups.iter().filter(|group| group.state == GroupState::Synced).count();
    let status = run_until(flow(&following(), &source, &target), |status| synced(status) == groups).await;
    let names: Vec<_> = source.state().groups.keys().filter(|name| name.starts_with('g')).cloned().collect();
    for name in &names {
        assert_goes_on(&source, &target, name);
        let seen = group(&status, name).expect("it is shown");
        assert_eq!((seen.partitions, seen.exact, seen.reason.as_deref()), (1, 1, None));
    }
    assert_eq!((target.committed("left-out", "t1.copy", 0), target.committed("shared", "t1.copy", 0)), (None, None));
    assert_eq!((status.group_failures, status.group_events), (BTreeMap::new(), vec![]));
    // The next process knows as much, and has nothing to change.
    source.commit("late", "t1", 0, 1_234);
    let before: Vec<_> = names.iter().map(|name| target.committed(name, "t1.copy", 0)).collect();
    run_until(flow(&following(), &source, &target), |status| {
        let now: Vec<_> = names.iter().map(|name| target.committed(name, "t1.copy", 0)).collect();
        assert!(now == before, "a group that stood still was moved");
        synced(status) == groups + 1
    })
    .await;
    assert_goes_on(&source, &target, "late");
}

#[tokio::test(start_paused = true)]
async fn a_commit_follows_within_a_second() {
    let (source, target) = clusters();
    source.create("t1", 1);
    fill_with_gaps(&source, 500);
    source.commit("g", "t1", 0, 0);
    let config = following();
    beside(flow(&config, &source, &target), async |handle| {
        until(handle, |status| is(status, "g", GroupState::Synced)).await;
        for at in (10..600).step_by(59) {
            source.commit("g", "t1", 0, at);
            let (before, began) = (target.committed("g", "t1.copy", 0), Instant::now());
            while target.committed("g", "t1.copy", 0) == before {
                assert!(began.elapsed() < Duration::from_secs(1), "{at} did not follow within a second");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            assert_goes_on(&source, &target, "g");
        }
        let age = group(&handle.status(), "g").and_then(|group| group.age_seconds).expect("it was in step");
        assert!(age < 1.0, "{age}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_further_than_the_copy_waits_at_its_end() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    source.commit("g", "t1", 0, 130);
    beside(flow(&following(), &source, &target), async |handle| {
        until(handle, |status| is(status, "g", GroupState::Waiting) && status.records == 100).await;
        until(handle, |_| target.committed("g", "t1.copy", 0) == Some(100)).await;
        let reason = group(&handle.status(), "g").and_then(|group| group.reason.clone());
        assert_eq!(reason.as_deref(), Some("t1-0: the group is at 130, the copy is not as far"));
        source.fill("t1", 0, 100..200, 10, Codec::None);
        until(handle, |status| is(status, "g", GroupState::Synced)).await;
        assert_eq!(target.committed("g", "t1.copy", 0), Some(130));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_group_in_use_at_the_target_is_left_to_its_members() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    source.commit("g", "t1", 0, 40);
    target.commit("g", "t1.copy", 0, 5);
    target.state().groups.get_mut("g").expect("it is there").active = true;
    beside(flow(&following(), &source, &target), async |handle| {
        until(handle, |status| is(status, "g", GroupState::Active)).await;
        let status = handle.status();
        let seen = group(&status, "g").expect("it is shown");
        assert_eq!(
            seen.reason.as_deref(),
            Some("it has members at the target, whose brokers take commits from them alone")
        );
        assert!(status.group_failures["active"] >= 1);
        assert_eq!(target.committed("g", "t1.copy", 0), Some(5));
        target.state().groups.get_mut("g").expect("it is there").active = false;
        let took = until(handle, |status| is(status, "g", GroupState::Synced)).await;
        assert!(took < Duration::from_secs(4), "{took:?}");
        assert_eq!(target.committed("g", "t1.copy", 0), Some(40));
        // Its members went on and left: what they read is not read again.
        target.commit("g", "t1.copy", 0, 77);
        source.commit("g", "t1", 0, 50);
        until(handle, |status| is(status, "g", GroupState::Ahead)).await;
        assert_eq!(target.committed("g", "t1.copy", 0), Some(77));
        let reason = group(&handle.status(), "g").and_then(|group| group.reason.clone());
        assert_eq!(
            reason.as_deref(),
            Some("t1-0: the target's group stands at 77, further than 50 where the source's is: it was used there; that is 77 at the source")
        );
        source.commit("g", "t1", 0, 90);
        until(handle, |status| is(status, "g", GroupState::Synced)).await;
        assert_eq!((target.committed("g", "t1.copy", 0), handle.status().group_events.len()), (Some(90), 0));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_rewind_is_followed_or_refused_and_told_either_way() {
    for rewinds in [GroupRewinds::Follow, GroupRewinds::Refuse] {
        let (source, target) = clusters();
        source.create("t1", 1);
        source.fill("t1", 0, 0..100, 10, Codec::None);
        source.commit("g", "t1", 0, 80);
        let config = FlowConfig { group_rewinds: rewinds, ..following() };
        beside(flow(&config, &source, &target), async |handle| {
            until(handle, |status| is(status, "g", GroupState::Synced)).await;
            source.commit("g", "t1", 0, 20);
            until(handle, |status| !status.group_events.is_empty()).await;
            let event = handle.status().group_events.remove(0);
            assert_eq!((&*event.group, &*event.topic, event.partition), ("g", "t1.copy", 0));
            if rewinds == GroupRewinds::Follow {
                assert_eq!(event.text, "set back from 80 to 20, as the source's group was");
                until(handle, |status| is(status, "g", GroupState::Synced)).await;
                assert_eq!(target.committed("g", "t1.copy", 0), Some(20));
            } else {
                assert_eq!(
                    event.text,
                    "the source's group went back to 20, the target's stands at 80 and group_rewinds is \"refuse\""
                );
                until(handle, |status| is(status, "g", GroupState::Held)).await;
                tokio::time::sleep(Duration::from_secs(10)).await;
                assert_eq!((target.committed("g", "t1.copy", 0), handle.status().group_events.len()), (Some(80), 1));
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_transaction_may_take_back_does_not_follow_before_it_ends() {
    let (source, target) = clusters();
    source.create("t1", 2);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    source.fill("t1", 1, 0..100, 10, Codec::None);
    source.commit("g", "t1", 0, 30);
    source.commit("g", "t1", 1, 60);
    source.state().groups.get_mut("g").expect("it is there").unstable.insert(("t1".to_owned(), 0));
    beside(flow(&following(), &source, &target), async |handle| {
        until(handle, |_| target.committed("g", "t1.copy", 1) == Some(60)).await;
        let status = handle.status();
        let reason = group(&status, "g").and_then(|group| group.reason.as_deref());
        assert!(is(&status, "g", GroupState::Waiting));
        assert_eq!(reason, Some("t1-0: a transaction that commits it is open"));
        assert_eq!(target.committed("g", "t1.copy", 0), None);
        source.state().groups.get_mut("g").expect("it is there").unstable.clear();
        until(handle, |status| is(status, "g", GroupState::Synced)).await;
        assert_eq!((target.committed("g", "t1.copy", 0), handle.status().group_failures), (Some(30), BTreeMap::new()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn refusals_are_named_and_pass_when_they_do() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    source.commit("g", "t1", 0, 30);
    target.state().commit_error = KafkaError::from_code(30);
    beside(flow(&following(), &source, &target), async |handle| {
        until(handle, |status| is(status, "g", GroupState::Failed)).await;
        let status = handle.status();
        let reason = group(&status, "g").and_then(|group| group.reason.clone()).expect("a reason");
        assert_eq!(reason, "t1.copy-0: the target answered GROUP_AUTHORIZATION_FAILED (30)");
        assert!(status.group_failures["authorization"] >= 1);
        target.state().commit_error = None;
        until(handle, |status| is(status, "g", GroupState::Synced)).await;
        source.state().down = true;
        until(handle, |status| is(status, "g", GroupState::Failed)).await;
        source.state().down = false;
        until(handle, |status| is(status, "g", GroupState::Synced)).await;
        target.state().down = true;
        source.commit("g", "t1", 0, 30 - 1);
        until(handle, |status| is(status, "g", GroupState::Failed)).await;
        // Nothing is to be done once it is back.
        source.commit("g", "t1", 0, 30);
        target.state().down = false;
        until(handle, |status| is(status, "g", GroupState::Synced)).await;
        source.state().groups.clear();
        until(handle, |status| status.groups.is_empty()).await;
        assert_eq!(target.committed("g", "t1.copy", 0), Some(30));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn groups_are_right_through_kills_and_faults() {
    for seed in 1..4_i64 {
        let (source, target) = (Fake::new("orange", seed as u64 * 7), Fake::new("grape", seed as u64 * 11));
        source.create("t1", 1);
        (source.state().faults, target.state().faults) = (20, 60);
        for round in 0..8_i64 {
            fill_with_gaps(&source, 60);
            let end = source.state().log("t1", 0).end;
            source.commit("g", "t1", 0, (end * 37 * (round + seed)) % end);
            let run = tokio::spawn(flow(&following(), &source, &target).run(Drain::new()));
            tokio::time::sleep(Duration::from_millis(300 + 113 * (round as u64 * seed as u64 % 9))).await;
            run.abort();
            assert!(run.await.is_err_and(|error| error.is_cancelled()));
        }
        (source.state().faults, target.state().faults) = (0, 0);
        let end = source.state().log("t1", 0).end;
        // From the beginning on: a group that was never there, at every offset of the first rounds.
        for at in (0..end).step_by(13) {
            source.commit(&format!("g{at}"), "t1", 0, at);
        }
        let all = source.state().groups.len();
        let done = |status: &FlowStatus| {
            let good = |group: &&GroupStatus| matches!(group.state, GroupState::Synced | GroupState::Ahead);
            status.groups.iter().filter(good).count() == all && status.lag_records == 0
        };
        run_until(flow(&following(), &source, &target), done).await;
        for at in (0..end).step_by(13) {
            assert_goes_on(&source, &target, &format!("g{at}"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn mirrormakers_topics_tell_the_same() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    source.commit("g", "t1", 0, 30);
    // Whoever uses the group at the target is told too.
    target.commit("g", "t1.copy", 0, 5);
    target.state().groups.get_mut("g").expect("it is there").active = true;
    let config = FlowConfig { mm2_topics: true, ..following() };
    beside(flow(&config, &source, &target), async |handle| {
        until(handle, |status| is(status, "g", GroupState::Active)).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    })
    .await;
    let records = |topic: &str| {
        let mut state = target.state();
        let batches = state.log(topic, 0).batches.iter();
        let records = batches.flat_map(|batch| decode(batch, Limits::default()).expect("whole"));
        records.map(|record| (record.key().expect("a key"), record.value().expect("a value"))).collect::<Vec<_>>()
    };
    let checkpoints = records("orange.checkpoints.internal");
    assert_eq!(checkpoints[0].0[..], *b"\0\x01g\0\x07t1.copy\0\0\0\0");
    assert_eq!(checkpoints[0].1[..], *b"\0\0\0\0\0\0\0\0\0\x1e\0\0\0\0\0\0\0\x1e\0\x09meta of g");
    assert_eq!(checkpoints.len(), 1);
    let syncs = records("mm2-offset-syncs.orange.internal");
    assert_eq!(syncs.last().map(|(key, _)| &key[..]), Some(&b"\0\x02t1\0\0\0\0"[..]));
    assert_eq!(syncs.last().map(|(_, value)| &value[..]), Some(&b"\0\0\0\0\0\0\0\x63\0\0\0\0\0\0\0\x63"[..]));
    for topic in ["heartbeats", "orange.heartbeats"] {
        let beats = records(topic);
        assert!(beats.len() >= 2);
        assert_eq!(beats[0].0[..], *b"\0\x06orange\0\x05grape");
        assert_eq!((&beats[0].1[..2], beats[0].1.len()), (&[0, 0][..], 10));
    }
    assert_eq!(target.state().topics["orange.checkpoints.internal"].configs["cleanup.policy"], "compact");
}
