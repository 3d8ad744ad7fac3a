//! Every model that is held against its own library gives the same bits on the device as on the processor.

use std::path::Path;

use mainstay_cuda::Cuda;
use mainstay_models::device::{Device, Part};
use mainstay_models::explain::Explainer;
use mainstay_models::forest::Forest;
use mainstay_models::import::import;
use mainstay_models::{Model, Output, Rows};
use serde_json::Value;

use crate::{start, turn};

fn matrix(value: &Value) -> Vec<Vec<f64>> {
    let row = |row: &Value| row.as_array().unwrap().iter().map(|cell| cell.as_f64().unwrap_or(f64::NAN)).collect();
    value.as_array().unwrap().iter().map(row).collect()
}

/// Every model of mainstay-models' tests that is trees on its rows, with the rows that its library was asked for.
fn models() -> Vec<(String, Model, Vec<Vec<f64>>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/data");
    let names = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter_map(|name| Some(name.strip_suffix(".expect.json")?.to_owned())).collect();
    names.sort();
    let load = |name: String| {
        let file = ["json", "ubj", "txt", "onnx"]
            .iter()
            .find_map(|end| std::fs::read(folder.join(format!("{name}.{end}"))).ok());
        let model = import(&file.unwrap()).ok()?;
        let expect: Value =
            serde_json::from_slice(&std::fs::read(folder.join(format!("{name}.expect.json"))).unwrap()).unwrap();
        model.forest()?;
        Some((name, model, matrix(&expect["rows"])))
    };
    names.into_iter().filter_map(load).collect()
}

/// Which NaN it is says nothing: processors differ in what infinity less infinity is.
fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }).collect()
}

fn on_processor(model: &Model, rows: &Rows<'_>) -> Vec<f64> {
    let mut out = vec![0.0; rows.count().unwrap() * model.width(Output::Raw).unwrap()];
    model.predict(rows, Output::Raw, &mut out).unwrap();
    out
}

/// What the device says of these parts; none when it leaves them to the processor.
fn on_device(cuda: &Cuda, number: u64, forest: &Forest, parts: &[Part<'_>]) -> Option<Vec<f64>> {
    let count: usize = parts.iter().map(|part| part.range.len()).sum();
    let mut out = vec![f64::NAN; count * forest.outputs as usize];
    cuda.raw(number, forest, parts, &mut out).then_some(out)
}

#[test]
fn every_model_predicts_the_same_bits() {
    let turn = turn();
    let cuda = start();
    let (mut computed, mut left) = (0, Vec::new());
    for (number, (name, model, rows)) in models().iter().enumerate() {
        let (forest, features) = (model.forest().unwrap(), model.features().len());
        let values = rows.concat();
        let narrow: Vec<f32> = values.iter().map(|value| *value as f32).collect();
        let columns: Vec<Vec<f64>> = (0..features).map(|at| rows.iter().map(|row| row[at]).collect()).collect();
        let chunks: Vec<[&[f64]; 1]> = columns.iter().map(|column| [&column[..]]).collect();
        let numbers: Vec<_> = chunks.iter().map(|chunks| mainstay_arrays::Numbers::of_f64(chunks)).collect();
        let forms =
            [Rows::F64 { values: &values, features }, Rows::F32 { values: &narrow, features }, Rows::Columns(&numbers)];
        let all = || 0..rows.len();
        for (at, form) in forms.iter().enumerate() {
            turn.set("seed", at as i64 + 7);
            let want = bits(&on_processor(model, form));
            let Some(got) = on_device(&cuda, number as u64, forest, &[Part { rows: form, range: all() }]) else {
                left.push(name.clone());
                break;
            };
            assert_eq!(bits(&got), want, "{name}: {form:?}");
            computed += 1;
        }
        // In company, row by row, backwards.
        let parts: Vec<Part<'_>> = all().rev().map(|at| Part { rows: &forms[at % 3], range: at..at + 1 }).collect();
        if let Some(got) = on_device(&cuda, number as u64, forest, &parts) {
            let outputs = forest.outputs as usize;
            for (part, got) in parts.iter().zip(got.chunks_exact(outputs)) {
                let want = on_processor(model, part.rows);
                assert_eq!(bits(got), bits(&want[part.range.start * outputs..part.range.end * outputs]), "{name}");
            }
        }
    }
    left.dedup();
    println!("{computed} batches on the device; left to the processor: {left:?}");
    assert!(computed >= 30, "{computed}");
    assert!(left.len() <= 6, "{left:?}");
}

#[test]
fn scores_and_labels_are_made_of_what_the_device_computed() {
    let _turn = turn();
    let cuda = start();
    let mut compared = 0;
    for (number, (name, model, rows)) in models().iter().enumerate() {
        let values = rows.concat();
        let form = Rows::F64 { values: &values, features: model.features().len() };
        for output in [Output::Score, Output::Label, Output::Raw] {
            let (Some(forest), Ok(width)) = (model.forest_behind(output), model.width(output)) else { continue };
            let part = Part { rows: &form, range: 0..rows.len() };
            let Some(raw) = on_device(&cuda, number as u64, forest, &[part]) else { continue };
            let (mut got, mut want) = (vec![0.0; rows.len() * width], vec![0.0; rows.len() * width]);
            model.predict_from(Some(&raw), &form, 0..rows.len(), output, &mut got).unwrap();
            model.predict(&form, output, &mut want).unwrap();
            assert_eq!(bits(&got), bits(&want), "{name}: {output:?}");
            let short = &raw[1..];
            assert!(model.predict_from(Some(short), &form, 0..rows.len(), output, &mut got).is_err());
            compared += 1;
        }
    }
    assert!(compared >= 30, "{compared}");
}

#[test]
fn every_explanation_has_the_same_bits() {
    let turn = turn();
    let cuda = start();
    let mut compared = 0;
    for (number, (name, model, rows)) in models().iter().enumerate() {
        let (forest, features) = (model.forest().unwrap(), model.features().len());
        let values = rows.concat();
        let form = Rows::F64 { values: &values, features };
        if forest.features as usize != features {
            continue;
        }
        let background = Rows::F64 { values: &values[..features * rows.len().min(5)], features };
        let explainers = [Explainer::new(forest), Explainer::against(forest, &background)];
        for (at, explainer) in explainers.into_iter().flatten().enumerate() {
            turn.set("seed", number as i64);
            let places = features * forest.outputs as usize;
            let (mut got, mut want) = (vec![f64::NAN; rows.len() * places], vec![0.0; rows.len() * places]);
            if !cuda.explain((2 * number + at) as u64, &explainer, &form, &mut got) {
                continue;
            }
            explainer.explain(&form, &mut want).unwrap();
            assert_eq!(bits(&got), bits(&want), "{name}");
            compared += 1;
        }
    }
    assert!(compared >= 20, "{compared}");
}

/// With few threads a row and with many, with values that fit into shared memory and that do not: the same.
#[test]
fn the_shape_of_a_launch_changes_nothing() {
    let turn = turn();
    let models = models();
    let (_, model, rows) = models.iter().max_by_key(|(_, model, _)| model.forest().unwrap().trees.len()).unwrap();
    let (forest, features) = (model.forest().unwrap(), model.features().len());
    let many: Vec<f64> = rows.concat().into_iter().cycle().take(features * 17_000).collect();
    let form = Rows::F64 { values: &many, features };
    let want = bits(&on_processor(model, &form));
    for shared in [99 << 10, 8 << 10] {
        turn.set("shared", shared);
        let cuda = start();
        for range in [0..17_000, 0..4_100, 0..100] {
            let got = on_device(&cuda, 1, forest, &[Part { rows: &form, range: range.clone() }]).unwrap();
            assert_eq!(bits(&got), want[..range.end * forest.outputs as usize]);
        }
    }
}
