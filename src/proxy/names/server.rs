//! The DNS sockets: datagrams and connections in, answers out.
//!
//! Known names are answered in the receiving loop, without a task or a lock that waits. What has to wait (a new name, a forwarded
//! question) runs beside it, and there is a bound on how much of it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::NamesError;
use super::directory::{Decision, Denied, Directory};
use super::dns::{self, Answer, Examined, MAX_QUESTION, Question, Transport};
use super::forward::Upstreams;
use super::listener;
use super::tally::Tally;
use crate::lifecycle::Drain;

/// Most datagrams whose answer has to wait; more are dropped, and resolvers ask again.
const WAITING: usize = 1024;

/// Most TCP connections at once over all sockets; more wait in the kernel.
const CONNECTIONS: usize = 128;

/// How long a TCP client may be silent, and may take for one message either way.
const IDLE: Duration = Duration::from_secs(10);

/// Rest after a failed receive or accept.
const PAUSE: Duration = Duration::from_millis(100);

/// Answers questions.
#[derive(Debug)]
pub(super) struct Service {
    directory: Arc<Directory>,
    upstreams: Option<Upstreams>,
    waiting: Arc<Semaphore>,
    connections: Arc<Semaphore>,
    /// Questions by outcome.
    pub(super) tally: Tally,
}

/// What is known of an answer at once.
enum First {
    Nothing,
    Now(Vec<u8>),
    /// Whether it is outside the zones stands beside it.
    Later(Box<Question>, bool),
}

impl Service {
    pub(super) fn new(directory: Arc<Directory>, upstreams: Option<Upstreams>) -> Self {
        Self {
            directory,
            upstreams,
            waiting: Arc::new(Semaphore::new(WAITING)),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            tally: Tally::default(),
        }
    }

    fn first(&self, bytes: &[u8], transport: Transport) -> First {
        match dns::examine(bytes) {
            Examined::Drop => {
                self.tally.add("dropped");
                First::Nothing
            }
            Examined::Refuse(reply) => {
                self.tally.add("malformed");
                First::Now(reply)
            }
            Examined::Ask(question) => match self.directory.decide(&question) {
                Decision::Answer(answer) => First::Now(self.finish(&question, &answer, transport)),
                Decision::Outside if self.upstreams.is_none() => {
                    First::Now(self.finish(&question, &Answer::Refused, transport))
                }
                Decision::Outside => First::Later(question, true),
                Decision::Admit => First::Later(question, false),
            },
        }
    }

    async fn later(&self, bytes: &[u8], question: &Question, outside: bool, transport: Transport) -> Vec<u8> {
        if let (true, Some(upstreams)) = (outside, &self.upstreams) {
            return match upstreams.ask(bytes, transport).await {
                Some(reply) => {
                    self.tally.add("forwarded");
                    reply
                }
                None => {
                    self.tally.add("forward_failed");
                    question.answer(&Answer::Failed, transport, true)
                }
            };
        }
        let zone = self.directory.zones.of(&question.name).unwrap_or_default().to_owned();
        let answer = match self.directory.admit(&question.name).await {
            Ok(address) => Answer::Address { address, zone },
            Err(Denied::Full) => {
                self.tally.add("addresses_exhausted");
                return question.answer(&Answer::Refused, transport, self.upstreams.is_some());
            }
            Err(Denied::Failed) => Answer::Failed,
        };
        self.finish(question, &answer, transport)
    }

    fn finish(&self, question: &Question, answer: &Answer, transport: Transport) -> Vec<u8> {
        self.tally.add(match answer {
            Answer::Address { .. } => "answered",
            Answer::NoData { .. } | Answer::Soa { .. } => "no_data",
            Answer::NoName { .. } => "no_name",
            Answer::Pointer(_) => "pointer",
            Answer::Refused => "refused",
            Answer::Failed => "failed",
        });
        question.answer(answer, transport, self.upstreams.is_some())
    }

    /// Answers datagrams until draining begins.
    pub(super) async fn serve_udp(self: Arc<Self>, socket: UdpSocket, drain: Drain) {
        let socket = Arc::new(socket);
        // One byte more than the longest question, so that a longer one is seen as such.
        let mut buffer = vec![0; MAX_QUESTION + 1];
        loop {
            let received = tokio::select! {
                biased;
                () = drain.draining() => return,
                received = socket.recv_from(&mut buffer) => received,
            };
            let (length, client) = match received {
                Ok(received) => received,
                Err(error) => {
                    if let Some(held) = self.tally.add_and_pass("receive_failed") {
                        tracing::warn!(held, %error, "cannot receive DNS questions");
                    }
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let bytes = &buffer[..length];
            match self.first(bytes, Transport::Udp) {
                First::Nothing => {}
                // A full send buffer loses the datagram, as a network would; waiting would lose all that come after it.
                First::Now(reply) => drop(socket.try_send_to(&reply, client)),
                First::Later(question, outside) => {
                    let Ok(room) = Arc::clone(&self.waiting).try_acquire_owned() else {
                        self.tally.add("overloaded");
                        continue;
                    };
                    let (service, socket, bytes) = (Arc::clone(&self), Arc::clone(&socket), bytes.to_vec());
                    drain.spawn(async move {
                        let reply = service.later(&bytes, &question, outside, Transport::Udp).await;
                        let _ = socket.send_to(&reply, client).await;
                        drop(room);
                    });
                }
            }
        }
    }

    /// Answers connections until draining begins.
    pub(super) async fn serve_tcp(self: Arc<Self>, socket: TcpListener, drain: Drain) {
        loop {
            let accepted = tokio::select! {
                biased;
                () = drain.draining() => return,
                accepted = async {
                    let room = Arc::clone(&self.connections).acquire_owned().await;
                    (socket.accept().await, room)
                } => accepted,
            };
            let (Ok((stream, client)), room) = accepted else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let (service, inner) = (Arc::clone(&self), drain.clone());
            drain.spawn(async move {
                tokio::select! {
                    () = inner.draining() => {}
                    ended = service.converse(stream) => {
                        if let Err(error) = ended {
                            tracing::debug!(%client, %error, "DNS connection ended");
                        }
                    }
                }
                drop(room);
            });
        }
    }

    /// Answers one connection's questions in their order.
    async fn converse(&self, mut stream: TcpStream) -> io::Result<()> {
        loop {
            let Some(bytes) = within(read_message(&mut stream)).await? else { return Ok(()) };
            let reply = match self.first(&bytes, Transport::Tcp) {
                First::Nothing => return Ok(()),
                First::Now(reply) => reply,
                First::Later(question, outside) => self.later(&bytes, &question, outside, Transport::Tcp).await,
            };
            let length = u16::try_from(reply.len()).map_err(io::Error::other)?;
            within(stream.write_all(&[&length.to_be_bytes(), &*reply].concat())).await?;
        }
    }
}

/// One message behind its length; `None` at the end of the stream.
async fn read_message(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let length = match stream.read_u16().await {
        Ok(length) => usize::from(length),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    };
    if length > MAX_QUESTION {
        let what = format!("a question of {length} bytes is longer than {MAX_QUESTION}");
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    Ok(Some(bytes))
}

async fn within<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(IDLE, step).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Opens both sockets of one address; port 0 is the same port for both.
pub(super) fn bind(address: SocketAddr) -> Result<(UdpSocket, TcpListener), NamesError> {
    let failed = |error| NamesError::Dns { address, error };
    let mut tries = if address.port() == 0 { PORT_TRIES } else { 1 };
    loop {
        tries -= 1;
        let udp = std::net::UdpSocket::bind(address).map_err(failed)?;
        udp.set_nonblocking(true).map_err(failed)?;
        let udp = UdpSocket::from_std(udp).map_err(failed)?;
        match listener::listen(udp.local_addr().map_err(failed)?) {
            Ok(tcp) => return Ok((udp, tcp)),
            Err(_) if tries > 0 => {}
            Err(error) => return Err(failed(error)),
        }
    }
}

/// How often a free UDP port is tried whose TCP port may be in use.
const PORT_TRIES: u32 = 8;
