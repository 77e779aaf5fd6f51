//! What the loader asks of the world: variables and files. Injected, so that tests and renderers answer themselves.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use super::Secret;

/// Variables and files.
pub trait Env {
    /// The value of an environment variable, if it is set and is UTF-8.
    fn var(&self, name: &str) -> Option<String>;

    /// Reads a secret file of at most 64 KiB and says whether others on this host may read it too.
    ///
    /// # Errors
    /// Those of the file system; [`io::ErrorKind::InvalidData`] for more than 64 KiB or what is no UTF-8.
    fn secret_file(&self, path: &Path) -> io::Result<SecretFile> {
        read_secret(path)
    }

    /// Whether there is a readable file, for certificates and CAs.
    ///
    /// # Errors
    /// Those of the file system.
    fn probe_file(&self, path: &Path) -> io::Result<()> {
        if std::fs::File::open(path)?.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        Ok(())
    }
}

/// What a secret file held.
#[derive(Debug)]
pub struct SecretFile {
    /// The text without its trailing line ends.
    pub secret: Secret,
    /// Whether its mode lets everyone on this host read it.
    pub world_readable: bool,
}

/// The process's own environment and files.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProcessEnv;

impl Env for ProcessEnv {
    fn var(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Variables from a map, files from the disk.
#[derive(Debug, Clone, Default)]
pub struct MapEnv(pub BTreeMap<String, String>);

impl Env for MapEnv {
    fn var(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }
}

/// For commands that show what a file says and use no secret (`firewall`, `config show`): every secret counts as given and
/// every file as there. A configuration loaded this way must not be run: its secrets are not the operator's.
#[derive(Debug, Clone, Copy, Default)]
pub struct WithoutSecrets;

impl Env for WithoutSecrets {
    fn var(&self, name: &str) -> Option<String> {
        // Overrides stay away, so that only what the file names is asked for.
        (!name.starts_with("LINKSPAN_")).then(|| UNREAD.to_owned())
    }

    fn secret_file(&self, _path: &Path) -> io::Result<SecretFile> {
        Ok(SecretFile { secret: Secret::new(UNREAD.to_owned()), world_readable: false })
    }

    fn probe_file(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// Long enough for every secret that must have a length.
const UNREAD: &str = "not-read-not-read-not-read-not-read-not-read";

/// Passwords and keys are short; more is the wrong file.
const MAX_SECRET_FILE: u64 = 64 * 1024;

fn read_secret(path: &Path) -> io::Result<SecretFile> {
    use std::io::Read as _;

    let file = std::fs::File::open(path)?;
    let meta = file.metadata()?;
    if meta.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    let mut bytes = Vec::new();
    file.take(MAX_SECRET_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_SECRET_FILE {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "more than 64 KiB"));
    }
    let text = String::from_utf8(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "no UTF-8 text"))?;
    Ok(SecretFile {
        secret: Secret::new(text.trim_end_matches(['\n', '\r']).to_owned()),
        world_readable: is_world_readable(&meta),
    })
}

#[cfg(unix)]
fn is_world_readable(meta: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    meta.permissions().mode() & 0o004 != 0
}

#[cfg(not(unix))]
fn is_world_readable(_meta: &std::fs::Metadata) -> bool {
    false
}
