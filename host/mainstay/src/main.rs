//! The binary: command line, configuration, wiring.
//!
//! Owns nothing but the order in which a command is understood: arguments, configuration, settings, then the command's own
//! file. Separate rooms do the work. On failure: one message on standard error that says what happened and what to do, and an
//! exit code (see [`exit`]).
#![forbid(unsafe_code)]

mod admin_client;
mod cli;
mod config;
mod data_folder;
mod device_metrics;
mod doctor;
mod door;
mod endpoint_commands;
mod exit;
mod fallbacks;
mod job_commands;
mod model_commands;
mod plugin_commands;
mod plugins;
mod prediction_commands;
#[cfg(test)]
mod reference;
mod registry;
mod room_metrics;
mod screen;
mod serve;
mod serving;
mod settings;
mod table_commands;
mod telemetry;
mod token_commands;
mod workers;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use cli::{Cli, Command, ConfigCommand};
use exit::{Exit, Failure, print_text, say};
use mainstay_runtime::compile;
use mainstay_schedule::process;
use settings::Settings;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> ExitCode {
    let started = Instant::now();
    // Before anything else: children that compile or run foreign graphs have bounds that logging and configuration would
    // not fit. They are no commands of the command line: the host calls them itself.
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == compile::CHILD_COMMAND => return compile::child_main(arguments),
        Some(first) if first == mainstay_networks::CHILD_COMMAND => return mainstay_networks::child_main(arguments),
        Some(first) if first == process::SUPERVISOR_COMMAND => {
            return process::supervisor_main([first], arguments);
        }
        _ => {}
    }
    let matches = Cli::command().get_matches();
    let cli = match Cli::from_arg_matches(&matches) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    match run(cli, &matches, started) {
        Ok(code) => code,
        Err(failure) => {
            failure.tell();
            failure.exit.into()
        }
    }
}

fn run(cli: Cli, matches: &ArgMatches, started: Instant) -> Result<ExitCode, Failure> {
    let applied = config::apply(&cli, &|id| is_on_line(matches, id))?;
    match &cli.command {
        Command::Config { command: ConfigCommand::Show } => print_text(&config::show(&applied)?),
        Command::Config { command: ConfigCommand::Schema } => say!("{:#}", config::schema()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "mainstay", &mut script);
            print_text(&String::from_utf8_lossy(&script));
        }
        _ => return carry_out(cli.command, applied, started).map(ExitCode::from),
    }
    Ok(Exit::Done.into())
}

/// The commands that touch the data folder.
fn carry_out(command: Command, applied: config::Applied, started: Instant) -> Result<Exit, Failure> {
    let is_server = matches!(command, Command::Serve(_));
    let names_engine = applied.origins.contains_key("/store/engine");
    let names_filter = applied.origins.contains_key("/log/filter");
    let mut settings = Settings::new(applied.config, names_engine)?;
    if !is_server && !names_filter {
        // A command tells its result itself.
        settings.log.filter = "warn".into();
    }
    let telemetry = telemetry::start(&settings.log, is_server.then_some(&settings.traces))?;
    let exit = match command {
        Command::Serve(serve) => serve::run(settings, serve.ready_file, started),
        Command::Plugin { command } => plugin_commands::run(&settings, command),
        Command::Token { command } => token_commands::run(&settings, command),
        Command::Blobs { command } => token_commands::run_blobs(&settings, &command),
        Command::Sql { query, format, rows } => table_commands::sql(&settings, query, format, rows),
        Command::Predictions { command } => prediction_commands::run(&settings, command),
        Command::Table { command } => table_commands::run(&settings, command),
        Command::Endpoint { command } => endpoint_commands::run(&settings, command),
        Command::Job { command } => job_commands::run(&settings, command),
        Command::Model { command } => model_commands::run(&settings, &command),
        Command::Doctor(options) => examine(&settings, &options),
        Command::Config { .. } | Command::Completions { .. } => Ok(Exit::Done),
    };
    drop(telemetry);
    exit
}

fn examine(settings: &Settings, options: &cli::Doctor) -> Result<Exit, Failure> {
    if options.repair {
        print_text(&doctor::repair(settings, options.give_up_from)?);
        return Ok(Exit::Done);
    }
    let report = doctor::examine(settings, options.deep);
    match options.json {
        true => {
            let text = serde_json::to_string_pretty(&report);
            say!("{}", text.map_err(|error| mainstay_base::Error::internal(error.to_string()))?);
        }
        false => print_text(&doctor::render(&report)),
    }
    Ok(doctor::exit(&report))
}

/// Whether the argument was written on the command line, not taken from the environment.
fn is_on_line(matches: &ArgMatches, id: &str) -> bool {
    let here =
        matches.try_contains_id(id).unwrap_or(false) && matches.value_source(id) == Some(ValueSource::CommandLine);
    here || matches.subcommand().is_some_and(|(_, inner)| is_on_line(inner, id))
}
