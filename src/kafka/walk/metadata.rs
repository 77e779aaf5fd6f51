//! Metadata responses, versions 0 to 13: brokers come first, so a rewrite touches a prefix and streams the topics.

use super::super::api;
use super::super::primitives::{Cursor, Malformed};
use super::{Field, Layout, NodeList, Op, Walker};

/// What follows the correlation id, to the end of the brokers.
const PREFIX: &[Field] = &[
    Field::all(Op::Tags),
    // Throttle time.
    Field::since(3, Op::Fixed(4)),
    Field::all(Op::List(&[
        Field::all(Op::Fixed(4)),
        Field::all(Op::Text),
        Field::all(Op::Fixed(4)),
        // Rack.
        Field::since(1, Op::Text),
        Field::all(Op::Tags),
    ])),
    Field::all(Op::Stop),
];

/// What follows the correlation id of a request, to whether topics may be made by asking for them (from version 4 on).
const REQUEST: &[Field] = &[
    Field::all(Op::ShortText),
    Field::all(Op::Tags),
    Field::all(Op::List(&[Field::since(10, Op::Fixed(16)), Field::all(Op::Text), Field::all(Op::Tags)])),
    Field::all(Op::Stop),
];

/// A walker over a request of `version`, 4 or above, fed with what follows the correlation id (`body` bytes), that stops before
/// the byte that lets brokers make topics.
#[must_use]
pub fn to_auto_creation(version: i16, body: u64) -> Walker {
    Walker::new(REQUEST, version, api::is_flexible(api::METADATA, version), body)
}

/// A walker over what follows the correlation id (`body` bytes), that stops behind the brokers.
#[must_use]
pub fn to_brokers_end(version: i16, body: u64) -> Walker {
    Walker::new(PREFIX, version, api::is_flexible(api::METADATA, version), body)
}

/// The brokers in what follows the correlation id.
///
/// # Errors
/// [`Malformed`], each kind.
pub fn brokers(body: &[u8], version: i16) -> Result<NodeList<'_>, Malformed> {
    let flexible = api::is_flexible(api::METADATA, version);
    let mut cursor = Cursor::new(body);
    cursor.skip_tags(flexible)?;
    if version >= 3 {
        cursor.i32("throttle time")?;
    }
    NodeList::read(cursor, Layout::Node { flexible, rack: version >= 1 })
}
