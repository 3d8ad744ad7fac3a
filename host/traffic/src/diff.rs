//! What differs between two specifications, in words.
//!
//! Owns [`diff`], for operators who are asked whether they mean it. Separate and pure. Every field is found, because it compares
//! the JSON forms; lists whose entries have names are compared by name, so that a moved entry is no change.
//!
//! Bounded by the specifications. Does not fail.

use serde_json::Value;

use crate::spec::EndpointSpec;

/// The fields by which entries of lists are known.
const NAMES: [&str; 3] = ["name", "variant", "output"];

/// One line for each difference, in the order of the fields; none when both are the same. `before` may be missing.
pub fn diff(before: Option<&EndpointSpec>, after: &EndpointSpec) -> Vec<String> {
    let Some(before) = before else { return vec![format!("endpoint `{}` is new", after.name)] };
    let mut lines = Vec::new();
    // Specifications have string keys and finite numbers only, so they have a JSON form.
    if let (Ok(before), Ok(after)) = (serde_json::to_value(before), serde_json::to_value(after)) {
        compare("", &before, &after, &mut lines);
    }
    lines
}

fn compare(path: &str, before: &Value, after: &Value, lines: &mut Vec<String>) {
    match (before, after) {
        _ if before == after => {}
        (Value::Object(old), Value::Object(new)) => {
            let mut keys: Vec<&String> = old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))).collect();
            keys.sort();
            for key in keys {
                entry(&join(path, key), old.get(key), new.get(key), lines);
            }
        }
        (Value::Array(old), Value::Array(new)) => compare_lists(path, old, new, lines),
        _ => lines.push(format!("`{path}` changes from {} to {}", shown(before), shown(after))),
    }
}

fn compare_lists(path: &str, old: &[Value], new: &[Value], lines: &mut Vec<String>) {
    let field = NAMES.into_iter().find(|field| old.iter().chain(new).all(|entry| entry.get(*field).is_some()));
    let Some(field) = field else {
        for place in 0..old.len().max(new.len()) {
            entry(&format!("{path}[{place}]"), old.get(place), new.get(place), lines);
        }
        return;
    };
    let named = |list: &'_ [Value], name: &Value| list.iter().find(|entry| &entry[field] == name).cloned();
    for entry_before in old {
        let name = &entry_before[field];
        entry(&place(path, name), Some(entry_before), named(new, name).as_ref(), lines);
    }
    for entry_after in new.iter().filter(|entry| named(old, &entry[field]).is_none()) {
        entry(&place(path, &entry_after[field]), None, Some(entry_after), lines);
    }
}

fn entry(path: &str, before: Option<&Value>, after: Option<&Value>, lines: &mut Vec<String>) {
    match (before, after) {
        (Some(before), Some(after)) => compare(path, before, after, lines),
        (Some(before), None) => lines.push(format!("`{path}` is removed; it was {}", shown(before))),
        (None, Some(after)) => lines.push(format!("`{path}` is added: {}", shown(after))),
        (None, None) => {}
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn place(path: &str, name: &Value) -> String {
    format!("{path}[{}]", name.as_str().unwrap_or("?"))
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 200 { text } else { text.chars().take(200).chain("…".chars()).collect() }
}
