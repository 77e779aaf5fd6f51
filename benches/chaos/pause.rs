//! One of the two processes stops for a while and goes on: longer than anybody's patience, shorter than streams are parked.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::Options;
use crate::endpoints::Tunnel;
use crate::outcome::Measure;
use crate::traffic::Traffic;
use crate::wire::Wire;

/// A stop that carriers survive at a pinch, and one that none does: a carrier is dead after 5 s.
const STOPS: [Duration; 2] = [Duration::from_secs(5), Duration::from_secs(12)];
/// More than what kernels and processes still held of a direction: these bytes came over a carrier.
const ENOUGH: u64 = 256 * 1024;
/// Time in between.
const BETWEEN: Duration = Duration::from_secs(3);

pub async fn run(transport: &'static str, options: &Options) -> Vec<Measure> {
    let traffic = Traffic::start(options.streams).await;
    let wire = Wire::start().await;
    let tunnel = Tunnel::start(transport, &wire, traffic.target(), "").await;
    traffic.connect(tunnel.entry()).await;
    let mut waits = Vec::new();
    for stop in STOPS {
        for id in tunnel.ids() {
            tokio::time::sleep(BETWEEN).await;
            signal(id, "-STOP");
            tokio::time::sleep(stop).await;
            let before = traffic.received_each();
            signal(id, "-CONT");
            let again = Instant::now();
            let goes_on = || traffic.received_each().iter().zip(&before).all(|(now, before)| now - before >= ENOUGH);
            while !goes_on() && again.elapsed() < Duration::from_secs(60) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            waits.push(again.elapsed().as_secs_f64());
        }
    }
    let mut measures = vec![
        Measure::most("stopped for 5 s: until each stream has 256 KiB more each way, s", waits[0].max(waits[1]), 10.0),
        Measure::most("for 12 s", waits[2].max(waits[3]), 10.0),
    ];
    measures.extend(traffic.finish().await.measures());
    measures
}

fn signal(id: u32, which: &str) {
    assert!(Command::new("kill").args([which, &id.to_string()]).status().unwrap().success());
}
