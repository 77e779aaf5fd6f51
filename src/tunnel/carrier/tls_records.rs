//! Records of TLS 1.3 (RFC 8446, section 5) under the keys of a handshake that rustls has finished, as kTLS does it.
//!
//! rustls copies what it seals and what it opens twice more than the socket's buffer and the stream's need; here a record is
//! sealed where it is sent from, and opened into where it is read from. What rustls would do on top is not needed between our own
//! two ends: there are no tickets, and keys are never updated, for a carrier ends long before its keys are worn and the next one
//! has keys of its own.

use aws_lc_rs::aead::{AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use bytes::{Buf as _, BytesMut};
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets};

use super::error::CarrierError;
use super::tls::{HEADER, MAX_PLAINTEXT};
use super::{Opened, Plain, Protect, Sealed};

const TAG: usize = 16;
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
/// Records under one key, at most 34 GB: less than a tenth of the 2^24.5 that RFC 8446, section 5.5 allows AES-GCM.
const MOST_RECORDS: u64 = 1 << 21;

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
    key: LessSafeKey,
    iv: [u8; 12],
    sequence: u64,
}

impl Direction {
    fn new((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Result<Self, CarrierError> {
        let (algorithm, key, iv) = match &secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(CarrierError::Handshake { detail: "a cipher that this program lacks".to_owned() }),
        };
        let wrong = || CarrierError::Handshake { detail: "a key or an IV of the wrong length".to_owned() };
        let key = LessSafeKey::new(UnboundKey::new(algorithm, key.as_ref()).map_err(|_| wrong())?);
        let iv = iv.as_ref().try_into().map_err(|_| wrong())?;
        Ok(Self { key, iv, sequence })
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

impl TlsRecords {
    /// Takes over from rustls, whose records of the handshake are all sent and read.
    pub(super) fn new(secrets: ExtractedSecrets) -> Result<Self, CarrierError> {
        Ok(Self {
            send: Direction::new(secrets.tx)?,
            receive: Direction::new(secrets.rx)?,
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
        self.send.sequence += 1;
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
        self.receive.sequence += 1;
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
        MAX_PLAINTEXT
    }

    fn seal(&mut self, parts: &[&[u8]], out: &mut Sealed) -> Result<(), CarrierError> {
        if self.closed {
            return Err(CarrierError::Closed);
        }
        let total: usize = parts.iter().map(|p| p.len()).sum();
        if total > MAX_PLAINTEXT {
            return Err(CarrierError::RecordTooLarge { actual: total, limit: MAX_PLAINTEXT });
        }
        if self.send.sequence >= MOST_RECORDS {
            return Err(CarrierError::WornKey { records: MOST_RECORDS });
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

    fn records(key: &[u8], iv: [u8; 12], sent: u64) -> TlsRecords {
        let direction = |sequence| {
            let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, key).expect("16 bytes"));
            Direction { key, iv, sequence }
        };
        let (send, receive) = (direction(sent), direction(0));
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
            records(&hex("17 42 2d da 59 6e d5 d9 ac d8 90 e3 c6 3f 50 51"), iv, 0)
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
    fn a_worn_key_seals_no_more() {
        let mut records = records(&[7; 16], [0; 12], MOST_RECORDS - 1);
        let mut out = Sealed::default();
        records.seal(&[b"last"], &mut out).expect("one is left");
        assert!(matches!(records.seal(&[b"more"], &mut out), Err(CarrierError::WornKey { records: MOST_RECORDS })));
    }
}
