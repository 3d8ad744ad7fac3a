//! Garbage collection: blobs that nothing refers to, and what crashes and clients left behind.
//!
//! A blob goes in two steps. The first collection that finds no live reference writes a *mark* into its record; a later
//! one, when the mark has stood for the grace time and nobody linked the blob since, removes the record, then the bytes.
//!
//! It cannot race:
//! - a *link*, because the removal commits only if what links leave is unchanged since the view in which no
//!   reference was found, and a link that comes after the removal fails, because it expects the record;
//! - a *put*, because both hold the digest's lock, and a put that found the mark wrote the record anew;
//! - a *crash*: bytes without a record are swept when they are older than the grace time; a record is written only
//!   when its bytes are synced, so there is none without bytes.
//!
//! One process owns a backend; two hosts on one bucket would need a lease.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, StreamExt, TryStreamExt};
use mainstay_base::{Error, ErrorKind, Result};
use object_store::ObjectStore as _;
use object_store::path::Path;

use super::Blobs;
use super::backend::{BLOBS_FOLDER, PARTS_FOLDER, UPLOADS_FOLDER, blob_path, digest_of, failed};
use super::keys::{self, Digest, Mark, Record, all_records, touches, visit_references};
use crate::view::ScanOptions;

/// Blobs judged at once: their commits share disk syncs.
const JUDGED_AT_ONCE: usize = 16;
const RECORDS_PER_PAGE: u32 = 500;
/// Stale references removed in one commit.
const STALE_PER_COMMIT: usize = 1_000;

/// What a collection did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GarbageReport {
    /// Blobs looked at.
    pub examined: u64,
    /// Blobs newly found without references; they go after the grace time.
    pub marked: u64,
    /// Blobs removed.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Blobs left alone because somebody changed them meanwhile.
    pub contended: u64,
    /// Files without a record, left by crashes, that were removed.
    pub orphans: u64,
    /// Temporary objects and abandoned uploads that were removed.
    pub temporaries: u64,
    /// Objects among the blobs whose names are not ours; they are left alone.
    pub foreign: u64,
}

#[derive(Default)]
struct Tally {
    marked: AtomicU64,
    removed: AtomicU64,
    removed_bytes: AtomicU64,
    contended: AtomicU64,
}

impl Blobs {
    /// Remove what nothing refers to; see the module. Safe to run at any time; it gives up at the first failure of the
    /// backend and may be run again.
    pub async fn collect_garbage(&self) -> Result<GarbageReport> {
        let mut report = self.collect_unreferenced().await?;
        self.sweep_orphans(&mut report).await?;
        self.sweep_temporaries(&mut report).await?;
        self.sweep_uploads(&mut report).await?;
        self.sweep_staged(&mut report).await?;
        Ok(report)
    }

    async fn collect_unreferenced(&self) -> Result<GarbageReport> {
        let tally = Tally::default();
        let mut report = GarbageReport::default();
        let mut after = None;
        loop {
            let (digests, next) = self.page_of_records(after)?;
            report.examined += digests.len() as u64;
            stream::iter(digests.into_iter().map(Ok))
                .try_for_each_concurrent(JUDGED_AT_ONCE, |digest| self.judge(digest, &tally))
                .await?;
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        report.marked = tally.marked.into_inner();
        report.removed = tally.removed.into_inner();
        report.removed_bytes = tally.removed_bytes.into_inner();
        report.contended = tally.contended.into_inner();
        Ok(report)
    }

    /// A page of its own view: a view that is held for the length of a collection would hold back the store.
    pub(super) fn page_of_records(&self, after: Option<Vec<u8>>) -> Result<(Vec<Digest>, Option<Vec<u8>>)> {
        let options = ScanOptions { keys_only: true, limit: RECORDS_PER_PAGE, after, ..ScanOptions::default() };
        let page = self.inner.store.view().scan(&keys::space(), &[all_records()], &options)?;
        Ok((page.iter().filter_map(|(key, _)| Digest::of_record_key(key)).collect(), page.next))
    }

    async fn judge(&self, digest: Digest, tally: &Tally) -> Result<()> {
        if self.is_referenced(digest)? {
            return Ok(());
        }
        let blobs = self.clone();
        // In a task of its own: a caller who goes away must not let go of the lock between the commit and the removal.
        let task = tokio::spawn(async move { blobs.judge_locked(digest).await });
        let verdict =
            task.await.map_err(|error| Error::internal("garbage collection was interrupted").with_source(error))?;
        match verdict {
            Ok(Verdict::Kept) => {}
            Ok(Verdict::Marked) => drop(tally.marked.fetch_add(1, Ordering::Relaxed)),
            Ok(Verdict::Removed(bytes)) => {
                tally.removed.fetch_add(1, Ordering::Relaxed);
                tally.removed_bytes.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) if error.kind() == ErrorKind::Conflict => drop(tally.contended.fetch_add(1, Ordering::Relaxed)),
            Err(error) => return Err(error),
        }
        Ok(())
    }

    fn is_referenced(&self, digest: Digest) -> Result<bool> {
        let view = self.inner.store.view();
        let mut is_referenced = false;
        visit_references(&view, digest, None, |reference| {
            is_referenced = reference.is_live(&view, digest)?;
            Ok(!is_referenced)
        })?;
        Ok(is_referenced)
    }

    async fn judge_locked(&self, digest: Digest) -> Result<Verdict> {
        let inner = &self.inner;
        let _lock = inner.locks.lock(digest).await;
        let view = inner.store.view();
        let Some(record) = Record::read(&view, digest)? else { return Ok(Verdict::Kept) };
        let (mut is_referenced, mut stale) = (false, Vec::new());
        visit_references(&view, digest, None, |reference| {
            if reference.is_live(&view, digest)? {
                is_referenced = true;
            } else {
                stale.push(reference.key);
            }
            Ok(!is_referenced && stale.len() < STALE_PER_COMMIT)
        })?;
        if is_referenced {
            return Ok(Verdict::Kept);
        }
        // With more stale references than fit one commit, they are cleared first and the blob waits for the next time.
        let saw_all = stale.len() < STALE_PER_COMMIT;

        let space = keys::space();
        let mut tx = inner.store.begin(&view);
        tx.expect_unchanged(&space, &digest.record_key())?;
        tx.expect_unchanged(&space, &digest.touches_key())?;
        for key in &stale {
            tx.delete(&space, key)?;
        }
        let touches = touches(&view, digest)?;
        let now_ms = inner.clock.now_ms();
        let is_due = record
            .mark
            .is_some_and(|mark| mark.touches == touches && now_ms.saturating_sub(mark.since_ms) >= inner.grace_ms);
        if is_due && saw_all {
            tx.delete(&space, &digest.record_key())?;
            tx.delete(&space, &digest.touches_key())?;
            inner.store.commit(tx).await?;
            inner.backend.remove(&blob_path(digest)).await?;
            return Ok(Verdict::Removed(record.size_bytes));
        }
        if record.mark.is_some_and(|mark| mark.touches == touches) && stale.is_empty() {
            return Ok(Verdict::Kept);
        }
        let mark = Some(Mark { since_ms: now_ms, touches });
        tx.put(&space, &digest.record_key(), Record { mark, ..record }.encode())?;
        inner.store.commit(tx).await?;
        Ok(Verdict::Marked)
    }

    /// Bytes whose record never came, or went before them.
    async fn sweep_orphans(&self, report: &mut GarbageReport) -> Result<()> {
        let mut objects = self.list(BLOBS_FOLDER);
        while let Some((path, modified_ms)) = objects.try_next().await? {
            let Some(digest) = digest_of(&path) else {
                report.foreign += 1;
                continue;
            };
            if !self.is_old(modified_ms) || Record::read(&self.inner.store.view(), digest)?.is_some() {
                continue;
            }
            let blobs = self.clone();
            let task = tokio::spawn(async move { blobs.remove_orphan(digest).await });
            let removed =
                task.await.map_err(|error| Error::internal("garbage collection was interrupted").with_source(error))?;
            report.orphans += u64::from(removed?);
        }
        Ok(())
    }

    async fn remove_orphan(&self, digest: Digest) -> Result<bool> {
        let _lock = self.inner.locks.lock(digest).await;
        // A put may have come between the look and the lock; it has committed by now.
        if Record::read(&self.inner.store.view(), digest)?.is_some() {
            return Ok(false);
        }
        self.inner.backend.remove(&blob_path(digest)).await?;
        Ok(true)
    }

    async fn sweep_temporaries(&self, report: &mut GarbageReport) -> Result<()> {
        let mut objects = self.list(UPLOADS_FOLDER);
        while let Some((path, modified_ms)) = objects.try_next().await? {
            if self.is_old(modified_ms) {
                self.inner.backend.remove(&path).await?;
                report.temporaries += 1;
            }
        }
        Ok(())
    }

    /// Uploads in parts that nobody touched for the grace time.
    async fn sweep_uploads(&self, report: &mut GarbageReport) -> Result<()> {
        let mut newest_ms: BTreeMap<String, i64> = BTreeMap::new();
        let mut objects = self.list(PARTS_FOLDER);
        while let Some((path, modified_ms)) = objects.try_next().await? {
            if let Some(upload) = path.parts().nth(1) {
                let newest = newest_ms.entry(upload.as_ref().to_owned()).or_insert(modified_ms);
                *newest = modified_ms.max(*newest);
            }
        }
        for (upload, newest_ms) in newest_ms {
            if self.is_old(newest_ms) {
                self.sweep_upload(&upload).await?;
                report.temporaries += 1;
            }
        }
        Ok(())
    }

    /// Files that the local store was writing when the process died: it does not list them.
    async fn sweep_staged(&self, report: &mut GarbageReport) -> Result<()> {
        let Some(folder) = self.inner.backend.folder.clone() else { return Ok(()) };
        let oldest_ms = self.inner.clock.now_ms().saturating_sub(self.inner.grace_ms);
        let sweep = move || remove_staged(&folder, oldest_ms);
        let swept = tokio::task::spawn_blocking(sweep).await;
        report.temporaries +=
            swept.map_err(|error| Error::internal("garbage collection was interrupted").with_source(error))??;
        Ok(())
    }

    fn list(&self, folder: &str) -> stream::BoxStream<'static, Result<(Path, i64)>> {
        let folder = Path::from(folder);
        let objects = self.inner.backend.objects.list(Some(&folder));
        objects
            .map(move |object| match object {
                Ok(object) => Ok((object.location, object.last_modified.timestamp_millis())),
                Err(error) => Err(failed("list", &folder, error)),
            })
            .boxed()
    }

    fn is_old(&self, modified_ms: i64) -> bool {
        self.inner.clock.now_ms().saturating_sub(modified_ms) >= self.inner.grace_ms
    }
}

enum Verdict {
    Kept,
    Marked,
    Removed(u64),
}

/// Remove files with a `#` in their name that are older than this; no blob's name has one.
fn remove_staged(folder: &std::path::Path, oldest_ms: i64) -> Result<u64> {
    let mut removed = 0;
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.map_err(|error| Error::io("list", &folder, error))?,
        };
        for entry in entries {
            let entry = entry.map_err(|error| Error::io("list", &folder, error))?;
            // What disappears meanwhile needs no sweeping.
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
                continue;
            }
            let is_staged = entry.file_name().to_string_lossy().contains('#');
            if is_staged && modified_ms(&metadata).is_some_and(|modified| modified <= oldest_ms) {
                std::fs::remove_file(entry.path()).map_err(|error| Error::io("remove", &entry.path(), error))?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}

fn modified_ms(metadata: &std::fs::Metadata) -> Option<i64> {
    let since = metadata.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}
