//! How a request becomes the answer that refuses it: one pass over its fields, each copied, passed over, or followed by one of ours.

use super::super::primitives::{Cursor, Malformed, put_count, put_text, put_uvarint};
use super::{MOST_ANSWER, RefusalError};

/// A field of a request.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// This many bytes.
    Fixed(usize),
    /// A string, null or not.
    Text,
    /// Bytes or records, null or not.
    Blob,
}

/// One step.
#[derive(Debug, Clone, Copy)]
pub(super) enum Op {
    /// A field of the request goes over.
    Copy(Kind),
    /// A field of the request is left out.
    Skip(Kind),
    /// A field of the request is kept in this slot.
    Keep(usize, Kind),
    /// What was kept last in this slot.
    Kept(usize),
    /// An array of the request becomes one of the answer; null becomes empty.
    Each(&'static [Field]),
    /// An array of the request is gone through, and is none of the answer.
    Through(&'static [Field]),
    /// An array of the answer whose elements are each [`Op::One`] within.
    Joined(&'static [Field]),
    /// One element of the array around.
    One(&'static [Field]),
    /// The tagged fields of the request end, and those of the answer are none.
    Tags,
    /// The tagged fields of the request.
    SkipTags,
    /// No tagged fields in the answer.
    NoTags,
    /// These bytes in the answer.
    Put(&'static [u8]),
    /// The error code.
    Error,
    /// This error code.
    Code(i16),
    /// Why.
    Message,
    /// The null string.
    NoText,
    /// The empty string.
    EmptyText,
    /// An empty array, or empty bytes.
    Empty,
}

/// A step, and the versions that have it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    op: Op,
    from: i16,
    to: i16,
}

pub(super) const fn all(op: Op) -> Field {
    Field { op, from: 0, to: i16::MAX }
}

pub(super) const fn since(from: i16, op: Op) -> Field {
    Field { op, from, to: i16::MAX }
}

pub(super) const fn until(to: i16, op: Op) -> Field {
    Field { op, from: 0, to }
}

/// One API.
#[derive(Debug, Clone, Copy)]
pub(super) struct Recipe {
    pub(super) key: i16,
    pub(super) from: i16,
    pub(super) to: i16,
    pub(super) code: Code,
    pub(super) fields: &'static [Field],
}

/// The error code of an API.
#[derive(Debug, Clone, Copy)]
pub(super) enum Code {
    /// This one.
    Always(i16),
    /// By the type of a resource of a cluster, kept in slot 0.
    OfResource,
    /// By whether there is a transactional id, kept in slot 0.
    OfProducer,
}

/// Slots for kept fields.
const SLOTS: usize = 2;

/// One request under way.
pub(super) struct Run<'a> {
    request: Cursor<'a>,
    version: i16,
    flexible: bool,
    message: &'a str,
    code: Code,
    kept: [&'a [u8]; SLOTS],
    /// Elements of the joined array so far.
    joined: usize,
    out: Vec<u8>,
}

impl<'a> Run<'a> {
    pub(super) const fn new(request: Cursor<'a>, version: i16, flexible: bool, message: &'a str, code: Code) -> Self {
        Self { request, version, flexible, message, code, kept: [&[]; SLOTS], joined: 0, out: Vec::new() }
    }

    /// Writes the header, with room for the length.
    pub(super) fn begin(&mut self, correlation_id: i32, header_version: i16) {
        self.out.extend_from_slice(&[0; 4]);
        self.out.extend_from_slice(&correlation_id.to_be_bytes());
        if header_version >= 1 {
            put_uvarint(&mut self.out, 0);
        }
    }

    /// The frame, whole.
    pub(super) fn framed(mut self) -> Vec<u8> {
        let length = u32::try_from(self.out.len() - 4).unwrap_or(u32::MAX);
        self.out[..4].copy_from_slice(&length.to_be_bytes());
        self.out
    }

    /// What was kept last in a slot, in the form of the wire.
    pub(super) fn kept(&self, slot: usize) -> &'a [u8] {
        self.kept[slot]
    }

    /// Takes all steps that the version has.
    pub(super) fn all(&mut self, fields: &'static [Field]) -> Result<(), RefusalError> {
        let version = self.version;
        for field in fields.iter().filter(|field| (field.from..=field.to).contains(&version)) {
            self.step(field.op)?;
        }
        if self.out.len() > MOST_ANSWER {
            return Err(RefusalError::TooLarge);
        }
        Ok(())
    }

    fn step(&mut self, op: Op) -> Result<(), RefusalError> {
        match op {
            Op::Copy(kind) => {
                let field = self.field(kind)?;
                self.out.extend_from_slice(field);
            }
            Op::Skip(kind) => {
                self.field(kind)?;
            }
            Op::Keep(slot, kind) => self.kept[slot] = self.field(kind)?,
            Op::Kept(slot) => self.out.extend_from_slice(self.kept[slot]),
            Op::Each(fields) => {
                let count = self.request.count(self.flexible, "array")?.unwrap_or(0);
                put_count(&mut self.out, self.flexible, Some(count));
                self.times(count, fields)?;
            }
            Op::Through(fields) => {
                let count = self.request.count(self.flexible, "array")?.unwrap_or(0);
                self.times(count, fields)?;
            }
            Op::Joined(fields) => self.join(fields)?,
            Op::One(fields) => {
                self.joined += 1;
                self.all(fields)?;
            }
            Op::Tags => {
                self.request.skip_tags(self.flexible)?;
                self.no_tags();
            }
            Op::SkipTags => self.request.skip_tags(self.flexible)?,
            Op::NoTags => self.no_tags(),
            Op::Put(bytes) => self.out.extend_from_slice(bytes),
            Op::Error => {
                let code = self.code.of(self.kept[0]);
                self.out.extend_from_slice(&code.to_be_bytes());
            }
            Op::Code(code) => self.out.extend_from_slice(&code.to_be_bytes()),
            Op::Message => put_text(&mut self.out, self.flexible, self.message.as_bytes()),
            Op::NoText if self.flexible => self.out.push(0),
            Op::NoText => self.out.extend_from_slice(&(-1_i16).to_be_bytes()),
            Op::EmptyText => put_text(&mut self.out, self.flexible, &[]),
            Op::Empty => put_count(&mut self.out, self.flexible, Some(0)),
        }
        Ok(())
    }

    fn times(&mut self, count: usize, fields: &'static [Field]) -> Result<(), RefusalError> {
        for _ in 0..count {
            self.all(fields)?;
        }
        Ok(())
    }

    /// The count of a joined array is known behind its elements.
    fn join(&mut self, fields: &'static [Field]) -> Result<(), RefusalError> {
        let before = std::mem::take(&mut self.out);
        self.joined = 0;
        self.all(fields)?;
        let elements = std::mem::replace(&mut self.out, before);
        put_count(&mut self.out, self.flexible, Some(self.joined));
        self.out.extend_from_slice(&elements);
        Ok(())
    }

    fn no_tags(&mut self) {
        if self.flexible {
            self.out.push(0);
        }
    }

    /// The next field of the request, in the form of the wire.
    fn field(&mut self, kind: Kind) -> Result<&'a [u8], Malformed> {
        let from = self.request.position();
        match kind {
            Kind::Fixed(bytes) => {
                self.request.take(bytes, "field")?;
            }
            Kind::Text => {
                self.request.text(self.flexible, "string")?;
            }
            Kind::Blob => {
                self.request.blob(self.flexible, "bytes")?;
            }
        }
        Ok(self.request.since(from))
    }
}

/// TOPIC_AUTHORIZATION_FAILED.
pub(super) const TOPIC: i16 = 29;
/// GROUP_AUTHORIZATION_FAILED.
pub(super) const GROUP: i16 = 30;
/// CLUSTER_AUTHORIZATION_FAILED.
pub(super) const CLUSTER: i16 = 31;
/// TRANSACTIONAL_ID_AUTHORIZATION_FAILED.
pub(super) const TRANSACTIONAL_ID: i16 = 53;
/// DELEGATION_TOKEN_AUTHORIZATION_FAILED.
pub(super) const DELEGATION_TOKEN: i16 = 65;

impl Code {
    /// The code, by what is kept in slot 0 in the form of the wire.
    const fn of(self, kept: &[u8]) -> i16 {
        match (self, kept) {
            (Self::Always(code), _) => code,
            // ConfigResource.Type: TOPIC is 2, GROUP 32; the others are the cluster's.
            (Self::OfResource, [2]) => TOPIC,
            (Self::OfResource, [32]) => GROUP,
            // The null string, compact and not.
            (Self::OfResource, _) | (Self::OfProducer, [0] | [0xff, 0xff]) => CLUSTER,
            (Self::OfProducer, _) => TRANSACTIONAL_ID,
        }
    }
}
