//! A broker for tests: answers what the test tells it to, over loopback.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsResponse, BrokerId, MetadataResponse, RequestHeader, ResponseHeader, TopicName,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, StrBytes};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::handshake::Login;
use super::{ClientSettings, ClusterClient, shapes};
use crate::config::{Sasl, SaslMechanism, Secret, Security};
use crate::net::HostPort;
use crate::net::tcp::TcpDial;
use crate::sasl::Authenticator;

pub(super) struct FakeBroker {
    listener: TcpListener,
    pub(super) address: HostPort,
}

/// One connection at the broker's end.
pub(super) struct Guest(pub(super) TcpStream);

/// One request.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) api: ApiKey,
    pub(super) version: i16,
    pub(super) correlation: i32,
    pub(super) body: Bytes,
}

impl Asked {
    pub(super) fn decode<M: Decodable>(&self) -> M {
        let mut body = self.body.clone();
        let message = M::decode(&mut body, self.version).expect("a request of its version");
        assert_eq!(body.len(), 0, "bytes after the request");
        message
    }
}

impl FakeBroker {
    pub(super) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("bound").into();
        Self { listener, address }
    }

    pub(super) async fn accept(&self) -> Guest {
        Guest(self.listener.accept().await.expect("a connection").0)
    }

    /// Accepts, and answers the question for versions.
    pub(super) async fn welcome(&self) -> Guest {
        let mut guest = self.accept().await;
        guest.tell_versions().await;
        guest
    }

    pub(super) fn login(&self, sasl: Option<Sasl>) -> Login {
        let sasl = sasl.map(|sasl| Arc::new(Authenticator::new(&sasl)));
        Login { cluster: "orange".into(), broker: self.address.clone(), client_id: "test".into(), sasl }
    }
}

pub(super) fn credentials(mechanism: SaslMechanism, password: &str) -> Sasl {
    Sasl::Password { mechanism, username: "user".into(), password: Secret::new(password.into()) }
}

impl Guest {
    /// The next request; `None` at FIN.
    pub(super) async fn asked(&mut self) -> Option<Asked> {
        let length = match self.0.read_i32().await {
            Ok(length) => usize::try_from(length).expect("a length"),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return None,
            Err(error) => panic!("{error}"),
        };
        let mut frame = vec![0; length];
        self.0.read_exact(&mut frame).await.expect("a whole frame");
        let mut body = Bytes::from(frame);
        let key = ApiKey::try_from(body.slice(..2).get_i16()).expect("a known API");
        let version = body.slice(2..4).get_i16();
        let header = RequestHeader::decode(&mut body, key.request_header_version(version)).expect("a header");
        assert_eq!(header.client_id.as_deref(), Some("test"));
        Some(Asked { api: key, version, correlation: header.correlation_id, body })
    }

    pub(super) async fn expect(&mut self, api: ApiKey) -> Asked {
        let asked = self.asked().await.expect("a request");
        assert_eq!(asked.api, api);
        asked
    }

    pub(super) async fn answer<M: Encodable + HeaderVersion>(&mut self, asked: &Asked, message: &M) {
        self.raw(&frame(asked, message)).await;
    }

    pub(super) async fn raw(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.expect("the client reads");
    }

    /// Answers a question for metadata: these brokers, the controller is 2.
    pub(super) async fn tell_brokers(&mut self, brokers: &[(i32, &HostPort)]) {
        self.tell_topic(brokers, None).await;
    }

    /// The same with one topic, whose partition 0 has this leader.
    pub(super) async fn tell_topic(&mut self, brokers: &[(i32, &HostPort)], topic: Option<(&'static str, i32)>) {
        let asked = self.expect(ApiKey::Metadata).await;
        let brokers = brokers.iter().map(|(node_id, address)| {
            MetadataResponseBroker::default()
                .with_node_id(BrokerId(*node_id))
                .with_host(StrBytes::from_string(address.host().to_owned()))
                .with_port(i32::from(address.port()))
        });
        let topics = topic.into_iter().map(|(name, leader)| {
            let partition = MetadataResponsePartition::default().with_leader_id(BrokerId(leader)).with_leader_epoch(4);
            MetadataResponseTopic::default()
                .with_name(Some(TopicName(StrBytes::from_static_str(name))))
                .with_partitions(vec![partition])
        });
        let answer = MetadataResponse::default()
            .with_brokers(brokers.collect())
            .with_cluster_id(Some(StrBytes::from_static_str("id")))
            .with_controller_id(BrokerId(2))
            .with_topics(topics.collect());
        self.answer(&asked, &answer).await;
    }

    pub(super) async fn tell_versions(&mut self) {
        let asked = self.expect(ApiKey::ApiVersions).await;
        self.answer(&asked, &versions()).await;
    }
}

/// Every version that the client speaks.
pub(super) fn versions() -> ApiVersionsResponse {
    let ours = ApiKey::iter().filter_map(|api| {
        let (low, high) = shapes::versions(api)?;
        Some(ApiVersion::default().with_api_key(api as i16).with_min_version(low).with_max_version(high))
    });
    ApiVersionsResponse::default().with_api_keys(ours.collect())
}

pub(super) fn frame<M: Encodable + HeaderVersion>(asked: &Asked, message: &M) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i32(0);
    let header = ResponseHeader::default().with_correlation_id(asked.correlation);
    header.encode(&mut out, M::header_version(asked.version)).expect("a header");
    message.encode(&mut out, asked.version).expect("an answer of its version");
    let length = i32::try_from(out.len() - 4).expect("a small answer");
    out[..4].copy_from_slice(&length.to_be_bytes());
    out.freeze()
}

/// A client of one cluster with these bootstrap servers.
pub(super) fn client(bootstrap: Vec<HostPort>) -> ClusterClient {
    let mut settings = ClientSettings::new("orange".into(), bootstrap, Security::default());
    settings.client_id = "test".into();
    ClusterClient::new(settings, Arc::new(TcpDial::new(Duration::from_secs(30)))).expect("a client")
}
