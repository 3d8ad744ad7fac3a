//! What a process is: the operator's settings, and the command that the supervisor is told.
//!
//! Owns both and their reading. Separate because both sides of the socket need them. Bounded by the definition's size. On
//! failure: settings that make no sense are `invalid`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use mainstay_base::{Error, Result};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::told;
use crate::run::Run;

/// What a process is started with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ProcessSettings {
    /// The program: a path, or a name that is looked for in the `PATH` of the process's own environment.
    pub program: String,
    /// Its arguments, as they are; there is no shell.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Its working folder.
    pub folder: PathBuf,
    /// Its environment. Beside this it has only what `keep-environment` names, and `MAINSTAY_JOB`, `_RUN`, `_TOKEN`,
    /// `_PARAMETERS` (JSON) and `_SCHEDULED_MS`.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// Variables of the host that it gets, too.
    #[serde(default)]
    pub keep_environment: Vec<String>,
    /// What each of its processes may use.
    #[serde(default)]
    pub limits: ProcessLimits,
    /// The exit code that means "not yet".
    #[serde(default)]
    pub not_yet_exit_code: Option<i32>,
    /// Exit codes after which trying again does not help.
    #[serde(default)]
    pub final_exit_codes: Vec<i32>,
    /// From the request to stop (SIGTERM to its group) to the end of all its processes (SIGKILL), in milliseconds. Beyond
    /// the host's own patience with attempts it is cut.
    #[serde(default = "default_grace_ms")]
    pub stop_grace_ms: u64,
}

/// What each process of a command may use; without a number, what the host may.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ProcessLimits {
    /// Address space, in MiB.
    pub memory_mib: Option<u64>,
    /// CPU time, in seconds.
    pub cpu_s: Option<u64>,
    /// The largest file that it may write, in MiB.
    pub file_mib: Option<u64>,
    /// Open files.
    pub open_files: Option<u64>,
}

fn default_grace_ms() -> u64 {
    5_000
}

impl ProcessSettings {
    pub(crate) fn read(settings: &Value) -> Result<ProcessSettings> {
        let settings: ProcessSettings = serde_json::from_value(settings.clone())
            .map_err(|error| Error::invalid(format!("settings of a process: {error}")))?;
        settings.check()?;
        Ok(settings)
    }

    fn check(&self) -> Result<()> {
        if self.program.is_empty() {
            return Err(Error::invalid("settings of a process: `program` is empty"));
        }
        if !self.folder.is_absolute() {
            let folder = self.folder.display();
            return Err(Error::invalid(format!("settings of a process: the folder `{folder}` must be absolute")));
        }
        let names = self.environment.keys().chain(&self.keep_environment);
        let all = self.arguments.iter().chain([&self.program]).chain(self.environment.values()).chain(names.clone());
        if all.clone().any(|text| text.contains('\0')) {
            return Err(Error::invalid("settings of a process: no text may contain a zero byte"));
        }
        if let Some(name) = names.clone().find(|name| name.is_empty() || name.contains('=')) {
            return Err(Error::invalid(format!("settings of a process: `{name}` is no name of a variable")));
        }
        Ok(())
    }
}

/// What the supervisor is told.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Command {
    pub program: String,
    pub arguments: Vec<String>,
    pub folder: PathBuf,
    pub environment: Vec<(String, String)>,
    pub limits: ProcessLimits,
}

/// What the supervisor answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Ended {
    Code { code: i32 },
    Signal { signal: i32, name: String },
    NotStarted { reason: String },
}

impl Command {
    pub fn of(settings: &ProcessSettings, run: &Run) -> Command {
        let kept = settings.keep_environment.iter().filter_map(|name| Some((name.clone(), std::env::var(name).ok()?)));
        let own = settings.environment.iter().map(|(name, value)| (name.clone(), value.clone()));
        Command {
            program: settings.program.clone(),
            arguments: settings.arguments.clone(),
            folder: settings.folder.clone(),
            environment: kept.chain(own).chain(told(run)).collect(),
            limits: settings.limits.clone(),
        }
    }

    /// Its length in four bytes, then JSON.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let text = serde_json::to_vec(self).map_err(|error| Error::internal(error.to_string()))?;
        let length = u32::try_from(text.len()).map_err(|_| Error::invalid("a command of more than 4 GiB"))?;
        Ok([&length.to_le_bytes()[..], &text].concat())
    }

    /// Where the program is: as it stands when it is a path, else in the environment's `PATH`.
    pub fn find_program(&self) -> Option<PathBuf> {
        if self.program.contains('/') {
            return Some(PathBuf::from(&self.program));
        }
        let path = self.environment.iter().rev().find(|(name, _)| name == "PATH").map(|(_, value)| value)?;
        let folders = path.split(':').filter(|folder| Path::new(folder).is_absolute());
        folders.map(|folder| Path::new(folder).join(&self.program)).find(|file| file.is_file())
    }
}
