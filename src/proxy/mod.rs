//! How local clients reach the peer's brokers: under their own names (`names`), or under local addresses (`rewriter`, whose
//! decisions are `rewrite`).

mod connection;
#[cfg(test)]
mod connection_tests;
pub mod names;
mod nodes;
mod ports;
mod refusals;
pub mod rewrite;
pub mod rewriter;
#[cfg(test)]
mod rewriter_tests;
mod status;
mod upstream;

pub use status::{ListenerStatus, ProxyStatus};
