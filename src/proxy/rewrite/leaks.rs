//! What is about to leave is read once more, as a client would read it: every address of a node must be one of ours.
//!
//! Looked at is each section of a response in which Kafka puts addresses of brokers for clients to dial, in the bytes that go
//! out: the brokers of Metadata, FindCoordinator and DescribeCluster, the endpoints at the end of Produce, Fetch, ShareFetch and
//! ShareAcknowledge. That is small whatever the frame's size; records, and responses without such a place, are not looked at. Controllers that
//! a DescribeCluster was asked for pass as they are, since operators want to see them and no client dials them: they are no leak, and are not counted here.

use super::Mapping;
use crate::kafka::primitives::Malformed;
use crate::kafka::walk::endpoints::{ENDPOINTS_TAG, TagSection, list};
use crate::kafka::walk::find_coordinator::Coordinators;
use crate::kafka::walk::{NodeList, describe_cluster, find_coordinator, metadata};

/// Addresses in the brokers of a Metadata that are none of ours.
pub(super) fn in_metadata(prefix: &[u8], version: i16, mapping: &mut dyn Mapping) -> u64 {
    in_nodes(metadata::brokers(prefix, version), mapping)
}

/// The same in a DescribeCluster.
pub(super) fn in_describe_cluster(body: &[u8], version: i16, mapping: &mut dyn Mapping) -> u64 {
    match describe_cluster::nodes(body, version) {
        Ok((describe_cluster::EndpointType::Other(_), _)) => 0,
        Ok((describe_cluster::EndpointType::Brokers, nodes)) => in_nodes(Ok(nodes), mapping),
        Err(_) => 1,
    }
}

/// The same in a FindCoordinator.
pub(super) fn in_find_coordinator(body: &[u8], version: i16, mapping: &mut dyn Mapping) -> u64 {
    match find_coordinator::coordinators(body, version) {
        Ok(Coordinators::Many(nodes)) => in_nodes(Ok(nodes), mapping),
        Ok(Coordinators::One(one)) => u64::from(is_foreign(one.host, one.port, mapping)),
        Err(_) => 1,
    }
}

/// The same in the tagged fields at the end of a Produce or Fetch.
pub(super) fn in_tagged(section: &[u8], mapping: &mut dyn Mapping) -> u64 {
    let Ok(mut fields) = TagSection::read(section) else { return 1 };
    let mut leaks = 0;
    loop {
        match fields.next_field() {
            Ok(Some((ENDPOINTS_TAG, payload))) => leaks += in_nodes(list(payload), mapping),
            Ok(Some(_)) => {}
            Ok(None) => return leaks,
            Err(_) => return leaks + 1,
        }
    }
}

/// The same in the endpoints at the end of a ShareFetch or ShareAcknowledge.
pub(super) fn in_listed(section: &[u8], mapping: &mut dyn Mapping) -> u64 {
    in_nodes(list(section), mapping)
}

/// What cannot be read may be an address.
fn in_nodes(nodes: Result<NodeList<'_>, Malformed>, mapping: &mut dyn Mapping) -> u64 {
    let Ok(mut nodes) = nodes else { return 1 };
    let mut leaks = 0;
    loop {
        match nodes.next_node() {
            Ok(Some(node)) => leaks += u64::from(is_foreign(node.host, node.port, mapping)),
            Ok(None) => return leaks,
            Err(_) => return leaks + 1,
        }
    }
}

fn is_foreign(host: &[u8], port: i32, mapping: &mut dyn Mapping) -> bool {
    !host.is_empty() && !mapping.is_local(host, port)
}
