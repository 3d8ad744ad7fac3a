//! Configurations as JSON.
//!
//! Owns both ways: printing one as Triton prints it, and reading one that comes with a request to load a model. Separate from the
//! files' own form ([`crate::config`]), which has lines to point at.
//!
//! Bounded by [`limits::CONFIG_BYTES_MAX`] and by how deep the JSON reader goes. On failure: `invalid`, naming the field. A field
//! that is not known is a warning.

use mainstay_base::{Error, Result};
use prost::Message as _;
use serde_json::{Map, Value};

use crate::config::{ReadConfig, put_bytes, put_word, wanted};
use crate::limits;
use crate::proto::ModelConfig;
use crate::schema::{self, Field, Kind, MESSAGES, Message};

/// A configuration as JSON, as Triton prints it.
pub fn config_json(config: &ModelConfig) -> String {
    schema::to_json("inference.ModelConfig", config)
}

/// Reads a configuration from JSON, as Triton prints it; 64-bit numbers may also be texts, as protobuf prints them.
pub fn read_config_json(text: &str) -> Result<ReadConfig> {
    if text.len() > limits::CONFIG_BYTES_MAX {
        let (bytes, most) = (text.len(), limits::CONFIG_BYTES_MAX);
        return Err(Error::invalid(format!("the configuration has {bytes} bytes; {most} are the most")));
    }
    let value: Value = serde_json::from_str(text)
        .map_err(|error| Error::invalid(format!("the configuration is not JSON: {error}")))?;
    let mut warnings = Vec::new();
    let encoded = message(schema::message("inference.ModelConfig"), &value, &mut warnings)?;
    let config = ModelConfig::decode(&encoded[..]);
    let config =
        config.map_err(|error| Error::internal("a configuration was read but not understood").with_source(error))?;
    Ok(ReadConfig { config, warnings })
}

fn wrong(field: &Field, wants: &str, found: &Value) -> Error {
    Error::invalid(format!("configuration: `{}` takes {wants}, not `{found}`", field.name))
}

/// A message out of an object, encoded.
fn message(message: &Message, value: &Value, warnings: &mut Vec<String>) -> Result<Vec<u8>> {
    let Value::Object(object) = value else {
        return Err(Error::invalid(format!("configuration: {} takes an object, not `{value}`", message.name)));
    };
    refuse_alternatives(message, object)?;
    let mut encoded = Vec::new();
    for (name, value) in object {
        let Some(field) = message.fields.iter().find(|field| field.name == name) else {
            if warnings.len() < limits::CONFIG_WARNINGS_MAX {
                warnings.push(format!("{} has no field `{name}` that is known here", message.name));
            }
            continue;
        };
        match (field.map_entry(), field.repeated, value) {
            (_, _, Value::Null) => {}
            (Some(entry), _, Value::Object(pairs)) => put_map(&mut encoded, field, entry, pairs, warnings)?,
            (Some(_), _, _) => return Err(wrong(field, "an object", value)),
            (None, true, Value::Array(values)) => {
                values.iter().try_for_each(|value| put(&mut encoded, field, value, warnings))?;
            }
            (None, true, _) => return Err(wrong(field, "a list", value)),
            (None, false, _) => put(&mut encoded, field, value, warnings)?,
        }
    }
    Ok(encoded)
}

/// Of the alternatives of a message, one may be there.
fn refuse_alternatives(message: &Message, object: &Map<String, Value>) -> Result<()> {
    let there = |field: &&Field| object.get(field.name).is_some_and(|value| !value.is_null());
    let chosen: Vec<&Field> = message.fields.iter().filter(|field| field.oneof.is_some()).filter(there).collect();
    for (place, field) in chosen.iter().enumerate() {
        if let Some(other) = chosen[..place].iter().find(|other| other.oneof == field.oneof) {
            return Err(Error::invalid(format!(
                "configuration: `{}` beside `{}`: only one of them can be",
                field.name, other.name
            )));
        }
    }
    Ok(())
}

fn put_map(
    encoded: &mut Vec<u8>,
    field: &Field,
    entry: &Message,
    pairs: &Map<String, Value>,
    warnings: &mut Vec<String>,
) -> Result<()> {
    let [key, value] = entry.fields else { return Err(Error::internal("a pair has a key and a value")) };
    for (name, held) in pairs {
        let mut pair = Vec::new();
        put(&mut pair, key, &Value::String(name.clone()), warnings)?;
        put(&mut pair, value, held, warnings)?;
        put_bytes(encoded, field.number, &pair);
    }
    Ok(())
}

/// One value of a field, encoded.
fn put(encoded: &mut Vec<u8>, field: &Field, value: &Value, warnings: &mut Vec<String>) -> Result<()> {
    let word = match (field.kind, value) {
        (Kind::Message(place), value) => {
            let inner = message(&MESSAGES[place], value, warnings)?;
            put_bytes(encoded, field.number, &inner);
            return Ok(());
        }
        (Kind::String, Value::String(text)) => {
            put_bytes(encoded, field.number, text.as_bytes());
            return Ok(());
        }
        (Kind::Bool, Value::Bool(truth)) => truth.to_string(),
        (Kind::Bool | Kind::String | Kind::Bytes, _) => return Err(wrong(field, wanted(field.kind), value)),
        (_, Value::String(word)) => word.clone(),
        (_, Value::Number(number)) => number.to_string(),
        _ => return Err(wrong(field, wanted(field.kind), value)),
    };
    if put_word(encoded, field.number, field.kind, &word) {
        Ok(())
    } else {
        Err(wrong(field, wanted(field.kind), value))
    }
}
