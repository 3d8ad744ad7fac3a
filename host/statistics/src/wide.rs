//! The few loops that pay for wide registers, compiled three times and chosen when they run.
//!
//! Owns dispatch between the instructions that every x86-64 has, AVX2 and AVX-512, and the only `unsafe` of this room: a
//! function compiled for a set may only be called where it is there. The bodies are plain safe Rust, shared by all versions;
//! none reorders floating-point sums or fuses multiply and add, so all give the same bits. On other processors (aarch64 has
//! its wide registers in the baseline) the plain version is the only one.
#![allow(unsafe_code)]

/// Which version runs here, for people who ask.
pub fn instruction_set() -> &'static str {
    if has_avx512() {
        "avx512"
    } else if has_avx2() {
        "avx2"
    } else {
        "baseline"
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn has_avx512() -> bool {
    std::arch::is_x86_feature_detected!("avx512f")
        && std::arch::is_x86_feature_detected!("avx512dq")
        && std::arch::is_x86_feature_detected!("avx512vl")
        && std::arch::is_x86_feature_detected!("avx512bw")
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn has_avx2() -> bool {
    false
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn has_avx512() -> bool {
    false
}

macro_rules! widened {
    ($(#[$doc:meta])* $name:ident ( $($arg:ident : $kind:ty),* ) $body:block) => {
        $(#[$doc])*
        pub(crate) fn $name($($arg: $kind),*) {
            #[inline(always)]
            fn plain($($arg: $kind),*) $body

            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2")]
                fn avx2($($arg: $kind),*) {
                    plain($($arg),*)
                }
                #[target_feature(enable = "avx2,avx512f,avx512dq,avx512vl,avx512bw")]
                fn avx512($($arg: $kind),*) {
                    plain($($arg),*)
                }
                if has_avx512() {
                    // SAFETY: the processor was just found to have every set that `avx512` names (AVX2 is part of AVX-512).
                    return unsafe { avx512($($arg),*) };
                }
                if has_avx2() {
                    // SAFETY: the processor was just found to have AVX2, which is all that `avx2` needs.
                    return unsafe { avx2($($arg),*) };
                }
            }
            plain($($arg),*)
        }
    };
}

widened! {
    /// Adds to each of `counts` how many values are at least the edge of the same number. NaN is at least nothing.
    ///
    /// One pass over the block, which lies in the first-level cache, for each edge: no branch and no scattered store.
    count_at_least(values: &[f64], edges: &[f64], counts: &mut [u64]) {
        for (edge, count) in edges.iter().zip(counts) {
            *count += values.iter().map(|value| u64::from(value >= edge)).sum::<u64>();
        }
    }
}

widened! {
    /// The same for pairs of edges, the ends of brackets, and which values lie inside one: 1 there in `inside`.
    count_and_mark(values: &[f64], edges: &[f64], counts: &mut [u64], inside: &mut [u64; crate::walk::BLOCK_ROWS]) {
        let (pairs, _) = edges.as_chunks::<2>();
        let (pair_counts, _) = counts.as_chunks_mut::<2>();
        for ([first, end], counts) in pairs.iter().zip(pair_counts) {
            let (mut from, mut beyond) = (0, 0);
            for (value, inside) in values.iter().zip(inside.iter_mut()) {
                let (is_from, is_beyond) = (u64::from(value >= first), u64::from(value >= end));
                from += is_from;
                beyond += is_beyond;
                *inside |= is_from ^ is_beyond;
            }
            *counts = [counts[0] + from, counts[1] + beyond];
        }
    }
}

widened! {
    /// Keys of [`crate::order`] for values.
    keys_of(values: &[f64], keys: &mut [u64]) {
        for (key, value) in keys.iter_mut().zip(values) {
            *key = crate::order::key(*value);
        }
    }
}

widened! {
    /// Widens bounds to hold all keys: `bounds` is least and greatest.
    stretch(keys: &[u64], bounds: &mut (u64, u64)) {
        // Unsigned comparison is not in AVX2, signed is; flipping the top bit turns one into the other.
        const FLIP: u64 = 1 << 63;
        let (mut least, mut greatest) = ((bounds.0 ^ FLIP) as i64, (bounds.1 ^ FLIP) as i64);
        for key in keys {
            least = least.min((key ^ FLIP) as i64);
            greatest = greatest.max((key ^ FLIP) as i64);
        }
        *bounds = (least as u64 ^ FLIP, greatest as u64 ^ FLIP);
    }
}

widened! {
    /// The draws of [`crate::philox::Stream`] from block `first` on, `out.len()` of them: row numbers below `rows`.
    draws(stream: &crate::philox::Stream, first: u64, rows: u32, out: &mut [u32]) {
        crate::philox::draw_rows(stream, first, rows, out)
    }
}

widened! {
    /// Central sums of the second, third and fourth power about `shift + mean`, in eight interleaved lanes.
    central_sums(values: &[f64], shift: f64, mean: f64, sums: &mut [[f64; 8]; 3]) {
        let (lanes, rest) = values.as_chunks::<8>();
        let [mut second, mut third, mut fourth] = *sums;
        for lane in lanes {
            for at in 0..8 {
                let off = (lane[at] - shift) - mean;
                let square = off * off;
                second[at] += square;
                third[at] += square * off;
                fourth[at] += square * square;
            }
        }
        for (at, value) in rest.iter().enumerate() {
            let off = (value - shift) - mean;
            let square = off * off;
            second[at] += square;
            third[at] += square * off;
            fourth[at] += square * square;
        }
        *sums = [second, third, fourth];
    }
}

widened! {
    /// Sum of the distances from `shift` in eight interleaved lanes, least and greatest value.
    sum_and_bounds(values: &[f64], shift: f64, sums: &mut [f64; 8], bounds: &mut ([f64; 8], [f64; 8])) {
        let (lanes, rest) = values.as_chunks::<8>();
        let (mut total, (mut least, mut greatest)) = (*sums, *bounds);
        for lane in lanes {
            for at in 0..8 {
                total[at] += lane[at] - shift;
                least[at] = if lane[at] < least[at] { lane[at] } else { least[at] };
                greatest[at] = if lane[at] > greatest[at] { lane[at] } else { greatest[at] };
            }
        }
        for (at, value) in rest.iter().enumerate() {
            total[at] += value - shift;
            least[at] = least[at].min(*value);
            greatest[at] = greatest[at].max(*value);
        }
        (*sums, *bounds) = (total, (least, greatest));
    }
}

widened! {
    /// Adds the row to the sums, element by element.
    add_to(row: &[f64], sums: &mut [f64]) {
        for (sum, value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
}

/// Eight lanes in a fixed order.
pub(crate) fn folded(lanes: &[f64; 8]) -> f64 {
    let pairs = [lanes[0] + lanes[4], lanes[1] + lanes[5], lanes[2] + lanes[6], lanes[3] + lanes[7]];
    (pairs[0] + pairs[2]) + (pairs[1] + pairs[3])
}
