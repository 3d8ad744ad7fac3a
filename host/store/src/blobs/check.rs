//! Looking for damage before somebody asks for a blob.
//!
//! Owns the walk over all records: that each blob's bytes are there and as many as they should be, and, when asked for, that
//! they have its digest. Separate because it is for the doctor alone. It changes nothing and holds one page of records at a
//! time; the report names at most [`NAMED_MAX`] blobs and counts the others.

use mainstay_base::Result;

use super::Blobs;
use super::backend::blob_path;
use super::keys::Record;
use crate::damage::DamagedBlob;

/// The most damaged blobs that a report names.
const NAMED_MAX: usize = 20;

/// What a walk over all blobs found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlobsReport {
    /// How many blobs there are.
    pub blobs: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// How many of them are damaged.
    pub damaged: u64,
    /// The first of them.
    pub named: Vec<DamagedBlob>,
}

impl Blobs {
    /// See that all blobs are there and have their length; with `deep`, read them and see that they have their digest.
    pub async fn check(&self, deep: bool) -> Result<BlobsReport> {
        let mut report = BlobsReport::default();
        let mut after = None;
        loop {
            let (digests, next) = self.page_of_records(after)?;
            for digest in digests {
                // One that was collected meanwhile needs no check.
                let Some(record) = Record::read(&self.inner.store.view(), digest)? else { continue };
                report.blobs += 1;
                report.bytes += record.size_bytes;
                let what = match self.inner.backend.size_of(&blob_path(digest)).await? {
                    None => "its bytes are missing".to_owned(),
                    Some(found) if found != record.size_bytes => {
                        format!("it has {found} bytes instead of {}", record.size_bytes)
                    }
                    Some(_) if deep => match self.read_through(digest, record.size_bytes).await {
                        Ok(()) => continue,
                        Err(error) => match DamagedBlob::of(&error) {
                            Some(damage) => damage.what.clone(),
                            None => error.message().to_owned(),
                        },
                    },
                    Some(_) => continue,
                };
                report.damaged += 1;
                if report.named.len() < NAMED_MAX {
                    report.named.push(DamagedBlob { sha256: digest.to_string(), what });
                }
            }
            match next {
                Some(next) => after = Some(next),
                None => return Ok(report),
            }
        }
    }
}
