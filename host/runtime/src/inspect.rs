//! Looks at a component's imports and exports before anything is linked, so that version skew is told in words: the item,
//! both versions, and the fix.
//!
//! The engine links 0.1.x to 0.1.y and 1.x to 1.y; this module holds the same rule. What remains, a function that is
//! missing inside an interface of a fitting version, is reported by [`explain_link_error`].

use mainstay_base::{Error, Result};
use wasmtime::component::Component;

/// An interface in one version, for example `mainstay:host/keys` in `0.1.0`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Package and interface.
    pub name: &'static str,
    /// Semantic version.
    pub version: &'static str,
}

/// What a host offers to a component and expects of it.
#[derive(Clone, Copy, Debug)]
pub struct Contract {
    /// The world, for messages.
    pub world: &'static str,
    /// What may be imported.
    pub imports: &'static [Interface],
    /// What must be exported.
    pub exports: &'static [Interface],
}

/// A name as a component writes it.
struct Named<'a> {
    name: &'a str,
    version: Option<&'a str>,
}

impl<'a> Named<'a> {
    fn parse(text: &'a str) -> Named<'a> {
        match text.split_once('@') {
            Some((name, version)) => Named { name, version: Some(version) },
            None => Named { name: text, version: None },
        }
    }
}

/// What must be equal for two versions to link: the first number that is not zero, and those before it.
fn track(version: &str) -> Option<(u64, u64, u64)> {
    if version.contains('-') {
        return None;
    }
    let mut numbers = version.split('+').next()?.splitn(3, '.').map(|part| part.parse::<u64>().ok());
    let (major, minor, patch) = (numbers.next()??, numbers.next()??, numbers.next()??);
    Some(match (major, minor) {
        (0, 0) => (0, 0, patch),
        (0, minor) => (0, minor, 0),
        (major, _) => (major, 0, 0),
    })
}

fn links(one: &str, other: &str) -> bool {
    one == other || (track(one).is_some() && track(one) == track(other))
}

/// Whether the component is newer, as advice.
fn advice(theirs: &str, ours: &str) -> &'static str {
    match (track(theirs), track(ours)) {
        (Some(theirs), Some(ours)) if theirs > ours => "update this host, or build the plugin with an older SDK",
        _ => "build the plugin again with the SDK of this host",
    }
}

/// Refuses a component that asks for something this host has not, or lacks what the world must answer.
pub fn inspect(engine: &wasmtime::Engine, component: &Component, contract: &Contract) -> Result<()> {
    let ty = component.component_type();
    for (text, _) in ty.imports(engine) {
        check_import(text, contract)?;
    }
    let exports: Vec<&str> = ty.exports(engine).map(|(text, _)| text).collect();
    contract.exports.iter().try_for_each(|wanted| check_export(wanted, &exports, contract))
}

fn check_import(text: &str, contract: &Contract) -> Result<()> {
    let named = Named::parse(text);
    let Some(ours) = contract.imports.iter().find(|ours| ours.name == named.name) else {
        let known = contract.imports.iter().map(|ours| ours.name).collect::<Vec<_>>().join(", ");
        let hint = if named.name.starts_with("wasi:") || named.name.starts_with("wasi_") {
            "; plugins have no access to the system: build for the target wasm32-unknown-unknown"
        } else {
            "; update this host, or build the plugin without it"
        };
        return Err(Error::invalid(format!(
            "the component imports `{text}`, which this host does not have{hint} (it has {known})"
        )));
    };
    let theirs = named.version.unwrap_or("no version");
    if links(theirs, ours.version) {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "the component imports `{}` in version {theirs}, and this host has version {}; {}",
        ours.name,
        ours.version,
        advice(theirs, ours.version)
    )))
}

fn check_export(wanted: &Interface, exports: &[&str], contract: &Contract) -> Result<()> {
    let same_name = exports.iter().map(|text| Named::parse(text)).filter(|named| named.name == wanted.name);
    let versions: Vec<&str> = same_name.map(|named| named.version.unwrap_or("no version")).collect();
    if versions.iter().any(|theirs| links(theirs, wanted.version)) {
        return Ok(());
    }
    let Some(theirs) = versions.first() else {
        return Err(Error::invalid(format!(
            "the component does not export `{}@{}`, which every plugin of the world `{}` must; it exports {}: build it with the SDK, which exports what the world needs",
            wanted.name,
            wanted.version,
            contract.world,
            if exports.is_empty() { "nothing".to_owned() } else { exports.join(", ") }
        )));
    };
    Err(Error::invalid(format!(
        "the component exports `{}` in version {theirs}, and this host calls version {}; {}",
        wanted.name,
        wanted.version,
        advice(theirs, wanted.version)
    )))
}

/// A linker's or binding's complaint about a component whose interfaces all have fitting versions: some function or type
/// inside differs.
pub fn explain_link_error(error: &wasmtime::Error, contract: &Contract) -> Error {
    let words = error.chain().map(|cause| cause.to_string()).collect::<Vec<_>>().join(": ");
    let versions =
        contract.imports.iter().chain(contract.exports).map(|ours| format!("{}@{}", ours.name, ours.version));
    Error::invalid(format!(
        "the component does not fit the world `{}` of this host: {words}; it was built against another revision of these interfaces: build it again with the SDK of this host, or update the host (it has {})",
        contract.world,
        versions.collect::<Vec<_>>().join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_link_as_the_engine_links_them() {
        fn check(one: &str, other: &str, expect: bool) {
            assert_eq!(links(one, other), expect, "{one} and {other}");
            assert_eq!(links(other, one), expect, "{other} and {one}");
        }
        check("0.1.0", "0.1.0", true);
        check("0.1.0", "0.1.7", true);
        check("0.1.0", "0.2.0", false);
        check("0.0.1", "0.0.2", false);
        check("1.0.0", "1.9.3", true);
        check("1.0.0", "2.0.0", false);
        check("1.0.0-rc.1", "1.0.0", false);
        check("1.0.0-rc.1", "1.0.0-rc.1", true);
        check("no version", "0.1.0", false);
    }

    #[test]
    fn skew_is_told_with_the_item_both_versions_and_the_fix() {
        const CONTRACT: Contract = Contract {
            world: "house:api/api@0.1.0",
            imports: &[Interface { name: "house:host/keys", version: "0.1.0" }],
            exports: &[Interface { name: "house:api/handler", version: "0.1.0" }],
        };
        fn check(component: &str, words: &[&str]) {
            let engine = wasmtime::Engine::new(&crate::engine::compile_config()).unwrap();
            let component = Component::new(&engine, component).unwrap();
            let error = inspect(&engine, &component, &CONTRACT).unwrap_err();
            for word in words {
                assert!(error.message().contains(word), "`{word}` is missing: {error}");
            }
        }
        check(
            r#"(component (import "house:host/keys@0.2.0" (instance)))"#,
            &["house:host/keys", "version 0.2.0", "version 0.1.0", "update this host"],
        );
        check(
            r#"(component (import "house:host/keys@0.0.9" (instance)))"#,
            &["house:host/keys", "version 0.0.9", "version 0.1.0", "build the plugin again"],
        );
        check(
            r#"(component (import "house:host/teleport@0.1.0" (instance)))"#,
            &["house:host/teleport@0.1.0", "it has house:host/keys"],
        );
        check(
            r#"(component (import "wasi:cli/environment@0.2.3" (instance)))"#,
            &["wasi:cli/environment", "wasm32-unknown-unknown"],
        );
        check("(component)", &["does not export `house:api/handler@0.1.0`", "exports nothing"]);
        check(
            r#"(component (instance $i) (export "house:api/handler@0.4.0" (instance $i)))"#,
            &["house:api/handler", "version 0.4.0", "version 0.1.0", "update this host"],
        );
    }
}
