//! A small HTTP client for identity providers: one request, one answer, no redirects, bounds on both time and size.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{HOST, HeaderValue};
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;

use super::tcp::TcpDial;
use super::tls::{TlsConnector, TlsError};
use super::{Dial as _, HostPort};
use crate::config::TlsClient;

/// How long one exchange may take, from the look-up of the name to the answer's last byte.
const DEADLINE: Duration = Duration::from_secs(15);

/// How long the connection may take: an instance's own metadata service answers at once or is not there.
const CONNECT: Duration = Duration::from_secs(5);

/// Largest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct HttpError(String);

/// Sends requests from this host, each on a connection of its own.
#[derive(Debug, Clone)]
pub struct HttpClient {
    tls: Result<TlsConnector, TlsError>,
    dial: Arc<TcpDial>,
}

impl HttpClient {
    /// For servers whose certificate is of the CAs in `ca_file`, or of the system's. Where these cannot be read, only `https` fails.
    #[must_use]
    pub fn new(ca_file: Option<PathBuf>) -> Self {
        let tls = TlsConnector::new(&TlsClient { ca_file, identity: None, verify_hostname: true });
        Self { tls, dial: Arc::new(TcpDial::new(CONNECT)) }
    }

    /// Sends a request with an absolute URI and takes the whole answer, whatever its status.
    ///
    /// # Errors
    /// [`HttpError`]: not within 15 s, over 1 MiB, no connection, no HTTP.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let place = place(request.uri());
        match tokio::time::timeout(DEADLINE, self.exchange(request)).await {
            Ok(answer) => answer.map_err(|why| HttpError(format!("{place}: {why}"))),
            Err(_) => Err(HttpError(format!("{place}: no answer within {} s", DEADLINE.as_secs()))),
        }
    }

    async fn exchange(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, String> {
        let (secure, target) = target(request.uri())?;
        let stream = self.dial.dial(&target).await.map_err(|error| error.to_string())?;
        let stream = if secure {
            let tls = self.tls.as_ref().map_err(ToString::to_string)?;
            tls.connect(&target, stream).await.map_err(|error| error.to_string())?
        } else {
            stream
        };
        let authority = request.uri().authority().map_or_else(String::new, ToString::to_string);
        let host = HeaderValue::from_str(&authority).map_err(|error| error.to_string())?;
        request.headers_mut().insert(HOST, host);
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| "its path is none".to_owned())?;
        let said = |error: hyper::Error| error.to_string();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(said)?;
        let answered = async {
            let answer = sender.send_request(request.map(Full::new)).await.map_err(said)?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| error.to_string())?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        let mut answered = std::pin::pin!(answered);
        // The connection moves the bytes; its end says nothing that the answer does not.
        tokio::select! {
            answer = &mut answered => answer,
            _ = connection => answered.await,
        }
    }
}

/// Whether it is `https`, and whom to dial.
fn target(uri: &Uri) -> Result<(bool, HostPort), String> {
    let (secure, usual) = match uri.scheme_str() {
        Some("https") => (true, 443),
        Some("http") => (false, 80),
        _ => return Err("neither https nor http".to_owned()),
    };
    let host = uri.host().unwrap_or_default();
    let target = HostPort::new(host.trim_matches(['[', ']']), uri.port_u16().unwrap_or(usual));
    Ok((secure, target.map_err(|error| error.to_string())?))
}

/// An address for messages: without what may be secret in it.
fn place(uri: &Uri) -> String {
    format!("{}://{}{}", uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default(), uri.path())
}
