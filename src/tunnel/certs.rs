//! Certificates for a TLS tunnel: a private CA and one certificate for each endpoint.
//!
//! Keys are made where they are written and are readable by their owner alone; nothing that exists is overwritten unasked.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// The CA signs nothing but the endpoints of one link; its key is needed again at each renewal.
const CA_LIFE: u32 = 3_650;
/// The longest life that common TLS libraries accept for a leaf.
const ENDPOINT_LIFE: u32 = 825;
/// Both hosts' clocks may differ by this.
const CLOCK_SKEW: Duration = Duration::from_secs(60 * 60);

/// Name in the certificate of the endpoint beside the source cluster.
pub const SOURCE: &str = "source.linkspan";
/// Name in the certificate of the endpoint beside the destination cluster.
pub const DESTINATION: &str = "destination.linkspan";

/// A written file, and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub path: PathBuf,
    /// Which host needs it.
    pub goes_to: GoesTo,
    /// What it is, in words.
    pub what: &'static str,
}

/// Which host a file belongs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoesTo {
    /// Both endpoints' hosts.
    Both,
    /// The host beside the source cluster alone.
    Source,
    /// The host beside the destination cluster alone.
    Destination,
    /// Neither: kept offline, for renewals.
    Offline,
}

impl std::fmt::Display for GoesTo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Both => "both VMs",
            Self::Source => "the source VM",
            Self::Destination => "the destination VM",
            Self::Offline => "neither VM; keep it offline",
        })
    }
}

/// Why no certificates were written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CertsError {
    /// Files of these names are there; nothing was written.
    #[error("{} exists already: keys are not overwritten unless forced", .0.iter().map(|p| p.display().to_string()).collect::<Vec<_>>().join(", "))]
    Exists(Vec<PathBuf>),
    /// A file cannot be written.
    #[error("{}: {source}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key or certificate could not be made.
    #[error("a certificate could not be made: {0}")]
    Make(#[from] rcgen::Error),
}

/// Makes a CA (10 years) and the certificates of both endpoints (825 days, for client and server) in `dir`, which is created
/// when missing: `ca.crt, ca.key, source.crt, source.key, destination.crt, destination.key`. Keys have mode 0600.
///
/// # Errors
/// [`CertsError::Exists`] without `force` when any of the files is there. With `force` all are replaced, each in one step.
pub fn generate(dir: &Path, force: bool) -> Result<Vec<Written>, CertsError> {
    let now = SystemTime::now();
    let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let ca = CertifiedIssuer::self_signed(ca_params(&key, now), key)?;
    let mut files = vec![
        ("ca.crt", GoesTo::Both, "CA that both endpoints trust", ca.pem()),
        ("ca.key", GoesTo::Offline, "key of the CA", ca.key().serialize_pem()),
    ];
    for (name, goes_to, certificate, key) in [
        (SOURCE, GoesTo::Source, "source.crt", "source.key"),
        (DESTINATION, GoesTo::Destination, "destination.crt", "destination.key"),
    ] {
        let pair = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let signed = endpoint_params(name, now)?.signed_by(&pair, &ca)?;
        files.push((certificate, goes_to, "certificate of the endpoint", signed.pem()));
        files.push((key, goes_to, "key of the endpoint", pair.serialize_pem()));
    }
    std::fs::create_dir_all(dir).map_err(|source| CertsError::Io { path: dir.to_owned(), source })?;
    let there: Vec<_> = files.iter().map(|(file, ..)| dir.join(file)).filter(|path| path.exists()).collect();
    if !force && !there.is_empty() {
        return Err(CertsError::Exists(there));
    }
    let mut written = Vec::with_capacity(files.len());
    for (file, goes_to, what, pem) in files {
        let path = dir.join(file);
        let mode = if file.ends_with(".key") { 0o600 } else { 0o644 };
        write(&path, &pem, mode, force).map_err(|source| CertsError::Io { path: path.clone(), source })?;
        written.push(Written { path, goes_to, what });
    }
    Ok(written)
}

/// A key is never readable by others, not even for a moment. An old one is replaced in one step; a new one never replaces what
/// came into being meanwhile.
fn write(path: &Path, text: &str, mode: u32, force: bool) -> io::Result<()> {
    let beside = if force { beside(path) } else { path.to_owned() };
    if force {
        // What a run that was killed left behind.
        match std::fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    if force { std::fs::rename(&beside, path) } else { Ok(()) }
}

/// `source.key.new` for `source.key`: no two files share one.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn ca_params(key: &KeyPair, now: SystemTime) -> CertificateParams {
    // Each CA has a name of its own: a certificate of another one is then told as that, not as a bad signature.
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key.public_key_raw());
    let name =
        digest.as_ref().iter().take(4).fold("linkspan tunnel CA ".to_owned(), |name, byte| format!("{name}{byte:02x}"));
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + DAY * CA_LIFE).into();
    params
}

fn endpoint_params(name: &str, now: SystemTime) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new([name.to_owned()])?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.not_before = (now - CLOCK_SKEW).into();
    params.not_after = (now + DAY * ENDPOINT_LIFE).into();
    Ok(params)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use x509_parser::pem::parse_x509_pem;

    use super::*;

    #[test]
    fn writes_six_files_with_their_modes_and_lives() {
        let dir = tempfile::tempdir().expect("a directory");
        let certs = dir.path().join("certs");
        let written = generate(&certs, false).expect("written");
        let listed: Vec<_> = written
            .iter()
            .map(|w| {
                let mode = std::fs::metadata(&w.path).expect("there").permissions().mode() & 0o777;
                (w.path.file_name().and_then(|n| n.to_str()).expect("a name"), w.goes_to, mode)
            })
            .collect();
        assert_eq!(
            listed,
            [
                ("ca.crt", GoesTo::Both, 0o644),
                ("ca.key", GoesTo::Offline, 0o600),
                ("source.crt", GoesTo::Source, 0o644),
                ("source.key", GoesTo::Source, 0o600),
                ("destination.crt", GoesTo::Destination, 0o644),
                ("destination.key", GoesTo::Destination, 0o600),
            ]
        );
        assert_eq!(std::fs::read_dir(&certs).expect("there").count(), 6);
        for (file, name, days) in
            [("ca.crt", None, 3_650), ("source.crt", Some(SOURCE), 825), ("destination.crt", Some(DESTINATION), 825)]
        {
            let pem = parse_x509_pem(&std::fs::read(certs.join(file)).expect("there")).expect("PEM").1;
            let parsed = pem.parse_x509().expect("X.509");
            let life = parsed.validity().not_after.timestamp() - parsed.validity().not_before.timestamp();
            assert_eq!(life, days * 86_400 + 3_600, "{file}");
            assert_eq!(parsed.is_ca(), name.is_none());
            let names = parsed
                .subject_alternative_name()
                .expect("well formed")
                .map(|san| san.value.general_names.iter().map(ToString::to_string).collect::<Vec<_>>());
            assert_eq!(names, name.map(|n| vec![format!("DNSName({n})")]));
        }
    }

    #[test]
    fn overwrites_only_when_forced() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("source.key"), "precious").expect("written");
        match generate(dir.path(), false) {
            Err(CertsError::Exists(there)) => assert_eq!(there, [dir.path().join("source.key")]),
            other => panic!("{other:?}"),
        }
        assert_eq!(std::fs::read_dir(dir.path()).expect("there").count(), 1);
        assert_eq!(std::fs::read(dir.path().join("source.key")).expect("there"), b"precious");
        generate(dir.path(), true).expect("written");
        let key = std::fs::read_to_string(dir.path().join("source.key")).expect("there");
        assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
        let mode = std::fs::metadata(dir.path().join("source.key")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
