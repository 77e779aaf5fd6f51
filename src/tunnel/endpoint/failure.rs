//! A failed dial on its way through the tunnel: the exit's [`DialError`] is the entry's.

use crate::net::{DialError, HostPort};
use crate::tunnel::session::OpenFailure;

const NOT_ALLOWED: u8 = 1;
const NO_SUCH_NAME: u8 = 2;
const REFUSED: u8 = 3;
const UNREACHABLE: u8 = 4;
const TIMED_OUT: u8 = 5;
const TUNNEL_DOWN: u8 = 6;
const LIMIT: u8 = OpenFailure::LIMIT;

/// What travels; the target is known at both ends.
pub(super) fn to_wire(error: &DialError) -> OpenFailure {
    let (code, value, detail) = match error {
        DialError::NotAllowed { .. } => (NOT_ALLOWED, 0, ""),
        DialError::NoSuchName { detail, .. } => (NO_SUCH_NAME, 0, detail.as_str()),
        DialError::Refused { .. } => (REFUSED, 0, ""),
        DialError::Unreachable { detail, .. } => (UNREACHABLE, 0, detail.as_str()),
        DialError::TimedOut { after_ms, .. } => (TIMED_OUT, *after_ms, ""),
        DialError::TunnelDown { detail } => (TUNNEL_DOWN, 0, detail.as_str()),
        DialError::Limit { detail, .. } => (LIMIT, 0, detail.as_str()),
    };
    OpenFailure { code, value, detail: detail.to_owned() }
}

/// What arrived; kinds of a later version are shown by their words.
pub(super) fn from_wire(target: &HostPort, failure: OpenFailure) -> DialError {
    let target = target.clone();
    let OpenFailure { code, value, detail } = failure;
    match code {
        NOT_ALLOWED => DialError::NotAllowed { target },
        NO_SUCH_NAME => DialError::NoSuchName { target, detail },
        REFUSED => DialError::Refused { target },
        TIMED_OUT => DialError::TimedOut { target, after_ms: value },
        TUNNEL_DOWN => DialError::TunnelDown { detail },
        LIMIT => DialError::Limit { target, detail },
        _ => DialError::Unreachable { target, detail },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_comes_back_as_it_was() {
        let target = || HostPort::new("b0.orange.test", 9092).unwrap();
        let detail = || "why".to_owned();
        for error in [
            DialError::NotAllowed { target: target() },
            DialError::NoSuchName { target: target(), detail: detail() },
            DialError::Refused { target: target() },
            DialError::Unreachable { target: target(), detail: detail() },
            DialError::TimedOut { target: target(), after_ms: 10_000 },
            DialError::TunnelDown { detail: detail() },
            DialError::Limit { target: target(), detail: detail() },
        ] {
            assert_eq!(from_wire(&target(), to_wire(&error)), error);
        }
        let later = OpenFailure { code: 99, value: 0, detail: detail() };
        assert_eq!(from_wire(&target(), later), DialError::Unreachable { target: target(), detail: detail() });
    }
}
