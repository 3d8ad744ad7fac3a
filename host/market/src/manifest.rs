//! `plugin.toml`: what a plugin is, what it may do, and which requests it answers.
//!
//! Owns the typed manifest, its JSON Schema (generated from the types, committed as `docs/reference/plugin.schema.json`)
//! and the checks that a schema cannot express. Separate because the host believes nothing else about a plugin: rights,
//! limits and routes all come from here, are shown when it is installed and are pinned in the lockfile. Bounded by the
//! limits of the schema. On failure: every problem with file, line, column, and what to write instead.

use crate::located::{Document, Problem, check, list};
use crate::nearest::nearest;
use crate::worlds::WorldName;
use mainstay_base::{Error, Result};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::LazyLock;

/// Name of the manifest inside a package.
pub const MANIFEST_FILE: &str = "plugin.toml";

/// Names of the capabilities that a manifest may ask for. What each allows, and where it is checked, is the business of the
/// room that answers imports; the binary's tests hold the two lists together.
pub const CAPABILITIES: &[&str] = &[
    "keys",
    "index",
    "blobs",
    "directory.read",
    "directory.write",
    "arrays",
    "arrays.read",
    "models",
    "events.publish",
    "events.subscribe",
    "jobs.start",
    "outbound",
    "tables.append",
    "tables.read",
    "tables.aggregate",
    "traffic.infer",
    "traffic.read",
];

/// Paths that the host answers itself; no plugin may claim them.
pub const RESERVED_PATHS: &[&str] = &["/healthz", "/readyz", "/metrics"];
/// Prefixes that the host answers itself; no plugin may claim them or anything below.
pub const RESERVED_PREFIXES: &[&str] = &["/-/", "/plugins/", "/v2/"];

/// A plugin's manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Manifest {
    /// A name is 1 to 63 of `a-z`, `0-9` and `-`, and starts with a letter.
    #[schemars(regex(pattern = r"^[a-z][a-z0-9-]{0,62}$"), extend("examples" = ["tracking"]))]
    pub name: String,
    /// The version, three numbers by semver.org, for example `0.1.0`.
    #[schemars(with = "String", length(min = 5, max = 128), extend("examples" = ["0.1.0"]))]
    pub version: semver::Version,
    /// What the plugin does, in one line.
    #[schemars(length(min = 1, max = 200), extend("examples" = ["What it does, in one line"]))]
    pub description: String,
    /// SPDX expression of the licence.
    #[schemars(length(min = 1, max = 100), extend("examples" = ["Apache-2.0"]))]
    pub license: String,
    /// The component: a file in the manifest's folder or below it, whose path has no `..` and ends with `.wasm`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,200}\.wasm$"), extend("examples" = ["plugin.wasm"]))]
    pub component: String,
    /// The worlds that the component exports, with versions.
    #[schemars(length(min = 1, max = 6), inner(length(min = 1, max = 128)), extend("uniqueItems" = true, "examples" = [["mainstay:api/api@0.1.0"]]))]
    pub worlds: Vec<String>,
    /// What the plugin may do. Anything else is denied at the call.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 64)), extend("uniqueItems" = true))]
    pub capabilities: Vec<String>,
    /// Whether an instance may serve several calls. Quicker; but state left in memory is then seen by the next call.
    #[serde(default)]
    pub reuse: bool,
    /// Limits of each call; the host's defaults where nothing is written.
    #[serde(default)]
    pub limits: Limits,
    /// Settings that the operator may give.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ConfigFile")]
    pub config: Option<ConfigFile>,
    /// Requests that a plugin of the world `api` answers at the root. Within one plugin the longest claim wins.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    pub routes: Vec<Route>,
    /// Topics whose events a plugin of the world `worker` is told of: the publishing plugin's name, `/`, and its topic.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(regex(pattern = r"^[a-z][a-z0-9-]{0,62}/[a-z0-9.-]{1,64}$")), extend("uniqueItems" = true))]
    pub topics: Vec<String>,
    /// Times at which a plugin of the world `worker` is called.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub timers: Vec<Timer>,
    /// Hosts that the plugin calls, for example `api.example.com` or `*.example.com`. An operator can grant it others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255)), extend("uniqueItems" = true))]
    pub hosts: Vec<String>,
    /// Lines shown when the host starts, for example what to export. `{url}` becomes the address of the host. A line with
    /// `{token}` is shown only where requests need a token; `{token}` becomes the word TOKEN, in whose place a user writes
    /// his own.
    #[serde(default)]
    #[schemars(length(max = 8), inner(length(min = 1, max = 200)))]
    pub hints: Vec<String>,
}

/// Limits of each call; the host's defaults where nothing is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Limits {
    /// Memory of one instance, in MiB.
    #[schemars(with = "u32", range(min = 1, max = 1024))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// Time inside the component, in ms. Time inside the host is not counted.
    #[schemars(with = "u32", range(min = 1, max = 600_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_cpu_ms: Option<u32>,
    /// Time from start to end, in ms.
    #[schemars(with = "u32", range(min = 1, max = 3_600_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_wall_ms: Option<u32>,
    /// Calls from the component into the host.
    #[schemars(with = "u32", range(min = 1, max = 100_000_000))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host_calls: Option<u32>,
    /// Size of the answer, in KiB.
    #[schemars(with = "u32", range(min = 1, max = 262_144))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_kib: Option<u32>,
    /// Columns that all calls hold together in the host, in MiB.
    #[schemars(with = "u32", range(min = 1, max = 65_536))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub array_mib: Option<u32>,
    /// Log messages of one call, in KiB.
    #[schemars(with = "u32", range(min = 0, max = 16_384))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_kib: Option<u32>,
    /// Calls running at the same time.
    #[schemars(with = "u32", range(min = 1, max = 256))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// Calls waiting for one of those to end.
    #[schemars(with = "u32", range(min = 0, max = 65_536))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<u32>,
}

/// A time at which a worker is called: again and again, or whenever a clock shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Timer {
    /// What the plugin knows it by.
    #[schemars(regex(pattern = r"^[a-z0-9][a-z0-9-]{0,62}$"), extend("examples" = ["nightly"]))]
    pub name: String,
    /// From one call to the next, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "u64", range(min = 1, max = 31_536_000))]
    pub every_s: Option<u64>,
    /// A cron expression of five fields, for example `0 3 * * *`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 9, max = 200))]
    pub cron: Option<String>,
    /// The time zone of `cron`, by its IANA name.
    #[serde(default = "utc")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: String,
}

fn utc() -> String {
    "UTC".into()
}

/// Where the rules for the plugin's settings stand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConfigFile {
    /// A JSON Schema: a file in the manifest's folder or below it, whose path has no `..` and ends with `.json`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,200}\.json$"), extend("examples" = ["config.schema.json"]))]
    pub schema: String,
}

/// One claim on requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Route {
    /// This path and no other; starts with `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 512))]
    pub path: Option<String>,
    /// Every path that starts so; starts and ends with `/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 512))]
    pub prefix: Option<String>,
    /// Methods that are answered.
    #[schemars(length(min = 1, max = 7), extend("uniqueItems" = true, "examples" = [["GET"]]))]
    pub methods: Vec<Method>,
    /// What a caller needs: `read`, `write`, `admin`, or `none` for anybody, even without a token.
    #[schemars(extend("examples" = ["read"]))]
    pub right: Right,
    /// Bodies up to this size, in KiB, come with the request; larger ones can only be received into the blob store.
    #[serde(default = "inline_body_kib_default")]
    #[schemars(range(min = 0, max = 65_536))]
    pub inline_body_kib: u32,
}

fn inline_body_kib_default() -> u32 {
    1024
}

/// An HTTP method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
#[schemars(inline)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Post,
    Put,
    Patch,
    Delete,
    Options,
}

impl Method {
    /// In capitals, as it stands in a request.
    pub fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Patch => "PATCH",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
        }
    }
}

/// What a caller needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Right {
    /// Nothing, not even a token.
    None,
    /// To read.
    Read,
    /// To change.
    Write,
    /// To administer.
    Admin,
}

impl Right {
    /// The word that stands in the manifest.
    pub fn as_str(self) -> &'static str {
        match self {
            Right::None => "none",
            Right::Read => "read",
            Right::Write => "write",
            Right::Admin => "admin",
        }
    }
}

impl Route {
    /// The claimed path or prefix.
    pub fn claim(&self) -> &str {
        self.prefix.as_deref().or(self.path.as_deref()).unwrap_or_default()
    }

    /// Whether everything below the claim is claimed too.
    pub fn is_prefix(&self) -> bool {
        self.prefix.is_some()
    }

    /// Whether this route answers this path, whatever the method.
    pub fn covers(&self, path: &str) -> bool {
        match &self.prefix {
            Some(prefix) => path.starts_with(prefix.as_str()),
            None => self.path.as_deref() == Some(path),
        }
    }

    /// Whether some path is claimed by both routes. Two plugins never share one, whatever the methods.
    pub fn overlaps(&self, other: &Route) -> bool {
        (self.is_prefix() && other.claim().starts_with(self.claim()))
            || (other.is_prefix() && self.claim().starts_with(other.claim()))
            || self.claim() == other.claim()
    }
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let methods: Vec<&str> = self.methods.iter().map(|method| method.as_str()).collect();
        let rest = if self.is_prefix() { "*" } else { "" };
        write!(f, "{} {}{rest}", methods.join(","), self.claim())
    }
}

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Manifest>().to_value()
});

static VALIDATOR: LazyLock<jsonschema::Validator> =
    LazyLock::new(|| jsonschema::validator_for(&SCHEMA).expect("a generated schema is valid"));

impl Manifest {
    /// The manifest's JSON Schema.
    pub fn schema() -> &'static Value {
        &SCHEMA
    }

    /// Read and check a manifest. `name` is what messages call the file.
    pub fn parse(name: &str, text: &str) -> Result<Manifest> {
        let document = Document::parse(name, text)?;
        document.refuse(check(&SCHEMA, &VALIDATOR, document.value(), "the manifest"))?;
        let version = document.value().get("version").and_then(Value::as_str).unwrap_or_default();
        if let Err(error) = semver::Version::parse(version) {
            let message = format!("`version` is `{version}`: {error}; write three numbers, for example `0.1.0`");
            document.refuse(vec![Problem::value("/version", message)])?;
        }
        let manifest: Manifest = serde_json::from_value(document.value().clone())
            .map_err(|error| Error::invalid(format!("{name}: {error}; compare it with the manifest's schema")))?;
        document.refuse(manifest.problems())?;
        Ok(manifest)
    }

    /// Whether the component says that it exports this world, for example `mainstay:api/api`.
    pub fn has_world(&self, path: &str) -> bool {
        self.worlds.iter().filter_map(|world| WorldName::parse(world).ok()).any(|world| world.path == path)
    }

    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        self.check_files(&mut problems);
        self.check_capabilities(&mut problems);
        self.check_worlds(&mut problems);
        self.check_routes(&mut problems);
        self.check_worker(&mut problems);
        self.check_hints(&mut problems);
        problems
    }

    fn check_files(&self, problems: &mut Vec<Problem>) {
        let files =
            [("/component", Some(&self.component)), ("/config/schema", self.config.as_ref().map(|c| &c.schema))];
        for (pointer, path) in files {
            let Some(path) = path else { continue };
            if path.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
                let message =
                    format!("`{path}` leaves the package or has empty parts; write a path like `files/{}`", "name");
                problems.push(Problem::value(pointer, message));
            }
        }
    }

    fn check_capabilities(&self, problems: &mut Vec<Problem>) {
        let known = CAPABILITIES;
        for (number, capability) in self.capabilities.iter().enumerate() {
            if !known.contains(&capability.as_str()) {
                let near = nearest(capability, known.iter().copied());
                let near = near.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
                let message = format!("unknown capability `{capability}`; {near}this host knows {}", list(known));
                problems.push(Problem::value(format!("/capabilities/{number}"), message));
            }
        }
    }

    fn check_worlds(&self, problems: &mut Vec<Problem>) {
        for (number, world) in self.worlds.iter().enumerate() {
            if let Err(message) = crate::worlds::check_world(world) {
                problems.push(Problem::value(format!("/worlds/{number}"), message));
            }
        }
    }

    fn check_routes(&self, problems: &mut Vec<Problem>) {
        if !self.routes.is_empty() && !self.has_world("mainstay:api/api") {
            let message = "routes need the world `api`; add `mainstay:api/api@0.1.0` to `worlds` or remove the routes";
            problems.push(Problem::key("/routes", message));
        }
        for (number, route) in self.routes.iter().enumerate() {
            if let Err((field, message)) = check_claim(route) {
                problems.push(Problem::value(format!("/routes/{number}{field}"), message));
                continue;
            }
            let twin = self.routes[..number].iter().find(|earlier| {
                earlier.claim() == route.claim()
                    && earlier.is_prefix() == route.is_prefix()
                    && earlier.methods.iter().any(|method| route.methods.contains(method))
            });
            if let Some(twin) = twin {
                let message = format!("`{route}` is claimed already by the route `{twin}`; give each method one route");
                problems.push(Problem::value(format!("/routes/{number}"), message));
            }
        }
    }

    fn check_worker(&self, problems: &mut Vec<Problem>) {
        let is_worker = self.has_world("mainstay:worker/worker");
        for (pointer, is_empty) in [("/topics", self.topics.is_empty()), ("/timers", self.timers.is_empty())] {
            if !is_worker && !is_empty {
                let name = &pointer[1..];
                let message = format!(
                    "{name} need the world `worker`; add `mainstay:worker/worker@0.1.0` to `worlds` or remove the {name}"
                );
                problems.push(Problem::key(pointer, message));
            }
        }
        let needs =
            [("/topics", self.topics.is_empty(), "events.subscribe"), ("/hosts", self.hosts.is_empty(), "outbound")];
        for (pointer, is_empty, capability) in needs {
            if !is_empty && !self.capabilities.iter().any(|asked| asked == capability) {
                let message = format!("it needs the capability `{capability}`; add it to `capabilities`");
                problems.push(Problem::key(pointer, message));
            }
        }
        for (number, timer) in self.timers.iter().enumerate() {
            let pointer = format!("/timers/{number}");
            if timer.every_s.is_some() == timer.cron.is_some() {
                problems
                    .push(Problem::value(pointer.clone(), "a timer has either `every-s` or `cron`; write one of them"));
            }
            if self.timers[..number].iter().any(|earlier| earlier.name == timer.name) {
                let message = format!("there is a timer `{}` already; give each its own name", timer.name);
                problems.push(Problem::value(format!("{pointer}/name"), message));
            }
        }
    }

    fn check_hints(&self, problems: &mut Vec<Problem>) {
        for (number, hint) in self.hints.iter().enumerate() {
            if hint.chars().any(char::is_control) {
                let message = "a hint is one line of text without control characters";
                problems.push(Problem::value(format!("/hints/{number}"), message));
            }
        }
    }

    /// The hints with the address of the host filled in; those about tokens only where one is needed.
    pub fn hints_for(&self, url: &str, needs_token: bool) -> Vec<String> {
        let applies = |hint: &&String| needs_token || !hint.contains("{token}");
        let fill = |hint: &String| hint.replace("{url}", url).replace("{token}", "TOKEN");
        self.hints.iter().filter(applies).map(fill).collect()
    }
}

fn check_claim(route: &Route) -> std::result::Result<(), (&'static str, String)> {
    let (field, claim) = match (&route.path, &route.prefix) {
        (Some(path), None) => ("/path", path),
        (None, Some(prefix)) => ("/prefix", prefix),
        _ => return Err(("", "a route has either `path` or `prefix`; write one of them".into())),
    };
    let refuse = |message: String| Err((field, message));
    if let Some(odd) = claim.chars().find(|c| !c.is_ascii_graphic() || "%?#\\{}*".contains(*c)) {
        return refuse(format!("`{claim}` holds `{}`; write the decoded path in plain ASCII", odd.escape_default()));
    }
    if !claim.starts_with('/') {
        return refuse(format!("`{claim}` does not start with `/`; write `/{claim}`"));
    }
    if route.is_prefix() && !claim.ends_with('/') {
        return refuse(format!(
            "the prefix `{claim}` does not end with `/`; write `{claim}/`, or `path = \"{claim}\"`"
        ));
    }
    if route.is_prefix() && claim == "/" {
        return refuse("the prefix `/` would claim every request; name what the plugin answers".into());
    }
    let inner = claim[1..].strip_suffix('/').unwrap_or(&claim[1..]);
    if !inner.is_empty() && inner.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return refuse(format!("`{claim}` has empty, `.` or `..` parts; requests with them never reach a plugin"));
    }
    let reserved = RESERVED_PREFIXES.iter().any(|prefix| claim.starts_with(prefix) || format!("{claim}/") == **prefix);
    if reserved || RESERVED_PATHS.contains(&claim.as_str()) {
        let all: Vec<&str> = RESERVED_PREFIXES.iter().chain(RESERVED_PATHS).copied().collect();
        return refuse(format!("`{claim}` belongs to the host, as do {}; choose another", list(&all)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_plugin_in_the_house_has_a_good_manifest_and_settings_that_may_be_left_out() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../plugins");
        let mut read = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let folder = entry.unwrap().path();
            let Ok(text) = std::fs::read_to_string(folder.join("plugin.toml")) else { continue };
            let name = folder.file_name().unwrap().to_string_lossy().into_owned();
            let manifest = Manifest::parse("plugin.toml", &text).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(manifest.name, name);
            if let Some(config) = &manifest.config {
                let schema = std::fs::read_to_string(folder.join(&config.schema)).unwrap();
                let schema: serde_json::Value = serde_json::from_str(&schema).unwrap();
                let settings = crate::settings::resolve(Some(&schema), &serde_json::json!({}));
                assert!(settings.is_ok(), "{name}: {settings:?}");
            }
            read += 1;
        }
        assert!(read > 8, "only {read} manifests were read");
    }

    const GOOD: &str = r#"name = "box"
version = "1.2.3"
description = "A box"
license = "Apache-2.0"
component = "box.wasm"
worlds = ["mainstay:api/api@0.1.0"]
capabilities = ["keys", "directory.read"]
hints = ["export BOX={url}/box", "export BOX_TOKEN={token}"]

[limits]
memory-mib = 32

[config]
schema = "config.schema.json"

[[routes]]
path = "/box"
methods = ["GET"]
right = "read"

[[routes]]
prefix = "/box/"
methods = ["GET", "POST"]
right = "write"
inline-body-kib = 16
"#;

    #[test]
    fn a_whole_manifest_is_read() {
        let manifest = Manifest::parse("plugin.toml", GOOD).unwrap();
        assert_eq!(manifest.version, semver::Version::new(1, 2, 3));
        assert_eq!(manifest.limits.memory_mib, Some(32));
        assert_eq!(manifest.limits.queue, None);
        assert_eq!(manifest.routes[0].inline_body_kib, 1024);
        assert_eq!(manifest.routes[1].to_string(), "GET,POST /box/*");
        assert_eq!(manifest.hints_for("http://h:1", false), ["export BOX=http://h:1/box"]);
        assert_eq!(manifest.hints_for("http://h:1", true), ["export BOX=http://h:1/box", "export BOX_TOKEN=TOKEN"]);
        assert!(!manifest.reuse);
    }

    /// Replace one line of the good manifest and expect this message for it.
    fn check(line: &str, replacement: &str, expect: &str) {
        let text = GOOD.replacen(line, replacement, 1);
        assert_ne!(text, GOOD, "{line}");
        let error = Manifest::parse("plugin.toml", &text).expect_err(replacement);
        assert_eq!(error.message(), expect);
    }

    #[test]
    fn what_the_schema_refuses_is_explained() {
        check(
            "name = \"box\"",
            "name = \"Box!\"",
            "plugin.toml:1:8: `name` is `\"Box!\"`, which does not fit. A name is 1 to 63 of `a-z`, `0-9` and `-`, and starts \
             with a letter. Write for example \"tracking\".",
        );
        check(
            "component = \"box.wasm\"",
            "component = \"../../../etc/passwd\"",
            "plugin.toml:5:13: `component` is `\"../../../etc/passwd\"`, which does not fit. The component: a file in the \
             manifest's folder or below it, whose path has no `..` and ends with `.wasm`. Write for example \"plugin.wasm\".",
        );
        check(
            "license = \"Apache-2.0\"\n",
            "",
            "plugin.toml:1:1: the manifest lacks `license`; write `license = \"Apache-2.0\"`",
        );
        check("memory-mib = 32", "memory-mib = 0", "plugin.toml:11:14: `limits.memory-mib` is `0`; write at least 1");
        check(
            "memory-mib = 32",
            "memory-mib = 1025",
            "plugin.toml:11:14: `limits.memory-mib` is `1025`; write at most 1024",
        );
        check(
            "memory-mib = 32",
            "memory-mb = 32",
            "plugin.toml:11:1: `limits` has no key `memory-mb`; did you mean `memory-mib`?",
        );
        check(
            "right = \"read\"",
            "right = \"reed\"",
            "plugin.toml:19:9: `routes[1].right` is `\"reed\"`; did you mean `read`? it is one of `none`, `read`, `write`, `admin`",
        );
        check(
            "[\"GET\", \"POST\"]",
            "[\"GET\", \"GET\"]",
            "plugin.toml:23:11: `routes[2].methods` repeats an item; write each once",
        );
    }

    #[test]
    fn what_only_the_host_knows_is_explained() {
        check(
            "version = \"1.2.3\"",
            "version = \"1.2.x\"",
            "plugin.toml:2:11: `version` is `1.2.x`: unexpected character 'x' while parsing patch version number; \
             write three numbers, for example `0.1.0`",
        );
        check(
            "[\"keys\", \"directory.read\"]",
            "[\"keys\",\n  \"directory-read\"]",
            "plugin.toml:8:3: unknown capability `directory-read`; did you mean `directory.read`? this host knows \
             `keys`, `index`, `blobs`, `directory.read`, `directory.write`, `arrays`, `arrays.read`, `models`, \
             `events.publish`, `events.subscribe`, `jobs.start`, `outbound`, `tables.append`, `tables.read`, \
             `tables.aggregate`, `traffic.infer`, `traffic.read`",
        );
        check(
            "component = \"box.wasm\"",
            "component = \"a/../box.wasm\"",
            "plugin.toml:5:13: `a/../box.wasm` leaves the package or has empty parts; write a path like `files/name`",
        );
        check(
            "mainstay:api/api@0.1.0",
            "mainstay:api/api@0.3.0",
            "plugin.toml:6:11: the plugin is built for `mainstay:api/api@0.3.0`, this host offers \
             `mainstay:api/api@0.1.0`; run it on a newer host, or build it against 0.1.0",
        );
        check("url}/box", "url}\\u0007", "plugin.toml:8:10: a hint is one line of text without control characters");
    }

    #[test]
    fn what_the_host_answers_cannot_be_claimed() {
        for claim in RESERVED_PATHS.iter().chain(RESERVED_PREFIXES) {
            let text = GOOD.replacen("path = \"/box\"", &format!("path = \"{}\"", claim.trim_end_matches('/')), 1);
            let error = Manifest::parse("plugin.toml", &text).unwrap_err();
            assert!(error.message().contains("belongs to the host"), "{claim}: {error}");
        }
    }

    #[test]
    fn claims_have_a_shape() {
        let path = "path = \"/box\"";
        check(path, "", "plugin.toml:16:1: a route has either `path` or `prefix`; write one of them");
        check(path, "path = \"box\"", "plugin.toml:17:8: `box` does not start with `/`; write `/box`");
        check(
            path,
            "path = \"/a/../b\"",
            "plugin.toml:17:8: `/a/../b` has empty, `.` or `..` parts; requests with them never reach a plugin",
        );
        check(
            path,
            "path = \"/a//b\"",
            "plugin.toml:17:8: `/a//b` has empty, `.` or `..` parts; requests with them never reach a plugin",
        );
        check(path, "path = \"/a%2f\"", "plugin.toml:17:8: `/a%2f` holds `%`; write the decoded path in plain ASCII");
        check(
            path,
            "path = \"/-/version\"",
            "plugin.toml:17:8: `/-/version` belongs to the host, as do `/-/`, `/plugins/`, `/v2/`, `/healthz`, `/readyz`, `/metrics`; choose another",
        );
        let prefix = "prefix = \"/box/\"";
        check(
            prefix,
            "prefix = \"/box\"",
            "plugin.toml:22:10: the prefix `/box` does not end with `/`; write `/box/`, or `path = \"/box\"`",
        );
        check(
            prefix,
            "prefix = \"/\"",
            "plugin.toml:22:10: the prefix `/` would claim every request; name what the plugin answers",
        );
        check(
            prefix,
            "path = \"/box\"",
            "plugin.toml:21:1: `GET,POST /box` is claimed already by the route `GET /box`; give each method one route",
        );
    }

    #[test]
    fn the_committed_schema_is_the_one_that_is_used() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/reference/plugin.schema.json");
        let fresh = format!("{:#}\n", Manifest::schema());
        if std::env::var_os("MAINSTAY_BLESS").is_some() {
            std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
            std::fs::write(path, &fresh).unwrap();
        }
        let committed = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(committed, fresh, "run the tests once with MAINSTAY_BLESS=1 and commit the change");
    }

    #[test]
    fn overlap_is_symmetric() {
        fn route(claim: &str) -> Route {
            let (path, prefix) =
                if claim.ends_with('/') { (None, Some(claim.into())) } else { (Some(claim.into()), None) };
            Route { path, prefix, methods: vec![Method::Get], right: Right::Read, inline_body_kib: 0 }
        }
        fn check(left: &str, right: &str, expect: bool) {
            assert_eq!(route(left).overlaps(&route(right)), expect, "{left} {right}");
            assert_eq!(route(right).overlaps(&route(left)), expect, "{right} {left}");
        }
        check("/a", "/a", true);
        check("/a", "/b", false);
        check("/a", "/a/", false);
        check("/a/", "/a/b", true);
        check("/a/", "/a/b/", true);
        check("/a/", "/ab/", false);
        check("/a/b", "/a/bc", false);
    }
}
