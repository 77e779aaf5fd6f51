//! Tells when the configuration, or a file that it names, has other contents than before.
//!
//! Directories are watched, not files: editors and Kubernetes put a new file in the old one's place. What counts is the
//! contents, so that a neighbour's file, or the same text written again, is no change.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

use crate::config::{Env, ProcessEnv, SecretFile};

/// Files that are written one after another are one change.
const SETTLE: Duration = Duration::from_millis(100);
/// More than this of a file is not looked at; the loader reads no more either.
const MOST: u64 = 2 << 20;

/// The process's environment, which remembers the files that were asked for.
#[derive(Debug, Default)]
pub(crate) struct Noting(RefCell<BTreeSet<PathBuf>>);

impl Noting {
    /// The files.
    pub(crate) fn files(self) -> BTreeSet<PathBuf> {
        self.0.into_inner()
    }
}

impl Env for Noting {
    fn var(&self, name: &str) -> Option<String> {
        ProcessEnv.var(name)
    }

    fn secret_file(&self, path: &Path) -> io::Result<SecretFile> {
        self.0.borrow_mut().insert(path.to_path_buf());
        ProcessEnv.secret_file(path)
    }

    fn probe_file(&self, path: &Path) -> io::Result<()> {
        self.0.borrow_mut().insert(path.to_path_buf());
        ProcessEnv.probe_file(path)
    }
}

/// A watch over some files.
pub(crate) struct Watch {
    files: BTreeSet<PathBuf>,
    seen: [u8; 32],
    events: mpsc::Receiver<()>,
    /// Ends the events when it goes.
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Begins to watch `files`, as they are now.
    ///
    /// # Errors
    /// The system has no more watches, or none of the directories can be read.
    pub(crate) fn new(files: BTreeSet<PathBuf>) -> Result<Self, notify::Error> {
        // One place: that something happened is all there is to say.
        let (sender, events) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        })?;
        let directories: BTreeSet<PathBuf> = files.iter().map(|file| directory(file)).collect();
        let mut watched = directories.iter().map(|directory| watcher.watch(directory, RecursiveMode::NonRecursive));
        let first = watched.next().unwrap_or(Ok(()));
        if watched.fold(first, |all, one| all.or(one)).is_err() {
            return Err(notify::Error::generic("no directory of the configuration can be watched"));
        }
        let seen = digest(&files);
        Ok(Self { files, seen, events, _watcher: watcher })
    }

    /// Whether these are the files that are watched: a change since they were last looked at is not lost then.
    pub(crate) fn is_over(&self, files: &BTreeSet<PathBuf>) -> bool {
        self.files == *files
    }

    /// Resolves when the contents are others than at the last time. Cancel safe.
    pub(crate) async fn changed(&mut self) {
        while self.events.recv().await.is_some() {
            tokio::time::sleep(SETTLE).await;
            let _ = self.events.try_recv();
            let files = self.files.clone();
            // Files may be slow.
            let Ok(now) = tokio::task::spawn_blocking(move || digest(&files)).await else { continue };
            if std::mem::replace(&mut self.seen, now) != now {
                return;
            }
        }
        std::future::pending().await
    }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if parent != Path::new("") => parent.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// Over all contents; a file that cannot be read is another content than any.
fn digest(files: &BTreeSet<PathBuf>) -> [u8; 32] {
    use std::io::Read as _;

    let mut context = Context::new(&SHA256);
    for file in files {
        let mut bytes = zeroize::Zeroizing::new(Vec::new());
        let read = std::fs::File::open(file).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
        context.update(&[u8::from(read.is_ok())]);
        context.update(&(bytes.len() as u64).to_le_bytes());
        context.update(&bytes);
    }
    context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn other_contents_are_a_change_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("linkspan.toml"), dir.path().join("secret"));
        std::fs::write(&first, "a").unwrap();
        std::fs::write(&second, "b").unwrap();
        let mut watch = Watch::new(BTreeSet::from([first.clone(), second.clone()])).unwrap();
        std::fs::write(dir.path().join("neighbour"), "c").unwrap();
        std::fs::write(&first, "a").unwrap();
        let quiet = tokio::time::timeout(Duration::from_millis(500), watch.changed()).await;
        assert!(quiet.is_err(), "the same contents are no change");
        // As an editor does, and as Kubernetes does.
        for (at, text) in [(&first, "new"), (&second, "other")] {
            let beside = dir.path().join("beside");
            std::fs::write(&beside, text).unwrap();
            std::fs::rename(&beside, at).unwrap();
            tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.expect("seen");
        }
        let (data, moved) = (dir.path().join("v1"), dir.path().join("v2"));
        for (version, text) in [(&data, "one"), (&moved, "two")] {
            std::fs::create_dir(version).unwrap();
            std::fs::write(version.join("secret"), text).unwrap();
        }
        let link = dir.path().join("..data");
        std::os::unix::fs::symlink(&data, &link).unwrap();
        let mut watch = Watch::new(BTreeSet::from([dir.path().join("..data").join("secret"), first.clone()])).unwrap();
        let swap = dir.path().join("..data_tmp");
        std::os::unix::fs::symlink(&moved, &swap).unwrap();
        std::fs::rename(&swap, &link).unwrap();
        tokio::time::timeout(Duration::from_secs(10), watch.changed()).await.expect("seen");
    }
}
