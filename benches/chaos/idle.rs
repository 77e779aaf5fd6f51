//! What streams cost that are open and say nothing.

use std::time::Duration;

use crate::Options;
use crate::crowd::{Crowd, connect_all, echo};
use crate::endpoints::Tunnel;
use crate::memory::resident;
use crate::outcome::Measure;
use crate::wire::Wire;

/// Time for what opening took to be given back.
const REST: Duration = Duration::from_secs(15);

pub async fn run(transport: &'static str, options: &Options) -> Vec<Measure> {
    let crowd = Crowd::start(4096);
    let wire = Wire::start().await;
    let tunnel = Tunnel::start(transport, &wire, crowd.address, "").await;
    // Buffers of carriers and of the pool are there already when the count begins.
    drop(connect_all(tunnel.entry(), 4096, 64).await);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = tunnel.ids().map(resident);
    let begun = std::time::Instant::now();
    let mut streams = connect_all(tunnel.entry(), 4096, options.crowd).await;
    let took = begun.elapsed().as_secs_f64();
    let opened = tunnel.ids().map(resident);
    tokio::time::sleep(REST).await;
    let rested = tunnel.ids().map(resident);
    let each = |at: [f64; 2]| (at[0] - before[0] + at[1] - before[1]) / options.crowd as f64 / 1024.0;
    let mut silent = 0;
    for stream in &mut streams {
        let answered = tokio::time::timeout(Duration::from_secs(5), echo(stream)).await;
        silent += usize::from(!matches!(answered, Ok(Ok(()))));
    }
    vec![
        Measure::most("both processes, KiB each", each(rested), 16.0),
        Measure::told("entry", (rested[1] - before[1]) / options.crowd as f64 / 1024.0),
        Measure::told("exit", (rested[0] - before[0]) / options.crowd as f64 / 1024.0),
        Measure::told("right after opening, KiB each", each(opened)),
        Measure::told("streams", options.crowd as f64),
        Measure::told("opened a second", options.crowd as f64 / took),
        Measure::most("streams that answer no more", silent as f64, 0.0),
    ]
}
