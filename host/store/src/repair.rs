//! A damaged log, beside an index that may hold what it lost.
//!
//! Owns the comparison of the two, the words about it, and the repair. The ordered index holds every commit up to one; the
//! log is needed only for those above. So a log whose damage lies below that place can be set aside and begun anew without
//! losing anything, and one whose damage lies above it loses exactly the commits that are named. Separate from opening,
//! which never repairs: a person asks for this (`mainstay doctor --repair`).
//!
//! Nothing is removed: the old log is moved to `log.damaged-N`. The new one is written beside it and takes its name by two
//! renames; a crash between them is finished by the next opening. Bounded by one record in memory and the room on the disk
//! for the records above the index. On failure: the old log has its name, or the new one has.

use std::io;
use std::path::{Path, PathBuf};

use mainstay_base::{Disk, Error, Result};
use mainstay_log::{Corruption, Log, Survey, survey};

use crate::recover;
use crate::store::StoreOptions;

const LOG: &str = "log";
/// Being written; a leftover is worth nothing.
const REPAIRING: &str = "log.repairing";
/// Written and synced; waits for the old log's name.
const REPAIRED: &str = "log.repaired";
const DAMAGED: &str = "log.damaged-";

/// The log beside the index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogReport {
    /// The newest commit that the ordered index holds, with all below it.
    pub applied: u64,
    /// What the log holds.
    pub survey: Survey,
    /// Where the log is.
    folder: PathBuf,
}

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repaired {
    /// The log is whole and fits the index; nothing was done.
    NotNeeded,
    /// The old log was moved away and a new one begun.
    SetAside {
        /// Where the old log is now.
        old: PathBuf,
        /// The newest commit that the store has.
        newest: u64,
        /// Commits that were given up: the first and the last that the old log speaks of.
        lost: Option<(u64, u64)>,
    },
}

impl LogReport {
    /// Whether the store opens on this log, and every record in it is whole.
    pub fn is_whole(&self) -> bool {
        self.survey.damages == 0 && !self.ends_early() && !self.begins_late()
    }

    /// The newest commit that log and index have between them.
    pub fn readable_to(&self) -> u64 {
        self.survey.readable_to
    }

    fn ends_early(&self) -> bool {
        self.survey.newest < self.applied
    }

    fn begins_late(&self) -> bool {
        self.survey.first.is_some_and(|first| first > self.applied + 1)
    }

    /// Whether a repair loses nothing that anything speaks of, and the log says where it ended.
    pub fn is_lossless(&self) -> bool {
        self.survey.lost().is_none() && self.survey.is_end_known && !self.ends_early()
    }

    /// What is wrong, a line for each damage that is named.
    pub fn damage(&self) -> String {
        let mut lines: Vec<String> = self.survey.damage.iter().map(Corruption::to_string).collect();
        let unnamed = self.survey.damages - lines.len() as u64;
        if unnamed > 0 {
            lines.push(format!("and {unnamed} more places"));
        }
        let (folder, applied) = (self.folder.display(), self.applied);
        if self.ends_early() {
            let newest = self.survey.newest;
            lines.push(format!("the log `{folder}` ends at commit {newest}, and the ordered index at {applied}"));
        }
        if let Some(first) = self.survey.first.filter(|_| self.begins_late()) {
            lines.push(format!("the log `{folder}` begins at commit {first}, and the ordered index ends at {applied}"));
        }
        lines.join("\n")
    }

    /// What to do about it, and what that costs.
    pub fn remedy(&self) -> String {
        let (applied, readable_to) = (self.applied, self.readable_to());
        let next = readable_to + 1;
        let has = match readable_to > applied {
            true => {
                format!("The ordered index holds every commit up to {applied}, and the log those up to {readable_to}")
            }
            false => format!("The ordered index holds every commit up to {applied}"),
        };
        if self.is_lossless() {
            return format!(
                "{has}: nothing is lost. Run `mainstay doctor --repair`: it moves the damaged log aside, removes nothing, and \
                 the host goes on at commit {next}"
            );
        }
        let loss = match self.survey.lost() {
            Some((from, to)) => format!("commits {from} to {to} cannot be read any more"),
            None => format!("nothing says whether there were commits from {next} on"),
        };
        format!(
            "{has}; {loss}. Restore the whole data folder from a backup. Or give these commits up and run `mainstay doctor \
             --repair --give-up-from {next}`: it moves the damaged log aside, removes nothing, and the host goes on with the \
             commits up to {readable_to}"
        )
    }
}

/// Compare the log of a store's folder with its index. Opens the index as [`Store::open`](crate::Store::open) would, and so
/// changes nothing only on a disk that keeps changes to itself ([`ShadowDisk`](mainstay_base::ShadowDisk)).
pub fn examine_log(options: &StoreOptions) -> Result<LogReport> {
    let (folder, _lock) = recover::take(options)?;
    let engine = recover::open_checked(options, &folder)?;
    compare(options, &folder, engine.applied()?, &mut |_, _| Ok(()))
}

/// Set a damaged log aside and begin a new one with all that can still be had. Where that loses commits, `give_up_from` must
/// name the first of them.
pub fn repair_log(options: &StoreOptions, give_up_from: Option<u64>) -> Result<Repaired> {
    let (folder, _lock) = recover::take(options)?;
    let disk = &*options.disk;
    let engine = recover::open_checked(options, &folder)?;
    engine.verify()?;
    let applied = engine.checkpoint()?;
    let report = compare(options, &folder, applied, &mut |_, _| Ok(()))?;
    if report.is_whole() {
        return Ok(Repaired::NotNeeded);
    }
    let next = report.readable_to() + 1;
    let is_agreed = if report.is_lossless() { give_up_from.is_none() } else { give_up_from == Some(next) };
    if !is_agreed {
        let damage = report.damage();
        return Err(Error::conflict(format!("{damage}; nothing was changed. {}", report.remedy())));
    }
    write_anew(options, &folder, applied, next)?;
    let old = free_name(disk, &folder)?;
    if names(disk, &folder)?.iter().any(|path| path.ends_with(LOG)) {
        rename(disk, &folder.join(LOG), &old)?;
    }
    finish(disk, &folder)?;
    Ok(Repaired::SetAside { old, newest: next - 1, lost: report.survey.lost() })
}

/// After a crash between the two renames of a repair: the second one.
pub(crate) fn finish(disk: &dyn Disk, folder: &Path) -> Result<()> {
    let names = names(disk, folder)?;
    let has = |name: &str| names.iter().any(|path| path.ends_with(name));
    if has(REPAIRED) && !has(LOG) {
        rename(disk, &folder.join(REPAIRED), &folder.join(LOG))?;
    }
    Ok(())
}

/// What to say of an error of the log, if it is about damage: the error, what it means, and what to do.
pub(crate) fn explain(options: &StoreOptions, folder: &Path, applied: u64, error: Error) -> Error {
    if Corruption::of(&error).is_none() {
        return error;
    }
    match compare(options, folder, applied, &mut |_, _| Ok(())) {
        Ok(report) => said(&error, &report),
        Err(_) => Error::internal(format!("{error}. Restore the whole data folder from a backup")).with_source(error),
    }
}

/// Log and index do not fit together: say how, and what to do.
pub(crate) fn misfit(options: &StoreOptions, folder: &Path, applied: u64) -> Error {
    match compare(options, folder, applied, &mut |_, _| Ok(())) {
        Ok(report) => {
            let damage = report.damage();
            Error::internal(format!(
                "{damage}: one of them was replaced or removed; nothing was changed. {}",
                report.remedy()
            ))
        }
        Err(error) => error,
    }
}

fn said(error: &Error, report: &LogReport) -> Error {
    let said = Error::internal(format!("{error}. {}", report.remedy()));
    match Corruption::of(error) {
        Some(corruption) => said.with_source(corruption.clone()),
        None => said,
    }
}

fn compare(
    options: &StoreOptions,
    folder: &Path,
    applied: u64,
    visit: &mut dyn FnMut(u64, Vec<u8>) -> Result<()>,
) -> Result<LogReport> {
    let folder = folder_of_log(folder);
    let survey = survey(&*options.disk, &folder, applied, visit)?;
    Ok(LogReport { applied, survey, folder })
}

/// A new log with every record from the index's end on that can be read, ready to take the old one's name.
fn write_anew(options: &StoreOptions, folder: &Path, applied: u64, next: u64) -> Result<()> {
    let disk = &options.disk;
    let (writing, ready) = (folder.join(REPAIRING), folder.join(REPAIRED));
    for leftover in [&writing, &ready] {
        clear(&**disk, leftover)?;
    }
    let log = Log::begin(disk.clone(), &writing, options.log.clone(), applied + 1)?;
    let report = compare(options, folder, applied, &mut |_, payload| log.append_blocking(payload).map(drop))?;
    log.close()?;
    if report.readable_to() + 1 != next {
        return Err(Error::internal(format!(
            "the log in `{}` reads differently the second time; check the disk",
            report.folder.display()
        )));
    }
    // A folder without files is no obstacle to a rename.
    rename(&**disk, &writing, &ready)
}

/// Give a folder another name beside its old one, durably.
fn rename(disk: &dyn Disk, from: &Path, to: &Path) -> Result<()> {
    disk.rename(from, to).map_err(|error| Error::io("give another name to", from, error))?;
    let folder = from.parent().unwrap_or(Path::new("."));
    disk.sync_folder(folder).map_err(|error| Error::io("sync", folder, error))
}

/// Remove the files of a folder, if it is there.
fn clear(disk: &dyn Disk, folder: &Path) -> Result<()> {
    match disk.list(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io("list", folder, error)),
        Ok(names) => {
            names.iter().try_for_each(|path| disk.remove(path).map_err(|error| Error::io("remove", path, error)))
        }
    }
}

fn names(disk: &dyn Disk, folder: &Path) -> Result<Vec<PathBuf>> {
    disk.list(folder).map_err(|error| Error::io("list", folder, error))
}

/// Where a log can be moved to.
fn free_name(disk: &dyn Disk, folder: &Path) -> Result<PathBuf> {
    let taken = names(disk, folder)?;
    let free = (1..u32::MAX).map(|number| folder.join(format!("{DAMAGED}{number}"))).find(|path| !taken.contains(path));
    free.ok_or_else(|| Error::exhausted("too many logs were set aside; remove some"))
}

fn folder_of_log(folder: &Path) -> PathBuf {
    folder.join(LOG)
}
