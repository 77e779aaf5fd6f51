//! Who may be in the middle of a handshake: a bounded number, and no crowd keeps others out.
//!
//! When all places are taken, a newcomer gets that of the connection which has waited longest, at the address that holds the most
//! of them. So a flood from few addresses displaces itself, and one from many addresses still leaves each newcomer the time in
//! which all places are taken once. Addresses of which carriers were proved lately are displaced last.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// Addresses that are remembered as good.
const KNOWN: usize = 16;

/// All places of one port.
pub(super) struct Places {
    limit: usize,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    taken: usize,
    next: u64,
    /// Oldest first; an address without any is not in it.
    holders: HashMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
    known: VecDeque<IpAddr>,
}

/// A place, given back when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
    id: u64,
    displaced: CancellationToken,
}

impl Places {
    pub(super) fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self { limit: limit.max(1), inner: Mutex::default() })
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection from `address`, and whether another lost its place for it. Never waits.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> (Place, bool) {
        let address = network(address);
        let mut inner = self.inner();
        let full = inner.taken >= self.limit;
        if full {
            inner.displace(address);
        }
        let id = inner.next;
        inner.next += 1;
        inner.taken += 1;
        let displaced = CancellationToken::new();
        inner.holders.entry(address).or_default().push_back((id, displaced.clone()));
        drop(inner);
        (Place { places: Arc::clone(self), address, id, displaced }, full)
    }
}

impl Inner {
    /// Ends the handshake that has to make room for one from `newcomer`.
    fn displace(&mut self, newcomer: IpAddr) {
        let rank = |(address, held): &(&IpAddr, &VecDeque<(u64, CancellationToken)>)| {
            let good = self.known.contains(address) && **address != newcomer;
            let oldest = held.front().map_or(u64::MAX, |(id, _)| *id);
            (!good, held.len(), std::cmp::Reverse(oldest))
        };
        let victim = self.holders.iter().max_by_key(rank).map(|(&address, _)| address);
        if let Some(address) = victim
            && let Some(held) = self.holders.get_mut(&address)
            && let Some((_, displaced)) = held.pop_front()
        {
            displaced.cancel();
            self.taken -= 1;
            if held.is_empty() {
                self.holders.remove(&address);
            }
        }
    }
}

impl Place {
    /// Resolves when another connection got it.
    pub(super) async fn displaced(&self) {
        self.displaced.cancelled().await;
    }

    /// Who was here proved itself: its address is good.
    pub(super) fn proved(self) {
        let mut inner = self.places.inner();
        let address = self.address;
        inner.known.retain(|known| *known != address);
        inner.known.push_back(address);
        if inner.known.len() > KNOWN {
            inner.known.pop_front();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inner = self.places.inner();
        let Some(held) = inner.holders.get_mut(&self.address) else { return };
        let before = held.len();
        held.retain(|(id, _)| *id != self.id);
        let (gone, empty) = (before - held.len(), held.is_empty());
        if empty {
            inner.holders.remove(&self.address);
        }
        inner.taken -= gone;
    }
}

/// What one party has at least to itself: an IPv4 address, or an IPv6 network of 64 bits.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn a_crowd_displaces_itself_and_spares_others() {
        let places = Places::new(4);
        let (honest, _) = places.take(address(1));
        let crowd: Vec<_> = (0..1000).map(|_| places.take(address(66))).collect();
        assert_eq!(crowd.iter().filter(|(_, displaced)| *displaced).count(), 997);
        assert!(!honest.displaced.is_cancelled());
        let left: Vec<_> = crowd.iter().map(|(place, _)| !place.displaced.is_cancelled()).collect();
        assert_eq!(left.iter().filter(|left| **left).count(), 3);
        assert!(left[997..].iter().all(|left| *left));
        drop(crowd);
        assert_eq!(places.inner().taken, 1);
        drop(honest);
        assert!(places.inner().taken == 0 && places.inner().holders.is_empty());
    }

    #[test]
    fn addresses_that_proved_themselves_are_displaced_last() {
        let places = Places::new(2);
        places.take(address(1)).0.proved();
        let (known, _) = places.take(address(1));
        // One place each, and the known one has waited longest.
        let others: Vec<_> = (2..100).map(|last| places.take(address(last)).0).collect();
        assert!(!known.displaced.is_cancelled());
        assert_eq!(others.iter().filter(|other| !other.displaced.is_cancelled()).count(), 1);
        // What comes from the same address may displace it.
        drop(others);
        let more: Vec<_> = (0..2).map(|_| places.take(address(1)).0).collect();
        assert!(known.displaced.is_cancelled() && more.iter().all(|place| !place.displaced.is_cancelled()));
    }

    #[test]
    fn good_addresses_are_few_and_networks_count_as_one() {
        let places = Places::new(2);
        (0..100).for_each(|last| places.take(address(last)).0.proved());
        assert_eq!(places.inner().known.len(), KNOWN);
        let v6 = |text: &str| network(text.parse().unwrap());
        assert_eq!(v6("2001:db8::1"), v6("2001:db8::ffff:1"));
        assert_ne!(v6("2001:db8::1"), v6("2001:db8:0:1::1"));
        assert_eq!(v6("::ffff:192.0.2.1"), address(1));
    }
}
