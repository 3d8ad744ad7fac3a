//! The list of worlds: what a component can be, and what it must export for that.
//!
//! A new world is a file that enters it, one row here, and one field in [`Exports`]. A component is one or more of them; what
//! it exports is looked up once, when it is loaded.

pub mod api;
pub mod fallback;
pub mod transform;
pub mod worker;

use mainstay_base::{Error, Result};
use mainstay_bindings::WitError;
use mainstay_bindings::exports::mainstay::api::handler;
use mainstay_bindings::exports::mainstay::fallback::{answers, learns};
use mainstay_bindings::exports::mainstay::lifecycle::lifecycle;
use mainstay_bindings::exports::mainstay::transform::transformer;
use mainstay_bindings::exports::mainstay::worker::duties as work;
use mainstay_bindings::from_wit;
use mainstay_runtime::{BoxFuture, CallError, Contract, Interface, World};
use wasmtime::Store;
use wasmtime::component::InstancePre;

use crate::imports;
use crate::state::State;

/// The version of everything here.
const VERSION: &str = "0.1.0";

/// What a fallback may export beside what it must.
const LEARNS: &str = "mainstay:fallback/learns@0.1.0";

const LIFECYCLE: Interface = Interface { name: "mainstay:lifecycle/lifecycle", version: VERSION };

/// All worlds. Manifests name them as `mainstay:api/api@0.1.0`.
pub const WORLDS: &[Contract] = &[
    Contract {
        world: "mainstay:api/api@0.1.0",
        imports: imports::NAMES,
        exports: &[LIFECYCLE, Interface { name: "mainstay:api/handler", version: VERSION }],
    },
    Contract {
        world: "mainstay:transform/transform@0.1.0",
        imports: imports::NAMES,
        exports: &[LIFECYCLE, Interface { name: "mainstay:transform/transformer", version: VERSION }],
    },
    Contract {
        world: "mainstay:worker/worker@0.1.0",
        imports: imports::NAMES,
        exports: &[LIFECYCLE, Interface { name: "mainstay:worker/duties", version: VERSION }],
    },
    Contract {
        world: "mainstay:fallback/fallback@0.1.0",
        imports: imports::NAMES,
        exports: &[LIFECYCLE, Interface { name: "mainstay:fallback/answers", version: VERSION }],
    },
];

/// The row of world `api`.
pub(crate) const API: &Contract = &WORLDS[0];

/// The row of a world that a manifest names; versions were compared when the manifest was read.
pub(crate) fn contract(name: &str) -> Result<&'static Contract> {
    let path = |name: &str| name.split('@').next().unwrap_or_default().to_owned();
    let found = WORLDS.iter().find(|contract| path(contract.world) == path(name));
    found.ok_or_else(|| {
        let known: Vec<&str> = WORLDS.iter().map(|contract| contract.world).collect();
        Error::invalid(format!("there is no world `{name}`; this host runs {}", known.join(", ")))
    })
}

/// A component, ready to be entered by whatever it exports.
pub(crate) struct Entrances {
    pre: InstancePre<State>,
    lifecycle: lifecycle::GuestIndices,
    api: Option<handler::GuestIndices>,
    transform: Option<transformer::GuestIndices>,
    worker: Option<work::GuestIndices>,
    fallback: Option<answers::GuestIndices>,
    learns: Option<learns::GuestIndices>,
}

impl Entrances {
    /// Looks the exports up. `worlds` are those that the manifest names; a component may export more.
    pub(crate) fn new(pre: InstancePre<State>, worlds: &[&Contract]) -> wasmtime::Result<Entrances> {
        let is = |path: &str| worlds.iter().any(|contract| contract.world.starts_with(path));
        let lifecycle = lifecycle::GuestIndices::new(&pre)?;
        let api = is("mainstay:api/").then(|| handler::GuestIndices::new(&pre)).transpose()?;
        let transform = is("mainstay:transform/").then(|| transformer::GuestIndices::new(&pre)).transpose()?;
        let worker = is("mainstay:worker/").then(|| work::GuestIndices::new(&pre)).transpose()?;
        let is_fallback = is("mainstay:fallback/");
        let fallback = is_fallback.then(|| answers::GuestIndices::new(&pre)).transpose()?;
        let does_learn = is_fallback && pre.component().get_export_index(None, LEARNS).is_some();
        let learns = does_learn.then(|| learns::GuestIndices::new(&pre)).transpose()?;
        Ok(Entrances { pre, lifecycle, api, transform, worker, fallback, learns })
    }

    /// Whether it wants to be told of good answers.
    pub(crate) fn does_learn(&self) -> bool {
        self.learns.is_some()
    }
}

/// What an instance exports.
pub(crate) struct Exports {
    lifecycle: lifecycle::Guest,
    api: Option<handler::Guest>,
    transform: Option<transformer::Guest>,
    worker: Option<work::Guest>,
    fallback: Option<answers::Guest>,
    learns: Option<learns::Guest>,
}

impl World for Entrances {
    type Data = State;
    type Exports = Exports;

    fn instantiate<'a>(&'a self, store: &'a mut Store<State>) -> BoxFuture<'a, wasmtime::Result<Exports>> {
        Box::pin(async move {
            let instance = self.pre.instantiate_async(&mut *store).await?;
            Ok(Exports {
                lifecycle: self.lifecycle.load(&mut *store, &instance)?,
                api: self.api.as_ref().map(|api| api.load(&mut *store, &instance)).transpose()?,
                transform: self.transform.as_ref().map(|each| each.load(&mut *store, &instance)).transpose()?,
                worker: self.worker.as_ref().map(|each| each.load(&mut *store, &instance)).transpose()?,
                fallback: self.fallback.as_ref().map(|each| each.load(&mut *store, &instance)).transpose()?,
                learns: self.learns.as_ref().map(|each| each.load(&mut *store, &instance)).transpose()?,
            })
        })
    }
}

/// `lifecycle.start`, whatever the world.
pub(crate) async fn start(store: &mut Store<State>, all: &Exports, previous: Option<String>) -> wasmtime::Result<()> {
    let answer = all.lifecycle.call_start(&mut *store, previous.as_deref()).await;
    store.data_mut().end_call();
    answer?.map_err(failed)
}

fn failed(error: WitError) -> wasmtime::Error {
    CallError::Failed(from_wit(error)).into()
}

/// A call into a world that the plugin is not of.
fn not_of(world: &str) -> wasmtime::Error {
    CallError::Failed(Error::invalid(format!(
        "the plugin is not of the world `{world}`; name it under `worlds` in its manifest, and export it"
    )))
    .into()
}
