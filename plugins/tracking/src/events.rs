//! What is told of changes: events in the host's durable topics, published in the transaction of the change.
//!
//! Owns the topics, the words and the sizes. `registry` tells of models, versions, stages, aliases, tags and comments, under
//! the model's name; `runs` of how runs begin, end, go and come back, under the run's id. Metrics, params and tags of runs are
//! no events: logging them costs nothing here. Separate from `registry::decisions`, which keeps what people decided; this is
//! for programs. Bounded by [`PAYLOAD_BYTES_MAX`]: longer texts are cut, and the payload says so. On failure: none of its own;
//! what cannot be published fails the change, so that no change is silent.
//!
//! `from` is what the request saw before its change. Changes that are guarded (aliases, stages, statuses, life and death) are
//! told only when something changed, and `from` is exact. Tags and descriptions are told whenever they are written: two clients
//! that write one at the same time may both have seen what was before, and the last event has what is there.

use crate::errors::{Code, Failure, Outcome};
use mainstay_sdk::{Transaction, clock};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

/// Topic of the registry.
pub const REGISTRY: &str = "registry";
/// Topic of runs.
pub const RUNS: &str = "runs";
/// Who did what nobody asked for: the plugin's timers.
pub const ITSELF: &str = "tracking";
/// Largest payload. A webhook's body is made from it and has to fit what the host delivers, 32 KiB.
const PAYLOAD_BYTES_MAX: usize = 24_000;
/// Longest texts of a payload that is too large, tried one after the other, in bytes.
const CUTS: &[usize] = &[8_192, 2_048, 512, 128];
/// Longest key; a longer name is told as its digest.
const KEY_BYTES_MAX: usize = 256;

/// Something happened to a registered model.
pub fn of_model(tx: &Transaction, kind: &str, model: &super::registry::Record, by: &str, what: Value) -> Outcome<()> {
    let mut payload = stamped(by);
    payload.insert("name".into(), model.name.clone().into());
    payload.insert("is_prompt".into(), model.is_prompt.into());
    publish(tx, REGISTRY, kind, &model.name, payload, what)
}

/// Something happened to a run.
pub fn of_run(tx: &Transaction, kind: &str, run_id: &str, experiment_id: &str, by: &str, what: Value) -> Outcome<()> {
    let mut payload = stamped(by);
    payload.insert("run_id".into(), run_id.into());
    payload.insert("experiment_id".into(), experiment_id.into());
    publish(tx, RUNS, kind, run_id, payload, what)
}

/// Tags as they stand in a payload.
pub fn tags(pairs: &[(&str, &str)]) -> Value {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect::<Map<_, _>>().into()
}

fn stamped(by: &str) -> Map<String, Value> {
    Map::from_iter([("by".to_owned(), by.into()), ("at_ms".to_owned(), clock::now_ms().into())])
}

fn publish(
    tx: &Transaction,
    topic: &str,
    kind: &str,
    subject: &str,
    mut payload: Map<String, Value>,
    what: Value,
) -> Outcome<()> {
    if let Value::Object(what) = what {
        payload.extend(what);
    }
    Ok(tx.publish(topic, kind, Some(&key(subject)), &bounded(payload.into())?)?)
}

fn key(subject: &str) -> String {
    if subject.len() <= KEY_BYTES_MAX {
        return subject.to_owned();
    }
    let digest = Sha256::digest(subject);
    digest.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// A payload that fits: texts are cut, then the tags left out.
fn bounded(mut payload: Value) -> Outcome<Value> {
    if fits(&payload)? {
        return Ok(payload);
    }
    payload["is_cut"] = true.into();
    for bytes in CUTS {
        cut(&mut payload, *bytes);
        if fits(&payload)? {
            return Ok(payload);
        }
    }
    payload["tags"] = json!({});
    Ok(payload)
}

fn fits(payload: &Value) -> Outcome<bool> {
    let json = serde_json::to_vec(payload).map_err(|e| Failure::new(Code::InternalError, e.to_string()))?;
    Ok(json.len() <= PAYLOAD_BYTES_MAX)
}

/// Payloads are two levels deep: members, and the tags among them. The subject's name stays whole: it says what this is about.
fn cut(payload: &mut Value, bytes: usize) {
    let Value::Object(members) = payload else { return };
    for (name, member) in members {
        match member {
            Value::String(text) if name != "name" => cut_text(text, bytes),
            Value::Object(tags) => tags.values_mut().for_each(|tag| {
                if let Value::String(text) = tag {
                    cut_text(text, bytes);
                }
            }),
            _ => {}
        }
    }
}

fn cut_text(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size(payload: &Value) -> usize {
        serde_json::to_vec(payload).unwrap().len()
    }

    #[test]
    fn what_fits_is_told_whole() {
        let room = PAYLOAD_BYTES_MAX - size(&json!({"value": ""}));
        let whole = json!({"value": "x".repeat(room)});
        assert_eq!(bounded(whole.clone()).unwrap(), whole);
        let cut = bounded(json!({"value": "x".repeat(room + 1)})).unwrap();
        assert_eq!(cut, json!({"value": "x".repeat(CUTS[0]), "is_cut": true}));
    }

    #[test]
    fn whatever_is_told_fits() {
        #[track_caller]
        fn check(payload: Value) {
            let told = bounded(payload.clone()).unwrap();
            assert!(size(&told) <= PAYLOAD_BYTES_MAX, "{} bytes", size(&told));
            assert_eq!((&told["name"], &told["is_cut"]), (&payload["name"], &true.into()));
        }
        // The largest name there can be, in the characters that JSON needs most bytes for.
        let name = "\u{1}".repeat(512);
        let tag = |number: usize| format!("{number}{}", "\u{1}".repeat(240));
        check(json!({"name": name, "description": "é".repeat(1 << 20)}));
        check(json!({"name": name, "key": tag(0), "from": "\u{1}".repeat(100_000), "to": "\u{1}".repeat(100_000)}));
        let tags = json!({"name": "x".repeat(100_000)});
        check(json!({"name": name, "tags": tags}));
        let tags: Map<_, _> = (0..1_000).map(|number| (tag(number), "x".repeat(100_000).into())).collect();
        check(
            json!({"name": name, "tags": tags, "description": "\u{1}".repeat(100_000), "source": "\u{1}".repeat(9_000)}),
        );
    }

    #[test]
    fn long_names_have_short_keys() {
        let name = "n".repeat(KEY_BYTES_MAX);
        assert_eq!(key(&name), name);
        let long = key(&format!("{name}n"));
        assert!(long.starts_with("sha256:") && long.len() == 71, "{long}");
    }
}
