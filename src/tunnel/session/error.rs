//! What can go wrong in a session, by who is at fault, and what the peer is told of it.

use std::time::Duration;

use super::frame::VersionRange;

/// The peer broke a rule of the protocol. It ends the session: nothing it sends can be trusted to mean what it says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// Bytes that are no frame.
    #[error("malformed {frame} frame: {what}")]
    Malformed {
        /// Name of the frame, or `unknown`.
        frame: &'static str,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A frame that has no place in this state of a carrier.
    #[error("{frame} frame while the carrier was {state}")]
    Unexpected {
        /// Name of the frame.
        frame: &'static str,
        /// State of the carrier.
        state: &'static str,
    },
    /// Data beyond what was permitted.
    #[error("stream {sid}: data up to offset {end} with credit up to {max_off}")]
    CreditExceeded {
        /// The stream.
        sid: u64,
        /// End of the data.
        end: u64,
        /// What was permitted.
        max_off: u64,
    },
    /// Data behind the end, or two different ends.
    #[error("stream {sid}: data up to offset {end} with the end at {final_off}")]
    AfterEnd {
        /// The stream.
        sid: u64,
        /// End of the data.
        end: u64,
        /// The end announced first.
        final_off: u64,
    },
    /// An acknowledgement of what was never sent.
    #[error("stream {sid}: acknowledged up to {acked}, sent up to {sent}")]
    AckedUnsent {
        /// The stream.
        sid: u64,
        /// What the peer claims to hold.
        acked: u64,
        /// What was sent.
        sent: u64,
    },
    /// A stream opened under an id of our own half of the numbers, or a frame of an id never used.
    #[error("{frame} frame for stream {sid}, which the peer may not use so")]
    BadStreamId {
        /// Name of the frame.
        frame: &'static str,
        /// The id.
        sid: u64,
    },
    /// Out-of-order data in more pieces than are kept.
    #[error("stream {sid}: {pieces} separate pieces out of order, limit {limit}")]
    Fragmented {
        /// The stream.
        sid: u64,
        /// Pieces.
        pieces: usize,
        /// Limit.
        limit: usize,
    },
    /// Frames that change nothing, more often than losses of carriers explain.
    #[error("too often: {what}, above {limit} frames that change nothing a second")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// Limit, a second.
        limit: u32,
    },
    /// More of something than a peer that means well ever sends.
    #[error("flood of {what}: {count}, limit {limit}")]
    Flood {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// Limit.
        limit: usize,
    },
}

/// Why a carrier ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierEnd {
    /// The connection below broke; told by the shell.
    #[error("connection lost: {0}")]
    Lost(String),
    /// The peer closed it in order.
    #[error("closed by the peer")]
    Closed,
    /// Nothing was heard for too long.
    #[error("silent for {} ms", .0.as_millis())]
    Silent(Duration),
    /// A younger carrier took its slot.
    #[error("replaced by a newer carrier")]
    Fenced,
    /// The peer refused to attach it.
    #[error("refused by the peer: {reason}{}{detail}", if .detail.is_empty() { "" } else { ": " })]
    RefusedByPeer {
        /// Why.
        reason: Refusal,
        /// In the peer's words.
        detail: String,
    },
    /// We refused to attach it.
    #[error("refused: {reason}{}{detail}", if .detail.is_empty() { "" } else { ": " })]
    RefusedByUs {
        /// Why.
        reason: Refusal,
        /// With the facts.
        detail: String,
    },
    /// No version in common.
    #[error("no common protocol version: this side speaks {ours}, the peer speaks {theirs}; update the older side")]
    Version {
        /// Ours.
        ours: VersionRange,
        /// The peer's.
        theirs: VersionRange,
    },
    /// The peer broke a rule.
    #[error("peer misbehaved: {0}")]
    Violation(#[from] Violation),
    /// No HELLO or answer to ATTACH in time.
    #[error("peer did not attach within {} ms", .0.as_millis())]
    Slow(Duration),
    /// The session ended.
    #[error("session ended: {0}")]
    SessionEnded(SessionEnd),
    /// What the peer proved itself with is good no more.
    #[error("the peer is no longer trusted: the credentials were changed here")]
    Distrusted,
}

impl CarrierEnd {
    /// A word for counting reconnects by reason.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Lost(_) => "lost",
            Self::Closed => "closed",
            Self::Silent(_) => "silent",
            Self::Fenced => "fenced",
            Self::RefusedByPeer { .. } | Self::RefusedByUs { .. } => "refused",
            Self::Version { .. } => "version",
            Self::Violation(_) => "violation",
            Self::Slow(_) => "slow",
            Self::SessionEnded(_) => "session_ended",
            Self::Distrusted => "distrusted",
        }
    }
}

/// Why a carrier was refused; one byte on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The session it wants to join is not known here (any more). A new one may be asked for.
    #[error("unknown session")]
    UnknownSession,
    /// Another process serves this link and is alive.
    #[error("another process is already the peer of this link")]
    OtherPeer,
    /// The proof does not fit.
    #[error("proof of the session does not fit")]
    BadProof,
    /// The epoch did not rise: a replay.
    #[error("stale epoch")]
    StaleEpoch,
    /// The carrier is for another link.
    #[error("link names differ")]
    WrongLink,
    /// Both sides dial, or both listen.
    #[error("both sides have the same role")]
    SameRole,
    /// No such slot.
    #[error("no such carrier slot")]
    BadSlot,
    /// This endpoint is shutting down.
    #[error("shutting down")]
    Draining,
    /// A reason of a later version.
    #[error("reason {0}")]
    Other(u8),
}

impl Refusal {
    /// The byte on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::UnknownSession => 1,
            Self::OtherPeer => 2,
            Self::BadProof => 3,
            Self::StaleEpoch => 4,
            Self::WrongLink => 5,
            Self::SameRole => 6,
            Self::BadSlot => 7,
            Self::Draining => 8,
            Self::Other(code) => code,
        }
    }

    /// Reads the byte; never fails, later versions may have more reasons.
    #[must_use]
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::UnknownSession,
            2 => Self::OtherPeer,
            3 => Self::BadProof,
            4 => Self::StaleEpoch,
            5 => Self::WrongLink,
            6 => Self::SameRole,
            7 => Self::BadSlot,
            8 => Self::Draining,
            other => Self::Other(other),
        }
    }
}

/// Why a session ended; all its streams were reset.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SessionEnd {
    /// No carrier for longer than streams are parked.
    #[error("no connection for {} s", .0.as_secs_f32())]
    ParkExpired(Duration),
    /// The peer is another process than before.
    #[error("the peer was restarted")]
    PeerRestarted,
    /// The peer does not know the session any more.
    #[error("the peer has forgotten the session")]
    Forgotten,
    /// The peer began a new session.
    #[error("the peer began a new session")]
    Replaced,
    /// The peer broke a rule.
    #[error("peer misbehaved: {0}")]
    Violation(Violation),
    /// The peer ended it.
    #[error("ended by the peer: {0}")]
    ByPeer(String),
    /// Whoever had it proved itself with what is good no more.
    #[error("the peer is no longer trusted: the credentials were changed here")]
    Distrusted,
    /// We ended it.
    #[error("shut down")]
    ByUs,
}

/// Why a stream was cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamEnd {
    /// The far application reset it.
    #[error("reset by the far side")]
    ResetByPeer,
    /// This side reset it.
    #[error("reset by this side")]
    ResetByUs,
    /// The session ended.
    #[error("tunnel session lost: {0}")]
    SessionLost(SessionEnd),
}

/// Why a stream could not be opened, as it travels: the shell makes it of a `DialError` and back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenFailure {
    /// Kind of failure; the shell's table.
    pub code: u8,
    /// A number that belongs to the kind.
    pub value: u64,
    /// Words, at most 256 bytes.
    pub detail: String,
}

impl OpenFailure {
    /// A limit was met.
    pub const LIMIT: u8 = 7;

    pub(super) fn limit(detail: String) -> Self {
        Self { code: Self::LIMIT, value: 0, detail }
    }
}

/// Why [`super::Session::open`] did not open a stream.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// No carrier is attached; try again after [`super::Event::Up`].
    #[error("not connected")]
    NotConnected,
    /// The peer, or this side, is shutting down.
    #[error("{0} is shutting down")]
    Draining(&'static str),
    /// As many streams as allowed are open.
    #[error("{open} streams are open, limit {limit}")]
    TooMany {
        /// Open now.
        open: usize,
        /// Limit.
        limit: usize,
    },
    /// The host is longer than 255 bytes.
    #[error("host name of {0} bytes, limit 255")]
    HostTooLong(usize),
}
