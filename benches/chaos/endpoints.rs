//! The two endpoints under test.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::process::Running;
use crate::wire::Wire;

/// Both processes; they end with this value.
pub struct Tunnel {
    entry: SocketAddr,
    _dir: tempfile::TempDir,
    _exit: Running,
    _entry: Running,
}

/// Carriers between them.
const CARRIERS: u8 = 4;

impl Tunnel {
    pub async fn start(transport: &str, wire: &Wire, target: SocketAddr) -> Self {
        let program = std::env::var_os("LINKSPAN_BIN").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/release/linkspan")),
            PathBuf::from,
        );
        let dir = tempfile::tempdir().unwrap();
        let auth = |own: &str, peer: &str| {
            if transport == "noise" {
                "secret_file = \"secret\"".to_owned()
            } else {
                format!(
                    "tls = {{ cert = \"certs/{own}.crt\", key = \"certs/{own}.key\", ca = \"certs/ca.crt\", peer = \"{peer}.linkspan\" }}"
                )
            }
        };
        let made = Command::new(&program).args(["secret", "new"]).output().unwrap();
        fs::write(dir.path().join("secret"), made.stdout).unwrap();
        let certs = Command::new(&program).args(["certs", "--dir"]).arg(dir.path().join("certs")).output().unwrap();
        assert!(certs.status.success());
        let (listen, port) = (wire.far(), target.port());
        let exit = format!(
            "link = \"chaos\"\nstate_dir = \"exit\"\n[local]\ncluster = \"far\"\nbootstrap = [\"sink.chaos.test:{port}\"]\n\
             [peer]\ncluster = \"near\"\nbootstrap = [\"unused.near.test:9092\"]\n[tunnel]\nlisten = \"{listen}\"\n{}\n\
             [expose]\nresolve = {{ \"sink.chaos.test\" = \"127.0.0.1\" }}\n[proxy]\nmode = \"off\"\n[admin]\nlisten = \"off\"\n",
            auth("source", "destination")
        );
        let entry = format!(
            "link = \"chaos\"\nstate_dir = \"entry\"\n[local]\ncluster = \"near\"\nbootstrap = [\"unused.near.test:9092\"]\n\
             [peer]\ncluster = \"far\"\nbootstrap = [\"sink.chaos.test:{port}\"]\n[tunnel]\ndial = \"{}\"\ncarriers = {CARRIERS}\n{}\n\
             [proxy]\nmode = \"names\"\ndns_listen = [\"127.0.0.1:{}\"]\naddresses = \"127.78.0.0/24\"\n[admin]\nlisten = \"off\"\n",
            wire.near(),
            auth("destination", "source"),
            free_port(),
        );
        let start = |name: &str, text: &str| {
            let file = dir.path().join(name);
            fs::write(&file, text).unwrap();
            let log = fs::File::create(std::env::temp_dir().join(format!("chaos-{name}.log"))).unwrap();
            let mut command = Command::new(&program);
            command.args(["run", "--config"]).arg(file);
            Running::start({
                command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
                command
            })
        };
        let (exit, near) = (start("exit.toml", &exit), start("entry.toml", &entry));
        // The bootstrap name is the first to be given an address.
        let address = SocketAddr::from(([127, 78, 0, 1], port));
        while tokio::net::TcpStream::connect(address).await.is_err() || wire.carriers() < usize::from(CARRIERS) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { entry: address, _dir: dir, _exit: exit, _entry: near }
    }

    /// Where streams to the target begin.
    pub fn entry(&self) -> SocketAddr {
        self.entry
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}
