//! Repeated failures in the log: one line at once, then at most one a minute with a count.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the same failure is only counted.
const SILENCE: Duration = Duration::from_secs(60);

/// The gate before one kind of log line.
#[derive(Debug, Default)]
pub(super) struct Quiet(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    last: Option<Instant>,
    held: u64,
}

impl Quiet {
    /// Whether a line may be written at `now`; if so, how many were held back since the last one.
    pub(super) fn pass(&self, now: Instant) -> Option<u64> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.last.is_some_and(|last| now.saturating_duration_since(last) < SILENCE) {
            state.held += 1;
            return None;
        }
        state.last = Some(now);
        Some(std::mem::take(&mut state.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_at_once_then_one_a_minute_with_the_count() {
        let quiet = Quiet::default();
        let start = Instant::now();
        let passed: Vec<_> = (0..=125).filter_map(|s| Some((s, quiet.pass(start + Duration::from_secs(s))?))).collect();
        assert_eq!(passed, [(0, 0), (60, 59), (120, 59)]);
    }
}
