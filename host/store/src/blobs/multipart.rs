//! Uploads in parts: for clients that send a large body in pieces, in any order, perhaps again after a failure.
//!
//! A part is an object of its own, named by its number and its MD5 (its *tag*), so that the state of an upload is nothing
//! but its objects: it survives a restart, a part sent twice is harmless, and completing names exactly the bytes meant.
//! Completing reads the parts in order through the same path as any body. Uploads that nobody touched for the grace time
//! are swept.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream, Stream, StreamExt, TryStreamExt};
use mainstay_base::{Error, Result};
use md5::{Digest as _, Md5};
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt, PutPayload};

use super::backend::{PARTS_FOLDER, failed, unused_name};
use super::keys::shown;
use super::put::PutOptions;
use super::{BlobInfo, Blobs};

/// Parts are numbered 1 to this.
pub const PARTS_MAX: u32 = 10_000;
/// The largest part: it is held in memory until it is written.
pub const PART_BYTES_MAX: u64 = 64 << 20;

/// The object that says that an upload was begun.
const BEGUN: &str = "begun";
const UPLOAD_ID_CHARS: usize = 32;
const TAG_CHARS: usize = 32;

/// A part that was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartInfo {
    /// Its number.
    pub number: u32,
    /// Its MD5 in lowercase hexadecimal: what completing names it by.
    pub tag: String,
    /// Its length.
    pub size_bytes: u64,
}

impl Blobs {
    /// Begin an upload in parts; the answer names it.
    pub async fn begin_multipart(&self) -> Result<String> {
        let upload = unused_name(&*self.inner.random);
        self.write_object(&path_of(&upload, BEGUN), PutPayload::from_static(b"")).await?;
        Ok(upload)
    }

    /// Store a part. The same number may be sent again; completing says which tag it means.
    pub async fn put_part<S>(&self, upload: &str, number: u32, body: S) -> Result<PartInfo>
    where
        S: Stream<Item = Result<Bytes>> + Send,
    {
        self.check_upload(upload).await?;
        check_number(number)?;
        let mut body = std::pin::pin!(body);
        let (mut held, mut hasher, mut size_bytes) = (Vec::new(), Md5::new(), 0);
        while let Some(chunk) = body.try_next().await? {
            size_bytes += chunk.len() as u64;
            if size_bytes > PART_BYTES_MAX {
                return Err(Error::exhausted(format!(
                    "part {number} is longer than {PART_BYTES_MAX} bytes; send smaller ones"
                )));
            }
            hasher.update(&chunk);
            held.push(chunk);
        }
        let tag = hex::encode(hasher.finalize());
        self.write_object(&part_path(upload, number, &tag), PutPayload::from_iter(held)).await?;
        Ok(PartInfo { number, tag, size_bytes })
    }

    /// Make a blob of parts, given by number and tag in order of number.
    pub async fn complete_multipart(
        &self,
        upload: &str,
        parts: &[(u32, String)],
        options: PutOptions,
    ) -> Result<BlobInfo> {
        self.check_upload(upload).await?;
        let mut paths = Vec::with_capacity(parts.len());
        for (number, tag) in parts {
            check_number(*number)?;
            check_hex("the tag of a part", tag, TAG_CHARS)?;
            paths.push((*number, part_path(upload, *number, tag), tag.clone()));
        }
        if parts.is_empty() || !parts.windows(2).all(|pair| pair[0].0 < pair[1].0) {
            return Err(Error::invalid("list at least one part, each number once, in ascending order"));
        }
        for (number, path, _) in &paths {
            if self.inner.backend.size_of(path).await?.is_none() {
                return Err(Error::invalid(format!(
                    "part {number} with this tag was not received; send it, then complete"
                )));
            }
        }
        let blobs = self.clone();
        let body = stream::iter(paths.into_iter().map(Ok))
            .and_then(move |(number, path, tag)| {
                let blobs = blobs.clone();
                async move { blobs.read_part(number, path, tag).await }
            })
            .try_flatten();
        let info = self.put(body, options).await?;
        self.sweep_upload(upload).await?;
        Ok(info)
    }

    /// Forget an upload and its parts; one that is not there is no error.
    pub async fn abort_multipart(&self, upload: &str) -> Result<()> {
        check_hex("an upload's id", upload, UPLOAD_ID_CHARS)?;
        self.sweep_upload(upload).await
    }

    async fn check_upload(&self, upload: &str) -> Result<()> {
        check_hex("an upload's id", upload, UPLOAD_ID_CHARS)?;
        match self.inner.backend.size_of(&path_of(upload, BEGUN)).await? {
            Some(_) => Ok(()),
            None => Err(Error::not_found(format!(
                "there is no upload `{upload}`; it was completed, aborted or has expired"
            ))),
        }
    }

    /// The bytes of one part; what is not what was sent is an error before the next part is read.
    async fn read_part(&self, number: u32, path: Path, tag: String) -> Result<BoxStream<'static, Result<Bytes>>> {
        let got = self.inner.backend.objects.get(&path).await.map_err(|error| failed("read", &path, error))?;
        let hasher = Arc::new(parking_lot::Mutex::new(Md5::new()));
        let end = hasher.clone();
        let bytes = got.into_stream().map(move |piece| {
            let piece = piece.map_err(|error| failed("read", &path, error))?;
            hasher.lock().update(&piece);
            Ok(piece)
        });
        let check = stream::once(async move {
            let found = hex::encode(std::mem::take(&mut *end.lock()).finalize());
            if found == tag {
                return Ok(Bytes::new());
            }
            Err(Error::internal(format!(
                "part {number} is damaged: its MD5 is {found} instead of {tag}; send it again"
            )))
        });
        Ok(bytes.chain(check).boxed())
    }

    /// Remove all objects of an upload; the one that says that it was begun first, so that a crash leaves no half upload.
    pub(super) async fn sweep_upload(&self, upload: &str) -> Result<()> {
        let backend = &self.inner.backend;
        backend.remove(&path_of(upload, BEGUN)).await?;
        let folder = Path::from_iter([PARTS_FOLDER, upload]);
        let objects: Vec<_> =
            backend.objects.list(Some(&folder)).try_collect().await.map_err(|error| failed("list", &folder, error))?;
        for object in objects {
            backend.remove(&object.location).await?;
        }
        Ok(())
    }

    async fn write_object(&self, path: &Path, payload: PutPayload) -> Result<()> {
        let put = self.inner.backend.objects.put(path, payload).await;
        put.map(drop).map_err(|error| failed("write", path, error))
    }
}

fn path_of(upload: &str, object: &str) -> Path {
    Path::from_iter([PARTS_FOLDER, upload, object])
}

fn part_path(upload: &str, number: u32, tag: &str) -> Path {
    path_of(upload, &format!("{number:05}-{tag}"))
}

fn check_number(number: u32) -> Result<()> {
    if (1..=PARTS_MAX).contains(&number) {
        return Ok(());
    }
    Err(Error::invalid(format!("there is no part {number}; parts are numbered 1 to {PARTS_MAX}")))
}

/// Only these characters reach a path.
fn check_hex(what: &str, text: &str, chars: usize) -> Result<()> {
    if text.len() == chars && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{}` is not {what}, which is {chars} lowercase hexadecimal digits", shown(text))))
}
