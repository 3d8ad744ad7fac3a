//! Words of a filter or an order clause.
//!
//! Pure; one pass, no recursion, so that its cost is bounded by the length of the text whatever stands in it. Every
//! token keeps the text it came from, because refusals quote it.

use crate::errors::{Failure, Outcome};

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// A name, dotted or not, its parts plain or quoted: `metrics."a b"`, `status`, `and`.
    Name,
    /// A string in single quotes.
    Text(String),
    /// A whole number that fits.
    Integer(i64),
    /// Any other number.
    Real(f64),
    /// `=`, `!=`, `<`, `<=`, `>`, `>=`, or one that no entity supports.
    Operator,
    /// `(`, `)`, `,` or anything else.
    Mark(char),
}

/// A token and its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Token<'a> {
    /// What it is.
    pub kind: Kind,
    /// As it was written.
    pub raw: &'a str,
}

impl Token<'_> {
    /// Whether it is this keyword, in any case.
    pub fn is(&self, keyword: &str) -> bool {
        self.kind == Kind::Name && self.raw.eq_ignore_ascii_case(keyword)
    }
}

/// Split a text into tokens.
pub fn tokens(text: &str) -> Outcome<Vec<Token<'_>>> {
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let start = at;
        let kind = match c {
            c if c.is_whitespace() => {
                at += c.len_utf8();
                continue;
            }
            '\'' => {
                at = closing(text, at, '\'')?;
                Kind::Text(text[start + 1..at - 1].to_owned())
            }
            '"' | '`' => {
                at = name(text, at)?;
                Kind::Name
            }
            '0'..='9' | '-' | '.' if number_length(&text[at..]) > 0 => {
                at += number_length(&text[at..]);
                number(&text[start..at])?
            }
            c if starts_name(c) => {
                at = name(text, at)?;
                Kind::Name
            }
            '=' | '!' | '<' | '>' | '~' => {
                at += text[at..].find(|c| !matches!(c, '=' | '!' | '<' | '>' | '~')).unwrap_or(text.len() - at);
                Kind::Operator
            }
            c => {
                at += c.len_utf8();
                Kind::Mark(c)
            }
        };
        out.push(Token { kind, raw: &text[start..at] });
    }
    Ok(out)
}

fn starts_name(c: char) -> bool {
    c.is_alphabetic() || c == '_'
}

fn continues_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | '$' | '#' | '@')
}

/// End of the quoted text that starts at `at`, behind its closing quote. A quote that is doubled, or that a backslash
/// precedes, belongs to the text (as it is written: nothing is unescaped), unless no other quote closes it.
fn closing(text: &str, at: usize, quote: char) -> Outcome<usize> {
    let bytes = text.as_bytes();
    let mut passed = None;
    let mut end = at + 1;
    while let Some(length) = text[end..].find(quote) {
        let found = end + length;
        let is_doubled = bytes.get(found + 1) == Some(&(quote as u8));
        let is_escaped = quote != '`' && found > at + 1 && bytes[found - 1] == b'\\';
        if !is_doubled && !is_escaped {
            return Ok(found + 1);
        }
        passed = Some(found + 1);
        end = found + if is_escaped { 1 } else { 2 };
    }
    match passed {
        Some(end) => Ok(end),
        None => Err(Failure::invalid(format!(
            "Invalid clause(s) in filter string: '{}' (a quote is not closed)",
            &text[at..]
        ))),
    }
}

/// End of a dotted name that starts at `at`.
fn name(text: &str, mut at: usize) -> Outcome<usize> {
    loop {
        match text[at..].chars().next() {
            Some(quote @ ('"' | '`')) => at = closing(text, at, quote)?,
            Some(c) if continues_name(c) => {
                at += text[at..].find(|c| !continues_name(c)).unwrap_or(text.len() - at);
            }
            _ => return Ok(at),
        }
        match text[at..].strip_prefix('.').and_then(|rest| rest.chars().next()) {
            Some(c) if continues_name(c) || matches!(c, '"' | '`') => at += 1,
            _ => return Ok(at),
        }
    }
}

/// Length of the number at the start of the text; 0 when there is none.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    let whole = digits(at);
    at += whole;
    let mut fraction = 0;
    if bytes.get(at) == Some(&b'.') {
        fraction = digits(at + 1);
        if fraction > 0 || whole > 0 {
            at += 1 + fraction;
        }
    }
    if whole + fraction == 0 {
        return 0;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        let exponent = digits((at + 1 + sign).min(bytes.len()));
        if exponent > 0 {
            at += 1 + sign + exponent;
        }
    }
    at
}

fn number(raw: &str) -> Outcome<Kind> {
    if let Ok(whole) = raw.parse::<i64>() {
        return Ok(Kind::Integer(whole));
    }
    match raw.parse::<f64>() {
        Ok(real) => Ok(Kind::Real(real)),
        Err(_) => Err(Failure::invalid(format!("Invalid clause(s) in filter string: '{raw}' is not a number"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits() {
        #[track_caller]
        fn check(text: &str, expect: &[&str]) {
            let raw: Vec<_> = tokens(text).unwrap().into_iter().map(|t| t.raw).collect();
            assert_eq!(raw, expect);
        }
        check("", &[]);
        check(" \n", &[]);
        check("metrics.a>0.5", &["metrics.a", ">", "0.5"]);
        check("params.`a b.c`='x''y' b", &["params.`a b.c`", "=", "'x''y'", "b"]);
        check("a = 'it\\'s' and", &["a", "=", "'it\\'s'", "and"]);
        check("a = 'C:\\'", &["a", "=", "'C:\\'"]);
        check("a = '' b = ''", &["a", "=", "''", "b", "=", "''"]);
        check("tags.\"a.b\" != \"c d\"", &["tags.\"a.b\"", "!=", "\"c d\""]);
        check("tags.mlflow.parentRunId LIKE '%'", &["tags.mlflow.parentRunId", "LIKE", "'%'"]);
        check("a >= -1.5e-3", &["a", ">=", "-1.5e-3"]);
        check("a < .5 and b<1.", &["a", "<", ".5", "and", "b", "<", "1."]);
        check("run_id IN ('a', 'b')", &["run_id", "IN", "(", "'a'", ",", "'b'", ")"]);
        check("metrics.a-b", &["metrics.a", "-", "b"]);
        check("metrics.größe = 1", &["metrics.größe", "=", "1"]);
        check("a = 99999999999999999999", &["a", "=", "99999999999999999999"]);
        check("x;", &["x", ";"]);
    }

    #[test]
    fn refuses_open_quotes() {
        for text in ["a = 'x", "params.`a = 1", "\"", "'"] {
            assert!(tokens(text).is_err(), "{text}");
        }
    }
}
