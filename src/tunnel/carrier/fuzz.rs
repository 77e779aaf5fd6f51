//! What fuzzing drives here: everything that an unauthenticated peer's bytes reach, and records that were damaged on their way.

use bytes::BytesMut;
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

use super::error::Transport;
use super::handshake::{Handshake, Step};
use super::noise::{Noise, NoiseHandshake, Psk, RekeyAfter};
use super::preamble::{Preamble, Verdict};
use super::tls_records::{Chain, TlsRecords};
use super::{Opened, Plain, Protect, Sealed, sniff};
use crate::config::Secret;

/// Arbitrary bytes as preamble, as verdict, as stray protocol and as either side's noise handshake, in pieces whose size the first
/// byte chooses. Panics where a preamble does not read back as it was written, or a stranger's handshake succeeds.
pub fn fuzz_handshake(data: &[u8]) {
    let Some((&step, data)) = data.split_first() else { return };
    if let Ok(Some((preamble, used))) = Preamble::decode(data)
        && !preamble.link.is_empty()
    {
        assert_eq!(preamble.encode(), data[..used], "a preamble has one form");
    }
    for asked in [Transport::Noise, Transport::Tls] {
        let _ = Verdict::decode(data, asked, "a");
    }
    let _ = sniff::sniff(data).to_string();
    let psk = Psk::derive(&Secret::new("fuzz".to_owned()), "a");
    let mut out = Vec::new();
    let sides = [NoiseHandshake::accept(&psk, b"p"), NoiseHandshake::dial(&psk, b"p", &mut out)];
    for mut side in sides.into_iter().flatten() {
        let mut input = BytesMut::new();
        for piece in data.chunks(usize::from(step).max(1)) {
            input.extend_from_slice(piece);
            match side.step(&mut input, &mut out) {
                Ok(Step::More) => {}
                Ok(Step::Done(_)) => panic!("a peer without the secret was believed"),
                Err(_) => break,
            }
        }
    }
}

/// Records of either transport, sealed, then damaged, cut and delivered as the bytes say. Panics where anything opens that was not
/// sealed so, or undamaged records do not open.
pub fn fuzz_records(data: &[u8]) {
    let [choice, step, rest @ ..] = data else { return };
    let (one, two) = ([1; 32], [2; 32]);
    let after = RekeyAfter { records: 3, bytes: 4000 };
    let secrets =
        |n: u8| (0, ConnectionTrafficSecrets::Aes256Gcm { key: AeadKey::from([n; 32]), iv: Iv::from([n; 12]) });
    let tls = |tx: u8, rx: u8| {
        let secrets = ExtractedSecrets { tx: secrets(tx), rx: secrets(rx) };
        TlsRecords::new(secrets, (Chain::new([tx; 32]), Chain::new([rx; 32])), 3).expect("keys that fit")
    };
    let (mut from, mut to): (Box<dyn Protect>, Box<dyn Protect>) = if choice & 1 == 0 {
        (Box::new(Noise::new(&one, &two, after)), Box::new(Noise::new(&two, &one, after)))
    } else {
        (Box::new(tls(1, 2)), Box::new(tls(2, 1)))
    };
    let (plaintext, damage) = rest.split_at(rest.len() * usize::from(choice >> 4) / 16);
    let mut sealed = Sealed::default();
    for record in plaintext.chunks(usize::from(*step) + 1) {
        from.seal(&[record], &mut sealed).expect("records this small fit");
    }
    from.close(&mut sealed);
    let mut wire = sealed.to_vec();
    let mut damaged = choice & 2 != 0;
    if damaged {
        // Raw bytes in front of, or in place of, the records.
        wire.splice(..usize::from(choice & 4 != 0) * wire.len(), damage.iter().copied());
        damaged = choice & 4 != 0 || !damage.is_empty();
    } else {
        for at in damage.chunks_exact(3) {
            let place = usize::from(u16::from_le_bytes([at[0], at[1]])) % wire.len();
            wire[place] ^= at[2];
            damaged |= at[2] != 0;
        }
    }
    let (mut input, mut plain, mut outcome) = (BytesMut::new(), Plain::default(), Ok(Opened::More));
    for piece in wire.chunks(usize::from(*step).max(1) * 7) {
        input.extend_from_slice(piece);
        outcome = to.open(&mut input, &mut plain);
        if !matches!(outcome, Ok(Opened::More)) {
            break;
        }
    }
    let opened = plain.concat();
    assert!(plaintext.starts_with(&opened), "what opens is what was sealed");
    if !damaged {
        assert!(matches!(outcome, Ok(Opened::Closed)) && opened.len() == plaintext.len(), "undamaged records open");
    }
    to.pending(&mut sealed);
}
