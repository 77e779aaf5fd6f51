//! Kafka's wire protocol as far as linkspan reads it: framing, headers, the table of APIs, walkers that find fields without
//! decoding the rest, and record batches.
//!
//! Rules kept here: pure (bytes in, facts out: no socket, no clock, no file); nothing is allocated by a length that bytes
//! claim; every number is checked against what is left of the frame before it is used; no input panics. What is not
//! understood is an error with its place, never a guess.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod api;
pub mod batch;
pub mod frame;
pub mod header;
pub mod primitives;
pub mod refusal;
pub mod sasl;
pub mod walk;
