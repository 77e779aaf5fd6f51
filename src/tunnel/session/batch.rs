//! What one pull gives: frames grouped into records, payloads as the buffers they lie in.

use bytes::Bytes;

use super::frame::{self, DATA_OVERHEAD, Frame, MAX_DATA};

/// A new record is begun rather than filling one's last bytes with a shorter piece of data than this.
const WORTHWHILE: usize = 4096;

/// Frames for one write, grouped into records of a bounded size. Reused from pull to pull.
#[derive(Debug)]
pub struct Batch {
    max_record: usize,
    /// Heads and control frames, one after the other.
    heads: Vec<u8>,
    parts: Vec<Part>,
    /// For each record: end in `parts`.
    records: Vec<usize>,
    /// Size of the record being filled.
    open: usize,
    bytes: usize,
}

#[derive(Debug)]
enum Part {
    Head { start: usize, end: usize },
    Payload(Bytes),
}

impl Batch {
    /// A batch whose records hold at most `max_record` bytes of plaintext.
    #[must_use]
    pub const fn new(max_record: usize) -> Self {
        Self { max_record, heads: Vec::new(), parts: Vec::new(), records: Vec::new(), open: 0, bytes: 0 }
    }

    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.parts.clear();
        self.records.clear();
        self.open = 0;
        self.bytes = 0;
    }

    /// Whether it holds nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes of all frames.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes
    }

    /// Gives the parts of each record to `each`, in order.
    ///
    /// # Errors
    /// The first of `each`.
    pub fn for_each_record<E>(&self, mut each: impl FnMut(&[&[u8]]) -> Result<(), E>) -> Result<(), E> {
        let mut slices = Vec::new();
        let mut start = 0;
        for &end in self.records.iter().chain(std::iter::once(&self.parts.len())) {
            if end > start {
                slices.clear();
                slices.extend(self.parts[start..end].iter().map(|part| match part {
                    Part::Head { start, end } => &self.heads[*start..*end],
                    Part::Payload(bytes) => &bytes[..],
                }));
                each(&slices)?;
                start = end;
            }
        }
        Ok(())
    }

    /// Largest payload of a DATA frame that fits the present record, or a new one where that is hardly more than nothing.
    pub(super) fn data_room(&self) -> usize {
        let whole = self.max_record.saturating_sub(DATA_OVERHEAD).min(MAX_DATA);
        let left = self.max_record.saturating_sub(self.open + DATA_OVERHEAD).min(MAX_DATA);
        if left >= WORTHWHILE { left } else { whole }
    }

    pub(super) fn push(&mut self, frame: &Frame) {
        let start = self.heads.len();
        frame.encode(&mut self.heads);
        let len = self.heads.len() - start;
        self.reserve(len);
        self.add_head(start);
    }

    /// Adds a DATA frame's head; its payload of `len` bytes must follow by [`Self::payload`].
    pub(super) fn push_data(&mut self, sid: u64, offset: u64, fin: bool, len: usize) {
        self.reserve(DATA_OVERHEAD + len);
        let start = self.heads.len();
        frame::encode_data_head(sid, offset, fin, len, &mut self.heads);
        self.add_head(start);
    }

    pub(super) fn payload(&mut self, bytes: Bytes) {
        self.open += bytes.len();
        self.bytes += bytes.len();
        self.parts.push(Part::Payload(bytes));
    }

    /// Begins a new record where the present one has no room for a frame of `len` bytes.
    fn reserve(&mut self, len: usize) {
        if self.open > 0 && self.open + len > self.max_record {
            self.records.push(self.parts.len());
            self.open = 0;
        }
    }

    fn add_head(&mut self, start: usize) {
        let end = self.heads.len();
        self.open += end - start;
        self.bytes += end - start;
        let in_open_record = self.records.last().is_none_or(|&begun| begun < self.parts.len());
        match self.parts.last_mut() {
            Some(Part::Head { end: last, .. }) if in_open_record && *last == start => *last = end,
            _ => self.parts.push(Part::Head { start, end }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_frame_crosses_a_record() {
        let mut batch = Batch::new(100);
        for sid in 0..9 {
            batch.push(&Frame::Gone { sid });
        }
        batch.push_data(1, 0, false, 79);
        batch.payload(Bytes::from(vec![7; 79]));
        batch.push(&Frame::Gone { sid: 9 });
        let mut sizes = Vec::new();
        batch
            .for_each_record(|parts| {
                sizes.push((parts.len(), parts.iter().map(|part| part.len()).sum::<usize>()));
                Ok::<_, ()>(())
            })
            .unwrap();
        // Eight frames of 12 bytes, the ninth, then 21 + 79, then the last.
        assert_eq!(sizes, [(1, 96), (1, 12), (2, 100), (1, 12)]);
        assert_eq!(batch.len(), 220);
    }
}
