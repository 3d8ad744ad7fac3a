//! Ordered reading at a sequence: the memtable laid over the engine, one packed page at a time.
//!
//! Owns the merge and the page's layout. A scan goes in pieces: first a chunk of the memtable (at most
//! [`CHUNK_KEYS_MAX`] keys under its lock), then the engine up to where the chunk ends. Memtable *before* engine in every
//! piece: an entry on its way down is then in at least one of them, and the memtable's wins. So no lock is held for the
//! length of a scan, and the result is still one moment's state.
//!
//! Bounded by [`PAGE_BYTES_MAX`] and [`PAGE_ENTRIES_MAX`]. A token that does not fit the ranges is `invalid`.

use std::cmp::Ordering;

use bytes::Bytes;
use mainstay_base::{Error, Result};

use crate::engine::{Ordered, Span, Visit};
use crate::limits::{PAGE_BYTES_MAX, PAGE_ENTRIES_MAX, SCAN_RANGES_MAX, check_bound};
use crate::memtable::{CHUNK_KEYS_MAX, Memtable};
use crate::space::Space;

/// A half-open range of keys: `start` included, `end` excluded; no `end` means to the end of the key space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// First key.
    pub start: Vec<u8>,
    /// First key behind the range.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Every key that starts with these bytes.
    pub fn prefix(prefix: &[u8]) -> KeyRange {
        KeyRange { start: prefix.to_vec(), end: successor(prefix) }
    }

    /// The physical bounds.
    pub(crate) fn bounds(&self, space: &Space) -> Result<(Bytes, Bytes)> {
        check_bound(&self.start)?;
        let end = match &self.end {
            Some(end) => {
                check_bound(end)?;
                space.key(end)
            }
            None => space.end(),
        };
        Ok((space.key(&self.start), end))
    }
}

/// The first key that does not start with the prefix and comes behind all that do; none when there is no such key.
fn successor(prefix: &[u8]) -> Option<Vec<u8>> {
    let kept = prefix.iter().rposition(|&byte| byte != 0xff)?;
    let mut end = prefix[..=kept].to_vec();
    end[kept] += 1;
    Some(end)
}

/// How a scan goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScanOptions {
    /// Last key first; the ranges are still taken in the order given.
    pub reverse: bool,
    /// Leave values out: each is packed as empty.
    pub keys_only: bool,
    /// Most entries in the page, 1 to [`PAGE_ENTRIES_MAX`].
    pub limit: u32,
    /// `next` of the page before, with the same ranges and order.
    pub after: Option<Vec<u8>>,
}

impl Default for ScanOptions {
    fn default() -> ScanOptions {
        ScanOptions { reverse: false, keys_only: false, limit: 1_000, after: None }
    }
}

/// Part of a scan's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// For each entry: key length (u32, little endian), key, value length (u32, little endian), value.
    pub entries: Vec<u8>,
    /// How many entries are packed.
    pub count: u32,
    /// Present when there is more: give it as `after`.
    pub next: Option<Vec<u8>>,
}

impl Page {
    /// The entries.
    pub fn iter(&self) -> PageIter<'_> {
        PageIter { rest: &self.entries }
    }
}

impl<'a> IntoIterator for &'a Page {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = PageIter<'a>;

    fn into_iter(self) -> PageIter<'a> {
        self.iter()
    }
}

/// Entries of a page, unpacked.
pub struct PageIter<'a> {
    rest: &'a [u8],
}

impl<'a> PageIter<'a> {
    fn part(&mut self) -> Option<&'a [u8]> {
        let (length, rest) = self.rest.split_first_chunk::<4>()?;
        let (part, rest) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
        self.rest = rest;
        Some(part)
    }
}

impl<'a> Iterator for PageIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        Some((self.part()?, self.part()?))
    }
}

/// The two places that a state lies in, read at one sequence.
#[derive(Clone, Copy)]
pub(crate) struct Layers<'a> {
    pub memtable: &'a Memtable,
    pub engine: &'a dyn Ordered,
    pub sequence: u64,
}

impl Layers<'_> {
    /// Visit the entries of a span in order. Answers whether it came to the span's end.
    pub fn visit(&self, span: Span<'_>, reverse: bool, keys_only: bool, visit: &mut Visit<'_>) -> Result<bool> {
        let (mut start, mut end) = (Bytes::copy_from_slice(span.start), Bytes::copy_from_slice(span.end));
        // Most pages are small: the first chunk is, too.
        let mut keys_max = 64;
        loop {
            let whole = Span { start: &start, end: &end };
            let chunk = self.memtable.chunk(whole, reverse, self.sequence, keys_max);
            keys_max = CHUNK_KEYS_MAX;
            let Some(last) = chunk.more_behind else {
                return self.merge(chunk.entries, whole, reverse, keys_only, visit);
            };
            let behind_last = key_after(&last);
            let piece =
                if reverse { Span { start: &last, end: &end } } else { Span { start: &start, end: &behind_last } };
            if !self.merge(chunk.entries, piece, reverse, keys_only, visit)? {
                return Ok(false);
            }
            if reverse {
                end = last;
            } else {
                start = behind_last;
            }
        }
    }

    /// Visit one piece; `newer` holds the memtable's entries of it.
    fn merge(
        &self,
        newer: Vec<(Bytes, Option<Bytes>)>,
        span: Span<'_>,
        reverse: bool,
        keys_only: bool,
        visit: &mut Visit<'_>,
    ) -> Result<bool> {
        let mut newer = newer.into_iter().peekable();
        let mut wants_more = true;
        self.engine.scan(span, reverse, keys_only, &mut |key, value| {
            while let Some((newer_key, _)) = newer.peek() {
                let order = if reverse { key.cmp(newer_key) } else { newer_key[..].cmp(key) };
                if order == Ordering::Greater {
                    break;
                }
                if let Some((newer_key, Some(newer_value))) = newer.next() {
                    wants_more = visit(&newer_key, &newer_value);
                }
                if !wants_more || order == Ordering::Equal {
                    return wants_more;
                }
            }
            wants_more = visit(key, value);
            wants_more
        })?;
        for (key, value) in newer {
            if !wants_more {
                break;
            }
            if let Some(value) = value {
                wants_more = visit(&key, &value);
            }
        }
        Ok(wants_more)
    }
}

fn key_after(key: &[u8]) -> Bytes {
    [key, &[0]].concat().into()
}

/// Read one page.
pub(crate) fn scan_page(layers: Layers<'_>, space: &Space, ranges: &[KeyRange], options: &ScanOptions) -> Result<Page> {
    check_options(ranges, options)?;
    let (first, resume) = match &options.after {
        Some(token) => decode_token(token, ranges.len())?,
        None => (0, None),
    };
    let mut packer = Packer::new(space, options);
    for (number, range) in ranges.iter().enumerate().skip(first) {
        let (mut start, mut end) = range.bounds(space)?;
        if let (Some(key), true) = (resume, number == first) {
            if options.reverse {
                end = end.min(space.key(key));
            } else {
                start = start.max(key_after(&space.key(key)));
            }
        }
        packer.range = number;
        let span = Span { start: &start, end: &end };
        if !layers.visit(span, options.reverse, options.keys_only, &mut |key, value| packer.pack(key, value))? {
            break;
        }
    }
    Ok(packer.finish())
}

fn check_options(ranges: &[KeyRange], options: &ScanOptions) -> Result<()> {
    if ranges.len() > SCAN_RANGES_MAX {
        return Err(Error::invalid(format!("a scan of {} ranges; it may have {SCAN_RANGES_MAX}", ranges.len())));
    }
    if !(1..=PAGE_ENTRIES_MAX).contains(&options.limit) {
        return Err(Error::invalid(format!("a limit of {}; it must be 1 to {PAGE_ENTRIES_MAX}", options.limit)));
    }
    Ok(())
}

/// Where a page ended: the range's number, and the last key of that range that was packed (none: nothing yet).
fn encode_token(range: usize, key: Option<&[u8]>) -> Vec<u8> {
    let number = (range as u32).to_le_bytes();
    match key {
        Some(key) => [&number[..], &[1], key].concat(),
        None => [&number[..], &[0]].concat(),
    }
}

fn decode_token(token: &[u8], ranges: usize) -> Result<(usize, Option<&[u8]>)> {
    let read = || {
        let (number, rest) = token.split_first_chunk::<4>()?;
        let number = u32::from_le_bytes(*number) as usize;
        match rest.split_first()? {
            (1, key) if number < ranges && check_bound(key).is_ok() => Some((number, Some(key))),
            (0, []) if number < ranges => Some((number, None)),
            _ => None,
        }
    };
    read().ok_or_else(|| {
        Error::invalid("`after` is not the `next` of a page of this scan; give it with the same ranges and order")
    })
}

/// Fills a page until it is full.
struct Packer<'a> {
    space: &'a Space,
    keys_only: bool,
    limit: u32,
    page: Page,
    /// The range that is being read.
    range: usize,
    /// The range that the last packed entry came from, and where its key lies in the page.
    last: Option<(usize, std::ops::Range<usize>)>,
}

impl<'a> Packer<'a> {
    fn new(space: &'a Space, options: &ScanOptions) -> Packer<'a> {
        let page = Page::default();
        Packer { space, keys_only: options.keys_only, limit: options.limit, page, range: 0, last: None }
    }

    fn pack(&mut self, physical: &[u8], value: &[u8]) -> bool {
        let key = &physical[self.space.prefix().len()..];
        let value = if self.keys_only { &[] } else { value };
        let entries = &mut self.page.entries;
        let is_too_big = entries.len() + 8 + key.len() + value.len() > PAGE_BYTES_MAX && self.page.count > 0;
        if self.page.count == self.limit || is_too_big {
            let key = self.last.clone().filter(|(range, _)| *range == self.range).map(|(_, key)| &entries[key]);
            self.page.next = Some(encode_token(self.range, key));
            return false;
        }
        entries.extend_from_slice(&(key.len() as u32).to_le_bytes());
        let start = entries.len();
        entries.extend_from_slice(key);
        self.last = Some((self.range, start..start + key.len()));
        entries.extend_from_slice(&(value.len() as u32).to_le_bytes());
        entries.extend_from_slice(value);
        self.page.count += 1;
        true
    }

    fn finish(self) -> Page {
        self.page
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_where_they_should() {
        fn check(prefix: &[u8], expect: Option<&[u8]>) {
            assert_eq!(KeyRange::prefix(prefix).end.as_deref(), expect, "{prefix:?}");
        }
        check(b"a", Some(b"b"));
        check(b"a\xff", Some(b"b"));
        check(b"\xff\xff", None);
        check(b"", None);
    }

    #[test]
    fn tokens_are_read_back_and_others_refused() {
        assert_eq!(decode_token(&encode_token(3, Some(b"k")), 4).unwrap(), (3, Some(&b"k"[..])));
        assert_eq!(decode_token(&encode_token(0, None), 1).unwrap(), (0, None));
        for token in [&b""[..], b"\0\0\0\0", b"\x04\0\0\0\x01k", b"\0\0\0\0\x02k", b"\0\0\0\0\0k"] {
            assert_eq!(decode_token(token, 4).unwrap_err().kind(), mainstay_base::ErrorKind::Invalid);
        }
    }
}
