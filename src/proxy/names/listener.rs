//! Listening sockets, and what becomes of a connection: a target by the address it came to, or by its SNI; then bytes.
//!
//! Accepting waits for nothing but the next connection. Nothing of what is relayed is looked at, except the ClientHello where one
//! address stands for all names; that is handed on as it came.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::directory::{Counted, Directory, Entry};
use super::sni::{self, Hello, Protocol};
use super::tally::Tally;
use crate::lifecycle::Drain;
use crate::net::tcp::TcpConn;
use crate::net::{HostPort, SharedDial, Stream, copy};

/// Most connections at once, over all names. As many streams as a tunnel carries.
pub const MAX_CONNECTIONS: usize = 16_384;

/// How long a client may take for its ClientHello where the target depends on it.
const HELLO_DEADLINE: Duration = Duration::from_secs(3);

/// How long accepting rests after a failure, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Connections that the kernel holds for us per listener.
const BACKLOG: i32 = 1024;

/// A fatal TLS alert `unrecognized_name`, RFC 6066 section 3: the client says so instead of "connection closed".
const UNRECOGNIZED_NAME: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 112];

/// Opens a listening socket.
pub(super) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    // Connections of an earlier run in TIME_WAIT must not keep this one from starting.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Where connections of a listener go.
#[derive(Debug)]
pub(super) enum Route {
    /// To this name.
    Name(Arc<Entry>),
    /// To the name in the ClientHello.
    Sni,
}

/// A listener that is open.
#[derive(Debug)]
pub(super) struct Door {
    socket: TcpListener,
    route: Route,
    pub(super) address: SocketAddr,
}

impl Door {
    pub(super) fn new(socket: TcpListener, route: Route) -> io::Result<Self> {
        let address = socket.local_addr()?;
        Ok(Self { socket, route, address })
    }
}

/// What all connections share.
#[derive(Debug)]
pub(super) struct Gate {
    dial: SharedDial,
    room: Arc<Semaphore>,
    pub(super) refused: Tally,
    directory: OnceLock<Weak<Directory>>,
    started: OnceLock<Drain>,
    /// Listeners that were open before the start.
    waiting: Mutex<Vec<Door>>,
    shared: Mutex<Vec<SocketAddr>>,
}

impl Gate {
    pub(super) fn new(dial: SharedDial, connections: usize) -> Self {
        Self {
            dial,
            room: Arc::new(Semaphore::new(connections)),
            refused: Tally::default(),
            directory: OnceLock::new(),
            started: OnceLock::new(),
            waiting: Mutex::default(),
            shared: Mutex::default(),
        }
    }

    /// Takes a listener: its connections are accepted from the start on, or at once where the start has been.
    pub(super) fn open(self: &Arc<Self>, door: Door) {
        if matches!(door.route, Route::Sni) {
            self.shared.lock().unwrap_or_else(PoisonError::into_inner).push(door.address);
        }
        match self.started.get() {
            Some(drain) => drain.spawn(Arc::clone(self).accept(door, drain.clone())),
            None => self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(door),
        }
    }

    /// Begins to accept. Called once, before any question is answered.
    pub(super) fn start(self: &Arc<Self>, directory: &Arc<Directory>, drain: &Drain) {
        let _ = self.directory.set(Arc::downgrade(directory));
        let _ = self.started.set(drain.clone());
        let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        for door in waiting {
            drain.spawn(Arc::clone(self).accept(door, drain.clone()));
        }
    }

    /// Listeners whose connections are told apart by SNI.
    pub(super) fn shared(&self) -> Vec<SocketAddr> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn accept(self: Arc<Self>, door: Door, drain: Drain) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.draining() => return,
                accepted = door.socket.accept() => accepted,
            };
            let (socket, client) = match accepted {
                Ok(accepted) => accepted,
                // The client went away between SYN and accept: nothing of ours.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    if let Some(held) = self.refused.add_and_pass("accept_failed") {
                        tracing::warn!(listener = %door.address, held, %error, "cannot accept; check the limit on open files");
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            let Ok(room) = Arc::clone(&self.room).try_acquire_owned() else {
                if let Some(held) = self.refused.add_and_pass("connection_limit") {
                    tracing::warn!(listener = %door.address, %client, limit = MAX_CONNECTIONS, held, "connection refused: too many");
                }
                TcpConn::new(socket).reset();
                continue;
            };
            let gate = Arc::clone(&self);
            let port = door.address.port();
            match &door.route {
                Route::Name(entry) => {
                    let entry = Arc::clone(entry);
                    drain.spawn(async move { gate.by_address(socket, client, entry, port, room).await });
                }
                Route::Sni => drain.spawn(async move { gate.by_sni(socket, client, port, room).await }),
            }
        }
    }

    async fn by_address(
        &self,
        socket: TcpStream,
        client: SocketAddr,
        entry: Arc<Entry>,
        port: u16,
        _room: OwnedSemaphorePermit,
    ) {
        let mut conn = TcpConn::new(socket);
        let target = HostPort::new(&entry.name, port).expect("names are checked before they get an address");
        let counted = Counted::new(Arc::clone(&entry));
        match self.dial.dial(&target).await {
            Ok(mut stream) => relay(&mut conn, &mut *stream, client, &target).await,
            Err(error) => {
                entry.failed.fetch_add(1, Ordering::Relaxed);
                self.refused.add("dial_failed");
                if let Some(held) = entry.quiet.pass(Instant::now()) {
                    tracing::warn!(broker = %target, %client, held, %error, "broker not reached; the client's connection is reset");
                }
                conn.reset();
            }
        }
        drop(counted);
    }

    async fn by_sni(&self, mut socket: TcpStream, client: SocketAddr, port: u16, _room: OwnedSemaphorePermit) {
        let Some(directory) = self.directory.get().and_then(Weak::upgrade) else { return };
        let mut head = BytesMut::new();
        let hello = match tokio::time::timeout(HELLO_DEADLINE, read_hello(&mut socket, &mut head)).await {
            Ok(Ok(hello)) => hello,
            // A port check, or a client that changed its mind.
            Ok(Err(error)) => {
                self.refused.add("closed_early");
                return tracing::debug!(%client, %error, "client left before its ClientHello was whole");
            }
            Err(_) => return self.refuse("hello_timeout", client, port, "it sent no whole ClientHello within 3 s"),
        };
        let name = match hello {
            Hello::Sni(name) if directory.zones.of(&name).is_some() => name,
            Hello::Sni(name) => {
                self.refuse("outside_zones", client, port, &format!("its SNI {name} is in no zone of proxy.zones"));
                return farewell(socket).await;
            }
            Hello::NoSni => {
                self.refuse(
                    "no_sni",
                    client,
                    port,
                    "its ClientHello has no SNI, and this address stands for all brokers",
                );
                return farewell(socket).await;
            }
            Hello::Malformed(why) => return self.refuse("malformed_hello", client, port, why),
            Hello::NotTls(protocol) => {
                let what =
                    format!("it speaks {protocol}; brokers behind one shared address are told apart by TLS only");
                return self.refuse(reason(protocol), client, port, &what);
            }
            Hello::NeedMore => return,
        };
        let Ok(target) = HostPort::new(&name, port) else { return };
        let mut conn = Prefixed { head: head.freeze(), inner: TcpConn::new(socket) };
        match self.dial.dial(&target).await {
            Ok(mut stream) => {
                // Only names that were reached get an entry, so that invented ones cannot fill the list.
                let counted = directory.record(&name).map(Counted::new);
                relay(&mut conn, &mut *stream, client, &target).await;
                drop(counted);
            }
            Err(error) => {
                let entry = directory.get(&name);
                let pass = self.refused.add_and_pass("dial_failed");
                let pass = entry.map_or(pass, |entry| {
                    entry.failed.fetch_add(1, Ordering::Relaxed);
                    entry.quiet.pass(Instant::now())
                });
                if let Some(held) = pass {
                    tracing::warn!(broker = %target, %client, held, %error, "broker not reached; the client's connection is reset");
                }
                conn.reset();
            }
        }
    }

    fn refuse(&self, reason: &'static str, client: SocketAddr, port: u16, why: &str) {
        if let Some(held) = self.refused.add_and_pass(reason) {
            tracing::warn!(%client, port, held, "connection closed: {why}");
        }
    }
}

/// Relays until the end, and says at DEBUG how it was.
async fn relay(client: &mut dyn Stream, broker: &mut dyn Stream, from: SocketAddr, target: &HostPort) {
    let relayed = copy::relay(client, broker).await;
    tracing::debug!(client = %from, broker = %target, sent = relayed.a_to_b, received = relayed.b_to_a, end = ?relayed.end, "connection ended");
}

/// Reads until the verdict on the first bytes is final; all bytes read are in `head`.
async fn read_hello(socket: &mut TcpStream, head: &mut BytesMut) -> io::Result<Hello> {
    loop {
        match sni::read(head) {
            Hello::NeedMore => {}
            verdict => return Ok(verdict),
        }
        let left = sni::HELLO_MAX.saturating_sub(head.len());
        if (&mut *socket).take(left as u64).read_buf(head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

/// Tells a TLS client that its name is not known here, and closes.
async fn farewell(mut socket: TcpStream) {
    // Seven bytes into an empty send buffer never wait.
    if socket.write_all(&UNRECOGNIZED_NAME).await.is_ok() {
        let _ = socket.shutdown().await;
    }
}

const fn reason(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::PlainKafka => "plain_kafka",
        Protocol::Http => "http",
        Protocol::Ssh => "ssh",
        Protocol::ProxyHeader => "proxy_header",
        Protocol::Ssl2 => "ssl2",
        Protocol::TlsAlert => "tls_alert",
        Protocol::Unknown => "unknown_protocol",
    }
}

/// A connection whose first bytes were read already and are read again.
#[derive(Debug)]
struct Prefixed {
    head: Bytes,
    inner: TcpConn,
}

impl AsyncRead for Prefixed {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.head.is_empty() {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        }
        let taken = this.head.len().min(buf.remaining());
        buf.put_slice(&this.head.split_to(taken));
        Poll::Ready(Ok(()))
    }
}

impl AsyncBufRead for Prefixed {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        let this = self.get_mut();
        if this.head.is_empty() {
            return Pin::new(&mut this.inner).poll_fill_buf(cx);
        }
        Poll::Ready(Ok(&this.head))
    }

    fn consume(self: Pin<&mut Self>, amt: usize) {
        let this = self.get_mut();
        if this.head.is_empty() {
            return Pin::new(&mut this.inner).consume(amt);
        }
        this.head.advance(amt);
        if this.head.is_empty() {
            this.head = Bytes::new();
        }
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_shutdown(cx)
    }
}

impl Stream for Prefixed {
    fn reset(&mut self) {
        self.head = Bytes::new();
        self.inner.reset();
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.inner.poll_cut(cx)
    }

    fn read_at_most(&mut self, most: usize) {
        self.inner.read_at_most(most);
    }

    fn filled(&mut self) -> Option<&mut Bytes> {
        if self.head.is_empty() { self.inner.filled() } else { None }
    }

    fn poll_write_owned(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &mut Bytes) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_owned(cx, data)
    }
}
