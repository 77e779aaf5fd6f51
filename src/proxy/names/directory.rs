//! The names of the peer that are known here, each with its address, its listening sockets and its counts.
//!
//! A name is answered only when its address is on the disk and every port of it is open here: if another program held one of
//! them, clients of the peer's broker would end up at that program.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Instant;

use super::NamesError;
use super::allocate::{AllocateError, Allocation, MAX_NAMES};
use super::dns::{Answer, Kind, Question};
use super::listener::{self, Door, Gate, Route};
use super::quiet::Quiet;
use super::store::Store;
use super::zones::Zones;
use crate::config::AddressPlan;

/// One name of the peer.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) address: IpAddr,
    /// Connections now, ever, and those that were not dialled.
    pub(super) open: AtomicU64,
    pub(super) total: AtomicU64,
    pub(super) failed: AtomicU64,
    /// The gate of its log line about failed dials.
    pub(super) quiet: Quiet,
    doors: Mutex<Doors>,
}

#[derive(Debug, Default)]
struct Doors {
    /// Configured port to real address.
    open: BTreeMap<u16, SocketAddr>,
    problem: Option<String>,
    quiet: Quiet,
}

impl Entry {
    fn new(name: &str, address: IpAddr) -> Self {
        Self {
            name: name.to_owned(),
            address,
            open: AtomicU64::new(0),
            total: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            quiet: Quiet::default(),
            doors: Mutex::default(),
        }
    }

    /// Where it listens.
    pub(super) fn listeners(&self) -> Vec<SocketAddr> {
        self.doors().open.values().copied().collect()
    }

    /// Why it is not answered, if it is not.
    pub(super) fn problem(&self) -> Option<String> {
        self.doors().problem.clone()
    }

    fn doors(&self) -> MutexGuard<'_, Doors> {
        self.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What becomes of a question.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// This is the answer.
    Answer(Answer),
    /// The name has to be admitted first.
    Admit,
    /// It is not ours.
    Outside,
}

/// Why a name was not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    /// No address left.
    Full,
    /// The file or a port is in the way.
    Failed,
}

#[derive(Debug)]
enum Plan {
    PerName { range: RangeInclusive<u32>, book: tokio::sync::Mutex<Book> },
    Shared(IpAddr),
}

#[derive(Debug)]
struct Book {
    allocation: Allocation,
    store: Store,
    /// Whether the file is behind the allocation.
    unsaved: bool,
}

/// All names known.
#[derive(Debug)]
pub(super) struct Directory {
    pub(super) zones: Zones,
    ports: Vec<u16>,
    plan: Plan,
    gate: Arc<Gate>,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<String, Arc<Entry>>,
    by_address: HashMap<Ipv4Addr, Arc<Entry>>,
}

impl Directory {
    /// Restores the names of earlier runs, admits `first`, and opens all their ports.
    pub(super) fn open(
        plan: &AddressPlan,
        zones: Zones,
        ports: Vec<u16>,
        first: &[&str],
        state_dir: &std::path::Path,
        gate: Arc<Gate>,
    ) -> Result<Self, NamesError> {
        let plan = match *plan {
            AddressPlan::PerName(net, prefix) => {
                let book = Book::open(net, prefix, first, state_dir)?;
                Plan::PerName { range: book.allocation.range(), book: tokio::sync::Mutex::new(book) }
            }
            AddressPlan::Shared(address) if address.is_unspecified() => return Err(NamesError::BadShared(address)),
            AddressPlan::Shared(address) => Plan::Shared(address),
        };
        let mut directory = Self { zones, ports, plan, gate, known: RwLock::default() };
        if let Plan::Shared(address) = directory.plan {
            for name in first {
                directory.publish(name, address);
            }
            for &port in &directory.ports {
                let address = SocketAddr::new(address, port);
                let socket = listener::listen(address).map_err(|error| NamesError::Listen { address, error })?;
                directory
                    .gate
                    .open(Door::new(socket, Route::Sni).map_err(|error| NamesError::Listen { address, error })?);
            }
            return Ok(directory);
        }
        for (name, address) in directory.book_entries() {
            if directory.zones.of(&name).is_some() {
                let entry = directory.publish(&name, address.into());
                let opened = directory.open_doors(&entry);
                // An address that this host does not have is a mistake in the settings, not trouble of one name.
                if let Err((address, error)) = opened
                    && error.kind() == std::io::ErrorKind::AddrNotAvailable
                {
                    return Err(NamesError::Listen { address, error });
                }
            }
        }
        Ok(directory)
    }

    /// What is to be done with a question, without waiting for anything.
    pub(super) fn decide(&self, question: &Question) -> Decision {
        if let (Some(address), Plan::PerName { range, .. }) = (question.reverse(), &self.plan)
            && range.contains(&address.to_bits())
        {
            let asked = question.kind() == Kind::Ptr;
            let entry = self.read().by_address.get(&address).filter(|_| asked).map(|entry| entry.name.clone());
            return Decision::Answer(Answer::Pointer(entry));
        }
        let Some(zone) = self.zones.of(&question.name) else { return Decision::Outside };
        let zone = zone.to_owned();
        if question.name == zone {
            if question.kind() == Kind::Soa {
                return Decision::Answer(Answer::Soa { zone });
            }
            if !self.read().by_name.contains_key(&zone) {
                return Decision::Answer(Answer::NoData { zone });
            }
        }
        let Some(host) = question.host() else { return Decision::Answer(Answer::NoName { zone }) };
        match (&self.plan, question.kind()) {
            (&Plan::Shared(address), Kind::A | Kind::Aaaa) => Decision::Answer(Answer::Address { address, zone }),
            (Plan::PerName { .. }, Kind::A) => match self.ready(host) {
                Some(address) => Decision::Answer(Answer::Address { address, zone }),
                None => Decision::Admit,
            },
            _ => Decision::Answer(Answer::NoData { zone }),
        }
    }

    /// Gives a name of a zone its address and opens its ports; the address is on the disk when this returns.
    pub(super) async fn admit(&self, name: &str) -> Result<IpAddr, Denied> {
        let book = match &self.plan {
            Plan::Shared(address) => return Ok(*address),
            Plan::PerName { book, .. } => book,
        };
        // One at a time: the file is written whole, and a burst of questions for one name must open its ports once.
        let mut book = book.lock().await;
        if let Some(address) = self.ready(name) {
            return Ok(address);
        }
        let address = book.allocate(name).map_err(|error| {
            if let Some(held) = self.gate.refused.add_and_pass("addresses_exhausted") {
                tracing::warn!(name, held, %error, "name refused");
            }
            Denied::Full
        })?;
        if let Err(error) = book.save().await {
            if let Some(held) = self.gate.refused.add_and_pass("state_unwritable") {
                tracing::warn!(name, path = %book.store.path().display(), held, %error, "name not answered: its address cannot be kept");
            }
            return Err(Denied::Failed);
        }
        let entry = self.publish(name, address.into());
        match self.open_doors(&entry) {
            Ok(()) => {
                tracing::info!(name, %address, "name has an address");
                Ok(address.into())
            }
            Err(_) => Err(Denied::Failed),
        }
    }

    /// The entry of a name that was reached by SNI, made when there is room for it.
    pub(super) fn record(&self, name: &str) -> Option<Arc<Entry>> {
        if let Some(entry) = self.get(name) {
            return Some(entry);
        }
        let Plan::Shared(address) = self.plan else { return None };
        // The reading lock ends with this line: publishing takes the writing one.
        let room = self.read().by_name.len() < MAX_NAMES;
        room.then(|| self.publish(name, address))
    }

    /// The entry of a name.
    pub(super) fn get(&self, name: &str) -> Option<Arc<Entry>> {
        self.read().by_name.get(name).map(Arc::clone)
    }

    /// All entries, by address, then name.
    pub(super) fn entries(&self) -> Vec<Arc<Entry>> {
        let mut entries: Vec<_> = self.read().by_name.values().map(Arc::clone).collect();
        entries.sort_unstable_by(|a, b| (a.address, &a.name).cmp(&(b.address, &b.name)));
        entries
    }

    /// The address of a name whose ports are all open.
    fn ready(&self, name: &str) -> Option<IpAddr> {
        let known = self.read();
        let entry = known.by_name.get(name)?;
        let open = entry.doors().open.len();
        (open == self.ports.len()).then_some(entry.address)
    }

    fn publish(&self, name: &str, address: IpAddr) -> Arc<Entry> {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let entry = known.by_name.entry(name.to_owned()).or_insert_with(|| Arc::new(Entry::new(name, address)));
        let entry = Arc::clone(entry);
        if let (IpAddr::V4(address), Plan::PerName { .. }) = (address, &self.plan) {
            known.by_address.insert(address, Arc::clone(&entry));
        }
        entry
    }

    /// Opens the ports of a name that are not open yet; the first that cannot be is the name's problem.
    fn open_doors(&self, entry: &Arc<Entry>) -> Result<(), (SocketAddr, std::io::Error)> {
        let mut failed = None;
        for &port in &self.ports {
            let mut doors = entry.doors();
            if doors.open.contains_key(&port) {
                continue;
            }
            let address = SocketAddr::new(entry.address, port);
            match listener::listen(address).and_then(|socket| Door::new(socket, Route::Name(Arc::clone(entry)))) {
                Ok(door) => {
                    doors.open.insert(port, door.address);
                    self.gate.open(door);
                }
                Err(error) => {
                    if let Some(held) = doors.quiet.pass(Instant::now()) {
                        tracing::warn!(name = entry.name, %address, held, %error, "name not answered: its port cannot be opened");
                    }
                    failed.get_or_insert((address, error));
                }
            }
        }
        entry.doors().problem = failed.as_ref().map(|(address, error)| format!("cannot listen on {address}: {error}"));
        failed.map_or(Ok(()), Err)
    }

    fn book_entries(&mut self) -> Vec<(String, Ipv4Addr)> {
        match &mut self.plan {
            Plan::Shared(_) => Vec::new(),
            Plan::PerName { book, .. } => {
                let entries = book.get_mut().allocation.entries();
                entries.into_iter().map(|(name, address)| (name.to_owned(), address)).collect()
            }
        }
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Book {
    fn open(net: Ipv4Addr, prefix: u8, first: &[&str], state_dir: &std::path::Path) -> Result<Self, NamesError> {
        let (store, loaded) = Store::open(state_dir)?;
        let mut book = Self { allocation: Allocation::new(net, prefix)?, store, unsaved: false };
        if let Some(aside) = &loaded.damaged {
            book.unsaved = true;
            tracing::warn!(
                path = %book.store.path().display(), aside = %aside.display(), kept = loaded.entries.len(),
                "the file of names is damaged and was set aside; names that are not among those kept may get other addresses"
            );
        }
        let mut moved = Vec::new();
        for (name, address) in &loaded.entries {
            if !book.allocation.restore(name, *address) {
                moved.push(name);
            }
        }
        // The operator's names first: they must have an address however full the file is.
        for name in first {
            book.allocate(name)?;
        }
        for name in moved {
            book.unsaved = true;
            match book.allocate(name) {
                Ok(address) => {
                    tracing::info!(name, %address, "name has a new address: its old one is not of this network")
                }
                Err(error) => tracing::warn!(name, %error, "name of an earlier run dropped"),
            }
        }
        let path = book.store.path().to_owned();
        if book.unsaved {
            book.store.save(&book.allocation.entries()).map_err(|error| NamesError::State { path, error })?;
            book.unsaved = false;
        }
        Ok(book)
    }

    fn allocate(&mut self, name: &str) -> Result<Ipv4Addr, AllocateError> {
        let before = self.allocation.len();
        let address = self.allocation.allocate(name)?;
        self.unsaved |= self.allocation.len() > before;
        Ok(address)
    }

    /// Writes the file where it is behind, on a thread that may wait for the disk.
    async fn save(&mut self) -> std::io::Result<()> {
        if self.unsaved {
            let entries: Vec<_> =
                self.allocation.entries().into_iter().map(|(name, address)| (name.to_owned(), address)).collect();
            let store = self.store.clone();
            tokio::task::spawn_blocking(move || store.save(&entries)).await.map_err(std::io::Error::other)??;
            self.unsaved = false;
        }
        Ok(())
    }
}

/// Counts one connection of an entry for as long as it lives.
#[derive(Debug)]
pub(super) struct Counted(Arc<Entry>);

impl Counted {
    pub(super) fn new(entry: Arc<Entry>) -> Self {
        entry.open.fetch_add(1, Ordering::Relaxed);
        entry.total.fetch_add(1, Ordering::Relaxed);
        Self(entry)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}
