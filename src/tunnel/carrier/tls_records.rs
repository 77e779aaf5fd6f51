//! Records of TLS 1.3 (RFC 8446, section 5) under the keys of a handshake that rustls has finished, as kTLS does it.
//!
//! rustls copies what it seals and what it opens twice more than the socket's buffer and the stream's need; here a record is
//! sealed where it is sent from, and opened into where it is read from. Of what rustls would do on top there are no tickets between
//! our own two ends; and keys roll without KeyUpdate, whose secrets rustls keeps: both ends count the same records, and take the
//! next key of a chain that begins with the handshake's exporter (section 7.5) at the same one. An older key cannot be computed
//! from a newer one.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use bytes::{Buf as _, BytesMut};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};
use zeroize::Zeroizing;

use super::error::CarrierError;
use super::tls::{HEADER, MAX_PLAINTEXT};
use super::{Opened, Plain, Protect, Sealed};

const TAG: usize = 16;
/// Plaintext of a full record: with its type it is opened in a quarter of a buffer of the pool, not in a byte more.
const FULL: usize = MAX_PLAINTEXT - TYPE;
/// Behind the plaintext of a record: its type. Zeros may follow, ours never do.
const TYPE: usize = 1;
const ALERT: u8 = 21;
const DATA: u8 = 23;
/// Type and version that all protected records show.
const SHOWN: [u8; 3] = [DATA, 3, 3];
const WARNING: u8 = 1;
const FATAL: u8 = 2;
const CLOSE_NOTIFY: u8 = 0;
const BAD_RECORD_MAC: u8 = 20;
/// Records under one key, at most 17 GB: a twentieth of the 2^24.5 that RFC 8446, section 5.5 allows AES-GCM.
pub(super) const MOST_RECORDS: u64 = 1 << 20;

/// What the keys after the handshake's are made from, one for each direction.
pub(super) type Chain = Zeroizing<[u8; 32]>;

/// Both directions of one carrier.
pub(super) struct TlsRecords {
    send: Direction,
    receive: Direction,
    closed: bool,
    peer_closed: bool,
    /// An alert to be sent.
    owed: Sealed,
}

/// One direction's key and count.
struct Direction {
    algorithm: &'static Algorithm,
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
    next: Chain,
    most: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets), next: Chain, most: u64) -> Result<Self, CarrierError> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(CarrierError::Handshake { detail: "a cipher that this program lacks".to_owned() }),
        };
        let wrong = || CarrierError::Handshake { detail: "a key or an IV of the wrong length".to_owned() };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).map_err(|_| wrong())?);
        let iv = iv.as_ref().try_into().map_err(|_| wrong())?;
        Ok(Self { algorithm, key, iv, sequence, next, most })
    }

    /// Counts a record that was sealed or opened.
    fn advance(&mut self) {
        self.sequence += 1;
        if self.sequence >= self.most {
            let chain = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &*self.next);
            let mut key = Zeroizing::new(vec![0; self.algorithm.key_len()]);
            let mut next = Chain::default();
            expand(&chain, b"linkspan key", &mut key);
            expand(&chain, b"linkspan iv", &mut self.iv);
            expand(&chain, b"linkspan next", &mut *next);
            self.key = LessSafeKey::new(UnboundKey::new(self.algorithm, &key).expect("a key of the cipher's length"));
            self.next = next;
            self.sequence = 0;
        }
    }

    /// RFC 8446, section 5.3: the IV with the record's number over its end.
    fn nonce(&self) -> Nonce {
        let mut nonce = self.iv;
        for (byte, number) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= number;
        }
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Fills `out` with what HKDF makes of `chain` for `label`.
fn expand(chain: &hkdf::Prk, label: &[u8], out: &mut [u8]) {
    struct Len(usize);
    impl hkdf::KeyType for Len {
        fn len(&self) -> usize {
            self.0
        }
    }
    let label = [label];
    let made = chain.expand(&label, Len(out.len())).and_then(|okm| okm.fill(out));
    made.expect("a length that HKDF-SHA256 gives");
}

impl TlsRecords {
    /// Takes over from rustls, whose records of the handshake are all sent and read. The chains are those of what is sent and of
    /// what is received; each key protects `most` records.
    pub(super) fn new(
        secrets: ExtractedSecrets,
        (sent, received): (Chain, Chain),
        most: u64,
    ) -> Result<Self, CarrierError> {
        Ok(Self {
            send: Direction::new(secrets.tx, sent, most)?,
            receive: Direction::new(secrets.rx, received, most)?,
            closed: false,
            peer_closed: false,
            owed: Sealed::default(),
        })
    }

    fn append(&mut self, kind: u8, parts: &[&[u8]], out: &mut Sealed) {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        let length = u16::try_from(total + TYPE + TAG).expect("the caller compared with the largest plaintext");
        let [high, low] = length.to_be_bytes();
        let header = [SHOWN[0], SHOWN[1], SHOWN[2], high, low];
        // The type stands behind the payload: all of it has to lie in one piece.
        let record = out.room(HEADER + usize::from(length));
        let (shown, body) = record.split_at_mut(HEADER);
        shown.copy_from_slice(&header);
        let (inner, tag) = body.split_at_mut(total + TYPE);
        let mut at = 0;
        for part in parts {
            inner[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        inner[total] = kind;
        let nonce = self.send.nonce();
        let made = self.send.key.seal_in_place_separate_tag(nonce, Aad::from(header), inner);
        tag.copy_from_slice(made.expect("a record is below any cipher's limit").as_ref());
        out.advance(HEADER + usize::from(length));
        self.send.advance();
    }

    /// The failure of a record, of which the peer is told.
    fn corrupt(&mut self, detail: String) -> CarrierError {
        let mut owed = std::mem::take(&mut self.owed);
        self.append(ALERT, &[&[FATAL, BAD_RECORD_MAC]], &mut owed);
        self.owed = owed;
        CarrierError::Corrupt { record: self.receive.sequence, detail }
    }

    /// Opens one record of which all is there. True at the peer's close.
    fn open_one(&mut self, header: [u8; HEADER], body: &[u8], plain: &mut Plain) -> Result<bool, CarrierError> {
        let (ciphertext, tag) = body.split_at(body.len() - TAG);
        let nonce = self.receive.nonce();
        let room = plain.room(ciphertext.len());
        if self.receive.key.open_separate_gather(nonce, Aad::from(header), ciphertext, tag, room).is_err() {
            return Err(self.corrupt("its tag does not verify".to_owned()));
        }
        self.receive.advance();
        let Some(end) = room.iter().rposition(|&byte| byte != 0) else {
            return Err(self.corrupt("it has no type".to_owned()));
        };
        match (room[end], &room[..end]) {
            (DATA, data) => {
                let len = data.len();
                plain.advance(len);
                Ok(false)
            }
            (ALERT, [_, CLOSE_NOTIFY]) => Ok(true),
            (ALERT, [_, alert]) => {
                let detail = format!("the peer gave up: TLS alert {alert}");
                Err(CarrierError::Corrupt { record: self.receive.sequence, detail })
            }
            (kind, _) => Err(self.corrupt(format!("a record of type {kind} has no place behind the handshake"))),
        }
    }
}

impl Protect for TlsRecords {
    fn max_plaintext(&self) -> usize {
        FULL
    }

    fn seal(&mut self, parts: &[&[u8]], out: &mut Sealed) -> Result<(), CarrierError> {
        if self.closed {
            return Err(CarrierError::Closed);
        }
        let total: usize = parts.iter().map(|p| p.len()).sum();
        if total > MAX_PLAINTEXT {
            return Err(CarrierError::RecordTooLarge { actual: total, limit: MAX_PLAINTEXT });
        }
        if total > 0 {
            self.append(DATA, parts, out);
        }
        Ok(())
    }

    fn open(&mut self, input: &mut BytesMut, plain: &mut Plain) -> Result<Opened, CarrierError> {
        if self.peer_closed {
            return Ok(Opened::Closed);
        }
        while let Some((&header, rest)) = input.split_first_chunk::<HEADER>() {
            let len = usize::from(u16::from_be_bytes([header[3], header[4]]));
            if header[..3] != SHOWN {
                return Err(self.corrupt(format!("it begins with {:02x?}", &header[..3])));
            }
            // RFC 8446, section 5.2: type, padding and tag take at most 256 bytes more.
            if !(TYPE + TAG..=MAX_PLAINTEXT + 256).contains(&len) {
                return Err(self.corrupt(format!("{len} bytes, a record has 17 to {}", MAX_PLAINTEXT + 256)));
            }
            let Some(body) = rest.get(..len) else { break };
            let closed = self.open_one(header, body, plain)?;
            input.advance(HEADER + len);
            if closed {
                self.peer_closed = true;
                return Ok(Opened::Closed);
            }
        }
        Ok(Opened::More)
    }

    fn close(&mut self, out: &mut Sealed) {
        if !std::mem::replace(&mut self.closed, true) {
            self.append(ALERT, &[&[WARNING, CLOSE_NOTIFY]], out);
        }
    }

    fn pending(&mut self, out: &mut Sealed) {
        out.extend_from_slice(&self.owed);
        self.owed.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(key: &[u8], iv: [u8; 12], most: u64) -> TlsRecords {
        let direction = || {
            let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("16 bytes"));
            Direction { algorithm: &AES_128_GCM, key, iv, sequence: 0, next: Chain::new([9; 32]), most }
        };
        let (send, receive) = (direction(), direction());
        TlsRecords { send, receive, closed: false, peer_closed: false, owed: Sealed::default() }
    }

    /// RFC 8448, section 3: the client's application traffic key, and its one record of data.
    #[test]
    fn the_application_record_of_rfc_8448_opens_and_is_sealed_alike() {
        let hex = |text: &str| -> Vec<u8> {
            let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
            digits
                .chunks(2)
                .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex"))
                .collect()
        };
        let both = || {
            let iv = hex("5b 78 92 3d ee 08 57 90 33 e5 23 d9").try_into().expect("12 bytes");
            records(&hex("17 42 2d da 59 6e d5 d9 ac d8 90 e3 c6 3f 50 51"), iv, MOST_RECORDS)
        };
        let record = hex("17 03 03 00 43 a2 3f 70 54 b6 2c 94 d0 af fa fe
            82 28 ba 55 cb ef ac ea 42 f9 14 aa 66 bc ab 3f 2b 98 19 a8 a5 b4 6b 39 5b d5 4a 9a 20 44 1e 2b 62 97 4e 1f 5a
            62 92 a2 97 70 14 bd 1e 3d ea e6 3a ee bb 21 69 49 15 e4");
        let data: Vec<u8> = (0..50).collect();
        let mut plain = Plain::default();
        let opened = both().open(&mut BytesMut::from(&record[..]), &mut plain).expect("opens");
        assert_eq!((opened, plain.concat()), (Opened::More, data.clone()));
        let mut sealed = Sealed::default();
        both().seal(&[&data[..20], &data[20..]], &mut sealed).expect("fits");
        assert_eq!(sealed[..], record);
    }

    #[test]
    fn both_ends_take_the_next_key_at_the_same_record_and_the_close_is_counted_too() {
        let both = || records(&[7; 16], [1; 12], 3);
        let (mut from, mut to) = (both(), both());
        let mut input = BytesMut::new();
        for number in 0..10_u8 {
            let mut out = Sealed::default();
            from.seal(&[&[number; 5]], &mut out).expect("fits");
            input.extend_from_slice(&out);
        }
        let mut out = Sealed::default();
        from.close(&mut out);
        input.extend_from_slice(&out);
        let all = input.clone();
        let mut plain = Plain::default();
        assert_eq!(to.open(&mut input, &mut plain).expect("opens"), Opened::Closed);
        assert_eq!(plain.concat(), (0..10).flat_map(|number| [number; 5]).collect::<Vec<u8>>());
        // Eleven records: three keys are used up, and two records lie under the fourth.
        assert_eq!((from.send.sequence, to.receive.sequence), (2, 2));
        assert_ne!(*from.send.next, [9; 32]);
        // Without the roll the fourth record does not open.
        let mut stuck = records(&[7; 16], [1; 12], MOST_RECORDS);
        let mut plain = Plain::default();
        let failed = stuck.open(&mut BytesMut::from(&all[..]), &mut plain);
        assert!(matches!(failed, Err(CarrierError::Corrupt { record: 3, .. })), "{failed:?}");
        assert_eq!(plain.concat().len(), 3 * 5);
    }
}
