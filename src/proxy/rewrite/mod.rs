//! Broker addresses in Kafka responses, replaced by local ones: decisions and bytes alone.
//!
//! A [`Session`] stands between one client and one broker. It is fed what each sends, cut anywhere, and answers with
//! [`Pieces`]: pass these bytes, drop those, write these instead. Eight kinds of response are read; all else passes unread.
//!
//! Rules kept here: a client never learns a real broker address, so what cannot be read is an error and what has no local
//! address is hidden; node ids and cluster ids never change; a frame that streams keeps its length; memory is bounded by
//! [`HELD_LIMIT`] a connection whatever the frames' sizes; pure: no socket, no clock.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod brokers;
mod bucket;
mod denied;
mod endpoints;
mod guard;
mod in_flight;
mod leaks;
mod local;
mod pieces;
mod policy;
mod renewal;
mod requests;
mod responses;
mod rules;
mod sasl;
mod session;
mod versions;

#[cfg(test)]
mod bad_input_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod policy_tests;
#[cfg(test)]
pub(in crate::proxy) mod test_support;

pub use bucket::Bucket;
pub use in_flight::MOST_IN_FLIGHT;
pub(in crate::proxy) use local::SASL_AUTHENTICATION_FAILED;
pub use pieces::{Piece, Pieces};
pub use policy::Policy;
pub use renewal::Renewal;
pub use responses::HELD_LIMIT;
pub use rules::Rules;
pub use session::{Session, Tally, fuzz_session};

use crate::kafka::api;
use crate::kafka::frame::FrameError;
use crate::kafka::primitives::Malformed;

/// Where the nodes of the cluster are to be found by local clients.
pub trait Mapping {
    /// The local address of a node, asked for every broker seen; `host` and `port` are the real ones, `port` is 1 to 65535 and
    /// `node_id` not below zero. `None` hides the node from the client. The host must have 1 to 255 bytes.
    fn local(&mut self, node_id: i32, host: &str, port: i32) -> Option<(String, u16)>;

    /// Whether an address is one that [`Mapping::local`] gives.
    fn is_local(&mut self, host: &[u8], port: i32) -> bool;
}

/// Why a connection between a client and a broker cannot go on. It is closed: better no answer than a real address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteError {
    /// The bytes are no Kafka frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A request's header cannot be read.
    #[error("request {} version {version}: {source}", api::name(*.key))]
    Request {
        /// Its API key.
        key: i16,
        /// Its version.
        version: i16,
        /// What is wrong.
        source: Malformed,
    },
    /// A response that carries addresses cannot be read.
    #[error("response {} version {version}: {source}", api::name(*.key))]
    Response {
        /// Its API key.
        key: i16,
        /// Its version.
        version: i16,
        /// What is wrong.
        source: Malformed,
    },
    /// A response in a version whose addresses this program cannot find; the client ignored what ApiVersions told it.
    #[error("response {} version {version} may carry broker addresses, known up to version {most}", api::name(*.key))]
    Unwalkable {
        /// Its API key.
        key: i16,
        /// Its version.
        version: i16,
        /// The highest version that can be walked.
        most: i16,
    },
    /// What must be held back of one frame is larger than allowed.
    #[error("{} version {version}: {length} bytes to hold back, at most {most} allowed", api::name(*.key))]
    TooLarge {
        /// Its API key.
        key: i16,
        /// Its version.
        version: i16,
        /// Bytes that would have to be held.
        length: u64,
        /// The limit, in bytes.
        most: u64,
    },
    /// A client that has not proved who it is wants more than to do so.
    #[error("request {} of a client that has not authenticated", api::name(*.key))]
    NotAuthenticated {
        /// Its API key.
        key: i16,
    },
    /// A request that clients may not make, in a version for which no refusal is known.
    #[error("request {} version {version} is not allowed by proxy.clients, and there is no answer to say so", api::name(*.key))]
    Denied {
        /// Its API key.
        key: i16,
        /// Its version.
        version: i16,
    },
    /// What was about to leave holds addresses that are none of ours: a mistake of this program.
    #[error("response {} version {version} was about to leave with {addresses} addresses that are not local", api::name(*.key))]
    Leak {
        /// Its API key.
        key: i16,
        /// Its version.
        version: i16,
        /// How many.
        addresses: u64,
    },
    /// The stream ended inside a frame.
    #[error("the {0} ended its stream inside a frame")]
    CutFrame(&'static str),
}

impl RewriteError {
    /// A short fixed text for counters.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Frame(FrameError::ForeignClient(_)) => "client speaks another protocol",
            Self::Frame(FrameError::BrokerSpeaksTls) => "broker speaks TLS",
            Self::Frame(FrameError::ForeignBroker(_)) => "broker speaks another protocol",
            Self::Frame(_) => "frame length",
            Self::Request { .. } => "malformed request",
            Self::Response { .. } => "malformed response",
            Self::Unwalkable { .. } => "unknown version",
            Self::TooLarge { .. } => "response too large",
            Self::NotAuthenticated { .. } => "client not authenticated",
            Self::Denied { .. } => "API not allowed",
            Self::Leak { .. } => "leak",
            Self::CutFrame(_) => "stream ended inside a frame",
        }
    }
}

/// What becomes of one node in a response.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Fate {
    /// It has no address to begin with: as it stands.
    Keep,
    /// This address instead.
    Local(String, u16),
    /// No address at all.
    Hide,
}

/// Decides on one node. Whoever has no id, no text for a name or no possible port is hidden without asking.
fn fate(mapping: &mut dyn Mapping, tally: &mut Tally, node_id: i32, host: &[u8], port: i32) -> Fate {
    if host.is_empty() {
        return Fate::Keep;
    }
    let local = match std::str::from_utf8(host) {
        Ok(host) if node_id >= 0 && (1..=65_535).contains(&port) => mapping.local(node_id, host, port),
        _ => None,
    };
    match local {
        Some((host, port)) if (1..=255).contains(&host.len()) => {
            tally.nodes += 1;
            Fate::Local(host, port)
        }
        _ => {
            tally.hidden += 1;
            Fate::Hide
        }
    }
}
