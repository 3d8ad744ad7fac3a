//! Plugins of world `api` written in WebAssembly text, and a host to run them in.
//!
//! A guest is a body for `handle`; the module around it has every import that the tests use. Results lie where the canonical
//! ABI puts them: a `result<_, error>` has its discriminant at 0 and its payload at 4, so an answer of the host's can be
//! returned as the plugin's own by returning its address.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mainstay_base::SystemClock;
use mainstay_directory::Directory;
use mainstay_interfaces::{
    CallResult, ComponentSource, HostOptions, HttpReply, HttpRequest, Limits, Plugin, PluginHost, PluginSpec, Services,
};
use mainstay_kernels::Kernels;
use mainstay_store::Store;
use mainstay_store::blobs::{BlobBackend, Blobs};
use wit_component::{ComponentEncoder, StringEncoding};
use wit_parser::{Resolve, UnresolvedPackageGroup};

/// Answers 200.
pub const OK: &str = "(call $respond (i32.const 200) (i32.const 16)) (i32.const 16)";

/// A module with this body in `handle`; `$request` is the argument, `$i` and `$j` are free. `received` does the same as
/// `$received`, which defaults to [`OK`].
fn module(handle: &str, received: &str, start: &str) -> String {
    format!(
        r#"(module
  (import "mainstay:api/http@0.1.0" "[static]reply.respond" (func $respond (param i32 i32)))
  (import "mainstay:api/http@0.1.0" "[static]reply.receive" (func $receive (param i64 i32 i32 i32 i32)))
  (import "mainstay:api/http@0.1.0" "[static]reply.send" (func $send (param i32 i32 i32)))
  (import "mainstay:api/http@0.1.0" "[method]reply.write" (func $write (param i32 i32 i32 i32)))
  (import "mainstay:api/http@0.1.0" "[method]reply.header" (func $header (param i32 i32 i32 i32 i32 i32)))
  (import "mainstay:api/http@0.1.0" "[method]request.path" (func $path (param i32 i32)))
  (import "mainstay:api/http@0.1.0" "[method]request.header" (func $request_header (param i32 i32 i32 i32)))
  (import "mainstay:api/http@0.1.0" "[resource-drop]request" (func $drop_request (param i32)))
  (import "mainstay:host/keys@0.1.0" "get" (func $get (param i32 i32 i32)))
  (import "mainstay:host/keys@0.1.0" "renew" (func $renew (param i32)))
  (import "mainstay:host/keys@0.1.0" "begin" (func $begin (param i32)))
  (import "mainstay:host/keys@0.1.0" "[method]transaction.put" (func $put (param i32 i32 i32 i32 i32 i32)))
  (import "mainstay:host/keys@0.1.0" "[static]transaction.commit" (func $commit (param i32 i32)))
  (import "mainstay:host/blobs@0.1.0" "link" (func $link (param i32 i32 i32 i32 i32 i32)))
  (import "mainstay:host/blobs@0.1.0" "lookup" (func $lookup (param i32 i32 i32)))
  (import "mainstay:host/observe@0.1.0" "log" (func $log (param i32 i32 i32 i32 i32)))
  (import "mainstay:host/observe@0.1.0" "metric" (func $metric (param i32 i32 i32 f64 i32 i32)))
  (import "mainstay:host/clock@0.1.0" "now-ms" (func $now (result i64)))
  (import "mainstay:host/random@0.1.0" "bytes" (func $random (param i32 i32)))
  (import "mainstay:host/config@0.1.0" "get" (func $config (param i32)))
  (memory (export "memory") 2)
  (global $top (mut i32) (i32.const 65536))
  (global $calls (mut i32) (i32.const 0))
  (global $kept (mut i32) (i32.const 0))
  (data (i32.const 1024) "key")
  (data (i32.const 1032) "a/name")
  (data (i32.const 1040) "hits")
  (data (i32.const 1048) "authorization")
  (data (i32.const 1064) "x-tenant")
  (func (export "cabi_realloc") (param $old i32) (param i32 i32) (param $size i32) (result i32) (local $at i32)
    (local.set $at (global.get $top))
    (global.set $top (i32.and (i32.add (i32.add (local.get $at) (local.get $size)) (i32.const 7)) (i32.const -8)))
    (local.get $at))
  (func (export "mainstay:lifecycle/lifecycle@0.1.0#start") (param $some i32) (param $previous i32) (param $length i32)
    (result i32) (local $i i32)
    {start})
  (func (export "mainstay:api/handler@0.1.0#handle") (param $request i32) (result i32)
    (local $i i32) (local $j i32) (local $tx i32)
    {handle})
  (func (export "mainstay:api/handler@0.1.0#received")
    (param $request i32) (param $sha i32) (param $sha_length i32) (param i32 i32) (param $size i64) (result i32)
    (local $i i32) (local $tx i32)
    {received}))"#
    )
}

/// The contract in `wit/`.
pub fn resolve() -> (Resolve, wit_parser::WorldId) {
    resolve_world("api")
}

/// The same for the world of this package.
pub fn resolve_world(package: &str) -> (Resolve, wit_parser::WorldId) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    let mut resolve = Resolve::default();
    let mut last = None;
    for package in ["types", "host", "lifecycle", "numeric", "data", package] {
        let group = UnresolvedPackageGroup::parse_dir(root.join(package)).unwrap();
        last = Some(resolve.push_group(group).unwrap());
    }
    let world = resolve.select_world(&[last.unwrap()], Some(package)).unwrap();
    (resolve, world)
}

/// A component with these bodies for `handle`, `received` and `start`.
pub fn component_with(handle: &str, received: &str, start: &str) -> ComponentSource {
    let mut module = wat::parse_str(module(handle, received, start)).unwrap();
    let (resolve, world) = resolve();
    encode(&mut module, &resolve, world)
}

/// A component of this module in this world.
pub fn encode(module: &mut Vec<u8>, resolve: &Resolve, world: wit_parser::WorldId) -> ComponentSource {
    wit_component::embed_component_metadata(module, resolve, world, StringEncoding::UTF8, false).unwrap();
    let component = ComponentEncoder::default().module(module).unwrap().validate(true).encode().unwrap();
    ComponentSource::Bytes(component.into())
}

/// A component with this body for `handle`.
pub fn component(handle: &str) -> ComponentSource {
    component_with(handle, OK, START_OK)
}

/// `start` answers that all is well.
pub const START_OK: &str = "(i32.store8 (i32.const 16) (i32.const 0)) (i32.const 16)";

/// A host over a store in memory; the folder holds its blobs.
pub struct House {
    pub host: PluginHost,
    pub services: Services,
    _folder: tempfile::TempDir,
}

pub fn house() -> House {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::in_memory();
    let backend = BlobBackend::Local { folder: folder.path().to_owned() };
    let clock = Arc::new(SystemClock::default());
    let blobs = Blobs::open(store.clone(), backend, clock.clone(), Duration::from_secs(86_400)).unwrap();
    let directory = Directory::new(store.clone(), vec![], clock.clone()).unwrap();
    let kernels = Kernels::start(&mainstay_kernels::Options::default(), clock.clone()).unwrap();
    let services = Services::for_tests(store, blobs, directory, kernels, clock).unwrap();
    let host = PluginHost::new(services.clone(), HostOptions::for_tests()).unwrap();
    House { host, services, _folder: folder }
}

/// Quick to exhaust.
pub fn quick() -> Limits {
    Limits { memory_bytes: 8 << 20, call_cpu_ms: 200, call_wall_ms: 10_000, host_calls: 10_000, ..Limits::default() }
}

/// A plugin with these limits and grants.
pub fn load(house: &House, component: ComponentSource, limits: Limits, grants: &[&str]) -> Arc<Plugin> {
    let spec = PluginSpec {
        grants: grants.iter().map(|grant| grant.to_string()).collect(),
        limits,
        ..PluginSpec::new("guest", "0.1.0", component)
    };
    house.host.load(spec).unwrap()
}

/// Ask it once.
pub async fn ask(plugin: &Plugin) -> CallResult<HttpReply> {
    let headers = vec![("Authorization".to_owned(), "secret".to_owned()), ("X-Tenant".to_owned(), "acme".to_owned())];
    plugin.handle(HttpRequest { method: "GET".into(), path: "/a/path".into(), headers, ..HttpRequest::default() }).await
}

/// The status that it answers.
pub async fn status(plugin: &Plugin) -> u16 {
    match ask(plugin).await.unwrap() {
        HttpReply::Respond { status, .. } => status,
        other => panic!("expected an answer, got {other:?}"),
    }
}
