//! A disk in memory that behaves as badly as a real one may.
//!
//! Owns a tree of files with two states each: what was written, and what is durable. [`SimDisk::crash`] keeps of
//! everything that was not synced only what a seed decides: whole 512-byte sectors of unsynced writes may be kept, lost or
//! kept in part (torn), and unsynced names may be kept or lost (after Pillai 2014, ALICE). [`Faults`] make operations fail:
//! a full disk, a sync that reports an error and drops the dirty pages (Rebello 2020), a bit that flips.

/// Which operations fail; all off by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Writes that would grow the sum of all files beyond this many bytes fail with `StorageFull`.
    pub capacity_bytes: Option<u64>,
    /// The next sync fails, and what it should have made durable is lost.
    pub fail_next_sync: bool,
}

/// A disk in memory; see the module.
pub struct SimDisk;
