//! Log lines on standard error, and traces by OTLP.
//!
//! Owns what becomes of `tracing`'s events and spans. Separate because no other part may know where they go. Bounded by the
//! exporter's queue: what does not fit is dropped, never waited for. On failure: an exporter that cannot be made is an error
//! at start; one that cannot send says so in the log and drops.

use crate::config::{Format, Log, Traces};
use mainstay_base::{Error, Result};
use mainstay_gateway::{TraceContext, TraceHook};
use opentelemetry::trace::{SpanContext, TraceContextExt, TraceFlags, TraceState, TracerProvider};
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData, SpanExporter};
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

const ENDPOINT_VARIABLE: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";
/// Longest wait for the last spans at the end.
const LAST_SPANS_TIMEOUT: Duration = Duration::from_secs(2);

/// Between two lines that say that traces cannot be sent.
const FAILURE_INTERVAL: Duration = Duration::from_secs(60);

/// Ends the export of traces when it is dropped, sending what is left.
#[derive(Default)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Drop for Telemetry {
    fn drop(&mut self) {
        if let Some(provider) = &self.provider
            && let Err(error) = provider.shutdown_with_timeout(LAST_SPANS_TIMEOUT)
        {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Where traces go, if anywhere.
pub fn endpoint(traces: &Traces) -> Option<String> {
    let configured = Some(traces.otlp_endpoint.clone()).filter(|endpoint| !endpoint.is_empty());
    configured.or_else(|| std::env::var(ENDPOINT_VARIABLE).ok().filter(|endpoint| !endpoint.is_empty()))
}

/// Start writing log lines, and sending traces if an endpoint is known. Once a process.
pub fn start(log: &Log, traces: Option<&Traces>) -> Result<Telemetry> {
    // A span for every request is for traces; in lines it would only be work.
    let quiet_spans = format!("mainstay::request=off,{}", log.filter);
    let filter = EnvFilter::try_new(&quiet_spans)
        .map_err(|error| Error::invalid(format!("log filter `{}`: {error}; write for example `info`", log.filter)))?;
    let provider = match traces.and_then(|traces| Some((traces, endpoint(traces)?))) {
        Some((traces, endpoint)) => Some(provider(traces, &endpoint)?),
        None => None,
    };
    let spans = provider.as_ref().map(|provider| {
        let tracer = provider.tracer("mainstay");
        // The exporter's own requests must not make further spans.
        let quiet = EnvFilter::new("info,hyper=off,hyper_util=off,h2=off,reqwest=off,opentelemetry=off");
        tracing_opentelemetry::layer().with_tracer(tracer).with_filter(quiet)
    });
    tracing_subscriber::registry().with(lines(log.format).with_filter(filter)).with(spans).init();
    Ok(Telemetry { provider })
}

fn lines(format: Format) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    match format {
        Format::Human => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            Box::new(layer.with_ansi(colours).with_target(false))
        }
        Format::Json => Box::new(layer.json().flatten_event(true)),
    }
}

fn provider(traces: &Traces, endpoint: &str) -> Result<SdkTracerProvider> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .build()
        .map_err(|error| {
            Error::invalid(format!("traces cannot be sent to `{endpoint}`: {error}; correct the address"))
        })?;
    let exporter = Telling { inner: exporter, endpoint: endpoint.into(), told: Mutex::default() };
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(traces.sample_share)));
    let resource = Resource::builder().with_service_name(traces.service_name.clone()).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_sampler(sampler).with_resource(resource).build())
}

/// Sends spans, and says in the log when that fails: the first time, then once a minute at most.
#[derive(Debug)]
struct Telling {
    inner: opentelemetry_otlp::SpanExporter,
    endpoint: String,
    told: Mutex<Option<Instant>>,
}

impl Telling {
    fn tell(&self, error: &OTelSdkError) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|last| last.elapsed() >= FAILURE_INTERVAL) {
            *told = Some(Instant::now());
            let endpoint = &self.endpoint;
            tracing::warn!(endpoint, %error, "traces cannot be sent and are dropped; is a collector listening there?");
        }
    }
}

impl SpanExporter for Telling {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let sent = self.inner.export(batch).await;
        if let Err(error) = &sent {
            self.tell(error);
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.inner.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

/// Joins the gateway's spans to the traces of its clients.
pub fn hook() -> Arc<dyn TraceHook> {
    Arc::new(Hook)
}

struct Hook;

impl TraceHook for Hook {
    fn begin(&self, span: &tracing::Span, parent: Option<TraceContext>, state: Option<&str>) -> Option<TraceContext> {
        if let Some(parent) = parent {
            let flags = if parent.sampled { TraceFlags::SAMPLED } else { TraceFlags::default() };
            let state = state.and_then(|state| TraceState::from_str(state).ok()).unwrap_or_default();
            let remote = SpanContext::new(parent.trace_id.into(), parent.span_id.into(), flags, true, state);
            // It fails only without our layer; then there is no span to join.
            span.set_parent(opentelemetry::Context::new().with_remote_span_context(remote)).ok()?;
        }
        let context = span.context();
        let made = context.span().span_context().clone();
        made.is_valid().then(|| TraceContext {
            trace_id: u128::from_be_bytes(made.trace_id().to_bytes()),
            span_id: u64::from_be_bytes(made.span_id().to_bytes()),
            sampled: made.is_sampled(),
        })
    }

    fn rename(&self, span: &tracing::Span, name: &str) {
        span.context().span().update_name(name.to_owned());
    }
}
