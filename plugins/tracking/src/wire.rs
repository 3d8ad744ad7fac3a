//! Requests, read by the rules of proto3's JSON: numbers as numbers or as text, unknown fields ignored, null is absent.
//!
//! Owns [`Args`], which is one request's fields whether they came as JSON or as a query string, and the refusals with
//! the texts that clients match on. It is separate because every endpoint reads the same way. Bounded by the route's
//! inline limit and serde_json's nesting limit (128). On failure: 400, naming the field.

use crate::errors::{Code, Failure, Outcome};
use crate::validate;
use mainstay_sdk::http::Request;
use serde_json::{Map, Value};

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Text.
    Text,
    /// A whole number of 64 bits.
    Integer,
    /// A double; `"NaN"` and the infinities are text.
    Real,
    /// True or false.
    Boolean,
    /// A list of texts.
    Texts,
    /// A list of objects.
    List,
    /// An object.
    Object,
    /// A word of a closed list, or its number.
    Word(&'static [(&'static str, i64)]),
}

/// A field that an endpoint reads.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    name: &'static str,
    kind: Kind,
    required: bool,
}

/// A field that may be left out.
pub const fn optional(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: false }
}

/// A field that must be there and not empty.
pub const fn required(name: &'static str, kind: Kind) -> Field {
    Field { name, kind, required: true }
}

/// One request's fields.
#[derive(Debug, Default)]
pub struct Args(Map<String, Value>);

impl Args {
    /// Read a request: the query string of a GET, the JSON body of anything else. Not checked yet; `lists` are the fields
    /// of which a query string may hold several values.
    pub fn read(request: &Request, lists: &[Field]) -> Outcome<Self> {
        if request.method() == "GET" {
            return Ok(Self::from_query(request.query().iter(), lists));
        }
        must_be_json(request)?;
        Self::from_json(request.bytes()?)
    }

    /// From a query string. Fields that hold lists take every value of their name, others the first.
    pub fn from_query<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, fields: &[Field]) -> Self {
        let mut map = Map::new();
        for (name, value) in pairs {
            let is_list = fields.iter().any(|f| f.name == name && matches!(f.kind, Kind::Texts | Kind::List));
            let value = Value::String(value.to_owned());
            if is_list {
                if let Value::Array(values) = map.entry(name).or_insert_with(|| Value::Array(Vec::new())) {
                    values.push(value);
                }
            } else {
                map.entry(name).or_insert(value);
            }
        }
        Self(map)
    }

    /// From a body. An empty one is an empty object; text that is JSON again (old clients) is read twice.
    pub fn from_json(body: &[u8]) -> Outcome<Self> {
        let body = if body.trim_ascii().is_empty() { b"{}" } else { body };
        let mut value: Value = serde_json::from_slice(body).map_err(not_json)?;
        if let Value::String(inner) = &value {
            value = serde_json::from_str(inner).map_err(not_json)?;
        }
        match value {
            Value::Object(map) => Ok(Self(map)),
            other => Err(Failure::new(
                Code::BadRequest,
                format!("The body must be a JSON object, but it is of type '{}'", type_name(&other)),
            )),
        }
    }

    /// Check types and presence, in the order of the fields.
    pub fn checked(mut self, fields: &[Field]) -> Outcome<Self> {
        self.0.retain(|_, value| !value.is_null());
        if let (false, Some(old)) = (self.0.contains_key("run_id"), self.0.get("run_uuid")) {
            let old = old.clone();
            self.0.insert("run_id".into(), old);
        }
        for field in fields {
            match self.0.get_mut(field.name) {
                None if field.required => return Err(validate::missing_value(field.name)),
                None => {}
                Some(Value::String(text)) if field.required && text.is_empty() => {
                    return Err(validate::missing_value(field.name));
                }
                Some(value) => {
                    if let Some(read) = convert(value, field.kind) {
                        *value = read;
                    } else if !fits(value, field.kind) {
                        return Err(wrong_type(field.name, value));
                    }
                }
            }
        }
        Ok(self)
    }

    /// A text field; empty text counts as absent, as proto3 has it.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    /// A text field, empty when absent.
    pub fn text_or_empty(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or("")
    }

    /// Whether the field was given at all.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// A whole number, or a word's number.
    pub fn integer(&self, name: &str) -> Option<i64> {
        self.0.get(name).and_then(Value::as_i64)
    }

    /// A double.
    pub fn real(&self, name: &str) -> Option<f64> {
        self.0.get(name).and_then(as_real)
    }

    /// True or false; false when absent.
    pub fn boolean(&self, name: &str) -> bool {
        self.0.get(name).and_then(Value::as_bool).unwrap_or(false)
    }

    /// A list of texts.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let items = self.0.get(name).and_then(Value::as_array);
        items.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// An object.
    pub fn object(&self, name: &str) -> Option<&Map<String, Value>> {
        self.0.get(name).and_then(Value::as_object)
    }

    /// A list of objects.
    pub fn objects(&self, name: &str) -> impl Iterator<Item = &Map<String, Value>> {
        self.0.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
    }

    /// A list of `{"key":…,"value":…}`.
    pub fn pairs(&self, name: &str) -> Outcome<Vec<(&str, &str)>> {
        self.objects(name)
            .enumerate()
            .map(|(at, item)| {
                let key = member(item, "key", &format!("{name}[{at}].key"))?.unwrap_or("");
                if key.is_empty() {
                    return Err(validate::missing_value(&format!("{name}[{at}].key")));
                }
                Ok((key, member(item, "value", &format!("{name}[{at}].value"))?.unwrap_or("")))
            })
            .collect()
    }
}

/// A text member of an object inside a request.
pub fn member<'a>(object: &'a Map<String, Value>, name: &str, path: &str) -> Outcome<Option<&'a str>> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(other) => Err(wrong_type(path, other)),
    }
}

/// A whole number inside a request.
pub fn member_integer(object: &Map<String, Value>, name: &str, path: &str) -> Outcome<Option<i64>> {
    match object.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => as_integer(value).map(Some).ok_or_else(|| wrong_type(path, value)),
    }
}

/// Bodies of other types than JSON are refused, so that a page in a browser cannot post here behind its user's back.
pub fn must_be_json(request: &Request) -> Outcome<()> {
    match request.header("content-type") {
        Some(kind) if kind.trim_start().to_ascii_lowercase().starts_with("application/json") => Ok(()),
        // DELETE and PATCH are never sent across origins without asking.
        None if matches!(request.method(), "DELETE" | "PATCH") => Ok(()),
        None => Err(Failure::new(Code::BadRequest, "Bad Request. Content-Type header is missing.")),
        Some(_) => Err(Failure::new(
            Code::BadRequest,
            "Bad Request. Content-Type should be one of ['application/json'].".to_owned(),
        )),
    }
}

/// A refusal of a body that is no JSON.
pub fn not_json(error: serde_json::Error) -> Failure {
    Failure::new(Code::BadRequest, format!("The body is not the JSON that this endpoint reads: {error}"))
}

fn wrong_type(path: &str, value: &Value) -> Failure {
    let hint = format!(
        " Hint: Value was of type '{}'. See the API docs for more information about request parameters.",
        type_name(value)
    );
    let mut shown = value.to_string();
    if shown.len() > 500 {
        shown = format!("{}…", shown.chars().take(500).collect::<String>());
    }
    validate::invalid_value(path, &shown, &hint)
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

fn as_integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let real = number.as_f64()?;
            // Exactly representable whole numbers may come as `3.0`.
            (real.fract() == 0.0 && real.abs() < 9.0e15).then_some(real as i64)
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn as_real(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => real_text(text),
        // The reference server's reader takes them so.
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        _ => None,
    }
}

/// A double as text: a number, or one of the names JSON has no number for.
pub fn real_text(text: &str) -> Option<f64> {
    match text {
        "NaN" | "nan" => Some(f64::NAN),
        "Infinity" | "inf" => Some(f64::INFINITY),
        "-Infinity" | "-inf" => Some(f64::NEG_INFINITY),
        _ => text.trim().parse::<f64>().ok().filter(|real| real.is_finite()),
    }
}

/// Numbers that came as text, words that came as numbers, booleans that came as text.
fn convert(value: &Value, kind: Kind) -> Option<Value> {
    match (kind, value) {
        (Kind::Integer, Value::String(_) | Value::Number(_)) => as_integer(value).map(Value::from),
        (Kind::Boolean, Value::String(text)) => match text.to_ascii_lowercase().as_str() {
            "true" => Some(Value::Bool(true)),
            "false" => Some(Value::Bool(false)),
            _ => None,
        },
        (Kind::Word(words), Value::String(text)) => {
            let known = words.iter().find(|(word, _)| word == text).map(|(_, number)| *number);
            known.or_else(|| text.parse().ok().filter(|n| words.iter().any(|(_, number)| number == n))).map(Value::from)
        }
        _ => None,
    }
}

fn fits(value: &Value, kind: Kind) -> bool {
    match kind {
        Kind::Text => value.is_string(),
        Kind::Integer => value.is_i64(),
        Kind::Real => as_real(value).is_some(),
        Kind::Boolean => value.is_boolean(),
        Kind::Texts => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
        Kind::List => value.as_array().is_some_and(|items| items.iter().all(Value::is_object)),
        Kind::Object => value.is_object(),
        Kind::Word(words) => value.as_i64().is_some_and(|n| words.iter().any(|(_, number)| *number == n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: &[Field] = &[
        required("name", Kind::Text),
        optional("time", Kind::Integer),
        optional("value", Kind::Real),
        optional("ids", Kind::Texts),
        optional("tags", Kind::List),
        optional("flag", Kind::Boolean),
        optional("one", Kind::Object),
        optional("view", Kind::Word(&[("ACTIVE_ONLY", 1), ("ALL", 3)])),
    ];

    fn read(json: &str) -> Outcome<Args> {
        Args::from_json(json.as_bytes())?.checked(FIELDS)
    }

    #[test]
    fn reads_what_proto_json_allows() {
        let args = read(
            r#"{"name":"x","time":"12","value":"NaN","ids":["a"],"flag":true,"view":"ALL","one":{"a":1},"more":{}}"#,
        )
        .unwrap();
        assert_eq!(args.object("one").unwrap()["a"], 1);
        assert_eq!((args.text("name"), args.integer("time"), args.integer("view")), (Some("x"), Some(12), Some(3)));
        assert!(args.real("value").unwrap().is_nan() && args.boolean("flag"));
        assert_eq!(args.texts("ids"), ["a"]);
        let args = read(r#"{"name":"x","time":3.0,"value":1,"view":3,"ids":null}"#).unwrap();
        assert_eq!((args.integer("time"), args.real("value"), args.integer("view")), (Some(3), Some(1.0), Some(3)));
        assert!(read("\"{\\\"name\\\":\\\"twice\\\"}\"").is_ok());
        assert_eq!(
            read(r#"{"name":"x","tags":[{"key":"k"},{"key":"l","value":"v"}]}"#).unwrap().pairs("tags").unwrap(),
            [("k", ""), ("l", "v")]
        );
    }

    #[test]
    fn refuses_with_texts_that_clients_match() {
        #[track_caller]
        fn check(json: &str, expect: &str) {
            let failure = read(json).unwrap_err();
            assert!(failure.message.starts_with(expect), "{json}: {}", failure.message);
            assert_eq!(failure.code.status(), 400);
        }
        check("{}", "Missing value for required parameter 'name'. See the API docs");
        check("", "Missing value for required parameter 'name'.");
        check(r#"{"name":""}"#, "Missing value for required parameter 'name'.");
        check(
            r#"{"name":123}"#,
            "Invalid value 123 for parameter 'name' supplied:  Hint: Value was of type 'int'. See the API docs",
        );
        check(r#"{"name":"x","time":"a"}"#, "Invalid value \"a\" for parameter 'time' supplied:");
        check(r#"{"name":"x","time":1.5}"#, "Invalid value 1.5 for parameter 'time' supplied:");
        check(r#"{"name":"x","time":99999999999999999999}"#, "Invalid value");
        check(r#"{"name":"x","value":"abc"}"#, "Invalid value \"abc\" for parameter 'value'");
        check(r#"{"name":"x","ids":"a"}"#, "Invalid value \"a\" for parameter 'ids'");
        check(r#"{"name":"x","ids":[1]}"#, "Invalid value [1] for parameter 'ids'");
        check(r#"{"name":"x","tags":[1]}"#, "Invalid value [1] for parameter 'tags'");
        check(r#"{"name":"x","one":[1]}"#, "Invalid value [1] for parameter 'one'");
        check(r#"{"name":"x","view":"NO"}"#, "Invalid value \"NO\" for parameter 'view'");
        check("[]", "The body must be a JSON object");
        check("{", "The body is not the JSON");
        check("\u{0}", "The body is not the JSON");
        check(&format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000)), "The body is not the JSON");
        assert!(read(r#"{"name":"x","tags":[{"value":"v"}]}"#).unwrap().pairs("tags").is_err());
        assert!(read(r#"{"name":"x","tags":[{"key":"k","value":1}]}"#).unwrap().pairs("tags").is_err());
    }

    #[test]
    fn reads_query_strings() {
        let pairs = [("name", "x"), ("ids", "a"), ("ids", "b"), ("time", "5"), ("time", "6"), ("flag", "True")];
        let args = Args::from_query(pairs.into_iter(), FIELDS).checked(FIELDS).unwrap();
        assert_eq!((args.texts("ids"), args.integer("time")), (vec!["a".into(), "b".into()], Some(5)));
        assert!(args.boolean("flag"));
    }
}
