//! One moment of several tables.
//!
//! Owns [`Snapshot`]: a view of the store together with the handles of every file that it lists. Whatever is read through one
//! snapshot, of however many tables, is as of one commit. Separate from scans because a query takes one snapshot and makes
//! many scans of it.
//!
//! Handles are taken under the locks of all tables' files together with the view, and are given up under the same locks after
//! the commit that replaces them; so whoever has a view has the handles of what it lists.
//!
//! Bounded by the tables. A snapshot holds its view, and a store lets views expire that are held while commits wait: it is for
//! planning. Scans take what is pending with them, as far as it is not too much. On failure: `not-found` for a table that was
//! not there.

use std::collections::BTreeMap;
use std::sync::Arc;

use mainstay_base::{Error, Result};
use mainstay_store::View;

use crate::scan::{Scan, ScanOptions};
use crate::schema::TableSpec;
use crate::table::{Files, Inner, State, Table, Tables};

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Snapshot {
    pub(crate) inner: Arc<Inner>,
    pub(crate) view: View,
    tables: Arc<BTreeMap<Arc<str>, Seen>>,
}

/// One table of a snapshot.
pub(crate) struct Seen {
    pub state: Arc<State>,
    /// Of the snapshot's version, or of one that came at the same time: columns are only ever added.
    pub spec: Arc<TableSpec>,
    pub files: Files,
}

impl Snapshot {
    pub(crate) fn take(inner: &Arc<Inner>, states: Vec<Arc<State>>) -> Snapshot {
        let locked: Vec<_> = states.iter().map(|state| state.files.read()).collect();
        let view = inner.store.view();
        let files: Vec<Files> = locked.iter().map(|files| Arc::clone(files)).collect();
        drop(locked);
        let seen = states.into_iter().zip(files).map(|(state, files)| {
            // After the view: what it holds is of no newer version.
            let spec = state.spec();
            (state.name.clone(), Seen { state, spec, files })
        });
        Snapshot { inner: inner.clone(), view, tables: Arc::new(seen.collect()) }
    }

    /// Names of its tables, sorted.
    pub fn tables(&self) -> impl Iterator<Item = &Arc<str>> {
        self.tables.keys()
    }

    /// The store's sequence that it is of.
    pub fn sequence(&self) -> u64 {
        self.view.sequence()
    }

    /// Read rows of one of its tables; as [`Table::scan`] does.
    pub fn scan(&self, table: &str, options: &ScanOptions) -> Result<Scan> {
        Scan::new(self, table, options)
    }

    pub(crate) fn seen(&self, table: &str) -> Result<&Seen> {
        self.tables.get(table).ok_or_else(|| Error::not_found(format!("no table `{table}`; make it first")))
    }
}

impl Tables {
    /// All tables as they are now.
    pub fn snapshot(&self) -> Snapshot {
        // In the order of names, as everybody locks them.
        let states = self.inner.tables.read().values().cloned().collect();
        Snapshot::take(&self.inner, states)
    }
}

impl Table {
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot::take(&self.inner, vec![self.state.clone()])
    }
}
