//! How many carriers this side's sending has use for: more while they limit it on a long way, and only as long as more help.
//!
//! One TCP connection is bounded by its windows and by what it takes for congestion, both per round trip. So a number is tried,
//! twice the last, and kept where the rate rose with it.

use std::time::{Duration, Instant};

use super::{FIRST_CARRIERS, SLOTS};

/// Below this round trip a single connection fills what the machine can give.
pub(super) const LONG_WAY: Duration = Duration::from_millis(5);
/// Shortest time over which a rate is measured; four round trips where that is longer.
const SAMPLE: Duration = Duration::from_millis(500);
/// Share of pulls that were filled to their bound, in percent, from which on the carriers are what limits.
const FILLED: u32 = 80;
/// Fewest pulls that say something.
const PULLS: u32 = 4;
/// More carriers help when the rate rises by this, in percent.
const GAIN: u64 = 15;
/// Trials that did not help, one after the other, after which it is left at that: rates over a lossy way go up and down by themselves.
const FAILURES: u8 = 2;
/// How long it is left at that.
const REST: Duration = Duration::from_secs(30);

/// The way's own queue is full when a small frame takes this much longer than the way alone, in percent: more carriers only make it longer.
const QUEUE: u32 = 20;

/// Measures what is sent, and asks for carriers.
#[derive(Debug)]
pub(super) struct Demand {
    want: u8,
    sample: Option<Sample>,
    /// Bytes a second before the present number was tried.
    before: Option<u64>,
    /// The first sample with a new number is its ramp.
    ramping: bool,
    failures: u8,
    rest_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    since: Instant,
    bytes: u64,
    pulls: u32,
    filled: u32,
}

impl Demand {
    pub(super) const fn new() -> Self {
        Self { want: FIRST_CARRIERS, sample: None, before: None, ramping: false, failures: 0, rest_until: None }
    }

    /// The number of carriers wanted.
    pub(super) const fn want(&self) -> u8 {
        self.want
    }

    /// A carrier pulled: `filled` when there was more than it could take, `bytes` all that was ever sent, `way` the shortest
    /// round trip, `express` the present one of the carrier which has no bulk, `healthy` the carriers that serve. True when a sample is complete.
    pub(super) fn on_pull(
        &mut self,
        now: Instant,
        filled: bool,
        bytes: u64,
        way: Duration,
        express: Option<Duration>,
        healthy: usize,
    ) -> bool {
        let full = express.is_some_and(|rtt| rtt > way + way * QUEUE / 100);
        let fresh = Sample { since: now, bytes, pulls: 0, filled: 0 };
        let sample = self.sample.get_or_insert(fresh);
        sample.pulls += 1;
        sample.filled += u32::from(filled);
        let elapsed = now.saturating_duration_since(sample.since);
        if elapsed < SAMPLE.max(way.saturating_mul(4)) {
            return false;
        }
        let done = std::mem::replace(sample, fresh);
        let rate = (u128::from(bytes - done.bytes) * 1_000_000 / elapsed.as_micros().max(1)) as u64;
        let limited = done.pulls >= PULLS && done.filled * 100 >= done.pulls * FILLED && way >= LONG_WAY && !full;
        self.judge(now, rate, limited, healthy);
        true
    }

    fn judge(&mut self, now: Instant, rate: u64, limited: bool, healthy: usize) {
        if healthy < usize::from(self.want) {
            // They are still being dialled, or were lost: nothing can be said of the number.
            return;
        }
        if std::mem::take(&mut self.ramping) {
            return;
        }
        if let Some(before) = self.before.take() {
            let helped = rate >= before.saturating_add(before / 100 * GAIN);
            self.failures = if helped { 0 } else { self.failures + 1 };
            if self.failures == FAILURES {
                self.failures = 0;
                self.rest_until = Some(now + REST);
            }
        }
        let resting = self.rest_until.is_some_and(|until| now < until);
        if limited && !resting && self.want < SLOTS {
            self.want = self.want.saturating_mul(2).min(SLOTS);
            self.before = Some(rate);
            self.ramping = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs for `seconds` on a path where `carriers` send `rate(carriers)` bytes a second; the numbers wanted on the way.
    fn run(rtt_ms: u64, seconds: u64, filled: bool, rate: impl Fn(u8) -> u64) -> Vec<u8> {
        let start = crate::tunnel::session::tests::start();
        let mut demand = Demand::new();
        let (mut bytes, mut wanted) = (0, vec![demand.want()]);
        for step in 0..seconds * 100 {
            let now = start + Duration::from_millis(step * 10);
            bytes += rate(demand.want()) / 100;
            demand.on_pull(now, filled, bytes, Duration::from_millis(rtt_ms), None, demand.want().into());
            if wanted.last() != Some(&demand.want()) {
                wanted.push(demand.want());
            }
        }
        wanted
    }

    #[test]
    fn grows_while_each_carrier_adds_its_share_and_stops_where_the_link_is_full() {
        // 18 MB/s each, as with 4 MiB windows at 200 ms, on a link of 120 MB/s: 8 do 120, 16 do no more.
        assert_eq!(run(200, 20, true, |carriers| (18_000_000 * u64::from(carriers)).min(120_000_000)), [2, 4, 8, 16]);
        assert_eq!(run(100, 20, true, |_| 12_000_000), [2, 4, 8]);
    }

    #[test]
    fn a_short_way_and_a_slow_sender_need_no_more() {
        assert_eq!(run(1, 20, true, |carriers| 1_000_000 * u64::from(carriers)), [2]);
        assert_eq!(run(100, 20, false, |carriers| 1_000_000 * u64::from(carriers)), [2]);
    }

    #[test]
    fn a_way_whose_queue_is_full_needs_no_more() {
        let start = crate::tunnel::session::tests::start();
        let mut demand = Demand::new();
        for step in 0..2000_u64 {
            // From four carriers on small frames wait in the way's queue, and the rate still seems to rise.
            let ms = |ms| Duration::from_millis(ms);
            let express = (demand.want() >= 4).then(|| ms(180));
            let bytes = step * step * 10_000;
            demand.on_pull(start + ms(step * 10), true, bytes, ms(100), express, demand.want().into());
        }
        assert_eq!(demand.want(), 4);
    }

    #[test]
    fn what_did_not_help_is_tried_again_later() {
        assert_eq!(run(100, 60, true, |_| 12_000_000), [2, 4, 8, 16]);
    }

    #[test]
    fn eight_carriers_are_there_within_four_seconds() {
        let within = |seconds| run(200, seconds, true, |carriers| 18_000_000 * u64::from(carriers));
        assert_eq!(within(4), [2, 4, 8]);
    }
}
