//! Auth offload over loopback: a broker that wants SASL, lets sessions last for a moment, and notes whoever breaks its rules.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::{BufMut as _, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{
    ApiVersionsResponse, RequestHeader, ResponseHeader, SaslAuthenticateRequest, SaslAuthenticateResponse,
    SaslHandshakeResponse,
};
use kafka_protocol::protocol::{Decodable as _, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::login::{Login, LoginError};
use super::rewrite::test_support::{end_txn, frame, request};
use super::rewriter::{Rewriter, RewriterHandle};
use super::rewriter_tests::{Names, PATIENCE, read_frame, soon};
use crate::config::{ClientsConfig, RewriteConfig, Sasl, SaslMechanism, Secret, TlsClient, TlsServer};
use crate::kafka::api;
use crate::lifecycle::Drain;
use crate::net::tcp::TcpDial;
use crate::net::tls::TlsConnector;
use crate::net::{BoxStream, Dial as _, HostPort, SharedDial};
use crate::sasl::{Authenticator, users};

/// What a broker saw.
#[derive(Default)]
struct Seen {
    /// API key and correlation id of each request, connections mixed.
    requests: Mutex<Vec<(i16, i32)>>,
    authenticated: AtomicU64,
    /// Rules of KIP-368 that were broken.
    broken: Mutex<Vec<String>>,
}

/// A broker on which `srckey` with the password `right` may work for `lifetime` at a time.
struct SaslBroker {
    lifetime: Duration,
    /// How long each answer takes.
    pause: Duration,
    seen: Arc<Seen>,
}

impl SaslBroker {
    async fn start(self, names: &Names) -> Arc<Seen> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        names.set("b0.orange.example", listener.local_addr().expect("bound"));
        let seen = Arc::clone(&self.seen);
        let broker = Arc::new(self);
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let broker = Arc::clone(&broker);
                tokio::spawn(async move { broker.serve(socket).await });
            }
        });
        seen
    }

    async fn serve(&self, mut socket: TcpStream) {
        let mut session_end = None;
        let mut conversing = false;
        while let Some(body) = read_frame(&mut socket).await {
            let key = i16::from_be_bytes([body[0], body[1]]);
            let version = i16::from_be_bytes([body[2], body[3]]);
            let id = i32::from_be_bytes([body[4], body[5], body[6], body[7]]);
            self.seen.requests.lock().expect("no panic").push((key, id));
            let broken = |what: &str| self.seen.broken.lock().expect("no panic").push(format!("{what}: API {key}"));
            let answer = match key {
                api::API_VERSIONS => versions(id, version),
                api::SASL_HANDSHAKE => {
                    conversing = true;
                    answer(id, version, &SaslHandshakeResponse::default())
                }
                api::SASL_AUTHENTICATE => {
                    if !conversing {
                        broken("authenticate without handshake");
                    }
                    conversing = false;
                    let mut bytes = bytes::Bytes::from(body).split_off(0);
                    RequestHeader::decode(&mut bytes, SaslAuthenticateRequest::header_version(version))
                        .expect("a header");
                    let asked = SaslAuthenticateRequest::decode(&mut bytes, version).expect("a body");
                    if &asked.auth_bytes[..] == b"\0srckey\0right" {
                        self.seen.authenticated.fetch_add(1, Ordering::Relaxed);
                        session_end = Some(Instant::now() + self.lifetime);
                        let lifetime = i64::try_from(self.lifetime.as_millis()).expect("short");
                        answer(id, version, &SaslAuthenticateResponse::default().with_session_lifetime_ms(lifetime))
                    } else {
                        let said = StrBytes::from_static_str("Invalid username or password");
                        let no = SaslAuthenticateResponse::default().with_error_code(58).with_error_message(Some(said));
                        let _ = socket.write_all(&answer(id, version, &no)).await;
                        return;
                    }
                }
                _ => {
                    if conversing {
                        broken("a request within the conversation");
                    }
                    if session_end.is_none_or(|end| end < Instant::now()) {
                        broken("a request without a session");
                        return;
                    }
                    tokio::time::sleep(self.pause).await;
                    frame(&[&id.to_be_bytes()[..], b"echo"].concat())
                }
            };
            if socket.write_all(&answer).await.is_err() {
                return;
            }
        }
    }
}

fn answer<M: Encodable + HeaderVersion>(id: i32, version: i16, message: &M) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(id);
    header.encode(&mut out, M::header_version(version)).expect("a header");
    message.encode(&mut out, version).expect("a body");
    let length = i32::try_from(out.len() - 4).expect("short");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.to_vec()
}

fn versions(id: i32, version: i16) -> Vec<u8> {
    let offered = [(2, 1, 9), (17, 0, 1), (18, 0, 4), (36, 0, 2), (30_000, 0, 7)]
        .map(|(key, min, max)| ApiVersion::default().with_api_key(key).with_min_version(min).with_max_version(max));
    answer(id, version, &ApiVersionsResponse::default().with_api_keys(offered.to_vec()))
}

struct Proxy {
    address: std::net::SocketAddr,
    handle: RewriterHandle,
    drain: Drain,
    _state: tempfile::TempDir,
}

impl Proxy {
    fn start(names: Arc<Names>, password: &str, first_port: u16, clients: ClientsConfig) -> Self {
        let state = tempfile::tempdir().expect("a directory");
        let config = RewriteConfig {
            listen: "127.0.0.1:0".parse().expect("an address"),
            advertise: "127.0.0.1".to_owned(),
            ports: first_port..=first_port + 9,
            upstream_tls: None,
            auth: Some(Sasl::Password {
                mechanism: SaslMechanism::Plain,
                username: "srckey".to_owned(),
                password: Secret::new(password.to_owned()),
            }),
            clients,
        };
        let bootstrap = vec![HostPort::new("b0.orange.example", 9092).expect("a name")];
        let dial: SharedDial = names;
        let rewriter = Rewriter::bind(&config, "orange", bootstrap, dial, state.path()).expect("bound");
        let (address, handle, drain) = (rewriter.local_addr(), rewriter.handle(), Drain::new());
        drain.spawn(rewriter.run(drain.clone()));
        Self { address, handle, drain, _state: state }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    async fn stop(self) {
        assert!(self.drain.drain(PATIENCE).await, "drained in time");
        let status = self.handle.status();
        assert_eq!(status.connections_open, 0, "active = total - ended");
    }
}

async fn started(lifetime: Duration, password: &str, first_port: u16) -> (Proxy, Arc<Seen>) {
    asking(lifetime, password, first_port, ClientsConfig::default()).await
}

/// A proxy that asks something of its clients.
async fn asking(lifetime: Duration, password: &str, first_port: u16, clients: ClientsConfig) -> (Proxy, Arc<Seen>) {
    let names = Arc::new(Names::default());
    let broker = SaslBroker { lifetime, pause: Duration::from_millis(2), seen: Arc::default() };
    let seen = broker.start(&names).await;
    (Proxy::start(names, password, first_port, clients), seen)
}

/// An ApiVersions request; up to version 2 its body is empty.
fn ask_versions(id: i32) -> Vec<u8> {
    let mut body = b"\0\x12\0\x02".to_vec();
    body.extend(id.to_be_bytes());
    body.extend(b"\0\x02me");
    frame(&body)
}

#[tokio::test]
async fn a_client_without_credentials_is_served_and_sees_no_sasl() {
    let (proxy, seen) = started(Duration::from_secs(60), "right", 21_300).await;
    let mut client = proxy.connect().await;
    client.write_all(&ask_versions(1)).await.expect("written");
    let body = soon("versions", read_frame(&mut client)).await.expect("an answer");
    let mut bytes = bytes::Bytes::from(body).split_off(4);
    let offered: ApiVersionsResponse = kafka_protocol::protocol::Decodable::decode(&mut bytes, 2).expect("a body");
    let keys: Vec<i16> = offered.api_keys.iter().map(|api| api.api_key).collect();
    assert_eq!(keys, [2, 18, 30_000]);
    client.write_all(&request(2, 1, 2)).await.expect("written");
    assert_eq!(soon("an answer", read_frame(&mut client)).await.expect("an answer")[4..], *b"echo");

    // One that is set to SASL is told so, in its turn and without troubling the broker.
    client.write_all(&[request(2, 1, 3), request(17, 1, 4), request(2, 1, 5)].concat()).await.expect("written");
    assert_eq!(soon("an answer", read_frame(&mut client)).await.expect("an answer")[..4], 3_i32.to_be_bytes());
    let refusal = soon("a refusal", read_frame(&mut client)).await.expect("an answer");
    assert_eq!(refusal, [&4_i32.to_be_bytes()[..], &34_i16.to_be_bytes(), &0_i32.to_be_bytes()].concat());
    assert_eq!(soon("an answer", read_frame(&mut client)).await.expect("an answer")[..4], 5_i32.to_be_bytes());

    let first = i32::MIN;
    assert_eq!(
        *seen.requests.lock().expect("no panic"),
        [(18, first), (17, first + 1), (36, first + 2), (18, 1), (2, 2), (2, 3), (2, 5)],
        "ids of our own are below zero"
    );
    assert_eq!(proxy.handle.status().not_authenticated, None);
    drop(client);
    proxy.stop().await;
}

#[tokio::test]
async fn a_refusal_reaches_the_client_as_a_kafka_error() {
    let (proxy, seen) = started(Duration::from_secs(60), "wrong-secret", 21_310).await;
    let mut client = proxy.connect().await;
    client.write_all(&ask_versions(1)).await.expect("written");
    let body = soon("a refusal", read_frame(&mut client)).await.expect("an answer");
    assert_eq!(body[..6], [&1_i32.to_be_bytes()[..], &58_i16.to_be_bytes()].concat(), "SASL_AUTHENTICATION_FAILED");
    assert_eq!(soon("an end", client.read(&mut [0])).await.expect("a clean one"), 0);

    // An API without a form for it: the connection is cut.
    let mut client = proxy.connect().await;
    client.write_all(&request(2, 1, 2)).await.expect("written");
    soon("a cut", client.read(&mut [0])).await.expect_err("a reset");

    let status = proxy.handle.status();
    assert_eq!(status.refused["authentication: refused by a broker"], 2);
    let why = status.not_authenticated.expect("a reason");
    assert_eq!(why, "b0.orange.example:9092 did not accept the PLAIN credentials: Invalid username or password");
    assert!(!seen.requests.lock().expect("no panic").iter().any(|(_, id)| *id >= 0), "no client's request passed");
    proxy.stop().await;
}

#[tokio::test]
async fn sessions_are_renewed_under_load_without_losing_a_request() {
    let (proxy, seen) = started(Duration::from_millis(1_300), "right", 21_320).await;
    let client = proxy.connect().await;
    let (mut reader, mut writer) = client.into_split();
    let stop = Arc::new(tokio::sync::Notify::new());
    let stopped = Arc::clone(&stop);
    // Up to twenty requests in flight, cut at odd places.
    let room = Arc::new(tokio::sync::Semaphore::new(20));
    let taken = Arc::clone(&room);
    let sending = tokio::spawn(async move {
        let mut id = 0;
        loop {
            tokio::select! {
                () = stopped.notified() => return (id, writer),
                room = taken.acquire() => room.expect("open").forget(),
            }
            let bytes = request(2, 1, id);
            let (a, b) = bytes.split_at(usize::try_from(id).expect("positive") % bytes.len());
            writer.write_all(a).await.expect("written");
            tokio::task::yield_now().await;
            writer.write_all(b).await.expect("written");
            id += 1;
        }
    });
    let mut answered = 0;
    let renewed = || proxy.handle.status().reauthentications;
    while renewed() < 2 {
        let length = soon("an answer", reader.read_u32()).await.expect("never cut");
        assert_eq!((length, soon("an id", reader.read_i32()).await.expect("never cut")), (8, answered));
        reader.read_exact(&mut [0; 4]).await.expect("never cut");
        answered += 1;
        room.add_permits(1);
    }
    stop.notify_one();
    let (sent, writer) = sending.await.expect("no panic");
    while answered < sent {
        let length = soon("an answer", reader.read_u32()).await.expect("never cut");
        assert_eq!((length, reader.read_i32().await.expect("never cut")), (8, answered));
        reader.read_exact(&mut [0; 4]).await.expect("never cut");
        answered += 1;
    }
    assert_eq!(*seen.broken.lock().expect("no panic"), Vec::<String>::new());
    assert!(seen.authenticated.load(Ordering::Relaxed) >= 3 && sent > 200, "{sent} requests");
    drop((reader, writer));
    proxy.stop().await;
}

#[tokio::test]
async fn an_idle_connection_is_renewed_when_its_client_speaks_again() {
    let (proxy, seen) = started(Duration::from_millis(1_200), "right", 21_330).await;
    let mut client = proxy.connect().await;
    client.write_all(&request(2, 1, 1)).await.expect("written");
    soon("an answer", read_frame(&mut client)).await.expect("an answer");
    // Used once, so it is renewed once; then it lies idle beyond its session's end.
    while seen.authenticated.load(Ordering::Relaxed) < 2 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert_eq!(seen.authenticated.load(Ordering::Relaxed), 2, "idle");
    client.write_all(&request(2, 1, 2)).await.expect("written");
    soon("an answer", read_frame(&mut client)).await.expect("an answer");
    assert_eq!((seen.authenticated.load(Ordering::Relaxed), proxy.handle.status().reauthentications), (3, 2));
    assert_eq!(*seen.broken.lock().expect("no panic"), Vec::<String>::new());
    drop(client);
    proxy.stop().await;
}

/// A client's own login at the proxy, by the same code that logs the proxy in at brokers.
async fn log_in(proxy: &Proxy, mechanism: SaslMechanism, name: &str, password: &str) -> Result<BoxStream, LoginError> {
    let target: HostPort = proxy.address.into();
    let mut stream = TcpDial::new(PATIENCE).dial(&target).await.expect("connected");
    let sasl = Sasl::Password { mechanism, username: name.to_owned(), password: Secret::new(password.to_owned()) };
    let mut login = Login::new(Arc::new(Authenticator::new(&sasl)), target);
    login.run(&mut stream).await.map(|_| stream)
}

/// A file with one user, alice.
fn users_file() -> (ClientsConfig, tempfile::TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("users");
    std::fs::write(&file, users::lines("alice", "own-secret").expect("lines")).expect("written");
    (ClientsConfig { users_file: Some(file), ..ClientsConfig::default() }, dir)
}

async fn with_users(first_port: u16) -> (Proxy, Arc<Seen>, tempfile::TempDir) {
    let (clients, dir) = users_file();
    let (proxy, seen) = asking(Duration::from_secs(60), "right", first_port, clients).await;
    (proxy, seen, dir)
}

#[tokio::test]
async fn clients_prove_who_they_are_and_use_the_proxys_credentials() {
    let (proxy, seen, _dir) = with_users(21_340).await;
    for mechanism in [SaslMechanism::Plain, SaslMechanism::ScramSha256, SaslMechanism::ScramSha512] {
        let mut stream = log_in(&proxy, mechanism, "alice", "own-secret").await.expect("let in");
        stream.write_all(&request(2, 1, 9)).await.expect("written");
        let mut answer = [0; 12];
        soon("an answer", stream.read_exact(&mut answer)).await.expect("an answer");
        assert_eq!(answer[4..8], 9_i32.to_be_bytes());
    }
    let seen = seen.requests.lock().expect("no panic").clone();
    // Each connection: our own three, and the client's ApiVersions and request; nothing of its SASL.
    assert_eq!(seen.iter().filter(|(key, id)| matches!(*key, 17 | 36) && *id > -1_000_000).count(), 0, "{seen:?}");
    assert_eq!(seen.iter().filter(|(key, _)| *key == 2).count(), 3);
    proxy.stop().await;
}

#[tokio::test]
async fn who_does_not_prove_it_gets_nothing() {
    let (proxy, seen, _dir) = with_users(21_350).await;
    for (mechanism, name, password) in [
        (SaslMechanism::Plain, "alice", "wrong"),
        (SaslMechanism::Plain, "bob", "own-secret"),
        (SaslMechanism::ScramSha256, "alice", "wrong"),
        (SaslMechanism::ScramSha512, "bob", "own-secret"),
        // The proxy's own towards the brokers are nobody's here.
        (SaslMechanism::Plain, "srckey", "right"),
    ] {
        let refused = log_in(&proxy, mechanism, name, password).await.err().expect("refused");
        let LoginError::Refused { detail, .. } = refused else { panic!("{refused}") };
        assert_eq!(detail, "Authentication failed: wrong user name or password", "{name}");
    }
    // A request without, before, and after a failed conversation.
    let mut client = proxy.connect().await;
    client.write_all(&request(2, 1, 1)).await.expect("written");
    assert_eq!(soon("an end", client.read(&mut [0])).await.unwrap_or(0), 0);
    let mut client = proxy.connect().await;
    let handshake = crate::kafka::sasl::handshake_request(1, "me", "PLAIN");
    let wrong = crate::kafka::sasl::authenticate_request(2, 2, "me", b"\0alice\0wrong");
    client.write_all(&[handshake, wrong, request(2, 1, 3)].concat()).await.expect("written");
    let mut rest = Vec::new();
    let _ = soon("an end", client.read_to_end(&mut rest)).await;
    assert!(!rest.windows(4).any(|window| window == b"echo"), "{rest:?}");

    let status = proxy.handle.status();
    assert_eq!(status.refused["client not authenticated"], 2);
    assert!(status.refused["client authentication failed"] >= 5, "{:?}", status.refused);
    assert!(!seen.requests.lock().expect("no panic").iter().any(|(key, _)| *key == 2), "no request passed");
    proxy.stop().await;
}

#[tokio::test]
async fn denied_requests_are_refused_and_told_once_for_each_user() {
    let (mut clients, _dir) = users_file();
    clients.read_only = true;
    let (proxy, seen) = asking(Duration::from_secs(60), "right", 21_380, clients).await;
    for round in 1..=2 {
        let mut stream = log_in(&proxy, SaslMechanism::Plain, "alice", "own-secret").await.expect("let in");
        stream.write_all(&[end_txn(8), request(2, 1, 9)].concat()).await.expect("written");
        stream.flush().await.expect("flushed");
        let mut answers = [0; 14 + 12];
        soon("answers", stream.read_exact(&mut answers)).await.expect("answers");
        assert_eq!(answers[..14], *b"\0\0\0\x0a\0\0\0\x08\0\0\0\0\0\x35");
        assert_eq!(answers[18..22], 9_i32.to_be_bytes());
        let status = proxy.handle.status();
        assert_eq!((status.denied["EndTxn"], status.denials.len()), (round, 1));
        let denial = &status.denials[0];
        assert_eq!((denial.client.as_str(), denial.api, denial.requests), ("alice", "EndTxn", round));
        drop(stream);
    }
    assert!(!seen.requests.lock().expect("no panic").iter().any(|(key, _)| *key == 26), "nothing of it passed");
    proxy.stop().await;
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_no_more() {
    let (mut clients, _dir) = users_file();
    clients.connections = Some(2);
    clients.bytes_in_per_second = std::num::NonZeroU64::new(1 << 20);
    let (proxy, _seen) = asking(Duration::from_secs(60), "right", 21_400, clients).await;
    let user = async || {
        let mut stream = log_in(&proxy, SaslMechanism::Plain, "alice", "own-secret").await.ok()?;
        stream.write_all(&request(2, 1, 9)).await.ok()?;
        let mut answer = [0; 12];
        soon("an answer or an end", stream.read_exact(&mut answer)).await.ok()?;
        Some(stream)
    };
    // Both are alice's, so that her address has none.
    let held = [user().await.expect("the first"), user().await.expect("the second")];
    assert!(user().await.is_none(), "a third");
    let silent = [proxy.connect().await, proxy.connect().await];
    soon("both counted", async {
        while proxy
            .handle
            .status()
            .clients
            .iter()
            .find(|one| one.client == "127.0.0.1")
            .is_none_or(|one| one.connections < 2)
        {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let mut third = proxy.connect().await;
    assert_eq!(soon("an end", third.read(&mut [0])).await.unwrap_or(0), 0);
    let status = proxy.handle.status();
    assert_eq!((status.refused["too many connections of a client"], status.clients_open), (2, 2));
    let alice = status.clients.iter().find(|one| one.client == "alice").expect("alice");
    let sent = 2 * request(2, 1, 9).len() as u64;
    assert_eq!((alice.connections, alice.bytes_in), (2, sent), "what went once she was known");
    drop((silent, held));
    soon("given back", async {
        while proxy.handle.status().connections_open > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert!(user().await.is_some());
    proxy.stop().await;
}

#[tokio::test]
async fn an_api_that_cannot_be_refused_is_counted_and_closed_on() {
    let clients = ClientsConfig { deny: vec![1], ..ClientsConfig::default() };
    let (proxy, _seen) = asking(Duration::from_secs(60), "right", 21_390, clients).await;
    for requests in [vec![request(1, 4, 1)], vec![request(2, 1, 1), request(1, 4, 2)]] {
        let mut client = proxy.connect().await;
        client.write_all(&requests.concat()).await.expect("written");
        let _ = soon("an end", client.read_to_end(&mut Vec::new())).await;
    }
    let status = proxy.handle.status();
    assert_eq!((status.denied["Fetch"], status.refused["API not allowed"]), (2, 2));
    assert_eq!(
        status.denials.iter().map(|one| (one.client.as_str(), one.requests)).collect::<Vec<_>>(),
        [("127.0.0.1", 2)]
    );
    proxy.stop().await;
}

/// A CA, and certificates of it.
fn authority(dir: &std::path::Path, names: &[&str]) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
    std::fs::write(dir.join("ca.pem"), issuer.pem()).expect("written");
    for name in names {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![(*name).to_owned()]).expect("a name");
        std::fs::write(dir.join(format!("{name}.pem")), params.signed_by(&key, &issuer).expect("signed").pem())
            .expect("written");
        std::fs::write(dir.join(format!("{name}.key")), key.serialize_pem()).expect("written");
    }
}

#[tokio::test]
async fn tls_clients_are_served_and_those_without_a_certificate_are_not() {
    let dir = tempfile::tempdir().expect("a directory");
    authority(dir.path(), &["127.0.0.1", "client"]);
    let path = |name: &str| dir.path().join(name);
    let tls = TlsServer { cert: path("127.0.0.1.pem"), key: path("127.0.0.1.key"), client_ca: Some(path("ca.pem")) };
    let clients = ClientsConfig { tls: Some(tls), ..ClientsConfig::default() };
    let (proxy, _seen) = asking(Duration::from_secs(60), "right", 21_360, clients).await;
    let connect = async |identity: Option<(std::path::PathBuf, std::path::PathBuf)>| {
        let target: HostPort = proxy.address.into();
        let settings = TlsClient { ca_file: Some(path("ca.pem")), identity, verify_hostname: true };
        let stream = TcpDial::new(PATIENCE).dial(&target).await.expect("connected");
        let mut stream = TlsConnector::new(&settings).expect("files").connect(&target, stream).await.ok()?;
        stream.write_all(&request(2, 1, 5)).await.ok()?;
        stream.flush().await.ok()?;
        let mut answer = [0; 12];
        soon("an answer", stream.read_exact(&mut answer)).await.ok()?;
        Some(answer)
    };
    let answer = connect(Some((path("client.pem"), path("client.key")))).await.expect("served");
    assert_eq!(answer[4..8], 5_i32.to_be_bytes());
    assert_eq!(connect(None).await, None);
    let mut plain = proxy.connect().await;
    plain.write_all(&request(2, 1, 5)).await.expect("written");
    let mut rest = Vec::new();
    let _ = soon("an end", plain.read_to_end(&mut rest)).await;
    assert!(!rest.windows(4).any(|window| window == b"echo"));
    soon("counted", async {
        while proxy.handle.status().refused.get("TLS with a client") != Some(&2) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    proxy.stop().await;
}

#[tokio::test]
async fn a_proxy_header_is_taken_off_and_must_be_there() {
    let clients = ClientsConfig { proxy_protocol: true, ..ClientsConfig::default() };
    let (proxy, _seen) = asking(Duration::from_secs(60), "right", 21_370, clients).await;
    let header = b"PROXY TCP4 203.0.113.5 10.0.0.1 40000 9092\r\n";
    // At once, and byte by byte.
    for chunk in [usize::MAX, 1] {
        let mut client = proxy.connect().await;
        let bytes = [&header[..], &request(2, 1, 5)].concat();
        for part in bytes.chunks(chunk.min(bytes.len())) {
            client.write_all(part).await.expect("written");
            client.flush().await.expect("flushed");
        }
        assert_eq!(soon("an answer", read_frame(&mut client)).await.expect("an answer")[..4], 5_i32.to_be_bytes());
    }
    let mut client = proxy.connect().await;
    client.write_all(&request(2, 1, 5)).await.expect("written");
    assert_eq!(soon("an end", client.read(&mut [0])).await.unwrap_or(0), 0);
    assert_eq!(proxy.handle.status().refused["PROXY header"], 1);
    proxy.stop().await;
}
