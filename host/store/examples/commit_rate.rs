//! How fast the store is on this machine, for each engine behind the same log: durable commits a second, reads, scans,
//! reopening. Run it with `cargo run -p mainstay-store --example commit_rate [folder]`; nothing else should run beside it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mainstay_store::{EngineKind, FieldWrite, KeyRange, ScanOptions, Space, Store, StoreOptions, Value};

const VALUE_BYTES: usize = 250;
/// Set for the process that commits and dies.
const DIE: &str = "COMMIT_RATE_DIE";
/// How many commits it makes.
const LAST_COMMITS: u64 = 50_000;
const MEASURE: Duration = Duration::from_secs(3);

fn main() {
    if let Some(engine) = std::env::var_os(DIE) {
        let kinds = [EngineKind::Memory, EngineKind::Sled, EngineKind::Redb];
        let engine = kinds.into_iter().find(|kind| engine == kind.name()).expect("a known engine");
        commit_and_die(engine, &PathBuf::from(std::env::args().nth(1).expect("a folder")));
    }
    let folder = std::env::args().nth(1).map_or_else(std::env::temp_dir, PathBuf::from);
    for engine in [EngineKind::Memory, EngineKind::Sled, EngineKind::Redb] {
        settle(&folder);
        measure(engine, &folder.join(format!("commit-rate-{}", engine.name())));
    }
}

/// Wait until the disk has done what was left over from before, and say what a sync costs now.
fn settle(folder: &Path) {
    let mut micros = f64::MAX;
    for _ in 0..20 {
        rustix::fs::sync();
        std::thread::sleep(Duration::from_millis(500));
        let now = sync_micros(folder);
        if now < 200.0 {
            micros = now;
            break;
        }
        micros = micros.min(now);
    }
    println!("sync alone: {micros:.0} µs");
}

/// What one append of 300 bytes and its fdatasync cost without any of our code.
fn sync_micros(folder: &Path) -> f64 {
    use std::io::{Seek, SeekFrom, Write};
    let path = folder.join("commit-rate-sync");
    let mut file = std::fs::File::create(&path).expect("a file");
    file.write_all(&vec![0; 1 << 20]).and_then(|()| file.sync_all()).expect("written");
    file.seek(SeekFrom::Start(0)).expect("sought");
    let count = 500;
    let start = Instant::now();
    for _ in 0..count {
        file.write_all(&[1; 300]).and_then(|()| file.sync_data()).expect("synced");
    }
    let micros = start.elapsed().as_secs_f64() * 1e6 / f64::from(count);
    std::fs::remove_file(path).expect("removed");
    micros
}

fn measure(engine: EngineKind, folder: &Path) {
    let _ = std::fs::remove_dir_all(folder);
    let options = StoreOptions { engine, ..StoreOptions::new(folder) };
    let store = Store::open(options.clone()).expect("opened");
    println!("{}", engine.name());
    let next = AtomicU64::new(0);
    for committers in [1, 8, 32] {
        let (rate, p50, p99) = commits(&store, committers, &next, false);
        println!("  {committers:>2} committers: {rate:>7.0} commits/s, p50 {p50:>5.0} µs, p99 {p99:>5.0} µs");
    }
    let (rate, ..) = commits(&store, 8, &next, true);
    println!("   8 committers with 10 index fields: {rate:>7.0} commits/s");
    println!("  as {} async tasks on one thread: {:>7.0} commits/s", 64, async_commits(&store, 64, &next));
    let count = next.load(Ordering::Relaxed);

    gets(&store, count, "memtable and engine");
    let start = Instant::now();
    store.checkpoint().expect("checkpointed");
    println!("  checkpoint: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    gets(&store, count, "engine");
    scan(&store, count);

    drop(store);
    reopen(&options, "after a clean close");
    let program = std::env::current_exe().expect("known");
    let status = std::process::Command::new(program).arg(folder).env(DIE, engine.name()).status().expect("started");
    assert!(!status.success());
    reopen(&options, &format!("after {LAST_COMMITS} more commits and an abort"));
    println!("  {count} commits, {} MiB in the folder", folder_bytes(folder) >> 20);
    let _ = std::fs::remove_dir_all(folder);
}

fn space() -> Space {
    Space::plugin("bench")
}

/// Keys that arrive in no order.
fn key(number: u64) -> [u8; 24] {
    let mut key = [b'k'; 24];
    key[..8].copy_from_slice(&number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes());
    key
}

fn commits(store: &Store, committers: usize, next: &AtomicU64, with_fields: bool) -> (f64, f64, f64) {
    let end = Instant::now() + MEASURE;
    let start = Instant::now();
    let mut times: Vec<f64> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..committers)
            .map(|_| {
                scope.spawn(move || {
                    let mut times = Vec::new();
                    while Instant::now() < end {
                        let begun = Instant::now();
                        let tx = transaction(store, next.fetch_add(1, Ordering::Relaxed), with_fields);
                        store.commit_blocking(tx).expect("committed");
                        times.push(begun.elapsed().as_secs_f64() * 1e6);
                    }
                    times
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect()
    });
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort_by(f64::total_cmp);
    (rate, times[times.len() / 2], times[times.len() * 99 / 100])
}

/// A guard, a value of 250 bytes, and perhaps fields of an index document.
fn transaction(store: &Store, number: u64, with_fields: bool) -> mainstay_store::Transaction {
    let view = store.view();
    let mut tx = store.begin(&view);
    let key = key(number);
    tx.expect_unchanged(&space(), &key).expect("small");
    tx.put(&space(), &key, vec![b'v'; VALUE_BYTES]).expect("small");
    if with_fields {
        let fields = (0..10).map(|field| FieldWrite {
            name: format!("metric/{field}"),
            value: Some(Value::Real(number as f64)),
            rank: Some((number as i64, 0)),
        });
        tx.set_fields(&space(), "runs", &format!("run-{}", number % 1_000), fields.collect()).expect("small");
    }
    tx
}

fn async_commits(store: &Store, tasks: u64, next: &AtomicU64) -> f64 {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let end = Instant::now() + MEASURE;
    let count = AtomicU64::new(0);
    runtime.block_on(async {
        let commits = (0..tasks).map(|_| async {
            while Instant::now() < end {
                store.commit(transaction(store, next.fetch_add(1, Ordering::Relaxed), false)).await.expect("committed");
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
        futures::future::join_all(commits).await;
    });
    count.load(Ordering::Relaxed) as f64 / MEASURE.as_secs_f64()
}

fn gets(store: &Store, count: u64, place: &str) {
    let view = store.view();
    let reads = 100_000;
    let start = Instant::now();
    for number in 0..reads {
        let number = number * 7_919 % count;
        assert!(view.get(&space(), &key(number)).expect("readable").is_some());
    }
    println!("  get from {place}: {:.2} µs", start.elapsed().as_secs_f64() * 1e6 / reads as f64);
}

fn scan(store: &Store, count: u64) {
    for (name, limit) in [("pages of 100,000", 100_000), ("pages of 100", 100)] {
        let view = store.view();
        let mut options = ScanOptions { limit, ..ScanOptions::default() };
        let start = Instant::now();
        let mut entries = 0;
        loop {
            let page = view.scan(&space(), &[KeyRange::default()], &options).expect("scannable");
            entries += u64::from(page.count);
            match page.next {
                Some(next) => options.after = Some(next),
                None => break,
            }
        }
        assert_eq!(entries, count);
        println!("  scan, {name}: {:.2} M entries/s", entries as f64 / start.elapsed().as_secs_f64() / 1e6);
    }
}

/// Commit, then end without closing anything.
fn commit_and_die(engine: EngineKind, folder: &Path) -> ! {
    let store = Store::open(StoreOptions { engine, ..StoreOptions::new(folder) }).expect("opened");
    let commits = (0..LAST_COMMITS).map(|number| store.commit(transaction(&store, 1 << 40 | number, true)));
    for result in futures::executor::block_on(futures::future::join_all(commits)) {
        result.expect("committed");
    }
    std::process::abort();
}

fn reopen(options: &StoreOptions, when: &str) {
    let start = Instant::now();
    let store = Store::open(options.clone()).expect("opened");
    println!("  reopened {when}: {:.0} ms", start.elapsed().as_secs_f64() * 1e3);
    drop(store);
}

fn folder_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("listed").flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
            Ok(data) => data.len(),
            Err(_) => 0,
        })
        .sum()
}
