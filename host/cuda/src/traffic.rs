//! What went to the device and back, and why not.
//!
//! Owns the counters that an operator reads. Bounded: a fixed number of them. Cannot fail.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Why a batch was left to the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The processor is estimated to be as fast.
    Cheaper,
    /// All lanes were taken.
    Busy,
    /// Not a form that the kernels know.
    Unsupported,
    /// Memory was full, even for small pieces.
    NoRoom,
    /// The device failed in the middle.
    Failed,
    /// There is no device, or it is not back yet.
    Away,
}

impl Reason {
    /// All of them, in the order of [`Stats::left`].
    pub const ALL: [Reason; 6] =
        [Reason::Cheaper, Reason::Busy, Reason::Unsupported, Reason::NoRoom, Reason::Failed, Reason::Away];

    /// Its name among metrics.
    pub fn name(self) -> &'static str {
        match self {
            Reason::Cheaper => "cheaper",
            Reason::Busy => "busy",
            Reason::Unsupported => "unsupported",
            Reason::NoRoom => "no-room",
            Reason::Failed => "failed",
            Reason::Away => "away",
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Traffic {
    batches: AtomicU64,
    rows: AtomicU64,
    launches: AtomicU64,
    sent_bytes: AtomicU64,
    fetched_bytes: AtomicU64,
    busy_ns: AtomicU64,
    losses: AtomicU64,
    left: [AtomicU64; 6],
}

/// Counters as they are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Batches that the device computed.
    pub batches: u64,
    /// Their rows.
    pub rows: u64,
    /// Kernels launched.
    pub launches: u64,
    /// Copied to the device.
    pub sent_bytes: u64,
    /// Copied back.
    pub fetched_bytes: u64,
    /// From the first copy of a batch to its last, added up over batches.
    pub busy_ns: u64,
    /// How often the device was lost.
    pub losses: u64,
    /// Batches left to the processor, by [`Reason::ALL`].
    pub left: [u64; 6],
    /// Device memory taken.
    pub memory_bytes: u64,
    /// Models and tables on the device.
    pub residents: u64,
    /// Whether the device is there.
    pub is_up: bool,
}

impl Traffic {
    pub fn sent(&self, bytes: usize) {
        self.sent_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub fn fetched(&self, bytes: usize) {
        self.fetched_bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub fn launched(&self) {
        self.launches.fetch_add(1, Relaxed);
    }

    pub fn lost(&self) {
        self.losses.fetch_add(1, Relaxed);
    }

    pub fn computed(&self, rows: usize, busy_ns: u64) {
        self.batches.fetch_add(1, Relaxed);
        self.rows.fetch_add(rows as u64, Relaxed);
        self.busy_ns.fetch_add(busy_ns, Relaxed);
    }

    pub fn left(&self, reason: Reason) {
        self.left[reason as usize].fetch_add(1, Relaxed);
    }

    pub fn stats(&self) -> Stats {
        Stats {
            batches: self.batches.load(Relaxed),
            rows: self.rows.load(Relaxed),
            launches: self.launches.load(Relaxed),
            sent_bytes: self.sent_bytes.load(Relaxed),
            fetched_bytes: self.fetched_bytes.load(Relaxed),
            busy_ns: self.busy_ns.load(Relaxed),
            losses: self.losses.load(Relaxed),
            left: std::array::from_fn(|at| self.left[at].load(Relaxed)),
            ..Stats::default()
        }
    }
}
