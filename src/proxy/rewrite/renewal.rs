//! When a session with a broker is renewed (KIP-368).
//!
//! A broker closes a connection on which a request comes after the session's end. So the session is renewed before, and a
//! connection that lies idle then only when its client speaks again: it must not look used to a broker that ends idle ones.

use std::time::{Duration, Instant};

/// Part of its lifetime after which a session is renewed, in per cent: 85, and up to 5 less or more so that connections do not
/// come in step.
const PERCENT: (u32, u32) = (80, 90);

/// Brokers take a second renewal within one second for an ordinary request and refuse it.
const LEAST: Duration = Duration::from_millis(1_100);

/// A lifetime above this never ends.
const MOST: Duration = Duration::from_secs(365 * 86_400);

/// The plan of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    due: Option<Instant>,
    used: bool,
}

impl Renewal {
    /// After an authentication at `now` which the broker lets last for `lifetime`, or for ever; `random` chooses the moment.
    #[must_use]
    pub fn after(lifetime: Option<Duration>, random: u8, now: Instant) -> Self {
        let due = lifetime.filter(|lifetime| *lifetime <= MOST).map(|lifetime| {
            let percent = PERCENT.0 + u32::from(random) * (PERCENT.1 - PERCENT.0) / 255;
            now + (lifetime * percent / 100).max(LEAST)
        });
        Self { due, used: false }
    }

    /// When it is to be renewed; `None` for never.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// A request went to the broker.
    pub const fn note_use(&mut self) {
        self.used = true;
    }

    /// Whether it is to be renewed now: it is due, and the connection was used since the last time or `waits` to be.
    #[must_use]
    pub fn is_due(&self, waits: bool, now: Instant) -> bool {
        (self.used || waits) && self.due.is_some_and(|due| due <= now)
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "a moment to begin with")]
mod tests {
    use super::*;

    #[test]
    fn is_due_between_80_and_90_per_cent_and_not_twice_within_a_second() {
        let now = Instant::now();
        let after = |lifetime_ms, random| {
            let renewal = Renewal::after(Some(Duration::from_millis(lifetime_ms)), random, now);
            renewal.due().map(|due| (due - now).as_millis())
        };
        assert_eq!([after(5_000, 0), after(5_000, 128), after(5_000, 255)], [Some(4_000), Some(4_250), Some(4_500)]);
        assert_eq!(after(3_600_000, 255), Some(3_240_000));
        assert_eq!(after(1, 0), Some(1_100));
        assert_eq!(after(u64::MAX, 0), None);
        assert_eq!(Renewal::after(None, 0, now).due(), None);
    }

    #[test]
    fn an_idle_connection_waits_for_its_client() {
        let now = Instant::now();
        let mut renewal = Renewal::after(Some(Duration::from_secs(10)), 0, now);
        let (before, after) = (now + Duration::from_secs(7), now + Duration::from_secs(8));
        assert!(!renewal.is_due(true, before) && !renewal.is_due(false, after) && renewal.is_due(true, after));
        renewal.note_use();
        assert!(renewal.is_due(false, after) && !renewal.is_due(false, before));
    }
}
