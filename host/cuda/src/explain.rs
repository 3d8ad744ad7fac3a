//! Explanations on the device, by the processor's own tables.
//!
//! GPUTreeShap (Mitchell, Frank and Holmes, "GPUTreeShap: Massively Parallel Exact Calculation of SHAP Scores for Tree
//! Ensembles", 2022) gives every element of a path a lane of a warp and packs paths into warps like bins. Here the sums over
//! a path are finished before: what a small subtree contributes stands in a table under the case that a row makes of it (see
//! `explain` in mainstay-models). So nothing is left to pack: a thread adds what one place of one row's answer gets, in the
//! order of the trees, and the bits are the processor's.
//!
//! Bounded by: [`CASES_BYTES_MAX`] for the cases of one launch. On failure: [`Trouble`].
#![allow(unsafe_code)]

use std::sync::Arc;

use mainstay_models::device::Part;

use crate::driver::{Context, DeviceMemory, Shape, Trouble};
use crate::forest::{ChoicesArgs, HeldChoices, in_turn, pieces, send};
use crate::pack::FlatTables;
use crate::session::{Lane, Session};
use crate::traffic::Traffic;

/// Cases that one launch writes down.
pub const CASES_BYTES_MAX: usize = 256 << 20;
/// Rows of one launch.
pub const PIECE_ROWS: usize = 16_384;
/// Threads of a block.
const BLOCK: u32 = 128;
/// Blocks side by side in the second direction: what a device allows at most.
const GRID_MAX: u32 = 65_535;

/// `CasesArgs` of explain.cu.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct CasesArgs {
    clumps: u64,
    conditions: u64,
    choices: ChoicesArgs,
    values: u64,
    cases: u64,
    row_stride: u64,
    feature_stride: u64,
    rows: u32,
    clump_count: u32,
}

/// `SumsArgs` of explain.cu.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct SumsArgs {
    tables: u64,
    entry_at: u64,
    entries: u64,
    cases: u64,
    out: u64,
    rows: u32,
    places: u32,
}

/// Tables on the device.
#[derive(Debug)]
pub(crate) struct Held {
    tables: DeviceMemory,
    clumps: DeviceMemory,
    conditions: DeviceMemory,
    entry_at: DeviceMemory,
    entries: DeviceMemory,
    choices: HeldChoices,
    clump_count: usize,
    pub places: usize,
    compares_f32: bool,
}

impl Held {
    pub fn new(context: &Arc<Context>, flat: &FlatTables) -> Result<Held, Trouble> {
        Ok(Held {
            tables: DeviceMemory::of(context, &flat.tables)?,
            clumps: DeviceMemory::of(context, &flat.clumps)?,
            conditions: DeviceMemory::of(context, &flat.conditions)?,
            entry_at: DeviceMemory::of(context, &flat.entry_at)?,
            entries: DeviceMemory::of(context, &flat.entries)?,
            choices: HeldChoices::new(context, &flat.choices)?,
            clump_count: flat.clumps.len(),
            places: flat.places as usize,
            compares_f32: flat.compares_f32,
        })
    }

    /// Rows of one launch.
    pub fn piece_rows(&self) -> usize {
        PIECE_ROWS.min((CASES_BYTES_MAX / self.clump_count.max(1)).max(1))
    }
}

/// Explain rows into `out`, row after row. False when no lane is free.
pub(crate) fn explain(
    session: &Session,
    held: &Held,
    part: Part<'_>,
    rows_max: usize,
    out: &mut [f64],
    traffic: &Traffic,
) -> Result<bool, Trouble> {
    let width = part.rows.features();
    let parts = [part];
    let pieces = pieces(&parts, rows_max.min(held.piece_rows()));
    in_turn(session, &pieces, held.places, out, traffic, |lane: &mut Lane, piece| {
        let (row_stride, feature_stride) = send(lane, &parts, piece, width, held.compares_f32, traffic)?;
        lane.scratch.reserve((held.clump_count * piece.rows).max(1))?;
        lane.device_output.reserve(piece.rows * held.places * size_of::<f64>())?;
        let across = (piece.rows as u32).div_ceil(BLOCK);
        let down = |count: usize| (count.max(1) as u32).min(GRID_MAX);
        let cases = CasesArgs {
            clumps: held.clumps.address(),
            conditions: held.conditions.address(),
            choices: held.choices.args(),
            values: lane.device_input.address(),
            cases: lane.scratch.address(),
            row_stride,
            feature_stride,
            rows: piece.rows as u32,
            clump_count: held.clump_count as u32,
        };
        let function = session.kernels.cases[usize::from(!held.compares_f32)];
        let shape = Shape { grid: (across, down(held.clump_count)), block: BLOCK, shared_bytes: 0 };
        // SAFETY: `cases` is CasesArgs of explain.cu, field by field. What was packed by `pack` names only what is there; all
        // of it and the lane's memory, reserved above for these rows, stay until the lane was waited for.
        unsafe { lane.stream.launch(function, shape, &cases)? };
        let sums = SumsArgs {
            tables: held.tables.address(),
            entry_at: held.entry_at.address(),
            entries: held.entries.address(),
            cases: lane.scratch.address(),
            out: lane.device_output.address(),
            rows: piece.rows as u32,
            places: held.places as u32,
        };
        let shape = Shape { grid: (across, down(held.places)), block: BLOCK, shared_bytes: 0 };
        // SAFETY: as above, for SumsArgs; a case is below the size of its table, because no bit is set beyond `all_set`.
        unsafe { lane.stream.launch(session.kernels.explain_sums, shape, &sums)? };
        traffic.launched();
        traffic.launched();
        Ok(())
    })
}
