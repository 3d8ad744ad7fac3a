//! The registry as other plugins and the host see it: subjects of the directory.
//!
//! A registered model is a subject of kind `model`; its versions carry labels that say where they come from and their
//! files as attachments, so that serving and gates need nothing of this plugin; aliases and stages are pointers, which
//! the host may protect. Always written in the transaction of the change that it mirrors.

use crate::artifacts;
use crate::errors::Outcome;
use mainstay_sdk::Transaction;
use mainstay_sdk::directory::{self, Attachment, Description, Edge, Label, Node};
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;

/// Kind of the subjects.
pub const KIND: &str = "model";
/// Most files of a version that are attached.
const ATTACHMENTS_MAX: u32 = 1_000;
/// The label of a run, and of the versions that come from it, that says which commit of the code it was.
const COMMIT: &str = "source-commit";
/// Labels that are kept up to date with what is known.
const ORIGIN_LABELS: &[&str] = &["storage", "run-id", COMMIT, "logged-model", "data-digest"];
/// Longest name of a subject, in bytes.
const NODE_NAME_BYTES_MAX: usize = 512;
/// Longest label value, in bytes.
const LABEL_BYTES_MAX: usize = 8_192;

/// The pointer of a stage. An alias cannot hold a colon, so they never meet.
pub fn stage_pointer(stage: &str) -> String {
    format!("stage:{stage}")
}

fn number(version: i64) -> u64 {
    version.max(0).unsigned_abs()
}

/// A version's node.
pub fn node(name: &str, version: i64) -> Node {
    Node::version(KIND, name, number(version))
}

/// A run's node.
pub fn run_node(run_id: &str) -> Node {
    Node::subject("run", run_id)
}

/// A dataset's node: name and digest tell datasets apart, either alone does not. Where they do not fit the name of a
/// subject, a digest of them stands in their place.
pub fn dataset_node(name: &str, digest: &str) -> Node {
    let whole = format!("{name}@{digest}");
    if whole.len() <= NODE_NAME_BYTES_MAX && !whole.contains('\0') {
        return Node::subject("dataset", whole);
    }
    let hash = Sha256::digest(&whole);
    Node::subject("dataset", hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}

/// A model was created.
pub fn create_model(tx: &Transaction, name: &str) -> Outcome<()> {
    let subject = Node::subject(KIND, name);
    if directory::describe(&subject)?.is_none() {
        tx.directory().create(&subject, &[], &[])?;
    }
    Ok(())
}

/// A model was removed.
pub fn remove_model(tx: &Transaction, name: &str) -> Outcome<()> {
    let subject = Node::subject(KIND, name);
    if directory::describe(&subject)?.is_some() {
        tx.directory().remove(&subject)?;
    }
    Ok(())
}

/// A model got another name: the directory has no renaming, so everything is written again under the new one.
pub fn rename_model(tx: &Transaction, old: &str, new: &str) -> Outcome<()> {
    let Some(subject) = directory::describe(&Node::subject(KIND, old))? else { return create_model(tx, new) };
    tx.directory().create(&Node::subject(KIND, new), &subject.labels, &subject.attachments)?;
    for version in directory::versions(KIND, old)? {
        let from = Node::version(KIND, old, version);
        let to = Node::version(KIND, new, version);
        if let Some(known) = directory::describe(&from)? {
            tx.directory().create(&to, &known.labels, &known.attachments)?;
        }
        for edge in directory::edges_from(&from)? {
            tx.directory().connect(&Edge::new(to.clone(), edge.relation, edge.target))?;
        }
    }
    for pointer in directory::pointers(KIND, old)? {
        tx.directory().move_pointer(KIND, new, &pointer.name, Some(pointer.version))?;
    }
    Ok(tx.directory().remove(&Node::subject(KIND, old))?)
}

/// What is known about a version's origin when it is registered.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Its run.
    pub run_id: Option<String>,
    /// The run's commit.
    pub commit: Option<String>,
    /// The logged model.
    pub model_id: Option<String>,
    /// Name and digest of the datasets of its run.
    pub datasets: Vec<(String, String)>,
    /// Where its files are.
    pub storage: String,
}

/// A version was registered.
pub fn create_version(tx: &Transaction, name: &str, version: i64, origin: &Origin) -> Outcome<()> {
    create_model(tx, name)?;
    let attachments: Vec<_> = artifacts::files_below(&origin.storage, ATTACHMENTS_MAX)?
        .into_iter()
        .map(|(path, sha256)| Attachment { path, sha256 })
        .collect();
    let node = node(name, version);
    tx.directory().create(&node, &labels(origin), &attachments)?;
    link_run(tx, &node, origin, &mut Created::default())
}

/// Subjects that a transaction creates: reads do not show them yet, and creating them again would be a conflict.
pub type Created = BTreeSet<Node>;

/// Bring what a version and its run say of their origin up to date. What a run was tagged with or is known to have used
/// since the version was registered counts as evidence too: a version is refreshed before a pointer moves to it.
pub fn refresh_version(
    tx: &Transaction,
    name: &str,
    version: i64,
    origin: &Origin,
    created: &mut Created,
) -> Outcome<()> {
    let node = node(name, version);
    let Some(known) = directory::describe(&node)? else { return Ok(()) };
    relabel(tx, &known, &labels(origin))?;
    link_run(tx, &node, origin, created)
}

/// Whether a subject belongs to this plugin, as the model does; what another one created is that one's to describe.
fn is_ours(known: &Description, model: &str) -> Outcome<bool> {
    let model = directory::describe(&Node::subject(KIND, model))?;
    Ok(model.is_none_or(|model| model.owner == known.owner))
}

/// Let the labels that say where something comes from be these; others stay.
fn relabel(tx: &Transaction, known: &Description, wanted: &[Label]) -> Outcome<()> {
    let gone = ORIGIN_LABELS
        .iter()
        .filter(|key| known.label(key).is_some() && wanted.iter().all(|label| label.key != **key))
        .map(|key| Label::new(*key, ""));
    let changed = wanted.iter().filter(|label| known.label(&label.key) != Some(&label.value)).cloned();
    let labels: Vec<_> = changed.chain(gone).collect();
    if labels.is_empty() {
        return Ok(());
    }
    Ok(tx.directory().set_labels(&known.node, &labels)?)
}

/// The chain from a version to its run and on to the data that the run used. Its members are subjects of the directory,
/// because evidence counts only where both ends of each link are there.
fn link_run(tx: &Transaction, version: &Node, origin: &Origin, created: &mut Created) -> Outcome<()> {
    let Some(run_id) = &origin.run_id else { return Ok(()) };
    let run = run_node(run_id);
    let commit: Vec<_> = origin.commit.iter().map(|commit| label(COMMIT, commit)).collect();
    match directory::describe(&run)? {
        Some(known) if is_ours(&known, &version.name)? => relabel(tx, &known, &commit)?,
        Some(_) => {}
        None if created.insert(run.clone()) => tx.directory().create(&run, &commit, &[])?,
        None => {}
    }
    tx.directory().connect(&Edge::new(version.clone(), "produced-by", run.clone()))?;
    for (dataset, digest) in &origin.datasets {
        let data = dataset_node(dataset, digest);
        if directory::describe(&data)?.is_none() && created.insert(data.clone()) {
            let labels = [label("name", dataset), label("digest", digest)];
            let labels: Vec<_> = labels.into_iter().filter(|label| !label.value.is_empty()).collect();
            tx.directory().create(&data, &labels, &[])?;
        }
        tx.directory().connect(&Edge::new(run.clone(), "trained-on", data))?;
    }
    Ok(())
}

fn label(key: &str, value: &str) -> Label {
    let mut end = value.len().min(LABEL_BYTES_MAX);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    Label::new(key, &value[..end])
}

fn labels(origin: &Origin) -> Vec<Label> {
    let mut out = vec![label("storage", &origin.storage)];
    out.extend(origin.run_id.iter().map(|run| label("run-id", run)));
    out.extend(origin.commit.iter().map(|commit| label(COMMIT, commit)));
    out.extend(origin.model_id.iter().map(|id| label("logged-model", id)));
    if !origin.datasets.is_empty() {
        let digests: Vec<_> = origin.datasets.iter().map(|(name, digest)| format!("{name}@{digest}")).collect();
        out.push(label("data-digest", &digests.join(" ")));
    }
    out.retain(|label| !label.value.is_empty());
    out
}

/// A version was removed, and its pointers with it.
pub fn remove_version(tx: &Transaction, name: &str, version: i64) -> Outcome<()> {
    let node = node(name, version);
    if directory::describe(&node)?.is_some() {
        tx.directory().remove(&node)?;
    }
    Ok(())
}

/// Whether a pointer leads there already.
pub fn leads_to(name: &str, pointer: &str, version: Option<i64>) -> Outcome<bool> {
    let known = directory::pointer(KIND, name, pointer)?.map(|known| known.version);
    Ok(known == version.map(number))
}

/// An alias or a stage leads elsewhere, or nowhere.
pub fn move_pointer(tx: &Transaction, name: &str, pointer: &str, version: Option<i64>) -> Outcome<()> {
    if !leads_to(name, pointer, version)? {
        tx.directory().move_pointer(KIND, name, pointer, version.map(number))?;
    }
    Ok(())
}
