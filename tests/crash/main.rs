//! Kills the real process with SIGKILL at random moments, again and again on the same data folder, and proves each time
//! that everything acknowledged is there and nothing half-written is.
//!
//! The killed process is `crash-writer`. What it left is copied and opened here, so that the next process starts from the
//! crash and not from a clean close. `kill -9` keeps the page cache: power loss is simulated in the log's own tests.
//! `MAINSTAY_KILLS` says how often each engine's process is killed (20 unless told).

use std::collections::{BTreeMap, BTreeSet};
use std::io::BufRead;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use mainstay_base::{OsRandom, Random};
use mainstay_store::index::unpack_documents;
use mainstay_store::{EngineKind, KeyRange, Query, ScanOptions, Store, Value};
use mainstay_tests::crash_workload::{self as workload, Document, INDEX, Model, THREADS};

#[test]
fn sled_loses_nothing_when_killed() {
    kill_again_and_again(EngineKind::Sled);
}

#[test]
fn redb_loses_nothing_when_killed() {
    kill_again_and_again(EngineKind::Redb);
}

fn kill_again_and_again(engine: EngineKind) {
    let kills: u32 = std::env::var("MAINSTAY_KILLS").map_or(20, |text| text.parse().expect("a number"));
    let scratch = tempfile::tempdir().expect("a folder");
    let mut model = Model::default();
    for kill in 1..=kills {
        if let Err(error) = kill_once(scratch.path(), engine, &mut model) {
            let kept = scratch.keep();
            panic!("{} engine, kill {kill}: {error:#}; the data is kept in `{}`", engine.name(), kept.display());
        }
    }
    let steps: u64 = (0..THREADS).map(|thread| model.steps(thread)).sum();
    println!("{} engine: {steps} steps survived {kills} kills", engine.name());
    // Or the kills came before anything had happened, and nothing was tested.
    assert!(steps > u64::from(kills) * 10, "only {steps} steps");
}

/// Held while a process is started, and while a store is closed and opened again: a process that is just being started
/// still has this one's files open, their locks included.
static STARTING: Mutex<()> = Mutex::new(());

/// A step that was answered.
#[derive(Clone, Copy)]
struct Acknowledged {
    thread: u64,
    number: u64,
    sequence: u64,
}

fn kill_once(scratch: &Path, engine: EngineKind, model: &mut Model) -> Result<()> {
    let (data, copy) = (scratch.join("data"), scratch.join("copy"));
    let acknowledged = run_and_kill(&data, engine)?;
    if !data.exists() {
        ensure!(acknowledged.is_empty(), "steps were acknowledged before there was a folder");
        return Ok(());
    }
    copy_folder(&data, &copy)?;
    let store = Store::open(workload::options(&copy, engine)).context("open what the killed process left")?;
    check(&store, model, &acknowledged)?;
    // Closed in order it holds the same.
    let store = {
        let _no_start = STARTING.lock();
        store.close()?;
        drop(store);
        Store::open(workload::options(&copy, engine)).context("open again after closing")?
    };
    check(&store, model, &[])?;
    drop(store);
    Ok(std::fs::remove_dir_all(&copy)?)
}

/// Start the process, kill it at some moment, and answer what it had said until then.
fn run_and_kill(data: &Path, engine: EngineKind) -> Result<Vec<Acknowledged>> {
    let mut child = {
        let _no_other = STARTING.lock();
        let mut command = Command::new(env!("CARGO_BIN_EXE_crash-writer"));
        command.arg(data).arg(engine.name()).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?
    };
    let output = child.stdout.take().context("standard output is piped")?;
    let reader = std::thread::spawn(move || std::io::BufReader::new(output).lines().collect::<Result<Vec<_>, _>>());
    wait_and_kill(&mut child)?;
    let lines = reader.join().expect("no panic")?;
    Ok(lines.iter().filter_map(|line| parse(line)).collect())
}

/// One in four dies while it starts, one in four while it closes, the others at work.
fn wait_and_kill(child: &mut Child) -> Result<()> {
    let sleep = |from_ms: u64, to_ms: u64| {
        std::thread::sleep(Duration::from_millis(from_ms + OsRandom.number() % (to_ms - from_ms)));
    };
    match OsRandom.number() % 4 {
        0 => sleep(1, 60),
        1 => {
            sleep(100, 400);
            drop(child.stdin.take());
            sleep(1, 40);
        }
        _ => sleep(100, 800),
    }
    if let Some(status) = child.try_wait()? {
        ensure!(status.success(), "the process failed before it was killed: {status}");
    }
    child.kill()?;
    child.wait()?;
    Ok(())
}

/// `None` for a line that the death cut short.
fn parse(line: &str) -> Option<Acknowledged> {
    let numbers: Vec<u64> = line.split(' ').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [thread, number, sequence] = numbers[..] else { return None };
    Some(Acknowledged { thread, number, sequence })
}

/// Bring the model up to what the store says it has, and hold everything else against it.
fn check(store: &Store, model: &mut Model, acknowledged: &[Acknowledged]) -> Result<()> {
    for thread in 0..THREADS {
        let answered = acknowledged.iter().filter(|step| step.thread == thread).map(|step| step.number).max();
        let least = answered.unwrap_or(0).max(model.steps(thread));
        let found = workload::steps_taken(store, thread)?;
        // A thread waits for each step, so at most one was under way.
        ensure!(
            (least..=least + 1).contains(&found),
            "thread {thread} has {found} steps, but {least} were acknowledged"
        );
        while model.steps(thread) < found {
            model.advance(thread);
        }
    }
    let (keys, histories) = read_keys(store)?;
    compare("key", &model.keys(), &keys)?;
    check_histories(&histories, model, acknowledged)?;
    compare("document", &model.documents(), &read_documents(store)?)
}

/// Plain keys with their values.
type Keys = BTreeMap<Vec<u8>, Vec<u8>>;
/// The fragments of one history, by sequence.
type History = Vec<(u64, Vec<u8>)>;

/// Everything in the space: plain keys, and each thread's history.
fn read_keys(store: &Store) -> Result<(Keys, Vec<History>)> {
    let view = store.view();
    let mut keys = Keys::new();
    let mut histories = vec![History::new(); THREADS as usize];
    let mut options = ScanOptions::default();
    loop {
        let page = view.scan(&workload::space(), &[KeyRange::prefix(b"")], &options)?;
        for (key, value) in page.iter() {
            let found =
                (0..THREADS).find_map(|thread| Some((thread, key.strip_prefix(&workload::history_key(thread)[..])?)));
            let Some((thread, suffix)) = found else {
                keys.insert(key.to_vec(), value.to_vec());
                continue;
            };
            let sequence = suffix.get(..8).context("a fragment's key ends in its sequence")?;
            histories[thread as usize].push((u64::from_be_bytes(sequence.try_into()?), value.to_vec()));
        }
        let Some(next) = page.next else { return Ok((keys, histories)) };
        options.after = Some(next);
    }
}

/// Fragments are whole, in order, and carry the sequence that was acknowledged.
fn check_histories(found: &[History], model: &Model, acknowledged: &[Acknowledged]) -> Result<()> {
    let answered: BTreeMap<(u64, u64), u64> =
        acknowledged.iter().map(|step| ((step.thread, step.number), step.sequence)).collect();
    let mut sequences = BTreeSet::new();
    for (thread, found) in (0..).zip(found) {
        let expect = model.history(thread);
        let values = |history: &History| history.iter().map(|(_, value)| value.clone()).collect::<Vec<_>>();
        ensure!(values(found) == values(&expect), "the history of thread {thread} differs");
        for ((number, _), (sequence, _)) in expect.iter().zip(found) {
            let answered = answered.get(&(thread, *number)).unwrap_or(sequence);
            ensure!(answered == sequence, "step {number} of thread {thread} was acknowledged as another commit");
            ensure!(sequences.insert(*sequence), "commit {sequence} is there twice");
        }
    }
    Ok(())
}

fn read_documents(store: &Store) -> Result<BTreeMap<String, Document>> {
    let query = Query { limit: 10_000, ..Query::default() };
    let selection = store.select(&workload::space(), INDEX, &query)?;
    ensure!(selection.next.is_none(), "one page holds all documents");
    unpack_documents(&selection.documents)?.into_iter().map(|found| Ok((found.id.clone(), document(found)?))).collect()
}

fn document(found: mainstay_store::index::Unpacked) -> Result<Document> {
    let mut document = Document { number: 0, owner: String::new(), best: (0, 0) };
    for field in found.fields {
        match (&field.name[..], field.value) {
            ("number", Some(Value::Integer(number))) => document.number = number,
            ("owner", Some(Value::Text(owner))) => document.owner = owner,
            ("best", Some(Value::Integer(best))) => document.best = (workload::rank(best as u64), best),
            other => bail!("document `{}` has {other:?}", found.id),
        }
    }
    Ok(document)
}

fn compare<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    what: &str,
    expect: &BTreeMap<K, V>,
    found: &BTreeMap<K, V>,
) -> Result<()> {
    for (key, value) in expect {
        match found.get(key) {
            None => bail!("{what} {key:?} is missing"),
            Some(other) => ensure!(other == value, "{what} {key:?} holds {other:?}, not {value:?}"),
        }
    }
    match found.keys().find(|key| !expect.contains_key(*key)) {
        Some(key) => bail!("{what} {key:?} should not be there"),
        None => Ok(()),
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
