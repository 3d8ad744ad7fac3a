//! The plugin's own ordered key space: reading it.
//!
//! Owns `get`, `get_many` and [`scan`]; changes are made through a [`Transaction`](crate::Transaction). All reads of one
//! call see one view, whatever others commit meanwhile. Bounded by: keys of 1 to 1,024 bytes, values of 4 MiB, pages of
//! 100,000 entries or 4 MiB. On failure: the host's typed error.

pub use crate::key::KeyRange;
use crate::packed::Reader;
use crate::{Error, Result, sys};
use serde::de::DeserializeOwned;

/// Most keys that the host takes in one `get_many`; longer lists are asked for in several calls of the same view.
const GET_MANY_KEYS: usize = 10_000;
/// Entries a page unless [`Scan::page_entries`] says otherwise.
const PAGE_ENTRIES: u32 = 10_000;

/// The value under a key, or none.
pub fn get(key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>> {
    sys::keys_get(key.as_ref())
}

/// The value under a key, parsed from JSON. Stored bytes that do not parse are an internal error.
pub fn get_json<T: DeserializeOwned>(key: impl AsRef<[u8]>) -> Result<Option<T>> {
    get(key)?.map(|bytes| from_stored_json(&bytes)).transpose()
}

/// The counter under a key; 0 if nothing was added to it yet.
pub fn counter(key: impl AsRef<[u8]>) -> Result<i64> {
    let Some(bytes) = get(key)? else { return Ok(0) };
    let bytes = bytes
        .try_into()
        .map_err(|_| Error::internal("a stored counter is not eight bytes; it was written with `put`"))?;
    Ok(i64::from_le_bytes(bytes))
}

/// The values under several keys, in the order asked.
pub fn get_many<K: AsRef<[u8]>>(keys: &[K]) -> Result<Vec<Option<Vec<u8>>>> {
    let mut values = Vec::with_capacity(keys.len());
    for chunk in keys.chunks(GET_MANY_KEYS) {
        values.extend(sys::keys_get_many(chunk.iter().map(|key| key.as_ref().to_vec()).collect())?);
    }
    Ok(values)
}

/// Drop this call's view; the next read sees every commit acknowledged so far.
pub fn renew() -> Result<()> {
    sys::keys_renew()
}

/// Scan a range of keys: a [`Key`](crate::key::Key)'s prefix, or any [`KeyRange`].
///
/// ```
/// # use mainstay_sdk::{keys, key::Key, transact, testing::Host};
/// # let host = Host::new();
/// # host.enter(|| {
/// transact(|tx, _| {
///     for guest in ["ada", "grace", "hedy"] {
///         tx.put(Key::new().text("guest").text(guest), guest)?;
///     }
///     Ok(())
/// })?;
/// let mut names = Vec::new();
/// for entry in keys::scan(Key::new().text("guest").prefix()).reverse() {
///     names.push(String::from_utf8(entry?.value).unwrap());
/// }
/// assert_eq!(names, ["hedy", "grace", "ada"]);
/// # Ok::<(), mainstay_sdk::Error>(())
/// # }).unwrap();
/// ```
pub fn scan(range: KeyRange) -> Scan {
    scan_ranges(vec![range])
}

/// Scan several ranges, one after the other, in the order given. At most 10,000.
pub fn scan_ranges(ranges: Vec<KeyRange>) -> Scan {
    Scan { ranges, options: ScanOptions { reverse: false, keys_only: false, limit: PAGE_ENTRIES, after: None } }
}

/// Every fragment appended under a key (see [`Transaction::append`](crate::Transaction::append)), in the order of commits.
pub fn fragments(key: impl AsRef<[u8]>) -> Scan {
    scan(KeyRange::prefix(key))
}

/// How a scan goes; see [`Scan`].
#[derive(Clone, Debug)]
#[doc(hidden)]
pub struct ScanOptions {
    pub reverse: bool,
    pub keys_only: bool,
    pub limit: u32,
    pub after: Option<Vec<u8>>,
}

/// A scan to be run: an iterator over entries, or page by page.
#[derive(Clone, Debug)]
#[must_use = "a scan does nothing until it is read"]
pub struct Scan {
    ranges: Vec<KeyRange>,
    options: ScanOptions,
}

impl Scan {
    /// Last key first. The ranges are still taken in the order given.
    pub fn reverse(mut self) -> Scan {
        self.options.reverse = true;
        self
    }

    /// Leave values out: each is empty.
    pub fn keys_only(mut self) -> Scan {
        self.options.keys_only = true;
        self
    }

    /// Most entries a page, 1 to 100,000. For an iteration it only sets how many arrive at once.
    pub fn page_entries(mut self, entries: u32) -> Scan {
        self.options.limit = entries;
        self
    }

    /// Go on behind a page: its [`Page::next`], with the same ranges and direction.
    pub fn after(mut self, next: Option<Vec<u8>>) -> Scan {
        self.options.after = next;
        self
    }

    /// One page.
    pub fn page(&self) -> Result<Page> {
        sys::keys_scan(&self.ranges, &self.options)
    }

    /// Page after page, to the end.
    pub fn pages(self) -> Pages {
        Pages { scan: self, done: false }
    }

    /// The first entry, if there is one.
    pub fn first(mut self) -> Result<Option<Entry>> {
        self.options.limit = 1;
        Ok(self.page()?.iter().next().map(|(key, value)| Entry { key: key.to_vec(), value: value.to_vec() }))
    }

    /// How many entries there are. Reads them all, without values.
    pub fn count(self) -> Result<u64> {
        self.keys_only().pages().try_fold(0, |sum, page| Ok(sum + u64::from(page?.count)))
    }
}

impl IntoIterator for Scan {
    type Item = Result<Entry>;
    type IntoIter = Entries;

    fn into_iter(self) -> Entries {
        Entries { pages: self.pages(), page: Vec::new(), at: 0 }
    }
}

/// One key and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The key.
    pub key: Vec<u8>,
    /// The value; empty in a scan of keys only.
    pub value: Vec<u8>,
}

/// Part of a scan's answer, in one buffer.
#[derive(Clone, Debug, Default)]
pub struct Page {
    pub(crate) entries: Vec<u8>,
    pub(crate) count: u32,
    pub(crate) next: Option<Vec<u8>>,
}

impl Page {
    /// How many entries it holds.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Where to go on, if there is more.
    pub fn next(&self) -> Option<&[u8]> {
        self.next.as_deref()
    }

    /// Keys and values, read in place.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut reader = Reader(&self.entries);
        (0..self.count).map(move |_| (reader.bytes(), reader.bytes()))
    }
}

/// Pages of a scan; ends after the first error.
#[derive(Debug)]
pub struct Pages {
    scan: Scan,
    done: bool,
}

impl Iterator for Pages {
    type Item = Result<Page>;

    fn next(&mut self) -> Option<Result<Page>> {
        if self.done {
            return None;
        }
        let page = self.scan.page();
        match &page {
            Ok(Page { next: Some(next), .. }) => self.scan.options.after = Some(next.clone()),
            _ => self.done = true,
        }
        Some(page)
    }
}

/// Entries of a scan, fetched page by page; ends after the first error.
#[derive(Debug)]
pub struct Entries {
    pages: Pages,
    page: Vec<u8>,
    at: usize,
}

impl Iterator for Entries {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        while self.at == self.page.len() {
            match self.pages.next()? {
                Ok(page) => (self.page, self.at) = (page.entries, 0),
                Err(error) => return Some(Err(error)),
            }
        }
        let mut reader = Reader(&self.page[self.at..]);
        let entry = Entry { key: reader.bytes().to_vec(), value: reader.bytes().to_vec() };
        self.at = self.page.len() - reader.0.len();
        Some(Ok(entry))
    }
}

pub(crate) fn from_stored_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes)
        .map_err(|error| Error::internal(format!("a stored value is not the JSON it should be: {error}")))
}
