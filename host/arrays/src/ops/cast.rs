//! The same values in another type of number.
//!
//! Every chunk is converted in one pass that only notes whether all fitted, as then the loop has no branch. Only when one
//! did not is the first looked for; that none is found means that it stood at a missing place.

use arrow_array::ArrayRef;
use mainstay_base::{Error, Result};

use super::native::Native;
use super::{array, boolean_array, by_chunk, is_there};
use crate::column::{Column, mapped, packed};
use crate::types::ValueType;
use crate::view::Chunk;

impl Column {
    /// The same values in another type of number; missing stays missing.
    ///
    /// `invalid` names the first value that the type cannot hold: a fraction, NaN or an infinity where it has integers, a
    /// number beyond its ends (a finite one that would become infinite, too), anything but 0 and 1 for booleans. Reals may
    /// lose digits. Text is neither cast from nor to.
    pub fn cast(&self, to: ValueType) -> Result<Column> {
        let mut at = 0;
        match to {
            ValueType::Text => Err(Error::invalid("text is no type of number; nothing is cast to it")),
            _ if to == self.value_type() => Ok(self.clone()),
            ValueType::F32 => by_chunk!(self, to, chunk => convert(chunk, &mut at, Native::to_real32)),
            ValueType::F64 => by_chunk!(self, to, chunk => convert(chunk, &mut at, Native::to_real64)),
            ValueType::I32 => by_chunk!(self, to, chunk => convert(chunk, &mut at, Native::to_integer32)),
            ValueType::I64 => by_chunk!(self, to, chunk => convert(chunk, &mut at, Native::to_integer64)),
            ValueType::U8 => by_chunk!(self, to, chunk => convert(chunk, &mut at, Native::to_byte)),
            ValueType::Bool => by_chunk!(self, to, chunk => to_boolean(chunk, &mut at)),
        }
    }
}

/// `at` is the place where the chunk starts, then where it ends.
fn convert<S: Native, T: Native>(
    chunk: &Chunk<'_, S>,
    at: &mut usize,
    one: impl Fn(S) -> (T, bool),
) -> Result<ArrayRef> {
    let mut all_fit = true;
    let values = mapped(chunk.values, |value| {
        let (converted, fits) = one(value);
        all_fit &= fits;
        converted
    });
    if !all_fit {
        refuse_first(chunk, *at, T::TYPE, |value| one(value).1)?;
    }
    *at += chunk.values.len();
    Ok(array(values, chunk.validity.cloned()))
}

fn to_boolean<S: Native>(chunk: &Chunk<'_, S>, at: &mut usize) -> Result<ArrayRef> {
    refuse_first(chunk, *at, ValueType::Bool, |value| value.code() <= 1)?;
    *at += chunk.values.len();
    Ok(boolean_array(packed(chunk.values, |value| value.code() == 1), chunk.validity.cloned()))
}

fn refuse_first<S: Native>(chunk: &Chunk<'_, S>, at: usize, to: ValueType, fits: impl Fn(S) -> bool) -> Result<()> {
    let wrong = |(at, value): &(usize, &S)| !fits(**value) && is_there(chunk.validity, *at);
    match chunk.values.iter().enumerate().find(wrong) {
        None => Ok(()),
        Some((within, value)) => Err(Error::invalid(format!(
            "place {} holds {value:?}, which {to} cannot hold; fill or clip it first, or cast to a wider type",
            at + within
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{check, check_refused, in_chunks, integers, reals, shown};
    use crate::types::ValueType::{Bool, F32, F64, I32, I64, Text, U8};

    #[test]
    fn values_are_the_same_in_another_type() {
        // As `numpy.ndarray.astype` gives them.
        let cast = |to| move |column: &Column| column.cast(to);
        let small = reals(&[Some(0.0), Some(255.0), None, Some(-0.0), Some(7.0)]);
        for to in [F32, I32, I64, U8] {
            let zero = if to == F32 { "-0" } else { "0" };
            check(&small, cast(to), to, &format!("0 255 - {zero} 7"));
        }
        let signed = integers(&[Some(-3), None, Some(4)]);
        for to in [F32, F64, I32, I64] {
            check(&signed, cast(to), to, "-3 - 4");
        }
        let bits = Column::bool(&[true, false, true, true], Some(&[true, true, false, true]));
        for to in [F32, F64, I32, I64, U8, Bool] {
            check(&bits, cast(to), to, "1 0 - 1");
            check(&bits.cast(to).unwrap(), cast(Bool), Bool, "1 0 - 1");
        }
        check(&reals(&[None, None, None]), cast(U8), U8, "- - -");
        check(&reals(&[]), cast(U8), U8, "");
    }

    #[test]
    fn reals_may_lose_digits_but_stay_finite() {
        let column = reals(&[Some(0.1), Some(1e-50), Some(f64::NAN), Some(f64::INFINITY), Some(16_777_217.0)]);
        let cast = column.cast(F32).unwrap();
        let expected = [f64::from(0.1_f32), 0.0, f64::NAN, f64::INFINITY, 16_777_216.0];
        assert_eq!(shown(&cast), expected.map(|value| value.to_string()));
        let odd = integers(&[Some((1 << 53) + 1), Some(i64::MAX)]);
        check(&odd, |column| column.cast(F64), F64, "9007199254740992 9223372036854776000");
        check(&integers(&[Some(16_777_217)]), |column| column.cast(F32), F32, "16777216");
        check_refused(reals(&[Some(1.0), Some(-1e39)]).cast(F32), "place 1 holds -1e39, which f32 cannot hold");
    }

    #[test]
    fn the_first_that_does_not_fit_is_named() {
        fn check(column: &Column, to: ValueType, words: &str) {
            check_refused(column.cast(to), &format!("{words}, which {to} cannot hold"));
        }
        let two_63 = -(i64::MIN as f64);
        let column = reals(&[Some(1.0), None, Some(2.5), Some(f64::NAN)]);
        for to in [I32, I64, U8, Bool] {
            check(&column, to, "place 2 holds 2.5");
            check(&in_chunks(&column, &[1, 1]), to, "place 2 holds 2.5");
            check(&Column::f32(&[f32::NAN], None), to, "place 0 holds NaN");
            check(&reals(&[Some(f64::INFINITY)]), to, "place 0 holds inf");
            check(&reals(&[Some(f64::NEG_INFINITY)]), to, "place 0 holds -inf");
            check(&reals(&[Some(two_63)]), to, "place 0 holds 9.223372036854776e18");
            check(&Column::f32(&[two_63 as f32], None), to, "place 0 holds 9.223372e18");
        }
        check(&reals(&[Some(2_147_483_648.0)]), I32, "place 0 holds 2147483648.0");
        check(&Column::f32(&[2_147_483_648.0], None), I32, "place 0 holds 2147483600.0");
        check(&reals(&[Some(-2_147_483_649.0)]), I32, "place 0 holds -2147483649.0");
        check(&reals(&[Some(256.0)]), U8, "place 0 holds 256.0");
        check(&reals(&[Some(-1.0)]), U8, "place 0 holds -1.0");
        check(&integers(&[Some(255), Some(256)]), U8, "place 1 holds 256");
        check(&Column::i32(&[0, -1], None), U8, "place 1 holds -1");
        check(&integers(&[Some(i64::from(i32::MAX) + 1)]), I32, "place 0 holds 2147483648");
        check(&Column::u8(&[0, 1, 2], None), Bool, "place 2 holds 2");
    }

    #[test]
    fn the_ends_of_each_type_fit() {
        let ends = |low: f64, high: f64| reals(&[Some(low), Some(high)]);
        check(&ends(-2_147_483_648.0, 2_147_483_647.0), |column| column.cast(I32), I32, "-2147483648 2147483647");
        let last = (-(i64::MIN as f64)).next_down();
        check(&ends(i64::MIN as f64, last), |column| column.cast(I64), I64, "-9223372036854775808 9223372036854774784");
    }

    #[test]
    fn text_is_no_number_and_the_same_type_is_no_copy() {
        check_refused(Column::text([Some("1")]).cast(F64), "encode it first");
        check_refused(reals(&[Some(1.0)]).cast(Text), "text is no type of number");
        check_refused(Column::text([Some("1")]).cast(Text), "text is no type of number");
        let column = reals(&[Some(1.0), None]);
        let same = column.cast(F64).unwrap();
        assert!(std::sync::Arc::ptr_eq(&same.arrow()[0], &column.arrow()[0]));
        let bits = |column: &Column| column.arrow()[0].nulls().unwrap().buffer().as_ptr();
        assert_eq!(bits(&column.cast(F32).unwrap()), bits(&column), "validity is shared");
    }
}
