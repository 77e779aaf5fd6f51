//! Counting failures by scope and code, for `linkspan_errors_total`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::{Code, ErrorCount};

/// Counts failures. Bounded by its keys: scopes are written in the program, codes stand in one table.
#[derive(Debug, Default)]
pub struct ErrorCounter {
    counts: Mutex<BTreeMap<(&'static str, Code), u64>>,
}

impl ErrorCounter {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one failure; `scope` is the part of the endpoint it happened in, for example `tunnel`.
    pub fn count(&self, scope: &'static str, code: Code) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry((scope, code)).or_default();
        *count = count.saturating_add(1);
    }

    /// All counts so far, by scope and code.
    #[must_use]
    pub fn snapshot(&self) -> Vec<ErrorCount> {
        let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.iter().map(|(&(scope, code), &count)| ErrorCount { scope: scope.to_owned(), code, count }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_by_scope_and_code() {
        let counter = ErrorCounter::new();
        counter.count("tunnel", Code::PEER_PROVED);
        counter.count("tunnel", Code::PEER_PROVED);
        counter.count("exit", Code::EXIT_REFUSED);
        let seen: Vec<_> = counter.snapshot().into_iter().map(|e| (e.scope, e.code.to_string(), e.count)).collect();
        assert_eq!(seen, [("exit".to_owned(), "LS601".to_owned(), 1), ("tunnel".to_owned(), "LS103".to_owned(), 2)]);
    }
}
