//! Streams whose bytes tell their place: each end knows what must come next.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::outcome::Measure;

/// All streams and the server that they lead to.
pub struct Traffic {
    target: SocketAddr,
    flows: Arc<Vec<Flow>>,
    clients: std::sync::Mutex<JoinSet<()>>,
    servers: Arc<std::sync::Mutex<JoinSet<()>>>,
    stop: watch::Sender<bool>,
}

/// One stream; `there` leads to the server.
#[derive(Default)]
struct Flow {
    there: Way,
    back: Way,
    reset: AtomicBool,
}

/// One direction.
#[derive(Default)]
struct Way {
    sent: AtomicU64,
    received: AtomicU64,
    wrong: AtomicBool,
    /// Longest time without a byte and the time of the last one, in microseconds since the start.
    gap: AtomicU64,
    last: AtomicU64,
}

/// What all streams came to.
pub struct Ended {
    pub bytes: u64,
    pub reset: usize,
    pub wrong: usize,
}

impl Ended {
    pub fn measures(&self) -> [Measure; 3] {
        [
            Measure::least("GB both ways", self.bytes as f64 / 1e9, f64::MIN_POSITIVE),
            Measure::most("streams reset", self.reset as f64, 0.0),
            Measure::most("streams wrong", self.wrong as f64, 0.0),
        ]
    }
}

/// Longest wait for the last bytes of all streams.
const LAST: Duration = Duration::from_secs(120);
const PIECE: usize = 64 * 1024;
/// A prime, so that no power of two of bytes can be lost unseen.
const PERIOD: usize = 4_194_319;

/// What is sent, twice: any piece of it lies in one slice.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut random = crate::Random(7);
        let mut bytes: Vec<u8> =
            std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(PERIOD).collect();
        bytes.extend_from_within(..PIECE);
        bytes
    })
}

/// The bytes at `offset` of a direction.
fn expected(key: u64, offset: u64, len: usize) -> &'static [u8] {
    let at = ((offset + key * 65_537) % PERIOD as u64) as usize;
    &pattern()[at..at + len]
}

fn now() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_micros() as u64
}

impl Way {
    fn came(&self) {
        let now = now();
        let before = self.last.swap(now, Relaxed);
        if before > 0 {
            self.gap.fetch_max(now.saturating_sub(before), Relaxed);
        }
    }

    async fn send(
        &self,
        key: u64,
        mut socket: OwnedWriteHalf,
        mut until: watch::Receiver<bool>,
    ) -> std::io::Result<()> {
        while !*until.borrow_and_update() {
            let sent = self.sent.load(Relaxed);
            let n = tokio::select! {
                n = socket.write(expected(key, sent, PIECE)) => n?,
                _ = until.changed() => break,
            };
            self.sent.fetch_add(n as u64, Relaxed);
        }
        socket.shutdown().await
    }

    async fn receive(&self, key: u64, mut socket: OwnedReadHalf) -> std::io::Result<()> {
        let mut buffer = vec![0; PIECE];
        loop {
            let n = socket.read(&mut buffer).await?;
            if n == 0 {
                return Ok(());
            }
            if buffer[..n] != *expected(key, self.received.load(Relaxed), n) {
                self.wrong.store(true, Relaxed);
            }
            self.received.fetch_add(n as u64, Relaxed);
            self.came();
        }
    }
}

impl Traffic {
    /// The server; no stream yet.
    pub async fn start(streams: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let flows: Arc<Vec<Flow>> = Arc::new(std::iter::repeat_with(Flow::default).take(streams).collect());
        let servers = Arc::<std::sync::Mutex<JoinSet<()>>>::default();
        let (all, tasks) = (Arc::clone(&flows), Arc::clone(&servers));
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                tasks.lock().unwrap().spawn(serve(socket, Arc::clone(&all)));
            }
        });
        let stop = watch::Sender::new(false);
        Self { target, flows, clients: Default::default(), servers, stop }
    }

    /// Where the exit is to dial.
    pub fn target(&self) -> SocketAddr {
        self.target
    }

    /// Opens all streams through `entry` and lets them run.
    pub async fn connect(&self, entry: SocketAddr) {
        for at in 0..self.flows.len() {
            let mut socket = TcpStream::connect(entry).await.unwrap();
            socket.write_u64(at as u64).await.unwrap();
            let (flows, stop) = (Arc::clone(&self.flows), self.stop.subscribe());
            self.clients.lock().unwrap().spawn(async move {
                let (flow, key) = (&flows[at], at as u64);
                let (reader, writer) = socket.into_split();
                let (there, back) =
                    tokio::join!(flow.there.send(key, writer, stop), flow.back.receive(key + 1_000, reader));
                if there.is_err() || back.is_err() {
                    flow.reset.store(true, Relaxed);
                }
            });
        }
    }

    /// Bytes that arrived so far, both ways.
    pub fn received(&self) -> u64 {
        self.flows.iter().map(|flow| flow.there.received.load(Relaxed) + flow.back.received.load(Relaxed)).sum()
    }

    /// Bytes that arrived so far, by direction of each stream.
    pub fn received_each(&self) -> Vec<u64> {
        self.flows.iter().flat_map(|flow| [&flow.there, &flow.back]).map(|way| way.received.load(Relaxed)).collect()
    }

    /// Begins to measure gaps anew.
    pub fn forget_gaps(&self) {
        for way in self.flows.iter().flat_map(|flow| [&flow.there, &flow.back]) {
            way.gap.store(0, Relaxed);
        }
    }

    /// The longest gap of each direction of each stream, in seconds, one that lasts still included.
    pub fn gaps(&self) -> Vec<f64> {
        let ways = self.flows.iter().flat_map(|flow| [&flow.there, &flow.back]);
        ways.map(|way| {
            let open = now().saturating_sub(way.last.load(Relaxed));
            way.gap.load(Relaxed).max(open) as f64 / 1e6
        })
        .collect()
    }

    /// Has all streams end by FIN, both ways, and waits for that.
    pub async fn finish(&self) -> Ended {
        self.stop.send_replace(true);
        let all = async {
            for tasks in [&self.clients, &self.servers] {
                let mut tasks = std::mem::take(&mut *tasks.lock().unwrap());
                while tasks.join_next().await.is_some() {}
            }
        };
        let hung = tokio::time::timeout(LAST, all).await.is_err();
        let whole = |way: &Way| !way.wrong.load(Relaxed) && way.sent.load(Relaxed) == way.received.load(Relaxed);
        Ended {
            bytes: self.received(),
            reset: if hung {
                self.flows.len()
            } else {
                self.flows.iter().filter(|flow| flow.reset.load(Relaxed)).count()
            },
            wrong: self.flows.iter().filter(|flow| !whole(&flow.there) || !whole(&flow.back)).count(),
        }
    }
}

/// The far end of one stream: sends until the client has finished.
async fn serve(mut socket: TcpStream, flows: Arc<Vec<Flow>>) {
    // Probes of the way hang up without a word.
    let Ok(key) = socket.read_u64().await else { return };
    let flow = &flows[key as usize];
    let (reader, writer) = socket.into_split();
    let finished = watch::Sender::new(false);
    let until = finished.subscribe();
    let receive = async {
        let received = flow.there.receive(key, reader).await;
        finished.send_replace(true);
        received
    };
    let (there, back) = tokio::join!(receive, flow.back.send(key + 1_000, writer, until));
    if there.is_err() || back.is_err() {
        flow.reset.store(true, Relaxed);
    }
}
