//! How likely a Kolmogorov-Smirnov distance is by chance, one sample of n against its distribution.
//!
//! R. Simard and P. L'Ecuyer, "Computing the two-sided Kolmogorov-Smirnov distribution" (2011), compare the methods; which
//! one answers where follows scipy's `kstwo`, so that the numbers agree with it also where a method is only approximate.
//! Small probabilities come from the one-sided tail, whose terms are all positive, so no digit is lost in them.

use std::f64::consts::PI;

use crate::special::binomial;

/// Up to this n every method is exact.
const EXACT_MAX: f64 = 140.0;
/// Terms of the one-sided sum that are worth adding one by one.
const TERMS_MAX: f64 = 50_000.0;
/// Beyond this n scipy takes the limit's first correction, and so does this.
const SUM_MAX: f64 = 1e6;
/// Nodes that stand for all terms beyond [`TERMS_MAX`].
const NODES: u32 = 4_096;

/// Probability that the two-sided distance of n values exceeds x.
pub(crate) fn two_sided_upper(x: f64, n: f64) -> f64 {
    let t = n * x;
    let probability = if x >= 1.0 {
        0.0
    } else if t <= 0.5 {
        1.0
    } else if t <= 1.0 {
        1.0 - nearly_even(n, t)
    } else if t >= n - 1.0 {
        2.0 * (1.0 - x).powf(n)
    } else if x >= 0.5 {
        2.0 * one_sided_upper(x, n)
    } else {
        between(x, n)
    };
    probability.clamp(0.0, 1.0)
}

fn between(x: f64, n: f64) -> f64 {
    let scaled = n * x * x;
    let by_tail = if n <= EXACT_MAX { scaled > 4.0 } else { scaled >= 2.2 };
    if n > EXACT_MAX && scaled >= 370.0 {
        0.0
    } else if by_tail {
        2.0 * one_sided_upper(x, n)
    } else if n <= EXACT_MAX || (n <= 100_000.0 && n * x.powf(1.5) <= 1.4) {
        1.0 - by_matrix(x, n)
    } else {
        1.0 - by_expansion(x, n)
    }
}

/// Below 1/n (Ruben and Gambino): n! (2x - 1/n)^n.
fn nearly_even(n: f64, t: f64) -> f64 {
    // n! / n^n is √(2πn) e^(-n) but for Stirling's error.
    let ln_ratio = 0.5 * (2.0 * PI * n).ln() - n + crate::special::stirling_error(n);
    (ln_ratio + n * (2.0 * t - 1.0).ln()).exp()
}

/// Probability that the one-sided distance exceeds x, 0 < x < 1 (Smirnov 1944): a sum over where the path first crosses.
///
/// The j-th term is x / (x + j/n) times a binomial probability. As a function of a real j it is smooth and dies off
/// faster than exponentially at both ends, so for large n the trapezoidal rule with few nodes gives the same sum to rounding
/// (Trefethen & Weideman 2014).
pub(crate) fn one_sided_upper(x: f64, n: f64) -> f64 {
    if n > SUM_MAX {
        return (-(6.0 * n * x + 1.0).powi(2) / 18.0 / n).exp();
    }
    let last = (n * (1.0 - x)).floor();
    let term = |j: f64| {
        let (p, q) = (x + j / n, 1.0 - x - j / n);
        if q <= 0.0 { 0.0 } else { x / p * binomial(j, n, p, q) }
    };
    if last <= TERMS_MAX {
        let mut sum = (n * (-x).ln_1p()).exp();
        let mut j = 1.0;
        while j <= last {
            sum += term(j);
            j += 1.0;
        }
        return sum;
    }
    // Nothing that f64 can show is left; and the peak would be narrower than the nodes are apart.
    if n * x * x > 400.0 {
        return 0.0;
    }
    let step = n * (1.0 - x) / f64::from(NODES);
    (1..NODES).map(|node| term(f64::from(node) * step)).sum::<f64>() * step
}

/// G. Marsaglia, W. W. Tsang, J. Wang, "Evaluating Kolmogorov's distribution" (2003), after Durbin: the power of a matrix.
fn by_matrix(x: f64, n: f64) -> f64 {
    let count = n as u64;
    let k = (n * x).floor() as usize + 1;
    let size = 2 * k - 1;
    let h = k as f64 - n * x;
    let mut matrix = vec![0.0; size * size];
    for row in 0..size {
        for column in 0..size.min(row + 2) {
            matrix[row * size + column] = 1.0;
        }
    }
    for at in 0..size {
        matrix[at * size] -= h.powi(at as i32 + 1);
        matrix[(size - 1) * size + at] -= h.powi((size - at) as i32);
    }
    matrix[(size - 1) * size] += (2.0 * h - 1.0).max(0.0).powi(size as i32);
    for row in 0..size {
        for column in 0..size.min(row + 2) {
            for divisor in 2..=(row + 1).saturating_sub(column) {
                matrix[row * size + column] /= divisor as f64;
            }
        }
    }
    let (power, mut exponent) = power(&matrix, size, count);
    let mut probability = power[(k - 1) * size + k - 1];
    for at in 1..=count {
        probability *= at as f64 / n;
        if probability < 1e-140 {
            (probability, exponent) = (probability * 1e140, exponent - 140);
        }
    }
    probability * 10f64.powi(exponent)
}

/// The matrix to a power, and the power of ten that was taken out of it.
fn power(matrix: &[f64], size: usize, mut count: u64) -> (Vec<f64>, i32) {
    let mut result: Vec<f64> = (0..size * size).map(|at| f64::from(u8::from(at % (size + 1) == 0))).collect();
    let (mut square, mut result_exponent, mut square_exponent) = (matrix.to_vec(), 0, 0);
    while count > 0 {
        if count & 1 == 1 {
            result = product(&result, &square, size);
            result_exponent += square_exponent + rescaled(&mut result, size);
        }
        count >>= 1;
        if count > 0 {
            square = product(&square, &square, size);
            square_exponent = 2 * square_exponent + rescaled(&mut square, size);
        }
    }
    (result, result_exponent)
}

fn rescaled(matrix: &mut [f64], size: usize) -> i32 {
    if matrix[(size / 2) * size + size / 2] <= 1e140 {
        return 0;
    }
    matrix.iter_mut().for_each(|value| *value *= 1e-140);
    140
}

fn product(a: &[f64], b: &[f64], size: usize) -> Vec<f64> {
    let mut out = vec![0.0; size * size];
    for (row, out) in a.chunks_exact(size).zip(out.chunks_exact_mut(size)) {
        for (factor, b) in row.iter().zip(b.chunks_exact(size)) {
            out.iter_mut().zip(b).for_each(|(out, b)| *out += factor * b);
        }
    }
    out
}

/// W. Pelz and I. J. Good, "Approximating the lower tail-areas of the Kolmogorov-Smirnov one-sample statistic" (1976): four
/// terms in powers of 1/√n, written with the theta functions that converge fast for small arguments.
fn by_expansion(x: f64, n: f64) -> f64 {
    let z = n.sqrt() * x;
    let (z2, z4, z6, z8) = (z.powi(2), z.powi(4), z.powi(6), z.powi(8));
    let half_pi_root = (PI / 2.0).sqrt();
    let terms = (16.0 * z / PI).ceil() as i32 + 1;
    let (mut k0, mut k1, mut k2, mut k3) = (0.0, 0.0, 0.0, 0.0);
    let (mut k2_more, mut k3_more) = (0.0, 0.0);
    for k in (1..=terms).rev() {
        // Half-integers come in pairs of either sign.
        let half = (PI * (f64::from(k) - 0.5)).powi(2);
        let weight = 2.0 * (-half / (2.0 * z2)).exp();
        k0 += weight;
        k1 += weight * (half - z2);
        k2 += weight * (6.0 * z6 + 2.0 * z4 + half * (2.0 * z4 - 5.0 * z2) + half * half * (1.0 - 2.0 * z2));
        let cubic = half.powi(3) * (5.0 - 30.0 * z2) + half * half * (212.0 * z4 - 60.0 * z2);
        k3 += weight * (cubic + half * (135.0 * z4 - 96.0 * z6) - 30.0 * z6 - 90.0 * z8);
        let whole = (PI * f64::from(k)).powi(2);
        let weight = 2.0 * (-whole / (2.0 * z2)).exp();
        k2_more += weight * whole;
        k3_more += weight * (3.0 * whole * z2 - whole * whole);
    }
    let k0 = half_pi_root / z * k0;
    let k1 = half_pi_root / (6.0 * z4) * k1;
    let k2 = half_pi_root / (72.0 * z.powi(7)) * k2 - half_pi_root / (36.0 * z.powi(3)) * k2_more;
    let k3 = half_pi_root / (6480.0 * z.powi(10)) * k3 + half_pi_root / (216.0 * z6) * k3_more;
    k0 + k1 / n.sqrt() + k2 / n + k3 / n.powf(1.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Numbers of the table happen to be near constants.
    #[allow(clippy::approx_constant)]
    /// scipy.stats.kstwo.sf over every method's region.
    #[test]
    fn as_scipy() {
        let mut wrong = Vec::new();
        for (x, n, expect) in include!("kolmogorov.expected") {
            let got = two_sided_upper(x, n);
            if (got - expect).abs() > 1e-9 * expect {
                wrong.push(format!("kstwo.sf({x:e}, {n}) is {expect:e}, not {got:e}"));
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }

    #[test]
    fn few_nodes_stand_for_all_terms() {
        let n = 60_000.0;
        for scaled in [2.2f64, 5.0, 30.0, 200.0, 369.0] {
            let x = (scaled / n).sqrt();
            let mut all = (n * (-x).ln_1p()).exp();
            for j in 1..=(n * (1.0 - x)) as u32 {
                let (p, q) = (x + f64::from(j) / n, 1.0 - x - f64::from(j) / n);
                all += if q > 0.0 { x / p * binomial(f64::from(j), n, p, q) } else { 0.0 };
            }
            let few = one_sided_upper(x, n);
            assert!((few - all).abs() <= 1e-11 * all, "{few} is not {all}");
        }
    }
}
