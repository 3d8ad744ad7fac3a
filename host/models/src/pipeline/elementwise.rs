//! Operations on each value by itself, or on values at the same place of several tensors.
//!
//! Owns arithmetic, comparisons and how shapes are brought together (NumPy's broadcasting). Separate because nothing here
//! can mix rows that lie side by side. Bounded and failing as the module above.

use mainstay_base::{Error, Result};

use super::{Kind, Tensor, size_of};

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
    Round,
    Softplus,
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
    Xor,
}

impl Unary {
    pub(super) fn run(self, tensor: &Tensor) -> Tensor {
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
            Unary::Round => x.round_ties_even(),
            Unary::Softplus => x.max(0.0) + (-x.abs()).exp().ln_1p(),
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
pub(super) fn broadcast<const N: usize>(inputs: [&Tensor; N]) -> Result<(Vec<usize>, [Vec<usize>; N])> {
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
    pub(super) fn run(self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
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
                | Binary::Xor
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
            Binary::Xor => is((x != 0.0) != (y != 0.0)),
        };
        let values = in_a.iter().zip(&in_b).map(|(at_a, at_b)| kind.round(apply(a.values[*at_a], b.values[*at_b])));
        Ok(Tensor::new(shape, kind, values.collect()))
    }
}

/// The second where the first is not zero, else the third.
pub(super) fn pick(asked: &Tensor, yes: &Tensor, no: &Tensor) -> Result<Tensor> {
    if yes.kind != no.kind {
        return Err(Error::invalid(format!("a choice between {:?} and {:?}", yes.kind, no.kind)));
    }
    let (shape, [in_asked, in_yes, in_no]) = broadcast([asked, yes, no])?;
    // Texts of the third stand behind those of the second.
    let before = if yes.kind == Kind::Text { yes.texts.len() as f64 } else { 0.0 };
    let value = |at: usize| match asked.values[in_asked[at]] != 0.0 {
        true => yes.values[in_yes[at]],
        false => no.values[in_no[at]] + before,
    };
    let texts = yes.texts.iter().chain(no.texts.iter()).cloned().collect();
    let values = (0..in_asked.len()).map(value).collect();
    Ok(Tensor { shape, kind: yes.kind, values, texts })
}
