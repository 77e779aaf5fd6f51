//! Credentials that change under a tunnel that carries streams: who is trusted no more is cut off, everybody else stays.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::tests::{End, SECRET, pair_by, real_pair, state, stream};
use super::*;
use crate::config::{Secret, TlsPeer};
use crate::net::BoxStream;
use crate::tunnel::certs;

/// Longest time in which what is no longer allowed must be cut.
const CUT: Duration = Duration::from_secs(1);

fn secret(text: &str) -> TunnelAuth {
    TunnelAuth::Noise { secret: Secret::new(text.to_owned()) }
}

/// Puts credentials into effect; how many carriers that closed.
fn set(end: &End, auth: &TunnelAuth) -> usize {
    end.endpoint.set_auth(end.endpoint.read_auth(auth).unwrap())
}

/// Certificates of a new CA.
fn made() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    certs::generate(dir.path(), false).unwrap();
    dir
}

fn tls(dir: &Path, side: &str, peer: TlsPeer) -> TunnelAuth {
    TunnelAuth::Tls { cert: dir.join(format!("{side}.crt")), key: dir.join(format!("{side}.key")), peer }
}

fn by_ca(ca: &Path, name: &str) -> TlsPeer {
    TlsPeer::Ca { ca: ca.to_path_buf(), name: name.to_owned() }
}

fn pin(dir: &Path, side: &str) -> TlsPeer {
    let der = CertificateDer::from_pem_file(dir.join(format!("{side}.crt"))).unwrap();
    TlsPeer::Pin(digest(&SHA256, &der).as_ref().try_into().unwrap())
}

async fn carries(near: &mut BoxStream, far: &mut BoxStream) {
    for (from, to) in [(0, 1), (1, 0)] {
        let ends = [&mut *near, &mut *far];
        ends[from].write_all(b"alive").await.unwrap();
        let mut got = [0; 5];
        ends[to].read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"alive");
    }
}

/// Both ends see a reset, and soon.
async fn cut(near: &mut BoxStream, far: &mut BoxStream, since: Instant) {
    for end in [near, far] {
        let error = tokio::time::timeout(CUT, end.read_u8()).await.expect("cut within a second").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    assert!(since.elapsed() <= CUT, "{:?}", since.elapsed());
}

#[tokio::test]
async fn another_secret_cuts_off_whoever_has_the_old_one() {
    let (dialler, mut listener) = real_pair().await;
    let (mut near, mut far) = stream(&dialler, &mut listener).await;
    carries(&mut near, &mut far).await;
    // The same secret again is no change.
    assert_eq!(set(&listener, &secret(SECRET)), 0);
    carries(&mut near, &mut far).await;

    let new = "Zq8wM3nB6vC1xK9jH4gF7dS2aP5oI0uY";
    let since = Instant::now();
    assert!(set(&listener, &secret(new)) >= 1);
    cut(&mut near, &mut far, since).await;
    let status = listener.endpoint.status();
    assert_eq!((status.state, status.streams_lost), (TunnelState::Down, 1));
    assert!(status.last_error.unwrap().contains("no longer trusted"));

    // The dialler learns the new one, and comes in again by itself.
    set(&dialler, &secret(new));
    let (mut near, mut far) = stream(&dialler, &mut listener).await;
    carries(&mut near, &mut far).await;
    assert_eq!(listener.endpoint.status().sessions, 2);
}

#[tokio::test]
async fn a_session_that_is_parked_cannot_be_taken_up_by_the_old_secret() {
    let (dialler, mut listener) = real_pair().await;
    let (_near, mut far) = stream(&dialler, &mut listener).await;
    // The dialler's own change closes its carriers first; the listener only parks.
    let wrong = "Zq8wM3nB6vC1xK9jH4gF7dS2aP5oI0uY";
    set(&dialler, &secret(wrong));
    let parked = |state: &TunnelState| matches!(state, TunnelState::Parked | TunnelState::Down);
    listener.endpoint.changed().wait_for(parked).await.unwrap();
    set(&listener, &secret("mY7tR2wE5qA8sD1fG4hJ9kL3zX6cV0bN"));
    let error = far.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    state(&listener, TunnelState::Down).await;
}

#[tokio::test]
async fn certificates_and_cas_may_be_renewed_under_streams() {
    let (old, new) = (made(), made());
    let listening = |ca: &Path, dir: &Path| tls(dir, "destination", by_ca(ca, certs::SOURCE));
    let dialling = |ca: &Path, dir: &Path| tls(dir, "source", by_ca(ca, certs::DESTINATION));
    let (old_ca, new_ca) = (old.path().join("ca.crt"), new.path().join("ca.crt"));
    let (dialler, mut listener) = pair_by(listening(&old_ca, old.path()), dialling(&old_ca, old.path())).await;
    let (mut near, mut far) = stream(&dialler, &mut listener).await;

    // Both CAs for a while, then the listener's new certificate: nobody notices.
    let both = old.path().join("both.crt");
    let bundle = [&old_ca, &new_ca].map(|ca| std::fs::read_to_string(ca).unwrap()).concat();
    std::fs::write(&both, bundle).unwrap();
    assert_eq!(set(&listener, &listening(&both, old.path())), 0);
    assert_eq!(set(&dialler, &dialling(&both, old.path())), 0);
    assert_eq!(set(&listener, &listening(&both, new.path())), 0);
    carries(&mut near, &mut far).await;
    assert_eq!(listener.endpoint.status().sessions, 1);

    // The old CA goes while the dialler still has its certificate.
    let since = Instant::now();
    assert!(set(&listener, &listening(&new_ca, new.path())) >= 1);
    cut(&mut near, &mut far, since).await;
    set(&dialler, &dialling(&new_ca, new.path()));
    let (mut near, mut far) = stream(&dialler, &mut listener).await;
    carries(&mut near, &mut far).await;
}

#[tokio::test]
async fn another_pin_or_name_cuts_off_and_a_bad_file_changes_nothing() {
    let dir = made();
    let (mine, theirs) = (dir.path(), made());
    let listening = |peer| tls(mine, "destination", peer);
    let dialling = tls(mine, "source", pin(mine, "destination"));
    let (dialler, mut listener) = pair_by(listening(pin(mine, "source")), dialling).await;
    let (mut near, mut far) = stream(&dialler, &mut listener).await;

    let broken = TunnelAuth::Tls { cert: mine.join("none.crt"), key: mine.join("none.key"), peer: pin(mine, "source") };
    let error = listener.endpoint.read_auth(&broken).unwrap_err().to_string();
    assert!(error.contains("none.crt"), "{error}");
    carries(&mut near, &mut far).await;

    // By CA and name it is the same peer.
    assert_eq!(set(&listener, &listening(by_ca(&mine.join("ca.crt"), certs::SOURCE))), 0);
    carries(&mut near, &mut far).await;
    let since = Instant::now();
    assert!(set(&listener, &listening(pin(theirs.path(), "source"))) >= 1);
    cut(&mut near, &mut far, since).await;
    let end: &End = &listener;
    assert_eq!(end.endpoint.status().streams_lost, 1);
}
