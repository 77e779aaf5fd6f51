//! Scenarios that hurt the wire while streams carry traffic both ways.

use std::time::{Duration, Instant};

use crate::endpoints::Tunnel;
use crate::outcome::Measure;
use crate::traffic::Traffic;
use crate::wire::Wire;
use crate::{Options, Random};

/// Longest wait for the first byte after a heal.
const HEAL: Duration = Duration::from_secs(60);

/// What is hurt, and how.
#[derive(Clone, Copy)]
pub enum Fault {
    /// Carriers are reset at random, many a second.
    Resets,
    /// One carrier goes silent.
    HoleOne,
    /// All go silent for 20 s.
    HoleAll,
    /// All are cut for 300 ms, after every 2 s.
    Flap,
}

pub async fn run(fault: Fault, transport: &'static str, options: &Options) -> Vec<Measure> {
    let traffic = Traffic::start(options.streams).await;
    let wire = Wire::start().await;
    let tunnel = Tunnel::start(transport, &wire, traffic.target(), "").await;
    traffic.connect(tunnel.entry()).await;
    let begun = Instant::now();
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    let mut random = Random(options.seed | 1);
    let measure = match fault {
        Fault::Resets => {
            while begun.elapsed() < time {
                tokio::time::sleep(Duration::from_micros(random.below(20_000))).await;
                wire.reset(random.next());
            }
            Measure::least("faults", wire.faults() as f64, 1.0)
        }
        Fault::HoleOne => {
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
            Measure::most("stall p99, s", gaps[gaps.len() * 99 / 100], 2.1)
        }
        Fault::HoleAll => {
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
            Measure::most("longest wait after the heal, s", waits.into_iter().fold(0.0, f64::max), 1.1)
        }
        Fault::Flap => {
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
            Measure::most("rate lost while it is up", 1.0 - rate / whole, 0.5)
        }
    };
    wire.heal();
    let mut measures = vec![measure, Measure::told("faults", wire.faults() as f64)];
    measures.extend(traffic.finish().await.measures());
    measures
}
