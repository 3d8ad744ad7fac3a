//! Between rows as Arrow has them and frames as kernels take them.
//!
//! Owns both directions. Numbers and truth values pass without a copy, times as whole numbers of microseconds without one;
//! text is a dictionary in a frame and plain in a table. Separate because appending and reading both need it.
//!
//! Bounded by what is given. On failure: `invalid` where a frame cannot be rows.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, TimestampMicrosecondType};
use arrow_array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow_schema::{DataType, Field, Schema};
use mainstay_arrays::{Column, Frame, ValueType};
use mainstay_base::{Error, Result};

/// The columns of these rows.
pub(crate) fn frame(rows: &RecordBatch) -> Result<Frame> {
    let schema = rows.schema();
    let pairs = schema.fields().iter().zip(rows.columns());
    let columns = pairs.map(|(field, array)| Ok((field.name().as_str().into(), column(array)?)));
    Frame::new(columns.collect::<Result<_>>()?)
}

fn column(array: &ArrayRef) -> Result<Column> {
    match array.data_type() {
        DataType::Utf8 => Ok(Column::text(array.as_string::<i32>())),
        DataType::Timestamp(..) => {
            let times = array.as_primitive::<TimestampMicrosecondType>().reinterpret_cast::<Int64Type>();
            Column::from_arrow(ValueType::I64, vec![Arc::new(times)])
        }
        other => {
            let kind = ValueType::of_arrow(other);
            let kind = kind.ok_or_else(|| Error::internal(format!("a table with a column of Arrow's type {other}")))?;
            Column::from_arrow(kind, vec![array.clone()])
        }
    }
}

/// The rows of these columns; those in several chunks are joined by a copy.
pub(crate) fn rows(frame: &Frame) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (name, column) in frame.columns() {
        let array = match column.arrow() {
            [only] => only.clone(),
            [] => arrow_array::new_empty_array(&column.value_type().arrow()),
            chunks => {
                let chunks: Vec<&dyn arrow_array::Array> = chunks.iter().map(|chunk| &**chunk).collect();
                arrow_select::concat::concat(&chunks).map_err(|error| {
                    Error::invalid(format!("the chunks of column `{name}` cannot be joined; append them in pieces"))
                        .with_source(error)
                })?
            }
        };
        fields.push(Field::new(&**name, array.data_type().clone(), true));
        columns.push(array);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(frame.rows()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)
        .map_err(|error| Error::invalid("the columns are no rows").with_source(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_of_several_chunks_is_rows() {
        let whole = Column::concat(&[Column::i64(&[1, 2], None), Column::i64(&[3], Some(&[false]))]).unwrap();
        let texts = Column::concat(&[Column::text([Some("a"), None]), Column::text([Some("b")])]).unwrap();
        let given = Frame::new(vec![("n".into(), whole), ("t".into(), texts)]).unwrap();
        let rows = rows(&given).unwrap();
        assert_eq!((rows.num_rows(), rows.column(0).null_count(), rows.column(1).null_count()), (3, 1, 1));
        assert_eq!(frame(&rows).unwrap().column("n").unwrap().read_numbers(0, 2).unwrap(), [1.0, 2.0]);
    }
}
