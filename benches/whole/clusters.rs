//! Kafka under measurement: a consumer through mode `rewrite` beside a direct one, and the replicator beside MirrorMaker 2.
//!
//! Brokers, clients and both endpoints share this machine; what is compared runs one after the other on the same brokers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use crate::alone::Seen;
use crate::bed::{Bed, Endpoint, Side, TOPICS};
use crate::config::Link;
use crate::process::{Running, cpu_seconds};
use crate::{Effort, Figure};

const RECORD: u64 = 1024;
/// Kafka's clients compile themselves while they run: a rate counts from here on.
const WARM: u64 = 2 << 30;

/// Starts `alone …` of this program inside a network.
fn alone(side: Side, args: &[&str]) -> Running {
    let mut command = Bed::get().inside(side, &std::env::current_exe().unwrap());
    command.arg("alone").args(args).stdin(Stdio::null());
    Running::start(command)
}

/// A configuration file for [`alone`], in a folder of its own.
fn file_of(name: &str, text: &str) -> PathBuf {
    let dir = Bed::get().dir.join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("linkspan.toml"), text).unwrap();
    dir.join("linkspan.toml")
}

fn java_properties(name: &str, text: &str) -> String {
    let path = Bed::get().dir.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Fills `topic` on orange with `records` of 1 KiB in batches of 64 KiB.
fn fill(topic: &str, partitions: u32, records: u64, codec: &str) {
    let bed = Bed::get();
    bed.create_topic(Side::Orange, topic, partitions, 1, &[]);
    let plain = java_properties("plain.properties", "security.protocol=PLAINTEXT\n");
    bed.tool_ok(
        Side::Orange,
        "org.apache.kafka.tools.ProducerPerformance",
        &[
            "--topic",
            topic,
            "--num-records",
            &records.to_string(),
            "--record-size",
            &RECORD.to_string(),
            "--throughput",
            "-1",
            "--producer.config",
            &plain,
            "--producer-props",
            "bootstrap.servers=b0.orange.test:9095",
            "acks=1",
            "batch.size=65536",
            "linger.ms=20",
            "buffer.memory=67108864",
            &format!("compression.type={codec}"),
        ],
    );
}

/// MB/s that kafka-consumer-perf-test reads once it is warm: [`WARM`] bytes are read before its rate counts.
fn consume(network: Side, bootstrap: &str, config: &str, topic: &str, records: u64) -> f64 {
    let printed = Bed::get().tool_ok(
        network,
        "org.apache.kafka.tools.ConsumerPerformance",
        &[
            "--bootstrap-server",
            bootstrap,
            "--consumer.config",
            config,
            "--topic",
            topic,
            "--messages",
            &records.to_string(),
            "--timeout",
            "60000",
            "--show-detailed-stats",
            "--reporting-interval",
            "500",
        ],
    );
    // time, threadId, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec
    let steps = printed.lines().filter(|line| line.starts_with("20")).filter_map(|line| {
        let field = |at: usize| line.split(',').nth(at)?.trim().parse::<f64>().ok();
        Some((field(2)?, field(7)?))
    });
    let (mut before, mut read, mut took) = (0.0, 0.0, 0.0);
    for (total, milliseconds) in steps {
        if before * 1048576.0 >= WARM as f64 {
            read += total - before;
            took += milliseconds / 1e3;
        }
        before = total;
    }
    assert!(took > 0.0, "no warm step in {printed}");
    read * 1.048576 / took
}

/// A listener of orange's brokers, and how clients speak to it: directly, and to the rewriting proxy before it.
struct Listener {
    label: &'static str,
    port: u16,
    direct: String,
    local: String,
    upstream_tls: bool,
}

/// A consumer direct and through mode `rewrite` and the tunnel, by the same tool: at the listener that clients of orange use (TLS up to
/// the broker both times: the client's own, or linkspan's), and at the bare one, where a client costs least.
pub fn proxy(effort: Effort) -> Vec<Figure> {
    let records = 5_000_000;
    fill("bench.consume", 6, records, "none");
    let login = "sasl.mechanism=PLAIN\nsasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required username=\"srckey\" password=\"orange-api-secret\";\n";
    let listeners = [
        Listener {
            label: "SASL_SSL",
            port: 9092,
            direct: Bed::get().client_file(Side::Orange).to_str().unwrap().to_owned(),
            local: java_properties("sasl.properties", &format!("security.protocol=SASL_PLAINTEXT\n{login}")),
            upstream_tls: true,
        },
        Listener {
            label: "PLAINTEXT",
            port: 9095,
            direct: java_properties("plain.properties", "security.protocol=PLAINTEXT\n"),
            local: java_properties("plain.properties", "security.protocol=PLAINTEXT\n"),
            upstream_tls: false,
        },
    ];
    listeners.iter().flat_map(|listener| proxy_at(listener, records, effort)).collect()
}

fn proxy_at(listener: &Listener, records: u64, effort: Effort) -> Vec<Figure> {
    let (label, port) = (listener.label, listener.port);
    let mut proxy = "mode = \"rewrite\"\nlisten = \"127.0.0.1:19092\"\nports = \"19093-19120\"\n".to_owned();
    if !listener.upstream_tls {
        proxy.push_str("upstream_tls = false\n");
    }
    let link = Link { proxy, expose: format!("allow = [\"*.orange.test:{port}\"]"), ..Link::default() };
    let server = format!("b0.orange.test:{port}");
    let text = link.grape().replace(Side::Orange.bootstrap(), &server);
    let orange = Endpoint::start(Side::Orange, "bench", &link.orange());
    let grape = Endpoint::start(Side::Grape, "bench", &text);
    grape.wait_up(Duration::from_secs(10));
    let alone = alone(Side::Orange, &["rewrite", file_of("alone", &text).to_str().unwrap()]);
    let gigabytes = (records * RECORD) as f64 / 1e9;
    let (mut direct, mut by_itself, mut through) = (Vec::new(), Vec::new(), Vec::new());
    let (mut own_cost, mut cost) = (Vec::new(), Vec::new());
    for _ in 0..effort.runs {
        let read =
            |network, bootstrap: &str, config: &str| consume(network, bootstrap, config, "bench.consume", records);
        let measured = |network, ids: &[u32]| {
            let used = cpu_seconds(ids);
            let rate = read(network, "127.0.0.1:19092", &listener.local);
            (rate, (cpu_seconds(ids) - used) / gigabytes)
        };
        direct.push(read(Side::Orange, &server, &listener.direct));
        let (own, both) = (measured(Side::Orange, &[alone.id()]), measured(Side::Grape, &[orange.id(), grape.id()]));
        by_itself.push(own.0);
        own_cost.push(own.1);
        through.push(both.0);
        cost.push(both.1);
    }
    let direct = Figure::new(format!("consumer, {label}, direct"), "MB/s", &direct);
    let by_itself = Figure::new(format!("consumer, {label}, rewrite mode alone"), "MB/s", &by_itself).against(&direct);
    let through = Figure::new(format!("consumer, {label}, rewrite mode and tunnel"), "MB/s", &through).against(&direct);
    let own_cost = Figure::new(format!("rewrite mode alone, {label}, CPU"), "s/GB", &own_cost);
    let cost = Figure::new(format!("rewrite mode and tunnel, {label}, CPU both ends"), "s/GB", &cost);
    vec![direct, by_itself, through, own_cost, cost]
}

/// Waits inside grape until `topic` has all its records; what that cost each of `ids`.
fn watch(file: &Path, topic: &str, records: u64, ids: &[u32]) -> Seen {
    let mut command = Bed::get().inside(Side::Grape, &std::env::current_exe().unwrap());
    command.args(["alone", "watch"]).arg(file).args([topic, &records.to_string()]);
    let output = command.args(ids.iter().map(u32::to_string)).stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "the observer of {topic} failed");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// One copy: MB/s, MB for each CPU second of the replicator, and of replicator and both ends of the tunnel.
struct Copied {
    rate: f64,
    alone: Option<f64>,
    whole: Option<f64>,
}

impl Copied {
    /// `replicator` first of the observed processes, where it is one of its own.
    fn of(seen: &Seen, alone: bool, whole: bool) -> Self {
        let megabytes = (seen.records * RECORD) as f64 / 1e6;
        let all: f64 = seen.cpu.iter().sum();
        Self {
            rate: megabytes / seen.seconds,
            alone: alone.then(|| megabytes / seen.cpu[0]),
            whole: whole.then(|| megabytes / all),
        }
    }
}

/// Both replicators copy the same topic of orange into grape, to targets with one replica, through the same tunnel.
///
/// "Alone" is the replicator's own process beside the tunnel, the way MirrorMaker 2 runs: ours is the same flow, in a process
/// without a tunnel. "With both tunnel ends" adds the CPU of the tunnel's two processes; ours is then the product as it is run.
pub fn replicator(effort: Effort) -> Vec<Figure> {
    let mut figures = Vec::new();
    for codec in ["none", "lz4"] {
        let (topic, records) = (format!("bench.copy-{codec}"), 2_000_000);
        fill(&topic, 8, records, codec);
        let mut runs: [Vec<Copied>; 3] = Default::default();
        for run in 0..effort.runs.min(3) {
            let copies = [
                copy_with_linkspan(&topic, &format!(".ls{run}"), records),
                copy_alone(&topic, &format!(".al{run}"), records),
                copy_with_mirror_maker(&topic, run, records),
            ];
            for (copy, (name, all)) in
                copies.into_iter().zip(["linkspan", "alone", "mirrormaker 2"].iter().zip(&mut runs))
            {
                eprintln!(
                    "{name}, {codec}, run {run}: {:.1} MB/s, {:.1?} and {:.1?} MB/CPU-s",
                    copy.rate, copy.alone, copy.whole
                );
                all.push(copy);
            }
        }
        let [ours, alone, theirs] = &runs;
        let rates = |of: &[Copied]| of.iter().map(|copy| copy.rate).collect::<Vec<_>>();
        let own = |of: &[Copied]| of.iter().filter_map(|copy| copy.alone).collect::<Vec<_>>();
        let whole = |of: &[Copied]| of.iter().filter_map(|copy| copy.whole).collect::<Vec<_>>();
        let rate = Figure::new(format!("mirrormaker 2, {codec}"), "MB/s", &rates(theirs));
        let their_own = Figure::new(format!("mirrormaker 2, {codec}, per CPU second, alone"), "MB/CPU-s", &own(theirs));
        let their_whole = Figure::new(
            format!("mirrormaker 2, {codec}, per CPU second, both tunnel ends"),
            "MB/CPU-s",
            &whole(theirs),
        );
        figures.push(Figure::new(format!("linkspan, {codec}"), "MB/s", &rates(ours)).against(&rate));
        figures.push(
            Figure::new(format!("linkspan, {codec}, per CPU second, alone"), "MB/CPU-s", &own(alone))
                .against(&their_own),
        );
        figures.push(
            Figure::new(format!("linkspan, {codec}, per CPU second, both tunnel ends"), "MB/CPU-s", &whole(ours))
                .against(&their_whole),
        );
        figures.extend([rate, their_own, their_whole]);
    }
    figures
}

fn flow(topic: &str, suffix: &str) -> Link {
    let mut link = Link::copying(&topic.replace('.', "[.]"), &format!("${{topic}}{suffix}"));
    link.replicate.push_str("replication_factor = 1\n");
    link
}

/// Deletes a copy, so that each run finds the same disks.
fn delete(target: &str) {
    let config = Bed::get().client_file(Side::Grape);
    Bed::get().tool_ok(
        Side::Grape,
        TOPICS,
        &[
            "--bootstrap-server",
            Side::Grape.bootstrap(),
            "--command-config",
            config.to_str().unwrap(),
            "--delete",
            "--topic",
            target,
        ],
    );
}

fn copy_with_linkspan(topic: &str, suffix: &str, records: u64) -> Copied {
    let link = flow(topic, suffix);
    let file = file_of("watch", &link.grape());
    let orange = Endpoint::start(Side::Orange, "bench", &link.orange());
    let grape = Endpoint::start(Side::Grape, "bench", &link.grape());
    let target = format!("{topic}{suffix}");
    let copied = Copied::of(&watch(&file, &target, records, &[grape.id(), orange.id()]), false, true);
    drop((orange, grape));
    delete(&target);
    copied
}

/// A tunnel in mode `names`, by which a process in grape reaches orange's brokers.
fn tunnel() -> [Endpoint; 2] {
    let link = Link { proxy: "mode = \"names\"\ndns_listen = [\"127.0.0.1:53\"]".into(), ..Link::default() };
    let orange = Endpoint::start(Side::Orange, "bench", &link.orange());
    let grape = Endpoint::start(Side::Grape, "bench", &link.grape());
    grape.wait_up(Duration::from_secs(10));
    [grape, orange]
}

fn copy_alone(topic: &str, suffix: &str, records: u64) -> Copied {
    let _tunnel = tunnel();
    let file = file_of("alone", &flow(topic, suffix).grape());
    let process = alone(Side::Grape, &["copy", file.to_str().unwrap()]);
    let target = format!("{topic}{suffix}");
    let copied = Copied::of(&watch(&file, &target, records, &[process.id()]), true, false);
    drop(process);
    delete(&target);
    copied
}

/// MirrorMaker 2 of the same Kafka, tuned: several tasks, large batches and fetches.
fn copy_with_mirror_maker(topic: &str, run: usize, records: u64) -> Copied {
    let bed = Bed::get();
    let [grape, orange] = tunnel();
    let observer = file_of("watch", &flow(topic, "").grape());
    let client = |side: Side, alias: &str| {
        fs::read_to_string(bed.client_file(side))
            .unwrap()
            .lines()
            .filter(|l| !l.is_empty())
            .map(|line| format!("{alias}.{line}\n"))
            .collect::<String>()
    };
    let alias = format!("mm{run}");
    let properties = format!(
        "clusters = {alias}, grape\n{alias}.bootstrap.servers = {}\ngrape.bootstrap.servers = {}\n{}{}\
         {alias}->grape.enabled = true\n{alias}->grape.topics = {}\ngrape->{alias}.enabled = false\n\
         replication.factor = 1\ntasks.max = 4\nrefresh.topics.interval.seconds = 5\nsync.topic.acls.enabled = false\n\
         sync.topic.configs.enabled = false\nemit.heartbeats.interval.seconds = 60\n\
         checkpoints.topic.replication.factor = 1\nheartbeats.topic.replication.factor = 1\noffset-syncs.topic.replication.factor = 1\n\
         offset.storage.replication.factor = 1\nstatus.storage.replication.factor = 1\nconfig.storage.replication.factor = 1\n\
         {alias}.consumer.max.poll.records = 10000\n{alias}.consumer.fetch.max.bytes = 52428800\n{alias}.consumer.max.partition.fetch.bytes = 4194304\n\
         {alias}.consumer.receive.buffer.bytes = -1\n{alias}.consumer.fetch.min.bytes = 65536\n{alias}.consumer.auto.offset.reset = earliest\n\
         grape.producer.batch.size = 524288\ngrape.producer.linger.ms = 50\ngrape.producer.buffer.memory = 134217728\ngrape.producer.compression.type = {}\n\
         grape.producer.max.request.size = 4194304\n",
        Side::Orange.bootstrap(),
        Side::Grape.bootstrap(),
        client(Side::Orange, &alias),
        client(Side::Grape, "grape"),
        topic,
        if topic.ends_with("lz4") { "lz4" } else { "none" },
    );
    let file = bed.dir.join(format!("mm2-{run}.properties"));
    fs::write(&file, properties).unwrap();
    let target = format!("{alias}.{topic}");
    let log = fs::File::create(bed.dir.join(format!("mm2-{run}.log"))).unwrap();
    let mut command = bed.inside(Side::Grape, Path::new("java"));
    command.args([
        "-Xmx2g",
        "-cp",
        &format!("{}/*", bed.libs().display()),
        &format!("-Dlog4j2.configurationFile={}/log4j2.properties", bed.dir.display()),
    ]);
    command.args(["org.apache.kafka.connect.mirror.MirrorMaker", file.to_str().unwrap(), "--clusters", "grape"]);
    command.stdout(log.try_clone().unwrap()).stderr(log);
    let mirror = Running::start(command);
    // Its JVM's start is not counted: from the first record on.
    let copied = Copied::of(&watch(&observer, &target, records, &[mirror.id(), grape.id(), orange.id()]), true, true);
    drop(mirror);
    delete(&target);
    copied
}
