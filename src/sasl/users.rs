//! Who may use the proxy: a file of names with keys from which no password can be read (RFC 5802 section 3).
//!
//! One user a line, in the form that PostgreSQL also keeps: `NAME:SCRAM-SHA-256$ITERATIONS:SALT$STOREDKEY:SERVERKEY`, the last three in
//! base64; `SCRAM-SHA-512` likewise. A name may have a line for each. Empty lines and those that begin with `#` are passed over.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::sync::Mutex;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::scram::{Hash, ITERATIONS};

/// Iterations of new entries: each guess at a stolen file costs an attacker so many hashes, and a client as many at each login.
pub const NEW_ITERATIONS: u32 = 16_384;

/// Bytes of a salt.
const SALT: usize = 24;

/// Names that have proved a password by PLAIN are remembered, so that a crowd that comes back costs no derivation each.
const MOST_REMEMBERED: usize = 4_096;

/// Why a file of users cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct UsersError {
    /// Which line, from 1.
    pub line: usize,
    /// What is wrong with it; never what stands in it.
    pub why: &'static str,
}

/// All users.
pub struct Users {
    entries: BTreeMap<String, Vec<Entry>>,
    /// Makes the salts of users that there are none of, and the fingerprints of passwords that were right.
    secret: hmac::Key,
    proved: Mutex<BTreeMap<String, hmac::Tag>>,
}

/// One user's keys for one hash.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) hash: Hash,
    pub(super) iterations: NonZeroU32,
    pub(super) salt: Vec<u8>,
    pub(super) stored_key: Vec<u8>,
    pub(super) server_key: Vec<u8>,
}

impl Users {
    /// Reads a file's text.
    ///
    /// # Errors
    /// [`UsersError`], naming the first line that is none; or a system without randomness, as line 0.
    pub fn parse(text: &str) -> Result<Self, UsersError> {
        let mut entries: BTreeMap<String, Vec<Entry>> = BTreeMap::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let wrong = |why| UsersError { line: at + 1, why };
            let (name, keys) =
                line.split_once(':').ok_or_else(|| wrong("a name and its keys have a `:` between them"))?;
            let entry = Entry::parse(keys).map_err(wrong)?;
            if !is_name(name) {
                return Err(wrong("a name is of printable ASCII without `:`, 1 to 255"));
            }
            let of_name = entries.entry(name.to_owned()).or_default();
            if of_name.iter().any(|other| other.hash == entry.hash) {
                return Err(wrong("this name has keys for this hash already"));
            }
            of_name.push(entry);
        }
        let mut secret = [0; 32];
        rand::fill(&mut secret).map_err(|_| UsersError { line: 0, why: "the system gives no randomness" })?;
        Ok(Self { entries, secret: hmac::Key::new(hmac::HMAC_SHA256, &secret), proved: Mutex::default() })
    }

    /// Number of names.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nobody may log in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The keys of a name. One that there is none of gets keys that look the same and that no proof fits, so that names cannot be
    /// found out.
    pub(super) fn entry(&self, name: &str, hash: Hash) -> (Entry, bool) {
        let known = self.entries.get(name).and_then(|entries| entries.iter().find(|entry| entry.hash == hash));
        if let Some(entry) = known {
            return (entry.clone(), true);
        }
        let salt = hmac::sign(&self.secret, name.as_bytes()).as_ref()[..SALT].to_vec();
        let iterations = self.entries.values().flatten().map(|entry| entry.iterations).max();
        let iterations = iterations.or_else(|| NonZeroU32::new(NEW_ITERATIONS)).unwrap_or(NonZeroU32::MIN);
        let zeros = vec![0; hash.length()];
        (Entry { hash, iterations, salt, stored_key: zeros.clone(), server_key: zeros }, false)
    }

    /// Whether a password in the clear is that of a name.
    pub(super) fn verify(&self, name: &str, password: &str) -> bool {
        let print = hmac::sign(&self.secret, [name.as_bytes(), b"\0", password.as_bytes()].concat().as_slice());
        let remembered = |known: &BTreeMap<String, hmac::Tag>| {
            known
                .get(name)
                .is_some_and(|known| constant_time::verify_slices_are_equal(known.as_ref(), print.as_ref()).is_ok())
        };
        let lock = || self.proved.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if remembered(&lock()) {
            return true;
        }
        let first = self.entries.get(name).and_then(|entries| entries.first()).map_or(Hash::Sha256, |entry| entry.hash);
        let (entry, known) = self.entry(name, first);
        let derived = Keys::derive(entry.hash, password, &entry.salt, entry.iterations);
        let right = constant_time::verify_slices_are_equal(&derived.stored_key, &entry.stored_key).is_ok() && known;
        if right {
            let mut proved = lock();
            if proved.len() >= MOST_REMEMBERED {
                proved.clear();
            }
            proved.insert(name.to_owned(), print);
        }
        right
    }
}

impl std::fmt::Debug for Users {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Users").field("names", &self.len()).finish_non_exhaustive()
    }
}

impl Entry {
    fn parse(keys: &str) -> Result<Self, &'static str> {
        let (mechanism, rest) = keys.split_once('$').ok_or("keys begin with SCRAM-SHA-256$ or SCRAM-SHA-512$")?;
        let hash = match mechanism {
            "SCRAM-SHA-256" => Hash::Sha256,
            "SCRAM-SHA-512" => Hash::Sha512,
            _ => return Err("keys begin with SCRAM-SHA-256$ or SCRAM-SHA-512$"),
        };
        let (costs, keys) = rest.split_once('$').ok_or("iterations and salt have a `$` behind them")?;
        let (iterations, salt) = costs.split_once(':').ok_or("iterations and salt have a `:` between them")?;
        let (stored, server) = keys.split_once(':').ok_or("the two keys have a `:` between them")?;
        let iterations = iterations.parse().ok().filter(|count| ITERATIONS.contains(count)).and_then(NonZeroU32::new);
        let iterations = iterations.ok_or("iterations are a number from 4096 to 1000000")?;
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| "salt and keys are base64");
        let (salt, stored_key, server_key) = (decode(salt)?, decode(stored)?, decode(server)?);
        if salt.is_empty() || salt.len() > 1024 {
            return Err("a salt has 1 to 1024 bytes");
        }
        if stored_key.len() != hash.length() || server_key.len() != hash.length() {
            return Err("a key has as many bytes as its hash");
        }
        Ok(Self { hash, iterations, salt, stored_key, server_key })
    }
}

/// What is kept of a password.
struct Keys {
    stored_key: Vec<u8>,
    server_key: Vec<u8>,
}

impl Keys {
    fn derive(hash: Hash, password: &str, salt: &[u8], iterations: NonZeroU32) -> Self {
        let mut salted = Zeroizing::new(vec![0; hash.length()]);
        pbkdf2::derive(hash.pbkdf2(), iterations, salt, password.as_bytes(), &mut salted);
        let salted = hmac::Key::new(hash.hmac(), &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        Self {
            stored_key: digest::digest(hash.digest(), client_key.as_ref()).as_ref().to_vec(),
            server_key: hmac::sign(&salted, b"Server Key").as_ref().to_vec(),
        }
    }
}

/// The lines for a new user, one for each hash.
///
/// # Errors
/// A name or password that SCRAM cannot carry everywhere, or a system without randomness.
pub fn lines(name: &str, password: &str) -> Result<String, &'static str> {
    if !is_name(name) {
        return Err("a user's name is of printable ASCII characters without `:`, 1 to 255 of them");
    }
    if password.is_empty() || !password.bytes().all(|b| (0x20..0x7f).contains(&b)) {
        return Err(
            "the password must be of printable ASCII characters, and not empty: clients differ in what they do to others",
        );
    }
    let iterations = NonZeroU32::new(NEW_ITERATIONS).ok_or("no iterations")?;
    let mut lines = String::new();
    for (mechanism, hash) in [("SCRAM-SHA-256", Hash::Sha256), ("SCRAM-SHA-512", Hash::Sha512)] {
        let mut salt = [0; SALT];
        rand::fill(&mut salt).map_err(|_| "the system gives no randomness")?;
        let keys = Keys::derive(hash, password, &salt, iterations);
        let [salt, stored, server] =
            [&salt[..], &keys.stored_key, &keys.server_key].map(|bytes| STANDARD.encode(bytes));
        lines.push_str(&format!("{name}:{mechanism}${iterations}:{salt}${stored}:{server}\n"));
    }
    Ok(lines)
}

fn is_name(name: &str) -> bool {
    (1..=255).contains(&name.len())
        && name.bytes().all(|b| (0x21..0x7f).contains(&b) && b != b':')
        && !name.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_holds_no_password() {
        let text = format!(
            "# users\n\n{}{}",
            lines("alice", "wonder land").expect("lines"),
            lines("bob", "x").expect("lines")
        );
        assert!(!text.contains("wonder"));
        let users = Users::parse(&text).expect("users");
        assert_eq!(users.len(), 2);
        assert!(users.verify("alice", "wonder land") && users.verify("alice", "wonder land"), "also remembered");
        for (name, password) in [("alice", "wonderland"), ("alice", ""), ("bob", "wonder land"), ("carol", "x")] {
            assert!(!users.verify(name, password), "{name}");
        }
        assert_eq!(format!("{users:?}"), "Users { names: 2, .. }");
    }

    /// RFC 7677 section 3: user `user`, password `pencil`.
    #[test]
    fn keys_are_those_of_the_rfc() {
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").expect("base64");
        let keys = Keys::derive(Hash::Sha256, "pencil", &salt, NonZeroU32::new(4096).expect("not zero"));
        assert_eq!(STANDARD.encode(keys.stored_key), "WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=");
        assert_eq!(STANDARD.encode(keys.server_key), "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=");
    }

    #[test]
    fn bad_lines_are_named_without_their_content() {
        let good = lines("alice", "x").expect("lines");
        for (text, line, why) in [
            ("alice", 1, "a name and its keys have a `:` between them"),
            ("\nalice:hunter2", 2, "keys begin with SCRAM-SHA-256$ or SCRAM-SHA-512$"),
            ("alice:MD5$1:x$y:z", 1, "keys begin with SCRAM-SHA-256$ or SCRAM-SHA-512$"),
            ("alice:SCRAM-SHA-256$100:AAAA$AA==:AA==", 1, "iterations are a number from 4096 to 1000000"),
            ("alice:SCRAM-SHA-256$4096:!$AA==:AA==", 1, "salt and keys are base64"),
            ("alice:SCRAM-SHA-256$4096:AAAA$AA==:AA==", 1, "a key has as many bytes as its hash"),
            (&format!("{good}{good}"), 3, "this name has keys for this hash already"),
            (&good.replace("alice", "al ice"), 1, "a name is of printable ASCII without `:`, 1 to 255"),
        ] {
            assert_eq!(Users::parse(text).map(|_| ()), Err(UsersError { line, why }), "{text}");
        }
        assert!(lines("a:b", "x").is_err() && lines("a", "").is_err() && lines("a", "ü").is_err());
    }

    #[test]
    fn a_name_that_is_not_there_looks_like_one_that_is() {
        let users = Users::parse(&lines("alice", "x").expect("lines")).expect("users");
        let (a, known) = users.entry("mallory", Hash::Sha256);
        let (b, _) = users.entry("mallory", Hash::Sha256);
        assert!(!known && a.salt == b.salt && a.salt.len() == SALT && a.iterations.get() == NEW_ITERATIONS);
    }
}
