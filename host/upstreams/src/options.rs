//! What an operator may choose of an upstream.
//!
//! Owns [`UpstreamOptions`] and whether they make sense. Separate from the address, because many addresses share them. Bounded by
//! [`limits`]. On failure: `invalid`, naming the option and its limit.

use http::HeaderName;
use mainstay_base::{Error, Result};
use serde::{Deserialize, Serialize};

use crate::limits;

/// What an operator may choose of an upstream. Connections are shared by all upstreams of one server that have the same options.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamOptions {
    /// Most connections at once over HTTP. A request has one until its answer is read, a stream until it ends.
    pub connections_max: usize,
    /// Connections over gRPC. Requests share them.
    pub grpc_connections: usize,
    /// Most requests that wait for a connection over HTTP; one more is refused at once.
    pub waiting_max: usize,
    /// The longest time to connect, TLS included, in milliseconds.
    pub connect_timeout_ms: u64,
    /// How long a connection is kept that nobody uses, in milliseconds. Only HTTP's: gRPC's are kept.
    pub idle_timeout_ms: u64,
    /// The largest answer, in bytes.
    pub answer_bytes_max: usize,
    /// The longest line, and the most data, of one event of a stream over HTTP, in bytes.
    pub event_bytes_max: usize,
    /// Whether asking twice does no harm. Inference computes and changes nothing, so it is by default; a model that keeps
    /// sequences, or bills by the request, is not. Then a request is only tried again when it surely was not sent.
    pub is_idempotent: bool,
    /// The header that tells the upstream on whose account a request is; by default it is not told.
    pub tenant_header: Option<String>,
    /// Further root certificates, in PEM: those that signed the upstream's, where no public authority did.
    pub ca_pem: Option<String>,
}

impl Default for UpstreamOptions {
    fn default() -> UpstreamOptions {
        UpstreamOptions {
            connections_max: limits::CONNECTIONS_DEFAULT,
            grpc_connections: limits::GRPC_CONNECTIONS_DEFAULT,
            waiting_max: limits::WAITING_DEFAULT,
            connect_timeout_ms: limits::CONNECT_TIMEOUT_MS_DEFAULT,
            idle_timeout_ms: limits::IDLE_TIMEOUT_MS_DEFAULT,
            answer_bytes_max: limits::ANSWER_BYTES_DEFAULT,
            event_bytes_max: limits::EVENT_BYTES_DEFAULT,
            is_idempotent: true,
            tenant_header: None,
            ca_pem: None,
        }
    }
}

impl UpstreamOptions {
    /// Whether they make sense; else `invalid`.
    pub fn check(&self) -> Result<()> {
        within("connections_max", self.connections_max as u64, 1, limits::CONNECTIONS_MAX as u64)?;
        within("grpc_connections", self.grpc_connections as u64, 1, limits::GRPC_CONNECTIONS_MAX as u64)?;
        within("waiting_max", self.waiting_max as u64, 0, limits::WAITING_MAX as u64)?;
        within("connect_timeout_ms", self.connect_timeout_ms, 1, limits::CONNECT_TIMEOUT_MS_MAX)?;
        within("idle_timeout_ms", self.idle_timeout_ms, 1, limits::IDLE_TIMEOUT_MS_MAX)?;
        within("answer_bytes_max", self.answer_bytes_max as u64, 1, limits::ANSWER_BYTES_MAX as u64)?;
        within("event_bytes_max", self.event_bytes_max as u64, 1, limits::EVENT_BYTES_MAX as u64)?;
        let ca_bytes = self.ca_pem.as_ref().map_or(0, String::len) as u64;
        within("bytes of ca_pem", ca_bytes, 0, limits::CA_PEM_BYTES_MAX as u64)?;
        self.tenant_header().map(drop)
    }

    /// The header for the tenant, if there is to be one.
    pub(crate) fn tenant_header(&self) -> Result<Option<HeaderName>> {
        let Some(name) = &self.tenant_header else { return Ok(None) };
        let bad = |why: &str| Error::invalid(format!("`tenant_header` is `{name}`, {why}; name another header"));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad("which is no name of a header"))?;
        // Those of the message itself are not the tenant's to say.
        let is_taken = OURS.contains(&header.as_str()) || header.as_str().starts_with("grpc-");
        if is_taken { Err(bad("which has a meaning of its own")) } else { Ok(Some(header)) }
    }
}

/// Headers that a request has for its own sake.
const OURS: [&str; 10] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "inference-header-content-length",
    "inference-timeout-ms",
    "te",
    "traceparent",
    "transfer-encoding",
];

fn within(what: &str, value: u64, min: u64, max: u64) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::invalid(format!("{what} is {value}; an upstream takes {min} to {max}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_option_has_a_least_and_a_most() {
        fn check(set: impl Fn(&mut UpstreamOptions, u64), min: u64, max: u64) {
            let fits = |value| {
                let mut options = UpstreamOptions::default();
                set(&mut options, value);
                options.check().is_ok()
            };
            assert!(fits(min) && fits(max) && !fits(max + 1), "{min} {max}");
            assert!(min == 0 || !fits(min - 1), "{min}");
        }
        check(|options, value| options.connections_max = value as usize, 1, 16_384);
        check(|options, value| options.grpc_connections = value as usize, 1, 64);
        check(|options, value| options.waiting_max = value as usize, 0, 65_536);
        check(|options, value| options.connect_timeout_ms = value, 1, 60_000);
        check(|options, value| options.idle_timeout_ms = value, 1, 3_600_000);
        check(|options, value| options.answer_bytes_max = value as usize, 1, 2 << 30);
        check(|options, value| options.event_bytes_max = value as usize, 1, 64 << 20);
        check(|options, value| options.ca_pem = Some("x".repeat(value as usize)), 0, 1 << 20);
    }

    #[test]
    fn the_header_for_the_tenant_is_a_header_and_no_other_of_the_message() {
        fn check(name: &str, fits: bool) {
            let options = UpstreamOptions { tenant_header: Some(name.to_owned()), ..UpstreamOptions::default() };
            assert_eq!(options.check().is_ok(), fits, "{name}");
        }
        check("x-tenant", true);
        check("X-Tenant", true);
        check("a b", false);
        check("Content-Length", false);
        check("grpc-timeout", false);
    }

    #[test]
    fn options_are_read_with_what_is_not_said_left_as_it_is() {
        let options: UpstreamOptions = serde_json::from_str(r#"{"connections_max":3}"#).unwrap();
        assert_eq!(options, UpstreamOptions { connections_max: 3, ..UpstreamOptions::default() });
        assert!(serde_json::from_str::<UpstreamOptions>(r#"{"conections_max":3}"#).is_err());
    }
}
