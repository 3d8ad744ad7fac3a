//! What plugins report as metrics, and what the host reports about plugins, ready for `/metrics`.
//!
//! Separate from the gateway because the bounds belong to the contract: at most [`NAMES_MAX`] names a plugin and
//! [`LABEL_SETS_MAX`] label sets a name. What is beyond is dropped and counted (`mainstay_plugin_metrics_dropped`).
//!
//! On failure: a metric that cannot be taken is dropped and counted; nothing here fails a call.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use mainstay_runtime::Stats;
use parking_lot::Mutex;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};

/// Names of metrics that a plugin may use.
pub const NAMES_MAX: usize = 100;
/// Label sets that a plugin may use with one name.
pub const LABEL_SETS_MAX: usize = 1_000;
/// Labels of one observation.
pub const LABELS_MAX: usize = 16;
/// The longest label value; a longer one is cut.
pub const LABEL_BYTES_MAX: usize = 256;
/// The longest name of a metric or label.
pub const NAME_BYTES_MAX: usize = 128;

type Labels = Vec<(String, String)>;
type F64Counter = Counter<f64, std::sync::atomic::AtomicU64>;
type F64Gauge = Gauge<f64, std::sync::atomic::AtomicU64>;

/// What a plugin does with a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// Adds to it.
    Counter,
    /// Sets it.
    Gauge,
    /// Observes into it.
    Histogram,
}

enum Metric {
    Counter(Family<Labels, F64Counter>),
    Gauge(Family<Labels, F64Gauge>),
    Histogram(Family<Labels, Histogram>),
}

impl Metric {
    fn new(kind: MetricKind) -> Metric {
        match kind {
            MetricKind::Counter => Metric::Counter(Family::default()),
            MetricKind::Gauge => Metric::Gauge(Family::default()),
            // 1 ms to about 10 minutes when the unit is seconds; a plugin that measures otherwise scales.
            MetricKind::Histogram => {
                Metric::Histogram(Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.001, 2.0, 20))))
            }
        }
    }

    fn kind(&self) -> MetricKind {
        match self {
            Metric::Counter(_) => MetricKind::Counter,
            Metric::Gauge(_) => MetricKind::Gauge,
            Metric::Histogram(_) => MetricKind::Histogram,
        }
    }

    fn record(&self, labels: &Labels, value: f64) {
        match self {
            Metric::Counter(family) => {
                family.get_or_create(labels).inc_by(value);
            }
            Metric::Gauge(family) => {
                family.get_or_create(labels).set(value);
            }
            Metric::Histogram(family) => family.get_or_create(labels).observe(value),
        }
    }
}

/// The names that a plugin uses, and with which label sets.
type Used = HashMap<String, HashSet<Labels>>;

#[derive(Default)]
struct Books {
    metrics: BTreeMap<String, Metric>,
    used: HashMap<Arc<str>, Used>,
    dropped: BTreeMap<Arc<str>, u64>,
}

/// A plugin whose own numbers are shown: its name and how to get them.
type Source = Arc<dyn Fn() -> Vec<(Arc<str>, Stats)> + Send + Sync>;

/// See the module.
#[derive(Default)]
pub struct Telemetry {
    books: Mutex<Books>,
    source: Mutex<Option<Source>>,
}

impl Telemetry {
    /// Take one observation of a plugin. What breaks a bound is dropped and counted.
    pub fn record(&self, plugin: &Arc<str>, kind: MetricKind, name: &str, value: f64, labels: Vec<(String, String)>) {
        let mut books = self.books.lock();
        if !books.record(plugin, kind, name, value, labels) {
            *books.dropped.entry(plugin.clone()).or_default() += 1;
        }
    }

    /// How many observations of a plugin were dropped.
    pub fn dropped(&self, plugin: &str) -> u64 {
        self.books.lock().dropped.get(plugin).copied().unwrap_or_default()
    }

    /// Where the host's own numbers about plugins come from.
    pub(crate) fn set_source(&self, source: Source) {
        *self.source.lock() = Some(source);
    }
}

impl Books {
    fn record(&mut self, plugin: &Arc<str>, kind: MetricKind, name: &str, value: f64, labels: Labels) -> bool {
        let fits = is_name(name) && labels.len() <= LABELS_MAX && labels.iter().all(|(key, _)| is_label(key));
        let sensible = match kind {
            MetricKind::Counter => value.is_finite() && value >= 0.0,
            MetricKind::Gauge => true,
            MetricKind::Histogram => !value.is_nan(),
        };
        if !fits || !sensible {
            return false;
        }
        let mut labels: Labels = labels.into_iter().map(|(key, value)| (key, cut(value))).collect();
        labels.sort();
        if labels.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return false;
        }
        labels.insert(0, ("plugin".to_owned(), plugin.to_string()));
        if !self.admit(plugin, name, &labels) {
            return false;
        }
        let metric = self.metrics.entry(name.to_owned()).or_insert_with(|| Metric::new(kind));
        // Two plugins may share a name, but one name has one meaning.
        if metric.kind() != kind {
            return false;
        }
        metric.record(&labels, value);
        true
    }

    fn admit(&mut self, plugin: &Arc<str>, name: &str, labels: &Labels) -> bool {
        let used = self.used.entry(plugin.clone()).or_default();
        if !used.contains_key(name) {
            if used.len() >= NAMES_MAX {
                return false;
            }
            used.insert(name.to_owned(), HashSet::new());
        }
        let sets = used.get_mut(name).expect("it is there or was just inserted");
        if sets.contains(labels) {
            return true;
        }
        sets.len() < LABEL_SETS_MAX && sets.insert(labels.clone())
    }
}

fn is_name(name: &str) -> bool {
    is_identifier(name)
}

fn is_label(name: &str) -> bool {
    // `plugin` is the host's, `le` the histogram's, and two underscores are Prometheus's own.
    is_identifier(name) && name != "plugin" && name != "le" && !name.starts_with("__")
}

fn is_identifier(name: &str) -> bool {
    let starts_well = name.bytes().next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    starts_well && name.len() <= NAME_BYTES_MAX && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn cut(mut value: String) -> String {
    if value.len() > LABEL_BYTES_MAX {
        value.truncate(value.floor_char_boundary(LABEL_BYTES_MAX));
    }
    value
}

/// Encodes a [`Telemetry`]; register it with `Registry::register_collector`.
#[derive(Clone)]
pub struct TelemetryCollector(pub Arc<Telemetry>);

impl std::fmt::Debug for TelemetryCollector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TelemetryCollector")
    }
}

impl Collector for TelemetryCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let source = self.0.source.lock().clone();
        if let Some(source) = source {
            encode_stats(&mut encoder, &source())?;
        }
        let books = self.0.books.lock();
        for (name, metric) in &books.metrics {
            let name = format!("mainstay_plugin_{name}");
            let help = "Reported by the plugin";
            match metric {
                Metric::Counter(family) => {
                    family.encode(encoder.encode_descriptor(&name, help, None, family.metric_type_of())?)?;
                }
                Metric::Gauge(family) => {
                    family.encode(encoder.encode_descriptor(&name, help, None, family.metric_type_of())?)?;
                }
                Metric::Histogram(family) => {
                    family.encode(encoder.encode_descriptor(&name, help, None, family.metric_type_of())?)?;
                }
            }
        }
        let mut dropped = encoder.encode_descriptor(
            "mainstay_plugin_metrics_dropped",
            "Observations that broke a bound",
            None,
            MetricType::Counter,
        )?;
        for (plugin, count) in &books.dropped {
            ConstCounter::new(*count).encode(dropped.encode_family(&[("plugin", plugin.as_ref())])?)?;
        }
        Ok(())
    }
}

trait MetricTypeOf {
    fn metric_type_of(&self) -> MetricType;
}

impl<T: EncodeMetric> MetricTypeOf for T {
    fn metric_type_of(&self) -> MetricType {
        self.metric_type()
    }
}

/// One row of the host's own numbers about plugins.
struct Row {
    name: &'static str,
    help: &'static str,
    is_gauge: bool,
    value: fn(&Stats) -> f64,
}

const ROWS: &[Row] = &[
    Row { name: "calls", help: "Calls", is_gauge: false, value: |stats| stats.calls as f64 },
    Row { name: "calls_running", help: "Calls that run", is_gauge: true, value: |stats| stats.running as f64 },
    Row { name: "calls_waiting", help: "Calls that wait", is_gauge: true, value: |stats| stats.waiting as f64 },
    Row {
        name: "guest_seconds",
        help: "Time of the plugin's own code",
        is_gauge: false,
        value: |stats| stats.guest_us as f64 / 1e6,
    },
    Row {
        name: "host_seconds",
        help: "Time that the host worked for the plugin",
        is_gauge: false,
        value: |stats| stats.host_us as f64 / 1e6,
    },
    Row { name: "host_calls", help: "Calls into the host", is_gauge: false, value: |stats| stats.host_calls as f64 },
    Row {
        name: "denied",
        help: "Host functions that were denied",
        is_gauge: false,
        value: |stats| stats.denied as f64,
    },
    Row { name: "instances", help: "Instances made", is_gauge: false, value: |stats| stats.instances as f64 },
    Row {
        name: "log_cut_bytes",
        help: "Bytes of log messages that were cut",
        is_gauge: false,
        value: |stats| stats.log_cut_bytes as f64,
    },
    Row {
        name: "quarantine_seconds_left",
        help: "How long the plugin is still left alone",
        is_gauge: true,
        value: |stats| stats.quarantine_left_ms as f64 / 1e3,
    },
];

type Count = fn(&Stats) -> u64;

/// How calls ended, by reason.
const FAILURES: &[(&str, Count)] = &[
    ("denied", |stats| stats.ended_denied),
    ("failed", |stats| stats.failed),
    ("trap", |stats| stats.traps),
    ("timed-out", |stats| stats.timeouts),
    ("out-of-memory", |stats| stats.out_of_memory),
    ("output-too-large", |stats| stats.output_too_large),
    ("host-calls", |stats| stats.host_call_floods),
    ("busy", |stats| stats.busy),
    ("quarantined", |stats| stats.quarantined),
    ("host", |stats| stats.host_faults),
];

fn encode_stats(encoder: &mut DescriptorEncoder, plugins: &[(Arc<str>, Stats)]) -> Result<(), std::fmt::Error> {
    for row in ROWS {
        // Beside the plugins' own names, which cannot begin so: they are one word after `mainstay_plugin_`.
        let name = format!("mainstay_plugins_{}", row.name);
        let kind = if row.is_gauge { MetricType::Gauge } else { MetricType::Counter };
        let mut family = encoder.encode_descriptor(&name, row.help, None, kind)?;
        for (plugin, stats) in plugins {
            let labels = [("plugin", plugin.as_ref())];
            let value = (row.value)(stats);
            if row.is_gauge {
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            } else {
                ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
    }
    let mut family =
        encoder.encode_descriptor("mainstay_plugins_failures", "Calls without an answer", None, MetricType::Counter)?;
    for (plugin, stats) in plugins {
        for (reason, count) in FAILURES {
            let labels = [("plugin", plugin.as_ref()), ("reason", reason)];
            ConstCounter::new(count(stats)).encode(family.encode_family(&labels)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn text(telemetry: &Arc<Telemetry>) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(TelemetryCollector(telemetry.clone())));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn observations_appear_with_the_plugins_label() {
        let telemetry = Arc::new(Telemetry::default());
        let plugin: Arc<str> = "guest".into();
        let labels = || vec![("kind".to_owned(), "a\"b".to_owned())];
        telemetry.record(&plugin, MetricKind::Counter, "things", 2.0, labels());
        telemetry.record(&plugin, MetricKind::Counter, "things", 1.0, labels());
        telemetry.record(&plugin, MetricKind::Gauge, "level", -1.5, vec![]);
        telemetry.record(&plugin, MetricKind::Histogram, "wait_seconds", 0.01, vec![]);
        let text = text(&telemetry);
        for line in [
            r#"mainstay_plugin_things_total{plugin="guest",kind="a\"b"} 3.0"#,
            r#"mainstay_plugin_level{plugin="guest"} -1.5"#,
            r#"mainstay_plugin_wait_seconds_count{plugin="guest"} 1"#,
        ] {
            assert!(text.contains(line), "`{line}` is missing in\n{text}");
        }
    }

    #[test]
    fn names_and_label_sets_are_bounded_at_n_and_n_plus_one() {
        let telemetry = Telemetry::default();
        let plugin: Arc<str> = "guest".into();
        for name in 0..=NAMES_MAX {
            assert_eq!(telemetry.dropped("guest"), 0, "name {name}");
            telemetry.record(&plugin, MetricKind::Gauge, &format!("n{name}"), 1.0, vec![]);
        }
        assert_eq!(telemetry.dropped("guest"), 1);
        let other: Arc<str> = "other".into();
        for set in 0..=LABEL_SETS_MAX {
            assert_eq!(telemetry.dropped("other"), 0, "set {set}");
            telemetry.record(&other, MetricKind::Gauge, "n", 1.0, vec![("set".to_owned(), set.to_string())]);
        }
        assert_eq!(telemetry.dropped("other"), 1);
    }

    #[test]
    fn nonsense_is_dropped_and_counted() {
        fn check(kind: MetricKind, name: &str, value: f64, labels: &[&str]) {
            let telemetry = Arc::new(Telemetry::default());
            let labels = labels.iter().map(|key| (key.to_string(), "x".to_owned())).collect();
            telemetry.record(&"guest".into(), kind, name, value, labels);
            assert_eq!(telemetry.dropped("guest"), 1, "{name} {value}");
            assert!(text(&telemetry).contains(r#"mainstay_plugin_metrics_dropped_total{plugin="guest"} 1"#));
        }
        check(MetricKind::Counter, "n", -1.0, &[]);
        check(MetricKind::Counter, "n", f64::NAN, &[]);
        check(MetricKind::Counter, "n", f64::INFINITY, &[]);
        check(MetricKind::Histogram, "n", f64::NAN, &[]);
        check(MetricKind::Gauge, "", 1.0, &[]);
        check(MetricKind::Gauge, "1n", 1.0, &[]);
        check(MetricKind::Gauge, "n\nx 1", 1.0, &[]);
        check(MetricKind::Gauge, &"n".repeat(NAME_BYTES_MAX + 1), 1.0, &[]);
        check(MetricKind::Gauge, "n", 1.0, &["plugin"]);
        check(MetricKind::Gauge, "n", 1.0, &["a", "a"]);
        check(MetricKind::Gauge, "n", 1.0, &["a b"]);
    }

    #[test]
    fn one_name_has_one_meaning() {
        let telemetry = Telemetry::default();
        telemetry.record(&"one".into(), MetricKind::Gauge, "n", 1.0, vec![]);
        telemetry.record(&"two".into(), MetricKind::Counter, "n", 1.0, vec![]);
        assert_eq!((telemetry.dropped("one"), telemetry.dropped("two")), (0, 1));
    }
}
