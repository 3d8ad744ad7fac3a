//! SQL's LIKE: `%` is any run of characters, `_` is one, the whole value must match.
//!
//! A pattern is cut at its `%` into pieces; the first is anchored at the start, the last at the end, those between are
//! found from left to right, which is enough because a run may be of any length. Bounded by [`PATTERN_BYTES_MAX`]: a piece
//! with `_` is compared at every place of the text. There is no escape character.

use mainstay_base::{Error, Result};

/// The longest pattern.
pub(super) const PATTERN_BYTES_MAX: usize = 4_096;

/// A pattern, prepared.
#[derive(Debug)]
pub(super) struct Pattern {
    pieces: Vec<Piece>,
    ignores_case: bool,
}

/// What stands between two `%`.
#[derive(Debug)]
enum Piece {
    Plain(String),
    /// With at least one `_`, here `None`.
    Holes(Vec<Option<char>>),
}

impl Pattern {
    pub fn new(pattern: &str, ignores_case: bool) -> Result<Pattern> {
        if pattern.len() > PATTERN_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the pattern has {} bytes; a LIKE pattern may have {PATTERN_BYTES_MAX}",
                pattern.len()
            )));
        }
        let folded = if ignores_case { fold(pattern) } else { pattern.to_owned() };
        Ok(Pattern { pieces: folded.split('%').map(Piece::new).collect(), ignores_case })
    }

    pub fn matches(&self, text: &str) -> bool {
        if self.ignores_case { self.matches_folded(&fold(text)) } else { self.matches_folded(text) }
    }

    fn matches_folded(&self, text: &str) -> bool {
        let (first, rest) = self.pieces.split_first().expect("splitting yields at least one piece");
        let Some((last, middle)) = rest.split_last() else { return first.strip_start(text) == Some("") };
        let Some(mut text) = first.strip_start(text) else { return false };
        for piece in middle {
            match piece.skip_past(text) {
                Some(rest) => text = rest,
                None => return false,
            }
        }
        last.ends(text)
    }
}

impl Piece {
    fn new(piece: &str) -> Piece {
        if piece.contains('_') {
            Piece::Holes(piece.chars().map(|c| (c != '_').then_some(c)).collect())
        } else {
            Piece::Plain(piece.to_owned())
        }
    }

    /// What is left of a text that starts with this piece.
    fn strip_start<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Piece::Plain(plain) => text.strip_prefix(plain.as_str()),
            Piece::Holes(holes) => {
                let mut chars = text.chars();
                for hole in holes {
                    let c = chars.next()?;
                    if hole.is_some_and(|expected| expected != c) {
                        return None;
                    }
                }
                Some(chars.as_str())
            }
        }
    }

    /// What is left behind the first place at which this piece stands.
    fn skip_past<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Piece::Plain(plain) => text.find(plain.as_str()).map(|at| &text[at + plain.len()..]),
            Piece::Holes(_) => text.char_indices().find_map(|(at, _)| self.strip_start(&text[at..])),
        }
    }

    /// Whether the text ends with this piece.
    fn ends(&self, text: &str) -> bool {
        match self {
            Piece::Plain(plain) => text.ends_with(plain.as_str()),
            Piece::Holes(holes) => {
                let mut chars = text.chars().rev();
                holes.iter().rev().all(|hole| chars.next().is_some_and(|c| hole.is_none_or(|expected| expected == c)))
            }
        }
    }
}

/// Lower case, character by character: the language-dependent rules for whole words would make a pattern miss its text.
fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The textbook recursion.
    fn matches_slowly(pattern: &[char], text: &[char]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some('%'), _) => {
                matches_slowly(&pattern[1..], text) || (!text.is_empty() && matches_slowly(pattern, &text[1..]))
            }
            (Some('_'), Some(_)) => matches_slowly(&pattern[1..], &text[1..]),
            (Some(p), Some(t)) if p == t => matches_slowly(&pattern[1..], &text[1..]),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_textbook(pattern in "[ab%_é]{0,8}", text in "[abé]{0,10}") {
            let expect = matches_slowly(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>());
            prop_assert_eq!(Pattern::new(&pattern, false).unwrap().matches(&text), expect);
        }
    }

    #[test]
    fn patterns() {
        fn check(pattern: &str, text: &str, like: bool, ilike: bool) {
            assert_eq!(Pattern::new(pattern, false).unwrap().matches(text), like, "{pattern} LIKE {text}");
            assert_eq!(Pattern::new(pattern, true).unwrap().matches(text), ilike, "{pattern} ILIKE {text}");
        }
        check("abc", "abc", true, true);
        check("ABC", "abc", false, true);
        check("%b%", "abc", true, true);
        check("a_c", "abc", true, true);
        check("a_", "abc", false, false);
        check("%", "", true, true);
        check("", "", true, true);
        check("", "a", false, false);
        check("_", "é", true, true);
        check("%ΟΣ%", "δρόμος", false, false);
        check("%ΟΣ", "ΚΌΣΜΟΣ", true, true);
        check("%οσ", "ΚΌΣΜΟΣ", false, true);
        check("ab%ab", "ab", false, false);
        check("a%b%c", "a b b c c", true, true);
    }

    #[test]
    fn long_patterns_are_refused() {
        assert!(Pattern::new(&"a".repeat(PATTERN_BYTES_MAX), false).is_ok());
        let error = Pattern::new(&"a".repeat(PATTERN_BYTES_MAX + 1), false).unwrap_err();
        assert!(error.message().contains("4096"), "{error}");
    }
}
