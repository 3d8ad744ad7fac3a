//! Key spaces, and how their keys lie in the one ordered engine.
//!
//! Owns [`Space`] and the layout of physical keys: one byte for who the space belongs to, the length of its name, its
//! name, then the caller's key. The length makes one space's prefix never a prefix of another's. Rows of index documents
//! lie apart, behind a byte of their own. Separate because every other module speaks of physical keys only.
//!
//! Bounded by: names of 1 to 255 bytes. Reading a row's key that is not laid out so is an error, never a guess.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use mainstay_base::{Error, Result};
use smallvec::SmallVec;

/// First byte of everything that belongs to plugins.
const PLUGIN: u8 = b'p';
/// First byte of everything that belongs to the host's own mechanisms.
const HOST: u8 = b'h';
/// First byte of the rows of index documents.
const ROW: u8 = b'i';
/// The longest name.
const NAME_BYTES_MAX: usize = 255;

/// A physical key that mostly needs no allocation.
pub(crate) type KeyBuf = SmallVec<[u8; 96]>;

/// A key space: keys of one are never seen by another. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Space {
    prefix: Arc<[u8]>,
}

impl Space {
    /// The space of a plugin.
    ///
    /// # Panics
    /// When the name is empty or longer than 255 bytes; manifests allow 63.
    pub fn plugin(name: &str) -> Space {
        Space::new(PLUGIN, name)
    }

    /// The space of one of the host's own mechanisms.
    ///
    /// # Panics
    /// When the name is empty or longer than 255 bytes.
    pub fn host(name: &str) -> Space {
        Space::new(HOST, name)
    }

    fn new(kind: u8, name: &str) -> Space {
        assert!((1..=NAME_BYTES_MAX).contains(&name.len()), "a space's name has 1 to {NAME_BYTES_MAX} bytes: `{name}`");
        let prefix = [&[kind, name.len() as u8], name.as_bytes()].concat();
        Space { prefix: prefix.into() }
    }

    /// The name it was made with.
    pub fn name(&self) -> &str {
        std::str::from_utf8(&self.prefix[2..]).unwrap_or("?")
    }

    pub(crate) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// The physical key, on the stack where it fits.
    pub(crate) fn key_buf(&self, key: &[u8]) -> KeyBuf {
        let mut physical = KeyBuf::with_capacity(self.prefix.len() + key.len());
        physical.extend_from_slice(&self.prefix);
        physical.extend_from_slice(key);
        physical
    }

    /// The physical key, to be kept.
    pub(crate) fn key(&self, key: &[u8]) -> Bytes {
        let mut physical = Vec::with_capacity(self.prefix.len() + key.len());
        physical.extend_from_slice(&self.prefix);
        physical.extend_from_slice(key);
        physical.into()
    }

    /// The first physical key behind the space.
    pub(crate) fn end(&self) -> Bytes {
        let mut end = self.prefix.to_vec();
        // Names are UTF-8, which never contains 0xff.
        if let Some(last) = end.last_mut() {
            *last += 1;
        }
        end.into()
    }
}

impl fmt::Debug for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.prefix[0] == PLUGIN { "plugin" } else { "host" };
        write!(f, "{kind}:{}", self.name())
    }
}

/// What the row of an index document stands under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RowName {
    pub space: Space,
    pub index: String,
    pub document: String,
}

/// All rows lie in this range.
pub(crate) const ROWS: (&[u8], &[u8]) = (&[ROW], &[ROW + 1]);

impl RowName {
    /// The physical key of the row.
    pub fn key(&self) -> Vec<u8> {
        let RowName { space, index, document } = self;
        let mut key = Vec::with_capacity(2 + space.prefix.len() + index.len() + document.len());
        key.push(ROW);
        key.extend_from_slice(&space.prefix);
        // At most 64: checked when the transaction was made.
        key.push(index.len() as u8);
        key.extend_from_slice(index.as_bytes());
        key.extend_from_slice(document.as_bytes());
        key
    }
}

/// Read [`RowName::key`] back.
pub(crate) fn parse_row_key(key: &[u8]) -> Result<RowName> {
    parse(key).ok_or_else(|| {
        let key = key.escape_ascii();
        Error::internal(format!("`{key}` is not the key of an index row; the ordered engine holds foreign data"))
    })
}

fn parse(key: &[u8]) -> Option<RowName> {
    let rest = key.strip_prefix(&[ROW])?;
    let kind = *rest.first()?;
    if kind != PLUGIN && kind != HOST {
        return None;
    }
    let (name, rest) = counted(rest.get(1..)?)?;
    let (index, document) = counted(rest)?;
    if name.is_empty() {
        return None;
    }
    Some(RowName { space: Space::new(kind, name), index: index.to_owned(), document: text(document)?.to_owned() })
}

fn counted(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (&length, rest) = bytes.split_first()?;
    let (name, rest) = rest.split_at_checked(length as usize)?;
    Some((text(name)?, rest))
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

/// A physical key as a person may read it: the key in its space, cut when long.
pub(crate) fn show_key(physical: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 100;
    let (space, key) = match in_space(physical) {
        Some((space, key)) => (space, key),
        None => ("?", physical),
    };
    let cut = if key.len() > SHOWN_BYTES_MAX { "…" } else { "" };
    let key = key[..key.len().min(SHOWN_BYTES_MAX)].escape_ascii();
    format!("key `{key}{cut}` of `{space}`")
}

/// The name of the space that a physical key belongs to, or `?`.
pub(crate) fn space_name(physical: &[u8]) -> &str {
    in_space(physical).map_or("?", |(space, _)| space)
}

/// The space's name, and the rest of a physical key or of a row's.
fn in_space(physical: &[u8]) -> Option<(&str, &[u8])> {
    let key = physical.strip_prefix(&[ROW]).unwrap_or(physical);
    counted(key.get(1..)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_space_lies_in_another() {
        let spaces = ["a", "ab", "b", "a-b", "aa"].map(Space::plugin);
        for space in &spaces {
            let (start, end) = (space.key(b""), space.end());
            for other in &spaces {
                for key in [&b""[..], b"\0", b"\xff\xff", b"x"] {
                    let key = other.key(key);
                    assert_eq!(start <= key && key < end, space == other, "{space:?} {other:?}");
                }
            }
        }
        assert_ne!(Space::plugin("a"), Space::host("a"));
    }

    #[test]
    fn row_keys_are_read_back_and_nothing_else_is() {
        let name = RowName { space: Space::plugin("t"), index: "runs".into(), document: "a\0é".into() };
        let key = name.key();
        assert_eq!(parse_row_key(&key).unwrap(), name);
        assert!(ROWS.0 <= &key[..] && &key[..] < ROWS.1);
        for cut in 0..key.len() - 4 {
            parse_row_key(&key[..cut]).unwrap_err();
        }
        parse_row_key(b"ix\x01a\x01bc").unwrap_err();
        parse_row_key(b"ip\x00\x01bc").unwrap_err();
        parse_row_key(b"ip\x01a\x01b\xff").unwrap_err();
    }

    #[test]
    fn keys_are_shown_to_people() {
        assert_eq!(show_key(&Space::plugin("t").key(b"a\0\n")), "key `a\\x00\\n` of `t`");
        assert!(show_key(&Space::plugin("t").key(&[b'x'; 1000])).len() < 200);
    }
}
