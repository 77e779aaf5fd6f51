//! What can go wrong, by culprit.

use std::fmt;

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;

use crate::net::tls::TlsError;
use crate::net::{DialError, HostPort};

/// Why a call to a cluster failed. Cloned to everybody who shared the connection.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// The broker could not be reached.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS files, or the TLS handshake.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The broker refused the credentials, or could not prove that it knows them. Remedy: username, password and mechanism
    /// of that cluster's `security`.
    #[error("cluster {cluster}: {broker} did not accept the {mechanism} credentials: {detail}")]
    Authentication {
        /// The operator's name of the cluster.
        cluster: String,
        /// Which broker.
        broker: HostPort,
        /// SASL mechanism as Kafka spells it.
        mechanism: &'static str,
        /// What the broker said, or what was wrong with its answer.
        detail: String,
    },
    /// The broker sent what Kafka's protocol does not allow; the connection is given up.
    #[error("{broker} broke the protocol: {detail}")]
    Protocol {
        /// Which broker.
        broker: HostPort,
        /// What was seen.
        detail: String,
    },
    /// The broker understood and said no.
    #[error("{api:?}: {error}{}", Said(.message.as_deref()))]
    Kafka {
        /// Which API.
        api: ApiKey,
        /// Kafka's error.
        error: KafkaError,
        /// The broker's own words, if it had any.
        message: Option<String>,
    },
    /// No answer in time; the connection is given up, because answers come in order.
    #[error("{broker} did not answer {api:?} within {after_ms} ms")]
    Timeout {
        /// Which broker.
        broker: HostPort,
        /// Which API.
        api: ApiKey,
        /// The deadline, in milliseconds.
        after_ms: u64,
    },
    /// The connection ended with requests under way: whether they took effect is unknown.
    #[error("{broker} disconnected: {cause}")]
    Disconnected {
        /// Which broker.
        broker: HostPort,
        /// How it ended.
        cause: String,
    },
    /// The broker has no version of this API that linkspan speaks.
    #[error("{broker} does not support {api:?} {needed}; it has {has}")]
    Unsupported {
        /// Which broker.
        broker: HostPort,
        /// Which API.
        api: ApiKey,
        /// Versions needed here, for example `v9 to v13`.
        needed: String,
        /// What the broker offers, for example `v0 to v7` or `no version`.
        has: String,
    },
    /// The cluster's metadata has no such broker, also after a refresh.
    #[error("cluster {cluster} has no broker {node_id}")]
    NoBroker {
        /// The operator's name of the cluster.
        cluster: String,
        /// Which node id.
        node_id: i32,
    },
    /// No bootstrap server could be used.
    #[error("cluster {cluster}: no bootstrap server could be used: {}", Tried(.tried))]
    Bootstrap {
        /// The operator's name of the cluster.
        cluster: String,
        /// What each of them failed with.
        tried: Vec<Self>,
    },
    /// The caller asked for what makes no sense; nothing was sent.
    #[error("{detail}")]
    Invalid {
        /// What makes no sense.
        detail: String,
    },
}

impl ClientError {
    /// The error code, where a broker answered with one.
    #[must_use]
    pub const fn kafka(&self) -> Option<KafkaError> {
        match self {
            Self::Kafka { error, .. } => Some(*error),
            _ => None,
        }
    }

    /// Whether the same call may succeed later without anybody changing a setting.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Dial(error) => !matches!(error, DialError::NotAllowed { .. }),
            Self::Kafka { error, .. } => error.is_retriable(),
            Self::Timeout { .. } | Self::Disconnected { .. } | Self::NoBroker { .. } | Self::Protocol { .. } => true,
            Self::Bootstrap { tried, .. } => tried.iter().any(Self::is_retriable),
            Self::Tls(TlsError::Handshake { .. }) => true,
            Self::Tls(_) | Self::Authentication { .. } | Self::Unsupported { .. } | Self::Invalid { .. } => false,
        }
    }

    /// Whether the credentials were refused, by the one broker asked or by any bootstrap server.
    #[must_use]
    pub fn is_authentication(&self) -> bool {
        match self {
            Self::Authentication { .. } => true,
            Self::Bootstrap { tried, .. } => tried.iter().any(Self::is_authentication),
            _ => false,
        }
    }
}

struct Said<'a>(Option<&'a str>);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.map_or(Ok(()), |said| write!(f, ": {said}"))
    }
}

struct Tried<'a>(&'a [ClientError]);

impl fmt::Display for Tried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

/// An error code of Kafka's protocol other than 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KafkaError(i16);

impl KafkaError {
    /// -1: the broker failed in an unforeseen way.
    pub const UNKNOWN_SERVER_ERROR: Self = Self(-1);
    /// 1: the offset is outside the partition's log.
    pub const OFFSET_OUT_OF_RANGE: Self = Self(1);
    /// 2: the batch's checksum is wrong.
    pub const CORRUPT_MESSAGE: Self = Self(2);
    /// 3: no such topic or partition on this broker.
    pub const UNKNOWN_TOPIC_OR_PARTITION: Self = Self(3);
    /// 5: the partition has no leader now.
    pub const LEADER_NOT_AVAILABLE: Self = Self(5);
    /// 6: this broker is not (or no longer) the leader.
    pub const NOT_LEADER_OR_FOLLOWER: Self = Self(6);
    /// 7: the broker's own deadline passed.
    pub const REQUEST_TIMED_OUT: Self = Self(7);
    /// 10: the batch is larger than the topic allows.
    pub const MESSAGE_TOO_LARGE: Self = Self(10);
    /// 29: no permission on the topic.
    pub const TOPIC_AUTHORIZATION_FAILED: Self = Self(29);
    /// 33: the broker does not offer the SASL mechanism.
    pub const UNSUPPORTED_SASL_MECHANISM: Self = Self(33);
    /// 34: SASL at a moment or on a listener that takes none.
    pub const ILLEGAL_SASL_STATE: Self = Self(34);
    /// 35: the broker does not know the version of a request.
    pub const UNSUPPORTED_VERSION: Self = Self(35);
    /// 36: the topic exists already.
    pub const TOPIC_ALREADY_EXISTS: Self = Self(36);
    /// 37: the number of partitions is not valid.
    pub const INVALID_PARTITIONS: Self = Self(37);
    /// 41: this broker is not the controller.
    pub const NOT_CONTROLLER: Self = Self(41);
    /// 45: a batch is not at its place in the producer's sequence.
    pub const OUT_OF_ORDER_SEQUENCE_NUMBER: Self = Self(45);
    /// 46: a batch that was written before.
    pub const DUPLICATE_SEQUENCE_NUMBER: Self = Self(46);
    /// 47: the producer's epoch is old.
    pub const INVALID_PRODUCER_EPOCH: Self = Self(47);
    /// 56: the log directory of the partition failed.
    pub const KAFKA_STORAGE_ERROR: Self = Self(56);
    /// 58: wrong credentials.
    pub const SECURITY_DISABLED: Self = Self(54);
    /// 58.
    pub const SASL_AUTHENTICATION_FAILED: Self = Self(58);
    /// 74: the leader epoch asked with is older than the broker's.
    pub const FENCED_LEADER_EPOCH: Self = Self(74);
    /// 75: the leader epoch asked with is newer than the broker's.
    pub const UNKNOWN_LEADER_EPOCH: Self = Self(75);
    /// 87: the broker found a record not valid.
    pub const INVALID_RECORD: Self = Self(87);
    /// 100: no topic has this id: it was deleted, perhaps created again.
    pub const UNKNOWN_TOPIC_ID: Self = Self(100);

    /// The error of a code; `None` for 0, which is success.
    #[must_use]
    pub const fn from_code(code: i16) -> Option<Self> {
        if code == 0 { None } else { Some(Self(code)) }
    }

    /// `Ok` for code 0.
    ///
    /// # Errors
    /// The error of any other code.
    pub const fn check(code: i16) -> Result<(), Self> {
        if code == 0 { Ok(()) } else { Err(Self(code)) }
    }

    /// Kafka's number.
    #[must_use]
    pub const fn code(self) -> i16 {
        self.0
    }

    /// Kafka's name, as in `NOT_LEADER_OR_FOLLOWER`; `UNKNOWN_ERROR_CODE` for a number that has none yet.
    #[must_use]
    pub fn name(self) -> String {
        match ResponseError::try_from_code(self.0) {
            None | Some(ResponseError::Unknown(_)) => "UNKNOWN_ERROR_CODE".to_owned(),
            Some(known) => screaming(&known.to_string()),
        }
    }

    /// Whether Kafka calls it retriable. False for numbers that have no name.
    #[must_use]
    pub const fn is_retriable(self) -> bool {
        match ResponseError::try_from_code(self.0) {
            None => false,
            Some(known) => known.is_retriable(),
        }
    }

    /// Whether the cached leader is wrong, so that metadata must be read again before the next try.
    #[must_use]
    pub const fn is_stale_leader(self) -> bool {
        matches!(
            self,
            Self::NOT_LEADER_OR_FOLLOWER
                | Self::LEADER_NOT_AVAILABLE
                | Self::UNKNOWN_TOPIC_OR_PARTITION
                | Self::UNKNOWN_TOPIC_ID
                | Self::FENCED_LEADER_EPOCH
                | Self::UNKNOWN_LEADER_EPOCH
                | Self::KAFKA_STORAGE_ERROR
        )
    }
}

impl fmt::Display for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.0)
    }
}

impl fmt::Debug for KafkaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for KafkaError {}

/// `NotLeaderOrFollower` to `NOT_LEADER_OR_FOLLOWER`.
fn screaming(camel: &str) -> String {
    let mut out = String::with_capacity(camel.len() + 4);
    for c in camel.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_uppercase());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_have_kafkas_names_and_retriability() {
        for (error, text, retriable) in [
            (KafkaError::UNKNOWN_SERVER_ERROR, "UNKNOWN_SERVER_ERROR (-1)", false),
            (KafkaError::NOT_LEADER_OR_FOLLOWER, "NOT_LEADER_OR_FOLLOWER (6)", true),
            (KafkaError::TOPIC_ALREADY_EXISTS, "TOPIC_ALREADY_EXISTS (36)", false),
            (KafkaError::OUT_OF_ORDER_SEQUENCE_NUMBER, "OUT_OF_ORDER_SEQUENCE_NUMBER (45)", false),
            (KafkaError::UNKNOWN_TOPIC_ID, "UNKNOWN_TOPIC_ID (100)", true),
            (KafkaError(30_000), "UNKNOWN_ERROR_CODE (30000)", false),
        ] {
            assert_eq!((error.to_string().as_str(), error.is_retriable()), (text, retriable));
        }
        assert_eq!(KafkaError::from_code(0), None);
        assert_eq!(KafkaError::check(36), Err(KafkaError::TOPIC_ALREADY_EXISTS));
    }

    #[test]
    fn a_refusal_is_found_among_what_bootstrap_servers_said() {
        let refused = ClientError::Authentication {
            cluster: "orange".into(),
            broker: "b0:9092".parse().expect("a target"),
            mechanism: "PLAIN",
            detail: "Invalid username or password".into(),
        };
        let down = ClientError::Dial(DialError::Refused { target: "b1:9092".parse().expect("a target") });
        let all = ClientError::Bootstrap { cluster: "orange".into(), tried: vec![down, refused] };
        assert!(all.is_authentication());
        assert_eq!(
            all.to_string(),
            "cluster orange: no bootstrap server could be used: b1:9092 refused the connection; cluster orange: b0:9092 did \
             not accept the PLAIN credentials: Invalid username or password"
        );
    }
}
