//! The two endpoints under test.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::pair::{self, Pair};
use crate::process::Running;
use crate::wire::Wire;

/// Both processes; they end with this value.
pub struct Tunnel {
    entry: SocketAddr,
    processes: [Running; 2],
    dir: tempfile::TempDir,
}

/// Carriers between them.
const CARRIERS: usize = 4;
/// Longest time until all of them are there.
const START: Duration = Duration::from_secs(15);

impl Tunnel {
    /// Both processes with lines of `[tunnel]` that `both` have, once all carriers are there.
    pub async fn start(transport: &str, wire: &Wire, target: SocketAddr, both: &str) -> Self {
        Self::start_within(transport, wire, target, both, None).await
    }

    /// As [`Self::start`], with a hard limit of open files for each process.
    pub async fn start_within(
        transport: &str,
        wire: &Wire,
        target: SocketAddr,
        both: &str,
        files: Option<usize>,
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pair = Pair {
            transport,
            sink: target.port(),
            listen: wire.far().to_string(),
            dial: wire.near().to_string(),
            dialling: &format!("carriers = {CARRIERS}"),
            both,
            dns: free_port(),
            net: 78,
        };
        pair.write(dir.path());
        let processes = ["exit", "entry"].map(|side| start(dir.path(), side, files));
        let (entry, begun) = (pair.entry(), Instant::now());
        while tokio::net::TcpStream::connect(entry).await.is_err() || wire.carriers() < CARRIERS {
            if begun.elapsed() > START {
                let log = |side: &str| fs::read_to_string(dir.path().join(format!("{side}.log"))).unwrap_or_default();
                panic!("no tunnel within {START:?}\nexit:\n{}entry:\n{}", log("exit"), log("entry"));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { entry, processes, dir }
    }

    /// The processes of the exit and of the entry.
    pub fn ids(&self) -> [u32; 2] {
        self.processes.each_ref().map(Running::id)
    }

    /// Where their configurations and logs are.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Where streams to the target begin.
    pub fn entry(&self) -> SocketAddr {
        self.entry
    }
}

fn start(dir: &Path, side: &str, files: Option<usize>) -> Running {
    let mut command = match files {
        None => Command::new(pair::program()),
        Some(files) => {
            let mut limited = Command::new("sh");
            limited.args(["-c", &format!("ulimit -n {files}; exec \"$0\" \"$@\"")]).arg(pair::program());
            limited
        }
    };
    command.args(["run", "--config"]).arg(dir.join(format!("{side}.toml")));
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command.stderr(fs::File::create(dir.join(format!("{side}.log"))).unwrap());
    Running::start(command)
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
