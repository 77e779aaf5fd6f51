//! Faults under load, with every byte checked: `bin/chaos tunnel [--minutes M] [--seed S] [--streams N] [-o json]`.
//!
//! Two endpoints run as processes of their own; between them stands a wire that this program owns and hurts. All streams carry
//! traffic both ways whose bytes tell their place, so that one lost, repeated or moved is seen where it happens.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::print_stdout)]

mod endpoints;
mod traffic;
mod wire;

#[path = "../whole/pair.rs"]
mod pair;
#[path = "../whole/process.rs"]
#[allow(dead_code)]
mod process;

use std::time::{Duration, Instant};

use serde::Serialize;

use endpoints::Tunnel;
use traffic::Traffic;
use wire::Wire;

/// What one scenario came to.
#[derive(Debug, Serialize)]
struct Outcome {
    scenario: &'static str,
    transport: &'static str,
    seed: u64,
    seconds: f64,
    streams: usize,
    gigabytes: f64,
    /// Faults that were made.
    faults: u64,
    /// Streams that ended otherwise than by their own FIN.
    streams_reset: usize,
    /// Streams whose bytes were not exactly those that were sent.
    streams_wrong: usize,
    /// What the scenario measures, and its bound; it passes when the value keeps to the bound.
    measure: &'static str,
    value: f64,
    bound: f64,
    passed: bool,
}

struct Options {
    minutes: f64,
    seed: u64,
    streams: usize,
    json: bool,
    scenarios: Vec<String>,
    transports: Vec<&'static str>,
}

fn main() {
    let options = options();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut failed = 0;
    for transport in &options.transports {
        for scenario in &options.scenarios {
            let outcome = runtime.block_on(run(scenario, transport, &options));
            failed += usize::from(!outcome.passed);
            if options.json {
                println!("{}", serde_json::to_string(&outcome).unwrap());
            } else {
                println!(
                    "{:<8} {:<6} {:>7.1} GB both ways over {} streams, {:>6} faults, {} reset, {} wrong; {} {:.2} (bound {:.2}): {}",
                    outcome.scenario,
                    outcome.transport,
                    outcome.gigabytes,
                    outcome.streams,
                    outcome.faults,
                    outcome.streams_reset,
                    outcome.streams_wrong,
                    outcome.measure,
                    outcome.value,
                    outcome.bound,
                    if outcome.passed { "passed" } else { "FAILED" },
                );
            }
        }
    }
    if failed > 0 {
        eprintln!("chaos: {failed} scenarios failed; --seed {} repeats them", options.seed);
        std::process::exit(1);
    }
}

/// Longest wait for the first byte after a heal.
const HEAL: Duration = Duration::from_secs(60);

/// What each scenario does to the wire, and what it measures.
async fn run(scenario: &str, transport: &'static str, options: &Options) -> Outcome {
    let traffic = Traffic::start(options.streams).await;
    let wire = Wire::start().await;
    let tunnel = Tunnel::start(transport, &wire, traffic.target()).await;
    traffic.connect(tunnel.entry()).await;
    let begun = Instant::now();
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    let mut random = Random(options.seed | 1);
    let (name, measure, value, bound) = match scenario {
        "resets" => {
            while begun.elapsed() < time {
                tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
                wire.reset(random.next());
            }
            ("resets", "faults a second", wire.faults() as f64 / begun.elapsed().as_secs_f64(), 0.0)
        }
        "hole-one" => {
            // The longest gap of each stream while one of four carriers is silent.
            let mut gaps = Vec::new();
            while begun.elapsed() < time {
                tokio::time::sleep(Duration::from_secs(3)).await;
                traffic.forget_gaps();
                wire.hole_one(random.next());
                tokio::time::sleep(Duration::from_secs(7)).await;
                gaps.extend(traffic.gaps());
                wire.heal();
            }
            gaps.sort_by(f64::total_cmp);
            ("hole-one", "stall p99, s", gaps[gaps.len() * 99 / 100], 2.1)
        }
        "hole-all" => {
            let mut waits = Vec::new();
            while begun.elapsed() < time {
                tokio::time::sleep(Duration::from_secs(3)).await;
                wire.hole_all();
                tokio::time::sleep(Duration::from_secs(20)).await;
                let before = traffic.received();
                wire.heal();
                let healed = Instant::now();
                while traffic.received() == before && healed.elapsed() < HEAL {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                waits.push(healed.elapsed().as_secs_f64());
            }
            ("hole-all", "longest wait after the heal, s", waits.into_iter().fold(0.0, f64::max), 1.1)
        }
        "flap" => {
            // The rate of the undisturbed tunnel first, then that of one which is dead for 300 ms after every 2 s.
            tokio::time::sleep(Duration::from_secs(2)).await;
            let (before, since) = (traffic.received(), Instant::now());
            tokio::time::sleep(Duration::from_secs(10)).await;
            let whole = (traffic.received() - before) as f64 / since.elapsed().as_secs_f64();
            let (before, since) = (traffic.received(), Instant::now());
            while since.elapsed() < time {
                tokio::time::sleep(Duration::from_secs(2)).await;
                wire.cut_all();
                tokio::time::sleep(Duration::from_millis(300)).await;
                wire.heal();
            }
            let rate = (traffic.received() - before) as f64 / (since.elapsed().as_secs_f64() * 2.0 / 2.3);
            ("flap", "rate lost while it is up", 1.0 - rate / whole, 0.5)
        }
        other => panic!("scenario {other}: resets, hole-one, hole-all or flap"),
    };
    let seconds = begun.elapsed().as_secs_f64();
    wire.heal();
    let ended = traffic.finish().await;
    let faults = wire.faults();
    let kept = if name == "resets" { faults > 0 } else { value <= bound };
    drop(tunnel);
    Outcome {
        scenario: name,
        transport,
        seed: options.seed,
        seconds,
        streams: options.streams,
        gigabytes: ended.bytes as f64 / 1e9,
        faults,
        streams_reset: ended.reset,
        streams_wrong: ended.wrong,
        measure,
        value,
        bound,
        passed: kept && ended.reset == 0 && ended.wrong == 0 && ended.bytes > 0,
    }
}

/// SplitMix64: the same schedule for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }
}

fn options() -> Options {
    let mut options = Options {
        minutes: 0.5,
        seed: 1,
        streams: 64,
        json: false,
        scenarios: Vec::new(),
        transports: vec!["noise", "tls"],
    };
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench" && arg != "tunnel").collect();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut value = || rest.next().unwrap_or_else(|| usage(arg));
        match arg.as_str() {
            "--minutes" => options.minutes = value().parse().unwrap_or_else(|_| usage(arg)),
            "--seed" => options.seed = value().parse().unwrap_or_else(|_| usage(arg)),
            "--streams" => options.streams = value().parse().unwrap_or_else(|_| usage(arg)),
            "-o" | "--output" => options.json = value() == "json",
            "--noise" => options.transports = vec!["noise"],
            "--tls" => options.transports = vec!["tls"],
            "resets" | "hole-one" | "hole-all" | "flap" => options.scenarios.push(arg.clone()),
            other => usage(other),
        }
    }
    if options.scenarios.is_empty() {
        options.scenarios = ["resets", "hole-one", "hole-all", "flap"].map(str::to_owned).to_vec();
    }
    options
}

fn usage(what: &str) -> ! {
    eprintln!(
        "chaos: `{what}` is not understood\nusage: bin/chaos tunnel [resets] [hole-one] [hole-all] [flap] [--noise | --tls] [--minutes M] [--seed S] [--streams N] [-o json]"
    );
    std::process::exit(2)
}
