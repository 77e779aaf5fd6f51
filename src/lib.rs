//! linkspan links two Kafka clusters in networks that cannot see each other.
//!
//! One process runs beside each cluster; the two are a pair of equal *endpoints* and together a *link*. Over a link go a tunnel
//! (many TCP streams over one authenticated session), broker discovery (clients here reach the brokers there) and replication.
//!
//! # Map
//! | room | what it is for | pure |
//! |---|---|---|
//! | [`cli`] | the operator's words, one file a command | |
//! | [`config`] | the operator's file to one typed [`config::Config`] | |
//! | [`link`] | the composition root: bind, spawn, report, drain | |
//! | [`tunnel`] | streams over a session over carriers; exit policy | `session` |
//! | [`kafka`] | framing, headers, APIs and versions, walkers, record batches | all |
//! | [`sasl`] | SASL conversations and who we are in them | |
//! | [`client`] | a small Kafka client over any [`net::Dial`] | |
//! | [`proxy`] | how local clients reach the peer's brokers | `rewrite` |
//! | [`replicator`] | copies topics of the peer's cluster into the local one | `decide` |
//! | [`control`] | status, metrics, the admin API | |
//! | [`net`] | what the domains meet in: dialling, streams, relaying | |
//! | [`lifecycle`] | drain, readiness, backoff | |
//!
//! Who may use whom stands in ARCHITECTURE.md and is kept by `tests::rooms_keep_to_their_neighbours` below.
#![forbid(unsafe_code)]

pub mod cli;
pub mod client;
pub mod config;
pub mod control;
pub mod kafka;
pub mod lifecycle;
pub mod link;
pub mod net;
pub mod proxy;
pub mod replicator;
pub mod sasl;
pub mod tunnel;
