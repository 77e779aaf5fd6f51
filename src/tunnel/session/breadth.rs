//! Over how many carriers bulk is striped on a long way: as many as fill it, and no more.
//!
//! Each carrier's TCP keeps its window of bytes in flight. More windows than the way holds stand in the queue at its narrowest
//! place, where all that is small waits behind them, and is lost with them when the queue is full. The carrier without bulk
//! tells how long that queue is.

use std::time::{Duration, Instant};

/// Longest queue, in percent of the way: beyond it, twice in a row, fewer carriers are used for bulk.
const HIGH: u32 = 22;
/// Queue below which one more may be tried.
const LOW: u32 = 8;
/// A number that was too many is tried again after so long, and twice as long after each failure.
const RETRY: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(60));

/// The number of carriers for bulk.
#[derive(Debug)]
pub(super) struct Breadth {
    /// At most so many; no bound until there was a queue.
    most: Option<usize>,
    /// The round trip before: a single long one is no queue.
    before: Option<Duration>,
    /// A change shows in the round trip only later.
    settled_at: Option<Instant>,
    /// So many were too many.
    failed: Option<Failed>,
}

#[derive(Debug, Clone, Copy)]
struct Failed {
    count: usize,
    again_at: Instant,
    pause: Duration,
}

impl Breadth {
    pub(super) const fn new() -> Self {
        Self { most: None, before: None, settled_at: None, failed: None }
    }

    /// At most so many carriers take bulk.
    pub(super) fn most(&self) -> usize {
        self.most.unwrap_or(usize::MAX)
    }

    /// The carrier without bulk took `rtt` for a round trip where the way alone takes `way`; `used` carriers take bulk and
    /// `there` could. True when the number changed.
    pub(super) fn on_rtt(&mut self, now: Instant, rtt: Duration, way: Duration, used: usize, there: usize) -> bool {
        let shortest = self.before.replace(rtt).map_or(way, |before| before.min(rtt));
        if self.settled_at.is_some_and(|at| now < at) {
            return false;
        }
        let queue = shortest.saturating_sub(way);
        let before = self.most;
        if queue > way * HIGH / 100 && used > 1 {
            // Each carrier has its share of what is in flight.
            let keep = (used as u128 * way.as_micros() / shortest.as_micros().max(1)) as usize;
            self.most = Some((keep + 1).clamp(used.div_ceil(2), used - 1));
            let again = self.failed.filter(|failed| used >= failed.count).map_or(RETRY.0, |failed| failed.pause * 2);
            let pause = again.min(RETRY.1);
            self.failed = Some(Failed { count: used, again_at: now + pause, pause });
            self.settled_at = Some(now + shortest * 2);
        } else if rtt.saturating_sub(way) < way * LOW / 100
            && let Some(most) = self.most
            && self.failed.is_none_or(|failed| most + 1 < failed.count || now >= failed.again_at)
        {
            self.most = (most < there).then_some(most + 1);
            self.settled_at = Some(now + way * 4);
        }
        self.most != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tunnel::session::tests::start;

    const WAY: Duration = Duration::from_millis(100);

    /// A link of 125 MB/s whose queue holds another 12.5 MB; each carrier keeps 3.3 MB in flight. The numbers used, one a round.
    fn run(there: usize, rounds: u32) -> Vec<(usize, Duration)> {
        let mut breadth = Breadth::new();
        let mut now = start();
        let mut seen = Vec::new();
        for _ in 0..rounds {
            let used = breadth.most().min(there);
            let queued = (used as u64 * 3_300_000).saturating_sub(12_500_000).min(12_500_000);
            let rtt = WAY + Duration::from_nanos(queued * 8);
            seen.push((used, rtt));
            now += rtt.max(Duration::from_millis(200));
            breadth.on_rtt(now, rtt, WAY, used, there);
        }
        seen
    }

    #[test]
    fn seven_carriers_that_fill_the_queue_become_four_and_stay_that_but_for_short_tries() {
        let seen = run(7, 1000);
        assert_eq!(seen[0].0, 7);
        assert!(seen[10..].iter().all(|(used, _)| (4..=5).contains(used)), "{seen:?}");
        let long = seen[10..].iter().filter(|(_, rtt)| *rtt > WAY * 6 / 5).count();
        assert!(long * 100 <= seen.len() * 10, "{long} of {}", seen.len());
    }

    #[test]
    fn where_there_is_no_queue_nothing_is_held_back() {
        assert!(run(3, 50).iter().all(|(used, _)| *used == 3));
    }

    #[test]
    fn what_a_stall_took_comes_back_within_seconds() {
        let (mut breadth, mut now) = (Breadth::new(), start());
        let mut ask = |breadth: &mut Breadth, rtt: Duration, rounds: u32| {
            for _ in 0..rounds {
                now += Duration::from_millis(200);
                let used = breadth.most().min(7);
                breadth.on_rtt(now, rtt, WAY, used, 7);
            }
        };
        ask(&mut breadth, WAY * 10, 30);
        assert_eq!(breadth.most(), 1);
        ask(&mut breadth, WAY, 60);
        assert_eq!(breadth.most(), usize::MAX);
    }

    #[test]
    fn a_few_long_round_trips_are_no_queue() {
        let (mut breadth, mut now) = (Breadth::new(), start());
        for round in 0..100 {
            now += Duration::from_millis(200);
            breadth.on_rtt(now, if round % 2 == 0 { WAY } else { WAY * 3 }, WAY, 7, 7);
        }
        assert_eq!(breadth.most(), usize::MAX);
    }
}
