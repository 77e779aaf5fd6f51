//! Where streams leave the tunnel: each offer is held against the policy, resolved, dialled and relayed.
//!
//! Rules kept here: a refused target costs no look-up and no dial; the entry hears the very error that the dial met; dials and
//! streams in progress are bounded; a stream whose target is no longer allowed is cut at once, and no other.

mod resolve;
mod status;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, warn};

use self::resolve::Names;
use self::status::Counters;
pub use self::status::{ExitStatus, ExitStatusReader, RefusedTarget};
use super::Offer;
use super::policy::{Allowed, Policy, RuleError, may_dial};
use crate::config::{ExposeConfig, TunnelLimits};
use crate::lifecycle::Drain;
use crate::net::{DialError, HostPort, Stream, copy, tcp};

/// Longest time from an offer to its stream: waiting for a place, the look-up, and all addresses together.
const DEADLINE: Duration = Duration::from_secs(10);
/// Dials in progress at once; more wait for a place.
const DIALS: usize = 256;
/// Addresses of one name that are tried.
const ADDRESSES: usize = 8;

/// The exit of one endpoint.
pub struct Exit {
    shared: Arc<Shared>,
    streams: u32,
}

struct Shared {
    policy: Arc<Policy>,
    names: Names,
    counters: Counters,
    dials: Semaphore,
    deadline: Duration,
}

/// Changes the rules of an exit that runs.
#[derive(Clone)]
pub struct ExitRules(Arc<Shared>);

impl ExitRules {
    /// Puts `expose` in the place of the present rules; streams to targets that are no longer allowed are reset.
    ///
    /// # Errors
    /// [`ExitError::Rules`]; nothing is changed then.
    pub fn replace(&self, expose: &ExposeConfig) -> Result<(), ExitError> {
        Policy::new(&expose.allow, &[]).map_err(ExitError::Rules)?;
        // Setting the rules has each stream looked at again: the addresses must be there by then.
        self.0.names.set_fixed(&expose.resolve);
        self.0.policy.set_written(&expose.allow).map_err(ExitError::Rules)
    }
}

impl std::fmt::Debug for ExitRules {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.policy.fmt(f)
    }
}

/// Why an exit cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExitError {
    /// Rules of `[expose] allow` that are none, all of them.
    #[error("[expose] allow: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Rules(Vec<RuleError>),
}

impl Exit {
    /// Reads the rules and the system's resolver configuration, once. A resolver that cannot be set up is no error: names
    /// outside `/etc/hosts` and `[expose.resolve]` then fail one by one, and say why.
    ///
    /// # Errors
    /// [`ExitError::Rules`].
    pub fn new(expose: &ExposeConfig, local_bootstrap: &[HostPort], limits: &TunnelLimits) -> Result<Self, ExitError> {
        let policy = Arc::new(Policy::new(&expose.allow, local_bootstrap).map_err(ExitError::Rules)?);
        let shared = Shared {
            policy,
            names: Names::new(&expose.resolve),
            counters: Counters::default(),
            dials: Semaphore::new(DIALS),
            deadline: DEADLINE,
        };
        Ok(Self { shared: Arc::new(shared), streams: limits.streams })
    }

    /// The rules, for telling them what the cluster advertises.
    #[must_use]
    pub fn policy(&self) -> Arc<Policy> {
        Arc::clone(&self.shared.policy)
    }

    /// The rules, for changing what the operator wrote.
    #[must_use]
    pub fn rules(&self) -> ExitRules {
        ExitRules(Arc::clone(&self.shared))
    }

    /// A reader of its counters, for the status.
    #[must_use]
    pub fn status(&self) -> ExitStatusReader {
        let shared = Arc::clone(&self.shared);
        ExitStatusReader::new(move || shared.counters.snapshot())
    }

    /// Answers offers until `drain` begins or the channel closes; open streams live on in `drain`.
    pub async fn run(self, mut offers: mpsc::Receiver<Box<dyn Offer>>, drain: Drain) {
        let places = Arc::new(Semaphore::new(self.streams as usize));
        loop {
            let offer = tokio::select! {
                biased;
                () = drain.draining() => return,
                offer = offers.recv() => offer,
            };
            let Some(offer) = offer else { return };
            let target = offer.target().clone();
            let changes = self.shared.policy.changes();
            let Some(why) = self.shared.policy.decide(&target) else {
                self.shared.refuse(offer, &DialError::NotAllowed { target });
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                let detail = format!("{} streams are open at the exit, of {}", self.streams, self.streams);
                self.shared.refuse(offer, &DialError::Limit { target, detail });
                continue;
            };
            let shared = Arc::clone(&self.shared);
            drain.spawn(async move {
                shared.serve(offer, &target, why, changes).await;
                drop(place);
            });
        }
    }
}

impl Shared {
    async fn serve(&self, offer: Box<dyn Offer>, target: &HostPort, why: Allowed, mut changes: watch::Receiver<u64>) {
        let socket = match self.dial(target, why).await {
            Ok(socket) => socket,
            Err(error) => return self.refuse(offer, &error),
        };
        let address = socket.peer_addr().map(|address| address.ip());
        let allowed = || address.as_ref().is_ok_and(|address| self.still_allows(target, *address));
        // The rules may have changed during the dial.
        if changes.has_changed().is_ok_and(|changed| changed) && !allowed() {
            return self.refuse(offer, &DialError::NotAllowed { target: target.clone() });
        }
        let _open = self.counters.opened();
        let mut upstream = tcp::TcpConn::new(socket);
        let mut stream = offer.accept();
        let forbidden = async {
            while changes.changed().await.is_ok() {
                if !allowed() {
                    return;
                }
            }
            std::future::pending().await
        };
        let relayed = tokio::select! {
            relayed = copy::relay(stream.as_mut(), &mut upstream) => relayed,
            () = forbidden => {
                // Their kernels hear of it at once; what is under way is not delivered.
                stream.reset();
                Stream::reset(&mut upstream);
                self.counters.cut();
                debug!(%target, "stream cut: its target is no longer allowed");
                return;
            }
        };
        self.counters.carried(relayed.a_to_b, relayed.b_to_a);
        debug!(%target, to_target = relayed.a_to_b, from_target = relayed.b_to_a, end = ?relayed.end, "stream ended");
    }

    /// Whether `target` may still be reached at `address`, where it was dialled.
    fn still_allows(&self, target: &HostPort, address: IpAddr) -> bool {
        let Some(why) = self.policy.decide(target) else {
            return false;
        };
        let written = self.names.fixed(target.host()).is_some_and(|fixed| fixed.contains(&address));
        written || may_dial(target, why, address)
    }

    fn refuse(&self, offer: Box<dyn Offer>, error: &DialError) {
        match self.counters.refused(offer.target(), error) {
            Some(more) => warn!(target = %offer.target(), %error, more, "stream refused at the exit"),
            None => debug!(target = %offer.target(), %error, "stream refused at the exit"),
        }
        offer.refuse(error);
    }

    async fn dial(&self, target: &HostPort, why: Allowed) -> Result<TcpStream, DialError> {
        let deadline = Instant::now() + self.deadline;
        let late = || tcp::timed_out(target, self.deadline);
        let all = async {
            let _place = self.dials.acquire().await.map_err(|_| late())?;
            let addresses = self.addresses(target, why).await?;
            self.dial_each(target, &addresses, deadline).await
        };
        timeout_at(deadline, all).await.unwrap_or_else(|_| Err(late()))
    }

    /// The addresses of an allowed target that may be dialled, in order.
    async fn addresses(&self, target: &HostPort, why: Allowed) -> Result<Vec<IpAddr>, DialError> {
        if let Some(ip) = target.ip() {
            return Ok(vec![ip]);
        }
        if let Some(fixed) = self.names.fixed(target.host()) {
            return Ok(fixed);
        }
        let found = self
            .names
            .resolve(target.host())
            .await
            .map_err(|detail| DialError::NoSuchName { target: target.clone(), detail })?;
        let (good, bad): (Vec<_>, Vec<_>) = found.into_iter().partition(|ip| may_dial(target, why, *ip));
        match (good.is_empty(), bad.first()) {
            (true, Some(address)) => {
                warn!(%target, %address, "the name resolves to an address of this host or its link; [expose.resolve] can allow it");
                Err(DialError::NotAllowed { target: target.clone() })
            }
            (true, None) => Err(DialError::NoSuchName { target: target.clone(), detail: "no address".to_owned() }),
            (false, _) => Ok(good),
        }
    }

    /// Tries each address, with an equal share of the time that is left; the last failure is the answer.
    async fn dial_each(
        &self,
        target: &HostPort,
        addresses: &[IpAddr],
        deadline: Instant,
    ) -> Result<TcpStream, DialError> {
        let mut last = DialError::NoSuchName { target: target.clone(), detail: "no address".to_owned() };
        let addresses = &addresses[..addresses.len().min(ADDRESSES)];
        for (index, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let others = u32::try_from(addresses.len() - index).unwrap_or(1);
            let connect = TcpStream::connect(SocketAddr::new(*address, target.port()));
            last = match timeout_at(Instant::now() + left / others, connect).await {
                Ok(Ok(socket)) => return Ok(socket),
                Ok(Err(error)) => connect_error(target, self.deadline, &error),
                Err(_) => tcp::timed_out(target, self.deadline),
            };
        }
        Err(last)
    }
}

/// A connect to an address fails for the network's reasons alone, never for a name's.
fn connect_error(target: &HostPort, deadline: Duration, error: &io::Error) -> DialError {
    match tcp::dial_error(target, deadline, error) {
        DialError::NoSuchName { target, detail } => DialError::Unreachable { target, detail },
        other => other,
    }
}

#[cfg(test)]
mod tests;
