//! World `api`: a plugin that answers HTTP.
//!
//! Enters the exports `lifecycle.start`, `handler.handle` and `handler.received`, and turns what they answer into plain
//! types. On failure: the plugin's typed error as [`CallError::Failed`]; a reply that the contract does not allow as
//! `invalid`.

use std::sync::Arc;

use mainstay_base::Error;
use mainstay_bindings::mainstay::api::http::{Reply as ReplyHandle, Request as RequestHandle};
use mainstay_bindings::mainstay::host::blobs::BlobInfo as WireBlob;
use mainstay_bindings::{Api, ApiPre, WitError, from_wit};
use mainstay_runtime::{BoxFuture, CallError, World};
use mainstay_store::blobs::BlobInfo;
use wasmtime::Store;
use wasmtime::component::Resource;

use crate::message::{HttpReply, HttpRequest, RequestBody};
use crate::state::State;

/// World `api`, ready to be entered.
pub(crate) struct ApiWorld(pub(crate) ApiPre<State>);

impl World for ApiWorld {
    type Data = State;
    type Exports = Api;

    fn instantiate<'a>(&'a self, store: &'a mut Store<State>) -> BoxFuture<'a, wasmtime::Result<Api>> {
        Box::pin(self.0.instantiate_async(store))
    }
}

fn failed(error: WitError) -> wasmtime::Error {
    CallError::Failed(from_wit(error)).into()
}

/// `lifecycle.start`.
pub(crate) async fn start(store: &mut Store<State>, api: &Api, previous: Option<String>) -> wasmtime::Result<()> {
    let answer = api.mainstay_lifecycle_lifecycle().call_start(&mut *store, previous.as_deref()).await;
    store.data_mut().end_call();
    answer?.map_err(failed)
}

/// `handler.handle`.
pub(crate) async fn handle(store: &mut Store<State>, api: &Api, request: HttpRequest) -> wasmtime::Result<HttpReply> {
    let request: Resource<RequestHandle> = store.data_mut().requests.add(Arc::new(request))?;
    let answer = api.mainstay_api_handler().call_handle(&mut *store, request).await;
    finish(store, answer)
}

/// `handler.received`.
pub(crate) async fn received(
    store: &mut Store<State>,
    api: &Api,
    mut request: HttpRequest,
    blob: BlobInfo,
) -> wasmtime::Result<HttpReply> {
    request.body = RequestBody::Empty;
    let BlobInfo { sha256, md5, size_bytes } = blob;
    let blob = WireBlob { sha256, md5, size_bytes };
    let request: Resource<RequestHandle> = store.data_mut().requests.add(Arc::new(request))?;
    let answer = api.mainstay_api_handler().call_received(&mut *store, request, &blob).await;
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
