//! Whole-system measurements, side by side in one run: `bin/bench [tunnel|wan|proxy|replicator] [-o json] [--runs N] [--seconds S]`.
//!
//! A figure is a median over alternating runs, with the smallest and the largest, and a ratio to what it is measured against.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, clippy::print_stdout)]

mod alone;
mod clusters;
mod load;
mod opens;
mod openssh;
mod pair;
mod process;
mod relay;
mod tunnel;
mod wan;

#[path = "../../tests/real/bed.rs"]
#[allow(dead_code, unused_imports)]
mod bed;
#[path = "../../tests/real/config.rs"]
#[allow(dead_code)]
mod config;

use serde::Serialize;

/// One measured number.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What was measured, of whom.
    pub name: String,
    /// Median.
    pub value: f64,
    /// Unit of value, min and max.
    pub unit: &'static str,
    /// Name of the figure that `ratio` compares with.
    pub against: Option<String>,
    /// value / value of `against`.
    pub ratio: Option<f64>,
    /// Number of runs.
    pub runs: usize,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Figure {
    /// The median of `samples`.
    pub fn new(name: impl Into<String>, unit: &'static str, samples: &[f64]) -> Self {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first().unwrap_or(&f64::NAN), *sorted.last().unwrap_or(&f64::NAN));
        let value = sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN);
        Self { name: name.into(), value, unit, against: None, ratio: None, runs: samples.len(), min, max }
    }

    /// Adds the ratio to another figure of the same unit.
    pub fn against(mut self, other: &Self) -> Self {
        assert_eq!(self.unit, other.unit, "a ratio is of like and like");
        self.ratio = Some(self.value / other.value);
        self.against = Some(other.name.clone());
        self
    }
}

/// How much to measure.
#[derive(Clone, Copy)]
pub struct Effort {
    pub runs: usize,
    pub seconds: u64,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().map(String::as_str) == Some("relay") {
        return relay::main(&args[1..]);
    }
    if args.first().map(String::as_str) == Some("alone") {
        return alone::main(&args[1..]);
    }
    match args.first().map(String::as_str) {
        Some("wan-inside") => return wan::inside(&args[1..]),
        Some("wan-sink") => return wan::sink(&args[1..]),
        Some("wan-load") => return wan::load(&args[1..]),
        _ => {}
    }
    let mut areas = Vec::new();
    let mut json = false;
    let mut effort = Effort { runs: 5, seconds: 3 };
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let mut number = || rest.next().and_then(|n| n.parse().ok()).unwrap_or_else(|| usage(arg));
        match arg.as_str() {
            "tunnel" | "wan" | "proxy" | "replicator" => areas.push(arg.as_str()),
            "-o" | "--output" => json = rest.next().map(String::as_str) == Some("json"),
            "--runs" => effort.runs = number(),
            "--seconds" => effort.seconds = number() as u64,
            other => usage(other),
        }
    }
    if areas.is_empty() {
        areas = vec!["tunnel", "wan", "proxy", "replicator"];
    }
    let mut figures = Vec::new();
    for area in areas {
        figures.extend(match area {
            "tunnel" => tunnel::run(effort),
            "wan" => wan::run(effort),
            "proxy" => clusters::proxy(effort),
            _ => clusters::replicator(effort),
        });
    }
    bed::down();
    if json {
        for figure in &figures {
            println!("{}", serde_json::to_string(figure).unwrap());
        }
        return;
    }
    println!("{:<58} {:>10} {:<9} {:>10} {:>10} {:>5}  ratio", "figure", "median", "unit", "min", "max", "runs");
    for f in &figures {
        let ratio = match (&f.ratio, &f.against) {
            (Some(ratio), Some(against)) => format!("{ratio:.2} x {against}"),
            _ => String::new(),
        };
        println!(
            "{:<58} {:>10.2} {:<9} {:>10.2} {:>10.2} {:>5}  {ratio}",
            f.name, f.value, f.unit, f.min, f.max, f.runs
        );
    }
}

fn usage(what: &str) -> ! {
    eprintln!(
        "bench: `{what}` is not understood\nusage: bin/bench [tunnel] [wan] [proxy] [replicator] [-o json] [--runs N] [--seconds S]"
    );
    std::process::exit(2)
}
