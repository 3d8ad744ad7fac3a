//! The most likely classes instead of all scores.
//!
//! Owns the extension `classification`: an output of which a request wants the `n` highest scores comes as texts `score:class`,
//! highest first, each row by itself. Separate from the models, which need not know of it. Bounded by the answer. On failure:
//! `invalid`.

use std::fmt::Write;

use mainstay_base::{Error, Result};

use crate::request::{InferAnswer, InferRequest, Parameter};
use crate::tensor::{Datatype, Shape, Tensor};

const PARAMETER: &str = "classification";

/// Takes what a request wants classified out of it: names of outputs, and how many classes of each.
pub(crate) fn take(request: &mut InferRequest) -> Result<Vec<(String, usize)>> {
    let mut wanted = Vec::new();
    for output in &mut request.outputs {
        let Some(place) = output.parameters.iter().position(|(name, _)| name == PARAMETER) else { continue };
        let classes = match output.parameters.remove(place).1 {
            Parameter::Int64(classes) => usize::try_from(classes).ok(),
            Parameter::Uint64(classes) => usize::try_from(classes).ok(),
            _ => None,
        };
        match classes {
            Some(0) => {}
            Some(classes) => wanted.push((output.name.clone(), classes)),
            None => {
                return Err(Error::invalid(format!(
                    "Unable to parse '{PARAMETER}' of output '{}': it is a number",
                    output.name
                )));
            }
        }
    }
    Ok(wanted)
}

/// Replaces outputs by their highest classes. `batched` says whether the first dimension is rows.
pub(crate) fn apply(answer: &mut InferAnswer, wanted: &[(String, usize)], batched: bool) -> Result<()> {
    for (name, classes) in wanted {
        if let Some(output) = answer.outputs.iter_mut().find(|output| output.name == *name) {
            *output = highest(output, *classes, batched)?;
        }
    }
    Ok(())
}

fn highest(output: &Tensor, classes: usize, batched: bool) -> Result<Tensor> {
    let scores = output.numbers()?;
    let rows = if batched { usize::try_from(output.rows()).unwrap_or(0) } else { 1 };
    let width = scores.len().checked_div(rows).unwrap_or(0);
    let classes = classes.min(width);
    let mut texts = Vec::with_capacity(rows.saturating_mul(classes));
    if width > 0 {
        let decimals = match output.datatype {
            Datatype::Fp16 | Datatype::Bf16 | Datatype::Fp32 | Datatype::Fp64 => 6,
            _ => 0,
        };
        scores.chunks_exact(width).for_each(|row| put_highest(&mut texts, row, classes, decimals));
    }
    let mut shape = Shape::new();
    shape.extend(batched.then_some(rows as u64));
    shape.push(classes as u64);
    Tensor::bytes(&output.name, &shape, texts)
}

fn put_highest(texts: &mut Vec<String>, row: &[f64], classes: usize, decimals: usize) {
    let mut order: Vec<usize> = (0..row.len()).collect();
    // What is no number comes last; among equals the first class.
    let key = |class: &usize| if row[*class].is_nan() { f64::NEG_INFINITY } else { row[*class] };
    order.sort_by(|left, right| key(right).total_cmp(&key(left)));
    for class in order.into_iter().take(classes) {
        let mut text = String::new();
        write!(text, "{:.decimals$}:{class}", row[class]).expect("strings can be written to");
        texts.push(text);
    }
}
