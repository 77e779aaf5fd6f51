//! MirrorMaker 2's records: `Struct`s of Kafka, strings as 2 bytes of length and UTF-8, numbers big endian.
//!
//! Written so that MirrorMaker's own clients (`RemoteClusterUtils`, `MirrorClient`) find groups and clusters that linkspan copies.
//! Formats: `Checkpoint`, `Heartbeat` and `OffsetSync` of connect/mirror; an offset sync has no version, the others have version 0.

use bytes::BufMut as _;

/// The topic of beats that a cluster has of its own.
pub const HEARTBEATS: &str = "heartbeats";

/// A group's place in one partition, on both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The group.
    pub group: String,
    /// The topic, by its name at the target.
    pub topic: String,
    /// The partition.
    pub partition: i32,
    /// The group's commit at the source.
    pub upstream: i64,
    /// The same at the target.
    pub downstream: i64,
    /// What the group wrote beside its commit.
    pub metadata: String,
}

/// The topic of checkpoints of groups of the cluster `source`.
#[must_use]
pub fn checkpoints_topic(source: &str) -> String {
    format!("{source}.checkpoints.internal")
}

/// The topic of offset syncs at the target, as with `offset-syncs.topic.location=target`.
#[must_use]
pub fn offset_syncs_topic(source: &str) -> String {
    format!("mm2-offset-syncs.{source}.internal")
}

/// The name of the source's beats at the target: by it `MirrorClient` knows that `source` is upstream.
#[must_use]
pub fn remote_heartbeats_topic(source: &str) -> String {
    format!("{source}.{HEARTBEATS}")
}

impl Checkpoint {
    /// Key and value. Metadata that has no room in a string of theirs is left out.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, Vec<u8>) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        text(&mut key, &self.group);
        text(&mut key, &self.topic);
        key.put_i32(self.partition);
        value.put_i16(0);
        value.put_i64(self.upstream);
        value.put_i64(self.downstream);
        text(&mut value, &self.metadata);
        (key, value)
    }
}

/// Key and value of a beat at `now_ms`, in ms since 1970.
#[must_use]
pub fn heartbeat(source: &str, target: &str, now_ms: i64) -> (Vec<u8>, Vec<u8>) {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    text(&mut key, source);
    text(&mut key, target);
    value.put_i16(0);
    value.put_i64(now_ms);
    (key, value)
}

/// Key and value of an offset sync: the record at `upstream` of the source topic lies at `downstream` of its copy.
#[must_use]
pub fn offset_sync(topic: &str, partition: i32, upstream: i64, downstream: i64) -> (Vec<u8>, Vec<u8>) {
    let (mut key, mut value) = (Vec::new(), Vec::new());
    text(&mut key, topic);
    key.put_i32(partition);
    value.put_i64(upstream);
    value.put_i64(downstream);
    (key, value)
}

fn text(out: &mut Vec<u8>, text: &str) {
    let length = i16::try_from(text.len()).unwrap_or(0);
    out.put_i16(length);
    out.put_slice(&text.as_bytes()[..usize::from(length.unsigned_abs())]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn records_are_mirrormakers_byte_for_byte() {
        let checkpoint = Checkpoint {
            group: "g1".to_owned(),
            topic: "orange.t".to_owned(),
            partition: 3,
            upstream: 258,
            downstream: 257,
            metadata: "m".to_owned(),
        };
        let (key, value) = checkpoint.encode();
        assert_eq!(hex(&key), "00026731".to_owned() + "00086f72616e67652e74" + "00000003");
        assert_eq!(hex(&value), "0000".to_owned() + "0000000000000102" + "0000000000000101" + "00016d");
        let (key, value) = heartbeat("orange", "grape", 1_700_000_000_000);
        assert_eq!(hex(&key), "00066f72616e6765".to_owned() + "00056772617065");
        assert_eq!(hex(&value), "0000".to_owned() + "0000018bcfe56800");
        let (key, value) = offset_sync("t", 1, 10, 9);
        assert_eq!(hex(&key), "000174".to_owned() + "00000001");
        assert_eq!(hex(&value), "000000000000000a".to_owned() + "0000000000000009");
    }

    #[test]
    fn topics_have_mirrormakers_names() {
        assert_eq!(checkpoints_topic("orange"), "orange.checkpoints.internal");
        assert_eq!(offset_syncs_topic("orange"), "mm2-offset-syncs.orange.internal");
        assert_eq!(remote_heartbeats_topic("orange"), "orange.heartbeats");
    }

    #[test]
    fn a_text_that_has_no_room_is_left_out() {
        let checkpoint = Checkpoint {
            group: "g".to_owned(),
            topic: "t".to_owned(),
            partition: 0,
            upstream: 1,
            downstream: 1,
            metadata: "x".repeat(40_000),
        };
        assert_eq!(hex(&checkpoint.encode().1[18..]), "0000");
    }
}
