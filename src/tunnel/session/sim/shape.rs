//! What kind of schedule a seed is: drawn once, so that rare things meet each other.

use std::time::Duration;

use super::random::Random;
use crate::tunnel::session::tests::config;
use crate::tunnel::session::{SessionConfig, Side};

/// Chances are "one in so many" a step; `None` is never.
pub(super) struct Shape {
    pub(super) steps: u64,
    /// Longest step, in microseconds.
    pub(super) tempo: u64,
    /// Carriers that the dialler keeps at most.
    pub(super) slots: u8,
    /// One-way delay of a carrier, in microseconds: shortest, and how much more.
    pub(super) delay: (u64, u64),
    /// Bytes that one direction of a stream carries at most.
    pub(super) plan: u64,
    pub(super) opens: u64,
    pub(super) connects: u64,
    pub(super) kills: u64,
    pub(super) buffered: u64,
    pub(super) streams: usize,
    pub(super) per_second: u32,
    pub(super) park: Duration,
    /// Share of readers that stop for good, and of those that are slow.
    pub(super) never: Option<u64>,
    pub(super) slow: Option<u64>,
    /// All carriers are lost at once and no new one comes for a while.
    pub(super) outages: Option<u64>,
    /// One side's process is replaced by another.
    pub(super) restarts: Option<u64>,
    /// One side takes no new streams any more.
    pub(super) drains: Option<u64>,
    /// One side's process is stopped for a while.
    pub(super) freezes: Option<u64>,
    /// Data and credit arrive a second time, and WANT at any time.
    pub(super) echoes: Option<u64>,
}

impl Shape {
    pub(super) fn new(random: &mut Random) -> Self {
        let mut maybe = |share: u64, chance: u64| random.chance(share).then_some(chance);
        let (never, slow) = (maybe(3, 4), maybe(3, 4));
        let (outages, restarts, drains) = (maybe(4, 40), maybe(4, 40), maybe(8, 40));
        let (freezes, echoes) = (maybe(6, 40), maybe(3, 3));
        let park = if drains.is_some() || random.chance(3) { 1 + random.below(3) } else { 3600 };
        Self {
            steps: 10 + random.below(90),
            tempo: random.one_of(&[500, 6000, 6000, 60_000]),
            slots: random.one_of(&[1, 2, 2, 3, 4, 6, 16]),
            delay: random.one_of(&[(50, 500), (1000, 4000), (6000, 30_000), (1000, 80_000), (60_000, 60_000)]),
            plan: random.one_of(&[300, 3000, 3000, 60_000, 60_000, 250_000]),
            opens: random.one_of(&[2, 5, 10]),
            connects: random.one_of(&[2, 6, 12]),
            kills: random.one_of(&[6, 15, 30, 100]),
            buffered: random.one_of(&[1 << 15, 1 << 17, 1 << 20, 64 << 20]),
            streams: random.one_of(&[100, 100, 100, 5]),
            per_second: random.one_of(&[1000, 1000, 1000, 3]),
            park: Duration::from_secs(park),
            never,
            slow,
            outages,
            restarts,
            drains,
            freezes,
            echoes,
        }
    }

    /// Settings of the `boot`-th process of a side.
    pub(super) fn config(&self, side: usize, boot: u8) -> SessionConfig {
        let mut config = config([Side::Dialler, Side::Listener][side]);
        config.boot[15] = boot;
        config.buffered_bytes = self.buffered;
        config.streams = self.streams;
        config.opens_per_second = self.per_second;
        config.park = self.park;
        // In every third schedule nothing in flight is told apart.
        if self.steps.is_multiple_of(3) {
            config.pieces = 1;
        }
        config
    }
}
