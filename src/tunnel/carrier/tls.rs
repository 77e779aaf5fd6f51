//! TLS 1.3, mutual, by rustls: the handshake. The records behind it are `tls_records`'s.
//!
//! In TLS 1.3 the dialler is done before the listener has looked at its certificate, and nothing in it covers our preamble. So
//! both sides send one more record, the exporter's value over the preamble: the listener's tells the dialler that it is let in.
//!
//! rustls' buffered interface is used: the unbuffered one has no exporter (0.23).

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use rustls::{AlertDescription, CertificateError, Connection};

use super::certificates::{PeerName, Rejected, fingerprint};
use super::error::{CarrierError, Whose};
use super::handshake::{Handshake, Proved, Step};
use super::tls_records::{Chain, MOST_RECORDS, TlsRecords};

/// Largest plaintext of a TLS record, in bytes.
pub(super) const MAX_PLAINTEXT: usize = 16_384;
/// Content type, version, length.
pub(super) const HEADER: usize = 5;
const EXPORTER: &[u8] = b"EXPORTER-linkspan-carrier";
/// For the keys of what the dialler and what the listener sends.
const CHAINS: [&[u8]; 2] = [b"EXPORTER-linkspan-dialler-keys", b"EXPORTER-linkspan-listener-keys"];

/// The handshake of one side.
pub(super) struct TlsHandshake {
    /// `None` once it is done.
    connection: Option<Connection>,
    dialler: bool,
    context: Vec<u8>,
    /// Set when TLS's own handshake is done.
    binding: Option<[u8; 32]>,
    peer: PeerName,
}

impl TlsHandshake {
    pub(super) fn dial(
        config: Arc<rustls::ClientConfig>,
        peer: PeerName,
        preamble: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Self, CarrierError> {
        let connection = rustls::ClientConnection::new(config, peer.server_name()).map_err(map)?;
        let mut handshake = Self::new(connection.into(), peer, preamble, true);
        handshake.write(out);
        Ok(handshake)
    }

    pub(super) fn accept(
        config: Arc<rustls::ServerConfig>,
        peer: PeerName,
        preamble: &[u8],
    ) -> Result<Self, CarrierError> {
        let connection = rustls::ServerConnection::new(config).map_err(map)?;
        Ok(Self::new(connection.into(), peer, preamble, false))
    }

    fn new(mut connection: Connection, peer: PeerName, preamble: &[u8], dialler: bool) -> Self {
        connection.set_buffer_limit(None);
        Self { connection: Some(connection), dialler, context: preamble.to_vec(), binding: None, peer }
    }

    fn write(&mut self, out: &mut Vec<u8>) {
        if let Some(connection) = &mut self.connection {
            drain(connection, out);
        }
    }

    /// Takes one record off `input` and goes on as far as it allows.
    fn advance(&mut self, input: &mut BytesMut) -> Result<Option<Confirmed>, CarrierError> {
        let Some(connection) = &mut self.connection else {
            return Err(CarrierError::Handshake { detail: "it is over".to_owned() });
        };
        let mut left = record(input).unwrap_or(0);
        while left > 0 {
            let taken = connection.read_tls(&mut &input[..left]).map_err(io)?;
            input.advance(taken);
            left -= taken;
            connection.process_new_packets().map_err(map)?;
        }
        if connection.is_handshaking() {
            return Ok(None);
        }
        let Some(binding) = self.binding else {
            let mut binding = [0; 32];
            connection.export_keying_material(&mut binding, EXPORTER, Some(&self.context)).map_err(map)?;
            self.binding = Some(binding);
            if self.dialler {
                connection.writer().write_all(&binding).map_err(io)?;
            }
            return Ok(None);
        };
        let mut confirmed = [0; 32];
        match connection.reader().read(&mut confirmed) {
            Ok(len) if len == confirmed.len() && confirmed == binding => {}
            // Records without data (alerts, tickets) come and go.
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Ok(_) | Err(_) => {
                return Err(CarrierError::Handshake { detail: "the peer saw another preamble".to_owned() });
            }
        }
        if !self.dialler {
            connection.writer().write_all(&binding).map_err(io)?;
        }
        let name = match &self.peer {
            PeerName::Dns(name) => format!("dns:{}", name.to_str()),
            PeerName::Pinned => {
                let leaf = connection.peer_certificates().and_then(|c| c.first());
                format!("sha256:{}", leaf.map(|c| fingerprint(c)).unwrap_or_default())
            }
        };
        Ok(Some(Confirmed { binding, name }))
    }

    /// Takes the keys from rustls, which has said all that it had to say.
    fn finish(&mut self, confirmed: Confirmed) -> Result<Proved, CarrierError> {
        let Confirmed { binding, name } = confirmed;
        let connection = self.connection.take().ok_or(CarrierError::Closed)?;
        let chain = connection.peer_certificates().unwrap_or_default();
        let chain = chain.iter().map(|certificate| certificate.clone().into_owned()).collect();
        let export = |label| -> Result<Chain, CarrierError> {
            let mut chain = Chain::default();
            connection.export_keying_material(&mut *chain, label, Some(&self.context)).map_err(map)?;
            Ok(chain)
        };
        let (dialler, listener) = (export(CHAINS[0])?, export(CHAINS[1])?);
        let chains = if self.dialler { (dialler, listener) } else { (listener, dialler) };
        let records = TlsRecords::new(connection.dangerous_extract_secrets().map_err(map)?, chains, MOST_RECORDS)?;
        Ok(Proved { protect: Box::new(records), binding, name, chain })
    }
}

/// Who the peer is, on both sides.
struct Confirmed {
    binding: [u8; 32],
    name: String,
}

impl Handshake for TlsHandshake {
    fn step(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Step, CarrierError> {
        // One record at a time: bytes behind the last one of the handshake are the session's, and stay in the input.
        while record(input).is_some() {
            match self.advance(input) {
                Ok(None) => self.write(out),
                Ok(Some(confirmed)) => {
                    self.write(out);
                    return self.finish(confirmed).map(Step::Done);
                }
                Err(error) => {
                    // The alert that says why.
                    self.write(out);
                    return Err(error);
                }
            }
        }
        Ok(Step::More)
    }

    fn cut(&self) -> Option<CarrierError> {
        None
    }
}

/// Length of the whole record at the front of `input`.
fn record(input: &[u8]) -> Option<usize> {
    let &[_, _, _, high, low, ..] = input else { return None };
    let len = HEADER + usize::from(u16::from_be_bytes([high, low]));
    // More than a record may have: rustls is to see it and refuse.
    if len > HEADER + MAX_PLAINTEXT + 256 { Some(input.len()) } else { (input.len() >= len).then_some(len) }
}

fn drain(connection: &mut Connection, out: &mut Vec<u8>) {
    while connection.wants_write() {
        if connection.write_tls(out).is_err() {
            break;
        }
    }
}

fn io(error: std::io::Error) -> CarrierError {
    CarrierError::Handshake { detail: error.to_string() }
}

/// Says in our words what rustls found.
pub(super) fn map(error: rustls::Error) -> CarrierError {
    match error {
        rustls::Error::InvalidCertificate(error) => map_certificate(error),
        rustls::Error::AlertReceived(AlertDescription::CertificateExpired) => {
            CarrierError::CertificateExpired { whose: Whose::Own, detail: "so says the peer".to_owned() }
        }
        rustls::Error::AlertReceived(AlertDescription::UnknownCA) => CarrierError::UnknownCa { whose: Whose::Own },
        rustls::Error::AlertReceived(
            alert @ (AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied
            | AlertDescription::CertificateRequired
            | AlertDescription::DecryptError),
        ) => CarrierError::CertificateRefused { detail: format!("its alert is {alert:?}; its log says why") },
        other => CarrierError::Handshake { detail: other.to_string() },
    }
}

fn map_certificate(error: CertificateError) -> CarrierError {
    match error {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            CarrierError::CertificateExpired { whose: Whose::Peer, detail: error.to_string() }
        }
        CertificateError::UnknownIssuer => CarrierError::UnknownCa { whose: Whose::Peer },
        CertificateError::NotValidForNameContext { expected, presented } => CarrierError::WrongName {
            expected: expected.to_str().into_owned(),
            found: if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") },
        },
        CertificateError::Other(other) => match other.0.downcast_ref::<Rejected>() {
            Some(Rejected::Pin { expected, found }) => {
                CarrierError::PinMismatch { expected: expected.clone(), found: found.clone() }
            }
            Some(Rejected::Time { detail }) => {
                CarrierError::CertificateExpired { whose: Whose::Peer, detail: detail.clone() }
            }
            None => CarrierError::Handshake { detail: other.to_string() },
        },
        other => CarrierError::Handshake { detail: format!("the peer's certificate: {other}") },
    }
}

#[cfg(test)]
#[path = "tls_tests.rs"]
mod tests;
