//! What is computed place by place: from one column another, never changing the first.
//!
//! Owns the definitions that `mainstay:numeric/arrays` promises to plugins, as methods of [`Column`]. Separate from the
//! statistics because nothing here looks at two places at once: every operation keeps length, order and chunks, shares the
//! validity bits where they stay the same, and shares the values too where nothing changes.
//!
//! Three rules hold for all of them:
//! * A place may be missing; what its bytes say then is never looked at and never an error. NaN is a value that is there,
//!   and each operation says whether it takes it for missing.
//! * Comparisons are exact. A parameter is a 64-bit real and a value has the column's type; they compare as the numbers
//!   that they are, also where a 64-bit integer has no 64-bit real. This costs nothing: "x is at least t" is "x is at least
//!   the least number of x's type that is no less than t", so the loops compare within the column's type.
//! * What is refused is refused for its parameters first, whatever the column holds; then for the first place that fails.
//!
//! Bounded by [`EDGES_MAX`], [`CATEGORIES_MAX`], [`ONE_HOT_MAX`], the `READ_…_MAX`, and by what
//! [`Column::operation_bytes_max`] and [`Column::one_hot_bytes`] say: a caller with a budget takes these bytes before it
//! asks. On failure: `invalid` names the place and the value, or the parameter.

mod cast;
mod codes;
mod native;
mod numbers;
mod read;
mod search;
mod texts;

use std::sync::Arc;

use arrow_array::{ArrayRef, BooleanArray, PrimitiveArray};
use arrow_buffer::{BooleanBuffer, NullBuffer, ScalarBuffer};

use crate::column::{ALIGN_BYTES, Column};
use crate::view::{Bits, Chunk};
use native::Native;

/// Edges that [`Column::bucket`] takes.
pub const EDGES_MAX: usize = 65_536;
/// Categories that [`Column::encode`] and [`Column::encode_text`] take.
pub const CATEGORIES_MAX: usize = 65_536;
/// Columns that [`Column::one_hot`] makes.
pub const ONE_HOT_MAX: usize = 4_096;
/// Numbers that one call of [`Column::read_numbers`] gives.
pub const READ_NUMBERS_MAX: usize = 1_000_000;
/// Integers that one call of [`Column::read_integers`] gives.
pub const READ_INTEGERS_MAX: usize = 1_000_000;
/// Strings that one call of [`Column::read_text`] gives.
pub const READ_TEXT_MAX: usize = 100_000;
/// Bytes of strings that one call of [`Column::read_text`] gives.
pub const READ_TEXT_BYTES_MAX: usize = 4 << 20;

impl Column {
    /// Bytes that one operation makes at most, what it needs on the way included; not for [`Column::one_hot`] nor
    /// [`Column::fill_text`], whose dictionaries count with [`Column::size_bytes`] beside.
    pub fn operation_bytes_max(&self) -> usize {
        let of = |len: usize| padded(8 * len) + padded(len) + padded(len.div_ceil(8));
        self.arrow().iter().map(|chunk| of(chunk.len())).sum()
    }

    /// Bytes that [`Column::one_hot`] makes for so many categories.
    pub fn one_hot_bytes(&self, categories: u32) -> usize {
        let one: usize = self.arrow().iter().map(|chunk| padded(4 * chunk.len())).sum();
        one.saturating_mul(categories as usize)
    }
}

/// What a buffer of so many bytes takes.
fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGN_BYTES)
}

/// A column of `$type`, made chunk by chunk: `$body` is a `Result<ArrayRef>` of `$chunk`, a [`Chunk`] of any type of number.
/// `$ready` is what all chunks share, of that type too. Booleans come as bytes 0 and 1, which costs a byte a value on the way.
macro_rules! by_chunk {
    ($column:expr, $type:expr, $chunk:ident => $body:expr) => {
        by_chunk!($column, $type, _ready = (), $chunk => $body)
    };
    ($column:expr, $type:expr, $ready:ident = $make:expr, $chunk:ident => $body:expr) => {{
        let arrays: Result<Vec<arrow_array::ArrayRef>> = $crate::with_chunks!($column.numbers()?,
            chunks => {
                let $ready = $make;
                chunks.iter().map(|$chunk| $body).collect()
            },
            bits => {
                let $ready = $make;
                bits.iter().map(|bits| {
                    let bytes = $crate::ops::bytes(bits);
                    let $chunk = &$crate::view::Chunk { values: &bytes[..], validity: bits.validity };
                    $body
                }).collect()
            });
        Column::from_arrow($type, arrays?)
    }};
}
use by_chunk;

fn bytes(bits: &Bits<'_>) -> Vec<u8> {
    bits.values.iter().map(u8::from).collect()
}

fn array<T: Native>(values: ScalarBuffer<T>, validity: Option<NullBuffer>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T::Arrow>::new(values, validity))
}

fn boolean_array(values: BooleanBuffer, validity: Option<NullBuffer>) -> ArrayRef {
    Arc::new(BooleanArray::new(values, validity))
}

/// Whether this place is there.
fn is_there(validity: Option<&NullBuffer>, at: usize) -> bool {
    validity.is_none_or(|validity| validity.is_valid(at))
}

/// The validity bits, 64 at a time; all on where there are none.
fn validity_words(validity: Option<&NullBuffer>) -> impl Iterator<Item = u64> {
    let words = validity.map(|validity| validity.inner().bit_chunks());
    let some = words.into_iter().flat_map(|words| words.iter_padded().collect::<Vec<_>>());
    some.chain(std::iter::repeat_n(u64::MAX, if validity.is_some() { 0 } else { usize::MAX }))
}

fn has_nan<T: Native>(values: &[T]) -> bool {
    T::IS_REAL && values.iter().fold(false, |any, value| any | value.is_nan())
}

/// The validity of a result for which NaN is missing: shared where there is no NaN.
fn there_and_not_nan<T: Native>(chunk: &Chunk<'_, T>) -> Option<NullBuffer> {
    if !has_nan(chunk.values) {
        return chunk.validity.cloned();
    }
    let not_nan = crate::column::words(chunk.values, |value: T| !value.is_nan());
    let both = not_nan.zip(validity_words(chunk.validity)).map(|(one, other)| one & other);
    Some(NullBuffer::new(crate::column::of_words(chunk.values.len(), both)))
}

#[cfg(test)]
mod testing {
    //! What the tests of the operations share.

    use super::*;
    use crate::types::ValueType;

    pub type Outcome = mainstay_base::Result<Column>;

    /// Reals with a hole where one is none; NaN stays NaN.
    pub fn reals(values: &[Option<f64>]) -> Column {
        let (plain, there) = holes(values, 0.5);
        Column::f64(&plain, Some(&there))
    }

    pub fn integers(values: &[Option<i64>]) -> Column {
        let (plain, there) = holes(values, i64::MIN);
        Column::i64(&plain, Some(&there))
    }

    /// What stands in a hole is chosen to be wrong, so that looking at it shows.
    fn holes<T: Copy>(values: &[Option<T>], hole: T) -> (Vec<T>, Vec<bool>) {
        (values.iter().map(|value| value.unwrap_or(hole)).collect(), values.iter().map(Option::is_some).collect())
    }

    /// The same values in chunks of these lengths, an empty one among them.
    pub fn in_chunks(column: &Column, lens: &[usize]) -> Column {
        let mut at = 0;
        let mut arrays = vec![column.arrow()[0].slice(0, 0)];
        for len in lens {
            arrays.extend_from_slice(column.slice(at, *len).unwrap().arrow());
            at += len;
        }
        arrays.extend_from_slice(column.slice(at, column.len() - at).unwrap().arrow());
        Column::from_arrow(column.value_type(), arrays).unwrap()
    }

    /// Every place as a number; NaN equals itself here, so it is written as text.
    pub fn shown(column: &Column) -> Vec<String> {
        let mut all = Vec::new();
        match column.value_type() {
            ValueType::I64 => return column.read_integers(0, column.len()).unwrap().iter().map(show_integer).collect(),
            ValueType::Text => {
                return column.texts().unwrap().iter().map(|text| text.unwrap_or("-").to_owned()).collect();
            }
            _ => column
                .numbers()
                .unwrap()
                .for_each(|value| all.push(value.map_or("-".into(), |value| value.to_string()))),
        }
        all
    }

    fn show_integer(value: &Option<i64>) -> String {
        value.map_or("-".into(), |value| value.to_string())
    }

    /// Checks an operation on a column, on the same in chunks, and on a part that starts within a byte of validity bits.
    pub fn check(column: &Column, operation: impl Fn(&Column) -> Outcome, value_type: ValueType, expected: &str) {
        let expected: Vec<&str> = expected.split_whitespace().collect();
        let whole = operation(column).unwrap();
        assert_eq!((whole.value_type(), shown(&whole)), (value_type, expected.iter().map(|&s| s.to_owned()).collect()));
        assert_eq!(whole.arrow().len(), column.arrow().len(), "chunks are kept");
        for lens in [&[1][..], &[2, 0, 1], &[3]] {
            if lens.iter().sum::<usize>() <= column.len() {
                let chunked = operation(&in_chunks(column, lens)).unwrap();
                assert_eq!(shown(&chunked), expected, "in chunks of {lens:?}");
            }
        }
        if !column.is_empty() {
            let part = operation(&column.slice(1, column.len() - 1).unwrap()).unwrap();
            assert_eq!(shown(&part), expected[1..], "from place 1");
        }
        for array in whole.arrow().iter().filter(|_| value_type != ValueType::Text) {
            let data = array.to_data();
            assert!(data.buffers().iter().all(|buffer| buffer.as_ptr().addr() % ALIGN_BYTES == 0));
        }
    }

    /// Checks that an operation is refused as invalid, with these words.
    pub fn check_refused<T: std::fmt::Debug>(outcome: mainstay_base::Result<T>, words: &str) {
        let error = outcome.unwrap_err();
        assert_eq!(error.kind(), mainstay_base::ErrorKind::Invalid, "{error}");
        assert!(error.message().contains(words), "{error}");
    }
}
