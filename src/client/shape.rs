//! Walks an answer against its shape before anybody decodes it.
//!
//! The kafka-protocol crate allocates by the counts it reads: nine hostile bytes end the process. A walked body has no array with more
//! items than its bytes can hold, no known tagged field whose size lies, and nothing after its end, so that what the crate allocates is at most a
//! small multiple of what was received. Walking allocates nothing.

use kafka_protocol::messages::ApiKey;

use super::primitives::{Malformed, Reader};

/// One answer: the versions spoken, and its fields in order.
#[derive(Debug)]
pub(super) struct Shape {
    pub(super) api: ApiKey,
    /// Lowest and highest version spoken.
    pub(super) versions: (i16, i16),
    /// First version with compact lengths and tagged fields.
    pub(super) flexible: i16,
    /// First version whose first field is `throttle_time_ms`.
    pub(super) throttle: Option<i16>,
    pub(super) fields: &'static [Field],
}

/// One field and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    kind: Kind,
    since: i16,
    until: i16,
    tag: Option<u32>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// So many bytes.
    Fixed(usize),
    /// A string, perhaps null.
    Text,
    /// A byte string, perhaps null.
    Blob,
    /// An array of structures.
    List(&'static [Field]),
    /// An array of so many bytes an item.
    Many(usize),
    /// An array of strings.
    Texts,
}

pub(super) const fn fixed(n: usize) -> Field {
    Field::new(Kind::Fixed(n))
}

pub(super) const fn text() -> Field {
    Field::new(Kind::Text)
}

pub(super) const fn blob() -> Field {
    Field::new(Kind::Blob)
}

pub(super) const fn list(of: &'static [Field]) -> Field {
    Field::new(Kind::List(of))
}

pub(super) const fn many(n: usize) -> Field {
    Field::new(Kind::Many(n))
}

pub(super) const fn texts() -> Field {
    Field::new(Kind::Texts)
}

impl Field {
    const fn new(kind: Kind) -> Self {
        Self { kind, since: 0, until: i16::MAX, tag: None }
    }

    pub(super) const fn since(mut self, version: i16) -> Self {
        self.since = version;
        self
    }

    pub(super) const fn until(mut self, version: i16) -> Self {
        self.until = version;
        self
    }

    pub(super) const fn tagged(mut self, tag: u32) -> Self {
        self.tag = Some(tag);
        self
    }

    fn is_in(&self, version: i16) -> bool {
        (self.since..=self.until).contains(&version)
    }

    fn least(&self, flexible: bool) -> usize {
        match self.kind {
            Kind::Fixed(n) => n,
            Kind::Text => {
                if flexible {
                    1
                } else {
                    2
                }
            }
            Kind::Blob | Kind::Many(_) | Kind::Texts | Kind::List(_) if !flexible => 4,
            Kind::Blob | Kind::Many(_) | Kind::Texts | Kind::List(_) => 1,
        }
    }

    fn walk(&self, reader: &mut Reader<'_>, version: i16, flexible: bool) -> Result<(), Malformed> {
        match self.kind {
            Kind::Fixed(n) => reader.take(n).map(drop),
            Kind::Text => reader.skip_text(flexible),
            Kind::Blob => reader.blob(flexible).map(drop),
            Kind::Many(n) => {
                let count = reader.count(flexible, n)?;
                reader.take(count * n).map(drop)
            }
            Kind::Texts => {
                let count = reader.count(flexible, if flexible { 1 } else { 2 })?;
                (0..count).try_for_each(|_| reader.skip_text(flexible))
            }
            Kind::List(fields) => {
                let count = reader.count(flexible, least(fields, version, flexible))?;
                (0..count).try_for_each(|_| walk_fields(fields, reader, version, flexible))
            }
        }
    }
}

/// The fewest bytes of one structure.
fn least(fields: &[Field], version: i16, flexible: bool) -> usize {
    let untagged = fields.iter().filter(|field| field.tag.is_none() && field.is_in(version));
    untagged.map(|field| field.least(flexible)).sum::<usize>() + usize::from(flexible)
}

fn walk_fields(fields: &[Field], reader: &mut Reader<'_>, version: i16, flexible: bool) -> Result<(), Malformed> {
    for field in fields.iter().filter(|field| field.tag.is_none() && field.is_in(version)) {
        field.walk(reader, version, flexible)?;
    }
    if !flexible {
        return Ok(());
    }
    reader.tags(|tag, inside| match fields.iter().find(|field| field.tag == Some(tag) && field.is_in(version)) {
        Some(field) => field.walk(inside, version, flexible).map(|()| true),
        None => Ok(false),
    })
}

impl Shape {
    /// Whether `body` (after the response header) is an answer of this shape, whole and with nothing after it.
    pub(super) fn check(&self, version: i16, body: &[u8]) -> Result<(), Malformed> {
        let mut reader = Reader::new(body);
        walk_fields(self.fields, &mut reader, version, version >= self.flexible)?;
        reader.end()
    }
}
