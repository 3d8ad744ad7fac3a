//! The HTTP form of requests and answers: JSON, and raw tensors behind it.
//!
//! Owns the binary tensor extension both ways, for servers and for clients. Separate from the front, which knows paths and
//! statuses, so that whoever calls an upstream server uses the same code. Tensors that come or go raw are slices of one body:
//! they are not copied.
//!
//! Bounded by the body. On failure: `invalid`; a length that a header claims is checked before it is used.

use bytes::Bytes;
use mainstay_base::{Error, Result};

use crate::json::{self, Envelope, Side, TensorJson, put, put_member, put_parameters};
use crate::request::{InferAnswer, InferRequest, Parameter, RequestedOutput};
use crate::tensor::{Datatype, Shape, Tensor};

/// The header with the length of the JSON in front of raw tensors.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// In which form a caller wants outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnswerForm {
    /// Raw, where nothing was said of an output.
    pub binary: bool,
    /// What was said of single outputs.
    pub outputs: Vec<(String, bool)>,
}

impl AnswerForm {
    fn is_binary(&self, output: &str) -> bool {
        self.outputs.iter().find(|(name, _)| name == output).map_or(self.binary, |(_, binary)| *binary)
    }
}

/// A body in pieces, and how much of it is JSON where raw tensors follow.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// The value of [`HEADER_LENGTH`]; none where all of it is JSON.
    pub header_length: Option<usize>,
    /// JSON first, then a piece for each raw tensor.
    pub pieces: Vec<Bytes>,
}

impl Encoded {
    /// How long the body is.
    pub fn length(&self) -> usize {
        self.pieces.iter().map(Bytes::len).sum()
    }

    fn new(json: Vec<u8>, raw: Vec<Bytes>) -> Encoded {
        let header_length = (!raw.is_empty()).then_some(json.len());
        let mut pieces = Vec::with_capacity(raw.len() + 1);
        pieces.push(json.into());
        pieces.extend(raw);
        Encoded { header_length, pieces }
    }
}

/// Reads a request. `header_length` is the value of [`HEADER_LENGTH`], where there is one, and not 0: that is a raw request, which
/// only its model can explain ([`raw_request`]).
pub fn decode_request(
    model: &str,
    version: Option<&str>,
    body: Bytes,
    header_length: Option<usize>,
) -> Result<(InferRequest, AnswerForm)> {
    let (text, tail) = split(body, header_length)?;
    let envelope = json::read(&text, Side::Request)?;
    let Envelope { id, mut parameters, tensors, wanted, .. } = envelope;
    let mut form =
        AnswerForm { binary: flag(&mut parameters, "binary_data_output")?.unwrap_or(false), outputs: Vec::new() };
    let tensors = tensors.ok_or_else(|| Error::invalid("Unable to parse 'inputs': the request has none"))?;
    let inputs = attach(tensors, tail, &format!(" for model '{model}'"))?;
    let mut outputs = Vec::with_capacity(wanted.len());
    for RequestedOutput { name, parameters } in wanted {
        let mut parameters = json::Parameters(parameters);
        refuse_shared_memory(&parameters, &name)?;
        if let Some(binary) = flag(&mut parameters, "binary_data")? {
            form.outputs.push((name.clone(), binary));
        }
        outputs.push(RequestedOutput { name, parameters: parameters.0 });
    }
    let request = InferRequest {
        model: model.to_owned(),
        version: version.map(str::to_owned),
        id,
        parameters: parameters.0,
        inputs,
        outputs,
    };
    request.check()?;
    Ok((request, form))
}

/// The request of a body that is nothing but the elements of the one input of a model, in a batch of one.
///
/// `shape` is the input's, with -1 where the model takes any extent. The innermost of those is what the body's length makes it;
/// with `batched`, the first extent is the batch.
pub fn raw_request(
    model: &str,
    version: Option<&str>,
    name: &str,
    datatype: Datatype,
    shape: &[i64],
    batched: bool,
    body: Bytes,
) -> Result<InferRequest> {
    let mut shape = shape.to_vec();
    if let Some(batch) = shape.first_mut().filter(|_| batched) {
        *batch = 1;
    }
    let tensor = match datatype.width() {
        None => {
            let mut data = Vec::with_capacity(body.len() + 4);
            crate::tensor::put_element(&mut data, &body)?;
            let shape = fill_shape(&shape, 1).filter(|shape| shape.iter().all(|extent| *extent == 1));
            let shape = shape.ok_or_else(|| {
                Error::invalid(format!("For BYTE datatype raw input '{name}', the model must have input shape [1]"))
            })?;
            Tensor { name: name.to_owned(), datatype, shape, data: data.into() }
        }
        Some(width) => {
            let count = (body.len() / width) as u64;
            let whole = fill_shape(&shape, count).filter(|_| body.len().is_multiple_of(width));
            let shape = whole.ok_or_else(|| {
                Error::invalid(format!(
                    "raw input '{name}' for model '{model}' has {} bytes, which its shape {shape:?} of {} cannot hold",
                    body.len(),
                    datatype.name()
                ))
            })?;
            Tensor { name: name.to_owned(), datatype, shape, data: body }
        }
    };
    let request = InferRequest {
        model: model.to_owned(),
        version: version.map(str::to_owned),
        inputs: vec![tensor],
        ..InferRequest::default()
    };
    request.check()?;
    Ok(request)
}

/// The shape that holds `count` elements: the innermost extent of -1 takes what is left, any other is 1. None where it does not
/// come out even.
pub(crate) fn fill_shape(shape: &[i64], count: u64) -> Option<Shape> {
    let fixed = shape
        .iter()
        .filter(|extent| **extent >= 0)
        .try_fold(1_u64, |product, extent| product.checked_mul(*extent as u64))?;
    let mut rest = match (count, fixed) {
        (0, 0) => 1,
        (_, 0) => return None,
        _ if !count.is_multiple_of(fixed) => return None,
        _ => count / fixed,
    };
    let mut filled: Shape = shape
        .iter()
        .rev()
        .map(|extent| u64::try_from(*extent).unwrap_or_else(|_| std::mem::replace(&mut rest, 1)))
        .collect();
    filled.reverse();
    (rest == 1).then_some(filled)
}

/// Writes an answer in the form that its caller wants.
pub fn encode_answer(id: Option<&str>, answer: &InferAnswer, form: &AnswerForm) -> Result<Encoded> {
    let mut json = Vec::with_capacity(256);
    json.push(b'{');
    if let Some(id) = id {
        put_member(&mut json, "id", id);
    }
    put_member(&mut json, "model_name", &answer.model);
    put_member(&mut json, "model_version", &answer.version);
    put_envelope_parameters(&mut json, &answer.parameters, None);
    let raw = put_tensors(&mut json, "outputs", &answer.outputs, |output| form.is_binary(&output.name))?;
    json::close(&mut json, b'}');
    Ok(Encoded::new(json, raw))
}

/// Writes a request, as a client: raw tensors both ways with `binary`, else JSON.
pub fn encode_request(request: &InferRequest, binary: bool) -> Result<Encoded> {
    let mut json = Vec::with_capacity(256);
    json.push(b'{');
    if let Some(id) = &request.id {
        put_member(&mut json, "id", id);
    }
    put_envelope_parameters(&mut json, &request.parameters, binary.then_some("binary_data_output"));
    let raw = put_tensors(&mut json, "inputs", &request.inputs, |_| binary)?;
    if !request.outputs.is_empty() {
        json.extend_from_slice(b"\"outputs\":[");
        for output in &request.outputs {
            json.push(b'{');
            put_member(&mut json, "name", &output.name);
            put_envelope_parameters(&mut json, &output.parameters, None);
            json::close(&mut json, b'}');
            json.push(b',');
        }
        json::close(&mut json, b']');
        json.push(b',');
    }
    json::close(&mut json, b'}');
    Ok(Encoded::new(json, raw))
}

/// Reads an answer, as a client: its id and what it says.
pub fn decode_answer(body: Bytes, header_length: Option<usize>) -> Result<(Option<String>, InferAnswer)> {
    let (text, tail) = split(body, header_length)?;
    let Envelope { id, model, version, parameters, tensors, .. } = json::read(&text, Side::Answer)?;
    let outputs = attach(tensors.unwrap_or_default(), tail, "")?;
    let answer = InferAnswer {
        model: model.unwrap_or_default(),
        version: version.unwrap_or_default(),
        parameters: parameters.0,
        outputs,
    };
    Ok((id, answer))
}

/// The JSON of a body and the raw tensors behind it.
fn split(mut body: Bytes, header_length: Option<usize>) -> Result<(Bytes, Bytes)> {
    match header_length {
        None => Ok((body, Bytes::new())),
        Some(length) if length <= body.len() => {
            let text = body.split_to(length);
            Ok((text, body))
        }
        Some(length) => Err(Error::invalid(format!(
            "{HEADER_LENGTH} says that {length} bytes are JSON, but the body has only {}",
            body.len()
        ))),
    }
}

/// Takes a parameter that is true or false.
fn flag(parameters: &mut json::Parameters, name: &str) -> Result<Option<bool>> {
    match parameters.take(name) {
        None => Ok(None),
        Some(Parameter::Bool(value)) => Ok(Some(value)),
        Some(_) => Err(Error::invalid(format!("Unable to parse '{name}': it is true or false"))),
    }
}

fn refuse_shared_memory(parameters: &json::Parameters, tensor: &str) -> Result<()> {
    if parameters.0.iter().any(|(name, _)| name == "shared_memory_region") {
        return Err(crate::models::unsupported(format!("shared memory, which '{tensor}' asks for,")));
    }
    Ok(())
}

/// Gives each tensor its elements: those of its JSON, or the next raw bytes.
fn attach(tensors: Vec<TensorJson>, mut tail: Bytes, model: &str) -> Result<Vec<Tensor>> {
    let all = tail.len();
    let mut attached = Vec::with_capacity(tensors.len());
    for TensorJson { name, datatype, shape, mut parameters, elements } in tensors {
        refuse_shared_memory(&parameters, &name)?;
        let size = match parameters.take("binary_data_size") {
            None => None,
            Some(Parameter::Int64(size)) => usize::try_from(size).map_err(|_| wrong_size(&name)).map(Some)?,
            Some(_) => return Err(wrong_size(&name)),
        };
        let tensor = match (size, elements) {
            (Some(_), Some(_)) => {
                return Err(Error::invalid(format!(
                    "tensor '{name}' has both 'data' and 'binary_data_size'; it takes one of them"
                )));
            }
            (Some(size), None) if size > tail.len() => {
                return Err(Error::invalid(format!(
                    "tensor '{name}' has a 'binary_data_size' of {size}, but only {} of the {all} bytes behind the JSON are left",
                    tail.len()
                )));
            }
            (Some(size), None) => checked(Tensor { name, datatype, shape, data: tail.split_to(size) }, model)?,
            (None, Some(elements)) => {
                let tensor = Tensor { name, datatype, shape, data: elements.data.into() };
                let expected = tensor.count()?;
                if expected != elements.count {
                    return Err(Error::invalid(format!(
                        "Shape does not match true shape of 'data' field of '{}'{model}. Expected {expected} elements, got {}",
                        tensor.name, elements.count
                    )));
                }
                tensor
            }
            (None, None) => {
                return Err(Error::invalid(format!(
                    "tensor '{name}' has neither 'data' nor 'binary_data_size' in its parameters"
                )));
            }
        };
        attached.push(tensor);
    }
    if !tail.is_empty() {
        return Err(Error::invalid(format!(
            "{} of the {all} bytes behind the JSON belong to no tensor: the sizes in 'binary_data_size' do not add up to them",
            tail.len()
        )));
    }
    Ok(attached)
}

fn wrong_size(name: &str) -> Error {
    Error::invalid(format!("Unable to parse 'binary_data_size' of tensor '{name}': it is a number of bytes"))
}

/// The tensor, if its raw bytes are as many as its shape says.
fn checked(tensor: Tensor, model: &str) -> Result<Tensor> {
    if let Some(width) = tensor.datatype.width() {
        let expected = tensor.count()?.checked_mul(width);
        if expected != Some(tensor.data.len()) {
            return Err(Error::invalid(format!(
                "input byte size mismatch for input '{}'{model}. Expected {}, got {}",
                tensor.name,
                expected.map_or_else(|| "more than there can be".to_owned(), |bytes| bytes.to_string()),
                tensor.data.len()
            )));
        }
    }
    Ok(tensor)
}

fn put_envelope_parameters(json: &mut Vec<u8>, parameters: &[(String, Parameter)], also: Option<&str>) {
    if parameters.is_empty() && also.is_none() {
        return;
    }
    json.extend_from_slice(b"\"parameters\":");
    let also = also.map(|name| (name, &Parameter::Bool(true)));
    put_parameters(json, parameters.iter().map(|(name, parameter)| (name.as_str(), parameter)).chain(also));
    json.push(b',');
}

/// Writes a list of tensors, and returns what of them goes raw.
fn put_tensors(
    json: &mut Vec<u8>,
    list: &str,
    tensors: &[Tensor],
    binary: impl Fn(&Tensor) -> bool,
) -> Result<Vec<Bytes>> {
    let mut raw = Vec::new();
    put(json, list);
    json.extend_from_slice(b":[");
    for tensor in tensors {
        json.push(b'{');
        put_member(json, "name", &tensor.name);
        put_member(json, "datatype", tensor.datatype.name());
        put_member(json, "shape", &tensor.shape[..]);
        if binary(tensor) {
            json.extend_from_slice(b"\"parameters\":{");
            put_member(json, "binary_data_size", &tensor.data.len());
            json::close(json, b'}');
            raw.push(tensor.data.clone());
        } else {
            json.extend_from_slice(b"\"data\":");
            json::put_elements(json, tensor)?;
        }
        json.extend_from_slice(b"},");
    }
    json::close(json, b']');
    json.push(b',');
    Ok(raw)
}
