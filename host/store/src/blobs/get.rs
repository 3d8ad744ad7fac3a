//! Reading: a stream of a blob's bytes, verified.
//!
//! A whole read is hashed as it goes, and its last piece is handed out only when the digest is right, so that nobody ever
//! holds a whole blob that is not what it says. A small one is verified before its first byte. A part of a blob cannot be
//! verified; its length is. A damaged blob is an error that names it ([`DamagedBlob`]). Once it was found, every further
//! read verifies all of it first, so that whoever asks again learns at once that asking does not help.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use mainstay_base::{Error, Result};
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore as _};
use sha2::{Digest as _, Sha256};

use super::backend::{blob_path, failed};
use super::keys::{Digest, Record};
use super::{BlobInfo, Blobs};
use crate::damage::DamagedBlob;

/// A blob of at most this size is verified before its first byte is handed out.
const VERIFIED_FIRST_BYTES_MAX: u64 = 1 << 20;
/// How much of a local file is read at once.
const READ_BYTES: usize = 256 << 10;

/// Bytes of a blob.
pub type BlobStream = BoxStream<'static, Result<Bytes>>;

impl Blobs {
    /// A blob, or the part of it in `range` (cut at the blob's end). Dropping the stream ends the read.
    pub async fn get(&self, sha256: &str, range: Option<Range<u64>>) -> Result<(BlobInfo, BlobStream)> {
        let digest = Digest::parse(sha256)?;
        let record = Record::read(&self.inner.store.view(), digest)?;
        let record = record.ok_or_else(|| Error::not_found(format!("there is no blob {digest}")))?;
        let info = BlobInfo::new(digest, &record);
        let range = cut(range, info.size_bytes)?;
        if self.inner.is_suspect(digest) {
            self.read_through(digest, info.size_bytes).await?;
            self.inner.clear_suspicion(digest);
        }
        if range.is_empty() && info.size_bytes > 0 {
            return Ok((info, futures::stream::empty().boxed()));
        }
        let is_whole = range.start == 0 && range.end == info.size_bytes;
        let bytes = self.open_bytes(digest, range, info.size_bytes).await?;
        let stream = match is_whole {
            false => bytes,
            true if info.size_bytes <= VERIFIED_FIRST_BYTES_MAX => self.verified_first(digest, bytes).await?,
            true => self.verified(digest, bytes),
        };
        Ok((info, stream))
    }

    /// All of a blob that fits in memory, verified.
    pub async fn get_bytes(&self, sha256: &str, range: Option<Range<u64>>) -> Result<Bytes> {
        let (_, stream) = self.get(sha256, range).await?;
        let pieces: Vec<Bytes> = stream.try_collect().await?;
        Ok(joined(pieces))
    }

    /// Read and verify all of a blob, and keep nothing.
    pub(super) async fn read_through(&self, digest: Digest, size_bytes: u64) -> Result<()> {
        let mut bytes = self.open_bytes(digest, 0..size_bytes, size_bytes).await?;
        let mut hasher = Sha256::new();
        while let Some(piece) = bytes.try_next().await? {
            hasher.update(&piece);
        }
        self.verify(digest, hasher)
    }

    async fn open_bytes(&self, digest: Digest, range: Range<u64>, size_bytes: u64) -> Result<BlobStream> {
        let path = blob_path(digest);
        // Stores refuse an empty range, which here is the empty blob.
        let range = (!range.is_empty()).then_some(GetRange::Bounded(range));
        let result = self.inner.backend.objects.get_opts(&path, GetOptions { range, ..GetOptions::default() }).await;
        let result = match result {
            Ok(result) => result,
            Err(object_store::Error::NotFound { .. }) => return Err(self.damaged(digest, "its bytes are missing")),
            // A file that became shorter than the range is damaged, not unavailable.
            Err(error) => match self.inner.backend.size_of(&path).await {
                Ok(Some(found)) if found != size_bytes => {
                    return Err(self.damaged(digest, format_args!("it has {found} bytes instead of {size_bytes}")));
                }
                _ => return Err(failed("read the blob", &path, error)),
            },
        };
        if result.meta.size != size_bytes {
            let found = result.meta.size;
            return Err(self.damaged(digest, format_args!("it has {found} bytes instead of {size_bytes}")));
        }
        Ok(pieces(result))
    }

    async fn verified_first(&self, digest: Digest, bytes: BlobStream) -> Result<BlobStream> {
        let pieces: Vec<Bytes> = bytes.try_collect().await?;
        let mut hasher = Sha256::new();
        pieces.iter().for_each(|piece| hasher.update(piece));
        self.verify(digest, hasher)?;
        Ok(futures::stream::iter(pieces.into_iter().map(Ok)).boxed())
    }

    /// Every piece is held back until the next has come; the last until the digest is right.
    fn verified(&self, digest: Digest, bytes: BlobStream) -> BlobStream {
        struct State {
            blobs: Blobs,
            bytes: BlobStream,
            hasher: Sha256,
            held: Option<Bytes>,
        }
        let state = State { blobs: self.clone(), bytes, hasher: Sha256::new(), held: None };
        futures::stream::try_unfold(Some(state), move |state| async move {
            let Some(mut state) = state else { return Ok(None) };
            loop {
                match state.bytes.next().await {
                    Some(piece) => {
                        let piece = piece?;
                        state.hasher.update(&piece);
                        if let Some(before) = state.held.replace(piece) {
                            return Ok(Some((before, Some(state))));
                        }
                    }
                    None => {
                        state.blobs.verify(digest, state.hasher)?;
                        return Ok(state.held.map(|last| (last, None)));
                    }
                }
            }
        })
        .boxed()
    }

    fn verify(&self, digest: Digest, hasher: Sha256) -> Result<()> {
        let found = Digest(hasher.finalize().into());
        if found == digest {
            Ok(())
        } else {
            Err(self.damaged(digest, format_args!("its bytes have the digest {found}")))
        }
    }

    /// A damaged blob: the error that names it. Whoever answers with it writes it into the log, with what was asked.
    fn damaged(&self, digest: Digest, what: impl std::fmt::Display) -> Error {
        self.inner.suspect(digest);
        DamagedBlob { sha256: digest.to_string(), what: what.to_string() }.error()
    }
}

fn cut(range: Option<Range<u64>>, size_bytes: u64) -> Result<Range<u64>> {
    let Some(range) = range else { return Ok(0..size_bytes) };
    if range.start > range.end || range.start > size_bytes {
        return Err(Error::invalid(format!(
            "the range {}..{} does not lie in a blob of {size_bytes} bytes",
            range.start, range.end
        )));
    }
    Ok(range.start..range.end.min(size_bytes))
}

fn joined(mut pieces: Vec<Bytes>) -> Bytes {
    match pieces.len() {
        1 => pieces.remove(0),
        _ => pieces.concat().into(),
    }
}

/// The bytes of an answer; local files are read in large pieces, off the async threads.
fn pieces(result: GetResult) -> BlobStream {
    let path = result.meta.location;
    match result.payload {
        GetResultPayload::File(file, _) => {
            let file = Arc::new(file);
            futures::stream::try_unfold(result.range, move |range| {
                let file = file.clone();
                async move {
                    if range.is_empty() {
                        return Ok(None);
                    }
                    let piece = read_piece(file, range.clone()).await?;
                    let start = range.start + piece.len() as u64;
                    Ok(Some((piece, start..range.end)))
                }
            })
            .boxed()
        }
        GetResultPayload::Stream(stream) => stream.map_err(move |error| failed("read the blob", &path, error)).boxed(),
    }
}

async fn read_piece(file: Arc<std::fs::File>, range: Range<u64>) -> Result<Bytes> {
    use std::os::unix::fs::FileExt;
    let read = move || {
        let length = (range.end - range.start).min(READ_BYTES as u64) as usize;
        let mut buffer = vec![0; length];
        file.read_exact_at(&mut buffer, range.start).map(|()| Bytes::from(buffer))
    };
    let read = tokio::task::spawn_blocking(read).await;
    let read = read.map_err(|error| Error::internal("reading a blob was interrupted").with_source(error))?;
    read.map_err(|error| Error::unavailable(format!("cannot read a blob: {error}")).with_source(error))
}
