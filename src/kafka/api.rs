//! The table of Kafka's APIs: names, header versions, and what can be walked.
//!
//! Complete for Kafka 4.1 (keys 0 to 92, with the four inter-node ones that 4.0 removed). A key that is not in it is no error:
//! such frames are forwarded unread, so a newer broker never breaks a client.

/// First versions of no API: it is never flexible.
const NEVER: i16 = i16::MAX;

/// What is known of one API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    /// Its key.
    pub key: i16,
    /// Its name in Kafka's own words.
    pub name: &'static str,
    /// First version with compact types and tagged fields; [`i16::MAX`] for never.
    pub flexible_from: i16,
}

/// Produce.
pub const PRODUCE: i16 = 0;
/// Fetch.
pub const FETCH: i16 = 1;
/// Metadata.
pub const METADATA: i16 = 3;
/// ControlledShutdown, whose version 0 alone has a request header without client id.
pub const CONTROLLED_SHUTDOWN: i16 = 7;
/// FindCoordinator.
pub const FIND_COORDINATOR: i16 = 10;
/// SaslHandshake.
pub const SASL_HANDSHAKE: i16 = 17;
/// SaslAuthenticate.
pub const SASL_AUTHENTICATE: i16 = 36;
/// ApiVersions.
pub const API_VERSIONS: i16 = 18;
/// DescribeCluster.
pub const DESCRIBE_CLUSTER: i16 = 60;
/// ShareFetch.
pub const SHARE_FETCH: i16 = 78;
/// ShareAcknowledge.
pub const SHARE_ACKNOWLEDGE: i16 = 79;

/// The APIs whose responses are read, with the highest version of each that can be: the seven that carry broker addresses, and
/// ApiVersions, which tells clients to stay within these.
pub const WALKABLE: [(i16, i16); 8] = [
    (PRODUCE, 13),
    (FETCH, 18),
    (METADATA, 13),
    (FIND_COORDINATOR, 6),
    (API_VERSIONS, 5),
    (DESCRIBE_CLUSTER, 2),
    (SHARE_FETCH, 2),
    (SHARE_ACKNOWLEDGE, 2),
];

/// The highest version of `key` that can be walked; `None` for APIs that are forwarded unread.
#[must_use]
pub fn walkable_to(key: i16) -> Option<i16> {
    WALKABLE.iter().find(|(walkable, _)| *walkable == key).map(|(_, to)| *to)
}

/// What is known of `key`.
#[must_use]
pub fn lookup(key: i16) -> Option<&'static Api> {
    TABLE.binary_search_by_key(&key, |api| api.key).ok().map(|at| &TABLE[at])
}

/// The name of `key` for logs; `unknown` where there is none.
#[must_use]
pub fn name(key: i16) -> &'static str {
    lookup(key).map_or("unknown", |api| api.name)
}

/// The key of the API that is called so; `None` where there is none.
#[must_use]
pub fn by_name(name: &str) -> Option<i16> {
    TABLE.iter().find(|api| api.name == name).map(|api| api.key)
}

/// All names, by their keys.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|api| api.name)
}

/// APIs that change no record, no topic, and nothing of what the cluster is: to read, to be a member of a group, to commit offsets
/// (a reader's own progress, without which no consumer works), to authenticate, and to look at everything.
const READS: &[i16] = &[
    1, 2, 3, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 23, 29, 32, 35, 36, 41, 46, 48, 50, 55, 60, 61, 65, 66, 68, 69,
    71, 72, 74, 75, 76, 77, 78, 79, 89, 90,
];

/// Whether an API is known to write nothing. Metadata is one, though it makes topics where it is asked to and brokers let it.
#[must_use]
pub fn only_reads(key: i16) -> bool {
    READS.contains(&key)
}

/// Whether `version` of `key` has compact types and tagged fields. Unknown APIs are newer ones, and those all have.
#[must_use]
pub fn is_flexible(key: i16, version: i16) -> bool {
    lookup(key).is_none_or(|api| version >= api.flexible_from)
}

/// The version of the request header, 0 to 2.
#[must_use]
pub fn request_header_version(key: i16, version: i16) -> i16 {
    match (key, version) {
        (CONTROLLED_SHUTDOWN, 0) => 0,
        _ if is_flexible(key, version) => 2,
        _ => 1,
    }
}

/// The version of the response header, 0 or 1. That of ApiVersions is 0 always, since a client reads it before it knows (KIP-511).
#[must_use]
pub fn response_header_version(key: i16, version: i16) -> i16 {
    i16::from(key != API_VERSIONS && is_flexible(key, version))
}

/// By key, ascending.
static TABLE: [Api; 93] = [
    Api { key: 0, name: "Produce", flexible_from: 9 },
    Api { key: 1, name: "Fetch", flexible_from: 12 },
    Api { key: 2, name: "ListOffsets", flexible_from: 6 },
    Api { key: 3, name: "Metadata", flexible_from: 9 },
    Api { key: 4, name: "LeaderAndIsr", flexible_from: 4 },
    Api { key: 5, name: "StopReplica", flexible_from: 2 },
    Api { key: 6, name: "UpdateMetadata", flexible_from: 6 },
    Api { key: 7, name: "ControlledShutdown", flexible_from: 3 },
    Api { key: 8, name: "OffsetCommit", flexible_from: 8 },
    Api { key: 9, name: "OffsetFetch", flexible_from: 6 },
    Api { key: 10, name: "FindCoordinator", flexible_from: 3 },
    Api { key: 11, name: "JoinGroup", flexible_from: 6 },
    Api { key: 12, name: "Heartbeat", flexible_from: 4 },
    Api { key: 13, name: "LeaveGroup", flexible_from: 4 },
    Api { key: 14, name: "SyncGroup", flexible_from: 4 },
    Api { key: 15, name: "DescribeGroups", flexible_from: 5 },
    Api { key: 16, name: "ListGroups", flexible_from: 3 },
    Api { key: 17, name: "SaslHandshake", flexible_from: NEVER },
    Api { key: 18, name: "ApiVersions", flexible_from: 3 },
    Api { key: 19, name: "CreateTopics", flexible_from: 5 },
    Api { key: 20, name: "DeleteTopics", flexible_from: 4 },
    Api { key: 21, name: "DeleteRecords", flexible_from: 2 },
    Api { key: 22, name: "InitProducerId", flexible_from: 2 },
    Api { key: 23, name: "OffsetForLeaderEpoch", flexible_from: 4 },
    Api { key: 24, name: "AddPartitionsToTxn", flexible_from: 3 },
    Api { key: 25, name: "AddOffsetsToTxn", flexible_from: 3 },
    Api { key: 26, name: "EndTxn", flexible_from: 3 },
    Api { key: 27, name: "WriteTxnMarkers", flexible_from: 1 },
    Api { key: 28, name: "TxnOffsetCommit", flexible_from: 3 },
    Api { key: 29, name: "DescribeAcls", flexible_from: 2 },
    Api { key: 30, name: "CreateAcls", flexible_from: 2 },
    Api { key: 31, name: "DeleteAcls", flexible_from: 2 },
    Api { key: 32, name: "DescribeConfigs", flexible_from: 4 },
    Api { key: 33, name: "AlterConfigs", flexible_from: 2 },
    Api { key: 34, name: "AlterReplicaLogDirs", flexible_from: 2 },
    Api { key: 35, name: "DescribeLogDirs", flexible_from: 2 },
    Api { key: 36, name: "SaslAuthenticate", flexible_from: 2 },
    Api { key: 37, name: "CreatePartitions", flexible_from: 2 },
    Api { key: 38, name: "CreateDelegationToken", flexible_from: 2 },
    Api { key: 39, name: "RenewDelegationToken", flexible_from: 2 },
    Api { key: 40, name: "ExpireDelegationToken", flexible_from: 2 },
    Api { key: 41, name: "DescribeDelegationToken", flexible_from: 2 },
    Api { key: 42, name: "DeleteGroups", flexible_from: 2 },
    Api { key: 43, name: "ElectLeaders", flexible_from: 2 },
    Api { key: 44, name: "IncrementalAlterConfigs", flexible_from: 1 },
    Api { key: 45, name: "AlterPartitionReassignments", flexible_from: 0 },
    Api { key: 46, name: "ListPartitionReassignments", flexible_from: 0 },
    Api { key: 47, name: "OffsetDelete", flexible_from: NEVER },
    Api { key: 48, name: "DescribeClientQuotas", flexible_from: 1 },
    Api { key: 49, name: "AlterClientQuotas", flexible_from: 1 },
    Api { key: 50, name: "DescribeUserScramCredentials", flexible_from: 0 },
    Api { key: 51, name: "AlterUserScramCredentials", flexible_from: 0 },
    Api { key: 52, name: "Vote", flexible_from: 0 },
    Api { key: 53, name: "BeginQuorumEpoch", flexible_from: 1 },
    Api { key: 54, name: "EndQuorumEpoch", flexible_from: 1 },
    Api { key: 55, name: "DescribeQuorum", flexible_from: 0 },
    Api { key: 56, name: "AlterPartition", flexible_from: 0 },
    Api { key: 57, name: "UpdateFeatures", flexible_from: 0 },
    Api { key: 58, name: "Envelope", flexible_from: 0 },
    Api { key: 59, name: "FetchSnapshot", flexible_from: 0 },
    Api { key: 60, name: "DescribeCluster", flexible_from: 0 },
    Api { key: 61, name: "DescribeProducers", flexible_from: 0 },
    Api { key: 62, name: "BrokerRegistration", flexible_from: 0 },
    Api { key: 63, name: "BrokerHeartbeat", flexible_from: 0 },
    Api { key: 64, name: "UnregisterBroker", flexible_from: 0 },
    Api { key: 65, name: "DescribeTransactions", flexible_from: 0 },
    Api { key: 66, name: "ListTransactions", flexible_from: 0 },
    Api { key: 67, name: "AllocateProducerIds", flexible_from: 0 },
    Api { key: 68, name: "ConsumerGroupHeartbeat", flexible_from: 0 },
    Api { key: 69, name: "ConsumerGroupDescribe", flexible_from: 0 },
    Api { key: 70, name: "ControllerRegistration", flexible_from: 0 },
    Api { key: 71, name: "GetTelemetrySubscriptions", flexible_from: 0 },
    Api { key: 72, name: "PushTelemetry", flexible_from: 0 },
    Api { key: 73, name: "AssignReplicasToDirs", flexible_from: 0 },
    Api { key: 74, name: "ListConfigResources", flexible_from: 0 },
    Api { key: 75, name: "DescribeTopicPartitions", flexible_from: 0 },
    Api { key: 76, name: "ShareGroupHeartbeat", flexible_from: 0 },
    Api { key: 77, name: "ShareGroupDescribe", flexible_from: 0 },
    Api { key: 78, name: "ShareFetch", flexible_from: 0 },
    Api { key: 79, name: "ShareAcknowledge", flexible_from: 0 },
    Api { key: 80, name: "AddRaftVoter", flexible_from: 0 },
    Api { key: 81, name: "RemoveRaftVoter", flexible_from: 0 },
    Api { key: 82, name: "UpdateRaftVoter", flexible_from: 0 },
    Api { key: 83, name: "InitializeShareGroupState", flexible_from: 0 },
    Api { key: 84, name: "ReadShareGroupState", flexible_from: 0 },
    Api { key: 85, name: "WriteShareGroupState", flexible_from: 0 },
    Api { key: 86, name: "DeleteShareGroupState", flexible_from: 0 },
    Api { key: 87, name: "ReadShareGroupStateSummary", flexible_from: 0 },
    Api { key: 88, name: "StreamsGroupHeartbeat", flexible_from: 0 },
    Api { key: 89, name: "StreamsGroupDescribe", flexible_from: 0 },
    Api { key: 90, name: "DescribeShareGroupOffsets", flexible_from: 0 },
    Api { key: 91, name: "AlterShareGroupOffsets", flexible_from: 0 },
    Api { key: 92, name: "DeleteShareGroupOffsets", flexible_from: 0 },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_an_independent_codec_on_every_version() {
        let mut seen = 0;
        for theirs in kafka_protocol::messages::ApiKey::iter() {
            let key = theirs as i16;
            assert_eq!(name(key), format!("{theirs:?}"));
            let versions = theirs.valid_versions();
            for version in versions.min..=versions.max {
                assert_eq!(
                    request_header_version(key, version),
                    theirs.request_header_version(version),
                    "{theirs:?} {version}"
                );
                assert_eq!(
                    response_header_version(key, version),
                    theirs.response_header_version(version),
                    "{theirs:?} {version}"
                );
                seen += 1;
            }
        }
        assert!(seen > 250, "{seen} versions compared");
    }

    #[test]
    fn keeps_the_odd_ones() {
        assert_eq!(request_header_version(CONTROLLED_SHUTDOWN, 0), 0);
        assert_eq!(request_header_version(CONTROLLED_SHUTDOWN, 1), 1);
        assert_eq!(request_header_version(SASL_HANDSHAKE, 1), 1);
        assert_eq!(response_header_version(SASL_HANDSHAKE, 99), 0);
        assert_eq!(response_header_version(API_VERSIONS, 5), 0);
        assert_eq!(request_header_version(API_VERSIONS, 5), 2);
        assert!(TABLE.windows(2).all(|pair| pair[0].key < pair[1].key), "sorted for the search");
    }

    #[test]
    fn tolerates_keys_of_the_future() {
        for key in [-1, 93, 1_000, 20_001, i16::MAX, i16::MIN] {
            assert_eq!((name(key), walkable_to(key), request_header_version(key, 0)), ("unknown", None, 2));
        }
        assert_eq!(walkable_to(FETCH), Some(18));
        assert_eq!(walkable_to(2), None);
    }
}
