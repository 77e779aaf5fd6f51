//! Streams opened a second between two endpoints over loopback carriers, without the sockets before and behind them: each is
//! opened with its first byte, echoed and finished.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use linkspan::config::{self, ProcessEnv};
use linkspan::lifecycle::Drain;
use linkspan::net::HostPort;
use linkspan::tunnel::Offer;
use linkspan::tunnel::endpoint::Endpoint;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;

use crate::pair::Pair;

/// Openers at once.
const OPENERS: usize = 64;

/// Streams opened a second over `seconds`.
pub fn within(transport: &str, port: u16, dir: &Path, seconds: u64) -> f64 {
    // Each run has files of its own: keys are not overwritten.
    let dir = tempfile::tempdir_in(dir).unwrap();
    let dir = dir.path();
    let address = format!("127.0.0.1:{port}");
    let (listen, dial) = (address.clone(), address);
    Pair { transport, sink: 9092, listen, dial, dialling: "", both: "", dns: port + 1, net: 9 }.write(dir);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(measure(dir, seconds))
}

async fn measure(dir: &Path, seconds: u64) -> f64 {
    let drain = Drain::new();
    let endpoint = |side: &str| {
        let tunnel = config::load(&dir.join(format!("{side}.toml")), &ProcessEnv).unwrap().config.tunnel;
        let (offers_in, offers) = mpsc::channel::<Box<dyn Offer>>(4096);
        let (endpoint, driver) = Endpoint::new("bench".to_owned(), &tunnel, offers_in).unwrap();
        (endpoint, driver, offers)
    };
    let (_exit, mut exit_driver, mut offers) = endpoint("exit");
    exit_driver.bind().await.unwrap();
    let (entry, entry_driver, _) = endpoint("entry");
    drain.spawn(exit_driver.run(drain.clone()));
    drain.spawn(entry_driver.run(drain.clone()));
    let answering = tokio::spawn(async move {
        while let Some(offer) = offers.recv().await {
            tokio::spawn(async move {
                let mut stream = offer.accept();
                let mut byte = [0];
                if stream.read_exact(&mut byte).await.is_ok() && stream.write_all(&byte).await.is_ok() {
                    let _ = stream.shutdown().await;
                    let _ = stream.read(&mut byte).await;
                }
            });
        }
    });
    let target = HostPort::new("sink.bench.test", 9092).unwrap();
    let opened = Arc::new(AtomicU64::new(0));
    let openers: Vec<_> = (0..OPENERS)
        .map(|_| {
            let (dial, target, opened) =
                (entry.dialer().wait_for_tunnel(Duration::from_secs(10)), target.clone(), Arc::clone(&opened));
            tokio::spawn(async move {
                loop {
                    let mut stream = dial.open_early(&target, Bytes::from_static(b"x")).await.unwrap();
                    stream.shutdown().await.unwrap();
                    let mut back = Vec::new();
                    stream.read_to_end(&mut back).await.unwrap();
                    assert_eq!(back, b"x");
                    opened.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    while opened.load(Ordering::Relaxed) < 1000 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (before, since) = (opened.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let rate = (opened.load(Ordering::Relaxed) - before) as f64 / since.elapsed().as_secs_f64();
    openers.iter().for_each(tokio::task::JoinHandle::abort);
    answering.abort();
    drain.drain(Duration::from_secs(1)).await;
    rate
}
