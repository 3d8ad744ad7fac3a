//! The functions of [`sys`](super) in a component: over the bindings generated from the WIT.
//!
//! On other targets than wasm this compiles, so that `cargo check` works on any machine, but every call ends in a panic of
//! the bindings: native tests need the feature `testing`.

use crate::blobs::{BlobInfo, Entry, Listing};
use crate::directory::{Attachment, Description, Edge, Label, Node, Pointer};
use crate::fallback::{Fallback, Learner};
use crate::http::{Body, Caller, Kind as ReplyKind, Reply};
use crate::index::{Comparison, Field, FilterNode, Order, Query, Selection};
use crate::keys::{KeyRange, Page, ScanOptions};
use crate::log::Level;
use crate::metric::Kind;
use crate::transaction::Receipt;
use crate::transform::{Batch, Transform};
use crate::worker::Worker;
use crate::{Api, Error, ErrorKind, Result, Value};

mod columns;
mod inference;
mod outbound;
mod stats;
mod tables;
mod work;

pub use columns::{Column, Frame};
pub use inference::{Ask, assign, endpoints, find_endpoint, infer};
pub use outbound::send;
pub use stats::*;
pub use tables::{create_table, describe_table, join_as_of, table_window};
pub use work::{Attempt, Event, find_run};

use super::bindings;
use super::bindings::mainstay::api::http as wit_http;
use super::bindings::mainstay::host::{
    blobs, clock, config, directory, events, index, jobs, keys, observe, outbound as wit_outbound, random,
};
use super::bindings::mainstay::types::values;

pub use bindings::api::exports::mainstay::api::handler::Guest as HandlerGuest;
pub use bindings::exports::mainstay::lifecycle::lifecycle::Guest as LifecycleGuest;
pub use bindings::fallback::exports::mainstay::fallback::answers::Guest as FallbackGuest;
pub use bindings::learns::exports::mainstay::fallback::learns::Guest as LearnerGuest;
pub use bindings::mainstay::api::http::{Reply as WitReply, Request as WitRequest};
pub use bindings::mainstay::fallback::asks::{Ask as WitAsk, Lesson as WitLesson, Reply as WitStandIn};
pub use bindings::mainstay::host::blobs::BlobInfo as WitBlobInfo;
pub use bindings::mainstay::numeric::arrays::Frame as WitFrame;
pub use bindings::mainstay::transform::batches::Batch as WitBatch;
pub use bindings::mainstay::types::errors::Error as WitError;
pub use bindings::mainstay::worker::work::{Attempt as WitAttempt, Event as WitEvent, Timer as WitTimer};
pub use bindings::transform::exports::mainstay::transform::transformer::Guest as TransformerGuest;
pub use bindings::worker::exports::mainstay::worker::duties::Guest as WorkerGuest;

impl From<WitError> for Error {
    fn from(error: WitError) -> Error {
        let (kind, message) = match error {
            WitError::NotFound(message) => (ErrorKind::NotFound, message),
            WitError::Invalid(message) => (ErrorKind::Invalid, message),
            WitError::Denied(message) => (ErrorKind::Denied, message),
            WitError::Conflict(message) => (ErrorKind::Conflict, message),
            WitError::Exhausted(message) => (ErrorKind::Exhausted, message),
            WitError::Unavailable(message) => (ErrorKind::Unavailable, message),
            WitError::Internal(message) => (ErrorKind::Internal, message),
            WitError::Other(message) => (ErrorKind::Other, message),
        };
        Error::new(kind, message)
    }
}

fn to_wit(error: Error) -> WitError {
    let message = error.message().to_owned();
    match error.kind() {
        ErrorKind::NotFound => WitError::NotFound(message),
        ErrorKind::Invalid => WitError::Invalid(message),
        ErrorKind::Denied => WitError::Denied(message),
        ErrorKind::Conflict => WitError::Conflict(message),
        ErrorKind::Exhausted => WitError::Exhausted(message),
        ErrorKind::Unavailable => WitError::Unavailable(message),
        ErrorKind::Internal => WitError::Internal(message),
        ErrorKind::Other => WitError::Other(message),
    }
}

// ---- keys ----

pub fn keys_get(key: &[u8]) -> Result<Option<Vec<u8>>> {
    Ok(keys::get(key)?)
}

pub fn keys_get_many(asked: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>> {
    Ok(keys::get_many(&asked)?)
}

pub fn keys_scan(ranges: &[KeyRange], options: &ScanOptions) -> Result<Page> {
    let ranges: Vec<keys::KeyRange> = ranges.iter().map(key_range).collect();
    let options = keys::ScanOptions {
        reverse: options.reverse,
        keys_only: options.keys_only,
        limit: options.limit,
        after: options.after.clone(),
    };
    let keys::Page { entries, count, next } = keys::scan(&ranges, &options)?;
    Ok(Page { entries, count, next })
}

pub fn keys_renew() -> Result<()> {
    Ok(keys::renew()?)
}

fn key_range(range: &KeyRange) -> keys::KeyRange {
    keys::KeyRange { start: range.start.clone(), end: range.end.clone() }
}

// ---- transactions ----

#[derive(Debug)]
pub struct Transaction(keys::Transaction);

pub fn begin() -> Result<Transaction> {
    Ok(Transaction(keys::begin()?))
}

impl Transaction {
    pub fn expect_absent(&self, key: &[u8]) -> Result<()> {
        Ok(self.0.expect_absent(key)?)
    }

    pub fn expect_present(&self, key: &[u8]) -> Result<()> {
        Ok(self.0.expect_present(key)?)
    }

    pub fn expect_value(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.0.expect_value(key, value)?)
    }

    pub fn expect_unchanged(&self, key: &[u8]) -> Result<()> {
        Ok(self.0.expect_unchanged(key)?)
    }

    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.0.put(key, value)?)
    }

    pub fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.0.delete(key)?)
    }

    pub fn delete_range(&self, range: &KeyRange) -> Result<()> {
        Ok(self.0.delete_range(&key_range(range))?)
    }

    pub fn append(&self, key: &[u8], fragment: &[u8]) -> Result<()> {
        Ok(self.0.append(key, fragment)?)
    }

    pub fn add(&self, key: &[u8], amount: i64) -> Result<()> {
        Ok(self.0.add(key, amount)?)
    }

    pub fn set_fields(&self, index: &str, document: &str, fields: Vec<Field>) -> Result<()> {
        let fields: Vec<index::Field> = fields.into_iter().map(index_field).collect();
        Ok(index::set_fields(&self.0, index, document, &fields)?)
    }

    pub fn remove_document(&self, index: &str, document: &str) -> Result<()> {
        Ok(index::remove_document(&self.0, index, document)?)
    }

    pub fn link(&self, name: &str, sha256: &str) -> Result<()> {
        Ok(blobs::link(&self.0, name, sha256)?)
    }

    pub fn unlink(&self, name: &str) -> Result<()> {
        Ok(blobs::unlink(&self.0, name)?)
    }

    pub fn create(&self, node: &Node, labels: &[Label], attachments: &[Attachment]) -> Result<()> {
        let attachments: Vec<directory::Attachment> = attachments
            .iter()
            .map(|each| directory::Attachment { path: each.path.clone(), sha256: each.sha256.clone() })
            .collect();
        Ok(directory::create(&self.0, &wit_node(node), &wit_labels(labels), &attachments)?)
    }

    pub fn set_labels(&self, node: &Node, labels: &[Label]) -> Result<()> {
        Ok(directory::set_labels(&self.0, &wit_node(node), &wit_labels(labels))?)
    }

    pub fn remove(&self, node: &Node) -> Result<()> {
        Ok(directory::remove(&self.0, &wit_node(node))?)
    }

    pub fn connect(&self, edge: &Edge) -> Result<()> {
        let edge = directory::Edge {
            source: wit_node(&edge.source),
            relation: edge.relation.clone(),
            target: wit_node(&edge.target),
        };
        Ok(directory::connect(&self.0, &edge)?)
    }

    pub fn move_pointer(&self, kind: &str, name: &str, pointer: &str, version: Option<u64>) -> Result<()> {
        Ok(directory::move_pointer(&self.0, kind, name, pointer, version)?)
    }

    pub fn publish(&self, topic: &str, kind: &str, key: Option<&str>, payload: &[u8]) -> Result<()> {
        Ok(events::publish(&self.0, topic, kind, key, payload)?)
    }

    pub fn start_job(&self, job: &str, parameters: &str) -> Result<String> {
        Ok(jobs::start(&self.0, job, parameters)?)
    }

    pub fn deliver(&self, call: &crate::outbound::Call) -> Result<String> {
        Ok(wit_outbound::deliver(&self.0, outbound::wit_call(call)?)?)
    }

    pub fn put_secret(&self, name: &str, value: &[u8]) -> Result<()> {
        Ok(wit_outbound::put_secret(&self.0, name, value)?)
    }

    pub fn remove_secret(&self, name: &str) -> Result<()> {
        Ok(wit_outbound::remove_secret(&self.0, name)?)
    }

    pub fn commit(self) -> Result<Receipt> {
        let keys::Receipt { sequence, counters } = keys::Transaction::commit(self.0)?;
        Ok(Receipt { sequence, counters })
    }
}

// ---- index ----

pub fn index_select(name: &str, query: Query) -> Result<Selection> {
    let query = index::Query {
        filter: query.filter.into_nodes().into_iter().map(filter_node).collect(),
        order: query
            .order
            .into_iter()
            .map(|(field, order)| index::OrderKey { field, descending: order == Order::Descending })
            .collect(),
        after: query.after,
        limit: query.limit.unwrap_or(Query::LIMIT_DEFAULT),
        fields: query.fields,
    };
    let index::Selection { documents, count, matched, next } = index::select(name, &query)?;
    Ok(Selection { documents, count, matched, next })
}

pub fn index_document(name: &str, document: &str) -> Result<Option<Vec<u8>>> {
    Ok(index::document(name, document)?)
}

fn index_field(field: Field) -> index::Field {
    index::Field { name: field.name, value: field.value.map(wit_value), rank: field.rank }
}

fn wit_value(value: Value) -> values::Value {
    match value {
        Value::Text(text) => values::Value::Text(text),
        Value::Integer(number) => values::Value::Integer(number),
        Value::Real(number) => values::Value::Real(number),
        Value::Boolean(truth) => values::Value::Boolean(truth),
        Value::Texts(texts) => values::Value::Texts(texts),
        Value::Bytes(bytes) => values::Value::Bytes(bytes),
    }
}

fn filter_node(node: FilterNode) -> index::FilterNode {
    match node {
        FilterNode::Term { field, comparison, operand } => index::FilterNode::Term(index::Term {
            field,
            comparison: wit_comparison(comparison),
            operand: wit_value(operand),
        }),
        FilterNode::OneOf(field, values) => {
            index::FilterNode::OneOf((field, values.into_iter().map(wit_value).collect()))
        }
        FilterNode::All(count) => index::FilterNode::All(count),
        FilterNode::Any(count) => index::FilterNode::Any(count),
        FilterNode::Negate => index::FilterNode::Negate,
    }
}

fn wit_comparison(comparison: Comparison) -> index::Comparison {
    match comparison {
        Comparison::Equal => index::Comparison::Equal,
        Comparison::NotEqual => index::Comparison::NotEqual,
        Comparison::Less => index::Comparison::Less,
        Comparison::LessOrEqual => index::Comparison::LessOrEqual,
        Comparison::Greater => index::Comparison::Greater,
        Comparison::GreaterOrEqual => index::Comparison::GreaterOrEqual,
        Comparison::Like => index::Comparison::Like,
        Comparison::Ilike => index::Comparison::Ilike,
        Comparison::Exists => index::Comparison::Exists,
    }
}

// ---- blobs ----

pub fn blobs_put(bytes: &[u8]) -> Result<BlobInfo> {
    Ok(blob_info(blobs::put(bytes)?))
}

pub fn blobs_read(sha256: &str, offset: u64, length: u32) -> Result<Vec<u8>> {
    Ok(blobs::read(sha256, offset, length)?)
}

pub fn blobs_stat(sha256: &str) -> Result<Option<BlobInfo>> {
    Ok(blobs::stat(sha256)?.map(blob_info))
}

pub fn blobs_lookup(name: &str) -> Result<Option<BlobInfo>> {
    Ok(blobs::lookup(name)?.map(blob_info))
}

pub fn blobs_names(prefix: &str, delimiter: Option<&str>, after: Option<&str>, limit: u32) -> Result<Listing> {
    let blobs::Listing { entries, next } = blobs::names(prefix, delimiter, after, limit)?;
    let entries = entries
        .into_iter()
        .map(|entry| match entry {
            blobs::Entry::Name((name, info)) => Entry::Name(name, blob_info(info)),
            blobs::Entry::Prefix(prefix) => Entry::Prefix(prefix),
        })
        .collect();
    Ok(Listing { entries, next })
}

fn blob_info(info: blobs::BlobInfo) -> BlobInfo {
    BlobInfo { sha256: info.sha256, md5: info.md5, size_bytes: info.size_bytes }
}

// ---- directory ----

pub fn directory_describe(node: &Node) -> Result<Option<Description>> {
    Ok(directory::describe(&wit_node(node))?.map(|found| Description {
        node: plain_node(found.node),
        owner: found.owner,
        created_ms: found.created_ms,
        labels: found.labels.into_iter().map(|label| Label { key: label.key, value: label.value }).collect(),
        attachments: found
            .attachments
            .into_iter()
            .map(|each| Attachment { path: each.path, sha256: each.sha256 })
            .collect(),
    }))
}

pub fn directory_subjects(kind: &str, after: Option<&str>, limit: u32) -> Result<Vec<String>> {
    Ok(directory::subjects(kind, after, limit)?)
}

pub fn directory_versions(kind: &str, name: &str) -> Result<Vec<u64>> {
    Ok(directory::versions(kind, name)?)
}

pub fn directory_pointers(kind: &str, name: &str) -> Result<Vec<Pointer>> {
    let pointers = directory::pointers(kind, name)?;
    Ok(pointers
        .into_iter()
        .map(|each| Pointer {
            name: each.name,
            version: each.version,
            is_protected: each.is_protected,
            moved_ms: each.moved_ms,
        })
        .collect())
}

pub fn directory_edges(node: &Node, outgoing: bool) -> Result<Vec<Edge>> {
    let edges = directory::edges(&wit_node(node), outgoing)?;
    Ok(edges
        .into_iter()
        .map(|edge| Edge { source: plain_node(edge.source), relation: edge.relation, target: plain_node(edge.target) })
        .collect())
}

pub fn directory_missing_evidence(kind: &str, name: &str, pointer: &str, version: u64) -> Result<Vec<String>> {
    Ok(directory::missing_evidence(kind, name, pointer, version)?)
}

fn wit_node(node: &Node) -> directory::Node {
    directory::Node { kind: node.kind.clone(), name: node.name.clone(), version: node.version }
}

fn plain_node(node: directory::Node) -> Node {
    Node { kind: node.kind, name: node.name, version: node.version }
}

fn wit_labels(labels: &[Label]) -> Vec<directory::Label> {
    labels.iter().map(|label| directory::Label { key: label.key.clone(), value: label.value.clone() }).collect()
}

// ---- config, observe, clock, random ----

pub fn config_text() -> String {
    config::get()
}

pub fn log(level: Level, message: &str, fields: Vec<(String, String)>) {
    let level = match level {
        Level::Debug => observe::Level::Debug,
        Level::Info => observe::Level::Info,
        Level::Warn => observe::Level::Warn,
        Level::Error => observe::Level::Error,
    };
    observe::log(level, message, &fields);
}

pub fn metric(kind: Kind, name: &str, value: f64, labels: &[(&str, &str)]) {
    let kind = match kind {
        Kind::Counter => observe::Kind::Counter,
        Kind::Gauge => observe::Kind::Gauge,
        Kind::Histogram => observe::Kind::Histogram,
    };
    let labels: Vec<(String, String)> =
        labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    observe::metric(kind, name, value, &labels);
}

pub fn span_attribute(key: &str, value: &str) {
    observe::span_attribute(key, value);
}

pub fn now_ms() -> i64 {
    clock::now_ms()
}

pub fn monotonic_ns() -> u64 {
    clock::monotonic_ns()
}

pub fn random_bytes(length: u32) -> Vec<u8> {
    random::bytes(length)
}

pub fn random_number() -> u64 {
    random::number()
}

// ---- http ----

#[derive(Debug)]
pub struct Request(WitRequest);

impl Request {
    pub fn method(&self) -> String {
        self.0.method()
    }

    pub fn path(&self) -> String {
        self.0.path()
    }

    pub fn query(&self) -> Vec<(String, String)> {
        self.0.query()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.0.header(name)
    }

    pub fn body(&self) -> Body {
        match self.0.body() {
            wit_http::Body::Empty => Body::Empty,
            wit_http::Body::Bytes(bytes) => Body::Bytes(bytes),
            wit_http::Body::Waiting(length) => Body::Waiting(length),
        }
    }

    pub fn caller(&self) -> Caller {
        let wit_http::Caller { principal, rights, tenant } = self.0.caller();
        Caller { principal, rights, tenant }
    }

    pub fn base_url(&self) -> String {
        self.0.base_url()
    }
}

/// Hand the reply over to the host.
fn into_wit(reply: Reply) -> Result<WitReply, WitError> {
    let answer = match &reply.kind {
        ReplyKind::Respond { status } => WitReply::respond(*status)?,
        ReplyKind::Receive { limit_bytes, sha256 } => WitReply::receive(*limit_bytes, sha256.as_deref())?,
        ReplyKind::Send { sha256 } => WitReply::send(sha256)?,
    };
    for (name, value) in &reply.headers {
        answer.header(name, value)?;
    }
    if !reply.body.is_empty() {
        answer.write(&reply.body)?;
    }
    Ok(answer)
}

// ---- exports ----

/// A panic ends the call as a trap; say first where it was.
fn report_panics() {
    std::panic::set_hook(Box::new(|panic| log(Level::Error, &panic.to_string(), Vec::new())));
}

pub fn start<P: Api>(previous: Option<String>) -> Result<(), WitError> {
    report_panics();
    P::start(previous.as_deref()).map_err(to_wit)
}

pub fn handle<P: Api>(request: WitRequest) -> Result<WitReply, WitError> {
    report_panics();
    let request = crate::http::Request::from_source(Request(request));
    P::handle(&request).map_err(to_wit).and_then(into_wit)
}

pub fn received<P: Api>(request: WitRequest, blob: WitBlobInfo) -> Result<WitReply, WitError> {
    report_panics();
    let request = crate::http::Request::from_source(Request(request));
    P::received(&request, blob_info(blob)).map_err(to_wit).and_then(into_wit)
}

pub fn start_transform<P: Transform>(previous: Option<String>) -> Result<(), WitError> {
    report_panics();
    P::start(previous.as_deref()).map_err(to_wit)
}

pub fn check_settings<P: Transform>(settings: &str) -> Result<(), WitError> {
    report_panics();
    P::check(settings).map_err(to_wit)
}

pub fn transform<P: Transform>(batch: WitBatch) -> Result<WitFrame, WitError> {
    report_panics();
    let frame = crate::columns::Frame(Frame(batch.frame()));
    let batch = Batch { frame, node: batch.node(), settings: batch.settings() };
    P::transform(&batch).map(|frame| frame.0.0).map_err(to_wit)
}

pub fn start_worker<P: Worker>(previous: Option<String>) -> Result<(), WitError> {
    report_panics();
    P::start(previous.as_deref()).map_err(to_wit)
}

pub fn on_event<P: Worker>(event: WitEvent) -> Result<(), WitError> {
    report_panics();
    P::on_event(&crate::worker::Event(Event(event))).map_err(to_wit)
}

pub fn on_job<P: Worker>(attempt: WitAttempt) -> Result<String, WitError> {
    report_panics();
    P::on_job(&crate::worker::Attempt(Attempt(attempt))).map(|result| result.to_string()).map_err(to_wit)
}

pub fn on_timer<P: Worker>(timer: WitTimer) -> Result<(), WitError> {
    report_panics();
    let timer = crate::worker::Timer { name: timer.name(), scheduled_ms: timer.scheduled_ms() };
    P::on_timer(&timer).map_err(to_wit)
}

pub fn start_fallback<P: Fallback>(previous: Option<String>) -> Result<(), WitError> {
    report_panics();
    P::start(previous.as_deref()).map_err(to_wit)
}

pub fn answer_instead<P: Fallback>(ask: WitAsk) -> Result<WitStandIn, WitError> {
    report_panics();
    let reply = P::answer(&crate::fallback::Ask(Ask(ask))).map_err(to_wit)?;
    inference::wit_reply(&reply).map_err(to_wit)
}

pub fn learn<P: Learner>(lessons: Vec<WitLesson>) -> Result<(), WitError> {
    report_panics();
    let lessons = lessons.iter().map(inference::lesson).collect::<Result<Vec<_>>>().map_err(to_wit)?;
    P::learn(&lessons).map_err(to_wit)
}
