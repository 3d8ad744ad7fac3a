//! What is committed but not yet in the ordered engine: every key with its newest versions.
//!
//! Owns one sorted map from physical key to versions, each with the sequence of its commit. Versions enter when their
//! commit is handed to the log, before it is durable: readers at a sequence below do not see them, and guards do. They
//! leave when the engine holds them and no view is older ([`Memtable::forget`]), or when their commit failed
//! ([`Memtable::remove_commit`]). Separate because the two rules that make views right are kept here: a version is
//! inserted before its sequence becomes visible, and forgotten only after the engine has it. So whoever reads the memtable
//! *before* the engine misses nothing.
//!
//! Bounded by the commit pipeline, which waits while [`Memtable::bytes`] is above its limit. A lock is held for one commit's
//! writes or for [`CHUNK_KEYS_MAX`] keys of a scan, never for longer. Nothing here fails.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use smallvec::{SmallVec, smallvec};

use crate::engine::{Span, Write};

/// Most keys that one chunk of a scan looks at.
pub(crate) const CHUNK_KEYS_MAX: usize = 512;
/// What a version costs beside its bytes: its place in the map and the allocations' own.
const VERSION_OVERHEAD_BYTES: usize = 160;

struct Version {
    sequence: u64,
    /// None: the key was removed.
    value: Option<Bytes>,
}

/// Ascending by sequence, never empty.
type Versions = SmallVec<[Version; 1]>;

/// What the memtable knows of a key at some sequence.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// This is its value, or it is removed.
    Value(Option<Bytes>),
    /// Whatever the engine says.
    Nothing,
}

/// Part of a scan: entries in the scan's order, and the last key looked at when there may be more behind it.
pub(crate) struct Chunk {
    pub entries: Vec<(Bytes, Option<Bytes>)>,
    pub more_behind: Option<Bytes>,
}

#[derive(Default)]
pub(crate) struct Memtable {
    map: RwLock<BTreeMap<Bytes, Versions>>,
    bytes: AtomicUsize,
}

fn cost(key: &Bytes, value: &Option<Bytes>) -> usize {
    VERSION_OVERHEAD_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len)
}

/// How many of the versions are at or below the sequence; the newest ones are the likeliest to be asked for.
fn count_up_to(versions: &Versions, sequence: u64) -> usize {
    match versions.last() {
        Some(last) if last.sequence <= sequence => versions.len(),
        _ => versions.partition_point(|version| version.sequence <= sequence),
    }
}

fn at(versions: &Versions, sequence: u64) -> Option<&Version> {
    versions.get(count_up_to(versions, sequence).checked_sub(1)?)
}

impl Memtable {
    /// About how many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Add the writes of one commit, in order: of several to one key the last one stays.
    pub fn insert(&self, sequence: u64, writes: &[Write]) {
        let mut added = 0;
        let mut map = self.map.write();
        for Write { key, value } in writes {
            added += cost(key, value);
            let version = Version { sequence, value: value.clone() };
            match map.entry(key.clone()) {
                Entry::Vacant(entry) => {
                    entry.insert(smallvec![version]);
                }
                Entry::Occupied(mut entry) => {
                    let versions = entry.get_mut();
                    match versions.last_mut() {
                        Some(last) if last.sequence == sequence => {
                            added -= cost(key, &last.value);
                            last.value = version.value;
                        }
                        _ => versions.push(version),
                    }
                }
            }
        }
        self.bytes.fetch_add(added, Ordering::Relaxed);
    }

    /// The value of a key as it was at a sequence.
    pub fn get(&self, key: &[u8], sequence: u64) -> Known {
        let map = self.map.read();
        match map.get(key).and_then(|versions| at(versions, sequence)) {
            Some(version) => Known::Value(version.value.clone()),
            None => Known::Nothing,
        }
    }

    /// The newest version of a key, durable or not, if it is newer than the sequence.
    pub fn newer_than(&self, key: &[u8], sequence: u64) -> Option<Option<Bytes>> {
        let map = self.map.read();
        let newest = map.get(key)?.last()?;
        (newest.sequence > sequence).then(|| newest.value.clone())
    }

    /// The sequence of a key's newest version, durable or not.
    pub fn newest(&self, key: &[u8]) -> Option<u64> {
        self.map.read().get(key)?.last().map(|version| version.sequence)
    }

    /// Whether a key's version of this commit is here: it has neither failed nor been forgotten.
    pub fn holds(&self, key: &[u8], sequence: u64) -> bool {
        let map = self.map.read();
        map.get(key).is_some_and(|versions| versions.iter().any(|version| version.sequence == sequence))
    }

    /// Keys of a span whose newest version is newer than the sequence, and whether they hold something.
    pub fn newer_in(&self, span: Span<'_>, sequence: u64) -> Vec<(Bytes, bool)> {
        if span.is_empty() {
            return Vec::new();
        }
        let map = self.map.read();
        let bounds = (Bound::Included(span.start), Bound::Excluded(span.end));
        let newest = map.range::<[u8], _>(bounds).filter_map(|(key, versions)| Some((key, versions.last()?)));
        newest
            .filter(|(_, version)| version.sequence > sequence)
            .map(|(key, version)| (key.clone(), version.value.is_some()))
            .collect()
    }

    /// The next entries of a scan at a sequence, looking at no more than `keys_max` keys.
    pub fn chunk(&self, span: Span<'_>, reverse: bool, sequence: u64, keys_max: usize) -> Chunk {
        let mut chunk = Chunk { entries: Vec::new(), more_behind: None };
        if span.is_empty() {
            return chunk;
        }
        let map = self.map.read();
        let mut range = map.range::<[u8], _>((Bound::Included(span.start), Bound::Excluded(span.end)));
        let keys_max = keys_max.clamp(1, CHUNK_KEYS_MAX);
        for looked_at in 1.. {
            let Some((key, versions)) = (if reverse { range.next_back() } else { range.next() }) else { break };
            if let Some(version) = at(versions, sequence) {
                chunk.entries.push((key.clone(), version.value.clone()));
            }
            if looked_at == keys_max {
                chunk.more_behind = Some(key.clone());
                break;
            }
        }
        chunk
    }

    /// For each key its newest version at or below the sequence, as writes for the engine.
    pub fn newest_up_to(&self, keys: &[Bytes], sequence: u64) -> Vec<Write> {
        let mut writes = Vec::with_capacity(keys.len());
        for keys in keys.chunks(CHUNK_KEYS_MAX) {
            let map = self.map.read();
            let found = keys.iter().filter_map(|key| Some((key, at(map.get(key)?, sequence)?)));
            writes.extend(found.map(|(key, version)| Write { key: key.clone(), value: version.value.clone() }));
        }
        writes
    }

    /// Drop the versions at or below the sequence: the engine has them.
    pub fn forget(&self, keys: &[Bytes], sequence: u64) {
        for keys in keys.chunks(CHUNK_KEYS_MAX) {
            let mut dropped = 0;
            let mut map = self.map.write();
            for key in keys {
                let Some(versions) = map.get_mut(key) else { continue };
                let gone = versions.drain(..count_up_to(versions, sequence));
                dropped += gone.map(|version| cost(key, &version.value)).sum::<usize>();
                if versions.is_empty() {
                    map.remove(key);
                }
            }
            self.bytes.fetch_sub(dropped, Ordering::Relaxed);
        }
    }

    /// Take back a commit that failed.
    pub fn remove_commit(&self, keys: &[Bytes], sequence: u64) {
        let mut dropped = 0;
        let mut map = self.map.write();
        for key in keys {
            let Some(versions) = map.get_mut(key) else { continue };
            versions.retain(|version| {
                let stays = version.sequence != sequence;
                dropped += if stays { 0 } else { cost(key, &version.value) };
                stays
            });
            if versions.is_empty() {
                map.remove(key);
            }
        }
        self.bytes.fetch_sub(dropped, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(text: &'static str) -> Bytes {
        Bytes::from_static(text.as_bytes())
    }

    fn put(key: &'static str, value: &'static str) -> Write {
        Write { key: bytes(key), value: Some(bytes(value)) }
    }

    fn remove(key: &'static str) -> Write {
        Write { key: bytes(key), value: None }
    }

    fn value(text: &'static str) -> Known {
        Known::Value(Some(bytes(text)))
    }

    fn table() -> Memtable {
        let table = Memtable::default();
        table.insert(1, &[put("a", "1"), put("b", "1")]);
        table.insert(3, &[put("a", "3"), remove("b"), put("c", "x"), put("c", "3")]);
        table
    }

    #[test]
    fn every_sequence_sees_its_own_versions() {
        fn check(key: &str, sequence: u64, expect: Known) {
            assert_eq!(table().get(key.as_bytes(), sequence), expect, "{key} at {sequence}");
        }
        check("a", 0, Known::Nothing);
        check("a", 1, value("1"));
        check("a", 2, value("1"));
        check("a", 3, value("3"));
        check("b", 3, Known::Value(None));
        check("c", 2, Known::Nothing);
        check("c", 9, value("3"));
        check("d", 9, Known::Nothing);
    }

    #[test]
    fn guards_see_only_what_is_newer() {
        let table = table();
        assert_eq!(table.newer_than(b"a", 2), Some(Some(bytes("3"))));
        assert_eq!(table.newer_than(b"b", 2), Some(None));
        assert_eq!(table.newer_than(b"a", 3), None);
        let newer = table.newer_in(Span { start: b"a", end: b"c" }, 1);
        assert_eq!(newer, vec![(bytes("a"), true), (bytes("b"), false)]);
    }

    #[test]
    fn what_the_engine_has_is_forgotten_and_counted() {
        let table = table();
        let keys = [bytes("a"), bytes("b"), bytes("c")];
        assert_eq!(table.newest_up_to(&keys, 2), vec![put("a", "1"), put("b", "1")]);
        table.forget(&keys, 2);
        assert_eq!(table.get(b"a", 2), Known::Nothing);
        assert_eq!(table.get(b"a", 3), value("3"));
        table.forget(&keys, 3);
        assert_eq!((table.bytes(), table.map.read().len()), (0, 0));
    }

    #[test]
    fn a_failed_commit_leaves_nothing() {
        let table = table();
        table.remove_commit(&[bytes("a"), bytes("b"), bytes("c"), bytes("c")], 3);
        assert_eq!(table.get(b"a", 9), value("1"));
        assert_eq!(table.get(b"b", 9), value("1"));
        assert_eq!(table.get(b"c", 9), Known::Nothing);
        table.remove_commit(&[bytes("a"), bytes("b")], 1);
        assert_eq!((table.bytes(), table.map.read().len()), (0, 0));
    }

    #[test]
    fn chunks_look_at_a_bounded_number_of_keys() {
        let table = table();
        let span = Span { start: b"a", end: b"d" };
        let first = table.chunk(span, false, 3, 2);
        assert_eq!(first.entries, vec![(bytes("a"), Some(bytes("3"))), (bytes("b"), None)]);
        assert_eq!(first.more_behind, Some(bytes("b")));
        let backwards = table.chunk(span, true, 1, 10);
        assert_eq!(backwards.entries, vec![(bytes("b"), Some(bytes("1"))), (bytes("a"), Some(bytes("1")))]);
        assert_eq!(backwards.more_behind, None);
        // Keys without a visible version count too: a scan below them must not hold the lock for all of them.
        assert_eq!(table.chunk(span, false, 0, 2).more_behind, Some(bytes("b")));
    }
}
