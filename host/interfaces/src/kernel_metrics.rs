//! What the batchers have seen, ready for `/metrics`: depth, waits, sizes, launches, and why each batch was released.
//!
//! Separate from the plugins' metrics because it is about the host's own kernels, labelled by their names. Bounded by the
//! number of kernels and [`STEPS`] buckets each. On failure: the encoder's error.

use mainstay_kernels::Kernels;
use mainstay_kernels::batcher::{Histogram, Reason, Stats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Buckets of a histogram: each reaches four times as far as the one before.
const STEPS: u32 = 16;
/// The first bucket of times, in nanoseconds.
const FIRST_NS: u64 = 1_024;
const NS_PER_S: f64 = 1e9;

/// Encodes the statistics of all kernels; register it with `Registry::register_collector`.
#[derive(Clone)]
pub struct KernelCollector(pub Kernels);

impl std::fmt::Debug for KernelCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KernelCollector")
    }
}

/// One number of each kernel.
type Number = (&'static str, &'static str, MetricType, fn(&Stats) -> f64);

const NUMBERS: &[Number] = &[
    ("waiting_requests", "Requests that wait", MetricType::Gauge, |stats| stats.waiting_requests as f64),
    ("waiting_rows", "Rows that wait", MetricType::Gauge, |stats| stats.waiting_rows as f64),
    ("running_launches", "Launches that run", MetricType::Gauge, |stats| stats.running_launches as f64),
    ("busy_seconds", "Time in which a launch ran", MetricType::Counter, |stats| stats.busy_ns as f64 / NS_PER_S),
    ("calls", "Calls", MetricType::Counter, |stats| stats.counts.submitted as f64),
    ("refused", "Calls refused by a full queue", MetricType::Counter, |stats| {
        (stats.counts.exhausted + stats.counts.shed) as f64
    }),
    ("expired", "Calls whose deadline passed", MetricType::Counter, |stats| stats.counts.expired as f64),
    ("cancelled", "Calls whose caller went away", MetricType::Counter, |stats| stats.counts.cancelled as f64),
    ("failed", "Calls whose launch failed", MetricType::Counter, |stats| stats.counts.failed as f64),
];

/// One distribution of each kernel: its first bucket, and by what values are divided.
type Spread = (&'static str, &'static str, fn(&Stats) -> &Histogram, u64, f64);

const SPREADS: &[Spread] = &[
    ("wait_seconds", "From submission to launch", |stats| &stats.wait_ns, FIRST_NS, NS_PER_S),
    ("launch_seconds", "How long launches ran", |stats| &stats.launch_ns, FIRST_NS, NS_PER_S),
    ("batch_rows", "Rows of launches", |stats| &stats.batch_rows, 1, 1.0),
    ("batch_requests", "Requests joined in launches", |stats| &stats.batch_requests, 1, 1.0),
];

impl Collector for KernelCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let kernels = self.0.stats();
        for (name, help, kind, of) in NUMBERS {
            let name = format!("mainstay_kernel_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, *kind)?;
            for (kernel, stats) in &kernels {
                let labels = [("kernel", *kernel)];
                let labelled = family.encode_family(&labels)?;
                match kind {
                    MetricType::Gauge => ConstGauge::new(of(stats)).encode(labelled)?,
                    _ => ConstCounter::new(of(stats)).encode(labelled)?,
                }
            }
        }
        let (name, help) = ("mainstay_kernel_released", "Batches, by why they were released");
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (kernel, stats) in &kernels {
            for reason in Reason::ALL {
                let labels = [("kernel", *kernel), ("reason", reason.name())];
                let labelled = family.encode_family(&labels)?;
                ConstCounter::new(stats.released_for(reason)).encode(labelled)?;
            }
        }
        for (name, help, of, first, unit) in SPREADS {
            let name = format!("mainstay_kernel_{name}");
            let mut family = encoder.encode_descriptor(&name, help, None, MetricType::Histogram)?;
            for (kernel, stats) in &kernels {
                let seen = of(stats);
                let sum = seen.sum() as f64 / unit;
                let buckets = buckets(seen, *first, *unit);
                let labels = [("kernel", *kernel)];
                let mut labelled = family.encode_family(&labels)?;
                labelled.encode_histogram::<NoLabelSet>(sum, seen.count(), &buckets, None)?;
            }
        }
        Ok(())
    }
}

/// The same values in the buckets that are always shown. Ends are powers of two, as the fine buckets' are, so that none of
/// those is cut.
fn buckets(seen: &Histogram, first: u64, unit: f64) -> Vec<(f64, u64)> {
    let mut coarse: Vec<(u64, u64)> = (0..STEPS).map(|step| (first << (2 * step), 0)).collect();
    let mut beyond = 0;
    for (end, count) in seen.buckets() {
        match coarse.iter_mut().find(|(upper, _)| end <= *upper) {
            Some((_, sum)) => *sum += count,
            None => beyond += count,
        }
    }
    let finite = coarse.into_iter().map(|(upper, count)| (upper as f64 / unit, count));
    finite.chain([(f64::MAX, beyond)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_in_one_bucket() {
        let mut seen = Histogram::default();
        [0, 1, 4, 5, 1 << 40].into_iter().for_each(|value| seen.record(value));
        let shown = buckets(&seen, 1, 1.0);
        assert_eq!(shown.len(), STEPS as usize + 1);
        assert_eq!(&shown[..3], [(1.0, 2), (4.0, 1), (16.0, 1)]);
        assert_eq!(shown.last(), Some(&(f64::MAX, 1)));
    }

    #[test]
    fn kernels_are_named_in_the_exposition() {
        let kernels = Kernels::start(
            &mainstay_kernels::Options::default(),
            std::sync::Arc::new(mainstay_base::SystemClock::default()),
        );
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(KernelCollector(kernels.unwrap())));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in [
            "mainstay_kernel_waiting_requests{kernel=\"statistics\"} 0.0",
            "mainstay_kernel_released_total{kernel=\"predict\",reason=\"idle\"} 0",
            "mainstay_kernel_wait_seconds_count{kernel=\"explain\"} 0",
        ] {
            assert!(text.contains(line), "{line}\nis not in\n{text}");
        }
    }
}
