//! Random numbers that are a function of where they are used: Philox4x32-10.
//!
//! Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3" (2011). A block of four 32-bit words is a
//! function of a 64-bit key, here the seed, and a 128-bit counter, here the number of the block and the number of the stream.
//! No state is carried from draw to draw, so any part of any stream can be computed by itself: on one thread, on many, on a
//! device, with the same numbers. Not for secrets.

/// Blocks computed side by side: 2 KiB of words.
const LANES: usize = 64;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: u32 = 10;

/// One block of four words.
pub fn philox4x32(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let first = u64::from(MULTIPLIERS[0]) * u64::from(counter[0]);
        let second = u64::from(MULTIPLIERS[1]) * u64::from(counter[2]);
        let high = |product: u64| (product >> 32) as u32;
        counter = [high(second) ^ counter[1] ^ key[0], second as u32, high(first) ^ counter[3] ^ key[1], first as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    counter
}

/// One of 2^32 streams of a seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    key: [u32; 2],
    number: u32,
}

impl Stream {
    /// Stream `number` of `seed`.
    pub fn new(seed: u64, number: u32) -> Stream {
        Stream { key: [seed as u32, (seed >> 32) as u32], number }
    }

    /// Four words: block `at` of the stream.
    pub fn block(&self, at: u64) -> [u32; 4] {
        philox4x32([at as u32, (at >> 32) as u32, self.number, 0], self.key)
    }

    /// Draw `at` of the stream as a number below `bound`: block `at / 2`, its first or second pair of words as 64 bits, times
    /// the bound, the upper 64 bits of it. The bias is below `bound / 2^64`.
    pub fn below(&self, at: u64, bound: u32) -> u32 {
        let block = self.block(at / 2);
        let pair = if at.is_multiple_of(2) { [block[0], block[1]] } else { [block[2], block[3]] };
        let word = u64::from(pair[0]) | u64::from(pair[1]) << 32;
        ((u128::from(word) * u128::from(bound)) >> 64) as u32
    }

    /// Draw `at` as a real in [0, 1), of 53 bits.
    pub fn unit(&self, at: u64) -> f64 {
        let block = self.block(at / 2);
        let pair = if at.is_multiple_of(2) { [block[0], block[1]] } else { [block[2], block[3]] };
        let word = u64::from(pair[0]) | u64::from(pair[1]) << 32;
        (word >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The draws below `bound` from `first`, an even number, on.
    pub fn fill_below(&self, first: u64, bound: u32, out: &mut [u32]) {
        debug_assert!(first.is_multiple_of(2));
        crate::wide::draws(self, first / 2, bound, out);
    }
}

/// See [`Stream::fill_below`]; `first` is a block. Many blocks side by side, one loop a round, so that the compiler uses wide
/// registers; a word stands in the low half of 64 bits, as the wide multiplication wants it.
#[inline(always)]
pub(crate) fn draw_rows(stream: &Stream, first: u64, rows: u32, out: &mut [u32]) {
    let mut drawn = [[0u32; 2]; LANES];
    for (group, out) in out.chunks_mut(2 * LANES).enumerate() {
        many_blocks(stream, first + (group * LANES) as u64, u64::from(rows), &mut drawn);
        out.copy_from_slice(&drawn.as_flattened()[..out.len()]);
    }
}

#[inline(always)]
fn many_blocks(stream: &Stream, first: u64, bound: u64, out: &mut [[u32; 2]; LANES]) {
    const LOW: u64 = 0xFFFF_FFFF;
    let [mut a, mut b, mut c, mut d] = [[0u64; LANES]; 4];
    for lane in 0..LANES {
        let at = first.wrapping_add(lane as u64);
        (a[lane], b[lane], c[lane], d[lane]) = (at & LOW, at >> 32, u64::from(stream.number), 0);
    }
    let mut key = stream.key;
    for _ in 0..ROUNDS {
        let (first_key, second_key) = (u64::from(key[0]), u64::from(key[1]));
        for lane in 0..LANES {
            let first = u64::from(MULTIPLIERS[0]) * (a[lane] & LOW);
            let second = u64::from(MULTIPLIERS[1]) * (c[lane] & LOW);
            a[lane] = (second >> 32) ^ b[lane] ^ first_key;
            b[lane] = second & LOW;
            c[lane] = (first >> 32) ^ d[lane] ^ second_key;
            d[lane] = first & LOW;
        }
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    // (high * 2^32 + low) * bound / 2^64 without 128 bits; no step overflows, because the bound is below 2^32.
    let scaled = |low: u64, high: u64| ((high & LOW) * (bound & LOW) + (((low & LOW) * (bound & LOW)) >> 32)) >> 32;
    for lane in 0..LANES {
        out[lane] = [scaled(a[lane], b[lane]) as u32, scaled(c[lane], d[lane]) as u32];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The authors' known answers (Random123, `kat_vectors`).
    #[test]
    fn the_published_answers() {
        let check = |counter, key, expect: [u32; 4]| assert_eq!(philox4x32(counter, key), expect);
        check([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        check([!0; 4], [!0; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        check(
            [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
            [0xa409_3822, 0x299f_31d0],
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
        );
    }

    proptest! {
        #[test]
        fn side_by_side_is_one_by_one(seed: u64, number: u32, first: u32, bound in 1u32.., len in 0usize..100) {
            let stream = Stream::new(seed, number);
            let first = u64::from(first) * 2;
            let mut out = vec![0; len];
            stream.fill_below(first, bound, &mut out);
            let expect: Vec<u32> = (0..len as u64).map(|at| stream.below(first + at, bound)).collect();
            prop_assert_eq!(out, expect);
        }
    }
}
