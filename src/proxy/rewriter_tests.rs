//! Mode `rewrite` over loopback, with brokers that answer what a test tells them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::rewrite::test_support::{frame, request};
use super::rewriter::{Rewriter, RewriterHandle};
use crate::config::RewriteConfig;
use crate::kafka::api;
use crate::kafka::primitives::{put_text, put_uvarint};
use crate::lifecycle::Drain;
use crate::net::tcp::TcpDial;
use crate::net::{BoxFuture, BoxStream, Dial, DialError, HostPort, SharedDial};

/// No test waits longer for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

pub(super) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: not in time"))
}

/// Names of brokers lead to ports of this host, whatever their own port; counts its dials.
#[derive(Default)]
pub(super) struct Names {
    ports: std::sync::Mutex<Vec<(String, u16)>>,
    dials: AtomicU64,
    /// Where set, each dial waits for it.
    gate: Option<Notify>,
}

impl Names {
    pub(super) fn set(&self, name: &str, address: SocketAddr) {
        self.ports.lock().expect("no panic").push((name.to_owned(), address.port()));
    }
}

impl Dial for Names {
    fn dial<'a>(&'a self, target: &'a HostPort) -> BoxFuture<'a, Result<BoxStream, DialError>> {
        Box::pin(async move {
            self.dials.fetch_add(1, Ordering::Relaxed);
            if let Some(gate) = &self.gate {
                gate.notified().await;
            }
            let found = self
                .ports
                .lock()
                .expect("no panic")
                .iter()
                .find(|(name, _)| name == target.host())
                .map(|(_, port)| *port);
            let Some(port) = found else { return Err(DialError::Refused { target: target.clone() }) };
            TcpDial::new(PATIENCE).dial(&HostPort::new("127.0.0.1", port).expect("an address")).await
        })
    }
}

type Answer = Arc<dyn Fn(i16, i32) -> Vec<u8> + Send + Sync>;

/// A broker that answers each request by its API and correlation id. An empty answer is none.
async fn broker(answer: impl Fn(i16, i32) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    let answer: Answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                while let Some(body) = read_frame(&mut socket).await {
                    let key = i16::from_be_bytes([body[0], body[1]]);
                    let id = i32::from_be_bytes([body[4], body[5], body[6], body[7]]);
                    if socket.write_all(&answer(key, id)).await.is_err() {
                        return;
                    }
                }
                let _ = socket.shutdown().await;
            });
        }
    });
    address
}

/// The next frame's body; `None` at a clean end or a cut.
pub(super) async fn read_frame(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let length = socket.read_u32().await.ok()?;
    let mut body = vec![0; length as usize];
    socket.read_exact(&mut body).await.ok()?;
    Some(body)
}

/// A Metadata v0 response with one broker.
fn metadata(correlation_id: i32, node_id: i32, host: &str, port: i32) -> Vec<u8> {
    let mut body = correlation_id.to_be_bytes().to_vec();
    body.extend(1_i32.to_be_bytes());
    body.extend(node_id.to_be_bytes());
    put_text(&mut body, false, host.as_bytes());
    body.extend(port.to_be_bytes());
    body.extend(0_i32.to_be_bytes());
    frame(&body)
}

fn echo(correlation_id: i32) -> Vec<u8> {
    frame(&[&correlation_id.to_be_bytes()[..], b"echo"].concat())
}

/// Host and port of the one broker in a Metadata v0 body.
fn broker_in(body: &[u8]) -> (String, u16) {
    let length = usize::from(u16::from_be_bytes([body[12], body[13]]));
    let host = String::from_utf8(body[14..14 + length].to_vec()).expect("a host");
    let port = &body[14 + length..18 + length];
    (host, u16::try_from(i32::from_be_bytes(port.try_into().expect("four"))).expect("a port"))
}

struct Proxy {
    address: SocketAddr,
    handle: RewriterHandle,
    drain: Drain,
    state: Arc<tempfile::TempDir>,
}

impl Proxy {
    /// Each test has ports of its own, so that none takes another's between two starts.
    fn start(names: &Arc<Names>, bootstrap: &[&str], first_port: u16, state: Option<Arc<tempfile::TempDir>>) -> Self {
        let state = state.unwrap_or_else(|| Arc::new(tempfile::tempdir().expect("a directory")));
        let config = RewriteConfig {
            listen: "127.0.0.1:0".parse().expect("an address"),
            advertise: "127.0.0.1".to_owned(),
            ports: first_port..=first_port + 9,
            upstream_tls: None,
            auth: None,
            clients: crate::config::ClientsConfig::default(),
        };
        let bootstrap = bootstrap.iter().map(|name| HostPort::new(name, 9092).expect("a name")).collect();
        let dial: SharedDial = Arc::<Names>::clone(names);
        let rewriter = Rewriter::bind(&config, "orange", bootstrap, dial, state.path()).expect("bound");
        let (address, handle, drain) = (rewriter.local_addr(), rewriter.handle(), Drain::new());
        drain.spawn(rewriter.run(drain.clone()));
        Self { address, handle, drain, state }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connected")
    }

    /// Asks for metadata at the bootstrap listener: where a client is told to go.
    async fn look(&self) -> (String, u16) {
        let mut client = self.connect().await;
        client.write_all(&request(api::METADATA, 0, 1)).await.expect("written");
        broker_in(&soon("metadata", read_frame(&mut client)).await.expect("an answer"))
    }

    async fn stop(self) -> Arc<tempfile::TempDir> {
        assert!(self.drain.drain(PATIENCE).await, "drained in time");
        self.state
    }
}

async fn cluster(answer: impl Fn(i16, i32) -> Vec<u8> + Send + Sync + 'static) -> Arc<Names> {
    let names = Arc::new(Names::default());
    names.set("b0.orange.example", broker(answer).await);
    names
}

fn metadata_or_echo(key: i16, id: i32) -> Vec<u8> {
    if key == api::METADATA { metadata(id, 5, "b0.orange.example", 9092) } else { echo(id) }
}

#[tokio::test]
async fn clients_are_told_of_local_ports_that_lead_there_and_outlive_a_restart() {
    let names = cluster(metadata_or_echo).await;
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_000, None);
    assert_eq!(proxy.look().await, ("127.0.0.1".to_owned(), 21_000));
    let mut client = TcpStream::connect("127.0.0.1:21000").await.expect("the broker's own port");
    client.write_all(&request(2, 1, 8)).await.expect("written");
    assert_eq!(soon("an answer", read_frame(&mut client)).await, Some(echo(8)[4..].to_vec()));
    let status = proxy.handle.status();
    assert_eq!(status.rewritten["Metadata"], 1);
    assert_eq!((status.nodes_rewritten, status.listeners.len(), status.connections_total), (1, 2, 2));
    assert_eq!(
        (status.listeners[1].node_id, status.listeners[1].target.to_string()),
        (Some(5), "b0.orange.example:9092".to_owned())
    );
    drop(client);
    let state = proxy.stop().await;

    // Nobody asked for metadata yet: the port is open and leads to the last known target.
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_000, Some(state));
    let mut client = TcpStream::connect("127.0.0.1:21000").await.expect("open from the start");
    client.write_all(&request(2, 1, 9)).await.expect("written");
    assert_eq!(soon("an answer", read_frame(&mut client)).await, Some(echo(9)[4..].to_vec()));
    proxy.stop().await;
}

#[tokio::test]
async fn a_broker_that_moves_keeps_its_port_and_a_taken_port_is_passed_over() {
    let moved = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&moved);
    let names = cluster(move |_, id| {
        let host = if seen.load(Ordering::Relaxed) == 0 { "b0.orange.example" } else { "b0-new.orange.example" };
        metadata(id, 5, host, 9092)
    })
    .await;
    names.set("b0-new.orange.example", broker(|_, id| echo(id)).await);
    let _taken = std::net::TcpListener::bind("127.0.0.1:21020").expect("free");
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_020, None);
    assert_eq!(proxy.look().await.1, 21_021);
    moved.store(1, Ordering::Relaxed);
    assert_eq!(proxy.look().await.1, 21_021);
    assert_eq!(proxy.handle.status().listeners[1].target.to_string(), "b0-new.orange.example:9092");
    let mut client = TcpStream::connect("127.0.0.1:21021").await.expect("connected");
    client.write_all(&request(2, 1, 3)).await.expect("written");
    assert_eq!(soon("an answer", read_frame(&mut client)).await, Some(echo(3)[4..].to_vec()), "by the new broker");
}

#[tokio::test]
async fn brokers_without_a_port_or_with_our_own_address_are_hidden() {
    let node = Arc::new(AtomicU64::new(0));
    let own = Arc::new(AtomicU64::new(0));
    let (node_id, own_port) = (Arc::clone(&node), Arc::clone(&own));
    let names = cluster(move |_, id| {
        let node_id = node_id.load(Ordering::Relaxed) as i32;
        match own_port.load(Ordering::Relaxed) {
            0 => metadata(id, node_id, "b0.orange.example", 9092),
            port => metadata(id, node_id, "127.0.0.1", port as i32),
        }
    })
    .await;
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_040, None);
    for n in 0..10 {
        node.store(n, Ordering::Relaxed);
        assert_eq!(proxy.look().await.1, 21_040 + n as u16);
    }
    let hidden = async |proxy: &Proxy| {
        let mut client = proxy.connect().await;
        client.write_all(&request(api::METADATA, 0, 1)).await.expect("written");
        soon("metadata", read_frame(&mut client)).await.expect("an answer") == [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]
    };
    node.store(10, Ordering::Relaxed);
    assert!(hidden(&proxy).await, "the eleventh of ten");
    own.store(u64::from(proxy.address.port()), Ordering::Relaxed);
    node.store(3, Ordering::Relaxed);
    assert!(hidden(&proxy).await, "a loop");
    let status = proxy.handle.status();
    assert_eq!(
        (status.refused["hidden: no port left"], status.refused["hidden: loop"], status.nodes_hidden),
        (1, 1, 2)
    );
}

#[tokio::test]
async fn requests_before_the_broker_is_reached_wait_in_order() {
    let names = Names { gate: Some(Notify::new()), ..Names::default() };
    names.set("b0.orange.example", broker(|_, id| echo(id)).await);
    let names = Arc::new(names);
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_060, None);
    let mut client = proxy.connect().await;
    client.write_all(&[request(2, 1, 1), request(2, 1, 2)].concat()).await.expect("written");
    names.gate.as_ref().expect("a gate").notify_one();
    for id in [1, 2] {
        assert_eq!(soon("an answer", read_frame(&mut client)).await, Some(echo(id)[4..].to_vec()));
    }
}

#[tokio::test]
async fn pipelined_requests_and_silent_ones_keep_their_order() {
    let names = cluster(|key, id| if key == api::PRODUCE { Vec::new() } else { metadata_or_echo(key, id) }).await;
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_080, None);
    let mut client = proxy.connect().await;
    let silent = |id: i32| frame(&[&[0, 0, 0, 8][..], &id.to_be_bytes(), b"\0\x02me\xff\xff\0\0 and more"].concat());
    let all: Vec<u8> = (0..1_500)
        .flat_map(|id| match id % 3 {
            0 => silent(id),
            1 => request(2, 1, id),
            _ => request(api::METADATA, 0, id),
        })
        .collect();
    let (mut reader, mut writer) = client.split();
    let write = async { writer.write_all(&all).await.expect("written") };
    let read = async {
        for id in (0..1_500_i32).filter(|id| id % 3 != 0) {
            let length = reader.read_u32().await.expect("a length");
            let mut body = vec![0; length as usize];
            reader.read_exact(&mut body).await.expect("a body");
            assert_eq!(body[..4], id.to_be_bytes());
            if id % 3 == 2 {
                assert_eq!(broker_in(&body), ("127.0.0.1".to_owned(), 21_080));
            }
        }
    };
    soon("all answers", async { tokio::join!(write, read) }).await;
    assert_eq!(proxy.handle.status().rewritten["Metadata"], 500);
}

#[tokio::test]
async fn the_bootstrap_listener_finds_whoever_lives() {
    let names = Arc::new(Names::default());
    let proxy = Proxy::start(&names, &["dead-1.orange.example", "dead-2.orange.example"], 21_100, None);
    let mut client = proxy.connect().await;
    client.write_all(&request(2, 1, 1)).await.expect("written");
    assert_eq!(soon("a cut", read_frame(&mut client)).await, None);
    assert_eq!(names.dials.load(Ordering::Relaxed), 2, "all were tried");
    assert_eq!(proxy.handle.status().refused["dial: refused"], 1);

    names.set("dead-2.orange.example", broker(metadata_or_echo).await);
    for _ in 0..2 {
        assert_eq!(proxy.look().await.1, 21_100, "the listener is there, and one lives");
    }
    // Both bootstrap servers die; the broker they told of lives.
    names.ports.lock().expect("no panic").clear();
    names.set("b0.orange.example", broker(metadata_or_echo).await);
    assert_eq!(proxy.look().await.1, 21_100);
}

#[tokio::test]
async fn a_moved_leader_is_told_under_its_local_address() {
    // Fetch v16: header tags, throttle, error, session, no topics, then endpoints in tag 0.
    let names = cluster(|_, id| {
        let mut endpoints = vec![2];
        endpoints.extend(7_i32.to_be_bytes());
        put_text(&mut endpoints, true, b"b7.kafka.orange.example");
        endpoints.extend(9092_i32.to_be_bytes());
        endpoints.extend([0, 0]);
        let mut body = id.to_be_bytes().to_vec();
        body.extend([0; 11]);
        body.extend([1, 1, 0]);
        put_uvarint(&mut body, endpoints.len() as u32);
        body.extend(endpoints);
        frame(&body)
    })
    .await;
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_120, None);
    let mut client = proxy.connect().await;
    client.write_all(&request(api::FETCH, 16, 1)).await.expect("written");
    let body = soon("a fetch", read_frame(&mut client)).await.expect("an answer");
    assert!(body.windows(9).any(|window| window == b"127.0.0.1"));
    assert!(!body.windows(6).any(|window| window == b"orange"));
    assert!(body.windows(4).any(|window| window == 21_120_i32.to_be_bytes()));
    let status = proxy.handle.status();
    assert_eq!(
        (status.rewritten["Fetch"], status.listeners[1].target.to_string()),
        (1, "b7.kafka.orange.example:9092".to_owned())
    );
}

#[tokio::test]
async fn a_frame_that_is_cut_is_a_cut_at_the_other_end() {
    let names = Arc::new(Names::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    names.set("b0.orange.example", listener.local_addr().expect("bound"));
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_140, None);

    let mut client = proxy.connect().await;
    client.write_all(&request(2, 1, 1)).await.expect("written");
    let (mut server, _) = soon("a connection", listener.accept()).await.expect("accepted");
    read_frame(&mut server).await.expect("the request");
    server.write_all(&echo(1)[..7]).await.expect("written");
    server.shutdown().await.expect("a FIN inside a frame");
    let mut rest = Vec::new();
    let end = soon("a cut", client.read_to_end(&mut rest)).await.map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));

    let mut client = proxy.connect().await;
    client.write_all(&request(2, 1, 1)).await.expect("written");
    let (mut server, _) = soon("a connection", listener.accept()).await.expect("accepted");
    read_frame(&mut server).await.expect("the request");
    client.write_all(&request(2, 1, 2)[..9]).await.expect("written");
    client.shutdown().await.expect("a FIN inside a frame");
    let end = soon("a cut", server.read_to_end(&mut Vec::new())).await.map_err(|error| error.kind());
    assert_eq!(end, Err(std::io::ErrorKind::ConnectionReset));
    assert_eq!(proxy.handle.status().refused["stream ended inside a frame"], 2);
}

#[tokio::test]
async fn a_client_that_has_sent_its_last_request_gets_its_answers() {
    let names = Arc::new(Names::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    names.set("b0.orange.example", listener.local_addr().expect("bound"));
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_160, None);
    let mut client = proxy.connect().await;
    client.write_all(&[request(2, 1, 1), request(2, 1, 2)].concat()).await.expect("written");
    client.shutdown().await.expect("a FIN");
    let (mut server, _) = soon("a connection", listener.accept()).await.expect("accepted");
    for id in [1, 2] {
        read_frame(&mut server).await.expect("a request");
        server.write_all(&echo(id)).await.expect("the FIN has not come yet");
        assert_eq!(soon("an answer", read_frame(&mut client)).await, Some(echo(id)[4..].to_vec()));
    }
    assert_eq!(soon("the client's FIN", server.read(&mut [0])).await.expect("clean"), 0);
    server.shutdown().await.expect("a FIN");
    assert_eq!(soon("the broker's FIN", client.read(&mut [0])).await.expect("clean"), 0);
}

#[tokio::test]
async fn other_protocols_are_named_and_nobody_is_dialled() {
    let names = cluster(metadata_or_echo).await;
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_180, None);
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET / HTTP/1.1\r\n\r\n", b"PROXY TCP4 ", b"SSH-2.0-x\r\n", b"\0\0\0\x03"]
    {
        let mut client = proxy.connect().await;
        client.write_all(bytes).await.expect("written");
        let _ = soon("an end", client.read_to_end(&mut Vec::new())).await;
    }
    let mut silent = proxy.connect().await;
    silent.shutdown().await.expect("a FIN");
    assert_eq!(soon("an end", silent.read(&mut [0])).await.expect("clean"), 0);
    assert_eq!(names.dials.load(Ordering::Relaxed), 0);
    let refused = proxy.handle.status().refused;
    assert_eq!((refused["client speaks another protocol"], refused["frame length"]), (4, 1));
}

#[tokio::test]
async fn a_broker_that_speaks_tls_is_named() {
    let names = cluster(|_, _| vec![0x15, 3, 3, 0, 2, 2, 70]).await;
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_200, None);
    let mut client = proxy.connect().await;
    client.write_all(&request(api::API_VERSIONS, 3, 1)).await.expect("written");
    assert_eq!(soon("a cut", read_frame(&mut client)).await, None);
    assert_eq!(proxy.handle.status().refused["broker speaks TLS"], 1);
}

#[tokio::test]
async fn a_drain_ends_the_idle_and_waits_for_answers() {
    let names = Arc::new(Names::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    names.set("b0.orange.example", listener.local_addr().expect("bound"));
    let proxy = Proxy::start(&names, &["b0.orange.example"], 21_220, None);
    let mut silent = proxy.connect().await;
    let mut busy = proxy.connect().await;
    busy.write_all(&request(2, 1, 1)).await.expect("written");
    let (mut server, _) = soon("a connection", listener.accept()).await.expect("accepted");
    read_frame(&mut server).await.expect("the request");
    proxy.drain.begin();
    assert_eq!(soon("an end", silent.read(&mut [0])).await.expect("clean"), 0);
    server.write_all(&echo(1)).await.expect("written");
    assert_eq!(soon("an answer", read_frame(&mut busy)).await, Some(echo(1)[4..].to_vec()));
    assert_eq!(soon("an end", busy.read(&mut [0])).await.expect("clean"), 0);
    proxy.stop().await;
}

#[test]
fn what_cannot_be_served_is_refused_at_the_start() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _inside = runtime.enter();
    let state = tempfile::tempdir().expect("a directory");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    let start = |listen: &str, advertise: &str, bootstrap: Vec<HostPort>, state: &std::path::Path| {
        let config = RewriteConfig {
            listen: listen.parse().expect("an address"),
            advertise: advertise.to_owned(),
            ports: 21_240..=21_249,
            upstream_tls: None,
            auth: None,
            clients: crate::config::ClientsConfig::default(),
        };
        let dial: SharedDial = Arc::new(Names::default());
        Rewriter::bind(&config, "orange", bootstrap, dial, state).map(|_| ()).map_err(|error| error.to_string())
    };
    let servers = || vec![HostPort::new("b0.orange.example", 9092).expect("a name")];
    assert_eq!(
        start("127.0.0.1:0", "127.0.0.1", Vec::new(), state.path()),
        Err("no bootstrap server of orange is set".to_owned())
    );
    let address = taken.local_addr().expect("bound").to_string();
    let error = start(&address, "127.0.0.1", servers(), state.path()).expect_err("taken");
    assert!(error.starts_with(&format!("cannot listen for clients on {address}: ")), "{error}");
    for advertise in ["0.0.0.0", "", "two words"] {
        let error = start("127.0.0.1:0", advertise, servers(), state.path()).expect_err("no address");
        assert!(error.starts_with("clients cannot be told to connect to"), "{error}");
    }
    let file = state.path().join("a file");
    std::fs::write(&file, "").expect("written");
    let error = start("127.0.0.1:0", "localhost", servers(), &file).expect_err("no directory");
    assert!(error.contains("a file"), "{error}");
}
