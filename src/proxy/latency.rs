//! How long brokers take to answer, by API: from a request's head as it is read here to the head of its response.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::Serialize;

use crate::kafka::api;

/// Upper bounds of the buckets, in microseconds: a round trip between processors to one around the world, and what waits for data (a
/// Fetch waits half a second by default).
pub const BOUNDS_US: [u64; 12] =
    [1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 10_000_000];

/// APIs by their keys, and one place for all that this program does not know.
const PLACES: usize = 94;

/// Answers of one broker.
#[derive(Debug)]
pub(super) struct Latencies(Box<[OnceLock<Box<Histogram>>; PLACES]>);

#[derive(Debug, Default)]
struct Histogram {
    /// The last is for what is above all bounds.
    buckets: [AtomicU64; BOUNDS_US.len() + 1],
    micros: AtomicU64,
}

/// What one broker answered of one API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiLatency {
    /// The API.
    pub api: &'static str,
    /// Answers by time: up to each of [`BOUNDS_US`] and above the one before; the last is for the rest.
    pub buckets: Vec<u64>,
    /// All times together, in microseconds.
    pub sum_us: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Box::new([const { OnceLock::new() }; PLACES]))
    }
}

impl Latencies {
    /// An answer to `key` took so long.
    pub(super) fn note(&self, key: i16, took: Duration) {
        let place = usize::try_from(key).unwrap_or(PLACES).min(PLACES - 1);
        let histogram = self.0[place].get_or_init(Box::default);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_US.partition_point(|bound| *bound < micros);
        histogram.buckets[bucket].fetch_add(1, Ordering::Relaxed);
        histogram.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Every API that was answered.
    pub(super) fn all(&self) -> Vec<ApiLatency> {
        let seen = self.0.iter().enumerate().filter_map(|(place, histogram)| Some((place, histogram.get()?)));
        seen.map(|(place, histogram)| ApiLatency {
            api: i16::try_from(place).map_or("unknown", api::name),
            buckets: histogram.buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect(),
            sum_us: histogram.micros.load(Ordering::Relaxed),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_is_in_one_bucket() {
        let latencies = Latencies::default();
        assert!(latencies.all().is_empty());
        for (key, micros) in [(0, 0), (0, 1_000), (0, 1_001), (0, 60_000_000), (30_000, 3_000), (-1, 3_000)] {
            latencies.note(key, Duration::from_micros(micros));
        }
        let all = latencies.all();
        let shown: Vec<_> = all.iter().map(|one| (one.api, one.buckets.iter().sum::<u64>(), one.sum_us)).collect();
        assert_eq!(shown, [("Produce", 4, 60_002_001), ("unknown", 2, 6_000)]);
        assert_eq!((all[0].buckets[0], all[0].buckets[1], all[0].buckets[12]), (2, 1, 1));
    }
}
