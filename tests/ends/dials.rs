//! Targets that cannot be dialled. Over TCP the client's connect fails; through the tunnel it was accepted before the far dial
//! began, and what connect would have said comes as RST, at once and with no byte: never as a FIN, which would be an answer. Why
//! it was, the two processes say in their logs and counters.

use std::future::Future as _;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join_all;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::pair::{Pair, Side, Target};
use crate::socket::How;
use crate::{Steps, TRANSPORTS, in_time};

/// Longer than a connect over loopback takes.
const AT_ONCE: Duration = Duration::from_millis(300);

/// What the client does before it is answered.
#[derive(Debug, Clone, Copy)]
enum Client {
    Waits,
    Asks,
    HalfCloses,
}

const CLIENTS: [Client; 3] = [Client::Waits, Client::Asks, Client::HalfCloses];

/// A port of this host that somebody holds, but where nobody listens.
fn refusing() -> (Socket, u16) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    (socket, port)
}

/// A listener that answers no SYN any more: all places of its queue are taken.
async fn silent() -> (Socket, Vec<TcpStream>, u16) {
    let (socket, port) = refusing();
    socket.listen(0).unwrap();
    let mut waiting = Vec::new();
    // Over loopback a SYN is answered at once, or dropped.
    while let Ok(connected) = tokio::time::timeout(AT_ONCE, TcpStream::connect((Ipv4Addr::LOCALHOST, port))).await {
        waiting.push(connected.unwrap());
    }
    (socket, waiting, port)
}

async fn refusals(transport: &str) {
    let (_held, refusing) = refusing();
    let (_queue, _waiting, silent) = silent().await;
    let forbidden = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let forbidden_port = forbidden.local_addr().unwrap().port();
    let target = |name, port, address| Target { name, port, address, allowed: true };
    let targets = [
        target("refusing.ends.test", refusing, Some("127.0.0.1")),
        // The broadcast address of the loopback network: TCP has no route to it on any machine.
        target("unreachable.ends.test", 9092, Some("127.255.255.255")),
        target("silent.ends.test", silent, Some("127.0.0.1")),
        // RFC 6761: resolvers know without asking that it is not there.
        target("nowhere.ends.invalid", 9092, None),
        Target { allowed: false, ..target("forbidden.ends.test", forbidden_port, Some("127.0.0.1")) },
    ];
    // What TCP says of the first three; a connect to the third has not ended when all else has.
    let direct = |ip: &str, port| TcpStream::connect(SocketAddr::new(ip.parse().unwrap(), port));
    assert_eq!(direct("127.0.0.1", refusing).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    assert_eq!(direct("127.255.255.255", 9092).await.unwrap_err().kind(), ErrorKind::NetworkUnreachable);
    let mut unanswered = pin!(direct("127.0.0.1", silent));

    let pair = Pair::start(transport, "60s", &targets).await;
    let clients = targets.iter().enumerate().flat_map(|(nth, target)| CLIENTS.map(|client| (nth, target, client)));
    let clients = clients.map(|(nth, target, client)| expect_refusal(transport, &pair, nth, target, client));
    let ((), still) = tokio::join!(
        async { drop(join_all(clients).await) },
        std::future::poll_fn(|cx| Poll::Ready(unanswered.as_mut().poll(cx).is_pending()))
    );
    assert!(still, "nobody answers at the silent target");
    let accepted = std::future::poll_fn(|cx| Poll::Ready(forbidden.poll_accept(cx).is_ready())).await;
    assert!(!accepted, "what is not allowed is not dialled");

    pair.until_no_stream().await;
    let status = pair.status(Side::Exit).await.unwrap();
    let counted = ["total", "refused", "failed"].map(|count| status["exit"][count].as_u64().unwrap());
    assert_eq!(counted, [0, 3, 12], "three clients for each of one and four targets\n{status:#?}");
    let log = pair.log(Side::Entry);
    for (target, why) in targets.iter().zip([
        "refused the connection",
        "is unreachable: Network is unreachable",
        "did not answer within 10000 ms",
        "has no address: no such name",
        "is not allowed by the exit",
    ]) {
        let line = format!("{}:{} {why}", target.name, target.port);
        assert!(log.contains(&line), "no line says `{line}`{}", pair.logs());
    }
}

/// A tunnel that is down is waited for; then it is as with a target that is silent.
async fn no_tunnel(transport: &str) {
    let target = Target::to(9092);
    let pair = Pair::start(transport, "1s", std::slice::from_ref(&target)).await;
    pair.wire.cut();
    pair.until_down().await;
    let clients = CLIENTS.map(|client| expect_refusal(transport, &pair, 0, &target, client));
    join_all(clients).await;
    let line = "the tunnel is down: no connection with the peer for 10000 ms";
    assert!(pair.log(Side::Entry).contains(line), "no line says `{line}`{}", pair.logs());
}

async fn expect_refusal(transport: &str, pair: &Pair, nth: usize, target: &Target, client: Client) {
    let address = pair.entry(nth, target.port);
    let seen = in_time((transport, target.name, client), &Steps::default(), refused(client, address)).await.unwrap();
    assert_eq!(seen, (0, How::Reset), "{transport}: {}, the client {client:?}", target.name);
}

/// A client that will get no server: the bytes that it reads, and how that ends. The RST may be there before the client's first
/// call is done; then that is told of it instead.
async fn refused(client: Client, address: SocketAddr) -> (usize, How) {
    let asked = async {
        let mut socket = TcpStream::connect(address).await?;
        match client {
            Client::Waits => {}
            Client::Asks => socket.write_all(b"?").await?,
            Client::HalfCloses => match socket.shutdown().await {
                Err(error) if error.kind() == ErrorKind::NotConnected => {}
                done => done?,
            },
        }
        Ok::<_, std::io::Error>(socket)
    };
    match asked.await {
        Ok(mut socket) => {
            let mut received = Vec::new();
            let end = socket.read_to_end(&mut received).await.map_or_else(How::from, |_| How::Fin);
            (received.len(), end)
        }
        Err(error) => (0, How::from(error)),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_not_reached_is_a_reset() {
    tokio::join!(join_all(TRANSPORTS.map(refusals)), join_all(TRANSPORTS.map(no_tunnel)));
}
