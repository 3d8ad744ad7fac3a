//! Rows that answer a question, and the same as text: JSON and CSV.
//!
//! Owns [`Rows`]. Separate from whatever finds them, because SQL, windows and logs are all shown the same way. Times are written as RFC 3339, missing values are `null` in JSON and empty in CSV; JSON has no NaN and no infinities, they are
//! `null` there too. Bounded by the query's own limits, times the length of a number's digits. On failure: `internal`.

use arrow_array::RecordBatch;
use arrow_schema::SchemaRef;
use mainstay_arrays::Frame;
use mainstay_base::{Error, Result};

use crate::damage::Missing;
use crate::frames;

/// What a question about rows was answered.
#[derive(Clone, Debug)]
pub struct Rows {
    /// Names and types of its columns.
    pub schema: SchemaRef,
    /// Its rows.
    pub batches: Vec<RecordBatch>,
    /// There were more rows than the limits allow.
    pub is_cut: bool,
    /// Rows that the answer misses because files are damaged.
    pub missing: Vec<Missing>,
}

impl Rows {
    /// The rows of a frame, to be written as a query's answer is.
    pub fn of_frame(frame: &Frame, missing: Vec<Missing>) -> Result<Rows> {
        let rows = frames::rows(frame)?;
        Ok(Rows { schema: rows.schema(), batches: vec![rows], is_cut: false, missing })
    }

    /// The rows as a JSON array of objects.
    pub fn json(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut writer = arrow_json::WriterBuilder::new()
            .with_explicit_nulls(true)
            .build::<_, arrow_json::writer::JsonArray>(&mut out);
        self.batches.iter().try_for_each(|batch| writer.write(batch)).map_err(unwritable)?;
        writer.finish().map_err(unwritable)?;
        drop(writer);
        // Without a single row the writer writes nothing at all.
        if out.is_empty() {
            out.extend_from_slice(b"[]");
        }
        Ok(out)
    }

    /// The rows as CSV with a header.
    pub fn csv(&self) -> Result<Vec<u8>> {
        let mut out = Vec::new();
        let mut writer = arrow_csv::WriterBuilder::new().with_header(true).build(&mut out);
        let empty = arrow_array::RecordBatch::new_empty(self.schema.clone());
        let batches = if self.batches.is_empty() { std::slice::from_ref(&empty) } else { &self.batches };
        batches.iter().try_for_each(|batch| writer.write(batch)).map_err(unwritable)?;
        drop(writer);
        Ok(out)
    }
}

fn unwritable(error: arrow_schema::ArrowError) -> Error {
    Error::internal("the answer of a query could not be written as text").with_source(error)
}
