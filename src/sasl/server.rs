//! Conversations as the server's side: PLAIN and SCRAM against [`Users`]. Pure; what a wrong name, a wrong password and a wrong
//! message are told is the same.

use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::scram::Hash;
use super::users::{Entry, Users};

/// Mechanisms that clients may use, by Kafka's names.
pub const MECHANISMS: [&str; 3] = ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"];

/// Largest message of a client, in bytes.
const MAX_MESSAGE: usize = 4096;

/// One side of a conversation that has begun.
pub struct Dialogue {
    users: Arc<Users>,
    state: State,
}

enum State {
    Plain,
    ScramFirst(Hash),
    ScramFinal { user: String, known: bool, entry: Box<Entry>, nonce: String, signed: String },
}

/// What a message led to.
pub enum Answer {
    /// This is said, and the next message is for this.
    More(Vec<u8>, Dialogue),
    /// It is this user, who is told this.
    Proved {
        /// The user's name.
        user: String,
        /// The last message.
        last: Vec<u8>,
    },
    /// It is not.
    Refused,
}

impl Dialogue {
    /// Begins one; `None` for a mechanism that is not offered.
    #[must_use]
    pub fn begin(users: &Arc<Users>, mechanism: &[u8]) -> Option<Self> {
        let state = match mechanism {
            b"PLAIN" => State::Plain,
            b"SCRAM-SHA-256" => State::ScramFirst(Hash::Sha256),
            b"SCRAM-SHA-512" => State::ScramFirst(Hash::Sha512),
            _ => return None,
        };
        Some(Self { users: Arc::clone(users), state })
    }

    /// Takes a message; `nonce` is fresh randomness.
    #[must_use]
    pub fn next(self, message: &[u8], nonce: [u8; 18]) -> Answer {
        let Some(text) = (message.len() <= MAX_MESSAGE).then(|| std::str::from_utf8(message).ok()).flatten() else {
            return Answer::Refused;
        };
        let Self { users, state } = self;
        let answered = match state {
            State::Plain => plain(&users, text),
            State::ScramFirst(hash) => first(&users, hash, text, &STANDARD.encode(nonce))
                .map(|(challenge, state)| Answer::More(challenge, Self { users: Arc::clone(&users), state })),
            State::ScramFinal { user, known, entry, nonce, signed } => {
                proved(&entry, &nonce, &signed, text).filter(|_| known).map(|last| Answer::Proved { user, last })
            }
        };
        answered.unwrap_or(Answer::Refused)
    }
}

impl std::fmt::Debug for Dialogue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Dialogue")
    }
}

/// RFC 4616: whom to act as (nobody else than oneself), user, password, with a NUL between them.
fn plain(users: &Users, text: &str) -> Option<Answer> {
    let mut parts = text.split('\0');
    let (act_as, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && (act_as.is_empty() || act_as == user) && !user.is_empty();
    (whole && users.verify(user, password)).then(|| Answer::Proved { user: user.to_owned(), last: Vec::new() })
}

/// `n,,n=user,r=nonce` leads to a challenge.
fn first(users: &Users, hash: Hash, text: &str, fresh: &str) -> Option<(Vec<u8>, State)> {
    let bare = text.strip_prefix("n,,").or_else(|| text.strip_prefix("y,,"))?;
    let mut parts = bare.split(',');
    let name = parts.next()?.strip_prefix("n=")?;
    let nonce = parts.next()?.strip_prefix("r=").filter(|nonce| !nonce.is_empty())?;
    // `,` and `=` are written `=2C` and `=3D`, and no `=` stands for itself.
    let user = name.replace("=2C", ",").replace("=3D", "=");
    if name.matches('=').count() != name.matches("=2C").count() + name.matches("=3D").count() {
        return None;
    }
    let (entry, known) = users.entry(&user, hash);
    let nonce = format!("{nonce}{fresh}");
    let challenge = format!("r={nonce},s={},i={}", STANDARD.encode(&entry.salt), entry.iterations);
    let signed = format!("{bare},{challenge}");
    Some((challenge.into_bytes(), State::ScramFinal { user, known, entry: Box::new(entry), nonce, signed }))
}

/// `c=biws,r=nonce,p=proof` is right where it could only be made with the password; what is answered proves the same of us.
fn proved(entry: &Entry, nonce: &str, signed: &str, text: &str) -> Option<Vec<u8>> {
    let (without_proof, proof) = text.rsplit_once(",p=")?;
    let mut parts = without_proof.split(',');
    let binding = parts.next()?;
    if !matches!(binding, "c=biws" | "c=eSws") || parts.next()?.strip_prefix("r=")? != nonce {
        return None;
    }
    let proof = STANDARD.decode(proof).ok().filter(|proof| proof.len() == entry.hash.length())?;
    let message = format!("{signed},{without_proof}");
    let signature = hmac::sign(&hmac::Key::new(entry.hash.hmac(), &entry.stored_key), message.as_bytes());
    let client_key: Vec<u8> = proof.iter().zip(signature.as_ref()).map(|(proof, sign)| proof ^ sign).collect();
    let stored = digest::digest(entry.hash.digest(), &client_key);
    constant_time::verify_slices_are_equal(stored.as_ref(), &entry.stored_key).ok()?;
    let server = hmac::sign(&hmac::Key::new(entry.hash.hmac(), &entry.server_key), message.as_bytes());
    Some(format!("v={}", STANDARD.encode(server.as_ref())).into_bytes())
}

/// Arbitrary bytes as both messages of a client; for fuzzing. Panics never, and lets nobody in.
pub fn fuzz_dialogue(data: &[u8]) {
    let Ok(users) = Users::parse("") else { return };
    let users = Arc::new(users);
    let (a, b) = data.split_at(data.len() / 2);
    for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let Some(dialogue) = Dialogue::begin(&users, mechanism.as_bytes()) else { continue };
        if let Answer::More(_, dialogue) = dialogue.next(a, [7; 18]) {
            assert!(matches!(dialogue.next(b, [7; 18]), Answer::Refused));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::scram::{Scram, Step};
    use super::super::users::lines;
    use super::*;

    fn users() -> Arc<Users> {
        let text = format!("{}{}", lines("alice", "right").expect("lines"), lines("a=b,c", "right").expect("lines"));
        Arc::new(Users::parse(&text).expect("users"))
    }

    fn says(users: &Arc<Users>, mechanism: &str, message: &[u8]) -> Answer {
        Dialogue::begin(users, mechanism.as_bytes()).expect("offered").next(message, [3; 18])
    }

    #[test]
    fn plain_takes_the_password_and_nobody_elses_name() {
        let users = users();
        let right = says(&users, "PLAIN", b"\0alice\0right");
        assert!(matches!(right, Answer::Proved { user, last } if user == "alice" && last.is_empty()));
        assert!(matches!(says(&users, "PLAIN", b"alice\0alice\0right"), Answer::Proved { .. }));
        for message in [
            &b"\0alice\0wrong"[..],
            b"bob\0alice\0right",
            b"\0alice",
            b"\0alice\0right\0",
            b"\0\0right",
            b"",
            b"\xff\0alice\0right",
            &[b'x'; 5000],
        ] {
            assert!(matches!(says(&users, "PLAIN", message), Answer::Refused), "{message:?}");
        }
        assert!(Dialogue::begin(&users, b"GSSAPI").is_none());
    }

    /// Our own client is the other side.
    async fn converse(users: &Arc<Users>, mechanism: &str, hash: Hash, name: &str, password: &str) -> Option<String> {
        let client = Scram::new(hash, name, password, [9; 18]).expect("usable credentials");
        let Answer::More(challenge, dialogue) = says(users, mechanism, &client.first()) else { return None };
        let Ok(Step::Send(proof, client)) = client.next(&challenge).await else { return None };
        match dialogue.next(&proof, [4; 18]) {
            Answer::Proved { user, last } => {
                assert!(matches!(client.next(&last).await, Ok(Step::Proved)), "the server proves itself");
                Some(user)
            }
            _ => None,
        }
    }

    #[tokio::test]
    async fn scram_lets_in_who_knows_the_password() {
        let users = users();
        for (mechanism, hash) in [("SCRAM-SHA-256", Hash::Sha256), ("SCRAM-SHA-512", Hash::Sha512)] {
            assert_eq!(converse(&users, mechanism, hash, "alice", "right").await.as_deref(), Some("alice"));
            assert_eq!(converse(&users, mechanism, hash, "a=b,c", "right").await.as_deref(), Some("a=b,c"));
            assert_eq!(converse(&users, mechanism, hash, "alice", "wrong").await, None);
            assert_eq!(converse(&users, mechanism, hash, "mallory", "right").await, None);
        }
    }

    #[test]
    fn malformed_messages_are_refused() {
        let users = users();
        for message in
            ["", "n,,", "n,,n=alice", "n,,n=alice,r=", "p=x,,n=alice,r=x", "n,,n=al=ice,r=x", "n,a=bob,n=alice,r=x"]
        {
            assert!(matches!(says(&users, "SCRAM-SHA-256", message.as_bytes()), Answer::Refused), "{message}");
        }
        for last in ["", "c=biws,r=x,p=AAAA", "c=AAAA,r=NONCE,p=AAAA", "c=biws,r=NONCE,p=!", "c=biws,r=NONCE"] {
            let Answer::More(challenge, dialogue) = says(&users, "SCRAM-SHA-256", b"n,,n=alice,r=x") else {
                panic!("first")
            };
            let challenge = String::from_utf8(challenge).expect("text");
            let nonce = challenge.split(',').next().and_then(|part| part.strip_prefix("r=")).expect("a nonce");
            let answer = dialogue.next(last.replace("NONCE", nonce).as_bytes(), [0; 18]);
            assert!(matches!(answer, Answer::Refused), "{last}");
        }
    }
}
