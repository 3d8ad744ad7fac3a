//! From the kernels' sources to code for the device that was found.
//!
//! Owns the sources, NVIDIA's run-time compiler (NVRTC, opened by name or by a path that the operator gives) and a cache of
//! what it made: one file for each source, architecture, driver and compiler, named by the digest of all of them and checked
//! by a digest of what is in it, so that a torn or foreign file is compiled again. Separate from the driver because a machine
//! without a device can compile too, which is how every source is proved there.
//!
//! Whoever can write the cache's folder can run code on the device in the host's name: it belongs to the host alone.
//!
//! Bounded by: the sources. On failure: `unavailable` that says which library is missing, `internal` with the compiler's words.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::{Path, PathBuf};

use libloading::Library;
use mainstay_base::{Error, Result};
use sha2::{Digest, Sha256};

/// What all sources begin with.
const COMMON: &str = include_str!("../cuda/common.cuh");

/// The kernels: a name and what stands behind [`COMMON`].
pub const SOURCES: [(&str, &str); 2] =
    [("forest", include_str!("../cuda/forest.cu")), ("explain", include_str!("../cuda/explain.cu"))];

/// Names under which the compiler is looked for, newest first.
const LIBRARIES: [&str; 4] = ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so", "libnvrtc.so.11.2"];

/// Sums have the processor's bits only where nothing is fused; the rest is the compiler's default, said aloud.
const OPTIONS: [&str; 5] = ["--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false", "--std=c++17"];

/// All of one source.
pub fn source(name: &str) -> Option<String> {
    SOURCES.iter().find(|(known, _)| *known == name).map(|(_, text)| format!("{COMMON}\n{text}"))
}

/// What makes images for a device out of sources. Each image ends with a zero byte.
pub trait Compiler: Send + Sync {
    /// The image of the source of this name.
    fn compile(&self, name: &str, architecture: u32, driver: u32) -> Result<Vec<u8>>;
}

type Program = *mut std::ffi::c_void;
type Ask<T> = unsafe extern "C" fn(Program, *mut T) -> c_int;

/// NVIDIA's run-time compiler.
#[derive(Debug)]
pub struct Nvrtc {
    library: Library,
    version: (i32, i32),
}

impl Nvrtc {
    /// Open it: at this path, or by its usual names.
    pub fn open(path: Option<&Path>) -> Result<Nvrtc> {
        let tries: Vec<PathBuf> = match path {
            Some(path) => vec![path.to_path_buf()],
            None => LIBRARIES.iter().map(PathBuf::from).collect(),
        };
        let mut last = String::new();
        for name in &tries {
            // SAFETY: the library is NVIDIA's compiler, found under its own name or where the operator says that it is.
            match unsafe { Library::new(name) } {
                Ok(library) => return Nvrtc { library, version: (0, 0) }.asked_for_version(),
                Err(error) => last = error.to_string(),
            }
        }
        let names: Vec<String> = tries.iter().map(|name| name.display().to_string()).collect();
        Err(Error::unavailable(format!(
            "NVIDIA's run-time compiler cannot be opened ({}): {last}; install the package cuda-nvrtc or nvidia-cuda-nvrtc-cu12 \
             and say where libnvrtc is",
            names.join(", ")
        )))
    }

    fn asked_for_version(mut self) -> Result<Nvrtc> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: nvrtcVersion(int*, int*) in all versions.
        let code = unsafe {
            self.function::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int>(b"nvrtcVersion\0")?(
                &mut major, &mut minor,
            )
        };
        self.version = (major, minor);
        if code == 0 { Ok(self) } else { Err(Error::internal(format!("nvrtcVersion answers {code}"))) }
    }

    /// Major and minor.
    pub fn version(&self) -> (i32, i32) {
        self.version
    }

    fn function<F: Copy>(&self, name: &[u8]) -> Result<F> {
        // SAFETY: callers name the type that NVRTC's header gives this function; the library stays open as long as `self`.
        let found = unsafe { self.library.get::<F>(name) };
        found.map(|function| *function).map_err(|error| Error::unavailable(format!("libnvrtc is too old: {error}")))
    }

    /// Architectures that it makes machine code for, ascending.
    pub fn architectures(&self) -> Result<Vec<u32>> {
        type Count = unsafe extern "C" fn(*mut c_int) -> c_int;
        let mut count = 0;
        // SAFETY: nvrtcGetNumSupportedArchs(int*), then nvrtcGetSupportedArchs(int*) with room for as many.
        let (code, list) = unsafe {
            let first = self.function::<Count>(b"nvrtcGetNumSupportedArchs\0")?(&mut count);
            let mut list = vec![0; count.max(0) as usize];
            let second = self.function::<Count>(b"nvrtcGetSupportedArchs\0")?(list.as_mut_ptr());
            (first.max(second), list)
        };
        if code != 0 {
            return Err(Error::internal(format!("nvrtcGetSupportedArchs answers {code}")));
        }
        Ok(list.into_iter().map(|architecture| architecture as u32).collect())
    }

    /// PTX (`compute_…`) or machine code (`sm_…`) of a source, a zero byte behind it.
    pub fn image(&self, name: &str, target: &str) -> Result<Vec<u8>> {
        let text = source(name).ok_or_else(|| Error::internal(format!("there is no kernel source `{name}`")))?;
        let text = CString::new(text).map_err(|_| Error::internal("a kernel source has a zero byte"))?;
        let file = CString::new(format!("{name}.cu")).map_err(|_| Error::internal("a name has a zero byte"))?;
        let mut options: Vec<CString> = Vec::new();
        for option in OPTIONS.iter().map(ToString::to_string).chain([format!("--gpu-architecture={target}")]) {
            options.push(CString::new(option).map_err(|_| Error::internal("an option has a zero byte"))?);
        }
        type Create = unsafe extern "C" fn(
            *mut Program,
            *const c_char,
            *const c_char,
            c_int,
            *const *const c_char,
            *const *const c_char,
        ) -> c_int;
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: nvrtcCreateProgram with a text and a name that end with zero bytes, and no headers.
        let code = unsafe {
            self.function::<Create>(b"nvrtcCreateProgram\0")?(
                &mut program,
                text.as_ptr(),
                file.as_ptr(),
                0,
                std::ptr::null(),
                std::ptr::null(),
            )
        };
        if code != 0 {
            return Err(Error::internal(format!("nvrtcCreateProgram answers {code}")));
        }
        let image = self.compiled(program, &options, target);
        // SAFETY: made above, destroyed once.
        unsafe {
            self.function::<unsafe extern "C" fn(*mut Program) -> c_int>(b"nvrtcDestroyProgram\0")?(&mut program)
        };
        image.map_err(|error| error.context(format_args!("compiling {name}.cu for {target}")))
    }

    fn compiled(&self, program: Program, options: &[CString], target: &str) -> Result<Vec<u8>> {
        let pointers: Vec<*const c_char> = options.iter().map(|option| option.as_ptr()).collect();
        type Compile = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
        // SAFETY: nvrtcCompileProgram with as many options as it is told.
        let code = unsafe {
            self.function::<Compile>(b"nvrtcCompileProgram\0")?(program, pointers.len() as c_int, pointers.as_ptr())
        };
        if code != 0 {
            let log = self.text(program, b"nvrtcGetProgramLogSize\0", b"nvrtcGetProgramLog\0").unwrap_or_default();
            let log = CStr::from_bytes_until_nul(&log).unwrap_or_default().to_string_lossy().into_owned();
            return Err(Error::internal(format!("the compiler answers {code}: {log}")));
        }
        match target.starts_with("sm_") {
            true => self.text(program, b"nvrtcGetCUBINSize\0", b"nvrtcGetCUBIN\0"),
            false => self.text(program, b"nvrtcGetPTXSize\0", b"nvrtcGetPTX\0"),
        }
    }

    fn text(&self, program: Program, size_name: &[u8], name: &[u8]) -> Result<Vec<u8>> {
        let mut size = 0_usize;
        // SAFETY: the one asks for a size, the other writes as many bytes.
        let (code, bytes) = unsafe {
            let first = self.function::<Ask<usize>>(size_name)?(program, &mut size);
            let mut bytes = vec![0_u8; size + 1];
            let second = self.function::<Ask<c_char>>(name)?(program, bytes.as_mut_ptr().cast());
            (first.max(second), bytes)
        };
        if code == 0 { Ok(bytes) } else { Err(Error::internal(format!("the compiler gives no result: {code}"))) }
    }
}

/// The compiler behind its cache.
#[derive(Debug)]
pub struct Cached {
    nvrtc: Option<PathBuf>,
    folder: Option<PathBuf>,
}

impl Cached {
    /// With the compiler at this path (none: by its names), keeping what it makes in this folder (none: nothing is kept).
    pub fn new(nvrtc: Option<PathBuf>, folder: Option<PathBuf>) -> Cached {
        Cached { nvrtc, folder }
    }

    fn path(&self, name: &str, architecture: u32, driver: u32, version: (i32, i32)) -> Option<PathBuf> {
        let mut digest = Sha256::new();
        digest.update(source(name)?);
        digest.update(format!("\0{architecture}\0{driver}\0{}.{}\0{}", version.0, version.1, OPTIONS.join("\0")));
        Some(self.folder.as_ref()?.join(format!("{name}-{}.kernel", hex::encode(&digest.finalize()[..16]))))
    }
}

impl Compiler for Cached {
    fn compile(&self, name: &str, architecture: u32, driver: u32) -> Result<Vec<u8>> {
        let nvrtc = Nvrtc::open(self.nvrtc.as_deref())?;
        let path = self.path(name, architecture, driver, nvrtc.version());
        if let Some(image) = path.as_deref().and_then(kept) {
            return Ok(image);
        }
        // Machine code where the compiler knows the device; else PTX of the newest that it knows, which the driver translates.
        let known = nvrtc.architectures()?;
        let target = match known.iter().rev().find(|known| **known <= architecture) {
            Some(known) if *known == architecture => format!("sm_{architecture}"),
            Some(known) => format!("compute_{known}"),
            None => {
                return Err(Error::unavailable(format!(
                    "libnvrtc {}.{} makes no code for compute capability {architecture}; an older one does",
                    nvrtc.version.0, nvrtc.version.1
                )));
            }
        };
        let image = nvrtc.image(name, &target)?;
        if let Some(path) = path {
            keep(&path, &image);
        }
        Ok(image)
    }
}

/// An image as it was kept: its digest, then itself.
fn kept(path: &Path) -> Option<Vec<u8>> {
    let file = std::fs::read(path).ok()?;
    let (digest, image) = file.split_at_checked(32)?;
    (Sha256::digest(image).as_slice() == digest && image.last() == Some(&0)).then(|| image.to_vec())
}

/// A cache that cannot be written costs a second at each start, no more.
fn keep(path: &Path, image: &[u8]) {
    let write = || {
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder)?;
        let part = path.with_extension(format!("part-{}", std::process::id()));
        std::fs::write(&part, [Sha256::digest(image).as_slice(), image].concat())?;
        std::fs::rename(&part, path)
    };
    if let Err(error) = write() {
        tracing::warn!(path = %path.display(), %error, "cannot keep compiled kernels; they are compiled again at the next start");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_is_not_there_is_named() {
        let error = Nvrtc::open(Some("/nowhere/libnvrtc.so".as_ref())).unwrap_err();
        assert!(error.message().contains("/nowhere/libnvrtc.so"), "{error}");
    }

    #[test]
    fn what_was_kept_is_believed_only_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/a.kernel");
        assert_eq!(kept(&path), None);
        keep(&path, b"code\0");
        assert_eq!(kept(&path).as_deref(), Some(&b"code\0"[..]));
        let whole = std::fs::read(&path).unwrap();
        for (at, len) in [(0, whole.len()), (33, whole.len()), (0, whole.len() - 1), (0, 10)] {
            let mut torn = whole[..len].to_vec();
            torn[at] ^= u8::from(len == whole.len());
            std::fs::write(&path, torn).unwrap();
            assert_eq!(kept(&path), None, "{at} {len}");
        }
    }
}
