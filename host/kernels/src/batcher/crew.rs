//! The threads on which kernels are launched.
//!
//! Owns a fixed number of compute threads and one that keeps time, shared by all kernels of a host. Separate from the
//! request path's threads, which must not compute, and from those of plugins. Batchers with a launch ready stand in
//! line and get one turn each, so no kernel keeps the others waiting. For tests there is a crew without threads, which
//! does what is to be done when it is told to, by a virtual clock.
//!
//! Bounded: each batcher stands in line at most as often as it has launches ready, and has one alarm. On failure: a
//! panic never leaves a batcher (see [`super::driver`]). Dropping the crew refuses what has not been launched.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use mainstay_base::{Clock, Error, Result};
use parking_lot::{Condvar, Mutex};

use super::queue::NEVER;

/// Compute threads that a crew may have.
pub const THREADS_MAX: usize = 1_024;

/// A batcher, as its crew sees it.
pub(super) trait Work: Send + Sync {
    /// Do one launch that is ready.
    fn launch(&self);
    /// Time has come: refuse what is late, release what was held. When to come again.
    fn tick(&self) -> u64;
    /// The crew is going: refuse everything that waits.
    fn close(&self);
}

/// See the module. Dropping it stops its threads, after the launches that run.
pub struct Crew {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

pub(super) struct Shared {
    pub clock: Arc<dyn Clock>,
    pub has_threads: bool,
    line: Mutex<Line>,
    work_came: Condvar,
    alarms: Mutex<Vec<Alarm>>,
    alarm_changed: Condvar,
}

#[derive(Default)]
struct Line {
    ready: VecDeque<Arc<dyn Work>>,
    is_closed: bool,
}

struct Alarm {
    at_ns: u64,
    work: Weak<dyn Work>,
}

impl Crew {
    /// A crew of this many compute threads.
    pub fn start(threads: usize, clock: Arc<dyn Clock>) -> Result<Crew> {
        if !(1..=THREADS_MAX).contains(&threads) {
            return Err(Error::invalid(format!("a crew of {threads} threads; it must be from 1 to {THREADS_MAX}")));
        }
        let mut crew = Crew { shared: Arc::new(Shared::new(clock, true)), threads: Vec::new() };
        for number in 0..threads {
            crew.spawn(&format!("kernel-{number}"), Shared::work)?;
        }
        crew.spawn("kernel-time", Shared::keep_time)?;
        Ok(crew)
    }

    /// A crew without threads: launches happen in [`Crew::launch_one`], time in [`Crew::tick`].
    pub fn by_hand(clock: Arc<dyn Clock>) -> Crew {
        Crew { shared: Arc::new(Shared::new(clock, false)), threads: Vec::new() }
    }

    /// Without threads: do the launch that stands first in line; whether there was one.
    pub fn launch_one(&self) -> bool {
        self.shared.launch_one()
    }

    /// Without threads: wake the batchers whose time has come by the crew's clock. When the next one's will, in
    /// nanoseconds of that clock.
    pub fn tick(&self) -> Option<u64> {
        let next_ns = self.shared.tick(self.shared.clock.monotonic_ns());
        (next_ns != NEVER).then_some(next_ns)
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce(&Shared) + Send + 'static) -> Result<()> {
        let shared = self.shared.clone();
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || run(&shared)).map_err(|error| {
            Error::exhausted(format!("cannot start the thread `{name}`: {error}; allow more threads"))
                .with_source(error)
        })?;
        self.threads.push(thread);
        Ok(())
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.shared.line.lock().is_closed = true;
        self.shared.work_came.notify_all();
        let alarms = self.shared.alarms.lock();
        // Under the lock: between looking whether it is closed and waiting, the keeper of time must not miss this.
        self.shared.alarm_changed.notify_all();
        let batchers: Vec<_> = alarms.iter().filter_map(|alarm| alarm.work.upgrade()).collect();
        drop(alarms);
        batchers.iter().for_each(|work| work.close());
        // A caller may drop the last handle from one of these threads; it cannot wait for itself.
        let own = std::thread::current().id();
        for thread in self.threads.drain(..).filter(|thread| thread.thread().id() != own) {
            let _ = thread.join();
        }
        self.shared.line.lock().ready.clear();
    }
}

impl Shared {
    fn new(clock: Arc<dyn Clock>, has_threads: bool) -> Shared {
        Shared {
            clock,
            has_threads,
            line: Mutex::default(),
            work_came: Condvar::new(),
            alarms: Mutex::default(),
            alarm_changed: Condvar::new(),
        }
    }

    /// A batcher joins; the number of its alarm. None when the crew is gone.
    pub fn join(&self, work: Weak<dyn Work>) -> Option<usize> {
        let mut alarms = self.alarms.lock();
        if self.line.lock().is_closed {
            return None;
        }
        let alarm = Alarm { at_ns: NEVER, work };
        // Batchers come and go with models; their places are used again.
        match alarms.iter().position(|alarm| alarm.work.strong_count() == 0) {
            Some(place) => {
                alarms[place] = alarm;
                Some(place)
            }
            None => {
                alarms.push(alarm);
                Some(alarms.len() - 1)
            }
        }
    }

    /// This batcher has so many launches ready.
    pub fn line_up(&self, work: &Arc<dyn Work>, launches: usize) {
        let mut line = self.line.lock();
        (0..launches).for_each(|_| line.ready.push_back(work.clone()));
        drop(line);
        (0..launches).for_each(|_| _ = self.work_came.notify_one());
    }

    /// Wake this batcher at that time, or earlier.
    pub fn arm(&self, alarm: usize, at_ns: u64) {
        let mut alarms = self.alarms.lock();
        if at_ns < alarms[alarm].at_ns {
            alarms[alarm].at_ns = at_ns;
            drop(alarms);
            self.alarm_changed.notify_one();
        }
    }

    /// Do the launch that stands first in line.
    pub fn launch_one(&self) -> bool {
        let work = self.line.lock().ready.pop_front();
        work.map(|work| work.launch()).is_some()
    }

    fn work(&self) {
        loop {
            let mut line = self.line.lock();
            let work = loop {
                match line.ready.pop_front() {
                    _ if line.is_closed => return,
                    Some(work) => break work,
                    None => self.work_came.wait(&mut line),
                }
            };
            drop(line);
            work.launch();
        }
    }

    /// Wake those whose time has come; when the next one's will.
    fn tick(&self, now_ns: u64) -> u64 {
        let mut at = 0;
        loop {
            let mut alarms = self.alarms.lock();
            let Some(place) = (at..alarms.len()).find(|place| alarms[*place].at_ns <= now_ns) else {
                return alarms.iter().map(|alarm| alarm.at_ns).min().unwrap_or(NEVER);
            };
            alarms[place].at_ns = NEVER;
            let work = alarms[place].work.upgrade();
            drop(alarms);
            if let Some(work) = work {
                let next_ns = work.tick();
                let mut alarms = self.alarms.lock();
                alarms[place].at_ns = alarms[place].at_ns.min(next_ns);
            }
            at = place + 1;
        }
    }

    fn keep_time(&self) {
        loop {
            let next_ns = self.tick(self.clock.monotonic_ns());
            let mut alarms = self.alarms.lock();
            if self.line.lock().is_closed {
                return;
            }
            let earliest_ns = alarms.iter().map(|alarm| alarm.at_ns).min().unwrap_or(NEVER).min(next_ns);
            let now_ns = self.clock.monotonic_ns();
            if earliest_ns == NEVER {
                self.alarm_changed.wait(&mut alarms);
            } else if earliest_ns > now_ns {
                self.alarm_changed.wait_for(&mut alarms, Duration::from_nanos(earliest_ns - now_ns));
            }
        }
    }
}
