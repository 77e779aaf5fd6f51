//! Rooms of linkspan by themselves, and the one observer of all copying: what runs inside a network of the bed, as a process of its own.
//!
//! `alone rewrite FILE`: the rewriting proxy of FILE before brokers that it dials from this host, without a tunnel.
//! `alone copy FILE`: the flows of FILE between clusters that it dials from this host, without a tunnel of its own.
//! `alone watch FILE TOPIC RECORDS PID…`: waits until TOPIC of the local cluster of FILE has its first and its RECORDS-th record;
//! prints the seconds, the records and the CPU seconds of each PID with its children between the two.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linkspan::client::{ClientSettings, ClusterClient, Position};
use linkspan::config::{self, ClusterConfig, Config, ProcessEnv, ProxyConfig};
use linkspan::lifecycle::Drain;
use linkspan::net::SharedDial;
use linkspan::net::tcp::TcpDial;
use linkspan::proxy::rewriter::Rewriter;
use linkspan::replicator::Flow;
use serde::{Deserialize, Serialize};

use crate::process::{cpu_seconds, family};

/// What `alone watch` prints.
#[derive(Debug, Serialize, Deserialize)]
pub struct Seen {
    /// From the first look that found a record to the one that found all.
    pub seconds: f64,
    /// Records that came meanwhile.
    pub records: u64,
    /// CPU seconds of each process meanwhile, in their order.
    pub cpu: Vec<f64>,
}

pub fn main(args: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    let load = |file: &str| config::load(Path::new(file), &ProcessEnv).expect("a configuration").config;
    runtime.block_on(async {
        match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["rewrite", file] => rewrite(load(file)).await,
            ["copy", file] => copy(load(file)).await,
            ["watch", file, topic, records, ref ids @ ..] => {
                let ids: Vec<u32> = ids.iter().map(|id| id.parse().expect("a process")).collect();
                let seen = watch(load(file), topic, records.parse().expect("a number of records"), &ids).await;
                println!("{}", serde_json::to_string(&seen).expect("plain numbers"));
            }
            _ => panic!("alone rewrite FILE | copy FILE | watch FILE TOPIC RECORDS PID…"),
        }
    });
}

fn here() -> SharedDial {
    Arc::new(TcpDial::new(Duration::from_secs(10)))
}

fn client(cluster: &ClusterConfig) -> ClusterClient {
    let security = cluster.security.clone().expect("a cluster with security");
    ClusterClient::new(ClientSettings::new(cluster.cluster.clone(), cluster.bootstrap.clone(), security), here())
        .expect("a client")
}

async fn rewrite(config: Config) {
    let ProxyConfig::Rewrite(rewrite) = &config.proxy else { panic!("mode rewrite") };
    std::fs::create_dir_all(&config.state_dir).expect("a state directory");
    let (cluster, bootstrap) = (&config.peer.cluster, config.peer.bootstrap.clone());
    let rewriter = Rewriter::bind(rewrite, cluster, bootstrap, here(), &config.state_dir).expect("ports");
    rewriter.run(Drain::new()).await;
}

async fn copy(config: Config) {
    let drain = Drain::new();
    for flow in &config.replicate {
        let flow = Flow::new(flow, client(&config.peer), client(&config.local)).expect("a flow");
        drain.spawn(flow.run(drain.clone()));
    }
    std::future::pending().await
}

async fn watch(config: Config, topic: &str, records: u64, ids: &[u32]) -> Seen {
    let client = client(&config.local);
    let used = || ids.iter().map(|id| cpu_seconds(&family(*id))).collect::<Vec<_>>();
    let begun = Instant::now();
    let mut first = None;
    loop {
        assert!(begun.elapsed() < Duration::from_secs(900), "{topic}: not {records} records within 900 s");
        let now = copied(&client, topic).await;
        let at = first.get_or_insert_with(|| (Instant::now(), now, used()));
        if at.1 == 0 {
            first = None;
        } else if now >= records {
            let cpu = used().iter().zip(&at.2).map(|(after, before)| after - before).collect();
            return Seen { seconds: at.0.elapsed().as_secs_f64(), records: now - at.1, cpu };
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Records of a topic; none while it does not exist.
async fn copied(client: &ClusterClient, topic: &str) -> u64 {
    let Ok(topics) = client.topics(Some(&[topic.to_owned()])).await else { return 0 };
    let partitions: Vec<_> =
        topics.iter().flat_map(|view| &view.partitions).map(|one| (topic.to_owned(), one.index)).collect();
    let Ok(ends) = client.list_offsets(&partitions, Position::Latest).await else { return 0 };
    ends.iter().filter_map(|end| u64::try_from(*end.offset.as_ref().ok()?).ok()).sum()
}
