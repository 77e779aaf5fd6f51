//! Dialling through the tunnel: the peer's endpoint dials, this side gets the stream.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::AsyncWriteExt as _;
use tokio::time::{Instant, timeout_at};

use super::endpoint::{Shared, TunnelState};
use super::session::{OpenError, OpenRefused};
use super::stream::TunnelStream;
use crate::net::{BoxFuture, BoxStream, Dial, DialError, HostPort};

/// How long a dial waits for a tunnel that is down.
const UP_WITHIN: Duration = Duration::from_secs(10);
/// How long a dial waits for the exit's answer; the exit's own deadlines are shorter and tell more.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Opens streams to targets at the peer's side. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TunnelDial {
    shared: Arc<Shared>,
    up_within: Duration,
}

impl TunnelDial {
    pub(super) const fn new(shared: Arc<Shared>) -> Self {
        Self { shared, up_within: UP_WITHIN }
    }

    /// The same dialler, waiting `up_within` for a tunnel that is down (10 s unless set).
    #[must_use]
    pub fn wait_for_tunnel(mut self, up_within: Duration) -> Self {
        self.up_within = up_within;
        self
    }

    /// Opens a stream whose first bytes travel with the request, which saves a round trip. They may be lost to nobody: where
    /// the exit refuses, the target saw nothing of them.
    ///
    /// # Errors
    /// As [`Dial::dial`].
    pub async fn open_early(&self, target: &HostPort, mut first: Bytes) -> Result<BoxStream, DialError> {
        let mut stream = self.open(target).await?;
        stream.write_now(&mut first);
        match timeout_at(Instant::now() + ANSWER_WITHIN, poll_fn(|cx| stream.poll_opened(cx))).await {
            Ok(Ok(())) => {}
            Ok(Err(OpenRefused::Failed(failure))) => return Err(self.shared.dial_error(target, failure)),
            Ok(Err(OpenRefused::Cut(end))) => return Err(DialError::TunnelDown { detail: end.to_string() }),
            Err(_) if !self.shared.is_up() => return Err(self.down()),
            Err(_) => {
                let after_ms = u64::try_from(ANSWER_WITHIN.as_millis()).unwrap_or(u64::MAX);
                return Err(DialError::TimedOut { target: target.clone(), after_ms });
            }
        }
        if !first.is_empty() {
            stream.write_all(&first).await.map_err(|error| DialError::TunnelDown { detail: error.to_string() })?;
        }
        Ok(Box::new(stream))
    }

    /// Sends OPEN, waiting for the tunnel where it is down.
    async fn open(&self, target: &HostPort) -> Result<TunnelStream, DialError> {
        let deadline = Instant::now() + self.up_within;
        let mut changed = self.shared.changed();
        loop {
            changed.mark_unchanged();
            match self.shared.with(|state, _| state.session.open(target.host(), target.port())) {
                Ok(id) => return Ok(TunnelStream::new(Arc::clone(&self.shared), id)),
                Err(OpenError::NotConnected) => {
                    let up = changed.wait_for(|state| *state == TunnelState::Up);
                    if !matches!(timeout_at(deadline, up).await, Ok(Ok(_))) {
                        return Err(self.down());
                    }
                    if Instant::now() >= deadline {
                        return Err(self.down());
                    }
                    // Up was announced; where it is gone again already, the next round waits.
                    tokio::task::yield_now().await;
                }
                Err(error @ OpenError::Draining(_)) => {
                    return Err(DialError::TunnelDown { detail: error.to_string() });
                }
                Err(error) => return Err(DialError::Limit { target: target.clone(), detail: error.to_string() }),
            }
        }
    }

    fn down(&self) -> DialError {
        let waited = format!("no connection with the peer for {} ms", self.up_within.as_millis());
        let detail = match self.shared.last_error() {
            Some(error) => format!("{waited}; {error}"),
            None => waited,
        };
        DialError::TunnelDown { detail }
    }
}

impl Dial for TunnelDial {
    fn dial<'a>(&'a self, target: &'a HostPort) -> BoxFuture<'a, Result<BoxStream, DialError>> {
        Box::pin(self.open_early(target, Bytes::new()))
    }
}
