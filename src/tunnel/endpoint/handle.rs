//! One carrier as everybody but its task sees it: how to wake it, what became of it, where it goes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;
use std::time::Instant;

use futures_util::task::AtomicWaker;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::shared::now;
use crate::tunnel::carrier::{PeerIdentity, Proof};
use crate::tunnel::session::CarrierEnd;

/// How the shell reaches a carrier's task, and how others learn of the carrier.
#[derive(Debug)]
pub(super) struct CarrierHandle {
    pub(super) wake: Wake,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) address: String,
    /// The socket's own and its peer's address; `None` when it was gone already.
    pub(super) ends: Option<(SocketAddr, SocketAddr)>,
    pub(super) since: Instant,
    pub(super) identity: String,
    pub(super) proof: Proof,
    /// Bytes on the wire, sealed.
    pub(super) sent: AtomicU64,
    pub(super) received: AtomicU64,
}

/// Wakes a carrier's task, and keeps that it was woken until it looks.
#[derive(Debug, Default)]
pub(super) struct Wake {
    set: AtomicBool,
    task: AtomicWaker,
}

impl Wake {
    pub(super) fn set(&self) {
        self.set.store(true, Ordering::Release);
        self.task.wake();
    }

    /// Whether it was woken since the last call.
    pub(super) fn take(&self) -> bool {
        self.set.swap(false, Ordering::Acquire)
    }

    /// As [`Self::take`], which it leaves to do.
    pub(super) fn is_set(&self) -> bool {
        self.set.load(Ordering::Acquire)
    }

    /// The one task that waits.
    pub(super) fn register(&self, waker: &Waker) {
        self.task.register(waker);
    }
}

/// What became of a carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Phase {
    Joining,
    Attached,
    Suspect,
    /// To be closed by its task.
    Closing(CarrierEnd),
    /// Its task ended.
    Ended(CarrierEnd),
}

impl CarrierHandle {
    pub(super) fn new(peer: &PeerIdentity, proof: Proof, socket: &TcpStream) -> Arc<Self> {
        let (sent, received) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Self {
            wake: Wake::default(),
            phase: watch::Sender::new(Phase::Joining),
            address: peer.address.to_string(),
            ends: socket.local_addr().ok().zip(socket.peer_addr().ok()),
            since: now(),
            identity: peer.name.clone(),
            proof,
            sent,
            received,
        })
    }

    /// Why the carrier shall close, if it shall.
    pub(super) fn closing(&self) -> Option<CarrierEnd> {
        match &*self.phase.borrow() {
            Phase::Closing(why) => Some(why.clone()),
            Phase::Joining | Phase::Attached | Phase::Suspect | Phase::Ended(_) => None,
        }
    }
}
