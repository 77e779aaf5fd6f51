//! From the text of `setenv.sh` to a [`SetEnv`], with every mistake at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::IpAddr;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::super::error::{ConfigErrors, ErrorCode, Finding, Source, nearest};
use super::super::load::{in_zone, zones_of_hosts};
use super::super::{Secret, load, shell, value};
use super::{ClusterEnv, OPTIONAL, ProxyMode, REQUIRED, SetEnv, Side, Transport};
use crate::net::HostPort;

const PROTOCOLS: &[&str] = &["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
const MECHANISMS: &[&str] = &["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

pub(super) fn read(text: &str, file_name: &Path) -> Result<SetEnv, ConfigErrors> {
    let name = file_name.display().to_string();
    let source = Source::new(&name, text);
    let (assignments, errors) = shell::assignments(&source);
    let mut keys = Keys {
        source,
        base: file_name.parent().map(Path::to_path_buf).unwrap_or_default(),
        broken: !errors.is_empty(),
        errors,
        values: BTreeMap::new(),
    };
    for assignment in assignments {
        keys.take(assignment);
    }
    let read = keys.read();
    match read {
        Some(set_env) if keys.errors.is_empty() => Ok(set_env),
        _ => Err(ConfigErrors::new(keys.errors)),
    }
}

struct Value {
    text: String,
    /// The value, or the key where the value is empty.
    shown: Range<usize>,
    key: Range<usize>,
}

struct Keys<'a> {
    source: Source<'a>,
    base: PathBuf,
    /// Whether lines could not be read; keys that are missing may stand there.
    broken: bool,
    errors: Vec<Finding>,
    values: BTreeMap<String, Value>,
}

impl Keys<'_> {
    fn take(&mut self, found: shell::Assignment) {
        let shell::Assignment { key, key_span, value, value_span } = found;
        let known = || REQUIRED.iter().chain(OPTIONAL).copied();
        if !known().any(|name| name == key) {
            let near = nearest(&key, known());
            let allowed = format!("keys of this file: {}", known().collect::<Vec<_>>().join(", "));
            let problem = format!("unknown key `{key}`");
            let finding = Finding::at(ErrorCode::UnknownKey, &self.source, key_span, &key, problem, allowed);
            self.errors.push(finding.with_nearest(near));
            return;
        }
        if let Some(first) = self.values.get(&key) {
            let line = self.source.line_column(first.key.start).0;
            let problem = format!("`{key}` is set a second time, first in line {line}");
            self.errors.push(Finding::at(
                ErrorCode::Duplicate,
                &self.source,
                key_span,
                &key,
                problem,
                "keep one".to_owned(),
            ));
            return;
        }
        let shown = if value.is_empty() { key_span.clone() } else { value_span };
        if value.to_ascii_lowercase().starts_with(PLACEHOLDER) {
            let allowed = match key.as_str() {
                "SHARED_SECRET" => "make one with: linkspan secret new",
                _ => "replace it with your value",
            };
            let problem = "this is still the template's placeholder".to_owned();
            self.errors.push(Finding::at(
                ErrorCode::Placeholder,
                &self.source,
                shown.clone(),
                &key,
                problem,
                allowed.to_owned(),
            ));
        }
        self.values.insert(key, Value { text: value, shown, key: key_span });
    }

    fn report(&mut self, code: ErrorCode, key: &str, problem: impl Display, allowed: impl Display) {
        self.report_near(code, key, problem, allowed, None);
    }

    fn report_near(
        &mut self,
        code: ErrorCode,
        key: &str,
        problem: impl Display,
        allowed: impl Display,
        near: Option<String>,
    ) {
        let span = self.values.get(key).map_or(0..0, |value| value.shown.clone());
        // A placeholder was reported as one; what else is wrong with it says nothing.
        let told = |e: &Finding| e.code == ErrorCode::Placeholder && e.path == key;
        if self.errors.iter().any(told) {
            return;
        }
        let finding = Finding::at(code, &self.source, span, key, problem.to_string(), allowed.to_string());
        self.errors.push(finding.with_nearest(near));
    }

    /// The text of a key that must be there, possibly empty.
    fn required(&mut self, key: &str) -> Option<String> {
        let found = self.values.get(key).map(|value| value.text.clone());
        if found.is_none() && !self.broken {
            let problem = format!("`{key}` is not set");
            let hint = format!("export {key}=…; setenv.sh.template explains it");
            let mut finding = Finding::of_file(ErrorCode::Missing, self.source.name, problem, hint);
            finding.path = key.to_owned();
            self.errors.push(finding);
        }
        found
    }

    /// The text of a key that must be there with something in it.
    fn filled(&mut self, key: &str, allowed: &str) -> Option<String> {
        let text = self.required(key)?;
        if text.is_empty() {
            self.report(ErrorCode::Invalid, key, "this is empty", allowed);
        }
        (!text.is_empty()).then_some(text)
    }

    /// A key that may be absent or empty, which mean the same.
    fn optional(&self, key: &str) -> Option<String> {
        self.values.get(key).map(|value| value.text.clone()).filter(|text| !text.is_empty())
    }

    fn checked<T, E: Display>(&mut self, key: &str, allowed: &str, read: Result<T, E>) -> Option<T> {
        read.map_err(|problem| self.report(ErrorCode::Invalid, key, problem, allowed)).ok()
    }

    /// One of a few words; `default` where the key is absent.
    fn word(&mut self, key: &str, words: &[&'static str], default: &'static str) -> Option<&'static str> {
        let Some(text) = self.optional(key) else { return Some(default) };
        let found = words.iter().copied().find(|word| *word == text);
        if found.is_none() {
            let near = nearest(&text, words.iter().copied());
            self.report_near(
                ErrorCode::Invalid,
                key,
                format!("`{text}` is not known"),
                format!("one of {}", words.join(", ")),
                near,
            );
        }
        found
    }

    fn read(&mut self) -> Option<SetEnv> {
        let source = self.cluster("SOURCE");
        let destination = self.cluster("DESTINATION");
        let topics = self.filled("REPLICA_TOPICS_SOURCE_REGEX", value::REGEX);
        let topics =
            topics.and_then(|text| self.checked("REPLICA_TOPICS_SOURCE_REGEX", value::REGEX, value::regex(&text)));
        let suffix = self.required("REPLICA_TOPICS_DEST_SUFFIX");
        let allowed = "letters, digits, `.`, `_` and `-`; empty to keep the names";
        let suffix =
            suffix.and_then(|text| self.checked("REPLICA_TOPICS_DEST_SUFFIX", allowed, value::topic_part(&text)));
        let exclude = match self.optional("REPLICA_TOPICS_EXCLUDE_REGEX") {
            None => Some(None),
            Some(text) => self.checked("REPLICA_TOPICS_EXCLUDE_REGEX", value::REGEX, value::regex(&text)).map(Some),
        };
        let tunnel_port = match self.optional("TUNNEL_PORT") {
            None => Some(DEFAULT_PORT),
            Some(text) => {
                let port =
                    text.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(|| format!("`{text}` is no port"));
                self.checked("TUNNEL_PORT", "a number from 1 to 65535", port)
            }
        };
        let listen_side = self.word("TUNNEL_LISTEN_SIDE", &["source", "destination"], "source");
        let listen_side = listen_side.map(|word| if word == "source" { Side::Source } else { Side::Destination });
        let transport = self.transport();
        let (expose_allow, expose_resolve) = (self.expose_allow(), self.expose_resolve());
        let admin_listen = match self.optional("ADMIN_LISTEN") {
            Some(text) if text != "off" => {
                self.checked("ADMIN_LISTEN", value::SOCKET, value::socket(&text)).map(|_| Some(text))
            }
            other => Some(other),
        };
        let state_dir = self.optional("STATE_DIR").unwrap_or_else(|| DEFAULT_STATE_DIR.to_owned());
        let both = source.as_ref().zip(destination.as_ref());
        if let Some((source, destination)) = both
            && source.id == destination.id
        {
            self.report(
                ErrorCode::Duplicate,
                "DESTINATION_CLUSTER_ID",
                "both clusters have this id",
                "two ids that differ",
            );
        }
        let link = match (self.optional("LINK_NAME"), both) {
            (Some(text), _) => self.checked("LINK_NAME", value::SLUG, value::slug(&text)),
            (None, Some((source, destination))) => Some(load::default_name(&source.id, &destination.id)),
            (None, None) => None,
        };
        let proxy = self.word("PROXY_MODE", &["names", "rewrite", "off"], "");
        let proxy = proxy.zip(both).map(|(word, (source, destination))| self.proxy(word, source, destination));
        Some(SetEnv {
            link: link?,
            source: source?,
            destination: destination?,
            topics: topics?,
            exclude: exclude?,
            suffix: suffix?,
            tunnel_port: tunnel_port?,
            listen_side: listen_side?,
            transport: transport?,
            proxy: proxy?,
            admin_listen: admin_listen?,
            expose_allow: expose_allow?,
            expose_resolve: expose_resolve?,
            state_dir,
        })
    }

    /// Names, where names can tell the two clusters apart; else rewriting.
    fn proxy(&mut self, word: &str, source: &ClusterEnv, destination: &ClusterEnv) -> ProxyMode {
        let zones = zones_of_hosts(&source.servers);
        let covered = |server: &HostPort| zones.iter().any(|zone| in_zone(server.host(), zone));
        let possible = if zones.is_empty() {
            Err("the source's servers are addresses, not names")
        } else if destination.servers.iter().any(covered) {
            Err("the names of both clusters are in the same domain")
        } else {
            Ok(())
        };
        match (word, possible) {
            ("off", _) => ProxyMode::Off,
            ("rewrite", _) | ("", Err(_)) => ProxyMode::Rewrite,
            ("names", Err(why)) => {
                self.report(ErrorCode::Conflict, "PROXY_MODE", why, "rewrite or off");
                ProxyMode::Off
            }
            _ => ProxyMode::Names,
        }
    }

    fn transport(&mut self) -> Option<Transport> {
        let words = ["noise", "tls"];
        if self.word("TUNNEL_TRANSPORT", &words, "noise")? == "tls" {
            self.required("SHARED_SECRET")?;
            return Some(Transport::Tls);
        }
        self.filled("SHARED_SECRET", "make one with: linkspan secret new")
            .map(|text| Transport::Noise(Secret::new(text)))
    }

    fn cluster(&mut self, prefix: &str) -> Option<ClusterEnv> {
        let key = |name: &str| format!("{prefix}_{name}");
        let id = self.filled(&key("CLUSTER_ID"), value::CLUSTER);
        let id = id.and_then(|text| self.checked(&key("CLUSTER_ID"), value::CLUSTER, value::cluster(&text)));
        let servers = self.servers(&key("BROKER_SERVERS"));
        let tunnel_key = format!("{prefix}_SIDE_TUNNEL_IP");
        let allowed = "the address of the host beside this cluster, as the other network sees it; no port";
        let tunnel_ip = self.filled(&tunnel_key, allowed);
        let tunnel_ip = tunnel_ip.and_then(|text| {
            let host =
                if text.contains('/') { Err(format!("`{text}` is a network")) } else { value::place_in_network(&text) };
            self.checked(&tunnel_key, allowed, host)
        });
        let (api_key, api_secret) = (self.required(&key("API_KEY")), self.required(&key("API_SECRET")));
        let with_key = api_key.as_ref().is_some_and(|text| !text.is_empty());
        let default = if with_key || api_key.is_none() { "SASL_SSL" } else { "PLAINTEXT" };
        let protocol = self.word(&key("SECURITY_PROTOCOL"), PROTOCOLS, default)?;
        let sasl = protocol.starts_with("SASL");
        let credentials = match (api_key?, api_secret?) {
            (name, secret) if name.is_empty() && secret.is_empty() => {
                if sasl {
                    self.report(
                        ErrorCode::Missing,
                        &key("API_KEY"),
                        format!("{protocol} needs a key"),
                        "the user or API key",
                    );
                }
                None
            }
            (name, secret) if name.is_empty() || secret.is_empty() => {
                let empty = key(if name.is_empty() { "API_KEY" } else { "API_SECRET" });
                self.report(
                    ErrorCode::Conflict,
                    &empty,
                    "this is empty, its other half is not",
                    "both, or neither for a cluster without SASL",
                );
                None
            }
            (name, secret) if sasl => Some((name, Secret::new(secret))),
            _ => {
                self.report(
                    ErrorCode::Unused,
                    &key("API_KEY"),
                    format!("{protocol} has no SASL"),
                    "empty key and secret, or a SASL protocol",
                );
                None
            }
        };
        let mechanism = self.word(&key("SASL_MECHANISM"), MECHANISMS, "PLAIN");
        if !sasl && self.optional(&key("SASL_MECHANISM")).is_some() {
            self.report(ErrorCode::Unused, &key("SASL_MECHANISM"), format!("{protocol} has no SASL"), "remove it");
        }
        let ca = self.ca(&key("CA_FILE"), protocol);
        Some(ClusterEnv {
            id: id?,
            servers: servers?,
            protocol: protocol.to_owned(),
            mechanism: mechanism?.to_owned(),
            credentials,
            ca: ca?,
            tunnel_ip: tunnel_ip?,
        })
    }

    /// The text of a CA file, so that the written files are whole.
    fn ca(&mut self, key: &str, protocol: &str) -> Option<Option<String>> {
        let Some(text) = self.optional(key) else { return Some(None) };
        if !protocol.ends_with("SSL") {
            self.report(ErrorCode::Unused, key, format!("{protocol} has no TLS"), "remove it");
            return None;
        }
        let path = self.base.join(text);
        let allowed = "a PEM file; relative paths begin at the directory of this file";
        match std::fs::read_to_string(&path) {
            Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => Some(Some(pem)),
            Ok(_) => {
                self.report(ErrorCode::Invalid, key, format!("{} has no certificate in it", path.display()), allowed);
                None
            }
            Err(error) => {
                self.report(
                    ErrorCode::SecretUnread,
                    key,
                    format!("{} cannot be read: {error}", path.display()),
                    allowed,
                );
                None
            }
        }
    }

    fn servers(&mut self, key: &str) -> Option<Vec<HostPort>> {
        let text = self.filled(key, value::HOST_PORT)?;
        let mut servers = Vec::new();
        for part in parts(&text) {
            let server = self.checked(key, value::HOST_PORT, value::host_port(part))?;
            if servers.contains(&server) {
                self.report(ErrorCode::Duplicate, key, format!("{server} stands here twice"), "keep one");
                return None;
            }
            servers.push(server);
        }
        if servers.is_empty() {
            self.report(ErrorCode::Invalid, key, "there is no server in it", value::HOST_PORT);
            return None;
        }
        Some(servers)
    }

    fn expose_allow(&mut self) -> Option<Vec<String>> {
        let text = self.optional("EXPOSE_ALLOW").unwrap_or_default();
        parts(&text).map(|part| self.checked("EXPOSE_ALLOW", value::PATTERN, value::pattern(part))).collect()
    }

    fn expose_resolve(&mut self) -> Option<BTreeMap<String, Vec<IpAddr>>> {
        let text = self.optional("EXPOSE_RESOLVE").unwrap_or_default();
        let mut table: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
        for part in parts(&text) {
            let entry = match part.split_once('=') {
                None => Err(format!("`{part}` has no `=`")),
                Some((name, address)) => value::host(name).and_then(|name| {
                    address.parse::<IpAddr>().map(|ip| (name, ip)).map_err(|_| format!("`{address}` is no address"))
                }),
            };
            let allowed = "name=address pairs with commas between, for example b0.orange.test=10.0.0.11";
            let (name, address) = self.checked("EXPOSE_RESOLVE", allowed, entry)?;
            table.entry(name).or_default().push(address);
        }
        Some(table)
    }
}

/// The elements of a list with commas or blanks between.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split([',', ' ', '\t']).filter(|part| !part.is_empty())
}

/// How every placeholder of the template begins.
const PLACEHOLDER: &str = "replace-with-";
const DEFAULT_PORT: u16 = 7443;
/// Beside the configuration, so that the same files serve `linkspan run` without root and the container.
const DEFAULT_STATE_DIR: &str = "state";
