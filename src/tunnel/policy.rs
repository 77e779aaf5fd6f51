//! What the peer may have dialled here: default deny.
//!
//! Allowed are this side's bootstrap servers, the brokers that this side's cluster itself advertised, and what the operator
//! wrote. A target is decided by its text alone, before any look-up or dial; what a name resolves to is decided again, so that
//! a name cannot lead into this host itself.
//!
//! IP addresses as targets must be written as such: no pattern matches them.

use std::collections::HashSet;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;

use crate::net::{HostPort, HostPortError};

/// Most advertised brokers that are kept; far above the largest cluster.
pub const MOST_ADVERTISED: usize = 16_384;

/// The rules of one exit, with the live set of advertised brokers.
#[derive(Debug)]
pub struct Policy {
    bootstrap: HashSet<HostPort>,
    written: RwLock<Written>,
    advertised: RwLock<Arc<HashSet<HostPort>>>,
    generation: watch::Sender<u64>,
}

/// What the operator wrote.
#[derive(Debug, Default)]
struct Written {
    exact: HashSet<HostPort>,
    patterns: Vec<Pattern>,
}

/// Why a target is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowed {
    /// It is one of `local.bootstrap`.
    Bootstrap,
    /// It stands in `[expose] allow`, word for word.
    Listed,
    /// A pattern of `[expose] allow` matches it.
    Pattern,
    /// This side's cluster named it as one of its brokers.
    Advertised,
}

/// Why a text is no rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuleError {
    /// `*` alone would allow every host.
    #[error("`{0}` would allow every host; write the zone, for example `*.orange.example:9092`")]
    Everything(String),
    /// `*` anywhere but as the leftmost label.
    #[error("`{0}`: `*` stands only for whole labels at the left (`*.orange.example`) or for the port")]
    Star(String),
    /// Not `host:port`.
    #[error(transparent)]
    HostPort(#[from] HostPortError),
}

/// One line of `[expose] allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    host: Host,
    /// `None` for any.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Exact(String),
    /// One or more labels before this one, which begins with its dot.
    Below(String),
}

impl FromStr for Pattern {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (host, port) = text.rsplit_once(':').ok_or_else(|| HostPortError::NoPort(text.to_owned()))?;
        let any_port = port == "*";
        // Any port will do to have the host checked.
        let check = |host: &str| format!("{host}:{}", if any_port { "1" } else { port }).parse::<HostPort>();
        let (host, port) = if let Some(zone) = host.strip_prefix("*.") {
            if zone.contains('*') {
                return Err(RuleError::Star(text.to_owned()));
            }
            let checked = check(zone)?;
            // `*.0.0.1` would be the end of an address.
            if checked.ip().is_some() || zone.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
                return Err(RuleError::Star(text.to_owned()));
            }
            (Host::Below(format!(".{}", checked.host())), checked.port())
        } else if host == "*" {
            return Err(RuleError::Everything(text.to_owned()));
        } else if host.contains('*') {
            return Err(RuleError::Star(text.to_owned()));
        } else {
            let checked = check(host)?;
            (Host::Exact(checked.host().to_owned()), checked.port())
        };
        Ok(Self { host, port: (!any_port).then_some(port) })
    }
}

impl Pattern {
    /// Whether the pattern covers `target`.
    #[must_use]
    pub fn matches(&self, target: &HostPort) -> bool {
        let host = match &self.host {
            Host::Exact(host) => host == target.host(),
            Host::Below(zone) => {
                target.ip().is_none() && target.host().strip_suffix(zone.as_str()).is_some_and(|left| !left.is_empty())
            }
        };
        host && self.port.is_none_or(|port| port == target.port())
    }
}

impl Policy {
    /// Reads the operator's rules; `bootstrap` is allowed without being written.
    ///
    /// # Errors
    /// All rules that are none, each with its text.
    pub fn new(allow: &[String], bootstrap: &[HostPort]) -> Result<Self, Vec<RuleError>> {
        Ok(Self {
            bootstrap: bootstrap.iter().cloned().collect(),
            written: RwLock::new(Written::read(allow)?),
            advertised: RwLock::default(),
            generation: watch::Sender::new(0),
        })
    }

    /// Puts other rules of the operator in the place of the present ones.
    ///
    /// # Errors
    /// As [`Policy::new`]; the present rules stay then.
    pub fn set_written(&self, allow: &[String]) -> Result<(), Vec<RuleError>> {
        let new = Written::read(allow)?;
        *self.written.write().unwrap_or_else(PoisonError::into_inner) = new;
        self.generation.send_modify(|generation| *generation += 1);
        Ok(())
    }

    /// Decides by the target's text alone; `None` is a refusal.
    #[must_use]
    pub fn decide(&self, target: &HostPort) -> Option<Allowed> {
        if self.bootstrap.contains(target) {
            Some(Allowed::Bootstrap)
        } else if let Some(why) = self.written.read().unwrap_or_else(PoisonError::into_inner).decide(target) {
            Some(why)
        } else if self.advertised().contains(target) && target.ip().is_none_or(is_ordinary) {
            Some(Allowed::Advertised)
        } else {
            None
        }
    }

    /// The brokers that this cluster advertises now; replaces what was there. More than [`MOST_ADVERTISED`] are left out.
    pub fn set_advertised(&self, brokers: Vec<HostPort>) {
        let new: HashSet<_> = brokers.into_iter().take(MOST_ADVERTISED).collect();
        let mut held = self.advertised.write().unwrap_or_else(PoisonError::into_inner);
        if **held != new {
            *held = Arc::new(new);
            drop(held);
            self.generation.send_modify(|generation| *generation += 1);
        }
    }

    /// The advertised brokers as last set.
    #[must_use]
    pub fn advertised(&self) -> Arc<HashSet<HostPort>> {
        Arc::clone(&self.advertised.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Changes with each change of what is allowed: whoever holds streams can ask [`Policy::decide`] again.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }
}

impl Written {
    fn read(allow: &[String]) -> Result<Self, Vec<RuleError>> {
        let (mut written, mut wrong) = (Self::default(), Vec::new());
        for rule in allow {
            match rule.parse::<Pattern>() {
                Ok(Pattern { host: Host::Exact(host), port: Some(port) }) => match HostPort::new(&host, port) {
                    Ok(target) => _ = written.exact.insert(target),
                    Err(error) => wrong.push(error.into()),
                },
                Ok(pattern) => written.patterns.push(pattern),
                Err(error) => wrong.push(error),
            }
        }
        if wrong.is_empty() { Ok(written) } else { Err(wrong) }
    }

    fn decide(&self, target: &HostPort) -> Option<Allowed> {
        if self.exact.contains(target) {
            return Some(Allowed::Listed);
        }
        let pattern = self.patterns.iter().find(|p| p.matches(target))?;
        // `host:*` names its host as plainly as `host:9092` does.
        Some(if matches!(pattern.host, Host::Exact(_)) { Allowed::Listed } else { Allowed::Pattern })
    }
}

/// Whether `target`, allowed for the reason `why`, may be dialled at `address`, which its name resolved to.
///
/// Addresses of this host itself and of its link are for targets that the operator wrote as an address, and for `localhost`
/// where the operator wrote that very name: whoever answers for a zone must not be able to lead the exit there.
#[must_use]
pub fn may_dial(target: &HostPort, why: Allowed, address: IpAddr) -> bool {
    is_ordinary(address)
        || target.ip().is_some()
        || (matches!(why, Allowed::Bootstrap | Allowed::Listed)
            && target.host() == "localhost"
            && address.to_canonical().is_loopback())
}

/// Neither this host, nor its link, nor many hosts at once.
fn is_ordinary(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            !(v4.is_loopback() || v4.is_link_local() || v4.octets()[0] == 0 || v4.is_multicast() || v4.is_broadcast())
        }
        IpAddr::V6(v6) => !(v6.is_loopback() || v6.is_unspecified() || v6.is_unicast_link_local() || v6.is_multicast()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> HostPort {
        text.parse().expect(text)
    }

    fn policy(allow: &[&str]) -> Policy {
        let allow: Vec<_> = allow.iter().map(|&s| s.to_owned()).collect();
        Policy::new(&allow, &[target("b0.orange.example:9092")]).expect("rules")
    }

    #[test]
    fn allows_what_is_written_and_nothing_else() {
        let policy = policy(&["*.orange.example:9093", "registry.example:*", "192.0.2.7:9092", "b9.example:9092"]);
        for (text, verdict) in [
            ("b0.orange.example:9092", Some(Allowed::Bootstrap)),
            ("B0.ORANGE.EXAMPLE.:9092", Some(Allowed::Bootstrap)),
            ("b9.example:9092", Some(Allowed::Listed)),
            ("b9.example:9093", None),
            ("b1.orange.example:9093", Some(Allowed::Pattern)),
            ("rack1.b1.orange.example:9093", Some(Allowed::Pattern)),
            ("b1.orange.example:9092", None),
            ("orange.example:9093", None),
            ("evilorange.example:9093", None),
            ("b1.orange.example.evil:9093", None),
            ("registry.example:1", Some(Allowed::Listed)),
            ("registry.example:65535", Some(Allowed::Listed)),
            ("x.registry.example:8081", None),
            ("192.0.2.7:9092", Some(Allowed::Listed)),
            ("192.0.2.8:9092", None),
            ("[::ffff:192.0.2.7]:9092", None),
            ("localhost:9092", None),
            ("169.254.169.254:80", None),
        ] {
            assert_eq!(policy.decide(&target(text)), verdict, "{text}");
        }
    }

    #[test]
    fn rules_that_would_allow_too_much_or_mean_nothing_are_all_reported() {
        let rules = ["*:9092", "*:*", "a*.b:1", "*.*.b:1", "*.0.0.1:9092", "b0", "b0:0", "b0:x", "*.:1", ":1", "b.*:1"];
        let allow: Vec<_> = rules.iter().map(|&s| s.to_owned()).collect();
        assert_eq!(Policy::new(&allow, &[]).expect_err("none is a rule").len(), rules.len());
        assert_eq!("*:9092".parse::<Pattern>(), Err(RuleError::Everything("*:9092".to_owned())));
    }

    #[test]
    fn nothing_is_allowed_without_rules() {
        let empty = Policy::new(&[], &[]).expect("no rules");
        for text in ["localhost:9092", "b0.orange.example:9092", "127.0.0.1:9092", "10.0.0.1:22"] {
            assert_eq!(empty.decide(&target(text)), None, "{text}");
        }
    }

    #[test]
    fn advertised_brokers_come_and_go_and_tell_of_it() {
        let policy = policy(&[]);
        let mut changes = policy.changes();
        let broker = target("b3.elsewhere.example:9092");
        assert_eq!(policy.decide(&broker), None);
        policy.set_advertised(vec![broker.clone(), target("127.0.0.1:9092"), target("10.0.0.3:9092")]);
        assert!(changes.has_changed().expect("the policy lives"));
        assert_eq!(*changes.borrow_and_update(), 1);
        assert_eq!(policy.decide(&broker), Some(Allowed::Advertised));
        assert_eq!(policy.decide(&target("10.0.0.3:9092")), Some(Allowed::Advertised));
        // A broker that advertises this host's own address leads nowhere.
        assert_eq!(policy.decide(&target("127.0.0.1:9092")), None);
        policy.set_advertised(vec![broker.clone(), target("127.0.0.1:9092"), target("10.0.0.3:9092")]);
        assert!(!changes.has_changed().expect("the policy lives"));
        policy.set_advertised(Vec::new());
        assert_eq!(policy.decide(&broker), None);
        assert_eq!(*changes.borrow_and_update(), 2);
    }

    #[test]
    fn rules_are_replaced_whole_or_not_at_all() {
        let policy = policy(&["b1.example:9092"]);
        let mut changes = policy.changes();
        policy.set_written(&["*:9092".to_owned(), "b2.example:9092".to_owned()]).expect_err("one is no rule");
        assert_eq!(policy.decide(&target("b1.example:9092")), Some(Allowed::Listed));
        assert!(!changes.has_changed().expect("the policy lives"));
        policy.set_written(&["b2.example:9092".to_owned()]).expect("rules");
        assert!(changes.has_changed().expect("the policy lives"));
        assert_eq!(*changes.borrow_and_update(), 1);
        assert_eq!(policy.decide(&target("b1.example:9092")), None);
        assert_eq!(policy.decide(&target("b2.example:9092")), Some(Allowed::Listed));
        assert_eq!(policy.decide(&target("b0.orange.example:9092")), Some(Allowed::Bootstrap));
    }

    #[test]
    fn names_lead_to_no_address_of_this_host() {
        let name = target("b0.orange.example:9092");
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "169.254.169.254",
            "fe80::1",
            "0.0.0.0",
            "0.1.2.3",
            "::",
            "224.0.0.1",
            "255.255.255.255",
            "::ffff:127.0.0.1",
            "ff02::1",
        ] {
            let address: IpAddr = address.parse().expect(address);
            assert!(!may_dial(&name, Allowed::Bootstrap, address), "{address}");
            assert!(may_dial(&HostPort::new(&address.to_string(), 1).expect("ip"), Allowed::Listed, address));
        }
        for address in ["10.0.0.1", "192.0.2.7", "2001:db8::1", "fd00::1"] {
            assert!(may_dial(&name, Allowed::Pattern, address.parse().expect(address)), "{address}");
        }
        let localhost = target("localhost:9092");
        let loopback = "127.0.0.1".parse().expect("ip");
        assert!(may_dial(&localhost, Allowed::Bootstrap, loopback));
        assert!(!may_dial(&localhost, Allowed::Advertised, loopback));
    }
}
