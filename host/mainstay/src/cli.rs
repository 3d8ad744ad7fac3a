//! The command line.
//!
//! Owns flags, their help and their environment variables; what they mean is decided elsewhere. Separate so that the
//! reference (`docs/reference/cli.md`) and the shell completions are made from the same definitions. Flags that set
//! something which the configuration file can set too have no default here: see [`crate::config`].

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use std::path::PathBuf;

/// One server for everything between a trained model and a system in production.
#[derive(Debug, Parser)]
#[command(name = "mainstay", version, propagate_version = false, max_term_width = 120)]
pub struct Cli {
    /// Where the host stores everything [default: ~/.local/share/mainstay]
    #[arg(long, global = true, env = "MAINSTAY_DATA", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub data: Option<PathBuf>,
    /// Configuration file (TOML)
    #[arg(long, global = true, env = "MAINSTAY_CONFIG", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
    /// How log lines on standard error look [default: human]
    #[arg(long, global = true, env = "MAINSTAY_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
    /// Which log lines appear, for example `info` or `warn,mainstay_store=debug` [default: info]
    #[arg(long, global = true, env = "MAINSTAY_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server
    Serve(Serve),
    /// Install, list and remove plugins; on a running server too
    Plugin {
        /// What to do with them.
        #[command(subcommand)]
        command: PluginCommand,
    },
    /// Create, list and revoke access tokens; on a running server too
    Token {
        /// What to do with them.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Look at a model's file and apply it, without a server
    Model {
        /// What to do with it.
        #[command(subcommand)]
        command: ModelCommand,
    },
    /// Ask the tables of a running server with SQL that only reads
    Sql {
        /// One statement, for example `SELECT count(*) FROM readings`
        query: String,
        /// How rows are printed
        #[arg(long, value_name = "FORMAT", default_value = "table")]
        format: RowFormat,
        /// Most rows
        #[arg(long, default_value_t = 1_000, value_name = "COUNT")]
        rows: usize,
    },
    /// Keep what models answered and what became true of it; on a running server
    Predictions {
        /// What to do with them.
        #[command(subcommand)]
        command: PredictionsCommand,
    },
    /// List, show and drop columnar tables of a running server
    Table {
        /// What to do with them.
        #[command(subcommand)]
        command: TableCommand,
    },
    /// Put models behind stable names, with plans that say who is answered by which; on a running server
    Endpoint {
        /// What to do with them.
        #[command(subcommand)]
        command: EndpointCommand,
    },
    /// Define durable jobs, start them, and see what became of them; on a running server
    Job {
        /// What to do with them.
        #[command(subcommand)]
        command: JobCommand,
    },
    /// Look at the data folder and say what is wrong with it and what to do; changes nothing unless told to
    Doctor(Doctor),
    /// Look after stored blobs
    Blobs {
        /// What to do with them.
        #[command(subcommand)]
        command: BlobsCommand,
    },
    /// Show the configuration that applies, or its JSON Schema
    Config {
        /// What to show.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Print a completion script for a shell
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
}

/// Run the server.
#[derive(Debug, Default, Args)]
pub struct Serve {
    /// Where HTTP listens; port 0 takes any free one [default: 127.0.0.1:7600]
    #[arg(long, env = "MAINSTAY_LISTEN", value_name = "ADDRESS")]
    pub listen: Option<String>,
    /// Where gRPC listens, or `off`; port 0 takes any free one [default: 127.0.0.1:7601]
    #[arg(long, env = "MAINSTAY_GRPC", value_name = "ADDRESS")]
    pub grpc: Option<String>,
    /// Which plugins run: `standard` (all installed; an empty data folder gets the standard ones), `none`, or a list of
    /// names and package files with commas between; what is missing is installed [default: standard]
    #[arg(long, env = "MAINSTAY_PLUGINS", value_name = "WHICH")]
    pub plugins: Option<String>,
    /// Folder with package files in which plugins are looked up by name, before those in the binary
    #[arg(long, env = "MAINSTAY_REGISTRY", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub registry: Option<PathBuf>,
    /// Ordered store behind the log, chosen once for a data folder [default: redb]
    #[arg(long, env = "MAINSTAY_ENGINE", value_name = "ENGINE")]
    pub engine: Option<EngineName>,
    /// Write a JSON file with the real addresses once requests are answered, and remove it at the end
    #[arg(long, env = "MAINSTAY_READY_FILE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ready_file: Option<PathBuf>,
}

/// Ordered stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// sled.
    Sled,
    /// redb.
    Redb,
}

/// What to do with plugins.
#[derive(Debug, Subcommand)]
pub enum PluginCommand {
    /// Check a plugin, show what it may do, ask, and install it
    Install(Install),
    /// List installed plugins
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one installed plugin, or a package before it is installed
    Info {
        /// Name of an installed plugin, or a package file or folder
        plugin: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a plugin; what it stored stays
    Remove {
        /// Name of the plugin
        name: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// Install a plugin.
#[derive(Debug, Args)]
pub struct Install {
    /// A package file, a plugin's folder, or the name of a standard plugin
    pub package: String,
    /// Do not ask: grant what the plugin asks for
    #[arg(long, short)]
    pub yes: bool,
    /// Do not grant this capability, though the plugin asks for it (may be repeated)
    #[arg(long, value_name = "CAPABILITY")]
    pub without: Vec<String>,
    /// The plugin's settings, a TOML or JSON file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub settings: Option<PathBuf>,
    /// One setting, for example `--set days=30` (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Folder with package files in which the name is looked up first
    #[arg(long, env = "MAINSTAY_REGISTRY", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub registry: Option<PathBuf>,
}

/// What to do with tokens.
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token and show it once
    Create {
        /// What its owner may do
        #[arg(long)]
        role: RoleName,
        /// Whose it is, for example `ci` or `ana`
        name: String,
    },
    /// List tokens, without their secrets
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Make a token worthless at once
    Revoke {
        /// Name of the token
        name: String,
    },
}

/// What a token's owner may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RoleName {
    /// Read.
    Viewer,
    /// Read and write.
    Editor,
    /// Read, write, and administer plugins.
    Admin,
}

/// What to do with a model.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Say what is in a file: XGBoost JSON or UBJSON, LightGBM text, ONNX
    Inspect {
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Apply it to rows and print one line of answers for each
    Predict {
        /// The file
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// CSV with a header; columns are taken by name where all features are there, else by place; empty cells are missing
        #[arg(long, value_name = "CSV", value_hint = ValueHint::FilePath)]
        rows: PathBuf,
        /// What is asked of it
        #[arg(long, value_name = "WHAT", default_value = "score")]
        output: OutputName,
    },
    /// Register a file, or a folder with a model or a graph, as the next version of a model; on a running server
    Import {
        /// Name of the registered model
        name: String,
        /// The file or folder
        #[arg(value_hint = ValueHint::AnyPath)]
        file: PathBuf,
    },
}

/// What to do with endpoints.
#[derive(Debug, Subcommand)]
pub enum EndpointCommand {
    /// Make or change an endpoint by a file, after showing what would change
    Apply {
        /// TOML with the endpoint's specification
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Check, say what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Why, for its history
        #[arg(long, default_value = "", value_name = "TEXT")]
        why: String,
    },
    /// List endpoints with their variants
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show an endpoint with all that is known of it, as JSON
    Show {
        /// Its name
        endpoint: String,
    },
    /// Remove an endpoint
    Rm {
        /// Its name
        endpoint: String,
    },
    /// Make another plan active: one of the endpoint's named plans, or one that was active before
    Plan {
        /// The endpoint's name
        endpoint: String,
        /// The name of a plan
        #[arg(long, value_name = "NAME", conflicts_with = "version", required_unless_present = "version")]
        named: Option<String>,
        /// The version of a plan that was active before
        #[arg(long, value_name = "VERSION")]
        version: Option<u64>,
        /// Why, for its history
        #[arg(long, default_value = "", value_name = "TEXT")]
        why: String,
    },
    /// List the plans that were active, with who made them so, when and why
    History {
        /// The endpoint's name
        endpoint: String,
    },
}

/// What a model is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OutputName {
    /// What users see: probabilities, or the predicted number
    Score,
    /// The sum before the link function
    Raw,
    /// The leaf that each tree reaches
    Leaf,
    /// The most likely class
    Label,
}

/// How rows are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RowFormat {
    /// In columns, for people
    Table,
    /// As CSV with a header
    Csv,
    /// As one JSON array of objects
    Json,
}

/// What to do with predictions.
#[derive(Debug, Subcommand)]
pub enum PredictionsCommand {
    /// Make a log of predictions, or give it the features and outputs that it lacks
    Apply {
        /// Name of the log
        log: String,
        /// TOML or JSON with `features`, `outputs` and `keep-days`
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// List logs
    List,
    /// Add predictions out of a file; running it again adds nothing twice
    Post {
        /// Name of the log
        log: String,
        /// JSON lines: `id`, `features`, `outputs`, and perhaps `time-us`, `model`, `version`, `variant`, `tenant`, `trace-id`
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Add what became true of predictions out of a file; running it again adds nothing twice
    Outcomes {
        /// Name of the log
        log: String,
        /// JSON lines: `id`, `name`, `value` or `text`, and perhaps `time-us`
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Print predictions with an outcome, each once, as CSV
    Labelled {
        /// Name of the log
        log: String,
        /// Name of the outcome
        #[arg(long, default_value = "label")]
        outcome: String,
        /// Predictions from this time on: a date (`2026-01-31`) or a time with its zone (`2026-01-31T03:00:00Z`)
        #[arg(long, value_name = "TIME")]
        from: Option<String>,
        /// Predictions before this time
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
    },
}

/// What to do with tables.
#[derive(Debug, Subcommand)]
pub enum TableCommand {
    /// List tables
    List,
    /// Show a table's columns, how long rows are kept and how much it holds, as JSON
    Show {
        /// Name of the table
        table: String,
    },
    /// Remove a table with all its rows
    Drop {
        /// Name of the table
        table: String,
        /// Do not ask
        #[arg(long, short)]
        yes: bool,
    },
}

/// What to do with jobs.
#[derive(Debug, Subcommand)]
pub enum JobCommand {
    /// Make or change the jobs and pools of a file, after checking all of them
    Apply {
        /// TOML with `[[jobs]]` and `[[pools]]`
        #[arg(value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Check, say what would change, and change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// List jobs; of one job, its runs
    List {
        /// Name of a job
        job: Option<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Show a job or a run with all that is known of it, as JSON
    Show {
        /// Name of a job, or of a run
        name: String,
    },
    /// Start a run, and wait for its end unless told otherwise; exits with 1 when the run fails
    Run {
        /// Name of the job
        job: String,
        /// A parameter over the job's own, for example `--set days=30` (may be repeated); values are JSON, else text
        #[arg(long, value_name = "KEY=VALUE")]
        set: Vec<String>,
        /// Start once for this key, however often it is asked
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// Do not wait for the end
        #[arg(long)]
        detach: bool,
    },
    /// Print what the newest attempt of a run printed, and go on until the run ends
    Logs {
        /// Name of the run
        run: String,
        /// Only what is there now
        #[arg(long)]
        no_follow: bool,
    },
    /// Ask a run to end
    Cancel {
        /// Name of the run
        run: String,
    },
    /// Run occurrences of the past that have no run yet
    Backfill {
        /// Name of the job
        job: String,
        /// The first scheduled time: a date (`2026-01-31`) or a time with its zone (`2026-01-31T03:00:00Z`)
        #[arg(long, value_name = "TIME")]
        from: String,
        /// The first scheduled time behind the range; now unless given
        #[arg(long, value_name = "TIME")]
        to: Option<String>,
        /// Most occurrences
        #[arg(long, default_value_t = 100)]
        limit: u32,
        /// Only say what would be started
        #[arg(long)]
        dry_run: bool,
    },
    /// Let no further run of a job begin
    Pause {
        /// Name of the job
        job: String,
    },
    /// Let runs of a job begin again
    Resume {
        /// Name of the job
        job: String,
    },
    /// Remove a job; what runs goes on
    Remove {
        /// Name of the job
        job: String,
    },
}

/// Look at the data folder.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Read every blob and compare it with its digest, not only its length
    #[arg(long)]
    pub deep: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Instead of looking: move a damaged log aside and go on with the commits that the ordered index and the log still
    /// hold; nothing is removed
    #[arg(long, conflicts_with_all = ["deep", "json"])]
    pub repair: bool,
    /// With `--repair`, where commits are lost: the first of them, as `doctor` names it
    #[arg(long, value_name = "COMMIT", requires = "repair")]
    pub give_up_from: Option<u64>,
}

/// What to do with blobs.
#[derive(Debug, Subcommand)]
pub enum BlobsCommand {
    /// Remove blobs that nothing has referred to for the grace time
    Gc,
}

/// What to show of the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the configuration that applies, and where each value comes from
    Show,
    /// Print the configuration file's JSON Schema
    Schema,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }
}
