//! One status, made of what each domain says of itself.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::clusters::Watched;
use super::probe::ClusterVisit;
use super::reload::Reloader;
use super::{ProxyHandle, verdict};
use crate::config::{Config, ProxyConfig, TunnelRole};
use crate::control::facts::{ClusterFact, ClusterProbe as _, Fact, Side};
use crate::control::{
    self, AnswersSection, CarrierSection, ClientSection, Code, DenialSection, EventSection, ExitSection, FlowSection,
    GroupEventSection, GroupSection, ListenerSection, PartitionSection, PathSection, ProxyMode, ProxySection, Status,
    StatusSource, StreamSection, TopicSection, TunnelSection,
};
use crate::net::{BoxFuture, SharedDial};
use crate::proxy::{ApiLatency, BOUNDS_US, ClientStatus, Denial};
use crate::replicator::{
    FlowHandle, FlowState, FlowStatus, GroupEvent, GroupState, GroupStatus, PartitionStatus, TopicState, TopicStatus,
    TroubleCode,
};
use crate::tunnel::endpoint::{Endpoint, TunnelState};
use crate::tunnel::exit::ExitStatusReader;
use crate::tunnel::session::{StreamInfo, WaitsFor};

/// Everything that is asked when somebody wants to know.
pub(super) struct Source {
    pub(super) config: Config,
    pub(super) reloader: Reloader,
    pub(super) since: SystemTime,
    pub(super) endpoint: Endpoint,
    pub(super) tunnel_address: Option<SocketAddr>,
    pub(super) exit: ExitStatusReader,
    pub(super) local: Arc<Watched>,
    pub(super) peer: Arc<Watched>,
    pub(super) proxy: ProxyHandle,
    pub(super) flows: Vec<FlowHandle>,
    pub(super) local_dial: SharedDial,
    pub(super) through: SharedDial,
}

impl StatusSource for Source {
    fn status(&self) -> Status {
        let flows: Vec<FlowStatus> = self.flows.iter().map(FlowHandle::status).collect();
        let mut status = Status {
            schema: control::SCHEMA.to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            link: self.config.link.clone(),
            at: control::time::rfc3339(SystemTime::now()),
            since: control::time::rfc3339(self.since),
            config: self.reloader.seen(),
            state: control::State::Starting,
            reasons: Vec::new(),
            local: self.local.status(),
            peer: self.peer.status(),
            tunnel: self.tunnel(),
            exit: self.exit(),
            proxy: self.proxy(),
            flows: flows.iter().map(flow).collect(),
            errors: Vec::new(),
        };
        let seen = verdict::Seen {
            local_failure: self.local.failure(),
            peer_failure: self.peer.failure(),
            listens: matches!(self.config.tunnel.role, TunnelRole::Listen(_)),
            proxy_problems: self.proxy_problems(),
            flows: &flows,
        };
        (status.state, status.reasons) = verdict::judge(&status, &seen);
        status
    }

    fn probe(&self) -> BoxFuture<'_, Vec<Fact>> {
        Box::pin(async {
            let local = ClusterVisit::new(self.config.local.clone(), Arc::clone(&self.local_dial));
            let peer = ClusterVisit::new(self.config.peer.clone(), Arc::clone(&self.through));
            let (local, peer) = tokio::join!(local.probe(), peer.probe());
            let fact = |side, cluster: &str, found| {
                Fact::Cluster(ClusterFact { side, cluster: cluster.to_owned(), found: Ok(found) })
            };
            vec![
                fact(Side::Local, &self.config.local.cluster, local),
                fact(Side::Peer, &self.config.peer.cluster, peer),
                Fact::Problems(self.status().reasons),
            ]
        })
    }
}

impl Source {
    fn tunnel(&self) -> TunnelSection {
        let seen = self.endpoint.status();
        let (role, address) = match &self.config.tunnel.role {
            TunnelRole::Listen(address) => {
                (control::TunnelRole::Listen, self.tunnel_address.unwrap_or(*address).to_string())
            }
            TunnelRole::Dial(peer) => (control::TunnelRole::Dial, peer.to_string()),
        };
        let up = seen.state == TunnelState::Up;
        let best = seen.carriers.iter().filter_map(|carrier| carrier.rtt_ms).reduce(f64::min);
        TunnelSection {
            state: match seen.state {
                TunnelState::Up => control::TunnelState::Up,
                TunnelState::Parked => control::TunnelState::Connecting,
                _ => control::TunnelState::Down,
            },
            role,
            address,
            transport: seen.transport.to_owned(),
            peer: seen.carriers.first().filter(|_| up).map(|carrier| carrier.address.clone()),
            since: moment(seen.state_seconds),
            rtt_ms: best,
            carriers: seen
                .carriers
                .iter()
                .map(|carrier| CarrierSection {
                    id: u64::from(carrier.slot),
                    peer: carrier.address.clone(),
                    since: moment(carrier.age_seconds),
                    attached: carrier.attached,
                    suspect: carrier.suspect,
                    rtt_ms: carrier.rtt_ms,
                    bytes_in: carrier.bytes_in,
                    bytes_out: carrier.bytes_out,
                    path: carrier.path.map(|path| PathSection {
                        congestion_window: path.congestion_window,
                        in_flight: path.in_flight,
                        unsent: path.unsent,
                        retransmitted: path.retransmitted,
                        shortest_rtt_us: path.shortest_rtt_us,
                        delivery_rate: path.delivery_rate,
                    }),
                })
                .collect(),
            streams: seen.streams as u64,
            busiest: seen.busiest.iter().map(stream).collect(),
            bytes_in: seen.bytes_in,
            bytes_out: seen.bytes_out,
            buffered_in: seen.buffered_in,
            buffered_out: seen.buffered_out,
            replayed_bytes: seen.replayed_bytes,
            sessions: seen.sessions,
            resumes: seen.resumes,
            streams_lost: seen.streams_lost,
            streams_overdrawn: seen.streams_overdrawn,
            reconnects: seen.reconnects.values().sum(),
            reconnect_reasons: seen.reconnects.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            last_error: seen.last_error,
        }
    }

    fn exit(&self) -> ExitSection {
        let seen = self.exit.snapshot();
        let not_allowed = seen.refused.get("not_allowed").copied().unwrap_or(0);
        let all: u64 = seen.refused.values().sum();
        ExitSection {
            open: seen.open,
            total: seen.total,
            refused: not_allowed,
            failed: all - not_allowed,
            cut: seen.cut,
            reasons: seen.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        }
    }

    fn proxy(&self) -> ProxySection {
        let mut section = ProxySection {
            mode: match self.config.proxy {
                ProxyConfig::Off => ProxyMode::Off,
                ProxyConfig::Names(_) => ProxyMode::Names,
                ProxyConfig::Rewrite(_) => ProxyMode::Rewrite,
            },
            ..ProxySection::default()
        };
        match &self.proxy {
            ProxyHandle::Off => {}
            ProxyHandle::Names(handle) => {
                let seen = handle.status();
                section.dns = seen.dns.first().map(ToString::to_string);
                for name in seen.names {
                    section.connections += name.connections_open;
                    section.connections_total += name.connections_total;
                    let shared = seen.shared_listeners.iter();
                    section.listeners.extend(name.listeners.iter().chain(shared).map(|address| ListenerSection {
                        target: format!("{}:{}", name.name, address.port()),
                        node_id: None,
                        address: address.to_string(),
                        connections: name.connections_open,
                        connections_total: 0,
                        connections_ended: 0,
                        bytes_in: 0,
                        bytes_out: 0,
                        answers: Vec::new(),
                    }));
                }
            }
            ProxyHandle::Rewrite(handle) => {
                let seen = handle.status();
                section.connections = seen.connections_open;
                section.connections_total = seen.connections_total;
                section.connections_ended = seen.connections_ended;
                (section.bytes_in, section.bytes_out) = (seen.bytes_to_brokers, seen.bytes_to_clients);
                section.rewritten = seen.rewritten.iter().map(|(api, count)| ((*api).to_owned(), *count)).collect();
                (section.nodes_rewritten, section.nodes_hidden) = (seen.nodes_rewritten, seen.nodes_hidden);
                section.leaks = seen.leaks;
                section.reauthentications = seen.reauthentications;
                section.refused = seen.refused.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect();
                section.clients_open = seen.clients_open;
                section.clients = seen.clients.into_iter().map(client).collect();
                (section.paused_in_ms, section.paused_out_ms) = (seen.paused_in_ms, seen.paused_out_ms);
                section.denied = seen.denied.iter().map(|(api, count)| ((*api).to_owned(), *count)).collect();
                section.denials = seen.denials.into_iter().map(denial).collect();
                section.listeners = seen
                    .listeners
                    .into_iter()
                    .map(|listener| ListenerSection {
                        target: listener.target.to_string(),
                        node_id: listener.node_id,
                        address: listener.listen.to_string(),
                        connections: listener.connections_open,
                        connections_total: listener.connections_total,
                        connections_ended: listener.connections_ended,
                        bytes_in: listener.bytes_to_broker,
                        bytes_out: listener.bytes_to_client,
                        answers: listener.answers.into_iter().map(answers).collect(),
                    })
                    .collect();
            }
        }
        section
    }

    /// What keeps local clients from reaching a broker of the peer.
    fn proxy_problems(&self) -> Vec<(Code, String)> {
        match &self.proxy {
            ProxyHandle::Names(handle) => {
                let names = handle.status().names;
                names
                    .into_iter()
                    .filter_map(|name| Some((Code::PROXY_LISTENS, format!("{}: {}", name.name, name.problem?))))
                    .collect()
            }
            ProxyHandle::Rewrite(handle) => {
                handle.status().not_authenticated.into_iter().map(|why| (Code::PROXY_AUTH, why)).collect()
            }
            ProxyHandle::Off => Vec::new(),
        }
    }
}

fn answers(seen: ApiLatency) -> AnswersSection {
    let seconds = |micros: u64| micros as f64 / 1e6;
    AnswersSection {
        api: seen.api.to_owned(),
        count: seen.buckets.iter().sum(),
        seconds: seconds(seen.sum_us),
        buckets: BOUNDS_US.iter().copied().map(seconds).zip(seen.buckets).collect(),
    }
}

fn client(seen: ClientStatus) -> ClientSection {
    let ClientStatus { client, connections, bytes_in, bytes_out, paused_in_ms, paused_out_ms } = seen;
    ClientSection { client, connections, bytes_in, bytes_out, paused_in_ms, paused_out_ms }
}

fn denial(seen: Denial) -> DenialSection {
    let Denial { client, api, requests, since } = seen;
    DenialSection { client, api: api.to_owned(), requests, since: control::time::rfc3339(since) }
}

/// The moment that was so many seconds ago.
fn moment(seconds_ago: f64) -> Option<String> {
    SystemTime::now().checked_sub(Duration::from_secs_f64(seconds_ago)).map(control::time::rfc3339)
}

fn stream(seen: &StreamInfo) -> StreamSection {
    StreamSection {
        id: seen.id,
        ours: seen.ours,
        bytes_in: seen.bytes_in,
        bytes_out: seen.bytes_out,
        window_in: seen.window_in,
        window_out: seen.window_out,
        waits_for: match seen.waits_for {
            WaitsFor::Application => "application",
            WaitsFor::Answer => "answer",
            WaitsFor::Budget => "budget",
            WaitsFor::Carrier => "carrier",
            WaitsFor::Credit => "credit",
            WaitsFor::Nothing => "nothing",
        }
        .to_owned(),
    }
}

fn flow(seen: &FlowStatus) -> FlowSection {
    let topics: Vec<TopicSection> = seen.topics.iter().map(topic).collect();
    let active = topics.iter().filter(|topic| topic.state == control::TopicState::Active).count() as u64;
    FlowSection {
        name: seen.flow.clone(),
        state: match seen.state {
            FlowState::Starting => control::FlowState::Starting,
            FlowState::Active if active < topics.len() as u64 => control::FlowState::Degraded,
            FlowState::Active => control::FlowState::Active,
            FlowState::Paused | FlowState::Stopped => control::FlowState::Stopped,
        },
        topics_total: topics.len() as u64,
        topics_active: active,
        lag_records: Some(seen.lag_records),
        behind_seconds: Some(seen.behind_seconds),
        records_total: seen.records,
        bytes_total: seen.bytes,
        bytes_per_second: seen.bytes_per_second,
        delivery: if seen.exactly_once { "exactly_once" } else { "at_least_once" }.to_owned(),
        guarantee: seen.guarantee.map(|guarantee| guarantee.word().to_owned()),
        looped_records: seen.looped.records,
        looped_bytes: seen.looped.bytes,
        topics,
        events: events(seen),
        paused: seen.paused,
        acls_owned: seen.acls.owned,
        groups: seen.groups.iter().map(group).collect(),
        group_failures: seen.group_failures.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
        group_events: seen.group_events.iter().map(group_event).collect(),
        last_error: seen.last_error.as_ref().map(|error| error.text.clone()),
    }
}

/// What was lost and what was changed, by time.
fn events(seen: &FlowStatus) -> Vec<EventSection> {
    let lost = seen.events.iter().map(|one| {
        let (word, text) = (one.what.word(), one.what.to_string());
        (one.at_ms, word, Some(one.topic.clone()), Some(one.partition), text)
    });
    let changes = seen.changes.iter();
    let changes = changes.map(|one| (one.at_ms, one.what.word(), one.topic.clone(), None, one.what.to_string()));
    let mut all: Vec<_> = lost.chain(changes).collect();
    all.sort_by_key(|one| one.0);
    let section = |(at_ms, event, topic, partition, text): (i64, &str, _, _, _)| {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(at_ms).unwrap_or(0));
        EventSection { at: control::time::rfc3339(at), event: event.to_owned(), topic, partition, text }
    };
    all.into_iter().map(section).collect()
}

fn group(seen: &GroupStatus) -> GroupSection {
    GroupSection {
        group: seen.group.clone(),
        state: match seen.state {
            GroupState::Synced => control::GroupState::Synced,
            GroupState::Waiting => control::GroupState::Waiting,
            GroupState::Ahead => control::GroupState::Ahead,
            GroupState::Active => control::GroupState::Active,
            GroupState::Held => control::GroupState::Held,
            GroupState::Failed => control::GroupState::Failed,
        },
        reason: seen.reason.clone(),
        partitions: seen.partitions as u64,
        partitions_exact: seen.exact as u64,
        sync_age_seconds: seen.age_seconds,
    }
}

fn group_event(seen: &GroupEvent) -> GroupEventSection {
    let at = Duration::from_millis(u64::try_from(seen.at_ms).unwrap_or(0));
    GroupEventSection {
        at: control::time::rfc3339(SystemTime::UNIX_EPOCH + at),
        group: seen.group.clone(),
        topic: seen.topic.clone(),
        partition: seen.partition,
        text: seen.text.clone(),
    }
}

fn standing(seen: &PartitionStatus) -> PartitionSection {
    PartitionSection {
        partition: seen.partition,
        state: seen.state.word().to_owned(),
        reason: seen.reason.as_ref().map(|reason| format!("{} {}", verdict::code(reason.code), reason.text)),
        lag_records: seen.lag_records,
        behind_seconds: seen.behind_seconds,
        looped_records: seen.looped_records,
        guard: seen.guard.word().to_owned(),
    }
}

fn topic(seen: &TopicStatus) -> TopicSection {
    TopicSection {
        source: seen.source.clone(),
        target: seen.target.clone(),
        state: match seen.state {
            TopicState::Active => control::TopicState::Active,
            _ if seen.reason.as_ref().is_some_and(|reason| reason.code == TroubleCode::Paused) => {
                control::TopicState::Paused
            }
            TopicState::Paused | TopicState::Failed => control::TopicState::Faulted,
        },
        reason: seen.reason.as_ref().map(|reason| format!("{} {}", verdict::code(reason.code), reason.text)),
        partitions: u32::try_from(seen.partitions).unwrap_or(u32::MAX),
        lag_records: Some(seen.lag_records),
        records: seen.records,
        bytes: seen.bytes,
        behind_seconds: seen.behind_seconds,
        partition_states: [
            ("running", seen.states.running),
            ("catching_up", seen.states.catching_up),
            ("paused", seen.states.paused),
            ("failed", seen.states.failed),
        ]
        .map(|(state, count)| (state.to_owned(), count))
        .into(),
        guarded_by_log: seen.states.guarded_by_log,
        standing: seen.standing.iter().map(standing).collect(),
    }
}
