//! The status for people: a line a part, problems with cause and fix, the verdict last.

use std::fmt::Write as _;

use crate::cli::output::{Paint, Style, bytes, clean, duration, grouped, table};
use crate::control::{
    ClusterStatus, FlowSection, FlowState, PathSection, ProxyMode, State, Status, TopicState, TunnelRole,
    TunnelSection, TunnelState, time,
};

/// The short form.
pub(super) fn human(status: &Status, style: Style) -> String {
    let mut text = head(status, style);
    for flow in &status.flows {
        flow_line(&mut text, flow, style);
    }
    tail(&mut text, status, style);
    text
}

/// The long form: carriers, listeners and topics too.
pub(super) fn wide(status: &Status, style: Style) -> String {
    let mut text = head(status, style);
    if !status.tunnel.carriers.is_empty() {
        let mut rows = vec![row(["CARRIER", "PEER", "UP", "RTT", "IN", "OUT", "WINDOW", "UNSENT", "RESENT"])];
        rows.extend(status.tunnel.carriers.iter().map(|carrier| {
            let path =
                |show: fn(&PathSection) -> String| carrier.path.as_ref().map_or_else(|| UNKNOWN.to_owned(), show);
            vec![
                carrier.id.to_string(),
                clean(&carrier.peer),
                since(status, carrier.since.as_deref()),
                carrier.rtt_ms.map_or_else(|| UNKNOWN.to_owned(), rtt),
                bytes(carrier.bytes_in as f64),
                bytes(carrier.bytes_out as f64),
                path(|path| bytes(path.congestion_window as f64)),
                path(|path| bytes(path.unsent as f64)),
                path(|path| grouped(path.retransmitted)),
            ]
        }));
        let _ = writeln!(text, "\n{}", table("  ", &rows));
    }
    if !status.tunnel.busiest.is_empty() {
        let mut rows = vec![row(["STREAM", "FROM", "IN", "OUT", "WINDOW IN", "WINDOW OUT", "WAITS FOR"])];
        rows.extend(status.tunnel.busiest.iter().map(|stream| {
            vec![
                stream.id.to_string(),
                if stream.ours { "here" } else { "peer" }.to_owned(),
                bytes(stream.bytes_in as f64),
                bytes(stream.bytes_out as f64),
                bytes(stream.window_in as f64),
                bytes(stream.window_out as f64),
                clean(&stream.waits_for),
            ]
        }));
        let _ = writeln!(text, "{}", table("  ", &rows));
    }
    if !status.proxy.listeners.is_empty() {
        let mut rows = vec![row(["BROKER", "NODE", "LOCAL ADDRESS", "CONNECTIONS"])];
        rows.extend(status.proxy.listeners.iter().map(|listener| {
            vec![
                clean(&listener.target),
                listener.node_id.map_or_else(|| "-".to_owned(), |id| id.to_string()),
                clean(&listener.address),
                grouped(listener.connections),
            ]
        }));
        let _ = writeln!(text, "{}", table("  ", &rows));
    }
    for flow in &status.flows {
        flow_line(&mut text, flow, style);
        if flow.topics.is_empty() {
            continue;
        }
        let mut rows = vec![row(["TOPIC", "TARGET", "STATE", "PARTITIONS", "LAG", "RECORDS", "BYTES", "REASON"])];
        rows.extend(flow.topics.iter().map(|topic| {
            vec![
                clean(&topic.source),
                clean(&topic.target),
                topic.state.word().to_owned(),
                topic.partitions.to_string(),
                topic.lag_records.map_or_else(|| UNKNOWN.to_owned(), grouped),
                grouped(topic.records),
                bytes(topic.bytes as f64),
                clean(topic.reason.as_deref().unwrap_or_default()),
            ]
        }));
        let _ = writeln!(text, "\n{}", table("  ", &rows));
        events(&mut text, flow);
        groups(&mut text, flow);
    }
    tail(&mut text, status, style);
    text
}

/// The newest events of a flow.
fn events(text: &mut String, flow: &FlowSection) {
    let newest = &flow.events[flow.events.len().saturating_sub(SHOWN_EVENTS)..];
    if newest.is_empty() {
        return;
    }
    let mut rows = vec![row(["AT", "EVENT", "TOPIC", "WHAT"])];
    rows.extend(newest.iter().map(|event| {
        let topic = event.topic.as_deref().map_or_else(|| "-".to_owned(), clean);
        let at = event.partition.map_or_else(|| topic.clone(), |partition| format!("{topic}-{partition}"));
        vec![clean(&event.at), clean(&event.event), at, clean(&event.text)]
    }));
    let _ = writeln!(text, "{}", table("  ", &rows));
}

fn groups(text: &mut String, flow: &FlowSection) {
    if flow.groups.is_empty() {
        return;
    }
    let mut rows = vec![row(["GROUP", "STATE", "PARTITIONS", "EXACT", "AGE", "REASON"])];
    rows.extend(flow.groups.iter().map(|group| {
        vec![
            clean(&group.group),
            group.state.word().to_owned(),
            grouped(group.partitions),
            grouped(group.partitions_exact),
            group.sync_age_seconds.map_or_else(|| UNKNOWN.to_owned(), duration),
            clean(group.reason.as_deref().unwrap_or_default()),
        ]
    }));
    let _ = writeln!(text, "{}", table("  ", &rows));
}

/// Events of each flow that the long form shows; the document has more.
const SHOWN_EVENTS: usize = 20;
const UNKNOWN: &str = "unknown";

fn head(status: &Status, style: Style) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "link {}   {}   running {}   linkspan {}",
        clean(&status.link),
        state(status.state, style),
        since(status, Some(&status.since)),
        clean(&status.version)
    );
    tunnel_line(&mut text, status, &status.tunnel, style);
    cluster_line(&mut text, "local", &status.local, style);
    cluster_line(&mut text, "peer", &status.peer, style);
    let exit = &status.exit;
    let _ = writeln!(
        text,
        "exit     {} streams open   {} served   {} refused   {} failed",
        grouped(exit.open),
        grouped(exit.total),
        grouped(exit.refused),
        grouped(exit.failed)
    );
    let proxy = &status.proxy;
    let _ = write!(text, "proxy    {}", proxy.mode.word());
    if proxy.mode != ProxyMode::Off {
        let _ = write!(
            text,
            "   {} listeners   {} connections open",
            grouped(proxy.listeners.len() as u64),
            grouped(proxy.connections)
        );
        if let Some(dns) = &proxy.dns {
            let _ = write!(text, "   DNS on {}", clean(dns));
        }
    }
    text.push('\n');
    let config = &status.config;
    if !config.restart_for.is_empty() {
        let keys: Vec<String> = config.restart_for.iter().map(|key| clean(key)).collect();
        let _ = writeln!(text, "config   a restart is needed for {}", keys.join(", "));
    }
    text
}

fn tunnel_line(text: &mut String, status: &Status, tunnel: &TunnelSection, style: Style) {
    let (word, paint) = match tunnel.state {
        TunnelState::Up => ("UP", Paint::Good),
        TunnelState::Connecting => ("CONNECTING", Paint::Doubtful),
        TunnelState::Down => ("DOWN", Paint::Bad),
    };
    let _ = write!(text, "tunnel   {}", style.paint(paint, word));
    if tunnel.since.is_some() {
        let _ = write!(text, " {}", since(status, tunnel.since.as_deref()));
    }
    let role = match tunnel.role {
        TunnelRole::Listen => "listening on",
        TunnelRole::Dial => "dialling",
    };
    let _ = write!(text, "   {}, {role} {}", clean(&tunnel.transport), clean(&tunnel.address));
    if let (TunnelRole::Listen, Some(peer)) = (tunnel.role, &tunnel.peer) {
        let _ = write!(text, "   peer {}", clean(peer));
    }
    if tunnel.state == TunnelState::Up {
        let _ = write!(
            text,
            "   rtt {}   {} carriers   {} streams   in {}   out {}",
            tunnel.rtt_ms.map_or_else(|| UNKNOWN.to_owned(), rtt),
            tunnel.carriers.len(),
            grouped(tunnel.streams),
            bytes(tunnel.bytes_in as f64),
            bytes(tunnel.bytes_out as f64)
        );
    }
    let _ = writeln!(text, "   {} reconnects", grouped(tunnel.reconnects));
    if let (false, Some(error)) = (tunnel.state == TunnelState::Up, &tunnel.last_error) {
        let _ = writeln!(text, "         last error: {}", clean(error));
    }
}

fn cluster_line(text: &mut String, side: &str, cluster: &ClusterStatus, style: Style) {
    let reachable = match cluster.reachable {
        Some(true) => style.paint(Paint::Good, "reachable"),
        Some(false) => style.paint(Paint::Bad, "UNREACHABLE"),
        None => format!("{UNKNOWN} (not asked from here)"),
    };
    let _ = write!(text, "{side:<8} {}   {reachable}", clean(&cluster.cluster));
    if let Some(brokers) = cluster.brokers {
        let _ = write!(text, "   {brokers} brokers");
    }
    if let Some(id) = &cluster.kafka_cluster_id {
        let _ = write!(text, "   id {}", clean(id));
    }
    text.push('\n');
    if let Some(error) = &cluster.error {
        let _ = writeln!(text, "         last error: {}", clean(error));
    }
}

fn flow_line(text: &mut String, flow: &FlowSection, style: Style) {
    let paint = match flow.state {
        FlowState::Active => Paint::Good,
        FlowState::Starting | FlowState::Degraded => Paint::Doubtful,
        FlowState::Stopped => Paint::Bad,
    };
    let lag = flow.lag_records.map_or_else(|| UNKNOWN.to_owned(), |lag| format!("{} records", grouped(lag)));
    let behind = flow.behind_seconds.map_or_else(String::new, |seconds| format!(" / {}", duration(seconds)));
    let _ = writeln!(
        text,
        "flow     {}   {}   {}/{} topics   lag {lag}{behind}   {}/s   {} records copied",
        clean(&flow.name),
        style.paint(paint, &flow.state.word().to_uppercase()),
        flow.topics_active,
        flow.topics_total,
        bytes(flow.bytes_per_second),
        grouped(flow.records_total)
    );
    let faulted = flow.topics.iter().any(|topic| topic.state == TopicState::Faulted);
    if let (true, Some(error)) = (flow.state != FlowState::Active || faulted, &flow.last_error) {
        let _ = writeln!(text, "         last error: {}", clean(error));
    }
}

fn tail(text: &mut String, status: &Status, style: Style) {
    if !status.reasons.is_empty() && !text.ends_with("\n\n") {
        text.push('\n');
    }
    for problem in &status.reasons {
        let _ = writeln!(text, "{} {} {}", style.paint(Paint::Bad, "×"), problem.code, clean(&problem.what));
        let _ = writeln!(text, "    {}{}", style.paint(Paint::Faint, "cause: "), clean(&problem.cause));
        let _ = writeln!(text, "    {}{}", style.paint(Paint::Faint, "fix:   "), clean(&problem.fix));
    }
    let count = match status.reasons.len() {
        0 => String::new(),
        1 => ": 1 problem".to_owned(),
        more => format!(": {more} problems"),
    };
    let gap = if text.ends_with("\n\n") { "" } else { "\n" };
    let _ = writeln!(text, "{gap}The link is {}{count}", state(status.state, style));
}

fn state(state: State, style: Style) -> String {
    let paint = match state {
        State::Up => Paint::Good,
        State::Degraded | State::Starting => Paint::Doubtful,
        State::Down => Paint::Bad,
    };
    style.paint(paint, &state.word().to_uppercase())
}

/// How long before the document was made.
fn since(status: &Status, moment: Option<&str>) -> String {
    let age =
        moment.and_then(time::parse).zip(time::parse(&status.at)).and_then(|(then, at)| at.duration_since(then).ok());
    age.map_or_else(|| UNKNOWN.to_owned(), |age| duration(age.as_secs_f64()))
}

fn rtt(ms: f64) -> String {
    if ms < 10.0 { format!("{ms:.1} ms") } else { format!("{ms:.0} ms") }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::testing::golden;
    use crate::control::sample;

    #[test]
    fn a_busy_link_in_short() {
        golden("src/cli/status/testdata/busy.txt", &human(&sample::busy(), Style::PLAIN));
    }

    #[test]
    fn a_busy_link_at_length() {
        golden("src/cli/status/testdata/busy-wide.txt", &wide(&sample::busy(), Style::PLAIN));
    }

    #[test]
    fn the_json_form_is_promised() {
        let json = serde_json::to_string_pretty(&sample::busy()).expect("JSON") + "\n";
        golden("src/cli/status/testdata/busy.json", &json);
    }

    #[test]
    fn what_is_not_known_is_said_to_be_unknown() {
        let text = human(&sample::starting(), Style::PLAIN);
        golden("src/cli/status/testdata/starting.txt", &text);
        assert_eq!(wide(&sample::starting(), Style::PLAIN), text, "nothing more is known at length");
    }

    #[test]
    fn text_of_a_broker_cannot_drive_the_terminal() {
        let mut status = sample::busy();
        status.reasons[0].what = "\x1b]0;title\x07\r\n".to_owned();
        status.flows[0].topics[0].source = "a\x1b[2J".to_owned();
        status.tunnel.last_error = Some("\x1b[31m".to_owned());
        status.tunnel.state = TunnelState::Down;
        for text in [human(&status, Style::PLAIN), wide(&status, Style::PLAIN)] {
            assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        }
    }
}
