//! A small Kafka client over any [`crate::net::Dial`]: the replicator's hands on both clusters.
//!
//! # What is here
//! * [`ClusterClient`]: one cluster. Bootstrap, brokers, a pool of connections, metadata and admin calls.
//! * [`Connection`]: one broker. Pipelined requests, answers in order, Produce and Fetch with raw record batches.
//!
//! # Rules kept here
//! * A broker is not trusted with our memory: every answer is walked against a table of shapes (`shape`) before the
//!   kafka-protocol crate, which allocates by counts from the wire, sees it. An API without a shape cannot be called.
//! * A frame's buffer grows with the bytes that came, not with the length that was claimed, up to a cap.
//! * Nothing waits for ever: dialling, TLS, authentication and each request have deadlines. Answers come in order, so one
//!   that is overdue condemns its connection; everybody on it is told the same cause.
//! * Errors name the culprit ([`ClientError`]); a password never stands in one.
//! * Brokers are dialled by the names they advertise. Only bootstrap servers come from the operator.

mod acls;
mod admin;
mod cluster;
mod connection;
mod driver;
mod error;
#[cfg(test)]
mod fake_broker;
mod fetch;
mod fuzz;
mod groups;
mod handshake;
mod metadata;
mod order;
mod primitives;
mod produce;
mod rpc;
mod shape;
mod shapes;
mod view;
mod wire;

pub use acls::{Acl, AclOperation, AclPattern};
pub use admin::{AlterConfig, ConfigEntry, ConfigSource, NewTopic, PartitionOffset, Position, TopicConfigs};
pub use cluster::{ADMIN_SLOT, ClientSettings, ClientSnapshot, ClusterClient};
pub use connection::Connection;
pub use error::{ClientError, KafkaError};
pub use fetch::{AbortedTransaction, FetchPartition, FetchRequest, FetchedPartition, Isolation, MAX_FETCH_BYTES};
#[doc(hidden)]
pub use fuzz::fuzz_answer;
pub use groups::{Commit, CommitOutcome, Committed, GroupOffsets, Groups, ListedGroup};
pub use kafka_protocol::messages::ApiKey;
pub use produce::{Acks, MAX_RECORD_ERRORS, PartitionBatch, ProduceOutcome, RecordError};
pub use rpc::Rpc;
pub use view::{BrokerView, ClusterView, LeaderHint, PartitionView, TopicId, TopicView};
