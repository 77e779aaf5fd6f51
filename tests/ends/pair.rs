//! The product: two processes, one in each "network", with a wire between them and a local address for each target.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::wire::Wire;

/// Carriers between the processes.
const CARRIERS: usize = 4;
/// How long the two may take to find each other, and to come to rest.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a status that is not as it shall be yet.
const LOOK: Duration = Duration::from_millis(10);

/// What the exit is asked for.
pub struct Target {
    /// Its name, as the client knows it.
    pub name: &'static str,
    pub port: u16,
    /// What the name stands for at the exit; nothing where it is looked up.
    pub address: Option<&'static str>,
    /// Whether the exit's operator allows it.
    pub allowed: bool,
}

impl Target {
    pub fn to(port: u16) -> Self {
        Self { name: "server.ends.test", port, address: Some("127.0.0.1"), allowed: true }
    }
}

/// A side of the link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Entry,
    Exit,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Entry => "entry",
            Self::Exit => "exit",
        }
    }
}

/// Two endpoints; they end with this value.
pub struct Pair {
    pub wire: Wire,
    net: [u8; 3],
    entry: Process,
    exit: Process,
    dir: tempfile::TempDir,
}

struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Pair {
    /// Starts both and waits until all carriers are there.
    pub async fn start(transport: &str, park: &str, targets: &[Target]) -> Self {
        // Addresses of its own in 127.0.0.0/8, so that no port must be guessed and tests can run beside each other.
        static NETS: AtomicU16 = AtomicU16::new(0);
        let process = std::process::id().to_le_bytes();
        let nth = u8::try_from(NETS.fetch_add(1, Ordering::Relaxed)).unwrap();
        let net = [127, 128 | (process[1] & 3) << 5 | nth, process[0]];
        assert!(nth < 32, "more pairs than addresses were put by for");
        let host = |last: u8, port: u16| SocketAddr::from(([net[0], net[1], net[2], last], port));

        let dir = tempfile::tempdir().unwrap();
        credentials(transport, dir.path());
        let auth = |own: &str, peer: &str| match transport {
            "noise" => "secret_file = \"secret\"".to_owned(),
            _ => format!(
                "tls = {{ cert = \"certs/{own}.crt\", key = \"certs/{own}.key\", ca = \"certs/ca.crt\", peer = \"{peer}.linkspan\" }}"
            ),
        };
        let names = |keep: fn(&Target) -> bool| {
            let quoted = targets.iter().filter(|target| keep(target)).map(|t| format!("\"{}:{}\"", t.name, t.port));
            quoted.collect::<Vec<_>>().join(", ")
        };
        let fixed = targets.iter().filter_map(|t| Some(format!("\"{}\" = \"{}\"", t.name, t.address?)));
        let wire = Wire::start(host(253, 7443), CARRIERS).await;
        let exit = format!(
            "link = \"ends\"\nstate_dir = \"exit\"\n[local]\ncluster = \"far\"\nbootstrap = [{}]\n\
             [peer]\ncluster = \"near\"\nbootstrap = [\"unused.near.test:9092\"]\n\
             [tunnel]\nlisten = \"{}\"\npark = \"{park}\"\n{}\n[expose]\nresolve = {{ {} }}\n\
             [proxy]\nmode = \"off\"\n[admin]\nlisten = \"{}\"\n",
            names(|target| target.allowed),
            host(253, 7443),
            auth("source", "destination"),
            fixed.collect::<Vec<_>>().join(", "),
            host(252, 9464),
        );
        let entry = format!(
            "link = \"ends\"\nstate_dir = \"entry\"\n[local]\ncluster = \"near\"\nbootstrap = [\"unused.near.test:9092\"]\n\
             [peer]\ncluster = \"far\"\nbootstrap = [{}]\n\
             [tunnel]\ndial = \"{}\"\npark = \"{park}\"\ncarriers = {CARRIERS}\n{}\n\
             [proxy]\nmode = \"names\"\ndns_listen = [\"{}\"]\naddresses = \"{}.{}.{}.0/24\"\n[admin]\nlisten = \"{}\"\n",
            names(|_| true),
            wire.near(),
            auth("destination", "source"),
            host(254, 5300),
            net[0],
            net[1],
            net[2],
            host(251, 9464),
        );
        fs::write(dir.path().join("exit.toml"), exit).unwrap();
        fs::write(dir.path().join("entry.toml"), entry).unwrap();
        let [exit, entry] = [Side::Exit, Side::Entry].map(|side| start(dir.path(), side));
        let pair = Self { wire, net, entry, exit, dir };
        pair.until("all carriers are attached", async || {
            let status = pair.status(Side::Entry).await?;
            (status["tunnel"]["carriers"].as_array()?.len() == CARRIERS && status["tunnel"]["state"] == "up")
                .then_some(())
        })
        .await;
        pair
    }

    /// Where clients meet the nth target: names get their addresses in the order of the bootstrap servers.
    pub fn entry(&self, nth: usize, port: u16) -> SocketAddr {
        SocketAddr::from(([self.net[0], self.net[1], self.net[2], u8::try_from(nth).unwrap() + 1], port))
    }

    /// Kills a process, as the kernel does that has no memory left.
    pub fn kill(&mut self, side: Side) {
        let process = self.process(side);
        process.0.kill().unwrap();
        assert_eq!(process.0.wait().unwrap().signal(), Some(9), "{side:?} had ended before");
    }

    /// Starts the process that takes the place of one that was killed.
    pub fn restart(&mut self, side: Side) {
        *self.process(side) = start(self.dir.path(), side);
    }

    fn process(&mut self, side: Side) -> &mut Process {
        match side {
            Side::Entry => &mut self.entry,
            Side::Exit => &mut self.exit,
        }
    }

    /// Waits until the entry's session is over.
    pub async fn until_down(&self) {
        self.until("the session is over", async || {
            (self.status(Side::Entry).await?["tunnel"]["state"] == "down").then_some(())
        })
        .await;
    }

    /// Waits until no stream is left at either end.
    pub async fn until_no_stream(&self) {
        self.until("no stream is left", async || {
            let (entry, exit) = (self.status(Side::Entry).await?, self.status(Side::Exit).await?);
            let left = [&entry["tunnel"]["streams"], &exit["tunnel"]["streams"], &exit["exit"]["open"]];
            left.iter().all(|count| **count == 0).then_some(())
        })
        .await;
    }

    /// The status of one process; nothing where it does not answer.
    pub async fn status(&self, side: Side) -> Option<serde_json::Value> {
        let last = if side == Side::Entry { 251 } else { 252 };
        let admin = SocketAddr::from(([self.net[0], self.net[1], self.net[2], last], 9464));
        let mut socket = TcpStream::connect(admin).await.ok()?;
        socket.write_all(b"GET /api/v1/status HTTP/1.1\r\nhost: ends\r\nconnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.ok()?;
        serde_json::from_str(answer.split_once("\r\n\r\n")?.1).ok()
    }

    /// What a process has logged.
    pub fn log(&self, side: Side) -> String {
        fs::read_to_string(self.dir.path().join(side.name()).with_extension("log")).unwrap()
    }

    /// Both logs, for a failure.
    pub fn logs(&self) -> String {
        format!("\nentry:\n{}exit:\n{}", self.log(Side::Entry), self.log(Side::Exit))
    }

    async fn until(&self, what: &str, mut look: impl AsyncFnMut() -> Option<()>) {
        let looking = async {
            while look().await.is_none() {
                tokio::time::sleep(LOOK).await;
            }
        };
        if tokio::time::timeout(PATIENCE, looking).await.is_err() {
            let (entry, exit) = (self.status(Side::Entry).await, self.status(Side::Exit).await);
            panic!("not within {PATIENCE:?}: {what}\n{entry:#?}\n{exit:#?}{}", self.logs());
        }
    }
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_linkspan"))
}

fn credentials(transport: &str, dir: &Path) {
    if transport == "noise" {
        fs::write(dir.join("secret"), program().args(["secret", "new"]).output().unwrap().stdout).unwrap();
    } else {
        let made = program().args(["certs", "--dir"]).arg(dir.join("certs")).output().unwrap();
        assert!(made.status.success(), "linkspan certs: {}", String::from_utf8_lossy(&made.stderr));
    }
}

fn start(dir: &Path, side: Side) -> Process {
    let place = dir.join(side.name());
    let mut command = program();
    command.args(["run", "--config"]).arg(place.with_extension("toml"));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::options().append(true).create(true).open(place.with_extension("log")).unwrap());
    Process(command.spawn().unwrap())
}
