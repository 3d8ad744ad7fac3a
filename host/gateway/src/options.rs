//! What an operator may set, and every limit in one place.
//!
//! Each number has a unit in its name, a default, and one consumer. Separate so that the binary's configuration can be
//! checked against it and so that no limit hides in the code that obeys it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// When a request needs credentials.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AuthMode {
    /// Required as soon as one listener can be reached from beyond this machine.
    #[default]
    BeyondLoopback,
    /// Always required.
    Always,
    /// Never required, wherever it listens: the operator has asked for it.
    Never,
}

/// Where to listen and how.
#[derive(Clone, Debug)]
pub struct GatewayOptions {
    /// Where HTTP listens. Port 0 takes any free one.
    pub http: SocketAddr,
    /// Where gRPC listens, if it does. Port 0 takes any free one.
    pub grpc: Option<SocketAddr>,
    /// When a request needs credentials.
    pub auth: AuthMode,
    /// Failed authentications that one client address may make in a minute before it is answered 429.
    pub auth_failures_per_minute_max: u32,
    /// Scheme and authority that clients use, for example `https://models.example`, when a proxy stands before this host.
    /// Without it they are taken from the request.
    pub public_url: Option<String>,
    /// Host names by which this host may be reached without credentials, beside loopback's names and IP addresses. A page
    /// of another site that points its name at this machine is refused otherwise. With none given, this is looked at only
    /// while all listeners are on loopback.
    pub allowed_hosts: Vec<String>,
    /// Folder for uploads of plugin packages; the system's temporary folder when not set.
    pub scratch_folder: Option<PathBuf>,
    /// Sizes, counts and times.
    pub limits: GatewayLimits,
}

impl Default for GatewayOptions {
    fn default() -> GatewayOptions {
        GatewayOptions {
            http: (Ipv4Addr::LOCALHOST, 7600).into(),
            grpc: Some((Ipv4Addr::LOCALHOST, 7601).into()),
            auth: AuthMode::default(),
            auth_failures_per_minute_max: 20,
            public_url: None,
            allowed_hosts: Vec::new(),
            scratch_folder: None,
            limits: GatewayLimits::default(),
        }
    }
}

/// Everything that bounds the gateway.
#[derive(Clone, Debug)]
pub struct GatewayLimits {
    /// Open connections; later ones wait in the system's backlog.
    pub connections_max: usize,
    /// Requests being answered; more get 503 with `Retry-After`. `/healthz`, `/readyz` and `/metrics` do not count.
    pub requests_in_flight_max: usize,
    /// Bytes of a request's line and headers; more get 431.
    pub head_bytes_max: usize,
    /// Headers of a request; more get 431.
    pub headers_max: usize,
    /// Bytes of a request's path and query; more get 414.
    pub uri_bytes_max: usize,
    /// A request's head must be complete this long after its first byte.
    pub head_read_timeout: Duration,
    /// A connection without a request is closed after this.
    pub idle_timeout: Duration,
    /// The longest silence inside a request's body.
    pub body_idle_timeout: Duration,
    /// A body that comes with the request must be complete after this.
    pub inline_body_timeout: Duration,
    /// A streamed body that is slower than this, averaged from its start after one `body_idle_timeout`, is given up.
    pub body_bytes_per_second_min: u64,
    /// A client that takes none of an answer's bytes for this long is dropped.
    pub write_stall_timeout: Duration,
    /// From a request's complete head and inline body to the plugin's answer. Plugins have shorter limits of their own.
    pub answer_timeout: Duration,
    /// Bytes of request bodies held in memory, over all requests; more get 503 with `Retry-After`.
    pub buffered_bytes_max: usize,
    /// Bytes of an unwanted body that are read and dropped, so that the client sees the answer and not a reset.
    pub discard_bytes_max: u64,
    /// For how long they are read and dropped.
    pub discard_timeout: Duration,
    /// Bytes of an uploaded plugin package.
    pub package_bytes_max: u64,
    /// Bytes of one request of the Open Inference Protocol, over HTTP and gRPC; more get 413.
    pub inference_body_bytes_max: usize,
    /// Streams of one gRPC connection.
    pub grpc_streams_max: u32,
}

impl Default for GatewayLimits {
    fn default() -> GatewayLimits {
        GatewayLimits {
            connections_max: 4_096,
            requests_in_flight_max: 1_024,
            head_bytes_max: 64 << 10,
            headers_max: 100,
            uri_bytes_max: 16 << 10,
            head_read_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_idle_timeout: Duration::from_secs(30),
            inline_body_timeout: Duration::from_secs(60),
            body_bytes_per_second_min: 1 << 10,
            write_stall_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(120),
            buffered_bytes_max: 256 << 20,
            discard_bytes_max: 16 << 20,
            discard_timeout: Duration::from_secs(10),
            package_bytes_max: 128 << 20,
            inference_body_bytes_max: 128 << 20,
            grpc_streams_max: 1_024,
        }
    }
}
