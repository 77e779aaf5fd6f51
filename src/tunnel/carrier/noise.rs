//! Noise: `Noise_NNpsk0_25519_AESGCM_SHA256`, forward secret, both sides proved by the pre-shared key.
//!
//! The key is mixed in before the first message, so the listener knows a wrong secret from the first message and answers
//! nothing. That message can be replayed, and a replayer cannot go on: the dialler's first record, which repeats the
//! handshake's hash, must open before the listener believes in it.
//!
//! snow does the handshake; the records are Noise's transport messages (nonce 0, 1, 2…; `Rekey()` as the specification has it)
//! sealed by aws-lc-rs straight into the socket's buffer and opened straight out of it, which snow's API cannot.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use bytes::{Buf as _, BytesMut};
use zeroize::Zeroizing;

use super::error::CarrierError;
use super::handshake::{Handshake, Proved, Step};
use super::{Opened, Plain, Protect, Sealed};
use crate::config::Secret;

const PATTERN: &str = "Noise_NNpsk0_25519_AESGCM_SHA256";
/// An ephemeral key and a tag: both messages of the handshake.
const MESSAGE: usize = 32 + TAG;
const TAG: usize = 16;
/// Length of a record's ciphertext, big-endian.
const LENGTH: usize = 2;
const MAX_CIPHERTEXT: usize = 65_535;
const MAX_PLAINTEXT: usize = MAX_CIPHERTEXT - TAG;

/// When a direction takes its next key. AES-GCM's own limit for 64 KiB records is near 2^30 of them; a key's life is kept far
/// shorter, so that little is lost with one.
#[derive(Debug, Clone, Copy)]
pub(super) struct RekeyAfter {
    pub(super) records: u64,
    pub(super) bytes: u64,
}

impl Default for RekeyAfter {
    fn default() -> Self {
        Self { records: 1 << 20, bytes: 1 << 36 }
    }
}

/// The pre-shared key of one link.
#[derive(Clone)]
pub(super) struct Psk(Zeroizing<[u8; 32]>);

impl Psk {
    /// HKDF-SHA256: links that share a secret still have different keys.
    pub(super) fn derive(secret: &Secret, link: &str) -> Self {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"linkspan tunnel 1 pre-shared key");
        let mut key = Zeroizing::new([0; 32]);
        salt.extract(secret.expose().as_bytes())
            .expand(&[b"link ", link.as_bytes()], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut *key))
            .expect("32 bytes is a length that HKDF-SHA256 gives");
        Self(key)
    }

    /// Whether it is the same key.
    pub(super) fn is(&self, other: &Self) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(&*self.0, &*other.0).is_ok()
    }
}

/// The handshake of one side.
pub(super) struct NoiseHandshake {
    state: Stage,
    dialler: bool,
}

enum Stage {
    /// Waits for the other's message.
    Message(Box<snow::HandshakeState>),
    /// The listener waits for the dialler's first record.
    Confirm(Box<Noise>, [u8; 32]),
    Over,
}

impl NoiseHandshake {
    /// The dialler's side; its first message is appended to `out`.
    pub(super) fn dial(psk: &Psk, preamble: &[u8], out: &mut Vec<u8>) -> Result<Self, CarrierError> {
        let mut state = builder(psk, preamble)?.build_initiator().map_err(broken)?;
        write(&mut state, out)?;
        Ok(Self { state: Stage::Message(Box::new(state)), dialler: true })
    }

    /// The listener's side.
    pub(super) fn accept(psk: &Psk, preamble: &[u8]) -> Result<Self, CarrierError> {
        let state = builder(psk, preamble)?.build_responder().map_err(broken)?;
        Ok(Self { state: Stage::Message(Box::new(state)), dialler: false })
    }
}

impl Handshake for NoiseHandshake {
    fn step(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Step, CarrierError> {
        loop {
            match std::mem::replace(&mut self.state, Stage::Over) {
                Stage::Message(mut state) => {
                    if input.len() < LENGTH + MESSAGE {
                        self.state = Stage::Message(state);
                        return Ok(Step::More);
                    }
                    let len = usize::from(u16::from_be_bytes([input[0], input[1]]));
                    if len != MESSAGE {
                        let detail = format!("a message of {len} bytes where one of {MESSAGE} belongs");
                        return Err(CarrierError::Handshake { detail });
                    }
                    state
                        .read_message(&input[LENGTH..LENGTH + MESSAGE], &mut [0; MESSAGE])
                        .map_err(|_| CarrierError::WrongSecret)?;
                    input.advance(LENGTH + MESSAGE);
                    if !self.dialler {
                        write(&mut state, out)?;
                    }
                    let (mut noise, binding) = Noise::split(&mut state, self.dialler);
                    if self.dialler {
                        let mut sealed = Sealed::default();
                        noise.seal(&[&binding], &mut sealed)?;
                        out.extend_from_slice(&sealed);
                        return Ok(Step::Done(proved(noise, binding)));
                    }
                    self.state = Stage::Confirm(Box::new(noise), binding);
                }
                Stage::Confirm(mut noise, binding) => {
                    let record = LENGTH + binding.len() + TAG;
                    if input.len() < record {
                        self.state = Stage::Confirm(noise, binding);
                        return Ok(Step::More);
                    }
                    let mut plain = Plain::default();
                    let opened = noise.open(&mut input.split_to(record), &mut plain);
                    if opened.is_err() || plain.concat()[..] != binding {
                        return Err(CarrierError::WrongSecret);
                    }
                    return Ok(Step::Done(proved(*noise, binding)));
                }
                Stage::Over => return Err(CarrierError::Handshake { detail: "it is over".to_owned() }),
            }
        }
    }

    fn cut(&self) -> Option<CarrierError> {
        // A listener that cannot read our message says nothing and closes.
        self.dialler.then_some(CarrierError::WrongSecret)
    }
}

fn proved(noise: Noise, binding: [u8; 32]) -> Proved {
    Proved { protect: Box::new(noise), binding, name: "secret".to_owned(), chain: Vec::new() }
}

fn builder<'a>(psk: &'a Psk, preamble: &'a [u8]) -> Result<snow::Builder<'a>, CarrierError> {
    let params = PATTERN.parse().map_err(broken)?;
    snow::Builder::new(params).prologue(preamble).and_then(|b| b.psk(0, &psk.0)).map_err(broken)
}

fn write(state: &mut snow::HandshakeState, out: &mut Vec<u8>) -> Result<(), CarrierError> {
    let mut message = [0; MESSAGE];
    let len = state.write_message(&[], &mut message).map_err(broken)?;
    let length = u16::try_from(len).expect("a handshake message has 48 bytes");
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&message[..len]);
    Ok(())
}

fn broken(error: snow::Error) -> CarrierError {
    CarrierError::Handshake { detail: error.to_string() }
}

/// Records of one carrier.
pub(super) struct Noise {
    send: Direction,
    receive: Direction,
    closed: bool,
    peer_closed: bool,
}

/// One direction's key and counters; both sides count the same records, so both take the next key at the same one.
struct Direction {
    key: LessSafeKey,
    nonce: u64,
    after: RekeyAfter,
    records: u64,
    bytes: u64,
}

impl Direction {
    fn new(key: &[u8; 32], after: RekeyAfter) -> Self {
        Self { key: cipher(key), nonce: 0, after, records: 0, bytes: 0 }
    }

    /// Counts a record of `len` bytes of plaintext that was sealed or opened.
    fn advance(&mut self, len: usize) {
        self.nonce += 1;
        self.records += 1;
        self.bytes += len as u64;
        if self.records >= self.after.records || self.bytes >= self.after.bytes {
            // Noise section 4.2: the first 32 bytes of ENCRYPT(k, 2^64-1, "", 32 zeros).
            let mut key = Zeroizing::new([0; 32]);
            let tag = self.key.seal_in_place_separate_tag(nonce(u64::MAX), Aad::empty(), &mut *key);
            let _ = tag.expect("32 bytes are sealed");
            self.key = cipher(&key);
            self.records = 0;
            self.bytes = 0;
        }
    }
}

fn cipher(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).expect("AES-256 takes 32 bytes"))
}

fn nonce(n: u64) -> Nonce {
    let mut bytes = [0; 12];
    bytes[4..].copy_from_slice(&n.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

impl Noise {
    fn split(state: &mut snow::HandshakeState, dialler: bool) -> (Self, [u8; 32]) {
        let (initiator, responder) = state.dangerously_get_raw_split();
        let (initiator, responder) = (Zeroizing::new(initiator), Zeroizing::new(responder));
        let mut binding = [0; 32];
        binding.copy_from_slice(&state.get_handshake_hash()[..32]);
        let (send, receive) = if dialler { (&initiator, &responder) } else { (&responder, &initiator) };
        (Self::new(send, receive, RekeyAfter::default()), binding)
    }

    pub(super) fn new(send: &[u8; 32], receive: &[u8; 32], after: RekeyAfter) -> Self {
        Self {
            send: Direction::new(send, after),
            receive: Direction::new(receive, after),
            closed: false,
            peer_closed: false,
        }
    }

    /// One record of `total` bytes. The last part, which is the payload where there is a large one, is sealed from where it lies.
    fn append(&mut self, parts: &[&[u8]], total: usize, out: &mut Sealed) {
        let ciphertext = u16::try_from(total + TAG).expect("the caller compared with the largest plaintext");
        let (last, before) = parts.split_last().map_or((&[][..], &[][..]), |(last, before)| (*last, before));
        let record = out.room(LENGTH + total + TAG);
        let (length, body) = record.split_at_mut(LENGTH);
        length.copy_from_slice(&ciphertext.to_be_bytes());
        let (head, sealed_last) = body.split_at_mut(total - last.len());
        let mut at = 0;
        for part in before {
            head[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        let key = &self.send.key;
        key.seal_in_place_scatter(nonce(self.send.nonce), Aad::empty(), head, last, sealed_last)
            .expect("a record is below AES-GCM's limit");
        out.advance(LENGTH + total + TAG);
        self.send.advance(total);
    }
}

impl Protect for Noise {
    fn max_plaintext(&self) -> usize {
        MAX_PLAINTEXT
    }

    fn seal(&mut self, parts: &[&[u8]], out: &mut Sealed) -> Result<(), CarrierError> {
        if self.closed {
            return Err(CarrierError::Closed);
        }
        let total = parts.iter().map(|p| p.len()).sum();
        if total > MAX_PLAINTEXT {
            return Err(CarrierError::RecordTooLarge { actual: total, limit: MAX_PLAINTEXT });
        }
        // An empty record is the close.
        if total > 0 {
            self.append(parts, total, out);
        }
        Ok(())
    }

    fn open(&mut self, input: &mut BytesMut, plain: &mut Plain) -> Result<Opened, CarrierError> {
        if self.peer_closed {
            return Ok(Opened::Closed);
        }
        while let Some((&[high, low], rest)) = input.split_first_chunk::<LENGTH>() {
            let len = usize::from(u16::from_be_bytes([high, low]));
            let corrupt =
                |detail: &str| CarrierError::Corrupt { record: self.receive.nonce, detail: detail.to_owned() };
            let Some(size) = len.checked_sub(TAG) else {
                return Err(corrupt(&format!("{len} bytes are less than its tag of {TAG}")));
            };
            let Some(record) = rest.get(..len) else { break };
            let (ciphertext, tag) = record.split_at(size);
            let key = &self.receive.key;
            let n = nonce(self.receive.nonce);
            if key.open_separate_gather(n, Aad::empty(), ciphertext, tag, plain.room(size)).is_err() {
                return Err(corrupt("its tag does not verify"));
            }
            plain.advance(size);
            input.advance(LENGTH + len);
            self.receive.advance(size);
            if size == 0 {
                self.peer_closed = true;
                return Ok(Opened::Closed);
            }
        }
        Ok(Opened::More)
    }

    fn close(&mut self, out: &mut Sealed) {
        if !std::mem::replace(&mut self.closed, true) {
            self.append(&[], 0, out);
        }
    }

    fn pending(&mut self, _out: &mut Sealed) {}
}

#[cfg(test)]
#[path = "noise_tests.rs"]
mod tests;
