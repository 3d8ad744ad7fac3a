//! What a model file may ask for.

use mainstay_base::{Error, Result};

/// Bounds on what importing one file may take. A claim beyond them is `invalid` before anything is allocated for it; a
/// claim within them still allocates only what the file really holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file.
    pub file_bytes: usize,
    /// Trees of one model.
    pub trees: usize,
    /// Nodes of all trees of one model together.
    pub nodes: usize,
    /// Features of a row.
    pub features: usize,
    /// Classes, targets or raw outputs.
    pub classes: usize,
    /// Splits on the longest way through one tree.
    pub depth: usize,
    /// How deeply values of a JSON or UBJSON file are nested.
    pub nesting: usize,
    /// Operations of one graph.
    pub operations: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            file_bytes: 1 << 28,
            trees: 200_000,
            nodes: 16_000_000,
            features: 1 << 18,
            classes: 10_000,
            depth: 4_096,
            nesting: 32,
            operations: 1_000,
        }
    }
}

impl Limits {
    /// `invalid` when there are more of them than the limit; says what and how many.
    pub(crate) fn check(what: &str, count: usize, most: usize) -> Result<()> {
        match count > most {
            true => Err(Error::invalid(format!("{count} {what}; the most is {most}"))),
            false => Ok(()),
        }
    }
}
