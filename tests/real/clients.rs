//! What grape's endpoint asks of clients and denies them: users, certificates, PROXY headers, a listener that only reads, rates. The
//! proxy authenticates with orange's brokers for all of them.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use crate::bed::{Bed, Endpoint, Side, TOPICS};
use crate::config::Link;
use crate::using::{Client, everything_works};

/// Where a load balancer stands before the proxy, and whom it names as the client.
const BALANCER: &str = "127.0.0.2";
const NAMED: &str = "203.0.113.50";
/// The proxy's bootstrap port and those of orange's three brokers.
const PORTS: [&str; 4] = ["19092", "19093", "19094", "19095"];

const PASSWORD: &str = "alice-own-secret";

/// Both endpoints; grape's asks `clients` of its clients and tells them to connect to `advertise`.
fn start(advertise: &str, clients: &str) -> (Endpoint, Endpoint) {
    let bed = Bed::get().dir.display().to_string();
    let security = "{ protocol = \"SASL_SSL\", mechanism = \"SCRAM-SHA-512\", username = \"srckey\", password_file = \"BED/orange.pw\", ca_file = \"BED/tls/ca.pem\" }";
    let link = Link {
        proxy: format!(
            "mode = \"rewrite\"\nlisten = \"127.0.0.1:19092\"\nadvertise = \"{advertise}\"\nports = \"19093-19120\"\nauth = true\n[proxy.clients]\n{}",
            clients.replace("BED", &bed)
        ),
        expose: "allow = [\"*.orange.test:9097\"]".into(),
        peer: Some(("b0.orange.test:9097".into(), security.replace("BED", &bed))),
        ..Link::default()
    };
    let orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait_up(Duration::from_secs(10));
    (orange, grape)
}

/// A file of users with alice in it, as the operator makes it.
fn users() {
    let bed = Bed::get();
    let file = bed.dir.join("users");
    let _ = fs::remove_file(&file);
    let mut adding = bed
        .inside(Side::Grape, &bed.linkspan)
        .args(["users", "add", "alice", "--file"])
        .arg(&file)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    writeln!(adding.stdin.take().unwrap(), "{PASSWORD}").unwrap();
    assert!(adding.wait().unwrap().success());
    assert!(!fs::read_to_string(&file).unwrap().contains(PASSWORD));
}

/// A CA, and of it a certificate for the proxy and one for a client, each with its key in one PEM file for Java.
fn certificates() {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    let dir = &Bed::get().dir;
    // One whose subject is its issuer's is taken for one that signed itself.
    let named = |name: &str, names: Vec<String>| {
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut params = named("clients-ca", Vec::new());
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    fs::write(dir.join("clients-ca.pem"), issuer.pem()).unwrap();
    for (file, names) in
        [("proxy", vec!["127.0.0.1".to_owned(), BALANCER.to_owned()]), ("client", vec!["client".to_owned()])]
    {
        let key = KeyPair::generate().unwrap();
        let cert = named(file, names).signed_by(&key, &issuer).unwrap().pem();
        fs::write(dir.join(format!("{file}.pem")), &cert).unwrap();
        fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
        fs::write(dir.join(format!("{file}-store.pem")), format!("{}{cert}", key.serialize_pem())).unwrap();
    }
}

/// Files of a Java and a librdkafka client with these properties, which may differ in their SASL mechanism.
fn client(bootstrap: &'static str, properties: &str, java: &str, python: &str) -> Client {
    let dir = &Bed::get().dir;
    let properties = properties.replace("BED", dir.to_str().unwrap());
    let (java_file, python_file) = (dir.join("clients.properties"), dir.join("clients.py.properties"));
    fs::write(&java_file, format!("{properties}\n{java}\n")).unwrap();
    fs::write(&python_file, format!("{properties}\n{python}\nbootstrap.servers={bootstrap}\n")).unwrap();
    Client { java: java_file, python: python_file, bootstrap }
}

fn jaas(module: &str, password: &str) -> String {
    format!(
        "sasl.jaas.config=org.apache.kafka.common.security.{module}LoginModule required username=\"alice\" password=\"{password}\";"
    )
}

/// What a tool says that must fail.
fn refused(client: &Client, class: &str, args: &[&str]) -> String {
    let mut all = vec!["--bootstrap-server", client.bootstrap, "--command-config", client.java.to_str().unwrap()];
    all.extend(args);
    let output = Bed::get().tool(Side::Grape, class, &all);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success(), "{class} {args:?}: {said}");
    said
}

#[test]
fn clients_are_users_of_the_proxy_by_plain_over_tls_and_by_scram() {
    users();
    certificates();
    let tls = "tls = { cert_file = \"BED/proxy.pem\", key_file = \"BED/proxy.key\" }\nusers_file = \"BED/users\"";
    let (_orange, grape) = start("127.0.0.1", tls);
    let common = "security.protocol=SASL_SSL\nssl.truststore.type=PEM\nssl.truststore.location=BED/clients-ca.pem";
    let scram = format!("sasl.mechanism=SCRAM-SHA-512\n{}", jaas("scram.Scram", PASSWORD));
    let plain = format!("sasl.mechanism=PLAIN\n{}", jaas("plain.Plain", PASSWORD));
    everything_works(&client("127.0.0.1:19092", common, &plain, &scram), "clients.users");
    let status = grape.status().expect("a status");
    assert_eq!(status["proxy"]["refused"], serde_json::json!({}), "{status:#}");

    let scram = format!("sasl.mechanism=SCRAM-SHA-256\n{}", jaas("scram.Scram", PASSWORD));
    let wrong = format!("sasl.mechanism=PLAIN\n{}", jaas("plain.Plain", "guessed"));
    let said = refused(&client("127.0.0.1:19092", common, &wrong, &scram), TOPICS, &["--list"]);
    assert!(said.contains("wrong user name or password"), "{said}");
    let said =
        refused(&client("127.0.0.1:19092", common, &scram.replace(PASSWORD, "guessed"), &scram), TOPICS, &["--list"]);
    assert!(said.contains("SaslAuthenticationException"), "{said}");
    let listed =
        Bed::get().records(Side::Grape, &["list", Bed::get().dir.join("clients.py.properties").to_str().unwrap()]);
    assert!(listed["topics"].as_array().unwrap().iter().any(|name| name == "clients.users"), "{listed}");
    let log = grape.log();
    assert!(!log.contains(PASSWORD) && !log.contains("guessed"), "a password stands in the log");
}

/// The load balancer, until it is dropped.
struct Balancer(Child);

impl Balancer {
    fn start() -> Self {
        let args = [&[BALANCER, "127.0.0.1", NAMED], &PORTS[..]].concat();
        let mut child = Bed::get().client_start(Side::Grape, "proxy_header.py", &args);
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        Self(child)
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn clients_with_certificates_are_served_behind_a_load_balancer() {
    certificates();
    let asked = "tls = { cert_file = \"BED/proxy.pem\", key_file = \"BED/proxy.key\", client_ca_file = \"BED/clients-ca.pem\" }\nproxy_protocol = true\nconnections = 200";
    let (_orange, grape) = start(BALANCER, asked);
    let _balancer = Balancer::start();
    let common = "security.protocol=SSL\nssl.truststore.type=PEM\nssl.truststore.location=BED/clients-ca.pem";
    let with = format!("{common}\nssl.keystore.type=PEM\nssl.keystore.location=BED/client-store.pem");
    everything_works(&client("127.0.0.2:19092", &with, "", ""), "clients.certificates");
    let status = grape.status().expect("a status");
    assert_eq!(status["proxy"]["refused"], serde_json::json!({}), "{status:#}");
    // Nothing but the header says so: every connection came from this host.
    let properties = Bed::get().dir.join("clients.py.properties");
    let stream = ["group", properties.to_str().unwrap(), "clients.certificates", "named", "1000"];
    Bed::get().records(Side::Grape, &stream);

    let without = client("127.0.0.2:19092", common, "default.api.timeout.ms=8000\nrequest.timeout.ms=4000", "");
    let said = refused(&without, TOPICS, &["--list"]);
    assert!(said.contains("SSL") || said.contains("certificate"), "{said}");
    // Past the load balancer there is no header.
    let past = client("127.0.0.1:19092", &with, "default.api.timeout.ms=8000\nrequest.timeout.ms=4000", "");
    refused(&past, TOPICS, &["--list"]);
    let status = grape.status().expect("a status");
    let refused = &status["proxy"]["refused"];
    assert!(
        refused["TLS with a client"].as_u64() >= Some(1) && refused["PROXY header"].as_u64() >= Some(1),
        "{refused}"
    );
    let log = grape.log();
    assert!(log.contains(NAMED), "the log names the client that the header names:\n{log}");
}

#[test]
fn clients_that_only_read_are_refused_all_else_in_kafkas_words() {
    let bed = Bed::get();
    users();
    let (_orange, grape) = start(
        "127.0.0.1",
        "users_file = \"BED/users\"\nread_only = true\ndeny = [\"DescribeAcls\"]\nbytes_out_per_second = \"1MiB\"",
    );
    let sasl =
        format!("security.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-256\n{}", jaas("scram.Scram", PASSWORD));
    let client = client("127.0.0.1:19092", &sasl, "", "");
    let (java, python) = (client.java.to_str().unwrap(), client.python.to_str().unwrap());
    let home = bed.python_file(Side::Orange);
    let home = home.to_str().unwrap();
    let topic = "clients.readers";
    bed.create_topic(Side::Orange, topic, 3, 3, &[]);
    let digest_before = {
        bed.records(Side::Orange, &["produce", home, topic, "3", "12000", "1000", "none"]);
        bed.records(Side::Orange, &["digest", home, topic])
    };

    // Reading: twelve megabytes at one a second, a second's worth at once; every record; the group's offsets are kept.
    let begun = Instant::now();
    let read = bed.tool(
        Side::Grape,
        "org.apache.kafka.tools.consumer.ConsoleConsumer",
        &["--bootstrap-server", client.bootstrap, "--consumer.config", java, "--topic", topic, "--group", "readers"]
            .into_iter()
            .chain(["--from-beginning", "--max-messages", "12000", "--timeout-ms", "60000"])
            .collect::<Vec<_>>(),
    );
    let took = begun.elapsed();
    let said = String::from_utf8_lossy(&read.stderr);
    assert!(read.status.success() && said.contains("Processed a total of 12000 messages"), "{said}");
    assert!(took >= Duration::from_secs(9), "12 MB within {took:?} at 1 MiB/s");
    let groups = client.offsets("readers");
    assert!(groups.contains(topic) && groups.contains("4000"), "{groups}");
    assert_eq!(bed.records(Side::Grape, &["digest", python, topic]), digest_before);

    // Writing and administering, as each tool tells its user.
    let why = |api: &str| format!("{api} is not allowed to clients of this proxy (linkspan, proxy.clients)");
    let said = refused(
        &client,
        TOPICS,
        &["--create", "--topic", "clients.new", "--partitions", "1", "--replication-factor", "1"],
    );
    assert!(said.contains("TopicAuthorizationException") && said.contains(&why("CreateTopics")), "{said}");
    let said = refused(&client, TOPICS, &["--delete", "--topic", topic]);
    assert!(said.contains("TopicAuthorizationException") && said.contains(&why("DeleteTopics")), "{said}");
    let said = refused(&client, TOPICS, &["--alter", "--topic", topic, "--partitions", "6"]);
    assert!(said.contains("TopicAuthorizationException") && said.contains(&why("CreatePartitions")), "{said}");
    let said = refused(
        &client,
        "kafka.admin.ConfigCommand",
        &["--alter", "--entity-type", "topics", "--entity-name", topic, "--add-config", "retention.ms=1000"],
    );
    assert!(said.contains(&why("IncrementalAlterConfigs")), "{said}");
    let said = refused(
        &client,
        "org.apache.kafka.tools.AclCommand",
        &["--add", "--allow-principal", "User:eve", "--operation", "Read", "--topic", topic],
    );
    assert!(said.contains(&why("CreateAcls")), "{said}");
    let said = refused(&client, "org.apache.kafka.tools.AclCommand", &["--list"]);
    assert!(said.contains(&why("DescribeAcls")), "{said}");

    // Java's producer, with idempotence and without; librdkafka's.
    let perf = |more: &[&str]| {
        let mut args = vec!["--topic", topic, "--num-records", "10", "--record-size", "100", "--throughput", "-1"];
        args.extend(["--producer.config", java, "--producer-props", "bootstrap.servers=127.0.0.1:19092"]);
        args.extend(more);
        let output = bed.tool(Side::Grape, "org.apache.kafka.tools.ProducerPerformance", &args);
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let said = perf(&["acks=all"]);
    assert!(said.contains("ClusterAuthorizationException"), "{said}");
    let said = perf(&["acks=1", "enable.idempotence=false"]);
    assert!(said.contains("TopicAuthorizationException") && said.contains(topic), "{said}");
    let output = bed.records_start(Side::Grape, &["produce", python, topic, "3", "10", "100", "none"]);
    let output = output.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success() && said.contains("uthorization"), "{said}");

    // Nothing of it was done, and each is counted; the log has a line for each client and API.
    assert_eq!(bed.records(Side::Orange, &["digest", home, topic]), digest_before);
    let listed = bed.records(Side::Orange, &["list", home]);
    assert!(!listed["topics"].as_array().unwrap().iter().any(|name| name == "clients.new"), "{listed}");
    let status = grape.status().expect("a status");
    let denied = status["proxy"]["denied"].as_object().expect("by API");
    for api in [
        "Produce",
        "InitProducerId",
        "CreateTopics",
        "DeleteTopics",
        "CreatePartitions",
        "IncrementalAlterConfigs",
        "CreateAcls",
        "DescribeAcls",
    ] {
        assert!(denied.get(api).and_then(serde_json::Value::as_u64) >= Some(1), "{api}: {denied:?}");
    }
    let denials = status["proxy"]["denials"].as_array().expect("a list");
    assert!(denials.len() == denied.len() && denials.iter().all(|denial| denial["client"] == "alice"), "{denials:?}");
    assert_eq!(grape.log().matches("LS504").count(), denials.len(), "{}", grape.log());
    assert!(status["proxy"]["paused_out_ms"].as_u64() >= Some(8_000), "{status:#}");
}
