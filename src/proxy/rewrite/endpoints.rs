//! Node endpoints at the end of a frame whose beginning is gone already: edited without changing the frame's length.
//!
//! Local addresses are mostly shorter than real ones; the difference is filled by one unknown tagged field, which every
//! reader passes (KIP-482). Where they are longer, the endpoints are left out and filled up likewise: a client then asks
//! for metadata as it did before KIP-951. No byte of a real address stays.

use super::brokers::put_node;
use super::{Fate, Mapping, Tally, fate};
use crate::kafka::primitives::{Malformed, put_count, put_padded_uvarint, put_uvarint, uvarint_len};
use crate::kafka::walk::endpoints::{ENDPOINTS_TAG, TagSection, list};

/// The section of tagged fields that ends a Produce or Fetch response. `None` when nothing changes.
pub(super) fn tagged(
    section: &[u8],
    mapping: &mut dyn Mapping,
    tally: &mut Tally,
) -> Result<Option<Vec<u8>>, Malformed> {
    let mut fields = TagSection::read(section)?;
    let mut others = Fields::default();
    let mut endpoints: Option<Vec<u8>> = None;
    let mut changed = false;
    while let Some((tag, payload)) = fields.next_field()? {
        if tag != ENDPOINTS_TAG {
            others.push(tag, payload);
            continue;
        }
        // Twice the same tag is the broker's mistake: none of them stays.
        let (rewritten, differs) =
            if endpoints.is_some() { (Vec::new(), true) } else { payload_of_tag(payload, mapping, tally) };
        changed |= differs;
        endpoints = Some(rewritten);
    }
    if !changed {
        return Ok(None);
    }
    let rest = fields.rest();
    let room = section.len() - rest.len();
    let endpoints = endpoints.unwrap_or_default();
    let mut out = Vec::with_capacity(section.len());
    if endpoints.is_empty() || !others.write(&mut out, room, Some(&endpoints)) {
        tally.hidden_frames += 1;
        out.clear();
        // A section with its endpoints taken out is shorter by a tag's worth, so the filling always has room.
        if !others.write(&mut out, room, None) {
            return Err(no_room(section.len()));
        }
    }
    out.extend_from_slice(rest);
    Ok(Some(out))
}

/// The array of endpoints and the tagged fields that end a ShareFetch or ShareAcknowledge response. `None` when nothing changes.
pub(super) fn listed(
    section: &[u8],
    mapping: &mut dyn Mapping,
    tally: &mut Tally,
) -> Result<Option<Vec<u8>>, Malformed> {
    let mut nodes = list(section)?;
    let Some(count @ 1..) = nodes.count else { return Ok(None) };
    let (mut array, mut kept) = (Vec::with_capacity(section.len()), count);
    let mut changed = false;
    while let Some(node) = nodes.next_node()? {
        match fate(mapping, tally, node.node_id, node.host, node.port) {
            Fate::Keep => put_node(&mut array, true, &node, node.host, node.port),
            Fate::Local(host, port) => {
                changed = true;
                put_node(&mut array, true, &node, host.as_bytes(), i32::from(port));
            }
            Fate::Hide => {
                changed = true;
                kept -= 1;
            }
        }
    }
    if !changed {
        return Ok(None);
    }
    let mut fields = TagSection::read(nodes.rest())?;
    let mut others = Fields::default();
    while let Some((tag, payload)) = fields.next_field()? {
        others.push(tag, payload);
    }
    let rest = fields.rest();
    let room = section.len() - rest.len();
    let mut counted = Vec::with_capacity(array.len() + 5);
    put_count(&mut counted, true, Some(kept));
    counted.extend_from_slice(&array);
    let mut out = Vec::with_capacity(section.len());
    if !others.write_behind(&mut out, room, &counted) {
        tally.hidden_frames += 1;
        out.clear();
        counted.clear();
        put_count(&mut counted, true, Some(0));
        if !others.write_behind(&mut out, room, &counted) {
            return Err(no_room(section.len()));
        }
    }
    out.extend_from_slice(rest);
    Ok(Some(out))
}

const fn no_room(at: usize) -> Malformed {
    Malformed::Short { what: "filling of the tagged fields", at, need: 1, left: 0 }
}

/// The endpoints of tag 0 with local addresses, and whether they differ; empty to leave them out.
fn payload_of_tag(payload: &[u8], mapping: &mut dyn Mapping, tally: &mut Tally) -> (Vec<u8>, bool) {
    let mut rewrite = || -> Result<(Vec<u8>, usize, bool), Malformed> {
        let mut nodes = list(payload)?;
        let (mut array, mut kept, mut changed) = (Vec::with_capacity(payload.len()), 0, false);
        while let Some(node) = nodes.next_node()? {
            match fate(mapping, tally, node.node_id, node.host, node.port) {
                Fate::Keep => {
                    kept += 1;
                    put_node(&mut array, true, &node, node.host, node.port);
                }
                Fate::Local(host, port) => {
                    kept += 1;
                    changed = true;
                    put_node(&mut array, true, &node, host.as_bytes(), i32::from(port));
                }
                Fate::Hide => changed = true,
            }
        }
        // A size that lies: some readers go by it, some by the list.
        if !nodes.rest().is_empty() {
            return Ok((Vec::new(), 0, true));
        }
        Ok((array, kept, changed))
    };
    match rewrite() {
        Ok((_, _, false)) => (payload.to_vec(), false),
        Ok((array, kept @ 1.., true)) => {
            let mut out = Vec::with_capacity(array.len() + 5);
            put_count(&mut out, true, Some(kept));
            out.extend_from_slice(&array);
            (out, true)
        }
        Ok((_, 0, true)) | Err(_) => (Vec::new(), true),
    }
}

/// Tagged fields that are kept, in order, and the tags they use.
#[derive(Debug, Default)]
struct Fields<'a> {
    fields: Vec<(u32, &'a [u8])>,
    used: u128,
    size: usize,
}

impl<'a> Fields<'a> {
    fn push(&mut self, tag: u32, payload: &'a [u8]) {
        if tag < 128 {
            self.used |= 1 << tag;
        }
        self.size += field_len(tag, payload.len());
        self.fields.push((tag, payload));
    }

    /// Writes a section of exactly `room` bytes with `endpoints` in tag 0; false when it cannot be.
    fn write(&self, out: &mut Vec<u8>, room: usize, endpoints: Option<&[u8]>) -> bool {
        let mut count = self.fields.len() as u32;
        let mut size = self.size;
        if let Some(endpoints) = endpoints {
            count += 1;
            size += field_len(ENDPOINTS_TAG, endpoints.len());
        }
        let gap = |count| room.checked_sub(uvarint_len(count) + size);
        let (filling, wider) = match (gap(count), gap(count + 1)) {
            (Some(0), _) => (None, 0),
            (_, Some(filling @ 2..)) => (Some(filling), 0),
            // One byte, or two that a longer count takes one of: a wider number does it without a field.
            (Some(wider @ 1..=3), _) => (None, wider),
            _ => return false,
        };
        let count = count + u32::from(filling.is_some());
        put_padded_uvarint(out, count, uvarint_len(count) + wider);
        if let Some(endpoints) = endpoints {
            put_field(out, ENDPOINTS_TAG, endpoints);
        }
        self.put_with_filling(out, filling)
    }

    /// Writes `first`, then a section, of exactly `room` bytes together; false when it cannot be.
    fn write_behind(&self, out: &mut Vec<u8>, room: usize, first: &[u8]) -> bool {
        let Some(room) = room.checked_sub(first.len()) else { return false };
        out.extend_from_slice(first);
        self.write(out, room, None)
    }

    /// The fields, and among them in the order of tags one of exactly `filling` bytes.
    fn put_with_filling(&self, out: &mut Vec<u8>, filling: Option<usize>) -> bool {
        let Some(filling) = filling else {
            self.fields.iter().for_each(|(tag, payload)| put_field(out, *tag, payload));
            return true;
        };
        // The highest free tag of one byte: those that Kafka gives meaning are the lowest.
        let Some(tag) = (1..128_u32).rev().find(|tag| self.used & (1 << tag) == 0) else { return false };
        let before = self.fields.partition_point(|(other, _)| *other < tag);
        self.fields[..before].iter().for_each(|(tag, payload)| put_field(out, *tag, payload));
        put_filling(out, tag, filling);
        self.fields[before..].iter().for_each(|(tag, payload)| put_field(out, *tag, payload));
        true
    }
}

const fn field_len(tag: u32, payload: usize) -> usize {
    uvarint_len(tag) + uvarint_len(payload as u32) + payload
}

fn put_field(out: &mut Vec<u8>, tag: u32, payload: &[u8]) {
    put_uvarint(out, tag);
    put_uvarint(out, payload.len() as u32);
    out.extend_from_slice(payload);
}

/// A field of zeros of exactly `total` bytes, at least two, with a tag of one byte.
fn put_filling(out: &mut Vec<u8>, tag: u32, total: usize) {
    let mut width = 1;
    while width < 5 && uvarint_len((total - 1 - width) as u32) > width {
        width += 1;
    }
    let zeros = total - 1 - width;
    put_uvarint(out, tag);
    put_padded_uvarint(out, zeros as u32, width);
    out.resize(out.len() + zeros, 0);
}

/// Edits arbitrary bytes as either kind of tail; for fuzzing. Panics never, and never changes a length.
pub(super) fn fuzz(data: &[u8], mapping: &mut dyn Mapping) {
    for edit in [tagged, listed] {
        if let Ok(Some(edited)) = edit(data, mapping, &mut Tally::default()) {
            assert_eq!(edited.len(), data.len(), "an edit keeps the length");
        }
    }
}
