//! The registry as other plugins and the host see it: subjects of the directory.
//!
//! A registered model is a subject of kind `model`; its versions carry labels that say where they come from and their
//! files as attachments, so that serving and gates need nothing of this plugin; aliases and stages are pointers, which
//! the host may protect. Always written in the transaction of the change that it mirrors.

use crate::artifacts;
use crate::errors::Outcome;
use mainstay_sdk::Transaction;
use mainstay_sdk::directory::{self, Attachment, Edge, Label, Node};

/// Kind of the subjects.
pub const KIND: &str = "model";
/// Most files of a version that are attached.
const ATTACHMENTS_MAX: u32 = 1_000;
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

/// A dataset's node: name and digest tell datasets apart, either alone does not.
pub fn dataset_node(name: &str, digest: &str) -> Node {
    Node::subject("dataset", format!("{name}@{digest}"))
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
    let Some(run_id) = &origin.run_id else { return Ok(()) };
    let run = run_node(run_id);
    if directory::describe(&run)?.is_none() {
        let commit: Vec<_> = origin.commit.iter().map(|commit| label("source-commit", commit)).collect();
        tx.directory().create(&run, &commit, &[])?;
    }
    tx.directory().connect(&Edge::new(node, "produced-by", run.clone()))?;
    for (dataset, digest) in &origin.datasets {
        tx.directory().connect(&Edge::new(run.clone(), "trained-on", dataset_node(dataset, digest)))?;
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
    out.extend(origin.commit.iter().map(|commit| label("source-commit", commit)));
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

/// An alias or a stage leads elsewhere, or nowhere.
pub fn move_pointer(tx: &Transaction, name: &str, pointer: &str, version: Option<i64>) -> Outcome<()> {
    let known = directory::pointer(KIND, name, pointer)?.map(|known| known.version);
    if known != version.map(number) {
        tx.directory().move_pointer(KIND, name, pointer, version.map(number))?;
    }
    Ok(())
}
