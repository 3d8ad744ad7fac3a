//! How the directory lies in the ordered keys.
//!
//! One byte says what a key is; the rest is text parts that end with a zero byte (no part contains one) and numbers in
//! eight bytes, big endian, so that listings come in order:
//!
//! | | key | value |
//! | --- | --- | --- |
//! | `s` | kind, name | a subject's record |
//! | `v` | kind, name, version | a version's record |
//! | `l` | node, label key | who set it, zero, the value |
//! | `p` | kind, name, pointer | version, moved |
//! | `m` | kind, name | changes whenever a pointer moves |
//! | `o` | source node, relation, digest of the target | an edge |
//! | `i` | target node, relation, digest of the source | the same edge |
//!
//! A node in a key is its kind, its name, and a zero (the subject) or a one and the version. The other end of an edge is
//! a digest, because two names do not fit one key.

use mainstay_base::{Error, Result};
use mainstay_store::{KeyRange, Space};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::model::{Attachment, Edge, Node};

const SUBJECT: u8 = b's';
const VERSION: u8 = b'v';
const LABEL: u8 = b'l';
const POINTER: u8 = b'p';
const MOVES: u8 = b'm';
const OUTGOING: u8 = b'o';
const INCOMING: u8 = b'i';
const DIGEST_BYTES: usize = 16;

/// The directory's own space.
pub(crate) fn space() -> Space {
    Space::host("directory")
}

/// What is kept of a subject or a version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub owner: String,
    pub created_ms: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attachments: Vec<Attachment>,
}

/// What is kept of an edge.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct EdgeRecord {
    #[serde(flatten)]
    pub edge: Edge,
    /// The plugin that added it.
    pub by: String,
}

fn key(kind: u8, parts: &[&str]) -> Vec<u8> {
    let mut key = vec![kind];
    for part in parts {
        key.extend_from_slice(part.as_bytes());
        key.push(0);
    }
    key
}

fn node_key(kind: u8, node: &Node) -> Vec<u8> {
    let mut key = key(kind, &[&node.kind, &node.name]);
    match node.version {
        None => key.push(0),
        Some(version) => {
            key.push(1);
            key.extend_from_slice(&version.to_be_bytes());
        }
    }
    key
}

/// The key of a node's record.
pub(crate) fn record(node: &Node) -> Vec<u8> {
    match node.version {
        None => key(SUBJECT, &[&node.kind, &node.name]),
        Some(version) => [&key(VERSION, &[&node.kind, &node.name])[..], &version.to_be_bytes()].concat(),
    }
}

/// All subjects of a kind, behind a name.
pub(crate) fn subjects(kind: &str, after: Option<&str>) -> KeyRange {
    let mut range = KeyRange::prefix(&key(SUBJECT, &[kind]));
    if let Some(after) = after {
        range.start = [&key(SUBJECT, &[kind, after])[..], &[0]].concat();
    }
    range
}

/// The name in a subject's key.
pub(crate) fn name_of_subject<'k>(kind: &str, found: &'k [u8]) -> Result<&'k str> {
    let name = found.get(kind.len() + 2..found.len().saturating_sub(1));
    name.and_then(|name| std::str::from_utf8(name).ok()).ok_or_else(damaged)
}

/// All versions of a subject.
pub(crate) fn versions(kind: &str, name: &str) -> KeyRange {
    KeyRange::prefix(&key(VERSION, &[kind, name]))
}

/// The version in a version's key.
pub(crate) fn version_of(found: &[u8]) -> Result<u64> {
    found.last_chunk().map(|bytes| u64::from_be_bytes(*bytes)).ok_or_else(damaged)
}

/// All labels of a node.
pub(crate) fn labels(node: &Node) -> KeyRange {
    KeyRange::prefix(&node_key(LABEL, node))
}

/// All labels of a subject and of its versions.
pub(crate) fn labels_below(subject: &Node) -> KeyRange {
    KeyRange::prefix(&key(LABEL, &[&subject.kind, &subject.name]))
}

pub(crate) fn label(node: &Node, label: &str) -> Vec<u8> {
    [&node_key(LABEL, node)[..], label.as_bytes()].concat()
}

/// The label's key in the key of a label.
pub(crate) fn key_of_label(node: &Node, found: &[u8]) -> Result<String> {
    let key = found.get(node_key(LABEL, node).len()..).ok_or_else(damaged)?;
    String::from_utf8(key.to_vec()).map_err(|_| damaged())
}

pub(crate) fn encode_label(by: &str, value: &str) -> Vec<u8> {
    [by.as_bytes(), &[0], value.as_bytes()].concat()
}

/// Who set a label, and its value.
pub(crate) fn decode_label(found: &[u8]) -> Result<(&str, &str)> {
    std::str::from_utf8(found).ok().and_then(|text| text.split_once('\0')).ok_or_else(damaged)
}

/// All pointers of a subject.
pub(crate) fn pointers(kind: &str, name: &str) -> KeyRange {
    KeyRange::prefix(&key(POINTER, &[kind, name]))
}

pub(crate) fn pointer(kind: &str, name: &str, pointer: &str) -> Vec<u8> {
    [&key(POINTER, &[kind, name])[..], pointer.as_bytes()].concat()
}

/// The pointer's name in the key of a pointer.
pub(crate) fn name_of_pointer(kind: &str, name: &str, found: &[u8]) -> Result<String> {
    let pointer = found.get(key(POINTER, &[kind, name]).len()..).ok_or_else(damaged)?;
    String::from_utf8(pointer.to_vec()).map_err(|_| damaged())
}

pub(crate) fn encode_pointer(version: u64, moved_ms: i64) -> Vec<u8> {
    [version.to_be_bytes(), moved_ms.to_be_bytes()].concat()
}

/// Where a pointer leads, and when it moved.
pub(crate) fn decode_pointer(found: &[u8]) -> Result<(u64, i64)> {
    let (version, moved) = found.split_first_chunk().ok_or_else(damaged)?;
    let moved: &[u8; 8] = moved.try_into().map_err(|_| damaged())?;
    Ok((u64::from_be_bytes(*version), i64::from_be_bytes(*moved)))
}

/// Written whenever a pointer of the subject moves.
pub(crate) fn moves(kind: &str, name: &str) -> Vec<u8> {
    key(MOVES, &[kind, name])
}

fn edge_key(kind: u8, from: &Node, relation: &str, to: &Node) -> Vec<u8> {
    let digest = Sha256::digest(node_key(0, to));
    [&node_key(kind, from)[..], relation.as_bytes(), &[0], &digest[..DIGEST_BYTES]].concat()
}

/// The two keys of an edge: at its source and at its target.
pub(crate) fn edge(edge: &Edge) -> [Vec<u8>; 2] {
    [
        edge_key(OUTGOING, &edge.source, &edge.relation, &edge.target),
        edge_key(INCOMING, &edge.target, &edge.relation, &edge.source),
    ]
}

/// All edges at a node.
pub(crate) fn edges(node: &Node, outgoing: bool) -> KeyRange {
    KeyRange::prefix(&node_key(if outgoing { OUTGOING } else { INCOMING }, node))
}

/// The edges with one relation that leave a node.
pub(crate) fn edges_with(node: &Node, relation: &str) -> KeyRange {
    KeyRange::prefix(&[&node_key(OUTGOING, node)[..], relation.as_bytes(), &[0]].concat())
}

/// What an attachment's blob is kept alive by: the node, so that all of a subject's go together, and the path's digest.
pub(crate) fn attachment(node: &Node, path: &str) -> Vec<u8> {
    let digest = Sha256::digest(path.as_bytes());
    [&node_key(b'a', node)[..], &digest[..DIGEST_BYTES]].concat()
}

/// What all attachments of a node start with; those of a subject include its versions'.
pub(crate) fn attachments_below(node: &Node) -> Vec<u8> {
    match node.version {
        None => key(b'a', &[&node.kind, &node.name]),
        Some(_) => node_key(b'a', node),
    }
}

pub(crate) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("records have only text keys and finite numbers")
}

pub(crate) fn decode<T: for<'a> Deserialize<'a>>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|error| damaged().with_source(error))
}

fn damaged() -> Error {
    Error::internal("an entry of the directory is damaged; restore the data folder from a backup")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX, WORD_BYTES_MAX};

    #[test]
    fn the_longest_keys_fit() {
        let node = Node::version("k".repeat(WORD_BYTES_MAX), "n".repeat(NAME_BYTES_MAX), u64::MAX);
        let long = "l".repeat(KEY_BYTES_MAX);
        let relation = "r".repeat(WORD_BYTES_MAX);
        let both = Edge { source: node.clone(), relation, target: node.clone() };
        let keys = [
            record(&node),
            label(&node, &long),
            pointer(&node.kind, &node.name, &long),
            edge(&both)[0].clone(),
            edge(&both)[1].clone(),
            attachment(&node, "p"),
        ];
        for key in keys {
            assert!(key.len() <= mainstay_store::limits::KEY_BYTES_MAX, "{} bytes", key.len());
        }
    }

    #[test]
    fn no_subject_lies_below_another() {
        let names = ["a", "ab", "b", "a-", "a\u{1}"];
        for one in names {
            for other in names {
                let (one, other) = (Node::subject("k", one), Node::version("k", other, 0));
                let within = |range: KeyRange, key: &[u8]| key >= &range.start[..] && key < &range.end.unwrap()[..];
                let expect = one.name == other.name;
                assert_eq!(within(labels_below(&one), &label(&other, "x")), expect);
                assert_eq!(within(versions("k", &one.name), &record(&other)), expect);
                assert_eq!(attachment(&other, "p").starts_with(&attachments_below(&one)), expect);
                assert!(!within(labels(&one), &label(&other, "x")));
            }
        }
    }

    #[test]
    fn damaged_entries_are_refused() {
        decode::<Record>(b"{").unwrap_err();
        decode_pointer(&[0; 15]).unwrap_err();
        decode_label(b"no separator").unwrap_err();
        assert_eq!(decode_label(b"by\0va\0lue").unwrap(), ("by", "va\0lue"));
        assert_eq!(decode_pointer(&encode_pointer(7, -1)).unwrap(), (7, -1));
    }
}
