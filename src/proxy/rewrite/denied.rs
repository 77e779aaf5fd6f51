//! A request that goes no further: what its refusal needs of it is kept, records are not.

use super::RewriteError;
use super::local;
use super::requests::{passable, request_error};
use crate::kafka::api;
use crate::kafka::header::RequestHead;
use crate::kafka::refusal::{self, MOST_ANSWER, Refusal, RefusalError};
use crate::kafka::walk::Walker;

/// Most bytes kept of one denied request; records are none of them.
const MOST_KEPT: usize = 1 << 20;

/// UNSUPPORTED_VERSION.
const UNSUPPORTED_VERSION: i16 = 35;

/// A denied request, as far as it has come.
#[derive(Debug)]
pub(super) struct Denied {
    head: RequestHead,
    left: u64,
    kept: Vec<u8>,
    /// Through a Produce.
    walker: Option<Walker>,
}

impl Denied {
    /// Behind the first eight bytes of a request, with `left` bytes to come.
    ///
    /// # Errors
    /// [`RewriteError::Denied`] where it cannot be refused in its own words.
    pub(super) fn begin(head: RequestHead, left: u64) -> Result<Self, RewriteError> {
        let RequestHead { api_key: key, api_version: version, correlation_id } = head;
        let form = refusal::versions(key).is_some_and(|versions| versions.contains(&version));
        if !form && key != api::SASL_HANDSHAKE {
            return Err(RewriteError::Denied { key, version });
        }
        let mut kept = key.to_be_bytes().to_vec();
        kept.extend(version.to_be_bytes());
        kept.extend(correlation_id.to_be_bytes());
        let walker = (key == api::PRODUCE).then(|| refusal::to_end_of_produce(version, left));
        Ok(Self { head, left, kept, walker })
    }

    /// Its API.
    pub(super) const fn key(&self) -> i16 {
        self.head.api_key
    }

    /// Whether all of it has come.
    pub(super) const fn is_whole(&self) -> bool {
        self.left == 0
    }

    /// Takes what belongs to it of the input; how much that is.
    ///
    /// # Errors
    /// [`RewriteError`], and the connection is to be closed.
    pub(super) fn feed(&mut self, input: &[u8]) -> Result<usize, RewriteError> {
        let taken = passable(input, self.left);
        let input = &input[..taken];
        match &mut self.walker {
            Some(walker) => {
                let fed = walker.feed_without_blobs(input, &mut self.kept);
                fed.map_err(|source| request_error(self.head, source))?;
            }
            None => self.kept.extend_from_slice(input),
        }
        self.left -= taken as u64;
        self.limit(self.kept.len(), MOST_KEPT)?;
        Ok(taken)
    }

    /// The answer, once it is whole.
    ///
    /// # Errors
    /// [`RewriteError`], and the connection is to be closed.
    pub(super) fn refuse(&self) -> Result<Refusal, RewriteError> {
        let RequestHead { api_key: key, api_version: version, .. } = self.head;
        if key == api::SASL_HANDSHAKE {
            return Ok(Refusal::Answer(local::handshaken(self.head, UNSUPPORTED_VERSION, &[])));
        }
        let message = format!("{} is not allowed to clients of this proxy (linkspan, proxy.clients)", api::name(key));
        refusal::refuse(&self.kept, &message).map_err(|error| match error {
            RefusalError::Malformed(source) => request_error(self.head, source),
            RefusalError::TooLarge => {
                let (length, most) = (MOST_ANSWER as u64 + 1, MOST_ANSWER as u64);
                RewriteError::TooLarge { key, version, length, most }
            }
            RefusalError::Unknown => RewriteError::Denied { key, version },
        })
    }

    fn limit(&self, length: usize, most: usize) -> Result<(), RewriteError> {
        let RequestHead { api_key: key, api_version: version, .. } = self.head;
        let (length, most) = (length as u64, most as u64);
        if length > most { Err(RewriteError::TooLarge { key, version, length, most }) } else { Ok(()) }
    }
}
