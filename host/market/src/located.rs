//! TOML whose every value remembers where it stands, and JSON Schema errors that point there.
//!
//! Owns [`Document`]: the file's text as a JSON value beside a map from JSON pointers to places. Separate because the
//! manifest, the operator's configuration and a plugin's configuration all want the same thing: a message that names file,
//! line and column, says what is wrong, and says what to write. Bounded by [`DOCUMENT_BYTES_MAX`] of text (the TOML parser
//! bounds nesting itself) and [`PROBLEMS_MAX`] reported problems. On failure: every problem found, not only the first.

use crate::nearest::nearest;
use jsonschema::error::{TypeKind, ValidationErrorKind};
use mainstay_base::{Error, Result};
use serde_json::Value;
use std::collections::HashMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Longest text that is parsed.
pub const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;
/// Most problems reported at once; what is beyond is counted.
pub const PROBLEMS_MAX: usize = 20;

/// One thing that is wrong with a document, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// JSON pointer of the item.
    pub pointer: String,
    /// Whether the key is at fault rather than the value.
    pub at_key: bool,
    /// What is wrong and what to write, as one sentence without a full stop.
    pub message: String,
}

impl Problem {
    /// A problem with a value.
    pub fn value(pointer: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { pointer: pointer.into(), at_key: false, message: message.into() }
    }

    /// A problem with a key.
    pub fn key(pointer: impl Into<String>, message: impl Into<String>) -> Problem {
        Problem { pointer: pointer.into(), at_key: true, message: message.into() }
    }
}

#[derive(Clone, Debug)]
struct Spans {
    key: Option<Range<usize>>,
    value: Range<usize>,
}

/// A parsed TOML file with the place of each item.
#[derive(Clone, Debug)]
pub struct Document {
    name: String,
    text: String,
    value: Value,
    spans: HashMap<String, Spans>,
}

impl Document {
    /// Parse `text`; `name` is what messages call the file.
    pub fn parse(name: &str, text: &str) -> Result<Document> {
        if text.len() > DOCUMENT_BYTES_MAX {
            let (have, may) = (text.len(), DOCUMENT_BYTES_MAX);
            return Err(Error::invalid(format!(
                "{name}: {have} bytes of TOML, at most {may} are read; shorten the file"
            )));
        }
        let parsed = DeTable::parse(text).map_err(|error| {
            let (line, column) = line_and_column(text, error.span().map_or(0, |span| span.start));
            let message = error.message().replace('\n', "; ");
            Error::invalid(format!("{name}:{line}:{column}: not valid TOML: {message}"))
        })?;
        let mut document = Document { name: name.into(), text: text.into(), value: Value::Null, spans: HashMap::new() };
        let mut problems = Vec::new();
        document.spans.insert(String::new(), Spans { key: None, value: 0..0 });
        let value = document.table(parsed.get_ref(), "", &mut problems);
        document.value = value;
        document.refuse(problems)?;
        Ok(document)
    }

    /// What messages call the file.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The whole file as JSON.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// Line and column, from 1, of the item at this pointer, or of the nearest item above it.
    pub fn place(&self, pointer: &str, at_key: bool) -> (usize, usize) {
        let mut pointer = pointer;
        loop {
            if let Some(spans) = self.spans.get(pointer) {
                let span = if at_key { spans.key.as_ref().unwrap_or(&spans.value) } else { &spans.value };
                return line_and_column(&self.text, span.start);
            }
            let Some(cut) = pointer.rfind('/') else { return (1, 1) };
            pointer = &pointer[..cut];
        }
    }

    /// One line: place and message.
    pub fn describe(&self, problem: &Problem) -> String {
        let (line, column) = self.place(&problem.pointer, problem.at_key);
        format!("{}:{line}:{column}: {}", self.name, problem.message)
    }

    /// An error that lists the problems, if there are any, in the order of the file.
    pub fn refuse(&self, mut problems: Vec<Problem>) -> Result<()> {
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort_by_key(|problem| self.place(&problem.pointer, problem.at_key));
        let mut lines: Vec<String> = problems.iter().take(PROBLEMS_MAX).map(|problem| self.describe(problem)).collect();
        lines.dedup();
        if problems.len() > PROBLEMS_MAX {
            lines.push(format!("{}: and {} more problems", self.name, problems.len() - PROBLEMS_MAX));
        }
        Err(Error::invalid(lines.join("\n")))
    }

    fn table(&mut self, table: &DeTable<'_>, pointer: &str, problems: &mut Vec<Problem>) -> Value {
        let mut object = serde_json::Map::new();
        for (key, value) in table.iter() {
            let below = format!("{pointer}/{}", escape(key.get_ref()));
            self.spans.insert(below.clone(), Spans { key: Some(key.span()), value: value.span() });
            let json = self.convert(value, &below, problems);
            object.insert(key.get_ref().to_string(), json);
        }
        Value::Object(object)
    }

    fn convert(&mut self, value: &Spanned<DeValue<'_>>, pointer: &str, problems: &mut Vec<Problem>) -> Value {
        match value.get_ref() {
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(flag) => Value::Bool(*flag),
            DeValue::Datetime(moment) => Value::String(moment.to_string()),
            DeValue::Integer(integer) => match i64::from_str_radix(integer.as_str(), integer.radix()) {
                Ok(number) => Value::from(number),
                Err(_) => {
                    problems.push(Problem::value(pointer, format!("`{integer}` does not fit into 64 bits")));
                    Value::Null
                }
            },
            DeValue::Float(float) => match float.as_str().parse::<f64>().ok().and_then(number) {
                Some(number) => Value::Number(number),
                None => {
                    problems.push(Problem::value(pointer, format!("`{float}` is not a finite number")));
                    Value::Null
                }
            },
            DeValue::Array(items) => {
                let mut array = Vec::with_capacity(items.len());
                for (number, item) in items.iter().enumerate() {
                    let below = format!("{pointer}/{number}");
                    self.spans.insert(below.clone(), Spans { key: None, value: item.span() });
                    array.push(self.convert(item, &below, problems));
                }
                Value::Array(array)
            }
            DeValue::Table(table) => self.table(table, pointer, problems),
        }
    }
}

/// `64.0` is the whole number 64, as JSON Schema counts; otherwise a typed reader would refuse what the schema allowed.
fn number(float: f64) -> Option<serde_json::Number> {
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    if float.fract() == 0.0 && float.abs() <= EXACT_MAX {
        return Some((float as i64).into());
    }
    serde_json::Number::from_f64(float)
}

/// Every way in which `value` breaks `schema`. `whole` is what messages call the top level, for example "a manifest".
pub fn check(schema: &Value, validator: &jsonschema::Validator, value: &Value, whole: &str) -> Vec<Problem> {
    validator.iter_errors(value).take(PROBLEMS_MAX * 2).flat_map(|error| explain(schema, &error, whole)).collect()
}

fn explain(schema: &Value, error: &jsonschema::ValidationError<'_>, whole: &str) -> Vec<Problem> {
    let pointer = error.instance_path().to_string();
    let rule = error.schema_path().to_string();
    let parent = rule.rfind('/').map_or("", |cut| &rule[..cut]);
    let given = short(error.instance());
    let help = schema.pointer(parent).and_then(|node| node.get("description")).and_then(Value::as_str);
    let label = label(&pointer, whole);
    let sentence = match error.kind() {
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            return unknown_keys(schema.pointer(parent), unexpected, &pointer, &label);
        }
        ValidationErrorKind::Required { property } => {
            let property = property.as_str().unwrap_or_default();
            let wanted = schema.pointer(parent).and_then(|node| node.pointer(&format!("/properties/{property}")));
            let example = wanted.and_then(example).map(|text| format!("; write `{property} = {text}`"));
            return vec![Problem::value(pointer, format!("{label} lacks `{property}`{}", example.unwrap_or_default()))];
        }
        ValidationErrorKind::Type { kind } => format!("{label} is {given}, which must be {}", type_words(kind)),
        ValidationErrorKind::Enum { .. } | ValidationErrorKind::OneOfNotValid { .. }
            if !options(schema, &rule).is_empty() =>
        {
            let known = options(schema, &rule);
            let near = error.instance().as_str().and_then(|text| nearest(text, known.iter().copied()));
            let near = near.map(|text| format!("did you mean `{text}`? ")).unwrap_or_default();
            format!("{label} is {given}; {near}it is one of {}", list(&known))
        }
        ValidationErrorKind::Pattern { .. } => {
            let example = schema.pointer(parent).and_then(example);
            let words = [help.map(Into::into), example.map(|text| format!("Write for example {text}."))];
            let words: Vec<String> = words.into_iter().flatten().collect();
            return vec![Problem::value(
                pointer,
                format!("{label} is {given}, which does not fit. {}", words.join(" ")),
            )];
        }
        ValidationErrorKind::Minimum { limit } => format!("{label} is {given}; write at least {limit}"),
        ValidationErrorKind::Maximum { limit } => format!("{label} is {given}; write at most {limit}"),
        ValidationErrorKind::MinLength { limit: 1 } => format!("{label} is empty; write something"),
        ValidationErrorKind::MinLength { limit } => format!("{label} is {given}; write at least {limit} characters"),
        ValidationErrorKind::MaxLength { limit } => format!("{label} is too long; write at most {limit} characters"),
        ValidationErrorKind::MinItems { limit } => format!("{label} needs at least {limit} item(s)"),
        ValidationErrorKind::MaxItems { limit } => format!("{label} has too many items; at most {limit} are allowed"),
        ValidationErrorKind::UniqueItems => format!("{label} repeats an item; write each once"),
        _ => format!("{label}: {error}"),
    };
    vec![Problem::value(pointer, sentence)]
}

/// The texts of an `enum`, or of a `oneOf` whose branches are constants.
fn options<'a>(schema: &'a Value, rule: &str) -> Vec<&'a str> {
    let branches = schema.pointer(rule).and_then(Value::as_array).into_iter().flatten();
    branches
        .flat_map(|branch| match branch.get("enum").and_then(Value::as_array) {
            Some(several) => several.iter().collect(),
            None => vec![branch.get("const").unwrap_or(branch)],
        })
        .filter_map(Value::as_str)
        .collect()
}

fn unknown_keys(node: Option<&Value>, unexpected: &[String], pointer: &str, label: &str) -> Vec<Problem> {
    let known: Vec<&str> = node
        .and_then(|node| node.get("properties"))
        .and_then(Value::as_object)
        .map(|properties| properties.keys().map(String::as_str).collect())
        .unwrap_or_default();
    let explain = |key: &String| {
        let fix = match nearest(key, known.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known keys are {}", list(&known)),
        };
        Problem::key(format!("{pointer}/{}", escape(key)), format!("{label} has no key `{key}`; {fix}"))
    };
    unexpected.iter().map(explain).collect()
}

fn label(pointer: &str, whole: &str) -> String {
    if pointer.is_empty() {
        return whole.to_string();
    }
    let parts: Vec<String> = pointer[1..].split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect();
    let mut text = String::new();
    for part in parts {
        match part.parse::<usize>() {
            Ok(number) => text.push_str(&format!("[{}]", number + 1)),
            Err(_) if text.is_empty() => text.push_str(&part),
            Err(_) => text.push_str(&format!(".{part}")),
        }
    }
    format!("`{text}`")
}

fn example(property: &Value) -> Option<String> {
    let given = property.get("examples").and_then(Value::as_array).and_then(|all| all.first());
    given.or_else(|| property.get("default")).map(Value::to_string)
}

fn type_words(kind: &TypeKind) -> String {
    let name = |kind: &str| match kind {
        "array" => "a list `[…]`".to_string(),
        "boolean" => "`true` or `false`".to_string(),
        "integer" => "a whole number".to_string(),
        "number" => "a number".to_string(),
        "object" => "a table".to_string(),
        "string" => "text in quotes".to_string(),
        other => other.to_string(),
    };
    match kind {
        TypeKind::Single(kind) => name(&kind.to_string()),
        TypeKind::Multiple(kinds) => kinds.iter().map(|kind| name(&kind.to_string())).collect::<Vec<_>>().join(" or "),
    }
}

fn short(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((cut, _)) => format!("`{}…`", &text[..cut]),
        None => format!("`{text}`"),
    }
}

/// Names in back quotes with commas between.
pub fn list<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..offset.min(text.len())];
    let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
    let start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    (line, String::from_utf8_lossy(&before[start..]).chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["name"],
            "properties": {
                "name": {"type": "string", "pattern": "^[a-z]+$", "description": "Lowercase letters.", "examples": ["box"]},
                "count": {"type": "integer", "minimum": 1, "maximum": 9},
                "colour": {"enum": ["red", "green"]},
                "inner": {"type": "object", "additionalProperties": false, "properties": {"depth": {"type": "integer"}}},
                "things": {"type": "array", "uniqueItems": true, "items": {"type": "string"}},
            }
        })
    }

    fn check(text: &str, expect: &str) {
        let schema = schema();
        let validator = jsonschema::validator_for(&schema).unwrap();
        let outcome = Document::parse("a.toml", text)
            .and_then(|document| document.refuse(super::check(&schema, &validator, document.value(), "the file")));
        let shown = outcome.err().map(|error| error.message().to_string()).unwrap_or_else(|| "fine".into());
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn problems_point_at_the_offending_item() {
        check("name = 'box'", "fine");
        check("", "a.toml:1:1: the file lacks `name`; write `name = \"box\"`");
        check("name = 'box'\ncuont = 1", "a.toml:2:1: the file has no key `cuont`; did you mean `count`?");
        check("name = 'box'\n\n  count = 10", "a.toml:3:11: `count` is `10`; write at most 9");
        check(
            "name = 'Box'",
            "a.toml:1:8: `name` is `\"Box\"`, which does not fit. Lowercase letters. Write for example \"box\".",
        );
        check("name = 7", "a.toml:1:8: `name` is `7`, which must be text in quotes");
        check(
            "name = 'a'\ncolour = 'gren'",
            "a.toml:2:10: `colour` is `\"gren\"`; did you mean `green`? it is one of `red`, `green`",
        );
        check("name = 'a'\n[inner]\nx = 1", "a.toml:3:1: `inner` has no key `x`; known keys are `depth`");
        check("name = 'a'\nthings = ['é', 3]", "a.toml:2:16: `things[2]` is `3`, which must be text in quotes");
        check("name = 'a'\nthings = ['b', 'b']", "a.toml:2:10: `things` repeats an item; write each once");
    }

    #[test]
    fn all_problems_are_reported_in_the_order_of_the_file() {
        check(
            "count = 0\nname = 'A'",
            "a.toml:1:9: `count` is `0`; write at least 1\na.toml:2:8: `name` is `\"A\"`, which does not fit. Lowercase letters. Write for example \"box\".",
        );
    }

    #[test]
    fn broken_and_hostile_text_is_refused_with_its_place() {
        fn starts(text: &str, expect: &str) {
            let error = Document::parse("a.toml", text).unwrap_err();
            assert!(error.message().starts_with(expect), "{error}");
        }
        starts("name = ", "a.toml:1:");
        starts("x = 1\nx = 2", "a.toml:2:1: not valid TOML: duplicate key");
        starts("x = 99999999999999999999", "a.toml:1:5: ");
        starts("x = nan", "a.toml:1:5: `nan` is not a finite number");
        starts(&format!("x = {}", "[".repeat(100_000)), "a.toml:1:");
        starts(&"#".repeat(DOCUMENT_BYTES_MAX + 1), "a.toml: ");
        assert!(Document::parse("a.toml", &"#".repeat(DOCUMENT_BYTES_MAX)).is_ok());
    }
}
