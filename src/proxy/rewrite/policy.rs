//! What clients may not ask of the brokers: single APIs, or all that writes.
//!
//! What is denied never reaches a broker. An API whose refusal has a form ([`crate::kafka::refusal`]) is answered here, in its
//! turn among the responses of the broker; any other is kept out of what ApiVersions tells clients, and ends the connection of a client
//! that asks all the same. "All that writes" denies what this program does not know, too: an API of a newer Kafka may be
//! one that writes.

use crate::kafka::header::RequestHead;
use crate::kafka::{api, refusal};

/// Keys 0 to 127; those that can be denied by name are below 93.
const WORD: i16 = 128;

/// The version of Metadata from which a client says whether topics may be made by asking for them.
pub(super) const METADATA_AUTO_CREATION: i16 = 4;

/// What a listener's clients may not do. By default nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Policy {
    denied: u128,
    /// Everything is denied that is not known to read.
    read_only: bool,
}

impl Policy {
    /// Everybody may do what the brokers let them.
    #[must_use]
    pub const fn open() -> Self {
        Self { denied: 0, read_only: false }
    }

    /// Denies all that writes.
    #[must_use]
    pub fn read_only() -> Self {
        let writes = (0..WORD).filter(|key| !api::only_reads(*key)).fold(0, |writes, key| writes | bit(key));
        Self { denied: writes, read_only: true }
    }

    /// Denies one more API.
    #[must_use]
    pub const fn and(mut self, key: i16) -> Self {
        self.denied |= bit(key);
        self
    }

    /// Whether anything is denied.
    const fn is_set(self) -> bool {
        self.denied != 0
    }

    /// Whether a request goes no further. A SaslHandshake of version 0 does not, for what follows it has no header to tell what it is.
    pub(super) const fn withholds(self, head: RequestHead) -> bool {
        self.denies(head.api_key) || self.is_set() && head.api_key == api::SASL_HANDSHAKE && head.api_version == 0
    }

    /// Whether an API is denied.
    const fn denies(self, key: i16) -> bool {
        if 0 <= key && key < WORD { self.denied & bit(key) != 0 } else { self.read_only }
    }

    /// Whether asking for a topic may make it.
    pub(super) const fn lets_topics_be_made(self) -> bool {
        !self.read_only
    }

    /// The versions of an API that clients are told of, among those that the broker has; `None` where they are told of none.
    pub(super) fn shows(self, key: i16, min: i16, max: i16) -> Option<(i16, i16)> {
        let (min, max) = if !self.is_set() {
            (min, max)
        } else if self.denies(key) {
            let versions = refusal::versions(key)?;
            (min.max(*versions.start()), max.min(*versions.end()))
        } else {
            match key {
                api::METADATA if self.read_only => (min.max(METADATA_AUTO_CREATION), max),
                api::SASL_HANDSHAKE => (min.max(1), max),
                _ => (min, max),
            }
        };
        (min <= max).then_some((min, max))
    }
}

const fn bit(key: i16) -> u128 {
    if 0 <= key && key < WORD { 1 << key } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_only_denies_all_that_is_not_known_to_read() {
        let policy = Policy::read_only();
        let allowed: Vec<&str> = (0..=92).filter(|key| !policy.denies(*key)).map(api::name).collect();
        assert_eq!(
            allowed,
            [
                "Fetch",
                "ListOffsets",
                "Metadata",
                "OffsetCommit",
                "OffsetFetch",
                "FindCoordinator",
                "JoinGroup",
                "Heartbeat",
                "LeaveGroup",
                "SyncGroup",
                "DescribeGroups",
                "ListGroups",
                "SaslHandshake",
                "ApiVersions",
                "OffsetForLeaderEpoch",
                "DescribeAcls",
                "DescribeConfigs",
                "DescribeLogDirs",
                "SaslAuthenticate",
                "DescribeDelegationToken",
                "ListPartitionReassignments",
                "DescribeClientQuotas",
                "DescribeUserScramCredentials",
                "DescribeQuorum",
                "DescribeCluster",
                "DescribeProducers",
                "DescribeTransactions",
                "ListTransactions",
                "ConsumerGroupHeartbeat",
                "ConsumerGroupDescribe",
                "GetTelemetrySubscriptions",
                "PushTelemetry",
                "ListConfigResources",
                "DescribeTopicPartitions",
                "ShareGroupHeartbeat",
                "ShareGroupDescribe",
                "ShareFetch",
                "ShareAcknowledge",
                "StreamsGroupDescribe",
                "DescribeShareGroupOffsets",
            ]
        );
        for key in [-1, 93, 127, 128, 10_000, i16::MAX, i16::MIN] {
            assert!(policy.denies(key) && !Policy::open().and(api::PRODUCE).denies(key), "{key}");
        }
    }

    #[test]
    fn every_api_that_writes_and_that_clients_have_is_refused_in_its_own_words() {
        // Between brokers and controllers, and StreamsGroupHeartbeat, which makes topics: hidden, and closed on.
        let closed = [4, 5, 6, 7, 52, 53, 54, 56, 58, 59, 62, 63, 67, 70, 73, 82, 83, 84, 85, 86, 87, 88];
        for key in 0..=92 {
            let refused = refusal::versions(key).is_some();
            if Policy::read_only().denies(key) {
                assert_eq!(refused, !closed.contains(&key), "{}", api::name(key));
            }
        }
    }

    #[test]
    fn clients_are_told_of_versions_that_can_be_refused() {
        let policy = Policy::read_only();
        assert_eq!(policy.shows(0, 3, 99), Some((3, 13)));
        assert_eq!(policy.shows(0, 14, 99), None, "a Produce that nobody here can refuse");
        assert_eq!(policy.shows(88, 0, 0), None, "no form");
        assert_eq!(policy.shows(30_000, 0, 7), None, "unknown");
        assert_eq!((policy.shows(3, 0, 13), policy.shows(3, 0, 3)), (Some((4, 13)), None));
        assert_eq!(policy.shows(17, 0, 1), Some((1, 1)));
        assert_eq!(policy.shows(1, 4, 18), Some((4, 18)));
        let one = Policy::open().and(19);
        assert_eq!(
            (one.shows(19, 2, 99), one.shows(0, 3, 99), one.shows(3, 0, 13)),
            (Some((2, 7)), Some((3, 99)), Some((0, 13)))
        );
        assert_eq!((one.shows(30_000, 0, 7), Policy::open().shows(17, 0, 1)), (Some((0, 7)), Some((0, 1))));
    }
}
