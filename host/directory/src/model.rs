//! The directory's things, and whether they are well formed.

use std::fmt;

use mainstay_base::{Error, Result};
use mainstay_store::blobs::check_blob_name;
use serde::{Deserialize, Serialize};

use crate::limits::{ATTACHMENTS_MAX, KEY_BYTES_MAX, LABEL_VALUE_BYTES_MAX, NAME_BYTES_MAX, WORD_BYTES_MAX};

/// The kind of things outside, whose name is a URI. They cannot be created and always exist.
pub const EXTERNAL: &str = "external";

/// A version of a subject, or the subject itself, or a thing outside.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Node {
    /// What it is, for example `model`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Which version; none for the subject itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
}

/// A directed edge with a word for what it means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Edge {
    /// Where it leaves.
    pub source: Node,
    /// What it means, for example `produced-by`.
    pub relation: String,
    /// Where it leads.
    pub target: Node,
}

/// An edge that was read.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundEdge {
    /// The edge.
    pub edge: Edge,
    /// One of its ends was removed (or never was).
    pub is_broken: bool,
}

/// A text pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Label {
    /// Its key.
    pub key: String,
    /// Its value; empty removes the label.
    pub value: String,
}

/// A blob that belongs to a node, under a path inside it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Attachment {
    /// The path.
    pub path: String,
    /// Lowercase hexadecimal SHA-256.
    pub sha256: String,
}

/// What is known of a subject or a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Which one.
    pub node: Node,
    /// The plugin that its subject belongs to.
    pub owner: String,
    /// When it was created.
    pub created_ms: i64,
    /// Its labels, by key.
    pub labels: Vec<Label>,
    /// Its attachments, in the order in which they were given.
    pub attachments: Vec<Attachment>,
}

/// A name that leads to a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    /// Its name.
    pub name: String,
    /// Where it leads.
    pub version: u64,
    /// Whether the configuration asks for evidence before it moves.
    pub is_protected: bool,
    /// When it last moved.
    pub moved_ms: i64,
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

    /// A thing outside.
    pub fn external(uri: impl Into<String>) -> Node {
        Node::subject(EXTERNAL, uri)
    }

    /// Whether it is a thing outside.
    pub fn is_external(&self) -> bool {
        self.kind == EXTERNAL
    }

    /// The subject that this is, or is a version of.
    pub fn to_subject(&self) -> Node {
        Node { version: None, ..self.clone() }
    }

    pub(crate) fn check(&self) -> Result<()> {
        check_word("a kind", &self.kind)?;
        check_text("a name", &self.name, NAME_BYTES_MAX)?;
        if self.is_external() && self.version.is_some() {
            return Err(Error::invalid(format!("{self} lies outside and has no versions; leave the version out")));
        }
        Ok(())
    }
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.kind, shown(&self.name))?;
        match self.version {
            Some(version) => write!(f, " version {version}"),
            None => Ok(()),
        }
    }
}

impl Edge {
    pub(crate) fn check(&self) -> Result<()> {
        self.source.check()?;
        check_word("a relation", &self.relation)?;
        self.target.check()
    }
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` from {} to {}", self.relation, self.source, self.target)
    }
}

impl Label {
    pub(crate) fn check(&self) -> Result<()> {
        check_text("a label's key", &self.key, KEY_BYTES_MAX)?;
        if self.value.len() > LABEL_VALUE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the label `{}` has a value of {} bytes; the most is {LABEL_VALUE_BYTES_MAX}",
                shown(&self.key),
                self.value.len()
            )));
        }
        Ok(())
    }
}

pub(crate) fn check_attachments(attachments: &[Attachment]) -> Result<()> {
    if attachments.len() > ATTACHMENTS_MAX {
        return Err(Error::invalid(format!("{} attachments; a node has at most {ATTACHMENTS_MAX}", attachments.len())));
    }
    let mut paths: Vec<&str> = attachments.iter().map(|attachment| attachment.path.as_str()).collect();
    paths.sort_unstable();
    if let Some(twice) = paths.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid(format!("two attachments have the path `{}`", shown(twice[0]))));
    }
    paths.into_iter().try_for_each(check_blob_name)
}

/// A kind or a relation: 1 to 64 of `a-z0-9-`.
pub(crate) fn check_word(what: &str, word: &str) -> Result<()> {
    let fits = (1..=WORD_BYTES_MAX).contains(&word.len());
    if fits && word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
        return Ok(());
    }
    Err(Error::invalid(format!("`{}` is not {what}; use 1 to {WORD_BYTES_MAX} of a-z, 0-9 and `-`", shown(word))))
}

/// Text of limited length, without the character that separates the parts of keys.
pub(crate) fn check_text(what: &str, text: &str, bytes_max: usize) -> Result<()> {
    if (1..=bytes_max).contains(&text.len()) && !text.contains('\0') {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "`{}` is not {what}; it has {} bytes, and must have 1 to {bytes_max} and no NUL character",
        shown(text),
        text.len()
    )))
}

/// Text in a message: cut when long, control characters escaped.
pub(crate) fn shown(text: &str) -> String {
    const SHOWN_CHARS: usize = 100;
    let mut shown: String = text.chars().take(SHOWN_CHARS).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown.chars().flat_map(|c| if c.is_control() { c.escape_default().collect() } else { vec![c] }).collect()
}
