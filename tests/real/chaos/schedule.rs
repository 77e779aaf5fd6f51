//! Which fault comes when: from a seed alone, so that a run can be repeated.

use std::time::Duration;

use crate::bed::Side;

/// Something that is done to the bed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to an endpoint, which is down for so long.
    KillEndpoint(Side, Duration),
    /// SIGSTOP to an endpoint, for so long.
    FreezeEndpoint(Side, Duration),
    /// SIGKILL to a broker, which is down for so long.
    KillBroker(Side, u32, Duration),
    /// SIGSTOP to a broker: longer than its session it comes back as a leader that is none any more.
    FreezeBroker(Side, u32, Duration),
    /// About half of all leaders of one side move.
    MoveLeaders(Side, u64),
    /// Some of the connections between an endpoint and its own brokers are reset.
    CutBrokers(Side, u64),
    /// Some of the tunnel's connections are reset.
    CutCarriers(u64),
    /// Nothing passes between the networks, for so long.
    BlackOut(Duration),
    /// A second pair of processes copies what the first one copies, for so long; then it is killed.
    Rival(Duration),
}

/// The kinds, by how often each comes in one hand.
const HAND: [(Kind, usize); 12] = [
    (Kind::KillEndpoint(Side::Grape), 2),
    (Kind::KillEndpoint(Side::Orange), 1),
    (Kind::FreezeEndpoint(Side::Grape), 1),
    (Kind::KillBroker(Side::Orange), 1),
    (Kind::KillBroker(Side::Grape), 2),
    (Kind::FreezeBroker, 1),
    (Kind::MoveLeaders(Side::Orange), 1),
    (Kind::MoveLeaders(Side::Grape), 1),
    (Kind::CutBrokers(Side::Orange), 1),
    (Kind::CutBrokers(Side::Grape), 1),
    (Kind::CutTunnel, 1),
    (Kind::Rival, 1),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    KillEndpoint(Side),
    FreezeEndpoint(Side),
    KillBroker(Side),
    FreezeBroker,
    MoveLeaders(Side),
    CutBrokers(Side),
    /// Reset carriers and a black-out, one after the other.
    CutTunnel,
    Rival,
}

impl Fault {
    /// The name under which it is counted.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KillEndpoint(Side::Orange, _) => "kill -9 of the source's endpoint",
            Self::KillEndpoint(Side::Grape, _) => "kill -9 of the target's endpoint",
            Self::FreezeEndpoint(..) => "frozen endpoint",
            Self::KillBroker(Side::Orange, ..) => "kill -9 of a source broker",
            Self::KillBroker(Side::Grape, ..) => "kill -9 of a target broker",
            Self::FreezeBroker(..) => "frozen target broker",
            Self::MoveLeaders(Side::Orange, _) => "leaders moved at the source",
            Self::MoveLeaders(Side::Grape, _) => "leaders moved at the target",
            Self::CutBrokers(Side::Orange, _) => "connections to source brokers cut",
            Self::CutBrokers(Side::Grape, _) => "connections to target brokers cut",
            Self::CutCarriers(_) => "carriers cut",
            Self::BlackOut(_) => "black-out of the tunnel",
            Self::Rival(_) => "rival for the flow",
        }
    }

    /// How long it lasts.
    pub const fn lasts(self) -> Duration {
        match self {
            Self::KillEndpoint(_, time)
            | Self::FreezeEndpoint(_, time)
            | Self::KillBroker(_, _, time)
            | Self::FreezeBroker(_, _, time)
            | Self::BlackOut(time)
            | Self::Rival(time) => time,
            Self::MoveLeaders(..) | Self::CutBrokers(..) | Self::CutCarriers(_) => Duration::ZERO,
        }
    }

    /// What no other fault may touch until it is over: two brokers of a side at once are an outage of Kafka's own, and a process that
    /// is not there cannot be killed.
    pub const fn holds(self) -> Held {
        match self {
            Self::KillEndpoint(side, _) | Self::FreezeEndpoint(side, _) | Self::CutBrokers(side, _) => {
                Held::Endpoint(side)
            }
            Self::KillBroker(side, ..) | Self::FreezeBroker(side, ..) | Self::MoveLeaders(side, _) => {
                Held::Brokers(side)
            }
            Self::CutCarriers(_) | Self::BlackOut(_) => Held::Tunnel,
            Self::Rival(_) => Held::Rival,
        }
    }

    /// How long after its end what it holds needs to be itself again.
    pub const fn recovers(self) -> Duration {
        Duration::from_millis(match self {
            // Brokers that come back catch up first.
            Self::KillBroker(..) => 9_000,
            Self::FreezeBroker(..) => 4_000,
            // Long enough, mostly, that something was copied again, also where appends are given 10 s to land.
            Self::KillEndpoint(Side::Grape, _) => 13_000,
            Self::KillEndpoint(Side::Orange, _) => 4_000,
            Self::FreezeEndpoint(..) | Self::MoveLeaders(..) => 2_000,
            Self::CutBrokers(..) | Self::CutCarriers(_) | Self::BlackOut(_) | Self::Rival(_) => 1_000,
        })
    }
}

/// What a fault touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    Endpoint(Side),
    Brokers(Side),
    Tunnel,
    Rival,
}

/// A fault and when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Planned {
    pub at: Duration,
    pub fault: Fault,
}

/// `count` faults, `gap` apart in the mean. Every kind comes once in each hand that is dealt. Those that touch the same thing wait for
/// each other where they are made.
pub fn plan(seed: u64, count: usize, gap: Duration) -> Vec<Planned> {
    let mut dice = Dice(seed);
    let (mut planned, mut at) = (Vec::new(), Duration::from_secs(1));
    while planned.len() < count {
        let mut hand: Vec<_> = HAND.iter().flat_map(|&(kind, times)| std::iter::repeat_n(kind, times)).collect();
        for n in (1..hand.len()).rev() {
            hand.swap(n, dice.below(n as u64 + 1) as usize);
        }
        for fault in hand.into_iter().flat_map(|kind| dice.faults(kind)).collect::<Vec<_>>() {
            at += Duration::from_millis(dice.below(2 * gap.as_millis() as u64));
            planned.push(Planned { at, fault });
        }
    }
    planned.truncate(count);
    planned
}

/// SplitMix64.
#[derive(Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, most: u64) -> u64 {
        self.next() % most.max(1)
    }

    fn time(&mut self, from_ms: u64, to_ms: u64) -> Duration {
        Duration::from_millis(from_ms + self.below(to_ms - from_ms))
    }

    fn faults(&mut self, kind: Kind) -> Vec<Fault> {
        let broker = self.below(3) as u32;
        vec![match kind {
            Kind::KillEndpoint(side) => Fault::KillEndpoint(side, self.time(1, 2_000)),
            Kind::FreezeEndpoint(side) => Fault::FreezeEndpoint(side, self.time(500, 5_000)),
            // A broker's session is 6 s long in the bed. One that comes back before its end is not let in until it tries for the
            // eighth time, half a minute later: that is seldom, for others wait for it.
            Kind::KillBroker(side) if self.below(6) == 0 => Fault::KillBroker(side, broker, self.time(1, 3_000)),
            Kind::KillBroker(side) => Fault::KillBroker(side, broker, self.time(6_200, 8_000)),
            Kind::FreezeBroker => Fault::FreezeBroker(Side::Grape, broker, self.time(1_000, 10_000)),
            Kind::MoveLeaders(side) => Fault::MoveLeaders(side, self.next()),
            Kind::CutBrokers(side) => Fault::CutBrokers(side, self.next()),
            Kind::CutTunnel => return vec![Fault::CutCarriers(self.next()), Fault::BlackOut(self.time(1_000, 8_000))],
            Kind::Rival => Fault::Rival(self.time(6_000, 12_000)),
        }]
    }
}

/// Faults of which every kind comes at least once.
pub const WHOLE_HAND: usize = {
    // Carriers are cut and the tunnel blacked out by one card.
    let (mut cards, mut n) = (1, 0);
    while n < HAND.len() {
        cards += HAND[n].1;
        n += 1;
    }
    cards
};

#[test]
fn a_seed_is_one_schedule_with_every_kind_in_it() {
    let gap = Duration::from_secs(1);
    let (one, again) = (plan(7, 60, gap), plan(7, 60, gap));
    assert_eq!(one, again);
    assert_ne!(one, plan(8, 60, gap));
    let names = |planned: &[Planned]| {
        planned.iter().map(|one| one.fault.name()).collect::<std::collections::BTreeSet<_>>().len()
    };
    assert_eq!(names(&one[..WHOLE_HAND]), HAND.len() + 1);
    assert!(one.is_sorted_by_key(|one| one.at));
}
