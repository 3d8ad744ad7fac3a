//! What an operator may set; `config.schema.json` describes it and fills in defaults.

use crate::errors::Outcome;
use serde::{Deserialize, Serialize};

/// The plugin's configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Settings {
    /// The version of the API that `/version` names.
    pub emulated_version: String,
    /// Whether long values of params and tags are cut (as the reference server does) or refused.
    pub truncate_long_values: bool,
    /// Days for which what was deleted can be restored.
    pub retention_days: u32,
    /// Minutes without activity after which a run that is RUNNING is closed as FAILED; 0 for never.
    pub stale_run_minutes: u32,
    /// Unique bytes of artifacts that an experiment may keep; 0 for no quota.
    pub artifact_quota_bytes: u64,
    /// Largest single artifact.
    pub artifact_bytes_max: u64,
    /// Share of the quota from which on every upload warns, in percent.
    pub quota_warning_percent: u8,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            emulated_version: "3.17.2".into(),
            truncate_long_values: true,
            retention_days: 30,
            stale_run_minutes: 1_440,
            artifact_quota_bytes: 0,
            artifact_bytes_max: 1 << 40,
            quota_warning_percent: 80,
        }
    }
}

/// The configuration of this call.
pub fn get() -> Outcome<Settings> {
    Ok(mainstay_sdk::config::get()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// The schema fills in the defaults; what the code would take without it must be the same, key by key.
    #[test]
    fn the_schema_and_the_code_have_the_same_keys_and_defaults() {
        let schema: Value = serde_json::from_str(include_str!("../config.schema.json")).unwrap();
        let code = serde_json::to_value(Settings::default()).unwrap();
        let properties = schema["properties"].as_object().unwrap();
        let described: Vec<_> = properties.iter().map(|(key, rules)| (key, &rules["default"])).collect();
        assert_eq!(described, code.as_object().unwrap().iter().collect::<Vec<_>>());
    }
}
