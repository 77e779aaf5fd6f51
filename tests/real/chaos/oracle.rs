//! Source and copy, record by record, as a client that knows nothing of linkspan reads them.

use std::collections::HashMap;
use std::path::Path;

/// A record's offset, and a hash of its time, key, value and headers.
pub type Seen = (i64, u64);

/// One partition of source and copy.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Records of the source that the copy does not have.
    pub lost: u64,
    /// Records that the copy has more often than the source.
    pub repeated: u64,
    /// Where they differ first: the source's record and the copy's, as far as there is one.
    pub first: Option<(Option<Seen>, Option<Seen>)>,
    /// Where the copy has a record once more, the first few: where at the source, where before, where again.
    pub again: Vec<(Option<i64>, Option<i64>, i64)>,
    /// Where at the source the first few lost ones are.
    pub gone: Vec<i64>,
}

impl Difference {
    /// Nothing lost, nothing repeated, nothing moved.
    pub const fn is_none(&self) -> bool {
        self.first.is_none()
    }
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Some((source, copy)) = self.first else { return f.write_str("the same") };
        let at =
            |seen: Option<Seen>| seen.map_or_else(|| "its end".to_owned(), |(offset, _)| format!("offset {offset}"));
        write!(f, "{} lost, {} repeated, ", self.lost, self.repeated)?;
        if self.lost + self.repeated == 0 {
            f.write_str("order is not kept, ")?;
        }
        write!(f, "first at the source's {} and the copy's {}", at(source), at(copy))?;
        if !self.gone.is_empty() {
            write!(f, "; lost at the source's offsets {:?}", self.gone)?;
        }
        for (source, before, again) in &self.again {
            let words = |at: &Option<i64>| at.map_or_else(|| "never".to_owned(), |at| at.to_string());
            write!(f, "; source {} at the copy {} and again {again}", words(source), words(before))?;
        }
        Ok(())
    }
}

/// Reads what `chaos.py dump` wrote of a partition.
pub fn read(file: &Path) -> Vec<Seen> {
    let bytes = std::fs::read(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    assert_eq!(bytes.len() % 16, 0, "{} is whole", file.display());
    let word = |bytes: &[u8]| u64::from_le_bytes(*bytes.first_chunk().expect("8 bytes"));
    bytes.chunks_exact(16).map(|one| (word(one).swap_bytes().cast_signed(), word(&one[8..]))).collect()
}

/// Places named of one kind at most.
const NAMED: usize = 5;

/// Compares a partition with its copy. Records are unlike each other, so that each has one place.
pub fn compare(source: &[Seen], copy: &[Seen]) -> Difference {
    let same = source.iter().zip(copy).take_while(|(one, other)| one.1 == other.1).count();
    if same == source.len() && same == copy.len() {
        return Difference::default();
    }
    let mut out =
        Difference { first: Some((source.get(same).copied(), copy.get(same).copied())), ..Difference::default() };
    let places: HashMap<u64, i64> = source.iter().map(|&(offset, hash)| (hash, offset)).collect();
    let mut left: HashMap<u64, i64> = HashMap::new();
    for (_, hash) in source {
        *left.entry(*hash).or_default() += 1;
    }
    let mut first: HashMap<u64, i64> = HashMap::new();
    for (offset, hash) in copy {
        let left = left.entry(*hash).or_default();
        *left -= 1;
        if *left < 0 {
            out.repeated += 1;
            if out.again.len() < NAMED {
                out.again.push((places.get(hash).copied(), first.get(hash).copied(), *offset));
            }
        } else {
            first.insert(*hash, *offset);
        }
    }
    for (offset, hash) in source {
        if left.get(hash).is_some_and(|&left| left > 0) {
            out.lost += 1;
            if out.gone.len() < NAMED {
                out.gone.push(*offset);
            }
        }
    }
    out
}

#[test]
fn what_is_lost_repeated_or_moved_is_seen_and_named() {
    let source: Vec<Seen> = (0..10).map(|n| (n, 100 + n as u64)).collect();
    let copy = |ordinals: &[u64]| ordinals.iter().enumerate().map(|(n, o)| (n as i64, 100 + o)).collect::<Vec<_>>();
    assert!(compare(&source, &copy(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9])).is_none());
    let cut = compare(&source, &copy(&[0, 1, 2, 3, 4, 5, 6, 7, 8]));
    assert_eq!((cut.lost, cut.repeated, cut.gone), (1, 0, vec![9]));
    let twice = compare(&source, &copy(&[0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9]));
    assert_eq!((twice.lost, twice.repeated), (0, 2));
    assert_eq!(twice.again, [(Some(1), Some(1), 3), (Some(2), Some(2), 4)]);
    assert_eq!(twice.first, Some((Some((3, 103)), Some((3, 101)))));
    let moved = compare(&source, &copy(&[0, 2, 1, 3, 4, 5, 6, 7, 8, 9]));
    assert_eq!((moved.lost, moved.repeated, moved.is_none()), (0, 0, false));
    assert!(moved.to_string().contains("order is not kept"), "{moved}");
    let strange = compare(&source, &copy(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 77]));
    assert_eq!((strange.repeated, strange.again), (1, vec![(None, None, 10)]));
}
