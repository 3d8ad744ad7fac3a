//! What only the host may say.
//!
//! Owns [`Secrets`]: named values of an owner that are put, listed by name, and removed, and that nobody reads but this room
//! when it adds them to a call. They lie in the store encrypted (XChaCha20-Poly1305, a fresh random nonce each, bound to
//! their owner and name), under a key that is a file of its own in the data folder ([`SecretKey`]), so a copy of the store
//! alone gives nothing away. Separate from calls because what must not leak should be little code.
//!
//! In memory a secret lives as long as the call that needs it, and is overwritten afterwards. Nothing here is printed: neither
//! values nor the key have a `Debug` that shows them.
//!
//! Bounded by [`crate::limits`]. On failure: a secret that cannot be decrypted (another key, damage) is `unavailable` and says
//! to put it again.

use std::fs::{self, File};
use std::io::{ErrorKind as Io, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use mainstay_base::{Error, Random, Result};
use mainstay_store::{KeyRange, ScanOptions, Space, Store, Transaction};
use zeroize::Zeroizing;

use crate::limits::{NAME_BYTES_MAX, SECRET_BYTES_MAX, SECRETS_MAX};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// What the secrets of a data folder are encrypted with.
#[derive(Clone)]
pub struct SecretKey {
    key: Zeroizing<[u8; KEY_BYTES]>,
}

impl SecretKey {
    /// This key.
    pub fn new(key: [u8; KEY_BYTES]) -> SecretKey {
        SecretKey { key: Zeroizing::new(key) }
    }

    /// The key in this file, which is made if it is not there, for its owner's eyes only (mode 0600). One that others may
    /// read is `denied`.
    pub fn load_or_create(path: &Path, random: &dyn Random) -> Result<SecretKey> {
        match File::open(path) {
            Ok(file) => load(path, file),
            Err(error) if error.kind() == Io::NotFound => {
                let mut key = Zeroizing::new([0; KEY_BYTES]);
                random.fill(&mut key[..]);
                create(path, &key).map_err(|error| Error::io("write the key of secrets", path, error))?;
                Ok(SecretKey { key })
            }
            Err(error) => Err(Error::io("open the key of secrets", path, error)),
        }
    }
}

impl std::fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey")
    }
}

fn load(path: &Path, mut file: File) -> Result<SecretKey> {
    let reading = |error| Error::io("read the key of secrets", path, error);
    let mode = file.metadata().map_err(reading)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let path = path.display();
        return Err(Error::denied(format!(
            "the key of secrets `{path}` may be read by others (mode {mode:o}); see who has, then `chmod 600` it"
        )));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(KEY_BYTES + 1));
    (&mut file).take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(reading)?;
    let Ok(key) = <[u8; KEY_BYTES]>::try_from(&bytes[..]) else {
        return Err(Error::invalid(format!(
            "the key of secrets `{}` has not {KEY_BYTES} bytes; restore it, or remove it and put every secret again",
            path.display()
        )));
    };
    Ok(SecretKey::new(key))
}

/// Whole or not at all: a half-written key would make every secret unreadable.
fn create(path: &Path, key: &[u8; KEY_BYTES]) -> std::io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(key)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Secrets by owner and name. Clones are the same.
#[derive(Clone)]
pub struct Secrets {
    store: Store,
    space: Space,
    key: SecretKey,
    random: Arc<dyn Random>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

impl Secrets {
    /// Secrets in this store.
    pub fn new(store: Store, key: SecretKey, random: Arc<dyn Random>) -> Secrets {
        Secrets { store, space: Space::host("secrets"), key, random }
    }

    /// Keep a secret, replacing what was under its name.
    pub async fn put(&self, owner: &str, name: &str, value: &[u8]) -> Result<()> {
        let mut transaction = self.store.begin(&self.store.view());
        self.put_in(&mut transaction, owner, name, value)?;
        self.store.commit(transaction).await.map(|_| ())
    }

    /// The same when this transaction commits, and not otherwise.
    pub fn put_in(&self, transaction: &mut Transaction, owner: &str, name: &str, value: &[u8]) -> Result<()> {
        let key = key_of(owner, name)?;
        let length = value.len();
        if !(1..=SECRET_BYTES_MAX).contains(&length) {
            return Err(Error::invalid(format!("a secret of {length} bytes; it has 1 to {SECRET_BYTES_MAX}")));
        }
        if self.store.view().get(&self.space, &key)?.is_none() && self.names(owner)?.len() >= SECRETS_MAX {
            return Err(Error::exhausted(format!("`{owner}` has {SECRETS_MAX} secrets already; remove one first")));
        }
        let mut nonce = XNonce::default();
        self.random.fill(&mut nonce);
        let sealed = self.cipher().encrypt(&nonce, Payload { msg: value, aad: &key });
        let sealed =
            sealed.map_err(|_| Error::internal("a secret could not be encrypted; this is a fault of the host"))?;
        transaction.put(&self.space, &key, [&nonce[..], &sealed].concat())
    }

    /// The names of an owner's secrets, in order.
    pub fn names(&self, owner: &str) -> Result<Vec<String>> {
        let prefix = prefix_of(owner)?;
        let options = ScanOptions { keys_only: true, limit: SECRETS_MAX as u32, ..ScanOptions::default() };
        let page = self.store.view().scan(&self.space, &[KeyRange::prefix(&prefix)], &options)?;
        Ok(page.iter().map(|(key, _)| String::from_utf8_lossy(&key[prefix.len()..]).into_owned()).collect())
    }

    /// Forget a secret. One that is not there is no error.
    pub async fn remove(&self, owner: &str, name: &str) -> Result<()> {
        let mut transaction = self.store.begin(&self.store.view());
        self.remove_in(&mut transaction, owner, name)?;
        self.store.commit(transaction).await.map(|_| ())
    }

    /// The same when this transaction commits, and not otherwise.
    pub fn remove_in(&self, transaction: &mut Transaction, owner: &str, name: &str) -> Result<()> {
        transaction.delete(&self.space, &key_of(owner, name)?)
    }

    /// The value, for a call of its owner.
    pub(crate) fn open(&self, owner: &str, name: &str) -> Result<Zeroizing<Vec<u8>>> {
        let key = key_of(owner, name)?;
        let sealed = self.store.view().get(&self.space, &key)?;
        let sealed =
            sealed.ok_or_else(|| Error::not_found(format!("`{owner}` has no secret `{name}`; put it first")))?;
        let opened = sealed.split_first_chunk::<NONCE_BYTES>().and_then(|(nonce, sealed)| {
            self.cipher().decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &key }).ok()
        });
        opened.map(Zeroizing::new).ok_or_else(|| {
            Error::unavailable(format!(
                "secret `{name}` of `{owner}` was encrypted with another key, or is damaged; put it again"
            ))
        })
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&(*self.key.key).into())
    }
}

fn prefix_of(owner: &str) -> Result<Vec<u8>> {
    check_name("owner of secrets", owner)?;
    Ok([&[owner.len() as u8], owner.as_bytes()].concat())
}

fn key_of(owner: &str, name: &str) -> Result<Vec<u8>> {
    check_name("secret", name)?;
    Ok([&prefix_of(owner)?[..], name.as_bytes()].concat())
}

/// Names are parts of keys and are shown to people.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let is_good = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_good) {
        return Ok(());
    }
    let shown: String = name.chars().take(NAME_BYTES_MAX).collect();
    Err(Error::invalid(format!(
        "`{shown}` is no name of a {what}; it has 1 to {NAME_BYTES_MAX} of the characters a-z, A-Z, 0-9, `-`, `_`, `.`, `/`"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::executor::block_on;
    use mainstay_base::{ErrorKind, OsRandom, SeededRandom};

    fn secrets(store: &Store, key: u8) -> Secrets {
        Secrets::new(store.clone(), SecretKey::new([key; 32]), Arc::new(SeededRandom::new(u64::from(key))))
    }

    #[test]
    fn a_secret_is_put_listed_used_and_removed() {
        let secrets = secrets(&Store::in_memory(), 1);
        block_on(secrets.put("a", "token", b"one")).unwrap();
        block_on(secrets.put("a", "other", b"x")).unwrap();
        block_on(secrets.put("a", "token", b"two")).unwrap();
        block_on(secrets.put("ab", "token", b"not a's")).unwrap();
        assert_eq!(secrets.names("a").unwrap(), ["other", "token"]);
        assert_eq!(&secrets.open("a", "token").unwrap()[..], b"two");
        block_on(secrets.remove("a", "token")).unwrap();
        assert_eq!(secrets.open("a", "token").unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(&secrets.open("ab", "token").unwrap()[..], b"not a's");
    }

    #[test]
    fn what_lies_in_the_store_gives_nothing_away_and_fits_nowhere_else() {
        let store = Store::in_memory();
        let mine = secrets(&store, 1);
        block_on(mine.put("a", "token", b"hunter2-hunter2")).unwrap();
        let sealed = store.view().get(&mine.space, &key_of("a", "token").unwrap()).unwrap().unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        let error = secrets(&store, 2).open("a", "token").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        let mut moved = store.begin(&store.view());
        moved.put(&mine.space, &key_of("b", "token").unwrap(), sealed.clone()).unwrap();
        let mut flipped = sealed.to_vec();
        *flipped.last_mut().unwrap() ^= 1;
        moved.put(&mine.space, &key_of("a", "flipped").unwrap(), flipped).unwrap();
        moved.put(&mine.space, &key_of("a", "cut").unwrap(), sealed.slice(..20)).unwrap();
        store.commit_blocking(moved).unwrap();
        for (owner, name) in [("b", "token"), ("a", "flipped"), ("a", "cut")] {
            assert_eq!(mine.open(owner, name).unwrap_err().kind(), ErrorKind::Unavailable, "{owner} {name}");
        }
        assert_eq!(format!("{mine:?} {:?}", mine.key), "Secrets SecretKey");
    }

    #[test]
    fn secrets_are_bounded() {
        let secrets = secrets(&Store::in_memory(), 1);
        block_on(secrets.put("a", "n", &[0; SECRET_BYTES_MAX])).unwrap();
        block_on(secrets.put("a", "n", &[0; SECRET_BYTES_MAX + 1])).unwrap_err();
        block_on(secrets.put("a", "n", b"")).unwrap_err();
        block_on(secrets.put("a", &"n".repeat(129), b"x")).unwrap_err();
        for number in 1..SECRETS_MAX {
            block_on(secrets.put("a", &number.to_string(), b"x")).unwrap();
        }
        assert_eq!(block_on(secrets.put("a", "more", b"x")).unwrap_err().kind(), ErrorKind::Exhausted);
        block_on(secrets.put("a", "n", b"replaced")).unwrap();
    }

    #[test]
    fn the_key_is_a_file_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secrets.key");
        let made = SecretKey::load_or_create(&path, &OsRandom).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(made.key, SecretKey::load_or_create(&path, &OsRandom).unwrap().key);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(SecretKey::load_or_create(&path, &OsRandom).unwrap_err().kind(), ErrorKind::Denied);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        for damaged in [&[0; 31][..], &[0; 33]] {
            fs::write(&path, damaged).unwrap();
            assert_eq!(SecretKey::load_or_create(&path, &OsRandom).unwrap_err().kind(), ErrorKind::Invalid);
        }
    }
}
