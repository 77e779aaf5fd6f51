//! Whether a copy holds what its source holds: the first difference of two runs of records.

use crate::kafka::batch::Record;

/// Where source and copy part.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Difference {
    /// Offset at the source: of the record that differs, or is missing in the copy; -1 where the copy has one more.
    pub source_offset: i64,
    /// Offset at the target: of the record that differs, or is one too many; -1 where it is missing.
    pub target_offset: i64,
    /// What differs: `timestamp`, `key`, `value`, `headers`, `missing`, `extra`.
    pub what: String,
}

/// Compares record by record, as far as both runs go. Gives how many are the same, and the first difference.
#[must_use]
pub fn compare(source: &[Record], target: &[Record], timestamps: bool) -> (usize, Option<Difference>) {
    for (at, (from, to)) in source.iter().zip(target).enumerate() {
        if let Some(what) = differs(from, to, timestamps) {
            let (source_offset, target_offset) = (from.offset, to.offset);
            return (at, Some(Difference { source_offset, target_offset, what: what.to_owned() }));
        }
    }
    (source.len().min(target.len()), None)
}

/// A record of the source that the copy does not have.
#[must_use]
pub fn missing(record: &Record) -> Difference {
    Difference { source_offset: record.offset, target_offset: -1, what: "missing".to_owned() }
}

/// A record of the copy that the source does not have.
#[must_use]
pub fn extra(record: &Record) -> Difference {
    Difference { source_offset: -1, target_offset: record.offset, what: "extra".to_owned() }
}

fn differs(from: &Record, to: &Record, timestamps: bool) -> Option<&'static str> {
    if timestamps && from.timestamp != to.timestamp {
        return Some("timestamp");
    }
    if from.key() != to.key() {
        return Some("key");
    }
    if from.value() != to.value() {
        return Some("value");
    }
    (from.headers() != to.headers()).then_some("headers")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(offset: i64, time: i64, key: &str, value: Option<&str>, headers: &[(&[u8], Option<&[u8]>)]) -> Record {
        Record::new(offset, time, Some(key.as_bytes()), value.map(str::as_bytes), headers)
    }

    #[test]
    fn the_first_difference_is_named_with_both_offsets() {
        let plain = |offset| record(offset, 5, "k", Some("v"), &[]);
        let source: Vec<_> = (10..13).map(plain).collect();
        let target: Vec<_> = (0..3).map(plain).collect();
        assert_eq!(compare(&source, &target, true), (3, None));
        assert_eq!(compare(&source, &target[..2], true), (2, None));
        for (other, what) in [
            (record(1, 6, "k", Some("v"), &[]), "timestamp"),
            (record(1, 5, "K", Some("v"), &[]), "key"),
            (record(1, 5, "k", None, &[]), "value"),
            (record(1, 5, "k", Some("v"), &[(b"h", None)]), "headers"),
        ] {
            let target = [plain(0), other, plain(2)];
            let found = Difference { source_offset: 11, target_offset: 1, what: what.to_owned() };
            assert_eq!(compare(&source, &target, true), (1, Some(found)), "{what}");
        }
        let stamped: Vec<_> = (0..3).map(|offset| record(offset, 99, "k", Some("v"), &[])).collect();
        assert_eq!(compare(&source, &stamped, false), (3, None));
        assert_eq!(missing(&source[0]).source_offset, 10);
        assert_eq!(extra(&target[2]).target_offset, 2);
    }
}
