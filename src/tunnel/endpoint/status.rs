//! What an endpoint tells about its tunnel.

use std::collections::BTreeMap;
use std::time::Instant;

use serde::Serialize;

use crate::net::tcp_info::TcpInfo;
use crate::tunnel::carrier::{AcceptStatus, Proof};
use crate::tunnel::session::StreamInfo;

/// Streams shown one by one: there may be tens of thousands.
pub(super) const MOST_SHOWN: usize = 32;

/// Whether the tunnel can carry streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TunnelState {
    /// No session has been there since this process started.
    Never,
    /// At least one carrier is attached.
    Up,
    /// All carriers are lost, streams wait for a new one.
    Parked,
    /// The session ended and its streams were reset; a new one is awaited.
    Down,
}

/// Snapshot of one endpoint's tunnel.
#[derive(Debug, Clone, Serialize)]
pub struct TunnelStatus {
    /// Name of the link.
    pub link: String,
    /// `dial` or `listen`.
    pub role: &'static str,
    /// `noise` or `tls`.
    pub transport: &'static str,
    /// Present state.
    pub state: TunnelState,
    /// For how long it has been so, in seconds.
    pub state_seconds: f64,
    /// Who the peer proved to be, by the youngest carrier.
    pub peer: Option<String>,
    /// The carriers.
    pub carriers: Vec<CarrierStatus>,
    /// Streams open now.
    pub streams: usize,
    /// Those of them that moved the most bytes, at most 32.
    pub busiest: Vec<StreamInfo>,
    /// Streams opened from this side.
    pub streams_opened: u64,
    /// Streams opened by the peer and taken here.
    pub streams_accepted: u64,
    /// Streams cut by the loss of a session.
    pub streams_lost: u64,
    /// Streams cut because the peer used credit that it had given back.
    pub streams_overdrawn: u64,
    /// Payload received, in bytes.
    pub bytes_in: u64,
    /// Payload sent, in bytes.
    pub bytes_out: u64,
    /// Payload received and not read yet, in bytes.
    pub buffered_in: u64,
    /// Payload written and not acknowledged yet, in bytes.
    pub buffered_out: u64,
    /// Payload sent again after losses, in bytes.
    pub replayed_bytes: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Sessions taken up again after all carriers were lost.
    pub resumes: u64,
    /// Carriers that ended, by reason.
    pub reconnects: BTreeMap<&'static str, u64>,
    /// Handshakes on the tunnel port; listening side only.
    pub accept: Option<AcceptStatus>,
    /// What went wrong last, and since the tunnel is up only what went wrong after.
    pub last_error: Option<String>,
}

/// Snapshot of one carrier.
#[derive(Debug, Clone, Serialize)]
pub struct CarrierStatus {
    /// Its slot, 0 to 15.
    pub slot: u8,
    /// The peer's address.
    pub address: String,
    /// Whether it carries data.
    pub attached: bool,
    /// Whether it is silent while an answer is owed.
    pub suspect: bool,
    /// Smoothed round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Bytes received on the wire, sealed.
    pub bytes_in: u64,
    /// Bytes sent on the wire, sealed.
    pub bytes_out: u64,
    /// For how long it has been there, in seconds.
    pub age_seconds: f64,
    /// What TCP knows of its way; `None` where the kernel does not tell.
    pub path: Option<TcpInfo>,
}

/// What the core does not know.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) state: TunnelState,
    pub(super) since: Instant,
    pub(super) peer: Option<String>,
    /// By what the peer of the youngest attached carrier proved itself.
    pub(super) proof: Option<Proof>,
    pub(super) reconnects: BTreeMap<&'static str, u64>,
    pub(super) last_error: Option<String>,
}

impl Record {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            state: TunnelState::Never,
            since: now,
            peer: None,
            proof: None,
            reconnects: BTreeMap::new(),
            last_error: None,
        }
    }

    /// True when it is another state than before.
    pub(super) fn change(&mut self, now: Instant, state: TunnelState) -> bool {
        let changed = self.state != state;
        if changed {
            self.state = state;
            self.since = now;
        }
        if state == TunnelState::Up {
            self.last_error = None;
        }
        changed
    }
}
