//! Is the link well? A pure judgement over the parts of a status, with a reason for everything that is not.

use crate::control::{Code, Problem, State, Status, TunnelState};
use crate::replicator::{FlowState, FlowStatus, GroupState, TopicState, TroubleCode};

/// What the judgement needs beside the status itself.
pub(super) struct Seen<'a> {
    pub(super) local_failure: Option<(Code, String)>,
    pub(super) peer_failure: Option<(Code, String)>,
    /// Whether this side opens the tunnel's port.
    pub(super) listens: bool,
    pub(super) proxy_problems: Vec<(Code, String)>,
    pub(super) flows: &'a [FlowStatus],
}

/// Topics named one by one in the reasons; more are counted.
const MOST_TOPICS: usize = 20;

/// The verdict and its reasons, the worst first.
pub(super) fn judge(status: &Status, seen: &Seen<'_>) -> (State, Vec<Problem>) {
    let mut reasons = Vec::new();
    let mut state = State::Up;
    if status.tunnel.state != TunnelState::Up {
        state = State::Down;
        reasons.push(tunnel(status, seen));
    }
    if let Some(error) = &status.config.last_error {
        reasons.push(Problem::new(Code::CONFIG_RELOADED, error.clone()));
    }
    for (what, failure) in [("local", &seen.local_failure), ("peer", &seen.peer_failure)] {
        // Without a tunnel the peer's silence says nothing new.
        if let Some((code, text)) = failure
            && (what == "local" || state != State::Down)
        {
            reasons.push(Problem::new(*code, format!("{what} cluster: {text}")));
        }
    }
    for flow in seen.flows {
        flow_reasons(flow, &mut reasons);
    }
    reasons.extend(seen.proxy_problems.iter().map(|(code, what)| Problem::new(*code, what.clone())));
    if state == State::Up && !reasons.is_empty() {
        state = State::Degraded;
    }
    if state == State::Up
        && status.local.reachable.is_none()
        && seen.flows.iter().any(|f| f.state == FlowState::Starting)
    {
        return (State::Starting, vec![Problem::new(Code::STARTING, "the local cluster was not seen yet")]);
    }
    (state, reasons)
}

fn tunnel(status: &Status, seen: &Seen<'_>) -> Problem {
    let at = &status.tunnel.address;
    match &status.tunnel.last_error {
        Some(error) => Problem::new(tunnel_code(error), format!("no session over {at}: {error}")),
        None if seen.listens => Problem::new(Code::TUNNEL_UP, format!("listening on {at}, and no peer has come"))
            .because(
                "the peer does not run, its [tunnel] dial is another address, or both sides listen and nobody dials",
            ),
        None => Problem::new(Code::TUNNEL_UP, format!("no session over {at} yet")),
    }
}

/// The code of a tunnel's failure, by the words of the error; the tests hold them against the errors themselves.
fn tunnel_code(error: &str) -> Code {
    const WORDS: &[(&str, Code)] = &[
        ("no link named", Code::SAME_LINK),
        ("link names differ", Code::SAME_LINK),
        ("another process is already the peer", Code::SAME_LINK),
        ("set a secret on both sides", Code::SAME_TRANSPORT),
        ("on the tunnel port", Code::SAME_TRANSPORT),
        ("tunnel version", Code::SAME_TRANSPORT),
        ("same secret", Code::PEER_PROVED),
        ("certificate", Code::PEER_PROVED),
        ("refused the connection", Code::PEER_REACHABLE),
        ("did not answer", Code::PEER_REACHABLE),
        ("is unreachable", Code::PEER_REACHABLE),
    ];
    WORDS.iter().find(|(words, _)| error.contains(words)).map_or(Code::TUNNEL_UP, |(_, code)| *code)
}

fn flow_reasons(flow: &FlowStatus, reasons: &mut Vec<Problem>) {
    if let Some(reason) = &flow.halted {
        reasons.push(Problem::new(code(reason.code), format!("flow {}: {}", flow.flow, reason.text)));
    } else if flow.state == FlowState::Paused {
        let what = flow.last_error.as_ref().map_or("it waits", |error| error.text.as_str());
        let source = flow
            .topics
            .iter()
            .all(|topic| topic.reason.as_ref().is_none_or(|reason| reason.code != TroubleCode::TargetUnavailable));
        let code = if source { Code::FLOW_SOURCE } else { Code::FLOW_TARGET };
        reasons.push(Problem::new(code, format!("flow {}: {what}", flow.flow)));
    }
    let troubled = flow.topics.iter().filter(|topic| topic.state != TopicState::Active);
    for (at, topic) in troubled.enumerate() {
        if at == MOST_TOPICS {
            let more = flow.topics.iter().filter(|topic| topic.state != TopicState::Active).count() - MOST_TOPICS;
            reasons.push(Problem::new(Code::TOPIC_COPIES, format!("flow {}: {more} more topics", flow.flow)));
            break;
        }
        if let Some(reason) = &topic.reason {
            reasons.push(Problem::new(
                code(reason.code),
                format!("flow {}, {}: {}", flow.flow, topic.source, reason.text),
            ));
        }
    }
    if let Some(reason) = &flow.acls.reason {
        reasons.push(Problem::new(code(reason.code), format!("flow {}: {}", flow.flow, reason.text)));
    }
    let groups = flow.groups.iter().filter(|group| matches!(group.state, GroupState::Held | GroupState::Failed));
    for (at, group) in groups.clone().enumerate() {
        if at == MOST_TOPICS {
            let more = groups.count() - MOST_TOPICS;
            reasons.push(Problem::new(Code::GROUPS_FOLLOW, format!("flow {}: {more} more groups", flow.flow)));
            break;
        }
        let reason = group.reason.as_deref().unwrap_or("it does not follow");
        reasons.push(Problem::new(Code::GROUPS_FOLLOW, format!("flow {}, group {}: {reason}", flow.flow, group.group)));
    }
    for event in &flow.events {
        let text = &event.what;
        reasons.push(Problem::new(
            Code::TOPIC_GAP,
            format!("flow {}, {}-{}: {text}", flow.flow, event.topic, event.partition),
        ));
    }
}

/// The code under which a flow's trouble is known to the operator.
pub(super) const fn code(trouble: TroubleCode) -> Code {
    match trouble {
        TroubleCode::SourceUnavailable => Code::FLOW_SOURCE,
        TroubleCode::TargetUnavailable => Code::FLOW_TARGET,
        TroubleCode::Authentication => Code::BROKER_SASL,
        TroubleCode::SourceAuthorization | TroubleCode::TargetAuthorization => Code::TOPIC_ALLOWED,
        TroubleCode::TargetName => Code::TOPIC_NAME,
        TroubleCode::TargetPartitions => Code::TOPIC_PARTITIONS,
        TroubleCode::SourceRecreated | TroubleCode::SourceGone => Code::TOPIC_RECREATED,
        TroubleCode::SourceGap => Code::GAP_STOPS,
        TroubleCode::Paused => Code::OPERATOR_PAUSED,
        TroubleCode::Stalled => Code::PARTITION_STALLED,
        TroubleCode::Acls => Code::ACLS_FOLLOW,
        TroubleCode::Registry => Code::FLOW_PRODUCERS,
        TroubleCode::Delivery => Code::FLOW_DELIVERY,
        _ => Code::TOPIC_COPIES,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tunnel::carrier::{CarrierError, Transport};
    use crate::tunnel::session::Refusal;

    #[test]
    fn each_failure_of_the_tunnel_has_its_code() {
        let target = "203.0.113.7:7443".parse().expect("host:port");
        for (error, code) in [
            (CarrierError::WrongSecret.to_string(), Code::PEER_PROVED),
            (CarrierError::UnknownLink { link: "orange-grape".to_owned() }.to_string(), Code::SAME_LINK),
            (
                CarrierError::TransportMismatch { ours: Transport::Noise, theirs: Transport::Tls }.to_string(),
                Code::SAME_TRANSPORT,
            ),
            (CarrierError::ConnectTimeout { target, after: Duration::from_secs(10) }.to_string(), Code::PEER_REACHABLE),
            (format!("refused by the peer: {}", Refusal::OtherPeer), Code::SAME_LINK),
            (format!("refused by the peer: {}", Refusal::WrongLink), Code::SAME_LINK),
            (CarrierError::Closed.to_string(), Code::TUNNEL_UP),
        ] {
            assert_eq!(tunnel_code(&error), code, "{error}");
        }
    }
}
