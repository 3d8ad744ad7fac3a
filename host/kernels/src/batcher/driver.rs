//! The queue of one kernel, on threads.
//!
//! Owns the lock around the [`Queue`], the calls' answers, and the way from a launch back to its callers. Separate from
//! the queue because everything here is about threads and nothing about which request goes first.
//!
//! One short lock for each kernel: it is held to decide, never to compute, to answer or to wake. A call costs one
//! allocation (the [`Call`], shared by its future and its launch), one turn of the lock to submit, and its part of the
//! one with which the whole launch ends. The next launch is lined up before the answers of the last are given.
//!
//! Bounded by the policy. On failure: a panic in the kernel becomes `internal` for the request that causes it; a kernel
//! that gives more or fewer answers than it has parts fails all of that launch.

use std::collections::VecDeque;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use mainstay_base::{Clock, Error, Result};
use parking_lot::Mutex;

use super::crew::{Crew, Shared, Work};
use super::policy::Policy;
use super::queue::{Arrival, Launch, NEVER, Part, Queue, Ticket, Verdict};
use super::refusal::Refusal;
use super::stats::Stats;
use super::{Batch, Kernel};

/// How a call is to be treated.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    /// Level of priority, 0 first; none: the policy's default.
    pub level: Option<u8>,
    /// The call is refused when it has no answer after this time; the policy's `timeout` holds as well.
    pub timeout: Option<Duration>,
    /// Whether the kernel may be launched on the calling thread, when that is faster. Blocking calls always allow it.
    pub inline: bool,
}

/// The batcher of one kernel. Cheap to clone.
pub struct Batcher<K: Kernel> {
    inner: Arc<Inner<K>>,
}

/// One who calls a kernel, and gets its share of it: a plugin, an endpoint. Dropped with its last clone.
pub struct Caller<K: Kernel> {
    handle: Arc<Handle<K>>,
}

/// An answer to come. Dropping it cancels the call: what was not launched yet never is.
#[must_use = "dropping the reply cancels the call"]
pub struct Reply<K: Kernel> {
    inner: Arc<Inner<K>>,
    call: Arc<Call<K>>,
    ticket: Ticket,
    is_taken: bool,
}

/// Cancels a call from elsewhere: its reply is then [`Refusal::Cancelled`].
pub struct Canceller<K: Kernel> {
    inner: Weak<Inner<K>>,
    ticket: Ticket,
}

/// Comes when the batcher was drained.
pub struct Drained<K: Kernel> {
    inner: Arc<Inner<K>>,
}

struct Handle<K: Kernel> {
    inner: Arc<Inner<K>>,
    id: u32,
}

/// A request and the place for its answer.
pub(super) struct Call<K: Kernel> {
    request: K::Request,
    rows: usize,
    answer: Mutex<Place<K::Answer>>,
}

struct Place<A> {
    result: Option<Result<A, Refusal>>,
    waker: Option<Waker>,
    /// Whether the result was set; it may have been taken since.
    is_given: bool,
    /// Of a request that was split: first row and answer of the parts that are back, and their rows.
    parts: Vec<(u32, A)>,
    rows: usize,
}

pub(super) struct Inner<K: Kernel> {
    kernel: K,
    policy: Policy,
    crew: Arc<Shared>,
    clock: Arc<dyn Clock>,
    /// The number of this batcher's alarm at the crew.
    alarm: OnceLock<usize>,
    me: Weak<Inner<K>>,
    core: Mutex<Core<K>>,
    /// Vectors kept between launches.
    spare: Mutex<Vec<Vec<Result<K::Answer>>>>,
}

type Calls<K> = Arc<Call<K>>;
type LaunchOf<K> = Launch<<K as Kernel>::Shape, Calls<K>>;

struct Core<K: Kernel> {
    queue: Queue<K::Shape, Calls<K>>,
    ready: VecDeque<LaunchOf<K>>,
    /// The earliest time for which the crew was asked to wake this batcher.
    armed_ns: u64,
    drain_wakers: Vec<Waker>,
    /// Launches that ended and whose answers are being given.
    answering: usize,
}

/// What is to be done once the lock is free.
struct Outside<K: Kernel> {
    refused: Vec<(Calls<K>, Refusal)>,
    launches: usize,
    arm_ns: Option<u64>,
    drained: Vec<Waker>,
}

impl<K: Kernel> Clone for Batcher<K> {
    fn clone(&self) -> Self {
        Batcher { inner: self.inner.clone() }
    }
}

impl<K: Kernel> Batcher<K> {
    /// A batcher for this kernel. `invalid` names what is wrong with the policy.
    pub fn new(kernel: K, policy: Policy, crew: &Crew) -> Result<Batcher<K>> {
        policy.check().map_err(|error| error.context(format_args!("the kernel `{}`", kernel.name())))?;
        let crew = crew.shared().clone();
        let clock = crew.clock.clone();
        let queue = Queue::new(policy.clone(), clock.monotonic_ns());
        let core = Core { queue, ready: VecDeque::new(), armed_ns: NEVER, drain_wakers: Vec::new(), answering: 0 };
        let inner = Arc::new_cyclic(|me: &Weak<Inner<K>>| Inner {
            kernel,
            policy,
            crew,
            clock,
            alarm: OnceLock::new(),
            me: me.clone(),
            core: Mutex::new(core),
            spare: Mutex::default(),
        });
        let me: Weak<Inner<K>> = Arc::downgrade(&inner);
        match inner.crew.join(me) {
            Some(alarm) => inner.alarm.get_or_init(|| alarm),
            None => return Err(Error::unavailable("the threads for kernels are stopping")),
        };
        Ok(Batcher { inner })
    }

    /// Register a caller. The same name is the same caller; its weight (1 to [`super::WEIGHT_MAX`]) is the one given
    /// last: a caller of weight 2 gets twice the rows of one of weight 1 while both have work waiting.
    pub fn caller(&self, name: &str, weight: u32) -> Result<Caller<K>> {
        let id = self.inner.core.lock().queue.add_caller(name, weight)?;
        Ok(Caller { handle: Arc::new(Handle { inner: self.inner.clone(), id }) })
    }

    /// The kernel.
    pub fn kernel(&self) -> &K {
        &self.inner.kernel
    }

    /// The policy it was made with.
    pub fn policy(&self) -> &Policy {
        &self.inner.policy
    }

    /// What it has seen.
    pub fn stats(&self) -> Stats {
        self.inner.core.lock().queue.stats(self.inner.clock.monotonic_ns())
    }

    /// Take no more calls, launch what waits without holding it, and refuse what has no answer after `patience`. Comes
    /// when nothing waits and nothing runs. Draining begins now, whether or not somebody waits for its end.
    pub fn drain(&self, patience: Duration) -> Drained<K> {
        let now_ns = self.inner.clock.monotonic_ns();
        self.inner.drain(now_ns, now_ns.saturating_add(nanoseconds(patience)));
        Drained { inner: self.inner.clone() }
    }
}

impl<K: Kernel> Clone for Caller<K> {
    fn clone(&self) -> Self {
        Caller { handle: self.handle.clone() }
    }
}

impl<K: Kernel> Drop for Handle<K> {
    fn drop(&mut self) {
        self.inner.core.lock().queue.drop_caller(self.id);
    }
}

impl<K: Kernel> Caller<K> {
    /// Call the kernel. Refused at once, or answered by the reply.
    pub fn submit(&self, request: K::Request, ask: Ask) -> Result<Reply<K>, Refusal> {
        self.handle.inner.submit(self.handle.id, request, ask, false)
    }

    /// Call the kernel and wait on this thread, which may do the launch itself. Not for threads that serve futures.
    pub fn submit_blocking(&self, request: K::Request, ask: Ask) -> Result<K::Answer, Refusal> {
        let inner = &self.handle.inner;
        let reply = inner.submit(self.handle.id, request, ask, true)?;
        while !inner.crew.has_threads && !reply.is_answered() && inner.crew.launch_one() {}
        wait(reply)
    }
}

impl<K: Kernel> Inner<K> {
    fn submit(&self, caller: u32, request: K::Request, ask: Ask, blocks: bool) -> Result<Reply<K>, Refusal> {
        let rows = self.kernel.rows(&request);
        let shape = self.kernel.shape(&request);
        self.check_rows(rows)?;
        let answer = Mutex::new(Place { result: None, waker: None, is_given: false, parts: Vec::new(), rows: 0 });
        let call = Arc::new(Call { request, rows, answer });
        let timeout = ask.timeout.into_iter().chain(self.policy.timeout).min();
        let now_ns = self.clock.monotonic_ns();
        let arrival = Arrival {
            shape,
            caller,
            level: ask.level.unwrap_or(self.policy.default_level),
            rows: rows.max(1) as u32,
            deadline_ns: timeout.map_or(NEVER, |timeout| now_ns.saturating_add(nanoseconds(timeout))),
        };
        let mut core = self.core.lock();
        let is_inline = blocks || (ask.inline && self.is_quick(&core, arrival.rows));
        let ticket = core.queue.submit(now_ns, arrival, call.clone());
        let mut own = None;
        if is_inline && ticket.is_ok() && core.ready.is_empty() {
            own = core.queue.next(now_ns);
        }
        let outside = self.settle(&mut core, now_ns);
        drop(core);
        self.carry_out(outside);
        let ticket = ticket?;
        if let Some(launch) = own {
            self.run(launch);
        }
        Ok(Reply { inner: self.arc(), call, ticket, is_taken: false })
    }

    fn check_rows(&self, rows: usize) -> Result<()> {
        let most = if self.kernel.is_divisible() { u32::MAX as usize } else { self.policy.max_rows };
        if rows <= most {
            return Ok(());
        }
        Err(Error::invalid(format!(
            "a request of {rows} rows to the kernel `{}`, which takes at most {most} and cannot split it; send smaller \
             ones, or raise `max_rows`",
            self.kernel.name()
        )))
    }

    /// Whether a launch of this request alone is too short to be worth another thread.
    fn is_quick(&self, core: &Core<K>, rows: u32) -> bool {
        let most_ns = nanoseconds(self.policy.inline_max);
        most_ns > 0 && core.queue.expected_alone_ns(rows).is_some_and(|ns| ns <= most_ns)
    }

    /// After the queue changed: collect what follows from it.
    fn settle(&self, core: &mut Core<K>, now_ns: u64) -> Outside<K> {
        let mut outside = Outside { refused: Vec::new(), launches: 0, arm_ns: None, drained: Vec::new() };
        while let Some(launch) = core.queue.next(now_ns) {
            core.ready.push_back(launch);
            outside.launches += 1;
        }
        while let Some(refused) = core.queue.pop_refused() {
            outside.refused.push(refused);
        }
        let wake_ns = core.queue.wake_at();
        if wake_ns < core.armed_ns {
            core.armed_ns = wake_ns;
            outside.arm_ns = Some(wake_ns);
        }
        outside.drained = core.drained();
        outside
    }

    fn carry_out(&self, outside: Outside<K>) {
        if outside.launches > 0 {
            let work: Arc<dyn Work> = self.arc();
            self.crew.line_up(&work, outside.launches);
        }
        if let Some(at_ns) = outside.arm_ns {
            let alarm = self.alarm.get().expect("it joined the crew when it was made");
            self.crew.arm(*alarm, at_ns);
        }
        outside.refused.into_iter().for_each(|(call, refusal)| call.give(Err(refusal)));
        outside.drained.into_iter().for_each(Waker::wake);
    }

    /// Compute a launch, line up what follows, answer.
    fn run(&self, mut launch: LaunchOf<K>) {
        let mut answers = self.spare.lock().pop().unwrap_or_default();
        let began_ns = self.clock.monotonic_ns();
        self.compute(&launch, &mut answers);
        let now_ns = self.clock.monotonic_ns();
        let ran_ns = now_ns.saturating_sub(began_ns);
        let mut core = self.core.lock();
        core.queue.finish(now_ns, &mut launch, ran_ns, |at| answers[at].is_err());
        core.answering += 1;
        let outside = self.settle(&mut core, now_ns);
        drop(core);
        self.carry_out(outside);
        for (part, answer) in launch.parts.iter().zip(answers.drain(..)) {
            self.answer(part, answer);
        }
        self.spare.lock().push(answers);
        // Requests are dropped here, not under the lock.
        launch.parts.clear();
        let mut core = self.core.lock();
        core.queue.recycle(launch.parts);
        core.answering -= 1;
        let drained = core.drained();
        drop(core);
        drained.into_iter().for_each(Waker::wake);
    }

    /// Exactly one answer for each part, whatever the kernel does. When it panics over several, each is tried alone, so
    /// that one caller's request cannot fail those it happened to ride with.
    fn compute(&self, launch: &LaunchOf<K>, answers: &mut Vec<Result<K::Answer>>) {
        if self.compute_parts(&launch.shape, &launch.parts, answers).is_ok() {
            return;
        }
        answers.clear();
        let mut alone = Vec::with_capacity(1);
        for part in &launch.parts {
            let tried = self.compute_parts(&launch.shape, std::slice::from_ref(part), &mut alone);
            answers.push(tried.and_then(|()| alone.pop().expect("there is one answer for one part")));
            alone.clear();
        }
    }

    /// Exactly one answer for each part, unless the kernel panics.
    fn compute_parts(
        &self,
        shape: &K::Shape,
        parts: &[Part<Calls<K>>],
        answers: &mut Vec<Result<K::Answer>>,
    ) -> Result<()> {
        let (batch, name) = (Batch { shape, parts }, self.kernel.name());
        catch_unwind(AssertUnwindSafe(|| self.kernel.launch(&batch, answers))).map_err(|panic| {
            Error::internal(format!("the kernel `{name}` panicked over this request: {}", words_of(&*panic)))
        })?;
        if answers.len() != parts.len() {
            let message = format!("the kernel `{name}` gave {} answers for {} parts", answers.len(), parts.len());
            answers.clear();
            answers.resize_with(parts.len(), || Err(Error::internal(message.clone())));
        }
        Ok(())
    }

    fn answer(&self, part: &Part<Calls<K>>, answer: Result<K::Answer>) {
        let call = &part.payload;
        match (part.verdict, answer) {
            (Verdict::Stale, _) => {}
            (_, Err(error)) => call.give(Err(Refusal::Failed(error))),
            (_, Ok(answer)) if part.rows as usize >= call.rows => call.give(Ok(answer)),
            (_, Ok(answer)) => {
                if let Some(answers) = call.gather(part.start, part.rows, answer) {
                    call.give(self.assemble(call, answers).map_err(Refusal::from));
                }
            }
        }
    }

    fn assemble(&self, call: &Call<K>, answers: Vec<K::Answer>) -> Result<K::Answer> {
        let assembled = catch_unwind(AssertUnwindSafe(|| self.kernel.assemble(&call.request, answers)));
        assembled.unwrap_or_else(|panic| {
            let words = words_of(&*panic);
            Err(Error::internal(format!(
                "the kernel `{}` panicked putting answers together: {words}",
                self.kernel.name()
            )))
        })
    }

    fn drain(&self, now_ns: u64, until_ns: u64) {
        let mut core = self.core.lock();
        core.queue.drain(now_ns, until_ns);
        let outside = self.settle(&mut core, now_ns);
        drop(core);
        self.carry_out(outside);
    }

    /// The request it was, if it was still open.
    fn cancel(&self, ticket: Ticket) -> Option<Calls<K>> {
        let now_ns = self.clock.monotonic_ns();
        let mut core = self.core.lock();
        let call = core.queue.cancel(now_ns, ticket)?;
        let outside = self.settle(&mut core, now_ns);
        drop(core);
        self.carry_out(outside);
        Some(call)
    }

    fn arc(&self) -> Arc<Inner<K>> {
        self.me.upgrade().expect("whoever calls this holds it")
    }
}

impl<K: Kernel> Core<K> {
    /// Whom to tell that everything was drained, if it was.
    fn drained(&mut self) -> Vec<Waker> {
        if self.is_drained() { std::mem::take(&mut self.drain_wakers) } else { Vec::new() }
    }

    fn is_drained(&self) -> bool {
        self.answering == 0 && self.queue.is_drained()
    }
}

impl<K: Kernel> Work for Inner<K> {
    fn launch(&self) {
        let launch = self.core.lock().ready.pop_front();
        if let Some(launch) = launch {
            self.run(launch);
        }
    }

    fn tick(&self) -> u64 {
        let now_ns = self.clock.monotonic_ns();
        let mut core = self.core.lock();
        core.armed_ns = NEVER;
        let outside = self.settle(&mut core, now_ns);
        let next_ns = core.armed_ns;
        drop(core);
        self.carry_out(outside);
        next_ns
    }

    fn close(&self) {
        let now_ns = self.clock.monotonic_ns();
        self.drain(now_ns, now_ns);
        let abandoned = std::mem::take(&mut self.core.lock().ready);
        drop(abandoned);
    }
}

impl<K: Kernel> Call<K> {
    /// The request and its rows.
    pub(super) fn request(&self) -> (&K::Request, usize) {
        (&self.request, self.rows)
    }

    /// Its one answer; whoever waits is woken.
    fn give(&self, result: Result<K::Answer, Refusal>) {
        let mut place = self.answer.lock();
        if place.is_given {
            return;
        }
        place.is_given = true;
        place.result = Some(result);
        let waker = place.waker.take();
        drop(place);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// One part's answer; all of them, in order, when it was the last.
    fn gather(&self, start: u32, rows: u32, answer: K::Answer) -> Option<Vec<K::Answer>> {
        let mut place = self.answer.lock();
        place.parts.push((start, answer));
        place.rows += rows as usize;
        if place.rows < self.rows {
            return None;
        }
        let mut parts = std::mem::take(&mut place.parts);
        drop(place);
        parts.sort_unstable_by_key(|(start, _)| *start);
        Some(parts.into_iter().map(|(_, answer)| answer).collect())
    }
}

impl<K: Kernel> Reply<K> {
    /// A handle that cancels this call from elsewhere.
    pub fn canceller(&self) -> Canceller<K> {
        Canceller { inner: Arc::downgrade(&self.inner), ticket: self.ticket }
    }

    /// Whether the answer is there.
    pub fn is_answered(&self) -> bool {
        self.call.answer.lock().is_given
    }
}

impl<K: Kernel> Canceller<K> {
    /// Cancel; whether the call was still open.
    pub fn cancel(&self) -> bool {
        let call = self.inner.upgrade().and_then(|inner| inner.cancel(self.ticket));
        call.map(|call| call.give(Err(Refusal::Cancelled))).is_some()
    }
}

impl<K: Kernel> Future for Reply<K> {
    type Output = Result<K::Answer, Refusal>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut place = self.call.answer.lock();
        match place.result.take() {
            Some(result) => {
                drop(place);
                self.is_taken = true;
                Poll::Ready(result)
            }
            None => {
                match &mut place.waker {
                    Some(waker) => waker.clone_from(context.waker()),
                    none => *none = Some(context.waker().clone()),
                }
                Poll::Pending
            }
        }
    }
}

impl<K: Kernel> Drop for Reply<K> {
    fn drop(&mut self) {
        if !self.is_taken && !self.is_answered() {
            self.inner.cancel(self.ticket);
        }
    }
}

impl<K: Kernel> Future for Drained<K> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut core = self.inner.core.lock();
        if core.is_drained() {
            return Poll::Ready(());
        }
        if !core.drain_wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            core.drain_wakers.push(context.waker().clone());
        }
        Poll::Pending
    }
}

impl<K: Kernel> Drained<K> {
    /// Wait on this thread.
    pub fn wait(self) {
        wait(self);
    }
}

/// Wakes a thread that waits for a future.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Wait for a future on this thread.
fn wait<F: Future>(future: F) -> F::Output {
    thread_local! {
        static WAKER: Waker = Arc::new(Unpark(std::thread::current())).into();
    }
    let mut future = std::pin::pin!(future);
    WAKER.with(|waker| {
        let mut context = Context::from_waker(waker);
        loop {
            match future.as_mut().poll(&mut context) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    })
}

fn nanoseconds(duration: Duration) -> u64 {
    duration.as_nanos().min(u128::from(NEVER)) as u64
}

fn words_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
