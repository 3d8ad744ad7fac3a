//! The events of the API's webhooks: their names, and what is sent for each.
//!
//! Pure. Owns the table of what can be asked for, and the way from what this plugin publishes ([`of`]) to what a webhook is
//! sent, member by member as the reference server does. Separate because clients' receivers depend on every name here. The
//! registry publishes more than the API has words for (stages, descriptions, comments): there is nothing to send for those, and
//! who wants them listens to the host's topic. On failure: a refusal with the reference server's text.

use crate::errors::{Failure, Outcome};
use crate::search::plan::PROMPT_TAG;
use crate::validate;
use crate::wire::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

/// The tag that holds a prompt's text.
const PROMPT_TEXT_TAG: &str = "mlflow.prompt.text";
/// The tag that says what kind of a prompt it is.
const PROMPT_TYPE_TAG: &str = "_mlflow_prompt_type";

/// Entities and the actions that each has, in the order of the API's numbers, which begin with 1.
const ENTITIES: &[(&str, &[&str])] = &[
    ("registered_model", &["created"]),
    ("model_version", &["created"]),
    ("model_version_tag", &["deleted", "set"]),
    ("model_version_alias", &["created", "deleted"]),
    ("prompt", &["created"]),
    ("prompt_version", &["created"]),
    ("prompt_tag", &["deleted", "set"]),
    ("prompt_version_tag", &["deleted", "set"]),
    ("prompt_alias", &["created", "deleted"]),
    ("budget_policy", &["exceeded"]),
];
/// Actions, in the order of the API's numbers, which begin with 1.
const ACTIONS: &[&str] = &["created", "updated", "deleted", "set", "exceeded"];

/// An event that a webhook can be told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventName {
    /// What it happens to.
    pub entity: String,
    /// What happens.
    pub action: String,
}

impl EventName {
    fn new(entity: &str, action: &str) -> Self {
        Self { entity: entity.to_owned(), action: action.to_owned() }
    }

    /// As requests and answers name it: entity and action.
    pub fn on_the_wire(&self) -> (String, String) {
        (self.entity.to_ascii_uppercase(), self.action.to_ascii_uppercase())
    }

    /// What a test of it sends.
    pub fn example(&self) -> Value {
        let is_prompt = self.entity.starts_with("prompt");
        let noun = if is_prompt { "prompt" } else { "model" };
        let name = format!("example_{noun}");
        let tags = json!({"example_key": "example_value"});
        let version =
            json!({"name": name, "version": "1", "tags": tags, "description": format!("An example {noun} version")});
        match (self.entity.as_str(), self.action.as_str()) {
            ("registered_model", _) => {
                json!({"name": name, "tags": tags, "description": "An example registered model"})
            }
            ("prompt", _) => json!({"name": name, "tags": tags, "description": "An example prompt"}),
            ("model_version", _) => merged(version, json!({"source": "models:/123", "run_id": "abcd1234abcd5678"})),
            ("prompt_version", _) => merged(version, json!({"template": "Hello {{name}}!"})),
            ("prompt_tag", "set") => json!({"name": name, "key": "example_key", "value": "example_value"}),
            ("prompt_tag", _) => json!({"name": name, "key": "example_key"}),
            ("model_version_tag" | "prompt_version_tag", "set") => {
                json!({"name": name, "version": "1", "key": "example_key", "value": "example_value"})
            }
            ("model_version_tag" | "prompt_version_tag", _) => {
                json!({"name": name, "version": "1", "key": "example_key"})
            }
            ("model_version_alias" | "prompt_alias", "created") => {
                json!({"name": name, "alias": "example_alias", "version": "1"})
            }
            ("model_version_alias" | "prompt_alias", _) => json!({"name": name, "alias": "example_alias"}),
            _ => json!({
                "budget_policy_id": "bp-abc123",
                "budget_unit": "USD",
                "budget_amount": 100.0,
                "current_spend": 105.5,
                "duration_unit": "MONTHS",
                "duration_value": 1,
                "target_scope": "ENDPOINT",
                "workspace": "default",
                "target_value": "ep-abc123",
                "window_start": 1_704_067_200_000_i64,
            }),
        }
    }
}

fn merged(mut value: Value, more: Value) -> Value {
    if let (Value::Object(members), Value::Object(more)) = (&mut value, more) {
        members.extend(more);
    }
    value
}

/// The events of a request, each once.
pub fn read_all(args: &Args) -> Outcome<Vec<EventName>> {
    let mut events = Vec::new();
    for (at, event) in args.objects("events").enumerate() {
        let event = read(event, &format!("events[{at}]"))?;
        if !events.contains(&event) {
            events.push(event);
        }
    }
    if events.is_empty() {
        return Err(Failure::invalid("Webhook events must be a non-empty list of WebhookEvent objects: []."));
    }
    Ok(events)
}

/// One event of a request: `{"entity": "MODEL_VERSION", "action": "CREATED"}`, in words or in numbers.
pub fn read(event: &Map<String, Value>, path: &str) -> Outcome<EventName> {
    let entities: Vec<_> = ENTITIES.iter().map(|(entity, _)| *entity).collect();
    let entity = word(event, "entity", path, &entities)?;
    let action = word(event, "action", path, ACTIONS)?;
    let valid = ENTITIES.iter().find(|(known, _)| *known == entity).map_or(&[][..], |(_, actions)| actions);
    if !valid.contains(&action) {
        let valid: Vec<_> = valid.iter().map(|action| format!("'{action}'")).collect();
        return Err(Failure::invalid(format!(
            "Invalid action '{action}' for entity '{entity}'. Valid actions are: [{}]",
            valid.join(", ")
        )));
    }
    Ok(EventName::new(entity, action))
}

fn word<'a>(event: &Map<String, Value>, name: &str, path: &str, words: &[&'a str]) -> Outcome<&'a str> {
    let path = format!("{path}.{name}");
    let given = event.get(name).filter(|value| !value.is_null()).ok_or_else(|| validate::missing_value(&path))?;
    let known = match given {
        Value::String(text) => words.iter().find(|word| word.to_ascii_uppercase() == *text),
        Value::Number(number) => {
            number.as_u64().and_then(|number| usize::try_from(number).ok()?.checked_sub(1)).and_then(|at| words.get(at))
        }
        _ => None,
    };
    known.copied().ok_or_else(|| {
        let words: Vec<_> = words.iter().map(|word| word.to_ascii_uppercase()).collect();
        validate::invalid_value(&path, &given.to_string(), &format!("It is one of {}.", words.join(", ")))
    })
}

/// What a webhook is sent when this plugin publishes that; none where the API has no word for it.
pub fn of(kind: &str, told: &Value) -> Option<(EventName, Value)> {
    let is_prompt = told["is_prompt"] == true;
    let pick = |model: &'static str, prompt: &'static str| if is_prompt { prompt } else { model };
    let (entity, action, data) = match kind {
        "model-created" if is_prompt => {
            ("prompt", "created", json!({"name": told["name"], "tags": shown_tags(told), "description": said(told)}))
        }
        "model-created" => (
            "registered_model",
            "created",
            json!({"name": told["name"], "tags": told["tags"], "description": said(told)}),
        ),
        "version-created" if is_prompt => ("prompt_version", "created", prompt_version(told)),
        "version-created" => {
            ("model_version", "created", members(told, &["name", "version", "source", "run_id", "tags", "description"]))
        }
        "model-tag-set" if is_prompt => {
            ("prompt_tag", "set", json!({"name": told["name"], "key": told["key"], "value": told["to"]}))
        }
        "model-tag-deleted" if is_prompt => ("prompt_tag", "deleted", members(told, &["name", "key"])),
        "version-tag-set" => (
            pick("model_version_tag", "prompt_version_tag"),
            "set",
            json!({"name": told["name"], "version": told["version"], "key": told["key"], "value": told["to"]}),
        ),
        "version-tag-deleted" => {
            (pick("model_version_tag", "prompt_version_tag"), "deleted", members(told, &["name", "version", "key"]))
        }
        "alias-set" => (
            pick("model_version_alias", "prompt_alias"),
            "created",
            json!({"name": told["name"], "alias": told["alias"], "version": told["to"]}),
        ),
        "alias-deleted" => (pick("model_version_alias", "prompt_alias"), "deleted", members(told, &["name", "alias"])),
        _ => return None,
    };
    Some((EventName::new(entity, action), data))
}

fn members(told: &Value, names: &[&str]) -> Value {
    names.iter().map(|name| ((*name).to_owned(), told[*name].clone())).collect::<Map<_, _>>().into()
}

/// A description as the reference server sends that of a model: empty text where there is none.
fn said(told: &Value) -> &str {
    told["description"].as_str().unwrap_or("")
}

/// The tags without those by which clients mark prompts.
fn shown_tags(told: &Value) -> Value {
    let tags = told["tags"].as_object().cloned().unwrap_or_default();
    tags.into_iter().filter(|(key, _)| key != PROMPT_TAG && key != PROMPT_TYPE_TAG).collect::<Map<_, _>>().into()
}

fn prompt_version(told: &Value) -> Value {
    let mut tags = shown_tags(told);
    let template = tags.as_object_mut().and_then(|tags| tags.remove(PROMPT_TEXT_TAG));
    merged(members(told, &["name", "version", "description"]), json!({"template": template, "tags": tags}))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(events: Value) -> Outcome<Vec<String>> {
        let args = Args::from_json(json!({"events": events}).to_string().as_bytes())?;
        Ok(read_all(&args)?.iter().map(|event| format!("{}.{}", event.entity, event.action)).collect())
    }

    #[test]
    fn events_are_read_in_words_and_in_numbers() {
        #[track_caller]
        fn check(entity: Value, action: Value, expect: &str) {
            let events = request(json!([{"entity": entity, "action": action}]));
            assert_eq!(events.unwrap(), [expect]);
        }
        check(json!("REGISTERED_MODEL"), json!("CREATED"), "registered_model.created");
        check(json!(1), json!(1), "registered_model.created");
        check(json!("MODEL_VERSION_TAG"), json!(4), "model_version_tag.set");
        check(json!(10), json!(5), "budget_policy.exceeded");
        let twice = json!([{"entity": 2, "action": 1}, {"entity": "MODEL_VERSION", "action": "CREATED"}]);
        assert_eq!(request(twice).unwrap(), ["model_version.created"]);
    }

    #[test]
    fn what_is_no_event_is_refused() {
        #[track_caller]
        fn check(events: Value, message: &str) {
            let failure = request(events).unwrap_err();
            assert!(failure.message.starts_with(message), "{}", failure.message);
        }
        check(json!([]), "Webhook events must be a non-empty list of WebhookEvent objects: [].");
        check(
            json!([{"entity": "REGISTERED_MODEL", "action": "UPDATED"}]),
            "Invalid action 'updated' for entity 'registered_model'. Valid actions are: ['created']",
        );
        check(
            json!([{"entity": "PROMPT_TAG", "action": "EXCEEDED"}]),
            "Invalid action 'exceeded' for entity 'prompt_tag'. Valid actions are: ['deleted', 'set']",
        );
        check(json!([{"action": "CREATED"}]), "Missing value for required parameter 'events[0].entity'.");
        check(json!([{"entity": 1, "action": null}]), "Missing value for required parameter 'events[0].action'.");
        check(json!([{"entity": 0, "action": 1}]), "Invalid value 0 for parameter 'events[0].entity' supplied:");
        check(json!([{"entity": 11, "action": 1}]), "Invalid value 11 for parameter 'events[0].entity' supplied:");
        check(json!([{"entity": "x", "action": 1}]), "Invalid value \"x\" for parameter 'events[0].entity' supplied:");
        check(json!([{"entity": 1, "action": -1}]), "Invalid value -1 for parameter 'events[0].action' supplied:");
    }

    #[test]
    fn every_event_has_a_name_on_the_wire_that_is_read_back() {
        for (entity, actions) in ENTITIES {
            for action in *actions {
                let event = EventName::new(entity, action);
                let (on_wire, action_on_wire) = event.on_the_wire();
                let again = json!({"entity": on_wire, "action": action_on_wire});
                assert_eq!(read(again.as_object().unwrap(), "event").unwrap(), event);
                assert!(event.example().as_object().unwrap().len() > 1);
            }
        }
    }
}
