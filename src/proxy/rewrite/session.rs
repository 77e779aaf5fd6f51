//! One client, one broker, and what goes between them.

use std::time::{Duration, Instant};

use super::in_flight::InFlight;
use super::pieces::Pieces;
use super::policy::Policy;
use super::requests::Requests;
use super::responses::{Around, Responses};
use super::rules::Rules;
use super::{Mapping, RewriteError, endpoints, local};
use crate::kafka::api;

/// What was done since the last look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Addresses replaced.
    pub nodes: u64,
    /// Nodes that were given no address.
    pub hidden: u64,
    /// Frames whose endpoints were left out since the local ones did not fit.
    pub hidden_frames: u64,
    /// Addresses of brokers that were about to leave as they came; the connection ended instead.
    pub leaks: u64,
    /// Responses changed, by the place of their API in [`api::WALKABLE`].
    pub responses: [u64; api::WALKABLE.len()],
    /// Responses that did not come in the order of their requests.
    pub out_of_order: u64,
    /// Responses that nobody asked for, which went nowhere.
    pub unknown: u64,
}

impl Tally {
    pub(super) fn rewritten(&mut self, key: i16) {
        if let Some(at) = api::WALKABLE.iter().position(|(walkable, _)| *walkable == key) {
            self.responses[at] += 1;
        }
    }
}

/// Reads both streams of one connection and says what becomes of their bytes.
#[derive(Debug)]
pub struct Session {
    requests: Requests,
    responses: Responses,
    awaited: InFlight,
    tally: Tally,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// Before the first byte, where everything passes.
    #[must_use]
    pub fn new() -> Self {
        Self::with_rules(&Rules::default(), [0; 18])
    }

    /// Before the first byte; `nonce` is fresh randomness.
    #[must_use]
    pub fn with_rules(rules: &Rules, nonce: [u8; 18]) -> Self {
        Self {
            requests: Requests::new(rules.clone(), nonce),
            responses: Responses::new(rules.clone()),
            awaited: InFlight::default(),
            tally: Tally::default(),
        }
    }

    /// What time it is, for what comes next; without it no answer's time is taken.
    pub fn at(&mut self, now: Instant) {
        self.awaited.at(now);
    }

    /// APIs whose responses began since the last call, and how long after their requests.
    pub fn take_answered(&mut self) -> impl Iterator<Item = (i16, Duration)> + '_ {
        self.awaited.take_answered()
    }

    /// Takes what the client sent; `out` tells what goes to the broker. Returns how many bytes it took: fewer than all when
    /// [`super::MOST_IN_FLIGHT`] requests are unanswered, or it is paused; the rest is to be fed again after the next response.
    ///
    /// # Errors
    /// [`RewriteError`]; the connection is to be closed.
    pub fn handle_request(&mut self, input: &[u8], out: &mut Pieces) -> Result<usize, RewriteError> {
        self.requests.handle(input, &mut self.awaited, out)
    }

    /// Takes what the broker sent, all of it; `out` tells what goes to the client.
    ///
    /// # Errors
    /// [`RewriteError`]; the connection is to be closed, and nothing of what `out` got by this call is to be sent.
    pub fn handle_response(
        &mut self,
        input: &[u8],
        mapping: &mut dyn Mapping,
        out: &mut Pieces,
    ) -> Result<(), RewriteError> {
        let around = &mut Around { awaited: &mut self.awaited, mapping, tally: &mut self.tally, out };
        let done = self.responses.handle(input, around);
        if self.responses.take_handshake_refused() {
            self.requests.forget_tokens();
            self.awaited.forget_tokens();
        }
        done
    }

    /// Sends what is to be answered here and whose turn has come, though the broker sent nothing; `out` is empty.
    pub fn speak(&mut self, out: &mut Pieces) {
        self.responses.speak(&mut self.awaited, out);
    }

    /// Whether [`Session::speak`] would send anything.
    #[must_use]
    pub fn speaks(&self) -> bool {
        self.awaited.expects_local() && self.responses.at_boundary()
    }

    /// From now on no request is begun, so that what is unanswered comes to its end; or, again, it is.
    pub fn pause(&mut self, paused: bool) {
        self.requests.pause(paused);
    }

    /// Whether no request is begun.
    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.requests.is_paused()
    }

    /// The answer with which the oldest request is refused, where its API has a form for it.
    #[must_use]
    pub fn refusal(&self, error_code: i16) -> Option<Vec<u8>> {
        let (correlation_id, key, version) = self.awaited.oldest()?;
        local::refusal(correlation_id, key, version, error_code)
    }

    /// Who the client is, where it had to prove it and did.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.requests.user()
    }

    /// How often the client failed to prove who it is, since the last call.
    pub fn take_refused_logins(&mut self) -> u64 {
        self.requests.guard().take_refused()
    }

    /// Whether [`Session::take_denied`] would give any.
    #[must_use]
    pub fn has_denied(&self) -> bool {
        self.requests.has_denied()
    }

    /// Requests that the policy refused since the last call, by API.
    pub fn take_denied(&mut self) -> Vec<(i16, u64)> {
        self.requests.take_denied()
    }

    /// Whether nothing more is taken of the client, and the connection is to end once all before is answered.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.requests.is_closed()
    }

    /// The client sent its FIN.
    ///
    /// # Errors
    /// [`RewriteError::CutFrame`] inside a frame.
    pub fn handle_client_end(&self) -> Result<(), RewriteError> {
        if self.requests.at_boundary() { Ok(()) } else { Err(RewriteError::CutFrame("client")) }
    }

    /// The broker sent its FIN.
    ///
    /// # Errors
    /// [`RewriteError::CutFrame`] inside a frame.
    pub fn handle_broker_end(&self) -> Result<(), RewriteError> {
        if self.responses.at_boundary() { Ok(()) } else { Err(RewriteError::CutFrame("broker")) }
    }

    /// Whether the client is between two requests.
    #[must_use]
    pub fn is_between_requests(&self) -> bool {
        self.requests.at_boundary()
    }

    /// Whether every request that gets an answer has one, to its last byte.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.awaited.is_empty() && self.responses.at_boundary()
    }

    /// Takes what was done since the last call.
    pub fn take_tally(&mut self) -> Tally {
        let (out_of_order, unknown) = self.awaited.take_oddities();
        Tally { out_of_order, unknown, ..std::mem::take(&mut self.tally) }
    }
}

/// Runs a session over arbitrary bytes: the first byte chooses the step, the second where requests end and responses begin;
/// every endpoint edit runs over them too. For fuzzing, with every API allowed and with those alone that read. Panics never, and a piece never stands for more input than there was.
pub fn fuzz_session(data: &[u8]) {
    struct Anywhere;
    impl Mapping for Anywhere {
        fn local(&mut self, node_id: i32, _: &str, _: i32) -> Option<(String, u16)> {
            (node_id % 7 != 0).then(|| ("127.0.0.1".to_owned(), 19_092))
        }

        fn is_local(&mut self, host: &[u8], port: i32) -> bool {
            (host, port) == (b"127.0.0.1", 19_092)
        }
    }
    let [step, cut, data @ ..] = data else { return };
    let step = usize::from(*step).max(1);
    let (requests, responses) = data.split_at(data.len() * usize::from(*cut) / 256);
    endpoints::fuzz(responses, &mut Anywhere);
    for policy in [Policy::open(), Policy::read_only()] {
        fuzz_policy(policy, step, requests, responses, &mut Anywhere);
    }
}

fn fuzz_policy(policy: Policy, step: usize, requests: &[u8], responses: &[u8], mapping: &mut dyn Mapping) {
    let mut session = Session::with_rules(&Rules { policy, ..Rules::default() }, [0; 18]);
    for chunk in requests.chunks(step) {
        let mut out = Pieces::new();
        match session.handle_request(chunk, &mut out) {
            Ok(taken) if taken == chunk.len() => assert_eq!(out.covers(), taken),
            _ => break,
        }
    }
    for chunk in responses.chunks(step) {
        let mut out = Pieces::new();
        match session.handle_response(chunk, mapping, &mut out) {
            Ok(()) => assert_eq!(out.covers(), chunk.len()),
            Err(RewriteError::Leak { .. }) => panic!("an address was left as it came"),
            Err(_) => break,
        }
    }
    let _ = (session.handle_client_end(), session.handle_broker_end(), session.take_tally());
}
