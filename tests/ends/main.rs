//! Exact ends: what the two applications of a stream see of each other's end through the tunnel is what they would see over a
//! TCP connection of their own. Every case of the matrix is played twice, once over loopback and once through two linkspan
//! processes, and the two must look the same:
//!
//! * After a FIN: exactly the bytes that were sent, then end of file; the other direction lives on for as long as it lasts.
//! * After an RST: some beginning of the bytes, then ECONNRESET (EPIPE where the FIN had come before), at once: also where nobody
//!   reads, or where all is full. How long that beginning is, TCP leaves open too.
//! * A stream that cannot go on, or never began, ends by RST. A clean end of file after a beginning is never seen.
//! * What becomes of carriers is seen by neither.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod case;
mod dials;
mod lost;
mod pair;
mod server;
mod socket;
mod wire;

use std::fmt::Debug;
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;

use case::{Case, Loss, Outcome};
use pair::{Pair, Target};
use server::Server;

/// Longest time of one case, for those that hang: the machine may be busy with others.
const DEADLINE: Duration = Duration::from_secs(60);
/// Cases at once between two endpoints.
const AT_ONCE: usize = 8;

/// The kinds of tunnel.
const TRANSPORTS: [&str; 2] = ["noise", "tls"];

/// What each side is at, for a failure.
type Steps = [Arc<Mutex<&'static str>>; 2];

/// Waits for a case, or says where it hangs.
async fn in_time<T>(what: impl Debug, steps: &Steps, work: impl Future<Output = T>) -> Result<T, String> {
    tokio::time::timeout(DEADLINE, work).await.map_err(|_| {
        let [client, server] = steps.each_ref().map(|step| *step.lock().unwrap());
        format!("{what:?}: not done within {DEADLINE:?}; the client is {client}, the server is {server}")
    })
}

/// Connections that the kernel of this machine ended because TCP had no memory left, ever.
fn lacks() -> String {
    let counts = std::fs::read_to_string("/proc/net/netstat").unwrap_or_default();
    let mut lines = counts.lines().filter(|line| line.starts_with("TcpExt:")).map(str::split_whitespace);
    let pairs = lines.next().into_iter().flatten().zip(lines.next().into_iter().flatten());
    pairs.into_iter().find(|(name, _)| *name == "TCPAbortOnMemory").map_or("?", |(_, count)| count).to_owned()
}

async fn play(way: &str, case: Case, server: &Server, pair: Option<&Pair>) -> Result<Outcome, String> {
    let steps = Steps::default();
    let played = async {
        let address = pair.map_or_else(|| server.address(), |pair| pair.entry(0, server.address().port()));
        for step in &steps {
            *step.lock().unwrap() = "connecting";
        }
        let Some((client, server)) = server.connect(address).await else {
            let log = pair.map(|pair| pair.log(pair::Side::Entry)).unwrap_or_default();
            let why: Vec<_> = log.lines().filter(|line| line.contains("not reached")).collect();
            return Err(format!("{case:?} {way}: no stream, the client was reset\n{}", why.join("\n")));
        };
        Ok(case.play(client, server, &steps, pair.map(|pair| &pair.wire)).await)
    };
    in_time((case, way), &steps, played).await?
}

/// Plays one case both ways. What is wrong, if anything is.
async fn compare(transport: &str, case: Case, server: &Server, pair: &Pair) -> Result<(), String> {
    let direct = play("direct", case, server, None).await?.shape();
    if direct != case.allowed() {
        let lack = lacks();
        return Err(format!(
            "{case:?}: ({lack} connections ended by the kernel for want of memory) TCP itself shows {direct:?}, expected {:?}",
            case.allowed()
        ));
    }
    let tunnel = play(transport, case, server, Some(pair)).await?.shape();
    if tunnel != direct {
        return Err(format!("{case:?} over {transport}:\n  direct {direct:?}\n  tunnel {tunnel:?}"));
    }
    Ok(())
}

/// All cases of one kind of loss, through endpoints of their own.
async fn matrix(transport: &str, loss: Loss) -> Vec<String> {
    let server = Server::start();
    let pair = Pair::start(transport, "60s", &[Target::to(server.address().port())]).await;
    let cases = case::all(loss);
    let results = stream::iter(cases).map(|case| compare(transport, case, &server, &pair)).buffer_unordered(AT_ONCE);
    let wrong = results.filter_map(|result| async { result.err() }).collect().await;
    pair.until_no_stream().await;
    let lost = pair.status(pair::Side::Entry).await.unwrap()["tunnel"]["reconnects"].as_u64().unwrap();
    assert!(lost > 0 || loss == Loss::None, "{loss:?}: no carrier was lost");
    wrong
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_end_is_as_with_tcp() {
    let kinds = TRANSPORTS.into_iter().flat_map(|transport| case::LOSSES.map(|loss| (transport, loss)));
    let wrong = join_all(kinds.map(|(transport, loss)| matrix(transport, loss))).await.concat();
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}
