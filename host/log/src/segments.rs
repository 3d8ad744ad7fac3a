//! Which segments there are: the list that writer, replay and dropping share.
//!
//! Separate because each of the three works on its own thread. Invariant: the list is in order and without gaps, and its
//! last entry is the one being written. Segments are removed from the front, one by one, each removal made durable before
//! the next: a crash never leaves a hole. Bounded by the number of segments; the lock is never held across a disk operation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_base::{Disk, Error, Result};
use parking_lot::Mutex;

use crate::format::segment_path;

pub(crate) struct Segments {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) folder: PathBuf,
    /// First sequences, rising.
    firsts: Mutex<Vec<u64>>,
    /// One at a time may drop. True: a removal was not made durable yet.
    dropping: Mutex<bool>,
}

impl Segments {
    pub(crate) fn new(disk: Arc<dyn Disk>, folder: &Path, firsts: Vec<u64>) -> Segments {
        Segments { disk, folder: folder.to_owned(), firsts: Mutex::new(firsts), dropping: Mutex::new(false) }
    }

    pub(crate) fn path(&self, first: u64) -> PathBuf {
        segment_path(&self.folder, first)
    }

    pub(crate) fn push(&self, first: u64) {
        self.firsts.lock().push(first);
    }

    pub(crate) fn firsts(&self) -> Vec<u64> {
        self.firsts.lock().clone()
    }

    /// The oldest sequence that is still there (or will be the first one written).
    pub(crate) fn first(&self) -> u64 {
        self.firsts.lock().first().copied().unwrap_or(1)
    }

    /// Remove every segment that holds only records below `sequence`; never the one being written.
    pub(crate) fn drop_below(&self, sequence: u64) -> Result<()> {
        let mut unsynced = self.dropping.lock();
        loop {
            if *unsynced {
                self.disk
                    .sync_folder(&self.folder)
                    .map_err(|error| Error::io("sync log folder", &self.folder, error))?;
                *unsynced = false;
            }
            let oldest = match self.firsts.lock()[..] {
                [oldest, next, ..] if next <= sequence => oldest,
                _ => return Ok(()),
            };
            let path = self.path(oldest);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io("remove log segment", &path, error));
                }
                _ => self.firsts.lock().remove(0),
            };
            *unsynced = true;
        }
    }
}
