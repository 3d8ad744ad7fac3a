//! The process that is killed: `crash-writer FOLDER ENGINE`.
//!
//! Opens the store and lets every thread go on with its steps. Each acknowledged step is a line `thread number sequence` on
//! standard output, written after the store has answered. When standard input ends, it closes the store and exits.

use std::io::{Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mainstay_base::Result;
use mainstay_store::{EngineKind, Store};
use mainstay_tests::crash_workload as workload;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, engine] = &arguments[..] else { panic!("usage: crash-writer FOLDER ENGINE") };
    let engines = [EngineKind::Sled, EngineKind::Redb];
    let engine = engines.into_iter().find(|kind| kind.name() == engine).expect("an engine that lasts");
    let store = Store::open(workload::options(Path::new(folder), engine)).expect("the store opens after any crash");

    let stop = Arc::new(AtomicBool::new(false));
    let threads: Vec<_> = (0..workload::THREADS)
        .map(|thread| {
            let (store, stop) = (store.clone(), stop.clone());
            std::thread::spawn(move || write(&store, thread, &stop))
        })
        .collect();
    std::io::stdin().read_to_end(&mut Vec::new()).expect("standard input can be read");
    stop.store(true, Ordering::Relaxed);
    for thread in threads {
        thread.join().expect("no panic").expect("no commit fails");
    }
    store.close().expect("the store closes");
}

fn write(store: &Store, thread: u64, stop: &AtomicBool) -> Result<()> {
    let mut number = workload::steps_taken(store, thread)?;
    while !stop.load(Ordering::Relaxed) {
        number += 1;
        let receipt = store.commit_blocking(workload::step(store, thread, number)?)?;
        assert_eq!(receipt.counters[0], number as i64);
        let line = format!("{thread} {number} {}\n", receipt.sequence);
        // One write a line: a process that dies leaves no half of one, or the test ignores it.
        std::io::stdout().lock().write_all(line.as_bytes()).expect("the test reads until the end");
    }
    Ok(())
}
