//! Order: sorting and selecting by the bits of numbers.
//!
//! A number's bits, with the sign brought to where integers have it, order as the number does; so sorting needs no
//! comparison of floats and can distribute by leading bits. -0 and 0 get one key, as they are one number; infinities have
//! theirs; NaN was left out before.
//!
//! **Layout.** Sorting writes every key twice. First into about 512 buckets of nearly equal size: few enough that every
//! bucket's current cache line stays in the first level, large enough that a bucket (160 KiB at ten million values) fits into
//! the second. Then, inside a bucket, into sub-buckets of one or two keys, after which one pass of insertion finishes: with four, its mispredicted
//! branches would cost more than the larger table of counters. Buckets
//! are cut where the values are: the range of a sample (the first block of every piece) is divided into 2^14 equal strips of
//! keys, the sample is counted over them, thin neighbours share a bucket and thick ones are divided; then all keys are counted. A strip that stays thick (values that differ in their last bits only) is
//! distributed again, and sorted by comparison when that does not help either, so no input is worse than n log n.
//! Selecting walks the same buckets, but keeps only those that hold a wanted rank.
//!
//! The result of sorting numbers is unique, so it does not depend on threads.

use rayon::prelude::*;

use crate::fault::Result;
use crate::walk::{BLOCK_ROWS, PIECE_ROWS, Rows};
use crate::wide;

/// Fewer keys than this are sorted by comparison at once.
const SMALL: usize = 8_192;
/// Strips that are counted first.
const STRIP_BITS: u32 = 14;
/// Buckets that sorting aims at.
const SORT_BUCKETS: usize = 512;
/// Buckets that selection aims at: what one holds is what is kept for each wanted rank.
const SELECT_BUCKETS: usize = 16_384;
/// Most tasks that scatter side by side; each reads everything.
const SCATTER_TASKS_MAX: usize = 8;
/// Sub-buckets up to this size are left to insertion.
const INSERTION_MAX: u32 = 32;
/// How often a thick bucket is distributed again before it is sorted by comparison.
const DEPTH_MAX: u32 = 3;

const SIGN: u64 = 1 << 63;

/// The place of a number in the order of all numbers.
#[inline(always)]
pub(crate) fn key(value: f64) -> u64 {
    // Adding 0 turns -0 into 0 and nothing else.
    let bits = (value + 0.0).to_bits();
    bits ^ ((((bits as i64) >> 63) as u64) | SIGN)
}

/// The number at a place.
#[inline(always)]
pub(crate) fn value(key: u64) -> f64 {
    f64::from_bits(if key & SIGN == 0 { !key } else { key ^ SIGN })
}

/// Keys in pieces that can be read again and again.
pub(crate) trait Keys: Sync {
    fn pieces(&self) -> usize;
    /// Hand out the keys of a piece; says how many places had none.
    fn read(&self, piece: usize, take: impl FnMut(&[u64])) -> usize;
    /// Hand out some keys of a piece.
    fn sample(&self, piece: usize, take: impl FnMut(&[u64]));
    /// The fault when so many places had none, if that is refused.
    fn check(&self, missing: usize) -> Result<()>;
}

impl Keys for [u64] {
    fn pieces(&self) -> usize {
        self.len().div_ceil(PIECE_ROWS)
    }

    fn read(&self, piece: usize, mut take: impl FnMut(&[u64])) -> usize {
        take(&self[piece * PIECE_ROWS..self.len().min((piece + 1) * PIECE_ROWS)]);
        0
    }

    fn sample(&self, piece: usize, mut take: impl FnMut(&[u64])) {
        take(&self[piece * PIECE_ROWS..self.len().min(piece * PIECE_ROWS + BLOCK_ROWS)]);
    }

    fn check(&self, _missing: usize) -> Result<()> {
        Ok(())
    }
}

impl Keys for Rows<'_, 1> {
    fn pieces(&self) -> usize {
        Rows::pieces(self)
    }

    fn read(&self, piece: usize, mut take: impl FnMut(&[u64])) -> usize {
        let mut keys = [0; BLOCK_ROWS];
        self.piece(piece, |[block]| {
            wide::keys_of(block, &mut keys);
            take(&keys[..block.len()]);
        })
    }

    fn sample(&self, piece: usize, mut take: impl FnMut(&[u64])) {
        let mut keys = [0; BLOCK_ROWS];
        Rows::sample(self, piece, |[block]| {
            wide::keys_of(block, &mut keys);
            take(&keys[..block.len()]);
        });
    }

    fn check(&self, missing: usize) -> Result<()> {
        Rows::check(self, missing)
    }
}

/// Fold over all keys where the order of joining does not matter; the number of places without a key beside it.
fn fold<K: Keys + ?Sized, T: Send>(
    keys: &K,
    make: impl Fn() -> T + Sync + Send,
    step: impl Fn(&mut T, &[u64]) + Sync + Send,
    join: impl Fn(T, T) -> T + Sync + Send,
) -> (T, usize) {
    let one = |(mut made, missing): (T, usize), piece: usize| {
        let more = keys.read(piece, |block| step(&mut made, block));
        (made, missing + more)
    };
    match keys.pieces() {
        0 => (make(), 0),
        1 => one((make(), 0), 0),
        pieces => {
            let all = (0..pieces).into_par_iter().fold(|| (make(), 0), one);
            all.reduce_with(|a, b| (join(a.0, b.0), a.1 + b.1)).expect("there are pieces")
        }
    }
}

/// A monotone map from keys to buckets of nearly equal size, made from a sample.
pub(crate) struct Buckets {
    /// Least and greatest key of the sample; what lies outside goes where they go.
    bounds: (u64, u64),
    shift: u32,
    /// For each strip its first bucket, and how far what is left of a key is shifted to find its bucket among the strip's.
    strips: Vec<(u32, u32)>,
    count: usize,
}

/// The first block of every piece.
pub(crate) fn sample<K: Keys + ?Sized>(keys: &K) -> Vec<u64> {
    let mut sample = Vec::new();
    (0..keys.pieces()).for_each(|piece| keys.sample(piece, |block| sample.extend_from_slice(block)));
    sample
}

impl Buckets {
    pub(crate) fn new(sample: &[u64], wanted: usize) -> Buckets {
        let mut bounds = (u64::MAX, 0);
        wide::stretch(sample, &mut bounds);
        if bounds.0 > bounds.1 {
            // Nothing in the sample: one bucket for whatever there is.
            bounds = (0, 0);
        }
        let bits = u64::BITS - (bounds.1 - bounds.0).leading_zeros();
        let shift = bits.saturating_sub(STRIP_BITS);
        let mut counts = vec![0u32; 1 + ((bounds.1 - bounds.0) >> shift) as usize];
        sample.iter().for_each(|key| counts[((key - bounds.0) >> shift) as usize] += 1);
        let (strips, count) = divided(&counts, sample.len() / wanted + 1, shift);
        Buckets { bounds, shift, strips, count }
    }

    #[inline(always)]
    fn of(&self, key: u64) -> usize {
        let off = key.clamp(self.bounds.0, self.bounds.1) - self.bounds.0;
        let (first, shift) = self.strips[(off >> self.shift) as usize];
        let rest = off & ((1u64 << self.shift) - 1);
        first as usize + (rest >> shift) as usize
    }

    /// How many keys each bucket gets; a fault when missing ones are refused.
    pub(crate) fn counts<K: Keys + ?Sized>(&self, keys: &K) -> Result<Vec<u32>> {
        let step = |counts: &mut Vec<u32>, block: &[u64]| block.iter().for_each(|key| counts[self.of(*key)] += 1);
        let (counts, missing) = fold(keys, || vec![0u32; self.count], step, added);
        keys.check(missing)?;
        Ok(counts)
    }
}

fn added(mut a: Vec<u32>, b: Vec<u32>) -> Vec<u32> {
    a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
    a
}

/// Strips to buckets of about `size` keys; see [`Buckets`].
fn divided(counts: &[u32], size: usize, strip_bits: u32) -> (Vec<(u32, u32)>, usize) {
    // `strip_bits` is at most 50, so a shift by 63 leaves nothing.
    const ALL: u32 = 63;
    let (mut strips, mut next, mut open) = (Vec::with_capacity(counts.len()), 0u32, 0usize);
    for count in counts.iter().map(|count| *count as usize) {
        if count > size {
            next += u32::from(open > 0);
            let bits = ((count / size).ilog2() + 1).min(strip_bits);
            strips.push((next, if bits == 0 { ALL } else { strip_bits - bits }));
            (next, open) = (next + (1 << bits), 0);
        } else {
            if open + count > size {
                (next, open) = (next + 1, 0);
            }
            strips.push((next, ALL));
            open += count;
        }
    }
    (strips, next as usize + 1)
}

/// All keys, ascending; a fault when missing ones are refused.
pub(crate) fn sorted<K: Keys + ?Sized>(keys: &K) -> Result<Vec<u64>> {
    if keys.pieces() <= 1 {
        return sorted_piece(keys);
    }
    let buckets = Buckets::new(&sample(keys), SORT_BUCKETS);
    let counts = buckets.counts(keys)?;
    let mut out = vec![0u64; counts.iter().map(|count| *count as usize).sum()];
    scatter(keys, &buckets, &counts, &mut out);
    let mut rest = out.as_mut_slice();
    let mut slices = Vec::with_capacity(counts.len());
    for count in counts {
        let (bucket, after) = rest.split_at_mut(count as usize);
        slices.push(bucket);
        rest = after;
    }
    slices.into_par_iter().for_each_init(
        || (Vec::new(), Vec::new()),
        |(scratch, counts), bucket| sort_bucket(bucket, scratch, counts, 0),
    );
    Ok(out)
}

fn sorted_piece<K: Keys + ?Sized>(keys: &K) -> Result<Vec<u64>> {
    let mut all = Vec::new();
    for piece in 0..keys.pieces() {
        let missing = keys.read(piece, |block| all.extend_from_slice(block));
        keys.check(missing)?;
    }
    if all.len() <= SMALL {
        all.sort_unstable();
    } else {
        sort_bucket(&mut all, &mut Vec::new(), &mut Vec::new(), 0);
    }
    Ok(all)
}

/// Every key into its bucket. Each task owns a run of buckets, and with it a part of `out`, and reads all keys.
fn scatter<K: Keys + ?Sized>(keys: &K, buckets: &Buckets, counts: &[u32], out: &mut [u64]) {
    let tasks = rayon::current_num_threads().clamp(1, SCATTER_TASKS_MAX);
    let share = out.len().div_ceil(tasks);
    let (mut parts, mut rest, mut first) = (Vec::new(), out, 0);
    while first < counts.len() {
        let (mut last, mut size) = (first, 0);
        while last < counts.len() && (size < share || parts.len() + 1 == tasks) {
            size += counts[last] as usize;
            last += 1;
        }
        let (part, after) = rest.split_at_mut(size);
        parts.push((first..last, part));
        (rest, first) = (after, last);
    }
    let is_alone = parts.len() == 1;
    parts.into_par_iter().for_each(|(range, part)| {
        let mut next: Vec<u32> = Vec::with_capacity(range.len());
        let mut at = 0;
        for count in &counts[range.clone()] {
            next.push(at);
            at += count;
        }
        for piece in 0..keys.pieces() {
            keys.read(piece, |block| {
                for key in block {
                    let bucket = buckets.of(*key).wrapping_sub(range.start);
                    if is_alone || bucket < next.len() {
                        part[next[bucket] as usize] = *key;
                        next[bucket] += 1;
                    }
                }
            });
        }
    });
}

/// A bucket that fits into the second-level cache; see the module.
fn sort_bucket(keys: &mut [u64], scratch: &mut Vec<u64>, counts: &mut Vec<u32>, depth: u32) {
    if keys.len() <= INSERTION_MAX as usize * 2 || depth > DEPTH_MAX {
        return keys.sort_unstable();
    }
    let mut bounds = (u64::MAX, 0);
    wide::stretch(keys, &mut bounds);
    if bounds.0 == bounds.1 {
        return;
    }
    let bits = u64::BITS - (bounds.1 - bounds.0).leading_zeros();
    let shift = bits.saturating_sub(keys.len().ilog2());
    let of = |key: u64| ((key - bounds.0) >> shift) as usize;
    counts.clear();
    counts.resize(of(bounds.1) + 1, 0);
    keys.iter().for_each(|key| counts[of(*key)] += 1);
    let (mut at, mut thickest) = (0, 0);
    for count in counts.iter_mut() {
        thickest = thickest.max(*count);
        at += std::mem::replace(count, at);
    }
    if scratch.len() < keys.len() {
        scratch.resize(keys.len(), 0);
    }
    for key in keys.iter() {
        let place = &mut counts[of(*key)];
        scratch[*place as usize] = *key;
        *place += 1;
    }
    keys.copy_from_slice(&scratch[..keys.len()]);
    if thickest > INSERTION_MAX {
        sort_thick(keys, counts, scratch, depth);
    }
    insert(keys);
}

/// Those sub-buckets that are too thick for insertion. `ends` are their ends.
fn sort_thick(keys: &mut [u64], ends: &[u32], scratch: &mut Vec<u64>, depth: u32) {
    let (mut start, mut counts) = (0, Vec::new());
    for end in ends {
        if end - start > INSERTION_MAX {
            sort_bucket(&mut keys[start as usize..*end as usize], scratch, &mut counts, depth + 1);
        }
        start = *end;
    }
}

/// Insertion, for keys that are a few places from where they belong.
fn insert(keys: &mut [u64]) {
    for at in 1..keys.len() {
        let key = keys[at];
        let mut hole = at;
        while hole > 0 && keys[hole - 1] > key {
            keys[hole] = keys[hole - 1];
            hole -= 1;
        }
        keys[hole] = key;
    }
}

/// The keys at some ranks. `ranks` gets the number of keys and gives ascending ranks below it.
pub(crate) fn select<K: Keys + ?Sized>(keys: &K, ranks: impl FnOnce(usize) -> Result<Vec<usize>>) -> Result<Vec<u64>> {
    let from_sorted = |all: &[u64], ranks: &[usize]| ranks.iter().map(|rank| all[*rank]).collect();
    if keys.pieces() <= 1 {
        let all = sorted(keys)?;
        return Ok(from_sorted(&all, &ranks(all.len())?));
    }
    let buckets = Buckets::new(&sample(keys), SELECT_BUCKETS);
    let counts = buckets.counts(keys)?;
    let mut starts = Vec::with_capacity(counts.len());
    let mut total = 0usize;
    for count in &counts {
        starts.push(total);
        total += *count as usize;
    }
    let ranks = ranks(total)?;
    // Where each rank lies, and which buckets have to be kept for that.
    let homes: Vec<usize> = ranks.iter().map(|rank| starts.partition_point(|start| start <= rank) - 1).collect();
    let mut slot_of = vec![u8::MAX; counts.len()];
    let mut kept: Vec<usize> = homes.clone();
    kept.dedup();
    if kept.len() >= usize::from(u8::MAX) {
        return Ok(from_sorted(&sorted(keys)?, &ranks));
    }
    kept.iter().enumerate().for_each(|(slot, bucket)| slot_of[*bucket] = slot as u8);
    let mut held = gather(keys, &buckets, &slot_of, kept.len());
    held.par_iter_mut().for_each(|keys| sort_bucket(keys, &mut Vec::new(), &mut Vec::new(), 0));
    let pairs = ranks.iter().zip(&homes);
    Ok(pairs.map(|(rank, home)| held[usize::from(slot_of[*home])][rank - starts[*home]]).collect())
}

/// The keys of the buckets that have a slot.
fn gather<K: Keys + ?Sized>(keys: &K, buckets: &Buckets, slot_of: &[u8], slots: usize) -> Vec<Vec<u64>> {
    let step = |held: &mut Vec<Vec<u64>>, block: &[u64]| {
        for key in block {
            let slot = slot_of[buckets.of(*key)];
            if slot != u8::MAX {
                held[usize::from(slot)].push(*key);
            }
        }
    };
    let join = |mut a: Vec<Vec<u64>>, b: Vec<Vec<u64>>| {
        a.iter_mut().zip(b).for_each(|(a, b)| a.extend_from_slice(&b));
        a
    };
    fold(keys, || vec![Vec::new(); slots], step, join).0
}

/// All keys of the buckets that are marked, ascending.
pub(crate) fn sorted_where<K: Keys + ?Sized>(keys: &K, buckets: &Buckets, is_wanted: &[bool]) -> Result<Vec<u64>> {
    let step = |held: &mut Vec<u64>, block: &[u64]| {
        // Written always, kept where wanted: which keys are cannot be predicted.
        let start = held.len();
        held.resize(start + block.len(), 0);
        let mut next = start;
        for key in block {
            held[next] = *key;
            next += usize::from(is_wanted[buckets.of(*key)]);
        }
        held.truncate(next);
    };
    let join = |mut a: Vec<u64>, b: Vec<u64>| {
        a.extend_from_slice(&b);
        a
    };
    sorted(&fold(keys, Vec::new, step, join).0[..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Missing;
    use mainstay_arrays::Numbers;
    use proptest::prelude::*;

    fn check(values: &[f64]) {
        let view = Numbers::of_f64(&[&values[..values.len() / 3], &values[values.len() / 3..]]);
        let rows = Rows::new([&view], Missing::Omit).unwrap();
        let mut expect: Vec<f64> = values.iter().copied().filter(|value| !value.is_nan()).collect();
        expect.sort_by(f64::total_cmp);
        let got: Vec<f64> = sorted(&rows).unwrap().into_iter().map(value).collect();
        assert_eq!(got.len(), expect.len());
        assert!(got.iter().zip(&expect).all(|(a, b)| a == b), "sorted as by comparison");
        if !expect.is_empty() {
            let ranks: Vec<usize> = (0..=10).map(|tenth| (expect.len() - 1) * tenth / 10).collect();
            let got: Vec<f64> = select(&rows, |_| Ok(ranks.clone())).unwrap().into_iter().map(value).collect();
            let expect: Vec<f64> = ranks.iter().map(|rank| expect[*rank]).collect();
            assert!(got.iter().zip(&expect).all(|(a, b)| a == b), "selected as by sorting");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_numbers(values in prop::collection::vec(prop::num::f64::ANY, 0..3_000)) {
            check(&values);
        }

        #[test]
        fn keys_order_as_numbers(a in prop::num::f64::ANY, b in prop::num::f64::ANY) {
            prop_assume!(!a.is_nan() && !b.is_nan());
            prop_assert_eq!(key(a).cmp(&key(b)), a.partial_cmp(&b).unwrap());
            prop_assert!(value(key(a)) == a);
        }
    }

    #[test]
    fn many_numbers_of_every_shape() {
        let stream = crate::philox::Stream::new(1, 0);
        let unit = |at: usize| stream.unit(at as u64);
        let many = 200_000;
        let check_shape = |shape: &dyn Fn(usize) -> f64| check(&(0..many).map(shape).collect::<Vec<f64>>());
        check_shape(&|at| unit(at) - 0.5);
        check_shape(&|at| (-2.0 * unit(2 * at).max(1e-300).ln()).sqrt() * (6.3 * unit(2 * at + 1)).cos());
        check_shape(&|at| f64::from_bits((unit(at) * 1e19) as u64));
        check_shape(&|_| 1.0);
        check_shape(&|at| if at == 7 { 1e300 } else { 1.0 + unit(at) * 1e-12 });
        check_shape(&|at| (unit(at) * 5.0).floor());
        check_shape(&|at| at as f64);
        check_shape(&|at| -(at as f64));
        check_shape(&|at| if at % 100 == 0 { f64::NAN } else { f64::INFINITY * (unit(at) - 0.5) });
        check_shape(&|at| f64::from_bits(at as u64 % 1_000));
    }
}
