//! What did not work, counted by reason, and logged without a flood: one line at once, then at most one a minute with a count.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the same reason is only counted.
const SILENCE: Duration = Duration::from_secs(60);

/// Counts by reason. Reasons are texts of this program, so there are only so many.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<BTreeMap<&'static str, Reason>>);

#[derive(Debug, Default)]
struct Reason {
    total: u64,
    held: u64,
    last: Option<Instant>,
}

impl Refusals {
    /// Counts one at `now`. If a line may be written: how many were held back since the last one.
    pub(super) fn note(&self, reason: &'static str, now: Instant) -> Option<u64> {
        let mut reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let reason = reasons.entry(reason).or_default();
        reason.total += 1;
        if reason.last.is_some_and(|last| now.saturating_duration_since(last) < SILENCE) {
            reason.held += 1;
            return None;
        }
        reason.last = Some(now);
        Some(std::mem::take(&mut reason.held))
    }

    /// All counts since the start.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        let reasons = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        reasons.iter().map(|(&reason, state)| (reason, state.total)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_at_once_then_one_a_minute_with_the_count() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let lines: Vec<_> =
            (0..=125).filter_map(|s| Some((s, refusals.note("x", start + Duration::from_secs(s))?))).collect();
        assert_eq!(lines, [(0, 0), (60, 59), (120, 59)]);
        assert_eq!(refusals.note("y", start), Some(0), "each reason by itself");
        assert_eq!(refusals.counts(), BTreeMap::from([("x", 126), ("y", 1)]));
    }
}
