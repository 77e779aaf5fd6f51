//! The admin port over plain HTTP/1: health, metrics, status and checks, and the operator's hand on flows.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the event loop turns; never depends on a peer |
//! | `/readyz`, `/healthz` | 200 or 503; with `?verbose` one line a check |
//! | `/metrics` | OpenMetrics text |
//! | `/api/v1/status` | the [`Status`](super::Status) |
//! | `/api/v1/check` | [facts](super::facts) that only the running process can find out |
//! | `POST /api/v1/plan` | what flows would create or change: those of the body (`{"flows":[…]}`), or those that run (`{}`) |
//! | `POST /api/v1/verify` | lists partitions, or compares a part of one with its copy: see [`VerifyRequest`] |
//! | `POST /api/v1/pause`, `POST /api/v1/resume` | pauses or resumes: `{"flow":…,"topic":…}`, both optional |
//!
//! Reading needs nothing. A `POST` needs JSON, comes from this host or has the token, and never comes from a web page of another
//! site: see [`guard`].

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};

use super::operate::{Operator, Refusal, RefusalKind, Selector, VerifyRequest};
use super::status::StatusSource;
use super::{Code, guard, metrics};
use crate::config::{FlowConfig, Secret};
use crate::lifecycle::Drain;

/// Connections served at once; more wait in the system's backlog. Prometheus, a health check and a person need five.
const MAX_CONNECTIONS: usize = 64;
/// How long a request's headers may take, and a connection may idle between two requests.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may live: a reader that never reads holds its place no longer.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);
/// Bytes buffered for a request; hyper's own least is 8 KiB.
const MAX_REQUEST: usize = 16 * 1024;
/// Bytes of a request's body: a thousand flows.
const MAX_BODY: usize = 1 << 20;
/// How long a change, or a plan, may take.
const ACT_TIMEOUT: Duration = Duration::from_secs(40);
/// How long an examination of the clusters may take; `linkspan check` promises 15 s in all.
const PROBE_TIMEOUT: Duration = Duration::from_secs(12);
/// Wait after a failed accept, which is a lack of file descriptors more often than not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The admin port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("admin port {listen} cannot be opened: {source}")]
pub struct AdminError {
    /// The address that was wanted.
    pub listen: SocketAddr,
    /// What the system said.
    pub source: io::Error,
}

/// The bound admin port, before anything is served.
#[derive(Debug)]
pub struct AdminServer {
    listener: TcpListener,
    address: SocketAddr,
    token: Option<Secret>,
}

/// All that the admin port speaks for.
pub trait AdminSource: StatusSource + Operator {}

impl<T: StatusSource + Operator> AdminSource for T {}

impl AdminServer {
    /// Opens the port; port 0 lets the system choose. With a token every change needs it; without one changes are taken from this
    /// host alone.
    ///
    /// # Errors
    /// [`AdminError`].
    pub async fn bind(listen: SocketAddr, token: Option<Secret>) -> Result<Self, AdminError> {
        let failed = |source| AdminError { listen, source };
        let listener = TcpListener::bind(listen).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address, token })
    }

    /// The address it really has.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `drain` begins; connections finish the request they are in.
    pub async fn run(self, drain: Drain, source: Arc<dyn AdminSource>) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let token = self.token.clone();
        let pages = Arc::new(Pages { source, token, probing: Mutex::new(()) });
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.draining() => return,
                accepted = accept(&self.listener, &places) => accepted,
            };
            match accepted {
                Ok((socket, peer, place)) => {
                    let (pages, scope) = (Arc::clone(&pages), drain.clone());
                    drain.spawn(async move {
                        serve(socket, peer, pages, &scope).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::debug!(%error, "admin port: accept failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, tokio::sync::OwnedSemaphorePermit)> {
    let place = Arc::clone(places).acquire_owned().await.map_err(io::Error::other)?;
    let (socket, peer) = listener.accept().await?;
    Ok((socket, peer, place))
}

async fn serve(socket: TcpStream, peer: SocketAddr, pages: Arc<Pages>, drain: &Drain) {
    let service = service_fn(|request| {
        let pages = Arc::clone(&pages);
        async move { Ok::<_, Infallible>(pages.answer(request, peer).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(MAX_REQUEST)
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = drain.draining() => None,
        () = tokio::time::sleep(CONNECTION_LIFE) => None,
    };
    let ended = match ended {
        Some(ended) => Ok(ended),
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::time::timeout(PROBE_TIMEOUT, connection).await
        }
    };
    if let Ok(Err(error)) = ended {
        tracing::debug!(%error, "admin connection ended");
    }
}

/// What each path answers.
struct Pages {
    source: Arc<dyn AdminSource>,
    token: Option<Secret>,
    /// One examination at a time, however many ask.
    probing: Mutex<()>,
}

type Answer = Response<Full<Bytes>>;

impl Pages {
    async fn answer(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        if ACTIONS.contains(&request.uri().path()) {
            return self.act(request, peer).await;
        }
        let known = matches!(
            request.uri().path(),
            "/" | "/livez" | "/readyz" | "/healthz" | "/metrics" | "/api/v1/status" | "/api/v1/check"
        );
        if !known {
            return answer(
                StatusCode::NOT_FOUND,
                TEXT,
                "no such page; there are: /livez /readyz /metrics /api/v1/status /api/v1/check /api/v1/plan /api/v1/pause /api/v1/resume\n",
            );
        }
        if request.method() != Method::GET {
            let mut refused = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            return refused;
        }
        match request.uri().path() {
            "/livez" => answer(StatusCode::OK, TEXT, "ok\n"),
            "/readyz" | "/healthz" => self.ready(verbose(request.uri().query())),
            "/metrics" => answer(StatusCode::OK, OPEN_METRICS, metrics::render(&self.source.status())),
            "/api/v1/status" => json(&self.source.status()),
            "/api/v1/check" => self.check().await,
            _ => answer(StatusCode::OK, TEXT, "linkspan: /livez /readyz /metrics /api/v1/status /api/v1/check\n"),
        }
    }

    /// What the operator asks to be done.
    async fn act(&self, request: Request<Incoming>, peer: SocketAddr) -> Answer {
        if request.method() != Method::POST {
            let mut refused = answer(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only POST\n");
            refused.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
            return refused;
        }
        if let Err(mut refusal) = guard::judge(request.headers(), peer, self.token.as_ref()) {
            tracing::warn!(%peer, path = request.uri().path(), "a change over the admin port was refused: {}", refusal.what);
            refusal.code = Some(Code::CHANGE_ALLOWED);
            return refused(&refusal);
        }
        let path = request.uri().path().to_owned();
        let done = tokio::time::timeout(ACT_TIMEOUT, async {
            let body = body(request).await?;
            self.dispatch(&path, &body).await
        });
        match done.await {
            Ok(Ok(page)) => page,
            Ok(Err(refusal)) => refused(&refusal),
            Err(_) => {
                let what = format!("not done within {} s", ACT_TIMEOUT.as_secs());
                refused(&Refusal::new(RefusalKind::Unavailable, what))
            }
        }
    }

    async fn dispatch(&self, path: &str, body: &[u8]) -> Result<Answer, Refusal> {
        Ok(match path {
            "/api/v1/pause" => json(&self.source.pause(read::<Selector>(body)?, true).await?),
            "/api/v1/resume" => json(&self.source.pause(read::<Selector>(body)?, false).await?),
            "/api/v1/verify" => json(&self.source.verify(read::<VerifyRequest>(body)?).await?),
            _ => json(&self.source.plan(read::<PlanRequest>(body)?.flows).await?),
        })
    }

    fn ready(&self, verbose: bool) -> Answer {
        let status = self.source.status();
        let ready = status.is_ready();
        let mut text = String::new();
        if verbose {
            for check in status.readiness() {
                let sign = match (check.ok, check.required) {
                    (true, _) => "[+]",
                    (false, true) => "[-]",
                    (false, false) => "[ ]",
                };
                let note = if check.required { "" } else { " (for information)" };
                text.push_str(&format!("{sign} {}{note}\n", check.name));
            }
        }
        text.push_str(if ready { "ok\n" } else { "not ready\n" });
        answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, TEXT, text)
    }

    async fn check(&self) -> Answer {
        let examined = tokio::time::timeout(PROBE_TIMEOUT, async {
            let _one = self.probing.lock().await;
            self.source.probe().await
        });
        match examined.await {
            Ok(facts) => json(&facts),
            Err(_) => answer(
                StatusCode::GATEWAY_TIMEOUT,
                TEXT,
                format!("the clusters were not examined within {} s\n", PROBE_TIMEOUT.as_secs()),
            ),
        }
    }
}

/// Pages that need a `POST`.
const ACTIONS: [&str; 4] = ["/api/v1/plan", "/api/v1/verify", "/api/v1/pause", "/api/v1/resume"];

/// Which flows a plan is for.
#[derive(Debug, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PlanRequest {
    #[serde(default)]
    flows: Option<Vec<FlowConfig>>,
}

async fn body(request: Request<Incoming>) -> Result<Bytes, Refusal> {
    let whole = tokio::time::timeout(HEADER_TIMEOUT, Limited::new(request.into_body(), MAX_BODY).collect());
    let invalid = |what: String| Refusal::new(RefusalKind::Invalid, what);
    match whole.await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) => {
            Err(invalid(format!("the request's body cannot be read (at most {MAX_BODY} bytes): {error}")))
        }
        Err(_) => Err(invalid(format!("the request's body did not come within {} s", HEADER_TIMEOUT.as_secs()))),
    }
}

fn read<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body)
        .map_err(|error| Refusal::new(RefusalKind::Invalid, format!("the request's body is not understood: {error}")))
}

fn refused(refusal: &Refusal) -> Answer {
    let mut page = json(refusal);
    *page.status_mut() = match refusal.kind {
        RefusalKind::Invalid => StatusCode::BAD_REQUEST,
        RefusalKind::Forbidden => StatusCode::FORBIDDEN,
        RefusalKind::Unknown => StatusCode::NOT_FOUND,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    };
    page
}

/// Whether a query asks for the long form: `verbose`, alone or among others, with any value but `0` and `false`.
fn verbose(query: Option<&str>) -> bool {
    query.is_some_and(|query| {
        query.split('&').any(|pair| match pair.split_once('=') {
            None => pair == "verbose",
            Some((key, value)) => key == "verbose" && !matches!(value, "0" | "false"),
        })
    })
}

fn json(document: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(document) {
        Ok(mut body) => {
            body.push(b'\n');
            answer(StatusCode::OK, JSON, body)
        }
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

fn answer(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::sync::PoisonError;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::facts::{ClusterFact, Fact, Side};
    use super::super::operate::{Outcome, PauseDocument, PausedFlow, PlanDocument, VerifyPart, VerifyTarget};
    use super::super::status::{State, Status, sample};
    use super::*;
    use crate::net::BoxFuture;

    struct Fixed(std::sync::Mutex<Status>);

    impl StatusSource for Fixed {
        fn status(&self) -> Status {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
        }

        fn probe(&self) -> BoxFuture<'_, Vec<Fact>> {
            Box::pin(async {
                vec![Fact::Cluster(ClusterFact {
                    side: Side::Peer,
                    cluster: "orange".to_owned(),
                    found: Err("the tunnel is down".to_owned()),
                })]
            })
        }
    }

    impl Operator for Fixed {
        fn pause(&self, what: Selector, paused: bool) -> Outcome<'_, PauseDocument> {
            Box::pin(async move {
                if what.topic.as_deref() == Some("unknown") {
                    return Err(Refusal::new(RefusalKind::Unknown, "no such topic"));
                }
                let topics = what.topic.into_iter().collect();
                let flow = PausedFlow { flow: what.flow.unwrap_or_default(), paused, topics };
                Ok(PauseDocument { schema: "linkspan/v1/Pause".to_owned(), flows: vec![flow] })
            })
        }

        fn verify(&self, ask: VerifyRequest) -> Outcome<'_, VerifyPart> {
            Box::pin(async move {
                let target = VerifyTarget { flow: "f".to_owned(), topic: ask.topic.unwrap_or_default(), partition: 0 };
                Ok(VerifyPart::Partitions(vec![target]))
            })
        }

        fn plan(&self, flows: Option<Vec<FlowConfig>>) -> Outcome<'_, PlanDocument> {
            Box::pin(async move {
                let (schema, link) = ("linkspan/v1/Plan".to_owned(), "l".to_owned());
                let changes = flows.map_or(0, |flows| flows.len() as u64);
                Ok(PlanDocument { schema, link, changes, problems: 0, flows: Vec::new() })
            })
        }
    }

    struct Running {
        address: SocketAddr,
        drain: Drain,
        source: Arc<Fixed>,
    }

    async fn start(status: Status) -> Running {
        let server = AdminServer::bind(SocketAddr::from(([127, 0, 0, 1], 0)), None).await.expect("a free port");
        let (address, drain) = (server.local_addr(), Drain::new());
        let source = Arc::new(Fixed(std::sync::Mutex::new(status)));
        drain.spawn(server.run(drain.clone(), Arc::clone(&source) as Arc<dyn AdminSource>));
        Running { address, drain, source }
    }

    async fn raw(address: SocketAddr, request: &[u8]) -> String {
        let mut socket = TcpStream::connect(address).await.expect("connect");
        // The server may answer and close before all of a bad request is written.
        let _ = socket.write_all(request).await;
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        String::from_utf8(answer).expect("text")
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String) {
        let answer =
            raw(address, format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    #[tokio::test]
    async fn serves_its_pages_and_stops_with_the_drain() {
        let running = start(sample::busy()).await;
        let at = running.address;
        assert_eq!(get(at, "/livez").await, (200, "ok\n".to_owned()));
        assert_eq!(get(at, "/readyz").await, (200, "ok\n".to_owned()));
        assert_eq!(get(at, "/healthz").await, (200, "ok\n".to_owned()));
        let (code, metrics) = get(at, "/metrics").await;
        assert_eq!(code, 200);
        assert!(metrics.contains("linkspan_tunnel_up{") && metrics.ends_with("# EOF\n"));
        let (code, status) = get(at, "/api/v1/status").await;
        assert_eq!((code, serde_json::from_str::<Status>(&status).expect("a status")), (200, sample::busy()));
        let (code, facts) = get(at, "/api/v1/check").await;
        assert_eq!((code, serde_json::from_str::<Vec<Fact>>(&facts).expect("facts").len()), (200, 1));
        assert!(running.drain.drain(Duration::from_secs(5)).await, "drains without force");
        assert!(TcpStream::connect(at).await.is_err(), "the port is closed");
    }

    async fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> (u16, String) {
        let request = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        );
        let answer = raw(address, request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head[9..12].parse().expect("a status"), body.to_owned())
    }

    #[tokio::test]
    async fn changes_need_a_post_of_json_that_no_web_page_makes() {
        let running = start(sample::busy()).await;
        let at = running.address;
        let json = "Content-Type: application/json\r\n";
        let (code, body) = post(at, "/api/v1/pause", json, r#"{"flow":"f","topic":"t"}"#).await;
        let done: PauseDocument = serde_json::from_str(&body).expect("a document");
        assert_eq!((code, done.flows[0].paused, &*done.flows[0].topics), (200, true, &["t".to_owned()][..]));
        let (code, body) = post(at, "/api/v1/resume", json, "").await;
        let done: PauseDocument = serde_json::from_str(&body).expect("a document");
        assert_eq!((code, done.flows[0].paused), (200, false));
        assert_eq!(post(at, "/api/v1/plan", json, "{}").await.0, 200);
        let (code, listed) = post(at, "/api/v1/verify", json, r#"{"topic":"t"}"#).await;
        assert_eq!((code, listed.trim_end()), (200, r#"{"partitions":[{"flow":"f","topic":"t","partition":0}]}"#));

        assert_eq!(get(at, "/api/v1/pause").await, (405, "only POST\n".to_owned()));
        let (code, body) = post(at, "/api/v1/pause", &format!("{json}Origin: http://evil.example\r\n"), "{}").await;
        assert_eq!(code, 403);
        let refusal: Refusal = serde_json::from_str(&body).expect("a refusal");
        assert_eq!(refusal.code, Some(Code::CHANGE_ALLOWED));
        assert_eq!(post(at, "/api/v1/pause", "", "{}").await.0, 400);
        assert_eq!(post(at, "/api/v1/pause", json, r#"{"topic":"unknown"}"#).await.0, 404);
        for wrong in ["{", "7", r#"{"topics":"t"}"#, r#"{"topic":7}"#] {
            assert_eq!(post(at, "/api/v1/pause", json, wrong).await.0, 400, "{wrong}");
        }
        let huge = format!("{{\"topic\":\"{}\"}}", "a".repeat(MAX_BODY));
        assert_ne!(post(at, "/api/v1/pause", json, &huge).await.0, 200);
        running.drain.drain(Duration::from_secs(5)).await;
    }

    #[tokio::test]
    async fn readiness_flips_with_the_status_and_liveness_does_not() {
        let running = start(sample::starting()).await;
        let at = running.address;
        assert_eq!(get(at, "/readyz").await, (503, "not ready\n".to_owned()));
        assert_eq!(get(at, "/livez").await.0, 200);
        running.source.0.lock().expect("lock").state = State::Up;
        assert_eq!(get(at, "/readyz").await.0, 200);
        running.source.0.lock().expect("lock").local.reachable = Some(false);
        assert_eq!(
            get(at, "/readyz?verbose").await,
            (
                503,
                "[+] started\n[-] local-cluster\n[ ] tunnel (for information)\n[+] link (for information)\nnot ready\n"
                    .to_owned()
            )
        );
        assert_eq!(get(at, "/livez").await.0, 200);
        running.drain.drain(Duration::from_secs(5)).await;
    }

    #[tokio::test]
    async fn bad_input_gets_a_proper_answer_or_none() {
        let running = start(sample::busy()).await;
        let at = running.address;
        assert_eq!(get(at, "/nothing").await.0, 404);
        assert_eq!(get(at, "/livez/").await.0, 404);
        assert_eq!(get(at, "/..%2fetc%2fpasswd").await.0, 404);
        for method in ["POST", "HEAD", "PUT", "DELETE", "OPTIONS", "CONNECT"] {
            let target = if method == "CONNECT" { "x:1" } else { "/livez" };
            let request =
                format!("{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
            let answer = raw(at, request.as_bytes()).await;
            let expected = if method == "CONNECT" { "HTTP/1.1 404" } else { "HTTP/1.1 405" };
            assert!(answer.starts_with(expected), "{method}: {answer}");
        }
        assert!(raw(at, b"GET / HTTP/1.1\r\nHost: x\r\nX: \0\r\n\r\n").await.starts_with("HTTP/1.1 400"));
        let mut huge = b"GET / HTTP/1.1\r\nHost: x\r\nX: ".to_vec();
        huge.resize(64 * 1024, b'a');
        assert!(!raw(at, &huge).await.contains("200 OK"));
        for noise in
            [&b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..], b"SSH-2.0-OpenSSH_9.9\r\n\r\n", &[0xff; 300]]
        {
            assert!(!raw(at, noise).await.contains("200 OK"));
        }
        assert_eq!(get(at, "/livez").await.0, 200);
        running.drain.drain(Duration::from_secs(5)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_client_is_dropped_and_does_not_hold_up_the_drain() {
        let running = start(sample::busy()).await;
        let mut silent = TcpStream::connect(running.address).await.expect("connect");
        let mut rest = Vec::new();
        let _ = silent.read_to_end(&mut rest).await;
        let mut half = TcpStream::connect(running.address).await.expect("connect");
        half.write_all(b"GET /livez HT").await.expect("write");
        assert!(running.drain.drain(Duration::from_secs(20)).await);
    }

    #[test]
    fn verbose_is_read_from_the_query() {
        assert!(verbose(Some("verbose")) && verbose(Some("verbose=1")) && verbose(Some("a=b&verbose")));
        assert!(!verbose(None) && !verbose(Some("")) && !verbose(Some("verbose=0")) && !verbose(Some("verboses")));
    }
}
