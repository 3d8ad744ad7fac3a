//! A disk in memory that behaves as badly as a real one may.
//!
//! Owns a tree of files with two states each: what was written (what a running program sees), and what is durable.
//! [`SimDisk::crash`] keeps of everything that was not synced only what a seed decides: each 512-byte sector of an
//! unsynced write may be kept, lost or kept in part (torn), in any combination; unsynced names (creations, renames,
//! removals) may be kept or lost (after Pillai 2014, ALICE). [`Faults`] make operations fail: a full disk, a sync that
//! reports an error and drops the dirty pages (Rebello 2020). [`SimDisk::flip_bit`] damages a file at rest, and
//! [`SimDisk::cut_power_after`] stops everything at the n-th operation, so that a test can crash at every step.
//!
//! Stricter than common file systems: syncing a file does not make its name durable, and a name survives only if all
//! folders above it do. A rename inside one folder is atomic; one between folders is a creation and a removal, each
//! durable with its own folder. Bounded by the memory that the caller's files take, twice. After a crash every file opened
//! before it answers with an error.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::{Disk, DiskFile, Random, SeededRandom};

/// What a disk writes in one piece, at best.
const SECTOR_BYTES: u64 = 512;

/// Which operations fail; all off by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Writes that would grow the sum of all files beyond this many bytes fail with `StorageFull`; the part that fits is
    /// written, as a real disk does.
    pub capacity_bytes: Option<u64>,
    /// The next sync of a file fails, and what it should have made durable is lost: it can still be read until the next
    /// crash, and later syncs succeed without it.
    pub fail_next_sync: bool,
}

/// A disk in memory; see the module. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

impl SimDisk {
    /// An empty disk: only the root folder is there.
    pub fn new() -> SimDisk {
        SimDisk::default()
    }

    /// Change which operations fail.
    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Which operations fail now.
    pub fn faults(&self) -> Faults {
        self.state.lock().faults.clone()
    }

    /// How many operations that change something were asked for so far.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Let this many more changing operations succeed. The one after them fails half done, and from then on everything
    /// fails until [`SimDisk::crash`] brings the power back.
    pub fn cut_power_after(&self, operations: u64) {
        self.state.lock().power = Power::Left(operations);
    }

    /// Whether a cut asked for by [`SimDisk::cut_power_after`] has happened.
    pub fn is_power_off(&self) -> bool {
        self.state.lock().power == Power::Off
    }

    /// Lose power and come back: of what was not synced, the seed decides what stays. The same history and seed give the
    /// same disk. Power is on again, a `fail_next_sync` that has not happened is forgotten, the capacity stays.
    pub fn crash(&self, seed: u64) {
        let mut state = self.state.lock();
        state.tree = state.tree.after_crash(seed);
        state.power = Power::On;
        state.faults.fail_next_sync = false;
        state.epoch += 1;
    }

    /// The disk as a crash at this moment could leave it; this one goes on undisturbed.
    pub fn after_crash(&self, seed: u64) -> SimDisk {
        let state = self.state.lock();
        let faults = Faults { fail_next_sync: false, ..state.faults.clone() };
        let after = State { tree: state.tree.after_crash(seed), faults, ..State::default() };
        SimDisk { state: Arc::new(Mutex::new(after)) }
    }

    /// Damage a file at rest: invert one bit of what is written and of what is durable.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) -> io::Result<()> {
        let state = self.state.lock();
        let inode = state.tree.file(&normal(path))?;
        let mut inode = inode.lock();
        let Inode { written, durable, .. } = &mut *inode;
        let target = written.get_mut(byte as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        *target ^= 1 << (bit % 8);
        if let Some(target) = durable.get_mut(byte as usize) {
            *target ^= 1 << (bit % 8);
        }
        Ok(())
    }

    /// The sum of all files' lengths.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().tree.used_bytes()
    }
}

#[derive(Default)]
struct State {
    tree: Tree,
    faults: Faults,
    power: Power,
    operations: u64,
    /// Counts crashes: files opened before the last one are dead.
    epoch: u64,
}

#[derive(Default, PartialEq, Eq)]
enum Power {
    #[default]
    On,
    Left(u64),
    Off,
}

impl State {
    fn check_power(&self) -> io::Result<()> {
        if self.power == Power::Off { Err(power_is_off()) } else { Ok(()) }
    }

    /// Count one changing operation. `Ok(true)`: this is the one during which the power goes.
    fn tick(&mut self) -> io::Result<bool> {
        self.check_power()?;
        self.operations += 1;
        match &mut self.power {
            Power::Left(0) => {
                self.power = Power::Off;
                Ok(true)
            }
            Power::Left(left) => {
                *left -= 1;
                Ok(false)
            }
            Power::On | Power::Off => Ok(false),
        }
    }

    /// How many bytes files may still grow by.
    fn free_bytes(&self) -> u64 {
        self.faults.capacity_bytes.map_or(u64::MAX, |capacity| capacity.saturating_sub(self.tree.used_bytes()))
    }
}

/// An operation's answer: its result, unless the power went meanwhile.
fn unless_cut(cut: bool) -> io::Result<()> {
    if cut { Err(power_is_off()) } else { Ok(()) }
}

fn power_is_off() -> io::Error {
    io::Error::other("simulated: the power is off")
}

/// What a name leads to.
#[derive(Clone)]
enum Node {
    File(Arc<Mutex<Inode>>),
    Folder,
}

/// Changes of names in one folder that happen together or not at all.
struct NameChange {
    folder: PathBuf,
    names: Vec<(PathBuf, Option<Node>)>,
}

/// All names, as written and as durable, and what lies between.
#[derive(Default)]
struct Tree {
    written: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<NameChange>,
    inodes: u64,
}

impl Tree {
    fn has_folder(&self, path: &Path) -> bool {
        is_root(path) || matches!(self.written.get(path), Some(Node::Folder))
    }

    fn file(&self, path: &Path) -> io::Result<&Arc<Mutex<Inode>>> {
        match self.written.get(path) {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn used_bytes(&self) -> u64 {
        self.written.values().map(|node| if let Node::File(inode) = node { inode.lock().length() } else { 0 }).sum()
    }

    fn change(&mut self, names: Vec<(PathBuf, Option<Node>)>) {
        let folder = parent(&names[0].0);
        for (path, node) in &names {
            set(&mut self.written, path, node);
        }
        self.pending.push(NameChange { folder, names });
    }

    fn sync_folder(&mut self, folder: &Path) {
        let (now, later) = std::mem::take(&mut self.pending).into_iter().partition(|change| change.folder == folder);
        self.pending = later;
        let now: Vec<NameChange> = now;
        for (path, node) in now.iter().flat_map(|change| &change.names) {
            set(&mut self.durable, path, node);
        }
    }

    fn after_crash(&self, seed: u64) -> Tree {
        let mut luck = Luck::new(seed);
        let mut names = self.durable.clone();
        for change in &self.pending {
            if luck.keeps() {
                for (path, node) in &change.names {
                    set(&mut names, path, node);
                }
            }
        }
        let folders: BTreeSet<PathBuf> =
            names.iter().filter(|(_, node)| matches!(node, Node::Folder)).map(|(path, _)| path.clone()).collect();
        names.retain(|path, _| path.ancestors().skip(1).all(|above| is_root(above) || folders.contains(above)));

        // By number, so that the same seed meets the files in the same order; one file may have two names.
        let mut inodes = BTreeMap::new();
        for node in names.values() {
            if let Node::File(inode) = node {
                inodes.entry(inode.lock().number).or_insert_with(|| inode.clone());
            }
        }
        let survived: BTreeMap<u64, Arc<Mutex<Inode>>> = inodes
            .into_iter()
            .map(|(number, inode)| (number, Arc::new(Mutex::new(inode.lock().after_crash(&mut luck)))))
            .collect();
        for node in names.values_mut() {
            if let Node::File(inode) = node {
                let number = inode.lock().number;
                *inode = survived[&number].clone();
            }
        }
        Tree { written: names.clone(), durable: names, pending: Vec::new(), inodes: self.inodes }
    }
}

fn set(names: &mut BTreeMap<PathBuf, Node>, path: &Path, node: &Option<Node>) {
    match node {
        Some(node) => drop(names.insert(path.to_owned(), node.clone())),
        None => drop(names.remove(path)),
    }
}

/// A file's bytes, as written and as durable, and the changes between, oldest first.
struct Inode {
    number: u64,
    written: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<DataChange>,
}

enum DataChange {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

impl Inode {
    fn length(&self) -> u64 {
        self.written.len() as u64
    }

    fn write(&mut self, bytes: &[u8], offset: u64) {
        if !bytes.is_empty() {
            put(&mut self.written, bytes, offset);
            self.pending.push(DataChange::Write { offset, bytes: bytes.to_vec() });
        }
    }

    fn set_length(&mut self, length: u64) {
        self.written.resize(length as usize, 0);
        self.pending.push(DataChange::Length(length));
    }

    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                DataChange::Write { offset, bytes } => put(&mut self.durable, &bytes, offset),
                DataChange::Length(length) => self.durable.resize(length as usize, 0),
            }
        }
    }

    fn after_crash(&self, luck: &mut Luck) -> Inode {
        let mut bytes = self.durable.clone();
        for change in &self.pending {
            match change {
                DataChange::Write { offset, bytes: written } => luck.tear(&mut bytes, written, *offset),
                DataChange::Length(length) if luck.keeps() => bytes.resize(*length as usize, 0),
                DataChange::Length(_) => {}
            }
        }
        Inode { number: self.number, written: bytes.clone(), durable: bytes, pending: Vec::new() }
    }
}

/// Overwrite, growing with zeros where needed.
fn put(file: &mut Vec<u8>, bytes: &[u8], offset: u64) {
    let (start, end) = (offset as usize, offset as usize + bytes.len());
    if file.len() < end {
        file.resize(end, 0);
    }
    file[start..end].copy_from_slice(bytes);
}

/// The seed's decisions in one crash.
struct Luck {
    random: SeededRandom,
    /// Of 100 unsynced things, how many are kept: a crash may come just after the writes, or just before they were started.
    keep_percent: u64,
}

impl Luck {
    fn new(seed: u64) -> Luck {
        let random = SeededRandom::new(seed);
        let keep_percent = [0, 10, 50, 50, 90, 100][(random.number() % 6) as usize];
        Luck { random, keep_percent }
    }

    fn keeps(&mut self) -> bool {
        self.random.number() % 100 < self.keep_percent
    }

    /// Apply an unsynced write sector by sector: each one kept, lost, or kept up to some byte.
    fn tear(&mut self, file: &mut Vec<u8>, bytes: &[u8], offset: u64) {
        let mut at = 0;
        while at < bytes.len() {
            let position = offset + at as u64;
            let length = ((SECTOR_BYTES - position % SECTOR_BYTES) as usize).min(bytes.len() - at);
            let torn = self.keep_percent < 100 && self.random.number().is_multiple_of(10);
            if torn {
                let kept = (self.random.number() as usize) % length;
                put(file, &bytes[at..at + kept], position);
            } else if self.keeps() {
                put(file, &bytes[at..at + length], position);
            } else if self.random.number().is_multiple_of(4) && file.len() < position as usize + length {
                // The new length reached the disk, the bytes did not.
                file.resize(position as usize + length, 0);
            }
            at += length;
        }
    }
}

/// `./a//b` and `a/b` are the same; `/a` and `a` too: the disk has one root.
fn normal(path: &Path) -> PathBuf {
    path.components().filter(|part| matches!(part, Component::Normal(_))).collect()
}

fn parent(path: &Path) -> PathBuf {
    path.parent().unwrap_or(Path::new("")).to_owned()
}

fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

impl SimDisk {
    fn handle(&self, state: &State, inode: &Arc<Mutex<Inode>>) -> Box<dyn DiskFile> {
        Box::new(SimFile { state: self.state.clone(), inode: inode.clone(), epoch: state.epoch })
    }
}

impl Disk for SimDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let path = normal(path);
        let mut state = self.state.lock();
        let cut = state.tick()?;
        if state.tree.written.contains_key(&path) || is_root(&path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        if !state.tree.has_folder(&parent(&path)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.tree.inodes += 1;
        let number = state.tree.inodes;
        let inode =
            Arc::new(Mutex::new(Inode { number, written: Vec::new(), durable: Vec::new(), pending: Vec::new() }));
        state.tree.change(vec![(path, Some(Node::File(inode.clone())))]);
        unless_cut(cut)?;
        Ok(self.handle(&state, &inode))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state.lock();
        state.check_power()?;
        Ok(self.handle(&state, state.tree.file(&normal(path))?))
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state.lock();
        state.check_power()?;
        let inside = normal(folder);
        if !state.tree.has_folder(&inside) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let names = state.tree.written.keys().filter(|path| parent(path) == inside);
        Ok(names.filter_map(|path| path.file_name()).map(|name| folder.join(name)).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (normal(from), normal(to));
        let mut state = self.state.lock();
        let cut = state.tick()?;
        let node = Node::File(state.tree.file(&from)?.clone());
        if state.tree.has_folder(&to) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        if !state.tree.has_folder(&parent(&to)) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if from == to {
            return unless_cut(cut);
        }
        if parent(&from) == parent(&to) {
            state.tree.change(vec![(from, None), (to, Some(node))]);
        } else {
            state.tree.change(vec![(to, Some(node))]);
            state.tree.change(vec![(from, None)]);
        }
        unless_cut(cut)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        let mut state = self.state.lock();
        let cut = state.tick()?;
        state.tree.file(&path)?;
        state.tree.change(vec![(path, None)]);
        unless_cut(cut)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        let path = normal(path);
        let mut state = self.state.lock();
        let cut = state.tick()?;
        let mut above: Vec<&Path> = path.ancestors().filter(|above| !is_root(above)).collect();
        above.reverse();
        for folder in above {
            match state.tree.written.get(folder) {
                Some(Node::Folder) => {}
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => state.tree.change(vec![(folder.to_owned(), Some(Node::Folder))]),
            }
        }
        unless_cut(cut)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let folder = normal(folder);
        let mut state = self.state.lock();
        let cut = state.tick()?;
        if !state.tree.has_folder(&folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        unless_cut(cut)?;
        state.tree.sync_folder(&folder);
        Ok(())
    }
}

/// An open file of a [`SimDisk`].
struct SimFile {
    state: Arc<Mutex<State>>,
    inode: Arc<Mutex<Inode>>,
    epoch: u64,
}

impl SimFile {
    fn check_alive(&self, state: &State) -> io::Result<()> {
        state.check_power()?;
        if self.epoch == state.epoch {
            Ok(())
        } else {
            Err(io::Error::other("simulated: this file was opened before the crash"))
        }
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.check_alive(&self.state.lock())?;
        let inode = self.inode.lock();
        let rest = inode.written.get(offset as usize..).unwrap_or(&[]);
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        self.check_alive(&state)?;
        let cut = state.tick()?;
        let free = state.free_bytes();
        let mut inode = self.inode.lock();
        let fits = inode.length().saturating_add(free).saturating_sub(offset).min(bytes.len() as u64) as usize;
        inode.write(&bytes[..fits], offset);
        unless_cut(cut)?;
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state.lock();
        self.check_alive(&state)?;
        unless_cut(state.tick()?)?;
        let mut inode = self.inode.lock();
        if std::mem::take(&mut state.faults.fail_next_sync) {
            inode.pending.clear();
            return Err(io::Error::other("simulated: the disk could not write the dirty pages"));
        }
        inode.sync();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        self.check_alive(&self.state.lock())?;
        Ok(self.inode.lock().length())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let mut state = self.state.lock();
        self.check_alive(&state)?;
        let cut = state.tick()?;
        let free = state.free_bytes();
        let mut inode = self.inode.lock();
        if length > inode.length().saturating_add(free) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        inode.set_length(length);
        unless_cut(cut)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
        let file = disk.open(Path::new(path)).ok()?;
        let mut bytes = vec![0; file.length().unwrap() as usize];
        assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
        Some(bytes)
    }

    /// A folder `d` with a durable file `d/a` of `bytes`.
    fn disk_with(bytes: &[u8]) -> (SimDisk, Box<dyn DiskFile>) {
        let disk = SimDisk::new();
        disk.create_folder(Path::new("d")).unwrap();
        disk.sync_folder(Path::new("")).unwrap();
        let file = disk.create(Path::new("d/a")).unwrap();
        file.write_at(bytes, 0).unwrap();
        file.sync().unwrap();
        disk.sync_folder(Path::new("d")).unwrap();
        (disk, file)
    }

    /// Every outcome that `seeds` crashes give, of one file.
    fn outcomes(disk: &SimDisk, path: &str, seeds: u64) -> BTreeSet<Option<Vec<u8>>> {
        (0..seeds).map(|seed| read(&disk.after_crash(seed), path)).collect()
    }

    #[test]
    fn what_was_synced_survives_every_crash() {
        let (disk, _file) = disk_with(b"synced");
        assert_eq!(outcomes(&disk, "d/a", 50), BTreeSet::from([Some(b"synced".to_vec())]));
    }

    #[test]
    fn unsynced_writes_are_kept_lost_or_torn_by_sector() {
        let (disk, file) = disk_with(&[1; 2048]);
        file.write_at(&[2; 2048], 0).unwrap();
        let outcomes = outcomes(&disk, "d/a", 300);
        assert!(outcomes.contains(&Some(vec![1; 2048])), "all lost");
        assert!(outcomes.contains(&Some(vec![2; 2048])), "all kept");
        let sector = |bytes: &[u8], n: usize, value: u8| bytes[n * 512..(n + 1) * 512].iter().all(|b| *b == value);
        let reordered = |bytes: &Vec<u8>| sector(bytes, 0, 1) && sector(bytes, 1, 2);
        assert!(outcomes.iter().flatten().any(reordered), "a later sector without an earlier one");
        let torn = |bytes: &Vec<u8>| (0..4).any(|n| !sector(bytes, n, 1) && !sector(bytes, n, 2));
        assert!(outcomes.iter().flatten().any(torn), "a sector in part");
    }

    #[test]
    fn unsynced_names_are_kept_or_lost() {
        let (disk, _) = disk_with(b"old");
        let (d, other) = (Path::new("d"), Path::new("d/b"));
        disk.rename(Path::new("d/a"), other).unwrap();
        for seed in 0..50 {
            let after = disk.after_crash(seed);
            let names = after.list(d).unwrap();
            assert_eq!(names.len(), 1, "a rename inside a folder is atomic: {names:?}");
        }
        assert_eq!(outcomes(&disk, "d/b", 50), BTreeSet::from([None, Some(b"old".to_vec())]));
        disk.sync_folder(d).unwrap();
        assert_eq!(outcomes(&disk, "d/b", 50), BTreeSet::from([Some(b"old".to_vec())]));
        disk.remove(other).unwrap();
        assert_eq!(outcomes(&disk, "d/b", 50), BTreeSet::from([None, Some(b"old".to_vec())]));
    }

    #[test]
    fn a_synced_file_in_an_unsynced_folder_may_vanish() {
        let disk = SimDisk::new();
        disk.create_folder(Path::new("x/y")).unwrap();
        let file = disk.create(Path::new("x/y/f")).unwrap();
        file.write_at(b"1", 0).unwrap();
        file.sync().unwrap();
        disk.sync_folder(Path::new("x/y")).unwrap();
        assert_eq!(outcomes(&disk, "x/y/f", 50), BTreeSet::from([None, Some(b"1".to_vec())]));
    }

    #[test]
    fn a_failed_sync_loses_its_pages_and_the_next_one_hides_it() {
        let (disk, file) = disk_with(b"old");
        file.write_at(b"new", 0).unwrap();
        disk.set_faults(Faults { fail_next_sync: true, ..Faults::default() });
        file.sync().unwrap_err();
        file.sync().unwrap();
        assert_eq!(read(&disk, "d/a").unwrap(), b"new");
        assert_eq!(outcomes(&disk, "d/a", 50), BTreeSet::from([Some(b"old".to_vec())]));
    }

    #[test]
    fn a_full_disk_takes_what_fits() {
        let (disk, file) = disk_with(b"1234");
        disk.set_faults(Faults { capacity_bytes: Some(6), ..Faults::default() });
        assert_eq!(file.write_at(b"5678", 4).unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(read(&disk, "d/a").unwrap(), b"123456");
        file.write_at(b"abcd", 0).unwrap();
        assert_eq!(file.set_length(7).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.set_length(0).unwrap();
        file.write_at(b"123456", 0).unwrap();
    }

    #[test]
    fn power_is_cut_at_the_operation_asked_for() {
        let (disk, file) = disk_with(b"old");
        disk.cut_power_after(1);
        file.write_at(b"new", 0).unwrap();
        file.sync().unwrap_err();
        assert!(disk.is_power_off());
        file.read_at(&mut [0], 0).unwrap_err();
        disk.open(Path::new("d/a")).err().expect("the power is off");
        disk.crash(1);
        file.write_at(b"x", 0).unwrap_err();
        assert!(read(&disk, "d/a").is_some());
    }

    #[test]
    fn a_flipped_bit_stays() {
        let (disk, _) = disk_with(b"a");
        disk.flip_bit(Path::new("/d/a"), 0, 1).unwrap();
        assert_eq!(outcomes(&disk, "d/a", 10), BTreeSet::from([Some(b"c".to_vec())]));
        disk.flip_bit(Path::new("d/a"), 1, 0).unwrap_err();
    }
}
