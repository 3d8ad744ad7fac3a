//! Large immutable bytes, kept once by content, and the plugin's own names for them.
//!
//! Owns the plain types and the reads; names are given through [`Transaction::blobs`](crate::Transaction::blobs). Bodies of
//! requests reach blobs without passing through the plugin: see [`Reply::receive`](crate::http::Reply::receive). Bounded by:
//! 4 MiB a put and a read, 10,000 rows a listing. On failure: the host's typed error; what is not there is `None`.

use crate::{Result, sys};

/// Most bytes of one [`put`] or [`read`].
pub const CALL_BYTES_MAX: usize = 4 << 20;

/// What is known of a blob.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BlobInfo {
    /// Lowercase hexadecimal.
    pub sha256: String,
    /// Lowercase hexadecimal.
    pub md5: String,
    /// How long it is.
    pub size_bytes: u64,
}

/// One row of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A name and its blob.
    Name(String, BlobInfo),
    /// Everything below this prefix, which ends with the delimiter.
    Prefix(String),
}

/// Part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Rows, ordered by name.
    pub entries: Vec<Entry>,
    /// Present when there is more: give it to [`Names::after`].
    pub next: Option<String>,
}

/// Store bytes and say what they are. Present and synced when it returns; link a name or they go after a day.
pub fn put(bytes: &[u8]) -> Result<BlobInfo> {
    sys::blobs_put(bytes)
}

/// Bytes of a blob that one of the plugin's names refers to.
pub fn read(sha256: &str, offset: u64, length: u32) -> Result<Vec<u8>> {
    sys::blobs_read(sha256, offset, length)
}

/// A whole blob of at most 4 MiB, verified against its digest.
pub fn read_all(info: &BlobInfo) -> Result<Vec<u8>> {
    if info.size_bytes > CALL_BYTES_MAX as u64 {
        let message =
            format!("blob {} has {} bytes; read it in parts of 4 MiB or send it", info.sha256, info.size_bytes);
        return Err(crate::Error::invalid(message));
    }
    read(&info.sha256, 0, info.size_bytes as u32)
}

/// What is known of a blob, or none.
pub fn stat(sha256: &str) -> Result<Option<BlobInfo>> {
    sys::blobs_stat(sha256)
}

/// What a name refers to, or none.
pub fn lookup(name: &str) -> Result<Option<BlobInfo>> {
    sys::blobs_lookup(name)
}

/// Names that start with `prefix`, ordered.
///
/// ```
/// # use mainstay_sdk::{blobs::{self, Entry}, transact, testing::Host};
/// # let host = Host::new();
/// # host.enter(|| {
/// let info = blobs::put(b"hello")?;
/// transact(|tx, _| {
///     tx.blobs().link("notes/a.txt", &info.sha256)?;
///     tx.blobs().link("notes/old/b.txt", &info.sha256)
/// })?;
/// let listing = blobs::names("notes/").delimiter("/").list()?;
/// assert_eq!(listing.entries[0], Entry::Name("notes/a.txt".into(), info));
/// assert_eq!(listing.entries[1], Entry::Prefix("notes/old/".into()));
/// # Ok::<(), mainstay_sdk::Error>(())
/// # }).unwrap();
/// ```
pub fn names(prefix: impl Into<String>) -> Names {
    Names { prefix: prefix.into(), delimiter: None, after: None, limit: 10_000 }
}

/// A listing to be run; see [`names`].
#[derive(Clone, Debug)]
#[must_use = "a listing does nothing until it is read"]
pub struct Names {
    prefix: String,
    delimiter: Option<String>,
    after: Option<String>,
    limit: u32,
}

impl Names {
    /// Fold what lies behind the delimiter's next occurrence into one row.
    pub fn delimiter(mut self, delimiter: impl Into<String>) -> Names {
        self.delimiter = Some(delimiter.into());
        self
    }

    /// Go on behind a listing: its [`Listing::next`].
    pub fn after(mut self, next: Option<String>) -> Names {
        self.after = next;
        self
    }

    /// At most so many rows, 1 to 10,000.
    pub fn limit(mut self, rows: u32) -> Names {
        self.limit = rows;
        self
    }

    /// One part of the listing.
    pub fn list(&self) -> Result<Listing> {
        sys::blobs_names(&self.prefix, self.delimiter.as_deref(), self.after.as_deref(), self.limit)
    }

    /// Every row, part by part.
    pub fn all(mut self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        loop {
            let part = self.list()?;
            entries.extend(part.entries);
            match part.next {
                Some(next) => self.after = Some(next),
                None => return Ok(entries),
            }
        }
    }
}
