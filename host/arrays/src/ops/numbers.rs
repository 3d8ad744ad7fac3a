//! What makes numbers of numbers: filling, scaling, clipping, comparing.
//!
//! Plain loops over one chunk at a time, which the compiler makes wide code of.

use arrow_array::{Array, ArrayRef};
use arrow_buffer::BooleanBuffer;
use mainstay_base::{Error, Result};

use super::native::Native;
use super::{array, boolean_array, by_chunk, has_nan, there_and_not_nan, validity_words};
use crate::column::{Column, mapped, of_words, packed, words};
use crate::types::ValueType;
use crate::view::{Bits, Chunk, Number, Numbers};

impl Column {
    /// This number for what is missing or NaN; nothing is missing then. The type stays.
    ///
    /// `invalid` when the type cannot hold the number, whether or not something is missing; 32-bit reals take the nearest.
    /// NaN fills what is missing in reals. Chunks with nothing to fill are shared.
    pub fn fill(&self, value: f64) -> Result<Column> {
        let chunks = match self.numbers()? {
            Numbers::F32(chunks) => filled(self.arrow(), &chunks, value)?,
            Numbers::F64(chunks) => filled(self.arrow(), &chunks, value)?,
            Numbers::I32(chunks) => filled(self.arrow(), &chunks, value)?,
            Numbers::I64(chunks) => filled(self.arrow(), &chunks, value)?,
            Numbers::U8(chunks) => filled(self.arrow(), &chunks, value)?,
            Numbers::Bool(chunks) => filled_bits(self.arrow(), &chunks, value)?,
        };
        chunks.map_or_else(|| Ok(self.clone()), |chunks| Column::from_arrow(self.value_type(), chunks))
    }

    /// Whether a place is missing or NaN, as booleans; for text, whether it is missing.
    pub fn absent(&self) -> Result<Column> {
        let arrays = match self.numbers() {
            Ok(Numbers::F32(chunks)) => chunks.iter().map(absent).collect(),
            Ok(Numbers::F64(chunks)) => chunks.iter().map(absent).collect(),
            // Nothing else has NaN.
            _ => self.arrow().iter().map(missing).collect(),
        };
        Column::from_arrow(ValueType::Bool, arrays)
    }

    /// `(x - subtract) * multiply` of each value, as 64-bit reals; missing stays missing.
    pub fn affine(&self, subtract: f64, multiply: f64) -> Result<Column> {
        by_chunk!(self, ValueType::F64, chunk => {
            let values = mapped(chunk.values, |value| (value.to_f64() - subtract) * multiply);
            Ok(array(values, chunk.validity.cloned()))
        })
    }

    /// The nearest number of the column's type that lies within `low` and `high`; NaN stays, missing stays missing.
    ///
    /// For integers the bounds close inwards (1.5 to 3.5 is 2 to 3), and so they do where a 32-bit real has not the very
    /// number, so that what comes out lies within. `invalid` when nothing of the type does, or a bound is NaN; infinities
    /// leave a side open.
    pub fn clip(&self, low: f64, high: f64) -> Result<Column> {
        if low.is_nan() || high.is_nan() {
            return Err(Error::invalid("NaN is no bound; an infinity leaves a side open"));
        }
        let value_type = self.value_type();
        if value_type == ValueType::Bool {
            return self.clip_bits(low, high);
        }
        check_within(value_type, low, high)?;
        by_chunk!(self, value_type, chunk => clipped(chunk, low, high))
    }

    /// Whether each value is at least the threshold, as booleans; missing and NaN become missing. `invalid` for a threshold
    /// that is NaN.
    pub fn at_least(&self, threshold: f64) -> Result<Column> {
        if threshold.is_nan() {
            return Err(Error::invalid("NaN is no threshold: nothing is at least NaN"));
        }
        by_chunk!(self, ValueType::Bool, chunk => Ok(at_least(chunk, threshold)))
    }

    fn clip_bits(&self, low: f64, high: f64) -> Result<Column> {
        let (low, high) = within::<u8>(low, high.min(1.0)).ok_or_else(|| nothing_within(ValueType::Bool, low, high))?;
        if (low, high) == (0, 1) {
            return Ok(self.clone());
        }
        let bits = |array: &ArrayRef| {
            let values = of_words(array.len(), std::iter::repeat(if low == 1 { u64::MAX } else { 0 }));
            boolean_array(values, array.nulls().cloned())
        };
        Column::from_arrow(ValueType::Bool, self.arrow().iter().map(bits).collect())
    }
}

fn cannot_fill(value: f64, value_type: ValueType) -> Error {
    Error::invalid(format!(
        "{value:?} cannot fill a column of {value_type}, which cannot hold it; cast the column first"
    ))
}

/// None when nothing is to be filled.
fn filled<T: Native>(arrays: &[ArrayRef], chunks: &[Chunk<'_, T>], value: f64) -> Result<Option<Vec<ArrayRef>>> {
    let value = T::of(value).ok_or_else(|| cannot_fill(value, T::TYPE))?;
    let is_whole = |array: &ArrayRef, chunk: &Chunk<'_, T>| array.null_count() == 0 && !has_nan(chunk.values);
    if arrays.iter().zip(chunks).all(|(array, chunk)| is_whole(array, chunk)) {
        return Ok(None);
    }
    let fill = |(array, chunk): (&ArrayRef, &Chunk<'_, T>)| match is_whole(array, chunk) {
        true => array.clone(),
        false => fill_chunk(chunk, value),
    };
    Ok(Some(arrays.iter().zip(chunks).map(fill).collect()))
}

fn fill_chunk<T: Native>(chunk: &Chunk<'_, T>, fill: T) -> ArrayRef {
    let Some(validity) = chunk.validity else {
        return array(mapped(chunk.values, |value| if value.is_nan() { fill } else { value }), None);
    };
    let mut is_there = validity.iter();
    let values = mapped(chunk.values, |value| {
        let keep = is_there.next().unwrap_or(false) & !value.is_nan();
        if keep { value } else { fill }
    });
    array(values, None)
}

fn filled_bits(arrays: &[ArrayRef], chunks: &[Bits<'_>], value: f64) -> Result<Option<Vec<ArrayRef>>> {
    let value = u8::of(value).filter(|value| *value <= 1).ok_or_else(|| cannot_fill(value, ValueType::Bool))?;
    if arrays.iter().all(|array| array.null_count() == 0) {
        return Ok(None);
    }
    let fill = |(array, chunk): (&ArrayRef, &Bits<'_>)| {
        if array.null_count() == 0 {
            return array.clone();
        }
        let (bits, there) = (chunk.values.bit_chunks(), validity_words(chunk.validity));
        let word = |(bits, there): (u64, u64)| if value == 1 { bits | !there } else { bits & there };
        boolean_array(of_words(chunk.values.len(), bits.iter_padded().zip(there).map(word)), None)
    };
    Ok(Some(arrays.iter().zip(chunks).map(fill).collect()))
}

fn absent<T: Native>(chunk: &Chunk<'_, T>) -> ArrayRef {
    let (nan, there) = (words(chunk.values, |value: T| value.is_nan()), validity_words(chunk.validity));
    let values = of_words(chunk.values.len(), nan.zip(there).map(|(nan, there)| nan | !there));
    boolean_array(values, None)
}

fn missing(array: &ArrayRef) -> ArrayRef {
    boolean_array(of_words(array.len(), validity_words(array.nulls()).map(|there| !there)), None)
}

/// The bounds in the type, closed inwards; none if nothing lies within.
fn within<T: Native>(low: f64, high: f64) -> Option<(T, T)> {
    T::up(low).zip(T::down(high)).filter(|(low, high)| low <= high)
}

fn nothing_within(value_type: ValueType, low: f64, high: f64) -> Error {
    Error::invalid(format!("no {value_type} lies within {low:?} and {high:?}"))
}

fn check_within(value_type: ValueType, low: f64, high: f64) -> Result<()> {
    let some = match value_type {
        ValueType::F32 => within::<f32>(low, high).is_some(),
        ValueType::F64 => within::<f64>(low, high).is_some(),
        ValueType::I32 => within::<i32>(low, high).is_some(),
        ValueType::I64 => within::<i64>(low, high).is_some(),
        ValueType::U8 => within::<u8>(low, high).is_some(),
        ValueType::Bool | ValueType::Text => true,
    };
    some.then_some(()).ok_or_else(|| nothing_within(value_type, low, high))
}

fn clipped<T: Native>(chunk: &Chunk<'_, T>, low: f64, high: f64) -> Result<ArrayRef> {
    let (low, high) = within::<T>(low, high).ok_or_else(|| nothing_within(T::TYPE, low, high))?;
    let clip = |value: T| {
        let value = if value < low { low } else { value };
        if value > high { high } else { value }
    };
    Ok(array(mapped(chunk.values, clip), chunk.validity.cloned()))
}

fn at_least<T: Native>(chunk: &Chunk<'_, T>, threshold: f64) -> ArrayRef {
    let bits = match T::up(threshold) {
        Some(threshold) => packed(chunk.values, |value| value >= threshold),
        None => BooleanBuffer::new_unset(chunk.values.len()),
    };
    boolean_array(bits, there_and_not_nan(chunk))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::ops::testing::{check, check_refused, in_chunks, integers, reals, shown};
    use crate::types::ValueType::{Bool, F32, F64, I32, I64, U8};

    const NAN: Option<f64> = Some(f64::NAN);
    const INFINITY: f64 = f64::INFINITY;
    const THERE: Option<&[bool]> = Some(&[true, false, true]);

    #[test]
    fn what_is_missing_or_nan_is_filled() {
        fn filled(column: &Column, value: f64, expected: &str) {
            check(column, |column| column.fill(value), column.value_type(), expected);
            assert_eq!(column.fill(value).unwrap().missing(), 0);
        }
        // As `pandas.Series.fillna` gives them.
        let column = reals(&[Some(1.5), None, NAN, Some(-INFINITY), None]);
        filled(&column, -1.0, "1.5 -1 -1 -inf -1");
        filled(&column, f64::NAN, "1.5 NaN NaN -inf NaN");
        filled(&column, INFINITY, "1.5 inf inf -inf inf");
        filled(&Column::f64(&[1.0, f64::NAN], None), 0.0, "1 0");
        filled(&Column::f32(&[1.0, 5.0, f32::NAN], THERE), 0.5, "1 0.5 0.5");
        filled(&Column::f32(&[1.0, 5.0, 2.0], THERE), 0.1, "1 0.10000000149011612 2");
        filled(&integers(&[Some(i64::MAX), None]), i64::MIN as f64, "9223372036854775807 -9223372036854775808");
        filled(&Column::i32(&[1, 5, 2], THERE), -0.0, "1 0 2");
        filled(&Column::u8(&[1, 5, 2], THERE), 255.0, "1 255 2");
        filled(&Column::bool(&[false, false, true], THERE), 1.0, "0 1 1");
        filled(&Column::bool(&[true, true, true], THERE), 0.0, "1 0 1");
        filled(&reals(&[None, None, None]), 3.0, "3 3 3");
        filled(&reals(&[]), 3.0, "");
    }

    #[test]
    fn a_number_that_the_type_has_not_fills_nothing() {
        let whole = Some(&[true][..]);
        for value in [0.5, f64::NAN, INFINITY, 9.3e18] {
            for column in [
                Column::i32(&[1], whole),
                Column::i64(&[1], whole),
                Column::u8(&[1], None),
                Column::bool(&[true], None),
            ] {
                let words = format!("{value:?} cannot fill a column of {}", column.value_type());
                check_refused(column.fill(value), &words);
            }
        }
        check_refused(Column::u8(&[1], None).fill(256.0), "256.0 cannot fill a column of u8");
        check_refused(Column::bool(&[true], None).fill(2.0), "2.0 cannot fill a column of bool");
        check_refused(Column::f32(&[1.0], None).fill(1e39), "1e39 cannot fill a column of f32");
        check_refused(Column::text([None]).fill(1.0), "numbers are needed");
    }

    #[test]
    fn chunks_with_nothing_to_fill_are_shared() {
        for (first, second) in [
            (Column::f64(&[1.0], Some(&[true])), reals(&[None])),
            (Column::i32(&[1], None), Column::i32(&[1], Some(&[false]))),
            (Column::bool(&[true], None), Column::bool(&[true], Some(&[false]))),
        ] {
            assert!(Arc::ptr_eq(&first.fill(0.0).unwrap().arrow()[0], &first.arrow()[0]));
            let filled = Column::concat(&[first.clone(), second]).unwrap().fill(0.0).unwrap();
            assert!(Arc::ptr_eq(&filled.arrow()[0], &first.arrow()[0]));
            assert_eq!(shown(&filled), ["1", "0"]);
        }
    }

    #[test]
    fn absent_places_are_found() {
        // As `pandas.Series.isna` gives them.
        check(&reals(&[Some(0.0), None, NAN, Some(INFINITY)]), Column::absent, Bool, "0 1 1 0");
        check(&Column::f64(&[f64::NAN, 1.0], None), Column::absent, Bool, "1 0");
        check(&Column::f32(&[f32::NAN, f32::NAN, 1.0], THERE), Column::absent, Bool, "1 1 0");
        check(&integers(&[None, Some(0)]), Column::absent, Bool, "1 0");
        check(&Column::u8(&[0, 1], None), Column::absent, Bool, "0 0");
        check(&Column::bool(&[true, false, false], THERE), Column::absent, Bool, "0 1 0");
        check(&Column::text([Some("a"), None, Some("")]), Column::absent, Bool, "0 1 0");
        check(&reals(&[]), Column::absent, Bool, "");
        let long: Vec<Option<f64>> = (0..200).map(|at| [Some(1.0), None, NAN][at % 3]).collect();
        let expected: Vec<&str> = (0..200).map(|at| if at % 3 == 0 { "0" } else { "1" }).collect();
        check(&reals(&long), Column::absent, Bool, &expected.join(" "));
    }

    #[test]
    fn numbers_are_shifted_and_scaled_in_64_bits() {
        // As numpy gives `(x - subtract) * multiply` in float64.
        let check = |column: &Column, subtract: f64, multiply: f64, expected: &str| {
            check(column, |column| column.affine(subtract, multiply), F64, expected);
        };
        check(&reals(&[Some(0.0), None, Some(2.5), Some(-3.0)]), 0.5, 4.0, "-2 - 8 -14");
        check(&reals(&[NAN, Some(INFINITY), Some(-INFINITY)]), 1.0, -2.0, "NaN -inf inf");
        check(&Column::i32(&[3, 1, 2], None), 0.1, 0.3, "0.87 0.27 0.57");
        check(&Column::f32(&[0.1, 0.0], None), 0.0, 1.0, "0.10000000149011612 0");
        check(&Column::u8(&[255, 0, 1], THERE), 256.0, 1.0, "-1 - -255");
        check(&Column::bool(&[true, true, false], THERE), 0.5, 2.0, "1 - -1");
        check(&integers(&[Some((1 << 53) + 1)]), 0.0, 1.0, "9007199254740992");
        check(&reals(&[None, None]), 0.0, 1.0, "- -");
        check(&reals(&[]), 0.0, 1.0, "");
        check_refused(Column::text([Some("1")]).affine(0.0, 1.0), "encode it first");
    }

    #[test]
    fn numbers_are_clipped_within_their_type() {
        let check = |column: &Column, low: f64, high: f64, expected: &str| {
            check(column, |column| column.clip(low, high), column.value_type(), expected);
        };
        // As `numpy.clip` gives them.
        let column = reals(&[Some(-INFINITY), Some(-2.0), None, Some(-0.5), Some(0.0), NAN, Some(3.0), Some(INFINITY)]);
        check(&column, -1.0, 2.0, "-1 -1 - -0.5 0 NaN 2 2");
        check(&column, -INFINITY, 0.0, "-inf -2 - -0.5 0 NaN 0 0");
        check(&column, 0.25, 0.25, "0.25 0.25 - 0.25 0.25 NaN 0.25 0.25");
        check(&Column::u8(&[0, 1, 5, 250, 255], None), 2.0, 200.0, "2 2 5 200 200");
        check(&Column::u8(&[0, 1, 255], THERE), -5.0, 300.0, "0 - 255");
        // Bounds close inwards.
        check(&Column::i32(&[-9, 2, 9], None), 1.5, 3.5, "2 2 3");
        check(&Column::i32(&[-9, 2, 9], None), -INFINITY, INFINITY, "-9 2 9");
        let ends = integers(&[Some(i64::MIN), Some(0), Some(i64::MAX)]);
        check(&ends, i64::MIN as f64, i64::MAX as f64, "-9223372036854775808 0 9223372036854775807");
        check(&ends, -(2_f64.powi(53)), 2_f64.powi(53), "-9007199254740992 0 9007199254740992");
        // The 32-bit reals next to the bounds, as `numpy.nextafter` gives them.
        check(&Column::f32(&[0.0, 0.5, 1.0], None), 0.3, 0.9, "0.30000001192092896 0.5 0.8999999761581421");
        check(&Column::f32(&[0.0, 1.0], None), 0.9, 1.0, "0.9000000357627869 1");
        check(&Column::f32(&[f32::INFINITY, f32::NAN], None), 0.0, 1e300, &format!("{} NaN", f64::from(f32::MAX)));
        let bits = Column::bool(&[true, true, false], THERE);
        check(&bits, 0.0, 1.0, "1 - 0");
        check(&bits, 0.5, 7.0, "1 - 1");
        check(&bits, -1.0, 0.5, "0 - 0");
        check(&reals(&[]), 0.0, 1.0, "");
    }

    #[test]
    fn bounds_that_hold_nothing_are_refused() {
        let of_each = [
            Column::f32(&[], None),
            Column::f64(&[], None),
            Column::i32(&[], None),
            Column::i64(&[], None),
            Column::u8(&[], None),
            Column::bool(&[], None),
        ];
        for column in of_each.iter().flat_map(|column| [column.clone(), column.slice(0, 0).unwrap()]) {
            check_refused(column.clip(f64::NAN, 1.0), "NaN is no bound");
            check_refused(column.clip(0.0, f64::NAN), "NaN is no bound");
            let words = format!("no {} lies within 2.0 and 1.0", column.value_type());
            check_refused(column.clip(2.0, 1.0), &words);
            if ![F32, F64].contains(&column.value_type()) {
                check_refused(column.clip(0.25, 0.75), "lies within 0.25 and 0.75");
            }
        }
        check_refused(Column::u8(&[1], None).clip(300.0, 400.0), "no u8 lies within 300.0 and 400.0");
        check_refused(integers(&[]).clip(9.3e18, INFINITY), "no i64 lies within 9.3e18 and inf");
        check_refused(Column::f32(&[1.0], None).clip(1e39, 1e40), "no f32 lies within 1e39 and 1e40");
        check_refused(Column::text([Some("a")]).clip(0.0, 1.0), "encode it first");
    }

    #[test]
    fn comparing_with_a_threshold_is_exact() {
        let check = |column: &Column, threshold: f64, expected: &str| {
            check(column, |column| column.at_least(threshold), Bool, expected);
        };
        let column = reals(&[Some(0.5), Some(0.4), None, NAN, Some(INFINITY), Some(-INFINITY)]);
        check(&column, 0.5, "1 0 - - 1 0");
        check(&column, INFINITY, "0 0 - - 1 0");
        check(&column, -INFINITY, "1 1 - - 1 1");
        check(&Column::f64(&[1.0, 2.0], None), 2.0, "0 1");
        check(&reals(&[Some(-0.0)]), 0.0, "1");
        let odd = integers(&[Some(1 << 53), Some((1 << 53) + 1), Some(i64::MAX), None]);
        check(&odd, 2_f64.powi(53), "1 1 1 -");
        check(&odd, 2_f64.powi(53) + 2.0, "0 0 1 -");
        check(&odd, 2_f64.powi(63), "0 0 0 -");
        check(&Column::u8(&[0, 1, 2], THERE), 0.5, "0 - 1");
        check(&Column::u8(&[0, 255], None), 255.5, "0 0");
        check(&Column::f32(&[0.9, 0.3], None), 0.9, "0 0");
        check(&Column::f32(&[0.9, 0.3], None), f64::from(0.9_f32), "1 0");
        check(&Column::bool(&[true, true, false], THERE), 1.0, "1 - 0");
        check(&reals(&[]), 0.0, "");
        check_refused(column.at_least(f64::NAN), "NaN is no threshold");
        check_refused(Column::text([Some("a")]).at_least(1.0), "encode it first");
    }

    #[test]
    fn validity_is_shared_unless_nan_adds_to_it() {
        let bits = |column: &Column| column.arrow()[0].nulls().map(|nulls| nulls.buffer().as_ptr());
        let (plain, nan) = (reals(&[Some(1.0), None]), reals(&[NAN, None]));
        for made in [plain.affine(0.0, 1.0), plain.clip(0.0, 1.0), plain.at_least(0.0), plain.bucket(&[0.0])] {
            assert_eq!(bits(&made.unwrap()), bits(&plain));
        }
        assert_ne!(bits(&nan.at_least(0.0).unwrap()), bits(&nan));
        let bytes = in_chunks(&plain, &[1]).operation_bytes_max();
        assert_eq!(bytes, 2 * 3 * 64);
        assert_eq!([F32, I32, I64, U8].map(|to| bits(&plain.cast(to).unwrap())), [bits(&plain); 4]);
    }
}
