//! `mainstay:host/directory`: what plugins share, between the contract's form and the directory's.
//!
//! The plugin's name is the owner of what it writes. Reads come from the call's view, with which its
//! transactions compare; the limits are the directory's.

use mainstay_bindings::Failure;
use mainstay_bindings::mainstay::host::directory::{Attachment, Description, Edge, Host, Label, Node, Pointer};
use mainstay_bindings::mainstay::host::keys::Transaction as Handle;
use mainstay_directory as directory;
use wasmtime::component::Resource;

use crate::capabilities::{DIRECTORY_READ, DIRECTORY_WRITE};
use crate::state::State;

type Answer<T> = Result<T, Failure>;

impl Host for State {
    fn create(
        &mut self,
        tx: Resource<Handle>,
        node: Node,
        labels: Vec<Label>,
        attachments: Vec<Attachment>,
    ) -> Answer<()> {
        let _host = self.enter(DIRECTORY_WRITE)?;
        let tx = self.transactions.get(&tx)?;
        let (labels, attachments): (Vec<_>, Vec<_>) =
            (labels.into_iter().map(label).collect(), attachments.into_iter().map(attachment).collect());
        let directory = &self.plugin.services.directory;
        Ok(directory.create(tx, &self.plugin.name, &to_node(node), &labels, &attachments)?)
    }

    fn set_labels(&mut self, tx: Resource<Handle>, node: Node, labels: Vec<Label>) -> Answer<()> {
        let _host = self.enter(DIRECTORY_WRITE)?;
        let tx = self.transactions.get(&tx)?;
        let labels: Vec<_> = labels.into_iter().map(label).collect();
        Ok(self.plugin.services.directory.set_labels(tx, &self.plugin.name, &to_node(node), &labels)?)
    }

    fn remove(&mut self, tx: Resource<Handle>, node: Node) -> Answer<()> {
        let _host = self.enter(DIRECTORY_WRITE)?;
        let tx = self.transactions.get(&tx)?;
        Ok(self.plugin.services.directory.remove(tx, &self.plugin.name, &to_node(node))?)
    }

    fn connect(&mut self, tx: Resource<Handle>, edge: Edge) -> Answer<()> {
        let _host = self.enter(DIRECTORY_WRITE)?;
        let tx = self.transactions.get(&tx)?;
        Ok(self.plugin.services.directory.connect(tx, &self.plugin.name, &to_edge(edge))?)
    }

    fn move_pointer(
        &mut self,
        tx: Resource<Handle>,
        kind: String,
        name: String,
        pointer: String,
        version: Option<u64>,
    ) -> Answer<()> {
        let _host = self.enter(DIRECTORY_WRITE)?;
        let tx = self.transactions.get(&tx)?;
        let directory = &self.plugin.services.directory;
        Ok(directory.move_pointer(tx, &self.plugin.name, &kind, &name, &pointer, version)?)
    }

    fn describe(&mut self, node: Node) -> Answer<Option<Description>> {
        let _host = self.enter(DIRECTORY_READ)?;
        let plugin = self.plugin.clone();
        Ok(plugin.services.directory.at(self.view()).describe(&to_node(node))?.map(description))
    }

    fn subjects(&mut self, kind: String, after: Option<String>, limit: u32) -> Answer<Vec<String>> {
        let _host = self.enter(DIRECTORY_READ)?;
        let plugin = self.plugin.clone();
        Ok(plugin.services.directory.at(self.view()).subjects(&kind, after.as_deref(), limit)?)
    }

    fn versions(&mut self, kind: String, name: String) -> Answer<Vec<u64>> {
        let _host = self.enter(DIRECTORY_READ)?;
        let plugin = self.plugin.clone();
        Ok(plugin.services.directory.at(self.view()).versions(&kind, &name)?)
    }

    fn pointers(&mut self, kind: String, name: String) -> Answer<Vec<Pointer>> {
        let _host = self.enter(DIRECTORY_READ)?;
        let plugin = self.plugin.clone();
        let pointers = plugin.services.directory.at(self.view()).pointers(&kind, &name)?;
        Ok(pointers.into_iter().map(pointer).collect())
    }

    fn edges(&mut self, node: Node, outgoing: bool) -> Answer<Vec<Edge>> {
        let _host = self.enter(DIRECTORY_READ)?;
        let plugin = self.plugin.clone();
        let found = plugin.services.directory.at(self.view()).edges(&to_node(node), outgoing)?;
        Ok(found.into_iter().map(|found| from_edge(found.edge)).collect())
    }

    fn missing_evidence(&mut self, kind: String, name: String, pointer: String, version: u64) -> Answer<Vec<String>> {
        let _host = self.enter(DIRECTORY_READ)?;
        let plugin = self.plugin.clone();
        Ok(plugin.services.directory.at(self.view()).missing_evidence(&kind, &name, &pointer, version)?)
    }
}

fn to_node(node: Node) -> directory::Node {
    let Node { kind, name, version } = node;
    directory::Node { kind, name, version }
}

fn from_node(node: directory::Node) -> Node {
    let directory::Node { kind, name, version } = node;
    Node { kind, name, version }
}

fn to_edge(edge: Edge) -> directory::Edge {
    let Edge { source, relation, target } = edge;
    directory::Edge { source: to_node(source), relation, target: to_node(target) }
}

fn from_edge(edge: directory::Edge) -> Edge {
    let directory::Edge { source, relation, target } = edge;
    Edge { source: from_node(source), relation, target: from_node(target) }
}

fn label(label: Label) -> directory::Label {
    let Label { key, value } = label;
    directory::Label { key, value }
}

fn attachment(attachment: Attachment) -> directory::Attachment {
    let Attachment { path, sha256 } = attachment;
    directory::Attachment { path, sha256 }
}

fn pointer(pointer: directory::Pointer) -> Pointer {
    let directory::Pointer { name, version, is_protected, moved_ms } = pointer;
    Pointer { name, version, is_protected, moved_ms }
}

fn description(description: directory::Description) -> Description {
    let directory::Description { node, owner, created_ms, labels, attachments } = description;
    let labels = labels.into_iter().map(|directory::Label { key, value }| Label { key, value }).collect();
    let attachments =
        attachments.into_iter().map(|directory::Attachment { path, sha256 }| Attachment { path, sha256 }).collect();
    Description { node: from_node(node), owner, created_ms, labels, attachments }
}
