//! The messages of ONNX that a preprocessing graph is made of.
//!
//! Owns the few fields of onnx.proto (IR versions 3 to 13) that are read, and constants as plain values. Separate from their
//! meaning. Lists of messages are kept as bytes and read one at a time, because a decoded empty node is a hundred times its
//! two bytes. Bounded by: what the caller lets in; a message takes at most some thirty times its bytes. On failure:
//! `invalid` names the message.

use crate::{Error, Result};
use prost::Message;

#[derive(Message)]
pub(super) struct Model {
    #[prost(message, optional, tag = "7")]
    pub graph: Option<Graph>,
}

#[derive(Message)]
pub(super) struct Graph {
    #[prost(bytes = "vec", repeated, tag = "1")]
    pub nodes: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "5")]
    pub constants: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "11")]
    pub inputs: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "12")]
    pub outputs: Vec<Vec<u8>>,
    #[prost(bytes = "vec", repeated, tag = "15")]
    pub sparse_constants: Vec<Vec<u8>>,
}

/// An operation.
#[derive(Message)]
pub(super) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub outputs: Vec<String>,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub operation: String,
    #[prost(bytes = "vec", repeated, tag = "5")]
    attributes: Vec<Vec<u8>>,
    #[prost(string, tag = "7")]
    pub domain: String,
}

#[derive(Message)]
struct AttributeName {
    #[prost(string, tag = "1")]
    name: String,
}

/// What an operation is told; which of the fields counts is known by its name.
#[derive(Message)]
pub(super) struct Attribute {
    #[prost(float, optional, tag = "2")]
    pub float: Option<f32>,
    #[prost(int64, optional, tag = "3")]
    pub integer: Option<i64>,
    #[prost(bytes = "vec", optional, tag = "5")]
    pub tensor: Option<Vec<u8>>,
    #[prost(float, repeated, packed = "false", tag = "7")]
    pub floats: Vec<f32>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub integers: Vec<i64>,
    #[prost(bytes = "vec", repeated, tag = "9")]
    pub texts: Vec<Vec<u8>>,
}

/// A graph's input or output.
#[derive(Message)]
pub(super) struct Port {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "2")]
    r#type: Option<Type>,
}

#[derive(Message)]
struct Type {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorType>,
}

#[derive(Message)]
struct TensorType {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<Shape>,
}

#[derive(Message)]
struct Shape {
    #[prost(message, repeated, tag = "1")]
    sizes: Vec<Size>,
}

#[derive(Message)]
struct Size {
    #[prost(int64, optional, tag = "1")]
    value: Option<i64>,
}

#[derive(Message)]
struct TensorMessage {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    sizes: Vec<i64>,
    #[prost(int32, tag = "2")]
    element: i32,
    #[prost(float, repeated, tag = "4")]
    floats: Vec<f32>,
    #[prost(int32, repeated, tag = "5")]
    small_integers: Vec<i32>,
    #[prost(bytes = "vec", repeated, tag = "6")]
    texts: Vec<Vec<u8>>,
    #[prost(int64, repeated, tag = "7")]
    integers: Vec<i64>,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", optional, tag = "9")]
    raw: Option<Vec<u8>>,
    #[prost(double, repeated, tag = "10")]
    doubles: Vec<f64>,
    #[prost(int32, tag = "14")]
    location: i32,
}

/// What the values of a tensor are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Real32,
    Real64,
    Integer,
    Boolean,
    Text,
}

/// Values that stand in the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Tensor {
    pub kind: Kind,
    pub sizes: Vec<usize>,
    /// One for each place; none for text.
    pub numbers: Vec<f64>,
    /// One for each place of text.
    pub texts: Vec<String>,
}

/// The kind of ONNX's element types.
pub(super) fn kind_of(element: i64) -> Option<Kind> {
    match element {
        1 => Some(Kind::Real32),
        11 => Some(Kind::Real64),
        2..=7 | 12 | 13 => Some(Kind::Integer),
        8 => Some(Kind::Text),
        9 => Some(Kind::Boolean),
        _ => None,
    }
}

/// A message out of its bytes; `what` it is, for the error.
pub(super) fn message<M: Message + Default>(bytes: &[u8], what: &str) -> Result<M> {
    M::decode(bytes).map_err(|error| Error::invalid(format!("{what} cannot be read ({error}); is the file complete?")))
}

fn text(bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|_| Error::invalid("a text is not UTF-8"))
}

impl Node {
    /// What it is told under this name.
    pub fn attribute(&self, name: &str) -> Result<Option<Attribute>> {
        for bytes in &self.attributes {
            if message::<AttributeName>(bytes, "an attribute")?.name == name {
                return message(bytes, "an attribute").map(Some);
            }
        }
        Ok(None)
    }

    pub fn float(&self, name: &str) -> Result<Option<f64>> {
        Ok(self.attribute(name)?.and_then(|found| found.float).map(f64::from))
    }

    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        Ok(self.attribute(name)?.and_then(|found| found.integer))
    }

    pub fn floats(&self, name: &str) -> Result<Vec<f64>> {
        let floats = self.attribute(name)?.map(|found| found.floats).unwrap_or_default();
        Ok(floats.into_iter().map(f64::from).collect())
    }

    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        Ok(self.attribute(name)?.map(|found| found.integers).unwrap_or_default())
    }

    pub fn texts(&self, name: &str) -> Result<Vec<String>> {
        self.attribute(name)?.map(|found| found.texts).unwrap_or_default().into_iter().map(text).collect()
    }

    pub fn tensor(&self, name: &str) -> Result<Option<Tensor>> {
        let bytes = self.attribute(name)?.and_then(|found| found.tensor);
        bytes.map(|bytes| tensor(&bytes).map(|(_, tensor)| tensor)).transpose()
    }
}

impl Port {
    /// The kind of its values; none when it is no tensor of ours.
    pub fn kind(&self) -> Option<Kind> {
        kind_of(i64::from(self.tensor()?.element))
    }

    /// How many values a row has; none when that is not known.
    pub fn width(&self) -> Option<usize> {
        let sizes = &self.tensor()?.shape.as_ref()?.sizes;
        match sizes.as_slice() {
            [_] => Some(1),
            [_, width] => width.value.filter(|width| *width > 0).and_then(|width| usize::try_from(width).ok()),
            _ => None,
        }
    }

    fn tensor(&self) -> Option<&TensorType> {
        self.r#type.as_ref()?.tensor.as_ref()
    }
}

/// A constant and its name; `invalid` when its values are not in the file, or not as many as its shape says.
pub(super) fn tensor(bytes: &[u8]) -> Result<(String, Tensor)> {
    let mut message: TensorMessage = message(bytes, "a constant")?;
    let name = std::mem::take(&mut message.name);
    let tensor =
        values(message).map_err(|error| error.context(format_args!("the constant `{}`", super::shown(&name))))?;
    Ok((name, tensor))
}

fn values(message: TensorMessage) -> Result<Tensor> {
    let element = message.element;
    let kind = kind_of(i64::from(element)).ok_or_else(|| Error::invalid(format!("its element type is {element}")))?;
    if message.location != 0 {
        return Err(Error::invalid("its values are in another file"));
    }
    let mut numbers: Vec<f64> = message.floats.into_iter().map(f64::from).collect();
    numbers.extend(message.doubles);
    numbers.extend(message.small_integers.into_iter().map(f64::from));
    numbers.extend(message.integers.into_iter().map(|value| value as f64));
    if let Some(raw) = message.raw {
        numbers.extend(raw_numbers(&raw, element)?);
    }
    let texts = message.texts.into_iter().map(text).collect::<Result<Vec<_>>>()?;
    let sizes: Option<Vec<usize>> = message.sizes.iter().map(|size| usize::try_from(*size).ok()).collect();
    let sizes = sizes.filter(|sizes| sizes.len() <= 4).ok_or_else(|| Error::invalid("its shape makes no sense"))?;
    let count = sizes.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    let found = if kind == Kind::Text { texts.len() } else { numbers.len() };
    match count == Some(found) {
        true => Ok(Tensor { kind, sizes, numbers, texts }),
        false => Err(Error::invalid(format!("its shape is {sizes:?}, but it has {found} values"))),
    }
}

fn raw_numbers(raw: &[u8], element: i32) -> Result<Vec<f64>> {
    fn each<const N: usize>(raw: &[u8], number: impl Fn([u8; N]) -> f64) -> Result<Vec<f64>> {
        match raw.as_chunks::<N>() {
            (chunks, []) => Ok(chunks.iter().map(|chunk| number(*chunk)).collect()),
            _ => Err(Error::invalid("its bytes are not a whole number of values")),
        }
    }
    match element {
        1 => each(raw, |raw| f64::from(f32::from_le_bytes(raw))),
        6 => each(raw, |raw| f64::from(i32::from_le_bytes(raw))),
        7 => each(raw, |raw| i64::from_le_bytes(raw) as f64),
        9 => each(raw, |raw: [u8; 1]| f64::from(raw[0])),
        11 => each(raw, f64::from_le_bytes),
        other => Err(Error::invalid(format!("its values are raw, of element type {other}"))),
    }
}
