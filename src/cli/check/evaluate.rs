//! Judging facts: a pure function from what was found to rows with code, cause and fix.

use super::report::{Category, Outcome, Row};
use crate::control::facts::{
    Answer, Attempt, BrokerFact, CertificateFact, ClusterFact, ClusterFound, ConfigFact, Fact, Failure, Handshake,
    Mistake, NameFact, NameOf, PortFact, PortOf, PortState, ProcessFact, Side, Step, TunnelFact,
};
use crate::control::{Code, Problem, TunnelState};

/// Days before its end when a certificate is worth a warning.
const EXPIRES_SOON: i64 = 14;

/// The rows for `facts`, in their order; problems that another row already names are left out.
#[must_use]
pub(crate) fn evaluate(facts: &[Fact]) -> Vec<Row> {
    let mut rows = Vec::new();
    for fact in facts {
        match fact {
            Fact::Config(fact) => config(fact, &mut rows),
            Fact::Certificate(fact) => rows.push(certificate(fact)),
            Fact::Process(fact) => rows.push(process(fact)),
            Fact::Name(fact) => rows.push(name(fact)),
            Fact::Port(fact) => rows.push(port(fact)),
            Fact::Tunnel(fact) => tunnel(fact, &mut rows),
            Fact::Cluster(fact) => cluster(fact, &mut rows),
            Fact::Problems(_) => {}
        }
    }
    for fact in facts {
        if let Fact::Problems(problems) = fact {
            problems.iter().for_each(|problem| add_problem(problem, &mut rows));
        }
    }
    rows
}

fn config(fact: &ConfigFact, rows: &mut Vec<Row>) {
    use Category::Config;
    if fact.errors.is_empty() {
        rows.push(Row::new(Config, Code::CONFIG_LOADS, Outcome::Passed, fact.path.clone()));
    }
    rows.extend(fact.errors.iter().map(|error| mistake(error, Outcome::Failed)));
    rows.extend(fact.warnings.iter().map(|warning| mistake(warning, Outcome::Warning)));
    match &fact.secret {
        Some(Ok(())) => rows.push(Row::new(Config, Code::SECRET_STRONG, Outcome::Passed, "")),
        Some(Err(why)) => rows.push(Row::new(Config, Code::SECRET_STRONG, Outcome::Failed, why.clone())),
        None => {}
    }
}

/// The message names cause and place; only the fix is added.
fn mistake(mistake: &Mistake, outcome: Outcome) -> Row {
    let mut lines = mistake.what.lines().map(str::to_owned);
    let first = lines.next().unwrap_or_default();
    let row = Row::new(Category::Config, mistake.code, outcome, first).with_lines(lines.collect());
    let row = Row { cause: None, ..row };
    match &mistake.fix {
        Some(fix) => row.fixed_by(fix.clone()),
        None => row,
    }
}

fn certificate(fact: &CertificateFact) -> Row {
    let row = |outcome, detail: String| Row::new(Category::Config, Code::CERTIFICATE_VALID, outcome, detail);
    match &fact.days_left {
        Err(why) => row(Outcome::Failed, format!("{}: {why}", fact.path)).because("the file cannot be used"),
        Ok(days) if *days < 0 => row(Outcome::Failed, format!("{}: expired {} days ago", fact.path, -days)),
        Ok(days) if *days < EXPIRES_SOON => row(Outcome::Warning, format!("{}: expires in {days} days", fact.path)),
        Ok(days) => row(Outcome::Passed, format!("expires in {days} days")),
    }
}

fn process(fact: &ProcessFact) -> Row {
    let address = fact.address.as_deref().unwrap_or("no admin port is configured");
    match &fact.answer {
        Answer::Ours { version } => Row::new(
            Category::Config,
            Code::ADMIN_ANSWERS,
            Outcome::Passed,
            format!("{address}, linkspan {version} is running"),
        ),
        Answer::Silent(why) => {
            let detail = format!("{address}: not running ({why})");
            Row::new(Category::Config, Code::ADMIN_ANSWERS, Outcome::Skipped, detail)
        }
        Answer::Other(what) => {
            Row::new(Category::Config, Code::SAME_PROCESS, Outcome::Failed, format!("{address}: {what}"))
        }
    }
}

fn name(fact: &NameFact) -> Row {
    let code = match fact.of {
        NameOf::LocalBootstrap => Code::CLUSTER_NAMES,
        NameOf::Peer => Code::PEER_NAME,
    };
    match &fact.found {
        Ok(addresses) => {
            const SHOWN: usize = 3;
            let more = addresses.len().saturating_sub(SHOWN);
            let shown = addresses.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Row::new(Category::Names, code, Outcome::Passed, format!("{} -> {shown}{more}", fact.name))
        }
        Err(why) => Row::new(Category::Names, code, Outcome::Failed, format!("{}: {why}", fact.name)),
    }
}

fn port(fact: &PortFact) -> Row {
    let code = match fact.of {
        PortOf::Tunnel => Code::TUNNEL_PORT,
        PortOf::Dns => Code::DNS_PORT,
        PortOf::Proxy => Code::PROXY_PORT,
        PortOf::Admin => Code::ADMIN_PORT,
    };
    match &fact.state {
        PortState::Free => Row::new(Category::Ports, code, Outcome::Passed, fact.address.clone()),
        PortState::Held => {
            Row::new(Category::Ports, code, Outcome::Passed, format!("{}, open in the running endpoint", fact.address))
        }
        PortState::Failed(why) => Row::new(Category::Ports, code, Outcome::Failed, format!("{}: {why}", fact.address)),
    }
}

fn tunnel(fact: &TunnelFact, rows: &mut Vec<Row>) {
    use Category::Tunnel;
    match fact {
        TunnelFact::Skipped(why) => rows.push(Row::new(Tunnel, Code::TUNNEL_UP, Outcome::Skipped, why.clone())),
        TunnelFact::Running { state: TunnelState::Up, address, rtt_us, .. } => {
            let rtt = rtt_us.map(|us: u64| format!(", rtt {}", millis(us))).unwrap_or_default();
            rows.push(Row::new(Tunnel, Code::TUNNEL_UP, Outcome::Passed, format!("{address}{rtt}")));
        }
        TunnelFact::Running { address, last_error, dials, .. } => {
            let row = Row::new(Tunnel, Code::TUNNEL_UP, Outcome::Failed, address.clone())
                .with_lines(last_error.iter().cloned().collect());
            rows.push(if *dials {
                row
            } else {
                row.because("the peer is not running, its firewall or ours drops its packets, or it listens too instead of dialling")
                    .fixed_by("start the peer with [tunnel] dial; apply the rule that `linkspan firewall` prints")
            });
        }
        TunnelFact::Tried { address, result } => handshake(address, result, rows),
    }
}

fn handshake(address: &str, result: &Handshake, rows: &mut Vec<Row>) {
    use Category::Tunnel;
    let reached = || Row::new(Tunnel, Code::PEER_REACHABLE, Outcome::Passed, address);
    let failed = |code, why: &str| Row::new(Tunnel, code, Outcome::Failed, address).with_lines(vec![why.to_owned()]);
    match result {
        Handshake::Unreachable(failure) => rows.push(unreachable_peer(address, failure)),
        Handshake::Proved { took_us } => {
            rows.push(reached());
            rows.push(Row::new(
                Tunnel,
                Code::PEER_PROVED,
                Outcome::Passed,
                format!("handshake in {}", millis(*took_us)),
            ));
        }
        Handshake::NotProved(why) => {
            rows.push(reached());
            rows.push(failed(Code::PEER_PROVED, why));
        }
        Handshake::OtherLink(why) => {
            rows.push(reached());
            rows.push(failed(Code::SAME_LINK, why));
        }
        Handshake::OtherTransport(why) => {
            rows.push(reached());
            rows.push(failed(Code::SAME_TRANSPORT, why));
        }
    }
}

fn unreachable_peer(address: &str, failure: &Failure) -> Row {
    let row =
        |code| Row::new(Category::Tunnel, code, Outcome::Failed, address).with_lines(vec![failure.detail.clone()]);
    match failure.step {
        Step::Name => row(Code::PEER_NAME),
        Step::Refused => row(Code::PEER_REACHABLE)
            .because("nothing listens there: the peer is not running, or both sides are set to dial")
            .fixed_by("start the peer; exactly one side has [tunnel] listen, the other [tunnel] dial"),
        Step::Timeout => row(Code::PEER_REACHABLE)
            .because(
                "packets are dropped on the way: the one firewall rule of the link is missing, or the address is wrong",
            )
            .fixed_by(
                "apply the rule that `linkspan firewall` prints, and compare [tunnel] dial with the peer's address",
            ),
        _ => row(Code::PEER_REACHABLE),
    }
}

fn cluster(fact: &ClusterFact, rows: &mut Vec<Row>) {
    let category = match fact.side {
        Side::Local => Category::Local,
        Side::Peer => Category::Peer,
    };
    match &fact.found {
        Err(why) => {
            rows.push(Row::new(category, Code::PROBED, Outcome::Skipped, format!("{}: {why}", fact.cluster)));
        }
        Ok(found) if found.bootstrap.iter().all(|attempt| attempt.result.is_err()) => {
            rows.push(no_bootstrap(category, fact, found));
        }
        Ok(found) => {
            rows.push(bootstrap(category, found));
            let Some(brokers) = &found.brokers else {
                let why = "only connections were tried: this side has no credentials for the cluster";
                rows.push(Row::new(category, Code::BROKERS_REACHABLE, Outcome::Skipped, why));
                return;
            };
            if found.tls {
                rows.push(Row::new(category, Code::BROKER_TLS, Outcome::Passed, ""));
            }
            if let Some(mechanism) = &found.sasl {
                rows.push(Row::new(category, Code::BROKER_SASL, Outcome::Passed, mechanism.clone()));
            }
            rows.push(every_broker(category, fact, brokers));
        }
    }
}

/// No bootstrap server answered: the one that came furthest tells most.
fn no_bootstrap(category: Category, fact: &ClusterFact, found: &ClusterFound) -> Row {
    let furthest = failures(&found.bootstrap).max_by_key(|(_, failure)| failure.step);
    let Some((_, failure)) = furthest else {
        return Row::new(
            category,
            Code::PROBED,
            Outcome::Skipped,
            format!("{}: no bootstrap server is known", fact.cluster),
        );
    };
    let code = match failure.step {
        Step::Tunnel => Code::TUNNEL_UP,
        Step::Allow => Code::PEER_ALLOWS,
        Step::Tls => Code::BROKER_TLS,
        Step::Sasl => Code::BROKER_SASL,
        Step::Name => Code::CLUSTER_NAMES,
        Step::Refused | Step::Timeout | Step::Route | Step::Kafka => Code::BOOTSTRAP_ANSWERS,
    };
    let row = Row::new(category, code, Outcome::Failed, format!("{}: 0 of {}", fact.cluster, found.bootstrap.len()))
        .with_lines(attempt_lines(&found.bootstrap));
    match broker_cause(failure.step) {
        Some((cause, fix)) if code == Code::BOOTSTRAP_ANSWERS => row.because(cause).fixed_by(fix),
        _ => row,
    }
}

fn bootstrap(category: Category, found: &ClusterFound) -> Row {
    let answered = found.bootstrap.iter().find_map(|attempt| Some((attempt, *attempt.result.as_ref().ok()?)));
    let detail = answered.map_or_else(String::new, |(attempt, us)| {
        let brokers = found.brokers.as_ref().map(|brokers| format!(", {} brokers", brokers.len())).unwrap_or_default();
        format!("{} in {}{brokers}", attempt.target, millis(us))
    });
    let failing = failures(&found.bootstrap).count();
    if failing == 0 {
        return Row::new(category, Code::BOOTSTRAP_ANSWERS, Outcome::Passed, detail);
    }
    Row::new(category, Code::BOOTSTRAP_ANSWERS, Outcome::Warning, detail)
        .with_lines(attempt_lines(&found.bootstrap))
        .because(format!(
            "{failing} of {} bootstrap servers cannot be used; one is enough while it lives",
            found.bootstrap.len()
        ))
}

fn every_broker(category: Category, fact: &ClusterFact, brokers: &[BrokerFact]) -> Row {
    let all = brokers.len();
    let failing: Vec<_> =
        brokers.iter().filter_map(|broker| Some((broker, broker.attempt.result.as_ref().err()?))).collect();
    let detail = format!("{} of {all}", all - failing.len());
    if all == 0 {
        return Row::new(category, Code::BROKERS_REACHABLE, Outcome::Failed, "the cluster advertises no broker")
            .because("the cluster has just been started, or its brokers are not registered")
            .fixed_by("look at the brokers' own logs");
    }
    if failing.is_empty() {
        return Row::new(category, Code::BROKERS_REACHABLE, Outcome::Passed, detail);
    }
    let lines =
        failing.iter().map(|(broker, failure)| format!("broker {}: {}", broker.id, told(&broker.attempt, failure)));
    let first = failing[0].1.step;
    let same = failing.iter().all(|(_, failure)| failure.step == first);
    let code = if same && first == Step::Allow { Code::PEER_ALLOWS } else { Code::BROKERS_REACHABLE };
    let row =
        Row::new(category, code, Outcome::Failed, format!("{}: {detail}", fact.cluster)).with_lines(lines.collect());
    match broker_cause(first) {
        Some((cause, fix)) if same && code == Code::BROKERS_REACHABLE => row.because(cause).fixed_by(fix),
        _ => row,
    }
}

/// Cause and fix that are better known than the usual ones.
fn broker_cause(step: Step) -> Option<(&'static str, &'static str)> {
    Some(match step {
        Step::Name => (
            "the advertised name has no address where it is dialled",
            "correct advertised.listeners, or give the name its addresses in [expose] resolve on the cluster's side",
        ),
        Step::Refused => (
            "nothing listens there: the broker is down, or listens elsewhere",
            "start the broker, or correct its listeners",
        ),
        Step::Timeout => (
            "packets are dropped on the way: a network rule allows other brokers only, or the host is down",
            "allow the endpoint on the cluster's side to connect to every broker that is named",
        ),
        Step::Route => ("there is no route to it", "check the routes of the endpoint on the cluster's side"),
        Step::Tls => (Code::BROKER_TLS.cause(), Code::BROKER_TLS.fix()),
        Step::Sasl => (Code::BROKER_SASL.cause(), Code::BROKER_SASL.fix()),
        Step::Kafka => (
            "what answers there is no Kafka broker, speaks TLS on a listener set to plaintext (or the reverse), or closed the connection",
            "check the port, and set security.protocol to what the listener speaks",
        ),
        Step::Tunnel | Step::Allow => return None,
    })
}

fn failures(attempts: &[Attempt]) -> impl Iterator<Item = (&Attempt, &Failure)> {
    attempts.iter().filter_map(|attempt| Some((attempt, attempt.result.as_ref().err()?)))
}

fn attempt_lines(attempts: &[Attempt]) -> Vec<String> {
    failures(attempts).map(|(attempt, failure)| told(attempt, failure)).collect()
}

/// What failed, with the target named once.
fn told(attempt: &Attempt, failure: &Failure) -> String {
    if failure.detail.contains(&attempt.target) {
        failure.detail.clone()
    } else {
        format!("{}: {}", attempt.target, failure.detail)
    }
}

fn add_problem(problem: &Problem, rows: &mut Vec<Row>) {
    let known =
        rows.iter().any(|row| row.code == problem.code && matches!(row.result, Outcome::Failed | Outcome::Warning));
    if known {
        return;
    }
    let category = match problem.code.group() {
        0 => Category::Config,
        1 => Category::Tunnel,
        3 => Category::Ports,
        _ => Category::Link,
    };
    rows.push(
        Row::new(category, problem.code, Outcome::Failed, problem.what.clone())
            .because(problem.cause.clone())
            .fixed_by(problem.fix.clone()),
    );
}

/// Microseconds as milliseconds: two digits below ten.
fn millis(us: u64) -> String {
    if us < 10_000 { format!("{}.{} ms", us / 1000, us / 100 % 10) } else { format!("{} ms", (us + 500) / 1000) }
}

#[cfg(test)]
mod tests;
