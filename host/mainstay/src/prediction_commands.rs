//! `mainstay predictions …`: logs of what models answered and what became true of it, on a running server.
//!
//! Owns the reading of files: lines of JSON, posted in pieces. Each piece is posted under a key made from its content, so a
//! command that was interrupted is run again and adds only what was not yet there. Separate from the admin API, which it calls.
//! On failure: file and line for what is no JSON; else the server's own message, and how many rows were kept before.

use crate::admin_client::AdminClient;
use crate::cli::PredictionsCommand;
use crate::exit::{Exit, Failure, print_text, say};
use crate::job_commands::moment;
use crate::settings::Settings;
use mainstay_base::{Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::path::Path;

/// Rows of one post.
const PIECE_ROWS: usize = 5_000;

/// Run a predictions command.
pub fn run(settings: &Settings, command: PredictionsCommand) -> std::result::Result<Exit, Failure> {
    let client = AdminClient::of_running(&settings.data, "predictions")?;
    match command {
        PredictionsCommand::Apply { log, file } => {
            let applied = client.apply_log(&log, &spec(&file)?)?;
            let count = |what: &str| applied["spec"][what].as_array().map_or(0, Vec::len);
            say!("log {log}: {} features, {} outputs", count("features"), count("outputs"));
        }
        PredictionsCommand::List => {
            let logs = client.logs()?;
            if logs.is_empty() {
                say!("There is no log; `mainstay predictions apply NAME FILE` makes one.");
            }
            logs.iter().for_each(|log| say!("{log}"));
        }
        PredictionsCommand::Post { log, file } => post(&client, "predictions", &log, &file)?,
        PredictionsCommand::Outcomes { log, file } => post(&client, "outcomes", &log, &file)?,
        PredictionsCommand::Labelled { log, outcome, from, to } => {
            let mut query = vec![("outcome", outcome)];
            for (name, time) in [("from_ms", from), ("to_ms", to)] {
                if let Some(time) = time {
                    query.push((name, moment(&time)?.to_string()));
                }
            }
            print_text(&client.labelled(&log, &query)?);
        }
    }
    Ok(Exit::Done)
}

/// What a log's predictions have, out of TOML or JSON.
fn spec(path: &Path) -> Result<Value> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("read the log's fields", path, error))?;
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let wrong = |error: String| Error::invalid(format!("{}: {error}", path.display()));
    match is_json {
        true => serde_json::from_str(&text).map_err(|error| wrong(error.to_string())),
        false => toml::from_str(&text).map_err(|error| wrong(error.to_string())),
    }
}

fn post(client: &AdminClient, what: &str, log: &str, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::io("read", path, error))?;
    let rows = rows(&path.display().to_string(), &text)?;
    let (mut added, mut repeated) = (0, 0);
    for piece in rows.chunks(PIECE_ROWS) {
        let posted = client.post_rows(what, log, piece, &key(what, log, piece)).map_err(|error| {
            let kept = added + repeated;
            error.context(format!("{} ({kept} rows before these are kept; run the command again)", path.display()))
        })?;
        added += posted.rows;
        repeated += if posted.is_repeated { piece.len() } else { 0 };
    }
    say!(
        "{added} rows added to {log}{}",
        if repeated > 0 { format!(", {repeated} were there already") } else { String::new() }
    );
    Ok(())
}

/// All lines before any of them is posted: a file with a mistake adds nothing.
fn rows(name: &str, text: &str) -> Result<Vec<Value>> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let row = |(number, line): (usize, &str)| {
        serde_json::from_str(line).map_err(|error| Error::invalid(format!("{name}:{}: {error}", number + 1)))
    };
    let rows: Vec<Value> = lines.map(row).collect::<Result<_>>()?;
    match rows.is_empty() {
        true => Err(Error::invalid(format!("{name} has no row; write one JSON object a line"))),
        false => Ok(rows),
    }
}

fn key(what: &str, log: &str, rows: &[Value]) -> String {
    let mut digest = Sha256::new();
    digest.update(format!("{what} {log} "));
    rows.iter().for_each(|row| digest.update(row.to_string()));
    format!("{:x}", digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_a_whole_and_names_the_line() {
        fn check(text: &str, expect: &str) {
            let told =
                rows("rows.jsonl", text).map_or_else(|error| error.to_string(), |rows| format!("{} rows", rows.len()));
            assert!(told.contains(expect), "{told} should hold {expect}");
        }
        check("{\"id\": 1}\n\n{\"id\": 2}\n", "2 rows");
        check("{\"id\": 1}\nnot json\n", "rows.jsonl:2");
        check("\n", "no row");
        let (a, b) = ([serde_json::json!({"id": 1})], [serde_json::json!({"id": 2})]);
        assert_eq!(key("outcomes", "x", &a), key("outcomes", "x", &a));
        assert_ne!(key("outcomes", "x", &a), key("outcomes", "x", &b));
    }
}
