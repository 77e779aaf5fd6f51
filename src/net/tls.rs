//! TLS towards brokers: one connector per set of settings, for the client and for the proxy; and a TLS stream's honest ends.
//!
//! Rules kept here: the far side's certificate is always checked against the operator's CAs (or the system's), and its name too unless the
//! operator wrote otherwise; a stream that ends without TLS's own goodbye is a cut, not an end.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsStream;

use super::{BoxStream, HostPort, Stream};
use crate::config::TlsClient;

/// How long a handshake may take.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why TLS towards a broker could not be set up.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A certificate or key file cannot be read or holds nothing usable.
    #[error("{path}: {detail}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The handshake failed.
    #[error("TLS with {target} failed: {detail}")]
    Handshake {
        /// Whom we dialled.
        target: HostPort,
        /// What rustls or the peer said.
        detail: String,
    },
    /// A client's handshake failed.
    #[error("TLS with a client failed: {detail}")]
    Client {
        /// What rustls or the client said.
        detail: String,
    },
}

/// Puts TLS around dialled streams.
#[derive(Clone)]
pub struct TlsConnector {
    config: Arc<ClientConfig>,
}

impl TlsConnector {
    /// Reads the files of `settings` once: CA bundle (or the system's roots), client certificate.
    ///
    /// # Errors
    /// [`TlsError::File`], naming the file.
    pub fn new(settings: &TlsClient) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let (origin, roots) = match &settings.ca_file {
            Some(path) => (path.display().to_string(), file_roots(path)?),
            None => ("system certificates".to_owned(), system_roots()?),
        };
        let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .map_err(|error| TlsError::File { path: origin, detail: error.to_string() })?;
        let verifier: Arc<dyn ServerCertVerifier> =
            if settings.verify_hostname { verifier } else { Arc::new(AnyName(verifier)) };
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(verifier);
        let config = match &settings.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => {
                let (certs, private) = (read_certs(chain)?, read_key(key)?);
                let mismatch = |error: rustls::Error| TlsError::File {
                    path: key.display().to_string(),
                    detail: format!("not usable with {}: {error}", chain.display()),
                };
                builder.with_client_auth_cert(certs, private).map_err(mismatch)?
            }
        };
        Ok(Self { config: Arc::new(config) })
    }

    /// Performs the handshake over `stream`, for the name of `target` (SNI and verification), within 10 s.
    ///
    /// # Errors
    /// [`TlsError::Handshake`].
    pub async fn connect(&self, target: &HostPort, stream: BoxStream) -> Result<BoxStream, TlsError> {
        let failed = |detail: String| TlsError::Handshake { target: target.clone(), detail };
        let name = ServerName::try_from(target.host().to_owned())
            .map_err(|_| failed(format!("`{}` cannot be the name of a certificate", target.host())))?;
        let handshake = tokio_rustls::TlsConnector::from(Arc::clone(&self.config)).connect(name, stream);
        match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(inner)) => Ok(Box::new(TlsConn::new(inner.into()))),
            Ok(Err(error)) => Err(failed(why(&error))),
            Err(_) => Err(failed(format!("no answer to the TLS hello within {} s", HANDSHAKE.as_secs()))),
        }
    }
}

impl std::fmt::Debug for TlsConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConnector")
    }
}

/// What a failed handshake means to an operator.
fn why(error: &io::Error) -> String {
    if matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
    {
        return "closed in answer to the TLS hello, as a port without TLS does".to_owned();
    }
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidMessage(_)) => {
            "the answer to the TLS hello is not TLS; this port speaks another protocol".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "its certificate was not issued by a trusted CA; see ca_file".to_owned()
        }
        Some(known) => known.to_string(),
        None => error.to_string(),
    }
}

fn file_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for cert in read_certs(path)? {
        roots.add(cert).map_err(|error| file(path, format!("a certificate that cannot be a CA: {error}")))?;
    }
    Ok(roots)
}

/// The system's roots; single bad ones among them are passed over, as every TLS client does.
fn system_roots() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added == 0 {
        let detail = found.errors.first().map_or_else(|| "none found".to_owned(), ToString::to_string);
        return Err(TlsError::File {
            path: "system certificates".to_owned(),
            detail: format!("{detail}; set ca_file"),
        });
    }
    Ok(roots)
}

pub(super) fn read_certs(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certs = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file(path, unreadable(&error)))?;
    if certs.is_empty() {
        return Err(file(path, "no PEM certificate in it".to_owned()));
    }
    Ok(certs)
}

pub(super) fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| file(path, unreadable(&error)))
}

fn unreadable(error: &rustls::pki_types::pem::Error) -> String {
    match error {
        rustls::pki_types::pem::Error::Io(error) => error.to_string(),
        rustls::pki_types::pem::Error::NoItemsFound => "no usable PEM section in it".to_owned(),
        other => format!("not PEM: {other}"),
    }
}

pub(super) fn file(path: &Path, detail: String) -> TlsError {
    TlsError::File { path: path.display().to_string(), detail }
}

/// Checks the chain and not the name: for the operator who wrote `verify_hostname = false`.
#[derive(Debug)]
struct AnyName(Arc<WebPkiServerVerifier>);

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // rustls looks at the name last, when the chain has been found good.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// A TLS stream with honest ends: close_notify and FIN are an end, all else is a cut. Dropped early, it drops the stream below, which resets.
pub(super) struct TlsConn {
    inner: TlsStream<BoxStream>,
    cut: bool,
}

impl TlsConn {
    pub(super) const fn new(inner: TlsStream<BoxStream>) -> Self {
        Self { inner, cut: false }
    }

    fn alive(&self) -> io::Result<()> {
        if self.cut { Err(io::ErrorKind::ConnectionReset.into()) } else { Ok(()) }
    }
}

/// A FIN below without close_notify, and a connection that rustls gave up, are cuts.
fn as_cut(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionAborted => {
            io::Error::new(io::ErrorKind::ConnectionReset, error)
        }
        _ => error,
    }
}

impl AsyncRead for TlsConn {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.alive()?;
        Pin::new(&mut self.inner).poll_read(cx, buf).map_err(as_cut)
    }
}

impl AsyncBufRead for TlsConn {
    fn poll_fill_buf(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<&[u8]>> {
        self.alive()?;
        Pin::new(&mut self.get_mut().inner).poll_fill_buf(cx).map_err(as_cut)
    }

    fn consume(mut self: Pin<&mut Self>, amt: usize) {
        Pin::new(&mut self.inner).consume(amt);
    }
}

impl AsyncWrite for TlsConn {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.alive()?;
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.alive()?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive()?;
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    /// close_notify, then FIN below; reading stays open.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.alive()?;
        ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
        Poll::Ready(Ok(()))
    }
}

impl Stream for TlsConn {
    fn reset(&mut self) {
        self.cut = true;
        self.inner.get_mut().0.reset();
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.cut { Poll::Ready(()) } else { self.inner.get_mut().0.poll_cut(cx) }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
    use rustls::pki_types::PrivatePkcs8KeyDer;
    use rustls::server::WebPkiClientVerifier;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::net::tcp::TcpConn;

    /// A CA with its files in a directory of its own.
    struct Authority {
        issuer: CertifiedIssuer<'static, KeyPair>,
        dir: tempfile::TempDir,
    }

    impl Authority {
        fn new() -> Self {
            let mut params = CertificateParams::new(Vec::new()).expect("no names");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
            let dir = tempfile::tempdir().expect("a directory");
            std::fs::write(dir.path().join("ca.pem"), issuer.pem()).expect("written");
            Self { issuer, dir }
        }

        fn issue(&self, name: &str) -> (String, KeyPair) {
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
            (params.signed_by(&key, &self.issuer).expect("a certificate").pem(), key)
        }

        fn ca(&self) -> PathBuf {
            self.dir.path().join("ca.pem")
        }

        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        }

        /// A broker with a certificate for `name`, which asks for one of ours if `mutual`.
        fn server(&self, name: &str, mutual: bool) -> Arc<rustls::ServerConfig> {
            let (cert, key) = self.issue(name);
            let chain = vec![CertificateDer::from_pem_slice(cert.as_bytes()).expect("PEM")];
            let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
            let builder = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .expect("versions");
            let builder = if mutual {
                let roots = Arc::new(file_roots(&self.ca()).expect("roots"));
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(roots, provider).build().expect("a verifier");
                builder.with_client_cert_verifier(verifier)
            } else {
                builder.with_no_client_auth()
            };
            let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            Arc::new(builder.with_single_cert(chain, key).expect("a server"))
        }
    }

    fn settings(ca: PathBuf) -> TlsClient {
        TlsClient { ca_file: Some(ca), identity: None, verify_hostname: true }
    }

    /// Both ends of a loopback connection.
    async fn sockets() -> (BoxStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a loopback port");
        let address = listener.local_addr().expect("bound");
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Box::new(TcpConn::new(ours.expect("connected"))), theirs.expect("accepted").0)
    }

    type Served = io::Result<tokio_rustls::server::TlsStream<TcpStream>>;

    /// A handshake of both sides for a broker dialled as `b0.orange.test`.
    async fn shake(client: &TlsClient, server: Arc<rustls::ServerConfig>) -> (Result<BoxStream, TlsError>, Served) {
        let connector = TlsConnector::new(client).expect("usable files");
        let (ours, theirs) = sockets().await;
        let target = "b0.orange.test:9093".parse().expect("a target");
        let acceptor = tokio_rustls::TlsAcceptor::from(server);
        tokio::join!(connector.connect(&target, ours), acceptor.accept(theirs))
    }

    fn refusal(shaken: Result<BoxStream, TlsError>) -> String {
        match shaken {
            Err(error) => error.to_string(),
            Ok(_) => panic!("a handshake that should have failed"),
        }
    }

    #[tokio::test]
    async fn the_brokers_name_is_checked_unless_the_operator_wrote_otherwise() {
        let authority = Authority::new();
        let strict = settings(authority.ca());
        let (ours, _) = shake(&strict, authority.server("b0.orange.test", false)).await;
        assert!(ours.is_ok());

        let other = authority.server("b9.orange.test", false);
        let (ours, _) = shake(&strict, Arc::clone(&other)).await;
        let refusal = refusal(ours);
        assert!(refusal.starts_with("TLS with b0.orange.test:9093 failed: "), "{refusal}");
        assert!(refusal.contains("not valid for name \"b0.orange.test\""), "{refusal}");

        let (ours, _) = shake(&TlsClient { verify_hostname: false, ..strict }, other).await;
        assert!(ours.is_ok());
    }

    #[tokio::test]
    async fn a_certificate_of_another_ca_is_refused_whatever_its_name() {
        let (ours, theirs) = (Authority::new(), Authority::new());
        for verify_hostname in [true, false] {
            let client = TlsClient { verify_hostname, ..settings(ours.ca()) };
            let (shaken, _) = shake(&client, theirs.server("b0.orange.test", false)).await;
            let refusal = refusal(shaken);
            assert!(refusal.starts_with("TLS with b0.orange.test:9093 failed: "), "{refusal}");
            assert!(refusal.contains("certificate"), "{refusal}");
        }
    }

    #[tokio::test]
    async fn a_client_certificate_is_shown_where_one_is_asked_for() {
        let authority = Authority::new();
        let (cert, key) = authority.issue("linkspan");
        let identity = (authority.file("me.pem", &cert), authority.file("me.key", &key.serialize_pem()));
        let client = TlsClient { identity: Some(identity), ..settings(authority.ca()) };
        let server = authority.server("b0.orange.test", true);
        let (_, theirs) = shake(&client, Arc::clone(&server)).await;
        let theirs = theirs.expect("a handshake");
        assert_eq!(theirs.get_ref().1.peer_certificates().map(<[_]>::len), Some(1));
        let (_, theirs) = shake(&settings(authority.ca()), server).await;
        assert!(theirs.is_err());
    }

    #[tokio::test]
    async fn ports_without_tls_are_named() {
        let authority = Authority::new();
        let connector = TlsConnector::new(&settings(authority.ca())).expect("usable files");
        let target = "b0.orange.test:9092".parse().expect("a target");
        for (answer, why) in [
            (&b""[..], "closed in answer to the TLS hello, as a port without TLS does"),
            (
                &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
                "the answer to the TLS hello is not TLS; this port speaks another protocol",
            ),
        ] {
            let (ours, mut theirs) = sockets().await;
            let serve = async {
                theirs.write_all(answer).await.expect("written");
                theirs.shutdown().await.expect("FIN");
                theirs
            };
            let (shaken, _theirs) = tokio::join!(connector.connect(&target, ours), serve);
            assert_eq!(refusal(shaken), format!("TLS with b0.orange.test:9092 failed: {why}"));
        }
    }

    async fn connected() -> (BoxStream, tokio_rustls::server::TlsStream<TcpStream>) {
        let authority = Authority::new();
        let (ours, theirs) = shake(&settings(authority.ca()), authority.server("b0.orange.test", false)).await;
        (ours.expect("a handshake"), theirs.expect("a handshake"))
    }

    #[tokio::test]
    async fn a_goodbye_is_an_end_and_reading_stays_open() {
        let (mut ours, mut theirs) = connected().await;
        ours.write_all(b"question").await.expect("written");
        ours.shutdown().await.expect("close_notify and FIN");
        let mut question = Vec::new();
        theirs.read_to_end(&mut question).await.expect("a clean end");
        assert_eq!(question, b"question");
        theirs.write_all(b"answer").await.expect("written");
        theirs.shutdown().await.expect("close_notify");
        let mut answer = Vec::new();
        ours.read_to_end(&mut answer).await.expect("a clean end");
        assert_eq!(answer, b"answer");
    }

    #[tokio::test]
    async fn a_fin_without_goodbye_is_a_cut() {
        let (mut ours, theirs) = connected().await;
        let (mut below, _session) = theirs.into_inner();
        below.shutdown().await.expect("FIN");
        let error = ours.read(&mut [0]).await.expect_err("a cut");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn dropped_or_reset_it_resets_the_stream_below() {
        for by_reset in [true, false] {
            let (mut ours, mut theirs) = connected().await;
            ours.write_all(b"x").await.expect("written");
            ours.flush().await.expect("sent");
            theirs.read_exact(&mut [0]).await.expect("read");
            if by_reset {
                ours.reset();
                let error = ours.read(&mut [0]).await.expect_err("a cut");
                assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            }
            drop(ours);
            let error = theirs.read(&mut [0]).await.expect_err("a cut");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "by_reset: {by_reset}");
        }
    }

    #[test]
    fn files_that_are_no_use_are_named() {
        let authority = Authority::new();
        let missing = authority.dir.path().join("missing.pem");
        let error = TlsConnector::new(&settings(missing.clone())).expect_err("an error");
        assert_eq!(error.to_string(), format!("{}: No such file or directory (os error 2)", missing.display()));
        let empty = authority.file("empty.pem", "");
        let error = TlsConnector::new(&settings(empty.clone())).expect_err("an error");
        assert_eq!(error.to_string(), format!("{}: no PEM certificate in it", empty.display()));
        let (cert, _) = authority.issue("linkspan");
        let (_, other) = authority.issue("linkspan");
        let key = authority.file("other.key", &other.serialize_pem());
        let identity = Some((authority.file("me.pem", &cert), key.clone()));
        let error = TlsConnector::new(&TlsClient { identity, ..settings(authority.ca()) }).expect_err("an error");
        assert!(error.to_string().starts_with(&format!("{}: not usable with ", key.display())), "{error}");
    }
}
