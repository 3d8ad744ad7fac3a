//! W3C trace context, in and out.
//!
//! Reads `traceparent`, makes ids where a client sent none, and offers a hook by which the binary joins its spans to the
//! same trace. Written here in a few lines because the alternative is the whole telemetry SDK in every build. Ids need to
//! be unique, not secret. A malformed header is ignored, as the specification says.

use std::fmt;

use http::HeaderMap;

/// Which trace and span something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Never zero.
    pub trace_id: u128,
    /// Never zero.
    pub span_id: u64,
    /// Whether the one who began the trace keeps it.
    pub sampled: bool,
}

/// Joins the host's spans to the traces of clients; the binary implements it when an exporter is configured.
pub trait TraceHook: Send + Sync + 'static {
    /// A request begins in `span`. Make `parent` its parent, and say which context the span has, if it is recorded.
    fn begin(&self, span: &tracing::Span, parent: Option<TraceContext>, state: Option<&str>) -> Option<TraceContext>;

    /// The route is known now: `span` is called `name`. Its field `otel.name` says so too, but exporters read that only
    /// before `begin`.
    fn rename(&self, span: &tracing::Span, name: &str) {
        let _ = (span, name);
    }
}

impl TraceContext {
    /// Read a `traceparent` header.
    pub fn parse(header: &str) -> Option<TraceContext> {
        let mut parts = header.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // Version 00 has four parts; later ones may have more; ff is forbidden.
        let version = hex_number(version, 2)?;
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace_id, span_id, flags) = (hex_number(trace, 32)?, hex_number(span, 16)? as u64, hex_number(flags, 2)?);
        (trace_id != 0 && span_id != 0).then_some(TraceContext { trace_id, span_id, sampled: flags & 1 == 1 })
    }

    pub(crate) fn from_headers(headers: &HeaderMap) -> Option<TraceContext> {
        TraceContext::parse(headers.get("traceparent")?.to_str().ok()?)
    }

    /// The trace id: 32 hexadecimal digits.
    pub fn trace_id_hex(&self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceContext {
    /// As a `traceparent` header.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, u8::from(self.sampled))
    }
}

fn hex_number(text: &str, digits: usize) -> Option<u128> {
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    (text.len() == digits && text.bytes().all(lower_hex)).then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers() {
        #[track_caller]
        fn check(header: &str, expect: Option<(u128, u64, bool)>) {
            let read = TraceContext::parse(header);
            assert_eq!(read.map(|read| (read.trace_id, read.span_id, read.sampled)), expect, "{header}");
        }
        let whole = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        check(whole, Some((0x0af7651916cd43dd8448eb211c80319c, 0xb7ad6b7169203331, true)));
        assert_eq!(TraceContext::parse(whole).unwrap().to_string(), whole);
        check(
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
            Some((0x0af7651916cd43dd8448eb211c80319c, 0xb7ad6b7169203331, false)),
        );
        check("01-00000000000000000000000000000001-0000000000000001-03-more", Some((1, 1, true)));
        check("00-00000000000000000000000000000001-0000000000000001-01-more", None);
        check("ff-00000000000000000000000000000001-0000000000000001-01", None);
        check("00-00000000000000000000000000000000-0000000000000001-01", None);
        check("00-00000000000000000000000000000001-0000000000000000-01", None);
        check("00-0000000000000000000000000000000A-0000000000000001-01", None);
        check("00-+0000000000000000000000000000001-0000000000000001-01", None);
        check("00-1-1-01", None);
        check("", None);
    }
}
