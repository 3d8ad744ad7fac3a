//! Requests and answers as flat JSON: a key a tensor.
//!
//! Owns the shape of `generate` and `generate_stream`. Separate from [`crate::wire`], because here the model's signature says what
//! a key is: an input's name makes a tensor, any other a parameter. Members of the object `parameters` are keys too.
//!
//! Bounded by the body that is read: elements are read straight into their binary form. On failure: `invalid`.

use std::fmt;

use mainstay_base::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

use crate::json::{self, ElementsSeed, at_most, put, put_member};
use crate::limits;
use crate::models::{ModelMetadata, TensorMetadata};
use crate::request::{InferAnswer, InferRequest, Parameter};
use crate::tensor::{Datatype, Tensor};
use crate::wire::fill_shape;

/// Reads a flat request to a model that takes what `metadata` says.
pub(crate) fn read(model: &str, version: Option<&str>, metadata: &ModelMetadata, body: &[u8]) -> Result<InferRequest> {
    let mut request =
        InferRequest { model: model.to_owned(), version: version.map(str::to_owned), ..InferRequest::default() };
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    Flat { metadata, request: &mut request, nested: false }
        .deserialize(&mut deserializer)
        .and_then(|()| deserializer.end())
        .map_err(|error| Error::invalid(format!("failed to parse the request JSON buffer: {error}")))?;
    request.check()?;
    Ok(request)
}

/// Reads the keys of an object into a request.
struct Flat<'r> {
    metadata: &'r ModelMetadata,
    request: &'r mut InferRequest,
    /// Whether the object is `parameters` itself.
    nested: bool,
}

impl<'de> DeserializeSeed<'de> for Flat<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Flat<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of inputs and parameters")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<String>()? {
            let (input, top) = (self.metadata.inputs.iter().find(|input| input.name == key), !self.nested);
            match (input, key.as_str()) {
                (Some(input), _) => {
                    let tensor = map.next_value_seed(TensorSeed(input))?;
                    self.request.inputs.push(tensor);
                    at_most("tensors", self.request.inputs.len(), limits::TENSORS_MAX)?;
                }
                (None, "id") if top => self.request.id = map.next_value()?,
                (None, "parameters") if top => {
                    map.next_value_seed(Flat { metadata: self.metadata, request: &mut *self.request, nested: true })?;
                }
                (None, _) => {
                    let parameter = map.next_value::<Option<Parameter>>().map_err(|error| {
                        A::Error::custom(format!("'{key}' is no input of '{}': {error}", self.request.model))
                    })?;
                    self.request.parameters.extend(parameter.map(|parameter| (key, parameter)));
                    at_most("parameters", self.request.parameters.len(), limits::PARAMETERS_MAX)?;
                }
            }
        }
        Ok(())
    }
}

/// Reads the elements of an input, one or a list, and gives them the shape that the input has room for.
struct TensorSeed<'m>(&'m TensorMetadata);

impl<'de> DeserializeSeed<'de> for TensorSeed<'_> {
    type Value = Tensor;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Tensor, D::Error> {
        let TensorMetadata { name, datatype, shape } = self.0;
        let wrong = |error: &dyn fmt::Display| D::Error::custom(format!("input '{name}': {error}"));
        let datatype = Datatype::parse(datatype).map_err(|error| wrong(&error))?;
        let elements =
            ElementsSeed { datatype, expected: 0 }.deserialize(deserializer).map_err(|error| wrong(&error))?;
        let shape = fill_shape(shape, elements.count as u64).ok_or_else(|| {
            D::Error::custom(format!("The schema can not convert input '{name}' to tensor with proper shape"))
        })?;
        Ok(Tensor { name: name.clone(), datatype, shape, data: elements.data.into() })
    }
}

/// Writes a flat answer: what has one element without a list around it.
pub(crate) fn write(id: Option<&str>, answer: &InferAnswer) -> Result<String> {
    let mut json = Vec::with_capacity(128);
    json.push(b'{');
    if let Some(id) = id {
        put_member(&mut json, "id", id);
    }
    put_member(&mut json, "model_name", &answer.model);
    put_member(&mut json, "model_version", &answer.version);
    answer.parameters.iter().for_each(|(name, parameter)| put_member(&mut json, name, parameter));
    for output in &answer.outputs {
        put(&mut json, &output.name);
        json.push(b':');
        if output.count()? == 1 {
            json::put_each(&mut json, output)?;
        } else {
            json::put_elements(&mut json, output)?;
            json.push(b',');
        }
    }
    json::close(&mut json, b'}');
    Ok(String::from_utf8(json).expect("what was written is JSON"))
}
