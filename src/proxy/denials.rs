//! Requests that the operator's policy denied: counted by API, and told once for each client and API, however often it asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use serde::Serialize;

use crate::kafka::api;

/// Clients and APIs told of one by one; of more than these only the counts are kept.
const MOST_TOLD: usize = 256;

/// One client that asked for what it may not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// The user, where clients authenticate at the proxy, or the address.
    pub client: String,
    /// What it asked for.
    pub api: &'static str,
    /// How often since the start.
    pub requests: u64,
    /// When it first did.
    pub since: SystemTime,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Denials(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    by_api: BTreeMap<&'static str, u64>,
    told: BTreeMap<(String, i16), (u64, SystemTime)>,
}

impl Denials {
    /// Counts `count` requests of `client` for `key` at `now`; true when these are the first of this client and API, which is to be told.
    pub(super) fn note(&self, client: &str, key: i16, count: u64, now: SystemTime) -> bool {
        let mut state = self.lock();
        *state.by_api.entry(api::name(key)).or_default() += count;
        let known = (client.to_owned(), key);
        if let Some((requests, _)) = state.told.get_mut(&known) {
            *requests += count;
            return false;
        }
        if state.told.len() >= MOST_TOLD {
            return false;
        }
        state.told.insert(known, (count, now));
        true
    }

    /// Requests by API, since the start.
    pub(super) fn by_api(&self) -> BTreeMap<&'static str, u64> {
        self.lock().by_api.clone()
    }

    /// Each client and API that was told of, the first first.
    pub(super) fn told(&self) -> Vec<Denial> {
        let state = self.lock();
        let each = state.told.iter().map(|((client, key), (requests, since))| Denial {
            client: client.clone(),
            api: api::name(*key),
            requests: *requests,
            since: *since,
        });
        let mut told: Vec<Denial> = each.collect();
        told.sort_by_key(|denial| denial.since);
        told
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn tells_once_for_each_client_and_api_and_counts_all() {
        let denials = Denials::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert!(denials.note("10.0.0.5", api::PRODUCE, 2, at(1)));
        assert!(!denials.note("10.0.0.5", api::PRODUCE, 3, at(2)));
        assert!(denials.note("alice", api::PRODUCE, 1, at(3)) && denials.note("alice", 19, 1, at(4)));
        assert_eq!(denials.by_api(), BTreeMap::from([("Produce", 6), ("CreateTopics", 1)]));
        let told = denials.told();
        let first = Denial { client: "10.0.0.5".to_owned(), api: "Produce", requests: 5, since: at(1) };
        assert_eq!((told.len(), &told[0]), (3, &first));
        for client in 0..2 * MOST_TOLD {
            denials.note(&client.to_string(), 30_000, 1, at(5));
        }
        assert_eq!((denials.told().len(), denials.by_api()["unknown"]), (MOST_TOLD, 512));
    }
}
