//! The one description of a running endpoint.
//!
//! The JSON form is a promise: fields are added, never renamed or removed, within `linkspan/v1`. Enumerations are lower case;
//! moments are RFC 3339 in UTC; durations are seconds or, where the name says so, milliseconds; `null` means not known.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Code;
use super::facts::Fact;
use crate::net::BoxFuture;

/// Name and version of the document.
pub const SCHEMA: &str = "linkspan/v1/Status";

/// Gives the status of now, and looks at the clusters when asked to. Implemented by the composition root.
pub trait StatusSource: Send + Sync + 'static {
    /// The status of now; cheap, without waiting.
    fn status(&self) -> Status;

    /// Examines what only the running process can see (the peer's cluster through the tunnel). Bounded by the caller.
    fn probe(&self) -> BoxFuture<'_, Vec<Fact>>;
}

/// Everything that is to be seen of one endpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`SCHEMA`].
    pub schema: String,
    /// Version of the running program.
    pub version: String,
    /// Name of the link.
    pub link: String,
    /// When this document was made.
    pub at: String,
    /// When the process started.
    pub since: String,
    /// What became of changes to the configuration.
    #[serde(default)]
    pub config: ConfigSection,
    /// The verdict.
    pub state: State,
    /// Why it is not [`State::Up`]; the worst first.
    pub reasons: Vec<Problem>,
    /// The cluster beside this process.
    pub local: ClusterStatus,
    /// The cluster at the other end.
    pub peer: ClusterStatus,
    /// The tunnel.
    pub tunnel: TunnelSection,
    /// What the peer dialled here.
    pub exit: ExitSection,
    /// How local clients reach the peer's brokers.
    pub proxy: ProxySection,
    /// What is copied from the peer's cluster into the local one.
    pub flows: Vec<FlowSection>,
    /// Failures counted since the start.
    #[serde(default)]
    pub errors: Vec<ErrorCount>,
}

/// What became of changes to the configuration since the start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigSection {
    /// Changes put into effect.
    pub reloads: u64,
    /// Changes that could not be.
    pub reloads_failed: u64,
    /// When the last one was put into effect.
    pub reloaded_at: Option<String>,
    /// Keys that differ between the file and what runs, until the next start.
    pub restart_for: Vec<String>,
    /// Why the file on disk is not in effect; none when it is.
    pub last_error: Option<String>,
}

/// The verdict on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// All that is configured works.
    Up,
    /// The link works in part; see the reasons.
    Degraded,
    /// The link does not work; see the reasons.
    Down,
    /// Not known yet.
    Starting,
}

/// One reason for a verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The failure's name.
    pub code: Code,
    /// What was seen, and where.
    pub what: String,
    /// The likely cause.
    pub cause: String,
    /// What to do.
    pub fix: String,
}

impl Problem {
    /// A problem with the usual cause and fix of its code.
    #[must_use]
    pub fn new(code: Code, what: impl Into<String>) -> Self {
        Self { code, what: what.into(), cause: code.cause().to_owned(), fix: code.fix().to_owned() }
    }

    /// Replaces the usual cause by the known one.
    #[must_use]
    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = cause.into();
        self
    }

    /// Replaces the usual fix by a better one.
    #[must_use]
    pub fn fixed_by(mut self, fix: impl Into<String>) -> Self {
        self.fix = fix.into();
        self
    }
}

/// One Kafka cluster as this endpoint sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The operator's name for it.
    pub cluster: String,
    /// Whether it answers; `None` where this endpoint has not asked.
    pub reachable: Option<bool>,
    /// Brokers it advertises; `None` while not known.
    pub brokers: Option<u32>,
    /// Its own identifier; `None` while not known.
    pub kafka_cluster_id: Option<String>,
    /// The last failure while it is not reachable.
    pub error: Option<String>,
}

/// The tunnel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TunnelSection {
    /// Whether there is a session.
    pub state: TunnelState,
    /// Whether this side opens the port.
    pub role: TunnelRole,
    /// The address that this side listens on or dials.
    pub address: String,
    /// `noise` or `tls`.
    pub transport: String,
    /// The peer's address, while there is a session.
    pub peer: Option<String>,
    /// Since when the state is what it is.
    pub since: Option<String>,
    /// Round trip time in milliseconds, smoothed; the best carrier's.
    pub rtt_ms: Option<f64>,
    /// The TCP connections under the session.
    pub carriers: Vec<CarrierSection>,
    /// Streams open now.
    pub streams: u64,
    /// Those of them that moved the most bytes, at most 32.
    #[serde(default)]
    pub busiest: Vec<StreamSection>,
    /// Payload bytes received since the start.
    pub bytes_in: u64,
    /// Payload bytes sent since the start.
    pub bytes_out: u64,
    /// Payload bytes held here: received and not taken yet.
    #[serde(default)]
    pub buffered_in: u64,
    /// Payload bytes held here: sent, or to be sent, and not acknowledged.
    #[serde(default)]
    pub buffered_out: u64,
    /// Payload bytes sent again after carriers were lost.
    #[serde(default)]
    pub replayed_bytes: u64,
    /// Sessions since the start.
    #[serde(default)]
    pub sessions: u64,
    /// Sessions taken up again after all carriers were lost.
    #[serde(default)]
    pub resumes: u64,
    /// Streams cut because their session ended.
    #[serde(default)]
    pub streams_lost: u64,
    /// Streams cut because the peer used credit that it had given back.
    #[serde(default)]
    pub streams_overdrawn: u64,
    /// Carriers lost and made again since the start.
    pub reconnects: u64,
    /// The same by reason; reasons are written in the program.
    #[serde(default)]
    pub reconnect_reasons: BTreeMap<String, u64>,
    /// The last failure.
    pub last_error: Option<String>,
}

/// Whether there is a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TunnelState {
    /// Streams flow.
    Up,
    /// A session is being made, or comes back after a loss.
    Connecting,
    /// No session.
    Down,
}

/// Which side opens the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelRole {
    /// This one.
    Listen,
    /// The peer; this one dials.
    Dial,
}

/// One TCP connection under the session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CarrierSection {
    /// Its number within the session.
    pub id: u64,
    /// The peer's address.
    pub peer: String,
    /// Since when it is there.
    pub since: Option<String>,
    /// Whether it carries data; else it is just coming, or going.
    #[serde(default)]
    pub attached: bool,
    /// Whether it is silent while an answer is owed.
    #[serde(default)]
    pub suspect: bool,
    /// Round trip time in milliseconds, smoothed.
    pub rtt_ms: Option<f64>,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// What TCP knows of its way; `None` where the kernel does not tell.
    #[serde(default)]
    pub path: Option<PathSection>,
}

/// The way of one TCP connection, as the kernel sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSection {
    /// Congestion window in bytes.
    pub congestion_window: u64,
    /// Bytes sent and not acknowledged.
    pub in_flight: u64,
    /// Bytes that wait in the socket.
    pub unsent: u64,
    /// Segments sent again since the connection was made.
    pub retransmitted: u64,
    /// Shortest round trip in microseconds.
    pub shortest_rtt_us: u32,
    /// Rate of delivery measured last, in bytes a second.
    pub delivery_rate: u64,
}

/// One stream through the tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StreamSection {
    /// Its id, the same at both endpoints.
    pub id: u64,
    /// Whether this side opened it.
    pub ours: bool,
    /// Bytes received and taken here.
    pub bytes_in: u64,
    /// Bytes given here to be sent.
    pub bytes_out: u64,
    /// Bytes that the peer may send ahead of what was taken here.
    pub window_in: u64,
    /// Bytes that the peer still permits, those on their way included.
    pub window_out: u64,
    /// `application`, `answer`, `budget`, `carrier`, `credit` or `nothing`.
    pub waits_for: String,
}

/// What the peer dialled here.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitSection {
    /// Streams open now.
    pub open: u64,
    /// Streams accepted since the start.
    pub total: u64,
    /// Refused because the target is not allowed.
    pub refused: u64,
    /// Could not be dialled.
    pub failed: u64,
    /// Cut because the target was no longer allowed.
    #[serde(default)]
    pub cut: u64,
    /// Refused or failed, by reason; reasons are written in the program.
    #[serde(default)]
    pub reasons: BTreeMap<String, u64>,
}

/// How local clients reach the peer's brokers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProxySection {
    /// The mode.
    pub mode: ProxyMode,
    /// Listeners, the bootstrap's first.
    pub listeners: Vec<ListenerSection>,
    /// Client connections open now.
    pub connections: u64,
    /// Client connections since the start.
    pub connections_total: u64,
    /// Those of them that have ended, in mode `rewrite`: what is open is the difference.
    #[serde(default)]
    pub connections_ended: u64,
    /// Bytes from clients to brokers since the start, in mode `rewrite`.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes from brokers to clients since the start, in mode `rewrite`.
    #[serde(default)]
    pub bytes_out: u64,
    /// Responses in which addresses were replaced since the start, by API.
    #[serde(default)]
    pub rewritten: BTreeMap<String, u64>,
    /// Addresses replaced since the start.
    #[serde(default)]
    pub nodes_rewritten: u64,
    /// Brokers that a client was not told of since the start, since they have no local address.
    #[serde(default)]
    pub nodes_hidden: u64,
    /// Addresses of brokers that were about to reach a client as they came since the start: 0, or a mistake of this program. The
    /// connections ended instead.
    #[serde(default)]
    pub leaks: u64,
    /// The address of the DNS server, in mode `names`.
    pub dns: Option<String>,
    /// Sessions with brokers renewed since the start (KIP-368), where the proxy authenticates.
    #[serde(default)]
    pub reauthentications: u64,
    /// Connections and responses that could not go on as they came since the start, by reason; reasons are written in the program.
    #[serde(default)]
    pub refused: BTreeMap<String, u64>,
    /// Clients with connections now; 0 where `[proxy.clients]` bounds nothing of a client.
    #[serde(default)]
    pub clients_open: u64,
    /// Those that moved most bytes, at most 32; none where nothing of a client is bounded.
    #[serde(default)]
    pub clients: Vec<ClientSection>,
    /// Milliseconds that connections waited to be read since the start, summed, for their client had its share.
    #[serde(default)]
    pub paused_in_ms: u64,
    /// The same for what brokers sent.
    #[serde(default)]
    pub paused_out_ms: u64,
    /// Requests that the policy of `[proxy.clients]` denied since the start, by API.
    #[serde(default)]
    pub denied: BTreeMap<String, u64>,
    /// Who made them, the first first; at most 256.
    #[serde(default)]
    pub denials: Vec<DenialSection>,
}

/// What a client of the proxy uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSection {
    /// The user, where clients authenticate at the proxy, or the address.
    pub client: String,
    /// Connections open now.
    pub connections: u32,
    /// Bytes from it to brokers.
    pub bytes_in: u64,
    /// Bytes from brokers to it.
    pub bytes_out: u64,
    /// Milliseconds that its connections waited to be read, summed.
    pub paused_in_ms: u64,
    /// The same for what brokers sent it.
    pub paused_out_ms: u64,
}

/// A client that asked the proxy for what it may not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialSection {
    /// The user, where clients authenticate at the proxy, or the address.
    pub client: String,
    /// What it asked for, by Kafka's name of the API.
    pub api: String,
    /// How often since the start.
    pub requests: u64,
    /// When it first did.
    pub since: String,
}

/// The mode of the proxy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProxyMode {
    /// None.
    #[default]
    Off,
    /// Under their own names.
    Names,
    /// Under local addresses.
    Rewrite,
}

/// One local address that stands for a broker of the peer's cluster.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ListenerSection {
    /// What it stands for: `host:port` in the peer's network.
    pub target: String,
    /// The broker, where that is known; `None` for bootstrap servers and in mode `names`.
    pub node_id: Option<i32>,
    /// Where clients connect.
    pub address: String,
    /// Client connections open now.
    pub connections: u64,
    /// Client connections since the start, in mode `rewrite`.
    #[serde(default)]
    pub connections_total: u64,
    /// Those of them that have ended, in mode `rewrite`.
    #[serde(default)]
    pub connections_ended: u64,
    /// Bytes from clients to the broker since the start, in mode `rewrite`.
    #[serde(default)]
    pub bytes_in: u64,
    /// Bytes from the broker to clients since the start, in mode `rewrite`.
    #[serde(default)]
    pub bytes_out: u64,
    /// How long the broker's answers took since the start, by API, in mode `rewrite`.
    #[serde(default)]
    pub answers: Vec<AnswersSection>,
}

/// How long answers of one API took: from the request's head, as the proxy read it, to the head of the response.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AnswersSection {
    /// Kafka's name of the API.
    pub api: String,
    /// Answers.
    pub count: u64,
    /// All their times together.
    pub seconds: f64,
    /// Upper bounds in seconds, and answers up to each that are above the one before; those above all are in `count` alone.
    pub buckets: Vec<(f64, u64)>,
}

/// One flow: topics of the peer's cluster copied into the local one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlowSection {
    /// Its name.
    pub name: String,
    /// What it does now.
    pub state: FlowState,
    /// Topics selected.
    pub topics_total: u64,
    /// Topics that are being copied.
    pub topics_active: u64,
    /// Records of the source not yet in the target; `None` while not known.
    pub lag_records: Option<u64>,
    /// Age of the oldest record not yet in the target, in seconds; `None` while not known.
    pub behind_seconds: Option<f64>,
    /// Records copied since the start.
    pub records_total: u64,
    /// Bytes copied since the start, as they went to the target.
    pub bytes_total: u64,
    /// Bytes a second, over the last seconds.
    pub bytes_per_second: f64,
    /// What is promised of each record: `exactly_once` or `at_least_once`.
    #[serde(default)]
    pub delivery: String,
    /// How the target tells what it has: `asked`, `read` or `refused`; `None` until it was asked.
    #[serde(default)]
    pub guarantee: Option<String>,
    /// Records that came from the target and so were not sent back, since the start.
    #[serde(default)]
    pub looped_records: u64,
    /// Their bytes.
    #[serde(default)]
    pub looped_bytes: u64,
    /// The topics, by name.
    pub topics: Vec<TopicSection>,
    /// What happened and what was changed, the oldest first; the newest 200.
    #[serde(default)]
    pub events: Vec<EventSection>,
    /// Whether the operator has paused the whole flow.
    #[serde(default)]
    pub paused: bool,
    /// ACLs at the target that are the flow's own.
    #[serde(default)]
    pub acls_owned: u64,
    /// Consumer groups whose offsets follow, by name.
    #[serde(default)]
    pub groups: Vec<GroupSection>,
    /// Failures to have a group follow, by reason, since the start.
    #[serde(default)]
    pub group_failures: BTreeMap<String, u64>,
    /// The newest commits of groups that went back at the target, or were not let, the oldest first.
    #[serde(default)]
    pub group_events: Vec<GroupEventSection>,
    /// The last failure.
    pub last_error: Option<String>,
}

/// One thing that happened to a flow, or that it changed at the target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSection {
    /// When.
    pub at: String,
    /// The kind of event; kinds are written in the program.
    pub event: String,
    /// Name of the topic at the source; `None` where it is about the whole flow.
    pub topic: Option<String>,
    /// The partition, where it is about one.
    pub partition: Option<i32>,
    /// What exactly, in words.
    pub text: String,
}

/// What a flow does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum FlowState {
    /// It learns what is to be done.
    Starting,
    /// It copies, or waits for new records.
    Active,
    /// It copies some topics; others are faulted.
    Degraded,
    /// It can do nothing, and tries again.
    Stopped,
}

/// One topic of a flow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TopicSection {
    /// Its name in the peer's cluster.
    pub source: String,
    /// Its name in the local cluster.
    pub target: String,
    /// What becomes of it.
    pub state: TopicState,
    /// Why it is not active: a code and what was seen.
    pub reason: Option<String>,
    /// Partitions of the source.
    pub partitions: u32,
    /// Records not yet in the target; `None` while not known.
    pub lag_records: Option<u64>,
    /// Records copied since the start.
    pub records: u64,
    /// Bytes copied since the start.
    pub bytes: u64,
    /// Age of the newest copied record where records wait, in seconds, of the worst partition.
    #[serde(default)]
    pub behind_seconds: f64,
    /// How many partitions are in each state: `running`, `catching_up`, `paused`, `failed`.
    #[serde(default)]
    pub partition_states: BTreeMap<String, u32>,
    /// Partitions whose place is found by reading the target's log, for its brokers may forget the flow's producer.
    #[serde(default)]
    pub guarded_by_log: u32,
    /// Partitions that are not running, by number; at most 50.
    #[serde(default)]
    pub standing: Vec<PartitionSection>,
}

/// One partition that is not running.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PartitionSection {
    /// Which one.
    pub partition: i32,
    /// `catching_up`, `paused` or `failed`.
    pub state: String,
    /// Why: a code and what was seen.
    pub reason: Option<String>,
    /// Records not yet in the target.
    pub lag_records: u64,
    /// Age of the newest copied record, in seconds.
    pub behind_seconds: f64,
    /// Records that came from the target and so were not sent back.
    #[serde(default)]
    pub looped_records: u64,
    /// What keeps it exactly once after a failure: `sequence` or `log`.
    #[serde(default)]
    pub guard: String,
}

/// What becomes of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum TopicState {
    /// It is being looked at or made.
    Starting,
    /// It is copied.
    Active,
    /// It is not copied, and tried again.
    Faulted,
    /// The operator has paused it.
    Paused,
}

/// Failures of one kind in one part of the endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorCount {
    /// The part.
    pub scope: String,
    /// The kind.
    pub code: Code,
    /// How many since the start.
    pub count: u64,
}

/// One line of `/readyz?verbose`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadyCheck {
    /// What was looked at.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub ok: bool,
    /// Whether readiness waits for it.
    pub required: bool,
}

impl Status {
    /// What readiness looks at. The tunnel is shown but not waited for: whoever starts the first side waits for its readiness
    /// before starting the second.
    #[must_use]
    pub fn readiness(&self) -> Vec<ReadyCheck> {
        vec![
            ReadyCheck { name: "started", ok: self.state != State::Starting, required: true },
            ReadyCheck { name: "local-cluster", ok: self.local.reachable != Some(false), required: true },
            ReadyCheck { name: "tunnel", ok: self.tunnel.state == TunnelState::Up, required: false },
            ReadyCheck { name: "link", ok: self.state == State::Up, required: false },
        ]
    }

    /// Whether the endpoint is ready: started, and its local cluster not known to be away.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.readiness().iter().all(|check| check.ok || !check.required)
    }
}

impl State {
    /// The word in JSON and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Degraded => "degraded",
            Self::Down => "down",
            Self::Starting => "starting",
        }
    }
}

impl TunnelState {
    /// The word in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Connecting => "connecting",
            Self::Down => "down",
        }
    }
}

impl FlowState {
    /// The word in JSON.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Degraded => "degraded",
            Self::Stopped => "stopped",
        }
    }
}

impl TopicState {
    /// Every state, for metrics.
    pub const ALL: [Self; 4] = [Self::Starting, Self::Active, Self::Faulted, Self::Paused];

    /// The word in JSON and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Active => "active",
            Self::Faulted => "faulted",
            Self::Paused => "paused",
        }
    }
}

impl ProxyMode {
    /// The word in JSON and in the configuration.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Names => "names",
            Self::Rewrite => "rewrite",
        }
    }
}

mod groups;
#[cfg(test)]
pub(crate) mod sample;

pub use groups::{GroupEventSection, GroupSection, GroupState};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_reads_back_and_says_null_for_what_is_not_known() {
        for status in [sample::busy(), sample::starting()] {
            let text = serde_json::to_string(&status).expect("a status is JSON");
            assert_eq!(serde_json::from_str::<Status>(&text).expect("and back"), status);
        }
        let json = serde_json::to_value(sample::starting()).expect("a status is JSON");
        assert_eq!(json["schema"], "linkspan/v1/Status");
        assert_eq!(json["local"]["reachable"], serde_json::Value::Null);
        assert_eq!(json["reasons"][0]["code"], "LS074");
        assert_eq!(json["tunnel"]["state"], "connecting");
    }

    #[test]
    fn words_are_those_of_the_json_form() {
        for state in [State::Up, State::Degraded, State::Down, State::Starting] {
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.word());
        }
        for state in [TunnelState::Up, TunnelState::Connecting, TunnelState::Down] {
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.word());
        }
        for state in [FlowState::Starting, FlowState::Active, FlowState::Degraded, FlowState::Stopped] {
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.word());
        }
        for state in GroupState::ALL {
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.word());
        }
        for state in TopicState::ALL {
            assert_eq!(serde_json::to_value(state).expect("JSON"), state.word());
        }
    }

    #[test]
    fn readiness_waits_for_the_start_and_the_local_cluster_but_not_for_the_peer() {
        let mut status = sample::starting();
        assert!(!status.is_ready());
        status.state = State::Down;
        assert!(status.is_ready(), "the peer and the tunnel are away, and nobody asked the local cluster");
        status.local.reachable = Some(false);
        assert!(!status.is_ready());
        status.local.reachable = Some(true);
        assert!(status.is_ready());
    }
}
