//! Work that would hold up a thread of the runtime.
//!
//! Owns the choice whether bytes are handled in place or on a thread that may block. Separate, because both fronts make it.
//! Bounded by: the runtime's own limit of such threads. On failure: `internal` if the work panicked.

use mainstay_base::{Error, Result};

use crate::limits;

/// Does work in place where it is small, else on a thread that may block.
pub(crate) async fn aside<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    if bytes <= limits::INLINE_BYTES_MAX {
        return work();
    }
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => Err(Error::internal("a thread that handled a body failed").with_source(error)),
    }
}

/// How heavy a body is, of which only some bytes are JSON: the rest is only cut, or its byte strings counted.
pub(crate) fn weight(json_bytes: usize, raw_bytes: usize) -> usize {
    json_bytes.saturating_add(raw_bytes / 16)
}
