//! What a plugin of world `api` is.
//!
//! Owns [`Api`] and [`export_api!`](crate::export_api), the one place where a plugin's type meets the exports of the WIT.
//! Bounded by: the limits of the manifest, held by the host. On failure: an error becomes a problem+json answer of the
//! matching status; a panic is logged with its place and ends the call.

use crate::blobs::BlobInfo;
use crate::http::{Reply, Request};
use crate::{Error, Result};

/// A plugin that answers HTTP. Every call is a fresh instance unless the manifest asks for reuse: keep no state in memory.
pub trait Api {
    /// Called once before anything else reaches the plugin: when it is installed, upgraded, or the host starts. `previous`
    /// is the version that ran on this data before, if any: the place to prepare or migrate what is stored. Safe to repeat.
    fn start(previous: Option<&str>) -> Result<()> {
        let _ = previous;
        Ok(())
    }

    /// Answer a request.
    fn handle(request: &Request) -> Result<Reply>;

    /// The body that a [`Reply::receive`] asked for is in the blob store, unnamed yet: link it or it goes. The same request,
    /// whose body is empty now.
    fn received(request: &Request, blob: BlobInfo) -> Result<Reply> {
        let _ = blob;
        Err(Error::internal(format!("`{}` asked for a body but does not implement `received`", request.path())))
    }
}

/// Make a type that implements [`Api`] this component's exports. Once per plugin.
///
/// A type that is no plugin is refused on every target, not only when the component is built:
///
/// ```compile_fail,E0277
/// struct NoPlugin;
/// mainstay_sdk::export_api!(NoPlugin);
/// ```
#[macro_export]
macro_rules! export_api {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            impl $crate::sys::LifecycleGuest for Exported {
                fn start(
                    previous: ::std::option::Option<::std::string::String>,
                ) -> ::std::result::Result<(), $crate::sys::WitError> {
                    $crate::sys::start::<$plugin>(previous)
                }
            }

            impl $crate::sys::HandlerGuest for Exported {
                fn handle(
                    request: $crate::sys::WitRequest,
                ) -> ::std::result::Result<$crate::sys::WitReply, $crate::sys::WitError> {
                    $crate::sys::handle::<$plugin>(request)
                }

                fn received(
                    request: $crate::sys::WitRequest,
                    blob: $crate::sys::WitBlobInfo,
                ) -> ::std::result::Result<$crate::sys::WitReply, $crate::sys::WitError> {
                    $crate::sys::received::<$plugin>(request, blob)
                }
            }
    $crate::sys::bindings::export_lifecycle!(Exported with_types_in $crate::sys::bindings);
    $crate::sys::bindings::api::export_handler!(Exported with_types_in $crate::sys::bindings::api);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            // Checked on every target, so that `cargo check` finds a type that is no plugin.
            const fn is_a_plugin<P: $crate::Api>() {}
            is_a_plugin::<$plugin>();
        };
    };
}
