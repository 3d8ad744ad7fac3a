//! The directory's functions, one for each of `mainstay:host/directory`.
//!
//! Who may do what: a subject, its versions and its pointers belong to the plugin that created the subject. Others may add
//! edges that leave it, and set labels whose keys start with their own name and one of `.`, `/` and `:`.
//!
//! A write looks at the transaction first and at its view second, so that a subject and what belongs to it may be created
//! together. What it found in the view it guards.

use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{Clock, Error, Result};
use mainstay_store::{KeyRange, ScanOptions, Space, Store, Transaction, View, blobs};

use crate::evidence::{ProtectionRule, Rules, Search};
use crate::keys::{self, EdgeRecord, Record};
use crate::limits::{KEY_BYTES_MAX, LABELS_PER_CALL_MAX};
use crate::model::{
    Attachment, Description, Edge, FoundEdge, Label, Node, Pointer, check_attachments, check_text, shown,
};
use crate::read::At;

const PAGE_ENTRIES: u32 = 1_000;

/// Named subjects, versions, labels, edges and pointers. Cheap to clone.
#[derive(Clone)]
pub struct Directory {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    store: Store,
    clock: Arc<dyn Clock>,
    pub rules: Rules,
    pub space: Space,
}

/// A node that a write found: in the transaction itself, or in its view.
enum Found {
    Pending(Record),
    Stored(Record),
}

impl Found {
    fn record(&self) -> &Record {
        match self {
            Found::Pending(record) | Found::Stored(record) => record,
        }
    }
}

impl Directory {
    /// The directory of a store, with the operator's rules for protected pointers; malformed rules are `invalid`.
    pub fn new(store: Store, protection: Vec<ProtectionRule>, clock: Arc<dyn Clock>) -> Result<Directory> {
        let rules = Rules::new(protection)?;
        Ok(Directory { inner: Arc::new(Inner { store, clock, rules, space: keys::space() }) })
    }

    /// Create a subject, or a version of one. `conflict` at the commit if it is there already.
    pub fn create(
        &self,
        tx: &mut Transaction,
        owner: &str,
        node: &Node,
        labels: &[Label],
        attachments: &[Attachment],
    ) -> Result<()> {
        node.check()?;
        check_labels(labels)?;
        check_attachments(attachments)?;
        if node.is_external() {
            return Err(Error::invalid(format!(
                "{node} lies outside and cannot be created; edges may lead to it as it is"
            )));
        }
        if node.version.is_some() {
            self.own(tx, owner, &node.to_subject())?;
        }
        self.expect_new(tx, node)?;
        let record = Record {
            owner: owner.to_owned(),
            created_ms: self.inner.clock.now_ms(),
            attachments: attachments.to_vec(),
        };
        tx.put(&self.inner.space, &keys::record(node), keys::encode(&record))?;
        for attachment in attachments {
            blobs::refer(tx, &self.inner.space, &keys::attachment(node, &attachment.path), &attachment.sha256)?;
        }
        self.write_labels(tx, owner, node, labels)
    }

    /// Set labels; an empty value removes one.
    pub fn set_labels(&self, tx: &mut Transaction, owner: &str, node: &Node, labels: &[Label]) -> Result<()> {
        node.check()?;
        check_labels(labels)?;
        let found = self.find(tx, node)?;
        if found.record().owner != owner {
            for Label { key, .. } in labels {
                if !is_prefixed(key, owner) {
                    return Err(Error::denied(format!(
                        "{node} belongs to `{}`; `{owner}` may only set labels that start with `{owner}.`, not `{}`",
                        found.record().owner,
                        shown(key)
                    )));
                }
            }
        }
        self.guard_found(tx, node, &found)?;
        self.write_labels(tx, owner, node, labels)
    }

    /// Remove a version (its pointers with it) or a subject with everything below it. Its edges stay and are found broken.
    pub fn remove(&self, tx: &mut Transaction, owner: &str, node: &Node) -> Result<()> {
        node.check()?;
        self.own(tx, owner, &node.to_subject())?;
        let space = &self.inner.space;
        blobs::release_under(tx, space, &keys::attachments_below(node))?;
        tx.delete(space, &keys::record(node))?;
        match node.version {
            None => {
                tx.delete_range(space, &keys::versions(&node.kind, &node.name))?;
                tx.delete_range(space, &keys::labels_below(node))?;
                tx.delete_range(space, &keys::pointers(&node.kind, &node.name))?;
                tx.delete(space, &keys::moves(&node.kind, &node.name))
            }
            Some(version) => {
                tx.delete_range(space, &keys::labels(node))?;
                self.remove_pointers_to(tx, node, version)
            }
        }
    }

    /// Add an edge; adding it again is no error. The source must exist; the target may come later.
    pub fn connect(&self, tx: &mut Transaction, owner: &str, edge: &Edge) -> Result<()> {
        edge.check()?;
        if !edge.source.is_external() {
            let found = self.find(tx, &edge.source)?;
            self.guard_found(tx, &edge.source, &found)?;
        }
        let [at_source, at_target] = keys::edge(edge);
        // Who added it first stays: nobody can take over an edge by adding it again.
        let is_known = match tx.pending(&self.inner.space, &at_source) {
            Some(pending) => pending.is_some(),
            None => tx.view().get(&self.inner.space, &at_source)?.is_some(),
        };
        if is_known {
            return Ok(());
        }
        let record = Bytes::from(keys::encode(&EdgeRecord { edge: edge.clone(), by: owner.to_owned() }));
        tx.put(&self.inner.space, &at_source, record.clone())?;
        tx.put(&self.inner.space, &at_target, record)
    }

    /// Move a pointer of a subject, or remove it (version none). For a protected pointer the commit is `denied` while the
    /// version lacks evidence, which must be there already, or be added by this transaction before the move. Evidence that
    /// somebody removes meanwhile is a `conflict`.
    pub fn move_pointer(
        &self,
        tx: &mut Transaction,
        owner: &str,
        kind: &str,
        name: &str,
        pointer: &str,
        version: Option<u64>,
    ) -> Result<()> {
        let subject = Node::subject(kind, name);
        subject.check()?;
        check_text("a pointer's name", pointer, KEY_BYTES_MAX)?;
        self.own(tx, owner, &subject)?;
        let space = &self.inner.space;
        let key = keys::pointer(kind, name, pointer);
        // A removal of the version that does not see this move fails.
        tx.put(space, &keys::moves(kind, name), Bytes::new())?;
        let Some(version) = version else { return tx.delete(space, &key) };

        let target = Node { version: Some(version), ..subject };
        let found = self.find(tx, &target)?;
        self.guard_found(tx, &target, &found)?;
        let missing = self.guard_evidence(tx, pointer, &target)?;
        if !missing.is_empty() {
            return self.deny(tx, &target, pointer, &missing);
        }
        tx.put(space, &key, keys::encode_pointer(version, self.inner.clock.now_ms()))
    }

    /// What the directory says in a view.
    pub fn at<'a>(&'a self, view: &'a View) -> At<'a> {
        At { directory: self, view }
    }

    /// A subject or version as of now, or none; things outside are none.
    pub fn describe(&self, node: &Node) -> Result<Option<Description>> {
        self.at(&self.inner.store.view()).describe(node)
    }

    /// Subjects of a kind, by name; at most `limit`, after a name.
    pub fn subjects(&self, kind: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>> {
        self.at(&self.inner.store.view()).subjects(kind, after, limit)
    }

    /// Versions of a subject, ascending.
    pub fn versions(&self, kind: &str, name: &str) -> Result<Vec<u64>> {
        self.at(&self.inner.store.view()).versions(kind, name)
    }

    /// Pointers of a subject, by name.
    pub fn pointers(&self, kind: &str, name: &str) -> Result<Vec<Pointer>> {
        self.at(&self.inner.store.view()).pointers(kind, name)
    }

    /// Where one pointer leads, or none.
    pub fn resolve(&self, kind: &str, name: &str, pointer: &str) -> Result<Option<u64>> {
        self.at(&self.inner.store.view()).resolve(kind, name, pointer)
    }

    /// Edges that leave (`outgoing`) or reach a node, at most 10,000.
    pub fn edges(&self, node: &Node, outgoing: bool) -> Result<Vec<FoundEdge>> {
        self.at(&self.inner.store.view()).edges(node, outgoing)
    }

    /// What a protected pointer would still need for this version, in words; empty when it may move.
    pub fn missing_evidence(&self, kind: &str, name: &str, pointer: &str, version: u64) -> Result<Vec<String>> {
        self.at(&self.inner.store.view()).missing_evidence(kind, name, pointer, version)
    }

    /// The owner's own subject, guarded.
    fn own(&self, tx: &mut Transaction, owner: &str, subject: &Node) -> Result<()> {
        let found = self.find(tx, subject)?;
        if found.record().owner != owner {
            return Err(Error::denied(format!(
                "{subject} belongs to `{}`; `{owner}` may add edges from it and labels that start with `{owner}.`",
                found.record().owner
            )));
        }
        self.guard_found(tx, subject, &found)
    }

    fn find(&self, tx: &Transaction, node: &Node) -> Result<Found> {
        match tx.pending(&self.inner.space, &keys::record(node)) {
            Some(Some(record)) => Ok(Found::Pending(keys::decode(&record)?)),
            Some(None) => Err(not_found(node)),
            None => self.stored(tx.view(), node)?.map(Found::Stored).ok_or_else(|| not_found(node)),
        }
    }

    /// Records are written once, so unchanged means still there and still the same owner's.
    fn guard_found(&self, tx: &mut Transaction, node: &Node, found: &Found) -> Result<()> {
        match found {
            Found::Pending(_) => Ok(()),
            Found::Stored(_) => tx.expect_unchanged(&self.inner.space, &keys::record(node)),
        }
    }

    fn expect_new(&self, tx: &mut Transaction, node: &Node) -> Result<()> {
        let there = || Error::conflict(format!("{node} is there already; choose another name or version"));
        match tx.pending(&self.inner.space, &keys::record(node)) {
            Some(Some(_)) => Err(there()),
            // Removed by this very transaction.
            Some(None) => Ok(()),
            None => tx.expect_absent_or(&self.inner.space, &keys::record(node), there()),
        }
    }

    fn write_labels(&self, tx: &mut Transaction, by: &str, node: &Node, labels: &[Label]) -> Result<()> {
        for Label { key, value } in labels {
            let key = keys::label(node, key);
            match value.as_str() {
                "" => tx.delete(&self.inner.space, &key)?,
                value => tx.put(&self.inner.space, &key, keys::encode_label(by, value))?,
            }
        }
        Ok(())
    }

    fn remove_pointers_to(&self, tx: &mut Transaction, node: &Node, version: u64) -> Result<()> {
        let (space, view) = (&self.inner.space, tx.view().clone());
        let range = keys::pointers(&node.kind, &node.name);
        // Those in the view, as this transaction leaves them, and those that it moves itself.
        let mut leading = tx.pending_under(space, &range.start);
        self.each(&view, &range, |key, found| {
            if tx.pending(space, key).is_none() {
                leading.insert(key.to_vec(), Bytes::copy_from_slice(found));
            }
            Ok(true)
        })?;
        tx.expect_unchanged(space, &keys::moves(&node.kind, &node.name))?;
        for (key, found) in leading {
            if keys::decode_pointer(&found)?.0 == version {
                tx.delete(space, &key)?;
            }
        }
        Ok(())
    }

    /// Guard the evidence that is there; say what is not.
    fn guard_evidence(&self, tx: &mut Transaction, pointer: &str, target: &Node) -> Result<Vec<String>> {
        let mut missing = Vec::new();
        let mut guards = Vec::new();
        let view = tx.view().clone();
        let mut search = Search::new(&self.inner.space, &view, Some(tx));
        for evidence in self.inner.rules.required(&target.kind, &target.name, pointer) {
            match search.find(evidence, target)? {
                Ok(relied_on) => guards.extend(relied_on),
                Err(words) => missing.push(words),
            }
        }
        guards.sort();
        guards.dedup();
        for key in guards {
            tx.expect_unchanged(&self.inner.space, &key)?;
        }
        Ok(missing)
    }

    /// Let the commit fail: the key that it expects is never written.
    fn deny(&self, tx: &mut Transaction, target: &Node, pointer: &str, missing: &[String]) -> Result<()> {
        let denied = Error::denied(format!(
            "the pointer `{}` is protected and may not move to {target}: it lacks {}",
            shown(pointer),
            missing.join("; ")
        ));
        tx.expect_present_or(&self.inner.space, b"!", denied)
    }

    pub(crate) fn stored(&self, view: &View, node: &Node) -> Result<Option<Record>> {
        let found = view.get(&self.inner.space, &keys::record(node))?;
        found.map(|record| keys::decode(&record)).transpose()
    }

    pub(crate) fn exists(&self, view: &View, node: &Node) -> Result<bool> {
        Ok(node.is_external() || view.get(&self.inner.space, &keys::record(node))?.is_some())
    }

    pub(crate) fn each(
        &self,
        view: &View,
        range: &KeyRange,
        visit: impl FnMut(&[u8], &[u8]) -> Result<bool>,
    ) -> Result<()> {
        each(&self.inner.space, view, range, visit)
    }
}

/// Visit the entries of a range in order, for as long as the visitor wants more.
pub(crate) fn each(
    space: &Space,
    view: &View,
    range: &KeyRange,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool>,
) -> Result<()> {
    let mut options = ScanOptions { limit: PAGE_ENTRIES, ..ScanOptions::default() };
    loop {
        let page = view.scan(space, std::slice::from_ref(range), &options)?;
        for (key, value) in page.iter() {
            if !visit(key, value)? {
                return Ok(());
            }
        }
        match page.next {
            Some(next) => options.after = Some(next),
            None => return Ok(()),
        }
    }
}

fn check_labels(labels: &[Label]) -> Result<()> {
    if labels.len() > LABELS_PER_CALL_MAX {
        return Err(Error::invalid(format!("{} labels in one call; the most is {LABELS_PER_CALL_MAX}", labels.len())));
    }
    labels.iter().try_for_each(Label::check)
}

fn is_prefixed(key: &str, owner: &str) -> bool {
    key.strip_prefix(owner).is_some_and(|rest| rest.starts_with(['.', '/', ':']))
}

pub(crate) fn not_found(node: &Node) -> Error {
    Error::not_found(format!("there is no {node}"))
}
