//! The registry: named models, their versions, stages, aliases and tags.
//!
//! Owns the records and their documents. What changes the summary that a model's document keeps (versions, latest version
//! of each stage, aliases) is guarded on one key of that model and writes it, so that version numbers have no gaps and no
//! twins, and the summary is always right; tags and descriptions are guarded only on what they belong to. What other
//! plugins need is mirrored into the host's directory in the same transaction (`mirror`); every decision is kept with who
//! made it (`decisions`).

pub mod decisions;
pub mod mirror;
pub mod source;
pub mod versions;

use crate::errors::{Code, Failure, Outcome};
use crate::events;
use crate::json::{self, Object};
use crate::paging::Search;
use crate::search::plan::{self, Fingerprint, PROMPT_TAG};
use crate::search::{Entity, filter, order};
use crate::store::{self, change, indexes};
use crate::validate;
use crate::wire::{Args, Field, Kind, optional, required};
use mainstay_sdk::index::{self, DocumentRef, Field as Write, Query, Selection, field};
use mainstay_sdk::{Transaction, clock, keys, random};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::collections::HashMap;

/// Stages of a version, in the order of an answer.
pub const STAGES: &[&str] = &["None", "Staging", "Production", "Archived"];
/// Most versions of a model that one change rewrites (renaming, archiving).
pub const VERSIONS_REWRITTEN_MAX: u32 = 3_000;

/// What a model's key holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// Its name.
    pub name: String,
    /// The highest version number ever given out.
    pub last_version: i64,
    /// Whether it is a prompt, which is no model for anybody but its clients.
    pub is_prompt: bool,
}

/// A registered model, found by name.
#[derive(Clone, Debug)]
pub struct Model {
    /// Its key in the indexes, which a new name does not change.
    pub uid: String,
    /// What its key holds.
    pub record: Record,
}

/// Find a model.
pub fn find(name: &str) -> Outcome<Model> {
    let not_found = || Failure::missing(format!("Registered Model with name={name} not found"));
    let uid = keys::get(store::registered_name_key(name))?.ok_or_else(not_found)?;
    let uid =
        String::from_utf8(uid).map_err(|_| Failure::new(Code::InternalError, "a registered model's key is damaged"))?;
    let record = keys::get_json(store::registered_key(&uid))?.ok_or_else(not_found)?;
    Ok(Model { uid, record })
}

impl Model {
    /// Guard a transaction on this model, and make others' guards see it.
    pub fn guard(&self, tx: &Transaction) -> Outcome<()> {
        let key = store::registered_key(&self.uid);
        tx.expect_unchanged(&key)?;
        Ok(tx.put_json(&key, &self.record)?)
    }

    /// Guard a transaction on this model being there, whatever else changes about it.
    pub fn must_stay(&self, tx: &Transaction) -> Outcome<()> {
        Ok(tx.expect_present(store::registered_key(&self.uid))?)
    }

    /// Guard a transaction on this model and a version of it being there, whatever else changes about them.
    pub fn version_must_stay(&self, tx: &Transaction, version: i64) -> Outcome<()> {
        self.must_stay(tx)?;
        Ok(tx.expect_unchanged(store::version_key(&self.uid, version))?)
    }

    /// Its document.
    pub fn document(&self) -> Outcome<index::Document> {
        index::document(indexes::REGISTERED_MODELS, &self.uid)?
            .ok_or_else(|| Failure::missing(format!("Registered Model with name={} not found", self.record.name)))
    }

    /// The id of a version's document.
    pub fn version_id(&self, version: i64) -> String {
        format!("{}.{version}", self.uid)
    }

    /// Number and stage of every version there is.
    pub fn stages(&self) -> Outcome<Vec<(i64, String)>> {
        let mut out = Vec::new();
        let mut after = None;
        loop {
            let query = Query::new()
                .filter(field("model").equal(&self.uid))
                .fields(["version", "current_stage"])
                .after(after.take())
                .limit(50_000);
            let part = index::select(indexes::MODEL_VERSIONS, &query)?;
            out.extend(part.iter().filter_map(|document| {
                Some((document.integer("version")?, document.text("current_stage").unwrap_or("None").to_owned()))
            }));
            after = part.next().map(<[u8]>::to_vec);
            if after.is_none() {
                return Ok(out);
            }
        }
    }
}

/// Fields that say which version is the latest of each stage.
pub fn latest_fields(stages: &[(i64, String)]) -> Vec<Write> {
    STAGES
        .iter()
        .map(|stage| {
            let name = format!("latest.{stage}");
            match stages.iter().filter(|(_, of)| of == stage).map(|(version, _)| *version).max() {
                Some(version) => Write::new(name, version),
                None => Write::removed(name),
            }
        })
        .collect()
}

/// A stage in its canonical spelling.
pub fn canonical_stage(stage: &str) -> Outcome<&'static str> {
    STAGES.iter().find(|known| known.eq_ignore_ascii_case(stage)).copied().ok_or_else(|| {
        Failure::invalid(format!("Invalid Model Version stage: {stage}. Value must be one of {}.", STAGES.join(", ")))
    })
}

fn is_prompt(tags: &[(&str, &str)]) -> bool {
    tags.iter().rev().find(|(key, _)| *key == PROMPT_TAG).is_some_and(|(_, value)| value.eq_ignore_ascii_case("true"))
}

const CREATE: &[Field] =
    &[required("name", Kind::Text), optional("tags", Kind::List), optional("description", Kind::Text)];

/// `registered-models/create`
pub fn create(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(CREATE)?;
    let name = args.text_or_empty("name");
    validate::model_name(name)?;
    let tags = args.pairs("tags")?;
    tags.iter().try_for_each(|(key, value)| validate::registry_tag(key, value))?;
    let description = args.text("description");
    let is_prompt = is_prompt(&tags);
    let now = clock::now_ms();
    let uid = random::id();
    change(|tx| {
        if let Ok(known) = find(name) {
            return Err(already_exists(name, known.record.is_prompt, is_prompt));
        }
        tx.expect_absent(store::registered_name_key(name))?;
        tx.put(store::registered_name_key(name), &uid)?;
        let record = Record { name: name.to_owned(), last_version: 0, is_prompt };
        tx.put_json(store::registered_key(&uid), &record)?;
        let mut fields = vec![
            Write::new("name", name),
            Write::new("creation_timestamp", now),
            Write::new("last_updated_timestamp", now),
        ];
        fields.extend(description.map(|text| Write::new("description", text)));
        fields.extend(tags.iter().map(|(key, value)| Write::new(format!("tags.{key}"), *value)));
        tx.index(indexes::REGISTERED_MODELS).set(&uid, fields)?;
        if !is_prompt {
            mirror::create_model(tx, name)?;
        }
        let what = json!({"description": description, "tags": events::tags(&tags)});
        events::of_model(tx, "model-created", &record, by, what)?;
        decisions::note(tx, &uid, &decisions::Decision::new(by, "created"))
    })?;
    // The caller knows everything that is in it; reading it back would only show the same.
    Ok(json::object(|o| {
        o.object("registered_model", |model| {
            model.text("name", name).integer("creation_timestamp", now).integer("last_updated_timestamp", now);
            model.maybe_text("description", description);
            let mut last_of: Vec<(&str, &str)> = Vec::new();
            for (key, value) in &tags {
                last_of.retain(|(known, _)| known != key);
                last_of.push((key, value));
            }
            model.pairs("tags", last_of);
        });
    }))
}

fn already_exists(name: &str, old_is_prompt: bool, new_is_prompt: bool) -> Failure {
    let word = |is_prompt| if is_prompt { "Prompt" } else { "Registered Model" };
    let message = if old_is_prompt == new_is_prompt {
        format!("{} (name={name}) already exists.", word(new_is_prompt))
    } else {
        format!(
            "Tried to create a {} with name '{name}', but the name is already taken by a {}. MLflow does not allow \
             creating a model and a prompt with the same name.",
            word(new_is_prompt).to_lowercase(),
            word(old_is_prompt).to_lowercase()
        )
    };
    Failure::new(Code::ResourceAlreadyExists, message)
}

const BY_NAME: &[Field] = &[required("name", Kind::Text)];

/// `registered-models/get`
pub fn get(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(BY_NAME)?;
    let name = args.text_or_empty("name");
    validate::model_name(name)?;
    answer(&find(name)?)
}

fn answer(model: &Model) -> Outcome<Vec<u8>> {
    let document = model.document()?;
    let document = document.as_ref();
    let latest = latest_versions([document])?;
    let mut out = b"{\"registered_model\":".to_vec();
    write(&mut out, &document, &latest);
    out.push(b'}');
    Ok(out)
}

/// Documents of the latest versions of some models, by id.
fn latest_versions<'a>(models: impl IntoIterator<Item = DocumentRef<'a>>) -> Outcome<HashMap<String, Vec<u8>>> {
    let mut ids = Vec::new();
    for model in models {
        ids.extend(latest_ids(&model));
    }
    let mut out = HashMap::with_capacity(ids.len());
    for chunk in ids.chunks(10_000) {
        let query = Query::new().filter(index::id().one_of(chunk.iter().map(String::as_str))).limit(50_000);
        for version in index::select(indexes::MODEL_VERSIONS, &query)?.iter() {
            let mut json = Vec::new();
            versions::write(&mut json, &version, &[]);
            out.insert(version.id().to_owned(), json);
        }
    }
    Ok(out)
}

fn latest_ids(model: &DocumentRef<'_>) -> Vec<String> {
    STAGES
        .iter()
        .filter_map(|stage| Some(format!("{}.{}", model.id(), model.integer(&format!("latest.{stage}"))?)))
        .collect()
}

/// Write a model as the client reads it.
fn write(out: &mut Vec<u8>, document: &DocumentRef<'_>, latest: &HashMap<String, Vec<u8>>) {
    let mut object = Object::new(out);
    object
        .text("name", document.text("name").unwrap_or(""))
        .maybe_integer("creation_timestamp", document.integer("creation_timestamp"))
        .maybe_integer("last_updated_timestamp", document.integer("last_updated_timestamp"))
        .maybe_text("description", document.text("description").filter(|text| !text.is_empty()));
    let ids = latest_ids(document);
    object.list("latest_versions", ids.iter().filter_map(|id| latest.get(id)), |out, json| out.extend_from_slice(json));
    object.pairs("tags", document.fields_under("tags.").filter_map(|f| Some((f.name, f.value.as_text()?))));
    object.list("aliases", aliases(document), |out, (alias, version)| {
        Object::new(out).text("alias", alias).text("version", &version.to_string()).end();
    });
    object.end();
}

/// Aliases of a model and where they lead.
pub fn aliases<'a>(document: &DocumentRef<'a>) -> Vec<(&'a str, i64)> {
    document.fields_under("alias.").filter_map(|f| Some((f.name, f.value.as_integer()?))).collect()
}

const UPDATE: &[Field] = &[required("name", Kind::Text), optional("description", Kind::Text)];

/// `registered-models/update`
pub fn update(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(UPDATE)?;
    let (name, description) = (args.text_or_empty("name"), args.text_or_empty("description"));
    change_document(name, |tx, model, before| {
        let what = json!({"from": before.text("description"), "to": description});
        events::of_model(tx, "model-updated", &model.record, by, what)?;
        Ok(vec![Write::new("description", description), Write::new("last_updated_timestamp", clock::now_ms())])
    })?;
    answer(&find(name)?)
}

/// Change a model's document, guarded on its being there. `fields` tells of it in the same transaction.
fn change_document(
    name: &str,
    fields: impl Fn(&Transaction, &Model, &DocumentRef<'_>) -> Outcome<Vec<Write>>,
) -> Outcome<()> {
    validate::model_name(name)?;
    change(|tx| {
        let model = find(name)?;
        model.must_stay(tx)?;
        let before = model.document()?;
        let fields = fields(tx, &model, &before.as_ref())?;
        Ok(tx.index(indexes::REGISTERED_MODELS).set(&model.uid, fields)?)
    })?;
    Ok(())
}

const RENAME: &[Field] = &[required("name", Kind::Text), required("new_name", Kind::Text)];

/// `registered-models/rename`
pub fn rename(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(RENAME)?;
    let (name, new_name) = (args.text_or_empty("name"), args.text_or_empty("new_name"));
    validate::model_name(new_name)?;
    let now = clock::now_ms();
    change(|tx| {
        let mut model = find(name)?;
        if name == new_name {
            return Ok(());
        }
        if find(new_name).is_ok() {
            return Err(Failure::new(
                Code::ResourceAlreadyExists,
                format!("Registered Model (name={new_name}) already exists."),
            ));
        }
        tx.expect_absent(store::registered_name_key(new_name))?;
        tx.delete(store::registered_name_key(name))?;
        tx.put(store::registered_name_key(new_name), &model.uid)?;
        model.record.name = new_name.to_owned();
        model.guard(tx)?;
        let fields = [Write::new("name", new_name), Write::new("last_updated_timestamp", now)];
        tx.index(indexes::REGISTERED_MODELS).set(&model.uid, fields.clone())?;
        let stages = model.stages()?;
        must_be_rewritable(name, stages.len())?;
        for (version, _) in &stages {
            tx.index(indexes::MODEL_VERSIONS).set(&model.version_id(*version), fields.clone())?;
        }
        if !model.record.is_prompt {
            mirror::rename_model(tx, name, new_name)?;
        }
        events::of_model(tx, "model-renamed", &model.record, by, json!({"from": name, "to": new_name}))?;
        decisions::note(tx, &model.uid, &decisions::Decision::new(by, "renamed").from(name).to(new_name))
    })?;
    keys::renew()?;
    answer(&find(new_name)?)
}

/// Refuse to rewrite more versions than one transaction takes.
pub fn must_be_rewritable(name: &str, versions: usize) -> Outcome<()> {
    if versions > VERSIONS_REWRITTEN_MAX as usize {
        return Err(Failure::invalid(format!(
            "Registered Model {name} has {versions} versions; this changes all of them at once, which is done for at most \
             {VERSIONS_REWRITTEN_MAX}. Delete old versions first."
        )));
    }
    Ok(())
}

/// `registered-models/delete`
pub fn delete(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(BY_NAME)?;
    let name = args.text_or_empty("name");
    validate::model_name(name)?;
    change(|tx| {
        let model = find(name)?;
        model.guard(tx)?;
        let stages = model.stages()?;
        must_be_rewritable(name, stages.len())?;
        for (version, _) in &stages {
            tx.index(indexes::MODEL_VERSIONS).remove(&model.version_id(*version))?;
        }
        tx.index(indexes::REGISTERED_MODELS).remove(&model.uid)?;
        tx.delete(store::registered_key(&model.uid))?;
        tx.delete(store::registered_name_key(name))?;
        tx.delete_range(&store::decisions_key(&model.uid).prefix())?;
        if !model.record.is_prompt {
            mirror::remove_model(tx, name)?;
        }
        events::of_model(tx, "model-deleted", &model.record, by, json!({"versions": stages.len()}))
    })?;
    Ok(b"{}".to_vec())
}

/// Fields of `registered-models/search`.
const SEARCH: &[Field] = &[
    optional("filter", Kind::Text),
    optional("max_results", Kind::Integer),
    optional("order_by", Kind::Texts),
    optional("page_token", Kind::Text),
];

/// `registered-models/search`
pub fn search(args: Args) -> Outcome<Vec<u8>> {
    let search = question(&args.checked(SEARCH)?, Entity::RegisteredModel, indexes::REGISTERED_MODELS, (100, 1_000))?;
    let (search, token) = search;
    search.answer_in_parts("registered_models", token.as_deref(), |out, part: &Selection| {
        let latest = latest_versions(part.iter())?;
        for (at, document) in part.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            write(out, &document, &latest);
        }
        Ok(())
    })
}

/// A search of the registry, and its page token.
fn question(args: &Args, entity: Entity, index: &'static str, rows: (i64, i64)) -> Outcome<(Search, Option<String>)> {
    let asked = args.integer("max_results");
    let rows = validate::page_rows(asked, rows.0, rows.1)?;
    let text = args.text_or_empty("filter");
    let orders = args.texts("order_by");
    let clauses = filter::parse(entity, text)?;
    let order = order::parse(entity, &orders)?;
    let fingerprint = Fingerprint::of([index, text].into_iter().chain(orders.iter().map(String::as_str)));
    let filter = plan::filter(entity, &clauses)?;
    Ok((Search { index, filter, order, rows, fingerprint }, args.text("page_token").map(str::to_owned)))
}

const LATEST: &[Field] = &[required("name", Kind::Text), optional("stages", Kind::Texts)];

/// `registered-models/get-latest-versions`
pub fn get_latest_versions(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(LATEST)?;
    let name = args.text_or_empty("name");
    validate::model_name(name)?;
    let mut stages = Vec::new();
    for stage in args.texts("stages") {
        stages.push(canonical_stage(&stage)?);
    }
    if stages.is_empty() {
        stages = STAGES.to_vec();
    }
    let model = find(name)?;
    let document = model.document()?;
    let aliases = aliases(&document.as_ref());
    let mut rows = Vec::new();
    for stage in STAGES.iter().filter(|stage| stages.contains(stage)) {
        if let Some(version) = document.as_ref().integer(&format!("latest.{stage}")) {
            rows.extend(index::document(indexes::MODEL_VERSIONS, &model.version_id(version))?);
        }
    }
    Ok(json::object(|o| {
        o.list("model_versions", &rows, |out, version| versions::write(out, &version.as_ref(), &aliases));
    }))
}

const SET_TAG: &[Field] = &[required("name", Kind::Text), required("key", Kind::Text), optional("value", Kind::Text)];

/// `registered-models/set-tag`
pub fn set_tag(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(SET_TAG)?;
    let (key, value) = (args.text_or_empty("key"), args.text_or_empty("value"));
    validate::registry_tag(key, value)?;
    let field = format!("tags.{key}");
    change_document(args.text_or_empty("name"), |tx, model, before| {
        let what = json!({"key": key, "from": before.text(&field), "to": value});
        events::of_model(tx, "model-tag-set", &model.record, by, what)?;
        Ok(vec![Write::new(&field, value)])
    })?;
    Ok(b"{}".to_vec())
}

/// `registered-models/delete-tag`
pub fn delete_tag(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(&[required("name", Kind::Text), required("key", Kind::Text)])?;
    let key = args.text_or_empty("key");
    validate::key_name("key", key)?;
    let field = format!("tags.{key}");
    change_document(args.text_or_empty("name"), |tx, model, before| {
        let what = json!({"key": key, "from": before.text(&field)});
        events::of_model(tx, "model-tag-deleted", &model.record, by, what)?;
        Ok(vec![Write::removed(&field)])
    })?;
    Ok(b"{}".to_vec())
}

const ALIAS: &[Field] = &[
    required("name", Kind::Text),
    required("alias", Kind::Text),
    required("version", Kind::Text),
    optional("comment", Kind::Text),
];

/// `POST registered-models/alias`. Returns a warning beside the answer when the version's origin is not known well.
pub fn set_alias(args: Args, by: &str) -> Outcome<(Vec<u8>, Option<String>)> {
    let args = args.checked(ALIAS)?;
    let (name, alias) = (args.text_or_empty("name"), args.text_or_empty("alias"));
    validate::model_name(name)?;
    validate::alias(alias)?;
    validate::alias_not_reserved(alias)?;
    let version = validate::version(args.text_or_empty("version"))?;
    let (promoted, _) = change(|tx| {
        let model = find(name)?;
        let document = versions::document(&model, version)?;
        model.guard(tx)?;
        let field = format!("alias.{alias}");
        let old = model.document()?.as_ref().integer(&field);
        tx.index(indexes::REGISTERED_MODELS).set(&model.uid, [Write::new(field, version)])?;
        if old == Some(version) {
            return Ok(None);
        }
        tell_of_alias(tx, &model, alias, (old, Some(version)), by, args.text("comment"))?;
        if model.record.is_prompt {
            return Ok(None);
        }
        let origin = versions::origin_of(&document.as_ref())?;
        mirror::refresh_version(tx, name, version, &origin, &mut mirror::Created::default())?;
        mirror::move_pointer(tx, name, alias, Some(version))?;
        let decision =
            decisions::Decision::new(by, "alias").subject(alias).version(version).comment(args.text("comment"));
        decisions::note(tx, &model.uid, &decision.maybe_from(old.map(|v| v.to_string())).to(&version.to_string()))?;
        Ok(Some(document))
    })
    .map_err(|failure| crate::provenance::explain(failure, name, version))?;
    // Only now: a move that is refused has not happened.
    let warning = match promoted {
        Some(version) => crate::provenance::warn(&version.as_ref(), &format!("alias '{alias}'"))?,
        None => None,
    };
    Ok((b"{}".to_vec(), warning))
}

/// `DELETE registered-models/alias`
pub fn delete_alias(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(&[required("name", Kind::Text), required("alias", Kind::Text)])?;
    let (name, alias) = (args.text_or_empty("name"), args.text_or_empty("alias"));
    validate::model_name(name)?;
    validate::alias(alias)?;
    change(|tx| {
        let model = find(name)?;
        let field = format!("alias.{alias}");
        let Some(old) = model.document()?.as_ref().integer(&field) else { return Ok(()) };
        model.guard(tx)?;
        tx.index(indexes::REGISTERED_MODELS).set(&model.uid, [Write::removed(field)])?;
        if !model.record.is_prompt {
            mirror::move_pointer(tx, name, alias, None)?;
        }
        tell_of_alias(tx, &model, alias, (Some(old), None), by, None)?;
        let decision = decisions::Decision::new(by, "alias").subject(alias).from(&old.to_string());
        decisions::note(tx, &model.uid, &decision)
    })?;
    Ok(b"{}".to_vec())
}

/// An alias leads elsewhere, or nowhere any more.
pub fn tell_of_alias(
    tx: &Transaction,
    model: &Model,
    alias: &str,
    (from, to): (Option<i64>, Option<i64>),
    by: &str,
    comment: Option<&str>,
) -> Outcome<()> {
    let kind = if to.is_some() { "alias-set" } else { "alias-deleted" };
    let [from, to] = [from, to].map(|version| version.map(|number| number.to_string()));
    events::of_model(tx, kind, &model.record, by, json!({"alias": alias, "from": from, "to": to, "comment": comment}))
}

/// `GET registered-models/alias`
pub fn get_by_alias(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(&[required("name", Kind::Text), required("alias", Kind::Text)])?;
    let (name, alias) = (args.text_or_empty("name"), args.text_or_empty("alias"));
    validate::model_name(name)?;
    validate::alias(alias)?;
    let model = find(name)?;
    let version = resolve_alias(&model, alias)?;
    versions::answer(&model, version)
}

/// The version that an alias leads to; "latest" is the highest.
pub fn resolve_alias(model: &Model, alias: &str) -> Outcome<i64> {
    let document = model.document()?;
    let document = document.as_ref();
    if alias.eq_ignore_ascii_case("latest") {
        let latest = STAGES.iter().filter_map(|stage| document.integer(&format!("latest.{stage}"))).max();
        return latest
            .ok_or_else(|| Failure::missing(format!("Latest version not found for model {}.", model.record.name)));
    }
    document
        .integer(&format!("alias.{alias}"))
        .ok_or_else(|| Failure::invalid(format!("Registered model alias {alias} not found.")))
}
