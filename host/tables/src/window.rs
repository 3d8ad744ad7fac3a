//! A window of a table as one frame.
//!
//! Owns the question and its limits. The work is done on the tables' own threads, so that whoever asks may wait on an
//! executor; a file that is found damaged while it is read is answered by asking again. Separate from scans, which give rows
//! chunk by chunk on the thread of the caller.
//!
//! Bounded by [`WindowLimits`]. On failure: `exhausted` names the limit; nothing is cut silently.

use std::time::Duration;

use mainstay_arrays::Frame;
use mainstay_base::Result;

use crate::damage::{Missing, Torn};
use crate::limits::DAMAGE_RETRIES;
use crate::scan::ScanOptions;
use crate::table::Table;

/// What one window may take.
#[derive(Clone, Debug)]
pub struct WindowLimits {
    /// Rows.
    pub rows: usize,
    /// Bytes of columns.
    pub bytes: usize,
    /// Time from start to end, waiting for its turn included.
    pub time: Duration,
}

impl Default for WindowLimits {
    fn default() -> WindowLimits {
        WindowLimits { rows: 50_000_000, bytes: 512 << 20, time: Duration::from_secs(60) }
    }
}

/// Rows of a window.
#[derive(Clone, Debug)]
pub struct WindowAnswer {
    /// The rows, in chunks as they lie: numbers and truth values without a copy, times as `i64` in microseconds.
    pub frame: Frame,
    /// Rows that are not among them because files are damaged.
    pub missing: Vec<Missing>,
}

impl Table {
    /// Rows of a window as a frame.
    pub async fn window(&self, options: &ScanOptions, limits: &WindowLimits) -> Result<WindowAnswer> {
        let (table, options, limits) = (self.clone(), options.clone(), limits.clone());
        let (pool, within) = (&self.inner.pool, limits.time);
        pool.run_blocking(within, move || table.window_here(&options, &limits)).await
    }

    /// The same, waiting on this thread; not to be called on a thread that runs an async executor.
    pub fn window_blocking(&self, options: &ScanOptions, limits: &WindowLimits) -> Result<WindowAnswer> {
        futures::executor::block_on(self.window(options, limits))
    }

    fn window_here(&self, options: &ScanOptions, limits: &WindowLimits) -> Result<WindowAnswer> {
        asked_again(|| {
            let (frame, missing) = self.scan(options)?.frame(limits.rows, limits.bytes)?;
            Ok(WindowAnswer { frame, missing })
        })
    }
}

/// Ask again when a file was found damaged after some of its rows were given.
pub(crate) fn asked_again<T>(mut ask: impl FnMut() -> Result<T>) -> Result<T> {
    for _ in 1..DAMAGE_RETRIES {
        match ask() {
            Err(error) if Torn::is_cause_of(&error) => {}
            answered => return answered,
        }
    }
    ask()
}
