//! One broker: a handle whose clones share one pipelined connection.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::messages::ApiKey;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::driver::{Command, Driver};
use super::handshake::{Correlations, Login, Versions, unsupported};
use super::wire::{Traffic, Wire};
use super::{ClientError, Rpc, rpc};
use crate::net::{BoxStream, HostPort};

/// Requests handed over and not yet sent; further callers wait in the order they came.
const WAITING: usize = 16;
/// The longest pause a broker may ask for.
const MAX_THROTTLE: Duration = Duration::from_secs(60);

/// A connection to one broker. Clones share it; requests are sent in the order in which the calls were first polled, and
/// answered in that order.
///
/// When it breaks, every call under way and every later one fails with the same cause; ask the
/// [`super::ClusterClient`] for a new one. The socket is closed when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Connection {
    pub(super) shared: Arc<Shared>,
    commands: mpsc::Sender<Command>,
}

/// What handles and driver of one connection share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) node_id: i32,
    pub(super) broker: HostPort,
    pub(super) client_id: String,
    pub(super) versions: Versions,
    pub(super) correlations: Correlations,
    pub(super) request_timeout: Duration,
    pub(super) stats: Arc<Stats>,
    cause: OnceLock<ClientError>,
    condemned: CancellationToken,
    quiet_until: Mutex<Option<Instant>>,
}

/// Counters of all connections of one client.
#[derive(Debug, Default)]
pub(super) struct Stats {
    pub(super) traffic: Arc<Traffic>,
    pub(super) open: AtomicUsize,
    pub(super) opened: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) throttled_ms: AtomicU64,
}

impl Stats {
    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Ends the connection; the first cause stays.
    pub(super) fn condemn(&self, cause: ClientError) {
        // A second cause is a consequence of the first.
        let _ = self.cause.set(cause);
        self.condemned.cancel();
    }

    pub(super) async fn condemned(&self) {
        self.condemned.cancelled().await;
    }

    pub(super) fn cause(&self) -> ClientError {
        self.cause.get().cloned().unwrap_or_else(|| ClientError::Disconnected {
            broker: self.broker.clone(),
            cause: "the program is ending".to_owned(),
        })
    }

    pub(super) fn quiet_until(&self) -> Option<Instant> {
        *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// KIP-219: the broker answered at once and will not read for so long; what is sent earlier only waits in its socket.
    fn throttle(&self, ms: i32) {
        let Ok(ms) = u64::try_from(ms) else { return };
        if ms > 0 {
            let pause = Duration::from_millis(ms).min(MAX_THROTTLE);
            self.stats.throttled_ms.fetch_add(ms, Ordering::Relaxed);
            *self.quiet_until.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now() + pause);
        }
    }
}

impl Connection {
    /// Asks versions, authenticates, and starts the driver on a stream (TLS done where there is any).
    pub(super) async fn open(
        stream: BoxStream,
        node_id: i32,
        login: Login,
        request_timeout: Duration,
        stats: Arc<Stats>,
    ) -> Result<Self, ClientError> {
        let mut wire = Wire::new(stream, Arc::clone(&stats.traffic));
        let correlations = Correlations::default();
        let versions = login.versions(&mut wire, &correlations).await?;
        let lifetime = login.authenticate(&mut wire, &versions, &correlations).await?;
        let shared = Arc::new(Shared {
            node_id,
            broker: login.broker.clone(),
            client_id: login.client_id.clone(),
            versions,
            correlations,
            request_timeout,
            stats,
            cause: OnceLock::new(),
            condemned: CancellationToken::new(),
            quiet_until: Mutex::new(None),
        });
        shared.stats.open.fetch_add(1, Ordering::Relaxed);
        shared.stats.opened.fetch_add(1, Ordering::Relaxed);
        let (commands, receiver) = mpsc::channel(WAITING);
        // Ends by itself with the last handle, or with the connection.
        tokio::spawn(Driver::new(wire, Arc::clone(&shared), receiver, login, lifetime).run());
        Ok(Self { shared, commands })
    }

    /// The version to speak: the highest that both the broker and this client know; `None` where there is none.
    #[must_use]
    pub fn version(&self, api: ApiKey) -> Option<i16> {
        self.shared.versions.agreed(api)
    }

    /// As [`Connection::version`], with the error that says what is missing.
    pub(super) fn needed(&self, api: ApiKey) -> Result<i16, ClientError> {
        self.version(api).ok_or_else(|| unsupported(&self.shared.broker, api, &self.shared.versions))
    }

    /// The node id it was opened for; -1 for a bootstrap server.
    #[must_use]
    pub fn node_id(&self) -> i32 {
        self.shared.node_id
    }

    /// The broker's address.
    #[must_use]
    pub fn broker(&self) -> &HostPort {
        &self.shared.broker
    }

    /// Why it broke; `None` while it works.
    #[must_use]
    pub fn failure(&self) -> Option<ClientError> {
        self.shared.cause.get().cloned()
    }

    /// The deadline of a request that lets the broker wait for `ms`.
    pub(super) fn timeout_with(&self, ms: i32) -> Duration {
        self.shared.request_timeout + Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    /// Sends a request of the kafka-protocol crate and waits for its answer. Dropping the future after it was sent leaves the
    /// connection in order; the answer is thrown away.
    ///
    /// `timeout` runs from the moment the request is handed to the socket.
    ///
    /// # Errors
    /// [`ClientError::Unsupported`] for a version that either side does not have; [`ClientError::Timeout`],
    /// [`ClientError::Disconnected`] and [`ClientError::Protocol`], which end the connection. Error codes inside the answer are the caller's.
    pub async fn call<R: Rpc>(&self, request: R, version: i16, timeout: Duration) -> Result<R::Response, ClientError> {
        let highest = self.needed(R::API)?;
        let lowest = self.shared.versions.lowest(R::API);
        if !(lowest..=highest).contains(&version) {
            return Err(unsupported(&self.shared.broker, R::API, &self.shared.versions));
        }
        let correlation = self.shared.correlations.next();
        let frame = rpc::encode(&request, version, correlation, &self.shared.client_id)
            .map_err(|error| ClientError::Invalid { detail: format!("{:?} v{version}: {error}", R::API) })?;
        drop(request);
        let answer = self.exchange(R::API, correlation, vec![frame], timeout).await?;
        let (response, throttle) = rpc::decode::<R>(version, answer).map_err(|detail| self.misbehaved(detail))?;
        self.shared.throttle(throttle);
        Ok(response)
    }

    /// As [`Connection::call`], in the newest common version and with the client's deadline.
    pub(super) async fn ask<R: Rpc>(&self, request: R) -> Result<R::Response, ClientError> {
        let version = self.needed(R::API)?;
        self.call(request, version, self.shared.request_timeout).await
    }

    /// Sends a frame and gives its answer from after the correlation id.
    pub(super) async fn exchange(
        &self,
        api: ApiKey,
        correlation: i32,
        chunks: Vec<Bytes>,
        timeout: Duration,
    ) -> Result<Bytes, ClientError> {
        let (reply, answer) = oneshot::channel();
        let command = Command { api, correlation, chunks, timeout, reply };
        if self.commands.send(command).await.is_err() {
            return Err(self.shared.cause());
        }
        answer.await.map_err(|_| self.shared.cause())
    }

    /// A broker whose answer is none is not spoken to any more.
    pub(super) fn misbehaved(&self, detail: String) -> ClientError {
        let error = ClientError::Protocol { broker: self.shared.broker.clone(), detail };
        self.shared.condemn(error.clone());
        error
    }

    pub(super) fn throttle(&self, ms: i32) {
        self.shared.throttle(ms);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use kafka_protocol::messages::list_groups_response::ListedGroup;
    use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse, MetadataRequest};
    use kafka_protocol::protocol::StrBytes;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::client::fake_broker::{Asked, FakeBroker, Guest, frame};
    use crate::net::Dial as _;
    use crate::net::tcp::TcpDial;

    const LONG: Duration = Duration::from_secs(30);

    async fn connect(broker: &FakeBroker) -> Connection {
        let stream = TcpDial::new(LONG).dial(&broker.address).await.expect("a stream");
        Connection::open(stream, 1, broker.login(None), LONG, Arc::default()).await.expect("a connection")
    }

    async fn pair() -> (Connection, Guest) {
        let broker = FakeBroker::bind().await;
        tokio::join!(connect(&broker), broker.welcome())
    }

    async fn groups(connection: &Connection) -> Result<String, ClientError> {
        let answer = connection.call(ListGroupsRequest::default(), 5, LONG).await?;
        Ok(answer.groups[0].group_id.to_string())
    }

    fn group(name: &str) -> ListGroupsResponse {
        let name = GroupId(StrBytes::from_string(name.to_owned()));
        ListGroupsResponse::default().with_groups(vec![ListedGroup::default().with_group_id(name)])
    }

    async fn ask_for_groups(guest: &mut Guest) -> Asked {
        guest.expect(ApiKey::ListGroups).await
    }

    #[tokio::test]
    async fn pipelined_requests_get_each_its_own_answer() {
        let (connection, mut guest) = pair().await;
        let broker = async {
            let mut asked = Vec::new();
            for _ in 0..40 {
                asked.push(ask_for_groups(&mut guest).await);
            }
            for (at, one) in asked.iter().enumerate() {
                guest.answer(one, &group(&at.to_string())).await;
            }
            guest
        };
        let (answers, _guest) = tokio::join!(join_all((0..40).map(|_| groups(&connection))), broker);
        for (at, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.expect("an answer"), at.to_string());
        }
        assert_eq!(connection.shared.stats.requests.load(Ordering::Relaxed), 40);
    }

    /// What the broker does after two requests, and what both callers and a later one are told.
    async fn condemned_by(act: impl AsyncFnOnce(&mut Guest, Asked, Asked)) -> String {
        let (connection, mut guest) = pair().await;
        let broker = async {
            let first = ask_for_groups(&mut guest).await;
            let second = ask_for_groups(&mut guest).await;
            act(&mut guest, first, second).await;
            guest
        };
        let (first, second, _guest) = tokio::join!(groups(&connection), groups(&connection), broker);
        let cause = first.expect_err("a cause").to_string();
        assert_eq!(second.expect_err("a cause").to_string(), cause);
        assert_eq!(groups(&connection).await.expect_err("a cause").to_string(), cause);
        assert_eq!(connection.failure().expect("a cause").to_string(), cause);
        cause.replace(&connection.broker().to_string(), "b0")
    }

    #[tokio::test]
    async fn a_torn_connection_tells_everybody_the_same_cause() {
        let swapped = condemned_by(async |guest, _, second| guest.answer(&second, &group("x")).await).await;
        assert_eq!(swapped, "b0 broke the protocol: an answer to nothing: correlation id 2, expected 1");
        let cut = condemned_by(async |guest, first, _| {
            guest.raw(&frame(&first, &group("x"))[..9]).await;
            guest.0.shutdown().await.expect("FIN");
        });
        let cut = cut.await;
        assert_eq!(cut, "b0 disconnected: closed by the broker in the middle of an answer, after 5 of 19 bytes");
        let huge = condemned_by(async |guest, _, _| guest.raw(&[0x7f, 0xff, 0xff, 0xff, 0, 0]).await).await;
        assert_eq!(huge, "b0 broke the protocol: an answer of 2147483647 bytes, outside the limits of 4 to 33554432");
        let tls = condemned_by(async |guest, _, _| guest.raw(&[0x15, 3, 3, 0, 2, 2, 80]).await).await;
        assert_eq!(tls, "TLS with b0 failed: the broker speaks TLS on this port; use SSL or SASL_SSL");
        let gone = condemned_by(async |guest, _, _| guest.0.shutdown().await.expect("FIN")).await;
        assert_eq!(gone, "b0 disconnected: closed in answer to the first request, as a listener does that wants SASL");
    }

    #[tokio::test]
    async fn an_overdue_answer_condemns_the_connection() {
        let (connection, _guest) = pair().await;
        let (late, patient) = tokio::join!(
            connection.call(ListGroupsRequest::default(), 5, Duration::from_millis(20)),
            groups(&connection)
        );
        assert!(matches!(late, Err(ClientError::Timeout { api: ApiKey::ListGroups, after_ms: 20, .. })), "{late:?}");
        assert!(matches!(patient, Err(ClientError::Timeout { .. })), "{patient:?}");
    }

    #[tokio::test]
    async fn hostile_counts_are_refused_and_the_process_lives() {
        let (connection, mut guest) = pair().await;
        let broker = async {
            let asked = guest.expect(ApiKey::Metadata).await;
            // Correlation id, header without tags, and the nine bytes.
            let mut answer = vec![0, 0, 0, 14];
            answer.extend(asked.correlation.to_be_bytes());
            answer.extend([0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]);
            guest.raw(&answer).await;
            guest
        };
        let (refused, _guest) = tokio::join!(connection.call(MetadataRequest::default(), 9, LONG), broker);
        let refused = refused.expect_err("a refusal").to_string();
        assert!(
            refused.ends_with("Metadata v9: an array with more items than the frame can hold at byte 9 of 9"),
            "{refused}"
        );
        assert!(connection.failure().is_some());
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_leaves_the_others_in_order() {
        let (connection, mut guest) = pair().await;
        {
            let mut gone = Box::pin(groups(&connection));
            assert!(futures_util::poll!(&mut gone).is_pending());
            ask_for_groups(&mut guest).await;
        }
        let broker = async {
            let second = ask_for_groups(&mut guest).await;
            let first = Asked { correlation: second.correlation - 1, body: Bytes::new(), ..second };
            guest.answer(&first, &group("nobody's")).await;
            guest.answer(&second, &group("mine")).await;
        };
        let (mine, ()) = tokio::join!(groups(&connection), broker);
        assert_eq!(mine.expect("an answer"), "mine");
    }

    #[tokio::test]
    async fn a_brokers_pause_is_kept() {
        let (connection, mut guest) = pair().await;
        let pause = Duration::from_millis(120);
        let broker = async {
            let first = ask_for_groups(&mut guest).await;
            guest.answer(&first, &group("1").with_throttle_time_ms(120)).await;
            let answered = std::time::Instant::now();
            let second = ask_for_groups(&mut guest).await;
            guest.answer(&second, &group("2")).await;
            answered.elapsed()
        };
        let caller = async { (groups(&connection).await, groups(&connection).await) };
        let ((first, second), quiet) = tokio::join!(caller, broker);
        assert_eq!((first.expect("an answer"), second.expect("an answer")), ("1".into(), "2".into()));
        assert!(quiet >= pause - Duration::from_millis(5), "{quiet:?}");
        assert_eq!(connection.shared.stats.throttled_ms.load(Ordering::Relaxed), 120);
    }

    #[tokio::test]
    async fn the_last_handle_closes_with_fin() {
        let (connection, mut guest) = pair().await;
        let stats = Arc::clone(&connection.shared.stats);
        assert_eq!(stats.open.load(Ordering::Relaxed), 1);
        drop(connection);
        assert_eq!(guest.0.read(&mut [0]).await.expect("FIN, not RST"), 0);
    }

    #[tokio::test]
    async fn versions_that_one_side_lacks_are_not_sent() {
        let (connection, _guest) = pair().await;
        assert_eq!(connection.version(ApiKey::ListGroups), Some(5));
        assert_eq!(connection.version(ApiKey::JoinGroup), None);
        let error = connection.call(ListGroupsRequest::default(), 2, LONG).await.expect_err("an error");
        assert!(matches!(error, ClientError::Unsupported { api: ApiKey::ListGroups, .. }), "{error}");
        assert!(connection.failure().is_none());
    }
}
