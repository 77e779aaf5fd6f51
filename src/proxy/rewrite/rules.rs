//! What a session does beside passing, as the operator set it.

use std::sync::Arc;

use super::policy::Policy;
use crate::kafka::api;
use crate::sasl::users::Users;

/// Rules of a listener's connections. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The proxy authenticates towards the brokers, so no client may: a conversation of its own would be another user's.
    pub offload: bool,
    /// Who may come; `None` for everybody whom the brokers take.
    pub users: Option<Arc<Users>>,
    /// What clients may not ask of the brokers.
    pub policy: Policy,
}

impl Rules {
    /// Whether what brokers say of an API is kept from clients.
    pub(super) const fn hides(&self, key: i16) -> bool {
        self.answers(key)
    }

    /// APIs that clients are told of instead: key, lowest and highest version.
    pub(super) const fn adds(&self) -> &'static [(i16, i16, i16)] {
        if self.users.is_some() { &[(api::SASL_HANDSHAKE, 0, 1), (api::SASL_AUTHENTICATE, 0, 2)] } else { &[] }
    }

    /// Whether requests of an API are answered here.
    pub(super) const fn answers(&self, key: i16) -> bool {
        (self.offload || self.users.is_some()) && matches!(key, api::SASL_HANDSHAKE | api::SASL_AUTHENTICATE)
    }
}
