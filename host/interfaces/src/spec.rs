//! What the host needs to know to run a plugin, and what it tells about a running one.

use std::path::PathBuf;
use std::sync::Arc;

use mainstay_runtime::Limits;

/// Where a component's bytes are.
#[derive(Clone, Debug)]
pub enum ComponentSource {
    /// In memory: the binary format, or in tests its text.
    Bytes(Arc<[u8]>),
    /// In a file.
    File(PathBuf),
}

/// Everything about one plugin that its package, its operator and the lockfile decide.
#[derive(Clone, Debug)]
pub struct PluginSpec {
    /// `[a-z][a-z0-9-]{0,62}`; also the name of its key space.
    pub name: String,
    /// Semantic version.
    pub version: String,
    /// The component.
    pub component: ComponentSource,
    /// Granted capabilities, by name.
    pub grants: Vec<String>,
    /// Its limits.
    pub limits: Limits,
    /// Whether instances are used for more than one call.
    pub reuse: bool,
    /// Its validated configuration, one JSON object.
    pub config_json: String,
    /// The worlds that its component exports, with versions.
    pub worlds: Vec<String>,
}

impl PluginSpec {
    /// A plugin of the world `api` without rights, with default limits and an empty configuration.
    pub fn new(name: impl Into<String>, version: impl Into<String>, component: ComponentSource) -> PluginSpec {
        PluginSpec {
            name: name.into(),
            version: version.into(),
            component,
            grants: Vec::new(),
            limits: Limits::default(),
            reuse: false,
            config_json: "{}".to_owned(),
            worlds: vec![crate::worlds::API.world.to_owned()],
        }
    }
}
