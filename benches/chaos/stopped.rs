//! One reader of many stops: the others go on as before, and nothing piles up.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::sync::watch;

use crate::Options;
use crate::crowd::{Crowd, SEND, connect};
use crate::endpoints::Tunnel;
use crate::memory::resident;
use crate::outcome::Measure;
use crate::wire::Wire;

/// One measurement, and how long the reader is given to be felt before it.
const SPAN: Duration = Duration::from_secs(1);
/// Time for a stopped reader's window to fill.
const FILL: Duration = Duration::from_millis(700);
const SETTLE: Duration = Duration::from_millis(200);

pub async fn run(transport: &'static str, options: &Options) -> Vec<Measure> {
    let crowd = Crowd::start(0);
    let wire = Wire::start().await;
    let tunnel = Tunnel::start(transport, &wire, crowd.address, "").await;
    let others = Arc::new(AtomicU64::new(0));
    let stop = watch::Sender::new(false);
    let mut readers = tokio::task::JoinSet::new();
    for at in 0..options.streams {
        let mut stream = connect(tunnel.entry(), 0, SEND).await.unwrap();
        let (others, mut stop) = (Arc::clone(&others), stop.subscribe());
        readers.spawn(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(n @ 1..) = stream.read(&mut buffer).await {
                if at == 0 {
                    let _ = stop.wait_for(|stop| !stop).await;
                } else {
                    others.fetch_add(n as u64, Relaxed);
                }
            }
        });
    }
    let rate = async || {
        tokio::time::sleep(SETTLE).await;
        let (before, since) = (others.load(Relaxed), Instant::now());
        tokio::time::sleep(SPAN).await;
        (others.load(Relaxed) - before) as f64 / since.elapsed().as_secs_f64()
    };
    // Windows grow to what the way can use; then nothing grows any more.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let (begun, time) = (Instant::now(), Duration::from_secs_f64(options.minutes * 60.0));
    // Each span beside its neighbours: what else runs on this machine changes slower than that.
    let (mut kept, mut grown, mut running, mut whole) = (Vec::new(), Vec::new(), rate().await, 0.0);
    while begun.elapsed() < time {
        stop.send_replace(true);
        // What fits into its window.
        tokio::time::sleep(FILL).await;
        let before = tunnel.ids().map(resident);
        let stopped = rate().await;
        let after = tunnel.ids().map(resident);
        stop.send_replace(false);
        let again = rate().await;
        kept.push(stopped / f64::midpoint(running, again));
        grown.push((after[0] + after[1] - before[0] - before[1]) / f64::from(1 << 20));
        (whole, running) = (running, again);
    }
    let mut middle = kept.clone();
    middle.sort_by(f64::total_cmp);
    grown.sort_by(f64::total_cmp);
    vec![
        Measure::least("the others' rate beside that before and after, median", middle[middle.len() / 2], 0.95),
        Measure::told("least", middle[0]),
        Measure::most("memory grew while it stood, MiB, median", grown[grown.len() / 2], 2.0),
        Measure::told("most", *grown.last().unwrap()),
        Measure::told("stops", kept.len() as f64),
        Measure::told("MB/s", whole / 1e6),
        Measure::most("streams ended", readers.try_join_next().map_or(0.0, |_| 1.0), 0.0),
    ]
}
