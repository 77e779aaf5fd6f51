//! Puts rendered files into a directory: all or nothing where something else is in the way, each file atomically.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::render::{Content, FileEntry, Files};

/// What became of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WrittenFile {
    /// Where it is.
    pub path: PathBuf,
    /// What was done, or would be.
    pub action: Action,
    /// Whether it holds a secret.
    pub secret: bool,
}

/// What is done with one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was not there.
    Created,
    /// It was there and is the same.
    Unchanged,
    /// It was there with other content.
    Replaced,
}

/// Why files were not written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// Files with other content are there, and the operator did not say that they may go. Nothing was written.
    #[error("not overwritten without --force, because they differ: {}", list(.0))]
    Differ(Vec<PathBuf>),
    /// The file system said no.
    #[error("{path} cannot be written: {source}", path = .path.display())]
    Io {
        /// Which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Files {
    /// What [`Files::write`] would do in `dir`; writes nothing.
    ///
    /// # Errors
    /// [`WriteError::Io`] where a file that is there cannot be read.
    pub fn changes(&self, dir: &Path) -> Result<Vec<WrittenFile>, WriteError> {
        self.entries.iter().map(|entry| change(dir, entry)).collect()
    }

    /// Writes the files into `dir`, which is created when missing. Secrets get mode 0600 in a directory of mode 0700. Run by
    /// root, they are given to the user that the container runs as.
    ///
    /// # Errors
    /// [`WriteError::Differ`] before anything is written, where `force` is not set; [`WriteError::Io`].
    pub fn write(&self, dir: &Path, force: bool) -> Result<Vec<WrittenFile>, WriteError> {
        let changes = self.changes(dir)?;
        let differ: Vec<PathBuf> =
            changes.iter().filter(|file| file.action == Action::Replaced).map(|file| file.path.clone()).collect();
        if !force && !differ.is_empty() {
            return Err(WriteError::Differ(differ));
        }
        make_dir(dir, false)?;
        for (entry, change) in self.entries.iter().zip(&changes) {
            if let Some(parent) = change.path.parent().filter(|parent| *parent != dir) {
                make_dir(parent, change.secret)?;
            }
            let error = |source| WriteError::Io { path: change.path.clone(), source };
            if change.action != Action::Unchanged {
                put(&change.path, entry).map_err(error)?;
            } else if change.secret {
                // A secret that was opened to all is closed again.
                restrict(&change.path, entry.content.mode()).map_err(error)?;
            }
        }
        Ok(changes)
    }
}

fn change(dir: &Path, entry: &FileEntry) -> Result<WrittenFile, WriteError> {
    let path = dir.join(&entry.path);
    let action = match fs::read(&path) {
        Ok(there) if there == bytes(entry) => Action::Unchanged,
        Ok(_) => Action::Replaced,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Action::Created,
        Err(source) => return Err(WriteError::Io { path, source }),
    };
    Ok(WrittenFile { path, action, secret: matches!(entry.content, Content::Secret(_)) })
}

fn make_dir(dir: &Path, secret: bool) -> Result<(), WriteError> {
    let error = |source| WriteError::Io { path: dir.to_path_buf(), source };
    fs::create_dir_all(dir).map_err(error)?;
    if secret {
        restrict(dir, 0o700).map_err(error)?;
    }
    if secret {
        hand_over(dir);
    }
    Ok(())
}

/// Written beside and renamed into place, so that a reader sees the old file or the new one.
fn put(path: &Path, entry: &FileEntry) -> io::Result<()> {
    let content = &entry.content;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let beside = path.with_file_name(format!(".{name}.new"));
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, content.mode());
    let mut file = options.open(&beside)?;
    file.write_all(&bytes(entry))?;
    file.sync_all()?;
    restrict(&beside, content.mode())?;
    if matches!(content, Content::Secret(_)) {
        hand_over(&beside);
    }
    fs::rename(&beside, path)
}

/// The content, and for compose's `.env` also the user that the container must run as to read the secrets.
fn bytes(entry: &FileEntry) -> Vec<u8> {
    let mut bytes = entry.content.bytes();
    if entry.path == Path::new(".env")
        && let Some((user, group)) = container_user()
    {
        bytes.extend_from_slice(format!("LINKSPAN_UID={user}\nLINKSPAN_GID={group}\n").as_bytes());
    }
    bytes
}

/// The image's own user; root's files are given to it.
#[cfg(unix)]
const NONROOT: u32 = 65_532;

/// Who runs this, as the owner of its entry in /proc; root becomes the image's own user.
#[cfg(unix)]
fn container_user() -> Option<(u32, u32)> {
    use std::os::unix::fs::MetadataExt as _;
    let meta = fs::metadata("/proc/self").ok()?;
    Some(if meta.uid() == 0 { (NONROOT, NONROOT) } else { (meta.uid(), meta.gid()) })
}

#[cfg(not(unix))]
fn container_user() -> Option<(u32, u32)> {
    None
}

/// Root's files go to the container's user. Where that cannot be (a user namespace without it), root reads them itself.
#[cfg(unix)]
fn hand_over(path: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    if fs::metadata(path).is_ok_and(|meta| meta.uid() == 0) {
        let _ = std::os::unix::fs::chown(path, Some(NONROOT), Some(NONROOT));
    }
}

#[cfg(not(unix))]
fn hand_over(_path: &Path) {}

#[cfg(unix)]
fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn restrict(_path: &Path, _mode: u32) -> io::Result<()> {
    Ok(())
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}
