//! One flow: from its configuration to tasks, and back to what is shown.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use tokio::task::JoinSet;

use super::acls::Acls;
use super::adopt::{self, Adoption};
use super::append::AppendDesk;
use super::cluster::Cluster;
use super::decide::configs::ConfigRules;
use super::decide::groups::{GroupSelection, Rewinds};
use super::decide::naming::{Naming, NamingError};
use super::decide::plan::Rules;
use super::decide::position;
use super::decide::progress;
use super::decide::provenance::{self, Entry};
use super::decide::select::{Patterns, SelectError, Selection};
use super::fetch::FetchDesk;
use super::gone::{self, Dying};
use super::groups::Groups;
use super::lane::Lane;
use super::mm2::Mm2;
use super::offsets::Offsets;
use super::registry::{Register, RegistryError};
use super::shared::{LaneKey, SLOTS, Shared, TopicEntry, now_ms};
use super::status::{FlowState, FlowStatus, Guarantee, Reason, TroubleCode};
use super::store::{Known, Store};
use super::topics::{Copied, Seen, Topics};
use crate::client::{ClientError, ClusterClient, TopicId};
use crate::config::{FlowConfig, GroupRewinds};
use crate::lifecycle::{Backoff, Drain};

/// Topics of one cluster copied into another, in each partition's order. Each record arrives once, or at least once where the
/// configuration says so.
pub struct Flow {
    pub(super) shared: Arc<Shared>,
    pub(super) rules: Rules,
    /// None where no group follows.
    groups: Option<(GroupSelection, Rewinds)>,
    mm2_topics: bool,
    replication_factor: Option<i16>,
    refresh: Duration,
}

/// A handle to a flow for whoever shows it.
#[derive(Clone)]
pub struct FlowHandle {
    pub(super) shared: Arc<Shared>,
}

/// A configuration that no flow can be made of.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FlowError {
    /// An include or exclude expression.
    #[error("flow {flow}: {source}")]
    Select {
        /// Name of the flow.
        flow: String,
        /// What is wrong.
        source: SelectError,
    },
    /// The name template.
    #[error("flow {flow}: rename: {source}")]
    Naming {
        /// Name of the flow.
        flow: String,
        /// What is wrong.
        source: NamingError,
    },
}

/// Bytes of fetched answers that a flow holds in memory.
pub const MEMORY: usize = 64 << 20;
/// How often progress is written while something moves.
const SAVE_EVERY: Duration = Duration::from_secs(1);
/// Least time between two looks at the clusters, however often somebody asks for one.
const LEAST_REFRESH: Duration = Duration::from_millis(200);
/// How long the last appends may take when told to stop; the rest is copied again by the next run.
const LAST_APPENDS: Duration = Duration::from_secs(10);

impl Flow {
    /// A flow that does nothing yet.
    ///
    /// # Errors
    /// [`FlowError`] where an expression or the name template is not one.
    pub fn new(config: &FlowConfig, source: ClusterClient, target: ClusterClient) -> Result<Self, FlowError> {
        Self::between(config, Arc::new(source), Arc::new(target), MEMORY)
    }

    /// The same between any two clusters, with a bound of its own for fetched bytes in memory (at least 2 MiB).
    ///
    /// # Errors
    /// As [`Flow::new`].
    pub fn between(
        config: &FlowConfig,
        source: Arc<dyn Cluster>,
        target: Arc<dyn Cluster>,
        memory: usize,
    ) -> Result<Self, FlowError> {
        let flow = || config.name.clone();
        let selection = Selection::new(&config.topics, &config.exclude)
            .map_err(|source| FlowError::Select { flow: flow(), source })?;
        let naming = Naming::new(&config.rename).map_err(|source| FlowError::Naming { flow: flow(), source })?;
        let patterns =
            |texts: &[String]| Patterns::new(texts).map_err(|source| FlowError::Select { flow: flow(), source });
        let configs = ConfigRules {
            sync: config.sync_configs,
            exclude: patterns(&config.exclude_configs)?,
            pin: patterns(&config.pin_configs)?,
        };
        let replication_factor = config.replication_factor;
        let on_recreate = config.policies.on_recreate;
        let rules = Rules { selection, naming, replication_factor, configs, on_recreate };
        let shared = Shared::new(config, source, target, memory.max(2 << 20));
        let groups = GroupSelection::new(&config.groups, &config.groups_exclude)
            .map_err(|source| FlowError::Select { flow: flow(), source })?;
        let rewinds = match config.group_rewinds {
            GroupRewinds::Follow => Rewinds::Follow,
            GroupRewinds::Refuse => Rewinds::Refuse,
        };
        Ok(Self {
            shared: Arc::new(shared),
            rules,
            groups: (!config.groups.is_empty()).then_some((groups, rewinds)),
            mm2_topics: config.mm2_topics,
            replication_factor: config.replication_factor,
            refresh: config.refresh.max(LEAST_REFRESH),
        })
    }

    /// A handle that outlives the flow.
    #[must_use]
    pub fn handle(&self) -> FlowHandle {
        FlowHandle { shared: Arc::clone(&self.shared) }
    }

    /// Copies until told to drain: then what is under way is waited for, and progress written. Nothing else ends it; clusters that
    /// cannot be used are tried again for ever.
    ///
    /// Dropping the future ends it at once, as a kill would.
    pub async fn run(self, drain: Drain) {
        let Self { shared, rules, groups, mm2_topics, replication_factor, refresh } = self;
        let store = Arc::new(Store::new(&shared, replication_factor));
        let offsets = Arc::new(Offsets::new(&shared, replication_factor));
        let known = tokio::select! {
            () = drain.draining() => None,
            known = read(&shared, &store, &offsets) => Some(known),
        };
        if let Some(known) = known {
            let topics = Topics::default();
            let (mut tasks, adoption, leaving) = (JoinSet::new(), Adoption::default(), HashSet::new());
            let mm2 = mm2_topics.then(|| Arc::new(Mm2::new(&shared, replication_factor)));
            if let Some(mm2) = &mm2 {
                tasks.spawn(Arc::clone(mm2).run(Arc::clone(&shared)));
            }
            if let Some(groups) = groups {
                tasks.spawn(Groups::new(&shared, &offsets, groups, mm2).run());
            }
            let supervisor = Supervisor {
                acls: Acls::default(),
                shared: Arc::clone(&shared),
                store,
                offsets,
                replication_factor,
                rules,
                known,
                topics,
                tasks,
                adoption,
                leaving,
            };
            supervisor.run(refresh, &drain).await;
        }
        shared.board().state = FlowState::Stopped;
    }
}

/// Reads progress, for as long as it takes.
async fn read(shared: &Shared, store: &Store, offsets: &Offsets) -> Known {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    while let Err(error) = shared.ledger.read().await {
        shared.complain("state", &error.to_string());
        tokio::time::sleep(backoff.next(u32::MAX / 2)).await;
    }
    shared.apply_pauses();
    backoff.reset();
    loop {
        let maps = offsets.read(shared).await;
        match (store.read().await, maps) {
            (Ok(known), Ok(maps)) => {
                tracing::info!(flow = %shared.name, partitions = known.len(), maps = maps.len(), "progress read");
                shared.remember(maps);
                return known;
            }
            // Copying goes without maps; groups then say what is missing.
            (Ok(known), Err(error)) if !error.is_retriable() => {
                shared.complain("offset map", &error.to_string());
                return known;
            }
            (Ok(_), Err(error)) => shared.complain("offset map", &error.to_string()),
            (Err(error), _) => shared.complain("progress", &error.to_string()),
        }
        tokio::time::sleep(backoff.next(u32::MAX / 2)).await;
    }
}

/// Keeps lanes, desks and both clusters in step.
struct Supervisor {
    shared: Arc<Shared>,
    store: Arc<Store>,
    offsets: Arc<Offsets>,
    replication_factor: Option<i16>,
    rules: Rules,
    known: Known,
    topics: Topics,
    tasks: JoinSet<()>,
    adoption: Adoption,
    acls: Acls,
    /// Topics that were copied in this run and are not any more.
    leaving: HashSet<String>,
}

impl Supervisor {
    async fn run(mut self, refresh: Duration, drain: &Drain) {
        self.tasks.spawn(save(Arc::clone(&self.shared), Arc::clone(&self.store), Arc::clone(&self.offsets)));
        self.tasks.spawn(Arc::clone(&self.offsets).keep(Arc::clone(&self.shared)));
        let mut backoff = Backoff::new(LEAST_REFRESH, Duration::from_secs(10));
        while !drain.is_draining() {
            let pause = tokio::select! {
                () = drain.draining() => break,
                result = self.look() => match result {
                    Ok(changed) => {
                        backoff.reset();
                        let mut board = self.shared.board();
                        board.state = if board.halted.is_some() { FlowState::Paused } else { FlowState::Active };
                        drop(board);
                        if changed { LEAST_REFRESH } else { refresh }
                    }
                    Err((code, error)) => {
                        self.unusable(code, &error);
                        backoff.next(u32::MAX / 2)
                    }
                },
            };
            tokio::select! {
                () = drain.draining() => break,
                () = tokio::time::sleep(LEAST_REFRESH) => {}
            }
            tokio::select! {
                () = drain.draining() => break,
                () = tokio::time::sleep(pause.saturating_sub(LEAST_REFRESH)) => {}
                () = self.shared.refresh.notified() => {}
                Some(ended) = self.tasks.join_next() => {
                    // Tasks end only when told to; one that panicked takes the flow with it, so that its owner sees it.
                    if let Err(error) = ended && error.is_panic() {
                        std::panic::resume_unwind(error.into_panic());
                    }
                }
            }
        }
        self.finish().await;
    }

    /// Waits for what is under way and writes the last progress.
    async fn finish(mut self) {
        self.shared.stop.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_APPENDS, all).await.is_err() {
            tracing::warn!(flow = %self.shared.name, "appends under way were not answered in time; they may be repeated");
        }
        self.tasks.abort_all();
        match tokio::time::timeout(LAST_APPENDS, self.store.save(&self.shared, &self.offsets)).await {
            Ok(Ok(_)) => tracing::info!(flow = %self.shared.name, "progress written, flow stopped"),
            Ok(Err(error)) => self.shared.complain("progress", &error.to_string()),
            Err(_) => self.shared.complain("progress", "not written in time"),
        }
    }

    fn unusable(&self, code: TroubleCode, error: &ClientError) {
        let code = if error.is_authentication() { TroubleCode::Authentication } else { code };
        let side = if code == TroubleCode::TargetUnavailable { &self.shared.target } else { &self.shared.source };
        let what = match code {
            TroubleCode::Authentication => "authentication".to_owned(),
            _ => format!("cluster {}", side.name()),
        };
        self.shared.complain(&what, &error.to_string());
        self.shared.board().state = FlowState::Paused;
    }

    /// Looks at both clusters once and puts lanes where they belong. True when it should look again soon.
    async fn look(&mut self) -> Result<bool, (TroubleCode, ClientError)> {
        let now = Instant::now();
        let copied = copied_topics(&self.known);
        let mut seen = self.topics.refresh(&self.shared, &self.rules, &copied, now).await?;
        gone::note_source(&self.shared).await;
        let (dying, deleted) = gone::bury(&self.shared, &self.rules, &copied, &seen).await;
        seen.changed |= deleted;
        self.acls.refresh(&self.shared, &self.rules, &seen, now).await;
        self.retire(&seen);
        self.place(&seen);
        if let Err(error) = self.know_producers(&seen).await? {
            self.halt(&error);
            self.show(&seen, &dying);
            return Ok(false);
        }
        self.shared.board().halted = None;
        let mut again = seen.changed | !adopt::settle_doubts(&self.shared).await;
        let waiting: Vec<_> = self.shared.lanes().into_values().filter(|lane| lane.needs_adoption()).collect();
        if !waiting.is_empty() {
            let adopted = self.adoption.adopt(&self.shared, &self.store, &mut self.known, waiting).await;
            if let Err(error) = adopted {
                self.shared.complain("positions", &error.to_string());
                again = true;
            }
        }
        self.shared.set_copied(copied_topics(&self.known));
        self.show(&seen, &dying);
        Ok(again)
    }

    /// Learns who both clusters are and whose the source's producers are. The inner error is one that stops everything.
    async fn know_producers(&mut self, seen: &Seen) -> Result<Result<(), RegistryError>, (TroubleCode, ClientError)> {
        let at_source = |error| (TroubleCode::SourceUnavailable, error);
        let registry = &self.shared.registry;
        let first = !self.adoption.is_ready();
        if first {
            // Where brokers keep none the operator's name stands for it.
            let id = |cluster: &dyn Cluster| cluster.cluster_id().unwrap_or_else(|| cluster.name().to_owned());
            let (origin, target) = (id(&*self.shared.source), id(&*self.shared.target));
            let seen = Some(TopicId(self.store.registry())).filter(|id| id.is_some());
            registry.begin(target, seen).await;
            let entry = Entry { origin, flow: self.shared.name.clone() };
            self.adoption.register(Register::new(&self.shared.target, entry, self.replication_factor));
            self.probe().await;
        }
        let read = async {
            if registry.look(seen.source.get(provenance::TOPIC)).await? || first {
                registry.refresh(&BTreeSet::new()).await?;
            }
            Ok(registry.id().await)
        };
        match read.await {
            Ok(id) => {
                let id = id.map_or_else(Default::default, |id| id.0);
                if id != self.store.registry()
                    && let Err(error) = self.store.remember_registry(id).await
                {
                    self.shared.complain("progress", &error.to_string());
                }
                Ok(Ok(()))
            }
            Err(RegistryError::Client(error)) => Err(at_source(error)),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Asks once what the target can tell of what it has.
    async fn probe(&self) {
        if let Ok(Some(memory)) = self.shared.target.producer_memory_ms().await {
            self.shared.producer_memory_ms.store(memory, Ordering::Relaxed);
        }
        let topics = self.shared.target.topics(Some(vec![progress::TOPIC.to_owned()])).await.unwrap_or_default();
        let Some(leader) = topics.first().and_then(|topic| topic.partitions.first()?.leader) else { return };
        let guarantee = match self.shared.target.producers(leader, progress::TOPIC.to_owned(), 0).await {
            Ok(_) => Guarantee::Asked,
            Err(ClientError::Unsupported { .. }) => Guarantee::Read,
            Err(error) if error.is_retriable() => return,
            Err(_) => Guarantee::Refused,
        };
        tracing::info!(flow = %self.shared.name, ?guarantee, "the target was asked what it can tell of its copies");
        self.shared.board().guarantee = Some(guarantee);
    }

    /// Stops all copying: it would be on a guess.
    fn halt(&self, error: &RegistryError) {
        let reason = Reason { code: TroubleCode::Registry, text: error.to_string() };
        self.shared.complain("producers", &reason.text);
        let now = Instant::now();
        for lane in self.shared.lanes().into_values() {
            lane.stop();
            lane.note(reason.code, reason.text.clone(), now);
        }
        self.shared.board().halted = Some(reason);
    }

    /// Takes out lanes whose topic is not copied any more.
    fn retire(&mut self, seen: &Seen) {
        for (key, lane) in self.shared.lanes() {
            let name: &str = &key.0;
            if seen.source.get(name).is_some_and(|topic| topic.error.is_some()) {
                // The source cannot say at the moment.
                continue;
            }
            let copied = seen.plan.topics.get(name).is_some_and(|planned| {
                planned.is_copied() && *planned.target == *lane.target && seen.target.contains_key(&planned.target)
            });
            if !copied {
                self.remove(&key, &lane);
            }
        }
        self.leaving.retain(|name| !seen.plan.topics.contains_key(name));
    }

    fn remove(&mut self, key: &LaneKey, lane: &Arc<Lane>) {
        if lane.was_adopted() {
            self.known.insert((key.0.to_string(), key.1), lane.acked());
        }
        self.leaving.insert(key.0.to_string());
        self.shared.remove_lane(key);
    }

    /// Makes lanes that are missing and tells all of them who leads.
    fn place(&mut self, seen: &Seen) {
        let lanes = self.shared.lanes();
        for (name, planned) in seen.plan.topics.iter().filter(|(_, planned)| planned.is_copied()) {
            let (Some(source), Some(target)) = (seen.source.get(name), seen.target.get(&planned.target)) else {
                continue;
            };
            let rules = self.topics.rules(name, &planned.target);
            let (source_name, target_name): (Arc<str>, Arc<str>) =
                (name.as_str().into(), planned.target.as_str().into());
            for from in &source.partitions {
                let Some(to) = target.partitions.iter().find(|one| one.index == from.index) else { continue };
                let key = (Arc::clone(&source_name), from.index);
                let lane = lanes.get(&key).cloned().unwrap_or_else(|| {
                    let lane = Arc::new(Lane::new(Arc::clone(&source_name), Arc::clone(&target_name), from.index));
                    lane.set_paused(self.shared.is_paused(name));
                    self.shared.add_lane(&lane);
                    lane
                });
                if position::is_recreated(lane.ids().0, source.topic_id.0) {
                    // Its offsets mean nothing any more; it is told anew where to begin.
                    lane.stop();
                }
                let source_at = (source.topic_id.0, from.leader, from.leader_epoch);
                if lane.locate(source_at, (target.topic_id.0, to.leader), rules) {
                    self.route(&lane);
                }
            }
        }
    }

    /// Puts a lane on the desks of its leaders, which are made where they are missing.
    fn route(&mut self, lane: &Arc<Lane>) {
        let slot = lane.slot(SLOTS);
        let (source, target) = lane.leaders();
        if let Some(node) = source {
            let desk = self.shared.fetcher(node, slot).unwrap_or_else(|| {
                let desk = Arc::new(FetchDesk::new(node, slot));
                self.shared.add_fetcher(&desk);
                self.tasks.spawn(Arc::clone(&desk).run(Arc::clone(&self.shared)));
                desk
            });
            desk.assign(Arc::clone(lane));
        }
        if let Some(node) = target {
            let desk = self.shared.appender(node, slot).unwrap_or_else(|| {
                let desk = Arc::new(AppendDesk::new(node, slot));
                self.shared.add_appender(&desk);
                self.tasks.spawn(Arc::clone(&desk).run(Arc::clone(&self.shared)));
                desk
            });
            desk.list(Arc::clone(lane));
        }
    }

    /// What is shown of topics beside their lanes.
    fn show(&self, seen: &Seen, dying: &Dying) {
        let mut board = self.shared.board();
        board.topics.clear();
        for (name, planned) in &seen.plan.topics {
            let reason = self.topics.reason(name, planned);
            board.topics.insert(name.clone(), TopicEntry { target: planned.target.clone(), reason });
        }
        for name in &self.leaving {
            let text = gone::words(&self.shared, dying, name);
            let reason = Some(Reason { code: TroubleCode::SourceGone, text });
            board.topics.entry(name.clone()).or_insert_with(|| TopicEntry { target: name.clone(), reason });
        }
    }
}

/// Of each source topic that was copied: its id, and that of its copy.
fn copied_topics(known: &Known) -> Copied {
    let ids = known.iter().map(|((topic, _), one)| (topic.clone(), (one.source_topic_id, one.target_topic_id)));
    ids.collect()
}

/// Writes progress while something moves, and keeps samples for rates.
async fn save(shared: Arc<Shared>, store: Arc<Store>, offsets: Arc<Offsets>) {
    let mut tick = tokio::time::interval(SAVE_EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shared.stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        super::show::sample(&shared);
        match store.save(&shared, &offsets).await {
            Ok(0) => {}
            Ok(_) => shared.board().last_progress_ms = Some(now_ms()),
            Err(error) => shared.complain("progress", &error.to_string()),
        }
    }
}

impl FlowHandle {
    /// The flow as it is now.
    #[must_use]
    pub fn status(&self) -> FlowStatus {
        super::show::status(&self.shared)
    }
}
