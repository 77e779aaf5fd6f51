//! Produce, versions 0 to 13: requests up to `acks`, responses to the tagged fields at the end.
//!
//! From 9 flexible, from 10 node endpoints in tag 0 of the response (KIP-951), from 13 topics by id.

use super::super::api;
use super::{Field, Op, Walker};

/// What follows the correlation id of a response.
pub const RESPONSE: &[Field] = &[
    Field::all(Op::Tags),
    Field::all(Op::List(TOPIC)),
    // Throttle time.
    Field::since(1, Op::Fixed(4)),
    Field::all(Op::Stop),
];

const TOPIC: &[Field] = &[
    Field::until(12, Op::Text),
    Field::since(13, Op::Fixed(16)),
    Field::all(Op::List(PARTITION)),
    Field::all(Op::Tags),
];

const PARTITION: &[Field] = &[
    // Index, error code, base offset.
    Field::all(Op::Fixed(14)),
    // Log append time.
    Field::since(2, Op::Fixed(8)),
    // Log start offset.
    Field::since(5, Op::Fixed(8)),
    Field::since(8, Op::List(&[Field::all(Op::Fixed(4)), Field::all(Op::Text), Field::all(Op::Tags)])),
    // Error message.
    Field::since(8, Op::Text),
    Field::all(Op::Tags),
];

/// What follows the correlation id of a request: client id, header tags, transactional id, then `acks`.
const REQUEST: &[Field] =
    &[Field::all(Op::ShortText), Field::all(Op::Tags), Field::since(3, Op::Text), Field::all(Op::Stop)];

/// A walker over a request of `version`, fed with what follows the correlation id (`body` bytes), that stops before the two
/// bytes of `acks`: zero there means that no response will come.
#[must_use]
pub fn to_acks(version: i16, body: u64) -> Walker {
    Walker::new(REQUEST, version, api::is_flexible(api::PRODUCE, version), body)
}

/// All that follows the correlation id of a request.
const WHOLE_REQUEST: &[Field] = &[
    Field::all(Op::ShortText),
    Field::all(Op::Tags),
    Field::since(3, Op::Text),
    // Acks, timeout.
    Field::all(Op::Fixed(6)),
    Field::all(Op::List(&[
        Field::until(12, Op::Text),
        Field::since(13, Op::Fixed(16)),
        Field::all(Op::List(&[Field::all(Op::Fixed(4)), Field::all(Op::Blob), Field::all(Op::Tags)])),
        Field::all(Op::Tags),
    ])),
    Field::all(Op::Tags),
];

/// A walker over a request of `version`, fed with what follows the correlation id (`body` bytes), to its end.
#[must_use]
pub fn to_end(version: i16, body: u64) -> Walker {
    Walker::new(WHOLE_REQUEST, version, api::is_flexible(api::PRODUCE, version), body)
}
