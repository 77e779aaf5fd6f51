use bytes::{Buf as _, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::MetadataResponseBroker;
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, MetadataResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable as _, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::config::{Carriers, Secret, TlsPeer, TunnelAuth, TunnelLimits, TunnelRole};
use crate::lifecycle::Drain;
use crate::net::tcp::TcpDial;
use crate::tunnel::carrier::Acceptor;
use crate::tunnel::certs;

fn tunnel(role: TunnelRole, auth: TunnelAuth) -> TunnelConfig {
    TunnelConfig {
        role,
        auth,
        carriers: Carriers::Auto,
        congestion: crate::config::Congestion::default(),
        public_address: None,
        peer_address: None,
        limits: TunnelLimits::default(),
    }
}

fn noise(secret: &str) -> TunnelAuth {
    TunnelAuth::Noise { secret: Secret::new(secret.to_owned()) }
}

const SECRET: &str = "kX9vQ2mB7rT4wY8zN3pL6sD1fG5hJ0cA2eU9iO4qW7";

/// Tries a handshake against whatever listens on `address`.
async fn tried(address: SocketAddr, auth: TunnelAuth, link: &str) -> Handshake {
    let config = tunnel(TunnelRole::Dial(address.into()), auth);
    Box::pin(handshake(&config, link, &address.to_string())).await
}

#[tokio::test]
async fn each_way_a_handshake_fails_is_named() {
    let listen = tunnel(TunnelRole::Listen(SocketAddr::from(([127, 0, 0, 1], 0))), noise(SECRET));
    let acceptor = Acceptor::bind(&listen, "orange-grape").await.expect("a free port");
    let address = acceptor.local_addr();
    let (sender, mut established) = tokio::sync::mpsc::channel(8);
    let drain = Drain::new();
    drain.spawn(acceptor.run(sender, drain.clone()));

    assert!(matches!(tried(address, noise(SECRET), "orange-grape").await, Handshake::Proved { .. }));
    assert!(established.recv().await.is_some());
    let other = "Zk8sW1qE5rT9yU3iO7pA2sD6fG0hJ4kL8zX1cV5bN9";
    assert!(matches!(tried(address, noise(other), "orange-grape").await, Handshake::NotProved(_)));
    assert!(matches!(tried(address, noise(SECRET), "grape-orange").await, Handshake::OtherLink(_)));

    let dir = tempfile::tempdir().expect("a directory");
    certs::generate(dir.path(), false).expect("certificates");
    let tls = TunnelAuth::Tls {
        cert: dir.path().join("source.crt"),
        key: dir.path().join("source.key"),
        peer: TlsPeer::Ca { ca: dir.path().join("ca.crt"), name: certs::DESTINATION.to_owned() },
    };
    assert!(matches!(tried(address, tls, "orange-grape").await, Handshake::OtherTransport(_)));
    drain.drain(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn what_is_no_endpoint_is_named_too() {
    let web = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = web.local_addr().expect("its address");
    let serve = async {
        let (mut socket, _) = web.accept().await.expect("a connection");
        socket.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.expect("written");
        socket
    };
    let (result, socket) = tokio::join!(tried(address, noise(SECRET), "orange-grape"), serve);
    assert!(matches!(result, Handshake::OtherTransport(_)), "{result:?}");
    drop((socket, web));
    let refused = tried(address, noise(SECRET), "orange-grape").await;
    assert!(matches!(&refused, Handshake::Unreachable(Failure { step: Step::Refused, .. })), "{refused:?}");
}

/// Answers `ApiVersions` and `Metadata` on every connection.
async fn broker(listener: TcpListener, brokers: Vec<(i32, SocketAddr)>) {
    loop {
        let (socket, _) = listener.accept().await.expect("a connection");
        tokio::spawn(serve(socket, brokers.clone()));
    }
}

async fn serve(mut socket: TcpStream, brokers: Vec<(i32, SocketAddr)>) -> std::io::Result<()> {
    loop {
        let length = usize::try_from(socket.read_i32().await?).expect("a length");
        let mut frame = vec![0; length];
        socket.read_exact(&mut frame).await?;
        let mut frame = Bytes::from(frame);
        let api = ApiKey::try_from(frame.slice(..2).get_i16()).expect("a known API");
        let version = frame.slice(2..4).get_i16();
        let header = RequestHeader::decode(&mut frame, api.request_header_version(version)).expect("a header");
        assert_eq!(header.client_id.as_deref(), Some("linkspan-check"));
        let answer = if api == ApiKey::ApiVersions {
            let all = ApiKey::iter().map(|api| {
                let versions = api.valid_versions();
                let version = ApiVersion::default().with_api_key(api as i16);
                version.with_min_version(versions.min).with_max_version(versions.max)
            });
            encode(header.correlation_id, version, &ApiVersionsResponse::default().with_api_keys(all.collect()))
        } else {
            assert_eq!(api, ApiKey::Metadata);
            let all = brokers.iter().map(|(id, address)| {
                let host = StrBytes::from_string(address.ip().to_string());
                let port = i32::from(address.port());
                MetadataResponseBroker::default().with_node_id(BrokerId(*id)).with_host(host).with_port(port)
            });
            let answer = MetadataResponse::default()
                .with_brokers(all.collect())
                .with_controller_id(BrokerId(1))
                .with_cluster_id(Some(StrBytes::from_static_str("4L6g3nShT-eMCtK--X86sw")));
            encode(header.correlation_id, version, &answer)
        };
        socket.write_all(&answer).await?;
    }
}

fn encode<M: Encodable + HeaderVersion>(correlation: i32, version: i16, message: &M) -> Vec<u8> {
    let mut out = BytesMut::new();
    let header = ResponseHeader::default().with_correlation_id(correlation);
    header.encode(&mut out, M::header_version(version)).expect("a header");
    message.encode(&mut out, version).expect("an answer");
    let length = i32::try_from(out.len()).expect("small").to_be_bytes();
    [&length[..], &out].concat()
}

#[tokio::test]
async fn a_half_reachable_cluster_names_the_broker() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("its address");
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("its address")
    };
    let dial = Arc::new(TcpDial::new(Duration::from_secs(3)));
    let visit = ClusterVisit::new(cluster(&[&address.to_string()], Some(Security::default())), dial);
    tokio::spawn(broker(listener, vec![(2, closed), (1, address)]));
    let found = visit.probe().await;
    assert!(found.bootstrap[0].result.is_ok(), "{found:?}");
    assert_eq!(
        (found.tls, &found.sasl, found.kafka_cluster_id.as_deref()),
        (false, &None, Some("4L6g3nShT-eMCtK--X86sw"))
    );
    let seen: Vec<_> = found
        .brokers
        .expect("brokers")
        .into_iter()
        .map(|broker| (broker.id, broker.attempt.target, broker.attempt.result.map_err(|failure| failure.step).is_ok()))
        .collect();
    assert_eq!(seen, [(1, address.to_string(), true), (2, closed.to_string(), false)]);
}

fn cluster(bootstrap: &[&str], security: Option<Security>) -> ClusterConfig {
    ClusterConfig {
        cluster: "orange".to_owned(),
        bootstrap: bootstrap.iter().map(|text| text.parse().expect("host:port")).collect(),
        security,
    }
}

#[tokio::test]
async fn without_credentials_only_connections_are_tried() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let open = listener.local_addr().expect("its address").to_string();
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("its address").to_string()
    };
    let visit = ClusterVisit::new(cluster(&[&open, &closed], None), Arc::new(TcpDial::new(Duration::from_secs(3))));
    let found = visit.probe().await;
    assert_eq!(found.brokers, None);
    assert_eq!(found.bootstrap.len(), 2);
    assert!(found.bootstrap[0].result.is_ok(), "{:?}", found.bootstrap[0]);
    assert_eq!(found.bootstrap[1].result.as_ref().map_err(|failure| failure.step), Err(Step::Refused));
}

#[test]
fn each_way_of_failing_has_its_step() {
    let target: HostPort = "b0.orange.test:9092".parse().expect("host:port");
    let refused = DialError::Refused { target: target.clone() };
    let sasl = ClientError::Authentication {
        cluster: "orange".to_owned(),
        broker: target.clone(),
        mechanism: "PLAIN",
        detail: "no".to_owned(),
    };
    assert_eq!(client_failure(&sasl).step, Step::Sasl);
    let several = ClientError::Bootstrap {
        cluster: "orange".to_owned(),
        tried: vec![refused.clone().into(), sasl, refused.into()],
    };
    assert_eq!(client_failure(&several).step, Step::Sasl, "the furthest");
    let tls = TlsError::Handshake { target: target.clone(), detail: "no".to_owned() };
    assert_eq!(client_failure(&tls.into()).step, Step::Tls);
    for (error, step) in [
        (DialError::NotAllowed { target: target.clone() }, Step::Allow),
        (DialError::TunnelDown { detail: "no".to_owned() }, Step::Tunnel),
        (DialError::TimedOut { target, after_ms: 1 }, Step::Timeout),
    ] {
        assert_eq!(dial_failure(&error).step, step);
    }
}
