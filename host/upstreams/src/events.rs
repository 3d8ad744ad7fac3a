//! Events of a stream over HTTP.
//!
//! Owns the reading of `text/event-stream`, as the WHATWG describes it: of each event the data, as it comes, whole events only.
//! Separate because it is pure. Other fields are for browsers and are passed over.
//!
//! Bounded: a line, and the data of an event, have so many bytes at most. On failure: [`TooLong`].

use bytes::{Buf, Bytes};

/// A line or an event is longer than it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

pub(crate) struct Events {
    bytes_max: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    /// The last line ended with a carriage return: a line feed that follows belongs to it.
    after_return: bool,
}

impl Events {
    pub fn new(bytes_max: usize) -> Events {
        Events { bytes_max, line: Vec::new(), data: Vec::new(), has_data: false, after_return: false }
    }

    /// Takes from `bytes` up to the end of the next event, and returns its data; none when more bytes are needed.
    pub fn next(&mut self, bytes: &mut Bytes) -> Result<Option<Vec<u8>>, TooLong> {
        while !bytes.is_empty() {
            if std::mem::take(&mut self.after_return) && bytes[0] == b'\n' {
                bytes.advance(1);
                continue;
            }
            let end = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            let part = &bytes[..end.unwrap_or(bytes.len())];
            if self.line.len() + part.len() > self.bytes_max {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            let Some(end) = end else {
                bytes.clear();
                break;
            };
            self.after_return = bytes[end] == b'\r';
            bytes.advance(end + 1);
            if let Some(data) = self.end_line()? {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Whether an event has begun that is not whole yet.
    pub fn is_within(&self) -> bool {
        self.has_data || !self.line.is_empty()
    }

    fn end_line(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        if self.line.is_empty() {
            let had_data = std::mem::take(&mut self.has_data);
            return Ok(had_data.then(|| std::mem::take(&mut self.data)));
        }
        let value = match self.line.strip_prefix(b"data") {
            Some([]) => Some(&[][..]),
            Some([b':', b' ', value @ ..] | [b':', value @ ..]) => Some(value),
            // A comment, or a field that says nothing here.
            _ => None,
        };
        if let Some(value) = value {
            let joint = usize::from(self.has_data);
            if self.data.len() + joint + value.len() > self.bytes_max {
                return Err(TooLong);
            }
            if self.has_data {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value);
            self.has_data = true;
        }
        self.line.clear();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All events of a text that comes in pieces of so many bytes, and whether one was left unfinished.
    fn events(text: &[u8], piece_bytes: usize, bytes_max: usize) -> Result<(Vec<String>, bool), TooLong> {
        let (mut events, mut found) = (Events::new(bytes_max), Vec::new());
        for piece in text.chunks(piece_bytes) {
            let mut bytes = Bytes::copy_from_slice(piece);
            while let Some(data) = events.next(&mut bytes)? {
                found.push(String::from_utf8(data).unwrap());
            }
        }
        Ok((found, events.is_within()))
    }

    #[test]
    fn the_data_of_each_event_comes_out_however_it_is_cut() {
        fn check(text: &str, expect: &[&str], is_within: bool) {
            for piece_bytes in [1, 2, 3, 7, 1000] {
                let (found, within) = events(text.as_bytes(), piece_bytes, 1000).unwrap();
                assert_eq!(
                    (found.iter().map(String::as_str).collect::<Vec<_>>(), within),
                    (expect.to_vec(), is_within)
                );
            }
        }
        check("data: a\n\ndata: b\n\n", &["a", "b"], false);
        check("data: a\r\n\r\ndata: b\r\n\r\n", &["a", "b"], false);
        check("data: a\r\rdata: b\r\r", &["a", "b"], false);
        check("data:a\n\n", &["a"], false);
        check("data:  a\n\n", &[" a"], false);
        check("data: a\ndata: b\n\n", &["a\nb"], false);
        check("data\n\n", &[""], false);
        check("data\ndata\n\n", &["\n"], false);
        check(": comment\nevent: e\nid: 1\nretry: 3\ndatum: x\ndata: a\n\n", &["a"], false);
        check(": comment\n\n", &[], false);
        check("\n\n\n", &[], false);
        check("data: a\n\ndata: b\n", &["a"], true);
        check("data: a\n\ndat", &["a"], true);
    }

    #[test]
    fn a_line_and_an_event_may_have_as_many_bytes_as_the_limit_and_not_one_more() {
        fn check(text: &str, bytes_max: usize) {
            for piece_bytes in [1, 1000] {
                assert!(events(text.as_bytes(), piece_bytes, bytes_max).is_ok(), "{text}");
                assert_eq!(events(text.as_bytes(), piece_bytes, bytes_max - 1), Err(TooLong), "{text}");
            }
        }
        check("data: abcd\n\n", 10);
        check(": a comment", 11);
        check("data: ab\ndata: cdefg\ndata: h\n\n", 10 + 1);
    }

    proptest! {
        /// Whatever comes is read without a panic, and how it is cut makes no difference.
        #[test]
        fn cuts_make_no_difference(
            text in "(data|:|: |a|ü|\r|\n|\r\n|\n\n|event){0,40}", piece_bytes in 1_usize..9,
        ) {
            let whole = events(text.as_bytes(), usize::MAX, 50);
            prop_assert_eq!(events(text.as_bytes(), piece_bytes, 50), whole);
        }
    }
}
