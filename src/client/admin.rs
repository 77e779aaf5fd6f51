//! Changes to topics, and their configs.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::DescribeConfigsResourceResult;
use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::{
    ApiKey, CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest, DescribeConfigsRequest,
    IncrementalAlterConfigsRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::sleep;

use super::cluster::ADMIN_SLOT;
use super::{ClientError, ClusterClient, Connection, KafkaError, Rpc};

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// Partitions; -1 for the broker's default (2.4 and newer).
    pub partitions: i32,
    /// Replicas of each partition; -1 for the broker's default (2.4 and newer).
    pub replication_factor: i16,
    /// Configs that differ from the broker's defaults.
    pub configs: BTreeMap<String, String>,
}

/// Configs of one topic, or why there are none.
#[derive(Debug, Clone)]
pub struct TopicConfigs {
    /// The topic.
    pub topic: String,
    /// Its configs, defaults included.
    pub configs: Result<Vec<ConfigEntry>, ClientError>,
}

/// One config of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Its name.
    pub name: String,
    /// Its value; `None` where sensitive.
    pub value: Option<String>,
    /// Where the value comes from.
    pub source: ConfigSource,
    /// Whether it was not set on the topic itself.
    pub is_default: bool,
    /// Whether it cannot be changed.
    pub read_only: bool,
    /// Whether the broker keeps the value to itself.
    pub sensitive: bool,
}

/// Where a config's value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConfigSource {
    /// Set on the topic.
    Topic,
    /// Set on a broker while it ran.
    DynamicBroker,
    /// Set for all brokers while they ran.
    DynamicDefaultBroker,
    /// In a broker's file.
    StaticBroker,
    /// Kafka's default.
    Default,
    /// Another source, by Kafka's number.
    Other(i8),
}

/// One change of a topic's configs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AlterConfig {
    /// Sets a value.
    Set(String),
    /// Goes back to the default.
    Delete,
}

/// Which offset of a partition is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Position {
    /// The first offset still in the log.
    Earliest,
    /// The high watermark.
    Latest,
    /// The last stable offset: where a read_committed consumer ends.
    ReadCommittedEnd,
    /// The first record with this time or a later one, in ms since 1970; `None` offset where there is no such record.
    Timestamp(i64),
}

/// One partition's offset.
#[derive(Debug, Clone)]
pub struct PartitionOffset {
    /// Topic name.
    pub topic: String,
    /// Partition index.
    pub partition: i32,
    /// The offset; -1 where no record is at or after a timestamp.
    pub offset: Result<i64, ClientError>,
}

impl ClusterClient {
    /// Configs of topics, defaults included; one entry for each topic, in their order.
    ///
    /// # Errors
    /// As [`ClusterClient::cluster`].
    pub async fn describe_configs(&self, topics: &[String]) -> Result<Vec<TopicConfigs>, ClientError> {
        let mut described = Vec::with_capacity(topics.len());
        for some in topics.chunks(DESCRIBED_AT_ONCE) {
            let resources = some.iter().map(|topic| {
                DescribeConfigsResource::default()
                    .with_resource_type(TOPIC_RESOURCE)
                    .with_resource_name(text(topic))
                    .with_configuration_keys(None)
            });
            let request = DescribeConfigsRequest::default().with_resources(resources.collect());
            let answer = self.read(request).await?;
            let mut results: HashMap<String, _> =
                answer.results.into_iter().map(|result| (result.resource_name.to_string(), result)).collect();
            for topic in some {
                let configs = match results.remove(topic) {
                    None => Err(self.unanswered(ApiKey::DescribeConfigs, topic)),
                    Some(result) => check(ApiKey::DescribeConfigs, result.error_code, result.error_message)
                        .map(|()| result.configs.into_iter().map(config_entry).collect()),
                };
                described.push(TopicConfigs { topic: topic.clone(), configs });
            }
        }
        Ok(described)
    }

    /// Creates a topic.
    ///
    /// # Errors
    /// [`ClientError::Kafka`], with [`KafkaError::TOPIC_ALREADY_EXISTS`] where it exists.
    pub async fn create_topic(&self, topic: &NewTopic) -> Result<(), ClientError> {
        let configs = topic
            .configs
            .iter()
            .map(|(name, value)| CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value))));
        let new = CreatableTopic::default()
            .with_name(topic_name(&topic.name))
            .with_num_partitions(topic.partitions)
            .with_replication_factor(topic.replication_factor)
            .with_configs(configs.collect());
        let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(BROKER_WAIT_MS);
        self.change(&topic.name, request, |answer| {
            answer.topics.into_iter().map(|one| (one.name.to_string(), one.error_code, one.error_message)).collect()
        })
        .await
    }

    /// Raises the partition count of a topic to `count` in all.
    ///
    /// # Errors
    /// [`ClientError::Kafka`], with [`KafkaError::INVALID_PARTITIONS`] where it has as many or more.
    pub async fn create_partitions(&self, topic: &str, count: i32) -> Result<(), ClientError> {
        let more =
            CreatePartitionsTopic::default().with_name(topic_name(topic)).with_count(count).with_assignments(None);
        let request = CreatePartitionsRequest::default().with_topics(vec![more]).with_timeout_ms(BROKER_WAIT_MS);
        self.change(topic, request, |answer| {
            answer.results.into_iter().map(|one| (one.name.to_string(), one.error_code, one.error_message)).collect()
        })
        .await
    }

    /// Changes some configs of a topic and leaves the others.
    ///
    /// # Errors
    /// [`ClientError::Kafka`] with the broker's words; nothing was changed then.
    pub async fn incremental_alter_configs(
        &self,
        topic: &str,
        changes: &[(String, AlterConfig)],
    ) -> Result<(), ClientError> {
        let configs = changes.iter().map(|(name, change)| {
            let config = AlterableConfig::default().with_name(text(name));
            match change {
                AlterConfig::Set(value) => config.with_config_operation(0).with_value(Some(text(value))),
                AlterConfig::Delete => config.with_config_operation(1).with_value(None),
            }
        });
        let resource = AlterConfigsResource::default()
            .with_resource_type(TOPIC_RESOURCE)
            .with_resource_name(text(topic))
            .with_configs(configs.collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        self.change(topic, request, |answer| {
            let responses = answer.responses.into_iter();
            responses.map(|one| (one.resource_name.to_string(), one.error_code, one.error_message)).collect()
        })
        .await
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// [`ClientError::Kafka`].
    pub async fn delete_topic(&self, topic: &str) -> Result<(), ClientError> {
        // Up to v5 topics stand in one list, from v6 on in the other; each version writes its own.
        let request = DeleteTopicsRequest::default().with_timeout_ms(BROKER_WAIT_MS);
        let modern = request.clone().with_topics(vec![DeleteTopicState::default().with_name(Some(topic_name(topic)))]);
        let request = |version: i16| {
            if version >= 6 { modern.clone() } else { request.clone().with_topic_names(vec![topic_name(topic)]) }
        };
        self.change_with(topic, request, |answer| {
            let responses = answer.responses.into_iter();
            responses
                .map(|one| {
                    (one.name.map_or_else(String::new, |name| name.to_string()), one.error_code, one.error_message)
                })
                .collect()
        })
        .await
    }

    async fn change<R: Rpc + Clone>(
        &self,
        topic: &str,
        request: R,
        results: impl Fn(R::Response) -> Vec<(String, i16, Option<StrBytes>)> + Send,
    ) -> Result<(), ClientError> {
        self.change_with(topic, |_| request.clone(), results).await
    }

    /// Asks the controller to change one topic. Refusals of a broker that is not the controller are followed; nothing else is repeated,
    /// because an unknown outcome is the caller's to look into.
    async fn change_with<R: Rpc>(
        &self,
        topic: &str,
        request: impl Fn(i16) -> R + Send,
        results: impl Fn(R::Response) -> Vec<(String, i16, Option<StrBytes>)> + Send,
    ) -> Result<(), ClientError> {
        for attempt in 1.. {
            let connection = self.controller().await?;
            let version = connection.needed(R::API)?;
            let answer = connection.call(request(version), version, connection.timeout_with(BROKER_WAIT_MS)).await?;
            let result = results(answer).into_iter().find(|(name, ..)| name == topic);
            let (_, code, message) = result.ok_or_else(|| self.unanswered(R::API, topic))?;
            match check(R::API, code, message) {
                Err(error) if error.kafka() == Some(KafkaError::NOT_CONTROLLER) && attempt < ATTEMPTS => {
                    sleep(BETWEEN_ATTEMPTS).await;
                    self.cluster().await?;
                }
                outcome => return outcome,
            }
        }
        unreachable!("the last attempt returns")
    }

    /// The controller, or with KRaft the broker that is named as one; any broker forwards where that one cannot be reached.
    pub(super) async fn controller(&self) -> Result<Connection, ClientError> {
        let view = match self.view() {
            Some(view) => view,
            None => self.cluster().await?.into(),
        };
        if let Some(node_id) = view.controller
            && let Ok(connection) = self.connection(node_id, ADMIN_SLOT).await
        {
            return Ok(connection);
        }
        self.any_connection().await
    }

    fn unanswered(&self, api: ApiKey, topic: &str) -> ClientError {
        ClientError::Kafka {
            api,
            error: KafkaError::UNKNOWN_SERVER_ERROR,
            message: Some(format!("cluster {} said nothing of topic {topic}", self.name())),
        }
    }
}

/// Kafka's number of topics among config resources.
const TOPIC_RESOURCE: i8 = 2;
/// Topics in one DescribeConfigs request: some 10 KiB of answer each.
const DESCRIBED_AT_ONCE: usize = 250;
/// How long the controller may take to have a change known.
const BROKER_WAIT_MS: i32 = 15_000;
/// How often a refusal is followed that a newer view cures.
pub(super) const ATTEMPTS: u32 = 4;
/// How long leaders and controllers are given to be known everywhere.
pub(super) const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(250);

pub(super) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(super) fn check(api: ApiKey, code: i16, message: Option<StrBytes>) -> Result<(), ClientError> {
    let message = message.filter(|said| !said.is_empty()).map(|said| said.to_string());
    KafkaError::check(code).map_err(|error| ClientError::Kafka { api, error, message })
}

fn config_entry(config: DescribeConfigsResourceResult) -> ConfigEntry {
    let source = match config.config_source {
        1 => ConfigSource::Topic,
        2 => ConfigSource::DynamicBroker,
        3 => ConfigSource::DynamicDefaultBroker,
        4 => ConfigSource::StaticBroker,
        5 => ConfigSource::Default,
        other => ConfigSource::Other(other),
    };
    ConfigEntry {
        name: config.name.to_string(),
        value: config.value.map(|value| value.to_string()),
        source,
        is_default: source != ConfigSource::Topic,
        read_only: config.read_only,
        sensitive: config.is_sensitive,
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::CreateTopicsResponse;
    use kafka_protocol::messages::create_topics_response::CreatableTopicResult;

    use super::*;
    use crate::client::fake_broker::{FakeBroker, Guest, client};

    fn topic() -> NewTopic {
        let configs = [("retention.ms".to_owned(), "1000".to_owned())].into();
        NewTopic { name: "xaz".into(), partitions: 3, replication_factor: -1, configs }
    }

    async fn answer_create(guest: &mut Guest, name: &str, code: i16, said: &'static str) {
        let asked = guest.expect(ApiKey::CreateTopics).await;
        let request: CreateTopicsRequest = asked.decode();
        let new = &request.topics[0];
        assert_eq!((new.name.as_str(), new.num_partitions, new.replication_factor), ("xaz", 3, -1));
        assert_eq!((new.configs[0].name.as_str(), new.configs[0].value.as_deref()), ("retention.ms", Some("1000")));
        assert!(!request.validate_only);
        let result = CreatableTopicResult::default()
            .with_name(topic_name(name))
            .with_error_code(code)
            .with_error_message(Some(StrBytes::from_static_str(said)));
        guest.answer(&asked, &CreateTopicsResponse::default().with_topics(vec![result])).await;
    }

    #[tokio::test]
    async fn the_controller_is_followed_and_an_existing_topic_is_told_apart() {
        let broker = FakeBroker::bind().await;
        let client = client(vec![broker.address.clone()]);
        let serve = async {
            let mut any = broker.welcome().await;
            any.tell_brokers(&[(2, &broker.address)]).await;
            let mut controller = broker.welcome().await;
            answer_create(&mut controller, "xaz", 41, "").await;
            any.tell_brokers(&[(2, &broker.address)]).await;
            answer_create(&mut controller, "xaz", 36, "Topic 'xaz' already exists.").await;
            (any, controller)
        };
        let (created, _guests) = tokio::join!(async { client.create_topic(&topic()).await }, serve);
        let error = created.expect_err("an error");
        assert_eq!(error.kafka(), Some(KafkaError::TOPIC_ALREADY_EXISTS));
        assert_eq!(error.to_string(), "CreateTopics: TOPIC_ALREADY_EXISTS (36): Topic 'xaz' already exists.");
    }

    #[tokio::test]
    async fn an_answer_about_another_topic_is_no_success() {
        let broker = FakeBroker::bind().await;
        let client = client(vec![broker.address.clone()]);
        let serve = async {
            let mut any = broker.welcome().await;
            any.tell_brokers(&[(2, &broker.address)]).await;
            let mut controller = broker.welcome().await;
            answer_create(&mut controller, "other", 0, "").await;
            (any, controller)
        };
        let (created, _guests) = tokio::join!(async { client.create_topic(&topic()).await }, serve);
        assert!(created.is_err());
    }
}
