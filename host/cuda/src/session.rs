//! A device that works: its kernels, what is resident on it, and lanes on which batches run.
//!
//! Owns everything that lives and ends with one opening of the device. A *lane* is a stream with memory of its own on both
//! sides; a batch that is cut into pieces takes two, so that while one piece is computed the next is copied. Whoever finds no
//! lane free computes on the processor instead of waiting: so both work when there is much to do.
//!
//! Invariant: memory that a launch may still use is neither read, written nor freed: a lane goes back only after its stream
//! was waited for, and is leaked when that fails.
//!
//! Bounded by: [`LANES_MAX`], the context's cap, a share of it for residents. On failure: [`Trouble`].

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::compile::{Compiler, SOURCES};
use crate::driver::{Context, Description, DeviceMemory, Function, Module, Pinned, Stream, Trouble};

/// Batches that run at once, counting two for one that is cut.
pub const LANES_MAX: usize = 8;

/// See the module.
#[derive(Debug)]
pub(crate) struct Session {
    pub context: Arc<Context>,
    pub description: Description,
    pub kernels: Kernels,
    pub forests: Residents<crate::forest::Held>,
    pub tables: Residents<crate::explain::Held>,
    pub patience: Duration,
    lanes: Mutex<Lanes>,
    _modules: Vec<Module>,
}

/// All kernels, by what they compare and add in.
#[derive(Debug)]
pub(crate) struct Kernels {
    /// `f32_f32`, `f32_f64`, `f64_f32`, `f64_f64`.
    pub forest: [Function; 4],
    /// `f32`, `f64`.
    pub cases: [Function; 2],
    pub explain_sums: Function,
}

#[derive(Debug, Default)]
struct Lanes {
    idle: Vec<Lane>,
    made: usize,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Lane {
    pub stream: Stream,
    pub input: Pinned,
    pub device_input: DeviceMemory,
    pub scratch: DeviceMemory,
    pub device_output: DeviceMemory,
    pub output: Pinned,
}

impl Session {
    /// Open a device, compile the kernels for it and load them.
    pub fn open(
        ordinal: usize,
        bytes_max: usize,
        patience: Duration,
        compiler: &dyn Compiler,
    ) -> Result<Session, Trouble> {
        let (context, description) = Context::open(ordinal, bytes_max)?;
        let shared = description.shared_bytes;
        let mut modules = Vec::new();
        for (name, _) in SOURCES {
            let image = compiler.compile(name, description.architecture, description.driver);
            modules.push(Module::load(&context, &image.map_err(|error| Trouble::Lost(error.to_string()))?)?);
        }
        let [forest, explain] = &modules[..] else {
            return Err(Trouble::Lost("the kernels are not those that were expected".to_owned()));
        };
        let kernels = Kernels {
            forest: [
                forest.function("forest_f32_f32", shared)?,
                forest.function("forest_f32_f64", shared)?,
                forest.function("forest_f64_f32", shared)?,
                forest.function("forest_f64_f64", shared)?,
            ],
            cases: [explain.function("cases_f32", 0)?, explain.function("cases_f64", 0)?],
            explain_sums: explain.function("explain_sums", 0)?,
        };
        // Models and tables may have half of what there is; the rest is for batches.
        let half = context.bytes_max() / 2;
        Ok(Session {
            forests: Residents::new(half / 2),
            tables: Residents::new(half / 2),
            lanes: Mutex::default(),
            _modules: modules,
            context,
            description,
            kernels,
            patience,
        })
    }

    /// A lane; none when all are busy.
    pub fn lane(&self) -> Result<Option<Taken<'_>>, Trouble> {
        let mut lanes = self.lanes.lock();
        let lane = match lanes.idle.pop() {
            Some(lane) => lane,
            None if lanes.made < LANES_MAX => {
                let lane = Lane {
                    stream: Stream::new(&self.context)?,
                    input: Pinned::empty(&self.context),
                    device_input: DeviceMemory::empty(&self.context),
                    scratch: DeviceMemory::empty(&self.context),
                    device_output: DeviceMemory::empty(&self.context),
                    output: Pinned::empty(&self.context),
                };
                lanes.made += 1;
                lane
            }
            None => return Ok(None),
        };
        Ok(Some(Taken { lane: Some(lane), is_busy: false, session: self }))
    }

    /// Give back the memory of idle lanes.
    pub fn shrink(&self) {
        let mut lanes = self.lanes.lock();
        lanes.made -= lanes.idle.len();
        lanes.idle.clear();
    }
}

/// A lane while somebody has it.
pub(crate) struct Taken<'s> {
    lane: Option<Lane>,
    is_busy: bool,
    session: &'s Session,
}

impl Taken<'_> {
    /// The lane, about to be given work.
    pub fn start(&mut self) -> &mut Lane {
        self.is_busy = true;
        self.lane.as_mut().expect("a lane is there until it is dropped")
    }

    /// The lane when all that it was given is done.
    pub fn finish(&mut self) -> Result<&mut Lane, Trouble> {
        let lane = self.lane.as_mut().expect("a lane is there until it is dropped");
        lane.stream.wait(self.session.patience)?;
        self.is_busy = false;
        Ok(lane)
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let is_done = !self.is_busy || self.finish().is_ok();
        if let Some(lane) = self.lane.take() {
            match is_done {
                true => self.session.lanes.lock().idle.push(lane),
                // The device may still use its memory, for as long as the process lives.
                false => std::mem::forget(lane),
            }
        }
    }
}

/// What stays on the device between batches, by number. What was asked for longest ago goes first.
#[derive(Debug)]
pub(crate) struct Residents<T> {
    bytes_max: usize,
    held: Mutex<Vec<Resident<T>>>,
}

#[derive(Debug)]
struct Resident<T> {
    number: u64,
    bytes: usize,
    /// None: the processor computes it.
    value: Option<Arc<T>>,
}

/// Numbers that are remembered because nothing can be done for them.
const REFUSED_MAX: usize = 4_096;

impl<T> Residents<T> {
    fn new(bytes_max: usize) -> Residents<T> {
        Residents { bytes_max, held: Mutex::default() }
    }

    /// What is held under a number, or what `make` makes of it: bytes that it needs, and how to put it there. None when it
    /// is nothing for the device.
    pub fn find_or(
        &self,
        number: u64,
        make: impl FnOnce() -> Option<(usize, Box<dyn FnOnce() -> Result<T, Trouble>>)>,
    ) -> Result<Option<Arc<T>>, Trouble> {
        let mut held = self.held.lock();
        if let Some(at) = held.iter().position(|resident| resident.number == number) {
            let found = held.remove(at);
            let value = found.value.clone();
            held.push(found);
            return Ok(value);
        }
        let (bytes, value) = match make() {
            Some((bytes, put)) if bytes <= self.bytes_max => {
                let mut sum: usize = held.iter().map(|resident| resident.bytes).sum();
                while sum + bytes > self.bytes_max || held.len() > REFUSED_MAX {
                    sum -= held.remove(0).bytes;
                }
                (bytes, Some(Arc::new(put()?)))
            }
            _ => (0, None),
        };
        if held.len() > REFUSED_MAX {
            held.remove(0);
        }
        held.push(Resident { number, bytes, value: value.clone() });
        Ok(value)
    }

    /// Let go of everything that nobody uses just now.
    pub fn clear(&self) {
        self.held.lock().retain(|resident| resident.value.as_ref().is_none_or(|value| Arc::strong_count(value) > 1));
    }

    /// How many there are, and their bytes.
    pub fn size(&self) -> (usize, usize) {
        let held = self.held.lock();
        (
            held.iter().filter(|resident| resident.value.is_some()).count(),
            held.iter().map(|resident| resident.bytes).sum(),
        )
    }
}
