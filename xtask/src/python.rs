//! Python environments, of the real client and of the peers of measurements: pinned, created once, in the user's cache.
//!
//! Owns its creation with `python3 -m venv` and pip. Named by what it is made from, so that another list of requirements or
//! another Python is another environment. On failure: pip's output; a half-made environment is made again the next time.

use crate::place::Place;
use crate::say;
use crate::wasm;
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// An environment that is ready.
pub struct Environment {
    folder: PathBuf,
}

impl Environment {
    /// Its interpreter.
    pub fn program(&self) -> PathBuf {
        self.folder.join("bin/python")
    }

    /// A file of its packages.
    pub fn file(&self, path: &str) -> Result<PathBuf> {
        let versions = fs::read_dir(self.folder.join("lib")).context("reading the environment's packages")?;
        let mut places = versions.flatten().map(|version| version.path().join("site-packages").join(path));
        places.find(|place| place.is_file()).with_context(|| format!("no package of the environment has {path}"))
    }
}

/// The environment of a file of requirements, by its path in the checkout.
pub fn environment(place: &Place, requirements: &str) -> Result<Environment> {
    let requirements = place.root.join(requirements);
    let text = fs::read_to_string(&requirements).with_context(|| format!("reading {}", requirements.display()))?;
    let version =
        Command::new("python3").arg("-VV").output().context("starting python3; Python 3.10 or later is needed")?;
    let key = hex::encode(Sha256::new().chain_update(&text).chain_update(&version.stdout).finalize());
    let folder = place.cache.join("python").join(&key[..16]);
    let complete = folder.join("complete");
    if !complete.exists() {
        say::step(&format!("Making a Python environment in {} (once)", folder.display()));
        create(&folder)?;
        let mut pip = Command::new(folder.join("bin/python"));
        pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--progress-bar", "off", "--requirement"])
            .arg(&requirements);
        say::run_quietly("installing the pinned packages with pip", &mut pip)?;
        fs::write(&complete, text)?;
    }
    Ok(Environment { folder })
}

fn create(folder: &std::path::Path) -> Result<()> {
    let can = || {
        Command::new("python3")
            .args(["-c", "import venv, ensurepip"])
            .output()
            .is_ok_and(|output| output.status.success())
    };
    if !can() {
        wasm::need_debian_package("python3-venv")?;
        if !can() {
            bail!("python3 has no `venv`; install it (`apt-get install python3-venv` on Debian)");
        }
    }
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    say::run_quietly("creating the environment", Command::new("python3").args(["-m", "venv"]).arg(folder))
}
