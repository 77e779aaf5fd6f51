//! FindCoordinator responses: one flat coordinator up to version 3, a list from 4.

use super::super::api;
use super::super::primitives::{Cursor, Malformed};
use super::{Layout, NodeList};

/// Where the coordinators stand in a response.
#[derive(Debug, Clone)]
pub enum Coordinators<'a> {
    /// Versions 0 to 3.
    One(One<'a>),
    /// Versions 4 to 6.
    Many(NodeList<'a>),
}

/// The coordinator of a flat response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct One<'a> {
    /// Bytes before the error code: header tags, throttle time.
    pub before: &'a [u8],
    /// Zero when the rest stands for a coordinator.
    pub error_code: i16,
    /// Error message, where the version has one, as it stood.
    pub message: &'a [u8],
    /// The node's id; -1 with an error.
    pub node_id: i32,
    /// The host, as bytes; empty with an error.
    pub host: &'a [u8],
    /// The port; -1 with an error.
    pub port: i32,
    /// Tagged fields and what follows.
    pub after: &'a [u8],
    /// Whether strings are compact.
    pub flexible: bool,
}

/// The coordinators in what follows the correlation id.
///
/// # Errors
/// [`Malformed`], each kind.
pub fn coordinators(body: &[u8], version: i16) -> Result<Coordinators<'_>, Malformed> {
    let flexible = api::is_flexible(api::FIND_COORDINATOR, version);
    let mut cursor = Cursor::new(body);
    cursor.skip_tags(flexible)?;
    if version >= 1 {
        cursor.i32("throttle time")?;
    }
    if version >= 4 {
        return NodeList::read(cursor, Layout::Coordinator).map(Coordinators::Many);
    }
    let before = cursor.since(0);
    let error_code = cursor.i16("error code")?;
    let start = cursor.position();
    if version >= 1 {
        cursor.text(flexible, "error message")?;
    }
    let message = cursor.since(start);
    let node_id = cursor.i32("node id")?;
    let host = cursor.text(flexible, "host")?.unwrap_or_default();
    let port = cursor.i32("port")?;
    let after = cursor.rest();
    cursor.skip_tags(flexible)?;
    Ok(Coordinators::One(One { before, error_code, message, node_id, host, port, after, flexible }))
}
