//! A changed configuration, put into effect while the endpoint runs.
//!
//! Rules kept here: what changes live is changed whole or not at all, and the rest waits for a restart and is named; nothing
//! that is still allowed is touched.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use crate::config::{Config, Loaded, ProxyConfig, Sasl, Setting, TunnelAuth};
use crate::control::{ConfigSection, time};
use crate::tunnel::endpoint::Endpoint;
use crate::tunnel::exit::ExitRules;

use super::LinkError;

/// Keys whose change takes effect at once, by their beginnings; the two addresses are for `linkspan firewall` alone.
const LIVE: [&str; 6] = [
    "expose.",
    "tunnel.secret_file",
    "tunnel.secret_env",
    "tunnel.tls",
    "tunnel.peer_address",
    "tunnel.public_address",
];

/// Puts changed configurations into effect. Cheap to clone.
#[derive(Clone)]
pub struct Reloader {
    endpoint: Endpoint,
    rules: ExitRules,
    state: Arc<Mutex<State>>,
}

struct State {
    /// What the process was started with.
    started: Loaded,
    /// The settings that were last put into effect, or were there at the start.
    settings: Vec<Setting>,
    seen: ConfigSection,
}

/// What became of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Keys that changed and are in effect.
    pub changed: Vec<String>,
    /// Keys that differ from what runs, until the next start.
    pub waiting: Vec<String>,
    /// Carriers closed because their peers are no longer trusted.
    pub closed: usize,
}

impl Reloader {
    pub(super) fn new(started: &Loaded, endpoint: Endpoint, rules: ExitRules) -> Self {
        let settings = started.origins.clone();
        let seen = ConfigSection::default();
        Self { endpoint, rules, state: Arc::new(Mutex::new(State { started: started.clone(), settings, seen })) }
    }

    /// Puts `loaded` into effect, as far as that can be without a restart. Reads the certificate files that it names.
    ///
    /// # Errors
    /// [`LinkError`]: nothing was changed, what ran goes on.
    pub fn apply(&self, loaded: &Loaded) -> Result<Applied, LinkError> {
        let config = &loaded.config;
        // Noise against TLS is another preamble on the port: that waits for a restart.
        let same_transport = transport(config) == transport(&self.state().started.config);
        // All that can fail comes before anything is changed, and files are read while nobody waits for the lock.
        let auth = same_transport.then(|| self.endpoint.read_auth(&config.tunnel.auth)).transpose();
        let put = auth.map_err(LinkError::from).and_then(|auth| {
            self.rules.replace(&config.expose)?;
            Ok(auth.map_or(0, |auth| self.endpoint.set_auth(auth)))
        });
        let closed = match put {
            Ok(closed) => closed,
            Err(error) => {
                self.failed(&error);
                return Err(error);
            }
        };
        let mut state = self.state();
        let waiting = waiting(&state.started, loaded);
        let in_effect = |key: &String| is_live(key) && (same_transport || !key.starts_with("tunnel."));
        let changed = differing(&state.settings, &loaded.origins).into_iter().filter(in_effect).collect();
        state.settings.clone_from(&loaded.origins);
        let seen = &mut state.seen;
        seen.reloads += 1;
        seen.reloaded_at = Some(time::rfc3339(SystemTime::now()));
        seen.restart_for.clone_from(&waiting);
        seen.last_error = None;
        Ok(Applied { changed, waiting, closed })
    }

    /// A configuration could not be loaded: what ran goes on, and the status says so until one can.
    pub fn failed(&self, error: &dyn std::fmt::Display) {
        let mut state = self.state();
        state.seen.reloads_failed += 1;
        state.seen.last_error = Some(error.to_string());
    }

    pub(super) fn seen(&self) -> ConfigSection {
        self.state().seen.clone()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        // Written last, after all that can fail.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Reloader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Reloader").field(&self.seen()).finish()
    }
}

/// Keys that differ between what runs and what is written, and that only a start reads.
fn waiting(started: &Loaded, loaded: &Loaded) -> Vec<String> {
    let (old, new) = (&started.config, &loaded.config);
    let mut keys: Vec<String> =
        differing(&started.origins, &loaded.origins).into_iter().filter(|key| !is_live(key)).collect();
    // Secrets are never among the settings, and may change where the file that holds them does not.
    let mut secret = |differs: bool, key: &str| {
        if differs && !keys.iter().any(|known| known.starts_with(key)) {
            keys.push(key.to_owned());
        }
    };
    secret(old.local.security != new.local.security, "local.security");
    secret(old.peer.security != new.peer.security, "peer.security");
    secret(proxy_auth(old) != proxy_auth(new), "proxy.auth");
    secret(transport(old) != transport(new), "tunnel.tls");
    keys.sort();
    keys
}

fn proxy_auth(config: &Config) -> Option<&Sasl> {
    match &config.proxy {
        ProxyConfig::Rewrite(rewrite) => rewrite.auth.as_ref(),
        ProxyConfig::Off | ProxyConfig::Names(_) => None,
    }
}

const fn transport(config: &Config) -> &'static str {
    match config.tunnel.auth {
        TunnelAuth::Noise { .. } => "noise",
        TunnelAuth::Tls { .. } => "tls",
    }
}

fn is_live(key: &str) -> bool {
    LIVE.iter().any(|live| key.starts_with(live))
}

/// Keys whose values differ, sorted; both lists are sorted by path.
fn differing(old: &[Setting], new: &[Setting]) -> Vec<String> {
    let only = |these: &[Setting], others: &[Setting]| -> Vec<String> {
        let lacks = |setting: &&Setting| {
            !others
                .binary_search_by(|other| other.path.cmp(&setting.path))
                .is_ok_and(|at| others[at].value == setting.value)
        };
        these.iter().filter(lacks).map(|setting| setting.path.clone()).collect()
    };
    let mut keys = only(old, new);
    keys.extend(only(new, old));
    keys.sort();
    keys.dedup();
    keys
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use tokio::sync::mpsc;

    use super::*;
    use crate::config::{MapEnv, parse};
    use crate::tunnel::exit::Exit;

    const FILE: &str = r#"
        link = "orange-grape"
        [local]
        cluster = "orange"
        bootstrap = ["b0.orange.test:9092"]
        [peer]
        cluster = "grape"
        bootstrap = ["b0.grape.test:9092"]
        [tunnel]
        listen = "127.0.0.1:7443"
        secret_env = "SECRET"
        [expose]
        allow = ["b1.orange.test:9092"]
        [admin]
        listen = "127.0.0.1:9464"
    "#;
    const OLD: &str = "kP3x9Vd2mQ7sT1bW8zLrN5cY4hJ6gF0a";
    const NEW: &str = "Zq8wM3nB6vC1xK9jH4gF7dS2aP5oI0uY";

    fn load(text: &str, secret: &str) -> Loaded {
        let env = MapEnv(BTreeMap::from([("SECRET".to_owned(), secret.to_owned())]));
        parse(text, Path::new("linkspan.toml"), &env).unwrap_or_else(|errors| panic!("{errors}"))
    }

    /// The same link with the certificates of `dir`.
    fn with_tls(dir: &Path) -> String {
        let tls = format!(
            "tls = {{ cert = \"{0}/source.crt\", key = \"{0}/source.key\", ca = \"{0}/ca.crt\", peer = \"destination.linkspan\" }}",
            dir.display()
        );
        FILE.replace("secret_env = \"SECRET\"", &tls)
    }

    fn running(loaded: &Loaded) -> (Reloader, Exit) {
        let config = &loaded.config;
        let (endpoint, _driver) = Endpoint::new(config.link.clone(), &config.tunnel, mpsc::channel(1).0).unwrap();
        let exit = Exit::new(&config.expose, &config.local.bootstrap, &config.tunnel.limits).unwrap();
        (Reloader::new(loaded, endpoint, exit.rules()), exit)
    }

    #[test]
    fn what_can_change_live_does_and_the_rest_is_named_until_the_restart() {
        let (reloader, exit) = running(&load(FILE, OLD));
        let policy = exit.policy();
        let target = "b2.orange.test:9092".parse().unwrap();
        assert_eq!(policy.decide(&target), None);

        let text = FILE.replace("b1.orange", "b2.orange").replace("9464", "9465");
        let applied = reloader.apply(&load(&text, NEW)).unwrap();
        assert_eq!(applied.changed, ["expose.allow"]);
        assert_eq!(applied.waiting, ["admin.listen"]);
        assert!(policy.decide(&target).is_some());

        // The same once more: nothing is new, the port still waits.
        let applied = reloader.apply(&load(&text, NEW)).unwrap();
        assert_eq!((applied.changed.len(), applied.waiting.len()), (0, 1));
        // Taken back: nothing waits.
        let applied = reloader.apply(&load(&text.replace("9465", "9464"), NEW)).unwrap();
        assert_eq!((applied.changed.len(), applied.waiting.len()), (0, 0));
        let seen = reloader.seen();
        assert_eq!((seen.reloads, seen.reloads_failed, seen.last_error), (3, 0, None));
    }

    #[test]
    fn another_transport_waits_and_is_not_called_changed() {
        let dir = tempfile::tempdir().unwrap();
        crate::tunnel::certs::generate(dir.path(), false).unwrap();
        let (reloader, _exit) = running(&load(FILE, OLD));
        let applied = reloader.apply(&load(&with_tls(dir.path()), OLD)).unwrap();
        assert_eq!((applied.changed, applied.waiting, applied.closed), (Vec::new(), vec!["tunnel.tls".to_owned()], 0));
    }

    #[test]
    fn a_bad_certificate_leaves_the_rules_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        crate::tunnel::certs::generate(dir.path(), false).unwrap();
        let text = with_tls(dir.path());
        let (reloader, exit) = running(&load(&text, OLD));
        std::fs::write(dir.path().join("source.crt"), "no certificate").unwrap();
        let error = reloader.apply(&load(&text.replace("b1.orange", "b2.orange"), OLD)).unwrap_err().to_string();
        assert!(error.contains("source.crt"), "{error}");
        let policy = exit.policy();
        assert!(policy.decide(&"b1.orange.test:9092".parse().unwrap()).is_some());
        assert_eq!(policy.decide(&"b2.orange.test:9092".parse().unwrap()), None);
    }

    #[test]
    fn what_fails_changes_nothing_and_is_told_until_one_succeeds() {
        let (reloader, exit) = running(&load(FILE, OLD));
        let text = FILE.replace("b1.orange.test:9092", "*:9092");
        let mut bad = load(FILE, OLD);
        bad.config.expose.allow = vec!["*:9092".to_owned()];
        assert!(parse(&text, Path::new("x"), &MapEnv::default()).is_err());
        let error = reloader.apply(&bad).unwrap_err().to_string();
        assert!(error.contains("would allow every host"), "{error}");
        assert!(exit.policy().decide(&"b1.orange.test:9092".parse().unwrap()).is_some());
        assert_eq!(reloader.seen().last_error, Some(error));
        reloader.apply(&load(FILE, OLD)).unwrap();
        let seen = reloader.seen();
        assert_eq!((seen.reloads, seen.reloads_failed, seen.last_error), (1, 1, None));
    }
}
