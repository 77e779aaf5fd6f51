//! Walkers: one file an API, each a layout and the fields that matter in it.
//!
//! Two kinds. A [`Walker`] is fed a body as it arrives, cut anywhere, and says where its place of interest begins; it holds a few
//! words whatever the frame's size, since it passes records and texts by their lengths. The readers of nodes work on
//! what is whole: the brokers of Metadata, FindCoordinator and DescribeCluster, the endpoints at a frame's tail.

pub mod api_versions;
pub mod describe_cluster;
pub mod endpoints;
pub mod fetch;
pub mod find_coordinator;
pub mod metadata;
mod node;
pub mod produce;
pub mod share_acknowledge;
pub mod share_fetch;
mod walker;

pub use node::{Layout, Node, NodeList};
pub use walker::{Fed, Field, Op, Walker};

use super::api;
use super::primitives::Malformed;

/// Where the endpoints of a response stand, if it has any in this version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoints {
    /// In the tagged fields at the end, tag 0 (Produce from 10, Fetch from 16).
    Tagged,
    /// In an array before the tagged fields at the end (ShareFetch, ShareAcknowledge).
    Listed,
}

/// Where responses of `key` in `version` have node endpoints at their end; `None` where they have none or cannot be walked.
#[must_use]
pub fn endpoints_of(key: i16, version: i16) -> Option<Endpoints> {
    if version > api::walkable_to(key)? {
        return None;
    }
    match (key, version) {
        (api::PRODUCE, 10..) | (api::FETCH, 16..) => Some(Endpoints::Tagged),
        (api::SHARE_FETCH | api::SHARE_ACKNOWLEDGE, 0..) => Some(Endpoints::Listed),
        _ => None,
    }
}

/// A walker to the end section of a response of `key`, fed with what follows the correlation id: `body` bytes.
///
/// It stops before the tagged fields (Produce, Fetch) or before the array of endpoints (ShareFetch, ShareAcknowledge). `None` for other
/// APIs and versions that cannot be walked.
#[must_use]
pub fn to_tail(key: i16, version: i16, body: u64) -> Option<Walker> {
    if version < 0 || version > api::walkable_to(key)? {
        return None;
    }
    let layout = match key {
        api::PRODUCE => produce::RESPONSE,
        api::FETCH => fetch::RESPONSE,
        api::SHARE_FETCH => share_fetch::RESPONSE,
        api::SHARE_ACKNOWLEDGE => share_acknowledge::RESPONSE,
        _ => return None,
    };
    Some(Walker::new(layout, version, api::is_flexible(key, version), body))
}

/// Feeds arbitrary bytes to every walker in every version, in steps that the first byte chooses; for fuzzing. Panics never.
pub fn fuzz_walkers(data: &[u8]) {
    let Some((&step, data)) = data.split_first() else { return };
    let body = data.len() as u64;
    for (key, to) in api::WALKABLE {
        for version in 0..=to {
            let walkers = [
                to_tail(key, version, body),
                (key == api::METADATA).then(|| metadata::to_brokers_end(version, body)),
                (key == api::PRODUCE).then(|| produce::to_acks(version, body)),
                (key == api::PRODUCE).then(|| produce::to_end(version, body)),
                (key == api::METADATA).then(|| metadata::to_auto_creation(version, body)),
            ];
            for mut walker in walkers.into_iter().flatten() {
                for chunk in data.chunks(usize::from(step).max(1)) {
                    match walker.feed(chunk) {
                        Ok(fed) if !fed.done => {}
                        _ => break,
                    }
                }
            }
        }
    }
}

/// Reads arbitrary bytes as each kind of list of nodes, coordinator, list of APIs and section of tagged fields, in every version; for
/// fuzzing. Panics never.
pub fn fuzz_readers(data: &[u8]) {
    let drain = |list: Result<NodeList<'_>, Malformed>| {
        if let Ok(mut list) = list {
            while let Ok(Some(_)) = list.next_node() {}
        }
    };
    for version in 0..=13 {
        drain(metadata::brokers(data, version));
        drain(describe_cluster::nodes(data, version).map(|(_, list)| list));
        if let Ok(find_coordinator::Coordinators::Many(list)) = find_coordinator::coordinators(data, version) {
            drain(Ok(list));
        }
        if let Ok(mut entries) = api_versions::entries(data, version) {
            while let Ok(Some(_)) = entries.next_entry() {}
        }
    }
    drain(endpoints::list(data));
    if let Ok(mut fields) = endpoints::TagSection::read(data) {
        while let Ok(Some(_)) = fields.next_field() {}
    }
}
