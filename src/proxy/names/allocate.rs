//! Which address each name has. Pure: the same names asked in the same order get the same addresses, and an address given
//! once is never given to another name, because clients keep addresses longer than any TTL says.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

/// Most names that have an address at once: each costs one listening socket a port.
pub const MAX_NAMES: usize = 4096;

/// A network that addresses are taken from, and who has which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    first: u32,
    last: u32,
    next: u32,
    limit: usize,
    by_name: HashMap<String, Ipv4Addr>,
    /// Every address ever given, names outside the present zones included.
    given: HashMap<Ipv4Addr, String>,
}

/// Why a name got no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AllocateError {
    /// The prefix is no prefix, or leaves no address.
    #[error("{net}/{prefix} has no address to give; take a network of /8 to /30")]
    BadNetwork {
        /// The network.
        net: Ipv4Addr,
        /// The prefix length.
        prefix: u8,
    },
    /// All addresses are given, or [`MAX_NAMES`] names have one.
    #[error(
        "{given} names have addresses and the limit is {limit}; take a larger network, or stop, narrow proxy.zones and delete unused names from names.toml"
    )]
    Full {
        /// Names with an address.
        given: usize,
        /// The limit.
        limit: usize,
    },
}

impl Allocation {
    /// A network without names. Its first and last address are left out, and so is 127.0.0.0/24, which belongs to this
    /// host's own services (127.0.0.1, systemd-resolved at .53, Docker's DNS at .11).
    ///
    /// # Errors
    /// [`AllocateError::BadNetwork`].
    pub fn new(net: Ipv4Addr, prefix: u8) -> Result<Self, AllocateError> {
        if !(8..=30).contains(&prefix) {
            return Err(AllocateError::BadNetwork { net, prefix });
        }
        let size = 1_u32 << (32 - prefix);
        let base = net.to_bits() & !(size - 1);
        let mut first = base + 1;
        let last = base + size - 2;
        if first & 0xffff_ff00 == Ipv4Addr::LOCALHOST.to_bits() & 0xffff_ff00 {
            first = (first & 0xffff_ff00) + 0x101;
        }
        if first > last {
            return Err(AllocateError::BadNetwork { net, prefix });
        }
        let limit = usize::try_from(last - first + 1).unwrap_or(usize::MAX).min(MAX_NAMES);
        Ok(Self { first, last, next: first, limit, by_name: HashMap::new(), given: HashMap::new() })
    }

    /// Takes over a name of an earlier run. False, and nothing taken, where the address is not of this network or was
    /// given already, or the name has another.
    pub fn restore(&mut self, name: &str, address: Ipv4Addr) -> bool {
        let bits = address.to_bits();
        if !self.range().contains(&bits) || self.given.contains_key(&address) || self.by_name.contains_key(name) {
            return false;
        }
        self.next = self.next.max(bits + 1);
        self.by_name.insert(name.to_owned(), address);
        self.given.insert(address, name.to_owned());
        true
    }

    /// The address of `name`, a new one on the first question.
    ///
    /// # Errors
    /// [`AllocateError::Full`].
    pub fn allocate(&mut self, name: &str) -> Result<Ipv4Addr, AllocateError> {
        if let Some(&address) = self.by_name.get(name) {
            return Ok(address);
        }
        let full = AllocateError::Full { given: self.by_name.len(), limit: self.limit };
        if self.by_name.len() >= self.limit {
            return Err(full);
        }
        // Beyond the highest first; after a file with a very high address, the gaps below it.
        let mut candidates = (self.next..=self.last).chain(self.first..self.next.min(self.last));
        let bits = candidates.find(|&bits| !self.given.contains_key(&Ipv4Addr::from_bits(bits))).ok_or(full)?;
        let address = Ipv4Addr::from_bits(bits);
        self.next = self.next.max(bits + 1);
        self.by_name.insert(name.to_owned(), address);
        self.given.insert(address, name.to_owned());
        Ok(address)
    }

    /// The addresses that names may get, as numbers.
    #[must_use]
    pub const fn range(&self) -> RangeInclusive<u32> {
        self.first..=self.last
    }

    /// How many names have an address.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether no name has one.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// All names in the order of their addresses.
    #[must_use]
    pub fn entries(&self) -> Vec<(&str, Ipv4Addr)> {
        let mut entries: Vec<_> = self.by_name.iter().map(|(name, &address)| (name.as_str(), address)).collect();
        entries.sort_unstable_by_key(|&(_, address)| address);
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str, prefix: u8) -> Result<Allocation, AllocateError> {
        Allocation::new(text.parse().unwrap(), prefix)
    }

    #[test]
    fn names_get_the_next_free_address_and_keep_it() {
        let mut names = net("127.77.3.9", 16).unwrap();
        assert_eq!(names.allocate("b0").unwrap().to_string(), "127.77.0.1");
        assert_eq!(names.allocate("b1").unwrap().to_string(), "127.77.0.2");
        assert_eq!(names.allocate("b0").unwrap().to_string(), "127.77.0.1");
        assert_eq!((names.len(), names.is_empty()), (2, false));
        assert_eq!(Ipv4Addr::from_bits(*names.range().end()).to_string(), "127.77.255.254");
        assert_eq!(net("127.0.0.0", 8).unwrap().allocate("b0").unwrap().to_string(), "127.0.1.1");
        assert_eq!(net("10.1.2.0", 30).unwrap().allocate("b0").unwrap().to_string(), "10.1.2.1");
    }

    #[test]
    fn networks_without_an_address_are_refused() {
        for (text, prefix) in
            [("127.0.0.0", 24), ("127.77.0.0", 31), ("127.77.0.0", 32), ("0.0.0.0", 0), ("1.2.3.4", 33)]
        {
            assert!(matches!(net(text, prefix), Err(AllocateError::BadNetwork { .. })), "{text}/{prefix}");
        }
    }

    #[test]
    fn restored_names_keep_their_addresses_and_no_other_name_gets_them() {
        let mut names = net("127.77.0.0", 29).unwrap();
        assert!(names.restore("b7", "127.77.0.6".parse().unwrap()));
        assert!(!names.restore("b8", "127.77.0.6".parse().unwrap()), "given twice");
        assert!(!names.restore("b7", "127.77.0.5".parse().unwrap()), "named twice");
        assert!(!names.restore("b9", "127.78.0.1".parse().unwrap()), "of another network");
        let got: Vec<_> = (0..5).map(|n| names.allocate(&format!("x{n}")).unwrap().octets()[3]).collect();
        assert_eq!(got, [1, 2, 3, 4, 5]);
        assert_eq!(names.allocate("one more"), Err(AllocateError::Full { given: 6, limit: 6 }));
        assert_eq!(names.allocate("b7").unwrap().octets()[3], 6, "who has one keeps it");
        assert_eq!(names.entries().last(), Some(&("b7", "127.77.0.6".parse().unwrap())));
    }

    #[test]
    fn four_thousand_and_ninety_six_names_are_the_most() {
        let mut names = net("127.77.0.0", 16).unwrap();
        for n in 0..MAX_NAMES {
            names.allocate(&n.to_string()).unwrap();
        }
        assert_eq!(names.allocate("b0"), Err(AllocateError::Full { given: 4096, limit: 4096 }));
    }
}
