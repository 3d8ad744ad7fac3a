//! Reads one segment, frame by frame, and says what stands behind the last good one.
//!
//! Separate because recovery and replay read the same way but judge differently. Bounded: a window of 256 KiB, or one
//! record if that is longer; a record is never believed to be longer than its file. A frame that does not fit is an answer
//! ([`Step::Stop`]), not an error; errors are only those of the disk.

use std::path::PathBuf;

use mainstay_base::{Disk, DiskFile, Error, Result};

use crate::format::{Corruption, FRAME_ALIGN, FRAME_BYTES, Frame, HEADER_BYTES, Header, HeaderFault, Kind};

const WINDOW_BYTES: usize = 256 * 1024;

/// An open segment and a place in it.
pub(crate) struct Reader {
    pub(crate) file: Box<dyn DiskFile>,
    pub(crate) path: PathBuf,
    pub(crate) header: Header,
    /// Where the next frame starts.
    pub(crate) position: u64,
    pub(crate) length: u64,
    window: Window,
}

/// Whether a segment could be opened.
pub(crate) enum Opening {
    Good(Reader),
    /// No header, and nothing but zeros behind it: its creation was interrupted, and it never held a record.
    Unfinished,
    /// The header is damaged, and records may stand behind it.
    Damaged,
}

/// What stands at the reader's position.
pub(crate) enum Step {
    Record { group_first: u64, payload: Vec<u8> },
    Mark,
    Stop(&'static str),
}

/// What stands behind the last good frame.
pub(crate) struct Rest {
    /// How many bytes up to the last one that is not zero.
    pub(crate) used_bytes: u64,
    /// Where a whole frame stands that was written after the missing record had been synced.
    pub(crate) proof_at: Option<u64>,
}

impl Reader {
    pub(crate) fn open(disk: &dyn Disk, path: PathBuf, first: u64) -> Result<Opening> {
        let failed = |error| Error::io("read log segment", &path, error);
        let file = disk.open(&path).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        let mut window = Window::default();
        let header = match Header::decode(window.peek(&*file, 0, HEADER_BYTES as usize).map_err(failed)?) {
            Ok(header) if header.first == first => header,
            Ok(header) => {
                let reason = format!("its header says {}: the file was renamed", header.first);
                return Err(Corruption { file: path, offset: 0, sequence: first, reason }.into());
            }
            Err(HeaderFault::Version(version)) => {
                let path = path.display();
                return Err(Error::invalid(format!(
                    "the log segment `{path}` has format version {version}, which this version cannot read; \
                     start the version that wrote it"
                )));
            }
            Err(HeaderFault::Damaged) => {
                let end = last_used_byte(&*file, &mut window, HEADER_BYTES, length).map_err(failed)?;
                return Ok(if end > HEADER_BYTES { Opening::Damaged } else { Opening::Unfinished });
            }
        };
        Ok(Opening::Good(Reader { file, path, header, position: HEADER_BYTES, length, window }))
    }

    /// A segment whose header was damaged, and is known from elsewhere.
    pub(crate) fn with_header(disk: &dyn Disk, path: PathBuf, header: Header) -> Result<Reader> {
        let failed = |error| Error::io("read log segment", &path, error);
        let file = disk.open(&path).map_err(failed)?;
        let length = file.length().map_err(failed)?;
        Ok(Reader { file, path, header, position: HEADER_BYTES, length, window: Window::default() })
    }

    /// Read the frame at the position. Only a whole frame with the expected sequence moves the position on.
    pub(crate) fn step(&mut self, expected: u64) -> Result<Step> {
        let Header { salt, .. } = self.header;
        let Some(frame) = Frame::decode(self.peek(self.position, FRAME_BYTES)?, salt) else {
            return Ok(Step::Stop("there is no whole record"));
        };
        if frame.sequence != expected {
            return Ok(Step::Stop("another record stands in its place"));
        }
        if self.position + frame.total_bytes() > self.length {
            return Ok(Step::Stop("the file ends inside it"));
        }
        let payload = self.peek(self.position + FRAME_BYTES as u64, frame.length as usize)?;
        if !frame.matches(salt, payload) {
            return Ok(Step::Stop("its checksum does not match"));
        }
        let step = match frame.kind {
            Kind::Record => Step::Record { group_first: frame.group_first, payload: payload.to_vec() },
            Kind::Mark => Step::Mark,
        };
        self.position += frame.total_bytes();
        Ok(step)
    }

    /// Look at everything behind the position, where record `missing` should stand.
    pub(crate) fn rest(&mut self, missing: u64) -> Result<Rest> {
        let end = last_used_byte(&*self.file, &mut self.window, self.position, self.length)
            .map_err(|error| Error::io("read log segment", &self.path, error))?;
        let proof = self.find(self.position, end, |frame| frame.group_first > missing)?;
        Ok(Rest { used_bytes: end - self.position, proof_at: proof.map(|(at, _)| at) })
    }

    /// Behind the position, where record `missing` should stand, look for the next whole frame, and go there.
    pub(crate) fn find_frame(&mut self, missing: u64) -> Result<Option<Frame>> {
        // The one that should stand here may stand later: then what is damaged is a mark.
        let found = self.find(self.position + FRAME_ALIGN, self.length, |frame| frame.sequence >= missing)?;
        Ok(found.map(|(at, frame)| {
            self.position = at;
            frame
        }))
    }

    /// The first whole header of a frame in a range that will do, and where it stands.
    fn find(&mut self, from: u64, end: u64, fits: impl Fn(&Frame) -> bool) -> Result<Option<(u64, Frame)>> {
        let salt = self.header.salt;
        let mut at = from;
        while at < end {
            let window = self.peek(at, WINDOW_BYTES)?;
            let frames = window.windows(FRAME_BYTES).step_by(FRAME_ALIGN as usize);
            let mut decoded = frames.map(|bytes| Frame::decode(bytes, salt)).enumerate();
            if let Some((index, frame)) = decoded.find_map(|(index, frame)| Some((index, frame.filter(&fits)?))) {
                return Ok(Some((at + index as u64 * FRAME_ALIGN, frame)));
            }
            // The next look starts before this one ends: a frame may stand across the border.
            at += (WINDOW_BYTES - FRAME_BYTES) as u64;
        }
        Ok(None)
    }

    /// What to say about the record that should stand at the position.
    pub(crate) fn corruption(&self, sequence: u64, reason: impl Into<String>) -> Error {
        self.damage(sequence, reason).into()
    }

    pub(crate) fn damage(&self, sequence: u64, reason: impl Into<String>) -> Corruption {
        Corruption { file: self.path.clone(), offset: self.position, sequence, reason: reason.into() }
    }

    fn peek(&mut self, offset: u64, count: usize) -> Result<&[u8]> {
        let Reader { window, file, path, .. } = self;
        window.peek(&**file, offset, count).map_err(|error| Error::io("read log segment", path, error))
    }
}

/// Where the last byte that is not zero ends; `from` when there is none at or after it.
fn last_used_byte(file: &dyn DiskFile, window: &mut Window, from: u64, length: u64) -> std::io::Result<u64> {
    let (mut end, mut at) = (from, from);
    while at < length {
        let bytes = window.peek(file, at, WINDOW_BYTES)?;
        if bytes.is_empty() {
            break;
        }
        if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        at += bytes.len() as u64;
    }
    Ok(end)
}

/// A piece of a file held in memory.
#[derive(Default)]
struct Window {
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// `count` bytes at `offset`; fewer at the end of the file.
    fn peek(&mut self, file: &dyn DiskFile, offset: u64, count: usize) -> std::io::Result<&[u8]> {
        let held = offset.checked_sub(self.start).is_some_and(|skip| skip as usize + count <= self.bytes.len());
        if !held {
            self.bytes.resize(count.max(WINDOW_BYTES), 0);
            let filled = file.read_at(&mut self.bytes, offset)?;
            self.bytes.truncate(filled);
            self.start = offset;
        }
        let rest = &self.bytes[(offset - self.start) as usize..];
        Ok(&rest[..count.min(rest.len())])
    }
}
