//! ApiVersions responses, versions 0 to 5, and the form of version 0 that error 35 has in every version.

use super::super::api;
use super::super::primitives::{Cursor, Malformed};

/// UNSUPPORTED_VERSION: the broker does not know the version asked for and answers in that of version 0.
pub const UNSUPPORTED_VERSION: i16 = 35;

/// One API of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its key, known or not.
    pub api_key: i16,
    /// Lowest version offered.
    pub min: i16,
    /// Highest version offered.
    pub max: i16,
    /// Tagged fields, as they stood.
    pub after: &'a [u8],
}

/// The list of a response, read one by one.
#[derive(Debug, Clone)]
pub struct Entries<'a> {
    /// Bytes before the list's count: the error code.
    pub before: &'a [u8],
    /// APIs announced; `None` for a null list.
    pub count: Option<usize>,
    /// Whether this response has compact arrays and tagged fields.
    pub flexible: bool,
    left: usize,
    cursor: Cursor<'a>,
}

/// The APIs in what follows the correlation id of a response to a request of `version`.
///
/// # Errors
/// [`Malformed`], each kind.
pub fn entries(body: &[u8], version: i16) -> Result<Entries<'_>, Malformed> {
    let mut cursor = Cursor::new(body);
    let error_code = cursor.i16("error code")?;
    let flexible = error_code != UNSUPPORTED_VERSION && api::is_flexible(api::API_VERSIONS, version);
    let before = cursor.since(0);
    let count = if error_code == UNSUPPORTED_VERSION && cursor.rest().is_empty() {
        None // Brokers before 2.4 sent the error alone.
    } else {
        cursor.count(flexible, "APIs")?
    };
    Ok(Entries { before, count, flexible, left: count.unwrap_or(0), cursor })
}

impl<'a> Entries<'a> {
    /// The next API; `None` after the last.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn next_entry(&mut self) -> Result<Option<Entry<'a>>, Malformed> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        let api_key = self.cursor.i16("API key")?;
        let min = self.cursor.i16("lowest version")?;
        let max = self.cursor.i16("highest version")?;
        let start = self.cursor.position();
        self.cursor.skip_tags(self.flexible)?;
        Ok(Some(Entry { api_key, min, max, after: self.cursor.since(start) }))
    }

    /// What follows the APIs read so far.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.cursor.rest()
    }
}
