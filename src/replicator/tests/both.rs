//! Both ways at once, under identical names: each record once on each side, and none goes round in a circle.

use super::super::decide::provenance;
use super::*;

/// A flow between the two that keeps names.
fn plain(name: &str, source: &Arc<Fake>, target: &Arc<Fake>) -> Flow {
    let config = FlowConfig { name: name.to_owned(), rename: "${topic}".to_owned(), ..config() };
    Flow::between(&config, Arc::clone(source) as _, Arc::clone(target) as _, MEMORY).expect("a flow")
}

/// Runs both until `done`, and then for as long again as a circle would need.
async fn run_both(orange: &Arc<Fake>, grape: &Arc<Fake>, done: impl FnMut() -> bool) -> [FlowStatus; 2] {
    let flows = [plain("to-grape", orange, grape), plain("to-orange", grape, orange)];
    let handles = [flows[0].handle(), flows[1].handle()];
    let drain = Drain::new();
    for flow in flows {
        drain.spawn(flow.run(drain.clone()));
    }
    let seen = || [handles[0].status(), handles[1].status()];
    until(done, seen).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let seen = seen();
    assert!(drain.drain(Duration::from_secs(60)).await, "stopped in time");
    seen
}

/// Values of a partition that are below `split`, and the others, in order.
fn halves(cluster: &Fake, split: i64) -> (Vec<i64>, Vec<i64>) {
    let values = cluster.values("t1", 0);
    values.iter().map(|value| value.parse::<i64>().expect("a number")).partition(|&n| n < split)
}

#[tokio::test(start_paused = true)]
async fn each_side_has_each_record_once_and_sends_none_back() {
    let (orange, grape) = clusters();
    for (side, from) in [(&orange, 0), (&grape, 10_000)] {
        side.create("t1", 1);
        side.fill("t1", 0, from..from + 500, 5, Codec::Lz4);
    }
    let length = |side: &Fake| side.state().log("t1", 0).end;
    let mut rounds = 0;
    let seen = run_both(&orange, &grape, || {
        let even = length(&orange) == length(&grape) && length(&orange) == 1_000 + rounds * 100;
        if even && rounds < 5 {
            orange.fill("t1", 0, 500 + rounds * 50..550 + rounds * 50, 7, Codec::None);
            grape.fill("t1", 0, 10_500 + rounds * 50..10_550 + rounds * 50, 3, Codec::None);
            rounds += 1;
        }
        rounds == 5 && even
    })
    .await;
    for side in [&orange, &grape] {
        assert_eq!(halves(side, 10_000), ((0..750).collect(), (10_000..10_750).collect()));
    }
    for flow in &seen {
        assert_eq!((flow.records, flow.looped.records, flow.lag_records), (750, 750, 0), "{}", flow.flow);
        assert!(flow.looped.bytes > 0 && flow.events.is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn producers_of_the_sources_own_are_told_apart_by_the_registry() {
    let (orange, grape) = clusters();
    orange.create("t1", 1);
    grape.create("t1", 1);
    for n in 0..20_u8 {
        let value = n.to_string();
        let record = [Record::new(0, 5, None, Some(value.as_bytes()), &[])];
        orange.append("t1", 0, &record, |bytes| bytes[43..51].copy_from_slice(&(70 + i64::from(n)).to_be_bytes()));
    }
    run_both(&orange, &grape, || grape.state().log("t1", 0).end == 20).await;
    assert_eq!(grape.values("t1", 0), numbers(0..20));
    assert_eq!(orange.state().log("t1", 0).end, 20);
}

#[tokio::test(start_paused = true)]
async fn without_the_registry_nothing_is_copied_on_a_guess() {
    let (orange, grape) = clusters();
    orange.create("t1", 1);
    grape.create("t1", 1);
    grape.fill("t1", 0, 0..50, 5, Codec::None);
    run_both(&orange, &grape, || orange.state().log("t1", 0).end == 50).await;
    assert!(orange.state().topics.contains_key(provenance::TOPIC));
    for again in [false, true] {
        // Deleted; then made again by the flow that writes it.
        orange.state().topics.remove(provenance::TOPIC);
        if again {
            orange.create(provenance::TOPIC, 1);
        }
        let status = run_until(plain("to-grape", &orange, &grape), |status| status.halted.is_some()).await;
        let reason = status.halted.expect("a reason");
        assert_eq!(reason.code, TroubleCode::Registry);
        assert!(reason.text.contains("was deleted") && reason.text.contains("cluster orange"), "{}", reason.text);
        assert_eq!(grape.values("t1", 0), numbers(0..50), "recreated: {again}");
    }
}
