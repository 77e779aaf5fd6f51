//! What a cluster looks like: brokers, topics, leaders.

use std::fmt;

use crate::net::HostPort;

/// A cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterView {
    /// Kafka's cluster id; `None` where the broker keeps none.
    pub cluster_id: Option<String>,
    /// Node id of the broker that admin calls go to; `None` while there is none.
    pub controller: Option<i32>,
    /// Brokers, by rising node id.
    pub brokers: Vec<BrokerView>,
}

impl ClusterView {
    /// The broker with this node id.
    #[must_use]
    pub fn broker(&self, node_id: i32) -> Option<&BrokerView> {
        self.brokers.iter().find(|broker| broker.node_id == node_id)
    }
}

/// One broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerView {
    /// Its node id.
    pub node_id: i32,
    /// Its advertised listener, for the listener that was asked.
    pub address: HostPort,
    /// Its rack.
    pub rack: Option<String>,
}

/// A topic's id, which a topic of the same name created later does not share.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct TopicId(pub [u8; 16]);

impl TopicId {
    /// What brokers say that have no topic ids.
    pub const NONE: Self = Self([0; 16]);

    /// Whether there is an id.
    #[must_use]
    pub fn is_some(self) -> bool {
        self != Self::NONE
    }
}

impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Kafka's tools print ids as URL-safe base64 without padding.
        use base64::Engine as _;
        f.write_str(&base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One topic, or why there is none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicView {
    /// Its name.
    pub name: String,
    /// Its id; [`TopicId::NONE`] from brokers that have none (before 2.8).
    pub topic_id: TopicId,
    /// Whether it is one of Kafka's own, as `__consumer_offsets`.
    pub internal: bool,
    /// Why the topic could not be shown: `UNKNOWN_TOPIC_OR_PARTITION` where it does not exist.
    pub error: Option<super::KafkaError>,
    /// Partitions, by rising index.
    pub partitions: Vec<PartitionView>,
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionView {
    /// Its index.
    pub index: i32,
    /// Node id of the leader; `None` while there is none.
    pub leader: Option<i32>,
    /// The leader's epoch; -1 where the broker does not say.
    pub leader_epoch: i32,
    /// Node ids of the replicas, the preferred leader first.
    pub replicas: Vec<i32>,
    /// What is wrong with it, as `LEADER_NOT_AVAILABLE`.
    pub error: Option<super::KafkaError>,
}

/// The leader to ask instead, from a broker that is not (KIP-951).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderHint {
    /// Node id of the leader.
    pub node_id: i32,
    /// Its epoch.
    pub leader_epoch: i32,
    /// Its advertised listener, where the broker said so.
    pub address: Option<HostPort>,
}
