//! Metadata, FindCoordinator and DescribeCluster: bodies whose length may change.

use super::{Fate, Mapping, Tally, fate};
use crate::kafka::primitives::{Malformed, put_count, put_text};
use crate::kafka::walk::find_coordinator::{Coordinators, One};
use crate::kafka::walk::{Layout, Node, NodeList, describe_cluster, find_coordinator, metadata};

/// COORDINATOR_NOT_AVAILABLE: clients ask again.
const COORDINATOR_NOT_AVAILABLE: i16 = 15;

/// Rewrites the brokers of a Metadata response: `prefix` is what follows the correlation id, up to the last broker's end. Hidden
/// brokers are left out. `None` when nothing changes.
pub(super) fn metadata(
    prefix: &[u8],
    version: i16,
    mapping: &mut dyn Mapping,
    tally: &mut Tally,
) -> Result<Option<Vec<u8>>, Malformed> {
    nodes(metadata::brokers(prefix, version)?, prefix.len(), mapping, tally)
}

/// Rewrites the brokers of a DescribeCluster response. Controllers pass: clients do not dial them, operators want to see them.
pub(super) fn describe_cluster(
    body: &[u8],
    version: i16,
    mapping: &mut dyn Mapping,
    tally: &mut Tally,
) -> Result<Option<Vec<u8>>, Malformed> {
    match describe_cluster::nodes(body, version)? {
        (describe_cluster::EndpointType::Brokers, list) => nodes(list, body.len(), mapping, tally),
        (describe_cluster::EndpointType::Other(_), _) => Ok(None),
    }
}

/// Rewrites the coordinators of a FindCoordinator response. A hidden one becomes "not available", which clients retry.
pub(super) fn find_coordinator(
    body: &[u8],
    version: i16,
    mapping: &mut dyn Mapping,
    tally: &mut Tally,
) -> Result<Option<Vec<u8>>, Malformed> {
    match find_coordinator::coordinators(body, version)? {
        Coordinators::Many(list) => nodes(list, body.len(), mapping, tally),
        Coordinators::One(one) => Ok(flat_coordinator(&one, fate(mapping, tally, one.node_id, one.host, one.port))),
    }
}

fn flat_coordinator(one: &One<'_>, fate: Fate) -> Option<Vec<u8>> {
    let (error_code, node_id, host, port) = match &fate {
        Fate::Keep => return None,
        Fate::Local(host, port) => (one.error_code, one.node_id, host.as_bytes(), i32::from(*port)),
        Fate::Hide => (COORDINATOR_NOT_AVAILABLE, -1, &[][..], -1),
    };
    let mut out = Vec::with_capacity(one.before.len() + one.message.len() + host.len() + one.after.len() + 16);
    out.extend_from_slice(one.before);
    out.extend_from_slice(&error_code.to_be_bytes());
    out.extend_from_slice(one.message);
    out.extend_from_slice(&node_id.to_be_bytes());
    put_text(&mut out, one.flexible, host);
    out.extend_from_slice(&port.to_be_bytes());
    out.extend_from_slice(one.after);
    Some(out)
}

/// Rewrites a list of nodes and copies what stands around it.
fn nodes(
    mut list: NodeList<'_>,
    size: usize,
    mapping: &mut dyn Mapping,
    tally: &mut Tally,
) -> Result<Option<Vec<u8>>, Malformed> {
    let Some(count) = list.count else { return Ok(None) };
    let layout = list.layout();
    let (mut kept, mut changed) = (count, false);
    let mut written = Vec::with_capacity(size);
    while let Some(node) = list.next_node()? {
        match fate(mapping, tally, node.node_id, node.host, node.port) {
            Fate::Keep => put_node(&mut written, layout.flexible(), &node, node.host, node.port),
            Fate::Local(host, port) => {
                changed = true;
                put_node(&mut written, layout.flexible(), &node, host.as_bytes(), i32::from(port));
            }
            Fate::Hide if layout == Layout::Coordinator => {
                changed = true;
                put_hidden_coordinator(&mut written, &node);
            }
            Fate::Hide => {
                changed = true;
                kept -= 1;
            }
        }
    }
    if !changed {
        return Ok(None);
    }
    let mut out = Vec::with_capacity(list.before.len() + 5 + written.len() + list.rest().len());
    out.extend_from_slice(list.before);
    put_count(&mut out, layout.flexible(), Some(kept));
    out.extend_from_slice(&written);
    out.extend_from_slice(list.rest());
    Ok(Some(out))
}

/// Writes a node with another address; all else as it stood.
pub(super) fn put_node(out: &mut Vec<u8>, flexible: bool, node: &Node<'_>, host: &[u8], port: i32) {
    out.extend_from_slice(node.before);
    out.extend_from_slice(&node.node_id.to_be_bytes());
    put_text(out, flexible, host);
    out.extend_from_slice(&port.to_be_bytes());
    out.extend_from_slice(node.after);
}

/// A coordinator without address: its key, and behind the port an error code in place of success.
fn put_hidden_coordinator(out: &mut Vec<u8>, node: &Node<'_>) {
    out.extend_from_slice(node.before);
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    put_text(out, true, &[]);
    out.extend_from_slice(&(-1_i32).to_be_bytes());
    out.extend_from_slice(&COORDINATOR_NOT_AVAILABLE.to_be_bytes());
    out.extend_from_slice(node.after.get(2..).unwrap_or_default());
}
