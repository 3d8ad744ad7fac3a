//! How many bytes of columns one holder may have at a time.
//!
//! Owns a counter and its limit. What is charged is given back when its [`Charge`] is dropped, so a budget can never leak.
//! On failure: `exhausted` with the bytes asked for, those in use and the limit.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mainstay_base::{Error, Result};

/// See the module.
#[derive(Debug)]
pub struct Budget {
    holder: Box<str>,
    limit_bytes: usize,
    used_bytes: AtomicUsize,
}

impl Budget {
    /// A budget of `limit_bytes` for `holder`, which stands in messages.
    pub fn new(holder: &str, limit_bytes: usize) -> Arc<Budget> {
        Arc::new(Budget { holder: holder.into(), limit_bytes, used_bytes: AtomicUsize::new(0) })
    }

    /// Bytes in use.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// The most that may be in use.
    pub fn limit_bytes(&self) -> usize {
        self.limit_bytes
    }

    /// Take `bytes` until the charge is dropped.
    pub fn charge(self: &Arc<Budget>, bytes: usize) -> Result<Charge> {
        let take = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.limit_bytes);
        match self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(_) => Ok(Charge { budget: self.clone(), bytes }),
            Err(used) => Err(Error::exhausted(format!(
                "{bytes} bytes of columns more for {}, which holds {used} of {}; drop what is not needed, work in smaller \
                 pieces, or raise its limit `array-mib`",
                self.holder, self.limit_bytes
            ))),
        }
    }
}

/// Bytes taken from a [`Budget`]; given back on drop.
#[derive(Debug)]
pub struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether they were taken from this budget.
    pub(crate) fn is_of(&self, budget: &Arc<Budget>) -> bool {
        Arc::ptr_eq(&self.budget, budget)
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_holds_its_limit_and_gives_back() {
        let budget = Budget::new("the plugin `a`", 10);
        let first = budget.charge(10).unwrap();
        let error = budget.charge(1).unwrap_err();
        assert!(
            error.message().contains("1 bytes of columns more for the plugin `a`, which holds 10 of 10"),
            "{error}"
        );
        drop(first);
        assert_eq!(budget.used_bytes(), 0);
        assert!(budget.charge(11).is_err());
        assert!(budget.charge(usize::MAX).is_err());
        assert_eq!(budget.charge(4).unwrap().bytes(), 4);
    }
}
