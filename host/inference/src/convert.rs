//! The gRPC form of requests and answers.
//!
//! Owns the way between the protocol's messages and the house's words, both ways, for servers and for clients. Separate from the
//! service, so that whoever calls an upstream server uses the same code. Raw tensors are passed on, not copied.
//!
//! Bounded by the message. On failure: `invalid`; raw and typed contents may not be mixed.

use bytes::Bytes;
use mainstay_base::{Error, Result};

use crate::models::unsupported;
use crate::proto::infer_parameter::ParameterChoice;
use crate::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use crate::proto::model_infer_response::InferOutputTensor;
use crate::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::request::{InferAnswer, InferRequest, Parameter, RequestedOutput};
use crate::tensor::{Datatype, Shape, Tensor, put_element};

type Parameters = std::collections::BTreeMap<String, InferParameter>;

/// Reads a request.
pub fn request_of_message(message: ModelInferRequest) -> Result<InferRequest> {
    let ModelInferRequest { model_name, model_version, id, parameters, inputs, outputs, raw_input_contents } = message;
    let raw = Raw::of(&inputs, raw_input_contents, |input| input.contents.is_some(), &model_name, "input")?;
    let mut read = InferRequest {
        version: (!model_version.is_empty()).then_some(model_version),
        id: (!id.is_empty()).then_some(id),
        parameters: read_parameters(parameters)?,
        inputs: Vec::with_capacity(inputs.len()),
        outputs: Vec::with_capacity(outputs.len()),
        model: model_name,
    };
    let mut raw = raw.into_iter();
    for InferInputTensor { name, datatype, shape, parameters, contents } in inputs {
        refuse_shared_memory(&parameters, &name)?;
        let tensor = tensor_of(name, &datatype, &shape, contents, raw.next(), &format!(" for model '{}'", read.model))?;
        read.inputs.push(tensor);
    }
    for InferRequestedOutputTensor { name, parameters } in outputs {
        refuse_shared_memory(&parameters, &name)?;
        read.outputs.push(RequestedOutput { name, parameters: read_parameters(parameters)? });
    }
    read.check()?;
    Ok(read)
}

/// Writes a request, as a client.
pub fn message_of_request(request: &InferRequest) -> ModelInferRequest {
    let input = |tensor: &Tensor| InferInputTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().to_owned(),
        shape: signed(&tensor.shape),
        ..InferInputTensor::default()
    };
    let output = |output: &RequestedOutput| InferRequestedOutputTensor {
        name: output.name.clone(),
        parameters: write_parameters(&output.parameters),
    };
    ModelInferRequest {
        model_name: request.model.clone(),
        model_version: request.version.clone().unwrap_or_default(),
        id: request.id.clone().unwrap_or_default(),
        parameters: write_parameters(&request.parameters),
        inputs: request.inputs.iter().map(input).collect(),
        outputs: request.outputs.iter().map(output).collect(),
        raw_input_contents: request.inputs.iter().map(|tensor| tensor.data.clone()).collect(),
    }
}

/// Writes an answer: always raw, which every client reads.
pub fn message_of_answer(id: Option<&str>, answer: InferAnswer) -> ModelInferResponse {
    let output = |tensor: &Tensor| InferOutputTensor {
        name: tensor.name.clone(),
        datatype: tensor.datatype.name().to_owned(),
        shape: signed(&tensor.shape),
        ..InferOutputTensor::default()
    };
    ModelInferResponse {
        id: id.unwrap_or_default().to_owned(),
        parameters: write_parameters(&answer.parameters),
        outputs: answer.outputs.iter().map(output).collect(),
        raw_output_contents: answer.outputs.into_iter().map(|tensor| tensor.data).collect(),
        model_name: answer.model,
        model_version: answer.version,
    }
}

/// Reads an answer, as a client: its id and what it says.
pub fn answer_of_message(message: ModelInferResponse) -> Result<(Option<String>, InferAnswer)> {
    let ModelInferResponse { model_name, model_version, id, parameters, outputs, raw_output_contents } = message;
    let raw = Raw::of(&outputs, raw_output_contents, |output| output.contents.is_some(), &model_name, "output")?;
    let mut raw = raw.into_iter();
    let outputs = outputs
        .into_iter()
        .map(|output| tensor_of(output.name, &output.datatype, &output.shape, output.contents, raw.next(), ""))
        .collect::<Result<_>>()?;
    let answer =
        InferAnswer { model: model_name, version: model_version, parameters: read_parameters(parameters)?, outputs };
    Ok(((!id.is_empty()).then_some(id), answer))
}

/// Raw contents, one a tensor; or none at all.
struct Raw;

impl Raw {
    fn of<T>(
        tensors: &[T],
        raw: Vec<Bytes>,
        typed: impl Fn(&T) -> bool,
        model: &str,
        what: &str,
    ) -> Result<Vec<Bytes>> {
        if raw.is_empty() {
            return Ok(raw);
        }
        if tensors.iter().any(typed) {
            return Err(Error::invalid(format!(
                "contents field must not be specified when using raw_{what}_contents for model '{model}'"
            )));
        }
        if raw.len() != tensors.len() {
            return Err(Error::invalid(format!(
                "expected {} entries in raw_{what}_contents for model '{model}', one for each {what}, got {}",
                tensors.len(),
                raw.len()
            )));
        }
        Ok(raw)
    }
}

fn tensor_of(
    name: String,
    datatype: &str,
    extents: &[i64],
    contents: Option<InferTensorContents>,
    raw: Option<Bytes>,
    model: &str,
) -> Result<Tensor> {
    let datatype = Datatype::parse(datatype).map_err(|error| error.context(format!("tensor '{name}'")))?;
    let shape = extents.iter().map(|extent| u64::try_from(*extent).ok()).collect::<Option<Shape>>();
    let shape = shape
        .ok_or_else(|| Error::invalid(format!("tensor '{name}' has the shape {extents:?}: an extent is negative")))?;
    let data = match raw {
        Some(raw) => raw,
        None => typed(&name, datatype, contents.unwrap_or_default(), model)?,
    };
    let tensor = Tensor { name, datatype, shape, data };
    let expected = tensor.count()?;
    let expected = tensor.datatype.width().map(|width| expected.checked_mul(width));
    if expected.is_some_and(|expected| expected != Some(tensor.data.len())) {
        return Err(Error::invalid(format!(
            "input byte size mismatch for input '{}'{model}. Expected {}, got {}",
            tensor.name,
            expected.flatten().map_or_else(|| "more than there can be".to_owned(), |bytes| bytes.to_string()),
            tensor.data.len()
        )));
    }
    Ok(tensor)
}

/// Typed contents in their binary form.
fn typed(name: &str, datatype: Datatype, contents: InferTensorContents, model: &str) -> Result<Bytes> {
    let InferTensorContents {
        bool_contents,
        int_contents,
        int64_contents,
        uint_contents,
        uint64_contents,
        fp32_contents,
        fp64_contents,
        bytes_contents,
    } = contents;
    let held = [
        bool_contents.len(),
        int_contents.len(),
        int64_contents.len(),
        uint_contents.len(),
        uint64_contents.len(),
        fp32_contents.len(),
        fp64_contents.len(),
        bytes_contents.len(),
    ];
    let unfit = |element: i64| {
        Error::invalid(format!("tensor '{name}'{model} holds {element}, which is no element of {}", datatype.name()))
    };
    let mut data = Vec::new();
    macro_rules! put {
        ($list:expr) => {
            $list.iter().for_each(|element| data.extend_from_slice(&element.to_le_bytes()))
        };
        ($list:expr, $type:ty) => {
            for element in &$list {
                let element = <$type>::try_from(*element).map_err(|_| unfit(i64::from(*element)))?;
                data.extend_from_slice(&element.to_le_bytes());
            }
        };
    }
    let taken = match datatype {
        Datatype::Bool => {
            data.extend(bool_contents.iter().map(|truth| u8::from(*truth)));
            bool_contents.len()
        }
        Datatype::Int8 => {
            put!(int_contents, i8);
            int_contents.len()
        }
        Datatype::Int16 => {
            put!(int_contents, i16);
            int_contents.len()
        }
        Datatype::Int32 => {
            put!(int_contents);
            int_contents.len()
        }
        Datatype::Int64 => {
            put!(int64_contents);
            int64_contents.len()
        }
        Datatype::Uint8 => {
            put!(uint_contents, u8);
            uint_contents.len()
        }
        Datatype::Uint16 => {
            put!(uint_contents, u16);
            uint_contents.len()
        }
        Datatype::Uint32 => {
            put!(uint_contents);
            uint_contents.len()
        }
        Datatype::Uint64 => {
            put!(uint64_contents);
            uint64_contents.len()
        }
        Datatype::Fp32 => {
            put!(fp32_contents);
            fp32_contents.len()
        }
        Datatype::Fp64 => {
            put!(fp64_contents);
            fp64_contents.len()
        }
        Datatype::Bytes => {
            bytes_contents.iter().try_for_each(|element| put_element(&mut data, element))?;
            bytes_contents.len()
        }
        Datatype::Fp16 | Datatype::Bf16 => {
            return Err(Error::invalid(format!(
                "tensor '{name}'{model} is of {}, which has no typed contents: send it raw",
                datatype.name()
            )));
        }
    };
    if held.iter().sum::<usize>() != taken {
        return Err(Error::invalid(format!(
            "tensor '{name}'{model} has contents of another type than {}; send each tensor in the field of its own type",
            datatype.name()
        )));
    }
    Ok(data.into())
}

fn refuse_shared_memory(parameters: &Parameters, tensor: &str) -> Result<()> {
    if parameters.contains_key("shared_memory_region") {
        return Err(unsupported(format!("shared memory, which '{tensor}' asks for,")));
    }
    Ok(())
}

/// Parameters out of a message.
pub(crate) fn read_parameters(parameters: Parameters) -> Result<Vec<(String, Parameter)>> {
    let read = parameters.into_iter().map(|(name, parameter)| {
        let parameter = match parameter.parameter_choice {
            Some(ParameterChoice::BoolParam(value)) => Parameter::Bool(value),
            Some(ParameterChoice::Int64Param(value)) => Parameter::Int64(value),
            Some(ParameterChoice::Uint64Param(value)) => Parameter::Uint64(value),
            Some(ParameterChoice::DoubleParam(value)) => Parameter::Double(value),
            Some(ParameterChoice::StringParam(value)) => Parameter::String(value),
            None => return Err(Error::invalid(format!("parameter '{name}' has no value"))),
        };
        Ok((name, parameter))
    });
    read.collect()
}

fn write_parameters(parameters: &[(String, Parameter)]) -> Parameters {
    parameters.iter().map(|(name, parameter)| (name.clone(), message_of_parameter(parameter))).collect()
}

/// One parameter as a message.
pub(crate) fn message_of_parameter(parameter: &Parameter) -> InferParameter {
    let choice = match parameter {
        Parameter::Bool(value) => ParameterChoice::BoolParam(*value),
        Parameter::Int64(value) => ParameterChoice::Int64Param(*value),
        Parameter::Uint64(value) => ParameterChoice::Uint64Param(*value),
        Parameter::Double(value) => ParameterChoice::DoubleParam(*value),
        Parameter::String(value) => ParameterChoice::StringParam(value.clone()),
    };
    InferParameter { parameter_choice: Some(choice) }
}

/// A shape as messages have it. What holds elements has no extent beyond `i64`.
fn signed(shape: &[u64]) -> Vec<i64> {
    shape.iter().map(|extent| i64::try_from(*extent).unwrap_or(i64::MAX)).collect()
}
