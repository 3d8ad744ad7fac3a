//! From raw outputs to what a model is asked for.
//!
//! Owns the link functions of all formats, in the arithmetic of their own libraries: `f32` where those compute so.
//! Bounded by its input; cannot fail.

/// How a row's raw outputs become its scores.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Link {
    /// As they are.
    Identity,
    /// `1 / (1 + exp(-scale x))`, each output for itself.
    Sigmoid {
        /// LightGBM's parameter `sigmoid`; 1 elsewhere.
        scale: f64,
    },
    /// `exp(x_i) / sum exp(x_j)`
    Softmax,
    /// Softmax in which outputs that are 0 stay 0 (ONNX's `SOFTMAX_ZERO`).
    SoftmaxZero,
    /// `exp(x)`
    Exponential,
    /// `ln(1 + exp(x))`
    Softplus,
    /// 1 where `x > 0`, else 0.
    Step,
    /// `sign(x) x²`: the way back from a square root.
    SignedSquare,
    /// The quantile function of the normal distribution (ONNX's `PROBIT`), in Winitzki's approximation, as onnxruntime
    /// computes it.
    Probit,
}

impl Link {
    /// Apply to the outputs of one row; `is_f32` computes in `f32`.
    pub fn apply(self, outputs: &mut [f64], is_f32: bool) {
        match (self, is_f32) {
            (Link::Identity, _) => {}
            (Link::Softmax, true) => softmax_f32(outputs, |_| true),
            (Link::Softmax, false) => softmax(outputs),
            // onnxruntime skips what is this close to 0.
            (Link::SoftmaxZero, _) => softmax_f32(outputs, |x| !(-1e-7..=1e-7).contains(&x)),
            (link, true) => outputs.iter_mut().for_each(|x| *x = f64::from(link.one_f32(*x as f32))),
            (link, false) => outputs.iter_mut().for_each(|x| *x = link.one(*x)),
        }
    }

    fn one(self, x: f64) -> f64 {
        match self {
            Link::Sigmoid { scale } => 1.0 / (1.0 + (-scale * x).exp()),
            Link::Exponential => x.exp(),
            Link::Softplus => x.exp().ln_1p(),
            Link::Step => f64::from(u8::from(x > 0.0)),
            Link::SignedSquare => x.signum() * x * x,
            Link::Probit => std::f64::consts::SQRT_2 * inverse_erf(2.0 * x - 1.0),
            Link::Identity | Link::Softmax | Link::SoftmaxZero => x,
        }
    }

    fn one_f32(self, x: f32) -> f32 {
        match self {
            // Large exponents are cut off, as in XGBoost, so that nothing overflows.
            Link::Sigmoid { scale } => 1.0 / ((-scale as f32 * x).min(88.7).exp() + 1.0 + 1e-16),
            Link::Exponential => x.exp(),
            other => other.one(f64::from(x)) as f32,
        }
    }
}

fn softmax(outputs: &mut [f64]) {
    let most = outputs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    outputs.iter_mut().for_each(|x| *x = (*x - most).exp());
    let sum: f64 = outputs.iter().sum();
    outputs.iter_mut().for_each(|x| *x /= sum);
}

fn softmax_f32(outputs: &mut [f64], counts: impl Fn(f64) -> bool) {
    let most = outputs.iter().copied().filter(|x| counts(*x)).fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0_f32;
    for x in outputs.iter_mut().filter(|x| counts(**x)) {
        let share = (*x as f32 - most as f32).exp();
        sum += share;
        *x = f64::from(share);
    }
    // Shares may be tiny, so what was skipped is recognised by being 0 already.
    outputs.iter_mut().for_each(|x| *x = f64::from(*x as f32 / sum));
}

/// Winitzki's approximation, 2008.
fn inverse_erf(x: f64) -> f64 {
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (std::f64::consts::PI * 0.147) + 0.5 * log;
    x.signum() * (-v + (v * v - log / 0.147).sqrt()).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_follow_their_definitions() {
        fn check(link: Link, raw: &[f64], expect: &[f64]) {
            for is_f32 in [false, true] {
                let mut outputs = raw.to_vec();
                link.apply(&mut outputs, is_f32);
                let near = |(a, b): (&f64, &f64)| (a - b).abs() < 1e-6;
                assert!(outputs.iter().zip(expect).all(near), "{link:?} {outputs:?}");
            }
        }
        check(Link::Sigmoid { scale: 2.0 }, &[0.0, 1.0, -1000.0, 1000.0], &[0.5, 0.880797078, 0.0, 1.0]);
        check(Link::Softmax, &[1000.0, 1000.0], &[0.5, 0.5]);
        check(Link::SoftmaxZero, &[0.0, 2.0, 2.0], &[0.0, 0.5, 0.5]);
        check(Link::Exponential, &[0.0, 1.0], &[1.0, std::f64::consts::E]);
        check(Link::Softplus, &[0.0], &[std::f64::consts::LN_2]);
        check(Link::Step, &[-1.0, 0.0, 0.5], &[0.0, 0.0, 1.0]);
        check(Link::SignedSquare, &[-3.0, 2.0], &[-9.0, 4.0]);
        check(Link::Probit, &[0.5], &[0.0]);
    }
}
