//! What a flow needs of a cluster, so that its logic runs against a fake as well as against the client.

use std::time::Duration;

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::{ApiKey, DescribeConfigsRequest, DescribeProducersRequest, InitProducerIdRequest};
use kafka_protocol::protocol::StrBytes;

use crate::client::{
    Acks, Acl, AlterConfig, ClientError, ClusterClient, Commit, CommitOutcome, FetchRequest, FetchedPartition,
    GroupOffsets, Groups, KafkaError, NewTopic, PartitionBatch, PartitionOffset, Position, ProduceOutcome,
    TopicConfigs, TopicView,
};
use crate::net::BoxFuture;

/// An answer of a cluster.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, ClientError>>;

/// What came of each part of a change.
pub type Outcomes = Vec<Result<(), ClientError>>;

/// Who wrote to a partition last, as its leader remembers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerState {
    /// Producer id.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of its last record there, -1 after a marker alone.
    pub last_sequence: i32,
    /// The time by which the leader counts how long to remember it, in ms since 1970: the newest one of its last batch.
    pub last_timestamp: i64,
}

/// One cluster, as a flow uses it. Meaning, bounds and errors are those of [`ClusterClient`]'s methods of the same names.
pub trait Cluster: Send + Sync + 'static {
    /// The operator's name of it.
    fn name(&self) -> &str;
    /// How long its brokers remember a producer, in ms: `producer.id.expiration.ms`; `None` where they do not say.
    fn producer_memory_ms(&self) -> Answer<'_, Option<i64>>;
    /// Topics by name, or all.
    fn topics(&self, names: Option<Vec<String>>) -> Answer<'_, Vec<TopicView>>;
    /// Configs of topics, defaults included.
    fn describe_configs(&self, topics: Vec<String>) -> Answer<'_, Vec<TopicConfigs>>;
    /// Creates a topic.
    fn create_topic(&self, topic: NewTopic) -> Answer<'_, ()>;
    /// Raises the number of partitions to `count`.
    fn create_partitions(&self, topic: String, count: i32) -> Answer<'_, ()>;
    /// Changes some configs of a topic.
    fn alter_configs(&self, topic: String, changes: Vec<(String, AlterConfig)>) -> Answer<'_, ()>;
    /// Deletes a topic with all its records.
    fn delete_topic(&self, topic: String) -> Answer<'_, ()>;
    /// All ACLs of topics.
    fn topic_acls(&self) -> Answer<'_, Vec<Acl>>;
    /// Creates ACLs; one outcome for each, in their order.
    fn create_acls(&self, acls: Vec<Acl>) -> Answer<'_, Outcomes>;
    /// Deletes exactly these ACLs; one outcome for each, in their order.
    fn delete_acls(&self, acls: Vec<Acl>) -> Answer<'_, Outcomes>;
    /// The cluster's own identifier, as far as it was learned.
    fn cluster_id(&self) -> Option<String>;
    /// One offset of each partition, in their order.
    fn list_offsets(&self, partitions: Vec<(String, i32)>, position: Position) -> Answer<'_, Vec<PartitionOffset>>;
    /// A producer id that nobody used, and its epoch.
    fn producer_id(&self) -> Answer<'_, (i64, i16)>;
    /// Producers that the leader `node` remembers for one partition.
    fn producers(&self, node: i32, topic: String, partition: i32) -> Answer<'_, Vec<ProducerState>>;
    /// Fetches from a broker; fetches of different slots do not wait for each other.
    fn fetch(&self, node: i32, slot: u16, request: FetchRequest) -> Answer<'_, Vec<FetchedPartition>>;
    /// Produces to a broker with acks=all; produces of different slots do not wait for each other.
    fn produce(&self, node: i32, slot: u16, batches: Vec<PartitionBatch>) -> Answer<'_, Vec<ProduceOutcome>>;
    /// All groups.
    fn groups(&self) -> Answer<'_, Groups>;
    /// Node ids of groups' coordinators, in their order.
    fn group_coordinators(&self, groups: Vec<String>) -> Answer<'_, Vec<Result<i32, ClientError>>>;
    /// What groups of one coordinator have committed, in their order.
    fn group_offsets(&self, coordinator: i32, groups: Vec<String>) -> Answer<'_, Vec<GroupOffsets>>;
    /// Commits for a group without members.
    fn commit_group(&self, coordinator: i32, group: String, commits: Vec<Commit>) -> Answer<'_, Vec<CommitOutcome>>;
}

/// Slots from here on are for appends and questions, so that none waits behind a long poll.
const APPEND_SLOTS: u16 = 100;
/// How long a broker may wait for its in-sync replicas, in ms. Kafka's own `request.timeout.ms` default.
const PRODUCE_TIMEOUT_MS: i32 = 30_000;
/// Kafka's number of brokers among config resources.
const BROKER_RESOURCE: i8 = 4;
/// The broker's config.
const PRODUCER_MEMORY: &str = "producer.id.expiration.ms";
/// Deadline of the small questions asked here.
const QUESTION: Duration = Duration::from_secs(30);

impl Cluster for ClusterClient {
    fn name(&self) -> &str {
        Self::name(self)
    }

    fn producer_memory_ms(&self) -> Answer<'_, Option<i64>> {
        Box::pin(async move {
            const API: ApiKey = ApiKey::DescribeConfigs;
            let connection = self.any_connection().await?;
            let version = connection.version(API).ok_or_else(|| unsupported(&connection, API))?;
            let broker = DescribeConfigsResource::default()
                .with_resource_type(BROKER_RESOURCE)
                .with_resource_name(StrBytes::from_string(connection.node_id().to_string()))
                .with_configuration_keys(Some(vec![StrBytes::from_static_str(PRODUCER_MEMORY)]));
            let request = DescribeConfigsRequest::default().with_resources(vec![broker]);
            let answer = connection.call(request, version, QUESTION).await?;
            let configs = answer.results.iter().flat_map(|result| &result.configs);
            let value =
                configs.filter(|config| config.name.as_str() == PRODUCER_MEMORY).find_map(|one| one.value.clone());
            Ok(value.and_then(|value| value.parse().ok()))
        })
    }

    fn topics(&self, names: Option<Vec<String>>) -> Answer<'_, Vec<TopicView>> {
        Box::pin(async move { Self::topics(self, names.as_deref()).await })
    }

    fn describe_configs(&self, topics: Vec<String>) -> Answer<'_, Vec<TopicConfigs>> {
        Box::pin(async move { Self::describe_configs(self, &topics).await })
    }

    fn create_topic(&self, topic: NewTopic) -> Answer<'_, ()> {
        Box::pin(async move { Self::create_topic(self, &topic).await })
    }

    fn create_partitions(&self, topic: String, count: i32) -> Answer<'_, ()> {
        Box::pin(async move { Self::create_partitions(self, &topic, count).await })
    }

    fn alter_configs(&self, topic: String, changes: Vec<(String, AlterConfig)>) -> Answer<'_, ()> {
        Box::pin(async move { self.incremental_alter_configs(&topic, &changes).await })
    }

    fn delete_topic(&self, topic: String) -> Answer<'_, ()> {
        Box::pin(async move { Self::delete_topic(self, &topic).await })
    }

    fn topic_acls(&self) -> Answer<'_, Vec<Acl>> {
        Box::pin(async move { Self::topic_acls(self).await })
    }

    fn create_acls(&self, acls: Vec<Acl>) -> Answer<'_, Outcomes> {
        Box::pin(async move { Self::create_acls(self, &acls).await })
    }

    fn delete_acls(&self, acls: Vec<Acl>) -> Answer<'_, Outcomes> {
        Box::pin(async move { Self::delete_acls(self, &acls).await })
    }

    fn cluster_id(&self) -> Option<String> {
        Self::cluster_id(self)
    }

    fn list_offsets(&self, partitions: Vec<(String, i32)>, position: Position) -> Answer<'_, Vec<PartitionOffset>> {
        Box::pin(async move { Self::list_offsets(self, &partitions, position).await })
    }

    fn producer_id(&self) -> Answer<'_, (i64, i16)> {
        Box::pin(async move {
            const API: ApiKey = ApiKey::InitProducerId;
            let connection = self.any_connection().await?;
            let version = connection.version(API).ok_or_else(|| unsupported(&connection, API))?;
            let request =
                InitProducerIdRequest::default().with_transactional_id(None).with_transaction_timeout_ms(60_000);
            let answer = connection.call(request, version, QUESTION).await?;
            check(API, answer.error_code, None)?;
            Ok((answer.producer_id.0, answer.producer_epoch))
        })
    }

    fn producers(&self, node: i32, topic: String, partition: i32) -> Answer<'_, Vec<ProducerState>> {
        Box::pin(async move {
            const API: ApiKey = ApiKey::DescribeProducers;
            let connection = self.connection(node, APPEND_SLOTS).await?;
            let version = connection.version(API).ok_or_else(|| unsupported(&connection, API))?;
            let topic = TopicRequest::default()
                .with_name(StrBytes::from_string(topic).into())
                .with_partition_indexes(vec![partition]);
            let request = DescribeProducersRequest::default().with_topics(vec![topic]);
            let answer = connection.call(request, version, QUESTION).await?;
            let mut out = Vec::new();
            for part in answer.topics.iter().flat_map(|topic| &topic.partitions) {
                check(API, part.error_code, part.error_message.as_ref())?;
                for state in part.active_producers.iter() {
                    let Ok(epoch) = i16::try_from(state.producer_epoch) else { continue };
                    let (producer_id, last_sequence) = (state.producer_id.0, state.last_sequence);
                    out.push(ProducerState { producer_id, epoch, last_sequence, last_timestamp: state.last_timestamp });
                }
            }
            Ok(out)
        })
    }

    fn fetch(&self, node: i32, slot: u16, request: FetchRequest) -> Answer<'_, Vec<FetchedPartition>> {
        Box::pin(async move { self.connection(node, slot).await?.fetch(request).await })
    }

    fn produce(&self, node: i32, slot: u16, batches: Vec<PartitionBatch>) -> Answer<'_, Vec<ProduceOutcome>> {
        Box::pin(async move {
            let connection = self.connection(node, APPEND_SLOTS + 1 + slot).await?;
            connection.produce(Acks::All, PRODUCE_TIMEOUT_MS, batches).await
        })
    }

    fn groups(&self) -> Answer<'_, Groups> {
        Box::pin(self.list_groups())
    }

    fn group_coordinators(&self, groups: Vec<String>) -> Answer<'_, Vec<Result<i32, ClientError>>> {
        Box::pin(async move { Self::group_coordinators(self, &groups).await })
    }

    fn group_offsets(&self, coordinator: i32, groups: Vec<String>) -> Answer<'_, Vec<GroupOffsets>> {
        Box::pin(async move { Self::group_offsets(self, coordinator, &groups).await })
    }

    fn commit_group(&self, coordinator: i32, group: String, commits: Vec<Commit>) -> Answer<'_, Vec<CommitOutcome>> {
        Box::pin(async move { self.commit_group_offsets(coordinator, &group, &commits).await })
    }
}

fn check(api: ApiKey, code: i16, message: Option<&StrBytes>) -> Result<(), ClientError> {
    let message = message.map(|message| message.to_string());
    KafkaError::check(code).map_err(|error| ClientError::Kafka { api, error, message })
}

fn unsupported(connection: &crate::client::Connection, api: ApiKey) -> ClientError {
    let (needed, has) = ("in any version".to_owned(), "no version".to_owned());
    ClientError::Unsupported { broker: connection.broker().clone(), api, needed, has }
}
