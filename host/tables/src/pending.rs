//! Rows that are durable in the store and not yet in a file.
//!
//! Owns the encoding of a piece of rows as one value (a head with version, rows, times, lengths and checksums, then Arrow's
//! IPC message without its schema, uncompressed, as it is read again within seconds), and reading the pieces of a view. There
//! is no cache of decoded rows: what the store still has in memory is decoded where it lies, without a copy, so the view
//! alone decides what a reader sees, rows of a caller's own transaction included.
//!
//! The checksums are our own though the store has its own too: Arrow's decoder trusts the lengths that it finds and panics
//! where they lie, so it is given nothing that is not exactly what was encoded.
//!
//! Bounded by: the store's limit of a value, to which pieces are split; the keys of one table's pending pieces, which
//! back-pressure bounds. On failure: a piece that cannot be decoded is `internal` and names its table and its key.

use std::collections::HashMap;

use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_ipc::{MetadataVersion, root_as_message};
use bytes::Bytes;
use mainstay_base::{Error, Result};
use mainstay_store::limits::APPEND_SUFFIX_BYTES;
use mainstay_store::{KeyRange, ScanOptions, View};

use crate::layout::{self, TableId};
use crate::limits::{APPEND_BYTES_MAX, PIECE_BYTES_MAX};
use crate::marks::times;
use crate::schema::TableSpec;

/// The first byte of a piece.
const FORMAT: u8 = 1;
/// Format, version of the schema, rows, first and last time, length of the message and of the data, checksum of both,
/// checksum of all these.
const HEAD_BYTES: usize = 1 + 4 + 4 + 8 + 8 + 4 + 4 + 4 + 4;
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
    data_bytes: u32,
    body_crc: u32,
}

impl Head {
    fn to_bytes(self) -> [u8; HEAD_BYTES] {
        let mut bytes = Vec::with_capacity(HEAD_BYTES);
        bytes.push(FORMAT);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.rows.to_le_bytes());
        bytes.extend_from_slice(&self.min_us.to_le_bytes());
        bytes.extend_from_slice(&self.max_us.to_le_bytes());
        bytes.extend_from_slice(&self.message_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.data_bytes.to_le_bytes());
        bytes.extend_from_slice(&self.body_crc.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.try_into().expect("the parts are as long as the whole")
    }

    /// None when it is not a head that was written here.
    fn parse(piece: &[u8]) -> Option<Head> {
        let (head, _) = piece.split_first_chunk::<HEAD_BYTES>()?;
        let (fields, crc) = head.split_last_chunk()?;
        let (format, rest) = fields.split_first()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (rows, rest) = rest.split_first_chunk()?;
        let (min, rest) = rest.split_first_chunk()?;
        let (max, rest) = rest.split_first_chunk()?;
        let (message, rest) = rest.split_first_chunk()?;
        let (data, rest) = rest.split_first_chunk()?;
        let (body_crc, _) = rest.split_first_chunk()?;
        let is_whole = *format == FORMAT && crc32fast::hash(fields) == u32::from_le_bytes(*crc);
        is_whole.then(|| Head {
            version: u32::from_le_bytes(*version),
            rows: u32::from_le_bytes(*rows),
            min_us: i64::from_le_bytes(*min),
            max_us: i64::from_le_bytes(*max),
            message_bytes: u32::from_le_bytes(*message),
            data_bytes: u32::from_le_bytes(*data),
            body_crc: u32::from_le_bytes(*body_crc),
        })
    }

    /// Where the data begins.
    fn data_at(&self) -> usize {
        (HEAD_BYTES + self.message_bytes as usize).next_multiple_of(ALIGN_BYTES)
    }
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
    let mut body = Vec::with_capacity(message.len() + ALIGN_BYTES + data.len());
    body.extend_from_slice(&message);
    body.resize((HEAD_BYTES + message.len()).next_multiple_of(ALIGN_BYTES) - HEAD_BYTES, 0);
    body.extend_from_slice(&data);
    let head = Head {
        version: spec.version,
        rows: rows.num_rows() as u32,
        min_us: min,
        max_us: max,
        message_bytes: message.len() as u32,
        data_bytes: data.len() as u32,
        body_crc: crc32fast::hash(&body),
    };
    Ok([&head.to_bytes()[..], &body].concat())
}

/// Read what stands at the beginning of a piece.
pub(crate) fn head(piece: &[u8]) -> Result<Head> {
    Head::parse(piece).ok_or_else(|| {
        Error::internal(
            "it does not begin as a piece of pending rows; was it written by a newer host, or is it damaged?",
        )
    })
}

/// The rows of a piece, in the schema of the version that wrote them.
pub(crate) fn decode(spec: &TableSpec, piece: &Bytes) -> Result<RecordBatch> {
    let head = head(piece)?;
    let failed = |why: &str| Error::internal(format!("it cannot be decoded: {why}"));
    if piece.len() != head.data_at() + head.data_bytes as usize {
        return Err(failed("it is cut short, or longer than it says"));
    }
    if crc32fast::hash(&piece[HEAD_BYTES..]) != head.body_crc {
        return Err(failed("it does not match its checksum"));
    }
    if head.version > spec.version {
        return Err(failed("it is of a version that the table has not had"));
    }
    let message = root_as_message(&piece[HEAD_BYTES..HEAD_BYTES + head.message_bytes as usize]);
    let message = message.map_err(|error| failed(&error.to_string()))?;
    let batch = message.header_as_record_batch().ok_or_else(|| failed("it holds something else"))?;
    let data = Buffer::from(piece.slice(head.data_at()..));
    let schema = spec.arrow(head.version);
    arrow_ipc::reader::read_record_batch(&data, batch, schema, &HashMap::new(), None, &message.version())
        .map_err(|error| failed(&error.to_string()))
}

/// Say which piece of which table an error is about.
pub(crate) fn named<T>(table: &str, key: &[u8], result: Result<T>) -> Result<T> {
    let suffix = key.get(key.len().saturating_sub(APPEND_SUFFIX_BYTES)..).unwrap_or_default();
    result
        .map_err(|error| error.context(format!("piece {} of the pending rows of table `{table}`", hex::encode(suffix))))
}

/// Keys of a table's pending pieces in the order of their commits; `most` at most.
pub(crate) fn keys(view: &View, table: TableId, most: usize) -> Result<Vec<Vec<u8>>> {
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

/// A piece that the view lists.
pub(crate) fn piece(view: &View, key: &[u8]) -> Result<Bytes> {
    let piece = view.get(&layout::space(), key)?;
    piece.ok_or_else(|| Error::internal("it is listed and not there; this is a fault of the host"))
}

/// Bytes of a table's pending pieces.
pub(crate) fn bytes(view: &View, table: TableId) -> Result<u64> {
    let counter = view.get(&layout::space(), &layout::pending_bytes(table))?;
    let value = counter.and_then(|value| value[..].try_into().ok()).map_or(0, i64::from_le_bytes);
    Ok(value.max(0) as u64)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow_array::{ArrayRef, BooleanArray, Float64Array, StringArray, TimestampMicrosecondArray};
    use mainstay_base::ErrorKind;

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
        for at in 0..piece.len() {
            let mut changed = piece.to_vec();
            changed[at] ^= 1 << (at % 8);
            assert!(decode(&spec(), &changed.into()).is_err(), "{at}");
        }
        let longer = [&piece[..], &[0]].concat();
        let error = named("t", &[7; 20], decode(&spec(), &longer.into())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().starts_with("piece 07070707070707070707 of the pending rows of table `t`: it cannot"));
    }
}
