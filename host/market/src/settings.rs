//! A plugin's settings: the operator's values, checked against the schema in the package, defaults filled in.
//!
//! Owns that one step from "what the operator wrote" to "what the component reads". Separate because the schema comes from
//! the package and the values from the operator, and both may be wrong in their own way. Bounded by
//! [`SETTINGS_BYTES_MAX`] and [`DEPTH_MAX`]; a schema never makes the host fetch anything. On failure: each problem with the
//! JSON pointer of the offending value.

use crate::located::{Problem, check};
use mainstay_base::{Error, Result};
use serde_json::Value;

/// Largest settings, as JSON text.
pub const SETTINGS_BYTES_MAX: usize = 256 * 1024;
/// How deep defaults are filled in.
const DEPTH_MAX: usize = 32;
/// Most properties looked at while filling in defaults: a schema that refers to itself twice would double at each level.
const PROPERTIES_MAX: usize = 10_000;

/// Whether this is a schema that settings can be checked against.
pub fn check_schema(schema: &Value) -> Result<()> {
    validator(schema).map(|_| ())
}

fn validator(schema: &Value) -> Result<jsonschema::Validator> {
    if !schema.is_object() {
        return Err(Error::invalid("is not a valid JSON Schema: it must be an object"));
    }
    jsonschema::validator_for(schema).map_err(|error| {
        Error::invalid(format!("is not a valid JSON Schema: {error}; correct it, references must stay inside the file"))
    })
}

/// The settings that the component will read, or what is wrong with those given.
pub fn resolve(schema: Option<&Value>, given: &Value) -> std::result::Result<Value, Vec<Problem>> {
    if !given.is_object() {
        return Err(vec![Problem::value("", "settings are a table of keys and values")]);
    }
    let Some(schema) = schema else {
        let unknown = given.as_object().into_iter().flatten();
        let refuse = |(key, _): (&String, &Value)| {
            Problem::key(format!("/{key}"), format!("`{key}`: this plugin has no settings"))
        };
        let problems: Vec<Problem> = unknown.map(refuse).collect();
        return if problems.is_empty() { Ok(given.clone()) } else { Err(problems) };
    };
    let validator = validator(schema).map_err(|error| vec![Problem::value("", error.message())])?;
    let mut settings = given.clone();
    let mut budget = PROPERTIES_MAX;
    fill(schema, schema, &mut settings, DEPTH_MAX, &mut budget);
    let problems = check(schema, &validator, &settings, "the table of settings");
    if !problems.is_empty() {
        return Err(problems);
    }
    let size_bytes = settings.to_string().len();
    if size_bytes > SETTINGS_BYTES_MAX {
        let message = format!("{size_bytes} bytes of settings, at most {SETTINGS_BYTES_MAX} are allowed");
        return Err(vec![Problem::value("", message)]);
    }
    Ok(settings)
}

/// One sentence for each problem, when there is no file to point into.
pub fn describe(problems: &[Problem]) -> Error {
    let line = |problem: &Problem| match problem.pointer.as_str() {
        "" => problem.message.clone(),
        pointer => format!("{pointer}: {}", problem.message),
    };
    Error::invalid(problems.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn fill(root: &Value, schema: &Value, value: &mut Value, depth: usize, budget: &mut usize) {
    if depth == 0 {
        return;
    }
    let schema = follow(root, schema, DEPTH_MAX);
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let Some(object) = value.as_object_mut() else { return };
    for (key, property) in properties {
        if *budget == 0 {
            return;
        }
        *budget -= 1;
        let target = follow(root, property, DEPTH_MAX);
        if let Some(default) = property.get("default").or_else(|| target.get("default")) {
            object.entry(key.clone()).or_insert_with(|| default.clone());
        }
        if let Some(inner) = object.get_mut(key) {
            fill(root, property, inner, depth - 1, budget);
        }
    }
}

/// What a reference inside the same file leads to.
fn follow<'a>(root: &'a Value, schema: &'a Value, depth: usize) -> &'a Value {
    let target =
        schema.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#')).and_then(|to| root.pointer(to));
    match target {
        Some(target) if depth > 0 => follow(root, target, depth - 1),
        _ => schema,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(schema: Value, given: Value, expect: std::result::Result<Value, &str>) {
        let outcome = resolve(Some(&schema), &given).map_err(|problems| describe(&problems).message().to_string());
        assert_eq!(outcome, expect.map_err(String::from));
    }

    #[test]
    fn defaults_are_filled_in_and_values_checked() {
        let schema = json!({
            "type": "object",
            "additionalProperties": false,
            "required": ["city"],
            "properties": {
                "days": {"type": "integer", "minimum": 1, "default": 30},
                "city": {"type": "string"},
                "mail": {"$ref": "#/$defs/mail", "default": {}},
            },
            "$defs": {"mail": {"type": "object", "properties": {"port": {"type": "integer", "default": 25}}}},
        });
        check(schema.clone(), json!({"city": "Ulm"}), Ok(json!({"city": "Ulm", "days": 30, "mail": {"port": 25}})));
        check(
            schema.clone(),
            json!({"city": "Ulm", "days": 2, "mail": {"port": 1}}),
            Ok(json!({"city": "Ulm", "days": 2, "mail": {"port": 1}})),
        );
        check(schema.clone(), json!({}), Err("the table of settings lacks `city`"));
        check(schema.clone(), json!({"city": "Ulm", "days": 0}), Err("/days: `days` is `0`; write at least 1"));
        check(
            schema.clone(),
            json!({"city": "Ulm", "dayz": 1}),
            Err("/dayz: the table of settings has no key `dayz`; did you mean `days`?"),
        );
        check(schema, json!([]), Err("settings are a table of keys and values"));
    }

    #[test]
    fn without_a_schema_there_are_no_settings() {
        assert_eq!(resolve(None, &json!({})), Ok(json!({})));
        assert!(resolve(None, &json!({"a": 1})).is_err());
    }

    #[test]
    fn hostile_schemas_neither_loop_nor_fetch() {
        check(json!({"$ref": "#"}), json!({}), Ok(json!({})));
        let looped = json!({"properties": {"a": {"$ref": "#", "default": {}}}});
        let filled = resolve(Some(&looped), &json!({})).unwrap();
        assert!(filled.to_string().len() < 1000);
        let doubled = json!({"properties": {"a": {"$ref": "#", "default": {}}, "b": {"$ref": "#", "default": {}}}});
        assert!(resolve(Some(&doubled), &json!({})).is_ok());
        assert!(check_schema(&json!({"$ref": "https://example.invalid/schema.json"})).is_err());
        assert!(check_schema(&json!({"$ref": "file:///etc/hostname"})).is_err());
        assert!(check_schema(&json!("text")).is_err());
    }

    #[test]
    fn size_is_bounded() {
        let schema = json!({"type": "object"});
        let of = |length: usize| json!({"a": "x".repeat(length - r#"{"a":""}"#.len())});
        assert!(resolve(Some(&schema), &of(SETTINGS_BYTES_MAX)).is_ok());
        assert!(resolve(Some(&schema), &of(SETTINGS_BYTES_MAX + 1)).is_err());
    }
}
