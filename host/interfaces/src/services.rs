//! What the host functions stand on: the mechanisms and effects that the binary wires together.

use std::sync::Arc;

use mainstay_base::{Clock, OsRandom, Random, SystemClock};
use mainstay_directory::Directory;
use mainstay_kernels::Kernels;
use mainstay_store::Store;
use mainstay_store::blobs::Blobs;

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
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

impl Services {
    /// With the machine's own clock and random numbers; tests and replays replace those fields.
    pub fn new(store: Store, blobs: Blobs, directory: Directory, kernels: Kernels) -> Services {
        let (clock, random) = (Arc::new(SystemClock::default()), Arc::new(OsRandom));
        Services { store, blobs, directory, kernels, clock, random }
    }
}
