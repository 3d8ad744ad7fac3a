//! A client's body into the blob store, while no plugin instance waits.
//!
//! Streams frame by frame with the limits of [`InboundBody`] and the limit and digest that the plugin asked for. A body that
//! fails leaves nothing behind: the blob store drops what it had.

use bytes::Bytes;
use futures::stream;
use mainstay_base::{Error, ErrorKind};
use mainstay_store::blobs::{BlobInfo, Blobs, PutOptions};
use parking_lot::Mutex;

use crate::body::{BodyFault, InboundBody};
use crate::problem::{self, Problem};

/// Store a body that is still on its way.
pub(crate) async fn store(
    blobs: &Blobs,
    body: &mut InboundBody,
    announced_bytes: Option<u64>,
    limit_bytes: u64,
    sha256: Option<String>,
) -> Result<BlobInfo, Problem> {
    if announced_bytes.is_some_and(|announced| announced > limit_bytes) {
        return Err(BodyFault::TooLarge { limit_bytes }.problem());
    }
    body.limit(limit_bytes);
    // The blob store sees an error and drops what it had; why it was an error is told beside the stream.
    let fault = Mutex::new(None);
    let fault_of_stream = &fault;
    let chunks = Box::pin(stream::unfold(body, move |body| async move {
        match body.next().await {
            Ok(chunk) => chunk.map(|chunk| (Ok(chunk), body)),
            Err(why) => {
                *fault_of_stream.lock() = Some(why);
                Some((Err(Error::invalid("the client's body did not arrive whole")), body))
            }
        }
    }));
    let put = blobs.put(chunks, PutOptions { limit_bytes: Some(limit_bytes), expected_sha256: sha256 }).await;
    let fault = fault.into_inner();
    put.map_err(|error| fault.map_or_else(|| refused(error), BodyFault::problem))
}

/// Store a body that came with the request.
pub(crate) async fn store_bytes(
    blobs: &Blobs,
    bytes: Bytes,
    limit_bytes: u64,
    sha256: Option<String>,
) -> Result<BlobInfo, Problem> {
    if bytes.len() as u64 > limit_bytes {
        return Err(BodyFault::TooLarge { limit_bytes }.problem());
    }
    let chunks = Box::pin(stream::iter([Ok(bytes)]));
    let put = blobs.put(chunks, PutOptions { limit_bytes: Some(limit_bytes), expected_sha256: sha256 }).await;
    put.map_err(refused)
}

/// What the blob store finds wrong with a body is a difference from what was announced.
fn refused(error: Error) -> Problem {
    match error.kind() {
        ErrorKind::Invalid => Problem::new(&problem::BODY_DIFFERS, error.message()),
        _ => Problem::from(error),
    }
}
