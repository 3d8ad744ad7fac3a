//! What plugins share: named subjects, their versions with blobs and labels, edges, and pointers to versions.
//!
//! Owns the plain types and the reads; changes are made through
//! [`Transaction::directory`](crate::Transaction::directory). Bounded by: 10,000 rows a listing. On failure: the host's typed
//! error; what is not there is `None`, not an error.

use crate::{Result, sys};

/// What a node of the graph is: a subject, a version of one, or a thing outside.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node {
    /// 1 to 64 of `a-z0-9-`, for example "model".
    pub kind: String,
    /// 1 to 512 bytes of text.
    pub name: String,
    /// None for the subject itself.
    pub version: Option<u64>,
}

impl Node {
    /// A subject.
    pub fn subject(kind: impl Into<String>, name: impl Into<String>) -> Node {
        Node { kind: kind.into(), name: name.into(), version: None }
    }

    /// A version of a subject.
    pub fn version(kind: impl Into<String>, name: impl Into<String>, version: u64) -> Node {
        Node { kind: kind.into(), name: name.into(), version: Some(version) }
    }

    /// A thing outside, by its URI.
    pub fn external(uri: impl Into<String>) -> Node {
        Node::subject("external", uri)
    }
}

/// A directed edge with a word for what it means, for example "produced-by".
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Edge {
    /// Where it starts.
    pub source: Node,
    /// What it means.
    pub relation: String,
    /// Where it leads.
    pub target: Node,
}

impl Edge {
    /// `source` —relation→ `target`.
    pub fn new(source: Node, relation: impl Into<String>, target: Node) -> Edge {
        Edge { source, relation: relation.into(), target }
    }
}

/// A text pair. Keys at most 256 bytes, values at most 8 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Label {
    /// Its name.
    pub key: String,
    /// Its value; empty removes it.
    pub value: String,
}

impl Label {
    /// `key` = `value`.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Label {
        Label { key: key.into(), value: value.into() }
    }
}

/// A blob that belongs to a version, under a path inside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Attachment {
    /// Path inside the version.
    pub path: String,
    /// Lowercase hexadecimal SHA-256.
    pub sha256: String,
}

/// What is known of a subject or a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// What it is.
    pub node: Node,
    /// The plugin that created it.
    pub owner: String,
    /// When, in milliseconds since 1970.
    pub created_ms: i64,
    /// Its labels, by key.
    pub labels: Vec<Label>,
    /// Its blobs, by path.
    pub attachments: Vec<Attachment>,
}

impl Description {
    /// The label of this key.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.iter().find(|label| label.key == key).map(|label| label.value.as_str())
    }
}

/// A name that leads to a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub version: u64,
    /// The operator's configuration names evidence that a version needs before it may move there.
    pub is_protected: bool,
    /// When it last moved, in milliseconds since 1970.
    pub moved_ms: i64,
}

/// A subject or version, or none.
pub fn describe(node: &Node) -> Result<Option<Description>> {
    sys::directory_describe(node)
}

/// Subjects of a kind, by name; at most `limit` (1 to 10,000), after a name.
pub fn subjects(kind: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>> {
    sys::directory_subjects(kind, after, limit)
}

/// Versions of a subject, ascending.
pub fn versions(kind: &str, name: &str) -> Result<Vec<u64>> {
    sys::directory_versions(kind, name)
}

/// Pointers of a subject, by name.
pub fn pointers(kind: &str, name: &str) -> Result<Vec<Pointer>> {
    sys::directory_pointers(kind, name)
}

/// The pointer of this name, or none.
pub fn pointer(kind: &str, name: &str, pointer: &str) -> Result<Option<Pointer>> {
    Ok(pointers(kind, name)?.into_iter().find(|found| found.name == pointer))
}

/// Edges that leave a node; at most 10,000.
pub fn edges_from(node: &Node) -> Result<Vec<Edge>> {
    sys::directory_edges(node, true)
}

/// Edges that reach a node; at most 10,000.
pub fn edges_to(node: &Node) -> Result<Vec<Edge>> {
    sys::directory_edges(node, false)
}

/// What a protected pointer would still need for this version, in words; empty when it may move.
pub fn missing_evidence(kind: &str, name: &str, pointer: &str, version: u64) -> Result<Vec<String>> {
    sys::directory_missing_evidence(kind, name, pointer, version)
}
