//! What must not work does not, and says why.

use std::time::Duration;

use crate::bed::{Bed, Endpoint, ORANGE_WAN, Side, TUNNEL_PORT};
use crate::config::Link;

/// Runs Python inside a network; its standard output.
fn python(side: Side, code: &str) -> String {
    let output =
        Bed::get().inside(side, std::path::Path::new("python3")).args(["-c", code]).output().expect("python3 runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn the_exit_refuses_what_is_not_allowed() {
    let link = Link {
        proxy: "mode = \"names\"\ndns_listen = [\"127.0.0.1:53\"]\nports = [9092, 9095]".into(),
        ..Link::default()
    };
    let orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait_up(Duration::from_secs(10));
    // b9.orange.test is in the zone, so it has a local address, but orange's operator never allowed it; nor port 9095 of b0.
    for target in ["('b9.orange.test', 9092)", "('b0.orange.test', 9095)"] {
        let seen = python(
            Side::Grape,
            &format!(
                "import socket\ntry:\n  s=socket.create_connection({target}, 5)\n  s.settimeout(15)\n  s.sendall(b'x'*8); print(s.recv(1))\nexcept ConnectionResetError: print('reset')"
            ),
        );
        assert_eq!(seen, "reset", "{target}");
    }
    assert_eq!(orange.status().expect("status")["exit"]["refused"], 2);
}

#[test]
fn a_peer_with_a_wrong_secret_gets_nothing_and_both_sides_say_so() {
    let link = Link::default();
    let other = Bed::get().dir.join("other.secret");
    std::fs::write(&other, "Zk3uPq9XwB7nRt5LmV1cYs8dHf2gJe6aQo4iTx0yNzE").unwrap();
    let orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape().replace("link.secret", "other.secret"));
    grape.wait("wrong secret named", Duration::from_secs(10), |status| {
        status["tunnel"]["last_error"].as_str().is_some_and(|error| error.contains("secret"))
    });
    assert_ne!(grape.status().expect("status")["tunnel"]["state"], "up");
    assert_ne!(orange.status().expect("status")["tunnel"]["state"], "up");
    assert_eq!(orange.status().expect("status")["tunnel"]["streams"], 0);
}

#[test]
fn one_port_is_open_in_all() {
    let link = Link { proxy: "mode = \"names\"\ndns_listen = [\"127.0.0.1:53\"]".into(), ..Link::default() };
    let orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait_up(Duration::from_secs(10));
    let scan = |address: &str| {
        format!(
            "import asyncio\nasync def one(p, gate, found):\n  async with gate:\n    try:\n      r, w = await asyncio.wait_for(asyncio.open_connection('{address}', p), 0.4)\n      found.append(p); w.close()\n    except (OSError, asyncio.TimeoutError): pass\nasync def main():\n  gate, found = asyncio.Semaphore(900), []\n  await asyncio.gather(*(one(p, gate, found) for p in range(1, 65536)))\n  print(sorted(found))\nasyncio.run(main())"
        )
    };
    assert_eq!(python(Side::Grape, &scan(ORANGE_WAN)), format!("[{TUNNEL_PORT}]"));
    assert_eq!(python(Side::Orange, &scan(crate::bed::GRAPE_WAN)), "[]");
    let rules = orange.linkspan(&["firewall", "-o", "json"]);
    let rules: serde_json::Value = serde_json::from_slice(&rules.stdout).expect("JSON");
    assert!(rules.to_string().contains(&TUNNEL_PORT.to_string()), "{rules}");
}

#[test]
fn strange_bytes_on_the_tunnel_port_are_named_and_harm_nothing() {
    let link = Link::default();
    let orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait_up(Duration::from_secs(10));
    for bytes in [
        "b'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'",
        "b'\\x16\\x03\\x01\\x02\\x00\\x01\\x00\\x01\\xfc\\x03\\x03' + bytes(64)",
        "b'SSH-2.0-OpenSSH_9.2\\r\\n'",
        "__import__('os').urandom(4096)",
    ] {
        let seen = python(
            Side::Grape,
            &format!(
                "import socket\ntry:\n  s=socket.create_connection(('{ORANGE_WAN}', {TUNNEL_PORT}), 5)\n  s.settimeout(15)\n  s.sendall({bytes}); print(s.recv(100))\nexcept ConnectionResetError: print(b'')"
            ),
        );
        assert_eq!(seen, "b''", "an answer to {bytes}");
    }
    let log = orange.log();
    assert!(log.contains("HTTP"), "{log}");
    assert_eq!(grape.status().expect("status")["tunnel"]["state"], "up");
}

#[test]
fn a_wrong_password_is_named_once_and_retried() {
    let bed = Bed::get();
    std::fs::write(bed.dir.join("wrong.pw"), "not-the-password").unwrap();
    let link = Link::copying("eu[.]xaz[.].*", "${topic}.copy");
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape().replace("orange.pw", "wrong.pw"));
    grape.wait("wrong password named", Duration::from_secs(20), |status| {
        status["flows"][0]["last_error"].as_str().is_some_and(|error| error.to_lowercase().contains("authentication"))
    });
    let check = grape.linkspan(&["check"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(!check.status.success() && text.to_lowercase().contains("password"), "{text}");
    let lines = grape.log().lines().filter(|line| line.to_lowercase().contains("authentication")).count();
    assert!((1..=6).contains(&lines), "{lines} log lines about one wrong password");
    assert!(!grape.log().contains("not-the-password"));
}

#[test]
fn a_half_reachable_source_is_named_by_its_broker() {
    let bed = Bed::get();
    let link = Link::copying("eu[.]xaz[.].*", "${topic}.copy");
    let _orange = Endpoint::start(Side::Orange, "link", &link.orange());
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait_up(Duration::from_secs(10));
    // The exit's host can no longer reach broker 2; the cluster itself is well.
    bed.run(&[
        "exec",
        "orange",
        "--",
        "nft",
        "add",
        "chain",
        "inet",
        "wire",
        "cut",
        "{ type filter hook output priority 0; policy accept; }",
    ]);
    bed.run(&[
        "exec",
        "orange",
        "--",
        "nft",
        "add",
        "rule",
        "inet",
        "wire",
        "cut",
        "ip",
        "daddr",
        "10.77.0.13",
        "tcp",
        "dport",
        "9092",
        "reject",
        "with",
        "tcp",
        "reset",
    ]);
    let check = grape.linkspan(&["check"]);
    bed.run(&["exec", "orange", "--", "nft", "flush", "chain", "inet", "wire", "cut"]);
    let text = String::from_utf8_lossy(&check.stdout).into_owned();
    assert_eq!(check.status.code(), Some(1), "{text}");
    assert!(text.contains("b2.orange.test:9092") && text.contains("fix:"), "{text}");
}

#[test]
fn both_dialling_and_both_listening_are_told() {
    let link = Link::default();
    let grape = Endpoint::start(Side::Grape, "link", &link.grape());
    grape.wait("nobody listens", Duration::from_secs(15), |status| {
        status["tunnel"]["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("refused") || error.contains("did not answer"))
    });
    drop(grape);
    let grape = Endpoint::start(
        Side::Grape,
        "link",
        &link.grape().replace(&format!("dial = \"{ORANGE_WAN}:{TUNNEL_PORT}\""), "listen = \"0.0.0.0:7443\""),
    );
    grape.wait("nobody dials", Duration::from_secs(15), |status| status["reasons"].to_string().contains("dial"));
}

#[test]
fn a_port_in_use_stops_the_start_with_its_name() {
    let link = Link::default();
    let orange = Endpoint::start(Side::Orange, "link", &link.orange());
    orange.wait("running", Duration::from_secs(10), |_| true);
    let bed = Bed::get();
    let mut second = bed.inside(Side::Orange, &bed.linkspan);
    let output =
        second.args(["run", "--config"]).arg(orange.dir().join("linkspan.toml")).output().expect("linkspan runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(!output.status.success() && text.contains("in use"), "{text}");
}
