//! What a session does beside passing, as the operator set it.

use crate::kafka::api;

/// Rules of one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rules {
    /// The proxy authenticates towards the brokers, so no client may: a conversation of its own would be another user's.
    pub offload: bool,
}

impl Rules {
    /// Whether clients are not told of an API.
    pub(super) const fn hides(self, key: i16) -> bool {
        self.offload && matches!(key, api::SASL_HANDSHAKE | api::SASL_AUTHENTICATE)
    }

    /// Whether requests of an API are answered here.
    pub(super) const fn answers(self, key: i16) -> bool {
        self.hides(key)
    }
}
