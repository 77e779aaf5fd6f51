//! SASL conversations: bytes in, bytes out. As the client's side towards brokers, for `client` and the proxy; as the server's side
//! (`server`, against `users`) towards the proxy's clients.
//!
//! Rules kept here: no conversation does any I/O, only what begins one may (a token, a signature's credentials); a key derivation runs where it holds nobody up; a secret stands in no error, no
//! log and no debug form.

mod iam;
mod oauth;
mod scram;
pub mod server;
pub mod users;

use zeroize::Zeroizing;

use crate::config::{Sasl, SaslMechanism, Secret};
use crate::net::HostPort;

/// Why a conversation ended without success. Never holds a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SaslError(String);

/// One conversation: [`Conversation::first`], then [`Conversation::next`] with each answer until it says `None`.
pub struct Conversation(State);

enum State {
    /// All is said with the first message.
    Once(Zeroizing<Vec<u8>>),
    Bearer(Zeroizing<Vec<u8>>),
    Scram(scram::Scram),
    Done,
}

/// Who we are towards the brokers of one cluster: begins a conversation for each connection.
pub struct Authenticator {
    mechanism: &'static str,
    who: Who,
}

enum Who {
    Password { mechanism: SaslMechanism, username: String, password: Secret },
    Bearer(Box<oauth::TokenSource>),
    Iam(Box<iam::Signer>),
}

impl Authenticator {
    /// For these credentials. Asks nobody for anything yet.
    #[must_use]
    pub fn new(sasl: &Sasl) -> Self {
        let who = match sasl {
            Sasl::Password { mechanism, username, password } => {
                Who::Password { mechanism: *mechanism, username: username.clone(), password: password.clone() }
            }
            Sasl::OauthBearer(config) => Who::Bearer(Box::new(oauth::TokenSource::new(config))),
            Sasl::AwsMskIam(config) => Who::Iam(Box::new(iam::Signer::new(config))),
        };
        Self { mechanism: sasl.mechanism(), who }
    }

    /// Kafka's name of the mechanism.
    #[must_use]
    pub const fn mechanism(&self) -> &'static str {
        self.mechanism
    }

    /// A new conversation with `broker`, with a token or signature that is fresh.
    ///
    /// # Errors
    /// Credentials that the mechanism cannot carry, or that are not to be had now.
    pub async fn begin(&self, broker: &HostPort) -> Result<Conversation, SaslError> {
        let state = match &self.who {
            Who::Password { mechanism, username, password } => {
                let mut nonce = [0; 18];
                let random = aws_lc_rs::rand::fill(&mut nonce);
                random.map_err(|_| SaslError("the system gives no randomness".to_owned()))?;
                with_password(*mechanism, username, password.expose(), nonce)?
            }
            Who::Bearer(tokens) => State::Bearer(Box::pin(tokens.message()).await?),
            Who::Iam(signer) => State::Once(Box::pin(signer.message(broker.host())).await?),
        };
        Ok(Conversation(state))
    }
}

impl std::fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Authenticator").field(&self.mechanism).finish()
    }
}

/// Checks the credentials for what the mechanism can carry; `nonce` is fresh randomness.
fn with_password(
    mechanism: SaslMechanism,
    username: &str,
    password: &str,
    nonce: [u8; 18],
) -> Result<State, SaslError> {
    let scram = |hash| scram::Scram::new(hash, username, password, nonce).map(State::Scram);
    match mechanism {
        SaslMechanism::Plain => plain(username, password).map(State::Once),
        SaslMechanism::ScramSha256 => scram(scram::Hash::Sha256),
        SaslMechanism::ScramSha512 => scram(scram::Hash::Sha512),
    }
}

impl Conversation {
    /// What to send first.
    #[must_use]
    pub fn first(&self) -> Zeroizing<Vec<u8>> {
        match &self.0 {
            State::Once(message) | State::Bearer(message) => message.clone(),
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
            State::Once(_) | State::Done => Ok(None),
            // RFC 7628 3.2.2: an answer that says something says what is wrong, and wants to hear this before it fails.
            State::Bearer(_) if !answer.is_empty() => Ok(Some(Zeroizing::new(vec![1]))),
            State::Bearer(_) => Ok(None),
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

    fn broker() -> HostPort {
        "b0.orange.example:9092".parse().expect("a target")
    }

    #[tokio::test]
    async fn plain_is_one_message() {
        let plain = |username: &str| {
            Authenticator::new(&Sasl::Password {
                mechanism: SaslMechanism::Plain,
                username: username.into(),
                password: Secret::new("schlüssel".into()),
            })
        };
        let mut conversation = plain("srckey").begin(&broker()).await.expect("usable credentials");
        assert_eq!(conversation.first().as_slice(), "\0srckey\0schlüssel".as_bytes());
        assert_eq!(conversation.next(b"").await, Ok(None));
        assert!(plain("a\0b").begin(&broker()).await.is_err());
    }

    #[tokio::test]
    async fn a_bearer_token_that_is_refused_is_given_up() {
        let refused = br#"{"status":"invalid_token"}"#;
        let mut conversation = Conversation(State::Bearer(Zeroizing::new(b"n,,".to_vec())));
        assert_eq!(conversation.next(refused).await, Ok(Some(Zeroizing::new(vec![1]))));
        let mut conversation = Conversation(State::Bearer(Zeroizing::new(b"n,,".to_vec())));
        assert_eq!(conversation.next(b"").await, Ok(None));
    }
}
