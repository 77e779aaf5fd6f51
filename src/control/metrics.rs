//! Prometheus metrics, computed from the status at each scrape: there is no second set of numbers that could drift.
//!
//! Names: one prefix, base units, `_total` for counters. What is not known is absent. Series are bounded: above
//! [`MAX_TOPICS`] topics the rest is summed under `topic="(other)"`, which no topic can be called.

use std::sync::atomic::AtomicU64;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Metric, Registry};

use super::process::Process;
use super::status::{
    AnswersSection, CarrierSection, FlowSection, GroupState, ListenerSection, PathSection, State, Status, TopicState,
    TunnelState,
};

/// Topics with series of their own: six series each keep a scrape below 2,000.
const MAX_TOPICS: usize = 250;

/// Pairs of broker and API with histograms of their own: sixteen series each; the rest is summed by API.
const MAX_ANSWERS: usize = 60;

/// Groups with a series of their own.
const MAX_GROUPS: usize = 500;

/// Labels: few, short, and made at each scrape only.
type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter>;

/// The metrics of `status` and of this process, as OpenMetrics text.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut root = Registry::default();
    process(&mut root, &Process::read());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    let link = root.sub_registry_with_labels(std::iter::once(("link".into(), status.link.clone().into())));
    let mut set = Set { registry: link };
    set.info("linkspan_build", "The running program", vec![("version", status.version.clone())]);
    set.gauge("linkspan_heartbeat_timestamp_seconds", "When this scrape was answered, since 1970", [(vec![], now)]);
    set.gauge(
        "linkspan_state",
        "1 for the state the endpoint is in",
        [State::Up, State::Degraded, State::Down, State::Starting]
            .map(|state| (vec![("state", state.word().to_owned())], flag(status.state == state))),
    );
    reloads(&mut set, status);
    clusters(&mut set, status);
    tunnel(&mut set, status);
    streams(&mut set, status);
    for_flows(&mut set, &status.flows);
    set.counter(
        "linkspan_errors",
        "Failures by the part they happened in and their code",
        status.errors.iter().map(|e| (vec![("scope", e.scope.clone()), ("code", e.code.to_string())], e.count)),
    );
    let mut text = String::with_capacity(16 * 1024);
    encode(&mut text, &root).expect("writing to a String cannot fail");
    text
}

fn reloads(set: &mut Set<'_>, status: &Status) {
    let config = &status.config;
    set.gauge(
        "linkspan_config_last_reload_successful",
        "Whether the configuration on disk is in effect, but for keys that wait for a restart",
        [(vec![], flag(config.last_error.is_none()))],
    );
    set.counter(
        "linkspan_config_reloads",
        "Changes of the configuration, by what became of them",
        [("ok", config.reloads), ("failed", config.reloads_failed)]
            .map(|(result, count)| (vec![("result", result.to_owned())], count)),
    );
    set.gauge(
        "linkspan_config_restart_keys",
        "Keys that differ between the file and what runs, until the next start",
        [(vec![], count(config.restart_for.len()))],
    );
}

fn clusters(set: &mut Set<'_>, status: &Status) {
    let sides = [("local", &status.local), ("peer", &status.peer)];
    let labels = |side: &str, name: &str| vec![("cluster", name.to_owned()), ("side", side.to_owned())];
    set.gauge(
        "linkspan_cluster_up",
        "Whether the cluster answers; absent while not known",
        sides.iter().filter_map(|(side, c)| Some((labels(side, &c.cluster), flag(c.reachable?)))),
    );
    set.gauge(
        "linkspan_cluster_brokers",
        "Brokers that the cluster advertises; absent while not known",
        sides.iter().filter_map(|(side, c)| Some((labels(side, &c.cluster), f64::from(c.brokers?)))),
    );
}

fn tunnel(set: &mut Set<'_>, status: &Status) {
    let tunnel = &status.tunnel;
    set.gauge(
        "linkspan_tunnel_up",
        "Whether there is a session with the peer",
        [(vec![("peer", status.peer.cluster.clone())], flag(tunnel.state == TunnelState::Up))],
    );
    set.gauge(
        "linkspan_tunnel_rtt_seconds",
        "Round trip time to the peer, smoothed",
        tunnel.rtt_ms.map(|ms| (vec![], ms / 1000.0)),
    );
    set.gauge(
        "linkspan_tunnel_carriers",
        "TCP connections under the session",
        [(vec![], count(tunnel.carriers.len()))],
    );
    type Pick = fn(&PathSection) -> u64;
    let each: [(_, _, Pick); 5] = [
        ("congestion_window_bytes", "TCP's congestion window of each carrier", |path| path.congestion_window),
        ("in_flight_bytes", "Bytes sent and not acknowledged by the peer's TCP", |path| path.in_flight),
        ("unsent_bytes", "Bytes that wait in the carrier's socket", |path| path.unsent),
        ("delivery_rate_bytes", "Bytes a second that TCP delivered last", |path| path.delivery_rate),
        ("retransmitted_segments", "Segments sent again; begins at 0 with each new carrier", |path| path.retransmitted),
    ];
    for (what, help, pick) in each {
        let of = |carrier: &CarrierSection| Some((carrier_label(carrier), pick(carrier.path.as_ref()?) as f64));
        set.gauge(&format!("linkspan_tunnel_carrier_{what}"), help, tunnel.carriers.iter().filter_map(of));
    }
    set.gauge(
        "linkspan_tunnel_carrier_rtt_seconds",
        "Round trip time of each carrier, smoothed",
        tunnel.carriers.iter().filter_map(|carrier| Some((carrier_label(carrier), carrier.rtt_ms? / 1000.0))),
    );
    set.gauge("linkspan_tunnel_streams", "Streams open now", [(vec![], tunnel.streams as f64)]);
    set.counter(
        "linkspan_tunnel_bytes",
        "Payload bytes through the tunnel",
        [("in", tunnel.bytes_in), ("out", tunnel.bytes_out)]
            .map(|(direction, bytes)| (vec![("direction", direction.to_owned())], bytes)),
    );
    set.gauge(
        "linkspan_tunnel_buffered_bytes",
        "Payload bytes held for applications (in) and for the peer (out)",
        [("in", tunnel.buffered_in), ("out", tunnel.buffered_out)]
            .map(|(direction, bytes)| (vec![("direction", direction.to_owned())], bytes as f64)),
    );
    for (name, help, count) in [
        ("linkspan_tunnel_replayed_bytes", "Payload bytes sent again after carriers were lost", tunnel.replayed_bytes),
        ("linkspan_tunnel_sessions", "Sessions begun", tunnel.sessions),
        ("linkspan_tunnel_resumes", "Sessions taken up again after all carriers were lost", tunnel.resumes),
    ] {
        set.counter(name, help, [(vec![], count)]);
    }
    set.counter(
        "linkspan_tunnel_streams_cut",
        "Streams cut by the tunnel itself, by reason",
        [("session_lost", tunnel.streams_lost), ("overdrawn", tunnel.streams_overdrawn)]
            .map(|(reason, count)| (vec![("reason", reason.to_owned())], count)),
    );
    let named: u64 = tunnel.reconnect_reasons.values().sum();
    let rest = tunnel.reconnects.saturating_sub(named);
    set.counter(
        "linkspan_tunnel_reconnects",
        "Carriers lost and made again, by the reason of the loss",
        tunnel
            .reconnect_reasons
            .iter()
            .map(|(reason, &count)| (reason.as_str(), count))
            .chain((rest > 0 || named == 0).then_some(("unknown", rest)))
            .map(|(reason, count)| (vec![("reason", reason.to_owned())], count)),
    );
}

fn carrier_label(carrier: &CarrierSection) -> Vec<(&'static str, String)> {
    vec![("carrier", carrier.id.to_string())]
}

fn streams(set: &mut Set<'_>, status: &Status) {
    let exit = &status.exit;
    set.gauge("linkspan_exit_streams", "Streams that the peer has open here", [(vec![], exit.open as f64)]);
    set.counter(
        "linkspan_exit_requests",
        "What the peer asked to be dialled here, by what became of it",
        [("accepted", exit.total), ("refused", exit.refused), ("failed", exit.failed), ("cut", exit.cut)]
            .map(|(result, count)| (vec![("result", result.to_owned())], count)),
    );
    set.counter(
        "linkspan_exit_refusals",
        "What was not dialled, or could not be, by reason",
        exit.reasons.iter().map(|(reason, &count)| (vec![("reason", reason.clone())], count)),
    );
    set.gauge(
        "linkspan_broker_connections",
        "Client connections open now, by the broker they were made to",
        status.proxy.listeners.iter().map(|listener| {
            let labels = vec![
                ("cluster", status.peer.cluster.clone()),
                ("node_id", listener.node_id.map(|id| id.to_string()).unwrap_or_default()),
                ("broker", listener.target.clone()),
            ];
            (labels, listener.connections as f64)
        }),
    );
    set.counter(
        // Not `linkspan_broker_connections_total`: OpenMetrics lets no counter share its name with the gauge above.
        "linkspan_broker_connections_opened",
        "Client connections since the start",
        [(vec![("cluster", status.peer.cluster.clone())], status.proxy.connections_total)],
    );
    proxy(set, status);
    set.counter(
        "linkspan_proxy_reauthentications",
        "Sessions with brokers that the proxy renewed (KIP-368)",
        [(vec![("cluster", status.peer.cluster.clone())], status.proxy.reauthentications)],
    );
    set.counter(
        "linkspan_proxy_refusals",
        "What the proxy refused, or could not go on with, by reason",
        status.proxy.refused.iter().map(|(reason, &count)| (vec![("reason", reason.clone())], count)),
    );
    set.gauge(
        "linkspan_proxy_clients",
        "Clients with connections to the proxy now; 0 where proxy.clients bounds nothing of a client",
        [(vec![], status.proxy.clients_open as f64)],
    );
    set.seconds(
        "linkspan_proxy_paused_seconds",
        "Time that connections waited to be read for their client had its share, summed over them",
        [("in", status.proxy.paused_in_ms), ("out", status.proxy.paused_out_ms)]
            .map(|(direction, ms)| (vec![("direction", direction.to_owned())], ms as f64 / 1000.0)),
    );
    set.counter(
        "linkspan_proxy_denied_requests",
        "Requests of clients that proxy.clients does not allow, by API; none of them reached a broker",
        status.proxy.denied.iter().map(|(api, &count)| (vec![("api", api.clone())], count)),
    );
}

/// What mode `rewrite` does, by broker where there are few.
fn proxy(set: &mut Set<'_>, status: &Status) {
    let proxy = &status.proxy;
    let cluster = || vec![("cluster", status.peer.cluster.clone())];
    let node = |listener: &ListenerSection| listener.node_id.map(|id| id.to_string()).unwrap_or_default();
    set.counter(
        "linkspan_broker_connections_ended",
        "Client connections that have ended: those opened less these are open",
        [(cluster(), proxy.connections_ended)],
    );
    set.counter(
        "linkspan_broker_bytes",
        "Bytes between clients and each broker, in mode rewrite",
        proxy.listeners.iter().flat_map(|listener| {
            [("in", listener.bytes_in), ("out", listener.bytes_out)].map(|(direction, bytes)| {
                (vec![("node_id", node(listener)), ("direction", direction.to_owned())], bytes)
            })
        }),
    );
    set.counter(
        "linkspan_proxy_rewritten_responses",
        "Responses in which addresses of brokers were replaced, by API",
        proxy.rewritten.iter().map(|(api, &count)| (vec![("api", api.clone())], count)),
    );
    for (name, help, count) in [
        ("linkspan_proxy_nodes_rewritten", "Addresses of brokers replaced by local ones", proxy.nodes_rewritten),
        ("linkspan_proxy_nodes_hidden", "Brokers that a client was not told of", proxy.nodes_hidden),
        ("linkspan_proxy_leaks", "Addresses of brokers that were about to reach a client; stays 0", proxy.leaks),
    ] {
        set.counter(name, help, [(cluster(), count)]);
    }
    let mut rows: Vec<(Labels, Observed)> = Vec::new();
    for (index, (listener, answers)) in
        proxy.listeners.iter().flat_map(|one| one.answers.iter().map(move |answers| (one, answers))).enumerate()
    {
        let of = if index < MAX_ANSWERS { node(listener) } else { "(other)".to_owned() };
        let labels = vec![("node_id", of), ("api", answers.api.clone())];
        match rows.iter_mut().find(|(known, _)| *known == labels) {
            Some((_, observed)) => observed.add(answers),
            None => rows.push((labels, Observed(answers.clone()))),
        }
    }
    set.add(
        "linkspan_broker_request_seconds",
        "Time from a request's head to the head of its response, as the proxy saw them; the node_id is empty for bootstrap connections",
        Histograms(rows),
    );
}

/// Answers of one broker and API.
#[derive(Debug)]
struct Observed(AnswersSection);

impl Observed {
    /// Answers of another broker: bounds are the same everywhere.
    fn add(&mut self, other: &AnswersSection) {
        self.0.count += other.count;
        self.0.seconds += other.seconds;
        for ((_, count), (_, more)) in self.0.buckets.iter_mut().zip(&other.buckets) {
            *count += more;
        }
    }
}

/// Histograms that were counted elsewhere.
#[derive(Debug)]
struct Histograms(Vec<(Labels, Observed)>);

impl EncodeMetric for Histograms {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        for (labels, Observed(answers)) in &self.0 {
            // The last bound is infinity.
            let within: u64 = answers.buckets.iter().map(|(_, count)| count).sum();
            let mut buckets = answers.buckets.clone();
            buckets.push((f64::INFINITY, answers.count.saturating_sub(within)));
            encoder.encode_family(labels)?.encode_histogram::<Labels>(
                answers.seconds,
                answers.count,
                &buckets,
                None,
            )?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

/// One row of numbers by topic; the last stands for all topics above the limit.
struct TopicRow {
    labels: Labels,
    lag: Option<u64>,
    records: u64,
    bytes: u64,
    states: [u64; TopicState::ALL.len()],
}

fn for_flows(set: &mut Set<'_>, flows: &[FlowSection]) {
    let rows = topic_rows(flows);
    set.counter(
        "linkspan_replicated_records",
        "Records copied",
        rows.iter().map(|row| (row.labels.clone(), row.records)),
    );
    set.counter(
        "linkspan_replicated_bytes",
        "Bytes copied, as they went to the target",
        rows.iter().map(|row| (row.labels.clone(), row.bytes)),
    );
    set.gauge(
        "linkspan_replication_lag_records",
        "Records of the source that are not yet in the target; absent while not known",
        rows.iter().filter_map(|row| Some((row.labels.clone(), row.lag? as f64))),
    );
    set.gauge(
        "linkspan_topic_state",
        "Topics in each state",
        rows.iter().flat_map(|row| {
            TopicState::ALL.into_iter().zip(row.states).map(|(state, topics)| {
                let mut labels = row.labels.clone();
                labels.push(("state", state.word().to_owned()));
                (labels, topics as f64)
            })
        }),
    );
    set.gauge(
        "linkspan_replication_behind_seconds",
        "Age of the oldest record that is not yet in the target; absent while not known",
        flows.iter().filter_map(|flow| Some((vec![("flow", flow.name.clone())], flow.behind_seconds?))),
    );
    for_groups(set, flows);
    let topics: usize = flows.iter().map(|flow| flow.topics.len()).sum();
    set.gauge(
        "linkspan_metrics_dropped_series",
        "Topics without series of their own, summed under topic (other)",
        [(vec![], count(topics.saturating_sub(MAX_TOPICS)))],
    );
}

fn for_groups(set: &mut Set<'_>, flows: &[FlowSection]) {
    let groups = || flows.iter().flat_map(|flow| flow.groups.iter().map(move |group| (flow, group)));
    let aged = || groups().filter_map(|(flow, group)| Some((flow, group, group.sync_age_seconds?)));
    let named = aged()
        .take(MAX_GROUPS)
        .map(|(flow, group, age)| (vec![("flow", flow.name.clone()), ("group", group.group.clone())], age));
    // Of the rest the oldest tells whether anything is wrong.
    let rest = aged().skip(MAX_GROUPS).map(|(_, _, age)| age).reduce(f64::max);
    let other = || vec![("flow", String::new()), ("group", "(other)".to_owned())];
    set.gauge(
        "linkspan_group_sync_age_seconds",
        "Time since the group last stood at the target exactly where it stood at the source; absent while it never did",
        named.chain(rest.map(|age| (other(), age))),
    );
    set.gauge(
        "linkspan_groups",
        "Consumer groups in each state",
        flows.iter().flat_map(|flow| {
            GroupState::ALL.into_iter().map(|state| {
                let groups = flow.groups.iter().filter(|group| group.state == state).count();
                (vec![("flow", flow.name.clone()), ("state", state.word().to_owned())], count(groups))
            })
        }),
    );
    set.counter(
        "linkspan_group_sync_failures",
        "Failures to have a consumer group follow",
        flows.iter().flat_map(|flow| {
            flow.group_failures
                .iter()
                .map(|(reason, failures)| (vec![("flow", flow.name.clone()), ("reason", reason.clone())], *failures))
        }),
    );
}

fn topic_rows(flows: &[FlowSection]) -> Vec<TopicRow> {
    let mut rows: Vec<TopicRow> = Vec::new();
    let topics = flows.iter().flat_map(|flow| flow.topics.iter().map(move |topic| (flow, topic)));
    for (index, (flow, topic)) in topics.enumerate() {
        if index <= MAX_TOPICS {
            let labels = if index < MAX_TOPICS {
                vec![("flow", flow.name.clone()), ("topic", topic.source.clone())]
            } else {
                vec![("flow", String::new()), ("topic", "(other)".to_owned())]
            };
            rows.push(TopicRow { labels, lag: None, records: 0, bytes: 0, states: [0; TopicState::ALL.len()] });
        }
        let row = rows.last_mut().expect("a row was pushed for the first topic");
        row.records = row.records.saturating_add(topic.records);
        row.bytes = row.bytes.saturating_add(topic.bytes);
        row.lag = match (row.lag, topic.lag_records) {
            (Some(sum), Some(lag)) => Some(sum.saturating_add(lag)),
            (sum, lag) => sum.or(lag),
        };
        for (state, topics) in TopicState::ALL.into_iter().zip(&mut row.states) {
            *topics += u64::from(state == topic.state);
        }
    }
    rows
}

fn process(root: &mut Registry, process: &Process) {
    let mut set = Set { registry: root };
    let as_f64 = |value: Option<u64>| value.map(|value| value as f64);
    if let Some(seconds) = process.cpu_seconds {
        let total = Counter::<f64, AtomicU64>::default();
        total.inc_by(seconds);
        set.registry.register("process_cpu_seconds", "User and system time spent", total);
    }
    for (name, help, value) in [
        ("process_resident_memory_bytes", "Resident memory", as_f64(process.resident)),
        ("process_virtual_memory_bytes", "Address space", as_f64(process.virtual_)),
        ("process_threads", "Threads", as_f64(process.threads)),
        ("process_open_fds", "Open file descriptors", as_f64(process.open_fds)),
        ("process_max_fds", "Most file descriptors that may be open", as_f64(process.max_fds)),
        ("process_start_time_seconds", "When the process started, since 1970", process.start),
    ] {
        if let Some(value) = value {
            let gauge = Gauge::<f64, AtomicU64>::default();
            gauge.set(value);
            set.add(name, help, gauge);
        }
    }
}

/// Registers families of numbers that are already known.
struct Set<'a> {
    registry: &'a mut Registry,
}

impl Set<'_> {
    fn gauge(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Gauges::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.add(name, help, family);
    }

    fn counter(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Counters::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.add(name, help, family);
    }

    /// A counter of time.
    fn seconds(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, f64)>) {
        let family = Family::<Labels, Counter<f64, AtomicU64>>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.add(name, help, family);
    }

    fn info(&mut self, name: &str, help: &str, labels: Labels) {
        self.add(name, help, Info::new(labels));
    }

    fn add(&mut self, name: &str, help: &str, metric: impl Metric) {
        self.registry.register(name, help, metric);
    }
}

const fn flag(on: bool) -> f64 {
    if on { 1.0 } else { 0.0 }
}

/// Far below the numbers that a double cannot hold.
const fn count(number: usize) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::status::sample;
    use super::*;

    /// Samples by name and labels, after checking the form of every line.
    fn parse(text: &str) -> BTreeMap<String, f64> {
        assert!(text.ends_with("# EOF\n"));
        let mut types = BTreeMap::new();
        let mut samples = BTreeMap::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').expect("a name and a type");
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').expect("a series and a value");
                let name = series.split('{').next().expect("a name");
                let family = ["_total", "_info", "_bucket", "_sum", "_count"]
                    .iter()
                    .find_map(|s| name.strip_suffix(s))
                    .unwrap_or(name);
                assert!(types.contains_key(family) || types.contains_key(name), "{name} has no type");
                assert!(
                    samples.insert(series.to_owned(), value.parse().expect("a number")).is_none(),
                    "{series} twice"
                );
            }
        }
        samples
    }

    #[test]
    fn shows_the_status_under_the_promised_names() {
        let samples = parse(&render(&sample::busy()));
        for (series, value) in [
            (r#"linkspan_build_info{link="orange-grape",version="0.1.0"}"#, 1.0),
            (r#"linkspan_tunnel_up{link="orange-grape",peer="orange"}"#, 1.0),
            (r#"linkspan_tunnel_rtt_seconds{link="orange-grape"}"#, 0.08125),
            (r#"linkspan_tunnel_reconnects_total{link="orange-grape",reason="timeout"}"#, 2.0),
            (r#"linkspan_tunnel_reconnects_total{link="orange-grape",reason="unknown"}"#, 1.0),
            (r#"linkspan_tunnel_bytes_total{link="orange-grape",direction="in"}"#, 1_288_490_700.0),
            (r#"linkspan_tunnel_streams{link="orange-grape"}"#, 14.0),
            (
                r#"linkspan_replicated_records_total{link="orange-grape",flow="orange-grape",topic="eu.xaz.orders"}"#,
                750_000.0,
            ),
            (
                r#"linkspan_replicated_bytes_total{link="orange-grape",flow="orange-grape",topic="eu.xaz.users"}"#,
                183_500_000.0,
            ),
            (
                r#"linkspan_replication_lag_records{link="orange-grape",flow="orange-grape",topic="eu.xaz.orders"}"#,
                12.0,
            ),
            (r#"linkspan_replication_behind_seconds{link="orange-grape",flow="orange-grape"}"#, 0.4),
            (r#"linkspan_group_sync_age_seconds{link="orange-grape",flow="orange-grape",group="billing"}"#, 0.4),
            (r#"linkspan_groups{link="orange-grape",flow="orange-grape",state="active"}"#, 1.0),
            (r#"linkspan_group_sync_failures_total{link="orange-grape",flow="orange-grape",reason="active"}"#, 3.0),
            (
                r#"linkspan_topic_state{link="orange-grape",flow="orange-grape",topic="eu.xaz.pay",state="faulted"}"#,
                1.0,
            ),
            (
                r#"linkspan_broker_connections{link="orange-grape",cluster="orange",node_id="1",broker="b1.orange.test:9092"}"#,
                0.0,
            ),
            (r#"linkspan_broker_connections_opened_total{link="orange-grape",cluster="orange"}"#, 17.0),
            (r#"linkspan_broker_bytes_total{link="orange-grape",node_id="1",direction="out"}"#, 1_048_576.0),
            (r#"linkspan_broker_connections_ended_total{link="orange-grape",cluster="orange"}"#, 13.0),
            (r#"linkspan_proxy_leaks_total{link="orange-grape",cluster="orange"}"#, 0.0),
            (r#"linkspan_proxy_rewritten_responses_total{link="orange-grape",api="Metadata"}"#, 12.0),
            (r#"linkspan_broker_request_seconds_count{link="orange-grape",node_id="1",api="Fetch"}"#, 10.0),
            (r#"linkspan_broker_request_seconds_sum{link="orange-grape",node_id="1",api="Fetch"}"#, 4.5),
            (r#"linkspan_broker_request_seconds_bucket{link="orange-grape",le="0.5",node_id="1",api="Fetch"}"#, 8.0),
            (r#"linkspan_broker_request_seconds_bucket{link="orange-grape",le="+Inf",node_id="1",api="Fetch"}"#, 10.0),
            (r#"linkspan_proxy_clients{link="orange-grape"}"#, 2.0),
            (r#"linkspan_proxy_paused_seconds_total{link="orange-grape",direction="out"}"#, 1.5),
            (r#"linkspan_proxy_denied_requests_total{link="orange-grape",api="CreateTopics"}"#, 3.0),
            (r#"linkspan_errors_total{link="orange-grape",scope="replicator",code="LS405"}"#, 7.0),
        ] {
            assert_eq!(samples.get(series), Some(&value), "{series} in {samples:#?}");
        }
        assert!(samples.contains_key("process_open_fds"));
        assert!(samples.contains_key("process_cpu_seconds_total"));
        let unknown = r#"linkspan_replication_lag_records{link="orange-grape",flow="orange-grape",topic="eu.xaz.pay"}"#;
        assert!(!samples.contains_key(unknown), "unknown is absent, not zero");
    }

    #[test]
    fn a_starting_process_has_no_numbers_it_does_not_know() {
        let samples = parse(&render(&sample::starting()));
        assert!(!samples.keys().any(|series| series.starts_with("linkspan_tunnel_rtt")));
        assert!(!samples.keys().any(|series| series.starts_with("linkspan_cluster_up")));
        assert_eq!(samples[r#"linkspan_state{link="orange-grape",state="starting"}"#], 1.0);
    }

    #[test]
    fn a_thousand_topics_stay_below_two_thousand_series_and_no_record_is_uncounted() {
        let mut status = sample::busy();
        let topic = status.flows[0].topics[0].clone();
        status.flows[0].topics = (0..1000)
            .map(|n| super::super::TopicSection { source: format!("t{n:04}"), records: 1, ..topic.clone() })
            .collect();
        let samples = parse(&render(&status));
        assert!(samples.len() < 2000, "{}", samples.len());
        let records: f64 =
            samples.iter().filter(|(s, _)| s.starts_with("linkspan_replicated_records_total{")).map(|(_, v)| v).sum();
        assert_eq!(records, 1000.0);
        assert_eq!(samples[r#"linkspan_metrics_dropped_series{link="orange-grape"}"#], 750.0);
    }

    #[test]
    fn a_hundred_brokers_stay_within_bounds_and_no_answer_is_uncounted() {
        let mut status = sample::busy();
        let broker = status.proxy.listeners[1].clone();
        let api = |n: usize| AnswersSection { api: format!("Api{n:02}"), ..broker.answers[0].clone() };
        status.proxy.listeners = (0..100)
            .map(|id| ListenerSection { node_id: Some(id), answers: (0..20).map(api).collect(), ..broker.clone() })
            .collect();
        let samples = parse(&render(&status));
        let of: Vec<_> =
            samples.iter().filter(|(s, _)| s.starts_with("linkspan_broker_request_seconds_count{")).collect();
        assert_eq!(of.len(), MAX_ANSWERS + 20);
        assert_eq!(of.iter().map(|(_, answers)| **answers).sum::<f64>(), 100.0 * 20.0 * 10.0);
    }

    #[test]
    fn label_values_are_escaped() {
        let mut status = sample::busy();
        status.flows[0].topics.truncate(1);
        status.flows[0].topics[0].source = "a\"b\\c\nd".to_owned();
        let text = render(&status);
        assert!(text.contains(r#"topic="a\"b\\c\nd""#), "{text}");
        let names: BTreeSet<_> = parse(&text).into_keys().map(|s| s.split('{').next().map(str::to_owned)).collect();
        assert!(names.len() > 15);
    }
}
