//! The session core's keyed digests: HKDF-SHA256 for keys, HMAC-SHA256 for proofs.

use aws_lc_rs::{constant_time, hkdf, hmac};

use crate::tunnel::session::Keyring;

/// Labels keep the outputs apart from each other and from any other use of the same input.
const SESSION_ID: &[u8] = b"linkspan session id v1";
const RESUME_KEY: &[u8] = b"linkspan resume key v1";

/// [`Keyring`] on aws-lc-rs. The input key is a carrier's channel binding, which only the two ends of its handshake know.
pub(super) struct Hkdf;

impl Keyring for Hkdf {
    fn derive(&self, binding: &[u8; 32], dialler_boot: &[u8; 16], listener_boot: &[u8; 16]) -> ([u8; 16], [u8; 32]) {
        let boots = [&dialler_boot[..], &listener_boot[..]].concat();
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &boots).extract(binding);
        (expand(&secret, SESSION_ID), expand(&secret, RESUME_KEY))
    }

    fn proof(&self, key: &[u8; 32], binding: &[u8; 32], epoch: u64, slot: u8) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
        context.update(binding);
        context.update(&epoch.to_le_bytes());
        context.update(&[slot]);
        let tag = context.sign();
        tag.as_ref().try_into().expect("SHA-256 has 32 bytes")
    }

    fn same(&self, a: &[u8; 32], b: &[u8; 32]) -> bool {
        constant_time::verify_slices_are_equal(a, b).is_ok()
    }
}

struct Len(usize);

impl hkdf::KeyType for Len {
    fn len(&self) -> usize {
        self.0
    }
}

fn expand<const N: usize>(secret: &hkdf::Prk, label: &[u8]) -> [u8; N] {
    let mut out = [0; N];
    secret
        .expand(&[label], Len(N))
        .and_then(|okm| okm.fill(&mut out))
        .expect("32 bytes are below HKDF's limit of 255 digests");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_depend_on_everything_and_proofs_too() {
        let keys = |binding: u8, a: u8, b: u8| Hkdf.derive(&[binding; 32], &[a; 16], &[b; 16]);
        assert_eq!(keys(1, 2, 3), keys(1, 2, 3));
        assert!(keys(1, 2, 3) != keys(2, 2, 3) && keys(1, 2, 3) != keys(1, 3, 2));
        assert_ne!(keys(1, 2, 3).0[..], keys(1, 2, 3).1[..16]);
        let proof = Hkdf.proof(&[1; 32], &[2; 32], 3, 4);
        assert!(Hkdf.same(&proof, &Hkdf.proof(&[1; 32], &[2; 32], 3, 4)));
        for other in [(2, 2, 3, 4), (1, 3, 3, 4), (1, 2, 4, 4), (1, 2, 3, 5)] {
            assert!(!Hkdf.same(&proof, &Hkdf.proof(&[other.0; 32], &[other.1; 32], other.2, other.3)));
        }
    }
}
