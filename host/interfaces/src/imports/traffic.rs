//! `mainstay:host/traffic`: endpoints, asked and looked at by plugins.
//!
//! A request is put together here and goes through [`InferenceDoor`](crate::InferenceDoor) the way of every other. Bounded by
//! [`REQUESTS_MAX`], [`ENDPOINTS_MAX`], the sizes below and the deadline of the call. On failure: a typed error to the plugin;
//! what a fallback asks never comes back to what it stands in for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue};
use mainstay_base::{Error, Result as HostResult};
use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::host::tensors::{
    Parameter as WireParameter, Tensor as WireTensor, TensorSpec as WireSpec,
};
use mainstay_bindings::mainstay::host::traffic::{
    Assignment as AssignmentHandle, Endpoint as EndpointHandle, Host, HostAssignment, HostEndpoint, HostRequest,
    HostResponse, Request as RequestHandle, Response as ResponseHandle,
};
use mainstay_inference::limits::{PARAMETERS_MAX, TENSORS_MAX};
use mainstay_inference::{InferRequest, RequestedOutput};
use wasmtime::component::Resource;

use crate::capabilities::{TRAFFIC_INFER, TRAFFIC_READ};
use crate::door::{DoorAnswer, DoorAsk};
use crate::imports::arrays::ended;
use crate::imports::tensors;
use crate::state::State;

/// Requests and answers that a call may hold, of each.
pub const REQUESTS_MAX: usize = 8;
/// Endpoints and assignments that a call may hold, of each.
pub const ENDPOINTS_MAX: usize = 64;
/// Bytes of all inputs of a request, and of the outputs that are read at once.
pub const TENSOR_BYTES_MAX: usize = 4 << 20;
/// Headers of a request, and their bytes together.
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 8 << 10;
/// The longest name of an endpoint, tenant or key, in bytes.
const WORD_BYTES_MAX: usize = 1 << 10;
/// The longest time that an answer may be waited for, in milliseconds.
const TIMEOUT_MS_MAX: u32 = 600_000;
/// Names of endpoints in one answer.
const NAMES_MAX: u32 = 1000;

type Answer<T> = Result<T, Failure>;

/// A request while it is put together.
pub(crate) struct InferenceCall {
    request: InferRequest,
    headers: HeaderMap,
    header_bytes: usize,
    tenant: Option<Arc<str>>,
    timeout_ms: Option<u32>,
}

impl Host for State {
    async fn infer(&mut self, request: Resource<RequestHandle>) -> Answer<Resource<ResponseHandle>> {
        let _host = self.enter(TRAFFIC_INFER)?;
        let InferenceCall { request, headers, tenant, timeout_ms, .. } = self.inference_calls.take(&request)?;
        if self.stands_in_for.as_deref() == Some(&*request.model) {
            let endpoint = request.model;
            return Err(Error::denied(format!(
                "this call answers instead of the endpoint `{endpoint}` and may not ask it; ask another"
            ))
            .into());
        }
        let asked = timeout_ms.and_then(|ms| Instant::now().checked_add(Duration::from_millis(u64::from(ms))));
        let ask = DoorAsk {
            plugin: self.plugin.name.clone(),
            request,
            headers,
            tenant,
            deadline: asked.into_iter().chain(self.deadline).min(),
            traceparent: self.traceparent(),
            within_fallback: self.stands_in_for.is_some(),
        };
        let endpoint = ask.request.model.clone();
        let door = self.plugin.services.door.get()?.clone();
        let deadline = ask.deadline;
        let answer = within(deadline, &endpoint, door.infer(ask)).await?;
        if let (Some(label), true) = (&answer.fallback, self.stands_in_for.is_some()) {
            return Err(Error::unavailable(format!(
                "`{endpoint}` was answered by its own fallback `{label}`, which is no answer to a fallback"
            ))
            .into());
        }
        Ok(self.inference_answers.add(answer)?)
    }

    fn endpoints(&mut self, after: Option<String>, limit: u32) -> Answer<Vec<String>> {
        let _host = self.enter(TRAFFIC_READ)?;
        if limit == 0 || limit > NAMES_MAX {
            return Err(Error::invalid(format!("a limit of {limit} names; it must be 1 to {NAMES_MAX}")).into());
        }
        let names = self.plugin.services.door.get()?.endpoints();
        let is_behind = |name: &&Arc<str>| after.as_ref().is_none_or(|after| ***name > **after);
        Ok(names.iter().filter(is_behind).take(limit as usize).map(|name| name.to_string()).collect())
    }

    async fn find(&mut self, name: String) -> Answer<Option<Resource<EndpointHandle>>> {
        let _host = self.enter(TRAFFIC_READ)?;
        check_word("an endpoint", &name)?;
        let door = self.plugin.services.door.get()?.clone();
        match door.find(&name).await? {
            Some(found) => Ok(Some(self.endpoints.add(found)?)),
            None => Ok(None),
        }
    }

    fn assign(&mut self, endpoint: String, key: String) -> Answer<Resource<AssignmentHandle>> {
        let _host = self.enter(TRAFFIC_READ)?;
        check_word("an endpoint", &endpoint)?;
        check_word("a key", &key)?;
        let assignment = self.plugin.services.door.get()?.assign(&endpoint, &key)?;
        Ok(self.assignments.add(assignment)?)
    }
}

/// Waits until the deadline, whether or not who answers keeps to it.
async fn within(
    deadline: Option<Instant>,
    endpoint: &str,
    work: impl Future<Output = HostResult<DoorAnswer>>,
) -> HostResult<DoorAnswer> {
    let Some(deadline) = deadline else { return work.await };
    tokio::time::timeout_at(deadline.into(), work)
        .await
        .unwrap_or_else(|_| Err(Error::unavailable(format!("`{endpoint}` did not answer in time; allow it more"))))
}

fn check_word(what: &str, word: &str) -> HostResult<()> {
    match word.len() {
        1..=WORD_BYTES_MAX => Ok(()),
        bytes => Err(Error::invalid(format!("{what} has a name of {bytes} bytes; it takes 1 to {WORD_BYTES_MAX}"))),
    }
}

impl HostRequest for State {
    fn new(&mut self, endpoint: String) -> Answer<Resource<RequestHandle>> {
        let _host = self.enter(TRAFFIC_INFER)?;
        check_word("an endpoint", &endpoint)?;
        let request = InferRequest { model: endpoint, ..InferRequest::default() };
        let headers = HeaderMap::new();
        let call = InferenceCall { request, headers, header_bytes: 0, tenant: None, timeout_ms: None };
        Ok(self.inference_calls.add(call)?)
    }

    fn input(&mut self, request: Resource<RequestHandle>, tensor: WireTensor) -> Answer<()> {
        let _host = self.enter(TRAFFIC_INFER)?;
        let inputs = &mut self.inference_calls.get(&request)?.request.inputs;
        if inputs.len() >= TENSORS_MAX {
            return Err(Error::invalid(format!("a request has at most {TENSORS_MAX} inputs")).into());
        }
        Ok(tensors::add("the inputs of a request", inputs, tensor, TENSOR_BYTES_MAX)?)
    }

    fn parameter(&mut self, request: Resource<RequestHandle>, parameter: WireParameter) -> Answer<()> {
        let _host = self.enter(TRAFFIC_INFER)?;
        let parameters = &mut self.inference_calls.get(&request)?.request.parameters;
        Ok(tensors::add_parameter(parameters, parameter, PARAMETERS_MAX)?)
    }

    fn output(&mut self, request: Resource<RequestHandle>, name: String) -> Answer<()> {
        let _host = self.enter(TRAFFIC_INFER)?;
        tensors::check_name(&name)?;
        let outputs = &mut self.inference_calls.get(&request)?.request.outputs;
        if outputs.len() >= TENSORS_MAX || outputs.iter().any(|earlier| earlier.name == name) {
            return Err(Error::invalid(format!(
                "the output `{}` is asked for already, or {TENSORS_MAX} others are; name each once",
                name.escape_debug()
            ))
            .into());
        }
        outputs.push(RequestedOutput { name, parameters: Vec::new() });
        Ok(())
    }

    fn header(&mut self, request: Resource<RequestHandle>, name: String, value: String) -> Answer<()> {
        let _host = self.enter(TRAFFIC_INFER)?;
        let wrong = || Error::invalid(format!("`{}` and its value are no header of HTTP", name.escape_debug()));
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        let call = self.inference_calls.get(&request)?;
        let bytes = call.header_bytes + name.len() + value.len();
        if call.headers.len() >= HEADERS_MAX || bytes > HEADER_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a request has at most {HEADERS_MAX} headers of {HEADER_BYTES_MAX} bytes together"
            ))
            .into());
        }
        call.headers.append(header, HeaderValue::from_str(&value).map_err(|_| wrong())?);
        call.header_bytes = bytes;
        Ok(())
    }

    fn tenant(&mut self, request: Resource<RequestHandle>, name: String) -> Answer<()> {
        let _host = self.enter(TRAFFIC_INFER)?;
        check_word("a tenant", &name)?;
        self.inference_calls.get(&request)?.tenant = Some(name.into());
        Ok(())
    }

    fn timeout_ms(&mut self, request: Resource<RequestHandle>, timeout: u32) -> Answer<()> {
        let _host = self.enter(TRAFFIC_INFER)?;
        if timeout == 0 || timeout > TIMEOUT_MS_MAX {
            return Err(Error::invalid(format!("a timeout of {timeout} ms; it must be 1 to {TIMEOUT_MS_MAX}")).into());
        }
        self.inference_calls.get(&request)?.timeout_ms = Some(timeout);
        Ok(())
    }

    fn drop(&mut self, request: Resource<RequestHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.inference_calls.drop(&request);
        Ok(())
    }
}

impl HostResponse for State {
    fn model(&mut self, response: Resource<ResponseHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.inference_answers.get(&response).map_err(ended)?.answer.model.clone())
    }

    fn version(&mut self, response: Resource<ResponseHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.inference_answers.get(&response).map_err(ended)?.answer.version.clone())
    }

    fn run(&mut self, response: Resource<ResponseHandle>) -> wasmtime::Result<Option<String>> {
        let _host = self.ambient()?;
        Ok(self.inference_answers.get(&response).map_err(ended)?.run.as_deref().map(str::to_owned))
    }

    fn variant(&mut self, response: Resource<ResponseHandle>) -> wasmtime::Result<Option<String>> {
        let _host = self.ambient()?;
        Ok(self.inference_answers.get(&response).map_err(ended)?.variant.as_deref().map(str::to_owned))
    }

    fn fallback(&mut self, response: Resource<ResponseHandle>) -> wasmtime::Result<Option<String>> {
        let _host = self.ambient()?;
        Ok(self.inference_answers.get(&response).map_err(ended)?.fallback.as_deref().map(str::to_owned))
    }

    fn headers(&mut self, response: Resource<ResponseHandle>) -> wasmtime::Result<Vec<(String, String)>> {
        let _host = self.ambient()?;
        Ok(self.inference_answers.get(&response).map_err(ended)?.headers.clone())
    }

    fn outputs(&mut self, response: Resource<ResponseHandle>) -> Answer<Vec<WireTensor>> {
        let _host = self.enter(TRAFFIC_INFER)?;
        let outputs = &self.inference_answers.get(&response)?.answer.outputs;
        Ok(tensors::all_to_wire("the outputs", outputs, TENSOR_BYTES_MAX)?)
    }

    fn output_names(&mut self, response: Resource<ResponseHandle>) -> wasmtime::Result<Vec<String>> {
        let _host = self.ambient()?;
        let outputs = &self.inference_answers.get(&response).map_err(ended)?.answer.outputs;
        Ok(outputs.iter().map(|output| output.name.clone()).collect())
    }

    fn output(&mut self, response: Resource<ResponseHandle>, name: String) -> Answer<Option<WireTensor>> {
        let _host = self.enter(TRAFFIC_INFER)?;
        let outputs = &self.inference_answers.get(&response)?.answer.outputs;
        Ok(tensors::one_to_wire(outputs, &name, TENSOR_BYTES_MAX)?)
    }

    fn parameters(&mut self, response: Resource<ResponseHandle>) -> wasmtime::Result<Vec<WireParameter>> {
        let _host = self.ambient()?;
        let answer = self.inference_answers.get(&response).map_err(ended)?;
        Ok(tensors::parameters_to_wire(&answer.answer.parameters))
    }

    fn drop(&mut self, response: Resource<ResponseHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.inference_answers.drop(&response);
        Ok(())
    }
}

impl HostEndpoint for State {
    fn name(&mut self, endpoint: Resource<EndpointHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.endpoints.get(&endpoint).map_err(ended)?.name.clone())
    }

    fn is_ready(&mut self, endpoint: Resource<EndpointHandle>) -> wasmtime::Result<bool> {
        let _host = self.ambient()?;
        Ok(self.endpoints.get(&endpoint).map_err(ended)?.is_ready)
    }

    fn plan_version(&mut self, endpoint: Resource<EndpointHandle>) -> wasmtime::Result<u64> {
        let _host = self.ambient()?;
        Ok(self.endpoints.get(&endpoint).map_err(ended)?.plan_version)
    }

    fn variants(&mut self, endpoint: Resource<EndpointHandle>) -> wasmtime::Result<Vec<String>> {
        let _host = self.ambient()?;
        Ok(self.endpoints.get(&endpoint).map_err(ended)?.variants.clone())
    }

    fn inputs(&mut self, endpoint: Resource<EndpointHandle>) -> wasmtime::Result<Vec<WireSpec>> {
        let _host = self.ambient()?;
        Ok(tensors::specs_to_wire(&self.endpoints.get(&endpoint).map_err(ended)?.inputs))
    }

    fn outputs(&mut self, endpoint: Resource<EndpointHandle>) -> wasmtime::Result<Vec<WireSpec>> {
        let _host = self.ambient()?;
        Ok(tensors::specs_to_wire(&self.endpoints.get(&endpoint).map_err(ended)?.outputs))
    }

    fn drop(&mut self, endpoint: Resource<EndpointHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.endpoints.drop(&endpoint);
        Ok(())
    }
}

impl HostAssignment for State {
    fn variant(&mut self, assignment: Resource<AssignmentHandle>) -> wasmtime::Result<String> {
        let _host = self.ambient()?;
        Ok(self.assignments.get(&assignment).map_err(ended)?.variant.clone())
    }

    fn plan_version(&mut self, assignment: Resource<AssignmentHandle>) -> wasmtime::Result<u64> {
        let _host = self.ambient()?;
        Ok(self.assignments.get(&assignment).map_err(ended)?.plan_version)
    }

    fn is_sticky(&mut self, assignment: Resource<AssignmentHandle>) -> wasmtime::Result<bool> {
        let _host = self.ambient()?;
        Ok(self.assignments.get(&assignment).map_err(ended)?.is_sticky)
    }

    fn drop(&mut self, assignment: Resource<AssignmentHandle>) -> wasmtime::Result<()> {
        let _host = self.ambient()?;
        self.assignments.drop(&assignment);
        Ok(())
    }
}
