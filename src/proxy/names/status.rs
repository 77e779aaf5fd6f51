//! What mode `names` says about itself, to status and metrics.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::Serialize;

use super::directory::Directory;
use super::listener::Gate;
use super::server::Service;

/// A cheap handle to what runs.
#[derive(Debug, Clone)]
pub struct NamesHandle {
    pub(super) cluster: Arc<str>,
    pub(super) dns: Arc<[SocketAddr]>,
    pub(super) directory: Arc<Directory>,
    pub(super) gate: Arc<Gate>,
    pub(super) service: Arc<Service>,
}

/// Mode `names` at one moment.
#[derive(Debug, Clone, Serialize)]
pub struct NamesStatus {
    /// The peer's cluster.
    pub cluster: String,
    /// Zones answered.
    pub zones: Vec<String>,
    /// Where DNS is answered.
    pub dns: Vec<SocketAddr>,
    /// Listeners that tell brokers apart by SNI.
    pub shared_listeners: Vec<SocketAddr>,
    /// Every name known, by address.
    pub names: Vec<NameStatus>,
    /// Connections refused or not dialled since the start, and names that got no address, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// DNS messages since the start, by outcome.
    pub dns_questions: BTreeMap<&'static str, u64>,
}

/// One name of the peer.
#[derive(Debug, Clone, Serialize)]
pub struct NameStatus {
    /// The name.
    pub name: String,
    /// What it is answered with.
    pub address: IpAddr,
    /// Where it listens; empty where it shares its address.
    pub listeners: Vec<SocketAddr>,
    /// Why it is not answered, where it is not.
    pub problem: Option<String>,
    /// Connections open now.
    pub connections_open: u64,
    /// Connections since the start.
    pub connections_total: u64,
    /// Connections whose broker was not reached.
    pub dials_failed: u64,
}

impl NamesHandle {
    /// What is going on, now.
    #[must_use]
    pub fn status(&self) -> NamesStatus {
        let names = self.directory.entries().into_iter().map(|entry| NameStatus {
            name: entry.name.clone(),
            address: entry.address,
            listeners: entry.listeners(),
            problem: entry.problem(),
            connections_open: entry.open.load(Ordering::Relaxed),
            connections_total: entry.total.load(Ordering::Relaxed),
            dials_failed: entry.failed.load(Ordering::Relaxed),
        });
        NamesStatus {
            cluster: self.cluster.as_ref().to_owned(),
            zones: self.directory.zones.as_slice().to_vec(),
            dns: self.dns.to_vec(),
            shared_listeners: self.gate.shared(),
            names: names.collect(),
            refused: self.gate.refused.counts(),
            dns_questions: self.service.tally.counts(),
        }
    }

    /// Every name with its address, for [`super::print::hosts_block`].
    #[must_use]
    pub fn addresses(&self) -> Vec<(String, IpAddr)> {
        self.directory.entries().iter().map(|entry| (entry.name.clone(), entry.address)).collect()
    }

    /// As [`super::Names::listeners`], at any time.
    #[must_use]
    pub fn listeners(&self) -> Vec<(Option<String>, SocketAddr)> {
        let mut all: Vec<_> = self.gate.shared().into_iter().map(|address| (None, address)).collect();
        for entry in self.directory.entries() {
            all.extend(entry.listeners().into_iter().map(|address| (Some(entry.name.clone()), address)));
        }
        all
    }
}
