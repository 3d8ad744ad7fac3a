//! Storing: bytes in, a blob out.
//!
//! One pass computes both digests. A body of at most [`HELD_BYTES_MAX`] is held in memory and written to its place at
//! once; a longer one goes to a temporary name and is renamed when its length and digest were checked. So nothing
//! unchecked ever has a blob's name. What lies in a blob's place is never trusted by its length: storing content again
//! replaces it unless it is the same, so that storing it is the repair of damage. The last step, [`Blobs::publish`], runs in a task of its own under the digest's lock: a
//! caller who goes away cannot leave it half done.

use std::pin::pin;

use bytes::Bytes;
use futures::{Stream, StreamExt};
use mainstay_base::{Error, Result};
use md5::Md5;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload, WriteMultipart};
use sha2::{Digest as _, Sha256};

use super::backend::{UPLOADS_FOLDER, blob_path, failed, unused_name};
use super::keys::{self, Digest, Record};
use super::{BlobInfo, Blobs};

/// The longest body that is held in memory.
const HELD_BYTES_MAX: usize = 1 << 20;

/// What a body must satisfy.
#[derive(Clone, Debug, Default)]
pub struct PutOptions {
    /// The body may have this many bytes; one more is `exhausted`.
    pub limit_bytes: Option<u64>,
    /// The body must have this digest (lowercase hexadecimal); another one is `invalid`.
    pub expected_sha256: Option<String>,
}

/// Both digests and the length, as bytes pass by.
pub(super) struct Hasher {
    sha256: Sha256,
    md5: Md5,
    size_bytes: u64,
}

impl Hasher {
    pub fn new() -> Hasher {
        Hasher { sha256: Sha256::new(), md5: Md5::new(), size_bytes: 0 }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.md5.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }

    pub fn finish(self) -> Hashed {
        Hashed {
            digest: Digest(self.sha256.finalize().into()),
            md5: self.md5.finalize().into(),
            size_bytes: self.size_bytes,
        }
    }
}

/// What a body turned out to be.
#[derive(Clone, Copy)]
pub(super) struct Hashed {
    pub digest: Digest,
    pub md5: [u8; 16],
    pub size_bytes: u64,
}

/// A checked body that waits for its place.
enum Staged {
    Held(PutPayload),
    Uploaded(Path),
}

/// A body on its way in: hashed, counted, and held until it is too long for that.
struct Intake<'b> {
    blobs: &'b Blobs,
    options: &'b PutOptions,
    hasher: Hasher,
    held: Vec<Bytes>,
    upload: Option<(Path, WriteMultipart)>,
}

impl Blobs {
    /// Store a body. It is checked, synced and present when this returns. Storing what is there already costs no space.
    pub async fn put<S>(&self, body: S, options: PutOptions) -> Result<BlobInfo>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        let expected = options.expected_sha256.as_deref().map(Digest::parse).transpose()?;
        let mut body = pin!(body);
        let mut intake =
            Intake { blobs: self, options: &options, hasher: Hasher::new(), held: Vec::new(), upload: None };
        while let Some(chunk) = body.next().await {
            let taken = match chunk {
                Ok(chunk) => intake.take(chunk).await,
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                intake.abandon().await;
                return Err(error);
            }
        }
        let (hashed, staged) = intake.finish(expected).await?;
        self.publish(hashed, staged).await
    }

    /// Store bytes that are in memory.
    pub async fn put_bytes(&self, bytes: Bytes) -> Result<BlobInfo> {
        self.put(futures::stream::iter([Ok(bytes)]), PutOptions::default()).await
    }

    async fn publish(&self, hashed: Hashed, staged: Staged) -> Result<BlobInfo> {
        let blobs = self.clone();
        let task = tokio::spawn(async move { blobs.publish_locked(hashed, staged).await });
        task.await.map_err(|error| Error::internal("storing a blob was interrupted").with_source(error))?
    }

    async fn publish_locked(&self, hashed: Hashed, staged: Staged) -> Result<BlobInfo> {
        let Hashed { digest, md5, size_bytes } = hashed;
        let _lock = self.inner.locks.lock(digest).await;
        let view = self.inner.store.view();
        let known = Record::read(&view, digest)?;
        if known.is_none() || !self.holds(digest, &staged).await {
            self.place(digest, staged).await?;
        }
        self.inner.clear_suspicion(digest);
        // A record without a mark protects the blob for the grace time as it stands; all others are written anew, which
        // also makes a removal that was decided before fail.
        if known.is_none_or(|record| record.mark.is_some()) {
            let mut tx = self.inner.store.begin(&view);
            tx.put(&keys::space(), &digest.record_key(), Record { md5, size_bytes, mark: None }.encode())?;
            self.inner.store.commit(tx).await?;
        }
        Ok(BlobInfo { sha256: digest.to_string(), md5: hex::encode(md5), size_bytes })
    }

    async fn place(&self, digest: Digest, staged: Staged) -> Result<()> {
        let path = blob_path(digest);
        let placed = match staged {
            Staged::Held(payload) => self.inner.backend.objects.put(&path, payload).await.map(drop),
            Staged::Uploaded(from) => self.inner.backend.objects.rename(&from, &path).await,
        };
        placed.map_err(|error| failed("store the blob", &path, error))
    }

    /// Whether exactly these bytes lie in place already. A long body is not compared: its rename is cheaper than reading
    /// what is there, and repairs it too.
    async fn holds(&self, digest: Digest, staged: &Staged) -> bool {
        let Staged::Held(payload) = staged else { return false };
        let path = blob_path(digest);
        // The length first, so that no more is read than is held. What cannot be read is written anew.
        let length = self.inner.backend.size_of(&path).await;
        if !matches!(length, Ok(Some(length)) if length == payload.content_length() as u64) {
            return false;
        }
        let found = match self.inner.backend.objects.get(&path).await {
            Ok(found) => found.bytes().await,
            Err(error) => Err(error),
        };
        found.is_ok_and(|found| {
            let mut rest = &found[..];
            payload.iter().all(|piece| rest.strip_prefix(&piece[..]).map(|left| rest = left).is_some())
                && rest.is_empty()
        })
    }
}

impl Intake<'_> {
    async fn take(&mut self, chunk: Bytes) -> Result<()> {
        self.hasher.update(&chunk);
        if let Some(limit) = self.options.limit_bytes
            && self.hasher.size_bytes > limit
        {
            return Err(Error::exhausted(format!("the body is longer than the {limit} bytes that are allowed here")));
        }
        if let Some((path, upload)) = &mut self.upload {
            return write(path, upload, chunk).await;
        }
        self.held.push(chunk);
        if self.hasher.size_bytes > HELD_BYTES_MAX as u64 { self.start_upload().await } else { Ok(()) }
    }

    async fn start_upload(&mut self) -> Result<()> {
        let inner = &self.blobs.inner;
        let path = Path::from_iter([UPLOADS_FOLDER, &unused_name(&*inner.random)]);
        let upload = inner.backend.objects.put_multipart(&path).await;
        let upload = upload.map_err(|error| failed("begin to write", &path, error))?;
        let mut upload = WriteMultipart::new_with_chunk_size(upload, inner.backend.part_bytes);
        for chunk in std::mem::take(&mut self.held) {
            write(&path, &mut upload, chunk).await?;
        }
        self.upload = Some((path, upload));
        Ok(())
    }

    /// The end of the body: check what it is; nothing is visible yet.
    async fn finish(mut self, expected: Option<Digest>) -> Result<(Hashed, Staged)> {
        let hashed = std::mem::replace(&mut self.hasher, Hasher::new()).finish();
        if let Some(expected) = expected.filter(|&expected| expected != hashed.digest) {
            self.abandon().await;
            return Err(Error::invalid(format!(
                "the body has the digest {}, but {expected} was announced; send it again",
                hashed.digest
            )));
        }
        let staged = match self.upload.take() {
            None => Staged::Held(PutPayload::from_iter(std::mem::take(&mut self.held))),
            Some((path, upload)) => {
                upload.finish().await.map_err(|error| failed("finish writing", &path, error))?;
                Staged::Uploaded(path)
            }
        };
        Ok((hashed, staged))
    }

    async fn abandon(mut self) {
        if let Some((path, upload)) = self.upload.take()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(%path, %error, "cannot abandon an upload; it is swept later");
        }
    }
}

async fn write(path: &Path, upload: &mut WriteMultipart, chunk: Bytes) -> Result<()> {
    /// Parts in flight at once: the one that is written and the one that is filled.
    const PARTS_IN_FLIGHT: usize = 1;
    upload.wait_for_capacity(PARTS_IN_FLIGHT).await.map_err(|error| failed("write", path, error))?;
    upload.put(chunk);
    Ok(())
}
