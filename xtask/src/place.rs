//! Where things are: the checkout, the target folder, the user's cache.

use anyhow::{Context, Result};
use std::path::{Path, PathBuf};

/// Where things are.
pub struct Place {
    /// The checkout.
    pub root: PathBuf,
    /// Cargo's target folder of the host's workspace, whatever environment and configuration say.
    pub target: PathBuf,
    /// What outlives the clone: the wasm standard library, the Python environment.
    pub cache: PathBuf,
}

impl Place {
    /// Look around.
    pub fn find() -> Result<Place> {
        // What cargo says now comes first: checkouts may share one target folder, and with it this binary.
        let manifest = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
        let root = Path::new(&manifest).parent().context("xtask lies in the root of the checkout")?;
        let metadata = cargo_metadata::MetadataCommand::new().current_dir(root).no_deps().exec()?;
        let cache = match (std::env::var_os("XDG_CACHE_HOME"), std::env::home_dir()) {
            (Some(cache), _) if !cache.is_empty() => PathBuf::from(cache),
            (_, Some(home)) => home.join(".cache"),
            _ => anyhow::bail!("there is no home folder to cache in; set XDG_CACHE_HOME"),
        };
        Ok(Place {
            root: root.to_path_buf(),
            target: metadata.target_directory.into_std_path_buf(),
            cache: cache.join("mainstay"),
        })
    }

    /// The path as the user would write it from the root of the checkout.
    pub fn show(&self, path: &Path) -> String {
        path.strip_prefix(&self.root).unwrap_or(path).display().to_string()
    }

    /// The packed standard plugins: those that become part of the binary.
    pub fn packages(&self) -> PathBuf {
        self.root.join("registry-data/packages")
    }

    /// The packed examples.
    pub fn examples(&self) -> PathBuf {
        self.root.join("registry-data/examples")
    }
}
