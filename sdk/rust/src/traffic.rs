//! Endpoints: names behind which models answer.
//!
//! Owns [`Request`], which is put together and sent, its [`Response`], and looking at endpoints. Needs the capability
//! `traffic.infer` to ask and `traffic.read` to look. Bounded by: 4 MiB of tensors each way, 8 requests a call, and the
//! deadline. On failure: the host's typed error.

use crate::tensors::{Parameter, Tensor, TensorSpec};
use crate::{Result, sys};

/// A request that is being put together.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// The endpoint that is asked.
    pub endpoint: String,
    /// Its tensors.
    pub inputs: Vec<Tensor>,
    /// What is said beside them.
    pub parameters: Vec<(String, Parameter)>,
    /// Names of the outputs that are wanted; none for all.
    pub outputs: Vec<String>,
    /// Headers that the endpoint's rules see.
    pub headers: Vec<(String, String)>,
    /// On whose account.
    pub tenant: Option<String>,
    /// The longest time that the answer may take, in milliseconds.
    pub timeout_ms: Option<u32>,
}

impl Request {
    /// A request to this endpoint, without anything in it.
    pub fn new(endpoint: impl Into<String>) -> Request {
        Request {
            endpoint: endpoint.into(),
            inputs: Vec::new(),
            parameters: Vec::new(),
            outputs: Vec::new(),
            headers: Vec::new(),
            tenant: None,
            timeout_ms: None,
        }
    }

    /// Ask, and wait for the answer.
    pub fn send(self) -> Result<Response> {
        sys::infer(&self)
    }
}

/// What was answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    /// The model that answered.
    pub model: String,
    /// Its version.
    pub version: String,
    /// The run that made the version.
    pub run: Option<String>,
    /// The variant that the plan chose.
    pub variant: Option<String>,
    /// The label of what answered instead.
    pub fallback: Option<String>,
    /// Headers that say all of that, for whoever asked this plugin.
    pub headers: Vec<(String, String)>,
    /// Its tensors.
    pub outputs: Vec<Tensor>,
    /// What is said of the whole answer.
    pub parameters: Vec<(String, Parameter)>,
}

/// An endpoint as it was when it was looked up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name.
    pub name: String,
    /// Whether it could answer.
    pub is_ready: bool,
    /// The version of its plan.
    pub plan_version: u64,
    /// Names of its variants.
    pub variants: Vec<String>,
    /// What the model behind it takes; empty where that is not known.
    pub inputs: Vec<TensorSpec>,
    /// What it gives.
    pub outputs: Vec<TensorSpec>,
}

/// Which variant a key gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// The variant.
    pub variant: String,
    /// The version of the plan that says so.
    pub plan_version: u64,
    /// Whether the same key gets it again.
    pub is_sticky: bool,
}

/// Names of the endpoints, in order, after this one; at most 1000 at a time.
pub fn endpoints(after: Option<&str>, limit: u32) -> Result<Vec<String>> {
    sys::endpoints(after, limit)
}

/// Look an endpoint up; none when there is none.
pub fn find(name: &str) -> Result<Option<Endpoint>> {
    sys::find_endpoint(name)
}

/// Who would answer a request whose key is this text.
pub fn assign(endpoint: &str, key: &str) -> Result<Assignment> {
    sys::assign(endpoint, key)
}
