//! The threads that questions are worked on, and how long they may take.
//!
//! Owns a bounded pool of threads for everything that reads much (SQL, windows, aggregates) and the one thread that watches
//! the time. Separate from both, and from whoever asks: planning and decoding may keep a thread for long, and no thread of a
//! caller's should be it. The watch has a thread of its own because a question that never yields would not let a timer on its
//! own thread ring.
//!
//! Bounded by: [`QUERIES_MAX`] questions at a time and [`QUERIES_WAITING_MAX`] that wait. Whoever stops waiting for an answer
//! stops the work at its next step; it keeps its turn until it has really ended. On failure: `exhausted` when the time is over
//! or too many wait; `internal` when the work panicked.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use mainstay_base::{Error, Result};
use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::limits::{QUERIES_MAX, QUERIES_WAITING_MAX, STACK_BYTES};
use crate::table::Tables;

/// See the module. Its threads begin with the first question.
pub(crate) struct Pool {
    pub threads: usize,
    runtimes: Mutex<Option<Runtimes>>,
    turns: Arc<Semaphore>,
    places: Arc<Semaphore>,
}

struct Runtimes {
    work: Runtime,
    watch: Runtime,
}

impl Pool {
    pub fn new(threads: usize) -> Pool {
        Pool {
            threads: threads.max(1),
            runtimes: Mutex::default(),
            turns: Arc::new(Semaphore::new(QUERIES_MAX)),
            places: Arc::new(Semaphore::new(QUERIES_MAX + QUERIES_WAITING_MAX)),
        }
    }

    /// Work on something for so long at most, waiting for its turn included.
    pub async fn run<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| {
            Error::exhausted(format!("{QUERIES_WAITING_MAX} questions wait for their turn; ask again in a moment"))
        })?;
        let turns = self.turns.clone();
        let work = async move {
            let (_place, _turn) = (place, turns.acquire_owned().await);
            work.await
        };
        self.start(within, work)?.await?
    }

    /// The same for what does not wait for anything.
    pub async fn run_blocking<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(within, async move { work() }).await
    }

    fn start<T: Send + 'static>(
        &self,
        within: Duration,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<Running<Result<T>>> {
        let mut runtimes = self.runtimes.lock();
        if runtimes.is_none() {
            *runtimes =
                Some(Runtimes { work: threads(self.threads, "tables-work")?, watch: threads(1, "tables-watch")? });
        }
        let Runtimes { work: workers, watch } = runtimes.as_ref().expect("they were just made");
        let running = Running(workers.spawn(work));
        Ok(Running(watch.spawn(async move {
            tokio::time::timeout(within, running).await.unwrap_or_else(|_| {
                Err(Error::exhausted(format!(
                    "it took longer than {within:?}; ask for less, or for a smaller window of time"
                )))
            })?
        })))
    }
}

impl Tables {
    /// Threads that one question is worked on with.
    pub fn query_threads(&self) -> usize {
        self.inner.pool.threads
    }

    /// Work on a question about tables, on the threads that are there for it and in its turn: for so long at most, waiting
    /// included. Dropping the answer stops the work at its next step.
    pub async fn work<T: Send + 'static>(
        &self,
        within: Duration,
        question: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.inner.pool.run(within, question).await
    }
}

fn threads(count: usize, name: &str) -> Result<Runtime> {
    let mut builder = Builder::new_multi_thread();
    builder
        .worker_threads(count)
        .max_blocking_threads(1)
        .thread_stack_size(STACK_BYTES)
        .thread_name(name)
        .enable_time();
    builder.build().map_err(|error| Error::unavailable("no threads to work on questions").with_source(error))
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Waiting for its threads is not allowed on the threads of another executor.
        if let Some(Runtimes { work, watch }) = self.runtimes.get_mut().take() {
            work.shutdown_background();
            watch.shutdown_background();
        }
    }
}

/// Work that stops when nobody waits for it any more.
struct Running<T>(JoinHandle<T>);

impl<T> Future for Running<T> {
    type Output = Result<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<T>> {
        let ended = |ended| Err(Error::internal("a question ended without an answer").with_source(ended));
        Pin::new(&mut self.0).poll(context).map(|joined| joined.or_else(ended))
    }
}

impl<T> Drop for Running<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use futures::FutureExt;
    use futures::executor::block_on;
    use mainstay_base::ErrorKind;

    use super::*;

    #[test]
    fn work_that_never_yields_is_given_up_in_time() {
        let pool = Pool::new(1);
        let began = Instant::now();
        let slow = pool.run_blocking(Duration::from_millis(50), || {
            std::thread::sleep(Duration::from_millis(1_500));
            Ok(())
        });
        let error = block_on(slow).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
        assert!(began.elapsed() < Duration::from_millis(1_200), "{:?}", began.elapsed());
    }

    #[test]
    fn more_than_may_wait_are_refused_and_a_panic_is_an_error() {
        let pool = Pool::new(2);
        let hour = Duration::from_secs(3_600);
        let waiting: Vec<_> = (0..QUERIES_MAX + QUERIES_WAITING_MAX)
            .map(|_| {
                let mut waiting = Box::pin(pool.run(hour, std::future::pending::<Result<()>>()));
                assert!(waiting.as_mut().now_or_never().is_none());
                waiting
            })
            .collect();
        let refused = block_on(pool.run_blocking(hour, || Ok(()))).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Exhausted);
        assert!(refused.message().contains("64 questions wait"), "{refused}");
        drop(waiting);
        // What was given up has ended before long.
        let began = Instant::now();
        while block_on(pool.run_blocking(hour, || Ok(()))).is_err() {
            assert!(began.elapsed() < Duration::from_secs(10));
        }
        let panicked = block_on(pool.run_blocking::<()>(hour, || panic!("on purpose"))).unwrap_err();
        assert_eq!(panicked.kind(), ErrorKind::Internal);
    }
}
