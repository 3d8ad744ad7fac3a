//! World `api`: a plugin that answers HTTP.
//!
//! Enters the exports `handler.handle` and `handler.received`, and turns what they answer into plain
//! types. On failure: the plugin's typed error as [`CallError::Failed`]; a reply that the contract does not allow as
//! `invalid`.

use std::sync::Arc;

use mainstay_base::Error;
use mainstay_bindings::WitError;
use mainstay_bindings::mainstay::api::http::{Reply as ReplyHandle, Request as RequestHandle};
use mainstay_bindings::mainstay::host::blobs::BlobInfo as WireBlob;
use mainstay_runtime::CallError;
use mainstay_store::blobs::BlobInfo;
use wasmtime::Store;
use wasmtime::component::Resource;

use super::{Exports, failed, not_of};
use crate::message::{HttpReply, HttpRequest, RequestBody};
use crate::state::State;

/// `handler.handle`.
pub(crate) async fn handle(
    store: &mut Store<State>,
    all: &Exports,
    request: HttpRequest,
) -> wasmtime::Result<HttpReply> {
    let api = all.api.as_ref().ok_or_else(|| not_of("api"))?;
    let request: Resource<RequestHandle> = store.data_mut().requests.add(Arc::new(request))?;
    let answer = api.call_handle(&mut *store, request).await;
    finish(store, answer)
}

/// `handler.received`.
pub(crate) async fn received(
    store: &mut Store<State>,
    all: &Exports,
    mut request: HttpRequest,
    blob: BlobInfo,
) -> wasmtime::Result<HttpReply> {
    let api = all.api.as_ref().ok_or_else(|| not_of("api"))?;
    request.body = RequestBody::Empty;
    let BlobInfo { sha256, md5, size_bytes } = blob;
    let blob = WireBlob { sha256, md5, size_bytes };
    let request: Resource<RequestHandle> = store.data_mut().requests.add(Arc::new(request))?;
    let answer = api.call_received(&mut *store, request, &blob).await;
    match finish(store, answer)? {
        HttpReply::Receive { .. } => Err(CallError::Failed(Error::internal(
            "the plugin answered `receive` to a body that it had already received; this is a fault of the plugin",
        ))
        .into()),
        reply => Ok(reply),
    }
}

/// What a plugin answered; whatever it was, the call is over.
fn finish(
    store: &mut Store<State>,
    answer: wasmtime::Result<Result<Resource<ReplyHandle>, WitError>>,
) -> wasmtime::Result<HttpReply> {
    let state = store.data_mut();
    let reply = answer.and_then(|answer| answer.map_err(failed)).and_then(|reply| Ok(state.replies.take(&reply)?));
    state.end_call();
    Ok(reply?.finish())
}
