//! Parquet files of tables: written through the disk's trait, read with checksums.
//!
//! Owns the file's life. It is written and synced before the store lists it; what the store does not list is not there.
//! Its record in the store carries a CRC-32 of the footer and of every column chunk, since Parquet's own are optional and
//! a changed page may decode to other values. They are compared at every read, before anything is decoded: bytes that do not
//! match are damage, never a value. [`StoredFile`] is the handle that readers hold; a file that was replaced goes when the
//! last of them does.
//!
//! Bounded by: one row group at a time is held, and of it only the columns asked for. On failure: [`Fault::Damage`] is for
//! the file (moved aside by [`crate::damage`]), [`Fault::Other`] for this read.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use mainstay_base::{Disk, DiskFile, Error, Result};
use parking_lot::Mutex;
use parquet::arrow::ArrowWriter;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::Statistics;
use parquet::schema::types::ColumnPath;
use serde::{Deserialize, Serialize};

use crate::limits::{GROUP_BYTES_MAX, GROUP_ROWS_MAX};
use crate::schema::{Kind, TableSpec};

/// The last bytes of a file: length of the footer, then the magic number.
const TAIL_BYTES: u64 = 8;
/// What is written at a time.
const WRITE_BYTES: usize = 1 << 20;

/// What the store knows of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    pub rows: u64,
    pub bytes: u64,
    pub min_us: i64,
    pub max_us: i64,
    /// The partition's number.
    pub partition: i64,
    /// The version of the schema that it was written with.
    pub version: u32,
    /// Where the footer begins.
    pub footer_at: u64,
    pub footer_crc: u32,
    /// Of every column chunk, row group by row group.
    pub chunk_crcs: Vec<u32>,
    /// Places of the columns with a value that is not a number: their statistics say nothing of these.
    #[serde(default)]
    pub nan_columns: Vec<usize>,
}

/// Why a file could not be read.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The file is not what was written.
    Damage(String),
    /// Something else; the file may be good.
    Other(Error),
}

fn damage(error: ParquetError) -> Fault {
    Fault::Damage(error.to_string())
}

/// A file that is listed, or was when somebody began to read it.
pub(crate) struct StoredFile {
    pub name: String,
    pub path: PathBuf,
    pub record: FileRecord,
    disk: Arc<dyn Disk>,
    is_replaced: AtomicBool,
    metadata: OnceLock<ArrowReaderMetadata>,
}

impl StoredFile {
    pub fn new(disk: &Arc<dyn Disk>, folder: &Path, name: &str, record: FileRecord) -> StoredFile {
        StoredFile {
            name: name.to_owned(),
            path: folder.join(name),
            record,
            disk: disk.clone(),
            is_replaced: AtomicBool::new(false),
            metadata: OnceLock::new(),
        }
    }

    /// The store no longer lists it: remove it with the last handle.
    pub fn replaced(&self) {
        self.is_replaced.store(true, Ordering::Release);
    }

    /// Open it for reading.
    pub fn open(self: &Arc<StoredFile>) -> Result<FileReader, Fault> {
        let opened = self.disk.open(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Fault::Damage("it is not there".into()),
            _ => Fault::Other(Error::io("open", &self.path, error)),
        })?;
        let length = opened.length().map_err(|error| Fault::Other(Error::io("read", &self.path, error)))?;
        if length != self.record.bytes {
            return Err(Fault::Damage(format!("it has {length} bytes and should have {}", self.record.bytes)));
        }
        let reader = FileReader { file: self.clone(), opened };
        if self.metadata.get().is_none() {
            let metadata = reader.read_metadata()?;
            let _ = self.metadata.set(metadata);
        }
        Ok(reader)
    }
}

impl Drop for StoredFile {
    fn drop(&mut self) {
        if self.is_replaced.load(Ordering::Acquire)
            && let Err(error) = self.disk.remove(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "a replaced file stays until the tables are opened again");
        }
    }
}

/// A file that is open.
pub(crate) struct FileReader {
    pub file: Arc<StoredFile>,
    opened: Box<dyn DiskFile>,
}

impl FileReader {
    fn metadata(&self) -> &ArrowReaderMetadata {
        self.file.metadata.get().expect("it was read when the file was opened")
    }

    fn read(&self, start: u64, bytes: u64) -> Result<Bytes, Fault> {
        let mut buffer = vec![0; bytes as usize];
        let read = self.opened.read_at(&mut buffer, start);
        match read.map_err(|error| Fault::Other(Error::io("read", &self.file.path, error)))? {
            count if count == buffer.len() => Ok(buffer.into()),
            count => Err(Fault::Damage(format!("it ends {} bytes early", buffer.len() - count))),
        }
    }

    fn read_metadata(&self) -> Result<ArrowReaderMetadata, Fault> {
        let record = &self.file.record;
        let footer = self.read(record.footer_at, record.bytes.saturating_sub(record.footer_at))?;
        if crc32fast::hash(&footer) != record.footer_crc {
            return Err(Fault::Damage("its footer does not match its checksum".into()));
        }
        let footer = &footer[..footer.len().saturating_sub(TAIL_BYTES as usize)];
        let metadata = ParquetMetaDataReader::decode_metadata(footer).map_err(damage)?;
        let columns: usize = metadata.row_groups().iter().map(|group| group.num_columns()).sum();
        if columns != record.chunk_crcs.len() {
            return Err(Fault::Damage("its footer has other columns than its record".into()));
        }
        ArrowReaderMetadata::try_new(Arc::new(metadata), ArrowReaderOptions::new()).map_err(damage)
    }

    pub fn schema(&self) -> &SchemaRef {
        self.metadata().schema()
    }

    pub fn groups(&self) -> usize {
        self.metadata().metadata().num_row_groups()
    }

    /// What the footer says of the values of a column in a row group.
    pub fn statistics(&self, group: usize, column: usize) -> Option<&Statistics> {
        self.metadata().metadata().row_group(group).column(column).statistics()
    }

    pub fn group_rows(&self, group: usize) -> usize {
        self.metadata().metadata().row_group(group).num_rows() as usize
    }

    /// These columns of one row group, in chunks of so many rows.
    pub fn group(&self, group: usize, columns: &[usize], rows: usize) -> Result<ParquetRecordBatchReader, Fault> {
        let metadata = self.metadata().metadata();
        let mut parts = Vec::with_capacity(columns.len());
        for &column in columns {
            let (start, bytes) = metadata.row_group(group).column(column).byte_range();
            let part = self.read(start, bytes)?;
            self.compare(group, column, &part)?;
            parts.push((start, part));
        }
        parts.sort_by_key(|(start, _)| *start);
        let parts = Parts { parts, bytes: self.file.record.bytes };
        let mask = ProjectionMask::leaves(metadata.file_metadata().schema_descr(), columns.iter().copied());
        ParquetRecordBatchReaderBuilder::new_with_metadata(parts, self.metadata().clone())
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(rows)
            .build()
            .map_err(damage)
    }

    fn compare(&self, group: usize, column: usize, part: &[u8]) -> Result<(), Fault> {
        let columns = self.metadata().metadata().row_group(group).num_columns();
        if self.file.record.chunk_crcs.get(group * columns + column) != Some(&crc32fast::hash(part)) {
            let name = self.schema().field(column).name();
            return Err(Fault::Damage(format!("column `{name}` of row group {group} does not match its checksum")));
        }
        Ok(())
    }
}

/// Parts of a file that were read, as the decoder asks for them.
struct Parts {
    parts: Vec<(u64, Bytes)>,
    bytes: u64,
}

impl Parts {
    fn from(&self, start: u64) -> parquet::errors::Result<Bytes> {
        let at = self.parts.partition_point(|(first, _)| *first <= start);
        let part = at.checked_sub(1).map(|at| &self.parts[at]);
        let part = part.filter(|(first, part)| start - first <= part.len() as u64);
        let (first, part) =
            part.ok_or_else(|| ParquetError::EOF(format!("byte {start} is outside the columns read")))?;
        Ok(part.slice((start - first) as usize..))
    }
}

impl Length for Parts {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for Parts {
    type T = Reader<Bytes>;

    fn get_read(&self, start: u64) -> parquet::errors::Result<Reader<Bytes>> {
        Ok(self.from(start)?.reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> parquet::errors::Result<Bytes> {
        let rest = self.from(start)?;
        if rest.len() < length {
            return Err(ParquetError::EOF(format!("{length} bytes from {start} reach outside the columns read")));
        }
        Ok(rest.slice(..length))
    }
}

/// A file that is being written; see [`write`].
struct DiskWriter {
    file: Arc<dyn DiskFile>,
    at: u64,
    /// The first error of the disk: the encoder hides its kind.
    failed: Arc<Mutex<Option<io::Error>>>,
}

impl Write for DiskWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Err(error) = self.file.write_at(bytes, self.at) {
            let told = io::Error::from(error.kind());
            self.failed.lock().get_or_insert(error);
            return Err(told);
        }
        self.at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Where a file is written.
pub(crate) struct Target<'a> {
    pub disk: &'a dyn Disk,
    pub folder: &'a Path,
    pub name: &'a str,
}

/// Write rows, which are in the table's newest schema and in the order of time, to a new file; sync it. The folder is for
/// the caller to sync. A file that cannot be written whole is removed.
pub(crate) fn write(
    target: &Target<'_>,
    spec: &TableSpec,
    partition: i64,
    rows: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<FileRecord> {
    let path = target.folder.join(target.name);
    let file: Arc<dyn DiskFile> = target.disk.create(&path).map_err(|error| Error::io("create", &path, error))?.into();
    let written = write_to(&file, &path, spec, partition, rows);
    if written.is_err()
        && let Err(error) = target.disk.remove(&path)
    {
        tracing::warn!(path = %path.display(), %error, "a file that was not finished stays until the tables are opened again");
    }
    written
}

fn write_to(
    file: &Arc<dyn DiskFile>,
    path: &Path,
    spec: &TableSpec,
    partition: i64,
    rows: impl Iterator<Item = Result<RecordBatch>>,
) -> Result<FileRecord> {
    let failed = Arc::new(Mutex::new(None));
    let told = |error: ParquetError| match failed.lock().take() {
        Some(error) => Error::io("write", path, error),
        None => Error::internal(format!("rows cannot be encoded into `{}`", path.display())).with_source(error),
    };
    let sink = DiskWriter { file: file.clone(), at: 0, failed: failed.clone() };
    let sink = BufWriter::with_capacity(WRITE_BYTES, sink);
    let mut writer = ArrowWriter::try_new(sink, spec.newest(), Some(properties(spec))).map_err(told)?;
    let (mut count, mut min_us, mut max_us) = (0, i64::MAX, i64::MIN);
    let mut nan_columns = BTreeSet::new();
    for batch in rows {
        let batch = batch?;
        let times = crate::marks::times(spec, &batch)?.values();
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            debug_assert!(max_us <= *first, "rows are in the order of time");
            (min_us, max_us) = (min_us.min(*first), max_us.max(*last));
        }
        count += batch.num_rows() as u64;
        nan_columns.extend(batch.columns().iter().enumerate().filter(|(_, array)| has_nan(array)).map(|(at, _)| at));
        writer.write(&batch).map_err(told)?;
    }
    let metadata = writer.finish().map_err(told)?;
    writer.inner_mut().flush().map_err(|error| told(error.into()))?;
    drop(writer);
    file.sync().map_err(|error| Error::io("sync", path, error))?;
    let bytes = file.length().map_err(|error| Error::io("read", path, error))?;
    let mut record = FileRecord {
        rows: count,
        bytes,
        min_us,
        max_us,
        partition,
        version: spec.version,
        footer_at: 0,
        footer_crc: 0,
        chunk_crcs: Vec::new(),
        nan_columns: nan_columns.into_iter().collect(),
    };
    add_checksums(&**file, path, &metadata, &mut record)?;
    Ok(record)
}

fn has_nan(array: &ArrayRef) -> bool {
    match array.data_type() {
        DataType::Float64 => array.as_primitive::<Float64Type>().values().iter().any(|value| value.is_nan()),
        DataType::Float32 => array.as_primitive::<Float32Type>().values().iter().any(|value| value.is_nan()),
        _ => false,
    }
}

/// Read back what was written, and note its checksums.
fn add_checksums(file: &dyn DiskFile, path: &Path, metadata: &ParquetMetaData, record: &mut FileRecord) -> Result<()> {
    let read = |start: u64, bytes: u64| -> Result<Vec<u8>> {
        let mut buffer = vec![0; bytes as usize];
        let count = file.read_at(&mut buffer, start).map_err(|error| Error::io("read back", path, error))?;
        if count < buffer.len() {
            return Err(Error::unavailable(format!("`{}` is shorter than what was written to it", path.display())));
        }
        Ok(buffer)
    };
    for group in metadata.row_groups() {
        for column in group.columns() {
            let (start, bytes) = column.byte_range();
            record.chunk_crcs.push(crc32fast::hash(&read(start, bytes)?));
        }
    }
    let tail = read(record.bytes.saturating_sub(TAIL_BYTES), TAIL_BYTES)?;
    let footer_bytes = tail.first_chunk().map_or(0, |length| u64::from(u32::from_le_bytes(*length)));
    record.footer_at = record.bytes.saturating_sub(TAIL_BYTES + footer_bytes);
    record.footer_crc = crc32fast::hash(&read(record.footer_at, record.bytes - record.footer_at)?);
    Ok(())
}

fn properties(spec: &TableSpec) -> WriterProperties {
    let level = ZstdLevel::try_new(1).expect("zstd has level 1");
    let time = spec.stored(spec.version).position(|column| column.name == spec.time).unwrap_or_default();
    let sorting = SortingColumn { column_idx: time as i32, descending: false, nulls_first: false };
    let mut properties = WriterProperties::builder()
        .set_created_by("mainstay".into())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(level))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(Some(GROUP_ROWS_MAX))
        .set_max_row_group_bytes(Some(GROUP_BYTES_MAX))
        .set_sorting_columns(Some(vec![sorting]));
    for column in spec.stored(spec.version) {
        let path = ColumnPath::new(vec![column.name.clone()]);
        // Few reals repeat: looking for those that do costs more than it saves. Times in order are small steps.
        match column.kind {
            Kind::F64 | Kind::F32 => properties = properties.set_column_dictionary_enabled(path, false),
            Kind::Timestamp => {
                properties = properties
                    .set_column_dictionary_enabled(path.clone(), false)
                    .set_column_encoding(path, Encoding::DELTA_BINARY_PACKED);
            }
            Kind::I64 | Kind::I32 | Kind::Bool | Kind::Text => {}
        }
    }
    properties.build()
}
