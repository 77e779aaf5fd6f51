//! Faults at random under replication, on real brokers: at the end the copies are their sources, record by record.
//!
//! Three topics are written at the source while everything around them is killed, frozen, cut and moved: one with times of now, one with
//! transactions of which a quarter aborts, and one whose records are two days old, so that the target's brokers forget the flow's
//! producer at once. What is compared is what clients read, who know nothing of linkspan: a copy's readers see the same with and without
//! `read_committed`. A fault that hit nothing fails the run as a lost record does.
//!
//! Two processes copy the same flow now and then. No lease keeps one of them back: what is promised, and so asked of them, is that a
//! partition whose leader remembers the producer takes every record once, whoever sends it. The old topic is left to one process.

pub mod both;
mod faults;
mod oracle;
mod schedule;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::bed::{Bed, Endpoint, Side};
use crate::config::Link;
use faults::{Count, Hurter, Load};
pub use schedule::WHOLE_HAND;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    pub seed: u64,
    pub faults: usize,
    /// From one fault to the next, in the mean, where what they touch is whole again.
    pub gap: Duration,
    /// Records a second, over all topics.
    pub rate: u64,
}

/// What it came to.
#[derive(Debug, serde::Serialize)]
pub struct Report {
    pub seed: u64,
    pub seconds: f64,
    /// Committed records of the sources.
    pub records: u64,
    pub lost: u64,
    pub repeated: u64,
    /// Records that rivals wrote.
    pub rivals_records: u64,
    /// From the end of the load until the copies were whole.
    pub caught_up_seconds: f64,
    pub faults: BTreeMap<&'static str, Count>,
    pub load: BTreeMap<&'static str, Value>,
    /// What is wrong; empty when all held.
    pub wrong: Vec<String>,
    pub told: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verdict = if self.wrong.is_empty() { "passed" } else { "FAILED" };
        let (made, bit) = self.faults.values().fold((0, 0), |sum, one| (sum.0 + one.made, sum.1 + one.bit));
        writeln!(
            f,
            "replicator {verdict} in {:.0} s, seed {}: {made} faults, {bit} of them bit",
            self.seconds, self.seed
        )?;
        for (name, count) in &self.faults {
            writeln!(f, "  {:>4} of {:>4}  {name}", count.bit, count.made)?;
        }
        for (topic, load) in &self.load {
            writeln!(f, "  load of {topic}: {load}")?;
        }
        writeln!(
            f,
            "  {} records: {} lost, {} repeated; rivals wrote {}; whole {:.1} s after the load",
            self.records, self.lost, self.repeated, self.rivals_records, self.caught_up_seconds
        )?;
        self.wrong.iter().try_for_each(|wrong| writeln!(f, "  WRONG: {wrong}"))
    }
}

/// A topic under load.
struct Topic {
    name: &'static str,
    partitions: u32,
    kind: &'static str,
    /// Of ten records.
    share: u64,
}

const TOPICS: [Topic; 3] = [
    Topic { name: "chaos.plain", partitions: 6, kind: "plain", share: 5 },
    Topic { name: "chaos.txn", partitions: 4, kind: "txn", share: 2 },
    Topic { name: "chaos.old", partitions: 4, kind: "old", share: 3 },
];

/// What the flow itself keeps at the target; its leaders move too.
const KEPT: [&str; 3] = ["__linkspan-progress", "__linkspan-producers", "__linkspan-offsets"];
/// How long grape's brokers remember a producer: far less than the age of the old records, far more than any outage made here.
const MEMORY_MS: u64 = 120_000;
/// Longest time from the last fault until copies are whole.
const CATCH_UP: Duration = Duration::from_secs(240);

fn copy_of(topic: &str) -> String {
    format!("{topic}.copy")
}

/// Makes the topics, the load and the faults, and compares.
pub fn run(settings: &Settings) -> Report {
    let bed = Bed::get();
    let begun = Instant::now();
    eprintln!("chaos: seed {}, {} faults", settings.seed, settings.faults);
    remember(Some(MEMORY_MS));
    for topic in &TOPICS {
        bed.create_topic(Side::Orange, topic.name, topic.partitions, 3, &[]);
    }
    let link = Link::copying("chaos[.].*", "${topic}.copy");
    let rival = Link::copying("chaos[.](plain|txn)", "${topic}.copy");
    let at_source: Vec<_> = TOPICS.iter().map(|topic| topic.name.to_owned()).collect();
    let at_target = TOPICS.iter().map(|topic| copy_of(topic.name)).chain(KEPT.map(str::to_owned)).collect();
    let mut hurter = Hurter::new(&link, Some(rival), [at_source, at_target]);
    let loads: Vec<_> = TOPICS
        .iter()
        .map(|topic| {
            let rate = settings.rate * topic.share / 10;
            (topic.name, Load::start(Side::Orange, topic.name, topic.partitions, rate, topic.kind))
        })
        .collect();
    // A rival may come once it is written down who writes, which it is before the first record of a partition is.
    hurter.grape.wait("all partitions copied", Duration::from_secs(180), |status| {
        status["flows"][0]["topics"].as_array().is_some_and(|topics| {
            let begun = |topic: &&Topic| topics.iter().any(|one| one["source"] == topic.name && is_running(topic, one));
            TOPICS.iter().filter(begun).count() == TOPICS.len()
                && topics.iter().all(|one| one["records"].as_u64() > Some(1_000))
        })
    });

    hurter.run(&schedule::plan(settings.seed, settings.faults, settings.gap));

    let load: BTreeMap<_, _> = loads.into_iter().map(|(name, load)| (name, load.finish())).collect();
    let since = Instant::now();
    let mut wrong = Vec::new();
    let log_guard = catch_up(&hurter.grape, &mut wrong);
    let caught_up_seconds = since.elapsed().as_secs_f64();
    if !log_guard {
        wrong.push("the old records' partitions were not under the guard `log`".to_owned());
    }
    match hurter.grape.stop() {
        // By SIGTERM, after what was under way was finished.
        Some(143) => {}
        code => wrong.push(format!("the target's endpoint ended with {code:?} when it was told to stop")),
    }
    hurter.orange.stop();
    forgotten(&mut wrong);
    remember(None);
    let mut report = Report {
        seed: settings.seed,
        seconds: 0.0,
        records: 0,
        lost: 0,
        repeated: 0,
        rivals_records: hurter.rivals_records,
        caught_up_seconds,
        faults: hurter.counts.clone(),
        load,
        wrong,
        told: std::mem::take(&mut hurter.printed),
    };
    for topic in &TOPICS {
        compare(topic, &mut report);
    }
    for (name, count) in &report.faults {
        if count.bit < count.made {
            report.wrong.push(format!("{name}: {} of {} hit nothing", count.made - count.bit, count.made));
        }
    }
    for (topic, load) in &report.load {
        if load["acked"].as_u64().unwrap_or(0) == 0 {
            report.wrong.push(format!("nothing was written to {topic}: {load}"));
        }
    }
    report.seconds = begun.elapsed().as_secs_f64();
    if !report.wrong.is_empty() {
        let kept = keep_logs(settings.seed);
        report.wrong.push(format!("logs of brokers and endpoints are kept in {}", kept.display()));
    }
    report
}

/// Copies the logs of a run that failed to where they outlive the bed.
pub fn keep_logs(seed: u64) -> PathBuf {
    let into = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/chaos-replicator-{seed}"));
    Bed::get().keep_logs(&into);
    into
}

/// Sets how long grape's brokers remember producers, or gives them back their default.
fn remember(ms: Option<u64>) {
    let bed = Bed::get();
    let file = bed.client_file(Side::Grape).display().to_string();
    let change = match ms {
        Some(ms) => ["--add-config".to_owned(), format!("producer.id.expiration.ms={ms}")],
        None => ["--delete-config".to_owned(), "producer.id.expiration.ms".to_owned()],
    };
    let server = ["--bootstrap-server", Side::Grape.bootstrap(), "--command-config", &file];
    let what = ["--alter", "--entity-type", "brokers", "--entity-default", &change[0], &change[1]];
    bed.tool_ok(Side::Grape, "kafka.admin.ConfigCommand", &[&server[..], &what[..]].concat());
}

fn is_running(topic: &Topic, status: &Value) -> bool {
    status["partition_states"]["running"] == topic.partitions
}

/// Waits until nothing is left to copy. Whether the old records' partitions all said that they are guarded by the log.
fn catch_up(grape: &Endpoint, wrong: &mut Vec<String>) -> bool {
    let (since, mut still, mut log_guard, mut last) = (Instant::now(), 0, false, Value::Null);
    // Ends are told by the next answer of a source's broker, so it has to say so more than once.
    while still < 5 {
        if since.elapsed() > CATCH_UP {
            wrong.push(format!("not caught up {CATCH_UP:?} after the load: {:#}", last["flows"][0]));
            break;
        }
        std::thread::sleep(Duration::from_millis(500));
        let Some(status) = grape.status() else { continue };
        last = status;
        let flow = &last["flows"][0];
        let topics = flow["topics"].as_array().cloned().unwrap_or_default();
        let whole = TOPICS.iter().all(|wanted| {
            let topic = topics.iter().find(|topic| topic["source"] == wanted.name).unwrap_or(&Value::Null);
            log_guard |= wanted.kind == "old" && topic["guarded_by_log"] == wanted.partitions;
            is_running(wanted, topic)
        });
        still = if whole && flow["lag_records"] == 0 { still + 1 } else { 0 };
    }
    log_guard
}

/// Asks grape's brokers whom they remember: nobody who wrote the old records, somebody who wrote those of now.
fn forgotten(wrong: &mut Vec<String>) {
    let bed = Bed::get();
    let file = bed.client_file(Side::Grape).display().to_string();
    for topic in TOPICS.iter().filter(|topic| topic.kind != "txn") {
        let copy = copy_of(topic.name);
        let server = ["--bootstrap-server", Side::Grape.bootstrap(), "--command-config", &file];
        let what = ["describe-producers", "--topic", &copy, "--partition", "0"];
        let told =
            bed.tool_ok(Side::Grape, "org.apache.kafka.tools.TransactionsCommand", &[&server[..], &what[..]].concat());
        // A heading, then a line for each.
        let remembered = told.lines().count().saturating_sub(1);
        if (remembered == 0) != (topic.kind == "old") {
            wrong.push(format!("the leader of {copy}-0 remembers {remembered} producers:\n{told}"));
        }
    }
}

/// All records of a topic by partition, as a client reads them.
fn dump(side: Side, topic: &str, isolation: &str) -> Result<Vec<Vec<oracle::Seen>>, String> {
    let bed = Bed::get();
    let conf = bed.python_file(side).display().to_string();
    let folder = bed.dir.join(format!("dump-{topic}-{isolation}"));
    let args = ["dump", &conf, topic, isolation, folder.to_str().expect("UTF-8")];
    let output = bed.client_start(side, "chaos.py", &args).wait_with_output().expect("chaos.py ends");
    let counts: BTreeMap<usize, u64> = serde_json::from_slice(&output.stdout)
        .map_err(|_| format!("{topic} cannot be read: {}", String::from_utf8_lossy(&output.stderr)))?;
    let all = counts.keys().map(|partition| oracle::read(&folder.join(partition.to_string()))).collect();
    std::fs::remove_dir_all(&folder).expect("the dump is ours");
    Ok(all)
}

/// Holds a copy against its source, as both kinds of readers see it.
fn compare(topic: &Topic, report: &mut Report) {
    let copy = copy_of(topic.name);
    let source = match dump(Side::Orange, topic.name, "read_committed") {
        Ok(source) => source,
        Err(error) => return report.wrong.push(error),
    };
    report.records += source.iter().map(|partition| partition.len() as u64).sum::<u64>();
    for isolation in ["read_committed", "read_uncommitted"] {
        let seen = match dump(Side::Grape, &copy, isolation) {
            Ok(seen) => seen,
            Err(error) => return report.wrong.push(error),
        };
        for (partition, source) in source.iter().enumerate() {
            let difference = oracle::compare(source, seen.get(partition).map_or(&[], Vec::as_slice));
            if difference.is_none() {
                continue;
            }
            report.wrong.push(format!("{} partition {partition}, {isolation}: {difference}", topic.name));
            if isolation == "read_uncommitted" {
                report.lost += difference.lost;
                report.repeated += difference.repeated;
                let places = difference.again.iter().flat_map(|(_, before, again)| [*before, Some(*again)]).flatten();
                let first = difference.first.and_then(|(_, copy)| copy).map(|(offset, _)| offset);
                for at in first.into_iter().chain(places) {
                    report.wrong.push(stored(&copy, partition, at));
                }
            }
        }
    }
}

/// Who wrote what stands around an offset of a copy.
fn stored(topic: &str, partition: usize, at: i64) -> String {
    let bed = Bed::get();
    let name = format!("{topic}-{partition}");
    let folders = (0..3).map(|id| bed.dir.join(format!("grape/{id}/data")));
    let Some(folder) = folders.into_iter().find(|folder| folder.join(&name).is_dir()) else { return String::new() };
    let (partition, from, to) = (partition.to_string(), (at - 3).to_string(), (at + 3).to_string());
    let args = ["batches", folder.to_str().expect("UTF-8"), topic, &partition, &from, &to];
    let output = bed.client_start(Side::Grape, "chaos.py", &args).wait_with_output().expect("chaos.py ends");
    format!("  around offset {at} of {name}:\n{}", String::from_utf8_lossy(&output.stdout))
}
