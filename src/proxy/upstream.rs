//! Reaching a broker: one, or whichever of several answers first.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use crate::net::tls::{TlsConnector, TlsError};
use crate::net::{BoxStream, DialError, HostPort, SharedDial};

/// How long a broker may take for its TLS handshake.
const TLS_DEADLINE: Duration = Duration::from_secs(10);

/// How long one candidate is tried before the next is tried beside it: above a usual round trip and handshake between networks.
const STAGGER: Duration = Duration::from_millis(750);

/// Candidates tried at most, so that a dead cluster of a thousand brokers is given up in time.
const MOST_CANDIDATES: usize = 32;

/// Why no broker was reached.
#[derive(Debug, thiserror::Error)]
pub(super) enum UpstreamError {
    /// It could not be dialled.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// TLS with it failed.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// TLS with it took too long.
    #[error("TLS with {target} was not done within {} ms", TLS_DEADLINE.as_millis())]
    TlsTimedOut {
        /// The broker.
        target: HostPort,
    },
    /// There is nobody to dial.
    #[error("no bootstrap server and no broker is known")]
    NoCandidate,
}

impl UpstreamError {
    /// A short fixed text for counters.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Dial(DialError::NotAllowed { .. }) => "dial: not allowed by the exit",
            Self::Dial(DialError::NoSuchName { .. }) => "dial: no such name",
            Self::Dial(DialError::Refused { .. }) => "dial: refused",
            Self::Dial(DialError::Unreachable { .. }) => "dial: unreachable",
            Self::Dial(DialError::TimedOut { .. }) => "dial: timed out",
            Self::Dial(DialError::TunnelDown { .. }) => "dial: tunnel down",
            Self::Dial(DialError::Limit { .. }) => "dial: limit",
            Self::Tls(_) | Self::TlsTimedOut { .. } => "TLS with a broker",
            Self::NoCandidate => "dial: nobody known",
        }
    }
}

/// Dials a broker, with TLS around it where set.
pub(super) async fn connect(
    dial: &SharedDial,
    tls: Option<&TlsConnector>,
    target: &HostPort,
) -> Result<BoxStream, UpstreamError> {
    let stream = dial.dial(target).await?;
    let Some(tls) = tls else { return Ok(stream) };
    match tokio::time::timeout(TLS_DEADLINE, tls.connect(target, stream)).await {
        Ok(stream) => Ok(stream?),
        Err(_) => Err(UpstreamError::TlsTimedOut { target: target.clone() }),
    }
}

/// Dials candidates in their order, the next one when one fails or takes its time, and takes the first that answers.
///
/// # Errors
/// The last error, once all have failed.
pub(super) async fn connect_any(
    dial: &SharedDial,
    tls: Option<&TlsConnector>,
    candidates: &[HostPort],
) -> Result<(BoxStream, HostPort), UpstreamError> {
    let attempt =
        |target| async move { connect(dial, tls, target).await.map(|stream| (stream, HostPort::clone(target))) };
    let mut waiting = candidates.iter().take(MOST_CANDIDATES);
    let mut running = FuturesUnordered::new();
    let mut failed = UpstreamError::NoCandidate;
    loop {
        if let Some(target) = waiting.next() {
            running.push(attempt(target));
        } else if running.is_empty() {
            return Err(failed);
        }
        let more = waiting.len() > 0;
        tokio::select! {
            Some(done) = running.next() => match done {
                Ok(reached) => return Ok(reached),
                Err(error) => failed = error,
            },
            () = tokio::time::sleep(STAGGER), if more => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::net::{BoxFuture, Dial};

    /// Names tell what happens: `dead` refuses at once, `mute` never answers, `slow` fails after two seconds.
    #[derive(Default)]
    struct Named(Mutex<Vec<String>>);

    impl Dial for Named {
        fn dial<'a>(&'a self, target: &'a HostPort) -> BoxFuture<'a, Result<BoxStream, DialError>> {
            self.0.lock().expect("no panic").push(target.host().to_owned());
            Box::pin(async move {
                match target.host() {
                    "mute" => std::future::pending().await,
                    "slow" => {
                        tokio::time::sleep(Duration::from_secs(2)).await;
                        Err(DialError::TimedOut { target: target.clone(), after_ms: 2_000 })
                    }
                    _ => Err(DialError::Refused { target: target.clone() }),
                }
            })
        }
    }

    fn targets(names: &[&str]) -> Vec<HostPort> {
        names.iter().map(|name| HostPort::new(name, 9092).expect("a name")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn tries_all_and_says_why_none_answered() {
        let named = Arc::new(Named::default());
        let dial: SharedDial = Arc::<Named>::clone(&named);
        let begun = tokio::time::Instant::now();
        let failed = connect_any(&dial, None, &targets(&["slow", "dead", "dead"])).await.err().expect("none answers");
        assert!(matches!(failed, UpstreamError::Dial(DialError::TimedOut { .. })), "{failed}");
        assert_eq!(begun.elapsed(), Duration::from_secs(2), "beside the slow one");
        assert_eq!(*named.0.lock().expect("no panic"), ["slow", "dead", "dead"]);
        assert!(matches!(connect_any(&dial, None, &[]).await.err(), Some(UpstreamError::NoCandidate)));
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_wait_for_the_mute() {
        let named = Arc::new(Named::default());
        let dial: SharedDial = Arc::<Named>::clone(&named);
        let candidates = targets(&["mute", "mute", "dead"]);
        let dialled = async {
            while named.0.lock().expect("no panic").len() < 3 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            _ = connect_any(&dial, None, &candidates) => panic!("the mute never answer"),
            () = dialled => {}
        }
    }
}
