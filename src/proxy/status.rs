//! What mode `rewrite` says about itself, to status and metrics.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

use super::clients::ClientStatus;
use super::denials::Denial;
use super::latency::ApiLatency;
use super::nodes::Traffic;
use crate::net::HostPort;

/// The proxy at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct ProxyStatus {
    /// `rewrite`.
    pub mode: &'static str,
    /// The peer's cluster.
    pub cluster: String,
    /// What clients are told to connect to.
    pub advertise: String,
    /// The bootstrap listener first, then one a node.
    pub listeners: Vec<ListenerStatus>,
    /// Connections open now.
    pub connections_open: u64,
    /// Connections since the start.
    pub connections_total: u64,
    /// Those of them that have ended: what is open is the difference.
    pub connections_ended: u64,
    /// Bytes from clients to brokers since the start.
    pub bytes_to_brokers: u64,
    /// Bytes from brokers to clients since the start.
    pub bytes_to_clients: u64,
    /// What was refused since the start, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Clients with connections now; 0 where nothing of a client is bounded.
    pub clients_open: u64,
    /// Those that moved most bytes, at most 32; none where nothing of a client is bounded.
    pub clients: Vec<ClientStatus>,
    /// Milliseconds that connections waited to be read since the start, summed, for their client had its share.
    pub paused_in_ms: u64,
    /// The same for what brokers sent.
    pub paused_out_ms: u64,
    /// Requests that the policy of `[proxy.clients]` denied since the start, by API.
    pub denied: BTreeMap<&'static str, u64>,
    /// Who made them, the first first; at most 256.
    pub denials: Vec<Denial>,
    /// Responses rewritten since the start, by API.
    pub rewritten: BTreeMap<&'static str, u64>,
    /// Addresses replaced since the start.
    pub nodes_rewritten: u64,
    /// Nodes that a client was not told of since the start, since they have no local address.
    pub nodes_hidden: u64,
    /// Frames whose endpoints were left out since the start, since the local ones are longer than the real ones.
    pub frames_hidden: u64,
    /// Addresses of brokers that were about to reach a client as they came, since the start: 0, or a mistake of this program. The
    /// connections ended instead.
    pub leaks: u64,
    /// Sessions with brokers renewed since the start (KIP-368).
    pub reauthentications: u64,
    /// Why a broker did not take the proxy's credentials the last time; `None` when one did since.
    pub not_authenticated: Option<String>,
}

/// One listener.
#[derive(Debug, Clone, Serialize)]
pub struct ListenerStatus {
    /// The node; `None` for the bootstrap listener.
    pub node_id: Option<i32>,
    /// Where it listens.
    pub listen: SocketAddr,
    /// Where its connections go; for the bootstrap listener the first server.
    pub target: HostPort,
    /// Connections open now: those since the start less those that ended.
    pub connections_open: u64,
    /// Connections since the start.
    pub connections_total: u64,
    /// Those of them that have ended.
    pub connections_ended: u64,
    /// Bytes from clients to the broker since the start.
    pub bytes_to_broker: u64,
    /// Bytes from the broker to clients since the start.
    pub bytes_to_client: u64,
    /// How long its answers took, by API.
    pub answers: Vec<ApiLatency>,
}

impl ListenerStatus {
    pub(super) fn of(node_id: Option<i32>, listen: SocketAddr, target: HostPort, traffic: &Traffic) -> Self {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        // In this order, so that none is open before it began.
        let connections_ended = count(&traffic.ended);
        let connections_total = count(&traffic.total);
        Self {
            node_id,
            listen,
            target,
            connections_open: connections_total.saturating_sub(connections_ended),
            connections_total,
            connections_ended,
            bytes_to_broker: count(&traffic.to_broker),
            bytes_to_client: count(&traffic.to_client),
            answers: traffic.latencies.all(),
        }
    }
}
