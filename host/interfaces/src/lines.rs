//! Who is next to change a key that several calls want to change at once.
//!
//! Owns [`Lines`]: after a conflict a call stands in line for the key that it lost, so that the calls of a plugin change
//! it one after the other instead of all trying at once, of which one wins and the unlucky lose every time. Nobody has to
//! stand in line before a conflict, so what never conflicts pays nothing; one who comes and reads at the right moment may
//! be first.
//!
//! A plugin has its own lines: one that dawdles holds up nobody else. Bounded by [`LINES`] (keys share them, which only
//! makes them wait for each other) and [`WAIT_MAX`], after which a call tries without its turn. A call has one turn at a
//! time and gives it back before it waits for another, so no two wait for each other.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};

/// How many lines a plugin has.
const LINES: usize = 64;
/// The longest that a call stands in line.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// The lines of a plugin.
pub(crate) struct Lines {
    hash: RandomState,
    wait_max: Duration,
    /// Locks that are given in the order in which they were asked for.
    lines: [Arc<Mutex<()>>; LINES],
}

/// At the head of a line, until this is dropped.
pub(crate) struct Turn(OwnedMutexGuard<()>);

impl Default for Lines {
    fn default() -> Lines {
        Lines { hash: RandomState::new(), wait_max: WAIT_MAX, lines: std::array::from_fn(|_| Arc::default()) }
    }
}

impl Lines {
    /// Stand in the key's line until it is this call's turn; who has that turn already keeps it. None after [`WAIT_MAX`].
    pub(crate) async fn stand(&self, key: &[u8], held: Option<Turn>) -> Option<Turn> {
        let line = &self.lines[self.hash.hash_one(key) as usize % LINES];
        match held {
            Some(turn) if Arc::ptr_eq(OwnedMutexGuard::mutex(&turn.0), line) => return Some(turn),
            another => drop(another),
        }
        tokio::time::timeout(self.wait_max, line.clone().lock_owned()).await.ok().map(Turn)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use super::*;

    fn poll<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Poll<T> {
        future.poll(&mut std::task::Context::from_waker(std::task::Waker::noop()))
    }

    #[tokio::test]
    async fn turns_come_in_order_and_are_kept_until_they_are_given_back() {
        let lines = Lines { wait_max: Duration::from_millis(200), ..Lines::default() };
        let first = lines.stand(b"k", None).await;
        assert!(first.is_some());
        let first = lines.stand(b"k", first).await;
        let mut second = std::pin::pin!(lines.stand(b"k", None));
        let mut third = std::pin::pin!(lines.stand(b"k", None));
        assert!(poll(second.as_mut()).is_pending() && poll(third.as_mut()).is_pending());
        drop(first);
        assert!(poll(third.as_mut()).is_pending(), "it came later");
        let second = second.await;
        assert!(second.is_some());
        assert!(third.await.is_none(), "nobody waits for ever");
    }

    #[tokio::test]
    async fn who_waits_for_another_line_has_given_its_turn_back() {
        let lines = Lines::default();
        let other = (0..=u8::MAX).map(|byte| [byte]).find(|key| {
            lines.hash.hash_one(&key[..]) as usize % LINES != lines.hash.hash_one(&b"k"[..]) as usize % LINES
        });
        let other = other.unwrap();
        let held = lines.stand(b"k", None).await;
        let _elsewhere = lines.stand(&other, None).await;
        let mut waits = std::pin::pin!(lines.stand(&other, held));
        assert!(poll(waits.as_mut()).is_pending());
        assert!(lines.stand(b"k", None).await.is_some());
    }
}
