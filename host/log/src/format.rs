//! The bytes of a segment: its header, its frames, and what a damaged one is called.
//!
//! Pure: no input or output, so that the layout stands in one place and can be tested byte by byte. Everything is little
//! endian. Bounded by the `u32` length of a payload.
//!
//! ```text
//! segment  header 64 B | frame | frame | … | zeros or end of file
//! header   magic 8 | version 4 | zero 4 | first sequence 8 | salt 8 | zero 28 | crc32 of all before 4
//! frame    payload length 4 | kind 4 | sequence 8 | group's first sequence 8 | crc32(salt, sequence, payload) 4
//!          | crc32(salt, the 28 bytes before) 4 | payload | zeros up to a multiple of 8
//! ```
//!
//! The salt is random per segment, so bytes inside a payload cannot pass for a frame. Each frame names the first sequence of
//! its group: a group is written only after everything before it was synced, so a whole frame of a group that starts at `g`
//! proves that all records below `g` were durable. That tells a torn tail from damage (see `recover`).

use std::path::{Path, PathBuf};

use mainstay_base::Error;

pub(crate) const HEADER_BYTES: u64 = 64;
pub(crate) const FRAME_BYTES: usize = 32;
pub(crate) const FRAME_ALIGN: u64 = 8;
const MAGIC: [u8; 8] = *b"mainstay";
const VERSION: u32 = 1;

/// What stands at the start of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) first: u64,
    pub(crate) salt: u64,
}

/// Why a segment's header cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HeaderFault {
    Damaged,
    Version(u32),
}

impl Header {
    pub(crate) fn encode(&self) -> [u8; HEADER_BYTES as usize] {
        let mut bytes = [0; HEADER_BYTES as usize];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.first.to_le_bytes());
        bytes[24..32].copy_from_slice(&self.salt.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The salt where a header has it, whatever else is wrong with the header.
    pub(crate) fn salt_of(bytes: &[u8; HEADER_BYTES as usize]) -> u64 {
        u64_at(bytes, 24)
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Header, HeaderFault> {
        if bytes.len() < HEADER_BYTES as usize
            || bytes[..8] != MAGIC
            || u32_at(bytes, 60) != crc32fast::hash(&bytes[..60])
        {
            return Err(HeaderFault::Damaged);
        }
        match u32_at(bytes, 8) {
            VERSION => Ok(Header { first: u64_at(bytes, 16), salt: u64_at(bytes, 24) }),
            other => Err(HeaderFault::Version(other)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A caller's payload.
    Record,
    /// Written at a clean close: everything below its sequence is durable. Takes no sequence itself.
    Mark,
}

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) length: u32,
    pub(crate) sequence: u64,
    pub(crate) group_first: u64,
    payload_crc: u32,
}

impl Frame {
    /// `None` for anything that was not written as a frame of this segment, whole.
    pub(crate) fn decode(bytes: &[u8], salt: u64) -> Option<Frame> {
        let bytes = bytes.get(..FRAME_BYTES)?;
        let kind = match u32_at(bytes, 4) {
            1 => Kind::Record,
            2 => Kind::Mark,
            _ => return None,
        };
        (u32_at(bytes, 28) == salted(salt, &bytes[..28])).then(|| Frame {
            kind,
            length: u32_at(bytes, 0),
            sequence: u64_at(bytes, 8),
            group_first: u64_at(bytes, 16),
            payload_crc: u32_at(bytes, 24),
        })
    }

    pub(crate) fn matches(&self, salt: u64, payload: &[u8]) -> bool {
        self.payload_crc == payload_crc(salt, self.sequence, payload)
    }

    /// Bytes from this frame's start to the next one's.
    pub(crate) fn total_bytes(&self) -> u64 {
        frame_bytes(self.length as usize)
    }
}

/// What a frame's header says, unproved: whether it is a record's, its sequence, and the bytes up to the next one.
pub(crate) fn plain_frame(bytes: &[u8]) -> Option<(bool, u64, u64)> {
    let bytes = bytes.get(..FRAME_BYTES)?;
    let is_record = match u32_at(bytes, 4) {
        1 => true,
        2 => false,
        _ => return None,
    };
    Some((is_record, u64_at(bytes, 8), frame_bytes(u32_at(bytes, 0) as usize)))
}

/// Bytes that a payload of this length takes in a segment.
pub(crate) fn frame_bytes(payload_length: usize) -> u64 {
    (FRAME_BYTES as u64 + payload_length as u64).next_multiple_of(FRAME_ALIGN)
}

/// Append a frame with its payload to the buffer.
pub(crate) fn push_frame(buffer: &mut Vec<u8>, salt: u64, kind: Kind, group_first: u64, sequence: u64, payload: &[u8]) {
    let start = buffer.len();
    let kind: u32 = match kind {
        Kind::Record => 1,
        Kind::Mark => 2,
    };
    buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&kind.to_le_bytes());
    buffer.extend_from_slice(&sequence.to_le_bytes());
    buffer.extend_from_slice(&group_first.to_le_bytes());
    buffer.extend_from_slice(&payload_crc(salt, sequence, payload).to_le_bytes());
    let crc = salted(salt, &buffer[start..]);
    buffer.extend_from_slice(&crc.to_le_bytes());
    buffer.extend_from_slice(payload);
    buffer.resize(start + frame_bytes(payload.len()) as usize, 0);
}

fn payload_crc(salt: u64, sequence: u64, payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(&sequence.to_le_bytes());
    hasher.update(payload);
    hasher.finalize()
}

fn salted(salt: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&salt.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// A segment's file, named by its first sequence so that names sort.
pub(crate) fn segment_path(folder: &Path, first: u64) -> PathBuf {
    folder.join(format!("{first:020}.log"))
}

/// The first sequence that a file's name states; `None` for files that are not ours.
pub(crate) fn segment_first(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(".log")?;
    (digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok()).flatten()
}

/// Acknowledged records cannot be read back. It is the source of the [`Error`] that [`open`](crate::Log::open) and
/// [`replay`](crate::Log::replay) answer with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corruption {
    /// The damaged segment.
    pub file: PathBuf,
    /// Where in it the damage starts, in bytes.
    pub offset: u64,
    /// The first sequence that cannot be read.
    pub sequence: u64,
    /// What is wrong there.
    pub reason: String,
}

impl Corruption {
    /// The damage that an error is about, if it is this.
    pub fn of(error: &Error) -> Option<&Corruption> {
        std::error::Error::source(error)?.downcast_ref()
    }
}

impl std::fmt::Display for Corruption {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Corruption { file, offset, sequence, reason } = self;
        write!(f, "the log segment `{}` is damaged at byte {offset} (record {sequence}): {reason}", file.display())
    }
}

impl std::error::Error for Corruption {}

impl From<Corruption> for Error {
    fn from(corruption: Corruption) -> Error {
        // What reads the log knows what it has elsewhere, and says what to do.
        Error::internal(format!("{corruption}. Records from there on were acknowledged, so nothing was changed"))
            .with_source(corruption)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_frames_come_back() {
        let header = Header { first: 7, salt: 99 };
        assert_eq!(Header::decode(&header.encode()), Ok(header));

        for length in [0_usize, 1, 7, 8, 9, 1000] {
            let payload = vec![length as u8; length];
            let mut buffer = Vec::new();
            push_frame(&mut buffer, 99, Kind::Record, 5, 6, &payload);
            let frame = Frame::decode(&buffer, 99).unwrap();
            assert_eq!((frame.kind, frame.sequence, frame.group_first), (Kind::Record, 6, 5));
            assert_eq!(frame.total_bytes(), buffer.len() as u64);
            assert!(frame.matches(99, &payload));
        }
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let header = Header { first: 7, salt: 99 }.encode();
        let mut frame = Vec::new();
        push_frame(&mut frame, 99, Kind::Record, 5, 6, b"payload!");
        for bit in 0..header.len() * 8 {
            let mut bytes = header;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::decode(&bytes), Err(HeaderFault::Damaged), "bit {bit}");
        }
        for bit in 0..frame.len() * 8 {
            let mut bytes = frame.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let whole = Frame::decode(&bytes, 99).is_some_and(|frame| frame.matches(99, &bytes[FRAME_BYTES..]));
            assert!(!whole, "bit {bit}");
        }
    }

    #[test]
    fn a_frame_of_another_segment_is_no_frame() {
        let mut frame = Vec::new();
        push_frame(&mut frame, 99, Kind::Record, 5, 6, b"payload!");
        assert_eq!(Frame::decode(&frame, 98), None);
        assert_eq!(Frame::decode(&[0; 64], 0), None);
    }

    #[test]
    fn only_our_names_are_segments() {
        fn check(name: &str, expect: Option<u64>) {
            assert_eq!(segment_first(Path::new(name)), expect, "{name}");
        }
        check("x/00000000000000000012.log", Some(12));
        check("00000000000000000012.log.tmp", None);
        check("12.log", None);
        check("+0000000000000000012.log", None);
        check("99999999999999999999.log", None);
        assert_eq!(segment_first(&segment_path(Path::new("a"), u64::MAX)), Some(u64::MAX));
    }
}
