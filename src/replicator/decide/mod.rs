//! What to copy, where to, and how: decisions without any socket, clock or task.
//!
//! The shell around it feeds views of both clusters and fetched batches, and does what is decided here. `regex` is used beside the
//! usual crates of pure rooms: it has no IO and linear time.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod acls;
pub mod batches;
pub mod compare;
pub mod configs;
pub mod groups;
pub mod guard;
pub mod mm2;
pub mod naming;
pub mod offset_map;
pub mod plan;
pub mod position;
pub mod progress;
pub mod provenance;
pub mod select;
pub mod tail;

/// A topic's id, which a topic of the same name created later does not share; zeros for none.
pub type TopicId = [u8; 16];
