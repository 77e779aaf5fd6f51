//! Asking a running endpoint on its admin port: one request over HTTP/1.0, whose answer ends with the connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::exit::{Exit, Failure};
use crate::config::Secret;
use crate::control::operate::{Refusal, RefusalKind};
use crate::control::{Code, Status};
use crate::net::HostPort;

/// Largest answer read, in bytes: a status with ten thousand topics is a third of it.
const MAX_ANSWER: u64 = 8 << 20;

/// The admin port of a running endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Admin {
    at: HostPort,
    token: Option<Secret>,
}

/// An answer of the admin port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Page {
    /// HTTP status.
    pub(crate) status: u16,
    /// The body.
    pub(crate) body: String,
}

impl Admin {
    /// Reads `host:port` or `http://host:port`, with or without a slash at the end.
    ///
    /// # Errors
    /// [`Exit::Usage`] for anything else.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let bare = text.strip_prefix("http://").unwrap_or(text);
        let bare = bare.strip_suffix('/').unwrap_or(bare);
        bare.parse().map(|at| Self { at, token: None }).map_err(|error| {
            Failure::new(Exit::Usage, format!("--admin {text}: {error}")).fixed_by("--admin 127.0.0.1:9464")
        })
    }

    /// The admin port that a configuration opens. An endpoint that listens on every address is asked on loopback.
    #[must_use]
    pub(crate) fn of(listen: SocketAddr) -> Self {
        let mut address = listen;
        if address.ip().is_unspecified() {
            address.set_ip(if address.is_ipv4() {
                std::net::Ipv4Addr::LOCALHOST.into()
            } else {
                std::net::Ipv6Addr::LOCALHOST.into()
            });
        }
        Self { at: address.into(), token: None }
    }

    /// With the token that changes need.
    #[must_use]
    pub(crate) fn with_token(self, token: Option<Secret>) -> Self {
        Self { token, ..self }
    }

    /// The address, as messages name it.
    #[must_use]
    pub(crate) fn address(&self) -> String {
        self.at.to_string()
    }

    /// Gets a page within `deadline`.
    ///
    /// # Errors
    /// What the system said, or that the answer is not HTTP or too large.
    pub(crate) async fn get(&self, path: &str, deadline: Duration) -> io::Result<Page> {
        self.within(deadline, format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.at)).await
    }

    /// Posts a JSON document to a page that changes something or looks at much, and reads the document that it answers with.
    ///
    /// # Errors
    /// [`Exit::Unreachable`] where nobody answers, and by the endpoint's refusal: [`Exit::Authentication`] where it is not allowed,
    /// [`Exit::Usage`] for a name that there is not, [`Exit::Refused`] where it may not be done now, [`Exit::Unreachable`] where a
    /// cluster does not answer.
    pub(crate) async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        document: &impl serde::Serialize,
        deadline: Duration,
    ) -> Result<T, Failure> {
        let body = serde_json::to_string(document)
            .map_err(|error| Failure::new(Exit::Internal, format!("the request is no JSON: {error}")))?;
        let mut head = format!("POST {path} HTTP/1.0\r\nHost: {}\r\nContent-Type: application/json\r\n", self.at);
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
        if let Some(token) = &self.token {
            head.push_str(&format!("Authorization: Bearer {}\r\n", token.expose().trim()));
        }
        let page = self.within(deadline, format!("{head}\r\n{body}")).await.map_err(|error| self.silent(&error))?;
        if page.status == 200 {
            return serde_json::from_str(&page.body)
                .map_err(|error| self.stranger(&format!("its answer is not understood: {error}")));
        }
        let Ok(refusal) = serde_json::from_str::<Refusal>(&page.body) else {
            return Err(self.stranger(&format!("it answers with HTTP status {}", page.status)));
        };
        let exit = match refusal.kind {
            RefusalKind::Invalid | RefusalKind::Unknown => Exit::Usage,
            RefusalKind::Forbidden => Exit::Authentication,
            RefusalKind::Conflict => Exit::Refused,
            RefusalKind::Unavailable => Exit::Unreachable,
        };
        Err(match refusal.code {
            Some(code) => Failure::coded(exit, code, refusal.what),
            None => Failure::new(exit, refusal.what),
        })
    }

    async fn within(&self, deadline: Duration, request: String) -> io::Result<Page> {
        match tokio::time::timeout(deadline, self.exchange(&request)).await {
            Ok(page) => page,
            Err(_) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", deadline.as_secs_f64())))
            }
        }
    }

    /// The status document of the endpoint.
    ///
    /// # Errors
    /// [`Exit::Unreachable`] where nobody answers, [`Exit::Unhealthy`] where something else than an endpoint does.
    pub(crate) async fn status(&self, deadline: Duration) -> Result<Status, Failure> {
        let page = self.get("/api/v1/status", deadline).await.map_err(|error| self.silent(&error))?;
        if matches!(page.status, 401 | 403) {
            let what = format!("{} refuses to answer: HTTP status {}", self.at, page.status);
            return Err(Failure::new(Exit::Authentication, what)
                .fixed_by("ask the admin port itself, on the endpoint's own host, not a proxy in front of it"));
        }
        if page.status != 200 {
            return Err(self.stranger(&format!("it answers with HTTP status {}", page.status)));
        }
        let status: Status = serde_json::from_str(&page.body)
            .map_err(|error| self.stranger(&format!("its answer is no status: {error}")))?;
        if status.schema != crate::control::SCHEMA {
            return Err(self.stranger(&format!("it speaks {}, this is {}", status.schema, crate::control::SCHEMA)));
        }
        Ok(status)
    }

    /// Nobody answers.
    #[must_use]
    pub(crate) fn silent(&self, error: &io::Error) -> Failure {
        Failure::coded(Exit::Unreachable, Code::ADMIN_ANSWERS, format!("no endpoint answers on {}: {error}", self.at))
    }

    fn stranger(&self, detail: &str) -> Failure {
        Failure::coded(
            Exit::Unhealthy,
            Code::SAME_PROCESS,
            format!("{} is not an endpoint of this kind: {detail}", self.at),
        )
    }

    async fn exchange(&self, request: &str) -> io::Result<Page> {
        let mut socket = TcpStream::connect((self.at.host(), self.at.port())).await?;
        socket.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        socket.take(MAX_ANSWER + 1).read_to_end(&mut answer).await?;
        if answer.len() as u64 > MAX_ANSWER {
            return Err(bad(format!("the answer is above the most, {MAX_ANSWER} bytes")));
        }
        parse(&answer)
    }
}

fn parse(answer: &[u8]) -> io::Result<Page> {
    let text = std::str::from_utf8(answer).map_err(|_| bad("the answer is not HTTP".to_owned()))?;
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(|| bad("the answer is not HTTP".to_owned()))?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let status = first
        .next()
        .filter(|version| version.starts_with("HTTP/1."))
        .and_then(|_| first.next())
        .and_then(|status| status.parse().ok())
        .ok_or_else(|| bad("the answer is not HTTP".to_owned()))?;
    let length = lines
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, length)| length.trim().parse::<usize>().ok());
    if length.is_some_and(|length| length != body.len()) {
        return Err(bad(format!("the answer was cut: {} of {} bytes", body.len(), length.unwrap_or_default())));
    }
    Ok(Page { status, body: body.to_owned() })
}

fn bad(detail: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for text in ["127.0.0.1:9464", "http://127.0.0.1:9464", "http://127.0.0.1:9464/"] {
            assert_eq!(Admin::parse(text).expect(text).address(), "127.0.0.1:9464");
        }
        for text in ["", "127.0.0.1", "https://x:1", "x:0", "x:1/api"] {
            assert_eq!(Admin::parse(text).expect_err(text).exit, Exit::Usage);
        }
        let any: SocketAddr = "0.0.0.0:9464".parse().expect("an address");
        assert_eq!(Admin::of(any).address(), "127.0.0.1:9464");
        let any: SocketAddr = "[::]:9464".parse().expect("an address");
        assert_eq!(Admin::of(any).address(), "[::1]:9464");
    }

    #[test]
    fn only_whole_http_answers_count() {
        let page = parse(b"HTTP/1.0 503 Service Unavailable\r\ncontent-length: 3\r\n\r\nno\n").expect("an answer");
        assert_eq!(page, Page { status: 503, body: "no\n".to_owned() });
        for answer in [
            &b""[..],
            b"SSH-2.0-x\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\ncut",
            b"HTTP/1.0 abc\r\n\r\n",
            b"HTTP/1.0 200 OK\r\n\r\n\xff",
            b"\x16\x03\x01",
        ] {
            assert!(parse(answer).is_err(), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn a_port_where_nobody_listens_is_unreachable_and_a_silent_one_times_out() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let failure = Admin::of(address).status(Duration::from_millis(50)).await.expect_err("nobody accepts");
        assert_eq!((failure.exit, failure.code), (Exit::Unreachable, Some(Code::ADMIN_ANSWERS)));
        drop(listener);
        let failure = Admin::of(address).status(Duration::from_secs(5)).await.expect_err("nobody listens");
        assert_eq!(failure.exit, Exit::Unreachable);
        assert!(failure.what.starts_with(&format!("no endpoint answers on {address}: ")), "{}", failure.what);
    }
}
