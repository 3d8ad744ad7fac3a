//! Compiled code between restarts, in files that are trusted only with a tag.
//!
//! Each entry is `tag (32 bytes) ++ compiled code`; the tag is HMAC-SHA-256 over the settings, the component's digest
//! and the code, under a random key that lives beside the entries with mode 0600. Deserializing code is unsafe, so an entry
//! whose tag is wrong is treated as absent: it is compiled again and replaced.
//!
//! Bounded by: [`ENTRY_BYTES_MAX`] an entry, [`ENTRIES_MAX`] entries; the oldest go. On failure: everything here can be made
//! again, so a cache that cannot be read or written costs a compilation and a warning, never an answer. A key that is
//! damaged is replaced, and the entries under it go.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use mainstay_base::{Error, OsRandom, Random, Result};
use sha2::{Digest, Sha256};

use crate::engine::Engine;

/// The largest compiled component that is kept.
pub const ENTRY_BYTES_MAX: u64 = 512 << 20;
/// Entries that are kept: plugins, their versions for rollback, and those of the host's version before.
pub const ENTRIES_MAX: usize = 256;
const TAG_BYTES: usize = 32;
const KEY_BYTES: usize = 32;
const KEY_FILE: &str = "key";

/// See the module.
pub(crate) struct Cache {
    folder: PathBuf,
    key: [u8; KEY_BYTES],
}

impl Cache {
    /// The cache in this folder, which is made with a new key when it is not there.
    pub(crate) fn open(folder: &Path) -> Result<Cache> {
        fs::create_dir_all(folder).map_err(|error| Error::io("create the folder", folder, error))?;
        let private = fs::Permissions::from_mode(0o700);
        fs::set_permissions(folder, private).map_err(|error| Error::io("protect the folder", folder, error))?;
        let key = match read_key(folder)? {
            Key::Good(key) => key,
            Key::None => make_key(folder)?,
            Key::Damaged(found_bytes) => {
                tracing::warn!(
                    path = %folder.join(KEY_FILE).display(), found_bytes, expected_bytes = KEY_BYTES,
                    "the key of compiled code is damaged; a new one is made, and plugins compile again"
                );
                remove_entries(folder).map_err(|error| Error::io("clear the folder", folder, error))?;
                make_key(folder)?
            }
        };
        Ok(Cache { folder: folder.to_owned(), key })
    }

    fn path(&self, engine: &Engine, wasm: &[u8]) -> PathBuf {
        let settings = hex::encode(&engine.settings_digest()[..8]);
        self.folder.join(format!("{}-{settings}.cwasm", hex::encode(Sha256::digest(wasm))))
    }

    fn tag(&self, engine: &Engine, wasm: &[u8], compiled: &[u8]) -> Hmac<Sha256> {
        let mut tag = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        tag.update(b"mainstay compiled component 1\0");
        tag.update(&engine.settings_digest());
        tag.update(&Sha256::digest(wasm));
        tag.update(compiled);
        tag
    }

    /// The compiled code of this component, if there is an authentic entry.
    pub(crate) fn get(&self, engine: &Engine, wasm: &[u8]) -> Option<Vec<u8>> {
        let path = self.path(engine, wasm);
        let mut entry = Vec::new();
        fs::File::open(&path).ok()?.take(ENTRY_BYTES_MAX + TAG_BYTES as u64).read_to_end(&mut entry).ok()?;
        let (tag, compiled) = entry.split_at_checked(TAG_BYTES)?;
        if self.tag(engine, wasm, compiled).verify_slice(tag).is_err() {
            tracing::warn!(path = %path.display(), "compiled code was changed or is not from this host; compiling again");
            return None;
        }
        entry.drain(..TAG_BYTES);
        Some(entry)
    }

    /// Keep compiled code; the entry appears whole or not at all.
    pub(crate) fn put(&self, engine: &Engine, wasm: &[u8], compiled: &[u8]) {
        let path = self.path(engine, wasm);
        if let Err(error) = self.write(&path, &self.tag(engine, wasm, compiled).finalize().into_bytes(), compiled) {
            tracing::warn!(path = %path.display(), %error, "cannot keep compiled code; it will be compiled again");
        }
    }

    fn write(&self, path: &Path, tag: &[u8], compiled: &[u8]) -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.folder)?;
        file.write_all(tag)?;
        file.write_all(compiled)?;
        file.as_file().sync_data()?;
        file.persist(path).map_err(|error| error.error)?;
        self.remove_oldest()
    }

    /// Entries beyond the bound, by when they were written.
    fn remove_oldest(&self) -> std::io::Result<()> {
        let entries = entries(&self.folder)?;
        let surplus = entries.len().saturating_sub(ENTRIES_MAX);
        entries[..surplus].iter().try_for_each(|(_, path)| fs::remove_file(path))
    }
}

enum Key {
    Good([u8; KEY_BYTES]),
    None,
    /// Not as long as a key is, but this.
    Damaged(usize),
}

fn read_key(folder: &Path) -> Result<Key> {
    let path = folder.join(KEY_FILE);
    match fs::read(&path) {
        Ok(bytes) => Ok(<[u8; KEY_BYTES]>::try_from(&bytes[..]).map_or(Key::Damaged(bytes.len()), Key::Good)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Key::None),
        Err(error) => Err(Error::io("read the key", &path, error)),
    }
}

/// A new key, whole or not at all. Temporary files have mode 0600.
fn make_key(folder: &Path) -> Result<[u8; KEY_BYTES]> {
    let path = folder.join(KEY_FILE);
    let mut key = [0; KEY_BYTES];
    OsRandom.fill(&mut key);
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        file.write_all(&key)?;
        file.as_file().sync_all()?;
        file.persist(&path).map(drop).map_err(|error| error.error)
    };
    write().map_err(|error| Error::io("write the key", &path, error))?;
    Ok(key)
}

/// What is wrong with the cache in this folder and costs a compilation, if anything. Changes nothing.
pub(crate) fn trouble(folder: &Path) -> Result<Option<String>> {
    Ok(match read_key(folder)? {
        Key::Damaged(found_bytes) => Some(format!(
            "the key `{}` has {found_bytes} bytes instead of {KEY_BYTES}",
            folder.join(KEY_FILE).display()
        )),
        Key::Good(_) | Key::None => None,
    })
}

/// The entries, by when they were written.
fn entries(folder: &Path) -> std::io::Result<Vec<(std::time::SystemTime, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "cwasm") {
            entries.push((fs::metadata(&path)?.modified()?, path));
        }
    }
    entries.sort();
    Ok(entries)
}

fn remove_entries(folder: &Path) -> std::io::Result<()> {
    entries(folder)?.iter().try_for_each(|(_, path)| fs::remove_file(path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineOptions;

    #[test]
    fn entries_are_bounded_at_n_and_n_plus_one() {
        let folder = tempfile::tempdir().unwrap();
        let engine = Engine::new(&EngineOptions { instances: 1, threads: 1, ..EngineOptions::default() }).unwrap();
        let cache = Cache::open(folder.path()).unwrap();
        let names = || fs::read_dir(folder.path()).unwrap().count() - 1;
        for number in 0..ENTRIES_MAX {
            cache.put(&engine, &number.to_le_bytes(), b"compiled");
        }
        assert_eq!(names(), ENTRIES_MAX);
        cache.put(&engine, b"one more", b"compiled");
        assert_eq!(names(), ENTRIES_MAX);
        assert_eq!(cache.get(&engine, b"one more").as_deref(), Some(&b"compiled"[..]));
    }

    #[test]
    fn a_damaged_key_is_replaced_and_what_it_vouched_for_goes() {
        for damaged in [&b""[..], &[7; KEY_BYTES - 1], &[7; KEY_BYTES + 1]] {
            let folder = tempfile::tempdir().unwrap();
            let engine = Engine::new(&EngineOptions { instances: 1, threads: 1, ..EngineOptions::default() }).unwrap();
            Cache::open(folder.path()).unwrap().put(&engine, b"wasm", b"compiled");
            assert_eq!(trouble(folder.path()).unwrap(), None);
            let key = folder.path().join(KEY_FILE);
            fs::write(&key, damaged).unwrap();
            let told = trouble(folder.path()).unwrap().unwrap();
            assert!(told.contains(&format!("has {} bytes instead of 32", damaged.len())), "{told}");
            let cache = Cache::open(folder.path()).unwrap();
            assert_eq!(cache.get(&engine, b"wasm"), None);
            assert_eq!(entries(folder.path()).unwrap().len(), 0);
            cache.put(&engine, b"wasm", b"compiled");
            assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
            let again = Cache::open(folder.path()).unwrap().get(&engine, b"wasm");
            assert_eq!(again.as_deref(), Some(&b"compiled"[..]));
        }
    }
}
