//! Length-prefixed frames, cut as the bytes arrive: a frame is announced by its length and its body flows through unbuffered.
//!
//! The first four bytes of a frame are also where other protocols give themselves away: they are named, because "invalid
//! frame of 369296128 bytes" tells an operator nothing and "a TLS client on a plain port" tells all.

/// Largest request taken from a client, in bytes: Kafka's own `socket.request.max.bytes` default.
pub const MAX_REQUEST: u32 = 100 << 20;

/// Smallest request: API key, version and correlation id.
pub const MIN_REQUEST: u32 = 8;

/// Smallest response: a correlation id.
pub const MIN_RESPONSE: u32 = 4;

/// Largest raw SASL token (the exchange after a handshake of version 0), in bytes; Kafka's own limit is half of it.
pub const MAX_TOKEN: u32 = 1 << 20;

/// What a stream carries, which decides what lengths are possible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// From a client: 8 bytes to [`MAX_REQUEST`].
    Requests,
    /// From a broker: 4 bytes and up; a fetch may be as large as the client asked for.
    Responses,
    /// Raw SASL tokens, either way: 0 to [`MAX_TOKEN`].
    Tokens,
}

/// A protocol that is not Kafka, known by its first four bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Foreign {
    /// A TLS handshake record: `16 03`.
    TlsHello,
    /// A TLS alert record: `15 03`.
    TlsAlert,
    /// An HTTP request or response.
    Http,
    /// A PROXY protocol header, version 1 or 2.
    ProxyHeader,
    /// An SSH banner.
    Ssh,
}

impl Foreign {
    /// Recognises a protocol by the four bytes where Kafka has a length.
    #[must_use]
    pub fn recognise(first: [u8; 4]) -> Option<Self> {
        Some(match &first {
            [0x16, 0x03, ..] => Self::TlsHello,
            [0x15, 0x03, ..] => Self::TlsAlert,
            b"GET " | b"POST" | b"PUT " | b"HEAD" | b"OPTI" | b"DELE" | b"CONN" | b"PATC" | b"HTTP" | b"PRI " => {
                Self::Http
            }
            b"PROX" | [0x0d, 0x0a, 0x0d, 0x0a] => Self::ProxyHeader,
            b"SSH-" => Self::Ssh,
            _ => return None,
        })
    }

    /// A short name for logs and counters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TlsHello => "a TLS handshake",
            Self::TlsAlert => "a TLS alert",
            Self::Http => "HTTP",
            Self::ProxyHeader => "a PROXY protocol header",
            Self::Ssh => "SSH",
        }
    }
}

/// Why bytes are no frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// A client of another protocol. Remedy: a client with `security.protocol=PLAINTEXT` or `SASL_PLAINTEXT`, without a PROXY header.
    #[error("the client speaks {} where Kafka in plaintext is expected", .0.name())]
    ForeignClient(Foreign),
    /// A broker that wants TLS on a plain dial. Remedy: `[proxy] upstream tls`.
    #[error("the broker speaks TLS; set [proxy] upstream tls")]
    BrokerSpeaksTls,
    /// A server of another protocol where a broker was expected.
    #[error("the broker's port answers with {}, not with Kafka", .0.name())]
    ForeignBroker(Foreign),
    /// A negative length.
    #[error("frame of {0} bytes: a length below zero")]
    Negative(i32),
    /// Shorter than its header.
    #[error("frame of {length} bytes, at least {least} needed for its header")]
    TooShort {
        /// The announced length, in bytes.
        length: u32,
        /// The least possible, in bytes.
        least: u32,
    },
    /// Longer than allowed.
    #[error("frame of {length} bytes, at most {most} allowed")]
    TooLong {
        /// The announced length, in bytes.
        length: u32,
        /// The limit, in bytes.
        most: u32,
    },
}

/// Reads the length of a frame, or says why there is none. `first` tells that nothing came before it on this stream: a broker of
/// another protocol shows itself there alone, since later a response may well be that long.
///
/// # Errors
/// [`FrameError`], each as described there.
pub fn length(side: Side, prefix: [u8; 4], first: bool) -> Result<u32, FrameError> {
    let foreign = Foreign::recognise(prefix);
    match (side, foreign) {
        (Side::Requests, Some(foreign)) => return Err(FrameError::ForeignClient(foreign)),
        (Side::Responses, Some(Foreign::TlsHello | Foreign::TlsAlert)) if first => {
            return Err(FrameError::BrokerSpeaksTls);
        }
        (Side::Responses, Some(foreign)) if first => return Err(FrameError::ForeignBroker(foreign)),
        _ => {}
    }
    let announced = i32::from_be_bytes(prefix);
    let length = u32::try_from(announced).map_err(|_| FrameError::Negative(announced))?;
    let (least, most) = match side {
        Side::Requests => (MIN_REQUEST, MAX_REQUEST),
        Side::Responses => (MIN_RESPONSE, u32::MAX),
        Side::Tokens => (0, MAX_TOKEN),
    };
    if length < least {
        return Err(FrameError::TooShort { length, least });
    }
    if length > most {
        return Err(FrameError::TooLong { length, most });
    }
    Ok(length)
}

/// What comes next in a stream of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `taken` bytes of the input belong to a length that is not whole yet (all of the input).
    Partial {
        /// Bytes of the input.
        taken: usize,
    },
    /// A frame begins: the last `taken` bytes of its length were in the input, `length` bytes of body follow.
    Start {
        /// Bytes of the input.
        taken: usize,
        /// Bytes of body to come.
        length: u32,
    },
    /// Bytes of a body.
    Body {
        /// Bytes of the input, at least one.
        taken: usize,
        /// Whether the frame ends with them.
        last: bool,
    },
}

/// Cuts a stream into frames without holding any of it but the four bytes of a length.
///
/// ```text
/// Length ──4 bytes──▶ Body(n) ──n bytes──▶ Length      a frame of no bytes goes back to Length at once
/// ```
#[derive(Debug, Clone)]
pub struct Splitter {
    side: Side,
    prefix: [u8; 4],
    have: usize,
    left: u32,
    frames: u64,
}

impl Splitter {
    /// At the beginning of a stream.
    #[must_use]
    pub const fn new(side: Side) -> Self {
        Self { side, prefix: [0; 4], have: 0, left: 0, frames: 0 }
    }

    /// Takes the next part off `input`, which must not be empty; the caller goes on behind the bytes `taken`.
    ///
    /// # Errors
    /// [`FrameError`]; the stream is of no use afterwards.
    pub fn next(&mut self, input: &[u8]) -> Result<Part, FrameError> {
        if self.left > 0 {
            let taken = input.len().min(self.left as usize);
            self.left -= u32::try_from(taken).unwrap_or(self.left);
            return Ok(Part::Body { taken, last: self.left == 0 });
        }
        let taken = input.len().min(4 - self.have);
        self.prefix[self.have..self.have + taken].copy_from_slice(&input[..taken]);
        self.have += taken;
        if self.have < 4 {
            return Ok(Part::Partial { taken });
        }
        let length = length(self.side, self.prefix, self.frames == 0)?;
        self.have = 0;
        self.left = length;
        self.frames += 1;
        Ok(Part::Start { taken, length })
    }

    /// Whether the stream may end here: between two frames.
    #[must_use]
    pub const fn at_boundary(&self) -> bool {
        self.left == 0 && self.have == 0
    }

    /// Frames begun so far.
    #[must_use]
    pub const fn frames(&self) -> u64 {
        self.frames
    }
}

/// Runs the splitter over arbitrary bytes, both sides; for fuzzing. Panics never.
pub fn fuzz_splitter(data: &[u8]) {
    for side in [Side::Requests, Side::Responses, Side::Tokens] {
        let mut splitter = Splitter::new(side);
        let mut rest = data;
        while !rest.is_empty() {
            let Ok(Part::Partial { taken } | Part::Start { taken, .. } | Part::Body { taken, .. }) =
                splitter.next(rest)
            else {
                break;
            };
            rest = &rest[taken..];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(input: &[u8], step: usize) -> (Vec<(u32, Vec<u8>)>, bool) {
        let mut splitter = Splitter::new(Side::Requests);
        let mut frames: Vec<(u32, Vec<u8>)> = Vec::new();
        for chunk in input.chunks(step) {
            let mut rest = chunk;
            while !rest.is_empty() {
                let taken = match splitter.next(rest).expect("frames") {
                    Part::Partial { taken } => taken,
                    Part::Start { taken, length } => {
                        frames.push((length, Vec::new()));
                        taken
                    }
                    Part::Body { taken, .. } => {
                        frames.last_mut().expect("begun").1.extend_from_slice(&rest[..taken]);
                        taken
                    }
                };
                rest = &rest[taken..];
            }
        }
        (frames, splitter.at_boundary())
    }

    #[test]
    fn cuts_frames_at_every_step_of_arrival() {
        let input = b"\0\0\0\x08abcdefgh\0\0\0\x09ABCDEFGHI";
        let expected = vec![(8, b"abcdefgh".to_vec()), (9, b"ABCDEFGHI".to_vec())];
        for step in 1..=input.len() {
            assert_eq!(frames(input, step), (expected.clone(), true), "step {step}");
        }
        assert!(!frames(&input[..input.len() - 1], 3).1, "the end inside a frame is seen");
        assert!(!frames(&input[..2], 1).1, "the end inside a length is seen");
    }

    #[test]
    fn names_what_is_no_frame() {
        let request = |prefix: [u8; 4]| length(Side::Requests, prefix, true).map_err(|e| e.to_string());
        for (prefix, text) in [
            ([0x16, 3, 1, 0], "the client speaks a TLS handshake where Kafka in plaintext is expected"),
            ([0x15, 3, 3, 0], "the client speaks a TLS alert where Kafka in plaintext is expected"),
            (*b"GET ", "the client speaks HTTP where Kafka in plaintext is expected"),
            (*b"POST", "the client speaks HTTP where Kafka in plaintext is expected"),
            (*b"HTTP", "the client speaks HTTP where Kafka in plaintext is expected"),
            (*b"PROX", "the client speaks a PROXY protocol header where Kafka in plaintext is expected"),
            (*b"\r\n\r\n", "the client speaks a PROXY protocol header where Kafka in plaintext is expected"),
            (*b"SSH-", "the client speaks SSH where Kafka in plaintext is expected"),
            ([0xff; 4], "frame of -1 bytes: a length below zero"),
            ([0x80, 0, 0, 0], "frame of -2147483648 bytes: a length below zero"),
            ([0, 0, 0, 0], "frame of 0 bytes, at least 8 needed for its header"),
            ([0, 0, 0, 7], "frame of 7 bytes, at least 8 needed for its header"),
            ([6, 0x40, 0, 1], "frame of 104857601 bytes, at most 104857600 allowed"),
        ] {
            assert_eq!(request(prefix), Err(text.to_owned()));
        }
        assert_eq!(request([0, 0, 0, 8]), Ok(8));
        assert_eq!(request([6, 0x40, 0, 0]), Ok(MAX_REQUEST));
    }

    #[test]
    fn knows_a_broker_that_speaks_tls_by_its_first_answer() {
        let alert = [0x15, 3, 3, 0];
        assert_eq!(length(Side::Responses, alert, true), Err(FrameError::BrokerSpeaksTls));
        assert_eq!(
            length(Side::Responses, alert, true).map_err(|e| e.to_string()),
            Err("the broker speaks TLS; set [proxy] upstream tls".to_owned())
        );
        assert_eq!(length(Side::Responses, *b"HTTP", true), Err(FrameError::ForeignBroker(Foreign::Http)));
        assert_eq!(length(Side::Responses, alert, false), Ok(0x1503_0300), "later it is a large fetch");
        assert_eq!(length(Side::Responses, [0, 0, 0, 3], false), Err(FrameError::TooShort { length: 3, least: 4 }));
        assert_eq!(length(Side::Tokens, [0; 4], false), Ok(0));
        assert_eq!(
            length(Side::Tokens, [0, 0x10, 0, 1], false),
            Err(FrameError::TooLong { length: MAX_TOKEN + 1, most: MAX_TOKEN })
        );
    }
}
