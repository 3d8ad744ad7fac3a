//! Batches of numeric work on an NVIDIA device, where there is one.
//!
//! Owns [`Cuda`]: it finds the device, compiles the kernels of `cuda/` for it, holds models there, and computes batches that
//! are worth the copying. Separate from the batcher and from models so that nobody is built with CUDA who does not want it,
//! and because this room needs `unsafe`: in `driver`, `compile`, `forest` and `explain`, and nowhere else.
//!
//! Nothing of CUDA is linked. Without a driver, a device or NVIDIA's compiler the host starts all the same, says why once, and
//! computes on the processor. Answers are the processor's to the last bit, so a batch may go either way at any time.
//!
//! Invariants: a batch that fails on the device is computed on the processor, and nobody who asked notices but by time; a
//! device that has given one wrong number at its self-check is not used; after a failure nothing of the old opening is used.
//!
//! Bounded by: [`Options`]. On failure: where the device is required, [`Cuda::start`] is `unavailable` and says what is
//! missing; else a warning, and another try after a while, twice as long each time.
#![deny(unsafe_code)]

mod check;
mod compile;
mod cost;
mod driver;
mod explain;
mod forest;
mod health;
mod pack;
mod session;
mod traffic;

use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use mainstay_base::{Clock, Error, Result};
use mainstay_models::Rows;
use mainstay_models::device::{Device, Part};
use mainstay_models::explain::Explainer;
use mainstay_models::forest::Forest;
use parking_lot::Mutex;

pub use compile::{Cached, Compiler, Nvrtc, SOURCES, source};
pub use cost::Kind;
pub use driver::Description;
pub use explain::CASES_BYTES_MAX;
pub use forest::{PIECE_ROWS, PIECE_ROWS_MIN};
pub use health::{AWAY_MAX, AWAY_MIN};
pub use session::LANES_MAX;
pub use traffic::{Reason, Stats};

use cost::Costs;
use driver::{Context, Trouble, guarded};
use health::Health;
use pack::{FlatForest, FlatTables};
use session::Session;
use traffic::Traffic;

/// Whether a device is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Not even looked for.
    Off,
    /// Where there is one.
    #[default]
    Auto,
    /// The host does not start without.
    Required,
}

/// How the device is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Whether.
    pub mode: Mode,
    /// Which, in the driver's order.
    pub ordinal: usize,
    /// Device memory that may be taken; 0 is nine tenths of what the device has.
    pub memory_bytes: usize,
    /// NVIDIA's compiler, if it is not found by its name.
    pub nvrtc: Option<PathBuf>,
    /// Where compiled kernels are kept.
    pub cache: Option<PathBuf>,
    /// A batch that takes longer than this on the device counts as lost.
    pub patience: Duration,
    /// Whether the measured costs decide; without, everything that can goes to the device (for checks and measurements).
    pub weighs: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            mode: Mode::Auto,
            ordinal: 0,
            memory_bytes: 0,
            nvrtc: None,
            cache: None,
            patience: Duration::from_secs(10),
            weighs: true,
        }
    }
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct Cuda {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    clock: Arc<dyn Clock>,
    compiler: Box<dyn Compiler>,
    state: Mutex<State>,
    traffic: Traffic,
    costs: Mutex<Costs>,
}

struct State {
    session: Option<Arc<Session>>,
    /// The last one that failed, while somebody may still have it.
    lost: Weak<Session>,
    health: Health,
    is_opening: bool,
}

impl Cuda {
    /// Find the device and check it. None when it is not to be used or, in [`Mode::Auto`], is not there.
    pub fn start(options: Options, clock: Arc<dyn Clock>) -> Result<Option<Cuda>> {
        let compiler = Box::new(Cached::new(options.nvrtc.clone(), options.cache.clone()));
        Cuda::start_with(options, clock, compiler)
    }

    /// The same with another compiler.
    pub fn start_with(options: Options, clock: Arc<dyn Clock>, compiler: Box<dyn Compiler>) -> Result<Option<Cuda>> {
        if options.mode == Mode::Off {
            return Ok(None);
        }
        let is_required = options.mode == Mode::Required;
        let state = State { session: None, lost: Weak::new(), health: Health::default(), is_opening: false };
        let inner = Inner {
            options,
            clock,
            compiler,
            state: Mutex::new(state),
            traffic: Traffic::default(),
            costs: Mutex::default(),
        };
        match inner.open() {
            Ok(session) => {
                let Description { name, architecture, driver, .. } = &session.description;
                tracing::info!(device = %name, architecture, driver, "computing large batches on the device");
                inner.state.lock().session = Some(Arc::new(session));
                Ok(Some(Cuda { inner: Arc::new(inner) }))
            }
            Err(why) if is_required => Err(Error::unavailable(format!(
                "the configuration requires a CUDA device, and {why}; make it `auto` to start without"
            ))),
            Err(why) => {
                tracing::debug!(%why, "no CUDA device; computing on the processor");
                Ok(None)
            }
        }
    }

    /// The device, while it is there.
    pub fn description(&self) -> Option<Description> {
        self.inner.state.lock().session.as_ref().map(|session| session.description.clone())
    }

    /// What went to the device and back.
    pub fn stats(&self) -> Stats {
        let session = self.inner.state.lock().session.clone();
        let mut stats = self.inner.traffic.stats();
        if let Some(session) = session {
            stats.is_up = true;
            stats.memory_bytes = session.context.used_bytes() as u64;
            stats.residents = (session.forests.size().0 + session.tables.size().0) as u64;
        }
        stats
    }

    /// The session, if the device is there; starts looking for it again when it is time.
    fn session(&self) -> Option<Arc<Session>> {
        let mut state = self.inner.state.lock();
        if state.session.is_none() && !state.is_opening && state.health.may_try(self.inner.clock.monotonic_ns()) {
            state.is_opening = true;
            let (inner, lost) = (self.inner.clone(), state.lost.clone());
            let reopen = move || {
                inner.reset_after(&lost);
                let opened = inner.open();
                let mut state = inner.state.lock();
                state.is_opening = false;
                match opened {
                    Ok(session) => {
                        tracing::warn!(device = %session.description.name, "the device is back");
                        state.session = Some(Arc::new(session));
                    }
                    Err(why) => state.health.failed(inner.clock.monotonic_ns(), &why),
                }
            };
            if std::thread::Builder::new().name("device-again".to_owned()).spawn(reopen).is_err() {
                state.is_opening = false;
            }
        }
        state.session.clone()
    }

    /// Run a batch on the device, if it is there and worth it. `act` gets the session and how many rows a piece may have.
    fn run(
        &self,
        (kind, number, rows): (Kind, u64, usize),
        act: impl Fn(&Session, usize) -> Result<Done, Trouble>,
    ) -> bool {
        let traffic = &self.inner.traffic;
        let Some(session) = self.session() else {
            traffic.left(Reason::Away);
            return false;
        };
        if self.inner.options.weighs && !self.inner.costs.lock().is_worth(kind, number, rows) {
            traffic.left(Reason::Cheaper);
            return false;
        }
        let began_ns = self.inner.clock.monotonic_ns();
        let (mut piece_rows, mut has_cleared) = (PIECE_ROWS, false);
        loop {
            let left = match guarded(|| act(&session, piece_rows)) {
                Ok(Done::Computed) => {
                    let took_ns = self.inner.clock.monotonic_ns() - began_ns;
                    traffic.computed(rows, took_ns);
                    self.inner.costs.lock().took_there(kind, number, rows, took_ns);
                    self.inner.state.lock().health.worked();
                    return true;
                }
                Ok(Done::Left(reason)) => reason,
                Err(Trouble::NoRoom) => {
                    // First without what is only kept, then in smaller pieces; lanes have grown to the size of the last try.
                    session.shrink();
                    if !has_cleared {
                        has_cleared = true;
                        session.forests.clear();
                        session.tables.clear();
                    } else if piece_rows > PIECE_ROWS_MIN {
                        piece_rows /= 2;
                    } else {
                        traffic.left(Reason::NoRoom);
                        return false;
                    }
                    continue;
                }
                Err(Trouble::Lost(why)) => {
                    self.lose(&session, &why);
                    Reason::Failed
                }
                Err(Trouble::Hung(why)) => {
                    self.lose(&session, &why);
                    // What runs there may still use it.
                    std::mem::forget(session.clone());
                    Reason::Failed
                }
            };
            traffic.left(left);
            return false;
        }
    }

    /// The device failed: nothing of this session is used again.
    fn lose(&self, session: &Arc<Session>, why: &str) {
        let mut state = self.inner.state.lock();
        if state.session.as_ref().is_some_and(|current| Arc::ptr_eq(current, session)) {
            state.session = None;
            state.lost = Arc::downgrade(session);
            state.health.failed(self.inner.clock.monotonic_ns(), why);
            self.inner.traffic.lost();
        }
    }
}

/// What became of a batch.
enum Done {
    Computed,
    Left(Reason),
}

impl Done {
    fn when(is_computed: bool) -> Done {
        if is_computed { Done::Computed } else { Done::Left(Reason::Busy) }
    }
}

/// How often somebody who still has a lost session is waited for.
const LOOK: Duration = Duration::from_millis(5);

impl Inner {
    /// Reset the device, once nobody has anything of its last opening: what they free then could be what the next opening was
    /// given. Where somebody keeps it, as after a device that hung, there is no reset.
    fn reset_after(&self, lost: &Weak<Session>) {
        let looks = (2 * self.options.patience).as_nanos() / LOOK.as_nanos();
        for _ in 0..=looks {
            if lost.strong_count() == 0 {
                return Context::reset(self.options.ordinal);
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Open the device and hold its answers against the processor's; why not, in words.
    fn open(&self) -> Result<Session, String> {
        let said = |trouble| match trouble {
            Trouble::NoRoom => "the device has no memory left".to_owned(),
            Trouble::Lost(why) | Trouble::Hung(why) => why,
        };
        let Options { ordinal, memory_bytes, patience, .. } = self.options;
        let open = || Session::open(ordinal, memory_bytes, patience, &*self.compiler);
        let session = guarded(open).map_err(said)?;
        guarded(|| check::self_check(&session, &self.traffic)).map_err(said)?;
        Ok(session)
    }
}

impl Device for Cuda {
    fn batch_rows(&self) -> usize {
        PIECE_ROWS
    }

    fn raw(&self, number: u64, forest: &Forest, parts: &[Part<'_>], out: &mut [f64]) -> bool {
        let rows = parts.iter().map(|part| part.range.len()).sum();
        let out = Mutex::new(out);
        self.run((Kind::Raw, number, rows), |session, piece_rows| {
            let context = session.context.clone();
            let held = session.forests.find_or(number, || {
                let flat = FlatForest::new(forest)?;
                let bytes = flat.bytes();
                let put = move || forest::Held::new(&context, &flat);
                Some((bytes, Box::new(put) as Box<dyn FnOnce() -> _>))
            })?;
            let Some(held) = held else { return Ok(Done::Left(Reason::Unsupported)) };
            if parts.iter().any(|part| part.rows.features() != parts[0].rows.features()) {
                return Ok(Done::Left(Reason::Unsupported));
            }
            forest::raw(session, &held, parts, piece_rows, &mut out.lock(), &self.inner.traffic).map(Done::when)
        })
    }

    fn predicted_here(&self, number: u64, rows: usize, nanoseconds: u64) {
        self.inner.costs.lock().took_here(Kind::Raw, number, rows, nanoseconds);
    }

    fn explained_here(&self, number: u64, rows: usize, nanoseconds: u64) {
        self.inner.costs.lock().took_here(Kind::Explain, number, rows, nanoseconds);
    }

    fn explain(&self, number: u64, explainer: &Explainer, rows: &Rows<'_>, out: &mut [f64]) -> bool {
        let Ok(count) = rows.count() else { return false };
        let out = Mutex::new(out);
        self.run((Kind::Explain, number, count), |session, piece_rows| {
            let context = session.context.clone();
            let held = session.tables.find_or(number, || {
                let flat = FlatTables::new(explainer)?;
                let bytes = flat.bytes();
                let put = move || explain::Held::new(&context, &flat);
                Some((bytes, Box::new(put) as Box<dyn FnOnce() -> _>))
            })?;
            let Some(held) = held else { return Ok(Done::Left(Reason::Unsupported)) };
            let part = Part { rows, range: 0..count };
            explain::explain(session, &held, part, piece_rows, &mut out.lock(), &self.inner.traffic).map(Done::when)
        })
    }
}
