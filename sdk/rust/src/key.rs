//! Keys that sort the way their parts do.
//!
//! Owns the encoding: [`Key`] writes parts so that comparing bytes compares parts, one after the other, and no key is a
//! prefix of another one with the same kinds of parts; [`Parts`] reads them back. Separate from [`keys`](crate::keys)
//! because it is pure: nothing here talks to the host.
//!
//! Text and bytes end with one `00`; a `00` or `01` inside becomes `01 01` or `01 02`. Numbers are big-endian with the sign
//! bit turned; reals are turned so that they sort as IEEE total order, every NaN last. Bounded by: nothing; the host refuses
//! keys above 1,024 bytes. On failure: reading back what was not written so is [`ErrorKind::Internal`](crate::ErrorKind).

use crate::{Error, Result};

/// A key, built part by part.
///
/// ```
/// use mainstay_sdk::key::Key;
/// let key = |name: &str, step: i64| Key::new().text("metric").text(name).i64(step);
/// assert!(key("loss", -1) < key("loss", 2));
/// assert!(key("loss", 2) < key("loss2", -5));
/// let range = Key::new().text("metric").text("loss").prefix();
/// assert!(range.contains(key("loss", i64::MAX)) && !range.contains(key("loss2", 0)));
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Vec<u8>);

impl Key {
    /// A key without parts yet.
    pub fn new() -> Key {
        Key::default()
    }

    /// Add text. Sorts as its UTF-8 bytes.
    pub fn text(self, text: &str) -> Key {
        self.bytes(text.as_bytes())
    }

    /// Add bytes of any length.
    pub fn bytes(mut self, bytes: &[u8]) -> Key {
        self.0.reserve(bytes.len() + 1);
        for byte in bytes {
            match byte {
                0 | 1 => self.0.extend([1, byte + 1]),
                _ => self.0.push(*byte),
            }
        }
        self.0.push(0);
        self
    }

    /// Add one byte: a tag that keeps kinds of rows apart.
    pub fn tag(mut self, tag: u8) -> Key {
        self.0.push(tag);
        self
    }

    /// Add an unsigned number.
    pub fn u64(mut self, number: u64) -> Key {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Add an unsigned number, largest first.
    pub fn u64_descending(self, number: u64) -> Key {
        self.u64(!number)
    }

    /// Add a signed number.
    pub fn i64(self, number: i64) -> Key {
        self.u64(number as u64 ^ SIGN)
    }

    /// Add a signed number, largest first: newest first, for times.
    pub fn i64_descending(self, number: i64) -> Key {
        self.u64(!(number as u64 ^ SIGN))
    }

    /// Add a real number. Negative zero sorts before zero, NaN after everything.
    pub fn f64(self, number: f64) -> Key {
        let bits = if number.is_nan() { f64::NAN.to_bits() & !SIGN } else { number.to_bits() };
        self.u64(if bits & SIGN == 0 { bits ^ SIGN } else { !bits })
    }

    /// Add bytes as they are, without an end. Only as the last part, or where every value has the same length.
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Key {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    /// Every key that starts with these parts.
    pub fn prefix(&self) -> KeyRange {
        KeyRange::prefix(&self.0)
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

const SIGN: u64 = 1 << 63;

impl AsRef<[u8]> for Key {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Key> for Vec<u8> {
    fn from(key: Key) -> Vec<u8> {
        key.0
    }
}

/// A half-open range of keys: `start` included, `end` excluded, no `end` means to the end of the key space.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// First key of the range.
    pub start: Vec<u8>,
    /// First key behind it.
    pub end: Option<Vec<u8>>,
}

impl KeyRange {
    /// Every key there is.
    pub fn all() -> KeyRange {
        KeyRange::default()
    }

    /// From `start` to before `end`.
    pub fn between(start: impl AsRef<[u8]>, end: impl AsRef<[u8]>) -> KeyRange {
        KeyRange { start: start.as_ref().to_vec(), end: Some(end.as_ref().to_vec()) }
    }

    /// From `start` on.
    pub fn from(start: impl AsRef<[u8]>) -> KeyRange {
        KeyRange { start: start.as_ref().to_vec(), end: None }
    }

    /// Every key that starts with these bytes.
    pub fn prefix(prefix: impl AsRef<[u8]>) -> KeyRange {
        let start = prefix.as_ref().to_vec();
        let mut end = start.clone();
        while end.pop_if(|byte| *byte == u8::MAX).is_some() {}
        let end = end
            .last_mut()
            .is_some_and(|last| {
                *last += 1;
                true
            })
            .then_some(end);
        KeyRange { start, end }
    }

    /// The part of this range from `start` on (included).
    pub fn starting_at(mut self, start: impl AsRef<[u8]>) -> KeyRange {
        if start.as_ref() > self.start.as_slice() {
            self.start = start.as_ref().to_vec();
        }
        self
    }

    /// The part of this range before `end` (excluded).
    pub fn ending_before(mut self, end: impl AsRef<[u8]>) -> KeyRange {
        if self.end.as_deref().is_none_or(|old| end.as_ref() < old) {
            self.end = Some(end.as_ref().to_vec());
        }
        self
    }

    /// Whether the key lies in the range.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> bool {
        let key = key.as_ref();
        self.start.as_slice() <= key && self.end.as_deref().is_none_or(|end| key < end)
    }
}

/// Reads the parts of a key back, in the order they were written.
///
/// ```
/// use mainstay_sdk::key::{Key, Parts};
/// let key = Key::new().text("run").u64(7).f64(-0.5);
/// let mut parts = Parts::of(&key);
/// assert_eq!(parts.text()?, "run");
/// assert_eq!(parts.u64()?, 7);
/// assert_eq!(parts.f64()?, -0.5);
/// assert!(parts.rest().is_empty());
/// # Ok::<(), mainstay_sdk::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Parts<'a>(&'a [u8]);

impl<'a> Parts<'a> {
    /// The parts of this key.
    pub fn of(key: &'a (impl AsRef<[u8]> + ?Sized)) -> Parts<'a> {
        Parts(key.as_ref())
    }

    /// A text part.
    pub fn text(&mut self) -> Result<String> {
        String::from_utf8(self.bytes()?).map_err(|_| damaged("text that is not UTF-8"))
    }

    /// A part written by [`Key::bytes`].
    pub fn bytes(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            match self.take()? {
                [0] => return Ok(bytes),
                [1] => match self.take()? {
                    [escaped @ (1 | 2)] => bytes.push(escaped - 1),
                    _ => return Err(damaged("an unknown escape")),
                },
                [byte] => bytes.push(byte),
            }
        }
    }

    /// A part written by [`Key::tag`].
    pub fn tag(&mut self) -> Result<u8> {
        let [tag] = self.take()?;
        Ok(tag)
    }

    /// A part written by [`Key::u64`].
    pub fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    /// A part written by [`Key::u64_descending`].
    pub fn u64_descending(&mut self) -> Result<u64> {
        Ok(!self.u64()?)
    }

    /// A part written by [`Key::i64`].
    pub fn i64(&mut self) -> Result<i64> {
        Ok((self.u64()? ^ SIGN) as i64)
    }

    /// A part written by [`Key::i64_descending`].
    pub fn i64_descending(&mut self) -> Result<i64> {
        Ok((!self.u64()? ^ SIGN) as i64)
    }

    /// A part written by [`Key::f64`].
    pub fn f64(&mut self) -> Result<f64> {
        let bits = self.u64()?;
        Ok(f64::from_bits(if bits & SIGN == 0 { !bits } else { bits ^ SIGN }))
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (part, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| damaged("too few bytes"))?;
        self.0 = rest;
        Ok(*part)
    }
}

fn damaged(what: &str) -> Error {
    Error::internal(format!("a stored key has {what}: it was not written with the parts that it is read with"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_sort_as_their_values_and_come_back() {
        let texts =
            ["", "\0", "\0\0", "\0a", "\u{1}", "\u{1}\u{1}", "\u{2}", "a", "a\0", "a\0b", "a\u{1}", "aa", "b", "é"];
        for pair in texts.windows(2) {
            // A part behind the text must not change the order, whatever it starts with.
            let [small, large] = [pair[0], pair[1]];
            for (behind_small, behind_large) in [(0, 0), (u64::MAX, 0)] {
                let key = Key::new().text(small).u64(behind_small);
                assert!(key < Key::new().text(large).u64(behind_large), "{small:?} < {large:?}");
            }
        }
        for text in texts {
            let key = Key::new().text(text).tag(9);
            let mut parts = Parts::of(&key);
            assert_eq!((parts.text().unwrap().as_str(), parts.tag().unwrap()), (text, 9));
        }
    }

    #[test]
    fn numbers_sort_as_numbers() {
        fn check<T: Copy + std::fmt::Debug>(ascending: &[T], key: impl Fn(T) -> Key) {
            for pair in ascending.windows(2) {
                assert!(key(pair[0]) < key(pair[1]), "{pair:?}");
            }
        }
        let signed = [i64::MIN, -2, -1, 0, 1, i64::MAX];
        check(&signed, |number| Key::new().i64(number));
        let mut falling = signed;
        falling.reverse();
        check(&falling, |number| Key::new().i64_descending(number));
        check(&[u64::MAX, 1, 0], |number| Key::new().u64_descending(number));
        let reals =
            [f64::NEG_INFINITY, f64::MIN, -1.0, -f64::MIN_POSITIVE, -0.0, 0.0, 5e-324, 1.0, f64::INFINITY, f64::NAN];
        check(&reals, |number| Key::new().f64(number));
        assert_eq!(Key::new().f64(f64::NAN), Key::new().f64(-f64::NAN), "one NaN");
        for number in reals {
            let back = Parts::of(&Key::new().f64(number)).f64().unwrap();
            assert!(back == number || back.is_nan() && number.is_nan(), "{number}");
        }
        for number in signed {
            assert_eq!(Parts::of(&Key::new().i64_descending(number)).i64_descending().unwrap(), number);
        }
    }

    #[test]
    fn prefixes_end_before_the_next_sibling() {
        fn check(prefix: &[u8], end: Option<&[u8]>) {
            assert_eq!(KeyRange::prefix(prefix).end.as_deref(), end, "{prefix:?}");
        }
        check(b"a", Some(b"b"));
        check(&[1, 255], Some(&[2]));
        check(&[255, 255], None);
        check(b"", None);
    }

    #[test]
    fn damaged_keys_are_errors() {
        for bytes in [&b"abc"[..], &[1, 3, 0], &[1], &[0xff, 0]] {
            assert!(Parts(bytes).text().is_err(), "{bytes:?}");
        }
        assert!(Parts(&[0; 7]).u64().is_err());
    }
}
