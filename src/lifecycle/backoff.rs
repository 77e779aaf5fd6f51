//! Waiting longer after each failure, with jitter, so that peers do not come back in step.

use std::time::Duration;

/// Exponential backoff: each delay is drawn from the upper half of a step that doubles from `first` to `most`.
///
/// Pure: randomness is an argument.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    most: Duration,
    step: Duration,
}

impl Backoff {
    /// Starts at `first`, never above `most`.
    #[must_use]
    pub fn new(first: Duration, most: Duration) -> Self {
        Self { first, most: most.max(first), step: first }
    }

    /// The delay before the next try; `random` is uniform over `u32`.
    pub fn next(&mut self, random: u32) -> Duration {
        let step = self.step;
        self.step = step.saturating_mul(2).min(self.most);
        let half = step / 2;
        half + Duration::from_secs_f64(half.as_secs_f64() * f64::from(random) / f64::from(u32::MAX))
    }

    /// Back to the first delay, after a success.
    pub fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_within_its_bounds_and_starts_again() {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(150));
        let high: Vec<_> = (0..4).map(|_| backoff.next(u32::MAX).as_millis()).collect();
        assert_eq!(high, [50, 100, 150, 150]);
        assert_eq!(backoff.next(0).as_millis(), 75);
        backoff.reset();
        assert_eq!(backoff.next(0).as_millis(), 25);
    }
}
