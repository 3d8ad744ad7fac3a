//! A batch from outside becomes rows of a table: checked, in the table's order, with its marks applied.
//!
//! Owns the one place that values pass on their way in. Columns marked *drop* end here; columns marked *hash* leave as
//! HMAC-SHA-256 (RFC 2104) under the table's secret, cut to 128 bits, in hexadecimal: equal values stay equal inside a
//! table, and nobody without the secret can try names until one fits. Separate because everything behind it writes to
//! disk, and nothing behind it may see what must not get there.
//!
//! Bounded by the batch. On failure: `invalid` names the column, what it holds and what is wanted; nothing was changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::TimestampMicrosecondType;
use arrow_array::{Array, ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow_schema::{DataType, TimeUnit};
use hmac::{Hmac, Mac};
use mainstay_base::{Error, Result};
use sha2::Sha256;

use crate::limits::{APPEND_PARTITIONS_MAX, TIME_US_END, TIME_US_MIN};
use crate::schema::{ColumnSpec, Kind, Mark, TableSpec};

/// Bytes of a hash that are kept.
const HASH_BYTES: usize = 16;

/// The batch as rows of this table, in its newest version.
pub(crate) fn conform(spec: &TableSpec, secret: &[u8], batch: &RecordBatch) -> Result<RecordBatch> {
    let given = batch.schema();
    for (at, field) in given.fields().iter().enumerate() {
        let name = field.name();
        if !spec.columns.iter().any(|column| column.name == *name) {
            return Err(Error::invalid(format!("the table has no column `{name}`; add it to the table first")));
        }
        if given.fields()[..at].iter().any(|other| other.name() == name) {
            return Err(Error::invalid(format!("two columns of the rows are named `{name}`; rename one")));
        }
    }
    let mut columns = Vec::new();
    for column in spec.stored(spec.version) {
        let array = match batch.column_by_name(&column.name) {
            Some(array) => taken(column, array)?,
            None if column.nullable => new_null_array(&column.kind.arrow(), batch.num_rows()),
            None => {
                return Err(Error::invalid(format!("the rows have no column `{}`, which is required", column.name)));
            }
        };
        if !column.nullable && array.null_count() > 0 {
            return Err(Error::invalid(format!(
                "column `{}` misses {} values of {}; it is not nullable",
                column.name,
                array.null_count(),
                array.len()
            )));
        }
        columns.push(if column.mark == Mark::Hash { hashed(secret, &array) } else { array });
    }
    let rows = RecordBatch::try_new(spec.newest(), columns).map_err(|error| {
        Error::internal("rows that were checked do not fit their table; this is a fault of the host").with_source(error)
    })?;
    check_times(spec, &rows)?;
    Ok(rows)
}

/// The column's values in the type that they are kept in.
fn taken(column: &ColumnSpec, array: &ArrayRef) -> Result<ArrayRef> {
    let (wanted, given) = (column.kind.arrow(), array.data_type());
    let fits = match (column.kind, given) {
        (_, given) if *given == wanted => return Ok(array.clone()),
        (Kind::Text, DataType::LargeUtf8 | DataType::Utf8View) => true,
        (Kind::Text, DataType::Dictionary(_, values)) => **values == DataType::Utf8,
        (Kind::Timestamp, DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, _)) => true,
        (Kind::Timestamp, DataType::Timestamp(TimeUnit::Microsecond, _) | DataType::Int64) => true,
        _ => false,
    };
    let refused = || Error::invalid(format!("column `{}` holds {given}; the table keeps {wanted} there", column.name));
    if !fits {
        return Err(refused());
    }
    if let (Kind::Timestamp, DataType::Timestamp(unit, _)) = (column.kind, given) {
        // Without a cast of the zone: the number counts from 1970 UTC whatever zone it is shown in.
        let plain = arrow_cast::cast(array, &DataType::Timestamp(*unit, None)).map_err(|_| refused())?;
        let micros = arrow_cast::cast(&plain, &DataType::Timestamp(TimeUnit::Microsecond, None));
        let micros = micros.map_err(|_| refused())?.as_primitive::<TimestampMicrosecondType>().clone();
        if micros.null_count() > array.null_count() {
            return Err(Error::invalid(format!("column `{}` has times beyond what can be kept", column.name)));
        }
        return Ok(Arc::new(micros.with_timezone("UTC")));
    }
    arrow_cast::cast(array, &wanted).map_err(|_| refused())
}

fn hashed(secret: &[u8], array: &ArrayRef) -> ArrayRef {
    let keyed = Hmac::<Sha256>::new_from_slice(secret).expect("a key of any length will do");
    let hash = |value: &str| {
        let mut one = keyed.clone();
        one.update(value.as_bytes());
        hex::encode(&one.finalize().into_bytes()[..HASH_BYTES])
    };
    let hashes: StringArray = array.as_string::<i32>().iter().map(|value| value.map(hash)).collect();
    Arc::new(hashes)
}

/// The time column of rows in the table's schema.
pub(crate) fn times<'a>(spec: &TableSpec, rows: &'a RecordBatch) -> Result<&'a TimestampMicrosecondArray> {
    let array = rows.column_by_name(&spec.time).and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
    array.ok_or_else(|| Error::internal(format!("rows without their time column `{}`", spec.time)))
}

fn check_times(spec: &TableSpec, rows: &RecordBatch) -> Result<()> {
    let times = times(spec, rows)?.values();
    if let Some(time) = times.iter().find(|time| !(TIME_US_MIN..TIME_US_END).contains(*time)) {
        return Err(Error::invalid(format!(
            "column `{}` has the time {time}; times are microseconds since 1970, from the year 1900 to before 2200",
            spec.time
        )));
    }
    let mut partitions = BTreeSet::new();
    let mut last = None;
    for time in times {
        let partition = spec.partition.of(*time);
        if last != Some(partition) {
            partitions.insert(partition);
            last = Some(partition);
        }
        if partitions.len() > APPEND_PARTITIONS_MAX {
            return Err(Error::invalid(format!(
                "the rows fall into more than {APPEND_PARTITIONS_MAX} {}s; append them in pieces, ordered by time",
                if spec.partition == crate::schema::Partition::Day { "day" } else { "hour" }
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow_array::{Float64Array, Int64Array, TimestampMillisecondArray};

    use super::*;

    fn spec() -> TableSpec {
        TableSpec::new(
            "at",
            vec![
                ColumnSpec::new("at", Kind::Timestamp),
                ColumnSpec::new("x", Kind::F64).nullable(),
                ColumnSpec::new("who", Kind::Text).nullable().marked(Mark::Hash),
                ColumnSpec::new("gone", Kind::Text).marked(Mark::Drop),
            ],
        )
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
    }

    fn at(times: &[i64]) -> ArrayRef {
        Arc::new(Int64Array::from(times.to_vec()))
    }

    #[test]
    fn marks_are_applied_before_anything_else_sees_the_rows() {
        let texts = |values: &[Option<&str>]| -> ArrayRef { Arc::new(StringArray::from(values.to_vec())) };
        let given = batch(vec![
            ("who", texts(&[Some("ada"), None])),
            ("gone", texts(&[Some("a"), Some("b")])),
            ("at", at(&[1, 2])),
        ]);
        let rows = conform(&spec(), b"key", &given).unwrap();
        let names: Vec<_> = rows.schema().fields().iter().map(|field| field.name().clone()).collect();
        assert_eq!(names, ["at", "x", "who"]);
        assert_eq!(rows.column(1).null_count(), 2);
        let who = rows.column(2).as_string::<i32>();
        // printf ada | openssl dgst -sha256 -hmac key
        assert_eq!((who.value(0), who.is_null(1)), ("708a727d2475357eaacc4f88c80d7eec", true));
    }

    #[test]
    fn times_of_every_unit_become_microseconds() {
        let millis = TimestampMillisecondArray::from(vec![1_500]).with_timezone("+02:00");
        let rows = conform(&spec(), b"", &batch(vec![("at", Arc::new(millis))])).unwrap();
        assert_eq!(times(&spec(), &rows).unwrap().values()[..], [1_500_000]);
    }

    #[test]
    fn what_does_not_fit_is_refused_by_name() {
        fn check(columns: Vec<(&str, ArrayRef)>, expect: &str) {
            let error = conform(&spec(), b"", &batch(columns)).unwrap_err();
            assert!(error.message().contains(expect), "{error}");
        }
        let real = |value: f64| -> ArrayRef { Arc::new(Float64Array::from(vec![value])) };
        check(vec![("at", at(&[1])), ("y", real(1.0))], "the table has no column `y`");
        check(vec![("x", real(1.0))], "no column `at`, which is required");
        check(vec![("at", at(&[1])), ("x", at(&[1]))], "column `x` holds Int64; the table keeps Float64");
        check(vec![("at", real(1.0))], "column `at` holds Float64");
        check(vec![("at", at(&[TIME_US_END]))], "from the year 1900 to before 2200");
        check(vec![("at", Arc::new(Int64Array::from(vec![None, Some(1)])))], "column `at` misses 1 values of 2");
        let days: Vec<i64> = (0..=APPEND_PARTITIONS_MAX as i64).map(|day| day * 86_400_000_000).collect();
        conform(&spec(), b"", &batch(vec![("at", at(&days[1..]))])).unwrap();
        check(vec![("at", at(&days))], "more than 64 days");
    }
}
