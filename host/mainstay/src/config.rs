//! The configuration file, and which of flags, environment, file and defaults applies.
//!
//! Owns the typed configuration, its JSON Schema (committed as `docs/reference/config.schema.json`) and the layers: flags
//! before environment before file before defaults. Separate because everything else in the binary receives finished values
//! and never asks where they came from. Bounded by the ranges in the schema. On failure: every problem of the file with line
//! and column; a flag's problem names the flag.
//!
//! A field without a reader is a lie to the operator: [`crate::settings`] takes this struct apart without `..`, and a test
//! there changes each field and expects the host to be built differently.

use crate::cli::{Cli, Command, EngineName, LogFormat};
use mainstay_base::{Error, Result};
use mainstay_market::located::{Document, check};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;

/// Everything an operator may set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Where the host stores everything; `~/.local/share/mainstay` when nothing is written.
    #[schemars(with = "String", length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// Which plugins run: `standard`, `none`, or names and package files with commas between.
    #[schemars(length(min = 1))]
    pub plugins: Plugins,
    /// Folder with package files in which plugins are looked up by name.
    #[schemars(with = "String", length(min = 1))]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<String>,
    /// HTTP.
    pub http: Http,
    /// gRPC.
    pub grpc: Grpc,
    /// Who may do what.
    pub auth: Auth,
    /// The store.
    pub store: Store,
    /// Blobs.
    pub blobs: Blobs,
    /// The plugins' sandbox.
    pub sandbox: Sandbox,
    /// Numeric work.
    pub kernels: Kernels,
    /// Numeric work on an NVIDIA device.
    pub cuda: Cuda,
    /// Columnar tables.
    pub tables: Tables,
    /// Durable jobs.
    pub jobs: Jobs,
    /// Log lines.
    pub log: Log,
    /// Traces.
    pub traces: Traces,
    /// The end.
    pub shutdown: Shutdown,
    /// Hosts that plugins may call, beside those of their manifests.
    #[schemars(length(max = 1000))]
    pub outbound: Vec<Outbound>,
    /// Pointers that move only with evidence.
    #[schemars(length(max = 1000))]
    pub protect: Vec<Protect>,
}

/// Which plugins run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Plugins(pub String);

impl Default for Plugins {
    fn default() -> Plugins {
        Plugins("standard".into())
    }
}

macro_rules! section {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $text:literal])+ $(#[schemars($($rule:tt)*)])? $field:ident: $type:ty = $default:expr,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        pub struct $name {
            $($(#[doc = $text])+ $(#[schemars($($rule)*)])? pub $field: $type,)*
        }
        impl Default for $name {
            fn default() -> $name {
                $name { $($field: $default,)* }
            }
        }
    };
}

section! {
    /// HTTP.
    Http {
        /// Where it listens; port 0 takes any free one.
        #[schemars(length(min = 3, max = 255))]
        listen: String = "127.0.0.1:7600".into(),
        /// Scheme and authority that clients use when a proxy stands before this host, for example
        /// `https://models.example`; empty = taken from the request.
        #[schemars(length(max = 512))]
        public_url: String = String::new(),
        /// Host names by which this host may be reached without credentials, beside loopback's names and IP addresses.
        #[schemars(length(max = 100), inner(length(min = 1, max = 255)))]
        allowed_hosts: Vec<String> = Vec::new(),
        /// Open connections; later ones wait.
        #[schemars(range(min = 1, max = 1_000_000))]
        connections_max: usize = 4_096,
        /// Requests being answered; more are answered 503.
        #[schemars(range(min = 1, max = 1_000_000))]
        requests_max: usize = 1_024,
        /// Memory for request bodies, in MiB, over all requests.
        #[schemars(range(min = 1, max = 1_048_576))]
        body_memory_mib: usize = 256,
        /// Longest time from a whole request to its answer, in seconds.
        #[schemars(range(min = 1, max = 86_400))]
        answer_timeout_s: u64 = 120,
        /// Longest silence inside a request's body, in seconds.
        #[schemars(range(min = 1, max = 3_600))]
        body_idle_timeout_s: u64 = 30,
        /// Time after which a connection without a request is closed, in seconds.
        #[schemars(range(min = 1, max = 86_400))]
        idle_timeout_s: u64 = 75,
    }
}

section! {
    /// gRPC.
    Grpc {
        /// Where it listens, or `off`; port 0 takes any free one.
        #[schemars(length(min = 3, max = 255))]
        listen: String = "127.0.0.1:7601".into(),
    }
}

section! {
    /// Who may do what.
    Auth {
        /// When a request needs a token.
        required: Required = Required::BeyondLoopback,
        /// Failed attempts that one address may make in a minute.
        #[schemars(range(min = 1, max = 100_000))]
        failures_per_minute_max: u32 = 20,
    }
}

/// When a request needs a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Required {
    /// As soon as the host listens beyond this machine.
    BeyondLoopback,
    /// Always.
    Always,
    /// Never, wherever it listens.
    Never,
}

section! {
    /// The store.
    Store {
        /// Ordered store behind the log, chosen once for a data folder.
        engine: Engine = Engine::default(),
        /// Memory for changes that are durable but not yet in the ordered store, in MiB.
        #[schemars(range(min = 1, max = 65_536))]
        memory_mib: usize = 64,
    }
}

/// Ordered stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Engine {
    /// sled.
    Sled,
    /// redb.
    Redb,
}

impl Default for Engine {
    /// The store's own.
    fn default() -> Engine {
        match mainstay_store::EngineKind::default() {
            mainstay_store::EngineKind::Redb => Engine::Redb,
            _ => Engine::Sled,
        }
    }
}

impl Engine {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Engine::Sled => "sled",
            Engine::Redb => "redb",
        }
    }
}

section! {
    /// Blobs.
    Blobs {
        /// How long a blob that nothing refers to is kept, in hours.
        #[schemars(range(min = 1, max = 8_760))]
        grace_h: u64 = 24,
    }
}

section! {
    /// The plugins' sandbox.
    Sandbox {
        /// Instances alive at the same time, of all plugins.
        #[schemars(range(min = 1, max = 10_000))]
        instances_max: u32 = 256,
        /// Threads that run plugins; 0 = as many as processors.
        #[schemars(range(min = 0, max = 1_024))]
        threads: usize = 0,
        /// Memory for compiling one plugin, in MiB.
        #[schemars(range(min = 256, max = 65_536))]
        compile_memory_mib: u64 = 4_096,
        /// Time for compiling one plugin, in seconds.
        #[schemars(range(min = 1, max = 3_600))]
        compile_time_s: u64 = 300,
    }
}

section! {
    /// Numeric work.
    Kernels {
        /// Threads that compute statistics, predictions and explanations; 0 = as many as processors.
        #[schemars(range(min = 0, max = 1_024))]
        threads: usize = 0,
        /// Models that are kept loaded, in MiB of memory.
        #[schemars(range(min = 1, max = 1_048_576))]
        model_mib: usize = 1_024,
        /// The longest that a prediction waits for others to join it while the kernel is busy, in milliseconds.
        #[schemars(range(min = 0, max = 10_000))]
        max_delay_ms: u64 = 5,
        /// Memory of the process that runs one ONNX graph beyond our own operations, in MiB of address space.
        #[schemars(range(min = 256, max = 1_048_576))]
        network_mib: u64 = 4_096,
        /// The longest that such a process may take for a batch, in seconds.
        #[schemars(range(min = 1, max = 3_600))]
        network_batch_s: u64 = 30,
        /// The shared library of ONNX Runtime (`libonnxruntime.so`), to run such graphs with; empty: the runtime of this binary
        /// does.
        onnx_runtime: String = String::new(),
    }
}

section! {
    /// Columnar tables.
    Tables {
        /// Threads that work on SQL and on windows of tables.
        #[schemars(range(min = 1, max = 1_024))]
        query_threads: usize = 2,
        /// Memory of one SQL query, in MiB.
        #[schemars(range(min = 16, max = 1_048_576))]
        query_mib: usize = 512,
    }
}

section! {
    /// Durable jobs.
    Jobs {
        /// Attempts that this host carries out at the same time, of all pools.
        #[schemars(range(min = 1, max = 10_000))]
        attempts_max: usize = 256,
        /// How long runs are kept after their end, in days.
        #[schemars(range(min = 1, max = 36_500))]
        keep_days: u64 = 30,
    }
}

section! {
    /// Numeric work on an NVIDIA device.
    Cuda {
        /// Whether a device is used.
        device: CudaDevice = CudaDevice::Auto,
        /// Which device, in the driver's order.
        #[schemars(range(min = 0, max = 255))]
        ordinal: usize = 0,
        /// Device memory that may be taken, in MiB; 0 = nine tenths of what there is.
        #[schemars(range(min = 0, max = 1_048_576))]
        memory_mib: usize = 0,
        /// NVIDIA's run-time compiler (`libnvrtc.so.12` or `.13`); empty: it is found by its name.
        nvrtc: String = String::new(),
        /// How long a batch may take on the device before it counts as lost, in seconds.
        #[schemars(range(min = 1, max = 3_600))]
        patience_s: u64 = 10,
    }
}

/// Whether a device is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum CudaDevice {
    /// Where there is one.
    Auto,
    /// It is not even looked for.
    Off,
    /// The host does not start without one.
    Required,
}

section! {
    /// Log lines.
    Log {
        /// How they look.
        format: Format = Format::Human,
        /// Which appear, for example `info` or `warn,mainstay_store=debug`.
        #[schemars(length(min = 1, max = 1_000))]
        filter: String = "info".into(),
    }
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum Format {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

section! {
    /// Traces.
    Traces {
        /// Where they are sent by OTLP over HTTP, for example `http://127.0.0.1:4318`; empty = what
        /// `OTEL_EXPORTER_OTLP_ENDPOINT` says, or nowhere.
        #[schemars(length(max = 512))]
        otlp_endpoint: String = String::new(),
        /// What this host calls itself in them.
        #[schemars(length(min = 1, max = 128))]
        service_name: String = "mainstay".into(),
        /// Share of requests that are traced when the caller has not decided, 0 to 1.
        #[schemars(range(min = 0.0, max = 1.0))]
        sample_share: f64 = 1.0,
    }
}

section! {
    /// The end.
    Shutdown {
        /// How long requests may take to end after SIGTERM, in seconds.
        #[schemars(range(min = 0, max = 3_600))]
        drain_s: u64 = 30,
    }
}

/// Hosts that a plugin may call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Outbound {
    /// Which plugin.
    #[schemars(length(min = 1, max = 63), extend("examples" = ["tracking"]))]
    pub plugin: String,
    /// Which hosts: `example.com`, `*.example.com`, `example.com:8443`, or with `http://` in front where they speak no TLS.
    #[schemars(length(min = 1, max = 256), inner(length(min = 1, max = 300)), extend("examples" = [["hooks.example.com"]]))]
    pub hosts: Vec<String>,
    /// Whether they may lie in a private network, or on this machine.
    #[serde(default)]
    pub allow_private: bool,
}

/// A pointer that moves only with evidence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Protect {
    /// Kind of subject, for example `model`.
    #[schemars(length(min = 1, max = 64), extend("examples" = ["model"]))]
    pub kind: String,
    /// Names of subjects; `*` stands for any run of characters.
    #[schemars(length(min = 1, max = 512), extend("examples" = ["*"]))]
    pub name_pattern: String,
    /// The pointer's name, for example `production`.
    #[schemars(length(min = 1, max = 512), extend("examples" = ["production"]))]
    pub pointer: String,
    /// What a version needs, all of it: each a path of relations from the version, and perhaps a label where it ends.
    #[schemars(length(min = 1, max = 100))]
    pub requires: Vec<Evidence>,
}

/// One thing that a version needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Evidence {
    /// Relations to walk from the version, one after the other; nothing = the version itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)))]
    pub path: Vec<String>,
    /// A label that must be where the path ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "LabelEvidence")]
    pub label: Option<LabelEvidence>,
}

/// A label that must be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LabelEvidence {
    /// Its key.
    #[schemars(length(min = 1, max = 256))]
    pub key: String,
    /// Its value; any when nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(max = 8192))]
    pub value: Option<String>,
    /// The plugin that must have set it; any that may when nothing is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String", length(min = 1, max = 63))]
    pub set_by: Option<String>,
}

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<Config>().to_value()
});

/// The configuration file's JSON Schema.
pub fn schema() -> &'static Value {
    &SCHEMA
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A flag, or its environment variable.
    Given(String),
    /// The configuration file.
    File,
}

/// The configuration that applies, and where its values come from (those not listed are defaults).
#[derive(Clone, Debug)]
pub struct Applied {
    /// The values.
    pub config: Config,
    /// JSON pointers of the values that are no defaults.
    pub origins: BTreeMap<String, Origin>,
}

/// Put the layers over one another.
pub fn apply(cli: &Cli, given_on_line: &dyn Fn(&str) -> bool) -> Result<Applied> {
    let mut value = match &cli.config {
        Some(path) => read(path)?,
        None => Value::Object(Default::default()),
    };
    let mut origins = BTreeMap::new();
    leaves(&value, "", &mut |pointer| {
        origins.insert(pointer.to_string(), Origin::File);
    });
    for flag in flags(cli) {
        let origin =
            if given_on_line(flag.id) { format!("--{}", flag.id.replace('_', "-")) } else { variable(flag.id) };
        set(&mut value, flag.pointer, flag.value);
        origins.insert(flag.pointer.to_string(), Origin::Given(origin));
    }
    let config = serde_json::from_value(value)
        .map_err(|error| Error::invalid(format!("configuration: {error}; compare it with `mainstay config schema`")))?;
    Ok(Applied { config, origins })
}

fn variable(id: &str) -> String {
    format!("MAINSTAY_{}", id.to_uppercase())
}

fn read(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("read the configuration", path, error))?;
    parse(&path.display().to_string(), &text)
}

/// Read and check a configuration file's text.
pub fn parse(name: &str, text: &str) -> Result<Value> {
    static VALIDATOR: LazyLock<jsonschema::Validator> =
        LazyLock::new(|| jsonschema::validator_for(&SCHEMA).expect("a generated schema is valid"));
    let document = Document::parse(name, text)?;
    document.refuse(check(&SCHEMA, &VALIDATOR, document.value(), "the configuration"))?;
    Ok(document.value().clone())
}

struct Flag {
    id: &'static str,
    pointer: &'static str,
    value: Value,
}

/// What was given as flags or environment variables, and which value of the configuration each is.
fn flags(cli: &Cli) -> Vec<Flag> {
    let mut flags = Vec::new();
    let mut add = |id, pointer, value: Option<String>| {
        if let Some(value) = value {
            flags.push(Flag { id, pointer, value: Value::String(value) });
        }
    };
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
    add("data", "/data", path(&cli.data));
    add("log", "/log/filter", cli.log.clone());
    let format = cli.log_format.map(|format| match format {
        LogFormat::Human => "human",
        LogFormat::Json => "json",
    });
    add("log_format", "/log/format", format.map(str::to_string));
    if let Command::Serve(serve) = &cli.command {
        add("listen", "/http/listen", serve.listen.clone());
        add("grpc", "/grpc/listen", serve.grpc.clone());
        add("plugins", "/plugins", serve.plugins.clone());
        add("registry", "/registry", path(&serve.registry));
        let engine = serve.engine.map(|engine| match engine {
            EngineName::Sled => "sled",
            EngineName::Redb => "redb",
        });
        add("engine", "/store/engine", engine.map(str::to_string));
    }
    flags
}

fn set(value: &mut Value, pointer: &str, new: Value) {
    let mut here = value;
    for part in pointer[1..].split('/') {
        if !here.is_object() {
            *here = Value::Object(Default::default());
        }
        here = here.as_object_mut().expect("made an object above").entry(part).or_insert(Value::Null);
    }
    *here = new;
}

fn leaves(value: &Value, pointer: &str, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                leaves(inner, &format!("{pointer}/{key}"), visit);
            }
        }
        _ => visit(pointer),
    }
}

/// The configuration that applies as TOML, each value with its origin. It can be used as a configuration file.
pub fn show(applied: &Applied) -> Result<String> {
    let value = serde_json::to_value(&applied.config).map_err(|error| Error::internal(error.to_string()))?;
    let mut text = String::new();
    let origin = |pointer: &str| match applied.origins.get(pointer) {
        Some(Origin::Given(name)) => name.clone(),
        Some(Origin::File) => "file".into(),
        None => "default".into(),
    };
    let (tables, plain): (Vec<_>, Vec<_>) =
        value.as_object().into_iter().flatten().partition(|(_, value)| value.is_object());
    for (key, value) in plain {
        line(&mut text, key, value, &origin(&format!("/{key}")));
    }
    for (table, values) in tables {
        text.push_str(&format!("\n[{table}]\n"));
        for (key, value) in values.as_object().into_iter().flatten() {
            line(&mut text, key, value, &origin(&format!("/{table}/{key}")));
        }
    }
    Ok(text)
}

fn line(text: &mut String, key: &str, value: &Value, origin: &str) {
    text.push_str(&format!("{key} = {}  # {origin}\n", toml_value(value)));
}

/// One value on one line of TOML. JSON's texts, numbers, truths and lists are TOML's too; only tables differ.
fn toml_value(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(toml_value).collect::<Vec<_>>().join(", ")),
        Value::Object(object) => {
            let pairs: Vec<String> =
                object.iter().map(|(key, value)| format!("{key} = {}", toml_value(value))).collect();
            format!("{{ {} }}", pairs.join(", "))
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn applied(arguments: &[&str], file: &str) -> Result<Applied> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mainstay.toml");
        std::fs::write(&path, file).unwrap();
        let mut all = vec!["mainstay"];
        all.extend(arguments);
        let path = path.display().to_string();
        all.extend(["--config", &path]);
        apply(&Cli::parse_from(all), &|_| true)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let file = "data = \"/from/file\"\n[http]\nlisten = \"127.0.0.1:1\"\nrequests-max = 7\n";
        let applied = applied(&["serve", "--listen", "127.0.0.1:2", "--engine", "redb"], file).unwrap();
        let Config { data, http, grpc, store, .. } = &applied.config;
        assert_eq!(data.as_deref(), Some("/from/file"));
        assert_eq!((http.listen.as_str(), http.requests_max), ("127.0.0.1:2", 7));
        assert_eq!(grpc, &Grpc::default());
        assert_eq!(store.engine, Engine::Redb);
        assert_eq!(applied.origins["/http/listen"], Origin::Given("--listen".into()));
        assert_eq!(applied.origins["/http/requests-max"], Origin::File);
        assert!(!applied.origins.contains_key("/grpc/listen"));
    }

    #[test]
    fn the_help_names_the_default_engine() {
        use clap::CommandFactory;
        let help = Cli::command().find_subcommand_mut("serve").unwrap().render_long_help().to_string();
        assert!(help.contains(&format!("[default: {}]", Engine::default().as_str())), "{help}");
    }

    #[test]
    fn what_is_shown_can_be_read_again() {
        let file = "[[protect]]\nkind = \"model\"\nname-pattern = \"*\"\npointer = \"production\"\nrequires = [{ path = \
                    [\"produced-by\"], label = { key = \"commit\" } }]\n";
        let first = applied(&["config", "show", "--data", "/a b/\"c\""], file).unwrap();
        let again = parse("shown", &show(&first).unwrap()).unwrap();
        assert_eq!(serde_json::from_value::<Config>(again).unwrap(), first.config);
    }

    #[test]
    fn mistakes_point_at_their_place() {
        fn check(text: &str, expect: &str) {
            let error = parse("mainstay.toml", text).unwrap_err();
            assert_eq!(error.message(), expect);
        }
        check("[http]\nlisten-on = \"x\"", "mainstay.toml:2:1: `http` has no key `listen-on`; did you mean `listen`?");
        check("plugin = \"none\"", "mainstay.toml:1:1: the configuration has no key `plugin`; did you mean `plugins`?");
        check("[sandbox]\ninstances-max = 0", "mainstay.toml:2:17: `sandbox.instances-max` is `0`; write at least 1");
        check(
            "[sandbox]\ninstances-max = 10001",
            "mainstay.toml:2:17: `sandbox.instances-max` is `10001`; write at most 10000",
        );
        check(
            "[store]\nengine = \"slet\"",
            "mainstay.toml:2:10: `store.engine` is `\"slet\"`; did you mean `sled`? it is one of `sled`, `redb`",
        );
        check("[log]\nfilter = 3", "mainstay.toml:2:10: `log.filter` is `3`, which must be text in quotes");
        check(
            "[[protect]]\nkind = \"m\"\nname-pattern = \"n\"\nrequires = [{}]",
            "mainstay.toml:1:1: `protect[1]` lacks `pointer`; write `pointer = \"production\"`",
        );
    }
}
