//! What the gateway asks of a plugin that answers HTTP.
//!
//! The trait [`ApiTarget`] is the whole of what the gateway knows of plugins, so that its tests need no component: a
//! fake target answers through real sockets. The words of a call are those of the room that runs plugins.

use std::future::Future;
use std::pin::Pin;

use mainstay_interfaces::{CallResult, HttpReply, HttpRequest, Plugin};
use mainstay_store::blobs::BlobInfo;

/// What a call gives.
pub type ApiFuture<'a> = Pin<Box<dyn Future<Output = CallResult<HttpReply>> + Send + 'a>>;

/// Something that answers HTTP requests: a plugin, or a fake in tests.
///
/// Dropping the future gives the call up: the client has gone.
pub trait ApiTarget: Send + Sync + 'static {
    /// Answer a request.
    fn handle(&self, request: HttpRequest) -> ApiFuture<'_>;
    /// The body that a [`HttpReply::Receive`] asked for is stored; its request comes again with an empty body.
    fn received(&self, request: HttpRequest, body: BlobInfo) -> ApiFuture<'_>;
    /// Why the plugin does not run, if it does not. The gateway says so then, and calls nothing.
    fn not_running(&self) -> Option<&str> {
        None
    }
}

impl ApiTarget for Plugin {
    fn handle(&self, request: HttpRequest) -> ApiFuture<'_> {
        Box::pin(Plugin::handle(self, request))
    }

    fn received(&self, request: HttpRequest, body: BlobInfo) -> ApiFuture<'_> {
        Box::pin(Plugin::received(self, request, body))
    }
}
