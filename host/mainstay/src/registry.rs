//! Where a plugin's package is found: a path, a folder of packages, or the binary itself.
//!
//! Owns the packages that the build put into the binary, and the order of looking. Separate so that the server and the
//! plugin commands find the same thing. On failure: what was looked for, where, and how to get it.

use mainstay_base::{Error, Result};
use mainstay_market::{PACKAGE_EXTENSION, Package, nearest};
use std::path::{Path, PathBuf};

/// Packages by file name, put in by the build.
static EMBEDDED: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/standard.rs"));

/// Packages that can be found by name.
pub struct Registry {
    folder: Option<PathBuf>,
}

impl Registry {
    /// A folder of packages first, if there is one, then those in the binary.
    pub fn new(folder: Option<&Path>) -> Registry {
        Registry { folder: folder.map(Path::to_path_buf) }
    }

    /// Every package that can be found by name, newest version of each, by name.
    pub fn packages(&self) -> Result<Vec<Package>> {
        let mut found: Vec<Package> = match &self.folder {
            Some(folder) => read_folder(folder)?,
            None => EMBEDDED.iter().map(|(name, bytes)| Package::from_bytes(name, bytes)).collect::<Result<_>>()?,
        };
        found.sort_by(|left, right| {
            let newest_first = right.manifest.version.cmp(&left.manifest.version);
            left.manifest.name.cmp(&right.manifest.name).then(newest_first)
        });
        found.dedup_by(|later, earlier| later.manifest.name == earlier.manifest.name);
        Ok(found)
    }

    /// A package by path (with a `/`, or ending like a package file), or by name.
    pub fn find(&self, what: &str) -> Result<Package> {
        if is_path(what) {
            return Package::read(Path::new(what));
        }
        let all = self.packages()?;
        let names: Vec<String> = all.iter().map(|package| package.manifest.name.clone()).collect();
        if let Some(place) = names.iter().position(|name| name == what) {
            return Ok(all.into_iter().nth(place).expect("the position is inside"));
        }
        if Path::new(what).exists() {
            return Package::read(Path::new(what));
        }
        let near = nearest(what, names.iter().map(String::as_str)).map(|near| format!("did you mean `{near}`? "));
        let place = self.place();
        Err(Error::not_found(format!(
            "no plugin `{what}` in {place}; {}give a package file or folder, or a folder of packages with `--registry`",
            near.unwrap_or_default()
        )))
    }

    /// Where names are looked up, in words.
    pub fn place(&self) -> String {
        match &self.folder {
            Some(folder) => format!("`{}`", folder.display()),
            None if EMBEDDED.is_empty() => "this binary, which was built without plugins".into(),
            None => "this binary".into(),
        }
    }
}

fn is_path(what: &str) -> bool {
    what.contains('/') || what.ends_with(&format!(".{PACKAGE_EXTENSION}"))
}

fn read_folder(folder: &Path) -> Result<Vec<Package>> {
    let entries = std::fs::read_dir(folder).map_err(|error| Error::io("read the registry", folder, error))?;
    let mut packages = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| Error::io("read the registry", folder, error))?.path();
        if path.extension().is_some_and(|extension| extension == PACKAGE_EXTENSION) {
            packages.push(Package::read(&path)?);
        }
    }
    Ok(packages)
}
