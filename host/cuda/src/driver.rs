//! The driver's calls that are used here, each as a function that cannot be called wrongly from safe code.
//!
//! Owns every `unsafe` block around NVIDIA's driver but for launches, whose soundness depends on the kernel (see the modules
//! of the kernels). Separate so that the rest of the room handles values that free themselves and errors of two kinds: no
//! room, and everything else, which means that the device is lost.
//!
//! cudarc opens the library lazily and panics when it or one of its functions is missing. So [`Context::open`] asks first
//! whether there is one and catches panics, and whoever calls the rest does so through [`guarded`].
//!
//! Bounded by: the cap of [`Context`] on device memory; [`Stream::wait`] by its patience. On failure: [`Trouble`].
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cudarc::driver::DriverError;
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUresult};

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Device or pinned memory is full, or the cap is reached.
    NoRoom,
    /// The device, its driver or a kernel failed; nothing that is on it can be trusted.
    Lost(String),
    /// The same, and work may still run there: memory that it uses must not be given back.
    Hung(String),
}

type Outcome<T> = Result<T, Trouble>;

/// How long a wait looks again and again before it sleeps in between: shorter than a small batch takes.
const SPIN: Duration = Duration::from_micros(200);
const NAP: Duration = Duration::from_micros(50);

fn told<T>(doing: &str, outcome: Result<T, DriverError>) -> Outcome<T> {
    outcome.map_err(|error| match error.0 {
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Trouble::NoRoom,
        _ => Trouble::Lost(format!("{doing}: {error:?}")),
    })
}

/// Run what calls the driver; a function that the driver does not have is a lost device.
pub(crate) fn guarded<T>(act: impl FnOnce() -> Outcome<T>) -> Outcome<T> {
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Trouble::Lost(format!("the driver's library failed: {}", text.unwrap_or("a panic without words"))))
    })
}

/// What a device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// As its maker calls it.
    pub name: String,
    /// Compute capability, 90 for 9.0.
    pub architecture: u32,
    /// The version of CUDA that the driver knows, 12080 for 12.8.
    pub driver: u32,
    /// All of its memory.
    pub memory_bytes: usize,
    /// Multiprocessors.
    pub processors: u32,
    /// Shared memory that one block may ask for.
    pub shared_bytes: usize,
}

/// A device's context, current in whatever thread calls.
#[derive(Debug)]
pub(crate) struct Context {
    device: sys::CUdevice,
    context: sys::CUcontext,
    used_bytes: AtomicUsize,
    bytes_max: usize,
}

// SAFETY: a context may be used from any thread in which it is current, and every call here makes it so first.
unsafe impl Send for Context {}
// SAFETY: as above; the driver locks what it shares.
unsafe impl Sync for Context {}

impl Context {
    /// Open device `ordinal` to take at most so many bytes of it, or nine tenths where that is 0. What is wrong is said in words: no library, no device, too old.
    pub fn open(ordinal: usize, bytes_max: usize) -> Outcome<(Arc<Context>, Description)> {
        // SAFETY: looks for the library by its usual names and opens it; its initialisers are NVIDIA's.
        if !catch_unwind(|| unsafe { sys::is_culib_present() }).unwrap_or(false) {
            return Err(Trouble::Lost("there is no NVIDIA driver (libcuda.so.1) on this machine".to_owned()));
        }
        guarded(|| {
            told("starting the driver", result::init())?;
            let devices = told("counting devices", result::device::get_count())?;
            if i32::try_from(ordinal).map_or(true, |ordinal| ordinal >= devices) {
                return Err(Trouble::Lost(format!("the driver has {devices} devices; device {ordinal} is not there")));
            }
            let device = told("finding the device", result::device::get(ordinal as i32))?;
            // SAFETY: the device is one that the driver has just named; released when this is dropped.
            let context = told("opening the device", unsafe { result::primary_ctx::retain(device) })?;
            let mut context = Context { device, context, used_bytes: AtomicUsize::new(0), bytes_max };
            context.bind()?;
            let description = context.describe()?;
            if bytes_max == 0 {
                context.bytes_max = description.memory_bytes / 10 * 9;
            }
            Ok((Arc::new(context), description))
        })
    }

    /// After a fault: throw away what the process has on the device, or the next opening finds the fault again.
    pub fn reset(ordinal: usize) {
        let _ = guarded(|| {
            let device = told("finding the device", result::device::get(ordinal as i32))?;
            // SAFETY: resets this process's primary context, which nobody else in it uses; values that lived in it were
            // dropped or leaked before.
            told("resetting the device", unsafe { sys::cuDevicePrimaryCtxReset_v2(device) }.result())
        });
    }

    fn bind(&self) -> Outcome<()> {
        // SAFETY: the context is open for as long as `self` is.
        told("choosing the device", unsafe { result::ctx::set_current(self.context) })
    }

    fn describe(&self) -> Outcome<Description> {
        use sys::CUdevice_attribute_enum as Attribute;
        // SAFETY: the device is open, the attribute one that every driver since CUDA 9 has.
        let ask =
            |attribute| told("asking the device", unsafe { result::device::get_attribute(self.device, attribute) });
        let mut driver = 0;
        // SAFETY: writes one integer to where it is told to.
        told("asking the driver", unsafe { sys::cuDriverGetVersion(&mut driver) }.result())?;
        let major = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
        let minor = ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?;
        Ok(Description {
            name: told("asking the device", result::device::get_name(self.device))?,
            architecture: (major * 10 + minor) as u32,
            driver: driver as u32,
            // SAFETY: the device is open.
            memory_bytes: told("asking the device", unsafe { result::device::total_mem(self.device) })?,
            processors: ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as u32,
            shared_bytes: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)? as usize,
        })
    }

    /// Device memory that is taken through this context.
    pub fn used_bytes(&self) -> usize {
        self.used_bytes.load(Ordering::Relaxed)
    }

    /// Its bound.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    fn take(&self, bytes: usize) -> Outcome<()> {
        let grown = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.bytes_max);
        self.used_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, grown).map_err(|_| Trouble::NoRoom)?;
        Ok(())
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        let _ = guarded(|| {
            // SAFETY: opened once, closed once.
            told("closing the device", unsafe { result::primary_ctx::release(self.device) })
        });
    }
}

/// Memory on the device. Grows when asked to, never shrinks.
#[derive(Debug)]
pub(crate) struct DeviceMemory {
    context: Arc<Context>,
    address: sys::CUdeviceptr,
    bytes: usize,
}

impl DeviceMemory {
    /// None yet.
    pub fn empty(context: &Arc<Context>) -> DeviceMemory {
        DeviceMemory { context: context.clone(), address: 0, bytes: 0 }
    }

    /// With these values in it, once the stream has come so far.
    pub fn of<T: Copy>(context: &Arc<Context>, values: &[T]) -> Outcome<DeviceMemory> {
        let mut memory = DeviceMemory::empty(context);
        memory.reserve(size_of_val(values).max(size_of::<u64>()))?;
        // SAFETY: the memory has as many bytes; the call returns when the values have been read.
        told("copying to the device", unsafe { result::memcpy_htod_sync(memory.address, values) })?;
        Ok(memory)
    }

    /// Room for so many bytes; what was in it is lost when it has to grow. Nothing that runs may use it.
    pub fn reserve(&mut self, bytes: usize) -> Outcome<()> {
        if bytes <= self.bytes {
            return Ok(());
        }
        self.free();
        self.context.bind()?;
        self.context.take(bytes)?;
        // SAFETY: asks for memory; freed when this is dropped.
        match told("taking device memory", unsafe { result::malloc_sync(bytes) }) {
            Ok(address) => (self.address, self.bytes) = (address, bytes),
            Err(trouble) => {
                self.context.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
                return Err(trouble);
            }
        }
        Ok(())
    }

    /// Where it is, as kernels take it.
    pub fn address(&self) -> u64 {
        self.address
    }

    fn free(&mut self) {
        if self.bytes > 0 {
            let _ = guarded(|| {
                self.context.bind()?;
                // SAFETY: taken once, freed once. The driver waits for what still uses it.
                told("freeing device memory", unsafe { result::free_sync(self.address) })
            });
            self.context.used_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
            (self.address, self.bytes) = (0, 0);
        }
    }
}

impl Drop for DeviceMemory {
    fn drop(&mut self) {
        self.free();
    }
}

/// Memory of the host that the device reads and writes by itself.
#[derive(Debug)]
pub(crate) struct Pinned {
    context: Arc<Context>,
    memory: *mut c_void,
    bytes: usize,
}

// SAFETY: plain memory, owned by this value alone.
unsafe impl Send for Pinned {}

/// Numbers of which any bits are a value.
pub(crate) trait Plain: Copy + 'static {}
impl Plain for f32 {}
impl Plain for f64 {}
impl Plain for u32 {}
impl Plain for u64 {}

impl Pinned {
    /// None yet.
    pub fn empty(context: &Arc<Context>) -> Pinned {
        Pinned { context: context.clone(), memory: std::ptr::null_mut(), bytes: 0 }
    }

    /// Room for so many bytes; what was in it is lost when it has to grow. Nothing that runs may use it.
    pub fn reserve(&mut self, bytes: usize) -> Outcome<()> {
        if bytes <= self.bytes {
            return Ok(());
        }
        self.free();
        self.context.bind()?;
        // SAFETY: asks for memory; freed when this is dropped. Zeroed, so that all of it is a value.
        self.memory = told("pinning memory", unsafe { result::malloc_host(bytes, 0) })?;
        // SAFETY: as many bytes were just taken.
        unsafe { std::ptr::write_bytes(self.memory.cast::<u8>(), 0, bytes) };
        self.bytes = bytes;
        Ok(())
    }

    /// Its first `len` values. Panics beyond its room.
    pub fn values<T: Plain>(&mut self, len: usize) -> &mut [T] {
        assert!(len.checked_mul(size_of::<T>()).is_some_and(|bytes| bytes <= self.bytes), "room for {len} values");
        if len == 0 {
            return &mut [];
        }
        // SAFETY: the driver aligns to a page, the room was checked, every bit pattern is a value, and `self` is borrowed.
        // Whoever has lent it to the device waits for the device first (see `lanes`).
        unsafe { std::slice::from_raw_parts_mut(self.memory.cast::<T>(), len) }
    }

    fn free(&mut self) {
        if self.bytes > 0 {
            let _ = guarded(|| {
                self.context.bind()?;
                // SAFETY: taken once, freed once.
                told("unpinning memory", unsafe { result::free_host(self.memory) })
            });
            self.bytes = 0;
        }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        self.free();
    }
}

/// Work that is done in order.
#[derive(Debug)]
pub(crate) struct Stream {
    context: Arc<Context>,
    stream: sys::CUstream,
}

// SAFETY: a handle that any thread may use; the context is made current first.
unsafe impl Send for Stream {}

impl Stream {
    pub fn new(context: &Arc<Context>) -> Outcome<Stream> {
        context.bind()?;
        let stream = told("making a stream", result::stream::create(result::stream::StreamKind::NonBlocking))?;
        Ok(Stream { context: context.clone(), stream })
    }

    /// Copy `bytes` bytes to the device. The pinned memory is left alone until [`Stream::wait`] has returned.
    pub fn upload(&self, from: &mut Pinned, to: &DeviceMemory, bytes: usize) -> Outcome<()> {
        assert!(bytes <= from.bytes && bytes <= to.bytes, "room for {bytes} bytes");
        self.context.bind()?;
        let values = from.values::<u32>(bytes / size_of::<u32>());
        // SAFETY: both sides have the room; lanes keep both alive and untouched until they have waited.
        told("copying to the device", unsafe { result::memcpy_htod_async(to.address, values, self.stream) })
    }

    /// Copy `bytes` bytes back, under the same rule.
    pub fn download(&self, from: &DeviceMemory, to: &mut Pinned, bytes: usize) -> Outcome<()> {
        assert!(bytes <= from.bytes && bytes <= to.bytes, "room for {bytes} bytes");
        self.context.bind()?;
        let values = to.values::<u32>(bytes / size_of::<u32>());
        // SAFETY: as in `upload`.
        told("copying from the device", unsafe { result::memcpy_dtoh_async(values, from.address, self.stream) })
    }

    /// Launch a kernel. `args` is its only parameter.
    ///
    /// # Safety
    ///
    /// `args` has the layout of the kernel's parameter, and with it the kernel reads and writes only memory that is there and
    /// stays there until [`Stream::wait`] has returned.
    pub unsafe fn launch<A: Copy>(&self, function: Function, shape: Shape, args: &A) -> Outcome<()> {
        self.context.bind()?;
        let mut copy = *args;
        let mut parameters = [(&raw mut copy).cast::<c_void>()];
        let (grid, block) = ((shape.grid.0, shape.grid.1, 1), (shape.block, 1, 1));
        // SAFETY: promised by the caller; parameters are copied before this returns.
        let launched = unsafe {
            result::launch_kernel(function.0, grid, block, shape.shared_bytes as u32, self.stream, &mut parameters)
        };
        // Resources that a launch lacks are no lack of memory.
        launched.map_err(|error| Trouble::Lost(format!("launching a kernel: {error:?}")))
    }

    /// Wait until all of it is done; `Hung` when that takes longer than `patience`.
    pub fn wait(&self, patience: Duration) -> Outcome<()> {
        self.context.bind()?;
        let began = Instant::now();
        loop {
            // SAFETY: the stream is open.
            match unsafe { sys::cuStreamQuery(self.stream) } {
                CUresult::CUDA_SUCCESS => return Ok(()),
                CUresult::CUDA_ERROR_NOT_READY => {}
                other => return told("waiting for the device", other.result()),
            }
            match began.elapsed() {
                elapsed if elapsed > patience => {
                    return Err(Trouble::Hung(format!("no answer within {} ms", patience.as_millis())));
                }
                elapsed if elapsed > SPIN => std::thread::sleep(NAP),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let _ = guarded(|| {
            self.context.bind()?;
            // SAFETY: made once, destroyed once.
            told("destroying a stream", unsafe { result::stream::destroy(self.stream) })
        });
    }
}

/// How many threads a kernel is launched with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub grid: (u32, u32),
    pub block: u32,
    pub shared_bytes: usize,
}

/// A kernel of a [`Module`], which outlives it in every session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Function(sys::CUfunction);

// SAFETY: a handle that any thread may use.
unsafe impl Send for Function {}
// SAFETY: as above.
unsafe impl Sync for Function {}

/// Machine code on the device.
#[derive(Debug)]
pub(crate) struct Module {
    context: Arc<Context>,
    module: sys::CUmodule,
}

// SAFETY: a handle that any thread may use.
unsafe impl Send for Module {}
// SAFETY: as above.
unsafe impl Sync for Module {}

impl Module {
    /// Load machine code or PTX, which ends with a zero byte.
    pub fn load(context: &Arc<Context>, image: &[u8]) -> Outcome<Module> {
        assert!(image.last() == Some(&0), "an image ends with a zero byte");
        context.bind()?;
        // SAFETY: the image is what the compiler has written (its digest was checked) and ends with a zero byte.
        let module = told("loading kernels", unsafe { result::module::load_data(image.as_ptr().cast()) })?;
        Ok(Module { context: context.clone(), module })
    }

    /// The kernel of this name, allowed to ask for as much shared memory.
    pub fn function(&self, name: &str, shared_bytes: usize) -> Outcome<Function> {
        self.context.bind()?;
        let c_name = CString::new(name).map_err(|_| Trouble::Lost("a kernel's name has a zero byte".to_owned()))?;
        // SAFETY: the module is loaded.
        let function = unsafe { result::module::get_function(self.module, c_name) };
        let function = told(&format!("finding the kernel {name}"), function)?;
        let attribute = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function was just found.
        let set = unsafe { result::function::set_function_attribute(function, attribute, shared_bytes as i32) };
        told("allowing shared memory", set)?;
        Ok(Function(function))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = guarded(|| {
            self.context.bind()?;
            // SAFETY: loaded once, unloaded once; the session that holds it has waited for its launches.
            told("unloading kernels", unsafe { result::module::unload(self.module) })
        });
    }
}
