//! Which row groups cannot hold what a query asks for.
//!
//! Owns [`Condition`], a comparison of a column with a constant, and its answer from a row group's statistics. Separate from
//! scans, because what a comparison means is the engine's business: reals are compared in their total order, where what is
//! not a number is greater than every number, and the statistics do not tell of those.
//!
//! Only ever says no when no row can match; the engine compares again. Nothing here fails: what is not known may match.

use std::cmp::Ordering;

use parquet::file::statistics::Statistics;

use crate::files::FileReader;

/// A column compared with a constant; a row where it is missing does not match.
#[derive(Clone, Debug, PartialEq)]
pub struct Condition {
    /// The column's name.
    pub column: String,
    /// How it stands to the value.
    pub comparison: Comparison,
    /// What it is compared with.
    pub value: Constant,
}

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=`
    Equal,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
}

/// With what.
#[derive(Clone, Debug, PartialEq)]
pub enum Constant {
    /// A whole number, or a time in microseconds.
    Integer(i64),
    /// A real.
    Real(f64),
    /// A text.
    Text(String),
    /// True or false.
    Boolean(bool),
}

impl Condition {
    /// Whether a row group of a file may hold a row that matches.
    pub(crate) fn may_match(&self, file: &FileReader, group: usize) -> bool {
        // A column that came later is missing in every row of the file.
        let Ok(column) = file.schema().index_of(&self.column) else { return false };
        let Some(statistics) = file.statistics(group, column) else { return true };
        let has_nan = file.file.record.nan_columns.contains(&column);
        self.may_match_within(statistics, has_nan)
    }

    fn may_match_within(&self, statistics: &Statistics, has_nan: bool) -> bool {
        let (min, max) = (self.order(bound(statistics, true)), self.order(bound(statistics, false)));
        let (Some(min), Some(max)) = (min, max) else { return true };
        if has_nan {
            return true;
        }
        match self.comparison {
            Comparison::Less => min.is_lt(),
            Comparison::LessOrEqual => min.is_le(),
            Comparison::Equal => min.is_le() && max.is_ge(),
            Comparison::GreaterOrEqual => max.is_ge(),
            Comparison::Greater => max.is_gt(),
        }
    }

    /// How a bound stands to the constant.
    fn order(&self, bound: Option<Bound<'_>>) -> Option<Ordering> {
        match (bound?, &self.value) {
            (Bound::Integer(bound), Constant::Integer(value)) => Some(bound.cmp(value)),
            (Bound::Real(bound), Constant::Real(value)) => Some(bound.total_cmp(value)),
            (Bound::Text(bound), Constant::Text(value)) => Some(bound.cmp(value.as_bytes())),
            (Bound::Boolean(bound), Constant::Boolean(value)) => Some(bound.cmp(value)),
            _ => None,
        }
    }
}

enum Bound<'a> {
    Integer(i64),
    Real(f64),
    Text(&'a [u8]),
    Boolean(bool),
}

/// The least or greatest value. Long texts are cut so that they bound, so they need not be there.
fn bound(statistics: &Statistics, is_min: bool) -> Option<Bound<'_>> {
    Some(match statistics {
        Statistics::Int64(values) => Bound::Integer(*if is_min { values.min_opt() } else { values.max_opt() }?),
        Statistics::Int32(values) => {
            Bound::Integer((*if is_min { values.min_opt() } else { values.max_opt() }?).into())
        }
        Statistics::Double(values) => Bound::Real(*if is_min { values.min_opt() } else { values.max_opt() }?),
        Statistics::Float(values) => Bound::Real((*if is_min { values.min_opt() } else { values.max_opt() }?).into()),
        Statistics::ByteArray(values) => {
            Bound::Text(if is_min { values.min_bytes_opt() } else { values.max_bytes_opt() }?)
        }
        Statistics::Boolean(values) => Bound::Boolean(*if is_min { values.min_opt() } else { values.max_opt() }?),
        Statistics::Int96(_) | Statistics::FixedLenByteArray(_) => return None,
    })
}

/// First and last value of an integer column in a row group.
pub(crate) fn integer_bounds(file: &FileReader, group: usize, column: usize) -> Option<(i64, i64)> {
    let statistics = file.statistics(group, column)?;
    match (bound(statistics, true)?, bound(statistics, false)?) {
        (Bound::Integer(min), Bound::Integer(max)) => Some((min, max)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use parquet::data_type::ByteArray;

    use super::*;

    #[test]
    fn a_group_is_passed_only_when_no_row_can_match() {
        use Comparison::*;
        fn check(statistics: &Statistics, comparison: Comparison, value: Constant, has_nan: bool, expect: bool) {
            let condition = Condition { column: "c".into(), comparison, value };
            assert_eq!(condition.may_match_within(statistics, has_nan), expect, "{condition:?}");
        }
        let whole = Statistics::int64(Some(3), Some(9), None, Some(0), false);
        for (comparison, value, expect) in [
            (Less, 3, false),
            (Less, 4, true),
            (LessOrEqual, 2, false),
            (LessOrEqual, 3, true),
            (Equal, 2, false),
            (Equal, 3, true),
            (Equal, 9, true),
            (Equal, 10, false),
            (GreaterOrEqual, 9, true),
            (GreaterOrEqual, 10, false),
            (Greater, 8, true),
            (Greater, 9, false),
        ] {
            check(&whole, comparison, Constant::Integer(value), false, expect);
        }
        let small = Statistics::int32(Some(-1), Some(1), None, Some(0), false);
        check(&small, Greater, Constant::Integer(1), false, false);
        let real = Statistics::double(Some(-0.0), Some(2.5), None, Some(0), false);
        check(&real, Greater, Constant::Real(2.5), false, false);
        check(&real, Less, Constant::Real(0.0), false, true);
        // What is not a number is greater than every number, and the statistics leave it out.
        check(&real, Greater, Constant::Real(2.5), true, true);
        check(&real, Equal, Constant::Real(f64::NAN), true, true);
        let text = |min: &str, max: &str| {
            Statistics::byte_array(Some(ByteArray::from(min)), Some(ByteArray::from(max)), None, Some(0), false)
        };
        check(&text("b", "d"), Equal, Constant::Text("bb".into()), false, true);
        check(&text("b", "d"), Equal, Constant::Text("dd".into()), false, false);
        check(&text("b", "d"), Less, Constant::Text("b".into()), false, false);
        let truth = Statistics::boolean(Some(false), Some(false), None, Some(0), false);
        check(&truth, Equal, Constant::Boolean(true), false, false);
        // Of another type, or not known.
        check(&truth, Equal, Constant::Integer(1), false, true);
        check(&Statistics::int64(None, None, None, Some(7), false), Equal, Constant::Integer(1), false, true);
    }
}
