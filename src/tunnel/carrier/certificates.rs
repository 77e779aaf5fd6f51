//! What each side proves and trusts: the pre-shared key, or certificates with a CA or a pin.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use ::aws_lc_rs::digest::{Context, SHA256};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, CipherSuite, DigitallySignedStruct, DistinguishedName, Error, OtherError, PeerIncompatible,
    RootCertStore, SignatureScheme,
};

use super::error::{CarrierError, Transport};
use super::handshake::Handshake;
use super::noise::{NoiseHandshake, Psk};
use super::tls::TlsHandshake;
use crate::config::{TlsPeer, TunnelAuth};

const ALPN: &[u8] = b"linkspan/1";

/// What one link's side proves and trusts, ready for handshakes.
#[derive(Clone)]
pub(super) enum Credentials {
    Noise(Psk),
    Tls { client: Arc<rustls::ClientConfig>, server: Arc<rustls::ServerConfig>, trust: Trust },
}

/// Whom to trust, for either role.
#[derive(Clone)]
pub(super) struct Trust {
    pub(super) name: PeerName,
    servers: Arc<dyn ServerCertVerifier>,
    clients: Arc<dyn ClientCertVerifier>,
    /// SHA-256 over the pin, or over the CAs and the name: equal means the same peers.
    digest: [u8; 32],
}

impl Credentials {
    /// Reads the files that `auth` names.
    pub(super) fn load(auth: &TunnelAuth, link: &str) -> Result<Self, CarrierError> {
        match auth {
            TunnelAuth::Noise { secret } => Ok(Self::Noise(Psk::derive(secret, link))),
            TunnelAuth::Tls { cert, key, peer } => Self::load_tls(cert, key, peer),
        }
    }

    fn load_tls(cert: &Path, key: &Path, peer: &TlsPeer) -> Result<Self, CarrierError> {
        let mut provider = aws_lc_rs::default_provider();
        // The others stay for a peer that has only them; this one is as strong as the certificates' curves, and the quickest.
        provider.cipher_suites.sort_by_key(|suite| suite.suite() != CipherSuite::TLS13_AES_128_GCM_SHA256);
        let provider = Arc::new(provider);
        let chain = certificates(cert)?;
        let own = PrivateKeyDer::from_pem_file(key).map_err(|e| file(key, e))?;
        let trust = trust(peer, &provider)?;

        let mut client = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| file(cert, e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&trust.servers))
            .with_client_auth_cert(chain.clone(), own.clone_key())
            .map_err(|e| file(key, e))?;
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();
        client.enable_sni = false;
        // For the records, which are ours: see tls_records.
        client.enable_secret_extraction = true;

        let mut server = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| file(cert, e))?
            .with_client_cert_verifier(Arc::clone(&trust.clients))
            .with_single_cert(chain, own)
            .map_err(|e| file(key, e))?;
        server.alpn_protocols = vec![ALPN.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        server.enable_secret_extraction = true;
        Ok(Self::Tls { client: Arc::new(client), server: Arc::new(server), trust })
    }

    pub(super) fn transport(&self) -> Transport {
        match self {
            Self::Noise(_) => Transport::Noise,
            Self::Tls { .. } => Transport::Tls,
        }
    }

    /// Begins the dialler's handshake; what it says first is appended to `out`.
    pub(super) fn dial(&self, preamble: &[u8], out: &mut Vec<u8>) -> Result<Box<dyn Handshake>, CarrierError> {
        Ok(match self {
            Self::Noise(psk) => Box::new(NoiseHandshake::dial(psk, preamble, out)?),
            Self::Tls { client, trust, .. } => {
                Box::new(TlsHandshake::dial(Arc::clone(client), trust.name.clone(), preamble, out)?)
            }
        })
    }

    /// Begins the listener's handshake.
    pub(super) fn accept(&self, preamble: &[u8]) -> Result<Box<dyn Handshake>, CarrierError> {
        Ok(match self {
            Self::Noise(psk) => Box::new(NoiseHandshake::accept(psk, preamble)?),
            Self::Tls { server, trust, .. } => {
                Box::new(TlsHandshake::accept(Arc::clone(server), trust.name.clone(), preamble)?)
            }
        })
    }

    /// Whether these trust the very peers that `other` do.
    pub(super) fn trusts_alike(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Noise(ours), Self::Noise(theirs)) => ours.is(theirs),
            (Self::Tls { trust: ours, .. }, Self::Tls { trust: theirs, .. }) => ours.digest == theirs.digest,
            _ => false,
        }
    }
}

/// Whether `credentials` let in a peer with this chain of certificates.
pub(super) fn trusts(
    credentials: &Credentials,
    chain: &[CertificateDer<'_>],
    dialler: bool,
    now: UnixTime,
) -> Result<(), CarrierError> {
    let (Credentials::Tls { trust, .. }, Some((leaf, others))) = (credentials, chain.split_first()) else {
        return Err(CarrierError::WrongSecret);
    };
    let verified = if dialler {
        trust.servers.verify_server_cert(leaf, others, &trust.name.server_name(), &[], now).map(drop)
    } else {
        trust.clients.verify_client_cert(leaf, others, now).map(drop)
    };
    verified.map_err(super::tls::map)
}

/// The name by which a TLS peer is known.
#[derive(Debug, Clone)]
pub(super) enum PeerName {
    Dns(ServerName<'static>),
    Pinned,
}

impl PeerName {
    /// What rustls' dialler is told; SNI is off, so the peer never sees it.
    pub(super) fn server_name(&self) -> ServerName<'static> {
        match self {
            Self::Dns(name) => name.clone(),
            Self::Pinned => ServerName::try_from("pinned.linkspan").expect("it is a DNS name"),
        }
    }
}

/// Why our own checks refused a certificate; carried through rustls.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejected {
    #[error("its SHA-256 is {found}, pinned is {expected}")]
    Pin { expected: String, found: String },
    #[error("{detail}")]
    Time { detail: String },
}

impl From<Rejected> for Error {
    fn from(rejected: Rejected) -> Self {
        Self::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(rejected))))
    }
}

/// SHA-256 of a certificate's DER form, in hex.
pub(super) fn fingerprint(der: &[u8]) -> String {
    hex(::aws_lc_rs::digest::digest(&::aws_lc_rs::digest::SHA256, der).as_ref())
}

fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CarrierError> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(|e| file(path, e))?
        .collect::<Result<_, _>>()
        .map_err(|e| file(path, e))?;
    if chain.is_empty() {
        return Err(file(path, "it holds no certificate"));
    }
    Ok(chain)
}

fn file(path: &Path, detail: impl fmt::Display) -> CarrierError {
    CarrierError::File { path: path.display().to_string(), detail: detail.to_string() }
}

fn trust(peer: &TlsPeer, provider: &Arc<CryptoProvider>) -> Result<Trust, CarrierError> {
    match peer {
        TlsPeer::Pin(pin) => {
            let pinned = Arc::new(Pinned { pin: *pin, provider: Arc::clone(provider) });
            Ok(Trust { name: PeerName::Pinned, servers: Arc::clone(&pinned) as _, clients: pinned, digest: *pin })
        }
        TlsPeer::Ca { ca, name } => {
            let mut roots = RootCertStore::empty();
            let mut digest = Context::new(&SHA256);
            digest.update(name.as_bytes());
            for root in certificates(ca)? {
                digest.update(&[0]);
                digest.update(&root);
                roots.add(root).map_err(|e| file(ca, e))?;
            }
            let roots = Arc::new(roots);
            let server_name = ServerName::try_from(name.clone())
                .map_err(|e| CarrierError::File { path: format!("peer name `{name}`"), detail: e.to_string() })?;
            let servers = WebPkiServerVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider))
                .build()
                .map_err(|e| file(ca, e))?;
            let clients = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
                .build()
                .map_err(|e| file(ca, e))?;
            let clients = Arc::new(Named { name: server_name.clone(), inner: clients });
            let digest = digest.finish().as_ref().try_into().expect("SHA-256 has 32 bytes");
            Ok(Trust { name: PeerName::Dns(server_name), servers, clients, digest })
        }
    }
}

/// Exactly one certificate, within its time.
#[derive(Debug)]
struct Pinned {
    pin: [u8; 32],
    provider: Arc<CryptoProvider>,
}

impl Pinned {
    fn check(&self, leaf: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
        let (expected, found) = (hex(&self.pin), fingerprint(leaf));
        if expected != found {
            return Err(Rejected::Pin { expected, found }.into());
        }
        let (_, parsed) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let validity = parsed.validity();
        let now = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        if now < validity.not_before.timestamp() || now > validity.not_after.timestamp() {
            let detail = format!("it is valid from {} to {}", validity.not_before, validity.not_after);
            return Err(Rejected::Time { detail }.into());
        }
        Ok(())
    }

    fn signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }
}

/// TLS 1.2 is never offered; a call means that it was spoken all the same.
fn no_tls12() -> Result<HandshakeSignatureValid, Error> {
    Err(Error::PeerIncompatible(PeerIncompatible::Tls12NotOfferedOrEnabled))
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(leaf, now).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(leaf, now).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A dialler's certificate of the CA, and for the expected name, which webpki's client verifier does not ask for.
#[derive(Debug)]
struct Named {
    name: ServerName<'static>,
    inner: Arc<dyn ClientCertVerifier>,
}

impl ClientCertVerifier for Named {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.inner.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.inner.verify_client_cert(leaf, intermediates, now)?;
        verify_server_name(&ParsedCertificate::try_from(leaf)?, &self.name)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}
