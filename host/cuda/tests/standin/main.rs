//! The whole way to a device and back, over a stand-in for NVIDIA's driver whose device is this processor.
//!
//! `standin.cpp` is compiled with g++ once a run and opened before the host looks for a driver, under the driver's name. It
//! runs the same sources as a device, threads in a permuted order, memory with guards around it. All tests share it and the
//! faults it is told to show, so they run one after the other.
#![allow(unsafe_code)]

mod faults;
mod models;

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use libloading::Library;
use mainstay_base::{Clock, Result, VirtualClock};
use mainstay_cuda::{Compiler, Cuda, Mode, Options};

struct Standin {
    set: unsafe extern "C" fn(*const std::ffi::c_char, std::ffi::c_long),
    reset: unsafe extern "C" fn(),
    count: unsafe extern "C" fn(*const std::ffi::c_char) -> std::ffi::c_long,
}

/// The stand-in, for one test at a time, without faults.
struct Turn {
    standin: &'static Standin,
    _lock: MutexGuard<'static, ()>,
}

fn turn() -> Turn {
    static STANDIN: OnceLock<Standin> = OnceLock::new();
    static LOCK: Mutex<()> = Mutex::new(());
    let turn = Turn { _lock: LOCK.lock().unwrap_or_else(PoisonError::into_inner), standin: STANDIN.get_or_init(open) };
    // SAFETY: the stand-in's own function of this type.
    unsafe { (turn.standin.reset)() };
    turn
}

impl Turn {
    fn set(&self, name: &str, value: i64) {
        let name = CString::new(name).unwrap();
        // SAFETY: as above; the name ends with a zero byte.
        unsafe { (self.standin.set)(name.as_ptr(), value) };
    }

    fn count(&self, name: &str) -> i64 {
        let name = CString::new(name).unwrap();
        // SAFETY: as above.
        unsafe { (self.standin.count)(name.as_ptr()) }
    }
}

fn here() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/standin")
}

fn open() -> Standin {
    let folder = tempfile::tempdir().unwrap();
    let library = folder.path().join("libcuda.so.1");
    let output = Command::new("g++")
        .args(["-std=c++17", "-O1", "-g", "-fPIC", "-shared", "-ffp-contract=off"])
        .args(["-fsanitize=bounds,shift,signed-integer-overflow,null,alignment", "-fsanitize-undefined-trap-on-error"])
        .args(["-Wl,-soname,libcuda.so.1", "-I", "../../cuda", "-o"])
        .arg(&library)
        .arg("standin.cpp")
        .current_dir(here())
        .output()
        .expect("g++ compiles the kernels for this processor; install it");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // SAFETY: the library was just made from the sources beside this file. It stays open, so that whoever looks for the
    // driver by its name finds it.
    let library = Box::leak(Box::new(unsafe { Library::new(&library) }.unwrap()));
    // SAFETY: these are the types that standin.cpp gives its functions.
    unsafe {
        Standin {
            set: *library.get(b"standin_set").unwrap(),
            reset: *library.get(b"standin_reset").unwrap(),
            count: *library.get(b"standin_count").unwrap(),
        }
    }
}

/// The stand-in finds kernels by their names; there is nothing to compile.
struct Nothing;

impl Compiler for Nothing {
    fn compile(&self, _name: &str, _architecture: u32, _driver: u32) -> Result<Vec<u8>> {
        Ok(vec![0])
    }
}

/// Everything that can goes to the device.
fn always() -> Options {
    Options { mode: Mode::Required, weighs: false, ..Options::default() }
}

fn start_by(options: Options, clock: Arc<dyn Clock>) -> Result<Option<Cuda>> {
    Cuda::start_with(options, clock, Box::new(Nothing))
}

fn start() -> Cuda {
    let cuda = start_by(always(), Arc::new(VirtualClock::new(0))).unwrap().unwrap();
    let name = cuda.description().unwrap().name;
    assert_eq!(name, "stand-in", "another driver was found first; these tests need a machine without libcuda.so");
    cuda
}
