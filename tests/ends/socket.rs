//! An application's end of a stream: what it sends, and exactly what it sees.

use std::io::ErrorKind;
use std::pin::pin;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, Interest};
use tokio::net::TcpStream;

/// Most bytes of one read or write.
const PIECE: usize = 64 * 1024;
/// A way on which nothing moved for so long is taken for full. It decides how full things are when an end comes, which the
/// machine's load may change, and never what must be seen of it.
const STILL: Duration = Duration::from_millis(50);
/// Length after which the bytes repeat: a prime, so that no power of two of them can be lost unseen.
const PERIOD: usize = 65_537;

/// How a call on a socket came out, or a direction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// The write was taken.
    Taken,
    /// End of file.
    Fin,
    /// ECONNRESET.
    Reset,
    /// EPIPE.
    Pipe,
    /// Anything else.
    Other(ErrorKind),
}

impl From<std::io::Error> for How {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::ConnectionReset => Self::Reset,
            ErrorKind::BrokenPipe => Self::Pipe,
            other => Self::Other(other),
        }
    }
}

/// One thing that an application saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It read until it could not: `len` bytes, and how that ended.
    Read { len: usize, end: How },
    /// It wrote one byte.
    Wrote(How),
    /// Its socket was told of a cut without being read or written.
    Told,
    /// It read and wrote at once, both failed, and one of the two, whichever came first, with ECONNRESET.
    Cut,
}

/// One end of a stream.
pub struct App {
    socket: TcpStream,
    /// Which bytes it sends and awaits.
    sends: usize,
    awaits: usize,
    sent: usize,
    seen: Vec<Seen>,
    step: Arc<Mutex<&'static str>>,
}

/// What is sent, so often that each piece of it lies in one slice.
fn pattern() -> &'static [u8] {
    static PATTERN: OnceLock<Vec<u8>> = OnceLock::new();
    PATTERN.get_or_init(|| {
        let mut state = 1_u32;
        let next = std::iter::repeat_with(|| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state.to_be_bytes()[0]
        });
        let mut bytes: Vec<u8> = next.take(PERIOD).collect();
        bytes.extend_from_within(..PIECE);
        bytes
    })
}

fn expected(key: usize, offset: usize, len: usize) -> &'static [u8] {
    &pattern()[(key + offset) % PERIOD..][..len]
}

async fn flood(writer: &mut (impl AsyncWrite + Unpin), key: usize, sent: &mut usize, full: impl Fn()) -> How {
    loop {
        let mut write = pin!(writer.write(expected(key, *sent, PIECE)));
        let written = match tokio::time::timeout(STILL, &mut write).await {
            Ok(written) => written,
            Err(_) => {
                full();
                write.await
            }
        };
        match written {
            Ok(n) => *sent += n,
            Err(error) => return How::from(error),
        }
    }
}

/// Reads to the end; how many bytes there were, all of them right.
async fn read_to_end(reader: &mut (impl AsyncRead + Unpin), key: usize) -> (usize, How) {
    let mut buffer = vec![0; PIECE];
    let mut len = 0;
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return (len, How::Fin),
            Ok(n) => {
                assert!(buffer[..n] == *expected(key, len, n), "wrong bytes in {len}..{}", len + n);
                len += n;
            }
            Err(error) => return (len, How::from(error)),
        }
    }
}

impl App {
    /// The two ends of one stream.
    pub fn both(client: TcpStream, server: TcpStream, steps: &[Arc<Mutex<&'static str>>; 2]) -> (Self, Self) {
        let app = |socket, sends, awaits, step: &Arc<_>| Self {
            socket,
            sends,
            awaits,
            sent: 0,
            seen: Vec::new(),
            step: Arc::clone(step),
        };
        (app(client, 0, 1_000, &steps[0]), app(server, 1_000, 0, &steps[1]))
    }

    /// Says what is being waited for, for a failure.
    pub fn step(&self, step: &'static str) {
        *self.step.lock().unwrap() = step;
    }

    /// What it saw so far.
    pub fn into_seen(self) -> Vec<Seen> {
        self.seen
    }

    /// Sends up to `total` bytes in all; true once that is done, false when the kernel takes no more for now.
    pub async fn fill(&mut self, total: usize) -> bool {
        self.socket.writable().await.unwrap();
        while self.sent < total {
            let piece = expected(self.sends, self.sent, PIECE.min(total - self.sent));
            match self.socket.try_write(piece) {
                Ok(n) => self.sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return false,
                Err(error) => panic!("after {} bytes sent: {error}", self.sent),
            }
        }
        true
    }

    /// Sends until everything between here and a reader that does not read is full.
    pub async fn fill_all(&mut self) {
        while !self.fill(usize::MAX).await {
            if tokio::time::timeout(STILL, self.socket.writable()).await.is_err() {
                return;
            }
        }
    }

    /// Sends up to `total` bytes in all.
    pub async fn send(&mut self, total: usize) {
        while !self.fill(total).await {}
    }

    /// Sends without end, until that fails; says so when everything is full.
    pub async fn flood(&mut self, full: impl Fn()) {
        let end = flood(&mut self.socket, self.sends, &mut self.sent, full).await;
        self.seen.push(Seen::Wrote(end));
    }

    /// Reads until the end of file or a failure; bytes must be the ones that were sent.
    pub async fn read_to_end(&mut self) {
        let (len, end) = read_to_end(&mut self.socket, self.awaits).await;
        self.seen.push(Seen::Read { len, end });
    }

    /// Sends without end and reads, until both fail.
    pub async fn flood_and_read(&mut self, full: impl Fn()) {
        let (mut reader, mut writer) = self.socket.split();
        let flood = flood(&mut writer, self.sends, &mut self.sent, full);
        let (written, (len, end)) = tokio::join!(flood, read_to_end(&mut reader, self.awaits));
        if [written, end].contains(&How::Reset) {
            self.seen.push(Seen::Cut);
        } else {
            self.seen.extend([Seen::Wrote(written), Seen::Read { len, end }]);
        }
    }

    /// Sends up to `total` bytes in all, waits for `before_end`, and sends its FIN; reads all the while.
    pub async fn send_and_read(&mut self, total: usize, before_end: impl Future<Output = ()>) {
        let (mut reader, mut writer) = self.socket.split();
        let write = async {
            while self.sent < total {
                let piece = expected(self.sends, self.sent, PIECE.min(total - self.sent));
                self.sent += writer.write(piece).await.unwrap();
            }
            before_end.await;
            writer.shutdown().await.unwrap();
        };
        let ((), (len, end)) = tokio::join!(write, read_to_end(&mut reader, self.awaits));
        self.seen.push(Seen::Read { len, end });
    }

    /// Writes one byte that nobody will read.
    pub async fn write_one(&mut self) {
        let how = self.socket.write(b"x").await.map_or_else(How::from, |_| How::Taken);
        self.seen.push(Seen::Wrote(how));
    }

    /// Waits until the kernel knows of a cut, with no call that would ask for it.
    pub async fn told(&mut self) {
        self.socket.ready(Interest::ERROR).await.unwrap();
        self.seen.push(Seen::Told);
    }

    /// Waits until there is something to read, and leaves it there.
    pub async fn unread(&self) {
        assert_ne!(self.socket.peek(&mut [0]).await.unwrap(), 0);
    }

    /// FIN, the other direction stays open.
    pub async fn half_close(&mut self) {
        self.socket.shutdown().await.unwrap();
    }

    /// close() with SO_LINGER 0: RST.
    pub fn reset(self) -> Vec<Seen> {
        socket2::SockRef::from(&self.socket).set_linger(Some(Duration::ZERO)).unwrap();
        self.seen
    }
}
