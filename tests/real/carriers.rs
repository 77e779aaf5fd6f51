//! Clients at work while the tunnel's connections are killed under them: nobody notices.

use std::time::{Duration, Instant};

use crate::bed::{Bed, Endpoint, Side, finish_records};
use crate::config::Link;
use crate::networks;

const TOPIC: &str = "chaos.carriers";
const PARTITIONS: u32 = 6;
/// How long clients are at work, in seconds: `LINKSPAN_CHAOS_SECONDS`, or this.
const SECONDS: u64 = 20;

#[test]
fn clients_do_not_notice_that_carriers_die() {
    let bed = Bed::get();
    let seconds =
        std::env::var("LINKSPAN_CHAOS_SECONDS").map_or(SECONDS, |text| text.parse().expect("a number of seconds"));
    // As long as it may run, the disk holds what the group has not read yet.
    bed.create_topic(Side::Orange, TOPIC, PARTITIONS, 2, &["retention.bytes=536870912", "segment.bytes=67108864"]);
    bed.create_topic(
        Side::Orange,
        "chaos.java",
        PARTITIONS,
        2,
        &["retention.bytes=134217728", "segment.bytes=33554432"],
    );
    let link = Link { proxy: "mode = \"names\"\ndns_listen = [\"127.0.0.1:53\"]".into(), ..Link::default() };
    let orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait_up(Duration::from_secs(10));

    // Java: a producer (idempotent unless told otherwise) at a steady rate, a consumer that reads it all.
    let java = bed.client_file(Side::Orange).display().to_string();
    let count = (seconds * 1000).to_string();
    let bootstrap = Side::Orange.bootstrap();
    let produce = bed.tool_start(
        Side::Grape,
        "org.apache.kafka.tools.ProducerPerformance",
        &[
            "--topic",
            "chaos.java",
            "--num-records",
            &count,
            "--record-size",
            "1000",
            "--throughput",
            "1000",
            "--producer.config",
            &java,
            "--producer-props",
            &format!("bootstrap.servers={bootstrap}"),
            "acks=all",
            "connections.max.idle.ms=7200000",
        ],
    );
    let consume = bed.tool_start(
        Side::Grape,
        "org.apache.kafka.tools.ConsumerPerformance",
        &[
            "--bootstrap-server",
            bootstrap,
            "--topic",
            "chaos.java",
            "--messages",
            &count,
            "--consumer.config",
            &java,
            "--timeout",
            "60000",
        ],
    );

    let python = bed.python_file(Side::Orange).display().to_string();
    let (partitions, time) = (PARTITIONS.to_string(), seconds.to_string());
    let stream = ["stream", &python, TOPIC, &partitions, &time, "1024"];
    let mut clients = bed.records_start(Side::Grape, &stream);
    let (since, mut kills, mut at) = (Instant::now(), 0, 0x9e37_79b9_7f4a_7c15_u64);
    while clients.try_wait().expect("records.py runs").is_none() {
        std::thread::sleep(Duration::from_secs(1));
        if since.elapsed() < Duration::from_secs(seconds) {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let carriers = networks::carriers();
            if !carriers.is_empty() {
                networks::cut(Side::Grape, &carriers[(at >> 33) as usize % carriers.len()]);
                kills += 1;
            }
        }
    }
    let told = finish_records(clients, &stream);
    let status = grape.status().expect("grape's endpoint answers");
    eprintln!("{kills} carriers killed in {seconds} s; {told}; reconnects {}", status["tunnel"]["reconnect_reasons"]);
    assert_eq!(told["same"], true, "{told}");
    // A broker that has given no producer id yet says this once, whatever the network does.
    let lines: Vec<_> = told["lines"].as_array().expect("lines").iter().filter_map(|line| line.as_str()).collect();
    let lines: Vec<_> = lines.into_iter().filter(|line| !line.contains("Coordinator load in progress")).collect();
    assert!(lines.is_empty(), "{lines:?}");
    assert_eq!((&told["unsent"], &told["errors"]), (&0.into(), &serde_json::json!([])));
    for (name, count) in told["disconnects"].as_object().expect("by client") {
        assert_eq!(*count, 0, "{name}: {told}");
    }
    for (what, tool) in [("producer", produce), ("consumer", consume)] {
        let output = tool.wait_with_output().expect("the tool ends");
        let (out, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{what}: {log}");
        let noticed: Vec<_> = log
            .lines()
            .filter(|line| ["disconnected", " WARN ", " ERROR "].iter().any(|word| line.contains(word)))
            .collect();
        assert!(noticed.is_empty(), "{what}: {noticed:?}");
        assert!(out.contains(&count), "{what}: {out}");
    }
    assert!(kills >= seconds / 4, "{kills} carriers were killed in {seconds} s: ss cannot destroy sockets here");
    let died: u64 =
        ["lost", "closed"].iter().filter_map(|why| status["tunnel"]["reconnect_reasons"][*why].as_u64()).sum();
    assert!(died >= kills / 2, "{kills} kills, {status}");
    for endpoint in [&orange, &grape] {
        assert!(!endpoint.log().contains("streams were reset"), "{}", endpoint.log());
    }
}
