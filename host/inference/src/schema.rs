//! What fields the protocol's messages have, as a table.
//!
//! Owns the table that the build makes of `proto/`, and the way from a generated message through its own encoding to JSON.
//! Separate from the messages, which know their fields only as code. Bounded by the message. On failure: nothing here fails on
//! what a generated message encodes; what is not understood ends the message.

/// A message and its fields, in the order they are defined in.
pub(crate) struct Message {
    pub(crate) name: &'static str,
    /// Whether it is a pair of a map: fields `key` and `value`.
    pub(crate) map_entry: bool,
    pub(crate) fields: &'static [Field],
}

/// A field of a message.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) number: u32,
    pub(crate) kind: Kind,
    pub(crate) repeated: bool,
    /// Which group of its message it is an alternative of.
    pub(crate) oneof: Option<i32>,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Uint32,
    Bool,
    String,
    Bytes,
    /// A message, by its place in [`MESSAGES`].
    Message(usize),
    /// One of the names at this place in [`ENUMS`].
    Enum(usize),
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

/// The message of that full name.
pub(crate) fn message(name: &str) -> &'static Message {
    MESSAGES.iter().find(|message| message.name == name).expect("the table holds every message of proto/")
}

impl Field {
    /// The message of a pair, where this field is a map.
    pub(crate) fn map_entry(&self) -> Option<&'static Message> {
        match self.kind {
            Kind::Message(place) if MESSAGES[place].map_entry => Some(&MESSAGES[place]),
            _ => None,
        }
    }
}

/// This message as JSON, as Triton prints it: every plain field, also where it has its default, by its own name; numbers as
/// numbers; messages and alternatives only where they are there.
pub(crate) fn to_json(name: &str, value: &impl prost::Message) -> String {
    let mut json = String::new();
    write_message(&mut json, message(name), &value.encode_to_vec());
    json
}

/// One encoded field: its number and what it holds.
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of an encoded message, in the order they were written.
fn wires(mut bytes: &[u8]) -> Vec<(u32, Wire<'_>)> {
    let mut wires = Vec::new();
    while let Some(wire) = next_wire(&mut bytes) {
        wires.push(wire);
    }
    wires
}

fn next_wire<'a>(bytes: &mut &'a [u8]) -> Option<(u32, Wire<'a>)> {
    let tag = varint(bytes)?;
    let number = u32::try_from(tag >> 3).ok()?;
    let wire = match tag & 7 {
        0 => Wire::Number(varint(bytes)?),
        1 => Wire::Number(u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?)),
        2 => {
            let length = usize::try_from(varint(bytes)?).ok()?;
            Wire::Bytes(take(bytes, length)?)
        }
        5 => Wire::Number(u64::from(u32::from_le_bytes(take(bytes, 4)?.try_into().ok()?))),
        _ => return None,
    };
    Some((number, wire))
}

fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    prost::encoding::decode_varint(bytes).ok()
}

fn write_message(json: &mut String, message: &Message, bytes: &[u8]) {
    let wires = wires(bytes);
    json.push('{');
    let mut first = true;
    for field in message.fields {
        let mut held = wires.iter().filter(|(number, _)| *number == field.number).map(|(_, wire)| wire).peekable();
        let shown = held.peek().is_some()
            || field.repeated
            || (field.oneof.is_none() && !matches!(field.kind, Kind::Message(_)));
        if !shown {
            continue;
        }
        if !std::mem::take(&mut first) {
            json.push(',');
        }
        put_text(json, field.name);
        json.push(':');
        match (field.map_entry(), field.repeated) {
            (Some(entry), _) => write_map(json, entry, held),
            (None, true) => write_list(json, field.kind, held),
            // Of a field that was written twice, the last holds.
            (None, false) => match held.last() {
                Some(wire) => write_value(json, field.kind, wire),
                None => write_default(json, field.kind),
            },
        }
    }
    json.push('}');
}

fn write_map<'a>(json: &mut String, entry: &Message, pairs: impl Iterator<Item = &'a Wire<'a>>) {
    let [key, value] = entry.fields else { return };
    json.push('{');
    let mut first = true;
    for pair in pairs {
        let Wire::Bytes(pair) = pair else { continue };
        if !std::mem::take(&mut first) {
            json.push(',');
        }
        let wires = wires(pair);
        let find = |number| wires.iter().rfind(|(held, _)| *held == number).map(|(_, wire)| wire);
        match find(key.number) {
            Some(Wire::Bytes(text)) => put_text(json, &String::from_utf8_lossy(text)),
            Some(Wire::Number(number)) => put_text(json, &number.to_string()),
            None if key.kind == Kind::String => json.push_str("\"\""),
            None => json.push_str("\"0\""),
        }
        json.push(':');
        match find(value.number) {
            Some(wire) => write_value(json, value.kind, wire),
            None => write_default(json, value.kind),
        }
    }
    json.push('}');
}

fn write_list<'a>(json: &mut String, kind: Kind, held: impl Iterator<Item = &'a Wire<'a>>) {
    json.push('[');
    let mut first = true;
    let mut separate = |json: &mut String| {
        if !std::mem::take(&mut first) {
            json.push(',');
        }
    };
    for wire in held {
        match (kind, wire) {
            (Kind::String | Kind::Bytes | Kind::Message(_), _) | (_, Wire::Number(_)) => {
                separate(json);
                write_value(json, kind, wire);
            }
            (_, Wire::Bytes(packed)) => {
                let mut packed = *packed;
                while let Some(number) = next_packed(kind, &mut packed) {
                    separate(json);
                    write_value(json, kind, &Wire::Number(number));
                }
            }
        }
    }
    json.push(']');
}

/// Numbers of a list lie one after the other, without tags.
fn next_packed(kind: Kind, packed: &mut &[u8]) -> Option<u64> {
    match kind {
        _ if packed.is_empty() => None,
        Kind::Float => Some(u64::from(u32::from_le_bytes(take(packed, 4)?.try_into().ok()?))),
        Kind::Double => Some(u64::from_le_bytes(take(packed, 8)?.try_into().ok()?)),
        _ => varint(packed),
    }
}

fn write_default(json: &mut String, kind: Kind) {
    match kind {
        Kind::String | Kind::Bytes => json.push_str("\"\""),
        Kind::Message(place) => write_message(json, &MESSAGES[place], &[]),
        _ => write_value(json, kind, &Wire::Number(0)),
    }
}

fn write_value(json: &mut String, kind: Kind, wire: &Wire<'_>) {
    match (kind, wire) {
        (Kind::Message(place), Wire::Bytes(bytes)) => write_message(json, &MESSAGES[place], bytes),
        (Kind::Bytes, Wire::Bytes(bytes)) => {
            put_text(json, &base64::Engine::encode(&base64::prelude::BASE64_STANDARD, bytes))
        }
        (_, Wire::Bytes(text)) => put_text(json, &String::from_utf8_lossy(text)),
        (Kind::Bool, Wire::Number(number)) => json.push_str(if *number == 0 { "false" } else { "true" }),
        (Kind::Enum(place), Wire::Number(number)) => {
            match ENUMS[place].iter().find(|(_, value)| *value as u64 == *number) {
                Some((name, _)) => put_text(json, name),
                None => json.push_str(&(*number as i32).to_string()),
            }
        }
        (Kind::Int64, Wire::Number(number)) => json.push_str(&(*number as i64).to_string()),
        (Kind::Int32, Wire::Number(number)) => json.push_str(&(*number as i32).to_string()),
        (Kind::Float, Wire::Number(number)) => {
            let single = f32::from_bits(*number as u32);
            put_float(json, single, single.into());
        }
        (Kind::Double, Wire::Number(number)) => put_float(json, f64::from_bits(*number), f64::from_bits(*number)),
        (_, Wire::Number(number)) => json.push_str(&number.to_string()),
    }
}

/// A text as JSON.
pub(crate) fn put_text(json: &mut String, text: &str) {
    json.push_str(&serde_json::to_string(text).expect("a text has a JSON form"));
}

/// A number as JSON, in as few digits as its own width needs.
fn put_float(json: &mut String, number: impl serde::Serialize, wide: f64) {
    if wide.is_finite() {
        json.push_str(&serde_json::to_string(&number).expect("a number has a JSON form"));
    } else {
        put_text(json, not_finite(wide));
    }
}

/// The text for a number that JSON has no form for.
pub(crate) fn not_finite(number: f64) -> &'static str {
    match number {
        f64::INFINITY => "Infinity",
        f64::NEG_INFINITY => "-Infinity",
        _ => "NaN",
    }
}
