//! Groups go on at the copy exactly where they stood: over transactions, aborts and what compaction left, checked by the records that
//! are read; and MirrorMaker's own client says the same.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::time::Duration;

use serde_json::Value;

use crate::bed::{Bed, Endpoint, Side, finish_records};
use crate::config::Link;

const TOPIC: &str = "eu.xaz.groups.txn";
const COPY: &str = "eu.xaz.groups.txn.copy";
const PARTITIONS: usize = 2;
/// Groups that commit once, at random, before anything is copied.
const EARLY: u32 = 30;
/// Groups that commit while records are produced and copied.
const LATE: u32 = 12;

type Offsets = BTreeMap<String, Vec<i64>>;

fn run(side: Side, verb: &str, topic: &str, args: &[&str]) -> Value {
    let bed = Bed::get();
    let conf = bed.python_file(side).display().to_string();
    let args: Vec<&str> = [verb, &conf, topic].into_iter().chain(args.iter().copied()).collect();
    finish_records(bed.client_start(side, "groups.py", &args), &args)
}

fn offsets(value: &Value) -> Offsets {
    serde_json::from_value(value.clone()).expect("group -> offsets")
}

/// Committed records of each partition: offset and ordinal.
fn read(side: Side, topic: &str) -> Vec<Vec<(i64, i64)>> {
    let mut read = run(side, "read", topic, &["2"]);
    let part =
        |partition: usize| serde_json::from_value(read[partition.to_string()].take()).expect("[offset, ordinal]");
    (0..PARTITIONS).map(part).collect()
}

fn transactions(count: &str, first: &str, seed: &str) -> Value {
    run(Side::Orange, "transactions", TOPIC, &["2", count, first, seed])
}

/// Has compaction take records out, then holds it still, so that both sides can be read as they are.
fn compact(bed: &Bed) {
    for (n, first) in ["0", "1500", "3000"].into_iter().enumerate() {
        let made = transactions("1500", first, &n.to_string());
        assert!(made["aborted"].as_u64() > Some(100) && made["committed"].as_u64() > Some(500), "{made}");
    }
    let whole: usize = read(Side::Orange, TOPIC).iter().map(Vec::len).sum();
    let since = std::time::Instant::now();
    loop {
        let left: usize = read(Side::Orange, TOPIC).iter().map(Vec::len).sum();
        if left < whole {
            eprintln!("compaction took {} of {whole} records", whole - left);
            break;
        }
        assert!(since.elapsed() < Duration::from_secs(90), "the cleaner did nothing");
        // The cleaner tells nobody when it is through.
        std::thread::sleep(Duration::from_millis(500));
    }
    alter(bed, HELD);
}

fn alter(bed: &Bed, config: &str) {
    let file = bed.client_file(Side::Orange);
    let args = ["--bootstrap-server", Side::Orange.bootstrap(), "--command-config", file.to_str().unwrap()];
    let change = ["--alter", "--entity-type", "topics", "--entity-name", TOPIC, "--add-config", config];
    bed.tool_ok(Side::Orange, "kafka.admin.ConfigCommand", &[&args[..], &change[..]].concat());
}

/// Nothing is old enough to be compacted.
const HELD: &str = "min.compaction.lag.ms=9000000000000,max.compaction.lag.ms=9223372036854775807";

/// Ordinals from an offset on.
fn after(records: &[(i64, i64)], offset: i64) -> Vec<i64> {
    records.iter().filter(|(at, _)| *at >= offset).map(|(_, ordinal)| *ordinal).collect()
}

/// Each group reads the same at the copy as it would at the source; how many places were looked at.
fn assert_same(groups: &Offsets, source: &[Vec<(i64, i64)>], copy: &[Vec<(i64, i64)>]) -> usize {
    let names: Vec<&str> = groups.keys().map(String::as_str).collect();
    let at = offsets(&run(Side::Grape, "committed", COPY, &[&["2"], &names[..]].concat()));
    let mut checked = 0;
    for (group, stood) in groups {
        for partition in 0..PARTITIONS {
            let (from, to) = (stood[partition], at[group][partition]);
            assert_eq!(
                after(&source[partition], from),
                after(&copy[partition], to),
                "{group}, partition {partition}: {from} at the source is not {to} at the copy"
            );
            checked += 1;
        }
    }
    checked
}

fn synced(status: &Value, groups: usize) -> bool {
    let flow = &status["flows"][0];
    let all = flow["groups"].as_array();
    flow["lag_records"].as_u64() == Some(0)
        && all.is_some_and(|all| all.len() == groups && all.iter().all(|group| group["state"] == "synced"))
}

#[test]
fn groups_go_on_at_the_copy_where_they_stood() {
    let bed = Bed::get();
    let configs =
        ["cleanup.policy=compact", "segment.ms=500", "min.cleanable.dirty.ratio=0.01", "max.compaction.lag.ms=1000"];
    bed.create_topic(Side::Orange, TOPIC, PARTITIONS as u32, 3, &configs);
    compact(bed);
    let mut groups = offsets(&run(Side::Orange, "commit", TOPIC, &["2", "xg-early-", &EARLY.to_string(), "7"]));

    let mut link = Link::copying("eu[.]xaz[.]groups[.].*", "${topic}.copy");
    link.replicate.push_str("groups = ['xg-.*']\nmm2_topics = true\n");
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let mut grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait("early groups in step", Duration::from_secs(60), |status| synced(status, groups.len()));
    let (source, copy) = (read(Side::Orange, TOPIC), read(Side::Grape, COPY));
    let checked = assert_same(&groups, &source, &copy);
    eprintln!("{checked} places on a compacted topic with transactions are exact");

    // Under load, with the process killed in between. No more under compaction: after a kill the copy's end is then matched by
    // contents, and of what lies between the map knows that it does not know it.
    alter(bed, "cleanup.policy=delete");
    let conf = bed.python_file(Side::Orange).display().to_string();
    let args = ["transactions", &conf, TOPIC, "2", "6000", "4500", "11"];
    let load = bed.client_start(Side::Orange, "groups.py", &args);
    for round in 0..4 {
        let late = run(Side::Orange, "commit", TOPIC, &["2", "xg-late-", &LATE.to_string(), &round.to_string()]);
        groups.extend(offsets(&late));
        if round % 2 == 0 {
            grape.kill();
            grape.restart();
        }
    }
    finish_records(load, &args);
    grape.wait("all groups in step", Duration::from_secs(90), |status| synced(status, groups.len()));
    let (source, copy) = (read(Side::Orange, TOPIC), read(Side::Grape, COPY));
    let ordinals = |records: &[(i64, i64)]| records.iter().map(|record| record.1).collect::<Vec<_>>();
    for partition in 0..PARTITIONS {
        assert_eq!(ordinals(&source[partition]), ordinals(&copy[partition]), "partition {partition} is not the same");
    }
    let checked = assert_same(&groups, &source, &copy);
    eprintln!("{checked} places are exact after load and two kills");

    // One of them really goes on: a consumer that joins it reads what it had not read, and nothing else.
    let member = run(Side::Grape, "continue", COPY, &["2", "xg-late-3"]);
    for partition in 0..PARTITIONS {
        let read: Vec<i64> = serde_json::from_value(member[partition.to_string()].clone()).expect("ordinals");
        assert_eq!(read, after(&source[partition], groups["xg-late-3"][partition]));
    }
    mirror_client_agrees(bed, &groups, &source, &copy);
    a_commit_follows_within_a_second(bed, source[0].last().expect("it has records").0);
    let wide = grape.linkspan(&["status", "-o", "wide"]);
    let wide = String::from_utf8_lossy(&wide.stdout).into_owned();
    assert!(wide.contains("GROUP") && wide.contains("xg-early-0  "), "{wide}");
}

/// `RemoteClusterUtils` of the released jar.
fn mirror_client_agrees(bed: &Bed, groups: &Offsets, source: &[Vec<(i64, i64)>], copy: &[Vec<(i64, i64)>]) {
    let class = bed.client_path("MirrorClientSays.java");
    let file = bed.client_file(Side::Grape);
    let asked = ["xg-early-0", "xg-early-1", "xg-late-0", "xg-late-5"];
    let args = [&[file.to_str().unwrap(), Side::Grape.bootstrap(), "orange"], &asked[..]].concat();
    let said = bed.tool_ok(Side::Grape, class.to_str().unwrap(), &args);
    let says = |line: &str| assert!(said.lines().any(|one| one == line), "no `{line}` in {said}");
    says("upstream [orange]");
    says("hops 1");
    says("checkpoints [orange.checkpoints.internal]");
    says("heartbeats [heartbeats, orange.heartbeats]");
    let mut found = 0;
    for line in said.lines().filter_map(|line| line.strip_prefix("offset ")) {
        let words: Vec<&str> = line.split(' ').collect();
        let [group, COPY, partition, offset] = words[..] else { panic!("{line}") };
        let (partition, offset): (usize, i64) = (partition.parse().unwrap(), offset.parse().unwrap());
        assert_eq!(after(&source[partition], groups[group][partition]), after(&copy[partition], offset), "{line}");
        found += 1;
    }
    assert_eq!(found, asked.len() * PARTITIONS, "{said}");
}

/// `last` is the offset of the last record at the source: no early group stands there.
fn a_commit_follows_within_a_second(bed: &Bed, last: i64) {
    let conf = bed.python_file(Side::Grape).display().to_string();
    let args = ["watch", &conf, COPY, "xg-early-2", "0"];
    let mut watch = bed.client_start(Side::Grape, "groups.py", &args);
    let mut out = BufReader::new(watch.stdout.take().expect("piped"));
    let mut line = String::new();
    out.read_line(&mut line).expect("it says when it looks");
    assert_eq!(line.trim(), "looking");
    let done = run(Side::Orange, "commit-one", TOPIC, &["xg-early-2", "0", &last.to_string()]);
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("it says what it saw");
    assert!(watch.wait().expect("watch ends").success(), "{rest}");
    let seen: Value = serde_json::from_str(rest.trim()).expect("JSON");
    let took = seen["at"].as_f64().unwrap() - done["at"].as_f64().unwrap();
    eprintln!("a commit was at the copy {took:.3} s after it was at the source");
    assert!(took < 1.0, "{took} s");
}
