//! What kernels read: a column's values, borrowed where they lie, chunk by chunk.
//!
//! Owns no value and copies none: a view is one small list of slices. Kernels that work on any number take [`Numbers`];
//! those that need the type match on it. A place is missing when its validity bit is off; whether NaN is missing too is
//! the kernel's decision.

use arrow_buffer::{ArrowNativeType, BooleanBuffer, NullBuffer};

/// A primitive number that has a meaning as `f64`.
pub trait Number: ArrowNativeType + PartialOrd {
    /// The nearest `f64`: exact but for integers beyond 2^53.
    fn to_f64(self) -> f64;
}

macro_rules! number {
    ($($native:ty),*) => {$(
        impl Number for $native {
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self as f64
            }
        }
    )*};
}
number!(f32, f64, i32, i64, u8);

/// Values of one chunk and which of them are there; all are where `validity` is none.
#[derive(Clone, Copy, Debug)]
pub struct Chunk<'a, T> {
    /// The values; what stands at a missing place means nothing.
    pub values: &'a [T],
    /// A bit for each value, on where it is there.
    pub validity: Option<&'a NullBuffer>,
}

/// The same for booleans, packed as bits.
#[derive(Clone, Copy, Debug)]
pub struct Bits<'a> {
    /// The values.
    pub values: &'a BooleanBuffer,
    /// A bit for each value, on where it is there.
    pub validity: Option<&'a NullBuffer>,
}

/// A column of numbers.
#[derive(Clone, Debug)]
pub enum Numbers<'a> {
    /// 32-bit floating point.
    F32(Vec<Chunk<'a, f32>>),
    /// 64-bit floating point.
    F64(Vec<Chunk<'a, f64>>),
    /// 32-bit integers.
    I32(Vec<Chunk<'a, i32>>),
    /// 64-bit integers.
    I64(Vec<Chunk<'a, i64>>),
    /// 8-bit unsigned integers.
    U8(Vec<Chunk<'a, u8>>),
    /// Booleans: false is 0, true is 1.
    Bool(Vec<Bits<'a>>),
}

/// Runs `$body` with `$chunks` bound to the typed chunks of a [`Numbers`] that is not boolean, `$bits` to boolean ones.
#[macro_export]
macro_rules! with_chunks {
    ($numbers:expr, $chunks:ident => $body:expr, $bits:ident => $boolean:expr) => {
        match $numbers {
            $crate::Numbers::F32($chunks) => $body,
            $crate::Numbers::F64($chunks) => $body,
            $crate::Numbers::I32($chunks) => $body,
            $crate::Numbers::I64($chunks) => $body,
            $crate::Numbers::U8($chunks) => $body,
            $crate::Numbers::Bool($bits) => $boolean,
        }
    };
}

impl<'a> Numbers<'a> {
    /// A column that is these slices, with nothing missing.
    pub fn of_f64(chunks: &[&'a [f64]]) -> Numbers<'a> {
        Numbers::F64(chunks.iter().map(|values| Chunk { values, validity: None }).collect())
    }

    /// The same in 32 bits.
    pub fn of_f32(chunks: &[&'a [f32]]) -> Numbers<'a> {
        Numbers::F32(chunks.iter().map(|values| Chunk { values, validity: None }).collect())
    }

    /// How many places there are, missing ones included.
    pub fn len(&self) -> usize {
        with_chunks!(self, chunks => chunks.iter().map(|chunk| chunk.values.len()).sum(),
            bits => bits.iter().map(|chunk| chunk.values.len()).sum())
    }

    /// Whether there is no place.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many validity bits are off.
    pub fn missing(&self) -> usize {
        let count = |validity: Option<&NullBuffer>| validity.map_or(0, NullBuffer::null_count);
        with_chunks!(self, chunks => chunks.iter().map(|chunk| count(chunk.validity)).sum(),
            bits => bits.iter().map(|chunk| count(chunk.validity)).sum())
    }

    /// Every place in order, as `f64`, none where it is missing. For kernels where this is not the cost.
    pub fn for_each(&self, mut take: impl FnMut(Option<f64>)) {
        with_chunks!(self,
        chunks => for chunk in chunks {
            match chunk.validity {
                None => chunk.values.iter().for_each(|value| take(Some(value.to_f64()))),
                Some(validity) => {
                    let pairs = chunk.values.iter().zip(validity.iter());
                    pairs.for_each(|(value, is_there)| take(is_there.then(|| value.to_f64())));
                }
            }
        },
        bits => for chunk in bits {
            let is_there = |at| chunk.validity.is_none_or(|validity| validity.is_valid(at));
            chunk.values.iter().enumerate().for_each(|(at, value)| take(is_there(at).then(|| f64::from(u8::from(value)))));
        })
    }
}

/// Strings of one chunk: keys into its own dictionary. Chunks of one column may have different dictionaries.
#[derive(Clone, Copy, Debug)]
pub struct TextChunk<'a> {
    /// For each place its string's number in the dictionary; what stands at a missing place means nothing.
    pub keys: &'a [i32],
    /// The strings.
    pub dictionary: &'a arrow_array::StringArray,
    /// A bit for each key, on where it is there.
    pub validity: Option<&'a NullBuffer>,
}

/// A column of strings.
#[derive(Clone, Debug)]
pub struct Texts<'a> {
    /// In order.
    pub chunks: Vec<TextChunk<'a>>,
}

impl<'a> Texts<'a> {
    /// How many places there are, missing ones included.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|chunk| chunk.keys.len()).sum()
    }

    /// Whether there is no place.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every place in order, none where it is missing.
    pub fn iter(&self) -> impl Iterator<Item = Option<&'a str>> + '_ {
        self.chunks.iter().flat_map(|chunk| {
            let TextChunk { keys, dictionary, validity } = *chunk;
            keys.iter().enumerate().map(move |(at, key)| {
                let is_there = validity.is_none_or(|validity| validity.is_valid(at));
                is_there.then(|| dictionary.value(*key as usize))
            })
        })
    }
}
