//! Shutdown as a type: whoever holds a [`Drain`] may spawn, hears the call to stop, and is waited for.

use std::future::Future;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A scope of tasks with two calls: *drain* (take nothing new, finish what runs) and, after a deadline, *force* (end now).
///
/// Clones share the scope.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    draining: CancellationToken,
    forced: CancellationToken,
    tasks: TaskTracker,
}

impl Drain {
    /// A scope with no task in it.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A scope inside this one: it hears the calls of its parent, and the parent waits for its tasks only through the task that owns it.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { draining: self.draining.child_token(), forced: self.forced.child_token(), tasks: TaskTracker::new() }
    }

    /// Spawns a task that is dropped at *force* wherever it is; it should watch [`Drain::draining`] itself.
    pub fn spawn<F>(&self, task: F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let forced = self.forced.clone();
        // Moved into the block below it would be there twice: once as captured, once as polled.
        let task = Box::pin(task);
        self.tasks.spawn(async move {
            tokio::select! {
                biased;
                () = forced.cancelled() => {}
                () = task => {}
            }
        });
    }

    /// Resolves when draining begins.
    pub async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Whether draining has begun.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Begins to drain, without waiting.
    pub fn begin(&self) {
        self.draining.cancel();
    }

    /// Drains: calls, waits up to `grace` for the tasks, then forces and waits for the rest. True when no force was needed.
    pub async fn drain(&self, grace: Duration) -> bool {
        self.draining.cancel();
        self.tasks.close();
        let in_time = tokio::time::timeout(grace, self.tasks.wait()).await.is_ok();
        self.forced.cancel();
        self.tasks.wait().await;
        in_time
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_for_what_finishes_and_forces_what_does_not() {
        let drain = Drain::new();
        let inner = drain.clone();
        drain.spawn(async move { inner.draining().await });
        assert!(drain.drain(Duration::from_secs(1)).await);

        let stuck = Drain::new();
        stuck.spawn(std::future::pending());
        assert!(!stuck.drain(Duration::from_secs(1)).await);
    }
}
