//! `mainstay endpoint …`: stable names with models behind them, on a running server; and `mainstay model import`.
//!
//! Owns the file of a specification, the difference that is shown before it is applied, and how endpoints are shown. Separate
//! from the admin API, which it calls. On failure: file, line and column for what is written wrongly; else the server's own
//! message. Bounded by the admin API.

use crate::admin_client::AdminClient;
use crate::cli::EndpointCommand;
use crate::exit::{Exit, Failure, say};
use crate::settings::Settings;
use mainstay_base::{Error, Result};
use mainstay_gateway::{EndpointChange, EndpointOrder, PlanOrder};
use mainstay_market::located::{Document, check};
use mainstay_traffic::EndpointSpec;
use schemars::generate::SchemaSettings;
use serde_json::Value;
use std::io::Write;
use std::path::Path;
use std::sync::LazyLock;

/// The longest file or folder that is imported.
const IMPORT_BYTES_MAX: u64 = 128 << 20;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<EndpointSpec>().to_value()
});

/// Read and check a specification's text.
pub fn parse(name: &str, text: &str) -> Result<EndpointSpec> {
    static VALIDATOR: LazyLock<jsonschema::Validator> =
        LazyLock::new(|| jsonschema::validator_for(&SCHEMA).expect("a generated schema is valid"));
    let document = Document::parse(name, text)?;
    document.refuse(check(&SCHEMA, &VALIDATOR, document.value(), "the file"))?;
    let spec: EndpointSpec = serde_json::from_value(document.value().clone())
        .map_err(|error| Error::invalid(format!("{name}: {error}; docs/guide/endpoints.md has every field")))?;
    spec.check().map_err(|error| error.context(name))?;
    Ok(spec)
}

/// Run an endpoint command.
pub fn run(settings: &Settings, command: EndpointCommand) -> std::result::Result<Exit, Failure> {
    let client = || AdminClient::of_running(&settings.data, "endpoint");
    match command {
        EndpointCommand::Apply { file, dry_run, why } => apply(&client()?, &file, dry_run, why)?,
        EndpointCommand::List { json } => list(&client()?, json)?,
        EndpointCommand::Show { endpoint } => print_json(&client()?.endpoint(&endpoint)?)?,
        EndpointCommand::Rm { endpoint } => {
            client()?.remove_endpoint(&endpoint)?;
            say!("Removed `{endpoint}`.");
        }
        EndpointCommand::Plan { endpoint, named, version, why } => plan(&client()?, &endpoint, named, version, why)?,
        EndpointCommand::History { endpoint } => history(&client()?, &endpoint)?,
    }
    Ok(Exit::Done)
}

fn apply(client: &AdminClient, path: &Path, dry_run: bool, why: String) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("read the endpoint", path, error))?;
    let spec = parse(&path.display().to_string(), &text)?;
    let name = spec.name.clone();
    let order = EndpointOrder { spec, revision: None, dry_run: true, why };
    let EndpointChange { changes, .. } = client.apply_endpoint(&order)?;
    match changes.is_empty() {
        true => say!("endpoint {name}: unchanged"),
        false => changes.iter().for_each(|change| say!("{change}")),
    }
    if dry_run {
        say!("Nothing was changed.");
        return Ok(());
    }
    if !changes.is_empty() {
        let applied = client.apply_endpoint(&EndpointOrder { dry_run: false, ..order })?;
        if let Some(record) = applied.endpoint {
            say!("endpoint {name}: revision {}, plan {}", record.revision, record.active.version);
        }
    }
    Ok(())
}

fn list(client: &AdminClient, json: bool) -> Result<()> {
    let endpoints = client.endpoints()?;
    if json {
        return print_json(&endpoints);
    }
    if endpoints.is_empty() {
        say!("There is no endpoint; `mainstay endpoint apply FILE` makes one.");
    }
    for endpoint in &endpoints {
        say!("{}, plan {}", text(&endpoint["name"]), endpoint["plan-version"]);
        for variant in endpoint["variants"].as_array().into_iter().flatten() {
            let breaker = text(&variant["breaker"]);
            let state = match (&variant["identity"], &variant["reason"]) {
                (Value::Object(of), _) => format!("{} version {}", text(&of["model"]), text(&of["version"])),
                (_, reason) => format!("not ready: {}", text(reason)),
            };
            say!("  {}: {state}, breaker {breaker}", text(&variant["name"]));
        }
    }
    Ok(())
}

fn plan(
    client: &AdminClient,
    endpoint: &str,
    named: Option<String>,
    version_of_history: Option<u64>,
    why: String,
) -> Result<()> {
    let seen = client.endpoint(endpoint)?;
    let version = seen["endpoint"]["active"]["version"].as_u64().unwrap_or_default();
    let order = PlanOrder { plan: None, named, version_of_history, version, why };
    let record = client.set_plan(endpoint, &order)?;
    say!("`{endpoint}` has plan {} now.", record["version"]);
    Ok(())
}

fn history(client: &AdminClient, endpoint: &str) -> Result<()> {
    let history = client.plans(endpoint)?;
    for plan in history["plans"].as_array().into_iter().flatten() {
        let name = plan["name"].as_str().map_or_else(String::new, |name| format!(" ({name})"));
        let at = plan["at-ms"].as_i64().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let at = at.map_or_else(String::new, |at| at.to_string());
        say!("plan {}{name}: {at} by {}: {}", plan["version"], text(&plan["by"]), text(&plan["why"]));
    }
    Ok(())
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn print_json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).map_err(|error| Error::internal(error.to_string()))?;
    say!("{text}");
    Ok(())
}

/// Register a version of a model out of a file or a folder.
pub fn import(settings: &Settings, name: &str, path: &Path) -> std::result::Result<Exit, Failure> {
    let archive = packed(path)?;
    let imported = AdminClient::of_running(&settings.data, "model import")?.import_model(name, archive)?;
    say!("Registered `{name}` version {} ({}).", imported.version, imported.platform);
    say!("Name it in an endpoint as `models:/{name}/{}`.", imported.version);
    Ok(Exit::Done)
}

/// A tar archive of a file, or of everything in a folder.
fn packed(path: &Path) -> Result<Vec<u8>> {
    let failed = |error: std::io::Error| Error::io("read the model", path, error);
    let length = size(path).map_err(failed)?;
    if length > IMPORT_BYTES_MAX {
        let words = format!("`{}` has {length} bytes; at most {IMPORT_BYTES_MAX} are imported", path.display());
        return Err(Error::invalid(words));
    }
    let mut builder = tar::Builder::new(Vec::new());
    if path.is_dir() {
        add(&mut builder, path, Path::new("")).map_err(failed)?;
    } else {
        let name = path.file_name().ok_or_else(|| Error::invalid(format!("`{}` is no file", path.display())))?;
        builder.append_path_with_name(path, name).map_err(failed)?;
    }
    builder.into_inner().and_then(|mut bytes| bytes.flush().map(|()| bytes)).map_err(failed)
}

fn add(builder: &mut tar::Builder<Vec<u8>>, folder: &Path, inside: &Path) -> std::io::Result<()> {
    let mut entries: Vec<_> = std::fs::read_dir(folder)?.collect::<std::io::Result<_>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let (path, name) = (entry.path(), inside.join(entry.file_name()));
        match path.is_dir() {
            true => add(builder, &path, &name)?,
            false => builder.append_path_with_name(&path, &name)?,
        }
    }
    Ok(())
}

fn size(path: &Path) -> std::io::Result<u64> {
    if !path.is_dir() {
        return Ok(std::fs::metadata(path)?.len());
    }
    std::fs::read_dir(path)?.map(|entry| size(&entry?.path())).sum()
}
