//! The wire format of protocol buffers, read where it lies.
//!
//! Owns fields and scalars; nothing is copied and nothing allocated, so a file cannot make a message larger in memory than
//! it is on disk. Ours instead of generated code for that reason: a decoded empty node is a hundred times its two bytes.
//!
//! Bounded by the bytes given. On failure: `invalid` says at which byte of the message.

use mainstay_base::{Error, Result};

/// One field's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Field<'a> {
    Varint(u64),
    Fixed32([u8; 4]),
    Fixed64([u8; 8]),
    Bytes(&'a [u8]),
}

/// The fields of a message, in order.
#[derive(Clone)]
pub(super) struct Fields<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub fn new(bytes: &'a [u8]) -> Fields<'a> {
        Fields { bytes, at: 0 }
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let taken = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<N>());
        self.at += N;
        taken.copied().ok_or_else(|| self.cut())
    }

    fn cut(&self) -> Error {
        Error::invalid(format!("a message of {} bytes ends inside a field; is the file complete?", self.bytes.len()))
    }

    fn varint(&mut self) -> Result<u64> {
        let (value, width) = varint(self.bytes.get(self.at..).unwrap_or(&[])).ok_or_else(|| self.cut())?;
        self.at += width;
        Ok(value)
    }

    /// The next field's number and value; none at the end.
    fn read(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.at >= self.bytes.len() {
            return Ok(None);
        }
        let key = self.varint()?;
        let field = match key & 7 {
            0 => Field::Varint(self.varint()?),
            1 => Field::Fixed64(self.take()?),
            2 => {
                let length = self.varint()?;
                let end = usize::try_from(length).ok().and_then(|length| self.at.checked_add(length));
                let bytes = end.and_then(|end| self.bytes.get(self.at..end)).ok_or_else(|| self.cut())?;
                self.at += bytes.len();
                Field::Bytes(bytes)
            }
            5 => Field::Fixed32(self.take()?),
            other => {
                let at = self.at;
                return Err(Error::invalid(format!("wire type {other} at byte {at} of a message; is this ONNX?")));
            }
        };
        Ok(Some((key >> 3, field)))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.read().transpose();
        if let Some(Err(_)) = field {
            // One error ends it.
            self.at = self.bytes.len();
        }
        field
    }
}

impl<'a> Field<'a> {
    pub fn bytes(self) -> Result<&'a [u8]> {
        match self {
            Field::Bytes(bytes) => Ok(bytes),
            _ => Err(Error::invalid("a number stands where bytes are expected")),
        }
    }

    pub fn text(self) -> Result<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Error::invalid("a text is not UTF-8"))
    }

    pub fn integer(self) -> Result<i64> {
        match self {
            Field::Varint(value) => Ok(value as i64),
            _ => Err(Error::invalid("something else stands where an integer is expected")),
        }
    }

    pub fn float(self) -> Result<f32> {
        match self {
            Field::Fixed32(raw) => Ok(f32::from_le_bytes(raw)),
            _ => Err(Error::invalid("something else stands where a float is expected")),
        }
    }

    /// Adds one integer, or a packed list of them.
    pub fn integers(self, out: &mut Vec<i64>) -> Result<()> {
        let Field::Bytes(mut packed) = self else {
            out.push(self.integer()?);
            return Ok(());
        };
        while !packed.is_empty() {
            let (value, width) = varint(packed).ok_or_else(|| Error::invalid("a list of integers is cut off"))?;
            out.push(value as i64);
            packed = &packed[width..];
        }
        Ok(())
    }

    /// Adds one float, or a packed list of them.
    pub fn floats(self, out: &mut Vec<f64>) -> Result<()> {
        match self {
            Field::Bytes(packed) if packed.len() % 4 == 0 => {
                let values = packed.as_chunks::<4>().0.iter();
                out.extend(values.map(|raw| f64::from(f32::from_le_bytes(*raw))));
                Ok(())
            }
            Field::Bytes(_) => Err(Error::invalid("a list of floats is cut off")),
            one => {
                out.push(f64::from(one.float()?));
                Ok(())
            }
        }
    }

    /// Adds one double, or a packed list of them.
    pub fn doubles(self, out: &mut Vec<f64>) -> Result<()> {
        match self {
            Field::Bytes(packed) if packed.len() % 8 == 0 => {
                out.extend(packed.as_chunks::<8>().0.iter().map(|raw| f64::from_le_bytes(*raw)));
                Ok(())
            }
            Field::Fixed64(raw) => {
                out.push(f64::from_le_bytes(raw));
                Ok(())
            }
            _ => Err(Error::invalid("a list of doubles is cut off")),
        }
    }
}

/// A number of seven bits a byte and its width; none when it is cut off or longer than 64 bits.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut value = 0_u64;
    for (at, byte) in bytes.iter().take(10).enumerate() {
        value |= u64::from(byte & 127) << (7 * at as u32).min(63);
        if byte & 128 == 0 {
            return Some((value, at + 1));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read() {
        let message = b"\x08\x96\x01\x12\x02hi\x1d\x00\x00\x80\x3f\x21\x00\x00\x00\x00\x00\x00\xf0\x3f";
        let fields: Vec<_> = Fields::new(message).map(Result::unwrap).collect();
        assert_eq!(fields[0], (1, Field::Varint(150)));
        assert_eq!(fields[1].1.text().unwrap(), "hi");
        assert_eq!(fields[2].1.float().unwrap(), 1.0);
        let mut doubles = Vec::new();
        fields[3].1.doubles(&mut doubles).unwrap();
        assert_eq!((doubles, fields.len()), (vec![1.0], 4));
        let mut integers = Vec::new();
        Field::Bytes(b"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01").integers(&mut integers).unwrap();
        assert_eq!(integers, [1, -1]);
    }

    #[test]
    fn what_is_cut_off_is_refused() {
        for message in [
            &b"\x08"[..],
            b"\x08\xff",
            b"\x12\x05hi",
            b"\x1d\x00",
            b"\x21\x00",
            b"\x0b",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        ] {
            assert!(Fields::new(message).any(|field| field.is_err()), "{message:?}");
            assert!(Fields::new(message).count() <= 2);
        }
    }
}
