//! Models in memory, found by the digest of their file.
//!
//! Owns [`Loaded`], a model with a number and what is prepared for it once, and [`Shelf`], which keeps those that were asked
//! for last. A model that is in use stays as long as somebody holds it. Bounded by: the shelf's bytes, counted as four times
//! the file (measured: 2 to 5 times for trees). On failure: the importer's error.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use mainstay_base::{Error, Result};
use mainstay_models::explain::Explainer;
use mainstay_models::forest::Forest;
use mainstay_models::{Model, import};
use parking_lot::Mutex;

/// What a model takes in memory, in bytes for each byte of its file.
const BYTES_PER_FILE_BYTE: usize = 4;

/// From the bytes of a model's file to the model.
pub type Import = dyn Fn(&[u8]) -> Result<Model> + Send + Sync;

/// An explainer with a number that no other ever has.
pub(crate) struct Prepared {
    pub explainer: Explainer,
    pub number: u64,
}

impl Prepared {
    pub fn new(explainer: Explainer) -> Prepared {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Prepared { explainer, number: NEXT.fetch_add(1, Ordering::Relaxed) }
    }
}

/// A model, ready to be applied.
pub struct Loaded {
    digest: Box<str>,
    number: u64,
    model: Model,
    bytes: usize,
    explainer: OnceLock<Result<Arc<Prepared>>>,
}

impl Loaded {
    /// A model out of its file's bytes.
    pub fn from_bytes(digest: &str, bytes: &[u8]) -> Result<Loaded> {
        Loaded::from_bytes_by(digest, bytes, &import::import)
    }

    /// The same with another importer.
    pub fn from_bytes_by(digest: &str, bytes: &[u8], import: &Import) -> Result<Loaded> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Ok(Loaded {
            digest: digest.into(),
            number: NEXT.fetch_add(1, Ordering::Relaxed),
            model: import(bytes)?,
            bytes: bytes.len().saturating_mul(BYTES_PER_FILE_BYTE),
            explainer: OnceLock::new(),
        })
    }

    /// SHA-256 of its file.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn forest(&self) -> Result<&Forest> {
        self.model.forest().ok_or_else(|| {
            Error::invalid(format!(
                "the {} model {} is not one ensemble of trees on its rows, and only those can be explained",
                self.model.format().name(),
                self.digest
            ))
        })
    }

    /// The explainer along its paths, prepared at the first question.
    pub(crate) fn explainer(&self) -> Result<Arc<Prepared>> {
        self.explainer.get_or_init(|| Ok(Arc::new(Prepared::new(Explainer::new(self.forest()?)?)))).clone()
    }
}

/// See the module.
pub(crate) struct Shelf {
    bytes_max: usize,
    /// The one asked for last stands last.
    models: Mutex<Vec<Arc<Loaded>>>,
}

impl Shelf {
    pub fn new(bytes_max: usize) -> Shelf {
        Shelf { bytes_max, models: Mutex::default() }
    }

    pub fn find(&self, digest: &str) -> Option<Arc<Loaded>> {
        let mut models = self.models.lock();
        let place = models.iter().position(|model| *model.digest == *digest)?;
        let found = models.remove(place);
        models.push(found.clone());
        Some(found)
    }

    /// Keep a model, and let go of those that were not asked for longest until the rest fits. If somebody else was quicker,
    /// theirs is kept.
    pub fn keep(&self, model: Loaded) -> Arc<Loaded> {
        if let Some(found) = self.find(&model.digest) {
            return found;
        }
        let model = Arc::new(model);
        let mut models = self.models.lock();
        models.push(model.clone());
        let mut bytes: usize = models.iter().map(|model| model.bytes).sum();
        while bytes > self.bytes_max && models.len() > 1 {
            bytes -= models.remove(0).bytes;
        }
        model
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STUMP: &str = include_str!("stump.txt");

    #[test]
    fn a_shelf_keeps_what_was_asked_for_last() {
        let load = |digest: &str| Loaded::from_bytes(digest, STUMP.as_bytes()).unwrap();
        let shelf = Shelf::new(2 * BYTES_PER_FILE_BYTE * STUMP.len());
        let first = shelf.keep(load("a"));
        shelf.keep(load("b"));
        assert!(Arc::ptr_eq(&first, &shelf.find("a").unwrap()));
        assert!(Arc::ptr_eq(&first, &shelf.keep(load("a"))), "it is there already");
        shelf.keep(load("c"));
        assert!(shelf.find("b").is_none());
        assert!(shelf.find("a").is_some() && shelf.find("c").is_some());
        assert_ne!(first.number(), shelf.find("c").unwrap().number());
    }
}
