//! Streams over a session over carriers, and what the peer may dial here.

pub mod session;
