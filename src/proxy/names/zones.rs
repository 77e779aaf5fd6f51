//! The zones answered here, and which names belong to them.

use super::NamesError;
use crate::net::HostPort;

/// Zones of the peer: lower case, without dots at their ends, none inside another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zones(Vec<String>);

impl Zones {
    /// Takes zones as the operator wrote them; one that lies inside another is covered by it and left out.
    ///
    /// # Errors
    /// [`NamesError::NoZone`] for an empty list, [`NamesError::BadZone`] for what is no domain name.
    pub fn new(zones: &[String]) -> Result<Self, NamesError> {
        let mut kept: Vec<String> = Vec::with_capacity(zones.len());
        for zone in zones {
            let name = HostPort::new(zone.trim_matches('.'), 1).ok().filter(|name| name.ip().is_none());
            let name = name.ok_or_else(|| NamesError::BadZone(zone.clone()))?;
            kept.push(name.host().to_owned());
        }
        if kept.is_empty() {
            return Err(NamesError::NoZone);
        }
        kept.sort_unstable_by_key(String::len);
        let mut outer: Vec<String> = Vec::with_capacity(kept.len());
        for zone in kept {
            if !outer.iter().any(|one| covers(one, &zone)) {
                outer.push(zone);
            }
        }
        Ok(Self(outer))
    }

    /// The zone of `name` (lower case, no trailing dot), if it is in one; the apex is in its zone.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|zone| covers(zone, name)).map(String::as_str)
    }

    /// All zones, shortest first.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// Makes sure that no name of the cluster beside this process is in a zone of the peer: its own clients, and this very
    /// process, would be sent into the tunnel and back.
    ///
    /// # Errors
    /// [`NamesError::OwnName`], with the first such name.
    pub fn assert_apart(&self, local: &[HostPort]) -> Result<(), NamesError> {
        match local.iter().find_map(|server| Some((server, self.of(server.host())?))) {
            None => Ok(()),
            Some((name, zone)) => Err(NamesError::OwnName { name: name.host().to_owned(), zone: zone.to_owned() }),
        }
    }
}

/// Whether `zone` is `name` or a parent of it.
fn covers(zone: &str, name: &str) -> bool {
    name.strip_suffix(zone).is_some_and(|left| left.is_empty() || left.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zones(list: &[&str]) -> Result<Zones, NamesError> {
        Zones::new(&list.iter().map(|&zone| zone.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn names_belong_to_whole_labels_only() {
        let zones = zones(&["x.Grape.test.", ".grape.test", "kafka"]).unwrap();
        assert_eq!(zones.as_slice(), ["kafka", "grape.test"]);
        assert_eq!(zones.of("b0.grape.test"), Some("grape.test"));
        assert_eq!(zones.of("grape.test"), Some("grape.test"));
        assert_eq!(zones.of("kafka"), Some("kafka"));
        assert_eq!(zones.of("agrape.test"), None);
        assert_eq!(zones.of("test"), None);
        assert_eq!(zones.of("b0.grape.test.svc"), None);
    }

    #[test]
    fn wrong_zones_are_named() {
        assert!(matches!(zones(&[]), Err(NamesError::NoZone)));
        for bad in ["", ".", "a..b", "10.0.0.1", "a b"] {
            assert!(matches!(zones(&[bad]), Err(NamesError::BadZone(_))), "{bad:?}");
        }
    }

    #[test]
    fn local_names_in_a_zone_of_the_peer_are_an_error() {
        let zones = zones(&["grape.test"]).unwrap();
        let ours: HostPort = "b0.orange.test:9092".parse().unwrap();
        let theirs: HostPort = "b0.grape.test:9092".parse().unwrap();
        assert!(zones.assert_apart(std::slice::from_ref(&ours)).is_ok());
        assert_eq!(
            zones.assert_apart(&[ours, theirs]).unwrap_err().to_string(),
            "b0.grape.test of the local cluster is in the peer's zone grape.test; narrow proxy.zones to the peer's names"
        );
    }
}
