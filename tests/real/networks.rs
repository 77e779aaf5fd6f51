//! What happens to connections on their way: they are listed, reset, or nothing of theirs passes any more.

use std::path::Path;
use std::process::{Output, Stdio};

use crate::bed::{Bed, GRAPE_WAN, ORANGE_WAN, Side, TUNNEL_PORT};

/// One connection: both its ends. The local port alone names several, for the kernel gives the same one towards other addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    local: String,
    peer: String,
}

/// The established connections in a network that `to` selects, of the process `pid` alone where one is given.
pub fn connections(side: Side, to: &[&str], pid: Option<u32>) -> Vec<Connection> {
    let mut command = Bed::get().inside(side, Path::new("ss"));
    command.args(["-tnpH", "state", "established"]).args(to);
    let told = command.output().expect("ss runs");
    let of = pid.map(|pid| format!("pid={pid},"));
    String::from_utf8_lossy(&told.stdout)
        .lines()
        .filter(|line| of.as_ref().is_none_or(|of| line.contains(of.as_str())))
        .filter_map(|line| {
            let mut words = line.split_whitespace().skip(2).map(str::to_owned);
            Some(Connection { local: words.next()?, peer: words.next()? })
        })
        .collect()
}

/// The carriers that grape's endpoint has.
pub fn carriers() -> Vec<Connection> {
    connections(Side::Grape, &["dst", ORANGE_WAN, "dport", "=", &TUNNEL_PORT.to_string()], None)
}

/// Resets a connection, on both sides.
pub fn cut(side: Side, Connection { local, peer }: &Connection) {
    let mut command = Bed::get().inside(side, Path::new("ss"));
    command.args(["-K", "-tnH", "src", local, "dst", peer]).stdout(Stdio::null());
    assert!(command.status().expect("ss runs").success());
}

fn nft(words: &str) -> Output {
    let mut command = Bed::get().inside(Side::Orange, Path::new("nft"));
    command.args(words.split(' ')).output().expect("nft runs")
}

fn nft_ok(words: &str) -> String {
    let output = nft(words);
    assert!(output.status.success(), "nft {words}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Lets another port through the wire, towards orange.
pub fn let_through(port: u16) {
    nft_ok(&format!("insert rule inet wire input iifname wan0 ip saddr {GRAPE_WAN} tcp dport {port} accept"));
}

/// From here on nothing passes between the networks, and nobody is told.
pub fn black_out() {
    nft_ok("add table inet dark");
    nft_ok("add chain inet dark input { type filter hook input priority -10 ; }");
    nft_ok("add rule inet dark input iifname wan0 counter drop");
}

/// Everything passes again. How many packets did not.
pub fn light() -> u64 {
    let told = nft_ok("list table inet dark");
    nft_ok("delete table inet dark");
    let mut words = told.split_whitespace().skip_while(|word| *word != "packets");
    words.nth(1).and_then(|count| count.parse().ok()).expect("the rule counts")
}
