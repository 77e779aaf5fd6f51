//! Counts by reason, and the log gate of each reason.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::quiet::Quiet;

/// Counts under names that stand in the source, so their number is bounded.
#[derive(Debug, Default)]
pub(super) struct Tally(Mutex<BTreeMap<&'static str, (u64, Quiet)>>);

impl Tally {
    /// Counts one.
    pub(super) fn add(&self, what: &'static str) {
        self.lock().entry(what).or_default().0 += 1;
    }

    /// Counts one; if a log line may be written, how many went without one since the last.
    pub(super) fn add_and_pass(&self, what: &'static str) -> Option<u64> {
        let mut counts = self.lock();
        let (count, quiet) = counts.entry(what).or_default();
        *count += 1;
        quiet.pass(Instant::now())
    }

    /// All counts so far.
    pub(super) fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.lock().iter().map(|(&what, &(count, _))| (what, count)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, (u64, Quiet)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
