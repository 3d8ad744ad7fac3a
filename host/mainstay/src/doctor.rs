//! `mainstay doctor`: looks at a data folder and says what is wrong with it and what to do; `--repair` sets a damaged log
//! aside.
//!
//! Owns the list of checks. Each answers ok, warn or fail, what it found, and the remedy. Separate because it must work when
//! nothing else does. Looking changes nothing: log, index and blobs are opened as the server would open them, on a disk
//! that keeps every change in memory ([`ShadowDisk`]). Two things are plainly told: the sync check writes one file and removes
//! it, and sled, which cannot be opened without writing, tidies its own files as at every start. While a server uses the
//! folder, the checks that would disturb it are skipped and say so.
//!
//! Bounded: the checks of log and store read all of both, that of blobs asks for the length of each (and reads them with
//! `--deep`), the others read what their rooms read at start; what opening would change takes at most
//! [`SHADOW_BYTES_MAX`] of memory. A check that fails does not end the others.

use crate::config::Engine;
use crate::data_folder::{self, DataFolder, Look, Looked};
use crate::exit::{Exit, Failure};
use crate::settings::Settings;
use crate::token_commands::block_on;
use mainstay_base::{Error, Result, ShadowDisk, SystemClock};
use mainstay_networks::Runtime;
use mainstay_runtime::compile::cache_trouble;
use mainstay_store::blobs::{BlobBackend, Blobs};
use mainstay_store::{Repaired, Store, StoreOptions, examine_log, repair_log};
use mainstay_tables::{Tables, TablesOptions};
use serde::Serialize;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

const FREE_BYTES_WARN: u64 = 2 << 30;
const FREE_BYTES_FAIL: u64 = 256 << 20;
const SYNC_WARN: Duration = Duration::from_millis(20);
const SYNCS: usize = 16;
/// What opening log and index as the server does may change, in memory.
const SHADOW_BYTES_MAX: u64 = 512 << 20;

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Works, but should be looked at.
    Warn,
    /// Does not work.
    Fail,
}

/// What a check found.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Name of the check.
    pub check: &'static str,
    /// How it ended.
    pub state: State,
    /// What was found.
    pub found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

struct Answer {
    state: State,
    found: String,
    remedy: Option<String>,
}

fn ok(found: impl Into<String>) -> Result<Answer> {
    Ok(Answer { state: State::Ok, found: found.into(), remedy: None })
}

fn warn(found: impl Into<String>, remedy: impl Into<String>) -> Result<Answer> {
    Ok(Answer { state: State::Warn, found: found.into(), remedy: Some(remedy.into()) })
}

fn fail(found: impl Into<String>, remedy: impl Into<String>) -> Result<Answer> {
    Ok(Answer { state: State::Fail, found: found.into(), remedy: Some(remedy.into()) })
}

/// Run every check; `deep` reads the blobs too.
pub fn examine(settings: &Settings, deep: bool) -> Vec<Finding> {
    let mut report = Vec::new();
    let path = &settings.data;
    if !path.exists() {
        let remedy = "start the server once, or name another folder with `--data`";
        add(&mut report, "data folder", || warn(format!("`{}` does not exist yet", path.display()), remedy));
        return report;
    }
    let (mut looked, mut is_held) = (None, false);
    add(&mut report, "data folder", || match data_folder::look(path)? {
        Look::Free(folder) => {
            let found = format!("`{}`, made with {}", path.display(), folder.engine().as_str());
            looked = Some(folder);
            ok(found)
        }
        Look::Held(owner) => {
            is_held = true;
            ok(format!("`{}`, in use by {owner}", path.display()))
        }
        Look::New => {
            let remedy = "start the server once, or name another folder with `--data`";
            warn(format!("`{}` has no file `version`: no server has used it yet", path.display()), remedy)
        }
    });
    add(&mut report, "permissions", || permissions(path));
    add(&mut report, "disk space", || disk_space(path));
    add(&mut report, "disk sync", || disk_sync(path));
    match &looked {
        Some(folder) => {
            add(&mut report, "log", || log(settings, folder));
            add(&mut report, "store", || store(settings, folder));
            add(&mut report, "blobs", || blobs(settings, folder, deep));
            add(&mut report, "tables", || tables(settings, folder, deep));
        }
        None if is_held => {
            add(&mut report, "log", || ok("skipped: the server has it open"));
            add(&mut report, "store", || ok("skipped: the server has it open"));
            add(&mut report, "blobs", || ok("skipped: the server has it open"));
            add(&mut report, "tables", || ok("skipped: the server has it open"));
        }
        None => {}
    }
    add(&mut report, "plugins", || plugins(path));
    add(&mut report, "compiled plugins", || compiled(path));
    add(&mut report, "kernels", || kernels(settings));
    add(&mut report, "addresses", || if is_held { ok("in use by the server") } else { addresses(settings) });
    report
}

/// The exit code that the findings mean.
pub fn exit(report: &[Finding]) -> Exit {
    if report.iter().any(|finding| finding.state == State::Fail) { Exit::Failed } else { Exit::Done }
}

/// The findings as text.
pub fn render(report: &[Finding]) -> String {
    let mut text = String::new();
    for finding in report {
        let state = match finding.state {
            State::Ok => "ok  ",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        text.push_str(&format!("{state}  {:16}  {}\n", finding.check, finding.found.replace('\n', "\n      ")));
        if let Some(remedy) = &finding.remedy {
            text.push_str(&format!("      {:16}  -> {remedy}\n", ""));
        }
    }
    text
}

fn add(report: &mut Vec<Finding>, check: &'static str, run: impl FnOnce() -> Result<Answer>) {
    let Answer { state, found, remedy } =
        run().unwrap_or_else(|error| Answer { state: State::Fail, found: error.message().to_string(), remedy: None });
    report.push(Finding { check, state, found, remedy });
}

fn permissions(path: &Path) -> Result<Answer> {
    for inside in [path.to_path_buf(), path.join("secrets")] {
        let Ok(kind) = fs::metadata(&inside) else { continue };
        let mode = kind.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            let shown = inside.display();
            let remedy = format!("chmod 700 '{shown}'");
            return warn(format!("`{shown}` has mode {mode:o}: other users of this machine can look inside"), remedy);
        }
    }
    ok("only this user can look inside")
}

fn disk_space(path: &Path) -> Result<Answer> {
    let space = rustix::fs::statvfs(path).map_err(|error| Error::io("ask for free space of", path, error.into()))?;
    let free_bytes = space.f_bavail.saturating_mul(space.f_frsize);
    let found = format!("{} MiB are free", free_bytes >> 20);
    let remedy = format!("free some space on the disk of `{}`; without any, every write is refused", path.display());
    match free_bytes {
        bytes if bytes < FREE_BYTES_FAIL => fail(found, remedy),
        bytes if bytes < FREE_BYTES_WARN => warn(found, remedy),
        _ => ok(found),
    }
}

/// How long an acknowledged write takes at least.
fn disk_sync(path: &Path) -> Result<Answer> {
    let probe = path.join(".doctor-probe");
    let measure = || -> std::io::Result<Vec<Duration>> {
        let mut file = File::create(&probe)?;
        let mut times = Vec::with_capacity(SYNCS);
        for _ in 0..SYNCS {
            file.write_all(&[7; 4096])?;
            let start = Instant::now();
            file.sync_data()?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        Ok(times)
    };
    let times = measure();
    // The measurement counts; a probe that stays behind is overwritten next time.
    let _ = fs::remove_file(&probe);
    let times = times.map_err(|error| Error::io("write and sync", &probe, error))?;
    let (median, worst) = (times[SYNCS / 2], times[SYNCS - 1]);
    let found = format!("{:.1} ms in the middle, {:.1} ms at worst", milliseconds(median), milliseconds(worst));
    match median > SYNC_WARN {
        true => warn(found, "writes wait for this; use a disk that syncs faster, not a network file system"),
        false => ok(found),
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The store's options on a disk that keeps changes to itself; none when there is no store yet.
fn shadow(settings: &Settings, folder: &Looked) -> Option<StoreOptions> {
    let options = settings.store(folder.engine());
    let place = settings.data.join("store");
    let has = |name: &str| place.join(name).exists();
    // sled would make its folder where there is none.
    let is_there = match folder.engine() {
        Engine::Sled => has("ordered.sled"),
        Engine::Redb => has("ordered.redb") || has("log"),
    };
    is_there.then(|| StoreOptions { disk: Arc::new(ShadowDisk::new(SHADOW_BYTES_MAX)), ..options })
}

const NO_STORE: &str = "nothing has been written yet";

/// Every record's checksum, from the oldest kept to the newest, and whether the index has what cannot be read.
fn log(settings: &Settings, folder: &Looked) -> Result<Answer> {
    let Some(options) = shadow(settings, folder) else { return ok(NO_STORE) };
    let report = examine_log(&options)?;
    if !report.is_whole() {
        return fail(report.damage(), report.remedy());
    }
    let (records, newest) = (report.survey.records, report.survey.newest);
    match report.survey.torn_bytes {
        0 => ok(format!("{records} records are whole, the newest is {newest}")),
        torn => ok(format!(
            "{records} records are whole, the newest is {newest}; the next start cuts {torn} bytes of an unfinished write"
        )),
    }
}

/// Opens as the server would, then reads every value against its checksum.
fn store(settings: &Settings, folder: &Looked) -> Result<Answer> {
    let Some(options) = shadow(settings, folder) else { return ok(NO_STORE) };
    let start = Instant::now();
    let store = Store::open(options)?;
    let opened = start.elapsed();
    let sequence = store.sequence();
    let verified = store.verify();
    let closed = store.close();
    // What was found comes first: a damaged store may not close either.
    let entries = verified?;
    closed?;
    let tidied = if folder.engine() == Engine::Sled { "; sled tidied its files, as at every start" } else { "" };
    ok(format!(
        "opens in {:.0} ms at commit {sequence}; {entries} entries match their checksums{tidied}",
        milliseconds(opened)
    ))
}

/// Every blob that is recorded is there and has its length; with `deep`, its digest too.
fn blobs(settings: &Settings, folder: &Looked, deep: bool) -> Result<Answer> {
    let Some(options) = shadow(settings, folder) else { return ok(NO_STORE) };
    let place = settings.data.join("blobs");
    let store = Store::open(options)?;
    let backend = BlobBackend::LocalAsItIs { folder: place.clone() };
    let blobs = Blobs::open(store.clone(), backend, Arc::new(SystemClock::default()), settings.blob_grace)?;
    let report = block_on(blobs.check(deep))?;
    drop(blobs);
    store.close()?;
    let report = report?;
    let read = if deep { "read and have their digests" } else { "are there with their lengths; `--deep` reads them" };
    if report.damaged == 0 {
        return ok(format!("{} blobs of {} MiB {read}", report.blobs, report.bytes >> 20));
    }
    let mut found = format!("{} of {} blobs are damaged:", report.damaged, report.blobs);
    for blob in &report.named {
        found.push_str(&format!("\n{}: {}", blob.sha256, blob.what));
    }
    fail(
        found,
        format!("store the same content again, or restore these files below `{}` from a backup", place.display()),
    )
}

/// Every file of every table is there with its footer; with `deep`, every row group matches its checksums.
fn tables(settings: &Settings, folder: &Looked, deep: bool) -> Result<Answer> {
    let Some(options) = shadow(settings, folder) else { return ok(NO_STORE) };
    let disk = options.disk.clone();
    let store = Store::open(options)?;
    let tables = Tables::open(store.clone(), TablesOptions { disk, ..settings.tables() })?;
    let names = tables.list();
    let examined = names.iter().map(|name| Ok((name, tables.table(name)?.examine(deep)?)));
    let examined: Result<Vec<_>> = examined.collect();
    drop(tables);
    store.close()?;
    let examined = examined?;
    let files: usize = examined.iter().map(|(_, table)| table.files).sum();
    let rows: u64 = examined.iter().map(|(_, table)| table.rows).sum();
    let mut found = format!("{rows} rows in {files} files of {} tables", names.len());
    let mut is_damaged = false;
    for (name, table) in &examined {
        let known = table.known.iter().map(|missing| (&missing.file, &missing.reason, " (moved aside earlier)"));
        let new = table.found.iter().map(|(file, reason)| (file, reason, ""));
        for (file, reason, when) in new.chain(known) {
            is_damaged = true;
            found.push_str(&format!("\ntable `{name}`: `{file}`: {reason}{when}"));
        }
    }
    match (is_damaged, deep) {
        (true, _) => {
            fail(found, "answers say which rows they miss; restore the files from a backup, or append the rows again")
        }
        (false, true) => ok(format!("{found}, all read against their checksums")),
        (false, false) => ok(format!("{found}; `--deep` reads them")),
    }
}

/// Set a damaged log aside, on the disk itself, and say what was done. `give_up_from` must name the first commit that is
/// lost, if any is.
pub fn repair(settings: &Settings, give_up_from: Option<u64>) -> std::result::Result<String, Failure> {
    let path = &settings.data;
    if let Look::New = data_folder::look(path)? {
        let words = format!("`{}` is no data folder of a server; name another with `--data`", path.display());
        return Err(Error::not_found(words).into());
    }
    let folder = DataFolder::open(path, "doctor --repair", None)?;
    let repaired = repair_log(&settings.store(folder.engine()), give_up_from)?;
    Ok(match repaired {
        Repaired::NotNeeded => "The log is whole and fits the ordered index; nothing was changed.\n".into(),
        Repaired::SetAside { old, newest, lost } => {
            let lost = match lost {
                Some((from, to)) => format!("Commits {from} to {to} were given up."),
                None => "Nothing that the log speaks of was lost.".into(),
            };
            format!(
                "The damaged log is now in `{}`; keep it until you are sure that nothing is missing.\n{lost} The host goes on \
                 at commit {}.\n",
                old.display(),
                newest + 1
            )
        }
    })
}

fn plugins(path: &Path) -> Result<Answer> {
    let installed = mainstay_market::list(path)?;
    for plugin in &installed {
        mainstay_market::check_component(&plugin.manifest, &plugin.component)
            .map_err(|error| error.context(format!("plugin `{}`", plugin.entry.name)))?;
    }
    let names: Vec<String> = installed.iter().map(|p| format!("{} {}", p.entry.name, p.entry.version)).collect();
    match names.is_empty() {
        true => warn("none is installed", "install one with `mainstay plugin install`"),
        false => ok(format!("{} match the lockfile and fit this host", names.join(", "))),
    }
}

fn compiled(path: &Path) -> Result<Answer> {
    let folder = path.join("cache");
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return ok("none yet"),
        Err(error) => return Err(Error::io("read", &folder, error)),
    };
    let (mut files, mut bytes) = (0_u64, 0_u64);
    for entry in entries {
        let kind = entry.and_then(|entry| entry.metadata()).map_err(|error| Error::io("read", &folder, error))?;
        if kind.permissions().mode() & 0o022 != 0 {
            let remedy = format!("rm -r '{}'; it is made again at the next start", folder.display());
            return fail("others may write compiled code here, which the host would run", remedy);
        }
        files += 1;
        bytes += kind.len();
    }
    if let Some(trouble) = cache_trouble(&folder)? {
        return warn(trouble, "nothing to do: the next start makes a new one, and compiles the plugins again");
    }
    ok(format!("{files} files, {} KiB", bytes >> 10))
}

/// Which kernels would run on this machine, and how wide.
fn kernels(settings: &Settings) -> Result<Answer> {
    let models = mainstay_models::layout::instruction_sets();
    let networks = match &settings.networks.runtime {
        Runtime::Rten => "rten".to_owned(),
        Runtime::OnnxRuntime(library) if library.is_file() => format!("ONNX Runtime ({})", library.display()),
        Runtime::OnnxRuntime(library) => {
            let remedy =
                "correct `kernels.onnx-runtime`, or leave it out to run graphs with the runtime of this binary";
            return warn(
                format!("ONNX Runtime is to be loaded from `{}`, which is no file", library.display()),
                remedy,
            );
        }
    };
    let device = match settings.device() {
        Ok(Some(cuda)) => cuda.description().map_or_else(|| "a device that is lost".to_owned(), |found| found.name),
        Ok(None) if settings.cuda.mode == mainstay_cuda::Mode::Off => "no device (`cuda.device` is `off`)".to_owned(),
        Ok(None) => no_device(settings),
        Err(error) => return warn(error.to_string(), "docs/gpu.md says what a device needs"),
    };
    ok(format!(
        "on {device} and on the processor with {} threads; statistics use {}, models {}, other ONNX graphs {networks}",
        settings.kernels.threads,
        mainstay_statistics::instruction_set(),
        models.join(", "),
    ))
}

/// Why there is no device: what it would say if one were required.
fn no_device(settings: &Settings) -> String {
    let required = mainstay_cuda::Options { mode: mainstay_cuda::Mode::Required, ..settings.cuda.clone() };
    match mainstay_cuda::Cuda::start(required, std::sync::Arc::new(mainstay_base::SystemClock::default())) {
        Err(error) => {
            let text = error.to_string();
            let why = text.split(", and ").nth(1).and_then(|rest| rest.split("; make it").next());
            format!("no device ({})", why.unwrap_or(&text))
        }
        Ok(_) => "no device".to_owned(),
    }
}

fn addresses(settings: &Settings) -> Result<Answer> {
    for address in [Some(settings.gateway.http), settings.gateway.grpc].into_iter().flatten() {
        if let Err(error) = std::net::TcpListener::bind(address) {
            let remedy = "stop what listens there, or choose another address with `--listen` and `--grpc`";
            return warn(format!("{address} cannot be used: {error}"), remedy);
        }
    }
    ok("free")
}
