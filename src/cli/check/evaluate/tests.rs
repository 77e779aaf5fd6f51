use super::*;
use crate::cli::check::report::Report;
use crate::cli::output::Style;
use crate::cli::testing::golden;

fn ok(target: &str, us: u64) -> Attempt {
    Attempt { target: target.to_owned(), result: Ok(us) }
}

fn failed(target: &str, step: Step, detail: &str) -> Attempt {
    Attempt { target: target.to_owned(), result: Err(Failure { step, detail: detail.to_owned() }) }
}

fn broker(id: i32, attempt: Attempt) -> BrokerFact {
    BrokerFact { id, attempt }
}

fn cluster(side: Side, bootstrap: Vec<Attempt>, brokers: Option<Vec<BrokerFact>>) -> Fact {
    let found = ClusterFound {
        bootstrap,
        tls: true,
        sasl: Some("PLAIN".to_owned()),
        kafka_cluster_id: brokers.as_ref().map(|_| "4L6g3nShT-eMCtK--X86sw".to_owned()),
        brokers,
    };
    Fact::Cluster(ClusterFact { side, cluster: "orange".to_owned(), found: Ok(found) })
}

fn config(secret: Option<Result<(), String>>) -> Fact {
    Fact::Config(ConfigFact { path: "linkspan.toml".to_owned(), errors: Vec::new(), warnings: Vec::new(), secret })
}

fn healthy() -> Vec<Fact> {
    vec![
        config(Some(Ok(()))),
        Fact::Process(ProcessFact {
            address: Some("127.0.0.1:9464".to_owned()),
            answer: Answer::Ours { version: "0.1.0".to_owned() },
        }),
        Fact::Name(NameFact {
            of: NameOf::LocalBootstrap,
            name: "b0.orange.test".to_owned(),
            found: Ok(["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"].map(str::to_owned).to_vec()),
        }),
        Fact::Port(PortFact { of: PortOf::Tunnel, address: "0.0.0.0:7443".to_owned(), state: PortState::Held }),
        Fact::Port(PortFact { of: PortOf::Admin, address: "127.0.0.1:9464".to_owned(), state: PortState::Free }),
        Fact::Tunnel(TunnelFact::Running {
            state: TunnelState::Up,
            address: "203.0.113.7:50122".to_owned(),
            rtt_us: Some(81_240),
            last_error: None,
            dials: false,
        }),
        cluster(
            Side::Local,
            vec![ok("b0.orange.test:9092", 3_210)],
            Some(vec![broker(0, ok("b0.orange.test:9092", 900)), broker(1, ok("b1.orange.test:9092", 950))]),
        ),
        Fact::Problems(Vec::new()),
    ]
}

fn broken() -> Vec<Fact> {
    vec![
        Fact::Config(ConfigFact {
            path: "linkspan.toml".to_owned(),
            errors: Vec::new(),
            warnings: vec![Mistake {
                code: Code::CONFIG_OPEN_SECRET,
                what: "linkspan.toml:9:15 tunnel.secret_file: everyone on this host can read secrets/link".to_owned(),
                fix: Some("chmod 600 secrets/link".to_owned()),
            }],
            secret: Some(Err("the shared secret has about 41 bits, at least 128 are needed".to_owned())),
        }),
        Fact::Process(ProcessFact {
            address: Some("127.0.0.1:9464".to_owned()),
            answer: Answer::Silent("nothing answers there".to_owned()),
        }),
        Fact::Name(NameFact {
            of: NameOf::Peer,
            name: "agent-eu.example.net".to_owned(),
            found: Err("Name or service not known".to_owned()),
        }),
        Fact::Port(PortFact {
            of: PortOf::Proxy,
            address: "127.0.0.1:9092".to_owned(),
            state: PortState::Failed("another program holds it".to_owned()),
        }),
        Fact::Tunnel(TunnelFact::Tried {
            address: "203.0.113.7:7443".to_owned(),
            result: Handshake::NotProved("the peer does not have the same secret".to_owned()),
        }),
        cluster(
            Side::Local,
            vec![
                ok("b0.orange.test:9092", 12_345),
                failed("b9.orange.test:9092", Step::Name, "b9.orange.test:9092 has no address"),
            ],
            Some(vec![
                broker(0, ok("b0.orange.test:9092", 900)),
                broker(1, ok("b1.orange.test:9092", 900)),
                broker(
                    2,
                    failed("b2.orange.test:9092", Step::Timeout, "b2.orange.test:9092 did not answer within 3000 ms"),
                ),
            ]),
        ),
        Fact::Cluster(ClusterFact {
            side: Side::Peer,
            cluster: "grape".to_owned(),
            found: Err("linkspan is not running here, and only it has the tunnel".to_owned()),
        }),
    ]
}

fn report(facts: &[Fact]) -> Report {
    Report::new(Some("orange-grape".to_owned()), evaluate(facts), 3.2)
}

#[test]
fn a_healthy_link() {
    let report = report(&healthy());
    assert!(report.success);
    golden("src/cli/check/testdata/healthy.txt", &report.render(Style::PLAIN));
}

#[test]
fn a_link_with_many_faults() {
    let report = report(&broken());
    assert_eq!((report.success, report.failed, report.warnings, report.skipped), (false, 5, 2, 2));
    golden("src/cli/check/testdata/broken.txt", &report.render(Style::PLAIN));
    let json = serde_json::to_string_pretty(&report).expect("JSON") + "\n";
    golden("src/cli/check/testdata/broken.json", &json);
}

/// Each fault that can be injected, and the first code that must name it.
#[test]
fn each_fault_has_its_code_and_what_failed_has_cause_and_fix() {
    let tried = |result| Fact::Tunnel(TunnelFact::Tried { address: "203.0.113.7:7443".to_owned(), result });
    let unreachable = |step| tried(Handshake::Unreachable(Failure { step, detail: "no".to_owned() }));
    let bootstrap = |step| cluster(Side::Peer, vec![failed("b0.orange.test:9092", step, "no")], None);
    let one_of_two = |step| {
        let brokers = vec![broker(0, ok("b0:1", 1)), broker(1, failed("b1:1", step, "no"))];
        cluster(Side::Local, vec![ok("b0:1", 1)], Some(brokers))
    };
    let port =
        |of| Fact::Port(PortFact { of, address: "1.2.3.4:5".to_owned(), state: PortState::Failed("no".to_owned()) });
    let name = |of| Fact::Name(NameFact { of, name: "x".to_owned(), found: Err("no".to_owned()) });
    let certificate = |days_left| Fact::Certificate(CertificateFact { path: "certs/source.pem".to_owned(), days_left });
    let running = |dials| {
        let (address, state) = ("203.0.113.7:7443".to_owned(), TunnelState::Connecting);
        Fact::Tunnel(TunnelFact::Running { state, address, rtt_us: None, last_error: None, dials })
    };
    let process = Fact::Process(ProcessFact { address: None, answer: Answer::Other("no".to_owned()) });
    let faults = [
        (config(Some(Err("no".to_owned()))), Code::SECRET_STRONG),
        (certificate(Err("no".to_owned())), Code::CERTIFICATE_VALID),
        (certificate(Ok(-1)), Code::CERTIFICATE_VALID),
        (certificate(Ok(13)), Code::CERTIFICATE_VALID),
        (process, Code::SAME_PROCESS),
        (name(NameOf::Peer), Code::PEER_NAME),
        (name(NameOf::LocalBootstrap), Code::CLUSTER_NAMES),
        (port(PortOf::Tunnel), Code::TUNNEL_PORT),
        (port(PortOf::Dns), Code::DNS_PORT),
        (port(PortOf::Proxy), Code::PROXY_PORT),
        (port(PortOf::Admin), Code::ADMIN_PORT),
        (running(true), Code::TUNNEL_UP),
        (running(false), Code::TUNNEL_UP),
        (unreachable(Step::Name), Code::PEER_NAME),
        (unreachable(Step::Refused), Code::PEER_REACHABLE),
        (unreachable(Step::Timeout), Code::PEER_REACHABLE),
        (unreachable(Step::Route), Code::PEER_REACHABLE),
        (tried(Handshake::NotProved("no".to_owned())), Code::PEER_PROVED),
        (tried(Handshake::OtherLink("no".to_owned())), Code::SAME_LINK),
        (tried(Handshake::OtherTransport("no".to_owned())), Code::SAME_TRANSPORT),
        (bootstrap(Step::Tunnel), Code::TUNNEL_UP),
        (bootstrap(Step::Allow), Code::PEER_ALLOWS),
        (bootstrap(Step::Name), Code::CLUSTER_NAMES),
        (bootstrap(Step::Refused), Code::BOOTSTRAP_ANSWERS),
        (bootstrap(Step::Timeout), Code::BOOTSTRAP_ANSWERS),
        (bootstrap(Step::Tls), Code::BROKER_TLS),
        (bootstrap(Step::Sasl), Code::BROKER_SASL),
        (bootstrap(Step::Kafka), Code::BOOTSTRAP_ANSWERS),
        (one_of_two(Step::Timeout), Code::BROKERS_REACHABLE),
        (one_of_two(Step::Tls), Code::BROKERS_REACHABLE),
        (one_of_two(Step::Allow), Code::PEER_ALLOWS),
        (cluster(Side::Local, vec![ok("b0:1", 1)], Some(Vec::new())), Code::BROKERS_REACHABLE),
    ];
    for (fact, code) in faults {
        let rows = evaluate(std::slice::from_ref(&fact));
        let bad: Vec<_> = rows.iter().filter(|row| matches!(row.result, Outcome::Failed | Outcome::Warning)).collect();
        assert_eq!(bad.len(), 1, "{fact:?}: {rows:#?}");
        assert_eq!(bad[0].code, code, "{fact:?}");
        assert!(bad[0].cause.as_ref().is_some_and(|text| !text.is_empty()), "{fact:?}");
        assert!(bad[0].fix.as_ref().is_some_and(|text| !text.is_empty()), "{fact:?}");
    }
}

#[test]
fn a_half_reachable_cluster_names_the_broker() {
    let rows = evaluate(&broken());
    let row = rows.iter().find(|row| row.code == Code::BROKERS_REACHABLE).expect("a row");
    assert_eq!(row.detail, "orange: 2 of 3");
    assert_eq!(row.lines, ["broker 2: b2.orange.test:9092 did not answer within 3000 ms"]);
}

#[test]
fn what_the_running_endpoint_says_is_added_once() {
    let mut facts = healthy();
    facts[5] = Fact::Tunnel(TunnelFact::Running {
        state: TunnelState::Connecting,
        address: "203.0.113.7:7443".to_owned(),
        rtt_us: None,
        last_error: None,
        dials: true,
    });
    facts[7] = Fact::Problems(vec![
        Problem::new(Code::TUNNEL_UP, "no session for 12 s"),
        Problem::new(Code::PEER_PROVED, "the peer does not have the same secret"),
        Problem::new(Code::TOPIC_NAME, "topic a b"),
    ]);
    let rows = evaluate(&facts);
    let of = |code| rows.iter().filter(|row| row.code == code).map(|row| row.category).collect::<Vec<_>>();
    assert_eq!(of(Code::TUNNEL_UP), [Category::Tunnel]);
    assert_eq!(of(Code::PEER_PROVED), [Category::Tunnel]);
    assert_eq!(of(Code::TOPIC_NAME), [Category::Link]);
}

#[test]
fn facts_travel_as_json() {
    for fact in healthy().into_iter().chain(broken()) {
        let text = serde_json::to_string(&fact).expect("JSON");
        assert_eq!(serde_json::from_str::<Fact>(&text).expect(&text), fact);
    }
}

#[test]
fn times_are_short() {
    assert_eq!(
        [0, 949, 3_210, 9_999, 10_000, 81_500].map(millis),
        ["0.0 ms", "0.9 ms", "3.2 ms", "9.9 ms", "10 ms", "82 ms"]
    );
}
