//! How much a stream's sender may send ahead: begins small, doubles while it is what limits, within a budget of the session.

use std::time::{Duration, Instant};

/// The most that a new stream may send before it is answered, in bytes.
pub(super) const EARLY: u64 = 64 * 1024;
/// Window of an answered stream on a short way.
pub(super) const FIRST: u64 = 256 * 1024;
/// Bytes a second that a stream's first window allows on a long way: three more doublings reach 2.5 Gbit/s.
const FIRST_RATE: u64 = 40_000_000;
/// Largest window of one stream.
pub(super) const MOST: u64 = 64 << 20;
/// From here on a window is large.
const LARGE: u64 = 4 << 20;
/// Smallest window that a stream keeps however tight the budget is.
const LEAST: u64 = 1024;
/// Round trips shorter than this are taken for this: growth needs a measurable time.
const SHORTEST_RTT: Duration = Duration::from_micros(200);

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

    /// The peer uses `outstanding` bytes of the window and gave the rest back, or took more than was known.
    pub(super) const fn set(&mut self, target: u64) {
        self.target = target;
    }

    /// The application read up to `read_off`; `rtt` is the way's round trip without its queues (a window taken from one with queues
    /// would fill the queues again, and grow with them), `most` what the budget allows this stream.
    /// `outstanding` is what the peer may still send without another word, and what it sent before. True when the window grew.
    pub(super) fn on_read(&mut self, now: Instant, read_off: u64, rtt: Duration, most: u64, outstanding: u64) -> bool {
        let (since, at) = *self.measured_since.get_or_insert((now, read_off));
        let read = read_off.saturating_sub(at);
        let elapsed = now.saturating_duration_since(since);
        let rtt = rtt.max(SHORTEST_RTT);
        let mut grew = false;
        // Others came, and share.
        self.target = self.target.min(most.max(outstanding));
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

    /// What to permit now, if it is a good part more than `max_off`: a quarter of a window, or of a large one a sixteenth, which
    /// leaves the peer more of it at little cost.
    pub(super) fn update(&self, read_off: u64, max_off: u64) -> Option<u64> {
        let target = self.target;
        let permit = read_off.saturating_add(target);
        let part = if target > LARGE { target / 16 } else { target / 4 };
        (permit > max_off && permit - max_off >= part).then_some(permit)
    }
}

/// Bytes held for the peer, by all streams of a session: one half for what is received, one for what is sent.
///
/// Of each half, every stream that may ever be open has its floor; what is left is shared. A stream takes at most three times as
/// much of the share as it leaves: one alone gets three quarters of it, a hundred greedy ones a hundredth each, and whoever comes
/// late finds a third of what the others have.
#[derive(Debug)]
pub(super) struct Budget {
    half: u64,
    floor: u64,
    /// Received and not consumed by the application.
    pub(super) received: u64,
    /// Written and not acknowledged.
    pub(super) sent: u64,
    /// What the windows permit the peer.
    promised: Share,
    /// What is kept for the peer.
    kept: Share,
}

/// What streams have above their floors.
#[derive(Debug)]
struct Share {
    all: u64,
    used: u64,
}

impl Share {
    const fn left(&self) -> u64 {
        self.all.saturating_sub(self.used)
    }

    /// The most that a stream may have above its floor which has `mine` now.
    const fn most(&self, mine: u64) -> u64 {
        self.left().saturating_add(mine) / 4 * 3
    }

    const fn change(&mut self, before: u64, after: u64) {
        self.used = (self.used + after).saturating_sub(before);
    }
}

impl Budget {
    /// For at most `streams` at once.
    pub(super) fn new(bytes: u64, streams: usize) -> Self {
        let half = bytes / 2;
        let streams = (streams as u64).max(1);
        let floor = (half / 2 / streams).clamp(LEAST, EARLY);
        // With very many streams in a very small budget their floors alone exceed it; still some are to be quick.
        let all = half.saturating_sub(floor.saturating_mul(streams)).max(half / 4);
        let share = || Share { all, used: 0 };
        Self { half, floor, received: 0, sent: 0, promised: share(), kept: share() }
    }

    /// What each stream may always send ahead, and keep.
    pub(super) const fn floor(&self) -> u64 {
        self.floor
    }

    const fn above(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.floor)
    }

    /// The most that one stream's window may be now, its present target being `target`.
    pub(super) fn most(&self, target: u64) -> u64 {
        (self.floor + self.promised.most(self.above(target))).min(MOST)
    }

    /// A stream's window changed; zero stands for none.
    pub(super) const fn promise(&mut self, before: u64, after: u64) {
        self.promised.change(self.above(before), self.above(after));
    }

    /// Window of a stream that is being answered, where a round trip takes `rtt`. Half of the share is kept for those that
    /// have shown their use for more.
    pub(super) fn first(&self, rtt: Duration) -> u64 {
        let free = self.promised.left().saturating_sub(self.promised.all / 2);
        first(rtt).min(self.floor + free.min((free / 8).max(FIRST)))
    }

    /// Whether another stream may be taken.
    pub(super) const fn is_full(&self) -> bool {
        self.received >= self.half
    }

    /// Whether more is held than any window permits: the peer uses credit that it gave back.
    pub(super) const fn is_overdrawn(&self) -> bool {
        self.received > self.half + self.half / 16
    }

    /// Bytes that one stream which holds `held` may write now.
    pub(super) const fn send_room(&self, held: u64) -> u64 {
        (self.floor + self.kept.most(self.above(held))).saturating_sub(held)
    }

    /// Whether somebody may write beyond its floor.
    pub(super) const fn has_send_room(&self) -> bool {
        self.kept.left() > 0
    }

    /// What a stream keeps for the peer changed.
    pub(super) const fn keep(&mut self, before: u64, after: u64) {
        self.sent = (self.sent + after).saturating_sub(before);
        self.kept.change(self.above(before), self.above(after));
    }

    /// What the windows permit the peer above their floors, in bytes.
    #[cfg(test)]
    pub(super) const fn promised(&self) -> u64 {
        self.promised.used
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
            window.on_read(now, read, rtt, MOST, 0);
        }
        assert_eq!(window.target(), 8 * FIRST);
    }

    #[test]
    fn never_grows_beyond_what_the_budget_allows() {
        let mut now = crate::tunnel::session::tests::start();
        let mut window = Window::new(FIRST);
        let mut read = 0;
        for _ in 0..100 {
            now += Duration::from_micros(10);
            read += window.target();
            window.on_read(now, read, Duration::from_millis(1), 3 * FIRST, 0);
        }
        assert_eq!(window.target(), 3 * FIRST);
    }

    #[test]
    fn a_long_way_begins_with_a_larger_window() {
        let first_at = |ms| first(Duration::from_millis(ms));
        assert_eq!([0, 10, 100, 200].map(first_at), [FIRST, 400_000, 4_000_000, 8_000_000]);
        assert_eq!(first_at(1_000_000), MOST);
    }

    #[test]
    fn permits_by_quarters() {
        let window = Window::new(400);
        assert_eq!(window.update(99, 400), None);
        assert_eq!(window.update(100, 400), Some(500));
    }

    #[test]
    fn one_stream_gets_three_quarters_of_what_is_shared_and_many_get_the_same() {
        // 32 MiB each way, of which 100 floors of 64 KiB are set aside.
        let mut budget = Budget::new(64 << 20, 100);
        assert_eq!(budget.floor(), EARLY);
        let all = (32 << 20) - 100 * EARLY;
        assert_eq!(budget.most(EARLY), EARLY + all / 4 * 3);
        assert_eq!(budget.send_room(0), EARLY + all / 4 * 3);
        // Nine that take all they may, in turns, until nothing changes.
        let mut held = [0; 9];
        for _ in 0..100 {
            for one in &mut held {
                let may = *one + budget.send_room(*one);
                let may = may.min(EARLY + budget.kept.most(budget.above(*one)));
                budget.keep(*one, may);
                *one = may;
            }
        }
        assert!(held.iter().all(|one| one.abs_diff(EARLY + all / 28 * 3) < 1024), "{held:?}");
        assert!(budget.send_room(0) > EARLY + all / 28 / 4 * 3 - 1024);
        assert_eq!(budget.sent, held.iter().sum::<u64>());
    }

    #[test]
    fn the_sum_of_all_windows_stays_within_the_budget() {
        let streams = 16_384;
        let mut budget = Budget::new(256 << 20, streams);
        assert_eq!(budget.floor(), 4096);
        let mut promised = 0;
        for at in 0..streams as u64 {
            // All are answered on a long way; every other one grows as often as it may.
            let mut window = budget.first(Duration::from_millis(200)).max(budget.floor());
            budget.promise(0, window);
            if at % 2 == 0 {
                let most = budget.most(window).max(window);
                budget.promise(window, most);
                window = most;
            }
            promised += window;
            assert!(promised <= 128 << 20, "{promised} after {at}");
        }
        assert_eq!(budget.first(Duration::from_millis(200)), 4096);
        assert!(budget.promised.left() < 2 && !budget.is_full());
    }

    #[test]
    fn a_budget_too_small_for_its_streams_still_gives_each_a_little() {
        let budget = Budget::new(1 << 20, 16_384);
        assert_eq!((budget.floor(), budget.send_room(0)), (LEAST, LEAST + (96 << 10)));
        assert_eq!(budget.send_room(1 << 20), 0);
    }
}
