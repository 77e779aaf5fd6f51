//! What the product promises, on real Apache Kafka in two networks with the same addresses. Run by `bin/test real`.
//!
//! The tests share one bed and run one after the other (`--test-threads=1`), in the order of their names; the last one ends the bed.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

// The benches use parts of it that no test does.
#[allow(dead_code)]
mod bed;
mod both;
mod carriers;
mod chaos;
mod clients;
mod config;
mod copying;
mod faults;
mod groups;
mod networks;
mod offload;
mod once;
mod refusals;
mod topics;
mod using;

/// Ends brokers and networks; named to come last.
#[test]
fn zz_ends_the_bed() {
    bed::down();
}
