//! `mainstay sql` and `mainstay table …`: looking at the columnar tables of a running server.
//!
//! Owns how rows are shown to people. Separate from the admin API, which it calls. On failure: the server's own message; what an
//! answer lacks is said on standard error, so that standard output is rows and nothing else.

use crate::admin_client::{AdminClient, SqlText};
use crate::cli::{RowFormat, TableCommand};
use crate::exit::{Exit, Failure, print_text, say};
use crate::settings::Settings;
use mainstay_base::{Error, Result};
use mainstay_gateway::SqlOrder;
use std::io::{BufRead, IsTerminal, Write};

/// Run a query.
pub fn sql(settings: &Settings, query: String, format: RowFormat, rows: usize) -> std::result::Result<Exit, Failure> {
    let client = AdminClient::of_running(&settings.data, "sql")?;
    let order = SqlOrder { query, rows: Some(rows) };
    let SqlText { text, is_cut, missing_rows } = client.sql(&order, format != RowFormat::Json)?;
    match format {
        RowFormat::Table => print_text(&in_columns(&text)?),
        RowFormat::Csv => print_text(&text),
        RowFormat::Json => say!("{text}"),
    }
    if is_cut {
        eprintln!("There are more rows than {rows}; `--rows` asks for more of them.");
    }
    if missing_rows > 0 {
        eprintln!(
            "{missing_rows} rows are missing: files are damaged and were set aside; the server's log names them."
        );
    }
    Ok(Exit::Done)
}

/// Run a table command.
pub fn run(settings: &Settings, command: TableCommand) -> std::result::Result<Exit, Failure> {
    let client = AdminClient::of_running(&settings.data, "table")?;
    match command {
        TableCommand::List => {
            let tables = client.tables()?;
            if tables.is_empty() {
                say!("There is no table; plugins make them, and so does the log of predictions.");
            }
            tables.iter().for_each(|table| say!("{table}"));
        }
        TableCommand::Show { table } => {
            let text = serde_json::to_string_pretty(&client.table(&table)?);
            say!("{}", text.map_err(|error| Error::internal(error.to_string()))?);
        }
        TableCommand::Drop { table, yes } => {
            if !yes && !agrees(&table)? {
                say!("Nothing was removed.");
                return Ok(Exit::Done);
            }
            client.drop_table(&table)?;
            say!("Removed `{table}`.");
        }
    }
    Ok(Exit::Done)
}

fn agrees(table: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Err(Error::invalid(format!("nobody can be asked here; `--yes` removes `{table}` with all its rows")));
    }
    eprint!("Remove `{table}` with all its rows? They cannot be brought back. [y/N] ");
    let unreadable = |error| Error::unavailable(format!("the answer cannot be read: {error}"));
    std::io::stderr().flush().map_err(unreadable)?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(unreadable)?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

/// CSV as columns that stand below each other.
fn in_columns(text: &str) -> Result<String> {
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let rows: Vec<csv::StringRecord> = reader
        .records()
        .collect::<std::result::Result<_, _>>()
        .map_err(|error| Error::internal(format!("the server's CSV cannot be read: {error}")))?;
    let columns = rows.first().map_or(0, csv::StringRecord::len);
    let width = |column: usize| rows.iter().map(|row| row.get(column).unwrap_or("").chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for (number, row) in rows.iter().enumerate() {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out.push_str(cells.join("  ").trim_end());
        out.push('\n');
        if number == 0 {
            let lines: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            out.push_str(&lines.join("  "));
            out.push('\n');
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_stand_in_columns() {
        let shown = in_columns("name,count\nännchen,1\n\"a, b\",23\n").unwrap();
        assert_eq!(shown, "name     count\n-------  -----\nännchen  1\na, b     23\n");
        assert_eq!(in_columns("").unwrap(), "");
    }
}
