//! Faults under load, with every byte checked: `bin/chaos tunnel [--minutes M] [--seed S] [--streams N] [-o json]`.
//!
//! Two endpoints run as processes of their own; between them stands a wire that this program owns and hurts. All streams carry
//! traffic both ways whose bytes tell their place, so that one lost, repeated or moved is seen where it happens.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::print_stdout)]

mod crowd;
mod descriptors;
mod endpoints;
mod faults;
mod handshakes;
mod idle;
mod memory;
mod outcome;
mod pause;
mod replicator;
mod slow;
mod stopped;
mod traffic;
mod wire;

#[path = "../../tests/real/bed.rs"]
#[allow(dead_code)]
mod bed;
#[path = "../../tests/real/chaos/mod.rs"]
// The tests use more of it.
#[allow(dead_code)]
mod chaos;
#[path = "../../tests/real/config.rs"]
#[allow(dead_code)]
mod config;
#[path = "../../tests/real/networks.rs"]
mod networks;
#[path = "../whole/pair.rs"]
mod pair;
#[path = "../whole/process.rs"]
#[allow(dead_code)]
mod process;

use std::pin::Pin;
use std::time::Instant;

use faults::Fault;
use outcome::{Measure, Outcome};

/// One row of the table.
struct Scenario {
    name: &'static str,
    run: for<'a> fn(&'static str, &'a Options) -> Running<'a>,
}

/// A scenario at work, borrowing nothing but its options.
type Running<'a> = Pin<Box<dyn Future<Output = Vec<Measure>> + 'a>>;

const SCENARIOS: [Scenario; 10] = [
    Scenario { name: "resets", run: |transport, options| Box::pin(faults::run(Fault::Resets, transport, options)) },
    Scenario { name: "hole-one", run: |transport, options| Box::pin(faults::run(Fault::HoleOne, transport, options)) },
    Scenario { name: "hole-all", run: |transport, options| Box::pin(faults::run(Fault::HoleAll, transport, options)) },
    Scenario { name: "flap", run: |transport, options| Box::pin(faults::run(Fault::Flap, transport, options)) },
    Scenario { name: "stopped", run: |transport, options| Box::pin(stopped::run(transport, options)) },
    Scenario { name: "idle", run: |transport, options| Box::pin(idle::run(transport, options)) },
    Scenario { name: "slow", run: |transport, options| Box::pin(slow::run(transport, options)) },
    Scenario { name: "handshakes", run: |transport, options| Box::pin(handshakes::run(transport, options)) },
    Scenario { name: "pause", run: |transport, options| Box::pin(pause::run(transport, options)) },
    Scenario { name: "descriptors", run: |transport, options| Box::pin(descriptors::run(transport, options)) },
];

struct Options {
    minutes: f64,
    seed: u64,
    streams: usize,
    /// Streams of the scenarios about very many.
    crowd: usize,
    json: bool,
    scenarios: Vec<&'static Scenario>,
    transports: Vec<&'static str>,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("replicator") => return replicator::main(&args[1..]),
        Some("crowd") => return runtime().block_on(crowd::main(&args[1..])),
        Some("flood") => return runtime().block_on(handshakes::main(&args[1..])),
        _ => {}
    }
    let (options, runtime) = (options(), runtime());
    let mut failed = 0;
    for transport in &options.transports {
        for scenario in &options.scenarios {
            let begun = Instant::now();
            let measures = runtime.block_on((scenario.run)(transport, &options));
            let seconds = begun.elapsed().as_secs_f64();
            let outcome = Outcome::new(scenario.name, transport, options.seed, seconds, measures);
            failed += usize::from(!outcome.passed);
            if options.json {
                println!("{}", serde_json::to_string(&outcome).unwrap());
            } else {
                println!("{outcome}");
            }
        }
    }
    if failed > 0 {
        eprintln!("chaos: {failed} scenarios failed; --seed {} repeats them", options.seed);
        std::process::exit(1);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap()
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
        crowd: 10_000,
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
            "--crowd" => options.crowd = value().parse().unwrap_or_else(|_| usage(arg)),
            "-o" | "--output" => options.json = value() == "json",
            "--noise" => options.transports = vec!["noise"],
            "--tls" => options.transports = vec!["tls"],
            other => match SCENARIOS.iter().find(|scenario| scenario.name == other) {
                Some(scenario) => options.scenarios.push(scenario),
                None => usage(other),
            },
        }
    }
    if options.scenarios.is_empty() {
        options.scenarios = SCENARIOS.iter().collect();
    }
    options
}

fn usage(what: &str) -> ! {
    let names: Vec<_> = SCENARIOS.iter().map(|scenario| format!("[{}]", scenario.name)).collect();
    eprintln!(
        "chaos: `{what}` is not understood\nusage: bin/chaos tunnel {} [--noise | --tls] [--minutes M] [--seed S] [--streams N] [--crowd N] [-o json]",
        names.join(" ")
    );
    std::process::exit(2)
}
