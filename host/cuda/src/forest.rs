//! Raw outputs of forests on the device.
//!
//! Owns how a batch is cut into pieces, laid out for the kernel of `cuda/forest.cu`, launched on two lanes in turn, and put
//! together again. The numbers are the processor's to the last bit: the same comparisons, leaves added in the same order in
//! the same precision.
//!
//! Bounded by: [`PIECE_ROWS`] for one launch, fewer when memory is short. On failure: [`Trouble`]; `NoRoom` only when the
//! smallest piece has no room.
#![allow(unsafe_code)]

use std::ops::Range;
use std::sync::Arc;

use mainstay_models::device::Part;
use mainstay_models::{Order, Rows};

use crate::driver::{Context, DeviceMemory, Pinned, Plain, Shape, Trouble};
use crate::pack::{Choices, FlatForest};
use crate::session::{Lane, Session, Taken};
use crate::traffic::Traffic;

/// Rows of one launch: enough to fill the largest device, few enough that copies and launches overlap.
pub const PIECE_ROWS: usize = 32_768;
/// Below this a piece is not cut further when memory is short.
pub const PIECE_ROWS_MIN: usize = 1_024;
/// From so many rows on: rows of a block, and threads for each of them. Few rows need more threads to fill the device, many
/// need larger blocks, because each block reads all nodes.
const SHAPES: [(usize, usize, usize); 3] = [(16_384, 128, 4), (4_096, 64, 8), (0, 32, 16)];
/// Walks of a thread at once: `WALKS` of forest.cu.
const WALKS: usize = 4;

/// `Tables` of common.cuh.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct ChoicesArgs {
    set_at: u64,
    sets: u64,
    list_at: u64,
    lists: u64,
}

/// `ForestArgs` of forest.cu.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct ForestArgs {
    nodes: u64,
    trees: u64,
    additions: u64,
    choices: ChoicesArgs,
    base: u64,
    values: u64,
    sums: u64,
    out: u64,
    row_stride: u64,
    feature_stride: u64,
    rows: u32,
    features: u32,
    outputs: u32,
    is_average: u32,
    tree_count: u32,
    tile: u32,
    lanes: u32,
    values_staged: u32,
    unused: u32,
}

/// Sets and lists on the device.
#[derive(Debug)]
pub(crate) struct HeldChoices {
    set_at: DeviceMemory,
    sets: DeviceMemory,
    list_at: DeviceMemory,
    lists: DeviceMemory,
}

impl HeldChoices {
    pub fn new(context: &Arc<Context>, choices: &Choices) -> Result<HeldChoices, Trouble> {
        Ok(HeldChoices {
            set_at: DeviceMemory::of(context, &choices.set_at)?,
            sets: DeviceMemory::of(context, &choices.sets)?,
            list_at: DeviceMemory::of(context, &choices.list_at)?,
            lists: DeviceMemory::of(context, &choices.lists)?,
        })
    }

    pub fn args(&self) -> ChoicesArgs {
        ChoicesArgs {
            set_at: self.set_at.address(),
            sets: self.sets.address(),
            list_at: self.list_at.address(),
            lists: self.lists.address(),
        }
    }
}

/// A forest on the device.
#[derive(Debug)]
pub(crate) struct Held {
    nodes: DeviceMemory,
    trees: DeviceMemory,
    additions: DeviceMemory,
    choices: HeldChoices,
    base: DeviceMemory,
    tree_count: u32,
    pub features: usize,
    pub outputs: usize,
    is_average: bool,
    pub compares_f32: bool,
    adds_f32: bool,
}

impl Held {
    pub fn new(context: &Arc<Context>, flat: &FlatForest) -> Result<Held, Trouble> {
        Ok(Held {
            nodes: DeviceMemory::of(context, &flat.nodes)?,
            trees: DeviceMemory::of(context, &flat.trees)?,
            additions: DeviceMemory::of(context, &flat.additions)?,
            choices: HeldChoices::new(context, &flat.choices)?,
            base: DeviceMemory::of(context, &flat.base)?,
            tree_count: flat.trees.len() as u32,
            features: flat.features as usize,
            outputs: flat.outputs as usize,
            is_average: flat.is_average,
            compares_f32: flat.compares_f32,
            adds_f32: flat.adds_f32,
        })
    }
}

/// Rows of one launch: parts of parts, one behind the other.
pub(crate) struct Piece {
    parts: Vec<(usize, Range<usize>)>,
    pub rows: usize,
}

/// Cut a batch into pieces of at most so many rows. What is small travels together.
pub(crate) fn pieces(parts: &[Part<'_>], rows_max: usize) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (number, part) in parts.iter().enumerate() {
        let mut from = part.range.start;
        while from < part.range.end {
            if pieces.last().is_none_or(|piece| piece.rows == rows_max) {
                pieces.push(Piece { parts: Vec::new(), rows: 0 });
            }
            let piece = pieces.last_mut().expect("one was just made");
            let count = (part.range.end - from).min(rows_max - piece.rows);
            piece.parts.push((number, from..from + count));
            piece.rows += count;
            from += count;
        }
    }
    pieces
}

/// A number that rows travel in.
pub(crate) trait Travels: Plain + Default {
    fn copy(rows: &Rows<'_>, range: Range<usize>, out: &mut [Self]) -> Order;
}

impl Travels for f32 {
    fn copy(rows: &Rows<'_>, range: Range<usize>, out: &mut [f32]) -> Order {
        rows.copy_f32(range, out)
    }
}

impl Travels for f64 {
    fn copy(rows: &Rows<'_>, range: Range<usize>, out: &mut [f64]) -> Order {
        rows.copy_f64(range, out)
    }
}

/// Lay the values of a piece into pinned memory. Alone, columns stay columns; in company all become rows.
fn lay<T: Travels>(parts: &[Part<'_>], piece: &Piece, width: usize, pinned: &mut Pinned) -> Order {
    let all = pinned.values::<T>(piece.rows * width);
    if let [(number, range)] = &piece.parts[..] {
        return T::copy(parts[*number].rows, range.clone(), all);
    }
    let (mut from, mut turned) = (0, Vec::new());
    for (number, range) in &piece.parts {
        let (count, rows) = (range.len(), parts[*number].rows);
        let out = &mut all[from * width..(from + count) * width];
        from += count;
        match rows {
            Rows::Columns(_) => {
                turned.resize(out.len(), T::default());
                T::copy(rows, range.clone(), &mut turned);
                for (row, out) in out.chunks_exact_mut(width).enumerate() {
                    out.iter_mut().zip(turned[row..].iter().step_by(count)).for_each(|(out, value)| *out = *value);
                }
            }
            _ => _ = T::copy(rows, range.clone(), out),
        }
    }
    Order::Rows
}

/// Copy the rows of a piece to the device; the distance between rows and between features there.
pub(crate) fn send(
    lane: &mut Lane,
    parts: &[Part<'_>],
    piece: &Piece,
    width: usize,
    is_f32: bool,
    traffic: &Traffic,
) -> Result<(u64, u64), Trouble> {
    let value_bytes = if is_f32 { size_of::<f32>() } else { size_of::<f64>() };
    let bytes = piece.rows * width * value_bytes;
    lane.input.reserve(bytes)?;
    lane.device_input.reserve(bytes)?;
    let order = match is_f32 {
        true => lay::<f32>(parts, piece, width, &mut lane.input),
        false => lay::<f64>(parts, piece, width, &mut lane.input),
    };
    lane.stream.upload(&mut lane.input, &lane.device_input, bytes)?;
    traffic.sent(bytes);
    Ok(match order {
        Order::Rows => (width as u64, 1),
        Order::Features => (1, piece.rows as u64),
    })
}

/// Compute a batch into `out`, row after row. False when no lane is free.
pub(crate) fn raw(
    session: &Session,
    held: &Held,
    parts: &[Part<'_>],
    rows_max: usize,
    out: &mut [f64],
    traffic: &Traffic,
) -> Result<bool, Trouble> {
    let pieces = pieces(parts, rows_max);
    let width = parts.first().map_or(0, |part| part.rows.features());
    in_turn(session, &pieces, held.outputs, out, traffic, |lane, piece| {
        launch(session, held, parts, piece, width, lane, traffic)
    })
}

/// Start pieces on two lanes in turn; take what each leaves in its device output, `width` numbers a row, before its lane is
/// started again. False when no lane is free.
pub(crate) fn in_turn(
    session: &Session,
    pieces: &[Piece],
    width: usize,
    out: &mut [f64],
    traffic: &Traffic,
    mut start: impl FnMut(&mut Lane, &Piece) -> Result<(), Trouble>,
) -> Result<bool, Trouble> {
    let mut lanes: Vec<Taken<'_>> = Vec::new();
    for _ in 0..pieces.len().min(2) {
        lanes.extend(session.lane()?);
    }
    if lanes.is_empty() {
        return Ok(pieces.is_empty());
    }
    let (count, mut left) = (lanes.len(), out);
    let mut outs = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let (own, rest) = left.split_at_mut(piece.rows * width);
        outs.push(own);
        left = rest;
    }
    let mut outs = outs.into_iter();
    for (at, piece) in pieces.iter().enumerate() {
        let taken = &mut lanes[at % count];
        if at >= count {
            fetch(taken, outs.next())?;
        }
        let lane = taken.start();
        start(lane, piece)?;
        let bytes = piece.rows * width * size_of::<f64>();
        lane.output.reserve(bytes)?;
        lane.stream.download(&lane.device_output, &mut lane.output, bytes)?;
        traffic.fetched(bytes);
    }
    for at in pieces.len().saturating_sub(count)..pieces.len() {
        fetch(&mut lanes[at % count], outs.next())?;
    }
    Ok(true)
}

fn fetch(taken: &mut Taken<'_>, out: Option<&mut [f64]>) -> Result<(), Trouble> {
    let lane = taken.finish()?;
    if let Some(out) = out {
        out.copy_from_slice(lane.output.values::<f64>(out.len()));
    }
    Ok(())
}

fn launch(
    session: &Session,
    held: &Held,
    parts: &[Part<'_>],
    piece: &Piece,
    width: usize,
    lane: &mut Lane,
    traffic: &Traffic,
) -> Result<(), Trouble> {
    let (row_stride, feature_stride) = send(lane, parts, piece, width, held.compares_f32, traffic)?;
    lane.device_output.reserve(piece.rows * held.outputs * size_of::<f64>())?;
    if held.outputs > 1 {
        lane.scratch.reserve(piece.rows * held.outputs * size_of::<f64>())?;
    }
    let plan = Plan::new(held, piece.rows, session.description.shared_bytes);
    let args = ForestArgs {
        nodes: held.nodes.address(),
        trees: held.trees.address(),
        additions: held.additions.address(),
        choices: held.choices.args(),
        base: held.base.address(),
        values: lane.device_input.address(),
        sums: lane.scratch.address(),
        out: lane.device_output.address(),
        row_stride,
        feature_stride,
        rows: piece.rows as u32,
        features: held.features as u32,
        outputs: held.outputs as u32,
        is_average: u32::from(held.is_average),
        tree_count: held.tree_count,
        tile: plan.tile as u32,
        lanes: plan.lanes as u32,
        values_staged: u32::from(plan.values_staged),
        unused: 0,
    };
    let function = session.kernels.forest[2 * usize::from(!held.compares_f32) + usize::from(!held.adds_f32)];
    let shape = Shape {
        grid: (piece.rows.div_ceil(plan.tile) as u32, 1),
        block: (plan.tile * plan.lanes) as u32,
        shared_bytes: plan.shared_bytes,
    };
    // SAFETY: `args` is ForestArgs of forest.cu, field by field. The forest was packed by `pack`, whose nodes, sets and
    // additions name only what is there; it, the lane's memory and its room (reserved above for `rows` rows) stay until the
    // lane was waited for.
    unsafe { lane.stream.launch(function, shape, &args)? };
    traffic.launched();
    Ok(())
}

/// How a piece is spread over threads.
struct Plan {
    tile: usize,
    lanes: usize,
    values_staged: bool,
    shared_bytes: usize,
}

impl Plan {
    fn new(held: &Held, rows: usize, shared_max: usize) -> Plan {
        let (_, tile, lanes) = SHAPES.into_iter().find(|(from, ..)| rows >= *from).unwrap_or(SHAPES[2]);
        let fixed = tile * lanes * WALKS * size_of::<u32>();
        let value_bytes = if held.compares_f32 { size_of::<f32>() } else { size_of::<f64>() };
        let values = held.features * tile * value_bytes;
        let values_staged = fixed + values <= shared_max;
        Plan { tile, lanes, values_staged, shared_bytes: fixed + if values_staged { values } else { 0 } }
    }
}
