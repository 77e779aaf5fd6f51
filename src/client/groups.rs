//! Groups: who there is, what they have committed, and commits on their behalf.

use std::collections::{BTreeMap, HashMap};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    ApiKey, FindCoordinatorRequest, GroupId, ListGroupsRequest, OffsetCommitRequest, OffsetFetchRequest,
};
use kafka_protocol::protocol::StrBytes;

use super::admin::{check, text, topic_name};
use super::{ClientError, ClusterClient, KafkaError};

/// A group, as its coordinator lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedGroup {
    /// Its id.
    pub group: String,
    /// Node id of its coordinator.
    pub coordinator: i32,
    /// `classic`, `consumer`, `share` or `streams`; empty from brokers before 4.0, which have classic ones alone.
    pub kind: String,
    /// What its members are, as `consumer` or `connect`; empty where it never had any.
    pub protocol: String,
}

/// All groups of a cluster, as far as brokers told.
#[derive(Debug, Clone, Default)]
pub struct Groups {
    /// The groups, in no order.
    pub groups: Vec<ListedGroup>,
    /// Brokers that did not tell now: groups that they coordinate are missing.
    pub failures: Vec<(i32, ClientError)>,
}

/// What a group has committed, or why that is not known.
#[derive(Debug, Clone)]
pub struct GroupOffsets {
    /// Its id.
    pub group: String,
    /// Its commits. A partition that it has not committed is left out.
    pub offsets: Result<Vec<Committed>, ClientError>,
}

/// One partition's commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The offset that the group goes on at, or why it is not told: `UNSTABLE_OFFSET_COMMIT` while a transaction that commits it is open.
    pub offset: Result<i64, KafkaError>,
    /// What the group wrote beside it.
    pub metadata: String,
}

/// One partition to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    /// Topic.
    pub topic: String,
    /// Partition.
    pub partition: i32,
    /// The offset that the group is to go on at.
    pub offset: i64,
    /// What stands beside it; at most 4,096 bytes unless the brokers were told otherwise.
    pub metadata: String,
}

/// What became of a [`Commit`]: topic, partition and the broker's word.
pub type CommitOutcome = (String, i32, Result<(), KafkaError>);

/// The slot for groups, so that their long answers do not stand before metadata and admin calls.
const SLOT: u16 = super::ADMIN_SLOT - 1;
/// Groups in one request: with a hundred partitions each an answer has one megabyte.
const AT_ONCE: usize = 200;

impl ClusterClient {
    /// All groups, asked of each broker for those that it coordinates.
    ///
    /// # Errors
    /// Where no broker told, what the first of them failed with; else as [`ClusterClient::cluster`].
    pub async fn list_groups(&self) -> Result<Groups, ClientError> {
        let view = match self.view() {
            Some(view) => view,
            None => self.cluster().await?.into(),
        };
        let asked = view.brokers.iter().map(|broker| async move {
            let node_id = broker.node_id;
            (node_id, self.groups_of(node_id).await)
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        let mut out = Groups::default();
        let mut told = false;
        while let Some((node_id, answer)) = answers.next().await {
            match answer {
                Ok(groups) => {
                    told = true;
                    out.groups.extend(groups);
                }
                Err(error) => out.failures.push((node_id, error)),
            }
        }
        match out.failures.pop() {
            Some((_, error)) if !told => Err(error),
            last => {
                out.failures.extend(last);
                Ok(out)
            }
        }
    }

    async fn groups_of(&self, node_id: i32) -> Result<Vec<ListedGroup>, ClientError> {
        let answer = self.connection(node_id, SLOT).await?.ask(ListGroupsRequest::default()).await?;
        check(ApiKey::ListGroups, answer.error_code, None)?;
        let groups = answer.groups.into_iter().map(|group| ListedGroup {
            group: group.group_id.to_string(),
            coordinator: node_id,
            kind: group.group_type.to_string(),
            protocol: group.protocol_type.to_string(),
        });
        Ok(groups.collect())
    }

    /// Node ids of groups' coordinators, in the order of `groups`. A group need not exist.
    ///
    /// # Errors
    /// What concerns one group is in its entry; the rest as [`ClusterClient::cluster`].
    pub async fn group_coordinators(&self, groups: &[String]) -> Result<Vec<Result<i32, ClientError>>, ClientError> {
        const API: ApiKey = ApiKey::FindCoordinator;
        let connection = self.any_connection().await?;
        let mut found: HashMap<String, Result<i32, ClientError>> = HashMap::new();
        if connection.needed(API)? >= 4 {
            for some in groups.chunks(AT_ONCE) {
                let keys = some.iter().map(|group| text(group)).collect();
                let answer = connection.ask(FindCoordinatorRequest::default().with_coordinator_keys(keys)).await?;
                for one in answer.coordinators {
                    let node = check(API, one.error_code, one.error_message).map(|()| one.node_id.0);
                    found.insert(one.key.to_string(), node);
                }
            }
        } else {
            for group in groups {
                let answer = connection.ask(FindCoordinatorRequest::default().with_key(text(group))).await?;
                let node = check(API, answer.error_code, answer.error_message).map(|()| answer.node_id.0);
                found.insert(group.clone(), node);
            }
        }
        let missing = || Err(said_nothing(API));
        Ok(groups.iter().map(|group| found.get(group).cloned().unwrap_or_else(missing)).collect())
    }

    /// What groups of one coordinator have committed, stable offsets alone: those of open transactions are not told. One entry for
    /// each group, in their order.
    ///
    /// # Errors
    /// What concerns one group is in its entry; the rest as [`ClusterClient::connection`].
    pub async fn group_offsets(&self, coordinator: i32, groups: &[String]) -> Result<Vec<GroupOffsets>, ClientError> {
        const API: ApiKey = ApiKey::OffsetFetch;
        let connection = self.connection(coordinator, SLOT).await?;
        let mut found: HashMap<String, Result<Vec<Committed>, ClientError>> = HashMap::new();
        if connection.needed(API)? >= 8 {
            for some in groups.chunks(AT_ONCE) {
                let asked = some.iter().map(|group| {
                    OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_topics(None)
                });
                let request = OffsetFetchRequest::default()
                    .with_groups(asked.collect())
                    .with_topics(Some(Vec::new()))
                    .with_require_stable(true);
                for group in connection.ask(request).await?.groups {
                    let parts = group.topics.into_iter().flat_map(|topic| {
                        let name = topic.name.to_string();
                        topic.partitions.into_iter().filter_map(move |one| {
                            committed(&name, one.partition_index, one.committed_offset, one.error_code, one.metadata)
                        })
                    });
                    let offsets = check(API, group.error_code, None).map(|()| parts.collect());
                    found.insert(group.group_id.to_string(), offsets);
                }
            }
        } else {
            for group in groups {
                let request = OffsetFetchRequest::default()
                    .with_group_id(GroupId(text(group)))
                    .with_topics(None)
                    .with_require_stable(true);
                let answer = connection.ask(request).await?;
                let parts = answer.topics.into_iter().flat_map(|topic| {
                    let name = topic.name.to_string();
                    topic.partitions.into_iter().filter_map(move |one| {
                        committed(&name, one.partition_index, one.committed_offset, one.error_code, one.metadata)
                    })
                });
                let offsets = check(API, answer.error_code, None).map(|()| parts.collect());
                found.insert(group.clone(), offsets);
            }
        }
        let entry = |group: &String| GroupOffsets {
            group: group.clone(),
            offsets: found.remove(group).unwrap_or_else(|| Err(said_nothing(API))),
        };
        Ok(groups.iter().map(entry).collect())
    }

    /// Commits on a group's behalf, from outside: generation -1, no leader epoch (a foreign one stops Java consumers). Brokers take it
    /// for groups without members alone; another answers `UNKNOWN_MEMBER_ID` for each partition.
    ///
    /// Offsets are taken as they are, also beyond the end of a partition.
    ///
    /// # Errors
    /// What concerns one partition is in its entry; the rest as [`ClusterClient::connection`].
    pub async fn commit_group_offsets(
        &self,
        coordinator: i32,
        group: &str,
        commits: &[Commit],
    ) -> Result<Vec<CommitOutcome>, ClientError> {
        let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
        for commit in commits {
            let one = OffsetCommitRequestPartition::default()
                .with_partition_index(commit.partition)
                .with_committed_offset(commit.offset)
                .with_committed_leader_epoch(-1)
                .with_committed_metadata(Some(text(&commit.metadata)));
            topics.entry(&commit.topic).or_default().push(one);
        }
        let topics = topics
            .into_iter()
            .map(|(name, some)| OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(some));
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(group)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(topics.collect());
        let answer = self.connection(coordinator, SLOT).await?.ask(request).await?;
        let outcomes = answer.topics.into_iter().flat_map(|topic| {
            let name = topic.name.to_string();
            topic
                .partitions
                .into_iter()
                .map(move |one| (name.clone(), one.partition_index, KafkaError::check(one.error_code)))
        });
        Ok(outcomes.collect())
    }
}

/// A commit, if there is one: brokers say -1 for a partition that has none.
fn committed(topic: &str, partition: i32, offset: i64, error: i16, metadata: Option<StrBytes>) -> Option<Committed> {
    let offset = KafkaError::check(error).map(|()| offset);
    let metadata = metadata.map_or_else(String::new, |metadata| metadata.to_string());
    (offset != Ok(-1)).then(|| Committed { topic: topic.to_owned(), partition, offset, metadata })
}

fn said_nothing(api: ApiKey) -> ClientError {
    let message = Some("the broker said nothing of this group".to_owned());
    ClientError::Kafka { api, error: KafkaError::UNKNOWN_SERVER_ERROR, message }
}
