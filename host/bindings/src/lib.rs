//! Generated bindings for the worlds, and nothing else.
//!
//! Owns the `bindgen!` of all worlds over the packages in `wit/`, and the one type that the generated host traits need to
//! name: [`Failure`], what a host function may answer instead of a result. Separate because the macro's output is slow to
//! compile and changes only with the contract.
//!
//! Bounded by: nothing runs here. On failure: a [`Failure::Answer`] reaches the plugin as its typed error; a
//! [`Failure::Trap`] ends the call.
#![forbid(unsafe_code)]
#![allow(missing_docs, reason = "the generated items carry the documentation of the WIT")]

use mainstay_base::ErrorKind;

wasmtime::component::bindgen!({
    // Every world at once: what two of them share is generated once, and a component is asked which it exports.
    inline: "
        package mainstay:house;
        world house {
            include mainstay:api/api@0.1.0;
            include mainstay:transform/transform@0.1.0;
            include mainstay:worker/worker@0.1.0;
            include mainstay:fallback/fallback@0.1.0;
            export mainstay:fallback/learns@0.1.0;
        }
    ",
    path: ["../../wit/types", "../../wit/host", "../../wit/lifecycle", "../../wit/numeric", "../../wit/data", "../../wit/api", "../../wit/transform", "../../wit/worker", "../../wit/fallback"],
    imports: {
        // What waits for a disk, a model or the batcher; everything else answers from memory or a short read.
        "mainstay:host/keys.[static]transaction.commit": async | trappable,
        "mainstay:host/blobs.put": async | trappable,
        "mainstay:host/blobs.read": async | trappable,
        "mainstay:numeric/stats": async | trappable,
        "mainstay:numeric/models.[static]model.load": async | trappable,
        "mainstay:numeric/models.[method]model.predict": async | trappable,
        "mainstay:numeric/models.[method]model.explain": async | trappable,
        "mainstay:host/outbound.send": async | trappable,
        "mainstay:host/traffic.infer": async | trappable,
        "mainstay:host/traffic.find": async | trappable,
        "mainstay:data/tables.create": async | trappable,
        "mainstay:data/tables.window": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    trappable_error_type: { "mainstay:types/errors.error" => crate::Failure },
});

pub use mainstay::types::errors::Error as WitError;

/// Why a host function has no result: an answer for the plugin, or the end of the call.
#[derive(Debug)]
pub enum Failure {
    /// The plugin gets this error and may go on.
    Answer(mainstay_base::Error),
    /// The call ends; the host finds the reason inside.
    Trap(wasmtime::Error),
}

impl Failure {
    /// What the generated `convert_error` answers.
    pub fn into_wit(self) -> wasmtime::Result<WitError> {
        match self {
            Failure::Answer(error) => Ok(to_wit(&error)),
            Failure::Trap(error) => Err(error),
        }
    }
}

impl From<mainstay_base::Error> for Failure {
    fn from(error: mainstay_base::Error) -> Failure {
        Failure::Answer(error)
    }
}

impl From<wasmtime::Error> for Failure {
    fn from(error: wasmtime::Error) -> Failure {
        Failure::Trap(error)
    }
}

/// The host's error as the contract's.
pub fn to_wit(error: &mainstay_base::Error) -> WitError {
    let message = error.message().to_owned();
    match error.kind() {
        ErrorKind::NotFound => WitError::NotFound(message),
        ErrorKind::Invalid => WitError::Invalid(message),
        ErrorKind::Denied => WitError::Denied(message),
        ErrorKind::Conflict => WitError::Conflict(message),
        ErrorKind::Exhausted => WitError::Exhausted(message),
        ErrorKind::Unavailable => WitError::Unavailable(message),
        ErrorKind::Internal => WitError::Internal(message),
        ErrorKind::Other => WitError::Other(message),
    }
}

/// The contract's error as the host's.
pub fn from_wit(error: WitError) -> mainstay_base::Error {
    let (kind, message) = match error {
        WitError::NotFound(message) => (ErrorKind::NotFound, message),
        WitError::Invalid(message) => (ErrorKind::Invalid, message),
        WitError::Denied(message) => (ErrorKind::Denied, message),
        WitError::Conflict(message) => (ErrorKind::Conflict, message),
        WitError::Exhausted(message) => (ErrorKind::Exhausted, message),
        WitError::Unavailable(message) => (ErrorKind::Unavailable, message),
        WitError::Internal(message) => (ErrorKind::Internal, message),
        WitError::Other(message) => (ErrorKind::Other, message),
    };
    mainstay_base::Error::new(kind, message)
}
