//! Traffic: a sink that counts and echoes, and bulk or ping-pong senders against an address.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// First byte of a connection to the sink: what it is to do.
const COUNT: u8 = b'c';
const ECHO: u8 = b'e';
const SEND: u8 = b's';

/// A server that swallows and counts, echoes, or sends without end.
pub struct Sink {
    pub address: SocketAddr,
    received: Arc<AtomicU64>,
}

impl Sink {
    pub fn start() -> Self {
        Self::at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    pub fn at(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let received = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&received);
        thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                thread::spawn(move || serve(socket, &counter));
            }
        });
        Self { address, received }
    }
}

fn serve(mut socket: TcpStream, counter: &AtomicU64) {
    let _ = socket.set_nodelay(true);
    let mut kind = [0];
    if socket.read_exact(&mut kind).is_err() {
        return;
    }
    let mut buffer = vec![0; 256 * 1024];
    if kind[0] == SEND {
        while socket.write_all(&buffer).is_ok() {}
        return;
    }
    while let Ok(n) = socket.read(&mut buffer) {
        if n == 0 || (kind[0] == ECHO && socket.write_all(&buffer[..n]).is_err()) {
            return;
        }
        counter.fetch_add(n as u64, Ordering::Relaxed);
    }
}

/// Tries to connect until `address` answers.
pub fn wait_for(address: SocketAddr) {
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(15) {
        if let Ok(mut socket) = TcpStream::connect(address) {
            let mut echo = [0];
            let _ = socket.set_read_timeout(Some(Duration::from_secs(2)));
            if socket.write_all(&[ECHO, 7]).is_ok() && socket.read_exact(&mut echo).is_ok() && echo == [7] {
                return;
            }
        }
        thread::sleep(Duration::from_millis(50));
    }
    panic!("{address} does not lead to the sink");
}

/// Bytes a second that arrive at the sink over `streams` connections to `entry`, and what `cpu` grew by meanwhile.
pub fn bulk(entry: SocketAddr, sink: &Sink, streams: usize, seconds: u64, cpu: impl Fn() -> f64) -> (f64, f64) {
    let stop = Arc::new(AtomicBool::new(false));
    let senders: Vec<_> = (0..streams)
        .map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let mut socket = TcpStream::connect(entry).unwrap();
                let _ = socket.set_nodelay(true);
                let block = vec![0x5a; 256 * 1024];
                socket.write_all(&[COUNT]).unwrap();
                while !stop.load(Ordering::Relaxed) && socket.write_all(&block).is_ok() {}
                let _ = socket.shutdown(std::net::Shutdown::Both);
            })
        })
        .collect();
    // The ramp is not part of the figure.
    thread::sleep(Duration::from_millis(700));
    let (bytes, used, since) = (sink.received.load(Ordering::Relaxed), cpu(), Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let (bytes, used, took) =
        (sink.received.load(Ordering::Relaxed) - bytes, cpu() - used, since.elapsed().as_secs_f64());
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.join().unwrap();
    }
    (bytes as f64 / took, used / (bytes as f64 / 1e9))
}

/// Bytes a second that the sink behind `entry` sends here over one connection, from `ramp` on for `time`.
pub fn drain(entry: SocketAddr, ramp: Duration, time: Duration) -> f64 {
    let mut socket = TcpStream::connect(entry).unwrap();
    socket.write_all(&[SEND]).unwrap();
    let mut buffer = vec![0; 256 * 1024];
    let begun = Instant::now();
    let (mut bytes, mut since) = (0, None);
    loop {
        let n = socket.read(&mut buffer).unwrap();
        assert!(n > 0, "the sink ended the stream");
        if begun.elapsed() < ramp {
            continue;
        }
        let since = since.get_or_insert_with(Instant::now);
        bytes += n as u64;
        if since.elapsed() >= time {
            return bytes as f64 / since.elapsed().as_secs_f64();
        }
    }
}

/// Connections a second through `entry`, each seen through to the first byte that comes back, over `seconds`.
pub fn opens(entry: SocketAddr, seconds: u64) -> f64 {
    const SENDERS: usize = 32;
    let (opened, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| {
            let (opened, stop) = (Arc::clone(&opened), Arc::clone(&stop));
            thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let mut socket = TcpStream::connect(entry).unwrap();
                    // Reset rather than finished, so that the ports are free again at once.
                    socket2::SockRef::from(&socket).set_linger(Some(Duration::ZERO)).unwrap();
                    let mut byte = [0];
                    if socket.write_all(&[ECHO, 1]).is_ok() && socket.read_exact(&mut byte).is_ok() {
                        opened.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(500));
    let (before, since) = (opened.load(Ordering::Relaxed), Instant::now());
    thread::sleep(Duration::from_secs(seconds));
    let rate = (opened.load(Ordering::Relaxed) - before) as f64 / since.elapsed().as_secs_f64();
    stop.store(true, Ordering::Relaxed);
    for sender in senders {
        sender.join().unwrap();
    }
    rate
}

/// Round trips of one byte over a connection that is there, sorted, in microseconds, while `more` says so of their number.
pub fn ping_pong(entry: SocketAddr, more: impl Fn(usize) -> bool) -> Vec<f64> {
    let mut socket = TcpStream::connect(entry).unwrap();
    socket.set_nodelay(true).unwrap();
    // Opening is another figure.
    let mut byte = [1];
    socket.write_all(&[ECHO, 1]).unwrap();
    socket.read_exact(&mut byte).unwrap();
    let mut took = Vec::new();
    while more(took.len()) {
        let since = Instant::now();
        socket.write_all(&byte).unwrap();
        socket.read_exact(&mut byte).unwrap();
        took.push(since.elapsed().as_secs_f64() * 1e6);
    }
    took.sort_by(f64::total_cmp);
    took
}

/// The smallest of sorted values that `percent` of them do not exceed.
pub fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent).div_ceil(100).max(1) - 1]
}
