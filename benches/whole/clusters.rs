//! Kafka under measurement: a consumer through mode `rewrite` beside a direct one, and the replicator beside MirrorMaker 2.
//!
//! Brokers, clients and both endpoints share this machine; what is compared runs one after the other on the same brokers.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::bed::{Bed, Endpoint, Side, TOPICS};
use crate::config::Link;
use crate::process::{Running, cpu_seconds, family};
use crate::{Effort, Figure};

const RECORD: u64 = 1024;

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

/// MB/s as kafka-consumer-perf-test counts them, without its start.
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
        ],
    );
    // start.time, end.time, data.consumed.in.MB, MB.sec, data.consumed.in.nMsg, nMsg.sec, rebalance.time.ms, fetch.time.ms, fetch.MB.sec, fetch.nMsg.sec
    let line = printed.lines().rfind(|line| line.starts_with("20")).unwrap_or_else(|| panic!("no result in {printed}"));
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    fields[8].parse().unwrap_or_else(|_| panic!("no fetch.MB.sec in {line}"))
}

/// A consumer direct and through mode `rewrite` and the tunnel: same topic, same tool, PLAINTEXT on the consumer's side both times.
pub fn proxy(effort: Effort) -> Vec<Figure> {
    let records = 1_500_000;
    fill("bench.consume", 6, records, "none");
    let plain = java_properties("plain.properties", "security.protocol=PLAINTEXT\nmax.partition.fetch.bytes=1048576\n");
    let link = Link {
        proxy: "mode = \"rewrite\"\nlisten = \"127.0.0.1:19092\"\nports = \"19093-19120\"\nupstream_tls = false".into(),
        ..Link::default()
    };
    // The listener without TLS and SASL: the relay is measured, not the client's TLS.
    let plain_listener = |text: String| text.replace("b0.orange.test:9092", "b0.orange.test:9095");
    let orange = Endpoint::start(
        Side::Orange,
        "bench",
        &link.orange().replace("[expose]\n", "[expose]\nallow = [\"*.orange.test:9095\"]\n"),
    );
    let grape = Endpoint::start(Side::Grape, "bench", &plain_listener(link.grape()));
    grape.wait_up(Duration::from_secs(10));
    let ids = [orange.id(), grape.id()];
    let (mut direct, mut through, mut cost) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..effort.runs {
        direct.push(consume(Side::Orange, "b0.orange.test:9095", &plain, "bench.consume", records));
        let used = cpu_seconds(&ids);
        through.push(consume(Side::Grape, "127.0.0.1:19092", &plain, "bench.consume", records));
        cost.push((cpu_seconds(&ids) - used) / ((records * RECORD) as f64 / 1e9));
    }
    eprintln!("consumer: direct {direct:?} MB/s, through {through:?} MB/s, {cost:?} s/GB");
    let direct = Figure::new("consumer, direct", "MB/s", &direct);
    let through = Figure::new("consumer, rewrite mode through the tunnel", "MB/s", &through).against(&direct);
    vec![direct, through, Figure::new("rewrite mode and tunnel, CPU both ends", "s/GB", &cost)]
}

/// The end offsets of a topic on grape, summed.
fn copied(topic: &str) -> u64 {
    let bed = Bed::get();
    let config = bed.client_file(Side::Grape);
    let printed = bed.tool(
        Side::Grape,
        "org.apache.kafka.tools.GetOffsetShell",
        &[
            "--bootstrap-server",
            Side::Grape.bootstrap(),
            "--command-config",
            config.to_str().unwrap(),
            "--topic",
            topic,
        ],
    );
    String::from_utf8_lossy(&printed.stdout)
        .lines()
        .filter_map(|line| line.rsplit(':').next()?.parse::<u64>().ok())
        .sum()
}

fn wait_copied(topic: &str, records: u64) {
    let since = Instant::now();
    while copied(topic) < records {
        assert!(since.elapsed() < Duration::from_secs(900), "{topic}: {} of {records} records", copied(topic));
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Both replicators copy the same topic of orange into grape, through the same tunnel, to targets with one replica.
pub fn replicator(effort: Effort) -> Vec<Figure> {
    let mut figures = Vec::new();
    for codec in ["none", "lz4"] {
        let (topic, records) = (format!("bench.copy-{codec}"), 1_000_000);
        fill(&topic, 8, records, codec);
        let gigabytes = (records * RECORD) as f64 / 1e9;
        let (mut ours, mut our_cost, mut theirs, mut their_cost) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for run in 0..effort.runs.min(3) {
            let (rate, cost) = copy_with_linkspan(&topic, &format!(".ls{run}"), records, gigabytes);
            eprintln!("linkspan, {codec}, run {run}: {rate:.1} MB/s, {cost:.1} MB/CPU-s");
            ours.push(rate);
            our_cost.push(cost);
            let (rate, cost) = copy_with_mirror_maker(&topic, run, records, gigabytes);
            eprintln!("mirrormaker 2, {codec}, run {run}: {rate:.1} MB/s, {cost:.1} MB/CPU-s");
            theirs.push(rate);
            their_cost.push(cost);
        }
        let theirs = Figure::new(format!("mirrormaker 2, {codec}"), "MB/s", &theirs);
        let their_cost = Figure::new(format!("mirrormaker 2, {codec}, bytes per CPU second"), "MB/CPU-s", &their_cost);
        figures.push(Figure::new(format!("linkspan, {codec}"), "MB/s", &ours).against(&theirs));
        figures.push(
            Figure::new(format!("linkspan (both endpoints), {codec}, bytes per CPU second"), "MB/CPU-s", &our_cost)
                .against(&their_cost),
        );
        figures.extend([theirs, their_cost]);
    }
    figures
}

fn copy_with_linkspan(topic: &str, suffix: &str, records: u64, gigabytes: f64) -> (f64, f64) {
    let mut link = Link::copying(&topic.replace('.', "[.]"), &format!("${{topic}}{suffix}"));
    link.replicate.push_str("replication_factor = 1\n");
    let orange = Endpoint::start(Side::Orange, "bench", &link.orange());
    let grape = Endpoint::start(Side::Grape, "bench", &link.grape());
    let ids = [orange.id(), grape.id()];
    // From the first record to the last: what comes before is start-up, for both replicators.
    let copied = |status: &serde_json::Value| status["flows"][0]["records_total"].as_u64().unwrap_or(0);
    grape.wait("first record", Duration::from_secs(60), |status| copied(status) > 0);
    let (since, first) = (Instant::now(), grape.status().map_or(0, |status| copied(&status)));
    grape.wait("all records", Duration::from_secs(600), |status| copied(status) >= records);
    let share = (records - first) as f64 / records as f64;
    (gigabytes * 1e3 * share / since.elapsed().as_secs_f64(), gigabytes * 1e3 / cpu_seconds(&ids))
}

/// MirrorMaker 2 of the same Kafka, tuned: several tasks, large batches and fetches. It reaches orange through linkspan's tunnel in mode
/// `names`, whose CPU is not counted for it.
fn copy_with_mirror_maker(topic: &str, run: usize, records: u64, gigabytes: f64) -> (f64, f64) {
    let bed = Bed::get();
    let link = Link { proxy: "mode = \"names\"\ndns_listen = [\"127.0.0.1:53\"]".into(), ..Link::default() };
    let _orange = Endpoint::start(Side::Orange, "bench", &link.orange());
    let grape = Endpoint::start(Side::Grape, "bench", &link.grape());
    grape.wait_up(Duration::from_secs(10));
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
    let since = Instant::now();
    while copied(&target) == 0 {
        assert!(since.elapsed() < Duration::from_secs(180), "MirrorMaker 2 does not start; see {}", bed.dir.display());
        std::thread::sleep(Duration::from_millis(200));
    }
    // Its JVM's start is not counted: from the first record on.
    let (since, first, used) = (Instant::now(), copied(&target), cpu_seconds(&family(mirror.id())));
    wait_copied(&target, records);
    let share = (records - first) as f64 / records as f64;
    let (took, used) = (since.elapsed().as_secs_f64(), cpu_seconds(&family(mirror.id())) - used);
    let config = bed.client_file(Side::Grape);
    bed.tool_ok(
        Side::Grape,
        TOPICS,
        &[
            "--bootstrap-server",
            Side::Grape.bootstrap(),
            "--command-config",
            config.to_str().unwrap(),
            "--delete",
            "--topic",
            &target,
        ],
    );
    (gigabytes * 1e3 * share / took, gigabytes * 1e3 * share / used)
}
