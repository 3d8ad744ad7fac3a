//! Tensors as they travel.
//!
//! Owns [`Tensor`]: a name, a datatype, a shape and its elements as the protocol's binary form has them (little-endian,
//! row-major), so that what came binary passes through without a copy. Separate from the arrays that kernels compute on, which
//! are aligned columns.
//!
//! Bounded by: nothing here allocates by a shape; only by elements that are there. On failure: `invalid`, naming the tensor.

use bytes::{BufMut, Bytes, BytesMut};
use mainstay_base::{Error, Result};
use smallvec::SmallVec;

use crate::proto::DataType;

/// What the elements of a tensor are, by the protocol's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Datatype {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned, one byte.
    Uint8,
    /// Unsigned, two bytes.
    Uint16,
    /// Unsigned, four bytes.
    Uint32,
    /// Unsigned, eight bytes.
    Uint64,
    /// Signed, one byte.
    Int8,
    /// Signed, two bytes.
    Int16,
    /// Signed, four bytes.
    Int32,
    /// Signed, eight bytes.
    Int64,
    /// IEEE half precision; has no JSON form.
    Fp16,
    /// IEEE single precision.
    Fp32,
    /// IEEE double precision.
    Fp64,
    /// The upper half of a single; has no JSON form.
    Bf16,
    /// Byte strings, each after its length as a `u32`.
    Bytes,
}

impl Datatype {
    /// All of them.
    pub const ALL: [Datatype; 14] = [
        Datatype::Bool,
        Datatype::Uint8,
        Datatype::Uint16,
        Datatype::Uint32,
        Datatype::Uint64,
        Datatype::Int8,
        Datatype::Int16,
        Datatype::Int32,
        Datatype::Int64,
        Datatype::Fp16,
        Datatype::Fp32,
        Datatype::Fp64,
        Datatype::Bf16,
        Datatype::Bytes,
    ];

    /// The protocol's name: `FP32`.
    pub const fn name(self) -> &'static str {
        match self {
            Datatype::Bool => "BOOL",
            Datatype::Uint8 => "UINT8",
            Datatype::Uint16 => "UINT16",
            Datatype::Uint32 => "UINT32",
            Datatype::Uint64 => "UINT64",
            Datatype::Int8 => "INT8",
            Datatype::Int16 => "INT16",
            Datatype::Int32 => "INT32",
            Datatype::Int64 => "INT64",
            Datatype::Fp16 => "FP16",
            Datatype::Fp32 => "FP32",
            Datatype::Fp64 => "FP64",
            Datatype::Bf16 => "BF16",
            Datatype::Bytes => "BYTES",
        }
    }

    /// The datatype of that name.
    pub fn parse(name: &str) -> Result<Datatype> {
        let found = Datatype::ALL.into_iter().find(|datatype| datatype.name() == name);
        found.ok_or_else(|| {
            Error::invalid(format!(
                "`{name}` is no datatype; there are BOOL, INT8 to INT64, UINT8 to UINT64, FP16, FP32, FP64, BF16, BYTES"
            ))
        })
    }

    /// Bytes of one element; none for [`Datatype::Bytes`], whose elements differ.
    pub const fn width(self) -> Option<usize> {
        match self {
            Datatype::Bool | Datatype::Uint8 | Datatype::Int8 => Some(1),
            Datatype::Uint16 | Datatype::Int16 | Datatype::Fp16 | Datatype::Bf16 => Some(2),
            Datatype::Uint32 | Datatype::Int32 | Datatype::Fp32 => Some(4),
            Datatype::Uint64 | Datatype::Int64 | Datatype::Fp64 => Some(8),
            Datatype::Bytes => None,
        }
    }

    /// As a model's configuration names it.
    pub const fn configured(self) -> DataType {
        match self {
            Datatype::Bool => DataType::TypeBool,
            Datatype::Uint8 => DataType::TypeUint8,
            Datatype::Uint16 => DataType::TypeUint16,
            Datatype::Uint32 => DataType::TypeUint32,
            Datatype::Uint64 => DataType::TypeUint64,
            Datatype::Int8 => DataType::TypeInt8,
            Datatype::Int16 => DataType::TypeInt16,
            Datatype::Int32 => DataType::TypeInt32,
            Datatype::Int64 => DataType::TypeInt64,
            Datatype::Fp16 => DataType::TypeFp16,
            Datatype::Fp32 => DataType::TypeFp32,
            Datatype::Fp64 => DataType::TypeFp64,
            Datatype::Bf16 => DataType::TypeBf16,
            Datatype::Bytes => DataType::TypeString,
        }
    }

    /// The datatype that a model's configuration names; none for `TYPE_INVALID`.
    pub fn of_configured(configured: DataType) -> Option<Datatype> {
        Datatype::ALL.into_iter().find(|datatype| datatype.configured() == configured)
    }

    /// Whether JSON can carry its elements.
    pub const fn has_json_form(self) -> bool {
        !matches!(self, Datatype::Fp16 | Datatype::Bf16)
    }
}

/// Extents of a tensor.
pub type Shape = SmallVec<[u64; 4]>;

/// One named tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// As the model's signature names it.
    pub name: String,
    /// What its elements are.
    pub datatype: Datatype,
    /// Extent of each dimension; the first is usually rows.
    pub shape: Shape,
    /// Its elements, little-endian and row-major; [`Datatype::Bytes`] as repeated `u32` length and bytes.
    pub data: Bytes,
}

macro_rules! constructors {
    ($($(#[$doc:meta])* $name:ident($value:ty) => $datatype:ident, $put:ident),* $(,)?) => {
        impl Tensor {
            $($(#[$doc])* pub fn $name(name: impl Into<String>, shape: &[u64], values: &[$value]) -> Result<Tensor> {
                let mut data = BytesMut::with_capacity(std::mem::size_of_val(values));
                values.iter().for_each(|value| data.$put(*value));
                Tensor::new(name, Datatype::$datatype, shape, data.freeze())
            })*
        }
    };
}

constructors! {
    /// A tensor of singles; `invalid` when the shape wants another number of them.
    fp32(f32) => Fp32, put_f32_le,
    /// A tensor of doubles; `invalid` when the shape wants another number of them.
    fp64(f64) => Fp64, put_f64_le,
    /// A tensor of `i8`; `invalid` when the shape wants another number of them.
    int8(i8) => Int8, put_i8,
    /// A tensor of `i16`; `invalid` when the shape wants another number of them.
    int16(i16) => Int16, put_i16_le,
    /// A tensor of `i32`; `invalid` when the shape wants another number of them.
    int32(i32) => Int32, put_i32_le,
    /// A tensor of `i64`; `invalid` when the shape wants another number of them.
    int64(i64) => Int64, put_i64_le,
    /// A tensor of `u8`; `invalid` when the shape wants another number of them.
    uint8(u8) => Uint8, put_u8,
    /// A tensor of `u16`; `invalid` when the shape wants another number of them.
    uint16(u16) => Uint16, put_u16_le,
    /// A tensor of `u32`; `invalid` when the shape wants another number of them.
    uint32(u32) => Uint32, put_u32_le,
    /// A tensor of `u64`; `invalid` when the shape wants another number of them.
    uint64(u64) => Uint64, put_u64_le,
}

impl Tensor {
    /// A tensor of these elements; `invalid` when they are not what datatype and shape say.
    pub fn new(name: impl Into<String>, datatype: Datatype, shape: &[u64], data: Bytes) -> Result<Tensor> {
        let tensor = Tensor { name: name.into(), datatype, shape: shape.into(), data };
        tensor.check()?;
        Ok(tensor)
    }

    /// A tensor of truths; `invalid` when the shape wants another number of them.
    pub fn bool(name: impl Into<String>, shape: &[u64], values: &[bool]) -> Result<Tensor> {
        let data = values.iter().map(|value| u8::from(*value)).collect::<Vec<_>>();
        Tensor::new(name, Datatype::Bool, shape, data.into())
    }

    /// A tensor of byte strings; `invalid` when the shape wants another number of them, or one is over 4 GiB.
    pub fn bytes<T: AsRef<[u8]>>(
        name: impl Into<String>,
        shape: &[u64],
        values: impl IntoIterator<Item = T>,
    ) -> Result<Tensor> {
        let name = name.into();
        let mut data = Vec::new();
        values
            .into_iter()
            .try_for_each(|value| put_element(&mut data, value.as_ref()))
            .map_err(|error| error.context(format!("tensor `{name}`")))?;
        Tensor::new(name, Datatype::Bytes, shape, data.into())
    }

    /// Number of elements by its shape; `invalid` when that is no number of this machine.
    pub fn count(&self) -> Result<usize> {
        let count = self.shape.iter().try_fold(1_u64, |count, extent| count.checked_mul(*extent));
        let count = count.and_then(|count| usize::try_from(count).ok());
        count.ok_or_else(|| Error::invalid(format!("tensor `{}` has the shape {:?}: too large", self.name, self.shape)))
    }

    /// Number of rows: the first extent; one where there is no dimension.
    pub fn rows(&self) -> u64 {
        self.shape.first().copied().unwrap_or(1)
    }

    /// Whether the elements are as many as the shape says, and framed as the datatype wants; else `invalid`.
    pub fn check(&self) -> Result<()> {
        let count = self.count()?;
        let Some(width) = self.datatype.width() else { return self.check_frames(count) };
        match count.checked_mul(width) {
            Some(expected) if expected == self.data.len() => Ok(()),
            expected => Err(self.misfit(format!(
                "has {} bytes where {} and the shape {:?} want {}",
                self.data.len(),
                self.datatype.name(),
                self.shape,
                expected.map_or_else(|| "more than there are".to_owned(), |bytes| bytes.to_string())
            ))),
        }
    }

    fn check_frames(&self, count: usize) -> Result<()> {
        let mut frames = Frames { rest: &self.data };
        let mut found = 0_usize;
        for frame in &mut frames {
            frame.map_err(|()| {
                self.misfit(format!(
                    "has a byte string, number {found}, that ends after the data: each is its length as four bytes, \
                     little-endian, then its bytes"
                ))
            })?;
            found += 1;
        }
        if found == count {
            return Ok(());
        }
        Err(self.misfit(format!("has {found} byte strings where the shape {:?} wants {count}", self.shape)))
    }

    /// Its elements as doubles, whatever the numeric datatype is; what is whole and beyond 2^53 is rounded. `invalid` for byte
    /// strings.
    pub fn numbers(&self) -> Result<Vec<f64>> {
        self.check()?;
        let data = &self.data[..];
        Ok(match self.datatype {
            Datatype::Bool => data.iter().map(|byte| f64::from(u8::from(*byte != 0))).collect(),
            Datatype::Uint8 => data.iter().map(|byte| f64::from(*byte)).collect(),
            Datatype::Int8 => data.iter().map(|byte| f64::from(i8::from_le_bytes([*byte]))).collect(),
            Datatype::Uint16 => each(data, |bytes| f64::from(u16::from_le_bytes(bytes))),
            Datatype::Int16 => each(data, |bytes| f64::from(i16::from_le_bytes(bytes))),
            Datatype::Fp16 => each(data, |bytes| f64::from(half_to_single(u16::from_le_bytes(bytes)))),
            Datatype::Bf16 => each(data, |bytes| f64::from(upper_half_to_single(u16::from_le_bytes(bytes)))),
            Datatype::Uint32 => each(data, |bytes| f64::from(u32::from_le_bytes(bytes))),
            Datatype::Int32 => each(data, |bytes| f64::from(i32::from_le_bytes(bytes))),
            Datatype::Fp32 => each(data, |bytes| f64::from(f32::from_le_bytes(bytes))),
            Datatype::Uint64 => each(data, |bytes| u64::from_le_bytes(bytes) as f64),
            Datatype::Int64 => each(data, |bytes| i64::from_le_bytes(bytes) as f64),
            Datatype::Fp64 => each(data, f64::from_le_bytes),
            Datatype::Bytes => return Err(self.misfit("has byte strings where numbers are wanted")),
        })
    }

    /// Its elements as singles, whatever the numeric datatype is, rounded to the nearest. `invalid` for byte strings.
    pub fn singles(&self) -> Result<Vec<f32>> {
        if self.datatype == Datatype::Fp32 {
            self.check()?;
            return Ok(each(&self.data, f32::from_le_bytes));
        }
        Ok(self.numbers()?.into_iter().map(|number| number as f32).collect())
    }

    /// Its elements as whole numbers, exactly. `invalid` for byte strings, for fractions, and for what does not fit.
    pub fn integers(&self) -> Result<Vec<i64>> {
        match self.datatype {
            Datatype::Int64 => {
                self.check()?;
                Ok(each(&self.data, i64::from_le_bytes))
            }
            Datatype::Uint64 => {
                self.check()?;
                let numbers = each(&self.data, u64::from_le_bytes);
                let fit = numbers
                    .into_iter()
                    .map(|number| i64::try_from(number).map_err(|_| number))
                    .collect::<Result<_, _>>();
                fit.map_err(|number| self.misfit(format!("has {number}, which is no 64-bit whole number with a sign")))
            }
            _ => self.numbers()?.into_iter().map(|number| self.whole(number)).collect(),
        }
    }

    fn whole(&self, number: f64) -> Result<i64> {
        // 2^63 itself is a double and no `i64`; -2^63 is both.
        let fits = number.fract() == 0.0 && number >= i64::MIN as f64 && number < -(i64::MIN as f64);
        if fits {
            Ok(number as i64)
        } else {
            Err(self.misfit(format!("has {number}, which is no 64-bit whole number")))
        }
    }

    /// Its byte strings, where they lie; `invalid` for numbers.
    pub fn strings(&self) -> Result<Vec<&[u8]>> {
        if self.datatype != Datatype::Bytes {
            return Err(self.misfit(format!("has elements of {} where byte strings are wanted", self.datatype.name())));
        }
        self.check()?;
        Ok(self.frames().collect())
    }

    /// The whole byte strings at the front of the data.
    pub(crate) fn frames(&self) -> impl Iterator<Item = &[u8]> {
        Frames { rest: &self.data }.map_while(Result::ok)
    }

    fn misfit(&self, what: impl std::fmt::Display) -> Error {
        Error::invalid(format!("tensor `{}` {what}", self.name))
    }
}

/// Byte strings out of their frames; an error where one is cut off, and then no more.
struct Frames<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<&'a [u8], ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let Some((length, rest)) = self.rest.split_first_chunk() else {
            self.rest = &[];
            return Some(Err(()));
        };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((element, rest)) = rest.split_at_checked(length) else {
            self.rest = &[];
            return Some(Err(()));
        };
        self.rest = rest;
        Some(Ok(element))
    }
}

/// Appends one byte string in its frame.
pub(crate) fn put_element(data: &mut Vec<u8>, element: &[u8]) -> Result<()> {
    let length = u32::try_from(element.len()).map_err(|_| Error::invalid("a byte string may have 4 GiB at most"))?;
    data.extend_from_slice(&length.to_le_bytes());
    data.extend_from_slice(element);
    Ok(())
}

/// Each element of this width, read; a rest that is shorter is left.
pub(crate) fn each<const WIDTH: usize, T>(data: &[u8], read: impl Fn([u8; WIDTH]) -> T) -> Vec<T> {
    data.as_chunks().0.iter().map(|bytes| read(*bytes)).collect()
}

/// IEEE half precision, exactly.
fn half_to_single(half: u16) -> f32 {
    let sign = u32::from(half >> 15) << 31;
    let exponent = u32::from(half >> 10) & 0x1f;
    let fraction = u32::from(half) & 0x3ff;
    match exponent {
        // Zero and what is below the least normal number: a fraction of 2^-24.
        0 => f32::from_bits(sign | (fraction as f32 / (1 << 24) as f32).to_bits()),
        0x1f => f32::from_bits(sign | 0x7f80_0000 | fraction << 13),
        _ => f32::from_bits(sign | (exponent + 127 - 15) << 23 | fraction << 13),
    }
}

/// The upper half of a single, exactly.
fn upper_half_to_single(half: u16) -> f32 {
    f32::from_bits(u32::from(half) << 16)
}
