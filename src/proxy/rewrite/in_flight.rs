//! Requests that wait for their response, in the order they were sent.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Requests of one connection that may be unanswered at once; more wait in the client's socket.
pub const MOST_IN_FLIGHT: usize = 1_000;

/// Bytes of answers of our own that may wait for their turn, but for the one that goes beyond.
const MOST_WAITING: usize = 1 << 20;

/// What a response will be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Awaited {
    /// A response with a header.
    Response {
        /// What it begins with.
        correlation_id: i32,
        /// Its API.
        key: i16,
        /// Its version.
        version: i16,
        /// When it was asked for, where anybody says what time it is.
        asked: Option<Instant>,
    },
    /// A raw SASL token, without any header.
    Token,
    /// This response, which the broker is not asked for.
    Local(Vec<u8>),
}

/// A bounded queue of awaited responses. Brokers answer in order, so the head is expected and the rest searched only when it is not.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    queue: VecDeque<Awaited>,
    /// Bytes of our own answers in it.
    waiting: usize,
    now: Option<Instant>,
    /// APIs that were answered, and how long that took.
    answered: Vec<(i16, Duration)>,
    out_of_order: u64,
    unknown: u64,
}

impl InFlight {
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= MOST_IN_FLIGHT || self.waiting >= MOST_WAITING
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// What time it is, for what comes next.
    pub(super) fn at(&mut self, now: Instant) {
        self.now = Some(now);
    }

    pub(super) fn push(&mut self, mut awaited: Awaited) {
        match &mut awaited {
            Awaited::Local(answer) => self.waiting += answer.len(),
            Awaited::Response { asked, .. } => *asked = self.now,
            Awaited::Token => {}
        }
        self.queue.push_back(awaited);
    }

    /// Whether the next answer is a raw token.
    pub(super) fn expects_token(&self) -> bool {
        matches!(self.queue.front(), Some(Awaited::Token))
    }

    /// Takes the awaited token off.
    pub(super) fn take_token(&mut self) {
        if self.expects_token() {
            self.queue.pop_front();
        }
    }

    /// Takes the next answer where it is one of ours: its turn has come.
    pub(super) fn take_local(&mut self) -> Option<Vec<u8>> {
        match self.queue.front_mut() {
            Some(Awaited::Local(answer)) => {
                let answer = std::mem::take(answer);
                self.waiting -= answer.len();
                self.queue.pop_front();
                Some(answer)
            }
            _ => None,
        }
    }

    /// Whether the next answer is one of ours.
    pub(super) fn expects_local(&self) -> bool {
        matches!(self.queue.front(), Some(Awaited::Local(_)))
    }

    /// The oldest request that a broker is to answer: correlation id, API key and version.
    pub(super) fn oldest(&self) -> Option<(i32, i16, i16)> {
        self.queue.iter().find_map(|awaited| match awaited {
            Awaited::Response { correlation_id, key, version, .. } => Some((*correlation_id, *key, *version)),
            Awaited::Token | Awaited::Local(_) => None,
        })
    }

    /// Forgets awaited tokens: authentication went on with other means.
    pub(super) fn forget_tokens(&mut self) {
        self.queue.retain(|awaited| !matches!(awaited, Awaited::Token));
    }

    /// Finds what a response answers: API key and version. `None` for one that nobody asked for.
    pub(super) fn answer(&mut self, id: i32) -> Option<(i16, i16)> {
        let at = self
            .queue
            .iter()
            .position(|awaited| matches!(awaited, Awaited::Response { correlation_id, .. } if *correlation_id == id));
        match at {
            Some(0) => {}
            Some(_) => self.out_of_order += 1,
            None => self.unknown += 1,
        }
        match self.queue.remove(at?) {
            Some(Awaited::Response { key, version, asked, .. }) => {
                if let (Some(asked), Some(now)) = (asked, self.now) {
                    self.answered.push((key, now.saturating_duration_since(asked)));
                }
                Some((key, version))
            }
            _ => None,
        }
    }

    /// APIs that were answered since the last call, and how long that took.
    pub(super) fn take_answered(&mut self) -> impl Iterator<Item = (i16, Duration)> + '_ {
        self.answered.drain(..)
    }

    /// Responses that came out of order, and that nobody asked for, since the last call.
    pub(super) fn take_oddities(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.out_of_order), std::mem::take(&mut self.unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(correlation_id: i32) -> Awaited {
        Awaited::Response { correlation_id, key: 3, version: correlation_id as i16, asked: None }
    }

    #[test]
    fn answers_in_order_and_finds_what_is_not() {
        let mut ring = InFlight::default();
        for id in [1, 2, 3, 2] {
            ring.push(response(id));
        }
        assert_eq!(ring.answer(1), Some((3, 1)));
        assert_eq!(ring.answer(3), Some((3, 3)));
        assert_eq!(ring.answer(9), None);
        assert_eq!(ring.answer(2), Some((3, 2)));
        assert_eq!(ring.answer(2), Some((3, 2)), "the same id twice is two answers");
        assert_eq!(ring.answer(2), None);
        assert!(ring.is_empty());
        assert_eq!(ring.take_oddities(), (1, 2));
    }

    #[test]
    fn our_own_answers_wait_for_their_turn() {
        let mut ring = InFlight::default();
        ring.push(response(1));
        ring.push(Awaited::Local(b"ours".to_vec()));
        assert_eq!((ring.take_local(), ring.oldest()), (None, Some((1, 3, 1))));
        ring.answer(1);
        assert_eq!((ring.take_local(), ring.take_local()), (Some(b"ours".to_vec()), None));
        assert!(ring.is_empty());
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "a moment to begin with")]
    fn tells_how_long_each_answer_took() {
        let (mut ring, start) = (InFlight::default(), Instant::now());
        ring.push(response(1));
        ring.at(start);
        ring.push(response(2));
        ring.at(start + Duration::from_millis(10));
        ring.push(response(3));
        ring.at(start + Duration::from_millis(50));
        for id in 1..=3 {
            assert_eq!(ring.answer(id), Some((3, id as i16)));
        }
        let took: Vec<_> = ring.take_answered().collect();
        assert_eq!(
            took,
            [(3, Duration::from_millis(50)), (3, Duration::from_millis(40))],
            "the first came before time"
        );
        assert_eq!(ring.take_answered().count(), 0);
    }

    #[test]
    fn is_bounded() {
        let mut ring = InFlight::default();
        (0..MOST_IN_FLIGHT as i32).for_each(|id| ring.push(response(id)));
        assert!(ring.is_full());
        ring.answer(0);
        assert!(!ring.is_full());
        let mut ours = InFlight::default();
        ours.push(Awaited::Local(vec![0; MOST_WAITING - 1]));
        assert!(!ours.is_full());
        ours.push(Awaited::Local(vec![0; 1]));
        assert!(ours.is_full());
        ours.take_local();
        assert!(!ours.is_full());
    }
}
