//! A model with what stands before and behind it: a graph of transforms and models, addressed by its digest.
//!
//! Owns the document (JSON) that says which models, which transforms in exactly which versions and with which settings, and
//! how batches flow between them; its rules; and its digest. Two documents that mean the same have one digest, and a change
//! of pre-processing alone makes another. Separate from running it: that needs components and the batcher.
//!
//! Invariants, checked by [`Graph::parse`]: a node's inputs stand before it (so there is no cycle); names are unique; every
//! node but the output feeds another one; digests are digests.
//!
//! Bounded by: [`DOCUMENT_BYTES_MAX`], [`NODES_MAX`]. On failure: `invalid` names the node and what to write.

use std::collections::BTreeMap;

use mainstay_base::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Size of a document.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Nodes that one graph may have.
pub const NODES_MAX: usize = 64;
/// Where the rows of a request come from: the name that no node may have.
pub const REQUEST: &str = "request";

/// See the module.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Graph {
    /// Version of the document's form: 1.
    pub format: u32,
    /// The columns that rows have, so that clients can be told; may be left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<GraphInput>,
    /// In an order in which each comes behind its inputs. The last one's answer is the graph's.
    pub nodes: Vec<Node>,
}

/// A column of the rows that a graph is given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphInput {
    /// Its name.
    pub name: String,
    /// What its values are.
    pub kind: InputKind,
}

/// What the values of a column are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InputKind {
    /// Numbers.
    Number,
    /// Whole numbers.
    Integer,
    /// True or false.
    Boolean,
    /// Texts.
    Text,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Node {
    /// 1 to 64 of `a-z0-9-`.
    pub name: String,
    /// Names of earlier nodes, or `request`. With several, their columns are put side by side.
    pub inputs: Vec<String>,
    /// What it does.
    pub step: Step,
}

/// A node as it is written: with one of `model` and `transform`.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    name: String,
    inputs: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model: Option<ModelFile>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transform: Option<Transform>,
}

impl TryFrom<Wire> for Node {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Node, String> {
        let step = match (wire.model, wire.transform) {
            (Some(model), None) => Step::Model(model),
            (None, Some(transform)) => Step::Transform(transform),
            _ => return Err(format!("node `{}` needs one of `model` and `transform`", wire.name.escape_debug())),
        };
        Ok(Node { name: wire.name, inputs: wire.inputs, step })
    }
}

impl From<Node> for Wire {
    fn from(node: Node) -> Wire {
        let (model, transform) = match node.step {
            Step::Model(model) => (Some(model), None),
            Step::Transform(transform) => (None, Some(transform)),
        };
        Wire { name: node.name, inputs: node.inputs, model, transform }
    }
}

/// What a node does.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Applies a model.
    Model(ModelFile),
    /// Hands the batch to a plugin.
    Transform(Transform),
}

/// A model's file, by content.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelFile {
    /// Lowercase hexadecimal SHA-256.
    pub sha256: String,
}

/// A plugin's transform, in exactly this component.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// Name of the plugin.
    pub plugin: String,
    /// Its version, for people.
    pub version: String,
    /// SHA-256 of its component: what decides.
    pub sha256: String,
    /// What the plugin makes of it; checked by the plugin.
    #[serde(default)]
    pub settings: BTreeMap<String, Value>,
}

impl Graph {
    /// A graph out of its document.
    pub fn parse(document: &[u8]) -> Result<Graph> {
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(Error::invalid(format!(
                "a model graph of {} bytes; the most is {DOCUMENT_BYTES_MAX}",
                document.len()
            )));
        }
        let graph: Graph = serde_json::from_slice(document)
            .map_err(|error| Error::invalid(format!("the model graph cannot be read: {error}")))?;
        graph.check()?;
        Ok(graph)
    }

    /// The document in its one form: fields in order of name, no white space.
    pub fn canonical(&self) -> Vec<u8> {
        let value = serde_json::to_value(self).expect("names, numbers and settings are JSON");
        sorted(value).to_string().into_bytes()
    }

    /// SHA-256 of the canonical document, in lowercase hexadecimal.
    pub fn digest(&self) -> String {
        hex::encode(Sha256::digest(self.canonical()))
    }

    /// Digests of the model files that it names.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.nodes.iter().filter_map(|node| match &node.step {
            Step::Model(model) => Some(model.sha256.as_str()),
            Step::Transform(_) => None,
        })
    }

    fn check(&self) -> Result<()> {
        let refuse = |why: String| Err(Error::invalid(format!("the model graph is refused: {why}")));
        if self.format != 1 {
            return refuse(format!("its form has number {}; this host reads 1: update the host", self.format));
        }
        if self.nodes.is_empty() || self.nodes.len() > NODES_MAX {
            return refuse(format!("it has {} nodes; give 1 to {NODES_MAX}", self.nodes.len()));
        }
        for (at, node) in self.nodes.iter().enumerate() {
            if let Err(why) = node.check(&self.nodes[..at]) {
                return refuse(format!("node {} (`{}`) {why}", at + 1, node.name.escape_debug()));
            }
        }
        let before_last = &self.nodes[..self.nodes.len() - 1];
        let feeds = |name: &str| self.nodes.iter().any(|node| node.inputs.iter().any(|input| input == name));
        match before_last.iter().find(|node| !feeds(&node.name)) {
            Some(idle) => refuse(format!("nothing takes what `{}` gives; remove it or name it as an input", idle.name)),
            None => Ok(()),
        }
    }
}

/// The same value with every object's fields in order of name, whatever order its map keeps.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let ordered: BTreeMap<String, Value> =
                fields.into_iter().map(|(name, field)| (name, sorted(field))).collect();
            Value::Object(ordered.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

impl Node {
    fn check(&self, earlier: &[Node]) -> Result<(), String> {
        let is_good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if self.name.is_empty() || self.name.len() > 64 || !self.name.bytes().all(is_good) {
            return Err("needs a name of 1 to 64 of a-z, 0-9 and `-`".into());
        }
        if self.name == REQUEST || earlier.iter().any(|node| node.name == self.name) {
            return Err("needs a name of its own".into());
        }
        if self.inputs.is_empty() {
            return Err(format!("has no input; name an earlier node or `{REQUEST}`"));
        }
        let is_known = |input: &String| input == REQUEST || earlier.iter().any(|node| node.name == *input);
        if let Some(unknown) = self.inputs.iter().find(|input| !is_known(input)) {
            return Err(format!("takes `{}`, which no earlier node is", unknown.escape_debug()));
        }
        let (Step::Model(ModelFile { sha256 }) | Step::Transform(Transform { sha256, .. })) = &self.step;
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        match sha256.len() == 64 && sha256.bytes().all(is_digit) {
            true => Ok(()),
            false => Err("needs a SHA-256 of 64 lowercase hexadecimal digits".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(digit: char) -> String {
        digit.to_string().repeat(64)
    }

    fn document(nodes: &str) -> String {
        format!(r#"{{"format": 1, "nodes": [{nodes}]}}"#)
    }

    fn model(name: &str, input: &str) -> String {
        format!(r#"{{"name": "{name}", "inputs": ["{input}"], "model": {{"sha256": "{}"}}}}"#, digest('a'))
    }

    fn transform(settings: &str) -> String {
        let sha256 = digest('b');
        format!(
            r#"{{"inputs": ["request"], "name": "prepare", "transform":
            {{"plugin": "tabular", "version": "0.1.0", "sha256": "{sha256}", "settings": {settings}}}}}"#
        )
    }

    #[test]
    fn what_means_the_same_has_one_digest() {
        let parse = |text: &str| Graph::parse(text.as_bytes()).unwrap();
        let nodes = |settings: &str| document(&format!("{}, {}", transform(settings), model("score", "prepare")));
        let one = parse(&nodes(r#"{"a": 1, "b": [2, {"c": 1, "d": 2}]}"#));
        let same = parse(&nodes(r#"{ "b" : [2, {"d": 2, "c": 1}], "a": 1 }"#));
        let other = parse(&nodes(r#"{"a": 1, "b": [3]}"#));
        assert_eq!(one.digest(), same.digest());
        assert_ne!(one.digest(), other.digest(), "a change of pre-processing alone");
        assert_eq!(Graph::parse(&one.canonical()).unwrap(), one);
        assert_eq!(one.models().collect::<Vec<_>>(), [digest('a')]);
    }

    #[test]
    fn rules_are_held() {
        fn check(nodes: &str, words: &str) {
            let error = Graph::parse(document(nodes).as_bytes()).unwrap_err();
            assert!(error.message().contains(words), "{error}");
        }
        check("", "has 0 nodes");
        check(&model("score", "later"), "takes `later`");
        check(&model("score", "score"), "takes `score`");
        check(&model("request", "request"), "name of its own");
        check(&model("Score", "request"), "1 to 64 of a-z");
        check(&[model("a", "request"), model("a", "a")].join(","), "name of its own");
        check(&[model("a", "request"), model("b", "request")].join(","), "nothing takes what `a` gives");
        check(&model("a", "request").replace('a', "A"), "cannot be read");
        check(&model("a", "request").replace(&digest('a'), "12"), "SHA-256");
        check(r#"{"name": "a", "inputs": ["request"]}"#, "cannot be read");
        check(r#"{"name": "a", "inputs": [], "model": {"sha256": ""}}"#, "has no input");
        let many: Vec<String> = (0..=NODES_MAX).map(|at| model(&format!("n{at}"), "request")).collect();
        check(&many.join(","), "has 65 nodes");
        let error = Graph::parse(br#"{"format": 2, "nodes": []}"#).unwrap_err();
        assert!(error.message().contains("this host reads 1"), "{error}");
        assert!(Graph::parse(&vec![b' '; DOCUMENT_BYTES_MAX + 1]).is_err());
    }
}
