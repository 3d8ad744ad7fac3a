//! Batches are offered to a device, and whether it takes them makes no difference but to who computes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::executor::block_on;
use futures::future::join_all;
use mainstay_base::SystemClock;
use mainstay_kernels::{HeldRows, Kernels, Loaded, Options};
use mainstay_models::device::{Device, Part};
use mainstay_models::explain::Explainer;
use mainstay_models::forest::Forest;
use mainstay_models::{Output, Rows, import};

/// Computes every second batch with the scalar reference.
#[derive(Default)]
struct Moody {
    asked: AtomicUsize,
    predicted: AtomicUsize,
    explained: AtomicUsize,
    told: AtomicUsize,
}

impl Moody {
    fn is_willing(&self) -> bool {
        self.asked.fetch_add(1, Ordering::Relaxed).is_multiple_of(2)
    }
}

impl Device for Moody {
    fn batch_rows(&self) -> usize {
        10_000
    }

    fn raw(&self, _number: u64, forest: &Forest, parts: &[Part<'_>], out: &mut [f64]) -> bool {
        if !self.is_willing() {
            return false;
        }
        let mut outs = out.chunks_exact_mut(forest.outputs as usize);
        for part in parts {
            let Rows::F64 { values, features } = part.rows else { panic!("rows as they were given") };
            for row in values.chunks_exact(*features).skip(part.range.start).take(part.range.len()) {
                forest.raw_margin(row, outs.next().expect("a place for each row"));
            }
        }
        assert!(outs.next().is_none(), "a row for each place");
        self.predicted.fetch_add(1, Ordering::Relaxed);
        true
    }

    fn explain(&self, _number: u64, explainer: &Explainer, rows: &Rows<'_>, out: &mut [f64]) -> bool {
        self.explained.fetch_add(1, Ordering::Relaxed);
        self.is_willing() && explainer.explain(rows, out).is_ok()
    }

    fn predicted_here(&self, _number: u64, rows: usize, _nanoseconds: u64) {
        self.told.fetch_add(rows, Ordering::Relaxed);
    }
}

#[test]
fn answers_are_the_same_with_a_device_and_without() {
    let stump = include_str!("../src/stump.txt");
    let model = Arc::new(Loaded::from_bytes("a", stump.as_bytes()).unwrap());
    let features = model.model().features().len();
    let device = Arc::new(Moody::default());
    let options = Options { threads: 2, ..Options::default() };
    let clock = || Arc::new(SystemClock::default());
    let with = Kernels::start_on(&options, clock(), Box::new(import::import), Some(device.clone())).unwrap();
    let without = Kernels::start(&options, clock()).unwrap();
    let rows = |from: usize, count: usize| {
        let values: Vec<f64> = (from..from + count * features).map(|at| (at % 17) as f64 / 4.0 - 2.0).collect();
        HeldRows::F64 { values: values.into(), features }
    };
    let answers = |kernels: &Kernels, output: Output| {
        let caller = kernels.caller("a").unwrap();
        let sizes = [1, 3, 25_000, 7, 400].into_iter().cycle().take(40).enumerate();
        let calls = sizes.map(|(from, count)| caller.predict(model.clone(), rows(from, count), output));
        block_on(join_all(calls)).into_iter().collect::<Result<Vec<_>, _>>().unwrap()
    };
    for output in [Output::Score, Output::Raw, Output::Leaf] {
        assert!(answers(&with, output) == answers(&without, output), "{output:?}");
    }
    assert!(device.predicted.load(Ordering::Relaxed) >= 5, "it computed some");
    assert!(device.told.load(Ordering::Relaxed) > 0, "and was told how long the others took");

    let caller = with.caller("a").unwrap();
    let narrow = HeldRows::F64 { values: vec![0.0; 3 * (features + 1)].into(), features: features + 1 };
    let error = block_on(caller.predict(model.clone(), narrow, Output::Raw)).unwrap_err();
    assert!(error.message().contains("the model takes"), "the width is found without the device: {error}");
}
