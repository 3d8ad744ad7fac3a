//! Every kernel on the device that is here: is it right, and how fast beside the processor.
//!
//! `gpu_check [--quick] [--forests] [--nvrtc PATH] [--cache FOLDER]`. Prints which card and which processor, then a table to paste. Ends
//! with 1 when an answer differs from the processor's, with 2 when there is no device.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use futures::executor::block_on;
use mainstay_base::SystemClock;
use mainstay_cuda::{Cuda, Mode, Options};
use mainstay_kernels::{HeldRows, Kernels, Loaded};
use mainstay_models::device::{Device, Part};
use mainstay_models::explain::Explainer;
use mainstay_models::import::import;
use mainstay_models::{Model, Output, Rows};
use rayon::prelude::*;

/// Rounds of a measurement; the median counts.
const ROUNDS: usize = 9;
/// Or as many as fit.
const SECONDS: f64 = 2.0;
const FEATURES: usize = 30;
/// What PCIe 5.0 with 16 lanes was measured to carry one way, beside an H100.
const BUS_GB_S: f64 = 55.0;

fn main() {
    let mut options = Options { mode: Mode::Required, weighs: false, ..Options::default() };
    let (mut is_quick, mut is_forests) = (false, false);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--quick" => is_quick = true,
            "--forests" => is_forests = true,
            "--nvrtc" => options.nvrtc = arguments.next().map(PathBuf::from),
            "--cache" => options.cache = arguments.next().map(PathBuf::from),
            other => {
                eprintln!("`{other}` is not known; gpu_check [--quick] [--forests] [--nvrtc PATH] [--cache FOLDER]");
                std::process::exit(2);
            }
        }
    }
    let started = Instant::now();
    let cuda = match Cuda::start(options.clone(), Arc::new(SystemClock::default())) {
        Ok(Some(cuda)) => cuda,
        Ok(None) => unreachable!("a required device is there or an error"),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(2);
        }
    };
    println!("device: {:?}", cuda.description().expect("it was just opened"));
    println!("processor: {}, {} threads", processor(), rayon::current_num_threads());
    println!("found, compiled and checked itself in {:.2} s", started.elapsed().as_secs_f64());
    let mut check = Check { cuda, options, is_quick, wrong: 0 };
    check.forests();
    if !is_forests {
        check.explanations();
    }
    check.served();
    println!("{:?}", check.cuda.stats());
    if check.wrong > 0 {
        println!("{} checks FAILED", check.wrong);
        std::process::exit(1);
    }
    println!("all answers are the processor's to the last bit");
}

fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':'])).to_owned()
}

/// Rows a second of callers that ask again when they have an answer, and the last answer.
fn rate(kernels: &Kernels, model: &Arc<Loaded>, callers: usize, rows: usize, seconds: f64) -> (f64, Vec<f64>) {
    let values: Arc<[f32]> = made_up_rows(rows).into();
    let began = Instant::now();
    let ask = &|number: usize| {
        let caller = kernels.caller(&format!("caller-{number}")).expect("room for a caller");
        let (mut count, mut last) = (0, Vec::new());
        while began.elapsed().as_secs_f64() < seconds {
            let rows = HeldRows::F32 { values: values.clone(), features: FEATURES };
            last = block_on(caller.predict(model.clone(), rows, Output::Raw)).expect("an answer");
            count += last.len();
        }
        (count, last)
    };
    let asked: Vec<(usize, Vec<f64>)> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..callers).map(|number| scope.spawn(move || ask(number))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a caller")).collect()
    });
    let taken = began.elapsed().as_secs_f64();
    let rows: usize = asked.iter().map(|(count, _)| count).sum();
    (rows as f64 / taken, asked.into_iter().next().map(|(_, last)| last).unwrap_or_default())
}

struct Check {
    cuda: Cuda,
    options: Options,
    is_quick: bool,
    wrong: usize,
}

impl Check {
    fn compare(&mut self, what: &str, got: &[f64], want: &[f64]) {
        let differs = || got.iter().zip(want).filter(|(got, want)| got.to_bits() != want.to_bits());
        if let Some((first, right)) = differs().next() {
            println!("{what}: {} of {} values differ, first {first} for {right}", differs().count(), want.len());
            self.wrong += 1;
        }
    }

    fn forests(&mut self) {
        println!(
            "\n| model | rows | device, ns a row | 1 thread | all threads | ratio to 1 | ratio to all | laying out | bus |"
        );
        println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |");
        let shapes: &[(usize, usize, bool)] =
            if self.is_quick { &[(300, 5, false)] } else { &[(300, 5, false), (300, 5, true), (1000, 8, false)] };
        for (number, (trees, depth, is_double)) in shapes.iter().copied().enumerate() {
            let model = import(&made_up_model(trees, depth)).expect("a model");
            let batches: &[usize] =
                if self.is_quick { &[1, 1000, 20_001] } else { &[256, 1_024, 4_096, 16_384, 65_536, 1_048_576] };
            for rows in batches {
                self.forest(&model, number as u64, &format!("{trees} trees, depth {depth}"), *rows, is_double);
            }
        }
    }

    fn forest(&mut self, model: &Model, number: u64, name: &str, count: usize, is_double: bool) {
        let single = made_up_rows(count);
        let double: Vec<f64> = single.iter().map(|value| f64::from(*value)).collect();
        let rows = match is_double {
            true => Rows::F64 { values: &double, features: FEATURES },
            false => Rows::F32 { values: &single, features: FEATURES },
        };
        let forest = model.forest_behind(Output::Raw).expect("trees");
        let (mut got, mut want) = (vec![f64::NAN; count], vec![0.0; count]);
        let parts = [Part { rows: &rows, range: 0..count }];
        let on_device = |got: &mut [f64]| assert!(self.cuda.raw(number, forest, &parts, got), "the device computes it");
        on_device(&mut got);
        let device = median_ns(self.is_quick, count, || on_device(&mut got));
        let one = median_ns(self.is_quick, count, || {
            model.predict_range(&rows, 0..count, Output::Raw, &mut want).expect("rows of the model");
        });
        let share = count.div_ceil(rayon::current_num_threads()).next_multiple_of(64).min(4_096);
        let all = median_ns(self.is_quick, count, || {
            want.par_chunks_mut(share).enumerate().for_each(|(at, out)| {
                let range = at * share..at * share + out.len();
                model.predict_range(&rows, range, Output::Raw, out).expect("rows of the model");
            });
        });
        // What the device is given: this model compares in double precision.
        let bytes_a_row = (FEATURES * 8 + 8) as f64;
        let piece = count.min(mainstay_cuda::PIECE_ROWS);
        let mut laid = vec![0.0_f64; piece * FEATURES];
        let laying = median_ns(self.is_quick, piece, || _ = rows.copy_f64(0..piece, &mut laid));
        let kind = if is_double { "f64" } else { "f32" };
        println!(
            "| {name}, {kind} rows | {count} | {device:.1} | {one:.1} | {all:.1} | {:.1}× | {:.1}× | {laying:.1} | {:.1} |",
            one / device,
            all / device,
            bytes_a_row / BUS_GB_S
        );
        self.compare(name, &got, &want);
    }

    /// Through the batcher, as requests come: many callers, each with one request at a time, and measured costs deciding.
    fn served(&mut self) {
        println!("\n| model, callers | rows a request | with the device, rows/s | without | ratio | batches there |");
        println!("| --- | ---: | ---: | ---: | ---: | ---: |");
        let callers = if self.is_quick { 4 } else { 64 };
        for (trees, depth) in [(300, 5), (1000, 8)] {
            let bytes = made_up_model(trees, depth);
            let load = || Arc::new(Loaded::from_bytes("checked", &bytes).expect("a model"));
            for rows in if self.is_quick { &[64][..] } else { &[1, 64, 1_024, 16_384] } {
                let name = format!("{trees} trees, depth {depth}, {callers} callers");
                self.served_one(&load(), &name, callers, *rows);
            }
        }
    }

    fn served_one(&mut self, model: &Arc<Loaded>, name: &str, callers: usize, rows: usize) {
        let clock = || Arc::new(SystemClock::default());
        let options = Options { weighs: true, ..self.options.clone() };
        let device = Cuda::start(options, clock()).expect("it was there before").expect("it was there before");
        let import = || Box::new(import);
        let sizes = mainstay_kernels::Options::default();
        let with = Kernels::start_on(&sizes, clock(), import(), Some(Arc::new(device.clone()))).expect("threads");
        let without = Kernels::start_with(&sizes, clock(), import()).expect("threads");
        let seconds = if self.is_quick { 0.2 } else { SECONDS };
        // Once for both sides to be known, once that counts.
        rate(&with, model, callers, rows, seconds / 2.0);
        let before = device.stats();
        let (there, answers) = rate(&with, model, callers, rows, seconds);
        let after = device.stats();
        let (here, expected) = rate(&without, model, callers, rows, seconds);
        let left: u64 = after.left.iter().sum::<u64>() - before.left.iter().sum::<u64>();
        let batches = after.batches - before.batches;
        println!(
            "| {name} | {rows} | {there:.0} | {here:.0} | {:.1}× | {:.0} % |",
            there / here,
            100.0 * batches as f64 / (batches + left).max(1) as f64,
        );
        self.compare(name, &answers, &expected);
    }

    fn explanations(&mut self) {
        println!("\n| explanations | rows | device, ns a row | 1 thread | all threads | ratio to 1 | ratio to all |");
        println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
        let depths: &[usize] = if self.is_quick { &[5] } else { &[5, 6] };
        for (number, depth) in depths.iter().enumerate() {
            let model = import(&made_up_model(300, *depth)).expect("a model");
            let forest = model.forest().expect("trees");
            let background = made_up_rows(100);
            let background = Rows::F32 { values: &background, features: FEATURES };
            let along = Explainer::new(forest).expect("it has weights");
            let against = Explainer::against(forest, &background).expect("it can be explained");
            let kinds = [("along paths", along), ("against 100 rows", against)];
            for (kind, (name, explainer)) in kinds.iter().enumerate() {
                let batches: &[usize] = if self.is_quick { &[1, 700] } else { &[64, 256, 1_024, 4_096, 65_536] };
                for rows in batches {
                    let number = (2 * number + kind) as u64;
                    self.explanation(explainer, number, &format!("depth {depth}, {name}"), *rows);
                }
            }
        }
    }

    fn explanation(&mut self, explainer: &Explainer, number: u64, name: &str, count: usize) {
        let values = made_up_rows(count);
        let rows = Rows::F32 { values: &values, features: FEATURES };
        let (mut got, mut want) = (vec![f64::NAN; count * FEATURES], vec![0.0; count * FEATURES]);
        let on_device =
            |got: &mut [f64]| assert!(self.cuda.explain(number, explainer, &rows, got), "the device computes it");
        on_device(&mut got);
        let device = median_ns(self.is_quick, count, || on_device(&mut got));
        let alone = rayon::ThreadPoolBuilder::new().num_threads(1).build().expect("one thread");
        // One thread takes 12 µs a row: a part of a large batch says as much.
        let some = count.min(2_048);
        let few = Rows::F32 { values: &values[..some * FEATURES], features: FEATURES };
        let one = alone.install(|| {
            median_ns(self.is_quick, some, || {
                explainer.explain(&few, &mut want[..some * FEATURES]).expect("rows of the model");
            })
        });
        let all = median_ns(self.is_quick, count, || explainer.explain(&rows, &mut want).expect("rows of the model"));
        println!(
            "| {name} | {count} | {device:.1} | {one:.1} | {all:.1} | {:.1}× | {:.1}× |",
            one / device,
            all / device
        );
        self.compare(name, &got, &want);
    }
}

fn median_ns(is_quick: bool, rows: usize, mut act: impl FnMut()) -> f64 {
    let (mut times, began) = (Vec::new(), Instant::now());
    while times.is_empty() || !is_quick && times.len() < ROUNDS && began.elapsed().as_secs_f64() < SECONDS {
        let started = Instant::now();
        act();
        times.push(started.elapsed().as_nanos() as f64 / rows as f64);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// A LightGBM file of complete trees over 30 features, with weights.
fn made_up_model(trees: usize, depth: usize) -> Vec<u8> {
    let mut next = random();
    let mut text =
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nmax_feature_idx=29\nobjective=regression\n\n"
            .to_owned();
    let splits = (1_usize << depth) - 1;
    for tree in 0..trees {
        let list = |count: usize, value: &mut dyn FnMut(usize) -> f64| {
            (0..count).map(|at| value(at).to_string()).collect::<Vec<_>>().join(" ")
        };
        let inner = splits / 2;
        let child = |at: usize, step: usize| {
            if at < inner { (2 * at + step) as f64 } else { -((2 * at + step - splits) as f64) - 1.0 }
        };
        let weight = |level: usize| (1_usize << (depth - level)) as f64 * 10.0;
        text += &format!("Tree={tree}\nnum_leaves={}\nnum_cat=0\n", splits + 1);
        text += &format!("split_feature={}\n", list(splits, &mut |_| (next() % 30) as f64));
        text += &format!("threshold={}\n", list(splits, &mut |_| (next() % 255) as f64 / 255.0));
        text += &format!("decision_type={}\n", list(splits, &mut |_| 2.0));
        text += &format!("left_child={}\n", list(splits, &mut |at| child(at, 1)));
        text += &format!("right_child={}\n", list(splits, &mut |at| child(at, 2)));
        text += &format!("leaf_value={}\n", list(splits + 1, &mut |_| (next() % 1000) as f64 / 1e4));
        text += &format!("leaf_count={}\n", list(splits + 1, &mut |at| 3.0 + (at % 7) as f64));
        text += &format!("leaf_weight={}\n", list(splits + 1, &mut |at| 3.0 + (at % 7) as f64));
        text += &format!("internal_count={}\n", list(splits, &mut |at| weight((at + 1).ilog2() as usize)));
        text += &format!("internal_weight={}\n", list(splits, &mut |at| weight((at + 1).ilog2() as usize)));
        text += "shrinkage=1\n\n\n";
    }
    (text + "end of trees\n").into_bytes()
}

fn made_up_rows(count: usize) -> Vec<f32> {
    let mut next = random();
    (0..count * FEATURES)
        .map(|_| match next() % 10_000 {
            0..100 => f32::NAN,
            other => other as f32 / 1e4,
        })
        .collect()
}

/// A generator of numbers that needs no crate: Marsaglia's xorshift.
fn random() -> impl FnMut() -> u64 {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 16
    }
}
