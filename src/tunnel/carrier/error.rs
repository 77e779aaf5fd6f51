//! Why a carrier was not established or did not live, in words that tell an operator what to do.

use std::fmt;
use std::time::Duration;

use super::sniff::Seen;

/// How a carrier is protected; the number is its byte in the preamble.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Noise with a pre-shared key.
    Noise = 1,
    /// Mutual TLS 1.3.
    Tls = 2,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Noise => "noise",
            Self::Tls => "tls",
        })
    }
}

/// Why a carrier failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CarrierError {
    // What this side was told is of no use.
    /// The listener's address cannot be bound. Remedy: another port, or end what holds it.
    #[error("cannot listen on {address}: {detail}")]
    Bind {
        /// The address.
        address: String,
        /// What the system said.
        detail: String,
    },
    /// A certificate or key file cannot be read or holds nothing usable.
    #[error("{path}: {detail}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The link's name does not fit the preamble.
    #[error("the link's name has {len} bytes, of 1 to 63")]
    LinkName {
        /// Its length in bytes.
        len: usize,
    },
    /// Dialling on a side that listens, or the other way round.
    #[error("this side is set to {role}")]
    Role {
        /// `listen` or `dial`.
        role: &'static str,
    },

    // Reaching the peer.
    /// Nobody listens at the peer's address. Remedy: start the peer; check that one side has `listen`; check the firewall.
    #[error(
        "{target} refused the connection: nobody listens there; one of the two sides must have `listen`, and be running"
    )]
    Refused {
        /// Whom we dialled.
        target: String,
    },
    /// No answer to the connection. Remedy: the firewall rule that `linkspan firewall` prints.
    #[error("{target} did not answer within {} s: check the firewall rule and the address", .after.as_secs())]
    ConnectTimeout {
        /// Whom we dialled.
        target: String,
        /// The deadline.
        after: Duration,
    },
    /// No route, no such name, or the network said no.
    #[error("{target} is unreachable: {detail}")]
    Unreachable {
        /// Whom we dialled.
        target: String,
        /// What the system said.
        detail: String,
    },

    // The handshake.
    /// The handshake was not done in time.
    #[error("the handshake was not done within {} s", .after.as_secs())]
    HandshakeTimeout {
        /// The deadline.
        after: Duration,
    },
    /// More bytes than a handshake has.
    #[error("the handshake took more than {limit} bytes")]
    HandshakeTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The connection ended inside the handshake.
    #[error("the connection ended during the handshake: {detail}")]
    HandshakeCut {
        /// How.
        detail: String,
    },
    /// What arrived is no linkspan. Remedy: the other program's address, or ours, is wrong.
    #[error("{seen} on the tunnel port")]
    NotLinkspan {
        /// What it looks like.
        seen: Seen,
    },
    /// The peer speaks another version of the tunnel. Remedy: the same release on both sides.
    #[error("the peer speaks tunnel version {theirs}, this side {ours}: run the same release on both sides")]
    Version {
        /// This side's.
        ours: u8,
        /// The peer's.
        theirs: u8,
    },
    /// One side has a secret, the other certificates. Remedy: the same `[tunnel]` transport on both sides.
    #[error("the peer uses {theirs}, this side {ours}: set a secret on both sides, or tls on both sides")]
    TransportMismatch {
        /// This side's.
        ours: Transport,
        /// The peer's.
        theirs: Transport,
    },
    /// The peer serves no link of that name. Remedy: the same `link` on both sides.
    #[error("the listening side has no link named `{link}`: `link` must be the same on both sides")]
    UnknownLink {
        /// The name that the dialling side gave.
        link: String,
    },
    /// The peer does not have the same secret. Remedy: the same secret on both sides.
    #[error("the peer does not have the same secret")]
    WrongSecret,
    /// The certificate's time is over, or has not begun. Remedy: `linkspan certs`, and the clocks of both hosts.
    #[error("the {whose} certificate is expired or not yet valid: {detail}")]
    CertificateExpired {
        /// Whose it is.
        whose: Whose,
        /// What the check said, with both times where known.
        detail: String,
    },
    /// The certificate is of a CA that is not trusted. Remedy: certificates of both sides from one `linkspan certs`.
    #[error("the {whose} certificate is of an unknown CA")]
    UnknownCa {
        /// Whose it is.
        whose: Whose,
    },
    /// The certificate is for another name. Remedy: `peer` in `[tunnel] tls`.
    #[error("the peer's certificate is for {found}, expected {expected}")]
    WrongName {
        /// The name in the configuration.
        expected: String,
        /// The names in the certificate.
        found: String,
    },
    /// The certificate is not the pinned one. Remedy: the pin in `[tunnel] tls` from the peer's present certificate.
    #[error("the peer's certificate has SHA-256 {found}, pinned is {expected}")]
    PinMismatch {
        /// The pin, in hex.
        expected: String,
        /// The certificate's, in hex.
        found: String,
    },
    /// The peer refused this side's certificate. Remedy: see the peer's log, which says why.
    #[error("the peer refused this side's certificate: {detail}")]
    CertificateRefused {
        /// The peer's alert.
        detail: String,
    },
    /// The peer broke the handshake's rules, or shares no algorithm with this side.
    #[error("the handshake failed: {detail}")]
    Handshake {
        /// What was broken.
        detail: String,
    },

    // An established carrier.
    /// A record does not open: changed on the way, replayed, or out of order.
    #[error("record {record} does not open: {detail}")]
    Corrupt {
        /// Number of the record under its key.
        record: u64,
        /// What is wrong.
        detail: String,
    },
    /// More than one record holds.
    #[error("{actual} bytes do not fit one record of {limit}")]
    RecordTooLarge {
        /// What was to be sealed, in bytes.
        actual: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// This side closed the carrier before.
    #[error("the carrier is closed")]
    Closed,
}

/// Whose certificate a failure is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The peer's.
    Peer,
    /// This side's, as the peer told.
    Own,
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "peer's",
            Self::Own => "own",
        })
    }
}
