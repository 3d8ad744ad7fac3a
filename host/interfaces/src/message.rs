//! What the gateway and a plugin say to each other, in plain types: requests, answers, callers.
//!
//! Separate from the generated types so that the gateway needs neither wasmtime nor the bindings.

use bytes::Bytes;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Name of the token or user; "anonymous" where no authentication is required.
    pub principal: String,
    /// Any of "read", "write", "admin".
    pub rights: Vec<String>,
    /// "default" unless the operator runs several tenants.
    pub tenant: String,
}

impl Default for Caller {
    fn default() -> Caller {
        Caller { principal: "anonymous".to_owned(), rights: Vec::new(), tenant: "default".to_owned() }
    }
}

/// What came with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RequestBody {
    /// There is none.
    #[default]
    Empty,
    /// All of it.
    Bytes(Bytes),
    /// It has not been read; its announced length, if any.
    Waiting(Option<u64>),
}

/// One request, checked by the gateway as `mainstay:api/http` promises.
#[derive(Clone, Debug, Default)]
pub struct HttpRequest {
    /// In capitals.
    pub method: String,
    /// Percent-decoded once, starting with `/`.
    pub path: String,
    /// Decoded, in order, repeated keys kept.
    pub query: Vec<(String, String)>,
    /// Those that are text. `authorization` and `cookie` are never given to the plugin, whether here or not.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: RequestBody,
    /// Who asks.
    pub caller: Caller,
    /// Scheme and authority by which the client reached the host.
    pub base_url: String,
    /// The trace id that log messages of this request carry (32 hexadecimal digits, or empty).
    pub trace_id: String,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpReply {
    /// Answer with this.
    Respond {
        /// 200 to 599.
        status: u16,
        /// Without hop-by-hop headers and line breaks.
        headers: Vec<(String, String)>,
        /// At most the plugin's output limit.
        body: Bytes,
    },
    /// Store the body, then call `received`.
    Receive {
        /// The most that may be stored.
        limit_bytes: u64,
        /// What it must hash to: lowercase hexadecimal SHA-256.
        sha256: Option<String>,
    },
    /// Stream a blob. The host has checked that one of the plugin's names refers to it.
    Send {
        /// Which blob.
        sha256: String,
        /// Further headers.
        headers: Vec<(String, String)>,
    },
}
