//! Faults under copying both ways at once, under one name: each side ends with every record of both, once, in the order of its origin.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::faults::{Hurter, Load};
use super::schedule::{self, Fault};
use super::{CATCH_UP, KEPT, Settings, dump, oracle};
use crate::bed::{Bed, Endpoint, Side};
use crate::config::Link;

/// What it came to.
#[derive(Debug, Default)]
pub struct Report {
    /// Records by origin, orange's first.
    pub records: [u64; 2],
    /// Records that each flow met again and left where they were, in its last run.
    pub looped: [u64; 2],
    pub faults: u64,
    pub wrong: Vec<String>,
}

const TOPIC: &str = "both.ways";
const PARTITIONS: u32 = 4;
/// Ordinals of grape's own records, as `chaos.py` tells them apart.
const GRAPES: u64 = 1_000_000_000;

/// The endpoints, which still run, and what came of it.
pub fn run(settings: &Settings) -> (Hurter, Report) {
    let bed = Bed::get();
    for side in [Side::Orange, Side::Grape] {
        bed.create_topic(side, TOPIC, PARTITIONS, 3, &[]);
    }
    // A name of its own: what it remembers of registries, of which one is deleted at the end, is not the other tests' business.
    let both = Link::copying("both[.]ways", "${topic}").replicate + "name = \"both-ways\"\n";
    let link = Link { replicate: both.clone(), back: both, ..Link::default() };
    let topics = || [TOPIC].into_iter().chain(KEPT).map(str::to_owned).collect();
    let mut hurter = Hurter::new(&link, None, [topics(), topics()]);
    let load = |side, first| Load::start_at(side, TOPIC, PARTITIONS, settings.rate / 2, "plain", first);
    let loads = [load(Side::Orange, 0), load(Side::Grape, GRAPES)];
    for endpoint in [&hurter.orange, &hurter.grape] {
        endpoint.wait("copied both ways", Duration::from_secs(180), |status| looped(status) > 1_000);
    }
    let mut planned = schedule::plan(settings.seed, settings.faults, settings.gap);
    planned.retain(|one| !matches!(one.fault, Fault::Rival(_)));
    hurter.run(&planned);

    let mut report = Report::default();
    let loads = loads.map(Load::finish);
    for endpoint in [&hurter.orange, &hurter.grape] {
        catch_up(endpoint, &mut report.wrong);
    }
    report.looped = [&hurter.orange, &hurter.grape].map(|endpoint| looped(&endpoint.status().unwrap_or_default()));
    report.faults = hurter.counts.values().map(|count| count.made).sum();
    for (name, count) in &hurter.counts {
        if count.bit < count.made {
            report.wrong.push(format!("{name}: {} of {} hit nothing", count.made - count.bit, count.made));
        }
    }
    compare(&loads, &mut report);
    (hurter, report)
}

fn looped(status: &Value) -> u64 {
    status["flows"][0]["looped_records"].as_u64().unwrap_or(0)
}

fn catch_up(endpoint: &Endpoint, wrong: &mut Vec<String>) {
    let (since, mut still, mut last) = (Instant::now(), 0, Value::Null);
    while still < 5 {
        if since.elapsed() > CATCH_UP {
            return wrong.push(format!("not caught up {CATCH_UP:?} after the load: {:#}", last["flows"][0]));
        }
        std::thread::sleep(Duration::from_millis(500));
        last = endpoint.status().unwrap_or_default();
        let flow = &last["flows"][0];
        let running = &flow["topics"][0]["partition_states"]["running"];
        still = if *running == PARTITIONS && flow["lag_records"] == 0 { still + 1 } else { 0 };
    }
}

/// Of each origin, in order.
fn by_origin(partition: &[oracle::Seen]) -> [Vec<oracle::Seen>; 2] {
    let (grapes, oranges) = partition.iter().partition(|(_, hash)| hash & 1 == 1);
    [oranges, grapes]
}

fn compare(loads: &[Value; 2], report: &mut Report) {
    for isolation in ["read_committed", "read_uncommitted"] {
        let seen: BTreeMap<_, _> =
            [Side::Orange, Side::Grape].map(|side| (side.name(), dump(side, TOPIC, isolation))).into();
        let (Some(Ok(orange)), Some(Ok(grape))) = (seen.get("orange"), seen.get("grape")) else {
            return report.wrong.push(format!("a side cannot be read: {seen:?}"));
        };
        report.records = [0, 0];
        for (partition, (orange, grape)) in orange.iter().zip(grape).enumerate() {
            let (orange, grape) = (by_origin(orange), by_origin(grape));
            // Each side is the source of its own records.
            for (origin, source, copy) in [("orange", &orange[0], &grape[0]), ("grape", &grape[1], &orange[1])] {
                report.records[usize::from(origin == "grape")] += source.len() as u64;
                let difference = oracle::compare(source, copy);
                if !difference.is_none() {
                    report
                        .wrong
                        .push(format!("{origin}'s records of partition {partition}, {isolation}: {difference}"));
                }
            }
        }
    }
    for (records, load) in report.records.iter().zip(loads) {
        // What a producer was not told of may be there all the same.
        if load["acked"].as_u64().is_none_or(|acked| acked == 0 || *records < acked) {
            report.wrong.push(format!("{records} records of a load that came to {load}"));
        }
    }
}
