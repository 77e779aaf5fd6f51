//! The short form of `bin/fuzz`: every target over its seeds, over inputs made of them, and over random bytes; always the same ones.

#[path = "../fuzz/src/session.rs"]
mod session;
#[path = "../fuzz/src/targets.rs"]
#[allow(dead_code, reason = "memory is counted under libFuzzer only")]
mod targets;

use std::path::Path;

use targets::{TARGETS, Target};

/// Inputs of each target besides its seeds.
const INPUTS: u64 = 300;

struct Random(u64);

impl Random {
    fn below(&mut self, most: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % most
    }
}

fn seeds(name: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus-seeds").join(name);
    let Ok(entries) = dir.read_dir() else { return Vec::new() };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("readable")).collect()
}

/// A seed with a few bytes changed, taken out, put in or repeated; or random bytes.
fn input(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = match seeds.len() {
        0 => Vec::new(),
        len => seeds[random.below(len)].clone(),
    };
    if bytes.is_empty() || random.below(8) == 0 {
        return (0..random.below(300)).map(|_| random.below(256) as u8).collect();
    }
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let run = 1 + random.below(8.min(bytes.len() - at));
        match random.below(5) {
            0 => bytes[at] ^= 1 << random.below(8),
            1 => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
            2 if bytes.len() > run => drop(bytes.drain(at..at + run)),
            3 => drop(bytes.splice(at..at, (0..run).map(|_| random.below(256) as u8).collect::<Vec<_>>())),
            _ => drop(bytes.splice(at..at, bytes[at..at + run].to_vec())),
        }
    }
    bytes
}

fn run(target: &Target) {
    let seeds = seeds(target.name);
    seeds.iter().for_each(|seed| (target.run)(seed));
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for _ in 0..INPUTS {
        let bytes = input(&seeds, &mut random);
        let outcome = std::panic::catch_unwind(|| (target.run)(&bytes));
        assert!(outcome.is_ok(), "{} fails on {bytes:02x?}", target.name);
    }
}

#[test]
fn no_target_finds_anything_in_its_seeds_and_some_hundred_inputs_of_each() {
    std::thread::scope(|scope| {
        let runs: Vec<_> = TARGETS.iter().map(|target| scope.spawn(|| run(target))).collect();
        runs.into_iter().for_each(|run| run.join().expect("no finding"));
    });
}

#[test]
fn every_target_has_seeds_and_all_seeds_a_target() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus-seeds");
    let mut dirs: Vec<_> = dir.read_dir().expect("seeds").map(|entry| entry.expect("readable").file_name()).collect();
    let mut names: Vec<_> = TARGETS.iter().map(|target| target.name).collect();
    dirs.sort();
    names.sort_unstable();
    assert_eq!(dirs, names);
}
