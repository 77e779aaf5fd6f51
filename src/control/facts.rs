//! What was found by looking: facts without judgement, gathered by probes and judged by `linkspan check`.
//!
//! A running endpoint gathers those that only it can see and gives them on `/api/v1/check`; the command gathers the rest.

use serde::{Deserialize, Serialize};

use super::{Code, Problem, TunnelState};
use crate::net::BoxFuture;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Fact {
    /// The configuration file.
    Config(ConfigFact),
    /// This endpoint's own certificate.
    Certificate(CertificateFact),
    /// What answers on the admin port.
    Process(ProcessFact),
    /// A name that was looked up.
    Name(NameFact),
    /// A port that was tried.
    Port(PortFact),
    /// The way to the peer.
    Tunnel(TunnelFact),
    /// A Kafka cluster.
    Cluster(ClusterFact),
    /// What the running endpoint itself says is wrong.
    Problems(Vec<Problem>),
}

/// The configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFact {
    /// Where it was read from.
    pub path: String,
    /// What is wrong with it; empty when it loads.
    pub errors: Vec<Mistake>,
    /// What is doubtful.
    pub warnings: Vec<Mistake>,
    /// Whether the shared secret is strong, or why it is refused; `None` where certificates are used, or nothing was loaded.
    pub secret: Option<Result<(), String>>,
}

/// One mistake in a configuration file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mistake {
    /// Its kind.
    pub code: Code,
    /// Where, and what was seen; more lines may show the place.
    pub what: String,
    /// What is allowed; `None` where the kind says it all.
    pub fix: Option<String>,
}

/// This endpoint's own certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFact {
    /// The file.
    pub path: String,
    /// Whole days until it expires, negative when it has; or why it cannot be read.
    pub days_left: Result<i64, String>,
}

/// What answers on the admin port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessFact {
    /// The address asked; `None` where the configuration has no admin port.
    pub address: Option<String>,
    /// What came back.
    pub answer: Answer,
}

/// What came back from the admin port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Nobody answers.
    Silent(String),
    /// An endpoint of this link answers.
    Ours {
        /// Its version.
        version: String,
    },
    /// Something else answers.
    Other(String),
}

/// A name that was looked up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameFact {
    /// Whose name it is.
    pub of: NameOf,
    /// The name.
    pub name: String,
    /// Its addresses, or what the resolver said.
    pub found: Result<Vec<String>, String>,
}

/// Whose name was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NameOf {
    /// A bootstrap server of the local cluster.
    LocalBootstrap,
    /// The peer's tunnel address.
    Peer,
}

/// A port that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortFact {
    /// What it is for.
    pub of: PortOf,
    /// `address:port`, with `/udp` where it is that.
    pub address: String,
    /// What came of it.
    pub state: PortState,
}

/// What a port is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortOf {
    /// The tunnel.
    Tunnel,
    /// The DNS server.
    Dns,
    /// The proxy's listeners.
    Proxy,
    /// The admin port.
    Admin,
}

/// What came of trying a port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PortState {
    /// It can be opened.
    Free,
    /// The running endpoint of this link has it.
    Held,
    /// It cannot be opened.
    Failed(String),
}

/// The way to the peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TunnelFact {
    /// What the running endpoint says of its session.
    Running {
        /// Whether there is one.
        state: TunnelState,
        /// The peer's address, or what is listened on or dialled.
        address: String,
        /// Round trip time in whole microseconds.
        rtt_us: Option<u64>,
        /// The last failure.
        last_error: Option<String>,
        /// Whether this side dials.
        dials: bool,
    },
    /// A handshake that was tried against the peer.
    Tried {
        /// The peer's address.
        address: String,
        /// How far it went.
        result: Handshake,
    },
    /// Not looked at, and why.
    Skipped(String),
}

/// How far a handshake with the peer went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Handshake {
    /// The peer is who it should be.
    Proved {
        /// How long it took, in whole microseconds.
        took_us: u64,
    },
    /// No TCP connection.
    Unreachable(Failure),
    /// The proof failed: another secret or an unexpected certificate.
    NotProved(String),
    /// Proved, but the link's name is not known there or is taken.
    OtherLink(String),
    /// What answers does not speak this transport or version.
    OtherTransport(String),
}

/// A Kafka cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFact {
    /// Which of the two.
    pub side: Side,
    /// The operator's name for it.
    pub cluster: String,
    /// What was found; or why it was not looked at.
    pub found: Result<ClusterFound, String>,
}

/// Which of a link's two clusters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The one beside this process.
    Local,
    /// The one at the other end.
    Peer,
}

/// What was found of a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterFound {
    /// Each bootstrap server that was tried; those after the first success need not be.
    pub bootstrap: Vec<Attempt>,
    /// Whether TLS is spoken with it.
    pub tls: bool,
    /// The SASL mechanism used with it, as Kafka spells it.
    pub sasl: Option<String>,
    /// Its own identifier, where it told.
    pub kafka_cluster_id: Option<String>,
    /// Each advertised broker; `None` where the cluster was not asked (no answer, or this side has no credentials for it).
    pub brokers: Option<Vec<BrokerFact>>,
}

/// One advertised broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerFact {
    /// Its node id.
    pub id: i32,
    /// The try to reach it.
    pub attempt: Attempt,
}

/// One try to talk to a broker: connection, TLS, SASL and `ApiVersions`, as far as configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// `host:port`.
    pub target: String,
    /// How long it took in whole microseconds, or what failed.
    pub result: Result<u64, Failure>,
}

/// What failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The step that failed.
    pub step: Step,
    /// What was said.
    pub detail: String,
}

/// Steps of reaching a broker or a peer, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Step {
    /// The tunnel was not there.
    Tunnel,
    /// The exit does not allow the target, or a limit was met.
    Allow,
    /// The name has no address.
    Name,
    /// The port refused.
    Refused,
    /// Nobody answered in time.
    Timeout,
    /// No route.
    Route,
    /// TLS.
    Tls,
    /// SASL.
    Sasl,
    /// What answers is no Kafka broker, or an unusable one.
    Kafka,
}

/// Examines one cluster: bootstrap servers, then every broker that is advertised.
pub trait ClusterProbe: Send + Sync {
    /// Looks once; bounds its own waiting.
    fn probe(&self) -> BoxFuture<'_, ClusterFound>;
}
