//! Versions of registered models.

use super::decisions::{self, Decision};
use super::{Model, STAGES, find, latest_fields, mirror, source};
use crate::errors::{Failure, Outcome};
use crate::json::{self, Object};
use crate::search::Entity;
use crate::search::plan::PROMPT_TAG;
use crate::store::{self, change, indexes};
use crate::wire::{Args, Field, Kind, optional, required};
use crate::{events, inputs, models, provenance, removal, validate};
use mainstay_sdk::index::{self, Document, DocumentRef, Field as Write};
use mainstay_sdk::{Transaction, clock};
use serde_json::{Value, json};

/// Stages that mean use, from which others are archived.
const ACTIVE_STAGES: &[&str] = &["Staging", "Production"];

/// A version's document.
pub fn document(model: &Model, version: i64) -> Outcome<Document> {
    index::document(indexes::MODEL_VERSIONS, &model.version_id(version))?.ok_or_else(|| {
        Failure::missing(format!("Model Version (name={}, version={version}) not found", model.record.name))
    })
}

/// Write a version as the client reads it.
pub fn write(out: &mut Vec<u8>, document: &DocumentRef<'_>, aliases: &[(&str, i64)]) {
    let text = |name: &str| document.text(name).unwrap_or("");
    let version = document.integer("version").unwrap_or(0);
    let mut object = Object::new(out);
    object
        .text("name", text("name"))
        .text("version", &version.to_string())
        .integer("creation_timestamp", document.integer("creation_timestamp").unwrap_or(0))
        .integer("last_updated_timestamp", document.integer("last_updated_timestamp").unwrap_or(0))
        .maybe_text("description", document.text("description"))
        .text("current_stage", text("current_stage"))
        .text("source", text("source"))
        .text("run_id", text("run_id"))
        .text("status", "READY")
        .pairs("tags", document.fields_under("tags.").filter_map(|f| Some((f.name, f.value.as_text()?))))
        .text("run_link", text("run_link"))
        .list("aliases", aliases.iter().filter(|(_, of)| *of == version), |out, (alias, _)| json::text(out, alias))
        .end();
}

/// One version as an answer.
pub fn answer(model: &Model, version: i64) -> Outcome<Vec<u8>> {
    let document = document(model, version)?;
    let of_model = model.document()?;
    let mut out = b"{\"model_version\":".to_vec();
    write(&mut out, &document.as_ref(), &super::aliases(&of_model.as_ref()));
    out.push(b'}');
    Ok(out)
}

const CREATE: &[Field] = &[
    required("name", Kind::Text),
    required("source", Kind::Text),
    optional("run_id", Kind::Text),
    optional("tags", Kind::List),
    optional("run_link", Kind::Text),
    optional("description", Kind::Text),
    optional("model_id", Kind::Text),
    optional("comment", Kind::Text),
];

/// `model-versions/create`
pub fn create(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(CREATE)?;
    let name = args.text_or_empty("name");
    validate::model_name(name)?;
    let tags = args.pairs("tags")?;
    tags.iter().try_for_each(|(key, value)| validate::registry_tag(key, value))?;
    let is_prompt = super::is_prompt(&tags);
    let given = args.text_or_empty("source");
    let ((model, version), _) = change(|tx| {
        let mut model = find(name)?;
        let source = if is_prompt {
            source::of_prompt(given)?
        } else {
            source::resolve(given, args.text("run_id"), args.text("model_id"))?
        };
        model.record.last_version += 1;
        model.guard(tx)?;
        let version = model.record.last_version;
        if let Some(run_id) = &source.run_id {
            removal::hold_run(tx, run_id)?;
        }
        write_new(tx, &model, version, &source, &args, &tags)?;
        if !model.record.is_prompt {
            let origin = origin(&source)?;
            mirror::create_version(tx, name, version, &origin)?;
            if let Some(id) = &source.model_id {
                models::tag_registered(tx, id, name, version)?;
            }
        }
        let what = json!({
            "version": version.to_string(),
            "source": source.source,
            "run_id": source.run_id,
            "model_id": source.model_id,
            "tags": events::tags(&tags),
            "description": args.text("description"),
            "comment": args.text("comment"),
            "is_prompt": is_prompt,
        });
        events::of_model(tx, "version-created", &model.record, by, what)?;
        let decision = Decision::new(by, "registered").version(version).comment(args.text("comment"));
        decisions::note(tx, &model.uid, &decision)?;
        Ok((model, version))
    })?;
    answer(&model, version)
}

fn write_new(
    tx: &Transaction,
    model: &Model,
    version: i64,
    source: &source::Source,
    args: &Args,
    tags: &[(&str, &str)],
) -> Outcome<()> {
    let now = clock::now_ms();
    let mut fields = vec![
        Write::new("model", &model.uid),
        Write::new("name", &model.record.name),
        Write::new("version", version),
        Write::new("creation_timestamp", now),
        Write::new("last_updated_timestamp", now),
        Write::new("description", args.text_or_empty("description")),
        Write::new("current_stage", STAGES[0]),
        Write::new("source", &source.source),
        Write::new("storage_location", &source.storage),
        Write::new("run_id", source.run_id.as_deref().unwrap_or("")),
        Write::new("model_id", source.model_id.as_deref().unwrap_or("")),
        Write::new("run_link", args.text_or_empty("run_link")),
    ];
    fields.extend(tags.iter().map(|(key, value)| Write::new(format!("tags.{key}"), *value)));
    tx.index(indexes::MODEL_VERSIONS).set(&model.version_id(version), fields)?;
    let mut of_model =
        vec![Write::new("last_updated_timestamp", now), Write::new(format!("latest.{}", STAGES[0]), version)];
    if tags.iter().any(|(key, value)| *key == PROMPT_TAG && *value == "true") && !model.record.is_prompt {
        // A prompt's version under a model's name: the search for models must not show it as one.
        of_model.clear();
        return Err(Failure::invalid(format!("'{}' is a registered model, not a prompt.", model.record.name)));
    }
    Ok(tx.index(indexes::REGISTERED_MODELS).set(&model.uid, of_model)?)
}

/// What is known about where a source comes from.
fn origin(source: &source::Source) -> Outcome<mirror::Origin> {
    let origin = mirror::Origin {
        run_id: source.run_id.clone(),
        model_id: source.model_id.clone(),
        storage: source.storage.clone(),
        ..mirror::Origin::default()
    };
    with_run(origin)
}

/// What is known by now about where a version comes from: its run may have been tagged since.
pub fn origin_of(version: &DocumentRef<'_>) -> Outcome<mirror::Origin> {
    let text = |name: &str| version.text(name).filter(|text| !text.is_empty()).map(str::to_owned);
    let origin = mirror::Origin {
        run_id: text("run_id"),
        model_id: text("model_id"),
        storage: text("storage_location").unwrap_or_default(),
        ..mirror::Origin::default()
    };
    with_run(origin)
}

fn with_run(mut origin: mirror::Origin) -> Outcome<mirror::Origin> {
    if let Some(run_id) = &origin.run_id {
        if let Some(run) = index::document(indexes::RUNS, run_id)? {
            origin.commit = provenance::commit_of(&run.as_ref()).map(str::to_owned);
        }
        origin.datasets = inputs::datasets_of(run_id)?;
    }
    Ok(origin)
}

const BY_VERSION: &[Field] = &[required("name", Kind::Text), required("version", Kind::Text)];

/// A request's model and version.
fn named(args: &Args) -> Outcome<(String, i64)> {
    let name = args.text_or_empty("name");
    validate::model_name(name)?;
    Ok((name.to_owned(), validate::version(args.text_or_empty("version"))?))
}

/// `model-versions/get`
pub fn get(args: Args) -> Outcome<Vec<u8>> {
    let (name, version) = named(&args.checked(BY_VERSION)?)?;
    let model = find(&name).map_err(|_| version_not_found(&name, version))?;
    answer(&model, version)
}

fn version_not_found(name: &str, version: i64) -> Failure {
    Failure::missing(format!("Model Version (name={name}, version={version}) not found"))
}

/// `model-versions/get-download-uri`
pub fn get_download_uri(args: Args) -> Outcome<Vec<u8>> {
    let (name, version) = named(&args.checked(BY_VERSION)?)?;
    let model = find(&name).map_err(|_| version_not_found(&name, version))?;
    let document = document(&model, version)?;
    let document = document.as_ref();
    let storage = document.text("storage_location").filter(|text| !text.is_empty());
    let uri = storage.or(document.text("source")).unwrap_or("");
    Ok(json::object(|o| {
        o.text("artifact_uri", uri);
    }))
}

/// What a request does to a version's document, and what is told of it.
struct Edit {
    fields: Vec<Write>,
    kind: &'static str,
    what: Value,
}

/// Change a version's document, guarded on its being there, and tell of it.
fn set(args: &Args, by: &str, edit: impl Fn(&DocumentRef<'_>) -> Edit) -> Outcome<(Model, i64)> {
    let (name, version) = named(args)?;
    let (model, _) = change(|tx| {
        let model = find(&name).map_err(|_| version_not_found(&name, version))?;
        let document = document(&model, version)?;
        model.version_must_stay(tx, version)?;
        let Edit { fields, kind, mut what } = edit(&document.as_ref());
        tx.index(indexes::MODEL_VERSIONS).set(&model.version_id(version), fields)?;
        what["version"] = version.to_string().into();
        events::of_model(tx, kind, &model.record, by, what)?;
        Ok(model)
    })?;
    Ok((model, version))
}

const UPDATE: &[Field] =
    &[required("name", Kind::Text), required("version", Kind::Text), optional("description", Kind::Text)];

/// `model-versions/update`
pub fn update(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(UPDATE)?;
    let description = args.has("description").then(|| args.text_or_empty("description"));
    let (model, version) = set(&args, by, |before| {
        let written = match description {
            Some(text) => Write::new("description", text),
            None => Write::removed("description"),
        };
        Edit {
            fields: vec![written, Write::new("last_updated_timestamp", clock::now_ms())],
            kind: "version-updated",
            what: json!({"from": before.text("description"), "to": description}),
        }
    })?;
    answer(&model, version)
}

const SET_TAG: &[Field] = &[
    required("name", Kind::Text),
    required("version", Kind::Text),
    required("key", Kind::Text),
    optional("value", Kind::Text),
];

/// `model-versions/set-tag`
pub fn set_tag(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let args = args.checked(SET_TAG)?;
    let (key, value) = (args.text_or_empty("key"), args.text_or_empty("value"));
    validate::registry_tag(key, value)?;
    let field = format!("tags.{key}");
    set(&args, by, |before| Edit {
        fields: vec![Write::new(&field, value)],
        kind: "version-tag-set",
        what: json!({"key": key, "from": before.text(&field), "to": value}),
    })?;
    Ok(b"{}".to_vec())
}

/// `model-versions/delete-tag`
pub fn delete_tag(args: Args, by: &str) -> Outcome<Vec<u8>> {
    const FIELDS: &[Field] =
        &[required("name", Kind::Text), required("version", Kind::Text), required("key", Kind::Text)];
    let args = args.checked(FIELDS)?;
    let key = args.text_or_empty("key");
    validate::key_name("key", key)?;
    let field = format!("tags.{key}");
    set(&args, by, |before| Edit {
        fields: vec![Write::removed(&field)],
        kind: "version-tag-deleted",
        what: json!({"key": key, "from": before.text(&field)}),
    })?;
    Ok(b"{}".to_vec())
}

const TRANSITION: &[Field] = &[
    required("name", Kind::Text),
    required("version", Kind::Text),
    required("stage", Kind::Text),
    optional("archive_existing_versions", Kind::Boolean),
    optional("comment", Kind::Text),
];

/// `model-versions/transition-stage`. Returns a warning beside the answer when the version's origin is not known well.
pub fn transition(args: Args, by: &str) -> Outcome<(Vec<u8>, Option<String>)> {
    let args = args.checked(TRANSITION)?;
    let (name, version) = named(&args)?;
    let stage = super::canonical_stage(args.text_or_empty("stage"))?;
    let archive = args.boolean("archive_existing_versions");
    if archive && !ACTIVE_STAGES.contains(&stage) {
        return Err(Failure::invalid(format!(
            "Model version transition cannot archive existing model versions because '{stage}' is not an Active stage. \
             Valid stages are ['Staging', 'Production']"
        )));
    }
    let ((model, promoted), _) = change(|tx| {
        let model = find(&name).map_err(|_| version_not_found(&name, version))?;
        let document = document(&model, version)?;
        let before = document.as_ref().text("current_stage").unwrap_or(STAGES[0]).to_owned();
        model.guard(tx)?;
        let mut stages = model.stages()?;
        let mut moved = Vec::new();
        for (other, of) in &mut stages {
            let to = if *other == version {
                stage
            } else if archive && of == stage {
                "Archived"
            } else {
                continue;
            };
            moved.push((*other, std::mem::replace(of, to.to_owned())));
        }
        super::must_be_rewritable(&name, moved.len())?;
        write_stages(tx, &model, &stages, &moved, by, args.text("comment"))?;
        let is_promotion = ACTIVE_STAGES.contains(&stage) && before != stage;
        Ok((model, is_promotion.then_some(document)))
    })
    .map_err(|failure| provenance::explain(failure, &name, version))?;
    // Only now: a move that is refused has not happened.
    let warning = match promoted {
        Some(document) => provenance::warn(&document.as_ref(), &format!("stage {stage}"))?,
        None => None,
    };
    Ok((answer(&model, version)?, warning))
}

fn write_stages(
    tx: &Transaction,
    model: &Model,
    stages: &[(i64, String)],
    moved: &[(i64, String)],
    by: &str,
    comment: Option<&str>,
) -> Outcome<()> {
    let now = clock::now_ms();
    for (version, before) in moved {
        let after = stages.iter().find(|(of, _)| of == version).map_or(STAGES[0], |(_, stage)| stage);
        let fields = [Write::new("current_stage", after), Write::new("last_updated_timestamp", now)];
        tx.index(indexes::MODEL_VERSIONS).set(&model.version_id(*version), fields)?;
        if before != after {
            let what = json!({"version": version.to_string(), "from": before, "to": after, "comment": comment});
            events::of_model(tx, "stage-changed", &model.record, by, what)?;
            let decision = Decision::new(by, "stage").version(*version).from(before).to(after).comment(comment);
            decisions::note(tx, &model.uid, &decision)?;
        }
    }
    let mut fields = latest_fields(stages);
    fields.push(Write::new("last_updated_timestamp", now));
    tx.index(indexes::REGISTERED_MODELS).set(&model.uid, fields)?;
    point_stages(tx, model, stages, None)
}

/// Let each stage's pointer lead to the stage's latest version.
fn point_stages(tx: &Transaction, model: &Model, stages: &[(i64, String)], removed: Option<i64>) -> Outcome<()> {
    if model.record.is_prompt {
        return Ok(());
    }
    let mut created = mirror::Created::default();
    for stage in &STAGES[1..] {
        let latest = stages.iter().filter(|(_, of)| of == stage).map(|(version, _)| *version).max();
        // Removing a version takes its pointers along: removing them again would name one that is gone.
        if latest.is_none() && removed.is_some() {
            continue;
        }
        let pointer = mirror::stage_pointer(stage);
        if mirror::leads_to(&model.record.name, &pointer, latest)? {
            continue;
        }
        if let Some(version) = latest {
            let origin = origin_of(&document(model, version)?.as_ref())?;
            mirror::refresh_version(tx, &model.record.name, version, &origin, &mut created)?;
        }
        mirror::move_pointer(tx, &model.record.name, &pointer, latest)?;
    }
    Ok(())
}

/// `model-versions/delete`
pub fn delete(args: Args, by: &str) -> Outcome<Vec<u8>> {
    let (name, version) = named(&args.checked(BY_VERSION)?)?;
    change(|tx| {
        let model = find(&name).map_err(|_| version_not_found(&name, version))?;
        let stage = document(&model, version)?.as_ref().text("current_stage").unwrap_or(STAGES[0]).to_owned();
        model.guard(tx)?;
        let stages: Vec<_> = model.stages()?.into_iter().filter(|(of, _)| *of != version).collect();
        let of_model = model.document()?;
        let mut fields = latest_fields(&stages);
        fields.push(Write::new("last_updated_timestamp", clock::now_ms()));
        let aliases = super::aliases(&of_model.as_ref());
        for (alias, of) in aliases.iter().filter(|(_, of)| *of == version) {
            fields.push(Write::removed(format!("alias.{alias}")));
            super::tell_of_alias(tx, &model, alias, (Some(*of), None), by, None)?;
        }
        tx.index(indexes::REGISTERED_MODELS).set(&model.uid, fields)?;
        tx.index(indexes::MODEL_VERSIONS).remove(&model.version_id(version))?;
        tx.delete(store::version_key(&model.uid, version))?;
        if !model.record.is_prompt {
            mirror::remove_version(tx, &name, version)?;
            point_stages(tx, &model, &stages, Some(version))?;
        }
        let what = json!({"version": version.to_string(), "stage": stage});
        events::of_model(tx, "version-deleted", &model.record, by, what)?;
        decisions::note(tx, &model.uid, &Decision::new(by, "deleted").version(version))
    })?;
    Ok(b"{}".to_vec())
}

const SEARCH: &[Field] = &[
    optional("filter", Kind::Text),
    optional("max_results", Kind::Integer),
    optional("order_by", Kind::Texts),
    optional("page_token", Kind::Text),
];

/// `model-versions/search`
pub fn search(args: Args) -> Outcome<Vec<u8>> {
    let args = args.checked(SEARCH)?;
    let (search, token) = super::question(&args, Entity::ModelVersion, indexes::MODEL_VERSIONS, (200_000, 200_000))?;
    search.answer("model_versions", token.as_deref(), |out, document| write(out, document, &[]))
}
