//! Operations that go along dimensions: sums and their like, the greatest, softmax, running sums, the first few in order.
//!
//! Separate because each asks for a dimension, and mixes rows when that is theirs (see `rows`). Bounded and failing as the
//! module above.

use mainstay_base::{Error, Result};

use super::{Kind, Tensor, around, axis_of};
use crate::link::Link;

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Reduce {
    Sum,
    Mean,
    Max,
    Min,
    SumSquare,
    L1,
    L2,
    Prod,
    LogSum,
    LogSumExp,
}

pub(super) fn arg_max(tensor: &Tensor, axis: i64, keeps: bool, is_max: bool) -> Result<Tensor> {
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

pub(super) fn reduce(tensor: &Tensor, how: Reduce, axes: &[i64], keeps: bool) -> Result<Tensor> {
    if tensor.kind == Kind::Text {
        return Err(Error::invalid("texts are reduced"));
    }
    let axes = axes_of(axes, tensor.shape.len())?;
    let mut made = tensor.clone();
    // Inner steps join what the first has made of the values; the last makes the answer.
    if axes.is_empty() {
        made.values.iter_mut().for_each(|value| *value = how.joins([*value].into_iter()));
    }
    for (step, axis) in axes.iter().rev().enumerate() {
        let (outer, size, inner, _) = around(&made, *axis as i64)?;
        let how = if step == 0 { how } else { how.again() };
        let mut values = Vec::with_capacity(outer * inner);
        for (line, at) in (0..outer).flat_map(|line| (0..inner).map(move |at| (line, at))) {
            values.push(how.joins((0..size).map(|place| made.values[(line * size + place) * inner + at])));
        }
        let mut shape = made.shape.clone();
        shape[*axis] = 1;
        if !keeps {
            shape.remove(*axis);
        }
        made = Tensor::new(shape, made.kind, values);
    }
    let count: usize = axes.iter().map(|axis| tensor.shape[*axis]).product();
    let finish = |value: f64| match how {
        Reduce::Mean => value / count as f64,
        Reduce::L2 => value.sqrt(),
        Reduce::LogSum => value.ln(),
        _ => value,
    };
    made.values.iter_mut().for_each(|value| *value = tensor.kind.round(finish(*value)));
    Ok(made)
}

/// Dimensions, each once, ascending; all when none is named.
pub(super) fn axes_of(axes: &[i64], dimensions: usize) -> Result<Vec<usize>> {
    if axes.is_empty() {
        return Ok((0..dimensions).collect());
    }
    let mut axes = axes.iter().map(|axis| axis_of(*axis, dimensions)).collect::<Result<Vec<usize>>>()?;
    axes.sort_unstable();
    axes.dedup();
    Ok(axes)
}

impl Reduce {
    fn joins(self, values: impl Iterator<Item = f64> + Clone) -> f64 {
        match self {
            Reduce::Sum | Reduce::Mean | Reduce::LogSum => values.sum(),
            Reduce::Max => values.fold(f64::NEG_INFINITY, f64::max),
            Reduce::Min => values.fold(f64::INFINITY, f64::min),
            Reduce::SumSquare | Reduce::L2 => values.map(|value| value * value).sum(),
            Reduce::L1 => values.map(f64::abs).sum(),
            Reduce::Prod => values.product(),
            Reduce::LogSumExp => {
                let most = values.clone().fold(f64::NEG_INFINITY, f64::max);
                // Nothing is taken away from infinities.
                let most = if most.is_finite() { most } else { 0.0 };
                most + values.map(|value| (value - most).exp()).sum::<f64>().ln()
            }
        }
    }

    /// How what one dimension has made is joined over the next.
    fn again(self) -> Reduce {
        match self {
            Reduce::SumSquare | Reduce::L2 | Reduce::L1 => Reduce::Sum,
            other => other,
        }
    }
}

pub(super) fn softmax(tensor: &Tensor, axis: i64) -> Result<Tensor> {
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

/// Running sums along a dimension; an exclusive one has not yet the value at its place.
pub(super) fn cum_sum(tensor: &Tensor, axis: i64, is_exclusive: bool, is_reverse: bool) -> Result<Tensor> {
    let (outer, size, inner, _) = around(tensor, axis)?;
    let mut made = tensor.clone();
    for (line, at) in (0..outer).flat_map(|line| (0..inner).map(move |at| (line, at))) {
        let mut sum = 0.0;
        for place in 0..size {
            let place = if is_reverse { size - 1 - place } else { place };
            let place = (line * size + place) * inner + at;
            let with = tensor.kind.round(sum + tensor.values[place]);
            made.values[place] = if is_exclusive { sum } else { with };
            sum = with;
        }
    }
    Ok(made)
}

/// The first `count` along a dimension in descending (or ascending) order, and where they were; of equal ones the first.
pub(super) fn top_k(tensor: &Tensor, axis: i64, count: usize, is_largest: bool) -> Result<Vec<Tensor>> {
    let (outer, size, inner, axis) = around(tensor, axis)?;
    if count > size || tensor.kind == Kind::Text {
        return Err(Error::invalid(format!("the first {count} of {size} places of {:?}", tensor.kind)));
    }
    let mut shape = tensor.shape.clone();
    shape[axis] = count;
    let mut values = vec![0.0; outer * count * inner];
    let mut places = values.clone();
    let mut order: Vec<usize> = Vec::with_capacity(size);
    for (line, at) in (0..outer).flat_map(|line| (0..inner).map(move |at| (line, at))) {
        let value = |place: usize| tensor.values[(line * size + place) * inner + at];
        order.clear();
        order.extend(0..size);
        // Sorting is stable, so of equal ones the first stays first.
        order
            .sort_by(|a, b| if is_largest { value(*b).total_cmp(&value(*a)) } else { value(*a).total_cmp(&value(*b)) });
        for (to, place) in order.iter().take(count).enumerate() {
            let to = (line * count + to) * inner + at;
            (values[to], places[to]) = (value(*place), *place as f64);
        }
    }
    Ok(vec![Tensor::new(shape.clone(), tensor.kind, values), Tensor::new(shape, Kind::Integer, places)])
}
