//! What a plugin of world `transform` is.
//!
//! Owns [`Transform`] and [`export_transform!`](crate::export_transform). A transform is a node of a model's graph: it gets
//! each batch once and computes on it by handle. Bounded by: the limits of the manifest. On failure: an error fails the
//! requests of the batch; a panic is logged with its place and ends the call.

use crate::columns::Frame;
use crate::{Error, Result};
use serde::de::DeserializeOwned;

/// What arrived together, for one node of a model's graph.
#[derive(Debug)]
pub struct Batch {
    pub(crate) frame: Frame,
    pub(crate) node: String,
    pub(crate) settings: String,
}

impl Batch {
    /// Its rows.
    pub fn frame(&self) -> &Frame {
        &self.frame
    }

    /// Name of the node.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// The node's settings as they were written: one JSON object.
    pub fn settings_json(&self) -> &str {
        &self.settings
    }

    /// The node's settings.
    pub fn settings<T: DeserializeOwned>(&self) -> Result<T> {
        settings(&self.settings)
    }
}

/// Settings out of their JSON; what does not fit is `invalid`.
pub fn settings<T: DeserializeOwned>(json: &str) -> Result<T> {
    serde_json::from_str(json).map_err(|error| Error::invalid(format!("the node's settings: {error}")))
}

/// A plugin that changes batches. Keep no state: the same batch and settings must give the same answer.
pub trait Transform {
    /// Are these settings, one JSON object, ones that it can work with? Asked once, when a model's graph is taken in.
    fn check(settings: &str) -> Result<()>;

    /// One batch in, one out, with as many rows, in the same order.
    fn transform(batch: &Batch) -> Result<Frame>;

    /// As [`Api::start`](crate::Api::start).
    fn start(previous: Option<&str>) -> Result<()> {
        let _ = previous;
        Ok(())
    }
}

/// Make a type that implements [`Transform`](crate::Transform) this component's exports. Once per plugin.
///
/// ```compile_fail,E0277
/// struct NoTransform;
/// mainstay_sdk::export_transform!(NoTransform);
/// ```
#[macro_export]
macro_rules! export_transform {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        const _: () = {
            struct Exported;

            impl $crate::sys::LifecycleGuest for Exported {
                fn start(
                    previous: ::std::option::Option<::std::string::String>,
                ) -> ::std::result::Result<(), $crate::sys::WitError> {
                    $crate::sys::start_transform::<$plugin>(previous)
                }
            }

            impl $crate::sys::TransformerGuest for Exported {
                fn check(settings: ::std::string::String) -> ::std::result::Result<(), $crate::sys::WitError> {
                    $crate::sys::check_settings::<$plugin>(&settings)
                }

                fn transform(
                    batch: $crate::sys::WitBatch,
                ) -> ::std::result::Result<$crate::sys::WitFrame, $crate::sys::WitError> {
                    $crate::sys::transform::<$plugin>(batch)
                }
            }

            $crate::sys::bindings::export_lifecycle!(Exported with_types_in $crate::sys::bindings);
            $crate::sys::bindings::transform::export_transformer!(Exported with_types_in $crate::sys::bindings::transform);
        };
        #[cfg(not(target_arch = "wasm32"))]
        const _: () = {
            // Checked on every target, so that `cargo check` finds a type that is no plugin.
            const fn is_a_transform<P: $crate::Transform>() {}
            is_a_transform::<$plugin>();
        };
    };
}
