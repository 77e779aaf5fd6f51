//! The task that owns a connection's stream: sends what callers hand over, gives each answer to its caller, renews the session.
//!
//! ```text
//!            commands              answers in order
//!   callers ─────────▶ open ◀───▶ in flight ─────────▶ callers
//!                       │ ▲
//!        session at 85 %│ │authenticated again
//!                       ▼ │
//!                    renewing: nothing new; waits until nothing is in flight
//!   any failure, an answer overdue, an answer to nothing ──▶ condemned: one cause for everybody
//!   last handle dropped ──▶ FIN
//! ```

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use kafka_protocol::messages::ApiKey;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::ClientError;
use super::connection::Shared;
use super::handshake::Login;
use super::wire::{FETCH_FRAME_CAP, FRAME_CAP, Wire, WireError};

/// Most requests in flight on one connection; further callers wait. Brokers work on one at a time.
const MAX_IN_FLIGHT: usize = 64;
/// A session is renewed between 80 and 90 % of its lifetime, so that connections do not come in step.
const RENEW_PERCENT: std::ops::Range<u64> = 80..90;
/// The shortest time between renewals, whatever the broker says.
const RENEW_LEAST: Duration = Duration::from_millis(100);
/// How long the goodbye of an unused connection may take.
const GOODBYE: Duration = Duration::from_secs(1);

/// One request on its way.
pub(super) struct Command {
    pub(super) api: ApiKey,
    pub(super) correlation: i32,
    pub(super) chunks: Vec<Bytes>,
    pub(super) timeout: Duration,
    /// Gets the answer from after its correlation id; dropped when the connection is condemned.
    pub(super) reply: oneshot::Sender<Bytes>,
}

struct InFlight {
    api: ApiKey,
    correlation: i32,
    timeout: Duration,
    deadline: Instant,
    reply: oneshot::Sender<Bytes>,
}

pub(super) struct Driver {
    wire: Wire,
    shared: Arc<Shared>,
    commands: mpsc::Receiver<Command>,
    in_flight: VecDeque<InFlight>,
    login: Login,
    renew_at: Option<Instant>,
    /// The next request, taken from its caller and not yet sent: between the two a pause or a renewal may have begun.
    held: Option<Command>,
    answered: bool,
}

impl Driver {
    pub(super) fn new(
        wire: Wire,
        shared: Arc<Shared>,
        commands: mpsc::Receiver<Command>,
        login: Login,
        lifetime: Option<Duration>,
    ) -> Self {
        let renew_at = lifetime.map(renewal);
        Self { wire, shared, commands, in_flight: VecDeque::new(), login, renew_at, held: None, answered: false }
    }

    /// Runs until the connection is condemned or its last handle is dropped.
    pub(super) async fn run(mut self) {
        match self.drive().await {
            Ok(()) => {
                // Nobody is left to be told how the goodbye went.
                let _ = timeout(GOODBYE, self.wire.shutdown()).await;
            }
            Err(cause) => {
                tracing::debug!(cluster = %self.login.cluster, broker = %self.login.broker, %cause, "connection ended");
                // Before the waiting callers wake at the drop of their senders.
                self.shared.condemn(cause);
            }
        }
        self.shared.stats.closed();
    }

    async fn drive(&mut self) -> Result<(), ClientError> {
        let shared = Arc::clone(&self.shared);
        loop {
            let now = Instant::now();
            let renewing = self.renew_at.is_some_and(|at| at <= now);
            if renewing && self.in_flight.is_empty() && self.wire.is_sent() {
                self.renew().await?;
                continue;
            }
            let quiet = shared.quiet_until().filter(|until| *until > now);
            let open = !renewing && quiet.is_none() && self.in_flight.len() < MAX_IN_FLIGHT;
            if open && let Some(command) = self.held.take() {
                self.send(command);
                continue;
            }
            let renew_at = self.renew_at.filter(|_| !renewing);
            let overdue = self.in_flight.iter().map(|one| one.deadline).min();
            let wake = [quiet, renew_at, overdue].into_iter().flatten().min();
            let cap = if self.in_flight.front().is_some_and(|one| one.api == ApiKey::Fetch) {
                FETCH_FRAME_CAP
            } else {
                FRAME_CAP
            };
            tokio::select! {
                biased;
                () = shared.condemned() => return Err(shared.cause()),
                frame = exchange(&mut self.wire, cap) => {
                    let frame = frame.map_err(|error| self.ended(error))?;
                    self.answer(frame).map_err(|error| self.login.wire(error))?;
                }
                command = self.commands.recv(), if open => match command {
                    Some(command) => self.held = Some(command),
                    None => return Ok(()),
                },
                () = sleep_until(wake.unwrap_or(now)), if wake.is_some() => self.check_deadlines()?,
            }
        }
    }

    fn send(&mut self, command: Command) {
        let Command { api, correlation, chunks, timeout, reply } = command;
        if reply.is_closed() {
            return;
        }
        self.wire.queue(chunks);
        self.in_flight.push_back(InFlight { api, correlation, timeout, deadline: Instant::now() + timeout, reply });
    }

    fn answer(&mut self, mut frame: Bytes) -> Result<(), WireError> {
        let got = frame.get_i32();
        let asked = self.in_flight.pop_front().ok_or(WireError::Unasked)?;
        if asked.correlation != got {
            return Err(WireError::Correlation { got, expected: asked.correlation });
        }
        self.answered = true;
        self.shared.stats.answered();
        tracing::trace!(broker = %self.login.broker, api = ?asked.api, bytes = frame.len(), "answer");
        // The caller may have gone; the answer is its own business.
        let _ = asked.reply.send(frame);
        Ok(())
    }

    /// What the end of the wire means. A listener that wants SASL lets strangers ask for versions, and hangs up at anything else.
    fn ended(&self, error: WireError) -> ClientError {
        if error == WireError::Closed && self.login.sasl.is_none() && !self.answered && !self.in_flight.is_empty() {
            let cause = "closed in answer to the first request, as a listener does that wants SASL".to_owned();
            return ClientError::Disconnected { broker: self.login.broker.clone(), cause };
        }
        self.login.wire(error)
    }

    fn check_deadlines(&self) -> Result<(), ClientError> {
        let now = Instant::now();
        match self.in_flight.iter().find(|one| one.deadline <= now) {
            None => Ok(()),
            Some(late) => Err(ClientError::Timeout {
                broker: self.login.broker.clone(),
                api: late.api,
                after_ms: u64::try_from(late.timeout.as_millis()).unwrap_or(u64::MAX),
            }),
        }
    }

    /// KIP-368: the same conversation again on the same connection, with nothing else under way.
    async fn renew(&mut self) -> Result<(), ClientError> {
        let limit = self.shared.request_timeout;
        let again = self.login.authenticate(&mut self.wire, &self.shared.versions, &self.shared.correlations);
        let lifetime = timeout(limit, again).await.unwrap_or_else(|_| {
            Err(ClientError::Timeout {
                broker: self.login.broker.clone(),
                api: ApiKey::SaslAuthenticate,
                after_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            })
        })?;
        self.renew_at = lifetime.map(renewal);
        tracing::debug!(cluster = %self.login.cluster, broker = %self.login.broker, "session renewed");
        Ok(())
    }
}

/// Sends and receives at once: a broker may stop reading until its answers are taken.
async fn exchange(wire: &mut Wire, cap: usize) -> Result<Bytes, WireError> {
    poll_fn(|cx| {
        let failed = match wire.poll_send(cx) {
            Poll::Ready(Err(error)) => Some(error),
            _ => None,
        };
        match (wire.poll_frame(cx, cap), failed) {
            (Poll::Ready(Ok(frame)), _) => Poll::Ready(Ok(frame)),
            // The reason to stop sending tells more than the end of reading that follows it.
            (_, Some(error)) => Poll::Ready(Err(error)),
            (other, None) => other,
        }
    })
    .await
}

/// When to renew a session of this lifetime.
fn renewal(lifetime: Duration) -> Instant {
    let mut random = [0; 1];
    // Without randomness the earliest moment is right too.
    let _ = aws_lc_rs::rand::fill(&mut random);
    let percent = RENEW_PERCENT.start + u64::from(random[0]) % (RENEW_PERCENT.end - RENEW_PERCENT.start);
    let after = lifetime.mul_f64(percent as f64 / 100.0).clamp(RENEW_LEAST, Duration::from_secs(365 * 86_400));
    Instant::now() + after
}
