//! Endpoints and brokers die during a copy: nothing is lost, order is kept, and the link is back by itself.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bed::{Bed, Endpoint, Side, finish_records};
use crate::config::Link;

const PARTITIONS: u32 = 12;
const RECORDS: u64 = 600_000;

#[test]
fn kills_lose_nothing_and_keep_order() {
    let bed = Bed::get();
    bed.create_topic(Side::Orange, "eu.xaz.kills", PARTITIONS, 3, &[]);
    let link = Link::copying("eu[.]xaz[.]kills", "${topic}.copy");
    let mut orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let mut grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait_up(Duration::from_secs(10));

    let conf = bed.python_file(Side::Orange).display().to_string();
    let (partitions, records) = (PARTITIONS.to_string(), RECORDS.to_string());
    let produce = ["produce", &conf, "eu.xaz.kills", &partitions, &records, "1024", "lz4"];
    let producer = bed.records_start(Side::Orange, &produce);
    let copied = |at_least: u64| {
        move |status: &Value| status["flows"][0]["records_total"].as_u64().is_some_and(|n| n >= at_least)
    };

    let mut back = Vec::new();
    grape.wait("copying", Duration::from_secs(60), copied(10_000));
    grape.kill();
    grape.restart();
    let since = Instant::now();
    grape.wait_up(Duration::from_secs(10));
    grape.wait("copying again", Duration::from_secs(30), copied(1));
    back.push(("destination endpoint", since.elapsed()));

    orange.kill();
    orange.restart();
    let since = Instant::now();
    orange.wait_up(Duration::from_secs(10));
    let so_far = grape.status().and_then(|status| status["flows"][0]["records_total"].as_u64()).unwrap_or(0);
    grape.wait("copying again", Duration::from_secs(30), copied(so_far + 1));
    back.push(("source endpoint", since.elapsed()));

    bed.run(&["kill", "orange", "1"]);
    bed.run(&["start", "orange", "1"]);
    bed.run(&["kill", "grape", "2"]);
    bed.run(&["start", "grape", "2"]);

    assert_eq!(finish_records(producer, &produce)["produced"], RECORDS);
    let conf = bed.python_file(Side::Grape).display().to_string();
    let digest = bed.records(Side::Grape, &["digest", &conf, "eu.xaz.kills.copy", &records]);
    let source =
        bed.records(Side::Orange, &["digest", bed.python_file(Side::Orange).to_str().unwrap(), "eu.xaz.kills"]);
    let mut repeated = 0;
    for partition in 0..PARTITIONS {
        let (copy, original) = (&digest[partition.to_string()], &source[partition.to_string()]);
        assert_eq!(copy["missing"], 0, "partition {partition}: {copy}");
        assert_eq!(copy["in_order"], true, "partition {partition}: {copy}");
        assert_eq!(copy["sha256"], original["sha256"], "partition {partition}");
        repeated += copy["count"].as_u64().unwrap() - original["count"].as_u64().unwrap();
    }
    eprintln!("back after: {back:?}; {repeated} of {RECORDS} records repeated");
    for (what, took) in back {
        assert!(took <= Duration::from_secs(10), "{what} took {took:?}");
    }
}
