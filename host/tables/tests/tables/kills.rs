//! The real process on the real disk, killed with SIGKILL: in every phase of a compaction, and at random moments while rows
//! are appended and compacted. `kill -9` keeps the page cache: power loss is simulated in `crashes`.
//!
//! The process that is killed is this test once more, with an environment that says so. `TABLES_KILLS` says how often it is
//! killed at a random moment.

use std::collections::BTreeSet;
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use mainstay_base::{Disk, DiskFile, OsRandom, Random, RealDisk};
use mainstay_store::{Store, StoreOptions};
use mainstay_tables::{Tables, TablesOptions};

use crate::support::*;

/// The folder that the killed process works in.
const FOLDER: &str = "TABLES_KILLED_IN";
/// The operation at which it kills itself.
const AT: &str = "TABLES_KILLED_AT";
/// Rows of one append.
const EACH: i64 = 5;

/// A disk that kills its process instead of carrying out the operation that is due.
#[derive(Clone)]
struct Deadly {
    left: Arc<AtomicI64>,
}

impl Deadly {
    fn tick(&self) {
        if self.left.fetch_sub(1, Ordering::SeqCst) == 0 {
            kill(std::process::id());
            loop {
                std::thread::park();
            }
        }
    }
}

fn kill(process: u32) {
    let status = Command::new("kill").args(["-KILL", &process.to_string()]).status().expect("there is a `kill`");
    assert!(status.success());
}

impl Disk for Deadly {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        self.tick();
        Ok(Box::new(DeadlyFile { disk: self.clone(), file: RealDisk.create(path)? }))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        RealDisk.open(path)
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        RealDisk.list(folder)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.tick();
        RealDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.tick();
        RealDisk.remove(path)
    }

    fn create_folder(&self, path: &Path) -> io::Result<()> {
        RealDisk.create_folder(path)
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        self.tick();
        RealDisk.sync_folder(folder)
    }
}

struct DeadlyFile {
    disk: Deadly,
    file: Box<dyn DiskFile>,
}

impl DiskFile for DeadlyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.disk.tick();
        self.file.write_at(bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.tick();
        self.file.sync()
    }

    fn length(&self) -> io::Result<u64> {
        self.file.length()
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.disk.tick();
        self.file.set_length(length)
    }
}

fn open_in(folder: &Path, disk: Arc<dyn Disk>) -> Tables {
    let options = StoreOptions { apply_interval: Duration::from_millis(50), ..StoreOptions::new(folder.join("store")) };
    let store = Store::open(options).expect("the store opens after any kill");
    let options = TablesOptions { disk, query_threads: 1, ..TablesOptions::new(folder.join("tables")) };
    Tables::open(store, options).expect("the tables open after any kill")
}

fn child(test: &str, folder: &Path, at: Option<u64>) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("this is a program"));
    command.args([test, "--exact", "--nocapture", "--test-threads=1"]).env(FOLDER, folder);
    if let Some(at) = at {
        command.env(AT, at.to_string());
    }
    command.stdout(Stdio::piped()).spawn().expect("this program can be started again")
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

fn parquet_files(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder.join("tables/t")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|end| end == "parquet")).count()
}

fn numbered(from: i64, count: i64) -> Vec<Row> {
    (from..from + count).map(|at| Row::new(at, at * 1_000)).collect()
}

/// What is there, compacted or not, and that no file is left over.
fn check_all(folder: &Path, expect: &[Row], when: &str) {
    for _ in 0..2 {
        let tables = open_in(folder, Arc::new(RealDisk));
        let table = tables.table("t").unwrap();
        assert_eq!(all(&table), expect, "{when}");
        assert_eq!(parquet_files(folder), table.stats().unwrap().files, "{when}");
        table.compact(0).unwrap_or_else(|error| panic!("{when}: {error}"));
        assert_eq!(all(&table), expect, "{when}");
    }
}

#[test]
fn killed_in_every_phase_of_a_compaction() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        let left = Arc::new(AtomicI64::new(i64::MAX));
        let tables = open_in(Path::new(&folder), Arc::new(Deadly { left: left.clone() }));
        left.store(std::env::var(AT).unwrap().parse().unwrap(), Ordering::SeqCst);
        tables.table("t").unwrap().compact(0).unwrap();
        return;
    }
    let scratch = tempfile::tempdir().unwrap();
    let prepared = scratch.path().join("prepared");
    {
        let tables = open_in(&prepared, Arc::new(RealDisk));
        let table = tables.create("t", &spec()).unwrap();
        for part in 0..8 {
            table.append_blocking(&batch(&numbered(part * 20, 20)), None).unwrap();
            if part < 7 {
                table.compact(0).unwrap();
            }
        }
    }
    let expect = numbered(0, 160);
    let mut kills = 0;
    for at in 0.. {
        let folder = scratch.path().join(at.to_string());
        copy_folder(&prepared, &folder);
        let mut child = child("kills::killed_in_every_phase_of_a_compaction", &folder, Some(at));
        let ended = child.wait().unwrap();
        check_all(&folder, &expect, &format!("killed at operation {at}"));
        if ended.success() {
            break;
        }
        kills += 1;
        assert!(kills < 200, "the compaction does not end");
    }
    // Two files are written (create, writes, sync), the folder is synced for each, and eight are removed.
    assert!(kills >= 16, "{kills}");
}

#[test]
fn killed_at_random_while_rows_are_appended_and_compacted() {
    if let Some(folder) = std::env::var_os(FOLDER) {
        return append_until_killed(Path::new(&folder));
    }
    let kills = std::env::var("TABLES_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(8);
    let scratch = tempfile::tempdir().unwrap();
    let (data, copy) = (scratch.path().join("data"), scratch.path().join("copy"));
    let mut acknowledged = BTreeSet::new();
    for kill in 0..kills {
        let mut child = child("kills::killed_at_random_while_rows_are_appended_and_compacted", &data, None);
        let output = BufReader::new(child.stdout.take().unwrap());
        let reader = std::thread::spawn(move || output.lines().map_while(Result::ok).collect::<Vec<_>>());
        std::thread::sleep(Duration::from_millis(150 + OsRandom.number() % 500));
        assert_eq!(child.try_wait().unwrap(), None, "it ended by itself");
        child.kill().unwrap();
        child.wait().unwrap();
        let lines = reader.join().unwrap();
        acknowledged.extend(lines.iter().filter_map(|line| line.strip_prefix("durable ")?.parse::<i64>().ok()));
        // The next one starts from the kill, not from a clean end.
        copy_folder(&data, &copy);
        let tables = open_in(&copy, Arc::new(RealDisk));
        let table = tables.table("t").unwrap();
        let found = all(&table);
        let numbers: BTreeSet<i64> = found.iter().map(|row| row.number).collect();
        assert_eq!(numbers.len(), found.len(), "kill {kill}: a row is there twice");
        for first in &acknowledged {
            assert!((*first..first + EACH).all(|number| numbers.contains(&number)), "kill {kill}: {first} is missing");
        }
        assert!(numbers.iter().all(|number| numbers.contains(&(number - number.rem_euclid(EACH)))));
        assert_eq!(numbers.len() as i64 % EACH, 0, "kill {kill}: an append is there in part");
        assert_eq!(parquet_files(&copy), table.stats().unwrap().files, "kill {kill}");
        drop((table, tables));
        std::fs::remove_dir_all(&copy).unwrap();
    }
    assert!(acknowledged.len() > 10 * kills, "only {} appends", acknowledged.len());
}

fn append_until_killed(folder: &Path) {
    let tables = open_in(folder, Arc::new(RealDisk));
    let table = tables.create("t", &spec()).unwrap();
    let next = all(&table).last().map_or(0, |row| row.number + 1);
    let next = AtomicI64::new((next / 1_000 + 1) * 1_000);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let first = next.fetch_add(EACH, Ordering::SeqCst);
                    table.append_blocking(&batch(&numbered(first, EACH)), None).unwrap();
                    println!("durable {first}");
                }
            });
        }
        loop {
            table.compact(0).unwrap();
        }
    });
}
