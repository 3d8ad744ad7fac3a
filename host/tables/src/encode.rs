//! Writing Parquet files, through the disk's trait.
//!
//! Owns the way from rows, and from row groups of other files, to a synced file and its record. Rows are held until they are a
//! row group and are then encoded column by column, on several threads where there are cores to spare. A row group that is
//! good as it is passes as it lies, without being decoded: that is most of what merging does. Separate from reading
//! ([`crate::files`]), which shares only the record.
//!
//! Rows of one row group are in the order of time. Row groups are in the order of their first times, and those that were
//! taken over may overlap a little.
//!
//! Bounded by: one row group of decoded rows. On failure: the file is removed; nobody lists it.

use std::collections::BTreeSet;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Float32Type, Float64Type};
use arrow_array::{ArrayRef, RecordBatch};
use arrow_schema::{DataType, SchemaRef};
use mainstay_base::{Disk, DiskFile, Error, Result};
use parking_lot::Mutex;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::{ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves};
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::column::writer::ColumnCloseResult;
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use crate::files::{Fault, FileReader, FileRecord, TAIL_BYTES};
use crate::limits::{ENCODE_THREADS_MAX, GROUP_BYTES_MAX, GROUP_ROWS_MAX};
use crate::marks::times;
use crate::schema::{Kind, TableSpec};

/// What is written at a time.
const WRITE_BYTES: usize = 1 << 20;

/// Where a file is written.
pub(crate) struct Target<'a> {
    pub disk: &'a dyn Disk,
    pub folder: &'a Path,
    pub name: &'a str,
}

/// Write a file of what `fill` gives the encoder, in row groups of so many rows, and sync it. The folder is for the caller to
/// sync. A file that cannot be written whole is removed.
pub(crate) fn write<E: From<Error>>(
    target: &Target<'_>,
    spec: &TableSpec,
    partition: i64,
    group_rows: usize,
    fill: impl FnOnce(&mut Encoder) -> Result<(), E>,
) -> Result<FileRecord, E> {
    let path = target.folder.join(target.name);
    let file: Arc<dyn DiskFile> = target.disk.create(&path).map_err(|error| Error::io("create", &path, error))?.into();
    let written = Encoder::begin(&file, &path, spec, group_rows).map_err(E::from).and_then(|mut encoder| {
        fill(&mut encoder)?;
        Ok(encoder.end(partition)?)
    });
    if written.is_err()
        && let Err(error) = target.disk.remove(&path)
    {
        tracing::warn!(path = %path.display(), %error, "a file that was not finished stays until the tables are opened again");
    }
    written
}

/// A file that is being written.
pub(crate) struct Encoder {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    spec: TableSpec,
    schema: SchemaRef,
    writer: SerializedFileWriter<BufWriter<DiskWriter>>,
    columns: ArrowRowGroupWriterFactory,
    failed: Arc<Mutex<Option<io::Error>>>,
    /// Rows of one row group.
    group_rows: usize,
    /// Rows that are not yet encoded.
    held: Vec<RecordBatch>,
    held_rows: usize,
    held_bytes: usize,
    rows: u64,
    min_us: i64,
    max_us: i64,
    nan_columns: BTreeSet<usize>,
}

impl Encoder {
    fn begin(file: &Arc<dyn DiskFile>, path: &Path, spec: &TableSpec, group_rows: usize) -> Result<Encoder> {
        let failed = Arc::new(Mutex::new(None));
        let sink = DiskWriter { file: file.clone(), at: 0, failed: failed.clone() };
        let sink = BufWriter::with_capacity(WRITE_BYTES, sink);
        let begun = ArrowWriter::try_new(sink, spec.newest(), Some(properties(spec)))
            .and_then(ArrowWriter::into_serialized_writer)
            .map_err(|error| told(&failed, path, error))?;
        let (writer, columns) = begun;
        Ok(Encoder {
            file: file.clone(),
            path: path.to_owned(),
            spec: spec.clone(),
            schema: spec.newest(),
            writer,
            columns,
            failed,
            group_rows: group_rows.clamp(1, GROUP_ROWS_MAX),
            held: Vec::new(),
            held_rows: 0,
            held_bytes: 0,
            rows: 0,
            min_us: i64::MAX,
            max_us: i64::MIN,
            nan_columns: BTreeSet::new(),
        })
    }

    /// Add rows in the table's newest schema, none earlier than those before since the last row group was taken over.
    pub fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let times = times(&self.spec, rows)?.values();
        if let (Some(first), Some(last)) = (times.first(), times.last()) {
            debug_assert!(times.is_sorted(), "rows are in the order of time");
            (self.min_us, self.max_us) = (self.min_us.min(*first), self.max_us.max(*last));
        }
        self.rows += rows.num_rows() as u64;
        self.nan_columns
            .extend(rows.columns().iter().enumerate().filter(|(_, array)| has_nan(array)).map(|(at, _)| at));
        let mut rest = rows.clone();
        while rest.num_rows() > 0 {
            let count = rest.num_rows().min(self.group_rows - self.held_rows);
            let part = rest.slice(0, count);
            rest = rest.slice(count, rest.num_rows() - count);
            self.held_rows += count;
            // Slices say the size of what they are slices of.
            self.held_bytes += rows.get_array_memory_size() / rows.num_rows().max(1) * count;
            self.held.push(part);
            if self.held_rows == self.group_rows || self.held_bytes >= GROUP_BYTES_MAX {
                self.encode_held()?;
            }
        }
        Ok(())
    }

    /// Take a row group of another file over as it lies there; the file has the table's newest schema.
    pub fn take_over(&mut self, reader: &FileReader, group: usize) -> Result<(), Fault> {
        self.encode_held().map_err(Fault::Other)?;
        let from = reader.row_group(group);
        let columns: Vec<usize> = (0..from.num_columns()).collect();
        let parts = reader.parts(group, &columns)?;
        let copied = self.writer.next_row_group().and_then(|mut writer| {
            for column in from.columns() {
                let close = ColumnCloseResult {
                    bytes_written: column.compressed_size().unsigned_abs(),
                    rows_written: from.num_rows().unsigned_abs(),
                    metadata: column.clone(),
                    bloom_filter: None,
                    column_index: None,
                    offset_index: None,
                };
                writer.append_column(&parts, close)?;
            }
            writer.close()
        });
        copied.map_err(|error| Fault::Other(told(&self.failed, &self.path, error)))?;
        let record = &reader.file.record;
        self.rows += from.num_rows().unsigned_abs();
        self.nan_columns.extend(&record.nan_columns);
        let (min_us, max_us) = reader.times_of(group, &self.spec.time)?;
        (self.min_us, self.max_us) = (self.min_us.min(min_us), self.max_us.max(max_us));
        Ok(())
    }

    /// Make a row group of what is held.
    fn encode_held(&mut self) -> Result<()> {
        if self.held_rows == 0 {
            return Ok(());
        }
        let held = std::mem::take(&mut self.held);
        (self.held_rows, self.held_bytes) = (0, 0);
        let group = self.writer.flushed_row_groups().len();
        let encoded = self
            .columns
            .create_column_writers(group)
            .and_then(|writers| encoded(&self.schema, &held, writers))
            .and_then(|chunks| {
                let mut writer = self.writer.next_row_group()?;
                chunks.into_iter().try_for_each(|chunk| chunk.append_to_row_group(&mut writer))?;
                writer.close()
            });
        encoded.map(drop).map_err(|error| told(&self.failed, &self.path, error))
    }

    fn end(mut self, partition: i64) -> Result<FileRecord> {
        self.encode_held()?;
        let metadata = self.writer.finish().map_err(|error| told(&self.failed, &self.path, error))?;
        let flushed = self.writer.inner_mut().flush();
        flushed.map_err(|error| told(&self.failed, &self.path, error.into()))?;
        self.file.sync().map_err(|error| Error::io("sync", &self.path, error))?;
        let bytes = self.file.length().map_err(|error| Error::io("read", &self.path, error))?;
        let mut record = FileRecord {
            rows: self.rows,
            bytes,
            min_us: self.min_us,
            max_us: self.max_us,
            partition,
            version: self.spec.version,
            footer_at: 0,
            footer_crc: 0,
            chunk_crcs: Vec::new(),
            nan_columns: self.nan_columns.into_iter().collect(),
        };
        add_checksums(&*self.file, &self.path, &metadata, &mut record)?;
        Ok(record)
    }
}

/// What went wrong: the disk's own error where there was one.
fn told(failed: &Mutex<Option<io::Error>>, path: &Path, error: ParquetError) -> Error {
    match failed.lock().take() {
        Some(error) => Error::io("write", path, error),
        None => Error::internal(format!("rows cannot be encoded into `{}`", path.display())).with_source(error),
    }
}

/// The columns of some batches, each encoded; side by side where there are cores to spare.
fn encoded(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    writers: Vec<ArrowColumnWriter>,
) -> parquet::errors::Result<Vec<ArrowColumnChunk>> {
    let one = |at: usize, mut writer: ArrowColumnWriter| {
        for batch in batches {
            for leaf in compute_leaves(schema.field(at), batch.column(at))? {
                writer.write(&leaf)?;
            }
        }
        writer.close()
    };
    let threads =
        std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 4).clamp(1, ENCODE_THREADS_MAX));
    let mut work: Vec<(usize, ArrowColumnWriter)> = writers.into_iter().enumerate().collect();
    if threads == 1 {
        return work.into_iter().map(|(at, writer)| one(at, writer)).collect();
    }
    // By turns, as columns of one kind often stand together.
    let mut shares: Vec<Vec<(usize, ArrowColumnWriter)>> = (0..threads).map(|_| Vec::new()).collect();
    for (turn, column) in work.drain(..).enumerate() {
        shares[turn % threads].push(column);
    }
    let mut done = std::thread::scope(|scope| {
        let begun = shares.into_iter().map(|share| {
            scope.spawn(|| {
                let share = share.into_iter().map(|(at, writer)| Ok((at, one(at, writer)?)));
                share.collect::<parquet::errors::Result<Vec<_>>>()
            })
        });
        let begun: Vec<_> = begun.collect();
        let ended = begun.into_iter().map(|thread| {
            thread.join().unwrap_or_else(|_| Err(ParquetError::General("encoding a column panicked".into())))
        });
        ended
            .collect::<parquet::errors::Result<Vec<_>>>()
            .map(|shares| shares.into_iter().flatten().collect::<Vec<_>>())
    })?;
    done.sort_by_key(|(at, _)| *at);
    Ok(done.into_iter().map(|(_, chunk)| chunk).collect())
}

/// Where the encoder writes to.
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
