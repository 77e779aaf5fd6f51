//! How many carriers this side's sending has use for: more while they limit it on a long way, until the way is full.
//!
//! One TCP connection is bounded by its windows and by what it takes for congestion, both per round trip. While their sockets
//! take less than there is to send, and the way has no queue, more of them carry more. What a rate does meanwhile says little:
//! where packets are lost it falls after a start without a loss, however many carriers there are.

use std::time::{Duration, Instant};

use super::{FIRST_CARRIERS, SLOTS};

/// Below this round trip a single connection fills what the machine can give.
pub(super) const LONG_WAY: Duration = Duration::from_millis(5);
/// From this round trip on the next number is four times the last: each step takes several round trips.
const FAR: Duration = Duration::from_millis(40);
/// Shortest time that is looked at; two round trips where that is longer.
const SAMPLE: Duration = Duration::from_millis(400);
/// Share of pulls that were filled to their bound, in percent, from which on there is more to send than the carriers take.
const FILLED: u32 = 80;
/// Share of pulls that came late, in percent, from which on the sockets and not this machine are what limits.
const WAITED: u32 = 30;
/// Fewest pulls that say something.
const PULLS: u32 = 4;

/// The way's own queue is full when a small frame takes this much longer than the way alone, in percent: more carriers only make it longer.
const QUEUE: u32 = 20;

/// Looks at how sending goes, and asks for carriers.
#[derive(Debug)]
pub(super) struct Demand {
    want: u8,
    sample: Option<Sample>,
    /// The first sample with a new number is its ramp.
    ramping: bool,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    since: Instant,
    pulls: u32,
    filled: u32,
    waited: u32,
}

impl Demand {
    pub(super) const fn new() -> Self {
        Self { want: FIRST_CARRIERS, sample: None, ramping: false }
    }

    /// The number of carriers wanted.
    pub(super) const fn want(&self) -> u8 {
        self.want
    }

    /// A carrier pulled: `filled` when there was more than it could take, `waited` when it took its time after one that was
    /// filled, `way` the shortest round trip, `express` the present one
    /// of the carrier which has no bulk, `healthy` the carriers that serve. True when a sample is complete.
    pub(super) fn on_pull(
        &mut self,
        now: Instant,
        (filled, waited): (bool, bool),
        way: Duration,
        express: Option<Duration>,
        healthy: usize,
    ) -> bool {
        let full = express.is_some_and(|rtt| rtt > way + way * QUEUE / 100);
        let fresh = Sample { since: now, pulls: 0, filled: 0, waited: 0 };
        let sample = self.sample.get_or_insert(fresh);
        sample.pulls += 1;
        sample.filled += u32::from(filled);
        sample.waited += u32::from(waited);
        if now.saturating_duration_since(sample.since) < SAMPLE.max(way.saturating_mul(2)) {
            return false;
        }
        let done = std::mem::replace(sample, fresh);
        let share = |part: u32, percent: u32| part * 100 >= done.pulls * percent;
        let limited = done.pulls >= PULLS && share(done.filled, FILLED) && share(done.waited, WAITED);
        // While carriers are still being dialled, or were lost, nothing can be said of their number.
        if healthy >= usize::from(self.want)
            && !std::mem::take(&mut self.ramping)
            && limited
            && way >= LONG_WAY
            && !full
        {
            let times = if way >= FAR { 4 } else { 2 };
            self.ramping = self.want < SLOTS;
            self.want = self.want.saturating_mul(times).min(SLOTS);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    /// Runs for `seconds` where small frames take `express(carriers)`; the numbers wanted on the way.
    fn run(way: u64, seconds: u64, filled: bool, waited: bool, express: impl Fn(u8) -> Option<u64>) -> Vec<u8> {
        let start = crate::tunnel::session::tests::start();
        let mut demand = Demand::new();
        let mut wanted = vec![demand.want()];
        for step in 0..seconds * 100 {
            let express = express(demand.want()).map(MS);
            demand.on_pull(start + MS(step * 10), (filled, waited), MS(way), express, demand.want().into());
            if wanted.last() != Some(&demand.want()) {
                wanted.push(demand.want());
            }
        }
        wanted
    }

    #[test]
    fn grows_while_sockets_take_less_than_there_is_and_the_way_has_no_queue() {
        assert_eq!(run(200, 3, true, true, |_| Some(205)), [2, 8, 16]);
        assert_eq!(run(100, 2, true, true, |_| Some(101)), [2, 8, 16]);
        assert_eq!(run(10, 20, true, true, |_| Some(10)), [2, 4, 8, 16]);
    }

    #[test]
    fn a_way_whose_queue_is_full_needs_no_more() {
        assert_eq!(run(100, 60, true, true, |carriers| (carriers >= 4).then_some(180)), [2, 8]);
    }

    #[test]
    fn a_short_way_a_slow_sender_and_a_busy_machine_need_no_more() {
        assert_eq!(run(1, 20, true, true, |_| None), [2]);
        assert_eq!(run(100, 20, false, true, |_| None), [2]);
        assert_eq!(run(100, 20, true, false, |_| None), [2]);
    }

    #[test]
    fn nothing_is_asked_for_while_what_was_asked_for_is_not_there() {
        let (start, mut demand) = (crate::tunnel::session::tests::start(), Demand::new());
        for step in 0..1000 {
            demand.on_pull(start + MS(step * 10), (true, true), MS(100), None, 3);
        }
        assert_eq!(demand.want(), 8);
    }
}
