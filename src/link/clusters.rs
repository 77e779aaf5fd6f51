//! Watching a cluster: who its brokers are, and whether it answers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::client::{ClientError, ClientSettings, ClusterClient, ClusterView};
use crate::config::ClusterConfig;
use crate::control::{ClusterStatus, Code};
use crate::lifecycle::{Backoff, Drain};
use crate::net::{HostPort, SharedDial};

/// How often a cluster that answers is asked again: a new broker is allowed and reachable this much later at most.
const EVERY: Duration = Duration::from_secs(5);
/// First and longest wait after a failure.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// How long a broker that the cluster no longer names may still be dialled: one that restarts is not named meanwhile, and must be
/// reachable the moment it is back.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Brokers that a cluster advertises, or did a short time ago.
#[derive(Debug, Default)]
pub(super) struct Advertised(HashMap<HostPort, Instant>);

impl Advertised {
    /// Takes in a view; all brokers that may be dialled now.
    pub(super) fn learn(&mut self, view: &ClusterView, now: Instant) -> Vec<HostPort> {
        self.0.extend(view.brokers.iter().map(|broker| (broker.address.clone(), now)));
        self.0.retain(|_, seen| now.saturating_duration_since(*seen) <= REMEMBERED);
        self.0.keys().cloned().collect()
    }
}

/// One cluster, and what was last seen of it.
pub(super) struct Watched {
    config: ClusterConfig,
    client: Option<ClusterClient>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// `None` until it was asked once.
    reachable: Option<bool>,
    brokers: Option<u32>,
    cluster_id: Option<String>,
    error: Option<(Code, String)>,
}

impl Watched {
    /// A cluster reached over `dial`; without credentials (`security`) it is never asked.
    ///
    /// # Errors
    /// A TLS file that cannot be read.
    pub(super) fn new(config: &ClusterConfig, dial: SharedDial) -> Result<Self, ClientError> {
        let client = match &config.security {
            Some(security) => {
                let settings = ClientSettings::new(config.cluster.clone(), config.bootstrap.clone(), security.clone());
                Some(ClusterClient::new(settings, dial)?)
            }
            None => None,
        };
        Ok(Self { config: config.clone(), client, seen: Mutex::default() })
    }

    /// The client, where this side has credentials.
    pub(super) fn client(&self) -> Option<&ClusterClient> {
        self.client.as_ref()
    }

    /// What was last seen.
    pub(super) fn status(&self) -> ClusterStatus {
        let seen = self.lock();
        ClusterStatus {
            cluster: self.config.cluster.clone(),
            reachable: seen.reachable,
            brokers: seen.brokers,
            kafka_cluster_id: seen.cluster_id.clone(),
            error: seen.error.as_ref().map(|(_, text)| text.clone()),
        }
    }

    /// The last failure while the cluster does not answer.
    pub(super) fn failure(&self) -> Option<(Code, String)> {
        self.lock().error.clone()
    }

    /// Asks again and again until `drain` begins; each answer goes to `learned`.
    pub(super) async fn watch(self: Arc<Self>, drain: Drain, mut learned: impl FnMut(&ClusterView) + Send) {
        let Some(client) = self.client.clone() else { return };
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1);
        loop {
            let asked = tokio::select! {
                () = drain.draining() => return,
                asked = client.cluster() => asked,
            };
            let pause = match asked {
                Ok(view) => {
                    learned(&view);
                    self.answered(&view);
                    backoff.reset();
                    EVERY
                }
                Err(error) => {
                    self.failed(&error);
                    backoff.next(super::random())
                }
            };
            tokio::select! {
                () = drain.draining() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn answered(&self, view: &ClusterView) {
        let brokers = u32::try_from(view.brokers.len()).unwrap_or(u32::MAX);
        let mut seen = self.lock();
        if seen.reachable != Some(true) {
            info!(cluster = self.config.cluster, brokers, "cluster answers");
        }
        *seen =
            Seen { reachable: Some(true), brokers: Some(brokers), cluster_id: view.cluster_id.clone(), error: None };
    }

    fn failed(&self, error: &ClientError) {
        let text = error.to_string();
        let mut seen = self.lock();
        // One line a failure; the status keeps saying it.
        if seen.error.as_ref().is_none_or(|(_, known)| *known != text) {
            warn!(cluster = self.config.cluster, error = text, "cluster does not answer, trying again");
        }
        seen.reachable = Some(false);
        seen.error = Some((code(error), text));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.status().fmt(f)
    }
}

/// The code under which a client's failure is known to the operator.
fn code(error: &ClientError) -> Code {
    match error {
        ClientError::Authentication { .. } => Code::BROKER_SASL,
        ClientError::Tls(_) => Code::BROKER_TLS,
        ClientError::Bootstrap { tried, .. } => {
            tried.iter().map(code).find(|found| *found != Code::BOOTSTRAP_ANSWERS).unwrap_or(Code::BOOTSTRAP_ANSWERS)
        }
        _ => Code::BOOTSTRAP_ANSWERS,
    }
}
