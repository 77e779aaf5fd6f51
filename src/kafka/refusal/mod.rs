//! Responses that refuse a request in the words of its own API: an error code in the form of its version, with the request's own
//! topics, partitions, groups or resources, as a broker's authorizer would have it.
//!
//! Rules kept here: nothing of a request is trusted, so every count and length is checked against the bytes there are, and
//! an answer has at most [`MOST_ANSWER`] bytes; an API or version whose response is not known to the last field has no
//! refusal here, and whoever asks must end the connection instead. Codes are those that Kafka's `AbstractRequest.getErrorResponse` and
//! `KafkaApis` give where ACLs do not allow (apache/kafka 4.1, `clients/src/main/resources/common/message`).

mod recipe;
mod table;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;

use super::api;
use super::header;
use super::primitives::{Cursor, Malformed};
use super::walk::{Walker, produce};
use recipe::Run;

/// Most bytes of one answer: a request that names so much is cut off instead.
pub const MOST_ANSWER: usize = 4 << 20;

/// The answer to a refused request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// This frame.
    Answer(Vec<u8>),
    /// None: a producer that wants no acknowledgement is told by the end of the connection, as brokers do it.
    Close,
}

/// Why a request cannot be refused in its own words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalError {
    /// The request cannot be read.
    Malformed(Malformed),
    /// The answer would have more than [`MOST_ANSWER`] bytes.
    TooLarge,
    /// The API or its version has no refusal here.
    Unknown,
}

impl From<Malformed> for RefusalError {
    fn from(error: Malformed) -> Self {
        Self::Malformed(error)
    }
}

/// Versions of `key` that can be refused in its own words; `None` for none.
#[must_use]
pub fn versions(key: i16) -> Option<RangeInclusive<i16>> {
    table::recipe(key).map(|recipe| recipe.from..=recipe.to)
}

/// Refuses a request: `frame` is all of it without its length, `message` says why where the API has a place for that. Records of a
/// Produce may be left out of it, as [`to_end_of_produce`] does.
///
/// # Errors
/// [`RefusalError`]; the connection is to be closed.
pub fn refuse(frame: &[u8], message: &str) -> Result<Refusal, RefusalError> {
    let mut request = Cursor::new(frame);
    let header::RequestHeader { head, .. } = header::read_request_header(&mut request)?;
    let (key, version) = (head.api_key, head.api_version);
    let recipe = table::recipe(key)
        .filter(|recipe| (recipe.from..=recipe.to).contains(&version))
        .ok_or(RefusalError::Unknown)?;
    let mut run = Run::new(request, version, api::is_flexible(key, version), message, recipe.code);
    run.begin(head.correlation_id, api::response_header_version(key, version));
    run.all(recipe.fields)?;
    if key == api::PRODUCE && run.kept(0) == [0, 0] {
        return Ok(Refusal::Close);
    }
    Ok(Refusal::Answer(run.framed()))
}

/// A walker through a whole Produce request, fed with what follows its correlation id (`body` bytes); with
/// [`Walker::feed_without_blobs`] what is left of it is small.
#[must_use]
pub fn to_end_of_produce(version: i16, body: u64) -> Walker {
    produce::to_end(version, body)
}

/// Refuses arbitrary bytes as each API in each version; for fuzzing. Panics never.
pub fn fuzz_refusals(data: &[u8]) {
    for recipe in table::all_recipes() {
        for version in recipe.from..=recipe.to {
            let mut frame = recipe.key.to_be_bytes().to_vec();
            frame.extend(version.to_be_bytes());
            frame.extend(data);
            if let Ok(Refusal::Answer(answer)) = refuse(&frame, "no") {
                assert!(answer.len() <= MOST_ANSWER + 4);
            }
        }
    }
}
