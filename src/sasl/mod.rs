//! SASL conversations as the client's side: bytes in, bytes out. Used towards brokers by `client` and by the proxy.
//!
//! Rules kept here: no conversation does any I/O; a key derivation runs where it holds nobody up; a secret stands in no error, no
//! log and no debug form.

mod scram;

use zeroize::Zeroizing;

use crate::config::{Sasl, SaslMechanism};

/// Why a conversation ended without success. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SaslError(String);

/// One conversation: [`Conversation::first`], then [`Conversation::next`] with each answer until it says `None`.
pub struct Conversation(State);

enum State {
    Plain(Zeroizing<Vec<u8>>),
    Scram(scram::Scram),
    Done,
}

/// Who we are towards the brokers of one cluster: begins a conversation for each connection.
pub struct Authenticator {
    sasl: Sasl,
}

impl Authenticator {
    /// For these credentials.
    #[must_use]
    pub fn new(sasl: &Sasl) -> Self {
        Self { sasl: sasl.clone() }
    }

    /// Kafka's name of the mechanism.
    #[must_use]
    pub const fn mechanism(&self) -> &'static str {
        name(self.sasl.mechanism)
    }

    /// A new conversation.
    ///
    /// # Errors
    /// Credentials that the mechanism cannot carry, or a system without randomness.
    pub fn begin(&self) -> Result<Conversation, SaslError> {
        let mut nonce = [0; 18];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| SaslError("the system gives no randomness".to_owned()))?;
        Conversation::new(&self.sasl, nonce)
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Authenticator").field(&self.mechanism()).finish()
    }
}

impl Conversation {
    /// Checks the credentials for what the mechanism can carry; `nonce` is fresh randomness.
    fn new(sasl: &Sasl, nonce: [u8; 18]) -> Result<Self, SaslError> {
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
    #[must_use]
    pub fn first(&self) -> Zeroizing<Vec<u8>> {
        match &self.0 {
            State::Plain(message) => message.clone(),
            State::Scram(scram) => Zeroizing::new(scram.first()),
            State::Done => Zeroizing::default(),
        }
    }

    /// What to send after an answer; `None` when the conversation is done and the broker has proved what the mechanism lets it prove.
    ///
    /// # Errors
    /// What is wrong with the answer, or what the broker said in it.
    pub async fn next(&mut self, answer: &[u8]) -> Result<Option<Zeroizing<Vec<u8>>>, SaslError> {
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

impl std::fmt::Debug for Conversation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Conversation")
    }
}

/// Arbitrary bytes as a broker's answers; for fuzzing. Panics never.
pub fn fuzz_answer(answer: &[u8]) {
    scram::fuzz(answer);
}

/// Kafka's name of a mechanism.
const fn name(mechanism: SaslMechanism) -> &'static str {
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
