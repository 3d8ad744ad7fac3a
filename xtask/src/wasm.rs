//! How wasm can be built on this machine.
//!
//! Owns the discovery, which looks at files and asks no network: an installed target of the rustc at hand; else Debian's
//! packages with a standard library built once and cached; else `rustup target add`, when the user allows that download,
//! and never otherwise. Separate because everything else only wants a [`Toolchain`]. Bounded by: one standard library for
//! each rustc version in the user's cache. On failure: what is missing and which commands bring it.

use crate::cargo::forget_own;
use crate::place::Place;
use crate::say;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// The target of every component: it imports nothing but what the WIT says.
pub const TARGET: &str = "wasm32-unknown-unknown";

const PACKAGES: &[&str] = &["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm", "lld-22"];
const LINKER: &str = "wasm-ld-22";
/// What the recipe of the cached standard library is; a change builds it again.
const RECIPE: &str = "1";

/// A way to build wasm.
pub enum Toolchain {
    /// The cargo at hand has the target.
    Installed,
    /// Debian's rustc with a sysroot of ours.
    Debian { sysroot: PathBuf },
}

impl Toolchain {
    /// Find a way, installing what is missing by package name where that is possible.
    pub fn find(place: &Place, allow_rustup: bool) -> Result<Toolchain> {
        if target_is_installed()? {
            return Ok(Toolchain::Installed);
        }
        if debian_is_ready() || install_debian()? {
            return Ok(Toolchain::Debian { sysroot: sysroot(place)? });
        }
        if has_rustup() && (allow_rustup || user_agrees()?) {
            say::step("Adding the wasm target with rustup, as you allowed");
            say::run(Command::new("rustup").args(["target", "add", TARGET]))?;
            return Ok(Toolchain::Installed);
        }
        bail!(
            "this machine cannot build wasm yet. Either run `rustup target add {TARGET}` (or this command again with \
             --allow-rustup), or on Debian, as root: `apt-get install {}`",
            PACKAGES.join(" ")
        );
    }

    /// Cargo for wasm.
    pub fn cargo(&self) -> Command {
        match self {
            Toolchain::Installed => {
                let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
                forget_own(&mut command);
                command
            }
            Toolchain::Debian { sysroot } => {
                let mut command = debian_cargo();
                let flags = format!("--sysroot {} -Clinker={LINKER}", sysroot.display());
                command.env("CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUSTFLAGS", flags);
                command
            }
        }
    }

    /// In words.
    pub fn describe(&self) -> &'static str {
        match self {
            Toolchain::Installed => "the installed wasm32 target",
            Toolchain::Debian { .. } => "Debian's rustc-web and a cached standard library",
        }
    }
}

fn target_is_installed() -> Result<bool> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).args(["--print", "target-libdir", "--target", TARGET]).output();
    let output = output.context("asking rustc where its target libraries are")?;
    let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    Ok(output.status.success() && holds_core(Path::new(&folder)))
}

/// Whether a folder holds a built `core`.
fn holds_core(folder: &Path) -> bool {
    let Ok(files) = fs::read_dir(folder) else { return false };
    files.flatten().any(|file| {
        let name = file.file_name();
        let name = name.to_string_lossy();
        name.starts_with("libcore-") && name.ends_with(".rlib")
    })
}

fn debian_is_ready() -> bool {
    let sources = Path::new("/usr/lib/rustlib/src/rust/library/core").exists()
        || Path::new("/usr/src").read_dir().is_ok_and(|mut all| {
            all.any(|entry| entry.is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("rustc-")))
        });
    sources
        && ["cargo", "rustc", LINKER].iter().all(|program| Path::new("/usr/bin").join(program).exists())
        && all_installed()
}

fn all_installed() -> bool {
    let output =
        Command::new("dpkg-query").args(["--show", "--showformat", "${db:Status-Status}\n"]).args(PACKAGES).output();
    output.is_ok_and(|output| {
        String::from_utf8_lossy(&output.stdout).lines().filter(|status| *status == "installed").count()
            == PACKAGES.len()
    })
}

/// Install Debian's packages, where there is apt, the packages, and the right to install. False: not here.
fn install_debian() -> Result<bool> {
    if !apt_could_install(PACKAGES)? {
        return Ok(false);
    }
    apt_install(PACKAGES)?;
    Ok(debian_is_ready())
}

/// Whether we are root on a machine with apt that knows these packages, after one update of its lists if need be.
fn apt_could_install(packages: &[&str]) -> Result<bool> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|me| me.uid() == 0);
    if !is_root || !Path::new("/usr/bin/apt-get").exists() {
        return Ok(false);
    }
    if apt_knows(packages) {
        return Ok(true);
    }
    say::run_quietly("updating apt's package lists", Command::new("apt-get").args(["update", "--quiet"]))?;
    Ok(apt_knows(packages))
}

fn apt_knows(packages: &[&str]) -> bool {
    packages.iter().all(|package| {
        let output = Command::new("apt-cache").args(["show", "--no-all-versions", package]).output();
        output.is_ok_and(|output| output.status.success() && !output.stdout.is_empty())
    })
}

fn apt_install(packages: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    say::run_quietly(&format!("installing {} by apt", packages.join(", ")), &mut command)
}

/// A program of a Debian package: there, or installed now, or an error that says how to get it.
pub fn need_debian_program(program: &str, package: &str) -> Result<()> {
    let found =
        std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).exists()));
    if found { Ok(()) } else { need_debian_package(package) }
}

/// Install a Debian package, or say how to.
pub fn need_debian_package(package: &str) -> Result<()> {
    if apt_could_install(&[package])? {
        return apt_install(&[package]);
    }
    bail!(
        "the package `{package}` is missing and cannot be installed from here: run `apt-get install {package}` as root"
    );
}

fn has_rustup() -> bool {
    Command::new("rustup").arg("--version").output().is_ok_and(|output| output.status.success())
}

fn user_agrees() -> Result<bool> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Ok(false);
    }
    eprint!("This machine cannot build wasm. May `rustup target add {TARGET}` download it? [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Debian's cargo and rustc, whatever stands before them on the PATH, and nothing of the rustup that may run xtask.
fn debian_cargo() -> Command {
    let mut command = Command::new("/usr/bin/cargo");
    forget_own(&mut command);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(PathBuf::from("/usr/bin")).chain(std::env::split_paths(&path)));
    command.env("PATH", path.expect("it was a PATH before")).env("RUSTC", "/usr/bin/rustc");
    for name in ["CARGO", "RUSTUP_TOOLCHAIN", "RUSTDOC", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "LD_LIBRARY_PATH"] {
        command.env_remove(name);
    }
    command
}

/// The cached sysroot for Debian's rustc, built on first use.
fn sysroot(place: &Place) -> Result<PathBuf> {
    let version = Command::new("/usr/bin/rustc").arg("-vV").env_remove("LD_LIBRARY_PATH").output()?;
    let version = String::from_utf8(version.stdout).context("reading the version of /usr/bin/rustc")?;
    let key = hex::encode(Sha256::new().chain_update(RECIPE).chain_update(&version).finalize());
    let folder = place.cache.join("wasm-std");
    fs::create_dir_all(&folder)?;
    // Two checkouts may come here at once; the second finds what the first one built.
    let lock = fs::File::create(folder.join("lock"))?;
    lock.lock()?;
    let sysroot = folder.join(&key[..16]);
    let libraries = |sysroot: &Path| sysroot.join("lib/rustlib").join(TARGET).join("lib");
    if !holds_core(&libraries(&sysroot)) {
        let host = version.lines().find_map(|line| line.strip_prefix("host: ")).context("rustc names its host")?;
        say::step("Building the standard library for wasm32 (once for this rustc; one or two minutes)");
        build_sysroot(&folder, &sysroot, host, &libraries)?;
    }
    Ok(sysroot)
}

fn build_sysroot(folder: &Path, sysroot: &Path, host: &str, libraries: &dyn Fn(&Path) -> PathBuf) -> Result<()> {
    let seed = tempfile::tempdir_in(folder)?;
    fs::create_dir(seed.path().join("src"))?;
    fs::write(seed.path().join("src/lib.rs"), "")?;
    let manifest = "[package]\nname = \"seed\"\nversion = \"0.0.0\"\nedition = \"2024\"\n[workspace]\n";
    fs::write(seed.path().join("Cargo.toml"), manifest)?;
    let mut command = debian_cargo();
    command
        .args(["build", "-Zbuild-std=std,panic_abort", "--target", TARGET, "--release"])
        .env("RUSTC_BOOTSTRAP", "1")
        // Bitcode lets plugins use thin link-time optimisation.
        .env("RUSTFLAGS", format!("-Clinker={LINKER} -Cembed-bitcode=yes"))
        .env("CARGO_TARGET_DIR", seed.path().join("target"))
        .current_dir(seed.path());
    say::run_quietly("building std for wasm32", &mut command)?;

    let built = seed.path().join("sysroot");
    fs::create_dir_all(libraries(&built))?;
    for file in fs::read_dir(seed.path().join("target").join(TARGET).join("release/deps"))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "rlib") {
            let name = path.file_name().context("a file has a name")?;
            fs::copy(&path, libraries(&built).join(name))?;
        }
    }
    symlink(Path::new("/usr/lib/rustlib").join(host), built.join("lib/rustlib").join(host))?;
    if sysroot.exists() {
        fs::remove_dir_all(sysroot)?;
    }
    fs::rename(&built, sysroot).context("putting the standard library into the cache")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_installed_where_core_is() {
        let folder = tempfile::tempdir().unwrap();
        let check = |expect: bool| assert_eq!(holds_core(folder.path()), expect);
        check(false);
        fs::write(folder.path().join("libstd-1.rlib"), "").unwrap();
        fs::write(folder.path().join("libcore-1.rmeta"), "").unwrap();
        check(false);
        fs::write(folder.path().join("libcore-1.rlib"), "").unwrap();
        check(true);
        assert!(!holds_core(&folder.path().join("absent")));
    }

    #[test]
    fn debian_s_cargo_sees_nothing_of_the_rustup_that_runs_this() {
        let command = debian_cargo();
        let removed: Vec<_> =
            command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name.to_owned()).collect();
        assert!(
            ["RUSTUP_TOOLCHAIN", "CARGO", "LD_LIBRARY_PATH"].iter().all(|name| removed.iter().any(|each| each == name))
        );
        let path = command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value).unwrap();
        assert!(path.to_string_lossy().starts_with("/usr/bin:"));
    }
}
