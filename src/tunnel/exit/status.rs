//! What the exit did, in numbers.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::net::{DialError, HostPort};

/// Refused targets that are remembered.
const REMEMBERED: usize = 16;
/// Least time between two log lines about refusals of one reason.
const QUIET: Duration = Duration::from_secs(60);

/// State of an exit since its start.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct ExitStatus {
    /// Streams open now.
    pub open: u64,
    /// Streams opened in all.
    pub total: u64,
    /// Bytes of ended streams towards targets.
    pub bytes_to_targets: u64,
    /// Bytes of ended streams from targets.
    pub bytes_from_targets: u64,
    /// Streams refused, by reason: `not_allowed`, `no_such_name`, `refused`, `unreachable`, `timed_out`, `limit`, `tunnel_down`.
    pub refused: BTreeMap<&'static str, u64>,
    /// Streams cut because their targets were no longer allowed.
    pub cut: u64,
    /// The last refused targets, the newest first; each once. At most 16.
    pub last_refused: Vec<RefusedTarget>,
}

/// A target that was refused.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct RefusedTarget {
    /// What the peer wanted dialled.
    pub target: HostPort,
    /// Why not, in words.
    pub error: String,
    /// How long ago, in seconds.
    pub seconds_ago: u64,
}

/// Gives snapshots while the exit runs.
#[derive(Clone)]
pub struct ExitStatusReader(Arc<dyn Fn() -> ExitStatus + Send + Sync>);

impl ExitStatusReader {
    pub(super) fn new(read: impl Fn() -> ExitStatus + Send + Sync + 'static) -> Self {
        Self(Arc::new(read))
    }

    /// The present state.
    #[must_use]
    pub fn snapshot(&self) -> ExitStatus {
        (self.0)()
    }
}

impl std::fmt::Debug for ExitStatusReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.snapshot().fmt(f)
    }
}

#[derive(Default)]
pub(super) struct Counters {
    open: AtomicU64,
    total: AtomicU64,
    to_targets: AtomicU64,
    from_targets: AtomicU64,
    cut: AtomicU64,
    refusals: Mutex<Refusals>,
}

#[derive(Default)]
struct Refusals {
    by_reason: BTreeMap<&'static str, Reason>,
    last: VecDeque<(HostPort, String, Instant)>,
}

struct Reason {
    count: u64,
    logged: Instant,
    held_back: u64,
}

/// One open stream; counted out at drop.
pub(super) struct Open<'a>(&'a AtomicU64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    pub(super) fn opened(&self) -> Open<'_> {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.total.fetch_add(1, Ordering::Relaxed);
        Open(&self.open)
    }

    pub(super) fn carried(&self, to_target: u64, from_target: u64) {
        self.to_targets.fetch_add(to_target, Ordering::Relaxed);
        self.from_targets.fetch_add(from_target, Ordering::Relaxed);
    }

    /// Counts a stream cut for new rules.
    pub(super) fn cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a refusal. `Some(n)` when a line is to be written now, with `n` of the same reason held back before it.
    pub(super) fn refused(&self, target: &HostPort, error: &DialError) -> Option<u64> {
        let now = Instant::now();
        let mut refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        refusals.last.retain(|(held, ..)| held != target);
        refusals.last.push_front((target.clone(), error.to_string(), now));
        refusals.last.truncate(REMEMBERED);
        let mut first = false;
        let reason = refusals.by_reason.entry(reason(error)).or_insert_with(|| {
            first = true;
            Reason { count: 0, logged: now, held_back: 0 }
        });
        reason.count += 1;
        if !first && now.duration_since(reason.logged) < QUIET {
            reason.held_back += 1;
            return None;
        }
        reason.logged = now;
        Some(std::mem::take(&mut reason.held_back))
    }

    pub(super) fn snapshot(&self) -> ExitStatus {
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let told = |(target, error, at): &(HostPort, String, Instant)| RefusedTarget {
            target: target.clone(),
            error: error.clone(),
            seconds_ago: at.elapsed().as_secs(),
        };
        ExitStatus {
            open: self.open.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            bytes_to_targets: self.to_targets.load(Ordering::Relaxed),
            bytes_from_targets: self.from_targets.load(Ordering::Relaxed),
            cut: self.cut.load(Ordering::Relaxed),
            refused: refusals.by_reason.iter().map(|(name, reason)| (*name, reason.count)).collect(),
            last_refused: refusals.last.iter().map(told).collect(),
        }
    }
}

fn reason(error: &DialError) -> &'static str {
    match error {
        DialError::NotAllowed { .. } => "not_allowed",
        DialError::NoSuchName { .. } => "no_such_name",
        DialError::Refused { .. } => "refused",
        DialError::Unreachable { .. } => "unreachable",
        DialError::TimedOut { .. } => "timed_out",
        DialError::TunnelDown { .. } => "tunnel_down",
        DialError::Limit { .. } => "limit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn refusals_are_counted_remembered_within_bounds_and_logged_once_a_minute() {
        let counters = Counters::default();
        let target = |port| HostPort::new("b0.orange.test", port).expect("a target");
        let refuse = |port| counters.refused(&target(port), &DialError::NotAllowed { target: target(port) });
        assert_eq!(refuse(1), Some(0));
        for port in 2..=40 {
            assert_eq!(refuse(port), None);
        }
        // The same target again stands once, in front.
        assert_eq!(refuse(39), None);
        tokio::time::advance(Duration::from_secs(60)).await;
        let status = counters.snapshot();
        assert_eq!(status.refused, BTreeMap::from([("not_allowed", 41)]));
        let ports: Vec<_> = status.last_refused.iter().map(|r| r.target.port()).collect();
        assert_eq!(ports, [39, 40, 38, 37, 36, 35, 34, 33, 32, 31, 30, 29, 28, 27, 26, 25]);
        assert!(status.last_refused.iter().all(|r| r.seconds_ago == 60));
        assert_eq!(refuse(41), Some(40));
        // Another reason has its own line.
        assert_eq!(counters.refused(&target(1), &DialError::Refused { target: target(1) }), Some(0));
    }

    #[test]
    fn open_streams_are_counted_out_however_they_end() {
        let counters = Counters::default();
        let (one, two) = (counters.opened(), counters.opened());
        drop(one);
        assert_eq!((counters.snapshot().open, counters.snapshot().total), (1, 2));
        drop(two);
        assert_eq!((counters.snapshot().open, counters.snapshot().total), (0, 2));
    }
}
