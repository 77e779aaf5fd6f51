//! Bytes of fetched answers that are still in memory, against a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// What one fetcher's answers hold. A batch is a slice of its answer's buffer, so an answer counts whole until its last batch is gone.
#[derive(Debug, Default)]
pub(super) struct Budget {
    held: AtomicUsize,
    freed: Notify,
}

impl Budget {
    /// Counts `bytes` until the hold is dropped.
    pub(super) fn hold(self: &Arc<Self>, bytes: usize) -> Arc<Hold> {
        self.held.fetch_add(bytes, Ordering::Relaxed);
        Arc::new(Hold { budget: Arc::clone(self), bytes })
    }

    /// Bytes held now.
    pub(super) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Resolves when something was freed since the last call.
    pub(super) async fn freed(&self) {
        self.freed.notified().await;
    }
}

/// A share of a [`Budget`].
#[derive(Debug)]
pub(super) struct Hold {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Hold {
    /// A further share of the same budget.
    pub(super) fn another(&self, bytes: usize) -> Arc<Self> {
        self.budget.hold(bytes)
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.bytes, Ordering::Relaxed);
        self.budget.freed.notify_one();
    }
}
