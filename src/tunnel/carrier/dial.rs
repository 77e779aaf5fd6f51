//! The dialling side of a carrier.

use std::io;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::time::{timeout, timeout_at};

use super::certificates::Credentials;
use super::error::CarrierError;
use super::handshake::{DEADLINE, Proved, Reading};
use super::preamble::{Preamble, Verdict};
use super::{Established, PeerIdentity, Proof};
use crate::config::{Congestion, TunnelConfig, TunnelRole};
use crate::net::{HostPort, tcp};

/// Longest time for the connection itself, the look-up of the name included.
const CONNECT: Duration = Duration::from_secs(10);
/// How long sent bytes may stay unacknowledged before the kernel gives the carrier up.
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that may wait unsent in the kernel, where nothing can overtake them: the session's order holds for the rest.
const NOT_SENT: u32 = 256 * 1024;

/// Dials the peer of `config` and proves both sides, for `link`: connecting takes at most 10 s, the handshake 5 s.
///
/// Certificate files are read at each call, so that renewed ones are used without a restart.
///
/// # Errors
/// Each says what to do; see [`CarrierError`].
pub async fn dial(config: &TunnelConfig, link: &str) -> Result<Established, CarrierError> {
    let TunnelRole::Dial(target) = &config.role else {
        return Err(CarrierError::Role { role: "listen" });
    };
    let (auth, name) = (config.auth.clone(), link.to_owned());
    let credentials = tokio::task::spawn_blocking(move || Credentials::load(&auth, &name))
        .await
        .map_err(|e| CarrierError::Handshake { detail: e.to_string() })??;
    let mut socket = connect(target, &config.congestion, CONNECT).await?;
    tune(&socket);
    let address = socket.peer_addr().map_err(|e| CarrierError::HandshakeCut { detail: e.to_string() })?;
    let mut reading = Reading::new(&mut socket);
    let proved = timeout_at(reading.deadline, prove(&mut reading, &credentials, link))
        .await
        .map_err(|_| CarrierError::HandshakeTimeout { after: DEADLINE })?;
    if proved.is_err() {
        // The alert that tells the peer why is on its way.
        reading.linger().await;
    }
    let Proved { protect, binding, name, chain } = proved?;
    let proof = Proof { by: credentials, chain, dialler: true };
    let received = std::mem::take(&mut reading.input);
    let peer = PeerIdentity { name, address };
    Ok(Established { socket, protect, received, binding, peer, proof, link: link.to_owned(), dialler: true })
}

async fn prove(reading: &mut Reading<'_>, credentials: &Credentials, link: &str) -> Result<Proved, CarrierError> {
    let transport = credentials.transport();
    let preamble = Preamble::new(transport, link)?.encode();
    let mut out = preamble.clone();
    let mut handshake = credentials.dial(&preamble, &mut out)?;
    reading.send(&out).await?;
    loop {
        if let Some(taken) = Verdict::decode(&reading.input, transport, link)? {
            let _ = reading.input.split_to(taken);
            return reading.run(handshake.as_mut(), Vec::new()).await;
        }
        if !reading.more().await? {
            return Err(CarrierError::HandshakeCut {
                detail: "the peer closed it without an answer; its log says why".to_owned(),
            });
        }
    }
}

async fn connect(target: &HostPort, congestion: &Congestion, deadline: Duration) -> Result<TcpStream, CarrierError> {
    let connected = async {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in lookup_host((target.host(), target.port())).await? {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            begin(&socket, congestion);
            match socket.connect(address).await {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    };
    match timeout(deadline, connected).await {
        Ok(Ok(socket)) => Ok(socket),
        Ok(Err(error)) => Err(match error.kind() {
            io::ErrorKind::ConnectionRefused => CarrierError::Refused { target: target.to_string() },
            io::ErrorKind::TimedOut => CarrierError::ConnectTimeout { target: target.to_string(), after: deadline },
            _ => CarrierError::Unreachable { target: target.to_string(), detail: error.to_string() },
        }),
        Err(_) => Err(CarrierError::ConnectTimeout { target: target.to_string(), after: deadline }),
    }
}

/// Congestion control that a socket begins with, before it is connected or listens, where it follows from the way: the one for
/// short ways. BBR paces by timers and never stops to, even under another control later; on a short way that costs a tenth of the
/// throughput, and on some kernels it is the default. The way's length is known after the first round trip.
pub(super) fn begin(socket: &TcpSocket, congestion: &Congestion) {
    if *congestion == Congestion::Auto {
        // A kernel without it keeps its own.
        let _ = socket2::SockRef::from(socket).set_tcp_congestion(b"cubic");
    }
}

/// Options of a carrier's socket. The buffers' sizes are left to the kernel, which tunes them to the path only then.
pub(super) fn tune(socket: &TcpStream) {
    tcp::tune(socket);
    let socket = socket2::SockRef::from(socket);
    let _ = socket.set_tcp_user_timeout(Some(USER_TIMEOUT));
    let _ = socket.set_tcp_notsent_lowat(NOT_SENT);
}
