//! Authentication towards a broker, on a stream on which nothing else is under way: first of all, and again before the session ends.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _};
use zeroize::Zeroizing;

use crate::kafka::frame::{self, FrameError, Side};
use crate::kafka::primitives::Malformed;
use crate::kafka::sasl as wire;
use crate::net::{BoxStream, HostPort};
use crate::sasl::{Authenticator, SaslError};

/// How long all of it may take: several round trips through the tunnel, and a key derivation.
const DEADLINE: Duration = Duration::from_secs(20);

/// Most messages of one conversation; SCRAM has two.
const MAX_ROUNDS: usize = 5;

/// Largest answer, in bytes: the list of APIs, or a SASL message.
const MAX_ANSWER: usize = 1 << 20;

/// Name under which the broker sees these requests.
const CLIENT_ID: &str = "linkspan";

/// Why a broker was not authenticated with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum LoginError {
    /// The broker said no.
    #[error("{broker} did not accept the {mechanism} credentials: {detail}")]
    Refused { broker: HostPort, mechanism: &'static str, detail: String },
    /// There is nothing to authenticate with.
    #[error("no {mechanism} credentials for {broker}: {error}")]
    Credentials { broker: HostPort, mechanism: &'static str, error: SaslError },
    /// The broker knows no SaslAuthenticate.
    #[error("{broker} is older than Kafka 1.0, or offers no SASL: it has no SaslAuthenticate")]
    TooOld { broker: HostPort },
    /// Its answer is none.
    #[error("{broker} answered {what} with {detail}")]
    Protocol { broker: HostPort, what: &'static str, detail: String },
    /// It hung up.
    #[error("{broker} closed the connection in answer to {what}, as a port does that wants TLS or another mechanism")]
    Closed { broker: HostPort, what: &'static str },
    /// It took too long.
    #[error("{broker} did not finish the authentication within {} s", DEADLINE.as_secs())]
    TimedOut { broker: HostPort },
}

impl LoginError {
    /// A short fixed text for counters.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Refused { .. } => "authentication: refused by a broker",
            Self::Credentials { .. } => "authentication: no credentials",
            Self::TooOld { .. } => "authentication: broker without SASL",
            Self::Protocol { .. } => "authentication: malformed answer",
            Self::Closed { .. } => "authentication: closed by a broker",
            Self::TimedOut { .. } => "authentication: timed out",
        }
    }
}

/// Who this side is on one connection.
#[derive(Debug)]
pub(super) struct Login {
    authenticator: Arc<Authenticator>,
    broker: HostPort,
    /// Below zero, where no client's ids are.
    next_id: i32,
    /// Of SaslAuthenticate, once the broker was asked.
    version: Option<i16>,
}

impl Login {
    pub(super) fn new(authenticator: Arc<Authenticator>, broker: HostPort) -> Self {
        Self { authenticator, broker, next_id: i32::MIN, version: None }
    }

    /// Authenticates; the time that the session lasts, where it ends.
    ///
    /// # Errors
    /// [`LoginError`]: the stream is of no use any more.
    pub(super) async fn run(&mut self, stream: &mut BoxStream) -> Result<Option<Duration>, LoginError> {
        let broker = self.broker.clone();
        tokio::time::timeout(DEADLINE, self.authenticate(stream)).await.unwrap_or(Err(LoginError::TimedOut { broker }))
    }

    async fn authenticate(&mut self, stream: &mut BoxStream) -> Result<Option<Duration>, LoginError> {
        let mechanism = self.authenticator.mechanism();
        let version = match self.version {
            Some(version) => version,
            None => self.ask_versions(stream).await?,
        };
        let request = wire::handshake_request(self.id(), CLIENT_ID, mechanism);
        let answer = self.exchange(stream, &request, "SaslHandshake").await?;
        let answer = wire::read_handshake(&answer).map_err(|error| self.malformed("SaslHandshake", error))?;
        if answer.error_code != 0 {
            return Err(self.refused(refused_mechanism(&answer)));
        }
        let credentials = |error| LoginError::Credentials { broker: self.broker.clone(), mechanism, error };
        let mut conversation = self.authenticator.begin(&self.broker).await.map_err(credentials)?;
        let mut message = conversation.first();
        for _ in 0..MAX_ROUNDS {
            let request = Zeroizing::new(wire::authenticate_request(version, self.id(), CLIENT_ID, &message));
            let answer = self.exchange(stream, &request, "SaslAuthenticate").await?;
            let answer =
                wire::read_authenticate(&answer, version).map_err(|error| self.malformed("SaslAuthenticate", error))?;
            if answer.error_code != 0 {
                return Err(self.refused(said(&answer)));
            }
            match conversation.next(answer.message).await.map_err(|error| self.refused(error.to_string()))? {
                Some(next) => message = next,
                None => {
                    let lifetime = u64::try_from(answer.session_lifetime_ms).unwrap_or(0);
                    return Ok((lifetime > 0).then(|| Duration::from_millis(lifetime)));
                }
            }
        }
        Err(self.refused(format!("the conversation did not end within {MAX_ROUNDS} messages")))
    }

    async fn ask_versions(&mut self, stream: &mut BoxStream) -> Result<i16, LoginError> {
        let request = wire::versions_request(self.id(), CLIENT_ID);
        let answer = self.exchange(stream, &request, "ApiVersions").await?;
        let offered = match wire::read_versions(&answer).map_err(|error| self.malformed("ApiVersions", error))? {
            Ok(offered) => offered,
            Err(code) => return Err(self.protocol("ApiVersions", format!("error {code}"))),
        };
        let version =
            offered.authenticate_version().ok_or_else(|| LoginError::TooOld { broker: self.broker.clone() })?;
        self.version = Some(version);
        Ok(version)
    }

    fn id(&mut self) -> i32 {
        let id = self.next_id;
        self.next_id = if id == -1 { i32::MIN } else { id + 1 };
        id
    }

    /// Sends a request and takes its answer, without the correlation id.
    async fn exchange(
        &self,
        stream: &mut BoxStream,
        request: &[u8],
        what: &'static str,
    ) -> Result<Vec<u8>, LoginError> {
        let closed = |_: io::Error| LoginError::Closed { broker: self.broker.clone(), what };
        stream.write_all(request).await.map_err(closed)?;
        stream.flush().await.map_err(closed)?;
        let mut prefix = [0; 4];
        self.read(stream, &mut prefix, what).await?;
        let length = frame::length(Side::Responses, prefix, true)
            .map_err(|error: FrameError| self.protocol(what, error.to_string()))? as usize;
        if length > MAX_ANSWER {
            return Err(self.protocol(what, format!("{length} bytes, at most {MAX_ANSWER} are read")));
        }
        let mut answer = vec![0; length];
        self.read(stream, &mut answer, what).await?;
        let id = request.get(8..12).unwrap_or_default();
        if !answer.starts_with(id) {
            return Err(self.protocol(what, "the answer to another request".to_owned()));
        }
        Ok(answer.split_off(id.len()))
    }

    /// Reads exactly so much, and leaves what follows in the stream.
    async fn read(&self, stream: &mut BoxStream, mut into: &mut [u8], what: &'static str) -> Result<(), LoginError> {
        while !into.is_empty() {
            let taken = match stream.fill_buf().await {
                Ok([]) | Err(_) => return Err(LoginError::Closed { broker: self.broker.clone(), what }),
                Ok(bytes) => {
                    let taken = bytes.len().min(into.len());
                    into[..taken].copy_from_slice(&bytes[..taken]);
                    taken
                }
            };
            stream.consume(taken);
            into = &mut into[taken..];
        }
        Ok(())
    }

    fn refused(&self, detail: String) -> LoginError {
        LoginError::Refused { broker: self.broker.clone(), mechanism: self.authenticator.mechanism(), detail }
    }

    fn malformed(&self, what: &'static str, error: Malformed) -> LoginError {
        self.protocol(what, error.to_string())
    }

    fn protocol(&self, what: &'static str, detail: String) -> LoginError {
        LoginError::Protocol { broker: self.broker.clone(), what, detail }
    }
}

fn refused_mechanism(answer: &wire::Handshake<'_>) -> String {
    match answer.error_code {
        33 => {
            let offered: Vec<_> = answer.mechanisms.iter().map(|name| shown(name)).collect();
            format!("it does not take this mechanism; it offers {}", offered.join(", "))
        }
        34 => "this listener takes no SASL: remove proxy.auth".to_owned(),
        code => format!("error {code}"),
    }
}

fn said(answer: &wire::Authenticate<'_>) -> String {
    answer.error_message.map_or_else(|| format!("error {}", answer.error_code), shown)
}

/// A broker's words, cut to a length fit for a log.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(200).collect()
}
