//! Ten thousand readers that hardly read, half of them at each end, while bytes come as fast as they are taken.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::io::AsyncReadExt as _;
use tokio::sync::Semaphore;

use crate::Options;
use crate::crowd::{Crowd, SEND, SIP_IN, connect, connect_all, echo, pour, sip};
use crate::endpoints::Tunnel;
use crate::memory::resident;
use crate::outcome::Measure;
use crate::wire::Wire;

/// Buffers of the applications' sockets: what they do not hold, linkspan has to.
const BUFFER: u32 = 4096;
/// The budget, of each process.
const BUDGET: f64 = 128.0;

pub async fn run(transport: &'static str, options: &Options) -> Vec<Measure> {
    let crowd = Crowd::start(BUFFER);
    let wire = Wire::start().await;
    let tunnel = Tunnel::start(transport, &wire, crowd.address, &format!("buffered = \"{BUDGET}MiB\"")).await;
    let mut honest = connect_all(tunnel.entry(), 0, 64).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = tunnel.ids().map(resident);
    let mut readers = tokio::task::JoinSet::new();
    // A burst of openings is another subject.
    let (opening, opened) = (Arc::new(Semaphore::new(64)), Arc::new(AtomicUsize::new(0)));
    for at in 0..options.crowd {
        let place = Arc::clone(&opening).acquire_owned().await.unwrap();
        let (entry, opened) = (tunnel.entry(), Arc::clone(&opened));
        readers.spawn(async move {
            let kind = if at % 2 == 0 { SEND } else { SIP_IN };
            let mut stream = connect(entry, BUFFER, kind).await.unwrap();
            stream.read_u8().await.unwrap();
            drop(place);
            opened.fetch_add(1, Relaxed);
            if kind == SEND { sip(&mut stream).await } else { pour(&mut stream).await }
        });
    }
    while opened.load(Relaxed) < options.crowd && readers.try_join_next().is_none() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let begun = Instant::now();
    let time = Duration::from_secs_f64(options.minutes * 60.0);
    let (mut most, mut last, mut echoes) = ([0.0_f64; 2], [0.0; 2], Vec::new());
    while begun.elapsed() < time {
        for stream in &mut honest {
            let asked = Instant::now();
            echo(stream).await.expect("an honest stream is dead");
            echoes.push(asked.elapsed().as_secs_f64());
        }
        last = tunnel.ids().map(resident);
        most = std::array::from_fn(|at| most[at].max(last[at] - before[at]));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    echoes.sort_by(f64::total_cmp);
    let mut ended = options.crowd - opened.load(Relaxed);
    while readers.try_join_next().is_some() {
        ended += 1;
    }
    let mib = |bytes: f64| bytes / f64::from(1 << 20);
    vec![
        Measure::most("exit grew by MiB", mib(most[0]), BUDGET * 1.1),
        Measure::most("entry grew by MiB", mib(most[1]), BUDGET * 1.1),
        Measure::told("at the end, both, MiB", mib(last[0] + last[1] - before[0] - before[1])),
        Measure::told("streams", options.crowd as f64),
        Measure::most("streams cut", ended as f64, 0.0),
        Measure::most("echo beside them p99, s", echoes[echoes.len() * 99 / 100], 1.0),
        Measure::told("longest", *echoes.last().unwrap()),
    ]
}
