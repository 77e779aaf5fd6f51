//! How often something may happen: a bucket that fills again with time.

use std::time::Instant;

/// So many at once, and so many a second on average.
#[derive(Debug)]
pub(super) struct Bucket {
    most: f64,
    per_second: f64,
    left: f64,
    at: Option<Instant>,
}

impl Bucket {
    /// Full.
    pub(super) fn new(most: u32, per_second: u32) -> Self {
        Self { most: most.into(), per_second: per_second.into(), left: most.into(), at: None }
    }

    /// Takes one; false when none is left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if let Some(at) = self.at {
            let filled = now.saturating_duration_since(at).as_secs_f64() * self.per_second;
            self.left = (self.left + filled).min(self.most);
        }
        self.at = Some(now);
        let ok = self.left >= 1.0;
        if ok {
            self.left -= 1.0;
        }
        ok
    }
}

/// A peer's frames that change nothing: a few belong to every loss of a carrier (acknowledgements told again, data that had
/// arrived), and some to streams that end on both sides at once. Each costs a look-up here, and some an answer.
///
/// The bound lies far above what a loss of all carriers makes with all streams open, and its cost below a hundredth of a
/// processor.
#[derive(Debug)]
pub(super) struct Patience(Bucket, u32);

impl Patience {
    /// For a session of so many streams, of which so many are opened a second.
    pub(super) fn new(streams: usize, opens: u32) -> Self {
        let streams = u32::try_from(streams).unwrap_or(u32::MAX).min(1 << 20);
        let per_second = (1 << 16) + 16 * streams + 4 * opens.min(1 << 20);
        Self(Bucket::new(2 * per_second, per_second), per_second)
    }

    /// One more such frame; `Err` with the bound, in frames a second, when that is one too many.
    pub(super) fn spend(&mut self, now: Instant) -> Result<(), u32> {
        if self.0.take(now) { Ok(()) } else { Err(self.1) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "an Instant cannot be made otherwise")]
    fn gives_what_it_holds_at_once_and_the_rest_with_time() {
        let start = Instant::now();
        let mut bucket = Bucket::new(3, 10);
        let taken =
            |bucket: &mut Bucket, at: u64| (0..9).filter(|_| bucket.take(start + Duration::from_millis(at))).count();
        assert_eq!([0, 99, 100, 350, 5000].map(|at| taken(&mut bucket, at)), [3, 0, 1, 2, 3]);
        // Time that goes backwards gives nothing.
        assert_eq!(taken(&mut bucket, 0), 0);
    }
}
