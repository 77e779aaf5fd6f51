//! Copies topics of the peer's cluster into the local one.
//!
//! ```text
//! source brokers ─▶ fetch (4 connections each) ─▶ lane ─▶ append (4 connections each) ─▶ target brokers
//!                                                  │ acknowledged
//!                    flow: metadata, plan,         ▼
//!                    adoption, leaders          store: __linkspan-progress at the target
//! ```
//!
//! Rules kept here:
//! * A batch passes as it was fetched, under a new header; what cannot pass is written anew ([`decide::batches`]).
//! * Of each partition one append at most is under way, so order holds after any failure. The sequence of a record is its ordinal
//!   among those that the flow put into the partition, so a broker appends a batch at its place only.
//! * Nothing whose outcome is unknown is sent again before the leader was asked; where the leader has forgotten the producer the
//!   target's own log is read (`recover`).
//! * A producer id stands in the target's registry before it writes; batches of producers that stand in the source's for data of
//!   the target stay behind. Where that cannot be told nothing is copied.
//! * Progress tells only of what was acknowledged, and a partition's first progress is written before its first append.
//! * Nothing is skipped in silence: what the source lost before it was copied becomes an event.
//! * Groups follow exactly or not at all: what the offset map does not know is said, never guessed ([`decide::offset_map`]).
//! * What is in memory is bounded by each fetcher's part of [`MEMORY`]; a lane that cannot be appended gives its part back.

mod acls;
mod adopt;
mod append;
mod budget;
mod cluster;
mod compacted;
pub mod decide;
mod fetch;
mod flow;
mod gone;
mod groups;
mod lane;
mod ledger;
mod log;
mod mm2;
mod offsets;
mod operate;
mod recover;
mod registry;
mod shared;
mod show;
mod status;
mod store;
mod topics;
mod verify;

#[cfg(test)]
mod fake;
#[cfg(test)]
mod tests;

pub use cluster::{Answer, Cluster, Outcomes, ProducerState};
pub use flow::{Flow, FlowError, FlowHandle, MEMORY};
pub use groups::board::{GroupEvent, GroupState, GroupStatus};
pub use operate::{OperateError, Preview};
pub use status::{
    AclsStatus, Change, FlowState, FlowStatus, Guarantee, Happened, LastError, Looped, MOST_EVENTS, MOST_STANDING,
    PartitionCounts, PartitionEvent, PartitionState, PartitionStatus, Reason, TargetEvent, TopicChange, TopicState,
    TopicStatus, TroubleCode,
};
pub use verify::{Compared, Cursor};
