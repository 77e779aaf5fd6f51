//! Every mistake of the corpus is reported with its code, place, cause and the nearest valid name, exactly as expected.
//!
//! `tests/corpus/config/*.toml` and `*.sh.txt` are bad files; beside each stands `*.expected`, the text an operator sees.
//! `UPDATE_EXPECTED=1 cargo test --test config_corpus` writes them anew; read the difference before it is committed.

use std::io;
use std::path::{Path, PathBuf};

use proptest::prelude::*;

use linkspan::config::{self, ConfigErrors, Env, Secret, SecretFile, setenv};

/// Files and variables of the corpus: what is called `missing` or `empty` is.
struct CorpusEnv;

impl Env for CorpusEnv {
    fn var(&self, name: &str) -> Option<String> {
        (name == "EMPTY").then(String::new)
    }

    fn secret_file(&self, path: &Path) -> io::Result<SecretFile> {
        self.probe_file(path)?;
        let text = if path.ends_with("empty") { "" } else { "hidden-s3cret" };
        Ok(SecretFile { secret: Secret::new(text.to_owned()), world_readable: false })
    }

    fn probe_file(&self, path: &Path) -> io::Result<()> {
        if path.ends_with("missing") { Err(io::Error::from(io::ErrorKind::NotFound)) } else { Ok(()) }
    }
}

fn corpus(ending: &str) -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/config");
    let mut files: Vec<PathBuf> =
        dir.read_dir().expect("the corpus is there").map(|entry| entry.expect("readable").path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    files
}

fn check(path: &Path, errors: &ConfigErrors) {
    let shown = format!("{errors}\n");
    for secret in ["hunter2", "s3cret"] {
        assert!(
            !shown.contains(secret) && !format!("{errors:?}").contains(secret),
            "{}: a secret shows:\n{shown}",
            path.display()
        );
    }
    assert!(errors.errors.is_sorted_by_key(|e| (e.line, e.column)), "{}", path.display());
    let expected = PathBuf::from(format!("{}.expected", path.display()));
    if std::env::var_os("UPDATE_EXPECTED").is_some() {
        std::fs::write(&expected, &shown).expect("writable");
    }
    let wanted = std::fs::read_to_string(&expected).unwrap_or_default();
    assert_eq!(shown, wanted, "{}", path.display());
}

#[test]
fn every_bad_linkspan_toml_is_explained() {
    let files = corpus(".toml");
    assert!(files.len() >= 100, "{}", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        match config::parse(&text, Path::new("linkspan.toml"), &CorpusEnv) {
            Ok(_) => panic!("{} was taken", path.display()),
            Err(errors) => check(&path, &errors),
        }
    }
}

#[test]
fn every_bad_setenv_sh_is_explained() {
    let files = corpus(".sh.txt");
    assert!(files.len() >= 39, "{}", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        match setenv::parse(&text, Path::new("setenv.sh")) {
            Ok(_) => panic!("{} was taken", path.display()),
            Err(errors) => check(&path, &errors),
        }
    }
}

proptest! {
    /// Whatever a file holds, it is taken or explained; pieces of valid files reach deeper than noise.
    #[test]
    fn no_text_panics(
        noise in any::<String>(),
        (cut, length, at) in (0_usize..600, 0_usize..80, 0_usize..600),
        glue in prop::sample::select(vec!["", "\"", "=", "[", "[[", "{", "'", "$", "${", "\\", "\n", "é", "1e9", "2026-01-01"]),
    ) {
        let toml = include_str!("../examples/destination-dials.toml");
        let shell = setenv::TEMPLATE;
        for text in [toml, shell] {
            let mut chars: Vec<char> = text.chars().collect();
            let from = cut.min(chars.len());
            chars.drain(from..(from + length).min(chars.len()));
            let at = at.min(chars.len());
            chars.splice(at..at, glue.chars());
            let mutated: String = chars.into_iter().collect();
            for text in [&mutated, &noise] {
                if let Err(errors) = config::parse(text, Path::new("f"), &CorpusEnv) {
                    prop_assert!(!errors.errors.is_empty() && !errors.to_string().is_empty());
                }
                if let Err(errors) = setenv::parse(text, Path::new("f")) {
                    prop_assert!(!errors.errors.is_empty() && !errors.to_string().is_empty());
                }
            }
        }
    }
}
