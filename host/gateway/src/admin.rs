//! What an operator may do to plugins and blobs, as the binary implements it.
//!
//! The gateway carries these requests but owns none of what they do: installing needs the market, starting needs the
//! runtime, and both belong to the binary's wiring. The types are those of the admin API, so their fields are part of a
//! public contract (`docs/reference/openapi.json`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use mainstay_base::Result;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Operations on plugins and blobs.
#[async_trait::async_trait]
pub trait Admin: Send + Sync + 'static {
    /// All installed plugins, by name.
    async fn plugins(&self) -> Result<Vec<PluginSummary>>;
    /// One plugin.
    async fn plugin(&self, name: &str) -> Result<PluginDetail>;
    /// Install or upgrade from an uploaded package file, and start it.
    async fn install(&self, upload: InstallUpload) -> Result<PluginDetail>;
    /// Check and replace a plugin's configuration, and restart it.
    async fn configure(&self, name: &str, config: serde_json::Value) -> Result<PluginDetail>;
    /// Stop a plugin and remove it. Its data stays.
    async fn remove(&self, name: &str) -> Result<()>;
    /// Remove blobs that nothing refers to and whose grace time is over.
    async fn collect_garbage(&self) -> Result<BlobSweep>;
}

/// A package that was uploaded.
#[derive(Debug)]
pub struct InstallUpload {
    /// The package file; removed when the call returns.
    pub file: PathBuf,
    /// Capabilities that the operator grants.
    pub grants: Vec<String>,
    /// Grant everything that the manifest asks for.
    pub grant_all: bool,
    /// Configuration, if given.
    pub config: Option<serde_json::Value>,
}

/// A plugin in a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PluginSummary {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// What it is for.
    pub description: String,
    /// `running`, `starting`, `stopped`, `quarantined` or `failed`.
    pub state: String,
}

/// All that is known of a plugin.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PluginDetail {
    /// What the list shows.
    #[serde(flatten)]
    pub summary: PluginSummary,
    /// SHA-256 of its package, lowercase hexadecimal.
    pub digest: String,
    /// Licence of its package.
    pub license: String,
    /// Worlds that it exports.
    pub worlds: Vec<String>,
    /// Capabilities that its manifest asks for.
    pub capabilities: Vec<String>,
    /// Capabilities that the operator granted.
    pub grants: Vec<String>,
    /// Routes that it claims at the root.
    pub routes: Vec<RouteDetail>,
    /// Limits of each of its calls, by the names that manifests use.
    pub limits: BTreeMap<String, u64>,
    /// Where it is mounted, for example `/plugins/tracking/`.
    pub mount: String,
    /// Its configuration.
    pub config: serde_json::Value,
    /// Why it is not running, if it is not.
    pub problem: Option<String>,
}

/// A route of a plugin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouteDetail {
    /// Methods and path, for example `GET /version`; a prefix ends with `*`.
    pub route: String,
    /// What a caller needs: `none`, `read`, `write` or `admin`.
    pub right: String,
}

/// What a collection of unreferenced blobs did.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct BlobSweep {
    /// Blobs that were looked at.
    pub examined: u64,
    /// Blobs that were removed.
    pub removed: u64,
    /// Bytes that were freed.
    pub freed_bytes: u64,
}

/// What runs.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct VersionInfo {
    /// `mainstay`.
    pub name: String,
    /// Version of the binary.
    pub version: String,
    /// Commit it was built from, if known.
    pub commit: Option<String>,
    /// World versions that plugins may target.
    pub worlds: Vec<String>,
}
