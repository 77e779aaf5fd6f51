//! Ten thousand connections to the tunnel port that never finish a handshake, and a peer that wants in.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use linkspan::config::{self, TunnelConfig, TunnelRole};
use linkspan::net::HostPort;
use linkspan::tunnel::carrier;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;

use crate::Options;
use crate::crowd::{Crowd, connect_all, echo};
use crate::endpoints::Tunnel;
use crate::memory::resident;
use crate::outcome::Measure;
use crate::wire::Wire;

/// Between two attempts of the honest peer, and of one of the crowd.
const HONEST_PAUSE: Duration = Duration::from_millis(20);
const CROWD_PAUSE: Duration = Duration::from_secs(5);
/// Time for the crowd to be there.
const GATHER: Duration = Duration::from_secs(5);
/// Handshakes at once that a listener may be told to allow, at most.
const MOST: usize = 4096;

pub async fn run(transport: &'static str, options: &Options) -> Vec<Measure> {
    let crowd = Crowd::start(0);
    let mut measures = Vec::new();
    for (limit, names) in [
        (64, ["64 places: honest handshake p99, ms", "failed", "calm p99, ms", "KiB for each place"]),
        (MOST, ["4096 places: honest handshake p99, ms", "failed", "calm p99, ms", "KiB for each place"]),
    ] {
        let wire = Wire::start().await;
        let tunnel = Tunnel::start(transport, &wire, crowd.address, &format!("handshakes = {limit}")).await;
        let mut streams = connect_all(tunnel.entry(), 0, 8).await;
        let target = HostPort::new("127.0.0.1", wire.far().port()).unwrap();
        let entry = config::load(&tunnel.dir().join("entry.toml"), &config::ProcessEnv).unwrap().config.tunnel;
        let peer = TunnelConfig { role: TunnelRole::Dial(target), ..entry };
        let span = Duration::from_secs_f64(options.minutes * 60.0 / 3.0);
        let (calm, _) = honest(&peer, span / 4).await;
        let before = resident(tunnel.ids()[0]);
        let flood = Flood::start(wire.far(), options.crowd, transport);
        tokio::time::sleep(GATHER).await;
        let (times, failed) = honest(&peer, span).await;
        let grown = (resident(tunnel.ids()[0]) - before) / limit as f64 / 1024.0;
        for stream in &mut streams {
            echo(stream).await.unwrap();
        }
        drop(flood);
        measures.push(Measure::most(names[0], percentile(&times, 99), 50.0));
        measures.push(Measure::most(names[1], failed as f64, 0.0));
        measures.push(Measure::told(names[2], percentile(&calm, 99)));
        measures.push(if limit == MOST {
            Measure::most(names[3], grown, 32.0)
        } else {
            Measure::told(names[3], grown)
        });
    }
    measures.push(Measure::told("connections", options.crowd as f64));
    measures
}

/// Handshakes one after the other for `span`: how long each took, in ms, sorted, and how many failed.
async fn honest(peer: &TunnelConfig, span: Duration) -> (Vec<f64>, usize) {
    let begun = Instant::now();
    let (mut times, mut failed) = (Vec::new(), 0);
    while begun.elapsed() < span {
        let asked = Instant::now();
        match carrier::dial(peer, "bench").await {
            Ok(_) => times.push(asked.elapsed().as_secs_f64() * 1e3),
            Err(error) => {
                eprintln!("chaos: an honest handshake failed: {error}");
                failed += 1;
            }
        }
        tokio::time::sleep(HONEST_PAUSE).await;
    }
    times.sort_by(f64::total_cmp);
    (times, failed)
}

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted.get(sorted.len() * percent / 100).copied().unwrap_or(f64::INFINITY)
}

/// The crowd, in a process that ends with this value.
struct Flood(Child);

impl Flood {
    fn start(at: SocketAddr, count: usize, transport: &str) -> Self {
        // It is not to take the processor of whom it attacks: a real one has its own.
        let mut command = Command::new("nice");
        command.args(["-n", "19"]).arg(std::env::current_exe().unwrap());
        command.args(["flood", &at.to_string(), &count.to_string(), transport]).stdin(Stdio::null());
        Self(command.spawn().unwrap())
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The crowd's process: address, number, transport.
pub async fn main(args: &[String]) {
    let (at, count): (SocketAddr, usize) = (args[0].parse().unwrap(), args[1].parse().unwrap());
    let kind = if args[2] == "noise" { 1 } else { 2 };
    let mut preamble = vec![b'L', b'S', b'P', b'N', 1, kind, 5];
    preamble.extend_from_slice(b"bench");
    for one in 0..count {
        let words: Vec<u8> = match one % 4 {
            0 => Vec::new(),
            1 => preamble[..6].to_vec(),
            2 => preamble.clone(),
            // And the beginning of a message that is never whole.
            _ => [&preamble[..], if kind == 1 { b"\x00\x30half" } else { b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc" }]
                .concat(),
        };
        let from = SocketAddr::from(([127, 0, 1, (one % 250) as u8 + 1], 0));
        tokio::spawn(async move {
            loop {
                let socket = TcpSocket::new_v4().unwrap();
                socket.bind(from).unwrap();
                if let Ok(mut stream) = socket.connect(at).await {
                    let _ = stream.write_all(&words).await;
                    let mut byte = [0; 64];
                    while let Ok(1..) = stream.read(&mut byte).await {}
                }
                tokio::time::sleep(CROWD_PAUSE).await;
            }
        });
    }
    std::future::pending::<()>().await;
}
