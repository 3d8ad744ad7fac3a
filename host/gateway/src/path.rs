//! Clean paths and queries out of what clients send.
//!
//! One decoding, at the edge: what passed here holds no `.` or `..` segments, no empty segments in the middle, no control
//! characters and no invalid UTF-8, so nothing behind it has to ask again. Linear in its input; the common path without a
//! percent sign is checked in one pass and not copied.

use std::borrow::Cow;
use std::fmt;

/// Why a path or query is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    NotAbsolute,
    BadEscape,
    NotUtf8,
    Control,
    DotSegment,
    EmptySegment,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Fault::NotAbsolute => "it does not start with `/`",
            Fault::BadEscape => {
                "it has a `%` that is not followed by two hexadecimal digits; write a percent sign as `%25`"
            }
            Fault::NotUtf8 => "it is not UTF-8 once decoded",
            Fault::Control => "it has a control character",
            Fault::DotSegment => "it has a `.` or `..` segment",
            Fault::EmptySegment => "it has an empty segment (`//`)",
        })
    }
}

/// The path, decoded once and clean.
pub(crate) fn clean_path(raw: &str) -> Result<Cow<'_, str>, Fault> {
    let path = match raw.contains('%') {
        false => Cow::Borrowed(raw),
        true => Cow::Owned(decode(raw, false)?),
    };
    check_path(&path)?;
    Ok(path)
}

fn check_path(path: &str) -> Result<(), Fault> {
    let Some(rest) = path.strip_prefix('/') else { return Err(Fault::NotAbsolute) };
    // C1 controls are two bytes in UTF-8, so text that is not ASCII is looked at by character.
    let control = match path.is_ascii() {
        true => path.bytes().any(|byte| byte.is_ascii_control()),
        false => path.chars().any(char::is_control),
    };
    if control {
        return Err(Fault::Control);
    }
    let mut segments = rest.split('/').peekable();
    while let Some(segment) = segments.next() {
        match segment {
            "." | ".." => return Err(Fault::DotSegment),
            "" if segments.peek().is_some() => return Err(Fault::EmptySegment),
            _ => {}
        }
    }
    Ok(())
}

/// The pairs of a query, decoded, in order, repeated keys kept. `+` is a space; a key without `=` has an empty value.
pub(crate) fn query_pairs(raw: Option<&str>) -> Result<Vec<(String, String)>, Fault> {
    let Some(raw) = raw.filter(|raw| !raw.is_empty()) else { return Ok(Vec::new()) };
    raw.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            Ok((decode(key, true)?, decode(value, true)?))
        })
        .collect()
}

fn decode(raw: &str, plus_is_space: bool) -> Result<String, Fault> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let high = bytes.next().and_then(hex_digit).ok_or(Fault::BadEscape)?;
                let low = bytes.next().and_then(hex_digit).ok_or(Fault::BadEscape)?;
                high << 4 | low
            }
            b'+' if plus_is_space => b' ',
            other => other,
        });
    }
    String::from_utf8(decoded).map_err(|_| Fault::NotUtf8)
}

fn hex_digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).map(|digit| digit as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        #[track_caller]
        fn check(raw: &str, expect: Result<&str, Fault>) {
            assert_eq!(clean_path(raw).as_deref().map_err(|fault| *fault), expect, "{raw}");
        }
        check("/", Ok("/"));
        check("/api/2.0/x", Ok("/api/2.0/x"));
        check("/a/", Ok("/a/"));
        check("/a%20b", Ok("/a b"));
        check("/a+b", Ok("/a+b"));
        check("/%C3%A9", Ok("/é"));
        check("/a%2Fb", Ok("/a/b"));
        check("/%252e%252e/x", Ok("/%2e%2e/x"));
        check("/.../..a/a..", Ok("/.../..a/a.."));
        check("", Err(Fault::NotAbsolute));
        check("*", Err(Fault::NotAbsolute));
        check("/..", Err(Fault::DotSegment));
        check("/a/../b", Err(Fault::DotSegment));
        check("/a/./b", Err(Fault::DotSegment));
        check("/%2e%2E/b", Err(Fault::DotSegment));
        check("/a%2F..%2Fb", Err(Fault::DotSegment));
        check("//a", Err(Fault::EmptySegment));
        check("/a//", Err(Fault::EmptySegment));
        check("/a%2F/b", Err(Fault::EmptySegment));
        check("/a%00", Err(Fault::Control));
        check("/a%0d%0a", Err(Fault::Control));
        check("/a%7F", Err(Fault::Control));
        check("/a%C2%85", Err(Fault::Control));
        check("/a%ff", Err(Fault::NotUtf8));
        check("/a%c0%ae", Err(Fault::NotUtf8));
        check("/a%", Err(Fault::BadEscape));
        check("/a%2", Err(Fault::BadEscape));
        check("/a%+1", Err(Fault::BadEscape));
        check("/a%zz", Err(Fault::BadEscape));
    }

    #[test]
    fn queries() {
        #[track_caller]
        fn check(raw: Option<&str>, expect: Result<&[(&str, &str)], Fault>) {
            let pairs = query_pairs(raw);
            let pairs = pairs
                .as_ref()
                .map(|pairs| pairs.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect::<Vec<_>>());
            assert_eq!(pairs.as_deref().map_err(|fault| **fault), expect, "{raw:?}");
        }
        check(None, Ok(&[]));
        check(Some(""), Ok(&[]));
        check(Some("a=1&b=2"), Ok(&[("a", "1"), ("b", "2")]));
        check(Some("a=1&a=2&a="), Ok(&[("a", "1"), ("a", "2"), ("a", "")]));
        check(Some("a&&b=x=y"), Ok(&[("a", ""), ("b", "x=y")]));
        check(Some("a+b=c%2Bd+e"), Ok(&[("a b", "c+d e")]));
        check(Some("a%5B%5D=%26"), Ok(&[("a[]", "&")]));
        check(Some("a=%C3%A9"), Ok(&[("a", "é")]));
        check(Some("a=%ff"), Err(Fault::NotUtf8));
        check(Some("a=%f"), Err(Fault::BadEscape));
    }
}
