//! Looking at the world for `check`: one handshake with the peer, one visit to each broker of a cluster.
//!
//! Probes find facts and never judge them. Each bounds its own waiting and the number of connections it makes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::stream::{self, StreamExt as _};

use crate::client::{BrokerView, ClientError, ClientSettings, ClusterClient};
use crate::config::{ClusterConfig, Security, TunnelConfig};
use crate::control::facts::{Attempt, BrokerFact, ClusterFound, ClusterProbe, Failure, Handshake, Step};
use crate::net::tls::TlsError;
use crate::net::{BoxFuture, BoxStream, Dial, DialError, HostPort, SharedDial};
use crate::tunnel::carrier::{self, CarrierError};

/// One broker's dial, TLS, SASL and first answer.
const BROKER_DEADLINE: Duration = Duration::from_secs(4);
/// One handshake with the peer, connection included.
const PEER_DEADLINE: Duration = Duration::from_secs(8);
/// A whole visit of a cluster, however many brokers it has.
const VISIT_DEADLINE: Duration = Duration::from_secs(10);
/// Brokers visited at once.
const AT_ONCE: usize = 16;
/// Brokers visited in all: of larger clusters the first by node id.
const MAX_BROKERS: usize = 256;
/// Bootstrap servers tried in all.
const MAX_BOOTSTRAP: usize = 16;

/// Proves both sides to each other over a connection of its own, and closes it.
///
/// Only for an endpoint that does not run: a running one knows more.
pub async fn handshake(config: &TunnelConfig, link: &str, address: &str) -> Handshake {
    let begun = Instant::now();
    match tokio::time::timeout(PEER_DEADLINE, carrier::dial(config, link)).await {
        Ok(Ok(_)) => Handshake::Proved { took_us: micros(begun) },
        Ok(Err(error)) => named(&error),
        Err(_) => Handshake::Unreachable(Failure {
            step: Step::Timeout,
            detail: format!("{address} did not finish the handshake within {} s", PEER_DEADLINE.as_secs()),
        }),
    }
}

/// Which step of the handshake an error is about.
fn named(error: &CarrierError) -> Handshake {
    let detail = error.to_string();
    let unreachable = |step| Handshake::Unreachable(Failure { step, detail: detail.clone() });
    match error {
        CarrierError::Refused { .. } => unreachable(Step::Refused),
        CarrierError::ConnectTimeout { .. } => unreachable(Step::Timeout),
        CarrierError::Unreachable { .. } => unreachable(Step::Route),
        CarrierError::UnknownLink { .. } => Handshake::OtherLink(detail),
        CarrierError::NotLinkspan { .. }
        | CarrierError::Version { .. }
        | CarrierError::TransportMismatch { .. }
        | CarrierError::HandshakeTimeout { .. }
        | CarrierError::HandshakeTooLarge { .. }
        | CarrierError::HandshakeCut { .. } => Handshake::OtherTransport(detail),
        _ => Handshake::NotProved(detail),
    }
}

/// Visits a cluster over a dialler, as the replicator would.
#[derive(Debug)]
pub struct ClusterVisit {
    config: ClusterConfig,
    dial: SharedDial,
}

impl ClusterVisit {
    /// A visit to `config` over `dial`. Without `security` this side has no credentials, so only connections are tried.
    #[must_use]
    pub const fn new(config: ClusterConfig, dial: SharedDial) -> Self {
        Self { config, dial }
    }

    async fn visit(&self) -> ClusterFound {
        let until = Instant::now() + VISIT_DEADLINE;
        let mut found = ClusterFound::default();
        let Some(security) = &self.config.security else {
            let tries = self.bootstrap().map(|target| Box::pin(self.connect(target)) as BoxFuture<'_, _>).collect();
            found.bootstrap = side_by_side(tries).await;
            return found;
        };
        found.tls = security.tls.is_some();
        found.sasl = security.sasl.as_ref().map(|sasl| sasl.mechanism().to_owned());
        let tries = self.bootstrap().map(|target| Box::pin(self.ask(target, security)) as BoxFuture<'_, _>).collect();
        let tries: Vec<(Attempt, Option<Answered>)> = side_by_side(tries).await;
        let mut answered = None;
        for (attempt, answer) in tries {
            found.bootstrap.push(attempt);
            answered = answered.or(answer);
        }
        if let Some((client, id, mut brokers)) = answered {
            found.kafka_cluster_id = id;
            brokers.sort_by_key(|broker| broker.node_id);
            brokers.truncate(MAX_BROKERS);
            let visits =
                brokers.iter().map(|broker| Box::pin(reach(&client, broker, until)) as BoxFuture<'_, _>).collect();
            found.brokers = Some(side_by_side(visits).await);
        }
        found
    }

    fn bootstrap(&self) -> impl Iterator<Item = &HostPort> {
        self.config.bootstrap.iter().take(MAX_BOOTSTRAP)
    }

    /// Only a connection.
    async fn connect(&self, target: &HostPort) -> Attempt {
        let begun = Instant::now();
        let result = match tokio::time::timeout(BROKER_DEADLINE, self.dial.dial(target)).await {
            Ok(Ok(_stream)) => Ok(micros(begun)),
            Ok(Err(error)) => Err(dial_failure(&error)),
            Err(_) => Err(late(target, BROKER_DEADLINE)),
        };
        Attempt { target: target.to_string(), result }
    }

    /// Asks one bootstrap server for the cluster.
    async fn ask(&self, target: &HostPort, security: &Security) -> (Attempt, Option<Answered>) {
        let begun = Instant::now();
        let asked = async {
            let mut settings = ClientSettings::new(self.config.cluster.clone(), vec![target.clone()], security.clone());
            "linkspan-check".clone_into(&mut settings.client_id);
            settings.handshake_timeout = BROKER_DEADLINE;
            settings.request_timeout = BROKER_DEADLINE;
            let client = ClusterClient::new(settings, Arc::clone(&self.dial))?;
            let view = client.cluster().await?;
            Ok::<_, ClientError>((client, view))
        };
        let (result, answered) = match tokio::time::timeout(BROKER_DEADLINE, asked).await {
            Ok(Ok((client, view))) => (Ok(micros(begun)), Some((client, view.cluster_id, view.brokers))),
            Ok(Err(error)) => (Err(client_failure(&error)), None),
            Err(_) => (Err(late(target, BROKER_DEADLINE)), None),
        };
        (Attempt { target: target.to_string(), result }, answered)
    }
}

/// A dialler that knows some names' addresses by itself, as `[expose] resolve` gives them.
#[must_use]
pub fn with_addresses(dial: SharedDial, addresses: BTreeMap<String, Vec<IpAddr>>) -> SharedDial {
    if addresses.is_empty() { dial } else { Arc::new(Fixed { dial, addresses }) }
}

struct Fixed {
    dial: SharedDial,
    addresses: BTreeMap<String, Vec<IpAddr>>,
}

impl Dial for Fixed {
    fn dial<'a>(&'a self, target: &'a HostPort) -> BoxFuture<'a, Result<BoxStream, DialError>> {
        Box::pin(async move {
            let mut last = None;
            for address in self.addresses.get(target.host()).into_iter().flatten() {
                match self.dial.dial(&SocketAddr::new(*address, target.port()).into()).await {
                    Ok(stream) => return Ok(stream),
                    Err(error) => last = Some(error),
                }
            }
            match last {
                Some(error) => Err(error),
                None => self.dial.dial(target).await,
            }
        })
    }
}

/// A client that has an answer, with the cluster's id and brokers.
type Answered = (ClusterClient, Option<String>, Vec<BrokerView>);

impl ClusterProbe for ClusterVisit {
    fn probe(&self) -> BoxFuture<'_, ClusterFound> {
        Box::pin(self.visit())
    }
}

/// Awaits all, a bounded number at once, and keeps their order.
async fn side_by_side<T>(futures: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    stream::iter(futures).buffered(AT_ONCE).collect().await
}

async fn reach(client: &ClusterClient, broker: &BrokerView, until: Instant) -> BrokerFact {
    let begun = Instant::now();
    let left = until.saturating_duration_since(begun).min(BROKER_DEADLINE);
    let result = match tokio::time::timeout(left, client.connection(broker.node_id, 0)).await {
        Ok(Ok(_connection)) => Ok(micros(begun)),
        Ok(Err(error)) => Err(client_failure(&error)),
        Err(_) => Err(late(&broker.address, left)),
    };
    BrokerFact { id: broker.node_id, attempt: Attempt { target: broker.address.to_string(), result } }
}

fn late(target: &HostPort, after: Duration) -> Failure {
    Failure { step: Step::Timeout, detail: format!("{target} did not answer within {:.1} s", after.as_secs_f64()) }
}

/// The step that a client's error is about. Of several bootstrap servers the one that came furthest counts.
fn client_failure(error: &ClientError) -> Failure {
    match error {
        ClientError::Dial(error) => dial_failure(error),
        ClientError::Bootstrap { tried, .. } if !tried.is_empty() => {
            let furthest = tried.iter().map(client_failure).max_by_key(|failure| failure.step);
            furthest.expect("at least one was tried")
        }
        _ => {
            let step = match error {
                ClientError::Tls(TlsError::File { .. } | TlsError::Handshake { .. }) => Step::Tls,
                ClientError::Authentication { .. } => Step::Sasl,
                ClientError::Timeout { .. } => Step::Timeout,
                _ => Step::Kafka,
            };
            Failure { step, detail: error.to_string() }
        }
    }
}

fn dial_failure(error: &DialError) -> Failure {
    let step = match error {
        DialError::NotAllowed { .. } | DialError::Limit { .. } => Step::Allow,
        DialError::NoSuchName { .. } => Step::Name,
        DialError::Refused { .. } => Step::Refused,
        DialError::Unreachable { .. } => Step::Route,
        DialError::TimedOut { .. } => Step::Timeout,
        DialError::TunnelDown { .. } => Step::Tunnel,
    };
    Failure { step, detail: error.to_string() }
}

fn micros(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
