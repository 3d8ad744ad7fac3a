//! Large immutable bytes, kept once by content, and the names that lead to them.
//!
//! Owns the bytes (in an object store, see `backend.rs`), a record for each blob, and names with their references (in the
//! ordered keys, see `keys.rs`). Separate from the keys because bytes stream: they pass neither through the log nor
//! through a plugin. What belongs together still commits together: linking is part of a transaction.
//!
//! Invariants: no bytes have a blob's name before their digest was checked and they were synced; no record is written
//! before its bytes are in place; a record goes before its bytes do. Every read of a whole blob is verified.
//!
//! Bounded by: the limit that a put is given; a megabyte or two of memory for each put and get, 64 MiB for each part of
//! an upload in parts. On failure: a put leaves nothing visible, and what it leaves behind is swept (`sweep.rs`).

mod backend;
mod check;
mod get;
mod keys;
mod multipart;
mod names;
mod put;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use mainstay_base::{Clock, OsRandom, Random, Result};
use parking_lot::Mutex;

use crate::store::Store;
use backend::Backend;
pub use backend::BlobBackend;
pub use check::BlobsReport;
pub use get::BlobStream;
pub use keys::{BLOB_NAME_BYTES_MAX, check_blob_name, link, refer, release, release_under, unlink};
use keys::{Digest, Record};
pub use multipart::{PART_BYTES_MAX, PARTS_MAX, PartInfo};
pub use names::{LISTING_LIMIT_MAX, Listing, ListingEntry};
pub use put::PutOptions;
pub use sweep::GarbageReport;

/// What is known of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Lowercase hexadecimal.
    pub sha256: String,
    /// Lowercase hexadecimal.
    pub md5: String,
    /// How long it is.
    pub size_bytes: u64,
}

impl BlobInfo {
    fn new(digest: Digest, record: &Record) -> BlobInfo {
        BlobInfo { sha256: digest.to_string(), md5: hex::encode(record.md5), size_bytes: record.size_bytes }
    }
}

/// The blob store. Cheap to clone.
#[derive(Clone)]
pub struct Blobs {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    backend: Backend,
    clock: Arc<dyn Clock>,
    random: Box<dyn Random>,
    grace_ms: i64,
    locks: Locks,
    /// Blobs that were found damaged: reading them verifies every byte before the first is handed out.
    suspects: Mutex<HashSet<Digest>>,
}

impl Blobs {
    /// Open the blobs of a store. `grace` is how long a blob that nothing refers to is kept.
    pub fn open(store: Store, backend: BlobBackend, clock: Arc<dyn Clock>, grace: Duration) -> Result<Blobs> {
        let inner = Inner {
            store,
            backend: Backend::open(backend)?,
            clock,
            random: Box::new(OsRandom),
            grace_ms: i64::try_from(grace.as_millis()).unwrap_or(i64::MAX),
            locks: Locks::default(),
            suspects: Mutex::default(),
        };
        Ok(Blobs { inner: Arc::new(inner) })
    }

    /// What is known of a blob, or none.
    pub fn stat(&self, sha256: &str) -> Result<Option<BlobInfo>> {
        let digest = Digest::parse(sha256)?;
        let record = Record::read(&self.inner.store.view(), digest)?;
        Ok(record.map(|record| BlobInfo::new(digest, &record)))
    }
}

impl Inner {
    /// How many damaged blobs are remembered; beyond that, a damaged one is noticed at its end.
    const SUSPECTS_MAX: usize = 10_000;

    fn suspect(&self, digest: Digest) {
        let mut suspects = self.suspects.lock();
        if suspects.len() < Inner::SUSPECTS_MAX {
            suspects.insert(digest);
        }
    }

    fn is_suspect(&self, digest: Digest) -> bool {
        self.suspects.lock().contains(&digest)
    }

    fn clear_suspicion(&self, digest: Digest) {
        self.suspects.lock().remove(&digest);
    }
}

/// A lock for each digest: 256 of them, by the first byte.
struct Locks {
    locks: Vec<Arc<tokio::sync::Mutex<()>>>,
}

impl Default for Locks {
    fn default() -> Locks {
        Locks { locks: (0..=u8::MAX).map(|_| Arc::default()).collect() }
    }
}

impl Locks {
    async fn lock(&self, digest: Digest) -> tokio::sync::OwnedMutexGuard<()> {
        self.locks[usize::from(digest.0[0])].clone().lock_owned().await
    }
}
