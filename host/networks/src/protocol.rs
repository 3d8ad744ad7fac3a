//! What the host and the process of a graph say to each other: frames of a kind, a length and bytes.
//!
//! Owns the frames. Both sides are this binary, so there is one version. Bounded by: what the receiver takes at most. On failure: an
//! error of reading or writing; the parent then ends the child.

use std::io::{self, Read, Write};

/// The largest frame to the child: a model's file.
pub(crate) const FILE_BYTES_MAX: u64 = 4 << 30;
/// The largest frame to the host: scores of a batch, or a description.
pub(crate) const ANSWER_BYTES_MAX: u64 = 256 << 20;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To the child: the model's file. It answers with [`Kind::Described`].
    Load = 1,
    /// Its description, as JSON.
    Described = 2,
    /// To the child: rows, as `f32`. It answers with [`Kind::Answers`].
    Rows = 3,
    /// How many scores there are, then scores and labels, as `f64`.
    Answers = 4,
    /// Words instead of an answer: what was given is at fault.
    Refused = 5,
    /// The same: a limit is at fault, or a library that is not there.
    Unavailable = 6,
}

const KINDS: [Kind; 6] = [Kind::Load, Kind::Described, Kind::Rows, Kind::Answers, Kind::Refused, Kind::Unavailable];

pub(crate) fn send(to: &mut impl Write, kind: Kind, bytes: &[u8]) -> io::Result<()> {
    let mut head = [0; 9];
    head[0] = kind as u8;
    head[1..].copy_from_slice(&(bytes.len() as u64).to_le_bytes());
    to.write_all(&head)?;
    to.write_all(bytes)?;
    to.flush()
}

/// The next frame; nothing when the other side has ended before one.
pub(crate) fn receive(from: &mut impl Read, bytes_max: u64) -> io::Result<Option<(Kind, Vec<u8>)>> {
    let mut head = [0; 9];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let wrong = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let kind =
        KINDS.into_iter().find(|kind| *kind as u8 == head[0]).ok_or_else(|| wrong("a frame of no known kind"))?;
    let length = u64::from_le_bytes(head[1..].try_into().expect("eight bytes"));
    if length > bytes_max {
        return Err(wrong("a frame that is too large"));
    }
    let mut bytes = Vec::new();
    from.take(length).read_to_end(&mut bytes)?;
    if bytes.len() as u64 != length {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some((kind, bytes)))
}

pub(crate) fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

pub(crate) fn read_floats(bytes: &[u8]) -> Vec<f32> {
    let (whole, _) = bytes.as_chunks::<4>();
    whole.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}

pub(crate) fn answers(scores: &[f64], labels: &[f64]) -> Vec<u8> {
    let count = (scores.len() as u64).to_le_bytes();
    let values = scores.iter().chain(labels).flat_map(|value| value.to_le_bytes());
    count.into_iter().chain(values).collect()
}

/// Scores and labels; nothing if the bytes are not such.
pub(crate) fn read_answers(bytes: &[u8]) -> Option<(Vec<f64>, Vec<f64>)> {
    let (count, rest) = bytes.split_first_chunk::<8>()?;
    let count = usize::try_from(u64::from_le_bytes(*count)).ok()?;
    let (values, []) = rest.as_chunks::<8>() else { return None };
    let mut scores: Vec<f64> = values.iter().map(|bytes| f64::from_le_bytes(*bytes)).collect();
    let labels = (count <= scores.len()).then(|| scores.split_off(count))?;
    Some((scores, labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back() {
        let mut sent = Vec::new();
        send(&mut sent, Kind::Rows, &floats(&[1.5, f32::NAN])).unwrap();
        send(&mut sent, Kind::Answers, &answers(&[0.25, 0.5], &[7.0])).unwrap();
        let mut from = sent.as_slice();
        let (kind, bytes) = receive(&mut from, 64).unwrap().unwrap();
        assert_eq!(kind, Kind::Rows);
        assert!(matches!(read_floats(&bytes)[..], [1.5, nan] if nan.is_nan()));
        let (kind, bytes) = receive(&mut from, 64).unwrap().unwrap();
        assert_eq!((kind, read_answers(&bytes)), (Kind::Answers, Some((vec![0.25, 0.5], vec![7.0]))));
        assert_eq!(receive(&mut from, 64).unwrap(), None);
        for cut in 1..sent.len() {
            let mut from = &sent[..cut];
            while let Ok(Some(_)) = receive(&mut from, 64) {}
        }
        assert_eq!(read_answers(&[9; 7]), None);
        assert_eq!(read_answers(&answers(&[1.0], &[])[..9]), None);
        assert_eq!(read_answers(&u64::MAX.to_le_bytes()), None);
    }

    #[test]
    fn frames_that_cannot_be_are_refused() {
        let check = |head: &[u8], expected: io::ErrorKind| {
            assert_eq!(receive(&mut &*head, 64).unwrap_err().kind(), expected);
        };
        check(&[99, 0, 0, 0, 0, 0, 0, 0, 0], io::ErrorKind::InvalidData);
        check(&[3, 255, 255, 255, 255, 255, 255, 255, 255], io::ErrorKind::InvalidData);
        check(&[3, 8, 0, 0, 0, 0, 0, 0, 0, 1], io::ErrorKind::UnexpectedEof);
    }
}
