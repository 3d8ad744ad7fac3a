//! The data folder: its layout, its version, and the lock that keeps a second process out.
//!
//! Owns the names of everything below `DIR` that is not a room's own. Separate because the server, the plugin commands and
//! the doctor all meet here. Folders are made with mode 0700 and secrets with 0600, whatever the umask says. On failure: a
//! message that names the other process, or the version that would be needed; nothing is changed.
//!
//! ```text
//! DIR/lock        held while a process uses the folder; says which one
//! DIR/version     form of the folder, and which ordered store it was made with
//! DIR/store/      the commit log and the ordered store behind it
//! DIR/blobs/      blobs by content        DIR/plugins/  installed plugins and their lockfile
//! DIR/cache/      compiled plugins        DIR/secrets/  what only the host's own commands may read
//! ```

use crate::config::Engine;
use crate::exit::Failure;
use mainstay_base::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

const FORMAT: u32 = 1;
const OWNER_BYTES_MAX: u64 = 64 * 1024;

/// Below the data folder.
pub const FOLDERS: &[&str] = &["store", "blobs", "plugins", "cache", "secrets"];

/// Where the data folder is when nobody says.
pub fn default_path() -> PathBuf {
    let home = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = home("XDG_DATA_HOME").filter(|path| path.is_absolute());
    match base.or_else(|| home("HOME").map(|home| home.join(".local/share"))) {
        Some(base) => base.join("mainstay"),
        None => PathBuf::from("mainstay-data"),
    }
}

/// Who uses the folder. Written into `DIR/lock`, also the ready file's form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Process.
    pub pid: u32,
    /// What it does, for example `serve`.
    pub command: String,
    /// Where it answers HTTP, if it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<String>,
    /// Where it answers gRPC, if it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grpc: Option<String>,
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            0 => write!(f, "another process (`mainstay {}`", self.command)?,
            pid => write!(f, "process {pid} (`mainstay {}`", self.command)?,
        }
        if let Some(http) = &self.http {
            write!(f, " at {http}")?;
        }
        f.write_str(")")
    }
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Version {
    format: u32,
    engine: Engine,
}

/// A data folder whose lock this process holds until this is dropped.
#[derive(Debug)]
pub struct DataFolder {
    path: PathBuf,
    lock: File,
    engine: Engine,
}

/// The folder, or who has it.
pub enum Opened {
    /// Ours.
    Ours(DataFolder),
    /// Another process holds it.
    Held(Owner),
}

/// What somebody who only looks finds. Nothing is made or written for it.
pub enum Look {
    /// Nobody uses it, and nobody can begin to until this is dropped.
    Free(Looked),
    /// Another process holds it.
    Held(Owner),
    /// No server has used it yet.
    New,
}

/// A data folder that nobody changes until this is dropped.
pub struct Looked {
    engine: Engine,
    _lock: Option<File>,
}

impl Looked {
    /// The ordered store that it was made with.
    pub fn engine(&self) -> Engine {
        self.engine
    }
}

/// Look at a data folder without changing it.
pub fn look(path: &Path) -> Result<Look> {
    let lock_path = path.join("lock");
    let lock = match File::open(&lock_path) {
        Ok(mut lock) => match lock.try_lock_shared() {
            Ok(()) => Some(lock),
            Err(TryLockError::WouldBlock) => return Ok(Look::Held(read_owner(&mut lock))),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &lock_path, error)),
        },
        // Who uses it has made it.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => return Err(Error::io("open", &lock_path, error)),
    };
    Ok(match read_version(&path.join("version"))? {
        Some(version) => Look::Free(Looked { engine: version.engine, _lock: lock }),
        None => Look::New,
    })
}

impl DataFolder {
    /// Lock the folder, making it if it is not there. `engine` is what the operator asks for, if he does.
    pub fn open(path: &Path, command: &str, engine: Option<Engine>) -> std::result::Result<DataFolder, Failure> {
        match DataFolder::try_open(path, command, engine)? {
            Opened::Ours(folder) => Ok(folder),
            Opened::Held(owner) => Err(Failure::in_use(format!(
                "data folder `{}` is in use by {owner}; stop that process first, or give another folder with `--data`",
                path.display()
            ))),
        }
    }

    /// Lock the folder, or say who holds it.
    pub fn try_open(path: &Path, command: &str, engine: Option<Engine>) -> Result<Opened> {
        create_private(path)?;
        let lock_path = path.join("lock");
        let mut lock = open_private(&lock_path).map_err(|error| Error::io("open", &lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(Opened::Held(holder(&mut lock))),
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &lock_path, error)),
        }
        let mut folder = DataFolder { path: path.into(), lock, engine: Engine::default() };
        folder.describe(&Owner { pid: std::process::id(), command: command.into(), ..Owner::default() })?;
        folder.settle_version(engine)?;
        for name in FOLDERS {
            create_private(&path.join(name))?;
        }
        Ok(Opened::Ours(folder))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ordered store that it was made with.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Say in the lock who holds it: others read it there.
    pub fn describe(&mut self, owner: &Owner) -> Result<()> {
        let path = self.path.join("lock");
        let text = serde_json::to_string(owner).map_err(|error| Error::internal(error.to_string()))?;
        let mut write = || -> std::io::Result<()> {
            self.lock.set_len(0)?;
            self.lock.seek(SeekFrom::Start(0))?;
            self.lock.write_all(text.as_bytes())
        };
        write().map_err(|error| Error::io("write", &path, error))
    }

    fn settle_version(&mut self, asked: Option<Engine>) -> Result<()> {
        let path = self.path.join("version");
        match read_version(&path)? {
            Some(version) => {
                if let Some(asked) = asked.filter(|asked| *asked != version.engine) {
                    return Err(Error::conflict(format!(
                        "data folder `{}` was made with the engine `{}`, not `{}`; leave `--engine` out, or start with an \
                         empty folder",
                        self.path.display(),
                        version.engine.as_str(),
                        asked.as_str()
                    )));
                }
                self.engine = version.engine;
            }
            None => {
                self.engine = asked.unwrap_or_default();
                let version = Version { format: FORMAT, engine: self.engine };
                let text = toml::to_string(&version).map_err(|error| Error::internal(error.to_string()))?;
                write_private(&path, text.as_bytes())?;
            }
        }
        Ok(())
    }
}

fn read_version(path: &Path) -> Result<Option<Version>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io("read", path, error)),
    };
    let shown = path.display();
    // Only the number first: a newer form may have keys that this host does not know.
    let format = text.parse::<toml::Table>().ok().and_then(|table| table.get("format")?.as_integer());
    match format {
        Some(format) if format != i64::from(FORMAT) => Err(Error::invalid(format!(
            "`{shown}` has format {format}, this host reads {FORMAT}; use the version of Mainstay that wrote it"
        ))),
        _ => toml::from_str(&text).map(Some).map_err(|error| {
            let why = error.message().replace('\n', "; ");
            Error::invalid(format!("`{shown}` is damaged ({why}); restore it from a backup"))
        }),
    }
}

fn read_owner(lock: &mut File) -> Owner {
    let mut text = String::new();
    // What cannot be read is told as process 0: the lock itself is what counts.
    let _ = lock.take(OWNER_BYTES_MAX).read_to_string(&mut text);
    serde_json::from_str(&text).unwrap_or_default()
}

/// Who has the lock that this process did not get. Those who only look share it and write nothing into it.
fn holder(lock: &mut File) -> Owner {
    match lock.try_lock_shared() {
        Ok(()) => Owner { command: "doctor".into(), ..Owner::default() },
        Err(_) => read_owner(lock),
    }
}

fn open_private(path: &Path) -> std::io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
}

/// Make a folder that only this user can enter, and those above it.
pub fn create_private(path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if path.exists() {
        let path = path.display();
        return Err(Error::invalid(format!("`{path}` is not a folder; give another one with `--data`")));
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| Error::io("create", path, error))
}

/// Replace a file that only this user can read: a crash leaves the old one or the new one.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<()> {
    // The parent of a bare file name is an empty path, which cannot be opened.
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        // The whole name, so that no file of a user's is met: `x.json` and `x.toml` differ too.
        let mut name = std::ffi::OsString::from(".unfinished-");
        name.push(path.file_name().unwrap_or_default());
        let temporary = path.with_file_name(name);
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(parent)?.sync_all()
    };
    write().map_err(|error| Error::io("write", path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_process_learns_who_was_first() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        let mut first = DataFolder::open(&path, "serve", None).unwrap();
        let owner = Owner { pid: 42, command: "serve".into(), http: Some("http://127.0.0.1:7600".into()), grpc: None };
        first.describe(&owner).unwrap();
        assert!(matches!(look(&path).unwrap(), Look::Held(found) if found == owner));
        let failure = DataFolder::open(&path, "serve", None).unwrap_err();
        assert_eq!(failure.exit, crate::exit::Exit::InUse);
        let shown = path.display();
        assert_eq!(
            failure.error.message(),
            format!(
                "data folder `{shown}` is in use by process 42 (`mainstay serve` at http://127.0.0.1:7600); stop that \
                 process first, or give another folder with `--data`"
            )
        );
        drop(first);
        let (one, two) = (look(&path).unwrap(), look(&path).unwrap());
        assert!(matches!((&one, &two), (Look::Free(_), Look::Free(_))));
        let failure = DataFolder::open(&path, "serve", None).unwrap_err();
        let words = "is in use by another process (`mainstay doctor`); stop";
        assert!(failure.error.message().contains(words), "{failure:?}");
        drop((one, two));
        drop(DataFolder::open(&path, "serve", None).unwrap());
    }

    #[test]
    fn looking_makes_nothing() {
        let root = tempfile::tempdir().unwrap();
        assert!(matches!(look(root.path()).unwrap(), Look::New));
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_engine_is_chosen_once() {
        let root = tempfile::tempdir().unwrap();
        drop(DataFolder::open(root.path(), "serve", Some(Engine::Redb)).unwrap());
        assert_eq!(DataFolder::open(root.path(), "serve", None).unwrap().engine(), Engine::Redb);
        let failure = DataFolder::open(root.path(), "serve", Some(Engine::Sled)).unwrap_err();
        assert!(failure.error.message().contains("was made with the engine `redb`, not `sled`"), "{failure:?}");
    }

    #[test]
    fn other_forms_are_refused_and_left_alone() {
        fn check(version: &str, expect: &str) {
            let root = tempfile::tempdir().unwrap();
            fs::write(root.path().join("version"), version).unwrap();
            let failure = DataFolder::open(root.path(), "serve", None).unwrap_err();
            assert!(failure.error.message().contains(expect), "{failure:?} should hold {expect}");
            assert_eq!(fs::read_to_string(root.path().join("version")).unwrap(), version);
        }
        check("format = 2\nengine = \"other\"\n", "has format 2, this host reads 1");
        check("format = 1\nengine = \"other\"\n", "is damaged");
        check("", "is damaged");
        let root = tempfile::tempdir().unwrap();
        let file = root.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(DataFolder::open(&file, "serve", None).unwrap_err().error.message().contains("is not a folder"));
    }

    #[test]
    fn nobody_else_can_look_inside() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("data");
        drop(DataFolder::open(&path, "serve", None).unwrap());
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join("secrets")), 0o700);
        assert_eq!(mode(&path.join("lock")), 0o600);
        let secret = path.join("secrets/x");
        write_private(&secret, b"a").unwrap();
        write_private(&secret, b"b").unwrap();
        assert_eq!(mode(&secret), 0o600);
        let (neighbour, file) = (path.join("x.new"), path.join("x.json"));
        fs::write(&neighbour, "a user's").unwrap();
        write_private(&file, b"c").unwrap();
        assert_eq!(fs::read_to_string(&neighbour).unwrap(), "a user's");
        assert_eq!(fs::read(&secret).unwrap(), b"b");
    }
}
