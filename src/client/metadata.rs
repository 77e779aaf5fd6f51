//! Reading a cluster: brokers, topics, offsets.

use std::collections::{BTreeMap, HashMap};

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{MetadataResponsePartition, MetadataResponseTopic};
use kafka_protocol::messages::{ApiKey, BrokerId, ListOffsetsRequest, MetadataRequest, MetadataResponse};
use tokio::time::sleep;

use super::admin::{ATTEMPTS, BETWEEN_ATTEMPTS, check, topic_name};
use super::cluster::ADMIN_SLOT;
use super::{
    BrokerView, ClientError, ClusterClient, ClusterView, KafkaError, PartitionOffset, PartitionView, Position, Rpc,
    TopicId, TopicView,
};
use crate::net::HostPort;

impl ClusterClient {
    /// The cluster as it is now; also renews what this client knows about brokers.
    ///
    /// # Errors
    /// [`ClientError::Bootstrap`] when no broker answers, and what a broker answered with.
    pub async fn cluster(&self) -> Result<ClusterView, ClientError> {
        self.metadata(Some(&[])).await.map(|(view, _)| view)
    }

    /// Topics by name, or all. Named ones that do not exist are answered with their error and never created by asking.
    ///
    /// # Errors
    /// As [`ClusterClient::cluster`].
    pub async fn topics(&self, names: Option<&[String]>) -> Result<Vec<TopicView>, ClientError> {
        self.metadata(names).await.map(|(_, topics)| topics)
    }

    /// One offset of each partition, asked of its leader; in the order of `partitions`.
    ///
    /// # Errors
    /// What concerns a partition, its leader out of reach among it, is in its entry; the rest as [`ClusterClient::cluster`].
    pub async fn list_offsets(
        &self,
        partitions: &[(String, i32)],
        position: Position,
    ) -> Result<Vec<PartitionOffset>, ClientError> {
        let mut found: HashMap<(String, i32), Result<i64, ClientError>> = HashMap::new();
        for attempt in 1..=ATTEMPTS {
            let open = |at: &&(String, i32)| {
                !matches!(found.get(*at), Some(Err(error)) if !is_passing(error))
                    && !matches!(found.get(*at), Some(Ok(_)))
            };
            let missing: Vec<(String, i32)> = partitions.iter().filter(open).cloned().collect();
            if missing.is_empty() {
                break;
            }
            if attempt > 1 {
                sleep(BETWEEN_ATTEMPTS).await;
            }
            found.extend(self.offsets_once(&missing, position).await?);
        }
        let entry = |(topic, partition): &(String, i32)| {
            let key = (topic.clone(), *partition);
            let offset = found.get(&key).cloned().unwrap_or_else(|| Err(unanswered(KafkaError::UNKNOWN_SERVER_ERROR)));
            PartitionOffset { topic: key.0, partition: key.1, offset }
        };
        Ok(partitions.iter().map(entry).collect())
    }

    /// Asks each leader once, all at the same time.
    async fn offsets_once(
        &self,
        partitions: &[(String, i32)],
        position: Position,
    ) -> Result<Vec<((String, i32), Result<i64, ClientError>)>, ClientError> {
        let mut names: Vec<String> = partitions.iter().map(|(topic, _)| topic.clone()).collect();
        names.sort();
        names.dedup();
        let topics: HashMap<String, TopicView> =
            self.topics(Some(&names)).await?.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        let mut found = Vec::with_capacity(partitions.len());
        let mut by_leader: BTreeMap<i32, Vec<(String, i32)>> = BTreeMap::new();
        for (topic, partition) in partitions {
            match leader(topics.get(topic), *partition) {
                Ok(leader) => by_leader.entry(leader).or_default().push((topic.clone(), *partition)),
                Err(error) => found.push(((topic.clone(), *partition), Err(unanswered(error)))),
            }
        }
        let asked = by_leader.into_iter().map(|(leader, some)| async move {
            match self.offsets_of_leader(leader, &some, position).await {
                Ok(offsets) => offsets,
                Err(error) => some.into_iter().map(|at| (at, Err(error.clone()))).collect(),
            }
        });
        let mut answers: FuturesUnordered<_> = asked.collect();
        while let Some(answer) = answers.next().await {
            found.extend(answer);
        }
        Ok(found)
    }

    async fn offsets_of_leader(
        &self,
        leader: i32,
        partitions: &[(String, i32)],
        position: Position,
    ) -> Result<Vec<((String, i32), Result<i64, ClientError>)>, ClientError> {
        let (timestamp, isolation) = match position {
            Position::Earliest => (-2, 0),
            Position::Latest => (-1, 0),
            Position::ReadCommittedEnd => (-1, 1),
            Position::Timestamp(ms) => (ms, 0),
        };
        let mut topics: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
        for (topic, partition) in partitions {
            let one = ListOffsetsPartition::default().with_partition_index(*partition).with_timestamp(timestamp);
            topics.entry(topic).or_default().push(one.with_current_leader_epoch(-1));
        }
        let topics = topics
            .into_iter()
            .map(|(name, some)| ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(some));
        let request = ListOffsetsRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_isolation_level(isolation)
            .with_topics(topics.collect());
        let answer = self.connection(leader, ADMIN_SLOT).await?.ask(request).await?;
        let mut found = Vec::with_capacity(partitions.len());
        for topic in answer.topics {
            for one in topic.partitions {
                let offset = check(ApiKey::ListOffsets, one.error_code, None).map(|()| one.offset);
                found.push(((topic.name.to_string(), one.partition_index), offset));
            }
        }
        Ok(found)
    }

    async fn metadata(&self, names: Option<&[String]>) -> Result<(ClusterView, Vec<TopicView>), ClientError> {
        let topics = names.map(|names| {
            let topics = names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
            topics.collect::<Vec<_>>()
        });
        let request = MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false);
        let answer = self.read(request).await?;
        check(ApiKey::Metadata, answer.error_code, None)?;
        let view = cluster_view(&answer);
        self.learn(&view);
        let mut topics: Vec<TopicView> = answer.topics.into_iter().filter_map(topic_view).collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok((view, topics))
    }

    /// Asks any broker what changes nothing; a connection that breaks under the question is replaced once.
    pub(super) async fn read<R: Rpc + Clone>(&self, request: R) -> Result<R::Response, ClientError> {
        match self.any_connection().await?.ask(request.clone()).await {
            Err(ClientError::Disconnected { .. }) => self.any_connection().await?.ask(request).await,
            outcome => outcome,
        }
    }
}

/// Errors that newer metadata or a new connection may cure.
fn is_passing(error: &ClientError) -> bool {
    match error {
        ClientError::Kafka { error, .. } => error.is_stale_leader() && *error != KafkaError::UNKNOWN_TOPIC_OR_PARTITION,
        ClientError::Disconnected { .. } | ClientError::NoBroker { .. } => true,
        _ => false,
    }
}

fn unanswered(error: KafkaError) -> ClientError {
    ClientError::Kafka { api: ApiKey::ListOffsets, error, message: None }
}

fn leader(topic: Option<&TopicView>, partition: i32) -> Result<i32, KafkaError> {
    let topic = topic.ok_or(KafkaError::UNKNOWN_TOPIC_OR_PARTITION)?;
    if let Some(error) = topic.error {
        return Err(error);
    }
    let one = topic.partitions.iter().find(|one| one.index == partition);
    one.ok_or(KafkaError::UNKNOWN_TOPIC_OR_PARTITION)?.leader.ok_or(KafkaError::LEADER_NOT_AVAILABLE)
}

fn cluster_view(answer: &MetadataResponse) -> ClusterView {
    let mut brokers: BTreeMap<i32, BrokerView> = BTreeMap::new();
    for broker in &answer.brokers {
        let port = u16::try_from(broker.port).unwrap_or(0);
        match HostPort::new(&broker.host, port) {
            Ok(address) => {
                let rack = broker.rack.as_ref().map(|rack| rack.to_string());
                brokers.insert(broker.node_id.0, BrokerView { node_id: broker.node_id.0, address, rack });
            }
            // Using it fails with NoBroker; the others are none the worse.
            Err(error) => tracing::debug!(node_id = broker.node_id.0, %error, "broker with an unusable address"),
        }
    }
    ClusterView {
        cluster_id: answer.cluster_id.as_ref().map(|id| id.to_string()),
        controller: Some(answer.controller_id.0).filter(|id| *id >= 0),
        brokers: brokers.into_values().collect(),
    }
}

fn topic_view(topic: MetadataResponseTopic) -> Option<TopicView> {
    let mut partitions: Vec<PartitionView> = topic.partitions.into_iter().map(partition_view).collect();
    partitions.sort_by_key(|one| one.index);
    Some(TopicView {
        name: topic.name?.to_string(),
        topic_id: TopicId(topic.topic_id.into_bytes()),
        internal: topic.is_internal,
        error: KafkaError::from_code(topic.error_code),
        partitions,
    })
}

fn partition_view(one: MetadataResponsePartition) -> PartitionView {
    PartitionView {
        index: one.partition_index,
        leader: Some(one.leader_id.0).filter(|id| *id >= 0),
        leader_epoch: one.leader_epoch,
        replicas: one.replica_nodes.into_iter().map(|id| id.0).collect(),
        error: KafkaError::from_code(one.error_code),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::ListOffsetsResponse;
    use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};

    use super::*;
    use crate::client::fake_broker::{FakeBroker, Guest, client};

    async fn answer_offset(guest: &mut Guest, code: i16, offset: i64) {
        let asked = guest.expect(ApiKey::ListOffsets).await;
        let request: ListOffsetsRequest = asked.decode();
        assert_eq!((request.isolation_level, request.topics[0].partitions[0].timestamp), (1, -1));
        let one = ListOffsetsPartitionResponse::default().with_error_code(code).with_offset(offset);
        let topic = ListOffsetsTopicResponse::default().with_name(topic_name("xaz")).with_partitions(vec![one]);
        guest.answer(&asked, &ListOffsetsResponse::default().with_topics(vec![topic])).await;
    }

    #[tokio::test]
    async fn offsets_are_asked_of_the_new_leader_when_the_old_one_refuses() {
        let (old, new) = (FakeBroker::bind().await, FakeBroker::bind().await);
        let client = client(vec![old.address.clone()]);
        let brokers = [(1, &old.address), (2, &new.address)];
        let serve = async {
            let mut any = old.welcome().await;
            any.tell_topic(&brokers, Some(("xaz", 1))).await;
            let mut first = old.welcome().await;
            answer_offset(&mut first, 6, -1).await;
            any.tell_topic(&brokers, Some(("xaz", 2))).await;
            let mut second = new.welcome().await;
            answer_offset(&mut second, 0, 77).await;
            (any, first, second)
        };
        let asked = [("xaz".to_owned(), 0), ("xaz".to_owned(), 9)];
        let (offsets, _guests) = tokio::join!(client.list_offsets(&asked, Position::ReadCommittedEnd), serve);
        let offsets = offsets.expect("offsets");
        assert_eq!((offsets[0].partition, offsets[0].offset.clone().expect("an offset")), (0, 77));
        let missing = offsets[1].offset.clone().expect_err("no such partition");
        assert_eq!(missing.kafka(), Some(KafkaError::UNKNOWN_TOPIC_OR_PARTITION));
    }

    #[tokio::test]
    async fn topics_come_with_their_leaders() {
        let broker = FakeBroker::bind().await;
        let client = client(vec![broker.address.clone()]);
        let serve = async {
            let mut any = broker.welcome().await;
            any.tell_topic(&[(1, &broker.address)], Some(("xaz", -1))).await;
            any
        };
        let (topics, _guest) = tokio::join!(client.topics(None), serve);
        let topics = topics.expect("topics");
        assert_eq!((topics[0].name.as_str(), topics[0].internal, topics[0].error), ("xaz", false, None));
        let partition = PartitionView { index: 0, leader: None, leader_epoch: 4, replicas: vec![], error: None };
        assert_eq!(topics[0].partitions, [partition]);
    }
}
