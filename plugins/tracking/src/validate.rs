//! Names, lengths and counts: every limit of the tracking API, with the text it is refused with.
//!
//! Pure. It is separate so that a limit stands in one place and is tested at n and n+1. Clients match on the texts, so
//! they are the API's, not ours.

use crate::errors::{Failure, Outcome};

/// Most metrics in one batch.
pub const BATCH_METRICS_MAX: usize = 1_000;
/// Most params, and most tags, in one batch.
pub const BATCH_PARAMS_TAGS_MAX: usize = 100;
/// Most metrics, params and tags together in one batch.
pub const BATCH_ENTITIES_MAX: usize = 1_000;
/// Largest body of a batch.
pub const BATCH_BYTES_MAX: usize = 1_000_000;
/// Longest key of a metric, param or tag, in characters.
pub const KEY_CHARS_MAX: usize = 250;
/// Longest param value, in characters.
pub const PARAM_VALUE_CHARS_MAX: usize = 6_000;
/// Longest run tag value, in characters.
pub const TAG_VALUE_CHARS_MAX: usize = 8_000;
/// Longest experiment name, in characters.
pub const EXPERIMENT_NAME_CHARS_MAX: usize = 500;
/// Longest experiment tag value, in characters.
pub const EXPERIMENT_TAG_VALUE_CHARS_MAX: usize = 20_000;
/// Longest registry tag value, in characters.
pub const REGISTRY_TAG_VALUE_CHARS_MAX: usize = 100_000;
/// Longest alias, in characters.
pub const ALIAS_CHARS_MAX: usize = 255;
/// Longest name of a registered model, in characters. The reference server leaves it to its database.
pub const MODEL_NAME_CHARS_MAX: usize = 256;
/// And in bytes: it is a subject's name in the host's directory.
pub const MODEL_NAME_BYTES_MAX: usize = 512;
/// Longest artifact location of an experiment, in characters.
pub const ARTIFACT_LOCATION_CHARS_MAX: usize = 2_048;
/// Most rows of a page of runs or experiments.
pub const PAGE_ROWS_MAX: i64 = 50_000;
/// Longest filter string, in bytes; ours, so that one request cannot cost much parsing.
pub const FILTER_BYTES_MAX: usize = 100_000;

const BAD_CHARACTERS: &str = "Names may only contain alphanumerics, underscores (_), dashes (-), periods (.), spaces ( ), \
                              colon(:) and slashes (/).";

/// A value as the reference server prints it in messages: compact JSON, ASCII only.
pub fn printed(value: &str) -> String {
    let mut raw = Vec::new();
    crate::json::text(&mut raw, value);
    let mut out = String::with_capacity(raw.len());
    for c in String::from_utf8_lossy(&raw).chars() {
        if c.is_ascii() {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

/// "Invalid value … for parameter … supplied: …".
pub fn invalid_value(path: &str, printed_value: &str, message: &str) -> Failure {
    if message.is_empty() {
        Failure::invalid(format!("Invalid value {printed_value} for parameter '{path}' supplied."))
    } else {
        Failure::invalid(format!("Invalid value {printed_value} for parameter '{path}' supplied: {message}"))
    }
}

/// "Missing value for required parameter …".
pub fn missing_value(path: &str) -> Failure {
    Failure::invalid(format!(
        "Missing value for required parameter '{path}'. See the API docs for more information about request parameters."
    ))
}

/// Refuse what is longer than `limit` characters.
pub fn length(what: &str, limit: usize, value: &str) -> Outcome<()> {
    if longer_than(value, limit) {
        return Err(Failure::invalid(format!("'{what}' exceeds the maximum length of {limit} characters")));
    }
    Ok(())
}

fn longer_than(value: &str, chars: usize) -> bool {
    // Most values are short: bytes bound characters, so counting is rare.
    value.len() > chars && value.chars().count() > chars
}

/// Cut what is longer than `limit` characters, or refuse it when cutting is switched off.
pub fn truncated<'a>(what: &str, limit: usize, value: &'a str, truncate: bool) -> Outcome<&'a str> {
    if !longer_than(value, limit) {
        return Ok(value);
    }
    if !truncate {
        length(what, limit, value)?;
    }
    let end = value.char_indices().nth(limit).map_or(value.len(), |(at, _)| at);
    Ok(&value[..end])
}

/// What a path resolves to, by POSIX's rules for text alone.
fn normal_path(path: &str) -> String {
    if path.is_empty() {
        return ".".into();
    }
    let root = match path.bytes().take_while(|b| *b == b'/').count() {
        0 => "",
        2 => "//",
        _ => "/",
    };
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if root.is_empty() && parts.last().is_none_or(|last| *last == "..") => parts.push(".."),
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    let joined = format!("{root}{}", parts.join("/"));
    if joined.is_empty() { ".".into() } else { joined }
}

fn resolves_elsewhere(name: &str) -> Option<String> {
    let normal = normal_path(name);
    (normal != name || normal == "." || normal.starts_with("..") || normal.starts_with('/')).then_some(normal)
}

fn bad_path(normal: &str) -> String {
    format!(
        "Names may be treated as files in certain cases, and must not resolve to other names when treated as such. \
         This name would resolve to '{normal}'"
    )
}

/// Refuse a key that is not a plain relative name.
pub fn key_name(path: &str, name: &str) -> Outcome<()> {
    let allowed = |c: char| c.is_alphanumeric() || matches!(c, '_' | '/' | '.' | '-' | ' ' | ':');
    if !name.chars().all(allowed) {
        return Err(invalid_value(path, &printed(name), BAD_CHARACTERS));
    }
    match resolves_elsewhere(name) {
        Some(normal) => Err(invalid_value(path, &printed(name), &bad_path(&normal))),
        None => Ok(()),
    }
}

/// Refuse a metric that cannot be stored. `path` is "" for a single metric, `metrics[3]` in a batch.
pub fn metric(path: &str, key: &str, value: f64, timestamp: i64) -> Outcome<()> {
    key_name(&under(path, "name"), key)?;
    if timestamp < 0 {
        let mut shown = Vec::new();
        crate::json::real(&mut shown, value);
        let value = String::from_utf8_lossy(&shown);
        return Err(invalid_value(
            &under(path, "timestamp"),
            &timestamp.to_string(),
            &format!("metric '{key}' (value={value}). Timestamp must be a nonnegative long (64-bit integer) "),
        ));
    }
    length("Metric name", KEY_CHARS_MAX, key)
}

/// Check a param and return its value, cut if need be.
pub fn param<'a>(path: &str, key: &str, value: &'a str, truncate: bool) -> Outcome<&'a str> {
    key_name(&under(path, "key"), key)?;
    length("Param key", KEY_CHARS_MAX, key)?;
    truncated("Param value", PARAM_VALUE_CHARS_MAX, value, truncate)
}

/// Check a run's tag and return its value, cut if need be.
pub fn run_tag<'a>(path: &str, key: &str, value: &'a str, truncate: bool) -> Outcome<&'a str> {
    let key_path = under(path, "key");
    key_name(&key_path, key)?;
    length(&key_path, KEY_CHARS_MAX, key)?;
    truncated(&under(path, "value"), TAG_VALUE_CHARS_MAX, value, truncate)
}

/// Check an experiment's tag.
pub fn experiment_tag(key: &str, value: &str) -> Outcome<()> {
    key_name("key", key)?;
    length("key", KEY_CHARS_MAX, key)?;
    length("value", EXPERIMENT_TAG_VALUE_CHARS_MAX, value)
}

/// Check a tag of a registered model or a version of one.
pub fn registry_tag(key: &str, value: &str) -> Outcome<()> {
    key_name("key", key)?;
    length("key", KEY_CHARS_MAX, key)?;
    length("value", REGISTRY_TAG_VALUE_CHARS_MAX, value)
}

fn under(path: &str, field: &str) -> String {
    if path.is_empty() { field.into() } else { format!("{path}.{field}") }
}

/// Refuse an id that no run can have.
pub fn run_id(id: &str) -> Outcome<()> {
    let mut chars = id.chars();
    let first = chars.next().is_some_and(|c| c.is_ascii_alphanumeric());
    let rest = chars.clone().count() <= 255 && chars.all(|c| c.is_alphanumeric() || c == '_' || c == '-');
    if first && rest { Ok(()) } else { Err(invalid_value("run_id", &printed(id), "")) }
}

/// The canonical form of an experiment's id: "007" and "7" are one.
pub fn experiment_id(id: &str) -> Outcome<String> {
    match id.trim().parse::<i64>() {
        Ok(number) => Ok(number.to_string()),
        Err(_) => {
            Err(Failure::invalid(format!("Invalid experiment ID '{id}'. Experiment ID must be a valid integer.")))
        }
    }
}

/// Refuse a name that no experiment can have.
pub fn experiment_name(name: &str) -> Outcome<()> {
    if name.is_empty() {
        return Err(Failure::invalid("Invalid experiment name: ''"));
    }
    length("name", EXPERIMENT_NAME_CHARS_MAX, name)
}

/// Refuse a place for artifacts that cannot be one.
pub fn artifact_location(location: &str) -> Outcome<()> {
    if location.starts_with("runs:") {
        return Err(Failure::invalid(format!("Artifact location cannot be a runs:/ URI. Given: '{location}'")));
    }
    if location.contains(['#', '?', ';']) || location.split('/').any(|part| part == "..") {
        return Err(Failure::invalid(format!(
            "'artifact_location' URL can't include fragments, params or '..': '{location}'"
        )));
    }
    if longer_than(location, ARTIFACT_LOCATION_CHARS_MAX) {
        return Err(Failure::invalid(format!(
            "Invalid artifact path length. The length of the artifact path cannot be greater than \
             {ARTIFACT_LOCATION_CHARS_MAX} characters."
        )));
    }
    Ok(())
}

/// Refuse a name that no registered model can have.
pub fn model_name(name: &str) -> Outcome<()> {
    if name.trim().is_empty() {
        return Err(Failure::invalid("Missing value for required parameter 'name'."));
    }
    if name.contains(['/', ':']) {
        return Err(Failure::invalid(format!("Invalid model name '{name}'. Names cannot contain '/' or ':'.")));
    }
    if let Some(normal) = resolves_elsewhere(name) {
        return Err(invalid_value("name", &printed(name), &bad_path(&normal)));
    }
    if name.len() > MODEL_NAME_BYTES_MAX {
        return Err(Failure::invalid(format!("'name' exceeds the maximum length of {MODEL_NAME_BYTES_MAX} bytes")));
    }
    length("name", MODEL_NAME_CHARS_MAX, name)
}

/// Refuse a name that no logged model can have.
pub fn logged_model_name(name: &str) -> Outcome<()> {
    if name.is_empty() || name.contains(['/', ':', '.', '%', '"', '\'']) {
        return Err(Failure::invalid(format!(
            "Invalid model name ('{name}') provided. Model name must be a non-empty string and cannot contain the \
             following characters: ('/', ':', '.', '%', '\"', \"'\")"
        )));
    }
    length("name", MODEL_NAME_CHARS_MAX, name)
}

/// The number in a version's text.
pub fn version(text: &str) -> Outcome<i64> {
    match text.trim().parse::<i64>() {
        Ok(number) => Ok(number),
        Err(_) => Err(Failure::invalid(format!("Parameter 'version' must be an integer, got '{text}'."))),
    }
}

/// Refuse what no alias can be named.
pub fn alias(name: &str) -> Outcome<()> {
    if name.is_empty() {
        return Err(Failure::invalid("Registered model alias name cannot be empty."));
    }
    if !name.chars().all(|c| c.is_alphanumeric() || c == '_' || c == '-') {
        return Err(Failure::invalid(format!(
            "Invalid alias name: '{name}'. Names may only contain alphanumerics, underscores (_), and dashes (-)."
        )));
    }
    length("Registered model alias name", ALIAS_CHARS_MAX, name)
}

/// Refuse aliases that mean something already.
pub fn alias_not_reserved(name: &str) -> Outcome<()> {
    if name.eq_ignore_ascii_case("latest") {
        return Err(Failure::invalid("'latest' alias name (case insensitive) is reserved."));
    }
    let digits = name.strip_prefix(['v', 'V']).unwrap_or("");
    if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()) {
        return Err(Failure::invalid(format!("Version alias name '{name}' is reserved.")));
    }
    Ok(())
}

/// Refuse batches that are too large.
pub fn batch(metrics: usize, params: usize, tags: usize) -> Outcome<()> {
    let limit = |what: &str, limit: usize, count: usize| {
        if count > limit {
            return Err(Failure::invalid(format!(
                "A batch logging request can contain at most {limit} {what}. Got {count} {what}. Please split up {what} \
                 across multiple requests and try again."
            )));
        }
        Ok(())
    };
    limit("metrics", BATCH_METRICS_MAX, metrics)?;
    limit("params", BATCH_PARAMS_TAGS_MAX, params)?;
    limit("tags", BATCH_PARAMS_TAGS_MAX, tags)?;
    limit("metrics, params, and tags", BATCH_ENTITIES_MAX, metrics + params + tags)
}

/// How many rows a page may have: what was asked for, or the default.
pub fn page_rows(asked: Option<i64>, default: i64, max: i64) -> Outcome<u32> {
    let rows = asked.unwrap_or(default);
    let refuse = |rule: String| {
        Err(Failure::invalid(format!("Invalid value {rows} for parameter 'max_results' supplied. It must be {rule}")))
    };
    match rows {
        _ if rows < 1 => refuse("a positive integer".into()),
        _ if rows > max => refuse(format!("at most {max}")),
        _ => Ok(u32::try_from(rows).unwrap_or(u32::MAX)),
    }
}

/// A metric's value as it is stored: infinities become the largest doubles, as the reference server keeps them.
pub fn stored_metric(value: f64) -> f64 {
    if value.is_infinite() { f64::MAX.copysign(value) } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        #[track_caller]
        fn check(name: &str, ok: bool) {
            assert_eq!(key_name("name", name).is_ok(), ok, "{name:?}");
        }
        for name in ["a", "a/b", "a.b-c d:e_f", "größe", "学习率", "...", "a..b", "0"] {
            check(name, name != "...");
        }
        for name in ["", ".", "..", "../a", "a/../b", "/a", "a//b", "a/", "./a", "a\nb", "a,b", "a(b)", "a\0", "é%"] {
            check(name, false);
        }
    }

    #[test]
    fn texts_that_clients_match() {
        #[track_caller]
        fn check(outcome: Outcome<()>, expect: &str) {
            assert_eq!(outcome.unwrap_err().message, expect);
        }
        check(
            key_name("name", "a/../b"),
            "Invalid value \"a/../b\" for parameter 'name' supplied: Names may be treated as files in certain cases, and \
             must not resolve to other names when treated as such. This name would resolve to 'b'",
        );
        check(
            metric("metrics[1]", "m", 1.0, -1),
            "Invalid value -1 for parameter 'metrics[1].timestamp' supplied: metric 'm' (value=1.0). Timestamp must be a \
             nonnegative long (64-bit integer) ",
        );
        check(run_id("a b"), "Invalid value \"a b\" for parameter 'run_id' supplied.");
        check(
            batch(1_001, 0, 0),
            "A batch logging request can contain at most 1000 metrics. Got 1001 metrics. Please split up metrics across \
             multiple requests and try again.",
        );
        check(
            alias("a b"),
            "Invalid alias name: 'a b'. Names may only contain alphanumerics, underscores (_), and dashes (-).",
        );
        check(alias_not_reserved("v12"), "Version alias name 'v12' is reserved.");
        check(
            key_name("key", "é,"),
            &format!("Invalid value \"\\u00e9,\" for parameter 'key' supplied: {BAD_CHARACTERS}"),
        );
    }

    #[test]
    fn limits_at_n_and_one_more() {
        #[track_caller]
        fn check(limit: usize, test: impl Fn(&str) -> bool) {
            assert!(test(&"é".repeat(limit)) && !test(&"é".repeat(limit + 1)), "{limit}");
        }
        check(KEY_CHARS_MAX, |s| metric("", s, 0.0, 0).is_ok());
        check(KEY_CHARS_MAX, |s| param("", s, "", true).is_ok());
        check(KEY_CHARS_MAX, |s| run_tag("", s, "", true).is_ok());
        check(PARAM_VALUE_CHARS_MAX, |s| param("", "k", s, false).is_ok());
        check(TAG_VALUE_CHARS_MAX, |s| run_tag("", "k", s, false).is_ok());
        check(EXPERIMENT_TAG_VALUE_CHARS_MAX, |s| experiment_tag("k", s).is_ok());
        check(REGISTRY_TAG_VALUE_CHARS_MAX, |s| registry_tag("k", s).is_ok());
        check(EXPERIMENT_NAME_CHARS_MAX, |s| experiment_name(s).is_ok());
        check(MODEL_NAME_CHARS_MAX, |s| model_name(s).is_ok());
        check(ALIAS_CHARS_MAX, |s| alias(s).is_ok());
        assert!(batch(1_000, 0, 0).is_ok() && batch(900, 100, 1).is_err());
        assert!(batch(0, 100, 100).is_ok() && batch(0, 101, 0).is_err() && batch(0, 0, 101).is_err());
        assert_eq!(param("", "k", &"é".repeat(6_001), true).unwrap().chars().count(), 6_000);
    }

    #[test]
    fn pages() {
        #[track_caller]
        fn check(asked: Option<i64>, expect: Option<u32>) {
            assert_eq!(page_rows(asked, 1_000, PAGE_ROWS_MAX).ok(), expect);
        }
        check(None, Some(1_000));
        check(Some(1), Some(1));
        check(Some(50_000), Some(50_000));
        check(Some(0), None);
        check(Some(-1), None);
        check(Some(50_001), None);
    }

    #[test]
    fn aliases_and_models() {
        #[track_caller]
        fn check(outcome: Outcome<()>, ok: bool) {
            assert_eq!(outcome.is_ok(), ok, "{outcome:?}");
        }
        check(alias_not_reserved("LATEST"), false);
        check(alias_not_reserved("v"), true);
        check(alias_not_reserved("v1x"), true);
        check(model_name("a.b c"), true);
        check(model_name(" "), false);
        check(model_name("a/b"), false);
        check(model_name(".."), false);
        check(logged_model_name("a b"), true);
        check(logged_model_name("a.b"), false);
        check(artifact_location("mlflow-artifacts:/x"), true);
        check(artifact_location("runs:/x"), false);
        check(artifact_location("s3://b/../c"), false);
    }
}
