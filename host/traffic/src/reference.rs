//! What stands behind a variant, by name.
//!
//! Owns [`Reference`]: a version of a registered model, whatever an alias or stage of it names now, a graph by digest, or an
//! upstream server. Separate because what may be named is a decision of its own: a storage path is refused, or nobody could
//! say later what had answered.
//!
//! Bounded by [`REFERENCE_BYTES_MAX`]. On failure: `invalid`, with the forms that are understood.

use std::fmt;
use std::str::FromStr;

use mainstay_base::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The longest reference, in bytes.
pub const REFERENCE_BYTES_MAX: usize = 1_024;

const FORMS: &str = "`models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/NAME/STAGE`, `graph:sha256:DIGEST`, \
                     `http(s)://HOST…` or `grpc(s)://HOST…`";

/// What stands behind a variant. As text `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/NAME/STAGE`,
/// `graph:sha256:DIGEST`, or an address that starts with `http://`, `https://`, `grpc://` or `grpcs://`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub enum Reference {
    /// One version of a registered model: never moves.
    Version {
        /// The registered model.
        model: String,
        /// Its version.
        version: u64,
    },
    /// Whatever this alias of a registered model names; moves with it.
    Alias {
        /// The registered model.
        model: String,
        /// The alias.
        alias: String,
    },
    /// Whatever is in this stage of a registered model; moves with it.
    Stage {
        /// The registered model.
        model: String,
        /// The stage.
        stage: String,
    },
    /// A graph of models and transforms, by the SHA-256 of its description in hexadecimal.
    Graph {
        /// 64 hexadecimal digits.
        digest: String,
    },
    /// A server that answers the Open Inference Protocol.
    Upstream {
        /// Its address.
        url: String,
    },
}

impl Reference {
    /// The registered model and the alias or stage, when the reference moves with one.
    pub fn pointer(&self) -> Option<(&str, &str)> {
        match self {
            Reference::Alias { model, alias } => Some((model, alias)),
            Reference::Stage { model, stage } => Some((model, stage)),
            _ => None,
        }
    }
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Reference> {
        let shown: String = text.chars().take(200).collect();
        if text.len() > REFERENCE_BYTES_MAX {
            let length = text.len();
            return Err(Error::invalid(format!(
                "a backend reference of {length} bytes; at most {REFERENCE_BYTES_MAX} are allowed"
            )));
        }
        if text.chars().any(|c| c.is_control()) {
            return Err(Error::invalid("a backend reference contains a control character"));
        }
        read(text).ok_or_else(|| match is_storage(text) {
            true => Error::invalid(format!(
                "`{shown}` is a storage path; register what lies there as a version of a model and name that: \
                 `models:/NAME/VERSION` or `models:/NAME@ALIAS`"
            )),
            false => Error::invalid(format!("`{shown}` names no backend; the forms are {FORMS}")),
        })
    }
}

fn read(text: &str) -> Option<Reference> {
    if let Some(rest) = text.strip_prefix("models:/") {
        return read_model(rest);
    }
    if let Some(digest) = text.strip_prefix("graph:sha256:") {
        let is_hex = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        return is_hex.then(|| Reference::Graph { digest: digest.to_ascii_lowercase() });
    }
    let (scheme, rest) = text.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let is_upstream = matches!(scheme, "http" | "https" | "grpc" | "grpcs")
        && !authority.is_empty()
        && !authority.contains(['@', ' '])
        && !rest.contains(' ');
    is_upstream.then(|| Reference::Upstream { url: text.to_owned() })
}

fn read_model(rest: &str) -> Option<Reference> {
    let is_name = |name: &str| !name.is_empty() && !name.contains(['/', ':', '@']);
    if let Some((model, alias)) = rest.rsplit_once('@') {
        let is_alias = is_name(model) && is_name(alias);
        return is_alias.then(|| Reference::Alias { model: model.to_owned(), alias: alias.to_owned() });
    }
    let (model, last) = rest.split_once('/')?;
    if !is_name(model) || !is_name(last) {
        return None;
    }
    let model = model.to_owned();
    if last.bytes().all(|b| b.is_ascii_digit()) {
        let version = last.parse().ok().filter(|version| *version > 0)?;
        return Some(Reference::Version { model, version });
    }
    Some(Reference::Stage { model, stage: last.to_owned() })
}

/// Paths, and addresses of stores and runs: what a model file would be loaded from.
fn is_storage(text: &str) -> bool {
    let is_path = text.starts_with(['/', '.', '~', '\\']) || text.as_bytes().get(1..3).is_some_and(|two| two == b":\\");
    let is_upstream = ["http", "https", "grpc", "grpcs", "models", "graph"]
        .into_iter()
        .any(|scheme| text.strip_prefix(scheme).is_some_and(|rest| rest.starts_with(':')));
    is_path || !is_upstream && (text.contains(":/") || text.contains('/'))
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reference::Version { model, version } => write!(f, "models:/{model}/{version}"),
            Reference::Alias { model, alias } => write!(f, "models:/{model}@{alias}"),
            Reference::Stage { model, stage } => write!(f, "models:/{model}/{stage}"),
            Reference::Graph { digest } => write!(f, "graph:sha256:{digest}"),
            Reference::Upstream { url } => f.write_str(url),
        }
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> String {
        reference.to_string()
    }
}

impl TryFrom<String> for Reference {
    type Error = Error;

    fn try_from(text: String) -> Result<Reference> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_and_written_back() {
        fn check(text: &str, expect: Option<&str>) {
            let read = text.parse::<Reference>().ok().map(|reference| reference.to_string());
            assert_eq!(read.as_deref(), expect, "{text}");
        }
        let digest = "AB".repeat(32);
        check("models:/churn/3", Some("models:/churn/3"));
        check("models:/churn model@live", Some("models:/churn model@live"));
        check("models:/churn/Production", Some("models:/churn/Production"));
        check(&format!("graph:sha256:{digest}"), Some(&format!("graph:sha256:{}", digest.to_lowercase())));
        check("grpc://triton:8001", Some("grpc://triton:8001"));
        check("https://host/v2/models/a", Some("https://host/v2/models/a"));
        for bad in ["", "models:/", "models:/a", "models:/a/0", "models:/a/b/c", "models:/@x", "models:/a@", "http://"]
        {
            check(bad, None);
        }
        for bad in ["graph:sha256:ab", "http://u:p@host", "http://a b", "models:/a/99999999999999999999", "a\nb"] {
            check(bad, None);
        }
    }

    #[test]
    fn storage_paths_are_refused_with_the_registry_form() {
        for path in ["/srv/model.onnx", "./m", "s3://bucket/m", "file:///m", "runs:/1/m", "C:\\m", "models/m.onnx"] {
            let error = path.parse::<Reference>().unwrap_err();
            assert!(error.message().contains("storage path"), "{error}");
            assert!(error.message().contains("models:/NAME@ALIAS"), "{error}");
        }
    }

    #[test]
    fn references_have_a_longest_length() {
        let named = |length: usize| format!("models:/{}/1", "a".repeat(length - "models://1".len()));
        named(REFERENCE_BYTES_MAX).parse::<Reference>().unwrap();
        let error = named(REFERENCE_BYTES_MAX + 1).parse::<Reference>().unwrap_err();
        assert!(error.message().contains("1024"), "{error}");
    }
}
