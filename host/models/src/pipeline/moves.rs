//! Operations that move values and change none: casts, shapes, parts, places.
//!
//! Separate because they are the same for values and for the rows that values come from (see `rows`). Bounded and failing
//! as the module above.

use std::sync::Arc;

use mainstay_base::{Error, Result};

use super::{Kind, Tensor, around, axis_of, size_of};

/// A part of one dimension, as ONNX's Slice gives it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Cut {
    pub axis: i64,
    /// Negative ones count from the back; what is outside is brought to the edge.
    pub start: i64,
    pub end: i64,
    /// Not 0.
    pub step: i64,
}

pub(super) fn cast(tensor: &Tensor, kind: Kind) -> Result<Tensor> {
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

pub(super) fn reshape(tensor: &Tensor, sizes: &[i64]) -> Result<Tensor> {
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

pub(super) fn unsqueeze(tensor: &Tensor, axes: &[i64]) -> Result<Tensor> {
    let dimensions = tensor.shape.len() + axes.len();
    let mut places = axes.iter().map(|axis| axis_of(*axis, dimensions)).collect::<Result<Vec<usize>>>()?;
    places.sort_unstable();
    let mut shape = tensor.shape.clone();
    for place in places {
        shape.insert(place.min(shape.len()), 1);
    }
    Ok(Tensor { shape, ..tensor.clone() })
}

pub(super) fn squeeze(tensor: &Tensor, axes: &[i64]) -> Result<Tensor> {
    let dimensions = tensor.shape.len();
    let places = axes.iter().map(|axis| axis_of(*axis, dimensions)).collect::<Result<Vec<usize>>>()?;
    // A lone row stays a row.
    let goes =
        |(at, size): &(usize, &usize)| **size == 1 && if axes.is_empty() { *at > 0 } else { places.contains(at) };
    let shape = tensor.shape.iter().enumerate().filter(|place| !goes(place)).map(|(_, size)| *size).collect();
    Ok(Tensor { shape, ..tensor.clone() })
}

/// Texts are brought to one table.
pub(super) fn concat(inputs: &[&Tensor], axis: i64) -> Result<Tensor> {
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
pub(super) fn gather(tensor: &Tensor, places: &Tensor, axis: i64, is_last: bool) -> Result<Tensor> {
    let axis = axis_of(axis, tensor.shape.len())?;
    let (outer, size): (usize, usize) = (tensor.shape[..axis].iter().product(), tensor.shape[axis]);
    let inner: usize = tensor.shape[axis + 1..].iter().product();
    let found = places.values.iter().map(|place| place_of(*place, size)).collect::<Result<Vec<usize>>>()?;
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

pub(super) fn transpose(tensor: &Tensor, order: &[usize]) -> Result<Tensor> {
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

/// For each place of `places` the value there along one dimension; in all others the sizes are alike, or smaller.
pub(super) fn take(tensor: &Tensor, places: &Tensor, axis: i64) -> Result<Tensor> {
    let (_, size, _, axis) = around(tensor, axis)?;
    let dimensions = tensor.shape.len();
    let fits =
        (0..dimensions).all(|at| at == axis || places.shape.get(at).is_some_and(|size| *size <= tensor.shape[at]));
    if places.shape.len() != dimensions || !fits {
        return Err(Error::invalid(format!("places of shape {:?} in {:?}", places.shape, tensor.shape)));
    }
    let mut values = Vec::with_capacity(places.values.len());
    for (number, place) in places.values.iter().enumerate() {
        let place = place_of(*place, size)?;
        let (mut number, mut from, mut stride) = (number, 0, 1);
        for at in (0..dimensions).rev() {
            let within = if at == axis { place } else { number % places.shape[at] };
            from += within * stride;
            number /= places.shape[at];
            stride *= tensor.shape[at];
        }
        values.push(tensor.values[from]);
    }
    Ok(Tensor { shape: places.shape.clone(), kind: tensor.kind, values, texts: tensor.texts.clone() })
}

pub(super) fn slice(tensor: &Tensor, cuts: &[Cut]) -> Result<Tensor> {
    let mut made = tensor.clone();
    for cut in cuts {
        let (_, size, _, axis) = around(&made, cut.axis)?;
        made = keep(&made, axis, &cut.places(size));
    }
    Ok(made)
}

/// Parts of these sizes; when there are none, `parts` equal ones, the last perhaps smaller.
pub(super) fn split(tensor: &Tensor, axis: i64, sizes: &[usize], parts: usize) -> Result<Vec<Tensor>> {
    let (_, size, _, axis) = around(tensor, axis)?;
    let each = size.div_ceil(parts.max(1));
    let equal = (0..parts).map(|part| each.min(size.saturating_sub(part * each)));
    let sizes = if sizes.is_empty() { equal.collect() } else { sizes.to_vec() };
    if sizes.iter().try_fold(0_usize, |sum, size| sum.checked_add(*size)) != Some(size) {
        return Err(Error::invalid(format!("{size} places are split into {sizes:?}")));
    }
    let mut from = 0;
    let part = |size: usize| {
        let places: Vec<usize> = (from..from + size).collect();
        from += size;
        keep(tensor, axis, &places)
    };
    Ok(sizes.into_iter().map(part).collect())
}

/// One value in the shape that another tensor says.
pub(super) fn fill(shape: &Tensor, value: &Tensor) -> Result<Tensor> {
    let size = |size: &f64| usize::try_from(*size as i64).ok().filter(|_| *size >= 0.0);
    let sizes: Option<Vec<usize>> = shape.values.iter().map(size).collect();
    let sizes = sizes.ok_or_else(|| Error::invalid("a size is negative"))?;
    let count = size_of(&sizes)?;
    Ok(Tensor::new(sizes, value.kind, vec![value.values[0]; count]))
}

impl Cut {
    /// Which places of a dimension of this size stay.
    fn places(&self, size: usize) -> Vec<usize> {
        let size = size as i64;
        let counted = |place: i64| if place < 0 { place.saturating_add(size) } else { place };
        let stride = usize::try_from(self.step.unsigned_abs()).unwrap_or(usize::MAX);
        match self.step > 0 {
            true => {
                let (start, end) = (counted(self.start).clamp(0, size), counted(self.end).clamp(0, size));
                (start..end).step_by(stride).map(|place| place as usize).collect()
            }
            false => {
                let (start, end) = (counted(self.start).clamp(-1, size - 1), counted(self.end).clamp(-1, size - 1));
                (end + 1..=start).rev().step_by(stride).map(|place| place as usize).collect()
            }
        }
    }
}

/// Some places of one dimension, which are there.
fn keep(tensor: &Tensor, axis: usize, places: &[usize]) -> Tensor {
    let (outer, size) = (tensor.shape[..axis].iter().product::<usize>(), tensor.shape[axis]);
    let inner: usize = tensor.shape[axis + 1..].iter().product();
    let mut values = Vec::with_capacity(outer * places.len() * inner);
    for line in 0..outer {
        for place in places {
            values.extend_from_slice(&tensor.values[(line * size + place) * inner..][..inner]);
        }
    }
    let mut shape = tensor.shape.clone();
    shape[axis] = places.len();
    Tensor { shape, kind: tensor.kind, values, texts: tensor.texts.clone() }
}

/// A place of a dimension of this size; negative ones count from the back.
fn place_of(place: f64, size: usize) -> Result<usize> {
    let counted = if place < 0.0 { place + size as f64 } else { place };
    match counted >= 0.0 && counted < size as f64 {
        true => Ok(counted as usize),
        false => Err(Error::invalid(format!("a place outside the {size} of its dimension is selected"))),
    }
}
