//! What is shown of single streams: how much they moved, their windows, and what they wait for.

use std::cmp::Reverse;

use serde::Serialize;

use super::Session;
use super::streams::{Phase, Stream};

/// One stream, for status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct StreamInfo {
    /// Its id on the wire, the same on both sides.
    pub id: u64,
    /// Whether this side opened it.
    pub ours: bool,
    /// Bytes that the application here has taken.
    pub bytes_in: u64,
    /// Bytes that the application here has given.
    pub bytes_out: u64,
    /// Bytes that the peer may send ahead of what was taken here.
    pub window_in: u64,
    /// Bytes that the peer still permits, those on their way included.
    pub window_out: u64,
    /// What it waits for.
    pub waits_for: WaitsFor,
}

/// What a stream waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum WaitsFor {
    /// The application here takes no bytes that are there.
    Application,
    /// The peer has not answered whether its target can be reached, or we have not.
    Answer,
    /// Room in this side's budget for bytes in memory.
    Budget,
    /// A carrier that takes what is to be sent.
    Carrier,
    /// The peer's credit: its application is slower, or acknowledgements are on their way.
    Credit,
    /// Nothing: it is idle, or flows.
    Nothing,
}

impl Session {
    /// The `most` live streams that moved the most bytes, the first one first.
    #[must_use]
    pub fn busiest(&self, most: usize) -> Vec<StreamInfo> {
        let live = self.streams.iter().filter(|(_, stream)| stream.is_live());
        let mut streams: Vec<(u64, &Stream)> = live.map(|(&id, stream)| (id, &**stream)).collect();
        let moved = |(_, stream): &(u64, &Stream)| Reverse(stream.recv.read_off() + stream.send.written());
        if streams.len() > most {
            streams.select_nth_unstable_by_key(most, moved);
            streams.truncate(most);
        }
        streams.sort_by_key(|stream| (moved(stream), stream.0));
        streams.into_iter().map(|(id, stream)| self.shown(id, stream)).collect()
    }

    fn shown(&self, id: u64, stream: &Stream) -> StreamInfo {
        StreamInfo {
            id,
            ours: stream.mine,
            bytes_in: stream.recv.read_off(),
            bytes_out: stream.send.written(),
            window_in: stream.window.target(),
            window_out: stream.send.max_off().saturating_sub(stream.send.acked()),
            waits_for: self.waits_for(stream),
        }
    }

    fn waits_for(&self, stream: &Stream) -> WaitsFor {
        if matches!(stream.phase, Phase::Opening { .. } | Phase::Offered) {
            WaitsFor::Answer
        } else if stream.write_blocked && stream.send.room() == 0 {
            WaitsFor::Credit
        } else if stream.write_blocked && self.budget.send_room(stream.send.buffered()) == 0 {
            WaitsFor::Budget
        } else if stream.recv.is_readable() && !stream.read_blocked {
            WaitsFor::Application
        } else if stream.is_sendable() {
            WaitsFor::Carrier
        } else {
            WaitsFor::Nothing
        }
    }
}
