//! Two endpoints over loopback, joined by a wire that can be cut. Carriers are plaintext here, and only here; the tests of
//! real ones follow at the end.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::*;
use crate::config::{Secret, TunnelLimits};
use crate::net::{BoxStream, Dial as _, DialError, HostPort};
use crate::tunnel::carrier::{Opened, PeerIdentity, Plain as Plaintext, Proof, Protect, Sealed};

/// Records with a length and no protection at all.
struct Plain {
    closed: bool,
}

impl Protect for Plain {
    fn max_plaintext(&self) -> usize {
        65_519
    }

    fn seal(&mut self, parts: &[&[u8]], out: &mut Sealed) -> Result<(), CarrierError> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        assert!(len > 0 && len <= self.max_plaintext());
        out.extend_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
        parts.iter().for_each(|part| out.extend_from_slice(part));
        Ok(())
    }

    fn open(&mut self, input: &mut BytesMut, plain: &mut Plaintext) -> Result<Opened, CarrierError> {
        while let Some(&len) = input.first_chunk::<4>() {
            let len = u32::from_le_bytes(len) as usize;
            if len == 0 {
                return Ok(Opened::Closed);
            }
            if input.len() < 4 + len {
                break;
            }
            input.advance(4);
            plain.extend_from_slice(&input.split_to(len));
        }
        Ok(Opened::More)
    }

    fn close(&mut self, out: &mut Sealed) {
        if !std::mem::replace(&mut self.closed, true) {
            out.extend_from_slice(&[0; 4]);
        }
    }

    fn pending(&mut self, _out: &mut Sealed) {}
}

fn established(socket: TcpStream, binding: [u8; 32], dialler: bool) -> Established {
    let address = socket.peer_addr().unwrap();
    socket.set_nodelay(true).unwrap();
    let peer = PeerIdentity { name: "test".to_owned(), address };
    let protect = Box::new(Plain { closed: false });
    let proof = Proof::of_secret(&Secret::new("test".to_owned()), "link");
    Established { socket, protect, received: BytesMut::new(), binding, peer, proof, link: "link".to_owned(), dialler }
}

/// Where carriers meet: dials go through it, and it cuts them when told.
#[derive(Clone)]
pub(super) struct Wire {
    to: Arc<Mutex<Option<mpsc::Sender<Established>>>>,
    pumps: Arc<Mutex<Vec<AbortHandle>>>,
    count: Arc<AtomicU64>,
}

impl Wire {
    fn new() -> Self {
        Self { to: Arc::default(), pumps: Arc::default(), count: Arc::default() }
    }

    /// Leads dials to a new listening endpoint.
    fn listener(&self) -> Ways {
        let (sender, receiver) = mpsc::channel(16);
        *self.to.lock().unwrap() = Some(sender);
        Ways::Taken(receiver)
    }

    fn dialler(&self, carriers: u8) -> Ways {
        Ways::Dial { connect: Arc::new(self.clone()), carriers, grow: false }
    }

    /// Nobody answers dials any more.
    fn unplug(&self) {
        *self.to.lock().unwrap() = None;
        self.cut_all();
    }

    fn cut_all(&self) {
        self.pumps.lock().unwrap().drain(..).for_each(|pump| pump.abort());
    }

    /// Cuts one of the carriers that were made.
    fn cut_one(&self, random: usize) {
        let mut pumps = self.pumps.lock().unwrap();
        pumps.retain(|pump| !pump.is_finished());
        if !pumps.is_empty() {
            let at = random % pumps.len();
            pumps.remove(at).abort();
        }
    }
}

/// A connected pair of sockets.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (a, b) = tokio::join!(TcpStream::connect(address), listener.accept());
    (a.unwrap(), b.unwrap().0)
}

impl Connect for Wire {
    fn connect(&self) -> BoxFuture<'_, Result<Established, CarrierError>> {
        Box::pin(async move {
            let Some(to) = self.to.lock().unwrap().clone() else {
                return Err(CarrierError::Refused { target: "wire:1".to_owned() });
            };
            let ((near, mut near_end), (mut far_end, far)) = (pair().await, pair().await);
            let pump = tokio::spawn(async move {
                let _ = tokio::io::copy_bidirectional(&mut near_end, &mut far_end).await;
            });
            self.pumps.lock().unwrap().push(pump.abort_handle());
            let mut binding = [0; 32];
            binding[..8].copy_from_slice(&self.count.fetch_add(1, Ordering::Relaxed).to_le_bytes());
            let _ = to.send(established(far, binding, false)).await;
            Ok(established(near, binding, true))
        })
    }
}

pub(super) fn config() -> TunnelConfig {
    TunnelConfig {
        role: TunnelRole::Listen("127.0.0.1:0".parse().unwrap()),
        auth: TunnelAuth::Noise { secret: Secret::new("not used".to_owned()) },
        carriers: Carriers::Auto,
        congestion: crate::config::Congestion::default(),
        public_address: None,
        peer_address: None,
        limits: TunnelLimits::default(),
    }
}

/// A running endpoint and what it is offered.
pub(super) struct End {
    pub(super) endpoint: Endpoint,
    pub(super) offers: mpsc::Receiver<Box<dyn Offer>>,
    drain: Drain,
}

pub(super) fn run(config: &TunnelConfig, ways: Ways, room: usize) -> End {
    let (sender, offers) = mpsc::channel(room);
    let auth = Arc::new(RwLock::new(config.auth.clone()));
    let (endpoint, driver) = Endpoint::build("link".to_owned(), config, auth, sender, ways).unwrap();
    let drain = Drain::new();
    drain.spawn(driver.run(drain.clone()));
    End { endpoint, offers, drain }
}

/// A listening and a dialling endpoint on one wire.
pub(super) fn two(config: &TunnelConfig) -> (Wire, End, End) {
    let wire = Wire::new();
    let listener = run(config, wire.listener(), 1024);
    let dialler = run(config, wire.dialler(2), 1024);
    (wire, dialler, listener)
}

pub(super) async fn state(end: &End, wanted: TunnelState) {
    let mut changed = end.endpoint.changed();
    tokio::time::timeout(Duration::from_secs(20), changed.wait_for(|state| *state == wanted))
        .await
        .unwrap_or_else(|_| panic!("never {wanted:?}: {:?}", end.endpoint.status()))
        .unwrap();
}

pub(super) fn target() -> HostPort {
    HostPort::new("b0.orange.test", 9092).unwrap()
}

/// A stream from `from` to `to`, both ends.
pub(super) async fn stream(from: &End, to: &mut End) -> (BoxStream, BoxStream) {
    let dialer = from.endpoint.dialer();
    let target = target();
    let (near, far) = tokio::join!(dialer.dial(&target), async { to.offers.recv().await.unwrap().accept() });
    (near.unwrap(), far)
}

/// Echoes every stream offered until the channel closes.
fn echo(mut offers: mpsc::Receiver<Box<dyn Offer>>) {
    tokio::spawn(async move {
        while let Some(offer) = offers.recv().await {
            let stream = offer.accept();
            tokio::spawn(async move {
                let (mut read, mut write) = tokio::io::split(stream);
                if tokio::io::copy(&mut read, &mut write).await.is_ok() {
                    let _ = write.shutdown().await;
                }
            });
        }
    });
}

/// Bytes that tell their stream and place.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            (x >> 32) as u8
        })
        .collect()
}

#[tokio::test]
async fn a_stream_carries_bytes_and_ends_both_ways() {
    let (_wire, mut dialler, mut listener) = two(&config());
    for turned in [false, true] {
        let (from, to) = if turned { (&listener, &mut dialler) } else { (&dialler, &mut listener) };
        let (mut near, mut far) = stream(from, to).await;
        near.write_all(b"question").await.unwrap();
        near.shutdown().await.unwrap();
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"question");
        // Half-closed: the answer still flows.
        far.write_all(b"answer").await.unwrap();
        far.shutdown().await.unwrap();
        let mut got = Vec::new();
        near.read_to_end(&mut got).await.unwrap();
        assert_eq!(got, b"answer");
    }
    let status = dialler.endpoint.status();
    assert_eq!((status.state, status.streams_opened, status.streams_accepted), (TunnelState::Up, 1, 1));
    assert_eq!((status.bytes_in, status.bytes_out), (14, 14));
}

#[tokio::test]
async fn the_first_bytes_travel_with_the_request() {
    let (_wire, dialler, mut listener) = two(&config());
    let dialer = dialler.endpoint.dialer();
    let answer = async {
        let offer = listener.offers.recv().await.unwrap();
        assert_eq!(offer.target(), &target());
        let mut far = offer.accept();
        let mut got = [0; 5];
        far.read_exact(&mut got).await.unwrap();
        (far, got)
    };
    let target = target();
    let (near, (_far, got)) = tokio::join!(dialer.open_early(&target, Bytes::from_static(b"early")), answer);
    near.unwrap();
    assert_eq!(&got, b"early");
}

#[tokio::test]
async fn the_exits_refusal_is_the_entrys_error() {
    let (_wire, dialler, mut listener) = two(&config());
    let dialer = dialler.endpoint.dialer();
    let target = target();
    for error in [
        DialError::NotAllowed { target: target.clone() },
        DialError::TimedOut { target: target.clone(), after_ms: 10_000 },
        DialError::Unreachable { target: target.clone(), detail: "no route".to_owned() },
    ] {
        let refuse = async { listener.offers.recv().await.unwrap().refuse(&error) };
        let (result, ()) = tokio::join!(dialer.dial(&target), refuse);
        assert_eq!(result.err(), Some(error));
    }
    // Dropped without an answer.
    let (result, ()) = tokio::join!(dialer.dial(&target), async { drop(listener.offers.recv().await) });
    assert!(matches!(result.err(), Some(DialError::Unreachable { .. })));
}

#[tokio::test]
async fn offers_that_nobody_takes_are_bounded() {
    let wire = Wire::new();
    let listener = run(&config(), wire.listener(), 1);
    let dialler = run(&config(), wire.dialler(1), 1);
    // One waits in the channel for ever, the other has no place.
    let mut dials = JoinSet::new();
    for _ in 0..2 {
        let dialer = dialler.endpoint.dialer();
        dials.spawn(async move { dialer.dial(&target()).await.err() });
    }
    let first = dials.join_next().await.unwrap().unwrap();
    assert!(matches!(first, Some(DialError::Limit { .. })), "{first:?}");
    drop(listener);
}

#[tokio::test]
async fn a_reset_is_a_reset_at_the_other_end() {
    let (_wire, dialler, mut listener) = two(&config());
    for dropped in [false, true] {
        let (mut near, mut far) = stream(&dialler, &mut listener).await;
        near.write_all(b"x").await.unwrap();
        far.read_u8().await.unwrap();
        if dropped {
            drop(near);
        } else {
            near.reset();
        }
        let error = far.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        let error = far.write_all(b"y").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_stopped_reader_stops_its_writer_and_nobody_else() {
    let (_wire, dialler, mut listener) = two(&config());
    let (mut stuck, _far) = stream(&dialler, &mut listener).await;
    let written = tokio::time::timeout(Duration::from_millis(300), async {
        let block = vec![0; 64 * 1024];
        let mut written = 0;
        loop {
            written += stuck.write(&block).await.unwrap();
            WRITTEN.store(written as u64, Ordering::Relaxed);
        }
    });
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let _: Result<(), _> = written.await;
    assert_eq!(WRITTEN.load(Ordering::Relaxed), 256 * 1024);
    let (mut near, mut far) = stream(&dialler, &mut listener).await;
    near.write_all(b"free").await.unwrap();
    let mut got = [0; 4];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"free");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_survive_every_carrier_that_dies() {
    const STREAMS: u64 = 64;
    const BYTES: usize = 200_000;
    let (wire, dialler, listener) = two(&config());
    echo(listener.offers);
    let mut streams = JoinSet::new();
    for seed in 0..STREAMS {
        let dialer = dialler.endpoint.dialer();
        streams.spawn(async move {
            let stream = dialer.dial(&target()).await.unwrap();
            let (mut read, mut write) = tokio::io::split(stream);
            let sent = pattern(seed, BYTES);
            let expected = sent.clone();
            let writer = async move {
                for (block, bytes) in sent.chunks(7001).enumerate() {
                    write.write_all(bytes).await.unwrap();
                    if block % 8 == 0 {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
                write.shutdown().await.unwrap();
                write
            };
            let reader = async {
                let mut got = Vec::new();
                read.read_to_end(&mut got).await.unwrap();
                got
            };
            let (_write, got) = tokio::join!(writer, reader);
            assert!(got == expected, "stream {seed}: {} of {} bytes, or others", got.len(), expected.len());
        });
    }
    let mut kills = 0;
    let all = async {
        while let Some(done) = streams.join_next().await {
            done.unwrap()
        }
    };
    tokio::pin!(all);
    loop {
        tokio::select! {
            () = &mut all => break,
            () = tokio::time::sleep(Duration::from_millis(15)) => {
                kills += 1;
                if kills % 10 == 0 { wire.cut_all() } else { wire.cut_one(kills) }
            }
        }
    }
    let status = dialler.endpoint.status();
    assert!(kills > 5 && status.sessions == 1 && status.streams_lost == 0, "{kills} {status:?}");
}

#[tokio::test]
async fn a_restarted_peer_cuts_streams_and_the_tunnel_comes_back() {
    let config = config();
    let (wire, dialler, mut listener) = two(&config);
    let (mut near, _far) = stream(&dialler, &mut listener).await;
    wire.unplug();
    state(&dialler, TunnelState::Parked).await;
    let mut restarted = run(&config, wire.listener(), 16);
    let error = near.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    let (mut near, mut far) = stream(&dialler, &mut restarted).await;
    near.write_all(b"again").await.unwrap();
    let mut got = [0; 5];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!((&got, dialler.endpoint.status().sessions), (b"again", 2));
}

#[tokio::test]
async fn parked_streams_live_until_their_time_is_over() {
    let mut config = config();
    config.limits.park = Duration::from_millis(300);
    let (wire, dialler, mut listener) = two(&config);
    let (mut near, mut far) = stream(&dialler, &mut listener).await;
    wire.cut_all();
    near.write_all(b"over the gap").await.unwrap();
    let mut got = [0; 12];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"over the gap");
    wire.unplug();
    for stream in [&mut near, &mut far] {
        let error = stream.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(error.to_string().contains("no connection for 0.3 s"), "{error}");
    }
    let status = listener.endpoint.status();
    assert_eq!((status.state, status.streams_lost), (TunnelState::Down, 1));
}

#[tokio::test]
async fn a_dial_without_a_tunnel_fails_in_time_and_says_why() {
    let wire = Wire::new();
    let dialler = run(&config(), wire.dialler(1), 1);
    let dialer = dialler.endpoint.dialer().wait_for_tunnel(Duration::from_millis(100));
    let error = dialer.dial(&target()).await.err().unwrap().to_string();
    assert!(error.contains("100 ms") && error.contains("wire:1 refused the connection"), "{error}");
    assert_eq!(dialler.endpoint.status().state, TunnelState::Never);
}

#[tokio::test]
async fn a_second_process_on_the_same_link_is_refused_while_the_first_lives() {
    let config = config();
    let (wire, first, listener) = two(&config);
    state(&first, TunnelState::Up).await;
    let second = run(&config, wire.dialler(1), 1);
    let refused = |end: &End| end.endpoint.status().last_error.is_some_and(|e| e.contains("another process"));
    tokio::time::timeout(Duration::from_secs(5), async {
        while !(refused(&second) && refused(&listener)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
    assert_eq!(first.endpoint.status().state, TunnelState::Up);
    assert_eq!(second.endpoint.status().state, TunnelState::Never);
    // The first goes; the second takes over.
    first.drain.drain(Duration::from_secs(1)).await;
    state(&second, TunnelState::Up).await;
}

#[tokio::test]
async fn draining_finishes_streams_and_refuses_new_ones() {
    let (_wire, dialler, mut listener) = two(&config());
    let (mut near, mut far) = stream(&dialler, &mut listener).await;
    dialler.drain.begin();
    let dialer = dialler.endpoint.dialer();
    let target = target();
    let refused = tokio::time::timeout(Duration::from_secs(5), async {
        loop {
            // A dial that was quicker than the drain is refused by its exit.
            tokio::select! {
                result = dialer.dial(&target) => match result.err() {
                    Some(error @ DialError::TunnelDown { .. }) => return error,
                    other => assert!(matches!(other, Some(DialError::Unreachable { .. })), "{other:?}"),
                },
                Some(offer) = listener.offers.recv() => drop(offer),
            }
        }
    });
    let error = refused.await.unwrap().to_string();
    assert!(error.contains("this side is shutting down"), "{error}");
    near.write_all(b"last words").await.unwrap();
    near.shutdown().await.unwrap();
    let mut got = Vec::new();
    far.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"last words");
    far.shutdown().await.unwrap();
    near.read_to_end(&mut got).await.unwrap();
    drop(near);
    assert!(dialler.drain.drain(Duration::from_secs(5)).await);
    state(&listener, TunnelState::Down).await;
}

#[tokio::test]
async fn a_forced_end_resets_streams_at_the_peer_at_once() {
    let (_wire, dialler, mut listener) = two(&config());
    let (_near, mut far) = stream(&dialler, &mut listener).await;
    assert!(!dialler.drain.drain(Duration::from_millis(10)).await);
    let error = far.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    state(&listener, TunnelState::Down).await;
}

pub(super) const SECRET: &str = "kP3x9Vd2mQ7sT1bW8zLrN5cY4hJ6gF0a";

/// Two endpoints over real carriers: Noise, by the shared secret.
pub(super) async fn real_pair() -> (End, End) {
    pair_with(SECRET, SECRET).await
}

async fn pair_with(listening: &str, dialling: &str) -> (End, End) {
    let secret = |text: &str| TunnelAuth::Noise { secret: Secret::new(text.to_owned()) };
    pair_by(secret(listening), secret(dialling)).await
}

pub(super) async fn pair_by(listening: TunnelAuth, dialling: TunnelAuth) -> (End, End) {
    let mut settings = config();
    settings.auth = listening;
    let (sender, offers) = mpsc::channel(1024);
    let (endpoint, mut driver) = Endpoint::new("link".to_owned(), &settings, sender).unwrap();
    let address = driver.bind().await.unwrap().unwrap();
    let drain = Drain::new();
    drain.spawn(driver.run(drain.clone()));
    let listener = End { endpoint, offers, drain };
    settings.role = TunnelRole::Dial(address.into());
    settings.auth = dialling;
    let (sender, offers) = mpsc::channel(1024);
    let (endpoint, mut driver) = Endpoint::new("link".to_owned(), &settings, sender).unwrap();
    assert_eq!(driver.bind().await.unwrap(), None);
    let drain = Drain::new();
    drain.spawn(driver.run(drain.clone()));
    (End { endpoint, offers, drain }, listener)
}

#[tokio::test]
async fn real_carriers_carry_streams() {
    let (dialler, mut listener) = real_pair().await;
    let (mut near, mut far) = stream(&dialler, &mut listener).await;
    let sent = pattern(1, 3_000_000);
    let expected = sent.clone();
    let write = async {
        near.write_all(&sent).await.unwrap();
        near.shutdown().await.unwrap();
    };
    let read = async {
        let mut got = Vec::new();
        far.read_to_end(&mut got).await.unwrap();
        got
    };
    let ((), got) = tokio::join!(write, read);
    assert!(got == expected);
    let status = dialler.endpoint.status();
    assert_eq!((status.transport, status.role, status.state), ("noise", "dial", TunnelState::Up));
    assert_eq!((status.peer.as_deref(), status.streams_opened), (Some("secret"), 1));
}

#[tokio::test]
async fn a_wrong_secret_is_told_on_both_sides() {
    let (dialler, listener) = pair_with(SECRET, "Zq8wM3nB6vC1xK9jH4gF7dS2aP5oI0uY").await;
    let told = |end: &End| end.endpoint.status().last_error.is_some();
    tokio::time::timeout(Duration::from_secs(20), async {
        while !(told(&dialler) && told(&listener)) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    let listening = listener.endpoint.status();
    assert!(listening.last_error.unwrap().contains("does not have the same secret"));
    assert_eq!((listening.state, dialler.endpoint.status().state), (TunnelState::Never, TunnelState::Never));
}

#[tokio::test]
async fn an_endpoint_refuses_impossible_settings() {
    let build = |link: &str, carriers| {
        let mut config = config();
        config.role = TunnelRole::Dial(target());
        config.carriers = carriers;
        Endpoint::new(link.to_owned(), &config, mpsc::channel(1).0).err().map(|error| error.to_string())
    };
    assert_eq!(build("link", Carriers::Fixed(0)).unwrap(), "0 carriers, must be 1 to 16");
    assert_eq!(build("link", Carriers::Fixed(17)).unwrap(), "17 carriers, must be 1 to 16");
    assert_eq!(build(&"l".repeat(64), Carriers::Auto).unwrap(), "link name of 64 bytes, must be 1 to 63");
    assert_eq!(build("link", Carriers::Fixed(16)), None);
}

#[tokio::test]
async fn what_lies_behind_the_first_piece_is_gathered_and_consumed_across_pieces() {
    let (_wire, dialler, mut listener) = two(&config());
    let (mut near, mut far) = stream(&dialler, &mut listener).await;
    let sent = pattern(5, 2_000_000);
    let expected = sent.clone();
    let writer = tokio::spawn(async move {
        far.write_all(&sent).await.unwrap();
        far.shutdown().await.unwrap();
        far
    });
    let (mut at, mut widest) = (0, 0);
    loop {
        let first = near.fill_buf().await.unwrap().len();
        if first == 0 {
            break;
        }
        let mut slices = [io::IoSlice::new(&[]); 5];
        let most = 1 + (at * 7919) % 100_000;
        let pieces = near.gather(most, &mut slices);
        let gathered: Vec<u8> = slices[..pieces].iter().flat_map(|slice| slice.iter().copied()).collect();
        assert!(gathered.len() >= first.min(most) && gathered.len() <= most);
        assert!(gathered == expected[at..at + gathered.len()]);
        widest = widest.max(pieces);
        let done = 1 + (at * 104_729) % gathered.len();
        near.consume(done);
        at += done;
    }
    assert_eq!(at, expected.len());
    assert!(widest > 1, "never two pieces at once");
    drop(writer.await.unwrap());
}
