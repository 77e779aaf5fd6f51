//! Copies are complete, in order, byte-equal and not recompressed, over both transports.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::bed::{Bed, Endpoint, Side, TOPICS, finish_records};
use crate::config::{Link, Transport};

const CODECS: [&str; 3] = ["gzip", "lz4", "zstd"];
const PARTITIONS: u32 = 4;
/// Per topic; three topics make a million.
const RECORDS: [u64; 3] = [333_336, 333_332, 333_332];

fn topic(codec: &str) -> String {
    format!("eu.xaz.{codec}")
}

/// Produces the million once per test process.
fn source_digests() -> &'static [Value] {
    static DONE: std::sync::OnceLock<Vec<Value>> = std::sync::OnceLock::new();
    DONE.get_or_init(|| {
        let bed = Bed::get();
        let conf = bed.python_file(Side::Orange).display().to_string();
        for codec in CODECS {
            bed.create_topic(
                Side::Orange,
                &topic(codec),
                PARTITIONS,
                1,
                &["retention.ms=-1", "segment.bytes=104857600"],
            );
        }
        for (codec, count) in CODECS.iter().zip(RECORDS) {
            let (name, partitions, count) = (topic(codec), PARTITIONS.to_string(), count.to_string());
            let args = ["produce", &conf, &name, &partitions, &count, "1024", codec];
            let made = finish_records(bed.records_start(Side::Orange, &args), &args);
            assert_eq!(made["produced"].to_string(), count);
        }
        CODECS.iter().map(|codec| bed.records(Side::Orange, &["digest", &conf, &topic(codec)])).collect()
    })
}

/// Payload digest of each partition of a topic with one replica, wherever it lies.
fn stored_batches(side: Side, topic: &str) -> Vec<Value> {
    let bed = Bed::get();
    (0..PARTITIONS)
        .map(|partition| {
            let dir = (0..3)
                .map(|id| bed.dir.join(side.name()).join(id.to_string()).join("data"))
                .find(|dir| dir.join(format!("{topic}-{partition}")).is_dir())
                .expect("some broker holds the partition");
            bed.records(side, &["batches", dir.to_str().expect("UTF-8"), topic, &partition.to_string()])
        })
        .collect()
}

fn copies_the_million(transport: Transport, suffix: &str) {
    let bed = Bed::get();
    let sources = source_digests();
    let mut link = Link { transport, ..Link::copying("eu[.]xaz[.](gzip|lz4|zstd)", &format!("${{topic}}{suffix}")) };
    link.replicate.push_str("replication_factor = 1\n");
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait_up(Duration::from_secs(10));
    let took = grape.wait("a million records copied", Duration::from_secs(180), |status| {
        status["flows"][0]["records_total"].as_u64() == Some(1_000_000)
            && status["flows"][0]["lag_records"].as_u64() == Some(0)
    });
    eprintln!("copied 1,000,000 records in {took:?}");

    let conf = bed.python_file(Side::Grape).display().to_string();
    for (codec, source) in CODECS.iter().zip(sources) {
        let copy = format!("{}{suffix}", topic(codec));
        let digest = bed.records(Side::Grape, &["digest", &conf, &copy]);
        assert_eq!(&digest, source, "{copy} is not what {} is", topic(codec));
        assert_eq!(
            stored_batches(Side::Grape, &copy),
            stored_batches(Side::Orange, &topic(codec)),
            "{copy} was recompressed or cut anew"
        );
    }
    // The source's own configs came along with the topic.
    let file = bed.client_file(Side::Grape);
    let described = bed.tool_ok(
        Side::Grape,
        TOPICS,
        &[
            "--bootstrap-server",
            Side::Grape.bootstrap(),
            "--command-config",
            file.to_str().unwrap(),
            "--describe",
            "--topic",
            &format!("eu.xaz.lz4{suffix}"),
        ],
    );
    assert!(described.contains("PartitionCount: 4") && described.contains("retention.ms=-1"), "{described}");
}

#[test]
fn a_million_records_over_noise() {
    copies_the_million(Transport::Noise, ".copy");
}

#[test]
fn a_million_records_over_tls() {
    let bed = Bed::get();
    let made = Command::new(&bed.linkspan)
        .args(["certs", "--force", "--dir"])
        .arg(bed.dir.join("certs"))
        .output()
        .expect("linkspan certs runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    copies_the_million(Transport::Tls, ".tls");
}

#[test]
fn partitions_follow_the_source() {
    let bed = Bed::get();
    bed.create_topic(Side::Orange, "eu.xaz.grows", 2, 3, &[]);
    let link = Link::copying("eu[.]xaz[.]grows", "${topic}.copy");
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    let partitions =
        |count: u64| move |status: &Value| status["flows"][0]["topics"][0]["partitions"].as_u64() == Some(count);
    grape.wait("topic copied", Duration::from_secs(20), partitions(2));
    let file = bed.client_file(Side::Orange);
    let file = file.to_str().unwrap();
    bed.tool_ok(
        Side::Orange,
        TOPICS,
        &[
            "--bootstrap-server",
            Side::Orange.bootstrap(),
            "--command-config",
            file,
            "--alter",
            "--topic",
            "eu.xaz.grows",
            "--partitions",
            "5",
        ],
    );
    grape.wait("partitions added", Duration::from_secs(20), partitions(5));
    let conf = bed.python_file(Side::Orange).display().to_string();
    bed.records(Side::Orange, &["produce", &conf, "eu.xaz.grows", "5", "5000", "100", "none"]);
    let conf = bed.python_file(Side::Grape).display().to_string();
    let digest = bed.records(Side::Grape, &["digest", &conf, "eu.xaz.grows.copy", "5000"]);
    for partition in 0..5 {
        let part = &digest[partition.to_string()];
        assert_eq!(
            (part["count"].as_u64(), part["missing"].as_u64(), &part["in_order"]),
            (Some(1000), Some(0), &Value::Bool(true)),
            "{digest}"
        );
    }
}

#[test]
fn illegal_names_and_smaller_targets_are_named() {
    let bed = Bed::get();
    bed.create_topic(Side::Orange, "eu.xaz.small", 3, 3, &[]);
    bed.create_topic(Side::Grape, "eu.xaz.small", 1, 3, &[]);
    // Legal at the source (246 characters), too long as a copy (251).
    let long = format!("eu.xaz.long{}", "x".repeat(235));
    bed.create_topic(Side::Orange, &long, 1, 3, &[]);
    let mut link = Link::copying("eu[.]xaz[.]small", "${topic}");
    link.replicate.push_str(
        "[[replicate]]\nname = \"bad\"\ntopics = ['eu[.]xaz[.]long.*']\nrename = \"${topic}.copy\"\nrefresh = \"1s\"\n",
    );
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    // A target with fewer partitions is given the missing ones; nothing of it is dropped.
    grape.wait("partitions added to the existing target", Duration::from_secs(20), |status| {
        status["flows"][0]["topics"][0]["partitions"].as_u64() == Some(3)
            && status["flows"][0]["topics"][0]["state"] == "active"
    });
    grape.wait("illegal name reported", Duration::from_secs(20), |status| {
        let topic = &status["flows"][1]["topics"][0];
        topic["state"] == "faulted" && topic["reason"].as_str().is_some_and(|reason| reason.contains("249"))
    });
}
