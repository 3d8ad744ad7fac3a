//! The directory as it was at one moment.
//!
//! Owns [`At`], through which everything is read: in the view of a plugin's call, so that what the plugin reads is what its
//! transaction compares with, or in the newest one. Separate from writing, which goes through a transaction. Bounded by the
//! limits of [`crate::limits`]; an expired view is `unavailable`.

use mainstay_base::{Error, Result};
use mainstay_store::View;

use crate::directory::{Directory, not_found};
use crate::evidence::Search;
use crate::keys::{self, EdgeRecord, Record};
use crate::limits::{EDGES_MAX, KEY_BYTES_MAX, SUBJECTS_LIMIT_MAX};
use crate::model::{Description, FoundEdge, Label, Node, Pointer, check_text, check_word};

/// See [`Directory::at`].
#[derive(Clone, Copy)]
pub struct At<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) view: &'a View,
}

impl At<'_> {
    /// A subject or version, or none; things outside are none.
    pub fn describe(&self, node: &Node) -> Result<Option<Description>> {
        node.check()?;
        let Some(record) = self.directory.stored(self.view, node)? else { return Ok(None) };
        let mut labels = Vec::new();
        self.directory.each(self.view, &keys::labels(node), |key, found| {
            let (_, value) = keys::decode_label(found)?;
            labels.push(Label { key: keys::key_of_label(node, key)?, value: value.to_owned() });
            Ok(true)
        })?;
        let Record { owner, created_ms, attachments } = record;
        Ok(Some(Description { node: node.clone(), owner, created_ms, labels, attachments }))
    }

    /// Subjects of a kind, by name; at most `limit`, after a name.
    pub fn subjects(&self, kind: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>> {
        check_word("a kind", kind)?;
        after.map_or(Ok(()), |after| check_text("a name", after, crate::limits::NAME_BYTES_MAX))?;
        if !(1..=SUBJECTS_LIMIT_MAX).contains(&limit) {
            return Err(Error::invalid(format!("the limit is {limit}; it must be 1 to {SUBJECTS_LIMIT_MAX}")));
        }
        let mut names = Vec::new();
        self.directory.each(self.view, &keys::subjects(kind, after), |key, _| {
            names.push(keys::name_of_subject(kind, key)?.to_owned());
            Ok(names.len() < limit as usize)
        })?;
        Ok(names)
    }

    /// Versions of a subject, ascending.
    pub fn versions(&self, kind: &str, name: &str) -> Result<Vec<u64>> {
        Node::subject(kind, name).check()?;
        let mut versions = Vec::new();
        self.directory.each(self.view, &keys::versions(kind, name), |key, _| {
            versions.push(keys::version_of(key)?);
            Ok(true)
        })?;
        Ok(versions)
    }

    /// Pointers of a subject, by name.
    pub fn pointers(&self, kind: &str, name: &str) -> Result<Vec<Pointer>> {
        Node::subject(kind, name).check()?;
        let mut pointers = Vec::new();
        self.directory.each(self.view, &keys::pointers(kind, name), |key, found| {
            let pointer = keys::name_of_pointer(kind, name, key)?;
            let (version, moved_ms) = keys::decode_pointer(found)?;
            let is_protected = self.directory.inner.rules.protect(kind, name, &pointer);
            pointers.push(Pointer { name: pointer, version, is_protected, moved_ms });
            Ok(true)
        })?;
        Ok(pointers)
    }

    /// Where one pointer leads, or none.
    pub fn resolve(&self, kind: &str, name: &str, pointer: &str) -> Result<Option<u64>> {
        Node::subject(kind, name).check()?;
        check_text("a pointer's name", pointer, KEY_BYTES_MAX)?;
        let found = self.view.get(&self.directory.inner.space, &keys::pointer(kind, name, pointer))?;
        found.map(|found| keys::decode_pointer(&found).map(|(version, _)| version)).transpose()
    }

    /// Edges that leave (`outgoing`) or reach a node, at most 10,000.
    pub fn edges(&self, node: &Node, outgoing: bool) -> Result<Vec<FoundEdge>> {
        node.check()?;
        let mut edges = Vec::new();
        self.directory.each(self.view, &keys::edges(node, outgoing), |_, found| {
            edges.push(keys::decode::<EdgeRecord>(found)?.edge);
            Ok(edges.len() < EDGES_MAX)
        })?;
        let found = edges.into_iter().map(|edge| {
            let is_broken =
                !(self.directory.exists(self.view, &edge.source)? && self.directory.exists(self.view, &edge.target)?);
            Ok(FoundEdge { edge, is_broken })
        });
        found.collect()
    }

    /// What a protected pointer would still need for this version, in words; empty when it may move.
    pub fn missing_evidence(&self, kind: &str, name: &str, pointer: &str, version: u64) -> Result<Vec<String>> {
        let target = Node::version(kind, name, version);
        target.check()?;
        check_text("a pointer's name", pointer, KEY_BYTES_MAX)?;
        if self.directory.stored(self.view, &target)?.is_none() {
            return Err(not_found(&target));
        }
        let mut search = Search::new(&self.directory.inner.space, self.view, None);
        let mut missing = Vec::new();
        for evidence in self.directory.inner.rules.required(kind, name, pointer) {
            missing.extend(search.find(evidence, &target)?.err());
        }
        Ok(missing)
    }
}
