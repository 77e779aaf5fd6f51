//! What an operator sees: one status, and the ways to read it.
//!
//! Rules kept here: one [`Status`] feeds the command line, JSON, `/readyz` and the metrics, so they cannot disagree; each failure
//! has a [`Code`] with a cause and a fix from one table; what is not known is said to be unknown, never shown as zero; the
//! admin port only answers `GET`, bounds its connections and its waiting, and never depends on the peer.

mod codes;
mod errors;
pub mod facts;
mod http;
mod metrics;
mod process;
mod status;
#[cfg(test)]
pub(crate) use status::sample;
pub mod time;

pub use codes::{Code, Entry, table};
pub use errors::ErrorCounter;
pub use http::{AdminError, AdminServer};
pub use metrics::render as render_metrics;
pub use status::{
    CarrierSection, ClusterStatus, ConfigSection, ErrorCount, ExitSection, FlowSection, FlowState, ListenerSection,
    Problem, ProxyMode, ProxySection, ReadyCheck, SCHEMA, State, Status, StatusSource, TopicSection, TopicState,
    TunnelRole, TunnelSection, TunnelState,
};
