//! One stream as its two applications see it, and what each must see.

use std::time::Instant;

use bytes::BytesMut;

use super::random::{Random, bytes};
use crate::tunnel::session::{Read, Session, StreamEnd, StreamId};

/// One stream, at both of its ends.
pub(super) struct Flow {
    /// By side.
    pub(super) ends: [Option<End>; 2],
    /// Somebody reset or refused it, or its session was lost: not all bytes need arrive. An end without them is a reset.
    pub(super) cut: bool,
}

/// One end of one stream.
pub(super) struct End {
    pub(super) id: StreamId,
    /// Will write so much.
    pub(super) plan: u64,
    pub(super) habit: Habit,
    pub(super) written: u64,
    pub(super) read: u64,
    pub(super) opened: bool,
    pub(super) finished: bool,
    /// Saw the end of the other direction.
    pub(super) ended: bool,
    pub(super) released: bool,
    /// Reads nothing for now.
    stopped: bool,
    /// Sleeps until the session wakes it.
    pub(super) waits: Waits,
}

/// What an end waits for; the session owes it an event.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Waits {
    pub(super) answer: bool,
    pub(super) read: bool,
    pub(super) write: bool,
}

/// How an application reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    Quick,
    /// One piece in so many turns.
    Slow(u64),
    /// Not at all.
    Never,
}

impl End {
    pub(super) fn new(id: StreamId, plan: u64, habit: Habit, opened: bool) -> Self {
        Self {
            id,
            plan,
            habit,
            written: 0,
            read: 0,
            opened,
            finished: false,
            ended: false,
            released: false,
            stopped: false,
            waits: Waits::default(),
        }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.finished && self.ended
    }

    /// Whether this end, left alone, has nothing more to do but to go on not reading.
    pub(super) fn is_stuck_by_choice(&self) -> bool {
        self.habit == Habit::Never && (self.finished || self.waits.write)
    }

    /// Why nothing more can be expected of this end, for a failed schedule.
    pub(super) fn describe(&self) -> String {
        let Self { id, plan, habit, written, read, opened, finished, ended, waits, .. } = self;
        format!(
            "{id:?} {habit:?} opened {opened} written {written}/{plan} finished {finished} read {read} ended {ended} {waits:?}"
        )
    }

    /// One turn: writes, finishes and reads what there is. True when anything came of it; `calm`: nothing is put off.
    pub(super) fn turn(
        &mut self,
        (random, now, calm): (&mut Random, Instant, bool),
        session: &mut Session,
        (serial, side): (usize, usize),
        other: Option<&Self>,
    ) -> Result<bool, StreamEnd> {
        let wrote = self.write(random, now, calm, session, (serial, side))?;
        if !calm && self.habit != Habit::Never && random.chance(40) {
            self.stopped = !self.stopped;
        }
        let idle = match self.habit {
            Habit::Quick => self.stopped && !calm,
            Habit::Slow(one_in) => !random.chance(one_in),
            Habit::Never => true,
        };
        if idle || self.ended || self.waits.read {
            // A slow reader in calm comes back: that is progress to be waited for.
            return Ok(wrote || (calm && matches!(self.habit, Habit::Slow(_)) && !self.ended && !self.waits.read));
        }
        let pieces = if self.habit == Habit::Quick { 4 } else { 1 };
        Ok(self.read(now, session, (serial, side), other, pieces)? || wrote)
    }

    fn write(
        &mut self,
        random: &mut Random,
        now: Instant,
        calm: bool,
        session: &mut Session,
        (serial, side): (usize, usize),
    ) -> Result<bool, StreamEnd> {
        if self.written < self.plan {
            if self.waits.write {
                return Ok(false);
            }
            let room = session.room(self.id)?;
            self.waits.write = room == 0;
            let left = (self.plan - self.written) as usize;
            let len = room.min(left).min(1 + random.below(40_000) as usize);
            if len > 0 {
                let data = bytes(serial, side, self.written, len);
                if random.chance(2) {
                    session.write(now, self.id, data)?;
                } else {
                    session.write_copy(now, self.id, &data)?;
                }
                self.written += len as u64;
            }
            return Ok(len > 0);
        }
        if !self.finished && (calm || random.chance(3)) {
            session.finish(self.id)?;
            self.finished = true;
            return Ok(true);
        }
        Ok(false)
    }

    fn read(
        &mut self,
        now: Instant,
        session: &mut Session,
        (serial, side): (usize, usize),
        other: Option<&Self>,
        pieces: usize,
    ) -> Result<bool, StreamEnd> {
        for piece in 0..pieces {
            match session.read(now, self.id)? {
                Read::Data(data) => {
                    // Some applications take what follows as well, before they are done with any of it.
                    let mut data = BytesMut::from(data);
                    while self.read.is_multiple_of(3)
                        && let Some(more) = session.read_more(self.id)
                    {
                        data.extend_from_slice(&more);
                    }
                    let expected = bytes(serial, 1 - side, self.read, data.len());
                    assert!(data == expected, "stream {serial} at {side}: wrong bytes at {}", self.read);
                    self.read += data.len() as u64;
                    let written = other.map_or(0, |other| other.written);
                    assert!(self.read <= written, "stream {serial} at {side}: bytes that nobody wrote");
                }
                Read::End => {
                    let whole = other.map(|other| (other.finished, other.written));
                    assert_eq!(whole, Some((true, self.read)), "stream {serial} at {side}: a cut shown as the end");
                    self.ended = true;
                    return Ok(true);
                }
                Read::Blocked => {
                    self.waits.read = true;
                    return Ok(piece > 0);
                }
            }
        }
        Ok(true)
    }
}
