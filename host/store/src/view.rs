//! One moment's state, readable for as long as somebody holds it.
//!
//! Owns [`View`] and the register of open ones. A view is a sequence: it sees every commit up to it and none behind it.
//! Separate because of the rule that makes this cheap: the engine never holds anything newer than the oldest open view
//! ([`Views::floor`]), so a view needs no copy of anything.
//!
//! Bounded: while views hold back the applier and the memtable is full, commits wait; but views that have been open for
//! longer than the store's `view_hold_max` then expire, and reading one is `unavailable`. Opening and closing one is a mutex
//! and a map entry.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use mainstay_base::{Error, Result};
use parking_lot::Mutex;

use crate::engine::{Span, Visit};
use crate::limits::{self, GET_MANY_BYTES_MAX, GET_MANY_KEYS_MAX};
use crate::memtable::Known;
pub use crate::scan::{KeyRange, Page, ScanOptions};
use crate::scan::{Layers, scan_page};
use crate::space::Space;
use crate::store::Inner;

/// The state as of one commit. Cheap to clone; hold it no longer than the work that needs it.
#[derive(Clone)]
pub struct View {
    state: Arc<Opened>,
}

struct Opened {
    inner: Arc<Inner>,
    sequence: u64,
    number: u64,
    held: Arc<Held>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.inner.views.open.lock().remove(&(self.sequence, self.number));
    }
}

/// What the register knows of one view.
struct Held {
    since: Instant,
    expired: AtomicBool,
}

/// All open views.
#[derive(Default)]
pub(crate) struct Views {
    /// By sequence and number.
    open: Mutex<BTreeMap<(u64, u64), Arc<Held>>>,
}

impl Views {
    /// How far the engine may go: to the oldest view that is still good, or to the newest commit when there is none. A
    /// view that is opened later can only be newer, because both look at `newest` under one lock.
    pub fn floor(&self, newest: impl FnOnce() -> u64) -> u64 {
        let open = self.open.lock();
        let newest = newest();
        let oldest = open.iter().find(|(_, held)| !held.expired.load(Ordering::Acquire));
        oldest.map_or(newest, |((sequence, _), _)| newest.min(*sequence))
    }

    /// Let every view that has been open longer than this expire; says how many.
    pub fn expire_older_than(&self, age: Duration) -> usize {
        let open = self.open.lock();
        let older = open.values().filter(|held| held.since.elapsed() > age);
        older.filter(|held| !held.expired.swap(true, Ordering::AcqRel)).count()
    }
}

impl View {
    /// A view of the newest durable commit.
    pub(crate) fn open(inner: &Arc<Inner>) -> View {
        let held = Arc::new(Held { since: Instant::now(), expired: AtomicBool::new(false) });
        let mut open = inner.views.open.lock();
        let sequence = inner.visible();
        let number = open.range((sequence, 0)..=(sequence, u64::MAX)).next_back().map_or(0, |((_, last), _)| last + 1);
        open.insert((sequence, number), held.clone());
        drop(open);
        View { state: Arc::new(Opened { inner: inner.clone(), sequence, number, held }) }
    }

    /// The sequence of the newest commit that it sees.
    pub fn sequence(&self) -> u64 {
        self.state.sequence
    }

    /// The value under a key.
    pub fn get(&self, space: &Space, key: &[u8]) -> Result<Option<Bytes>> {
        limits::check_key(key)?;
        self.get_physical(&space.key_buf(key))
    }

    /// The values under several keys, in the order asked.
    pub fn get_many<K: AsRef<[u8]>>(&self, space: &Space, keys: &[K]) -> Result<Vec<Option<Bytes>>> {
        if keys.len() > GET_MANY_KEYS_MAX {
            let asked = keys.len();
            return Err(Error::invalid(format!("{asked} keys were asked for; at most {GET_MANY_KEYS_MAX} at once")));
        }
        let mut values = Vec::with_capacity(keys.len());
        let mut bytes = 0;
        for key in keys {
            let value = self.get(space, key.as_ref())?;
            bytes += value.as_ref().map_or(0, Bytes::len);
            if bytes > GET_MANY_BYTES_MAX {
                return Err(Error::invalid(format!(
                    "these {} keys hold more than {GET_MANY_BYTES_MAX} bytes; ask for fewer at once",
                    keys.len()
                )));
            }
            values.push(value);
        }
        Ok(values)
    }

    /// Entries of one or several ranges, one packed page at a time.
    pub fn scan(&self, space: &Space, ranges: &[KeyRange], options: &ScanOptions) -> Result<Page> {
        let page = scan_page(self.layers(), space, ranges, options)?;
        self.check_held()?;
        Ok(page)
    }

    pub(crate) fn get_physical(&self, key: &[u8]) -> Result<Option<Bytes>> {
        let inner = &self.state.inner;
        // The memtable first: an entry that moves down meanwhile is then seen in the engine.
        let value = match inner.memtable.get(key, self.state.sequence) {
            Known::Value(value) => value,
            Known::Nothing => inner.engine.get(key)?,
        };
        self.check_held()?;
        Ok(value)
    }

    pub(crate) fn visit(&self, span: Span<'_>, keys_only: bool, visit: &mut Visit<'_>) -> Result<()> {
        self.layers().visit(span, false, keys_only, visit)?;
        self.check_held()
    }

    fn layers(&self) -> Layers<'_> {
        let inner = &self.state.inner;
        Layers { memtable: &inner.memtable, engine: &*inner.engine, sequence: self.state.sequence }
    }

    /// What was read counts only if the applier did not pass the view meanwhile.
    pub(crate) fn check_held(&self) -> Result<()> {
        if !self.state.held.expired.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(Error::unavailable(format!(
            "the view of commit {} was held too long while many commits waited, and has expired; take a new one",
            self.state.sequence
        )))
    }
}
