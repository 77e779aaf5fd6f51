//! How local clients reach the peer's brokers.

pub mod names;
