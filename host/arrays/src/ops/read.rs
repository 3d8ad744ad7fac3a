//! Values of a column as plain lists, for whoever may see them.
//!
//! The only operations that give values away; the right to compute on values does not include them. Bounded per call by
//! count, and strings by bytes too, which are counted before the first is copied.

use mainstay_base::{Error, Result};

use super::native::Native;
use super::{READ_INTEGERS_MAX, READ_NUMBERS_MAX, READ_TEXT_BYTES_MAX, READ_TEXT_MAX};
use crate::column::Column;
use crate::types::ValueType;
use crate::view::{Chunk, Numbers};

impl Column {
    /// `count` numbers from `offset`, NaN where one is missing. Integers beyond 2^53 lose digits.
    ///
    /// `invalid` for text, beyond the column's end, and for more than [`READ_NUMBERS_MAX`].
    pub fn read_numbers(&self, offset: usize, count: usize) -> Result<Vec<f64>> {
        check_count("numbers", count, READ_NUMBERS_MAX)?;
        let part = self.slice(offset, count)?;
        let mut all = Vec::with_capacity(count);
        part.numbers()?.for_each(|value| all.push(value.unwrap_or(f64::NAN)));
        Ok(all)
    }

    /// `count` integers from `offset`, none where one is missing; booleans are 0 and 1.
    ///
    /// `invalid` for reals and text, beyond the column's end, and for more than [`READ_INTEGERS_MAX`].
    pub fn read_integers(&self, offset: usize, count: usize) -> Result<Vec<Option<i64>>> {
        check_count("integers", count, READ_INTEGERS_MAX)?;
        let part = self.slice(offset, count)?;
        let mut all = Vec::with_capacity(count);
        match part.numbers()? {
            Numbers::I32(chunks) => chunks.iter().for_each(|chunk| integers(chunk, &mut all)),
            Numbers::I64(chunks) => chunks.iter().for_each(|chunk| integers(chunk, &mut all)),
            Numbers::U8(chunks) => chunks.iter().for_each(|chunk| integers(chunk, &mut all)),
            Numbers::Bool(_) => return part.cast(ValueType::U8)?.read_integers(0, count),
            Numbers::F32(_) | Numbers::F64(_) => {
                return Err(Error::invalid(format!(
                    "a column of {} where integers are needed; cast it first, or read numbers",
                    self.value_type()
                )));
            }
        }
        Ok(all)
    }

    /// `count` strings from `offset`, none where one is missing.
    ///
    /// `invalid` for numbers, beyond the column's end, and for more than [`READ_TEXT_MAX`]; `exhausted` when they take more
    /// than [`READ_TEXT_BYTES_MAX`].
    pub fn read_text(&self, offset: usize, count: usize) -> Result<Vec<Option<String>>> {
        check_count("strings", count, READ_TEXT_MAX)?;
        let part = self.slice(offset, count)?;
        let texts = part.texts()?;
        let mut bytes = 0;
        for (at, text) in texts.iter().enumerate() {
            bytes += text.map_or(0, str::len);
            if bytes > READ_TEXT_BYTES_MAX {
                return Err(Error::exhausted(format!(
                    "the strings from place {offset} to {} take more than {READ_TEXT_BYTES_MAX} bytes; read fewer at a time",
                    offset + at
                )));
            }
        }
        Ok(texts.iter().map(|text| text.map(str::to_owned)).collect())
    }
}

fn check_count(what: &str, count: usize, most: usize) -> Result<()> {
    if count > most {
        return Err(Error::invalid(format!("{count} {what} in one call; the most is {most}")));
    }
    Ok(())
}

fn integers<T: Native + Into<i64>>(chunk: &Chunk<'_, T>, all: &mut Vec<Option<i64>>) {
    match chunk.validity {
        None => all.extend(chunk.values.iter().map(|value| Some((*value).into()))),
        Some(validity) => {
            let pairs = chunk.values.iter().zip(validity);
            all.extend(pairs.map(|(value, is_there)| is_there.then(|| (*value).into())));
        }
    }
}

#[cfg(test)]
mod tests {
    use mainstay_base::ErrorKind;

    use super::*;
    use crate::ops::testing::{check_refused, in_chunks, integers as some_integers, reals};

    #[test]
    fn numbers_are_read_from_any_place() {
        let column = reals(&[Some(1.5), None, Some(f64::NAN), Some(f64::INFINITY), Some(-0.0)]);
        for column in [column.clone(), in_chunks(&column, &[2, 1])] {
            let read = column.read_numbers(0, 5).unwrap();
            assert_eq!((read[0], read[3], read[4].to_bits()), (1.5, f64::INFINITY, (-0.0_f64).to_bits()));
            assert!(read[1].is_nan() && read[2].is_nan());
            assert_eq!(column.read_numbers(3, 2).unwrap(), read[3..]);
            assert!(column.read_numbers(5, 0).unwrap().is_empty());
            check_refused(column.read_numbers(3, 3), "3 places from 3 of a column of 5");
        }
        assert_eq!(some_integers(&[Some((1 << 53) + 1)]).read_numbers(0, 1).unwrap(), [9_007_199_254_740_992.0]);
        assert_eq!(Column::bool(&[true, false], None).read_numbers(0, 2).unwrap(), [1.0, 0.0]);
        check_refused(Column::text([Some("1")]).read_numbers(0, 1), "encode it first");
    }

    #[test]
    fn integers_are_read_to_the_last_digit() {
        let values = [Some(i64::MAX), None, Some((1 << 53) + 1), Some(i64::MIN)];
        let column = some_integers(&values);
        for column in [column.clone(), in_chunks(&column, &[2])] {
            assert_eq!(column.read_integers(0, 4).unwrap(), values);
            assert_eq!(column.read_integers(1, 2).unwrap(), values[1..3]);
        }
        let there: Option<&[bool]> = Some(&[true, true, false]);
        for column in
            [Column::i32(&[1, 0, 5], there), Column::u8(&[1, 0, 5], there), Column::bool(&[true, false, true], there)]
        {
            assert_eq!(column.read_integers(0, 3).unwrap(), [Some(1), Some(0), None]);
        }
        check_refused(reals(&[Some(1.0)]).read_integers(0, 1), "a column of f64 where integers are needed");
        check_refused(Column::f32(&[1.0], None).read_integers(0, 0), "a column of f32 where integers are needed");
        check_refused(Column::text([Some("1")]).read_integers(0, 1), "encode it first");
    }

    #[test]
    fn one_call_reads_its_limit_and_no_more() {
        let column = Column::u8(&vec![1; READ_NUMBERS_MAX + 1], None);
        assert_eq!(column.read_numbers(1, READ_NUMBERS_MAX).unwrap().len(), READ_NUMBERS_MAX);
        check_refused(column.read_numbers(0, READ_NUMBERS_MAX + 1), "1000001 numbers in one call; the most is 1000000");
        assert_eq!(column.read_integers(1, READ_INTEGERS_MAX).unwrap().len(), READ_INTEGERS_MAX);
        check_refused(column.read_integers(0, READ_INTEGERS_MAX + 1), "1000001 integers in one call");
        let column = Column::text(std::iter::repeat_n(Some("a"), READ_TEXT_MAX + 1));
        assert_eq!(column.read_text(1, READ_TEXT_MAX).unwrap().len(), READ_TEXT_MAX);
        check_refused(column.read_text(0, READ_TEXT_MAX + 1), "100001 strings in one call; the most is 100000");
    }

    #[test]
    fn strings_are_read_up_to_their_bytes() {
        let column = Column::text([Some("a"), None, Some(""), Some("é")]);
        let expected = [Some("a".to_owned()), None, Some(String::new()), Some("é".to_owned())];
        assert_eq!(column.read_text(0, 4).unwrap(), expected);
        assert_eq!(in_chunks(&column, &[1, 2]).read_text(1, 3).unwrap(), expected[1..]);
        check_refused(reals(&[Some(1.0)]).read_text(0, 1), "a column of f64 where text is needed");

        let half = "x".repeat(READ_TEXT_BYTES_MAX / 2);
        let column = Column::text([Some("y"), Some(&half), None, Some(&half)]);
        assert_eq!(column.read_text(1, 3).unwrap().len(), 3);
        let error = column.read_text(0, 4).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted);
        assert!(error.message().contains("from place 0 to 3 take more than 4194304 bytes"), "{error}");
    }
}
