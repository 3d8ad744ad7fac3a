//! What the gateway counts, in the registry that every room shares.
//!
//! A route's counters are looked up once and then held by the route, so that counting a request is two atomic additions and
//! one bucket. Labels come from manifests, never from what clients send: their number is bounded by what is installed.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::RwLock;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// The registry that `/metrics` shows; rooms register their metrics into it.
pub type SharedRegistry = Arc<RwLock<Registry>>;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RequestLabels {
    plugin: Arc<str>,
    route: Arc<str>,
    method: String,
    status: u16,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RouteLabels {
    plugin: Arc<str>,
    route: Arc<str>,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

/// The gateway's metrics.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram, fn() -> Histogram>,
    auth_failures: Family<ReasonLabels, Counter>,
    closed: Family<ReasonLabels, Counter>,
    refused: Family<ReasonLabels, Counter>,
    pub(crate) in_flight: Gauge,
    pub(crate) connections: Gauge,
    pub(crate) buffered_bytes: Gauge,
}

fn latency_histogram() -> Histogram {
    const BUCKETS_S: [f64; 16] =
        [0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
    Histogram::new(BUCKETS_S)
}

impl Metrics {
    pub(crate) fn register(registry: &mut Registry) -> Metrics {
        let metrics = Metrics {
            requests: Family::default(),
            latency: Family::new_with_constructor(latency_histogram),
            auth_failures: Family::default(),
            closed: Family::default(),
            refused: Family::default(),
            in_flight: Gauge::default(),
            connections: Gauge::default(),
            buffered_bytes: Gauge::default(),
        };
        let m = metrics.clone();
        registry.register("mainstay_http_requests", "HTTP requests answered", m.requests);
        registry.register(
            "mainstay_http_request_seconds",
            "Time from a request's head to its answer's head, in seconds",
            m.latency,
        );
        registry.register("mainstay_http_auth_failures", "Requests with wrong or missing credentials", m.auth_failures);
        registry.register("mainstay_http_connections_closed", "Connections closed by the host", m.closed);
        registry.register(
            "mainstay_http_requests_refused",
            "Requests refused before their route was called",
            m.refused,
        );
        registry.register("mainstay_http_requests_in_flight", "HTTP requests being answered", m.in_flight);
        registry.register("mainstay_http_connections", "Open HTTP connections", m.connections);
        registry.register("mainstay_http_buffered_bytes", "Bytes of request bodies held in memory", m.buffered_bytes);
        metrics
    }

    pub(crate) fn route(&self, plugin: &str, route: &str) -> RouteMeters {
        let (plugin, route): (Arc<str>, Arc<str>) = (plugin.into(), route.into());
        let labels = RouteLabels { plugin: plugin.clone(), route: route.clone() };
        RouteMeters {
            latency: self.latency.get_or_create_owned(&labels),
            plugin,
            route,
            requests: self.requests.clone(),
            counters: RwLock::default(),
        }
    }

    pub(crate) fn auth_failed(&self, reason: &'static str) {
        self.auth_failures.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(crate) fn connection_closed(&self, reason: &'static str) {
        self.closed.get_or_create(&ReasonLabels { reason }).inc();
    }

    pub(crate) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&ReasonLabels { reason }).inc();
    }
}

/// The counters of one route.
pub(crate) struct RouteMeters {
    plugin: Arc<str>,
    route: Arc<str>,
    latency: Histogram,
    requests: Family<RequestLabels, Counter>,
    /// Those seen so far: few, so a scan is quicker than a hash.
    counters: RwLock<Vec<(Method, u16, Counter)>>,
}

impl RouteMeters {
    pub(crate) fn answered(&self, method: &Method, status: u16, took: Duration) {
        self.latency.observe(took.as_secs_f64());
        let known = |counters: &[(Method, u16, Counter)]| {
            let found = counters.iter().find(|(known, code, _)| *code == status && known == method);
            found.map(|(_, _, counter)| counter.inc()).is_some()
        };
        if known(&self.counters.read()) {
            return;
        }
        // Methods that nobody routes share one label, or clients could invent labels without end.
        let word = match *method {
            Method::GET
            | Method::HEAD
            | Method::POST
            | Method::PUT
            | Method::PATCH
            | Method::DELETE
            | Method::OPTIONS => method.as_str(),
            _ => "other",
        };
        let labels =
            RequestLabels { plugin: self.plugin.clone(), route: self.route.clone(), method: word.to_owned(), status };
        let counter = self.requests.get_or_create_owned(&labels);
        counter.inc();
        if word != "other" {
            self.counters.write().push((method.clone(), status, counter));
        }
    }
}
