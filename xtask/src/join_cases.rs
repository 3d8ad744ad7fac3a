//! Reference cases of as-of joins, through the real function.
//!
//! Owns the reading of their two tables (whole seconds; an empty cell is missing) and the comparison, which is exact. Bounded
//! by the case's files. On failure: the row and field that differ.

use anyhow::{Context, Result, bail};
use mainstay_arrays::Column;
use mainstay_arrays::join::{Rule, Side, as_of};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Compute one case, and compare.
pub fn check(case: &Value, dir: &Path) -> Result<()> {
    let (expected, parameters) = (&case["expected"], &case["params"]);
    let rows = Table::read(&case["inputs"]["entities"], dir)?;
    let history = Table::read(&case["inputs"]["features"], dir)?;
    let flag = |name: &str, default: bool| parameters[name].as_bool().unwrap_or(default);
    let rule = Rule {
        time_to_live: parameters["ttl_seconds"].as_u64().filter(|seconds| *seconds > 0),
        is_time_included: flag("event_time_inclusive", true),
        is_oldest_included: flag("ttl_inclusive", true),
        must_be_recorded: flag("filter_by_created", false),
    };
    let (row_keys, row_times) = rows.keys_and_times()?;
    let (past_keys, past_times) = history.keys_and_times()?;
    let recorded = history.has("created_ts").then(|| history.whole("created_ts")).transpose()?;
    let (row_side, past_side) =
        (Side { keys: &row_keys, times: &row_times }, Side { keys: &past_keys, times: &past_times });
    let matches = match (as_of(&row_side, &past_side, recorded.as_ref(), &rule), expected["error"].as_str()) {
        (Ok(matches), None) => matches,
        (Ok(_), Some(wanted)) => bail!("gave rows where `{wanted}` is expected"),
        (Err(error), Some("null_timestamp")) if error.to_string().contains("no time") => {
            let has_gap = row_times.missing() + past_times.missing() > 0;
            return if has_gap { Ok(()) } else { Err(error.into()) };
        }
        (Err(error), _) => return Err(error.into()),
    };
    for (field, column) in [("value", "value"), ("matched_event_ts", "event_ts")] {
        let Some(wanted) = expected[field].as_array() else { continue };
        let taken = matches.take(&history.real(column)?)?;
        let mut got = Vec::new();
        taken.numbers()?.for_each(|value| got.push(value));
        if got.len() != wanted.len() {
            bail!("{} rows of `{field}`, {} are expected", got.len(), wanted.len());
        }
        if let Some(at) = (0..got.len()).find(|at| got[*at] != wanted[*at].as_f64()) {
            bail!("`{field}` of row {at} is {:?}, {} is expected", got[at], wanted[at]);
        }
    }
    match expected["n_matched"].as_u64() {
        Some(wanted) if wanted != matches.found() as u64 => bail!("{} rows found one, not {wanted}", matches.found()),
        _ => Ok(()),
    }
}

/// Columns of cells.
struct Table(Vec<(String, Vec<String>)>);

impl Table {
    fn read(input: &Value, dir: &Path) -> Result<Table> {
        if let Some(inline) = input["inline"].as_object() {
            let cell = |cell: &Value| match cell {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let column = |(name, cells): (&String, &Value)| {
                let cells = cells.as_array().context("a column that is no list")?;
                Ok((name.clone(), cells.iter().map(cell).collect()))
            };
            return Ok(Table(inline.iter().map(column).collect::<Result<_>>()?));
        }
        let file = dir.join(input["csv"].as_str().context("a table that is neither inline nor a file")?);
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let mut lines = text.lines().filter(|line| !line.is_empty()).map(|line| line.split(','));
        let header = lines.next().context("a file without a header")?;
        let mut columns: Vec<(String, Vec<String>)> = header.map(|name| (name.to_owned(), Vec::new())).collect();
        for mut line in lines {
            for (_, cells) in &mut columns {
                cells.push(line.next().context("a line that is too short")?.trim().to_owned());
            }
        }
        Ok(Table(columns))
    }

    fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(known, _)| known == name)
    }

    fn cells(&self, name: &str) -> Result<&[String]> {
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, cells)| cells.as_slice()).with_context(|| format!("no column `{name}`"))
    }

    fn parsed<T: std::str::FromStr + Default>(&self, name: &str) -> Result<(Vec<T>, Vec<bool>)> {
        let cells = self.cells(name)?;
        let read = |cell: &String| match cell.as_str() {
            "" => Ok(T::default()),
            text => text.parse().ok().with_context(|| format!("`{text}` in column `{name}`")),
        };
        Ok((cells.iter().map(read).collect::<Result<_>>()?, cells.iter().map(|cell| !cell.is_empty()).collect()))
    }

    fn whole(&self, name: &str) -> Result<Column> {
        let (values, there) = self.parsed::<i64>(name)?;
        Ok(Column::i64(&values, Some(&there)))
    }

    fn real(&self, name: &str) -> Result<Column> {
        let (values, there) = self.parsed::<f64>(name)?;
        Ok(Column::f64(&values, Some(&there)))
    }

    /// Keys are all columns that neither are times nor the value: whole numbers where all cells are such, else text.
    fn keys_and_times(&self) -> Result<(Vec<Column>, Column)> {
        let names = self.0.iter().map(|(name, _)| name.as_str());
        let keys = names.filter(|name| !["event_ts", "created_ts", "value"].contains(name));
        let key = |name: &str| {
            let cells = self.cells(name)?;
            let as_text = || Column::text(cells.iter().map(|cell| (!cell.is_empty()).then_some(cell.as_str())));
            Ok(self.whole(name).unwrap_or_else(|_| as_text()))
        };
        Ok((keys.map(key).collect::<Result<_>>()?, self.whole("event_ts")?))
    }
}
