//! `plugins.lock`: which plugins are installed, pinned by digest, with what they may do.
//!
//! Owns the file's form and its atomic replacement. Separate because it is the one record of what the operator agreed to: at
//! every start the host runs what stands here and nothing else. Bounded by [`PLUGINS_MAX`] entries. On failure while
//! reading: the file, the place and the remedy; while writing: the old file stays.

use crate::located::Document;
use mainstay_base::{Error, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::Path;

/// The file's place in the data folder.
pub const LOCK_FILE: &str = "plugins/plugins.lock";
/// Most plugins in one data folder.
pub const PLUGINS_MAX: usize = 1_000;
const FORMAT: u32 = 1;
const HEADER: &str = "# Written by `mainstay plugin install` and `remove`; change it with them, not by hand.\n\n";

/// What is installed, in the order in which routes are tried.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lockfile {
    /// The plugins.
    pub plugins: Vec<LockEntry>,
}

/// The file. The digest is that of the plugins as this host writes them: a file that was cut between two of them, or after
/// its head, would otherwise read as one with fewer plugins.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Stored {
    format: u32,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    plugins: Vec<LockEntry>,
}

impl Stored {
    fn new(plugins: Vec<LockEntry>) -> Result<Stored> {
        let mut stored = Stored { format: FORMAT, digest: String::new(), plugins };
        let text = stored.text()?;
        stored.digest = hex::encode(Sha256::digest(text.as_bytes()));
        Ok(stored)
    }

    fn text(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::internal(format!("cannot write the lockfile: {error}")))
    }
}

/// One installed plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct LockEntry {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: semver::Version,
    /// SHA-256 of the package's names and contents.
    pub digest: String,
    /// Folder below `plugins/` in which its files stand.
    pub folder: String,
    /// Capabilities that the operator granted.
    pub grants: Vec<String>,
    /// Worlds that it exports.
    pub worlds: Vec<String>,
    /// Requests that it claims.
    pub routes: Vec<String>,
    /// SHA-256 of its settings.
    pub config_digest: String,
    /// When it was installed, UTC.
    pub installed: String,
}

impl Lockfile {
    /// Read the data folder's lockfile; an absent one is empty.
    pub fn read(data_folder: &Path) -> Result<Lockfile> {
        let path = data_folder.join(LOCK_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Lockfile::default()),
            Err(error) => return Err(Error::io("read", &path, error)),
        };
        let name = path.display().to_string();
        let damaged = |why: String| {
            Error::invalid(format!("{why}; restore `{name}` from a backup, or remove it and install the plugins again"))
        };
        let document = Document::parse(&name, &text).map_err(|error| damaged(error.message().into()))?;
        let stored: Stored = serde_json::from_value(document.value().clone())
            .map_err(|error| damaged(format!("{name}: not a lockfile: {error}")))?;
        if stored.format != FORMAT {
            let format = stored.format;
            let message =
                format!("`{name}` has format {format}, this host reads {FORMAT}; start the host that wrote it");
            return Err(Error::invalid(message));
        }
        let whole = Stored::new(stored.plugins)?;
        if stored.digest != whole.digest {
            return Err(damaged(format!("{name}: its digest is not that of its plugins: it was cut or changed")));
        }
        let lockfile = Lockfile { plugins: whole.plugins };
        lockfile.check().map_err(|why| damaged(format!("{name}: {why}")))?;
        Ok(lockfile)
    }

    /// Folders and names come from a file that could have been edited: they must not lead anywhere else.
    fn check(&self) -> std::result::Result<(), String> {
        if self.plugins.len() > PLUGINS_MAX {
            return Err(format!("{} plugins, at most {PLUGINS_MAX} are allowed", self.plugins.len()));
        }
        for (number, entry) in self.plugins.iter().enumerate() {
            let plain =
                |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-+.".contains(c));
            let parts: Vec<&str> = entry.folder.split('/').collect();
            if parts.len() != 2 || !parts.iter().all(|part| plain(part) && *part != "." && *part != "..") {
                return Err(format!("`{}` is not a folder of a plugin", entry.folder));
            }
            if self.plugins[..number].iter().any(|earlier| earlier.name == entry.name) {
                return Err(format!("`{}` stands there twice", entry.name));
            }
        }
        Ok(())
    }

    /// Replace the data folder's lockfile: a crash leaves the old one or the new one.
    pub fn write(&self, data_folder: &Path) -> Result<()> {
        let path = data_folder.join(LOCK_FILE);
        let text = Stored::new(self.plugins.clone())?.text()?;
        let folder = path.parent().unwrap_or(data_folder);
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            let mut file = tempfile::Builder::new().prefix(".unfinished-").tempfile_in(folder)?;
            file.write_all(HEADER.as_bytes())?;
            file.write_all(text.as_bytes())?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            fs::File::open(folder)?.sync_all()
        };
        write().map_err(|error| Error::io("write", &path, error))
    }

    /// The entry of a plugin.
    pub fn find(&self, name: &str) -> Option<&LockEntry> {
        self.plugins.iter().find(|entry| entry.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, folder: &str) -> LockEntry {
        LockEntry {
            name: name.into(),
            version: semver::Version::new(0, 1, 0),
            digest: "ab".into(),
            folder: folder.into(),
            grants: vec!["keys".into()],
            worlds: vec!["mainstay:api/api@0.1.0".into()],
            routes: vec!["GET /box".into()],
            config_digest: "cd".into(),
            installed: "2026-01-02T03:04:05Z".into(),
        }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Lockfile::read(folder.path()).unwrap(), Lockfile::default());
        let lockfile = Lockfile { plugins: vec![entry("box", "box/0.1.0-ab"), entry("can", "can/1")] };
        lockfile.write(folder.path()).unwrap();
        assert_eq!(Lockfile::read(folder.path()).unwrap(), lockfile);
        let text = fs::read_to_string(folder.path().join(LOCK_FILE)).unwrap();
        insta::assert_snapshot!(text);
    }

    #[test]
    fn damage_is_named_with_its_remedy() {
        fn check(text: &str, expect: &str) {
            let folder = tempfile::tempdir().unwrap();
            fs::create_dir(folder.path().join("plugins")).unwrap();
            fs::write(folder.path().join(LOCK_FILE), text).unwrap();
            let error = Lockfile::read(folder.path()).unwrap_err();
            assert!(error.message().contains(expect), "{error} should hold {expect}");
        }
        check("format = ", "plugins.lock:1:");
        check("format = 2", "has format 2, this host reads 1");
        check("format = 1\nx = 1", "unknown field `x`");
        for folder in ["../box", "box", "box/..", "/box/a", "box/a/b", "box/a b"] {
            let stored = Stored::new(vec![entry("box", folder)]).unwrap();
            check(&stored.text().unwrap(), "is not a folder of a plugin");
        }
        let twice = Stored::new(vec![entry("box", "box/1"), entry("box", "box/2")]).unwrap();
        check(&twice.text().unwrap(), "`box` stands there twice");
    }

    #[test]
    fn a_cut_file_never_reads_as_fewer_plugins() {
        let folder = tempfile::tempdir().unwrap();
        Lockfile { plugins: vec![entry("box", "box/1"), entry("can", "can/1")] }.write(folder.path()).unwrap();
        let path = folder.path().join(LOCK_FILE);
        let text = fs::read_to_string(&path).unwrap();
        // The last line's end says nothing.
        for length in 0..text.len() - 1 {
            fs::write(&path, &text[..length]).unwrap();
            let error = Lockfile::read(folder.path()).expect_err(&text[..length]);
            assert!(error.message().contains("install the plugins again"), "{error}");
        }
        fs::write(&path, text.replace("\"keys\"", "\"blobs\"")).unwrap();
        let error = Lockfile::read(folder.path()).unwrap_err();
        assert!(error.message().contains("it was cut or changed"), "{error}");
    }
}
