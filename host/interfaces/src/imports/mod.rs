//! The list of interfaces that components may import: a file for each, registered here and nowhere else.
//!
//! A new interface is a file with its host trait on [`State`], its capabilities in [`crate::capabilities`], and one row
//! here. Everything in the list is linked to every plugin; the manifest decides at the call what may be used.

pub mod arrays;
pub mod asks;
pub mod batches;
pub mod blobs;
pub mod clock;
pub mod config;
pub mod directory;
pub mod errors;
pub mod events;
pub mod http;
pub mod index;
pub mod jobs;
pub mod keys;
pub mod models;
pub mod observe;
pub mod outbound;
pub mod random;
pub mod stats;
pub mod tables;
pub mod tensors;
pub mod traffic;
pub mod values;
pub mod work;

use mainstay_bindings::mainstay::{api, data, fallback, host, numeric, transform, types, worker};
use mainstay_runtime::{Capability, Interface};
use wasmtime::component::{HasSelf, Linker};

use crate::capabilities::{
    ARRAYS, ARRAYS_READ, BLOBS, DIRECTORY_READ, DIRECTORY_WRITE, EVENTS_PUBLISH, INDEX, JOBS_START, KEYS, MODELS,
    OUTBOUND, TABLES_AGGREGATE, TABLES_APPEND, TABLES_READ, TRAFFIC_INFER, TRAFFIC_READ,
};
use crate::state::State;

/// How an interface's functions get into a linker.
type Add = fn(&mut Linker<State>) -> wasmtime::Result<()>;

/// One interface that components may import.
pub struct Row {
    /// Its name and version.
    pub interface: Interface,
    /// What its functions need; none are needed where this is empty.
    pub capabilities: &'static [Capability],
    /// What it gives, in one line.
    pub gives: &'static str,
    add: Add,
}

/// The version of everything here.
const VERSION: &str = "0.1.0";

const fn row(name: &'static str, capabilities: &'static [Capability], gives: &'static str, add: Add) -> Row {
    Row { interface: Interface { name, version: VERSION }, capabilities, gives, add }
}

/// Links one generated interface to [`State`].
macro_rules! add {
    ($($path:ident)::+) => {
        |linker| $($path)::+::add_to_linker::<State, HasSelf<State>>(linker, |state| state)
    };
}

/// All interfaces.
pub const INTERFACES: &[Row] = &[
    row("mainstay:types/errors", &[], "the typed error", add!(types::errors)),
    row("mainstay:types/values", &[], "the typed value", add!(types::values)),
    row("mainstay:host/keys", &[KEYS], "ordered keys of the plugin's own, and transactions", add!(host::keys)),
    row(
        "mainstay:host/index",
        &[INDEX],
        "documents of typed fields, filtered and ordered by the host",
        add!(host::index),
    ),
    row(
        "mainstay:host/directory",
        &[DIRECTORY_READ, DIRECTORY_WRITE],
        "what plugins share: subjects, versions, labels, edges, pointers",
        add!(host::directory),
    ),
    row(
        "mainstay:host/blobs",
        &[BLOBS],
        "large immutable bytes, kept once by content, and names for them",
        add!(host::blobs),
    ),
    row(
        "mainstay:host/events",
        &[EVENTS_PUBLISH],
        "durable topics, published with what causes them",
        add!(host::events),
    ),
    row("mainstay:host/jobs", &[JOBS_START], "runs of jobs that the operator has defined", add!(host::jobs)),
    row("mainstay:host/outbound", &[OUTBOUND], "calls over HTTP to granted hosts", add!(host::outbound)),
    row("mainstay:host/tensors", &[], "the named tensor", add!(host::tensors)),
    row(
        "mainstay:host/traffic",
        &[TRAFFIC_INFER, TRAFFIC_READ],
        "endpoints behind which models answer",
        add!(host::traffic),
    ),
    row("mainstay:host/config", &[], "the plugin's configuration", add!(host::config)),
    row("mainstay:host/observe", &[], "log, metrics, attributes of the request's span", add!(host::observe)),
    row("mainstay:host/clock", &[], "time", add!(host::clock)),
    row("mainstay:host/random", &[], "random numbers", add!(host::random)),
    row(
        "mainstay:numeric/arrays",
        &[ARRAYS, ARRAYS_READ],
        "columns and frames that the host holds",
        add!(numeric::arrays),
    ),
    row("mainstay:numeric/stats", &[ARRAYS], "statistics over columns", add!(numeric::stats)),
    row("mainstay:numeric/models", &[MODELS], "models applied to frames", add!(numeric::models)),
    row(
        "mainstay:data/tables",
        &[TABLES_APPEND, TABLES_READ, TABLES_AGGREGATE],
        "append-only tables, their windows as frames, joins as of a time",
        add!(data::tables),
    ),
    row("mainstay:api/http", &[], "the request and the answer", add!(api::http)),
    row("mainstay:transform/batches", &[], "the batch that a transform is given", add!(transform::batches)),
    row("mainstay:worker/work", &[], "the event, attempt or time that a worker is given", add!(worker::work)),
    row("mainstay:fallback/asks", &[], "the request that a fallback is given, and its answer", add!(fallback::asks)),
];

/// Names and versions of all interfaces.
pub const NAMES: &[Interface] = &{
    let mut names = [Interface { name: "", version: "" }; INTERFACES.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = INTERFACES[at].interface;
        at += 1;
    }
    names
};

/// A linker that knows every interface.
pub(crate) fn linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    for row in INTERFACES {
        (row.add)(&mut linker)?;
    }
    Ok(linker)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every function of every host trait passes a door before it does anything else.
    #[test]
    fn every_host_function_enters_first() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/imports");
        let mut checked = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let mut in_host_trait = false;
            let mut lines = text.lines();
            while let Some(line) = lines.next() {
                if line.starts_with("impl ") {
                    in_host_trait = line.contains("Host") && line.contains(" for State");
                } else if line == "}" {
                    in_host_trait = false;
                }
                let is_function = line.starts_with("    fn ") || line.starts_with("    async fn ");
                if !(in_host_trait && is_function) || line.contains("fn convert_error") {
                    continue;
                }
                let mut header = line;
                while !header.ends_with('{') {
                    header = lines.next().expect("a function has a body");
                }
                let first = lines.next().expect("a body has a line");
                let enters =
                    ["self.enter(", "self.enter_any(", "self.ambient()"].iter().any(|door| first.contains(door));
                assert!(enters, "{}: `{}` does not enter first, but `{}`", path.display(), line.trim(), first.trim());
                checked += 1;
            }
        }
        assert!(checked > 50, "only {checked} functions were found");
    }
}
