//! Calls over HTTP to hosts that the operator granted.
//!
//! Owns [`Call`], a request that is put together, sent now ([`Call::send`]) or with a transaction
//! ([`Transaction::deliver`](crate::Transaction::deliver)), and its [`Answer`]. Secrets are named, never held: the host fills
//! them in. Needs the capability `outbound`. Bounded by: the limits in the contract. On failure: the host's typed error;
//! `denied` names the host or address that was refused.

use crate::{Error, Result, sys};
use serde::Serialize;

pub use crate::sys::bindings::mainstay::host::outbound::Encoding;

/// A request that is being put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub(crate) method: String,
    pub(crate) url: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) secret_headers: Vec<SecretHeader>,
    pub(crate) body: Vec<u8>,
    pub(crate) timeout_ms: Option<u32>,
    pub(crate) signature: Option<Signature>,
    pub(crate) id_header: Option<String>,
    pub(crate) timestamp_header: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SecretHeader {
    pub(crate) name: String,
    pub(crate) prefix: String,
    pub(crate) secret: String,
}

/// How a call is signed with HMAC-SHA256.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Name of a secret of this plugin.
    pub secret: String,
    /// What is signed: text in which `{id}`, `{timestamp}` (seconds since 1970) and `{body}` are filled in.
    pub template: String,
    /// Where the signature goes.
    pub header: String,
    /// What stands before it.
    pub prefix: String,
    /// How its bytes are written.
    pub encoding: Encoding,
}

impl Call {
    /// A request without headers and body.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Call {
        Call {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            secret_headers: Vec::new(),
            body: Vec::new(),
            timeout_ms: None,
            signature: None,
            id_header: None,
            timestamp_header: None,
        }
    }

    /// With one more header.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Call {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With a header of `prefix` and a secret of this plugin.
    #[must_use]
    pub fn secret_header(
        mut self,
        name: impl Into<String>,
        prefix: impl Into<String>,
        secret: impl Into<String>,
    ) -> Call {
        self.secret_headers.push(SecretHeader { name: name.into(), prefix: prefix.into(), secret: secret.into() });
        self
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Call {
        self.body = body.into();
        self
    }

    /// With a JSON body, and the header that says so.
    pub fn json(self, value: &impl Serialize) -> Result<Call> {
        let body = serde_json::to_vec(value)
            .map_err(|error| Error::internal(format!("cannot write a value as JSON: {error}")))?;
        Ok(self.header("content-type", "application/json").body(body))
    }

    /// With this as the longest time of one attempt.
    #[must_use]
    pub fn timeout_ms(mut self, timeout_ms: u32) -> Call {
        self.timeout_ms = Some(timeout_ms);
        self
    }

    /// Signed so.
    #[must_use]
    pub fn sign(mut self, signature: Signature) -> Call {
        self.signature = Some(signature);
        self
    }

    /// With the delivery's id in this header.
    #[must_use]
    pub fn id_header(mut self, name: impl Into<String>) -> Call {
        self.id_header = Some(name.into());
        self
    }

    /// With the time of the attempt, in seconds since 1970, in this header.
    #[must_use]
    pub fn timestamp_header(mut self, name: impl Into<String>) -> Call {
        self.timestamp_header = Some(name.into());
        self
    }

    /// How.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// Where.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The first header of this name, any case, among those that the plugin set itself.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// The body.
    pub fn body_bytes(&self) -> &[u8] {
        &self.body
    }

    /// Send it and wait for the answer, whatever its status.
    pub fn send(self) -> Result<Answer> {
        sys::send(&self)
    }
}

/// What came back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// `content-type`, `retry-after` and `location`, where they are there.
    pub headers: Vec<(String, String)>,
    /// The body, at most 1 MiB.
    pub body: Vec<u8>,
}
