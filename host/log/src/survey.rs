//! What a damaged log still gives, and what it does not.
//!
//! Reads every segment as far as it can, goes on behind what is damaged (a frame proves itself, see `format`), and says
//! which records above those that the caller has elsewhere can still be had, and which cannot. Separate from recovery, which
//! must never guess: here somebody has asked. Changes nothing.
//!
//! A header that is damaged outside of its salt is made again from the file's name, if the first frame confirms the salt.
//! Where it is not, lengths and sequences are followed without proof, to say how far the segment seemed to go.
//!
//! Bounded by one record in memory and [`NAMED_MAX`] named damages. On failure: errors are those of the disk, of a format
//! that is not this one, or of the caller's visitor.

use std::path::Path;

use mainstay_base::{Disk, Error, Result};

use crate::format::{Corruption, Frame, HEADER_BYTES, Header, plain_frame, segment_first, segment_path};
use crate::reader::{Opening, Reader, Step};

/// Damages that a survey names; it counts the others.
pub const NAMED_MAX: usize = 16;

/// What was found; see [`survey`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Survey {
    /// The oldest sequence that a segment is named after; none when there is no segment.
    pub first: Option<u64>,
    /// Records that were read whole.
    pub records: u64,
    /// The newest sequence that anything in the log speaks of, readable or not; 0 when nothing does.
    pub newest: u64,
    /// Every record above `have` and up to this one was read; `have` when there is none.
    pub readable_to: u64,
    /// Whether the last segment tells where the log ends. If not, there may have been records above `newest`.
    pub is_end_known: bool,
    /// Bytes of a torn tail: the next opening cuts them, and nothing in them was acknowledged.
    pub torn_bytes: u64,
    /// What is damaged, at most [`NAMED_MAX`] of it.
    pub damage: Vec<Corruption>,
    /// How many damages there are.
    pub damages: u64,
}

impl Survey {
    /// The records above those of the caller that cannot be read, or stand behind one that cannot; none when all can.
    pub fn lost(&self) -> Option<(u64, u64)> {
        (self.newest > self.readable_to).then_some((self.readable_to + 1, self.newest))
    }

    fn note(&mut self, damage: Corruption) {
        self.damages += 1;
        if self.damage.len() < NAMED_MAX {
            self.damage.push(damage);
        }
    }
}

/// Look at the whole log of this folder. `have` is the newest record that the caller has elsewhere, with all below it; the
/// records above it are given to `visit` in order, up to the first that cannot be read.
pub fn survey(
    disk: &dyn Disk,
    folder: &Path,
    have: u64,
    visit: &mut dyn FnMut(u64, Vec<u8>) -> Result<()>,
) -> Result<Survey> {
    let names = match disk.list(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        names => names.map_err(|error| Error::io("list log folder", folder, error))?,
    };
    let firsts: Vec<u64> = names.iter().filter_map(|path| segment_first(path)).collect();
    let mut found = Survey { first: firsts.first().copied(), readable_to: have, ..Survey::default() };
    for (at, first) in firsts.iter().copied().enumerate() {
        let follower = firsts.get(at + 1).copied();
        let path = segment_path(folder, first);
        match open(disk, &path, first)? {
            Found::Readable(reader, damage) => {
                damage.into_iter().for_each(|damage| found.note(damage));
                read(&mut found, reader, first, follower, visit)?;
            }
            Found::Empty => found.newest = found.newest.max(first.saturating_sub(1)),
            Found::Unreadable(damage) => {
                found.note(damage);
                let (newest, is_marked) = follow(disk, &path, first)?;
                found.is_end_known = is_marked;
                found.newest = found.newest.max(follower.map_or(newest, |follower| follower - 1));
            }
        }
    }
    Ok(found)
}

enum Found {
    /// Its frames can be read; perhaps its header had to be made again.
    Readable(Reader, Option<Corruption>),
    /// Its creation was interrupted.
    Empty,
    /// Without the salt nothing in it can be told from chance.
    Unreadable(Corruption),
}

fn open(disk: &dyn Disk, path: &Path, first: u64) -> Result<Found> {
    let damage = |reason: &str| Corruption { file: path.to_owned(), offset: 0, sequence: first, reason: reason.into() };
    let opening = match Reader::open(disk, path.to_owned(), first) {
        Err(error) => match Corruption::of(&error) {
            Some(damage) => return Ok(Found::Unreadable(damage.clone())),
            None => return Err(error),
        },
        Ok(opening) => opening,
    };
    match opening {
        Opening::Good(reader) => Ok(Found::Readable(reader, None)),
        Opening::Unfinished => Ok(Found::Empty),
        Opening::Damaged => {
            let mut bytes = [0; HEADER_BYTES as usize];
            let file = disk.open(path).map_err(|error| Error::io("read log segment", path, error))?;
            file.read_at(&mut bytes, 0).map_err(|error| Error::io("read log segment", path, error))?;
            let header = Header { first, salt: Header::salt_of(&bytes) };
            let mut reader = Reader::with_header(disk, path.to_owned(), header)?;
            let damage = damage("its header is damaged");
            Ok(match reader.step(first)? {
                Step::Record { .. } | Step::Mark => {
                    reader.position = HEADER_BYTES;
                    Found::Readable(reader, Some(damage))
                }
                Step::Stop(_) => Found::Unreadable(damage),
            })
        }
    }
}

/// Read one segment to its end, over whatever is damaged in it.
fn read(
    found: &mut Survey,
    mut reader: Reader,
    first: u64,
    follower: Option<u64>,
    visit: &mut dyn FnMut(u64, Vec<u8>) -> Result<()>,
) -> Result<()> {
    let mut next = first;
    found.is_end_known = true;
    loop {
        match reader.step(next)? {
            Step::Record { payload, .. } => {
                found.records += 1;
                if next == found.readable_to + 1 {
                    visit(next, payload)?;
                    found.readable_to = next;
                }
                next += 1;
            }
            Step::Mark => {}
            Step::Stop(_) if follower == Some(next) => break,
            Step::Stop(reason) => {
                let damage = reader.damage(next, reason);
                match reader.find_frame(next)? {
                    Some(Frame { sequence, .. }) => {
                        found.note(damage);
                        next = sequence;
                    }
                    None if follower.is_some() => {
                        found.note(damage);
                        break;
                    }
                    None => {
                        found.torn_bytes = reader.rest(next)?.used_bytes;
                        break;
                    }
                }
            }
        }
    }
    found.newest = found.newest.max(follower.unwrap_or(next).saturating_sub(1));
    Ok(())
}

/// How far lengths and sequences lead, without proof: the newest sequence, or the one before the segment's first; and
/// whether the mark of a clean close stands there.
fn follow(disk: &dyn Disk, path: &Path, first: u64) -> Result<(u64, bool)> {
    let failed = |error| Error::io("read log segment", path, error);
    let file = disk.open(path).map_err(failed)?;
    let (mut at, mut next) = (HEADER_BYTES, first);
    loop {
        let mut bytes = [0; crate::format::FRAME_BYTES];
        let count = file.read_at(&mut bytes, at).map_err(failed)?;
        match plain_frame(&bytes[..count]) {
            Some((true, sequence, total_bytes)) if sequence == next => {
                next += 1;
                at += total_bytes;
            }
            Some((false, sequence, _)) if sequence == next => return Ok((next.saturating_sub(1), true)),
            _ => return Ok((next.saturating_sub(1), false)),
        }
    }
}
