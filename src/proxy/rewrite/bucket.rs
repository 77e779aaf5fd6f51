//! A rate of bytes, kept by waiting: what goes beyond it is let through and paid for in time.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

/// What may go at once after a rest, in time at the rate.
const BURST: Duration = Duration::from_secs(1);

/// Bytes at a rate, with a second's worth at once after a rest. Bytes that went are never taken back, so
/// the rate holds over any time that is long against a second, whatever the size of the pieces.
#[derive(Debug, Clone, Copy)]
pub struct Bucket {
    rate: NonZeroU64,
    /// When all that went is paid for.
    paid: Instant,
}

impl Bucket {
    /// `rate` in bytes a second; full at `now`.
    #[must_use]
    pub fn new(rate: NonZeroU64, now: Instant) -> Self {
        Self { rate, paid: before(now) }
    }

    /// So many bytes went at `now`.
    pub fn take(&mut self, bytes: u64, now: Instant) {
        let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(self.rate.get());
        let costs = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX / 2));
        let from = self.paid.max(before(now));
        self.paid = from.checked_add(costs).unwrap_or(from);
    }

    /// Until when nothing more may go; `None` when something may at `now`.
    #[must_use]
    pub fn waits_until(&self, now: Instant) -> Option<Instant> {
        (self.paid > now).then_some(self.paid)
    }

    /// Whether it is as a new one.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.paid <= before(now)
    }
}

/// A burst before `now`; the clock's beginning where it is younger.
fn before(now: Instant) -> Instant {
    now.checked_sub(BURST).unwrap_or(now)
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a moment to begin with")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(bytes: u64) -> NonZeroU64 {
        NonZeroU64::new(bytes).expect("a rate")
    }

    #[test]
    fn lets_a_burst_go_and_then_keeps_the_rate() {
        let start = Instant::now() + Duration::from_secs(10);
        let mut bucket = Bucket::new(rate(1_000), start);
        bucket.take(999, start);
        assert_eq!((bucket.waits_until(start), bucket.is_full(start)), (None, false));
        bucket.take(501, start);
        assert_eq!(bucket.waits_until(start), Some(start + Duration::from_millis(500)));
        let later = start + Duration::from_millis(500);
        assert_eq!(bucket.waits_until(later), None);
        assert!(!bucket.is_full(later) && bucket.is_full(start + Duration::from_millis(1_500)));
        // A long rest is worth a second and no more.
        let rested = start + Duration::from_secs(100);
        bucket.take(3_000, rested);
        assert_eq!(bucket.waits_until(rested), Some(rested + Duration::from_secs(2)));
    }

    proptest! {
        /// Whoever waits as told gets the rate, and never more than it and a burst and one piece.
        #[test]
        fn keeps_the_rate_whatever_the_pieces(
            bytes_a_second in 1_000_u64..10_000_000,
            pieces in prop::collection::vec((1_u64..300_000, 0_u64..50), 1..200),
        ) {
            let start = Instant::now() + Duration::from_secs(10);
            let mut bucket = Bucket::new(rate(bytes_a_second), start);
            let (mut now, mut gone, mut most) = (start, 0, 0);
            for (bytes, idle_ms) in pieces {
                now += Duration::from_millis(idle_ms);
                now = bucket.waits_until(now).unwrap_or(now);
                let allowed = bytes_a_second as f64 * (1.0 + (now - start).as_secs_f64());
                prop_assert!(gone as f64 <= allowed + 1.0, "{gone} gone, {allowed} allowed");
                bucket.take(bytes, now);
                gone += bytes;
                most = most.max(bytes);
            }
            // And it is not slower: all is paid for when the rate says so.
            let paid = bucket.waits_until(now).unwrap_or(now);
            prop_assert!((paid - start).as_secs_f64() <= gone as f64 / bytes_a_second as f64 + 200.0 * 0.05 + 0.1);
        }
    }
}
