//! Rows that are durable in the store and not yet in a file.
//!
//! Owns the encoding of a piece of rows as one value (a head with version, rows and times, then Arrow's IPC message without
//! its schema, uncompressed, as it is read again within seconds), and reading the pieces of a view. There is no cache of
//! decoded rows: what the store still has in memory is decoded where it lies, without a copy, so the view alone decides
//! what a reader sees, rows of a caller's own transaction included.
//!
//! Bounded by: the store's limit of a value, to which pieces are split; the keys of one table's pending pieces, which
//! back-pressure bounds. On failure: a piece that cannot be decoded is `internal` and names its key; the store's checksums
//! make that a fault of the host, not of the disk.

use std::collections::HashMap;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_ipc::{MetadataVersion, root_as_message};
use bytes::Bytes;
use mainstay_base::{Error, Result};
use mainstay_store::{KeyRange, ScanOptions, View};

use crate::layout;
use crate::limits::{APPEND_BYTES_MAX, PIECE_BYTES_MAX};
use crate::marks::times;
use crate::schema::TableSpec;

/// The first byte of a piece.
const FORMAT: u8 = 1;
/// Format, version of the schema, rows, first and last time, length of the message.
const HEAD_BYTES: usize = 1 + 4 + 4 + 8 + 8 + 4;
/// Keys that one page of a listing has.
const PAGE_KEYS: u32 = 10_000;
/// Buffers begin at a multiple of this inside a piece, as every type that is kept needs it to be read where it lies.
const ALIGN_BYTES: usize = 8;

/// What stands at the beginning of a piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub version: u32,
    pub rows: u32,
    pub min_us: i64,
    pub max_us: i64,
    message_bytes: u32,
}

/// Rows in the table's newest schema, as values for the store.
pub(crate) fn encode(spec: &TableSpec, rows: &RecordBatch) -> Result<Vec<Bytes>> {
    let mut pieces = Vec::new();
    let mut bytes = 0;
    let mut split = |rows: RecordBatch| -> Result<()> {
        let mut waiting = vec![rows];
        while let Some(rows) = waiting.pop() {
            let piece = encode_piece(spec, &rows)?;
            if piece.len() <= PIECE_BYTES_MAX {
                bytes += piece.len();
                pieces.push(Bytes::from(piece));
            } else if rows.num_rows() > 1 {
                let half = rows.num_rows() / 2;
                waiting.push(rows.slice(half, rows.num_rows() - half));
                waiting.push(rows.slice(0, half));
            } else {
                return Err(Error::invalid(format!(
                    "one row takes {} bytes; a row has at most {PIECE_BYTES_MAX}",
                    piece.len()
                )));
            }
            if bytes > APPEND_BYTES_MAX {
                return Err(Error::invalid(format!(
                    "the rows take more than {APPEND_BYTES_MAX} bytes; append them in pieces"
                )));
            }
        }
        Ok(())
    };
    // A first guess, so that large appends are not encoded several times.
    let each = rows.get_array_memory_size().div_ceil(rows.num_rows().max(1)).max(1);
    let step = (PIECE_BYTES_MAX * 3 / 4 / each).max(1);
    for start in (0..rows.num_rows()).step_by(step) {
        split(rows.slice(start, step.min(rows.num_rows() - start)))?;
    }
    Ok(pieces)
}

fn encode_piece(spec: &TableSpec, rows: &RecordBatch) -> Result<Vec<u8>> {
    let failed = |error| Error::internal("rows that were checked cannot be encoded").with_source(error);
    let options = IpcWriteOptions::try_new(ALIGN_BYTES, false, MetadataVersion::V5).map_err(failed)?;
    let (mut dictionaries, mut context) = (DictionaryTracker::new(false), IpcWriteContext::default());
    let (_, encoded) = IpcDataGenerator {}.encode(rows, &mut dictionaries, &options, &mut context).map_err(failed)?;
    let (message, data) = (encoded.ipc_message, encoded.arrow_data);
    let times = times(spec, rows)?.values();
    let min = times.iter().min().copied().unwrap_or_default();
    let max = times.iter().max().copied().unwrap_or_default();
    let mut piece = Vec::with_capacity(HEAD_BYTES + message.len() + ALIGN_BYTES + data.len());
    piece.push(FORMAT);
    piece.extend_from_slice(&spec.version.to_le_bytes());
    piece.extend_from_slice(&(rows.num_rows() as u32).to_le_bytes());
    piece.extend_from_slice(&min.to_le_bytes());
    piece.extend_from_slice(&max.to_le_bytes());
    piece.extend_from_slice(&(message.len() as u32).to_le_bytes());
    piece.extend_from_slice(&message);
    piece.resize(piece.len().next_multiple_of(ALIGN_BYTES), 0);
    piece.extend_from_slice(&data);
    Ok(piece)
}

/// Read what stands at the beginning of a piece.
pub(crate) fn head(piece: &[u8]) -> Result<Head> {
    let parse = || {
        let (format, rest) = piece.split_first()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (rows, rest) = rest.split_first_chunk()?;
        let (min, rest) = rest.split_first_chunk()?;
        let (max, rest) = rest.split_first_chunk()?;
        let (message, _) = rest.split_first_chunk()?;
        (*format == FORMAT).then(|| Head {
            version: u32::from_le_bytes(*version),
            rows: u32::from_le_bytes(*rows),
            min_us: i64::from_le_bytes(*min),
            max_us: i64::from_le_bytes(*max),
            message_bytes: u32::from_le_bytes(*message),
        })
    };
    parse().ok_or_else(|| {
        Error::internal("a piece of pending rows does not begin as one; was it written by a newer host?")
    })
}

/// The rows of a piece, in the schema of the version that wrote them.
pub(crate) fn decode(spec: &TableSpec, piece: &Bytes) -> Result<RecordBatch> {
    let head = head(piece)?;
    let failed = |why: String| Error::internal(format!("a piece of pending rows cannot be decoded: {why}"));
    let message_end = HEAD_BYTES + head.message_bytes as usize;
    let data_at = message_end.next_multiple_of(ALIGN_BYTES);
    let whole = piece.get(HEAD_BYTES..message_end).filter(|_| data_at <= piece.len());
    let message = whole.ok_or_else(|| failed("it is cut short".into()))?;
    let message = root_as_message(message).map_err(|error| failed(error.to_string()))?;
    let batch = message.header_as_record_batch().ok_or_else(|| failed("it holds something else".into()))?;
    let data = Buffer::from(piece.slice(data_at..));
    let schema = spec.arrow(head.version);
    arrow_ipc::reader::read_record_batch(&data, batch, schema, &HashMap::new(), None, &message.version())
        .map_err(|error| failed(error.to_string()))
}

/// Keys of a table's pending pieces in the order of their commits; `most` at most.
pub(crate) fn keys(view: &View, table: &str, most: usize) -> Result<Vec<Vec<u8>>> {
    let ranges = [KeyRange::prefix(&layout::pending(table))];
    let mut options = ScanOptions { keys_only: true, limit: PAGE_KEYS, ..ScanOptions::default() };
    let mut keys = Vec::new();
    loop {
        let page = view.scan(&layout::space(), &ranges, &options)?;
        keys.extend(page.iter().map(|(key, _)| key.to_vec()));
        match page.next {
            Some(next) if keys.len() < most => options.after = Some(next),
            _ => break,
        }
    }
    keys.truncate(most);
    Ok(keys)
}

/// A piece of the view; none when it was listed in another view and is gone.
pub(crate) fn piece(view: &View, key: &[u8]) -> Result<Option<Bytes>> {
    view.get(&layout::space(), key)
}

/// Bytes of a table's pending pieces.
pub(crate) fn bytes(view: &View, table: &str) -> Result<u64> {
    let counter = view.get(&layout::space(), &layout::pending_bytes(table))?;
    let value = counter.and_then(|value| value[..].try_into().ok()).map_or(0, i64::from_le_bytes);
    Ok(value.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BooleanArray, Float64Array, StringArray, TimestampMicrosecondArray};

    use super::*;
    use crate::schema::{ColumnSpec, Kind};

    fn spec() -> TableSpec {
        let columns = vec![
            ColumnSpec::new("at", Kind::Timestamp),
            ColumnSpec::new("x", Kind::F64).nullable(),
            ColumnSpec::new("is", Kind::Bool).nullable(),
            ColumnSpec::new("text", Kind::Text).nullable(),
        ];
        TableSpec::new("at", columns)
    }

    fn rows(count: i64, text: &str) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(TimestampMicrosecondArray::from_iter_values((0..count).map(|at| 7 - at)).with_timezone("UTC")),
            Arc::new(Float64Array::from_iter((0..count).map(|at| (at % 3 != 0).then_some(at as f64)))),
            Arc::new(BooleanArray::from_iter((0..count).map(|at| (at % 5 != 0).then_some(at % 2 == 0)))),
            Arc::new(StringArray::from_iter((0..count).map(|at| (at % 7 != 0).then(|| format!("{text}{at}"))))),
        ];
        RecordBatch::try_new(spec().newest(), columns).unwrap()
    }

    #[test]
    fn what_was_encoded_is_decoded() {
        for count in [1, 2, 63, 1_000] {
            let all = rows(count, "ä");
            // A part of larger buffers: only it may be written.
            for rows in [all.clone(), all.slice(count as usize / 3, count as usize / 2 + 1)] {
                let pieces = encode(&spec(), &rows).unwrap();
                assert_eq!(pieces.len(), 1);
                assert_eq!(decode(&spec(), &pieces[0]).unwrap(), rows);
                let head = head(&pieces[0]).unwrap();
                let times = times(&spec(), &rows).unwrap().values();
                assert_eq!(head.rows as usize, rows.num_rows());
                assert_eq!((head.max_us, head.min_us), (times[0], times[times.len() - 1]));
            }
        }
    }

    #[test]
    fn large_appends_are_split_and_too_large_ones_refused() {
        let wide = "x".repeat(1_000_000);
        let pieces = encode(&spec(), &rows(9, &wide)).unwrap();
        assert!(pieces.len() > 2 && pieces.iter().all(|piece| piece.len() <= PIECE_BYTES_MAX));
        let decoded: Vec<_> = pieces.iter().map(|piece| decode(&spec(), piece).unwrap()).collect();
        assert_eq!(arrow_select::concat::concat_batches(&spec().newest(), &decoded).unwrap(), rows(9, &wide));
        let refused = |rows: &RecordBatch| encode(&spec(), rows).unwrap_err().message().to_owned();
        assert!(refused(&rows(40, &wide)).contains("append them in pieces"));
        assert!(refused(&rows(2, &"x".repeat(PIECE_BYTES_MAX))).contains("one row takes"));
    }

    #[test]
    fn noise_is_an_error() {
        let piece = encode(&spec(), &rows(10, "a")).unwrap().remove(0);
        for cut in 0..piece.len() {
            assert!(decode(&spec(), &piece.slice(..cut)).is_err(), "{cut}");
        }
    }
}
