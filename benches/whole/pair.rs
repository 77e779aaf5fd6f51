//! The two endpoints of a link as the benches run them: a sink behind the exit, a local address before the entry.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What differs from one use to the other.
pub struct Pair<'a> {
    /// `noise` or `tls`.
    pub transport: &'a str,
    /// Port of the sink, on the loopback address of the exit's host.
    pub sink: u16,
    /// What the exit's endpoint listens on, and what the entry's dials.
    pub listen: String,
    pub dial: String,
    /// Lines of the dialling side's `[tunnel]`.
    pub dialling: &'a str,
    /// Lines of both sides' `[tunnel]`.
    pub both: &'a str,
    /// Port of the entry's DNS server, which nobody asks.
    pub dns: u16,
    /// Third byte of the entry's loopback network 127.77.x.0/24.
    pub net: u8,
}

impl Pair<'_> {
    /// Writes `exit.toml` and `entry.toml` into `dir`, with the credentials that they name.
    pub fn write(&self, dir: &Path) {
        fs::create_dir_all(dir).unwrap();
        let auth = |own: &str, peer: &str| match self.transport {
            "noise" => "secret_file = \"secret\"".to_owned(),
            _ => format!(
                "tls = {{ cert = \"certs/{own}.crt\", key = \"certs/{own}.key\", ca = \"certs/ca.crt\", peer = \"{peer}.linkspan\" }}"
            ),
        };
        if self.transport == "noise" {
            fs::write(dir.join("secret"), Command::new(program()).args(["secret", "new"]).output().unwrap().stdout)
                .unwrap();
        } else {
            let made = Command::new(program()).args(["certs", "--dir"]).arg(dir.join("certs")).output().unwrap();
            assert!(made.status.success(), "linkspan certs: {}", String::from_utf8_lossy(&made.stderr));
        }
        let Self { sink, listen, dial, dialling, both, dns, net, .. } = self;
        let exit = format!(
            "link = \"bench\"\nstate_dir = \"exit\"\n[local]\ncluster = \"far\"\nbootstrap = [\"sink.bench.test:{sink}\"]\n\
             [peer]\ncluster = \"near\"\nbootstrap = [\"unused.near.test:9092\"]\n[tunnel]\nlisten = \"{listen}\"\n{both}\n{}\n\
             [expose]\nresolve = {{ \"sink.bench.test\" = \"127.0.0.1\" }}\n[proxy]\nmode = \"off\"\n[admin]\nlisten = \"off\"\n",
            auth("source", "destination")
        );
        let entry = format!(
            "link = \"bench\"\nstate_dir = \"entry\"\n[local]\ncluster = \"near\"\nbootstrap = [\"unused.near.test:9092\"]\n\
             [peer]\ncluster = \"far\"\nbootstrap = [\"sink.bench.test:{sink}\"]\n[tunnel]\ndial = \"{dial}\"\n{dialling}\n{both}\n{}\n\
             [proxy]\nmode = \"names\"\ndns_listen = [\"127.0.0.1:{dns}\"]\naddresses = \"127.77.{net}.0/24\"\n[admin]\nlisten = \"off\"\n",
            auth("destination", "source")
        );
        fs::write(dir.join("exit.toml"), exit).unwrap();
        fs::write(dir.join("entry.toml"), entry).unwrap();
    }

    /// Where streams to the sink begin: the bootstrap name is the first to be given an address.
    pub fn entry(&self) -> SocketAddr {
        SocketAddr::from(([127, 77, self.net, 1], self.sink))
    }
}

/// The binary under measurement: `LINKSPAN_BIN`, or the release build.
pub fn program() -> PathBuf {
    std::env::var_os("LINKSPAN_BIN")
        .map_or_else(|| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/target/release/linkspan")), PathBuf::from)
}
