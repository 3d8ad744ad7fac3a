//! Configuration files of model repositories.
//!
//! Owns the reader of `config.pbtxt`: protobuf's text form, as far as such files use it. Separate from the models that are
//! configured so. Driven by the table of fields ([`crate::schema`]), so that every field of the published definition is known by
//! its name.
//!
//! Bounded by [`limits`]: the file's size, its depth, how many warnings are kept. On failure: `invalid` with the line. A field that
//! is not known is no failure but a warning: files are written for servers newer than this one.

use mainstay_base::{Error, Result};
use prost::Message as _;
use prost::encoding::encode_varint;

use crate::limits;
use crate::proto::ModelConfig;
use crate::schema::{self, ENUMS, Field, Kind, MESSAGES, Message};

/// A configuration, and what of its file was not understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadConfig {
    /// What was understood.
    pub config: ModelConfig,
    /// What was not, each with its line.
    pub warnings: Vec<String>,
}

/// Reads a `config.pbtxt`.
pub fn read_config(text: &str) -> Result<ReadConfig> {
    if text.len() > limits::CONFIG_BYTES_MAX {
        return Err(Error::invalid(format!(
            "the configuration has {} bytes; {} are the most",
            text.len(),
            limits::CONFIG_BYTES_MAX
        )));
    }
    let mut reader = Reader { text: text.as_bytes(), at: 0, line: 1, warnings: Vec::new() };
    let encoded = reader.message(schema::message("inference.ModelConfig"), None, 0)?;
    let config = ModelConfig::decode(&encoded[..]);
    let config =
        config.map_err(|error| Error::internal("a configuration was read but not understood").with_source(error))?;
    Ok(ReadConfig { config, warnings: reader.warnings })
}

/// Reads text protobuf into its encoded form.
struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    warnings: Vec<String>,
}

/// What stands where a value may be.
enum Scalar {
    /// A number, a name, or `true`: with its sign.
    Word(String),
    Text(Vec<u8>),
}

impl Reader<'_> {
    fn wrong(&self, what: impl std::fmt::Display) -> Error {
        Error::invalid(format!("configuration, line {}: {what}", self.line))
    }

    /// Passes spaces and comments.
    fn space(&mut self) {
        while let Some(byte) = self.text.get(self.at) {
            match byte {
                b'\n' => self.line += 1,
                b'#' => {
                    let rest = &self.text[self.at..];
                    self.at += rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
                    continue;
                }
                byte if byte.is_ascii_whitespace() => {}
                _ => return,
            }
            self.at += 1;
        }
    }

    /// The next byte that is no space, where it stands.
    fn peek(&mut self) -> Option<u8> {
        self.space();
        self.text.get(self.at).copied()
    }

    /// Takes this byte, if it is next.
    fn take(&mut self, byte: u8) -> bool {
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn word(&mut self) -> String {
        self.space();
        let rest = &self.text[self.at..];
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'+' | b'-');
        let length = rest.iter().position(|byte| !plain(byte)).unwrap_or(rest.len());
        self.at += length;
        String::from_utf8_lossy(&rest[..length]).into_owned()
    }

    /// The fields of a message, up to what closes it; up to the end of the file where that is none.
    fn message(&mut self, message: &'static Message, closes: Option<u8>, depth: usize) -> Result<Vec<u8>> {
        let mut encoded = Vec::new();
        let mut seen: Vec<&Field> = Vec::new();
        loop {
            match (self.peek(), closes) {
                (None, None) => return Ok(encoded),
                (None, Some(closes)) => {
                    return Err(self.wrong(format!(
                        "the file ends where `{}` should close {}",
                        char::from(closes),
                        message.name
                    )));
                }
                (Some(byte), Some(closes)) if byte == closes => {
                    self.at += 1;
                    return Ok(encoded);
                }
                _ => {}
            }
            self.field(message, &mut seen, &mut encoded, depth)?;
            let _ = self.take(b',') || self.take(b';');
        }
    }

    fn field(
        &mut self,
        message: &'static Message,
        seen: &mut Vec<&'static Field>,
        encoded: &mut Vec<u8>,
        depth: usize,
    ) -> Result<()> {
        let name = match self.peek() {
            Some(b'[') => self.extension()?,
            _ => self.word(),
        };
        if name.is_empty() {
            let found = self.text.get(self.at).map_or('?', |byte| char::from(*byte));
            return Err(self.wrong(format!("`{found}` where the name of a field of {} should stand", message.name)));
        }
        let Some(field) = message.fields.iter().find(|field| field.name == name) else {
            if self.warnings.len() < limits::CONFIG_WARNINGS_MAX {
                self.warnings
                    .push(format!("line {}: {} has no field `{name}` that is known here", self.line, message.name));
            }
            self.take(b':');
            return self.skip(depth);
        };
        if !field.repeated {
            let other =
                seen.iter().find(|held| held.name == name || (field.oneof.is_some() && held.oneof == field.oneof));
            if let Some(other) = other {
                return Err(self.wrong(if other.name == name {
                    format!("`{name}` is there twice")
                } else {
                    format!("`{name}` beside `{}`: only one of them can be", other.name)
                }));
            }
            seen.push(field);
        }
        let colon = self.take(b':');
        if !colon && !matches!(field.kind, Kind::Message(_)) {
            return Err(self.wrong(format!("`{name}` takes a value after a colon")));
        }
        if field.repeated && self.take(b'[') {
            while !self.take(b']') {
                self.value(field, encoded, depth)?;
                if !self.take(b',') && self.peek() != Some(b']') {
                    return Err(self.wrong(format!("the values of `{name}` are parted by commas and end with `]`")));
                }
            }
            return Ok(());
        }
        self.value(field, encoded, depth)
    }

    /// The name of an extension, in its brackets.
    fn extension(&mut self) -> Result<String> {
        let rest = &self.text[self.at..];
        let length = rest.iter().position(|byte| *byte == b']' || *byte == b'\n').filter(|end| rest[*end] == b']');
        let length = length.ok_or_else(|| self.wrong("`[` without `]`"))?;
        self.at += length + 1;
        Ok(String::from_utf8_lossy(&rest[..=length]).into_owned())
    }

    /// One value of a field, encoded.
    fn value(&mut self, field: &'static Field, encoded: &mut Vec<u8>, depth: usize) -> Result<()> {
        if let Kind::Message(place) = field.kind {
            let closes = match self.peek() {
                Some(b'{') => b'}',
                Some(b'<') => b'>',
                _ => return Err(self.wrong(format!("`{}` takes fields in braces", field.name))),
            };
            self.at += 1;
            let inner = self.message(&MESSAGES[place], Some(closes), depth + 1)?;
            put_bytes(encoded, field.number, &inner);
            return Ok(());
        }
        let line = self.line;
        let scalar = self.scalar()?;
        let wrong = |found: &str, wants: &str| {
            Err(Error::invalid(format!("configuration, line {line}: `{}` takes {wants}, not `{found}`", field.name)))
        };
        match (field.kind, scalar) {
            (Kind::String, Scalar::Text(text)) => match String::from_utf8(text) {
                Ok(text) => put_bytes(encoded, field.number, text.as_bytes()),
                Err(_) => return wrong("bytes", "a text in UTF-8"),
            },
            (Kind::Bytes, Scalar::Text(text)) => put_bytes(encoded, field.number, &text),
            (Kind::String | Kind::Bytes, Scalar::Word(word)) => return wrong(&word, "a text in quotes"),
            (kind, Scalar::Text(text)) => return wrong(&format!("\"{}\"", text.escape_ascii()), wanted(kind)),
            (kind, Scalar::Word(word)) => {
                if !put_word(encoded, field.number, kind, &word) {
                    return wrong(&word, wanted(kind));
                }
            }
        }
        Ok(())
    }

    fn scalar(&mut self) -> Result<Scalar> {
        match self.peek() {
            Some(b'"' | b'\'') => {
                let mut text = Vec::new();
                // Texts that stand side by side are one.
                while let Some(quote @ (b'"' | b'\'')) = self.peek() {
                    self.at += 1;
                    self.quoted(quote, &mut text)?;
                }
                Ok(Scalar::Text(text))
            }
            found => {
                let negative = self.take(b'-');
                let word = self.word();
                if word.is_empty() {
                    let found =
                        found.map_or("the end of the file".to_owned(), |byte| format!("`{}`", char::from(byte)));
                    return Err(self.wrong(format!("{found} where a value should stand")));
                }
                Ok(Scalar::Word(if negative { format!("-{word}") } else { word }))
            }
        }
    }

    fn quoted(&mut self, quote: u8, text: &mut Vec<u8>) -> Result<()> {
        loop {
            let Some(byte) = self.text.get(self.at).copied().filter(|byte| *byte != b'\n') else {
                return Err(self.wrong("a text without its closing quote"));
            };
            self.at += 1;
            match byte {
                byte if byte == quote => return Ok(()),
                b'\\' => self.escape(text)?,
                byte => text.push(byte),
            }
        }
    }

    fn escape(&mut self, text: &mut Vec<u8>) -> Result<()> {
        let escaped = self.text.get(self.at).copied().unwrap_or(b'\n');
        self.at += 1;
        let plain = match escaped {
            b'n' => b'\n',
            b't' => b'\t',
            b'r' => b'\r',
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'v' => 11,
            b'\\' | b'\'' | b'"' | b'?' => escaped,
            b'0'..=b'7' => {
                self.at -= 1;
                self.digits(8, 3)
                    .and_then(|code| u8::try_from(code).ok())
                    .ok_or_else(|| self.wrong("an escape beyond one byte"))?
            }
            b'x' | b'X' => {
                let code = self.digits(16, 2).and_then(|code| u8::try_from(code).ok());
                code.ok_or_else(|| self.wrong("`\\x` takes one or two hexadecimal digits"))?
            }
            b'u' | b'U' => {
                let length = if escaped == b'u' { 4 } else { 8 };
                let code = self.digits(16, length).and_then(char::from_u32);
                let code = code.ok_or_else(|| self.wrong("`\\u` takes the number of a character"))?;
                text.extend_from_slice(code.encode_utf8(&mut [0; 4]).as_bytes());
                return Ok(());
            }
            _ => return Err(self.wrong(format!("`\\{}` is no escape", char::from(escaped)))),
        };
        text.push(plain);
        Ok(())
    }

    /// Up to so many digits, as a number; none where there are none.
    fn digits(&mut self, radix: u32, most: usize) -> Option<u32> {
        let rest = self.text.get(self.at..)?;
        let length = rest.iter().take(most).take_while(|byte| char::from(**byte).is_digit(radix)).count();
        self.at += length;
        u32::from_str_radix(std::str::from_utf8(&rest[..length]).ok()?, radix).ok()
    }

    /// Passes the value of a field that is not known. Known ones are as deep as their definition; these as deep as they like.
    fn skip(&mut self, depth: usize) -> Result<()> {
        let closes = match self.peek() {
            Some(b'{') => b'}',
            Some(b'<') => b'>',
            Some(b'[') => b']',
            _ => return self.scalar().map(drop),
        };
        if depth >= limits::CONFIG_DEPTH_MAX {
            return Err(self.wrong(format!("messages are nested more than {} deep", limits::CONFIG_DEPTH_MAX)));
        }
        self.at += 1;
        while !self.take(closes) {
            if closes != b']' {
                let name = if self.peek() == Some(b'[') { self.extension()? } else { self.word() };
                if name.is_empty() {
                    return Err(self.wrong("a field without a name"));
                }
                self.take(b':');
            }
            self.skip(depth + 1)?;
            let _ = self.take(b',') || self.take(b';');
        }
        Ok(())
    }
}

/// Appends a field that is a number, a truth or a name; false where the word is none of its kind.
pub(crate) fn put_word(encoded: &mut Vec<u8>, field: u32, kind: Kind, word: &str) -> bool {
    match kind {
        Kind::Float => float(word).map(|single| {
            encode_varint(u64::from(field << 3 | 5), encoded);
            encoded.extend_from_slice(&(single as f32).to_le_bytes());
        }),
        Kind::Double => float(word).map(|double| {
            encode_varint(u64::from(field << 3 | 1), encoded);
            encoded.extend_from_slice(&double.to_le_bytes());
        }),
        _ => number(kind, word).map(|number| {
            encode_varint(u64::from(field << 3), encoded);
            encode_varint(number, encoded);
        }),
    }
    .is_some()
}

/// Appends a field that is a text, bytes or a message.
pub(crate) fn put_bytes(encoded: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    encode_varint(u64::from(number << 3 | 2), encoded);
    encode_varint(bytes.len() as u64, encoded);
    encoded.extend_from_slice(bytes);
}

/// What a field of this kind takes.
pub(crate) fn wanted(kind: Kind) -> &'static str {
    match kind {
        Kind::Bool => "true or false",
        Kind::Enum(_) => "one of its names",
        Kind::Int32 | Kind::Int64 => "a whole number",
        Kind::Uint32 | Kind::Uint64 => "a whole number without sign",
        Kind::String | Kind::Bytes => "a text in quotes",
        Kind::Message(_) => "fields in braces",
        Kind::Float | Kind::Double => "a number",
    }
}

fn float(word: &str) -> Option<f64> {
    let (negative, digits) = word.strip_prefix('-').map_or((false, word), |digits| (true, digits));
    let number = match digits.to_ascii_lowercase().as_str() {
        "inf" | "infinity" => f64::INFINITY,
        "nan" => f64::NAN,
        digits if digits.starts_with(|first: char| first.is_ascii_digit() || first == '.') => {
            digits.strip_suffix('f').unwrap_or(digits).parse().ok()?
        }
        _ => return None,
    };
    Some(if negative { -number } else { number })
}

/// A whole number, a truth or a name, as it is encoded.
fn number(kind: Kind, word: &str) -> Option<u64> {
    match kind {
        Kind::Bool => match word {
            "true" | "True" | "t" | "1" => Some(1),
            "false" | "False" | "f" | "0" => Some(0),
            _ => None,
        },
        Kind::Enum(place) => {
            let value = ENUMS[place].iter().find(|(name, _)| *name == word).map(|(_, value)| *value);
            value.or_else(|| word.parse().ok()).map(|value| i64::from(value) as u64)
        }
        _ => {
            let whole = whole(word)?;
            let fits = match kind {
                Kind::Int32 => i32::try_from(whole).is_ok(),
                Kind::Int64 => i64::try_from(whole).is_ok(),
                Kind::Uint32 => u32::try_from(whole).is_ok(),
                _ => u64::try_from(whole).is_ok(),
            };
            // Negative numbers are encoded as the 64 bits that they have.
            fits.then_some(whole as u64)
        }
    }
}

fn whole(word: &str) -> Option<i128> {
    let (negative, digits) = word.strip_prefix('-').map_or((false, word), |digits| (true, digits));
    let number = if let Some(digits) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        u64::from_str_radix(digits, 16).ok()?
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8).ok()?
    } else {
        digits.parse().ok().filter(|_| !digits.starts_with('+'))?
    };
    Some(if negative { -i128::from(number) } else { i128::from(number) })
}
