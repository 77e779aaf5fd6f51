//! The room as a whole over loopback: real sockets, real DNS messages, real TLS; only the tunnel is a table.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{RData, RecordType};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::dns::tests::question;
use super::*;
use crate::config::{AddressPlan, Forward};
use crate::net::tcp::TcpConn;
use crate::net::{BoxFuture, BoxStream, Dial, DialError};

/// A tunnel that notes what it is asked for; each name leads to a socket of this host, and all others are not allowed.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) targets: Vec<(&'static str, SocketAddr)>,
    pub(super) asked: Mutex<Vec<HostPort>>,
}

impl Dial for Table {
    fn dial<'a>(&'a self, target: &'a HostPort) -> BoxFuture<'a, Result<BoxStream, DialError>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(target.clone());
            let found = self.targets.iter().find(|(name, _)| *name == target.host());
            let Some((_, address)) = found else { return Err(DialError::NotAllowed { target: target.clone() }) };
            Ok(Box::new(TcpConn::new(TcpStream::connect(address).await.unwrap())) as BoxStream)
        })
    }
}

/// A network that no other test of this machine uses at the same time.
pub(super) fn network() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(0);
    let [low, high, ..] = std::process::id().to_le_bytes();
    Ipv4Addr::new(127, 64 + high % 64, low, NEXT.fetch_add(16, Ordering::Relaxed))
}

pub(super) fn config(addresses: AddressPlan) -> NamesConfig {
    NamesConfig {
        dns_listen: vec!["127.0.0.1:0".parse().unwrap()],
        zones: vec!["grape.test".to_owned()],
        addresses,
        ports: vec![0],
        forward: Forward::Refuse,
    }
}

pub(super) fn bootstrap() -> Vec<HostPort> {
    vec!["b0.grape.test:9092".parse().unwrap()]
}

/// Binds and runs; what is returned stops everything when it is dropped.
pub(super) fn start(config: &NamesConfig, dial: &Arc<Table>, state: &Path) -> (NamesHandle, Stop) {
    let dial: SharedDial = Arc::clone(dial) as _;
    let names = Names::bind(config, "grape", &bootstrap(), dial, state).unwrap();
    let (handle, drain) = (names.handle(), Drain::new());
    drain.spawn(names.run(drain.clone()));
    (handle, Stop(drain))
}

pub(super) struct Stop(pub(super) Drain);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.begin();
    }
}

async fn ask_udp(server: SocketAddr, bytes: &[u8]) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(bytes).await.unwrap();
    let mut reply = vec![0; 4096];
    let length =
        tokio::time::timeout(Duration::from_secs(10), socket.recv(&mut reply)).await.expect("an answer").unwrap();
    Message::from_vec(&reply[..length]).unwrap()
}

async fn ask_tcp(stream: &mut TcpStream, bytes: &[u8]) -> Message {
    stream.write_u16(u16::try_from(bytes.len()).unwrap()).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let length = stream.read_u16().await.unwrap();
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}

/// The one address in an answer to an A question over UDP.
async fn resolve(handle: &NamesHandle, name: &str) -> Ipv4Addr {
    let reply = ask_udp(handle.dns[0], &question(name, RecordType::A, Some(1232))).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{name}");
    let [record] = reply.answers.as_slice() else { panic!("{name}: {reply:?}") };
    let RData::A(address) = record.data else { panic!("{record:?}") };
    assert_eq!(record.ttl, 10);
    address.0
}

/// Where connections for a name are accepted.
pub(super) fn door(handle: &NamesHandle, name: &str) -> SocketAddr {
    let listeners = handle.listeners();
    listeners.iter().find(|(of, _)| of.as_deref() == Some(name)).expect(name).1
}

/// A broker that sends `greeting`, then what it receives, and ends when the client does.
pub(super) async fn echo(greeting: &'static [u8]) -> SocketAddr {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = socket.accept().await {
            tokio::spawn(async move {
                stream.write_all(greeting).await.unwrap();
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

/// Sends `bytes`, finishes, and reads to the end.
pub(super) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut all = Vec::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await.expect("an end").unwrap();
    all
}

#[tokio::test]
async fn two_names_get_two_addresses_and_lead_to_their_targets() {
    let state = tempfile::tempdir().unwrap();
    let targets = vec![("b0.grape.test", echo(b"zero ").await), ("b1.grape.test", echo(b"one ").await)];
    let table = Arc::new(Table { targets, ..Table::default() });
    let net = network();
    let (handle, _stop) = start(&config(AddressPlan::PerName(net, 29)), &table, state.path());

    // The bootstrap name listens before anybody asked for it.
    assert_eq!(exchange(door(&handle, "b0.grape.test"), b"hello").await, b"zero hello");
    let (zero, one) = (resolve(&handle, "B0.Grape.TEST.").await, resolve(&handle, "b1.grape.test.").await);
    assert_eq!((zero.to_bits(), one.to_bits()), (net.to_bits() + 1, net.to_bits() + 2));
    let to_one = door(&handle, "b1.grape.test");
    assert_eq!(to_one.ip(), IpAddr::V4(one));
    assert_eq!(
        exchange(to_one, b"GET / HTTP/1.1\r\n\r\n").await,
        b"one GET / HTTP/1.1\r\n\r\n",
        "nothing is looked at"
    );

    let asked: Vec<_> = table.asked.lock().unwrap().iter().map(ToString::to_string).collect();
    let port = |name| door(&handle, name).port();
    assert_eq!(
        asked,
        [format!("b0.grape.test:{}", port("b0.grape.test")), format!("b1.grape.test:{}", port("b1.grape.test"))]
    );
    let status = handle.status();
    assert_eq!((status.cluster.as_str(), status.zones.as_slice()), ("grape", &["grape.test".to_owned()][..]));
    let totals: Vec<_> = status.names.iter().map(|name| (&*name.name, name.connections_total)).collect();
    assert_eq!(totals, [("b0.grape.test", 1), ("b1.grape.test", 1)]);
    assert_eq!(status.dns_questions["answered"], 2);
    assert!(serde_json::to_string(&status).unwrap().contains("\"address\":\"127."));
}

#[tokio::test]
async fn questions_over_udp_and_tcp_have_the_same_answers() {
    let state = tempfile::tempdir().unwrap();
    let net = network();
    let (handle, _stop) = start(&config(AddressPlan::PerName(net, 29)), &Arc::default(), state.path());
    let reverse = {
        let [a, b, c, d] = Ipv4Addr::from_bits(net.to_bits() + 1).octets();
        format!("{d}.{c}.{b}.{a}.in-addr.arpa.")
    };
    let mut stream = TcpStream::connect(handle.dns[0]).await.unwrap();
    for (name, kind, code, answers, authorities) in [
        ("b0.grape.test.", RecordType::A, ResponseCode::NoError, 1, 0),
        ("b0.grape.test.", RecordType::ANY, ResponseCode::NoError, 1, 0),
        ("b0.grape.test.", RecordType::AAAA, ResponseCode::NoError, 0, 1),
        ("b7.grape.test.", RecordType::AAAA, ResponseCode::NoError, 0, 1),
        ("b0.grape.test.", RecordType::HTTPS, ResponseCode::NoError, 0, 1),
        ("grape.test.", RecordType::A, ResponseCode::NoError, 0, 1),
        ("grape.test.", RecordType::SOA, ResponseCode::NoError, 1, 0),
        ("grape.test.", RecordType::NS, ResponseCode::NoError, 0, 1),
        ("a b.grape.test.", RecordType::A, ResponseCode::NXDomain, 0, 1),
        (&*reverse, RecordType::PTR, ResponseCode::NoError, 1, 0),
        ("www.example.com.", RecordType::A, ResponseCode::Refused, 0, 0),
        ("b0.grape.test.svc.cluster.local.", RecordType::A, ResponseCode::Refused, 0, 0),
    ] {
        let bytes = question(name, kind, Some(1232));
        let udp = ask_udp(handle.dns[0], &bytes).await;
        let counts = (udp.metadata.response_code, udp.answers.len(), udp.authorities.len());
        assert_eq!(counts, (code, answers, authorities), "{name} {kind}");
        assert!(udp.edns.is_some());
        assert_eq!(ask_tcp(&mut stream, &bytes).await, udp, "{name} {kind}");
    }
    // What is no A question gave nobody an address.
    assert_eq!(handle.status().names.len(), 1);
}

#[tokio::test]
async fn a_name_of_one_label_is_its_own_zone() {
    let net = network();
    for (n, plan) in [AddressPlan::PerName(net, 29), AddressPlan::Shared(Ipv4Addr::from_bits(net.to_bits() + 1).into())]
        .into_iter()
        .enumerate()
    {
        let state = tempfile::tempdir().unwrap();
        let mut config = config(plan);
        config.zones = vec!["kafka".to_owned(), "grape.test".to_owned()];
        let bootstrap: Vec<HostPort> = vec!["Kafka:9092".parse().unwrap(), "10.0.0.1:9092".parse().unwrap()];
        let names = Names::bind(&config, "grape", &bootstrap, Arc::<Table>::default(), state.path()).unwrap();
        let (handle, drain) = (names.handle(), Drain::new());
        drain.spawn(names.run(drain.clone()));
        assert_eq!(resolve(&handle, "kafka.").await.to_bits(), net.to_bits() + 1, "plan {n}");
        let reply = ask_udp(handle.dns[0], &question("grape.test.", RecordType::A, None)).await;
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0));
        assert_eq!(handle.addresses().len(), 1, "an address is no name");
        assert!(drain.drain(Duration::from_secs(10)).await);
    }
}

#[tokio::test]
async fn bad_datagrams_are_answered_or_dropped_and_the_server_lives() {
    let state = tempfile::tempdir().unwrap();
    let (handle, _stop) = start(&config(AddressPlan::PerName(network(), 29)), &Arc::default(), state.path());
    let good = question("b0.grape.test.", RecordType::A, None);
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(handle.dns[0]).await.unwrap();
    let mut response = good.clone();
    response[2] |= 0x80;
    let longer_than_any = vec![0; 9000];
    for dropped in [&b""[..], b"x", &good[..11], &response] {
        socket.send(dropped).await.unwrap();
    }
    let mut looped = good[..12].to_vec();
    looped.extend(b"\x01a\xc0\x0c\0\x01\0\x01");
    let mut claims = good[..12].to_vec();
    claims[4..12].fill(0xff);
    let mut none = good.clone();
    none[5] = 0;
    for bad in [&looped, &claims, &none, &longer_than_any] {
        let reply = ask_udp(handle.dns[0], bad).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::FormErr);
    }
    // A TCP client that claims a long message, or stops in the middle, loses its connection and nothing else.
    let mut stream = TcpStream::connect(handle.dns[0]).await.unwrap();
    stream.write_all(&[0xff, 0xff, 1, 2]).await.unwrap();
    assert!(stream.read_u8().await.is_err(), "closed");
    resolve(&handle, "b0.grape.test.").await;
    let counts = handle.status().dns_questions;
    assert_eq!((counts["dropped"], counts["malformed"]), (4, 4));
}

#[tokio::test]
async fn addresses_survive_a_restart_and_run_out_with_refused() {
    let state = tempfile::tempdir().unwrap();
    let plan = AddressPlan::PerName(network(), 29);
    let (handle, stop) = start(&config(plan.clone()), &Arc::default(), state.path());
    let mut before = Vec::new();
    for n in [0, 5, 3, 4] {
        before.push((n, resolve(&handle, &format!("b{n}.grape.test.")).await));
    }
    drop((handle, stop));

    let (handle, _stop) = start(&config(plan), &Arc::default(), state.path());
    assert_eq!(handle.listeners().len(), 4, "names of the earlier run listen before any question");
    for (n, address) in before.iter().rev() {
        assert_eq!(resolve(&handle, &format!("b{n}.grape.test.")).await, *address);
    }
    for n in [6, 7] {
        let address = resolve(&handle, &format!("b{n}.grape.test.")).await;
        assert!(before.iter().all(|(_, given)| *given != address));
    }
    let reply = ask_udp(handle.dns[0], &question("b8.grape.test.", RecordType::A, None)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert_eq!(handle.status().dns_questions["addresses_exhausted"], 1);
    resolve(&handle, "b7.grape.test.").await;
}

#[tokio::test]
async fn a_burst_of_first_questions_gives_one_address_and_one_listener() {
    let state = tempfile::tempdir().unwrap();
    let (handle, _stop) = start(&config(AddressPlan::PerName(network(), 29)), &Arc::default(), state.path());
    let same = futures_util::future::join_all((0..64).map(|_| resolve(&handle, "b1.grape.test."))).await;
    assert!(same.windows(2).all(|pair| pair[0] == pair[1]));
    assert_eq!(handle.listeners().len(), 2);
}

#[tokio::test]
async fn a_port_in_use_is_that_names_problem_alone_until_it_is_free() {
    let state = tempfile::tempdir().unwrap();
    let net = network();
    let second = Ipv4Addr::from_bits(net.to_bits() + 2);
    let squatter = TcpListener::bind((second, 0)).await.unwrap();
    let mut config = config(AddressPlan::PerName(net, 29));
    config.ports = vec![squatter.local_addr().unwrap().port()];
    let (handle, _stop) = start(&config, &Arc::default(), state.path());
    resolve(&handle, "b0.grape.test.").await;
    let asked = question("b1.grape.test.", RecordType::A, None);
    assert_eq!(ask_udp(handle.dns[0], &asked).await.metadata.response_code, ResponseCode::ServFail);
    let problem = handle.status().names[1].problem.clone().unwrap();
    assert!(problem.starts_with(&format!("cannot listen on {second}:")), "{problem}");
    resolve(&handle, "b2.grape.test.").await;
    drop(squatter);
    assert_eq!(resolve(&handle, "b1.grape.test.").await, second);
    assert_eq!(handle.status().names[1].problem, None);
}

#[tokio::test]
async fn a_failed_dial_resets_the_client_and_is_counted() {
    let state = tempfile::tempdir().unwrap();
    let (handle, _stop) = start(&config(AddressPlan::PerName(network(), 29)), &Arc::default(), state.path());
    let mut stream = TcpStream::connect(door(&handle, "b0.grape.test")).await.unwrap();
    let error = stream.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    let status = handle.status();
    assert_eq!((status.names[0].dials_failed, status.refused["dial_failed"]), (1, 1));
}

#[tokio::test]
async fn draining_stops_accepting_and_lets_connections_end() {
    let state = tempfile::tempdir().unwrap();
    let table = Arc::new(Table { targets: vec![("b0.grape.test", echo(b"").await)], ..Table::default() });
    let (handle, stop) = start(&config(AddressPlan::PerName(network(), 29)), &table, state.path());
    let address = door(&handle, "b0.grape.test");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"a").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'a');
    assert_eq!(handle.status().names[0].connections_open, 1);
    let drained = tokio::spawn({
        let drain = stop.0.clone();
        async move { drain.drain(Duration::from_secs(30)).await }
    });
    // The listener closes once its loop has heard the call.
    while TcpStream::connect(address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    stream.write_all(b"b").await.unwrap();
    assert_eq!(stream.read_u8().await.unwrap(), b'b');
    stream.shutdown().await.unwrap();
    assert!(stream.read_u8().await.is_err());
    assert!(drained.await.unwrap(), "no force was needed");
    assert_eq!(handle.status().names[0].connections_open, 0);
}

#[tokio::test]
async fn other_names_are_forwarded_over_udp_and_tcp() {
    let state = tempfile::tempdir().unwrap();
    // A second server of ours stands for the network's; it knows another zone.
    let mut theirs = config(AddressPlan::Shared("192.0.2.7".parse().unwrap()));
    theirs.zones = vec!["example.com".to_owned()];
    theirs.addresses = AddressPlan::PerName(network(), 29);
    let other = tempfile::tempdir().unwrap();
    let (upstream, _up) = start(&theirs, &Arc::default(), other.path());
    let mut ours = config(AddressPlan::PerName(network(), 29));
    ours.forward = Forward::Servers(vec![upstream.dns[0]]);
    let (handle, _stop) = start(&ours, &Arc::default(), state.path());

    let address = resolve(&handle, "www.example.com.").await;
    assert_eq!(resolve(&upstream, "www.example.com.").await, address);
    let mut stream = TcpStream::connect(handle.dns[0]).await.unwrap();
    let reply = ask_tcp(&mut stream, &question("www.example.com.", RecordType::A, None)).await;
    assert_eq!((reply.metadata.id, reply.answers.len()), (0x1234, 1));
    // A refusal of the network's server is passed on; it is not ours to change.
    let reply = ask_udp(handle.dns[0], &question("other.test.", RecordType::A, None)).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::Refused);
    assert_eq!(handle.status().dns_questions["forwarded"], 3);
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_servfail_after_three_seconds() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let servers = Forward::Servers(vec![silent.local_addr().unwrap()]);
    let upstreams = Upstreams::new(&servers, &[]).unwrap();
    let began = tokio::time::Instant::now();
    let bytes = question("www.example.com.", RecordType::A, None);
    assert_eq!(upstreams.ask(&bytes, dns::Transport::Udp).await, None);
    assert_eq!(began.elapsed().as_secs(), 3);
}

#[tokio::test]
async fn hickorys_own_resolver_is_content() {
    use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
    use hickory_resolver::net::runtime::TokioRuntimeProvider;
    let state = tempfile::tempdir().unwrap();
    let net = network();
    let (handle, _stop) = start(&config(AddressPlan::PerName(net, 29)), &Arc::default(), state.path());
    let mut connection = ConnectionConfig::udp();
    connection.port = handle.dns[0].port();
    let server = NameServerConfig::new(handle.dns[0].ip(), true, vec![connection]);
    let servers = ResolverConfig::from_parts(None, vec![], vec![server]);
    let resolver =
        hickory_resolver::Resolver::builder_with_config(servers, TokioRuntimeProvider::default()).build().unwrap();
    let found: Vec<_> = resolver.lookup_ip("b0.grape.test.").await.unwrap().iter().collect();
    assert_eq!(found, [IpAddr::V4(Ipv4Addr::from_bits(net.to_bits() + 1))]);
}

#[test]
fn settings_that_cannot_work_are_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let state = tempfile::tempdir().unwrap();
    let bind = |config: &NamesConfig, bootstrap: &[HostPort]| {
        Names::bind(config, "grape", bootstrap, Arc::<Table>::default(), state.path()).unwrap_err()
    };
    let good = config(AddressPlan::PerName(network(), 29));
    let with = |edit: fn(&mut NamesConfig)| {
        let mut config = good.clone();
        edit(&mut config);
        config
    };
    assert!(matches!(bind(&with(|c| c.zones.clear()), &bootstrap()), NamesError::NoZone));
    assert!(matches!(bind(&with(|c| c.ports.clear()), &[]), NamesError::NoPort));
    let shared = with(|c| c.addresses = AddressPlan::Shared("0.0.0.0".parse().unwrap()));
    assert!(matches!(bind(&shared, &bootstrap()), NamesError::BadShared(_)));
    let small = with(|c| c.addresses = AddressPlan::PerName("127.77.0.0".parse().unwrap(), 31));
    assert!(matches!(bind(&small, &bootstrap()), NamesError::Network(_)));
    // TEST-NET-1: no host has it.
    let foreign = with(|c| c.addresses = AddressPlan::PerName("192.0.2.0".parse().unwrap(), 29));
    let error = bind(&foreign, &bootstrap()).to_string();
    assert!(error.starts_with("cannot listen for clients on 192.0.2.1:0: "), "{error}");
    assert!(error.ends_with("; is it an address of this host, and free?"), "{error}");
    let foreign = with(|c| c.dns_listen = vec!["192.0.2.1:53".parse().unwrap()]);
    assert!(matches!(bind(&foreign, &bootstrap()), NamesError::Dns { .. }));
}
