//! Clients and what each may use: connections at once, and bytes a second both ways.
//!
//! A client is the user that it proved to be, or until then, and where nobody asks, its address. Too many connections are refused; too many
//! bytes are never lost but wait, for who reads a stream in our place pauses until they are paid for. All connections of a client
//! share its rates, and a client that comes again is not given a new burst.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::rewrite::Bucket;

/// Clients remembered before those are looked for that are gone and owe nothing.
const SWEEP_AT: usize = 1_024;

/// Clients shown by name.
const MOST_SHOWN: usize = 32;

/// A direction of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// From clients to brokers.
    In,
    /// From brokers to clients.
    Out,
}

/// What one client may use; `None` is no bound.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) connections: Option<u32>,
    /// Bytes a second, by [`Way`].
    pub(super) rates: [Option<NonZeroU64>; 2],
}

/// Who a client is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Who {
    Address(IpAddr),
    User(String),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // One client, whichever way its address is written.
            Self::Address(address) => write!(f, "{}", address.to_canonical()),
            Self::User(user) => f.write_str(user),
        }
    }
}

/// A client has all the connections that it may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{client} has {open} connections open, at most {most} are allowed by proxy.clients.connections")]
pub(super) struct TooMany {
    client: String,
    open: u32,
    most: u32,
}

/// What one client uses, to status and metrics.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientStatus {
    /// The user, where clients authenticate at the proxy, or the address.
    pub client: String,
    /// Connections open now.
    pub connections: u32,
    /// Bytes from it to brokers since it came.
    pub bytes_in: u64,
    /// Bytes from brokers to it since it came.
    pub bytes_out: u64,
    /// Milliseconds that its connections waited to be read, summed over them, since it came.
    pub paused_in_ms: u64,
    /// The same for what brokers sent it.
    pub paused_out_ms: u64,
}

/// All clients.
#[derive(Debug)]
pub(super) struct Clients {
    limits: Limits,
    state: Mutex<State>,
    /// Microseconds that connections waited since the start, by [`Way`].
    paused: [AtomicU64; 2],
}

#[derive(Debug)]
struct State {
    known: HashMap<Who, Arc<Client>>,
    sweep_at: usize,
}

#[derive(Debug)]
struct Client {
    /// Connections; changed under the lock of all clients alone.
    open: AtomicU64,
    buckets: [Option<Mutex<Bucket>>; 2],
    bytes: [AtomicU64; 2],
    paused: [AtomicU64; 2],
}

/// One connection of a client.
#[derive(Debug)]
pub(super) struct Seat {
    clients: Arc<Clients>,
    who: Who,
    client: Arc<Client>,
}

impl Limits {
    /// Whether anything is bounded.
    pub(super) const fn is_set(&self) -> bool {
        self.connections.is_some() || self.rates[0].is_some() || self.rates[1].is_some()
    }
}

impl Clients {
    pub(super) fn new(limits: Limits) -> Arc<Self> {
        let state = State { known: HashMap::new(), sweep_at: SWEEP_AT };
        Arc::new(Self { limits, state: Mutex::new(state), paused: Default::default() })
    }

    /// Takes a connection in at `now`.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(super) fn enter(self: &Arc<Self>, who: Who, now: Instant) -> Result<Seat, TooMany> {
        let who = match who {
            Who::Address(address) => Who::Address(address.to_canonical()),
            user @ Who::User(_) => user,
        };
        let mut state = self.lock();
        if state.known.len() >= state.sweep_at {
            state.known.retain(|_, client| client.is_owed(now));
            state.sweep_at = SWEEP_AT.max(2 * state.known.len());
        }
        let client = state.known.entry(who.clone()).or_insert_with(|| Arc::new(Client::new(&self.limits, now)));
        let open = client.open.load(Ordering::Relaxed);
        if let Some(most) = self.limits.connections.filter(|most| open >= u64::from(*most)) {
            let open = u32::try_from(open).unwrap_or(u32::MAX);
            return Err(TooMany { client: who.to_string(), open, most });
        }
        client.open.store(open + 1, Ordering::Relaxed);
        let client = Arc::clone(client);
        drop(state);
        Ok(Seat { clients: Arc::clone(self), who, client })
    }

    /// Clients with connections now, and time that connections waited since the start, by [`Way`].
    pub(super) fn totals(&self) -> (u64, [Duration; 2]) {
        let open = self.lock().known.values().filter(|client| client.open.load(Ordering::Relaxed) > 0).count();
        let paused = self.paused.each_ref().map(|paused| Duration::from_micros(paused.load(Ordering::Relaxed)));
        (open as u64, paused)
    }

    /// Those that moved most bytes, at most 32.
    pub(super) fn busiest(&self) -> Vec<ClientStatus> {
        let state = self.lock();
        let mut all: Vec<ClientStatus> = state.known.iter().map(|(who, client)| client.status(who)).collect();
        drop(state);
        all.sort_by(|a, b| (b.bytes_in + b.bytes_out, &a.client).cmp(&(a.bytes_in + a.bytes_out, &b.client)));
        all.truncate(MOST_SHOWN);
        all
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    fn new(limits: &Limits, now: Instant) -> Self {
        let buckets = limits.rates.map(|rate| rate.map(|rate| Mutex::new(Bucket::new(rate, now))));
        Self { open: AtomicU64::new(0), buckets, bytes: Default::default(), paused: Default::default() }
    }

    /// Whether it must be remembered: it is there, or would gain by being forgotten.
    fn is_owed(&self, now: Instant) -> bool {
        let owes = |bucket: &Mutex<Bucket>| !bucket.lock().unwrap_or_else(PoisonError::into_inner).is_full(now);
        self.open.load(Ordering::Relaxed) > 0 || self.buckets.iter().flatten().any(owes)
    }

    fn status(&self, who: &Who) -> ClientStatus {
        let bytes = self.bytes.each_ref().map(|bytes| bytes.load(Ordering::Relaxed));
        let paused = self.paused.each_ref().map(|paused| paused.load(Ordering::Relaxed) / 1_000);
        ClientStatus {
            client: who.to_string(),
            connections: u32::try_from(self.open.load(Ordering::Relaxed)).unwrap_or(u32::MAX),
            bytes_in: bytes[Way::In as usize],
            bytes_out: bytes[Way::Out as usize],
            paused_in_ms: paused[Way::In as usize],
            paused_out_ms: paused[Way::Out as usize],
        }
    }
}

impl Seat {
    /// So many bytes went.
    pub(super) fn spend(&self, way: Way, bytes: u64, now: Instant) {
        let way = way as usize;
        self.client.bytes[way].fetch_add(bytes, Ordering::Relaxed);
        if let Some(bucket) = &self.client.buckets[way] {
            bucket.lock().unwrap_or_else(PoisonError::into_inner).take(bytes, now);
        }
    }

    /// Until when nothing more is to be read.
    pub(super) fn waits_until(&self, way: Way, now: Instant) -> Option<Instant> {
        let bucket = self.client.buckets[way as usize].as_ref()?;
        bucket.lock().unwrap_or_else(PoisonError::into_inner).waits_until(now)
    }

    /// A connection waits for so long.
    pub(super) fn note_pause(&self, way: Way, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.client.paused[way as usize].fetch_add(micros, Ordering::Relaxed);
        self.clients.paused[way as usize].fetch_add(micros, Ordering::Relaxed);
    }

    /// The client proved to be a user, whose connection this is from now on.
    ///
    /// # Errors
    /// [`TooMany`]; the connection is to be closed.
    pub(super) fn prove(&mut self, user: &str, now: Instant) -> Result<(), TooMany> {
        let who = Who::User(user.to_owned());
        if who != self.who {
            *self = self.clients.enter(who, now)?;
        }
        Ok(())
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.clients.lock();
        let open = self.client.open.load(Ordering::Relaxed).saturating_sub(1);
        self.client.open.store(open, Ordering::Relaxed);
        let unlimited = self.client.buckets.iter().all(Option::is_none);
        if open == 0 && unlimited {
            state.known.remove(&self.who);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> Who {
        Who::Address(IpAddr::from([10, 0, 0, last]))
    }

    fn limits(connections: Option<u32>, bytes_in: Option<u64>) -> Limits {
        Limits { connections, rates: [bytes_in.and_then(NonZeroU64::new), None] }
    }

    #[test]
    fn connections_are_counted_by_client_and_given_back() {
        let clients = Clients::new(limits(Some(2), None));
        let now = Instant::now();
        let first = clients.enter(address(1), now).expect("free");
        // The same address as IPv6 sockets show it.
        let mapped = Who::Address("::ffff:10.0.0.1".parse().expect("an address"));
        let second = clients.enter(mapped, now).expect("free");
        let refused = clients.enter(address(1), now).expect_err("full");
        assert_eq!(
            refused.to_string(),
            "10.0.0.1 has 2 connections open, at most 2 are allowed by proxy.clients.connections"
        );
        let mut other = clients.enter(address(2), now).expect("another client");
        assert_eq!(clients.totals().0, 2);
        drop(first);
        let third = clients.enter(address(1), now).expect("given back");
        other.prove("alice", now).expect("a user");
        other.prove("alice", now).expect("the same again");
        assert_eq!(
            clients.busiest().iter().map(|client| client.client.as_str()).collect::<Vec<_>>(),
            ["10.0.0.1", "alice"]
        );
        drop((second, third, other));
        assert_eq!((clients.totals().0, clients.busiest()), (0, Vec::new()));
    }

    #[test]
    fn a_user_with_too_many_is_refused_and_leaves_its_address() {
        let clients = Clients::new(limits(Some(1), None));
        let now = Instant::now();
        let mut alice = clients.enter(address(1), now).expect("free");
        alice.prove("alice", now).expect("free");
        let mut second = clients.enter(address(1), now).expect("the address is free again");
        assert!(second.prove("alice", now).expect_err("full").to_string().starts_with("alice has 1 connections open"));
        drop(second);
        clients.enter(address(1), now).expect("free");
    }

    #[test]
    fn connections_share_a_rate_and_none_is_new_by_coming_again() {
        let clients = Clients::new(limits(None, Some(1_000)));
        let now = Instant::now() + Duration::from_secs(10);
        let (a, b) = (clients.enter(address(1), now).expect("free"), clients.enter(address(1), now).expect("free"));
        a.spend(Way::In, 1_500, now);
        a.spend(Way::Out, 1_000_000, now);
        let until = now + Duration::from_millis(500);
        assert_eq!((b.waits_until(Way::In, now), b.waits_until(Way::Out, now)), (Some(until), None));
        b.note_pause(Way::In, Duration::from_millis(500));
        let seen = clients.busiest();
        assert_eq!((seen[0].connections, seen[0].bytes_in, seen[0].paused_in_ms), (2, 1_500, 500));
        drop((a, b));
        let again = clients.enter(address(1), now).expect("free");
        assert_eq!(again.waits_until(Way::In, now), Some(until));
        assert_eq!(clients.totals(), (1, [Duration::from_millis(500), Duration::ZERO]));
    }

    #[test]
    fn who_is_gone_and_owes_nothing_is_forgotten() {
        let clients = Clients::new(limits(None, Some(1_000)));
        let start = Instant::now() + Duration::from_secs(10);
        for n in 0..20_000_u32 {
            let now = start + Duration::from_millis(u64::from(n));
            let who = Who::Address(IpAddr::from(n.to_be_bytes()));
            clients.enter(who, now).expect("free").spend(Way::In, 100, now);
        }
        let known = clients.lock().known.len();
        assert!(known <= 2 * SWEEP_AT, "{known}");
    }
}
