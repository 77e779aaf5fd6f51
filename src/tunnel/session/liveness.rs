//! Whether the other end of a carrier still lives, and how far away it is.

use std::time::{Duration, Instant};

/// Pause between pings of a carrier that carries data.
const BUSY_PING: Duration = Duration::from_secs(1);
/// Pause between pings of an idle carrier.
const IDLE_PING: Duration = Duration::from_secs(2);
/// A carrier is busy for so long after it carried data.
const BUSY_FOR: Duration = Duration::from_secs(3);
/// Silence after which a carrier gets no new data, at least; three round trips where that is longer.
const SUSPECT_AFTER: Duration = Duration::from_secs(1);
/// Silence after which a carrier is dead.
pub(super) const DEAD_AFTER: Duration = Duration::from_secs(5);
/// How long an answer must have been owed before a carrier is dead.
const OWED: Duration = Duration::from_secs(3);

/// How long the shortest round trip is remembered, at least; at most twice as long.
const REMEMBERED: Duration = Duration::from_secs(600);

/// Liveness of one carrier.
///
/// ```text
///            something sent            max(3 rtt, 1 s) silent           5 s silent
///   quiet ------------------> owed -----------------------> suspect ------------------> dead
///     ^                        |                               |
///     `------------------------+---------- any byte -----------'
/// ```
#[derive(Debug)]
pub(super) struct Liveness {
    last_heard: Instant,
    /// Since when something was sent that the peer answers, with nothing heard since.
    owed_since: Option<Instant>,
    last_ping: Instant,
    last_data: Option<Instant>,
    seq: u64,
    pending: Option<(u64, Instant)>,
    srtt: Option<Duration>,
    shortest: Shortest,
    suspect: bool,
}

/// The shortest of what was measured in the present and the last span of [`REMEMBERED`]: a way may become longer while a carrier
/// lives.
#[derive(Debug, Default)]
struct Shortest {
    begun: Option<Instant>,
    present: Option<Duration>,
    last: Option<Duration>,
}

impl Shortest {
    fn take(&mut self, now: Instant, sample: Duration) {
        let begun = *self.begun.get_or_insert(now);
        if now.saturating_duration_since(begun) >= REMEMBERED {
            self.begun = Some(now);
            self.last = self.present.take();
        }
        self.present = Some(self.present.map_or(sample, |shortest| shortest.min(sample)));
    }

    fn get(&self) -> Option<Duration> {
        self.present.into_iter().chain(self.last).min()
    }
}

/// What is due on a carrier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Send a PING with this number.
    Ping(u64),
    /// Send nothing new there.
    Suspect,
    /// Close it.
    Dead(Duration),
}

impl Liveness {
    /// Begins with a ping due at once: the first round trip is measured.
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last_heard: now,
            owed_since: None,
            last_ping: now.checked_sub(IDLE_PING).unwrap_or(now),
            last_data: None,
            seq: 0,
            pending: None,
            srtt: None,
            shortest: Shortest::default(),
            suspect: false,
        }
    }

    /// Any byte arrived. True when the carrier was suspect.
    pub(super) fn on_heard(&mut self, now: Instant) -> bool {
        self.last_heard = now;
        self.owed_since = None;
        std::mem::take(&mut self.suspect)
    }

    /// Data arrived or went out; gives [`Self::next`] where that came nearer.
    pub(super) fn on_data(&mut self, now: Instant, sent: bool) -> Option<Instant> {
        let busy = self.is_busy();
        self.last_data = Some(now);
        let owed = sent && self.owed_since.is_none();
        if owed {
            self.owed_since = Some(now);
        }
        (owed || !busy).then(|| self.next().0)
    }

    fn is_busy(&self) -> bool {
        self.last_data.is_some_and(|at| self.last_ping < at + BUSY_FOR)
    }

    /// The answer to a ping: how long that took, if it is to the last one.
    pub(super) fn on_pong(&mut self, now: Instant, seq: u64) -> Option<Duration> {
        let (_, at) = self.pending.take_if(|(asked, _)| *asked == seq)?;
        let sample = now.saturating_duration_since(at);
        self.shortest.take(now, sample);
        self.srtt = Some(self.srtt.map_or(sample, |srtt| (srtt * 7 + sample) / 8));
        Some(sample)
    }

    /// Has a ping go out now, unless one is on its way or was asked for within `pause`.
    pub(super) fn probe(&mut self, now: Instant, pause: Duration) -> bool {
        let due = self.pending.is_none() && now.saturating_duration_since(self.last_ping) >= pause;
        if due {
            self.hurry();
        }
        due
    }

    /// Smoothed round trip.
    pub(super) const fn rtt(&self) -> Option<Duration> {
        self.srtt
    }

    /// Shortest round trip of the last [`REMEMBERED`] and more: the way without its queues.
    pub(super) fn shortest(&self) -> Option<Duration> {
        self.shortest.get()
    }

    pub(super) const fn is_suspect(&self) -> bool {
        self.suspect
    }

    fn ping_at(&self) -> Instant {
        self.last_ping + if self.is_busy() { BUSY_PING } else { IDLE_PING }
    }

    fn suspect_at(&self) -> Option<Instant> {
        let patience = self.srtt.unwrap_or_default().saturating_mul(3).max(SUSPECT_AFTER);
        self.owed_since.filter(|_| !self.suspect).map(|since| since + patience)
    }

    fn dead_at(&self) -> Option<Instant> {
        self.owed_since.map(|since| (self.last_heard + DEAD_AFTER).max(since + OWED))
    }

    /// When [`Self::poll`] has something to say.
    pub(super) fn next(&self) -> (Instant, &'static str) {
        let mut next = (self.ping_at(), "ping");
        for (at, why) in [(self.suspect_at(), "suspect"), (self.dead_at(), "dead")] {
            if let Some(at) = at
                && at < next.0
            {
                next = (at, why);
            }
        }
        next
    }

    /// What is due now; call until `None`.
    pub(super) fn poll(&mut self, now: Instant) -> Option<Due> {
        if self.dead_at().is_some_and(|at| at <= now) {
            return Some(Due::Dead(now.saturating_duration_since(self.last_heard)));
        }
        if self.suspect_at().is_some_and(|at| at <= now) {
            self.suspect = true;
            return Some(Due::Suspect);
        }
        if self.ping_at() <= now {
            self.last_ping = now;
            self.seq += 1;
            self.pending = Some((self.seq, now));
            self.owed_since.get_or_insert(now);
            return Some(Due::Ping(self.seq));
        }
        None
    }

    /// Has the next ping due at once.
    pub(super) fn hurry(&mut self) {
        self.last_ping = self.last_ping.checked_sub(IDLE_PING).unwrap_or(self.last_ping);
    }

    /// This process did not run for a while: silence so far says nothing about the peer.
    pub(super) fn forgive(&mut self, now: Instant) {
        self.last_heard = now;
        if self.owed_since.is_some() {
            self.owed_since = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_silent_idle_carrier_is_dead_five_seconds_after_its_last_byte() {
        let start = crate::tunnel::session::tests::start();
        let mut live = Liveness::new(start);
        assert_eq!(live.poll(start), Some(Due::Ping(1)));
        live.on_heard(start + ms(40));
        live.on_pong(start + ms(40), 1);
        assert_eq!((live.rtt(), live.shortest()), (Some(ms(40)), Some(ms(40))));
        assert_eq!(live.next(), (start + ms(2000), "ping"));
        assert_eq!(live.poll(start + ms(2000)), Some(Due::Ping(2)));
        assert_eq!(live.next(), (start + ms(3000), "suspect"));
        assert_eq!(live.poll(start + ms(3000)), Some(Due::Suspect));
        assert_eq!(live.poll(start + ms(4000)), Some(Due::Ping(3)));
        assert_eq!(live.poll(start + ms(5039)), None);
        assert_eq!(live.poll(start + ms(5040)), Some(Due::Dead(ms(5000))));
    }

    #[test]
    fn data_without_an_answer_makes_it_suspect_in_one_second_and_any_byte_clears_it() {
        let start = crate::tunnel::session::tests::start();
        let mut live = Liveness::new(start);
        live.poll(start);
        live.on_heard(start + ms(10));
        live.on_data(start + ms(500), true);
        live.on_data(start + ms(900), true);
        assert_eq!(live.poll(start + ms(1000)), Some(Due::Ping(2)));
        assert_eq!(live.next(), (start + ms(1500), "suspect"));
        assert_eq!(live.poll(start + ms(1500)), Some(Due::Suspect));
        assert!(live.is_suspect());
        assert!(live.on_heard(start + ms(1600)) && !live.is_suspect());
    }

    #[test]
    fn a_far_peer_gets_three_round_trips() {
        let start = crate::tunnel::session::tests::start();
        let mut live = Liveness::new(start);
        live.poll(start);
        live.on_heard(start + ms(600));
        live.on_pong(start + ms(600), 1);
        live.on_data(start + ms(700), true);
        assert!(live.suspect_at() == Some(start + ms(2500)));
    }

    #[test]
    fn a_way_that_became_longer_is_believed_in_time() {
        let start = crate::tunnel::session::tests::start();
        let mut shortest = Shortest::default();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        for (seconds, sample, told) in
            [(0, 20, 20), (300, 10, 10), (599, 80, 10), (600, 80, 10), (1199, 90, 10), (1200, 90, 80)]
        {
            shortest.take(at(seconds), ms(sample));
            assert_eq!(shortest.get(), Some(ms(told)), "after {seconds} s");
        }
    }
}
