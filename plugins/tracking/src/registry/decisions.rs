//! Who decided what about a registered model, when, and why.
//!
//! Kept as fragments beside the model: adding one reads nothing and never conflicts. A decision is written in the
//! transaction that carries it out, so there is none without its effect and no effect without it.

use crate::errors::{Code, Failure, Outcome};
use crate::events;
use crate::store::{self, change};
use crate::validate;
use crate::wire::{Args, Kind, optional, required};
use mainstay_sdk::{Transaction, clock, keys};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Longest comment, in characters.
const COMMENT_CHARS_MAX: usize = 5_000;
/// Most decisions in an answer: the newest.
const ANSWER_MAX: usize = 1_000;

/// One decision.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Decision {
    /// Milliseconds since 1970.
    pub at_ms: i64,
    /// Who.
    pub by: String,
    /// What: created, renamed, registered, stage, alias, deleted, comment.
    pub what: String,
    /// The alias, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The version, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<i64>,
    /// What was before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What is since.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
}

impl Decision {
    /// A decision made now.
    pub fn new(by: &str, what: &str) -> Self {
        Self { at_ms: clock::now_ms(), by: by.to_owned(), what: what.to_owned(), ..Self::default() }
    }

    /// About this alias.
    pub fn subject(mut self, subject: &str) -> Self {
        self.subject = Some(subject.to_owned());
        self
    }

    /// About this version.
    pub fn version(mut self, version: i64) -> Self {
        self.version = Some(version);
        self
    }

    /// What was before.
    pub fn from(self, from: &str) -> Self {
        self.maybe_from(Some(from.to_owned()))
    }

    /// What was before, if anything.
    pub fn maybe_from(mut self, from: Option<String>) -> Self {
        self.from = from;
        self
    }

    /// What is since.
    pub fn to(mut self, to: &str) -> Self {
        self.to = Some(to.to_owned());
        self
    }

    /// Why.
    pub fn comment(mut self, comment: Option<&str>) -> Self {
        self.comment = comment.map(|text| text.chars().take(COMMENT_CHARS_MAX).collect());
        self
    }
}

/// Keep a decision when the transaction commits.
pub fn note(tx: &Transaction, uid: &str, decision: &Decision) -> Outcome<()> {
    let json = serde_json::to_vec(decision).map_err(|e| Failure::new(Code::InternalError, e.to_string()))?;
    Ok(tx.append(store::decisions_key(uid), json)?)
}

/// `GET registry/{name}/decisions`: newest first.
pub fn list(name: &str) -> Outcome<Vec<u8>> {
    let model = super::find(name)?;
    let mut rows: Vec<serde_json::Value> = Vec::new();
    for entry in keys::scan(store::decisions_key(&model.uid).prefix()).reverse() {
        rows.push(serde_json::from_slice(&entry?.value).map_err(|_| damaged())?);
        if rows.len() == ANSWER_MAX {
            break;
        }
    }
    serde_json::to_vec(&json!({ "name": name, "decisions": rows }))
        .map_err(|e| Failure::new(Code::InternalError, e.to_string()))
}

fn damaged() -> Failure {
    Failure::new(Code::InternalError, "a stored decision is damaged; check the host's data folder")
}

/// `POST registry/{name}/decisions`: a comment, on a version if one is named.
pub fn comment(name: &str, args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(&[required("comment", Kind::Text), optional("version", Kind::Text)])?;
    validate::length("comment", COMMENT_CHARS_MAX, args.text_or_empty("comment"))?;
    let version = args.text("version").map(validate::version).transpose()?;
    change(|tx| {
        let model = super::find(name)?;
        let mut decision = Decision::new(by, "comment").comment(args.text("comment"));
        if let Some(version) = version {
            super::versions::document(&model, version)?;
            decision = decision.version(version);
        }
        tx.expect_unchanged(store::registered_key(&model.uid))?;
        let what = json!({"version": version.map(|number| number.to_string()), "comment": args.text("comment")});
        events::of_model(tx, "comment-added", &model.record, by, what)?;
        note(tx, &model.uid, &decision)
    })?;
    Ok(b"{}".to_vec())
}
