//! The file that keeps names at their addresses over restarts: `names.toml` in the state directory.
//!
//! A whole file replaces the last one in one step, synced before an answer goes out, so that a kill at any moment leaves the old
//! file or the new one. A damaged file is set aside, and what can be read of it is kept.

use std::fmt::{self, Write as _};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::NamesError;

/// Name of the file in the state directory.
const FILE: &str = "names.toml";

/// Largest file that is read: names of 253 bytes for [`super::allocate::MAX_NAMES`] fit four times.
const MAX_FILE: u64 = 8 << 20;

/// The file.
#[derive(Debug, Clone)]
pub(super) struct Store {
    path: PathBuf,
}

/// What a start found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Loaded {
    /// Names with their addresses.
    pub(super) entries: Vec<(String, Ipv4Addr)>,
    /// Where a damaged file was set aside to.
    pub(super) damaged: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    addresses: toml::Table,
}

impl Store {
    /// Opens the state directory, makes it where it is missing, and reads the file, if there is one.
    ///
    /// # Errors
    /// [`NamesError::State`] when directory or file cannot be made, read or set aside.
    pub(super) fn open(state_dir: &Path) -> Result<(Self, Loaded), NamesError> {
        let store = Self { path: state_dir.join(FILE) };
        let failed = |path: &Path, error: io::Error| NamesError::State { path: path.to_owned(), error };
        fs::create_dir_all(state_dir).map_err(|error| failed(state_dir, error))?;
        let mut bytes = Vec::new();
        match fs::File::open(&store.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((store, Loaded::default())),
            Err(error) => return Err(failed(&store.path, error)),
            Ok(file) => file.take(MAX_FILE).read_to_end(&mut bytes).map_err(|error| failed(&store.path, error))?,
        };
        if let Some(entries) = parse(&bytes) {
            return Ok((store, Loaded { entries, damaged: None }));
        }
        let aside = store.aside();
        fs::rename(&store.path, &aside).map_err(|error| failed(&aside, error))?;
        Ok((store, Loaded { entries: salvage(&bytes), damaged: Some(aside) }))
    }

    /// Replaces the file. It is on the disk when this returns.
    ///
    /// # Errors
    /// What the file system says; the old file is then still there.
    pub(super) fn save<N: fmt::Display>(&self, entries: &[(N, Ipv4Addr)]) -> io::Result<()> {
        let mut text = String::from(
            "# Addresses that names of the peer have on this host. Written by linkspan; clients may know them for long,\n\
             # so change nothing here while it runs.\n[addresses]\n",
        );
        for (name, address) in entries {
            // Host names have no character that TOML would want escaped.
            let _ = writeln!(text, "\"{name}\" = \"{address}\"");
        }
        let partial = self.path.with_extension("toml.new");
        let mut file = fs::File::create(&partial)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, &self.path)?;
        // The rename is on the disk when its directory is.
        fs::File::open(self.path.parent().unwrap_or_else(|| Path::new(".")))?.sync_all()
    }

    /// The file's path, for messages.
    #[must_use]
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The first free of `names.toml.damaged`, `names.toml.damaged-2`, …; after a hundred the last is written over.
    fn aside(&self) -> PathBuf {
        let name = |n: u32| match n {
            1 => self.path.with_extension("toml.damaged"),
            n => self.path.with_extension(format!("toml.damaged-{n}")),
        };
        (1..100).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(100))
    }
}

/// All entries, if the file is whole and right.
fn parse(bytes: &[u8]) -> Option<Vec<(String, Ipv4Addr)>> {
    let file: File = toml::from_str(std::str::from_utf8(bytes).ok()?).ok()?;
    let entries =
        file.addresses.into_iter().map(|(name, address)| entry(name, &address)).collect::<Option<Vec<_>>>()?;
    let mut addresses: Vec<_> = entries.iter().map(|&(_, address)| address).collect();
    addresses.sort_unstable();
    addresses.windows(2).all(|pair| pair[0] != pair[1]).then_some(entries)
}

/// The entries of the lines that can be read.
fn salvage(bytes: &[u8]) -> Vec<(String, Ipv4Addr)> {
    let text = String::from_utf8_lossy(bytes);
    let lines = text.lines().filter_map(|line| line.parse::<toml::Table>().ok());
    lines.flatten().filter_map(|(name, address)| entry(name, &address)).collect()
}

fn entry(name: String, address: &toml::Value) -> Option<(String, Ipv4Addr)> {
    let valid = crate::net::HostPort::new(&name, 1).is_ok_and(|parsed| parsed.host() == name && parsed.ip().is_none());
    Some((valid.then_some(name)?, address.as_str()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> Ipv4Addr {
        Ipv4Addr::new(127, 77, 0, last)
    }

    #[test]
    fn what_was_saved_is_read_again_and_the_text_is_plain() {
        let dir = tempfile::tempdir().unwrap();
        let state = dir.path().join("made/here");
        let (store, loaded) = Store::open(&state).unwrap();
        assert_eq!(loaded, Loaded::default());
        store.save(&[("b0.grape.test", ip(1)), ("b1.grape.test", ip(2))]).unwrap();
        let text = fs::read_to_string(state.join("names.toml")).unwrap();
        assert!(
            text.ends_with("[addresses]\n\"b0.grape.test\" = \"127.77.0.1\"\n\"b1.grape.test\" = \"127.77.0.2\"\n")
        );
        let (_, loaded) = Store::open(&state).unwrap();
        assert_eq!(loaded.entries, [("b0.grape.test".to_owned(), ip(1)), ("b1.grape.test".to_owned(), ip(2))]);
        assert_eq!(loaded.damaged, None);
    }

    #[test]
    fn a_kill_in_the_middle_of_writing_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        let (store, _) = Store::open(dir.path()).unwrap();
        store.save(&[("b0.grape.test", ip(1))]).unwrap();
        // What a kill between create and rename leaves, cut anywhere.
        for cut in 0..80 {
            fs::write(dir.path().join("names.toml.new"), vec![b'"'; cut]).unwrap();
            let (_, loaded) = Store::open(dir.path()).unwrap();
            assert_eq!(loaded, Loaded { entries: vec![("b0.grape.test".to_owned(), ip(1))], damaged: None });
        }
        store.save(&[("b0.grape.test", ip(1)), ("b1.grape.test", ip(2))]).unwrap();
        assert_eq!(Store::open(dir.path()).unwrap().1.entries.len(), 2);
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_its_good_lines_are_kept() {
        for damage in [
            "[addresses]\n\"b0.grape.test\" = \"127.77.0.1\"\n\"b1.grape.te",
            "[addresses]\n\"b0.grape.test\" = \"127.77.0.1\"\n\"b0.grape.test\" = \"127.77.0.1x\"\n",
            "[addresses]\n\"b0.grape.test\" = \"127.77.0.1\"\n\"B 1\" = \"127.77.0.2\"\n",
            "[addresses]\n\"b0.grape.test\" = \"127.77.0.1\"\n\u{0}\u{0}\n",
        ] {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("names.toml"), damage).unwrap();
            let (_, loaded) = Store::open(dir.path()).unwrap();
            assert_eq!(loaded.entries, [("b0.grape.test".to_owned(), ip(1))], "{damage:?}");
            let aside = dir.path().join("names.toml.damaged");
            assert_eq!(loaded.damaged.as_deref(), Some(&*aside));
            assert_eq!(fs::read_to_string(aside).unwrap(), damage);
            fs::write(dir.path().join("names.toml"), [0xff, 0xfe]).unwrap();
            let (_, again) = Store::open(dir.path()).unwrap();
            assert_eq!(again.damaged.unwrap().file_name().unwrap(), "names.toml.damaged-2");
        }
    }

    #[test]
    fn a_state_directory_that_cannot_be_is_a_named_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let error = Store::open(&file.join("state")).unwrap_err().to_string();
        assert!(error.contains("file/state"), "{error}");
    }
}
