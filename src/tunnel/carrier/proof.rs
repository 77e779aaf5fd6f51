//! What a peer proved, kept so that it can be held against credentials that come later.

use std::fmt;

use rustls::pki_types::{CertificateDer, UnixTime};

use super::certificates::{Credentials, trusts};
use super::error::CarrierError;

/// Credentials of one side of a link, ready for handshakes.
#[derive(Clone)]
pub struct Trust(pub(super) Credentials);

/// By which credentials, and with which certificates, a peer proved itself. Never shows itself.
#[derive(Clone)]
pub struct Proof {
    pub(super) by: Credentials,
    /// Empty for noise: knowing the secret is all there is.
    pub(super) chain: Vec<CertificateDer<'static>>,
    /// Whether this side dialled.
    pub(super) dialler: bool,
}

impl Trust {
    /// Reads the files that `auth` names.
    ///
    /// # Errors
    /// [`CarrierError::File`] with the file and what is wrong with it.
    pub fn load(auth: &crate::config::TunnelAuth, link: &str) -> Result<Self, CarrierError> {
        Credentials::load(auth, link).map(Self)
    }

    /// Whether a peer that proved itself so may still be spoken to. Where whom to trust did not change, it may: certificates
    /// that ran out since are a matter of the next handshake.
    ///
    /// # Errors
    /// Why it may not.
    pub fn accepts(&self, proof: &Proof) -> Result<(), CarrierError> {
        if self.0.trusts_alike(&proof.by) {
            return Ok(());
        }
        trusts(&self.0, &proof.chain, proof.dialler, UnixTime::now())
    }
}

#[cfg(test)]
impl Proof {
    /// What somebody who knows `secret` proves.
    pub(in crate::tunnel) fn of_secret(secret: &crate::config::Secret, link: &str) -> Self {
        let by = Credentials::Noise(super::noise::Psk::derive(secret, link));
        Self { by, chain: Vec::new(), dialler: false }
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Trust").field(&self.0.transport()).finish()
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proof").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}
