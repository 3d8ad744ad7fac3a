//! Kernels read decoded chunks where they lie: bytes allocated stay far below the bytes read.
//!
//! A binary of its own, because it counts every allocation of the process.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use mainstay_arrays::{Column, Numbers};
use mainstay_statistics::*;

struct Counting;

static BYTES: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator unchanged; counting touches no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        BYTES.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        BYTES.fetch_add(size, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROWS: usize = 1_000_000;
/// Records of pieces, counters of bins, tasks of the pool: a small part of the eight million bytes of one column. How many
/// counters there are depends on how the pool's threads share the sixteen pieces of the rows: eight kilobytes each, for a
/// thousand bins.
const ALLOWED_BYTES: usize = 500_000;

fn check<T>(what: &str, run: impl Fn() -> Result<T>) {
    // The pool allocates queues when it first works.
    run().map(drop).unwrap_or_else(|fault| panic!("{what}: {fault}"));
    let before = BYTES.load(Ordering::Relaxed);
    let kept = run().unwrap();
    let allocated = BYTES.load(Ordering::Relaxed) - before;
    drop(kept);
    assert!(allocated <= ALLOWED_BYTES, "{what} allocated {allocated} bytes");
}

#[test]
fn columns_are_read_in_place() {
    let values: Vec<f64> = (0..ROWS).map(|at| (at * 7_919 % 1_000) as f64).collect();
    let narrow: Vec<f32> = values.iter().map(|value| *value as f32).collect();
    let labels: Vec<bool> = values.iter().map(|value| *value > 400.0).collect();
    let there: Vec<bool> = (0..ROWS).map(|at| at % 10 != 0).collect();
    let chunks: Vec<&[f64]> = values.chunks(100_003).collect();
    let with_holes = Column::f64(&values, Some(&there));
    let labels = Column::bool(&labels, None);
    let whole = Numbers::of_f64(&chunks);
    let single = Numbers::of_f32(&narrow.chunks(77_777).collect::<Vec<_>>());
    let labels = labels.numbers().unwrap();
    let guesses: Vec<f64> = values.iter().map(|value| value / 1_000.0).collect();
    let guesses = Numbers::of_f64(&[&guesses]);
    let edges: Vec<f64> = (0..=10).map(|at| f64::from(at) * 100.0).collect();
    let many: Vec<f64> = (0..=1_000).map(f64::from).collect();
    for (kind, view) in [("f64", &whole), ("f32", &single), ("f64 with holes", &with_holes.numbers().unwrap())] {
        let about = |what: &str| format!("{what} of {kind}");
        check(&about("histogram"), || histogram(view, &edges, Ends::Open, Missing::Omit));
        check(&about("histogram of many edges"), || histogram(view, &many, Ends::Closed, Missing::Omit));
        check(&about("moments"), || moments(view, Missing::Omit));
        check(&about("bounds"), || bounds(view, Missing::Omit));
        check(&about("counts"), || number_counts(view, Some((1.0, 900.0)), Some(2_000)));
        check(&about("correlation"), || pearson(view, &whole, Missing::Omit));
        check(&about("calibration"), || calibration(&labels, &guesses, 10, CalibrationBins::Uniform, Missing::Refuse));
        check(&about("centroid of columns"), || {
            centroid(&Matrix::Columns(&[whole.clone(), single.clone()]), Missing::Refuse)
        });
    }
    let rows: Vec<&[f32]> = narrow.chunks(100_000).collect();
    check("centroid of rows", || centroid(&Matrix::RowsF32 { width: 20, chunks: &rows }, Missing::Refuse));
}
