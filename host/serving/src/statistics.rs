//! What was counted of each version, as the protocol tells it.
//!
//! Owns [`Book`]. Separate from traffic's signals, which have windows and are for decisions; these only grow. Bounded by
//! [`STATISTICS_MAX`] versions: further ones are not counted. Does not fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mainstay_inference::ModelStatistics;
use mainstay_inference::proto::{InferStatistics, StatisticDuration};
use parking_lot::Mutex;

/// Versions of endpoints that are counted.
pub const STATISTICS_MAX: usize = 10_000;

/// An endpoint and a version.
type Name = (Arc<str>, Arc<str>);

#[derive(Clone, Copy, Default)]
struct Counted {
    rows: u64,
    answered: u64,
    answered_ns: u64,
    refused: u64,
    refused_ns: u64,
    last_ms: u64,
}

/// See the module.
#[derive(Default)]
pub struct Book(Mutex<HashMap<Name, Counted>>);

impl Book {
    /// A request was answered.
    pub fn answered(&self, endpoint: &Arc<str>, version: &Arc<str>, rows: u64, took: Duration, now_ms: i64) {
        self.change(endpoint, version, |counted| {
            counted.rows += rows;
            counted.answered += 1;
            counted.answered_ns += nanoseconds(took);
            counted.last_ms = now_ms.unsigned_abs();
        });
    }

    /// A request was not answered.
    pub fn refused(&self, endpoint: &Arc<str>, version: &Arc<str>, took: Duration) {
        self.change(endpoint, version, |counted| {
            counted.refused += 1;
            counted.refused_ns += nanoseconds(took);
        });
    }

    fn change(&self, endpoint: &Arc<str>, version: &Arc<str>, change: impl FnOnce(&mut Counted)) {
        let mut book = self.0.lock();
        let key = (endpoint.clone(), version.clone());
        if book.len() < STATISTICS_MAX || book.contains_key(&key) {
            change(book.entry(key).or_default());
        }
    }

    /// What was counted. Executions are requests: how many rows were launched together is in the host's metrics, by kernel.
    pub fn statistics(&self, endpoint: &Arc<str>, version: &Arc<str>) -> ModelStatistics {
        let counted = self.0.lock().get(&(endpoint.clone(), version.clone())).copied().unwrap_or_default();
        let duration = |count, ns| Some(StatisticDuration { count, ns });
        ModelStatistics {
            name: endpoint.to_string(),
            version: version.to_string(),
            last_inference: counted.last_ms,
            inference_count: counted.rows,
            execution_count: counted.answered,
            inference_stats: Some(InferStatistics {
                success: duration(counted.answered, counted.answered_ns),
                fail: duration(counted.refused, counted.refused_ns),
                queue: duration(0, 0),
                compute_input: duration(0, 0),
                compute_infer: duration(counted.answered, counted.answered_ns),
                compute_output: duration(0, 0),
                cache_hit: duration(0, 0),
                cache_miss: duration(0, 0),
            }),
            ..Default::default()
        }
    }
}

fn nanoseconds(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}
