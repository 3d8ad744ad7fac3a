//! Tracking and model registry for MLflow's clients, as a sandboxed plugin.
//!
//! This file is the table of what answers where. Pure modules (`wire`, `validate`, `search`, `history`, `json`, `names`)
//! know nothing of the host; the others read and write through `store`. Every handler returns bytes or a [`Failure`],
//! which becomes the API's error envelope. Beside requests there are two timers (`stale`, `removal`) and the plugin's own
//! events, which `webhooks` hands to those who wait for them. Bounded by the manifest's limits and by `validate`.

pub mod artifacts;
pub mod errors;
pub mod events;
pub mod experiments;
pub mod history;
pub mod inputs;
pub mod json;
pub mod metrics;
pub mod models;
pub mod names;
pub mod paging;
pub mod provenance;
pub mod registry;
pub mod removal;
pub mod runs;
pub mod search;
pub mod settings;
pub mod stale;
pub mod store;
pub mod traces;
pub mod validate;
pub mod webhooks;
pub mod wire;

use errors::{Code, Failure, Outcome};
use mainstay_sdk::blobs::BlobInfo;
use mainstay_sdk::http::{Reply, Request};
use mainstay_sdk::worker::{Event, Timer};
use mainstay_sdk::{Api, Result, Worker};
use registry::versions;
use wire::Args;

/// The plugin.
pub struct Tracking;

mainstay_sdk::export_api!(Tracking);
mainstay_sdk::export_worker!(Tracking, beside api);

impl Api for Tracking {
    fn start(_previous: Option<&str>) -> Result<()> {
        experiments::start().and_then(|()| removal::start()).map_err(mainstay_sdk::Error::from)
    }

    fn handle(request: &Request) -> Result<Reply> {
        Ok(route(request).unwrap_or_else(|failure| refuse(&failure)))
    }

    fn received(request: &Request, blob: BlobInfo) -> Result<Reply> {
        let outcome = match place(request.path()) {
            Place::Artifact(path) => artifacts::uploaded(path, &blob),
            _ => Err(no_such_endpoint(request)),
        };
        Ok(outcome.unwrap_or_else(|failure| refuse(&failure)))
    }
}

impl Worker for Tracking {
    fn on_event(event: &Event) -> Result<()> {
        webhooks::delivery::on_event(event)
    }

    fn on_timer(timer: &Timer) -> Result<()> {
        match timer.name() {
            "close-stale-runs" => stale::tick()?,
            "remove-deleted" => removal::tick()?,
            other => return Err(mainstay_sdk::Error::invalid(format!("this plugin has no timer `{other}`"))),
        }
        Ok(())
    }
}

fn refuse(failure: &Failure) -> Reply {
    Reply::status(failure.code.status()).header("content-type", "application/json").with_body(failure.body())
}

fn answer(body: Vec<u8>) -> Reply {
    Reply::status(200).header("content-type", "application/json").with_body(body)
}

fn no_such_endpoint(request: &Request) -> Failure {
    Failure::new(Code::EndpointNotFound, format!("No endpoint for {} {}", request.method(), request.path()))
}

/// Which family of endpoints a path belongs to.
enum Place<'a> {
    /// The 2.0 API, behind its prefix.
    Api(&'a str),
    /// The 3.0 API, behind its prefix.
    Api3(&'a str),
    /// A file.
    Artifact(&'a str),
    /// The rest of the artifact API.
    ArtifactApi(&'a str),
    /// Anything else.
    Root(&'a str),
}

fn place(path: &str) -> Place<'_> {
    let api = path.strip_prefix("/api/").or_else(|| path.strip_prefix("/ajax-api/"));
    let Some(rest) = api else { return Place::Root(path.strip_prefix("/tracking").unwrap_or(path)) };
    if let Some(rest) = rest.strip_prefix("2.0/mlflow/") {
        Place::Api(rest)
    } else if let Some(rest) = rest.strip_prefix("2.0/mlflow-artifacts/") {
        match rest.strip_prefix("artifacts/") {
            Some(path) if !path.is_empty() => Place::Artifact(path),
            _ => Place::ArtifactApi(rest),
        }
    } else if let Some(rest) = rest.strip_prefix("3.0/mlflow/") {
        Place::Api3(rest)
    } else {
        Place::Root(path)
    }
}

fn route(request: &Request) -> Outcome<Reply> {
    let method = request.method();
    match place(request.path()) {
        Place::Api(rest) => api(request, method, rest),
        Place::Artifact(path) => match method {
            "GET" | "HEAD" => artifacts::download(path),
            "PUT" => artifacts::upload(request, path),
            "DELETE" => artifacts::delete(path).map(answer),
            _ => Err(no_such_endpoint(request)),
        },
        Place::ArtifactApi(rest) => artifact_api(request, method, rest),
        Place::Api3(rest) => api3(request, method, rest),
        Place::Root(rest) => root(request, method, rest),
    }
}

/// Requests that are one table row: method, path, handler of the fields.
type Handler = fn(Args) -> Outcome<Vec<u8>>;

const API: &[(&str, &str, Handler)] = &[
    ("POST", "runs/log-metric", metrics::log_metric),
    ("POST", "runs/log-parameter", metrics::log_param),
    ("POST", "runs/set-tag", runs::set_tag),
    ("POST", "runs/delete-tag", runs::delete_tag),
    ("GET", "runs/get", runs::get),
    ("POST", "runs/search", runs::search),
    ("POST", "runs/log-inputs", inputs::log_inputs),
    ("POST", "runs/outputs", inputs::log_outputs),
    ("GET", "metrics/get-history", metrics::get_history),
    ("GET", "metrics/get-history-bulk-interval", metrics::get_history_interval),
    ("POST", "experiments/create", experiments::create),
    ("GET", "experiments/get", experiments::get),
    ("GET", "experiments/get-by-name", experiments::get_by_name),
    ("POST", "experiments/search", experiments::search),
    ("GET", "experiments/search", experiments::search),
    ("POST", "experiments/update", experiments::update),
    ("POST", "experiments/set-experiment-tag", experiments::set_tag),
    ("POST", "experiments/delete-experiment-tag", experiments::delete_tag),
    ("POST", "experiments/search-datasets", inputs::search_datasets),
    ("GET", "artifacts/list", artifacts::list_of_run),
    ("POST", "logged-models", models::create),
    ("POST", "logged-models/search", models::search),
    ("GET", "registered-models/get", registry::get),
    ("GET", "registered-models/search", registry::search),
    ("POST", "registered-models/get-latest-versions", registry::get_latest_versions),
    ("GET", "registered-models/get-latest-versions", registry::get_latest_versions),
    ("GET", "registered-models/alias", registry::get_by_alias),
    ("GET", "model-versions/get", versions::get),
    ("GET", "model-versions/search", versions::search),
    ("GET", "model-versions/get-download-uri", versions::get_download_uri),
    ("GET", "webhooks", webhooks::list),
];

/// The same where it is kept or told who asked.
type SignedHandler = fn(Args, &str) -> Outcome<Vec<u8>>;

const SIGNED: &[(&str, &str, SignedHandler)] = &[
    ("POST", "runs/create", runs::create),
    ("POST", "runs/update", runs::update),
    ("POST", "runs/delete", runs::delete),
    ("POST", "runs/restore", runs::restore),
    ("POST", "experiments/delete", experiments::delete),
    ("POST", "experiments/restore", experiments::restore),
    ("POST", "registered-models/create", registry::create),
    ("PATCH", "registered-models/update", registry::update),
    ("POST", "registered-models/rename", registry::rename),
    ("DELETE", "registered-models/delete", registry::delete),
    ("POST", "registered-models/set-tag", registry::set_tag),
    ("PATCH", "registered-models/set-tag", registry::set_tag),
    ("DELETE", "registered-models/delete-tag", registry::delete_tag),
    ("DELETE", "registered-models/alias", registry::delete_alias),
    ("POST", "model-versions/create", versions::create),
    ("PATCH", "model-versions/update", versions::update),
    ("DELETE", "model-versions/delete", versions::delete),
    ("POST", "model-versions/set-tag", versions::set_tag),
    ("PATCH", "model-versions/set-tag", versions::set_tag),
    ("DELETE", "model-versions/delete-tag", versions::delete_tag),
    ("POST", "webhooks", webhooks::create),
];

/// Fields of which several values may stand in a query string.
const LISTS: &[wire::Field] = &[
    wire::optional("order_by", wire::Kind::Texts),
    wire::optional("run_ids", wire::Kind::Texts),
    wire::optional("experiment_ids", wire::Kind::Texts),
    wire::optional("stages", wire::Kind::Texts),
];

fn fields(request: &Request) -> Outcome<Args> {
    Args::read(request, LISTS)
}

fn api(request: &Request, method: &str, rest: &str) -> Outcome<Reply> {
    if method == "POST" && rest == "runs/log-batch" {
        wire::must_be_json(request)?;
        return metrics::log_batch(request.bytes()?).map(answer);
    }
    if let Some((_, _, handler)) = API.iter().find(|(of, path, _)| *of == method && *path == rest) {
        return handler(fields(request)?).map(answer);
    }
    let by = request.caller().principal.as_str();
    if let Some((_, _, handler)) = SIGNED.iter().find(|(of, path, _)| *of == method && *path == rest) {
        return handler(fields(request)?, by).map(answer);
    }
    match (method, rest) {
        ("POST", "registered-models/alias") => registry::set_alias(fields(request)?, by).map(warned),
        ("POST", "model-versions/transition-stage") => versions::transition(fields(request)?, by).map(warned),
        ("GET", "metrics/get-history-bulk") => metrics::get_history_bulk(request.query()).map(answer),
        ("GET", "get-artifact") => artifacts::download_of_run(request.query()),
        ("GET", "model-versions/get-artifact") => artifacts::download_of_version(request.query()),
        _ if rest.starts_with("logged-models/") => logged_model(request, method, &rest["logged-models/".len()..]),
        _ if rest == "traces" || rest.starts_with("traces/") => traces::v2(method, rest),
        _ if rest.starts_with("webhooks/") => webhook(request, method, &rest["webhooks/".len()..]),
        ("POST", "artifacts/presigned-upload-url" | "artifacts/presigned-download-url") => {
            Err(artifacts::no_presigned())
        }
        _ => Err(no_such_endpoint(request)),
    }
}

fn warned((body, warning): (Vec<u8>, Option<String>)) -> Reply {
    let reply = answer(body);
    match warning {
        Some(text) => {
            // Headers are ASCII without line breaks; names of models need not be.
            let text: String =
                text.chars().map(|c| if c.is_ascii() && !c.is_ascii_control() { c } else { '?' }).collect();
            reply.header("x-mainstay-warning", text)
        }
        None => reply,
    }
}

fn logged_model(request: &Request, method: &str, rest: &str) -> Outcome<Reply> {
    let (id, below) = rest.split_once('/').map_or((rest, None), |(id, below)| (id, Some(below)));
    match (method, below) {
        ("GET", None) => {
            let allow_deleted = request.query().get("allow_deleted").is_some_and(|v| v.eq_ignore_ascii_case("true"));
            models::get(id, allow_deleted).map(answer)
        }
        ("PATCH", None) => models::finalize(id, fields(request)?).map(answer),
        ("DELETE", None) => models::delete(id).map(answer),
        ("PATCH", Some("tags")) => models::set_tags(id, fields(request)?).map(answer),
        ("DELETE", Some(below)) if below.starts_with("tags/") => models::delete_tag(id, &below[5..]).map(answer),
        ("POST", Some("params")) => models::log_params(id, fields(request)?).map(answer),
        ("GET", Some("artifacts/directories")) => {
            let root = models::artifact_root(id)?;
            let path = request.query().get("artifact_directory_path").filter(|path| !path.is_empty());
            artifacts::list_below(&root, path).map(answer)
        }
        ("GET", Some("artifacts/files")) => {
            let root = models::artifact_root(id)?;
            artifacts::download_below(&root, request.query().get("artifact_file_path"))
        }
        _ => Err(no_such_endpoint(request)),
    }
}

fn webhook(request: &Request, method: &str, rest: &str) -> Outcome<Reply> {
    let by = request.caller().principal.as_str();
    let (id, below) = rest.split_once('/').map_or((rest, None), |(id, below)| (id, Some(below)));
    match (method, below) {
        ("GET", None) => webhooks::get(id).map(answer),
        ("PATCH", None) => webhooks::update(id, fields(request)?, by).map(answer),
        ("DELETE", None) => webhooks::delete(id, by).map(answer),
        ("POST", Some("test")) => webhooks::delivery::test(id, fields(request)?).map(answer),
        _ => Err(no_such_endpoint(request)),
    }
}

fn artifact_api(request: &Request, method: &str, rest: &str) -> Outcome<Reply> {
    match (method, rest) {
        ("GET", "artifacts" | "artifacts/") => artifacts::list_proxied(fields(request)?).map(answer),
        _ if rest.starts_with("mpu/") => Err(artifacts::no_multipart()),
        _ if rest.starts_with("presigned/") => Err(artifacts::no_presigned()),
        _ => Err(no_such_endpoint(request)),
    }
}

fn api3(request: &Request, method: &str, rest: &str) -> Outcome<Reply> {
    match (method, rest) {
        ("GET", "server-info") => Ok(answer(server_info())),
        _ if rest == "traces" || rest.starts_with("traces/") => traces::v3(request, method, rest),
        _ => Err(no_such_endpoint(request)),
    }
}

/// The manifest asks for it too; removing for good deserves two locks.
fn must_be_admin(request: &Request) -> Outcome<()> {
    match request.caller().may("admin") {
        true => Ok(()),
        false => Err(Failure::new(Code::PermissionDenied, "Removing for good needs the right 'admin'.")),
    }
}

fn server_info() -> Vec<u8> {
    json::object(|o| {
        o.text("store_type", "SqlStore")
            .boolean("workspaces_enabled", false)
            .boolean("multipart_uploads_enabled", false)
            .boolean("multipart_downloads_enabled", false)
            .boolean("trace_archival_enabled", false);
    })
}

/// What is not the reference server's API: versions, health, and what this plugin adds.
fn root(request: &Request, method: &str, path: &str) -> Outcome<Reply> {
    let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
    let by = || request.caller().principal.as_str();
    match (method, parts.as_slice()) {
        ("GET" | "HEAD", ["version"]) => Ok(Reply::text(settings::get()?.emulated_version)),
        ("GET" | "HEAD", ["health"]) => Ok(Reply::text("OK")),
        ("POST", ["v1", "traces"]) => Err(traces::not_supported()),
        ("GET", ["get-artifact"]) => artifacts::download_of_run(request.query()),
        ("GET", ["provenance", "models", name, "versions", version]) => {
            provenance::of_version(name, version).map(answer)
        }
        ("GET", ["provenance", "runs", run_id]) => provenance::of_run(run_id).map(answer),
        ("GET", ["provenance", "datasets", name]) => {
            provenance::of_dataset(name, request.query().get("digest")).map(answer)
        }
        ("GET", ["registry", name, "decisions"]) => registry::decisions::list(name).map(answer),
        ("POST", ["registry", name, "decisions"]) => {
            registry::decisions::comment(name, fields(request)?, by()).map(answer)
        }
        ("GET", ["removals"]) => removal::list().map(answer),
        ("POST", ["removals"]) => {
            must_be_admin(request)?;
            removal::sweep(by()).map(answer)
        }
        ("DELETE", [kind @ ("runs" | "experiments" | "logged-models"), id]) => {
            must_be_admin(request)?;
            let is_permanent = request.query().get("permanent").is_some_and(|value| value.eq_ignore_ascii_case("true"));
            removal::remove_named(kind, id, is_permanent, by()).map(answer)
        }
        ("GET", ["quotas", bucket]) => {
            let (used, quota) = (artifacts::used_bytes(bucket)?, settings::get()?.artifact_quota_bytes);
            Ok(answer(json::object(|o| {
                o.text("experiment_id", bucket)
                    .integer("used_bytes", i64::try_from(used).unwrap_or(i64::MAX))
                    .maybe_integer("quota_bytes", Some(quota).filter(|q| *q > 0).and_then(|q| i64::try_from(q).ok()));
            })))
        }
        _ => Err(no_such_endpoint(request)),
    }
}
