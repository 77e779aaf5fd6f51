//! The shared secret: making good ones, and refusing those that are published or can be guessed.
//!
//! A noise tunnel is as strong as its secret: whoever knows it is a peer. The estimate here is deliberately low for anything
//! that looks like words, repetition or a keyboard; what [`generate`] makes has 256 bits.

use aws_lc_rs::rand;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::config::Secret;

/// Least strength of a secret that is accepted, in bits.
pub const LEAST_BITS: u32 = 128;

/// Secrets that anyone can read somewhere, in lower case: gotunnel's default, our own template and examples, the usual ones.
const PUBLISHED: [&str; 14] = [
    "the answer to life, the universe and everything",
    "correct horse battery staple",
    "changeme",
    "change-me",
    "change_me",
    "replace-me",
    "replaceme",
    "secret",
    "shared_secret",
    "sharedsecret",
    "shared-secret",
    "password",
    "your-secret",
    "linkspan",
];

/// Pieces that guessers try first; each counts as one choice among a few hundred.
const COMMON: [&str; 22] = [
    "password",
    "passwort",
    "secret",
    "changeme",
    "linkspan",
    "kafka",
    "tunnel",
    "admin",
    "letmein",
    "qwerty",
    "welcome",
    "orange",
    "grape",
    "source",
    "destination",
    "cluster",
    "replica",
    "confluent",
    "asdfgh",
    "zxcvbn",
    "shared",
    "master",
];
/// What one such piece is worth, in bits.
const COMMON_BITS: f64 = 8.0;
/// What one letter of natural language is worth, in bits: a word of five letters is one of a few thousand.
const LETTER_BITS: f64 = 2.5;
/// How unlikely structure must be in a random text before it is held against it, in bits.
const SURPRISE: f64 = 16.0;

/// Why a secret is refused. The text ends with the command that makes a good one, and never holds the secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WeakSecret {
    /// Empty or nothing but blanks.
    #[error("the shared secret is missing; make one with: linkspan secret new")]
    Missing,
    /// It stands in documentation, in a template, or is another program's default.
    #[error("the shared secret is a published one, which anybody may know; make one with: linkspan secret new")]
    Published,
    /// It can be guessed.
    #[error(
        "the shared secret has about {bits} bits of strength, needed are {LEAST_BITS}; make one with: linkspan secret new"
    )]
    Guessable {
        /// The estimate, in bits.
        bits: u32,
    },
}

/// Makes a secret of 256 random bits, as 43 characters of base64url.
///
/// # Panics
/// When the system gives no random numbers: nothing that needs a secret could go on.
#[must_use]
pub fn generate() -> Secret {
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut *bytes).expect("the system gives random numbers");
    Secret::new(URL_SAFE_NO_PAD.encode(*bytes))
}

/// Refuses a secret that is missing, published, or below [`LEAST_BITS`] by estimate.
///
/// # Errors
/// [`WeakSecret`], which says which and what to do.
pub fn check_strength(secret: &Secret) -> Result<(), WeakSecret> {
    let text = secret.expose().trim();
    if text.is_empty() {
        return Err(WeakSecret::Missing);
    }
    let lower = Zeroizing::new(text.to_lowercase());
    let bare = lower.trim_matches(|c: char| "<>[]{}()\"'`$. ".contains(c));
    // Placeholders of our own files name the command whose output belongs there.
    let placeholder = lower.split(|c: char| !c.is_alphanumeric()).collect::<String>().contains("linkspansecretnew");
    if placeholder || PUBLISHED.contains(&bare) {
        return Err(WeakSecret::Published);
    }
    let bits = estimate(text);
    if bits < LEAST_BITS {
        return Err(WeakSecret::Guessable { bits });
    }
    Ok(())
}

/// Strength in bits, rounded down: the length times what a character is worth in its alphabet, less what has structure.
#[must_use]
pub fn estimate(text: &str) -> u32 {
    let chars = Zeroizing::new(text.chars().collect::<Vec<_>>());
    if chars.is_empty() {
        return 0;
    }
    let bits = if is_uuid(&chars) { 122.0 } else { by_structure(&chars).min(by_words(&chars)) };
    // A hair above, so that 32 hex digits are 128 and not 127.999.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is a small positive number")]
    let whole = (bits + 1e-9).clamp(0.0, 1e6) as u32;
    whole
}

/// What one character is worth where each is drawn from the smallest usual alphabet that holds all of them.
fn bits_per_char(chars: &[char]) -> f64 {
    let has = |class: fn(&char) -> bool| chars.iter().any(class);
    let (lower, upper) = (has(char::is_ascii_lowercase), has(char::is_ascii_uppercase));
    let hex = chars.iter().all(|c| c.is_ascii_hexdigit()) && !(lower && upper);
    let alphabet: f64 = if hex {
        if lower || upper { 16.0 } else { 10.0 }
    } else {
        let symbols = if chars.iter().all(|c| c.is_ascii_alphanumeric()) {
            0.0
        } else if chars.iter().all(|c| c.is_ascii_alphanumeric() || "+/-_=".contains(*c)) {
            2.0
        } else {
            33.0
        };
        let part = |there, size| if there { size } else { 0.0 };
        // One in fifty random texts of 22 letters and digits has no digit.
        let digits = has(char::is_ascii_digit) || (lower && upper);
        symbols + part(lower, 26.0) + part(upper, 26.0) + part(digits, 10.0)
    };
    let distinct = chars.iter().collect::<std::collections::BTreeSet<_>>().len();
    // Few different characters in a long text: they are the alphabet.
    if chars.len() >= 4 * distinct { (distinct as f64).log2() } else { alphabet.log2() }
}

/// Charges runs, sequences and repeated pieces for what it takes to name them, where chance does not make them.
fn by_structure(chars: &[char]) -> f64 {
    let worth = bits_per_char(chars);
    let name = 2.0 * (chars.len() as f64).log2();
    let folded: Vec<char> = chars.iter().map(|c| unleet(*c)).collect();
    let (mut at, mut bits) = (0, 0.0);
    while at < chars.len() {
        let repeated = longest(|len| {
            (0..at).any(|from| (0..len).all(|i| folded.get(at + i).is_some_and(|c| *c == folded[from + i])))
        });
        let sequence = longest(|len| is_sequence(&chars[at..], len));
        let common = COMMON
            .iter()
            .filter(|word| word.chars().enumerate().all(|(i, c)| folded.get(at + i) == Some(&unleet(c))))
            .map(|word| word.len())
            .max();
        let structured = repeated.max(sequence);
        if let Some(len) = common.filter(|len| *len >= structured) {
            bits += COMMON_BITS.min(worth * len as f64);
            at += len;
        } else if structured > 1 && structured as f64 * worth > SURPRISE + name {
            bits += name;
            at += structured;
        } else {
            bits += worth;
            at += 1;
        }
    }
    bits
}

/// The largest length for which `holds`, growing from one; it holds for all shorter ones too.
fn longest(holds: impl Fn(usize) -> bool) -> usize {
    let mut len = 0;
    while len < 256 && holds(len + 1) {
        len += 1;
    }
    len
}

/// Whether the first `len` characters go up or down by one, or stay: `abcd`, `4321`, `aaaa`.
fn is_sequence(chars: &[char], len: usize) -> bool {
    let Some(chars) = chars.get(..len) else { return false };
    let step = |pair: &[char]| i64::from(u32::from(pair[1])) - i64::from(u32::from(pair[0]));
    let Some(first) = chars.windows(2).next().map(step) else { return true };
    first.abs() <= 1 && chars.windows(2).all(|pair| step(pair) == first)
}

/// Charges a text that is mostly words as language.
fn by_words(chars: &[char]) -> f64 {
    let worth = bits_per_char(chars);
    let letters_from = |start: usize| {
        let same = match chars.get(start + 1) {
            Some(c) if c.is_ascii_uppercase() => char::is_ascii_uppercase,
            _ => char::is_ascii_lowercase,
        };
        1 + chars[start + 1..].iter().take_while(|c| same(c)).count()
    };
    let (mut in_words, mut start) = (0, 0);
    while start < chars.len() {
        // A word: letters of one case, the first one of either; short ones only where they stand alone.
        let len = if chars[start].is_ascii_alphabetic() { letters_from(start) } else { 1 };
        let word = &chars[start..start + len];
        let alone = |c: Option<&char>| c.is_none_or(|c| !c.is_alphanumeric());
        let stands_alone = alone(chars[..start].last()) && alone(chars.get(start + len));
        if is_pronounceable(word) && (stands_alone || len >= 4) {
            in_words += len;
        }
        start += len;
    }
    // Chance makes such words, too, but hardly three quarters of a text.
    let alphanumeric = chars.iter().filter(|c| c.is_alphanumeric()).count();
    if in_words * 4 < alphanumeric * 3 || in_words == 0 {
        return f64::INFINITY;
    }
    in_words as f64 * LETTER_BITS + (chars.len() - in_words) as f64 * worth.min(4.0)
}

/// Letters with the vowels of a word: enough of them, and never more than three other letters between.
fn is_pronounceable(word: &[char]) -> bool {
    let vowel = |c: &char| "aeiouyAEIOUY".contains(*c);
    let vowels = word.iter().filter(|c| vowel(c)).count();
    word.iter().all(char::is_ascii_alphabetic)
        && vowels * 5 >= word.len()
        && (word.len() < 3 || vowels < word.len())
        && word.split(vowel).all(|between| between.len() <= 3)
}

/// Undoes the usual replacements of letters, and case.
fn unleet(c: char) -> char {
    match c.to_ascii_lowercase() {
        '@' | '4' => 'a',
        '0' => 'o',
        '1' | '!' => 'i',
        '3' => 'e',
        '$' | '5' => 's',
        '7' => 't',
        other => other,
    }
}

/// 8-4-4-4-12 hex digits: 122 bits at best, and not made to be secret.
fn is_uuid(chars: &[char]) -> bool {
    chars.len() == 36
        && chars
            .iter()
            .enumerate()
            .all(|(i, c)| if [8, 13, 18, 23].contains(&i) { *c == '-' } else { c.is_ascii_hexdigit() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), WeakSecret> {
        check_strength(&Secret::new(text.to_owned()))
    }

    #[test]
    fn what_it_makes_is_strong_and_never_the_same() {
        let made: Vec<_> = (0..500).map(|_| generate()).collect();
        for secret in &made {
            assert_eq!(secret.expose().len(), 43);
            assert_eq!(check_strength(secret), Ok(()), "{}", secret.expose());
        }
        assert_ne!(made[0], made[1]);
    }

    #[test]
    fn random_texts_of_128_bits_pass() {
        for text in [
            "9f86d081884c7d659a2feaa0c55ad015",
            "9F86D081884C7D659A2FEAA0C55AD015",
            "kX9vQ2mT7bLpR4wZ8nYc3H",
            "f3Zq-8K_xT1mWvB0nR6yLd",
            "mJ3vT8qXz1LwK9bNc5RyHg==",
            "4V#t9k!Qz2@pLx7&Wm5^Rb",
        ] {
            assert_eq!(check(text), Ok(()), "{text} has {}", estimate(text));
        }
        // And so do all but one in a thousand, of those that are only just strong enough; always the same 4,000.
        let mut refused = Vec::new();
        for i in 0..2_000_u32 {
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &i.to_be_bytes());
            let bytes = &digest.as_ref()[..16];
            let hex = bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
            refused.extend([hex, URL_SAFE_NO_PAD.encode(bytes)].into_iter().filter(|text| check(text).is_err()));
        }
        assert!(refused.len() <= 4, "{refused:?}");
    }

    #[test]
    fn published_ones_are_named_as_such() {
        for text in [
            "the answer to life, the universe and everything",
            "The Answer to Life, the Universe and Everything",
            "changeme",
            "<change-me>",
            "secret",
            "Password",
            "correct horse battery staple",
            " replace-me ",
            "replace-with-output-of-linkspan-secret-new",
            "<run: linkspan secret new>",
        ] {
            assert_eq!(check(text), Err(WeakSecret::Published), "{text}");
        }
    }

    #[test]
    fn guessable_ones_are_refused() {
        for text in [
            "orange grape tunnel secret",
            "correcthorsebatterystaplemonkey",
            "Correct-Horse-Battery-Staple-Monkey-1",
            "my dog has very long brown ears and a tail",
            "P@ssw0rdP@ssw0rdP@ssw0rdP@ssw0rd",
            "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
            "abababababababababababababababababababababababababab",
            "0123456789abcdef0123456789abcdef",
            "abcdefghijklmnopqrstuvwxyz0123456789",
            "12345678901234567890123456789012345678",
            "00000000000000000000000000000000",
            "9f86d081884c7d659a2feaa0c55ad01",
            "kX9vQ2mT7bLpR4wZ8nYc",
            "123e4567-e89b-42d3-a456-426614174000",
            "qwertyuiopasdfghjklzxcvbnm",
            "a",
        ] {
            assert!(
                matches!(check(text), Err(WeakSecret::Guessable { bits }) if bits < 128),
                "{text}: {}",
                estimate(text)
            );
        }
    }

    #[test]
    fn a_missing_one_is_refused_and_each_message_ends_with_the_remedy() {
        for text in ["", " ", "\n"] {
            assert_eq!(check(text), Err(WeakSecret::Missing));
        }
        for error in [WeakSecret::Missing, WeakSecret::Published, WeakSecret::Guessable { bits: 40 }] {
            assert!(error.to_string().ends_with("linkspan secret new"), "{error}");
        }
    }
}
