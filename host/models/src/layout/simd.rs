//! The one place for instructions that not every machine has.
//!
//! Owns the dispatch by what the machine can do and the paths for AVX-512 and AVX2. Separate, and the only module with
//! `unsafe`, for that reason: functions compiled for an instruction set are called after the machine was asked for it, and
//! wide loads and stores go to arrays whose length is checked beside them. Everything has a portable twin in `wide`, which
//! is what other machines run and what tests compare with.
//!
//! AVX-512 (BW): 64 rows are one register; a split is one comparison into a mask and one blend, and a leaf's value comes
//! from a permutation of registers while the tree has no more than 32 leaves, by plain loads otherwise.
#![allow(unsafe_code)]

use super::columns::{Columns, Threshold};
use super::wide::{self, Leaves, Shape, Splits};
use super::{BLOCK_ROWS, TILE_ROWS};
use crate::tile::Tile;

/// What is used of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Machine {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Machine {
    /// All that this machine has, the best last.
    pub fn all() -> Vec<Machine> {
        #[allow(unused_mut)]
        let mut found = vec![Machine::Portable];
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx2") {
                found.push(Machine::Avx2);
            }
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
            {
                found.push(Machine::Avx512);
            }
        }
        found
    }

    /// The best of this machine.
    pub fn best() -> Machine {
        *Machine::all().last().expect("one is always there")
    }

    /// Leaves up to which answering all splits of a tree beats walking it.
    pub fn leaves_max(self) -> usize {
        match self {
            Machine::Portable => 64,
            #[cfg(target_arch = "x86_64")]
            Machine::Avx2 => 128,
            #[cfg(target_arch = "x86_64")]
            Machine::Avx512 => super::wide::LEAVES_MAX,
        }
    }

    /// Its name, as processors' manuals have it.
    pub fn name(self) -> &'static str {
        match self {
            Machine::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Machine::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Machine::Avx512 => "avx512bw",
        }
    }
}

/// A number that leaves are added in.
pub(crate) trait Sum: Copy + std::ops::Add<Output = Self> + Send + Sync + 'static {
    fn of(value: f64) -> Self;
    fn to_f64(self) -> f64;
    #[cfg(target_arch = "x86_64")]
    #[doc(hidden)]
    fn add_avx512(sums: &mut [Self; BLOCK_ROWS], leaves: &Leaves, table: &[Self]);
}

/// One tree's additions to one output.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addition {
    pub output: u32,
    /// The first value of its table.
    pub table: u32,
    /// Values in it: a power of two.
    pub len: u32,
}

/// One tree: how it is evaluated and what its leaves add.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub shape: Shape,
    /// First and count among all additions.
    pub additions: (u32, u32),
}

/// Everything that adding up a tile needs.
pub(super) struct Work<'a, S> {
    pub splits: &'a Splits,
    pub plans: &'a [Plan],
    pub additions: &'a [Addition],
    pub tables: &'a [S],
    pub ranks: &'a [u8],
    /// Rows of the tile that are wanted.
    pub rows: usize,
}

/// Add all trees to the sums: [`TILE_ROWS`] places for each output.
pub(super) fn add_trees<S: Sum>(machine: Machine, work: &Work<'_, S>, sums: &mut [S]) {
    match machine {
        Machine::Portable => add_trees_portable(work, sums),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this value exists only where `Machine::all` found the instructions.
        Machine::Avx2 => unsafe { x86::add_trees_avx2(work, sums) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Machine::Avx512 => unsafe { x86::add_trees_avx512(work, sums) },
    }
}

/// Fill columns of ranks.
pub(super) fn fill_ranks<T: Threshold>(machine: Machine, columns: &Columns<T>, tile: &Tile<T>, out: &mut Vec<u8>) {
    match machine {
        Machine::Portable => columns.fill_ranks(tile, out),
        #[cfg(target_arch = "x86_64")]
        // SAFETY: this value exists only where `Machine::all` found the instructions.
        Machine::Avx2 => unsafe { x86::fill_ranks_avx2(columns, tile, out) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Machine::Avx512 => unsafe { x86::fill_ranks_avx512(columns, tile, out) },
    }
}

#[inline(always)]
fn add_trees_portable<S: Sum>(work: &Work<'_, S>, sums: &mut [S]) {
    for block in (0..work.rows).step_by(BLOCK_ROWS) {
        for plan in work.plans {
            let leaves = wide::leaves(work.splits, plan.shape, work.ranks, block);
            for addition in &work.additions[plan.additions.0 as usize..][..plan.additions.1 as usize] {
                let sums = &mut sums[addition.output as usize * TILE_ROWS + block..][..BLOCK_ROWS];
                let table = &work.tables[addition.table as usize..][..addition.len as usize];
                wide::add(sums, &leaves, table);
            }
        }
    }
}

impl Sum for f32 {
    fn of(value: f64) -> f32 {
        value as f32
    }

    fn to_f64(self) -> f64 {
        f64::from(self)
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn add_avx512(sums: &mut [f32; BLOCK_ROWS], leaves: &Leaves, table: &[f32]) {
        // SAFETY: called from `add_trees_avx512` alone.
        unsafe { x86::add_f32(sums, leaves, table) }
    }
}

impl Sum for f64 {
    fn of(value: f64) -> f64 {
        value
    }

    fn to_f64(self) -> f64 {
        self
    }

    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn add_avx512(sums: &mut [f64; BLOCK_ROWS], leaves: &Leaves, table: &[f64]) {
        // SAFETY: called from `add_trees_avx512` alone.
        unsafe { x86::add_f64(sums, leaves, table) }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::*;

    #[target_feature(enable = "avx2")]
    pub fn add_trees_avx2<S: Sum>(work: &Work<'_, S>, sums: &mut [S]) {
        add_trees_portable(work, sums);
    }

    #[target_feature(enable = "avx2")]
    pub fn fill_ranks_avx2<T: Threshold>(columns: &Columns<T>, tile: &Tile<T>, out: &mut Vec<u8>) {
        columns.fill_ranks(tile, out);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn fill_ranks_avx512<T: Threshold>(columns: &Columns<T>, tile: &Tile<T>, out: &mut Vec<u8>) {
        columns.fill_ranks(tile, out);
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512dq")]
    pub fn add_trees_avx512<S: Sum>(work: &Work<'_, S>, sums: &mut [S]) {
        for block in (0..work.rows).step_by(BLOCK_ROWS) {
            for plan in work.plans {
                let leaves = leaves(work.splits, plan.shape, work.ranks, block);
                for addition in &work.additions[plan.additions.0 as usize..][..plan.additions.1 as usize] {
                    let at = addition.output as usize * TILE_ROWS + block;
                    let sums = sums[at..].first_chunk_mut().expect("sums are whole blocks");
                    let table = &work.tables[addition.table as usize..][..addition.len as usize];
                    S::add_avx512(sums, &leaves, table);
                }
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn leaves(splits: &Splits, shape: Shape, tile: &[u8], block: usize) -> Leaves {
        let found = match shape {
            Shape::Complete { depth: 0, .. } => _mm512_setzero_si512(),
            Shape::Complete { depth: 1, first } => complete::<1>(splits, first, tile, block),
            Shape::Complete { depth: 2, first } => complete::<2>(splits, first, tile, block),
            Shape::Complete { depth: 3, first } => complete::<4>(splits, first, tile, block),
            Shape::Complete { depth: 4, first } => complete::<8>(splits, first, tile, block),
            Shape::Complete { depth: 5, first } => complete::<16>(splits, first, tile, block),
            Shape::Complete { first, .. } => complete::<32>(splits, first, tile, block),
            Shape::Chain { first, count } => chain(splits, first, count, tile, block),
        };
        let mut out = [0; BLOCK_ROWS];
        // SAFETY: the array has 64 bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), found) };
        out
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn load(tile: &[u8], at: usize) -> __m512i {
        let run: &[u8; BLOCK_ROWS] = tile[at..].first_chunk().expect("tiles are whole");
        // SAFETY: the array has 64 bytes.
        unsafe { _mm512_loadu_si512(run.as_ptr().cast()) }
    }

    /// `HALF` is how many splits the lowest level has.
    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn complete<const HALF: usize>(splits: &Splits, first: u32, tile: &[u8], block: usize) -> __m512i {
        let (first, count) = (first as usize, 2 * HALF - 1);
        let (columns, ranks) = (&splits.columns[first..first + count], &splits.ranks[first..first + count]);
        let goes_no = |at: usize| {
            let x = load(tile, columns[at] as usize + block);
            _mm512_cmpgt_epu8_mask(x, _mm512_set1_epi32(ranks[at] as i32))
        };
        let mut found = [_mm512_setzero_si512(); HALF];
        for (within, found) in found.iter_mut().enumerate() {
            let yes = _mm512_set1_epi8(2 * within as i8);
            *found = _mm512_mask_blend_epi8(goes_no(HALF - 1 + within), yes, _mm512_set1_epi8(2 * within as i8 + 1));
        }
        let mut level = HALF / 2;
        while level > 0 {
            for within in 0..level {
                let no = goes_no(level - 1 + within);
                found[within] = _mm512_mask_blend_epi8(no, found[2 * within], found[2 * within + 1]);
            }
            level /= 2;
        }
        found[0]
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    fn chain(splits: &Splits, first: u32, count: u32, tile: &[u8], block: usize) -> __m512i {
        let range = first as usize..(first + count) as usize;
        let mut found = _mm512_setzero_si512();
        let leaves = &splits.leaves[range.clone()];
        for ((column, rank), [from, to]) in splits.columns[range.clone()].iter().zip(&splits.ranks[range]).zip(leaves) {
            let x = load(tile, *column as usize + block);
            let is_here = _mm512_cmpeq_epi8_mask(found, _mm512_set1_epi32(*from as i32));
            let goes_no = _mm512_mask_cmpgt_epu8_mask(is_here, x, _mm512_set1_epi32(*rank as i32));
            found = _mm512_mask_blend_epi8(goes_no, found, _mm512_set1_epi32(*to as i32));
        }
        found
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub fn add_f32(sums: &mut [f32; BLOCK_ROWS], leaves: &Leaves, table: &[f32]) {
        if table.len() != 32 {
            return super::wide::add(sums, leaves, table);
        }
        // SAFETY: the table has 32 values, two registers of 16.
        let (low, high) = unsafe { (_mm512_loadu_ps(table.as_ptr()), _mm512_loadu_ps(table.as_ptr().add(16))) };
        for (sums, leaves) in sums.as_chunks_mut::<16>().0.iter_mut().zip(leaves.as_chunks::<16>().0) {
            // SAFETY: both arrays have 16 places.
            unsafe {
                let places = _mm512_cvtepu8_epi32(_mm_loadu_si128(leaves.as_ptr().cast()));
                let values = _mm512_permutex2var_ps(low, places, high);
                _mm512_storeu_ps(sums.as_mut_ptr(), _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), values));
            }
        }
    }

    #[target_feature(enable = "avx512f,avx512bw")]
    #[inline]
    pub fn add_f64(sums: &mut [f64; BLOCK_ROWS], leaves: &Leaves, table: &[f64]) {
        if table.len() != 32 {
            return super::wide::add(sums, leaves, table);
        }
        let mut parts = [_mm512_setzero_pd(); 4];
        for (part, values) in parts.iter_mut().zip(table.as_chunks::<8>().0) {
            // SAFETY: the array has 8 places.
            *part = unsafe { _mm512_loadu_pd(values.as_ptr()) };
        }
        for (sums, leaves) in sums.as_chunks_mut::<8>().0.iter_mut().zip(leaves.as_chunks::<8>().0) {
            // SAFETY: both arrays have 8 places.
            unsafe {
                let places = _mm512_cvtepu8_epi64(_mm_loadl_epi64(leaves.as_ptr().cast()));
                let low = _mm512_permutex2var_pd(parts[0], places, parts[1]);
                let high = _mm512_permutex2var_pd(parts[2], places, parts[3]);
                let is_high = _mm512_test_epi64_mask(places, _mm512_set1_epi64(16));
                let values = _mm512_mask_blend_pd(is_high, low, high);
                _mm512_storeu_pd(sums.as_mut_ptr(), _mm512_add_pd(_mm512_loadu_pd(sums.as_ptr()), values));
            }
        }
    }
}
