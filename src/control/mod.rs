//! What an operator sees: one status, and the ways to read it.
//!
//! Rules kept here: one [`Status`] feeds the command line, JSON, `/readyz` and the metrics, so they cannot disagree; each failure
//! has a [`Code`] with a cause and a fix from one table; what is not known is said to be unknown, never shown as zero; the
//! admin port bounds its connections and its waiting, and never depends on the peer; what changes something needs a `POST` that no
//! web page can make, from this host or with a token.

mod codes;
mod errors;
pub mod facts;
mod guard;
mod http;
mod metrics;
pub mod operate;
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
    AnswersSection, CarrierSection, ClientSection, ClusterStatus, ConfigSection, DenialSection, ErrorCount,
    EventSection, ExitSection, FlowSection, FlowState, GroupEventSection, GroupSection, GroupState, ListenerSection,
    PartitionSection, PathSection, Problem, ProxyMode, ProxySection, ReadyCheck, SCHEMA, State, Status, StatusSource,
    StreamSection, TopicSection, TopicState, TunnelRole, TunnelSection, TunnelState,
};
