//! What the host functions stand on: the mechanisms and effects that the binary wires together.

use std::sync::Arc;

use mainstay_base::{Clock, Error, OsRandom, Random, Result, SeededRandom, SimDisk, SystemClock};
use mainstay_directory::Directory;
use mainstay_events::Events;
use mainstay_kernels::{Kernels, Loaded};
use mainstay_outbound::{Internet, Outbound, SecretKey, Secrets};
use mainstay_schedule::Scheduler;
use mainstay_store::Store;
use mainstay_store::blobs::Blobs;
use mainstay_tables::{Tables, TablesOptions};

use crate::door::DoorSlot;

/// The mechanisms behind all interfaces. Cheap to clone.
#[derive(Clone)]
pub struct Services {
    /// Keys, indexes, transactions.
    pub store: Store,
    /// Blobs and names.
    pub blobs: Blobs,
    /// What plugins share.
    pub directory: Directory,
    /// Statistics and models.
    pub kernels: Kernels,
    /// Durable topics.
    pub events: Events,
    /// Durable jobs.
    pub scheduler: Scheduler,
    /// Columnar tables.
    pub tables: Tables,
    /// Calls to other hosts.
    pub outbound: Outbound,
    /// The way to the endpoints of this host, once they are open.
    pub door: DoorSlot,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl Services {
    /// With the machine's own clock and random numbers.
    pub fn new(
        store: Store,
        blobs: Blobs,
        directory: Directory,
        kernels: Kernels,
        tables: Tables,
        secret_key: SecretKey,
    ) -> Result<Services> {
        let (clock, random) = (Arc::new(SystemClock::default()), Arc::new(OsRandom));
        Services::with(store, blobs, directory, kernels, tables, secret_key, clock, random)
    }

    /// The model whose file is this blob, loaded once for everybody who asks while it is in use. On a thread that may wait:
    /// reading a large file takes seconds.
    pub async fn model(&self, sha256: &str) -> Result<Arc<Loaded>> {
        if let Some(found) = self.kernels.find_model(sha256) {
            return Ok(found);
        }
        let bytes = self.blobs.get_bytes(sha256, None).await?;
        let (kernels, sha256) = (self.kernels.clone(), sha256.to_owned());
        let work = tokio::task::spawn_blocking(move || kernels.load_model(&sha256, &bytes));
        work.await.map_err(|error| Error::internal(format!("loading a model ended: {error}")))?
    }

    /// For tests: with this clock, seeded random numbers, and tables on a disk in memory.
    pub fn for_tests(
        store: Store,
        blobs: Blobs,
        directory: Directory,
        kernels: Kernels,
        clock: Arc<dyn Clock>,
    ) -> Result<Services> {
        let random = Arc::new(SeededRandom::new(1));
        let options = TablesOptions {
            disk: Arc::new(SimDisk::new()),
            clock: clock.clone(),
            random: random.clone(),
            query_threads: 1,
            ..TablesOptions::new("/tables")
        };
        let tables = Tables::open(store.clone(), options)?;
        Services::with(store, blobs, directory, kernels, tables, SecretKey::new([1; 32]), clock, random)
    }

    #[allow(clippy::too_many_arguments, reason = "one for each room below")]
    fn with(
        store: Store,
        blobs: Blobs,
        directory: Directory,
        kernels: Kernels,
        tables: Tables,
        secret_key: SecretKey,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Services> {
        let events = Events::new(store.clone(), clock.clone(), random.clone());
        let scheduler = Scheduler::new(store.clone(), clock.clone(), random.clone());
        let secrets = Secrets::new(store.clone(), secret_key, random.clone());
        let outbound = Outbound::new(Arc::new(Internet::new(None)?), secrets, clock.clone(), random.clone());
        let door = DoorSlot::default();
        Ok(Services { store, blobs, directory, kernels, events, scheduler, tables, outbound, door, clock, random })
    }
}
