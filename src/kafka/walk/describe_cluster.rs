//! DescribeCluster responses, versions 0 to 2: always flexible, endpoint type from 1, fenced brokers from 2.

use super::super::primitives::{Cursor, Malformed};
use super::{Layout, NodeList};

/// What the listed nodes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EndpointType {
    /// Brokers: addresses that clients dial.
    Brokers,
    /// Controllers or a type of the future: not brokers, shown to operators only.
    Other(i8),
}

/// The nodes in what follows the correlation id, and what they are.
///
/// # Errors
/// [`Malformed`], each kind.
pub fn nodes(body: &[u8], version: i16) -> Result<(EndpointType, NodeList<'_>), Malformed> {
    let mut cursor = Cursor::new(body);
    cursor.skip_tags(true)?;
    cursor.i32("throttle time")?;
    cursor.i16("error code")?;
    cursor.text(true, "error message")?;
    let kind = if version >= 1 { cursor.i8("endpoint type")? } else { 1 };
    cursor.text(true, "cluster id")?;
    cursor.i32("controller id")?;
    let kind = if kind == 1 { EndpointType::Brokers } else { EndpointType::Other(kind) };
    Ok((kind, NodeList::read(cursor, Layout::ClusterBroker { fenced: version >= 2 })?))
}
