//! From durable to visible, and the answer to whoever committed.
//!
//! Owns what happens after the log has spoken: the commit's index writes are applied, it becomes visible, its committer is
//! told; or it failed, and its writes leave the memtable. In the order of sequences, always. Separate from committing,
//! because this side runs on the log's thread, where every microsecond delays the next group: when a long question to the
//! index holds its lock, the commits are queued for a thread of this module's own, and the log goes on syncing.
//!
//! Bounded: the queue holds no more than the commits that wait for an answer. Nothing here fails. A commit becomes visible
//! inside the index's lock, so who has found a document there finds its keys in a view taken afterwards.

use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use mainstay_base::{Error, ErrorKind, Result};
use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use crate::apply::Moving;
use crate::index::{FieldWrite, IndexSet};
use crate::space::{RowName, Space};
use crate::store::Inner;

/// A write to the index.
pub(crate) struct IndexWrite {
    pub row: Arc<RowName>,
    /// None removes the document.
    pub fields: Option<Vec<FieldWrite>>,
}

pub(crate) fn apply_to_index(columns: &mut IndexSet<Space>, writes: &[IndexWrite]) {
    for IndexWrite { row, fields } in writes {
        match fields {
            Some(fields) => columns.apply_set(&row.space, &row.index, &row.document, fields),
            None => columns.apply_remove(&row.space, &row.index, &row.document),
        }
    }
}

/// A commit between its append and its answer. Filled by the committer, after the log has said which sequence it is.
#[derive(Default)]
pub(crate) struct Slot {
    filled: OnceLock<(Arc<Moving>, Vec<IndexWrite>)>,
}

impl Slot {
    /// The commit's writes are in the memtable.
    pub fn fill(&self, moving: Arc<Moving>, index: Vec<IndexWrite>) {
        let _ = self.filled.set((moving, index));
    }
}

/// Tells the committer, if it still waits.
pub(crate) type Answer = oneshot::Sender<Result<u64>>;

/// A durable commit that is not yet visible.
struct Durable {
    sequence: u64,
    slot: Arc<Slot>,
    answer: Answer,
}

impl Durable {
    fn index(&self) -> &[IndexWrite] {
        self.slot.filled.get().map_or(&[], |(_, index)| index)
    }

    /// Under the index's lock.
    fn show(&self, inner: &Inner, columns: &mut IndexSet<Space>) {
        apply_to_index(columns, self.index());
        inner.make_visible(self.sequence);
    }

    fn answer(self) {
        // A committer that does not wait any more is none of our business.
        let _ = self.answer.send(Ok(self.sequence));
    }
}

/// The queue before the index's lock.
#[derive(Default)]
pub(crate) struct Publisher {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<Durable>,
    /// The thread is at work on commits that it has taken.
    is_busy: bool,
    stop: bool,
}

impl Publisher {
    pub fn start(inner: &Arc<Inner>) -> Result<JoinHandle<()>> {
        let inner = inner.clone();
        let thread = std::thread::Builder::new().name("store-publisher".into()).spawn(move || run(&inner));
        thread.map_err(|error| Error::unavailable(format!("cannot start the store's publisher: {error}")))
    }

    /// Finish what is queued, then end the thread.
    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
    }

    /// What is queued, once there is something; none when it is time to end.
    fn take(&self) -> Option<Vec<Durable>> {
        let mut state = self.state.lock();
        while state.waiting.is_empty() {
            state.is_busy = false;
            if state.stop {
                return None;
            }
            self.changed.wait(&mut state);
        }
        state.is_busy = true;
        Some(std::mem::take(&mut state.waiting))
    }
}

fn run(inner: &Inner) {
    while let Some(batch) = inner.publisher.take() {
        let mut columns = inner.index.write();
        batch.iter().for_each(|durable| durable.show(inner, &mut columns));
        drop(columns);
        batch.into_iter().for_each(Durable::answer);
    }
}

/// Called by the log, in the order of sequences: the record is durable, or it is not in the log.
pub(crate) fn complete(inner: &Arc<Inner>, slot: Arc<Slot>, answer: Answer, result: Result<u64>) {
    if slot.filled.get().is_none() {
        // The committer still holds the lock under which it fills the slot.
        drop(inner.commit.lock());
    }
    let Some((moving, _)) = slot.filled.get() else {
        tracing::error!("a commit was answered by the log before it was prepared; its committer panicked");
        return;
    };
    match result {
        Ok(sequence) => publish(inner, Durable { sequence, slot, answer }),
        Err(error) => {
            let commit = inner.commit.lock();
            inner.memtable.remove_commit(&moving.keys, moving.sequence);
            inner.queue.lock().retain(|other| other.sequence != moving.sequence);
            drop(commit);
            inner.settled.notify_waiters();
            let _ = answer.send(Err(failed(error)));
        }
    }
}

/// Show a commit at once when nothing is before it and nobody reads the index; else queue it.
fn publish(inner: &Inner, durable: Durable) {
    // Held until it is visible, or the thread could show a later one first.
    let mut state = inner.publisher.state.lock();
    let is_next = state.waiting.is_empty() && !state.is_busy;
    if is_next && durable.index().is_empty() {
        inner.make_visible(durable.sequence);
    } else if let (true, Some(mut columns)) = (is_next, inner.index.try_write()) {
        durable.show(inner, &mut columns);
    } else {
        state.waiting.push(durable);
        drop(state);
        inner.publisher.changed.notify_one();
        return;
    }
    drop(state);
    durable.answer();
}

fn failed(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Exhausted => error.context("nothing was committed"),
        _ => error.context("the commit failed"),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use crate::{FieldWrite, Query, Space, Store, Transaction, Value};

    fn transaction(store: &Store, key: &str, document: Option<&str>) -> Transaction {
        let space = Space::plugin("t");
        let mut tx = store.begin(&store.view());
        tx.put(&space, key.as_bytes(), "v").unwrap();
        if let Some(document) = document {
            let field = FieldWrite { name: "f".into(), value: Some(Value::Integer(1)), rank: None };
            tx.set_fields(&space, "i", document, vec![field]).unwrap();
        }
        tx
    }

    #[test]
    fn a_long_question_delays_answers_and_changes_no_order() {
        let store = Store::in_memory();
        let question = store.inner().index.read();
        let before = store.commit(transaction(&store, "a", None)).now_or_never();
        assert_eq!(before.unwrap().unwrap().sequence, 1, "it does not touch the index, and nothing is before it");
        let mut with_document = Box::pin(store.commit(transaction(&store, "b", Some("d"))));
        let mut behind = Box::pin(store.commit(transaction(&store, "c", None)));
        assert!(with_document.as_mut().now_or_never().is_none());
        assert!(behind.as_mut().now_or_never().is_none(), "it may not be seen before what it follows");
        assert_eq!(store.sequence(), 1);
        drop(question);
        assert_eq!(futures::executor::block_on(with_document).unwrap().sequence, 2);
        assert_eq!(futures::executor::block_on(behind).unwrap().sequence, 3);
        let query = Query { limit: 1, ..Query::default() };
        assert_eq!(store.select(&Space::plugin("t"), "i", &query).unwrap().matched, 1);
        store.close().unwrap();
    }

    #[test]
    fn closing_answers_what_is_queued() {
        let store = Store::in_memory();
        let question = store.inner().index.read();
        let mut queued = Box::pin(store.commit(transaction(&store, "a", Some("d"))));
        assert!(queued.as_mut().now_or_never().is_none());
        std::thread::scope(|scope| {
            scope.spawn(|| store.close().unwrap());
            drop(question);
        });
        assert_eq!(queued.now_or_never().unwrap().unwrap().sequence, 1);
    }
}
