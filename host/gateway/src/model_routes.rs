//! The admin API's part about models: files become versions of registered models.
//!
//! Owns the routes under `/-/models`. Separate from the room that registers ([`ImportModels`]), which the wiring hands in.
//! Importing needs the right `admin`. The body is a tar archive of the version's files, so that a model that is one file and a
//! folder with a graph come the same way.
//!
//! Bounded by the limit of uploaded packages, [`FILES_MAX`] files, and the blob store. On failure: a problem document; nothing is
//! registered, and what was stored of it is collected as garbage.

use std::io::Read;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Path, State};
use axum::{Extension, Json, Router};
use bytes::Bytes;
use mainstay_base::{Error, Result};
use mainstay_store::blobs::Blobs;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::host_routes::{Answer, BodyReader};
use crate::options::GatewayLimits;
use crate::problem::ProblemDocument;
use crate::tokens::Identity;

/// Files of one version.
const FILES_MAX: usize = 1_000;

/// A file of a version, in the blob store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoredModelFile {
    /// Its path inside the version.
    pub path: String,
    /// Lowercase hexadecimal SHA-256 of its bytes.
    pub sha256: String,
}

/// A version that was registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct ImportedModel {
    /// The registered model.
    pub model: String,
    /// The version's number.
    pub version: u64,
    /// What runs it.
    pub platform: String,
    /// Its files.
    pub files: Vec<StoredModelFile>,
}

/// Who registers versions of models.
#[async_trait]
pub trait ImportModels: Send + Sync + 'static {
    /// Check that these files are a model that runs here, and make a version of them.
    async fn import(&self, model: &str, files: Vec<StoredModelFile>, by: &str) -> Result<ImportedModel>;
}

/// What the handlers use.
pub(crate) struct ModelsState {
    pub(crate) models: Arc<dyn ImportModels>,
    pub(crate) blobs: Blobs,
    pub(crate) limits: GatewayLimits,
}

/// The routes.
pub(crate) fn router(state: Arc<ModelsState>) -> Router {
    Router::new().route("/-/models/{model}/versions", axum::routing::post(import_model)).with_state(state)
}

/// Register a version of a model: the files of a tar archive. A model that does not run here is refused.
#[utoipa::path(post, path = "/-/models/{model}/versions", tag = "endpoints", params(("model" = String, Path, description = "The registered model's name")),
    request_body(content = Vec<u8>, description = "A tar archive with the version's files", content_type = "application/x-tar"),
    responses((status = 200, body = ImportedModel), (status = "default", description = "A problem", body = ProblemDocument, content_type = "application/problem+json")))]
pub(crate) async fn import_model(
    State(state): State<Arc<ModelsState>>,
    Extension(identity): Extension<Arc<Identity>>,
    Path(model): Path<String>,
    body: BodyReader,
) -> Answer<Json<ImportedModel>> {
    let archive = body.bytes_within(&state.limits, state.limits.package_bytes_max).await?;
    let unpacked = tokio::task::spawn_blocking(move || unpacked(&archive)).await;
    let unpacked = unpacked.map_err(|error| Error::internal(format!("reading an archive ended: {error}")))??;
    let mut files = Vec::with_capacity(unpacked.len());
    for (path, bytes) in unpacked {
        let sha256 = state.blobs.put_bytes(bytes).await?.sha256;
        files.push(StoredModelFile { path, sha256 });
    }
    Ok(Json(state.models.import(&model, files, &identity.caller.principal).await?))
}

/// Paths and bytes of the regular files of an archive.
fn unpacked(archive: &Bytes) -> Result<Vec<(String, Bytes)>> {
    let broken = |error: std::io::Error| Error::invalid(format!("the body is no tar archive: {error}"));
    let mut files = Vec::new();
    for entry in tar::Archive::new(&archive[..]).entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        if entry.header().entry_type().is_dir() {
            continue;
        }
        let path = entry.path().map_err(broken)?.to_string_lossy().into_owned();
        let is_plain = path.split('/').all(|part| !part.is_empty() && part != "." && part != "..");
        if !entry.header().entry_type().is_file() || !is_plain {
            return Err(Error::invalid(format!("`{path}` of the archive is no file with a plain relative path")));
        }
        if files.len() == FILES_MAX {
            return Err(Error::invalid(format!(
                "the archive has more than {FILES_MAX} files; a version has at most that"
            )));
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        files.push((path, bytes.into()));
    }
    match files.is_empty() {
        true => Err(Error::invalid("the archive has no files; give the model's")),
        false => Ok(files),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, tar::EntryType)]) -> Bytes {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, kind) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(if kind.is_file() { 3 } else { 0 });
            header.set_cksum();
            builder.append(&header, if kind.is_file() { &b"abc"[..] } else { &[] }).unwrap();
        }
        builder.into_inner().unwrap().into()
    }

    #[test]
    fn only_plain_files_are_taken() {
        fn check(bytes: &Bytes, expect: std::result::Result<&[&str], &str>) {
            let found = unpacked(bytes);
            match (&found, expect) {
                (Ok(files), Ok(paths)) => {
                    assert_eq!(files.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), paths);
                }
                (Err(error), Err(part)) => assert!(error.message().contains(part), "{error}"),
                _ => panic!("{found:?}, expected {expect:?}"),
            }
        }
        use tar::EntryType::{Directory, Regular, Symlink};
        check(
            &archive(&[("model.onnx", Regular), ("a", Directory), ("a/b.txt", Regular)]),
            Ok(&["model.onnx", "a/b.txt"]),
        );
        check(&archive(&[("../model.onnx", Regular)]), Err("plain relative path"));
        check(&archive(&[("/etc/passwd", Regular)]), Err("plain relative path"));
        check(&archive(&[("link", Symlink)]), Err("no file"));
        check(&archive(&[]), Err("no files"));
        check(
            &Bytes::from_static(b"not an archive, and long enough to be looked at as one: no, really not"),
            Err("archive"),
        );
    }
}
