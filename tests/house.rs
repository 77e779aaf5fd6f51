//! The walls of the house (ARCHITECTURE.md): who may use whom, what pure rooms may touch, and how large a file may grow.

use std::fs;
use std::path::{Path, PathBuf};

/// Room, and the rooms it may name. `lifecycle`, `config` and `net` are listed where they may be used.
const ALLOWED: &[(&str, &[&str])] = &[
    ("cli", &["config", "link", "control", "lifecycle", "tunnel", "net", "sasl"]),
    ("link", &["config", "control", "lifecycle", "net", "tunnel", "proxy", "client", "kafka", "replicator"]),
    ("control", &["config", "lifecycle", "net"]),
    ("proxy", &["config", "kafka", "net", "lifecycle", "sasl"]),
    ("replicator", &["config", "client", "kafka", "net", "lifecycle"]),
    ("client", &["config", "kafka", "net", "lifecycle", "sasl"]),
    ("sasl", &["config", "net", "lifecycle"]),
    ("tunnel", &["config", "net", "lifecycle"]),
    ("net", &["config", "lifecycle"]),
    ("config", &["net", "kafka"]),
    ("kafka", &[]),
    ("lifecycle", &[]),
];

/// Rooms without time, sockets, files or tasks.
const PURE: &[&str] = &["tunnel/session", "kafka", "proxy/rewrite", "replicator/decide"];

/// Lines of one file before its tests.
const HARD_STOP: usize = 800;

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src can be read") {
        let path = entry.expect("src can be read").path();
        if path.is_dir() {
            sources(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// (path below src with `/`, text) of every source file.
fn all() -> Vec<(String, String)> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    files
        .into_iter()
        .map(|path| {
            let name = path.strip_prefix(&src).expect("below src").to_string_lossy().into_owned();
            (name, fs::read_to_string(&path).expect("source is UTF-8"))
        })
        .collect()
}

/// Lines that are code and stand before the tests of the file.
fn production(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"))
        .filter(|line| !line.trim_start().starts_with("//"))
}

/// Whether a file holds nothing but tests, simulations and fakes for them.
fn is_test_file(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|file| {
        file.starts_with("test")
            || file == "sim.rs"
            || file == "fake.rs"
            || file.ends_with("_test.rs")
            || file.ends_with("_tests.rs")
    }) || name.contains("/tests/")
        || name.contains("/sim/")
}

#[test]
fn rooms_use_only_their_neighbours() {
    let mut wrong = Vec::new();
    for (name, text) in all() {
        let Some((room, allowed)) = ALLOWED.iter().find(|(room, _)| name.starts_with(&format!("{room}/"))) else {
            continue;
        };
        for line in production(&text) {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                let is_room = ALLOWED.iter().any(|(other, _)| *other == used);
                if is_room && used != *room && !allowed.contains(&used.as_str()) {
                    wrong.push(format!("{name}: {room} uses {used}: {}", line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "walls broken:\n{}", wrong.join("\n"));
}

#[test]
fn pure_rooms_hold_no_runtime() {
    let mut wrong = Vec::new();
    for (name, text) in all() {
        if is_test_file(&name) || !PURE.iter().any(|room| name.starts_with(&format!("{room}/"))) {
            continue;
        }
        for line in production(&text) {
            if ["tokio", "std::net::", "std::fs", "std::thread", "socket2", "tracing::"]
                .iter()
                .any(|word| line.contains(word))
            {
                wrong.push(format!("{name}: {}", line.trim()));
            }
        }
    }
    for room in PURE {
        let module = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(room).join("mod.rs"))
            .expect(room);
        if !module.contains("#![deny(clippy::disallowed_methods, clippy::disallowed_types)]") {
            wrong.push(format!("{room}/mod.rs does not deny what pure rooms may not use"));
        }
    }
    assert!(wrong.is_empty(), "not pure:\n{}", wrong.join("\n"));
}

#[test]
fn files_have_one_subject() {
    let mut sizes: Vec<(usize, String)> = all()
        .into_iter()
        .filter(|(name, _)| !is_test_file(name))
        .map(|(name, text)| (production(&text).count(), name))
        .collect();
    sizes.sort_unstable();
    let at = |share: usize| sizes[(sizes.len() - 1) * share / 100].0;
    let long: Vec<_> = sizes.iter().filter(|(lines, _)| *lines > HARD_STOP).collect();
    assert!(long.is_empty(), "over {HARD_STOP} lines: {long:?}");
    assert!(at(50) <= 250 && at(90) <= 550, "median {} (250 at most), p90 {} (550 at most)", at(50), at(90));
}

#[test]
fn tests_that_documents_name_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/compare.md")).expect("docs/compare.md can be read");
    let named: Vec<_> = text.split('`').filter_map(|span| span.split_once(".rs: ")).collect();
    assert!(named.len() > 20, "{} tests are named: has the form changed?", named.len());
    let missing: Vec<_> = named
        .iter()
        .filter(|(file, test)| {
            let source = fs::read_to_string(root.join(format!("{file}.rs"))).unwrap_or_default();
            !source.contains(&format!("fn {test}("))
        })
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}
