//! The functions of [`sys`](super) in native tests: over the host's own store, without files.
//!
//! Owns the state of a [`testing::Host`](crate::testing::Host) and the call that is being made on this thread: its view is
//! taken at the first read and kept for the call, as the real host does. Outside a call everything here panics, naming the
//! remedy: a test that forgot to enter is a mistake, not a result.

use crate::blobs::{self, BlobInfo, Listing};
use crate::directory::{Attachment, Description, Edge, Label, Node, Pointer};
use crate::http::{Body, Caller};
use crate::index::{self, Field, Order, Query, Selection};
use crate::keys::{KeyRange, Page, ScanOptions};
use crate::log::Level;
use crate::metric::Kind;
use crate::testing::{Logged, Measured};
use crate::transaction::Receipt;
use crate::{Error, ErrorKind, Result, Value};
use bytes::Bytes;
use mainstay_base::{Clock, Random, SeededRandom, VirtualClock};
use mainstay_directory::{self as shared, Directory};
use mainstay_events::Events;
use mainstay_schedule::Scheduler;
use mainstay_store as store;
use mainstay_store::blobs::{BlobBackend, Blobs, ListingEntry, PutOptions};
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

mod columns;
mod inference;
mod stats;
mod tables;
mod work;

pub use columns::{Column, Frame};
pub use inference::{Ask, assign, endpoints, find_endpoint, infer};
pub(crate) use inference::{Endpoints, check_reply};
pub use stats::*;
pub(crate) use tables::{Tables, fill_table, rows_in_all};
pub use tables::{create_table, describe_table, join_as_of, table_window};
pub use work::{Attempt, Event, find_run, send};
pub(crate) use work::{Network, define_job, job_runs, kept, published};

/// How long a blob without a name stays, as the real host has it.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// What the plugin of a test is called.
const PLUGIN: &str = "plugin";

impl From<mainstay_base::Error> for Error {
    fn from(error: mainstay_base::Error) -> Error {
        use mainstay_base::ErrorKind as Host;
        let kind = match error.kind() {
            Host::NotFound => ErrorKind::NotFound,
            Host::Invalid => ErrorKind::Invalid,
            Host::Denied => ErrorKind::Denied,
            Host::Conflict => ErrorKind::Conflict,
            Host::Exhausted => ErrorKind::Exhausted,
            Host::Unavailable => ErrorKind::Unavailable,
            Host::Internal => ErrorKind::Internal,
            Host::Other => ErrorKind::Other,
        };
        Error::new(kind, error.message())
    }
}

/// Everything of one host in memory.
pub struct State {
    store: store::Store,
    blobs: Blobs,
    directory: RefCell<Directory>,
    space: store::Space,
    runtime: tokio::runtime::Runtime,
    pub(crate) clock: Arc<VirtualClock>,
    random: SeededRandom,
    pub(crate) events: Events,
    pub(crate) scheduler: Scheduler,
    pub(crate) network: Network,
    pub(crate) endpoints: Endpoints,
    pub(crate) tables: Tables,
    pub(crate) config: RefCell<String>,
    pub(crate) log: RefCell<Vec<Logged>>,
    pub(crate) metrics: RefCell<Vec<Measured>>,
}

impl State {
    pub(crate) fn new(now_ms: i64) -> State {
        let clock = Arc::new(VirtualClock::new(now_ms));
        let store = store::Store::in_memory();
        let objects = BlobBackend::Store(Arc::new(object_store::memory::InMemory::new()));
        let blobs = Blobs::open(store.clone(), objects, clock.clone(), GRACE).expect("memory holds blobs");
        let directory = Directory::new(store.clone(), Vec::new(), clock.clone()).expect("there are no rules");
        let random = Arc::new(SeededRandom::new(2));
        let events = Events::new(store.clone(), clock.clone(), random.clone());
        let scheduler = Scheduler::new(store.clone(), clock.clone(), random);
        State {
            directory: RefCell::new(directory),
            blobs,
            store,
            space: store::Space::plugin(PLUGIN),
            runtime: tokio::runtime::Builder::new_current_thread().build().expect("a runtime needs nothing"),
            clock,
            random: SeededRandom::new(1),
            events,
            scheduler,
            network: Network::default(),
            endpoints: Endpoints::default(),
            tables: Tables::default(),
            config: RefCell::new("{}".to_owned()),
            log: RefCell::default(),
            metrics: RefCell::default(),
        }
    }

    pub(crate) fn clock_ms(&self) -> i64 {
        self.clock.now_ms()
    }

    pub(crate) fn protect(&self, rules: serde_json::Value) {
        let rules = serde_json::from_value(rules).expect("rules are written as in the host's configuration");
        let directory = Directory::new(self.store.clone(), rules, self.clock.clone());
        *self.directory.borrow_mut() = directory.expect("the rules are well formed");
    }
}

/// One call of a plugin.
struct Call {
    state: Rc<State>,
    view: RefCell<Option<store::View>>,
}

impl Call {
    fn view(&self) -> store::View {
        self.view.borrow_mut().get_or_insert_with(|| self.state.store.view()).clone()
    }
}

thread_local! {
    static CALL: RefCell<Option<Rc<Call>>> = const { RefCell::new(None) };
}

/// Puts back the call around this one, also when a test panics.
struct Leave(Option<Rc<Call>>);

impl Drop for Leave {
    fn drop(&mut self) {
        CALL.set(self.0.take());
    }
}

pub(crate) fn enter<T>(state: &Rc<State>, act: impl FnOnce() -> T) -> T {
    let call = Call { state: state.clone(), view: RefCell::new(None) };
    let _leave = Leave(CALL.replace(Some(Rc::new(call))));
    act()
}

fn call() -> Rc<Call> {
    CALL.with_borrow(Clone::clone).expect("no host on this thread: make a `testing::Host` and use `enter` or `call`")
}

fn state() -> Rc<State> {
    call().state.clone()
}

// ---- keys ----

pub fn keys_get(key: &[u8]) -> Result<Option<Vec<u8>>> {
    let call = call();
    Ok(call.view().get(&call.state.space, key)?.map(Vec::from))
}

pub fn keys_get_many(keys: Vec<Vec<u8>>) -> Result<Vec<Option<Vec<u8>>>> {
    let call = call();
    let values = call.view().get_many(&call.state.space, &keys)?;
    Ok(values.into_iter().map(|value| value.map(Vec::from)).collect())
}

pub fn keys_scan(ranges: &[KeyRange], options: &ScanOptions) -> Result<Page> {
    let call = call();
    let ranges: Vec<store::KeyRange> = ranges.iter().map(key_range).collect();
    let ScanOptions { reverse, keys_only, limit, after } = options.clone();
    let options = store::ScanOptions { reverse, keys_only, limit, after };
    let store::Page { entries, count, next } = call.view().scan(&call.state.space, &ranges, &options)?;
    Ok(Page { entries, count, next })
}

pub fn keys_renew() -> Result<()> {
    *call().view.borrow_mut() = None;
    Ok(())
}

fn key_range(range: &KeyRange) -> store::KeyRange {
    store::KeyRange { start: range.start.clone(), end: range.end.clone() }
}

// ---- transactions ----

pub struct Transaction {
    state: Rc<State>,
    inner: RefCell<store::Transaction>,
    pending: work::Pending,
    appended: tables::Appended,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("is_empty", &self.inner.borrow().is_empty()).finish()
    }
}

pub fn begin() -> Result<Transaction> {
    let call = call();
    let inner = call.state.store.begin(&call.view());
    Ok(Transaction {
        state: call.state.clone(),
        inner: RefCell::new(inner),
        pending: work::Pending::default(),
        appended: tables::Appended::default(),
    })
}

impl Transaction {
    fn with(&self, act: impl FnOnce(&mut store::Transaction, &State) -> mainstay_base::Result<()>) -> Result<()> {
        Ok(act(&mut self.inner.borrow_mut(), &self.state)?)
    }

    pub fn expect_absent(&self, key: &[u8]) -> Result<()> {
        self.with(|tx, state| tx.expect_absent(&state.space, key))
    }

    pub fn expect_present(&self, key: &[u8]) -> Result<()> {
        self.with(|tx, state| tx.expect_present(&state.space, key))
    }

    pub fn expect_value(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.with(|tx, state| tx.expect_value(&state.space, key, value.to_vec()))
    }

    pub fn expect_unchanged(&self, key: &[u8]) -> Result<()> {
        self.with(|tx, state| tx.expect_unchanged(&state.space, key))
    }

    pub fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.with(|tx, state| tx.put(&state.space, key, value.to_vec()))
    }

    pub fn delete(&self, key: &[u8]) -> Result<()> {
        self.with(|tx, state| tx.delete(&state.space, key))
    }

    pub fn delete_range(&self, range: &KeyRange) -> Result<()> {
        self.with(|tx, state| tx.delete_range(&state.space, &key_range(range)))
    }

    pub fn append(&self, key: &[u8], fragment: &[u8]) -> Result<()> {
        self.with(|tx, state| tx.append(&state.space, key, fragment.to_vec()))
    }

    pub fn add(&self, key: &[u8], amount: i64) -> Result<()> {
        self.with(|tx, state| tx.add(&state.space, key, amount))
    }

    pub fn set_fields(&self, index: &str, document: &str, fields: Vec<Field>) -> Result<()> {
        let fields = fields.into_iter().map(field_write).collect();
        self.with(|tx, state| tx.set_fields(&state.space, index, document, fields))
    }

    pub fn remove_document(&self, index: &str, document: &str) -> Result<()> {
        self.with(|tx, state| tx.remove_document(&state.space, index, document))
    }

    pub fn link(&self, name: &str, sha256: &str) -> Result<()> {
        self.with(|tx, state| store::blobs::link(tx, &state.space, name, sha256))
    }

    pub fn unlink(&self, name: &str) -> Result<()> {
        self.with(|tx, state| store::blobs::unlink(tx, &state.space, name))
    }

    fn with_directory(
        &self,
        act: impl FnOnce(&Directory, &mut store::Transaction) -> mainstay_base::Result<()>,
    ) -> Result<()> {
        Ok(act(&self.state.directory.borrow(), &mut self.inner.borrow_mut())?)
    }

    pub fn create(&self, node: &Node, labels: &[Label], attachments: &[Attachment]) -> Result<()> {
        let attachments: Vec<_> = attachments
            .iter()
            .map(|each| shared::Attachment { path: each.path.clone(), sha256: each.sha256.clone() })
            .collect();
        self.with_directory(|directory, tx| {
            directory.create(tx, PLUGIN, &shared_node(node), &shared_labels(labels), &attachments)
        })
    }

    pub fn set_labels(&self, node: &Node, labels: &[Label]) -> Result<()> {
        self.with_directory(|directory, tx| {
            directory.set_labels(tx, PLUGIN, &shared_node(node), &shared_labels(labels))
        })
    }

    pub fn remove(&self, node: &Node) -> Result<()> {
        self.with_directory(|directory, tx| directory.remove(tx, PLUGIN, &shared_node(node)))
    }

    pub fn connect(&self, edge: &Edge) -> Result<()> {
        let edge = shared::Edge {
            source: shared_node(&edge.source),
            relation: edge.relation.clone(),
            target: shared_node(&edge.target),
        };
        self.with_directory(|directory, tx| directory.connect(tx, PLUGIN, &edge))
    }

    pub fn move_pointer(&self, kind: &str, name: &str, pointer: &str, version: Option<u64>) -> Result<()> {
        self.with_directory(|directory, tx| directory.move_pointer(tx, PLUGIN, kind, name, pointer, version))
    }

    pub fn commit(self) -> Result<Receipt> {
        let store::Receipt { sequence, counters } = self.state.store.commit_blocking(self.inner.into_inner())?;
        self.pending.commit(&self.state.network);
        self.appended.commit(&self.state.tables);
        Ok(Receipt { sequence, counters })
    }
}

// ---- index ----

pub fn index_select(name: &str, query: Query) -> Result<Selection> {
    let state = state();
    let query = store::Query {
        filter: query.filter.into_nodes().into_iter().map(filter_node).collect(),
        order: query
            .order
            .into_iter()
            .map(|(field, order)| store::OrderKey { field, descending: order == Order::Descending })
            .collect(),
        after: query.after,
        limit: query.limit.unwrap_or(Query::LIMIT_DEFAULT),
        fields: query.fields,
    };
    let store::Selection { documents, count, matched, next } = state.store.select(&state.space, name, &query)?;
    Ok(Selection { documents, count, matched, next })
}

pub fn index_document(name: &str, document: &str) -> Result<Option<Vec<u8>>> {
    let state = state();
    Ok(state.store.document(&state.space, name, document)?)
}

fn field_write(field: Field) -> store::FieldWrite {
    store::FieldWrite { name: field.name, value: field.value.map(store_value), rank: field.rank }
}

fn store_value(value: Value) -> store::Value {
    match value {
        Value::Text(text) => store::Value::Text(text),
        Value::Integer(number) => store::Value::Integer(number),
        Value::Real(number) => store::Value::Real(number),
        Value::Boolean(truth) => store::Value::Boolean(truth),
        Value::Texts(texts) => store::Value::Texts(texts),
        Value::Bytes(bytes) => store::Value::Bytes(bytes),
    }
}

fn filter_node(node: index::FilterNode) -> store::FilterNode {
    match node {
        index::FilterNode::Term { field, comparison, operand } => store::FilterNode::Term(store::Term {
            field,
            comparison: store_comparison(comparison),
            operand: store_value(operand),
        }),
        index::FilterNode::OneOf(field, values) => {
            store::FilterNode::OneOf(field, values.into_iter().map(store_value).collect())
        }
        index::FilterNode::All(count) => store::FilterNode::All(count),
        index::FilterNode::Any(count) => store::FilterNode::Any(count),
        index::FilterNode::Negate => store::FilterNode::Negate,
    }
}

fn store_comparison(comparison: index::Comparison) -> store::Comparison {
    match comparison {
        index::Comparison::Equal => store::Comparison::Equal,
        index::Comparison::NotEqual => store::Comparison::NotEqual,
        index::Comparison::Less => store::Comparison::Less,
        index::Comparison::LessOrEqual => store::Comparison::LessOrEqual,
        index::Comparison::Greater => store::Comparison::Greater,
        index::Comparison::GreaterOrEqual => store::Comparison::GreaterOrEqual,
        index::Comparison::Like => store::Comparison::Like,
        index::Comparison::Ilike => store::Comparison::Ilike,
        index::Comparison::Exists => store::Comparison::Exists,
    }
}

// ---- blobs ----

pub fn blobs_put(bytes: &[u8]) -> Result<BlobInfo> {
    if bytes.len() > blobs::CALL_BYTES_MAX {
        return Err(Error::invalid("at most 4 MiB a call; answer `receive` to store more"));
    }
    put(bytes.to_vec(), PutOptions::default())
}

fn put(bytes: Vec<u8>, options: PutOptions) -> Result<BlobInfo> {
    let state = state();
    let body = OnePiece(Some(Bytes::from(bytes)));
    Ok(blob_info(state.runtime.block_on(state.blobs.put(body, options))?))
}

/// A body in one piece.
struct OnePiece(Option<Bytes>);

impl futures::Stream for OnePiece {
    type Item = mainstay_base::Result<Bytes>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.take().map(Ok))
    }
}

pub fn blobs_read(sha256: &str, offset: u64, length: u32) -> Result<Vec<u8>> {
    if length as usize > blobs::CALL_BYTES_MAX {
        return Err(Error::invalid("at most 4 MiB a call; read in parts"));
    }
    let state = state();
    check_readable(&state, sha256)?;
    let range = Some(offset..offset.saturating_add(u64::from(length)));
    Ok(state.runtime.block_on(state.blobs.get_bytes(sha256, range))?.to_vec())
}

fn check_readable(state: &State, sha256: &str) -> Result<()> {
    match state.blobs.readable_by(&state.space, sha256)? {
        true => Ok(()),
        false => Err(Error::not_found(format!("no name of this plugin refers to a blob {sha256}; link one first"))),
    }
}

pub fn blobs_stat(sha256: &str) -> Result<Option<BlobInfo>> {
    Ok(state().blobs.stat(sha256)?.map(blob_info))
}

pub fn blobs_lookup(name: &str) -> Result<Option<BlobInfo>> {
    let state = state();
    Ok(state.blobs.lookup(&state.space, name)?.map(blob_info))
}

pub fn blobs_names(prefix: &str, delimiter: Option<&str>, after: Option<&str>, limit: u32) -> Result<Listing> {
    let state = state();
    let listing = state.blobs.names(&state.space, prefix, delimiter, after, limit)?;
    let entries = listing
        .entries
        .into_iter()
        .map(|entry| match entry {
            ListingEntry::Name(name, info) => blobs::Entry::Name(name, blob_info(info)),
            ListingEntry::Prefix(prefix) => blobs::Entry::Prefix(prefix),
        })
        .collect();
    Ok(Listing { entries, next: listing.next })
}

fn blob_info(info: store::blobs::BlobInfo) -> BlobInfo {
    BlobInfo { sha256: info.sha256, md5: info.md5, size_bytes: info.size_bytes }
}

/// What the host sends for `Reply::send`.
pub(crate) fn blob_bytes(sha256: &str) -> Result<Vec<u8>> {
    let state = state();
    check_readable(&state, sha256)?;
    Ok(state.runtime.block_on(state.blobs.get_bytes(sha256, None))?.to_vec())
}

/// What the host does for `Reply::receive`.
pub(crate) fn blob_receive(request: &Request, limit_bytes: u64, expected_sha256: Option<String>) -> Result<BlobInfo> {
    let bytes = match (&request.waiting, &request.body) {
        (Some(bytes), _) | (None, Body::Bytes(bytes)) => bytes.clone(),
        (None, _) => Vec::new(),
    };
    put(bytes, PutOptions { limit_bytes: Some(limit_bytes), expected_sha256 })
}

// ---- directory ----

pub fn directory_describe(node: &Node) -> Result<Option<Description>> {
    let found = state().directory.borrow().at(&call().view()).describe(&shared_node(node))?;
    Ok(found.map(|found| Description {
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
    Ok(state().directory.borrow().at(&call().view()).subjects(kind, after, limit)?)
}

pub fn directory_versions(kind: &str, name: &str) -> Result<Vec<u64>> {
    Ok(state().directory.borrow().at(&call().view()).versions(kind, name)?)
}

pub fn directory_pointers(kind: &str, name: &str) -> Result<Vec<Pointer>> {
    let pointers = state().directory.borrow().at(&call().view()).pointers(kind, name)?;
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
    let edges = state().directory.borrow().at(&call().view()).edges(&shared_node(node), outgoing)?;
    let plain = |edge: shared::Edge| Edge {
        source: plain_node(edge.source),
        relation: edge.relation,
        target: plain_node(edge.target),
    };
    Ok(edges.into_iter().map(|found| plain(found.edge)).collect())
}

pub fn directory_missing_evidence(kind: &str, name: &str, pointer: &str, version: u64) -> Result<Vec<String>> {
    Ok(state().directory.borrow().at(&call().view()).missing_evidence(kind, name, pointer, version)?)
}

fn shared_node(node: &Node) -> shared::Node {
    shared::Node { kind: node.kind.clone(), name: node.name.clone(), version: node.version }
}

fn plain_node(node: shared::Node) -> Node {
    Node { kind: node.kind, name: node.name, version: node.version }
}

fn shared_labels(labels: &[Label]) -> Vec<shared::Label> {
    labels.iter().map(|label| shared::Label { key: label.key.clone(), value: label.value.clone() }).collect()
}

// ---- config, observe, clock, random ----

pub fn config_text() -> String {
    state().config.borrow().clone()
}

pub fn log(level: Level, message: &str, fields: Vec<(String, String)>) {
    state().log.borrow_mut().push(Logged { level, message: message.to_owned(), fields });
}

pub fn metric(kind: Kind, name: &str, value: f64, labels: &[(&str, &str)]) {
    let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    state().metrics.borrow_mut().push(Measured { kind, name: name.to_owned(), value, labels });
}

pub fn span_attribute(_key: &str, _value: &str) {
    // A test has no span; what matters is that setting one needs a call.
    call();
}

pub fn now_ms() -> i64 {
    state().clock.now_ms()
}

pub fn monotonic_ns() -> u64 {
    state().clock.monotonic_ns()
}

pub fn random_bytes(length: u32) -> Vec<u8> {
    let mut bytes = vec![0; length as usize];
    state().random.fill(&mut bytes);
    bytes
}

pub fn random_number() -> u64 {
    state().random.number()
}

// ---- http ----

/// A request of a test: the pieces that the real host would hand out one by one.
#[derive(Clone, Debug)]
pub struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Body,
    pub(crate) waiting: Option<Vec<u8>>,
    pub(crate) caller: Caller,
    pub(crate) base_url: String,
}

impl Request {
    pub fn method(&self) -> String {
        self.method.clone()
    }

    pub fn path(&self) -> String {
        self.path.clone()
    }

    pub fn query(&self) -> Vec<(String, String)> {
        self.query.clone()
    }

    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.clone())
    }

    pub fn body(&self) -> Body {
        self.body.clone()
    }

    pub fn caller(&self) -> Caller {
        self.caller.clone()
    }

    pub fn base_url(&self) -> String {
        self.base_url.clone()
    }

    pub(crate) fn without_body(&self) -> Request {
        Request { body: Body::Empty, waiting: None, ..self.clone() }
    }
}
