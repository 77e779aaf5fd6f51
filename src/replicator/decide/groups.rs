//! What becomes of a group's commit at the target: forwards freely, backwards never in silence, past the end never.

use super::offset_map::{Found, Unknown};
use super::select::{SelectError, Selection, Why};

/// Which groups follow.
#[derive(Debug, Clone)]
pub struct GroupSelection {
    selection: Selection,
}

/// Where a target group was set that may not follow its source backwards, or may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewinds {
    /// It follows.
    Follow,
    /// It stays.
    Refuse,
}

/// What was committed for a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// The source's commit that it was for.
    pub source: i64,
    /// What was committed at the target.
    pub target: i64,
}

/// One partition of one group, as both clusters show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// The source's commit.
    pub source: i64,
    /// What the offset map makes of it; [`Found::Stored`] counts as not known.
    pub found: Found,
    /// Where the target's log begins and ends.
    pub log: (i64, i64),
    /// The target's commit.
    pub current: Option<i64>,
    /// What was committed there last by this process.
    pub applied: Option<Applied>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it stands where it should.
    Settled(Place),
    /// Commit this.
    Commit(Place, Option<Moved>),
    /// Leave it.
    Hold(Hold),
    /// Leave it until something was copied.
    Wait,
}

/// Where a group stands at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The offset.
    pub offset: i64,
    /// Whether who goes on there reads exactly what the source's group has not read; else the copy is not as far as the group, and
    /// this is as far as it is.
    pub exact: bool,
}

/// A commit that goes back: an event in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// The source's group went back.
    Rewound {
        /// The target's commit before.
        from: i64,
    },
    /// The target's commit was past the end of the target's log.
    PastEnd {
        /// The target's commit before.
        from: i64,
    },
    /// What was committed was for records that the target has lost since.
    Corrected {
        /// The target's commit before.
        from: i64,
    },
}

/// Why a commit is left as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Hold {
    /// The offset map does not know.
    #[error("{0}")]
    Unmapped(Unknown),
    /// The offset map's record could not be read.
    #[error("the offset map could not be read")]
    Unread,
    /// The source's group went back, and groups do not follow.
    #[error("the source's group went back to {source}, the target's stands at {current} and group_rewinds is \"refuse\"", source = .source_offset)]
    Refused {
        /// The source's commit.
        source_offset: i64,
        /// The target's commit.
        current: i64,
    },
    /// Somebody else has moved the target's group further.
    #[error("the target's group stands at {current}, further than {wanted} where the source's is: it was used there")]
    Ahead {
        /// The target's commit.
        current: i64,
        /// Where the source's group would be.
        wanted: i64,
    },
}

impl GroupSelection {
    /// Reads the expressions, as [`Selection::new`] does.
    ///
    /// # Errors
    /// [`SelectError`].
    pub fn new(include: &[String], exclude: &[String]) -> Result<Self, SelectError> {
        Ok(Self { selection: Selection::new(include, exclude)? })
    }

    /// Whether a group follows.
    #[must_use]
    pub fn has(&self, group: &str) -> bool {
        matches!(self.selection.why(group, false), Why::Included { .. })
    }
}

/// What to do about one partition of one group.
#[must_use]
pub fn step(seen: &Seen, rewinds: Rewinds) -> Step {
    let (start, end) = seen.log;
    let (offset, exact) = match seen.found {
        Found::At(offset) => (offset, true),
        Found::Beyond(offset) => (offset, false),
        // The first record that is copied lies at or after the end. Who stands somewhere already was set there by somebody else.
        Found::Empty { beyond: false } if seen.current.is_none_or(|current| current == end) => (end, true),
        Found::Empty { .. } => return Step::Wait,
        Found::Unknown(unknown) => return Step::Hold(Hold::Unmapped(unknown)),
        Found::Stored(_) => return Step::Hold(Hold::Unread),
    };
    let place = Place { offset: offset.min(end).max(start), exact: exact && offset <= end };
    let Some(current) = seen.current else { return Step::Commit(place, None) };
    if current == place.offset {
        return Step::Settled(place);
    }
    if current < place.offset {
        return Step::Commit(place, None);
    }
    if current > end {
        return Step::Commit(place, Some(Moved::PastEnd { from: current }));
    }
    match seen.applied.filter(|applied| applied.target == current) {
        None => Step::Hold(Hold::Ahead { current, wanted: place.offset }),
        Some(applied) if seen.source >= applied.source => Step::Commit(place, Some(Moved::Corrected { from: current })),
        Some(_) => match rewinds {
            Rewinds::Follow => Step::Commit(place, Some(Moved::Rewound { from: current })),
            Rewinds::Refuse => Step::Hold(Hold::Refused { source_offset: seen.source, current }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEEN: Seen = Seen { source: 50, found: Found::At(40), log: (0, 100), current: None, applied: None };

    fn place(offset: i64, exact: bool) -> Place {
        Place { offset, exact }
    }

    fn follow(seen: Seen) -> Step {
        step(&seen, Rewinds::Follow)
    }

    #[test]
    fn a_commit_is_exact_and_never_past_the_end() {
        assert_eq!(follow(SEEN), Step::Commit(place(40, true), None));
        assert_eq!(follow(Seen { current: Some(10), ..SEEN }), Step::Commit(place(40, true), None));
        assert_eq!(follow(Seen { current: Some(40), ..SEEN }), Step::Settled(place(40, true)));
        assert_eq!(follow(Seen { found: Found::Beyond(70), ..SEEN }), Step::Commit(place(70, false), None));
        assert_eq!(follow(Seen { found: Found::At(101), ..SEEN }), Step::Commit(place(100, false), None));
        assert_eq!(follow(Seen { log: (45, 100), ..SEEN }), Step::Commit(place(45, true), None));
        // An empty source partition: never its own offset.
        let empty = Seen { source: 500, found: Found::Empty { beyond: false }, log: (0, 0), ..SEEN };
        assert_eq!(follow(empty), Step::Commit(place(0, true), None));
        assert_eq!(follow(Seen { found: Found::Empty { beyond: true }, ..empty }), Step::Wait);
        // What lies in the target was not copied by us: nobody is sent behind it.
        let filled = Seen { log: (0, 100), current: Some(20), ..empty };
        assert_eq!(follow(filled), Step::Wait);
        assert_eq!(follow(Seen { current: None, ..filled }), Step::Commit(place(100, true), None));
        let past = Seen { current: Some(120), ..SEEN };
        assert_eq!(follow(past), Step::Commit(place(40, true), Some(Moved::PastEnd { from: 120 })));
    }

    #[test]
    fn backwards_goes_what_the_source_took_back_and_nothing_else() {
        let applied = Some(Applied { source: 90, target: 80 });
        let back = Seen { current: Some(80), applied, ..SEEN };
        assert_eq!(follow(back), Step::Commit(place(40, true), Some(Moved::Rewound { from: 80 })));
        let refused = Hold::Refused { source_offset: 50, current: 80 };
        assert_eq!(step(&back, Rewinds::Refuse), Step::Hold(refused));
        assert_eq!(
            refused.to_string(),
            "the source's group went back to 50, the target's stands at 80 and group_rewinds is \"refuse\""
        );
        // Consumers at the target went on by themselves.
        let used = Seen { current: Some(85), ..back };
        assert_eq!(follow(used), Step::Hold(Hold::Ahead { current: 85, wanted: 40 }));
        // Nobody knows any more who committed it.
        let unknown = Seen { applied: None, ..back };
        assert_eq!(follow(unknown), Step::Hold(Hold::Ahead { current: 80, wanted: 40 }));
        // The target lost records and gave their offsets to others.
        let lost = Seen { source: 95, ..back };
        assert_eq!(step(&lost, Rewinds::Refuse), Step::Commit(place(40, true), Some(Moved::Corrected { from: 80 })));
    }

    #[test]
    fn what_is_not_known_is_not_guessed() {
        let unknown = Unknown::BeforeMap { asked: 50, since: 60 };
        assert_eq!(follow(Seen { found: Found::Unknown(unknown), ..SEEN }), Step::Hold(Hold::Unmapped(unknown)));
        assert_eq!(follow(Seen { found: Found::Stored(3), ..SEEN }), Step::Hold(Hold::Unread));
    }

    #[test]
    fn groups_are_selected_by_their_whole_names() {
        let list = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
        let groups = GroupSelection::new(&list(&[".*"]), &list(&["console-consumer-.*", "__.*"])).expect("expressions");
        let followed: Vec<_> = ["app", "console-consumer-7", "my-console-consumer-7", "__x"]
            .into_iter()
            .filter(|group| groups.has(group))
            .collect();
        assert_eq!(followed, ["app", "my-console-consumer-7"]);
    }
}
