//! Operations that prepare columns: scaling, norms, filling gaps, one place for each category, tables of values.
//!
//! Separate because their parameters come from a file's lists, one for each place of a row. Bounded and failing as the
//! module above.

use mainstay_base::{Error, Result};

use super::{Kind, Tensor, size_of};

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

pub(super) fn scale(tensor: &Tensor, offsets: &[f64], factors: &[f64]) -> Result<Tensor> {
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
    pub(super) fn run(self, tensor: &Tensor) -> Tensor {
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

pub(super) fn impute(tensor: &Tensor, replaced: f64, by: &[f64]) -> Result<Tensor> {
    let (_, width) = tensor.lines();
    check_parameters(by, width)?;
    let goes = |x: f64| x == replaced || (replaced.is_nan() && x.is_nan());
    let fill = |(number, x): (usize, &f64)| if goes(*x) { parameter(by, number % width.max(1)) } else { *x };
    Ok(tensor.with_values(tensor.kind, tensor.values.iter().enumerate().map(fill)))
}

impl OneHot {
    pub(super) fn run(&self, tensor: &Tensor) -> Result<Tensor> {
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
    pub(super) fn run(&self, tensor: &Tensor) -> Result<Tensor> {
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
