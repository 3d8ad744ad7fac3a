//! One column: values of one type, in chunks, never changed.
//!
//! Owns Arrow arrays behind one reference count. Made without a copy from arrays that somebody decoded, or with one from
//! plain values (into buffers aligned for a device). What comes from outside as Arrow is checked to have a type of ours;
//! Arrow's own constructors have checked its buffers.
//!
//! A part of a column, and columns joined, are views: they keep the charges of the columns that they show, and are not
//! charged again to a budget that already pays for all of them.

use std::sync::Arc;

use arrow_array::builder::StringDictionaryBuilder;
use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type, Int32Type, Int64Type, UInt8Type};
use arrow_array::{Array, ArrayRef, ArrowPrimitiveType, BooleanArray, PrimitiveArray};
use arrow_buffer::{ArrowNativeType, BooleanBuffer, MutableBuffer, NullBuffer, ScalarBuffer};
use mainstay_base::{Error, Result};

use crate::budget::{Budget, Charge};
use crate::types::ValueType;
use crate::view::{Bits, Chunk, Numbers, TextChunk, Texts};

/// Buffers made here start at a multiple of this.
pub const ALIGN_BYTES: usize = 64;
/// Chunks that one column may have.
pub const CHUNKS_MAX: usize = 65_536;
/// Strings that are made into a column start another chunk after so many bytes, as a dictionary holds less than 2 GiB.
const DICTIONARY_BYTES: usize = 1 << 30;
/// Values that go through the nearest cache at a time.
const BLOCK: usize = 1_024;

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Column {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    value_type: ValueType,
    chunks: Vec<ArrayRef>,
    len: usize,
    cover: Cover,
}

/// Who pays for the values; given back with the last handle to them.
#[derive(Clone, Debug, Default)]
struct Cover {
    charges: Vec<Arc<Charge>>,
    /// Whether they pay for all of the column, not a part of it.
    whole: bool,
}

impl Cover {
    /// Of several columns that become one.
    fn joined<'a>(covers: impl Iterator<Item = &'a Cover>) -> Cover {
        let mut joined = Cover { charges: Vec::new(), whole: true };
        for cover in covers {
            joined.charges.extend_from_slice(&cover.charges);
            joined.whole &= cover.whole;
        }
        joined.charges.sort_unstable_by_key(|charge| Arc::as_ptr(charge).addr());
        joined.charges.dedup_by(|one, other| Arc::ptr_eq(one, other));
        joined
    }

    fn is_paid_by(&self, budget: &Arc<Budget>) -> bool {
        self.whole && self.charges.iter().all(|charge| charge.is_of(budget))
    }
}

impl Column {
    /// These arrays, one after the other, without a copy. `invalid` when their types are not one of ours or differ.
    pub fn from_arrow(value_type: ValueType, chunks: Vec<ArrayRef>) -> Result<Column> {
        check_chunks(chunks.len())?;
        if let Some(other) = chunks.iter().find(|chunk| *chunk.data_type() != value_type.arrow()) {
            return Err(Error::invalid(format!(
                "a column of {value_type} with a chunk of Arrow's type {}; cast it first",
                other.data_type()
            )));
        }
        for chunk in chunks.iter().filter(|_| value_type == ValueType::Text) {
            check_dictionary(chunk)?;
        }
        Ok(Column::of(value_type, chunks, Cover::default()))
    }

    fn of(value_type: ValueType, chunks: Vec<ArrayRef>, cover: Cover) -> Column {
        let len = chunks.iter().map(|chunk| chunk.len()).sum();
        Column { inner: Arc::new(Inner { value_type, chunks, len, cover }) }
    }

    fn of_one(value_type: ValueType, chunk: ArrayRef) -> Column {
        Column::of(value_type, vec![chunk], Cover::default())
    }

    /// These columns one after the other, without a copy. `invalid` when there is none, their types differ, or their
    /// chunks are more than [`CHUNKS_MAX`].
    pub fn concat(columns: &[Column]) -> Result<Column> {
        let Some(first) = columns.first() else {
            return Err(Error::invalid("no column to join; give at least one"));
        };
        let value_type = first.value_type();
        if let Some(at) = columns.iter().position(|column| column.value_type() != value_type) {
            return Err(Error::invalid(format!(
                "column {at} of those to join is of {}, column 0 of {value_type}; cast one of them",
                columns[at].value_type()
            )));
        }
        let count = columns.iter().map(|column| column.arrow().len()).fold(0, usize::saturating_add);
        check_chunks(count)?;
        let chunks = columns.iter().flat_map(|column| column.arrow()).cloned().collect();
        Ok(Column::of(value_type, chunks, Cover::joined(columns.iter().map(|column| &column.inner.cover))))
    }

    fn primitive<T: ArrowPrimitiveType>(value_type: ValueType, values: &[T::Native], there: Option<&[bool]>) -> Column {
        let validity = there.map(validity);
        let array = PrimitiveArray::<T>::new(aligned(values), validity);
        Column::of_one(value_type, Arc::new(array))
    }

    /// 32-bit floating point; `there` says which values are not missing, one for each value.
    pub fn f32(values: &[f32], there: Option<&[bool]>) -> Column {
        Column::primitive::<Float32Type>(ValueType::F32, values, there)
    }

    /// 64-bit floating point.
    pub fn f64(values: &[f64], there: Option<&[bool]>) -> Column {
        Column::primitive::<Float64Type>(ValueType::F64, values, there)
    }

    /// 32-bit integers.
    pub fn i32(values: &[i32], there: Option<&[bool]>) -> Column {
        Column::primitive::<Int32Type>(ValueType::I32, values, there)
    }

    /// 64-bit integers.
    pub fn i64(values: &[i64], there: Option<&[bool]>) -> Column {
        Column::primitive::<Int64Type>(ValueType::I64, values, there)
    }

    /// 8-bit unsigned integers.
    pub fn u8(values: &[u8], there: Option<&[bool]>) -> Column {
        Column::primitive::<UInt8Type>(ValueType::U8, values, there)
    }

    /// Booleans.
    pub fn bool(values: &[bool], there: Option<&[bool]>) -> Column {
        let array = BooleanArray::new(packed(values, |value| value), there.map(validity));
        Column::of_one(ValueType::Bool, Arc::new(array))
    }

    /// Strings; none where one is missing.
    pub fn text<'s>(values: impl IntoIterator<Item = Option<&'s str>>) -> Column {
        Column::text_in_chunks(values, DICTIONARY_BYTES)
    }

    /// Starts another chunk once one has taken this many bytes of strings.
    fn text_in_chunks<'s>(values: impl IntoIterator<Item = Option<&'s str>>, chunk_bytes: usize) -> Column {
        let mut builder = StringDictionaryBuilder::<Int32Type>::new();
        let (mut chunks, mut bytes): (Vec<ArrayRef>, usize) = (Vec::new(), 0);
        for value in values {
            let size = value.map_or(0, str::len);
            if bytes > 0 && bytes + size > chunk_bytes {
                chunks.push(Arc::new(builder.finish()));
                bytes = 0;
            }
            bytes += size;
            builder.append_option(value);
        }
        chunks.push(Arc::new(builder.finish()));
        Column::of(ValueType::Text, chunks, Cover::default())
    }

    /// The same column, charged to a budget until its last handle and the last view of it are gone. A view of columns that
    /// the same budget pays for costs nothing more.
    pub fn charged(self, budget: &Arc<Budget>) -> Result<Column> {
        if self.inner.cover.is_paid_by(budget) {
            return Ok(self);
        }
        let charges = vec![Arc::new(budget.charge(self.size_bytes())?)];
        let cover = Cover { charges, whole: true };
        Ok(Column::of(self.value_type(), self.inner.chunks.clone(), cover))
    }

    /// Type of its values.
    pub fn value_type(&self) -> ValueType {
        self.inner.value_type
    }

    /// How many places it has, missing ones included.
    pub fn len(&self) -> usize {
        self.inner.len
    }

    /// Whether it has no place.
    pub fn is_empty(&self) -> bool {
        self.inner.len == 0
    }

    /// How many places are missing.
    pub fn missing(&self) -> usize {
        self.inner.chunks.iter().map(|chunk| chunk.null_count()).sum()
    }

    /// Bytes that its values, validity bits and dictionaries take.
    pub fn size_bytes(&self) -> usize {
        self.inner.chunks.iter().map(|chunk| chunk.get_buffer_memory_size()).sum()
    }

    /// Its arrays, in order.
    pub fn arrow(&self) -> &[ArrayRef] {
        &self.inner.chunks
    }

    /// A part of it, without a copy. `invalid` beyond its end.
    pub fn slice(&self, offset: usize, len: usize) -> Result<Column> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len());
        let Some(end) = end else {
            return Err(Error::invalid(format!("{len} places from {offset} of a column of {}", self.len())));
        };
        let (mut at, mut chunks) = (0, Vec::new());
        for chunk in &self.inner.chunks {
            let (from, to) = (offset.clamp(at, at + chunk.len()), end.clamp(at, at + chunk.len()));
            if from < to {
                chunks.push(chunk.slice(from - at, to - from));
            }
            at += chunk.len();
        }
        Ok(Column::of(self.value_type(), chunks, self.inner.cover.clone()))
    }

    /// Its values as numbers; `invalid` for strings.
    pub fn numbers(&self) -> Result<Numbers<'_>> {
        fn typed<T: ArrowPrimitiveType>(chunks: &[ArrayRef]) -> Vec<Chunk<'_, T::Native>> {
            chunks
                .iter()
                .map(|array| array.as_primitive::<T>())
                .map(|array| Chunk { values: array.values(), validity: array.nulls() })
                .collect()
        }
        let chunks = &self.inner.chunks;
        Ok(match self.inner.value_type {
            ValueType::F32 => Numbers::F32(typed::<Float32Type>(chunks)),
            ValueType::F64 => Numbers::F64(typed::<Float64Type>(chunks)),
            ValueType::I32 => Numbers::I32(typed::<Int32Type>(chunks)),
            ValueType::I64 => Numbers::I64(typed::<Int64Type>(chunks)),
            ValueType::U8 => Numbers::U8(typed::<UInt8Type>(chunks)),
            ValueType::Bool => {
                let view = chunks.iter().map(|array| {
                    let array = array.as_boolean();
                    Bits { values: array.values(), validity: array.nulls() }
                });
                Numbers::Bool(view.collect())
            }
            ValueType::Text => {
                return Err(Error::invalid("a column of text where numbers are needed; encode it first"));
            }
        })
    }

    /// Its values as strings; `invalid` for numbers.
    pub fn texts(&self) -> Result<Texts<'_>> {
        if self.inner.value_type != ValueType::Text {
            return Err(Error::invalid(format!("a column of {} where text is needed", self.inner.value_type)));
        }
        let chunks = self.inner.chunks.iter().map(|array| {
            let array = array.as_dictionary::<Int32Type>();
            TextChunk {
                keys: array.keys().values(),
                dictionary: array.values().as_string::<i32>(),
                validity: array.keys().nulls(),
            }
        });
        Ok(Texts { chunks: chunks.collect() })
    }
}

/// A dictionary entry that is null would be a second way of being missing.
fn check_dictionary(chunk: &ArrayRef) -> Result<()> {
    match chunk.as_dictionary::<Int32Type>().values().null_count() {
        0 => Ok(()),
        _ => Err(Error::invalid("a dictionary with a null among its strings; mark missing places in the keys")),
    }
}

fn check_chunks(count: usize) -> Result<()> {
    if count > CHUNKS_MAX {
        return Err(Error::invalid(format!("a column of {count} chunks; the most is {CHUNKS_MAX}: write larger ones")));
    }
    Ok(())
}

fn validity(there: &[bool]) -> NullBuffer {
    NullBuffer::new(packed(there, |there| there))
}

fn aligned<T: ArrowNativeType>(values: &[T]) -> ScalarBuffer<T> {
    let mut buffer = MutableBuffer::new(size_of_val(values));
    buffer.extend_from_slice(values);
    debug_assert_eq!(buffer.as_ptr().align_offset(ALIGN_BYTES), 0);
    ScalarBuffer::from(buffer)
}

/// What `make` makes of each value, in an aligned buffer. Goes through a block that stays in the nearest cache, as writing
/// in place would cost a pass over memory that sets it to zero first.
pub(crate) fn mapped<S: Copy, T: ArrowNativeType>(values: &[S], mut make: impl FnMut(S) -> T) -> ScalarBuffer<T> {
    let mut buffer = MutableBuffer::new(size_of::<T>() * values.len());
    let mut block = [T::default(); BLOCK];
    for from in values.chunks(BLOCK) {
        for (to, value) in block.iter_mut().zip(from) {
            *to = make(*value);
        }
        buffer.extend_from_slice(&block[..from.len()]);
    }
    ScalarBuffer::from(buffer)
}

/// A bit for each value, in an aligned buffer.
pub(crate) fn packed<T: Copy>(values: &[T], is_set: impl Fn(T) -> bool) -> BooleanBuffer {
    of_words(values.len(), words(values, is_set))
}

/// The same, 64 bits at a time. Bytes first, eight of which a multiplication gathers into the upper byte: this is what the
/// compiler makes wide code of.
pub(crate) fn words<T: Copy>(values: &[T], is_set: impl Fn(T) -> bool) -> impl Iterator<Item = u64> {
    const GATHER: u64 = 0x0102_0408_1020_4080;
    values.chunks(64).map(move |from| {
        let mut bytes = [0_u8; 64];
        for (to, value) in bytes.iter_mut().zip(from) {
            *to = u8::from(is_set(*value));
        }
        let (eights, _) = bytes.as_chunks::<8>();
        let bits = eights.iter().map(|eight| (u64::from_le_bytes(*eight).wrapping_mul(GATHER) >> 56) as u8);
        bits.enumerate().fold(0, |word, (at, bits)| word | u64::from(bits) << (8 * at))
    })
}

/// These words as bits; what they have beyond `len` is left out.
pub(crate) fn of_words(len: usize, words: impl Iterator<Item = u64>) -> BooleanBuffer {
    let count = len.div_ceil(64);
    let mut buffer = MutableBuffer::new(8 * count);
    words.take(count).for_each(|word| buffer.push(word));
    BooleanBuffer::new(buffer.into(), 0, len)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(column: &Column) -> Vec<Option<f64>> {
        let mut all = Vec::new();
        column.numbers().unwrap().for_each(|value| all.push(value));
        all
    }

    #[test]
    fn every_type_shows_its_values_and_what_is_missing() {
        fn check(column: Column, value_type: ValueType) {
            assert_eq!((column.value_type(), column.len(), column.missing()), (value_type, 3, 1));
            assert_eq!(seen(&column), [Some(1.0), None, Some(0.0)]);
            let view = column.numbers().unwrap();
            assert_eq!((view.len(), view.missing()), (3, 1));
            assert_eq!(seen(&column.slice(1, 2).unwrap()), [None, Some(0.0)]);
            assert!(column.texts().is_err());
        }
        let there: Option<&[bool]> = Some(&[true, false, true]);
        check(Column::f32(&[1.0, 5.0, 0.0], there), ValueType::F32);
        check(Column::f64(&[1.0, 5.0, 0.0], there), ValueType::F64);
        check(Column::i32(&[1, 5, 0], there), ValueType::I32);
        check(Column::i64(&[1, 5, 0], there), ValueType::I64);
        check(Column::u8(&[1, 5, 0], there), ValueType::U8);
        check(Column::bool(&[true, true, false], there), ValueType::Bool);
    }

    #[test]
    fn strings_are_kept_once() {
        let column = Column::text([Some("a"), None, Some("b"), Some("a")]);
        assert_eq!((column.len(), column.missing()), (4, 1));
        let texts = column.texts().unwrap();
        assert_eq!(texts.iter().collect::<Vec<_>>(), [Some("a"), None, Some("b"), Some("a")]);
        assert_eq!(texts.chunks[0].dictionary.len(), 2);
        assert!(column.numbers().unwrap_err().message().contains("numbers are needed"));
    }

    #[test]
    fn chunks_are_read_where_they_lie() {
        let (first, second) = (Column::f64(&[1.0, 2.0], None), Column::f64(&[3.0], None));
        let chunks = vec![first.arrow()[0].clone(), second.arrow()[0].clone()];
        let column = Column::from_arrow(ValueType::F64, chunks).unwrap();
        assert_eq!(seen(&column), [Some(1.0), Some(2.0), Some(3.0)]);
        assert_eq!(seen(&column.slice(1, 2).unwrap()), [Some(2.0), Some(3.0)]);
        let (Numbers::F64(whole), Numbers::F64(part)) = (column.numbers().unwrap(), first.numbers().unwrap()) else {
            panic!("both are f64");
        };
        assert_eq!(whole[0].values.as_ptr(), part[0].values.as_ptr(), "no copy");
        assert!(column.slice(2, 2).unwrap_err().message().contains("2 places from 2 of a column of 3"));
        assert!(column.slice(usize::MAX, 2).is_err());
        assert!(Column::from_arrow(ValueType::F32, column.arrow().to_vec()).is_err());
    }

    #[test]
    fn a_charge_lives_as_long_as_the_last_handle() {
        let budget = Budget::new("the plugin `a`", 1_000);
        let column = Column::f64(&[0.0; 100], None).charged(&budget).unwrap();
        let used = budget.used_bytes();
        assert!((800..=1_000).contains(&used), "{used}");
        assert!(Column::f64(&[0.0; 100], None).charged(&budget).is_err());
        let again = column.clone();
        drop(column);
        assert_eq!(budget.used_bytes(), used);
        drop(again);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn a_view_costs_its_budget_nothing_and_keeps_the_charge() {
        let (budget, other) = (Budget::new("the plugin `a`", 2_000), Budget::new("the plugin `b`", 2_000));
        let column = Column::f64(&[0.0; 100], None).charged(&budget).unwrap();
        let used = budget.used_bytes();
        let part = column.slice(99, 1).unwrap().charged(&budget).unwrap();
        let twice = Column::concat(&[column.clone(), part.clone(), column.clone()]).unwrap().charged(&budget).unwrap();
        assert_eq!((budget.used_bytes(), twice.len()), (used, 201));
        let foreign = part.clone().charged(&other).unwrap();
        assert_eq!((budget.used_bytes(), other.used_bytes()), (used, used));
        drop((column, part));
        assert_eq!(budget.used_bytes(), used, "`twice` shows its values");
        drop(twice);
        assert_eq!(budget.used_bytes(), 0);
        drop(foreign);
        assert_eq!(other.used_bytes(), 0);

        let mixed = [Column::f64(&[0.0; 10], None), Column::f64(&[0.0; 10], None).charged(&budget).unwrap()];
        let joined = Column::concat(&mixed).unwrap();
        let before = budget.used_bytes();
        assert!(joined.charged(&budget).is_ok());
        drop(mixed);
        assert!(before > 0);
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn columns_are_joined_without_a_copy() {
        let (first, second) = (Column::i32(&[1, 2], Some(&[true, false])), Column::i32(&[3], None));
        let empty = Column::i32(&[], None);
        let joined = Column::concat(&[first.clone(), empty.clone(), second.clone()]).unwrap();
        assert_eq!(seen(&joined), [Some(1.0), None, Some(3.0)]);
        assert_eq!((joined.arrow().len(), joined.missing()), (3, 1));
        assert!(Arc::ptr_eq(&joined.arrow()[2], &second.arrow()[0]), "no copy");
        assert_eq!(Column::concat(std::slice::from_ref(&empty)).unwrap().len(), 0);
        let texts = Column::concat(&[Column::text([Some("a")]), Column::text([None, Some("b"), Some("a")])]).unwrap();
        assert_eq!(texts.texts().unwrap().iter().collect::<Vec<_>>(), [Some("a"), None, Some("b"), Some("a")]);

        let refused = |columns: &[Column]| Column::concat(columns).unwrap_err().message().to_owned();
        assert!(refused(&[]).contains("at least one"));
        let message = refused(&[first.clone(), second, Column::f32(&[1.0], None)]);
        assert!(message.contains("column 2 of those to join is of f32, column 0 of i32"), "{message}");
        let many = Column::from_arrow(ValueType::I32, vec![first.arrow()[0].clone(); CHUNKS_MAX]).unwrap();
        assert_eq!(Column::concat(std::slice::from_ref(&many)).unwrap().len(), 2 * CHUNKS_MAX);
        assert!(refused(&[many, empty]).contains("65537 chunks; the most is 65536"));
    }

    #[test]
    fn strings_beyond_one_dictionary_start_another_chunk() {
        let values = [Some("aa"), Some("bb"), None, Some("cc"), Some("a string longer than the limit"), Some("")];
        let column = Column::text_in_chunks(values, 4);
        assert_eq!(column.arrow().iter().map(|chunk| chunk.len()).collect::<Vec<_>>(), [3, 1, 1, 1]);
        assert_eq!(column.texts().unwrap().iter().collect::<Vec<_>>(), values);
        assert_eq!(Column::text_in_chunks([], 4).len(), 0);
    }

    #[test]
    fn bits_are_packed_in_order() {
        for len in [0, 1, 7, 8, 63, 64, 65, 130, 1_025] {
            let values: Vec<usize> = (0..len).collect();
            let bits = packed(&values, |value| value % 3 == 1 || value % 7 == 5);
            let expected: Vec<bool> = values.iter().map(|value| value % 3 == 1 || value % 7 == 5).collect();
            assert_eq!(bits.iter().collect::<Vec<_>>(), expected, "{len}");
            assert_eq!(
                &*mapped(&values, |value| value as i64 - 5),
                (0..len as i64).map(|at| at - 5).collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn buffers_made_here_are_aligned() {
        for len in [1, 3, 1_000] {
            let there = vec![true; len];
            for column in [Column::f32(&vec![0.0; len], Some(&there)), Column::bool(&vec![true; len], Some(&there))] {
                let data = column.arrow()[0].to_data();
                let buffers = data.buffers().iter().chain(data.nulls().map(NullBuffer::buffer));
                assert!(buffers.into_iter().all(|buffer| buffer.as_ptr().addr() % ALIGN_BYTES == 0));
            }
        }
    }
}
