//! What this host offers to components, and whether a component fits it.
//!
//! Owns the contracts (`wit/`, embedded) as lists of worlds, interfaces and functions with their versions. Separate because
//! two questions need the same answer: may the manifest name this world, and do the component's imports and exports exist
//! here. Bounded by the component's size (the package's limit) and by the validator's own limits. On failure: the item, both
//! versions and the fix. That the types agree as well is checked when the runtime links the component.

use crate::manifest::Manifest;
use crate::nearest::nearest;
use mainstay_base::{Error, Result};
use semver::Version;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use wit_parser::decoding::{DecodedWasm, decode};
use wit_parser::{Resolve, SourceMap, WorldId, WorldItem, WorldKey};

/// The contracts, one package after those it depends on: path below `wit/`, and text.
const CONTRACTS: &[&[(&str, &str)]] = &[
    &[("types/types.wit", include_str!("../../../wit/types/types.wit"))],
    &[
        ("host/ambient.wit", include_str!("../../../wit/host/ambient.wit")),
        ("host/blobs.wit", include_str!("../../../wit/host/blobs.wit")),
        ("host/directory.wit", include_str!("../../../wit/host/directory.wit")),
        ("host/events.wit", include_str!("../../../wit/host/events.wit")),
        ("host/index.wit", include_str!("../../../wit/host/index.wit")),
        ("host/jobs.wit", include_str!("../../../wit/host/jobs.wit")),
        ("host/keys.wit", include_str!("../../../wit/host/keys.wit")),
        ("host/outbound.wit", include_str!("../../../wit/host/outbound.wit")),
        ("host/traffic.wit", include_str!("../../../wit/host/traffic.wit")),
    ],
    &[("lifecycle/lifecycle.wit", include_str!("../../../wit/lifecycle/lifecycle.wit"))],
    &[
        ("numeric/arrays.wit", include_str!("../../../wit/numeric/arrays.wit")),
        ("numeric/stats.wit", include_str!("../../../wit/numeric/stats.wit")),
        ("numeric/models.wit", include_str!("../../../wit/numeric/models.wit")),
    ],
    &[("data/tables.wit", include_str!("../../../wit/data/tables.wit"))],
    &[("api/api.wit", include_str!("../../../wit/api/api.wit"))],
    &[("transform/transform.wit", include_str!("../../../wit/transform/transform.wit"))],
    &[("worker/worker.wit", include_str!("../../../wit/worker/worker.wit"))],
    &[("fallback/fallback.wit", include_str!("../../../wit/fallback/fallback.wit"))],
];

/// A name with a version, for example `mainstay:api/api@0.1.0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorldName {
    /// The part before `@`.
    pub path: String,
    /// The part behind it.
    pub version: Version,
}

impl WorldName {
    /// Split a name; a message says what is missing.
    pub fn parse(name: &str) -> std::result::Result<WorldName, String> {
        let form = "write it like `mainstay:api/api@0.1.0`";
        let Some((path, version)) = name.split_once('@') else {
            return Err(format!("`{name}` lacks a version; {form}"));
        };
        let version =
            Version::parse(version).map_err(|error| format!("`{name}` has no good version: {error}; {form}"))?;
        Ok(WorldName { path: path.into(), version })
    }
}

impl std::fmt::Display for WorldName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.path, self.version)
    }
}

#[derive(Debug, Default)]
struct Offer {
    worlds: BTreeMap<String, World>,
    interfaces: BTreeMap<String, Interface>,
}

#[derive(Debug)]
struct World {
    version: Version,
    exports: Vec<String>,
}

#[derive(Debug)]
struct Interface {
    version: Version,
    functions: Vec<String>,
}

static OFFER: LazyLock<Offer> = LazyLock::new(|| {
    let mut resolve = Resolve::default();
    for package in CONTRACTS {
        let mut sources = SourceMap::default();
        for (path, text) in *package {
            sources.push_str(path, *text);
        }
        let group = sources.parse().unwrap_or_else(|(_, error)| panic!("the embedded contracts parse: {error:?}"));
        resolve.push_group(group).unwrap_or_else(|error| panic!("the embedded contracts resolve: {error:?}"));
    }
    let mut offer = Offer::default();
    for (_, package) in resolve.packages.iter() {
        let version = package.name.version.clone().expect("every contract has a version");
        let path = |name: &str| format!("{}:{}/{name}", package.name.namespace, package.name.name);
        for (name, id) in &package.interfaces {
            let functions = resolve.interfaces[*id].functions.keys().cloned().collect();
            offer.interfaces.insert(path(name), Interface { version: version.clone(), functions });
        }
        for (name, id) in &package.worlds {
            let (_, exports) = interfaces_of(&resolve, *id);
            let exports = exports.into_iter().map(|interface| interface.path).collect();
            offer.worlds.insert(path(name), World { version: version.clone(), exports });
        }
    }
    offer
});

/// The worlds that this host runs, with versions.
pub fn worlds() -> Vec<WorldName> {
    let name = |(path, world): (&String, &World)| WorldName { path: path.clone(), version: world.version.clone() };
    OFFER.worlds.iter().map(name).collect()
}

/// Whether this host runs that world; a message says what to do if not.
pub(crate) fn check_world(name: &str) -> std::result::Result<(), String> {
    let wanted = WorldName::parse(name)?;
    match OFFER.worlds.get(&wanted.path) {
        Some(world) => check_version("the plugin is built for", &wanted, &world.version),
        None => {
            let near = nearest(&wanted.path, OFFER.worlds.keys().map(String::as_str));
            let near = near.map(|path| format!("did you mean `{path}`? ")).unwrap_or_default();
            let known: Vec<String> = worlds().iter().map(WorldName::to_string).collect();
            Err(format!("unknown world `{}`; {near}this host runs {}", wanted.path, crate::located::list(&known)))
        }
    }
}

/// Versions of one track link: those that differ in nothing to the left of what semver lets change.
fn same_track(wanted: &Version, offered: &Version) -> bool {
    if !wanted.pre.is_empty() || !offered.pre.is_empty() {
        return wanted == offered;
    }
    wanted.major == offered.major && (wanted.major > 0 || wanted.minor == offered.minor)
}

fn check_version(what: &str, wanted: &WorldName, offered: &Version) -> std::result::Result<(), String> {
    if same_track(&wanted.version, offered) {
        return Ok(());
    }
    let path = &wanted.path;
    let fix = match wanted.version > *offered {
        true => format!("run it on a newer host, or build it against {offered}"),
        false => format!("build it again against {offered}, or run it on the host it was made for"),
    };
    Err(format!("{what} `{wanted}`, this host offers `{path}@{offered}`; {fix}"))
}

/// Whether the component is one, exports what its manifest's worlds promise, and imports only what this host has.
/// Answers what an operator should know but need not act on.
pub fn check_component(manifest: &Manifest, component: &[u8]) -> Result<Vec<String>> {
    let file = &manifest.component;
    // A module has version 1 where a component has version 13, layer 1.
    match component.get(..8) {
        Some([0, b'a', b's', b'm', 0x0d, 0, 1, 0]) => {}
        Some([0, b'a', b's', b'm', 1, 0, 0, 0]) => {
            return Err(Error::invalid(format!(
                "`{file}` is a WebAssembly module, not a component; encode it with `wasm-tools component new` or the \
                 SDK's packing"
            )));
        }
        _ => return Err(Error::invalid(format!("`{file}` is not a WebAssembly component; build the plugin again"))),
    }
    let (resolve, world) = decode_quietly(file, component)?;
    let (imports, exports) = interfaces_of(&resolve, world);
    let mut problems = foreign_functions(&resolve, world);
    problems.extend(imports.iter().filter_map(|import| check_import(import).err()));
    for world in &manifest.worlds {
        problems.extend(missing_exports(world, &exports));
    }
    if !problems.is_empty() {
        problems.truncate(crate::located::PROBLEMS_MAX);
        let lines: Vec<String> = problems.iter().map(|problem| format!("`{file}`: {problem}")).collect();
        return Err(Error::invalid(lines.join("\n")));
    }
    Ok(denied_imports(manifest, &imports))
}

/// Decode untrusted bytes. The decoder answers errors; should it panic on a component that it has validated, that is an
/// error about this component too, not the end of the host.
fn decode_quietly(file: &str, component: &[u8]) -> Result<(Resolve, WorldId)> {
    let broken =
        |why: String| Error::invalid(format!("`{file}` is not a valid component: {why}; build the plugin again"));
    match std::panic::catch_unwind(|| decode(component)) {
        Ok(Ok(DecodedWasm::Component(resolve, world))) => Ok((resolve, world)),
        Ok(Ok(DecodedWasm::WitPackage(..))) => Err(broken("it holds only contracts, no code".into())),
        Ok(Err(error)) => Err(broken(format!("{error:#}").replace('\n', " "))),
        Err(_) => Err(broken("its types cannot be read".into())),
    }
}

struct Used {
    path: String,
    version: Option<Version>,
    functions: Vec<String>,
}

fn interfaces_of(resolve: &Resolve, world: WorldId) -> (Vec<Used>, Vec<Used>) {
    let used = |items: &wit_parser::IndexMap<WorldKey, WorldItem>| {
        let interface = |item: &WorldItem| {
            let WorldItem::Interface { id, .. } = item else { return None };
            let name = resolve.id_of(*id)?;
            let functions = resolve.interfaces[*id].functions.keys().cloned().collect();
            Some(match WorldName::parse(&name) {
                Ok(name) => Used { path: name.path, version: Some(name.version), functions },
                Err(_) => Used { path: name, version: None, functions },
            })
        };
        items.values().filter_map(interface).collect()
    };
    (used(&resolve.worlds[world].imports), used(&resolve.worlds[world].exports))
}

fn foreign_functions(resolve: &Resolve, world: WorldId) -> Vec<String> {
    let loose = |(key, item): (&WorldKey, &WorldItem)| match (key, item) {
        (WorldKey::Name(name), WorldItem::Function(_) | WorldItem::Interface { .. }) => {
            Some(format!("it imports `{name}`, which no contract of this host has; build it with Mainstay's contracts"))
        }
        _ => None,
    };
    resolve.worlds[world].imports.iter().filter_map(loose).collect()
}

fn check_import(import: &Used) -> std::result::Result<(), String> {
    let path = &import.path;
    let Some(offered) = OFFER.interfaces.get(path) else {
        let version = import.version.as_ref().map(|version| format!("@{version}")).unwrap_or_default();
        let fix = if path.starts_with("wasi:") {
            "build it for `wasm32-unknown-unknown`: a plugin has no files, sockets or clocks but those of the host"
        } else {
            "run it on a newer host, or build it without that import"
        };
        return Err(format!("it imports `{path}{version}`, which this host does not have; {fix}"));
    };
    if let Some(version) = &import.version {
        let wanted = WorldName { path: path.clone(), version: version.clone() };
        check_version("it imports", &wanted, &offered.version)?;
    }
    match import.functions.iter().find(|function| !offered.functions.contains(function)) {
        None => Ok(()),
        Some(function) => {
            let wanted = import.version.as_ref().unwrap_or(&offered.version);
            let (name, offered) = (plain(function), &offered.version);
            Err(format!(
                "it imports `{name}` of `{path}@{wanted}`, which `{path}@{offered}` of this host lacks; run it on a newer \
                 host, or build it against {offered}"
            ))
        }
    }
}

fn missing_exports(world: &str, exports: &[Used]) -> Vec<String> {
    let Some(offered) = WorldName::parse(world).ok().and_then(|name| OFFER.worlds.get(&name.path)) else {
        return vec![];
    };
    let missing = |path: &String| {
        let interface = &OFFER.interfaces[path];
        let wanted = WorldName { path: path.clone(), version: interface.version.clone() };
        let Some(export) = exports.iter().find(|export| export.path == *path) else {
            return Some(format!(
                "it does not export `{wanted}`, which the world `{world}` needs; implement it, or take the world out of the \
                 manifest"
            ));
        };
        if let Some(version) = &export.version {
            let exported = WorldName { path: path.clone(), version: version.clone() };
            if let Err(message) = check_version("it exports", &exported, &interface.version) {
                return Some(message);
            }
        }
        let lacking = interface.functions.iter().find(|function| !export.functions.contains(function))?;
        Some(format!("its `{wanted}` lacks `{}`; build it against {}", plain(lacking), interface.version))
    };
    offered.exports.iter().filter_map(missing).collect()
}

/// `[method]transaction.put` is `transaction.put` to a reader.
fn plain(function: &str) -> &str {
    function.rsplit(']').next().unwrap_or(function)
}

/// Interfaces that the component imports and the manifest asks no right for: calls to them will be denied.
fn denied_imports(manifest: &Manifest, imports: &[Used]) -> Vec<String> {
    let needs = |import: &&Used| {
        let name = match import
            .path
            .strip_prefix("mainstay:host/")
            .or(import.path.strip_prefix("mainstay:numeric/"))
            .or(import.path.strip_prefix("mainstay:data/"))?
        {
            "stats" => "arrays",
            name => name,
        };
        let guarded = crate::manifest::CAPABILITIES.iter().any(|capability| capability.split('.').next() == Some(name));
        let granted = manifest.capabilities.iter().any(|capability| capability.split('.').next() == Some(name));
        (guarded && !granted)
            .then(|| format!("it imports `{name}` without asking for that capability: those calls are denied"))
    };
    let mut notes: Vec<String> =
        imports.iter().filter(|import| !import.functions.is_empty()).filter_map(|import| needs(&import)).collect();
    // One capability may guard several interfaces.
    notes.dedup();
    notes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn every_contract_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let mut on_disk = Vec::new();
        for package in std::fs::read_dir(&root).unwrap() {
            let package = package.unwrap();
            for file in std::fs::read_dir(package.path()).unwrap() {
                let name = format!("{}/{}", package.file_name().display(), file.unwrap().file_name().display());
                on_disk.push(name);
            }
        }
        on_disk.sort();
        let mut embedded: Vec<String> =
            CONTRACTS.iter().flat_map(|p| p.iter()).map(|(path, _)| path.to_string()).collect();
        embedded.sort();
        assert_eq!(embedded, on_disk);
        let known: Vec<String> = worlds().iter().map(WorldName::to_string).collect();
        assert_eq!(
            known,
            [
                "mainstay:api/api@0.1.0",
                "mainstay:fallback/fallback@0.1.0",
                "mainstay:transform/transform@0.1.0",
                "mainstay:worker/worker@0.1.0"
            ]
        );
    }

    #[test]
    fn worlds_are_known_by_name_and_version() {
        fn check(world: &str, expect: &str) {
            assert_eq!(check_world(world).err().unwrap_or_else(|| "fine".into()), expect);
        }
        check("mainstay:api/api@0.1.0", "fine");
        check("mainstay:api/api@0.1.7", "fine");
        check(
            "mainstay:api/api@0.2.0",
            "the plugin is built for `mainstay:api/api@0.2.0`, this host offers `mainstay:api/api@0.1.0`; run it on a newer \
             host, or build it against 0.1.0",
        );
        check(
            "mainstay:api/api@0.0.9",
            "the plugin is built for `mainstay:api/api@0.0.9`, this host offers `mainstay:api/api@0.1.0`; build it again \
             against 0.1.0, or run it on the host it was made for",
        );
        check("mainstay:api/api", "`mainstay:api/api` lacks a version; write it like `mainstay:api/api@0.1.0`");
        check(
            "mainstay:api/app@0.1.0",
            "unknown world `mainstay:api/app`; did you mean `mainstay:api/api`? this host runs `mainstay:api/api@0.1.0`, \
             `mainstay:fallback/fallback@0.1.0`, `mainstay:transform/transform@0.1.0`, `mainstay:worker/worker@0.1.0`",
        );
        check(
            "other:thing/else@1.0.0",
            "unknown world `other:thing/else`; this host runs `mainstay:api/api@0.1.0`, \
             `mainstay:fallback/fallback@0.1.0`, `mainstay:transform/transform@0.1.0`, `mainstay:worker/worker@0.1.0`",
        );
    }

    #[test]
    fn tracks_follow_semver() {
        fn check(wanted: &str, offered: &str, expect: bool) {
            assert_eq!(same_track(&wanted.parse().unwrap(), &offered.parse().unwrap()), expect, "{wanted} {offered}");
        }
        check("0.1.0", "0.1.3", true);
        check("0.1.3", "0.1.0", true);
        check("0.2.0", "0.1.0", false);
        check("1.2.0", "1.9.1", true);
        check("1.2.0", "2.0.0", false);
        check("0.1.0-rc.1", "0.1.0", false);
        check("0.1.0-rc.1", "0.1.0-rc.1", true);
    }

    fn component_check(replacements: &[(&str, &str)], world: &str, expect: &str) {
        let manifest = Manifest::parse("plugin.toml", &crate::testing::manifest_text("box", "")).unwrap();
        let bytes = crate::testing::component_of(replacements, world);
        let outcome = check_component(&manifest, &bytes);
        let shown = outcome.err().map(|error| error.message().to_string()).unwrap_or_else(|| "fine".into());
        assert_eq!(shown, expect);
    }

    #[test]
    fn components_fit_or_are_told_why_not() {
        component_check(&[], "mainstay:api/api", "fine");
        component_check(
            &[("renew: func()", "rewind: func(n: u32) -> u32;\n  renew: func()")],
            "mainstay:api/api",
            "`box.wasm`: it imports `rewind` of `mainstay:host/keys@0.1.0`, which `mainstay:host/keys@0.1.0` of this host \
             lacks; run it on a newer host, or build it against 0.1.0",
        );
        component_check(
            &[("start: func(previous", "begin: func(previous")],
            "mainstay:api/api",
            "`box.wasm`: its `mainstay:lifecycle/lifecycle@0.1.0` lacks `start`; build it against 0.1.0",
        );
        component_check(
            &[("export handler;", "")],
            "mainstay:api/api",
            "`box.wasm`: it does not export `mainstay:api/handler@0.1.0`, which the world `mainstay:api/api@0.1.0` needs; \
             implement it, or take the world out of the manifest",
        );
        component_check(
            &[("import http;", "import http;\n  import clock: interface { now: func() -> u64; }")],
            "mainstay:api/api",
            "`box.wasm`: it imports `clock`, which no contract of this host has; build it with Mainstay's contracts",
        );
        component_check(
            &[
                ("import http;", "import http;\n  import sockets;"),
                ("interface handler {", "interface sockets { open: func(); }\n\ninterface handler {"),
            ],
            "mainstay:api/api",
            "`box.wasm`: it imports `mainstay:api/sockets@0.1.0`, which this host does not have; run it on a newer host, or \
             build it without that import",
        );
    }

    #[test]
    fn other_versions_are_named_on_both_sides() {
        let manifest = Manifest::parse("plugin.toml", &crate::testing::manifest_text("box", "")).unwrap();
        let bytes = crate::testing::component_of(&[("@0.1.0", "@0.2.0")], "mainstay:api/api");
        let error = check_component(&manifest, &bytes).unwrap_err();
        let line = "`box.wasm`: it imports `mainstay:host/keys@0.2.0`, this host offers `mainstay:host/keys@0.1.0`; run it on \
                    a newer host, or build it against 0.1.0";
        assert!(error.message().lines().any(|shown| shown == line), "{error}");
    }

    #[test]
    fn what_is_no_component_is_told_so() {
        fn check(bytes: &[u8], expect: &str) {
            let manifest = Manifest::parse("plugin.toml", &crate::testing::manifest_text("box", "")).unwrap();
            let error = check_component(&manifest, bytes).unwrap_err();
            assert!(error.message().contains(expect), "{error} should hold {expect}");
        }
        check(b"", "is not a WebAssembly component");
        check(b"PK\x03\x04 some zip", "is not a WebAssembly component");
        check(b"\0asm\x01\0\0\0", "is a WebAssembly module, not a component");
        check(b"\0asm\x0d\0\x01\0garbage behind it", "is not a valid component");
        let good = crate::testing::component();
        for cut in (8..good.len()).step_by(good.len() / 20) {
            check(&good[..cut], "`box.wasm`");
        }
    }

    #[test]
    fn changed_components_never_end_the_host() {
        use mainstay_base::{Random, SeededRandom};
        let random = SeededRandom::new(7);
        let manifest = Manifest::parse("plugin.toml", &crate::testing::manifest_text("box", "")).unwrap();
        let good = crate::testing::component();
        let mut refused = 0;
        for _ in 0..500 {
            let mut bytes = good.clone();
            let place = 8 + random.number() as usize % (bytes.len() - 8);
            bytes[place] = random.number() as u8;
            refused += usize::from(check_component(&manifest, &bytes).is_err());
        }
        assert!(refused > 100, "{refused}");
    }

    #[test]
    fn imports_without_their_capability_are_noted() {
        let manifest = Manifest::parse("plugin.toml", &crate::testing::manifest_text("box", "")).unwrap();
        let notes = check_component(&manifest, crate::testing::component()).unwrap();
        assert_eq!(notes.len(), 11, "{notes:?}");
        assert!(notes.iter().any(|note| note.contains("`keys` without asking")), "{notes:?}");
    }
}
