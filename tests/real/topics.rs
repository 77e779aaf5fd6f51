//! Topics as a living thing: configs, policies, ACLs, and the operator's hand, on real brokers.

use std::time::Duration;

use serde_json::Value;

use crate::bed::{Bed, Endpoint, Side, TOPICS};
use crate::config::Link;

/// Class of kafka-configs.sh.
const CONFIGS: &str = "kafka.admin.ConfigCommand";
const SOON: Duration = Duration::from_secs(60);

fn admin(side: Side) -> Vec<String> {
    let file = Bed::get().client_file(side).display().to_string();
    ["--bootstrap-server", side.bootstrap(), "--command-config", &file].map(str::to_owned).to_vec()
}

fn tool(side: Side, class: &str, args: &[&str]) -> String {
    let mut all = admin(side);
    all.extend(args.iter().map(|&arg| arg.to_owned()));
    Bed::get().tool_ok(side, class, &all.iter().map(String::as_str).collect::<Vec<_>>())
}

fn set_config(side: Side, topic: &str, change: &[&str]) {
    let mut args = vec!["--alter", "--entity-type", "topics", "--entity-name", topic];
    args.extend(change);
    tool(side, CONFIGS, &args);
}

fn own_configs(side: Side, topic: &str) -> String {
    tool(side, CONFIGS, &["--describe", "--entity-type", "topics", "--entity-name", topic])
}

fn topic<'a>(status: &'a Value, name: &str) -> &'a Value {
    let topics = status["flows"][0]["topics"].as_array();
    topics.and_then(|topics| topics.iter().find(|one| one["source"] == name)).unwrap_or(&Value::Null)
}

fn events(status: &Value, kind: &str) -> Vec<String> {
    let events = status["flows"][0]["events"].as_array().cloned().unwrap_or_default();
    let texts = events.iter().filter(|one| one["event"] == kind);
    texts.map(|one| one["text"].as_str().unwrap_or_default().to_owned()).collect()
}

fn produce(topic: &str, count: u64, first: u64) {
    let bed = Bed::get();
    let conf = bed.python_file(Side::Orange).display().to_string();
    let (count, first) = (count.to_string(), first.to_string());
    bed.records(Side::Orange, &["produce", &conf, topic, "1", &count, "100", "lz4", &first]);
}

fn json(output: &std::process::Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    })
}

#[test]
fn configs_follow_and_the_targets_own_stay() {
    let bed = Bed::get();
    bed.create_topic(Side::Orange, "cf.a", 1, 3, &["retention.ms=70000", "segment.ms=80000", "flush.ms=9000"]);
    let mut link = Link::copying("cf[.].*", "${topic}.copy");
    link.replicate.push_str("exclude_configs = ['flush[.].*']\npin_configs = ['segment[.]ms']\n");
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait("copied", SOON, |status| topic(status, "cf.a")["state"] == "active");
    let made = own_configs(Side::Grape, "cf.a.copy");
    assert!(made.contains("retention.ms=70000") && made.contains("segment.ms=80000"), "{made}");
    assert!(!made.contains("flush.ms="), "{made}");

    set_config(Side::Grape, "cf.a.copy", &["--add-config", "max.message.bytes=500000,segment.ms=81000"]);
    set_config(Side::Orange, "cf.a", &["--add-config", "retention.ms=71000,segment.ms=82000"]);
    grape.wait("a config followed", SOON, |status| !events(status, "config_changed").is_empty());
    set_config(Side::Orange, "cf.a", &["--delete-config", "retention.ms,segment.ms"]);
    grape.wait("a config went back", SOON, |status| events(status, "config_changed").len() == 2);
    let told = events(&grape.status().expect("a status"), "config_changed");
    assert_eq!(
        told,
        [
            "changed cf.a.copy: retention.ms from 70000 to 71000",
            "changed cf.a.copy: retention.ms from 71000 to the target's default"
        ]
    );
    let left = own_configs(Side::Grape, "cf.a.copy");
    assert!(left.contains("max.message.bytes=500000") && left.contains("segment.ms=81000"), "{left}");
    assert!(!left.contains("retention.ms="), "{left}");
}

#[test]
fn pause_outlives_a_kill_and_plan_changes_nothing() {
    let bed = Bed::get();
    bed.create_topic(Side::Orange, "pp.a", 1, 3, &[]);
    bed.create_topic(Side::Orange, "pp.b", 1, 3, &[]);
    let link = Link::copying("pp[.].*", "${topic}.copy");
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let mut grape = Endpoint::start(Side::Grape, "link", &link.grape());
    let records = |status: &Value, name: &str| topic(status, name)["records"].as_u64().unwrap_or(0);
    produce("pp.a", 1000, 0);
    produce("pp.b", 1000, 0);
    grape.wait("both copied", SOON, |status| records(status, "pp.a") == 1000 && records(status, "pp.b") == 1000);

    let paused = grape.linkspan(&["pause", "--topic", "pp.a", "-o", "json"]);
    assert_eq!(json(&paused)["flows"][0]["topics"], serde_json::json!(["pp.a"]));
    let unknown = grape.linkspan(&["pause", "--topic", "nothing"]);
    assert_eq!(unknown.status.code(), Some(2), "{}", String::from_utf8_lossy(&unknown.stderr));
    grape.wait("shown", SOON, |status| topic(status, "pp.a")["state"] == "paused");
    produce("pp.a", 500, 1000);
    produce("pp.b", 500, 1000);
    grape.wait("the other goes on", SOON, |status| records(status, "pp.b") == 1500);
    assert_eq!(records(&grape.status().expect("a status"), "pp.a"), 1000);

    grape.kill();
    grape.restart();
    grape.wait("paused after a kill", SOON, |status| topic(status, "pp.a")["state"] == "paused");
    produce("pp.b", 500, 1500);
    grape.wait("the other goes on", SOON, |status| records(status, "pp.b") == 500);
    assert_eq!(records(&grape.status().expect("a status"), "pp.a"), 0);
    let resumed = grape.linkspan(&["resume", "--topic", "pp.a"]);
    assert!(resumed.status.success());
    grape.wait("resumed", SOON, |status| records(status, "pp.a") == 500 && topic(status, "pp.a")["lag_records"] == 0);
    let conf = bed.python_file(Side::Grape).display().to_string();
    let digest = bed.records(Side::Grape, &["digest", &conf, "pp.a.copy", "1500"]);
    let part = &digest["0"];
    assert_eq!((part["count"].as_u64(), part["missing"].as_u64()), (Some(1500), Some(0)), "{digest}");

    // Another file: more topics, another name, a config that is pinned no more.
    bed.create_topic(Side::Orange, "qq.new", 2, 3, &["retention.ms=5000000"]);
    let other = link.grape().replace("'pp[.].*'", "'pp[.].*', 'qq[.].*'");
    std::fs::write(grape.dir().join("linkspan.toml"), &other).unwrap();
    let planned = grape.linkspan(&["plan", "--detailed-exitcode", "-o", "json"]);
    assert_eq!(planned.status.code(), Some(3));
    let plan = json(&planned);
    assert_eq!(plan["changes"], 1, "{plan:#}");
    let topics = plan["flows"][0]["topics"].as_array().unwrap();
    let new = topics.iter().find(|one| one["source"] == "qq.new").expect("the new topic");
    assert_eq!(new["actions"][0]["text"], "create qq.new.copy: 2 partitions, retention.ms=5000000");
    assert_eq!(new["why"], "topics 'qq[.].*'");
    let listed = tool(Side::Grape, TOPICS, &["--list"]);
    assert!(!listed.lines().any(|line| line == "qq.new.copy"), "{listed}");
    std::fs::write(grape.dir().join("linkspan.toml"), link.grape()).unwrap();
    assert_eq!(grape.linkspan(&["plan", "--detailed-exitcode"]).status.code(), Some(0));
}

#[test]
fn verify_agrees_until_somebody_else_writes_into_the_copy() {
    let bed = Bed::get();
    bed.create_topic(Side::Orange, "vf.a", 1, 3, &[]);
    let link = Link::copying("vf[.].*", "${topic}.copy");
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    let copied = |count: u64| move |status: &Value| topic(status, "vf.a")["records"] == count;
    produce("vf.a", 20_000, 0);
    grape.wait("copied", SOON, copied(20_000));
    let verified = grape.linkspan(&["verify", "--topic", "vf.a", "--full", "-o", "json"]);
    let report = json(&verified);
    assert_eq!(
        (verified.status.code(), &report["records"], &report["different"]),
        (Some(0), &20_000.into(), &0.into())
    );
    let sampled = json(&grape.linkspan(&["verify", "--topic", "vf.a", "--sample", "50", "-o", "json"]));
    assert_eq!((&sampled["records"], &sampled["different"]), (&50.into(), &0.into()));

    let conf = bed.python_file(Side::Grape).display().to_string();
    bed.records(Side::Grape, &["produce", &conf, "vf.a.copy", "1", "1", "100", "none", "7"]);
    produce("vf.a", 100, 20_000);
    grape.wait("copied", SOON, copied(20_100));
    let verified = grape.linkspan(&["verify", "--topic", "vf.a", "--full", "-o", "json"]);
    let report = json(&verified);
    assert_eq!((verified.status.code(), &report["different"]), (Some(1), &1.into()));
    let part = &report["partitions"][0];
    assert_eq!((&part["records"], &part["difference"]["source_offset"]), (&20_000.into(), &20_000.into()), "{part}");
    assert_eq!(part["difference"]["target_offset"], 20_000);
}

#[test]
fn deleted_and_recreated_topics_follow_their_policies() {
    let bed = Bed::get();
    bed.create_topic(Side::Orange, "dl.gone", 1, 3, &[]);
    bed.create_topic(Side::Orange, "dl.again", 1, 3, &[]);
    let mut link = Link::copying("dl[.].*", "${topic}.copy");
    link.replicate.push_str("deletes = \"delete\"\ndelete_after = \"25s\"\non_recreate = \"replace\"\n");
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    produce("dl.gone", 100, 0);
    produce("dl.again", 100, 0);
    grape.wait("copied", SOON, |status| status["flows"][0]["records_total"] == 200);
    for name in ["dl.gone", "dl.again"] {
        tool(Side::Orange, TOPICS, &["--delete", "--topic", name]);
    }
    bed.create_topic(Side::Orange, "dl.again", 1, 3, &[]);
    produce("dl.again", 40, 0);
    // Kafka's tools take seconds to start: the grace must outlast the time between the deletion and the creation of one topic.
    grape.wait("gone and made anew", 2 * SOON, |status| {
        !events(status, "copy_deleted").is_empty()
            && !events(status, "copy_replaced").is_empty()
            && status["flows"][0]["records_total"] == 240
    });
    let listed = tool(Side::Grape, TOPICS, &["--list"]);
    assert!(!listed.lines().any(|line| line == "dl.gone.copy"), "{listed}");
    let conf = bed.python_file(Side::Grape).display().to_string();
    let digest = bed.records(Side::Grape, &["digest", &conf, "dl.again.copy", "40"]);
    assert_eq!(digest["0"]["count"].as_u64(), Some(40), "{digest}");
}

/// Class of kafka-acls.sh.
const ACLS: &str = "org.apache.kafka.tools.AclCommand";

fn acls(side: Side) -> String {
    tool(side, ACLS, &["--list"])
}

fn acl(side: Side, change: &str, topic: &str, more: &[&str]) {
    let mut args = vec![change, "--topic", topic, "--force"];
    args.extend(more);
    tool(side, ACLS, &args);
}

#[test]
fn acls_follow_with_mapped_principals_and_go_with_the_sources() {
    let bed = Bed::get();
    bed.create_topic(Side::Orange, "ac.a", 1, 3, &[]);
    bed.create_topic(Side::Orange, "ac.b", 1, 3, &[]);
    let reader = ["--allow-principal", "User:reader", "--operation", "Read"];
    acl(Side::Orange, "--add", "ac.a", &reader);
    acl(Side::Orange, "--add", "ac.a", &["--allow-principal", "User:writer", "--operation", "Write"]);
    let prefixed = ["--resource-pattern-type", "prefixed", "--deny-principal", "User:nobody", "--operation", "Read"];
    acl(Side::Orange, "--add", "ac.", &prefixed);
    acl(Side::Grape, "--add", "own", &["--allow-principal", "User:own", "--operation", "All"]);
    let mut link = Link::copying("ac[.].*", "o.${topic}");
    link.replicate.push_str("sync_acls = true\nprincipals = { \"User:reader\" = \"User:reader-dr\" }\n");
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait("ACLs followed", SOON, |status| status["flows"][0]["acls_owned"] == 2);
    let mut told = events(&grape.status().expect("a status"), "acl_added");
    told.sort();
    assert_eq!(
        told,
        [
            "created ACL: ALLOW Read to User:reader-dr from * on topic o.ac.a",
            "created ACL: DENY Read to User:nobody from * on topics with prefix o.ac."
        ]
    );
    let listed = acls(Side::Grape);
    assert!(listed.contains("name=o.ac.a, patternType=LITERAL"), "{listed}");
    assert!(listed.contains("name=o.ac., patternType=PREFIXED"), "{listed}");
    assert!(listed.contains("principal=User:reader-dr") && !listed.contains("User:writer"), "{listed}");

    acl(Side::Orange, "--remove", "ac.a", &reader);
    grape.wait("an ACL went", SOON, |status| status["flows"][0]["acls_owned"] == 1);
    let listed = acls(Side::Grape);
    assert!(!listed.contains("reader-dr") && listed.contains("principal=User:own"), "{listed}");
}
