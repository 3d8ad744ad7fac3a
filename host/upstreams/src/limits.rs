//! Every limit of upstreams, in one place.
//!
//! Crossing one is `invalid` where an operator chose it, `exhausted` where requests wait for each other, and the upstream's fault
//! where its answer is too large. The limit is in the message.

/// Most servers that one host has connections to.
pub const SERVERS_MAX: usize = 1_000;
/// The longest address of an upstream, in bytes.
pub const URL_BYTES_MAX: usize = 1_024;
/// Most connections to one server over HTTP that an operator may allow. Each stream has one of its own.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Connections to one server over HTTP, unless the operator says otherwise.
pub const CONNECTIONS_DEFAULT: usize = 512;
/// Most connections to one server over gRPC that an operator may allow. Each carries many requests.
pub const GRPC_CONNECTIONS_MAX: usize = 64;
/// Connections to one server over gRPC, unless the operator says otherwise.
pub const GRPC_CONNECTIONS_DEFAULT: usize = 2;
/// Most requests that an operator may let wait for a connection.
pub const WAITING_MAX: usize = 65_536;
/// Requests that may wait for a connection, unless the operator says otherwise.
pub const WAITING_DEFAULT: usize = 1_024;
/// The longest time to connect that an operator may allow, TLS included, in milliseconds.
pub const CONNECT_TIMEOUT_MS_MAX: u64 = 60_000;
/// The time to connect, TLS included, unless the operator says otherwise, in milliseconds.
pub const CONNECT_TIMEOUT_MS_DEFAULT: u64 = 2_000;
/// The longest time that an operator may let a connection be idle, in milliseconds.
pub const IDLE_TIMEOUT_MS_MAX: u64 = 3_600_000;
/// How long a connection is kept idle, unless the operator says otherwise, in milliseconds.
pub const IDLE_TIMEOUT_MS_DEFAULT: u64 = 30_000;
/// The largest answer that an operator may allow, in bytes.
pub const ANSWER_BYTES_MAX: usize = 2 << 30;
/// The largest answer, unless the operator says otherwise, in bytes.
pub const ANSWER_BYTES_DEFAULT: usize = 64 << 20;
/// The longest line, and the most data, of one event of a stream that an operator may allow, in bytes.
pub const EVENT_BYTES_MAX: usize = 64 << 20;
/// The longest line, and the most data, of one event of a stream, unless the operator says otherwise, in bytes.
pub const EVENT_BYTES_DEFAULT: usize = 1 << 20;
/// The largest certificates in PEM that an operator may add, in bytes.
pub const CA_PEM_BYTES_MAX: usize = 1 << 20;
/// Most bytes of the headers of an answer, names and values.
pub const ANSWER_HEAD_BYTES_MAX: usize = 64 << 10;
/// How far reading runs ahead of who takes an answer, in bytes; a whole head has to fit.
pub const READ_AHEAD_BYTES_MAX: usize = 128 << 10;
/// Most headers of an answer.
pub const ANSWER_HEADERS_MAX: usize = 128;
/// The largest description of a model, in bytes.
pub const METADATA_BYTES_MAX: usize = 1 << 20;
/// Most models of one upstream whose descriptions are remembered; beyond, all are asked for again.
pub const METADATA_MODELS_MAX: usize = 64;
/// How long a description is believed, also that there is none, in milliseconds. Models are loaded anew under their old name.
pub const METADATA_AGE_MS_MAX: u64 = 60_000;
/// What is read of the body of a refusal, in bytes; a connection with more behind it is closed.
pub const REFUSAL_BYTES_MAX: usize = 16 << 10;
/// The longest message that is taken from an upstream, in bytes; what is longer is cut.
pub const MESSAGE_BYTES_MAX: usize = 1 << 10;
/// Memory that an answer's own word for its length is trusted with before it arrives, in bytes.
pub const TRUSTED_BYTES_MAX: usize = 1 << 20;
/// How long after a deadline it is enforced here, in milliseconds. Whoever set it tells its caller first: only they know whether
/// the caller was in a hurry or the upstream slow.
pub const DEADLINE_GRACE_MS: u64 = 10;
/// Within this of the deadline an upstream that says "not now" speaks of the deadline that it was told, in milliseconds.
pub const DEADLINE_MARGIN_MS: u64 = 5;
/// After this many requests in a row without any answer, a gRPC connection is taken for dead and replaced.
pub const GRPC_SILENCE_MAX: u32 = 3;
