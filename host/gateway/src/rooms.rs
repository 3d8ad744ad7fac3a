//! The rooms below that the admin API opens to operators: jobs, events, tables, predictions, endpoints.
//!
//! Owns the list. Separate from the server, so that whoever starts one hands them over together, and a new room is one field
//! here and one line in [`Rooms::routers`]. Bounded and failing as the rooms.

use std::sync::Arc;

use mainstay_base::{Clock, Error, OsRandom, Result, SimDisk, SystemClock};
use mainstay_events::Events;
use mainstay_predictions::Predictions;
use mainstay_schedule::{JobDefinition, Scheduler};
use mainstay_store::Store;
use mainstay_store::blobs::Blobs;
use mainstay_tables::{Tables, TablesOptions};
use mainstay_traffic::{Backend, Backends, Foundation, Reference, Traffic, Unwatched};

use crate::endpoint_routes::{self, EndpointsState};
use crate::event_routes::{self, EventsState};
use crate::job_routes::{self, JobHost, JobsAdmin, JobsState};
use crate::model_routes::{self, ImportModels, ImportedModel, ModelsState, StoredModelFile};
use crate::options::GatewayLimits;
use crate::prediction_routes::{self, PredictionsState};
use crate::table_routes::{self, TablesAdmin, TablesState};

/// What operators reach beside plugins, tokens and blobs.
#[derive(Clone)]
pub struct Rooms {
    /// Jobs and runs.
    pub jobs: JobsAdmin,
    /// Topics and who listens to them.
    pub events: Events,
    /// Columnar tables.
    pub tables: TablesAdmin,
    /// Logs of predictions.
    pub predictions: Predictions,
    /// Endpoints and their plans.
    pub endpoints: Traffic,
    /// Who registers models.
    pub models: Arc<dyn ImportModels>,
}

impl Rooms {
    /// For tests and measurements: over this store, tables in memory, and nobody who carries jobs out.
    pub async fn for_tests(store: &Store) -> Result<Rooms> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        let options = TablesOptions {
            disk: Arc::new(SimDisk::new()),
            clock: clock.clone(),
            query_threads: 1,
            ..TablesOptions::new("/tables")
        };
        let tables = Tables::open(store.clone(), options)?;
        let scheduler = Scheduler::new(store.clone(), clock.clone(), Arc::new(OsRandom));
        Ok(Rooms {
            jobs: JobsAdmin { scheduler, host: Arc::new(Nobody) },
            events: Events::new(store.clone(), clock.clone(), Arc::new(OsRandom)),
            predictions: Predictions::new(tables.clone(), clock.clone()),
            endpoints: Traffic::open(Foundation {
                store: store.clone(),
                clock,
                random: Arc::new(OsRandom),
                backends: Arc::new(Nobody),
                watch: Arc::new(Unwatched),
            })
            .await?,
            models: Arc::new(Nobody),
            tables: TablesAdmin { tables, query_bytes: 64 << 20 },
        })
    }

    /// Their routes.
    pub(crate) fn routers(self, blobs: &Blobs, limits: &GatewayLimits) -> Vec<axum::Router> {
        let limits = || limits.clone();
        vec![
            job_routes::router(Arc::new(JobsState { jobs: self.jobs, limits: limits() })),
            event_routes::router(Arc::new(EventsState { events: self.events, limits: limits() })),
            table_routes::router(Arc::new(TablesState { admin: self.tables, limits: limits() })),
            prediction_routes::router(Arc::new(PredictionsState { predictions: self.predictions, limits: limits() })),
            model_routes::router(Arc::new(ModelsState { models: self.models, blobs: blobs.clone(), limits: limits() })),
            endpoint_routes::router(Arc::new(EndpointsState { traffic: self.endpoints, limits: limits() })),
        ]
    }
}

/// Takes every definition and carries nothing out; has no models.
struct Nobody;

#[async_trait::async_trait]
impl JobHost for Nobody {
    fn check(&self, _: &JobDefinition) -> Result<()> {
        Ok(())
    }

    async fn changed(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait::async_trait]
impl Backends for Nobody {
    async fn resolve(&self, reference: &Reference) -> Result<Arc<dyn Backend>> {
        Err(Error::not_found(format!("there is no `{reference}` here")))
    }
}

#[async_trait::async_trait]
impl ImportModels for Nobody {
    async fn import(&self, model: &str, _: Vec<StoredModelFile>, _: &str) -> Result<ImportedModel> {
        Err(Error::unavailable(format!("nobody registers `{model}` here")))
    }
}
