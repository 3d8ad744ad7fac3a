//! Small graphs of typed operations, executed in order on one tile of rows.
//!
//! Owns tensors of up to a few dimensions, the list of operations, and their order; what each computes is in the modules
//! below, by idea. Together they are what scikit-learn's converters make of its models: ensembles, linear models and support
//! vectors, with casts, scaling, encoding, arithmetic and the selection of a label around them. Separate from the formats:
//! nothing here knows a file. Numbers are held as `f64` and rounded to their kind after every operation; for one addition,
//! multiplication or division that is exactly what `f32` arithmetic gives.
//!
//! Bounded by: [`VALUES_MAX`] for all tensors of a tile; graphs whose answer for a row depends on other rows are refused at
//! import (see `rows`). On failure: `invalid` names the operation and the shapes.

mod elementwise;
mod encode;
mod learned;
mod moves;
mod reduce;
mod rows;
mod svm;

use std::borrow::Cow;
use std::sync::Arc;

use mainstay_base::{Error, Result};

use crate::layout::Scratch;
use crate::link::Link;
pub(crate) use elementwise::{Binary, Unary};
pub(crate) use encode::{Keys, Map, Norm, OneHot};
pub(crate) use learned::{BinaryCase, Classify, Ensemble, Linear};
pub(crate) use moves::Cut;
pub(crate) use reduce::Reduce;
pub(crate) use rows::Followed;
pub(crate) use svm::{CLASSES_MAX, Kernel, Pairs, SvmClassifier, SvmRegressor, Vectors};

/// Values that all tensors that are computed for one tile may have together.
pub const VALUES_MAX: usize = 1 << 23;

/// What a tensor's values are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    F32,
    F64,
    /// Any integer: exact up to 2^53.
    Integer,
    Boolean,
    /// Values are places in the tensor's texts.
    Text,
}

impl Kind {
    fn round(self, value: f64) -> f64 {
        match self {
            Kind::F32 => f64::from(value as f32),
            Kind::F64 | Kind::Text => value,
            Kind::Integer => value.trunc(),
            Kind::Boolean => f64::from(u8::from(value != 0.0)),
        }
    }
}

/// Values in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Tensor {
    pub shape: Vec<usize>,
    pub kind: Kind,
    pub values: Vec<f64>,
    /// Empty but for [`Kind::Text`].
    pub texts: Arc<[String]>,
}

impl Tensor {
    pub fn new(shape: Vec<usize>, kind: Kind, values: Vec<f64>) -> Tensor {
        debug_assert_eq!(shape.iter().product::<usize>(), values.len());
        Tensor { shape, kind, values, texts: Arc::default() }
    }

    /// Rows and the values in each: everything behind the first dimension is one row.
    fn rows(&self) -> (usize, usize) {
        match self.shape.as_slice() {
            [] => (1, 1),
            [rows, inner @ ..] => (*rows, inner.iter().product()),
        }
    }

    /// The product of all dimensions but the last, and the last.
    fn lines(&self) -> (usize, usize) {
        match self.shape.as_slice() {
            [] => (1, 1),
            [outer @ .., last] => (outer.iter().product(), *last),
        }
    }

    fn text(&self, value: f64) -> Option<&str> {
        self.texts.get(value as usize).map(String::as_str)
    }

    fn with_values(&self, kind: Kind, values: impl Iterator<Item = f64>) -> Tensor {
        Tensor::new(self.shape.clone(), kind, values.map(|value| kind.round(value)).collect())
    }
}

/// What a node does. Parameters that a file gives are checked at import; shapes are checked when it runs.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Identity,
    Cast(Kind),
    /// Sizes; -1 takes what is left, 0 keeps the size.
    Reshape(Vec<i64>),
    /// The same, with the sizes as the second input.
    ReshapeTo,
    /// Keep the first so many dimensions, join the others.
    Flatten(usize),
    Unsqueeze(Vec<i64>),
    Squeeze(Vec<i64>),
    Concat(i64),
    /// Places along the last dimension, the second input.
    Select,
    /// The same along this one.
    Gather(i64),
    /// For each place of the second input the value at that place along this dimension.
    Take(i64),
    Transpose(Vec<usize>),
    Slice(Vec<Cut>),
    /// Parts of these sizes along a dimension; none takes as many equal parts.
    Split {
        axis: i64,
        sizes: Vec<usize>,
        parts: usize,
    },
    /// The sizes of the first input.
    Shape,
    /// This one value in the shape that the input says.
    Fill(Tensor),
    ArgMax {
        axis: i64,
        keeps: bool,
        is_max: bool,
    },
    /// Over these dimensions; over all when there are none.
    Reduce {
        how: Reduce,
        axes: Vec<i64>,
        keeps: bool,
    },
    Softmax(i64),
    CumSum {
        axis: i64,
        is_exclusive: bool,
        is_reverse: bool,
    },
    /// The greatest or smallest so many, in order, and their places.
    TopK {
        axis: i64,
        count: usize,
        is_largest: bool,
    },
    Unary(Unary),
    Binary(Binary),
    Where,
    /// The least and the greatest value that stay.
    Clip(f64, f64),
    /// `a b + c`, the second transposed if so; factors of the product and of c.
    Gemm {
        transposes: bool,
        alpha: f64,
        beta: f64,
    },
    Scale {
        offsets: Vec<f64>,
        factors: Vec<f64>,
    },
    Normalize(Norm),
    Impute {
        replaced: f64,
        by: Vec<f64>,
    },
    Threshold(f64),
    OneHot(OneHot),
    Map(Map),
    /// One map for numbers and one for texts, whichever comes.
    MapEither {
        to_texts: Map,
        to_numbers: Map,
    },
    /// All inputs side by side.
    Join,
    /// Scores by row of coefficients.
    Linear(Linear),
    SvmRegressor(Arc<SvmRegressor>),
    /// Labels and scores.
    SvmClassifier(Arc<SvmClassifier>),
    Ensemble(Arc<Ensemble>),
    /// Raw scores to labels and scores.
    Classify(Classify),
    /// The links of regressors.
    Apply(Link),
}

/// One operation between slots.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// What the file calls the operation, for messages.
    pub operation: String,
    /// What the file calls the node.
    pub node: String,
    pub op: Op,
    pub inputs: Vec<usize>,
    pub outputs: Vec<usize>,
}

/// A graph in the order of its execution.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipeline {
    /// Slot, width and kind of each input; features are these, side by side.
    pub inputs: Vec<(usize, usize, Kind)>,
    pub constants: Vec<(usize, Tensor)>,
    pub steps: Vec<Step>,
    pub slots: usize,
}

/// Which steps one answer needs.
pub(crate) struct Needed {
    slot: usize,
    steps: Vec<bool>,
    /// Whether the rows themselves are read.
    pub inputs: bool,
}

impl Pipeline {
    /// What is needed for a slot when another one is given.
    pub fn needed(&self, slot: usize, given: Option<usize>) -> Needed {
        let mut is_needed = vec![false; self.slots];
        is_needed[slot] = true;
        let mut steps = vec![false; self.steps.len()];
        for (at, step) in self.steps.iter().enumerate().rev() {
            steps[at] = step.outputs.iter().any(|output| is_needed[*output] && Some(*output) != given);
            if steps[at] {
                step.inputs.iter().for_each(|input| is_needed[*input] = true);
            }
        }
        Needed { slot, steps, inputs: self.inputs.iter().any(|(input, ..)| is_needed[*input]) }
    }

    /// Run what is needed on `rows` rows of all features, row-major (empty when they are not needed), and take the slot.
    pub fn run(
        &self,
        needed: &Needed,
        tile: &[f64],
        rows: usize,
        given: Option<(usize, Tensor)>,
        scratch: &mut Scratch,
    ) -> Result<Tensor> {
        let mut slots: Vec<Option<Cow<'_, Tensor>>> = vec![None; self.slots];
        if needed.inputs {
            self.take_inputs(tile, rows, &mut slots);
        }
        for (slot, constant) in &self.constants {
            slots[*slot] = Some(Cow::Borrowed(constant));
        }
        if let Some((slot, tensor)) = given {
            slots[slot] = Some(Cow::Owned(tensor));
        }
        let mut values_left = VALUES_MAX;
        for (step, _) in self.steps.iter().zip(&needed.steps).filter(|(_, is_needed)| **is_needed) {
            let inputs: Option<Vec<&Tensor>> = step.inputs.iter().map(|slot| slots[*slot].as_deref()).collect();
            let inputs = inputs.ok_or_else(|| Error::internal("an input of the graph's operation is empty"))?;
            let made = step.op.run(&inputs, scratch).map_err(|error| step.said_by(error))?;
            for (slot, tensor) in step.outputs.iter().zip(made) {
                let left = values_left.checked_sub(tensor.values.len());
                values_left = left.ok_or_else(|| {
                    Error::invalid(format!("the graph makes more than {VALUES_MAX} values of {rows} rows"))
                })?;
                slots[*slot] = Some(Cow::Owned(tensor));
            }
        }
        let found = slots[needed.slot].take().ok_or_else(|| Error::internal("a slot of the graph is empty"))?;
        Ok(found.into_owned())
    }

    fn take_inputs(&self, tile: &[f64], rows: usize, slots: &mut [Option<Cow<'_, Tensor>>]) {
        let features: usize = self.inputs.iter().map(|(_, width, _)| width).sum();
        let mut from = 0;
        for (slot, width, kind) in &self.inputs {
            let values = tile.chunks_exact(features.max(1)).flat_map(|row| &row[from..from + width]);
            let values = values.map(|value| if *kind == Kind::F64 { *value } else { kind.round(*value) }).collect();
            slots[*slot] = Some(Cow::Owned(Tensor::new(vec![rows, *width], *kind, values)));
            from += width;
        }
    }
}

impl Step {
    /// An error of its operation, with where that is.
    pub fn said_by(&self, error: Error) -> Error {
        error.context(format_args!("the operation {} of node `{}`", self.operation, self.node))
    }
}

/// A dimension counted from the front; negative ones count from the back.
fn axis_of(axis: i64, dimensions: usize) -> Result<usize> {
    let counted = if axis < 0 { axis + dimensions as i64 } else { axis };
    let found = usize::try_from(counted).ok().filter(|axis| *axis < dimensions);
    found.ok_or_else(|| Error::invalid(format!("dimension {axis} of {dimensions}")))
}

/// The size of a tensor that is about to be made.
fn size_of(shape: &[usize]) -> Result<usize> {
    let size = shape.iter().try_fold(1_usize, |product, size| product.checked_mul(*size));
    size.filter(|size| *size <= VALUES_MAX)
        .ok_or_else(|| Error::invalid(format!("a tensor of shape {shape:?} is too large")))
}

/// Outer count, size and inner count of one dimension.
fn around(tensor: &Tensor, axis: i64) -> Result<(usize, usize, usize, usize)> {
    let axis = axis_of(axis, tensor.shape.len())?;
    let (outer, inner) = (&tensor.shape[..axis], &tensor.shape[axis + 1..]);
    Ok((outer.iter().product(), tensor.shape[axis], inner.iter().product(), axis))
}

impl Op {
    /// How many inputs it cannot do without.
    fn needs(&self) -> usize {
        match self {
            Op::Where => 3,
            Op::Binary(binary) if !matches!(binary, Binary::Add | Binary::Max | Binary::Min) => 2,
            Op::ReshapeTo | Op::Select | Op::Gather(_) | Op::Take(_) | Op::Gemm { .. } => 2,
            _ => 1,
        }
    }

    /// What it makes of its inputs: one tensor for each output.
    pub fn run(&self, inputs: &[&Tensor], scratch: &mut Scratch) -> Result<Vec<Tensor>> {
        if inputs.len() < self.needs() {
            return Err(Error::invalid(format!("it has {} inputs; {} are needed", inputs.len(), self.needs())));
        }
        let first = inputs[0];
        let one = match self {
            Op::Identity => first.clone(),
            Op::Cast(kind) => moves::cast(first, *kind)?,
            Op::Reshape(sizes) => moves::reshape(first, sizes)?,
            Op::ReshapeTo => {
                moves::reshape(first, &inputs[1].values.iter().map(|size| *size as i64).collect::<Vec<i64>>())?
            }
            Op::Flatten(kept) => {
                let (outer, inner) = first.shape.split_at((*kept).min(first.shape.len()));
                Tensor { shape: vec![outer.iter().product(), inner.iter().product()], ..first.clone() }
            }
            Op::Unsqueeze(axes) => moves::unsqueeze(first, axes)?,
            Op::Squeeze(axes) => moves::squeeze(first, axes)?,
            Op::Concat(axis) => moves::concat(inputs, *axis)?,
            Op::Select => moves::gather(first, inputs[1], -1, true)?,
            Op::Gather(axis) => moves::gather(first, inputs[1], *axis, false)?,
            Op::Take(axis) => moves::take(first, inputs[1], *axis)?,
            Op::Transpose(order) => moves::transpose(first, order)?,
            Op::Slice(cuts) => moves::slice(first, cuts)?,
            Op::Split { axis, sizes, parts } => return moves::split(first, *axis, sizes, *parts),
            Op::Shape => {
                let sizes: Vec<f64> = first.shape.iter().map(|size| *size as f64).collect();
                Tensor::new(vec![sizes.len()], Kind::Integer, sizes)
            }
            Op::Fill(value) => moves::fill(first, value)?,
            Op::ArgMax { axis, keeps, is_max } => reduce::arg_max(first, *axis, *keeps, *is_max)?,
            Op::Reduce { how, axes, keeps } => reduce::reduce(first, *how, axes, *keeps)?,
            Op::Softmax(axis) => reduce::softmax(first, *axis)?,
            Op::CumSum { axis, is_exclusive, is_reverse } => reduce::cum_sum(first, *axis, *is_exclusive, *is_reverse)?,
            Op::TopK { axis, count, is_largest } => return reduce::top_k(first, *axis, *count, *is_largest),
            Op::Unary(unary) => unary.run(first),
            Op::Binary(binary) => {
                let mut joined = first.clone();
                for other in &inputs[1..] {
                    joined = binary.run(&joined, other)?;
                }
                joined
            }
            Op::Where => elementwise::pick(first, inputs[1], inputs[2])?,
            Op::Clip(least, most) => {
                // NaN stays.
                let clip = |x: &f64| {
                    if *x < *least {
                        *least
                    } else if *x > *most {
                        *most
                    } else {
                        *x
                    }
                };
                first.with_values(first.kind, first.values.iter().map(clip))
            }
            Op::Gemm { transposes, alpha, beta } => learned::gemm(inputs, *transposes, *alpha, *beta)?,
            Op::Scale { offsets, factors } => encode::scale(first, offsets, factors)?,
            Op::Normalize(norm) => norm.run(first),
            Op::Impute { replaced, by } => encode::impute(first, *replaced, by)?,
            Op::Threshold(threshold) => {
                first.with_values(first.kind, first.values.iter().map(|x| f64::from(u8::from(x > threshold))))
            }
            Op::OneHot(one_hot) => one_hot.run(first)?,
            Op::Map(map) => map.run(first)?,
            Op::MapEither { to_texts, to_numbers } => {
                if first.kind == Kind::Text {
                    to_numbers.run(first)?
                } else {
                    to_texts.run(first)?
                }
            }
            Op::Join => moves::concat(inputs, 1).and_then(|joined| moves::cast(&joined, Kind::F32))?,
            Op::Linear(linear) => linear.run(first)?,
            Op::SvmRegressor(svm) => svm.run(first)?,
            Op::SvmClassifier(svm) => return svm.run(first),
            Op::Ensemble(ensemble) => ensemble.run(first, scratch)?,
            Op::Classify(classify) => return classify.run(first),
            Op::Apply(link) => {
                let mut made = first.clone();
                let (_, width) = first.rows();
                made.values.chunks_exact_mut(width.max(1)).for_each(|row| link.apply(row, first.kind == Kind::F32));
                made
            }
        };
        Ok(vec![one])
    }
}
