//! Node endpoints at the end of a response: in tag 0 (Produce, Fetch) or in an array (ShareFetch, ShareAcknowledge).

use super::super::primitives::{Cursor, Malformed};
use super::{Layout, NodeList};

/// The tag that holds node endpoints in Produce and Fetch responses.
pub const ENDPOINTS_TAG: u32 = 0;

/// Endpoints have this form wherever they stand.
pub const LAYOUT: Layout = Layout::Node { flexible: true, rack: true };

/// A section of tagged fields at the end of a body.
#[derive(Debug, Clone)]
pub struct TagSection<'a> {
    /// Tagged fields announced.
    pub count: u32,
    left: u32,
    cursor: Cursor<'a>,
}

impl<'a> TagSection<'a> {
    /// Reads the section's count.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut cursor = Cursor::new(bytes);
        let count = cursor.tag_count()?;
        Ok(Self { count, left: count, cursor })
    }

    /// The next tagged field; `None` after the last.
    ///
    /// # Errors
    /// [`Malformed`], each kind.
    pub fn next_field(&mut self) -> Result<Option<(u32, &'a [u8])>, Malformed> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.cursor.tagged().map(Some)
    }

    /// Bytes behind the fields read so far.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.cursor.rest()
    }
}

/// The list of endpoints that begins `bytes`: the payload of the tag, or the array.
///
/// # Errors
/// [`Malformed`], each kind.
pub fn list(bytes: &[u8]) -> Result<NodeList<'_>, Malformed> {
    NodeList::read(Cursor::new(bytes), LAYOUT)
}
