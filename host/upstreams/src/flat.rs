//! Requests and answers as flat JSON: a key a tensor.
//!
//! Owns the caller's side of `generate_stream`, and the description of a model as JSON. Separate from the calls, because it is pure.
//! What a flat answer does not say (datatypes and shapes) is taken from the model's description; without one, texts are `BYTES`,
//! truths `BOOL`, whole numbers `INT64` or `UINT64`, other numbers `FP64`. Elements are read by the protocol's own reader.
//!
//! Bounded by the text that is read. On failure: `invalid`, saying what cannot be read or written.

use mainstay_base::{Error, Result};
use mainstay_inference::{
    Datatype, InferAnswer, InferRequest, ModelMetadata, Parameter, TensorMetadata, decode_answer, encode_request,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};

/// The flat form of a request. `invalid` where a tensor has no JSON form.
pub(crate) fn write(request: &InferRequest) -> Result<Vec<u8>> {
    #[derive(Deserialize)]
    struct Written {
        inputs: Vec<Input>,
    }
    #[derive(Deserialize)]
    struct Input {
        name: String,
        data: Value,
    }
    // The elements as the protocol's own writer has them.
    let plain = InferRequest { inputs: request.inputs.clone(), ..InferRequest::default() };
    let unread = |error: serde_json::Error| Error::internal(format!("a request was not written as JSON: {error}"));
    let pieces = encode_request(&plain, false)?.pieces.concat();
    let Written { inputs } = serde_json::from_slice(&pieces).map_err(unread)?;
    let mut flat = Map::new();
    if let Some(id) = &request.id {
        flat.insert("id".to_owned(), id.as_str().into());
    }
    if !request.parameters.is_empty() {
        let parameters =
            request.parameters.iter().map(|(name, value)| Ok((name.clone(), serde_json::to_value(value)?)));
        let parameters = parameters.collect::<Result<Map<_, _>, _>>().map_err(unread)?;
        flat.insert("parameters".to_owned(), parameters.into());
    }
    for Input { name, data } in inputs {
        let one = data.as_array().filter(|list| list.len() == 1).map(|list| list[0].clone());
        flat.insert(name, one.unwrap_or(data));
    }
    serde_json::to_vec(&flat).map_err(unread)
}

/// What one event of a stream says.
#[derive(Debug, PartialEq)]
pub(crate) enum Said {
    Answer(InferAnswer),
    /// It failed, in these words.
    Failure(String),
}

/// Reads the data of one event.
pub(crate) fn read(text: &[u8], metadata: Option<&ModelMetadata>) -> Result<Said> {
    let mut flat: Map<String, Value> =
        serde_json::from_slice(text).map_err(|error| Error::invalid(format!("an event is no JSON object: {error}")))?;
    let is_output = |name: &str| metadata.is_none_or(|known| known.outputs.iter().any(|output| output.name == name));
    if let (Some(Value::String(message)), None) = (flat.get("error"), flat.get("model_name")) {
        return Ok(Said::Failure(message.clone()));
    }
    let mut text_of = |name: &str| match flat.remove(name) {
        Some(Value::String(text)) => Ok(text),
        None => Ok(String::new()),
        Some(other) => Err(Error::invalid(format!("`{name}` is {other}, which is no text"))),
    };
    let (model, version) = (text_of("model_name")?, text_of("model_version")?);
    flat.remove("id");
    let (outputs, others): (Vec<_>, Vec<_>) = flat.into_iter().partition(|(name, _)| is_output(name));
    let outputs = outputs.into_iter().filter(|(_, value)| !value.is_null());
    let outputs = outputs.map(|(name, value)| {
        let known = metadata.and_then(|known| known.outputs.iter().find(|output| output.name == name));
        tensor(&name, value, known)
    });
    let envelope = json!({
        "model_name": model, "model_version": version, "outputs": outputs.collect::<Result<Vec<_>>>()?,
    });
    let (_, mut answer) = decode_answer(serde_json::to_vec(&envelope).unwrap_or_default().into(), None)?;
    answer.parameters = others.into_iter().filter_map(|(name, value)| Some((name, parameter(value)?))).collect();
    Ok(Said::Answer(answer))
}

/// An output in the protocol's form.
fn tensor(name: &str, value: Value, known: Option<&TensorMetadata>) -> Result<Value> {
    let elements = if value.is_array() { value } else { Value::Array(vec![value]) };
    let mut leaves = Vec::new();
    collect(&elements, &mut leaves);
    let count = leaves.len();
    let datatype = match known {
        Some(known) => Datatype::parse(&known.datatype)?,
        None => {
            guess(&leaves).ok_or_else(|| Error::invalid(format!("output `{name}` has elements of several kinds")))?
        }
    };
    let shape = known.and_then(|known| shape(&known.shape, count)).unwrap_or_else(|| vec![count as u64]);
    Ok(json!({ "name": name, "datatype": datatype.name(), "shape": shape, "data": elements }))
}

fn collect<'v>(value: &'v Value, leaves: &mut Vec<&'v Value>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| collect(value, leaves)),
        leaf => leaves.push(leaf),
    }
}

fn guess(leaves: &[&Value]) -> Option<Datatype> {
    let all = |is: fn(&Value) -> bool| leaves.iter().all(|leaf| is(leaf));
    Some(match () {
        () if leaves.is_empty() => Datatype::Fp64,
        () if all(Value::is_string) => Datatype::Bytes,
        () if all(Value::is_boolean) => Datatype::Bool,
        () if all(Value::is_i64) => Datatype::Int64,
        () if all(Value::is_u64) => Datatype::Uint64,
        () if all(Value::is_number) => Datatype::Fp64,
        () => return None,
    })
}

/// The shape that holds so many elements: the innermost extent of -1 takes them, any other is 1. None where that is not even.
fn shape(dims: &[i64], count: usize) -> Option<Vec<u64>> {
    let mut fixed = dims.iter().filter(|extent| **extent >= 0);
    let fixed = fixed.try_fold(1_u64, |product, extent| product.checked_mul(*extent as u64))?;
    let mut rest = (count as u64).checked_div(fixed).filter(|rest| rest * fixed == count as u64)?;
    let filled =
        dims.iter().rev().map(|extent| u64::try_from(*extent).unwrap_or_else(|_| std::mem::replace(&mut rest, 1)));
    let mut filled: Vec<u64> = filled.collect();
    filled.reverse();
    (rest == 1).then_some(filled)
}

fn parameter(value: Value) -> Option<Parameter> {
    match value {
        Value::Bool(value) => Some(Parameter::Bool(value)),
        Value::String(value) => Some(Parameter::String(value)),
        Value::Number(value) => match (value.as_i64(), value.as_u64()) {
            (Some(value), _) => Some(Parameter::Int64(value)),
            (None, Some(value)) => Some(Parameter::Uint64(value)),
            (None, None) => value.as_f64().map(Parameter::Double),
        },
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Reads the description of a model.
pub(crate) fn read_metadata(text: &[u8]) -> Result<ModelMetadata> {
    #[derive(Deserialize)]
    struct Model {
        name: String,
        #[serde(default)]
        versions: Vec<String>,
        #[serde(default)]
        platform: String,
        #[serde(default)]
        inputs: Vec<Side>,
        #[serde(default)]
        outputs: Vec<Side>,
    }
    #[derive(Deserialize)]
    struct Side {
        name: String,
        datatype: String,
        #[serde(default)]
        shape: Vec<i64>,
    }
    let read: Model = serde_json::from_slice(text)
        .map_err(|error| Error::invalid(format!("the description of a model cannot be read: {error}")))?;
    let sides = |sides: Vec<Side>| {
        sides
            .into_iter()
            .map(|Side { name, datatype, shape }| TensorMetadata { name, datatype, shape })
            .collect::<Vec<_>>()
    };
    let Model { name, versions, platform, inputs, outputs } = read;
    Ok(ModelMetadata { name, versions, platform, inputs: sides(inputs), outputs: sides(outputs) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use mainstay_inference::Tensor;

    fn known(outputs: &[(&str, &str, &[i64])]) -> ModelMetadata {
        let output = |(name, datatype, shape): &(&str, &str, &[i64])| TensorMetadata {
            name: (*name).to_owned(),
            datatype: (*datatype).to_owned(),
            shape: shape.to_vec(),
        };
        ModelMetadata { outputs: outputs.iter().map(output).collect(), ..ModelMetadata::default() }
    }

    #[test]
    fn a_request_has_a_key_for_each_input() {
        let request = InferRequest {
            id: Some("7".into()),
            parameters: vec![("temperature".into(), Parameter::Double(0.5)), ("stream".into(), Parameter::Bool(true))],
            inputs: vec![
                Tensor::bytes("text_input", &[1], ["hello"]).unwrap(),
                Tensor::int64("seed", &[1, 2], &[1, i64::MAX]).unwrap(),
                Tensor::fp32("scale", &[1], &[0.1]).unwrap(),
            ],
            ..InferRequest::default()
        };
        let expect = r#"{"id":"7","parameters":{"stream":true,"temperature":0.5},"scale":0.1,"seed":[1,9223372036854775807],"text_input":"hello"}"#;
        assert_eq!(String::from_utf8(write(&request).unwrap()).unwrap(), expect);
        let half = Tensor::new("h", Datatype::Fp16, &[1], vec![0, 0].into()).unwrap();
        assert!(write(&InferRequest { inputs: vec![half], ..InferRequest::default() }).is_err());
    }

    #[test]
    fn an_answer_has_the_datatypes_and_shapes_of_the_models_description() {
        let metadata = known(&[("text", "BYTES", &[-1]), ("logits", "FP32", &[-1, 2]), ("flag", "BOOL", &[1])]);
        let text = br#"{"model_name":"m","model_version":"3","text":"hi","logits":[1,2,3,4.5],"flag":true,"other":7,"list":[1]}"#;
        let Said::Answer(answer) = read(text, Some(&metadata)).unwrap() else { panic!("a failure") };
        assert_eq!((&*answer.model, &*answer.version), ("m", "3"));
        assert_eq!(answer.output("text"), Some(&Tensor::bytes("text", &[1], ["hi"]).unwrap()));
        let logits = Tensor::fp32("logits", &[2, 2], &[1.0, 2.0, 3.0, 4.5]).unwrap();
        assert_eq!(answer.output("logits"), Some(&logits));
        assert_eq!(answer.output("flag"), Some(&Tensor::bool("flag", &[1], &[true]).unwrap()));
        assert_eq!(answer.parameters, [("other".to_owned(), Parameter::Int64(7))]);
    }

    #[test]
    fn without_a_description_the_elements_say_what_they_are() {
        fn check(value: &str, expect: Tensor) {
            let Said::Answer(answer) = read(format!(r#"{{"x":{value}}}"#).as_bytes(), None).unwrap() else {
                panic!("a failure")
            };
            assert_eq!(answer.outputs, [expect], "{value}");
        }
        check(r#""a""#, Tensor::bytes("x", &[1], ["a"]).unwrap());
        check("[true,false]", Tensor::bool("x", &[2], &[true, false]).unwrap());
        check("[1,-2]", Tensor::int64("x", &[2], &[1, -2]).unwrap());
        check("18446744073709551615", Tensor::uint64("x", &[1], &[u64::MAX]).unwrap());
        check("[1,0.5]", Tensor::fp64("x", &[2], &[1.0, 0.5]).unwrap());
    }

    #[test]
    fn a_failure_is_one_and_what_cannot_be_read_is_none() {
        assert_eq!(read(br#"{"error":"no memory"}"#, None).unwrap(), Said::Failure("no memory".into()));
        let metadata = known(&[("x", "INT8", &[1])]);
        for text in ["", "[]", "1", "{", r#"{"x":300}"#, r#"{"x":"a"}"#, r#"{"model_name":1}"#, r#"{"x":[1,"a"]}"#] {
            assert!(read(text.as_bytes(), Some(&metadata)).is_err(), "{text}");
        }
        assert!(read(br#"{"x":[1,"a"]}"#, None).is_err());
    }

    #[test]
    fn elements_fill_the_extents_that_are_open() {
        fn check(dims: &[i64], count: usize, expect: Option<&[u64]>) {
            assert_eq!(shape(dims, count).as_deref(), expect, "{dims:?} {count}");
        }
        check(&[-1], 3, Some(&[3]));
        check(&[-1, -1], 3, Some(&[1, 3]));
        check(&[-1, 2], 4, Some(&[2, 2]));
        check(&[-1, 2], 3, None);
        check(&[2], 4, None);
        check(&[0], 1, None);
        check(&[], 1, Some(&[]));
        check(&[i64::MAX, i64::MAX], 1, None);
    }
}
