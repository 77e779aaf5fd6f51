//! One side's files from a [`SetEnv`].

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::super::firewall::{FirewallPlan, rules};
use super::super::{Secret, WithoutSecrets, parse};
use super::{ClusterEnv, ProxyMode, SetEnv, Side, Transport};

/// The files of one side.
#[derive(Debug, Clone)]
pub struct Files {
    /// Whose they are.
    pub side: Side,
    /// In the order in which they are written.
    pub entries: Vec<FileEntry>,
}

/// One file.
#[derive(Debug, Clone)]
pub struct FileEntry {
    /// Relative to the directory that they are written to.
    pub path: PathBuf,
    /// What is in it.
    pub content: Content,
}

/// What is in a file.
#[derive(Debug, Clone)]
pub enum Content {
    /// Readable by all: mode 0644.
    Text(String),
    /// For the owner alone: mode 0600. Never shown.
    Secret(Secret),
}

impl Content {
    /// The bytes to write.
    #[must_use]
    pub(super) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.clone().into_bytes(),
            Self::Secret(secret) => format!("{}\n", secret.expose()).into_bytes(),
        }
    }

    /// The mode of the file.
    #[must_use]
    pub const fn mode(&self) -> u32 {
        match self {
            Self::Text(_) => 0o644,
            Self::Secret(_) => 0o600,
        }
    }
}

impl Files {
    /// The text of a file that is no secret.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        self.entries.iter().find(|entry| entry.path == Path::new(path)).and_then(|entry| match &entry.content {
            Content::Text(text) => Some(text.as_str()),
            Content::Secret(_) => None,
        })
    }

    /// The firewall rules of this side, read back from the very configuration that is written.
    #[must_use]
    pub fn firewall(&self) -> FirewallPlan {
        let text = self.text(CONFIG).unwrap_or_default();
        let loaded = parse(text, Path::new(CONFIG), &WithoutSecrets);
        rules(&loaded.expect("what is rendered from a checked file is a valid configuration").config)
    }
}

const CONFIG: &str = "linkspan.toml";
const COMPOSE: &str = include_str!("../../../docker-compose.yml");

/// Only where a port is published: the dialling side has no such file.
const OVERRIDE: &str = "\
# Written by linkspan init for the side that listens; docker compose reads it by itself.
# This is the one published port of the whole link.
services:
  linkspan:
    ports:
      - \"${TUNNEL_PORT:?written to .env by linkspan init}:${TUNNEL_PORT}/tcp\"
";

pub(super) fn render(env: &SetEnv, side: Side) -> Files {
    let mut entries = Vec::new();
    let mut add = |path: String, content| entries.push(FileEntry { path: path.into(), content });
    add(CONFIG.to_owned(), Content::Text(config(env, side)));
    if let Transport::Noise(secret) = &env.transport {
        add("secrets/tunnel".to_owned(), Content::Secret(secret.clone()));
    }
    for of in needed(side) {
        let cluster = env.cluster(of);
        if let Some((_, secret)) = &cluster.credentials {
            add(format!("secrets/{}-cluster", of.as_str()), Content::Secret(secret.clone()));
        }
        if let Some(pem) = &cluster.ca {
            add(format!("certs/{}-cluster-ca.crt", of.as_str()), Content::Text(pem.clone()));
        }
    }
    add(".env".to_owned(), Content::Text(compose_env(env, side)));
    add("docker-compose.yml".to_owned(), Content::Text(COMPOSE.to_owned()));
    if env.listen_side == side {
        add("docker-compose.override.yml".to_owned(), Content::Text(OVERRIDE.to_owned()));
    }
    Files { side, entries }
}

/// Whose credentials a side needs: the source talks to its own cluster alone (to learn which brokers may be reached), the
/// destination reads one cluster and writes the other.
fn needed(side: Side) -> Vec<Side> {
    match side {
        Side::Source => vec![Side::Source],
        Side::Destination => vec![Side::Source, Side::Destination],
    }
}

fn compose_env(env: &SetEnv, side: Side) -> String {
    let mut text =
        format!("# Written by linkspan init {}; read by docker compose. No secrets in here.\n", side.as_str());
    let _ = writeln!(text, "COMPOSE_PROJECT_NAME=linkspan-{}-{}", env.link, side.as_str());
    if env.listen_side == side {
        let _ = writeln!(text, "TUNNEL_PORT={}", env.tunnel_port);
    }
    text
}

fn config(env: &SetEnv, side: Side) -> String {
    let (local, peer) = (env.cluster(side), env.cluster(side.other()));
    let mut text = String::new();
    let t = &mut text;
    let _ = writeln!(
        t,
        "# The {} side of link {}: written by `linkspan init {0}` from setenv.sh.",
        side.as_str(),
        env.link
    );
    let _ = writeln!(
        t,
        "# Every key is explained in docs/reference/configuration.md; `linkspan config validate` checks this file."
    );
    let _ = writeln!(t, "\nlink = {}", quote(&env.link));
    let _ = writeln!(t, "state_dir = {}", quote(&env.state_dir));
    let _ = writeln!(t, "\n# The cluster beside this process.");
    cluster(t, "local", local, side, true);
    let _ = writeln!(t, "\n# The cluster at the other end, by the names it uses there.");
    cluster(t, "peer", peer, side.other(), needed(side).contains(&side.other()));
    tunnel(t, env, side);
    match side {
        Side::Source => expose(t, env),
        Side::Destination => {
            proxy(t, env.proxy);
            flow(t, env);
        }
    }
    if let Some(listen) = &env.admin_listen {
        let _ = writeln!(
            t,
            "\n# Liveness, readiness, metrics and status of this process.\n[admin]\nlisten = {}",
            quote(listen)
        );
    }
    text
}

fn cluster(t: &mut String, section: &str, cluster: &ClusterEnv, of: Side, with_security: bool) {
    let servers: Vec<String> = cluster.servers.iter().map(|server| quote(&server.to_string())).collect();
    let _ = writeln!(t, "[{section}]\ncluster = {}\nbootstrap = [{}]", quote(&cluster.id), servers.join(", "));
    if !with_security {
        return;
    }
    let mut keys = vec![format!("protocol = {}", quote(&cluster.protocol))];
    if let Some((name, _)) = &cluster.credentials {
        keys.push(format!("mechanism = {}", quote(&cluster.mechanism)));
        keys.push(format!("username = {}", quote(name)));
        keys.push(format!("password_file = \"secrets/{}-cluster\"", of.as_str()));
    }
    if cluster.ca.is_some() {
        keys.push(format!("ca_file = \"certs/{}-cluster-ca.crt\"", of.as_str()));
    }
    let _ = writeln!(t, "security = {{ {} }}", keys.join(", "));
}

fn tunnel(t: &mut String, env: &SetEnv, side: Side) {
    let (here, there) = (env.cluster(side), env.cluster(side.other()));
    if env.listen_side == side {
        let _ = writeln!(t, "\n# The one inbound port of the whole link is opened here; the peer dials it.");
        let _ = writeln!(t, "[tunnel]\nlisten = \"0.0.0.0:{}\"", env.tunnel_port);
    } else {
        let _ = writeln!(t, "\n# Nothing is opened here: this side dials the peer's one port.");
        let host =
            if there.tunnel_ip.contains(':') { format!("[{}]", there.tunnel_ip) } else { there.tunnel_ip.clone() };
        let _ = writeln!(t, "[tunnel]\ndial = {}", quote(&format!("{host}:{}", env.tunnel_port)));
    }
    match env.transport {
        Transport::Noise(_) => t.push_str("secret_file = \"secrets/tunnel\"\n"),
        Transport::Tls => {
            let _ = writeln!(
                t,
                "tls = {{ cert = \"certs/{0}.crt\", key = \"certs/{0}.key\", ca = \"certs/ca.crt\", peer = \"{1}.linkspan\" }}",
                side.as_str(),
                side.other().as_str()
            );
        }
    }
    let _ =
        writeln!(t, "# For the printed firewall rules: this host and the peer's, each as the other network sees it.");
    let _ = writeln!(t, "public_address = {}\npeer_address = {}", quote(&here.tunnel_ip), quote(&there.tunnel_ip));
}

fn expose(t: &mut String, env: &SetEnv) {
    let _ = writeln!(
        t,
        "\n# What the peer may reach here beside the bootstrap servers and the brokers that this cluster advertises."
    );
    let allow: Vec<String> = env.expose_allow.iter().map(|pattern| quote(pattern)).collect();
    let _ = writeln!(t, "[expose]\nallow = [{}]", allow.join(", "));
    if env.expose_resolve.is_empty() {
        return;
    }
    let entry = |(name, addresses): (&String, &Vec<std::net::IpAddr>)| {
        let addresses: Vec<String> = addresses.iter().map(|ip| quote(&ip.to_string())).collect();
        let value = if addresses.len() == 1 { addresses[0].clone() } else { format!("[{}]", addresses.join(", ")) };
        format!("{} = {value}", quote(name))
    };
    let entries: Vec<String> = env.expose_resolve.iter().map(entry).collect();
    let _ = writeln!(t, "resolve = {{ {} }}", entries.join(", "));
}

fn proxy(t: &mut String, mode: ProxyMode) {
    let (mode, says) = match mode {
        ProxyMode::Names => {
            ("names", "Local clients reach the peer's brokers by their own names: DNS on 127.0.0.1:5300.")
        }
        ProxyMode::Rewrite => {
            ("rewrite", "Local clients reach the peer's brokers under local addresses: bootstrap 127.0.0.1:19092.")
        }
        ProxyMode::Off => ("off", "Local clients do not reach the peer's brokers; replication needs no proxy."),
    };
    let _ = writeln!(t, "\n# {says}\n[proxy]\nmode = \"{mode}\"");
}

fn flow(t: &mut String, env: &SetEnv) {
    let _ = writeln!(t, "\n# From the peer's cluster to the local one.");
    let _ = writeln!(t, "[[replicate]]\ntopics = [{}]", quote(&env.topics));
    if let Some(exclude) = &env.exclude {
        let _ = writeln!(t, "exclude = [{}]", quote(exclude));
    }
    let _ = writeln!(t, "rename = {}", quote(&format!("${{topic}}{}", env.suffix)));
}

/// A TOML string, quoted as the value needs it.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
