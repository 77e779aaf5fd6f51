//! Faults as they are made, each seen to have bitten.

use std::collections::BTreeMap;
use std::process::Child;
use std::time::{Duration, Instant};

use super::schedule::{Dice, Fault, Held, Planned};
use crate::bed::{Bed, Endpoint, Side, finish_records, process_state, signal};
use crate::config::Link;
use crate::networks::{self, Connection};

/// Faults of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Count {
    pub made: u64,
    /// Those that were seen to hit: a process that ran, a connection that is gone, packets that were dropped, leaders that moved.
    pub bit: u64,
}

/// Both pairs of endpoints, and all that is hurt at the moment.
pub struct Hurter {
    began: Instant,
    pub orange: Endpoint,
    pub grape: Endpoint,
    /// The rival's pair, and how many records of the flow it wrote.
    rival: Option<(Endpoint, Endpoint)>,
    rival_since: Duration,
    pub rivals_records: u64,
    /// What the rival's pair runs; `None` where there is none.
    rivals: Option<Link>,
    topics: [Vec<String>; 2],
    /// Brokers that are on their way back.
    starting: BTreeMap<(&'static str, u32), Child>,
    /// What is hurt until when, as far as is known.
    whole: Vec<(Held, Duration)>,
    /// What is to be undone, and when.
    undo: Vec<(Duration, Fault)>,
    pub counts: BTreeMap<&'static str, Count>,
    pub printed: Vec<String>,
}

/// The tunnel of the rival's pair.
const RIVALS_PORT: u16 = 7444;
const RIVALS_ADMIN: &str = "[admin]\nlisten = \"127.0.0.1:9465\"\n";
/// Longest time until there is something to hit, and until a rival has written something.
const TO_HIT: Duration = Duration::from_secs(60);

impl Hurter {
    /// Two endpoints of `link` that run. `rival` is the same flow, as far as a second process may copy it at the same time.
    pub fn new(link: &Link, rivals: Option<Link>, topics: [Vec<String>; 2]) -> Self {
        networks::let_through(RIVALS_PORT);
        let orange = Endpoint::start(Side::Orange, "link", &link.orange());
        let grape = Endpoint::start(Side::Grape, "link", &link.grape());
        grape.wait_up(Duration::from_secs(15));
        Self {
            began: Instant::now(),
            orange,
            grape,
            rival: None,
            rival_since: Duration::ZERO,
            rivals_records: 0,
            rivals: rivals.map(|link| Link { port: RIVALS_PORT, admin: RIVALS_ADMIN.to_owned(), ..link }),
            topics,
            starting: BTreeMap::new(),
            whole: Vec::new(),
            undo: Vec::new(),
            counts: BTreeMap::new(),
            printed: Vec::new(),
        }
    }

    fn say(&mut self, words: &str) {
        let line = format!("{:8.3} s  {words}", self.began.elapsed().as_secs_f64());
        eprintln!("{line}");
        self.printed.push(line);
    }

    /// Makes each fault when its time has come, and undoes it when that has. One that would touch what is still hurt by another waits
    /// until that is whole again; those after it do not.
    pub fn run(&mut self, planned: &[Planned]) {
        self.began = Instant::now();
        let mut left = planned.to_vec();
        while !left.is_empty() {
            let now = self.began.elapsed();
            let next = left.iter().position(|one| one.at <= now && self.is_whole(one.fault, now));
            let Some(next) = next else {
                self.until(now + Duration::from_millis(50));
                continue;
            };
            let fault = left.remove(next).fault;
            let told = self.make_in_time(fault);
            let count = self.counts.entry(fault.name()).or_default();
            count.made += 1;
            count.bit += u64::from(told.is_some());
            self.say(&format!("{}: {}", fault.name(), told.unwrap_or_else(|| "MISSED".to_owned())));
            let over = self.began.elapsed() + fault.lasts();
            self.whole.push((fault.holds(), over + fault.recovers()));
            if !fault.lasts().is_zero() {
                self.undo.push((over, fault));
            }
        }
        while let Some((at, _)) = self.undo.iter().max_by_key(|(at, _)| *at) {
            self.until(*at);
        }
        for ((side, id), mut child) in std::mem::take(&mut self.starting) {
            assert!(child.wait().expect("bed.sh ends").success(), "broker {id} of {side} does not come back");
        }
    }

    /// Whether what a fault touches has recovered from those before.
    fn is_whole(&mut self, fault: Fault, now: Duration) -> bool {
        self.whole.retain(|(_, from)| *from > now);
        self.starting.retain(|(side, id), child| {
            let ended = child.try_wait().expect("bed.sh runs");
            assert!(ended.is_none_or(|code| code.success()), "broker {id} of {side} does not come back");
            ended.is_none()
        });
        let held = fault.holds();
        let hurt = self.undo.iter().map(|(_, other)| other.holds()).chain(self.whole.iter().map(|(held, _)| *held));
        let back = match held {
            Held::Brokers(side) => self.starting.keys().all(|(name, _)| *name != side.name()),
            Held::Endpoint(_) | Held::Tunnel | Held::Rival => true,
        };
        back && hurt.into_iter().all(|other| other != held)
    }

    /// Waits, and undoes what is due meanwhile.
    fn until(&mut self, at: Duration) {
        loop {
            self.undo.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
            let due = self.undo.last().map(|(due, _)| *due).filter(|due| *due <= at);
            // The schedule is what is waited for.
            std::thread::sleep(due.unwrap_or(at).saturating_sub(self.began.elapsed()));
            if due.is_none() {
                return;
            }
            if let Some((_, fault)) = self.undo.pop() {
                self.heal(fault);
            }
        }
    }

    /// While the bed recovers there may be nothing to hit: what was meant to be hit is waited for.
    fn make_in_time(&mut self, fault: Fault) -> Option<String> {
        let limit = self.began.elapsed() + TO_HIT;
        loop {
            let told = self.make(fault);
            if told.is_some() || self.began.elapsed() > limit {
                return told;
            }
            self.until(self.began.elapsed() + Duration::from_millis(500));
        }
    }

    fn endpoint(&mut self, side: Side) -> &mut Endpoint {
        match side {
            Side::Orange => &mut self.orange,
            Side::Grape => &mut self.grape,
        }
    }

    /// What it did; `None` where it hit nothing.
    fn make(&mut self, fault: Fault) -> Option<String> {
        let bed = Bed::get();
        let lasting = |what: String| format!("{what}, for {:.1} s", fault.lasts().as_secs_f64());
        match fault {
            Fault::KillEndpoint(side, _) => {
                let pid = self.endpoint(side).id();
                self.endpoint(side).kill().then(|| lasting(format!("process {pid}")))
            }
            Fault::FreezeEndpoint(side, _) => {
                let pid = self.endpoint(side).id();
                freeze(pid).then(|| lasting(format!("process {pid}")))
            }
            Fault::KillBroker(side, id, _) => {
                let pid = bed.broker(side, id)?;
                if !signal(pid, "KILL") {
                    return None;
                }
                while bed.broker(side, id).is_some() {
                    std::thread::sleep(Duration::from_millis(5));
                }
                Some(lasting(format!("broker {id}, process {pid}")))
            }
            Fault::FreezeBroker(side, id, _) => {
                let pid = bed.broker(side, id)?;
                freeze(pid).then(|| lasting(format!("broker {id}, process {pid}")))
            }
            Fault::MoveLeaders(side, seed) => self.move_leaders(side, seed),
            Fault::CutBrokers(side, seed) => {
                let pid = self.endpoint(side).id();
                let port = side.bootstrap().rsplit_once(':')?.1;
                cut(side, seed, || networks::connections(side, &["dport", "=", port], Some(pid)))
            }
            Fault::CutCarriers(seed) => cut(Side::Grape, seed, networks::carriers),
            Fault::BlackOut(_) => {
                networks::black_out();
                Some(lasting("nothing passes".to_owned()))
            }
            Fault::Rival(_) => {
                let link = self.rivals.as_ref()?;
                let orange = Endpoint::start(Side::Orange, "rival", &link.orange());
                let grape = Endpoint::start(Side::Grape, "rival", &link.grape());
                let told = lasting(format!("process {}", grape.id()));
                (self.rival, self.rival_since) = (Some((orange, grape)), self.began.elapsed());
                Some(told)
            }
        }
    }

    fn move_leaders(&self, side: Side, seed: u64) -> Option<String> {
        let bed = Bed::get();
        let conf = bed.python_file(side).display().to_string();
        // The plaintext listeners of brokers 0 to 2; the first that takes the request does.
        let port = if side == Side::Orange { 9095 } else { 9195 };
        let seed = (seed >> 1).to_string();
        for id in 0..3 {
            let address = format!("b{id}.{}.test:{port}", side.name());
            let topics = &self.topics[usize::from(side == Side::Grape)];
            let mut args = vec!["leaders", &conf, &address, &seed];
            args.extend(topics.iter().map(String::as_str));
            let child = bed.client_start(side, "chaos.py", &args);
            let output = child.wait_with_output().expect("chaos.py ends");
            let told: Option<serde_json::Value> = serde_json::from_slice(&output.stdout).ok();
            if let Some(moved) = told.and_then(|told| told["moved"].as_u64()).filter(|&moved| moved > 0) {
                return Some(format!("{moved} of them"));
            }
        }
        None
    }

    fn heal(&mut self, fault: Fault) {
        let bed = Bed::get();
        let told = match fault {
            Fault::KillEndpoint(side, _) => {
                self.endpoint(side).restart();
                format!("{} endpoint starts again", side.name())
            }
            Fault::FreezeEndpoint(side, _) => {
                let pid = self.endpoint(side).id();
                signal(pid, "CONT");
                format!("{} endpoint goes on", side.name())
            }
            Fault::KillBroker(side, id, _) => {
                self.starting.insert((side.name(), id), bed.broker_start(side, id));
                format!("{} broker {id} starts again", side.name())
            }
            Fault::FreezeBroker(side, id, _) => {
                if let Some(pid) = bed.broker(side, id) {
                    signal(pid, "CONT");
                }
                format!("{} broker {id} goes on", side.name())
            }
            Fault::BlackOut(_) => {
                let dropped = networks::light();
                if dropped == 0
                    && let Some(count) = self.counts.get_mut(fault.name())
                {
                    count.bit -= 1;
                }
                format!("the tunnel passes again, {dropped} packets did not")
            }
            Fault::Rival(_) => {
                let written = self.rival.as_ref().map_or(0, |(_, grape)| records(grape));
                let now = self.began.elapsed();
                if written == 0 && self.rival_since + TO_HIT > now {
                    // It is given time to begin: one that wrote nothing was none.
                    self.undo.push((now + Duration::from_secs(1), fault));
                    return;
                }
                self.end_rival(fault)
            }
            Fault::MoveLeaders(..) | Fault::CutBrokers(..) | Fault::CutCarriers(_) => return,
        };
        self.say(&told);
    }

    fn end_rival(&mut self, fault: Fault) -> String {
        let Some((mut orange, mut grape)) = self.rival.take() else { return String::new() };
        let records = records(&grape);
        let error = grape.status().unwrap_or_default()["flows"][0]["last_error"].take();
        self.rivals_records += records;
        let killed = grape.kill();
        orange.kill();
        if !(killed && records > 0)
            && let Some(count) = self.counts.get_mut(fault.name())
        {
            count.bit -= 1;
        }
        format!("the rival ends by kill -9: it wrote {records} records; its last error: {error}")
    }
}

/// Records that an endpoint's flow wrote since its start.
fn records(endpoint: &Endpoint) -> u64 {
    endpoint.status().and_then(|status| status["flows"][0]["records_total"].as_u64()).unwrap_or(0)
}

/// SIGSTOP; whether the process stands still.
fn freeze(pid: u32) -> bool {
    if pid == 0 || !signal(pid, "STOP") {
        return false;
    }
    let since = Instant::now();
    while process_state(pid).is_some_and(|state| state != "T") && since.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_millis(1));
    }
    process_state(pid).is_some_and(|state| state == "T")
}

/// Resets about half of the connections that are there; what became of them.
fn cut(side: Side, seed: u64, there: impl Fn() -> Vec<Connection>) -> Option<String> {
    let mut dice = Dice(seed);
    let before = there();
    let mut chosen: Vec<_> = before.iter().filter(|_| dice.below(2) == 0).collect();
    if chosen.is_empty() {
        chosen.extend(before.first());
    }
    for connection in &chosen {
        networks::cut(side, connection);
    }
    let left = there();
    let gone = chosen.iter().filter(|connection| !left.contains(connection)).count();
    (gone > 0).then(|| format!("{gone} of {}", before.len()))
}

/// A client at work in a network until it is told to stop.
pub struct Load(Child);

impl Load {
    pub fn start(side: Side, topic: &str, partitions: u32, rate: u64, kind: &str) -> Self {
        Self::start_at(side, topic, partitions, rate, kind, 0)
    }

    /// The same with ordinals from `first` on, so that records of two loads are unlike each other.
    pub fn start_at(side: Side, topic: &str, partitions: u32, rate: u64, kind: &str, first: u64) -> Self {
        let bed = Bed::get();
        let conf = bed.python_file(side).display().to_string();
        let (partitions, rate, first) = (partitions.to_string(), rate.to_string(), first.to_string());
        let args = ["load", &conf, topic, &partitions, &rate, kind, &first];
        Self(bed.client_until_told(side, "chaos.py", &args, &format!("load-{topic}.log")))
    }

    /// What it came to.
    pub fn finish(mut self) -> serde_json::Value {
        drop(self.0.stdin.take());
        finish_records(self.0, &["chaos.py load"])
    }
}
