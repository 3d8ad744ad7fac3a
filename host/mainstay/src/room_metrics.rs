//! How tables, logs of predictions, events and jobs stand, ready for `/metrics`.
//!
//! Owns one collector for all of them; it asks when somebody looks. Separate from the rooms, which know nothing of metrics.
//! Bounded by the numbers of tables, logs, subscriptions and pools, which are bounded. On failure: what cannot be read is left
//! out, and the host's log says why.

use std::fmt;

use mainstay_base::Result;
use mainstay_gateway::Rooms;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType::{Counter, Gauge};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Encodes how the rooms stand; register it with `Registry::register_collector`.
pub struct RoomCollector(pub Rooms);

impl fmt::Debug for RoomCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RoomCollector")
    }
}

/// Values of one label, and a number for each of [`Family::numbers`].
type Row<const N: usize> = (String, [f64; N]);

/// Some numbers of everything of one kind.
struct Family<const N: usize> {
    /// What each is labelled with.
    label: &'static str,
    /// Name, help, and whether it only grows.
    numbers: [(&'static str, &'static str, bool); N],
    rows: Result<Vec<Row<N>>>,
}

impl<const N: usize> Family<N> {
    fn encode(self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let rows = match self.rows {
            Ok(rows) => rows,
            Err(error) => {
                tracing::warn!(label = self.label, %error, "metrics are incomplete");
                return Ok(());
            }
        };
        for (at, (name, help, is_counter)) in self.numbers.iter().enumerate() {
            let kind = if *is_counter { Counter } else { Gauge };
            let name = format!("mainstay_{name}");
            let mut metric = encoder.encode_descriptor(&name, help, None, kind)?;
            for (value, numbers) in &rows {
                let labels = [(self.label, value.as_str())];
                let one = metric.encode_family(&labels)?;
                match kind {
                    Counter => ConstCounter::new(numbers[at]).encode(one)?,
                    _ => ConstGauge::new(numbers[at]).encode(one)?,
                }
            }
        }
        Ok(())
    }
}

fn tables(rooms: &Rooms) -> Family<5> {
    let tables = &rooms.tables.tables;
    let one = |name: String| {
        let stats = tables.table(&name)?.stats()?;
        let missing: u64 = stats.damaged.iter().map(|missing| missing.rows).sum();
        let numbers = [stats.files as u64, stats.file_rows, stats.file_bytes, stats.pending_bytes, missing];
        Ok((name, numbers.map(|number| number as f64)))
    };
    Family {
        label: "table",
        numbers: [
            ("table_files", "Parquet files of a table", false),
            ("table_rows", "Rows in its files", false),
            ("table_bytes", "Bytes of its files", false),
            ("table_pending_bytes", "Bytes of rows that are not yet in files", false),
            ("table_missing_rows", "Rows that are missing because files are damaged", false),
        ],
        rows: tables.list().into_iter().map(|name| one(name.to_string())).collect(),
    }
}

fn predictions(rooms: &Rooms) -> Family<3> {
    let one = |name: String| {
        let written = rooms.predictions.log(&name)?.written();
        Ok((name, [written.kept, written.dropped, written.waiting].map(|number| number as f64)))
    };
    Family {
        label: "log",
        numbers: [
            ("predictions_kept", "Predictions behind answers that were kept", true),
            ("predictions_dropped", "Predictions for which there was no room, or that could not be written", true),
            ("predictions_waiting", "Predictions that wait to be written", false),
        ],
        rows: rooms.predictions.list().into_iter().map(one).collect(),
    }
}

fn subscriptions(rooms: &Rooms) -> Family<3> {
    let events = &rooms.events;
    let one = |name: String| {
        let lags = events.lag(&name)?;
        let waiting: u64 = lags.iter().map(|lag| u64::from(lag.waiting)).sum();
        let oldest_ms = lags.iter().filter_map(|lag| lag.oldest_age_ms).max().unwrap_or_default();
        let dead = events.dead_letter_count(&name)?;
        Ok((name, [waiting as f64, oldest_ms as f64 / 1e3, dead as f64]))
    };
    let rows = events.subscriptions().and_then(|all| all.into_iter().map(|each| one(each.subscription.name)).collect());
    Family {
        label: "subscription",
        numbers: [
            ("events_waiting", "Events that wait for a subscription, counted up to a bound", false),
            ("events_oldest_seconds", "How long the oldest of them has waited", false),
            ("events_dead_letters", "Events that were given up", false),
        ],
        rows,
    }
}

fn pools(rooms: &Rooms) -> Family<2> {
    let pools = rooms.jobs.scheduler.pools();
    let one =
        |pool: mainstay_schedule::PoolUse| (pool.pool.name.clone(), [f64::from(pool.pool.slots), pool.used as f64]);
    Family {
        label: "pool",
        numbers: [
            ("job_slots", "Slots of a pool of jobs", false),
            ("job_slots_used", "Slots that attempts hold", false),
        ],
        rows: pools.map(|pools| pools.into_iter().map(one).collect()),
    }
}

impl Collector for RoomCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        tables(&self.0).encode(&mut encoder)?;
        predictions(&self.0).encode(&mut encoder)?;
        subscriptions(&self.0).encode(&mut encoder)?;
        pools(&self.0).encode(&mut encoder)
    }
}
