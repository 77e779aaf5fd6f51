//! What the kernel knows of a connection's way: congestion window, losses, what waits in its buffer.
//!
//! Asked by sock_diag(7), which needs neither a privilege nor unsafe code, one question a connection. It is asked when somebody
//! looks, never on the way of data. Where the kernel does not answer (not Linux, a sandbox without netlink) there is nothing.

use std::net::SocketAddr;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, SocketId, StateFlags};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr as Netlink};

/// What TCP knows of one connection's way to the peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct TcpInfo {
    /// Largest segment, in bytes.
    pub segment: u64,
    /// Congestion window, in bytes.
    pub congestion_window: u64,
    /// Bytes sent and not acknowledged, at most: whole segments are counted.
    pub in_flight: u64,
    /// Bytes written to the socket that were not sent yet.
    pub unsent: u64,
    /// Segments sent again since the connection was made.
    pub retransmitted: u64,
    /// Shortest round trip seen, in microseconds.
    pub shortest_rtt_us: u32,
    /// Rate of delivery measured last, in bytes a second.
    pub delivery_rate: u64,
}

/// The largest answer: attributes of one socket are some 500 bytes.
const ANSWER: usize = 4096;

/// What the kernel knows of each connection, given by its local and its peer's address, in their order.
#[must_use]
pub fn ask(connections: &[(SocketAddr, SocketAddr)]) -> Vec<Option<TcpInfo>> {
    let Some(socket) = connect() else { return vec![None; connections.len()] };
    connections.iter().map(|&(local, peer)| ask_one(&socket, local, peer)).collect()
}

fn connect() -> Option<Socket> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).ok()?;
    socket.bind_auto().ok()?;
    socket.connect(&Netlink::new(0, 0)).ok()?;
    // The kernel answers within `send`: there is nothing to wait for.
    socket.set_non_blocking(true).ok()?;
    Some(socket)
}

fn ask_one(socket: &Socket, local: SocketAddr, peer: SocketAddr) -> Option<TcpInfo> {
    // A socket of IPv6 that speaks IPv4 is found as IPv4.
    let (local, peer) = (canonical(local), canonical(peer));
    let (family, mut id) = if local.is_ipv4() { (AF_INET, SocketId::new_v4()) } else { (AF_INET6, SocketId::new_v6()) };
    (id.source_address, id.source_port) = (local.ip(), local.port());
    (id.destination_address, id.destination_port) = (peer.ip(), peer.port());
    id.cookie = [0xff; 8];
    let request = InetRequest {
        family,
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::INFO,
        states: StateFlags::all(),
        socket_id: id,
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0).ok()?;
    let mut answer = vec![0; ANSWER];
    let len = socket.recv(&mut &mut answer[..], 0).ok()?;
    read(answer.get(..len)?)
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn read(answer: &[u8]) -> Option<TcpInfo> {
    let message = <NetlinkMessage<SockDiagMessage>>::deserialize(answer).ok()?;
    let NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response)) = message.payload else { return None };
    response.nlas.iter().find_map(|nla| match nla {
        Nla::TcpInfo(info) => {
            let segment = u64::from(info.snd_mss);
            Some(TcpInfo {
                segment,
                congestion_window: u64::from(info.snd_cwnd) * segment,
                in_flight: u64::from(info.unacked) * segment,
                unsent: info.notsent_bytes.into(),
                retransmitted: info.total_retrans.into(),
                shortest_rtt_us: info.min_rtt,
                delivery_rate: info.delivery_rate,
            })
        }
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn what_a_peer_does_not_read_is_seen_as_unsent() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(any) else { continue };
            let mut near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut far, _) = listener.accept().unwrap();
            let ends = |socket: &TcpStream| (socket.local_addr().unwrap(), socket.peer_addr().unwrap());
            near.write_all(b"x").unwrap();
            far.read_exact(&mut [0]).unwrap();
            let nobody = ("127.0.0.1:9".parse().unwrap(), "127.0.0.1:9".parse().unwrap());
            let [Some(idle), None, Some(_)] = ask(&[ends(&near), nobody, ends(&far)])[..] else {
                panic!("both ends are there, and the one in between is not")
            };
            assert!(idle.unsent == 0 && idle.congestion_window > 0 && idle.shortest_rtt_us > 0, "{idle:?}");
            near.set_nonblocking(true).unwrap();
            let block = [7; 64 * 1024];
            while near.write(&block).is_ok() {}
            let full = ask(&[ends(&near)])[0].unwrap();
            assert!(full.unsent > 0, "{full:?}");
        }
    }

    #[test]
    fn an_answer_that_is_none_is_nothing() {
        assert_eq!(read(&[]), None);
        assert_eq!(read(&[0xff; 64]), None);
    }
}
