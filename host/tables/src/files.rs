//! Parquet files of tables, read with checksums.
//!
//! Owns the file's life once it is written ([`crate::encode`]); what the store does not list is not there. Its record in the store carries a CRC-32 of the footer and of every column chunk, since Parquet's own are optional and
//! a changed page may decode to other values. They are compared at every read, before anything is decoded: bytes that do not
//! match are damage, never a value. [`StoredFile`] is the handle that readers hold; a file that was replaced goes when the
//! last of them does.
//!
//! Bounded by: one row group at a time is held, and of it only the columns asked for. On failure: [`Fault::Damage`] is for
//! the file (moved aside by [`crate::damage`]), [`Fault::Other`] for this read.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use arrow_schema::SchemaRef;
use bytes::buf::Reader;
use bytes::{Buf, Bytes};
use mainstay_base::{Disk, DiskFile, Error, Result};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaDataReader, RowGroupMetaData};
use parquet::file::reader::{ChunkReader, Length};
use parquet::file::statistics::Statistics;
use serde::{Deserialize, Serialize};

use crate::prune::integer_bounds;
use crate::schema::TextForm;

/// The last bytes of a file: length of the footer, then the magic number.
pub(crate) const TAIL_BYTES: u64 = 8;

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

pub(crate) fn damage(error: ParquetError) -> Fault {
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
    /// The same, for decoding texts to views.
    metadata_of_views: OnceLock<ArrowReaderMetadata>,
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
            metadata_of_views: OnceLock::new(),
        }
    }

    /// The store no longer lists it: remove it with the last handle.
    pub fn replaced(&self) {
        self.is_replaced.store(true, Ordering::Release);
    }

    /// Open it for reading, with texts laid out as asked.
    pub fn open(self: &Arc<StoredFile>, text: TextForm) -> Result<FileReader, Fault> {
        let opened = self.disk.open(&self.path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Fault::Damage("it is not there".into()),
            _ => Fault::Other(Error::io("open", &self.path, error)),
        })?;
        let length = opened.length().map_err(|error| Fault::Other(Error::io("read", &self.path, error)))?;
        if length != self.record.bytes {
            return Err(Fault::Damage(format!("it has {length} bytes and should have {}", self.record.bytes)));
        }
        let reader = FileReader { file: self.clone(), opened, text };
        if self.metadata.get().is_none() {
            let metadata = reader.read_metadata()?;
            let _ = self.metadata.set(metadata);
        }
        if text == TextForm::Views && self.metadata_of_views.get().is_none() {
            let plain = self.metadata.get().expect("it was just read");
            let options = ArrowReaderOptions::new().with_schema(text.of(plain.schema()));
            let views = ArrowReaderMetadata::try_new(plain.metadata().clone(), options).map_err(damage)?;
            let _ = self.metadata_of_views.set(views);
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
    text: TextForm,
}

impl FileReader {
    fn metadata(&self) -> &ArrowReaderMetadata {
        let metadata = match self.text {
            TextForm::Plain => &self.file.metadata,
            TextForm::Views => &self.file.metadata_of_views,
        };
        metadata.get().expect("it was read when the file was opened")
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

    /// What the footer says of a row group.
    pub fn row_group(&self, group: usize) -> &RowGroupMetaData {
        self.metadata().metadata().row_group(group)
    }

    /// First and last time of a row group.
    pub fn times_of(&self, group: usize, time: &str) -> Result<(i64, i64), Fault> {
        let column = self.schema().index_of(time).map_err(|_| Fault::Damage("it has no time column".into()))?;
        integer_bounds(self, group, column).ok_or_else(|| Fault::Damage("its footer does not say its times".into()))
    }

    pub fn group_rows(&self, group: usize) -> usize {
        self.metadata().metadata().row_group(group).num_rows() as usize
    }

    /// These columns of one row group, in chunks of so many rows.
    pub fn group(&self, group: usize, columns: &[usize], rows: usize) -> Result<ParquetRecordBatchReader, Fault> {
        let metadata = self.metadata().metadata();
        let parts = self.parts(group, columns)?;
        let mask = ProjectionMask::leaves(metadata.file_metadata().schema_descr(), columns.iter().copied());
        ParquetRecordBatchReaderBuilder::new_with_metadata(parts, self.metadata().clone())
            .with_row_groups(vec![group])
            .with_projection(mask)
            .with_batch_size(rows)
            .build()
            .map_err(damage)
    }

    /// The encoded columns of one row group, as they were written.
    pub fn parts(&self, group: usize, columns: &[usize]) -> Result<Parts, Fault> {
        let mut parts = Vec::with_capacity(columns.len());
        for &column in columns {
            let (start, bytes) = self.row_group(group).column(column).byte_range();
            let part = self.read(start, bytes)?;
            self.compare(group, column, &part)?;
            parts.push((start, part));
        }
        parts.sort_by_key(|(start, _)| *start);
        Ok(Parts { parts, bytes: self.file.record.bytes })
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
pub(crate) struct Parts {
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
