//! What the tasks of one flow share.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::append::AppendDesk;
use super::cluster::Cluster;
use super::decide::acls::AclRules;
use super::decide::offset_map::OffsetMap;
use super::fetch::FetchDesk;
use super::groups::board::GroupBoard;
use super::lane::Lane;
use super::ledger::{Ledger, Pauses};
use super::registry::Registry;
use super::status::{
    AclsStatus, Change, FlowState, Guarantee, Happened, LastError, MOST_EVENTS, PartitionEvent, Reason, TopicChange,
};
use super::topics::Copied;
use crate::config::{Delivery, FlowConfig, OnGap, Policies};

/// Connections to each source broker, and to each target broker. Four of each kept a broker busy (more gave nothing on one host).
pub(super) const SLOTS: u16 = 4;

/// Key of a lane: source topic and partition.
pub(super) type LaneKey = (Arc<str>, i32);

/// What the tasks of one flow share.
pub(super) struct Shared {
    /// Name of the flow.
    pub(super) name: String,
    pub(super) source: Arc<dyn Cluster>,
    pub(super) target: Arc<dyn Cluster>,
    pub(super) read_committed: bool,
    /// Whether nothing is sent whose place at the target is not known.
    pub(super) exactly_once: bool,
    /// Whose the source's producers are.
    pub(super) registry: Registry,
    /// How long the target's leaders remember a producer, in ms; Kafka's default until they say.
    pub(super) producer_memory_ms: AtomicI64,
    /// When this run began.
    pub(super) since: Instant,
    /// Bytes of fetched answers in memory, of all fetchers.
    pub(super) memory: usize,
    /// Asks the supervisor to look at both clusters now.
    pub(super) refresh: Notify,
    /// Nothing new is fetched or appended.
    pub(super) stop: CancellationToken,
    lanes: Mutex<BTreeMap<LaneKey, Arc<Lane>>>,
    /// Offset maps of partitions that have no lane.
    maps: Mutex<HashMap<LaneKey, OffsetMap>>,
    fetchers: Mutex<HashMap<(i32, u16), Arc<FetchDesk>>>,
    appenders: Mutex<HashMap<(i32, u16), Arc<AppendDesk>>>,
    /// Number of fetchers, without the lock.
    fetcher_count: AtomicUsize,
    /// What outlives the process beside progress.
    pub(super) ledger: Ledger,
    /// What the operator says becomes of things that no copying can undo.
    pub(super) policies: Policies,
    /// What the flow was told of ACLs, where they are to follow.
    pub(super) acls: Option<AclRules>,
    pauses: Mutex<Pauses>,
    copied: Mutex<Copied>,
    accepted: Mutex<BTreeSet<String>>,
    /// Since when each partition for which records wait has not moved, and where it stands.
    still: Mutex<HashMap<LaneKey, (i64, Instant)>>,
    board: Mutex<Board>,
    group_board: Mutex<GroupBoard>,
    complaints: Mutex<HashMap<String, Complaint>>,
}

/// What the supervisor knows of a topic beside its lanes.
#[derive(Debug, Clone)]
pub(super) struct TopicEntry {
    pub(super) target: String,
    pub(super) reason: Option<Reason>,
}

/// What is shown and belongs to no lane.
#[derive(Debug)]
pub(super) struct Board {
    pub(super) state: FlowState,
    /// Why nothing at all is copied, where somebody must do something about it.
    pub(super) halted: Option<Reason>,
    /// How the target tells what it has.
    pub(super) guarantee: Option<Guarantee>,
    pub(super) topics: BTreeMap<String, TopicEntry>,
    pub(super) last_error: Option<LastError>,
    pub(super) last_progress_ms: Option<i64>,
    pub(super) events: VecDeque<PartitionEvent>,
    pub(super) changes: VecDeque<TopicChange>,
    pub(super) acls: AclsStatus,
    /// Time, records and bytes of the last seconds, for rates.
    pub(super) samples: VecDeque<(Instant, u64, u64)>,
    /// Of lanes that are gone.
    pub(super) past: super::lane::Counts,
}

#[derive(Debug)]
struct Complaint {
    said: Instant,
    unsaid: u64,
}

/// A partition that has not moved for so long although records wait is named.
const STALLED: Duration = Duration::from_secs(4);
/// The same complaint is logged once in this time.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);
/// Different complaints remembered at once.
const MOST_COMPLAINTS: usize = 1_000;

impl Shared {
    pub(super) fn new(config: &FlowConfig, source: Arc<dyn Cluster>, target: Arc<dyn Cluster>, memory: usize) -> Self {
        let (name, policies) = (config.name.clone(), config.policies.clone());
        let acls = config.sync_acls.then(|| AclRules { principals: config.principals.clone() });
        let registry = Registry::new(Arc::clone(&source));
        let ledger = Ledger::new(&name, source.name(), Arc::clone(&target), config.replication_factor);
        let board = Board {
            state: FlowState::Starting,
            halted: None,
            guarantee: None,
            topics: BTreeMap::new(),
            last_error: None,
            last_progress_ms: None,
            events: VecDeque::new(),
            changes: VecDeque::new(),
            acls: AclsStatus::default(),
            samples: VecDeque::new(),
            past: super::lane::Counts::default(),
        };
        Self {
            name,
            source,
            target,
            read_committed: config.read_committed,
            exactly_once: config.delivery == Delivery::ExactlyOnce,
            registry,
            producer_memory_ms: AtomicI64::new(86_400_000),
            since: Instant::now(),
            memory,
            refresh: Notify::new(),
            stop: CancellationToken::new(),
            lanes: Mutex::default(),
            maps: Mutex::default(),
            fetchers: Mutex::default(),
            appenders: Mutex::default(),
            fetcher_count: AtomicUsize::new(0),
            ledger,
            policies,
            acls,
            pauses: Mutex::default(),
            copied: Mutex::default(),
            accepted: Mutex::default(),
            still: Mutex::default(),
            board: Mutex::new(board),
            group_board: Mutex::default(),
            complaints: Mutex::default(),
        }
    }

    pub(super) fn board(&self) -> MutexGuard<'_, Board> {
        lock(&self.board)
    }

    /// What is shown of groups. Not to be held with [`Shared::board`].
    pub(super) fn group_board(&self) -> MutexGuard<'_, GroupBoard> {
        lock(&self.group_board)
    }

    /// All lanes, by key.
    pub(super) fn lanes(&self) -> BTreeMap<LaneKey, Arc<Lane>> {
        lock(&self.lanes).clone()
    }

    /// Offset maps that lanes begin with.
    pub(super) fn remember(&self, maps: HashMap<LaneKey, OffsetMap>) {
        *lock(&self.maps) = maps;
    }

    pub(super) fn add_lane(&self, lane: &Arc<Lane>) {
        let key = (Arc::clone(&lane.source), lane.partition);
        if let Some(map) = lock(&self.maps).remove(&key) {
            lane.remember(map);
        }
        lock(&self.lanes).insert(key, Arc::clone(lane));
    }

    /// Takes a lane out; its counts stay in the flow's.
    pub(super) fn remove_lane(&self, key: &LaneKey) {
        lock(&self.still).remove(key);
        if let Some(lane) = lock(&self.lanes).remove(key) {
            lane.stop();
            if let Some(map) = lane.offset_map() {
                lock(&self.maps).insert(key.clone(), map);
            }
            let counts = lane.counts();
            let past = &mut self.board().past;
            past.records += counts.records;
            past.bytes += counts.bytes;
            past.rewritten += counts.rewritten;
            past.looped += counts.looped;
            past.looped_records += counts.looped_records;
            past.looped_bytes += counts.looped_bytes;
        }
    }

    pub(super) fn fetcher(&self, node: i32, slot: u16) -> Option<Arc<FetchDesk>> {
        lock(&self.fetchers).get(&(node, slot)).cloned()
    }

    pub(super) fn appender(&self, node: i32, slot: u16) -> Option<Arc<AppendDesk>> {
        lock(&self.appenders).get(&(node, slot)).cloned()
    }

    pub(super) fn add_fetcher(&self, desk: &Arc<FetchDesk>) {
        let mut fetchers = lock(&self.fetchers);
        fetchers.insert((desk.node, desk.slot), Arc::clone(desk));
        self.fetcher_count.store(fetchers.len(), Ordering::Relaxed);
    }

    pub(super) fn add_appender(&self, desk: &Arc<AppendDesk>) {
        lock(&self.appenders).insert((desk.node, desk.slot), Arc::clone(desk));
    }

    /// One fetcher's part of the memory.
    pub(super) fn share(&self) -> usize {
        self.memory / self.fetcher_count.load(Ordering::Relaxed).max(1)
    }

    /// Tells the lane's appender that something waits.
    pub(super) fn list(&self, lane: &Arc<Lane>) {
        if let Some(desk) = lane.leaders().1.and_then(|node| self.appender(node, lane.slot(SLOTS))) {
            desk.list(Arc::clone(lane));
        }
    }

    /// Tells the lane's fetcher that there is room, or that it is adopted.
    pub(super) fn wake(&self, lane: &Lane) {
        if let Some(desk) = lane.leaders().0.and_then(|node| self.fetcher(node, lane.slot(SLOTS))) {
            desk.wake();
        }
    }

    /// Notes a failure for status, and logs it unless the same stood in the log within the last minute.
    ///
    /// `what` is the kind of failure and whom it concerns; it bounds how often is logged.
    pub(super) fn complain(&self, what: &str, text: &str) {
        self.board().last_error = Some(LastError { at_ms: now_ms(), text: format!("{what}: {text}") });
        let now = Instant::now();
        let mut complaints = lock(&self.complaints);
        if complaints.len() >= MOST_COMPLAINTS {
            complaints.retain(|_, one| now.duration_since(one.said) < COMPLAIN_EVERY);
            if complaints.len() >= MOST_COMPLAINTS {
                return;
            }
        }
        if let Some(known) = complaints.get_mut(what) {
            if now.duration_since(known.said) < COMPLAIN_EVERY {
                known.unsaid += 1;
                return;
            }
            tracing::warn!(flow = %self.name, times = known.unsaid + 1, "{what}: {text}");
            *known = Complaint { said: now, unsaid: 0 };
            return;
        }
        tracing::warn!(flow = %self.name, "{what}: {text}");
        complaints.insert(what.to_owned(), Complaint { said: now, unsaid: 0 });
    }

    /// Notes where a partition stands; to be told once a second.
    pub(super) fn saw(&self, key: LaneKey, lag: u64, next_offset: i64, now: Instant) {
        let mut still = lock(&self.still);
        if lag == 0 {
            still.remove(&key);
        } else if still.get(&key).is_none_or(|(at, _)| *at != next_offset) {
            still.insert(key, (next_offset, now));
        }
    }

    /// Partitions for which records wait, and that have not moved for [`STALLED`] or longer.
    pub(super) fn stalls(&self) -> HashMap<LaneKey, Duration> {
        let now = Instant::now();
        let still = lock(&self.still);
        let stood = still.iter().map(|(key, (_, since))| (key.clone(), now.duration_since(*since)));
        stood.filter(|(_, stood)| *stood >= STALLED).collect()
    }

    /// Whether the operator has paused this topic.
    pub(super) fn is_paused(&self, topic: &str) -> bool {
        lock(&self.pauses).holds(topic)
    }

    /// Whether a topic whose source lost records is to stop, unless the operator said that it may go on.
    pub(super) fn stops_at_gaps(&self, topic: &str) -> bool {
        self.policies.on_gap == OnGap::Stop && !lock(&self.accepted).contains(topic)
    }

    /// Lets a topic go on over what its source lost, until the next start. `None` for all that are copied.
    pub(super) fn accept_gaps(&self, topic: Option<&str>) {
        let all = || self.lanes().into_keys().map(|(topic, _)| topic.to_string()).collect::<Vec<_>>();
        lock(&self.accepted).extend(topic.map_or_else(all, |topic| vec![topic.to_owned()]));
    }

    /// What is paused.
    pub(super) fn pauses(&self) -> Pauses {
        lock(&self.pauses).clone()
    }

    /// Takes over what the ledger says is paused; lanes that may go on again are woken.
    pub(super) fn apply_pauses(&self) {
        *lock(&self.pauses) = self.ledger.pauses();
        for lane in self.lanes().into_values() {
            lane.set_paused(self.is_paused(&lane.source));
            self.wake(&lane);
        }
    }

    /// Ids of the topics that were copied, and of their copies, as the supervisor saw them last.
    pub(super) fn copied(&self) -> Copied {
        lock(&self.copied).clone()
    }

    pub(super) fn set_copied(&self, copied: Copied) {
        *lock(&self.copied) = copied;
    }

    /// Notes and logs what was changed at the target.
    pub(super) fn changed(&self, topic: Option<&str>, what: Change) {
        tracing::info!(flow = %self.name, topic, event = what.word(), "{what}");
        let change = TopicChange { at_ms: now_ms(), topic: topic.map(str::to_owned), what };
        let changes = &mut self.board().changes;
        if changes.len() >= MOST_EVENTS {
            changes.pop_front();
        }
        changes.push_back(change);
    }

    /// Notes what no copying can undo.
    pub(super) fn happened(&self, lane: &Lane, what: Happened) {
        tracing::warn!(flow = %self.name, topic = %lane.source, partition = lane.partition, event = what.word(), "{what}");
        let event = PartitionEvent { at_ms: now_ms(), topic: lane.source.to_string(), partition: lane.partition, what };
        let events = &mut self.board().events;
        if events.len() >= MOST_EVENTS {
            events.pop_front();
        }
        events.push_back(event);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What these locks guard is whole between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970 by this host's clock.
pub(super) fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
