//! Every kernel is compiled for every architecture that is promised, on a machine without a device.
//!
//! Needs NVIDIA's run-time compiler, so it is built with the feature `nvrtc` only: `MAINSTAY_NVRTC` names `libnvrtc.so.12`,
//! which `cargo xtask test` takes from its pinned Python package.

use std::path::PathBuf;

use mainstay_cuda::{Cached, Compiler, Nvrtc, SOURCES};

/// Volta to Hopper. A newer device gets PTX of the newest that the compiler knows.
const ARCHITECTURES: [u32; 6] = [70, 75, 80, 86, 89, 90];

fn library() -> PathBuf {
    let path = std::env::var_os("MAINSTAY_NVRTC").map(PathBuf::from).expect("MAINSTAY_NVRTC names libnvrtc.so.12");
    assert!(path.is_file(), "{} is not there", path.display());
    path
}

#[test]
fn every_kernel_compiles_for_every_architecture() {
    let nvrtc = Nvrtc::open(Some(&library())).unwrap();
    let known = nvrtc.architectures().unwrap();
    for (name, _) in SOURCES {
        for architecture in ARCHITECTURES {
            assert!(known.contains(&architecture), "{known:?}");
            let ptx = nvrtc.image(name, &format!("compute_{architecture}")).unwrap();
            let text = String::from_utf8(ptx).unwrap();
            assert!(text.contains(&format!(".target sm_{architecture}")) && text.contains(".entry"), "{name}");
            // A fused multiplication and addition rounds once where the processor rounds twice.
            assert!(!text.contains("fma."), "{name} for {architecture}");
        }
    }
}

#[test]
fn what_was_compiled_is_kept_and_a_torn_file_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let cached = Cached::new(Some(library()), Some(folder.path().to_owned()));
    let first = cached.compile("explain", 90, 12_080).unwrap();
    assert!(first.starts_with(b"\x7fELF"), "machine code for a device that the compiler knows");
    let files = || std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect::<Vec<_>>();
    let path = files().pop().unwrap();
    let kept = std::fs::read(&path).unwrap();
    assert_eq!(kept[32..], first[..], "a digest and what was compiled");
    for torn in [&kept[..kept.len() / 2], b""] {
        std::fs::write(&path, torn).unwrap();
        assert_eq!(cached.compile("explain", 90, 12_080).unwrap(), first);
        assert_eq!(std::fs::read(&path).unwrap(), kept, "it was written again");
    }
    let newer = cached.compile("explain", 999, 12_080).unwrap();
    assert!(String::from_utf8(newer).unwrap().contains(".target sm_"), "PTX for a device that it does not know");
    assert_eq!(files().len(), 2);
    assert!(cached.compile("explain", 20, 12_080).is_err(), "older than all that it knows");
}
