//! Where the bytes lie: paths inside an object store, and what its errors mean.
//!
//! A blob lies under `sha256/<first two digits>/<digest>`. What is not yet a blob lies under `uploads/` and `parts/` and is
//! never read as one: it becomes visible by one rename, after its digest was checked. The local store syncs files, then
//! renames, then syncs folders (its default is not to, so [`Backend::open`] says so); the folders themselves are made and
//! synced when it is opened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_base::{Error, ErrorKind, Random, Result};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};

use super::keys::Digest;

/// Where blobs are kept.
#[derive(Clone)]
pub enum BlobBackend {
    /// A folder of this machine; created if it is not there. One process at a time.
    Local {
        /// The folder.
        folder: PathBuf,
    },
    /// Such a folder as it lies there, for checks: nothing is made or cleared, and nothing may be put. One that is not there
    /// is empty.
    LocalAsItIs {
        /// The folder.
        folder: PathBuf,
    },
    /// Any object store, for example a bucket.
    Store(Arc<dyn ObjectStore>),
}

pub(super) const BLOBS_FOLDER: &str = "sha256";
pub(super) const UPLOADS_FOLDER: &str = "uploads";
pub(super) const PARTS_FOLDER: &str = "parts";

/// How much of an upload is held in memory at once for each part; buckets ask for at least 5 MiB.
const LOCAL_PART_BYTES: usize = 1 << 20;
const REMOTE_PART_BYTES: usize = 8 << 20;

/// An opened backend.
pub(super) struct Backend {
    pub objects: Arc<dyn ObjectStore>,
    /// The folder, when it is local: crashes leave files there that the object store does not list.
    pub folder: Option<PathBuf>,
    pub part_bytes: usize,
}

impl Backend {
    pub fn open(backend: BlobBackend) -> Result<Backend> {
        match backend {
            BlobBackend::Store(objects) => Ok(Backend { objects, folder: None, part_bytes: REMOTE_PART_BYTES }),
            BlobBackend::Local { folder } => {
                prepare(&folder)?;
                let objects = Arc::new(open_folder(&folder)?);
                Ok(Backend { objects, folder: Some(folder), part_bytes: LOCAL_PART_BYTES })
            }
            BlobBackend::LocalAsItIs { folder } => {
                let objects: Arc<dyn ObjectStore> = match folder.is_dir() {
                    true => Arc::new(open_folder(&folder)?),
                    false => Arc::new(InMemory::new()),
                };
                Ok(Backend { objects, folder: Some(folder), part_bytes: LOCAL_PART_BYTES })
            }
        }
    }

    /// Remove an object; one that is not there is no error.
    pub async fn remove(&self, path: &ObjectPath) -> Result<()> {
        match self.objects.delete(path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(failed("remove", path, error)),
        }
    }

    /// An object's size, or none when it is not there.
    pub async fn size_of(&self, path: &ObjectPath) -> Result<Option<u64>> {
        match self.objects.head(path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(failed("look for", path, error)),
        }
    }
}

fn open_folder(folder: &Path) -> Result<LocalFileSystem> {
    let local = LocalFileSystem::new_with_prefix(folder)
        .map_err(|error| failed("open the folder of blobs", folder.display(), error))?;
    Ok(local.with_fsync(true))
}

/// Make the folders and their names durable, all of them now: a folder that a put makes could be used by another put before
/// its name is on the disk.
fn prepare(root: &Path) -> Result<()> {
    let uploads = root.join(UPLOADS_FOLDER);
    // Nothing else uses the folder, so what lies among the uploads was left by a crash.
    match std::fs::remove_dir_all(&uploads) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(Error::io("clear the folder", &uploads, error));
        }
        _ => {}
    }
    let blobs = root.join(BLOBS_FOLDER);
    create_synced(&uploads)?;
    create_synced(&root.join(PARTS_FOLDER))?;
    create_synced(&blobs)?;
    for shard in 0..=u8::MAX {
        let shard = blobs.join(format!("{shard:02x}"));
        match std::fs::create_dir(&shard) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                return Err(Error::io("create the folder", &shard, error));
            }
            _ => {}
        }
    }
    sync_folder(&blobs)
}

/// Create a folder and those above it, and sync the name of each that is new.
fn create_synced(folder: &Path) -> Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_synced(above)?;
    std::fs::create_dir(folder).map_err(|error| Error::io("create the folder", folder, error))?;
    sync_folder(above)
}

fn sync_folder(folder: &Path) -> Result<()> {
    let synced = std::fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::io("sync the folder", folder, error))
}

/// Where a blob lies.
pub(super) fn blob_path(digest: Digest) -> ObjectPath {
    let digest = digest.to_string();
    ObjectPath::from_iter([BLOBS_FOLDER, &digest[..2], &digest])
}

/// Read [`blob_path`] back.
pub(super) fn digest_of(path: &ObjectPath) -> Option<Digest> {
    let digest = Digest::parse(path.filename()?).ok()?;
    (blob_path(digest) == *path).then_some(digest)
}

/// A name that nothing else has.
pub(super) fn unused_name(random: &dyn Random) -> String {
    let mut bytes = [0; 16];
    random.fill(&mut bytes);
    hex::encode(bytes)
}

/// What an object store's failure means: a full disk is `exhausted`, refused access `denied`, the rest may pass.
pub(super) fn failed(doing: &str, what: impl std::fmt::Display, error: object_store::Error) -> Error {
    let io = io_kind(&error);
    let (kind, hint) = match (&error, io) {
        (object_store::Error::NotFound { .. }, _) => (ErrorKind::NotFound, ""),
        (_, Some(std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)) => {
            (ErrorKind::Exhausted, "; free some space and try again")
        }
        (object_store::Error::PermissionDenied { .. } | object_store::Error::Unauthenticated { .. }, _)
        | (_, Some(std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem)) => {
            (ErrorKind::Denied, "; check who owns it and its permissions")
        }
        _ => (ErrorKind::Unavailable, ""),
    };
    Error::new(kind, format!("cannot {doing} `{what}`: {error}{hint}")).with_source(error)
}

fn io_kind(error: &object_store::Error) -> Option<std::io::ErrorKind> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_back_and_nothing_else_is() {
        let digest = Digest::parse(&"ab".repeat(32)).unwrap();
        assert_eq!(blob_path(digest).as_ref(), format!("sha256/ab/{digest}"));
        assert_eq!(digest_of(&blob_path(digest)), Some(digest));
        for other in [format!("sha256/cd/{digest}"), format!("{digest}"), "sha256/ab/x".into(), "sha256".into()] {
            assert_eq!(digest_of(&ObjectPath::from(other)), None);
        }
    }

    #[test]
    fn errors_keep_their_meaning() {
        fn check(io: std::io::ErrorKind, expect: ErrorKind) {
            let source = Box::new(std::io::Error::from(io));
            let error = failed("write", "x", object_store::Error::Generic { store: "local", source });
            assert_eq!(error.kind(), expect, "{error}");
        }
        check(std::io::ErrorKind::StorageFull, ErrorKind::Exhausted);
        check(std::io::ErrorKind::PermissionDenied, ErrorKind::Denied);
        check(std::io::ErrorKind::TimedOut, ErrorKind::Unavailable);
    }
}
