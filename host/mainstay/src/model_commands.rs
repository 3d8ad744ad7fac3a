//! `mainstay model`: look at a model's file and apply it, without a server; import it into one.
//!
//! Owns the printing, and the reading of rows from CSV; importing and predicting are `mainstay-models` and `mainstay-networks`. Bounded by: the
//! importer's limits, and [`ROWS_BYTES_MAX`] of rows. On failure: what the importer says, or the line and column of the cell
//! that is no number.

use std::fs;
use std::path::Path;

use mainstay_base::{Error, Result};
use mainstay_models::forest::{Forest, Node};
use mainstay_models::{Model, Output, Rows, Task};
use mainstay_networks::{Limits, Runtime};
use serde::Serialize;

use crate::cli::{ModelCommand, OutputName};
use crate::endpoint_commands;
use crate::exit::{Exit, Failure, say};
use crate::settings::Settings;

/// Size of a file of rows.
const ROWS_BYTES_MAX: u64 = 1 << 30;
/// Features named on the screen; `--json` has all.
const SHOWN_MAX: usize = 12;

/// Do what was asked.
pub fn run(settings: &Settings, command: &ModelCommand) -> std::result::Result<Exit, Failure> {
    match command {
        ModelCommand::Import { name, file } => return endpoint_commands::import(settings, name, file),
        ModelCommand::Inspect { file, json } => inspect(&read(file)?, *json),
        ModelCommand::Predict { file, rows, output } => predict(&read(file)?, rows, *output),
    }
    .map(|()| Exit::Done)
    .map_err(Failure::from)
}

fn read(path: &Path) -> Result<Model> {
    let bytes = fs::read(path).map_err(|error| Error::io("read the model", path, error))?;
    let options = mainstay_networks::Options::own_binary(Runtime::default(), Limits::default())?;
    mainstay_networks::import(&bytes, &options).map_err(|error| error.context(format_args!("`{}`", path.display())))
}

/// What is known of a model.
#[derive(Serialize)]
struct Described<'a> {
    format: &'a str,
    task: &'a str,
    objective: &'a str,
    features: Vec<&'a str>,
    classes: &'a [String],
    outputs: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    trees: Option<Trees>,
    can_explain: bool,
}

/// What is known of an ensemble.
#[derive(Serialize)]
struct Trees {
    trees: usize,
    nodes: usize,
    leaves: usize,
    depth: usize,
}

impl Trees {
    fn of(forest: &Forest) -> Trees {
        let is_leaf = |node: &&Node| matches!(node, Node::Leaf { .. });
        Trees {
            trees: forest.trees.len(),
            nodes: forest.trees.iter().map(|tree| tree.nodes.len()).sum(),
            leaves: forest.trees.iter().map(|tree| tree.nodes.iter().filter(is_leaf).count()).sum(),
            depth: forest.trees.iter().map(|tree| tree.depth()).max().unwrap_or_default(),
        }
    }
}

fn inspect(model: &Model, json: bool) -> Result<()> {
    let described = Described {
        format: model.format().name(),
        task: match model.task() {
            Task::Regression => "regression",
            Task::Classification => "classification",
        },
        objective: model.objective(),
        features: model.features().iter().map(|feature| feature.name.as_str()).collect(),
        classes: model.classes(),
        outputs: model.width(Output::Score)?,
        trees: model.forest().map(Trees::of),
        can_explain: model.forest().is_some_and(|forest| mainstay_models::explain::Explainer::new(forest).is_ok()),
    };
    if json {
        let text = serde_json::to_string_pretty(&described).map_err(|error| Error::internal(error.to_string()))?;
        say!("{text}");
        return Ok(());
    }
    let Described { format, task, objective, features, classes, outputs, trees, can_explain } = &described;
    say!("format      {format}");
    say!("task        {task}{}", if objective.is_empty() { String::new() } else { format!(" ({objective})") });
    say!("features    {}: {}", features.len(), shortened(features));
    if !classes.is_empty() {
        say!("classes     {}: {}", classes.len(), shortened(classes));
    }
    say!("outputs     {outputs} a row");
    if let Some(Trees { trees, nodes, leaves, depth }) = trees {
        say!("trees       {trees}, of {nodes} nodes ({leaves} leaves), at most {depth} deep");
    }
    let explained = if *can_explain { "along its paths, and against background rows" } else { "no training weights" };
    say!("explained   {}", if trees.is_some() { explained } else { "no: it is not one ensemble of trees" });
    Ok(())
}

fn shortened<S: AsRef<str>>(names: &[S]) -> String {
    let shown: Vec<&str> = names.iter().take(SHOWN_MAX).map(AsRef::as_ref).collect();
    let more = names.len().saturating_sub(SHOWN_MAX);
    if more == 0 { shown.join(", ") } else { format!("{}, and {more} more", shown.join(", ")) }
}

fn predict(model: &Model, rows: &Path, output: OutputName) -> Result<()> {
    let values = read_rows(model, rows)?;
    let output = match output {
        OutputName::Score => Output::Score,
        OutputName::Raw => Output::Raw,
        OutputName::Leaf => Output::Leaf,
        OutputName::Label => Output::Label,
    };
    let (features, width) = (model.features().len(), model.width(output)?);
    let mut answers = vec![0.0; values.len() / features.max(1) * width];
    model.predict(&Rows::F64 { values: &values, features }, output, &mut answers)?;
    for row in answers.chunks(width.max(1)) {
        say!("{}", row.iter().map(f64::to_string).collect::<Vec<_>>().join(","));
    }
    Ok(())
}

/// Rows of a CSV file with a header: by name where the header has all features, else by place. An empty cell is missing.
fn read_rows(model: &Model, path: &Path) -> Result<Vec<f64>> {
    let doing = |error| Error::io("read the rows", path, error);
    if fs::metadata(path).map_err(doing)?.len() > ROWS_BYTES_MAX {
        return Err(Error::invalid(format!("`{}` has more than {ROWS_BYTES_MAX} bytes; split it", path.display())));
    }
    let wrong = |why: String| Error::invalid(format!("`{}`: {why}", path.display()));
    let mut reader = csv::Reader::from_path(path).map_err(|error| wrong(error.to_string()))?;
    let header = reader.headers().map_err(|error| wrong(error.to_string()))?.clone();
    let features = model.features();
    let by_name: Option<Vec<usize>> =
        features.iter().map(|feature| header.iter().position(|name| name == feature.name)).collect();
    let places = match by_name {
        Some(places) => places,
        None if header.len() == features.len() => (0..features.len()).collect(),
        None => {
            let missing = features.iter().find(|feature| !header.iter().any(|name| name == feature.name));
            let missing = missing.map_or("", |feature| &feature.name);
            return Err(wrong(format!(
                "{} columns for a model of {} features; the first that is not there is `{missing}`",
                header.len(),
                features.len()
            )));
        }
    };
    let mut values = Vec::new();
    for (number, record) in reader.records().enumerate() {
        let record = record.map_err(|error| wrong(error.to_string()))?;
        for place in &places {
            values.push(cell(&record[*place]).ok_or_else(|| {
                wrong(format!("line {}, column `{}`: `{}` is no number", number + 2, &header[*place], &record[*place]))
            })?);
        }
    }
    Ok(values)
}

fn cell(text: &str) -> Option<f64> {
    match text.trim() {
        "" => Some(f64::NAN),
        number => number.parse().ok(),
    }
}
