//! Changes that become visible and durable together, or not at all.
//!
//! Owns [`Transaction`] and [`transact`]. Separate from the rooms it writes to (keys, index, blobs, directory) because one
//! transaction spans them. Bounded by: 10,000 operations and 16 MiB a transaction; [`transact`] tries at most
//! [`ATTEMPTS_MAX`] times. On failure: nothing was changed; `conflict` names the first guard that failed.

use crate::columns::Frame;
use crate::directory::{Attachment, Edge, Label, Node};
use crate::index::Field;
use crate::outbound::Call;
use crate::{Error, ErrorKind, KeyRange, Result, keys, sys};
use serde::Serialize;

/// How often [`transact`] tries before it gives the conflict to its caller.
pub const ATTEMPTS_MAX: u32 = 32;

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Place of this commit in the host's log. Later commits have larger numbers.
    pub sequence: u64,
    /// The new value of each counter, in the order of the [`add`](Transaction::add) calls.
    pub counters: Vec<i64>,
}

/// A set of changes. Methods only collect; [`commit`](Transaction::commit) checks the guards and makes the changes. A
/// transaction that is dropped does nothing.
///
/// ```
/// # use mainstay_sdk::{Transaction, ErrorKind, keys, key::Key, testing::Host};
/// # let host = Host::new();
/// # host.enter(|| {
/// let name = Key::new().text("name").text("ada");
/// let tx = Transaction::begin()?;
/// tx.expect_absent(&name)?;
/// tx.put(&name, b"countess")?;
/// tx.add(Key::new().text("names"), 1)?;
/// assert_eq!(tx.commit()?.counters, [1]);
///
/// let again = Transaction::begin()?;
/// again.expect_absent(&name)?;
/// assert_eq!(again.commit().unwrap_err().kind(), ErrorKind::Conflict);
/// # Ok::<(), mainstay_sdk::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
#[must_use = "a transaction does nothing until it is committed"]
pub struct Transaction(pub(crate) sys::Transaction);

impl Transaction {
    /// Start collecting changes.
    pub fn begin() -> Result<Transaction> {
        Ok(Transaction(sys::begin()?))
    }

    /// The commit succeeds only if the key holds nothing. Sees commits that are still on their way to the disk.
    pub fn expect_absent(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.0.expect_absent(key.as_ref())
    }

    /// The commit succeeds only if the key holds something.
    pub fn expect_present(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.0.expect_present(key.as_ref())
    }

    /// The commit succeeds only if the key holds exactly this value.
    pub fn expect_value(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.0.expect_value(key.as_ref(), value.as_ref())
    }

    /// The commit succeeds only if nobody has written the key since this call's view was taken. The cheapest guard for
    /// read, change, write.
    pub fn expect_unchanged(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.0.expect_unchanged(key.as_ref())
    }

    /// Store a value, replacing what was there.
    pub fn put(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        self.0.put(key.as_ref(), value.as_ref())
    }

    /// Store a value as JSON.
    pub fn put_json(&self, key: impl AsRef<[u8]>, value: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(value)
            .map_err(|error| Error::internal(format!("cannot write a value as JSON: {error}")))?;
        self.put(key, json)
    }

    /// Remove a key. Removing one that is not there is no error.
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<()> {
        self.0.delete(key.as_ref())
    }

    /// Remove every key in the range that exists when the commit is applied; at most 100,000 of them.
    pub fn delete_range(&self, range: &KeyRange) -> Result<()> {
        self.0.delete_range(range)
    }

    /// Add one fragment to the sequence kept under `key`, without reading it; [`keys::fragments`] returns them in the order
    /// of commits. Appends never conflict.
    pub fn append(&self, key: impl AsRef<[u8]>, fragment: impl AsRef<[u8]>) -> Result<()> {
        self.0.append(key.as_ref(), fragment.as_ref())
    }

    /// Add to the counter under `key` (absent counts as 0). Additions never conflict; the new value is in the receipt.
    pub fn add(&self, key: impl AsRef<[u8]>, amount: i64) -> Result<()> {
        self.0.add(key.as_ref(), amount)
    }

    /// Changes to the documents of an index.
    pub fn index<'a>(&'a self, index: &'a str) -> IndexChanges<'a> {
        IndexChanges { tx: self, index }
    }

    /// Changes to the plugin's names of blobs.
    pub fn blobs(&self) -> BlobChanges<'_> {
        BlobChanges(self)
    }

    /// Changes to what plugins share.
    pub fn directory(&self) -> DirectoryChanges<'_> {
        DirectoryChanges(self)
    }

    /// Publish an event when the transaction commits. Needs the capability `events.publish`.
    pub fn publish(&self, topic: &str, kind: &str, key: Option<&str>, payload: &impl Serialize) -> Result<()> {
        let json = serde_json::to_vec(payload)
            .map_err(|error| Error::internal(format!("cannot write an event as JSON: {error}")))?;
        self.0.publish(topic, kind, key, &json)
    }

    /// Append the frame's rows to a table of this plugin's when the transaction commits. Needs the capability
    /// `tables.append`.
    pub fn append_rows(&self, table: &str, rows: &Frame) -> Result<()> {
        self.0.append_rows(table, &rows.0)
    }

    /// Start a run of a job when the transaction commits; the run's name, for [`jobs::find`](crate::jobs::find). `parameters`
    /// is a JSON object. Needs the capability `jobs.start`.
    pub fn start_job(&self, job: &str, parameters: &impl Serialize) -> Result<String> {
        let json = serde_json::to_string(parameters)
            .map_err(|error| Error::internal(format!("cannot write parameters as JSON: {error}")))?;
        self.0.start_job(job, &json)
    }

    /// Send a call once the transaction has committed, and again after failures that may pass; the name of the run that does
    /// it. Needs the capability `outbound`.
    pub fn deliver(&self, call: &Call) -> Result<String> {
        self.0.deliver(call)
    }

    /// Keep a secret for calls. It cannot be read again.
    pub fn put_secret(&self, name: &str, value: &[u8]) -> Result<()> {
        self.0.put_secret(name, value)
    }

    /// Forget a secret.
    pub fn remove_secret(&self, name: &str) -> Result<()> {
        self.0.remove_secret(name)
    }

    /// Make the changes. Returns when they are on disk; a `conflict` when what it conflicts with can be read after
    /// [`keys::renew`]. Calls that try again after conflicts over one key do so one after the other. This call's view stays
    /// as it is: what was committed is seen after [`keys::renew`] too.
    pub fn commit(self) -> Result<Receipt> {
        self.0.commit()
    }
}

/// See [`Transaction::index`].
#[derive(Clone, Copy, Debug)]
pub struct IndexChanges<'a> {
    tx: &'a Transaction,
    index: &'a str,
}

impl IndexChanges<'_> {
    /// Set fields of a document, which appears with its first field. At most 10,000 a call.
    pub fn set(&self, document: &str, fields: impl IntoIterator<Item = Field>) -> Result<()> {
        self.tx.0.set_fields(self.index, document, fields.into_iter().collect())
    }

    /// Remove a document and all its fields.
    pub fn remove(&self, document: &str) -> Result<()> {
        self.tx.0.remove_document(self.index, document)
    }
}

/// See [`Transaction::blobs`].
#[derive(Clone, Copy, Debug)]
pub struct BlobChanges<'a>(&'a Transaction);

impl BlobChanges<'_> {
    /// Give a blob a name, replacing what the name referred to. `not-found` at commit if the blob is not there.
    pub fn link(&self, name: &str, sha256: &str) -> Result<()> {
        self.0.0.link(name, sha256)
    }

    /// Remove a name.
    pub fn unlink(&self, name: &str) -> Result<()> {
        self.0.0.unlink(name)
    }
}

/// See [`Transaction::directory`].
#[derive(Clone, Copy, Debug)]
pub struct DirectoryChanges<'a>(&'a Transaction);

impl DirectoryChanges<'_> {
    /// Create a subject, or a version of one. `conflict` at commit if it is there already.
    pub fn create(&self, node: &Node, labels: &[Label], attachments: &[Attachment]) -> Result<()> {
        self.0.0.create(node, labels, attachments)
    }

    /// Set labels; an empty value removes one.
    pub fn set_labels(&self, node: &Node, labels: &[Label]) -> Result<()> {
        self.0.0.set_labels(node, labels)
    }

    /// Remove a version (its pointers with it) or a subject with everything below it.
    pub fn remove(&self, node: &Node) -> Result<()> {
        self.0.0.remove(node)
    }

    /// Add an edge; adding it again is no error.
    pub fn connect(&self, edge: &Edge) -> Result<()> {
        self.0.0.connect(edge)
    }

    /// Move a pointer of a subject, or remove it (version none). `denied` at commit while a protected pointer's version
    /// lacks evidence.
    pub fn move_pointer(&self, kind: &str, name: &str, pointer: &str, version: Option<u64>) -> Result<()> {
        self.0.0.move_pointer(kind, name, pointer, version)
    }
}

/// Run `change` in a transaction and commit it; when the commit meets a conflict, drop the view, and try again from the
/// start, at most [`ATTEMPTS_MAX`] times in all. `attempt` counts from 0. What `change` itself fails with is final, a
/// conflict too: it knows more than a failed guard does. Reads behind it take a new view, which sees the commit.
///
/// ```
/// # use mainstay_sdk::{transact, keys, key::Key, testing::Host};
/// # let host = Host::new();
/// # host.enter(|| {
/// let key = Key::new().text("greeting");
/// let (old, receipt) = transact(|tx, _attempt| {
///     let old = keys::get(&key)?;
///     tx.expect_unchanged(&key)?;
///     tx.put(&key, "hello")?;
///     Ok(old)
/// })?;
/// assert_eq!(old, None);
/// assert!(receipt.sequence > 0);
/// # Ok::<(), mainstay_sdk::Error>(())
/// # }).unwrap();
/// ```
pub fn transact<T>(change: impl FnMut(&Transaction, u32) -> Result<T>) -> Result<(T, Receipt)> {
    transact_or(change)
}

/// [`transact`] for a change that fails with an error type of the plugin's own.
pub fn transact_or<T, E: From<Error>>(
    mut change: impl FnMut(&Transaction, u32) -> Result<T, E>,
) -> Result<(T, Receipt), E> {
    let mut attempt = 0;
    loop {
        let tx = Transaction::begin()?;
        let value = change(&tx, attempt)?;
        match tx.commit() {
            Ok(receipt) => {
                keys::renew()?;
                return Ok((value, receipt));
            }
            Err(error) if error.kind() == ErrorKind::Conflict && attempt + 1 < ATTEMPTS_MAX => {
                attempt += 1;
                keys::renew()?;
            }
            Err(error) => return Err(error.into()),
        }
    }
}
