//! Where a version's files are: what clients give as `source`, checked and resolved.
//!
//! Pure but for the look-ups. A source must lie inside what it claims to come from: a version that names a run and
//! points elsewhere would make the provenance chain a lie, and a path of this machine would let clients read its disk.

use crate::errors::{Failure, Outcome};
use crate::store::indexes;
use crate::{artifacts, models, registry, validate};
use mainstay_sdk::index;

/// What a source turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// As it is kept.
    pub source: String,
    /// Where files are loaded from.
    pub storage: String,
    /// The run it comes from.
    pub run_id: Option<String>,
    /// The logged model it is.
    pub model_id: Option<String>,
}

fn invalid(source: &str, id_name: &str) -> Failure {
    Failure::invalid(format!(
        "Invalid model version source: '{source}'. The {id_name} request parameter must identify the resource that \
         contains the source."
    ))
}

/// A `models:` address taken apart.
#[derive(Debug, PartialEq, Eq)]
enum Address<'a> {
    Logged(&'a str),
    Version(&'a str, i64),
    Stage(&'a str, &'a str),
    Alias(&'a str, &'a str),
}

fn address(source: &str) -> Option<Address<'_>> {
    let path = source.strip_prefix("models:")?.strip_prefix('/')?;
    if path.is_empty() || path.starts_with('/') {
        return None;
    }
    match path.split_once('/') {
        Some((_, rest)) if rest.is_empty() || rest.contains('/') => None,
        Some((name, rest)) => Some(match rest.parse() {
            Ok(version) => Address::Version(name, version),
            Err(_) if rest.eq_ignore_ascii_case("latest") => Address::Alias(name, "latest"),
            Err(_) => Address::Stage(name, rest),
        }),
        None => Some(match path.rsplit_once('@') {
            Some((name, alias)) if !alias.is_empty() => Address::Alias(name, alias),
            Some(_) => return None,
            None => Address::Logged(path),
        }),
    }
}

/// Check and resolve a source.
pub fn resolve(source: &str, run_id: Option<&str>, model_id: Option<&str>) -> Outcome<Source> {
    let plain = |storage: &str, run: Option<&str>, model: Option<&str>| Source {
        source: source.to_owned(),
        storage: storage.to_owned(),
        run_id: run.map(str::to_owned),
        model_id: model.map(str::to_owned),
    };
    let mut resolved = match source.split_once(':') {
        Some(("models", _)) => match address(source).ok_or_else(|| invalid(source, "model_id"))? {
            Address::Logged(id) if model_id.is_none_or(|given| given == id) => {
                let root = models::artifact_root(id).map_err(|_| invalid(source, "model_id"))?;
                plain(&root, run_id, Some(id))
            }
            Address::Logged(_) => return Err(invalid(source, "model_id")),
            other => registered(source, &other, run_id, model_id)?,
        },
        Some(("runs", rest)) => {
            let run = rest.trim_start_matches('/').split('/').next().unwrap_or("");
            if rest.starts_with("//") || run_id != Some(run) {
                return Err(invalid(source, "run_id"));
            }
            must_be_clean(source)?;
            plain(source, run_id, model_id)
        }
        _ if is_local(source) => {
            return Err(Failure::invalid(format!(
                "Invalid model version source: '{source}'. To use a local path as a model version source, the run_id \
                 request parameter has to be specified and the local path has to be contained within the artifact \
                 directory of the run specified by the run_id."
            )));
        }
        _ => {
            must_be_clean(source)?;
            if artifacts::path_of(source).is_some() {
                must_be_inside(source, run_id, model_id)?;
            }
            plain(source, run_id, model_id)
        }
    };
    if let (None, Some(id)) = (&resolved.run_id, &resolved.model_id) {
        let document = models::document(id).map_err(|_| invalid(source, "model_id"))?;
        let run = document.as_ref().text("source_run_id").filter(|run| !run.is_empty());
        resolved.run_id = run.map(str::to_owned);
    }
    Ok(resolved)
}

fn registered(source: &str, address: &Address<'_>, run_id: Option<&str>, model_id: Option<&str>) -> Outcome<Source> {
    let (Address::Version(name, _) | Address::Stage(name, _) | Address::Alias(name, _)) = address else {
        return Err(invalid(source, "model_id"));
    };
    let model = registry::find(name)?;
    if model.record.is_prompt {
        return Err(Failure::invalid(format!(
            "Invalid model version source: '{source}'. Prompt versions cannot be used as model version sources."
        )));
    }
    let version = match address {
        Address::Version(_, version) => *version,
        Address::Alias(_, alias) => registry::resolve_alias(&model, alias)?,
        Address::Stage(_, stage) => {
            let stage = registry::canonical_stage(stage)?;
            model
                .document()?
                .as_ref()
                .integer(&format!("latest.{stage}"))
                .ok_or_else(|| Failure::missing(format!("Model '{name}' has no version in stage {stage}")))?
        }
        Address::Logged(_) => return Err(invalid(source, "model_id")),
    };
    let document = registry::versions::document(&model, version)?;
    let known = document.as_ref();
    let (run, logged) = (known.text("run_id").unwrap_or(""), known.text("model_id").unwrap_or(""));
    if run_id.is_some_and(|given| given != run) || model_id.is_some_and(|given| given != logged) {
        return Err(Failure::invalid(format!(
            "Invalid model version source: '{source}'. The run_id and model_id request parameters must match the \
             referenced model version."
        )));
    }
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Ok(Source {
        source: format!("models:/{name}/{version}"),
        storage: known.text("storage_location").or(known.text("source")).unwrap_or("").to_owned(),
        run_id: some(run),
        model_id: some(logged),
    })
}

fn is_local(source: &str) -> bool {
    match source.split_once(':') {
        Some(("file", _)) => true,
        // A single letter is a drive, and what is behind a slash is no scheme.
        Some((scheme, _)) => scheme.len() <= 1 || scheme.contains(['/', '\\', '.']),
        None => source.contains(['/', '\\']) || source == "." || source == "..",
    }
}

/// Refuse relative parts, however often they are escaped.
fn must_be_clean(source: &str) -> Outcome<()> {
    let path = source.split_once(':').map_or(source, |(_, rest)| rest);
    let path = path.split(['?', '#']).next().unwrap_or(path).trim_start_matches('/');
    if !path.is_empty() && artifacts::is_unsafe(&collapsed(path)) {
        return Err(Failure::invalid(format!(
            "Invalid model version source: '{source}'. If supplying a source as an http, https, local file path, ftp, \
             objectstore, or mlflow-artifacts uri, an absolute path must be provided without relative path references \
             present. Please provide an absolute path."
        )));
    }
    Ok(())
}

/// Without empty parts, which are harmless in addresses.
fn collapsed(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/")
}

fn must_be_inside(source: &str, run_id: Option<&str>, model_id: Option<&str>) -> Outcome<()> {
    let (root, id_name) = if let Some(id) = model_id {
        (models::artifact_root(id).map_err(|_| invalid(source, "model_id"))?, "model_id")
    } else if let Some(run_id) = run_id {
        let run = index::document(indexes::RUNS, run_id)?.ok_or_else(|| invalid(source, "run_id"))?;
        (run.as_ref().text("artifact_uri").unwrap_or("").to_owned(), "run_id")
    } else {
        return Err(invalid(source, "run_id"));
    };
    let inside = match (artifacts::path_of(source), artifacts::path_of(&root)) {
        (Some(path), Some(root)) => path == root || path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/')),
        _ => false,
    };
    if inside { Ok(()) } else { Err(invalid(source, id_name)) }
}

/// A prompt has no files; its source is one of the words that clients put there.
pub fn of_prompt(source: &str) -> Outcome<Source> {
    if source.contains(['/', ':', '\\']) {
        return Err(Failure::invalid(format!(
            "Invalid prompt source: '{source}'. Prompt sources must use an MLflow placeholder."
        )));
    }
    validate::length("source", 500, source)?;
    Ok(Source { source: source.to_owned(), storage: source.to_owned(), run_id: None, model_id: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        #[track_caller]
        fn check(source: &str, expect: Option<Address<'_>>) {
            assert_eq!(address(source), expect, "{source}");
        }
        check("models:/m-1", Some(Address::Logged("m-1")));
        check("models:/a/3", Some(Address::Version("a", 3)));
        check("models:/a/Production", Some(Address::Stage("a", "Production")));
        check("models:/a/LATEST", Some(Address::Alias("a", "latest")));
        check("models:/a@best", Some(Address::Alias("a", "best")));
        check("models:/", None);
        check("models://a/1", None);
        check("models:/a/", None);
        check("models:/a/1/b", None);
        check("models:/a@", None);
    }

    #[test]
    fn local_paths_are_known() {
        #[track_caller]
        fn check(source: &str, expect: bool) {
            assert_eq!(is_local(source), expect, "{source}");
        }
        for local in ["/etc/passwd", "file:///x", "./x", "../x", "C:\\x", "a/b:c", ".."] {
            check(local, true);
        }
        for elsewhere in ["s3://b/x", "dbfs:/x", "mlflow-artifacts:/0/x", "dummy-source", "https://h/x"] {
            check(elsewhere, false);
        }
    }

    #[test]
    fn relative_parts_are_refused() {
        #[track_caller]
        fn check(source: &str, ok: bool) {
            assert_eq!(must_be_clean(source).is_ok(), ok, "{source}");
        }
        check("s3://bucket/a/b", true);
        check("s3://bucket//a/b/", true);
        check("s3:/bucket/a/../../b", false);
        check("mlflow-artifacts://host:5000/../x", false);
        check("mlflow-artifacts:/0/..%2f..%2fx", false);
        check("http://host/api/2.0/mlflow-artifacts/artifacts%00", false);
        check("runs:/r/a/./b", false);
    }
}
