//! Dialling and listening over real sockets: who is let in, and what each side is told when not.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::*;
use crate::config::{Carriers, Secret, TlsPeer, TunnelAuth, TunnelConfig, TunnelLimits, TunnelRole};
use crate::lifecycle::Drain;
use crate::net::HostPort;
use crate::tunnel::certs;

fn config(role: TunnelRole, auth: TunnelAuth) -> TunnelConfig {
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

fn tls(dir: &Path, side: &str, peer: &str) -> TunnelAuth {
    let file = |name: String| -> PathBuf { dir.join(name) };
    TunnelAuth::Tls {
        cert: file(format!("{side}.crt")),
        key: file(format!("{side}.key")),
        peer: TlsPeer::Ca { ca: file("ca.crt".to_owned()), name: peer.to_owned() },
    }
}

struct Listening {
    address: SocketAddr,
    status: AcceptStatusReader,
    established: mpsc::Receiver<Established>,
}

async fn listen_with(auth: TunnelAuth, handshakes: u32) -> Listening {
    let mut config = config(TunnelRole::Listen("127.0.0.1:0".parse().unwrap()), auth);
    config.limits.handshakes = handshakes;
    let acceptor = Acceptor::bind(&config, "orange-grape").await.unwrap();
    acceptor.keys().replace("second", Trust::load(&noise("another secret"), "second").unwrap());
    let (address, status) = (acceptor.local_addr(), acceptor.status());
    let (sender, established) = mpsc::channel(4);
    tokio::spawn(acceptor.run(sender, Drain::new()));
    Listening { address, status, established }
}

async fn listen(auth: TunnelAuth) -> Listening {
    listen_with(auth, 8).await
}

impl Listening {
    async fn dial(&self, auth: TunnelAuth, link: &str) -> Result<Established, CarrierError> {
        dial(&config(TunnelRole::Dial(HostPort::from(self.address)), auth), link).await
    }

    /// Sends bytes, and gives all that comes back until the end of the connection, however it ends.
    async fn answer_to(&self, bytes: &[u8]) -> Vec<u8> {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer).await;
        answer
    }

    /// The status once so many connections were refused.
    async fn after(&self, refused: u64) -> AcceptStatus {
        loop {
            let status = self.status.snapshot();
            if status.failed + status.strangers >= refused {
                return status;
            }
            tokio::task::yield_now().await;
        }
    }
}

async fn exchange(mut from: Established, mut to: Established) {
    for text in [&b"hello"[..], &[7; 16_000]] {
        let mut wire = Sealed::default();
        from.protect.seal(&[text], &mut wire).unwrap();
        from.socket.write_all(&wire).await.unwrap();
        let mut plain = Plain::default();
        while plain.concat().len() < text.len() {
            to.socket.read_buf(&mut to.received).await.unwrap();
            to.protect.open(&mut to.received, &mut plain).unwrap();
        }
        assert_eq!(plain.concat(), text);
    }
    let mut wire = Sealed::default();
    from.protect.close(&mut wire);
    from.socket.write_all(&wire).await.unwrap();
    while to.protect.open(&mut to.received, &mut Plain::default()).unwrap() == Opened::More {
        assert_ne!(to.socket.read_buf(&mut to.received).await.unwrap(), 0);
    }
}

#[tokio::test]
async fn noise_and_tls_carriers_are_established_and_carry_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    certs::generate(dir.path(), false).unwrap();
    let source = tls(dir.path(), "source", certs::DESTINATION);
    let destination = tls(dir.path(), "destination", certs::SOURCE);
    for (ours, theirs, name) in [(noise("s"), noise("s"), "secret"), (source, destination, "dns:destination.linkspan")]
    {
        let mut listening = listen(theirs).await;
        for dialler_first in [true, false] {
            let dialled = listening.dial(ours.clone(), "orange-grape").await.unwrap();
            let accepted = listening.established.recv().await.unwrap();
            assert_eq!(dialled.binding, accepted.binding);
            assert!(dialled.dialler && !accepted.dialler);
            assert_eq!((dialled.link.as_str(), accepted.link.as_str()), ("orange-grape", "orange-grape"));
            assert_eq!(dialled.peer, PeerIdentity { name: name.to_owned(), address: listening.address });
            let (from, to) = if dialler_first { (dialled, accepted) } else { (accepted, dialled) };
            exchange(from, to).await;
        }
        assert_eq!(listening.status.snapshot().established, 2);
    }
}

#[tokio::test]
async fn one_port_serves_several_links() {
    let mut listening = listen(noise("s")).await;
    listening.dial(noise("another secret"), "second").await.unwrap();
    assert_eq!(listening.established.recv().await.unwrap().link, "second");
    // The secret of one link opens no other.
    let error = listening.dial(noise("another secret"), "orange-grape").await.unwrap_err();
    assert!(matches!(error, CarrierError::WrongSecret));
}

#[tokio::test]
async fn a_wrong_secret_is_named_on_both_sides_and_answered_with_nothing() {
    let listening = listen(noise("right")).await;
    let error = listening.dial(noise("wrong"), "orange-grape").await.unwrap_err();
    assert!(matches!(error, CarrierError::WrongSecret), "{error}");
    let status = listening.after(1).await;
    let failure = status.last_error.unwrap();
    assert_eq!((status.failed, failure.error.as_str()), (1, "the peer does not have the same secret"));
    // What a peer without the secret reads is the verdict over the preamble, and not a byte more.
    let mut bytes = b"LSPN\x01\x01\x0corange-grape\x00\x30".to_vec();
    bytes.extend_from_slice(&[9; 48]);
    assert_eq!(listening.answer_to(&bytes).await, b"LSPN\x01\x01\x00");
}

#[tokio::test]
async fn mismatches_of_link_transport_and_version_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    certs::generate(dir.path(), false).unwrap();
    let certificates = tls(dir.path(), "source", certs::DESTINATION);
    let listening = listen(noise("s")).await;
    let error = listening.dial(noise("s"), "grape-orange").await.unwrap_err();
    assert!(matches!(&error, CarrierError::UnknownLink { link } if link == "grape-orange"), "{error}");
    let error = listening.dial(certificates.clone(), "orange-grape").await.unwrap_err();
    let (ours, theirs) = (Transport::Tls, Transport::Noise);
    assert!(
        matches!(error, CarrierError::TransportMismatch { ours: o, theirs: t } if (o, t) == (ours, theirs)),
        "{error}"
    );
    assert_eq!(listening.answer_to(b"LSPN\x07\x01\x0corange-grape").await, b"LSPN\x01\x01\x01");
    let status = listening.after(3).await;
    let text = status.last_error.unwrap().error;
    assert_eq!(text, "the peer speaks tunnel version 7, this side 1: run the same release on both sides");
    // The other way round.
    let listening = listen(certificates).await;
    let error = listening.dial(noise("s"), "orange-grape").await.unwrap_err();
    assert!(matches!(error, CarrierError::TransportMismatch { theirs: Transport::Tls, .. }), "{error}");
}

#[tokio::test]
async fn a_dialler_hears_why_its_certificate_is_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certs::generate(dir.path(), false).unwrap();
    certs::generate(other.path(), false).unwrap();
    let listening = listen(tls(dir.path(), "destination", certs::SOURCE)).await;
    let mut foreign = tls(other.path(), "source", certs::DESTINATION);
    if let TunnelAuth::Tls { peer: TlsPeer::Ca { ca, .. }, .. } = &mut foreign {
        *ca = dir.path().join("ca.crt");
    }
    let error = listening.dial(foreign, "orange-grape").await.unwrap_err();
    assert!(matches!(error, CarrierError::UnknownCa { whose: Whose::Own }), "{error}");
    let status = listening.after(1).await;
    assert_eq!(status.last_error.unwrap().error, "the peer's certificate is of an unknown CA");
}

#[tokio::test]
async fn strangers_are_named_and_told_nothing() {
    let listening = listen(noise("s")).await;
    let hellos: [&[u8]; 6] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\x00\x00\x00\x00\x00",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x00\x00\x00\x23\x00\x12\x00\x04\x00\x00\x00\x00\x00\x01a",
        b"\x93\x1f\x00\xd2\x55\x89\xee\x01\x02\x03\x04\x05\x06\x07\x08\x09",
        b"LSPX\x01\x01\x01aaaaaaaaaaaa",
    ];
    for hello in hellos {
        assert_eq!(listening.answer_to(hello).await, b"");
    }
    let status = listening.after(6).await;
    assert_eq!((status.strangers, status.failed), (6, 0));
    assert!(status.last_error.is_none());
    assert_eq!(
        CarrierError::NotLinkspan { seen: Seen::Http }.to_string(),
        "an HTTP request arrived on the tunnel port"
    );
}

#[tokio::test]
async fn a_dialler_of_another_service_is_told_what_it_met() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = HostPort::from(listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let mut socket = listener.accept().await.unwrap().0;
        socket.write_all(b"SSH-2.0-OpenSSH_9.6\r\n").await.unwrap();
        socket.shutdown().await.unwrap();
        let _ = socket.read_to_end(&mut Vec::new()).await;
    });
    let error = dial(&config(TunnelRole::Dial(target), noise("s")), "a").await.unwrap_err();
    assert!(matches!(error, CarrierError::NotLinkspan { seen: Seen::Ssh }), "{error}");
    server.await.unwrap();
}

#[tokio::test]
async fn nobody_listening_and_a_port_in_use_are_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = Acceptor::bind(&config(TunnelRole::Listen(address), noise("s")), "a").await.err().unwrap();
    assert!(matches!(&error, CarrierError::Bind { address: a, .. } if *a == address.to_string()), "{error}");
    drop(listener);
    let dialling = config(TunnelRole::Dial(HostPort::from(address)), noise("s"));
    let error = dial(&dialling, "a").await.unwrap_err();
    assert!(matches!(error, CarrierError::Refused { .. }), "{error}");
    assert!(matches!(Acceptor::bind(&dialling, "a").await.err(), Some(CarrierError::Role { role: "dial" })));
}

#[tokio::test]
async fn a_handshake_of_single_bytes_is_let_in() {
    let mut listening = listen(noise("s")).await;
    // A relay that passes the dialler's bytes one at a time.
    let relay = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = HostPort::from(relay.local_addr().unwrap());
    let address = listening.address;
    tokio::spawn(async move {
        let mut near = relay.accept().await.unwrap().0;
        let mut far = TcpStream::connect(address).await.unwrap();
        far.set_nodelay(true).unwrap();
        let (mut near_read, mut near_write) = near.split();
        let (mut far_read, mut far_write) = far.split();
        let forth = async {
            let mut byte = [0; 1];
            while near_read.read_exact(&mut byte).await.is_ok() {
                far_write.write_all(&byte).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let _ = tokio::join!(forth, tokio::io::copy(&mut far_read, &mut near_write));
    });
    let dialled = dial(&config(TunnelRole::Dial(target), noise("s")), "orange-grape").await.unwrap();
    assert_eq!(listening.established.recv().await.unwrap().binding, dialled.binding);
}

#[tokio::test(start_paused = true)]
async fn silence_costs_five_seconds_and_no_more() {
    for hello in [&b""[..], b"LSPN", b"LSPN\x01\x01\x0corange-grape", b"LSPN\x01\x01\x0corange-grape\x00\x30half"] {
        let listening = listen(noise("s")).await;
        let began = Instant::now();
        let answer = listening.answer_to(hello).await;
        assert!(began.elapsed() <= Duration::from_millis(5_500), "{:?}", began.elapsed());
        assert!(began.elapsed() >= Duration::from_secs(5), "{:?}", began.elapsed());
        assert!(answer.is_empty() || answer == b"LSPN\x01\x01\x00");
        let status = listening.after(1).await;
        assert_eq!((status.strangers, status.failed), if hello.is_empty() { (1, 0) } else { (0, 1) });
    }
}

#[tokio::test]
async fn a_flood_before_the_proof_is_cut_at_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    certs::generate(dir.path(), false).unwrap();
    let listening = listen(tls(dir.path(), "destination", certs::SOURCE)).await;
    let mut bytes = b"LSPN\x01\x02\x0corange-grape".to_vec();
    // Records of a handshake message that never ends.
    for _ in 0..40 {
        bytes.extend_from_slice(b"\x16\x03\x01\x10\x00\x01\x00\xff\xff");
        bytes.resize(bytes.len() + 0x1000 - 4, 0);
    }
    let mut socket = TcpStream::connect(listening.address).await.unwrap();
    let _ = socket.write_all(&bytes).await;
    assert_eq!(listening.after(1).await.failed, 1);
}

#[tokio::test]
async fn silent_peers_do_not_delay_others_and_are_bounded() {
    let mut listening = listen_with(noise("s"), 2).await;
    let mut first = TcpStream::connect(listening.address).await.unwrap();
    // One place is left beside a silent peer.
    listening.dial(noise("s"), "orange-grape").await.unwrap();
    listening.established.recv().await.unwrap();
    let second = TcpStream::connect(listening.address).await.unwrap();
    // No place is left: whoever has been silent for longest makes room, and no peer is kept out.
    listening.dial(noise("s"), "orange-grape").await.unwrap();
    listening.established.recv().await.unwrap();
    let mut byte = [0];
    let end = first.read(&mut byte).await;
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_eq!(listening.status.snapshot().dropped, 1);
    assert!(second.try_read(&mut byte).is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock));
}

#[tokio::test]
async fn the_port_is_free_again_after_draining() {
    let config = config(TunnelRole::Listen("127.0.0.1:0".parse().unwrap()), noise("s"));
    let acceptor = Acceptor::bind(&config, "a").await.unwrap();
    let address = acceptor.local_addr();
    let drain = Drain::new();
    let (sender, _established) = mpsc::channel(1);
    let running = tokio::spawn(acceptor.run(sender, drain.clone()));
    let _silent = TcpStream::connect(address).await.unwrap();
    assert!(drain.drain(Duration::from_secs(1)).await);
    running.await.unwrap();
    TcpListener::bind(address).await.unwrap();
}
