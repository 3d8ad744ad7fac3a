//! How many durable appends a second the log makes on this disk: `append_rate [FOLDER] [SECONDS]`.
//!
//! Waiters are threads that append one record and wait for it, as committers do. Beside it: what the bare disk does, one
//! write and one `fdatasync` at a time, growing the file and overwriting it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mainstay_base::{Disk, RealDisk};
use mainstay_log::{Log, LogOptions};

const RECORD_BYTES: usize = 200;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let scratch =
        tempfile::tempdir_in(arguments.next().map_or_else(std::env::temp_dir, PathBuf::from)).expect("a folder");
    let time = Duration::from_secs_f64(arguments.next().map_or(1.0, |text| text.parse().expect("seconds")));

    println!("{RECORD_BYTES} B records, {:.1} s each", time.as_secs_f64());
    println!("bare growing file       {}", bare(scratch.path(), time, 0));
    println!("bare overwrite of zeros {}", bare(scratch.path(), time, 64 << 20));
    for allocate_bytes in [0, 1 << 20] {
        for waiters in [1, 8, 32] {
            let folder = scratch.path().join(format!("{allocate_bytes}-{waiters}"));
            let rate = measure(&folder, waiters, time, LogOptions { allocate_bytes, ..LogOptions::default() });
            println!("log, {:>4} KiB ahead, {waiters:>2} waiters {rate}", allocate_bytes / 1024);
        }
    }
}

/// One write and one sync at a time.
fn bare(folder: &Path, time: Duration, zeros: usize) -> Rate {
    let file = RealDisk.create(&folder.join(format!("bare-{zeros}"))).expect("a file");
    file.write_at(&vec![0; zeros], 0).expect("zeros");
    file.sync().expect("synced");
    let start = Instant::now();
    let mut took = Vec::new();
    while start.elapsed() < time {
        let one = Instant::now();
        file.write_at(&[7; RECORD_BYTES], (took.len() * RECORD_BYTES) as u64).expect("written");
        file.sync().expect("synced");
        took.push(one.elapsed());
    }
    Rate::of(took, start.elapsed())
}

fn measure(folder: &Path, waiters: usize, time: Duration, options: LogOptions) -> Rate {
    let opened = Log::open(Arc::new(RealDisk), folder, options).expect("an empty log");
    let log = Arc::new(opened.log);
    let start = Instant::now();
    let wait = || {
        let log = log.clone();
        std::thread::spawn(move || {
            let mut took = Vec::new();
            while start.elapsed() < time {
                let one = Instant::now();
                log.append_blocking(vec![7; RECORD_BYTES]).expect("durable");
                took.push(one.elapsed());
            }
            took
        })
    };
    let threads: Vec<_> = (0..waiters).map(|_| wait()).collect();
    let took: Vec<Duration> = threads.into_iter().flat_map(|thread| thread.join().expect("no panic")).collect();
    let rate = Rate::of(took, start.elapsed());
    log.close().expect("closed");
    rate
}

struct Rate {
    per_second: f64,
    median_us: u128,
    p99_us: u128,
}

impl Rate {
    fn of(mut took: Vec<Duration>, elapsed: Duration) -> Rate {
        took.sort();
        let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize].as_micros();
        Rate { per_second: took.len() as f64 / elapsed.as_secs_f64(), median_us: at(0.5), p99_us: at(0.99) }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Rate { per_second, median_us, p99_us } = self;
        write!(f, "{per_second:>8.0}/s, median {median_us:>4} µs, p99 {p99_us:>5} µs")
    }
}
