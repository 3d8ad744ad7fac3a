//! Digests, records and references: how blobs lie in the ordered keys.
//!
//! In the host's space `blobs`, by the digest's 32 bytes: `b` the record of a stored blob; `t` a number that every link
//! changes, so that garbage collection notices links that it has not seen; `r` one key for each name that was given to the
//! blob. The names themselves lie in a space of their own for each owner, name to digest.
//!
//! Linking is blind: it reads nothing, and so it never conflicts with another link. A reference is therefore only a hint:
//! it counts while its name still leads to the blob, and stale ones are cleared away by garbage collection.

use std::fmt;

use bytes::Bytes;
use mainstay_base::{Error, OsRandom, Random, Result};
use sha2::{Digest as _, Sha256};

use crate::space::Space;
use crate::transaction::Transaction;
use crate::view::{KeyRange, ScanOptions, View};

/// The longest name.
pub const BLOB_NAME_BYTES_MAX: usize = 1_024;

const RECORD: u8 = b'b';
const TOUCHES: u8 = b't';
const REFERENCE: u8 = b'r';
const RECORD_VERSION: u8 = 1;
/// Of the name's own digest, in the key of a reference.
const NAME_DIGEST_BYTES: usize = 16;

/// The host's own space of blobs.
pub(super) fn space() -> Space {
    Space::host("blobs")
}

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Digest(pub [u8; 32]);

impl Digest {
    /// Read 64 lowercase hexadecimal digits.
    pub fn parse(text: &str) -> Result<Digest> {
        let mut bytes = [0; 32];
        let is_lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) if is_lower => Ok(Digest(bytes)),
            _ => Err(Error::invalid(format!(
                "`{}` is no SHA-256; give its 64 lowercase hexadecimal digits",
                shown(text)
            ))),
        }
    }

    fn key(self, kind: u8) -> [u8; 33] {
        let mut key = [kind; 33];
        key[1..].copy_from_slice(&self.0);
        key
    }

    pub fn record_key(self) -> [u8; 33] {
        self.key(RECORD)
    }

    pub fn touches_key(self) -> [u8; 33] {
        self.key(TOUCHES)
    }

    /// Read a key of a record back.
    pub fn of_record_key(key: &[u8]) -> Option<Digest> {
        let digest = key.strip_prefix(&[RECORD])?;
        Some(Digest(digest.try_into().ok()?))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// All records lie in this range.
pub(super) fn all_records() -> KeyRange {
    KeyRange::prefix(&[RECORD])
}

/// What is kept about a stored blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub md5: [u8; 16],
    pub size_bytes: u64,
    /// Set by garbage collection when it found nothing that refers to the blob.
    pub mark: Option<Mark>,
}

/// Since when nothing refers to a blob. Void once somebody links it, which changes `touches`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub since_ms: i64,
    pub touches: u64,
}

impl Record {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![RECORD_VERSION];
        out.extend(self.md5);
        out.extend(self.size_bytes.to_le_bytes());
        if let Some(mark) = self.mark {
            out.extend(mark.since_ms.to_le_bytes());
            out.extend(mark.touches.to_le_bytes());
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Record> {
        let rest = bytes.strip_prefix(&[RECORD_VERSION])?;
        let (md5, rest) = rest.split_first_chunk::<16>()?;
        let (size, rest) = rest.split_first_chunk::<8>()?;
        let mark = match rest {
            [] => None,
            _ => {
                let (since, rest) = rest.split_first_chunk::<8>()?;
                let touches: &[u8; 8] = rest.try_into().ok()?;
                Some(Mark { since_ms: i64::from_le_bytes(*since), touches: u64::from_le_bytes(*touches) })
            }
        };
        Some(Record { md5: *md5, size_bytes: u64::from_le_bytes(*size), mark })
    }

    /// Read a record from its stored form.
    pub fn parse(digest: Digest, bytes: &[u8]) -> Result<Record> {
        Record::decode(bytes).ok_or_else(|| {
            Error::internal(format!("the record of blob {digest} is damaged; restore the data folder from a backup"))
        })
    }

    /// The record of a blob that is stored.
    pub fn read(view: &View, digest: Digest) -> Result<Option<Record>> {
        let found = view.get(&space(), &digest.record_key())?;
        found.map(|bytes| Record::parse(digest, &bytes)).transpose()
    }
}

/// What the last link of a blob left; 0 before the first.
pub(super) fn touches(view: &View, digest: Digest) -> Result<u64> {
    let found = view.get(&space(), &digest.touches_key())?;
    Ok(found.and_then(|bytes| bytes[..].try_into().ok()).map_or(0, u64::from_le_bytes))
}

/// The space that an owner's names lie in.
pub(super) fn names_space(owner: &Space) -> Space {
    names_space_of(owner.prefix())
}

/// The same, from the owner's prefix: its kind, its name's length, its name.
fn names_space_of(owner: &[u8]) -> Space {
    let kind = if owner.first() == Some(&b'p') { "plugin" } else { "host" };
    let name = owner.get(2..).and_then(|name| std::str::from_utf8(name).ok()).unwrap_or_default();
    Space::host(&format!("blob-names/{kind}/{name}"))
}

/// The key of a reference: the blob, the owner, and enough of the name's digest to tell names apart.
fn reference_key(digest: Digest, owner: &Space, name: &[u8]) -> Vec<u8> {
    let name_digest = Sha256::digest(name);
    [&digest.key(REFERENCE)[..], owner.prefix(), &name_digest[..NAME_DIGEST_BYTES]].concat()
}

/// A reference that was read: where its name lies.
#[derive(Debug)]
pub(super) struct Reference {
    pub key: Vec<u8>,
    names: Space,
    name: Bytes,
}

impl Reference {
    fn parse(key: &[u8], name: &[u8]) -> Option<Reference> {
        let owner = key.get(33..key.len().checked_sub(NAME_DIGEST_BYTES)?)?;
        Some(Reference { key: key.to_vec(), names: names_space_of(owner), name: Bytes::copy_from_slice(name) })
    }

    /// Whether the name still leads to the blob.
    pub fn is_live(&self, view: &View, digest: Digest) -> Result<bool> {
        Ok(view.get(&self.names, &self.name)?.is_some_and(|target| target[..] == digest.0))
    }
}

/// References to a blob, of all owners or of one; `visit` says whether it wants more.
pub(super) fn visit_references(
    view: &View,
    digest: Digest,
    owner: Option<&Space>,
    mut visit: impl FnMut(Reference) -> Result<bool>,
) -> Result<()> {
    let owner = owner.map_or(&[][..], Space::prefix);
    let range = [KeyRange::prefix(&[&digest.key(REFERENCE)[..], owner].concat())];
    let mut options = ScanOptions { limit: 100, ..ScanOptions::default() };
    loop {
        let page = view.scan(&space(), &range, &options)?;
        for (key, name) in page.iter() {
            let reference = Reference::parse(key, name).ok_or_else(|| {
                Error::internal(format!(
                    "a reference to blob {digest} is damaged; restore the data folder from a backup"
                ))
            })?;
            if !visit(reference)? {
                return Ok(());
            }
        }
        match page.next {
            Some(next) => options.after = Some(next),
            None => return Ok(()),
        }
    }
}

/// Whether this is a name that a blob may have: a path without empty, `.` or `..` segments and without control characters.
pub fn check_blob_name(name: &str) -> Result<()> {
    let problem = if name.is_empty() {
        "it is empty"
    } else if name.len() > BLOB_NAME_BYTES_MAX {
        "it is longer than 1,024 bytes"
    } else if name.chars().any(char::is_control) {
        "it has control characters"
    } else if name.split('/').any(str::is_empty) {
        "it has an empty segment (a slash at an end, or two in a row)"
    } else if name.split('/').any(|segment| segment == "." || segment == "..") {
        "it has a segment `.` or `..`"
    } else {
        return Ok(());
    };
    Err(Error::invalid(format!("`{}` cannot name a blob: {problem}", shown(name))))
}

/// Give a blob a name when the transaction commits, replacing what the name led to. `not-found` at the commit if the blob
/// is not there.
pub fn link(tx: &mut Transaction, owner: &Space, name: &str, sha256: &str) -> Result<()> {
    check_blob_name(name)?;
    refer(tx, owner, name.as_bytes(), sha256)
}

/// Remove a name when the transaction commits.
pub fn unlink(tx: &mut Transaction, owner: &Space, name: &str) -> Result<()> {
    check_blob_name(name)?;
    release(tx, owner, name.as_bytes())
}

/// [`link`] for the host's own mechanisms: the name is any bytes, 1 to [`BLOB_NAME_BYTES_MAX`].
pub fn refer(tx: &mut Transaction, owner: &Space, name: &[u8], sha256: &str) -> Result<()> {
    let digest = Digest::parse(sha256)?;
    let space = space();
    let missing = Error::not_found(format!("there is no blob {digest}; store it, then link it"));
    tx.expect_present_or(&space, &digest.record_key(), missing)?;
    // A number, not a counter: the receipt's counters are the plugin's own.
    tx.put(&space, &digest.touches_key(), Bytes::copy_from_slice(&OsRandom.number().to_le_bytes()))?;
    tx.put(&space, &reference_key(digest, owner, name), Bytes::copy_from_slice(name))?;
    tx.put(&names_space(owner), name, Bytes::copy_from_slice(&digest.0))
}

/// [`unlink`] for the host's own mechanisms.
pub fn release(tx: &mut Transaction, owner: &Space, name: &[u8]) -> Result<()> {
    tx.delete(&names_space(owner), name)
}

/// [`release`] of every name with this prefix that there is when the transaction commits.
pub fn release_under(tx: &mut Transaction, owner: &Space, prefix: &[u8]) -> Result<()> {
    tx.delete_range(&names_space(owner), &KeyRange::prefix(prefix))
}

/// Text in a message: cut when long, control characters escaped.
pub(super) fn shown(text: &str) -> String {
    const SHOWN_CHARS: usize = 100;
    let mut shown: String = text.chars().take(SHOWN_CHARS).flat_map(char::escape_default).collect();
    if text.chars().nth(SHOWN_CHARS).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_mislead_are_refused() {
        fn check(name: &str, expect: Option<&str>) {
            match (check_blob_name(name), expect) {
                (Ok(()), None) => {}
                (Err(error), Some(expect)) => assert!(error.message().contains(expect), "{error}"),
                (result, _) => panic!("`{name}`: {result:?}"),
            }
        }
        check("a", None);
        check("a/b c/é.bin", None);
        check("...", None);
        check("a/..b/c..", None);
        check(&"n".repeat(BLOB_NAME_BYTES_MAX), None);
        check(&"n".repeat(BLOB_NAME_BYTES_MAX + 1), Some("1,024"));
        check("", Some("empty"));
        check("/a", Some("empty segment"));
        check("a/", Some("empty segment"));
        check("a//b", Some("empty segment"));
        check(".", Some("`..`"));
        check("a/../b", Some("`..`"));
        check("a/./b", Some("`..`"));
        check("..", Some("`..`"));
        check("a\0b", Some("control"));
        check("a\nb", Some("control"));
        check("a\u{85}b", Some("control"));
    }

    #[test]
    fn digests_are_read_strictly() {
        let good = "0123456789abcdef".repeat(4);
        assert_eq!(Digest::parse(&good).unwrap().to_string(), good);
        for bad in ["", "00", &good.to_uppercase(), &good[1..], &format!("{good}0"), &"g".repeat(64), "../../etc"] {
            assert!(Digest::parse(bad).unwrap_err().message().contains("64 lowercase"), "{bad}");
        }
    }

    #[test]
    fn records_are_read_back_and_nothing_else_is() {
        for mark in [None, Some(Mark { since_ms: -5, touches: 7 })] {
            let record = Record { md5: [3; 16], size_bytes: u64::MAX, mark };
            let bytes = record.encode();
            assert_eq!(Record::decode(&bytes), Some(record));
            for cut in 0..bytes.len() {
                // Without its mark a record is whole, too.
                assert_eq!(Record::decode(&bytes[..cut]).is_some(), cut == 25 && mark.is_some(), "{cut}");
            }
            assert_eq!(Record::decode(&[&bytes[..], &[0]].concat()), None);
        }
    }

    #[test]
    fn owners_have_names_of_their_own() {
        assert_eq!(names_space(&Space::plugin("a")).name(), "blob-names/plugin/a");
        assert_ne!(names_space(&Space::plugin("a")), names_space(&Space::host("a")));
        let digest = Digest([7; 32]);
        let key = reference_key(digest, &Space::plugin("a"), b"name");
        let reference = Reference::parse(&key, b"name").unwrap();
        assert_eq!(reference.names, names_space(&Space::plugin("a")));
    }
}
