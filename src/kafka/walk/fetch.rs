//! Fetch responses, versions 0 to 18: passed by length, records included, to the tagged fields at the end.
//!
//! From 12 flexible, from 13 topics by id, from 16 node endpoints in tag 0 (KIP-951). 17 and 18 changed the request alone.

use super::{Field, Op};

/// What follows the correlation id.
pub const RESPONSE: &[Field] = &[
    Field::all(Op::Tags),
    // Throttle time.
    Field::since(1, Op::Fixed(4)),
    // Error code, session id.
    Field::since(7, Op::Fixed(6)),
    Field::all(Op::List(TOPIC)),
    Field::all(Op::Stop),
];

const TOPIC: &[Field] = &[
    Field::until(12, Op::Text),
    Field::since(13, Op::Fixed(16)),
    Field::all(Op::List(PARTITION)),
    Field::all(Op::Tags),
];

const PARTITION: &[Field] = &[
    // Index, error code, high watermark.
    Field::all(Op::Fixed(14)),
    // Last stable offset.
    Field::since(4, Op::Fixed(8)),
    // Log start offset.
    Field::since(5, Op::Fixed(8)),
    Field::since(4, Op::List(ABORTED)),
    // Preferred read replica.
    Field::since(11, Op::Fixed(4)),
    Field::all(Op::Blob),
    Field::all(Op::Tags),
];

const ABORTED: &[Field] = &[Field::all(Op::Fixed(16)), Field::all(Op::Tags)];
