//! Where everything is kept, and how it is changed.
//!
//! Owns the keys (one function each, so that the layout stands in one place) and [`change`], through which every write
//! goes. A run is one document of the index; beside it a small key that says where it belongs and whether it is
//! deleted, which is all that logging has to read. Nothing is written before everything was checked. A change that
//! meets a conflict reads again and tries again, a bounded number of times. Guards are as narrow as they can be: what does
//! not depend on each other (tags, names, uploads) does not meet.

use crate::errors::{Code, Failure, Outcome};
use mainstay_sdk::{ErrorKind, Key, Receipt, Transaction, keys};
use sha2::{Digest, Sha256};

/// How often a change is tried before its conflict is given to the caller.
const ATTEMPTS_MAX: u32 = 24;
/// Names of at most so many bytes stand in keys as they are; longer ones as a digest.
const PLAIN_NAME_BYTES_MAX: usize = 400;

/// Names of the indexes.
pub mod indexes {
    /// One document a run.
    pub const RUNS: &str = "runs";
    /// One document an experiment.
    pub const EXPERIMENTS: &str = "experiments";
    /// One document a logged model.
    pub const LOGGED_MODELS: &str = "logged-models";
    /// One document a registered model.
    pub const REGISTERED_MODELS: &str = "registered-models";
    /// One document a version of a registered model.
    pub const MODEL_VERSIONS: &str = "model-versions";
}

fn named(key: Key, name: &str) -> Key {
    if name.len() <= PLAIN_NAME_BYTES_MAX { key.tag(0).text(name) } else { key.tag(1).raw(Sha256::digest(name)) }
}

/// An experiment's record.
pub fn experiment_key(id: &str) -> Key {
    Key::new().tag(b'e').text(id)
}

/// Leads from an experiment's name to its id.
pub fn experiment_name_key(name: &str) -> Key {
    named(Key::new().tag(b'n'), name)
}

/// The last experiment id that was given out: a counter.
pub fn experiment_counter_key() -> Key {
    Key::new().tag(b'x')
}

/// A run's lifecycle and experiment.
pub fn run_key(id: &str) -> Key {
    Key::new().tag(b'r').text(id)
}

/// A run's param. Written once: the key is the guard against another value.
pub fn param_key(run: &str, name: &str) -> Key {
    named(Key::new().tag(b'p').text(run), name)
}

/// All params of a run.
pub fn params_prefix(run: &str) -> Key {
    Key::new().tag(b'p').text(run)
}

/// A run's metrics: fragments.
pub fn history_key(run: &str) -> Key {
    Key::new().tag(b'm').text(run)
}

/// What went into a run and came out of it.
pub fn inputs_key(run: &str) -> Key {
    Key::new().tag(b'i').text(run)
}

/// A dataset of an experiment, by digest of name and digest.
pub fn dataset_key(experiment: &str, identity: &[u8]) -> Key {
    Key::new().tag(b'd').text(experiment).raw(identity)
}

/// All datasets of an experiment.
pub fn datasets_prefix(experiment: &str) -> Key {
    Key::new().tag(b'd').text(experiment)
}

/// A logged model's lifecycle and experiment.
pub fn logged_model_key(id: &str) -> Key {
    Key::new().tag(b'l').text(id)
}

/// A logged model's metrics: fragments.
pub fn logged_model_metrics_key(id: &str) -> Key {
    Key::new().tag(b'L').text(id)
}

/// Leads from a registered model's name to its key.
pub fn registered_name_key(name: &str) -> Key {
    named(Key::new().tag(b'g'), name)
}

/// A registered model's record.
pub fn registered_key(uid: &str) -> Key {
    Key::new().tag(b'G').text(uid)
}

/// Decisions about a registered model: fragments.
pub fn decisions_key(uid: &str) -> Key {
    Key::new().tag(b'h').text(uid)
}

/// Unique bytes of artifacts below a first path segment.
pub fn quota_key(bucket: &str) -> Key {
    Key::new().tag(b'q').text(bucket)
}

/// How many names below a first path segment refer to a blob.
pub fn quota_blob_key(bucket: &str, sha256: &str) -> Key {
    Key::new().tag(b'Q').text(bucket).raw(sha256)
}

/// Blobs of one size below a first path segment: behind it stands the digest of each.
pub fn quota_size_key(bucket: &str, size_bytes: u64) -> Key {
    Key::new().tag(b'S').text(bucket).u64(size_bytes)
}

/// Guards an artifact's name against two uploads at once.
pub fn artifact_key(name: &str) -> Key {
    named(Key::new().tag(b'a'), name)
}

/// A deletion or restoration of an experiment that may not have reached all its runs.
pub fn cascade_key(experiment: &str) -> Key {
    Key::new().tag(b'c').text(experiment)
}

/// What is left to clear up behind something that was removed.
pub fn leftovers_key(id: &str) -> Key {
    Key::new().tag(b'z').text(id)
}

/// All that is left to clear up.
pub fn leftovers_prefix() -> Key {
    Key::new().tag(b'z')
}

/// All unfinished cascades.
pub fn cascades_prefix() -> Key {
    Key::new().tag(b'c')
}

/// A webhook.
pub fn webhook_key(id: &str) -> Key {
    webhooks_prefix().text(id)
}

/// All webhooks.
pub fn webhooks_prefix() -> Key {
    Key::new().tag(b'w')
}

/// The number of the last webhook: what creating one is guarded on.
pub fn webhook_number_key() -> Key {
    Key::new().tag(b'W')
}

/// Leads nowhere: written when a version is removed, so that it can be guarded against that.
pub fn version_key(uid: &str, version: i64) -> Key {
    Key::new().tag(b'V').text(uid).i64(version)
}

/// Run `collect` in a transaction and commit it, again after a conflict. Reads that follow still see the call's view, from
/// before the change, until it is renewed.
///
/// The host answers a conflict when what was lost to can be read, and lets those who try again go one after the other: that
/// all attempts fail takes a storm on one thing. Nothing was written then, so clients are told to repeat it.
pub fn change<T>(mut collect: impl FnMut(&Transaction) -> Outcome<T>) -> Outcome<(T, Receipt)> {
    for _ in 0..ATTEMPTS_MAX {
        let tx = Transaction::begin()?;
        let value = collect(&tx)?;
        match tx.commit() {
            Ok(receipt) => return Ok((value, receipt)),
            Err(error) if error.kind() == ErrorKind::Conflict => keys::renew()?,
            Err(error) => return Err(error.into()),
        }
    }
    Err(Failure::new(
        Code::TemporarilyUnavailable,
        "Other requests keep changing the same thing, so this one was not carried out. Nothing was written; send it again.",
    ))
}

/// Whether something is there for everyday use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    /// It is.
    Active,
    /// It was deleted and can be restored.
    Deleted,
}

impl Lifecycle {
    /// The word on the wire and in the index.
    pub fn word(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deleted => "deleted",
        }
    }
}

/// What a run's key (or a logged model's) says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Whether it may be written.
    pub lifecycle: Lifecycle,
    /// The experiment that it belongs to.
    pub experiment_id: String,
}

impl Place {
    /// As it is stored.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![if self.lifecycle == Lifecycle::Active { b'a' } else { b'd' }];
        out.extend_from_slice(self.experiment_id.as_bytes());
        out
    }

    /// From what is stored.
    pub fn decode(bytes: &[u8]) -> Outcome<Self> {
        let damaged = || Failure::new(Code::InternalError, "a stored record is damaged; check the host's data folder");
        let (lifecycle, id) = bytes.split_first().ok_or_else(damaged)?;
        Ok(Self {
            lifecycle: if *lifecycle == b'a' { Lifecycle::Active } else { Lifecycle::Deleted },
            experiment_id: std::str::from_utf8(id).map_err(|_| damaged())?.to_owned(),
        })
    }
}
