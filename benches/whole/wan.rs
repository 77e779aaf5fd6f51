//! A long way: one stream over an emulated link, beside one plain TCP connection and OpenSSH forwarding over the same link, in
//! this one run.
//!
//! The link is made by a WAN emulator named by `WAN_BIN` (two namespaces `$WAN_A_NS` and `$WAN_B_NS`, delay, rate, loss; it needs
//! root); without one this area is left out. Data flows from b to a, as from brokers to a consumer.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::load::{self, Sink};
use crate::pair::{self, Pair};
use crate::process::Running;
use crate::{Effort, Figure, openssh};

const SINK: u16 = 24_000;
/// What is left out of a rate.
const RAMP: Duration = Duration::from_secs(5);
/// Shortest measurement: some hundred round trips of a byte.
const SHORTEST: u64 = 20;
/// A run in which the emulator was so late once, in ms, measures the machine and not the link.
const LATE: f64 = 50.0;
/// Runs tried for each that counts, at most.
const TRIES: usize = 3;

/// What was measured inside.
#[derive(Debug, Serialize, Deserialize)]
struct Inside {
    plain: f64,
    ssh: Option<f64>,
    through: f64,
    ping_p50: f64,
    ping_p99: f64,
}

pub fn run(effort: Effort) -> Vec<Figure> {
    let Some(emulator) = std::env::var_os("WAN_BIN").map(PathBuf::from).filter(|path| path.exists()) else {
        eprintln!("bench: WAN_BIN does not name a WAN emulator: the long way is left out");
        return Vec::new();
    };
    let mut figures = Vec::new();
    for (label, options, congestion) in [
        ("100 ms", &["--rtt", "100ms"][..], "auto"),
        ("200 ms", &["--rtt", "200ms"], "auto"),
        ("100 ms, 0.1 % loss", &["--rtt", "100ms", "--loss", "0.1%"], "auto"),
        ("100 ms, 0.1 % loss, CUBIC", &["--rtt", "100ms", "--loss", "0.1%"], "cubic"),
    ] {
        let mut runs = Vec::new();
        for _ in 0..effort.runs.min(3) {
            runs.extend((0..TRIES).find_map(|_| run_once(&emulator, label, options, congestion, effort)));
        }
        if runs.is_empty() {
            eprintln!("bench: wan, {label}: no run in which the emulator kept its time; the machine is too busy");
            continue;
        }
        let of = |pick: fn(&Inside) -> f64| runs.iter().map(pick).collect::<Vec<f64>>();
        let plain = Figure::new(format!("one TCP connection (CUBIC), {label}"), "Mbit/s", &of(|run| run.plain));
        let through = of(|run| run.through);
        figures.push(Figure::new(format!("linkspan, one stream, {label}"), "Mbit/s", &through).against(&plain));
        if let Some(ssh) = runs.iter().map(|run| run.ssh).collect::<Option<Vec<_>>>() {
            figures.push(Figure::new(format!("openssh, {label}"), "Mbit/s", &ssh).against(&plain));
        }
        figures.push(plain);
        for (name, pick) in [("p50", (|run| run.ping_p50) as fn(&Inside) -> f64), ("p99", |run| run.ping_p99)] {
            figures.push(Figure::new(format!("1-byte round trip beside it {name}, {label}"), "ms", &of(pick)));
        }
    }
    figures
}

/// One run; `None` where the emulator was late in it.
fn run_once(emulator: &Path, label: &str, options: &[&str], congestion: &str, effort: Effort) -> Option<Inside> {
    let mut command = Command::new(emulator);
    command.args(["run", "--a", "lsa", "--b", "lsb", "--rate", "1gbit", "--tcp-buf", "keep", "--cc", "cubic"]);
    let counters = tempfile::NamedTempFile::new().unwrap();
    command
        .args(options)
        .arg("--stats")
        .arg(counters.path())
        .arg("--")
        .arg(std::env::current_exe().unwrap())
        .args(["wan-inside", congestion]);
    command.arg(effort.seconds.max(SHORTEST).to_string()).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.contains("\"ping_p99\"")).expect("a result from inside the link");
    let inside: Inside = serde_json::from_str(line).unwrap();
    let counters = std::fs::read(counters.path()).unwrap();
    let counters: serde_json::Value = serde_json::from_slice(&counters).expect("the emulator's counters");
    let late = counters["late_max_ms"].as_f64().expect("how late the emulator was");
    eprintln!("wan, {label}: {inside:?}, emulator late by {late} ms at most");
    (late <= LATE).then_some(inside)
}

/// Runs between the two namespaces: starts everything, measures, prints one line.
pub fn inside(args: &[String]) {
    let congestion = format!("congestion = \"{}\"", args[0]);
    let seconds: u64 = args[1].parse().expect("seconds");
    let name = |variable: &str| std::env::var(variable).expect("run by the emulator");
    let (a, b, far) = (name("WAN_A_NS"), name("WAN_B_NS"), name("WAN_B_IP"));
    let me = std::env::current_exe().unwrap();
    let within = |namespace: &str, program: &Path| {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program).stdin(Stdio::null()).stderr(Stdio::null());
        command
    };
    for namespace in [&a, &b] {
        let up = Command::new("ip").args(["-n", namespace, "link", "set", "lo", "up"]).status().unwrap();
        assert!(up.success());
    }
    let quiet = |mut command: Command| {
        command.stdout(Stdio::null());
        Running::start(command)
    };
    let sink = quiet({
        let mut command = within(&b, &me);
        command.args(["wan-sink", &format!("0.0.0.0:{SINK}")]);
        command
    });
    let measure = |entry: &str| -> (f64, f64, f64) {
        let mut command = within(&a, &me);
        let output = command.args(["wan-load", entry, &seconds.to_string()]).output().unwrap();
        serde_json::from_slice(&output.stdout).expect("a measurement")
    };
    let (plain, ..) = measure(&format!("{far}:{SINK}"));

    let dir = tempfile::tempdir().unwrap();
    let address = |text: String| -> SocketAddr { text.parse().expect("an address") };
    let (listen, entry, behind) =
        (address(format!("{far}:22022")), address("127.0.0.1:22023".to_owned()), address(format!("127.0.0.1:{SINK}")));
    let ssh = openssh::forwarding(&dir.path().join("ssh"), listen, entry, behind).map(|(server, client)| {
        let start = |namespace: &str, words: openssh::Words| {
            let mut command = within(namespace, &words.program);
            command.args(words.args);
            quiet(command)
        };
        let _server = start(&b, server);
        std::thread::sleep(Duration::from_secs(1));
        let _client = start(&a, client);
        measure(&entry.to_string()).0
    });
    let pair = Pair {
        transport: "noise",
        sink: SINK,
        listen: "0.0.0.0:7443".to_owned(),
        dial: format!("{far}:7443"),
        dialling: "",
        both: &congestion,
        dns: 5300,
        net: 7,
    };
    pair.write(dir.path());
    let start = |namespace: &str, file: &str| {
        let mut command = within(namespace, &pair::program());
        command.args(["run", "--config"]).arg(dir.path().join(file));
        quiet(command)
    };
    let processes = [start(&b, "exit.toml"), start(&a, "entry.toml")];
    let (through, ping_p50, ping_p99) = measure(&pair.entry().to_string());
    drop((processes, sink));
    println!("{}", serde_json::to_string(&Inside { plain, ssh, through, ping_p50, ping_p99 }).unwrap());
}

/// The far end.
pub fn sink(args: &[String]) {
    let _sink = Sink::at(args[0].parse().expect("an address"));
    loop {
        std::thread::park();
    }
}

/// The near end: what one stream gives after its ramp, in Mbit/s, and what a byte's round trip takes meanwhile, in ms.
pub fn load(args: &[String]) {
    let entry: SocketAddr = args[0].parse().expect("an address");
    let seconds: u64 = args[1].parse().expect("seconds");
    load::wait_for(entry);
    let over = Arc::new(AtomicBool::new(false));
    let pings = std::thread::spawn({
        let over = Arc::clone(&over);
        move || {
            std::thread::sleep(RAMP);
            load::ping_pong(entry, |_| !over.load(Ordering::Relaxed))
        }
    });
    let rate = load::drain(entry, RAMP, Duration::from_secs(seconds));
    over.store(true, Ordering::Relaxed);
    let took = pings.join().unwrap();
    let at = |percent| load::percentile(&took, percent) / 1e3;
    println!("{}", serde_json::to_string(&(rate * 8.0 / 1e6, at(50), at(99))).unwrap());
}
