//! Questions outside the zones, asked of other servers as they came and answered as they were answered.
//!
//! Messages pass as bytes, only their id is changed, so that options, signatures and record types that are unknown here pass too. One
//! that would come back to this server is never sent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::Semaphore;

use super::dns::{HEADER, Transport};
use crate::config::Forward;

/// How long a forwarded question may take in all. Resolvers ask again after 5 s.
const DEADLINE: Duration = Duration::from_secs(3);

/// Most questions under way at once; each holds one socket and up to 64 KiB.
const UNDER_WAY: usize = 256;

/// Servers used at most, as the C library does.
const MAX_SERVERS: usize = 3;

/// Servers that other names are asked of.
#[derive(Debug)]
pub(super) struct Upstreams {
    servers: Vec<SocketAddr>,
    room: Semaphore,
}

impl Upstreams {
    /// The servers of a setting, without those that are this server itself; `None` where other names are refused.
    pub(super) fn new(forward: &Forward, own: &[SocketAddr]) -> Option<Self> {
        let mut servers = match forward {
            Forward::Refuse => return None,
            Forward::Servers(servers) => servers.clone(),
            Forward::System => system_servers(),
        };
        let configured = servers.len();
        servers.retain(|server| !is_own(*server, own));
        servers.truncate(MAX_SERVERS);
        if servers.is_empty() {
            tracing::warn!(
                configured,
                "no DNS server left to forward to, without asking ourselves: names outside the zones will fail; set proxy.forward to the network's servers"
            );
        }
        Some(Self { servers, room: Semaphore::new(UNDER_WAY) })
    }

    /// The answer to a question that was examined, with the question's own id; `None` when there was none in time.
    pub(super) async fn ask(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let _room = self.room.try_acquire().ok()?;
        let mut id = [0; 2];
        // Ids that cannot be guessed, together with the socket's random port, keep others from answering in the server's place.
        aws_lc_rs::rand::fill(&mut id).ok()?;
        let mut sent = question.to_vec();
        sent[..2].copy_from_slice(&id);
        let mut reply = tokio::time::timeout(DEADLINE, self.ask_in_turn(&sent, transport)).await.ok().flatten()?;
        reply[..2].copy_from_slice(&question[..2]);
        Some(reply)
    }

    /// Each server in turn, at least two tries in all; a server that failed is believed only when no other knows better.
    async fn ask_in_turn(&self, question: &[u8], transport: Transport) -> Option<Vec<u8>> {
        let tries = u32::try_from(self.servers.len().max(2)).unwrap_or(2);
        let mut failure = None;
        for &server in self.servers.iter().cycle().take(tries as usize) {
            let exchange = async {
                match transport {
                    Transport::Udp => over_udp(server, question).await,
                    Transport::Tcp => over_tcp(server, question).await,
                }
            };
            match tokio::time::timeout(DEADLINE / tries, exchange).await {
                Ok(Ok(reply)) if !matches!(reply[3] & 0xf, SERVFAIL | REFUSED) => return Some(reply),
                Ok(Ok(reply)) => failure = Some(reply),
                Ok(Err(error)) => tracing::debug!(%server, %error, "forwarded question failed"),
                Err(_) => tracing::debug!(%server, "forwarded question timed out"),
            }
        }
        failure
    }
}

async fn over_udp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    // Connected: only that server's datagrams arrive, and its refusals are errors.
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if answers(question, &buffer[..length]) {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

async fn over_tcp(server: SocketAddr, question: &[u8]) -> io::Result<Vec<u8>> {
    let mut socket = TcpStream::connect(server).await?;
    let length = u16::try_from(question.len()).map_err(io::Error::other)?;
    socket.write_all(&[&length.to_be_bytes(), question].concat()).await?;
    let length = socket.read_u16().await?;
    let mut reply = Vec::new();
    (&mut socket).take(length.into()).read_to_end(&mut reply).await?;
    if reply.len() == usize::from(length) && answers(question, &reply) {
        Ok(reply)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is cut or is for another question"))
    }
}

/// Whether `reply` is a response to `question`: same id, same question but for the case of letters.
fn answers(question: &[u8], reply: &[u8]) -> bool {
    let Some(end) = question_end(question) else { return false };
    reply.len() >= end
        && reply[..2] == question[..2]
        && reply[2] & 0x80 != 0
        && reply[4..6] == [0, 1]
        && reply[HEADER..end].eq_ignore_ascii_case(&question[HEADER..end])
}

/// Where the first question ends. A pointer there has nothing before it to point at, and is no name.
fn question_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    loop {
        match usize::from(*message.get(at)?) {
            0 => break,
            length @ 1..=63 => at += 1 + length,
            _ => return None,
        }
    }
    let end = at + 1 + 4;
    (end <= message.len()).then_some(end)
}

/// Whether a question to `server` would come to one of our own sockets.
fn is_own(server: SocketAddr, own: &[SocketAddr]) -> bool {
    own.iter().any(|ours| {
        ours.port() == server.port()
            && (ours.ip() == server.ip()
                || server.ip().is_unspecified()
                || (ours.ip().is_unspecified() && is_local(server.ip())))
    })
}

/// Whether this host has the address: only then can a socket be bound to it.
fn is_local(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

fn system_servers() -> Vec<SocketAddr> {
    match hickory_resolver::system_conf::read_system_conf() {
        Ok((config, _)) => config
            .name_servers()
            .iter()
            .map(|server| {
                SocketAddr::new(server.ip, server.connections.first().map_or(53, |connection| connection.port))
            })
            .collect(),
        Err(error) => {
            tracing::warn!(%error, "the system's DNS servers cannot be read");
            Vec::new()
        }
    }
}

const SERVFAIL: u8 = 2;
const REFUSED: u8 = 5;

#[cfg(test)]
mod tests {
    use hickory_resolver::proto::rr::RecordType;

    use super::super::dns::tests::question;
    use super::*;

    #[test]
    fn our_own_sockets_are_left_out() {
        let own = ["127.0.0.1:53".parse().unwrap(), "0.0.0.0:5353".parse().unwrap()];
        let servers = ["127.0.0.1:53", "127.0.0.53:53", "127.9.9.9:5353", "192.0.2.1:5353", "0.0.0.0:53"];
        let servers = Forward::Servers(servers.iter().map(|server| server.parse().unwrap()).collect());
        let left = Upstreams::new(&servers, &own).unwrap().servers;
        assert_eq!(left, ["127.0.0.53:53".parse().unwrap(), "192.0.2.1:5353".parse::<SocketAddr>().unwrap()]);
        assert!(Upstreams::new(&Forward::Refuse, &own).is_none());
    }

    #[test]
    fn only_the_answer_to_the_question_counts() {
        let asked = question("www.Example.com.", RecordType::A, Some(1232));
        let mut reply = asked.clone();
        reply[2] |= 0x80;
        assert!(answers(&asked, &reply));
        assert!(answers(&asked, &reply.to_ascii_lowercase()), "another case");
        assert!(!answers(&asked, &asked), "no response");
        for at in [0, 1, 13, 28, 30] {
            let mut other = reply.clone();
            other[at] ^= 0x07;
            assert!(!answers(&asked, &other), "byte {at}");
        }
        for end in 0..33 {
            assert!(!answers(&asked, &reply[..end]));
        }
    }

    #[tokio::test]
    async fn a_forged_datagram_is_passed_over_and_a_failing_server_gives_way_to_the_next() {
        let failing = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let good = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let servers = [&failing, &good].map(|socket| socket.local_addr().unwrap()).to_vec();
        let upstreams = Upstreams::new(&Forward::Servers(servers), &[]).unwrap();
        let serve = |socket: UdpSocket, code: u8| async move {
            let mut buffer = [0; 512];
            let (length, client) = socket.recv_from(&mut buffer).await.unwrap();
            let reply = &mut buffer[..length];
            reply[2] |= 0x80;
            reply[3] = code;
            reply[0] ^= 0xff;
            socket.send_to(reply, client).await.unwrap();
            reply[0] ^= 0xff;
            socket.send_to(reply, client).await.unwrap();
        };
        let asked = question("www.example.com.", RecordType::A, None);
        let (reply, (), ()) =
            tokio::join!(upstreams.ask(&asked, Transport::Udp), serve(failing, SERVFAIL), serve(good, 3));
        let reply = reply.unwrap();
        assert_eq!((&reply[..2], reply[3]), (&asked[..2], 3));
    }
}
