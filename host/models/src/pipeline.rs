//! Small graphs of typed operations, executed in order on one tile of rows.
//!
//! Owns tensors of up to a few dimensions and the operations that scikit-learn's converters put around an ensemble: casts,
//! scaling, encoding, linear models, selection of a label. Separate from the formats: nothing here knows a file. Numbers
//! are held as `f64` and rounded to their kind after every operation; for one addition, multiplication or division that is
//! exactly what `f32` arithmetic gives.
//!
//! Bounded by: [`VALUES_MAX`] for all tensors of a tile; operations that would mix rows are refused at import. On failure:
//! `invalid` names the operation and the shapes.

use std::borrow::Cow;
use std::sync::Arc;

use mainstay_base::{Error, Result};

use crate::layout::{Layout, Scratch};
use crate::link::Link;
use crate::tile::Rows;

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
    /// Keep the first so many dimensions, join the others.
    Flatten(usize),
    Unsqueeze(Vec<i64>),
    Squeeze(Vec<i64>),
    Concat(i64),
    /// Places along the last dimension, the second input.
    Select,
    /// The same along this one.
    Gather(i64),
    Transpose(Vec<usize>),
    ArgMax {
        axis: i64,
        keeps: bool,
        is_max: bool,
    },
    Reduce {
        how: Reduce,
        axes: Vec<i64>,
        keeps: bool,
    },
    Softmax(i64),
    Unary(Unary),
    Binary(Binary),
    Where,
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
    /// All inputs side by side.
    Join,
    /// Scores by row of coefficients.
    Linear(Linear),
    Ensemble(Arc<Ensemble>),
    /// Raw scores to labels and scores.
    Classify(Classify),
    /// The links of regressors.
    Apply(Link),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reduce {
    Sum,
    Mean,
    Max,
    Min,
    SumSquare,
    L1,
    L2,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Unary {
    Sigmoid,
    Exp,
    Log,
    Neg,
    Abs,
    Sqrt,
    Tanh,
    Relu,
    Not,
    Floor,
    Ceil,
    Reciprocal,
    IsNan,
    Sign,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    Max,
    Min,
    Less,
    AtMost,
    Greater,
    AtLeast,
    Equal,
    And,
    Or,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Norm {
    Max,
    L1,
    L2,
}

/// Categories become one place each.
#[derive(Clone, Debug)]
pub(crate) struct OneHot {
    pub numbers: Vec<f64>,
    pub texts: Vec<String>,
    /// Whether an unknown category gives zeros instead of an error.
    pub zeros: bool,
}

/// Keys to values, by number or text.
#[derive(Clone, Debug)]
pub(crate) struct Map {
    pub keys: Keys,
    /// As many as keys, in order.
    pub values: Tensor,
    /// For everything else.
    pub otherwise: Tensor,
}

#[derive(Clone, Debug)]
pub(crate) enum Keys {
    /// Ascending, with the place of the value; the value of NaN stands apart.
    Numbers(Vec<(f64, usize)>, Option<usize>),
    /// Ascending.
    Texts(Vec<(String, usize)>),
}

#[derive(Clone, Debug)]
pub(crate) struct Linear {
    /// By output, then feature.
    pub coefficients: Vec<f64>,
    /// As many as outputs.
    pub intercepts: Vec<f64>,
    pub link: Link,
}

/// A forest, ready to run, and its rows' width.
#[derive(Debug)]
pub(crate) struct Ensemble {
    pub forest: crate::forest::Forest,
    pub layout: Layout,
}

/// How ONNX's classifiers make labels and scores of raw scores.
#[derive(Clone, Debug)]
pub(crate) struct Classify {
    pub link: Link,
    /// As many as classes.
    pub labels: Tensor,
    pub binary: BinaryCase,
}

/// What a single raw score means.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum BinaryCase {
    /// There are as many scores as classes.
    No,
    /// A score of the second class among two: its probability, above 0.5.
    Probability,
    /// A score of the second class, above 0.
    Margin,
}

/// One operation between slots.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    /// For messages.
    pub name: String,
    pub op: Op,
    pub inputs: Vec<usize>,
    /// First and perhaps second output.
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
            let run = self.step(step, &slots, scratch);
            let made = run.map_err(|error| error.context(format_args!("the operation {}", step.name)))?;
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

    fn step(&self, step: &Step, slots: &[Option<Cow<'_, Tensor>>], scratch: &mut Scratch) -> Result<Vec<Tensor>> {
        let inputs: Option<Vec<&Tensor>> = step.inputs.iter().map(|slot| slots[*slot].as_deref()).collect();
        let inputs = inputs.ok_or_else(|| Error::internal("an input of the graph's operation is empty"))?;
        let first = *inputs.first().ok_or_else(|| Error::invalid("it has no input"))?;
        let needs = match step.op {
            Op::Select | Op::Gather(_) | Op::Binary(_) | Op::Gemm { .. } => 2,
            Op::Where => 3,
            _ => 1,
        };
        if inputs.len() < needs {
            return Err(Error::invalid(format!("it has {} inputs; {needs} are needed", inputs.len())));
        }
        step.op.run(first, &inputs, scratch)
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

impl Op {
    fn run(&self, first: &Tensor, inputs: &[&Tensor], scratch: &mut Scratch) -> Result<Vec<Tensor>> {
        let one = match self {
            Op::Identity => first.clone(),
            Op::Cast(kind) => cast(first, *kind)?,
            Op::Reshape(sizes) => reshape(first, sizes)?,
            Op::Flatten(kept) => {
                let (outer, inner) = first.shape.split_at((*kept).min(first.shape.len()));
                Tensor { shape: vec![outer.iter().product(), inner.iter().product()], ..first.clone() }
            }
            Op::Unsqueeze(axes) => unsqueeze(first, axes)?,
            Op::Squeeze(axes) => squeeze(first, axes)?,
            Op::Concat(axis) => concat(inputs, *axis)?,
            Op::Select => gather(first, inputs[1], -1, true)?,
            Op::Gather(axis) => gather(first, inputs[1], *axis, false)?,
            Op::Transpose(order) => transpose(first, order)?,
            Op::ArgMax { axis, keeps, is_max } => arg_max(first, *axis, *keeps, *is_max)?,
            Op::Reduce { how, axes, keeps } => reduce(first, *how, axes, *keeps)?,
            Op::Softmax(axis) => softmax(first, *axis)?,
            Op::Unary(unary) => unary.run(first),
            Op::Binary(binary) => {
                let mut joined = binary.run(first, inputs[1])?;
                for other in &inputs[2..] {
                    joined = binary.run(&joined, other)?;
                }
                joined
            }
            Op::Where => {
                let (shape, [asked, yes, no]) = broadcast([first, inputs[1], inputs[2]])?;
                let pick = |at: usize| {
                    if first.values[asked[at]] != 0.0 { inputs[1].values[yes[at]] } else { inputs[2].values[no[at]] }
                };
                Tensor::new(shape, inputs[1].kind, (0..asked.len()).map(pick).collect())
            }
            Op::Gemm { transposes, alpha, beta } => gemm(inputs, *transposes, *alpha, *beta)?,
            Op::Scale { offsets, factors } => scale(first, offsets, factors)?,
            Op::Normalize(norm) => norm.run(first),
            Op::Impute { replaced, by } => impute(first, *replaced, by)?,
            Op::Threshold(threshold) => {
                first.with_values(first.kind, first.values.iter().map(|x| f64::from(u8::from(x > threshold))))
            }
            Op::OneHot(one_hot) => one_hot.run(first)?,
            Op::Map(map) => map.run(first)?,
            Op::Join => concat(inputs, 1).and_then(|joined| cast(&joined, Kind::F32))?,
            Op::Linear(linear) => linear.run(first)?,
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

fn cast(tensor: &Tensor, kind: Kind) -> Result<Tensor> {
    match (tensor.kind, kind) {
        (from, to) if from == to => Ok(tensor.clone()),
        (Kind::Text, _) => {
            let parse = |value: &f64| tensor.text(*value).and_then(|text| text.trim().parse::<f64>().ok());
            let values: Option<Vec<f64>> = tensor.values.iter().map(parse).collect();
            let values = values.ok_or_else(|| Error::invalid("a text is no number"))?;
            Ok(tensor.with_values(kind, values.into_iter()))
        }
        (from, Kind::Text) => {
            let texts: Arc<[String]> = tensor.values.iter().map(|value| shown_as(*value, from)).collect();
            let values = (0..texts.len()).map(|at| at as f64).collect();
            Ok(Tensor { shape: tensor.shape.clone(), kind, values, texts })
        }
        _ => Ok(tensor.with_values(kind, tensor.values.iter().copied())),
    }
}

/// A number as the text that casting gives.
pub(crate) fn shown_as(value: f64, kind: Kind) -> String {
    match kind {
        Kind::F32 => (value as f32).to_string(),
        _ => value.to_string(),
    }
}

fn reshape(tensor: &Tensor, sizes: &[i64]) -> Result<Tensor> {
    let kept = |at: usize| tensor.shape.get(at).copied().unwrap_or(1);
    let known = sizes.iter().enumerate().filter(|(_, size)| **size != -1);
    let mut product = 1_usize;
    for (at, size) in known {
        let size = if *size == 0 { kept(at) } else { usize::try_from(*size).unwrap_or(0) };
        product = product.saturating_mul(size);
    }
    let rest = tensor.values.len().checked_div(product).unwrap_or(0);
    let size = |(at, size): (usize, &i64)| match *size {
        -1 => rest,
        0 => kept(at),
        size => size as usize,
    };
    let shape: Vec<usize> = sizes.iter().enumerate().map(size).collect();
    match size_of(&shape)? == tensor.values.len() {
        true => Ok(Tensor { shape, ..tensor.clone() }),
        false => Err(Error::invalid(format!("{:?} cannot take the shape {sizes:?}", tensor.shape))),
    }
}

fn unsqueeze(tensor: &Tensor, axes: &[i64]) -> Result<Tensor> {
    let dimensions = tensor.shape.len() + axes.len();
    let mut places = axes.iter().map(|axis| axis_of(*axis, dimensions)).collect::<Result<Vec<usize>>>()?;
    places.sort_unstable();
    let mut shape = tensor.shape.clone();
    for place in places {
        shape.insert(place.min(shape.len()), 1);
    }
    Ok(Tensor { shape, ..tensor.clone() })
}

fn squeeze(tensor: &Tensor, axes: &[i64]) -> Result<Tensor> {
    let dimensions = tensor.shape.len();
    let places = axes.iter().map(|axis| axis_of(*axis, dimensions)).collect::<Result<Vec<usize>>>()?;
    // A lone row stays a row.
    let goes =
        |(at, size): &(usize, &usize)| **size == 1 && if axes.is_empty() { *at > 0 } else { places.contains(at) };
    let shape = tensor.shape.iter().enumerate().filter(|place| !goes(place)).map(|(_, size)| *size).collect();
    Ok(Tensor { shape, ..tensor.clone() })
}

/// Texts are brought to one table.
fn concat(inputs: &[&Tensor], axis: i64) -> Result<Tensor> {
    let first = inputs[0];
    let axis = axis_of(axis, first.shape.len())?;
    let is_like = |other: &&Tensor| {
        other.kind == first.kind
            && other.shape.len() == first.shape.len()
            && (0..first.shape.len()).all(|at| at == axis || other.shape[at] == first.shape[at])
    };
    if let Some(other) = inputs.iter().find(|other| !is_like(other)) {
        let (a, b) = (&first.shape, &other.shape);
        return Err(Error::invalid(format!(
            "{a:?} of {:?} and {b:?} of {:?} are put side by side",
            first.kind, other.kind
        )));
    }
    let mut shape = first.shape.clone();
    shape[axis] = inputs.iter().map(|input| input.shape[axis]).sum();
    size_of(&shape)?;
    let outer: usize = shape[..axis].iter().product();
    let mut values = Vec::with_capacity(size_of(&shape)?);
    for line in 0..outer {
        let mut texts_before = 0;
        for input in inputs {
            let width: usize = input.shape[axis..].iter().product();
            let part = &input.values[line * width..][..width];
            values.extend(part.iter().map(|value| value + texts_before as f64));
            texts_before += input.texts.len();
        }
    }
    let texts = inputs.iter().flat_map(|input| input.texts.iter().cloned()).collect();
    Ok(Tensor { shape, kind: first.kind, values, texts })
}

/// `is_last` keeps one more dimension in front when the selection is a list, as ArrayFeatureExtractor does.
fn gather(tensor: &Tensor, places: &Tensor, axis: i64, is_last: bool) -> Result<Tensor> {
    let axis = axis_of(axis, tensor.shape.len())?;
    let (outer, size): (usize, usize) = (tensor.shape[..axis].iter().product(), tensor.shape[axis]);
    let inner: usize = tensor.shape[axis + 1..].iter().product();
    let place = |value: &f64| {
        let counted = if *value < 0.0 { value + size as f64 } else { *value };
        (counted >= 0.0 && counted < size as f64).then_some(counted as usize)
    };
    let found: Option<Vec<usize>> = places.values.iter().map(place).collect();
    let found =
        found.ok_or_else(|| Error::invalid(format!("a place outside the {size} of its dimension is selected")))?;
    let shape = match is_last {
        true => vec![outer, found.len()],
        false => [&tensor.shape[..axis], &places.shape, &tensor.shape[axis + 1..]].concat(),
    };
    let mut values = Vec::with_capacity(size_of(&shape)?);
    for line in 0..outer {
        for place in &found {
            values.extend_from_slice(&tensor.values[(line * size + place) * inner..][..inner]);
        }
    }
    Ok(Tensor { shape, kind: tensor.kind, values, texts: tensor.texts.clone() })
}

fn transpose(tensor: &Tensor, order: &[usize]) -> Result<Tensor> {
    let mut sorted = order.to_vec();
    sorted.sort_unstable();
    if !sorted.iter().copied().eq(0..tensor.shape.len()) {
        return Err(Error::invalid(format!("{:?} cannot be put in the order {order:?}", tensor.shape)));
    }
    let mut strides = vec![1; order.len()];
    for at in (1..order.len()).rev() {
        strides[at - 1] = strides[at] * tensor.shape[at];
    }
    let shape: Vec<usize> = order.iter().map(|at| tensor.shape[*at]).collect();
    let place = |mut number: usize| {
        let mut place = 0;
        for at in (0..order.len()).rev() {
            place += number % shape[at] * strides[order[at]];
            number /= shape[at];
        }
        place
    };
    let values = (0..tensor.values.len()).map(|number| tensor.values[place(number)]).collect();
    Ok(Tensor { shape: shape.clone(), kind: tensor.kind, values, texts: tensor.texts.clone() })
}

/// Outer count, size and inner count of one dimension.
fn around(tensor: &Tensor, axis: i64) -> Result<(usize, usize, usize, usize)> {
    let axis = axis_of(axis, tensor.shape.len())?;
    let (outer, inner) = (&tensor.shape[..axis], &tensor.shape[axis + 1..]);
    Ok((outer.iter().product(), tensor.shape[axis], inner.iter().product(), axis))
}

fn arg_max(tensor: &Tensor, axis: i64, keeps: bool, is_max: bool) -> Result<Tensor> {
    let (outer, size, inner, axis) = around(tensor, axis)?;
    let mut values = Vec::with_capacity(outer * inner);
    for (line, at) in (0..outer).flat_map(|line| (0..inner).map(move |at| (line, at))) {
        let value = |place: usize| tensor.values[(line * size + place) * inner + at];
        let is_better = |a: f64, b: f64| if is_max { a > b } else { a < b };
        let best = (1..size).fold(0, |best, place| if is_better(value(place), value(best)) { place } else { best });
        values.push(best as f64);
    }
    let mut shape = tensor.shape.clone();
    shape[axis] = 1;
    if !keeps {
        shape.remove(axis);
    }
    if size == 0 {
        Err(Error::invalid("the greatest of nothing"))
    } else {
        Ok(Tensor::new(shape, Kind::Integer, values))
    }
}

fn reduce(tensor: &Tensor, how: Reduce, axes: &[i64], keeps: bool) -> Result<Tensor> {
    let mut axes = axes.iter().map(|axis| axis_of(*axis, tensor.shape.len())).collect::<Result<Vec<usize>>>()?;
    axes.sort_unstable();
    axes.dedup();
    let mut made = tensor.clone();
    for axis in axes.into_iter().rev() {
        let (outer, size, inner, _) = around(&made, axis as i64)?;
        let mut values = Vec::with_capacity(outer * inner);
        for (line, at) in (0..outer).flat_map(|line| (0..inner).map(move |at| (line, at))) {
            values.push(how.run((0..size).map(|place| made.values[(line * size + place) * inner + at]), size));
        }
        let mut shape = made.shape.clone();
        shape[axis] = 1;
        if !keeps {
            shape.remove(axis);
        }
        made = Tensor::new(shape, made.kind, values);
    }
    let kind = tensor.kind;
    made.values.iter_mut().for_each(|value| *value = kind.round(if how == Reduce::L2 { value.sqrt() } else { *value }));
    Ok(made)
}

impl Reduce {
    fn run(self, values: impl Iterator<Item = f64>, size: usize) -> f64 {
        match self {
            Reduce::Sum => values.sum(),
            Reduce::Mean => values.sum::<f64>() / size as f64,
            Reduce::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Reduce::Min => values.fold(f64::INFINITY, f64::min),
            Reduce::SumSquare | Reduce::L2 => values.map(|value| value * value).sum(),
            Reduce::L1 => values.map(f64::abs).sum(),
        }
    }
}

fn softmax(tensor: &Tensor, axis: i64) -> Result<Tensor> {
    let (outer, size, inner, _) = around(tensor, axis)?;
    let mut made = tensor.clone();
    let mut line_values = vec![0.0; size];
    for (line, at) in (0..outer).flat_map(|line| (0..inner).map(move |at| (line, at))) {
        let place = |place: usize| (line * size + place) * inner + at;
        line_values.iter_mut().enumerate().for_each(|(at, value)| *value = tensor.values[place(at)]);
        Link::Softmax.apply(&mut line_values, tensor.kind == Kind::F32);
        line_values.iter().enumerate().for_each(|(at, value)| made.values[place(at)] = *value);
    }
    Ok(made)
}

impl Unary {
    fn run(self, tensor: &Tensor) -> Tensor {
        let kind = if matches!(self, Unary::Not | Unary::IsNan) { Kind::Boolean } else { tensor.kind };
        let apply = |x: f64| match self {
            Unary::Sigmoid => 1.0 / (1.0 + (-x).exp()),
            Unary::Exp => x.exp(),
            Unary::Log => x.ln(),
            Unary::Neg => -x,
            Unary::Abs => x.abs(),
            Unary::Sqrt => x.sqrt(),
            Unary::Tanh => x.tanh(),
            Unary::Relu => x.max(0.0),
            Unary::Not => f64::from(u8::from(x == 0.0)),
            Unary::Floor => x.floor(),
            Unary::Ceil => x.ceil(),
            Unary::Reciprocal => 1.0 / x,
            Unary::IsNan => f64::from(u8::from(x.is_nan())),
            Unary::Sign => {
                if x == 0.0 {
                    0.0
                } else {
                    x.signum()
                }
            }
        };
        tensor.with_values(kind, tensor.values.iter().map(|value| apply(*value)))
    }
}

/// The common shape, and for each of its places the place in each input.
fn broadcast<const N: usize>(inputs: [&Tensor; N]) -> Result<(Vec<usize>, [Vec<usize>; N])> {
    let dimensions = inputs.iter().map(|input| input.shape.len()).max().unwrap_or(0);
    let size =
        |input: &Tensor, at: usize| (at + input.shape.len()).checked_sub(dimensions).map_or(1, |at| input.shape[at]);
    let mut shape = vec![1; dimensions];
    for (at, place) in shape.iter_mut().enumerate() {
        for input in inputs {
            match (*place, size(input, at)) {
                (_, 1) => {}
                (known, found) if known == found => {}
                (1, found) => *place = found,
                _ => {
                    let shapes: Vec<&[usize]> = inputs.iter().map(|input| input.shape.as_slice()).collect();
                    return Err(Error::invalid(format!("the shapes {shapes:?} do not go together")));
                }
            }
        }
    }
    let count = size_of(&shape)?;
    let places = inputs.map(|input| {
        let place = |mut number: usize| {
            let (mut place, mut stride) = (0, 1);
            for at in (0..dimensions).rev() {
                let size = size(input, at);
                place += if size == 1 { 0 } else { number % shape[at] * stride };
                stride *= size;
                number /= shape[at];
            }
            place
        };
        match input.shape == shape {
            true => (0..count).collect(),
            false => (0..count).map(place).collect::<Vec<usize>>(),
        }
    });
    Ok((shape, places))
}

impl Binary {
    fn run(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        let (shape, [in_a, in_b]) = broadcast([a, b])?;
        let is_question = matches!(
            self,
            Binary::Less
                | Binary::AtMost
                | Binary::Greater
                | Binary::AtLeast
                | Binary::Equal
                | Binary::And
                | Binary::Or
        );
        let kind = if is_question { Kind::Boolean } else { a.kind };
        if a.kind == Kind::Text || b.kind == Kind::Text {
            let same = |(a_at, b_at): (&usize, &usize)| a.text(a.values[*a_at]) == b.text(b.values[*b_at]);
            let values = in_a.iter().zip(&in_b).map(|pair| f64::from(u8::from(same(pair)))).collect();
            return match self == Binary::Equal && a.kind == b.kind {
                true => Ok(Tensor::new(shape, Kind::Boolean, values)),
                false => Err(Error::invalid("texts are compared with something else than equality with texts")),
            };
        }
        let is = |answer: bool| f64::from(u8::from(answer));
        let apply = |x: f64, y: f64| match self {
            Binary::Add => x + y,
            Binary::Sub => x - y,
            Binary::Mul => x * y,
            Binary::Div => x / y,
            Binary::Pow => x.powf(y),
            Binary::Max => x.max(y),
            Binary::Min => x.min(y),
            Binary::Less => is(x < y),
            Binary::AtMost => is(x <= y),
            Binary::Greater => is(x > y),
            Binary::AtLeast => is(x >= y),
            Binary::Equal => is(x == y),
            Binary::And => is(x != 0.0 && y != 0.0),
            Binary::Or => is(x != 0.0 || y != 0.0),
        };
        let values = in_a.iter().zip(&in_b).map(|(at_a, at_b)| kind.round(apply(a.values[*at_a], b.values[*at_b])));
        Ok(Tensor::new(shape, kind, values.collect()))
    }
}

fn gemm(inputs: &[&Tensor], transposes: bool, alpha: f64, beta: f64) -> Result<Tensor> {
    let (a, b) = (inputs[0], inputs[1]);
    let (rows, inner) = a.lines();
    let (b_rows, columns) = match (b.shape.as_slice(), transposes) {
        ([columns, rows], true) | ([rows, columns], false) => (*rows, *columns),
        ([rows], false) => (*rows, 1),
        _ => return Err(Error::invalid(format!("{:?} is no matrix", b.shape))),
    };
    if b_rows != inner {
        return Err(Error::invalid(format!("{:?} is multiplied with {:?}", a.shape, b.shape)));
    }
    let mut shape = a.shape.clone();
    shape.pop();
    if b.shape.len() > 1 {
        shape.push(columns);
    }
    let mut values = Vec::with_capacity(size_of(&shape)?);
    for row in 0..rows {
        let left = &a.values[row * inner..][..inner];
        for column in 0..columns {
            let right = |at: usize| b.values[if transposes { column * inner + at } else { at * columns + column }];
            let sum: f64 = left.iter().enumerate().map(|(at, x)| x * right(at)).sum();
            values.push(alpha * sum);
        }
    }
    let product = Tensor::new(shape, a.kind, values);
    let Some(added) = inputs.get(2) else {
        return Ok(product.with_values(a.kind, product.values.iter().copied()));
    };
    let added = added.with_values(Kind::F64, added.values.iter().map(|value| beta * value));
    Binary::Add.run(&product, &added)
}

/// One parameter for all places of a row, or one for each.
fn parameter(parameters: &[f64], at: usize) -> f64 {
    if parameters.len() == 1 { parameters[0] } else { parameters[at] }
}

fn check_parameters(parameters: &[f64], width: usize) -> Result<()> {
    match parameters.len() == 1 || parameters.len() == width {
        true => Ok(()),
        false => Err(Error::invalid(format!("{} parameters for rows of {width} values", parameters.len()))),
    }
}

fn scale(tensor: &Tensor, offsets: &[f64], factors: &[f64]) -> Result<Tensor> {
    let (_, width) = tensor.lines();
    check_parameters(offsets, width)?;
    check_parameters(factors, width)?;
    let values = tensor.values.iter().enumerate().map(|(number, x)| {
        let at = number % width.max(1);
        f64::from((*x as f32 - parameter(offsets, at) as f32) * parameter(factors, at) as f32)
    });
    Ok(tensor.with_values(Kind::F32, values))
}

impl Norm {
    fn run(self, tensor: &Tensor) -> Tensor {
        let (_, width) = tensor.lines();
        let mut values = tensor.values.clone();
        for row in values.chunks_exact_mut(width.max(1)) {
            let size = match self {
                Norm::Max => row.iter().copied().fold(f64::NEG_INFINITY, f64::max),
                Norm::L1 => row.iter().map(|x| x.abs()).sum(),
                Norm::L2 => row.iter().map(|x| x * x).sum::<f64>().sqrt(),
            };
            if size != 0.0 {
                row.iter_mut().for_each(|x| *x /= size);
            }
        }
        tensor.with_values(Kind::F32, values.into_iter())
    }
}

fn impute(tensor: &Tensor, replaced: f64, by: &[f64]) -> Result<Tensor> {
    let (_, width) = tensor.lines();
    check_parameters(by, width)?;
    let goes = |x: f64| x == replaced || (replaced.is_nan() && x.is_nan());
    let fill = |(number, x): (usize, &f64)| if goes(*x) { parameter(by, number % width.max(1)) } else { *x };
    Ok(tensor.with_values(tensor.kind, tensor.values.iter().enumerate().map(fill)))
}

impl OneHot {
    fn run(&self, tensor: &Tensor) -> Result<Tensor> {
        let count = self.numbers.len().max(self.texts.len());
        let shape = [tensor.shape.as_slice(), &[count]].concat();
        let mut values = vec![0.0; size_of(&shape)?];
        for (at, value) in tensor.values.iter().enumerate() {
            let found = match tensor.kind {
                Kind::Text => {
                    let text = tensor.text(*value);
                    self.texts.iter().position(|known| text == Some(known.as_str()))
                }
                _ => self.numbers.iter().position(|known| *known == value.trunc()),
            };
            match found {
                Some(place) => values[at * count + place] = 1.0,
                None if self.zeros => {}
                None => {
                    return Err(Error::invalid("a category is unknown, and the model has no place for unknown ones"));
                }
            }
        }
        Ok(Tensor::new(shape, Kind::F32, values))
    }
}

impl Map {
    fn run(&self, tensor: &Tensor) -> Result<Tensor> {
        let place = |value: f64| match &self.keys {
            Keys::Numbers(_, nan) if value.is_nan() => *nan,
            Keys::Numbers(keys, _) => {
                let found = keys.binary_search_by(|(key, _)| key.total_cmp(&(value + 0.0)));
                found.ok().map(|at| keys[at].1)
            }
            Keys::Texts(keys) => {
                let text = tensor.text(value)?;
                keys.binary_search_by(|(key, _)| key.as_str().cmp(text)).ok().map(|at| keys[at].1)
            }
        };
        let texts_before = self.values.texts.len() as f64;
        let value = |value: &f64| match place(*value) {
            Some(at) => self.values.values[at],
            None => self.otherwise.values[0] + if self.values.kind == Kind::Text { texts_before } else { 0.0 },
        };
        let values = tensor.values.iter().map(value).collect();
        let texts = self.values.texts.iter().chain(self.otherwise.texts.iter()).cloned().collect();
        Ok(Tensor { shape: tensor.shape.clone(), kind: self.values.kind, values, texts })
    }
}

impl Linear {
    /// Scores of one row, before the link.
    fn scores(&self, row: &[f64], out: &mut Vec<f64>) {
        for (coefficients, intercept) in self.coefficients.chunks_exact(row.len().max(1)).zip(&self.intercepts) {
            let sum: f64 = coefficients.iter().zip(row).map(|(coefficient, x)| coefficient * x).sum();
            out.push(sum + intercept);
        }
    }

    fn run(&self, tensor: &Tensor) -> Result<Tensor> {
        let ((rows, width), outputs) = (tensor.rows(), self.intercepts.len());
        if width * outputs != self.coefficients.len() {
            let coefficients = self.coefficients.len();
            return Err(Error::invalid(format!("{coefficients} coefficients for {outputs} outputs of {width} values")));
        }
        let mut values = Vec::with_capacity(size_of(&[rows, outputs])?);
        tensor.values.chunks_exact(width.max(1)).for_each(|row| self.scores(row, &mut values));
        let kind = if tensor.kind == Kind::F64 { Kind::F64 } else { Kind::F32 };
        values.iter_mut().for_each(|value| *value = kind.round(*value));
        values.chunks_exact_mut(outputs.max(1)).for_each(|row| self.link.apply(row, kind == Kind::F32));
        Ok(Tensor::new(vec![rows, outputs], kind, values))
    }
}

impl Ensemble {
    fn run(&self, tensor: &Tensor, scratch: &mut Scratch) -> Result<Tensor> {
        let (rows, width) = tensor.rows();
        self.raw(&Rows::F64 { values: &tensor.values, features: width }, 0, rows, scratch)
    }

    /// Raw outputs of some rows. Where the width was not known at import, rows may be wider than what the trees ask for.
    pub fn raw(&self, rows: &Rows<'_>, from: usize, count: usize, scratch: &mut Scratch) -> Result<Tensor> {
        let outputs = self.forest.outputs as usize;
        let mut values = vec![0.0; size_of(&[count, outputs])?];
        self.layout.raw(&self.forest, rows, from, count, scratch, &mut values)?;
        let kind = if self.forest.adds_f32 { Kind::F32 } else { Kind::F64 };
        Ok(Tensor::new(vec![count, outputs], kind, values))
    }
}

impl Classify {
    fn run(&self, raw: &Tensor) -> Result<Vec<Tensor>> {
        let (rows, width) = raw.rows();
        let classes = self.labels.values.len();
        let expected = if self.binary == BinaryCase::No { classes } else { 1 };
        if width != expected {
            return Err(Error::invalid(format!("rows of {width} scores; {expected} are expected")));
        }
        let is_f32 = raw.kind == Kind::F32;
        let (mut labels, mut scores) = (Vec::with_capacity(rows), Vec::with_capacity(rows * classes));
        for row in raw.values.chunks_exact(width.max(1)) {
            let from = scores.len();
            let label = match self.binary {
                BinaryCase::No => {
                    scores.extend_from_slice(row);
                    self.link.apply(&mut scores[from..], is_f32);
                    (1..row.len()).fold(0, |best, at| if row[at] > row[best] { at } else { best })
                }
                case => self.binary_row(case, row[0], is_f32, &mut scores),
            };
            labels.push(self.labels.values[label]);
        }
        let labels =
            Tensor { shape: vec![rows], kind: self.labels.kind, values: labels, texts: self.labels.texts.clone() };
        Ok(vec![labels, Tensor::new(vec![rows, classes], raw.kind, scores)])
    }

    /// What onnxruntime makes of the single score of two classes.
    fn binary_row(&self, case: BinaryCase, score: f64, is_f32: bool, scores: &mut Vec<f64>) -> usize {
        let mut pair = match (case, self.link) {
            (_, Link::Sigmoid { .. }) => {
                let mut pair = [-score, score];
                self.link.apply(&mut pair, is_f32);
                pair
            }
            (BinaryCase::Probability, _) => [1.0 - score, score],
            _ => [-score, score],
        };
        if is_f32 {
            pair = pair.map(|value| Kind::F32.round(value));
        }
        scores.extend_from_slice(&pair);
        usize::from(score > if case == BinaryCase::Probability { 0.5 } else { 0.0 })
    }
}
