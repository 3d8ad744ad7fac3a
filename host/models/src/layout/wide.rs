//! Trees evaluated for a block of rows at once, without a branch and without a gather.
//!
//! Owns the plan of one tree and its evaluation on ranks of one byte, portable. Small trees are padded to complete ones: all
//! splits are answered for all rows of a block, and answers select the leaf from the bottom up, as selecting costs no more
//! than comparing. Other trees with up to 256 leaves are a chain: splits in pre-order, each moving the rows that stand at
//! its first leaf to the first leaf of its branch `no`. That is right because leaves are numbered from `yes` to `no`: rows
//! that stand there have passed every split above it with yes, or came to it as to the leaf they were moved to. Evaluating
//! all splits of a tree at once and naming leaves by order follows Lucchese et al., "QuickScorer", 2015, and Ye et al.,
//! "RapidScorer", 2018; here a byte a row takes the place of their bit vectors.
//!
//! Bounded by: [`DEPTH_MAX`] and [`LEAVES_MAX`]. Cannot fail.

use super::{BLOCK_ROWS, TILE_ROWS};

/// Depth up to which trees are padded.
pub(super) const DEPTH_MAX: usize = 6;
/// Leaves that a byte can name.
pub(super) const LEAVES_MAX: usize = 256;

/// How a tree is evaluated: places in [`Splits`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Shape {
    /// `2^depth - 1` splits in heap order.
    Complete { depth: u8, first: u32 },
    /// Splits in pre-order.
    Chain { first: u32, count: u32 },
}

/// Splits of all trees.
#[derive(Clone, Debug, Default)]
pub(super) struct Splits {
    /// Where the block's column of ranks begins in a tile.
    pub columns: Vec<u32>,
    /// The rank above which a row goes to `no`, in all four bytes.
    pub ranks: Vec<u32>,
    /// For chains: the first leaf of the split, in all four bytes, and of its branch `no`.
    pub leaves: Vec<[u32; 2]>,
}

/// Leaf numbers of a block's rows.
pub(super) type Leaves = [u8; BLOCK_ROWS];

/// The ranks of a block in one column.
#[inline(always)]
fn run(tile: &[u8], at: usize) -> &[u8; BLOCK_ROWS] {
    tile[at..].first_chunk().expect("tiles are whole")
}

/// Leaves of a block of rows, `block` rows behind the tile's beginning.
#[inline(always)]
pub(super) fn leaves(splits: &Splits, shape: Shape, tile: &[u8], block: usize) -> Leaves {
    match shape {
        Shape::Complete { depth: 0, .. } => [0; BLOCK_ROWS],
        Shape::Complete { depth: 1, first } => complete::<1>(splits, first, tile, block),
        Shape::Complete { depth: 2, first } => complete::<2>(splits, first, tile, block),
        Shape::Complete { depth: 3, first } => complete::<4>(splits, first, tile, block),
        Shape::Complete { depth: 4, first } => complete::<8>(splits, first, tile, block),
        Shape::Complete { depth: 5, first } => complete::<16>(splits, first, tile, block),
        Shape::Complete { first, .. } => complete::<32>(splits, first, tile, block),
        Shape::Chain { first, count } => chain(splits, first, count, tile, block),
    }
}

/// All bits where a rank is above `rank`, none elsewhere: written so that every compiler makes wide instructions of it.
#[inline(always)]
fn above(x: u8, rank: u8) -> u8 {
    0_u8.wrapping_sub(u8::from(x > rank))
}

/// `HALF` is how many splits the lowest level has.
#[inline(always)]
fn complete<const HALF: usize>(splits: &Splits, first: u32, tile: &[u8], block: usize) -> Leaves {
    let (first, count) = (first as usize, 2 * HALF - 1);
    let (columns, ranks) = (&splits.columns[first..first + count], &splits.ranks[first..first + count]);
    let mut found = [[0_u8; BLOCK_ROWS]; HALF];
    for within in 0..HALF {
        let (x, rank) = (run(tile, columns[HALF - 1 + within] as usize + block), ranks[HALF - 1 + within] as u8);
        lowest(&mut found[within], x, rank, 2 * within as u8);
    }
    let mut level = HALF / 2;
    while level > 0 {
        for within in 0..level {
            let (x, rank) = (run(tile, columns[level - 1 + within] as usize + block), ranks[level - 1 + within] as u8);
            let (yes, no) = (found[2 * within], found[2 * within + 1]);
            select(&mut found[within], x, rank, &yes, &no);
        }
        level /= 2;
    }
    found[0]
}

#[inline(always)]
fn lowest(found: &mut Leaves, x: &Leaves, rank: u8, yes: u8) {
    for (found, x) in found.iter_mut().zip(x) {
        *found = yes.wrapping_sub(above(*x, rank));
    }
}

#[inline(always)]
fn select(found: &mut Leaves, x: &Leaves, rank: u8, yes: &Leaves, no: &Leaves) {
    for row in 0..BLOCK_ROWS {
        let mask = above(x[row], rank);
        found[row] = (no[row] & mask) | (yes[row] & !mask);
    }
}

#[inline(always)]
fn chain(splits: &Splits, first: u32, count: u32, tile: &[u8], block: usize) -> Leaves {
    let range = first as usize..(first + count) as usize;
    let mut found = [0_u8; BLOCK_ROWS];
    let leaves = &splits.leaves[range.clone()];
    for ((column, rank), [from, to]) in splits.columns[range.clone()].iter().zip(&splits.ranks[range]).zip(leaves) {
        let (rank, from, to) = (*rank as u8, *from as u8, *to as u8);
        for (found, x) in found.iter_mut().zip(run(tile, *column as usize + block)) {
            // Leaves only grow, so the greater one is right.
            let is_here = 0_u8.wrapping_sub(u8::from(*found == from));
            *found = (*found).max(is_here & above(*x, rank) & to);
        }
    }
    found
}

/// Add each row's leaf value; the table has a place for every number a leaf of the tree may have.
#[inline(always)]
pub(super) fn add<T: Copy + std::ops::Add<Output = T>>(sums: &mut [T], leaves: &Leaves, table: &[T]) {
    match table.first_chunk::<LEAVES_MAX>() {
        Some(table) => {
            for (sum, leaf) in sums.iter_mut().zip(leaves) {
                *sum = *sum + table[usize::from(*leaf)];
            }
        }
        None => {
            // Tables are padded to powers of two.
            let mask = table.len() - 1;
            for (sum, leaf) in sums.iter_mut().zip(leaves) {
                *sum = *sum + table[usize::from(*leaf) & mask];
            }
        }
    }
}

const _: () = assert!(TILE_ROWS.is_multiple_of(BLOCK_ROWS));
