//! How much a stream's sender may send ahead: begins small, doubles while it is what limits, within a budget of the session.

use std::time::{Duration, Instant};

/// Bytes that a new stream may send before it is answered.
pub(super) const EARLY: u32 = 64 * 1024;
/// Window of an answered stream on a short way.
pub(super) const FIRST: u64 = 512 * 1024;
/// Bytes a second that a stream's first window allows on a long way: three more doublings reach 2.5 Gbit/s.
const FIRST_RATE: u64 = 40_000_000;
/// Largest window of one stream.
pub(super) const MOST: u64 = 64 << 20;
/// Smallest window that a stream keeps however tight the budget is.
pub(super) const LEAST: u64 = 16 * 1024;
/// Round trips shorter than this are taken for this: growth needs a measurable time.
const SHORTEST_RTT: Duration = Duration::from_millis(1);

/// Window of an answered stream where a round trip takes `rtt`, in bytes.
fn first(rtt: Duration) -> u64 {
    let bytes = u128::from(FIRST_RATE) * rtt.as_micros() / 1_000_000;
    u64::try_from(bytes).unwrap_or(MOST).clamp(FIRST, MOST)
}

/// The window of one stream's receiving half.
///
/// The receiver permits `read_off + target`. Whenever more than half of `target` was read within one round trip, the window
/// is taken for the limit and doubles; so it settles at up to twice the product of delivery rate and round trip.
#[derive(Debug)]
pub(super) struct Window {
    target: u64,
    measured_since: Option<(Instant, u64)>,
}

impl Window {
    pub(super) const fn new(target: u64) -> Self {
        Self { target, measured_since: None }
    }

    /// Target size, in bytes.
    pub(super) const fn target(&self) -> u64 {
        self.target
    }

    /// Enlarges the window to `target` at least.
    pub(super) fn raise(&mut self, target: u64) {
        self.target = self.target.max(target);
    }

    /// The application read up to `read_off`; `rtt` is the best round trip known, `most` what the budget allows this stream.
    /// True when the window grew.
    pub(super) fn on_read(&mut self, now: Instant, read_off: u64, rtt: Duration, most: u64) -> bool {
        let (since, at) = *self.measured_since.get_or_insert((now, read_off));
        let read = read_off.saturating_sub(at);
        let elapsed = now.saturating_duration_since(since);
        let rtt = rtt.max(SHORTEST_RTT);
        let mut grew = false;
        if read > self.target / 2 {
            // Half a window within a round trip: the window limits.
            if elapsed <= rtt && self.target < most {
                self.target = self.target.saturating_mul(2).min(most);
                grew = true;
            }
            self.measured_since = Some((now, read_off));
        } else if elapsed > rtt {
            self.measured_since = Some((now, read_off));
        }
        grew
    }

    /// What to permit now, if it is at least a quarter of the window more than `max_off`.
    pub(super) fn update(&self, read_off: u64, max_off: u64, most: u64) -> Option<u64> {
        let target = self.target.min(most.max(LEAST));
        let permit = read_off.saturating_add(target);
        (permit > max_off && permit - max_off >= target / 4).then_some(permit)
    }
}

/// Bytes held for the peer, by all streams of a session: one half for what is received, one for what is sent.
#[derive(Debug)]
pub(super) struct Budget {
    half: u64,
    /// Received and not read.
    pub(super) received: u64,
    /// Written and not acknowledged.
    pub(super) sent: u64,
    /// Sum of the windows' targets.
    pub(super) promised: u64,
}

impl Budget {
    pub(super) const fn new(bytes: u64) -> Self {
        Self { half: bytes / 2, received: 0, sent: 0, promised: 0 }
    }

    /// The most that one stream's window may be now, its present target being `target`.
    pub(super) fn most(&self, target: u64) -> u64 {
        let left = self.half.saturating_sub(self.promised);
        let most = MOST.min(self.half / 4);
        if left == 0 { target.min(most) } else { target.saturating_add(left).min(most) }.max(LEAST)
    }

    /// Window of a stream that is being answered, where a round trip takes `rtt`: larger ones only while the budget is hardly used.
    pub(super) fn first(&self, rtt: Duration) -> u64 {
        let left = self.half.saturating_sub(self.promised);
        first(rtt).min((left / 16).max(FIRST)).min(self.most(0))
    }

    /// Whether another stream may be taken.
    pub(super) const fn is_full(&self) -> bool {
        self.received >= self.half
    }

    /// Bytes that one stream which holds `held` may write now.
    pub(super) const fn send_room(&self, held: u64) -> u64 {
        let left = self.half.saturating_sub(self.sent);
        // Each stream may keep a little whatever the others do, or one could wait for ever.
        let own = LEAST.saturating_sub(held);
        if left > own { left } else { own }
    }

    /// The limit of one direction, in bytes.
    pub(super) const fn limit(&self) -> u64 {
        self.half
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_while_it_limits_and_rests_at_twice_the_product() {
        let mut now = crate::tunnel::session::tests::start();
        let rtt = Duration::from_millis(100);
        let mut window = Window::new(FIRST);
        let mut read = 0;
        // A path of 10 MB/s: 1 MB a round trip, read in steps of a tenth of it, never faster than the window allows.
        for _ in 0..200 {
            let rate = 1_000_000.min(window.target()) / 10;
            now += rtt / 10;
            read += rate;
            window.on_read(now, read, rtt, MOST);
        }
        assert_eq!(window.target(), 4 * FIRST);
    }

    #[test]
    fn never_grows_beyond_what_the_budget_allows() {
        let mut now = crate::tunnel::session::tests::start();
        let mut window = Window::new(FIRST);
        let mut read = 0;
        for _ in 0..100 {
            now += Duration::from_micros(10);
            read += window.target();
            window.on_read(now, read, Duration::from_millis(1), 3 * FIRST);
        }
        assert_eq!(window.target(), 3 * FIRST);
    }

    #[test]
    fn a_long_way_begins_with_a_larger_window() {
        let first_at = |ms| first(Duration::from_millis(ms));
        assert_eq!([0, 10, 100, 200].map(first_at), [FIRST, FIRST, 4_000_000, 8_000_000]);
        assert_eq!(first_at(1_000_000), MOST);
    }

    #[test]
    fn permits_by_quarters() {
        let window = Window::new(400);
        assert_eq!(window.update(99, 400, MOST), None);
        assert_eq!(window.update(100, 400, MOST), Some(500));
    }

    #[test]
    fn a_tight_budget_leaves_each_stream_a_little() {
        let mut budget = Budget::new(64 << 20);
        assert_eq!(budget.most(FIRST), 8 << 20);
        assert_eq!(budget.first(Duration::from_millis(200)), 2 << 20);
        budget.promised = 32 << 20;
        assert_eq!(budget.first(Duration::from_millis(200)), LEAST);
        assert_eq!(budget.most(FIRST), FIRST);
        budget.sent = 32 << 20;
        assert_eq!((budget.send_room(0), budget.send_room(LEAST)), (LEAST, 0));
        budget.received = 32 << 20;
        assert!(budget.is_full());
    }
}
