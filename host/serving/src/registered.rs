//! Registered models: which files a reference names now.
//!
//! Owns the way from a [`Reference`] to a [`Version`] of a subject of the directory, and the choice of the file among its
//! attachments that is the model. Separate from loading it. Whoever registers models writes subjects of the kind `model`, with
//! their files attached, aliases as pointers, and stages as pointers `stage:NAME`.
//!
//! Bounded by the directory. On failure: `not-found` names model, version or alias; `invalid` lists the files of a version that
//! has none that runs here.

use mainstay_base::{Error, ErrorKind, Result};
use mainstay_directory::{Attachment, Description, Directory, Node};
use mainstay_store::Store;
use mainstay_traffic::Reference;

/// Who owns what was imported here.
const OWNER: &str = "host";
/// Kind of the subjects.
pub const KIND: &str = "model";
/// The label that says which run made a version.
const RUN: &str = "run-id";
/// The file of a graph of models and transforms.
const GRAPH_FILE: &str = "graph.json";
/// Files that are models by the ends of their names, the likeliest first.
const MODEL_FILES: [&str; 7] = [".onnx", ".ubj", ".xgb", ".lgb", ".model", ".json", ".txt"];
/// Files named in a message.
const SHOWN_MAX: usize = 8;

/// A version of a registered model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The model's name.
    pub model: String,
    /// Its number.
    pub version: u64,
    /// The run that made it, where that is known.
    pub run: Option<String>,
    /// What runs.
    pub file: File,
}

/// What runs, by content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum File {
    /// A model's file, by its SHA-256.
    Model(String),
    /// A graph's document, by its SHA-256.
    Graph(String),
}

/// Registered models of one host. Cheap to clone.
#[derive(Clone)]
pub struct Registered {
    store: Store,
    directory: Directory,
}

impl Registered {
    /// Those of this directory.
    pub fn new(store: Store, directory: Directory) -> Registered {
        Registered { store, directory }
    }

    /// The number of the version that a reference to a registered model names now.
    pub fn number(&self, reference: &Reference) -> Result<(String, u64)> {
        let view = self.store.view();
        let at = self.directory.at(&view);
        let pointed =
            |model: &String, pointer: String, what: &str, name: &str| match at.resolve(KIND, model, &pointer)? {
                Some(version) => Ok((model.clone(), version)),
                None if at.describe(&Node::subject(KIND, model.as_str()))?.is_none() => Err(no_model(model)),
                None => Err(Error::not_found(format!(
                    "the registered model `{model}` has no {what} `{name}`; set it, or name a version"
                ))),
            };
        match reference {
            Reference::Version { model, version } => Ok((model.clone(), *version)),
            Reference::Alias { model, alias } => pointed(model, alias.clone(), "alias", alias),
            Reference::Stage { model, stage } => pointed(model, format!("stage:{stage}"), "version in stage", stage),
            Reference::Graph { .. } | Reference::Upstream { .. } => {
                Err(Error::internal(format!("`{reference}` names no registered model")))
            }
        }
    }

    /// The newest version of a model.
    pub fn newest(&self, model: &str) -> Result<u64> {
        let view = self.store.view();
        let versions = self.directory.at(&view).versions(KIND, model)?;
        versions.last().copied().ok_or_else(|| no_model(model))
    }

    /// Make the next version of a model of these files; the model, too, where there is none. `denied` where somebody else
    /// registers versions of it.
    pub async fn create(&self, model: &str, files: &[Attachment]) -> Result<u64> {
        loop {
            let view = self.store.view();
            let mut tx = self.store.begin(&view);
            let version = match self.newest(model) {
                Ok(newest) => newest + 1,
                Err(error) if error.kind() == ErrorKind::NotFound => 1,
                Err(error) => return Err(error),
            };
            let subject = Node::subject(KIND, model);
            match self.directory.at(&view).describe(&subject)? {
                None => self.directory.create(&mut tx, OWNER, &subject, &[], &[])?,
                Some(known) if known.owner != OWNER => {
                    return Err(Error::denied(format!(
                        "versions of the registered model `{model}` are made by `{}`; register this one there, or import it \
                         under another name",
                        known.owner
                    )));
                }
                Some(_) => {}
            }
            self.directory.create(&mut tx, OWNER, &Node::version(KIND, model, version), &[], files)?;
            match self.store.commit(tx).await {
                Ok(_) => return Ok(version),
                // Somebody else was quicker: theirs is the number.
                Err(error) if error.kind() == ErrorKind::Conflict => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// What a version is made of.
    pub fn version(&self, model: &str, version: u64) -> Result<Version> {
        let view = self.store.view();
        let at = self.directory.at(&view);
        match at.describe(&Node::version(KIND, model, version))? {
            Some(found) => Ok(Version {
                model: model.to_owned(),
                version,
                run: run(&found),
                file: choose(model, version, &found.attachments)?,
            }),
            None if at.describe(&Node::subject(KIND, model))?.is_none() => Err(no_model(model)),
            None => Err(Error::not_found(format!("the registered model `{model}` has no version {version}"))),
        }
    }
}

fn no_model(model: &str) -> Error {
    Error::not_found(format!(
        "there is no registered model `{model}`; register it with a client, or with `mainstay model import {model} FILE`"
    ))
}

fn run(found: &Description) -> Option<String> {
    found.labels.iter().find(|label| label.key == RUN).map(|label| label.value.clone())
}

/// The attached file that is the model: the graph where there is one, else by the end of its name, and among those one that
/// is called `model`.
pub(crate) fn choose(model: &str, version: u64, attachments: &[Attachment]) -> Result<File> {
    let name = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
    let of = |test: &dyn Fn(&str) -> bool| attachments.iter().find(|file| test(&name(&file.path)));
    if let Some(graph) = of(&|name| name == GRAPH_FILE) {
        return Ok(File::Graph(graph.sha256.clone()));
    }
    let named = MODEL_FILES.iter().find_map(|end| of(&|name| name.strip_suffix(end) == Some("model")));
    // Files of other uses end so, too: only what is called a model may be JSON or text.
    let chosen = named.or_else(|| MODEL_FILES[..5].iter().find_map(|end| of(&|name| name.ends_with(end))));
    chosen.map(|file| File::Model(file.sha256.clone())).ok_or_else(|| {
        let mut shown: Vec<&str> = attachments.iter().map(|file| file.path.as_str()).take(SHOWN_MAX).collect();
        if attachments.len() > SHOWN_MAX {
            shown.push("…");
        }
        Error::invalid(format!(
            "{} `{model}` has no file that runs here (ONNX, XGBoost, LightGBM, or a \
             graph): it has {}; log the model with one of those flavors, or export it to ONNX",
            if version == 0 { "the model".to_owned() } else { format!("version {version} of the registered model") },
            if shown.is_empty() { "no files".to_owned() } else { shown.join(", ") }
        ))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mainstay_base::SystemClock;
    use mainstay_store::blobs::{BlobBackend, Blobs};

    use super::*;

    #[test]
    fn the_file_that_runs_is_chosen_by_its_name() {
        fn check(paths: &[&str], expect: Result<&str, &str>) {
            let attachments: Vec<Attachment> =
                paths.iter().map(|path| Attachment { path: (*path).into(), sha256: (*path).into() }).collect();
            match (choose("churn", 3, &attachments), expect) {
                (Ok(File::Model(path)), Ok(wanted)) => assert_eq!(path, wanted, "{paths:?}"),
                (Ok(File::Graph(path)), Ok(wanted)) => assert_eq!(format!("graph {path}"), wanted, "{paths:?}"),
                (Err(error), Err(words)) => assert!(error.message().contains(words), "{error}"),
                (found, _) => panic!("{paths:?}: {found:?}, expected {expect:?}"),
            }
        }
        check(&["MLmodel", "conda.yaml", "model.onnx"], Ok("model.onnx"));
        check(&["sub/model.ubj", "input_example.json"], Ok("sub/model.ubj"));
        check(&["model.json", "input_example.json"], Ok("model.json"));
        check(&["forest.onnx"], Ok("forest.onnx"));
        check(&["graph.json", "model.onnx"], Ok("graph graph.json"));
        check(&["model.pkl", "requirements.txt"], Err("it has model.pkl, requirements.txt"));
        check(&["notes.txt", "serving_input_example.json"], Err("no file that runs here"));
        check(&[], Err("it has no files"));
    }

    #[test]
    fn versions_are_counted_and_aliases_found() {
        let store = Store::in_memory();
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(SystemClock::default());
        let backend = BlobBackend::Local { folder: folder.path().to_owned() };
        let blobs = Blobs::open(store.clone(), backend, clock.clone(), std::time::Duration::from_secs(60)).unwrap();
        let directory = Directory::new(store.clone(), Vec::new(), clock).unwrap();
        let registered = Registered::new(store.clone(), directory.clone());
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let sha256 = blobs.put_bytes("a model".into()).await.unwrap().sha256;
            let files = [Attachment { path: "model.onnx".into(), sha256: sha256.clone() }];
            let number = |text: &str| registered.number(&text.parse().unwrap());
            assert!(number("models:/churn@live").unwrap_err().message().contains("no registered model `churn`"));
            assert_eq!(registered.create("churn", &files).await.unwrap(), 1);
            assert_eq!(registered.create("churn", &files).await.unwrap(), 2);
            assert_eq!(registered.newest("churn").unwrap(), 2);
            assert!(number("models:/churn@live").unwrap_err().message().contains("no alias `live`"));
            let mut tx = store.begin(&store.view());
            directory.move_pointer(&mut tx, OWNER, KIND, "churn", "live", Some(1)).unwrap();
            store.commit(tx).await.unwrap();
            assert_eq!(number("models:/churn@live").unwrap(), ("churn".into(), 1));
            let version = registered.version("churn", 1).unwrap();
            assert_eq!((version.run, version.file), (None, File::Model(sha256)));
            assert!(registered.version("churn", 9).unwrap_err().message().contains("has no version 9"));
            // Who registers versions of a model is the only one who does.
            let mut tx = store.begin(&store.view());
            directory.create(&mut tx, "tracking", &Node::subject(KIND, "theirs"), &[], &[]).unwrap();
            store.commit(tx).await.unwrap();
            let refused = registered.create("theirs", &files).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Denied);
            assert!(refused.message().contains("made by `tracking`"), "{refused}");
        });
    }
}
