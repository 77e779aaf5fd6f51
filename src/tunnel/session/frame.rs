//! The frames of the session protocol: what travels inside a carrier's protected records.
//!
//! A frame is a head of four bytes and a body; all integers are little-endian and of fixed width:
//! ```text
//! +--------+-----------------+----------------- - -
//! | type 1 | body length 3   | body
//! +--------+-----------------+----------------- - -
//! ```
//! Bit 7 of the type says that a receiver which does not know the frame may skip it; any other unknown frame is a violation.
//! Offsets count bytes of one direction of one stream from zero; the end (FIN) takes one offset of its own, so that it is
//! acknowledged like a byte. Bodies are exact: bytes left over are malformed, except in HELLO, which later versions may extend.
//!
//! Rules kept here: no length of the wire is allocated before it was compared with a bound and with what is there; incomplete
//! is told apart from malformed; nothing panics.

use std::fmt;

use bytes::{Buf as _, Bytes};

use super::error::Violation;

/// Bytes of a frame's head.
pub const HEAD: usize = 4;
/// Bytes that a DATA frame has besides its payload.
pub const DATA_OVERHEAD: usize = HEAD + 17;
/// Largest payload of a DATA frame, in bytes.
pub const MAX_DATA: usize = 64 * 1024;
/// Largest body of any frame, in bytes.
pub const MAX_BODY: usize = MAX_DATA + 17;
/// Most entries in one RESUME frame.
pub const MAX_REPORTS: usize = 512;
/// Longest text for a human in a frame, in bytes.
pub const MAX_DETAIL: usize = 256;
/// Bit of the type that marks a frame as skippable.
pub const SKIPPABLE: u8 = 0x80;

/// Protocol versions that an endpoint speaks, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VersionRange {
    /// Oldest.
    pub min: u16,
    /// Newest.
    pub max: u16,
}

impl VersionRange {
    /// What this program speaks.
    pub const OURS: Self = Self { min: 1, max: 1 };

    /// The newest version in both ranges.
    #[must_use]
    pub fn common(self, other: Self) -> Option<u16> {
        let newest = self.max.min(other.max);
        (newest >= self.min.max(other.min)).then_some(newest)
    }
}

impl fmt::Display for VersionRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.min == self.max { write!(f, "{}", self.min) } else { write!(f, "{} to {}", self.min, self.max) }
    }
}

/// Which side of the session an endpoint is; the dialling side uses odd stream ids, the listening side even ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Dials carriers.
    Dialler,
    /// Listens for carriers.
    Listener,
}

/// First frame of both sides on every carrier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hello {
    /// Versions spoken.
    pub versions: VersionRange,
    /// Capability bits; none are defined yet, unknown ones are ignored.
    pub capabilities: u64,
    /// Random number of the process: changes with every start.
    pub boot: [u8; 16],
    /// The sender's side.
    pub side: Side,
    /// Bytes that a new stream may send here before it is answered.
    pub early: u32,
    /// The session the sender holds; zeros for none.
    pub session: [u8; 16],
    /// Name of the link, at most 63 bytes.
    pub link: String,
}

/// Joins a carrier to a session; dialling side only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attach {
    /// The session; zeros to begin one.
    pub session: [u8; 16],
    /// Rises with every ATTACH of a session.
    pub epoch: u64,
    /// Which of the session's carriers this is.
    pub slot: u8,
    /// Keyed proof over the carrier's binding, epoch and slot.
    pub proof: [u8; 32],
}

/// What one side holds of a stream: acknowledgement and permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The stream.
    pub sid: u64,
    /// Every offset below is held here.
    pub recv_off: u64,
    /// Bytes may be sent up to this offset.
    pub max_off: u64,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// See [`Hello`].
    Hello(Hello),
    /// See [`Attach`].
    Attach(Attach),
    /// The carrier belongs to the session now; reports follow.
    AttachOk {
        /// The session.
        session: [u8; 16],
        /// Echo of ATTACH.
        epoch: u64,
    },
    /// The carrier does not belong to a session and is closed, unless the reason invites another ATTACH.
    AttachRefused {
        /// [`super::Refusal`] as its code.
        reason: u8,
        /// For a human.
        detail: String,
    },
    /// Reports of the streams held, in one or more frames.
    Resume {
        /// Whether this is the last of them; data may flow now.
        last: bool,
        /// The reports.
        reports: Vec<Report>,
    },
    /// Opens a stream; up to the peer's `early` bytes of DATA may follow on the same carrier at once.
    Open {
        /// The stream.
        sid: u64,
        /// What the acceptor may send.
        max_off: u64,
        /// Port to dial.
        port: u16,
        /// Host to dial.
        host: String,
    },
    /// The stream is open.
    OpenOk {
        /// The stream.
        sid: u64,
        /// What the opener may send.
        max_off: u64,
    },
    /// The stream could not be opened.
    OpenErr {
        /// The stream.
        sid: u64,
        /// Kind of failure.
        code: u8,
        /// A number that belongs to the kind.
        value: u64,
        /// For a human.
        detail: String,
    },
    /// Bytes of a stream.
    Data {
        /// The stream.
        sid: u64,
        /// Offset of the first byte.
        offset: u64,
        /// Whether the direction ends behind these bytes.
        fin: bool,
        /// The bytes.
        data: Bytes,
    },
    /// Acknowledgement and permission.
    Credit(Report),
    /// Cuts a stream in both directions; repeated until GONE.
    Reset {
        /// The stream.
        sid: u64,
        /// Why; for logs.
        code: u8,
        /// Offset up to which the sender had sent.
        final_off: u64,
    },
    /// The sender holds nothing of this stream any more: it is over.
    Gone {
        /// The stream.
        sid: u64,
    },
    /// Asks for PONG.
    Ping {
        /// Number of the ping.
        seq: u64,
        /// The sender's clock, in microseconds from any start.
        ts: u64,
    },
    /// Answers PING with its own numbers.
    Pong {
        /// Number of the ping.
        seq: u64,
        /// The pinger's clock.
        ts: u64,
    },
    /// The sender takes no new streams, or ends the session.
    Goaway {
        /// Which of both.
        code: Goaway,
        /// For a human.
        detail: String,
    },
    /// The sender's data could use so many carriers. May be skipped.
    Want {
        /// How many, 1 to 16; a hint.
        carriers: u8,
    },
    /// The sender has no use for credit above `max_off` now, and keeps to it until it is given more. May be skipped.
    Return {
        /// The stream.
        sid: u64,
        /// Offset up to which it may still send.
        max_off: u64,
    },
}

/// What a GOAWAY announces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goaway {
    /// No new streams; those open are finished.
    Draining,
    /// The session is over.
    Ended,
}

const HELLO: u8 = 0x01;
const ATTACH: u8 = 0x02;
const ATTACH_OK: u8 = 0x03;
const ATTACH_REFUSED: u8 = 0x04;
const RESUME: u8 = 0x05;
const OPEN: u8 = 0x10;
const OPEN_OK: u8 = 0x11;
const OPEN_ERR: u8 = 0x12;
const DATA: u8 = 0x13;
const CREDIT: u8 = 0x14;
const RESET: u8 = 0x15;
const GONE: u8 = 0x16;
const PING: u8 = 0x20;
const PONG: u8 = 0x21;
const GOAWAY: u8 = 0x22;
const WANT: u8 = SKIPPABLE | 0x23;
const RETURN: u8 = SKIPPABLE | 0x24;

impl Frame {
    /// The frame's name in logs and errors.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Hello(_) => "HELLO",
            Self::Attach(_) => "ATTACH",
            Self::AttachOk { .. } => "ATTACH_OK",
            Self::AttachRefused { .. } => "ATTACH_REFUSED",
            Self::Resume { .. } => "RESUME",
            Self::Open { .. } => "OPEN",
            Self::OpenOk { .. } => "OPEN_OK",
            Self::OpenErr { .. } => "OPEN_ERR",
            Self::Data { .. } => "DATA",
            Self::Credit(_) => "CREDIT",
            Self::Reset { .. } => "RESET",
            Self::Gone { .. } => "GONE",
            Self::Ping { .. } => "PING",
            Self::Pong { .. } => "PONG",
            Self::Goaway { .. } => "GOAWAY",
            Self::Want { .. } => "WANT",
            Self::Return { .. } => "RETURN",
        }
    }

    /// Appends the frame to `out`. Texts beyond their bound are cut at a character; hosts and links are bounded by their makers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[0; HEAD]);
        let kind = self.encode_body(out);
        let len = u32::try_from(out.len() - start - HEAD).expect("bodies are below 2^24 bytes");
        out[start..start + HEAD].copy_from_slice(&head(kind, len));
    }

    fn encode_body(&self, out: &mut Vec<u8>) -> u8 {
        match self {
            Self::Hello(hello) => {
                out.extend_from_slice(&hello.versions.min.to_le_bytes());
                out.extend_from_slice(&hello.versions.max.to_le_bytes());
                out.extend_from_slice(&hello.capabilities.to_le_bytes());
                out.extend_from_slice(&hello.boot);
                out.push(match hello.side {
                    Side::Dialler => 0,
                    Side::Listener => 1,
                });
                out.extend_from_slice(&hello.early.to_le_bytes());
                out.extend_from_slice(&hello.session);
                put_short(out, &hello.link);
                HELLO
            }
            Self::Attach(attach) => {
                out.extend_from_slice(&attach.session);
                out.extend_from_slice(&attach.epoch.to_le_bytes());
                out.push(attach.slot);
                out.extend_from_slice(&attach.proof);
                ATTACH
            }
            Self::AttachOk { session, epoch } => {
                out.extend_from_slice(session);
                out.extend_from_slice(&epoch.to_le_bytes());
                ATTACH_OK
            }
            Self::AttachRefused { reason, detail } => {
                out.push(*reason);
                put_detail(out, detail);
                ATTACH_REFUSED
            }
            Self::Resume { last, reports } => {
                out.push(u8::from(*last));
                let count = u16::try_from(reports.len()).expect("the maker keeps to MAX_REPORTS");
                out.extend_from_slice(&count.to_le_bytes());
                for report in reports {
                    put_report(out, report);
                }
                RESUME
            }
            Self::Open { sid, max_off, port, host } => {
                out.extend_from_slice(&sid.to_le_bytes());
                out.extend_from_slice(&max_off.to_le_bytes());
                out.extend_from_slice(&port.to_le_bytes());
                put_short(out, host);
                OPEN
            }
            Self::OpenOk { sid, max_off } => {
                out.extend_from_slice(&sid.to_le_bytes());
                out.extend_from_slice(&max_off.to_le_bytes());
                OPEN_OK
            }
            Self::OpenErr { sid, code, value, detail } => {
                out.extend_from_slice(&sid.to_le_bytes());
                out.push(*code);
                out.extend_from_slice(&value.to_le_bytes());
                put_detail(out, detail);
                OPEN_ERR
            }
            Self::Data { sid, offset, fin, data } => {
                out.extend_from_slice(&sid.to_le_bytes());
                out.extend_from_slice(&offset.to_le_bytes());
                out.push(u8::from(*fin));
                out.extend_from_slice(data);
                DATA
            }
            Self::Credit(report) => {
                put_report(out, report);
                CREDIT
            }
            Self::Reset { sid, code, final_off } => {
                out.extend_from_slice(&sid.to_le_bytes());
                out.push(*code);
                out.extend_from_slice(&final_off.to_le_bytes());
                RESET
            }
            Self::Gone { sid } => {
                out.extend_from_slice(&sid.to_le_bytes());
                GONE
            }
            Self::Ping { seq, ts } | Self::Pong { seq, ts } => {
                out.extend_from_slice(&seq.to_le_bytes());
                out.extend_from_slice(&ts.to_le_bytes());
                if matches!(self, Self::Ping { .. }) { PING } else { PONG }
            }
            Self::Goaway { code, detail } => {
                out.push(match code {
                    Goaway::Draining => 0,
                    Goaway::Ended => 1,
                });
                put_detail(out, detail);
                GOAWAY
            }
            Self::Return { sid, max_off } => {
                out.extend_from_slice(&sid.to_le_bytes());
                out.extend_from_slice(&max_off.to_le_bytes());
                RETURN
            }
            Self::Want { carriers } => {
                out.push(*carriers);
                WANT
            }
        }
    }
}

/// Appends the head of a DATA frame whose payload of `len` bytes (at most [`MAX_DATA`]) follows.
pub fn encode_data_head(sid: u64, offset: u64, fin: bool, len: usize, out: &mut Vec<u8>) {
    let body = u32::try_from(len + DATA_OVERHEAD - HEAD).expect("the maker keeps to MAX_DATA");
    out.extend_from_slice(&head(DATA, body));
    out.extend_from_slice(&sid.to_le_bytes());
    out.extend_from_slice(&offset.to_le_bytes());
    out.push(u8::from(fin));
}

fn head(kind: u8, len: u32) -> [u8; HEAD] {
    let [a, b, c, _] = len.to_le_bytes();
    [kind, a, b, c]
}

fn put_report(out: &mut Vec<u8>, report: &Report) {
    out.extend_from_slice(&report.sid.to_le_bytes());
    out.extend_from_slice(&report.recv_off.to_le_bytes());
    out.extend_from_slice(&report.max_off.to_le_bytes());
}

fn put_short(out: &mut Vec<u8>, text: &str) {
    let text = cut(text, usize::from(u8::MAX));
    out.push(u8::try_from(text.len()).expect("cut above"));
    out.extend_from_slice(text.as_bytes());
}

fn put_detail(out: &mut Vec<u8>, text: &str) {
    let text = cut(text, MAX_DETAIL);
    out.extend_from_slice(&u16::try_from(text.len()).expect("cut above").to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// The longest prefix of whole characters with at most `most` bytes.
fn cut(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// What [`decode`] found at the front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A frame; it was taken from the input.
    Frame(Frame),
    /// An unknown frame that may be skipped; it was taken from the input.
    Skipped,
    /// Not a whole frame yet; nothing was taken.
    Incomplete,
}

/// Takes one frame from the front of `input`; the payload of DATA is a slice of it.
///
/// # Errors
/// [`Violation::Malformed`]; `input` is of no use any more then.
pub fn decode(input: &mut Bytes) -> Result<Decoded, Violation> {
    let Some(&[kind, a, b, c]) = input.first_chunk::<HEAD>() else {
        return Ok(Decoded::Incomplete);
    };
    let len = usize::try_from(u32::from_le_bytes([a, b, c, 0])).unwrap_or(usize::MAX);
    if len > MAX_BODY {
        return Err(Violation::Malformed { frame: kind_name(kind), what: "body longer than any frame's" });
    }
    if input.len() < HEAD + len {
        return Ok(Decoded::Incomplete);
    }
    input.advance(HEAD);
    let mut body = Body { bytes: input.split_to(len), kind };
    let frame = match body.frame()? {
        Some(frame) => frame,
        None if kind & SKIPPABLE != 0 => return Ok(Decoded::Skipped),
        None => return Err(body.malformed("unknown type")),
    };
    if !body.bytes.is_empty() && !matches!(frame, Frame::Hello(_)) {
        return Err(body.malformed("bytes left over"));
    }
    Ok(Decoded::Frame(frame))
}

/// Decodes all of `data` and checks what must hold for any input: no panic, and what decodes encodes to the same bytes.
/// A fuzz target's body; returns the number of frames.
pub fn fuzz_decode(data: &[u8]) -> usize {
    let mut input = Bytes::copy_from_slice(data);
    let mut frames = 0;
    loop {
        let before = input.clone();
        match decode(&mut input) {
            Ok(Decoded::Frame(frame)) => {
                frames += 1;
                let mut out = Vec::new();
                frame.encode(&mut out);
                let taken = before.len() - input.len();
                assert!(
                    matches!(frame, Frame::Hello(_)) || out == before[..taken],
                    "{frame:?} has two forms: {:02x?}",
                    &before[..taken]
                );
            }
            Ok(Decoded::Skipped) => {}
            Ok(Decoded::Incomplete) | Err(_) => return frames,
        }
    }
}

const fn kind_name(kind: u8) -> &'static str {
    match kind {
        HELLO => "HELLO",
        ATTACH => "ATTACH",
        ATTACH_OK => "ATTACH_OK",
        ATTACH_REFUSED => "ATTACH_REFUSED",
        RESUME => "RESUME",
        OPEN => "OPEN",
        OPEN_OK => "OPEN_OK",
        OPEN_ERR => "OPEN_ERR",
        DATA => "DATA",
        CREDIT => "CREDIT",
        RESET => "RESET",
        GONE => "GONE",
        PING => "PING",
        PONG => "PONG",
        GOAWAY => "GOAWAY",
        WANT => "WANT",
        RETURN => "RETURN",
        _ => "unknown",
    }
}

/// The body of one frame while it is read.
struct Body {
    bytes: Bytes,
    kind: u8,
}

impl Body {
    /// `None` for an unknown type.
    fn frame(&mut self) -> Result<Option<Frame>, Violation> {
        Ok(Some(match self.kind {
            HELLO => Frame::Hello(self.hello()?),
            ATTACH => Frame::Attach(Attach {
                session: self.array()?,
                epoch: self.u64()?,
                slot: self.u8()?,
                proof: self.array()?,
            }),
            ATTACH_OK => Frame::AttachOk { session: self.array()?, epoch: self.u64()? },
            ATTACH_REFUSED => Frame::AttachRefused { reason: self.u8()?, detail: self.detail()? },
            RESUME => self.resume()?,
            OPEN => Frame::Open { sid: self.u64()?, max_off: self.u64()?, port: self.u16()?, host: self.short()? },
            OPEN_OK => Frame::OpenOk { sid: self.u64()?, max_off: self.u64()? },
            OPEN_ERR => {
                Frame::OpenErr { sid: self.u64()?, code: self.u8()?, value: self.u64()?, detail: self.detail()? }
            }
            DATA => {
                let (sid, offset, fin) = (self.u64()?, self.u64()?, self.flag()?);
                Frame::Data { sid, offset, fin, data: std::mem::take(&mut self.bytes) }
            }
            CREDIT => Frame::Credit(self.report()?),
            RESET => Frame::Reset { sid: self.u64()?, code: self.u8()?, final_off: self.u64()? },
            GONE => Frame::Gone { sid: self.u64()? },
            PING => Frame::Ping { seq: self.u64()?, ts: self.u64()? },
            PONG => Frame::Pong { seq: self.u64()?, ts: self.u64()? },
            GOAWAY => Frame::Goaway {
                code: if self.flag()? { Goaway::Ended } else { Goaway::Draining },
                detail: self.detail()?,
            },
            WANT => Frame::Want { carriers: self.u8()? },
            RETURN => Frame::Return { sid: self.u64()?, max_off: self.u64()? },
            _ => return Ok(None),
        }))
    }

    fn hello(&mut self) -> Result<Hello, Violation> {
        Ok(Hello {
            versions: VersionRange { min: self.u16()?, max: self.u16()? },
            capabilities: self.u64()?,
            boot: self.array()?,
            side: if self.flag()? { Side::Listener } else { Side::Dialler },
            early: self.u32()?,
            session: self.array()?,
            link: self.short()?,
        })
    }

    fn resume(&mut self) -> Result<Frame, Violation> {
        let last = self.flag()?;
        let count = usize::from(self.u16()?);
        if count > MAX_REPORTS {
            return Err(self.malformed("more reports than allowed"));
        }
        if self.bytes.len() != count * 24 {
            return Err(self.malformed("reports do not fill the body"));
        }
        let reports = (0..count).map(|_| self.report()).collect::<Result<_, _>>()?;
        Ok(Frame::Resume { last, reports })
    }

    fn report(&mut self) -> Result<Report, Violation> {
        Ok(Report { sid: self.u64()?, recv_off: self.u64()?, max_off: self.u64()? })
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let Some(&array) = self.bytes.first_chunk::<N>() else {
            return Err(self.malformed("body too short"));
        };
        self.bytes.advance(N);
        Ok(array)
    }

    fn u8(&mut self) -> Result<u8, Violation> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Violation> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Result<u32, Violation> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Violation> {
        self.array().map(u64::from_le_bytes)
    }

    fn flag(&mut self) -> Result<bool, Violation> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(self.malformed("flag neither 0 nor 1")),
        }
    }

    fn short(&mut self) -> Result<String, Violation> {
        let len = usize::from(self.u8()?);
        self.text(len)
    }

    fn detail(&mut self) -> Result<String, Violation> {
        let len = usize::from(self.u16()?);
        if len > MAX_DETAIL {
            return Err(self.malformed("text longer than 256 bytes"));
        }
        self.text(len)
    }

    fn text(&mut self, len: usize) -> Result<String, Violation> {
        if self.bytes.len() < len {
            return Err(self.malformed("body too short"));
        }
        let text = self.bytes.split_to(len);
        std::str::from_utf8(&text).map(str::to_owned).map_err(|_| self.malformed("text is not UTF-8"))
    }

    const fn malformed(&self, what: &'static str) -> Violation {
        Violation::Malformed { frame: kind_name(self.kind), what }
    }
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
