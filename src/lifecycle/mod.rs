//! Birth and death of work: draining, readiness, and waiting longer after each failure.

mod backoff;
mod drain;

pub use backoff::Backoff;
pub use drain::Drain;
