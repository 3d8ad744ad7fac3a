//! What went to the NVIDIA device and back, ready for `/metrics`.
//!
//! Separate from the kernels' metrics because only the binary knows that there is a device. Bounded: a fixed number of metrics,
//! and one label with six values. On failure: the encoder's error.

use mainstay_cuda::{Cuda, Reason, Stats};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Encodes the device's counters; register it with `Registry::register_collector`.
pub struct DeviceCollector(pub Cuda);

impl std::fmt::Debug for DeviceCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DeviceCollector")
    }
}

type Number = (&'static str, &'static str, MetricType, fn(&Stats) -> f64);

const NUMBERS: &[Number] = &[
    ("up", "Whether the device is there", MetricType::Gauge, |stats| f64::from(u8::from(stats.is_up))),
    ("memory_bytes", "Device memory that is taken", MetricType::Gauge, |stats| stats.memory_bytes as f64),
    ("residents", "Models and tables on the device", MetricType::Gauge, |stats| stats.residents as f64),
    ("batches", "Batches that the device computed", MetricType::Counter, |stats| stats.batches as f64),
    ("rows", "Rows that the device computed", MetricType::Counter, |stats| stats.rows as f64),
    ("launches", "Kernels that were launched", MetricType::Counter, |stats| stats.launches as f64),
    ("sent_bytes", "Bytes to the device", MetricType::Counter, |stats| stats.sent_bytes as f64),
    ("fetched_bytes", "Bytes from the device", MetricType::Counter, |stats| stats.fetched_bytes as f64),
    ("busy_seconds", "Time in which it computed or copied", MetricType::Counter, |stats| stats.busy_ns as f64 / 1e9),
    ("losses", "Times that it was lost", MetricType::Counter, |stats| stats.losses as f64),
];

impl Collector for DeviceCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let stats = self.0.stats();
        for (name, help, kind, number) in NUMBERS {
            let name = format!("mainstay_device_{name}");
            let metric = encoder.encode_descriptor(&name, help, None, *kind)?;
            match kind {
                MetricType::Counter => ConstCounter::new(number(&stats)).encode(metric)?,
                _ => ConstGauge::new(number(&stats)).encode(metric)?,
            }
        }
        let help = "Batches that were left to the processor";
        let mut left = encoder.encode_descriptor("mainstay_device_left", help, None, MetricType::Counter)?;
        for (reason, count) in Reason::ALL.iter().zip(stats.left) {
            let labels = [("reason", reason.name())];
            ConstCounter::new(count as f64).encode(left.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
