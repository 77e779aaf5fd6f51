//! How many descriptors this process may have open: one for each connection.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, as every process may. Failing that, it stays as it is.
pub fn raise_limit() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        // Without it the process works, with fewer connections; `limit` tells how many.
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// Descriptors that this process may have open at once.
#[must_use]
pub fn limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_the_hard_one_once_raised() {
        raise_limit();
        assert_eq!(Some(limit()), getrlimit(Resource::Nofile).maximum.or(Some(u64::MAX)));
    }
}
