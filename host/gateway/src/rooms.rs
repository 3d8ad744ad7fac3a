//! The rooms below that the admin API opens to operators: jobs, events, tables, predictions.
//!
//! Owns the list. Separate from the server, so that whoever starts one hands them over together, and a new room is one field
//! here and one line in [`Rooms::routers`]. Bounded and failing as the rooms.

use std::sync::Arc;

use mainstay_base::{Clock, OsRandom, Result, SimDisk, SystemClock};
use mainstay_events::Events;
use mainstay_predictions::Predictions;
use mainstay_schedule::{JobDefinition, Scheduler};
use mainstay_store::Store;
use mainstay_tables::{Tables, TablesOptions};

use crate::event_routes::{self, EventsState};
use crate::job_routes::{self, JobHost, JobsAdmin, JobsState};
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
}

impl Rooms {
    /// For tests and measurements: over this store, tables in memory, and nobody who carries jobs out.
    pub fn for_tests(store: &Store) -> Result<Rooms> {
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
            predictions: Predictions::new(tables.clone(), clock),
            tables: TablesAdmin { tables, query_bytes: 64 << 20 },
        })
    }

    /// Their routes.
    pub(crate) fn routers(self, limits: &GatewayLimits) -> Vec<axum::Router> {
        let limits = || limits.clone();
        vec![
            job_routes::router(Arc::new(JobsState { jobs: self.jobs, limits: limits() })),
            event_routes::router(Arc::new(EventsState { events: self.events, limits: limits() })),
            table_routes::router(Arc::new(TablesState { admin: self.tables, limits: limits() })),
            prediction_routes::router(Arc::new(PredictionsState { predictions: self.predictions, limits: limits() })),
        ]
    }
}

/// Takes every definition and carries nothing out.
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
