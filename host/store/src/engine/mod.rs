//! The ordered view behind the log, as a trait, and its three engines.
//!
//! Owns what the store asks of an ordered map on disk: point reads, ordered scans, a batch that records how far the log
//! has been applied, and a checkpoint that says how far a crash cannot take it back. Separate because the engine is
//! replaceable: nothing above knows which one it is, and no engine knows of transactions, versions or views.
//!
//! An engine acknowledges nothing to anybody: the log did. It may lose what was written after its last checkpoint, as long
//! as what is left is the state after some batch, and [`Ordered::applied`] names it.

mod checked;
mod memory;
mod redb;
mod sled;

use bytes::Bytes;
use mainstay_base::Result;

pub(crate) use self::checked::Checked;
pub use self::memory::MemoryEngine;
pub use self::redb::RedbEngine;
pub use self::sled::SledEngine;

/// Which ordered engine stands behind the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EngineKind {
    /// A map in memory, rebuilt from the whole log when opened. For tests and for stores without files.
    Memory,
    /// sled 0.34.
    Sled,
    /// redb 4, on the store's own disk trait.
    #[default]
    Redb,
}

impl EngineKind {
    /// The engine's name, as configuration spells it.
    pub fn name(self) -> &'static str {
        match self {
            EngineKind::Memory => "memory",
            EngineKind::Sled => "sled",
            EngineKind::Redb => "redb",
        }
    }
}

/// One write of a batch; no value removes the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The key.
    pub key: Bytes,
    /// The value, or none to remove the key.
    pub value: Option<Bytes>,
}

/// Where a scan goes: `start` included, `end` excluded.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// First key.
    pub start: &'a [u8],
    /// First key that is not wanted any more.
    pub end: &'a [u8],
}

impl Span<'_> {
    /// Whether nothing can lie in it.
    pub fn is_empty(&self) -> bool {
        self.start >= self.end
    }
}

/// What a scan calls for each entry; `false` ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> bool + 'a;

/// An ordered map on disk, or where a disk would be.
pub trait Ordered: Send + Sync + 'static {
    /// The sequence that the last batch carried; 0 when there was none.
    fn applied(&self) -> Result<u64>;

    /// The value under a key.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>>;

    /// Visit the entries of a span in order, or last first. Need not be a snapshot, but must not miss an entry that is
    /// there all the time. With `keys_only` the visitor may be given empty values.
    fn scan(&self, span: Span<'_>, reverse: bool, keys_only: bool, visit: &mut Visit<'_>) -> Result<()>;

    /// Make all writes and set [`Ordered::applied`]. After a crash either all of it is there or none. When it fails,
    /// nothing of it is there, or the engine answers with errors from then on.
    fn write_batch(&self, applied: u64, writes: &[Write]) -> Result<()>;

    /// Make what was written durable, synced to the device, and return the sequence that no crash can take back.
    fn checkpoint(&self) -> Result<u64>;

    /// Look for damage with whatever means the engine has, and count the entries that were read. Slow: it reads everything.
    /// When it fails, the engine is not to be used any more.
    fn verify(&self) -> Result<u64> {
        Ok(0)
    }
}

/// Where engines keep [`Ordered::applied`]: before every space and every row.
const APPLIED_KEY: &[u8] = b"\0applied";

/// Read the value of [`APPLIED_KEY`].
fn decode_applied(engine: &str, value: Option<&[u8]>) -> Result<u64> {
    let Some(value) = value else { return Ok(0) };
    value.try_into().map(u64::from_le_bytes).map_err(|_| {
        mainstay_base::Error::internal(format!(
            "the {engine} index records its progress in {} bytes instead of 8: it is damaged; restore the data folder from a backup",
            value.len()
        ))
    })
}
