//! Packages and components for this crate's tests, made in memory.
//!
//! Components are encoded from the contracts in `wit/` (or changed copies of them) around an empty module, so that tests
//! need no wasm toolchain.

use crate::package::Package;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve};

/// A small valid manifest with more lines at its end.
pub fn manifest_text(name: &str, more: &str) -> String {
    format!(
        "name = \"{name}\"\nversion = \"0.1.0\"\ndescription = \"A test\"\nlicense = \"Apache-2.0\"\n\
         component = \"box.wasm\"\nworlds = [\"mainstay:api/api@0.1.0\"]\ncapabilities = []\n\n{more}"
    )
}

/// A folder with these files.
pub fn folder_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    folder
}

/// A package of this manifest and a real component of the world `api`.
pub fn package(manifest: &str) -> Package {
    package_with(manifest, &[])
}

/// The same with more files.
pub fn package_with(manifest: &str, more: &[(&str, &[u8])]) -> Package {
    let mut files = BTreeMap::from([
        ("plugin.toml".to_string(), manifest.as_bytes().to_vec()),
        ("box.wasm".to_string(), component().to_vec()),
    ]);
    files.extend(more.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())));
    Package::from_files("test", files).unwrap()
}

/// A component that exports the world `api` and imports all of it.
pub fn component() -> &'static Vec<u8> {
    static COMPONENT: LazyLock<Vec<u8>> = LazyLock::new(|| component_of(&[], "mainstay:api/api"));
    &COMPONENT
}

/// A component of a world of the contracts, after replacing texts in them. Worlds that replaced texts add count too.
pub fn component_of(replacements: &[(&str, &str)], world: &str) -> Vec<u8> {
    let mut resolve = Resolve::default();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
    for package in ["types", "host", "lifecycle", "numeric", "data", "api", "transform", "worker", "fallback"] {
        let mut sources = wit_parser::SourceMap::default();
        for file in std::fs::read_dir(root.join(package)).unwrap() {
            let path = file.unwrap().path();
            let mut text = std::fs::read_to_string(&path).unwrap();
            for (from, to) in replacements {
                text = text.replace(from, to);
            }
            sources.push(&path, text);
        }
        let group = sources.parse().unwrap_or_else(|(_, error)| panic!("{error:?}"));
        resolve.push_group(group).unwrap();
    }
    let (package, name) = world.split_once('/').unwrap();
    let (_, package) =
        resolve.packages.iter().find(|(_, p)| format!("{}:{}", p.name.namespace, p.name.name) == package).unwrap();
    let world = package.worlds[name];
    let mut module = dummy_module(&resolve, world, ManglingAndAbi::Standard32);
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false).unwrap();
    ComponentEncoder::default().module(&module).unwrap().encode().unwrap()
}
