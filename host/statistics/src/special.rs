//! Functions that formulas of statistics end in.
//!
//! Written so that large arguments cancel nothing: probabilities of counts come from the saddle-point expansion of C. Loader,
//! "Fast and accurate computation of binomial probabilities" (2000), whose two parts stay near zero where a difference of
//! log-gammas would lose every digit. Error function and log-gamma are libm's.

use std::f64::consts::PI;

/// ln(n!) minus Stirling's formula, for real n > 0.
pub(crate) fn stirling_error(n: f64) -> f64 {
    /// From here the series is exact to rounding.
    const SERIES_FROM: f64 = 15.0;
    if n < SERIES_FROM {
        let half_ln_two_pi = 0.5 * (2.0 * PI).ln();
        return libm::lgamma(n + 1.0) - (n + 0.5) * n.ln() + n - half_ln_two_pi;
    }
    let square = n * n;
    let tail = 1.0 / 1680.0 - (1.0 / 1188.0) / square;
    (1.0 / 12.0 - (1.0 / 360.0 - (1.0 / 1260.0 - tail / square) / square) / square) / n
}

/// x ln(x / m) + m - x, without cancellation where x is near m.
pub(crate) fn deviance(x: f64, mean: f64) -> f64 {
    if (x - mean).abs() >= 0.1 * (x + mean) {
        return x * (x / mean).ln() + mean - x;
    }
    let ratio = (x - mean) / (x + mean);
    let square = ratio * ratio;
    let (mut sum, mut power) = ((x - mean) * ratio, 2.0 * x * ratio);
    for odd in 1.. {
        power *= square;
        let next = sum + power / f64::from(2 * odd + 1);
        if next == sum {
            break;
        }
        sum = next;
    }
    sum
}

/// Probability of `x` successes of `n` when one has probability `p` (and none `q = 1 - p`), continued to real 0 < x < n.
pub(crate) fn binomial(x: f64, n: f64, p: f64, q: f64) -> f64 {
    let rest = n - x;
    let exponent =
        stirling_error(n) - stirling_error(x) - stirling_error(rest) - deviance(x, n * p) - deviance(rest, n * q);
    exponent.exp() * (n / (2.0 * PI * x * rest)).sqrt()
}

/// ln of the number of ways to choose k of n.
pub(crate) fn ln_choose(n: f64, k: f64) -> f64 {
    libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0)
}

/// x^a e^-x / Γ(a + 1).
fn poisson(a: f64, x: f64) -> f64 {
    (-stirling_error(a) - deviance(a, x)).exp() / (2.0 * PI * a).sqrt()
}

/// Upper part of the incomplete gamma function, Q(a, x), for a > 0 and x >= 0.
///
/// The lower part's series below a + 1, Legendre's continued fraction (by Lentz's method) above.
pub(crate) fn gamma_upper(a: f64, x: f64) -> f64 {
    if x <= 0.0 {
        return 1.0;
    }
    if x.is_infinite() {
        return 0.0;
    }
    let front = poisson(a, x);
    if x < a + 1.0 {
        let (mut sum, mut term, mut at) = (1.0, 1.0, a);
        while term > sum * f64::EPSILON * 0.1 {
            at += 1.0;
            term *= x / at;
            sum += term;
        }
        return (1.0 - front * sum).max(0.0);
    }
    const TINY: f64 = 1e-300;
    let mut b = x + 1.0 - a;
    let (mut c, mut d) = (1.0 / TINY, 1.0 / b);
    let mut fraction = d;
    for step in 1..100_000 {
        let factor = -f64::from(step) * (f64::from(step) - a);
        b += 2.0;
        d = not_zero(factor * d + b, TINY).recip();
        c = not_zero(b + factor / c, TINY);
        fraction *= d * c;
        if (d * c - 1.0).abs() < f64::EPSILON {
            break;
        }
    }
    front * a * fraction
}

fn not_zero(value: f64, tiny: f64) -> f64 {
    if value.abs() < tiny { tiny } else { value }
}

/// Upper tail of the chi-square distribution.
pub(crate) fn chi_square_upper(statistic: f64, degrees: f64) -> f64 {
    gamma_upper(degrees / 2.0, statistic / 2.0)
}

/// Upper tail of the standard normal distribution.
pub(crate) fn normal_upper(z: f64) -> f64 {
    0.5 * libm::erfc(z / std::f64::consts::SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(got: f64, expect: f64) {
        // The smallest are 1e-280, where the exponent alone costs three digits.
        assert!((got - expect).abs() <= 1e-11 * expect.abs(), "{got:e} is not {expect:e}");
    }

    /// scipy.special.gammaincc, scipy.stats.chi2.sf, scipy.stats.binom.pmf, scipy.stats.norm.sf
    #[test]
    fn as_scipy() {
        include!("special.expected").into_iter().for_each(|(a, x, expect)| near(gamma_upper(a, x), expect));
        near(chi_square_upper(55.2997551680192, 1.0), 1.0348147948482984e-13);
        near(normal_upper(1.959963984540054), 0.025);
    }
}
