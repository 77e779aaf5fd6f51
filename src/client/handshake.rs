//! What happens on a fresh stream before its first request, and again before a session ends: versions and authentication.

use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use bytes::{BufMut as _, Bytes};
use kafka_protocol::messages::{ApiKey, SaslAuthenticateRequest, SaslHandshakeRequest};
use kafka_protocol::protocol::StrBytes;

use super::primitives::{Malformed, Reader, put_compact_text};
use super::wire::{Wire, WireError};
use super::{ClientError, KafkaError, Rpc, rpc, shapes};
use crate::net::HostPort;
use crate::net::tls::TlsError;
use crate::sasl::{Authenticator, SaslError};

/// Most APIs a broker may list; Kafka 4.4 has fewer than 100.
const MAX_APIS: usize = 1000;
/// Most messages of one SASL conversation; SCRAM has two.
const MAX_ROUNDS: usize = 5;

/// Versions that a broker offers.
#[derive(Debug, Clone, Default)]
pub(super) struct Versions(Vec<(i16, i16, i16)>);

impl Versions {
    /// What the broker offers of an API, lowest and highest.
    pub(super) fn offered(&self, api: ApiKey) -> Option<(i16, i16)> {
        self.0.iter().find(|(key, ..)| *key == api as i16).map(|&(_, low, high)| (low, high))
    }

    /// The lowest version that both sides have, where there is one at all.
    pub(super) fn lowest(&self, api: ApiKey) -> i16 {
        let lows = [shapes::versions(api), self.offered(api)];
        lows.into_iter().flatten().map(|(low, _)| low).max().unwrap_or(0)
    }

    /// The highest version that both sides have.
    pub(super) fn agreed(&self, api: ApiKey) -> Option<i16> {
        let (ours, theirs) = (shapes::versions(api)?, self.offered(api)?);
        let version = ours.1.min(theirs.1);
        (version >= ours.0.max(theirs.0)).then_some(version)
    }
}

/// Whom this side is, towards one broker.
#[derive(Debug, Clone)]
pub(super) struct Login {
    pub(super) cluster: String,
    pub(super) broker: HostPort,
    pub(super) client_id: String,
    pub(super) sasl: Option<Arc<Authenticator>>,
}

/// Correlation ids of one connection: 0 and up, never negative.
#[derive(Debug, Default)]
pub(super) struct Correlations(AtomicI32);

impl Correlations {
    pub(super) fn next(&self) -> i32 {
        self.0.fetch_add(1, Ordering::Relaxed) & i32::MAX
    }
}

impl Login {
    /// Asks for the broker's versions: v3 first, v0 where the broker does not know v3.
    pub(super) async fn versions(&self, wire: &mut Wire, ids: &Correlations) -> Result<Versions, ClientError> {
        for version in [3, 0] {
            let id = ids.next();
            let frame = rpc::frame(ApiKey::ApiVersions, version, version >= 3, id, &self.client_id, |out| {
                if version >= 3 {
                    put_compact_text(out, "linkspan");
                    put_compact_text(out, env!("CARGO_PKG_VERSION"));
                    out.put_u8(0);
                }
                Ok(0)
            });
            let frame = frame.map_err(|error| ClientError::Invalid { detail: error.to_string() })?;
            let answer = wire.exchange(id, frame.freeze()).await.map_err(|error| self.first_words(error))?;
            match read_versions(version, &answer) {
                Ok(Ok(versions)) => return Ok(versions),
                Ok(Err(KafkaError::UNSUPPORTED_VERSION)) if version > 0 => {}
                Ok(Err(error)) => return Err(ClientError::Kafka { api: ApiKey::ApiVersions, error, message: None }),
                Err(malformed) => return Err(self.protocol(format!("ApiVersions v{version}: {malformed}"))),
            }
        }
        Err(self.protocol("ApiVersions v0 was refused as a version".to_owned()))
    }

    /// Authenticates; answers with the time after which the broker wants it again, if it does.
    pub(super) async fn authenticate(
        &self,
        wire: &mut Wire,
        versions: &Versions,
        ids: &Correlations,
    ) -> Result<Option<Duration>, ClientError> {
        let Some(credentials) = &self.sasl else { return Ok(None) };
        let mechanism = credentials.mechanism();
        let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str(mechanism));
        let answer = self.call(wire, versions, ids, handshake).await?;
        if let Some(error) = KafkaError::from_code(answer.error_code) {
            let offered = answer.mechanisms.iter().map(|offered| offered.as_str()).collect::<Vec<_>>();
            return Err(self.refused(refused_mechanism(error, &offered)));
        }
        let mut conversation = credentials.begin(&self.broker).await.map_err(|error| self.sasl(&error))?;
        let mut message = conversation.first();
        for _ in 0..MAX_ROUNDS {
            let token = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::copy_from_slice(&message));
            let answer = self.call(wire, versions, ids, token).await?;
            if let Some(error) = KafkaError::from_code(answer.error_code) {
                let said = answer.error_message.map_or_else(|| error.to_string(), |said| said.to_string());
                return Err(self.refused(said));
            }
            match conversation.next(&answer.auth_bytes).await.map_err(|error| self.sasl(&error))? {
                Some(next) => message = next,
                None => {
                    let lifetime = u64::try_from(answer.session_lifetime_ms).unwrap_or(0);
                    return Ok((lifetime > 0).then(|| Duration::from_millis(lifetime)));
                }
            }
        }
        Err(self.refused(format!("the conversation did not end within {MAX_ROUNDS} messages")))
    }

    async fn call<R: Rpc>(
        &self,
        wire: &mut Wire,
        versions: &Versions,
        ids: &Correlations,
        request: R,
    ) -> Result<R::Response, ClientError> {
        let version = versions.agreed(R::API).ok_or_else(|| unsupported(&self.broker, R::API, versions))?;
        let id = ids.next();
        let frame = rpc::encode(&request, version, id, &self.client_id);
        let frame = frame.map_err(|error| ClientError::Invalid { detail: error.to_string() })?;
        let answer = wire.exchange(id, frame).await.map_err(|error| self.wire(error))?;
        rpc::decode::<R>(version, answer).map(|(response, _)| response).map_err(|detail| self.protocol(detail))
    }

    /// What a broken wire means.
    pub(super) fn wire(&self, error: WireError) -> ClientError {
        let broker = self.broker.clone();
        match error {
            WireError::Tls => ClientError::Tls(TlsError::Handshake { target: broker, detail: error.to_string() }),
            other if other.is_misbehaviour() => ClientError::Protocol { broker, detail: other.to_string() },
            other => ClientError::Disconnected { broker, cause: other.to_string() },
        }
    }

    /// What a wire means that breaks at the first request: often the wrong kind of port.
    fn first_words(&self, error: WireError) -> ClientError {
        match error {
            WireError::Closed => ClientError::Disconnected {
                broker: self.broker.clone(),
                cause: "closed in answer to the first request, as a port does that wants TLS or is none of Kafka's"
                    .to_owned(),
            },
            other => self.wire(other),
        }
    }

    fn protocol(&self, detail: String) -> ClientError {
        ClientError::Protocol { broker: self.broker.clone(), detail }
    }

    fn sasl(&self, error: &SaslError) -> ClientError {
        self.refused(error.to_string())
    }

    fn refused(&self, detail: String) -> ClientError {
        let mechanism = self.sasl.as_ref().map_or("no", |credentials| credentials.mechanism());
        ClientError::Authentication { cluster: self.cluster.clone(), broker: self.broker.clone(), mechanism, detail }
    }
}

/// An error that says which versions are needed and which are there.
pub(super) fn unsupported(broker: &HostPort, api: ApiKey, versions: &Versions) -> ClientError {
    let range = |(low, high): (i16, i16)| format!("v{low} to v{high}");
    ClientError::Unsupported {
        broker: broker.clone(),
        api,
        needed: shapes::versions(api).map_or_else(|| "of any version".to_owned(), range),
        has: versions.offered(api).map_or_else(|| "no version".to_owned(), range),
    }
}

fn refused_mechanism(error: KafkaError, offered: &[&str]) -> String {
    let mut said = error.to_string();
    if error == KafkaError::ILLEGAL_SASL_STATE {
        said.push_str("; this listener takes no SASL: use PLAINTEXT or SSL");
    } else if !offered.is_empty() {
        let shown: String = offered.join(", ").chars().filter(|c| !c.is_control()).take(200).collect();
        let _ = write!(said, "; it offers {shown}");
    }
    said
}

/// The outer error: no ApiVersions answer. The inner: an answer that says no.
pub(super) fn read_versions(version: i16, answer: &[u8]) -> Result<Result<Versions, KafkaError>, Malformed> {
    let mut reader = Reader::new(answer);
    if let Some(error) = KafkaError::from_code(reader.i16()?) {
        return Ok(Err(error));
    }
    let flexible = version >= 3;
    let count = reader.count(flexible, if flexible { 7 } else { 6 })?;
    if count > MAX_APIS {
        return Err(reader.malformed("over 1000 APIs"));
    }
    let mut versions = Vec::with_capacity(count);
    for _ in 0..count {
        versions.push((reader.i16()?, reader.i16()?, reader.i16()?));
        if flexible {
            reader.skip_tags()?;
        }
    }
    Ok(Ok(Versions(versions)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_on_the_highest_common_version_or_none() {
        let versions = |low, high| Versions(vec![(3, low, high)]);
        assert_eq!(versions(0, 13).agreed(ApiKey::Metadata), Some(13));
        assert_eq!(versions(0, 11).agreed(ApiKey::Metadata), Some(11));
        assert_eq!(versions(0, 99).agreed(ApiKey::Metadata), Some(13));
        assert_eq!(versions(0, 8).agreed(ApiKey::Metadata), None);
        assert_eq!(versions(14, 20).agreed(ApiKey::Metadata), None);
        assert_eq!(versions(0, 13).agreed(ApiKey::Produce), None);
        let broker = "b0:9092".parse().expect("a target");
        assert_eq!(
            unsupported(&broker, ApiKey::Metadata, &versions(0, 8)).to_string(),
            "b0:9092 does not support Metadata v9 to v13; it has v0 to v8"
        );
    }

    #[test]
    fn reads_both_forms_of_the_list() {
        let old = [0, 0, 0, 0, 0, 1, 0, 3, 0, 1, 0, 9];
        assert_eq!(read_versions(0, &old).expect("whole").expect("no error").offered(ApiKey::Metadata), Some((1, 9)));
        let new = [0, 0, 2, 0, 3, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0];
        assert_eq!(read_versions(3, &new).expect("whole").expect("no error").offered(ApiKey::Metadata), Some((1, 9)));
        // A broker that does not know v3 answers in the form of v0, with the error first.
        let refused = [0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 2];
        assert_eq!(read_versions(3, &refused).expect("whole").err(), Some(KafkaError::UNSUPPORTED_VERSION));
        assert!(read_versions(0, &[0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 3]).is_err());
    }

    mod with_a_broker {
        use super::*;
        use crate::client::Connection;
        use crate::client::fake_broker::{FakeBroker, Guest, credentials, frame};
        use crate::config::{Sasl, SaslMechanism};
        use crate::net::Dial as _;
        use crate::net::tcp::TcpDial;
        use kafka_protocol::messages::{ApiVersionsResponse, ListGroupsRequest, ListGroupsResponse};
        use kafka_protocol::messages::{SaslAuthenticateResponse, SaslHandshakeResponse};

        const LONG: Duration = Duration::from_secs(30);

        async fn connect(broker: &FakeBroker, sasl: Option<Sasl>) -> Result<Connection, ClientError> {
            let stream = TcpDial::new(LONG).dial(&broker.address).await?;
            Connection::open(stream, 1, broker.login(sasl), LONG, Arc::default()).await
        }

        fn plain() -> Option<Sasl> {
            Some(credentials(SaslMechanism::Plain, "secret"))
        }

        async fn let_in(guest: &mut Guest, lifetime_ms: i64) {
            let asked = guest.expect(ApiKey::SaslHandshake).await;
            assert_eq!(asked.decode::<SaslHandshakeRequest>().mechanism.as_str(), "PLAIN");
            guest.answer(&asked, &SaslHandshakeResponse::default()).await;
            let asked = guest.expect(ApiKey::SaslAuthenticate).await;
            assert_eq!(asked.version, 2);
            assert_eq!(&asked.decode::<SaslAuthenticateRequest>().auth_bytes[..], b"\0user\0secret");
            guest.answer(&asked, &SaslAuthenticateResponse::default().with_session_lifetime_ms(lifetime_ms)).await;
        }

        #[tokio::test]
        async fn an_old_broker_is_asked_again_in_its_own_version() {
            let broker = FakeBroker::bind().await;
            let serve = async {
                let mut guest = broker.accept().await;
                let asked = guest.expect(ApiKey::ApiVersions).await;
                assert_eq!(asked.version, 3);
                // It answers in the form of v0, which it knows.
                let in_v0 = crate::client::fake_broker::Asked { version: 0, ..asked };
                guest.raw(&frame(&in_v0, &ApiVersionsResponse::default().with_error_code(35))).await;
                let asked = guest.expect(ApiKey::ApiVersions).await;
                assert_eq!(asked.version, 0);
                guest.answer(&asked, &crate::client::fake_broker::versions()).await;
                guest
            };
            let (connection, _guest) = tokio::join!(connect(&broker, None), serve);
            assert_eq!(connection.expect("a connection").version(ApiKey::Metadata), Some(13));
        }

        #[tokio::test]
        async fn a_wrong_password_is_named_and_not_shown() {
            let broker = FakeBroker::bind().await;
            let serve = async {
                let mut guest = broker.welcome().await;
                let asked = guest.expect(ApiKey::SaslHandshake).await;
                guest.answer(&asked, &SaslHandshakeResponse::default()).await;
                let asked = guest.expect(ApiKey::SaslAuthenticate).await;
                let said = StrBytes::from_static_str("Authentication failed: Invalid username or password");
                let answer = SaslAuthenticateResponse::default().with_error_code(58).with_error_message(Some(said));
                guest.answer(&asked, &answer).await;
                guest
            };
            let (refused, _guest) = tokio::join!(connect(&broker, plain()), serve);
            let refused = refused.expect_err("a refusal");
            assert!(refused.is_authentication());
            assert!(!format!("{refused:?}").contains("secret"));
            assert_eq!(
                refused.to_string().replace(&broker.address.to_string(), "b0"),
                "cluster orange: b0 did not accept the PLAIN credentials: Authentication failed: Invalid username or password"
            );
        }

        #[tokio::test]
        async fn a_mechanism_that_is_not_offered_is_answered_with_those_that_are() {
            let broker = FakeBroker::bind().await;
            let serve = async {
                let mut guest = broker.welcome().await;
                let asked = guest.expect(ApiKey::SaslHandshake).await;
                let offered = ["SCRAM-SHA-512", "GSSAPI"].map(StrBytes::from_static_str).to_vec();
                guest
                    .answer(&asked, &SaslHandshakeResponse::default().with_error_code(33).with_mechanisms(offered))
                    .await;
                guest
            };
            let (refused, _guest) = tokio::join!(connect(&broker, plain()), serve);
            let refused = refused.expect_err("a refusal").to_string();
            assert!(refused.ends_with("UNSUPPORTED_SASL_MECHANISM (33); it offers SCRAM-SHA-512, GSSAPI"), "{refused}");
        }

        #[tokio::test]
        async fn a_server_that_cannot_prove_itself_is_refused() {
            let broker = FakeBroker::bind().await;
            let serve = async {
                let mut guest = broker.welcome().await;
                let asked = guest.expect(ApiKey::SaslHandshake).await;
                guest.answer(&asked, &SaslHandshakeResponse::default()).await;
                let asked = guest.expect(ApiKey::SaslAuthenticate).await;
                let first = asked.decode::<SaslAuthenticateRequest>().auth_bytes;
                let nonce =
                    std::str::from_utf8(&first).expect("ASCII").rsplit_once("r=").expect("a nonce").1.to_owned();
                let challenge = format!("r={nonce}more,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096");
                guest.answer(&asked, &SaslAuthenticateResponse::default().with_auth_bytes(challenge.into())).await;
                let asked = guest.expect(ApiKey::SaslAuthenticate).await;
                let claim = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
                guest.answer(&asked, &SaslAuthenticateResponse::default().with_auth_bytes(claim.into())).await;
                guest
            };
            let sasl = Some(credentials(SaslMechanism::ScramSha256, "pencil"));
            let (refused, _guest) = tokio::join!(connect(&broker, sasl), serve);
            let refused = refused.expect_err("a refusal");
            assert!(refused.is_authentication());
            assert!(refused.to_string().ends_with("it does not know the password"), "{refused}");
        }

        /// A session of 100 ms: due while a request is in flight and another waits.
        #[tokio::test]
        async fn a_session_is_renewed_at_a_frame_boundary() {
            let broker = FakeBroker::bind().await;
            let open = async {
                let mut guest = broker.welcome().await;
                let_in(&mut guest, 100).await;
                guest
            };
            let (connection, mut guest) = tokio::join!(connect(&broker, plain()), open);
            let connection = connection.expect("a connection");
            let call = || connection.call(ListGroupsRequest::default(), 5, LONG);
            let serve = async {
                let first = guest.expect(ApiKey::ListGroups).await;
                let early = tokio::time::timeout(Duration::from_millis(300), guest.asked()).await;
                assert!(early.is_err(), "asked while a request was in flight: {early:?}");
                guest.answer(&first, &ListGroupsResponse::default()).await;
                let_in(&mut guest, 0).await;
                let second = guest.expect(ApiKey::ListGroups).await;
                guest.answer(&second, &ListGroupsResponse::default().with_error_code(15)).await;
            };
            // The second call is made when the renewal is due and the first is still in flight.
            let late = async {
                tokio::time::sleep(Duration::from_millis(150)).await;
                call().await
            };
            let (first, second, ()) = tokio::join!(call(), late, serve);
            assert_eq!((first.expect("an answer").error_code, second.expect("an answer").error_code), (0, 15));
        }

        #[tokio::test]
        async fn a_renewal_that_is_refused_condemns_the_connection() {
            let broker = FakeBroker::bind().await;
            let serve = async {
                let mut guest = broker.welcome().await;
                let_in(&mut guest, 100).await;
                let asked = guest.expect(ApiKey::SaslHandshake).await;
                guest.answer(&asked, &SaslHandshakeResponse::default()).await;
                let asked = guest.expect(ApiKey::SaslAuthenticate).await;
                guest.answer(&asked, &SaslAuthenticateResponse::default().with_error_code(58)).await;
                guest
            };
            let caller = async {
                let connection = connect(&broker, plain()).await.expect("a connection");
                connection.shared.condemned().await;
                assert!(connection.failure().expect("a cause").is_authentication());
            };
            let ((), _guest) = tokio::join!(caller, serve);
        }
    }
}
