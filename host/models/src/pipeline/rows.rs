//! Where the values of a graph come from: which row of the input each depends on.
//!
//! Owns the proof that a graph answers each row by itself. Rows are computed in tiles, and a tile's size must not show; but
//! graphs may move rows about (stack the answers of several models, turn a matrix over) and still keep them apart, so no
//! operation can be judged by itself. Here the graph is run once at import on a few rows of zeros, and beside each value
//! its owner is kept: no row, one row, or several. Operations that move values move their owners in the same way; all others
//! join those of what they read. The graph is good when each part of its outputs belongs to the row that it stands for.
//!
//! Two numbers of rows are tried, so that no fixed size of the file can agree with both. Bounded by: [`VALUES_MAX`] values
//! and as many owners. On failure: the error of the operation that cannot take such rows.

use std::sync::Arc;

use mainstay_base::{Error, Result};

use super::elementwise::broadcast;
use super::reduce::axes_of;
use super::{Kind, Op, Pipeline, Step, Tensor, VALUES_MAX, around, moves};
use crate::layout::Scratch;

/// Rows that are tried.
const ROWS: [usize; 2] = [2, 7];
/// The owner of a value that is the same for all rows.
const NOBODY: f64 = -1.0;
/// The owner of a value that depends on several rows, or on how many there are.
const SEVERAL: f64 = f64::INFINITY;

/// What was seen when rows were followed to an output.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Followed {
    /// Every row has its own part, this wide.
    Apart {
        /// Values of a row, by output.
        widths: Vec<usize>,
        /// The words that an output has for its answers, by output; empty where those are numbers.
        texts: Vec<Arc<[String]>>,
    },
    /// They meet at this step; none when they only leave in another order or number.
    Meet(Option<usize>),
    /// Only a single row can be computed at a time.
    OnlyOne,
}

fn join(a: f64, b: f64) -> f64 {
    match (a, b) {
        (NOBODY, other) | (other, NOBODY) => other,
        (a, b) if a == b => a,
        _ => SEVERAL,
    }
}

impl Pipeline {
    /// Follow rows to these slots.
    pub fn follow(&self, slots: &[usize]) -> Result<Followed> {
        let mut found = Followed::Meet(None);
        for rows in ROWS {
            found = match Follow::new(self, rows).and_then(|mut follow| follow.run(slots)) {
                Ok(found) => found,
                // What cannot even take one row is broken.
                Err(error) => match Follow::new(self, 1).and_then(|mut follow| follow.run(slots)) {
                    Ok(_) => return Ok(Followed::OnlyOne),
                    Err(_) => return Err(error),
                },
            };
            if let Followed::Meet(_) = found {
                return Ok(found);
            }
        }
        Ok(found)
    }
}

/// A run on some rows.
struct Follow<'a> {
    pipeline: &'a Pipeline,
    rows: usize,
    /// By slot.
    values: Vec<Option<Tensor>>,
    owners: Vec<Option<Tensor>>,
    values_left: usize,
}

impl<'a> Follow<'a> {
    fn new(pipeline: &'a Pipeline, rows: usize) -> Result<Follow<'a>> {
        let mut follow = Follow {
            pipeline,
            rows,
            values: vec![None; pipeline.slots],
            owners: vec![None; pipeline.slots],
            values_left: VALUES_MAX,
        };
        for (slot, width, kind) in &pipeline.inputs {
            let owners = (0..rows * width).map(|at| (at / width) as f64).collect();
            let values = Tensor::new(vec![rows, *width], *kind, vec![0.0; rows * width]);
            follow.keep(*slot, values, Tensor::new(vec![rows, *width], Kind::F64, owners))?;
        }
        Ok(follow)
    }

    fn keep(&mut self, slot: usize, values: Tensor, owners: Tensor) -> Result<()> {
        let left = self.values_left.checked_sub(values.values.len());
        self.values_left = left.ok_or_else(|| {
            Error::invalid(format!("the graph makes more than {VALUES_MAX} values of {} rows", self.rows))
        })?;
        (self.values[slot], self.owners[slot]) = (Some(values), Some(owners));
        Ok(())
    }

    fn run(&mut self, slots: &[usize]) -> Result<Followed> {
        let (mut met, mut counted) = (None, None);
        for (at, step) in self.pipeline.steps.iter().enumerate() {
            let (made, owners) = self.step(step).map_err(|error| step.said_by(error))?;
            let has_met = |owners: &Tensor| owners.values.contains(&SEVERAL);
            let came_met = step.inputs.iter().any(|slot| self.owners[*slot].as_ref().is_some_and(has_met));
            if !came_met && owners.iter().any(has_met) {
                // How many rows there are matters only where nothing else is wrong.
                let place = if matches!(step.op, Op::Shape) { &mut counted } else { &mut met };
                place.get_or_insert(at);
            }
            for ((slot, values), owners) in step.outputs.iter().zip(made).zip(owners) {
                self.keep(*slot, values, owners)?;
            }
        }
        let (mut widths, mut texts) = (Vec::new(), Vec::new());
        for slot in slots {
            let constant = self.pipeline.constants.iter().find(|(known, _)| known == slot);
            if constant.is_some() {
                return Ok(Followed::Meet(None));
            }
            let owners =
                self.owners[*slot].as_ref().ok_or_else(|| Error::internal("an output of the graph is empty"))?;
            let width = owners.values.len() / self.rows;
            let is_own = |(at, owner): (usize, &f64)| *owner == NOBODY || *owner == (at / width) as f64;
            let is_whole = width * self.rows == owners.values.len();
            if !is_whole || (width > 0 && !owners.values.iter().enumerate().all(is_own)) {
                return Ok(Followed::Meet(met.or(counted)));
            }
            widths.push(width);
            texts.push(self.values[*slot].as_ref().map(|values| values.texts.clone()).unwrap_or_default());
        }
        Ok(Followed::Apart { widths, texts })
    }

    fn step(&self, step: &Step) -> Result<(Vec<Tensor>, Vec<Tensor>)> {
        let (mut inputs, mut owners) = (Vec::new(), Vec::new());
        for slot in &step.inputs {
            let constant = self.pipeline.constants.iter().find(|(known, _)| known == slot).map(|(_, tensor)| tensor);
            let values = constant.or(self.values[*slot].as_ref());
            let values = values.ok_or_else(|| Error::internal("an input of the graph's operation is empty"))?;
            let nobody = || Tensor::new(values.shape.clone(), Kind::F64, vec![NOBODY; values.values.len()]);
            owners.push(self.owners[*slot].clone().unwrap_or_else(nobody));
            inputs.push(values);
        }
        let made = run(&step.op, &inputs)?;
        let owners = owners_of(&step.op, &inputs, &owners.iter().collect::<Vec<_>>(), &made)?;
        Ok((made, owners))
    }
}

/// What the operation makes, where zeros need not be what it can take.
fn run(op: &Op, inputs: &[&Tensor]) -> Result<Vec<Tensor>> {
    match op {
        Op::OneHot(one_hot) => {
            let lenient = Op::OneHot(super::OneHot { zeros: true, ..one_hot.clone() });
            lenient.run(inputs, &mut Scratch::default())
        }
        Op::Cast(kind) if inputs[0].kind == Kind::Text && *kind != Kind::Text => {
            Ok(vec![Tensor::new(inputs[0].shape.clone(), *kind, vec![0.0; inputs[0].values.len()])])
        }
        op => op.run(inputs, &mut Scratch::default()),
    }
}

/// Who owns what was made. It has the shapes of `made`.
fn owners_of(op: &Op, inputs: &[&Tensor], owners: &[&Tensor], made: &[Tensor]) -> Result<Vec<Tensor>> {
    let first = owners[0];
    let like = |made: &Tensor, values: Vec<f64>| Tensor::new(made.shape.clone(), Kind::F64, values);
    let same = |owner: f64| made.iter().map(|made| like(made, vec![owner; made.values.len()])).collect();
    let one = match op {
        Op::Identity | Op::Cast(_) => first.clone(),
        Op::Concat(axis) => moves::concat(owners, *axis)?,
        Op::Join => moves::concat(owners, 1)?,
        // The second input is a shape, whoever owns that.
        Op::ReshapeTo => {
            return op.run(&[first, inputs[1]], &mut Scratch::default());
        }
        Op::Reshape(_)
        | Op::Flatten(_)
        | Op::Unsqueeze(_)
        | Op::Squeeze(_)
        | Op::Transpose(_)
        | Op::Slice(_)
        | Op::Split { .. } => return op.run(&[first], &mut Scratch::default()),
        Op::Shape => return Ok(same(SEVERAL)),
        Op::Fill(_) => return Ok(same(NOBODY)),
        Op::Unary(_) | Op::Threshold(_) | Op::Map(_) | Op::MapEither { .. } | Op::Clip(..) => first.clone(),
        Op::Scale { .. } | Op::Impute { .. } => first.clone(),
        Op::Binary(_) => owners[1..].iter().try_fold(first.clone(), |joined, other| together([&joined, other]))?,
        Op::Where => together([first, owners[1], owners[2]])?,
        Op::Select => places(first, owners[1], inputs[1], -1, true)?,
        Op::Gather(axis) => places(first, owners[1], inputs[1], *axis, false)?,
        Op::Take(axis) => {
            let found = moves::take(&along(first, *axis)?, inputs[1], *axis)?;
            together([&found, owners[1]])?
        }
        Op::Softmax(axis) | Op::CumSum { axis, .. } => along(first, *axis)?,
        Op::Normalize(_) => along(first, -1)?,
        Op::TopK { axis, count, .. } => {
            // All along the dimension are alike by then.
            let cut = super::Cut { axis: *axis, start: 0, end: *count as i64, step: 1 };
            let kept = moves::slice(&along(first, *axis)?, &[cut])?;
            return Ok(vec![kept.clone(), kept]);
        }
        Op::ArgMax { axis, .. } => like(&made[0], over(first, &[*axis])?.values),
        Op::Reduce { axes, .. } => like(&made[0], over(first, axes)?.values),
        Op::OneHot(_) => {
            let count = made[0].values.len().checked_div(first.values.len()).unwrap_or(0);
            like(&made[0], first.values.iter().flat_map(|owner| std::iter::repeat_n(*owner, count)).collect())
        }
        Op::Gemm { .. } => gemm(owners, inputs, &made[0])?,
        Op::Linear(_)
        | Op::SvmRegressor(_)
        | Op::SvmClassifier(_)
        | Op::Ensemble(_)
        | Op::Classify(_)
        | Op::Apply(_) => {
            let (rows, width) = first.rows();
            let row = |row: usize| first.values[row * width..][..width].iter().copied().fold(NOBODY, join);
            let of_rows: Vec<f64> = (0..rows).map(row).collect();
            let part = |made: &Tensor| {
                let width = made.values.len().checked_div(rows).unwrap_or(0);
                like(made, of_rows.iter().flat_map(|owner| std::iter::repeat_n(*owner, width)).collect())
            };
            return Ok(made.iter().map(part).collect());
        }
    };
    Ok(vec![one])
}

/// Owners of what is made of values at the same places.
fn together<const N: usize>(owners: [&Tensor; N]) -> Result<Tensor> {
    let (shape, places) = broadcast(owners)?;
    let count = places[0].len();
    let owner = |at: usize| (0..N).map(|input| owners[input].values[places[input][at]]).fold(NOBODY, join);
    Ok(Tensor::new(shape, Kind::F64, (0..count).map(owner).collect()))
}

/// Every owner joined with all others along a dimension.
fn along(owners: &Tensor, axis: i64) -> Result<Tensor> {
    let (outer, size, inner, _) = around(owners, axis)?;
    let mut joined = owners.clone();
    for (line, at) in (0..outer).flat_map(|line| (0..inner).map(move |at| (line, at))) {
        let place = |place: usize| (line * size + place) * inner + at;
        let owner = (0..size).map(|at| owners.values[place(at)]).fold(NOBODY, join);
        (0..size).for_each(|at| joined.values[place(at)] = owner);
    }
    Ok(joined)
}

/// Owners joined over some dimensions, which are then 1; over all when there are none.
fn over(owners: &Tensor, axes: &[i64]) -> Result<Tensor> {
    let mut joined = owners.clone();
    for axis in axes_of(axes, owners.shape.len())? {
        let cut = super::Cut { axis: axis as i64, start: 0, end: 1, step: 1 };
        joined = moves::slice(&along(&joined, axis as i64)?, &[cut])?;
    }
    Ok(joined)
}

/// Owners of what was found at places that may have owners themselves: another row's place would find something else.
fn places(owners: &Tensor, place_owners: &Tensor, places: &Tensor, axis: i64, is_last: bool) -> Result<Tensor> {
    if place_owners.values.iter().all(|owner| *owner == NOBODY) {
        return moves::gather(owners, places, axis, is_last);
    }
    let mut found = moves::gather(&along(owners, axis)?, places, axis, is_last)?;
    let (_, _, inner, _) = around(owners, axis)?;
    let count = place_owners.values.len().max(1);
    let with = |(at, owner): (usize, &mut f64)| *owner = join(*owner, place_owners.values[at / inner.max(1) % count]);
    found.values.iter_mut().enumerate().for_each(with);
    Ok(found)
}

/// Owners of a product: of the line, the column and what is added.
fn gemm(owners: &[&Tensor], inputs: &[&Tensor], made: &Tensor) -> Result<Tensor> {
    let (rows, inner) = owners[0].lines();
    let columns = made.values.len().checked_div(rows).unwrap_or(0);
    let line = |row: usize| owners[0].values[row * inner..][..inner].iter().copied().fold(NOBODY, join);
    // Matrices are nearly always constants; a computed one is owned as a whole.
    let matrix = owners[1].values.iter().copied().fold(NOBODY, join);
    let lines: Vec<f64> = (0..rows).map(|row| join(line(row), matrix)).collect();
    let values = lines.into_iter().flat_map(|owner| std::iter::repeat_n(owner, columns)).collect();
    let product = Tensor::new(made.shape.clone(), Kind::F64, values);
    match (owners.get(2), inputs.get(2)) {
        (Some(added), Some(_)) => together([&product, added]),
        _ => Ok(product),
    }
}
