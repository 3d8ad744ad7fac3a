//! Reads UBJSON, the default format of XGBoost's files since 2.1, into the value that JSON files become.
//!
//! Owns the binary grammar (draft 12): markers, counted and typed containers. Separate from the schema, which is that of
//! the JSON files. Ours because no maintained reader bounds what a file may claim: counts here are believed only after as
//! many bytes were seen, and of typed lists only numbers are read.
//!
//! Bounded by: the file, [`Limits::nesting`] and the budget of values. On failure: `invalid` names the byte.

use mainstay_base::{Error, Result};

use super::limits::Limits;
use super::value::{Budget, Items, Value, repeated_key};

/// Read a UBJSON file.
pub(super) fn parse(bytes: &[u8], limits: &Limits) -> Result<Value> {
    let mut reader = Reader { bytes, at: 0, budget: Budget::new(bytes.len(), limits) };
    let read = reader.marker().and_then(|marker| reader.value(marker, limits.nesting));
    let value =
        read.map_err(|error| error.context(format_args!("not a readable UBJSON file, at byte {}", reader.at)))?;
    match bytes.len() - reader.at {
        0 => Ok(value),
        left => Err(Error::invalid(format!("not a readable UBJSON file: {left} bytes follow its value"))),
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    budget: Budget,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let end = self.at.checked_add(count).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| {
            Error::invalid(format!("it ends where {count} bytes are expected; is the file complete?"))
        })?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }

    /// The next marker; no-ops are skipped.
    fn marker(&mut self) -> Result<u8> {
        loop {
            match self.take(1)?[0] {
                b'N' => {}
                marker => return Ok(marker),
            }
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// A number of this type; none when the marker is of no number.
    fn number(&mut self, marker: u8) -> Result<Option<f64>> {
        let Some(width) = number_width(marker) else { return Ok(None) };
        let raw = self.take(width)?;
        Ok(Some(number_of(marker, raw)))
    }

    /// A length: any integer, not negative.
    fn length(&mut self) -> Result<usize> {
        let marker = self.marker()?;
        let length = if matches!(marker, b'd' | b'D') { None } else { self.number(marker)? };
        let length = length.filter(|length| *length >= 0.0 && *length < 9e15);
        length.map(|length| length as usize).ok_or_else(|| Error::invalid("a length is not a count"))
    }

    fn text(&mut self) -> Result<String> {
        let length = self.length()?;
        let raw = self.take(length)?;
        let text = std::str::from_utf8(raw).map_err(|_| Error::invalid("a text is not UTF-8"))?;
        Ok(text.to_owned())
    }

    fn value(&mut self, marker: u8, nesting_left: usize) -> Result<Value> {
        if let Some(number) = self.number(marker)? {
            return Ok(Value::Number(number));
        }
        let inner =
            || nesting_left.checked_sub(1).ok_or_else(|| Error::invalid("values are nested too deeply for a model"));
        match marker {
            b'Z' => Ok(Value::Null),
            b'T' => Ok(Value::Number(1.0)),
            b'F' => Ok(Value::Number(0.0)),
            b'C' => Ok(Value::Text(char::from(self.take(1)?[0]).to_string())),
            b'S' => Ok(Value::Text(self.text()?)),
            b'[' => self.list(inner()?),
            b'{' => self.map(inner()?),
            other => Err(Error::invalid(format!("{other:#04x} is no marker of a value"))),
        }
    }

    /// `$ type # count`, `# count`, or nothing.
    fn header(&mut self) -> Result<(Option<u8>, Option<usize>)> {
        let mut kind = None;
        if self.peek() == Some(b'$') {
            self.at += 1;
            kind = Some(self.take(1)?[0]);
            if self.peek() != Some(b'#') {
                return Err(Error::invalid("a typed container has no count"));
            }
        }
        if self.peek() != Some(b'#') {
            return Ok((kind, None));
        }
        self.at += 1;
        Ok((kind, Some(self.length()?)))
    }

    fn list(&mut self, nesting_left: usize) -> Result<Value> {
        let (kind, count) = self.header()?;
        if let (Some(kind), Some(count)) = (kind, count) {
            return self.numbers(kind, count);
        }
        let mut items = Items::default();
        let mut left = count;
        while left != Some(0) {
            let marker = self.marker()?;
            if left.is_none() && marker == b']' {
                break;
            }
            let value = self.value(marker, nesting_left)?;
            if !items.push(value, &self.budget) {
                return Err(Error::invalid("more values than a model of this size has"));
            }
            left = left.map(|left| left - 1);
        }
        Ok(items.finish())
    }

    fn numbers(&mut self, kind: u8, count: usize) -> Result<Value> {
        let width = number_width(kind)
            .ok_or_else(|| Error::invalid(format!("a typed list of {kind:#04x}; only numbers are expected")))?;
        let length = count.checked_mul(width).ok_or_else(|| Error::invalid(format!("a list of {count} numbers")))?;
        let mut items = Items::default();
        self.take(length)?.chunks_exact(width).for_each(|raw| items.push_number(number_of(kind, raw)));
        Ok(items.finish())
    }

    fn map(&mut self, nesting_left: usize) -> Result<Value> {
        let (kind, count) = self.header()?;
        if matches!(kind, Some(b'Z' | b'T' | b'F' | b'N')) {
            return Err(Error::invalid("a typed object whose values take no bytes"));
        }
        let mut entries = Vec::new();
        let mut left = count;
        while left != Some(0) {
            if left.is_none() && self.peek() == Some(b'}') {
                self.at += 1;
                break;
            }
            if !self.budget.take() {
                return Err(Error::invalid("more values than a model of this size has"));
            }
            let key = self.text()?;
            let marker = kind.map_or_else(|| self.marker(), Ok)?;
            let value = self.value(marker, nesting_left).map_err(|error| error.context(format_args!("`{key}`")))?;
            entries.push((key, value));
            left = left.map(|left| left - 1);
        }
        match repeated_key(&entries) {
            Some(key) => Err(Error::invalid(format!("the key `{key}` is there twice"))),
            None => Ok(Value::Map(entries)),
        }
    }
}

/// Bytes of a number of this type.
fn number_width(marker: u8) -> Option<usize> {
    match marker {
        b'i' | b'U' => Some(1),
        b'I' => Some(2),
        b'l' | b'd' => Some(4),
        b'L' | b'D' => Some(8),
        _ => None,
    }
}

/// The number in as many bytes as its type has, big-endian.
fn number_of(marker: u8, raw: &[u8]) -> f64 {
    let bits = raw.iter().fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    match marker {
        b'U' => bits as f64,
        b'i' => f64::from(bits as u8 as i8),
        b'I' => f64::from(bits as u16 as i16),
        b'l' => f64::from(bits as u32 as i32),
        b'L' => bits as i64 as f64,
        b'd' => f64::from(f32::from_bits(bits as u32)),
        _ => f64::from_bits(bits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<Value> {
        parse(bytes, &Limits::default())
    }

    #[test]
    fn every_form_of_a_list_is_read() {
        fn check(bytes: &[u8], expect: &[f64]) {
            assert_eq!(read(bytes).unwrap(), Value::Numbers(expect.to_vec()), "{bytes:?}");
        }
        check(b"[]", &[]);
        check(
            b"[i\x01U\xffI\xff\xffTZ]".split_at(8).0.iter().chain(b"]").copied().collect::<Vec<_>>().as_slice(),
            &[1.0, 255.0, -1.0],
        );
        check(b"[#i\x02i\x05NF", &[5.0, 0.0]);
        check(b"[$d#i\x01\x3f\x80\x00\x00", &[1.0]);
        check(b"[$D#i\x01\x3f\xf8\x00\x00\x00\x00\x00\x00", &[1.5]);
        check(b"[$l#L\x00\x00\x00\x00\x00\x00\x00\x01\xff\xff\xff\xfe", &[-2.0]);
    }

    #[test]
    fn objects_are_read() {
        let map = Value::Map(vec![("a".into(), Value::Text("xy".into())), ("b".into(), Value::Null)]);
        assert_eq!(read(b"{i\x01aSi\x02xyi\x01bZ}").unwrap(), map);
        assert_eq!(read(b"{#i\x02i\x01aSi\x02xyi\x01bZ").unwrap(), map);
    }

    #[test]
    fn what_is_not_a_model_is_refused() {
        fn check(bytes: &[u8], says: &str) {
            let error = read(bytes).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
        check(b"", "it ends where 1 bytes");
        check(b"[$d#l\x40\x00\x00\x00", "it ends where");
        check(b"[$L#L\x7f\xff\xff\xff\xff\xff\xff\xff", "a length is not a count");
        check(b"[$Z#l\x40\x00\x00\x00", "only numbers");
        check(b"[#l\x40\x00\x00\x00", "it ends where 1 bytes");
        check(b"{$Z#l\x40\x00\x00\x00", "take no bytes");
        check(b"{i\x01ai\x01i\x01ai\x01}", "twice");
        check(b"Si\xff", "not a count");
        check(b"Si\x02\xff\xff", "UTF-8");
        check(b"i\x01i", "1 bytes follow");
        check(b"?", "no marker");
        check(&b"[".repeat(100_000), "nested too deeply");
    }
}
