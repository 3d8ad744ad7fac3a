//! What a JSON or UBJSON file says, before anything in it is believed.
//!
//! Owns [`Value`], which both readers make, and the JSON reader. Separate from the importers so that a file is read under
//! one set of bounds whatever it means. Lists of numbers, nearly all of a model, are held as numbers.
//!
//! Bounded by: [`Limits::nesting`], and a budget of values other than numbers in proportion to the file, as each takes some
//! 50 bytes. On failure: `invalid` names the key, or the place in the file where it stops being JSON.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use mainstay_base::{Error, Result};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use super::limits::Limits;

/// A value of a file.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    /// Also booleans, as 0 and 1.
    Number(f64),
    Text(String),
    /// A list of nothing but numbers, or of nothing.
    Numbers(Vec<f64>),
    List(Vec<Value>),
    /// No key twice.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// What it is, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Number(_) => "a number",
            Value::Text(_) => "text",
            Value::Numbers(_) => "a list of numbers",
            Value::List(_) => "a list",
            Value::Map(_) => "an object",
        }
    }

    /// The value under a key; none when it is not there or this is no object.
    pub fn find(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(known, _)| known == key).map(|(_, value)| value),
            _ => None,
        }
    }

    /// The value under a key; `invalid` when it is not there.
    pub fn get(&self, key: &str) -> Result<&Value> {
        self.find(key).ok_or_else(|| Error::invalid(format!("`{key}` is missing")))
    }

    /// The numbers under a key.
    pub fn numbers(&self, key: &str) -> Result<&[f64]> {
        match self.get(key)? {
            Value::Numbers(numbers) => Ok(numbers),
            other => Err(Error::invalid(format!("`{key}` is {}; a list of numbers is expected", other.kind()))),
        }
    }

    /// The numbers under a key, or none when the key is not there.
    pub fn numbers_if_any(&self, key: &str) -> Result<&[f64]> {
        self.find(key).map_or(Ok(&[]), |_| self.numbers(key))
    }

    /// The list under a key; a list of numbers only if it is empty.
    pub fn list(&self, key: &str) -> Result<&[Value]> {
        match self.get(key)? {
            Value::List(values) => Ok(values),
            Value::Numbers(numbers) if numbers.is_empty() => Ok(&[]),
            other => Err(Error::invalid(format!("`{key}` is {}; a list is expected", other.kind()))),
        }
    }

    /// The text under a key.
    pub fn text(&self, key: &str) -> Result<&str> {
        match self.get(key)? {
            Value::Text(text) => Ok(text),
            other => Err(Error::invalid(format!("`{key}` is {}; text is expected", other.kind()))),
        }
    }

    /// The count under a key, written as a number or as text; `otherwise` when it is not there.
    pub fn count_or(&self, key: &str, otherwise: usize) -> Result<usize> {
        let number = match self.find(key) {
            None => return Ok(otherwise),
            Some(Value::Number(number)) => Some(*number),
            Some(Value::Text(text)) => text.trim().parse::<f64>().ok(),
            Some(_) => None,
        };
        // Counts above this are no counts, and lose digits as `f64`.
        let count = number.filter(|number| *number >= 0.0 && number.fract() == 0.0 && *number < 9e15);
        count.map(|number| number as usize).ok_or_else(|| Error::invalid(format!("`{key}` is not a count")))
    }
}

/// What stands for `NaN`, `Infinity` and `-Infinity` while JSON is read: texts that no name of a feature is.
const UNUSUAL: [(&str, f64, &str); 3] = [
    ("-Infinity", f64::NEG_INFINITY, "\0-Infinity"),
    ("Infinity", f64::INFINITY, "\0Infinity"),
    ("NaN", f64::NAN, "\0NaN"),
];

/// XGBoost writes numbers that are not finite as bare words, which are no JSON. Put texts in their place.
fn quoted(bytes: &[u8]) -> Cow<'_, [u8]> {
    let (mut made, mut copied, mut at, mut is_text) = (Vec::new(), 0, 0, false);
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if is_text => at += 1,
            b'"' => is_text = !is_text,
            b'N' | b'I' | b'-' if !is_text => {
                if let Some((word, ..)) = UNUSUAL.iter().find(|(word, ..)| bytes[at..].starts_with(word.as_bytes())) {
                    made.extend_from_slice(&bytes[copied..at]);
                    made.extend_from_slice(format!("\"\\u0000{word}\"").as_bytes());
                    (copied, at) = (at + word.len(), at + word.len() - 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
    if copied == 0 {
        return Cow::Borrowed(bytes);
    }
    made.extend_from_slice(&bytes[copied..]);
    Cow::Owned(made)
}

/// Read a JSON text, in which numbers may also be the bare words `NaN`, `Infinity` and `-Infinity`.
pub(super) fn parse_json(bytes: &[u8], limits: &Limits) -> Result<Value> {
    let budget = Budget::new(bytes.len(), limits);
    let bytes = quoted(bytes);
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let value = Seed { budget: &budget, nesting_left: limits.nesting }.deserialize(&mut json);
    let value = value.and_then(|value| json.end().map(|()| value));
    value.map_err(|error| Error::invalid(format!("not a readable JSON file: {error}")))
}

/// How many values that are not numbers of a list a file may hold.
pub(super) struct Budget(Cell<usize>);

impl Budget {
    pub fn new(file_bytes: usize, limits: &Limits) -> Budget {
        // Each tree has some twenty keys and lists; everything else that is not a number is a handful.
        Budget(Cell::new((file_bytes / 4 + 64).min(limits.trees.saturating_mul(64).saturating_add(limits.features))))
    }

    /// Whether one more is allowed.
    pub fn take(&self) -> bool {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        left > 0
    }
}

/// Collects the items of a list: numbers as long as there is nothing else.
#[derive(Default)]
pub(super) struct Items {
    numbers: Vec<f64>,
    others: Vec<Value>,
}

impl Items {
    /// Whether the budget allowed it.
    pub fn push(&mut self, value: Value, budget: &Budget) -> bool {
        match value {
            Value::Number(number) if self.others.is_empty() => self.numbers.push(number),
            value => {
                for number in self.numbers.drain(..) {
                    if !budget.take() {
                        return false;
                    }
                    self.others.push(Value::Number(number));
                }
                self.others.push(value);
                return budget.take();
            }
        }
        true
    }

    pub fn push_number(&mut self, number: f64) {
        self.numbers.push(number);
    }

    pub fn finish(self) -> Value {
        if self.others.is_empty() { Value::Numbers(self.numbers) } else { Value::List(self.others) }
    }
}

/// `None` when the keys are all different, else one that is there twice.
pub(super) fn repeated_key(entries: &[(String, Value)]) -> Option<String> {
    let mut keys: Vec<&str> = entries.iter().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].to_owned())
}

struct Seed<'a> {
    budget: &'a Budget,
    nesting_left: usize,
}

impl Seed<'_> {
    fn inner<E: serde::de::Error>(&self) -> std::result::Result<Seed<'_>, E> {
        let nesting_left =
            self.nesting_left.checked_sub(1).ok_or_else(|| E::custom("values are nested too deeply for a model"))?;
        Ok(Seed { budget: self.budget, nesting_left })
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> std::result::Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Number(f64::from(u8::from(value))))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(Value::Number(value as f64))
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(Value::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        match UNUSUAL.iter().find(|(_, _, text)| *text == value) {
            Some((_, number, _)) => Ok(Value::Number(*number)),
            None => Ok(Value::Text(value.to_owned())),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> std::result::Result<Value, A::Error> {
        let mut items = Items::default();
        while let Some(value) = access.next_element_seed(self.inner()?)? {
            if !items.push(value, self.budget) {
                return Err(A::Error::custom("more values than a model of this size has"));
            }
        }
        Ok(items.finish())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> std::result::Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = access.next_key::<String>()? {
            if !self.budget.take() {
                return Err(A::Error::custom("more values than a model of this size has"));
            }
            entries.push((key, access.next_value_seed(self.inner()?)?));
        }
        match repeated_key(&entries) {
            Some(key) => Err(A::Error::custom(format_args!("the key `{key}` is there twice"))),
            None => Ok(Value::Map(entries)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Value> {
        parse_json(json.as_bytes(), &Limits::default())
    }

    #[test]
    fn lists_of_numbers_are_numbers() {
        assert_eq!(read("[1,true,-2.5]").unwrap(), Value::Numbers(vec![1.0, 1.0, -2.5]));
        let mixed = Value::List(vec![Value::Number(1.0), Value::Text("a".into()), Value::Number(2.0)]);
        assert_eq!(read("[1,\"a\",2]").unwrap(), mixed);
        assert_eq!(read("[]").unwrap(), Value::Numbers(Vec::new()));
        assert_eq!(read("{\"n\":\"7\"}").unwrap().count_or("n", 0).unwrap(), 7);
        assert!(read("{\"n\":-1}").unwrap().count_or("n", 0).is_err());
    }

    #[test]
    fn numbers_that_are_not_finite_are_words() {
        let Value::Numbers(read_numbers) = read("[NaN, Infinity,-Infinity,-1]").unwrap() else { panic!("numbers") };
        assert!(read_numbers[0].is_nan() && read_numbers[1..] == [f64::INFINITY, f64::NEG_INFINITY, -1.0]);
        let text = Value::List(vec![Value::Text("NaN\"Infinity".into()), Value::Number(f64::INFINITY)]);
        assert_eq!(read("[\"NaN\\\"Infinity\", Infinity]").unwrap(), text);
        for broken in ["[NaNa]", "[Inf]", "[-NaN]", "NaN1", "{NaN: 1}x"] {
            assert!(read(broken).is_err(), "{broken}");
        }
    }

    #[test]
    fn what_is_not_a_model_is_refused() {
        fn check(json: &str, says: &str) {
            let error = read(json).unwrap_err();
            assert!(error.message().contains(says), "{error}");
        }
        check("{\"a\":1,\"a\":2}", "`a` is there twice");
        check(&"[".repeat(1_000_000), "nested too deeply");
        check("{\"a\":", "EOF");
        check("[1] 2", "trailing");
        check(&format!("[{}1]", "[],".repeat(10_000)), "more values");
    }
}
