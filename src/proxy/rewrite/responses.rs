//! What the broker sends: passed as it comes, but for the eight kinds of response that are read.

use super::in_flight::InFlight;
use super::pieces::{Held, Pieces};
use super::requests::passable;
use super::rules::Rules;
use super::{Mapping, RewriteError, Tally, brokers, endpoints, leaks, versions};
use crate::kafka::api;
use crate::kafka::frame::{self, Side};
use crate::kafka::primitives::Malformed;
use crate::kafka::walk::{self, Endpoints, Walker, metadata};

/// Most bytes of one response that are held back: a whole FindCoordinator or DescribeCluster, the brokers of a Metadata.
pub const HELD_LIMIT: u64 = 4 << 20;

/// Most bytes of the end section of a Fetch, Produce or Share response: endpoints of a few thousand brokers.
const TAIL_LIMIT: u64 = 1 << 20;

/// Most bytes that a rewritten Metadata prefix may have: replacements may be longer than what they stand for.
const REWRITTEN_LIMIT: u64 = 4 * HELD_LIMIT;

const LENGTH: usize = 4;
const HEAD: usize = LENGTH + 4;

/// What is done with a whole response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    FindCoordinator,
    DescribeCluster,
    ApiVersions,
    Handshake,
}

/// An API and its version, as the request had it.
#[derive(Debug, Clone, Copy)]
struct Kind {
    key: i16,
    version: i16,
}

/// Where in the stream of responses the reader is.
///
/// ```text
/// Head ─▶ Pass ─▶ Head             unread
/// Head ─▶ Drop ─▶ Head             nobody asked for it
/// Head ─▶ Walk ─▶ Tail ─▶ Head     Produce, Fetch, Share…: records pass, the end section is edited in place
/// Head ─▶ Brokers ─▶ Pass ─▶ Head  Metadata: the brokers are re-framed, topics pass
/// Head ─▶ Whole ─▶ Head            small ones
/// ```
#[derive(Debug)]
enum State {
    /// A length is being read, and the correlation id behind it.
    Head,
    /// The rest of a frame passes.
    Pass { left: u64 },
    /// The rest of a frame that nobody asked for goes nowhere.
    Drop { left: u64 },
    /// Passing to the end section.
    Walk { walker: Box<Walker>, left: u64, kind: Kind, endpoints: Endpoints },
    /// Holding the end section.
    Tail { left: u64, kind: Kind, endpoints: Endpoints },
    /// Holding the brokers of a Metadata.
    Brokers { walker: Box<Walker>, left: u64, kind: Kind },
    /// Holding all of a small response.
    Whole { left: u64, kind: Kind, what: Whole },
}

/// Reads the broker's stream.
#[derive(Debug)]
pub(super) struct Responses {
    state: State,
    held: Held,
    first: bool,
    handshake_refused: bool,
    rules: Rules,
}

/// What reading needs beside its own state.
pub(super) struct Around<'a> {
    pub(super) awaited: &'a mut InFlight,
    pub(super) mapping: &'a mut dyn Mapping,
    pub(super) tally: &'a mut Tally,
    pub(super) out: &'a mut Pieces,
}

impl Responses {
    pub(super) fn new(rules: Rules) -> Self {
        Self { state: State::Head, held: Held::default(), first: true, handshake_refused: false, rules }
    }

    /// Whether no frame is begun.
    pub(super) fn at_boundary(&self) -> bool {
        matches!(self.state, State::Head) && self.held.bytes().is_empty()
    }

    /// Whether a SaslHandshake was refused since the last call.
    pub(super) fn take_handshake_refused(&mut self) -> bool {
        std::mem::take(&mut self.handshake_refused)
    }

    /// Reads on through all of the input.
    pub(super) fn handle(&mut self, input: &[u8], around: &mut Around<'_>) -> Result<(), RewriteError> {
        let mut at = 0;
        while at < input.len() {
            self.speak(around.awaited, around.out);
            at += self.advance(&input[at..], around)?;
        }
        self.held.end_of_input(around.out);
        self.speak(around.awaited, around.out);
        Ok(())
    }

    /// Between two responses of the broker: sends those of our own whose turn has come.
    pub(super) fn speak(&self, awaited: &mut InFlight, out: &mut Pieces) {
        if self.at_boundary() {
            while let Some(answer) = awaited.take_local() {
                out.send(answer);
            }
        }
    }

    fn advance(&mut self, input: &[u8], around: &mut Around<'_>) -> Result<usize, RewriteError> {
        match &mut self.state {
            State::Head => self.read_head(input, around),
            State::Pass { left } => {
                let passed = passable(input, *left);
                around.out.pass(passed);
                *left -= passed as u64;
                self.settle();
                Ok(passed)
            }
            State::Drop { left } => {
                let dropped = passable(input, *left);
                around.out.skip(dropped);
                *left -= dropped as u64;
                self.settle();
                Ok(dropped)
            }
            State::Walk { walker, left, kind, endpoints } => {
                let (kind, endpoints) = (*kind, *endpoints);
                let fed = walker.feed(&input[..passable(input, *left)]).map_err(|source| kind.malformed(source))?;
                around.out.pass(fed.taken);
                *left -= fed.taken as u64;
                if fed.done {
                    let left = *left;
                    kind.limit(left, TAIL_LIMIT)?;
                    self.state = State::Tail { left, kind, endpoints };
                    if left == 0 {
                        return Err(kind.malformed(Malformed::Short { what: "end section", at: 0, need: 1, left }));
                    }
                }
                Ok(fed.taken)
            }
            State::Tail { left, kind, endpoints } => {
                let (kind, endpoints) = (*kind, *endpoints);
                let taken = passable(input, *left);
                *left -= taken as u64;
                let over = *left == 0;
                self.held.hold(&input[..taken]);
                if over {
                    self.finish_tail(kind, endpoints, around)?;
                }
                Ok(taken)
            }
            State::Brokers { walker, left, kind } => {
                let kind = *kind;
                let fed = walker.feed(&input[..passable(input, *left)]).map_err(|source| kind.malformed(source))?;
                *left -= fed.taken as u64;
                let left = *left;
                self.held.hold(&input[..fed.taken]);
                kind.limit(self.held.bytes().len() as u64, HELD_LIMIT)?;
                if fed.done {
                    self.finish_brokers(kind, left, around)?;
                }
                Ok(fed.taken)
            }
            State::Whole { left, kind, what } => {
                let (kind, what) = (*kind, *what);
                let taken = passable(input, *left);
                *left -= taken as u64;
                let over = *left == 0;
                self.held.hold(&input[..taken]);
                if over {
                    self.finish_whole(kind, what, around)?;
                }
                Ok(taken)
            }
        }
    }

    /// Reads a length and the correlation id behind it, and finds out what the frame is.
    fn read_head(&mut self, input: &[u8], around: &mut Around<'_>) -> Result<usize, RewriteError> {
        let mut taken = self.held.fill(input, LENGTH);
        let Some(prefix) = self.held.bytes().first_chunk::<LENGTH>() else { return Ok(taken) };
        if around.awaited.expects_token() {
            let length = frame::length(Side::Tokens, *prefix, false)?;
            around.awaited.take_token();
            return Ok(taken + self.pass_from_here(u64::from(length), around.out));
        }
        let length = frame::length(Side::Responses, *prefix, self.first)?;
        taken += self.held.fill(&input[taken..], HEAD);
        let Some((_, id)) = self.held.bytes().split_first_chunk::<LENGTH>() else { return Ok(taken) };
        let Some(id) = id.first_chunk::<4>() else { return Ok(taken) };
        self.first = false;
        let left = u64::from(length) - 4;
        match around.awaited.answer(i32::from_be_bytes(*id)) {
            Some((key, version)) => self.begin(Kind { key, version }, left, around)?,
            // Nobody asked for it: the client would only stumble over it, and what it carries cannot be known.
            None => {
                self.held.replace(Some(Vec::new()), around.out);
                self.state = State::Drop { left };
                self.settle();
            }
        }
        Ok(taken)
    }

    /// Begins the body of a response, with its length and correlation id held.
    fn begin(&mut self, kind: Kind, left: u64, around: &mut Around<'_>) -> Result<(), RewriteError> {
        let walkable = api::walkable_to(kind.key);
        let what = match (kind.key, kind.version) {
            // Error 35 makes a response of any version readable, so the version is no matter here.
            (api::API_VERSIONS, _) => Whole::ApiVersions,
            (api::SASL_HANDSHAKE, 0) => Whole::Handshake,
            (key, version) if walkable.is_some_and(|most| !(0..=most).contains(&version)) => {
                return Err(RewriteError::Unwalkable { key, version, most: walkable.unwrap_or(-1) });
            }
            (api::METADATA, version) => {
                self.state = State::Brokers { walker: Box::new(metadata::to_brokers_end(version, left)), left, kind };
                return if left == 0 { Err(kind.empty()) } else { Ok(()) };
            }
            (api::FIND_COORDINATOR, _) => Whole::FindCoordinator,
            (api::DESCRIBE_CLUSTER, _) => Whole::DescribeCluster,
            (key, version) => {
                match (walk::endpoints_of(key, version), walk::to_tail(key, version, left)) {
                    (Some(endpoints), Some(walker)) => {
                        if left == 0 {
                            return Err(kind.empty());
                        }
                        self.held.release(around.out);
                        self.state = State::Walk { walker: Box::new(walker), left, kind, endpoints };
                    }
                    _ => {
                        self.pass_from_here(left, around.out);
                    }
                }
                return Ok(());
            }
        };
        kind.limit(left, HELD_LIMIT)?;
        self.state = State::Whole { left, kind, what };
        if left == 0 {
            self.finish_whole(kind, what, around)?;
        }
        Ok(())
    }

    /// Lets go of what is held and passes the rest of the frame; takes no byte itself.
    fn pass_from_here(&mut self, left: u64, out: &mut Pieces) -> usize {
        self.held.release(out);
        self.state = State::Pass { left };
        self.settle();
        0
    }

    fn finish_tail(&mut self, kind: Kind, endpoints: Endpoints, around: &mut Around<'_>) -> Result<(), RewriteError> {
        let section = self.held.bytes();
        // Nearly every response: no tagged field at all.
        if endpoints == Endpoints::Tagged && section == [0] {
            self.held.release(around.out);
            self.state = State::Head;
            return Ok(());
        }
        let edited = match endpoints {
            Endpoints::Tagged => endpoints::tagged(section, around.mapping, around.tally),
            Endpoints::Listed => endpoints::listed(section, around.mapping, around.tally),
        }
        .map_err(|source| kind.malformed(source))?;
        let leaving = edited.as_deref().unwrap_or(section);
        let leaks = match endpoints {
            Endpoints::Tagged => leaks::in_tagged(leaving, around.mapping),
            Endpoints::Listed => leaks::in_listed(leaving, around.mapping),
        };
        kind.keep_in(leaks, around.tally)?;
        if edited.is_some() {
            around.tally.rewritten(kind.key);
        }
        self.held.replace(edited, around.out);
        self.state = State::Head;
        Ok(())
    }

    fn finish_brokers(&mut self, kind: Kind, left: u64, around: &mut Around<'_>) -> Result<(), RewriteError> {
        let (head, prefix) = self.held.bytes().split_at(HEAD);
        let rewritten = brokers::metadata(prefix, kind.version, around.mapping, around.tally)
            .map_err(|source| kind.malformed(source))?;
        let leaving = rewritten.as_deref().unwrap_or(prefix);
        kind.keep_in(leaks::in_metadata(leaving, kind.version, around.mapping), around.tally)?;
        let framed = match rewritten {
            None => None,
            Some(rewritten) => {
                kind.limit(rewritten.len() as u64, REWRITTEN_LIMIT)?;
                around.tally.rewritten(kind.key);
                Some(kind.framed(head, &rewritten, left)?)
            }
        };
        self.held.replace(framed, around.out);
        self.state = State::Pass { left };
        self.settle();
        Ok(())
    }

    fn finish_whole(&mut self, kind: Kind, what: Whole, around: &mut Around<'_>) -> Result<(), RewriteError> {
        let (head, body) = self.held.bytes().split_at(HEAD);
        let Kind { version, .. } = kind;
        let rewritten = match what {
            Whole::FindCoordinator => brokers::find_coordinator(body, version, around.mapping, around.tally),
            Whole::DescribeCluster => brokers::describe_cluster(body, version, around.mapping, around.tally),
            Whole::ApiVersions => versions::cap(body, version, &self.rules),
            Whole::Handshake => {
                self.handshake_refused |= !body.starts_with(&[0, 0]);
                Ok(None)
            }
        }
        .map_err(|source| kind.malformed(source))?;
        let leaving = rewritten.as_deref().unwrap_or(body);
        let leaks = match what {
            Whole::FindCoordinator => leaks::in_find_coordinator(leaving, version, around.mapping),
            Whole::DescribeCluster => leaks::in_describe_cluster(leaving, version, around.mapping),
            Whole::ApiVersions | Whole::Handshake => 0,
        };
        kind.keep_in(leaks, around.tally)?;
        let framed = match rewritten {
            None => None,
            Some(rewritten) => {
                around.tally.rewritten(kind.key);
                Some(kind.framed(head, &rewritten, 0)?)
            }
        };
        self.held.replace(framed, around.out);
        self.state = State::Head;
        Ok(())
    }

    /// A frame of which nothing is left is over.
    fn settle(&mut self) {
        if let State::Pass { left: 0 } | State::Drop { left: 0 } = self.state {
            self.state = State::Head;
        }
    }
}

impl Kind {
    const fn malformed(self, source: Malformed) -> RewriteError {
        RewriteError::Response { key: self.key, version: self.version, source }
    }

    const fn empty(self) -> RewriteError {
        self.malformed(Malformed::Short { what: "body", at: 0, need: 1, left: 0 })
    }

    const fn limit(self, length: u64, most: u64) -> Result<(), RewriteError> {
        if length > most {
            return Err(RewriteError::TooLarge { key: self.key, version: self.version, length, most });
        }
        Ok(())
    }

    /// Better no answer than a real address.
    const fn keep_in(self, addresses: u64, tally: &mut Tally) -> Result<(), RewriteError> {
        tally.leaks += addresses;
        if addresses > 0 {
            return Err(RewriteError::Leak { key: self.key, version: self.version, addresses });
        }
        Ok(())
    }

    /// A frame's beginning with a new body, of which `left` bytes follow by themselves.
    fn framed(self, head: &[u8], body: &[u8], left: u64) -> Result<Vec<u8>, RewriteError> {
        let correlation_id = &head[LENGTH..];
        let length = (correlation_id.len() + body.len()) as u64 + left;
        self.limit(length, i32::MAX as u64)?;
        let mut out = Vec::with_capacity(HEAD + body.len());
        out.extend_from_slice(&(length as u32).to_be_bytes());
        out.extend_from_slice(correlation_id);
        out.extend_from_slice(body);
        Ok(out)
    }
}
