//! From the configuration to what each room is built with.
//!
//! Owns the translation of units and words, and the checks that need more than one value. The struct is taken apart without
//! `..`, so that a field without a reader does not compile; a test changes each field and expects something to be built
//! differently. On failure: the key, what is wrong, what to write.

use crate::config::{self, Config, CudaDevice, Engine, Protect, Required};
use crate::data_folder;
use mainstay_base::{Error, OsRandom, Result, SystemClock};
use mainstay_cuda::Cuda;
use mainstay_directory::{Directory, Evidence, LabelEvidence, ProtectionRule};
use mainstay_gateway::{AuthMode, GatewayLimits, GatewayOptions};
use mainstay_interfaces::{CompileLimits, EngineOptions, Services};
use mainstay_kernels::Kernels;
use mainstay_networks::Runtime;
use mainstay_outbound::{Grants, HostGrant, SecretKey};
use mainstay_store::blobs::Blobs;
use mainstay_store::{EngineKind, Store, StoreOptions};
use mainstay_tables::{Tables, TablesOptions};
use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// What each room is built with.
pub struct Settings {
    /// Where everything is stored.
    pub data: PathBuf,
    /// Which plugins run.
    pub plugins: Choice,
    /// Folder of packages.
    pub registry: Option<PathBuf>,
    /// HTTP and gRPC.
    pub gateway: GatewayOptions,
    /// The ordered store, if the operator named one: then the data folder must have been made with it.
    pub asked_engine: Option<Engine>,
    /// Memory of the store.
    pub memtable_bytes_max: usize,
    /// How long unreferenced blobs are kept.
    pub blob_grace: Duration,
    /// The sandbox's size.
    pub sandbox: EngineOptions,
    /// What compiling may use.
    pub compile: CompileLimits,
    /// Numeric work.
    pub kernels: mainstay_kernels::Options,
    /// Numeric work on an NVIDIA device.
    pub cuda: mainstay_cuda::Options,
    /// How ONNX graphs beyond our own operations are run.
    pub networks: mainstay_networks::Options,
    /// Threads that work on SQL and windows of tables.
    pub query_threads: usize,
    /// Memory of one SQL query.
    pub query_bytes: usize,
    /// Attempts at jobs at the same time.
    pub attempts_max: usize,
    /// How long runs of jobs are kept after their end.
    pub runs_kept: Duration,
    /// Hosts that plugins may call, beside those of their manifests, by plugin.
    pub outbound: BTreeMap<String, Grants>,
    /// Pointers that move only with evidence.
    pub protect: Vec<ProtectionRule>,
    /// How log lines look and which appear.
    pub log: config::Log,
    /// Where traces go.
    pub traces: config::Traces,
    /// How long requests may take to end.
    pub drain: Duration,
}

/// Which plugins run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// All installed; an empty folder gets the standard ones.
    Standard,
    /// None.
    None,
    /// These, by name or package file; what is missing is installed.
    These(Vec<String>),
}

impl Choice {
    fn parse(text: &str) -> Result<Choice> {
        match text {
            "standard" => Ok(Choice::Standard),
            "none" => Ok(Choice::None),
            list => {
                let names: Vec<String> = list.split(',').map(|name| name.trim().to_string()).collect();
                if names.iter().any(String::is_empty) {
                    return Err(Error::invalid(format!(
                        "plugins `{list}`: a name is empty; write `standard`, `none`, or names with commas between"
                    )));
                }
                Ok(Choice::These(names))
            }
        }
    }
}

impl Settings {
    /// Translate and check.
    pub fn new(config: Config, names_engine: bool) -> Result<Settings> {
        let Config {
            data,
            plugins,
            registry,
            http,
            grpc,
            auth,
            store,
            blobs,
            sandbox,
            kernels,
            cuda,
            tables,
            jobs,
            log,
            traces,
            shutdown,
            outbound,
            protect,
        } = config;
        let gateway = gateway(http, grpc, auth)?;
        let config::Store { engine, memory_mib } = store;
        let config::Blobs { grace_h } = blobs;
        let config::Sandbox { instances_max, threads, compile_memory_mib, compile_time_s } = sandbox;
        let config::Kernels {
            threads: kernel_threads,
            model_mib,
            max_delay_ms,
            network_mib,
            network_batch_s,
            onnx_runtime,
        } = kernels;
        let kernel_threads =
            if kernel_threads == 0 { mainstay_kernels::Options::default().threads } else { kernel_threads };
        let config::Tables { query_threads, query_mib } = tables;
        let config::Jobs { attempts_max, keep_days } = jobs;
        let config::Shutdown { drain_s } = shutdown;
        Ok(Settings {
            data: data.map_or_else(data_folder::default_path, PathBuf::from),
            plugins: Choice::parse(&plugins.0)?,
            registry: registry.map(PathBuf::from),
            gateway,
            asked_engine: names_engine.then_some(engine),
            memtable_bytes_max: memory_mib * MIB,
            blob_grace: Duration::from_secs(grace_h * 3600),
            sandbox: EngineOptions { instances: instances_max, threads, ..EngineOptions::default() },
            compile: CompileLimits {
                memory_bytes: compile_memory_mib * MIB as u64,
                cpu_s: compile_time_s,
                wall_s: compile_time_s,
            },
            kernels: mainstay_kernels::Options {
                threads: kernel_threads,
                model_bytes: model_mib * MIB,
                max_delay: Duration::from_millis(max_delay_ms),
            },
            cuda: cuda_options(cuda),
            networks: mainstay_networks::Options::own_binary(
                if onnx_runtime.is_empty() { Runtime::Rten } else { Runtime::OnnxRuntime(onnx_runtime.into()) },
                mainstay_networks::Limits {
                    memory_bytes: network_mib * MIB as u64,
                    batch: Duration::from_secs(network_batch_s),
                    threads: kernel_threads,
                    ..mainstay_networks::Limits::default()
                },
            )?,
            query_threads,
            query_bytes: query_mib * MIB,
            attempts_max,
            runs_kept: Duration::from_secs(keep_days * 24 * 3600),
            outbound: grants(outbound)?,
            protect: protect.into_iter().map(rule).collect(),
            log,
            traces,
            drain: Duration::from_secs(drain_s),
        })
    }

    /// Whether requests will need a token.
    pub fn needs_token(&self) -> bool {
        match self.gateway.auth {
            AuthMode::Always => true,
            AuthMode::Never => false,
            AuthMode::BeyondLoopback => self.is_beyond_loopback(),
        }
    }

    /// Whether others than this machine can reach it.
    pub fn is_beyond_loopback(&self) -> bool {
        let beyond = |address: &SocketAddr| !address.ip().is_loopback();
        beyond(&self.gateway.http) || self.gateway.grpc.as_ref().is_some_and(beyond)
    }

    /// The NVIDIA device, where there is one and it is to be used. Compiles kernels for it the first time.
    pub fn device(&self) -> Result<Option<Cuda>> {
        let cache = Some(self.data.join("cache/cuda"));
        Cuda::start(mainstay_cuda::Options { cache, ..self.cuda.clone() }, Arc::new(SystemClock::default()))
    }

    /// What plugins stand on.
    pub fn services(&self, store: &Store, blobs: &Blobs, device: Option<&Cuda>) -> Result<Services> {
        let clock = Arc::new(SystemClock::default());
        let directory = Directory::new(store.clone(), self.protect.clone(), clock.clone())?;
        let networks = self.networks.clone();
        let import = Box::new(move |bytes: &[u8]| mainstay_networks::import(bytes, &networks));
        let kernels = Kernels::start_on(&self.kernels, clock, import, device.map(|cuda| Arc::new(cuda.clone()) as _))?;
        let tables = Tables::open(store.clone(), self.tables())?;
        let key = SecretKey::load_or_create(&self.data.join("secrets/outbound-key"), &OsRandom)?;
        let services = Services::new(store.clone(), blobs.clone(), directory, kernels, tables, key)?;
        Ok(services)
    }

    /// The tables' options.
    pub fn tables(&self) -> TablesOptions {
        TablesOptions { query_threads: self.query_threads, ..TablesOptions::new(self.data.join("tables")) }
    }

    /// The store's options, for a data folder made with this engine.
    pub fn store(&self, engine: Engine) -> StoreOptions {
        StoreOptions {
            engine: match engine {
                Engine::Sled => EngineKind::Sled,
                Engine::Redb => EngineKind::Redb,
            },
            memtable_bytes_max: self.memtable_bytes_max,
            memtable_bytes_apply: self.memtable_bytes_max / 4,
            ..StoreOptions::new(self.data.join("store"))
        }
    }
}

/// What the operator grants each plugin; a host that may lie in a private network is granted like any other, too.
fn grants(outbound: Vec<config::Outbound>) -> Result<BTreeMap<String, Grants>> {
    let mut by_plugin: BTreeMap<String, Grants> = BTreeMap::new();
    for (number, entry) in outbound.into_iter().enumerate() {
        let config::Outbound { plugin, hosts, allow_private } = entry;
        let grants = by_plugin.entry(plugin).or_default();
        for host in hosts {
            let host: HostGrant = host.parse().map_err(|error: Error| error.context(format!("`outbound` {number}")))?;
            if allow_private {
                grants.allow_private.push(host.clone());
            }
            grants.hosts.push(host);
        }
        grants.check().map_err(|error| error.context(format!("`outbound` {number}")))?;
    }
    Ok(by_plugin)
}

fn cuda_options(cuda: config::Cuda) -> mainstay_cuda::Options {
    let config::Cuda { device, ordinal, memory_mib, nvrtc, patience_s } = cuda;
    mainstay_cuda::Options {
        mode: match device {
            CudaDevice::Auto => mainstay_cuda::Mode::Auto,
            CudaDevice::Off => mainstay_cuda::Mode::Off,
            CudaDevice::Required => mainstay_cuda::Mode::Required,
        },
        ordinal,
        memory_bytes: memory_mib * MIB,
        nvrtc: (!nvrtc.is_empty()).then(|| nvrtc.into()),
        patience: Duration::from_secs(patience_s),
        ..mainstay_cuda::Options::default()
    }
}

fn rule(protect: Protect) -> ProtectionRule {
    let Protect { kind, name_pattern, pointer, requires } = protect;
    let label = |label: config::LabelEvidence| {
        let config::LabelEvidence { key, value, set_by } = label;
        LabelEvidence { key, value, set_by }
    };
    let evidence = |evidence: config::Evidence| {
        let config::Evidence { path, label: wanted } = evidence;
        Evidence { path, label: wanted.map(label) }
    };
    ProtectionRule { kind, name_pattern, pointer, requires: requires.into_iter().map(evidence).collect() }
}

fn gateway(http: config::Http, grpc: config::Grpc, auth: config::Auth) -> Result<GatewayOptions> {
    let config::Http {
        listen,
        public_url,
        allowed_hosts,
        connections_max,
        requests_max,
        body_memory_mib,
        answer_timeout_s,
        body_idle_timeout_s,
        idle_timeout_s,
    } = http;
    let config::Grpc { listen: grpc } = grpc;
    let config::Auth { required, failures_per_minute_max } = auth;
    let grpc = match grpc.as_str() {
        "off" => None,
        text => Some(address("grpc.listen", text)?),
    };
    let limits = GatewayLimits {
        connections_max,
        requests_in_flight_max: requests_max,
        buffered_bytes_max: body_memory_mib * MIB,
        answer_timeout: Duration::from_secs(answer_timeout_s),
        body_idle_timeout: Duration::from_secs(body_idle_timeout_s),
        idle_timeout: Duration::from_secs(idle_timeout_s),
        ..GatewayLimits::default()
    };
    Ok(GatewayOptions {
        http: address("http.listen", &listen)?,
        grpc,
        auth: match required {
            Required::BeyondLoopback => AuthMode::BeyondLoopback,
            Required::Always => AuthMode::Always,
            Required::Never => AuthMode::Never,
        },
        auth_failures_per_minute_max: failures_per_minute_max,
        public_url: check_public_url(public_url)?,
        allowed_hosts,
        limits,
        ..GatewayOptions::default()
    })
}

fn check_public_url(url: String) -> Result<Option<String>> {
    if url.is_empty() {
        return Ok(None);
    }
    let url = url.trim_end_matches('/');
    let authority = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
    match authority {
        Some(authority) if !authority.is_empty() && !authority.contains(['/', '?', '#', ' ']) => Ok(Some(url.into())),
        _ => Err(Error::invalid(format!(
            "`http.public-url` is `{url}`; write scheme and authority, `https://models.example`"
        ))),
    }
}

/// An address to listen at. Names are resolved once; the first address counts.
fn address(key: &str, text: &str) -> Result<SocketAddr> {
    let wrong =
        |why: String| Error::invalid(format!("`{key}` is `{text}`: {why}; write an address like `127.0.0.1:7600`"));
    let mut found = text.to_socket_addrs().map_err(|error| wrong(error.to_string()))?;
    found.next().ok_or_else(|| wrong("the name has no address".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Everything that is built, as text.
    fn built(value: &Value) -> String {
        let config: Config = serde_json::from_value(value.clone()).unwrap();
        let settings = Settings::new(config, true).unwrap();
        let Settings {
            data, plugins, registry, gateway, asked_engine, memtable_bytes_max, blob_grace, sandbox, ..
        } = &settings;
        let EngineOptions { instances, threads, .. } = sandbox;
        let Settings { cuda, query_threads, query_bytes, .. } = &settings;
        let Settings {
            compile, kernels, networks, attempts_max, runs_kept, outbound, protect, log, traces, drain, ..
        } = &settings;
        let store = settings.store(asked_engine.unwrap());
        format!(
            "{data:?} {plugins:?} {registry:?} {gateway:?} {memtable_bytes_max} {blob_grace:?} {instances} {threads} \
             {compile:?} {kernels:?} {networks:?} {cuda:?} {query_threads} {query_bytes} {attempts_max} {runs_kept:?} {outbound:?} {protect:?} {log:?} {traces:?} {drain:?} {:?}",
            store.engine
        )
    }

    /// Another valid value for this property.
    fn another(pointer: &str, property: &Value, value: &Value) -> Value {
        let special = [
            ("/http/listen", json!("127.0.0.1:1")),
            ("/grpc/listen", json!("off")),
            ("/http/public-url", json!("https://models.example")),
            ("/traces/sample-share", json!(0.5)),
            ("/outbound", json!([{"plugin": "x", "hosts": ["example.com"]}])),
            (
                "/protect",
                json!([{"kind": "model", "name-pattern": "*", "pointer": "production", "requires": [{"path": ["x"]}]}]),
            ),
        ];
        if let Some((_, value)) = special.iter().find(|(known, _)| *known == pointer) {
            return value.clone();
        }
        if let Some(choices) = property.get("oneOf").and_then(Value::as_array) {
            let other = choices.iter().map(|choice| choice["const"].clone()).find(|choice| choice != value);
            return other.expect("a choice has two ways");
        }
        match property["type"].as_str() {
            Some("integer") => json!(value.as_u64().unwrap_or(1) + 1),
            Some("string") => json!("another"),
            Some("array") => json!(["another"]),
            other => panic!("{pointer} is {other:?}: say in this test what another value is"),
        }
    }

    #[test]
    fn every_field_changes_what_is_built() {
        let defaults = serde_json::to_value(Config::default()).unwrap();
        let plain = built(&defaults);
        let mut seen = 0;
        let mut open = vec![(String::new(), config::schema().clone())];
        while let Some((above, schema)) = open.pop() {
            for (name, property) in schema["properties"].as_object().unwrap() {
                let pointer = format!("{above}/{name}");
                if property.get("properties").is_some() {
                    open.push((pointer, property.clone()));
                    continue;
                }
                let before = defaults.pointer(&pointer).cloned().unwrap_or(Value::Null);
                let mut changed = defaults.clone();
                let parent = changed.pointer_mut(&above).unwrap().as_object_mut().unwrap();
                parent.insert(name.clone(), another(&pointer, property, &before));
                assert_ne!(built(&changed), plain, "nobody reads `{pointer}`");
                seen += 1;
            }
        }
        assert!(seen >= 28, "{seen} fields");
    }

    #[test]
    fn words_are_checked() {
        fn check(change: impl Fn(&mut Config), expect: &str) {
            let mut config = Config::default();
            change(&mut config);
            let error = Settings::new(config, false).err().expect(expect);
            assert!(error.message().contains(expect), "{error} should hold {expect}");
        }
        check(|config| config.plugins.0 = "a,,b".into(), "a name is empty");
        check(|config| config.http.listen = "7600".into(), "`http.listen` is `7600`");
        check(|config| config.grpc.listen = "here".into(), "`grpc.listen` is `here`");
        check(|config| config.http.public_url = "models.example".into(), "write scheme and authority");
        check(|config| config.http.public_url = "https://a/b".into(), "write scheme and authority");
        assert_eq!(Choice::parse("a, b").unwrap(), Choice::These(vec!["a".into(), "b".into()]));
    }

    #[test]
    fn tokens_are_needed_beyond_loopback() {
        fn check(http: &str, grpc: &str, required: Required, expect: bool) {
            let mut config = Config::default();
            config.http.listen = http.into();
            config.grpc.listen = grpc.into();
            config.auth.required = required;
            assert_eq!(Settings::new(config, false).unwrap().needs_token(), expect, "{http} {grpc} {required:?}");
        }
        check("127.0.0.1:0", "[::1]:0", Required::BeyondLoopback, false);
        check("0.0.0.0:0", "off", Required::BeyondLoopback, true);
        check("127.0.0.1:0", "0.0.0.0:0", Required::BeyondLoopback, true);
        check("127.0.0.1:0", "off", Required::Always, true);
        check("0.0.0.0:0", "off", Required::Never, false);
    }
}
