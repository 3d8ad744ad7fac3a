//! Packages: a plugin's files as a folder, or as one `.mainstay` file (tar in zstd).
//!
//! Owns reading and writing them, and the digest that the lockfile pins. Separate because a package file comes from
//! elsewhere: nothing in it is believed before it has passed here. Bounded by the constants below, checked while reading, so
//! that a small file cannot unfold into a large one. The digest covers names and contents only, not the archive around them:
//! a folder and the file packed from it have the same one. On failure: the file, the entry, and what is wrong with it.

use crate::manifest::{MANIFEST_FILE, Manifest};
use mainstay_base::{Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;

/// Ending of a package file's name.
pub const PACKAGE_EXTENSION: &str = "mainstay";
/// Largest package file.
pub const PACKAGE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// Largest sum of what is inside.
pub const CONTENT_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Largest text file (manifest, schema, readme) inside.
pub const TEXT_BYTES_MAX: usize = 1024 * 1024;
/// Most files inside.
pub const FILES_MAX: usize = 1_000;
/// Longest name of a file inside.
pub const NAME_BYTES_MAX: usize = 255;
/// How far zstd may look back: 2^27 bytes is what its own command line allows.
const WINDOW_LOG_MAX: u32 = 27;
const ASSETS: &str = "assets/";
const BESIDE: &[&str] = &["README.md", "LICENSE", "LICENSE-APACHE", "LICENSE-MIT", "NOTICE", "CHANGELOG.md"];

/// A plugin's files, read and checked.
#[derive(Clone, Debug)]
pub struct Package {
    /// What the plugin says of itself.
    pub manifest: Manifest,
    /// The component's bytes; not yet checked against the host (see [`crate::check_component`]).
    pub component: Arc<Vec<u8>>,
    /// JSON Schema of the plugin's settings, if it has some.
    pub config_schema: Option<Value>,
    /// `README.md`, if there is one.
    pub readme: Option<String>,
    /// SHA-256 of names and contents, lowercase hexadecimal.
    pub digest: String,
    files: BTreeMap<String, Arc<Vec<u8>>>,
}

impl Package {
    /// Read a package from a folder or a package file.
    pub fn read(path: &Path) -> Result<Package> {
        let kind = fs::metadata(path).map_err(|error| Error::io("read the package", path, error))?;
        if kind.is_dir() {
            return Package::from_files(&path.display().to_string(), read_folder(path)?);
        }
        if kind.len() > PACKAGE_BYTES_MAX {
            return Err(too_large(&path.display().to_string(), PACKAGE_BYTES_MAX));
        }
        let file = fs::File::open(path).map_err(|error| Error::io("read the package", path, error))?;
        Package::from_reader(&path.display().to_string(), file)
    }

    /// Read a package file from memory; `name` is what messages call it.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Package> {
        Package::from_reader(name, bytes)
    }

    fn from_reader(name: &str, reader: impl Read) -> Result<Package> {
        Package::from_files(name, unpack(name, reader)?)
    }

    /// Check the files of a package, by their names inside it.
    pub fn from_files(name: &str, files: BTreeMap<String, Vec<u8>>) -> Result<Package> {
        let files: BTreeMap<String, Arc<Vec<u8>>> =
            files.into_iter().map(|(name, bytes)| (name, Arc::new(bytes))).collect();
        let Some(manifest) = files.get(MANIFEST_FILE) else {
            return Err(Error::invalid(format!(
                "`{name}` holds no `{MANIFEST_FILE}`, so it is no plugin; check the path"
            )));
        };
        let manifest = Manifest::parse(&inside(name, MANIFEST_FILE), text(name, MANIFEST_FILE, manifest)?)?;
        let Some(component) = files.get(&manifest.component).cloned() else {
            let file = &manifest.component;
            return Err(Error::not_found(format!(
                "`{name}` does not hold `{file}`, which its manifest names as the component; build the plugin first"
            )));
        };
        let config_schema = match &manifest.config {
            None => None,
            Some(config) => Some(read_schema(name, &config.schema, files.get(&config.schema))?),
        };
        let readme = match files.get("README.md") {
            None => None,
            Some(bytes) => Some(text(name, "README.md", bytes)?.to_string()),
        };
        if let Some(stranger) = files.keys().find(|file| !belongs(&manifest, file)) {
            return Err(Error::invalid(format!(
                "`{name}` holds `{stranger}`, which is no part of a package; put what the plugin serves under `{ASSETS}` and \
                 leave everything else out"
            )));
        }
        Ok(Package { digest: digest(&files), manifest, component, config_schema, readme, files })
    }

    /// The package's files by name, in order.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// Pack a folder into a package file. The same content gives the same bytes.
    pub fn write(folder: &Path, out: &Path) -> Result<Package> {
        let package = Package::read(folder)?;
        let bytes = package.to_bytes()?;
        let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(parent).map_err(|error| Error::io("create", parent, error))?;
        let write = || -> std::io::Result<()> {
            let mut file = tempfile::Builder::new().prefix(".packing-").tempfile_in(parent)?;
            file.write_all(&bytes)?;
            file.as_file().sync_all()?;
            file.persist(out)?;
            Ok(())
        };
        write().map_err(|error| Error::io("write the package", out, error))?;
        Ok(package)
    }

    /// The package file's bytes: sorted names, no times, no owners.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        const LEVEL: i32 = 10;
        let pack = || -> std::io::Result<Vec<u8>> {
            let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), LEVEL)?);
            for (name, bytes) in &self.files {
                let mut header = tar::Header::new_gnu();
                header.set_size(bytes.len() as u64);
                header.set_mode(0o644);
                header.set_mtime(0);
                header.set_uid(0);
                header.set_gid(0);
                archive.append_data(&mut header, name, bytes.as_slice())?;
            }
            archive.into_inner()?.finish()
        };
        pack().map_err(|error| Error::internal(format!("cannot pack `{}`: {error}", self.manifest.name)))
    }

    /// The name that a package file should have.
    pub fn file_name(&self) -> String {
        format!("{}-{}.{PACKAGE_EXTENSION}", self.manifest.name, self.manifest.version)
    }
}

/// Whether the file has a place in the package.
fn belongs(manifest: &Manifest, file: &str) -> bool {
    let schema = manifest.config.as_ref().map(|config| config.schema.as_str());
    file == MANIFEST_FILE
        || file == manifest.component
        || Some(file) == schema
        || BESIDE.contains(&file)
        || file.starts_with(ASSETS)
}

fn digest(files: &BTreeMap<String, Arc<Vec<u8>>>) -> String {
    let mut hash = Sha256::new();
    hash.update(b"mainstay package 1\n");
    for (name, bytes) in files {
        for part in [name.as_bytes(), bytes.as_slice()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    hex::encode(hash.finalize())
}

fn inside(package: &str, file: &str) -> String {
    format!("{}/{file}", package.trim_end_matches('/'))
}

fn text<'a>(package: &str, file: &str, bytes: &'a [u8]) -> Result<&'a str> {
    let name = inside(package, file);
    if bytes.len() > TEXT_BYTES_MAX {
        return Err(too_large(&name, TEXT_BYTES_MAX as u64));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let offset = error.valid_up_to();
        Error::invalid(format!("`{name}` is not UTF-8 text (byte {offset}); save it as UTF-8"))
    })
}

fn too_large(what: &str, limit: u64) -> Error {
    Error::invalid(format!("`{what}` is larger than {limit} bytes, the most that a plugin may have; make it smaller"))
}

fn read_schema(package: &str, file: &str, bytes: Option<&Arc<Vec<u8>>>) -> Result<Value> {
    let name = inside(package, file);
    let Some(bytes) = bytes else {
        return Err(Error::not_found(format!("`{package}` does not hold `{file}`, which its manifest names; add it")));
    };
    let schema: Value = serde_json::from_str(text(package, file, bytes)?)
        .map_err(|error| Error::invalid(format!("{name}:{}:{}: {error}", error.line(), error.column())))?;
    crate::settings::check_schema(&schema).map_err(|error| error.context(name))?;
    Ok(schema)
}

/// A name inside a package, checked: relative, plain, without `.` and `..`.
fn check_name(package: &str, name: &[u8]) -> Result<String> {
    let refuse = |why: &str| {
        let shown = String::from_utf8_lossy(name);
        Err(Error::invalid(format!("`{package}` holds the entry `{shown}`, {why}; pack it again")))
    };
    let Ok(name) = std::str::from_utf8(name) else { return refuse("whose name is not UTF-8") };
    let name = name.strip_prefix("./").unwrap_or(name);
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return refuse("whose name is empty or too long");
    }
    if name.starts_with('/') || name.split('/').any(|part| part.is_empty() || part == "." || part == "..") {
        return refuse("whose name leads out of the package");
    }
    if name.chars().any(|c| c.is_control() || c == '\\' || c == ':') {
        return refuse("whose name holds characters that are not allowed");
    }
    Ok(name.to_string())
}

fn unpack(name: &str, reader: impl Read) -> Result<BTreeMap<String, Vec<u8>>> {
    let broken = |error: std::io::Error| {
        Error::invalid(format!("`{name}` is not a readable package (tar in zstd): {error}; fetch or pack it again"))
    };
    let mut decoder = zstd::Decoder::new(reader).map_err(broken)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(broken)?;
    // Headers count too: no archive makes us read more than this.
    let mut archive = tar::Archive::new(decoder.take(CONTENT_BYTES_MAX + 1024 * FILES_MAX as u64 * 4));
    let mut files = BTreeMap::new();
    let mut left = CONTENT_BYTES_MAX;
    for (number, entry) in archive.entries().map_err(broken)?.enumerate() {
        if number >= FILES_MAX * 2 || files.len() >= FILES_MAX {
            return Err(Error::invalid(format!("`{name}` holds more than {FILES_MAX} files; put fewer into it")));
        }
        let mut entry = entry.map_err(broken)?;
        let kind = entry.header().entry_type();
        if kind.is_dir() {
            continue;
        }
        let file = check_name(name, &entry.path_bytes())?;
        if !kind.is_file() {
            return Err(Error::invalid(format!(
                "`{name}` holds `{file}`, which is a link or a device; packages hold plain files only"
            )));
        }
        if entry.size() > left {
            return Err(too_large(name, CONTENT_BYTES_MAX));
        }
        // The header's size is a claim: memory grows only with what really comes.
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(broken)?;
        left -= (bytes.len() as u64).min(left);
        if files.insert(file.clone(), bytes).is_some() {
            return Err(Error::invalid(format!("`{name}` holds `{file}` twice; pack it again")));
        }
    }
    Ok(files)
}

fn read_folder(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut left = CONTENT_BYTES_MAX;
    let Some(manifest) = read_file(folder, MANIFEST_FILE, &mut left)? else { return Ok(files) };
    let name = folder.display().to_string();
    let parsed = Manifest::parse(&inside(&name, MANIFEST_FILE), text(&name, MANIFEST_FILE, &manifest)?)?;
    files.insert(MANIFEST_FILE.to_string(), manifest);
    let schema = parsed.config.map(|config| config.schema);
    for file in BESIDE.iter().copied().chain([parsed.component.as_str()]).chain(schema.as_deref()) {
        if let Some(bytes) = read_file(folder, file, &mut left)? {
            files.insert(file.to_string(), bytes);
        }
    }
    read_assets(folder, ASSETS, &mut files, &mut left)?;
    Ok(files)
}

fn read_file(folder: &Path, file: &str, left: &mut u64) -> Result<Option<Vec<u8>>> {
    let path = folder.join(file);
    let kind = match fs::symlink_metadata(&path) {
        Ok(kind) => kind,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", &path, error)),
    };
    if !kind.is_file() {
        let path = path.display();
        return Err(Error::invalid(format!(
            "`{path}` is a link or no file; packages hold plain files only: copy it there"
        )));
    }
    if kind.len() > *left {
        return Err(too_large(&folder.display().to_string(), CONTENT_BYTES_MAX));
    }
    *left -= kind.len();
    fs::read(&path).map(Some).map_err(|error| Error::io("read", &path, error))
}

/// Files below `assets/`, without recursion: a queue of folders, bounded by the number of files.
fn read_assets(folder: &Path, below: &str, files: &mut BTreeMap<String, Vec<u8>>, left: &mut u64) -> Result<()> {
    let mut folders = vec![below.to_string()];
    while let Some(below) = folders.pop() {
        let path = folder.join(&below);
        let Ok(entries) = fs::read_dir(&path) else { continue };
        for entry in entries {
            let entry = entry.map_err(|error| Error::io("read", &path, error))?;
            let name = format!("{below}{}", entry.file_name().display());
            let name = check_name(&folder.display().to_string(), name.as_bytes())?;
            if files.len() + folders.len() >= FILES_MAX {
                let folder = folder.display();
                return Err(Error::invalid(format!("`{folder}` holds more than {FILES_MAX} files; put fewer into it")));
            }
            if entry.path().is_dir() && !entry.path().is_symlink() {
                folders.push(format!("{name}/"));
            } else if let Some(bytes) = read_file(folder, &name, left)? {
                files.insert(name, bytes);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{folder_with, manifest_text};

    fn archive(entries: &[(&str, tar::EntryType, &[u8])]) -> Vec<u8> {
        let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
        for (name, kind, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            // Written by hand: the library itself refuses to write names that lead out.
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_cksum();
            archive.append(&header, *bytes).unwrap();
        }
        archive.into_inner().unwrap().finish().unwrap()
    }

    #[test]
    fn folder_and_file_have_one_digest_and_reproducible_bytes() {
        let folder = folder_with(&[
            ("plugin.toml", manifest_text("box", "").as_bytes()),
            ("box.wasm", b"bytes"),
            ("README.md", b"# Box"),
            ("assets/a/b.txt", b"b"),
            ("src/lib.rs", b"left out"),
        ]);
        let out = folder.path().join("out/box.mainstay");
        let packed = Package::write(folder.path(), &out).unwrap();
        let read = Package::read(&out).unwrap();
        assert_eq!(packed.digest, read.digest);
        assert_eq!(read.digest, Package::read(folder.path()).unwrap().digest);
        assert_eq!(read.readme.as_deref(), Some("# Box"));
        assert_eq!(read.component.as_slice(), b"bytes");
        let names: Vec<&str> = read.files().map(|(name, _)| name).collect();
        assert_eq!(names, ["README.md", "assets/a/b.txt", "box.wasm", "plugin.toml"]);
        assert_eq!(fs::read(&out).unwrap(), read.to_bytes().unwrap());
        assert_eq!(read.file_name(), "box-0.1.0.mainstay");
    }

    #[test]
    fn the_digest_tells_contents_and_names_apart() {
        fn digest_of(files: &[(&str, &str)]) -> String {
            digest(&files.iter().map(|(n, b)| (n.to_string(), Arc::new(b.as_bytes().to_vec()))).collect())
        }
        let all = [
            digest_of(&[("a", "bc")]),
            digest_of(&[("ab", "c")]),
            digest_of(&[("a", "b"), ("c", "")]),
            digest_of(&[("a", "bc"), ("d", "")]),
        ];
        for (number, one) in all.iter().enumerate() {
            assert!(!all[number + 1..].contains(one));
        }
    }

    #[test]
    fn hostile_archives_are_refused() {
        use tar::EntryType as Kind;
        let manifest = manifest_text("box", "");
        let good: [(&str, Kind, &[u8]); 2] =
            [("plugin.toml", Kind::Regular, manifest.as_bytes()), ("box.wasm", Kind::Regular, b"x")];
        let check = |extra: &[(&str, Kind, &[u8])], expect: &str| {
            let entries: Vec<_> = good.iter().chain(extra).copied().collect();
            let outcome = Package::from_bytes("p", &archive(&entries));
            let shown = outcome.err().map(|error| error.message().to_string()).unwrap_or_else(|| "fine".into());
            assert!(shown.contains(expect), "{shown} should hold {expect}");
        };
        check(&[], "fine");
        check(&[("assets", Kind::Directory, b""), ("./assets/x", Kind::Regular, b"x")], "fine");
        check(&[("../x", Kind::Regular, b"x")], "leads out of the package");
        check(&[("/etc/x", Kind::Regular, b"x")], "leads out of the package");
        check(&[("assets/../../x", Kind::Regular, b"x")], "leads out of the package");
        check(&[("assets\\x", Kind::Regular, b"x")], "not allowed");
        check(&[("assets/x", Kind::Symlink, b"")], "`assets/x`, which is a link or a device");
        check(&[("assets/x", Kind::Link, b"")], "which is a link or a device");
        check(&[("assets/x", Kind::Char, b"")], "which is a link or a device");
        check(&[("box.wasm", Kind::Regular, b"y")], "holds `box.wasm` twice");
        check(&[("evil.sh", Kind::Regular, b"y")], "holds `evil.sh`, which is no part of a package");
        let many: Vec<String> = (0..FILES_MAX).map(|number| format!("assets/{number}")).collect();
        let many: Vec<(&str, Kind, &[u8])> = many.iter().map(|name| (name.as_str(), Kind::Regular, &b""[..])).collect();
        check(&many[..FILES_MAX - 2], "fine");
        check(&many[..FILES_MAX - 1], "more than 1000 files");
    }

    #[test]
    fn a_bomb_is_cut_short() {
        let zeros = std::io::repeat(0).take(CONTENT_BYTES_MAX + 1);
        let mut archive = tar::Builder::new(zstd::Encoder::new(Vec::new(), 1).unwrap());
        let mut header = tar::Header::new_gnu();
        header.set_size(CONTENT_BYTES_MAX + 1);
        archive.append_data(&mut header, "assets/zeros", zeros).unwrap();
        let bytes = archive.into_inner().unwrap().finish().unwrap();
        assert!(bytes.len() < 1024 * 1024);
        let error = Package::from_bytes("bomb", &bytes).unwrap_err();
        assert!(error.message().contains("larger than"), "{error}");
    }

    #[test]
    fn broken_files_are_refused_wherever_they_are_cut() {
        let folder = folder_with(&[("plugin.toml", manifest_text("box", "").as_bytes()), ("box.wasm", &[7; 5000])]);
        let bytes = Package::read(folder.path()).unwrap().to_bytes().unwrap();
        for length in [0, 1, 10, bytes.len() / 2, bytes.len() - 1] {
            assert!(Package::from_bytes("cut", &bytes[..length]).is_err(), "{length}");
        }
        assert!(Package::from_bytes("text", b"not a package").unwrap_err().message().contains("tar in zstd"));
    }

    #[test]
    fn changed_bytes_are_an_error_or_a_package_never_a_panic() {
        use mainstay_base::{Random, SeededRandom};
        let random = SeededRandom::new(7);
        let manifest = manifest_text("box", "[config]\nschema = \"c.json\"\n");
        let files: [(&str, &[u8]); 3] =
            [("plugin.toml", manifest.as_bytes()), ("box.wasm", b"x"), ("c.json", b"{\"type\": \"object\"}")];
        let good = archive(&files.map(|(name, bytes)| (name, tar::EntryType::Regular, bytes)));
        let unpacked = zstd::decode_all(good.as_slice()).unwrap();
        let whole = Package::from_bytes("good", &good).unwrap();
        let mut refused = 0;
        for _ in 0..2_000 {
            let mut bytes = unpacked.clone();
            for _ in 0..1 + random.number() % 3 {
                let place = random.number() as usize % bytes.len();
                bytes[place] = random.number() as u8;
            }
            match Package::from_bytes("changed", &zstd::encode_all(bytes.as_slice(), 1).unwrap()) {
                // What lies between files is not content.
                Ok(package) => assert!(package.digest == whole.digest || package.files != whole.files),
                Err(_) => refused += 1,
            }
        }
        assert!(refused > 500, "{refused}");
    }

    #[test]
    fn folders_are_checked_too() {
        fn check(files: &[(&str, &[u8])], expect: &str) {
            let folder = folder_with(files);
            let error = Package::read(folder.path()).unwrap_err();
            assert!(error.message().contains(expect), "{error} should hold {expect}");
        }
        let manifest = manifest_text("box", "");
        let with_config = manifest_text("box", "[config]\nschema = \"c.json\"\n");
        check(&[], "holds no `plugin.toml`");
        check(&[("plugin.toml", manifest.as_bytes())], "does not hold `box.wasm`");
        check(&[("plugin.toml", b"\xff")], "is not UTF-8");
        check(&[("plugin.toml", with_config.as_bytes()), ("box.wasm", b"")], "does not hold `c.json`");
        check(
            &[("plugin.toml", with_config.as_bytes()), ("box.wasm", b""), ("c.json", b"{\n  \"type\": }")],
            "c.json:2:11: expected value",
        );
        check(
            &[("plugin.toml", with_config.as_bytes()), ("box.wasm", b""), ("c.json", b"{\"type\": \"strong\"}")],
            "is not a valid JSON Schema",
        );
        let linked = folder_with(&[("plugin.toml", manifest.as_bytes())]);
        std::os::unix::fs::symlink("/etc/hostname", linked.path().join("box.wasm")).unwrap();
        assert!(Package::read(linked.path()).unwrap_err().message().contains("is a link"));
    }
}
