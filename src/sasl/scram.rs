//! SCRAM-SHA-256 and SCRAM-SHA-512 (RFC 5802, RFC 7677), without channel binding, as Kafka's brokers speak it.

use std::num::NonZeroU32;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::SaslError;

/// Iteration counts accepted. Below: not SCRAM as RFC 7677 wants it. Above: a second and more of our CPU at a hostile broker's word.
pub(super) const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=1_000_000;
/// Most bytes of a server's message and of a salt.
const MAX_MESSAGE: usize = 4096;
/// `n,,` in base64: no channel binding, no identity to act as.
const CHANNEL_BINDING: &str = "c=biws";

/// The hash of a SCRAM mechanism.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

/// One side of a conversation that has begun.
pub(super) struct Scram {
    hash: Hash,
    password: Zeroizing<String>,
    first_bare: String,
    nonce: String,
    expected: Option<hmac::Tag>,
}

/// What follows an answer.
pub(super) enum Step {
    /// This message, and then the next answer is for this.
    Send(Vec<u8>, Scram),
    /// The server has proved that it knows the password.
    Proved,
}

impl Scram {
    pub(super) fn new(hash: Hash, username: &str, password: &str, nonce: [u8; 18]) -> Result<Self, SaslError> {
        Self::with_nonce(hash, username, password, STANDARD.encode(nonce))
    }

    fn with_nonce(hash: Hash, username: &str, password: &str, nonce: String) -> Result<Self, SaslError> {
        prepared("username", username)?;
        prepared("password", password)?;
        let user = username.replace('=', "=3D").replace(',', "=2C");
        let first_bare = format!("n={user},r={nonce}");
        Ok(Self { hash, password: Zeroizing::new(password.to_owned()), first_bare, nonce, expected: None })
    }

    pub(super) fn first(&self) -> Vec<u8> {
        format!("n,,{}", self.first_bare).into_bytes()
    }

    pub(super) async fn next(mut self, answer: &[u8]) -> Result<Step, SaslError> {
        if answer.len() > MAX_MESSAGE {
            return Err(SaslError(format!("a SCRAM message of {} bytes, over {MAX_MESSAGE}", answer.len())));
        }
        let answer = std::str::from_utf8(answer).map_err(|_| wrong("a SCRAM message that is no UTF-8"))?;
        if let Some(expected) = self.expected.take() {
            return proved(answer, &expected);
        }
        let (nonce, salt, iterations) = challenge(answer, &self.nonce)?;
        let without_proof = format!("{CHANNEL_BINDING},r={nonce}");
        let signed = format!("{},{answer},{without_proof}", self.first_bare);
        let (hash, password) = (self.hash, self.password.clone());
        // Up to a second of CPU: not on a thread that moves other people's bytes.
        let keys = tokio::task::spawn_blocking(move || Keys::derive(hash, &password, &salt, iterations))
            .await
            .map_err(|_| wrong("deriving the keys was interrupted"))?;
        let (proof, server) = keys.sign(hash, signed.as_bytes());
        self.expected = Some(server);
        let message = format!("{without_proof},p={}", STANDARD.encode(proof.as_slice()));
        Ok(Step::Send(message.into_bytes(), self))
    }
}

struct Keys {
    client: Zeroizing<Vec<u8>>,
    server: hmac::Key,
}

impl Keys {
    fn derive(hash: Hash, password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = Zeroizing::new(vec![0; hash.length()]);
        pbkdf2::derive(hash.pbkdf2(), iterations, salt, password.as_bytes(), &mut salted);
        let salted = hmac::Key::new(hash.hmac(), &salted);
        let client = Zeroizing::new(hmac::sign(&salted, b"Client Key").as_ref().to_vec());
        let server = hmac::Key::new(hash.hmac(), hmac::sign(&salted, b"Server Key").as_ref());
        Self { client, server }
    }

    /// The client's proof, and the signature that the server owes.
    fn sign(&self, hash: Hash, message: &[u8]) -> (Zeroizing<Vec<u8>>, hmac::Tag) {
        let stored = digest::digest(hash.digest(), &self.client);
        let signature = hmac::sign(&hmac::Key::new(hash.hmac(), stored.as_ref()), message);
        let proof = self.client.iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect();
        (Zeroizing::new(proof), hmac::sign(&self.server, message))
    }
}

impl Hash {
    /// Bytes of a key.
    pub(super) const fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    pub(super) fn pbkdf2(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }

    pub(super) const fn hmac(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }

    pub(super) const fn digest(self) -> &'static digest::Algorithm {
        match self {
            Self::Sha256 => &digest::SHA256,
            Self::Sha512 => &digest::SHA512,
        }
    }
}

/// `r=…,s=…,i=…`, whose nonce begins with ours and goes on.
fn challenge<'a>(answer: &'a str, ours: &str) -> Result<(&'a str, Vec<u8>, NonZeroU32), SaslError> {
    if let Some(error) = answer.strip_prefix("e=") {
        return Err(SaslError(said(error)));
    }
    let mut parts = answer.splitn(4, ',');
    let mut part = |key: &str| parts.next().and_then(|part| part.strip_prefix(key));
    let nonce = part("r=").ok_or_else(|| wrong("a SCRAM challenge without a nonce"))?;
    if !nonce.starts_with(ours) || nonce.len() == ours.len() {
        return Err(wrong("a SCRAM challenge whose nonce is not ours continued"));
    }
    let salt = part("s=").and_then(|salt| STANDARD.decode(salt).ok());
    let salt = salt.filter(|salt| !salt.is_empty()).ok_or_else(|| wrong("a SCRAM challenge without a usable salt"))?;
    let iterations = part("i=").and_then(|count| count.parse::<u32>().ok());
    let iterations = iterations.ok_or_else(|| wrong("a SCRAM challenge without an iteration count"))?;
    match NonZeroU32::new(iterations) {
        Some(count) if ITERATIONS.contains(&iterations) => Ok((nonce, salt, count)),
        _ => Err(SaslError(format!(
            "a SCRAM challenge of {iterations} iterations, outside {} to {}",
            ITERATIONS.start(),
            ITERATIONS.end()
        ))),
    }
}

/// `v=…`, the signature that only someone who knows the password can make; or `e=…`.
fn proved(answer: &str, expected: &hmac::Tag) -> Result<Step, SaslError> {
    if let Some(error) = answer.strip_prefix("e=") {
        return Err(SaslError(said(error)));
    }
    let signature = answer.strip_prefix("v=").and_then(|rest| STANDARD.decode(rest.split(',').next()?).ok());
    let signature = signature.ok_or_else(|| wrong("a SCRAM answer without a server signature"))?;
    constant_time::verify_slices_are_equal(&signature, expected.as_ref())
        .map(|()| Step::Proved)
        .map_err(|_| wrong("the broker's SCRAM signature is wrong: it does not know the password"))
}

/// SASLprep leaves printable ASCII as it is. What it would do to other characters differs between brokers, so they are refused.
fn prepared(what: &str, text: &str) -> Result<(), SaslError> {
    if text.bytes().all(|b| (0x20..0x7f).contains(&b)) && !text.is_empty() {
        return Ok(());
    }
    Err(SaslError(format!("the {what} must be of printable ASCII characters, and not empty, for SCRAM")))
}

/// Arbitrary bytes as challenge and as last answer; for fuzzing. Panics never.
pub(super) fn fuzz(answer: &[u8]) {
    let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"key"), b"message");
    if let Ok(text) = std::str::from_utf8(answer) {
        assert!(!matches!(proved(text, &expected), Ok(Step::Send(..))));
        if let Ok((nonce, salt, iterations)) = challenge(text, "ours") {
            assert!(nonce.starts_with("ours") && !salt.is_empty() && ITERATIONS.contains(&iterations.get()));
        }
    }
}

fn wrong(what: &str) -> SaslError {
    SaslError(what.to_owned())
}

/// The server's word for its refusal, cut to a length fit for a log.
fn said(error: &str) -> String {
    let shown: String = error.chars().filter(|c| !c.is_control()).take(200).collect();
    format!("the broker answered `{shown}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn send(scram: Scram, answer: &str) -> Result<(String, Scram), SaslError> {
        match scram.next(answer.as_bytes()).await? {
            Step::Send(message, then) => Ok((String::from_utf8(message).expect("ASCII"), then)),
            Step::Proved => panic!("proved without a proof"),
        }
    }

    fn user(hash: Hash, nonce: &str) -> Scram {
        Scram::with_nonce(hash, "user", "pencil", nonce.to_owned()).expect("usable credentials")
    }

    /// RFC 7677 section 3.
    #[tokio::test]
    async fn speaks_the_conversation_of_rfc_7677() {
        let scram = user(Hash::Sha256, "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (message, then) = send(scram, challenge).await.expect("an honest challenge");
        assert_eq!(
            message,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let proof = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert!(matches!(then.next(proof).await, Ok(Step::Proved)));
    }

    /// The same conversation with SHA-512, computed with Python's hashlib and hmac.
    #[tokio::test]
    async fn speaks_sha_512() {
        let scram = user(Hash::Sha512, "rOprNGfwEbeRWgbNEkqO");
        let challenge = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (message, then) = send(scram, challenge).await.expect("an honest challenge");
        assert_eq!(message.rsplit_once(",p=").map(|(_, proof)| proof), Some(PROOF_512));
        assert!(matches!(then.next(SERVER_512.as_bytes()).await, Ok(Step::Proved)));
    }

    #[tokio::test]
    async fn a_server_that_does_not_know_the_password_is_found_out() {
        let scram = user(Hash::Sha256, "abc");
        let (_, then) = send(scram, "r=abcdef,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").await.expect("an honest challenge");
        let error =
            then.next(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").await.err().expect("a wrong signature");
        assert_eq!(error.to_string(), "the broker's SCRAM signature is wrong: it does not know the password");
    }

    #[tokio::test]
    async fn hostile_challenges_are_refused_before_any_work() {
        for (answer, why) in [
            ("r=abcdef,s=W22ZaJ0S,i=4095", "a SCRAM challenge of 4095 iterations, outside 4096 to 1000000"),
            ("r=abcdef,s=W22ZaJ0S,i=1000001", "a SCRAM challenge of 1000001 iterations, outside 4096 to 1000000"),
            ("r=abcdef,s=W22ZaJ0S,i=99999999999", "a SCRAM challenge without an iteration count"),
            ("r=abcdef,s=,i=4096", "a SCRAM challenge without a usable salt"),
            ("r=abcdef,s=!,i=4096", "a SCRAM challenge without a usable salt"),
            ("r=abc,s=W22ZaJ0S,i=4096", "a SCRAM challenge whose nonce is not ours continued"),
            ("r=xyz,s=W22ZaJ0S,i=4096", "a SCRAM challenge whose nonce is not ours continued"),
            ("", "a SCRAM challenge without a nonce"),
            ("e=unknown-user", "the broker answered `unknown-user`"),
        ] {
            let error = user(Hash::Sha256, "abc").next(answer.as_bytes()).await.err().expect(answer);
            assert_eq!(error.to_string(), why, "{answer}");
        }
        assert!(user(Hash::Sha256, "abc").next(&[b'r'; 5000]).await.is_err());
        assert!(user(Hash::Sha256, "abc").next(&[0xff]).await.is_err());
    }

    #[test]
    fn names_are_escaped_and_texts_beyond_ascii_refused() {
        let scram = Scram::with_nonce(Hash::Sha256, "a=b,c", "x", "n".to_owned()).expect("usable credentials");
        assert_eq!(scram.first(), b"n,,n=a=3Db=2Cc,r=n");
        for password in ["schlüssel", "", "a\tb"] {
            assert!(Scram::with_nonce(Hash::Sha256, "user", password, "n".to_owned()).is_err());
        }
    }

    const PROOF_512: &str = "gMGXRcevScNtxZ6/8lQYpGtnsNAc3mGcmNomv+xnoOMw+3R2xNJdMNnzMlTN8PPC6wdp6dybEmDYXYTxwnYPJQ==";
    const SERVER_512: &str =
        "v=ZQnYEgWQMFmmsM8aQMF0nDDCy/AgCzkwk8CmMZYcMg0vSVlKDanekLtifDSeVGT4+5ZxXnJq199RVG2rR7N7Zw==";
}
