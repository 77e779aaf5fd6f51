//! SASL conversations as the client's side: bytes in, bytes out, no I/O.

pub(super) mod scram;

use zeroize::Zeroizing;

use crate::config::{Sasl, SaslMechanism};

/// Why a conversation ended without success. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct SaslError(String);

/// One conversation: [`Conversation::first`], then [`Conversation::next`] with each answer until it says `None`.
pub(super) struct Conversation(State);

enum State {
    Plain(Zeroizing<Vec<u8>>),
    Scram(scram::Scram),
    Done,
}

impl Conversation {
    /// Checks the credentials for what the mechanism can carry; `nonce` is fresh randomness.
    pub(super) fn new(sasl: &Sasl, nonce: [u8; 18]) -> Result<Self, SaslError> {
        let (username, password) = (sasl.username.as_str(), sasl.password.expose());
        let state = match sasl.mechanism {
            SaslMechanism::Plain => plain(username, password).map(State::Plain),
            SaslMechanism::ScramSha256 => {
                scram::Scram::new(scram::Hash::Sha256, username, password, nonce).map(State::Scram)
            }
            SaslMechanism::ScramSha512 => {
                scram::Scram::new(scram::Hash::Sha512, username, password, nonce).map(State::Scram)
            }
        };
        state.map(Self)
    }

    /// What to send first.
    pub(super) fn first(&self) -> Zeroizing<Vec<u8>> {
        match &self.0 {
            State::Plain(message) => message.clone(),
            State::Scram(scram) => Zeroizing::new(scram.first()),
            State::Done => Zeroizing::default(),
        }
    }

    /// What to send after an answer; `None` when the conversation is done and the broker has proved what the mechanism lets it prove.
    pub(super) async fn next(&mut self, answer: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, SaslError> {
        match std::mem::replace(&mut self.0, State::Done) {
            State::Plain(_) | State::Done => Ok(None),
            State::Scram(scram) => match scram.next(answer).await? {
                scram::Step::Send(message, then) => {
                    self.0 = State::Scram(then);
                    Ok(Some(Zeroizing::new(message)))
                }
                scram::Step::Proved => Ok(None),
            },
        }
    }
}

/// Kafka's name of a mechanism.
pub(super) const fn name(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::Plain => "PLAIN",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
    }
}

/// RFC 4616: no identity to act as, user, password, each after a NUL.
fn plain(username: &str, password: &str) -> Result<Zeroizing<Vec<u8>>, SaslError> {
    if username.contains('\0') || password.contains('\0') {
        return Err(SaslError("username and password cannot have a NUL character".to_owned()));
    }
    Ok(Zeroizing::new([b"\0", username.as_bytes(), b"\0", password.as_bytes()].concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Secret;

    #[tokio::test]
    async fn plain_is_one_message() {
        let sasl = Sasl {
            mechanism: SaslMechanism::Plain,
            username: "srckey".into(),
            password: Secret::new("schlüssel".into()),
        };
        let mut conversation = Conversation::new(&sasl, [0; 18]).expect("usable credentials");
        assert_eq!(conversation.first().as_slice(), "\0srckey\0schlüssel".as_bytes());
        assert_eq!(conversation.next(b"").await, Ok(None));
        let sasl = Sasl { username: "a\0b".into(), ..sasl };
        assert!(Conversation::new(&sasl, [0; 18]).is_err());
    }
}
