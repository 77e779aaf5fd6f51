//! Who the client is: SASL from clients, answered here, where the operator keeps a file of users.
//!
//! ```text
//! Nobody ─ handshake ─▶ Conversing ─ proof ─▶ Known ─ handshake ─▶ Conversing …
//!                           └─ anything else ─▶ Failed: nothing more is taken
//! ```

use std::sync::Arc;

use super::local;
use crate::kafka::api;
use crate::kafka::header::RequestHead;
use crate::kafka::sasl as wire;
use crate::sasl::server::{Answer, Dialogue, MECHANISMS};
use crate::sasl::users::Users;

/// UNSUPPORTED_SASL_MECHANISM, ILLEGAL_SASL_STATE.
const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const ILLEGAL_SASL_STATE: i16 = 34;

/// What a client is told that did not prove who it is, whatever was wrong.
const NOT_PROVED: &str = "Authentication failed: wrong user name or password";

#[derive(Debug)]
pub(super) struct Guard {
    users: Option<Arc<Users>>,
    state: State,
    user: Option<String>,
    /// Fresh randomness, and how often some was made of it.
    nonce: [u8; 18],
    used: u8,
    refused: u64,
}

#[derive(Debug)]
enum State {
    Nobody,
    Conversing(Dialogue),
    Known,
    Failed,
}

impl Guard {
    /// Without users everybody is taken.
    pub(super) fn new(users: Option<Arc<Users>>, nonce: [u8; 18]) -> Self {
        Self { users, state: State::Nobody, user: None, nonce, used: 0, refused: 0 }
    }

    /// Whether a request of this API may come now.
    pub(super) fn admits(&self, key: i16) -> bool {
        match (&self.users, &self.state) {
            (None, _) | (Some(_), State::Known) => true,
            (Some(_), State::Failed) => false,
            (Some(_), State::Nobody | State::Conversing(_)) => {
                matches!(key, api::API_VERSIONS | api::SASL_HANDSHAKE | api::SASL_AUTHENTICATE)
            }
        }
    }

    /// Who it is, once that is proved.
    pub(super) fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Conversations that failed, since the last call.
    pub(super) fn take_refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused)
    }

    /// The answer to a SaslHandshake or SaslAuthenticate; `frame` is the request without its length.
    pub(super) fn answer(&mut self, head: RequestHead, frame: &[u8]) -> Vec<u8> {
        let Some(users) = self.users.clone() else { return local::no_sasl(head) };
        if head.api_key == api::SASL_HANDSHAKE {
            return self.handshake(&users, head, frame);
        }
        let State::Conversing(dialogue) = std::mem::replace(&mut self.state, State::Failed) else {
            return local::authenticated(head, ILLEGAL_SASL_STATE, "a SaslHandshake comes first", &[]);
        };
        let Ok(message) = wire::read_authenticate_request(frame) else { return self.refuse(head) };
        let nonce = self.fresh();
        match dialogue.next(message, nonce) {
            Answer::More(message, dialogue) => {
                self.state = State::Conversing(dialogue);
                local::authenticated(head, 0, "", &message)
            }
            // Kafka allows no other name on the same connection.
            Answer::Proved { user, last } if self.user.as_ref().is_none_or(|known| *known == user) => {
                self.user = Some(user);
                self.state = State::Known;
                local::authenticated(head, 0, "", &last)
            }
            Answer::Proved { .. } | Answer::Refused => self.refuse(head),
        }
    }

    fn handshake(&mut self, users: &Arc<Users>, head: RequestHead, frame: &[u8]) -> Vec<u8> {
        // Raw tokens, as after version 0, are of clients before Kafka 1.0.
        if head.api_version < wire::HANDSHAKE_VERSION || matches!(self.state, State::Failed | State::Conversing(_)) {
            self.state = State::Failed;
            return local::handshaken(head, ILLEGAL_SASL_STATE, &[]);
        }
        let dialogue = wire::read_handshake_request(frame).ok().and_then(|name| Dialogue::begin(users, name));
        match dialogue {
            Some(dialogue) => {
                self.state = State::Conversing(dialogue);
                local::handshaken(head, 0, &MECHANISMS)
            }
            None => local::handshaken(head, UNSUPPORTED_SASL_MECHANISM, &MECHANISMS),
        }
    }

    fn refuse(&mut self, head: RequestHead) -> Vec<u8> {
        self.state = State::Failed;
        self.refused += 1;
        local::authenticated(head, local::SASL_AUTHENTICATION_FAILED, NOT_PROVED, &[])
    }

    /// Randomness that no earlier conversation of this connection had.
    fn fresh(&mut self) -> [u8; 18] {
        let mut nonce = self.nonce;
        self.used = self.used.wrapping_add(1);
        nonce[0] ^= self.used;
        nonce
    }
}
