//! What keeps a partition exactly once after a failure.

/// How it is known what the target has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Guard {
    /// The leader remembers the producer: a batch is appended at its place alone, whoever sends it and when.
    Sequence,
    /// The leader may have forgotten the producer. After a failure appends that may be on their way are given time to land; then the
    /// copy's own end is read.
    Log,
}

impl Guard {
    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Sequence => "sequence",
            Self::Log => "log",
        }
    }
}

/// The time by which brokers count how old a producer's last batch is, in ms since 1970.
///
/// By its newest record on CreateTime topics, by its append on LogAppendTime ones; -1 where nothing was appended or it has no time.
#[must_use]
pub const fn counted_from(newest_record: i64, appended: i64, target_stamps: bool) -> i64 {
    if target_stamps { appended } else { newest_record }
}

/// Which guard a partition needs whose producer's last batch is from `counted_from`, where leaders forget producers after `memory_ms`
/// (`producer.id.expiration.ms`).
#[must_use]
pub const fn needed(counted_from: i64, now: i64, memory_ms: i64) -> Guard {
    if now.saturating_sub(counted_from) >= memory_ms { Guard::Log } else { Guard::Sequence }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000;

    #[test]
    fn old_records_and_long_silence_need_the_log() {
        let now = 100 * DAY;
        for (newest, appended, stamps, expected) in [
            (now - 1, now - 1, false, Guard::Sequence),
            (now - 2 * DAY, now - 1, false, Guard::Log),
            (now - 2 * DAY, now - 1, true, Guard::Sequence),
            (now - 1, now - 2 * DAY, true, Guard::Log),
            (now - DAY, now, false, Guard::Log),
            (-1, now, false, Guard::Log),
            (now + DAY, now, false, Guard::Sequence),
        ] {
            assert_eq!(
                needed(counted_from(newest, appended, stamps), now, DAY),
                expected,
                "{newest} {appended} {stamps}"
            );
        }
    }
}
