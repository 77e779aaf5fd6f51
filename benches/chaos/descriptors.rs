//! No descriptors left: nobody spins, what runs goes on, and new streams work as soon as there are some.

use std::time::{Duration, Instant};

use crate::Options;
use crate::crowd::{Crowd, ECHO, connect, connect_all, echo};
use crate::endpoints::Tunnel;
use crate::memory::descriptors;
use crate::outcome::Measure;
use crate::process::cpu_seconds;
use crate::wire::Wire;

/// Descriptors that each endpoint may have.
const LIMIT: usize = 200;
/// Streams that are open before, and connections that take what is left.
const HONEST: usize = 64;
const GREEDY: usize = 400;
/// How long none is to be had.
const SPAN: Duration = Duration::from_secs(8);
/// Longest time until a new stream works again.
const BACK: Duration = Duration::from_secs(10);

pub async fn run(transport: &'static str, _options: &Options) -> Vec<Measure> {
    let crowd = Crowd::start(0);
    let wire = Wire::start().await;
    let tunnel = Tunnel::start_within(transport, &wire, crowd.address, "", Some(LIMIT)).await;
    let mut honest = connect_all(tunnel.entry(), 0, HONEST).await;
    let mut greedy = Vec::new();
    for _ in 0..GREEDY {
        greedy.extend(connect(tunnel.entry(), 0, ECHO).await.ok());
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let full = tunnel.ids().map(descriptors);
    let (cpu, begun) = (cpu_seconds(&tunnel.ids()), Instant::now());
    tokio::time::sleep(SPAN).await;
    let used = (cpu_seconds(&tunnel.ids()) - cpu) / begun.elapsed().as_secs_f64() * 100.0;
    let mut silent = 0;
    for stream in &mut honest {
        let answered = tokio::time::timeout(Duration::from_secs(5), echo(stream)).await;
        silent += usize::from(!matches!(answered, Ok(Ok(()))));
    }
    drop(greedy);
    let freed = Instant::now();
    loop {
        let opened = async {
            let mut stream = connect(tunnel.entry(), 0, ECHO).await?;
            echo(&mut stream).await
        };
        if let Ok(Ok(())) = tokio::time::timeout(Duration::from_secs(1), opened).await {
            break;
        }
        if freed.elapsed() > BACK * 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    vec![
        Measure::least("descriptors of the fuller process", *full.iter().max().unwrap() as f64, LIMIT as f64 - 2.0),
        Measure::most("processor of both meanwhile, %", used, 25.0),
        Measure::most("open streams that stopped", silent as f64, 0.0),
        Measure::most("new streams work again after, s", freed.elapsed().as_secs_f64(), BACK.as_secs_f64()),
    ]
}
