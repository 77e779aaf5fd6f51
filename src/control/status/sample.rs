//! A status with something in every section, for the tests of whoever shows it.

use super::*;

/// A link with two carriers, one faulted topic and one slow one.
pub(crate) fn busy() -> Status {
    Status {
        config: ConfigSection::default(),
        schema: SCHEMA.to_owned(),
        version: "0.1.0".to_owned(),
        link: "orange-grape".to_owned(),
        at: "2026-11-21T03:06:45Z".to_owned(),
        since: "2026-11-15T01:00:00Z".to_owned(),
        state: State::Degraded,
        reasons: vec![Problem::new(Code::TOPIC_ALLOWED, "topic eu.xaz.pay: source refused Read to User:srckey")],
        local: ClusterStatus {
            cluster: "grape".to_owned(),
            reachable: Some(true),
            brokers: Some(3),
            kafka_cluster_id: Some("q1Sh-9_ISia_zwGINzRvyQ".to_owned()),
            error: None,
        },
        peer: ClusterStatus {
            cluster: "orange".to_owned(),
            reachable: Some(true),
            brokers: Some(3),
            kafka_cluster_id: Some("4L6g3nShT-eMCtK--X86sw".to_owned()),
            error: None,
        },
        tunnel: TunnelSection {
            state: TunnelState::Up,
            role: TunnelRole::Dial,
            address: "203.0.113.7:7443".to_owned(),
            transport: "noise".to_owned(),
            peer: Some("203.0.113.7:7443".to_owned()),
            since: Some("2026-11-15T01:00:02Z".to_owned()),
            rtt_ms: Some(81.25),
            carriers: vec![
                CarrierSection {
                    id: 1,
                    peer: "203.0.113.7:7443".to_owned(),
                    since: Some("2026-11-15T01:00:02Z".to_owned()),
                    attached: true,
                    suspect: false,
                    rtt_ms: Some(81.25),
                    bytes_in: 1_288_490_188,
                    bytes_out: 52_428_800,
                    path: Some(PathSection {
                        congestion_window: 1_448_000,
                        in_flight: 724_000,
                        unsent: 131_072,
                        retransmitted: 12,
                        shortest_rtt_us: 80_900,
                        delivery_rate: 9_600_000,
                    }),
                },
                CarrierSection {
                    id: 3,
                    peer: "203.0.113.7:7443".to_owned(),
                    since: Some("2026-11-21T03:05:45Z".to_owned()),
                    attached: false,
                    suspect: false,
                    rtt_ms: None,
                    bytes_in: 512,
                    bytes_out: 64,
                    path: None,
                },
            ],
            streams: 14,
            busiest: vec![StreamSection {
                id: 9,
                ours: true,
                bytes_in: 1_073_741_824,
                bytes_out: 4096,
                window_in: 8_388_608,
                window_out: 65_536,
                waits_for: "nothing".to_owned(),
            }],
            bytes_in: 1_288_490_700,
            bytes_out: 52_428_864,
            buffered_in: 4096,
            buffered_out: 0,
            replayed_bytes: 131_072,
            sessions: 2,
            resumes: 1,
            streams_lost: 3,
            streams_overdrawn: 0,
            reconnects: 3,
            reconnect_reasons: BTreeMap::from([("timeout".to_owned(), 2)]),
            last_error: Some("carrier 2: no answer for 5 s".to_owned()),
        },
        exit: ExitSection {
            open: 2,
            total: 40,
            refused: 1,
            failed: 0,
            cut: 0,
            reasons: BTreeMap::from([("not_allowed".to_owned(), 1)]),
        },
        proxy: ProxySection {
            mode: ProxyMode::Names,
            listeners: vec![
                ListenerSection {
                    target: "b0.orange.test:9092".to_owned(),
                    node_id: None,
                    address: "127.77.0.1:9092".to_owned(),
                    connections: 4,
                    connections_total: 15,
                    connections_ended: 11,
                    bytes_in: 4_096,
                    bytes_out: 65_536,
                    answers: Vec::new(),
                },
                ListenerSection {
                    target: "b1.orange.test:9092".to_owned(),
                    node_id: Some(1),
                    address: "127.77.0.2:9092".to_owned(),
                    connections: 0,
                    connections_total: 2,
                    connections_ended: 2,
                    bytes_in: 1_024,
                    bytes_out: 1_048_576,
                    answers: vec![AnswersSection {
                        api: "Fetch".to_owned(),
                        count: 10,
                        seconds: 4.5,
                        buckets: vec![(0.1, 1), (0.5, 7), (1.0, 0)],
                    }],
                },
            ],
            connections: 4,
            connections_total: 17,
            connections_ended: 13,
            bytes_in: 5_120,
            bytes_out: 1_114_112,
            rewritten: BTreeMap::from([("Metadata".to_owned(), 12)]),
            nodes_rewritten: 36,
            nodes_hidden: 0,
            leaks: 0,
            dns: Some("127.0.0.1:5353".to_owned()),
            reauthentications: 3,
            refused: BTreeMap::from([("authentication: refused by a broker".to_owned(), 2)]),
            clients_open: 2,
            clients: vec![ClientSection {
                client: "10.0.0.5".to_owned(),
                connections: 3,
                bytes_in: 1_048_576,
                bytes_out: 104_857_600,
                paused_in_ms: 0,
                paused_out_ms: 1_250,
            }],
            paused_in_ms: 0,
            paused_out_ms: 1_500,
            denied: BTreeMap::from([("CreateTopics".to_owned(), 3)]),
            denials: vec![DenialSection {
                client: "10.0.0.5".to_owned(),
                api: "CreateTopics".to_owned(),
                requests: 3,
                since: "2026-11-21T03:05:00Z".to_owned(),
            }],
        },
        flows: vec![FlowSection {
            name: "orange-grape".to_owned(),
            state: FlowState::Degraded,
            topics_total: 3,
            topics_active: 2,
            lag_records: Some(12),
            behind_seconds: Some(0.4),
            records_total: 1_000_000,
            bytes_total: 734_003_200,
            bytes_per_second: 1_887_436.8,
            delivery: "exactly_once".to_owned(),
            guarantee: Some("asked".to_owned()),
            looped_records: 0,
            looped_bytes: 0,
            topics: vec![
                topic("eu.xaz.orders", TopicState::Active, None, Some(12), 750_000),
                topic("eu.xaz.pay", TopicState::Faulted, Some("LS405 source refused Read to User:srckey"), None, 0),
                topic("eu.xaz.users", TopicState::Active, None, Some(0), 250_000),
            ],
            events: vec![EventSection {
                at: "2026-11-28T05:59:58Z".to_owned(),
                event: "config_changed".to_owned(),
                topic: Some("eu.xaz.orders".to_owned()),
                partition: None,
                text: "changed eu.xaz.orders.copy: retention.ms from 604800000 to 86400000".to_owned(),
            }],
            paused: false,
            acls_owned: 6,
            groups: vec![
                group("billing", GroupState::Synced, None, Some(0.4)),
                group("search", GroupState::Active, Some("it has members at the target"), None),
            ],
            group_failures: BTreeMap::from([("active".to_owned(), 3)]),
            group_events: vec![GroupEventSection {
                at: "2026-11-21T03:05:00Z".to_owned(),
                group: "billing".to_owned(),
                topic: "eu.xaz.orders.copy".to_owned(),
                partition: 3,
                text: "set back from 90 to 40, as the source's group was".to_owned(),
            }],
            last_error: Some("topic eu.xaz.pay: TOPIC_AUTHORIZATION_FAILED".to_owned()),
        }],
        errors: vec![ErrorCount { scope: "replicator".to_owned(), code: Code::TOPIC_ALLOWED, count: 7 }],
    }
}

/// A process that has just begun: nothing is known.
pub(crate) fn starting() -> Status {
    let mut status = busy();
    status.state = State::Starting;
    status.reasons = vec![Problem::new(Code::STARTING, "the endpoint is starting")];
    status.since.clone_from(&status.at);
    for cluster in [&mut status.local, &mut status.peer] {
        *cluster = ClusterStatus { cluster: cluster.cluster.clone(), ..ClusterStatus::default() };
    }
    status.tunnel = TunnelSection {
        busiest: Vec::new(),
        state: TunnelState::Connecting,
        role: TunnelRole::Dial,
        address: "203.0.113.7:7443".to_owned(),
        transport: "noise".to_owned(),
        peer: None,
        since: None,
        rtt_ms: None,
        carriers: Vec::new(),
        streams: 0,
        bytes_in: 0,
        bytes_out: 0,
        buffered_in: 0,
        buffered_out: 0,
        replayed_bytes: 0,
        sessions: 0,
        resumes: 0,
        streams_lost: 0,
        streams_overdrawn: 0,
        reconnects: 0,
        reconnect_reasons: BTreeMap::new(),
        last_error: None,
    };
    status.exit = ExitSection::default();
    status.proxy = ProxySection::default();
    status.flows.clear();
    status.errors.clear();
    status
}

fn topic(name: &str, state: TopicState, reason: Option<&str>, lag: Option<u64>, records: u64) -> TopicSection {
    TopicSection {
        source: name.to_owned(),
        target: format!("{name}.copy"),
        state,
        reason: reason.map(str::to_owned),
        partitions: 12,
        lag_records: lag,
        records,
        bytes: records * 734,
        behind_seconds: if state == TopicState::Active { 0.4 } else { 0.0 },
        partition_states: [("running".to_owned(), 12)].into(),
        guarded_by_log: 0,
        standing: Vec::new(),
    }
}

fn group(name: &str, state: GroupState, reason: Option<&str>, age: Option<f64>) -> GroupSection {
    GroupSection {
        group: name.to_owned(),
        state,
        reason: reason.map(str::to_owned),
        partitions: 12,
        partitions_exact: if state == GroupState::Synced { 12 } else { 3 },
        sync_age_seconds: age,
    }
}
