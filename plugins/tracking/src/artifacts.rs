//! Artifacts: files of runs and models, by the proxied scheme `mlflow-artifacts:`.
//!
//! A file is a name of a blob; the bytes go between client and blob store without passing through here, and a checkpoint
//! logged every epoch costs its bytes once. Owns the names, and the account of unique bytes below each first path
//! segment (an experiment's id in paths that clients make), which is kept in the same transaction as the name. A full
//! quota answers 413, before the body is read unless it may be one that is kept already: repeating it would not help. It
//! warns before that. Uploads that run at the same moment may together exceed a quota by what they hold. A name is a file
//! or a folder, not both: clients could not download it.

use crate::errors::{Code, Failure, Outcome};
use crate::json::{self, Object};
use crate::runs;
use crate::settings::{self, Settings};
use crate::store::{self, Lifecycle, Place, change, indexes};
use crate::wire::{Args, Field, Kind, optional, required};
use mainstay_sdk::blobs::{self, BlobInfo, Entry};
use mainstay_sdk::http::{Body, Reply, Request};
use mainstay_sdk::index;
use mainstay_sdk::{Transaction, keys, log, metric};

/// The scheme of locations that this server keeps itself.
pub const SCHEME: &str = "mlflow-artifacts:";
/// Longest name of an artifact, in bytes.
const NAME_BYTES_MAX: usize = 1_024;
/// Most rows that a listing shows.
const LISTING_ROWS_MAX: usize = 100_000;
/// Names that one step of a removal takes.
const REMOVAL_STEP: u32 = 500;

/// A name that is safe to use as a path, as it is stored.
fn checked_name(path: &str) -> Outcome<&str> {
    let invalid = || Failure::invalid("Invalid path");
    let path = path.strip_suffix('/').unwrap_or(path);
    if path.is_empty() || path.len() > NAME_BYTES_MAX {
        return Err(invalid());
    }
    // Once more decoded it must be as harmless: other servers and tools may decode again.
    let mut decoded = path.to_owned();
    for _ in 0..8 {
        let drive = decoded.as_bytes().get(1) == Some(&b':') && matches!(decoded.as_bytes().get(2), Some(b'/' | b'\\'));
        let parts_bad = decoded.split('/').any(|part| part.is_empty() || part == "." || part == "..");
        if parts_bad
            || drive
            || decoded.starts_with('\\')
            || decoded.contains(['#', '\0'])
            || decoded.starts_with("file:")
        {
            return Err(invalid());
        }
        let next = percent_decoded(&decoded);
        if next == decoded {
            return Ok(path);
        }
        decoded = next;
    }
    Err(invalid())
}

/// Whether a path holds parts that lead elsewhere, however often they are escaped.
pub fn is_unsafe(path: &str) -> bool {
    checked_name(path).is_err()
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|h| std::str::from_utf8(h).ok());
        match (bytes[at], hex.and_then(|h| u8::from_str_radix(h, 16).ok())) {
            (b'%', Some(byte)) => {
                out.push(byte);
                at += 3;
            }
            (byte, _) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The path that a location of this server stands for; none for one elsewhere.
pub fn path_of(location: &str) -> Option<&str> {
    let rest = location.strip_prefix(SCHEME)?;
    match rest.strip_prefix("//") {
        Some(with_authority) => with_authority.split_once('/').map(|(_, path)| path),
        None => Some(rest),
    }
    .map(|path| path.trim_matches('/'))
}

fn bucket_of(name: &str) -> &str {
    name.split('/').next().unwrap_or(name)
}

/// Unique bytes below a first path segment.
pub fn used_bytes(bucket: &str) -> Outcome<u64> {
    Ok(keys::counter(store::quota_key(bucket))?.max(0).unsigned_abs())
}

/// The folders that a name lies in, outermost first.
fn folders_of(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices('/').map(|(at, _)| &name[..at])
}

/// Refuse a file below a file, and one where a folder is.
fn must_fit(name: &str) -> Outcome<()> {
    let keys: Vec<_> = folders_of(name).map(store::artifact_key).collect();
    let files = keys::get_many(&keys)?;
    if let Some(file) = folders_of(name).zip(files).find_map(|(folder, file)| file.map(|_| folder)) {
        return Err(Failure::invalid(format!(
            "Cannot store the artifact '{name}', because the artifact '{file}' is a file and not a directory. Choose another \
             path, or delete that artifact first."
        )));
    }
    let below = blobs::names(format!("{name}/")).limit(1).list()?;
    match below.entries.first() {
        Some(Entry::Name(other, _) | Entry::Prefix(other)) => Err(Failure::invalid(format!(
            "Cannot store the artifact '{name}' as a file, because it is a directory in which the artifact '{other}' lies. \
             Choose another path, or delete that artifact first."
        ))),
        None => Ok(()),
    }
}

/// `PUT mlflow-artifacts/artifacts/<path>`
pub fn upload(request: &Request, path: &str) -> Outcome<Reply> {
    let name = checked_name(path)?;
    if path.ends_with('/') {
        return Err(Failure::invalid(format!(
            "Invalid path: '{path}' names a directory; an artifact needs a file's name."
        )));
    }
    // Before the body is read, and again with guards when the file gets its name.
    must_fit(name)?;
    let settings = settings::get()?;
    let bucket = bucket_of(name);
    let left = left_bytes(&settings, bucket)?;
    let must_have_room = |length: u64| {
        if length > settings.artifact_bytes_max {
            let most = settings.artifact_bytes_max;
            let message = format!("Artifact '{name}' is larger than {most} bytes, the most that one may have.");
            return Err(Failure::new(Code::ResourceExhausted, message));
        }
        if length > left && !holds_one_of(bucket, length)? {
            return Err(over_quota(&settings, bucket, left));
        }
        Ok(())
    };
    match request.body() {
        Body::Waiting(None) => {
            must_have_room(1)?;
            Ok(Reply::receive(left.min(settings.artifact_bytes_max), None))
        }
        Body::Waiting(Some(length)) => {
            must_have_room(*length)?;
            Ok(Reply::receive(*length, None))
        }
        body => {
            let bytes = if let Body::Bytes(bytes) = body { bytes.as_slice() } else { &[] };
            must_have_room(bytes.len() as u64)?;
            let blob = blobs::put(bytes)?;
            keep(name, &blob)
        }
    }
}

/// Bytes that a quota leaves.
fn left_bytes(settings: &Settings, bucket: &str) -> Outcome<u64> {
    Ok(match settings.artifact_quota_bytes {
        0 => u64::MAX,
        quota => quota.saturating_sub(used_bytes(bucket)?),
    })
}

fn over_quota(settings: &Settings, bucket: &str, left: u64) -> Failure {
    let quota = settings.artifact_quota_bytes;
    Failure::new(
        Code::ResourceExhausted,
        format!(
            "The artifact quota of experiment {bucket} ({quota} bytes) leaves {left} bytes. Delete artifacts that are no \
             longer needed, or have the operator raise 'artifact-quota-bytes'."
        ),
    )
}

/// Whether something of exactly this size is kept: only then can a body that does not fit any more be one that costs
/// nothing. Whether it is shows when it has been read.
fn holds_one_of(bucket: &str, size_bytes: u64) -> Outcome<bool> {
    Ok(keys::scan(store::quota_size_key(bucket, size_bytes).prefix()).keys_only().first()?.is_some())
}

/// The body of an upload is in the blob store: give it its name.
pub fn uploaded(path: &str, blob: &BlobInfo) -> Outcome<Reply> {
    keep(checked_name(path)?, blob)
}

fn keep(name: &str, blob: &BlobInfo) -> Outcome<Reply> {
    let bucket = bucket_of(name);
    let settings = settings::get()?;
    change(|tx| {
        touch_run(tx, name)?;
        let old = blobs::lookup(name)?;
        if old.as_ref().is_some_and(|old| old.sha256 == blob.sha256) {
            return Ok(());
        }
        must_fit(name)?;
        for folder in folders_of(name) {
            // Deleting what is not there is what a file of this name, uploaded at the same time, is guarded against.
            tx.expect_absent(store::artifact_key(folder))?;
            tx.delete(store::artifact_key(folder))?;
        }
        tx.expect_unchanged(store::artifact_key(name))?;
        tx.put(store::artifact_key(name), &blob.sha256)?;
        if keys::get(store::quota_blob_key(bucket, &blob.sha256))?.is_none() {
            let left = left_bytes(&settings, bucket)?;
            if blob.size_bytes > left {
                return Err(over_quota(&settings, bucket, left));
            }
        }
        if let Some(old) = old {
            account(tx, bucket, &old, -1)?;
        }
        account(tx, bucket, blob, 1)?;
        Ok(tx.blobs().link(name, &blob.sha256)?)
    })?;
    let reply = Reply::status(200).header("content-type", "application/json").with_body("{}");
    Ok(match warning(bucket)? {
        Some(text) => reply.header("x-mainstay-warning", text),
        None => reply,
    })
}

/// A file for a run is activity of that run. Where artifacts go is the experiment's choice, so this knows the usual place only.
fn touch_run(tx: &Transaction, name: &str) -> Outcome<()> {
    let mut parts = name.split('/');
    let (Some(_), Some(run_id), Some("artifacts")) = (parts.next(), parts.next(), parts.next()) else { return Ok(()) };
    if run_id.len() != runs::ID_BYTES {
        return Ok(());
    }
    let key = store::run_key(run_id);
    let Some(place) = keys::get(&key)? else { return Ok(()) };
    if Place::decode(&place)?.lifecycle == Lifecycle::Active {
        // Not to bring back a run that is removed at the same time.
        tx.expect_unchanged(&key)?;
        tx.index(indexes::RUNS).set(run_id, [runs::activity()])?;
    }
    Ok(())
}

/// Say it when a quota is nearly used up.
fn warning(bucket: &str) -> Outcome<Option<String>> {
    let settings = settings::get()?;
    if settings.artifact_quota_bytes == 0 {
        return Ok(None);
    }
    keys::renew()?;
    let used = used_bytes(bucket)?;
    let share = used as f64 / settings.artifact_quota_bytes as f64;
    metric::set("tracking_artifact_quota_used_ratio", share, &[("experiment", bucket)]);
    if share * 100.0 < f64::from(settings.quota_warning_percent) {
        return Ok(None);
    }
    let quota = settings.artifact_quota_bytes;
    let text = format!("artifacts of experiment {bucket} use {used} of {quota} bytes ({:.0} %)", share * 100.0);
    log::warn!("{text}"; experiment = bucket, used_bytes = used, quota_bytes = quota);
    Ok(Some(text))
}

/// Count one name more or less that refers to a blob; its bytes count with the first and until the last.
fn account(tx: &Transaction, bucket: &str, blob: &BlobInfo, names: i64) -> Outcome<()> {
    let key = store::quota_blob_key(bucket, &blob.sha256);
    let before: i64 = keys::get_json(&key)?.unwrap_or(0);
    let after = (before + names).max(0);
    tx.expect_unchanged(&key)?;
    if after == 0 {
        tx.delete(&key)?;
    } else {
        tx.put_json(&key, &after)?;
    }
    let size = i64::try_from(blob.size_bytes).unwrap_or(i64::MAX);
    let of_size = store::quota_size_key(bucket, blob.size_bytes).raw(&blob.sha256);
    match (before > 0, after > 0) {
        (false, true) => {
            tx.add(store::quota_key(bucket), size)?;
            tx.put(of_size, [])?;
        }
        (true, false) => {
            tx.add(store::quota_key(bucket), -size)?;
            tx.delete(of_size)?;
        }
        _ => {}
    }
    Ok(())
}

/// `GET mlflow-artifacts/artifacts/<path>`
pub fn download(path: &str) -> Outcome<Reply> {
    let name = checked_name(path)?;
    let blob = blobs::lookup(name)?.ok_or_else(|| Failure::missing(format!("No such artifact: '{name}'")))?;
    let file = name.rsplit('/').next().unwrap_or(name);
    // Always an attachment, never HTML: what a run logged must not act in the name of this server.
    let plain: String =
        file.chars().map(|c| if c.is_ascii_graphic() && !"\"\\".contains(c) { c } else { '_' }).collect();
    Ok(Reply::send(blob.sha256)
        .header("content-type", media_type(file))
        .header("content-disposition", format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{}", encoded(file)))
        .header("x-content-type-options", "nosniff"))
}

fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

const TEXT_ENDINGS: &[&str] = &[
    "txt",
    "log",
    "err",
    "cfg",
    "conf",
    "ini",
    "md",
    "rst",
    "py",
    "r",
    "js",
    "css",
    "html",
    "htm",
    "xml",
    "yaml",
    "yml",
    "toml",
    "json",
    "csv",
    "tsv",
    "svg",
    "sh",
    "MLmodel",
    "MLproject",
];

fn media_type(file: &str) -> &'static str {
    let ending = file.rsplit('.').next().unwrap_or(file);
    match ending.to_ascii_lowercase().as_str() {
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "gif" => "image/gif",
        "webp" => "image/webp",
        "pdf" => "application/pdf",
        lower if TEXT_ENDINGS.iter().any(|text| *text == lower || *text == ending) => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}

/// One row of a listing.
struct FileRow {
    name: String,
    size_bytes: Option<u64>,
}

fn rows(directory: &str) -> Outcome<Vec<FileRow>> {
    let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
    let mut out = Vec::new();
    let mut after = None;
    loop {
        let part = blobs::names(&prefix).delimiter("/").after(after.take()).list()?;
        for entry in part.entries {
            let (full, size_bytes) = match entry {
                Entry::Name(full, blob) => (full, Some(blob.size_bytes)),
                Entry::Prefix(full) => (full, None),
            };
            let name = full[prefix.len()..].trim_end_matches('/').to_owned();
            out.push(FileRow { name, size_bytes });
        }
        after = part.next;
        if after.is_none() || out.len() >= LISTING_ROWS_MAX {
            return Ok(out);
        }
    }
}

fn write_files(object: &mut Object<'_>, rows: &[FileRow], below: &str) {
    object.list("files", rows, |out, row| {
        let path = if below.is_empty() { row.name.clone() } else { format!("{below}/{}", row.name) };
        let mut file = Object::new(out);
        file.text("path", &path).boolean("is_dir", row.size_bytes.is_none());
        let size = row.size_bytes.filter(|size| *size > 0).and_then(|size| i64::try_from(size).ok());
        file.maybe_integer("file_size", size).end();
    });
}

/// `GET mlflow-artifacts/artifacts?path=<directory>`
pub fn list_proxied(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(&[optional("path", Kind::Text)])?;
    let directory = match args.text("path") {
        Some(path) => checked_name(path)?,
        None => "",
    };
    let rows = rows(directory)?;
    Ok(json::object(|o| write_files(o, &rows, "")))
}

const LIST: &[Field] =
    &[required("run_id", Kind::Text), optional("path", Kind::Text), optional("page_token", Kind::Text)];

/// `artifacts/list`: the files of a run.
pub fn list_of_run(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(LIST)?;
    let run_id = args.text_or_empty("run_id");
    let run = index::document(store::indexes::RUNS, run_id)?.ok_or_else(|| runs::not_found(run_id))?;
    list_below(run.as_ref().text("artifact_uri").unwrap_or(""), args.text("path"))
}

/// Files below a root, with paths relative to the root.
pub fn list_below(root: &str, path: Option<&str>) -> Outcome<Vec<u8>> {
    let below = match path {
        Some(path) => checked_name(path)?,
        None => "",
    };
    let Some(kept) = path_of(root) else {
        return Err(Failure::new(
            Code::NotImplemented,
            format!("The artifacts are at '{root}', outside of this server; ask there"),
        ));
    };
    let directory = if below.is_empty() { kept.to_owned() } else { format!("{kept}/{below}") };
    let rows = rows(&directory)?;
    Ok(json::object(|o| {
        o.text("root_uri", root);
        write_files(o, &rows, below);
    }))
}

/// Files of a model, for who needs them by content: path below the root and digest, at most `limit`.
pub fn files_below(root: &str, limit: u32) -> Outcome<Vec<(String, String)>> {
    let Some(directory) = path_of(root) else { return Ok(Vec::new()) };
    let prefix = format!("{directory}/");
    let listing = blobs::names(&prefix).limit(limit).list()?;
    Ok(listing
        .entries
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Name(name, blob) => Some((name[prefix.len()..].to_owned(), blob.sha256)),
            Entry::Prefix(_) => None,
        })
        .collect())
}

/// `DELETE mlflow-artifacts/artifacts/<path>`: a file, or everything below a directory.
pub fn delete(path: &str) -> Outcome<Vec<u8>> {
    let name = checked_name(path)?;
    remove_names(name)?;
    Ok(b"{}".to_vec())
}

/// Remove a name and everything below it; how many there were.
pub fn remove_names(name: &str) -> Outcome<u64> {
    let mut removed = 0;
    if let Some(blob) = blobs::lookup(name)? {
        removed += remove(&[(name.to_owned(), blob)])?;
    }
    loop {
        let listing = blobs::names(format!("{name}/")).limit(REMOVAL_STEP).list()?;
        let files: Vec<_> = listing
            .entries
            .into_iter()
            .filter_map(|entry| match entry {
                Entry::Name(name, blob) => Some((name, blob)),
                Entry::Prefix(_) => None,
            })
            .collect();
        if files.is_empty() {
            return Ok(removed);
        }
        removed += remove(&files)?;
        keys::renew()?;
    }
}

fn remove(files: &[(String, BlobInfo)]) -> Outcome<u64> {
    let mut current = files.to_vec();
    let mut is_again = false;
    change(|tx| {
        if std::mem::replace(&mut is_again, true) {
            // Somebody else replaced or removed one of them.
            current.clear();
            for (name, _) in files {
                current.extend(blobs::lookup(name)?.map(|blob| (name.clone(), blob)));
            }
        }
        // Several names may refer to one blob: count them together, or each would see the same number.
        let mut names_of: Vec<(&BlobInfo, &str, i64)> = Vec::new();
        for (name, blob) in &current {
            tx.expect_unchanged(store::artifact_key(name))?;
            tx.delete(store::artifact_key(name))?;
            tx.blobs().unlink(name)?;
            let bucket = bucket_of(name);
            match names_of.iter_mut().find(|(known, at, _)| known.sha256 == blob.sha256 && *at == bucket) {
                Some((_, _, count)) => *count += 1,
                None => names_of.push((blob, bucket, 1)),
            }
        }
        names_of.iter().try_for_each(|(blob, bucket, count)| account(tx, bucket, blob, -count))
    })?;
    Ok(files.len() as u64)
}

/// `get-artifact?run_id&path`: a file of a run, for pages in a browser.
pub fn download_of_run(query: &mainstay_sdk::http::QueryString) -> Outcome<Reply> {
    let run_id = query.get("run_id").or_else(|| query.get("run_uuid")).unwrap_or("");
    let run = index::document(store::indexes::RUNS, run_id)?.ok_or_else(|| runs::not_found(run_id))?;
    download_below(run.as_ref().text("artifact_uri").unwrap_or(""), query.get("path"))
}

/// `model-versions/get-artifact?name&version&path`
pub fn download_of_version(query: &mainstay_sdk::http::QueryString) -> Outcome<Reply> {
    let model = crate::registry::find(query.get("name").unwrap_or(""))?;
    let version = crate::validate::version(query.get("version").unwrap_or(""))?;
    let document = crate::registry::versions::document(&model, version)?;
    download_below(document.as_ref().text("storage_location").unwrap_or(""), query.get("path"))
}

/// A file below a root.
pub fn download_below(root: &str, path: Option<&str>) -> Outcome<Reply> {
    let path = path.filter(|path| !path.is_empty()).ok_or_else(|| crate::validate::missing_value("path"))?;
    let path = checked_name(path)?;
    match path_of(root) {
        Some(root) => download(&format!("{root}/{path}")),
        None => Err(Failure::missing(format!("The artifacts are at '{root}', outside of this server; ask there"))),
    }
}

/// What is not done in parts here, in the words on which clients fall back to sending the whole.
pub fn no_multipart() -> Failure {
    Failure::new(Code::NotImplemented, "Multipart upload is not supported for the current artifact repository")
}

/// The same for addresses that work without asking.
pub fn no_presigned() -> Failure {
    Failure::new(Code::NotImplemented, "Presigned URLs are not supported for the current artifact repository")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        #[track_caller]
        fn check(path: &str, expect: Option<&str>) {
            assert_eq!(checked_name(path).ok(), expect, "{path:?}");
        }
        check("0/r/artifacts/a.txt", Some("0/r/artifacts/a.txt"));
        check("0/größe ü/x%20y", Some("0/größe ü/x%20y"));
        check("dir/", Some("dir"));
        check("a/..b/c...", Some("a/..b/c..."));
        for bad in [
            "",
            "/",
            "/etc/passwd",
            "a/../b",
            "..",
            "a/./b",
            "a//b",
            "%2e%2e/a",
            "a/%252e%252e/b",
            "a/%2e%2e%2fb",
            "C:/x",
            "C:\\x",
            "\\\\host\\x",
            "a#b",
            "a\0b",
            "file:///etc/passwd",
            "%00",
        ] {
            check(bad, None);
        }
        check(&"a".repeat(1_024), Some(&"a".repeat(1_024)));
        check(&"a".repeat(1_025), None);
    }

    #[test]
    fn locations() {
        #[track_caller]
        fn check(location: &str, expect: Option<&str>) {
            assert_eq!(path_of(location), expect, "{location}");
        }
        check("mlflow-artifacts:/0/r/artifacts", Some("0/r/artifacts"));
        check("mlflow-artifacts://host:5000/0/r/", Some("0/r"));
        check("mlflow-artifacts:/", Some(""));
        check("s3://bucket/x", None);
        check("mlflow-artifacts://host", None);
    }

    #[test]
    fn media_types_never_run() {
        #[track_caller]
        fn check(file: &str, expect: &str) {
            assert_eq!(media_type(file), expect, "{file}");
        }
        check("a.HTML", "text/plain; charset=utf-8");
        check("MLmodel", "text/plain; charset=utf-8");
        check("a.svg", "text/plain; charset=utf-8");
        check("model.pkl", "application/octet-stream");
        check("a.png", "image/png");
        check("noending", "application/octet-stream");
    }
}
