//! How local clients reach the peer's brokers: under their own names (`names`), or under local addresses (`rewriter`, whose
//! decisions are `rewrite`).

#[cfg(test)]
mod auth_tests;
mod clients;
mod connection;
#[cfg(test)]
mod connection_tests;
mod denials;
mod latency;
mod login;
pub mod names;
mod nodes;
mod ports;
pub mod proxy_header;
mod refusals;
pub mod rewrite;
pub mod rewriter;
#[cfg(test)]
mod rewriter_tests;
mod serve;
mod status;
mod upstream;

pub use clients::ClientStatus;
pub use denials::Denial;
pub use latency::{ApiLatency, BOUNDS_US};
pub use status::{ListenerStatus, ProxyStatus};
