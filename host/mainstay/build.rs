//! Puts the standard plugins into the binary: every package that was built before it.
//!
//! `registry-data/packages/` is not under version control; where it is empty the binary carries no plugin and says how to
//! get them when it is asked for one.

use std::fmt::Write;
use std::path::PathBuf;

fn main() {
    // Asked of the environment, not of the compiler: checkouts may share one target folder.
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").expect("cargo names the folder"));
    let folder = manifest.join("../../registry-data/packages");
    println!("cargo::rerun-if-env-changed=CARGO_MANIFEST_DIR");
    println!("cargo::rerun-if-changed=build.rs");
    // Of a folder that is not there yet, cargo can only watch the one above it.
    let watched = if folder.is_dir() { &folder } else { folder.parent().unwrap_or(&folder) };
    println!("cargo::rerun-if-changed={}", watched.display());
    let mut packages: Vec<PathBuf> = std::fs::read_dir(&folder)
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    packages.retain(|path| path.extension().is_some_and(|extension| extension == "mainstay"));
    packages.sort();
    let mut code = String::from("&[\n");
    for path in packages {
        let path = path.canonicalize().expect("a listed file has a path");
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        writeln!(code, "    ({name:?}, include_bytes!({:?})),", path.display().to_string())
            .expect("strings can be written to");
    }
    code.push_str("]\n");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo gives a folder"));
    std::fs::write(out.join("standard.rs"), code).expect("the folder that cargo gave can be written to");
}
