//! TLS towards clients: this host's certificate, and theirs where the operator wants one.

use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::tls::{self, TlsError};
use super::{BoxStream, tls::TlsConn};
use crate::config::TlsServer;

/// Takes TLS from clients.
#[derive(Clone)]
pub struct TlsAcceptor(tokio_rustls::TlsAcceptor);

impl TlsAcceptor {
    /// Reads the files of `settings` once.
    ///
    /// # Errors
    /// [`TlsError::File`], naming the file.
    pub fn new(settings: &TlsServer) -> Result<Self, TlsError> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has suites for TLS 1.2 and 1.3");
        let builder = match &settings.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                let unusable = |error: &dyn std::fmt::Display| tls::file(path, error.to_string());
                for cert in tls::read_certs(path)? {
                    roots.add(cert).map_err(|error| unusable(&error))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| unusable(&error))?)
            }
        };
        let (chain, key) = (tls::read_certs(&settings.cert)?, tls::read_key(&settings.key)?);
        let mismatch = |error: rustls::Error| {
            tls::file(&settings.key, format!("not usable with {}: {error}", settings.cert.display()))
        };
        let config = builder.with_single_cert(chain, key).map_err(mismatch)?;
        Ok(Self(tokio_rustls::TlsAcceptor::from(Arc::new(config))))
    }

    /// Performs the handshake over `stream` within 10 s.
    ///
    /// # Errors
    /// [`TlsError::Client`].
    pub async fn accept(&self, stream: BoxStream) -> Result<BoxStream, TlsError> {
        match tokio::time::timeout(tls::HANDSHAKE, self.0.accept(stream)).await {
            Ok(Ok(inner)) => Ok(Box::new(TlsConn::new(inner.into()))),
            Ok(Err(error)) => Err(TlsError::Client { detail: error.to_string() }),
            Err(_) => Err(TlsError::Client { detail: format!("not done within {} s", tls::HANDSHAKE.as_secs()) }),
        }
    }
}

impl std::fmt::Debug for TlsAcceptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}
