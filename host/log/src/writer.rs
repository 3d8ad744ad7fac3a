//! Writes groups of records to the last segment and makes them durable.
//!
//! Separate from the thread that drives it, so that what it does to the disk stands in one place: one write and one sync a
//! group, a new segment when the last is full, and the way back when something fails. Invariant: behind `tail` the file
//! holds zeros or nothing, except while a group is being written.
//!
//! On failure: a write that fails is undone (cut, synced) and the log goes on; whatever could not be synced or undone is
//! fatal, because after a failed sync nobody knows what the disk holds (Rebello 2020). Bounded by the group it is given.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use mainstay_base::{Disk, DiskFile, Error, OsRandom, Random, Result};

use crate::LogOptions;
use crate::format::{HEADER_BYTES, Header, Kind, frame_bytes, push_frame};
use crate::reader::Reader;
use crate::segments::Segments;

/// The buffer that is kept between groups.
const BUFFER_BYTES_KEPT: usize = 1024 * 1024;

pub(crate) struct Writer {
    segments: Arc<Segments>,
    options: LogOptions,
    file: Box<dyn DiskFile>,
    path: PathBuf,
    header: Header,
    /// Where the next group goes.
    tail: u64,
    /// How far the file holds zeros that were written and synced: overwriting them changes no metadata.
    allocated: u64,
    /// A new segment could not be created: nothing more may go to the old one, or the leftover would contradict it.
    roll_due: bool,
    buffer: Vec<u8>,
}

/// Why a group was not written, and whether the log can go on.
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) fatal: bool,
}

impl Failure {
    /// The file is as it was before.
    fn undone(error: Error) -> Failure {
        Failure { error, fatal: false }
    }

    /// Nobody knows what the disk holds.
    fn fatal(doing: &str, path: &Path, error: std::io::Error) -> Failure {
        let message = format!(
            "cannot {doing} `{}`: {error}; whether the last changes are on disk is unknown, so the log takes no more; \
             check the disk and start again",
            path.display()
        );
        Failure { error: Error::unavailable(message).with_source(error), fatal: true }
    }
}

impl Writer {
    /// Go on behind what the reader has read.
    pub(crate) fn resume(segments: Arc<Segments>, options: LogOptions, reader: Reader) -> Writer {
        let Reader { file, path, header, position, length, .. } = reader;
        let (tail, allocated) = (position, length.max(position));
        Writer { segments, options, file, path, header, tail, allocated, roll_due: false, buffer: Vec::new() }
    }

    /// Start an empty log.
    pub(crate) fn create(segments: Arc<Segments>, options: LogOptions, first: u64) -> Result<Writer, Failure> {
        let (file, path, header) = create_segment(&*segments.disk, segments.path(first), &segments.folder, first)?;
        segments.push(first);
        let tail = HEADER_BYTES;
        Ok(Writer { segments, options, file, path, header, tail, allocated: tail, roll_due: false, buffer: Vec::new() })
    }

    pub(crate) fn segments(&self) -> &Arc<Segments> {
        &self.segments
    }

    /// Write the payloads, numbered from `first`, and make them durable.
    pub(crate) fn write<'a>(
        &mut self,
        first: u64,
        payloads: impl Iterator<Item = &'a [u8]> + Clone,
    ) -> Result<(), Failure> {
        let bytes: u64 = payloads.clone().map(|payload| frame_bytes(payload.len())).sum();
        // A segment without records is never full, whatever stands in it: its follower would have its name.
        let holds_records = first > self.header.first;
        let is_full = holds_records && self.tail + bytes > self.options.segment_bytes;
        if is_full || self.roll_due {
            self.roll(first)?;
        }
        self.buffer.clear();
        for (sequence, payload) in (first..).zip(payloads) {
            push_frame(&mut self.buffer, self.header.salt, Kind::Record, first, sequence, payload);
        }
        self.flush_buffer()
    }

    /// Say on disk that everything below `next` is durable, and give back what was allocated ahead.
    pub(crate) fn close(&mut self, next: u64) -> Result<()> {
        self.buffer.clear();
        push_frame(&mut self.buffer, self.header.salt, Kind::Mark, next, next, &[]);
        let mark_end = self.tail + self.buffer.len() as u64;
        // Without room for the mark the log is as good, only less sure of itself: leave it out.
        let end = if self.file.write_at(&self.buffer, self.tail).is_ok() { mark_end } else { self.tail };
        self.file.set_length(end).map_err(|error| Error::io("close log segment", &self.path, error))?;
        self.file.sync().map_err(|error| Error::io("sync log segment", &self.path, error))
    }

    fn flush_buffer(&mut self) -> Result<(), Failure> {
        let end = self.tail + self.buffer.len() as u64;
        if let Err(error) = self.file.write_at(&self.buffer, self.tail) {
            let error = Error::io("write log segment", &self.path, error);
            return Err(self.undo(error));
        }
        if end > self.allocated {
            self.allocate_behind(end)?;
        }
        self.file.sync().map_err(|error| Failure::fatal("sync log segment", &self.path, error))?;
        self.tail = end;
        if self.buffer.capacity() > BUFFER_BYTES_KEPT {
            self.buffer = Vec::new();
        }
        Ok(())
    }

    /// Write zeros behind `end`, so that the next groups overwrite instead of growing the file: their sync has no metadata
    /// to write. Not worth it for groups so large that the zeros would not serve several.
    fn allocate_behind(&mut self, end: u64) -> Result<(), Failure> {
        self.allocated = end;
        let ahead = self.options.allocate_bytes.min(self.options.segment_bytes.saturating_sub(end));
        if ahead < 4 * self.buffer.len() as u64 {
            return Ok(());
        }
        match self.file.write_at(&vec![0; ahead as usize], end) {
            Ok(()) => self.allocated = end + ahead,
            // The disk is nearly full: the group itself has its place, so leave the rest to others.
            Err(_) => self
                .file
                .set_length(end)
                .map_err(|error| Failure::fatal("give back space of log segment", &self.path, error))?,
        }
        Ok(())
    }

    /// After a failed write: leave the file as it was before it. Only once that is durable may anyone hear of the failure,
    /// or a record that was reported as failed could come back after a crash.
    fn undo(&mut self, error: Error) -> Failure {
        self.allocated = self.tail;
        match self.file.set_length(self.tail).and_then(|()| self.file.sync()) {
            Ok(()) => Failure::undone(error),
            Err(error) => Failure::fatal("undo a failed write of log segment", &self.path, error),
        }
    }

    /// Begin a new segment. Everything in the old one is synced by now.
    fn roll(&mut self, first: u64) -> Result<(), Failure> {
        assert!(first > self.header.first, "segments rise");
        self.roll_due = true;
        let Segments { disk, folder, .. } = &*self.segments;
        let (file, path, header) = create_segment(&**disk, self.segments.path(first), folder, first)?;
        (self.file, self.path, self.header) = (file, path, header);
        (self.tail, self.allocated, self.roll_due) = (HEADER_BYTES, HEADER_BYTES, false);
        self.segments.push(first);
        Ok(())
    }
}

/// Create a segment whose header and name are durable.
fn create_segment(
    disk: &dyn Disk,
    path: PathBuf,
    folder: &Path,
    first: u64,
) -> Result<(Box<dyn DiskFile>, PathBuf, Header), Failure> {
    let failed = |error| Failure::undone(Error::io("create log segment", &path, error));
    let header = Header { first, salt: OsRandom.number() };
    let file = match disk.create(&path) {
        // What an earlier attempt left, before it ran out of space: it has no record.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            disk.remove(&path).and_then(|()| disk.create(&path))
        }
        other => other,
    }
    .map_err(failed)?;
    if let Err(error) = file.write_at(&header.encode(), 0) {
        // The next attempt removes it if this one cannot.
        let _ = disk.remove(&path);
        return Err(failed(error));
    }
    file.sync().map_err(|error| Failure::fatal("sync log segment", &path, error))?;
    disk.sync_folder(folder).map_err(|error| Failure::fatal("sync log folder", folder, error))?;
    Ok((file, path, header))
}

/// Remove a segment's file for good.
pub(crate) fn remove_segment(disk: &dyn Disk, folder: &Path, path: &Path) -> Result<()> {
    disk.remove(path).map_err(|error| Error::io("remove log segment", path, error))?;
    disk.sync_folder(folder).map_err(|error| Error::io("sync log folder", folder, error))
}
