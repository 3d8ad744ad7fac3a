//! Who is ready and who is not, for `/readyz` and gRPC health.
//!
//! A set of named parts, each ready or not with a reason. The host is ready when every part is and it is not draining.
//! Bounded by the number of parts that are reported; a part that is never reported does not hold the host back.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The parts' state. Clones share it.
#[derive(Clone)]
pub struct Readiness {
    parts: Arc<watch::Sender<BTreeMap<String, Option<String>>>>,
}

impl Default for Readiness {
    fn default() -> Readiness {
        Readiness { parts: Arc::new(watch::Sender::new(BTreeMap::new())) }
    }
}

impl Readiness {
    /// No parts yet: ready.
    pub fn new() -> Readiness {
        Readiness::default()
    }

    /// This part is ready.
    pub fn ready(&self, part: &str) {
        self.set(part, None);
    }

    /// This part is not ready, and why.
    pub fn not_ready(&self, part: &str, reason: impl Into<String>) {
        self.set(part, Some(reason.into()));
    }

    /// This part is no longer there.
    pub fn forget(&self, part: &str) {
        self.parts.send_if_modified(|parts| parts.remove(part).is_some());
    }

    /// Whether all parts are ready.
    pub fn is_ready(&self) -> bool {
        self.parts.borrow().values().all(Option::is_none)
    }

    /// Every part, with the reason if it is not ready.
    pub fn parts(&self) -> BTreeMap<String, Option<String>> {
        self.parts.borrow().clone()
    }

    pub(crate) fn watch(&self) -> watch::Receiver<BTreeMap<String, Option<String>>> {
        self.parts.subscribe()
    }

    fn set(&self, part: &str, reason: Option<String>) {
        self.parts.send_if_modified(|parts| match parts.get(part) {
            Some(before) if *before == reason => false,
            _ => {
                parts.insert(part.to_owned(), reason);
                true
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_ready_when_every_part_is() {
        let readiness = Readiness::new();
        assert!(readiness.is_ready());
        readiness.not_ready("plugin:a", "is being compiled");
        readiness.ready("plugin:b");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.parts()["plugin:a"].as_deref(), Some("is being compiled"));
        readiness.ready("plugin:a");
        assert!(readiness.is_ready());
        readiness.not_ready("plugin:a", "failed");
        readiness.forget("plugin:a");
        assert!(readiness.is_ready());
    }
}
