//! What the client sends: read just far enough to know what each answer will be, and never changed, but where the operator's
//! policy has it.

use super::RewriteError;
use super::denied::Denied;
use super::guard::Guard;
use super::in_flight::{Awaited, InFlight};
use super::pieces::{Held, Pieces};
use super::policy::METADATA_AUTO_CREATION;
use super::rules::Rules;
use super::sasl::Tokens;
use crate::kafka::api;
use crate::kafka::frame::{self, Side};
use crate::kafka::header::RequestHead;
use crate::kafka::primitives::Malformed;
use crate::kafka::refusal::Refusal;
use crate::kafka::walk::{Walker, metadata, produce};

/// Largest SaslHandshake request, in bytes: a client id and the name of a mechanism.
const MOST_HANDSHAKE: u32 = 64 << 10;

/// Largest request that is answered here, in bytes.
const MOST_LOCAL: u32 = 4 << 20;

/// Bytes of a length, and of a length with the head of a request.
const LENGTH: usize = 4;
const HEAD: usize = LENGTH + 8;

/// Where in the stream of requests the reader is.
///
/// ```text
/// Head ─▶ Pass ─▶ Head            any request: what it is, then its body
/// Head ─▶ Walk ─▶ Acks ─▶ Pass    Produce: only `acks` says whether an answer comes
/// Head ─▶ Handshake ─▶ Head       SaslHandshake version 0: raw tokens follow
/// Head ─▶ Walk ─▶ Flag ─▶ Pass    Metadata where topics may not be made: the flag that lets brokers do it is taken back
/// Head ─▶ Local ─▶ Head           answered here, and not sent on
/// Head ─▶ Denied ─▶ Head          refused here, and not sent on
/// ```
#[derive(Debug)]
enum State {
    /// A length is being read, and the eight bytes behind it.
    Head,
    /// The rest of a frame passes.
    Pass { left: u64 },
    /// A produce request passes up to `acks`, a Metadata up to its flag.
    Walk { walker: Box<Walker>, left: u64, head: RequestHead },
    /// The two bytes of `acks` are being read.
    Acks { left: u64, head: RequestHead },
    /// The byte is being read that lets brokers make the topics that are asked for.
    Flag { left: u64, head: RequestHead },
    /// A whole handshake is being read.
    Handshake { length: u32, head: RequestHead },
    /// A whole request is being read that the broker does not see.
    Local { length: u32, head: RequestHead },
    /// A request is being read that clients may not make.
    Denied(Box<Denied>),
}

/// Reads the client's stream.
#[derive(Debug)]
pub(super) struct Requests {
    state: State,
    held: Held,
    first: bool,
    tokens: Option<Tokens>,
    rules: Rules,
    guard: Guard,
    paused: bool,
    /// Nothing more is taken: a refusal that has no answer.
    closed: bool,
    /// Requests refused by the policy, by API.
    denied: Vec<(i16, u64)>,
}

impl Requests {
    /// `nonce` is fresh randomness.
    pub(super) fn new(rules: Rules, nonce: [u8; 18]) -> Self {
        let guard = Guard::new(rules.users.clone(), nonce);
        let (state, held) = (State::Head, Held::default());
        Self { state, held, first: true, tokens: None, rules, guard, paused: false, closed: false, denied: Vec::new() }
    }

    /// What asks clients who they are.
    pub(super) fn guard(&mut self) -> &mut Guard {
        &mut self.guard
    }

    /// Who the client is, once that is proved.
    pub(super) fn user(&self) -> Option<&str> {
        self.guard.user()
    }

    /// From now on no frame is begun, until told otherwise.
    pub(super) fn pause(&mut self, paused: bool) {
        self.paused = paused;
    }

    /// Whether no frame is begun before it is told to go on.
    pub(super) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Whether the connection is to end once all before is answered.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// Whether [`Requests::take_denied`] would give any.
    pub(super) fn has_denied(&self) -> bool {
        !self.denied.is_empty()
    }

    /// Requests that the policy refused since the last call, by API.
    pub(super) fn take_denied(&mut self) -> Vec<(i16, u64)> {
        std::mem::take(&mut self.denied)
    }

    /// Whether no frame is begun.
    pub(super) fn at_boundary(&self) -> bool {
        matches!(self.state, State::Head) && self.held.bytes().is_empty()
    }

    /// The handshake was refused: no raw token will follow.
    pub(super) fn forget_tokens(&mut self) {
        self.tokens = None;
    }

    /// Reads on; returns how much of the input it took, less than all only when no more answers may be awaited, or it is paused
    /// or closed.
    pub(super) fn handle(
        &mut self,
        input: &[u8],
        awaited: &mut InFlight,
        out: &mut Pieces,
    ) -> Result<usize, RewriteError> {
        let mut at = 0;
        while at < input.len() {
            if self.at_boundary() && (self.paused || self.closed || awaited.is_full()) {
                break;
            }
            at += self.advance(&input[at..], awaited, out)?;
        }
        self.held.end_of_input(out);
        Ok(at)
    }

    fn advance(&mut self, input: &[u8], awaited: &mut InFlight, out: &mut Pieces) -> Result<usize, RewriteError> {
        match &mut self.state {
            State::Head => self.read_head(input, awaited, out),
            State::Pass { left } => {
                let passed = passable(input, *left);
                out.pass(passed);
                *left -= passed as u64;
                self.settle();
                Ok(passed)
            }
            State::Walk { walker, left, head } => {
                let fed =
                    walker.feed(&input[..passable(input, *left)]).map_err(|source| request_error(*head, source))?;
                out.pass(fed.taken);
                *left -= fed.taken as u64;
                if fed.done {
                    let (left, head) = (*left, *head);
                    let flag = head.api_key == api::METADATA;
                    self.state = if flag { State::Flag { left, head } } else { State::Acks { left, head } };
                }
                Ok(fed.taken)
            }
            State::Acks { left, head } => {
                let (head, left) = (*head, *left);
                if left < 2 {
                    let source = Malformed::Short { what: "acks", at: 0, need: 2, left };
                    return Err(request_error(head, source));
                }
                let taken = self.held.fill(input, 2);
                if let [high, low] = *self.held.bytes() {
                    if i16::from_be_bytes([high, low]) != 0 {
                        awaited.push(answer_to(head));
                    }
                    self.held.release(out);
                    self.state = State::Pass { left: left - 2 };
                    self.settle();
                }
                Ok(taken)
            }
            State::Flag { left, head } => {
                let (head, left) = (*head, *left);
                if left == 0 {
                    let source = Malformed::Short { what: "flag", at: 0, need: 1, left };
                    return Err(request_error(head, source));
                }
                let taken = self.held.fill(input, 1);
                if let [flag] = *self.held.bytes() {
                    awaited.push(answer_to(head));
                    self.held.replace((flag != 0).then(|| vec![0]), out);
                    self.state = State::Pass { left: left - 1 };
                    self.settle();
                }
                Ok(taken)
            }
            State::Handshake { length, head } => {
                let (whole, head) = (LENGTH + *length as usize, *head);
                let taken = self.held.fill(input, whole);
                if self.held.bytes().len() == whole {
                    self.tokens = Some(Tokens::after_handshake(&self.held.bytes()[LENGTH..]));
                    awaited.push(answer_to(head));
                    self.held.release(out);
                    self.state = State::Head;
                }
                Ok(taken)
            }
            State::Local { length, head } => {
                let (whole, head) = (LENGTH + *length as usize, *head);
                let taken = self.held.fill(input, whole);
                if self.held.bytes().len() == whole {
                    let answer = self.guard.answer(head, &self.held.bytes()[LENGTH..]);
                    awaited.push(Awaited::Local(answer));
                    self.held.replace(Some(Vec::new()), out);
                    self.state = State::Head;
                }
                Ok(taken)
            }
            State::Denied(denied) => {
                let taken = denied.feed(input)?;
                out.skip(taken);
                if denied.is_whole() {
                    let (key, refusal) = (denied.key(), denied.refuse()?);
                    match self.denied.iter_mut().find(|(other, _)| *other == key) {
                        Some((_, count)) => *count += 1,
                        None => self.denied.push((key, 1)),
                    }
                    match refusal {
                        Refusal::Answer(answer) => awaited.push(Awaited::Local(answer)),
                        Refusal::Close => self.closed = true,
                    }
                    self.state = State::Head;
                }
                Ok(taken)
            }
        }
    }

    /// Reads a length and, where a request has one, the head behind it.
    fn read_head(&mut self, input: &[u8], awaited: &mut InFlight, out: &mut Pieces) -> Result<usize, RewriteError> {
        let mut taken = self.held.fill(input, LENGTH);
        let Some(prefix) = self.held.bytes().first_chunk::<LENGTH>() else { return Ok(taken) };
        let side = if self.tokens.is_some() { Side::Tokens } else { Side::Requests };
        let length = match frame::length(side, *prefix, self.first) {
            // Larger than any token: the exchange of unknown length is over.
            Err(frame::FrameError::TooLong { .. }) if self.tokens == Some(Tokens::UntilRequest) => {
                frame::length(Side::Requests, *prefix, false)?
            }
            length => length?,
        };
        taken += self.held.fill(&input[taken..], (LENGTH + length as usize).min(HEAD));
        let head = &self.held.bytes()[LENGTH..];
        if head.len() < (length as usize).min(HEAD - LENGTH) {
            return Ok(taken);
        }
        self.first = false;
        if let Some(tokens) = self.tokens {
            if tokens.is_token(length, head) {
                let left = u64::from(length) - head.len() as u64;
                self.tokens = tokens.after_token();
                awaited.push(Awaited::Token);
                self.held.release(out);
                self.state = State::Pass { left };
                self.settle();
                return Ok(taken);
            }
            // The exchange is over. A GSSAPI broker leaves the last token unanswered; what it still owed must not hide a response.
            self.tokens = None;
            awaited.forget_tokens();
        }
        let Some(head) = head.first_chunk::<8>() else { return Ok(taken) };
        let head = RequestHead::read(*head);
        let left = u64::from(length) - 8;
        if !self.guard.admits(head.api_key) {
            return Err(RewriteError::NotAuthenticated { key: head.api_key });
        }
        if self.rules.answers(head.api_key) {
            if length > MOST_LOCAL {
                let RequestHead { api_key: key, api_version: version, .. } = head;
                let (length, most) = (u64::from(length), u64::from(MOST_LOCAL));
                return Err(RewriteError::TooLarge { key, version, length, most });
            }
            self.state = State::Local { length, head };
            if left == 0 {
                self.advance(&[], awaited, out)?;
            }
            return Ok(taken);
        }
        if self.rules.policy.withholds(head) {
            self.state = State::Denied(Box::new(Denied::begin(head, left)?));
            self.held.replace(Some(Vec::new()), out);
            if left == 0 {
                self.advance(&[], awaited, out)?;
            }
            return Ok(taken);
        }
        match (head.api_key, head.api_version) {
            (api::SASL_HANDSHAKE, 0) if length <= MOST_HANDSHAKE => {
                self.state = State::Handshake { length, head };
                // A frame that was whole with its head has no byte left to arrive.
                if left == 0 {
                    self.advance(&[], awaited, out)?;
                }
                return Ok(taken);
            }
            (api::PRODUCE, 0..) => {
                let walker = Box::new(produce::to_acks(head.api_version, left));
                self.state = State::Walk { walker, left, head };
                if left == 0 {
                    self.advance(&[], awaited, out)?;
                }
            }
            (api::METADATA, version) if !self.rules.policy.lets_topics_be_made() => {
                self.state = State::Walk { walker: Box::new(auto_creation(version, left)?), left, head };
                if left == 0 {
                    self.advance(&[], awaited, out)?;
                }
            }
            _ => {
                awaited.push(answer_to(head));
                self.state = State::Pass { left };
                self.settle();
            }
        }
        self.held.release(out);
        Ok(taken)
    }

    /// A frame of which nothing is left is over.
    fn settle(&mut self) {
        if let State::Pass { left: 0 } = self.state {
            self.state = State::Head;
        }
    }
}

/// How much of the input belongs to a frame with `left` bytes to come.
pub(super) fn passable(input: &[u8], left: u64) -> usize {
    usize::try_from(left).map_or(input.len(), |left| left.min(input.len()))
}

/// A walker to the flag of a Metadata request, where it has one in a known place.
fn auto_creation(version: i16, left: u64) -> Result<Walker, RewriteError> {
    let known = METADATA_AUTO_CREATION..=api::walkable_to(api::METADATA).unwrap_or(-1);
    if known.contains(&version) {
        Ok(metadata::to_auto_creation(version, left))
    } else {
        Err(RewriteError::Denied { key: api::METADATA, version })
    }
}

const fn answer_to(head: RequestHead) -> Awaited {
    Awaited::Response { correlation_id: head.correlation_id, key: head.api_key, version: head.api_version, asked: None }
}

pub(super) const fn request_error(head: RequestHead, source: Malformed) -> RewriteError {
    RewriteError::Request { key: head.api_key, version: head.api_version, source }
}
