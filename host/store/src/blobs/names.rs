//! Names: what leads to a blob, and listings that fold.
//!
//! A listing with a delimiter reads one key for each folded row, however many names lie below it: when a row folds, the
//! scan goes on behind everything that the fold covers.

use mainstay_base::{Error, Result};

use super::keys::{BLOB_NAME_BYTES_MAX, Digest, Record, check_blob_name, names_space, shown, visit_references};
use super::{BlobInfo, Blobs};
use crate::space::Space;
use crate::view::{KeyRange, ScanOptions, View};

/// Most rows of a listing.
pub const LISTING_LIMIT_MAX: u32 = 10_000;
/// The longest delimiter.
const DELIMITER_BYTES_MAX: usize = 64;
/// Names are read this many at a time; small at first, because the first may already fold.
const PAGE_NAMES_MAX: u32 = 1_000;
const PAGE_NAMES_FIRST: u32 = 16;

/// One row of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListingEntry {
    /// A name and its blob.
    Name(String, BlobInfo),
    /// Everything below this prefix, which ends with the delimiter.
    Prefix(String),
}

impl ListingEntry {
    /// The name or the prefix.
    pub fn text(&self) -> &str {
        match self {
            ListingEntry::Name(text, _) | ListingEntry::Prefix(text) => text,
        }
    }
}

/// Part of a listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The rows, in order.
    pub entries: Vec<ListingEntry>,
    /// Present when there is more: give it as `after`.
    pub next: Option<String>,
}

impl Blobs {
    /// What a name leads to, or none.
    pub fn lookup(&self, owner: &Space, name: &str) -> Result<Option<BlobInfo>> {
        check_blob_name(name)?;
        let view = self.inner.store.view();
        match view.get(&names_space(owner), name.as_bytes())? {
            Some(target) => info_of(&view, name, &target).map(Some),
            None => Ok(None),
        }
    }

    /// Names that start with `prefix`, ordered. With a delimiter, what lies behind its next occurrence is one row.
    pub fn names(
        &self,
        owner: &Space,
        prefix: &str,
        delimiter: Option<&str>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Listing> {
        check_listing(prefix, delimiter, after, limit)?;
        let mut walk = self.walk(owner, prefix, delimiter);
        walk.list(after, limit as usize)
    }

    pub(super) fn walk<'q>(&self, owner: &Space, prefix: &'q str, delimiter: Option<&'q str>) -> Walk<'q> {
        Walk { view: self.inner.store.view(), names: names_space(owner), prefix, delimiter, names_read: 0 }
    }

    /// Whether some name of this owner leads to the blob.
    pub fn readable_by(&self, owner: &Space, sha256: &str) -> Result<bool> {
        let digest = Digest::parse(sha256)?;
        let view = self.inner.store.view();
        let mut is_readable = false;
        visit_references(&view, digest, Some(owner), |reference| {
            is_readable = reference.is_live(&view, digest)?;
            Ok(!is_readable)
        })?;
        Ok(is_readable)
    }
}

fn check_listing(prefix: &str, delimiter: Option<&str>, after: Option<&str>, limit: u32) -> Result<()> {
    if !(1..=LISTING_LIMIT_MAX).contains(&limit) {
        return Err(Error::invalid(format!("the limit is {limit}; it must be 1 to {LISTING_LIMIT_MAX}")));
    }
    if delimiter.is_some_and(|delimiter| !(1..=DELIMITER_BYTES_MAX).contains(&delimiter.len())) {
        return Err(Error::invalid(format!("a delimiter has 1 to {DELIMITER_BYTES_MAX} bytes")));
    }
    for text in [Some(prefix), after].into_iter().flatten() {
        if text.len() > BLOB_NAME_BYTES_MAX {
            return Err(Error::invalid(format!("a prefix of names has at most {BLOB_NAME_BYTES_MAX} bytes")));
        }
    }
    Ok(())
}

/// One listing in progress.
pub(super) struct Walk<'q> {
    view: View,
    names: Space,
    prefix: &'q str,
    delimiter: Option<&'q str>,
    /// What it cost.
    pub(super) names_read: usize,
}

impl Walk<'_> {
    pub(super) fn list(&mut self, after: Option<&str>, limit: usize) -> Result<Listing> {
        let mut listing = Listing::default();
        let whole = KeyRange::prefix(self.prefix.as_bytes());
        let mut start = after.map_or(whole.start.clone(), |after| self.behind(after)).max(whole.start);
        let mut page_names = PAGE_NAMES_FIRST;
        loop {
            if whole.end.as_ref().is_some_and(|end| start >= *end) {
                return Ok(listing);
            }
            let range = KeyRange { start: start.clone(), end: whole.end.clone() };
            let page =
                self.view.scan(&self.names, &[range], &ScanOptions { limit: page_names, ..ScanOptions::default() })?;
            self.names_read += page.count as usize;
            let rows_before = listing.entries.len();
            for (key, target) in page.iter() {
                if key < &start[..] {
                    // Covered by a fold on this page.
                    continue;
                }
                if listing.entries.len() == limit {
                    listing.next = listing.entries.last().map(|last| last.text().to_owned());
                    return Ok(listing);
                }
                let name = as_name(key)?;
                let entry = match self.folded(name) {
                    Some(prefix) => ListingEntry::Prefix(prefix.to_owned()),
                    None => ListingEntry::Name(name.to_owned(), info_of(&self.view, name, target)?),
                };
                start = self.behind(entry.text());
                listing.entries.push(entry);
            }
            if page.next.is_none() {
                return Ok(listing);
            }
            // Where most names fold away, reading many at a time is reading what a fold covers.
            let rows = listing.entries.len() - rows_before;
            let is_worth_it = rows * 2 >= page.count as usize;
            page_names = if is_worth_it { (page_names * 4).min(PAGE_NAMES_MAX) } else { PAGE_NAMES_FIRST };
        }
    }

    /// What a name folds into: itself up to the first delimiter behind the prefix.
    fn folded<'n>(&self, name: &'n str) -> Option<&'n str> {
        let delimiter = self.delimiter?;
        let rest = name.strip_prefix(self.prefix)?;
        let at = rest.find(delimiter)?;
        Some(&name[..self.prefix.len() + at + delimiter.len()])
    }

    /// The first key behind a row: behind everything that a folded one covers, or right behind a name.
    fn behind(&self, row: &str) -> Vec<u8> {
        if self.folded(row).is_some_and(|folded| folded == row)
            && let Some(end) = KeyRange::prefix(row.as_bytes()).end
        {
            return end;
        }
        [row.as_bytes(), &[0]].concat()
    }
}

fn as_name(key: &[u8]) -> Result<&str> {
    std::str::from_utf8(key).map_err(|error| {
        let key = key.escape_ascii();
        Error::internal(format!("the name `{key}` of a blob is not text; restore the data folder")).with_source(error)
    })
}

fn info_of(view: &View, name: &str, target: &[u8]) -> Result<BlobInfo> {
    let dangling = || {
        let name = shown(name);
        Error::internal(format!(
            "the name `{name}` leads to a blob that is not there; restore the data folder from a backup"
        ))
    };
    let digest = Digest(target.try_into().map_err(|_| dangling())?);
    let record = Record::read(view, digest)?.ok_or_else(dangling)?;
    Ok(BlobInfo::new(digest, &record))
}
