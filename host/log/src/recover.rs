//! Brings a folder of segments back to a state that can be written to.
//!
//! Separate because it decides the one question that must not be got wrong: which bytes were never acknowledged and may be
//! cut, and which were and must not be. The rules:
//! - Nothing is written to a segment before the one before it is durable, and nothing of a group before the groups before
//!   it are. So only the last group of the last segment can be torn. Cutting it loses nothing that was acknowledged.
//! - Where a record is missing, and a later segment or a whole frame of a later group exists, the record was durable once:
//!   that is damage, reported as [`Corruption`](crate::Corruption) and left as it is.
//! - What is kept of a torn group was perhaps never synced, and after a failed sync the page cache may hold what the disk
//!   does not (Rebello 2020). So the header and the last group are written again and synced before anyone sees them.
//!
//! One case cannot be told apart from a torn tail: damage inside the very last group after a crash. It is cut and reported
//! in [`Recovery`](crate::Recovery). After a clean close it can: a mark stands behind that group.
//!
//! Who reads the log may know that records up to some sequence were durable. A log that ends before it has lost them, however
//! it looks, and is left as it is.
//!
//! Older segments are verified as replay reads them. Bounded by one segment's length in time, by a window in memory.

use std::path::Path;
use std::sync::Arc;

use mainstay_base::{Disk, Error, Result};

use crate::format::{Corruption, HEADER_BYTES, segment_first, segment_path};
use crate::reader::{Opening, Reader, Step};
use crate::segments::Segments;
use crate::writer::{self, Writer};
use crate::{LogOptions, Recovery};

/// Bring the log back, or begin one at the record `begin`. `known`: records up to this one are known to have been durable.
pub(crate) fn recover(
    disk: Arc<dyn Disk>,
    folder: &Path,
    options: &LogOptions,
    begin: u64,
    known: u64,
) -> Result<(Writer, Recovery)> {
    create_folder(&*disk, folder)?;
    let names = disk.list(folder).map_err(|error| Error::io("list log folder", folder, error))?;
    let mut firsts: Vec<u64> = names.iter().filter_map(|path| segment_first(path)).collect();
    if firsts.is_empty() && known >= begin {
        return Err(ends_early(folder.to_owned(), 0, begin, known).into());
    }
    let unfinished = drop_unfinished(&*disk, folder, &mut firsts)?;
    let segments = Arc::new(Segments::new(disk, folder, firsts.clone()));

    let Some(last) = firsts.last().copied() else {
        // Sequences go on where the unfinished segment would have.
        let next = unfinished.unwrap_or(begin);
        let writer = Writer::create(segments, options.clone(), next).map_err(|f| f.error)?;
        return Ok((writer, Recovery { first: next, last: next - 1, cut_bytes: 0 }));
    };
    let path = segments.path(last);
    let Opening::Good(mut reader) = Reader::open(&*segments.disk, path, last)? else {
        return Err(header_damaged(&segments, last));
    };
    let tail = find_tail(&mut reader, last)?;
    if unfinished.is_some_and(|follower| tail.next < follower) {
        return Err(reader.corruption(tail.next, "the segment ends early: a later one was started"));
    }
    if tail.next <= known {
        return Err(ends_early(reader.path.clone(), reader.position, tail.next, known).into());
    }
    if tail.cut_bytes > 0 {
        let (file, offset, bytes) = (reader.path.display(), reader.position, tail.cut_bytes);
        tracing::warn!(%file, offset, bytes, next = tail.next, "cut a torn tail from the log; nothing in it was acknowledged");
    }
    let recovery = Recovery { first: firsts[0], last: tail.next - 1, cut_bytes: tail.cut_bytes };
    harden(&*segments.disk, folder, &mut reader, &tail)?;
    Ok((Writer::resume(segments, options.clone(), reader), recovery))
}

fn ends_early(file: std::path::PathBuf, offset: u64, sequence: u64, known: u64) -> Corruption {
    let reason =
        format!("the log ends here, but what reads it has seen records up to {known}: the log was replaced or removed");
    Corruption { file, offset, sequence, reason }
}

/// Where the last segment ends.
struct Tail {
    next: u64,
    cut_bytes: u64,
    /// Where the last group starts: all before it is durable.
    group_at: u64,
}

/// Move the reader behind the last good frame.
fn find_tail(reader: &mut Reader, first: u64) -> Result<Tail> {
    let (mut next, mut group, mut group_at) = (first, first, HEADER_BYTES);
    loop {
        let at = reader.position;
        match reader.step(next)? {
            Step::Record { group_first, .. } => {
                if group_first != group {
                    (group, group_at) = (group_first, at);
                }
                next += 1;
            }
            Step::Mark => {}
            Step::Stop(reason) => {
                let rest = reader.rest(next)?;
                if let Some(proof) = rest.proof_at {
                    let reason = format!("{reason}, but a later group stands at byte {proof}");
                    return Err(reader.corruption(next, reason));
                }
                return Ok(Tail { next, cut_bytes: rest.used_bytes, group_at });
            }
        }
    }
}

/// Make what was read durable, and what was cut gone.
fn harden(disk: &dyn Disk, folder: &Path, reader: &mut Reader, tail: &Tail) -> Result<()> {
    let Reader { file, path, header, position, length, .. } = reader;
    let failed = |error| Error::io("repair log segment", path, error);
    if tail.cut_bytes > 0 {
        file.set_length(*position).map_err(failed)?;
        *length = *position;
    }
    file.write_at(&header.encode(), 0).map_err(failed)?;
    let mut group = vec![0; (*position - tail.group_at) as usize];
    file.read_at(&mut group, tail.group_at).map_err(failed)?;
    file.write_at(&group, tail.group_at).map_err(failed)?;
    file.sync().map_err(failed)?;
    disk.sync_folder(folder).map_err(|error| Error::io("sync log folder", folder, error))
}

/// A segment whose creation was interrupted never held a record: remove it. Returns the sequence it was to start with.
fn drop_unfinished(disk: &dyn Disk, folder: &Path, firsts: &mut Vec<u64>) -> Result<Option<u64>> {
    let Some(last) = firsts.last().copied() else { return Ok(None) };
    let path = segment_path(folder, last);
    if !matches!(Reader::open(disk, path.clone(), last)?, Opening::Unfinished) {
        return Ok(None);
    }
    writer::remove_segment(disk, folder, &path)?;
    firsts.pop();
    Ok(Some(last))
}

pub(crate) fn header_damaged(segments: &Segments, first: u64) -> Error {
    let reason = "its header is damaged".to_owned();
    Corruption { file: segments.path(first), offset: 0, sequence: first, reason }.into()
}

/// Create the folder, and make its name and those of the folders above that were missing durable.
fn create_folder(disk: &dyn Disk, folder: &Path) -> Result<()> {
    let is_missing =
        |path: &Path| matches!(disk.list(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound);
    let above = folder.ancestors().skip(1).filter(|path| !path.as_os_str().is_empty());
    let missing = above.take_while(|path| is_missing(path)).count();
    disk.create_folder(folder).map_err(|error| Error::io("create log folder", folder, error))?;
    for path in folder.ancestors().take(missing + 1) {
        let Some(parent) = path.parent() else { break };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        disk.sync_folder(parent).map_err(|error| Error::io("sync folder", parent, error))?;
    }
    Ok(())
}
