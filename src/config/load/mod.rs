//! From a file's text to a [`Config`], with every mistake at once.

mod cluster;
mod flow;
mod proxy;
mod tunnel;

use std::net::IpAddr;
use std::path::Path;

use serde::Serialize;
use toml::de::DeTable;

use super::error::{ConfigErrors, ErrorCode, Finding, Source, sort};
use super::raw::{Node, Place, Reader, Section};
pub(super) use flow::default_name;
pub(super) use proxy::{in_zone, zones_of_hosts};

use super::{AdminConfig, Config, Env, ExposeConfig, ProxyConfig, TunnelRole, value};

/// A configuration, and what is to be said about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration itself.
    pub config: Config,
    /// What lets the program start but should be looked at, in the order of the file.
    pub warnings: Vec<Finding>,
    /// Every effective setting with its origin, sorted by path. Values of secrets are never among them.
    pub origins: Vec<Setting>,
}

/// One effective setting.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// Dotted path, for example `tunnel.listen`.
    pub path: String,
    /// As written in the file, or the default.
    pub value: String,
    /// Where it comes from.
    pub origin: Origin,
}

/// Where a setting comes from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// From the file, at this line and column (both from 1).
    File {
        /// Line.
        line: usize,
        /// Column in characters.
        column: usize,
    },
    /// From this environment variable.
    Env(String),
    /// Nobody said otherwise.
    Default,
}

/// Reads and checks a file. Relative paths in it begin at its directory.
///
/// # Errors
/// Every mistake of the file at once, also that it cannot be read.
pub fn load(path: &Path, env: &dyn Env) -> Result<Loaded, ConfigErrors> {
    parse(&read_text(path)?, path, env)
}

/// Checks a text as if it stood in the file `file_name`, which need not exist.
///
/// # Errors
/// Every mistake at once.
pub fn parse(text: &str, file_name: &Path, env: &dyn Env) -> Result<Loaded, ConfigErrors> {
    let name = file_name.display().to_string();
    let mut reader = Reader {
        source: Source::new(&name, text),
        env,
        base: file_name.parent().map(Path::to_path_buf).unwrap_or_default(),
        errors: Vec::new(),
        warnings: Vec::new(),
        settings: Vec::new(),
        sections: SECTIONS,
    };
    let (root, syntax) = DeTable::parse_recoverable(text);
    let broken = !syntax.is_empty();
    for error in syntax {
        let at = Place { span: error.span().unwrap_or(0..0), path: String::new() };
        reader.report(ErrorCode::Syntax, &at, error.message(), "");
    }
    let at = Place { span: 0..0, path: String::new() };
    let root = Section::new(&mut reader, root.get_ref(), at, "the top of the file".to_owned(), ROOT);
    let config = read(&mut reader, &root);
    if broken {
        // What is missing may only be hidden behind the syntax.
        reader.errors.retain(|e| !matches!(e.code, ErrorCode::Missing | ErrorCode::Unused));
    }
    let Reader { errors, mut warnings, mut settings, .. } = reader;
    match config {
        Some(config) if errors.is_empty() => {
            sort(&mut warnings);
            settings.sort_by(|a, b| a.path.cmp(&b.path));
            settings.dedup_by(|a, b| a.path == b.path);
            Ok(Loaded { config, warnings, origins: settings })
        }
        _ => Err(ConfigErrors::new(errors)),
    }
}

/// Reads a text file of at most 1 MiB.
pub(super) fn read_text(path: &Path) -> Result<String, ConfigErrors> {
    let problem = match std::fs::metadata(path) {
        Ok(meta) if meta.len() > MAX_FILE => format!("it has {} bytes, at most {MAX_FILE} are read", meta.len()),
        Ok(_) => match std::fs::read(path).map(String::from_utf8) {
            Ok(Ok(text)) => return Ok(text),
            Ok(Err(error)) => format!("it is no UTF-8 text at byte {}", error.utf8_error().valid_up_to()),
            Err(error) => format!("it cannot be read: {error}"),
        },
        Err(error) => format!("it cannot be read: {error}"),
    };
    let name = path.display().to_string();
    Err(ConfigErrors::new(vec![Finding::of_file(ErrorCode::Unreadable, &name, problem, String::new())]))
}

/// More than any such file needs, less than what would hurt.
const MAX_FILE: u64 = 1 << 20;

const ROOT: &[&str] = &["link", "local", "peer", "tunnel", "expose", "proxy", "replicate", "admin", "state_dir"];
const EXPOSE: &[&str] = &["allow", "resolve"];
const ADMIN: &[&str] = &["listen", "token_file"];

/// Every section of the file and the keys that it may have, in the order of the reference documentation.
#[must_use]
pub const fn keys() -> &'static [(&'static str, &'static [&'static str])] {
    SECTIONS
}

const SECTIONS: &[(&str, &[&str])] = &[
    ("the top of the file", ROOT),
    ("[local] and [peer]", cluster::CLUSTER),
    ("security", cluster::SECURITY),
    ("[tunnel]", tunnel::TUNNEL),
    ("tunnel.tls", tunnel::TLS),
    ("[expose]", EXPOSE),
    ("[proxy]", proxy::PROXY),
    ("proxy.upstream_tls", proxy::UPSTREAM_TLS),
    ("proxy.auth", cluster::SASL_KEYS),
    ("[proxy.clients]", proxy::CLIENTS),
    ("proxy.clients.tls", proxy::CLIENTS_TLS),
    ("[[replicate]]", flow::FLOW),
    ("[admin]", ADMIN),
];

fn read(reader: &mut Reader<'_>, root: &Section<'_>) -> Option<Config> {
    let link = root.required(reader, "link", "\"orange-grape\"");
    let link = link.and_then(|node| node.parse(reader, value::SLUG, value::slug));
    let state_dir = match root.get("state_dir") {
        None => {
            reader.default("state_dir", format!("{DEFAULT_STATE_DIR:?}"));
            Some(DEFAULT_STATE_DIR.into())
        }
        Some(node) => {
            let allowed = "a directory, for example \"/var/lib/linkspan\"";
            let dir =
                node.parse(reader, allowed, |t| if t.is_empty() { Err("this is empty") } else { Ok(t.to_owned()) });
            dir.map(|text| reader.path(&text))
        }
    };
    let replicates = root.has("replicate");
    let local = cluster::read(reader, root, "local", "LINKSPAN_LOCAL_PASSWORD", replicates);
    let peer = cluster::read(reader, root, "peer", "LINKSPAN_PEER_PASSWORD", replicates);
    if let (Some(local), Some(peer), Some(node)) = (&local, &peer, root.get("peer"))
        && local.cluster == peer.cluster
    {
        let section = node.table(reader, cluster::CLUSTER);
        if let Some(name) = section.and_then(|s| s.get("cluster")) {
            let problem = format!("`{}` is also the local cluster's name", peer.cluster);
            reader.report(ErrorCode::Duplicate, &name.at, problem, "two names that tell the clusters apart");
        }
    }
    let tunnel = tunnel::read(reader, root);
    let expose = expose(reader, root);
    let proxy = proxy::read(reader, root, local.as_ref(), peer.as_ref());
    let replicate = flow::read(reader, root, local.as_ref(), peer.as_ref());
    let admin = admin(reader, root);
    if let (Some(tunnel), Some(admin), Some(proxy)) = (&tunnel, &admin, &proxy) {
        one_user_a_port(reader, &tunnel.role, admin, proxy);
    }
    Some(Config {
        link: link?,
        local: local?,
        peer: peer?,
        tunnel: tunnel?,
        expose: expose?,
        proxy: proxy?,
        replicate: replicate?,
        admin: admin?,
        state_dir: state_dir?,
    })
}

const DEFAULT_STATE_DIR: &str = "/var/lib/linkspan";

fn expose(reader: &mut Reader<'_>, root: &Section<'_>) -> Option<ExposeConfig> {
    let section = root.table(reader, "expose", EXPOSE)?;
    let mut config = ExposeConfig::default();
    let mut whole = true;
    match section.get("allow") {
        None => reader.default("expose.allow", "[]"),
        Some(node) => match node.list(reader, value::PATTERN, value::pattern) {
            Some(patterns) => config.allow = patterns,
            None => whole = false,
        },
    }
    let Some(node) = section.get("resolve") else {
        return whole.then_some(config);
    };
    let wanted = "a table such as { \"b0.orange.test\" = \"10.0.0.11\" }";
    for (name, entry) in node.entries(reader, wanted)? {
        let key = value::host(name).ok().filter(|host| host.parse::<IpAddr>().is_err());
        if key.is_none() {
            reader.report(ErrorCode::Invalid, &entry.key_place(), format!("`{name}` is no host name"), wanted);
        }
        let allowed = "an address such as \"10.0.0.11\", or a list of them";
        let address = |text: &str| text.parse::<IpAddr>().map_err(|_| format!("`{text}` is no address"));
        let addresses = if entry.is_array() {
            entry.full_list(reader, allowed, address)
        } else {
            entry.parse(reader, allowed, address).map(|ip| vec![ip])
        };
        if let (Some(key), Some(addresses)) = (key, addresses)
            && config.resolve.insert(key, addresses).is_some()
        {
            reader.report(ErrorCode::Duplicate, &entry.key_place(), format!("`{name}` stands here twice"), "keep one");
        }
    }
    whole.then_some(config)
}

fn admin(reader: &mut Reader<'_>, root: &Section<'_>) -> Option<AdminConfig> {
    let section = root.table(reader, "admin", ADMIN)?;
    let listen = match section.get("listen") {
        None => {
            reader.default("admin.listen", "\"127.0.0.1:9464\"");
            value::socket("127.0.0.1:9464").ok()
        }
        Some(node) => {
            let allowed = format!("\"off\", or {}", value::SOCKET);
            let off = |text: &str| if text == "off" { Ok(None) } else { value::socket(text).map(Some) };
            let listen = node.parse(reader, &allowed, off)?;
            if listen.is_some_and(|address| !address.ip().is_loopback()) {
                let hint = "it tells everybody who asks: let a firewall guard it, or listen on 127.0.0.1";
                reader.report(ErrorCode::Weakened, &node.at, "the admin port is open to other hosts", hint);
            }
            listen
        }
    };
    if listen.is_none() {
        section.unused(reader, &["token_file"], "the admin port is off");
    }
    let token = match section.get("token_file") {
        None => None,
        Some(node) => {
            let token = cluster::secret_file(reader, &node)?;
            let length = token.expose().trim().len();
            if length < LEAST_TOKEN {
                let problem = format!("the token has {length} characters");
                reader.report(
                    ErrorCode::Invalid,
                    &node.at,
                    problem,
                    format!("at least {LEAST_TOKEN}: linkspan secret new makes one"),
                );
                return None;
            }
            Some(token)
        }
    };
    Some(AdminConfig { listen, token })
}

/// Characters of the admin token: 128 bits in hexadecimal have as many.
const LEAST_TOKEN: usize = 32;

/// Two listeners on one address are found here and not by the second bind.
fn one_user_a_port(reader: &mut Reader<'_>, role: &TunnelRole, admin: &AdminConfig, proxy: &ProxyConfig) {
    let mut users = Vec::new();
    if let TunnelRole::Listen(address) = role {
        users.push(("tunnel.listen", *address));
    }
    users.extend(admin.listen.map(|address| ("admin.listen", address)));
    if let ProxyConfig::Rewrite(rewrite) = proxy {
        users.push(("proxy.listen", rewrite.listen));
    }
    for (index, (path, address)) in users.iter().enumerate() {
        for (other, taken) in &users[..index] {
            let overlap = address.ip() == taken.ip() || address.ip().is_unspecified() || taken.ip().is_unspecified();
            if address.port() == taken.port() && overlap {
                let place = |path: &str| {
                    let setting = reader.settings.iter().find(|s| s.path == path)?;
                    let Origin::File { line, column } = setting.origin else { return None };
                    Some((path.to_owned(), reader.source.offset(line, column), setting.value.len()))
                };
                let Some((at, start, length)) = place(path).or_else(|| place(other)) else { continue };
                let problem = format!("`{path}` and `{other}` both listen on port {}", address.port());
                reader.report(
                    ErrorCode::Conflict,
                    &Place { span: start..start + length, path: at },
                    problem,
                    "choose another port",
                );
            }
        }
    }
}

/// A path of a file that must be there.
fn file(reader: &mut Reader<'_>, node: &Node<'_>) -> Option<std::path::PathBuf> {
    let text = node.text(reader, "the path of a PEM file")?;
    if text.is_empty() {
        reader.report(ErrorCode::Invalid, &node.at, "this path is empty", "the path of a PEM file");
        return None;
    }
    let path = reader.path(text);
    if let Err(error) = reader.env.probe_file(&path) {
        let problem = format!("{} cannot be read: {error}", path.display());
        reader.report(
            ErrorCode::SecretUnread,
            &node.at,
            problem,
            "a PEM file; relative paths begin at the directory of this file",
        );
        return None;
    }
    Some(path)
}
