//! Kernel TCP as a [`Stream`], the options every socket here gets, and dialling from this host.

use std::io::{self, Read as _};
use std::net::{Shutdown, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::{BoxFuture, BoxStream, Dial, DialError, HostPort, Stream, pool};

/// Read sizes of a stream, in bytes: the first, and the largest. A read that fills its buffer makes the next one four times as
/// large (4, 16, 64 KiB), so that an idle stream costs nothing and a bulk one few system calls.
const FIRST_READ: usize = 4 * 1024;
const LARGEST_READ: usize = pool::SIZE;

/// A TCP connection whose end is honest: dropped before its FIN was sent, it is reset (SO_LINGER 0). So it is when this process
/// dies, however that comes: the kernel closes what is left, and a close alone would be a FIN.
///
/// The buffer lives only while bytes are in it or are being read: an idle connection holds none.
pub struct TcpConn {
    /// `None` once it was reset. Shared with `watch` alone.
    socket: Option<Arc<TcpStream>>,
    /// Waits for a cut, once somebody asked.
    watch: Option<BoxFuture<'static, ()>>,
    /// Received and not yet consumed.
    buffer: Bytes,
    /// Size of the memory that `buffer` lies in.
    holds: usize,
    read_size: usize,
    /// What the next read may bring.
    at_most: usize,
    finished: bool,
    /// The kernel tells of a cut once, to whichever call comes first, and then shows a clean end: it is remembered here.
    cut: Option<io::ErrorKind>,
}

impl TcpConn {
    /// Takes over a connected socket and sets its options: no Nagle, keep-alive, a close that is a reset.
    #[must_use]
    pub fn new(socket: TcpStream) -> Self {
        tune(&socket);
        close_resets(&socket, true);
        Self {
            socket: Some(Arc::new(socket)),
            watch: None,
            buffer: Bytes::new(),
            holds: 0,
            read_size: FIRST_READ,
            at_most: usize::MAX,
            finished: false,
            cut: None,
        }
    }

    /// This side's address.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionReset`] after a reset, or what the system says.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket()?.local_addr()
    }

    /// The far side's address.
    ///
    /// # Errors
    /// [`io::ErrorKind::ConnectionReset`] after a reset, or what the system says.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket()?.peer_addr()
    }

    fn socket(&self) -> io::Result<&Arc<TcpStream>> {
        match (&self.socket, self.cut) {
            (Some(socket), None) => Ok(socket),
            (_, Some(kind)) => Err(kind.into()),
            (None, None) => Err(io::ErrorKind::ConnectionReset.into()),
        }
    }

    /// Remembers a failure, which is the end of both directions.
    fn note<T>(&mut self, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(error)) = &done {
            self.cut = Some(error.kind());
        }
        done
    }

    /// Runs `operation` when the socket can be written.
    fn poll_writing(
        &mut self,
        cx: &mut Context<'_>,
        operation: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        let socket = self.socket()?;
        let done = loop {
            if let Err(error) = std::task::ready!(socket.poll_write_ready(cx)) {
                break Err(error);
            }
            match operation(socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => break done,
            }
        };
        self.note(Poll::Ready(done))
    }

    /// Reads once into the empty buffer.
    fn poll_refill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let socket = self.socket.as_ref().ok_or(io::ErrorKind::ConnectionReset)?;
            std::task::ready!(socket.poll_read_ready(cx))?;
            let size = self.read_size.min(self.at_most).max(1);
            match read_once(socket, size) {
                Ok(bytes) => {
                    let read = bytes.len();
                    self.holds = size;
                    self.buffer = bytes;
                    if read == self.read_size {
                        self.read_size = (self.read_size * 4).min(LARGEST_READ);
                    } else if read <= self.read_size / 16 {
                        self.read_size = (self.read_size / 4).max(FIRST_READ);
                    }
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Reads at most `size` bytes without waiting.
fn read_once(socket: &TcpStream, size: usize) -> io::Result<Bytes> {
    if size == pool::SIZE {
        let mut buffer = pool::Buffer::take();
        let read = try_read(socket, buffer.spare())?;
        buffer.advance(read);
        return Ok(buffer.freeze());
    }
    let mut buffer = vec![0; size];
    let read = try_read(socket, &mut buffer)?;
    buffer.truncate(read);
    Ok(Bytes::from_owner(buffer))
}

/// Reads once without waiting. A read that does not fill `buffer` has emptied the socket: it is not taken for readable again
/// until more arrives, which saves the system call that would find nothing.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when there is nothing, or what the system says.
pub fn try_read(socket: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = None;
    let done = socket.try_io(Interest::READABLE, || {
        let taken = (&*socket2::SockRef::from(socket)).read(buffer)?;
        read = Some(taken);
        // An end stays to be seen; the runtime keeps that apart.
        if (1..buffer.len()).contains(&taken) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match (read, done) {
        (Some(taken), _) => Ok(taken),
        (None, Err(error)) => Err(error),
        (None, Ok(())) => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Sets what every connection here has: TCP_NODELAY (Nagle with delayed ACK costs 40 ms) and keep-alive. Failures are not
/// errors: the connection works without.
pub fn tune(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10))
        .with_retries(3);
    let _ = socket2::SockRef::from(socket).set_tcp_keepalive(&keepalive);
}

/// Whether closing the socket is an RST, which drops what was not sent yet, or a FIN behind it.
fn close_resets(socket: &TcpStream, resets: bool) {
    let _ = socket2::SockRef::from(socket).set_linger(resets.then_some(Duration::ZERO));
}

impl AsyncRead for TcpConn {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let available = std::task::ready!(Pin::new(&mut *this).poll_fill_buf(cx))?;
        let taken = available.len().min(buf.remaining());
        buf.put_slice(&available[..taken]);
        Pin::new(this).consume(taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for TcpConn {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.buffer.is_empty() {
            // However it was emptied: even an empty share would keep the memory.
            this.buffer = Bytes::new();
            this.holds = 0;
            this.socket()?;
            let done = this.poll_refill(cx);
            std::task::ready!(this.note(done))?;
        }
        Poll::Ready(Ok(&this.buffer))
    }

    fn consume(mut self: Pin<&mut Self>, amt: usize) {
        let consumed = amt.min(self.buffer.len());
        self.buffer.advance(consumed);
    }
}

impl AsyncWrite for TcpConn {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, |socket| socket.try_write(buf))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.get_mut().poll_writing(cx, |socket| socket.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The kernel's socket has nothing to flush.
        Poll::Ready(self.socket().map(|_| ()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let done = socket2::SockRef::from(this.socket()?).shutdown(Shutdown::Write);
        this.finished = done.is_ok();
        this.note(Poll::Ready(done))
    }
}

impl Stream for TcpConn {
    fn reset(&mut self) {
        self.finished = false;
        self.buffer = Bytes::new();
        self.holds = 0;
        self.watch = None;
        self.socket = None;
    }

    fn read_at_most(&mut self, most: usize) {
        self.at_most = most;
    }

    fn filled(&mut self) -> Option<&mut Bytes> {
        if self.buffer.len() < self.holds / 2 {
            // Little in much memory, and whoever keeps it counts the bytes.
            self.buffer = Bytes::copy_from_slice(&self.buffer);
            self.holds = self.buffer.len();
        }
        Some(&mut self.buffer)
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Ok(socket) = self.socket() else { return Poll::Ready(()) };
        let socket = Arc::clone(socket);
        let watch = self.watch.get_or_insert_with(|| {
            Box::pin(async move {
                // An error of the wait itself ends the stream as well.
                let _ = socket.ready(Interest::ERROR).await;
            })
        });
        watch.as_mut().poll(cx)
    }
}

impl std::fmt::Debug for TcpConn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TcpConn").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Drop for TcpConn {
    fn drop(&mut self) {
        if self.finished
            && let Some(socket) = &self.socket
        {
            // What was sent before the FIN may still be on its way.
            close_resets(socket, false);
        }
    }
}

/// Dials from this host, resolving names by the system's resolver.
#[derive(Debug, Clone)]
pub struct TcpDial {
    deadline: Duration,
}

impl TcpDial {
    /// A dialler that gives up after `deadline`, names included.
    #[must_use]
    pub const fn new(deadline: Duration) -> Self {
        Self { deadline }
    }
}

impl Dial for TcpDial {
    fn dial<'a>(&'a self, target: &'a HostPort) -> BoxFuture<'a, Result<BoxStream, DialError>> {
        Box::pin(async move {
            match tokio::time::timeout(self.deadline, TcpStream::connect((target.host(), target.port()))).await {
                Err(_) => Err(timed_out(target, self.deadline)),
                Ok(Err(error)) => Err(dial_error(target, self.deadline, &error)),
                Ok(Ok(socket)) => Ok(Box::new(TcpConn::new(socket)) as BoxStream),
            }
        })
    }
}

/// Names the culprit of a failed connect.
#[must_use]
pub fn dial_error(target: &HostPort, deadline: Duration, error: &io::Error) -> DialError {
    let target = target.clone();
    match error.kind() {
        io::ErrorKind::ConnectionRefused => DialError::Refused { target },
        io::ErrorKind::TimedOut => timed_out(&target, deadline),
        // The standard library has no kind for a failed look-up, but it has no system error number either.
        _ if error.raw_os_error().is_none() => DialError::NoSuchName { target, detail: error.to_string() },
        _ => DialError::Unreachable { target, detail: error.to_string() },
    }
}

/// The error of a dial whose deadline passed.
#[must_use]
pub fn timed_out(target: &HostPort, deadline: Duration) -> DialError {
    DialError::TimedOut { target: target.clone(), after_ms: u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX) }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpConn) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (far, TcpConn::new(listener.accept().await.unwrap().0))
    }

    #[tokio::test]
    async fn an_idle_connection_holds_no_buffer_and_a_busy_one_reads_in_larger_steps() {
        let (mut far, mut conn) = pair().await;
        let writer = tokio::spawn(async move {
            far.write_all(&vec![7; 16 << 20]).await.unwrap();
            far
        });
        let (mut read, mut largest) = (0, 0);
        while read < 16 << 20 {
            let len = conn.fill_buf().await.unwrap().len();
            assert!(len <= LARGEST_READ);
            // As a relay takes it, and as a reader does.
            match conn.filled() {
                Some(filled) if read % 2 == 0 => assert_eq!(filled.split_to(len).len(), len),
                _ => conn.consume(len),
            }
            (read, largest) = (read + len, largest.max(conn.read_size));
        }
        assert!(largest > FIRST_READ, "{largest}");
        let _far = writer.await.unwrap();
        let waits = std::future::poll_fn(|cx| Poll::Ready(Pin::new(&mut conn).poll_fill_buf(cx).is_pending())).await;
        assert!(waits);
        assert_eq!((conn.buffer.len(), conn.holds), (0, 0));
    }

    #[tokio::test]
    async fn a_cut_that_writing_met_is_no_clean_end_for_reading() {
        let (far, mut conn) = pair().await;
        socket2::SockRef::from(&far).set_linger(Some(Duration::ZERO)).unwrap();
        drop(far);
        while conn.write_all(&[0; 1024]).await.is_ok() {}
        for _ in 0..2 {
            assert!(conn.fill_buf().await.is_err());
        }
        assert!(conn.shutdown().await.is_err());
    }

    #[tokio::test]
    async fn a_reset_is_seen_at_once_by_the_far_side_and_by_its_owner() {
        let (mut far, mut conn) = pair().await;
        conn.reset();
        conn.reset();
        let error = far.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        for error in [conn.fill_buf().await.err(), conn.write(b"x").await.err(), conn.shutdown().await.err()] {
            assert_eq!(error.map(|e| e.kind()), Some(io::ErrorKind::ConnectionReset));
        }
    }

    #[tokio::test]
    async fn dropping_is_a_reset_before_the_fin_and_a_close_after_it() {
        let (mut far, mut conn) = pair().await;
        conn.write_all(b"all of it").await.unwrap();
        conn.shutdown().await.unwrap();
        drop(conn);
        let mut bytes = Vec::new();
        far.read_to_end(&mut bytes).await.unwrap();
        assert_eq!(bytes, b"all of it");
        let (mut far, conn) = pair().await;
        drop(conn);
        assert_eq!(far.read(&mut [0; 1]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}
