//! Tensors as requests to models and their answers carry them.
//!
//! Owns [`Tensor`], its elements as plain values, and cutting it into rows and joining rows again: what a plugin needs to
//! remember, judge or build a prediction. Separate from [`columns`](crate::columns), whose values stay in the host. Bounded by:
//! what is there; a shape alone allocates nothing. On failure: `invalid`, naming the tensor.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// What the elements of a tensor are, by the protocol's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[allow(missing_docs, reason = "the protocol's own names")]
pub enum Datatype {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Fp16,
    Fp32,
    Fp64,
    Bf16,
    Bytes,
}

use Datatype::{Bf16, Bool, Bytes, Fp16, Fp32, Fp64, Int8, Int16, Int32, Int64, Uint8, Uint16, Uint32, Uint64};

const NAMES: [(Datatype, &str); 14] = [
    (Bool, "BOOL"),
    (Int8, "INT8"),
    (Int16, "INT16"),
    (Int32, "INT32"),
    (Int64, "INT64"),
    (Uint8, "UINT8"),
    (Uint16, "UINT16"),
    (Uint32, "UINT32"),
    (Uint64, "UINT64"),
    (Fp16, "FP16"),
    (Fp32, "FP32"),
    (Fp64, "FP64"),
    (Bf16, "BF16"),
    (Bytes, "BYTES"),
];

impl Datatype {
    /// The protocol's name.
    pub fn name(self) -> &'static str {
        NAMES.iter().find(|(datatype, _)| *datatype == self).map_or("", |(_, name)| name)
    }

    /// The datatype of that name.
    pub fn parse(name: &str) -> Result<Datatype> {
        let found = NAMES.iter().find(|(_, known)| *known == name).map(|(datatype, _)| *datatype);
        found.ok_or_else(|| Error::invalid(format!("`{name}` is no datatype of a tensor")))
    }

    /// Bytes of one element; none for [`Datatype::Bytes`], whose elements differ.
    pub fn width(self) -> Option<usize> {
        match self {
            Bool | Int8 | Uint8 => Some(1),
            Int16 | Uint16 | Fp16 | Bf16 => Some(2),
            Int32 | Uint32 | Fp32 => Some(4),
            Int64 | Uint64 | Fp64 => Some(8),
            Bytes => None,
        }
    }
}

/// One element.
#[derive(Clone, Debug, PartialEq)]
pub enum Element {
    /// Of [`Datatype::Bool`].
    Bool(bool),
    /// Of a signed datatype.
    Integer(i64),
    /// Of an unsigned datatype.
    Unsigned(u64),
    /// Of a datatype of reals.
    Real(f64),
    /// Of [`Datatype::Bytes`].
    Bytes(Vec<u8>),
}

impl Element {
    /// As a number; none for bytes.
    pub fn number(&self) -> Option<f64> {
        match self {
            Element::Bool(value) => Some(f64::from(u8::from(*value))),
            Element::Integer(value) => Some(*value as f64),
            Element::Unsigned(value) => Some(*value as f64),
            Element::Real(value) => Some(*value),
            Element::Bytes(_) => None,
        }
    }

    /// As JSON; reals that are no JSON numbers are null. Bytes that are no text are `invalid`.
    pub fn json(&self) -> Result<Json> {
        Ok(match self {
            Element::Bool(value) => Json::from(*value),
            Element::Integer(value) => Json::from(*value),
            Element::Unsigned(value) => Json::from(*value),
            Element::Real(value) => Json::from(*value),
            Element::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => Json::from(text),
                Err(_) => return Err(Error::invalid("a byte string is no UTF-8, and JSON has no other form for it")),
            },
        })
    }
}

/// A value beside the tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Parameter {
    /// True or false.
    Boolean(bool),
    /// A whole number.
    Integer(i64),
    /// A whole number without sign.
    Unsigned(u64),
    /// A number.
    Real(f64),
    /// A text.
    Text(String),
}

impl std::fmt::Display for Parameter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Parameter::Boolean(value) => value.fmt(f),
            Parameter::Integer(value) => value.fmt(f),
            Parameter::Unsigned(value) => value.fmt(f),
            Parameter::Real(value) => value.fmt(f),
            Parameter::Text(value) => f.write_str(value),
        }
    }
}

/// What a model takes or gives under one name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TensorSpec {
    /// The tensor's name.
    pub name: String,
    /// What its elements are.
    pub datatype: Datatype,
    /// Extent of each dimension; -1 where any will do.
    pub shape: Vec<i64>,
}

/// One named tensor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// As the model's signature names it.
    pub name: String,
    /// What its elements are.
    pub datatype: Datatype,
    /// Extent of each dimension; the first is usually rows.
    pub shape: Vec<u64>,
    /// Its elements, little-endian and row by row; those of [`Datatype::Bytes`] each behind its length as a `u32`.
    pub data: Vec<u8>,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident($value:ty) => $datatype:ident),* $(,)?) => {
        impl Tensor {
            $($(#[$doc])* pub fn $name(name: impl Into<String>, shape: &[u64], values: &[$value]) -> Result<Tensor> {
                let data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
                Tensor::new(name, $datatype, shape, data)
            })*
        }
    };
}

constructors! {
    /// A tensor of singles; `invalid` when the shape wants another number of them.
    fp32(f32) => Fp32,
    /// A tensor of doubles; `invalid` when the shape wants another number of them.
    fp64(f64) => Fp64,
    /// A tensor of `i64`; `invalid` when the shape wants another number of them.
    int64(i64) => Int64,
    /// A tensor of `i32`; `invalid` when the shape wants another number of them.
    int32(i32) => Int32,
}

impl Tensor {
    /// A tensor of these elements; `invalid` when they are not what datatype and shape say.
    pub fn new(name: impl Into<String>, datatype: Datatype, shape: &[u64], data: Vec<u8>) -> Result<Tensor> {
        let tensor = Tensor { name: name.into(), datatype, shape: shape.to_vec(), data };
        tensor.check()?;
        Ok(tensor)
    }

    /// A tensor of texts; `invalid` when the shape wants another number of them.
    pub fn texts<T: AsRef<[u8]>>(
        name: impl Into<String>,
        shape: &[u64],
        values: impl IntoIterator<Item = T>,
    ) -> Result<Tensor> {
        let elements: Vec<Element> = values.into_iter().map(|value| Element::Bytes(value.as_ref().to_vec())).collect();
        Tensor::of(name, Bytes, shape, &elements)
    }

    /// A tensor of these elements, each as the datatype has it: whole numbers become reals; reals become whole numbers where
    /// they are; a number that does not fit is `invalid`.
    pub fn of(name: impl Into<String>, datatype: Datatype, shape: &[u64], elements: &[Element]) -> Result<Tensor> {
        let name = name.into();
        let mut data = Vec::new();
        for element in elements {
            push(&mut data, datatype, element).map_err(|error| error.context(format_args!("tensor `{name}`")))?;
        }
        Tensor::new(name, datatype, shape, data)
    }

    /// The same under another name.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> Tensor {
        self.name = name.into();
        self
    }

    /// Number of rows: the first extent; one where there is no dimension.
    pub fn rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Its elements.
    pub fn elements(&self) -> Result<Vec<Element>> {
        let Some(width) = self.datatype.width() else {
            return self.frames()?.into_iter().map(|frame| Ok(Element::Bytes(frame[4..].to_vec()))).collect();
        };
        self.data.chunks_exact(width).map(|bytes| element(self.datatype, bytes)).collect()
    }

    /// Its elements as numbers; `invalid` for byte strings.
    pub fn numbers(&self) -> Result<Vec<f64>> {
        let number = |element: Element| {
            element.number().ok_or_else(|| Error::invalid(format!("tensor `{}` holds texts, not numbers", self.name)))
        };
        self.elements()?.into_iter().map(number).collect()
    }

    /// Its elements as JSON, nested as the shape says: `[[1, 2], [3, 4]]`.
    pub fn json(&self) -> Result<Json> {
        let mut elements = self.elements()?.into_iter();
        nest(&self.shape, &mut elements).map_err(|error| error.context(format_args!("tensor `{}`", self.name)))
    }

    /// Each row as a tensor of one row.
    pub fn split(&self) -> Result<Vec<Tensor>> {
        let rows = usize::try_from(self.rows()).unwrap_or(usize::MAX);
        let mut shape = self.shape.clone();
        match shape.first_mut() {
            Some(first) => *first = 1,
            None => return Ok(vec![self.clone()]),
        }
        // The data holds at least a byte for each row unless other extents are 0.
        if rows > self.data.len() {
            return Err(self.misfit("has rows without elements, which cannot be taken apart"));
        }
        let row = |data: &[u8]| Tensor { shape: shape.clone(), data: data.to_vec(), ..self.empty() };
        if self.datatype.width().is_some() {
            let bytes = self.data.len().checked_div(rows).unwrap_or(0);
            return Ok(if bytes == 0 { Vec::new() } else { self.data.chunks_exact(bytes).map(row).collect() });
        }
        let frames = self.frames()?;
        let each = frames.len().checked_div(rows).unwrap_or(0);
        Ok(if each == 0 { Vec::new() } else { frames.chunks_exact(each).map(|parts| row(&parts.concat())).collect() })
    }

    /// The rows of all of them, one after the other: they must agree in name, datatype and the extents behind the first.
    pub fn join(parts: &[Tensor]) -> Result<Tensor> {
        let Some(first) = parts.first() else { return Err(Error::invalid("nothing to join: there is no tensor")) };
        let same = |part: &Tensor| {
            part.name == first.name && part.datatype == first.datatype && part.shape.get(1..) == first.shape.get(1..)
        };
        if first.shape.is_empty() || !parts.iter().all(same) {
            return Err(first.misfit("has no rows that could be joined with those of the others"));
        }
        let mut shape = first.shape.clone();
        shape[0] = parts.iter().map(Tensor::rows).sum();
        let data = parts.iter().flat_map(|part| part.data.iter().copied()).collect();
        Tensor::new(first.name.clone(), first.datatype, &shape, data)
    }

    /// Whether elements, datatype and shape agree.
    pub fn check(&self) -> Result<()> {
        let count = self.shape.iter().try_fold(1_usize, |all, extent| all.checked_mul(usize::try_from(*extent).ok()?));
        let count = count.ok_or_else(|| self.misfit("has a shape that is too large"))?;
        let fits = match self.datatype.width() {
            Some(width) => count.checked_mul(width) == Some(self.data.len()),
            None => self.frames()?.len() == count,
        };
        match fits {
            true => Ok(()),
            false => Err(self.misfit(&format!("has other elements than the shape {:?} wants", self.shape))),
        }
    }

    /// Byte strings with their lengths in front.
    fn frames(&self) -> Result<Vec<&[u8]>> {
        let mut frames = Vec::new();
        let mut rest = self.data.as_slice();
        while !rest.is_empty() {
            let length = rest.first_chunk().map(|length| u32::from_le_bytes(*length) as usize);
            let frame = length.and_then(|length| rest.split_at_checked(length.checked_add(4)?));
            let (frame, behind) = frame.ok_or_else(|| self.misfit("has a byte string that ends after the data"))?;
            frames.push(frame);
            rest = behind;
        }
        Ok(frames)
    }

    fn empty(&self) -> Tensor {
        Tensor { name: self.name.clone(), datatype: self.datatype, shape: Vec::new(), data: Vec::new() }
    }

    fn misfit(&self, what: &str) -> Error {
        Error::invalid(format!("tensor `{}` {what}", self.name))
    }
}

fn element(datatype: Datatype, bytes: &[u8]) -> Result<Element> {
    macro_rules! number {
        ($type:ty) => {
            <$type>::from_le_bytes(bytes.try_into().map_err(|_| Error::internal("an element has another width"))?)
        };
    }
    Ok(match datatype {
        Bool => Element::Bool(bytes.first().is_some_and(|byte| *byte != 0)),
        Int8 => Element::Integer(number!(i8).into()),
        Int16 => Element::Integer(number!(i16).into()),
        Int32 => Element::Integer(number!(i32).into()),
        Int64 => Element::Integer(number!(i64)),
        Uint8 => Element::Unsigned(number!(u8).into()),
        Uint16 => Element::Unsigned(number!(u16).into()),
        Uint32 => Element::Unsigned(number!(u32).into()),
        Uint64 => Element::Unsigned(number!(u64)),
        Fp32 => Element::Real(number!(f32).into()),
        Fp64 => Element::Real(number!(f64)),
        Fp16 | Bf16 | Bytes => {
            return Err(Error::invalid(format!("elements of {} are not read one by one", datatype.name())));
        }
    })
}

fn push(data: &mut Vec<u8>, datatype: Datatype, element: &Element) -> Result<()> {
    let misfit = || Error::invalid(format!("{element:?} is no {}", datatype.name()));
    let whole = || match element {
        Element::Bool(value) => Some(i128::from(*value)),
        Element::Integer(value) => Some(i128::from(*value)),
        Element::Unsigned(value) => Some(i128::from(*value)),
        // Within what a double tells apart.
        Element::Real(value) if value.fract() == 0.0 && value.abs() <= 9_007_199_254_740_992.0 => Some(*value as i128),
        _ => None,
    };
    macro_rules! whole {
        ($type:ty) => {
            whole()
                .and_then(|value| <$type>::try_from(value).ok())
                .map(|value| data.extend(value.to_le_bytes()))
                .ok_or_else(misfit)
        };
    }
    match datatype {
        Bool => match whole() {
            Some(value @ (0 | 1)) => {
                data.push(value as u8);
                Ok(())
            }
            _ => Err(misfit()),
        },
        Int8 => whole!(i8),
        Int16 => whole!(i16),
        Int32 => whole!(i32),
        Int64 => whole!(i64),
        Uint8 => whole!(u8),
        Uint16 => whole!(u16),
        Uint32 => whole!(u32),
        Uint64 => whole!(u64),
        Fp32 => element.number().map(|value| data.extend((value as f32).to_le_bytes())).ok_or_else(misfit),
        Fp64 => element.number().map(|value| data.extend(value.to_le_bytes())).ok_or_else(misfit),
        Bytes => match element {
            Element::Bytes(bytes) => {
                let length = u32::try_from(bytes.len()).map_err(|_| misfit())?;
                data.extend(length.to_le_bytes());
                data.extend(bytes);
                Ok(())
            }
            _ => Err(misfit()),
        },
        Fp16 | Bf16 => Err(misfit()),
    }
}

fn nest(shape: &[u64], elements: &mut impl Iterator<Item = Element>) -> Result<Json> {
    match shape.split_first() {
        None => elements.next().map_or(Ok(Json::Null), |element| element.json()),
        Some((extent, inner)) => {
            (0..*extent).map(|_| nest(inner, elements)).collect::<Result<Vec<Json>>>().map(Json::Array)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn elements_come_out_as_they_went_in_and_what_does_not_fit_is_refused() {
        fn check(datatype: Datatype, element: Element, expect: Option<&[u8]>) {
            let made = Tensor::of("x", datatype, &[1], std::slice::from_ref(&element));
            assert_eq!(made.as_ref().ok().map(|tensor| &tensor.data[..]), expect, "{datatype:?} {element:?}");
        }
        check(Int8, Element::Integer(-128), Some(&[128]));
        check(Int8, Element::Integer(-129), None);
        check(Uint8, Element::Real(255.0), Some(&[255]));
        check(Uint8, Element::Real(0.5), None);
        check(Uint64, Element::Unsigned(u64::MAX), Some(&[255; 8]));
        check(Int64, Element::Unsigned(u64::MAX), None);
        check(Bool, Element::Integer(1), Some(&[1]));
        check(Bool, Element::Integer(2), None);
        check(Fp32, Element::Integer(1), Some(&[0, 0, 128, 63]));
        check(Fp32, Element::Bytes(vec![1]), None);
        check(Bytes, Element::Bytes(b"hi".to_vec()), Some(b"\x02\0\0\0hi"));
        check(Bytes, Element::Real(1.0), None);
        check(Fp16, Element::Real(1.0), None);
    }

    #[test]
    fn json_is_nested_as_the_shape_says() {
        let tensor = Tensor::fp64("x", &[2, 2], &[1.0, 2.5, -3.0, f64::NAN]).unwrap();
        assert_eq!(tensor.json().unwrap(), json!([[1.0, 2.5], [-3.0, null]]));
        assert_eq!(Tensor::texts("t", &[2], ["a", "b"]).unwrap().json().unwrap(), json!(["a", "b"]));
        assert_eq!(Tensor::int64("n", &[], &[7]).unwrap().json().unwrap(), json!(7));
        assert!(Tensor::texts("t", &[1], [[255_u8]]).unwrap().json().is_err());
    }

    #[test]
    fn what_is_no_tensor_is_refused() {
        fn check(datatype: Datatype, shape: &[u64], data: &[u8]) {
            let error = Tensor::new("x", datatype, shape, data.to_vec()).unwrap_err();
            assert!(error.message().contains("`x`"), "{error}");
        }
        check(Fp32, &[2], &[0; 4]);
        check(Int8, &[u64::MAX, 2], &[]);
        check(Bytes, &[1], b"\xff\xff\xff\xffx");
        check(Bytes, &[2], b"\x01\0\0\0x");
        // A shape allocates nothing.
        let hollow = Tensor::new("x", Fp32, &[u64::MAX >> 8, 0], Vec::new()).unwrap();
        assert!(hollow.split().is_err());
    }

    proptest! {
        #[test]
        fn rows_that_were_cut_are_the_tensor_again_when_joined(rows in 1_usize..6, texts in any::<bool>()) {
            let tensor = match texts {
                true => Tensor::texts("x", &[rows as u64, 2], (0..2 * rows).map(|at| "ab".repeat(at))),
                false => Tensor::fp32("x", &[rows as u64, 2], &(0..2 * rows).map(|at| at as f32).collect::<Vec<_>>()),
            }.unwrap();
            let parts = tensor.split().unwrap();
            prop_assert_eq!(parts.len(), rows);
            prop_assert!(parts.iter().all(|part| part.rows() == 1 && part.check().is_ok()));
            prop_assert_eq!(Tensor::join(&parts).unwrap(), tensor);
        }
    }
}
