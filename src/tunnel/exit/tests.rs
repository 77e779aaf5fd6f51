use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;
use crate::net::BoxStream;

/// An offer whose far end the test holds.
struct TestOffer {
    target: HostPort,
    stream: BoxStream,
    refused: oneshot::Sender<DialError>,
}

impl Offer for TestOffer {
    fn target(&self) -> &HostPort {
        &self.target
    }

    fn accept(self: Box<Self>) -> BoxStream {
        self.stream
    }

    fn refuse(self: Box<Self>, why: &DialError) {
        let _ = self.refused.send(why.clone());
    }
}

struct Running {
    offers: mpsc::Sender<Box<dyn Offer>>,
    status: ExitStatusReader,
    policy: Arc<Policy>,
    rules: ExitRules,
}

fn run(allow: &[&str], resolve: &[(&str, &str)], limits: &TunnelLimits) -> Running {
    let resolve: BTreeMap<_, _> =
        resolve.iter().map(|(name, ip)| ((*name).to_owned(), vec![ip.parse().expect("ip")])).collect();
    let expose = ExposeConfig { allow: texts(allow), resolve };
    let exit = Exit::new(&expose, &[], limits).expect("rules");
    let (offers, receiver) = mpsc::channel(8);
    let (status, policy, rules) = (exit.status(), exit.policy(), exit.rules());
    tokio::spawn(exit.run(receiver, Drain::new()));
    Running { offers, status, policy, rules }
}

fn texts(rules: &[&str]) -> Vec<String> {
    rules.iter().map(|&rule| rule.to_owned()).collect()
}

impl Running {
    async fn offer(&self, target: &str) -> (TcpStream, oneshot::Receiver<DialError>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = Box::new(tcp::TcpConn::new(listener.accept().await.unwrap().0));
        let (refused, answer) = oneshot::channel();
        let offer = TestOffer { target: target.parse().unwrap(), stream, refused };
        assert!(self.offers.send(Box::new(offer)).await.is_ok());
        (far, answer)
    }

    async fn refusal(&self, target: &str) -> DialError {
        let (_far, answer) = self.offer(target).await;
        answer.await.expect("it is refused")
    }
}

/// A port on this host where nobody listens.
async fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
}

#[tokio::test]
async fn an_allowed_target_is_dialled_and_relayed_to_its_ends() {
    let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = broker.local_addr().unwrap().port();
    let exit = run(&["*.orange.test:*"], &[("B0.Orange.test.", "127.0.0.1")], &TunnelLimits::default());
    let (mut far, _answer) = exit.offer(&format!("b0.orange.test:{port}")).await;
    far.write_all(b"request").await.unwrap();
    far.shutdown().await.unwrap();
    let (mut socket, _) = broker.accept().await.unwrap();
    let mut request = Vec::new();
    socket.read_to_end(&mut request).await.unwrap();
    assert_eq!(request, b"request");
    assert_eq!(exit.status.snapshot().open, 1);
    socket.write_all(b"response").await.unwrap();
    drop(socket);
    let mut response = Vec::new();
    far.read_to_end(&mut response).await.unwrap();
    assert_eq!(response, b"response");
    drop(far);
    // The relay has ended when both ends have; its task counts right after.
    let ended = loop {
        let status = exit.status.snapshot();
        if status.open == 0 {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!((ended.total, ended.bytes_to_targets, ended.bytes_from_targets), (1, 7, 8));
}

#[tokio::test]
async fn what_is_not_allowed_is_refused_without_a_dial() {
    let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = HostPort::from(broker.local_addr().unwrap());
    let exit = run(&["*.orange.test:9092"], &[], &TunnelLimits::default());
    assert_eq!(exit.refusal(&target.to_string()).await, DialError::NotAllowed { target: target.clone() });
    // Nothing came: a later connection of our own is the first that the broker sees.
    let own = TcpStream::connect(broker.local_addr().unwrap()).await.unwrap();
    let (_, from) = broker.accept().await.unwrap();
    assert_eq!(from, own.local_addr().unwrap());
    let status = exit.status.snapshot();
    assert_eq!(status.refused, BTreeMap::from([("not_allowed", 1)]));
    assert_eq!(status.last_refused[0].target, target);
}

#[tokio::test]
async fn new_rules_cut_what_they_forbid_and_nothing_else() {
    let (kept, gone) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = |broker: &TcpListener| broker.local_addr().unwrap().port();
    let (kept_rule, gone_rule) = (format!("127.0.0.1:{}", port(&kept)), format!("gone.orange.test:{}", port(&gone)));
    let named = [("gone.orange.test", "127.0.0.1")];
    let exit = run(&[&kept_rule, &gone_rule], &named, &TunnelLimits::default());
    let (mut kept_far, _answer) = exit.offer(&kept_rule).await;
    let (mut gone_far, _answer) = exit.offer(&gone_rule).await;
    let (mut kept_broker, _) = kept.accept().await.unwrap();
    let (mut gone_broker, _) = gone.accept().await.unwrap();
    for (far, broker) in [(&mut kept_far, &mut kept_broker), (&mut gone_far, &mut gone_broker)] {
        far.write_all(b"before").await.unwrap();
        let mut before = [0; 6];
        broker.read_exact(&mut before).await.unwrap();
    }
    let resolve = BTreeMap::from([("gone.orange.test".to_owned(), vec!["127.0.0.1".parse().unwrap()])]);
    let with = |allow: &[&str], resolve: &BTreeMap<String, Vec<IpAddr>>| ExposeConfig {
        allow: texts(allow),
        resolve: resolve.clone(),
    };

    // No rules: all stays as it was.
    assert!(exit.rules.replace(&with(&["*:1"], &BTreeMap::new())).is_err());
    // The same written otherwise: the stream lives on.
    exit.rules.replace(&with(&[&kept_rule, "*.orange.test:*"], &resolve)).unwrap();
    gone_far.write_all(b"still").await.unwrap();
    let mut still = [0; 5];
    gone_broker.read_exact(&mut still).await.unwrap();
    assert_eq!(&still, b"still");

    // The name is allowed, its address is this host's and no longer written.
    exit.rules.replace(&with(&[&kept_rule, "*.orange.test:*"], &BTreeMap::new())).unwrap();
    for end in [&mut gone_far, &mut gone_broker] {
        let cut = end.read(&mut [0]).await.expect_err("a reset, not an end");
        assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
    }
    kept_far.write_all(b"after").await.unwrap();
    let mut after = [0; 5];
    kept_broker.read_exact(&mut after).await.unwrap();
    assert_eq!(&after, b"after");
    let status = exit.status.snapshot();
    assert_eq!((status.open, status.total, status.cut), (1, 2, 1));

    // And the other one, by its rule.
    exit.rules.replace(&with(&[], &BTreeMap::new())).unwrap();
    let cut = kept_broker.read(&mut [0]).await.expect_err("a reset, not an end");
    assert_eq!(cut.kind(), io::ErrorKind::ConnectionReset);
    assert!(matches!(exit.refusal(&kept_rule).await, DialError::NotAllowed { .. }));
}

#[tokio::test]
async fn errors_are_told_apart() {
    let port = closed_port().await;
    let target = format!("127.0.0.1:{port}");
    let exit = run(&[&target], &[], &TunnelLimits::default());
    let target: HostPort = target.parse().unwrap();
    assert_eq!(exit.refusal(&target.to_string()).await, DialError::Refused { target: target.clone() });
    assert_eq!(exit.status.snapshot().refused, BTreeMap::from([("refused", 1)]));
    // What the system says of a connect, by its numbers: ECONNREFUSED, ETIMEDOUT, ENETUNREACH, EHOSTUNREACH, EACCES.
    let told = |number| connect_error(&target, DEADLINE, &io::Error::from_raw_os_error(number));
    assert!(matches!(told(111), DialError::Refused { .. }));
    assert!(matches!(told(110), DialError::TimedOut { after_ms: 10_000, .. }));
    for number in [101, 113, 13] {
        assert!(matches!(told(number), DialError::Unreachable { .. }), "{number}");
    }
}

#[tokio::test]
async fn localhost_by_name_needs_that_name_to_be_written() {
    let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = broker.local_addr().unwrap().port();
    let exit = run(&[], &[], &TunnelLimits::default());
    exit.policy.set_advertised(vec![HostPort::new("localhost", port).unwrap()]);
    let target = format!("localhost:{port}");
    assert!(matches!(exit.refusal(&target).await, DialError::NotAllowed { .. }));
    let exit = run(&["localhost:*"], &[], &TunnelLimits::default());
    let (_far, _answer) = exit.offer(&target).await;
    broker.accept().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_target_that_says_nothing_is_given_up_at_the_deadline() {
    let exit = Exit::new(&ExposeConfig::default(), &[], &TunnelLimits::default()).expect("rules");
    // All places for dials are taken, so that no dial begins.
    let places = exit.shared.dials.acquire_many(DIALS as u32).await.unwrap();
    let target: HostPort = "192.0.2.1:9092".parse().unwrap();
    let began = Instant::now();
    let error = exit.shared.dial(&target, Allowed::Listed).await.unwrap_err();
    assert_eq!(error, DialError::TimedOut { target, after_ms: 10_000 });
    assert_eq!(began.elapsed().as_secs(), 10);
    drop(places);
}

#[tokio::test]
async fn streams_are_bounded() {
    let broker = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = broker.local_addr().unwrap().to_string();
    let limits = TunnelLimits { streams: 1, ..TunnelLimits::default() };
    let exit = run(&[&target], &[], &limits);
    let (_far, _answer) = exit.offer(&target).await;
    broker.accept().await.unwrap();
    let refused = exit.refusal(&target).await;
    assert!(matches!(&refused, DialError::Limit { detail, .. } if detail == "1 streams are open at the exit, of 1"));
}

#[test]
fn bad_rules_are_all_named() {
    let expose = ExposeConfig { allow: vec!["*:1".to_owned(), "b0".to_owned()], resolve: BTreeMap::new() };
    let error = Exit::new(&expose, &[], &TunnelLimits::default()).err().expect("no rules").to_string();
    assert!(error.contains("`*:1` would allow every host") && error.contains("`b0` has no port"), "{error}");
}
