//! Where to read on: from the progress that was kept, and what the source still has.

use super::TopicId;
use super::progress::Progress;

/// The source's partition as it is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SourceLog {
    /// The topic's id.
    pub topic_id: TopicId,
    /// First offset still there.
    pub start: i64,
    /// Offset after the last record that may be read.
    pub end: i64,
}

/// Where to begin, and what is to be said about it. Nothing is ever skipped without an [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Start {
    /// First source offset to read.
    pub offset: i64,
    /// What happened to the source since the progress was kept.
    pub event: Option<Event>,
}

/// What became of records between the progress and now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum Event {
    /// The source deleted records before they were copied (retention, or `DeleteRecords`): offsets `from` to before `to`.
    Gap {
        /// First offset that was lost.
        from: i64,
        /// First offset that is there.
        to: i64,
    },
    /// The source's log ends before what was already copied: it lost acknowledged records (unclean leader election). Records that it
    /// took between its lost end and `end` may differ from the copies; reading goes on at `end`.
    Truncated {
        /// Offset that was to be read next.
        expected: i64,
        /// Where the log ends.
        end: i64,
    },
    /// The source's topic was deleted and created again under its name; its records follow those of the old one.
    Recreated {
        /// First offset of the new topic that is copied.
        from: i64,
    },
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Gap { from, to } => write!(
                f,
                "the source deleted offsets {from} to {} before they were copied ({} offsets)",
                to - 1,
                to - from
            ),
            Self::Truncated { expected, end } => write!(
                f,
                "the source's log ends at {end}, though everything before {expected} was copied: it lost acknowledged records"
            ),
            Self::Recreated { from } => {
                write!(
                    f,
                    "the source topic was deleted and created again; its records from offset {from} follow the old ones"
                )
            }
        }
    }
}

/// The source's topic is another one of the same name: offsets mean nothing any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the source topic was deleted and created again")]
pub struct Recreated {
    /// The id that progress was kept for.
    pub was: TopicId,
    /// The id now.
    pub now: TopicId,
}

impl Recreated {
    /// Where to begin when the new topic's records are to follow the old ones'.
    #[must_use]
    pub const fn append(&self, log: &SourceLog) -> Start {
        Start { offset: log.start, event: Some(Event::Recreated { from: log.start }) }
    }
}

/// Where to begin: after the progress, or at the earliest offset where there is none.
///
/// # Errors
/// [`Recreated`] where the progress is that of another topic.
pub fn start(progress: Option<&Progress>, log: &SourceLog) -> Result<Start, Recreated> {
    let Some(progress) = progress else { return Ok(Start { offset: log.start, event: None }) };
    if is_recreated(progress.source_topic_id, log.topic_id) {
        return Err(Recreated { was: progress.source_topic_id, now: log.topic_id });
    }
    Ok(resume(progress.next_offset, log))
}

/// Where to go on after `next` was found to be outside the log.
#[must_use]
pub const fn resume(next: i64, log: &SourceLog) -> Start {
    if next < log.start {
        return Start { offset: log.start, event: Some(Event::Gap { from: next, to: log.start }) };
    }
    if next > log.end {
        return Start { offset: log.end, event: Some(Event::Truncated { expected: next, end: log.end }) };
    }
    Start { offset: next, event: None }
}

/// Whether two ids are of different topics; an unknown id is taken for the same.
#[must_use]
pub fn is_recreated(was: TopicId, now: TopicId) -> bool {
    was != now && was != TopicId::default() && now != TopicId::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: SourceLog = SourceLog { topic_id: [1; 16], start: 10, end: 100 };

    fn at(next_offset: i64) -> Progress {
        Progress { source_topic_id: [1; 16], next_offset, ..Progress::default() }
    }

    #[test]
    fn a_new_topic_is_read_from_its_earliest_record() {
        assert_eq!(start(None, &LOG), Ok(Start { offset: 10, event: None }));
    }

    #[test]
    fn progress_goes_on_and_losses_are_named() {
        for (next, offset, event) in [
            (10, 10, None),
            (57, 57, None),
            (100, 100, None),
            (3, 10, Some(Event::Gap { from: 3, to: 10 })),
            (101, 100, Some(Event::Truncated { expected: 101, end: 100 })),
        ] {
            assert_eq!(start(Some(&at(next)), &LOG), Ok(Start { offset, event }), "{next}");
        }
    }

    #[test]
    fn another_topic_of_the_same_name_is_named() {
        let other = SourceLog { topic_id: [2; 16], ..LOG };
        assert_eq!(start(Some(&at(50)), &other), Err(Recreated { was: [1; 16], now: [2; 16] }));
        let unknown = SourceLog { topic_id: [0; 16], ..LOG };
        assert_eq!(start(Some(&at(50)), &unknown), Ok(Start { offset: 50, event: None }));
    }
}
