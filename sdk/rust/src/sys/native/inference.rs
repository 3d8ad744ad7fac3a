//! Endpoints, asks and lessons in native tests: a test says what stands behind each name.

use super::state;
use crate::tensors::{Parameter, Tensor};
use crate::traffic::{Assignment, Endpoint, Request, Response};
use crate::{Error, Result};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// What the contract gives at once, in bytes.
const TENSOR_BYTES_MAX: usize = 64 << 10;

type Model = Rc<dyn Fn(&Request) -> Result<Response>>;

/// Endpoints by name, and what they were asked.
#[derive(Default)]
pub(crate) struct Endpoints {
    pub(crate) served: RefCell<BTreeMap<String, (Endpoint, Model)>>,
    pub(crate) asked: RefCell<Vec<Request>>,
    /// The endpoint in whose place the plugin answers.
    pub(crate) stands_in_for: RefCell<Option<String>>,
}

pub fn infer(request: &Request) -> Result<Response> {
    let state = state();
    request.inputs.iter().try_for_each(Tensor::check)?;
    let endpoint = &request.endpoint;
    let stands_in_for = state.endpoints.stands_in_for.borrow().clone();
    if stands_in_for.as_ref() == Some(endpoint) {
        return Err(Error::denied(format!("this call answers instead of `{endpoint}` and may not ask it")));
    }
    state.endpoints.asked.borrow_mut().push(request.clone());
    let found = state.endpoints.served.borrow().get(endpoint).map(|(_, model)| model.clone());
    let model = found.ok_or_else(|| Error::not_found(format!("there is no endpoint `{endpoint}`")))?;
    let response = model(request)?;
    match (&response.fallback, stands_in_for) {
        (Some(label), Some(_)) => {
            Err(Error::unavailable(format!("`{endpoint}` was answered by its own fallback `{label}`")))
        }
        _ => Ok(response),
    }
}

pub fn endpoints(after: Option<&str>, limit: u32) -> Result<Vec<String>> {
    let state = state();
    let served = state.endpoints.served.borrow();
    let behind = served.keys().filter(|name| after.is_none_or(|after| name.as_str() > after));
    Ok(behind.take(limit as usize).cloned().collect())
}

pub fn find_endpoint(name: &str) -> Result<Option<Endpoint>> {
    Ok(state().endpoints.served.borrow().get(name).map(|(endpoint, _)| endpoint.clone()))
}

/// By the key's length: the same key gets the same variant.
pub fn assign(endpoint: &str, key: &str) -> Result<Assignment> {
    let found = find_endpoint(endpoint)?;
    let found = found.ok_or_else(|| Error::not_found(format!("there is no endpoint `{endpoint}`")))?;
    let place = key.len().checked_rem(found.variants.len());
    let variant = place.and_then(|place| found.variants.get(place)).cloned();
    let variant = variant.ok_or_else(|| Error::unavailable(format!("`{endpoint}` has no variants")))?;
    Ok(Assignment { variant, plan_version: found.plan_version, is_sticky: true })
}

#[derive(Clone, Debug, PartialEq)]
pub struct Ask {
    pub(crate) endpoint: String,
    pub(crate) variant: Option<String>,
    pub(crate) why: String,
    pub(crate) tenant: String,
    pub(crate) inputs: Vec<Tensor>,
    pub(crate) parameters: Vec<(String, Parameter)>,
    pub(crate) wanted: Vec<String>,
    pub(crate) remaining_ms: u32,
}

impl Ask {
    pub fn endpoint(&self) -> String {
        self.endpoint.clone()
    }

    pub fn variant(&self) -> Option<String> {
        self.variant.clone()
    }

    pub fn why(&self) -> String {
        self.why.clone()
    }

    pub fn tenant(&self) -> String {
        self.tenant.clone()
    }

    pub fn rows(&self) -> u64 {
        self.inputs.first().map_or(0, Tensor::rows)
    }

    pub fn inputs(&self) -> Result<Vec<Tensor>> {
        check_size(self.inputs.iter().map(|input| input.data.len()).sum())?;
        Ok(self.inputs.clone())
    }

    pub fn input(&self, name: &str) -> Result<Option<Tensor>> {
        let found = self.inputs.iter().find(|input| input.name == name).cloned();
        check_size(found.as_ref().map_or(0, |input| input.data.len()))?;
        Ok(found)
    }

    pub fn parameters(&self) -> Vec<(String, Parameter)> {
        self.parameters.clone()
    }

    pub fn wanted(&self) -> Vec<String> {
        self.wanted.clone()
    }

    pub fn remaining_ms(&self) -> u32 {
        self.remaining_ms
    }
}

/// What the host says of a reply that it would not take.
pub(crate) fn check_reply(reply: &crate::fallback::Reply) -> Result<()> {
    let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
    let label = &reply.label;
    if !(1..=64).contains(&label.len()) || !label.bytes().all(is_good) {
        return Err(Error::invalid(format!("`{label}` is no label of an answer")));
    }
    if reply.outputs.is_empty() {
        return Err(Error::internal("the plugin answered without a single output"));
    }
    for (place, output) in reply.outputs.iter().enumerate() {
        output.check()?;
        if reply.outputs[..place].iter().any(|earlier| earlier.name == output.name) {
            return Err(Error::invalid(format!("the outputs have a tensor `{}` already", output.name)));
        }
    }
    check_size(reply.outputs.iter().map(|output| output.data.len()).sum())
}

fn check_size(bytes: usize) -> Result<()> {
    match bytes <= TENSOR_BYTES_MAX {
        true => Ok(()),
        false => Err(Error::exhausted(format!("{bytes} bytes of tensors; at most {TENSOR_BYTES_MAX} cross at once"))),
    }
}
