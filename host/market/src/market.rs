//! The data folder's installed plugins: install, remove, list.
//!
//! Owns `plugins/` and the lockfile. Separate because it is where a package becomes part of this host: everything is
//! verified first, files appear under their final name only when they are whole and synced, and the lockfile is replaced
//! last. Bounded by the limits of packages and lockfile. On failure, or a crash at any step: the old state; what an
//! interrupted step left behind is swept when the folder is next opened or installed into.
//!
//! The caller holds the data folder's lock. The component is compiled by the caller's function, so that this room needs no
//! compiler.

use crate::lockfile::{LOCK_FILE, LockEntry, Lockfile};
use crate::manifest::Manifest;
use crate::package::Package;
use crate::{settings, worlds};
use mainstay_base::{Clock, Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const PLUGINS_FOLDER: &str = "plugins";
const SETTINGS_FILE: &str = "config.json";
const UNFINISHED: &str = ".unfinished-";

/// What to install.
pub struct Order<'a> {
    /// The package.
    pub package: &'a Package,
    /// Capabilities granted; none = what the manifest asks for.
    pub grants: Option<Vec<String>>,
    /// The operator's settings; none = those of the version installed before, or the defaults.
    pub config: Option<Value>,
}

/// What installing would do. Nothing has been changed yet.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The plugin's manifest.
    pub manifest: Manifest,
    /// Digest of the package.
    pub digest: String,
    /// Capabilities that it will have.
    pub grants: Vec<String>,
    /// Its settings, defaults filled in.
    pub config: Value,
    /// The version that it replaces.
    pub replaces: Option<semver::Version>,
    /// What an operator should know but need not act on.
    pub notes: Vec<String>,
}

/// An installed plugin.
#[derive(Clone, Debug)]
pub struct Installed {
    /// Its entry in the lockfile.
    pub entry: LockEntry,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its settings.
    pub config: Value,
    /// Its component.
    pub component: Arc<Vec<u8>>,
    /// Its schema of settings.
    pub config_schema: Option<Value>,
}

/// The installed plugins of one data folder.
pub struct Market {
    data_folder: PathBuf,
    clock: Arc<dyn Clock>,
    changing: Mutex<()>,
    #[cfg(test)]
    steps_left: std::sync::atomic::AtomicUsize,
}

impl Market {
    /// Open a data folder whose lock the caller holds, and sweep what an interrupted step left.
    pub fn open(data_folder: &Path, clock: Arc<dyn Clock>) -> Result<Market> {
        let plugins = data_folder.join(PLUGINS_FOLDER);
        fs::create_dir_all(&plugins).map_err(|error| Error::io("create", &plugins, error))?;
        let market = Market {
            data_folder: data_folder.into(),
            clock,
            changing: Mutex::new(()),
            #[cfg(test)]
            steps_left: std::sync::atomic::AtomicUsize::new(usize::MAX),
        };
        market.sweep(&market.lockfile()?)?;
        Ok(market)
    }

    /// What the lockfile says.
    pub fn lockfile(&self) -> Result<Lockfile> {
        Lockfile::read(&self.data_folder)
    }

    /// The installed plugins, in order, each verified against its digest.
    pub fn list(&self) -> Result<Vec<Installed>> {
        list(&self.data_folder)
    }

    /// One installed plugin, verified.
    pub fn info(&self, name: &str) -> Result<Installed> {
        let lockfile = self.lockfile()?;
        match lockfile.find(name) {
            Some(entry) => load(&self.data_folder, entry),
            None => Err(not_installed(name, &lockfile)),
        }
    }

    /// The package of an installed plugin, verified: for installing it again with other settings.
    pub fn package(&self, name: &str) -> Result<(LockEntry, Package)> {
        let entry = self.info(name)?.entry;
        let package = Package::read(&self.data_folder.join(PLUGINS_FOLDER).join(&entry.folder))?;
        Ok((entry, package))
    }

    /// Verify an order without changing anything.
    pub fn plan(&self, order: &Order<'_>) -> Result<Plan> {
        let manifest = &order.package.manifest;
        let lockfile = self.lockfile()?;
        let before = lockfile.find(&manifest.name);
        let notes = worlds::check_component(manifest, &order.package.component)?;
        let grants = grants(manifest, order.grants.as_deref())?;
        self.check_routes(manifest, &lockfile)?;
        let given = match (&order.config, before) {
            (Some(config), _) => config.clone(),
            (None, Some(before)) => {
                load(&self.data_folder, before).map(|installed| installed.config).unwrap_or_else(|_| empty())
            }
            (None, None) => empty(),
        };
        let config = settings::resolve(order.package.config_schema.as_ref(), &given)
            .map_err(|problems| settings::describe(&problems).context(format!("settings of `{}`", manifest.name)))?;
        Ok(Plan {
            manifest: manifest.clone(),
            digest: order.package.digest.clone(),
            grants,
            config,
            replaces: before.map(|before| before.version.clone()),
            notes,
        })
    }

    /// Install, or replace the installed version. `compile` must make the component runnable, or say why it is not.
    pub fn install(&self, order: &Order<'_>, compile: &dyn Fn(&Package) -> Result<()>) -> Result<Installed> {
        let _changing = self.lock();
        let plan = self.plan(order)?;
        compile(order.package)?;
        let mut lockfile = self.lockfile()?;
        self.sweep(&lockfile)?;
        let folder = self.place(order.package, &plan)?;
        let entry = LockEntry {
            name: plan.manifest.name.clone(),
            version: plan.manifest.version.clone(),
            digest: plan.digest.clone(),
            folder,
            grants: plan.grants.clone(),
            worlds: plan.manifest.worlds.clone(),
            routes: plan.manifest.routes.iter().map(ToString::to_string).collect(),
            config_digest: sha256(plan.config.to_string().as_bytes()),
            installed: utc(self.clock.now_ms()),
        };
        match lockfile.plugins.iter_mut().find(|before| before.name == entry.name) {
            Some(before) => *before = entry.clone(),
            None => lockfile.plugins.push(entry.clone()),
        }
        self.step()?;
        lockfile.write(&self.data_folder)?;
        self.step()?;
        self.sweep(&lockfile)?;
        load(&self.data_folder, &entry)
    }

    /// Remove an installed plugin. What it stored stays.
    pub fn remove(&self, name: &str) -> Result<LockEntry> {
        let _changing = self.lock();
        let mut lockfile = self.lockfile()?;
        let Some(place) = lockfile.plugins.iter().position(|entry| entry.name == name) else {
            return Err(not_installed(name, &lockfile));
        };
        let entry = lockfile.plugins.remove(place);
        self.step()?;
        lockfile.write(&self.data_folder)?;
        self.step()?;
        self.sweep(&lockfile)?;
        Ok(entry)
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        // Nothing is kept in memory that a panic could have left half-changed.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Refuse a manifest whose claims meet those of another installed plugin.
    fn check_routes(&self, manifest: &Manifest, lockfile: &Lockfile) -> Result<()> {
        for other in lockfile.plugins.iter().filter(|other| other.name != manifest.name) {
            let other = load(&self.data_folder, other)?.manifest;
            for route in &manifest.routes {
                if let Some(met) = other.routes.iter().find(|met| met.overlaps(route)) {
                    return Err(Error::conflict(format!(
                        "`{}` {} claims `{route}`, which meets `{met}` of the installed `{}` {}; install one of them only: \
                         `mainstay plugin remove {}` makes room",
                        manifest.name, manifest.version, other.name, other.version, other.name
                    )));
                }
            }
        }
        Ok(())
    }

    /// Write the files under a temporary name, sync them, and rename the folder into place. Answers its place below
    /// `plugins/`.
    fn place(&self, package: &Package, plan: &Plan) -> Result<String> {
        let config = plan.config.to_string();
        let mark = sha256(format!("{} {}", package.digest, sha256(config.as_bytes())).as_bytes());
        let plugins = self.data_folder.join(PLUGINS_FOLDER);
        let mut place = format!("{}/{}-{}", plan.manifest.name, plan.manifest.version, &mark[..16]);
        // Only folders that the lockfile names are left by the sweep: this package with these settings, whole or damaged.
        while plugins.join(&place).exists() {
            let is_whole = Package::read(&plugins.join(&place)).is_ok_and(|there| there.digest == package.digest)
                && fs::read(plugins.join(&place).join(SETTINGS_FILE)).is_ok_and(|there| there == config.as_bytes());
            if is_whole {
                return Ok(place);
            }
            place.push_str("-again");
        }
        let target = plugins.join(&place);
        let unfinished = plugins.join(format!("{UNFINISHED}{}", &mark[..16]));
        let place_files = || -> Result<()> {
            for (name, bytes) in package.files() {
                self.step()?;
                write_synced(&unfinished, name, bytes)?;
            }
            write_synced(&unfinished, SETTINGS_FILE, config.as_bytes())?;
            sync_tree(&unfinished).map_err(|error| Error::io("sync", &unfinished, error))?;
            self.step()?;
            let parent = plugins.join(&plan.manifest.name);
            fs::create_dir_all(&parent).map_err(|error| Error::io("create", &parent, error))?;
            fs::rename(&unfinished, &target).map_err(|error| Error::io("place", &target, error))?;
            for folder in [&parent, &plugins] {
                sync_folder(folder).map_err(|error| Error::io("sync", folder, error))?;
            }
            Ok(())
        };
        place_files().map(|()| place)
    }

    /// Remove every folder that the lockfile does not name.
    fn sweep(&self, lockfile: &Lockfile) -> Result<()> {
        let plugins = self.data_folder.join(PLUGINS_FOLDER);
        let lock_file = Path::new(LOCK_FILE).file_name().unwrap_or_default();
        for name in names(&plugins)?.into_iter().filter(|name| lock_file != name.as_str()) {
            let folder = plugins.join(&name);
            let kept: Vec<&str> =
                lockfile.plugins.iter().filter_map(|e| e.folder.strip_prefix(&format!("{name}/"))).collect();
            if kept.is_empty() {
                remove_tree(&folder)?;
                continue;
            }
            for version in names(&folder)?.iter().filter(|version| !kept.contains(&version.as_str())) {
                remove_tree(&folder.join(version))?;
            }
        }
        Ok(())
    }

    /// A place at which a crash may happen; tests make it happen.
    fn step(&self) -> Result<()> {
        #[cfg(test)]
        {
            use std::sync::atomic::Ordering::SeqCst;
            if self.steps_left.fetch_sub(1, SeqCst) == 0 {
                return Err(Error::internal("crash"));
            }
        }
        Ok(())
    }
}

/// The installed plugins of a data folder, without opening it for changes: for looking while a server holds the lock.
pub fn list(data_folder: &Path) -> Result<Vec<Installed>> {
    Lockfile::read(data_folder)?.plugins.iter().map(|entry| load(data_folder, entry)).collect()
}

/// One installed plugin, verified against its entry.
pub fn load(data_folder: &Path, entry: &LockEntry) -> Result<Installed> {
    let folder = data_folder.join(PLUGINS_FOLDER).join(&entry.folder);
    let remedy = format!("install `{}` {} again", entry.name, entry.version);
    let package = Package::read(&folder).map_err(|error| {
        Error::new(error.kind(), format!("installed plugin `{}` is damaged: {error}; {remedy}", entry.name))
    })?;
    let path = folder.join(SETTINGS_FILE);
    let config = fs::read_to_string(&path).map_err(|error| Error::io("read", &path, error))?;
    let damaged = |what: &str, have: &str, want: &str| {
        Error::invalid(format!(
            "{what} of the installed plugin `{}` has digest {have}, the lockfile says {want}; {remedy}",
            entry.name
        ))
    };
    if package.digest != entry.digest {
        return Err(damaged("the package", &package.digest, &entry.digest));
    }
    let config_digest = sha256(config.as_bytes());
    if config_digest != entry.config_digest {
        return Err(damaged("the settings", &config_digest, &entry.config_digest));
    }
    let config = serde_json::from_str(&config)
        .map_err(|error| Error::invalid(format!("`{}`: {error}; {remedy}", path.display())))?;
    Ok(Installed {
        entry: entry.clone(),
        config,
        component: package.component.clone(),
        config_schema: package.config_schema,
        manifest: package.manifest,
    })
}

fn empty() -> Value {
    Value::Object(Default::default())
}

fn grants(manifest: &Manifest, asked: Option<&[String]>) -> Result<Vec<String>> {
    let mut grants = match asked {
        None => manifest.capabilities.clone(),
        Some(grants) => grants.to_vec(),
    };
    if let Some(more) = grants.iter().find(|grant| !manifest.capabilities.contains(grant)) {
        return Err(Error::invalid(format!(
            "`{}` does not ask for `{more}`, so it cannot be granted; it asks for {}",
            manifest.name,
            crate::located::list(&manifest.capabilities)
        )));
    }
    grants.sort();
    grants.dedup();
    Ok(grants)
}

fn not_installed(name: &str, lockfile: &Lockfile) -> Error {
    let names: Vec<&str> = lockfile.plugins.iter().map(|entry| entry.name.as_str()).collect();
    let near = crate::nearest::nearest(name, names.iter().copied());
    let hint = match (near, names.is_empty()) {
        (Some(near), _) => format!("did you mean `{near}`?"),
        (None, true) => "no plugin is installed".into(),
        (None, false) => format!("installed are {}", crate::located::list(&names)),
    };
    Error::not_found(format!("plugin `{name}` is not installed; {hint}"))
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

fn utc(now_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(now_ms).map(|moment| format!("{moment:.0}")).unwrap_or_default()
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder).map_err(|error| Error::io("read", folder, error))?;
    entries
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()
        .map_err(|error| Error::io("read", folder, error))
}

fn remove_tree(path: &Path) -> Result<()> {
    let removed = if path.is_dir() && !path.is_symlink() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    removed.map_err(|error| Error::io("remove", path, error))
}

fn write_synced(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let write = || -> std::io::Result<()> {
        fs::create_dir_all(path.parent().unwrap_or(folder))?;
        let mut file = fs::File::create(&path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(|error| Error::io("write", &path, error))
}

fn sync_folder(folder: &Path) -> std::io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn sync_tree(folder: &Path) -> std::io::Result<()> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                folders.push(entry.path());
            }
        }
        sync_folder(&folder)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{component, manifest_text, package};
    use mainstay_base::VirtualClock;
    use serde_json::json;
    use std::sync::atomic::Ordering::SeqCst;

    fn market(folder: &Path) -> Market {
        Market::open(folder, Arc::new(VirtualClock::new(1_767_323_045_000))).unwrap()
    }

    fn order(package: &Package) -> Order<'_> {
        Order { package, grants: None, config: None }
    }

    fn install(market: &Market, package: &Package) -> Result<Installed> {
        market.install(&order(package), &|_| Ok(()))
    }

    fn route(path: &str) -> String {
        format!("[[routes]]\npath = \"{path}\"\nmethods = [\"GET\"]\nright = \"read\"\n")
    }

    #[test]
    fn install_list_replace_remove() {
        let folder = tempfile::tempdir().unwrap();
        let market = market(folder.path());
        let first = package(&manifest_text("box", &route("/box")));
        let installed = install(&market, &first).unwrap();
        assert_eq!(installed.entry.installed, "2026-01-02T03:04:05Z");
        assert_eq!(installed.entry.routes, ["GET /box"]);
        assert_eq!(installed.component.as_slice(), component().as_slice());

        let second = package(&manifest_text("box", "").replace("0.1.0\"", "0.2.0\"").replace("api@0.2.0", "api@0.1.0"));
        assert_eq!(market.plan(&order(&second)).unwrap().replaces, Some(semver::Version::new(0, 1, 0)));
        install(&market, &second).unwrap();
        let all = market.list().unwrap();
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].entry.version, semver::Version::new(0, 2, 0));
        assert_eq!(names(&folder.path().join("plugins/box")).unwrap().len(), 1, "the old version is swept");

        assert!(market.info("boxx").unwrap_err().message().contains("did you mean `box`?"));
        market.remove("box").unwrap();
        assert!(market.list().unwrap().is_empty());
        assert_eq!(names(&folder.path().join("plugins")).unwrap(), ["plugins.lock"]);
        assert_eq!(
            market.remove("box").unwrap_err().message(),
            "plugin `box` is not installed; no plugin is installed"
        );
    }

    #[test]
    fn overlapping_claims_are_refused_naming_both() {
        let folder = tempfile::tempdir().unwrap();
        let market = market(folder.path());
        install(&market, &package(&manifest_text("box", &route("/box")))).unwrap();
        let error = install(&market, &package(&manifest_text("can", &route("/box")))).unwrap_err();
        assert_eq!(
            error.message(),
            "`can` 0.1.0 claims `GET /box`, which meets `GET /box` of the installed `box` 0.1.0; install one of them only: \
             `mainstay plugin remove box` makes room"
        );
        assert_eq!(market.list().unwrap().len(), 1);
    }

    #[test]
    fn grants_are_what_was_asked_for_or_less() {
        let folder = tempfile::tempdir().unwrap();
        let market = market(folder.path());
        let package =
            package(&manifest_text("box", "").replace("capabilities = []", "capabilities = [\"keys\", \"blobs\"]"));
        let with = |grants: &[&str]| Order {
            package: &package,
            grants: Some(grants.iter().map(|grant| grant.to_string()).collect()),
            config: None,
        };
        assert_eq!(market.plan(&order(&package)).unwrap().grants, ["blobs", "keys"]);
        assert_eq!(market.plan(&with(&["keys", "keys"])).unwrap().grants, ["keys"]);
        assert!(market.plan(&with(&["index"])).unwrap_err().message().contains("does not ask for `index`"));
    }

    #[test]
    fn settings_are_checked_kept_and_inherited() {
        let folder = tempfile::tempdir().unwrap();
        let market = market(folder.path());
        let schema = br#"{"type": "object", "properties": {"days": {"type": "integer", "minimum": 1, "default": 30}}}"#;
        let package = crate::testing::package_with(
            &manifest_text("box", "[config]\nschema = \"c.json\"\n"),
            &[("c.json", schema)],
        );
        let with = |config: Value| Order { package: &package, grants: None, config: Some(config) };
        let error = market.install(&with(json!({"days": 0})), &|_| Ok(())).unwrap_err();
        assert_eq!(error.message(), "settings of `box`: /days: `days` is `0`; write at least 1");
        assert_eq!(install(&market, &package).unwrap().config, json!({"days": 30}));
        let (entry, again) = market.package("box").unwrap();
        assert_eq!((&entry.digest, &again.digest), (&package.digest, &package.digest));
        market.install(&with(json!({"days": 7})), &|_| Ok(())).unwrap();
        assert_eq!(install(&market, &package).unwrap().config, json!({"days": 7}));
    }

    #[test]
    fn what_does_not_compile_is_not_installed() {
        let folder = tempfile::tempdir().unwrap();
        let market = market(folder.path());
        let package = package(&manifest_text("box", ""));
        let error = market.install(&order(&package), &|_| Err(Error::invalid("no"))).unwrap_err();
        assert_eq!(error.message(), "no");
        assert!(names(&folder.path().join("plugins")).unwrap().is_empty());
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let market = market(folder.path());
        let entry = install(&market, &package(&manifest_text("box", ""))).unwrap().entry;
        let files = folder.path().join("plugins").join(&entry.folder);
        fs::write(files.join("box.wasm"), b"other").unwrap();
        assert!(market.list().unwrap_err().message().contains("the lockfile says"));
        fs::write(files.join("box.wasm"), component()).unwrap();
        market.list().unwrap();
        fs::write(files.join(SETTINGS_FILE), b"{\"a\":1}").unwrap();
        assert!(market.list().unwrap_err().message().contains("the settings of the installed plugin `box`"));
        fs::remove_file(files.join("box.wasm")).unwrap();
        assert!(market.list().unwrap_err().message().contains("install `box` 0.1.0 again"));
        let again = package(&manifest_text("box", ""));
        install(&market, &again).unwrap();
        assert_eq!(market.list().unwrap()[0].entry.digest, again.digest);
    }

    /// The state that a reader sees: versions, and whether everything is whole.
    fn state(folder: &Path) -> Vec<String> {
        market(folder).list().unwrap().iter().map(|i| format!("{} {}", i.entry.name, i.entry.version)).collect()
    }

    #[test]
    fn a_crash_at_any_step_leaves_the_old_state_or_the_new_one() {
        let first = package(&manifest_text("box", &route("/box")));
        let second = package(&manifest_text("box", "").replace("version = \"0.1.0\"", "version = \"0.2.0\""));
        type Change = fn(&Market, &Package) -> Result<()>;
        let changes: [(Change, &[&str]); 2] = [
            (|market, package| install(market, package).map(|_| ()), &["box 0.2.0"]),
            (|market, _| market.remove("box").map(|_| ()), &[]),
        ];
        for (change, after) in changes {
            for steps in 0.. {
                let folder = tempfile::tempdir().unwrap();
                let market = market(folder.path());
                install(&market, &first).unwrap();
                market.steps_left.store(steps, SeqCst);
                let done = change(&market, &second).is_ok();
                let seen = state(folder.path());
                assert!(seen == ["box 0.1.0"] || seen == after, "step {steps}: {seen:?}");
                let folders = names(&folder.path().join("plugins")).unwrap();
                assert!(
                    folders.iter().all(|name| name == "box" || name == "plugins.lock"),
                    "step {steps}: {folders:?}"
                );
                if done {
                    assert_eq!(seen, after);
                    assert!(steps >= 2, "the change passed its steps");
                    break;
                }
                self::market(folder.path()).steps_left.store(usize::MAX, SeqCst);
                change(&self::market(folder.path()), &second).ok();
                assert_eq!(state(folder.path()), after, "trying again after a crash at step {steps}");
            }
        }
    }
}
