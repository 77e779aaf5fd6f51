//! Clients without any credentials use orange's brokers: the proxy authenticates for them, on a listener whose sessions last 5 s.

use std::fs;
use std::time::{Duration, SystemTime};

use crate::bed::{Bed, Endpoint, Side, TOPICS, finish_records};
use crate::config::Link;
use crate::using::{Client, everything_works};

/// How long clients work through sessions of 5 s, in seconds: `LINKSPAN_CHAOS_SECONDS`, or a dozen renewals of each connection.
fn under_load() -> u64 {
    std::env::var("LINKSPAN_CHAOS_SECONDS").map_or(60, |text| text.parse().expect("a number of seconds"))
}

/// Grape's endpoint with `auth` under `[proxy]` towards the listener of short sessions.
fn start(auth: &str, security: &str) -> (Endpoint, Endpoint) {
    let bed = Bed::get();
    let link = Link {
        proxy: format!("mode = \"rewrite\"\nlisten = \"127.0.0.1:19092\"\nports = \"19093-19120\"\nauth = {auth}"),
        expose: "allow = [\"*.orange.test:9097\"]".into(),
        peer: Some(("b0.orange.test:9097".into(), security.replace("BED", bed.dir.to_str().expect("UTF-8")))),
        ..Link::default()
    };
    let orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait_up(Duration::from_secs(10));
    (orange, grape)
}

/// A client that knows of no security.
fn plain_client() -> Client {
    let bed = Bed::get();
    let java = bed.dir.join("offload.properties");
    fs::write(&java, "security.protocol=PLAINTEXT\n").unwrap();
    let python = bed.dir.join("offload.py.properties");
    fs::write(&python, "security.protocol=PLAINTEXT\nbootstrap.servers=127.0.0.1:19092\n").unwrap();
    Client { java, python, bootstrap: "127.0.0.1:19092" }
}

const SCRAM: &str = "{ protocol = \"SASL_SSL\", mechanism = \"SCRAM-SHA-512\", username = \"srckey\", password_file = \"BED/orange.pw\", ca_file = \"BED/tls/ca.pem\" }";

#[test]
fn offload_serves_clients_without_credentials() {
    let (_orange, grape) = start("true", SCRAM);
    everything_works(&plain_client(), "offload.mode");
    let status = grape.status().expect("a status");
    assert_eq!(status["proxy"]["refused"], serde_json::json!({}), "{status:#}");
}

#[test]
fn offload_renews_sessions_under_load_without_one_disconnect() {
    let (bed, seconds) = (Bed::get(), under_load());
    let (_orange, grape) = start("true", SCRAM);
    let client = plain_client();
    let topic = "offload.load";
    let java = client.java.to_str().unwrap();
    bed.tool_ok(
        Side::Grape,
        TOPICS,
        &["--bootstrap-server", client.bootstrap, "--command-config", java]
            .into_iter()
            .chain(["--create", "--topic", topic, "--partitions", "6", "--replication-factor", "3"])
            .collect::<Vec<_>>(),
    );
    let stream =
        ["stream", client.python.to_str().unwrap(), topic, "6", &seconds.to_string(), "256"].map(str::to_owned);
    let stream: Vec<&str> = stream.iter().map(String::as_str).collect();
    let streaming = bed.records_start(Side::Grape, &stream);
    // Java's producer at the same time: it says at this log level when a connection is lost.
    let rate = 500;
    let perf = bed.tool(
        Side::Grape,
        "org.apache.kafka.tools.ProducerPerformance",
        &[
            "--topic",
            topic,
            "--num-records",
            &(rate * seconds).to_string(),
            "--record-size",
            "256",
            "--throughput",
            &rate.to_string(),
            "--producer.config",
            java,
            "--producer-props",
            "bootstrap.servers=127.0.0.1:19092",
            "acks=all",
        ],
    );
    let said = String::from_utf8_lossy(&perf.stderr);
    assert!(perf.status.success() && !said.to_lowercase().contains("disconnect"), "{said}");
    let seen = finish_records(streaming, &stream);
    assert_eq!(seen["errors"], serde_json::json!([]), "{seen:#}");
    for (who, disconnects) in seen["disconnects"].as_object().expect("by client") {
        assert_eq!(disconnects, 0, "{who}: {seen:#}");
    }
    let status = grape.status().expect("a status");
    let renewals = status["proxy"]["reauthentications"].as_u64().expect("a count");
    // Nine connections at least (three clients, three brokers), a dozen renewals of each.
    assert!(renewals >= 9 * (seconds / 5 - 2), "{renewals} renewals");
    assert_eq!(status["proxy"]["refused"], serde_json::json!({}), "{status:#}");
    println!("{seconds} s in sessions of 5 s: {renewals} renewals, {} records read, no connection lost", seen["read"]);
}

/// A token as the bed's brokers take it: unsigned.
#[test]
fn offload_with_a_bearer_token_of_a_file() {
    use base64::Engine as _;
    let bed = Bed::get();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let part = |json: String| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json);
    let claims = format!("{{\"sub\":\"srckey\",\"iat\":{},\"exp\":{}}}", now - 10, now + 3600);
    let token = bed.dir.join("token");
    fs::write(&token, format!("{}.{}.\n", part("{\"alg\":\"none\"}".into()), part(claims))).unwrap();
    let auth = format!("{{ mechanism = \"OAUTHBEARER\", token_file = \"{}\" }}", token.display());
    let (_orange, grape) = start(&auth, SCRAM);
    everything_works(&plain_client(), "offload.bearer");
    let status = grape.status().expect("a status");
    assert_eq!(status["proxy"]["refused"], serde_json::json!({}), "{status:#}");

    // The file is read for each connection: what stands in it now is refused.
    fs::write(&token, "bm90IGE.dG9rZW4.").unwrap();
    let client = plain_client();
    let java = client.java.to_str().unwrap();
    let listed =
        bed.tool(Side::Grape, TOPICS, &["--bootstrap-server", client.bootstrap, "--command-config", java, "--list"]);
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(!listed.status.success() && said.contains("SASL_AUTHENTICATION_FAILED"), "{said}");
}

#[test]
fn offload_with_a_wrong_password_is_told_to_the_client_and_the_operator() {
    let bed = Bed::get();
    let wrong = "{ mechanism = \"PLAIN\", username = \"srckey\", password_file = \"BED/link.secret\" }";
    let (_orange, grape) = start(&wrong.replace("BED", bed.dir.to_str().unwrap()), SCRAM);
    let client = plain_client();
    let listed = bed.tool(
        Side::Grape,
        TOPICS,
        &["--bootstrap-server", client.bootstrap, "--command-config", client.java.to_str().unwrap(), "--list"],
    );
    assert!(!listed.status.success());
    let said = String::from_utf8_lossy(&listed.stderr);
    assert!(said.contains("SASL_AUTHENTICATION_FAILED"), "{said}");
    let status = grape.status().expect("a status");
    let reason = status["reasons"].as_array().unwrap().iter().find(|reason| reason["code"] == "LS503");
    assert!(reason.is_some(), "{status:#}");
    assert!(!grape.log().contains(crate::bed::SECRET), "the password stands in the log");
}
