//! ShareAcknowledge responses, versions 0 to 2: to the array of node endpoints, which stands before the tagged fields at the end.
//!
//! 0 was the early access of Kafka 4.0, 2 added the acquisition lock timeout (KIP-1222).

use super::{Field, Op};

/// What follows the correlation id.
pub const RESPONSE: &[Field] = &[
    Field::all(Op::Tags),
    // Throttle time, error code.
    Field::all(Op::Fixed(6)),
    Field::all(Op::Text),
    // Acquisition lock timeout.
    Field::since(2, Op::Fixed(4)),
    Field::all(Op::List(TOPIC)),
    Field::all(Op::Stop),
];

const TOPIC: &[Field] = &[Field::all(Op::Fixed(16)), Field::all(Op::List(PARTITION)), Field::all(Op::Tags)];

const PARTITION: &[Field] = &[
    // Index, error code.
    Field::all(Op::Fixed(6)),
    Field::all(Op::Text),
    // Current leader: id, epoch.
    Field::all(Op::Fixed(8)),
    Field::all(Op::Tags),
    Field::all(Op::Tags),
];
