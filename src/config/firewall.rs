//! The firewall rules of a link, derived from the very value that opens the socket: [`TunnelRole`].
//!
//! A link needs one inbound rule in all. It stands at the side that listens; the side that dials needs nothing inbound.

use std::fmt::Write as _;
use std::net::IpAddr;

use serde::Serialize;

use super::{Config, TunnelRole};
use crate::net::HostPort;

/// The rules of both hosts, as far as this side's configuration tells them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirewallPlan {
    /// `linkspan/v1/Firewall`.
    pub schema: &'static str,
    /// The link.
    pub link: String,
    /// This side's cluster.
    pub local: String,
    /// The other side's cluster.
    pub peer: String,
    /// `listen` or `dial`: what this side does.
    pub role: &'static str,
    /// What must be open into this host: one rule where it listens, none where it dials.
    pub inbound: Vec<Rule>,
    /// What must be open out of this host.
    pub egress: Vec<Rule>,
    /// What must be open into the peer's host: the other view of the same one rule.
    pub peer_inbound: Vec<Rule>,
    /// Inbound rules of the whole link: always 1.
    pub inbound_total: usize,
    /// What the operator should know about these rules.
    pub notes: Vec<String>,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rule {
    /// The host that is reached: an address, a name, or `this host`.
    pub on: String,
    /// Always `tcp`.
    pub protocol: &'static str,
    /// The port.
    pub port: u16,
    /// Who reaches it, as a network; `None` where the configuration does not say it as an address.
    pub from: Option<String>,
    /// Why.
    pub reason: String,
}

/// The rules of a configuration.
#[must_use]
pub fn rules(config: &Config) -> FirewallPlan {
    let tunnel = &config.tunnel;
    let (local, peer) = (&config.local.cluster, &config.peer.cluster);
    let mut notes = Vec::new();
    let mut plan = FirewallPlan {
        schema: "linkspan/v1/Firewall",
        link: config.link.clone(),
        local: local.clone(),
        peer: peer.clone(),
        role: "listen",
        inbound: Vec::new(),
        egress: Vec::new(),
        peer_inbound: Vec::new(),
        inbound_total: 1,
        notes: Vec::new(),
    };
    match &tunnel.role {
        TunnelRole::Listen(address) => {
            let on = match &tunnel.public_address {
                Some(public) => public.clone(),
                None if address.ip().is_unspecified() => "this host".to_owned(),
                None => address.ip().to_string(),
            };
            if address.ip().is_loopback() {
                notes.push(format!(
                    "tunnel.listen is {address}: no other host can reach it, whatever the firewall says"
                ));
            }
            let from = from(tunnel.peer_address.as_deref(), "tunnel.peer_address", &mut notes);
            let reason = format!("the endpoint beside {peer} dials the endpoint beside {local}");
            plan.inbound.push(Rule { on, protocol: "tcp", port: address.port(), from, reason });
        }
        TunnelRole::Dial(target) => {
            plan.role = "dial";
            let source = from(tunnel.public_address.as_deref(), "tunnel.public_address", &mut notes);
            let reason = format!("the endpoint beside {local} dials the endpoint beside {peer}");
            let rule = |from, reason| Rule {
                on: target.host().to_owned(),
                protocol: "tcp",
                port: target.port(),
                from,
                reason,
            };
            plan.egress.push(rule(None, "the tunnel to the peer".to_owned()));
            plan.peer_inbound.push(rule(source, reason));
        }
    }
    plan.egress.extend(config.local.bootstrap.iter().map(|server| broker(server, local)));
    notes.push(format!(
        "brokers that {local} advertises beside these servers are reached too; clusters need no inbound rule"
    ));
    plan.notes = notes;
    plan
}

fn broker(server: &HostPort, cluster: &str) -> Rule {
    let reason = format!("a bootstrap server of {cluster}, in this network");
    Rule { on: server.host().to_owned(), protocol: "tcp", port: server.port(), from: None, reason }
}

/// A network to let in; a name or nothing becomes a note, because a firewall needs an address.
fn from(address: Option<&str>, key: &str, notes: &mut Vec<String>) -> Option<String> {
    let Some(text) = address else {
        notes
            .push(format!("{key} is not set, so the rule cannot say from where: write the address that is seen there"));
        return None;
    };
    if text.contains('/') {
        return Some(text.to_owned());
    }
    match text.parse::<IpAddr>() {
        Ok(ip) => Some(format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 })),
        Err(_) => {
            notes.push(format!("{key} is the name `{text}`: a firewall needs its address, so write that there"));
            None
        }
    }
}

impl FirewallPlan {
    /// For people.
    #[must_use]
    pub fn table(&self) -> String {
        let host = |cluster: &str| format!("endpoint beside {cluster}");
        let mut t = format!("link {}: this side is beside {}, the peer beside {}\n", self.link, self.local, self.peer);
        for (rules, cluster) in [(&self.inbound, &self.local), (&self.peer_inbound, &self.peer)] {
            for rule in rules {
                let from = rule.from.as_deref().unwrap_or("UNKNOWN (see below)");
                let at = format!("{} ({})", rule.on, host(cluster));
                let _ = writeln!(t, "OPEN     on {at}  {} {}  from {from}", rule.protocol, rule.port);
                let _ = writeln!(t, "         because {}", rule.reason);
            }
            if rules.is_empty() {
                let _ = writeln!(t, "NOTHING  on the {}  inbound", host(cluster));
            }
        }
        for rule in &self.egress {
            let _ = writeln!(t, "egress   to {}  {} {}  {}", rule.on, rule.protocol, rule.port, rule.reason);
        }
        let _ = writeln!(t, "{} inbound rule in total.", self.inbound_total);
        for note in &self.notes {
            let _ = writeln!(t, "note: {note}");
        }
        t
    }

    /// For programs: the plan itself, with its schema.
    #[must_use]
    pub fn json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("a plan holds only texts and numbers");
        text.push('\n');
        text
    }

    /// For nftables, of this side's host: `nft -f` takes it, also a second time.
    #[must_use]
    pub fn nft(&self) -> String {
        let mut t = String::from("#!/usr/sbin/nft -f\n");
        let _ = writeln!(t, "# linkspan firewall -o nft: link {}, the host beside {}.", self.link, self.local);
        for rule in &self.egress {
            let _ = writeln!(t, "# egress: {} {} to {}: {}", rule.protocol, rule.port, rule.on, rule.reason);
        }
        for note in &self.notes {
            let _ = writeln!(t, "# note: {note}");
        }
        if self.inbound.is_empty() {
            t.push_str("# Nothing inbound: this side dials. No rule is needed.\n");
            return t;
        }
        t.push_str("# A chain of yours that drops must let these in too; ports that Docker publishes pass its own chains instead.\n");
        let table = "inet linkspan";
        let _ = writeln!(t, "add table {table}\ndelete table {table}\ntable {table} {{");
        t.push_str("    chain input {\n        type filter hook input priority filter; policy accept;\n");
        for rule in &self.inbound {
            match &rule.from {
                Some(from) => {
                    let family = if from.contains(':') { "ip6" } else { "ip" };
                    let comment: String = rule.reason.chars().filter(|c| *c != '"').take(MAX_COMMENT).collect();
                    let _ = writeln!(
                        t,
                        "        {family} saddr {from} tcp dport {} accept comment \"{comment}\"",
                        rule.port
                    );
                    let _ = writeln!(t, "        tcp dport {} drop comment \"nobody else\"", rule.port);
                }
                None => {
                    let _ = writeln!(
                        t,
                        "        # tcp dport {} is not opened: its `from` is unknown, see the notes",
                        rule.port
                    );
                }
            }
        }
        t.push_str("    }\n}\n");
        t
    }
}

/// nftables takes at most 128 bytes with the terminator.
const MAX_COMMENT: usize = 120;
