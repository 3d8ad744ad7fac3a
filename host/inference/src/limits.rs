//! Every limit of requests to models, in one place.
//!
//! Crossing one is `invalid` (asking again fails again); a body over its limit is answered 413 over HTTP. The limit is in the
//! message.

/// The largest body of a request unless the operator says otherwise, in bytes: as it came, and again after it was inflated.
pub const BODY_BYTES_DEFAULT: usize = 128 << 20;
/// Most tensors of a request, and most outputs that it names.
pub const TENSORS_MAX: usize = 1024;
/// Most dimensions of a tensor; also how deep its elements may be nested in JSON.
pub const DIMENSIONS_MAX: usize = 32;
/// Most parameters of a request, of an input or of an output.
pub const PARAMETERS_MAX: usize = 256;
/// The longest name of a tensor or a parameter, in bytes.
pub const NAME_BYTES_MAX: usize = 1 << 10;
/// The longest message of an error in an answer, in bytes: gRPC carries it in a header. What is longer is cut.
pub const MESSAGE_BYTES_MAX: usize = 2 << 10;
/// The largest body of a request that is no inference (index, load without files), in bytes.
pub const CONTROL_BYTES_MAX: usize = 1 << 20;
/// The largest configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1 << 20;
/// How deep messages may be nested in a configuration file.
pub const CONFIG_DEPTH_MAX: usize = 32;
/// Most warnings that are kept of one configuration file.
pub const CONFIG_WARNINGS_MAX: usize = 64;
/// Answers smaller than this are not compressed, in bytes: it would cost more than it saves.
pub const COMPRESS_BYTES_MIN: usize = 1 << 10;
/// Bodies larger than this are inflated, parsed and compressed on threads that may block, in bytes.
pub const INLINE_BYTES_MAX: usize = 256 << 10;
/// Answers smaller than this are joined into one piece before they are sent, in bytes.
pub const JOINED_BYTES_MAX: usize = 16 << 10;
/// Requests of one gRPC stream that are worked on at the same time.
pub const STREAM_REQUESTS_MAX: usize = 16;

/// What an operator may choose.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The largest body of a request, in bytes: as it came, and again after it was inflated.
    pub body_bytes: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits { body_bytes: BODY_BYTES_DEFAULT }
    }
}
