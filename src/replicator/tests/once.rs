//! Each record once, whatever is forgotten, compacted or deleted between an append and the progress that tells of it.

use super::*;

/// All that there is was copied, whoever did it.
fn copied(status: &FlowStatus) -> bool {
    !status.topics.is_empty() && caught_up(0)(status)
}

/// A flow killed after it appended records that its progress does not tell of: the first 100 are in progress, of the second hundred
/// some are at the target. Returns how many are.
async fn killed(source: &Arc<Fake>, target: &Arc<Fake>, each: i64) -> i64 {
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, each, Codec::None);
    run_until(flow(source, target), caught_up(100)).await;
    source.fill("t1", 0, 100..200, each, Codec::None);
    let run = tokio::spawn(flow(source, target).run(Drain::new()));
    // The records are old: appends of the run before are given their time to land.
    for _ in 0..20_000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        if target.state().log("t1.copy", 0).end > 100 {
            break;
        }
    }
    run.abort();
    assert!(run.await.is_err_and(|error| error.is_cancelled()));
    let end = target.state().log("t1.copy", 0).end;
    assert!(end > 100, "something was appended");
    end
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_forgot_the_producer_is_not_believed() {
    for each in [1, 10] {
        let (source, target) = clusters();
        killed(&source, &target, each).await;
        target.state().log("t1.copy", 0).producers.clear();
        run_until(flow(&source, &target), copied).await;
        assert_eq!(target.values("t1.copy", 0), numbers(0..200));
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_under_way_is_not_sent_again_to_a_leader_that_forgot_it() {
    for seed in 1..20 {
        let (source, target) = (Fake::new("orange", seed), Fake::new("grape", seed));
        source.create("t1", 1);
        source.fill("t1", 0, 0..2_000, 10, Codec::None);
        target.state().faults = 300;
        run_until(flow(&source, &target), |status| {
            if let Some(topic) = target.state().topics.get_mut("t1.copy") {
                topic.partitions[0].producers.clear();
            }
            copied(status)
        })
        .await;
        assert_eq!(target.values("t1.copy", 0), numbers(0..2_000), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_the_leader_has_is_not_sent_again_for_it_may_forget_it() {
    for seed in 1..20 {
        let (source, target) = (Fake::new("orange", seed), Fake::new("grape", seed));
        source.create("t1", 1);
        source.fill("t1", 0, 0..2_000, 10, Codec::None);
        target.state().faults = 300;
        target.state().forgets_what_it_told = true;
        run_until(flow(&source, &target), copied).await;
        assert_eq!(target.values("t1.copy", 0), numbers(0..2_000), "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_killed_run_sent_is_waited_for_where_the_leader_is_about_to_forget() {
    let (source, target) = clusters();
    source.create("t1", 1);
    source.fill("t1", 0, 0..100, 10, Codec::None);
    run_until(flow(&source, &target), caught_up(100)).await;
    source.fill("t1", 0, 100..200, 100, Codec::None);
    target.state().under_way = Some(Vec::new());
    let run = tokio::spawn(flow(&source, &target).run(Drain::new()));
    while target.state().under_way.as_ref().is_some_and(Vec::is_empty) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    run.abort();
    let _ = run.await;
    let sent = target.state().under_way.take();

    // The leader still knows the producer when the next run asks. Then it forgets, and what was sent before lands.
    let killed = Arc::clone(&target);
    let lands = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(5)).await;
        killed.state().log("t1.copy", 0).producers.clear();
        killed.state().under_way = sent;
        killed.land();
    });
    run_until(flow(&source, &target), |status| lands.is_finished() && copied(status)).await;
    assert_eq!(target.values("t1.copy", 0), numbers(0..200));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_was_compacted_in_between_is_not_counted_again() {
    for forget in [false, true] {
        let (source, target) = clusters();
        source.create("t1", 1);
        source.state().topics.get_mut("t1").expect("t1").configs.insert("cleanup.policy".into(), "compact".into());
        source.fill("t1", 0, 0..100, 1, Codec::None);
        run_until(flow(&source, &target), caught_up(100)).await;
        source.fill("t1", 0, 100..200, 1, Codec::None);
        let run = tokio::spawn(flow(&source, &target).run(Drain::new()));
        while target.state().log("t1.copy", 0).end == 100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        run.abort();
        let _ = run.await;
        let end = target.state().log("t1.copy", 0).end;
        source.fill("t1", 0, 200..300, 1, Codec::None);
        // Two of three records are gone, also some at the end of what was copied.
        source.state().log("t1", 0).batches.retain(|batch| batch.offset() % 3 == 0 || batch.offset() > end + 10);
        if forget {
            target.state().log("t1.copy", 0).producers.clear();
        }
        run_until(flow(&source, &target), copied).await;
        let left = (end..300).filter(|n| n % 3 == 0 || *n > end + 10).map(|n| n.to_string());
        let expected: Vec<_> = numbers(0..end).into_iter().chain(left).collect();
        assert_eq!(target.values("t1.copy", 0), expected, "forgotten: {forget}");
    }
}

#[tokio::test(start_paused = true)]
async fn retention_over_records_that_are_copied_repeats_none_and_is_no_gap() {
    let (source, target) = clusters();
    let end = killed(&source, &target, 5).await;
    source.state().log("t1", 0).delete_before(end - 5);
    let status = run_until(flow(&source, &target), copied).await;
    assert_eq!(target.values("t1.copy", 0), numbers(0..200));
    assert!(status.events.is_empty(), "{:?}", status.events);
}

#[tokio::test(start_paused = true)]
async fn at_least_once_repeats_rather_than_stands_still() {
    let (source, target) = clusters();
    killed(&source, &target, 10).await;
    target.state().log("t1.copy", 0).producers.clear();
    target.state().tells_producers = false;
    let config = FlowConfig { delivery: Delivery::AtLeastOnce, ..config() };
    let flow = Flow::between(&config, Arc::clone(&source) as _, Arc::clone(&target) as _, MEMORY).expect("a flow");
    run_until(flow, copied).await;
    let mut values: Vec<i64> =
        target.values("t1.copy", 0).iter().map(|value| value.parse().expect("a number")).collect();
    assert!(values.len() > 200);
    values.sort_unstable();
    values.dedup();
    assert_eq!(values, (0..200).collect::<Vec<_>>());
}
