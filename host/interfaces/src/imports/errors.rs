//! `mainstay:types/errors`: how a host function's failure becomes the plugin's typed error.

use mainstay_bindings::mainstay::types::errors::{Error, Host};
use mainstay_bindings::{Failure, to_wit};

use crate::state::State;

impl Host for State {
    fn convert_error(&mut self, failure: Failure) -> wasmtime::Result<Error> {
        match failure {
            Failure::Answer(error) if error.kind() == mainstay_base::ErrorKind::Internal => {
                // The cause stays here; the plugin and its callers get only the message.
                tracing::error!(plugin = %self.plugin.name, trace_id = %self.trace_id, "a host function failed: {error:?}");
                Ok(to_wit(&error))
            }
            Failure::Answer(error) => Ok(to_wit(&error)),
            Failure::Trap(error) => Err(error),
        }
    }
}
