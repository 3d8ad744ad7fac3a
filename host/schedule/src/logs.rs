//! What attempts print, bounded and kept.
//!
//! Owns [`LogSink`], where an executor writes, and the parts in which the store keeps a log. Separate from runs, because a log
//! grows while its run does not change: parts are added without touching the run, under the attempt's token, and only as
//! long as there is a run.
//!
//! Bounded by [`LOG_BYTES_MAX`] for each attempt, in memory and in the store; what comes behind that is counted, dropped, and
//! the log ends with a line that says so. On failure: a part that cannot be written is lost with a warning; the attempt goes
//! on.

use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{Error, Result};
use mainstay_store::{KeyRange, ScanOptions};
use parking_lot::Mutex;

use crate::keys;
use crate::limits::LOG_BYTES_MAX;
use crate::scheduler::Scheduler;

/// Where an executor writes what an attempt prints. Clones write to the same log.
#[derive(Clone, Default)]
pub struct LogSink {
    state: Arc<Mutex<LogState>>,
}

#[derive(Default)]
struct LogState {
    pending: Vec<u8>,
    taken_bytes: usize,
    dropped_bytes: u64,
    parts: u32,
}

impl LogSink {
    /// Add bytes, usually text.
    pub fn write(&self, bytes: &[u8]) {
        let mut state = self.state.lock();
        let room = LOG_BYTES_MAX - state.taken_bytes;
        let kept = &bytes[..bytes.len().min(room)];
        state.pending.extend_from_slice(kept);
        state.taken_bytes += kept.len();
        state.dropped_bytes += (bytes.len() - kept.len()) as u64;
    }

    /// Add a line of the scheduler's own.
    pub fn line(&self, text: &str) {
        self.write(format!("{text}\n").as_bytes());
    }

    /// Bytes that wait to be stored.
    pub(crate) fn pending_bytes(&self) -> usize {
        self.state.lock().pending.len()
    }

    /// The next part to be stored, if there is any.
    pub(crate) fn take(&self) -> Option<(u32, Bytes)> {
        let mut state = self.state.lock();
        if state.pending.is_empty() {
            return None;
        }
        let part = state.parts;
        state.parts += 1;
        Some((part, std::mem::take(&mut state.pending).into()))
    }

    /// The same at the end of the attempt, with a last line when something was dropped.
    pub(crate) fn take_last(&self) -> Option<(u32, Bytes)> {
        {
            let mut state = self.state.lock();
            if state.dropped_bytes > 0 {
                let dropped = state.dropped_bytes;
                let line = format!("\n[the log is full at {LOG_BYTES_MAX} bytes; {dropped} more were dropped]\n");
                state.pending.extend_from_slice(line.as_bytes());
                state.dropped_bytes = 0;
            }
        }
        self.take()
    }
}

/// Some of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// What was printed.
    pub bytes: Vec<u8>,
    /// Give it as `after` to go on; also at the end, to ask for what comes later.
    pub next: u32,
}

impl Scheduler {
    /// The log of an attempt from a part on, at most about a mebibyte. An attempt that printed nothing, or whose log was
    /// pruned, has an empty one.
    pub fn log(&self, run: &str, token: u64, after: u32) -> Result<LogPage> {
        if self.run(run)?.is_none() {
            return Err(Error::not_found(format!("there is no run `{run}`")));
        }
        let mut range = KeyRange::prefix(&keys::log_of_attempt(run, token));
        range.start = keys::log(run, token, after);
        let options = ScanOptions { limit: 1_000, ..ScanOptions::default() };
        let page = self.inner.store.view().scan(&self.inner.space, &[range], &options)?;
        let mut log = LogPage { bytes: Vec::new(), next: after };
        for (_, part) in &page {
            log.bytes.extend_from_slice(part);
            log.next += 1;
        }
        Ok(log)
    }

    /// Keep a part of a log. Nothing happens when the run is gone.
    pub(crate) async fn keep_log(&self, run: &str, token: u64, part: u32, bytes: Bytes) -> Result<()> {
        let (store, space) = (&self.inner.store, &self.inner.space);
        let mut transaction = store.begin(&store.view());
        transaction.expect_present(space, &keys::run(run))?;
        transaction.put(space, &keys::log(run, token, part), bytes)?;
        store.commit(transaction).await.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_cut_at_its_bound_and_says_so() {
        fn check(bytes: usize, expect: usize, is_cut: bool) {
            let sink = LogSink::default();
            for _ in 0..bytes / 1_000 {
                sink.write(&[b'x'; 1_000]);
            }
            sink.write(&vec![b'x'; bytes % 1_000]);
            let (part, kept) = sink.take_last().unwrap();
            let text = String::from_utf8(kept.to_vec()).unwrap();
            assert_eq!((part, text.matches('x').count()), (0, expect));
            assert_eq!(text.contains("dropped"), is_cut, "{bytes}");
        }
        check(10, 10, false);
        check(LOG_BYTES_MAX, LOG_BYTES_MAX, false);
        check(LOG_BYTES_MAX + 1, LOG_BYTES_MAX, true);
        check(3 * LOG_BYTES_MAX, LOG_BYTES_MAX, true);
        assert_eq!(LogSink::default().take_last(), None);
    }
}
