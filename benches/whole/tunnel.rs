//! The tunnel beside a plain two-hop relay, OpenSSH forwarding and rathole with Noise, all over loopback in this one run.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::load::{Sink, bulk, opens, percentile, ping_pong, wait_for};
use crate::pair::{self, Pair};
use crate::process::{Running, cpu_seconds, family};
use crate::{Effort, Figure, opens, openssh};

/// A way from a local port to the sink, with the processes that make it.
struct Path2 {
    name: &'static str,
    entry: SocketAddr,
    processes: Vec<Running>,
}

impl Path2 {
    fn cpu(&self) -> f64 {
        let ids: Vec<u32> = self.processes.iter().flat_map(|process| family(process.id())).collect();
        cpu_seconds(&ids)
    }
}

/// Measures all paths in turn, `effort.runs` times.
pub fn run(effort: Effort) -> Vec<Figure> {
    let dir = tempfile::tempdir().unwrap();
    let sink = Sink::start();
    let mut paths =
        vec![relay("relay 8 KiB", 21_000, 8 * 1024, &sink), relay("relay 256 KiB", 21_010, 256 * 1024, &sink)];
    paths.push(linkspan("linkspan noise", "noise", 21_020, 2, dir.path(), &sink));
    paths.push(linkspan("linkspan tls", "tls", 21_030, 3, dir.path(), &sink));
    paths.extend(openssh(21_040, dir.path(), &sink));
    paths.extend(rathole(21_050, dir.path(), &sink));
    for path in &paths {
        wait_for(path.entry);
    }

    let mut figures = Vec::new();
    for streams in [1, 8] {
        let mut samples = vec![(Vec::new(), Vec::new()); paths.len()];
        for _ in 0..effort.runs {
            for (path, (rates, costs)) in paths.iter().zip(&mut samples) {
                let (rate, cost) = bulk(path.entry, &sink, streams, effort.seconds, || path.cpu());
                rates.push(rate * 8.0 / 1e6);
                costs.push(cost);
            }
        }
        let label = if streams == 1 { "1 stream".to_owned() } else { format!("{streams} streams") };
        let mut rates: Vec<Figure> = Vec::new();
        let mut costs: Vec<Figure> = Vec::new();
        for (path, (rate, cost)) in paths.iter().zip(&samples) {
            let (mut rate, mut cost) = (
                Figure::new(format!("{}, {label}", path.name), "Mbit/s", rate),
                Figure::new(format!("{}, {label}, CPU both ends", path.name), "s/GB", cost),
            );
            if let (Some(first_rate), Some(first_cost)) = (rates.first(), costs.first()) {
                (rate, cost) = (rate.against(first_rate), cost.against(first_cost));
            }
            rates.push(rate);
            costs.push(cost);
        }
        figures.extend(rates);
        figures.extend(costs);
    }
    let mut opened = vec![Vec::new(); paths.len()];
    for _ in 0..effort.runs {
        for (path, rates) in paths.iter().zip(&mut opened) {
            rates.push(opens(path.entry, effort.seconds));
        }
    }
    let mut made: Vec<Figure> = Vec::new();
    for (path, rates) in paths.iter().zip(&opened) {
        let figure = Figure::new(format!("{}, connections opened", path.name), "1/s", rates);
        made.push(match made.first() {
            Some(first) => figure.against(first),
            None => figure,
        });
    }
    figures.extend(made);
    for (transport, port) in [("noise", 21_060), ("tls", 21_070)] {
        let rates: Vec<f64> =
            (0..effort.runs).map(|_| opens::within(transport, port, dir.path(), effort.seconds)).collect();
        figures.push(Figure::new(format!("linkspan {transport}, streams opened within the tunnel"), "1/s", &rates));
    }
    let (mut middles, mut tails) = (vec![Vec::new(); paths.len()], vec![Vec::new(); paths.len()]);
    for _ in 0..effort.runs {
        for (at, path) in paths.iter().enumerate() {
            let took = ping_pong(path.entry, |done| done < 5_000);
            middles[at].push(took[took.len() / 2]);
            tails[at].push(percentile(&took, 99));
        }
    }
    for (name, samples) in [("p50", &middles), ("p99", &tails)] {
        let mut made: Vec<Figure> = Vec::new();
        for (path, sample) in paths.iter().zip(samples) {
            let figure = Figure::new(format!("{}, 1-byte round trip {name}", path.name), "us", sample);
            made.push(match made.first() {
                Some(first) => figure.against(first),
                None => figure,
            });
        }
        figures.extend(made);
    }
    figures
}

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn quiet(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn relay(name: &'static str, port: u16, buffer: usize, sink: &Sink) -> Path2 {
    let hop = |listen: SocketAddr, target: SocketAddr| {
        let mut command = quiet(std::env::current_exe().unwrap());
        command.args(["relay", &listen.to_string(), &target.to_string(), &buffer.to_string()]);
        Running::start(command)
    };
    let (near, far) = (loopback(port), loopback(port + 1));
    Path2 { name, entry: near, processes: vec![hop(far, sink.address), hop(near, far)] }
}

fn linkspan(name: &'static str, transport: &str, port: u16, net: u8, dir: &Path, sink: &Sink) -> Path2 {
    let dir = dir.join(transport);
    let address = format!("127.0.0.1:{port}");
    let sink = sink.address.port();
    let (listen, dns) = (address.clone(), port + 5);
    let pair = Pair { transport, sink, listen, dial: address, dialling: "", both: "", dns, net };
    pair.write(&dir);
    let start = |side: &str| {
        let mut command = quiet(pair::program());
        command.args(["run", "--config"]).arg(dir.join(format!("{side}.toml")));
        command.stderr(fs::File::create(dir.join(format!("{side}.log"))).unwrap());
        Running::start(command)
    };
    Path2 { name, entry: pair.entry(), processes: vec![start("exit"), start("entry")] }
}

fn openssh(port: u16, dir: &Path, sink: &Sink) -> Option<Path2> {
    let entry = loopback(port + 1);
    let (server, client) = openssh::forwarding(&dir.join("ssh"), loopback(port), entry, sink.address)?;
    let start = |words: openssh::Words| {
        let mut command = quiet(words.program);
        command.args(words.args);
        Running::start(command)
    };
    let server = start(server);
    wait_open(loopback(port));
    Some(Path2 { name: "openssh", entry, processes: vec![server, start(client)] })
}

fn wait_open(address: SocketAddr) {
    let since = std::time::Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        assert!(since.elapsed().as_secs() < 10, "{address} does not listen");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

fn rathole(port: u16, dir: &Path, sink: &Sink) -> Option<Path2> {
    let Some(program) = std::env::var_os("RATHOLE_BIN").map(PathBuf::from).filter(|path| path.exists()) else {
        eprintln!("bench: RATHOLE_BIN does not name rathole: it is left out (bin/bench builds it)");
        return None;
    };
    let dir = dir.join("rathole");
    fs::create_dir_all(&dir).unwrap();
    // A key pair made by rathole itself.
    let keys = Command::new(&program).arg("--genkey").output().unwrap();
    let keys = String::from_utf8_lossy(&keys.stdout).into_owned();
    let key = |label: &str| {
        let lines: Vec<&str> = keys.lines().collect();
        let at = lines.iter().position(|line| line.starts_with(label)).expect("rathole prints its keys");
        lines[at + 1].trim().to_owned()
    };
    let entry = loopback(port + 1);
    let server = format!(
        "[server]\nbind_addr = \"127.0.0.1:{port}\"\ndefault_token = \"bench\"\n[server.transport]\ntype = \"noise\"\n[server.transport.noise]\n\
         local_private_key = \"{}\"\n[server.services.sink]\nbind_addr = \"{entry}\"\n",
        key("Private")
    );
    let client = format!(
        "[client]\nremote_addr = \"127.0.0.1:{port}\"\ndefault_token = \"bench\"\n[client.transport]\ntype = \"noise\"\n[client.transport.noise]\n\
         remote_public_key = \"{}\"\n[client.services.sink]\nlocal_addr = \"{}\"\n",
        key("Public"),
        sink.address
    );
    let start = |file: &str, text: &str| {
        fs::write(dir.join(file), text).unwrap();
        let mut command = quiet(&program);
        command.arg(dir.join(file));
        Running::start(command)
    };
    Some(Path2 {
        name: "rathole noise",
        entry,
        processes: vec![start("server.toml", &server), start("client.toml", &client)],
    })
}
