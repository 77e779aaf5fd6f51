//! Unmodified clients in grape's network use orange's brokers, by their own names or by local addresses.

use std::fs;
use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::bed::{Bed, Endpoint, Side, TOPICS, finish_records};
use crate::config::Link;

/// What one client set-up needs: the Java file, the librdkafka file, and the bootstrap server.
pub struct Client {
    pub java: PathBuf,
    pub python: PathBuf,
    pub bootstrap: &'static str,
}

impl Client {
    /// What Kafka's own tool tells of a group's offsets.
    pub fn offsets(&self, group: &str) -> String {
        let java = self.java.to_str().expect("UTF-8");
        let args = ["--bootstrap-server", self.bootstrap, "--command-config", java, "--describe", "--group", group];
        let tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        Bed::get().tool_ok(Side::Grape, tool, &[&args[..], &["--offsets"]].concat())
    }
}

/// Admin client, producer, consumer and consumer group of Kafka 4.1, and librdkafka's, all from grape against orange.
pub fn everything_works(client: &Client, topic: &str) {
    let bed = Bed::get();
    let java = client.java.to_str().expect("UTF-8");
    let admin = |args: &[&str]| {
        let mut all = vec!["--bootstrap-server", client.bootstrap, "--command-config", java];
        all.extend(args);
        bed.tool_ok(Side::Grape, TOPICS, &all)
    };
    admin(&["--create", "--topic", topic, "--partitions", "6", "--replication-factor", "3"]);
    assert!(admin(&["--list"]).lines().any(|line| line == topic));
    let described = admin(&["--describe", "--topic", topic]);
    assert!(described.contains("PartitionCount: 6"), "{described}");

    let sent = bed.tool_ok(
        Side::Grape,
        "org.apache.kafka.tools.ProducerPerformance",
        &[
            "--topic",
            topic,
            "--num-records",
            "30000",
            "--record-size",
            "256",
            "--throughput",
            "-1",
            "--producer.config",
            java,
            "--producer-props",
            &format!("bootstrap.servers={}", client.bootstrap),
            "acks=all",
        ],
    );
    assert!(sent.contains("30000 records sent"), "{sent}");
    let read = bed.tool_ok(
        Side::Grape,
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &[
            "--bootstrap-server",
            client.bootstrap,
            "--consumer.config",
            java,
            "--topic",
            topic,
            "--group",
            &format!("{topic}-java"),
            "--from-beginning",
            "--max-messages",
            "30000",
            "--timeout-ms",
            "60000",
        ],
    );
    assert_eq!(read.lines().count(), 30_000);
    let groups = client.offsets(&format!("{topic}-java"));
    assert!(groups.contains(topic), "{groups}");

    let python = client.python.to_str().expect("UTF-8");
    let second = format!("{topic}.rdkafka");
    admin(&["--create", "--topic", &second, "--partitions", "3", "--replication-factor", "3"]);
    let listed = bed.records(Side::Grape, &["list", python]);
    assert!(listed["topics"].as_array().unwrap().iter().any(|name| name == &second), "{listed}");
    bed.records(Side::Grape, &["produce", python, &second, "3", "30000", "300", "zstd"]);
    let group = bed.records(Side::Grape, &["group", python, &second, &format!("{topic}-rdkafka"), "30000"]);
    assert_eq!(group["consumed"], 30_000);
    let digest = bed.records(Side::Grape, &["digest", python, &second]);
    let at_home = bed.records(Side::Orange, &["digest", bed.python_file(Side::Orange).to_str().unwrap(), &second]);
    assert_eq!(digest, at_home, "the same records through the tunnel and at home");
}

#[test]
fn names_mode_serves_every_client_by_the_brokers_own_names() {
    let bed = Bed::get();
    let link = Link { proxy: "mode = \"names\"\ndns_listen = [\"127.0.0.1:53\"]".into(), ..Link::default() };
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait_up(Duration::from_secs(10));
    // The very files that clients in orange use: SASL_SSL, host names verified.
    let client = Client {
        java: bed.client_file(Side::Orange),
        python: bed.python_file(Side::Orange),
        bootstrap: Side::Orange.bootstrap(),
    };
    everything_works(&client, "names.mode");
    let listed = bed.records(Side::Grape, &["list", client.python.to_str().unwrap()]);
    assert_eq!(
        listed["brokers"],
        serde_json::json!(["0=b0.orange.test:9092", "1=b1.orange.test:9092", "2=b2.orange.test:9092"])
    );
}

#[test]
fn rewrite_mode_never_shows_a_real_address() {
    let bed = Bed::get();
    let link = Link {
        proxy: "mode = \"rewrite\"\nlisten = \"127.0.0.1:19092\"\nports = \"19093-19120\"".into(),
        ..Link::default()
    };
    // Make leaks harmful: a leaked name would resolve here and be dialled, and the rule would count it.
    let hosts = bed.dir.join("grape/etc/hosts");
    let before = fs::read_to_string(&hosts).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&hosts).unwrap();
    for id in 0..3 {
        writeln!(file, "10.77.0.1{} b{id}.orange.test", id + 1).unwrap();
    }
    drop(file);
    let dialled = bed.counter(Side::Grape, "orange-broker-dialled");

    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait_up(Duration::from_secs(10));
    // The proxy speaks TLS to the brokers; clients speak plaintext to the proxy, SASL end to end.
    let java = bed.dir.join("rewrite.properties");
    fs::write(
        &java,
        "security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\nsasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"srckey\" password=\"orange-api-secret\";\n",
    )
    .unwrap();
    let python = bed.dir.join("rewrite.py.properties");
    fs::write(&python, format!("{}bootstrap.servers=127.0.0.1:19092\n", fs::read_to_string(&java).unwrap())).unwrap();
    let client = Client { java, python, bootstrap: "127.0.0.1:19092" };
    everything_works(&client, "rewrite.mode");
    let listed = bed.records(Side::Grape, &["list", client.python.to_str().unwrap()]);
    for broker in listed["brokers"].as_array().unwrap() {
        assert!(broker.as_str().unwrap().contains("=127.0.0.1:"), "{listed}");
    }

    // Leaders move while a producer and a consumer are at work: KIP-951 answers carry the new leaders' addresses.
    let config = client.java.to_str().unwrap();
    bed.tool_ok(
        Side::Grape,
        TOPICS,
        &[
            "--bootstrap-server",
            client.bootstrap,
            "--command-config",
            config,
            "--create",
            "--topic",
            "rewrite.moves",
            "--partitions",
            "6",
            "--replication-factor",
            "3",
        ],
    );
    let python = client.python.to_str().unwrap().to_owned();
    let produce = ["produce", &python, "rewrite.moves", "6", "300000", "200", "lz4"];
    let producer = bed.records_start(Side::Grape, &produce);
    for id in ["1", "2"] {
        bed.run(&["stop", "orange", id]);
        let sent = bed.tool(
            Side::Grape,
            "org.apache.kafka.tools.ProducerPerformance",
            &[
                "--topic",
                "rewrite.mode",
                "--num-records",
                "2000",
                "--record-size",
                "256",
                "--throughput",
                "-1",
                "--producer.config",
                config,
                "--producer-props",
                "bootstrap.servers=127.0.0.1:19092",
                "acks=all",
            ],
        );
        assert!(sent.status.success());
        bed.run(&["start", "orange", id]);
    }
    assert_eq!(finish_records(producer, &produce)["produced"], 300_000);
    let digest = bed.records(Side::Grape, &["digest", &python, "rewrite.moves", "300000"]);
    for partition in 0..6 {
        assert_eq!(digest[partition.to_string()]["missing"], 0, "{digest}");
        assert_eq!(digest[partition.to_string()]["distinct"], 50_000, "{digest}");
    }
    assert_eq!(bed.counter(Side::Grape, "orange-broker-dialled"), dialled, "a client dialled a real broker address");
    fs::write(&hosts, before).unwrap();
}
