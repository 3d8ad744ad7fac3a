//! What the killed process does, as a function of thread and number, and what must be there afterwards.
//!
//! Shared by the writer, which does it, and the test, which proves it: step `number` of thread `thread` is always the same
//! transaction, so the state after `n` steps of each thread is known without having seen the process. Every step touches
//! each kind of operation: a pair of keys written together, a pair removed, counters of its own and of everybody, a
//! history that is cut now and then, an index document beside a key that must agree with it.

use std::collections::BTreeMap;
use std::time::Duration;

use mainstay_base::Result;
use mainstay_log::LogOptions;
use mainstay_store::{EngineKind, FieldWrite, KeyRange, Space, Store, StoreOptions, Transaction, Value};

/// How many threads write.
pub const THREADS: u64 = 6;
/// The index of the documents.
pub const INDEX: &str = "documents";
/// The counter that every thread adds to.
pub const TOTAL: &[u8] = b"total";

/// How many steps a pair lives.
const PAIR_STEPS: u64 = 50;
/// How many steps a history grows before it is cut.
const HISTORY_STEPS: u64 = 100;
/// How many documents a thread has.
const DOCUMENTS: u64 = 20;

/// Where everything is.
pub fn space() -> Space {
    Space::plugin("crash")
}

/// Bounds so small that the applier, checkpoints and new segments are always at work when the process dies.
pub fn options(folder: &std::path::Path, engine: EngineKind) -> StoreOptions {
    StoreOptions {
        engine,
        log: LogOptions { segment_bytes: 256 << 10, allocate_bytes: 32 << 10, ..LogOptions::default() },
        memtable_bytes_max: 1 << 20,
        memtable_bytes_apply: 64 << 10,
        apply_interval: Duration::from_millis(15),
        checkpoint_bytes: 256 << 10,
        checkpoint_interval: Duration::from_millis(60),
        ..StoreOptions::new(folder)
    }
}

/// How many steps a thread has taken, according to the store.
pub fn steps_taken(store: &Store, thread: u64) -> Result<u64> {
    let counter = store.view().get(&space(), &steps_key(thread))?;
    Ok(counter.map_or(0, |bytes| u64::from_le_bytes(bytes[..].try_into().expect("a counter has eight bytes"))))
}

/// The transaction of one step.
pub fn step(store: &Store, thread: u64, number: u64) -> Result<Transaction> {
    let space = &space();
    let mut tx = store.begin(&store.view());
    let [left, right] = pair_keys(thread, number);
    let value = value(thread, number);
    tx.expect_absent(space, &left)?;
    tx.expect_unchanged(space, &steps_key(thread))?;
    tx.put(space, &left, value.clone())?;
    tx.add(space, &steps_key(thread), 1)?;
    tx.add(space, TOTAL, amount(number))?;
    tx.put(space, &right, value.clone())?;
    if let Some(old) = number.checked_sub(PAIR_STEPS).filter(|old| *old > 0) {
        for key in pair_keys(thread, old) {
            tx.expect_present(space, &key)?;
            tx.delete(space, &key)?;
        }
        tx.add(space, TOTAL, -amount(old))?;
    }
    if number.is_multiple_of(HISTORY_STEPS) {
        tx.delete_range(space, &KeyRange::prefix(&history_key(thread)))?;
    }
    tx.append(space, &history_key(thread), value)?;
    let document = document(thread, number);
    if removes_document(number) {
        tx.remove_document(space, INDEX, &document)?;
        tx.delete(space, document.as_bytes())?;
    } else {
        let (rank, best) = ranked(number);
        let fields = vec![
            FieldWrite { name: "number".into(), value: Some(Value::Integer(number as i64)), rank: None },
            FieldWrite { name: "owner".into(), value: Some(Value::Text(format!("thread {thread}"))), rank: None },
            FieldWrite { name: "best".into(), value: Some(Value::Integer(best)), rank: Some((rank, 0)) },
        ];
        tx.set_fields(space, INDEX, &document, fields)?;
        tx.put(space, document.as_bytes(), number.to_le_bytes().to_vec())?;
    }
    Ok(tx)
}

/// What one thread must have left.
#[derive(Default)]
struct Trace {
    steps: u64,
    pairs: BTreeMap<u64, Vec<u8>>,
    /// Numbers of the steps whose fragments are there.
    history: Vec<u64>,
    documents: BTreeMap<String, Document>,
}

/// What an index document must hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The step that wrote it last.
    pub number: i64,
    /// Whose it is.
    pub owner: String,
    /// The value with the greatest rank since it appeared.
    pub best: (i64, i64),
}

/// What all threads must have left.
pub struct Model {
    threads: Vec<Trace>,
}

impl Default for Model {
    fn default() -> Model {
        Model { threads: (0..THREADS).map(|_| Trace::default()).collect() }
    }
}

impl Model {
    /// How many steps of a thread it knows of.
    pub fn steps(&self, thread: u64) -> u64 {
        self.threads[thread as usize].steps
    }

    /// The thread has taken one more step.
    pub fn advance(&mut self, thread: u64) {
        let trace = &mut self.threads[thread as usize];
        trace.steps += 1;
        let number = trace.steps;
        trace.pairs.insert(number, value(thread, number));
        trace.pairs.remove(&number.saturating_sub(PAIR_STEPS));
        if number.is_multiple_of(HISTORY_STEPS) {
            trace.history.clear();
        }
        trace.history.push(number);
        let id = document(thread, number);
        if removes_document(number) {
            trace.documents.remove(&id);
            return;
        }
        let best = trace.documents.get(&id).map_or((i64::MIN, 0), |before| before.best).max(ranked(number));
        let document = Document { number: number as i64, owner: format!("thread {thread}"), best };
        trace.documents.insert(id, document);
    }

    /// Every key but those of histories, with its value.
    pub fn keys(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let mut keys = BTreeMap::new();
        let mut total = 0;
        for (thread, trace) in (0..).zip(&self.threads) {
            for (number, value) in &trace.pairs {
                total += amount(*number);
                keys.extend(pair_keys(thread, *number).map(|key| (key, value.clone())));
            }
            let documents = trace.documents.iter();
            keys.extend(
                documents.map(|(id, document)| (id.as_bytes().to_vec(), document.number.to_le_bytes().to_vec())),
            );
            if trace.steps > 0 {
                keys.insert(steps_key(thread), trace.steps.to_le_bytes().to_vec());
            }
        }
        if self.threads.iter().any(|trace| trace.steps > 0) {
            keys.insert(TOTAL.to_vec(), total.to_le_bytes().to_vec());
        }
        keys
    }

    /// The fragments of a thread's history: which step, which value.
    pub fn history(&self, thread: u64) -> Vec<(u64, Vec<u8>)> {
        let numbers = self.threads[thread as usize].history.iter();
        numbers.map(|number| (*number, value(thread, *number))).collect()
    }

    /// Every document of the index.
    pub fn documents(&self) -> BTreeMap<String, Document> {
        self.threads.iter().flat_map(|trace| trace.documents.clone()).collect()
    }
}

/// Under which key a thread's history is appended.
pub fn history_key(thread: u64) -> Vec<u8> {
    format!("history/{thread}/").into_bytes()
}

fn steps_key(thread: u64) -> Vec<u8> {
    format!("steps/{thread}").into_bytes()
}

fn pair_keys(thread: u64, number: u64) -> [Vec<u8>; 2] {
    [format!("left/{thread}/{number:08}").into_bytes(), format!("right/{thread}/{number:08}").into_bytes()]
}

/// Mostly short, sometimes many pages long.
fn value(thread: u64, number: u64) -> Vec<u8> {
    let length = if number.is_multiple_of(37) { 9_000 } else { 10 + number % 90 };
    let mut value = format!("{thread}/{number}/").into_bytes();
    value.resize(value.len() + length as usize, (thread * 31 + number) as u8);
    value
}

fn amount(number: u64) -> i64 {
    (number % 7) as i64 + 1
}

fn document(thread: u64, number: u64) -> String {
    format!("document-{thread}-{}", number % DOCUMENTS)
}

fn removes_document(number: u64) -> bool {
    number % DOCUMENTS == 13 && (number / DOCUMENTS).is_multiple_of(3)
}

/// Rank and value of a step. Ranks do not rise with the number, so the order of writes does not decide.
fn ranked(number: u64) -> (i64, i64) {
    (rank(number), number as i64)
}

/// The rank of what a step writes.
pub fn rank(number: u64) -> i64 {
    (number * 7919 % 101) as i64
}
