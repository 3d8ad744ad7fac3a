//! Builds every folder of plugins/, makes components of them, and packs them.
//!
//! Owns the way from a plugin's sources to `registry-data/packages/NAME-VERSION.mainstay`. One cargo call builds all of
//! them with one target folder; a plugin whose module and files are as they were is not packed again. Bounded by: what
//! stands in plugins/. Plugins whose Cargo.toml says `[package.metadata.mainstay] example = true` go to
//! `registry-data/examples`, because every package of the first folder becomes part of the binary. On failure: the plugin, and what the compiler, the encoder or the package's check says.

use crate::place::Place;
use crate::say;
use crate::wasm::{TARGET, Toolchain};
use anyhow::{Context, Result, anyhow, bail};
use cargo_metadata::{CrateType, Message, MetadataCommand};
use mainstay_market::Package;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::BufReader;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// What belongs to a package beside the manifest, its component and its schema, if it is there.
const BESIDE: &[&str] = &["README.md", "LICENSE", "NOTICE", "CHANGELOG.md"];
/// Changes what is packed from the same inputs.
const RECIPE: &str = "1";

/// Build and pack all plugins; returns the package files.
pub fn build(place: &Place, allow_rustup: bool) -> Result<Vec<PathBuf>> {
    let toolchain = Toolchain::find(place, allow_rustup)?;
    say::step(&format!("Building the plugins with {}", toolchain.describe()));
    let target = place.target.join("plugins");
    let modules = compile(place, &toolchain, &target)?;
    let examples = examples(place)?;
    let bar = say::bar(modules.len());
    let mut packages = Vec::new();
    for (folder, module) in &modules {
        bar.set_message(place.show(folder));
        let out = if examples.contains(folder) { place.examples() } else { place.packages() };
        let package = pack(place, &target, folder, module, &out);
        let package = package.with_context(|| format!("packing {}", place.show(folder)))?;
        bar.suspend(|| say::done(&package.said));
        bar.inc(1);
        packages.push(package.path);
    }
    bar.finish_and_clear();
    remove_older(place, &packages)?;
    Ok(packages)
}

/// Every plugin's folder and its built module.
type Modules = BTreeMap<PathBuf, PathBuf>;

fn compile(place: &Place, toolchain: &Toolchain, target: &Path) -> Result<Modules> {
    let mut command = toolchain.cargo();
    command
        .args([
            "build",
            "--workspace",
            "--lib",
            "--release",
            "--target",
            TARGET,
            "--message-format",
            "json-render-diagnostics",
        ])
        .arg("--manifest-path")
        .arg(place.root.join("plugins/Cargo.toml"))
        .env("CARGO_TARGET_DIR", target)
        .stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("starting {}", say::shown(&command)))?;
    let output = BufReader::new(child.stdout.take().context("the output was asked for")?);
    let mut modules = BTreeMap::new();
    for message in Message::parse_stream(output) {
        let Message::CompilerArtifact(artifact) = message? else { continue };
        let module = artifact.filenames.iter().find(|file| file.extension() == Some("wasm"));
        if let (true, Some(module)) = (artifact.target.crate_types.contains(&CrateType::CDyLib), module) {
            let folder = artifact.manifest_path.parent().context("a manifest lies in a folder")?;
            modules.insert(folder.as_std_path().to_path_buf(), module.as_std_path().to_path_buf());
        }
    }
    if !child.wait()?.success() {
        bail!("the plugins do not build; the compiler's messages stand above");
    }
    Ok(modules)
}

/// Folders of plugins that are examples.
fn examples(place: &Place) -> Result<BTreeSet<PathBuf>> {
    let mut command = MetadataCommand::new();
    let metadata = command.manifest_path(place.root.join("plugins/Cargo.toml")).no_deps().exec()?;
    let is_example = |package: &&cargo_metadata::Package| package.metadata["mainstay"]["example"] == true;
    let folder =
        |package: &cargo_metadata::Package| package.manifest_path.parent().map(|path| path.as_std_path().to_path_buf());
    Ok(metadata.packages.iter().filter(is_example).filter_map(folder).collect())
}

struct Packed {
    path: PathBuf,
    said: String,
}

fn pack(place: &Place, target: &Path, folder: &Path, module: &Path, out: &Path) -> Result<Packed> {
    let mut files = package_files(folder)?;
    let module = fs::read(module)?;
    let stamp = stamp(&files, &module);
    let (name, version, component) = identity(&files)?;
    let path = out.join(format!("{name}-{version}.{}", mainstay_market::PACKAGE_EXTENSION));
    let stamp_path = target.join("stamps").join(&name);
    if path.exists() && fs::read_to_string(&stamp_path).is_ok_and(|old| old == stamp) {
        return Ok(Packed { said: format!("{name} {version}: unchanged"), path });
    }
    files.insert(component, componentize(&module)?);
    let package = Package::from_files(&place.show(folder), files).map_err(|error| anyhow!("{error}"))?;
    let bytes = package.to_bytes().map_err(|error| anyhow!("{error}"))?;
    write(&path, &bytes)?;
    write(&stamp_path, stamp.as_bytes())?;
    let said = format!("{name} {version}: packed, {} KiB → {}", bytes.len() / 1024, place.show(&path));
    Ok(Packed { path, said })
}

/// A component out of a module whose bindings carry their WIT.
pub fn componentize(module: &[u8]) -> Result<Vec<u8>> {
    wit_component::ComponentEncoder::default().validate(true).module(module)?.encode()
}

/// The files of a plugin's folder that go into its package, but for the component.
fn package_files(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let manifest = fs::read(folder.join("plugin.toml")).context("reading plugin.toml")?;
    let (_, schema) = named_files(&manifest)?;
    files.insert("plugin.toml".to_owned(), manifest);
    for name in BESIDE.iter().map(|name| (*name).to_owned()).chain(schema) {
        let path = folder.join(&name);
        if path.exists() {
            files.insert(name, fs::read(path)?);
        }
    }
    add_folder(&mut files, &folder.join("assets"), "assets/")?;
    Ok(files)
}

fn add_folder(files: &mut BTreeMap<String, Vec<u8>>, folder: &Path, prefix: &str) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else { return Ok(()) };
    for entry in entries {
        let path = entry?.path();
        let name = format!("{prefix}{}", path.file_name().context("an entry has a name")?.to_string_lossy());
        match path.is_dir() {
            true => add_folder(files, &path, &format!("{name}/"))?,
            false => drop(files.insert(name, fs::read(&path)?)),
        }
    }
    Ok(())
}

/// Name and version and component of the manifest, which is checked in full when it is packed.
fn identity(files: &BTreeMap<String, Vec<u8>>) -> Result<(String, String, String)> {
    let text = String::from_utf8(files["plugin.toml"].clone()).context("plugin.toml is not UTF-8")?;
    let manifest = mainstay_market::Manifest::parse("plugin.toml", &text).map_err(|error| anyhow!("{error}"))?;
    Ok((manifest.name.clone(), manifest.version.to_string(), manifest.component.clone()))
}

/// The component and the schema that a manifest names.
fn named_files(manifest: &[u8]) -> Result<(String, Option<String>)> {
    let text = std::str::from_utf8(manifest).context("plugin.toml is not UTF-8")?;
    let manifest = mainstay_market::Manifest::parse("plugin.toml", text).map_err(|error| anyhow!("{error}"))?;
    Ok((manifest.component, manifest.config.map(|config| config.schema)))
}

/// Names everything that the package is made from.
fn stamp(files: &BTreeMap<String, Vec<u8>>, module: &[u8]) -> String {
    let mut hash = Sha256::new_with_prefix(RECIPE);
    for (name, bytes) in files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).chain([("", module)]) {
        hash.update((name.len() as u64).to_le_bytes());
        hash.update(name);
        hash.update((bytes.len() as u64).to_le_bytes());
        hash.update(bytes);
    }
    hex::encode(hash.finalize())
}

/// Packages of other versions of the same plugins would make a host choose.
fn remove_older(place: &Place, packages: &[PathBuf]) -> Result<()> {
    let folders = [place.packages(), place.examples()];
    for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten() {
        let path = entry?.path();
        if !packages.contains(&path) && path.extension().is_some_and(|kind| kind == mainstay_market::PACKAGE_EXTENSION)
        {
            fs::remove_file(&path)?;
            say::done(&format!("removed {}, which plugins/ no longer makes", place.show(&path)));
        }
    }
    Ok(())
}

/// Write beside, then rename: a host that starts meanwhile reads the old file or the new one.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().context("a file lies in a folder")?;
    fs::create_dir_all(folder)?;
    let readable = fs::Permissions::from_mode(0o644);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder)?;
    std::io::Write::write_all(&mut file, bytes)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_changes_with_everything_that_is_packed() {
        let files = |pairs: &[(&str, &str)]| -> BTreeMap<String, Vec<u8>> {
            pairs.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
        };
        let base = stamp(&files(&[("plugin.toml", "a")]), b"module");
        assert_eq!(base, stamp(&files(&[("plugin.toml", "a")]), b"module"));
        for (other, module) in [
            (files(&[("plugin.toml", "b")]), "module"),
            (files(&[("plugin.tom", "la")]), "module"),
            (files(&[("plugin.toml", "a"), ("README.md", "")]), "module"),
            (files(&[("plugin.toml", "a")]), "modul"),
        ] {
            assert_ne!(base, stamp(&other, module.as_bytes()), "{other:?} {module}");
        }
    }

    #[test]
    fn a_module_without_bindings_is_refused() {
        assert!(componentize(b"no wasm at all").is_err());
    }

    #[test]
    fn what_belongs_to_a_package_is_taken_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let manifest = r#"
            name = "a"
            version = "0.1.0"
            description = "a"
            license = "Apache-2.0"
            component = "a.wasm"
            worlds = ["mainstay:api/api@0.1.0"]
            [config]
            schema = "rules/config.json"
        "#;
        for (name, text) in [
            ("plugin.toml", manifest),
            ("rules/config.json", "{}"),
            ("README.md", "words"),
            ("Cargo.toml", ""),
            ("src/lib.rs", ""),
            ("assets/a/b.css", ""),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let files = package_files(folder.path()).unwrap();
        let names: Vec<&str> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["README.md", "assets/a/b.css", "plugin.toml", "rules/config.json"]);
    }
}
