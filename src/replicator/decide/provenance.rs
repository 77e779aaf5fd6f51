//! Whose data a batch is: the registry of producer ids that replication uses, one compacted topic [`TOPIC`] on each cluster.
//!
//! Key: the producer id in decimal. Value, big endian: version 1 byte (1), readable from 1 byte (1), then the id of the cluster whose
//! data it writes, and the name of the flow, each with its length in 2 bytes before it. A later version may append fields.
//!
//! A producer id stands here, acknowledged by all in-sync replicas, before it writes its first record. So a reader that meets a
//! producer id and then reads the registry to its end knows whose it is; batches are told apart by their headers alone.

use std::collections::{HashMap, HashSet};

use bytes::{Buf as _, BufMut as _};

/// The topic, on each cluster that replication writes to.
pub const TOPIC: &str = "__linkspan-producers";
/// What is written, and the newest that is understood.
const VERSION: u8 = 1;
/// Ordinary producers remembered; more are asked for again.
const MOST_OTHERS: usize = 100_000;

/// What stands in the registry of one producer id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Kafka's id of the cluster whose data it writes.
    pub origin: String,
    /// Name of the flow that uses it.
    pub flow: String,
}

/// A record of the registry that cannot be read. Nothing is copied on a guess, so a flow stops at one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EntryError {
    /// The key is no producer id.
    #[error("`{0}` is no producer id")]
    Key(String),
    /// Cut short, or no UTF-8.
    #[error("the entry of producer id {producer_id} is malformed")]
    Malformed {
        /// Whose.
        producer_id: i64,
    },
    /// Written by a newer linkspan that changed the format.
    #[error(
        "the entry of producer id {producer_id} can be read from version {readable_from} on, this linkspan has {VERSION}"
    )]
    TooNew {
        /// Whose.
        producer_id: i64,
        /// The least version that understands it.
        readable_from: u8,
    },
}

impl Entry {
    /// As the value of its record.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![VERSION, 1];
        for text in [&self.origin, &self.flow] {
            let text = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
            out.put_u16(text.len() as u16);
            out.put_slice(text);
        }
        out
    }

    /// Reads a record's key and value back.
    ///
    /// # Errors
    /// [`EntryError`].
    pub fn decode(key: &[u8], value: &[u8]) -> Result<(i64, Self), EntryError> {
        let bad = || EntryError::Key(String::from_utf8_lossy(&key[..key.len().min(40)]).into_owned());
        let text = std::str::from_utf8(key).map_err(|_| bad())?;
        let producer_id: i64 = text.parse().ok().filter(|&id| id >= 0).ok_or_else(bad)?;
        let malformed = EntryError::Malformed { producer_id };
        let &[version, readable_from, ref rest @ ..] = value else { return Err(malformed) };
        if readable_from > VERSION || version == 0 || readable_from == 0 {
            return Err(EntryError::TooNew { producer_id, readable_from });
        }
        let mut rest = rest;
        let mut next = || {
            let length = usize::from(rest.try_get_u16().ok()?);
            let text = std::str::from_utf8(rest.get(..length)?).ok()?.to_owned();
            rest.advance(length);
            Some(text)
        };
        match (next(), next()) {
            (Some(origin), Some(flow)) => Ok((producer_id, Self { origin, flow })),
            _ => Err(malformed),
        }
    }
}

/// What a flow knows of the source's producers.
#[derive(Debug, Default, Clone)]
pub struct Provenance {
    /// Kafka's id of the flow's target.
    target: String,
    registered: HashMap<i64, bool>,
    others: HashSet<i64>,
}

/// Whose a batch is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// To be copied.
    Here,
    /// It came from the flow's own target: copying it would go round in a circle.
    Target,
    /// The registry must be read first.
    Unknown,
}

impl Provenance {
    /// Of a flow to the cluster with this id.
    #[must_use]
    pub fn new(target: String) -> Self {
        Self { target, ..Self::default() }
    }

    /// Takes an entry of the source's registry.
    pub fn learn(&mut self, producer_id: i64, entry: &Entry) {
        self.others.remove(&producer_id);
        self.registered.insert(producer_id, entry.origin == self.target);
    }

    /// The registry was read to its end after this producer id was met, and it does not stand there.
    pub fn is_ordinary(&mut self, producer_id: i64) {
        if self.registered.contains_key(&producer_id) {
            return;
        }
        if self.others.len() >= MOST_OTHERS {
            self.others.clear();
        }
        self.others.insert(producer_id);
    }

    /// Whose batches with this producer id are; those without one are never replication's.
    #[must_use]
    pub fn origin(&self, producer_id: i64) -> Origin {
        if producer_id < 0 || self.others.contains(&producer_id) {
            return Origin::Here;
        }
        match self.registered.get(&producer_id) {
            Some(true) => Origin::Target,
            Some(false) => Origin::Here,
            None => Origin::Unknown,
        }
    }

    /// Producer ids that write what came from the target.
    #[must_use]
    pub fn looping(&self) -> usize {
        self.registered.values().filter(|&&looping| looping).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn version_1_has_these_bytes_for_ever() {
        let entry = Entry { origin: "abc".to_owned(), flow: "f".to_owned() };
        assert_eq!(entry.encode(), b"\x01\x01\x00\x03abc\x00\x01f");
        assert_eq!(Entry::decode(b"17", b"\x02\x01\x00\x03abc\x00\x01fmore"), Ok((17, entry)));
    }

    #[test]
    fn what_is_no_entry_is_refused_by_name() {
        let whole = Entry { origin: "abc".to_owned(), flow: "f".to_owned() }.encode();
        for length in 0..whole.len() {
            assert_eq!(Entry::decode(b"17", &whole[..length]), Err(EntryError::Malformed { producer_id: 17 }));
        }
        assert_eq!(
            Entry::decode(b"17", b"\x02\x02\x00\x03abc"),
            Err(EntryError::TooNew { producer_id: 17, readable_from: 2 })
        );
        for key in [&b""[..], b"-1", b"x", b"\xff"] {
            assert!(matches!(Entry::decode(key, &whole), Err(EntryError::Key(_))), "{key:?}");
        }
    }

    #[test]
    fn only_what_came_from_the_target_goes_round_in_a_circle() {
        let mut known = Provenance::new("grape".to_owned());
        for (producer_id, origin) in [(1, "grape"), (2, "lemon")] {
            known.learn(producer_id, &Entry { origin: origin.to_owned(), flow: "f".to_owned() });
        }
        assert_eq!(known.origin(3), Origin::Unknown);
        known.is_ordinary(3);
        known.is_ordinary(1);
        let origins = [-1, 1, 2, 3, 4].map(|producer_id| known.origin(producer_id));
        assert_eq!(origins, [Origin::Here, Origin::Target, Origin::Here, Origin::Here, Origin::Unknown]);
        assert_eq!(known.looping(), 1);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(
            key in proptest::collection::vec(any::<u8>(), 0..20), value in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let _ = Entry::decode(&key, &value);
        }
    }
}
