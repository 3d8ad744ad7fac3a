//! What is kept of endpoints, in the store.
//!
//! Owns the keys and records: for each endpoint its specification, salt and active plan, and a history of plans with who, when
//! and why. Separate from what happens in memory, because these lines alone survive a crash. A change is one transaction that
//! is guarded by the record it replaces, so nobody overwrites what he has not seen, and no change is there in part.
//!
//! Bounded by [`DOCUMENT_BYTES_MAX`]. On failure: `conflict` when somebody else was first; nothing has changed then.

use bytes::Bytes;
use mainstay_base::{Error, Result};
use mainstay_store::{KeyRange, ScanOptions, Space, Store, Transaction};
use serde::{Deserialize, Serialize};

use crate::limits::{DOCUMENT_BYTES_MAX, HISTORY_PAGE_MAX, REASON_BYTES_MAX};
use crate::plan::Plan;
use crate::spec::EndpointSpec;
use crate::split::Salt;

/// Who changes something, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reason {
    /// Who.
    pub by: String,
    /// Why.
    pub why: String,
}

impl Reason {
    /// Longer ones are cut.
    pub fn new(by: impl Into<String>, why: impl Into<String>) -> Reason {
        Reason { by: cut(by.into()), why: cut(why.into()) }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > REASON_BYTES_MAX {
        let end = (0..=REASON_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
    }
    text
}

/// A plan that was or is active.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct PlanRecord {
    /// Grows by one with each plan of the endpoint.
    pub version: u64,
    /// The plan's name, if it is one of the named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The plan.
    pub plan: Plan,
    /// Who made it active, and why.
    #[serde(flatten)]
    pub reason: Reason,
    /// When, in milliseconds since 1970 UTC.
    pub at_ms: i64,
}

/// An endpoint as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct EndpointRecord {
    /// Grows by one with each change of the specification.
    pub revision: u64,
    /// The specification.
    pub spec: EndpointSpec,
    /// The plan that is active.
    pub active: PlanRecord,
    /// Who changed the specification last, and why.
    #[serde(flatten)]
    pub reason: Reason,
    /// When, in milliseconds since 1970 UTC.
    pub updated_ms: i64,
    /// The secret of the endpoint's hashes.
    #[serde(with = "salt_text")]
    pub(crate) salt: Salt,
}

/// A salt as 32 hexadecimal digits.
mod salt_text {
    use super::Salt;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(salt: &Salt, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:032x}", u128::from_be_bytes(*salt)))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Salt, D::Error> {
        let text = String::deserialize(deserializer)?;
        let number = u128::from_str_radix(&text, 16).map_err(D::Error::custom)?;
        Ok(number.to_be_bytes())
    }
}

/// Some of an endpoint's plans, newest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The plans.
    pub plans: Vec<PlanRecord>,
    /// Give it as `before` to go on.
    pub next: Option<u64>,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Records {
    store: Store,
    space: Space,
}

const ENDPOINTS: &[u8] = b"e/";
const HISTORY: &[u8] = b"h/";

fn endpoint_key(name: &str) -> Vec<u8> {
    [ENDPOINTS, name.as_bytes()].concat()
}

/// Names have no zero byte.
fn history_prefix(name: &str) -> Vec<u8> {
    [HISTORY, name.as_bytes(), &[0]].concat()
}

fn history_key(name: &str, version: u64) -> Vec<u8> {
    [&history_prefix(name)[..], &version.to_be_bytes()].concat()
}

impl Records {
    pub fn new(store: Store) -> Records {
        Records { store, space: Space::host("traffic") }
    }

    pub fn endpoint(&self, name: &str) -> Result<Option<EndpointRecord>> {
        let value = self.store.view().get(&self.space, &endpoint_key(name))?;
        value.map(|value| decode(&value, name)).transpose()
    }

    pub fn endpoints(&self) -> Result<Vec<EndpointRecord>> {
        let (view, mut all, mut after) = (self.store.view(), Vec::new(), None);
        loop {
            let options = ScanOptions { limit: 1_000, after, ..ScanOptions::default() };
            let page = view.scan(&self.space, &[KeyRange::prefix(ENDPOINTS)], &options)?;
            for (key, value) in &page {
                all.push(decode(value, &String::from_utf8_lossy(&key[ENDPOINTS.len()..]))?);
            }
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }

    pub fn history(&self, name: &str, before: Option<u64>, limit: u32) -> Result<History> {
        let mut range = KeyRange::prefix(&history_prefix(name));
        if let Some(before) = before {
            range.end = Some(history_key(name, before));
        }
        let limit = limit.clamp(1, HISTORY_PAGE_MAX);
        let options = ScanOptions { reverse: true, limit, ..ScanOptions::default() };
        let page = self.store.view().scan(&self.space, &[range], &options)?;
        let plans: Vec<PlanRecord> = page.iter().map(|(_, value)| decode(value, name)).collect::<Result<_>>()?;
        let next = page.next.as_ref().and_then(|_| plans.last()).map(|plan| plan.version);
        Ok(History { plans, next })
    }

    pub fn plan(&self, name: &str, version: u64) -> Result<Option<PlanRecord>> {
        let value = self.store.view().get(&self.space, &history_key(name, version))?;
        value.map(|value| decode(&value, name)).transpose()
    }

    /// Replace `before` (none: nothing is there) by `after`, and add its plan to the history if it is another.
    pub async fn change(&self, before: Option<&EndpointRecord>, after: &EndpointRecord) -> Result<()> {
        let name = &after.spec.name;
        let mut tx = self.guarded(name, before)?;
        tx.put(&self.space, &endpoint_key(name), encode(after)?)?;
        if before.is_none_or(|before| before.active.version != after.active.version) {
            tx.put(&self.space, &history_key(name, after.active.version), encode(&after.active)?)?;
        }
        self.store.commit(tx).await.map(|_| ())
    }

    /// Remove an endpoint; its history stays.
    pub async fn remove(&self, record: &EndpointRecord) -> Result<()> {
        let name = &record.spec.name;
        let mut tx = self.guarded(name, Some(record))?;
        tx.delete(&self.space, &endpoint_key(name))?;
        self.store.commit(tx).await.map(|_| ())
    }

    /// A transaction that commits only while this is what is there. Compared as it reads, not as it is written: a later version
    /// may write the same record otherwise.
    fn guarded(&self, name: &str, before: Option<&EndpointRecord>) -> Result<Transaction> {
        let (view, key) = (self.store.view(), endpoint_key(name));
        let current: Option<EndpointRecord> =
            view.get(&self.space, &key)?.map(|value| decode(&value, name)).transpose()?;
        if current.as_ref() != before {
            return Err(Error::conflict(format!(
                "endpoint `{name}` was changed by somebody else meanwhile; look at it and try again"
            )));
        }
        let mut tx = self.store.begin(&view);
        tx.expect_unchanged(&self.space, &key)?;
        Ok(tx)
    }
}

fn encode(record: &impl Serialize) -> Result<Bytes> {
    let text =
        serde_json::to_vec(record).map_err(|error| Error::internal(format!("a record cannot be written: {error}")))?;
    if text.len() > 2 * DOCUMENT_BYTES_MAX {
        let length = text.len();
        return Err(Error::invalid(format!(
            "the endpoint with its plan takes {length} bytes; at most {} are allowed",
            2 * DOCUMENT_BYTES_MAX
        )));
    }
    Ok(Bytes::from(text))
}

fn decode<T: serde::de::DeserializeOwned>(value: &[u8], name: &str) -> Result<T> {
    serde_json::from_slice(value).map_err(|error| {
        Error::internal(format!("what is kept of endpoint `{name}` cannot be read ({error}); run `mainstay doctor`"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_cut_at_a_whole_character() {
        assert_eq!(Reason::new("me", "x".repeat(REASON_BYTES_MAX)).why.len(), REASON_BYTES_MAX);
        let long = format!("{}é", "x".repeat(REASON_BYTES_MAX - 1));
        assert_eq!(Reason::new("me", long).why.len(), REASON_BYTES_MAX - 1);
    }
}
