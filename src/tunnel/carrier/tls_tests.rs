use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::super::certificates::Credentials;
use super::super::handshake::Handshake;
use super::super::{Opened, Plain, Sealed};
use super::*;
use crate::config::{TlsPeer, TunnelAuth};
use crate::tunnel::certs;

fn made() -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    certs::generate(dir.path(), false).expect("written");
    dir
}

fn load(dir: &Path, side: &str, peer: TlsPeer) -> Credentials {
    let file = |end: &str| -> PathBuf { dir.join(format!("{side}.{end}")) };
    let auth = TunnelAuth::Tls { cert: file("crt"), key: file("key"), peer };
    Credentials::load(&auth, "a").unwrap_or_else(|e| panic!("{e}"))
}

fn by_ca(dir: &Path, name: &str) -> TlsPeer {
    TlsPeer::Ca { ca: dir.join("ca.crt"), name: name.to_owned() }
}

fn pin(dir: &Path, side: &str) -> TlsPeer {
    use rustls::pki_types::pem::PemObject as _;
    let der = rustls::pki_types::CertificateDer::from_pem_file(dir.join(format!("{side}.crt"))).expect("PEM");
    let mut pin = [0; 32];
    pin.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &der).as_ref());
    TlsPeer::Pin(pin)
}

/// What each side's handshake came to: the dialler's, the listener's.
type Outcome = (Result<Proved, CarrierError>, Result<Proved, CarrierError>);

/// Runs both sides against each other, over preambles that each saw.
fn meet(dialler: &Credentials, listener: &Credentials, preambles: (&[u8], &[u8])) -> Outcome {
    let mut to_listener = Vec::new();
    let mut d = dialler.dial(preambles.0, &mut to_listener).unwrap_or_else(|e| panic!("{e}"));
    let mut l = listener.accept(preambles.1).unwrap_or_else(|e| panic!("{e}"));
    let (mut in_d, mut in_l) = (BytesMut::new(), BytesMut::new());
    let (mut done_d, mut done_l) = (None, None);
    let step = |h: &mut Box<dyn Handshake>, input: &mut BytesMut, out: &mut Vec<u8>| match h.step(input, out) {
        Ok(Step::More) => None,
        Ok(Step::Done(proved)) => Some(Ok(proved)),
        Err(error) => Some(Err(error)),
    };
    for _ in 0..10 {
        in_l.extend_from_slice(&std::mem::take(&mut to_listener));
        let mut to_dialler = Vec::new();
        done_l = done_l.or_else(|| step(&mut l, &mut in_l, &mut to_dialler));
        in_d.extend_from_slice(&to_dialler);
        done_d = done_d.or_else(|| step(&mut d, &mut in_d, &mut to_listener));
    }
    let cut = || Err(CarrierError::HandshakeCut { detail: "still waiting".to_owned() });
    (done_d.unwrap_or_else(cut), done_l.unwrap_or_else(cut))
}

fn good(dir: &Path) -> (Proved, Proved) {
    let dialler = load(dir, "source", by_ca(dir, certs::DESTINATION));
    let listener = load(dir, "destination", by_ca(dir, certs::SOURCE));
    let (d, l) = meet(&dialler, &listener, (b"p", b"p"));
    (d.unwrap_or_else(|e| panic!("{e}")), l.unwrap_or_else(|e| panic!("{e}")))
}

#[test]
fn both_prove_themselves_by_ca_and_by_pin() {
    let dir = made();
    let (d, l) = good(dir.path());
    assert_eq!(d.binding, l.binding);
    assert_eq!((d.name.as_str(), l.name.as_str()), ("dns:destination.linkspan", "dns:source.linkspan"));
    assert_ne!(good(dir.path()).0.binding, d.binding);
    let dialler = load(dir.path(), "source", pin(dir.path(), "destination"));
    let listener = load(dir.path(), "destination", pin(dir.path(), "source"));
    let (d, l) = meet(&dialler, &listener, (b"p", b"p"));
    let (d, l) = (d.expect("proved"), l.expect("proved"));
    assert_eq!(d.binding, l.binding);
    assert!(d.name.starts_with("sha256:") && d.name.len() == 7 + 64);
}

#[test]
fn the_key_exchange_is_hybrid_post_quantum_and_nothing_is_older_than_tls_1_3() {
    let dir = made();
    let dialler = load(dir.path(), "source", by_ca(dir.path(), certs::DESTINATION));
    let listener = load(dir.path(), "destination", by_ca(dir.path(), certs::SOURCE));
    let (Credentials::Tls { client, trust, .. }, Credentials::Tls { server, .. }) = (dialler, listener) else {
        panic!("tls")
    };
    let mut client = rustls::ClientConnection::new(client, trust.name.server_name()).expect("a connection");
    let mut server = rustls::ServerConnection::new(server).expect("a connection");
    while client.is_handshaking() || server.is_handshaking() {
        let mut wire = Vec::new();
        client.write_tls(&mut wire).expect("writes");
        server.read_tls(&mut &wire[..]).expect("reads");
        server.process_new_packets().expect("good");
        wire.clear();
        while server.wants_write() {
            server.write_tls(&mut wire).expect("writes");
        }
        let mut rest = &wire[..];
        while !rest.is_empty() {
            client.read_tls(&mut rest).expect("reads");
            client.process_new_packets().expect("good");
        }
    }
    let group = client.negotiated_key_exchange_group().expect("agreed").name();
    assert_eq!(group, rustls::NamedGroup::X25519MLKEM768);
    assert_eq!(client.protocol_version(), Some(rustls::ProtocolVersion::TLSv1_3));
    assert_eq!(client.alpn_protocol(), Some(&b"linkspan/1"[..]));
}

#[test]
fn each_kind_of_wrong_certificate_is_told_apart_on_both_sides() {
    let (dir, other) = (made(), made());
    let dir = dir.path();
    // The dialler trusts another CA.
    let dialler = load(dir, "source", by_ca(other.path(), certs::DESTINATION));
    let listener = load(dir, "destination", by_ca(dir, certs::SOURCE));
    let (d, l) = meet(&dialler, &listener, (b"p", b"p"));
    assert!(matches!(d.err(), Some(CarrierError::UnknownCa { whose: Whose::Peer })));
    let l = l.err();
    assert!(matches!(l, Some(CarrierError::UnknownCa { whose: Whose::Own })), "{l:?}");
    // The listener does.
    let dialler = load(dir, "source", by_ca(dir, certs::DESTINATION));
    let listener = load(dir, "destination", by_ca(other.path(), certs::SOURCE));
    let (d, l) = meet(&dialler, &listener, (b"p", b"p"));
    assert!(matches!(l.err(), Some(CarrierError::UnknownCa { whose: Whose::Peer })));
    assert!(matches!(d.err(), Some(CarrierError::UnknownCa { whose: Whose::Own })));
    // A name that is not the peer's, on either side.
    let dialler = load(dir, "source", by_ca(dir, "grape.linkspan"));
    let listener = load(dir, "destination", by_ca(dir, certs::SOURCE));
    let (d, l) = meet(&dialler, &listener, (b"p", b"p"));
    let text = d.expect_err("wrong name").to_string();
    assert!(text.contains("destination.linkspan") && text.contains("expected grape.linkspan"), "{text}");
    assert!(matches!(l.err(), Some(CarrierError::CertificateRefused { .. })));
    let dialler = load(dir, "source", by_ca(dir, certs::DESTINATION));
    let listener = load(dir, "destination", by_ca(dir, certs::DESTINATION));
    let (d, l) = meet(&dialler, &listener, (b"p", b"p"));
    assert!(matches!(l.err(), Some(CarrierError::WrongName { .. })));
    assert!(matches!(d.err(), Some(CarrierError::CertificateRefused { .. })));
    // A pin that is not the peer's.
    let dialler = load(dir, "source", pin(other.path(), "destination"));
    let (d, _) = meet(&dialler, &listener, (b"p", b"p"));
    assert!(matches!(d.err(), Some(CarrierError::PinMismatch { expected, found }) if expected != found));
    let dialler = load(dir, "source", pin(dir, "destination"));
    let listener = load(dir, "destination", pin(other.path(), "source"));
    let (d, l) = meet(&dialler, &listener, (b"p", b"p"));
    assert!(matches!(l.err(), Some(CarrierError::PinMismatch { .. })));
    assert!(matches!(d.err(), Some(CarrierError::CertificateRefused { .. })));
}

/// Writes a certificate of its own CA whose time is over.
fn expired(dir: &Path) {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::default();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(0));
    let ca = rcgen::CertifiedIssuer::self_signed(params, key).expect("signed");
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new([certs::SOURCE.to_owned()]).expect("a name");
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2020, 12, 31);
    let leaf = params.signed_by(&key, &ca).expect("signed");
    for (file, text) in [("old-ca.crt", ca.pem()), ("old.crt", leaf.pem()), ("old.key", key.serialize_pem())] {
        std::fs::write(dir.join(file), text).expect("written");
    }
}

#[test]
fn an_expired_certificate_is_named_as_such_with_ca_and_with_pin() {
    let dir = made();
    let dir = dir.path();
    expired(dir);
    let dialler = load(dir, "old", by_ca(dir, certs::DESTINATION));
    let trust = TlsPeer::Ca { ca: dir.join("old-ca.crt"), name: certs::SOURCE.to_owned() };
    let (d, l) = meet(&dialler, &load(dir, "destination", trust), (b"p", b"p"));
    assert!(matches!(l.err(), Some(CarrierError::CertificateExpired { whose: Whose::Peer, .. })));
    assert!(matches!(d.err(), Some(CarrierError::CertificateExpired { whose: Whose::Own, .. })));
    let (_, l) = meet(&dialler, &load(dir, "destination", pin(dir, "old")), (b"p", b"p"));
    let text = l.expect_err("expired").to_string();
    assert!(text.contains("expired") && text.contains("2020"), "{text}");
}

#[test]
fn a_preamble_changed_on_the_way_ends_the_handshake() {
    let dir = made();
    let dialler = load(dir.path(), "source", by_ca(dir.path(), certs::DESTINATION));
    let listener = load(dir.path(), "destination", by_ca(dir.path(), certs::SOURCE));
    let (d, l) = meet(&dialler, &listener, (b"LSPN\x01\x02\x01a", b"LSPN\x01\x02\x01b"));
    assert!(matches!(l.err(), Some(CarrierError::Handshake { detail }) if detail == "the peer saw another preamble"));
    assert!(d.is_err());
}

#[test]
fn files_that_are_of_no_use_are_named() {
    let dir = made();
    let path = dir.path().join("ca.key");
    let auth = TunnelAuth::Tls { cert: path.clone(), key: path.clone(), peer: pin(dir.path(), "source") };
    let error = Credentials::load(&auth, "a").err().expect("no certificate").to_string();
    assert!(error.contains("ca.key") && error.contains("no certificate"), "{error}");
    let auth = TunnelAuth::Tls { cert: dir.path().join("no.crt"), key: path, peer: pin(dir.path(), "source") };
    let error = Credentials::load(&auth, "a").err().expect("no file").to_string();
    assert!(error.contains("no.crt"), "{error}");
}

#[test]
fn ten_thousand_records_arrive_each_as_one_record() {
    let dir = made();
    let (mut from, mut to) = {
        let (d, l) = good(dir.path());
        (d.protect, l.protect)
    };
    let sample: Vec<u8> = (0..MAX_PLAINTEXT).map(|i| u8::try_from(i % 253).expect("fits")).collect();
    let (mut wire, mut input, mut plain) = (Sealed::default(), BytesMut::new(), Plain::default());
    for i in 0..10_000_usize {
        let len = 1 + (i * i * 31) % if i % 50 == 0 { MAX_PLAINTEXT } else { 700 };
        let parts: Vec<_> = sample[..len].chunks(1 + len / (1 + i % 12)).collect();
        from.seal(&parts, &mut wire).expect("fits");
        assert_eq!(wire.len(), HEADER + len + 1 + 16, "{i}");
        let cut = wire.len() / 2;
        input.extend_from_slice(&wire[..cut]);
        assert_eq!(to.open(&mut input, &mut plain).expect("opens"), Opened::More);
        input.extend_from_slice(&wire[cut..]);
        assert_eq!(to.open(&mut input, &mut plain).expect("opens"), Opened::More);
        assert!(plain.concat()[..] == sample[..len], "{i}");
        plain.take();
        wire.clear();
    }
    assert!(from.seal(&[&sample, b"x"], &mut wire).is_err());
    from.seal(&[b"last"], &mut wire).expect("fits");
    from.close(&mut wire);
    assert!(matches!(from.seal(&[b"more"], &mut wire), Err(CarrierError::Closed)));
    input.extend_from_slice(&wire);
    assert_eq!(to.open(&mut input, &mut plain).expect("opens"), Opened::Closed);
    assert_eq!(plain.concat(), b"last"[..]);
}

#[test]
fn a_changed_byte_is_found_and_answered_with_an_alert() {
    let dir = made();
    let (mut from, mut to) = {
        let (d, l) = good(dir.path());
        (d.protect, l.protect)
    };
    let mut wire = Sealed::default();
    from.seal(&[b"good"], &mut wire).expect("fits");
    let good = wire.len();
    from.seal(&[b"record"], &mut wire).expect("fits");
    let mut wire = wire.to_vec();
    wire[good + 7] ^= 1;
    let mut plain = Plain::default();
    let error = to.open(&mut BytesMut::from(&wire[..]), &mut plain).expect_err("it is changed");
    assert!(matches!(error, CarrierError::Corrupt { .. }), "{error}");
    assert_eq!(plain.concat(), b"good"[..]);
    let mut alert = Sealed::default();
    to.pending(&mut alert);
    assert!(!alert.is_empty());
    assert!(from.open(&mut BytesMut::from(&alert[..]), &mut plain).is_err());
}
