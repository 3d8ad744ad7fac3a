//! The engine without files: a map under a lock.
//!
//! It makes nothing durable, so its checkpoint is 0 and the log behind it is never shortened: a store on it is rebuilt from
//! the whole log. Bounded by memory alone; meant for tests and for stores without files.

use std::collections::BTreeMap;
use std::ops::Bound;

use bytes::Bytes;
use mainstay_base::Result;
use parking_lot::RwLock;

use super::{Ordered, Span, Visit, Write};

/// An ordered map in memory.
#[derive(Default)]
pub struct MemoryEngine {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    applied: u64,
    map: BTreeMap<Bytes, Bytes>,
}

impl Ordered for MemoryEngine {
    fn applied(&self) -> Result<u64> {
        Ok(self.state.read().applied)
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>> {
        Ok(self.state.read().map.get(key).cloned())
    }

    fn scan(&self, span: Span<'_>, reverse: bool, _keys_only: bool, visit: &mut Visit<'_>) -> Result<()> {
        if span.is_empty() {
            return Ok(());
        }
        let state = self.state.read();
        let mut entries = state.map.range::<[u8], _>((Bound::Included(span.start), Bound::Excluded(span.end)));
        while let Some((key, value)) = if reverse { entries.next_back() } else { entries.next() } {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }

    fn write_batch(&self, applied: u64, writes: &[Write]) -> Result<()> {
        let mut state = self.state.write();
        state.applied = applied;
        for write in writes {
            match &write.value {
                Some(value) => state.map.insert(write.key.clone(), value.clone()),
                None => state.map.remove(&write.key),
            };
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<u64> {
        Ok(0)
    }
}
